use proptest::prelude::*;

use super::*;

const LIMITS: HeadLimits = HeadLimits {
    header_bytes_max: 16_384,
    header_count_max: 64,
    request_line_bytes_max: 8_192,
    body_bytes_max: 1_000,
};

fn scan_whole(head: &[u8]) -> Result<Option<RequestHead>, Violation> {
    scan(head, 0, &LIMITS)
}

fn accepted(head: &str) -> RequestHead {
    let parsed = scan_whole(head.as_bytes()).unwrap().expect(head);
    assert_eq!(parsed.len, head.len());
    parsed
}

/// A POST with one more header line.
fn with_line(line: &str) -> String {
    format!("POST /users HTTP/1.1\r\nHost: mx.internal\r\n{line}\r\n\r\n")
}

fn with_target(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: mx.internal\r\n\r\n")
}

fn with_host(host: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

#[track_caller]
fn all_refused(expected: Violation, heads: impl IntoIterator<Item = impl AsRef<[u8]>>) {
    for head in heads {
        let head = head.as_ref();
        assert_eq!(scan_whole(head), Err(expected), "{}", head.escape_ascii());
    }
}

#[test]
fn a_plain_request_is_read() {
    let head = "GET /users HTTP/1.1\r\nHost: mx\r\n\r\n";
    let plain = RequestHead {
        len: head.len(),
        framing: BodyFraming::None,
        expects_continue: false,
        is_head: false,
        keep_alive: true,
    };
    assert_eq!(scan_whole(head.as_bytes()), Ok(Some(plain)));
    let followed = format!("{head}GET /second HTTP/1.1\r\n");
    assert_eq!(scan_whole(followed.as_bytes()), Ok(Some(plain)), "what follows belongs to the next");
    assert_eq!(scan_whole(b""), Ok(None));
}

#[test]
fn a_full_request_is_read() {
    let head = "PUT /users/USR-1?a=b;c&d[]=%7e HTTP/1.1\r\nhost:MX.internal:8443\r\nUser-Agent: x (y; z) \"q\"\r\n\
                Accept:\tapplication/vnd.mx.api.v1+json \t\r\nEmpty:\r\nContent-Length: 42\r\n\
                EXPECT: 100-Continue\r\nUpgrade: h2c\r\nConnection: Upgrade, Close\r\n\r\n";
    let expected = RequestHead {
        len: head.len(),
        framing: BodyFraming::Length(42),
        expects_continue: true,
        is_head: false,
        keep_alive: false,
    };
    assert_eq!(accepted(head), expected);
}

#[test]
fn the_framing_is_read() {
    for (line, framing) in [
        ("X: y", BodyFraming::None),
        ("Content-Length: 0", BodyFraming::None),
        ("Content-Length: 1", BodyFraming::Length(1)),
        ("Content-Length:\t1000 ", BodyFraming::Length(1_000)),
        ("transfer-encoding: chunked", BodyFraming::Chunked),
        ("Transfer-Encoding: CHUNKED", BodyFraming::Chunked),
    ] {
        assert_eq!(accepted(&with_line(line)).framing, framing, "{line}");
    }
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "PATCH"] {
        let head = format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\n");
        assert_eq!(accepted(&head).framing, BodyFraming::Length(7));
        assert_eq!(accepted(&head).is_head, method == "HEAD");
    }
}

#[test]
fn a_length_that_is_not_one_plain_number_is_refused() {
    let values = [
        "",
        "+5",
        "-5",
        "0x5",
        "5 5",
        "5, 5",
        "5,",
        "5;",
        "5.0",
        "5e1",
        "00",
        "05",
        "five",
        "\"5\"",
        "9999999999999999999",
        "18446744073709551621",
        "99999999999999999999999999",
    ];
    let lines = values.iter().map(|value| format!("Content-Length: {value}"));
    let repeated = ["5\r\nContent-Length: 5", "5\r\ncontent-length: 6", "5\r\nContent-Length: x"]
        .map(|value| format!("Content-Length: {value}"));
    all_refused(Violation::ContentLength, lines.chain(repeated).map(|line| with_line(&line)));
    all_refused(Violation::BodyTooLarge, [with_line("Content-Length: 1001")]);
    all_refused(Violation::BodyTooLarge, [with_line("Content-Length: 999999999999999999")]);
}

#[test]
fn a_transfer_encoding_that_is_not_exactly_chunked_is_refused() {
    let lines = [
        "Transfer-Encoding:",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked,",
        "Transfer-Encoding: ,chunked",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    ];
    all_refused(Violation::TransferEncoding, lines.map(with_line));
    let old = "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    all_refused(Violation::TransferEncoding, [old]);
}

#[test]
fn two_framings_together_are_refused() {
    let lines = [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Transfer-Encoding: chunked\r\nContent-Length: x",
        "Transfer-Encoding: gzip\r\nContent-Length: 0",
        "Content-Length: 5\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
    ];
    all_refused(Violation::ConflictingFraming, lines.map(with_line));
}

#[test]
fn lines_end_in_crlf_and_in_nothing_else() {
    let heads: [&[u8]; 12] = [
        b"GET / HTTP/1.1\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\n",
        b"GET / HTTP/1.1\r\nHost: a\n\n",
        b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\rX: y\r\n\r\n",
        b"GET /\rHTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX:\n y\r\n\r\n",
        b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n",
        b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ];
    all_refused(Violation::LineEnding, heads);
}

#[test]
fn bytes_outside_visible_ascii_are_refused_everywhere() {
    for byte in (0..=u8::MAX).filter(|byte| !matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~')) {
        let around = |before: &str, after: &str| [before.as_bytes(), &[byte], after.as_bytes()].concat();
        all_refused(
            Violation::ForbiddenByte,
            [
                vec![byte],
                around("GET /", " HTTP/1.1\r\nHost: a\r\n\r\n"),
                around("GET / HTTP/1.1\r\nHost: a", "\r\n\r\n"),
                around("GET / HTTP/1.1\r\nHost: a\r\nX", ": y\r\n\r\n"),
                around("GET / HTTP/1.1\r\nHost: a\r\nX: y", "z\r\n\r\n"),
            ],
        );
    }
}

#[test]
fn the_request_line_has_one_form() {
    let lines = [
        "",
        " ",
        "GET",
        "GET /",
        "GET / ",
        "GET HTTP/1.1",
        "GET  HTTP/1.1",
        "GET  / HTTP/1.1",
        " GET / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET / x HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET /\tHTTP/1.1",
        "GET / HTTP/1.2",
        "GET / HTTP/2.0",
        "GET / HTTP/0.9",
        "GET / HTTP/1",
        "GET / HTTP/11",
        "GET / http/1.1",
        "GET / HTTP/1.1x",
        "GET / HTTP/01.1",
        "G(T / HTTP/1.1",
        "GET: / HTTP/1.1",
        "PRI * HTTP/2.0",
        "SSH-2.0-OpenSSH_9.2",
        "PROXY TCP4 192.0.2.7 198.51.100.1 5000 443",
        "HTTP/1.1 200 OK",
    ];
    all_refused(Violation::RequestLine, lines.map(|line| format!("{line}\r\nHost: a\r\n\r\n")));
    all_refused(Violation::RequestLine, ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]);
}

#[test]
fn only_the_methods_that_are_forwarded_pass() {
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        accepted(&format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"));
    }
    let others =
        ["CONNECT", "TRACE", "TRACK", "get", "Get", "PROPFIND", "QUERY", "GETX", "GE", "M-SEARCH", "!"];
    all_refused(Violation::Method, others.map(|method| format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n")));
    all_refused(Violation::Method, ["CONNECT mx:443 HTTP/1.1\r\nHost: mx:443\r\n\r\n"]);
}

#[test]
fn targets_have_two_forms_and_one_alphabet() {
    for target in [
        "/",
        "//",
        "/a?b?c/d",
        "/a;b=c,d(e)'f'!$&*+",
        "/~a-b_c.d:@",
        "/%00",
        "/..",
        "/?a[]=1",
        "/%zz",
        "http://mx.internal/",
        "HTTPS://MX.internal/a?b=http://c",
    ] {
        accepted(&with_target(target));
    }
    let bytes = ["\"", "<", ">", "\\", "^", "`", "{", "}", "|", "#"];
    all_refused(Violation::Target, bytes.map(|byte| with_target(&format!("/a{byte}b"))));
    all_refused(Violation::Target, bytes.map(|byte| with_target(&format!("/a?b{byte}c"))));
    let forms = [
        "*",
        "a",
        "?a",
        "mx.internal:443",
        "http:/mx.internal/",
        "http//mx.internal/",
        "ftp://mx.internal/",
        "http://mx.internal",
        "http://mx.internal?a",
        "http:",
        "httpx://mx.internal/",
        "ws://mx.internal/",
    ];
    all_refused(Violation::Target, forms.map(with_target));
    all_refused(Violation::Target, ["OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"]);
}

#[test]
fn an_absolute_target_names_the_host_itself() {
    accepted("GET http://a:80/ HTTP/1.1\r\nHost: A:80\r\n\r\n");
    accepted("GET http://[::1]:80/ HTTP/1.1\r\nHost: [::1]:80\r\n\r\n");
    let heads = [
        "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a:80/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHost: a:80\r\n\r\n",
        "GET http://a@b/ HTTP/1.1\r\nHost: b\r\n\r\n",
        "GET http://a@b/ HTTP/1.1\r\nHost: a@b\r\n\r\n",
        "GET http:/// HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http:/// HTTP/1.1\r\nHost:\r\n\r\n",
        "GET http://a%62/ HTTP/1.1\r\nHost: ab\r\n\r\n",
    ];
    all_refused(Violation::Host, heads);
}

#[test]
fn there_is_exactly_one_host() {
    let heads = [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nhOST: b\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHosts: a\r\n\r\n",
    ];
    all_refused(Violation::Host, heads);
    accepted("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
}

#[test]
fn a_host_is_a_name_or_address_and_a_port() {
    let longest = format!("{}.{}", "a".repeat(126), "b".repeat(126));
    for host in [
        "a",
        "A.b-c_d.example",
        "mx.internal.",
        "127.0.0.1",
        "127.0.0.1:8080",
        "a:1",
        "a:65535",
        "[::1]",
        "[2001:DB8::7]:443",
        "[::ffff:192.0.2.1]",
        &longest,
    ] {
        accepted(&with_host(host));
    }
    let too_long = format!("{longest}c");
    let hosts = [
        "",
        ".",
        "..",
        "a..b",
        ".a",
        "a:",
        "a:0",
        "a:080",
        "a:65536",
        "a:-1",
        "a:+1",
        "a:8080x",
        "a:80:80",
        ":80",
        "a b",
        "a, b",
        "a,b",
        "a/b",
        "a?b",
        "a#b",
        "a@b",
        "user:pw@a",
        "@a",
        "a\\b",
        "a%62",
        "a\tb",
        "http://a",
        "\"a\"",
        "a;b",
        "a&b",
        "(a)",
        "[::1",
        "::1",
        "[::1]x",
        "[::1]:",
        "[]",
        "[127.0.0.1]",
        "[fe80::1%eth0]",
        "[v1.a]",
        "[[::1]]",
        "[::1]]",
        "a[::1]",
        "*",
        &too_long,
    ];
    all_refused(Violation::Host, hosts.map(with_host));
}

#[test]
fn field_names_are_letters_digits_hyphens_and_underscores() {
    accepted(&with_line("X-b3-TraceId9: y"));
    accepted(&with_line("X_Y: z"));
    let look_alike = accepted(&with_line("Transfer_Encoding: chunked"));
    assert_eq!(look_alike.framing, BodyFraming::None, "it frames nothing, and is not passed on");
    let lines = [
        ": y",
        "X : y",
        "X\t: y",
        "X",
        "X y: z",
        "X.Y: z",
        "X!: y",
        "X(: y",
        "X/: y",
        "X@: y",
        "\"X\": y",
        "Content-Length : 5",
        "Transfer-Encoding\t: chunked",
        "X;: y",
        "GET / HTTP/1.1",
    ];
    all_refused(Violation::FieldName, lines.map(with_line));
}

#[test]
fn folded_lines_are_refused() {
    let lines =
        ["X: y\r\n z", "X: y\r\n\tz", "X: y\r\n ", "X: y\r\n Content-Length: 5", "Content-Length:\r\n 5"];
    all_refused(Violation::LineFolding, lines.map(with_line));
    all_refused(Violation::LineFolding, ["GET / HTTP/1.1\r\n Host: a\r\n\r\n"]);
    all_refused(Violation::LineFolding, ["GET / HTTP/1.1\r\n \r\nHost: a\r\n\r\n"]);
}

#[test]
fn only_one_expectation_is_met() {
    assert!(accepted(&with_line("Content-Length: 5\r\nExpect: 100-CONTINUE")).expects_continue);
    assert!(accepted(&with_line("Transfer-Encoding: chunked\r\nExpect: 100-continue")).expects_continue);
    assert!(!accepted(&with_line("Expect: 100-continue")).expects_continue, "no body to wait for");
    let old = "POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    assert!(!accepted(old).expects_continue, "HTTP/1.0 knows no 100");
    let lines = [
        "Expect:",
        "Expect: 200-ok",
        "Expect: 100-continue, x",
        "Expect: 100-continue;x=y",
        "Expect: \"100-continue\"",
        "Expect: 100-continue\r\nExpect: 100-continue",
        "Expect: x\r\nExpect: 100-continue",
    ];
    all_refused(Violation::Expectation, lines.map(with_line));
    all_refused(Violation::Expectation, ["POST / HTTP/1.0\r\nHost: a\r\nExpect: x\r\n\r\n"]);
}

#[test]
fn the_connection_lives_on_unless_one_side_says_otherwise() {
    for (version, connection, keep_alive) in [
        ("1.1", "", true),
        ("1.1", "Connection: keep-alive\r\n", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: x ,\tCLOSE\r\n", false),
        ("1.1", "Connection: close\r\nConnection: keep-alive\r\n", false),
        ("1.1", "Connection: closed\r\n", true),
        ("1.1", "X-Connection: close\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
    ] {
        let head = format!("GET / HTTP/{version}\r\nHost: a\r\n{connection}\r\n");
        assert_eq!(accepted(&head).keep_alive, keep_alive, "{version} {connection:?}");
    }
}

#[test]
fn each_bound_holds_at_its_byte() {
    let head = "GET /123 HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n";
    let exact = HeadLimits {
        header_bytes_max: head.len(),
        header_count_max: 2,
        request_line_bytes_max: 17,
        ..LIMITS
    };
    let refused = |limits: &HeadLimits| scan(head.as_bytes(), 0, limits).unwrap_err();
    assert!(scan(head.as_bytes(), 0, &exact).unwrap().is_some());
    let line = HeadLimits { request_line_bytes_max: 16, ..exact };
    assert_eq!(refused(&line), Violation::RequestLineTooLong);
    let bytes = HeadLimits { header_bytes_max: head.len() - 1, ..exact };
    assert_eq!(refused(&bytes), Violation::HeaderTooLarge);
    let count = HeadLimits { header_count_max: 1, ..exact };
    assert_eq!(refused(&count), Violation::HeaderTooLarge);
}

#[test]
fn configured_bounds_never_exceed_hypers() {
    let lax = HeadLimits {
        header_bytes_max: usize::MAX,
        header_count_max: usize::MAX,
        request_line_bytes_max: usize::MAX,
        body_bytes_max: u64::MAX,
    };
    let fields = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(count - 1));
    assert!(scan(fields(100).as_bytes(), 0, &lax).unwrap().is_some());
    assert_eq!(scan(fields(101).as_bytes(), 0, &lax), Err(Violation::HeaderTooLarge));
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(65_534));
    assert_eq!(scan(long.as_bytes(), 0, &lax), Err(Violation::RequestLineTooLong));
}

#[test]
fn an_unfinished_head_is_refused_once_nothing_can_cure_it() {
    let limits =
        HeadLimits { header_bytes_max: 64, header_count_max: 2, request_line_bytes_max: 32, ..LIMITS };
    for (bytes, expected) in [
        ("GET /123456789012345678901234567", Ok(None)),
        ("GET /1234567890123456789012345678", Err(Violation::RequestLineTooLong)),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n", Ok(None)),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r", Ok(None)),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nZ", Err(Violation::HeaderTooLarge)),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: 45678901234567890123456789012345678", Ok(None)),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nX: 4567890123456789012345678901234567890",
            Err(Violation::HeaderTooLarge),
        ),
        ("\u{16}", Err(Violation::ForbiddenByte)),
        ("GET / HTTP/1.1\n", Err(Violation::LineEnding)),
        ("GET / HTTP/1.1\r", Ok(None)),
        ("GET / HTTP/1.1\r ", Err(Violation::LineEnding)),
        ("TRACE / HTTP/1.1\r\n", Err(Violation::Method)),
        ("GET / HTTP/1.1\r\nHost: a\r\n X", Ok(None)),
        ("GET / HTTP/1.1\r\nHost: a\r\n X\r\n", Err(Violation::LineFolding)),
    ] {
        assert_eq!(scan(bytes.as_bytes(), 0, &limits), expected, "{bytes:?}");
    }
}

/// Feeds growing prefixes, as reads would; the last verdict.
fn scan_split(bytes: &[u8], cuts: &[usize], limits: &HeadLimits) -> Result<Option<RequestHead>, Violation> {
    let mut seen = 0;
    for cut in cuts.iter().copied().filter(|cut| *cut < bytes.len()).chain([bytes.len()]) {
        let verdict = scan(&bytes[..cut], seen, limits);
        if verdict != Ok(None) {
            return verdict;
        }
        seen = cut;
    }
    Ok(None)
}

/// One of the usual pieces, now and then a strange one.
pub(crate) fn mostly(
    usual: &'static [&'static str],
    strange: &'static [&'static str],
) -> impl Strategy<Value = &'static str> {
    prop_oneof![12 => prop::sample::select(usual), 1 => prop::sample::select(strange)]
}

/// Requests that are nearly right, made of pieces that matter. About half are.
pub(crate) fn nearly_a_request() -> impl Strategy<Value = Vec<u8>> {
    let start = mostly(
        &[
            "GET / HTTP/1.1\r\n",
            "POST /users?a=b HTTP/1.1\r\n",
            "GET http://a/x HTTP/1.1\r\n",
            "HEAD / HTTP/1.0\r\n",
            "PUT /%2e?[] HTTP/1.1\r\n",
        ],
        &[
            "GET / HTTP/1.1\n",
            "GET  / HTTP/1.1\r\n",
            "get / HTTP/1.1\r\n",
            "\r\nGET / HTTP/1.1\r\n",
            "GET /# HTTP/1.1\r\n",
        ],
    );
    let host = mostly(&["Host: a\r\n"], &["", "Host: a\r\nHost: a\r\n", "Host: b\r\n", "Host:\r\n"]);
    let framing = mostly(
        &["", "Content-Length: 5\r\n", "transfer-encoding:chunked\r\n", "Content-Length:\t0 \r\n"],
        &[
            "Content-Length: 05\r\n",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        ],
    );
    let line = mostly(
        &[
            "X: y\r\n",
            "X-Y:\t z \t\r\n",
            "Empty:\r\n",
            "Upgrade: h2c\r\n",
            "Connection: close\r\n",
            "Connection: keep-alive\r\n",
            "Expect: 100-continue\r\n",
        ],
        &[" folded\r\n", "X : y\r\n", "X: y\n", "X: \u{e9}\r\n", "X.Y: z\r\n", ": \r\n", "\r\n"],
    );
    let end = mostly(&["\r\n"], &["\n", "", "\r\nGET"]);
    let noise = prop::option::weighted(0.2, (any::<prop::sample::Index>(), any::<u8>(), any::<bool>()));
    let parts = (start, host, framing, prop::collection::vec(line, 0..4), end, noise, any::<bool>());
    parts.prop_map(|(start, host, framing, lines, end, noise, host_first)| {
        let [one, other] = if host_first { [host, framing] } else { [framing, host] };
        let mut bytes = [start, one, &lines.concat(), other, end].concat().into_bytes();
        if let Some((index, byte, insert)) = noise {
            let at = index.index(bytes.len());
            if insert { bytes.insert(at, byte) } else { bytes[at] = byte }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn splits_do_not_change_the_verdict(
        bytes in nearly_a_request(),
        mut cuts in prop::collection::vec(0_usize..200, 0..6),
        header_bytes_max in 16_usize..200,
        header_count_max in 0_usize..6,
        request_line_bytes_max in 8_usize..40,
    ) {
        let small = HeadLimits { header_bytes_max, header_count_max, request_line_bytes_max, ..LIMITS };
        cuts.sort_unstable();
        let each: Vec<usize> = (0..bytes.len()).collect();
        for limits in [LIMITS, small] {
            let whole = scan(&bytes, 0, &limits);
            prop_assert_eq!(scan_split(&bytes, &cuts, &limits), whole);
            prop_assert_eq!(scan_split(&bytes, &each, &limits), whole);
        }
    }

    #[test]
    fn a_wrong_seen_never_lets_more_through(bytes in nearly_a_request(), seen in 0_usize..300) {
        if let Ok(Some(head)) = scan(&bytes, seen, &LIMITS) {
            prop_assert_eq!(scan(&bytes, 0, &LIMITS), Ok(Some(head)));
        }
    }
}
