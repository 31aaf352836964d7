//! What an upstream answers, on whatever bytes in whatever pieces, read by the gateway's own reader.
//!
//! Two bytes choose the pieces, the methods that are asked with and how the stream ends; the rest is what
//! the upstream sends, cut at each `<NEXT>` into what it sends for one request and for the next. Claimed:
//! what is read is what an independent strict reading finds, and what hyper's client finds in the same
//! bytes; nothing behind it is taken; pieces and waits make no difference; what breaks off never looks
//! complete; no whole, well-formed answer is refused; nothing waits for bytes that are not needed.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::Poll,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};

use super::{
    reading::{self, Answered, Fields, Message},
    split_choices,
    wire::{Memory, Plan, Recorded, Source, poll_until_stalled, room, split},
};
use crate::{
    gate::{Follow, Gate, Verdict},
    refusal::Failure,
    upstream::answer::AnswerReader,
};

const REQUESTS_MAX: usize = 4;

/// How many places an answer is broken off at; a short one at each.
const CUTS_MAX: usize = 16;

pub(super) fn check(input: &[u8]) {
    let ([seed, choices], wire) = split_choices(input);
    let options = Options::new(seed, choices);
    if let Err(fault) = claims(wire, options, read) {
        panic!("{fault}: {options:?} {}", wire.escape_ascii());
    }
}

/// Reads the answer at the start of what comes; the flag tells that it answers a HEAD.
pub(super) type Read = fn(Source, bool) -> Outcome;

/// How an exchange goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    seed: u8,
    /// A bit a request.
    heads: u8,
    /// How many bytes hyper has room for.
    room: usize,
    /// The connection breaks behind the last byte; else it ends in order.
    breaks: bool,
}

impl Options {
    pub(super) fn new(seed: u8, choices: u8) -> Self {
        Self { seed, heads: choices & 3, room: room(choices >> 2), breaks: choices & 32 != 0 }
    }
}

/// What came of reading one answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Outcome {
    /// As much of the answer as was handed on.
    pub(super) answer: Answer,
    /// Whether the connection is there for another request, or why the answer is not whole. `None`: it
    /// waits even when the stream has ended.
    pub(super) end: Option<Result<bool, Failure>>,
    /// It was over only when the stream was.
    pub(super) waited_for_end: bool,
    /// Bytes that it took.
    pub(super) taken: usize,
    pub(super) broken: Option<&'static str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Answer {
    pub(super) status: String,
    pub(super) fields: Fields,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Fields,
}

/// All claims about one connection.
pub(super) fn claims(wire: &[u8], options: Options, read: Read) -> Result<(), String> {
    for (index, part) in split(wire).into_iter().take(REQUESTS_MAX).enumerate() {
        let is_head = options.heads >> index.min(1) & 1 != 0;
        let got = read(Source::new(part, options.seed, options.breaks), is_head);
        claims_reading(part, is_head, options, &got).map_err(|fault| format!("{fault}, got {got:?}"))?;
        claims_pieces(part, is_head, options, read, &got)?;
        if let Some(Ok(_)) = got.end {
            claims_cuts(&part[..got.taken], is_head, options.seed, read, &got)?;
        }
    }
    Ok(())
}

/// Compares with the independent reading and, if there is an answer, with hyper.
fn claims_reading(part: &[u8], is_head: bool, options: Options, got: &Outcome) -> Result<(), String> {
    if let Some(broken) = got.broken {
        return Err(broken.into());
    }
    let found = reading::answer(part, is_head, !options.breaks);
    let whole_before = matches!(
        reading::answer(part, is_head, false),
        Ok(Some(Answered { message, .. })) if message.complete
    );
    match (&got.end, &found) {
        (None, _) => Err("it waits behind the end".into()),
        (Some(Ok(keeps_alive)), Ok(Some(found))) => {
            same(&got.answer, found)?;
            if !found.message.complete || *keeps_alive != found.keeps_alive {
                return Err(format!("it is {found:?}"));
            }
            if got.taken != part.len() - found.after.len() {
                return Err(format!("{} bytes follow it", found.after.len()));
            }
            if got.waited_for_end == whole_before {
                return Err("it waited, or did not, for the end".into());
            }
            match by_hyper(&part[..got.taken], is_head, options.room) {
                Some(other) if other == got.answer => Ok(()),
                other => Err(format!("hyper read {other:?}")),
            }
        }
        (Some(Err(Failure::UpstreamMalformed)), Err(_) | Ok(None)) => Ok(()),
        (Some(Err(Failure::UpstreamMalformed)), Ok(Some(found))) if may_be_refused(&found.message) => Ok(()),
        (Some(Err(Failure::UpstreamClosed)), Ok(Some(found))) if !found.message.complete => {
            same(&got.answer, found)
        }
        (Some(Err(Failure::UpstreamClosed)), Err(_) | Ok(None)) => Ok(()),
        (_, found) => Err(format!("it is {found:?}")),
    }
}

/// Trailers of most names that mean something are not let through; which, `framing::chunked` says.
fn may_be_refused(message: &Message) -> bool {
    !message.complete || message.trailers.iter().any(|(name, _)| !["x", "x-sum"].contains(&name.as_str()))
}

fn same(got: &Answer, found: &Answered<'_>) -> Result<(), String> {
    let message = found.message.clone();
    let found = Answer {
        status: message.start.1,
        fields: reading::sorted(message.fields),
        body: message.body,
        trailers: reading::sorted(message.trailers),
    };
    if *got == found { Ok(()) } else { Err(format!("it is {found:?}")) }
}

/// In one piece it is the same.
fn claims_pieces(
    part: &[u8],
    is_head: bool,
    options: Options,
    read: Read,
    got: &Outcome,
) -> Result<(), String> {
    let mut whole = read(Source::new(part, 0, options.breaks), is_head);
    if !matches!(got.end, Some(Ok(_))) {
        // How much of an answer was there before the fault was seen is up to the pieces.
        whole.answer.body.clone_from(&got.answer.body);
        (whole.taken, whole.waited_for_end) = (got.taken, got.waited_for_end);
    }
    if whole == *got { Ok(()) } else { Err(format!("in one piece it is {whole:?}, else {got:?}")) }
}

/// Breaks a whole answer off, in order and not, here and there.
fn claims_cuts(whole: &[u8], is_head: bool, seed: u8, read: Read, got: &Outcome) -> Result<(), String> {
    let ends_by_close = got.waited_for_end;
    let mut plan = Plan::new(seed.max(2));
    let cuts: Vec<usize> = if whole.len() <= CUTS_MAX {
        (0..whole.len()).collect()
    } else {
        (0..CUTS_MAX).map(|_| plan.below(whole.len())).collect()
    };
    for cut in cuts {
        for breaks in [false, true] {
            let part = read(Source::new(&whole[..cut], 0, breaks), is_head);
            let in_body = !part.answer.status.is_empty();
            let expected =
                if ends_by_close && !breaks && in_body { Ok(false) } else { Err(Failure::UpstreamClosed) };
            let is_part = got.answer.body.starts_with(&part.answer.body) && part.answer.trailers.is_empty();
            if part.end != Some(expected) || !is_part {
                return Err(format!("broken off at {cut} ({breaks}) it is {part:?}, else {got:?}"));
            }
        }
    }
    Ok(())
}

/// What the gateway's reader makes of it.
pub(super) fn read(mut source: Source, is_head: bool) -> Outcome {
    let mut got = Outcome::default();
    let may_end = source.may_end.clone();
    (got.waited_for_end, got.end) = {
        let mut exchange = pin!(exchange(&mut source, is_head, &mut got.answer, &mut got.broken));
        let before = poll_until_stalled(exchange.as_mut());
        may_end.set(true);
        (before.is_none(), before.or_else(|| poll_until_stalled(exchange)))
    };
    got.taken = source.taken();
    got.broken = got.broken.or(source.broken());
    got
}

/// As `upstream::exchange` reads.
async fn exchange(
    source: &mut Source,
    is_head: bool,
    answer: &mut Answer,
    broken: &mut Option<&'static str>,
) -> Result<bool, Failure> {
    let mut reader = AnswerReader::new();
    let mut fields = HeaderMap::new();
    let status = poll_fn(|cx| reader.poll_head(cx, source, is_head, &mut fields)).await?;
    answer.status = status.as_str().to_owned();
    answer.fields = reading::of_map(&fields);
    let declared = reader.size_hint().exact();
    while let Some(frame) = poll_fn(|cx| reader.poll_body(cx, source)).await {
        match frame?.into_data() {
            Ok(data) if data.is_empty() => *broken = Some("an empty piece says nothing"),
            Ok(data) => answer.body.extend_from_slice(&data),
            Err(frame) => answer.trailers = frame.into_trailers().map(|it| reading::of_map(&it)).unwrap(),
        }
        let left = declared.map(|declared| declared.checked_sub(answer.body.len() as u64));
        if left.is_some_and(|left| left != reader.size_hint().exact()) {
            *broken = Some("another length than declared is left");
        }
    }
    if !reader.is_over() {
        *broken = Some("there is no more, and it is not over");
    }
    Ok(reader.keeps_alive())
}

/// What hyper's client makes of it, which the gateway's reader took the place of.
pub(super) fn by_hyper(bytes: &[u8], is_head: bool, room: usize) -> Option<Answer> {
    let memory = Memory::new(0);
    let (recorded, _) = Recorded::new(Gate::new(memory.clone(), Open), room, || false);
    let mut handshake = pin!(http1::handshake(recorded));
    let (mut sender, connection) = poll_until_stalled(handshake.as_mut())?.ok()?;
    let mut driver = Driver { connection: Some(Box::pin(connection)) };
    let mut exchange = pin!(exchange_of_hyper(&mut sender, is_head));
    // The request goes out first, and then the answer comes.
    if let Some(answer) = driver.run(exchange.as_mut()) {
        return answer;
    }
    memory.send(bytes);
    memory.end();
    driver.run(exchange)?
}

async fn exchange_of_hyper(sender: &mut SendRequest<Empty<Bytes>>, is_head: bool) -> Option<Answer> {
    let mut request = Request::new(Empty::new());
    *request.method_mut() = if is_head { Method::HEAD } else { Method::GET };
    request.headers_mut().insert("host", http::HeaderValue::from_static("a"));
    let answer: Response<Incoming> = sender.send_request(request).await.ok()?;
    let (head, body) = answer.into_parts();
    let body = body.collect().await.ok()?;
    Some(Answer {
        status: head.status.as_str().to_owned(),
        fields: reading::of_map(&head.headers),
        trailers: body.trailers().map(reading::of_map).unwrap_or_default(),
        body: body.to_bytes().to_vec(),
    })
}

/// Polls the connection beside whatever waits for it.
struct Driver<C> {
    connection: Option<Pin<Box<C>>>,
}

impl<C: Future<Output = hyper::Result<()>>> Driver<C> {
    fn run<F: Future>(&mut self, mut future: Pin<&mut F>) -> Option<F::Output> {
        poll_until_stalled(pin!(poll_fn(|cx| {
            if let Some(connection) = &mut self.connection
                && let Poll::Ready(_end) = connection.as_mut().poll(cx)
            {
                self.connection = None;
            }
            future.as_mut().poll(cx)
        })))
    }
}

/// Lets everything through.
pub(super) struct Open;

impl Follow<Memory> for Open {
    fn follow(&mut self, bytes: &[u8]) -> Verdict {
        Verdict::Accept(bytes.len())
    }

    fn certain(&self) -> u64 {
        0
    }

    fn passed(&mut self, _count: u64) {}

    fn ended(&mut self) {}
}
