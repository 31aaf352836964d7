//! Connections in PostgreSQL, for gateways that share them: replicas.
//!
//! In: where the database is, and the keys. Out: a [`Store`] that any number of processes use at once. Headers are in the
//! clear and tokens sealed, as in a file; a lease is part of its connection's row.
//!
//! - `schema`: what must be there before anything is used, and how it comes there.
//! - `settings`: where the database is, and how a session there begins: TLS, what a role's defaults must not change.
//! - `line`: the one connection to the database: time limits, a new one when it is lost.
//! - `rows`: the statements of connections and leases; `pending`: what is used once.
//!
//! The time that a caller tells is not used. Replicas' clocks differ, and one that is ahead would end the others' leases:
//! all that ends in this store does so by the database's clock. Nothing here says that a holder has died; its lease ends
//! by time.
//!
//! What must never happen: a statement decides by what an earlier one read and does not say so in its condition; a
//! record is replaced that could not be opened; an error is an answer.

use std::{sync::Arc, time::Duration};

pub(crate) use self::error::{Error, Fault};
use self::{
    line::Line,
    rows::{Leased, Named},
    settings::Settings,
};
use super::{
    Committed, Doing, Kept, Lease, Pending, PendingName, Store, Stored, Taken, Version, record::Record,
};
use crate::{
    oauth::{
        connection::{Connection, ConnectionId, Consent, Summary},
        handle::HandleKey,
        seal::{Keys, StoreId},
    },
    redaction::held,
    vault::secret::Secret,
};

mod error;
mod line;
mod pending;
mod rows;
mod schema;
pub(crate) mod settings;

/// How often something is tried anew that others changed between two statements.
const ROUNDS: u32 = 5;

/// How many records are read at once to be sealed anew.
const RESEAL_BATCH: i64 = 100;

/// A store in a database.
#[derive(Debug)]
pub(crate) struct Postgres {
    line: Line,
    keys: Keys,
    id: StoreId,
}

impl Postgres {
    /// Opens the store, which is made where the database has none.
    ///
    /// # Errors
    /// [`Error`]; the database is as it was.
    pub(crate) async fn open(settings: Settings, keys: Keys) -> Result<Self, Error> {
        let line = Line::new(settings)?;
        let place = || line.settings().place();
        let mut session = line.first().await.map_err(|source| Error::Failed { place: place(), source })?;
        let id = schema::prepare(&mut session, line.settings(), &keys).await?;
        line.adopt(id, session).await;
        Ok(Self { line, keys, id })
    }

    /// What handles are made with.
    pub(crate) fn handles(&self) -> HandleKey {
        self.keys.handles()
    }

    /// Seals whatever a former key sealed with the present one, each record by itself, and tells how many there were. What
    /// others write meanwhile stays. One that cannot be opened holds up no other; it is told at the end.
    ///
    /// # Errors
    /// [`super::Error`].
    pub(crate) async fn reseal(&self) -> Result<usize, super::Error> {
        let sealing = self.keys.sealing();
        let (mut count, mut after, mut unusable) = (0, None, None);
        loop {
            let batch = rows::sealed_before(&self.line, sealing, after, RESEAL_BATCH).await;
            let batch = batch.map_err(|fault| self.unread(fault))?;
            let Some((last, _)) = batch.last() else { break };
            after = Some(*last);
            for (id, old) in &batch {
                match self.reseal_one(*id, old).await {
                    Ok(done) => count += usize::from(done),
                    Err(error @ super::Error::Unusable { .. }) => unusable = unusable.or(Some(error)),
                    Err(error) => return Err(error),
                }
            }
        }
        unusable.map_or(Ok(count), Err)
    }

    async fn reseal_one(&self, id: ConnectionId, old: &Record) -> Result<bool, super::Error> {
        let new = old.reseal(id, self.id, &self.keys).map_err(|source| self.unusable(id, source))?;
        let Some(new) = new else { return Ok(false) };
        let done = rows::reseal(&self.line, id, old, &new, self.keys.sealing()).await;
        done.map_err(|fault| self.unwritten(fault))
    }

    async fn load(&self, id: ConnectionId) -> Result<Option<Stored>, super::Error> {
        let record = rows::record(&self.line, id).await.map_err(|fault| self.unread(fault))?;
        let open = |record: Record| record.open(id, self.id, &self.keys);
        let stored = record.map(open).transpose().map_err(|source| self.unusable(id, source))?;
        if let Some(Consent::Live(tokens)) = stored.as_ref().map(|stored| &stored.connection.consent) {
            held().remember(tokens.secrets());
        }
        Ok(stored)
    }

    async fn list(&self) -> Result<Vec<Summary>, super::Error> {
        let headers = rows::headers(&self.line).await.map_err(|fault| self.unread(fault))?;
        Ok(Record::summaries(headers))
    }

    async fn insert(&self, connection: &Connection) -> Result<(), super::Error> {
        let id = connection.id;
        let record = self.seal(connection, Version(1))?;
        match rows::insert(&self.line, id, &record, self.keys.sealing()).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(super::Error::Exists { id }),
            Err(fault) => Err(self.unwritten(fault)),
        }
    }

    async fn take_lease(
        &self,
        id: ConnectionId,
        owner: &str,
        lasts: Duration,
    ) -> Result<Taken, super::Error> {
        let unwritten = |fault| self.unwritten(fault);
        for _ in 0..ROUNDS {
            let taken = rows::take(&self.line, id, owner, lasts).await.map_err(unwritten)?;
            if let Some((fence, abandoned_by)) = taken {
                return Ok(Taken::Lease(Lease { id, fence, abandoned_by }));
            }
            match rows::holder(&self.line, id).await.map_err(unwritten)? {
                None => return Ok(Taken::Absent),
                Some(Some(holder)) => return Ok(Taken::Held(holder)),
                // It was given back in between.
                Some(None) => {}
            }
        }
        Err(self.unwritten(Fault::Busy))
    }

    async fn commit(
        &self,
        lease: Named,
        expected: Version,
        connection: &Connection,
    ) -> Result<Committed, super::Error> {
        if connection.id != lease.id {
            return Ok(Committed::Lost);
        }
        let version = Version(expected.0.saturating_add(1));
        let new = self.seal(connection, version)?;
        for _ in 0..ROUNDS {
            let found = rows::leased(&self.line, lease).await.map_err(|fault| self.unwritten(fault))?;
            let Some(Leased { record: old, is_held: true }) = found else { return Ok(Committed::Lost) };
            let open = old.open(lease.id, self.id, &self.keys);
            if open.map_err(|source| self.unusable(lease.id, source))?.version != expected {
                return Ok(Committed::Lost);
            }
            let replaced = rows::replace(&self.line, lease, &old, &new, self.keys.sealing()).await;
            if replaced.map_err(|fault| self.unwritten(fault))? {
                return Ok(Committed::Stored(version));
            }
            // The lease was lost in between, or only another key has sealed the same.
        }
        Err(self.unwritten(Fault::Busy))
    }

    async fn renew(&self, lease: Named, lasts: Duration) -> Result<Kept, super::Error> {
        self.kept(rows::renew(&self.line, lease, lasts).await)
    }

    async fn give_back(&self, lease: Named) -> Result<(), super::Error> {
        self.kept(rows::give_back(&self.line, lease).await).map(|_| ())
    }

    async fn remove(&self, lease: Named) -> Result<Kept, super::Error> {
        self.kept(rows::remove(&self.line, lease).await)
    }

    fn kept(&self, done: Result<bool, Fault>) -> Result<Kept, super::Error> {
        let done = done.map_err(|fault| self.unwritten(fault))?;
        Ok(if done { Kept::Done } else { Kept::Lost })
    }

    fn seal(&self, connection: &Connection, version: Version) -> Result<Record, super::Error> {
        let sealed = Record::seal(connection, version, self.id, &self.keys);
        sealed.map_err(|source| self.unusable(connection.id, source))
    }

    fn unusable(&self, id: ConnectionId, source: super::record::Error) -> super::Error {
        super::Error::Unusable { id, place: self.line.settings().place(), source: source.into() }
    }

    fn unread(&self, fault: Fault) -> super::Error {
        super::Error::Unread { place: self.line.settings().place(), source: fault.into() }
    }

    fn unwritten(&self, fault: Fault) -> super::Error {
        super::Error::Unwritten { place: self.line.settings().place(), source: fault.into() }
    }
}

fn named(lease: &Lease) -> Named {
    Named { id: lease.id, fence: lease.fence }
}

impl Store for Postgres {
    fn load(&self, id: ConnectionId) -> Doing<'_, Result<Option<Stored>, super::Error>> {
        Box::pin(self.load(id))
    }

    fn list(&self) -> Doing<'_, Result<Vec<Summary>, super::Error>> {
        Box::pin(self.list())
    }

    fn insert<'a>(&'a self, connection: &'a Connection) -> Doing<'a, Result<(), super::Error>> {
        Box::pin(self.insert(connection))
    }

    /// By the database's clock.
    fn take_lease<'a>(
        &'a self,
        id: ConnectionId,
        owner: &'a str,
        _: u64,
        lasts: Duration,
    ) -> Doing<'a, Result<Taken, super::Error>> {
        Box::pin(self.take_lease(id, owner, lasts))
    }

    /// By the database's clock.
    fn renew<'a>(
        &'a self,
        lease: &'a Lease,
        _: u64,
        lasts: Duration,
    ) -> Doing<'a, Result<Kept, super::Error>> {
        Box::pin(self.renew(named(lease), lasts))
    }

    fn give_back<'a>(&'a self, lease: &'a Lease) -> Doing<'a, Result<(), super::Error>> {
        Box::pin(self.give_back(named(lease)))
    }

    fn commit<'a>(
        &'a self,
        lease: &'a Lease,
        expected: Version,
        connection: &'a Connection,
    ) -> Doing<'a, Result<Committed, super::Error>> {
        Box::pin(self.commit(named(lease), expected, connection))
    }

    fn remove<'a>(&'a self, lease: &'a Lease) -> Doing<'a, Result<Kept, super::Error>> {
        Box::pin(self.remove(named(lease)))
    }

    /// `now` says how long it is good, and nothing else.
    fn put_pending<'a>(&'a self, pending: &'a Pending, now: u64) -> Doing<'a, Result<(), super::Error>> {
        Box::pin(self.put_pending(pending, now))
    }

    /// By the database's clock.
    fn look_pending(
        &self,
        name: PendingName,
        _: u64,
    ) -> Doing<'_, Result<Option<Arc<Secret>>, super::Error>> {
        Box::pin(self.look_pending(name))
    }

    /// By the database's clock.
    fn take_pending(
        &self,
        name: PendingName,
        _: u64,
    ) -> Doing<'_, Result<Option<Arc<Secret>>, super::Error>> {
        Box::pin(self.take_pending(name))
    }
}

#[cfg(test)]
mod tests;
