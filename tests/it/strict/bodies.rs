//! Chunks, trailers, and where a request ends.

use std::{io::Write as _, net::Shutdown, sync::mpsc};

use super::{AFTER, BEFORE, Bench, MALFORMED, TOO_LARGE, chunked, is_last, line, post};
use crate::{
    harness::Client,
    raw_upstream::{RawUpstream, ok, recording},
};

const HEADERS: super::Verdict<'static> = (431, "header_too_large");

#[test]
fn chunk_framing() {
    let bench = Bench::new();
    for body in [
        // Sizes: plain hexadecimal of at most 16 digits, and nothing around it.
        "\r\n2\r\n{}\r\n0\r\n\r\n",
        " 2\r\n{}\r\n0\r\n\r\n",
        "2 \r\n{}\r\n0\r\n\r\n",
        "2\t\r\n{}\r\n0\r\n\r\n",
        "\t2\r\n{}\r\n0\r\n\r\n",
        "2\u{b}\r\n{}\r\n0\r\n\r\n",
        "2\0\r\n{}\r\n0\r\n\r\n",
        "0x2\r\n{}\r\n0\r\n\r\n",
        "0X2\r\n{}\r\n0\r\n\r\n",
        "x2\r\n{}\r\n0\r\n\r\n",
        "2h\r\n{}\r\n0\r\n\r\n",
        "+2\r\n{}\r\n0\r\n\r\n",
        "-2\r\n{}\r\n0\r\n\r\n",
        "-0\r\n\r\n",
        "2.0\r\n{}\r\n0\r\n\r\n",
        "1_0\r\n{}{}{}{}{}{}{}{}\r\n0\r\n\r\n",
        "2,2\r\n{}\r\n0\r\n\r\n",
        "g\r\n",
        "\u{ff12}\r\n{}\r\n0\r\n\r\n",
        "00000000000000002\r\n{}\r\n0\r\n\r\n",
        "10000000000000000\r\n{}\r\n0\r\n\r\n",
        "10000000000000002\r\n{}\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\n{}",
        // Extensions.
        "2;\r\n{}\r\n0\r\n\r\n",
        "2;ext\r\n{}\r\n0\r\n\r\n",
        "2;ext=1\r\n{}\r\n0\r\n\r\n",
        "2;ext=\"1\"\r\n{}\r\n0\r\n\r\n",
        "2 ;ext\r\n{}\r\n0\r\n\r\n",
        "2;\n{}\r\n0\r\n\r\n",
        "2;ext\n{}\r\n0\r\n\r\n",
        "2\n;ext\r\n{}\r\n0\r\n\r\n",
        "2;\rx\r\n{}\r\n0\r\n\r\n",
        "2\r\n{}\r\n0;ext\r\n\r\n",
        "2\r\n{}\r\n0;\n\r\n",
        // Ends of lines.
        "2\n{}\r\n0\r\n\r\n",
        "2\r{}\r\n0\r\n\r\n",
        "2\r\r\n{}\r\n0\r\n\r\n",
        "2\n\r{}\r\n0\r\n\r\n",
        "2\r\n{}\n0\r\n\r\n",
        "2\r\n{}\r0\r\n\r\n",
        "2\r\n{}\n\r0\r\n\r\n",
        "2\r\n{}0\r\n\r\n",
        "2\r\n{}XX0\r\n\r\n",
        "2\r\n{}x\r\n0\r\n\r\n",
        "2\r\n{}\r\n\r\n0\r\n\r\n",
        "1\r\n{}\r\n0\r\n\r\n",
        "3\r\n{}\r\n0\r\n\r\n",
        // The end.
        "0\n\r\n",
        "0\r\n\n",
        "0\n\n",
        "0\r\r\n",
        "0\r\n\r\r\n",
        "0\r\n\rx",
        "0\r\n \r\n",
        "0\r\n\0\r\n",
    ] {
        bench.refuses(&chunked(body), MALFORMED);
    }
    for body in ["fffffffffffffffe\r\n{}", "a00001\r\n", "ffffffff\r\n{}"] {
        bench.refuses(&chunked(body), TOO_LARGE);
    }
    for body in [
        "2\r\n{}\r\n0\r\n\r\n",
        "0000000000000002\r\n{}\r\n0000000000000000\r\n\r\n",
        "1\r\n{\r\n01\r\n}\r\n00\r\n\r\n",
    ] {
        assert_eq!(bench.serves(&chunked(body)).body, b"{}");
    }
    let body = "a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n";
    assert_eq!(bench.serves(&chunked(body)).body, b"01234567890123456789");
    // A body that looks like the end of chunks, or like a request, is a body.
    let inner = "0\r\n\r\nGET /users?smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let body = format!("{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len());
    assert_eq!(bench.serves(&chunked(&body)).body, inner.as_bytes());
    for method in ["GET", "POST"] {
        let head =
            format!("{method} /users HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", inner.len());
        assert_eq!(bench.serves(&[head.as_bytes(), inner.as_bytes()].concat()).body, inner.as_bytes());
    }
}

#[test]
fn trailers() {
    let bench = Bench::new();
    let with = |trailers: &str| chunked(&format!("2\r\n{{}}\r\n0\r\n{trailers}\r\n"));
    for name in [
        // Framing.
        "Content-Length",
        "Transfer-Encoding",
        "Trailer",
        "TE",
        "Connection",
        "Keep-Alive",
        "Upgrade",
        "Expect",
        "content_length",
        "Transfer_Encoding",
        "TRANSFER-ENCODING",
        "Proxy-Connection",
        "HTTP2-Settings",
        // Routing.
        "Host",
        "Max-Forwards",
        "Forwarded",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X_Forwarded_Proto",
        "Via",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-HTTP-Method-Override",
        "X-Method-Override",
        "X-Real-IP",
        "X-Host",
        "True-Client-IP",
        "X-Override-Url",
        "Method-Override",
        "_method",
        // Credentials.
        "Authorization",
        "AUTHORIZATION",
        "Proxy-Authorization",
        "Cookie",
        "Set-Cookie",
        "X-API-Key",
        "x_api_key",
        "MX-Client-ID",
        "MX_API_Key",
        "Api-Key",
        "X-Auth-Token",
        "X_Session_Token",
        "Client-Id",
        "Client-Secret",
        "apikey",
        "MD-API-KEY",
        "X-Vault-Token",
        "WWW-Authenticate",
        // What describes or controls.
        "Content-Type",
        "Content-Encoding",
        "Cache-Control",
        "Range",
        "If-Match",
        "Accept",
        "Accept-Version",
        "User-Agent",
        "Origin",
        "Sec-Fetch-Site",
    ] {
        bench.refuses(&with(&format!("{name}: x\r\n")), MALFORMED);
        bench.refuses(&with(&format!("X-Fine: 1\r\n{name}: x\r\n")), MALFORMED);
    }
    for trailers in [
        "X : y\r\n",
        "X\t: y\r\n",
        ": y\r\n",
        "X\r\n",
        " X: y\r\n",
        "\tX: y\r\n",
        "X: a\r\n b\r\n",
        "X: \0\r\n",
        "X: \u{7f}\r\n",
        "X: \u{e9}\r\n",
        "X\0: y\r\n",
        "X\u{e9}: y\r\n",
        "X: y\n",
        "X: y\r",
        "X: y\n\r",
        "X(: y\r\n",
        "GET /users HTTP/1.1\r\n",
    ] {
        bench.refuses(&with(trailers), MALFORMED);
    }
    bench.refuses(&with(&format!("{}: y\r\n", "x".repeat(49))), MALFORMED);
    bench.refuses(&with(&format!("X: {}\r\n", "y".repeat(4_096))), HEADERS);
    bench.refuses(&with(&"X: y\r\n".repeat(33)), HEADERS);
    for trailers in [
        "X-Checksum: y\r\n",
        "x:\r\n",
        "X: a\tb \r\nY: c\r\n",
        "Digest: x\r\n",
        "Server-Timing: db;dur=1\r\n",
    ] {
        bench.serves(&with(trailers));
    }
    bench.serves(&with(&format!("{}: y\r\n", "x".repeat(48))));
    bench.serves(&with(&"X: y\r\n".repeat(32)));
}

#[test]
fn it_does_not_matter_where_a_bad_request_is_cut() {
    let bench = Bench::new();
    let smuggled = "0\r\n\r\nGET /users?smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for bytes in [
        post("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", smuggled),
        post("Transfer-Encoding: xchunked\r\n", smuggled),
        chunked("2\r\n{}\n0\r\n\r\n"),
        chunked("2;\n{}\r\n0\r\n\r\n"),
        chunked("2\r\n{}\r\n0\r\n\n"),
        chunked("0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        b"GET /users HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_vec(),
        b"GET /users HTTP/1.1\r\nHost: a\nX: b\r\n\r\n".to_vec(),
    ] {
        bench.refuses_however_it_is_cut(&bytes, MALFORMED);
    }
}

/// A body that turns out to be malformed never ends well for the upstream either.
#[test]
fn the_upstream_never_gets_the_end_of_a_refused_body() {
    let (said, heard) = mpsc::channel();
    let upstream = RawUpstream::start(move |_, wire| {
        let head = wire.head()?;
        let rest = wire.chunks();
        _ = said.send((head, rest.is_ok()));
        Ok(())
    });
    let gateway = upstream.setup().table("[process]\nworkers = 1").start();
    let bad = ["zz\r\n", "0\r\nHost: a\r\n\r\n", "0\r\n\n", "2\r\n{}0\r\n\r\n"];
    for (index, bad) in bad.into_iter().enumerate() {
        let mut client = gateway.connect();
        // The good part goes through first, so that an exchange is under way.
        client.raw(&chunked("2\r\n{}\r\n"));
        crate::harness::until("it is under way", || upstream.requests() > index);
        client.raw(&[bad.as_bytes(), AFTER].concat());
        is_last(&mut client, MALFORMED, bad);
        let (head, ended) = heard.recv_timeout(crate::harness::PATIENCE).unwrap();
        assert!(head.starts_with("POST /users HTTP/1.1\r\n") && !ended, "{bad}: {head}");
    }
    assert_eq!(upstream.requests(), 4);
}

#[test]
fn after_an_early_answer_a_bad_body_is_the_end() {
    let upstream = RawUpstream::start(|_, wire| {
        wire.head()?;
        wire.say(ok("early"))?;
        wire.peer_leaves();
        Ok(())
    });
    let gateway = upstream.setup().table("[process]\nworkers = 1").start();
    for rest in ["zz\r\n", "0\r\nHost: a\r\n\r\n", "0\r\n\r\n"] {
        let mut client = gateway.connect();
        client.raw(&chunked("2\r\n{}\r\n"));
        let answer = client.answer();
        assert_eq!(
            (answer.text().as_str(), answer.header("connection")),
            ("early", Some("close")),
            "{rest:?}"
        );
        // The connection may be over already.
        let _ = client.stream.write_all(&[rest.as_bytes(), AFTER].concat());
        assert_eq!(client.rest(), b"", "{rest:?}");
    }
    assert_eq!(upstream.requests(), 3);
}

#[test]
fn a_connection_that_is_to_close_serves_nothing_more() {
    let bench = Bench::new();
    let request =
        |version: &str, fields: &str| format!("GET /users HTTP/{version}\r\nHost: localhost\r\n{fields}\r\n");
    for (version, fields) in [
        ("1.1", "Connection: close\r\n"),
        ("1.1", "Connection: keep-alive, CLOSE\r\n"),
        ("1.1", "Connection: close\r\nConnection: keep-alive\r\n"),
        ("1.1", "Connection: keep-alive\r\nConnection: close\r\n"),
        ("1.0", ""),
        ("1.0", "Connection: close, keep-alive\r\n"),
        ("1.0", "Keep-Alive: timeout=5\r\n"),
        // An expectation of HTTP/1.0 is none (RFC 9110, 10.1.1).
        ("1.0", "Expect: 100-continue\r\n"),
    ] {
        let mut client = bench.gateway.connect();
        client.raw(&[request(version, fields).as_bytes(), AFTER].concat());
        assert_eq!(client.one_answer(false).status, 200, "{version} {fields}");
        assert_eq!(client.rest(), b"", "{version} {fields}");
        assert_eq!(bench.lines(), ["GET /users HTTP/1.1"], "{version} {fields}");
    }
    for (version, fields) in
        [("1.1", ""), ("1.1", "Connection: keep-alive\r\n"), ("1.0", "Connection: Keep-Alive\r\n")]
    {
        bench.serves(request(version, fields).as_bytes());
    }
    // No 100 either, when there is a body to wait for.
    let mut client = bench.gateway.connect();
    let head = "POST /users HTTP/1.0\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    client.raw(head.as_bytes());
    client.raw(b"{}");
    assert_eq!(client.one_answer(false).status, 200);
}

/// A choice: whoever closes its sending side has left.
#[test]
fn a_caller_that_half_closes_has_left() {
    let (held, told) = mpsc::channel::<()>();
    let told = std::sync::Mutex::new(told);
    let upstream = RawUpstream::start(move |_, wire| {
        wire.head()?;
        _ = held.send(());
        assert!(wire.peer_leaves());
        Ok(())
    });
    let gateway = upstream.setup().table("[process]\nworkers = 1").start();
    let mut client = gateway.connect();
    client.raw(AFTER);
    told.lock().unwrap().recv_timeout(crate::harness::PATIENCE).unwrap();
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest(), b"", "there is no answer");
    upstream.wait_for_ends(1);
    gateway.record(|record| record["decision"] == "aborted");
    // Its bytes are judged all the same: what was complete and bad is answered.
    let mut client = gateway.connect();
    client.raw(&line("GET /users HTTP/1.2"));
    client.stream.shutdown(Shutdown::Write).unwrap();
    is_last(&mut client, MALFORMED, "half-closed");
}

/// A choice: an upload has a time as a whole, not a least rate.
#[test]
fn an_upload_has_a_time_however_slow_or_fast_it_is() {
    let (upstream, log) = recording();
    let gateway =
        upstream.setup().table("[limits]\nupload_timeout_ms = 1000\n[process]\nworkers = 1").start();
    let mut client = gateway.connect();
    client.raw(&chunked("2\r\n{}\r\n"));
    let mut drip = client.stream.try_clone().unwrap();
    let dripping = std::thread::spawn(move || {
        // Each byte is in time, the whole is not. It ends when the gateway has closed.
        while drip.write_all(b"1\r\nx\r\n").is_ok() {
            std::thread::park_timeout(std::time::Duration::from_millis(20));
        }
    });
    let answer = client.answer();
    assert_eq!((answer.status, answer.code().as_str()), (408, "body_timeout"));
    drop(client);
    dripping.join().unwrap();
    assert_eq!(log.take(), []);
    let mut client = Client::connect(gateway.addresses[0]);
    client.raw(&[&chunked("2\r\n{}\r\n0\r\n\r\n")[..], BEFORE].concat());
    assert_eq!((client.answer().status, client.answer().status), (200, 200));
}
