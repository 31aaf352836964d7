//! No caller ever receives a byte of another's answer, whatever callers and upstream do.
//!
//! Every request has a tag, in its path, in a header and all through its upload. The upstream checks that the
//! three agree and fills its answer with the tag. Callers leave, stop half-way, read slowly and pipeline; the
//! upstream cuts answers off, resets, says more than it was asked, and answers before it has read. Whatever a
//! caller gets must be its own, and complete or recognisably not.

use std::{
    io::{self, Read, Write as _},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    harness::{Answer, Client, Gateway},
    raw_upstream::{RawUpstream, Wire},
};

const CALLERS: usize = 64;
const REQUESTS: usize = 200_000;

/// How long an upstream takes for an answer that is late.
const LATE: Duration = Duration::from_millis(20);

#[test]
fn of_200_000_requests_none_gets_a_byte_of_anothers_answer() {
    let mixed = Arc::new(AtomicUsize::new(0));
    let seen = mixed.clone();
    let upstream = RawUpstream::start(move |_, wire| {
        loop {
            let head = wire.head()?;
            if !respond(wire, &head, &seen)? {
                return Ok(());
            }
        }
    });
    let settings = "connections_max = 48\nconnect_timeout_ms = 60000";
    let gateway = upstream
        .setup()
        .in_environment(settings)
        .table("[record]\ndestination = \"off\"")
        .table("[process]\nworkers = 2")
        .start();
    let (begin, counts) = (Instant::now(), Counts::default());
    thread::scope(|scope| {
        for caller in 0..CALLERS {
            let (gateway, counts) = (&gateway, &counts);
            scope.spawn(move || {
                let mut caller = Caller::new(gateway, counts, caller);
                let mine = REQUESTS.div_ceil(CALLERS);
                while caller.number < mine {
                    caller.next();
                }
            });
        }
    });
    eprintln!("{counts:?}, {} upstream connections, {:?}", upstream.connections(), begin.elapsed());
    assert_eq!(mixed.load(Ordering::SeqCst), 0, "requests were mixed up on their way to the upstream");
    let sum = [&counts.complete, &counts.left, &counts.cut, &counts.failed]
        .map(|count| count.load(Ordering::SeqCst));
    assert!(sum.iter().sum::<usize>() >= REQUESTS && sum.iter().all(|&count| count > 100), "{counts:?}");
}

/// How requests ended.
#[derive(Debug, Default)]
struct Counts {
    /// The whole answer came.
    complete: AtomicUsize,
    /// The caller left before the end of its request or of its answer.
    left: AtomicUsize,
    /// The answer was cut off, and the caller could see it.
    cut: AtomicUsize,
    /// The gateway answered 502.
    failed: AtomicUsize,
}

/// What an upstream does with a request.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Length = b'l' as isize,
    Chunked = b'c' as isize,
    UntilClose = b'e' as isize,
    Nothing = b'n' as isize,
    CutByFin = b'x' as isize,
    CutByReset = b'y' as isize,
    Drop = b'd' as isize,
    Stray = b's' as isize,
    Early = b'r' as isize,
    Late = b'w' as isize,
}

/// One request's own text: its number, what the upstream does, and how long its answer and its upload are.
struct Tag {
    text: String,
    kind: Kind,
    answer: usize,
    upload: usize,
}

impl Tag {
    fn new(caller: usize, number: usize, kind: Kind, answer: usize, upload: usize) -> Self {
        let letter = char::from(kind as u8);
        Self { text: format!("T{caller}.{number}-{letter}-{answer}-{upload}"), kind, answer, upload }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-').skip(1);
        let kind = match parts.next()? {
            "l" => Kind::Length,
            "c" => Kind::Chunked,
            "e" => Kind::UntilClose,
            "n" => Kind::Nothing,
            "x" => Kind::CutByFin,
            "y" => Kind::CutByReset,
            "d" => Kind::Drop,
            "s" => Kind::Stray,
            "r" => Kind::Early,
            "w" => Kind::Late,
            _ => return None,
        };
        let (answer, upload) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some(Self { text: text.to_owned(), kind, answer, upload })
    }

    /// Lines of the tag.
    fn lines(&self, length: usize) -> Vec<u8> {
        let mut lines = format!("{}\n", self.text).repeat(length / (self.text.len() + 1) + 1).into_bytes();
        lines.truncate(length);
        lines
    }
}

// ---- the upstream ----

/// Answers one request; false at the connection's end.
fn respond(wire: &mut Wire, head: &str, mixed: &AtomicUsize) -> io::Result<bool> {
    let in_path = head.split(' ').nth(1).and_then(|path| path.strip_prefix("/users/"));
    let field = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    };
    let Some(tag) = in_path.and_then(Tag::parse).filter(|tag| field("x-tag") == Some(&tag.text)) else {
        mixed.fetch_add(1, Ordering::SeqCst);
        return Ok(false);
    };
    if tag.kind != Kind::Early {
        let upload = match (field("content-length"), field("transfer-encoding")) {
            (Some(length), _) => wire.body(length.parse().map_err(io::Error::other)?)?,
            (None, Some(_)) => wire.chunks()?,
            (None, None) => Vec::new(),
        };
        if upload != tag.lines(tag.upload) {
            mixed.fetch_add(1, Ordering::SeqCst);
            return Ok(false);
        }
    }
    let body = tag.lines(if head.starts_with("HEAD") { 0 } else { tag.answer });
    let named = format!("HTTP/1.1 200 OK\r\nX-Tag: {}\r\n", tag.text);
    let with_length = |count: usize| {
        let mut text = format!("{named}Content-Length: {}\r\n\r\n", tag.answer).into_bytes();
        text.extend_from_slice(&body[..count.min(body.len())]);
        text
    };
    match tag.kind {
        Kind::Length | Kind::Early => wire.say(with_length(tag.answer))?,
        Kind::Late => {
            // Long enough for a careless pool to give the connection to somebody else.
            thread::park_timeout(LATE);
            wire.say(with_length(tag.answer))?;
        }
        Kind::Chunked => wire.say(chunked(&named, &body, true))?,
        Kind::Nothing => wire.say(named.replace("200 OK", "204 No Content") + "\r\n")?,
        Kind::Stray => {
            let mut both = with_length(tag.answer);
            both.extend_from_slice(b"HTTP/1.1 200 OK\r\nX-Tag: stray\r\nContent-Length: 5\r\n\r\nstray");
            wire.say(both)?;
        }
        Kind::UntilClose => {
            wire.say([format!("{named}\r\n").as_bytes(), &body].concat())?;
            wire.close_notify()?;
        }
        Kind::CutByFin => wire.say(with_length(tag.answer / 2))?,
        Kind::CutByReset => {
            wire.say(chunked(&named, &body, false))?;
            wire.reset();
        }
        Kind::Drop => {}
    }
    Ok(!matches!(tag.kind, Kind::UntilClose | Kind::CutByFin | Kind::CutByReset | Kind::Drop))
}

fn chunked(head: &str, body: &[u8], whole: bool) -> Vec<u8> {
    let mut text = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
    for chunk in body.chunks(1_000) {
        _ = write!(text, "{:x}\r\n", chunk.len());
        text.extend_from_slice(chunk);
        text.extend_from_slice(b"\r\n");
    }
    if whole {
        text.extend_from_slice(b"0\r\n\r\n");
    }
    text
}

// ---- the callers ----

struct Caller<'t> {
    gateway: &'t Gateway,
    counts: &'t Counts,
    client: Client,
    caller: usize,
    number: usize,
    random: u64,
}

impl<'t> Caller<'t> {
    fn new(gateway: &'t Gateway, counts: &'t Counts, caller: usize) -> Self {
        let random = (caller as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self { gateway, counts, client: gateway.connect(), caller, number: 0, random }
    }

    /// Xorshift: the same in every run.
    fn below(&mut self, bound: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random >> 33).unwrap() % bound
    }

    fn size(&mut self) -> usize {
        let most = [100, 300, 1_000, 6_000][self.below(4)];
        self.below(most)
    }

    fn tag(&mut self, kind: Kind) -> Tag {
        let answer = self.size();
        self.tag_of(kind, answer, 0)
    }

    fn tag_of(&mut self, kind: Kind, answer: usize, upload: usize) -> Tag {
        self.number += 1;
        Tag::new(self.caller, self.number, kind, answer, upload)
    }

    fn next(&mut self) {
        match self.below(240) {
            0..2 => self.leave_in_head(),
            2..4 => self.leave_in_upload(),
            4..8 => self.leave_before_answer(),
            8..10 => self.leave_in_answer(),
            10 => self.exchange("GET", Kind::CutByFin),
            11 => self.exchange("GET", Kind::CutByReset),
            12 => self.exchange("PUT", Kind::Drop),
            13 => self.exchange("GET", Kind::Stray),
            14 => self.early(),
            15 => self.exchange("GET", Kind::UntilClose),
            16 => self.read_slowly(),
            17 => self.exchange("GET", Kind::Late),
            18..60 => self.pipeline(),
            60..90 => self.exchange("PUT", Kind::Length),
            90..120 => self.exchange("PUT", Kind::Chunked),
            120..130 => self.exchange("GET", Kind::Nothing),
            130..140 => self.exchange("HEAD", Kind::Length),
            140..180 => self.exchange("GET", Kind::Chunked),
            _ => self.exchange("GET", Kind::Length),
        }
    }

    /// A request as bytes; an upload of even length has `Content-Length`, one of odd length is chunked.
    fn request(method: &str, tag: &Tag) -> Vec<u8> {
        let head = format!("{method} /users/{0} HTTP/1.1\r\nHost: localhost\r\nX-Tag: {0}\r\n", tag.text);
        let body = tag.lines(tag.upload);
        if method != "PUT" {
            return (head + "\r\n").into_bytes();
        }
        if body.len() % 2 == 1 {
            return chunked(&head, &body, true);
        }
        let mut text = format!("{head}Content-Length: {}\r\n\r\n", body.len()).into_bytes();
        text.extend_from_slice(&body);
        text
    }

    fn exchange(&mut self, method: &str, kind: Kind) {
        let (answer, upload) = (self.size() + 1, if method == "PUT" { self.size() } else { 0 });
        let tag = self.tag_of(kind, answer, upload);
        self.client.raw(&Self::request(method, &tag));
        let answer = if method == "HEAD" { self.client.answer_to_head() } else { self.client.answer() };
        self.check(&answer, &tag, method);
    }

    fn pipeline(&mut self) {
        let tags: Vec<Tag> = (0..3).map(|_| self.tag(Kind::Length)).collect();
        let requests: Vec<u8> = tags.iter().flat_map(|tag| Self::request("GET", tag)).collect();
        self.client.raw(&requests);
        for tag in &tags {
            let answer = self.client.answer();
            self.check(&answer, tag, "GET");
        }
    }

    fn read_slowly(&mut self) {
        let length = 30_000 + self.below(200_000);
        let tag = self.tag_of(Kind::Length, length, 0);
        self.client.raw(&Self::request("GET", &tag));
        let mut piece = [0; 1_000];
        let mut got = Vec::new();
        while !got.ends_with(b"\r\n\r\n") {
            let count = self.client.stream.read(&mut piece[..1]).unwrap();
            got.extend_from_slice(&piece[..count]);
        }
        let head = String::from_utf8(got).unwrap();
        assert!(head.starts_with("HTTP/1.1 200") && head.contains(&tag.text), "{head}");
        let mut body = Vec::new();
        while body.len() < length {
            let most = piece.len().min(length - body.len());
            let count = self.client.stream.read(&mut piece[..most]).unwrap();
            assert!(count > 0);
            body.extend_from_slice(&piece[..count]);
            thread::yield_now();
        }
        assert!(body == tag.lines(length), "an answer to {} is not its own", tag.text);
        count(&self.counts.complete);
    }

    /// The upstream answers while half of the upload is still here.
    fn early(&mut self) {
        let upload = self.size() + 2;
        let length = self.size();
        let tag = self.tag_of(Kind::Early, length, upload);
        let request = Self::request("PUT", &tag);
        self.client.raw(&request[..request.len() - upload / 2 - 1]);
        let answer = self.client.answer();
        self.check(&answer, &tag, "PUT");
        self.reconnect();
    }

    fn leave_in_head(&mut self) {
        let tag = self.tag(Kind::Length);
        let request = Self::request("GET", &tag);
        let some = 1 + self.below(request.len() - 1);
        self.leave_after(&request[..some]);
    }

    fn leave_in_upload(&mut self) {
        let upload = self.size() + 20;
        let tag = self.tag_of(Kind::Length, 100, upload);
        let request = Self::request("PUT", &tag);
        let some = request.len() - 1 - self.below(upload);
        self.leave_after(&request[..some]);
    }

    fn leave_before_answer(&mut self) {
        let kind = [Kind::Length, Kind::Chunked, Kind::Late, Kind::Late][self.below(4)];
        let tag = self.tag(kind);
        self.leave_after(&Self::request("GET", &tag));
    }

    fn leave_in_answer(&mut self) {
        let length = 30_000 + self.below(200_000);
        let tag = self.tag_of(Kind::Chunked, length, 0);
        self.client.raw(&Self::request("GET", &tag));
        assert!(self.client.stream.read(&mut [0; 2_000]).unwrap() > 0);
        self.leave_after(&[]);
    }

    fn leave_after(&mut self, bytes: &[u8]) {
        self.client.raw(bytes);
        self.reconnect();
        count(&self.counts.left);
    }

    fn reconnect(&mut self) {
        self.client = self.gateway.connect();
    }

    /// Whole and its own, or a part of its own that cannot be taken for the whole, or a 502.
    fn check(&mut self, answer: &Answer, tag: &Tag, method: &str) {
        let broken = matches!(tag.kind, Kind::CutByFin | Kind::CutByReset | Kind::Drop);
        if answer.status == 502 {
            assert_eq!((answer.code().as_str(), broken), ("upstream_closed", true), "{}", tag.text);
            return count(&self.counts.failed);
        }
        assert_eq!(answer.header("x-tag"), Some(tag.text.as_str()));
        let length = if method == "HEAD" || tag.kind == Kind::Nothing { 0 } else { tag.answer };
        assert_eq!(answer.whole, !broken, "{}", tag.text);
        if answer.whole {
            assert!(answer.body == tag.lines(length), "an answer to {} is not its own", tag.text);
            count(&self.counts.complete);
        } else {
            assert!(tag.lines(length).starts_with(&answer.body), "a part to {} is not its own", tag.text);
            assert_eq!(self.client.rest(), b"");
            self.reconnect();
            count(&self.counts.cut);
        }
        if answer.header("connection") == Some("close") {
            self.reconnect();
        }
    }
}

fn count(counter: &AtomicUsize) {
    counter.fetch_add(1, Ordering::Relaxed);
}
