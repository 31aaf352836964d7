//! What is done with the database, one transaction for each call. All of it waits for the disk.
//!
//! In: an open database, and what a store was asked. Out: what it answers. A write that changes nothing is not synced.
//!
//! What must never happen: a record is replaced that could not be opened; a record is written and its lease is not, or
//! the reverse; a database that had an error goes on being used.

use std::{
    fs::File,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, WriteTransaction};

use super::{
    super::{
        Committed, Error, Kept, Lease, Source, Stored, Taken, Version,
        lease::{Row, Take},
        pending,
        record::Record,
    },
    file::{self, CONNECTIONS, LEASES},
};
use crate::{
    oauth::{
        connection::{Connection, ConnectionId, Consent, Summary},
        seal::{Keys, StoreId},
    },
    redaction::held,
    storage,
};

/// An open store.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) path: PathBuf,
    /// The file that was judged; the database uses it.
    pub(super) file: File,
    pub(super) keys: Keys,
    pub(super) id: StoreId,
    pub(super) opening: u64,
    /// `None` after an error, until the next call.
    pub(super) database: Mutex<Option<Database>>,
    pub(super) _lock: storage::Lock,
}

/// A lease, by its connection and its fence.
pub(super) type Named = (ConnectionId, u64);

/// All records, by id.
pub(super) fn rows(read: &ReadTransaction) -> Result<Vec<([u8; 16], Record)>, redb::Error> {
    let mut rows = Vec::new();
    for row in read.open_table(CONNECTIONS)?.iter()? {
        let (id, record) = row?;
        rows.push((file::id_of(id.value())?.to_bytes(), owned(record.value())));
    }
    Ok(rows)
}

pub(super) fn owned((_, header, sealed): file::Row<'_>) -> Record {
    Record { header: header.to_owned(), sealed: sealed.to_vec() }
}

/// Why a transaction was not brought to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("the database failed")]
    Database(#[source] Box<redb::Error>),
    #[error("connection {0} cannot be used")]
    Record(ConnectionId, #[source] Source),
    #[error("connection {0} exists already")]
    Exists(ConnectionId),
    #[error("a pending record is not written or opened")]
    Pending(#[source] pending::Error),
    #[error("there are too many pending records")]
    Full,
}

/// redb has an error type for each of its types, and one that they all become.
macro_rules! from_redb {
    ($($error:ident),+) => {
        $(impl From<redb::$error> for Fault {
            fn from(error: redb::$error) -> Self {
                Self::Database(Box::new(error.into()))
            }
        })+
    };
}
from_redb!(Error, StorageError, TableError, TransactionError, CommitError);

/// What becomes of a transaction.
pub(super) enum Change<T> {
    Commit(T),
    /// Nothing was changed, so there is nothing to sync.
    Nothing(T),
}

impl Inner {
    /// With the database, which is opened anew where the last call found it broken.
    pub(super) fn with<T>(&self, f: impl FnOnce(&Database) -> Result<T, Fault>) -> Result<T, Fault> {
        let mut slot = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let database = match slot.take() {
            Some(database) => database,
            None => file::database(&self.file)?,
        };
        let done = f(&database);
        if !matches!(done, Err(Fault::Database(_))) {
            *slot = Some(database);
        }
        done
    }

    pub(super) fn read<T>(&self, f: impl FnOnce(&ReadTransaction) -> Result<T, Fault>) -> Result<T, Error> {
        let done = self.with(|database| f(&database.begin_read()?));
        done.map_err(|fault| self.error(fault, |place, source| Error::Unread { place, source }))
    }

    pub(super) fn write<T>(
        &self,
        f: impl FnOnce(&WriteTransaction) -> Result<Change<T>, Fault>,
    ) -> Result<T, Error> {
        let done = self.with(|database| {
            let write = file::begin(database)?;
            match f(&write)? {
                Change::Commit(done) => write.commit().map(|()| done).map_err(Into::into),
                Change::Nothing(done) => write.abort().map(|()| done).map_err(Into::into),
            }
        });
        done.map_err(|fault| self.error(fault, |place, source| Error::Unwritten { place, source }))
    }

    fn error(&self, fault: Fault, failed: impl FnOnce(String, Source) -> Error) -> Error {
        let place = self.path.display().to_string();
        match fault {
            Fault::Database(source) => failed(place, source),
            Fault::Record(id, source) => Error::Unusable { id, place, source },
            Fault::Exists(id) => Error::Exists { id },
            Fault::Pending(pending::Error::TooLarge) => Error::TooLarge,
            Fault::Pending(source) => Error::PendingUnusable { place, source: source.into() },
            Fault::Full => Error::Full { place },
        }
    }

    pub(super) fn load(&self, id: ConnectionId) -> Result<Option<Stored>, Error> {
        let stored = self.read(|read| {
            let record = read
                .open_table(CONNECTIONS)?
                .get(id.to_bytes().as_slice())?
                .map(|record| owned(record.value()));
            let Some(record) = record else { return Ok(None) };
            record.open(id, self.id, &self.keys).map(Some).map_err(|source| Fault::Record(id, source.into()))
        })?;
        if let Some(Consent::Live(tokens)) = stored.as_ref().map(|stored| &stored.connection.consent) {
            held().remember(tokens.secrets());
        }
        Ok(stored)
    }

    pub(super) fn list(&self) -> Result<Vec<Summary>, Error> {
        self.read(|read| {
            let all = file::headers(read)?;
            Ok(Record::summaries(all))
        })
    }

    pub(super) fn insert(&self, connection: &Connection) -> Result<(), Error> {
        let id = connection.id;
        self.write(|write| {
            if write.open_table(CONNECTIONS)?.get(id.to_bytes().as_slice())?.is_some() {
                return Err(Fault::Exists(id));
            }
            self.put(write, connection, Version(1))?;
            put_row(write, id, &Row::default())?;
            Ok(Change::Commit(()))
        })
    }

    fn put(&self, write: &WriteTransaction, connection: &Connection, version: Version) -> Result<(), Fault> {
        let id = connection.id;
        let record = Record::seal(connection, version, self.id, &self.keys)
            .map_err(|source| Fault::Record(id, source.into()))?;
        put_record(write, id, &record)
    }

    pub(super) fn take_lease(
        &self,
        id: ConnectionId,
        owner: &str,
        now: u64,
        until: u64,
    ) -> Result<Taken, Error> {
        self.write(|write| {
            if write.open_table(CONNECTIONS)?.get(id.to_bytes().as_slice())?.is_none() {
                return Ok(Change::Nothing(Taken::Absent));
            }
            match row(write, id)?.unwrap_or_default().take(owner, now, until, self.opening) {
                Take::Held(holder) => Ok(Change::Nothing(Taken::Held(holder))),
                Take::Row(row, abandoned_by) => {
                    put_row(write, id, &row)?;
                    Ok(Change::Commit(Taken::Lease(Lease { id, fence: row.fence, abandoned_by })))
                }
            }
        })
    }

    /// `f` with the row of a lease, if that is not lost.
    fn holding<T>(
        &self,
        (id, fence): Named,
        lost: T,
        f: impl FnOnce(&WriteTransaction, &Row) -> Result<Change<T>, Fault>,
    ) -> Result<T, Error> {
        self.write(|write| match row(write, id)?.filter(|row| row.is_of(fence)) {
            Some(row) => f(write, &row),
            None => Ok(Change::Nothing(lost)),
        })
    }

    pub(super) fn commit(
        &self,
        lease: Named,
        expected: Version,
        connection: &Connection,
    ) -> Result<Committed, Error> {
        let id = lease.0;
        self.holding(lease, Committed::Lost, |write, row| {
            let found = self.found(write, id)?;
            if found != Some(expected) || connection.id != id {
                return Ok(Change::Nothing(Committed::Lost));
            }
            let version = Version(expected.0.saturating_add(1));
            self.put(write, connection, version)?;
            put_row(write, id, &row.free())?;
            Ok(Change::Commit(Committed::Stored(version)))
        })
    }

    pub(super) fn renew(&self, lease: Named, until: u64) -> Result<Kept, Error> {
        self.holding(lease, Kept::Lost, |write, row| {
            put_row(write, lease.0, &row.renewed(until, self.opening))?;
            Ok(Change::Commit(Kept::Done))
        })
    }

    pub(super) fn give_back(&self, lease: Named) -> Result<(), Error> {
        self.holding(lease, (), |write, row| put_row(write, lease.0, &row.free()).map(Change::Commit))
    }

    pub(super) fn remove(&self, lease: Named) -> Result<Kept, Error> {
        let id = lease.0.to_bytes();
        self.holding(lease, Kept::Lost, |write, _| {
            write.open_table(CONNECTIONS)?.remove(id.as_slice())?;
            write.open_table(LEASES)?.remove(id.as_slice())?;
            Ok(Change::Commit(Kept::Done))
        })
    }

    /// The version of what is there, which must be something that could be opened.
    fn found(&self, write: &WriteTransaction, id: ConnectionId) -> Result<Option<Version>, Fault> {
        let record =
            write.open_table(CONNECTIONS)?.get(id.to_bytes().as_slice())?.map(|record| owned(record.value()));
        let open = |record: Record| record.open(id, self.id, &self.keys);
        let stored = record.map(open).transpose().map_err(|source| Fault::Record(id, source.into()))?;
        Ok(stored.map(|stored| stored.version))
    }

    pub(super) fn sealed_before(&self) -> Result<Vec<ConnectionId>, Error> {
        self.read(|read| {
            let is_former = |header: &str| Record::key(header).is_ok_and(|key| key != self.keys.sealing());
            let headers = file::headers(read)?.into_iter();
            Ok(headers.filter(|(_, header)| is_former(header)).map(|(id, _)| id).collect())
        })
    }

    pub(super) fn reseal(&self, id: ConnectionId) -> Result<(), Error> {
        self.write(|write| {
            let record = write
                .open_table(CONNECTIONS)?
                .get(id.to_bytes().as_slice())?
                .map(|record| owned(record.value()));
            let Some(record) = record else { return Ok(Change::Nothing(())) };
            let fresh = record.reseal(id, self.id, &self.keys);
            match fresh.map_err(|source| Fault::Record(id, source.into()))? {
                None => Ok(Change::Nothing(())),
                Some(fresh) => put_record(write, id, &fresh).map(Change::Commit),
            }
        })
    }
}

fn put_record(write: &WriteTransaction, id: ConnectionId, record: &Record) -> Result<(), Fault> {
    let mut table = write.open_table(CONNECTIONS)?;
    table.insert(id.to_bytes().as_slice(), (0, record.header.as_str(), record.sealed.as_slice()))?;
    Ok(())
}

fn row(write: &WriteTransaction, id: ConnectionId) -> Result<Option<Row>, Fault> {
    let text = write.open_table(LEASES)?.get(id.to_bytes().as_slice())?.map(|row| row.value().1.to_owned());
    let read = |text: String| serde_json::from_str(&text);
    text.map(read).transpose().map_err(|source| Fault::Record(id, source.into()))
}

fn put_row(write: &WriteTransaction, id: ConnectionId, row: &Row) -> Result<(), Fault> {
    let text = serde_json::to_string(row).map_err(|source| Fault::Record(id, source.into()))?;
    write.open_table(LEASES)?.insert(id.to_bytes().as_slice(), file::text(&text))?;
    Ok(())
}
