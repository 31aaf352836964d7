//! One worker's kept-alive connections to one upstream.
//!
//! A connection is used again only when its request was sent whole, its answer was read whole, and nothing
//! else came. Everything else is closed at once, whatever the upstream still does. Who finds every
//! connection in use waits in line. A pool whose upstream's address, roots or client certificate
//! changed is retired: its connections finish what they do and close.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{
    io::{AsyncBufRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{unconstrained, yield_now},
    time::{Instant, timeout},
};

use super::dial::{DialTarget, UpstreamStream};
use crate::{metrics::WorkerMetrics, refusal::Failure};

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
    /// When the last sweep was.
    swept: Cell<Instant>,
    metrics: Rc<WorkerMetrics>,
}

struct Idle {
    connection: Box<Connection>,
    /// The last sweep before: near enough, and nobody has to look at a clock.
    since: Instant,
}

/// One connection. Dropped, it closes.
struct Connection {
    stream: UpstreamStream,
    opened: Instant,
    _open: Open,
}

impl Connection {
    fn is_quiet(&mut self) -> bool {
        is_quiet(&mut self.stream) && is_even(&self.stream)
    }

    fn close(mut self: Box<Self>) {
        say_goodbye(&mut self.stream);
    }
}

/// Whether the upstream has neither closed it nor sent anything that nobody asked for, as far as the
/// event loop has heard. Of a task without budget tokio says that nothing has come, so it is asked without one.
fn is_quiet(stream: &mut UpstreamStream) -> bool {
    let mut nobody = Context::from_waker(Waker::noop());
    let filled = poll_fn(|cx| Pin::new(&mut *stream).poll_fill_buf(cx).map(drop));
    pin!(unconstrained(filled)).poll(&mut nobody).is_pending()
}

/// Waits until nothing has come of a new connection but whole records, such as session tickets.
///
/// # Errors
/// What comes before anything was asked is no answer.
pub(super) async fn settled<S: AsyncBufRead + Unpin>(
    stream: &mut S,
    is_even: impl Fn(&S) -> bool,
) -> Result<(), Failure> {
    unconstrained(poll_fn(|cx| match Pin::new(&mut *stream).poll_fill_buf(cx).map(drop) {
        Poll::Ready(()) => Poll::Ready(Err(Failure::UpstreamMalformed)),
        Poll::Pending if is_even(stream) => Poll::Ready(Ok(())),
        Poll::Pending => Poll::Pending,
    }))
    .await
}

/// Whether nothing has come of another record: half of one is no data yet, and would be the start of the next answer.
pub(super) fn is_even(stream: &UpstreamStream) -> bool {
    stream.get_ref().0.is_even()
}

/// TLS's close_notify, if it can be said at once.
pub(super) fn say_goodbye(stream: &mut (impl AsyncWrite + Unpin)) {
    let mut nobody = Context::from_waker(Waker::noop());
    let _ = Pin::new(stream).poll_shutdown(&mut nobody);
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
            swept: Cell::new(Instant::now()),
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
        self.idle.take().into_iter().for_each(|idle| idle.connection.close());
    }

    /// Closes what was idle for too long, and what the upstream has closed.
    pub(crate) fn sweep(&self, now: Instant) {
        self.swept.set(now);
        let mut idle = self.idle.borrow_mut();
        while idle
            .front()
            .is_some_and(|oldest| now.saturating_duration_since(oldest.since) >= self.settings.idle)
        {
            idle.pop_front().into_iter().for_each(|idle| idle.connection.close());
        }
        idle.retain_mut(|idle| idle.connection.is_quiet());
    }

    /// A connection for one exchange.
    ///
    /// # Errors
    /// When none becomes free, or none can be opened, in time.
    pub(crate) async fn lease(
        self: &Rc<Self>,
        freshness: Freshness,
        mut now: Instant,
    ) -> Result<Lease, Failure> {
        let room = match self.room.clone().try_acquire_owned() {
            Ok(room) => room,
            Err(_) => {
                let room = Box::pin(self.wait_for_room()).await?;
                now = Instant::now();
                room
            }
        };
        if freshness == Freshness::Checked && !self.idle.borrow().is_empty() {
            // The event loop hears of closed sockets before this task goes on.
            yield_now().await;
        }
        let reused = if freshness == Freshness::New { None } else { self.reuse(now) };
        let used = reused.is_some();
        let connection = match reused {
            Some(connection) => connection,
            None => {
                // In a box of its own: else every request would carry room for a TLS handshake.
                let connection = Box::pin(self.open()).await?;
                now = connection.opened;
                connection
            }
        };
        Ok(Lease { connection, used, since: now, pool: self.clone(), _room: room })
    }

    /// Waits in line until one more connection may be in use.
    async fn wait_for_room(&self) -> Result<OwnedSemaphorePermit, Failure> {
        match timeout(self.settings.connect, self.room.clone().acquire_owned()).await {
            Ok(Ok(room)) => Ok(room),
            _ => Err(Failure::UpstreamBusy),
        }
    }

    /// The newest pooled connection that still lives; the others get old and are swept.
    fn reuse(&self, now: Instant) -> Option<Box<Connection>> {
        loop {
            let mut connection = self.idle.borrow_mut().pop_back()?.connection;
            if !connection.is_quiet() {
                continue;
            }
            if now.saturating_duration_since(connection.opened) >= self.settings.age {
                connection.close();
                continue;
            }
            self.metrics.upstream_reused();
            return Some(connection);
        }
    }

    async fn open(self: &Rc<Self>) -> Result<Box<Connection>, Failure> {
        let in_use = self.settings.connections_max - self.room.available_permits();
        if self.idle.borrow().len() + in_use > self.settings.connections_max
            && let Some(oldest) = self.idle.borrow_mut().pop_front()
        {
            oldest.connection.close();
        }
        let open = Open::new(self);
        let stream = self.target.dial(self.settings.connect, self.settings.tls).await?;
        let mut connection = Box::new(Connection { stream, opened: Instant::now(), _open: open });
        let settled = timeout(self.settings.tls, settled(&mut connection.stream, is_even));
        settled.await.unwrap_or(Err(Failure::ConnectTimeout))?;
        Ok(connection)
    }

    fn give_back(&self, connection: Box<Connection>) {
        // What came behind the answer is nobody's: rustls would want to read more if there were nothing.
        let nothing_more = connection.stream.get_ref().1.wants_read() && is_even(&connection.stream);
        if nothing_more && !self.retired.get() {
            self.idle.borrow_mut().push_back(Idle { connection, since: self.swept.get() });
        }
    }
}

/// Counts one open connection, from its dial to its end.
struct Open(Rc<WorkerMetrics>);

impl Open {
    fn new(pool: &Pool) -> Self {
        pool.metrics.upstream_opened();
        Self(pool.metrics.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.upstream_closed();
    }
}

/// The use of one connection for one exchange. Dropped before [`Lease::finish`], the connection closes.
pub(crate) struct Lease {
    // The first field is dropped first: the connection is on its way out before there is room for another.
    connection: Box<Connection>,
    used: bool,
    since: Instant,
    pool: Rc<Pool>,
    _room: OwnedSemaphorePermit,
}

impl Lease {
    /// Whether an earlier exchange went over it.
    pub(crate) fn was_used(&self) -> bool {
        self.used
    }

    /// Since when there is nothing left to wait for but the upstream.
    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    pub(crate) fn stream(&mut self) -> &mut UpstreamStream {
        &mut self.connection.stream
    }

    /// The exchange went well: the connection may serve again.
    pub(crate) fn finish(self) {
        self.pool.give_back(self.connection);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::io::{AsyncWriteExt as _, BufReader, duplex};

    use super::*;

    #[tokio::test]
    async fn what_comes_before_anything_was_asked_is_no_answer_and_half_a_record_is_waited_for() {
        let (ours, mut theirs) = duplex(64);
        let mut ours = BufReader::new(ours);
        assert_eq!(settled(&mut ours, |_| true).await, Ok(()));

        let even = Cell::new(false);
        let mut waiting = Box::pin(settled(&mut ours, |_| even.get()));
        let mut nobody = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut nobody).is_pending());
        even.set(true);
        assert_eq!(waiting.await, Ok(()));

        theirs.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
        assert_eq!(settled(&mut ours, |_| true).await, Err(Failure::UpstreamMalformed));
    }
}
