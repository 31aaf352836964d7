//! What opens the embedded vault, where that is at a server or a command: `identity` and `passphrase` of `[vault]`.
//!
//! In: the settings of the sources that the two name, and one of the two. Out: the text that is there, masked in every log
//! from then on. It is read when the vault is first opened, and kept for as long as it opens the vault. The vault file is
//! read every minute, and it is local; a server that is asked each time would have to be up for that. Only when what is kept
//! does not open the vault, the sources are asked again: the vault was sealed for another identity then.
//!
//! What must never happen: a source is asked without pause while what it says opens nothing; it is asked on a thread whose
//! event loop serves others; what it needs is in the vault that it is to open, which `config` refuses.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use zeroize::Zeroizing;

use super::{
    embedded::identity::{self, Error},
    reference::{Reference, Scheme},
    secret::Secret,
    source::{self, Document, Reason, Source, Sources, file},
};
use crate::{
    config::{Aws, Config, Exec, OpenBao, Refresh},
    redaction,
};

/// The least time between two looks at one source.
const PAUSE: Duration = Duration::from_secs(5);

/// More lines than what opens a vault has are not masked: they are something else.
const LINES_MAX: usize = 64;

/// Where the two are read, and what was read. A copy shares both.
#[derive(Debug, Clone)]
pub struct Elsewhere(Arc<Shared>);

struct Shared {
    settings: Settings,
    /// How long a look at all of them may take.
    patience: Duration,
    /// Held while a source is asked: whoever else needs the same waits for its answer.
    state: Mutex<State>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Settings {
    exec: BTreeMap<String, Exec>,
    openbao: Option<OpenBao>,
    aws: Option<Aws>,
}

#[derive(Default)]
struct State {
    sources: Option<Sources>,
    /// By the references' names.
    kept: BTreeMap<String, Kept>,
}

/// What a source has said.
struct Kept {
    /// The document that the reference is of.
    found: Result<Zeroizing<Vec<u8>>, Arc<source::Error>>,
    at: Instant,
    /// It did not open the vault.
    is_doubted: bool,
    /// What is masked of it, for as long as this is kept.
    _masked: Vec<Arc<Secret>>,
}

impl Elsewhere {
    /// For these references and no others. Nothing is asked yet.
    pub(crate) fn new<'r>(
        references: impl IntoIterator<Item = &'r Reference>,
        exec: &BTreeMap<String, Exec>,
        openbao: Option<&OpenBao>,
        aws: Option<&Aws>,
    ) -> Self {
        let mut settings = Settings::default();
        let mut patience = Duration::ZERO;
        for reference in references {
            match reference.scheme() {
                Scheme::Exec => {
                    if let Some((name, command)) = exec.get_key_value(reference.place()) {
                        patience += command.timeout;
                        let command = Exec { refresh: Refresh::NEVER, ..command.clone() };
                        settings.exec.insert(name.clone(), command);
                    }
                }
                Scheme::OpenBao => {
                    settings.openbao = openbao.map(|one| OpenBao { refresh: Refresh::NEVER, ..one.clone() });
                    // A login and a read, and both once more when the token is refused.
                    patience +=
                        openbao.map_or(Duration::ZERO, |one| 4 * (one.connect_timeout + one.read_timeout));
                }
                Scheme::Aws => {
                    settings.aws = aws.map(|one| Aws { refresh: Refresh::NEVER, ..one.clone() });
                    patience +=
                        aws.map_or(Duration::ZERO, |one| 2 * (one.connect_timeout + one.read_timeout));
                }
                Scheme::File | Scheme::Env | Scheme::Vault => {}
            }
        }
        Self(Arc::new(Shared { settings, patience, state: Mutex::default() }))
    }

    /// For whatever sources a configuration has, for a command in which more is named than its `[vault]` does.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let Config { exec, openbao, aws, .. } = config.clone();
        let settings = Settings { exec, openbao, aws };
        Self(Arc::new(Shared { settings, patience: Duration::ZERO, state: Mutex::default() }))
    }

    /// For identities and passphrases in files and variables only.
    #[must_use]
    pub fn nowhere() -> Self {
        Self::new([], &BTreeMap::new(), None, None)
    }

    /// How long it may take to read both, besides what the volumes of this machine take.
    #[must_use]
    pub(crate) fn patience(&self) -> Duration {
        self.0.patience
    }

    /// The text of the identity or passphrase at `reference`, wherever that is. It waits, for as long as the source may
    /// take.
    ///
    /// # Errors
    /// As [`identity::read`], or [`Error::Source`].
    pub fn read(&self, reference: &Reference) -> Result<Zeroizing<Vec<u8>>, Error> {
        match reference.scheme() {
            Scheme::File | Scheme::Env | Scheme::Vault => identity::read(reference),
            Scheme::Exec | Scheme::OpenBao | Scheme::Aws => self.ask(reference),
        }
    }

    /// Says that what was read does not open the vault. Whether a look at the sources may find something else by now.
    pub(super) fn doubt(&self) -> bool {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.kept.values_mut().for_each(|kept| kept.is_doubted = true);
        let now = Instant::now();
        state.kept.values().any(|kept| !kept.is_good(now))
    }

    fn ask(&self, reference: &Reference) -> Result<Zeroizing<Vec<u8>>, Error> {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { sources, kept } = &mut *state;
        let name = reference.to_string();
        if !kept.get(&name).is_some_and(|kept| kept.is_good(Instant::now())) {
            let source = sources.get_or_insert_with(|| self.0.settings.sources()).get(reference.scheme());
            let source = source.ok_or_else(|| Error::NotHere { reference: reference.clone() })?;
            kept.insert(name.clone(), Kept::new(ask(&*source, reference.place()), reference));
        }
        match kept.get(&name).map(|kept| &kept.found) {
            Some(Ok(document)) => identity::in_document(document.clone(), reference),
            Some(Err(source)) => Err(Error::Source { reference: reference.clone(), source: source.clone() }),
            None => Err(Error::NotHere { reference: reference.clone() }),
        }
    }
}

/// What is read may differ from one look to the next; who reads it is the same when the settings are.
impl PartialEq for Elsewhere {
    fn eq(&self, other: &Self) -> bool {
        self.0.settings == other.0.settings
    }
}

impl Eq for Elsewhere {}

/// The settings, and nothing of what was read.
impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.settings.fmt(f)
    }
}

impl Settings {
    fn sources(&self) -> Sources {
        let Self { exec, openbao, aws } = self;
        // Without the vault: what a login sends cannot be in what is still closed.
        let settings = source::Settings { exec, openbao: openbao.as_ref(), aws: aws.as_ref(), vault: None };
        Sources::of(&settings, &Sources::default())
    }
}

impl Kept {
    fn new(found: Result<Document, source::Error>, reference: &Reference) -> Self {
        let found = found.and_then(|Document { bytes, .. }| match bytes.len() {
            ..=file::SECRET_BYTES_MAX => Ok(bytes),
            _ => Err(source::Error::unreachable(Reason::TooLarge, "it is larger than what opens a vault")),
        });
        let text = found.as_ref().ok().and_then(|bytes| identity::in_document(bytes.clone(), reference).ok());
        let masked = text.map(|text| secrets(&text)).unwrap_or_default();
        redaction::held().remember(&masked);
        Self { found: found.map_err(Arc::new), at: Instant::now(), is_doubted: false, _masked: masked }
    }

    /// Whether it stands for what the source would say.
    fn is_good(&self, now: Instant) -> bool {
        (self.found.is_ok() && !self.is_doubted) || now.saturating_duration_since(self.at) < PAUSE
    }
}

/// The lines that are no comments: a passphrase is one, and so is an age key.
fn secrets(text: &[u8]) -> Vec<Arc<Secret>> {
    let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let lines = lines.filter(|line| !line.starts_with(b"#") && !line.starts_with(b"-----"));
    let secret = |line: &[u8]| Secret::new(line.to_vec()).ok().map(Arc::new);
    lines.take(LINES_MAX).filter_map(secret).collect()
}

/// Asks on a thread of its own, with an event loop of its own: whoever opens a vault may be on a thread that has one.
fn ask(source: &dyn Source, place: &str) -> Result<Document, source::Error> {
    let failed = |error: io::Error| source::Error::unreachable(Reason::Unreachable, error);
    let read = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let found = runtime.block_on(source.read(place));
        // A name that nobody resolves holds up its thread, and not us.
        runtime.shutdown_background();
        found
    };
    thread::scope(|scope| {
        let asking = thread::Builder::new().name("mxgate-opener".into()).spawn_scoped(scope, read);
        let asked = asking.map_err(failed)?.join();
        asked.unwrap_or_else(|_| Err(failed(io::Error::other("reading it panicked; the log says where"))))
    })
}

#[cfg(test)]
mod tests;
