//! An upstream's answer is passed on when it is exactly one well-formed answer. It is a 502 otherwise, or, when its
//! head has gone out, a transfer whose end the caller can see is missing.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
    sync::{Mutex, mpsc},
};

use crate::{
    harness::{Client, Gateway, PATIENCE},
    raw_upstream::{RawUpstream, Wire, ok},
};

mod bodies;
mod interim;

const CLOSING: &str = "GET /users HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// How an upstream ends its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// In good order.
    Notify,
    /// By FIN, without TLS's `close_notify`.
    Fin,
    Reset,
    /// With bytes that are no TLS record.
    Noise,
    /// It waits for the gateway to close.
    Stay,
}

/// What an upstream does with one request.
#[derive(Clone, Debug)]
struct Script {
    /// Bytes of the request's body that it reads first.
    takes: usize,
    says: Vec<u8>,
    /// Said when the caller has seen the start.
    then: Option<Vec<u8>>,
    end: End,
}

fn says(text: impl AsRef<[u8]>) -> Script {
    Script { takes: 0, says: text.as_ref().to_vec(), then: None, end: End::Stay }
}

impl Script {
    fn takes(mut self, takes: usize) -> Self {
        self.takes = takes;
        self
    }

    fn then(mut self, text: impl AsRef<[u8]>) -> Self {
        self.then = Some(text.as_ref().to_vec());
        self
    }

    fn ends(mut self, end: End) -> Self {
        self.end = end;
        self
    }
}

/// A gateway with one worker before an upstream that follows scripts, one a connection.
struct Bench {
    gateway: Gateway,
    upstream: RawUpstream,
    scripts: mpsc::Sender<Script>,
    go: mpsc::Sender<()>,
}

impl Bench {
    fn new() -> Self {
        let (scripts, next) = mpsc::channel::<Script>();
        let (go, told) = mpsc::channel::<()>();
        let queue = Mutex::new((next, told));
        let upstream = RawUpstream::start(move |_, wire| {
            wire.head()?;
            let queue = queue.lock().unwrap();
            let script = queue.0.recv_timeout(PATIENCE).map_err(io::Error::other)?;
            wire.body(script.takes)?;
            wire.say(&script.says)?;
            if let Some(then) = &script.then {
                queue.1.recv_timeout(PATIENCE).map_err(io::Error::other)?;
                // The gateway may have closed for a part of it.
                let _ = wire.say(then);
            }
            drop(queue);
            finish(wire, script.end)
        });
        let gateway = upstream
            .setup()
            .in_environment("breaker.failures_max = 0")
            .table("[process]\nworkers = 1")
            .start();
        Self { gateway, upstream, scripts, go }
    }

    fn follow(&self, script: Script) {
        self.scripts.send(script).unwrap();
    }

    /// A `GET` that the upstream answers so.
    fn get(&self, client: &mut Client, script: Script) -> crate::harness::Answer {
        self.follow(script);
        client.request("GET /users HTTP/1.1", "");
        client.answer()
    }

    /// The whole answer to `request`, as bytes, and whether it ended by a reset.
    fn transcript(&self, request: &str, script: Script) -> (String, bool) {
        let waits = script.then.is_some();
        self.follow(script);
        let mut stream = TcpStream::connect(self.gateway.addresses[0]).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let (mut text, mut told) = (Vec::new(), !waits);
        let mut piece = [0; 4096];
        loop {
            match stream.read(&mut piece) {
                Ok(0) => return (String::from_utf8(text).unwrap(), false),
                Ok(count) => text.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return (String::from_utf8(text).unwrap(), true);
                }
                Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&text)),
            }
            if !told && text.windows(5).any(|five| five == b"five!") {
                told = true;
                self.go.send(()).unwrap();
            }
        }
    }
}

fn finish(wire: &mut Wire, end: End) -> io::Result<()> {
    match end {
        End::Notify => wire.close_notify(),
        End::Fin => Ok(()),
        End::Reset => {
            wire.reset();
            Ok(())
        }
        End::Noise => wire.tls.sock.write_all(&[b'x'; 64]),
        End::Stay => {
            assert!(wire.peer_leaves());
            Ok(())
        }
    }
}

#[test]
fn a_head_that_is_not_well_formed_is_a_502() {
    let bench = Bench::new();
    let lines = [
        "",
        "HTTP/1.1",
        "HTTP/1.1 ",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 000 OK",
        "HTTP/1.1 099 OK",
        "HTTP/1.1 600 OK",
        "HTTP/1.1 999 OK",
        "HTTP/1.1 +20 OK",
        "HTTP/1.1 -20 OK",
        "HTTP/1.1 2x0 OK",
        "HTTP/1.1 0xc OK",
        "HTTP/1.1 200OK",
        "HTTP/1.1 200.0 OK",
        "HTTP/1.1  200 OK",
        "HTTP/1.1\t200 OK",
        "HTTP/1.1 200\tOK",
        "HTTP/1.1 200\u{b}OK",
        "HTTP/1.1 2 0 0",
        "HTTP/1.2 200 OK",
        "HTTP/1 200 OK",
        "HTTP/2 200 OK",
        "HTTP/2.0 200 OK",
        "HTTP/0.9 200 OK",
        "HTTP/01.1 200 OK",
        "HTTP/1.10 200 OK",
        "http/1.1 200 OK",
        "HTTPS/1.1 200 OK",
        "ICY 200 OK",
        "RTSP/1.0 200 OK",
        "200 OK",
        " HTTP/1.1 200 OK",
        "\r\nHTTP/1.1 200 OK",
        "\u{feff}HTTP/1.1 200 OK",
        "HTTP/1.1 \u{ff12}00 OK",
        "HTTP/1.1 200 O\0K",
        "HTTP/1.1 200 O\rK",
        "HTTP/1.1 200 O\nK",
        "HTTP/1.1 200 \u{1b}[2J",
        "HTTP/1.1 200 \u{7f}",
        "HTTP/1.1 101 Switching Protocols",
        "GET /users HTTP/1.1",
    ];
    let fields = [
        "X: a\n",
        "X: a\r",
        "X: a\n\r",
        "X: a\r\r\n",
        "X: a\r\n b\r\n",
        "X: a\r\n\tb\r\n",
        " X: a\r\n",
        "X : a\r\n",
        "X\t: a\r\n",
        ": a\r\n",
        "X\r\n",
        "X a\r\n",
        "X: a\0b\r\n",
        "X: a\u{b}b\r\n",
        "X: a\u{1b}b\r\n",
        "X: a\u{7f}b\r\n",
        "X\0: a\r\n",
        "X(Y): a\r\n",
        "X Y: a\r\n",
        "\u{e4}: a\r\n",
        // Framing; `Content-Length: 2` follows.
        "Content-Length: 2\r\n",
        "Content-Length: 3\r\n",
        "content-length: 0\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding:\r\n",
    ];
    let framing = [
        "Content-Length: 2, 2",
        "Content-Length: +2",
        "Content-Length: -2",
        "Content-Length: 02",
        "Content-Length: 0x2",
        "Content-Length: 2.0",
        "Content-Length: 2 2",
        "Content-Length: \"2\"",
        "Content-Length: two",
        "Content-Length:",
        "Content-Length: 18446744073709551618",
        "Content-Length: 9999999999999999999",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: \u{b}chunked",
        "Transfer-Encoding: chunked,",
        "Transfer-Encoding: identity",
        "Transfer-Encoding:",
    ];
    let mut heads: Vec<Vec<u8>> = Vec::new();
    heads.extend(lines.map(|line| format!("{line}\r\nContent-Length: 2\r\n\r\n{{}}").into()));
    heads.extend(
        fields.map(|field| format!("HTTP/1.1 200 OK\r\n{field}Content-Length: 2\r\n\r\n{{}}").into()),
    );
    heads.extend(
        framing.map(|field| format!("HTTP/1.1 200 OK\r\n{field}\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n").into()),
    );
    heads.extend(
        [
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n{}",
            "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 100 Continue\r\nContent-Length: 2\r\n\r\n{}",
            "HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\nContent-Length: 2\n\n{}",
            "HTTP/1.1 200 OK\rContent-Length: 2\r\r{}",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\n{}",
            "<html><body>Bad Gateway</body></html>\r\n\r\n",
            "{\"users\":[]}\n",
            "\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64\r\n",
            "\x15\x03\x03\0\x02\x02\x28\r\n",
            "\r\n\r\n",
        ]
        .map(|head| head.as_bytes().to_vec()),
    );
    heads.push(format!("HTTP/1.1 200 {}\r\n\r\n", "x".repeat(9_000)).into());
    heads.push(format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(66_000)).into());
    heads.push(format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(101)).into());
    heads.push("x".repeat(100_000).into());

    // One caller's connection outlives them all; none of the upstream's outlives one.
    let mut client = bench.gateway.connect();
    for (index, head) in heads.iter().enumerate() {
        let answer = bench.get(&mut client, says(head));
        let case = super::shown(head);
        assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_malformed"), "{case}");
        assert_eq!(answer.header("connection"), None, "{case}");
        bench.upstream.wait_for_ends(index + 1);
    }
    let mut good = 0;
    for (head, body) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2", "{}"),
        ("HTTP/1.1 200\r\nContent-Length: 2", "{}"),
        ("HTTP/1.1 200 \r\nContent-Length:2", "{}"),
        ("HTTP/1.1 200 Tr\u{e8}s bien\tfait\r\ncontent-length: \t2\t", "{}"),
        ("HTTP/1.1 599 Own\r\nContent-Length: 2", "{}"),
        ("HTTP/1.0 200 OK\r\nContent-Length: 2", "{}"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding:CHUNKED", "2\r\n{}\r\n0\r\n\r\n"),
        ("HTTP/1.1 200 OK\r\nX_Y.z: \u{e9}\r\nX:\r\nContent-Length: 2", "{}"),
        ("HTTP/1.1 200 OK\r\nX: y\r\nX: y\r\nContent-Length: 2", "{}"),
    ] {
        let answer = bench.get(&mut client, says(format!("{head}\r\n\r\n{body}")).ends(End::Fin));
        assert!(answer.code().is_empty() && answer.whole && answer.text() == "{}", "{head}: {answer:?}");
        good += 1;
        bench.upstream.wait_for_ends(heads.len() + good);
    }
    let many = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{}\r\n{{}}", "X: y\r\n".repeat(99));
    assert_eq!(bench.get(&mut client, says(many).ends(End::Fin)).all("x").len(), 99);
}

#[test]
fn no_answer_is_a_502() {
    let bench = Bench::new();
    let mut client = bench.gateway.connect();
    for start in [
        "",
        "H",
        "HTTP/1.1 200 OK",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r",
        "HTTP/1.1 103 Early Hints\r\n\r\n",
    ] {
        for end in [End::Notify, End::Fin, End::Reset, End::Noise] {
            let answer = bench.get(&mut client, says(start).ends(end));
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (502, "upstream_closed"),
                "{start:?} {end:?}"
            );
        }
    }
    assert_eq!(bench.get(&mut client, says(ok("fine"))).text(), "fine");
}
