//! Counters: one set a worker, added up when they are read.
//!
//! In: what each worker counts while it serves. Out: the Prometheus text that a scrape asks for
//! ([`Metrics::render`]) and the event loops' heartbeats for the liveness check. `docs/metrics.md`
//! lists every name.
//!
//! A worker's set is written by its thread alone, with relaxed loads and stores and no locked
//! instruction; [`WorkerMetrics`] cannot be shared, so the compiler holds it to that.
//!
//! What must never happen: a label holds something a caller chose (a path, a name), so that callers
//! decide how many series there are, or what is in them.

mod cells;
mod histogram;
mod process;
mod render;
pub mod versions;

use std::{
    cell::Cell,
    marker::PhantomData,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwapOption;

use self::cells::{Count, Heartbeat};
pub use self::render::Format;
use self::{histogram::Histogram, versions::CallerVersions};
use crate::{
    admission::reason::Reason,
    oauth::broker::Broker,
    record::writer,
    refusal::{Failure, Refusal},
    rotation::Standings,
    snapshot::Snapshot,
    users,
    vault::keeper::Keeper,
};

/// How often a worker calls [`WorkerMetrics::tick`].
pub const TICK: Duration = Duration::from_millis(250);

/// The process's metrics: cheap to clone, and readable from any thread.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    start: Instant,
    start_time: SystemTime,
    /// Labels by operation index.
    operations: Vec<String>,
    workers: Vec<Arc<Set>>,
    records: Arc<writer::Counters>,
    callers_turned_away: AtomicU64,
    /// Of end users' keys: those that succeeded, those that failed.
    key_fetches: [AtomicU64; 2],
    reloads: Reloads,
    /// What upstreams' budgets and breakers, and secrets' ages, are asked of.
    shown: OnceLock<(Arc<ArcSwapOption<Snapshot>>, Arc<Keeper>)>,
    /// How old keys are, and where their rotations stand.
    rotations: OnceLock<Arc<Standings>>,
    /// Users' connections.
    broker: OnceLock<Arc<Broker>>,
    /// Of the callers of the snapshot in use. No worker takes this lock.
    versions: Mutex<Vec<Arc<CallerVersions>>>,
}

#[derive(Debug, Default)]
struct Reloads {
    succeeded: AtomicU64,
    failed: AtomicU64,
    /// 1 or 0.
    last_succeeded: AtomicU64,
    /// Unix time in milliseconds.
    last_success: AtomicU64,
    generation: AtomicU64,
}

impl Metrics {
    /// One [`WorkerMetrics`] for each of `workers` threads. `operations` names the operation indices
    /// that [`Request::operation`] uses, which stay the same for the process's life; `records` comes from
    /// [`writer::WriterHandle::counters`].
    #[must_use]
    pub fn new(
        workers: usize,
        operations: impl IntoIterator<Item = impl Into<String>>,
        records: Arc<writer::Counters>,
    ) -> (Self, Vec<WorkerMetrics>) {
        let operations: Vec<String> = operations.into_iter().map(Into::into).collect();
        let workers: Vec<Arc<Set>> = (0..workers).map(|_| Arc::new(Set::new(operations.len()))).collect();
        let start = Instant::now();
        let handles = workers
            .iter()
            .map(|set| WorkerMetrics { set: Arc::clone(set), start, one_thread: PhantomData })
            .collect();
        let inner = Inner {
            start,
            start_time: SystemTime::now(),
            operations,
            workers,
            records,
            callers_turned_away: AtomicU64::new(0),
            key_fetches: Default::default(),
            reloads: Reloads::default(),
            shown: OnceLock::new(),
            rotations: OnceLock::new(),
            broker: OnceLock::new(),
            versions: Mutex::default(),
        };
        (Self(Arc::new(inner)), handles)
    }

    /// A caller's connection was closed at accept, at a cap. For the acceptor's thread.
    pub fn caller_turned_away(&self) {
        self.0.callers_turned_away.fetch_add(1, Relaxed);
    }

    /// Shows budgets and breakers of what `snapshot` holds, and the age of what `keeper` keeps, at each scrape.
    pub(crate) fn show(&self, snapshot: Arc<ArcSwapOption<Snapshot>>, keeper: Arc<Keeper>) {
        // Set once, at the start.
        let _ = self.0.shown.set((snapshot, keeper));
    }

    /// Shows the ages of keys and their rotations, as of each scrape.
    pub(crate) fn show_rotations(&self, rotations: Arc<Standings>) {
        // Set once, at the start.
        let _ = self.0.rotations.set(rotations);
    }

    /// Shows users' connections, as of each scrape.
    pub(crate) fn show_connections(&self, broker: Arc<Broker>) {
        // Set once, at the start.
        let _ = self.0.broker.set(broker);
    }

    /// A snapshot was swapped in, at start or by a reload.
    pub fn reload_succeeded(&self, generation: u64) {
        let reloads = &self.0.reloads;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        reloads.last_success.store(u64::try_from(now.as_millis()).unwrap_or(u64::MAX), Relaxed);
        reloads.generation.store(generation, Relaxed);
        reloads.last_succeeded.store(1, Relaxed);
        reloads.succeeded.fetch_add(1, Relaxed);
    }

    /// A set of end users' keys was fetched, or could not be.
    pub(crate) fn keys_fetched(&self, succeeded: bool) {
        let [succeeded_count, failed_count] = &self.0.key_fetches;
        if succeeded { succeeded_count } else { failed_count }.fetch_add(1, Relaxed);
    }

    /// A reload failed and the old snapshot was kept.
    pub fn reload_failed(&self) {
        self.0.reloads.last_succeeded.store(0, Relaxed);
        self.0.reloads.failed.fetch_add(1, Relaxed);
    }

    /// These callers are told of from now on; a caller that stays keeps its counts.
    pub(crate) fn watch_versions(&self, callers: Vec<Arc<CallerVersions>>) {
        *self.0.versions.lock().unwrap_or_else(PoisonError::into_inner) = callers;
    }

    /// Which callers use what MX leaves behind, since the start.
    #[must_use]
    pub fn versions(&self) -> Vec<versions::Use> {
        self.0.versions()
    }

    /// How long the quietest worker has not ticked: the event loop that is stuck, if one is.
    #[must_use]
    pub fn stalled_for(&self, now: Instant) -> Duration {
        let now = now.saturating_duration_since(self.0.start);
        self.0.workers.iter().map(|worker| worker.heartbeat.silence(now)).max().unwrap_or_default()
    }

    /// As [`Self::new`] with one worker that has been silent for `age`.
    #[cfg(test)]
    pub(crate) fn silent_for(age: Duration) -> Self {
        let (metrics, workers) = Self::new(1, ["listUsers"], Arc::default());
        drop(workers);
        let mut inner = Arc::into_inner(metrics.0).unwrap_or_else(|| unreachable!("nobody else has it"));
        inner.start -= age;
        Self(Arc::new(inner))
    }

    /// Since the process made its metrics.
    #[must_use]
    pub fn uptime(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.0.start)
    }

    /// Connections of callers that are open now.
    #[must_use]
    pub fn callers_open(&self) -> u64 {
        self.total(|set| &set.callers_opened).saturating_sub(self.total(|set| &set.callers_closed))
    }

    /// Requests that are over, of all workers.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.0.workers.iter().flat_map(|worker| &worker.requests).flatten().map(Count::get).sum()
    }

    /// The text of one scrape.
    #[must_use]
    pub fn render(&self, format: Format) -> String {
        render::render(&self.0, format)
    }

    fn total(&self, counter: impl Fn(&Set) -> &Count) -> u64 {
        self.0.total(counter)
    }
}

impl Inner {
    fn versions(&self) -> Vec<versions::Use> {
        let callers = self.versions.lock().unwrap_or_else(PoisonError::into_inner).clone();
        callers.iter().filter_map(|caller| caller.read()).collect()
    }

    fn total(&self, counter: impl Fn(&Set) -> &Count) -> u64 {
        self.workers.iter().map(|worker| counter(worker).get()).sum()
    }
}

/// One worker's side. It is `!Sync` and not `Clone`: its counters have one writer.
#[derive(Debug)]
pub struct WorkerMetrics {
    set: Arc<Set>,
    start: Instant,
    one_thread: PhantomData<Cell<()>>,
}

/// One request that is over.
#[derive(Debug, Clone, Copy, Default)]
pub struct Request {
    /// Index into the operations given to [`Metrics::new`]; `None` when none matched.
    pub operation: Option<usize>,
    /// The answer's status; `None` when the caller left before there was one.
    pub status: Option<u16>,
    /// From the head to the end of the answer, less `upstream`.
    pub gateway: Duration,
    /// Waiting for the upstream; `None` when it was not asked.
    pub upstream: Option<Duration>,
    /// Body bytes from the caller.
    pub bytes_in: u64,
    /// Body bytes to the caller.
    pub bytes_out: u64,
    /// Secrets masked in the answer.
    pub masked: u32,
}

impl WorkerMetrics {
    /// Counts a request that is over, however it ended.
    pub fn request(&self, request: &Request) {
        let set = &self.set;
        // The last row is "none"; an index that is out of range is a defect of ours, and no panic.
        let none = set.requests.len().saturating_sub(1);
        let row = set.requests.get(request.operation.unwrap_or(none)).or_else(|| set.requests.last());
        if let Some(count) = row.and_then(|row| row.get(class(request.status))) {
            count.add(1);
        }
        set.gateway.observe(request.gateway);
        if let Some(upstream) = request.upstream {
            set.upstream.observe(upstream);
        }
        set.bytes_in.add(request.bytes_in);
        set.bytes_out.add(request.bytes_out);
        set.masked.add(u64::from(request.masked));
    }

    /// Counts a no of ours, beside [`Self::request`] (or without it, when no request could be read).
    pub fn refused(&self, refusal: Refusal) {
        if let Some(count) = self.set.refusals.get(refusal as usize) {
            count.add(1);
        }
    }

    /// Counts a request that only observe mode lets through, beside [`Self::request`].
    pub fn would_refuse(&self) {
        self.set.would_refuse.add(1);
    }

    /// Counts somebody who was not admitted, by reason, beside [`Self::refused`].
    pub fn not_admitted(&self, reason: Reason) {
        if let Some(count) = self.set.not_admitted.get(reason as usize) {
            count.add(1);
        }
    }

    /// Counts a failure, beside [`Self::request`].
    pub fn failed(&self, failure: Failure) {
        if let Some(count) = self.set.failures.get(failure as usize) {
            count.add(1);
        }
    }

    /// Counts why a request is not for a user whom its caller may reach, beside the refusal or failure that it leads to.
    pub fn not_bound(&self, reason: users::Reason) {
        if let Some(count) = self.set.not_bound.get(reason as usize) {
            count.add(1);
        }
    }

    /// A caller's connection was taken over from the acceptor.
    pub fn caller_opened(&self) {
        self.set.callers_opened.add(1);
    }

    /// It is over.
    pub fn caller_closed(&self) {
        self.set.callers_closed.add(1);
    }

    /// A connection to an upstream is ready for its first request.
    pub fn upstream_opened(&self) {
        self.set.upstreams_opened.add(1);
    }

    /// It is over.
    pub fn upstream_closed(&self) {
        self.set.upstreams_closed.add(1);
    }

    /// A request went out on a connection that had carried one before.
    pub fn upstream_reused(&self) {
        self.set.upstreams_reused.add(1);
    }

    /// The event loop came round. The worker calls it every [`TICK`].
    pub fn tick(&self, now: Instant) {
        self.set.heartbeat.tick(now.saturating_duration_since(self.start));
    }
}

/// One worker's counters. Aligned so that two workers' sets share no cache line (two lines are
/// prefetched as a pair on x86-64).
#[derive(Debug)]
#[repr(align(128))]
struct Set {
    /// By operation (the last row: none), then by [`class`].
    requests: Vec<[Count; CLASSES.len()]>,
    refusals: [Count; Refusal::ALL.len()],
    not_admitted: [Count; Reason::ALL.len()],
    failures: [Count; Failure::ALL.len()],
    not_bound: [Count; users::Reason::ALL.len()],
    gateway: Histogram<{ histogram::GATEWAY.len() }>,
    upstream: Histogram<{ histogram::UPSTREAM.len() }>,
    callers_opened: Count,
    callers_closed: Count,
    upstreams_opened: Count,
    upstreams_closed: Count,
    upstreams_reused: Count,
    bytes_in: Count,
    bytes_out: Count,
    masked: Count,
    would_refuse: Count,
    heartbeat: Heartbeat,
}

impl Set {
    fn new(operations: usize) -> Self {
        Self {
            requests: (0..=operations).map(|_| Default::default()).collect(),
            refusals: Default::default(),
            not_admitted: Default::default(),
            failures: Default::default(),
            not_bound: Default::default(),
            gateway: Histogram::new(&histogram::GATEWAY),
            upstream: Histogram::new(&histogram::UPSTREAM),
            callers_opened: Count::default(),
            callers_closed: Count::default(),
            upstreams_opened: Count::default(),
            upstreams_closed: Count::default(),
            upstreams_reused: Count::default(),
            bytes_in: Count::default(),
            bytes_out: Count::default(),
            masked: Count::default(),
            would_refuse: Count::default(),
            heartbeat: Heartbeat::default(),
        }
    }
}

/// Labels of [`class`].
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// The index into [`CLASSES`]; a status that is none of HTTP's counts as "none".
fn class(status: Option<u16>) -> usize {
    match status {
        Some(status @ 100..=599) => usize::from(status / 100),
        _ => 0,
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_worker() -> (Metrics, WorkerMetrics) {
        let (metrics, mut workers) = Metrics::new(1, ["listUsers"], Arc::default());
        (metrics, workers.pop().unwrap())
    }

    #[test]
    fn codes_are_indices_into_all() {
        assert!(Refusal::ALL.iter().enumerate().all(|(index, refusal)| *refusal as usize == index));
        assert!(Failure::ALL.iter().enumerate().all(|(index, failure)| *failure as usize == index));
    }

    #[test]
    fn a_status_belongs_to_its_class_and_odd_ones_to_none() {
        for (status, expected) in [(100, "1xx"), (204, "2xx"), (304, "3xx"), (421, "4xx"), (599, "5xx")] {
            assert_eq!(CLASSES[class(Some(status))], expected);
        }
        for status in [None, Some(0), Some(99), Some(600), Some(u16::MAX)] {
            assert_eq!(CLASSES[class(status)], "none");
        }
    }

    #[test]
    fn an_unknown_operation_counts_as_none() {
        let (metrics, worker) = one_worker();
        worker.request(&Request { operation: Some(0), status: Some(200), ..Request::default() });
        worker.request(&Request { operation: None, status: Some(404), ..Request::default() });
        worker.request(&Request { operation: Some(7), status: Some(404), ..Request::default() });
        let text = metrics.render(Format::Classic);
        assert!(text.contains(r#"mxgate_requests_total{operation="listUsers",status="2xx"} 1"#), "{text}");
        assert!(text.contains(r#"mxgate_requests_total{operation="none",status="4xx"} 2"#), "{text}");
        assert_eq!(metrics.requests(), 3);
    }

    #[test]
    fn open_connections_are_those_not_closed() {
        let (metrics, worker) = one_worker();
        assert_eq!(metrics.callers_open(), 0);
        worker.caller_opened();
        worker.caller_opened();
        worker.caller_closed();
        assert_eq!(metrics.callers_open(), 1);
    }

    #[test]
    fn a_worker_that_ticks_is_not_stalled_and_one_that_does_not_is() {
        let (metrics, workers) = Metrics::new(2, ["listUsers"], Arc::default());
        let start = metrics.0.start;
        let at = |millis| start + Duration::from_millis(millis);
        workers[0].tick(at(1000));
        assert_eq!(metrics.stalled_for(at(1250)), Duration::from_millis(1250), "the second never ticked");
        workers[1].tick(at(1200));
        assert_eq!(metrics.stalled_for(at(1250)), Duration::from_millis(250));
        // A clock that is read on another thread may be behind.
        assert_eq!(metrics.stalled_for(at(900)), Duration::ZERO);
    }

    #[test]
    fn lateness_is_what_exceeds_the_tick() {
        let heartbeat = Heartbeat::default();
        for millis in [250, 500, 1250, 1300] {
            heartbeat.tick(Duration::from_millis(millis));
        }
        assert_eq!(heartbeat.late.get(), 500_000);
        assert_eq!(heartbeat.late_max.load(Relaxed), 500_000);
    }

    #[test]
    fn no_two_workers_share_a_cache_line() {
        assert_eq!(align_of::<Set>(), 128);
    }
}
