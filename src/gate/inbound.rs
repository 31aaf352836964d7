//! What a caller sends, judged: one complete, valid head at a time, then its body, then nothing until the
//! answer is in the kernel.
//!
//! hyper therefore never sees a bad head, nor two requests at once, and never makes an answer of its own.
//! A refusal is left in the [`Session`] for the connection's task, which writes it when hyper is done.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    rc::Rc,
};

use tokio::time::Instant;

use super::{Follow, Verdict};
use crate::{
    config::Limits,
    framing::{BodyFraming, HeadLimits, chunked::ChunkedScanner, request},
    listener::{
        stream::Stream,
        watch::{Expiry, Watch},
    },
    refusal::Refusal,
};

/// What the connection's task, its gate and the request in flight share.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) watch: Watch,
    pub(crate) limits: Limits,
    /// Why a head was refused: hyper has not seen it, and the connection's task answers.
    head_refusal: Cell<Option<Refusal>>,
    /// Why a body was refused: hyper has its head, and the request's walk answers.
    body_refusal: Cell<Option<Refusal>>,
    /// Places masked in the current answer.
    masked: Cell<u32>,
    /// The answer's body is gone: what is left of it is in hyper's buffer.
    answer_ended: Cell<bool>,
    /// An answer that ends with its connection is not whole in the kernel yet.
    must_reset: Cell<bool>,
    /// Every byte of that answer was handed to hyper.
    answer_complete: Cell<bool>,
    phase: Cell<Phase>,
    /// Asks the gate to ask the kernel whether the caller is still there.
    probe: Cell<bool>,
    gone: Cell<bool>,
    /// When a look first found no request in flight since the last one.
    idle_since: Cell<Option<Instant>>,
    /// Body bytes of the request in flight.
    body_bytes: Cell<u64>,
    /// Bytes of its body are still to come.
    body_pending: Cell<bool>,
    /// Since when the caller has not taken a byte of what is written to it.
    blocked_since: Cell<Option<Instant>>,
    /// What is left to do about the current answer when it is in the kernel, in its drop: nobody waits for it.
    afterwards: RefCell<Option<Box<dyn Any>>>,
}

impl Session {
    pub(crate) fn new(limits: Limits) -> Rc<Self> {
        Rc::new(Self {
            watch: Watch::default(),
            limits,
            head_refusal: Cell::new(None),
            body_refusal: Cell::new(None),
            masked: Cell::new(0),
            answer_ended: Cell::new(false),
            must_reset: Cell::new(false),
            answer_complete: Cell::new(false),
            phase: Cell::new(Phase::Idle),
            probe: Cell::new(false),
            gone: Cell::new(false),
            idle_since: Cell::new(None),
            body_bytes: Cell::new(0),
            body_pending: Cell::new(false),
            blocked_since: Cell::new(None),
            afterwards: RefCell::new(None),
        })
    }

    /// Why a head was refused, if one was.
    pub(crate) fn head_refusal(&self) -> Option<Refusal> {
        self.head_refusal.get()
    }

    /// Why the current request's body was refused, if it was.
    pub(crate) fn body_refusal(&self) -> Option<Refusal> {
        self.body_refusal.get()
    }

    /// How many places were masked in the current answer.
    pub(crate) fn masked(&self) -> u32 {
        self.masked.get()
    }

    pub(crate) fn add_masked(&self, hits: usize) {
        self.masked.set(self.masked.get().saturating_add(u32::try_from(hits).unwrap_or(u32::MAX)));
    }

    /// Whether not even a part of a request has come since the last answer.
    pub(crate) fn is_idle(&self) -> bool {
        self.phase.get() == Phase::Idle
    }

    /// Whether a request has been handed on whose answer is still being made.
    pub(crate) fn is_answering(&self) -> bool {
        self.phase.get() == Phase::InFlight && !self.answer_ended.get()
    }

    /// Whether the caller has left a request in flight behind. Asks anew for the next call.
    pub(crate) fn caller_left(&self) -> bool {
        self.probe.set(self.phase.get() == Phase::InFlight);
        self.gone.get()
    }

    /// Since when nobody has asked for anything, seen from `now`: it begins with the first look at it, so
    /// that no request has to read the clock for it.
    pub(crate) fn idle_since(&self, now: Instant) -> Instant {
        let since = self.idle_since.get().unwrap_or(now);
        self.idle_since.set(Some(since));
        since
    }

    /// Body bytes of the current request that have passed, framing included.
    pub(crate) fn body_bytes(&self) -> u64 {
        self.body_bytes.get()
    }

    /// Whether the current request's body has not come whole. Nothing after it is read once it is refused.
    pub(crate) fn body_pending(&self) -> bool {
        self.body_pending.get()
    }

    /// Since when the caller has not taken a byte of its answer.
    pub(crate) fn blocked_since(&self) -> Option<Instant> {
        self.blocked_since.get()
    }

    /// Whether an orderly end of the connection would make a truncated answer look complete.
    pub(crate) fn must_reset(&self) -> bool {
        self.must_reset.get()
    }

    /// An answer begins that ends with its connection: until it is whole, the end is a reset.
    pub(crate) fn begin_answer_that_ends_by_close(&self) {
        self.must_reset.set(true);
    }

    /// Every byte of that answer was handed on.
    pub(crate) fn complete_answer_that_ends_by_close(&self) {
        self.answer_complete.set(true);
    }

    /// Nothing of the current answer is left to make. `afterwards` is dropped when it is in the kernel, or will never be.
    pub(crate) fn end_answer(&self, afterwards: Box<dyn Any>) {
        self.answer_ended.set(true);
        self.watch.exchange_done();
        self.afterwards.replace(Some(afterwards));
    }

    fn do_afterwards(&self) {
        // Taken out first: what is dropped may look at this session.
        let afterwards = self.afterwards.take();
        drop(afterwards);
    }

    fn begin(&self, body_pending: bool) {
        self.phase.set(Phase::InFlight);
        self.answer_ended.set(false);
        self.body_pending.set(body_pending);
    }

    fn end(&self) {
        self.phase.set(Phase::Idle);
        self.idle_since.set(None);
        // What comes next may be refused before it is a request, and has no share in these.
        self.body_bytes.set(0);
        self.masked.set(0);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    /// A part of a head has come.
    Head,
    /// A request has been handed on whose answer is not in the kernel yet.
    InFlight,
}

/// Follows one caller's bytes.
#[derive(Debug)]
pub(crate) struct Inbound {
    session: Rc<Session>,
    limits: HeadLimits,
    state: State,
    /// The socket has been told to end by a reset.
    reset_is_set: bool,
}

#[derive(Debug)]
enum State {
    /// Between messages, or in a head of which this many bytes were searched for its end.
    Head(usize),
    Length(u64),
    Chunked(Box<ChunkedScanner>),
    /// The message is complete and its answer is not.
    Answering,
    Refused,
}

impl Inbound {
    pub(crate) fn new(session: Rc<Session>) -> Self {
        let limits = HeadLimits::from(&session.limits);
        Self { session, limits, state: State::Head(0), reset_is_set: false }
    }

    fn refuse(&mut self, refusal: Refusal) -> Verdict {
        let place = match self.state {
            State::Head(_) => &self.session.head_refusal,
            _ => &self.session.body_refusal,
        };
        place.set(Some(refusal));
        self.session.watch.inbound_done();
        self.state = State::Refused;
        Verdict::Refuse
    }

    fn head(&mut self, bytes: &[u8], seen: usize) -> Verdict {
        let head = match request::scan(bytes, seen, &self.limits) {
            Err(violation) => return self.refuse(violation.refusal()),
            Ok(None) => {
                if seen == 0 {
                    self.session.watch.inbound(self.session.limits.header_read_timeout, Expiry::Head);
                }
                self.state = State::Head(bytes.len());
                return Verdict::More;
            }
            Ok(Some(head)) => head,
        };
        self.session.watch.inbound_done();
        self.state = match head.framing {
            BodyFraming::None | BodyFraming::Length(0) => State::Answering,
            BodyFraming::Length(length) => State::Length(length),
            BodyFraming::Chunked => {
                State::Chunked(Box::new(ChunkedScanner::of_request(self.limits.body_bytes_max)))
            }
        };
        let has_body = !matches!(self.state, State::Answering);
        self.session.begin(has_body);
        if has_body {
            self.session.watch.inbound(self.session.limits.upload_timeout, Expiry::Upload);
        }
        Verdict::Accept(head.len)
    }

    /// Asks the kernel, once for each look of the connection's task: never for a request that is quick.
    fn ask_whether_gone(&self, stream: &Stream) {
        if self.session.probe.take() && stream.hung_up() {
            self.session.gone.set(true);
        }
    }

    fn took_body(&mut self, count: u64, done: bool) {
        self.session.body_bytes.set(self.session.body_bytes.get() + count);
        if done {
            self.session.watch.inbound_done();
            self.session.body_pending.set(false);
            self.state = State::Answering;
        }
    }
}

/// Whatever ended the connection, a part of an answer may be all that its caller got.
impl Drop for Inbound {
    fn drop(&mut self) {
        self.session.do_afterwards();
    }
}

impl Follow<Stream> for Inbound {
    fn follow(&mut self, bytes: &[u8]) -> Verdict {
        match &mut self.state {
            State::Head(seen) => {
                let seen = *seen;
                self.head(bytes, seen)
            }
            State::Length(left) => {
                let count = (*left).min(bytes.len() as u64);
                *left -= count;
                let done = *left == 0;
                self.took_body(count, done);
                Verdict::Accept(count as usize)
            }
            State::Chunked(scanner) => match scanner.scan(bytes) {
                Err(violation) => self.refuse(violation.refusal()),
                Ok(scanned) => {
                    self.took_body(scanned.accepted as u64, scanned.done);
                    if scanned.accepted == 0 { Verdict::More } else { Verdict::Accept(scanned.accepted) }
                }
            },
            State::Answering => Verdict::Hold,
            State::Refused => Verdict::Refuse,
        }
    }

    fn certain(&self) -> u64 {
        match &self.state {
            // One less: the last byte must be seen, since it ends the message.
            State::Length(left) => left.saturating_sub(1),
            State::Chunked(scanner) => scanner.certain().saturating_sub(1),
            _ => 0,
        }
    }

    fn passed(&mut self, count: u64) {
        match &mut self.state {
            State::Length(left) => *left -= count,
            State::Chunked(scanner) => scanner.pass(count),
            _ => {}
        }
        self.took_body(count, false);
    }

    fn ended(&mut self) {
        self.session.watch.inbound_done();
        if matches!(self.state, State::Length(_) | State::Chunked(_)) {
            // The upstream is not to blame for the body's missing end.
            self.refuse(Refusal::MalformedRequest);
        }
    }

    fn waiting(&mut self) {
        self.session.phase.set(Phase::Head);
    }

    fn flushed(&mut self, stream: &Stream) -> bool {
        self.ask_whether_gone(stream);
        if self.session.answer_complete.take() && self.reset_is_set {
            self.reset_is_set = false;
            self.session.must_reset.set(false);
            stream.end_by_reset(false);
        }
        let over = matches!(self.state, State::Answering) && self.session.answer_ended.get();
        if over {
            self.state = State::Head(0);
            self.session.do_afterwards();
            self.session.end();
        }
        over
    }

    fn takes(&mut self, takes: bool, stream: &Stream) {
        if self.session.must_reset() && !self.reset_is_set {
            // Set beforehand, so that it also holds when the task ends without another look.
            self.reset_is_set = true;
            stream.end_by_reset(true);
        }
        if !takes {
            // Nothing is flushed for as long as this waits, and with enough read ahead nothing is read either.
            self.ask_whether_gone(stream);
        }
        let since = self.session.blocked_since.get();
        self.session.blocked_since.set(if takes { None } else { since.or_else(|| Some(Instant::now())) });
    }

    fn stopped(&mut self) -> bool {
        match (self.session.watch.expired(), &self.state) {
            (Some(Expiry::Head), State::Head(_)) => {
                self.refuse(Refusal::HeadTimeout);
            }
            (Some(Expiry::Upload), State::Length(_) | State::Chunked(_)) => {
                self.refuse(Refusal::BodyTimeout);
            }
            _ => {}
        }
        matches!(self.state, State::Refused)
    }
}
