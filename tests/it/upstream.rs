//! The upstream's side: its pool, its time-outs and its faults.

use std::{
    io::{self, Read, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    free_address::free_address,
    harness::{Answer, Client, Gateway, PATIENCE, Setup, mx},
    raw_upstream::{RawUpstream, ok},
};

const ONE_WORKER: &str = "[process]\nworkers = 1";
const GET: &str = "GET /users HTTP/1.1";
const POST: &str = "POST /users HTTP/1.1\nContent-Type: application/json";

fn verdict(answer: &Answer) -> (u16, String) {
    (answer.status, answer.code())
}

/// The code of the record of the request that came last but is over.
fn recorded(gateway: &Gateway, code: &str) {
    gateway.record(|record| record["code"] == code);
}

// ---- the pool ----

#[test]
fn a_connection_serves_one_request_after_another() {
    let mx = mx();
    let gateway = Setup::new(&mx).table(ONE_WORKER).start();
    for _ in 0..3 {
        let mut client = gateway.connect();
        for _ in 0..5 {
            client.request(GET, "");
            assert_eq!(client.answer().status, 200);
            client.request(POST, r#"{"user":{"id":"1"}}"#);
            assert_eq!(client.answer().status, 200);
            client.request("HEAD /users HTTP/1.1", "");
            client.answer_to_head();
            client.request("GET /users HTTP/1.1\nx-stand-in-chunked: true", "");
            assert!(client.answer().whole);
        }
    }
    assert_eq!((mx.received(), mx.connections()), (60, 1));
}

/// Answers one request each time that it is told to, and knows how many it holds.
fn held() -> (RawUpstream, mpsc::Sender<()>, Arc<AtomicUsize>) {
    let (go, wait) = mpsc::channel::<()>();
    let (wait, most) = (Mutex::new(wait), Arc::new(AtomicUsize::new(0)));
    let (open, seen) = (AtomicUsize::new(0), most.clone());
    let upstream = RawUpstream::start(move |_, wire| {
        seen.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let served = (|| {
            loop {
                wire.head()?;
                let told = wait.lock().unwrap().recv_timeout(PATIENCE);
                told.map_err(io::Error::other)?;
                wire.say(ok("{}"))?;
            }
        })();
        open.fetch_sub(1, Ordering::SeqCst);
        served
    });
    (upstream, go, most)
}

#[test]
fn the_cap_holds_for_all_workers_together_and_who_waits_is_served() {
    let (upstream, go, most) = held();
    let gateway =
        upstream.setup().in_environment("connections_max = 3").table("[process]\nworkers = 2").start();
    let mut callers: Vec<Client> = (0..12).map(|_| gateway.connect()).collect();
    callers.iter_mut().for_each(|caller| caller.request(GET, ""));
    (0..12).for_each(|_| go.send(()).unwrap());
    for caller in &mut callers {
        assert_eq!(caller.answer().status, 200);
    }
    assert_eq!(most.load(Ordering::SeqCst), 3);
    assert_eq!(upstream.connections(), 3);
}

#[test]
fn who_waits_too_long_for_a_connection_is_told_so_and_the_others_are_not_harmed() {
    let (upstream, go, most) = held();
    let settings = "connections_max = 2\nconnect_timeout_ms = 100";
    let gateway = upstream.setup().in_environment(settings).table(ONE_WORKER).start();
    let mut first = [gateway.connect(), gateway.connect()];
    first.iter_mut().for_each(|caller| caller.request(GET, ""));
    wait_until(|| upstream.requests() == 2);
    let late = gateway.get("/users", "");
    assert_eq!(verdict(&late), (503, "upstream_busy".into()));
    (0..3).for_each(|_| go.send(()).unwrap());
    first.iter_mut().for_each(|caller| assert_eq!(caller.answer().status, 200));
    assert_eq!(gateway.get("/users", "").status, 200);
    assert_eq!((upstream.requests(), most.load(Ordering::SeqCst)), (3, 2));
}

#[test]
fn a_caller_that_leaves_the_line_makes_no_one_behind_it_wait() {
    let (upstream, go, _) = held();
    let gateway = upstream.setup().in_environment("connections_max = 1").table(ONE_WORKER).start();
    let mut first = gateway.connect();
    first.request(GET, "");
    wait_until(|| upstream.requests() == 1);
    let mut gone = gateway.connect();
    gone.request(GET, "");
    wait_until(|| gateway.metric("mxgate_caller_connections_open ") >= 2.0);
    let mut behind = gateway.connect();
    behind.request(GET, "");
    wait_until(|| gateway.metric("mxgate_caller_connections_open ") >= 3.0);
    drop(gone);
    gateway.record(|record| record["decision"] == "aborted");
    (0..2).for_each(|_| go.send(()).unwrap());
    assert_eq!((first.answer().status, behind.answer().status), (200, 200));
    assert_eq!((upstream.requests(), upstream.connections()), (2, 1));
}

/// Each write is a TLS record and a packet, some 80 bytes beside the one.
#[test]
fn chunks_of_one_byte_are_gathered() {
    const BYTES: usize = 5_000;
    let (told, wire_bytes) = mpsc::channel();
    let upstream = RawUpstream::start(move |_, wire| {
        wire.head()?;
        let mut raw = Vec::new();
        while !raw.ends_with(b"0\r\n\r\n") {
            raw.extend(wire.body(1)?);
        }
        told.send(raw.len()).map_err(io::Error::other)?;
        wire.say(ok("{}"))
    });
    let gateway = upstream.setup().table(ONE_WORKER).start();
    let mut client = gateway.connect();
    let head = "POST /users HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.raw(format!("{head}{}0\r\n\r\n", "1\r\n \r\n".repeat(BYTES)).as_bytes());
    assert_eq!(client.answer().status, 200);
    let wire_bytes = wire_bytes.recv_timeout(PATIENCE).unwrap();
    assert!((BYTES..BYTES + BYTES / 10).contains(&wire_bytes), "{wire_bytes}");
}

/// Half a record is no data yet, and its other half would be read as the answer to what is asked next.
#[test]
fn a_connection_on_which_half_a_record_waits_is_not_used_again() {
    for method in [GET, POST] {
        let (came, heard) = mpsc::channel();
        let upstream = RawUpstream::start(move |number, wire| {
            wire.head()?;
            if number > 0 {
                return wire.say(ok("second"));
            }
            // Once with the answer, once behind it.
            let rest = match method {
                GET => wire.say_and_half_of(&ok("first"), &ok("evil"))?,
                _ => {
                    wire.body(2)?;
                    wire.say(ok("first"))?;
                    wire.say_and_half_of("", &ok("evil"))?
                }
            };
            came.send(()).map_err(io::Error::other)?;
            wire.head()?;
            wire.tls.sock.write_all(&rest)?;
            wire.say(ok("second"))
        });
        let gateway = upstream.setup().table(ONE_WORKER).start();
        let mut client = gateway.connect();
        for expected in ["first", "second"] {
            client.request(method, if method == POST { "{}" } else { "" });
            assert_eq!(client.answer().text(), expected);
            if expected == "first" {
                heard.recv_timeout(PATIENCE).unwrap();
            }
        }
        assert_eq!(upstream.connections(), 2, "{method}");
    }
}

/// More of them than one turn of a task may look at, as the event loop counts.
#[test]
fn however_many_pooled_connections_have_ended_a_post_gets_one_that_lives() {
    const MANY: usize = 300;
    let all = Arc::new(Barrier::new(MANY));
    let upstream = RawUpstream::start(move |number, wire| {
        wire.head()?;
        if number < MANY {
            all.wait();
            return wire.say(ok("pooled"));
        }
        wire.say(ok("new"))
    });
    let settings = format!("connections_max = {}", 2 * MANY);
    let gateway = upstream.setup().in_environment(&settings).table(ONE_WORKER).start();
    let mut callers: Vec<Client> = (0..MANY).map(|_| gateway.connect()).collect();
    callers.iter_mut().for_each(|caller| caller.request(GET, ""));
    callers.iter_mut().for_each(|caller| assert_eq!(caller.answer().text(), "pooled"));
    upstream.wait_for_ends(MANY);
    let mut client = gateway.connect();
    client.request(POST, "{}");
    let answer = client.answer();
    assert_eq!((answer.status, answer.text().as_str()), (200, "new"));
    assert_eq!(upstream.connections(), MANY + 1);
}

#[test]
fn an_unused_connection_is_closed_after_its_time() {
    let upstream = RawUpstream::start(|_, wire| wire.say_always(ok("{}")));
    let gateway = upstream.setup().in_environment("pool_idle_timeout_ms = 100").table(ONE_WORKER).start();
    assert_eq!(gateway.get("/users", "").status, 200);
    upstream.wait_for_ends(1);
    assert_eq!(gateway.get("/users", "").status, 200);
    assert_eq!(upstream.connections(), 2);
}

#[test]
fn no_connection_is_used_beyond_its_age() {
    let upstream = RawUpstream::start(|_, wire| wire.say_always(ok("{}")));
    let gateway = upstream.setup().in_environment("connection_age_max_ms = 1000").table(ONE_WORKER).start();
    let mut client = gateway.connect();
    let mut ask = || {
        client.request(GET, "");
        assert_eq!(client.answer().status, 200);
    };
    ask();
    let begin = Instant::now();
    wait_until(|| {
        ask();
        upstream.connections() == 2
    });
    assert!(begin.elapsed() >= Duration::from_millis(900), "{:?}", begin.elapsed());
    upstream.wait_for_ends(1);
}

// ---- time-outs ----

#[test]
fn an_upstream_that_takes_no_connection_is_a_connect_time_out() {
    // A full backlog: the kernel leaves further connections without an answer.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        queued.push(stream);
    }
    let mx = mx();
    let gateway = Setup::at(address, mx.authority_pem()).in_environment("connect_timeout_ms = 100").start();
    assert_eq!(verdict(&gateway.get("/users", "")), (504, "connect_timeout".into()));
}

#[test]
fn an_upstream_that_does_not_begin_tls_is_a_connect_time_out() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mx = mx();
    let gateway = Setup::at(silent.local_addr().unwrap(), mx.authority_pem())
        .in_environment("tls_timeout_ms = 100")
        .start();
    assert_eq!(verdict(&gateway.get("/users", "")), (504, "connect_timeout".into()));
}

#[test]
fn an_upstream_that_refuses_or_hangs_up_is_unreachable() {
    let mx = mx();
    let free = free_address();
    let gateway = Setup::at(free, mx.authority_pem()).start();
    assert_eq!(verdict(&gateway.get("/users", "")), (502, "upstream_unreachable".into()));

    let rude = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = rude.local_addr().unwrap();
    thread::spawn(move || rude.incoming().for_each(drop));
    let gateway = Setup::at(address, mx.authority_pem()).start();
    assert_eq!(verdict(&gateway.get("/users", "")), (502, "upstream_unreachable".into()));
}

#[test]
fn an_answer_that_does_not_begin_in_time_is_given_up_and_never_asked_for_again() {
    let upstream = RawUpstream::start(|_, wire| {
        wire.head()?;
        wire.say(ok("{}"))?;
        wire.head()?;
        wire.peer_leaves();
        Ok(())
    });
    let gateway = upstream.setup().in_environment("first_byte_timeout_ms = 100").table(ONE_WORKER).start();
    assert_eq!(gateway.get("/users", "").status, 200);
    assert_eq!(verdict(&gateway.get("/users", "")), (504, "first_byte_timeout".into()));
    upstream.wait_for_ends(1);
    assert_eq!((upstream.requests(), upstream.connections()), (2, 1));
}

#[test]
fn a_long_upload_does_not_count_as_waiting_for_the_answer() {
    let upstream = RawUpstream::start(|_, wire| {
        wire.head()?;
        wire.body(12)?;
        wire.say(ok("{}"))
    });
    let gateway = upstream.setup().in_environment("first_byte_timeout_ms = 1000").start();
    let mut client = gateway.connect();
    client.raw(b"POST /users HTTP/1.1\r\nHost: localhost\r\nContent-Length: 12\r\n\r\n");
    // Each byte is later than half the time-out; together they take three times as long.
    for _ in 0..6 {
        wait(Duration::from_millis(550));
        client.raw(b"12");
    }
    assert_eq!(client.answer().status, 200);
}

#[test]
fn an_answer_that_stops_in_its_middle_is_cut_off() {
    let upstream = RawUpstream::start(|_, wire| {
        wire.head()?;
        wire.say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")?;
        wire.peer_leaves();
        Ok(())
    });
    let gateway = upstream.setup().in_environment("idle_timeout_ms = 100").start();
    let answer = gateway.get("/users", "");
    assert_eq!((answer.status, answer.text().as_str(), answer.whole), (200, "half", false));
    recorded(&gateway, "upstream_idle_timeout");
    upstream.wait_for_ends(1);
}

#[test]
fn an_answer_that_goes_on_for_ever_is_cut_off_at_the_total() {
    let mx = mx();
    let settings = "idle_timeout_ms = 400\ntotal_timeout_ms = 1000";
    let gateway = Setup::new(&mx).in_environment(settings).start();
    let lines = "x-stand-in-big: 1000000\nx-stand-in-piece: 10\nx-stand-in-slow-body: 20";
    let begin = Instant::now();
    let answer = gateway.get("/users", lines);
    assert!(!answer.whole && !answer.body.is_empty());
    assert!(begin.elapsed() >= Duration::from_secs(1));
    recorded(&gateway, "total_timeout");
}

#[test]
fn a_slow_reader_is_not_blamed_on_the_upstream() {
    let mx = mx();
    let gateway = Setup::new(&mx).in_environment("idle_timeout_ms = 100").start();
    let mut client = gateway.connect();
    let bytes = 32 << 20;
    client.request(&format!("{GET}\nx-stand-in-big: {bytes}"), "");
    wait(Duration::from_millis(1500));
    let answer = client.answer();
    assert!(answer.whole);
    assert_eq!(answer.body.len(), bytes);
}

#[test]
fn a_reader_that_never_reads_is_let_go_at_the_total() {
    let upstream = RawUpstream::start(|_, wire| {
        wire.head()?;
        let body = "x".repeat(64 << 20);
        wire.say(ok(&body))
    });
    let settings = "first_byte_timeout_ms = 500\ntotal_timeout_ms = 1000";
    let gateway = upstream.setup().in_environment(settings).start();
    let mut client = gateway.connect();
    client.request(GET, "");
    recorded(&gateway, "total_timeout");
    upstream.wait_for_ends(1);
    assert!(!client.answer().whole);
}

// ---- faults ----

#[test]
fn an_answer_that_is_not_http_becomes_a_502_and_its_connection_is_not_used_again() {
    let malformed: &[&[u8]] = &[
        b"\x16\x03\x01 this is not HTTP \x00\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 200 OK\r\nX: a\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/2 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 999 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent Length: 0\r\n\r\n",
    ];
    let upstream = RawUpstream::start(|number, wire| {
        wire.head()?;
        match malformed.get(number) {
            Some(bytes) => wire.say(bytes)?,
            None => wire.say(ok("fine"))?,
        }
        wire.peer_leaves();
        Ok(())
    });
    let gateway = upstream.setup().table(ONE_WORKER).start();
    for bytes in malformed {
        let answer = gateway.get("/users", "");
        let text = String::from_utf8_lossy(bytes);
        assert_eq!(verdict(&answer), (502, "upstream_malformed".into()), "{text}");
    }
    assert_eq!(gateway.get("/users", "").text(), "fine");
    assert_eq!(upstream.connections(), malformed.len() + 1);
    upstream.wait_for_ends(malformed.len());
}

/// What the caller gets of an answer whose upstream says `text` and closes as `end` says, and what comes after it.
fn truncated(text: &'static str, end: End) -> (Answer, Vec<u8>) {
    let upstream = RawUpstream::start(move |number, wire| {
        wire.head()?;
        if number > 0 {
            return wire.say(ok("next"));
        }
        wire.say(text)?;
        match end {
            End::Fin => {}
            End::CloseNotify => wire.close_notify()?,
            End::Reset => wire.reset(),
            // Whoever expects more waits for the gateway.
            End::Stay => _ = wire.peer_leaves(),
        }
        Ok(())
    });
    let gateway = upstream.setup().table(ONE_WORKER).start();
    let mut client = gateway.connect();
    client.request(GET, "");
    let answer = client.answer();
    let left = if answer.whole { Vec::new() } else { client.rest() };
    upstream.wait_for_ends(1);
    assert_eq!(gateway.get("/users", "").text(), "next");
    (answer, left)
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum End {
    Fin,
    CloseNotify,
    Reset,
    Stay,
}

/// An HTTP/1.0 caller's view of the whole answer.
fn old_caller(gateway: &Gateway) -> io::Result<String> {
    let mut stream = TcpStream::connect(gateway.addresses[0])?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /users HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

#[test]
fn a_truncated_answer_never_looks_complete() {
    const LENGTH: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfive!";
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfive!\r\n";
    const HALF_CHUNK: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nfive!";
    const BAD_CHUNK: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfive!\r\nxyz\r\n\r\n";
    const BARE_LF: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfive!\r\n0\n\n";
    const TO_CLOSE: &str = "HTTP/1.1 200 OK\r\n\r\nfive!";
    for (text, end) in [
        (LENGTH, End::Fin),
        (LENGTH, End::CloseNotify),
        (LENGTH, End::Reset),
        (CHUNKED, End::Fin),
        (CHUNKED, End::CloseNotify),
        (CHUNKED, End::Reset),
        (HALF_CHUNK, End::CloseNotify),
        (BAD_CHUNK, End::Stay),
        (BARE_LF, End::Stay),
        (TO_CLOSE, End::Fin),
        (TO_CLOSE, End::Reset),
    ] {
        let (answer, left) = truncated(text, end);
        match answer.status {
            // All of it came at once, and the fault was found before the head was passed on.
            502 => assert!(["upstream_malformed", "upstream_closed"].contains(&answer.code().as_str())),
            status => assert_eq!((status, answer.whole, left.len()), (200, false, 0), "{text:?} {end:?}"),
        }
    }
    let (answer, _) = truncated(TO_CLOSE, End::CloseNotify);
    assert_eq!((answer.status, answer.text().as_str(), answer.whole), (200, "five!", true));
}

#[test]
fn an_http_1_0_caller_sees_a_truncated_answer_by_a_reset() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfive!\r\n";
    let upstream = RawUpstream::start(|number, wire| {
        wire.head()?;
        wire.say(HEAD)?;
        if number == 0 {
            return wire.say("0\r\n\r\n");
        }
        Ok(())
    });
    let gateway = upstream.setup().table(ONE_WORKER).start();
    let whole = old_caller(&gateway).expect("an orderly end");
    assert!(whole.ends_with("\r\n\r\nfive!"), "{whole}");
    upstream.wait_for_ends(1);
    let error = old_caller(&gateway).expect_err("no orderly end");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn an_upstream_that_closes_without_an_answer_is_named() {
    let upstream = RawUpstream::start(|number, wire| {
        wire.head()?;
        match number {
            0 => {}
            1 => wire.reset(),
            2 => wire.close_notify()?,
            _ => wire.say("HTTP/1.1 200 OK\r\nContent-Le")?,
        }
        Ok(())
    });
    let gateway = upstream.setup().table(ONE_WORKER).start();
    for _ in 0..4 {
        assert_eq!(verdict(&gateway.get("/users", "")), (502, "upstream_closed".into()));
    }
    assert_eq!(upstream.requests(), 4);
}

#[test]
fn interim_answers_are_skipped_up_to_a_bound() {
    let with = |interim: usize| {
        let upstream = RawUpstream::start(move |_, wire| {
            wire.head()?;
            wire.say("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".repeat(interim))?;
            wire.say(ok("{}"))?;
            wire.peer_leaves();
            Ok(())
        });
        let answer = upstream.setup().start().get("/users", "");
        verdict(&answer)
    };
    assert_eq!(with(1), (200, String::new()));
    assert_eq!(with(16), (200, String::new()));
    assert_eq!(with(17), (502, "upstream_malformed".into()));
    assert_eq!(with(100_000), (502, "upstream_malformed".into()));
}

#[test]
fn bytes_after_an_answer_reach_nobody() {
    const STRAY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray";
    let (late, told) = mpsc::channel::<()>();
    let told = Mutex::new(told);
    let upstream = RawUpstream::start(move |number, wire| {
        wire.head()?;
        match number {
            0 => wire.say(ok("first") + STRAY)?,
            1 => {
                wire.say(ok("second"))?;
                told.lock().unwrap().recv().map_err(io::Error::other)?;
                wire.say(STRAY)?;
            }
            _ => wire.say(ok("third"))?,
        }
        wire.peer_leaves();
        Ok(())
    });
    let gateway = upstream.setup().table(ONE_WORKER).start();
    let mut client = gateway.connect();
    let mut ask = || {
        client.request(GET, "");
        client.answer().text()
    };
    assert_eq!(ask(), "first");
    upstream.wait_for_ends(1);
    assert_eq!(ask(), "second");
    late.send(()).unwrap();
    upstream.wait_for_ends(2);
    assert_eq!(ask(), "third");
    assert_eq!(upstream.connections(), 3);
}

#[test]
fn an_answer_before_the_upload_is_complete_is_passed_on_and_its_connection_is_not_used_again() {
    let upstream = RawUpstream::start(|_, wire| {
        wire.head()?;
        wire.say(ok("early"))?;
        wire.peer_leaves();
        Ok(())
    });
    let gateway = upstream.setup().table(ONE_WORKER).start();
    for framing in ["Content-Length: 1000\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"] {
        let mut client = gateway.connect();
        client.raw(format!("POST /users HTTP/1.1\r\nHost: localhost\r\n{framing}").as_bytes());
        let answer = client.answer();
        assert_eq!((answer.status, answer.text().as_str(), answer.whole), (200, "early", true));
    }
    upstream.wait_for_ends(2);
    assert_eq!(gateway.get("/users", "").text(), "early");
    assert_eq!(upstream.connections(), 3);
}

#[test]
fn mxs_own_limits_pass_as_they_are() {
    let mx = mx();
    let gateway = Setup::new(&mx).start();
    for (status, lines) in [
        (429, "x-stand-in-status: 429\nx-stand-in-retry-after: 7"),
        (503, "x-stand-in-status: 503\nx-stand-in-retry-after: Fri, 31 Dec 2027 23:59:59 GMT"),
        (503, "x-stand-in-status: 503"),
    ] {
        let answer = gateway.get("/users", lines);
        assert_eq!(verdict(&answer), (status, String::new()));
        let wanted = lines.split_once("retry-after: ").map(|(_, value)| value);
        assert_eq!(answer.header("retry-after"), wanted);
        assert!(answer.json()["users"].is_array());
    }
    assert_eq!(mx.received(), 3, "none was asked twice");
}

#[test]
fn a_caller_that_leaves_takes_its_upstream_connection_along() {
    let upstream = RawUpstream::start(|_, wire| {
        wire.head()?;
        wire.peer_leaves();
        Ok(())
    });
    let gateway = upstream.setup().table(ONE_WORKER).start();
    let mut client = gateway.connect();
    client.request(GET, "");
    wait_until(|| upstream.requests() == 1);
    drop(client);
    upstream.wait_for_ends(1);

    let upstream = RawUpstream::start(|_, wire| {
        wire.head()?;
        wire.say("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")?;
        wire.peer_leaves();
        Ok(())
    });
    let gateway = upstream.setup().table(ONE_WORKER).start();
    let mut client = gateway.connect();
    client.request(GET, "");
    let mut piece = [0; 4096];
    assert!(client.stream.read(&mut piece).unwrap() > 0);
    drop(client);
    upstream.wait_for_ends(1);
}

#[test]
fn a_caller_that_leaves_its_upload_frees_the_place_even_if_the_upstream_does_not_read() {
    // It reads the first head, and nothing more, until the test is over.
    let (over, stays) = mpsc::channel::<()>();
    let stays = Mutex::new(stays);
    let upstream = RawUpstream::start(move |number, wire| {
        wire.head()?;
        if number == 0 {
            _ = stays.lock().unwrap().recv_timeout(PATIENCE);
            return Ok(());
        }
        wire.say(ok("{}"))
    });
    let gateway = upstream.setup().in_environment("connections_max = 1").table(ONE_WORKER).start();
    let mut client = gateway.connect();
    client.raw(b"POST /users HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\n\r\n");
    client.stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    // Until no buffer on the way takes any more.
    while client.stream.write(&[b'x'; 64 * 1024]).is_ok() {}
    assert_eq!(gateway.metric("mxgate_upstream_connections_open "), 1.0);
    client.stream.shutdown(Shutdown::Both).unwrap();
    drop(client);
    wait_until(|| gateway.metric("mxgate_upstream_connections_open ") == 0.0);
    assert_eq!(gateway.get("/users", "").status, 200);
    drop(over);
}

// ---- addresses ----

#[test]
fn a_name_is_looked_up_in_the_wanted_family() {
    let mx = mx();
    let port = mx.address().port();
    let named = |family: &str| {
        let mut setup =
            Setup::new(&mx).in_environment(&format!("ip_family = \"{family}\"\nconnect_timeout_ms = 500"));
        let url = format!("https://{}", mx.address());
        setup.environments = setup.environments.replace(&url, &format!("https://localhost:{port}"));
        setup.start().get("/users", "")
    };
    assert_eq!(named("any").status, 200);
    assert_eq!(named("ipv4").status, 200);
    // The stand-in listens on IPv4 only.
    assert_eq!(verdict(&named("ipv6")), (502, "upstream_unreachable".into()));
}

/// Asks again and again.
fn wait_until(mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "it never holds");
        thread::yield_now();
    }
}

/// Lets time pass, where the passing of time is what the test is about.
fn wait(time: Duration) {
    let (_never, nothing) = mpsc::channel::<()>();
    assert_eq!(nothing.recv_timeout(time), Err(mpsc::RecvTimeoutError::Timeout));
}
