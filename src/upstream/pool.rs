//! One worker's kept-alive connections to one upstream.
//!
//! A connection is used again only when its request was sent whole, its answer was read whole, and nothing
//! else came. Everything else is closed. A pool whose upstream's address, roots or client certificate
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
    sync::Notify,
    task::{spawn_local, yield_now},
    time::{Instant, timeout},
};

use super::{dial::DialTarget, outgoing::OutgoingBody};
use crate::{
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
    idle: RefCell<VecDeque<Idle>>,
    open: Cell<usize>,
    freed: Notify,
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
            settings,
            idle: RefCell::default(),
            open: Cell::new(0),
            freed: Notify::new(),
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
        if freshness == Freshness::Checked && !self.idle.borrow().is_empty() {
            // The event loop hears of closed sockets before this task goes on.
            yield_now().await;
        }
        if freshness != Freshness::New
            && let Some(lease) = self.reuse().await
        {
            return Ok(lease);
        }
        if self.open.get() >= self.settings.connections_max {
            let freed = timeout(self.settings.connect, self.wait_for_room(freshness)).await;
            if let Some(lease) = freed.map_err(|_| Failure::UpstreamBusy)? {
                return Ok(lease);
            }
        }
        self.open().await
    }

    /// The newest pooled connection that still lives; the others get old and are swept.
    async fn reuse(self: &Rc<Self>) -> Option<Lease> {
        loop {
            let mut connection = self.idle.borrow_mut().pop_back()?.connection;
            let young = connection.opened.elapsed() < self.settings.age;
            if young && connection.sender.ready().await.is_ok() {
                self.metrics.upstream_reused();
                return Some(Lease { pool: self.clone(), connection, used: true });
            }
        }
    }

    /// Waits for a connection that was given back, or until one more may be opened.
    async fn wait_for_room(self: &Rc<Self>, freshness: Freshness) -> Option<Lease> {
        while self.open.get() >= self.settings.connections_max {
            if freshness != Freshness::New {
                if let Some(lease) = self.reuse().await {
                    return Some(lease);
                }
            } else if self.idle.borrow_mut().pop_front().is_some() {
                // It closes in its own task.
                yield_now().await;
                continue;
            }
            self.freed.notified().await;
        }
        None
    }

    async fn open(self: &Rc<Self>) -> Result<Lease, Failure> {
        let opening = Opening::new(self.clone());
        let stream = self.target.dial(self.settings.connect, self.settings.tls).await?;
        let turn = Rc::new(Turn::default());
        let gate = Gate::new(stream, Answers::new(turn.clone()));
        let (sender, connection) = http1::handshake(gate).await.map_err(|_| Failure::UpstreamClosed)?;
        spawn_local(async move {
            let _opening = opening;
            // Its error reaches the exchange that was in flight, if there was one.
            let _ = connection.await;
        });
        let connection = Connection { sender, turn, opened: Instant::now() };
        Ok(Lease { pool: self.clone(), connection, used: false })
    }

    fn give_back(&self, connection: Connection) {
        let whole = connection.turn.request_sent.get() && connection.turn.answer_read.get();
        let young = connection.opened.elapsed() < self.settings.age;
        if whole && young && !self.retired.get() && !connection.sender.is_closed() {
            self.idle.borrow_mut().push_back(Idle { connection, since: Instant::now() });
            self.freed.notify_one();
        }
    }
}

/// Counts one open connection, from its dial to the end of its task.
struct Opening(Rc<Pool>);

impl Opening {
    fn new(pool: Rc<Pool>) -> Self {
        pool.open.set(pool.open.get() + 1);
        pool.metrics.upstream_opened();
        Self(pool)
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.metrics.upstream_closed();
        self.0.freed.notify_one();
    }
}

/// The use of one connection for one exchange. Dropped before [`Lease::finish`], the connection closes.
pub(crate) struct Lease {
    pool: Rc<Pool>,
    connection: Connection,
    used: bool,
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
