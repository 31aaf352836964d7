//! The vault as a rotation sees it: two keys and a record, read together and replaced together.
//!
//! In goes what is to be there and the version that it is based on; out comes the new version, or a conflict when
//! somebody else wrote in between. One file for each way to hold them: [`embedded`], entries of the vault file, and
//! `document`, fields of a server's document. What mxgate cannot write is refused by [`open`] before anything is called.
//!
//! What must never happen: a key is written and the record that goes with it is not, or the reverse; a write that is
//! based on an old version wins; a write that failed is taken for one that did nothing ([`Error::Unwritten`] may have
//! been done, so look before you repeat it).

mod document;
pub(crate) mod embedded;
mod rescue;

use std::sync::Arc;

use self::{document::InDocument, embedded::Embedded};
use super::{Doing, state::Record};
use crate::{
    config::{Config, Environment},
    vault::{
        destination::NotFor,
        reference::{AwsPlace, Reference, Scheme},
        secret::Secret,
        source::Sources,
    },
};

/// A vault that a rotation can write.
pub(crate) trait Store: Send + Sync {
    /// What is there now.
    fn load(&self) -> Doing<'_, Result<Contents, Error>>;

    /// Puts `contents` there, all of it at once, if what is there is still as of `contents.version`.
    fn store<'a>(&'a self, contents: &'a Contents) -> Doing<'a, Result<Written, Error>>;

    /// Seals what MX answered beside the vault, when the vault cannot be written any more; it answers where.
    fn rescue<'a>(&'a self, key: &'a Arc<Secret>) -> Doing<'a, Result<String, Error>>;

    /// What [`Store::rescue`] sealed, if there is such a file.
    fn rescued(&self) -> Doing<'_, Result<Option<Arc<Secret>>, Error>>;

    /// Makes sure, before MX is called, that a key could be rescued.
    fn prepare_rescue(&self) -> Doing<'_, Result<(), Error>>;

    /// Removes what [`Store::rescue`] and [`Store::prepare_rescue`] left, once the key is in the vault.
    fn forget_rescue(&self) -> Doing<'_, Result<(), Error>>;

    /// Where the keys are, for people.
    fn places(&self) -> [String; 2];
}

/// Two keys and a record, as of one version.
#[derive(Debug, Clone)]
pub(crate) struct Contents {
    /// What a [`Store`] compares; it means nothing to anybody else.
    pub(crate) version: String,
    /// The key that requests are sent with.
    pub(crate) primary: Option<Arc<Secret>>,
    /// The other one.
    pub(crate) secondary: Option<Arc<Secret>>,
    /// Where the rotation stands.
    pub(crate) record: Record,
    /// When the primary key was put there, in Unix time, where the vault tells.
    pub(crate) primary_since: Option<u64>,
}

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Written {
    /// It was done; the version that is there now.
    Stored(String),
    /// Somebody else wrote before.
    Conflict,
}

/// Why a vault could not be used for a rotation. It names references and files, never values.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The credential has one key, or none that MX could rotate.
    #[error(
        "environment {environment} has no credential with api_key and secondary_api_key; a rotation needs both"
    )]
    NoPair {
        /// The environment.
        environment: String,
    },
    /// A key is in a place that mxgate only reads.
    #[error(
        "{reference} cannot be written by mxgate, so a new key could not be sealed; rotation needs api_key and secondary_api_key in a vault that it can write: vault:, or two fields of one openbao: or aws: document"
    )]
    ReadOnly {
        /// As configured.
        reference: Reference,
    },
    /// The keys are in two places, which nothing can change at once.
    #[error(
        "{primary} and {secondary} cannot change places in one write; put both into the embedded vault, or into fields of one document"
    )]
    Apart {
        /// As configured.
        primary: Reference,
        /// As configured.
        secondary: Reference,
    },
    /// A key would be where records are.
    #[error(
        "{reference} or its secondary is below rotation/, where the records of rotations are; give it another name"
    )]
    KeyIsRecord {
        /// The primary key, as configured.
        reference: Reference,
    },
    /// There is nothing to seal a recovery file with.
    #[error(
        "{primary} is at a server, which may fail when MX has just made a key; such a key is sealed into a recovery file beside the embedded vault, so rotation needs a section [vault]"
    )]
    NoIdentity {
        /// As configured.
        primary: Reference,
    },
    /// What stands where the record belongs is none.
    #[error("{place} holds something else than the state of a rotation that this mxgate knows")]
    NoRecord {
        /// The entry.
        place: String,
    },
    /// The primary key may not be sent where the rotation would be called.
    #[error(transparent)]
    NotFor(#[from] NotFor),
    /// It could not be read.
    #[error("the vault could not be read")]
    Unread(#[source] Source),
    /// It could not be written, or nobody can tell whether it was.
    #[error("the vault could not be written")]
    Unwritten(#[source] Source),
    /// The recovery file could not be used.
    #[error("the recovery file {place} could not be used")]
    Recovery {
        /// The file.
        place: String,
        /// Why.
        #[source]
        source: Source,
    },
}

/// Another module's reason.
pub(crate) type Source = Box<dyn std::error::Error + Send + Sync>;

/// What [`open`] takes, for messages.
pub(crate) const WRITABLE: &str =
    "expected two vault: references, or two fields of one openbao: or aws: document";

/// Where the two keys of a pair are.
enum Place {
    /// Two entries of the embedded vault.
    Entries,
    /// Two fields of one document, by the kind of its source.
    Fields(Scheme),
}

impl Place {
    /// `None` where they cannot be written together.
    fn of(primary: &Reference, secondary: &Reference) -> Option<Self> {
        let is_in_fields = primary.field().is_some() && secondary.field().is_some();
        let is_present =
            |reference: &Reference| AwsPlace::of(reference.place()).is_some_and(|place| !place.is_previous);
        match (primary.scheme(), secondary.scheme()) {
            (Scheme::Vault, Scheme::Vault) => Some(Self::Entries),
            (scheme @ (Scheme::OpenBao | Scheme::Aws), _)
                if is_in_fields
                    && primary.document() == secondary.document()
                    && (scheme == Scheme::OpenBao || is_present(primary)) =>
            {
                Some(Self::Fields(scheme))
            }
            _ => None,
        }
    }
}

/// Whether [`open`] takes these two.
pub(crate) fn is_writable(primary: &Reference, secondary: &Reference) -> bool {
    Place::of(primary, secondary).is_some()
}

/// The pair of references that a rotation changes.
fn pair(environment: &Environment) -> Result<[&Reference; 2], Error> {
    let credential = &environment.credential;
    let pair = credential.reference().zip(credential.secondary());
    pair.map(|(primary, secondary)| [primary, secondary])
        .ok_or_else(|| Error::NoPair { environment: environment.name.clone() })
}

/// The vault that holds the keys of `environment`, if it can be written. `sources` are those of `config`.
///
/// # Errors
/// [`Error::NoPair`], [`Error::ReadOnly`], [`Error::Apart`], [`Error::NoIdentity`] or [`Error::NotFor`]. Nothing is read or
/// written.
pub(crate) fn open(
    config: &Config,
    sources: &Sources,
    environment: &Environment,
) -> Result<Arc<dyn Store>, Error> {
    let pair @ [primary, secondary] = pair(environment)?;
    let read_only = || Error::ReadOnly { reference: primary.clone() };
    let place = Place::of(primary, secondary);
    match place.ok_or_else(|| refused(primary, secondary))? {
        Place::Entries if pair.iter().any(|key| embedded::is_record(key)) => {
            Err(Error::KeyIsRecord { reference: primary.clone() })
        }
        Place::Entries => {
            let vault = config.vault.as_ref().ok_or_else(read_only)?;
            Ok(Arc::new(Embedded::new(vault, environment, primary, Some(secondary))))
        }
        Place::Fields(scheme) => {
            let source = sources.get(scheme).ok_or_else(read_only)?;
            let vault =
                config.vault.as_ref().ok_or_else(|| Error::NoIdentity { primary: primary.clone() })?;
            Ok(Arc::new(InDocument::open(source, vault, environment, pair)?))
        }
    }
}

/// Why these two are no pair that can be written.
fn refused(primary: &Reference, secondary: &Reference) -> Error {
    match is_writable(primary, primary) {
        true => Error::Apart { primary: primary.clone(), secondary: secondary.clone() },
        false => Error::ReadOnly { reference: primary.clone() },
    }
}

/// The vault that holds the primary key of `environment`, to be looked at only; `None` when it is of a kind that does not
/// tell how old a key is.
pub(crate) fn look(config: &Config, sources: &Sources, environment: &Environment) -> Option<Arc<dyn Store>> {
    let primary = environment.credential.reference()?;
    let secondary = environment.credential.secondary().filter(|secondary| is_writable(primary, secondary));
    match Place::of(primary, primary) {
        Some(Place::Entries) => {
            let vault = config.vault.as_ref()?;
            Some(Arc::new(Embedded::new(vault, environment, primary, secondary)))
        }
        Some(Place::Fields(scheme)) => sources.get(scheme).map(|source| {
            let pair = [primary, secondary.unwrap_or(primary)];
            Arc::new(InDocument::look(source, environment, pair)) as Arc<dyn Store>
        }),
        None => None,
    }
}
