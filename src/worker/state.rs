//! What all connections of one worker share.

use std::{
    cell::{Cell, RefCell},
    path::Path,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use arc_swap::{ArcSwapOption, Cache};
use tokio::sync::{Notify, mpsc};

use super::{
    Parts, Stage,
    tokens::Tokens,
    view::{Place, View},
};
use crate::{
    admission::{Origin, reason::Reason},
    config::Limits,
    control::suspension::Suspensions,
    gateway::entry::RequestId,
    listener::{
        Arrival,
        accept::{Census, Idle, Load},
    },
    log::flood::{Flood, Verdict},
    metrics::WorkerMetrics,
    record::{Record, Recorder},
    redaction::Masker,
    refusal::Refusal,
    snapshot::Snapshot,
    users::{self, Told},
};

/// How often one address's refusals are logged, and how many addresses are told apart.
const REFUSED_INTERVAL: Duration = Duration::from_secs(10);
const REFUSED_ADDRESSES_MAX: usize = 256;

/// What of a refusal is logged once an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Refused {
    /// What the caller is told.
    code: &'static str,
    /// What it is not told.
    reason: &'static str,
    origin: Origin,
}

type Snapshots = Cache<Arc<ArcSwapOption<Snapshot>>, Option<Arc<Snapshot>>>;

/// The state that all connections of one worker share.
pub(crate) struct Worker {
    place: Place,
    process_id: u64,
    requests: Cell<u64>,
    snapshots: RefCell<Snapshots>,
    view: RefCell<Option<Rc<View>>>,
    suspensions: Arc<Suspensions>,
    /// Of this worker alone.
    woken: Notify,
    census: Arc<Census>,
    load: Arc<Load>,
    /// The last that was seen, without a look across cores.
    stage_now: Cell<Stage>,
    recorder: RefCell<Recorder>,
    refused: RefCell<Flood<Refused>>,
    would_refuse: RefCell<Flood<(&'static str, Option<Origin>)>>,
    nothing_to_mask: Arc<Masker>,
    tokens: Tokens,
}

impl Worker {
    pub(super) fn new(parts: Parts) -> (Self, mpsc::UnboundedReceiver<Arrival>) {
        let worker = Self {
            place: Place { index: parts.index, workers: parts.workers, metrics: Rc::new(parts.metrics) },
            process_id: parts.process_id,
            requests: Cell::new(0),
            snapshots: RefCell::new(Cache::new(parts.snapshot)),
            view: RefCell::default(),
            suspensions: parts.suspensions,
            woken: Notify::new(),
            census: parts.census,
            load: parts.load,
            stage_now: Cell::new(Stage::Serving),
            recorder: RefCell::new(parts.recorder),
            refused: RefCell::new(Flood::new(REFUSED_INTERVAL, REFUSED_ADDRESSES_MAX)),
            would_refuse: RefCell::new(Flood::new(REFUSED_INTERVAL, REFUSED_ADDRESSES_MAX)),
            nothing_to_mask: Arc::new(Masker::new([])),
            tokens: Tokens::new(parts.broker),
        };
        (worker, parts.arrivals)
    }

    pub(crate) fn metrics(&self) -> &Rc<WorkerMetrics> {
        &self.place.metrics
    }

    /// Access tokens.
    pub(crate) fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Which of the workers it is.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Takes the stage up, for looks that cost nothing.
    pub(super) fn set_stage(&self, stage: Stage) {
        self.stage_now.set(stage);
    }

    /// The bounds that connections opened from now on keep to.
    pub(crate) fn limits(&self) -> Limits {
        self.census.limits()
    }

    /// Counts one connection as having nothing to do, for as long as the value lives.
    pub(crate) fn idle(&self) -> Idle<'_> {
        self.load.idle()
    }

    /// The current snapshot; `None` before the first one.
    pub(crate) fn view(&self) -> Option<Rc<View>> {
        let mut snapshots = self.snapshots.borrow_mut();
        let current = snapshots.load().as_ref()?;
        let mut view = self.view.borrow_mut();
        match &*view {
            Some(view) if Arc::ptr_eq(&view.snapshot, current) => Some(view.clone()),
            previous => {
                let next = Rc::new(View::new(current.clone(), previous.as_deref(), &self.place));
                *view = Some(next.clone());
                Some(next)
            }
        }
    }

    pub(crate) fn next_request_id(&self) -> RequestId {
        let count = self.requests.get() + 1;
        self.requests.set(count);
        // The worker's index above, so that no two workers count alike.
        RequestId::new(self.process_id, ((self.place.index as u64) << 48) | count)
    }

    /// Whether every answer must close its connection.
    pub(crate) fn closing(&self) -> bool {
        self.stage_now.get() != Stage::Serving
    }

    /// Whether connections without a request must go.
    pub(crate) fn draining(&self) -> bool {
        matches!(self.stage_now.get(), Stage::Draining(_))
    }

    /// Ends when `must_go` holds; it is asked whenever connections without a request may have to go.
    pub(crate) async fn until(&self, must_go: impl Fn() -> bool) {
        loop {
            let mut woken = std::pin::pin!(self.woken.notified());
            // Before the question, so that no answer is missed.
            woken.as_mut().enable();
            if must_go() {
                return;
            }
            woken.await;
        }
    }

    /// Makes every connection without a request ask whether it must go.
    pub(super) fn wake_idle(&self) {
        self.woken.notify_waiters();
    }

    /// What an operator has stopped.
    pub(crate) fn suspensions(&self) -> &Suspensions {
        &self.suspensions
    }

    /// Counts somebody who may not call, and says who and why without letting a flood of them fill the log.
    /// `executable` is what a Unix peer runs.
    pub(crate) fn not_admitted(&self, reason: Reason, origin: Origin, executable: Option<&Path>) {
        self.metrics().not_admitted(reason);
        let refused = Refused { code: Refusal::CallerNotAllowed.code(), reason: reason.code(), origin };
        self.log_refused(refused, executable);
    }

    /// Counts and logs a request that is not for a user whom its caller may reach; gives what the caller is told.
    pub(crate) fn not_bound(&self, reason: users::Reason, origin: Origin) -> Told {
        self.metrics().not_bound(reason);
        let told = reason.told();
        self.log_refused(Refused { code: told.code(), reason: reason.code(), origin }, None);
        told
    }

    fn log_refused(&self, refused: Refused, executable: Option<&Path>) {
        let verdict = self.refused.borrow_mut().note(refused, std::time::Instant::now());
        if let Verdict::Log { unsaid } = verdict {
            let Refused { code, reason, origin } = refused;
            // As a literal: a path may hold anything.
            let executable = executable.map(tracing::field::debug);
            tracing::warn!(code, reason, address = %origin, executable, unsaid, "refused");
        }
    }

    /// Says what only observe mode lets through: one line an interval for each operation and address.
    pub(crate) fn log_would_refuse(
        &self,
        caller: Option<&str>,
        operation: &'static str,
        origin: Option<Origin>,
    ) {
        self.metrics().would_refuse();
        let verdict = self.would_refuse.borrow_mut().note((operation, origin), std::time::Instant::now());
        if let Verdict::Log { unsaid } = verdict {
            let caller = caller.unwrap_or_default();
            tracing::warn!(caller, operation, unsaid, "observe mode lets through what would be refused");
        }
    }

    pub(super) fn summarise_refusals(&self) {
        for summary in self.refused.borrow_mut().due(std::time::Instant::now()) {
            match summary.key {
                Some(Refused { code, reason, origin }) => {
                    tracing::warn!(code, reason, address = %origin, count = summary.count, "refused again");
                }
                None => tracing::warn!(count = summary.count, "refused, many more addresses"),
            }
        }
        for summary in self.would_refuse.borrow_mut().due(std::time::Instant::now()) {
            let operation = summary.key.map_or("", |(operation, _)| operation);
            tracing::warn!(operation, count = summary.count, "observe mode has let through more of it");
        }
    }

    /// Hands buffered access records over.
    pub(super) fn flush_records(&self) {
        self.recorder.borrow_mut().flush();
    }

    pub(crate) fn record(&self, record: &Record<'_>) {
        self.recorder.borrow_mut().record(record);
    }

    /// For answers to requests that carried no secret of ours.
    pub(crate) fn nothing_to_mask(&self) -> Arc<Masker> {
        self.nothing_to_mask.clone()
    }
}
