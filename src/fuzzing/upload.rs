//! A request on its way to the upstream, whatever pieces its body comes in and however little is taken.
//!
//! Three bytes choose the pieces, the framing and what the upstream takes; the rest is the body on the
//! caller's wire (in chunks, or as it is), cut at `<NEXT>` into what comes now and what comes when nothing
//! moves any more. Claimed: an independent strict reading, and hyper, find in what was written the same
//! body, with the trailers that were announced and no others; what has come is on its way before more
//! comes; a body that is not whole never looks so; and it counts as sent only when all of it is flushed.

use std::{cell::RefCell, convert::Infallible, future::poll_fn, pin::pin, rc::Rc, time::Duration};

use http::{HeaderName, Request};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};

use super::{
    answer::Open,
    gate_request::{Judged, answer, limits},
    reading::{self, Fields, Message},
    split_choices,
    wire::{Memory, Recorded, poll_until_stalled, room, split},
};
use crate::{
    gate::{Gate, inbound::Session},
    upstream::{
        headers::RequestHead,
        outgoing::Outgoing,
        upload::{Progress, Unsent, Upload},
    },
};

const ANNOUNCED: [&str; 2] = ["x-sum", "x-two"];

pub(super) fn check(input: &[u8]) {
    let ([seed, choices, takes], body) = split_choices(input);
    let options = Options::new(seed, choices, takes);
    if let Err(fault) = claims(body, options, |_| {}) {
        panic!("{fault}: {options:?} {}", body.escape_ascii());
    }
}

/// How an upload goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    seed: u8,
    is_chunked: bool,
    announces: bool,
    room: usize,
    /// One byte less comes than is declared.
    is_short: bool,
    /// How many bytes the upstream takes, and whether it says that it takes none or that it broke.
    takes: Option<(usize, bool)>,
}

impl Options {
    pub(super) fn new(seed: u8, choices: u8, takes: u8) -> Self {
        Self {
            seed,
            is_chunked: choices & 1 == 0,
            announces: choices & 2 == 0,
            room: room(choices >> 2),
            is_short: choices & 16 != 0,
            takes: (takes != 0).then_some((usize::from(takes) * 2, choices & 32 != 0)),
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Talk {
    /// What the gate let through, and what was written, when nothing moved the first time.
    pub(super) at_first: (Vec<u8>, Vec<u8>),
    /// The gate had refused the body by then.
    pub(super) over_at_first: bool,
    pub(super) passed: Vec<u8>,
    pub(super) written: Vec<u8>,
    pub(super) flushed: usize,
    /// `None`: the caller's connection ended before.
    pub(super) end: Option<Result<(), Unsent>>,
    pub(super) is_sent: bool,
    /// The upstream took no more.
    pub(super) refused: bool,
}

/// All claims about one upload; `change` is for what breaks them.
pub(super) fn claims(body: &[u8], options: Options, change: impl FnOnce(&mut Talk)) -> Result<(), String> {
    let parts = split(body);
    let (first, rest) = (parts[0], parts[1..].concat());
    let head = head(options, first.len() + rest.len());
    let mut talk = converse(&head, [first, &rest], options);
    change(&mut talk);
    let message = the_one(&talk.passed)?.ok_or("its head did not pass")?;
    let written = &talk.written;
    if !written.starts_with(&head) && !head.starts_with(written) {
        return Err(format!("another head: {}", written.escape_ascii()));
    }
    let sent = if written.len() < head.len() { None } else { the_one(written)? };
    let sent_body = sent.as_ref().map(|sent| sent.body.as_slice()).unwrap_or_default();
    if !message.body.starts_with(sent_body) {
        return Err(format!("another body: {sent:?}, not {message:?}"));
    }
    if talk.flushed > written.len() || talk.is_sent != (talk.end == Some(Ok(()))) {
        return Err(format!("it counts as sent: {talk:?}"));
    }
    match talk.end {
        Some(Ok(())) => is_whole(&talk, &message, sent.ok_or("nothing is sent")?),
        Some(Err(Unsent::Upstream)) if talk.refused => Ok(()),
        Some(Err(Unsent::Caller)) | None if !message.complete || talk.refused => {
            if sent.is_some_and(|sent| sent.complete) {
                return Err("what is not whole looks so".into());
            }
            if talk.refused { Ok(()) } else { moves_on(&talk) }
        }
        _ => Err(format!("{message:?} ended so: {talk:?}")),
    }
}

fn is_whole(talk: &Talk, message: &Message, sent: Message) -> Result<(), String> {
    let announced = |name: &str| talk_announces(&sent) && ANNOUNCED.contains(&name);
    let trailers: Fields = message.trailers.iter().filter(|(name, _)| announced(name)).cloned().collect();
    let trailers = reading::sorted(trailers);
    let is_same = sent.body == message.body && reading::sorted(sent.trailers.clone()) == trailers;
    if !is_same || !sent.complete || !message.complete {
        return Err(format!("{message:?} was sent as {sent:?}"));
    }
    if talk.flushed != talk.written.len() || talk.refused {
        return Err("not all of it was flushed".into());
    }
    match by_hyper(&talk.written) {
        Some(read) if read == (sent.body, trailers) => moves_on(talk),
        read => Err(format!("hyper read {read:?} in {}", talk.written.escape_ascii())),
    }
}

fn talk_announces(sent: &Message) -> bool {
    sent.fields.iter().any(|(name, _)| name == "trailer")
}

/// What had come was written before more came.
fn moves_on(talk: &Talk) -> Result<(), String> {
    if talk.over_at_first {
        return Ok(());
    }
    let (passed, written) = (the_one(&talk.at_first.0)?, the_one(&talk.at_first.1)?);
    let body = |message: &Option<Message>| message.as_ref().map(|message| message.body.clone());
    if body(&passed) == body(&written) {
        Ok(())
    } else {
        Err(format!("{passed:?} had come, and {written:?} was written"))
    }
}

/// The only request in `bytes`, if there is one.
fn the_one(bytes: &[u8]) -> Result<Option<Message>, String> {
    let mut messages = reading::requests(bytes)?;
    if messages.len() > 1 {
        return Err(format!("one request became {messages:?}"));
    }
    Ok(messages.pop())
}

/// The head, alike on both sides.
fn head(options: Options, len: usize) -> Vec<u8> {
    let framing = if options.is_chunked {
        let trailer =
            if options.announces { format!("Trailer: {}\r\n", ANNOUNCED.join(", ")) } else { String::new() };
        format!("Transfer-Encoding: chunked\r\n{trailer}")
    } else {
        format!("Content-Length: {}\r\n", len + usize::from(options.is_short))
    };
    format!("POST /users HTTP/1.1\r\nHost: a\r\n{framing}\r\n").into_bytes()
}

fn converse(head: &[u8], parts: [&[u8]; 2], options: Options) -> Talk {
    let session = Session::new(limits(10_000));
    let (caller, upstream) = (Memory::new(options.seed), Memory::new(options.seed.rotate_left(1)));
    if let Some((count, is_error)) = options.takes {
        upstream.takes_only(count, is_error);
    }
    let gate = Gate::new(caller.clone(), Judged::new(session.clone()));
    let (recorded, passed) = Recorded::new(gate, options.room, || false);
    let ended = Rc::new(RefCell::new((None, false)));
    let service = service_fn(|request: Request<Incoming>| {
        let (head, mut upstream) = (head.to_vec(), upstream.clone());
        let (session, ended) = (session.clone(), ended.clone());
        async move {
            let mut upload = upload(request, head, options, &session);
            let end = poll_fn(|cx| upload.poll(cx, &mut upstream)).await;
            *ended.borrow_mut() = (Some(end), upload.is_sent());
            Ok::<_, Infallible>(answer(&session))
        }
    });
    let mut connection =
        Some(Box::pin(http1::Builder::new().half_close(false).serve_connection(recorded, service)));
    let mut run = || {
        if connection.as_mut().is_some_and(|connection| poll_until_stalled(connection.as_mut()).is_some()) {
            connection = None;
        }
    };
    caller.send(&[head, parts[0]].concat());
    run();
    let at_first = (passed.bytes(), upstream.written());
    let over_at_first = session.body_refusal().is_some();
    caller.send(parts[1]);
    run();
    caller.end();
    run();
    let (end, is_sent) = *ended.borrow();
    Talk {
        at_first,
        over_at_first,
        passed: passed.bytes(),
        written: upstream.written(),
        flushed: upstream.flushed(),
        end,
        is_sent,
        refused: upstream.refused(),
    }
}

/// As `gateway` and `upstream` make it.
fn upload(request: Request<Incoming>, head: Vec<u8>, options: Options, session: &Rc<Session>) -> Upload {
    let announced = if options.announces { &ANNOUNCED[..] } else { &[] };
    let (received, body) = request.into_parts();
    let head = RequestHead {
        text: head.into(),
        is_chunked: options.is_chunked,
        trailers: announced.iter().map(|name| HeaderName::from_static(name)).collect(),
    };
    let outgoing = Outgoing::new(&received.method, head, body, false, received.headers);
    let progress = Progress { session: session.clone(), first_byte: Duration::from_secs(3_600), paced: None };
    Upload::new(outgoing.head, outgoing.body, progress)
}

/// The body and the trailers that hyper's server finds.
fn by_hyper(written: &[u8]) -> Option<(Vec<u8>, Fields)> {
    let memory = Memory::new(0);
    let (recorded, _) = Recorded::new(Gate::new(memory.clone(), Open), room(0), || false);
    let found = Rc::new(RefCell::new(None));
    let session = Session::new(limits(10_000));
    let service = service_fn(|request: Request<Incoming>| {
        let (found, session) = (found.clone(), session.clone());
        async move {
            if let Ok(body) = request.into_body().collect().await {
                let trailers = body.trailers().map(reading::of_map).unwrap_or_default();
                *found.borrow_mut() = Some((body.to_bytes().to_vec(), trailers));
            }
            Ok::<_, Infallible>(answer(&session))
        }
    });
    // Without an end: with one, hyper need not ask the service any more.
    memory.send(written);
    let _end = poll_until_stalled(pin!(http1::Builder::new().serve_connection(recorded, service)));
    found.take()
}
