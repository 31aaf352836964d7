//! The vault as a rotation sees it: two keys and a record, read together and replaced together.
//!
//! In goes what is to be there and the version that it is based on; out comes the new version, or a conflict when
//! somebody else wrote in between. One file for each kind of vault that can be written ([`embedded`]); the others are
//! refused by [`open`] before anything is called.
//!
//! What must never happen: a key is written and the record that goes with it is not, or the reverse; a write that is
//! based on an old version wins; a write that failed is taken for one that did nothing ([`Error::Unwritten`] may have
//! been done, so look before you repeat it).

pub(crate) mod embedded;

use std::sync::Arc;

use super::{Doing, state::Record};
use crate::{
    config::{Config, Environment},
    vault::{
        reference::{Reference, Scheme},
        secret::Secret,
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
        "{reference} cannot be written by mxgate, so a new key could not be sealed; rotation needs api_key and secondary_api_key in a vault that it can write (vault:)"
    )]
    ReadOnly {
        /// As configured.
        reference: Reference,
    },
    /// The keys are in two places, which nothing can change at once.
    #[error("{primary} and {secondary} are not in one vault, so they cannot change places in one write")]
    Apart {
        /// As configured.
        primary: Reference,
        /// As configured.
        secondary: Reference,
    },
    /// What stands where the record belongs is none.
    #[error("{place} holds something else than the state of a rotation that this mxgate knows")]
    NoRecord {
        /// The entry.
        place: String,
    },
    /// The primary key may not be sent where the rotation would be called.
    #[error("{place} is not sealed for {host}")]
    WrongHost {
        /// The entry.
        place: String,
        /// The environment's host.
        host: String,
    },
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
pub(crate) const WRITABLE: &str = "expected two vault: references";

/// The entry of the embedded vault that a reference names.
fn entry_of(reference: &Reference) -> Option<&str> {
    (reference.scheme() == Scheme::Vault).then(|| reference.place())
}

/// Whether [`open`] takes these two.
pub(crate) fn is_writable(primary: &Reference, secondary: &Reference) -> bool {
    entry_of(primary).is_some() && entry_of(secondary).is_some()
}

/// The pair of references that a rotation changes.
fn pair(environment: &Environment) -> Result<(&Reference, &Reference), Error> {
    let secondary = environment.credential.secondary();
    secondary
        .map(|secondary| (environment.credential.reference(), secondary))
        .ok_or_else(|| Error::NoPair { environment: environment.name.clone() })
}

/// The vault that holds the keys of `environment`, if it can be written.
///
/// # Errors
/// [`Error::NoPair`], [`Error::ReadOnly`], [`Error::Apart`], or why the vault cannot be opened. Nothing is written.
pub(crate) fn open(config: &Config, environment: &Environment) -> Result<Arc<dyn Store>, Error> {
    let (primary, secondary) = pair(environment)?;
    let read_only = || Error::ReadOnly { reference: primary.clone() };
    let name = entry_of(primary).ok_or_else(read_only)?;
    let other = entry_of(secondary)
        .ok_or_else(|| Error::Apart { primary: primary.clone(), secondary: secondary.clone() })?;
    let vault = config.vault.as_ref().ok_or_else(read_only)?;
    Ok(Arc::new(embedded::Embedded::open(vault, environment, name, Some(other))?))
}

/// The vault that holds the primary key of `environment`, to be looked at only; `None` when it is of a kind that does not
/// tell how old a key is.
///
/// # Errors
/// Why the vault cannot be opened.
pub(crate) fn look(config: &Config, environment: &Environment) -> Result<Option<Arc<dyn Store>>, Error> {
    let primary = entry_of(environment.credential.reference());
    let (Some(primary), Some(vault)) = (primary, config.vault.as_ref()) else { return Ok(None) };
    let secondary = environment.credential.secondary().and_then(entry_of);
    Ok(Some(Arc::new(embedded::Embedded::open(vault, environment, primary, secondary)?)))
}
