//! What a run says: notices on the way, how it ended, why it stopped and what to do then.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use super::{state, store};

/// What a run is about to do, or has done. Keys are told apart by their fingerprints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Notice {
    /// Another run's lock may be that of a killed one.
    WaitingForLock { owner: String, until: u64 },
    /// MX is about to be asked for a key.
    Calling { old: String },
    /// The new key is in the vault.
    Sealed { new: String, place: String },
    /// A key from the recovery file is taken in.
    TakenIn { new: String },
    /// The new key is the primary one.
    Primary { new: String, wait: Duration },
    /// MX is about to be asked to delete the old key.
    Retiring { old: String },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WaitingForLock { owner, until } => {
                write!(f, "{owner} holds the lock until {}; waiting, in case it was killed", date(*until))
            }
            Self::Calling { old } => {
                write!(f, "the vault can be written, and key {old} works; asking MX for a new key")
            }
            Self::Sealed { new, place } => write!(f, "the new key {new} is sealed in {place}; trying it"),
            Self::TakenIn { new } => write!(f, "key {new} is taken in from the recovery file"),
            Self::Primary { new, wait } => write!(
                f,
                "MX takes key {new}, and it is the primary one now; waiting {} until every gateway has it",
                time(*wait)
            ),
            Self::Retiring { old } => {
                write!(f, "every gateway has the new key; asking MX to delete key {old}")
            }
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// One key is left, the new one. `old_until`: nobody could see whether the old one is dead; MX deletes it then.
    Done { old: Option<String>, new: String, old_until: Option<u64> },
    /// The new key is in use, and the old one lives until then.
    Kept { until: u64 },
    /// Another run has gone on from where this one waited.
    Elsewhere { step: &'static str },
}

impl Outcome {
    /// Its name, for programs.
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::Done { .. } => "done",
            Self::Kept { .. } => "kept",
            Self::Elsewhere { .. } => "elsewhere",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done { old: Some(old), new, .. } => {
                write!(f, "done: key {new} is in use, and key {old} is dead")
            }
            Self::Done { old: None, new, old_until: None } => write!(f, "done: key {new} is in use"),
            Self::Done { old: None, new, old_until: Some(until) } => write!(
                f,
                "done: key {new} is in use; the old one is not in the vault any more, and MX deletes it on {}",
                date(*until)
            ),
            Self::Kept { until } => write!(
                f,
                "the new key is in use; the old one works until {}, unless `mxgate rotate` retires it before",
                date(*until)
            ),
            Self::Elsewhere { step } => {
                write!(f, "another run has gone on meanwhile; the rotation stands at `{step}`")
            }
        }
    }
}

/// Why a run stopped. The keys that work are in the vault, unless it says otherwise.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The vault.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// There is nobody to ask for.
    #[error(
        "client_guid is not known: MX's rotation API names the client by it (CLT-...); write it into [environment.{environment}.rotation], or give --client-guid"
    )]
    NoClient { environment: String },
    /// Another API.
    #[error("environment {environment} is not MX's Platform API, which has the rotation of keys")]
    NotPlatform { environment: String },
    /// TLS towards MX could not be set up.
    #[error("environment {environment}: {why}")]
    Tls { environment: String, why: String },
    /// Somebody else is at work.
    #[error("{owner} is rotating this environment's key, and holds the lock until {}", date(*.until))]
    Locked { owner: String, until: u64 },
    /// The lock was lost while this process was stopped or slow.
    #[error("another run has taken the lock over, since this one was too slow; nothing more was done here")]
    Overtaken,
    /// Somebody changed an entry at the same moment.
    #[error("the vault's keys were changed by somebody else meanwhile; run it again, and it goes on")]
    Changed,
    /// There is no key to begin with.
    #[error("the vault has no primary key for this environment")]
    NoPrimary,
    /// The slot is not ours to fill.
    #[error(
        "{place} holds key {fingerprint}, which no rotation has put there: a new key would overwrite it; remove it first, if it is not needed"
    )]
    SecondaryInUse { place: String, fingerprint: String },
    /// The recovery file holds a key that nobody misses.
    #[error(
        "the recovery file holds key {fingerprint}, and no rotation is waiting for it; remove the file if that key is not needed"
    )]
    Leftover { fingerprint: String },
    /// MX would kill the key in use.
    #[error(
        "the key of before the last rotation may work at MX until {}; as long as it does, another rotation would kill the key in use",
        date(*.until)
    )]
    OldKeyLives { until: u64 },
    /// The key in use does not work.
    #[error(
        "MX does not take key {fingerprint}, which is the primary one: it was changed in MX's dashboard, or it is another environment's. Nothing was called"
    )]
    PrimaryRefused { fingerprint: String },
    /// A read said nothing about a key.
    #[error("MX could not be asked whether it takes a key: {why}; run it again, and it goes on")]
    Unreachable { why: String },
    /// MX surely made no key.
    #[error("MX made no new key: {why}. The old one stays in use")]
    Refused { why: String },
    /// Nobody can tell whether MX made a key.
    #[error(
        "secondary unknown: MX may have made a key that nobody has ({why}). The old key goes on working, if it did until {}; `mxgate rotate --replace-unknown-secondary` asks MX for another one",
        date(*.until)
    )]
    Unknown { why: String, until: u64 },
    /// The vault failed at the worst moment.
    #[error(
        "MX made key {fingerprint}, and the vault could not be written; the key is sealed in {place}. Once the vault can be written again, `mxgate rotate` takes it in from there"
    )]
    Rescued {
        place: String,
        fingerprint: String,
        #[source]
        why: Box<Error>,
    },
    /// And so did the recovery file.
    #[error(
        "MX made a key, and neither the vault nor the recovery file could be written ({lost}): the key is lost. The old one goes on working; `mxgate rotate` will say `secondary unknown`"
    )]
    KeyLost {
        #[source]
        why: Box<Error>,
        lost: store::Error,
    },
    /// The new key does not work.
    #[error(
        "MX does not take the new key {fingerprint} (yet?); the old one stays in use. Run it again later, or `mxgate rotate --replace-unknown-secondary` asks MX for another one"
    )]
    NewRefused { fingerprint: String },
    /// Neither key works.
    #[error(
        "MX takes neither of the two keys: set a new one from MX's dashboard with `mxgate vault set NAME --config FILE`"
    )]
    BothRefused,
    /// A gateway still uses the old key.
    #[error("{who} does not use the new key yet; the old one is kept. Run it again, and it goes on")]
    ReadersBehind { who: String },
    /// Requests with the new key fail.
    #[error(
        "MX answers requests of the running gateway with 401 ({count} so far, and more all the time), which it repeats with the old key; the old key is kept. Run it again, and it goes on"
    )]
    Refusals { count: u64 },
    /// The old key lives on.
    #[error("the old key still works: {why}; run it again, and it goes on")]
    NotRetired { why: String },
    /// The two keys are not where the record says.
    #[error(
        "the vault's primary key is not {expected}, as the rotation left it, but absent or the other one of the two; put it back, and run this again"
    )]
    Misplaced { expected: String },
    /// Somebody has put another key into the secondary entry, or the configuration names another entry.
    #[error(
        "{place} holds key {fingerprint}, which is not the old one: MX is not asked about it, and it is not removed; put the old key back, or remove this one, if it is not needed, and run it again"
    )]
    NotTheOldKey { place: String, fingerprint: String },
    /// The rotation's keys are not in use any more.
    #[error(
        "the rotation that stood at `{step}` is void, since the primary key is {primary} now, which was set by hand; nothing was called. Run it again for a new rotation"
    )]
    Abandoned { step: &'static str, primary: String },
    /// A defect.
    #[error(transparent)]
    Impossible(#[from] state::Impossible),
}

/// A time span for people, in whole seconds.
pub(crate) fn time(span: Duration) -> String {
    humantime::format_duration(Duration::from_secs(span.as_secs())).to_string()
}

/// A Unix time for people.
pub(crate) fn date(unix: u64) -> String {
    // The year 9999: beyond it there is no RFC 3339.
    let unix = Duration::from_secs(unix.min(253_402_300_799));
    humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + unix).to_string()
}
