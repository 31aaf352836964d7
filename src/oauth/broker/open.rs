//! Finding keys and store, at the start.

use std::sync::Arc;

use crate::{
    config::{Config, ConnectionStore, Connections},
    oauth::{
        seal::{self, Keys},
        store::{
            Store,
            embedded::{self, Embedded},
        },
    },
    vault::{self, once},
};

/// What the key of a store is sealed for: it is sent nowhere.
const HERE: &str = "localhost";

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
    /// A thread was not to be had, or panicked.
    #[error("the store of connections could not be opened")]
    Interrupted,
}

impl Error {
    /// Whether it can end by itself. What cannot is a mistake, which nobody should find out later.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::NoKey(_) | Self::Interrupted => true,
            Self::Key(_) | Self::Embedded(_) => false,
        }
    }
}

/// Opens the store that `connections` names; a file that is not there is made.
///
/// # Errors
/// [`Error`]; the store is untouched.
pub(crate) async fn store(config: &Config, connections: &Connections) -> Result<Arc<dyn Store>, Error> {
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
            Ok(Arc::new(opened))
        }
        ConnectionStore::Postgres(_) => Err(Error::Interrupted),
    }
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
