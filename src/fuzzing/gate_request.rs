//! The gate towards callers, with hyper's server behind it, on whatever bytes in whatever pieces.
//!
//! Two bytes choose the pieces, the service behind and when the stream ends; the rest is what the caller
//! sends. Claimed: what passes is a beginning of what was sent; an independent strict reading takes it for
//! just the requests that the service saw, byte for byte; nothing passes after a refusal; nothing that
//! could pass is stuck; hyper answers nothing by itself; and the pieces make no difference.

use std::{
    cell::RefCell,
    convert::Infallible,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::CONNECTION};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};

use super::{
    reading::{self, Fields, Message},
    split_choices,
    wire::{Memory, Passed, Recorded, poll_until_stalled, room},
};
use crate::{
    config::Limits,
    gate::{
        Follow, Gate, Verdict,
        inbound::{Inbound, Session},
    },
    listener::stream::Stream,
    refusal::Refusal,
};

pub(super) fn check(input: &[u8]) {
    let ([seed, options], wire) = split_choices(input);
    let options = Options::new(seed, options);
    if let Err(fault) = claims(wire, options, Judged::new) {
        panic!("{fault}: {options:?} {}", wire.escape_ascii());
    }
}

/// All claims about one conversation; `follower` makes what judges the caller.
pub(super) fn claims<F: Follow<Memory> + 'static>(
    wire: &[u8],
    options: Options,
    follower: fn(Rc<Session>) -> F,
) -> Result<(), String> {
    let talk = converse(wire, options, follower);
    let messages = compared(wire, options, &talk)?;
    if options.reads_bodies() && !options.ends_at_once && options.seed != 0 {
        let whole = converse(wire, Options { seed: 0, room: room(0), ..options }, follower);
        let others = reading::requests(&whole.passed)?;
        let complete = |messages: Vec<Message>| -> Vec<Message> {
            messages.into_iter().filter(|message| message.complete).collect()
        };
        let (one, other) = (complete(messages), complete(others));
        if one != other || talk.refusal() != whole.refusal() {
            return Err(format!("in one piece it is {:?}, else {:?}", whole.refusal(), talk.refusal()));
        }
    }
    Ok(())
}

/// Compares what passed with what was sent, what is read into it, and what hyper made of it.
fn compared(wire: &[u8], options: Options, talk: &Talk) -> Result<Vec<Message>, String> {
    if let Some(broken) = talk.broken {
        return Err(broken.into());
    }
    if !wire.starts_with(&talk.passed) {
        return Err("what passed is not what was sent".into());
    }
    let messages = reading::requests(&talk.passed)?;
    if messages.len() != talk.seen.len() {
        return Err(format!("{} requests passed, hyper saw {}", messages.len(), talk.seen.len()));
    }
    if let Some((_, seen)) = (1..).zip(&talk.seen).find(|(number, seen)| seen.passed_by_then > *number) {
        return Err(format!("a second request passed before the answer: {seen:?}"));
    }
    for (message, seen) in messages.iter().zip(&talk.seen) {
        let start = (message.start.0.clone(), printed(&message.start.1));
        if start != seen.start || reading::sorted(message.fields.clone()) != seen.fields {
            return Err(format!("{message:?} was read as {seen:?}"));
        }
        let agree = match &seen.body {
            Content::Whole(data, trailers) => {
                message.complete
                    && *data == message.body
                    && *trailers == reading::sorted(message.trailers.clone())
            }
            Content::Broken | Content::Unfinished => !message.complete || options.ends_at_once,
            Content::Ignored => true,
        };
        if !agree {
            return Err(format!("{message:?} was read as {seen:?}"));
        }
    }
    let refused = talk.refusal() != (None, None);
    let incomplete = messages.last().is_some_and(|last| !last.complete);
    let rest = &wire[talk.passed.len()..];
    let could_pass =
        if incomplete { !rest.is_empty() } else { rest.windows(4).any(|four| four == b"\r\n\r\n") };
    if could_pass && !refused && !talk.closed_by_hyper {
        return Err(format!("nothing is refused, and this is stuck: {}", rest.escape_ascii()));
    }
    own_answers_only(&talk.written)?;
    Ok(messages)
}

/// `http::Uri` writes an absolute target's scheme in small letters.
fn printed(target: &str) -> String {
    match target.split_once("://") {
        Some((scheme, rest)) if !target.starts_with('/') => {
            format!("{}://{rest}", scheme.to_ascii_lowercase())
        }
        _ => target.to_owned(),
    }
}

/// hyper writes nothing but the service's answers and `100 Continue`.
fn own_answers_only(written: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(written);
    for answer in text.split("HTTP/1.").skip(1) {
        let after_version = answer.get(1..).unwrap_or_default();
        // The last one may be cut off by the conversation's end.
        let is = |line: &&str| after_version.starts_with(line) || line.starts_with(after_version);
        if ![" 200 OK\r\n", " 100 Continue\r\n"].iter().any(is) {
            return Err(format!("hyper answered by itself: {answer:?}"));
        }
    }
    Ok(())
}

/// How a conversation goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    pub(super) seed: u8,
    service: Service,
    room: usize,
    /// The caller ends its stream right behind its last byte, and not after all is answered.
    ends_at_once: bool,
    body_bytes_max: u64,
}

/// What the service does with a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Service {
    Reads,
    ReadsAndWaits,
    ReadsOneFrame,
    Ignores,
}

impl Options {
    pub(super) fn new(seed: u8, choices: u8) -> Self {
        Self {
            seed,
            service: [Service::Reads, Service::ReadsAndWaits, Service::ReadsOneFrame, Service::Ignores]
                [usize::from(choices % 4)],
            room: room(choices >> 2),
            ends_at_once: choices & 16 != 0,
            body_bytes_max: if choices & 32 == 0 { 1_000 } else { 16 },
        }
    }

    fn reads_bodies(self) -> bool {
        matches!(self.service, Service::Reads | Service::ReadsAndWaits)
    }
}

/// What came of it.
struct Talk {
    passed: Vec<u8>,
    broken: Option<&'static str>,
    seen: Vec<Seen>,
    written: Vec<u8>,
    head_refusal: Option<Refusal>,
    body_refusal: Option<Refusal>,
    /// It had ended before the caller ended its stream.
    closed_by_hyper: bool,
}

impl Talk {
    fn refusal(&self) -> (Option<Refusal>, Option<Refusal>) {
        (self.head_refusal, self.body_refusal)
    }
}

/// One request as the service saw it.
#[derive(Debug)]
struct Seen {
    /// How many requests, this one included, had passed when it was answered.
    passed_by_then: usize,
    start: (String, String),
    fields: Fields,
    body: Content,
}

#[derive(Debug)]
enum Content {
    Unfinished,
    Ignored,
    Whole(Vec<u8>, Fields),
    Broken,
}

fn converse<F: Follow<Memory> + 'static>(
    wire: &[u8],
    options: Options,
    follower: fn(Rc<Session>) -> F,
) -> Talk {
    let limits = limits(options.body_bytes_max);
    let session = Session::new(limits);
    let memory = Memory::new(options.seed);
    let shut = session.clone();
    let is_shut = move || shut.head_refusal().is_some() || shut.body_refusal().is_some();
    let gate = Gate::new(memory.clone(), follower(session.clone()));
    let (recorded, passed) = Recorded::new(gate, options.room, is_shut);
    let seen = Rc::new(RefCell::new(Vec::new()));
    let service = service_fn(|request: Request<Incoming>| {
        serve(request, options.service, passed.clone(), &seen, &session)
    });
    // As `listener::connection` sets it up.
    let connection = http1::Builder::new()
        .half_close(false)
        .header_read_timeout(None)
        .max_buf_size(16 * 1024)
        .serve_connection(recorded, service);
    memory.send(wire);
    if options.ends_at_once {
        memory.end();
    }
    let closed_by_hyper = {
        let mut connection = pin!(connection);
        let over = poll_until_stalled(connection.as_mut()).is_some();
        memory.end();
        if !over {
            // What counts is what passed, and not how hyper calls its end.
            let _end = poll_until_stalled(connection).expect("a conversation that has ended is over");
        }
        over
    };
    Talk {
        passed: passed.bytes(),
        broken: passed.broken(),
        seen: seen.take(),
        written: memory.written(),
        head_refusal: session.head_refusal(),
        body_refusal: session.body_refusal(),
        closed_by_hyper,
    }
}

fn serve(
    request: Request<Incoming>,
    service: Service,
    passed: Passed,
    seen: &Rc<RefCell<Vec<Seen>>>,
    session: &Rc<Session>,
) -> impl Future<Output = Result<Response<Answer>, Infallible>> + use<> {
    let (head, body) = request.into_parts();
    let index = seen.borrow().len();
    // hyper has made up its mind here, even if it never polls what follows.
    seen.borrow_mut().push(Seen {
        passed_by_then: 0,
        start: (head.method.to_string(), head.uri.to_string()),
        fields: reading::of_map(&head.headers),
        body: Content::Unfinished,
    });
    let (seen, session) = (seen.clone(), session.clone());
    async move {
        let content = read(body, service).await;
        seen.borrow_mut()[index].body = content;
        if service == Service::ReadsAndWaits {
            tokio::task::yield_now().await;
        }
        let by_then = reading::requests(&passed.bytes()).map_or(0, |messages| messages.len());
        seen.borrow_mut()[index].passed_by_then = by_then;
        Ok(answer(&session))
    }
}

/// As `gateway::answer` makes one.
pub(super) fn answer(session: &Rc<Session>) -> Response<Answer> {
    let text = Some(Bytes::from_static(b"seen"));
    let mut response = Response::new(Answer { text, session: session.clone() });
    if session.body_pending() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn read(mut body: Incoming, service: Service) -> Content {
    match service {
        Service::Reads | Service::ReadsAndWaits => match body.collect().await {
            Ok(body) => {
                let trailers = body.trailers().map(reading::of_map).unwrap_or_default();
                Content::Whole(body.to_bytes().to_vec(), trailers)
            }
            Err(_) => Content::Broken,
        },
        Service::ReadsOneFrame => {
            let _ = body.frame().await;
            Content::Ignored
        }
        Service::Ignores => Content::Ignored,
    }
}

/// An answer's body, which tells the session that it is gone, as the gateway's does.
pub(super) struct Answer {
    text: Option<Bytes>,
    session: Rc<Session>,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.text.take().map(|text| Ok(Frame::data(text))))
    }

    fn is_end_stream(&self) -> bool {
        self.text.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.text.as_ref().map_or(0, Bytes::len) as u64)
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.session.end_answer(Box::new(()));
    }
}

pub(super) fn limits(body_bytes_max: u64) -> Limits {
    let wait = Duration::from_secs(3_600);
    Limits {
        connections_max: 1,
        connections_per_address_max: 1,
        header_bytes_max: 1_024,
        header_count_max: 12,
        request_line_bytes_max: 256,
        body_bytes_max,
        header_read_timeout: wait,
        idle_timeout: wait,
        upload_timeout: wait,
    }
}

/// The gateway's own follower. It asks its stream only whether the caller has left, and how to close; so
/// beside the stream in memory it has a real one for that.
pub(super) struct Judged {
    inbound: Inbound,
    socket: Rc<Stream>,
}

impl Judged {
    pub(super) fn new(session: Rc<Session>) -> Self {
        Self { inbound: Inbound::new(session), socket: SOCKET.with(|(socket, _)| socket.clone()) }
    }
}

thread_local! {
    static SOCKET: (Rc<Stream>, tokio::runtime::Runtime) = {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let (socket, _) = runtime.block_on(async { tokio::net::UnixStream::pair().unwrap() });
        (Rc::new(Stream::Unix(socket)), runtime)
    };
}

impl Follow<Memory> for Judged {
    fn follow(&mut self, bytes: &[u8]) -> Verdict {
        self.inbound.follow(bytes)
    }

    fn certain(&self) -> u64 {
        self.inbound.certain()
    }

    fn passed(&mut self, count: u64) {
        self.inbound.passed(count);
    }

    fn ended(&mut self) {
        self.inbound.ended();
    }

    fn flushed(&mut self, _stream: &Memory) -> bool {
        self.inbound.flushed(&self.socket)
    }

    fn takes(&mut self, takes: bool, _stream: &Memory) {
        self.inbound.takes(takes, &self.socket);
    }

    fn waiting(&mut self) {
        self.inbound.waiting();
    }

    fn stopped(&mut self) -> bool {
        self.inbound.stopped()
    }
}
