//! One worker: a thread with an event loop of its own, its own upstream connections and its own counters.
//!
//! An acceptor hands it sockets; everything about a connection happens on one worker from then on. What
//! workers share is read-only (the snapshot) or written by one of them (metrics), so nothing on a request's
//! path takes a lock that another core holds, or counts references on a line that another core writes.

pub(crate) mod state;
pub(crate) mod tokens;
pub(crate) mod view;

use std::{panic, rc::Rc, sync::Arc};

use arc_swap::ArcSwapOption;
use tokio::{
    sync::{mpsc, watch},
    task::{JoinSet, LocalSet},
    time::{Instant, MissedTickBehavior, interval, timeout_at},
};

use self::state::Worker;
use crate::{
    control::suspension::Suspensions,
    listener::{
        self, Arrival,
        accept::{Census, Load},
    },
    metrics::{self, WorkerMetrics},
    oauth::broker::Broker,
    record::Recorder,
    snapshot::Snapshot,
};

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
    /// Gets access tokens; `None`: nothing is configured that needs it.
    pub(crate) broker: Option<Arc<Broker>>,
    pub(crate) arrivals: mpsc::UnboundedReceiver<Arrival>,
    /// For the acceptor's choice.
    pub(crate) load: Arc<Load>,
}

/// Runs a worker until its last connection is over.
pub(crate) fn run(parts: Parts) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, serve(parts));
    Ok(())
}

async fn serve(parts: Parts) {
    let mut stage = parts.stage.clone();
    let (load, index) = (parts.load.clone(), parts.index);
    let (worker, mut arrivals) = Worker::new(parts);
    let worker = Rc::new(worker);
    let mut upkeep = JoinSet::new();
    upkeep.spawn_local(tick(worker.clone()));
    upkeep.spawn_local(follow(worker.clone(), stage.clone()));
    upkeep.spawn_local(follow_suspensions(worker.clone()));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            arrival = arrivals.recv() => match arrival {
                Some(arrival) => {
                    let open = Open::new(&load, worker.metrics());
                    let connection = listener::serve(worker.clone(), arrival);
                    connections.spawn_local(async move {
                        connection.await;
                        drop(open);
                    });
                }
                None => break,
            },
            Some(_) = connections.join_next() => {}
            // Without its upkeep a worker would serve on with nobody looking: it ends instead, and is missed.
            Some(Err(panicked)) = upkeep.join_next() => panic::resume_unwind(panicked.into_panic()),
        }
    }
    // The acceptor has closed: what is in flight may finish within its bound.
    let until = stage.wait_for(|stage| matches!(stage, Stage::Draining(_))).await.map(|stage| *stage);
    if let Ok(Stage::Draining(until)) = until {
        let all = async { while connections.join_next().await.is_some() {} };
        if timeout_at(until, all).await.is_err() {
            tracing::warn!(
                worker = index,
                connections = connections.len(),
                "drain_total is over; closing what is left"
            );
        }
    }
    connections.shutdown().await;
    upkeep.shutdown().await;
    worker.flush_records();
}

/// Counts one connection, however its task ends.
struct Open(Arc<Load>, Rc<WorkerMetrics>);

impl Open {
    fn new(load: &Arc<Load>, metrics: &Rc<WorkerMetrics>) -> Self {
        metrics.caller_opened();
        Self(load.clone(), metrics.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.closed();
        self.1.caller_closed();
    }
}

/// Takes each stage up as it comes.
async fn follow(worker: Rc<Worker>, mut stage: watch::Receiver<Stage>) {
    loop {
        worker.set_stage(*stage.borrow_and_update());
        worker.wake_idle();
        if stage.changed().await.is_err() {
            return;
        }
    }
}

/// Lets connections without a request see that their caller was suspended.
async fn follow_suspensions(worker: Rc<Worker>) {
    let mut added = worker.suspensions().added();
    while added.changed().await.is_ok() {
        worker.wake_idle();
    }
}

/// The heartbeat, and what is due now and then.
async fn tick(worker: Rc<Worker>) {
    let mut ticks = interval(metrics::TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        #[cfg(test)]
        tests::obey();
        worker.metrics().tick(std::time::Instant::now());
        worker.flush_records();
        // Also retires what a new snapshot no longer has, when no request comes by.
        if let Some(view) = worker.view() {
            view.sweep(Instant::now());
        }
        worker.summarise_refusals();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    //! What cannot be brought about from outside: a defect in one worker.

    use std::{
        sync::atomic::{AtomicU8, Ordering::SeqCst},
        time::Duration,
    };

    /// What the next worker that comes round does: 0 nothing, or one of the following.
    pub(crate) static ORDER: AtomicU8 = AtomicU8::new(0);
    pub(crate) const PANIC: u8 = 1;
    pub(crate) const STICK: u8 = 2;

    /// How long a worker is stuck that was told so.
    pub(crate) const STUCK: Duration = Duration::from_secs(7);

    pub(super) fn obey() {
        match ORDER.swap(0, SeqCst) {
            PANIC => panic!("a worker was told to panic"),
            STICK => {
                let end = std::time::Instant::now() + STUCK;
                while let Some(left) = end.checked_duration_since(std::time::Instant::now()) {
                    std::thread::park_timeout(left);
                }
            }
            _ => {}
        }
    }
}
