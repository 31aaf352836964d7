//! Finding keys and store, at the start.

use std::{path::Path, sync::Arc};

use crate::{
    config::{self, Config, ConnectionStore, Connections},
    oauth::{
        handle::HandleKey,
        seal::{self, Keys},
        store::{
            self, Store,
            embedded::{self, Embedded},
            postgres::{
                self, Postgres,
                settings::{PasswordLookUp, Settings},
            },
        },
    },
    vault::{self, once},
};

/// What the key of a store is sealed for: it is sent nowhere.
pub(crate) const HERE: &str = "localhost";

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Its key cannot be had.
    #[error("the key of the store of connections cannot be had")]
    NoKey(#[source] vault::Error),
    /// It is no key.
    #[error(transparent)]
    Key(#[from] seal::Error),
    /// The file.
    #[error(transparent)]
    Embedded(#[from] embedded::Error),
    /// The database.
    #[error(transparent)]
    Postgres(#[from] postgres::Error),
    /// A thread was not to be had, or panicked.
    #[error("the store of connections could not be opened")]
    Interrupted,
}

impl Error {
    /// Whether it can end by itself. What cannot is a mistake, which nobody should find out later.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::NoKey(_) | Self::Interrupted | Self::Postgres(postgres::Error::Failed { .. }) => true,
            Self::Key(_) | Self::Embedded(_) | Self::Postgres(_) => false,
        }
    }
}

/// A store, and what only its kind can do.
#[derive(Clone)]
pub(crate) enum Kind {
    Embedded(Embedded),
    Postgres(Arc<Postgres>),
}

impl Kind {
    pub(super) fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Embedded(store) => Arc::new(store.clone()),
            Self::Postgres(store) => store.clone(),
        }
    }

    /// What handles are made with.
    pub(super) fn handles(&self) -> HandleKey {
        match self {
            Self::Embedded(store) => store.handles(),
            Self::Postgres(store) => store.handles(),
        }
    }

    /// Seals what a former key sealed with the present one.
    pub(super) async fn reseal(&self) -> Result<usize, store::Error> {
        match self {
            Self::Embedded(store) => store.reseal().await,
            Self::Postgres(store) => store.reseal().await,
        }
    }

    /// Copies it to a new file. It blocks.
    pub(super) fn backup(&self, to: &Path, now: u64) -> Result<usize, String> {
        match self {
            Self::Embedded(store) => store.backup(to, now).map_err(|error| vault::chain(&error)),
            Self::Postgres(_) => Err("a database is copied with its own tools, such as pg_dump".to_owned()),
        }
    }
}

/// Opens the store that `connections` names; a file that is not there is made.
///
/// # Errors
/// [`Error`]; the store is untouched.
pub(crate) async fn store(config: &Config, connections: &Connections) -> Result<Kind, Error> {
    let keys = keys(config, connections).await?;
    match &connections.store {
        ConnectionStore::File(path) => {
            let path = path.clone();
            let open = move || {
                if !path.exists() {
                    embedded::create(&path, &keys)?;
                    tracing::warn!(path = %path.display(), "made a new, empty store of connections");
                }
                Embedded::open(&path, keys)
            };
            let opened = tokio::task::spawn_blocking(open).await.map_err(|_| Error::Interrupted)??;
            Ok(Kind::Embedded(opened))
        }
        ConnectionStore::Postgres(settings) => {
            let opened = Postgres::open(postgres_settings(config, settings), keys).await?;
            Ok(Kind::Postgres(Arc::new(opened)))
        }
    }
}

/// Whom its password is for: a socket of this machine's is no host that a secret could be sealed for.
pub(crate) fn host_of_database(host: &str) -> &str {
    if host.starts_with('/') { HERE } else { host }
}

fn postgres_settings(config: &Config, settings: &config::Postgres) -> Settings {
    let (host, vault) = (settings.host.clone(), config.vault.clone());
    let password = settings.password.clone().map(|reference| -> PasswordLookUp {
        Arc::new(move || {
            let (reference, host, vault) = (reference.clone(), host.clone(), vault.clone());
            Box::pin(async move { once::read(reference, host_of_database(&host), vault).await })
        })
    });
    Settings {
        host: settings.host.clone(),
        port: settings.port,
        database: settings.database.clone(),
        user: settings.user.clone(),
        password,
        ca_file: settings.ca_file.clone(),
        connect_timeout: settings.connect_timeout,
        statement_timeout: settings.statement_timeout,
        schema: settings.schema.clone(),
    }
}

/// Puts a copy where no store is. Gives how many connections there are, and when the copy was made.
///
/// # Errors
/// [`Error`]; nothing was changed.
pub(crate) async fn restored(
    config: &Config,
    connections: &Connections,
    path: &Path,
    from: &Path,
) -> Result<(usize, Option<u64>), Error> {
    let keys = keys(config, connections).await?;
    let embedded::Restored { connections, made } = embedded::restore(path, from, &keys)?;
    Ok((connections, made))
}

async fn keys(config: &Config, connections: &Connections) -> Result<Keys, Error> {
    let read = |reference| once::read(reference, HERE, config.vault.clone());
    let sealing = read(connections.key.clone()).await.map_err(Error::NoKey)?;
    let former = match &connections.former_key {
        Some(reference) => Some(read(reference.clone()).await.map_err(Error::NoKey)?),
        None => None,
    };
    Ok(Keys::new(&sealing, &former)?)
}
