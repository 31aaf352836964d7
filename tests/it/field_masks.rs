//! Fields of answers that a caller does not get to see, over real sockets.

use std::io;

use serde_json::json;

use crate::{
    harness::{API_KEY, Answer, EVERYTHING, Gateway, Setup, mx},
    raw_upstream::{RawUpstream, Wire},
};

/// A gateway in front of `setup`'s upstream with one caller that sees less, and one at 127.0.0.9 that sees everything.
fn start(mut setup: Setup, more: &str) -> Gateway {
    let grant = format!("grant = {{ test = [{EVERYTHING}] }}");
    setup.callers = Some(format!(
        "[[caller]]\nname = \"less\"\nnetworks = [\"127.0.0.1/32\"]\n{grant}\n\
         mask_fields = [\"account_number\", \"owner.*\"]\n{more}\n\
         [[caller]]\nname = \"all\"\nnetworks = [\"127.0.0.9/32\"]\n{grant}\n"
    ));
    setup.start()
}

/// The answer to a caller that sees everything.
fn all(gateway: &Gateway, path: &str) -> Answer {
    let mut client = crate::harness::Client::connect_from("127.0.0.9".parse().unwrap(), gateway.addresses[0]);
    client.request(&format!("GET {path} HTTP/1.1"), "");
    client.answer()
}

fn outcome(answer: &Answer) -> (u16, String) {
    (answer.status, answer.code())
}

fn not_maskable() -> (u16, String) {
    (502, "answer_not_maskable".into())
}

/// An upstream that says the same again and again.
fn says(text: impl Into<Vec<u8>>) -> RawUpstream {
    let text = text.into();
    RawUpstream::start(move |_, wire: &mut Wire| -> io::Result<()> { wire.say_always(&text) })
}

fn answer(fields: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{fields}\r\n{body}", body.len())
}

const JSON: &str = "Content-Type: application/json\r\n";

#[test]
fn what_mx_answers_reaches_its_caller_without_what_it_does_not_get_to_see() {
    let mx = mx();
    let gateway = start(Setup::new(&mx), "");
    let path = "/users/USR-1/members/MBR-1/account_numbers";
    let (masked, whole) = (gateway.get(path, ""), all(&gateway, path));
    assert_eq!((masked.status, whole.status), (200, 200));
    let mut expected = whole.json();
    let list = expected["account_numbers"].as_array_mut().expect("a list");
    assert!(!list.is_empty());
    for entry in list {
        assert!(entry["account_number"].is_string(), "{entry}");
        entry["account_number"] = json!("********");
    }
    assert_eq!(masked.json(), expected);
    assert_eq!(masked.header("content-length"), Some(masked.body.len().to_string().as_str()));
    let record = gateway.record(|record| record["caller"] == "less");
    assert_eq!((&record["decision"], &record["bytes_out"]), (&json!("allowed"), &json!(masked.body.len())));
}

#[test]
fn the_rest_of_the_answer_is_the_same_and_its_description_is_new() {
    let body = r#"{"z":1.10,"owner":{"name":"N","n":1},"account_number":"1","account_number":"2","e":1e2}"#;
    let fields = format!("{JSON}ETag: \"x\"\r\nDigest: y\r\nLast-Modified: z\r\nX-Other: kept\r\n");
    let chunked = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-End\r\n{fields}\r\n{:x}\r\n{}\r\n{:x}\r\n{}\r\n0\r\nX-End: 1\r\n\r\n",
        40,
        &body[..40],
        body.len() - 40,
        &body[40..]
    );
    for text in [answer(&fields, body), chunked] {
        let upstream = says(text);
        let gateway = start(upstream.setup(), "");
        let masked = gateway.get("/users/USR-1", "");
        assert_eq!(
            masked.text(),
            r#"{"z":1.10,"owner":{"name":"********","n":null},"account_number":"********","account_number":"********","e":1e2}"#
        );
        assert_eq!(masked.all("content-length"), [masked.body.len().to_string()]);
        for gone in ["etag", "digest", "last-modified", "transfer-encoding", "trailer", "trailer:x-end"] {
            assert_eq!(masked.header(gone), None, "{gone}");
        }
        assert_eq!(masked.header("x-other"), Some("kept"));
        let whole = all(&gateway, "/users/USR-1");
        assert_eq!((whole.text().as_str(), whole.header("etag")), (body, Some("\"x\"")));
        // The connection is good for another request.
        let mut client = gateway.connect();
        for _ in 0..3 {
            client.request("GET /users/USR-1 HTTP/1.1", "");
            assert_eq!(client.answer().text(), masked.text());
        }
    }
}

#[test]
fn what_cannot_be_read_whole_as_json_is_not_passed_on() {
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(1 << 20));
    let fits = format!("{{\"a\":\"{}\"}}", "x".repeat((1 << 20) - 8));
    let upstream = says(answer(JSON, &fits));
    let gateway = start(upstream.setup(), "");
    assert_eq!(gateway.get("/users/USR-1", "").body.len(), 1 << 20);
    for (what, text, expected) in [
        ("larger", answer(JSON, &large), not_maskable()),
        ("not JSON", answer(JSON, "account_number=1"), not_maskable()),
        ("two values", answer(JSON, "{} {}"), not_maskable()),
        ("cut JSON", answer(JSON, "{\"account_number\":\"1\""), not_maskable()),
        (
            "another type",
            answer("Content-Type: text/plain\r\n", "{\"account_number\":\"1\"}"),
            not_maskable(),
        ),
        ("no type", answer("", "{\"account_number\":\"1\"}"), not_maskable()),
        ("two types", answer(&format!("{JSON}Content-Type: text/plain\r\n"), "{}"), not_maskable()),
        (
            "encoded",
            answer(&format!("{JSON}Content-Encoding: gzip\r\n"), "{}"),
            (502, "upstream_encoding".into()),
        ),
        ("not UTF-8", answer(JSON, "{\"a\":\"\0\"}"), not_maskable()),
    ] {
        let upstream = says(text);
        let gateway = start(upstream.setup(), "");
        let refused = gateway.get("/users/USR-1", "");
        assert_eq!(outcome(&refused), expected, "{what}");
        assert_eq!(all(&gateway, "/users/USR-1").status, if what == "encoded" { 502 } else { 200 }, "{what}");
        assert_eq!(
            gateway.metric(&format!("mxgate_failures_total{{code=\"{}\"}}", expected.1)) as u64,
            if what == "encoded" { 2 } else { 1 }
        );
    }
    let unannounced = RawUpstream::start(move |_, wire| {
        wire.head()?;
        wire.say(format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{JSON}\r\n{large}"))?;
        wire.close_notify()
    });
    let gateway = start(unannounced.setup(), "");
    assert_eq!(outcome(&gateway.get("/users/USR-1", "")), not_maskable());
    assert_eq!(all(&gateway, "/users/USR-1").status, 200);
    // UTF-16, and Latin-1.
    for bytes in [&b"\xff\xfe{\0}\0"[..], b"{\"a\":\"\xe9\"}"] {
        let mut text =
            answer(JSON, "").replace("Length: 0", &format!("Length: {}", bytes.len())).into_bytes();
        text.extend_from_slice(bytes);
        let upstream = says(text);
        assert_eq!(outcome(&start(upstream.setup(), "").get("/users/USR-1", "")), not_maskable());
    }
}

#[test]
fn an_answer_that_breaks_off_or_stops_is_a_failure_and_nothing_of_it_is_passed_on() {
    let cut = RawUpstream::start(|_, wire| {
        wire.head()?;
        wire.say(format!("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n{JSON}\r\n{{\"a\":1}}"))
    });
    let gateway = start(cut.setup(), "");
    let answer = gateway.get("/users/USR-1", "");
    assert_eq!(outcome(&answer), (502, "upstream_closed".into()));
    assert!(!answer.text().contains("\"a\":1"));
    let stops = RawUpstream::start(|_, wire| {
        wire.head()?;
        wire.say(format!("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n{JSON}\r\n{{\"a\":1}}"))?;
        wire.peer_leaves();
        Ok(())
    });
    let gateway = start(stops.setup().in_environment("idle_timeout_ms = 300"), "");
    assert_eq!(outcome(&gateway.get("/users/USR-1", "")), (504, "upstream_idle_timeout".into()));
}

#[test]
fn answers_without_a_body_pass() {
    for (method, text, status) in [
        ("GET", "HTTP/1.1 204 No Content\r\nETag: x\r\n\r\n".to_owned(), 204),
        ("GET", "HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n".to_owned(), 304),
        ("GET", "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nETag: x\r\n\r\n".to_owned(), 404),
        ("HEAD", format!("HTTP/1.1 200 OK\r\nContent-Length: 55\r\nETag: x\r\n{JSON}\r\n"), 200),
    ] {
        let upstream = says(text);
        let gateway = start(upstream.setup(), "");
        let mut client = gateway.connect();
        client.request(&format!("{method} /users/USR-1 HTTP/1.1"), "");
        let answer = if method == "HEAD" { client.answer_to_head() } else { client.answer() };
        assert_eq!((answer.status, answer.header("etag")), (status, None));
        assert_ne!(answer.header("content-length"), Some("55"));
    }
}

/// The secret that was sent is masked in what is left.
#[test]
fn the_credential_is_masked_as_ever() {
    let echo = RawUpstream::start(|_, wire| {
        let head = wire.head()?.to_ascii_lowercase();
        let sent = head.lines().find_map(|line| line.strip_prefix("authorization: ")).is_some();
        assert!(sent, "{head}");
        let secret = format!("{{\"account_number\":\"1\",\"echo\":\"<{API_KEY}>\"}}");
        wire.say(answer(JSON, &secret))
    });
    let gateway = start(echo.setup(), "");
    let stars = "*".repeat(API_KEY.len());
    let expected = format!("{{\"account_number\":\"********\",\"echo\":\"<{stars}>\"}}");
    assert_eq!(gateway.get("/users/USR-1", "").text(), expected);
    gateway.record(|record| record["caller"] == "less" && record["masked"] == 1);
}
