//! One worker: a thread with an event loop of its own, its own upstream connections and its own counters.
//!
//! An acceptor hands it sockets; everything about a connection happens on one worker from then on. What
//! workers share is read-only (the snapshot) or written by one of them (metrics), so nothing on a request's
//! path takes a lock that another core holds, or counts references on a line that another core writes.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::{ArcSwapOption, Cache};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinSet, LocalSet, spawn_local},
    time::{Instant, MissedTickBehavior, interval, timeout_at},
};

use crate::{
    admission::Origin,
    config::Limits,
    control::suspension::Suspensions,
    credential::{Credential, Prepared},
    gateway::{entry::RequestId, refusal::Refusal},
    listener::{self, Arrival, accept::Census},
    log::flood::{Flood, Verdict},
    metrics::{self, WorkerMetrics},
    record::{Record, Recorder},
    redaction::Masker,
    snapshot::{Environment, ListenerSettings, Snapshot},
    upstream::pool::{Pool, PoolSettings},
};

/// How often one address's refusals are logged, and how many addresses are told apart.
const REFUSED_INTERVAL: Duration = Duration::from_secs(10);
const REFUSED_ADDRESSES_MAX: usize = 256;

/// How the process is doing, as workers need to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Serving.
    Serving,
    /// SIGTERM has come: still serving, but every answer closes its connection.
    Closing,
    /// Nothing new is accepted; what is in flight has until then.
    Draining(Instant),
}

/// What a worker is made of.
pub(crate) struct Parts {
    pub(crate) index: usize,
    pub(crate) workers: usize,
    /// Random, the same for all workers of a process.
    pub(crate) process_id: u64,
    pub(crate) snapshot: Arc<ArcSwapOption<Snapshot>>,
    pub(crate) suspensions: Arc<Suspensions>,
    pub(crate) stage: watch::Receiver<Stage>,
    pub(crate) census: Arc<Census>,
    pub(crate) metrics: WorkerMetrics,
    pub(crate) recorder: Recorder,
    pub(crate) arrivals: mpsc::UnboundedReceiver<Arrival>,
    /// Connections here, for the acceptor's choice.
    pub(crate) load: Arc<AtomicUsize>,
}

type Snapshots = Cache<Arc<ArcSwapOption<Snapshot>>, Option<Arc<Snapshot>>>;

/// The state that all connections of one worker share.
pub(crate) struct Worker {
    index: usize,
    workers: usize,
    process_id: u64,
    requests: Cell<u64>,
    snapshots: RefCell<Snapshots>,
    view: RefCell<Option<Rc<View>>>,
    suspensions: Arc<Suspensions>,
    stage: watch::Receiver<Stage>,
    census: Arc<Census>,
    /// The last of `stage`, without a look across cores.
    stage_now: Cell<Stage>,
    pub(crate) metrics: Rc<WorkerMetrics>,
    recorder: RefCell<Recorder>,
    refused_addresses: RefCell<Flood>,
    nothing_to_mask: Arc<Masker>,
}

/// A snapshot with this worker's part of it.
pub(crate) struct View {
    pub(crate) snapshot: Arc<Snapshot>,
    environments: Vec<Rc<EnvironmentView>>,
}

/// An environment with this worker's copies and connections.
pub(crate) struct EnvironmentView {
    pub(crate) settings: Arc<Environment>,
    pub(crate) credential: Credential,
    pub(crate) bearer: Option<Credential>,
    pub(crate) pool: Rc<Pool>,
}

/// Runs a worker until its last connection is over.
pub(crate) fn run(parts: Parts) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, serve(parts));
    Ok(())
}

async fn serve(parts: Parts) {
    let mut stage = parts.stage.clone();
    let load = parts.load.clone();
    let (worker, mut arrivals) = Worker::new(parts);
    let worker = Rc::new(worker);
    let ticker = spawn_local(tick(worker.clone()));
    let follower = spawn_local(follow(worker.clone()));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            arrival = arrivals.recv() => match arrival {
                Some(arrival) => {
                    let open = Open::new(&load, &worker.metrics);
                    let connection = listener::serve(worker.clone(), arrival);
                    connections.spawn_local(async move {
                        connection.await;
                        drop(open);
                    });
                }
                None => break,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    // The acceptor has closed: what is in flight may finish within its bound.
    let until = stage.wait_for(|stage| matches!(stage, Stage::Draining(_))).await.map(|stage| *stage);
    if let Ok(Stage::Draining(until)) = until {
        let all = async { while connections.join_next().await.is_some() {} };
        if timeout_at(until, all).await.is_err() {
            tracing::warn!(
                worker = worker.index,
                connections = connections.len(),
                "drain_total is over; closing what is left"
            );
        }
    }
    connections.shutdown().await;
    ticker.abort();
    follower.abort();
    worker.recorder.borrow_mut().flush();
}

/// Counts one connection, however its task ends.
struct Open(Arc<AtomicUsize>, Rc<WorkerMetrics>);

impl Open {
    fn new(load: &Arc<AtomicUsize>, metrics: &Rc<WorkerMetrics>) -> Self {
        metrics.caller_opened();
        Self(load.clone(), metrics.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
        self.1.caller_closed();
    }
}

/// Takes each stage up as it comes.
async fn follow(worker: Rc<Worker>) {
    let mut stage = worker.stage.clone();
    loop {
        worker.stage_now.set(*stage.borrow_and_update());
        if stage.changed().await.is_err() {
            return;
        }
    }
}

/// The heartbeat, and what is due now and then.
async fn tick(worker: Rc<Worker>) {
    let mut ticks = interval(metrics::TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        worker.metrics.tick(std::time::Instant::now());
        worker.recorder.borrow_mut().flush();
        // Also retires what a new snapshot no longer has, when no request comes by.
        if let Some(view) = worker.view() {
            let now = Instant::now();
            view.environments.iter().for_each(|environment| environment.pool.sweep(now));
        }
        worker.summarise_refused_addresses();
    }
}

impl Worker {
    fn new(parts: Parts) -> (Self, mpsc::UnboundedReceiver<Arrival>) {
        let worker = Self {
            index: parts.index,
            workers: parts.workers,
            process_id: parts.process_id,
            requests: Cell::new(0),
            snapshots: RefCell::new(Cache::new(parts.snapshot)),
            view: RefCell::default(),
            suspensions: parts.suspensions,
            stage: parts.stage,
            census: parts.census,
            stage_now: Cell::new(Stage::Serving),
            metrics: Rc::new(parts.metrics),
            recorder: RefCell::new(parts.recorder),
            refused_addresses: RefCell::new(Flood::new(REFUSED_INTERVAL, REFUSED_ADDRESSES_MAX)),
            nothing_to_mask: Arc::new(Masker::new([])),
        };
        (worker, parts.arrivals)
    }

    /// The bounds that connections opened from now on keep to.
    pub(crate) fn limits(&self) -> Limits {
        self.census.limits()
    }

    /// The current snapshot; `None` before the first one.
    pub(crate) fn view(&self) -> Option<Rc<View>> {
        let mut snapshots = self.snapshots.borrow_mut();
        let current = snapshots.load().as_ref()?;
        let mut view = self.view.borrow_mut();
        match &*view {
            Some(view) if Arc::ptr_eq(&view.snapshot, current) => Some(view.clone()),
            previous => {
                let next = Rc::new(View::new(current.clone(), previous.as_deref(), self));
                *view = Some(next.clone());
                Some(next)
            }
        }
    }

    pub(crate) fn next_request_id(&self) -> RequestId {
        let count = self.requests.get() + 1;
        self.requests.set(count);
        // The worker's index above, so that no two workers count alike.
        RequestId::new(self.process_id, ((self.index as u64) << 48) | count)
    }

    /// Whether every answer must close its connection.
    pub(crate) fn closing(&self) -> bool {
        self.stage_now.get() != Stage::Serving
    }

    /// Whether connections without a request must go.
    pub(crate) fn draining(&self) -> bool {
        matches!(self.stage_now.get(), Stage::Draining(_))
    }

    /// Ends when connections without a request must go.
    pub(crate) async fn drained(&self) {
        let mut stage = self.stage.clone();
        let drained = stage.wait_for(|stage| matches!(stage, Stage::Draining(_))).await.is_ok();
        if !drained {
            std::future::pending::<()>().await;
        }
    }

    pub(crate) fn check_suspended(&self, environment: &str, origin: Origin) -> Result<(), Refusal> {
        let address = match origin {
            Origin::Address(address) => Some(address),
            Origin::Unix { .. } => None,
        };
        if self.suspensions.applies(environment, address, std::time::Instant::now()) {
            Err(Refusal::Suspended)
        } else {
            Ok(())
        }
    }

    /// Says who was refused and why, without letting a flood of them fill the log.
    pub(crate) fn log_refused_address(&self, refusal: Refusal, origin: Origin) {
        let Origin::Address(address) = origin else { return };
        let key = (refusal.code(), address);
        if let Verdict::Log { unsaid } =
            self.refused_addresses.borrow_mut().note(key, std::time::Instant::now())
        {
            tracing::warn!(reason = refusal.code(), %address, unsaid, "refused");
        }
    }

    fn summarise_refused_addresses(&self) {
        for summary in self.refused_addresses.borrow_mut().due(std::time::Instant::now()) {
            match summary.key {
                Some((reason, address)) => {
                    tracing::warn!(reason, %address, count = summary.count, "refused again")
                }
                None => tracing::warn!(count = summary.count, "refused, many more addresses"),
            }
        }
    }

    pub(crate) fn record(&self, record: &Record<'_>) {
        self.recorder.borrow_mut().record(record);
    }

    /// For answers to requests that carried no secret of ours.
    pub(crate) fn nothing_to_mask(&self) -> Arc<Masker> {
        self.nothing_to_mask.clone()
    }
}

impl View {
    /// Connections whose upstream is still the same are kept; the others are retired.
    fn new(snapshot: Arc<Snapshot>, previous: Option<&Self>, worker: &Worker) -> Self {
        let environments: Vec<_> = snapshot
            .environments
            .iter()
            .map(|settings| Rc::new(EnvironmentView::new(settings.clone(), previous, worker)))
            .collect();
        let retired =
            previous.iter().flat_map(|previous| &previous.environments).map(|environment| &environment.pool);
        for pool in retired {
            if !environments.iter().any(|environment| Rc::ptr_eq(&environment.pool, pool)) {
                pool.retire();
            }
        }
        Self { snapshot, environments }
    }

    pub(crate) fn listener(&self, index: usize) -> Option<&ListenerSettings> {
        self.snapshot.listeners.get(index)
    }

    pub(crate) fn environment(&self, index: usize) -> Option<&Rc<EnvironmentView>> {
        self.environments.get(index)
    }
}

impl EnvironmentView {
    fn new(settings: Arc<Environment>, previous: Option<&View>, worker: &Worker) -> Self {
        let timeouts = &settings.timeouts;
        let pool_settings = PoolSettings {
            connections_max: share(settings.dial.connections_max, worker.workers, worker.index),
            idle: timeouts.pool_idle,
            age: timeouts.connection_age,
            connect: timeouts.connect,
            tls: timeouts.tls,
        };
        let kept = previous.and_then(|previous| {
            let pools = previous.environments.iter().map(|environment| &environment.pool);
            pools.into_iter().find(|pool| pool.serves(&settings.dial, &pool_settings)).cloned()
        });
        Self {
            credential: settings.credential.for_worker(),
            bearer: settings.bearer.token().map(Prepared::for_worker),
            pool: kept
                .unwrap_or_else(|| Pool::new(settings.dial.clone(), pool_settings, worker.metrics.clone())),
            settings,
        }
    }
}

/// One worker's part of a cap that all workers keep together. Each needs at least one.
fn share(all: usize, workers: usize, index: usize) -> usize {
    (all / workers + usize::from(index < all % workers)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_the_cap_and_none_is_empty() {
        for (all, workers) in [(256, 3), (7, 4), (4, 4), (2_000, 256)] {
            assert_eq!((0..workers).map(|index| share(all, workers, index)).sum::<usize>(), all);
        }
        assert_eq!((0..4).map(|index| share(2, 4, index)).collect::<Vec<_>>(), [1, 1, 1, 1]);
    }
}
