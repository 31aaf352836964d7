//! The gateway looks after the age of its keys: it warns, and rotates where the configuration has a schedule.
//!
//! A thread of its own, so that neither a vault nor MX holds up anything else. It looks when something was loaded, when a
//! lock ends, and every hour. What it finds is in the status and the metrics; a warning is logged when it is new, and once a day. With
//! replicas the lock in the vault decides which one rotates.
//!
//! What must never happen: the process ends between MX's answer and the vault, because it was told to stop; a rotation
//! that fails is tried again and again.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, atomic::AtomicBool, atomic::Ordering::Relaxed, mpsc},
    thread,
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::loader::Loader;
use crate::{
    config::{Config, Environment},
    control::Gateway as _,
    rotation::{
        self, Doing, Order, Rotation, Standing,
        readers::Readers,
        schedule::{Due, due},
    },
    worker::Stage,
};

/// How often it looks when nothing is loaded, and how soon after a failure it tries again.
const HOUR: Duration = Duration::from_secs(60 * 60);

/// How often the same warning is logged.
const REMIND: Duration = Duration::from_secs(24 * 60 * 60);

/// How long the end of the process waits for a key that MX is about to hand over.
const HANDOVER: Duration = Duration::from_secs(60);

/// The thread.
pub(super) struct Handle(mpsc::Receiver<()>);

/// Starts it; it ends when `stage` leaves serving.
pub(super) fn start(loader: Arc<Loader>, stage: watch::Receiver<Stage>) -> io::Result<Handle> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Its blocking threads: reading and writing the vault.
        .thread_name("mxgate-vault")
        .build()?;
    let (ended, over) = mpsc::sync_channel(1);
    thread::Builder::new().name("mxgate-rotate".into()).spawn(move || {
        runtime.block_on(Caretaker::new(loader).serve(stage));
        // Nobody may be waiting.
        let _ = ended.try_send(());
    })?;
    Ok(Handle(over))
}

impl Handle {
    /// Waits for its end, which takes time only while MX is handing a key over.
    pub(super) fn finish(self) {
        // Late or gone, there is nothing left to do about it.
        let _ = self.0.recv_timeout(HANDOVER + Duration::from_secs(1));
    }
}

struct Caretaker {
    loader: Arc<Loader>,
    owner: String,
    /// By environment: what was warned of last, and when.
    warned: BTreeMap<String, (Vec<String>, Instant)>,
    /// By environment: when a rotation that failed may be tried again.
    not_before: BTreeMap<String, Instant>,
    /// Whether MX is being asked for a key that is not sealed yet.
    handover: AtomicBool,
}

impl Caretaker {
    fn new(loader: Arc<Loader>) -> Self {
        Self {
            loader,
            owner: rotation::owner(),
            warned: BTreeMap::new(),
            not_before: BTreeMap::new(),
            handover: AtomicBool::new(false),
        }
    }

    async fn serve(mut self, mut stage: watch::Receiver<Stage>) {
        let mut loads = self.loader.loads();
        loop {
            loads.mark_unchanged();
            let Some(next) = self.round(&mut stage).await else { return };
            tokio::select! {
                _ = loads.changed() => {}
                () = sleep(next) => {}
                _ = stage.wait_for(|stage| *stage != Stage::Serving) => return,
            }
        }
    }

    /// Looks at every environment and does what is due. How long to wait for the next time; `None` when the process is
    /// to end.
    async fn round(&mut self, stage: &mut watch::Receiver<Stage>) -> Option<Duration> {
        let (config, sources) = (self.loader.config(), self.loader.sources());
        let mut standings = Vec::new();
        for environment in config.environments.values() {
            match Rotation::look(&config, &sources, environment).await {
                Ok(Some(standing)) => standings.push(standing),
                Ok(None) => {}
                Err(error) => {
                    let environment = &environment.name;
                    tracing::debug!(environment, %error, "the age of the key cannot be told");
                }
            }
        }
        standings.iter().for_each(|standing| self.warn(standing));
        self.loader.standings().replace(standings.clone());
        let next = standings.iter().filter_map(lock_ends).min().unwrap_or(HOUR).min(HOUR);
        for standing in standings {
            let Some(environment) = config.environments.get(&standing.environment) else { continue };
            let Some(due) = due(&standing, &environment.rotation, rotation::unix_now()) else { continue };
            if self.not_before.get(&standing.environment).is_some_and(|until| Instant::now() < *until) {
                continue;
            }
            if !self.rotate_until_stopped(&config, environment, due, stage).await {
                return None;
            }
        }
        Some(next)
    }

    fn warn(&mut self, standing: &Standing) {
        let environment = &standing.environment;
        let last = self.warned.get(environment);
        let is_known =
            last.is_some_and(|(warnings, at)| *warnings == standing.warnings && at.elapsed() < REMIND);
        if !is_known {
            for warning in &standing.warnings {
                tracing::warn!(environment, warning, "about the key");
            }
            self.warned.insert(environment.clone(), (standing.warnings.clone(), Instant::now()));
        }
    }

    /// False when the process is to end. A run is then left where it is, since another takes it up; but not while a key
    /// is on its way.
    async fn rotate_until_stopped(
        &mut self,
        config: &Config,
        environment: &Arc<Environment>,
        due: Due,
        stage: &mut watch::Receiver<Stage>,
    ) -> bool {
        let rotated = {
            let mut run = std::pin::pin!(self.rotate(config, environment, due));
            tokio::select! {
                rotated = &mut run => rotated,
                _ = stage.wait_for(|stage| *stage != Stage::Serving) => {
                    let sealed = async {
                        while self.handover.load(Relaxed) {
                            sleep(Duration::from_millis(50)).await;
                        }
                    };
                    let _ = timeout(HANDOVER, async {
                        tokio::select! {
                            _ = &mut run => {}
                            () = sealed => {}
                        }
                    })
                    .await;
                    return false;
                }
            }
        };
        if !rotated {
            self.not_before.insert(environment.name.clone(), Instant::now() + HOUR);
        }
        true
    }

    /// Whether it came to a good end.
    async fn rotate(&self, config: &Config, environment: &Arc<Environment>, due: Due) -> bool {
        let name = &environment.name;
        tracing::info!(environment = name, ?due, "rotating the key");
        let order = Order {
            owner: self.owner.clone(),
            keep_old: None,
            retire_after: None,
            replace_unknown: false,
            wait: false,
            client_guid: None,
        };
        let say = |step: &rotation::Said<'_>| {
            self.handover.store(step.is_handover, Relaxed);
            tracing::info!(environment = name, step = step.text, "rotating the key");
        };
        let run = async {
            let sources = self.loader.sources();
            Rotation::with(config, &sources, environment)?
                .run(&order, &Own(self.loader.clone(), name), &say)
                .await
        };
        let done = run.await;
        self.handover.store(false, Relaxed);
        match &done {
            Ok(report) => tracing::info!(environment = name, outcome = report.text, "rotated the key"),
            Err(error) if error.is_locked() => {
                tracing::info!(environment = name, %error, "not rotating the key")
            }
            Err(error) => {
                let error = error.text();
                tracing::error!(environment = name, error, "the rotation of the key has stopped");
            }
        }
        done.is_ok()
    }
}

/// When the lock of a run that may have been killed is over.
fn lock_ends(standing: &Standing) -> Option<Duration> {
    let (_, until) = standing.locked.as_ref()?;
    Some(Duration::from_secs(until.saturating_sub(rotation::unix_now()) + 1))
}

/// This gateway itself.
struct Own<'n>(Arc<Loader>, &'n str);

impl Readers for Own<'_> {
    fn behind<'a>(&'a self, new: &'a str) -> Doing<'a, Option<String>> {
        let behind = rotation::readers::behind(&self.0.status(), self.1, new);
        Box::pin(std::future::ready(behind.map(|why| format!("this gateway {why}"))))
    }

    fn refusals(&self) -> Doing<'_, Option<u64>> {
        Box::pin(std::future::ready(rotation::readers::refusals(&self.0.status(), self.1)))
    }
}
