//! One caller's connection, from its first byte to its last.
//!
//! It alternates between two states. *Parked*: only the socket is kept, no buffer and no hyper. *Driven*:
//! hyper serves requests over the gate, and a slow tick ends waits that took too long. When the gate has
//! refused something, hyper sees the end of the stream, finishes, and the refusal is written here.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    future::poll_fn,
    path::Path,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, Sleep, sleep, timeout},
};

use super::{ListenerState, peer::Peer, stream::Stream, watch::TICK};
use crate::{
    admission::Origin,
    config::Limits,
    control::suspension::Subject,
    gate::{
        Gate,
        inbound::{Inbound, Session},
    },
    gateway::{self, answer::AnswerBody, respond},
    limits::Owner,
    refusal::Refusal,
    worker::{state::Worker, view::View},
};

/// How long a connection without a request keeps hyper's buffers.
const PARK_AFTER: Duration = Duration::from_millis(500);

/// How long a caller may be silent while what it still sends is read and dropped, so that the last answer
/// is not lost to a reset (RFC 9112, 9.6).
const LINGER: Duration = Duration::from_secs(1);

/// What every request on one connection is served with.
pub(crate) struct Connection {
    pub(crate) worker: Rc<Worker>,
    pub(crate) listener: Arc<ListenerState>,
    pub(crate) peer: Peer,
    pub(crate) session: Rc<Session>,
    /// What a Unix socket's peer ran when it connected, as far as this process may know. For the log: its user could
    /// have run anything, so nothing is decided by it.
    pub(crate) executable: Option<Box<Path>>,
    /// Whose requests come here, as of the last one, and where from.
    caller: RefCell<Option<(Arc<str>, Origin)>>,
    /// The id of the operation that the last request asked for.
    operation: Cell<Option<&'static str>>,
    /// The caller that it is counted for.
    pub(crate) owner: Owner,
}

impl Connection {
    pub(crate) fn new(
        worker: Rc<Worker>,
        listener: Arc<ListenerState>,
        peer: Peer,
        session: Rc<Session>,
        executable: Option<Box<Path>>,
    ) -> Self {
        Self {
            worker,
            listener,
            peer,
            session,
            executable,
            caller: RefCell::default(),
            operation: Cell::default(),
            owner: Owner::default(),
        }
    }

    /// A request has come from this caller.
    pub(crate) fn recognised(&self, name: &Arc<str>, origin: Origin) {
        self.operation.set(None);
        let mut caller = self.caller.borrow_mut();
        // Most connections have one caller for all their life: no count of references for each request.
        if !caller.as_ref().is_some_and(|(known, at)| Arc::ptr_eq(known, name) && *at == origin) {
            *caller = Some((name.clone(), origin));
        }
    }

    /// It asks for this operation.
    pub(crate) fn asked_for(&self, operation: &'static str) {
        self.operation.set(Some(operation));
    }

    /// Refuses the present request when an operator has stopped what it is about.
    pub(crate) fn check_suspended(&self, view: &View, now: Instant) -> Result<(), Refusal> {
        let suspensions = self.worker.suspensions();
        if suspensions.is_empty() {
            return Ok(());
        }
        let caller = self.caller.borrow();
        let settings = view.listener(self.listener.index);
        let environment = settings.and_then(|settings| view.environment(settings.environment?));
        let subject = Subject {
            environment: environment.map(|environment| &*environment.settings.name),
            operation: self.operation.get(),
            ..of(&caller)
        };
        if suspensions.applies(&subject, now.into_std()) { Err(Refusal::Suspended) } else { Ok(()) }
    }

    /// Whether an operator has stopped whoever is at the other end.
    pub(crate) fn caller_is_suspended(&self) -> bool {
        let suspensions = self.worker.suspensions();
        !suspensions.is_empty() && suspensions.applies(&of(&self.caller.borrow()), Instant::now().into_std())
    }

    /// Ends what an operator has stopped: the request in flight, or the connection when there is none.
    fn end_suspended(&self) -> Option<Look> {
        if self.worker.suspensions().is_empty() {
            return None;
        }
        if self.session.is_idle() {
            return self.caller_is_suspended().then_some(Look::Leave(End::Over));
        }
        if let Some(view) = self.worker.view()
            && self.session.is_answering()
            && self.check_suspended(&view, Instant::now()).is_err()
        {
            self.session.watch.suspend();
        }
        None
    }
}

fn of(caller: &Option<(Arc<str>, Origin)>) -> Subject<'_> {
    let address = caller.as_ref().and_then(|(_, origin)| match origin {
        Origin::Address(address) => Some(*address),
        Origin::Unix { .. } => None,
    });
    Subject { caller: caller.as_ref().map(|(name, _)| &**name), address, ..Subject::default() }
}

/// Why hyper's part ended.
enum End {
    /// Nothing to do for a while; the stream is taken back.
    Idle,
    /// The conversation is over.
    Over,
    /// The caller has left, or does not take its answer.
    Cut,
}

/// Serves `stream` until either side is done with it.
pub(crate) async fn serve(connection: Rc<Connection>, mut stream: Stream) {
    let limits = &connection.session.limits;
    let mut patience = limits.header_read_timeout;
    let opened = connection.session.idle_since(Instant::now());
    while parked(&connection, &stream, patience).await {
        let gate = Gate::new(stream, Inbound::new(connection.session.clone()));
        let at = connection.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let at = at.clone();
            async move { Ok::<Response<AnswerBody>, Infallible>(gateway::serve(at, request).await) }
        });
        let http = http1::Builder::new()
            .half_close(false)
            .header_read_timeout(None)
            .max_buf_size(limits.header_bytes_max.max(8 * 1024) + 8 * 1024)
            .serve_connection(gate, service);
        // In a box, as all that is not needed while the connection is parked.
        let mut http = Box::new(http);
        let end = drive(&connection, &mut http).await;
        stream = http.into_parts().io.into_parts().0;
        match (end, connection.session.head_refusal()) {
            // Counted from the last answer, or from the start: bytes that make no request win no time.
            (End::Idle, None) => {
                let now = Instant::now();
                let since = connection.session.idle_since(now);
                let wait = if since == opened { limits.header_read_timeout } else { limits.idle_timeout };
                patience = wait.saturating_sub(now - since);
            }
            (End::Cut, _) => return stream.reset(),
            (_, Some(refusal)) => {
                let last = respond::raw(&connection, refusal);
                return Box::pin(close(stream, &last, limits)).await;
            }
            (End::Over, None) if connection.session.must_reset() => return stream.reset(),
            (End::Over, None) => return Box::pin(close(stream, &[], limits)).await,
        }
    }
    // TLS says goodbye; whoever does not take it has gone.
    let _ = timeout(LINGER, stream.shutdown()).await;
}

/// Waits for the next byte. False when the caller has gone, was silent for too long, or must go.
async fn parked(connection: &Connection, stream: &Stream, patience: Duration) -> bool {
    // Whoever drips a TLS record has always just sent a byte.
    if patience.is_zero() {
        return false;
    }
    let _idle = connection.worker.idle();
    tokio::select! {
        biased;
        readable = stream.readable() => readable.is_ok(),
        () = connection.worker.until(|| connection.worker.draining() || connection.caller_is_suspended()) => false,
        () = sleep(patience) => false,
    }
}

type Http<S> = http1::Connection<Gate<Stream, Inbound>, S>;

/// Lets hyper serve, and looks at the waits once a tick.
async fn drive<S>(connection: &Connection, http: &mut Http<S>) -> End
where
    S: hyper::service::HttpService<Incoming, ResBody = AnswerBody, Error = Infallible> + Unpin,
{
    let mut tick = pin!(sleep(TICK));
    poll_fn(|cx| {
        loop {
            if Pin::new(&mut *http).poll(cx).is_ready() {
                return Poll::Ready(End::Over);
            }
            if !poll_tick(tick.as_mut(), cx) {
                return Poll::Pending;
            }
            match look(connection) {
                Look::Leave(end) => return Poll::Ready(end),
                Look::Close => Pin::new(&mut *http).graceful_shutdown(),
                Look::Stay => {}
            }
        }
    })
    .await
}

/// True, and the next tick is set, when a tick has come.
fn poll_tick(mut tick: Pin<&mut Sleep>, cx: &mut Context<'_>) -> bool {
    let due = tick.as_mut().poll(cx).is_ready();
    if due {
        tick.reset(Instant::now() + TICK);
    }
    due
}

enum Look {
    Leave(End),
    Close,
    Stay,
}

/// What a tick finds.
fn look(connection: &Connection) -> Look {
    let session = &connection.session;
    let now = Instant::now();
    // Whoever waits has seen what expired at an earlier tick, unless hyper is stuck in a write: the caller
    // does not read.
    let stuck = session.watch.expired().is_some();
    let blocked = session.blocked_since().is_some_and(|since| now - since >= session.limits.idle_timeout);
    session.watch.look(now);
    if let Some(end) = connection.end_suspended() {
        return end;
    }
    if stuck || blocked || session.caller_left() {
        return Look::Leave(End::Cut);
    }
    if connection.worker.draining() {
        return if session.is_idle() { Look::Leave(End::Over) } else { Look::Close };
    }
    if session.is_idle() && now - session.idle_since(now) >= PARK_AFTER {
        return Look::Leave(End::Idle);
    }
    Look::Stay
}

/// Writes `last` and closes, reading on so that what was written is not lost to a reset. It costs no more
/// than an upload that is not refused, and is bounded likewise.
async fn close(mut stream: Stream, last: &[u8], limits: &Limits) {
    let write = async {
        stream.write_all(last).await?;
        stream.shutdown().await?;
        let mut rest = [0; 4096];
        while timeout(LINGER, stream.read(&mut rest)).await?? > 0 {}
        std::io::Result::Ok(())
    };
    // The caller may be gone already; then there is nobody to tell.
    let _ = timeout(limits.upload_timeout, write).await;
}
