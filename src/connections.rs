//! What is done with a store of users' connections while no gateway runs.

use std::{fmt, path::Path};

use serde::Serialize;

use crate::{
    config::{Config, ConnectionStore},
    oauth::broker::open,
    vault,
};

/// What [`restore`] did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// How many connections there are.
    pub connections: usize,
    /// When the copy was made, in Unix seconds; `None`: the file does not say.
    pub made: Option<u64>,
}

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration cannot be used.
    #[error("{0}")]
    Config(String),
    /// Its store is no file.
    #[error("the configuration has no connections in a file; a database is restored with its own tools")]
    NoFile,
    /// The store, the copy or the key.
    #[error("{0}")]
    Store(String),
}

/// Puts the copy at `from` where the configuration's store is, and nothing is there.
///
/// # Errors
/// [`Error`]; nothing was changed.
pub async fn restore(config: &Path, from: &Path) -> Result<Restored, Error> {
    let loaded = Config::load(config).map_err(|faults| Error::Config(faults.to_string()))?;
    let connections = loaded.config.connections.as_ref().ok_or(Error::NoFile)?;
    let ConnectionStore::File(path) = &connections.store else { return Err(Error::NoFile) };
    let restored = open::restored(&loaded.config, connections, path, from).await;
    let (connections, made) = restored.map_err(|error| Error::Store(vault::chain(&error)))?;
    Ok(Restored { connections, made })
}

impl fmt::Display for Restored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} connections are there again", self.connections)?;
        if let Some(made) = self.made {
            let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(made);
            write!(f, ", as of {}", humantime::format_rfc3339_seconds(at))?;
        }
        writeln!(f, ". Whoever was refreshed since then must most likely connect again.")
    }
}
