//! What is not exactly one well-formed request is refused, goes nowhere, and nothing behind it is read.
//!
//! Every case is sent twice: by itself, and behind a request that is fine. Both times a request that would be
//! fine follows in the same write; the upstream must never see that one. `docs/strictness.md` lists the rules.

use std::io::Write as _;

use crate::{
    harness::{Client, Gateway},
    raw_upstream::{Log, RawUpstream, Seen, recording},
};

mod answers;
mod bodies;
mod documented;
mod heads;
mod mutated;
mod smuggling;
mod targets;

const BEFORE: &[u8] = b"GET /users?before HTTP/1.1\r\nHost: localhost\r\n\r\n";
const AFTER: &[u8] = b"GET /users?after HTTP/1.1\r\nHost: localhost\r\n\r\n";
const MALFORMED: Verdict<'static> = (400, "malformed_request");
const TARGET: Verdict<'static> = (400, "malformed_target");
const METHOD: Verdict<'static> = (501, "method_not_supported");
const EXPECTATION: Verdict<'static> = (417, "expectation_failed");
const TOO_LARGE: Verdict<'static> = (413, "body_too_large");

type Verdict<'c> = (u16, &'c str);

/// A gateway with one worker before an upstream that keeps what it is sent.
struct Bench {
    gateway: Gateway,
    upstream: RawUpstream,
    log: Log,
}

impl Bench {
    fn new() -> Self {
        let (upstream, log) = recording();
        let gateway = upstream.setup().table("[process]\nworkers = 1").start();
        Self { gateway, upstream, log }
    }

    /// Sends `bytes` in all ways; nothing but `verdict` may come of them.
    fn refuses(&self, bytes: &[u8], verdict: Verdict<'_>) {
        let case = shown(bytes);
        let mut client = self.gateway.connect();
        client.raw(&[bytes, AFTER].concat());
        is_last(&mut client, verdict, &case);
        let mut client = self.gateway.connect();
        client.raw(&[BEFORE, bytes, AFTER].concat());
        assert_eq!(client.answer().status, 200, "the request before {case}");
        is_last(&mut client, verdict, &case);
        assert_eq!(self.lines(), ["GET /users?before HTTP/1.1"], "{case}");
    }

    /// The same, in two writes that are cut at every position.
    fn refuses_however_it_is_cut(&self, bytes: &[u8], verdict: Verdict<'_>) {
        self.refuses(bytes, verdict);
        let sent = [bytes, AFTER].concat();
        for at in 1..bytes.len() {
            let mut client = self.gateway.connect();
            client.raw(&sent[..at]);
            // The first part may be refused, and the connection over, before the second is sent.
            let _ = client.stream.write_all(&sent[at..]);
            is_last(&mut client, verdict, &format!("{} cut at {at}", shown(bytes)));
        }
        assert_eq!(self.lines(), [""; 0]);
    }

    /// The lines of the requests that reached the upstream since this was asked last.
    fn lines(&self) -> Vec<String> {
        self.log.take().into_iter().map(|seen| seen.line).collect()
    }

    /// Sends `bytes` before a request that is fine; exactly those two reach the upstream. The first of them.
    fn serves(&self, bytes: &[u8]) -> Seen {
        let case = shown(bytes);
        let mut client = self.gateway.connect();
        client.raw(&[bytes, AFTER].concat());
        for _ in 0..2 {
            assert_eq!(client.answer().status, 200, "{case}");
        }
        let mut seen = self.log.take();
        assert_eq!(seen.len(), 2, "{case}: {seen:?}");
        assert_eq!(seen.pop().map(|last| last.line).as_deref(), Some("GET /users?after HTTP/1.1"), "{case}");
        seen.remove(0)
    }
}

/// The refusal is whole and well formed, and the connection ends with it.
fn is_last(client: &mut Client, verdict: Verdict<'_>, case: &str) {
    let answer = client.answer();
    assert_eq!((answer.status, answer.code().as_str()), verdict, "{case}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{case}");
    assert_eq!(answer.header("connection"), Some("close"), "{case}");
    let id = answer.header("x-mxgate-request-id");
    assert_eq!(id.map(str::len), Some(32), "{case}");
    assert_eq!(answer.json()["request_id"].as_str(), id, "{case}");
    assert_eq!(answer.json()["status"].as_u64(), Some(answer.status.into()), "{case}");
    assert_eq!(client.rest(), b"", "something came after the refusal of {case}");
}

fn shown(bytes: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(bytes).chars().take(160).collect::<String>())
}

/// `GET` with these header lines, each with its own end.
fn get(fields: &str) -> Vec<u8> {
    format!("GET /users HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n").into_bytes()
}

fn post(fields: &str, body: &str) -> Vec<u8> {
    format!("POST /users HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n{body}").into_bytes()
}

fn chunked(body: &str) -> Vec<u8> {
    post("Transfer-Encoding: chunked\r\n", body)
}

/// A request line before a valid `Host`.
fn line(line: &str) -> Vec<u8> {
    format!("{line}\r\nHost: localhost\r\n\r\n").into_bytes()
}

fn host(fields: &str) -> Vec<u8> {
    format!("GET /users HTTP/1.1\r\n{fields}\r\n").into_bytes()
}
