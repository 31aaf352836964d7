//! All secrets that the configuration refers to, read at loads and kept fresh in between.
//!
//! In: configurations. One is in use; another may be considered, which is read from its own sources, and reaches
//! nothing of the one in use. Out: [`Gathered`] for a snapshot, a signal when a secret has changed, and what metrics
//! and the status show. Each document is read by whoever keeps it fresh (`app/refresh.rs`), files and the embedded
//! vault together and at every load.
//!
//! What must never happen: a source that is slow or stuck holds up another one, a load that needs nothing new of it,
//! or a request; of two looks at one document the older one is taken in last; a value that one source gave goes where
//! only another one's would.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, task::JoinSet, time::timeout};

use super::{
    Error, Read, Vault, field,
    freshness::Moment,
    gathered::Gathered,
    known::{Known, Noted},
    reference::{DocumentAt, Reference, Scheme},
    secret::Secret,
    source::{self, Document, Source, Sources},
};
use crate::{
    blocking::in_time,
    config::{Config, Environment, Needed, Refresh, VaultFile},
    redaction,
    tree::tree,
};

mod status;

/// How long the embedded vault's volume may take.
const VAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// Keeps secrets.
#[derive(Debug)]
pub(crate) struct Keeper {
    state: Mutex<State>,
    /// The embedded vault as it was last read. Held while files are read, so that an older look is never taken in last.
    vault: tokio::sync::Mutex<Option<Arc<Vault>>>,
    /// Looks so far that found something new, or were not asked for by a load.
    changes: watch::Sender<u64>,
    /// Looks so far.
    looks: watch::Sender<u64>,
    /// Changes of what is to be kept fresh.
    documents: watch::Sender<u64>,
    clock: fn() -> Moment,
    /// Leaves no mark of having seen a vault.
    peeks: bool,
}

#[derive(Debug, Default)]
struct State {
    used: Option<Part>,
    considered: Option<Part>,
    /// By the references' names.
    known: BTreeMap<String, Known>,
    /// The same: how the values that are known came here, and where they went then.
    ways: BTreeMap<String, Way>,
}

/// From where to where a secret goes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Way {
    /// [`Config::origin_of`].
    origin: String,
    hosts: BTreeSet<String>,
}

/// What one configuration has to do with secrets.
#[derive(Debug)]
struct Part {
    sources: Sources,
    vault: Option<VaultFile>,
    used: Vec<Used>,
    ways: BTreeMap<String, Way>,
}

/// One secret that a configuration uses.
#[derive(Debug)]
struct Used {
    environment: String,
    reference: Reference,
    /// Whether everything works without it.
    may_be_absent: bool,
    refresh: Refresh,
}

/// What a document was found to be.
type Found = Result<Document, Arc<source::Error>>;

impl Keeper {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self::with_clock(Moment::now))
    }

    /// One for a single look.
    pub(super) fn peeking() -> Self {
        Self { peeks: true, ..Self::with_clock(Moment::now) }
    }

    /// One that goes by another clock, for tests.
    pub(crate) fn with_clock(clock: fn() -> Moment) -> Self {
        Self {
            state: Mutex::default(),
            vault: tokio::sync::Mutex::default(),
            changes: watch::Sender::new(0),
            looks: watch::Sender::new(0),
            documents: watch::Sender::new(0),
            clock,
            peeks: false,
        }
    }

    /// A configuration that may come into use: what it refers to besides is kept fresh from now on.
    pub(crate) fn consider(&self, config: &Config) {
        let mut state = self.state();
        let used = state.used.as_ref().map(|used| used.sources.clone()).unwrap_or_default();
        state.considered = Some(Part::new(config, &used));
        state.settle();
        drop(state);
        self.documents.send_modify(|changes| *changes += 1);
    }

    /// A configuration is in use: what no other referred to is forgotten.
    pub(crate) fn adopt(&self, config: &Config) {
        let mut state = self.state();
        let before = state.considered.take().or_else(|| state.used.take());
        let sources = before.map(|before| before.sources).unwrap_or_default();
        state.used = Some(Part::new(config, &sources));
        state.settle();
        drop(state);
        self.documents.send_modify(|changes| *changes += 1);
    }

    /// The sources of the configuration in use, with their logins.
    pub(crate) fn sources(&self) -> Sources {
        self.state().used.as_ref().map(|used| used.sources.clone()).unwrap_or_default()
    }

    /// Begins a look at files, variables and the embedded vault.
    pub(crate) async fn look(&self) -> Look<'_> {
        Look { keeper: self, vault: self.vault.lock().await, found: BTreeMap::new(), opened: None }
    }

    /// Reads everything once.
    pub(super) async fn read_all(&self) {
        let ways = self.state().ways();
        let mut reads = JoinSet::new();
        for (document, source) in self.documents() {
            reads.spawn(async move {
                let found = source.read(&document.place).await.map_err(Arc::new);
                (document, found)
            });
        }
        let mut look = self.look().await;
        look.read().await;
        look.take_in();
        let found = reads.join_all().await;
        self.note(tree(found), None, ways);
    }

    /// Reads one document of a source that is not local, and tells of a change.
    pub(crate) async fn read(
        &self,
        document: &DocumentAt,
        source: &dyn Source,
    ) -> Result<(), source::Reason> {
        // Before it is asked: another one may answer for the same name when this one has.
        let ways = self.state().ways();
        let found = source.read(&document.place).await.map_err(Arc::new);
        let outcome = found.as_ref().map(|_| ()).map_err(|error| error.reason());
        if self.note(tree([(document.clone(), found)]), None, ways) {
            self.changes.send_modify(|changes| *changes += 1);
        }
        outcome
    }

    async fn read_files(&self) -> BTreeMap<DocumentAt, Found> {
        let mut reads = JoinSet::new();
        for (document, source) in self.state().documents(is_local) {
            reads.spawn(async move {
                let found = source.read(&document.place).await.map_err(Arc::new);
                (document, found)
            });
        }
        tree(reads.join_all().await)
    }

    /// `None` without a vault.
    async fn open_vault(&self, before: Option<Arc<Vault>>) -> Option<Result<Arc<Vault>, Arc<Error>>> {
        let config = self.state().parts().find_map(|part| part.vault.clone())?;
        let (peeks, name) = (self.peeks, format!("vault {}", config.path.display()));
        // Who looks once waits for what opens it. A gateway has others to serve, and comes again.
        let patience = if peeks { VAULT_TIMEOUT + config.elsewhere.patience() } else { VAULT_TIMEOUT };
        let open = move || match before {
            _ if peeks => Vault::peek(&config),
            Some(before) => before.reopen(),
            None => Vault::open(&config),
        };
        let opened = in_time(name, patience, open).await.unwrap_or(Err(Error::VaultTimeout));
        Some(opened.map(Arc::new).map_err(Arc::new))
    }

    /// Takes in what was read; whether anything is another than before.
    fn note(
        &self,
        found: BTreeMap<DocumentAt, Found>,
        vault: Option<Result<Arc<Vault>, Arc<Error>>>,
        mut ways: BTreeMap<String, Way>,
    ) -> bool {
        let now = (self.clock)();
        let mut state = self.state();
        let mut fresh = Vec::new();
        for reference in state.references() {
            let outcome = match (reference.scheme(), &vault) {
                (Scheme::Vault, Some(Ok(vault))) => vault.read(&reference).map_err(Arc::new),
                (Scheme::Vault, Some(Err(error))) => Err(error.clone()),
                _ => match found.get(&reference.document()) {
                    Some(found) => secret_of(&reference, found).map_err(Arc::new),
                    None => continue,
                },
            };
            let name = reference.to_string();
            let Some(known) = state.known.get_mut(&name) else { continue };
            let noted = known.note(outcome, now);
            if noted == Noted::Changed {
                fresh.extend(known.good().map(|good| good.secret.clone()));
            }
            if noted != Noted::Failed {
                state.ways.extend(ways.remove_entry(&name));
            }
        }
        drop(state);
        // Before anything is told of them.
        redaction::held().remember(&fresh);
        self.looks.send_modify(|looks| *looks += 1);
        !fresh.is_empty()
    }

    /// What every reference of `config` came to.
    pub(crate) fn gathered(&self, config: &Config) -> Gathered {
        let state = self.state();
        let one = |Needed { reference, host, .. }: Needed<'_>| {
            let name = reference.to_string();
            let is_moved = |way: &Way| way.origin != config.origin_of(reference) && !way.hosts.contains(host);
            if state.ways.get(&name).is_some_and(is_moved) {
                let (reference, host) = (reference.clone(), host.to_owned());
                return (name, Err(Arc::new(Error::Moved { reference, host })));
            }
            let known = state.known.get(&name);
            let found = match known.map(|known| (known.good(), known.fault())) {
                Some((Some(good), _)) => Ok(good.clone()),
                Some((None, Some(fault))) => Err(fault.clone()),
                _ => Err(Arc::new(state.missing(reference))),
            };
            (name, found)
        };
        let needed = config.environments.values().flat_map(|environment| environment.needed());
        Gathered::new(tree(needed.map(one)))
    }

    /// Waits until every reference was looked at once, but not for longer than `patience`.
    pub(crate) async fn attempted(&self, patience: Duration) {
        let mut looks = self.looks.subscribe();
        let all = looks.wait_for(|_| {
            let state = self.state();
            let pending = |(document, _): &(DocumentAt, Arc<dyn Source>)| {
                let of = |reference: &&Reference| reference.document() == *document;
                let known = |reference: &Reference| state.known.get(&reference.to_string());
                let references = state.references();
                references.iter().filter(of).any(|one| known(one).is_some_and(|known| !known.attempted()))
            };
            !state.documents(|scheme| !is_local(scheme)).iter().any(pending)
        });
        let _ = timeout(patience, all).await;
    }

    /// The files among what is read.
    pub(crate) fn files(&self) -> BTreeSet<PathBuf> {
        let state = self.state();
        let vaults = state.parts().filter_map(|part| part.vault.as_ref());
        let of_vaults = vaults.flat_map(|vault| [Some(vault.path.clone()), vault.identity.as_file()]);
        let files = state.references().into_iter().filter_map(|reference| reference.as_file());
        tree(of_vaults.flatten().chain(files))
    }

    /// What is to be kept fresh besides files, variables and the embedded vault, each with its source.
    pub(crate) fn documents(&self) -> Vec<(DocumentAt, Arc<dyn Source>)> {
        self.state().documents(|scheme| !is_local(scheme))
    }

    /// How often a document is read.
    pub(crate) fn interval(&self, document: &DocumentAt) -> Duration {
        let state = self.state();
        let of = |part: &Part| {
            let used = part.used.iter().filter(|used| used.reference.document() == *document);
            used.map(|used| used.refresh.interval).min()
        };
        state.parts().find_map(of).unwrap_or(Duration::MAX)
    }

    /// How often files and the embedded vault are read though they look unchanged.
    pub(crate) fn local_interval(&self) -> Duration {
        let state = self.state();
        let is_refreshed = |scheme| is_local(scheme) && scheme != Scheme::Env;
        let used = state.parts().flat_map(|part| &part.used);
        let refreshed = used.filter(|used| is_refreshed(used.reference.scheme()));
        refreshed.map(|used| used.refresh.interval).min().unwrap_or(Duration::MAX)
    }

    /// Changes when what [`Self::documents`] says does.
    pub(crate) fn watch_documents(&self) -> watch::Receiver<u64> {
        self.documents.subscribe()
    }

    /// Changes when a look that no load had asked for found something new.
    pub(crate) fn watch_changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Says which graces are over.
    pub(crate) fn tell_ends(&self) {
        let now = (self.clock)();
        self.state().known.values_mut().for_each(|known| known.tell_end(now));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One look at what is on this machine. What was read counts once it is taken in.
pub(crate) struct Look<'k> {
    keeper: &'k Keeper,
    vault: tokio::sync::MutexGuard<'k, Option<Arc<Vault>>>,
    found: BTreeMap<DocumentAt, Found>,
    opened: Option<Result<Arc<Vault>, Arc<Error>>>,
}

impl Look<'_> {
    /// Reads; again, when something was written meanwhile: of files that are swapped together not one is then taken
    /// from before and another from after.
    pub(crate) async fn read(&mut self) {
        let (opened, found) =
            tokio::join!(self.keeper.open_vault(self.vault.clone()), self.keeper.read_files());
        (self.opened, self.found) = (opened, found);
    }

    /// Whether a secret is another than before.
    pub(crate) fn take_in(mut self) -> bool {
        if let Some(Ok(opened)) = &self.opened {
            *self.vault = Some(opened.clone());
        }
        let ways = self.keeper.state().ways();
        self.keeper.note(self.found, self.opened, ways)
    }
}

impl Part {
    fn new(config: &Config, previous: &Sources) -> Self {
        let of = |environment: &Environment| {
            let name = environment.name.clone();
            let used = |needed: Needed<'_>| Used {
                environment: name.clone(),
                reference: needed.reference.clone(),
                may_be_absent: needed.role.may_be_absent(),
                refresh: config.refresh_of(needed.reference),
            };
            environment.needed().into_iter().map(used).collect::<Vec<_>>()
        };
        Self {
            sources: Sources::new(config, previous),
            vault: config.vault.clone(),
            used: config.environments.values().flat_map(|environment| of(environment)).collect(),
            ways: ways(config),
        }
    }
}

fn ways(config: &Config) -> BTreeMap<String, Way> {
    let mut ways = BTreeMap::new();
    for environment in config.environments.values() {
        for Needed { reference, host, .. } in environment.needed() {
            let way = ways.entry(reference.to_string());
            let way =
                way.or_insert_with(|| Way { origin: config.origin_of(reference), hosts: BTreeSet::new() });
            way.hosts.insert(host.to_owned());
        }
    }
    ways
}

impl State {
    /// The one in use first: what both have is read as it says.
    fn parts(&self) -> impl Iterator<Item = &Part> {
        self.used.iter().chain(&self.considered)
    }

    /// Of every reference, as it is read now.
    fn ways(&self) -> BTreeMap<String, Way> {
        let all: Vec<&Part> = self.parts().collect();
        tree(all.into_iter().rev().flat_map(|part| part.ways.clone()))
    }

    /// Each once.
    fn references(&self) -> Vec<Reference> {
        let all = self.parts().flat_map(|part| &part.used).map(|used| &used.reference);
        let by_name: BTreeMap<_, _> = tree(all.map(|one| (one.to_string(), one.clone())));
        by_name.into_values().collect()
    }

    fn documents(&self, fits: impl Fn(Scheme) -> bool) -> Vec<(DocumentAt, Arc<dyn Source>)> {
        let mut found = BTreeMap::new();
        for part in self.parts() {
            let references = part.used.iter().map(|used| &used.reference);
            for reference in references.filter(|reference| fits(reference.scheme())) {
                if let Some(source) = part.sources.get(reference.scheme()) {
                    found.entry(reference.document()).or_insert(source);
                }
            }
        }
        found.into_iter().collect()
    }

    /// Knows of every reference of the parts, and of no other.
    fn settle(&mut self) {
        let mut wanted = BTreeMap::new();
        for used in self.parts().flat_map(|part| &part.used) {
            let (_, may_be_absent) = wanted.entry(used.reference.to_string()).or_insert((used.refresh, true));
            *may_be_absent &= used.may_be_absent;
        }
        self.known.retain(|name, _| wanted.contains_key(name));
        self.ways.retain(|name, _| wanted.contains_key(name));
        for (name, (refresh, may_be_absent)) in wanted {
            let known = self.known.entry(name).or_insert_with_key(|name| Known::new(name.clone(), refresh));
            known.set_refresh(refresh);
            known.set_may_be_absent(may_be_absent);
        }
    }

    /// Why a reference has neither a value nor a fault.
    fn missing(&self, reference: &Reference) -> Error {
        let reference = reference.clone();
        let scheme = reference.scheme();
        let has_source = match scheme {
            Scheme::Vault => self.parts().any(|part| part.vault.is_some()),
            _ => self.parts().any(|part| part.sources.get(scheme).is_some()),
        };
        if has_source {
            Error::NotYet { reference }
        } else {
            Error::NoSource { section: scheme.name(), reference }
        }
    }
}

/// Whether it is read at every load: that takes no time.
fn is_local(scheme: Scheme) -> bool {
    matches!(scheme, Scheme::Vault | Scheme::Env | Scheme::File)
}

#[cfg(test)]
pub(crate) mod tests;

pub(super) fn secret_of(reference: &Reference, found: &Found) -> Result<Read, Error> {
    let named = || reference.clone();
    let document = found.as_ref().map_err(|error| match &**error {
        source::Error::Absent => Error::Absent { reference: named() },
        source::Error::Unreachable { .. } => Error::Unreachable { reference: named(), source: error.clone() },
    })?;
    let secret = secret_in(document, reference)?;
    Ok(Read { secret: Arc::new(secret), hosts: None, version: document.version.clone() })
}

/// The secret that `reference` names in the document at its place.
pub(crate) fn secret_in(document: &Document, reference: &Reference) -> Result<Secret, Error> {
    let named = || reference.clone();
    let mut bytes = match reference.field() {
        Some(name) => {
            field::of(&document.bytes, name).map_err(|source| Error::Field { reference: named(), source })?
        }
        None => document.bytes.clone(),
    };
    let unfit = |source| Error::Unfit { reference: named(), source };
    let secret = Secret::new(std::mem::take(&mut *bytes)).map_err(unfit)?;
    secret.check_sendable().map_err(unfit)?;
    Ok(secret)
}
