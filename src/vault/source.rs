//! Kinds of vault, one file each, behind one small trait.
//!
//! In goes a place (what stands between the scheme and `#` of a reference); out comes the `Document` there, or an
//! [`Error`]. The control plane reads, never a worker. `Sources::new` is the one place that lists the kinds.
//!
//! What must never happen: "absent" (revoked: stop using it now) and "unreachable" (the last good value serves within
//! its grace) are mixed up; a read that lasts longer, or yields more, than its source bounds it to; an error that
//! holds a value.

use std::{collections::BTreeMap, fmt, pin::Pin, sync::Arc, time::SystemTime};

use zeroize::Zeroizing;

use super::reference::Scheme;
use crate::config::{self, Config};

#[cfg(feature = "aws")]
mod aws;
pub(crate) mod env;
mod exec;
pub mod file;
pub(crate) mod openbao;

/// One kind of vault.
pub(crate) trait Source: fmt::Debug + Send + Sync {
    /// Reads the document at `place` (what stands between scheme and `#`) now; bounded in time and size.
    fn read<'a>(&'a self, place: &'a str) -> Reading<'a, Document>;

    /// The same source, if mxgate can write there.
    fn as_writable(&self) -> Option<&dyn Writable> {
        None
    }
}

/// What a source is doing.
pub(crate) type Reading<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// What a source holds at one place. It cannot be printed.
pub(crate) struct Document {
    pub(crate) bytes: Zeroizing<Vec<u8>>,
    /// The source's own word for this version; `None` where it has none.
    pub(crate) version: Option<String>,
    /// When this version was written, as the source says; `None` where it does not.
    pub(crate) written: Option<SystemTime>,
}

/// A source that can be written, for rotation: compare-and-swap on the version.
pub(crate) trait Writable: Source {
    /// Replaces the document at `place` if its version is still `expected` (`None`: it must not exist); gives the new
    /// version.
    fn write<'a>(
        &'a self,
        place: &'a str,
        document: &'a [u8],
        expected: Option<&'a str>,
    ) -> Reading<'a, Written>;
}

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Written {
    /// It is there, as this version.
    Stored(String),
    /// Somebody else has written since `expected`; nothing was changed.
    Conflict,
}

crate::coded::coded! {
    /// Why a secret could not be read, in a word that metrics and the status use.
    Reason {
        /// It is not there: it was revoked, or never was.
        Absent = "absent";
        /// Its source could not be reached, or failed.
        Unreachable = "unreachable";
        /// Its source did not answer in time.
        Timeout = "timeout";
        /// Its source does not let us read it.
        Denied = "denied";
        /// Its source does not take our login, or it has ended.
        Login = "login";
        /// Its source is sealed.
        Sealed = "sealed";
        /// Others could have changed what it comes from.
        Untrusted = "untrusted";
        /// What came is larger than a secret is.
        TooLarge = "too_large";
        /// What came has another form than it should have, or not the field.
        Malformed = "malformed";
        /// What came is no secret that could be sent or masked.
        Unfit = "unfit";
    }
}

/// Why a source gave no document. Its text is about the source; who asked names the reference.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none: stop using what was read before.
    #[error("does not exist")]
    Absent,
    /// It could not be had now; it may be there.
    #[error("could not be read")]
    Unreachable {
        /// For metrics and the status.
        reason: Reason,
        /// For the log: each kind of source has its own errors.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// It could not be had now, since `source`.
    pub(crate) fn unreachable(
        reason: Reason,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Unreachable { reason, source: source.into() }
    }

    /// Why, in a word.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Absent => Reason::Absent,
            Self::Unreachable { reason, .. } => *reason,
        }
    }
}

/// What sources are made from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings<'s> {
    pub(super) exec: &'s BTreeMap<String, config::Exec>,
    pub(super) openbao: Option<&'s config::OpenBao>,
    #[cfg_attr(not(feature = "aws"), expect(dead_code, reason = "such a build has no such source"))]
    pub(super) aws: Option<&'s config::Aws>,
    /// Where what a login sends may be.
    pub(super) vault: Option<&'s config::VaultFile>,
}

/// The sources that a configuration has, by kind.
#[derive(Debug, Default, Clone)]
pub(crate) struct Sources(BTreeMap<Scheme, Kept>);

/// A source, with the settings that it was made from.
#[derive(Debug, Clone)]
struct Kept {
    settings: String,
    source: Arc<dyn Source>,
}

impl Sources {
    /// Those of `previous` whose settings are the same stay, with their connections and logins.
    pub(crate) fn new(config: &Config, previous: &Self) -> Self {
        let Config { exec, openbao, aws, vault, .. } = config;
        Self::of(
            &Settings { exec, openbao: openbao.as_ref(), aws: aws.as_ref(), vault: vault.as_ref() },
            previous,
        )
    }

    /// The same from the settings alone.
    pub(super) fn of(settings: &Settings<'_>, previous: &Self) -> Self {
        let Settings { exec, vault, .. } = *settings;
        let mut sources = Making { previous, made: Self::default() };
        // Each kind once. The embedded vault is none: it is opened once for all of its entries.
        sources.add(Scheme::Env, &(), || Arc::new(env::Env));
        sources.add(Scheme::File, &(), || Arc::new(file::Files));
        sources.add(Scheme::Exec, exec, || Arc::new(exec::Commands(exec.clone())));
        if let Some(openbao) = settings.openbao {
            // How fresh its secrets are kept is not its business.
            let settings = config::OpenBao { refresh: config::Refresh::NEVER, ..openbao.clone() };
            let made_from = (&settings, vault);
            sources.add(Scheme::OpenBao, &made_from, || {
                Arc::new(openbao::OpenBao::new(&settings, vault.cloned()))
            });
        }
        #[cfg(feature = "aws")]
        if let Some(aws) = settings.aws {
            let settings = config::Aws { refresh: config::Refresh::NEVER, ..aws.clone() };
            sources.add(Scheme::Aws, &settings, || Arc::new(aws::Aws::new(&settings)));
        }
        sources.made
    }

    /// The source of that kind, if the configuration has it.
    pub(crate) fn get(&self, scheme: Scheme) -> Option<Arc<dyn Source>> {
        self.0.get(&scheme).map(|kept| kept.source.clone())
    }
}

struct Making<'p> {
    previous: &'p Sources,
    made: Sources,
}

impl Making<'_> {
    fn add(&mut self, scheme: Scheme, settings: &dyn fmt::Debug, make: impl FnOnce() -> Arc<dyn Source>) {
        // Settings hold references and never secrets, so their text tells them apart and may be kept.
        let settings = format!("{settings:?}");
        let same = self.previous.0.get(&scheme).filter(|kept| kept.settings == settings).cloned();
        let kept = same.unwrap_or_else(|| Kept { source: make(), settings });
        self.made.0.insert(scheme, kept);
    }
}
