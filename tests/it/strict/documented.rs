//! `docs/strictness.md` is true: every example in its tables gets the answer that stands beside it.

use super::{AFTER, Bench};
use crate::{
    harness::Client,
    raw_upstream::{RawUpstream, Wire, recording},
};

struct Row {
    examples: Vec<Vec<u8>>,
    status: u16,
    code: String,
}

/// The rows of one section's table that have examples.
fn rows(section: &str) -> Vec<Row> {
    let text = include_str!("../../../docs/strictness.md");
    let start = text.find(&format!("\n## {section}\n")).expect("the section");
    let body = &text[start + 4..];
    let body = &body[..body.find("\n## ").unwrap_or(body.len())];
    let lines = body.lines().filter(|line| line.starts_with("| ")).skip(1);
    let rows: Vec<Row> = lines.filter_map(row).collect();
    assert!(rows.len() >= 4, "{section} has {} rows", rows.len());
    rows
}

fn row(line: &str) -> Option<Row> {
    let line = line.replace("\\|", "\u{1}");
    let cells: Vec<&str> = line.split('|').map(str::trim).collect();
    let spans = |cell: &str| cell.split('`').skip(1).step_by(2).map(unescape).collect::<Vec<_>>();
    let examples = spans(cells[2]);
    let (status, code) = cells[3].split_at(3);
    let code = code.trim_matches([' ', '`']).to_owned();
    let status = status.parse().unwrap_or_else(|_| panic!("no status in {line}"));
    (!examples.is_empty()).then_some(Row { examples, status, code })
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.chars();
    while let Some(next) = rest.next() {
        match next {
            '\u{1}' => bytes.push(b'|'),
            '\\' => bytes.push(match rest.next() {
                Some('r') => b'\r',
                Some('n') => b'\n',
                Some('t') => b'\t',
                Some('0') => 0,
                Some('\\') => b'\\',
                Some('x') => {
                    let digits: String = rest.by_ref().take(2).collect();
                    u8::from_str_radix(&digits, 16).expect("two hexadecimal digits")
                }
                other => panic!("an escape {other:?} in {text}"),
            }),
            plain => bytes.extend(plain.to_string().bytes()),
        }
    }
    bytes
}

/// Checks a section of requests; `request` makes one of an example.
fn check(section: &str, request: impl Fn(&[u8]) -> Vec<u8>) {
    let bench = Bench::new();
    for row in rows(section) {
        for example in &row.examples {
            let bytes = request(example);
            let case = super::shown(&bytes);
            let verdict = (row.status, row.code.clone());
            match row.status {
                200 => _ = bench.serves(&bytes),
                // These are well formed: what follows them is read.
                404 | 421 => {
                    let mut client = bench.gateway.connect();
                    client.raw(&[&bytes, AFTER].concat());
                    let answer = client.answer();
                    assert_eq!((answer.status, answer.code()), verdict, "{case}");
                    assert_eq!(client.answer().status, 200, "what follows {case}");
                    assert_eq!(bench.lines(), ["GET /users?after HTTP/1.1"], "{case}");
                }
                status => bench.refuses(&bytes, (status, &row.code)),
            }
        }
    }
}

#[test]
fn request_lines() {
    check("Request lines", |line| [line, b"\r\nHost: localhost\r\n\r\n"].concat());
}

#[test]
fn paths_and_queries() {
    check("Paths and queries", |target| [b"GET ", target, b" HTTP/1.1\r\nHost: localhost\r\n\r\n"].concat());
}

#[test]
fn header_lines() {
    check("Header lines", |lines| {
        // The body that the example declares, if it declares one as it should.
        let body: &[u8] = match lines.to_ascii_lowercase().as_slice() {
            lines if lines.starts_with(b"content-length:") => b"12345",
            lines if lines.starts_with(b"transfer-encoding:") => b"0\r\n\r\n",
            _ => b"",
        };
        [b"POST /users HTTP/1.1\r\nHost: localhost\r\n", lines, b"\r\n\r\n", body].concat()
    });
}

#[test]
fn hosts() {
    check("Host", |lines| [b"GET /users HTTP/1.1\r\n", lines, b"\r\n\r\n"].concat());
}

#[test]
fn chunks_and_trailers() {
    let head = b"POST /users HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    check("Chunks and trailers", |body| [head, body].concat());
}

#[test]
fn answers() {
    let rows = rows("Answers");
    let examples: Vec<Vec<u8>> = rows.iter().flat_map(|row| row.examples.clone()).collect();
    let upstream = RawUpstream::start(move |number, wire: &mut Wire| {
        wire.head()?;
        wire.say(&examples[number])
    });
    // No connection is used twice, nor a request repeated: each is closed behind its answer.
    let gateway = upstream.setup().table("[process]\nworkers = 1").start();
    let mut number = 0;
    for row in &rows {
        for example in &row.examples {
            let answer = gateway.get("/users", "");
            let case = super::shown(example);
            assert_eq!((answer.status, answer.code()), (row.status, row.code.clone()), "{case}");
            assert!(row.status != 204 || answer.header("content-length").is_none(), "{case}");
            number += 1;
            upstream.wait_for_ends(number);
        }
    }
}

#[test]
fn transfer_encoding_in_http_1_0() {
    let (upstream, log) = recording();
    let gateway = upstream.setup().start();
    for (version, verdict) in [("1.0", (400, "malformed_request")), ("1.1", (200, ""))] {
        let mut client = Client::connect(gateway.addresses[0]);
        let head = "\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        client.raw(format!("POST /users HTTP/{version}{head}").as_bytes());
        let answer = client.answer();
        assert_eq!((answer.status, answer.code().as_str()), verdict, "{version}");
    }
    assert_eq!(log.take().len(), 1);
}
