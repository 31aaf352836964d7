//! Where secrets live, and how a reference becomes one.
//!
//! In goes a [`Reference`] from the configuration; out comes a [`Resolved`]: the secret, and the hosts that
//! it is sealed for. [`Vault::open`] reads the embedded vault once, so that all of a snapshot's references
//! come from one generation; [`Vault::reopen`] is for a reload. `env:` and `file:` are read when resolved.
//!
//! What must never happen: "absent" and "unreachable" are mixed up (the first is a fault to repair, the
//! second may pass); a secret is sent to a host that it is not sealed for; an error holds a value.
//! `env:` and `file:` secrets are sealed for nothing: whoever edits the configuration decides where they
//! go. A vault entry is bound to its hosts.

use std::sync::Arc;

use self::{
    embedded::Identity,
    reference::Reference,
    secret::{Fingerprint, Secret, Unfit},
    source::file::SECRET_BYTES_MAX,
};
use crate::config::VaultFile;

pub mod embedded;
pub mod permissions;
pub mod reference;
pub mod secret;
pub mod source;

/// Every place that a reference may point to, as of one moment.
#[derive(Debug)]
pub struct Vault {
    embedded: Option<(VaultFile, embedded::Opened)>,
    /// Every reference becomes [`PLACEHOLDER`].
    is_blank: bool,
}

/// What stands where a secret would be, in what is only explained.
pub(crate) const PLACEHOLDER: &[u8] = b"mxgate-placeholder-for-a-secret";

/// One secret, ready to be used.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The value.
    pub secret: Arc<Secret>,
    /// The hosts that it may be sent to, lower case. `None` for `env:` and `file:`, which are sealed for
    /// nothing: they go to the host of the environment that names them.
    pub hosts: Option<Vec<String>>,
    /// Tells it from another one.
    pub fingerprint: Fingerprint,
    /// A vault entry's version, from 1.
    pub version: Option<u64>,
}

impl Resolved {
    /// Whether it may be sent to `host`, a name or address without port, in any case.
    #[must_use]
    pub fn allows(&self, host: &str) -> bool {
        self.hosts.as_ref().is_none_or(|hosts| hosts.iter().any(|sealed| sealed.eq_ignore_ascii_case(host)))
    }
}

/// Why there is no secret. It names the reference, never a value.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such entry, variable or file.
    #[error("{reference} does not exist")]
    Absent {
        /// As configured.
        reference: Reference,
    },
    /// It could not be read now; it may be there.
    #[error("{reference} could not be read")]
    Unreachable {
        /// As configured.
        reference: Reference,
        /// Why.
        source: source::file::Error,
    },
    /// It was read, and is no secret that could be sent or masked.
    #[error("{reference} is not usable as a secret")]
    Unfit {
        /// As configured.
        reference: Reference,
        /// Why.
        source: Unfit,
    },
    /// A `vault:` reference without `[vault]`.
    #[error("{reference} needs a [vault], and none is configured")]
    NoVault {
        /// As configured.
        reference: Reference,
    },
    /// The vault's identity was not loaded.
    #[error(transparent)]
    Identity(#[from] embedded::identity::Error),
    /// The vault was not opened.
    #[error(transparent)]
    Embedded(#[from] embedded::Error),
}

impl Vault {
    /// Opens the configured vault, if there is one. It reads files, so it belongs on the control plane.
    ///
    /// # Errors
    /// [`Error::Identity`] or [`Error::Embedded`].
    pub fn open(config: Option<&VaultFile>) -> Result<Self, Error> {
        let Some(config) = config else { return Ok(Self { embedded: None, is_blank: false }) };
        let identity = Identity::of(config)?;
        let opened = embedded::open(&config.path, &identity)?;
        for notice in &opened.notices {
            tracing::warn!(vault = %config.path.display(), "{notice}");
        }
        Ok(Self { embedded: Some((config.clone(), opened)), is_blank: false })
    }

    /// Reads the configured vault and leaves no mark of having seen it, for one look at it.
    ///
    /// # Errors
    /// As [`Vault::open`].
    pub fn peek(config: Option<&VaultFile>) -> Result<Self, Error> {
        let Some(config) = config else { return Ok(Self { embedded: None, is_blank: false }) };
        let identity = Identity::of(config)?;
        let opened = embedded::peek(&config.path, &identity)?;
        Ok(Self { embedded: Some((config.clone(), opened)), is_blank: false })
    }

    /// One that reads nothing and has a placeholder for every reference: enough to decide with, nothing to send.
    #[must_use]
    pub fn blank() -> Self {
        Self { embedded: None, is_blank: true }
    }

    /// Whether this is [`Vault::blank`].
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.is_blank
    }

    /// Opens the same vault again, identity included. A vault older than this one is refused even when
    /// the last-seen file beside it was removed.
    ///
    /// # Errors
    /// As [`Vault::open`]; the present one stays usable.
    pub fn reopen(&self) -> Result<Self, Error> {
        let fresh = Self::open(self.embedded.as_ref().map(|(config, _)| config))?;
        if let (Some((config, old)), Some((_, new))) = (&self.embedded, &fresh.embedded) {
            new.check_follows(old, &config.path)?;
        }
        Ok(fresh)
    }

    /// The secret that `reference` names.
    ///
    /// # Errors
    /// [`Error::Absent`], [`Error::Unreachable`], [`Error::Unfit`] or [`Error::NoVault`].
    pub fn resolve(&self, reference: &Reference) -> Result<Resolved, Error> {
        let absent = || Error::Absent { reference: reference.clone() };
        let mut bytes = match reference {
            _ if self.is_blank => PLACEHOLDER.to_vec().into(),
            Reference::Vault(name) => {
                let (_, opened) =
                    self.embedded.as_ref().ok_or_else(|| Error::NoVault { reference: reference.clone() })?;
                return opened.entries.get(name).map(Resolved::from).ok_or_else(absent);
            }
            Reference::Env(name) => source::env::read(name).ok_or_else(absent)?,
            Reference::File(path) => {
                match source::file::read(path, SECRET_BYTES_MAX, permissions::unwritable_by_others) {
                    Ok(content) => content.bytes,
                    Err(source::file::Error::Absent { .. }) => return Err(absent()),
                    Err(source) => return Err(Error::Unreachable { reference: reference.clone(), source }),
                }
            }
        };
        let secret = Secret::new(std::mem::take(&mut *bytes))
            .map_err(|source| Error::Unfit { reference: reference.clone(), source })?;
        let fingerprint = secret.fingerprint();
        Ok(Resolved { secret: Arc::new(secret), hosts: None, fingerprint, version: None })
    }

    /// The generation of the embedded vault, if there is one.
    #[must_use]
    pub fn generation(&self) -> Option<u64> {
        self.embedded.as_ref().map(|(_, opened)| opened.generation)
    }
}

impl From<&embedded::Entry> for Resolved {
    fn from(entry: &embedded::Entry) -> Self {
        Self {
            secret: Arc::clone(&entry.secret),
            hosts: Some(entry.hosts.clone()),
            fingerprint: entry.secret.fingerprint(),
            version: Some(entry.version),
        }
    }
}

#[cfg(test)]
mod tests;
