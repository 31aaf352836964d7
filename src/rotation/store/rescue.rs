//! Where a new key goes when its vault fails at the worst moment: a recovery file beside the embedded vault.
//!
//! The file is sealed as the embedded vault is, whichever vault holds the keys: to seal something takes an identity, and
//! no server, which may be what has failed. In goes a key, out comes the same key in a later run, until it is forgotten.
//! What must never happen: a file that holds another environment's or another place's key is taken in.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use super::{Error, Source};
use crate::{
    config::{Environment, VaultFile},
    rotation::recovery,
    vault::{
        self,
        embedded::{self, Identity, Opened},
        secret::Secret,
    },
};

/// One environment's recovery file.
#[derive(Debug)]
pub(super) struct Rescue {
    vault: VaultFile,
    /// Read when it is needed first, on a thread that may wait.
    identity: OnceLock<Identity>,
    environment: String,
    /// Under which name the file holds the key.
    name: String,
    /// As the embedded vault was seen last: at the worst moment it may be gone.
    opened: Mutex<Option<Opened>>,
}

impl Rescue {
    /// Nothing is read yet.
    pub(super) fn new(vault: &VaultFile, environment: &Environment, name: &str) -> Self {
        Self {
            vault: vault.clone(),
            identity: OnceLock::new(),
            environment: environment.name.clone(),
            name: name.to_owned(),
            opened: Mutex::default(),
        }
    }

    /// # Errors
    /// [`Error::Unread`] when it cannot be had.
    pub(super) fn identity(&self) -> Result<&Identity, Error> {
        if let Some(identity) = self.identity.get() {
            return Ok(identity);
        }
        let identity = Identity::of(&self.vault).map_err(|error| Error::Unread(error.into()))?;
        Ok(self.identity.get_or_init(|| identity))
    }

    /// What the embedded vault holds; nothing is written, not even that it was seen.
    pub(super) fn peek(&self) -> Result<Opened, Error> {
        let peek = |identity: &Identity| embedded::peek(&self.vault.path, identity);
        if let Some(identity) = self.identity.get() {
            return peek(identity).map_err(|error| Error::Unread(error.into()));
        }
        let (identity, opened) =
            vault::opening(&self.vault, peek).map_err(|error| Error::Unread(error.into()))?;
        self.identity.get_or_init(|| identity);
        Ok(opened)
    }

    /// Remembers what a key will be sealed with.
    pub(super) fn keep(&self, opened: Opened) {
        *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(opened);
    }

    /// Takes the room on the disk.
    pub(super) fn prepare(&self) -> Result<(), Error> {
        recovery::reserve(&self.file()).map_err(|error| self.failed(error.into()))
    }

    /// Seals `key`, to be sent to the hosts that are found with what was kept; it answers where.
    pub(super) fn seal(
        &self,
        key: Arc<Secret>,
        hosts: impl FnOnce(&Opened) -> Option<Vec<String>>,
    ) -> Result<String, Error> {
        let file = self.file();
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = opened.as_ref().ok_or_else(|| self.failed("the vault was never read".into()))?;
        recovery::give_back(&file).map_err(|error| self.failed(error.into()))?;
        let hosts = hosts(opened);
        opened.seal_aside(&file, &self.name, key, hosts).map_err(|error| self.failed(error.into()))?;
        Ok(file.display().to_string())
    }

    /// The key that was sealed, if there is such a file.
    pub(super) fn saved(&self) -> Result<Option<Arc<Secret>>, Error> {
        let file = self.file();
        if !file.exists() {
            return Ok(None);
        }
        let saved = embedded::saved(&self.vault.path, self.identity()?, &file);
        let (name, entry) = saved.map_err(|error| self.failed(error.into()))?;
        if name != self.name {
            return Err(self.failed(format!("it holds {name}, not {}", self.name).into()));
        }
        Ok(Some(entry.secret))
    }

    /// Removes the file and the room.
    pub(super) fn forget(&self) -> Result<(), Error> {
        recovery::forget(&self.file()).map_err(|error| self.failed(error.into()))
    }

    fn file(&self) -> PathBuf {
        recovery::beside(&self.vault.path, &self.environment)
    }

    fn failed(&self, source: Source) -> Error {
        Error::Recovery { place: self.file().display().to_string(), source }
    }
}
