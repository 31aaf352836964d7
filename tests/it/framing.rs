//! What is not exactly one well-formed request goes nowhere.

use std::{io::Write as _, net::Shutdown};

use http::StatusCode;
use mxgate::stand_in::Running;

use crate::harness::{Client, Gateway, Setup, mx};

const GOOD: &str = "GET /users HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Sends `bytes` and behind them a request that would be fine; nothing but one refusal may come of it.
fn is_refused(gateway: &Gateway, bytes: &[u8], status: u16, code: &str) {
    let case = String::from_utf8_lossy(bytes).chars().take(120).collect::<String>();
    let mut client = gateway.connect();
    client.raw(&[bytes, GOOD.as_bytes()].concat());
    let answer = client.answer();
    assert_eq!((answer.status, answer.code().as_str()), (status, code), "{case:?}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{case:?}");
    assert_eq!(answer.header("connection"), Some("close"), "{case:?}");
    let id = answer.header("x-mxgate-request-id").map(str::to_owned);
    assert_eq!(id.as_deref().map(str::len), Some(32), "{case:?}");
    assert_eq!(answer.json()["request_id"].as_str(), id.as_deref(), "{case:?}");
    assert!(answer.whole, "{case:?}");
    assert_eq!(client.rest(), b"", "something came after the refusal of {case:?}");
}

/// Requests that the upstream got whole. Of a body that was refused midway it may have got the beginning.
fn taken(mx: &Running) -> u64 {
    mx.received()
        - mx.requests().iter().filter(|request| request.status != Some(StatusCode::OK)).count() as u64
}

fn get(fields: &str) -> Vec<u8> {
    format!("GET /users HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n").into_bytes()
}

fn post(fields: &str, body: &str) -> Vec<u8> {
    let types = "Content-Type: application/json\r\nAccept: application/json\r\n";
    format!("POST /users HTTP/1.1\r\nHost: localhost\r\n{types}{fields}\r\n{body}").into_bytes()
}

fn line(line: &str) -> Vec<u8> {
    format!("{line}\r\nHost: localhost\r\n\r\n").into_bytes()
}

#[test]
fn framing_that_two_readers_could_read_differently_is_refused() {
    let mx = mx();
    let gateway = Setup::new(&mx).start();
    let smuggled = "0\r\n\r\nGET /accounts HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for (fields, body) in [
        ("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", smuggled),
        ("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", smuggled),
        ("Content-Length: 2\r\nContent-Length: 2\r\n", "{}"),
        ("Content-Length: 2\r\nContent-Length: 3\r\n", "{} "),
        ("Content-Length: 2, 2\r\n", "{}"),
        ("Content-Length: +2\r\n", "{}"),
        ("Content-Length: -2\r\n", "{}"),
        ("Content-Length: 02\r\n", "{}"),
        ("Content-Length: 0x2\r\n", "{}"),
        ("Content-Length: 2.0\r\n", "{}"),
        ("Content-Length: 2 \r\nContent-Length : 2\r\n", "{}"),
        ("Content-Length:\r\n", ""),
        ("Content-Length: 99999999999999999999\r\n", ""),
        ("Content-Length: 18446744073709551618\r\n", "{}"),
        ("Content-Length: 2\r\n", "{}\u{0}"),
        ("Transfer-Encoding: identity\r\n", ""),
        ("Transfer-Encoding: gzip, chunked\r\n", smuggled),
        ("Transfer-Encoding: chunked, chunked\r\n", smuggled),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", smuggled),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", smuggled),
        ("Transfer-Encoding: xchunked\r\n", smuggled),
        ("Transfer-Encoding: \"chunked\"\r\n", smuggled),
        ("Transfer-Encoding: chunked;q=1\r\n", smuggled),
        ("Transfer-Encoding: \u{b}chunked\r\n", smuggled),
        ("Transfer-Encoding : chunked\r\n", smuggled),
        ("Transfer-Encoding\t: chunked\r\n", smuggled),
        ("X: y\r\n Transfer-Encoding: chunked\r\n", smuggled),
        ("Transfer-Encoding:\r\n chunked\r\n", smuggled),
        ("Transfer-Encoding:\r\n", smuggled),
    ] {
        if fields == "Content-Length: 2\r\n" {
            continue; // see `what_follows_a_body_is_the_next_request_or_nothing`
        }
        is_refused(&gateway, &post(fields, body), 400, "malformed_request");
    }
    let http_10 = "POST /users HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    is_refused(&gateway, http_10.as_bytes(), 400, "malformed_request");
    assert_eq!(mx.received(), 0);
    assert_eq!(gateway.metric("mxgate_upstream_connections_opened_total"), 0.0);

    // The same shapes, well formed, go through.
    let mut client = gateway.connect();
    client.raw(&post("Content-Length: 11\r\n", "{\"user\":{}}"));
    assert_eq!(client.answer().status, 200);
    client.raw(&post("Transfer-Encoding: chunked\r\n", "B\r\n{\"user\":{}}\r\n0\r\n\r\n"));
    assert_eq!(client.answer().status, 200);
    assert_eq!(mx.received(), 2);
    assert_eq!(gateway.metric("mxgate_refusals_total{code=\"malformed_request\"}"), 29.0);
}

#[test]
fn heads_that_are_not_exactly_http_1_1_are_refused() {
    let mx = mx();
    let gateway = Setup::new(&mx).start();
    let cases: Vec<Vec<u8>> = vec![
        // Line ends.
        b"GET /users HTTP/1.1\nHost: localhost\n\n".to_vec(),
        b"GET /users HTTP/1.1\r\nHost: localhost\n\r\n".to_vec(),
        b"GET /users HTTP/1.1\r\nHost: localhost\r\n\n".to_vec(),
        b"GET /users HTTP/1.1\rHost: localhost\r\n\r\n".to_vec(),
        b"GET /users HTTP/1.1\r\nHost: localhost\rX: y\r\n\r\n".to_vec(),
        b"GET /users HTTP/1.1\r\r\nHost: localhost\r\n\r\n".to_vec(),
        b"\r\nGET /users HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        b"\nGET /users HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        // Folding and bytes.
        get("X: a\r\n b\r\n"),
        get("X: a\r\n\tb\r\n"),
        b"GET /users HTTP/1.1\r\n Host: localhost\r\n\r\n".to_vec(),
        get("X: a\0b\r\n"),
        get("X: a\x7fb\r\n"),
        get("X: a\x1bb\r\n"),
        get("X: \u{e4}\r\n"),
        b"GET /users HTTP/1.1\r\nHost: localhost\r\nX: \xff\r\n\r\n".to_vec(),
        // Names.
        get("X : y\r\n"),
        get("X\t: y\r\n"),
        get(": y\r\n"),
        get("X\r\n"),
        get("X(y): z\r\n"),
        get("X\0: z\r\n"),
        get("X/Y: z\r\n"),
        // Host.
        b"GET /users HTTP/1.1\r\n\r\n".to_vec(),
        b"GET /users HTTP/1.0\r\n\r\n".to_vec(),
        b"GET /users HTTP/1.1\r\nHost:\r\n\r\n".to_vec(),
        get("Host: localhost\r\n"),
        get("Host: other\r\n"),
        get("hOST: localhost\r\n"),
        b"GET /users HTTP/1.1\r\nHost: local host\r\n\r\n".to_vec(),
        b"GET /users HTTP/1.1\r\nHost: a@localhost\r\n\r\n".to_vec(),
        b"GET /users HTTP/1.1\r\nHost: localhost/\r\n\r\n".to_vec(),
        b"GET /users HTTP/1.1\r\nHost: localhost, localhost\r\n\r\n".to_vec(),
        b"GET /users HTTP/1.1\r\nHost: localhost:0\r\n\r\n".to_vec(),
        b"GET /users HTTP/1.1\r\nHost: localhost:99999\r\n\r\n".to_vec(),
        b"GET /users HTTP/1.1\r\nHost: [::1\r\n\r\n".to_vec(),
        // An absolute target for somebody else, with userinfo, or without the same Host.
        line("GET http://api.mx.com/users HTTP/1.1"),
        line("GET http://localhost@api.mx.com/users HTTP/1.1"),
        line("GET http://user:pass@localhost/users HTTP/1.1"),
        line("GET http://localhost:81/users HTTP/1.1"),
        // Request lines.
        line("GET /users"),
        line("GET /users HTTP/0.9"),
        line("GET /users HTTP/2.0"),
        line("GET /users HTTP/1.2"),
        line("GET /users http/1.1"),
        line("GET /users HTTP/1.1 "),
        line("GET  /users HTTP/1.1"),
        line("GET\t/users HTTP/1.1"),
        line(" GET /users HTTP/1.1"),
        line("GET /us ers HTTP/1.1"),
        line("GET HTTP/1.1"),
        line("G(T /users HTTP/1.1"),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec(),
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec(),
    ];
    for case in &cases {
        is_refused(&gateway, case, 400, "malformed_request");
    }
    for method in ["CONNECT", "TRACE", "TRACK", "PROPFIND", "get", "PURGE", "LINK"] {
        is_refused(&gateway, &line(&format!("{method} /users HTTP/1.1")), 501, "method_not_supported");
    }
    is_refused(&gateway, &line("CONNECT api.mx.com:443 HTTP/1.1"), 501, "method_not_supported");
    for target in ["*", "users", "//", "http://localhost", "ftp://localhost/users", "/users#x", "/us\"ers"] {
        if target == "//" {
            continue; // a path of its own, unknown: not malformed
        }
        is_refused(&gateway, &line(&format!("GET {target} HTTP/1.1")), 400, "malformed_target");
    }
    for expectation in ["200-ok", "100-continue, x", "100-continue\r\nExpect: 100-continue"] {
        is_refused(&gateway, &get(&format!("Expect: {expectation}\r\n")), 417, "expectation_failed");
    }
    assert_eq!(mx.received(), 0);
    let refused = gateway.record(|record| record["code"] == "malformed_request");
    assert_eq!(
        (refused["status"].as_u64(), refused["caller_address"].as_str()),
        (Some(400), Some("127.0.0.1"))
    );

    for good in [
        line("GET http://localhost/users HTTP/1.1"),
        get("X-Y_z: !#$%&'*+-.^_`|~ \t y\r\n"),
        get("X:\r\n"),
        get("Expect: 100-continue\r\n"),
        b"GET /users HTTP/1.1\r\nHost:localhost \r\n\r\n".to_vec(),
        b"GET /users HTTP/1.0\r\nHost: localhost\r\n\r\n".to_vec(),
    ] {
        let mut client = gateway.connect();
        client.raw(&good);
        assert_eq!(client.answer().status, 200, "{}", String::from_utf8_lossy(&good));
    }
    assert_eq!(mx.received(), 6);
}

#[test]
fn chunks_that_two_readers_could_read_differently_are_refused() {
    let mx = mx();
    let gateway = Setup::new(&mx).start();
    for body in [
        "2;ext=1\r\n{}\r\n0\r\n\r\n",
        "2;\r\n{}\r\n0\r\n\r\n",
        "2 \r\n{}\r\n0\r\n\r\n",
        " 2\r\n{}\r\n0\r\n\r\n",
        "0x2\r\n{}\r\n0\r\n\r\n",
        "+2\r\n{}\r\n0\r\n\r\n",
        "\r\n2\r\n{}\r\n0\r\n\r\n",
        "2\n{}\r\n0\r\n\r\n",
        "2\r{}\r\n0\r\n\r\n",
        "2\r\n{}\n0\r\n\r\n",
        "2\r\n{}0\r\n\r\n",
        "2\r\n{}x\r\n0\r\n\r\n",
        "1\r\n{}\r\n0\r\n\r\n",
        "g\r\n",
        "00000000000000002\r\n{}\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\n{}",
        "0\n\r\n",
        "0\r\n\n",
        "0\r\n\rx",
        "0\r\nContent-Length: 5\r\n\r\n",
        "0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "0\r\nHost: localhost\r\n\r\n",
        "0\r\nAuthorization: Basic eDp5\r\n\r\n",
        "0\r\nX-API_Key: y\r\n\r\n",
        "0\r\nMX_Client_ID: y\r\n\r\n",
        "0\r\nX-Forwarded-For: 127.0.0.1\r\n\r\n",
        "0\r\nX : y\r\n\r\n",
        "0\r\n X: y\r\n\r\n",
        "0\r\nX: a\r\n b\r\n\r\n",
        "0\r\nX: \0\r\n\r\n",
    ] {
        is_refused(&gateway, &post("Transfer-Encoding: chunked\r\n", body), 400, "malformed_request");
    }
    assert_eq!(taken(&mx), 0);
    for body in ["b\r\n{\"user\":{}}\r\n0\r\n\r\n", "00B\r\n{\"user\":{}}\r\n00\r\nX-Checksum: y\r\n\r\n"] {
        let mut client = gateway.connect();
        client.raw(&post("Transfer-Encoding: chunked\r\n", body));
        let answer = client.answer();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!(taken(&mx), 2);
}

#[test]
fn a_path_with_two_spellings_is_refused_and_the_connection_serves_on() {
    let mx = mx();
    let gateway = Setup::new(&mx).start();
    let mut client = gateway.connect();
    for path in [
        "/users/..",
        "/users/../accounts",
        "/./users",
        "/users/.",
        "/users/..;x/accounts",
        "/users/%2e%2e/accounts",
        "/users/%2E%2E/accounts",
        "/users%2F..%2Faccounts",
        "/users/%5C..",
        "/users/%2f..",
        "/%75sers",
        "/users/%00",
        "/users/%0d%0a",
        "/users/%0D%0A",
        "/users/%7F",
        "/users/%",
        "/users/%2",
        "/users/%zz",
        "/users/%252E%252E",
        "/users/%C0%AE",
        "/users/%FF",
        "/users/%C2%80",
        "/users?a=%0A",
        "/users?a=%",
    ] {
        client.request(&format!("GET {path} HTTP/1.1"), "");
        let answer = client.answer();
        assert_eq!((answer.status, answer.code().as_str()), (400, "malformed_target"), "{path}");
    }
    for path in ["/users\\accounts", "/users|x", "/users^", "/users/{a}", "/users`", "/users<"] {
        is_refused(&gateway, &line(&format!("GET {path} HTTP/1.1")), 400, "malformed_target");
    }
    assert_eq!(mx.received(), 0);
    client.request("GET /users?page=1&search=%7e[] HTTP/1.1", "");
    assert_eq!(client.answer().status, 200);
    assert_eq!(mx.requests()[0].target, "/users?page=1&search=%7e[]");
}

#[test]
fn pipelined_requests_are_answered_in_order_and_a_bad_one_only_after_them() {
    let mx = mx();
    let gateway = Setup::new(&mx).start();
    let tagged = |tag: u32, slow: u32| {
        let switches =
            format!("x-stand-in-big: 40\r\nx-stand-in-tag: t{tag}\r\nx-stand-in-slow-head: {slow}\r\n");
        get(&switches)
    };
    let mut bytes = tagged(0, 150);
    bytes.extend(tagged(1, 0));
    bytes.extend(post("Content-Length: 11\r\nx-stand-in-echo: true\r\n", "{\"user\":{}}"));
    bytes.extend(tagged(2, 20));
    bytes.extend(b"GET /users HTTP/1.1\r\nHost: localhost\r\nX : y\r\n\r\n");
    bytes.extend(tagged(3, 0));
    let mut client = gateway.connect();
    client.raw(&bytes);
    assert!(client.answer().text().starts_with("t0"));
    assert!(client.answer().text().starts_with("t1"));
    assert!(client.answer().text().contains("POST"));
    assert!(client.answer().text().starts_with("t2"));
    let refused = client.answer();
    assert_eq!((refused.status, refused.code().as_str()), (400, "malformed_request"));
    assert_eq!(client.rest(), b"");
    assert_eq!(mx.received(), 4);
    // A refused head has no share in the bytes of the requests before it.
    let record = gateway.record(|record| record["code"] == "malformed_request");
    assert_eq!(record["bytes_in"], 0);
    assert_eq!(gateway.metric("mxgate_received_bytes_total"), 11.0);
}

/// It was read long before its turn came, and nothing more comes on the socket to wake anybody.
#[test]
fn a_pipelined_request_is_served_at_once_when_its_turn_comes() {
    let mx = mx();
    let gateway = Setup::new(&mx).start();
    let mut client = gateway.connect();
    client.raw(&get("x-stand-in-slow-head: 50\r\n").repeat(30));
    let began = std::time::Instant::now();
    for _ in 0..30 {
        assert_eq!(client.answer().status, 200);
    }
    // 1.5 s of slowness that was asked for. A tick of 250 ms for each would make 7.5 s.
    assert!(began.elapsed().as_millis() < 5_000, "{:?}", began.elapsed());
}

/// More than the gate keeps of what comes ahead.
#[test]
fn many_pipelined_requests_pass_through_a_full_buffer() {
    let mx = mx();
    let gateway = Setup::new(&mx).start();
    let mut client = gateway.connect();
    let mut sender = client.stream.try_clone().unwrap();
    let filler = "x".repeat(3_000);
    let one = get(&format!("X-Filler: {filler}\r\n"));
    let thread = std::thread::spawn(move || sender.write_all(&one.repeat(200)));
    for _ in 0..200 {
        assert_eq!(client.answer().status, 200);
    }
    thread.join().unwrap().unwrap();
    assert_eq!(mx.received(), 200);
}

#[test]
fn it_does_not_matter_where_bytes_are_split() {
    let mx = mx();
    let gateway = Setup::new(&mx).start();
    let echo = "x-stand-in-echo: true\r\n";
    let mut good = post(&format!("Content-Length: 11\r\n{echo}"), "{\"user\":{}}");
    good.extend(post(
        &format!("Transfer-Encoding: chunked\r\n{echo}"),
        "4\r\n{\"us\r\n7\r\ner\":{}}\r\n0\r\nX: y\r\n\r\n",
    ));
    good.extend(get(""));
    let mut expected = 0;
    for at in 1..good.len() {
        let mut client = gateway.connect();
        client.raw(&good[..at]);
        client.raw(&good[at..]);
        for _ in 0..3 {
            let answer = client.answer();
            assert_eq!(answer.status, 200, "split at {at}: {}", answer.text());
        }
        expected += 3;
        let received = mx.requests();
        let bodies: Vec<_> = received.iter().rev().take(3).rev().map(|request| &request.body[..]).collect();
        assert_eq!(bodies, [&b"{\"user\":{}}"[..], b"{\"user\":{}}", b""], "split at {at}");
    }
    let mut client = gateway.connect();
    for byte in &good {
        client.raw(&[*byte]);
    }
    for _ in 0..3 {
        assert_eq!(client.answer().status, 200);
    }
    expected += 3;
    assert_eq!(taken(&mx), expected);

    let bad = post("Transfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\nHost: x\r\n\r\n");
    for at in 1..bad.len() {
        let mut client = gateway.connect();
        client.raw(&bad[..at]);
        // The refusal of the first part may be there before the second is sent.
        let _ = client.stream.write_all(&bad[at..]);
        assert_eq!(client.answer().status, 400, "split at {at}");
        assert_eq!(client.rest(), b"");
    }
    assert_eq!(taken(&mx), expected);
}

#[test]
fn what_follows_a_body_is_the_next_request_or_nothing() {
    let mx = mx();
    let gateway = Setup::new(&mx).start();
    for after in ["X", "\r\n", "{}", "\0"] {
        let mut client = gateway.connect();
        client.raw(&post("Content-Length: 11\r\n", "{\"user\":{}}"));
        client.raw(after.as_bytes());
        client.raw(GOOD.as_bytes());
        assert_eq!(client.answer().status, 200);
        assert!(matches!(client.answer().status, 400 | 501), "{after:?}");
        assert_eq!(client.rest(), b"");
    }
    assert_eq!(mx.received(), 4);
    // After `Connection: close` nothing is read.
    let mut client = gateway.connect();
    client.raw(&[get("Connection: close\r\n"), GOOD.into()].concat());
    assert_eq!(client.answer().status, 200);
    assert_eq!(client.rest(), b"");
    assert_eq!(mx.received(), 5);
}

#[test]
fn a_connection_is_used_again_after_bodies_of_every_kind() {
    let mx = mx();
    let gateway = Setup::new(&mx).start();
    let mut client = gateway.connect();
    for size in [11, 100, 8_192, 65_536, 65_537, 300_000] {
        let body = format!("{{\"user\":{{\"metadata\":\"{}\"}}}}", "m".repeat(size));
        client.raw(&post(&format!("Content-Length: {}\r\n", body.len()), &body));
        assert_eq!(client.answer().status, 200, "{size}");
        assert_eq!(mx.requests().last().map(|last| last.body.len()), Some(body.len()));
        let (first, second) = body.split_at(body.len() / 3);
        let chunks = format!("{:x}\r\n{first}\r\n{:X}\r\n{second}\r\n0\r\n\r\n", first.len(), second.len());
        client.raw(&post("Transfer-Encoding: chunked\r\n", &chunks));
        assert_eq!(client.answer().status, 200, "{size} in chunks");
        assert_eq!(mx.requests().last().map(|last| last.body.to_vec()), Some(body.into_bytes()));
        client.request("HEAD /users HTTP/1.1", "");
        client.answer_to_head();
    }
    assert_eq!(gateway.metric("mxgate_caller_connections_accepted_total"), 1.0);
}

#[test]
fn a_refusal_is_readable_while_the_body_still_comes() {
    let mx = mx();
    let gateway = Setup::new(&mx).start();
    let body = "x".repeat(9 * 1024 * 1024);
    for (path, status) in [("/no/such/thing", 404), ("/users/%2e", 400)] {
        let mut client = gateway.connect();
        // All of it is written before anything is read, as most clients do.
        client.raw(
            format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len())
                .as_bytes(),
        );
        client.raw(body.as_bytes());
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("connection")), (status, Some("close")));
        assert_eq!(client.rest(), b"");
    }
    // In the body's chunks, the violation comes first and much after it.
    let mut client = gateway.connect();
    client.raw(&post("Transfer-Encoding: chunked\r\n", "zz\r\n"));
    client.raw(body.as_bytes());
    assert_eq!(client.answer().status, 400);
    assert_eq!(taken(&mx), 0);
    // Without a body there is no reason to close.
    let mut client = gateway.connect();
    client.request("POST /no/such/thing HTTP/1.1\nContent-Length: 0", "");
    assert_eq!(client.answer().header("connection"), None);
    client.request("GET /users HTTP/1.1", "");
    assert_eq!(client.answer().status, 200);
}

#[test]
fn a_body_that_ends_early_is_the_callers_fault() {
    let mx = mx();
    let gateway = Setup::new(&mx).start();
    for bytes in [
        post("Content-Length: 12\r\n", "{\"user\":{}}"),
        post("Transfer-Encoding: chunked\r\n", "B\r\n{\"user\":{}}\r\n0\r\n"),
    ] {
        let mut client = gateway.connect();
        client.raw(&bytes);
        client.stream.shutdown(Shutdown::Write).unwrap();
        let rest = client.rest();
        let text = String::from_utf8_lossy(&rest);
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 400 "), "{text}");
        let record =
            gateway.record(|record| record["method"] == "POST" && record["code"] == "malformed_request");
        assert_eq!(record["decision"], "refused");
    }
    assert_eq!(taken(&mx), 0);
    // Half a head and the end: there was no request, and there is no answer.
    let mut client = Client::connect(gateway.addresses[0]);
    client.raw(b"GET /users HTTP/1.1\r\nHo");
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest(), b"");
}
