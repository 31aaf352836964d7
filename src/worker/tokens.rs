//! Access tokens at one worker: cells that it knows, and its own copies of what is in them.
//!
//! In: which connection is meant. Out: the token that requests may carry now, without a lock; what is not at hand, or has
//! expired, is for the [`Broker`].

use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::Arc};

use crate::{
    credential::Credential,
    oauth::{
        broker::{Broker, Unavailable, Wanted},
        cell::{Cell, Held, Token},
        connection::ConnectionId,
        refresh::Because,
        store::Version,
    },
};

/// So many are remembered; one more, and they are all looked for anew.
const KNOWN_MAX: usize = 10_000;

/// A token, and this worker's copy of it.
#[derive(Clone)]
pub(crate) struct Access {
    pub(crate) token: Arc<Token>,
    pub(crate) credential: Rc<Credential>,
}

/// What one worker knows of tokens.
pub(crate) struct Tokens {
    broker: Option<Arc<Broker>>,
    cells: RefCell<HashMap<ConnectionId, Arc<Cell>>>,
    /// By where the tokens are in memory, which they keep as long as they are here.
    copies: RefCell<HashMap<*const Token, Access>>,
}

impl Tokens {
    pub(super) fn new(broker: Option<Arc<Broker>>) -> Self {
        Self { broker, cells: RefCell::default(), copies: RefCell::default() }
    }

    /// `None`: nothing is configured that needs it.
    pub(crate) fn broker(&self) -> Option<&Arc<Broker>> {
        self.broker.as_ref()
    }

    /// The cell of a connection.
    pub(crate) async fn cell(&self, id: ConnectionId) -> Result<Arc<Cell>, Unavailable> {
        if let Some(cell) = self.known(id) {
            return Ok(cell);
        }
        let cell = self.broker.as_ref().ok_or(Unavailable::Later)?.cell(id).await?;
        let mut cells = self.cells.borrow_mut();
        if cells.len() >= KNOWN_MAX {
            cells.clear();
        }
        cells.insert(id, cell.clone());
        Ok(cell)
    }

    fn known(&self, id: ConnectionId) -> Option<Arc<Cell>> {
        let mut cells = self.cells.borrow_mut();
        let cell = cells.get(&id)?.clone();
        if matches!(*cell.held(), Held::Retired) {
            cells.remove(&id);
            return None;
        }
        Some(cell)
    }

    /// The token in a cell; one that has expired is refreshed first.
    pub(crate) async fn of(&self, cell: &Arc<Cell>) -> Result<Access, Unavailable> {
        if let Some(token) = cell.usable() {
            return Ok(self.copy(token));
        }
        let version = match &*cell.held() {
            Held::Token(token) => token.version,
            Held::Nothing(version) => *version,
            // Its user may have consented again, at another replica: older than anything, so the store decides.
            Held::Gone => Version(0),
            Held::Retired => return Err(Unavailable::Replaced),
        };
        self.after(cell, Because::Due(version)).await
    }

    /// The token in a cell that nobody refreshes.
    pub(crate) fn as_it_is(&self, cell: &Cell) -> Result<Access, Unavailable> {
        match (cell.usable(), &*cell.held()) {
            (Some(token), _) => Ok(self.copy(token)),
            (None, Held::Retired) => Err(Unavailable::Replaced),
            (None, Held::Token(_) | Held::Nothing(_) | Held::Gone) => Err(Unavailable::Gone),
        }
    }

    /// The token that follows the one that was refused.
    pub(crate) async fn after(&self, cell: &Arc<Cell>, because: Because) -> Result<Access, Unavailable> {
        self.broker.as_ref().ok_or(Unavailable::Later)?.refresh(cell, because).await?;
        cell.usable().map(|token| self.copy(token)).ok_or(Unavailable::Later)
    }

    /// The gateway's own token.
    pub(crate) async fn client(&self, wanted: &Wanted) -> Result<Access, Unavailable> {
        let token = self.broker.as_ref().ok_or(Unavailable::Later)?.client(wanted).await?;
        Ok(self.copy(token))
    }

    fn copy(&self, token: Arc<Token>) -> Access {
        let mut copies = self.copies.borrow_mut();
        if let Some(copy) = copies.get(&Arc::as_ptr(&token)) {
            return copy.clone();
        }
        // Those that nobody else has are of no use to anybody.
        if copies.len() >= KNOWN_MAX.min(2 * self.cells.borrow().len() + 16) {
            copies.retain(|_, copy| Arc::strong_count(&copy.token) > 1);
            if copies.len() >= KNOWN_MAX {
                copies.clear();
            }
        }
        let copy = Access { credential: Rc::new(token.credential.for_worker()), token: token.clone() };
        copies.insert(Arc::as_ptr(&token), copy.clone());
        copy
    }
}
