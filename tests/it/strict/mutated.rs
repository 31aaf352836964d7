//! Messages with one to three places changed at random, the same in every run: what must hold of any of them.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
};

use super::{AFTER, BEFORE};
use crate::{
    harness::{Gateway, PATIENCE},
    raw_upstream::{RawUpstream, Seen, ok, recording},
};

const REQUESTS: usize = 1_000;
const ANSWERS: usize = 400;
const LAST: &[u8] = b"GET /users?last HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// What is put in.
const TOKENS: &[&[u8]] = &[
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b"\0",
    b"\x0b",
    b"\x7f",
    b"\xff",
    b":",
    b";",
    b",",
    b"\"",
    b"+",
    b"-",
    b"_",
    b"0",
    b"1",
    b"5",
    b"f",
    b"x",
    b"..",
    b"/",
    b"\\",
    b"#",
    b"?",
    b"@",
    b"%2e",
    b"GET ",
    b"HTTP/1.1",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"chunked",
    b"0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"Host: a\r\n",
    b"Connection: close\r\n",
    b"Expect: 100-continue\r\n",
];

/// Xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn mutate(&mut self, seeds: &[&str]) -> Vec<u8> {
        let mut bytes = self.one(seeds).as_bytes().to_vec();
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len());
            let token = self.one(TOKENS);
            match self.below(4) {
                0 => _ = bytes.remove(at),
                1 => bytes[at] = token[0],
                2 => _ = bytes.splice(at..at, token.iter().copied()),
                _ => {
                    let next = bytes[at..].windows(2).position(|two| two == b"\r\n");
                    let at = next.map_or(0, |line_end| at + line_end + 2);
                    _ = bytes.splice(at..at, token.iter().copied());
                }
            }
        }
        bytes
    }
}

/// Everything that comes back on a connection of its own for `bytes`, which are sent in two pieces.
fn exchange(gateway: &Gateway, bytes: &[u8], cut: usize) -> String {
    let mut stream = TcpStream::connect(gateway.addresses[0]).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    for piece in [&bytes[..cut], &bytes[cut..]] {
        // It may be refused, and over, by then.
        let _ = stream.write_all(piece);
    }
    let mut text = Vec::new();
    match stream.read_to_end(&mut text) {
        Err(error) if error.kind() != io::ErrorKind::ConnectionReset => {
            panic!("{error} for {}", super::shown(bytes))
        }
        _ => String::from_utf8_lossy(&text).into_owned(),
    }
}

/// Final answers: the upstream's, and the gateway's own. None is of another kind, such as hyper's own 400.
fn count(text: &str) -> (usize, usize) {
    let starts = |line: &&str| line.starts_with("HTTP/1.") && !line.starts_with("HTTP/1.1 100 ");
    let all = text.split("\r\n").flat_map(|line| line.rsplit(['\n', '}']).next()).filter(starts).count();
    let own = text.matches("content-type: application/problem+json\r\n").count();
    assert_eq!(text.matches("x-mxgate-request-id: ").count(), all, "{text}");
    (all - own, own)
}

fn has_one(seen: &Seen, name: &str) -> bool {
    seen.fields.iter().filter(|field| field.to_lowercase().starts_with(name)).count() == 1
}

#[test]
fn each_answer_is_to_one_request_and_nothing_follows_a_refusal() {
    let (upstream, log) = recording();
    let limits = "[limits]\nheader_read_timeout_ms = 100\nupload_timeout_ms = 100";
    let gateway = upstream.setup().table(limits).table("[process]\nworkers = 1").start();
    let seeds = [
        "POST /users HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
        "POST /users HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "POST /users HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: y\r\n\r\n",
        "POST /users HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
        "GET /users HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: h2c\r\nX: y\r\n\r\n",
        "GET http://localhost/users?a=b%20c HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /users/a%2Fb HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n",
        "HEAD /users HTTP/1.1\r\nHost: localhost\r\nX: y\r\n\r\n",
    ];
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut refused, mut served) = (0, 0);
    for _ in 0..REQUESTS {
        let payload = random.mutate(&seeds);
        let bytes = [BEFORE, &payload, AFTER, LAST].concat();
        let text = exchange(&gateway, &bytes, random.below(bytes.len()));
        let (passed, own) = count(&text);
        let seen = log.take();
        let case = super::shown(&payload);
        assert_eq!(seen.len(), passed, "{case}: {text} {seen:?}");
        assert_eq!(seen[0].line, "GET /users?before HTTP/1.1", "{case}");
        let last = seen.iter().filter(|seen| seen.line.contains("?last")).count();
        match text.find("\"code\":\"malformed_") {
            Some(at) => {
                refused += 1;
                let after = &text[at..];
                assert!(
                    !after.contains("\r\nx-mxgate-request-id") && last == 0 && own >= 1,
                    "{case}: {text}"
                );
            }
            None => served += last,
        }
        for seen in &seen {
            let framed =
                ["content-length:", "transfer-encoding:"].iter().filter(|name| has_one(seen, name)).count();
            assert!(
                framed <= 1 && has_one(seen, "host:") && has_one(seen, "authorization:"),
                "{case}: {seen:?}"
            );
        }
    }
    assert!(refused > REQUESTS / 2 && served > REQUESTS / 20, "{refused} refused, {served} served");
}

#[test]
fn no_answer_leaves_a_byte_for_the_next_caller() {
    let seeds = [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfive!",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfive!\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nfive!\r\n0\r\nX-Sum: y\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfive!",
        "HTTP/1.0 200 OK\r\nX: y\r\n\r\nfive!",
        "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n",
    ];
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let answers: Vec<Vec<u8>> = (0..ANSWERS).map(|_| random.mutate(&seeds)).collect();
    let said = answers.clone();
    let upstream = RawUpstream::start(move |_, wire| {
        loop {
            let head = wire.head()?;
            let number = head.split(['=', ' ']).nth(2).and_then(|number| number.parse::<usize>().ok());
            match number.and_then(|number| said.get(number)) {
                None => wire.say(ok("next!"))?,
                Some(answer) => {
                    wire.say(answer)?;
                    wire.close_notify()?;
                    // What was written for an answer that seemed whole must not be lost to a reset.
                    wire.peer_leaves();
                    return Ok(());
                }
            }
        }
    });
    let gateway = upstream.setup().table("[process]\nworkers = 1").start();
    let (mut passed, mut failed) = (0, 0);
    for (number, answer) in answers.iter().enumerate() {
        let request =
            format!("GET /users?n={number} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let text = exchange(&gateway, request.as_bytes(), 0);
        let case = super::shown(answer);
        match count(&text) {
            (1, 0) => {
                passed += 1;
                assert!(is_well_formed(answer), "{case}: {text}");
            }
            (0, 1) => {
                failed += 1;
                assert!(
                    text.starts_with("HTTP/1.1 502 ") && text.contains("\"code\":\"upstream_"),
                    "{case}: {text}"
                );
            }
            other => panic!("{other:?} for {case}: {text}"),
        }
        let next = gateway.get("/users?n=next", "");
        assert_eq!((next.status, next.text().as_str()), (200, "next!"), "after {case}");
    }
    assert!(passed > ANSWERS / 10 && failed > ANSWERS / 5, "{passed} passed, {failed} failed");
}

/// Whether the heads at the start are as strict a reader wants them: a reader that shares nothing with the gate's.
fn is_well_formed(answer: &[u8]) -> bool {
    let text: String = answer.iter().copied().map(char::from).collect();
    let Some((head, rest)) = text.split_once("\r\n\r\n") else { return false };
    let mut lines = head.split("\r\n");
    let start = lines.next().unwrap_or_default();
    let version_ok = start.starts_with("HTTP/1.1 ") || start.starts_with("HTTP/1.0 ");
    let status = start.get(9..12).filter(|_| start.len() == 12 || start[12..].starts_with(' '));
    let status = status.filter(|status| status.chars().all(|digit| digit.is_ascii_digit()));
    let Some(status) = status.and_then(|status| status.parse::<u16>().ok()) else { return false };
    let fields: Option<Vec<(String, &str)>> = lines
        .map(|line| {
            let (name, value) = line.split_once(':')?;
            let token = |one: char| one.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(one);
            let is_name = !name.is_empty() && name.chars().all(token);
            is_name.then(|| (name.to_lowercase(), value.trim_matches([' ', '\t'])))
        })
        .collect();
    let Some(fields) = fields else { return false };
    let all = |wanted: &str| {
        fields.iter().filter(|(name, _)| name == wanted).map(|(_, value)| *value).collect::<Vec<_>>()
    };
    let framed = match (&all("content-length")[..], &all("transfer-encoding")[..]) {
        ([], []) => true,
        ([length], []) => length.parse::<u64>().is_ok_and(|number| number.to_string() == *length),
        ([], [coding]) => coding.eq_ignore_ascii_case("chunked") && start.starts_with("HTTP/1.1"),
        _ => false,
    };
    let clean = !head.replace("\r\n", "").chars().any(|one| one != '\t' && one.is_ascii_control());
    let is_last = (200..600).contains(&status);
    version_ok
        && framed
        && clean
        && (is_last
            || status != 101
                && status >= 100
                && is_well_formed(&rest.chars().map(|one| one as u8).collect::<Vec<_>>()))
}
