//! Where secrets live, and how a reference becomes one.
//!
//! In goes a [`reference::Reference`] from the configuration; out comes a [`Resolved`]: the secret, the hosts that it
//! is sealed for, and until when it may be used. `keeper` reads all references of a configuration, at loads and again
//! and again, and `gathered::Gathered` is what they came to as of one moment: all that a snapshot is built from.
//! [`Vault`] is the embedded vault, read once for all of its entries, so that they come from one generation.
//!
//! What must never happen: "absent" and "unreachable" are mixed up (the first means that the secret was revoked and
//! stops its use, the second may pass); a secret is sent to a host that it is not for; an error holds a value.
//! A vault entry is bound to its hosts. Any other secret goes to the hosts that stand beside its reference, or to the
//! host of the environment that names it: whoever edits the configuration decides where it goes.

use std::sync::Arc;

use self::{
    destination::NotFor,
    embedded::Identity,
    freshness::Deadline,
    reference::Reference,
    secret::{Fingerprint, Secret, Unfit},
    source::Reason,
};
use crate::config::VaultFile;

pub mod destination;
pub mod elsewhere;
pub mod embedded;
pub mod field;
pub(crate) mod fields;
pub mod freshness;
pub(crate) mod gathered;
pub(crate) mod keeper;
mod known;
pub(crate) mod once;
pub mod permissions;
pub mod reference;
pub mod secret;
pub mod source;

/// The embedded vault as of one moment.
#[derive(Debug)]
pub struct Vault {
    config: VaultFile,
    opened: embedded::Opened,
}

/// What stands where a secret would be, in what is only explained.
pub(crate) const PLACEHOLDER: &[u8] = b"mxgate-placeholder-for-a-secret";

/// One secret, ready to be used.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The value.
    pub secret: Arc<Secret>,
    /// The hosts that it is sealed for, lower case. `None` for those of other sources than the embedded vault, which
    /// are sealed for nothing.
    pub hosts: Option<Vec<String>>,
    /// Tells it from another one.
    pub fingerprint: Fingerprint,
    /// The source's own word for this version; an entry of the embedded vault counts from 1.
    pub version: Option<String>,
    /// When it may be used no longer. All who have this version of the secret share it.
    pub deadline: Arc<Deadline>,
}

/// A secret as its source has it now.
#[derive(Debug)]
struct Read {
    secret: Arc<Secret>,
    hosts: Option<Vec<String>>,
    version: Option<String>,
}

impl Resolved {
    fn new(read: Read, deadline: Arc<Deadline>) -> Self {
        let Read { secret, hosts, version } = read;
        Self { fingerprint: secret.fingerprint(), secret, hosts, version, deadline }
    }

    /// Whether it may be sent to `host`, a name or address without port. `reference` is its own.
    ///
    /// # Errors
    /// [`NotFor`].
    pub(crate) fn check_host(&self, reference: &Reference, host: &str) -> Result<(), NotFor> {
        destination::check(reference, self.hosts.as_deref(), host)
    }
}

/// Why there is no secret. It names the reference, never a value.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such entry, variable, file or document.
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
        source: Arc<source::Error>,
    },
    /// What was read has not the field.
    #[error("{reference}: the document {source}")]
    Field {
        /// As configured.
        reference: Reference,
        /// What is wrong with it.
        source: field::Fault,
    },
    /// It was read, and is no secret that could be sent or masked.
    #[error("{reference} is not usable as a secret")]
    Unfit {
        /// As configured.
        reference: Reference,
        /// Why.
        source: Unfit,
    },
    /// It is asked for on behalf of another host than those that it may be sent to.
    #[error(transparent)]
    NotFor(#[from] NotFor),
    /// A reference to a source that is not configured.
    #[error("{reference} needs a section [{section}], and none is configured")]
    NoSource {
        /// As configured.
        reference: Reference,
        /// What is missing.
        section: &'static str,
    },
    /// The first answer is still to come.
    #[error("{reference} has not been read yet; its source has not answered")]
    NotYet {
        /// As configured.
        reference: Reference,
    },
    /// What is known came from somebody else, and for other hosts.
    #[error(
        "{reference} is to be had elsewhere now and to be sent to {host}, and what is known of it came from the place before, for other hosts; give it another name, or restart"
    )]
    Moved {
        /// As configured.
        reference: Reference,
        /// Where it would go.
        host: String,
    },
    /// The embedded vault's volume hangs, or what opens it does not come.
    #[error("the vault's volume, or the source of what opens it, did not answer in time")]
    VaultTimeout,
    /// The vault's identity was not loaded.
    #[error(transparent)]
    Identity(#[from] embedded::identity::Error),
    /// The vault was not opened.
    #[error(transparent)]
    Embedded(#[from] embedded::Error),
}

impl Error {
    /// Why, in a word.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            // The document is there, as its source says, so the field was taken out of it.
            Self::Absent { .. }
            | Self::Embedded(embedded::Error::Absent { .. })
            | Self::Field { source: field::Fault::Missing, .. } => Reason::Absent,
            Self::Unreachable { source, .. } => source.reason(),
            Self::Field { .. } => Reason::Malformed,
            Self::Unfit { .. } | Self::NotFor(_) | Self::Moved { .. } => Reason::Unfit,
            Self::VaultTimeout => Reason::Timeout,
            // Without it the entries cannot be read; that they are gone, nobody has said.
            Self::Identity(embedded::identity::Error::Source { source, .. })
                if source.reason() != Reason::Absent =>
            {
                source.reason()
            }
            Self::NoSource { .. } | Self::NotYet { .. } | Self::Identity(_) | Self::Embedded(_) => {
                Reason::Unreachable
            }
        }
    }
}

impl Vault {
    /// Opens the vault. It reads files, so it belongs on a thread that may wait.
    ///
    /// # Errors
    /// [`Error::Identity`] or [`Error::Embedded`].
    pub fn open(config: &VaultFile) -> Result<Self, Error> {
        let (_, opened) = opening(config, |identity| embedded::open(&config.path, identity))?;
        for notice in &opened.notices {
            tracing::warn!(vault = %config.path.display(), "{notice}");
        }
        Ok(Self { config: config.clone(), opened })
    }

    /// Reads the vault and leaves no mark of having seen it, for one look at it.
    ///
    /// # Errors
    /// As [`Vault::open`].
    pub fn peek(config: &VaultFile) -> Result<Self, Error> {
        let (_, opened) = opening(config, |identity| embedded::peek(&config.path, identity))?;
        Ok(Self { config: config.clone(), opened })
    }

    /// Opens the same vault again, identity included. A vault older than this one is refused even when
    /// the last-seen file beside it was removed.
    ///
    /// # Errors
    /// As [`Vault::open`]; the present one stays usable.
    pub fn reopen(&self) -> Result<Self, Error> {
        let fresh = Self::open(&self.config)?;
        fresh.opened.check_follows(&self.opened, &self.config.path)?;
        Ok(fresh)
    }

    /// The secret that `reference` names.
    fn read(&self, reference: &Reference) -> Result<Read, Error> {
        let entry = self.opened.entries.get(reference.place());
        let entry = entry.ok_or_else(|| Error::Absent { reference: reference.clone() })?;
        let sendable = entry.secret.check_sendable();
        sendable.map_err(|source| Error::Unfit { reference: reference.clone(), source })?;
        Ok(Read {
            secret: Arc::clone(&entry.secret),
            hosts: Some(entry.hosts.clone()),
            version: Some(entry.version.to_string()),
        })
    }

    /// Its generation.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.opened.generation
    }
}

/// Opens the vault of `config` by `open`. When what is kept of other sources does not open it, once more with what they
/// say now.
///
/// # Errors
/// [`Error::Identity`], or what `open` said.
pub(crate) fn opening<T>(
    config: &VaultFile,
    open: impl Fn(&Identity) -> Result<T, embedded::Error>,
) -> Result<(Identity, T), Error> {
    let attempt = || {
        let identity = Identity::of(config)?;
        let opened = open(&identity)?;
        Ok((identity, opened))
    };
    match attempt() {
        Err(error) if is_of_identity(&error) && config.elsewhere.doubt() => {
            let again = attempt();
            if again.as_ref().is_err_and(is_of_identity) {
                config.elsewhere.doubt();
            }
            again
        }
        outcome => outcome,
    }
}

/// Whether another identity could have opened it.
fn is_of_identity(error: &Error) -> bool {
    use embedded::{Fault, identity};
    match error {
        Error::Identity(error) => matches!(error, identity::Error::Unfit { .. }),
        Error::Embedded(embedded::Error::Unsound { source, .. }) => {
            matches!(source, Fault::WrongIdentity | Fault::NotARecipient | Fault::Unproven)
        }
        _ => false,
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
