//! A code becomes tokens, and those become a connection in the store.
//!
//! In: a code that came back with its state. Out: the connection's id, once it is stored.
//!
//! The tokens are nobody else's: what is not stored at once is tried again for a while, and then given up at the provider,
//! so that no consent stays that nobody knows of. A connection that is renewed is changed under its lease, like a refresh;
//! its former tokens are not given up, because many providers end the whole grant with them, the new tokens included. For the
//! same reason new tokens that cannot be stored are not given up while the connection goes on with its former ones.
//!
//! What must never happen: an id is told before its connection is stored; a connection of another caller gets the tokens.

use std::time::Duration;

use super::{
    Failure, Shared, check_same,
    record::{Attempt, Order},
};
use crate::{
    oauth::{
        connection::{Access, Connection, ConnectionId, Consent, Tokens},
        giving_up::give_up_unkept,
        holding::{LEASE, leave},
        provider::Provider,
        store::{self, Committed, Stored, Taken},
        token_endpoint::{Fault, Grant, Granted},
    },
    vault::secret::Secret,
};

/// How often what was answered is tried to be stored.
const WRITES_MAX: u32 = 60;

/// Between two.
const WRITE_PAUSE: Duration = Duration::from_secs(1);

/// One exchange.
pub(super) struct Exchange<'a> {
    pub(super) shared: &'a Shared,
    pub(super) provider: &'a Provider,
    pub(super) attempt: &'a Attempt,
}

impl Exchange<'_> {
    pub(super) async fn run(&self, code: &Secret) -> Result<ConnectionId, Failure> {
        let order = &self.attempt.order;
        let renews = order.renews().map_err(|_| Failure::Version)?;
        let id = renews.map_or_else(ConnectionId::random, Ok).map_err(|_| Failure::Interrupted)?;
        let asked = self.shared.clock.now();
        let grant = Grant::Code { code, verifier: &self.attempt.verifier };
        let granted = match self.provider.tokens(&grant).await {
            Ok(granted) => granted,
            Err(fault) => {
                if let Fault::Odd { rotated: Some(token), .. } = &fault {
                    let odd = Tokens { access: None, refresh: Some(token.clone()), ends: None };
                    self.give_up(id, &odd).await;
                }
                return Err(Failure::Exchange(fault));
            }
        };
        let connection = made(id, order, granted, asked);
        let kept = match renews {
            None => self.inserted(&connection).await,
            Some(_) => self.renewed(&connection).await,
        };
        if let Err(failure) = kept {
            let goes_on = renews.is_some() && !matches!(failure, Failure::Gone);
            if let Consent::Live(tokens) = &connection.consent
                && !goes_on
            {
                self.give_up(id, tokens).await;
            }
            return Err(failure);
        }
        Ok(id)
    }

    async fn inserted(&self, connection: &Connection) -> Result<(), Failure> {
        let store = &self.shared.store;
        let mut last = None;
        for _ in 0..WRITES_MAX {
            match store.insert(connection).await {
                Ok(()) => return Ok(()),
                // Ours, of an attempt whose end was not known. Nobody else makes this id.
                Err(store::Error::Exists { .. }) if last.is_some() => return Ok(()),
                Err(error) => last = Some(error),
            }
            self.shared.clock.sleep(WRITE_PAUSE).await;
        }
        Err(last.map_or(Failure::Interrupted, Failure::NotStored))
    }

    async fn renewed(&self, connection: &Connection) -> Result<(), Failure> {
        let mut last = Failure::Held;
        for _ in 0..WRITES_MAX {
            match self.renewal(connection).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(Failure::NotStored(error)) => last = Failure::NotStored(error),
                Err(failure) => return Err(failure),
            }
            self.shared.clock.sleep(WRITE_PAUSE).await;
        }
        Err(last)
    }

    /// One attempt; false: somebody else has it, or was quicker.
    async fn renewal(&self, connection: &Connection) -> Result<bool, Failure> {
        let Shared { store, clock, owner, .. } = self.shared;
        let lease = match store.take_lease(connection.id, owner, clock.now(), LEASE).await {
            Ok(Taken::Lease(lease)) => lease,
            Ok(Taken::Held(_)) => return Ok(false),
            Ok(Taken::Absent) => return Err(Failure::Gone),
            Err(error) => return Err(Failure::NotStored(error)),
        };
        let done = match store.load(connection.id).await {
            Ok(Some(there)) => self.replaced(&lease, there, connection).await,
            Ok(None) => Err(Failure::Gone),
            Err(error) => Err(Failure::NotStored(error)),
        };
        if !matches!(done, Ok(true)) {
            leave(&**store, &lease).await;
        }
        done
    }

    async fn replaced(
        &self,
        lease: &store::Lease,
        there: Stored,
        connection: &Connection,
    ) -> Result<bool, Failure> {
        check_same(&there.connection.purpose, &self.attempt.order.purpose).map_err(|_| Failure::Gone)?;
        let mut connection = connection.clone();
        connection.purpose.user_guid = there.connection.purpose.user_guid;
        match self.shared.store.commit(lease, there.version, &connection).await {
            Ok(Committed::Stored(_)) => Ok(true),
            Ok(Committed::Lost) => Ok(false),
            Err(error) => Err(Failure::NotStored(error)),
        }
    }

    async fn give_up(&self, id: ConnectionId, tokens: &Tokens) {
        give_up_unkept(self.provider, &self.attempt.order.purpose.provider, id, tokens).await;
    }
}

/// `asked` is the moment before the code was sent: a life that is counted from later would end after the provider's.
fn made(id: ConnectionId, order: &Order, granted: Granted, asked: u64) -> Connection {
    let expires = granted.life.map(|life| asked.saturating_add(life.as_secs()));
    let tokens = Tokens {
        access: Some(Access { token: granted.access, expires }),
        ends: if granted.refresh.is_none() { expires } else { None },
        refresh: granted.refresh,
    };
    let Order { mut purpose, issuer, .. } = order.clone();
    purpose.scopes = granted.scopes.unwrap_or(purpose.scopes);
    Connection { id, purpose, issuer, created: asked, consent: Consent::Live(tokens) }
}
