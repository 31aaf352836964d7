//! Configuration and secrets become a snapshot, now and at every reload.
//!
//! A reload reads everything anew, builds a whole snapshot and swaps it in; one that fails keeps the old
//! snapshot, says why, and leaves its mark in the metrics and the status.

use std::{
    collections::BTreeSet,
    fmt::Display,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, watch};

use crate::{
    config::{self, Config},
    control::{
        Gateway, Readiness,
        messages::{EnvironmentStatus, GatewayStatus, ReloadReport},
        suspension::Suspensions,
        systemd,
    },
    listener::accept::Census,
    log::Log,
    metrics::Metrics,
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
    snapshot: Arc<ArcSwapOption<Snapshot>>,
    swapped: Notify,
    /// One reload at a time.
    reloading: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

/// What the last load left behind.
struct State {
    config: Config,
    vault: Option<Vault>,
    vault_read: bool,
    loaded_at: SystemTime,
    fault: Option<String>,
    log_override: bool,
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
            vault_read: false,
            loaded_at: SystemTime::now(),
            fault: None,
            log_override: false,
        };
        Arc::new(Self {
            path,
            log,
            census,
            metrics,
            stage,
            suspensions: Arc::default(),
            snapshot: Arc::default(),
            swapped: Notify::new(),
            reloading: tokio::sync::Mutex::default(),
            state: Mutex::new(state),
        })
    }

    pub(super) fn snapshot(&self) -> Arc<ArcSwapOption<Snapshot>> {
        self.snapshot.clone()
    }

    pub(super) fn suspensions(&self) -> Arc<Suspensions> {
        self.suspensions.clone()
    }

    /// Ends when a snapshot was swapped in.
    pub(super) async fn swapped(&self) {
        self.swapped.notified().await;
    }

    /// The first snapshot, from the configuration that the process was started with.
    pub(super) fn load_first(&self) {
        let config = self.state().config.clone();
        match self.build(config) {
            Ok(_) => {}
            Err(fault) => self.failed("not ready", &fault),
        }
    }

    /// Every file whose change may change the snapshot.
    pub(super) fn watched_files(&self) -> BTreeSet<PathBuf> {
        let state = self.state();
        let mut files = BTreeSet::from([self.path.clone()]);
        if let Some(vault) = &state.config.vault {
            files.insert(vault.path.clone());
            files.extend(file_of(&vault.identity));
        }
        for environment in state.config.environments.values() {
            files.extend(environment.references().into_iter().filter_map(file_of));
            files.extend(environment.ca_file.clone());
            let certificate = environment.client_certificate.iter();
            files.extend(certificate.flat_map(|files| [files.certificate.clone(), files.key.clone()]));
        }
        let listeners = state.config.listeners.iter().filter_map(|listener| listener.tls.as_ref());
        files.extend(listeners.flat_map(|files| [files.certificate.clone(), files.key.clone()]));
        files
    }

    /// Reads configuration and secrets again.
    pub(super) async fn reload(self: &Arc<Self>, cause: &'static str) -> Result<ReloadReport, String> {
        let _one_at_a_time = self.reloading.lock().await;
        let this = self.clone();
        systemd::reloading();
        let done = tokio::task::spawn_blocking(move || this.reload_now(cause)).await;
        if self.snapshot.load().is_some() {
            systemd::ready("serving");
        }
        done.unwrap_or_else(|_| Err("the reload panicked; the log says where".into()))
    }

    fn reload_now(&self, cause: &str) -> Result<ReloadReport, String> {
        let attempt = || {
            let loaded = Config::load(&self.path).map_err(|faults| faults.to_string())?;
            for warning in &loaded.warnings {
                tracing::warn!("{warning}");
            }
            self.acceptable(&loaded.config)?;
            self.build(loaded.config)
        };
        attempt().inspect_err(|fault| self.failed(cause, fault)).inspect(|report| {
            tracing::info!(
                cause,
                generation = report.generation,
                changes = report.changes.join(", "),
                "reloaded"
            );
            if !report.needs_restart.is_empty() {
                tracing::warn!(
                    keys = report.needs_restart.join(", "),
                    "changed keys that only a restart applies"
                );
            }
        })
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
        let mut state = self.state();
        let needs_restart = state.config.restart_only_changes(&config);
        config.keep_restart_only(&state.config);
        let vault = match &state.vault {
            Some(vault) => vault.reopen(),
            None => Vault::open(config.vault.as_ref()),
        };
        state.vault_read = vault.is_ok();
        let vault = vault.map_err(|error| chain(&error))?;
        let previous = self.snapshot.load_full();
        let snapshot = Snapshot::build(&config, &vault, previous.as_deref())
            .map_err(|errors| errors.iter().map(|error| chain(error)).collect::<Vec<_>>().join("; "))?;
        let generation = snapshot.generation;
        let changes = changes(&state.config, &config);
        if !state.log_override && state.config.log.filter != config.log.filter {
            self.log.set_filter(&config.log.filter).map_err(|error| error.to_string())?;
        }
        self.census.set_limits(config.limits.clone());
        self.snapshot.store(Some(Arc::new(snapshot)));
        self.metrics.reload_succeeded(generation);
        *state = State { config, vault: Some(vault), loaded_at: SystemTime::now(), fault: None, ..*state };
        self.swapped.notify_waiters();
        Ok(ReloadReport {
            generation,
            changes,
            needs_restart: needs_restart.into_iter().map(str::to_owned).collect(),
        })
    }

    fn failed(&self, cause: &str, fault: &str) {
        self.metrics.reload_failed();
        let before = self.state().fault.replace(fault.to_owned());
        // A start without secrets is tried again and again: once in the log is enough.
        if before.as_deref() != Some(fault) {
            tracing::error!(cause, fault, "no new snapshot; what was loaded before stays");
        }
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

/// What differs, in the words of the configuration.
fn changes(old: &Config, new: &Config) -> Vec<String> {
    let mut changes = Vec::new();
    let mut note = |what: &dyn Display, changed: bool| {
        if changed {
            changes.push(what.to_string());
        }
    };
    note(&"allow", old.allow != new.allow);
    note(&"trusted_proxies", old.trusted_proxies != new.trusted_proxies);
    note(&"forwarded_header", old.forwarded_header != new.forwarded_header);
    note(&"limits", old.limits != new.limits);
    note(&"log.filter", old.log.filter != new.log.filter);
    for name in old.environments.keys().chain(new.environments.keys()).collect::<BTreeSet<_>>() {
        let changed = old.environments.get(name) != new.environments.get(name);
        note(&format_args!("environment.{name}"), changed);
    }
    changes
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
        GatewayStatus {
            generation: snapshot.as_ref().map_or(0, |snapshot| snapshot.generation),
            loaded_at: humantime::format_rfc3339_seconds(state.loaded_at).to_string(),
            configuration: self.path.display().to_string(),
            reload_fault: state.fault.clone(),
            log_filter: state.config.log.filter.clone(),
            listeners: state.config.listeners.iter().map(|listener| listener.address.to_string()).collect(),
            environments: state.config.environments.values().map(|settings| environment(settings)).collect(),
        }
    }

    fn readiness(&self) -> Readiness {
        Readiness {
            snapshot_loaded: self.snapshot.load().is_some(),
            draining: *self.stage.borrow() != Stage::Serving,
            vault_read: self.state().vault_read,
        }
    }

    fn reload(&self) -> Pin<Box<dyn Future<Output = Result<ReloadReport, String>> + Send + '_>> {
        Box::pin(Loader::reload(self, "the control socket"))
    }

    fn set_log_filter(&self, filter: Option<&str>) -> Result<(), String> {
        let mut state = self.state();
        let wanted = filter.unwrap_or(&state.config.log.filter);
        self.log.set_filter(wanted).map_err(|error| error.to_string())?;
        state.log_override = filter.is_some();
        Ok(())
    }
}
