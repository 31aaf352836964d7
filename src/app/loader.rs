//! Configuration and secrets become a snapshot, now and at every reload.
//!
//! A reload reads everything anew, builds a whole snapshot and swaps it in; one that fails keeps the old
//! snapshot, says why, and leaves its mark in the metrics and the status.

mod asked;
mod renewal;

use std::{
    collections::BTreeSet,
    fmt::{self, Display, Formatter},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use super::{
    differences::{changed_keys, changed_secrets},
    files::Stamps,
};
use crate::{
    capacity,
    config::Config,
    control::{suspension::Suspensions, systemd},
    listener::accept::Census,
    log::Log,
    metrics::Metrics,
    oauth::broker::Broker,
    rotation::Standings,
    snapshot::Snapshot,
    status::ReloadReport,
    tree::tree,
    vault::{chain, keeper::Keeper, source::Sources},
    worker::Stage,
};

/// How long the start waits for secrets that a server or a command has; then it serves without being ready.
const FIRST_PATIENCE: Duration = Duration::from_secs(1);

/// How long a reload waits for those that were never read before; then it fails, until they have come.
const PATIENCE: Duration = Duration::from_secs(2);

/// Makes snapshots.
pub(super) struct Loader {
    path: PathBuf,
    log: Log,
    census: Arc<Census>,
    metrics: Metrics,
    stage: watch::Receiver<Stage>,
    suspensions: Arc<Suspensions>,
    /// How old each environment's key is, and where its rotation stands.
    standings: Arc<Standings>,
    snapshot: Arc<ArcSwapOption<Snapshot>>,
    keeper: Arc<Keeper>,
    /// Gets access tokens; `None`: nothing was configured at the start that needs it.
    broker: Option<Arc<Broker>>,
    /// Loads so far, failed ones too. A value and not a notification, so that nobody misses one.
    loads: watch::Sender<u64>,
    /// One reload at a time.
    reloading: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

/// What the last load left behind. The lock is never held while something is read: readiness is asked for with it.
struct State {
    config: Config,
    /// What the files looked like before the last load read them.
    stamps: Stamps,
    loaded_at: SystemTime,
    fault: Option<String>,
    log_override: bool,
}

/// What made the gateway load again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    Start,
    /// There is nothing to serve with yet.
    NotReady,
    Hangup,
    File,
    Secret,
    ControlSocket,
}

impl Display for Cause {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "the start",
            Self::NotReady => "not ready yet",
            Self::Hangup => "SIGHUP",
            Self::File => "a file changed",
            Self::Secret => "a secret changed",
            Self::ControlSocket => "the control socket",
        })
    }
}

impl Loader {
    pub(super) fn new(
        config: Config,
        path: PathBuf,
        log: Log,
        census: Arc<Census>,
        metrics: Metrics,
        stage: watch::Receiver<Stage>,
        broker: Option<Arc<Broker>>,
    ) -> Arc<Self> {
        let state = State {
            config,
            stamps: Stamps::default(),
            loaded_at: SystemTime::now(),
            fault: None,
            log_override: false,
        };
        let snapshot = Arc::<ArcSwapOption<Snapshot>>::default();
        let standings = Arc::<Standings>::default();
        metrics.show_rotations(standings.clone());
        if let Some(broker) = &broker {
            metrics.show_connections(broker.clone());
        }
        let keeper = Keeper::new();
        metrics.show(snapshot.clone(), keeper.clone());
        Arc::new(Self {
            path,
            log,
            census,
            metrics,
            stage,
            suspensions: Arc::default(),
            standings,
            snapshot,
            keeper,
            broker,
            loads: watch::Sender::new(0),
            reloading: tokio::sync::Mutex::default(),
            state: Mutex::new(state),
        })
    }

    pub(super) fn snapshot(&self) -> Arc<ArcSwapOption<Snapshot>> {
        self.snapshot.clone()
    }

    pub(super) fn keeper(&self) -> Arc<Keeper> {
        self.keeper.clone()
    }

    pub(super) fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    pub(super) fn suspensions(&self) -> Arc<Suspensions> {
        self.suspensions.clone()
    }

    pub(super) fn standings(&self) -> &Standings {
        &self.standings
    }

    /// The configuration in use.
    pub(super) fn config(&self) -> Config {
        self.state().config.clone()
    }

    /// Where its secrets come from, with what was logged in there.
    pub(super) fn sources(&self) -> Sources {
        self.keeper.sources()
    }

    /// Changes with every load, whoever asked for it.
    pub(super) fn loads(&self) -> watch::Receiver<u64> {
        self.loads.subscribe()
    }

    /// What the files of the last load looked like before it read them.
    pub(super) fn stamps(&self) -> Stamps {
        self.state().stamps.clone()
    }

    /// The first snapshot, from the configuration that the process was started with.
    pub(super) async fn load_first(self: &Arc<Self>) {
        let config = self.state().config.clone();
        let mut stamps = Stamps::default();
        stamps.add(self.files_of(&config)).await;
        self.keeper.consider(&config);
        self.look(&mut stamps).await;
        self.keeper.attempted(FIRST_PATIENCE).await;
        let done = self.build(config);
        self.over(Cause::Start, stamps, done.err());
    }

    /// Every file whose change may change the snapshot.
    fn files_of(&self, config: &Config) -> BTreeSet<PathBuf> {
        let mut files: BTreeSet<_> = tree(config.loaded_files().map(|(file, _)| file));
        files.insert(self.path.clone());
        files
    }

    /// Reads configuration and secrets again.
    pub(super) async fn reload(self: &Arc<Self>, cause: Cause) -> Result<ReloadReport, String> {
        let this = self.clone();
        // A task of its own: whoever asked may go.
        let done = tokio::spawn(async move {
            let _one_at_a_time = this.reloading.lock().await;
            if this.is_done(cause).await {
                return Ok(ReloadReport::default());
            }
            if this.snapshot.load().is_some() {
                systemd::reloading();
            }
            this.reload_now(cause).await
        });
        let done = done.await.unwrap_or_else(|_| {
            let fault = "the reload panicked; the log says where".to_owned();
            self.over(cause, self.stamps(), Some(fault.clone()));
            Err(fault)
        });
        self.tell_systemd();
        done
    }

    /// Ready, or why not.
    pub(super) fn tell_systemd(&self) {
        match (self.snapshot.load().as_ref(), &self.state().fault) {
            (Some(snapshot), None) => {
                systemd::ready(&format!("serving, configuration {}", snapshot.generation));
            }
            (Some(snapshot), Some(fault)) => systemd::ready(&format!(
                "serving, configuration {}; the last reload failed: {fault}",
                snapshot.generation
            )),
            (None, fault) => systemd::status(&format!("not ready: {}", fault.as_deref().unwrap_or_default())),
        }
    }

    async fn reload_now(self: &Arc<Self>, cause: Cause) -> Result<ReloadReport, String> {
        let running = self.state().config.clone();
        let mut stamps = Stamps::default();
        stamps.add(self.files_of(&running)).await;
        let this = self.clone();
        let read = tokio::task::spawn_blocking(move || this.read_configuration()).await;
        let read = read.unwrap_or_else(|_| Err("reading the configuration panicked".into()));
        if let Ok(config) = &read {
            // Also when they cannot be read: they may appear later.
            stamps.add(self.files_of(config)).await;
            let mut config = config.clone();
            config.keep_restart_only(&running);
            self.keeper.consider(&config);
        }
        self.look(&mut stamps).await;
        if read.is_ok() {
            self.keeper.attempted(PATIENCE).await;
        }
        let this = self.clone();
        let build = move || {
            let done = read.and_then(|config| this.build(config));
            // Secrets change also while the configuration cannot.
            if done.is_err() {
                this.build_running();
            }
            done
        };
        let done = tokio::task::spawn_blocking(build).await;
        let done = done.unwrap_or_else(|_| Err("building the snapshot panicked; the log says where".into()));
        if let Ok(report) = &done {
            let (generation, changes) = (report.generation, report.changes.join(", "));
            tracing::info!(%cause, generation, changes, "reloaded");
            if !report.needs_restart.is_empty() {
                let keys = report.needs_restart.join(", ");
                tracing::warn!(keys, "changed keys that only a restart applies");
            }
        }
        self.over(cause, stamps, done.as_ref().err().cloned());
        done
    }

    fn read_configuration(&self) -> Result<Config, String> {
        let loaded =
            Config::load(&self.path).map_err(|faults| joined(&faults.0, |fault| fault.to_string()))?;
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        self.acceptable(&loaded.config)?;
        Ok(loaded.config)
    }

    /// A file that would turn every caller away is most likely a mistake, and its repair can wait for nobody.
    fn acceptable(&self, new: &Config) -> Result<(), String> {
        if new.allow.is_empty() && !self.state().config.allow.is_empty() {
            return Err(
                "`allow` has become empty, which would drop every caller; the old configuration stays \
                        (use `mxgate suspend` to stop traffic, or restart with this file)"
                    .into(),
            );
        }
        Ok(())
    }

    fn build(&self, mut config: Config) -> Result<ReloadReport, String> {
        let running = self.state().config.clone();
        let needs_restart = running.restart_only_changes(&config);
        config.keep_restart_only(&running);
        let previous = self.snapshot.load_full();
        let snapshot = self.snapshot_of(&config, previous.as_deref())?;
        let generation = snapshot.generation;
        let mut changes = changed_keys(&running, &config);
        changes.extend(previous.iter().flat_map(|previous| changed_secrets(previous, &snapshot)));

        let mut state = self.state();
        if !state.log_override && running.log.filter != config.log.filter {
            self.log.set_filter(&config.log.filter).map_err(|error| error.to_string())?;
        }
        self.census.set_limits(capacity::limits(&config));
        self.keeper.adopt(&config);
        self.serve(snapshot);
        match &self.broker {
            Some(broker) => broker.adopt(&config),
            None if !config.providers.is_empty() => {
                tracing::warn!("the first [provider] is used from the next start on");
            }
            None => {}
        }
        state.config = config;
        state.loaded_at = SystemTime::now();
        Ok(ReloadReport {
            generation,
            changes,
            needs_restart: needs_restart.into_iter().map(str::to_owned).collect(),
            unread: self.keeper.faults(),
        })
    }

    /// A snapshot of the configuration in use, where one of its secrets has changed.
    fn build_running(&self) {
        let Some(previous) = self.snapshot.load_full() else { return };
        let config = self.state().config.clone();
        let gathered = self.keeper.gathered(&config);
        if !previous.is_outdated(&config, &gathered) {
            return;
        }
        match self.snapshot_of(&config, Some(&previous)) {
            Ok(snapshot) => {
                let (generation, changes) =
                    (snapshot.generation, changed_secrets(&previous, &snapshot).join(", "));
                self.serve(snapshot);
                tracing::info!(
                    generation,
                    changes,
                    "changed secrets are used, with the configuration from before"
                );
            }
            Err(fault) => {
                previous.end_misplaced(&config, &gathered);
                tracing::error!(fault, "changed secrets cannot be used");
            }
        }
    }

    fn snapshot_of(&self, config: &Config, previous: Option<&Snapshot>) -> Result<Snapshot, String> {
        Snapshot::build(config, &self.keeper.gathered(config), previous)
            .map_err(|errors| joined(&errors, |error| chain(error)))
    }

    fn serve(&self, snapshot: Snapshot) {
        let generation = snapshot.generation;
        self.metrics.watch_versions(snapshot.versions.clone());
        self.snapshot.store(Some(Arc::new(snapshot)));
        self.metrics.reload_succeeded(generation);
    }

    /// Leaves the outcome where metrics, status and log find it.
    fn over(&self, cause: Cause, stamps: Stamps, fault: Option<String>) {
        let before = {
            let mut state = self.state();
            state.stamps = stamps;
            std::mem::replace(&mut state.fault, fault.clone())
        };
        if let Some(fault) = &fault {
            self.metrics.reload_failed();
            // A start without secrets is tried again and again: once in the log is enough.
            if cause != Cause::NotReady || before.as_ref() != Some(fault) {
                let stays = match self.snapshot.load().is_some() {
                    true => "what was loaded before stays",
                    false => "nothing is loaded: not ready",
                };
                tracing::error!(%cause, fault, "no new snapshot; {stays}");
            }
        }
        self.loads.send_modify(|loads| *loads += 1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All of them, in one line.
fn joined<E>(errors: &[E], text: impl Fn(&E) -> String) -> String {
    errors.iter().map(text).collect::<Vec<_>>().join("; ")
}
