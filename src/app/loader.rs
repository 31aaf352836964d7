//! Configuration and secrets become a snapshot, now and at every reload.
//!
//! A reload reads everything anew, builds a whole snapshot and swaps it in; one that fails keeps the old
//! snapshot, says why, and leaves its mark in the metrics and the status.

use std::{
    collections::BTreeSet,
    fmt::{self, Display, Formatter},
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use super::{
    differences::{changed_keys, changed_secrets},
    files::Stamps,
};
use crate::{
    capacity,
    config::{self, Config},
    control::{
        Gateway, Readiness,
        messages::{EnvironmentStatus, GatewayStatus, Observing, ReloadReport},
        suspension::Suspensions,
        systemd,
    },
    limits::CallerLimits,
    listener::accept::Census,
    log::Log,
    metrics::Metrics,
    rotation::Standings,
    snapshot::Snapshot,
    vault::{Vault, reference::Reference},
    worker::Stage,
};

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
    /// Loads so far, failed ones too. A value and not a notification, so that nobody misses one.
    loads: watch::Sender<u64>,
    /// One reload at a time.
    reloading: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

/// What the last load left behind. The lock is never held while something is read: readiness is asked for with it.
struct State {
    config: Config,
    vault: Option<Arc<Vault>>,
    /// What the files looked like before the last load read them.
    stamps: Stamps,
    vault_read: bool,
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
    ControlSocket,
}

impl Display for Cause {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "the start",
            Self::NotReady => "not ready yet",
            Self::Hangup => "SIGHUP",
            Self::File => "a file changed",
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
    ) -> Arc<Self> {
        let state = State {
            config,
            vault: None,
            stamps: Stamps::default(),
            vault_read: false,
            loaded_at: SystemTime::now(),
            fault: None,
            log_override: false,
        };
        let snapshot = Arc::<ArcSwapOption<Snapshot>>::default();
        metrics.show_upstreams(snapshot.clone());
        let standings = Arc::<Standings>::default();
        metrics.show_rotations(standings.clone());
        Arc::new(Self {
            path,
            log,
            census,
            metrics,
            stage,
            suspensions: Arc::default(),
            standings,
            snapshot,
            loads: watch::Sender::new(0),
            reloading: tokio::sync::Mutex::default(),
            state: Mutex::new(state),
        })
    }

    pub(super) fn snapshot(&self) -> Arc<ArcSwapOption<Snapshot>> {
        self.snapshot.clone()
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

    /// Changes with every load, whoever asked for it.
    pub(super) fn loads(&self) -> watch::Receiver<u64> {
        self.loads.subscribe()
    }

    /// What the files of the last load looked like before it read them.
    pub(super) fn stamps(&self) -> Stamps {
        self.state().stamps.clone()
    }

    /// The first snapshot, from the configuration that the process was started with.
    pub(super) fn load_first(&self) {
        let config = self.state().config.clone();
        let mut stamps = Stamps::default();
        stamps.add(self.files_of(&config));
        let done = self.build(config);
        self.over(Cause::Start, stamps, done.err());
    }

    /// Every file whose change may change the snapshot.
    fn files_of(&self, config: &Config) -> BTreeSet<PathBuf> {
        let mut files = BTreeSet::from([self.path.clone()]);
        if let Some(vault) = &config.vault {
            files.insert(vault.path.clone());
            files.extend(file_of(&vault.identity));
            files.extend(vault.passphrase.as_ref().and_then(file_of));
        }
        for environment in config.environments.values() {
            files.extend(environment.references().into_iter().filter_map(file_of));
            files.extend(environment.ca_file.clone());
            let certificate = environment.client_certificate.iter();
            files.extend(certificate.flat_map(|files| [files.certificate.clone(), files.key.clone()]));
        }
        let listeners = config.listeners.iter().filter_map(|listener| listener.tls.as_ref());
        files.extend(listeners.flat_map(|files| [files.certificate.clone(), files.key.clone()]));
        files.extend(config.callers.iter().flat_map(config::Caller::files).cloned());
        let authorities = config.listeners.iter().filter_map(|listener| listener.client_ca.as_ref());
        files.extend(authorities.map(|authorities| authorities.file.clone()));
        files.extend(config.tokens.iter().map(|tokens| tokens.file.clone()));
        files
    }

    /// Reads configuration and secrets again.
    pub(super) async fn reload(self: &Arc<Self>, cause: Cause) -> Result<ReloadReport, String> {
        let _one_at_a_time = self.reloading.lock().await;
        if self.snapshot.load().is_some() {
            systemd::reloading();
        }
        let this = self.clone();
        let done = tokio::task::spawn_blocking(move || this.reload_now(cause)).await;
        let done = done.unwrap_or_else(|_| {
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

    fn reload_now(&self, cause: Cause) -> Result<ReloadReport, String> {
        let mut stamps = Stamps::default();
        stamps.add(self.files_of(&self.state().config));
        let mut attempt = || {
            let loaded =
                Config::load(&self.path).map_err(|faults| joined(&faults.0, |fault| fault.to_string()))?;
            for warning in &loaded.warnings {
                tracing::warn!("{warning}");
            }
            self.acceptable(&loaded.config)?;
            // Also when they cannot be read: they may appear later.
            stamps.add(self.files_of(&loaded.config));
            self.build(loaded.config)
        };
        let done = attempt();
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
        let (running, vault) = {
            let state = self.state();
            (state.config.clone(), state.vault.clone())
        };
        let needs_restart = running.restart_only_changes(&config);
        config.keep_restart_only(&running);
        let vault = match vault {
            Some(vault) => vault.reopen(),
            None => Vault::open(config.vault.as_ref()),
        };
        self.state().vault_read = vault.is_ok();
        let vault = vault.map_err(|error| chain(&error))?;
        let previous = self.snapshot.load_full();
        let snapshot = Snapshot::build(&config, &vault, previous.as_deref())
            .map_err(|errors| joined(&errors, |error| chain(error)))?;
        let generation = snapshot.generation;
        let mut changes = changed_keys(&running, &config);
        changes.extend(previous.iter().flat_map(|previous| changed_secrets(previous, &snapshot)));

        let mut state = self.state();
        if !state.log_override && running.log.filter != config.log.filter {
            self.log.set_filter(&config.log.filter).map_err(|error| error.to_string())?;
        }
        self.census.set_limits(capacity::limits(&config));
        self.metrics.watch_versions(snapshot.versions.clone());
        self.snapshot.store(Some(Arc::new(snapshot)));
        self.metrics.reload_succeeded(generation);
        state.config = config;
        state.vault = Some(Arc::new(vault));
        state.loaded_at = SystemTime::now();
        Ok(ReloadReport {
            generation,
            changes,
            needs_restart: needs_restart.into_iter().map(str::to_owned).collect(),
        })
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
                tracing::error!(%cause, fault, "no new snapshot; what was loaded before stays");
            }
        }
        self.loads.send_modify(|loads| *loads += 1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn file_of(reference: &Reference) -> Option<PathBuf> {
    match reference {
        Reference::File(path) => Some(path.clone()),
        Reference::Vault(_) | Reference::Env(_) => None,
    }
}

/// Whether a caller is in observe mode now.
fn observing(caller: &config::Caller) -> Option<Observing> {
    let until = caller.observe_until.filter(|until| *until > SystemTime::now())?;
    Some(Observing {
        caller: caller.name.clone(),
        until: humantime::format_rfc3339_seconds(until).to_string(),
    })
}

/// All of them, in one line.
fn joined<E>(errors: &[E], text: impl Fn(&E) -> String) -> String {
    errors.iter().map(text).collect::<Vec<_>>().join("; ")
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
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

impl Gateway for Arc<Loader> {
    fn status(&self) -> GatewayStatus {
        let snapshot = self.snapshot.load();
        let state = self.state();
        let environment = |settings: &config::Environment| {
            let loaded = snapshot.as_ref().and_then(|snapshot| snapshot.environment(&settings.name));
            EnvironmentStatus {
                name: settings.name.clone(),
                host: settings.host.clone(),
                credential: settings.credential.reference().to_string(),
                fingerprint: loaded.map(|loaded| loaded.credential.used().fingerprint().to_owned()),
            }
        };
        let limits = snapshot.iter().flat_map(|snapshot| snapshot.limits.iter().flatten());
        GatewayStatus {
            generation: snapshot.as_ref().map_or(0, |snapshot| snapshot.generation),
            loaded_at: humantime::format_rfc3339_seconds(state.loaded_at).to_string(),
            configuration: self.path.display().to_string(),
            reload_fault: state.fault.clone(),
            log_filter: state.config.log.filter.clone(),
            listeners: state.config.listeners.iter().map(|listener| listener.address.to_string()).collect(),
            environments: state.config.environments.values().map(|settings| environment(settings)).collect(),
            upstreams: snapshot.as_ref().map(|snapshot| snapshot.upstreams()).unwrap_or_default(),
            limits: limits.map(CallerLimits::status).collect(),
            rotations: self.standings.all(),
            observing: state.config.callers.iter().filter_map(observing).collect(),
        }
    }

    fn caller_names(&self) -> Vec<String> {
        self.state().config.callers.iter().map(|caller| caller.name.clone()).collect()
    }

    fn readiness(&self) -> Readiness {
        Readiness {
            snapshot_loaded: self.snapshot.load().is_some(),
            draining: *self.stage.borrow() != Stage::Serving,
            vault_read: self.state().vault_read,
        }
    }

    fn reload(&self) -> Pin<Box<dyn Future<Output = Result<ReloadReport, String>> + Send + '_>> {
        Box::pin(Loader::reload(self, Cause::ControlSocket))
    }

    fn set_log_filter(&self, filter: Option<&str>) -> Result<(), String> {
        if let Some(filter) = filter {
            // The file's own rule: a mistyped level would switch the log off.
            config::log_filter(filter).map_err(|problem| problem.to_string())?;
        }
        let mut state = self.state();
        let wanted = filter.unwrap_or(&state.config.log.filter);
        self.log.set_filter(wanted).map_err(|error| error.to_string())?;
        state.log_override = filter.is_some();
        Ok(())
    }
}
