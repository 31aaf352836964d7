//! Faults on either side: connections that MX closes, bodies that are too large.
//!
//! What a fault may cost is counted where it hurts: requests where they arrive, connections where they close.

use std::{
    collections::HashMap,
    io::{self, Write as _},
    sync::{Arc, Mutex, mpsc},
};

use crate::{
    harness::{Client, PATIENCE, Setup, until},
    raw_upstream::{RawUpstream, Wire, ok},
};

const ONE_WORKER: &str = "[process]\nworkers = 1";

const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

/// MX's API has no PATCH: another one, with every method.
fn every_method(upstream: &RawUpstream) -> Setup {
    let paths = METHODS.map(|method| format!("\"{method} /things/{{id}}\"")).join(", ");
    upstream.setup().in_environment(&format!("paths = [{paths}]"))
}

fn is_repeatable(method: &str) -> bool {
    matches!(method, "GET" | "HEAD")
}

// ---- Connections that MX closes ----

/// What becomes of a connection after its first answer.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Break {
    when: When,
    how: How,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum When {
    /// Before there is a second request.
    Between,
    /// When the second request's head has come, and nothing of its body was read.
    AfterHead,
    /// When the second request has come whole.
    AfterRequest,
    /// Half an answer's head later.
    InAnswersHead,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum How {
    Notify,
    Fin,
    Reset,
}

fn every_break() -> impl Iterator<Item = Break> {
    let whens = [When::Between, When::AfterHead, When::AfterRequest, When::InAnswersHead];
    whens.into_iter().flat_map(|when| [How::Notify, How::Fin, How::Reset].map(|how| Break { when, how }))
}

/// Serves; a connection that has served `/things/first` breaks as `present` says. Counts what arrives, by path.
fn breaking(present: Arc<Mutex<Break>>) -> (RawUpstream, Arc<Mutex<HashMap<String, u32>>>) {
    let arrived = Arc::new(Mutex::new(HashMap::new()));
    let counts = arrived.clone();
    let upstream = RawUpstream::start(move |_, wire| {
        let mut breaks = None;
        loop {
            if let Some(Break { when: When::Between, how }) = breaks {
                return end(wire, how);
            }
            let head = wire.head()?;
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            *counts.lock().unwrap().entry(path.clone()).or_insert(0) += 1;
            if let Some(Break { when: When::AfterHead, how }) = breaks {
                return end(wire, how);
            }
            body_of(wire, &head)?;
            match breaks {
                Some(Break { when: When::InAnswersHead, how }) => {
                    wire.say("HTTP/1.1 200 OK\r\nContent-Le")?;
                    return end(wire, how);
                }
                Some(Break { how, .. }) => return end(wire, how),
                None if head.starts_with("HEAD") => {
                    wire.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")?
                }
                None => wire.say(ok("{}"))?,
            }
            breaks = (path == "/things/first").then(|| *present.lock().unwrap());
        }
    });
    (upstream, arrived)
}

fn end(wire: &mut Wire, how: How) -> io::Result<()> {
    match how {
        How::Notify => wire.close_notify()?,
        How::Fin => {}
        How::Reset => wire.reset(),
    }
    Ok(())
}

fn body_of(wire: &mut Wire, head: &str) -> io::Result<Vec<u8>> {
    let field = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    };
    match field("content-length").map(|length| length.parse().unwrap()) {
        Some(length) => wire.body(length),
        None if field("transfer-encoding").is_some() => wire.chunks(),
        None => Ok(Vec::new()),
    }
}

fn ask(client: &mut Client, method: &str, path: &str) -> (u16, String) {
    let body = if matches!(method, "POST" | "PUT" | "PATCH") { "{\"thing\":{}}" } else { "" };
    client.request(&format!("{method} {path} HTTP/1.1"), body);
    let answer = if method == "HEAD" { client.answer_to_head() } else { client.answer() };
    if answer.header("connection") == Some("close") {
        *client = Client::connect(client.stream.peer_addr().unwrap());
    }
    (answer.status, answer.code())
}

#[test]
fn whenever_and_however_a_pooled_connection_breaks_nothing_arrives_twice_that_may_not() {
    let present = Arc::new(Mutex::new(Break { when: When::Between, how: How::Fin }));
    let (upstream, arrived) = breaking(present.clone());
    let gateway = every_method(&upstream).table(ONE_WORKER).start();
    let mut client = gateway.connect();
    let mut number = 0;
    for wanted in every_break() {
        *present.lock().unwrap() = wanted;
        for method in METHODS {
            for round in 0..3 {
                number += 1;
                let path = format!("/things/{number}");
                let what = format!("{method} {wanted:?} {round}");
                let ended = upstream.ended();
                assert_eq!(ask(&mut client, "GET", "/things/first").0, 200, "{what}");
                if wanted.when == When::Between && round > 0 {
                    // Closed before the request: the kernel knows, so even what may not be repeated succeeds.
                    upstream.wait_for_ends(ended + 1);
                }
                let answer = ask(&mut client, method, &path);
                let count = arrived.lock().unwrap().get(&path).copied().unwrap_or_default();
                match wanted.when {
                    _ if is_repeatable(method) => {
                        assert_eq!(answer.0, 200, "{what}");
                        let most = if wanted.when == When::Between { 1 } else { 2 };
                        assert!((1..=most).contains(&count), "{what}: {count} times");
                    }
                    // The first round races with the close.
                    When::Between if round == 0 && answer.0 == 502 => {
                        assert_eq!((answer.1.as_str(), count), ("upstream_closed", 0), "{what}");
                    }
                    When::Between => assert_eq!((answer.0, count), (200, 1), "{what}"),
                    _ => assert_eq!(
                        (answer.0, answer.1.as_str(), count),
                        (502, "upstream_closed", 1),
                        "{what}"
                    ),
                }
            }
        }
    }
    assert_eq!(number, 12 * 6 * 3);
}

#[test]
fn what_timed_out_is_never_asked_again_however_its_connection_ends() {
    for (setting, code) in
        [("first_byte_timeout_ms = 300", "first_byte_timeout"), ("total_timeout_ms = 300", "total_timeout")]
    {
        for how in [How::Fin, How::Reset] {
            let arrived = Arc::new(Mutex::new(HashMap::<String, u32>::new()));
            let counts = arrived.clone();
            let upstream = RawUpstream::start(move |_, wire| {
                loop {
                    let head = wire.head()?;
                    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                    *counts.lock().unwrap().entry(path.clone()).or_insert(0) += 1;
                    body_of(wire, &head)?;
                    if !path.starts_with("/things/first") {
                        // The gateway gives it up; then it ends here, too.
                        wire.peer_leaves();
                        return end(wire, how);
                    }
                    wire.say(ok("{}"))?;
                }
            });
            let gateway = every_method(&upstream).in_environment(setting).table(ONE_WORKER).start();
            // A pooled connection for each, so that none has a fresh one's reason not to be repeated.
            let mut clients: Vec<_> = METHODS.iter().map(|_| gateway.connect()).collect();
            for client in &mut clients {
                client.request("GET /things/first HTTP/1.1", "");
            }
            for client in &mut clients {
                assert_eq!(client.answer().status, 200);
            }
            for (client, method) in clients.iter_mut().zip(METHODS) {
                let body = if matches!(method, "POST" | "PUT" | "PATCH") { "{}" } else { "" };
                client.request(&format!("{method} /things/{method} HTTP/1.1"), body);
            }
            for (client, method) in clients.iter_mut().zip(METHODS) {
                if method == "HEAD" {
                    assert_eq!(client.answer_to_head().status, 504);
                } else {
                    let answer = client.answer();
                    assert_eq!((answer.status, answer.code().as_str()), (504, code), "{method}");
                }
            }
            until("each is over", || gateway.metric("mxgate_upstream_connections_open ") <= 5.0);
            assert_eq!(gateway.get("/things/first", "").status, 200);
            let arrived = arrived.lock().unwrap();
            for method in METHODS {
                assert_eq!(arrived.get(&format!("/things/{method}")), Some(&1), "{method} {how:?} {setting}");
            }
        }
    }
}

// ---- Bodies that are too large ----

#[test]
fn the_size_limit_is_the_same_for_every_way_to_send_a_body() {
    const MOST: usize = 1_000;
    let (tell, wholes) = mpsc::channel();
    let tell = Mutex::new(tell);
    let upstream = RawUpstream::start(move |_, wire| {
        loop {
            let head = wire.head()?;
            let body = body_of(wire, &head)?;
            tell.lock().unwrap().send(body.len()).map_err(io::Error::other)?;
            wire.say(ok("{}"))?;
        }
    });
    let gateway = upstream.setup().table(&format!("[limits]\nbody_bytes_max = {MOST}")).start();
    for size in [MOST - 1, MOST, MOST + 1, 50 * MOST] {
        for chunk in [None, Some(usize::MAX), Some(7)] {
            for expects in [false, true] {
                let what = format!("{size} bytes, chunks of {chunk:?}, Expect: {expects}");
                let fits = size <= MOST;
                let mut client = gateway.connect();
                let framing = match chunk {
                    None => format!("Content-Length: {size}\r\n"),
                    Some(_) => "Transfer-Encoding: chunked\r\n".into(),
                };
                let expect = if expects { "Expect: 100-continue\r\n" } else { "" };
                client.raw(
                    format!("POST /users HTTP/1.1\r\nHost: localhost\r\n{framing}{expect}\r\n").as_bytes(),
                );
                let refused_before_100 = !fits && chunk.is_none();
                if expects && !refused_before_100 {
                    assert_eq!(client.one_answer(false).status, 100, "{what}");
                }
                if !(expects && refused_before_100) {
                    // It is refused in the middle, and then nobody may be there to take the rest.
                    let _ = client.stream.write_all(&body(size, chunk));
                }
                let answer = client.one_answer(false);
                if fits {
                    assert_eq!(answer.status, 200, "{what}");
                    assert_eq!(wholes.recv_timeout(PATIENCE), Ok(size), "{what}");
                } else {
                    let told = (answer.status, answer.code(), answer.header("connection").map(str::to_owned));
                    assert_eq!(told, (413, "body_too_large".into(), Some("close".into())), "{what}");
                    assert_eq!(client.rest(), b"", "{what}");
                }
            }
        }
    }
    // Whatever began to be sent on has ended, and was never whole.
    drop(gateway);
    upstream.wait_for_ends(upstream.connections());
    assert_eq!(wholes.try_recv(), Err(mpsc::TryRecvError::Empty), "a body that was refused arrived whole");
}

fn body(size: usize, chunk: Option<usize>) -> Vec<u8> {
    let whole = vec![b' '; size];
    let Some(chunk) = chunk else { return whole };
    let mut text = Vec::new();
    for piece in whole.chunks(chunk) {
        text.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        text.extend_from_slice(piece);
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"0\r\n\r\n");
    text
}
