//! Connections in one file: a database of redb's, for a gateway without replicas.
//!
//! In: a path and the keys. Out: a [`Store`] that this process alone uses until it is dropped. Headers are in the clear,
//! tokens sealed; `file` says how the file is judged before anything is written to it.
//!
//! A lease of an earlier process is over when the store is opened, since that process is. A database that had an error is
//! opened anew with the next call, so that a disk that was full costs no restart.
//!
//! What must never happen: what was answered is not in the file; a crash leaves neither the old record nor the new; two
//! processes use one file; a store that is refused (a wrong key, a later format, damage) is changed.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use redb::ReadableDatabase;

pub(crate) use self::error::Error;
use self::{
    file::{About, Place},
    work::{Fault, Inner, Named, rows},
};
use super::{Committed, Doing, Kept, Lease, Pending, PendingName, Store, Stored, Taken, Version};
use crate::{
    oauth::{
        connection::{Connection, ConnectionId, Summary},
        handle::HandleKey,
        seal::{Keys, StoreId},
    },
    vault::secret::Secret,
};

mod error;
mod file;
mod overlay;
mod pending;
mod work;

/// A store in one file. It works on tokio's threads for blocking work, and goes on there when nobody waits any more.
#[derive(Debug, Clone)]
pub(crate) struct Embedded(Arc<Inner>);

/// What [`restore`] made.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Restored {
    /// How many connections it holds.
    pub(crate) connections: usize,
    /// When the backup was made, in Unix seconds: each connection that was refreshed since is most likely lost, for its
    /// refresh token was used. `None`: a file that was copied by other means.
    pub(crate) made: Option<u64>,
}

/// Makes an empty store.
///
/// # Errors
/// [`Error::Exists`], [`Error::InUse`], or why it could not be written.
pub(crate) fn create(path: &Path, keys: &Keys) -> Result<(), Error> {
    let place = Place::of(path);
    let _lock = place.lock()?;
    let id = StoreId(ConnectionId::random()?.to_bytes());
    file::make(&place.store, &About::new(id, keys.sealing()), None)
}

/// Puts a backup where no store is.
///
/// # Errors
/// [`Error::Exists`], [`Error::InUse`], why the backup is not used, or why the store could not be written.
pub(crate) fn restore(path: &Path, from: &Path, keys: &Keys) -> Result<Restored, Error> {
    let place = Place::of(path);
    let _lock = place.lock()?;
    if place.store.exists() {
        return Err(Error::Exists { path: place.store });
    }
    let backup = file::open(from)?;
    let (database, about) = file::look(from, &backup, keys)?;
    let damaged = |source: redb::Error| Error::Damaged { path: from.into(), source: Box::new(source) };
    let read = database.begin_read().map_err(|source| damaged(source.into()))?;
    let connections = file::headers(&read).map_err(damaged)?.len();
    let made = about.backup_of;
    file::make(&place.store, &about.backup(None), Some(&read))?;
    Ok(Restored { connections, made })
}

impl Embedded {
    /// Opens the store at `path`. It reads the whole file, so it belongs on a thread that may wait.
    ///
    /// # Errors
    /// [`Error`]; the file is untouched, unless it could not be written.
    pub(crate) fn open(path: &Path, keys: Keys) -> Result<Self, Error> {
        let place = Place::of(path);
        if !place.store.exists() {
            return Err(Error::Absent { path: place.store });
        }
        let lock = place.lock()?;
        let file = file::open(&place.store)?;
        let (_, about) = file::look(&place.store, &file, &keys)?;
        let about = about.opened(keys.sealing());
        let id = about.id().ok_or_else(|| Error::NotAStore { path: place.store.clone() })?;
        let opened = file::database(&file).and_then(|database| {
            let write = file::begin(&database)?;
            file::put_about(&write, &about)?;
            write.commit()?;
            Ok(database)
        });
        let database = opened.map_err(|source| match source {
            redb::Error::DatabaseAlreadyOpen => Error::InUse { path: place.store.clone() },
            source => Error::Unwritable { path: place.store.clone(), source: io::Error::other(source) },
        })?;
        let (path, opening, database) = (place.store, about.opening, Mutex::new(Some(database)));
        Ok(Self(Arc::new(Inner { path, file, keys, id, opening, database, _lock: lock })))
    }

    /// What handles are made with.
    pub(crate) fn handles(&self) -> HandleKey {
        self.0.keys.handles()
    }

    /// Copies all connections as of now, sealed as they are, to a new file, and checks what was written.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::BackupDiffers`], or why it could not be read or written.
    pub(crate) fn backup(&self, to: &Path, now: u64) -> Result<usize, Error> {
        check_room(to)?;
        let inner = &self.0;
        let unreadable =
            |source| Error::Unreadable { path: inner.path.clone(), source: io::Error::other(source) };
        let read = inner.with(|database| Ok(database.begin_read()?)).map_err(unreadable)?;
        let about = About::new(inner.id, inner.keys.sealing());
        file::make(to, &about.backup(Some(now)), Some(&read))?;
        let (copy, _) = file::look(to, &file::open(to)?, &inner.keys)?;
        let written = copy.begin_read().map_err(redb::Error::from).and_then(|read| rows(&read));
        let kept = rows(&read).map_err(Fault::from).map_err(unreadable)?;
        match written {
            Ok(written) if written == kept => Ok(kept.len()),
            _ => Err(Error::BackupDiffers { path: to.into() }),
        }
    }

    /// Seals whatever a former key sealed with the present one, each record by itself, and tells how many there were. When
    /// it was ended early, the next call goes on.
    ///
    /// # Errors
    /// [`super::Error`].
    pub(crate) async fn reseal(&self) -> Result<usize, super::Error> {
        let ids = self.run(Inner::sealed_before).await?;
        let count = ids.len();
        for id in ids {
            self.run(move |inner| inner.reseal(id)).await?;
        }
        Ok(count)
    }

    /// `f`, on a thread that may wait.
    fn run<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Inner) -> Result<T, super::Error> + Send + 'static,
    ) -> Doing<'static, Result<T, super::Error>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let place = inner.path.display().to_string();
            let done = tokio::task::spawn_blocking(move || f(&inner)).await;
            done.unwrap_or_else(|source| Err(super::Error::Unwritten { place, source: Box::new(source) }))
        })
    }
}

fn check_room(path: &Path) -> Result<(), Error> {
    if path.exists() { Err(Error::Exists { path: path.into() }) } else { Ok(()) }
}

fn named(lease: &Lease) -> Named {
    (lease.id, lease.fence)
}

fn until(now: u64, lasts: Duration) -> u64 {
    now.saturating_add(lasts.as_secs())
}

impl Store for Embedded {
    fn load(&self, id: ConnectionId) -> Doing<'_, Result<Option<Stored>, super::Error>> {
        self.run(move |inner| inner.load(id))
    }

    fn list(&self) -> Doing<'_, Result<Vec<Summary>, super::Error>> {
        self.run(Inner::list)
    }

    fn insert<'a>(&'a self, connection: &'a Connection) -> Doing<'a, Result<(), super::Error>> {
        let connection = connection.clone();
        self.run(move |inner| inner.insert(&connection))
    }

    fn take_lease<'a>(
        &'a self,
        id: ConnectionId,
        owner: &'a str,
        now: u64,
        lasts: Duration,
    ) -> Doing<'a, Result<Taken, super::Error>> {
        let owner = owner.to_owned();
        self.run(move |inner| inner.take_lease(id, &owner, now, until(now, lasts)))
    }

    fn renew<'a>(
        &'a self,
        lease: &'a Lease,
        now: u64,
        lasts: Duration,
    ) -> Doing<'a, Result<Kept, super::Error>> {
        let lease = named(lease);
        self.run(move |inner| inner.renew(lease, until(now, lasts)))
    }

    fn give_back<'a>(&'a self, lease: &'a Lease) -> Doing<'a, Result<(), super::Error>> {
        let lease = named(lease);
        self.run(move |inner| inner.give_back(lease))
    }

    fn commit<'a>(
        &'a self,
        lease: &'a Lease,
        expected: Version,
        connection: &'a Connection,
    ) -> Doing<'a, Result<Committed, super::Error>> {
        let (lease, connection) = (named(lease), connection.clone());
        self.run(move |inner| inner.commit(lease, expected, &connection))
    }

    fn remove<'a>(&'a self, lease: &'a Lease) -> Doing<'a, Result<Kept, super::Error>> {
        let lease = named(lease);
        self.run(move |inner| inner.remove(lease))
    }

    fn put_pending<'a>(&'a self, pending: &'a Pending, now: u64) -> Doing<'a, Result<(), super::Error>> {
        let pending = pending.clone();
        self.run(move |inner| inner.put_pending(&pending, now))
    }

    fn look_pending(
        &self,
        name: PendingName,
        now: u64,
    ) -> Doing<'_, Result<Option<Arc<Secret>>, super::Error>> {
        self.run(move |inner| inner.look_pending(name, now))
    }

    fn take_pending(
        &self,
        name: PendingName,
        now: u64,
    ) -> Doing<'_, Result<Option<Arc<Secret>>, super::Error>> {
        self.run(move |inner| inner.take_pending(name, now))
    }
}

#[cfg(test)]
mod tests;
