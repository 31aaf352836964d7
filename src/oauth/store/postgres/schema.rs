//! What the database must hold before it is used: tables of a version, a store with an id, and no record of a key that is
//! not known.
//!
//! In: a new connection and the keys. Out: the store's id. All is judged and made in one transaction under a lock of its
//! own, so that replicas that start at once come one after another and each finds what the one before made.
//!
//! What must never happen: a store that is refused (a wrong key, a later version, rights that are missing) is changed;
//! half of a version is made; two replicas make two ids.

use std::time::Duration;

use tokio_postgres::{Client, Row, Transaction, types::Type};

use super::{
    error::{Error, Fault},
    line::{Parameter, Session},
    settings::Settings,
};
use crate::oauth::{
    connection::ConnectionId,
    seal::{KeyId, Keys, StoreId},
};

/// For all that is done at a start: whoever is first may have large tables to change, and the others wait for it.
pub(super) const TIMEOUT: Duration = Duration::from_secs(60);

/// Each brings the tables from the version before to its own, its place in the list, and says so in `mxgate_version`.
/// Those that were published are not changed. A replica of before may go on working meanwhile.
const MIGRATIONS: &[&str] = &[include_str!("migrations/0001.sql")];

/// The version that this program makes, and the newest that it uses.
pub(super) const NEWEST: i32 = MIGRATIONS.len() as i32;

/// Of all advisory locks, those of mxgate's schema: the letters `mxgate`.
const LOCK: i64 = 0x6d_78_67_61_74_65;

/// What is known of a store.
struct About {
    id: StoreId,
    /// The key that sealed when a replica last started.
    key: KeyId,
}

/// Judges the database, and makes what is missing.
pub(super) async fn prepare(
    session: &mut Session,
    settings: &Settings,
    keys: &Keys,
) -> Result<StoreId, Error> {
    let limit = TIMEOUT.saturating_add(settings.connect_timeout);
    let prepared = tokio::time::timeout(limit, async {
        let setup = Setup { transaction: session.client.transaction().await?, settings, keys };
        let id = setup.run().await?;
        setup.transaction.commit().await?;
        Ok(id)
    });
    let prepared = prepared.await.unwrap_or(Err(Why::Fault(Fault::AnswerTimeout(limit))));
    prepared.map_err(|why| why.at(settings.place()))
}

/// Whether a later connection leads to the store that was opened.
pub(super) async fn check(client: &Client, id: StoreId) -> Result<(), Fault> {
    let found = client.query_typed("SELECT max(version) FROM mxgate_version", &[]).await?;
    if let Some(version) = version(&found)?.filter(|version| *version > NEWEST) {
        return Err(Fault::Newer(version));
    }
    let found = client.query_typed(ABOUT, &[]).await?;
    match about(&found)? {
        Some(about) if about.id == id => Ok(()),
        _ => Err(Fault::AnotherStore),
    }
}

const ABOUT: &str = "SELECT id, key FROM mxgate_store";

struct Setup<'a> {
    transaction: Transaction<'a>,
    settings: &'a Settings,
    keys: &'a Keys,
}

impl Setup<'_> {
    async fn run(&self) -> Result<StoreId, Why> {
        self.lock().await?;
        let found = self.version().await?;
        if found > NEWEST {
            return Err(Why::Newer(found));
        }
        let mut about = None;
        if found > 0 {
            about = about_of(&self.transaction).await?;
            self.check_keys(about.as_ref()).await?;
        }
        self.migrate(found).await?;
        self.put(about).await
    }

    async fn lock(&self) -> Result<(), Why> {
        let limit = TIMEOUT.as_millis();
        self.transaction.batch_execute(&format!("SET LOCAL statement_timeout = {limit}")).await?;
        let lock: &[Parameter<'_>] = &[(&LOCK, Type::INT8)];
        self.transaction.query_typed("SELECT pg_advisory_xact_lock($1)", lock).await?;
        Ok(())
    }

    /// 0: nothing is there.
    async fn version(&self) -> Result<i32, Why> {
        let table = "SELECT to_regclass('mxgate_version') IS NOT NULL";
        if !is_true(&self.transaction.query_typed(table, &[]).await?)? {
            return Ok(0);
        }
        let found = self.transaction.query_typed("SELECT max(version) FROM mxgate_version", &[]).await?;
        // A table of this name that holds no version is somebody else's.
        version(&found)?.ok_or(Why::NotAStore)
    }

    async fn check_keys(&self, about: Option<&About>) -> Result<(), Why> {
        if let Some(about) = about {
            self.keys.check(about.key).map_err(Why::WrongKey)?;
        }
        let rows = self.transaction.query_typed("SELECT DISTINCT key FROM mxgate_connections", &[]).await?;
        for row in rows {
            let key: KeyId = text(&row, 0)?.parse().map_err(|_| Why::NotAStore)?;
            self.keys.check(key).map_err(Why::WrongKey)?;
        }
        Ok(())
    }

    async fn migrate(&self, from: i32) -> Result<(), Why> {
        let missing = MIGRATIONS.iter().skip(usize::try_from(from).unwrap_or(0));
        let Settings { schema, .. } = self.settings;
        if from == 0 {
            // `IF NOT EXISTS` would ask for the right to make one also where there is one.
            let exists = "SELECT to_regnamespace($1) IS NOT NULL";
            if !is_true(&self.transaction.query_typed(exists, &[(schema, Type::TEXT)]).await?)? {
                self.transaction.batch_execute(&format!("CREATE SCHEMA \"{schema}\"")).await?;
            }
        }
        for migration in missing {
            self.transaction.batch_execute(migration).await?;
        }
        Ok(())
    }

    /// The store, which is made where there is none; and whose key seals now.
    async fn put(&self, about: Option<About>) -> Result<StoreId, Why> {
        let sealing = self.keys.sealing();
        let key = sealing.to_string();
        let Some(about) = about else {
            let id = ConnectionId::random().map_err(|_| Why::NoRandom)?.to_bytes();
            let values: &[Parameter<'_>] = &[(&id.as_slice(), Type::BYTEA), (&key, Type::TEXT)];
            let insert = "INSERT INTO mxgate_store (id, key) VALUES ($1, $2)";
            self.transaction.execute_typed(insert, values).await?;
            return Ok(StoreId(id));
        };
        if about.key != sealing {
            let update = "UPDATE mxgate_store SET key = $1";
            self.transaction.execute_typed(update, &[(&key, Type::TEXT)]).await?;
        }
        Ok(about.id)
    }
}

async fn about_of(transaction: &Transaction<'_>) -> Result<Option<About>, Why> {
    Ok(about(&transaction.query_typed(ABOUT, &[]).await?)?)
}

fn about(rows: &[Row]) -> Result<Option<About>, Fault> {
    let Some(row) = rows.first() else { return Ok(None) };
    let id: &[u8] = row.try_get(0)?;
    let id = id.try_into().map_err(|_| Fault::Row)?;
    let key = text(row, 1)?.parse().map_err(|_| Fault::Row)?;
    Ok(Some(About { id: StoreId(id), key }))
}

fn version(rows: &[Row]) -> Result<Option<i32>, Fault> {
    Ok(rows.first().ok_or(Fault::Row)?.try_get(0)?)
}

fn is_true(rows: &[Row]) -> Result<bool, Fault> {
    Ok(rows.first().ok_or(Fault::Row)?.try_get(0)?)
}

fn text(row: &Row, column: usize) -> Result<&str, Fault> {
    Ok(row.try_get(column)?)
}

/// Why a store is not used, without its place.
#[derive(Debug)]
enum Why {
    Newer(i32),
    WrongKey(crate::oauth::seal::Error),
    NotAStore,
    NoRandom,
    Fault(Fault),
}

impl Why {
    fn at(self, place: String) -> Error {
        match self {
            Self::Newer(found) => Error::Newer { place, found },
            Self::WrongKey(source) => Error::WrongKey { place, source },
            Self::NotAStore | Self::Fault(Fault::Row) => Error::NotAStore { place },
            Self::NoRandom => Error::NoRandom(crate::oauth::connection::NoRandom),
            Self::Fault(source) if source.is_no_right() => Error::NoRight { place, source },
            Self::Fault(source) => Error::Failed { place, source },
        }
    }
}

impl From<Fault> for Why {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<tokio_postgres::Error> for Why {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Fault(error.into())
    }
}
