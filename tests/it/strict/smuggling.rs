//! The known ways to hide one request in another, multiplied out.
//!
//! Each payload stands between two requests that are fine and holds a third one, [`HIDDEN`], which some pair of
//! readers would take for a request of its own. There are three outcomes that are right: the payload is refused
//! and nothing is read behind it; it is one request with the hidden one as its body, or part of it; or it never
//! was a body, and the hidden one is the next request for every reader.

use super::{AFTER, BEFORE, Bench};

const HIDDEN: &str = "GET /users?hidden HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// What the upstream may see of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Nothing.
    Refused,
    /// One request, whose body has so many bytes.
    One(usize),
    /// It has no body: the hidden one is a request that the caller plainly sent.
    Pipelined,
}

#[derive(Default)]
struct Tally {
    refused: usize,
    served: usize,
}

impl Tally {
    fn check(&mut self, bench: &Bench, payload: &[u8], outcome: Outcome) {
        let case = super::shown(payload);
        let mut client = bench.gateway.connect();
        client.raw(&[BEFORE, payload, AFTER].concat());
        assert_eq!(client.answer().status, 200, "{case}");
        let hidden = match outcome {
            Outcome::Refused => {
                self.refused += 1;
                let answer = client.answer();
                assert!(matches!(answer.status, 400 | 413 | 417 | 501), "{}: {case}", answer.status);
                assert_eq!(answer.header("connection"), Some("close"), "{case}");
                assert_eq!(client.rest(), b"", "{case}");
                assert_eq!(bench.lines(), ["GET /users?before HTTP/1.1"], "{case}");
                return;
            }
            Outcome::One(_) => 0,
            Outcome::Pipelined => 1,
        };
        self.served += 1;
        for _ in 0..2 + hidden {
            assert_eq!(client.answer().status, 200, "{case}");
        }
        let seen = bench.log.take();
        let count = |line: &str| {
            seen.iter().filter(|seen| seen.line == format!("GET /users?{line} HTTP/1.1")).count()
        };
        assert_eq!(seen.len(), 3 + hidden, "{case}: {seen:?}");
        assert_eq!((count("before"), count("hidden"), count("after")), (1, hidden, 1), "{case}: {seen:?}");
        if let Outcome::One(body) = outcome {
            assert_eq!(seen[1].body.len(), body, "{case}: {seen:?}");
        }
        let frames = |field: &&String| {
            let name = field.split(':').next().unwrap_or_default().to_lowercase().replace('_', "-");
            name == "content-length" || name == "transfer-encoding"
        };
        let own = seen[1].fields.iter().filter(frames).count();
        assert!(own <= 1, "{case}: {seen:?}");
    }
}

fn request(method: &str, fields: &str, body: &str) -> Vec<u8> {
    format!("{method} /users HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n{body}").into_bytes()
}

/// Spellings of `Transfer-Encoding: chunked` that some reader took for it, and some did not.
const ENCODINGS: &[&str] = &[
    "Transfer-Encoding : chunked",
    "Transfer-Encoding\t:chunked",
    "Transfer-Encoding \t : chunked",
    "Transfer-Encoding\u{b}: chunked",
    "Transfer-Encoding\u{c}: chunked",
    "Transfer-Encoding\0: chunked",
    "Transfer-Encoding\u{a0}: chunked",
    "Transfer-Encoding\r: chunked",
    "Transfer-Encoding\n : chunked",
    "\u{b}Transfer-Encoding: chunked",
    "\0Transfer-Encoding: chunked",
    "\rTransfer-Encoding: chunked",
    "\nTransfer-Encoding: chunked",
    " Transfer-Encoding: chunked",
    "\tTransfer-Encoding: chunked",
    "X:y\n Transfer-Encoding: chunked",
    "X:y\rTransfer-Encoding: chunked",
    "X:y\nTransfer-Encoding: chunked",
    "X:y\r\n Transfer-Encoding: chunked",
    "X:y\r\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding:\r\n chunked",
    "Transfer-Encoding:\r\n\tchunked",
    "Transfer-Encoding:\n chunked",
    "Transfer-Encoding:\u{b}chunked",
    "Transfer-Encoding:\u{c}chunked",
    "Transfer-Encoding:\0chunked",
    "Transfer-Encoding: chunked\0",
    "Transfer-Encoding: chunked\u{b}",
    "Transfer-Encoding: chunked\u{c}",
    "Transfer-Encoding: chunked\u{85}",
    "Transfer-Encoding: chunked\r",
    "Transfer-Encoding: chunked\n",
    "Transfer-Encoding: \u{ff43}hunked",
    "Transfer-Encoding: chu\u{200b}nked",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunkedx",
    "Transfer-Encoding: x-chunked",
    "Transfer-Encoding: chunked-x",
    "Transfer-Encoding: chunk",
    "Transfer-Encoding: chunke",
    "Transfer-Encoding: hunked",
    "Transfer-Encoding: cow",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: gzip",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked, gzip",
    "Transfer-Encoding: identity, chunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: chunked, chunked",
    "Transfer-Encoding: chunked,chunked",
    "Transfer-Encoding: chunked,",
    "Transfer-Encoding: ,chunked",
    "Transfer-Encoding: , chunked",
    "Transfer-Encoding: chunked;",
    "Transfer-Encoding: chunked;q=1.0",
    "Transfer-Encoding: chunked; x",
    "Transfer-Encoding: chunked x",
    "Transfer-Encoding: x chunked",
    "Transfer-Encoding: \"chunked\"",
    "Transfer-Encoding: 'chunked'",
    "Transfer-Encoding: (chunked)",
    "Transfer-Encoding: [chunked]",
    "Transfer-Encoding: chunked\\",
    "Transfer-Encoding: =chunked",
    "Transfer-Encoding: :chunked",
    "Transfer-Encoding:: chunked",
    "Transfer-Encoding= chunked",
    "Transfer-Encoding chunked",
    "Transfer Encoding: chunked",
    "\"Transfer-Encoding\": chunked",
    "Transfer-Encoding,: chunked",
    "Transfer/Encoding: chunked",
    "Transfer.Encoding: chunked",
    "Transfer-\rEncoding: chunked",
    "Transfer-\r\n Encoding: chunked",
    "Transfer-Encoding:",
    "Transfer-Encoding: ",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: cow",
    "Transfer-Encoding: cow\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: identity\r\ntransfer-encoding: chunked",
    "Transfer-Encoding: chunked\r\nTransfer-encoding:",
    "Transfer-Encoding:\r\nTransfer-Encoding: chunked",
];

/// The same for `Content-Length: N`; `N` stands for the number.
const LENGTHS: &[&str] = &[
    "Content-Length : N",
    "Content-Length\t: N",
    "Content-Length\u{b}: N",
    "Content-Length\0: N",
    " Content-Length: N",
    "\tContent-Length: N",
    "\rContent-Length: N",
    "\nContent-Length: N",
    "X:y\nContent-Length: N",
    "X:y\rContent-Length: N",
    "X:y\r\n Content-Length: N",
    "Content-Length:\r\n N",
    "Content-Length:\n N",
    "Content-Length: +N",
    "Content-Length: -N",
    "Content-Length: 0N",
    "Content-Length: 00000000000000000000N",
    "Content-Length: 0xN",
    "Content-Length: 0oN",
    "Content-Length: N.0",
    "Content-Length: N.",
    "Content-Length: .N",
    "Content-Length: Ne0",
    "Content-Length: NL",
    "Content-Length: N_0",
    "Content-Length: N 0",
    "Content-Length: 0 N",
    "Content-Length: N\t0",
    "Content-Length: N,N",
    "Content-Length: N, N",
    "Content-Length: N,",
    "Content-Length: ,N",
    "Content-Length: 0, N",
    "Content-Length: N;x",
    "Content-Length: \"N\"",
    "Content-Length: 'N'",
    "Content-Length: (N)",
    "Content-Length: \u{b}N",
    "Content-Length: N\u{b}",
    "Content-Length: N\u{c}",
    "Content-Length: N\0",
    "Content-Length: N\r",
    "Content-Length: N\n",
    "Content-Length: \u{a0}N",
    "Content-Length: \u{661}",
    "Content-Length:",
    "Content-Length: ",
    "Content-Length:: N",
    "Content-Length= N",
    "Content-Length N",
    "Content Length: N",
    "Content.Length: N",
    "Content-Length: N\r\nContent-Length: N",
    "Content-Length: N\r\nContent-Length: 0",
    "Content-Length: 0\r\nContent-Length: N",
    "Content-Length: N\r\ncontent-length:",
    "Content-Length:\r\nContent-Length: N",
    "Content-Length: 18446744073709551616",
    "Content-Length: 1844674407370955161N",
    "Content-Length: 4294967296000000000000N",
];

#[test]
fn content_length_against_transfer_encoding() {
    let (bench, mut tally) = (Bench::new(), Tally::default());
    // Whoever takes the length, whoever takes the chunks, and whoever takes neither sees another end.
    let chunks = format!("0\r\n\r\n{HIDDEN}");
    let hidden = format!("{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len());
    for method in ["POST", "GET"] {
        for body in [&chunks, &hidden] {
            let whole = format!("Content-Length: {}\r\n", body.len());
            let first = "Content-Length: 4\r\n".to_owned();
            for encoding in ENCODINGS {
                for fields in [
                    format!("{encoding}\r\n"),
                    format!("{whole}{encoding}\r\n"),
                    format!("{encoding}\r\n{first}"),
                ] {
                    tally.check(&bench, &request(method, &fields, body), Outcome::Refused);
                }
            }
            for fields in [
                format!("{whole}Transfer-Encoding: chunked\r\n"),
                format!("Transfer-Encoding: chunked\r\n{first}"),
                "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n".into(),
                "Transfer-Encoding: chunked\r\nX: y\r\ncontent-LENGTH:\t4\r\n".into(),
            ] {
                tally.check(&bench, &request(method, &fields, body), Outcome::Refused);
            }
            tally.check(&bench, &request(method, &whole, body), Outcome::One(body.len()));
        }
        tally.check(&bench, &request(method, "Transfer-Encoding: chunked\r\n", &chunks), Outcome::Pipelined);
        tally.check(
            &bench,
            &request(method, "Transfer-Encoding: chunked\r\n", &hidden),
            Outcome::One(HIDDEN.len()),
        );
    }
    assert_eq!((tally.refused, tally.served), (ENCODINGS.len() * 12 + 16, 8));
}

#[test]
fn content_length_against_content_length() {
    let (bench, mut tally) = (Bench::new(), Tally::default());
    for method in ["POST", "GET"] {
        for number in [HIDDEN.len().to_string(), "0".into(), "1".into()] {
            for length in LENGTHS {
                let fields = format!("{}\r\n", length.replace('N', &number));
                // `0, 0` and `00` are no plain numbers either.
                tally.check(&bench, &request(method, &fields, HIDDEN), Outcome::Refused);
            }
        }
        tally.check(
            &bench,
            &request(method, &format!("Content-Length: {}\r\n", HIDDEN.len()), HIDDEN),
            Outcome::One(HIDDEN.len()),
        );
        tally.check(&bench, &request(method, "Content-Length: 0\r\n", HIDDEN), Outcome::Pipelined);
        tally.check(&bench, &request(method, "", HIDDEN), Outcome::Pipelined);
    }
    assert_eq!((tally.refused, tally.served), (LENGTHS.len() * 6, 6));
}

/// Fields that are no framing here, and must not become it there.
#[test]
fn look_alikes_of_framing_fields_frame_nothing() {
    let (bench, mut tally) = (Bench::new(), Tally::default());
    for fields in [
        "Content_Length: N",
        "Content-Length_: N",
        "_Content-Length: N",
        "CONTENT_LENGTH: N",
        "X-Content-Length: N",
        "Content-Length-X: N",
        "Transfer_Encoding: chunked",
        "transfer_encoding: chunked",
        "X-Transfer-Encoding: chunked",
        "Transfer-Encodings: chunked",
        "TransferEncoding: chunked",
        "ContentLength: N",
        "TE: chunked",
        "TE: trailers, chunked",
        "Trailer: Transfer-Encoding",
        "Connection: Transfer-Encoding",
        "Connection: Content-Length",
        "Connection: Host",
        "Upgrade: h2c",
        "Accept-Transfer-Encoding: chunked",
        "X: Transfer-Encoding: chunked",
        "X: a\tContent-Length: N",
        "X: \"\\r\\nTransfer-Encoding: chunked",
        "X: %0d%0aTransfer-Encoding: chunked",
    ] {
        let fields = format!("{}\r\n", fields.replace('N', &HIDDEN.len().to_string()));
        let body = format!("{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len());
        for method in ["POST", "GET"] {
            tally.check(&bench, &request(method, &fields, HIDDEN), Outcome::Pipelined);
            // With real framing beside it, that one holds.
            let real = format!("{fields}Content-Length: {}\r\n", body.len());
            tally.check(&bench, &request(method, &real, &body), Outcome::One(body.len()));
            let real = format!("{fields}Transfer-Encoding: chunked\r\n");
            tally.check(&bench, &request(method, &real, &body), Outcome::One(HIDDEN.len()));
        }
    }
    assert_eq!((tally.refused, tally.served), (0, 24 * 6));
}

/// Readers of chunks differ in where a size line, its extension, a chunk and the body end.
#[test]
fn ends_in_chunks() {
    let (bench, mut tally) = (Bench::new(), Tally::default());
    let length = HIDDEN.len();
    let ends = ["\n", "\r", "\r\r\n", "\n\r", "\n\n", "\u{b}", "\0\r\n", " \r\n", "\t\r\n", "\r \n", ""];
    let extensions =
        [";", ";x", ";x=1", ";x=\"1\"", ";x=\"\r\n\"", ";x=\"\n\"", " ;x", ";;", ";\0", ";x\r", ";x\n"];
    let sizes = [
        "0x0",
        "+0",
        "-0",
        " 0",
        "0 ",
        "0_",
        "0.",
        "0h",
        "0,0",
        "0 0",
        "\u{ff10}",
        "00000000000000000",
        "g",
        "-1",
        "x",
        "\"0\"",
        "\t0",
    ];
    let mut bodies = Vec::new();
    for end in ends {
        bodies.push(format!("1{end}x\r\n0\r\n\r\n{HIDDEN}"));
        bodies.push(format!("1\r\nx{end}0\r\n\r\n{HIDDEN}"));
        bodies.push(format!("0{end}\r\n{HIDDEN}"));
        bodies.push(format!("0\r\n{end}{HIDDEN}"));
        bodies.push(format!("0\r\nX: y{end}\r\n{HIDDEN}"));
        bodies.push(format!("0\r\nX: y{end}{HIDDEN}"));
    }
    for extension in extensions {
        for end in ["\r\n", "\n", "\r"] {
            bodies.push(format!("1{extension}{end}x\r\n0\r\n\r\n{HIDDEN}"));
            bodies.push(format!("0{extension}{end}\r\n{HIDDEN}"));
            bodies.push(format!("2{extension}{end}xx\r\n{length:x}\r\n0\r\n\r\n{HIDDEN}\r\n0\r\n\r\n"));
        }
    }
    for size in sizes {
        bodies.push(format!("{size}\r\n\r\n{HIDDEN}"));
        bodies.push(format!("1\r\nx\r\n{size}\r\n\r\n{HIDDEN}"));
    }
    for overflow in ["10000000000000000", "1000000000000000000000001", "ffffffffffffffff1"] {
        bodies.push(format!("{overflow}\r\nx\r\n0\r\n\r\n{HIDDEN}"));
    }
    // Two of them are well formed: a space or tab belongs to a trailer's value.
    let fine = |body: &String| {
        [" \r\n", "\t\r\n"].iter().any(|end| body.starts_with(&format!("0\r\nX: y{end}\r\n")))
    };
    for body in bodies.iter().filter(|body| !fine(body)) {
        tally.check(&bench, &request("POST", "Transfer-Encoding: chunked\r\n", body), Outcome::Refused);
    }
    for body in bodies.iter().filter(|body| fine(body)) {
        tally.check(&bench, &request("POST", "Transfer-Encoding: chunked\r\n", body), Outcome::Pipelined);
    }
    let well_formed = format!("1\r\nx\r\n0\r\n\r\n{HIDDEN}");
    tally.check(&bench, &request("POST", "Transfer-Encoding: chunked\r\n", &well_formed), Outcome::Pipelined);
    assert_eq!(tally.served, 3);
    assert!(tally.refused > 150, "{}", tally.refused);
}

/// A request line or a host in which another request could begin.
#[test]
fn requests_inside_lines() {
    let (bench, mut tally) = (Bench::new(), Tally::default());
    for payload in [
        format!("GET /users HTTP/1.1\r\nHost: localhost\r\nX: {HIDDEN}"),
        format!("GET /users HTTP/1.1\r\nHost: localhost\r\n\r{HIDDEN}"),
        format!("GET /users HTTP/1.1\r\nHost: localhost\r\n{HIDDEN}"),
        format!("GET /users {HIDDEN}"),
        format!("GET /users\r\n{HIDDEN}"),
        format!("GET /users HTTP/1.1\r\n{HIDDEN}"),
        format!("GET /users?{HIDDEN}"),
        format!("\r\n{HIDDEN}"),
        format!("\n{HIDDEN}"),
        format!(" {HIDDEN}"),
        format!("0\r\n\r\n{HIDDEN}"),
        format!("X{HIDDEN}"),
        format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n{HIDDEN}"),
        format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{HIDDEN}"),
        format!("CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\n\r\n{HIDDEN}"),
        format!("TRACE /users HTTP/1.1\r\nHost: localhost\r\n\r\n{HIDDEN}"),
        format!(
            "GET /users HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}"
        ),
        format!(
            "POST /users HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue, x\r\nContent-Length: 4\r\n\r\n{HIDDEN}"
        ),
        format!("POST /users HTTP/1.1\r\nHost: localhost\r\nExpect:\r\nContent-Length: 4\r\n\r\n{HIDDEN}"),
        format!("POST /users HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n{HIDDEN}"),
    ] {
        if payload.starts_with("GET /users HTTP/1.1\r\nHost: localhost\r\nX: ") {
            // Two `Host`s.
            tally.check(&bench, payload.replace("\r\nHost", "\r\nHOST").as_bytes(), Outcome::Refused);
        }
        tally.check(&bench, payload.as_bytes(), Outcome::Refused);
    }
    // With an expectation that is met, the body is a body.
    let fields = format!("Expect: 100-continue\r\nContent-Length: {}\r\n", HIDDEN.len());
    let mut client = bench.gateway.connect();
    client.raw(&[BEFORE, &request("POST", &fields, HIDDEN), AFTER].concat());
    for _ in 0..3 {
        assert_eq!(client.answer().status, 200);
    }
    let seen = bench.log.take();
    assert_eq!((seen.len(), &seen[1].body[..]), (3, HIDDEN.as_bytes()));
}
