use proptest::prelude::*;

use super::*;
use crate::framing::request::tests::mostly;

const DATA_MAX: u64 = 1_000;

fn scan_whole(body: &[u8]) -> Result<Scanned, Violation> {
    ChunkedScanner::of_request(DATA_MAX).scan(body)
}

fn done(accepted: usize) -> Result<Scanned, Violation> {
    Ok(Scanned { accepted, done: true })
}

#[track_caller]
fn all_refused(expected: Violation, bodies: impl IntoIterator<Item = impl AsRef<[u8]>>) {
    for body in bodies {
        let body = body.as_ref();
        assert_eq!(scan_whole(body), Err(expected), "{}", body.escape_ascii());
    }
}

fn with_trailer(line: &str) -> String {
    format!("1\r\na\r\n0\r\n{line}\r\n\r\n")
}

#[test]
fn chunks_are_followed_to_their_end() {
    for body in [
        "0\r\n\r\n",
        "000\r\n\r\n",
        "0000000000000000\r\n\r\n",
        "5\r\nhello\r\n0\r\n\r\n",
        "A\r\n0123456789\r\n0\r\n\r\n",
        "a\r\n0123456789\r\n1\r\n\r\r\n0\r\n\r\n",
        "000000000000000A\r\n\r\n0\r\n\r\n0\r\n\r\n0\r\n\r\n",
        "1\r\na\r\n0\r\nX-Checksum: 1;2\r\nServer-Timing:\t\r\n\r\n",
    ] {
        assert_eq!(scan_whole(body.as_bytes()), done(body.len()), "{body:?}");
        let followed = format!("{body}GET / HTTP/1.1\r\n");
        assert_eq!(scan_whole(followed.as_bytes()), done(body.len()), "the next message is not touched");
    }
    for body in
        ["", "5", "5\r", "5\r\n", "5\r\nhel", "5\r\nhello", "5\r\nhello\r\n", "0\r\n", "0\r\n\r", "0\r\nX"]
    {
        assert_eq!(
            scan_whole(body.as_bytes()),
            Ok(Scanned { accepted: body.len(), done: false }),
            "{body:?}"
        );
    }
}

#[test]
fn sizes_are_plain_hexadecimal() {
    let bodies = [
        "\r\n",
        "g",
        "-5",
        "+5",
        " 5",
        "0x5",
        "5 \r\n",
        "5\t\r\n",
        "5\n",
        "5\rh",
        "5;\r\n",
        "5;a=b\r\n",
        "5 ;a\r\n",
        "5,\r\n",
        "5\r\r\n",
        "\n5\r\n",
        ";\r\n",
        "0;\r\n\r\n",
        "00000000000000005\r\n",
        "\0",
        "\"5\"\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r0\r\n",
        "5\r\nhello!\r\n",
        "0\r\n\r\r",
        "0\n\r\n",
    ];
    all_refused(Violation::Chunk, bodies);
    all_refused(Violation::BodyTooLarge, ["FFFFFFFFFFFFFFFF\r\n", "8000000000000000\r\n"]);
}

#[test]
fn data_is_counted_over_all_chunks() {
    let at_bound = format!("3e7\r\n{}\r\n1\r\nb\r\n0\r\n\r\n", "a".repeat(999));
    assert_eq!(scan_whole(at_bound.as_bytes()), done(at_bound.len()));
    let over = format!("3e7\r\n{}\r\n2\r\n", "a".repeat(999));
    all_refused(Violation::BodyTooLarge, ["3e9\r\n", &over]);
    assert_eq!(ChunkedScanner::of_request(0).scan(b"0\r\n\r\n"), done(5));
    assert_eq!(ChunkedScanner::of_request(0).scan(b"1\r\n"), Err(Violation::BodyTooLarge));
}

#[test]
fn trailers_are_well_formed() {
    let lines = [
        "X",
        "X y: z",
        ": y",
        " X: y",
        "X : y",
        "X: y\n",
        "X: y\rz",
        "X:\0",
        "X: \x7f",
        "X: \u{e9}",
        "X(: y",
        "\tX: y",
        "X: y\r\n z",
    ];
    all_refused(Violation::Trailer, lines.map(with_trailer));
    let name = "n".repeat(48);
    assert!(scan_whole(with_trailer(&format!("{name}: y")).as_bytes()).unwrap().done);
    all_refused(Violation::Trailer, [with_trailer(&format!("{name}n: y"))]);
}

#[test]
fn trailers_name_nothing_that_belongs_in_a_head() {
    let names = [
        "Transfer-Encoding",
        "Content-Length",
        "Host",
        "Trailer",
        "TE",
        "Connection",
        "Keep-Alive",
        "Upgrade",
        "Authorization",
        "Proxy-Authorization",
        "WWW-Authenticate",
        "Cookie",
        "Set-Cookie",
        "Content-Encoding",
        "Content-Type",
        "Content-Range",
        "Cache-Control",
        "Expect",
        "Max-Forwards",
        "Range",
        "If-Match",
        "Age",
        "Date",
        "Expires",
        "Location",
        "Retry-After",
        "Vary",
        "Pragma",
        "Forwarded",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Real-IP",
        "Via",
        "Origin",
        "Referer",
        "Sec-Fetch-Site",
        "Access-Control-Allow-Origin",
        "MX-API-Key",
        "MX-Client-ID",
        "X-API-Key",
        "X-MXGate-Request-Id",
        "X-HTTP-Method-Override",
        "X-Original-URL",
        "X-Host",
        "X-Vault-Token",
        "X_Client_Secret",
        "Accept",
        "Accept-Version",
        "Content_Length",
        "TRANSFER_ENCODING",
    ];
    all_refused(Violation::Trailer, names.map(|name| with_trailer(&format!("{name}: x"))));
    all_refused(Violation::Trailer, names.map(|name| with_trailer(&format!("{}: x", name.to_lowercase()))));
    for name in ["Server-Timing", "Digest", "ETag", "X-Hosts", "Hosts", "T", "Dat"] {
        let body = with_trailer(&format!("{name}: x"));
        assert_eq!(scan_whole(body.as_bytes()), done(body.len()), "{name}");
    }
}

/// A rule about callers' credentials must not break what an upstream says behind a whole answer.
#[test]
fn trailers_of_an_answer_may_have_names_that_a_callers_may_not() {
    let answer =
        |name: &str| ChunkedScanner::of_answer().scan(with_trailer(&format!("{name}: x")).as_bytes());
    for name in ["X-Session-Id", "X-Next-Page-Token", "X-Envoy-Upstream-Service-Time"] {
        let body = with_trailer(&format!("{name}: x"));
        assert_eq!(answer(name), done(body.len()), "{name}");
        all_refused(Violation::Trailer, [body]);
    }
    for name in ["Content-Length", "Set-Cookie", "Transfer_Encoding"] {
        assert_eq!(answer(name), Err(Violation::Trailer), "{name}");
    }
}

#[test]
fn the_forbidden_names_are_sorted() {
    assert!(FORBIDDEN.is_sorted(), "binary search");
    assert!(FORBIDDEN.iter().chain(FAMILIES).all(|name| !name.iter().any(u8::is_ascii_uppercase)));
    assert!(FORBIDDEN.iter().chain(FAMILIES).all(|name| name.len() <= NAME_BYTES_MAX));
}

#[test]
fn trailers_are_bounded() {
    let lines = |count: usize| format!("0\r\n{}\r\n", "X: y\r\n".repeat(count));
    assert!(scan_whole(lines(32).as_bytes()).unwrap().done);
    all_refused(Violation::HeaderTooLarge, [lines(33)]);
    let value = |len: usize| format!("0\r\nX:{}\r\n\r\n", "y".repeat(len));
    assert!(scan_whole(value(4_096 - 4).as_bytes()).unwrap().done);
    all_refused(Violation::HeaderTooLarge, [value(4_096 - 3)]);
}

#[test]
fn a_refused_or_ended_body_stays_so() {
    let mut scanner = ChunkedScanner::of_request(DATA_MAX);
    assert_eq!(scanner.scan(b"x"), Err(Violation::Chunk));
    assert_eq!(scanner.scan(b"0\r\n\r\n"), Err(Violation::Chunk));
    assert_eq!(scanner.scan(b""), Err(Violation::Chunk));
    let mut scanner = ChunkedScanner::of_request(DATA_MAX);
    assert_eq!(scanner.scan(b"0\r\n\r\n"), done(5));
    assert_eq!(scanner.scan(b"0\r\n\r\n"), done(0));
}

/// Bodies that are nearly right, made of pieces that matter.
pub(crate) fn nearly_a_body() -> impl Strategy<Value = Vec<u8>> {
    let chunk = mostly(
        &[
            "5\r\nhello\r\n",
            "1\r\n\n\r\n",
            "5\r\n0\r\n\r\r\n",
            "0a\r\n0123456789\r\n",
            "000000000000000F\r\n5\r\nhello\r\n0\r\n\r\r\n",
        ],
        &[
            "5;x\r\nhello\r\n",
            "5 \r\nhello\r\n",
            "5\nhello\r\n",
            "5\r\nhello\n",
            "6\r\nhello\r\n",
            "-1\r\n",
            "00000000000000001\r\na\r\n",
        ],
    );
    let trailer = mostly(
        &["X: y\r\n", "X-Y:\t z \r\n", "Empty:\r\n"],
        &["Host: b\r\n", "content-length: 5\r\n", "X : y\r\n", "X: y\n", " fold\r\n", ": \r\n"],
    );
    let end = mostly(&["0\r\n", "00\r\n"], &["0;x\r\n", "0\n", ""]);
    let noise = prop::option::weighted(0.2, (any::<prop::sample::Index>(), any::<u8>()));
    let parts = (prop::collection::vec(chunk, 0..4), end, prop::collection::vec(trailer, 0..3), noise);
    parts.prop_map(|(chunks, end, trailers, noise)| {
        let mut body = [&chunks.concat(), end, &trailers.concat(), "\r\n"].concat().into_bytes();
        if let Some((index, byte)) = noise {
            let at = index.index(body.len());
            body[at] = byte;
        }
        body
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn splits_do_not_change_the_verdict(body in nearly_a_body(), pieces in prop::collection::vec(1_usize..12, 1..9)) {
        let whole = scan_whole(&body);
        let mut scanner = ChunkedScanner::of_request(DATA_MAX);
        let mut accepted = 0;
        let mut pieces = pieces.into_iter().cycle();
        let split = loop {
            let rest = &body[accepted..];
            let piece = &rest[..pieces.next().unwrap_or(1).min(rest.len())];
            match scanner.scan(piece) {
                Err(violation) => break Err(violation),
                Ok(scanned) => {
                    accepted += scanned.accepted;
                    prop_assert!(scanned.done || scanned.accepted == piece.len());
                    if scanned.done || accepted == body.len() {
                        break Ok(Scanned { accepted, done: scanned.done });
                    }
                }
            }
        };
        prop_assert_eq!(split, whole);
    }
}
