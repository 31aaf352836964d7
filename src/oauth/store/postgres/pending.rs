//! What is used once, in the database.
//!
//! In: pending records and their names. Out: their content. Their time is over when the database's clock says so; what is
//! over is removed with each write of another. To take one is two statements: a look, and a removal of just what was
//! seen. So one that cannot be opened stays, and of those who saw it, one removes it.
//!
//! There may be a few more than [`PENDING_MAX`]: as many as replicas write at the same moment.
//!
//! What must never happen: a record is given twice.

use std::{sync::Arc, time::Duration};

use tokio_postgres::types::Type;

use super::{
    super::{
        Error, PENDING_MAX, Pending, PendingName,
        pending::{self, Row},
    },
    Postgres,
    error::Fault,
    line::Parameter,
};
use crate::vault::secret::Secret;

/// Far beyond what any is good for; later times have no place in the database.
const LIFE_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// What time it is for a [`Row`]: the database has said already that it is not over.
const NOT_OVER: u64 = 0;

impl Postgres {
    pub(super) async fn put_pending(&self, pending: &Pending, now: u64) -> Result<(), Error> {
        let row = Row::seal(pending, self.id, &self.keys).map_err(|error| match error {
            pending::Error::TooLarge => Error::TooLarge,
            source @ pending::Error::Seal(_) => self.pending_unusable(source),
        })?;
        let life = Duration::from_secs(pending.ends.saturating_sub(now)).min(LIFE_MAX);
        if self.insert_pending(pending.name, &row, life).await.map_err(|fault| self.unwritten(fault))? {
            return Ok(());
        }
        Err(Error::Full { place: self.line.settings().place() })
    }

    /// Whether there was room.
    async fn insert_pending(&self, name: PendingName, row: &Row, life: Duration) -> Result<bool, Fault> {
        let sql = "WITH over AS (DELETE FROM mxgate_pending WHERE until <= clock_timestamp()) \
                   INSERT INTO mxgate_pending (name, ends, until, key, sealed) \
                   SELECT $1, $2, clock_timestamp() + make_interval(secs => $3), $4, $5 \
                   WHERE (SELECT count(*) FROM mxgate_pending WHERE until > clock_timestamp()) < $6 \
                   ON CONFLICT (name) DO UPDATE \
                   SET ends = excluded.ends, until = excluded.until, key = excluded.key, sealed = excluded.sealed";
        let (name, ends, max) = (name.to_bytes(), number(row.ends)?, number(PENDING_MAX)?);
        let values: &[Parameter<'_>] = &[
            (&name.as_slice(), Type::BYTEA),
            (&ends, Type::INT8),
            (&life.as_secs_f64(), Type::FLOAT8),
            (&row.key, Type::TEXT),
            (&row.sealed, Type::BYTEA),
            (&max, Type::INT8),
        ];
        self.line.changed(sql, values).await
    }

    pub(super) async fn look_pending(&self, name: PendingName) -> Result<Option<Arc<Secret>>, Error> {
        let Some(row) = self.pending(name).await.map_err(|fault| self.unread(fault))? else {
            return Ok(None);
        };
        self.open_pending(&row, name)
    }

    pub(super) async fn take_pending(&self, name: PendingName) -> Result<Option<Arc<Secret>>, Error> {
        let Some(row) = self.pending(name).await.map_err(|fault| self.unwritten(fault))? else {
            return Ok(None);
        };
        let content = self.open_pending(&row, name)?;
        let removed = self.remove_pending(name, &row).await.map_err(|fault| self.unwritten(fault))?;
        Ok(content.filter(|_| removed))
    }

    async fn pending(&self, name: PendingName) -> Result<Option<Row>, Fault> {
        let sql =
            "SELECT ends, key, sealed FROM mxgate_pending WHERE name = $1 AND until > clock_timestamp()";
        let name = name.to_bytes();
        let Some(row) = self.line.row(sql, &[(&name.as_slice(), Type::BYTEA)]).await? else {
            return Ok(None);
        };
        let ends = u64::try_from(row.try_get::<_, i64>(0)?).map_err(|_| Fault::Row)?;
        Ok(Some(Row { ends, key: row.try_get(1)?, sealed: row.try_get(2)? }))
    }

    async fn remove_pending(&self, name: PendingName, row: &Row) -> Result<bool, Fault> {
        let sql = "DELETE FROM mxgate_pending WHERE name = $1 AND sealed = $2 AND until > clock_timestamp()";
        let name = name.to_bytes();
        self.line.changed(sql, &[(&name.as_slice(), Type::BYTEA), (&row.sealed, Type::BYTEA)]).await
    }

    fn open_pending(&self, row: &Row, name: PendingName) -> Result<Option<Arc<Secret>>, Error> {
        row.open(name, NOT_OVER, self.id, &self.keys).map_err(|source| self.pending_unusable(source))
    }

    fn pending_unusable(&self, source: impl Into<super::super::Source>) -> Error {
        Error::PendingUnusable { place: self.line.settings().place(), source: source.into() }
    }
}

fn number(number: u64) -> Result<i64, Fault> {
    i64::try_from(number).map_err(|_| Fault::Row)
}
