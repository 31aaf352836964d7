//! One connection as requests see it: a cell whose token is swapped when it is refreshed, so that nothing else is built anew.
//!
//! In: what a store has of a connection. Out: a [`Token`] that says itself until when it may be used, or why there is none.
//! Workers keep the cell and read it without a lock; only the [`Broker`](super::broker::Broker) writes it.
//!
//! What must never happen: a token is used after its time, or after its connection was ended; a token of one connection
//! lies in the cell of another.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;

use super::{
    connection::{Access, Connection, ConnectionId, Consent, Purpose, Summary},
    refresh::rules,
    store::{Stored, Version},
};
use crate::{
    credential::{Prepared, Unusable},
    vault::freshness::{Deadline, Moment},
};

/// A request is on its way for a while before the token in it is looked at: a twentieth of its life before its end it is
/// used no longer, within these bounds.
const MARGIN_MIN: Duration = Duration::from_millis(500);
const UNTIL_SENT_MAX: Duration = Duration::from_secs(1);
const MARGIN_MAX: Duration = Duration::from_secs(10);

/// A token that was refused is refreshed when it is at least so old, in seconds.
const NEW: u64 = 10;

/// How precisely it is known when a cell was last used, in seconds.
const USE_PRECISION: u64 = 10;

/// One connection.
pub(crate) struct Cell {
    pub(crate) id: ConnectionId,
    /// As of when the cell was made; what its scopes are now, the token knows.
    pub(crate) purpose: Purpose,
    created: u64,
    held: ArcSwap<Held>,
    /// In Unix seconds.
    used: AtomicU64,
}

/// What a cell holds.
#[derive(Debug, Clone)]
pub(crate) enum Held {
    /// This; it may have expired.
    Token(Arc<Token>),
    /// Nothing yet: the connection was imported, and is still to be refreshed.
    Nothing(Version),
    /// The user must consent again.
    Gone,
    /// This cell is not kept any more: another one may be.
    Retired,
}

/// An access token, ready for requests.
#[derive(Debug)]
pub(crate) struct Token {
    /// With the deadline in it.
    pub(crate) credential: Prepared,
    /// What it is good for.
    pub(crate) scopes: Vec<String>,
    /// Of the connection when this token was there first.
    pub(crate) version: Version,
    /// From then on it is none, in Unix seconds; `None`: the provider did not say.
    pub(crate) expires: Option<u64>,
    /// When it is refreshed, in Unix seconds; `None`: when somebody needs it and it has expired.
    pub(crate) due: Option<u64>,
    /// When it was seen first, in Unix seconds.
    since: u64,
    /// What a request is given from its beginning until it is sent.
    until_sent: Duration,
    deadline: Arc<Deadline>,
}

impl Token {
    /// As of `at`; `dice` spreads refreshes.
    pub(crate) fn new(
        name: &str,
        access: &Access,
        scopes: &[String],
        version: Version,
        at: SystemTime,
        dice: u64,
    ) -> Result<Self, Unusable> {
        let deadline = Arc::new(Deadline::never());
        let mut until_sent = Duration::ZERO;
        if let Some(expires) = access.expires {
            // Not in whole seconds: tokens of a few seconds are worth them.
            let left = (UNIX_EPOCH + Duration::from_secs(expires)).duration_since(at).unwrap_or_default();
            until_sent = (left / 10).min(UNTIL_SENT_MAX);
            let margin = (left / 20).clamp(MARGIN_MIN, MARGIN_MAX);
            match left.checked_sub(margin) {
                Some(left) => deadline.confirm(Moment::at(at), Some(left)),
                None => deadline.revoke(),
            }
        }
        Ok(Self {
            credential: Prepared::access_token(name, &access.token)?.until(deadline.clone()),
            scopes: scopes.to_vec(),
            version,
            expires: access.expires,
            due: access.expires.map(|expires| rules::due(seconds(at), expires, dice)),
            since: seconds(at),
            until_sent,
            deadline,
        })
    }

    /// Whether it is so new that a refusal of it says more of the request than of the token: whoever asks for the same
    /// again and again must not have it refreshed each time.
    pub(crate) fn is_new(&self, now: u64) -> bool {
        now < self.since.saturating_add(NEW)
    }

    /// The same, which nothing replaces ahead of its end.
    fn that_ends(mut self) -> Self {
        self.due = None;
        self
    }

    /// Whether a request that begins now may carry it: it is looked at again before it is sent, and must last until then.
    pub(crate) fn is_usable(&self) -> bool {
        self.deadline.remaining(Moment::now()).is_none_or(|left| left > self.until_sent)
    }
}

impl Cell {
    pub(crate) fn new(stored: &Stored, at: SystemTime, dice: u64) -> Result<Self, Unusable> {
        let held = held(stored, at, dice)?;
        let (held, used) = (ArcSwap::from_pointee(held), seconds(at).into());
        let Summary { id, purpose, created, .. } = stored.connection.summary();
        Ok(Self { id, purpose, created, held, used })
    }

    /// What there is now.
    pub(crate) fn held(&self) -> Arc<Held> {
        self.held.load_full()
    }

    /// The token, if requests may carry it.
    pub(crate) fn usable(&self) -> Option<Arc<Token>> {
        match &**self.held.load() {
            Held::Token(token) if token.is_usable() => Some(token.clone()),
            _ => None,
        }
    }

    /// Which version it is of; `None`: the connection is gone.
    pub(crate) fn version(&self) -> Option<Version> {
        match &**self.held.load() {
            Held::Token(token) => Some(token.version),
            Held::Nothing(version) => Some(*version),
            Held::Gone | Held::Retired => None,
        }
    }

    /// Takes up what a store has now, unless the cell is of a later version. One that nobody keeps stays so, and so is one
    /// whose user consented anew: to another host, maybe.
    pub(super) fn put(&self, stored: &Stored, at: SystemTime, dice: u64) -> Result<(), Unusable> {
        if matches!(**self.held.load(), Held::Retired) {
            return Ok(());
        }
        if !self.is_about(&stored.connection.summary()) {
            self.retire();
            return Ok(());
        }
        if self.version().is_some_and(|version| version >= stored.version) {
            return Ok(());
        }
        self.held.store(Arc::new(held(stored, at, dice)?));
        Ok(())
    }

    /// Whether this is still the consent that the cell was made for.
    pub(super) fn is_about(&self, now: &Summary) -> bool {
        let Purpose { provider, environment, host, caller, user_guid, scopes: _ } = &self.purpose;
        let there = &now.purpose;
        (self.id, self.created) == (now.id, now.created)
            && (provider, environment, host) == (&there.provider, &there.environment, &there.host)
            && (caller, user_guid) == (&there.caller, &there.user_guid)
    }

    /// Its consent is over: nobody uses its token from now on.
    pub(super) fn end(&self) {
        self.revoke(Held::Gone);
    }

    /// Whoever still has the cell asks for another.
    pub(super) fn retire(&self) {
        self.revoke(Held::Retired);
    }

    fn revoke(&self, now: Held) {
        if let Held::Token(token) = &*self.held.swap(Arc::new(now)) {
            token.deadline.revoke();
        }
    }

    /// Says that a request has used it.
    pub(crate) fn note_use(&self, now: u64) {
        // Written seldom, so that cores do not take the line from each other.
        if self.used.load(Relaxed) + USE_PRECISION <= now {
            self.used.store(now, Relaxed);
        }
    }

    /// When a request last used it, in Unix seconds.
    pub(super) fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }
}

impl std::fmt::Debug for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cell({})", self.id)
    }
}

/// In Unix seconds.
pub(crate) fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// How a connection is called in records.
pub(crate) fn name(id: ConnectionId) -> String {
    format!("connection:{id}")
}

fn held(stored: &Stored, at: SystemTime, dice: u64) -> Result<Held, Unusable> {
    let Stored { connection: Connection { id, purpose, consent, .. }, version } = stored;
    Ok(match consent {
        Consent::Gone { .. } => Held::Gone,
        Consent::Live(tokens) => match &tokens.access {
            Some(access) => {
                let token = Token::new(&name(*id), access, &purpose.scopes, *version, at, dice)?;
                // What cannot be refreshed is good until its end.
                Held::Token(Arc::new(if tokens.refresh.is_some() { token } else { token.that_ends() }))
            }
            None => Held::Nothing(*version),
        },
    })
}
