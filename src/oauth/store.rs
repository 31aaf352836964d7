//! Where connections are kept, and who may change one.
//!
//! In: connections, and who wants to renew which. Out: the connection with its version, a [`Lease`], or the word that
//! somebody else has it. One file for each kind of store.
//!
//! A change is made in three steps: [`Store::take_lease`], [`Store::load`], [`Store::commit`]. The lease keeps others
//! from asking the provider at the same time, and ends by itself when its holder has died. It cannot stop a holder that
//! slept through its end, so each lease has a number that rises (its fence) and each record a version, and a write is
//! done only when both are still those that its writer knows.
//!
//! What is answered is durable. The time is the caller's to tell, in Unix seconds, and no store reads a clock, but for one
//! that replicas share: their clocks differ, so `postgres` goes by the database's.
//!
//! What must never happen: two holders of a lease both write; a holder that lost its lease writes; a write that failed
//! is taken for one that did nothing ([`Error::Unwritten`] may have been done, so load before you repeat it); a token is
//! kept unsealed, or opened where a list would do.

#[cfg(test)]
mod cases;
pub(crate) mod embedded;
mod lease;
pub(crate) mod pending;
pub(crate) mod postgres;
mod record;

use std::{pin::Pin, sync::Arc, time::Duration};

pub(crate) use self::pending::{Pending, PendingName};
use super::connection::{Connection, ConnectionId, Summary};
use crate::vault::secret::Secret;

/// What a seam's method gives, later.
pub(crate) type Doing<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Keeps connections.
pub(crate) trait Store: Send + Sync {
    /// The connection with its tokens, which are masked in logs from then on; `None`: there is none.
    fn load(&self, id: ConnectionId) -> Doing<'_, Result<Option<Stored>, Error>>;

    /// Every connection, by id; no token is opened for it.
    fn list(&self) -> Doing<'_, Result<Vec<Summary>, Error>>;

    /// Keeps a new connection, in version 1 and without a lease.
    fn insert<'a>(&'a self, connection: &'a Connection) -> Doing<'a, Result<(), Error>>;

    /// Lets `owner` alone change the connection from `now` on, for as long as it `lasts` (in whole seconds), unless
    /// somebody has a lease that has not ended. Who that is does not matter: an owner does not get a second one either.
    fn take_lease<'a>(
        &'a self,
        id: ConnectionId,
        owner: &'a str,
        now: u64,
        lasts: Duration,
    ) -> Doing<'a, Result<Taken, Error>>;

    /// Lets a lease last from `now` on, also one that has ended, as long as nobody took it over.
    fn renew<'a>(&'a self, lease: &'a Lease, now: u64, lasts: Duration) -> Doing<'a, Result<Kept, Error>>;

    /// Ends a lease, so that nobody waits for its end. One that is lost already is nothing to complain about.
    fn give_back<'a>(&'a self, lease: &'a Lease) -> Doing<'a, Result<(), Error>>;

    /// Puts `connection` in the place of the one of version `expected`, and gives the lease back in the same write. It
    /// may be over by the clock: who holds tokens that nobody else has must get them stored, as long as nobody took over.
    fn commit<'a>(
        &'a self,
        lease: &'a Lease,
        expected: Version,
        connection: &'a Connection,
    ) -> Doing<'a, Result<Committed, Error>>;

    /// Forgets the connection, and the lease with it. It takes a lease, so that no refresh brings tokens that
    /// nobody revokes.
    fn remove<'a>(&'a self, lease: &'a Lease) -> Doing<'a, Result<Kept, Error>>;

    /// Keeps what is used once, under its name, until it is taken or its time is over. What is over is forgotten with it.
    fn put_pending<'a>(&'a self, pending: &'a Pending, now: u64) -> Doing<'a, Result<(), Error>>;

    /// What is kept under `name`, which stays; `None`: it was never there, is taken, or its time is over. Nothing of it is
    /// masked in logs yet.
    fn look_pending(&self, name: PendingName, now: u64) -> Doing<'_, Result<Option<Arc<Secret>>, Error>>;

    /// The same, once: to whoever asks first.
    fn take_pending(&self, name: PendingName, now: u64) -> Doing<'_, Result<Option<Arc<Secret>>, Error>>;
}

/// How many pending records there are at most whose time is not over.
pub(crate) const PENDING_MAX: u64 = 10_000;

/// Rises by one with each [`Store::commit`], from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(crate) u64);

/// A connection as of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    /// What is kept.
    pub(crate) connection: Connection,
    /// What a [`Store::commit`] is based on.
    pub(crate) version: Version,
}

/// The right to change one connection, until somebody else takes it over. Only a store makes one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    /// Which.
    pub(crate) id: ConnectionId,
    /// Higher than that of every earlier lease of this connection.
    pub(crate) fence: u64,
    /// Who had a lease before and neither committed nor gave it back: what it asked of the provider, and what was
    /// answered, nobody knows.
    pub(crate) abandoned_by: Option<Holder>,
}

/// Who has a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    /// A process, by host, id and a random number.
    pub(crate) owner: String,
    /// From then on others may take it over, in Unix seconds.
    pub(crate) until: u64,
}

/// What became of [`Store::take_lease`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is the caller's.
    Lease(Lease),
    /// Somebody has one already.
    Held(Holder),
    /// There is no such connection.
    Absent,
}

/// Whether a lease was still its holder's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It was, and what was asked for is done.
    Done,
    /// Somebody took it over, it was given back, or the connection is gone. Nothing was changed.
    Lost,
}

/// What became of [`Store::commit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Committed {
    /// It was done; the version that is there now.
    Stored(Version),
    /// The lease was lost, as in [`Kept::Lost`], or the version is another one. Nothing was changed.
    Lost,
}

/// Another module's reason.
pub(crate) type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why a store did not do what it was asked. It names places and connections, never tokens.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// There is one of this id.
    #[error("connection {id} exists already")]
    Exists {
        /// Which.
        id: ConnectionId,
    },
    /// One record cannot be used; others can.
    #[error("connection {id} in {place} cannot be opened; it is left as it is")]
    Unusable {
        /// Which.
        id: ConnectionId,
        /// The store.
        place: String,
        /// Why.
        #[source]
        source: Source,
    },
    /// There are too many.
    #[error(
        "{PENDING_MAX} connections are being made already in {place}; no other can be begun until one is done or over"
    )]
    Full {
        /// The store.
        place: String,
    },
    /// A pending record that is larger than any needs to be.
    #[error(
        "what is to be kept of a connection that is being made is larger than {} bytes",
        pending::BYTES_MAX
    )]
    TooLarge,
    /// A pending record cannot be used; it stays until its time is over.
    #[error("what was kept in {place} of a connection that is being made cannot be opened")]
    PendingUnusable {
        /// The store.
        place: String,
        /// Why.
        #[source]
        source: Source,
    },
    /// It could not be read. Nothing was changed.
    #[error("the connections in {place} could not be read")]
    Unread {
        /// The store.
        place: String,
        /// Why.
        #[source]
        source: Source,
    },
    /// It could not be written, or nobody can tell whether it was.
    #[error("the connections in {place} could not be written")]
    Unwritten {
        /// The store.
        place: String,
        /// Why.
        #[source]
        source: Source,
    },
}
