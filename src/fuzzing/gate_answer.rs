//! The gate towards upstreams, with hyper's client behind it, on whatever bytes in whatever pieces.
//!
//! Two bytes choose the pieces, the methods that are asked with and when the stream ends; the rest is what
//! the upstream sends, cut at each `<NEXT>` into what it sends after one request and after the next.
//! Claimed: an independent strict reading takes what passed for just the answers that the client was
//! given, byte for byte; one that is not whole never ends like one that is; and a connection is given back
//! only at the exact end of an answer.

use std::{
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};

use super::{
    reading::{self, Fields},
    split_choices,
    wire::{Memory, Recorded, poll_until_stalled, room},
};
use crate::gate::{
    Follow, Gate,
    answer::{Answers, Turn},
};

const NEXT: &[u8] = b"<NEXT>";
const REQUESTS_MAX: usize = 4;

pub(super) fn check(input: &[u8]) {
    let ([seed, choices], wire) = split_choices(input);
    let options = Options::new(seed, choices);
    if let Err(fault) = claims(wire, options, Answers::new) {
        panic!("{fault}: {options:?} {}", wire.escape_ascii());
    }
}

/// All claims about one connection; `follower` makes what judges the upstream.
pub(super) fn claims<F: Follow<Memory> + 'static>(
    wire: &[u8],
    options: Options,
    follower: fn(Rc<Turn>) -> F,
) -> Result<(), String> {
    let talk = converse(wire, options, follower)?;
    if let Some(broken) = talk.broken {
        return Err(broken.into());
    }
    let asked: Vec<bool> = talk.got.iter().map(|got| got.is_head).collect();
    let messages = reading::answers(&talk.passed, &asked, talk.closed)?;
    for (index, got) in talk.got.iter().enumerate() {
        let (answer, message) = match (&got.answer, messages.get(index)) {
            (Some(answer), Some(message)) => (answer, message),
            (None, None) => continue,
            (answer, message) => return Err(format!("{message:?} passed, and the client got {answer:?}")),
        };
        if message.start.1 != answer.status || reading::sorted(message.fields.clone()) != answer.fields {
            return Err(format!("{message:?} was read as {answer:?}"));
        }
        match &answer.body {
            Some((data, trailers)) => {
                let same = *data == message.body && *trailers == reading::sorted(message.trailers.clone());
                if !same || !message.complete {
                    return Err(format!("{message:?} was read as {answer:?}"));
                }
            }
            None if message.complete && !talk.failed => {
                return Err(format!("{message:?} was cut off: {answer:?}"));
            }
            None => {}
        }
        if got.given_back && (!message.complete || answer.body.is_none()) {
            return Err(format!("a connection is used again after {message:?}"));
        }
    }
    Ok(())
}

/// The status of each answer that the client got whole.
#[cfg(test)]
pub(super) fn answered(wire: &[u8], options: Options) -> Vec<Option<String>> {
    let talk = converse(wire, options, Answers::new).unwrap();
    let whole = |got: Got| got.answer.filter(|answer| answer.body.is_some()).map(|answer| answer.status);
    talk.got.into_iter().map(whole).collect()
}

/// How a connection goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    seed: u8,
    /// A bit a request.
    heads: u8,
    room: usize,
    /// The upstream ends its stream right behind its last byte; else only when nothing moves any more.
    ends_at_once: bool,
    /// The upstream speaks before it is asked.
    speaks_first: bool,
}

impl Options {
    pub(super) fn new(seed: u8, choices: u8) -> Self {
        Self {
            seed,
            heads: choices & 3,
            room: room(choices >> 2),
            ends_at_once: choices & 16 != 0,
            speaks_first: choices & 224 == 224,
        }
    }
}

/// What came of it.
struct Talk {
    passed: Vec<u8>,
    broken: Option<&'static str>,
    got: Vec<Got>,
    /// The stream's end was there to be read.
    closed: bool,
    /// The connection ended with an error.
    failed: bool,
}

/// One exchange as the client saw it.
#[derive(Debug)]
struct Got {
    is_head: bool,
    /// `None`: an error instead.
    answer: Option<Answer>,
    /// The connection would serve another request.
    given_back: bool,
}

#[derive(Debug)]
struct Answer {
    status: String,
    fields: Fields,
    /// Data and trailers; `None`: an error inside it.
    body: Option<(Vec<u8>, Fields)>,
}

fn converse<F: Follow<Memory> + 'static>(
    wire: &[u8],
    options: Options,
    follower: fn(Rc<Turn>) -> F,
) -> Result<Talk, String> {
    let mut parts = split(wire, NEXT).into_iter();
    let memory = Memory::new(options.seed);
    let turn = Rc::new(Turn::default());
    let gate = Gate::new(memory.clone(), follower(turn.clone()));
    let (recorded, passed) = Recorded::new(gate, options.room, || false);
    let mut handshake = pin!(http1::handshake(recorded));
    let (mut sender, connection) = poll_until_stalled(handshake.as_mut()).unwrap().unwrap();
    let mut driver = Driver { connection: Some(Box::pin(connection)), failed: false };
    if options.speaks_first {
        memory.send(parts.next().unwrap_or_default());
    }
    driver.run(pin!(std::future::pending::<()>()));
    let mut got: Vec<Got> = Vec::new();
    for part in parts.take(REQUESTS_MAX) {
        if !sender.is_ready() {
            break;
        }
        if let Some(last) = got.last_mut() {
            last.given_back = true;
        }
        let is_head = options.heads >> got.len().min(1) & 1 != 0;
        let written = memory.written().len();
        turn.begin(is_head, true);
        let mut exchange = pin!(exchange(&mut sender, is_head));
        // The request goes out first, and then the answer comes.
        let mut answer = driver.run(exchange.as_mut());
        if answer.is_none() {
            if memory.written().len() == written {
                return Err("a request was taken and not written".into());
            }
            memory.send(part);
            if options.ends_at_once {
                memory.end();
            }
            answer = driver.run(exchange.as_mut());
        }
        if answer.is_none() {
            memory.end();
            answer = driver.run(exchange.as_mut());
        }
        got.push(Got {
            is_head,
            answer: answer.ok_or("an exchange whose connection has ended goes on")?,
            given_back: false,
        });
        // As the pool asks before it keeps a connection; hyper has to hear of what else came.
        driver.run(pin!(std::future::pending::<()>()));
        if !turn.answer_read.get() {
            break;
        }
    }
    // What is not asked for must not pass, and closes the connection.
    let before = passed.len();
    if !memory.is_at_end() {
        memory.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        driver.run(pin!(std::future::pending::<()>()));
        if got.last().is_some_and(|last| last.answer.is_some())
            && turn.answer_read.get()
            && passed.len() != before
        {
            return Err("an answer passed that nobody asked for".into());
        }
        if sender.is_ready() {
            return Err("a connection with an answer that nobody asked for is used again".into());
        }
    }
    Ok(Talk {
        passed: passed.bytes(),
        broken: passed.broken(),
        got,
        closed: memory.is_at_end(),
        failed: driver.failed,
    })
}

fn split<'w>(mut wire: &'w [u8], at: &[u8]) -> Vec<&'w [u8]> {
    let mut parts = Vec::new();
    while let Some(index) = wire.windows(at.len()).position(|window| window == at) {
        parts.push(&wire[..index]);
        wire = &wire[index + at.len()..];
    }
    parts.push(wire);
    parts
}

/// Polls the connection beside whatever waits for it.
struct Driver<C> {
    connection: Option<Pin<Box<C>>>,
    failed: bool,
}

impl<C: Future<Output = hyper::Result<()>>> Driver<C> {
    fn run<F: Future>(&mut self, mut future: Pin<&mut F>) -> Option<F::Output> {
        poll_until_stalled(pin!(std::future::poll_fn(|cx| {
            if let Some(connection) = &mut self.connection
                && let Poll::Ready(end) = connection.as_mut().poll(cx)
            {
                self.failed = end.is_err();
                self.connection = None;
            }
            future.as_mut().poll(cx)
        })))
    }
}

async fn exchange(sender: &mut SendRequest<Empty<Bytes>>, is_head: bool) -> Option<Answer> {
    let mut request = Request::new(Empty::new());
    *request.method_mut() = if is_head { Method::HEAD } else { Method::GET };
    request.headers_mut().insert("host", http::HeaderValue::from_static("a"));
    let answer: Response<Incoming> = sender.send_request(request).await.ok()?;
    let (head, body) = answer.into_parts();
    let body = body.collect().await.ok().map(|body| {
        let trailers = body.trailers().map(reading::of_map).unwrap_or_default();
        (body.to_bytes().to_vec(), trailers)
    });
    Some(Answer { status: head.status.as_str().to_owned(), fields: reading::of_map(&head.headers), body })
}
