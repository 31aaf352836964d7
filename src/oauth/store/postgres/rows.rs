//! What is asked of the database: each function is one statement, which is a transaction of its own.
//!
//! In: what identifies a row, and what is to become of it. Out: what was there, or whether it was done. A lease's end is
//! told by the database's clock. A statement that waited for another one on its row judges what that one left.
//!
//! What must never happen: a statement writes by a lease without naming its fence, or replaces a record that it was not
//! told to replace.

use std::time::Duration;

use tokio_postgres::{Row, types::Type};

use super::{
    super::{Holder, record::Record},
    error::Fault,
    line::{Line, Parameter},
};
use crate::oauth::{connection::ConnectionId, seal::KeyId};

/// An end that is further away says that the database's clock was set back, and counts as over.
const LEASE_MAX: Duration = Duration::from_secs(3600);

/// A lease, by its connection and its fence.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named {
    pub(super) id: ConnectionId,
    pub(super) fence: u64,
}

impl Named {
    /// No fence of this store is as large as one that has no place there.
    fn fence(self) -> i64 {
        i64::try_from(self.fence).unwrap_or(i64::MAX)
    }
}

/// A record, and whether a lease may still write it.
pub(super) struct Leased {
    pub(super) record: Record,
    pub(super) is_held: bool,
}

pub(super) async fn record(line: &Line, id: ConnectionId) -> Result<Option<Record>, Fault> {
    let sql = "SELECT header, sealed FROM mxgate_connections WHERE id = $1";
    let id = id.to_bytes();
    line.row(sql, &[(&id.as_slice(), Type::BYTEA)]).await?.map(|row| record_of(&row, 0)).transpose()
}

pub(super) async fn headers(line: &Line) -> Result<Vec<(ConnectionId, String)>, Fault> {
    let rows = line.rows("SELECT id, header FROM mxgate_connections ORDER BY id", &[]).await?;
    rows.iter().map(|row| Ok((id_of(row)?, row.try_get(1)?))).collect()
}

/// Whether there was none of this id.
pub(super) async fn insert(
    line: &Line,
    id: ConnectionId,
    record: &Record,
    key: KeyId,
) -> Result<bool, Fault> {
    let sql = "INSERT INTO mxgate_connections (id, header, sealed, key) VALUES ($1, $2, $3, $4) \
               ON CONFLICT (id) DO NOTHING";
    let (id, key) = (id.to_bytes(), key.to_string());
    let values: &[Parameter<'_>] = &[
        (&id.as_slice(), Type::BYTEA),
        (&record.header, Type::TEXT),
        (&record.sealed, Type::BYTEA),
        (&key, Type::TEXT),
    ];
    line.changed(sql, values).await
}

/// The fence of a new lease and who left the one before, unless somebody has one.
pub(super) async fn take(
    line: &Line,
    id: ConnectionId,
    owner: &str,
    lasts: Duration,
) -> Result<Option<(u64, Option<Holder>)>, Fault> {
    let sql = "UPDATE mxgate_connections \
               SET fence = fence + 1, left_by = lease_owner, left_until = lease_until, lease_owner = $2, \
                   lease_until = clock_timestamp() + make_interval(secs => $3) \
               WHERE id = $1 AND (lease_owner IS NULL OR lease_until <= clock_timestamp() \
                   OR lease_until > clock_timestamp() + make_interval(secs => $4)) \
               RETURNING left_by, floor(extract(epoch FROM left_until))::bigint, fence";
    let (id, lasts, max) = (id.to_bytes(), seconds(lasts), LEASE_MAX.as_secs_f64());
    let values: &[Parameter<'_>] =
        &[(&id.as_slice(), Type::BYTEA), (&owner, Type::TEXT), (&lasts, Type::FLOAT8), (&max, Type::FLOAT8)];
    let Some(row) = line.row(sql, values).await? else { return Ok(None) };
    let fence = u64::try_from(row.try_get::<_, i64>(2)?).map_err(|_| Fault::Row)?;
    Ok(Some((fence, holder_of(&row)?)))
}

/// Who has a lease, or the word that nobody has; `None`: there is no such connection.
pub(super) async fn holder(line: &Line, id: ConnectionId) -> Result<Option<Option<Holder>>, Fault> {
    let sql = "SELECT lease_owner, floor(extract(epoch FROM lease_until))::bigint \
               FROM mxgate_connections WHERE id = $1";
    let id = id.to_bytes();
    line.row(sql, &[(&id.as_slice(), Type::BYTEA)]).await?.map(|row| holder_of(&row)).transpose()
}

pub(super) async fn renew(line: &Line, lease: Named, lasts: Duration) -> Result<bool, Fault> {
    let sql = "UPDATE mxgate_connections SET lease_until = clock_timestamp() + make_interval(secs => $3) \
               WHERE id = $1 AND fence = $2 AND lease_owner IS NOT NULL";
    let (id, fence, lasts) = (lease.id.to_bytes(), lease.fence(), seconds(lasts));
    let values: &[Parameter<'_>] =
        &[(&id.as_slice(), Type::BYTEA), (&fence, Type::INT8), (&lasts, Type::FLOAT8)];
    line.changed(sql, values).await
}

pub(super) async fn give_back(line: &Line, lease: Named) -> Result<bool, Fault> {
    let sql = "UPDATE mxgate_connections SET lease_owner = NULL, lease_until = NULL \
               WHERE id = $1 AND fence = $2 AND lease_owner IS NOT NULL";
    by_lease(line, sql, lease).await
}

pub(super) async fn remove(line: &Line, lease: Named) -> Result<bool, Fault> {
    let sql = "DELETE FROM mxgate_connections WHERE id = $1 AND fence = $2 AND lease_owner IS NOT NULL";
    by_lease(line, sql, lease).await
}

async fn by_lease(line: &Line, sql: &str, lease: Named) -> Result<bool, Fault> {
    let (id, fence) = (lease.id.to_bytes(), lease.fence());
    line.changed(sql, &[(&id.as_slice(), Type::BYTEA), (&fence, Type::INT8)]).await
}

/// The record that is about to be replaced.
pub(super) async fn leased(line: &Line, lease: Named) -> Result<Option<Leased>, Fault> {
    let sql =
        "SELECT header, sealed, fence = $2 AND lease_owner IS NOT NULL FROM mxgate_connections WHERE id = $1";
    let (id, fence) = (lease.id.to_bytes(), lease.fence());
    let row = line.row(sql, &[(&id.as_slice(), Type::BYTEA), (&fence, Type::INT8)]).await?;
    let leased = |row: Row| Ok(Leased { record: record_of(&row, 0)?, is_held: row.try_get(2)? });
    row.map(leased).transpose()
}

/// Puts `new` in the place of `old` and gives the lease back. A seal is never the same twice, so the bytes of `old` say
/// which version it is, and under which key.
pub(super) async fn replace(
    line: &Line,
    lease: Named,
    old: &Record,
    new: &Record,
    key: KeyId,
) -> Result<bool, Fault> {
    let sql = "UPDATE mxgate_connections \
               SET header = $4, sealed = $5, key = $6, lease_owner = NULL, lease_until = NULL \
               WHERE id = $1 AND fence = $2 AND lease_owner IS NOT NULL AND sealed = $3";
    let (id, fence, key) = (lease.id.to_bytes(), lease.fence(), key.to_string());
    let values: &[Parameter<'_>] = &[
        (&id.as_slice(), Type::BYTEA),
        (&fence, Type::INT8),
        (&old.sealed, Type::BYTEA),
        (&new.header, Type::TEXT),
        (&new.sealed, Type::BYTEA),
        (&key, Type::TEXT),
    ];
    line.changed(sql, values).await
}

/// Records of other keys, by id, from behind `after` on.
pub(super) async fn sealed_before(
    line: &Line,
    sealing: KeyId,
    after: Option<ConnectionId>,
    count: i64,
) -> Result<Vec<(ConnectionId, Record)>, Fault> {
    let sql = "SELECT id, header, sealed FROM mxgate_connections \
               WHERE key <> $1 AND ($2::bytea IS NULL OR id > $2) ORDER BY id LIMIT $3";
    let (key, after) = (sealing.to_string(), after.map(|id| id.to_bytes().to_vec()));
    let values: &[Parameter<'_>] = &[(&key, Type::TEXT), (&after, Type::BYTEA), (&count, Type::INT8)];
    let rows = line.rows(sql, values).await?;
    rows.iter().map(|row| Ok((id_of(row)?, record_of(row, 1)?))).collect()
}

/// The same record of the same version by another key; whoever has the lease keeps it.
pub(super) async fn reseal(
    line: &Line,
    id: ConnectionId,
    old: &Record,
    new: &Record,
    key: KeyId,
) -> Result<bool, Fault> {
    let sql =
        "UPDATE mxgate_connections SET header = $3, sealed = $4, key = $5 WHERE id = $1 AND sealed = $2";
    let (id, key) = (id.to_bytes(), key.to_string());
    let values: &[Parameter<'_>] = &[
        (&id.as_slice(), Type::BYTEA),
        (&old.sealed, Type::BYTEA),
        (&new.header, Type::TEXT),
        (&new.sealed, Type::BYTEA),
        (&key, Type::TEXT),
    ];
    line.changed(sql, values).await
}

fn seconds(lasts: Duration) -> f64 {
    lasts.min(LEASE_MAX).as_secs_f64()
}

fn id_of(row: &Row) -> Result<ConnectionId, Fault> {
    let id: &[u8] = row.try_get(0)?;
    id.try_into().map(ConnectionId::from_bytes).map_err(|_| Fault::Row)
}

/// From the columns `first`, a header, and the next, what is sealed.
fn record_of(row: &Row, first: usize) -> Result<Record, Fault> {
    Ok(Record { header: row.try_get(first)?, sealed: row.try_get(first + 1)? })
}

/// From the first two columns.
fn holder_of(row: &Row) -> Result<Option<Holder>, Fault> {
    let Some(owner) = row.try_get(0)? else { return Ok(None) };
    let until: i64 = row.try_get(1)?;
    Ok(Some(Holder { owner, until: u64::try_from(until).unwrap_or(0) }))
}
