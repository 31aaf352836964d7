use proptest::prelude::*;

use super::*;
use crate::framing::request::tests::mostly;

const LIMITS: HeadLimits = HeadLimits {
    header_bytes_max: 65_536,
    header_count_max: 100,
    request_line_bytes_max: 1_024,
    body_bytes_max: u64::MAX,
};

fn scan_whole(head: &[u8]) -> Result<Option<AnswerHead>, Violation> {
    scan_head(head, 0, &LIMITS, false)
}

#[track_caller]
fn accepted(head: impl AsRef<[u8]>) -> AnswerHead {
    let head = head.as_ref();
    let parsed = scan_whole(head).unwrap().unwrap();
    assert_eq!(parsed.len, head.len());
    parsed
}

#[track_caller]
fn all_refused(expected: Violation, heads: impl IntoIterator<Item = impl AsRef<[u8]>>) {
    for head in heads {
        let head = head.as_ref();
        assert_eq!(scan_whole(head), Err(expected), "{}", head.escape_ascii());
    }
}

fn with_lines(status: &str, lines: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{lines}\r\n")
}

#[test]
fn a_plain_answer_is_read() {
    let head = with_lines("200 OK", "Content-Length: 5\r\nContent-Type: application/json\r\n");
    let expected = AnswerHead {
        len: head.len(),
        status: 200,
        framing: AnswerFraming::Length(5),
        interim: false,
        keep_alive: true,
    };
    assert_eq!(accepted(&head), expected);
    assert_eq!(scan_whole(&head.as_bytes()[..head.len() - 1]), Ok(None));
}

#[test]
fn the_body_ends_as_status_method_and_fields_say() {
    use AnswerFraming::{Chunked, Length, None, UntilClose};
    let chunked = "transfer-encoding: Chunked\r\n";
    for (status, lines, framing, to_head) in [
        ("200 OK", "", UntilClose, None),
        ("200 OK", "Content-Length: 7\r\n", Length(7), None),
        ("200 OK", "Content-Length: 999999999999999999\r\n", Length(999_999_999_999_999_999), None),
        ("200 OK", "Content-Length: 0\r\n", None, None),
        ("200 OK", chunked, Chunked, None),
        ("404 Not Found", chunked, Chunked, None),
        ("204 No Content", "", None, None),
        ("204 No Content", "Content-Length: 0\r\n", None, None),
        ("304 Not Modified", "", None, None),
        ("304 Not Modified", "Content-Length: 7\r\n", None, None),
        ("304 Not Modified", chunked, None, None),
        ("100 Continue", "", None, None),
        ("103 Early Hints", "Link: </x>\r\n", None, None),
    ] {
        let head = with_lines(status, lines);
        assert_eq!(accepted(&head).framing, framing, "{head}");
        assert_eq!(accepted(&head).interim, status.starts_with('1'), "{head}");
        assert_eq!(scan_head(head.as_bytes(), 0, &LIMITS, true).unwrap().unwrap().framing, to_head, "{head}");
    }
}

#[test]
fn framing_that_two_readers_read_differently_is_refused() {
    let lengths =
        ["", "5, 5", "+5", "05", "0x5", "-1", "5;", "1000000000000000000", "5\r\nContent-Length: 5"];
    all_refused(
        Violation::ContentLength,
        lengths.map(|value| with_lines("200 OK", &format!("Content-Length: {value}\r\n"))),
    );
    let codings =
        ["", "gzip", "gzip, chunked", "chunked, gzip", "chunked,", "chunked\r\nTransfer-Encoding: chunked"];
    all_refused(
        Violation::TransferEncoding,
        codings.map(|value| with_lines("200 OK", &format!("Transfer-Encoding: {value}\r\n"))),
    );
    all_refused(Violation::TransferEncoding, ["HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"]);
    let both = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n";
    all_refused(
        Violation::ConflictingFraming,
        ["200 OK", "204 No", "304 No"].map(|status| with_lines(status, both)),
    );
    all_refused(
        Violation::ContentLength,
        ["100 C", "204 N"].map(|status| with_lines(status, "Content-Length: 5\r\n")),
    );
    all_refused(
        Violation::TransferEncoding,
        ["100 C", "204 N"].map(|status| with_lines(status, "Transfer-Encoding: chunked\r\n")),
    );
    let to_head = with_lines("200 OK", "Content-Length: 5, 5\r\n");
    assert_eq!(scan_head(to_head.as_bytes(), 0, &LIMITS, true), Err(Violation::ContentLength), "HEAD too");
}

#[test]
fn the_status_line_has_one_form() {
    for line in
        ["HTTP/1.1 200 OK", "HTTP/1.1 200 ", "HTTP/1.1 200", "HTTP/1.0 599 a  b\tc", "HTTP/1.1 500 \u{e9}"]
    {
        accepted(format!("{line}\r\n\r\n"));
    }
    let lines = [
        "",
        "HTTP/1.1",
        "HTTP/1.1 ",
        "HTTP/1.1 20",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 200OK",
        "HTTP/1.1  200 OK",
        " HTTP/1.1 200 OK",
        "http/1.1 200 OK",
        "HTTP/1.2 200 OK",
        "HTTP/2 200 OK",
        "HTTP/2.0 200 OK",
        "HTTP/0.9 200 OK",
        "HTTP/1.1 099 X",
        "HTTP/1.1 600 X",
        "HTTP/1.1 +20 OK",
        "HTTP/1.1 2 0 OK",
        "HTTP/1.1\t200 OK",
        "ICY 200 OK",
        "HTTP/1.1 200\tOK",
        "GET / HTTP/1.1",
    ];
    all_refused(Violation::StatusLine, lines.map(|line| format!("{line}\r\n\r\n")));
    let upgrade = with_lines("101 Switching Protocols", "Upgrade: h2c\r\n");
    all_refused(Violation::SwitchingProtocols, [upgrade]);
}

#[test]
fn lines_are_as_strict_as_in_requests() {
    let heads = [
        "HTTP/1.1 200 OK\nX: y\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: y\n\r\n",
        "HTTP/1.1 200 OK\r\n\n",
        "HTTP/1.1 200 OK\r\nX: y\rz\r\n\r\n",
    ];
    all_refused(Violation::LineEnding, heads);
    let folded = ["X: y\r\n z\r\n", " X: y\r\n"].map(|lines| with_lines("200 OK", lines));
    all_refused(Violation::LineFolding, folded);
    let names = ["X : y\r\n", ": y\r\n", "X\r\n", "X\u{e9}: y\r\n"].map(|lines| with_lines("200 OK", lines));
    all_refused(Violation::FieldName, names);
    let bytes = ["X: \0\r\n", "X\0: y\r\n", "X: \u{7f}\r\n"].map(|lines| with_lines("200 OK", lines));
    all_refused(Violation::ForbiddenByte, bytes);
}

#[test]
fn what_is_harmless_in_answers_passes() {
    accepted(b"HTTP/1.1 200 OK\r\nX: caf\xe9\r\nContent-Length: 5\r\n\r\n");
    accepted(with_lines("200 OK", "X_Request.Id!: y\r\nContent-Length: 5\r\n"));
}

#[test]
fn the_connection_lives_on_unless_the_answer_says_otherwise() {
    let length = "Content-Length: 5\r\n";
    for (version, lines, keep_alive) in [
        ("1.1", length.to_owned(), true),
        ("1.1", format!("{length}Connection: close\r\n"), false),
        ("1.1", String::new(), false),
        ("1.0", length.to_owned(), false),
        ("1.0", format!("{length}Connection: keep-alive\r\n"), true),
    ] {
        let head = format!("HTTP/{version} 200 OK\r\n{lines}\r\n");
        assert_eq!(accepted(&head).keep_alive, keep_alive, "{head}");
    }
}

#[test]
fn each_bound_holds_at_its_byte() {
    let head = with_lines("200 OK", "X: y\r\nY: z\r\n");
    let exact = HeadLimits {
        header_bytes_max: head.len(),
        header_count_max: 2,
        request_line_bytes_max: 15,
        ..LIMITS
    };
    let verdict = |limits: &HeadLimits| scan_head(head.as_bytes(), 0, limits, false);
    assert!(verdict(&exact).unwrap().is_some());
    for limits in [
        HeadLimits { header_bytes_max: head.len() - 1, ..exact },
        HeadLimits { header_count_max: 1, ..exact },
        HeadLimits { request_line_bytes_max: 14, ..exact },
    ] {
        assert_eq!(verdict(&limits), Err(Violation::HeaderTooLarge));
    }
}

/// Answers that are nearly right, made of pieces that matter.
pub(crate) fn nearly_an_answer() -> impl Strategy<Value = Vec<u8>> {
    let start = mostly(
        &[
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.0 404 \r\n",
            "HTTP/1.1 204\r\n",
            "HTTP/1.1 304 X\r\n",
            "HTTP/1.1 100 Continue\r\n",
            "HTTP/1.1 103 Early\r\n",
        ],
        &["HTTP/1.1 101 Up\r\n", "HTTP/1.1 200 OK\n", "HTTP/1.1 600 X\r\n", "HTTP/1.1  200 OK\r\n"],
    );
    let framing = mostly(
        &["", "Content-Length: 5\r\n", "Content-Length: 0\r\n", "Transfer-Encoding: chunked\r\n"],
        &[
            "Content-Length: 5, 5\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
        ],
    );
    let line = mostly(
        &[
            "Connection: close\r\n",
            "X: y\r\n",
            "X-Y:\t z \t\r\n",
            "Empty:\r\n",
            "X: \u{e9}\r\n",
            "X_Y: z\r\n",
        ],
        &[" folded\r\n", "X : y\r\n", "X: y\n", "\r\n"],
    );
    let noise = prop::option::weighted(0.2, (any::<prop::sample::Index>(), any::<u8>()));
    (start, framing, prop::collection::vec(line, 0..4), noise).prop_map(|(start, framing, lines, noise)| {
        let mut bytes = [start, framing, &lines.concat(), "\r\n"].concat().into_bytes();
        if let Some((index, byte)) = noise {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn splits_do_not_change_the_verdict(bytes in nearly_an_answer(), piece in 1_usize..20, is_head: bool) {
        let whole = scan_head(&bytes, 0, &LIMITS, is_head);
        let mut seen = 0;
        let split = loop {
            let read = (seen + piece).min(bytes.len());
            match scan_head(&bytes[..read], seen, &LIMITS, is_head) {
                Ok(None) if read < bytes.len() => seen = read,
                verdict => break verdict,
            }
        };
        prop_assert_eq!(split, whole);
    }
}
