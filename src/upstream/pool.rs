//! One worker's kept-alive connections to one upstream.
//!
//! A connection is used again only when its request was sent whole, its answer was read whole, and nothing
//! else came. Everything else is closed at once, whatever the upstream still does. Who finds every
//! connection in use waits in line. A pool whose upstream's address, roots or client certificate
//! changed is retired: its connections finish what they do and close.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use hyper::client::conn::http1::{self, SendRequest};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{AbortHandle, spawn_local, yield_now},
    time::{Instant, timeout},
};

use super::{dial::DialTarget, outgoing::OutgoingBody};
use crate::{
    capacity::ANSWER_READ_BYTES_MAX,
    gate::{
        Gate,
        answer::{Answers, Turn},
    },
    gateway::refusal::Failure,
    metrics::WorkerMetrics,
};

/// What a pool keeps to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PoolSettings {
    /// This worker's share of the environment's `connections_max`.
    pub(crate) connections_max: usize,
    pub(crate) idle: Duration,
    pub(crate) age: Duration,
    pub(crate) connect: Duration,
    pub(crate) tls: Duration,
}

/// The connections.
pub(crate) struct Pool {
    target: Arc<DialTarget>,
    settings: PoolSettings,
    /// The oldest first. Together with those in use they are never more than `connections_max`.
    idle: RefCell<VecDeque<Idle>>,
    /// One permit for each connection that may be in use. It serves in order of arrival.
    room: Arc<Semaphore>,
    retired: Cell<bool>,
    metrics: Rc<WorkerMetrics>,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

struct Connection {
    sender: SendRequest<OutgoingBody>,
    turn: Rc<Turn>,
    opened: Instant,
    task: Task,
}

/// The task that drives a connection. hyper ends it in good order when nobody can send any more, but would wait
/// for an upstream that neither reads nor answers; so in the middle of an exchange it is ended at once.
struct Task {
    handle: AbortHandle,
    in_exchange: bool,
}

impl Drop for Task {
    fn drop(&mut self) {
        if self.in_exchange {
            self.handle.abort();
        }
    }
}

/// How sure of a connection the request must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// A pooled one; it may turn out to be dead.
    Pooled,
    /// A pooled one, after what the kernel knows of it has been heard.
    Checked,
    /// One that was never used.
    New,
}

impl Pool {
    pub(crate) fn new(
        target: Arc<DialTarget>,
        settings: PoolSettings,
        metrics: Rc<WorkerMetrics>,
    ) -> Rc<Self> {
        Rc::new(Self {
            target,
            room: Arc::new(Semaphore::new(settings.connections_max)),
            settings,
            idle: RefCell::default(),
            retired: Cell::new(false),
            metrics,
        })
    }

    /// Whether this pool serves just this upstream in just this way.
    pub(crate) fn serves(&self, target: &Arc<DialTarget>, settings: &PoolSettings) -> bool {
        Arc::ptr_eq(&self.target, target) && self.settings == *settings
    }

    /// No connection is used again.
    pub(crate) fn retire(&self) {
        self.retired.set(true);
        self.idle.borrow_mut().clear();
    }

    /// Closes what was idle for too long.
    pub(crate) fn sweep(&self, now: Instant) {
        let mut idle = self.idle.borrow_mut();
        while idle.front().is_some_and(|oldest| now - oldest.since >= self.settings.idle) {
            idle.pop_front();
        }
    }

    /// A connection for one exchange.
    ///
    /// # Errors
    /// When none becomes free, or none can be opened, in time.
    pub(crate) async fn lease(self: &Rc<Self>, freshness: Freshness) -> Result<Lease, Failure> {
        let room = self.room().await?;
        if freshness == Freshness::Checked && !self.idle.borrow().is_empty() {
            // The event loop hears of closed sockets before this task goes on.
            yield_now().await;
        }
        let reused = if freshness == Freshness::New { None } else { self.reuse() };
        let used = reused.is_some();
        let connection = match reused {
            Some(connection) => connection,
            None => self.open().await?,
        };
        Ok(Lease { connection, used, pool: self.clone(), _room: room })
    }

    /// Waits in line until one more connection may be in use.
    async fn room(&self) -> Result<OwnedSemaphorePermit, Failure> {
        if let Ok(room) = self.room.clone().try_acquire_owned() {
            return Ok(room);
        }
        match timeout(self.settings.connect, self.room.clone().acquire_owned()).await {
            Ok(Ok(room)) => Ok(room),
            _ => Err(Failure::UpstreamBusy),
        }
    }

    /// The newest pooled connection that still lives; the others get old and are swept.
    fn reuse(&self) -> Option<Connection> {
        loop {
            let mut connection = self.idle.borrow_mut().pop_back()?.connection;
            if connection.opened.elapsed() < self.settings.age && connection.sender.is_ready() {
                connection.task.in_exchange = true;
                self.metrics.upstream_reused();
                return Some(connection);
            }
        }
    }

    async fn open(self: &Rc<Self>) -> Result<Connection, Failure> {
        let in_use = self.settings.connections_max - self.room.available_permits();
        if self.idle.borrow().len() + in_use > self.settings.connections_max {
            self.idle.borrow_mut().pop_front();
        }
        // What was just discarded closes, in its own task, before another one is opened.
        yield_now().await;
        let opening = Opening::new(self);
        let stream = self.target.dial(self.settings.connect, self.settings.tls).await?;
        let turn = Rc::new(Turn::default());
        let gate = Gate::new(stream, Answers::new(turn.clone()));
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(ANSWER_READ_BYTES_MAX)
            .handshake(gate)
            .await
            .map_err(|_| Failure::UpstreamClosed)?;
        let task = spawn_local(async move {
            let _opening = opening;
            // Its error reaches the exchange that was in flight, if there was one.
            let _ = connection.await;
        });
        let task = Task { handle: task.abort_handle(), in_exchange: true };
        Ok(Connection { sender, turn, opened: Instant::now(), task })
    }

    fn give_back(&self, mut connection: Connection) {
        let whole = connection.turn.request_sent.get() && connection.turn.answer_read.get();
        // hyper is ready when it has nothing left to write or to read.
        connection.task.in_exchange = !(whole && connection.sender.is_ready());
        let young = connection.opened.elapsed() < self.settings.age;
        if !connection.task.in_exchange && young && !self.retired.get() {
            self.idle.borrow_mut().push_back(Idle { connection, since: Instant::now() });
        }
    }
}

/// Counts one open connection, from its dial to the end of its task.
struct Opening(Rc<WorkerMetrics>);

impl Opening {
    fn new(pool: &Pool) -> Self {
        pool.metrics.upstream_opened();
        Self(pool.metrics.clone())
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.upstream_closed();
    }
}

/// The use of one connection for one exchange. Dropped before [`Lease::finish`], the connection closes.
pub(crate) struct Lease {
    // The first field is dropped first: the connection is on its way out before there is room for another.
    connection: Connection,
    used: bool,
    pool: Rc<Pool>,
    _room: OwnedSemaphorePermit,
}

impl Lease {
    /// Whether an earlier exchange went over it.
    pub(crate) fn was_used(&self) -> bool {
        self.used
    }

    pub(crate) fn turn(&self) -> &Rc<Turn> {
        &self.connection.turn
    }

    pub(crate) fn sender(&mut self) -> &mut SendRequest<OutgoingBody> {
        &mut self.connection.sender
    }

    /// The answer was passed on whole: the connection may serve again, if all went well on it.
    pub(crate) fn finish(self) {
        self.pool.give_back(self.connection);
    }
}
