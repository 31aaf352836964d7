//! Messages mean the same on both sides: bodies, lengths, trailers, interim answers.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use mxgate::stand_in::Running;

use crate::harness::{Answer, Client, Gateway, PATIENCE, Setup, last, mx, mx_with};

fn started() -> (Running, Gateway) {
    let mx = mx();
    let gateway = Setup::new(&mx).start();
    (mx, gateway)
}

/// Bytes in which a shift or a loss shows.
fn noise(bytes: usize) -> Vec<u8> {
    (0..bytes as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

/// The answer to a `GET` for which the upstream says exactly `bytes`.
fn raw(gateway: &Gateway, lines: &str, bytes: &str) -> Answer {
    gateway.get("/users", &format!("x-stand-in-raw: {}\n{lines}", BASE64_STANDARD.encode(bytes)))
}

#[test]
fn large_uploads_arrive_byte_for_byte() {
    let (mx, gateway) = started();
    let body = noise(8 << 20);
    let mut client = gateway.connect();
    let head =
        "POST /users HTTP/1.1\r\nHost: localhost\r\nx-stand-in-echo: true\r\nContent-Encoding: x-own\r\n";
    client.raw(format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes());
    client.raw(&body);
    assert_eq!(client.answer().status, 200);
    let request = last(&mx);
    assert!(request.body == body, "other bytes than were sent");
    assert_eq!(request.headers["content-length"], body.len().to_string());
    assert_eq!(request.headers["content-encoding"], "x-own");

    client.raw(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes());
    for piece in body.chunks(70_001) {
        client.raw(format!("{:x}\r\n", piece.len()).as_bytes());
        client.raw(piece);
        client.raw(b"\r\n");
    }
    client.raw(b"0\r\n\r\n");
    assert_eq!(client.answer().status, 200);
    let request = last(&mx);
    assert!(request.body == body, "other bytes than were sent");
    assert_eq!(request.headers["transfer-encoding"], "chunked");
    assert!(!request.headers.contains_key("content-length"));
    assert_eq!(mx.connections(), 1, "both went over one connection");
}

#[test]
fn large_downloads_arrive_byte_for_byte() {
    let (mx, gateway) = started();
    let mut client = gateway.connect();
    let bytes = (12 << 20) + 7;
    let line = "what was sent\n";
    let expected: Vec<u8> = expected_lines(line, bytes);
    for (switch, framing) in [("", "content-length"), ("\nx-stand-in-chunked: true", "transfer-encoding")] {
        client.request(
            &format!("GET /users HTTP/1.1\nx-stand-in-big: {bytes}\nx-stand-in-tag: what was sent{switch}"),
            "",
        );
        let answer = client.answer();
        assert!(answer.whole && answer.header(framing).is_some(), "{:?}", answer.headers);
        assert!(answer.body == expected, "other bytes than were sent");
    }
    assert_eq!(mx.connections(), 1);
}

/// What the stand-in's big body is: lines, begun anew at each of its blocks.
fn expected_lines(line: &str, bytes: usize) -> Vec<u8> {
    let block = line.repeat((64 << 10) / line.len() + 1).into_bytes();
    block.iter().copied().cycle().take(bytes).collect()
}

#[test]
fn a_body_that_the_method_does_not_call_for_is_passed_on_too() {
    let (mx, gateway) = started();
    for method in ["GET", "DELETE", "HEAD"] {
        for framing in
            ["Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"]
        {
            let mut client = gateway.connect();
            client.raw(
                format!(
                    "{method} /users/U HTTP/1.1\r\nHost: localhost\r\nx-stand-in-echo: true\r\n{framing}"
                )
                .as_bytes(),
            );
            let answer = if method == "HEAD" { client.answer_to_head() } else { client.answer() };
            assert_eq!(answer.status, 200, "{method} {framing}");
            assert_eq!(
                (last(&mx).method.as_str(), &last(&mx).body[..]),
                (method, &b"hello"[..]),
                "{framing}"
            );
        }
    }
    // And none is made up.
    let answer = gateway.send("DELETE /users/U HTTP/1.1", "");
    assert_eq!(answer.status, 204);
    let request = last(&mx);
    assert!(request.body.is_empty() && !request.headers.contains_key("transfer-encoding"));
}

#[test]
fn an_answer_in_an_encoding_that_nobody_asked_for_is_a_failure() {
    let (mx, gateway) = started();
    let answer = gateway.get("/users", "Accept-Encoding: gzip, br\nx-stand-in-gzip: true");
    assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_encoding"));
    assert_eq!(last(&mx).headers["accept-encoding"], "identity");
    for encoding in ["gzip", "br", "identity, gzip", "x-unknown", "Identity, identity"] {
        let answer = gateway.get("/users", &format!("x-stand-in-header: Content-Encoding: {encoding}"));
        assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_encoding"), "{encoding}");
    }
    for encoding in ["identity", "Identity"] {
        let answer = gateway.get("/users", &format!("x-stand-in-header: Content-Encoding: {encoding}"));
        assert_eq!(answer.status, 200, "{encoding}");
        assert!(answer.json()["users"].is_array());
    }
    // It can neither be hidden as hop-by-hop nor as a transfer coding.
    let answer = raw(
        &gateway,
        "",
        "HTTP/1.1 200 OK\r\nConnection: content-encoding\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
    );
    assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_encoding"));
    let answer =
        raw(&gateway, "", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_malformed"));
}

#[test]
fn request_trailers_pass_when_they_were_announced() {
    let (mx, gateway) = started();
    let send = |head: &str, trailers: &str| {
        let mut client = gateway.connect();
        client.raw(
            format!(
                "POST /users HTTP/1.1\r\nHost: localhost\r\n{head}Transfer-Encoding: chunked\r\n\r\nb\r\n{{\"user\":{{}}}}\r\n0\r\n{trailers}\r\n"
            )
            .as_bytes(),
        );
        client.answer().status
    };
    assert_eq!(send("Trailer: X-Checksum\r\n", "X-Checksum: 7\r\n"), 200);
    let request = last(&mx);
    assert_eq!((request.trailers.len(), &request.trailers["x-checksum"]), (1, &"7".parse().unwrap()));
    assert_eq!(request.body, "{\"user\":{}}");
    assert_eq!(send("Trailer: X-Other\r\n", "X-Checksum: 7\r\n"), 200);
    assert!(last(&mx).trailers.is_empty());
    assert_eq!(send("Trailer: X-Api-Key\r\nTrailer:\r\n", ""), 200);
    assert!(!last(&mx).headers.contains_key("trailer"));
    let received = mx.received();
    assert_eq!(send("Trailer: Authorization\r\n", "Authorization: Basic evil\r\n"), 400);
    assert!(mx.received() == received || last(&mx).trailers.is_empty());
}

#[test]
fn answer_trailers_pass_to_callers_that_take_them() {
    let (_mx, gateway) = started();
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 7\r\n\r\n";
    let with = raw(&gateway, "TE: trailers\nConnection: te", answer);
    assert_eq!((with.text().as_str(), with.all("trailer:x-sum")), ("hello", vec!["7"]));
    let without = raw(&gateway, "", answer);
    assert_eq!((without.text().as_str(), without.all("trailer:x-sum")), ("hello", vec![]));
    assert!(with.whole && without.whole);
}

#[test]
fn te_says_trailers_and_nothing_else() {
    let (mx, gateway) = started();
    for (own, sent) in [
        ("TE: gzip, trailers", true),
        ("TE: Trailers", true),
        ("TE: gzip;q=0.5", false),
        ("X-TE: trailers", false),
    ] {
        assert_eq!(gateway.get("/users", &format!("{own}\nConnection: te")).status, 200);
        let headers = &last(&mx).headers;
        assert_eq!(headers.get("te").map(|te| te == "trailers"), sent.then_some(true), "{own}");
        assert_eq!(headers.get("connection").map(|named| named == "te"), sent.then_some(true), "{own}");
    }
}

#[test]
fn the_answer_to_head_has_the_length_and_no_body() {
    let (mx, gateway) = started();
    let mut client = gateway.connect();
    client.request("GET /users HTTP/1.1", "");
    let get = client.answer();
    for _ in 0..3 {
        client.request("HEAD /users HTTP/1.1", "");
        let head = client.answer_to_head();
        assert_eq!((head.status, head.header("content-length")), (200, get.header("content-length")));
        assert_eq!(head.header("content-type"), get.header("content-type"));
    }
    client.request("HEAD /users HTTP/1.1\nx-stand-in-chunked: true", "");
    let head = client.answer_to_head();
    assert_eq!((head.status, head.header("content-length")), (200, None));
    // An encoding needs a body to hide something in.
    client.request("HEAD /users HTTP/1.1\nx-stand-in-gzip: true", "");
    assert_eq!(client.answer_to_head().status, 200);
    // Nothing of them is left on the connection, nor on the upstream's.
    client.request("GET /users HTTP/1.1", "");
    assert!(client.answer().json()["users"].is_array());
    assert_eq!((mx.connections(), last(&mx).method.as_str()), (1, "GET"));
    client.request("HEAD /no/such HTTP/1.1", "");
    assert_eq!(client.answer_to_head().status, 404);
    client.request("GET /users HTTP/1.1", "");
    assert_eq!(client.answer().status, 200);
}

#[test]
fn statuses_without_a_body_have_none() {
    let (mx, gateway) = started();
    let mut client = gateway.connect();
    for status in [204, 304, 204] {
        client.request(
            &format!("GET /users HTTP/1.1\nx-stand-in-status: {status}\nx-stand-in-header: ETag: \"7\""),
            "",
        );
        let answer = client.answer();
        assert_eq!(
            (answer.status, answer.header("etag"), answer.header("transfer-encoding")),
            (status, Some("\"7\""), None)
        );
    }
    client.request("GET /users HTTP/1.1", "");
    assert_eq!(client.answer().status, 200);
    assert_eq!(mx.connections(), 1, "each left its connection clean");
    for (answer, status) in [
        ("HTTP/1.1 304 Not Modified\r\nETag: \"7\"\r\nContent-Length: 500\r\n\r\n", 304),
        ("HTTP/1.1 204 No Content\r\n\r\n", 204),
        ("HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", 205),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc", 502),
        ("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 502),
    ] {
        client
            .request(&format!("GET /users HTTP/1.1\nx-stand-in-raw: {}", BASE64_STANDARD.encode(answer)), "");
        let got = client.answer();
        assert_eq!((got.status, got.body.is_empty()), (status, status != 502), "{answer}");
        client.request("GET /users HTTP/1.1", "");
        assert_eq!(client.answer().status, 200, "after {answer}");
    }
}

#[test]
fn an_answer_without_a_length_ends_where_its_connection_does() {
    let (mx, gateway) = started();
    let mut client = gateway.connect();
    for head in ["HTTP/1.0 200 OK", "HTTP/1.1 200 OK", "HTTP/1.1 200"] {
        let answer = BASE64_STANDARD.encode(format!("{head}\r\nContent-Type: text/plain\r\n\r\nhello"));
        client.request(&format!("GET /users HTTP/1.1\nx-stand-in-raw: {answer}"), "");
        let got = client.answer();
        assert_eq!((got.status, got.text().as_str(), got.whole), (200, "hello", true), "{head}");
        // So that the caller can see a cut, which the upstream's framing does not show.
        assert_eq!(got.header("transfer-encoding"), Some("chunked"));
    }
    assert_eq!(mx.connections(), 3, "none was used again");
}

#[test]
fn an_odd_reason_phrase_does_not_come_through() {
    let (_mx, gateway) = started();
    let mut client = gateway.connect();
    let answer =
        "HTTP/1.1 200 k3y-of-the-test-environment\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
    client.request(
        &format!(
            "GET /users HTTP/1.1\nConnection: close\nx-stand-in-raw: {}",
            BASE64_STANDARD.encode(answer)
        ),
        "",
    );
    let all = String::from_utf8_lossy(&client.rest()).into_owned();
    assert!(all.starts_with("HTTP/1.1 200 OK\r\n") && all.ends_with("\r\n\r\nok"), "{all}");
    assert!(!all.contains("k3y"), "{all}");
}

#[test]
fn a_caller_that_expects_100_gets_it_before_it_sends_its_body() {
    let (mx, gateway) = started();
    let mut client = gateway.connect();
    for framing in ["Content-Length: 11", "Transfer-Encoding: chunked"] {
        client.request(&format!("POST /users HTTP/1.1\nExpect: 100-continue\n{framing}"), "");
        let interim = client.one_answer(false);
        assert_eq!(interim.status, 100);
        match framing {
            "Content-Length: 11" => client.raw(b"{\"user\":{}}"),
            _ => client.raw(b"b\r\n{\"user\":{}}\r\n0\r\n\r\n"),
        }
        assert_eq!(client.one_answer(false).status, 200);
        assert_eq!(last(&mx).body, "{\"user\":{}}");
        assert!(!last(&mx).headers.contains_key("expect"));
    }
    // Who does not ask gets none.
    client.request("POST /users HTTP/1.1", "{\"user\":{}}");
    assert_eq!(client.one_answer(false).status, 200);
}

#[test]
fn a_refusal_comes_without_100() {
    let (mx, gateway) = started();
    for (line, fields, status) in [
        ("POST /no/such", "Content-Length: 11\nExpect: 100-continue", 404),
        ("POST /clients", "Content-Length: 11\nExpect: 100-continue", 403),
        ("POST /users", "Content-Length: 100000000\nExpect: 100-continue", 413),
        ("POST /users", "Content-Length: 11\nExpect: 200-ok", 417),
        ("POST /users", "Content-Length: 11\nExpect: 100-continue, 100-continue", 417),
        ("POST /users", "Content-Length: 11\nExpect: 100-continue\nExpect: 100-continue", 417),
        ("GET /users", "Expect: x", 417),
    ] {
        let mut client = gateway.connect();
        client.request(&format!("{line} HTTP/1.1\n{fields}"), "");
        assert_eq!(client.one_answer(false).status, status, "{line} {fields}");
        assert_eq!(client.rest(), b"", "and the connection ends, since the body may come or not");
    }
    assert_eq!(mx.received(), 0);
}

#[test]
fn interim_answers_are_swallowed_and_101_is_a_failure() {
    let (mx, gateway) = started();
    let mut client = gateway.connect();
    for status in [102, 103, 199] {
        client.request(&format!("GET /users HTTP/1.1\nx-stand-in-informational: {status}"), "");
        let answer = client.one_answer(false);
        assert_eq!((answer.status, answer.header("x-stand-in")), (200, None), "{status}");
        assert!(answer.json()["users"].is_array());
    }
    assert_eq!(mx.connections(), 1);
    let continued = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let answer = raw(&gateway, "", continued);
    assert_eq!((answer.status, answer.text().as_str(), answer.header("link")), (200, "ok", None));
    let switched = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let answer = raw(&gateway, "Connection: upgrade\nUpgrade: websocket", switched);
    assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_malformed"));
    assert!(!last(&mx).headers.contains_key("upgrade"));
}

/// A way between the gateway and the stand-in that counts, and can be held.
struct Relay {
    address: SocketAddr,
    state: Arc<RelayState>,
}

#[derive(Default)]
struct RelayState {
    to_upstream: AtomicU64,
    to_gateway: AtomicU64,
    /// Whether nothing is read from the gateway after the first bytes.
    is_held: Mutex<bool>,
    changed: Condvar,
}

impl Relay {
    fn to(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let state = Arc::new(RelayState::default());
        let shared = state.clone();
        thread::spawn(move || {
            for gateway in listener.incoming().map_while(Result::ok) {
                let Ok(upstream) = TcpStream::connect(upstream) else { return };
                let (state, from, to) =
                    (shared.clone(), gateway.try_clone().unwrap(), upstream.try_clone().unwrap());
                thread::spawn(move || state.pass(from, to, |state| &state.to_upstream, true));
                let state = shared.clone();
                thread::spawn(move || state.pass(upstream, gateway, |state| &state.to_gateway, false));
            }
        });
        Self { address, state }
    }

    fn hold(&self, is_held: bool) {
        *self.state.is_held.lock().unwrap() = is_held;
        self.state.changed.notify_all();
    }
}

impl RelayState {
    fn pass(
        &self,
        mut from: TcpStream,
        mut to: TcpStream,
        count: impl Fn(&Self) -> &AtomicU64,
        can_hold: bool,
    ) {
        let mut piece = [0; 16 << 10];
        loop {
            if can_hold {
                let held = self.is_held.lock().unwrap();
                drop(self.changed.wait_while(held, |held| *held).unwrap());
            }
            match from.read(&mut piece) {
                Ok(read @ 1..) => {
                    if to.write_all(&piece[..read]).is_err() {
                        return;
                    }
                    count(self).fetch_add(read as u64, SeqCst);
                }
                _ => {
                    // One side is done; the other is told.
                    let _ = to.shutdown(std::net::Shutdown::Write);
                    return;
                }
            }
        }
    }
}

const LARGE: usize = 64 << 20;
/// Socket buffers on both sides of the gateway, and then some.
const IN_FLIGHT_MAX: u64 = 40 << 20;
const GROWTH_MAX: u64 = 12 << 20;

fn relayed() -> (Running, Relay, Gateway) {
    let mx = mx_with(|options| options.body_bytes_max = LARGE + 1);
    let relay = Relay::to(mx.address());
    let mut setup = Setup::new(&mx);
    setup.environments = setup.environment("test", relay.address);
    let gateway = setup.table(&format!("[limits]\nbody_bytes_max = {LARGE}\n[process]\nworkers = 1")).start();
    (mx, relay, gateway)
}

#[test]
fn a_caller_that_does_not_read_stops_the_upstream_and_loses_nothing() {
    let (_mx, relay, gateway) = relayed();
    assert_eq!(gateway.get("/users", "").status, 200);
    let before = gateway.resident();
    let mut client = gateway.connect();
    client.request(&format!("GET /users HTTP/1.1\nx-stand-in-big: {LARGE}\nx-stand-in-tag: lines"), "");
    // Other requests give the worker time to read far ahead, if it did: it stands still when none of them
    // finds that more has come.
    let mut passed = 0;
    wait_until(|| {
        assert_eq!(gateway.get("/users", "x-stand-in-big: 1000000\nx-stand-in-slow-head: 20").status, 200);
        let now = relay.state.to_gateway.load(SeqCst);
        let grown = now - passed;
        passed = now;
        grown < 1_100_000
    });
    assert!(passed < IN_FLIGHT_MAX, "{passed} bytes were read for a caller that takes none");
    let grown = gateway.resident().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{grown} bytes more memory");
    let answer = client.answer();
    assert!(answer.whole && answer.body == expected_lines("lines\n", LARGE), "{} bytes", answer.body.len());
}

#[test]
fn an_upstream_that_does_not_read_stops_the_caller_and_loses_nothing() {
    let (mx, relay, gateway) = relayed();
    assert_eq!(gateway.get("/users", "").status, 200);
    let before = gateway.resident();
    relay.hold(true);
    let body = noise(LARGE);
    let mut client = gateway.connect();
    client.request(&format!("POST /users HTTP/1.1\nx-stand-in-echo: true\nContent-Length: {LARGE}"), "");
    let stream = client.stream.try_clone().expect("a second handle");
    stream.set_write_timeout(Some(Duration::from_secs(1))).expect("a time-out");
    let sent = write_until_stuck(&stream, &body);
    assert!((sent as u64) < IN_FLIGHT_MAX, "{sent} bytes were taken for an upstream that takes none");
    let grown = gateway.resident().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{grown} bytes more memory");
    relay.hold(false);
    stream.set_write_timeout(Some(PATIENCE)).expect("a time-out");
    client.raw(&body[sent..]);
    assert_eq!(client.answer().status, 200);
    assert!(last(&mx).body == body, "other bytes than were sent");
}

/// Writes until nothing more is taken for the stream's time-out; how much was.
fn write_until_stuck(mut stream: &TcpStream, bytes: &[u8]) -> usize {
    let mut sent = 0;
    while sent < bytes.len() {
        match stream.write(&bytes[sent..]) {
            Ok(count) => sent += count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) => panic!("{error}"),
        }
    }
    sent
}

fn wait_until(mut done: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + PATIENCE;
    while !done() {
        assert!(std::time::Instant::now() < end, "not within {PATIENCE:?}");
    }
}

#[test]
fn a_connection_of_an_old_caller_gets_an_answer_it_can_read() {
    let (mx, gateway) = started();
    let mut client = Client::connect(gateway.addresses[0]);
    client.raw(b"GET /users HTTP/1.0\r\nHost: localhost\r\nx-stand-in-chunked: true\r\n\r\n");
    let text = String::from_utf8_lossy(&client.rest()).into_owned();
    // RFC 9112, 7: no chunks for HTTP/1.0; the end of the connection ends the body.
    assert!(text.starts_with("HTTP/1.") && !text.to_lowercase().contains("transfer-encoding"), "{text}");
    assert!(text.ends_with('}'), "{text}");
    assert_eq!(last(&mx).headers["via"], "1.1 mxgate");
}
