//! What is used once, in the database.
//!
//! In: pending records and their names. Out: their content. What is over is removed with each write of another.
//!
//! What must never happen: a record is given again after it was taken, also by the process after a crash.

use std::sync::Arc;

use redb::{AccessGuard, ReadableTable, ReadableTableMetadata};

use super::{
    super::{
        Error, PENDING_MAX, Pending, PendingName,
        pending::{self, Row},
    },
    file::{self, PENDING},
    work::{Change, Fault, Inner},
};
use crate::vault::secret::Secret;

impl Inner {
    pub(super) fn put_pending(&self, pending: &Pending, now: u64) -> Result<(), Error> {
        let name = pending.name.to_bytes();
        self.write(|write| {
            let row = Row::seal(pending, self.id, &self.keys).map_err(Fault::Pending)?;
            let mut table = write.open_table(PENDING)?;
            table.retain(|_, (ends, ..)| !pending::is_over(ends, now))?;
            if table.len()? >= PENDING_MAX {
                return Err(Fault::Full);
            }
            table.insert(name.as_slice(), (row.ends, row.key.as_str(), row.sealed.as_slice()))?;
            Ok(Change::Commit(()))
        })
    }

    pub(super) fn look_pending(&self, name: PendingName, now: u64) -> Result<Option<Arc<Secret>>, Error> {
        self.read(|read| {
            let table = read.open_table(PENDING)?;
            let Some(row) = table.get(name.to_bytes().as_slice())?.map(owned) else { return Ok(None) };
            self.open_pending(&row, name, now)
        })
    }

    pub(super) fn take_pending(&self, name: PendingName, now: u64) -> Result<Option<Arc<Secret>>, Error> {
        self.write(|write| {
            let mut table = write.open_table(PENDING)?;
            let row = table.get(name.to_bytes().as_slice())?.map(owned);
            let content = row.map(|row| self.open_pending(&row, name, now)).transpose()?.flatten();
            if content.is_none() {
                return Ok(Change::Nothing(None));
            }
            table.remove(name.to_bytes().as_slice())?;
            Ok(Change::Commit(content))
        })
    }

    fn open_pending(&self, row: &Row, name: PendingName, now: u64) -> Result<Option<Arc<Secret>>, Fault> {
        row.open(name, now, self.id, &self.keys).map_err(|error| Fault::Pending(error.into()))
    }
}

fn owned(row: AccessGuard<'_, file::Row<'static>>) -> Row {
    let (ends, key, sealed) = row.value();
    Row { ends, key: key.to_owned(), sealed: sealed.to_vec() }
}
