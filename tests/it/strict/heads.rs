//! Request lines, header lines and the fields that frame and route.

use super::{Bench, EXPECTATION, MALFORMED, METHOD, TARGET, get, line, post};

/// What would be the next request if the framing that it follows were read in another way.
const SMUGGLED: &str = "0\r\n\r\nGET /users?smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[test]
fn framing_fields() {
    let bench = Bench::new();
    for fields in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Transfer-Encoding: chunked\r\nX: y\r\ncontent-length: 0\r\n",
        // Only one plain decimal number.
        "Content-Length: 2\r\nContent-Length: 2\r\n",
        "Content-Length: 2\r\ncontent-length: 3\r\n",
        "Content-Length: 2, 2\r\n",
        "Content-Length: 2,\r\n",
        "Content-Length: +2\r\n",
        "Content-Length: -2\r\n",
        "Content-Length: -0\r\n",
        "Content-Length: 02\r\n",
        "Content-Length: 00\r\n",
        "Content-Length: 0x2\r\n",
        "Content-Length: 2.0\r\n",
        "Content-Length: 2e0\r\n",
        "Content-Length: 2 2\r\n",
        "Content-Length: 2;a\r\n",
        "Content-Length: \"2\"\r\n",
        "Content-Length: two\r\n",
        "Content-Length: 1_0\r\n",
        "Content-Length: \u{b}2\r\n",
        "Content-Length: 2\u{c}\r\n",
        "Content-Length: \u{b2}\r\n",
        "Content-Length:\r\n",
        "Content-Length: \t \r\n",
        "Content-Length: 18446744073709551614\r\n",
        "Content-Length: 18446744073709551618\r\n",
        "Content-Length: 340282366920938463463374607431768211458\r\n",
        "Content-Length : 2\r\n",
        // Only one `chunked`.
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: identity, chunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked,\r\n",
        "Transfer-Encoding: ,chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip\r\ntransfer-encoding: chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunkedx\r\n",
        "Transfer-Encoding: chunk\r\n",
        "Transfer-Encoding: cow\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: 'chunked'\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding: chunked chunked\r\n",
        "Transfer-Encoding: \u{b}chunked\r\n",
        "Transfer-Encoding: \u{c}chunked\r\n",
        "Transfer-Encoding: chunked\u{b}\r\n",
        "Transfer-Encoding: chunked\0\r\n",
        "Transfer-Encoding: \u{a0}chunked\r\n",
        "Transfer-Encoding: ch\u{fc}nked\r\n",
        "Transfer-Encoding: chun\u{212a}ed\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding\t: chunked\r\n",
        "Transfer-Encoding\u{b}: chunked\r\n",
        " Transfer-Encoding: chunked\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n",
        "X: y\rTransfer-Encoding: chunked\r\n",
        "X: y\nTransfer-Encoding: chunked\r\n",
        "X: y\n\rTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "Transfer-Encoding:\n chunked\r\n",
        "Transfer-Encoding: chunked\r\n\t\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding: \r\n",
    ] {
        bench.refuses(&post(fields, SMUGGLED), MALFORMED);
    }
    let http_10 = |fields: &str, body: &str| {
        format!("POST /users HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n{fields}\r\n{body}")
            .into_bytes()
    };
    bench.refuses(&http_10("Transfer-Encoding: chunked\r\n", SMUGGLED), MALFORMED);

    for (fields, body) in [
        ("", ""),
        ("Content-Length: 0\r\n", ""),
        ("Content-Length: 2\r\n", "{}"),
        ("content-LENGTH:2\r\n", "{}"),
        ("Content-Length: \t2 \t\r\n", "{}"),
        ("Transfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"),
        ("transfer-encoding:CHUNKED\r\n", "2\r\n{}\r\n0\r\n\r\n"),
        ("Transfer-Encoding: \t chunked \t\r\n", "2\r\n{}\r\n0\r\n\r\n"),
    ] {
        let seen = bench.serves(&post(fields, body));
        assert_eq!(seen.body, if body.is_empty() { &b""[..] } else { b"{}" }, "{fields}");
    }
    assert_eq!(bench.serves(&http_10("Content-Length: 2\r\n", "{}")).body, b"{}");
}

#[test]
fn line_ends_and_bytes() {
    let bench = Bench::new();
    for bytes in [
        &b"GET /users HTTP/1.1\nHost: localhost\n\n"[..],
        b"GET /users HTTP/1.1\nHost: localhost\r\n\r\n",
        b"GET /users HTTP/1.1\r\nHost: localhost\n\r\n",
        b"GET /users HTTP/1.1\r\nHost: localhost\r\n\n",
        b"GET /users HTTP/1.1\r\nHost: localhost\n\n",
        b"GET /users HTTP/1.1\rHost: localhost\r\n\r\n",
        b"GET /users HTTP/1.1\r\r\nHost: localhost\r\n\r\n",
        b"GET /users HTTP/1.1\r\nHost: localhost\r\r\n\r\n",
        b"GET /users HTTP/1.1\r\nHost: localhost\rX: y\r\n\r\n",
        b"GET /users HTTP/1.1\r\nHost: localhost\r\n\r\r\n",
        b"GET /users HTTP/1.1\n\rHost: localhost\n\r\n\r",
        b"\r\nGET /users HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\nGET /users HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\rGET /users HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\0GET /users HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\xef\xbb\xbfGET /users HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /users HTTP/1.1\r\nHost: localhost\r\nX: \xff\r\n\r\n",
        b"GET /users HTTP/1.1\r\n\r\nHost: localhost\r\n\r\n",
        // A space or tab where a line begins.
        b" GET /users HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /users HTTP/1.1\r\n Host: localhost\r\n\r\n",
        b"GET /users HTTP/1.1\r\n\tX: y\r\nHost: localhost\r\n\r\n",
        b"GET /users HTTP/1.1\r\nHost:\r\n localhost\r\n\r\n",
        b"GET /users HTTP/1.1\r\nHost: localhost\r\n \r\n",
        b"GET /users HTTP/1.1\r\nHost: localhost\r\n \r\n\r\n",
    ] {
        bench.refuses(bytes, MALFORMED);
    }
    for fields in [
        "X: a\r\n b\r\n",
        "X: a\r\n\tb\r\n",
        "X:\r\n b\r\n",
        "X : y\r\n",
        "X\t: y\r\n",
        "X \r\n",
        "X\r\n",
        ": y\r\n",
        ":\r\n",
    ] {
        bench.refuses(&get(fields), MALFORMED);
    }
    // Control bytes and what is outside ASCII, in values, names, targets and methods.
    for byte in (0..=0x1f).chain([0x7f, 0x80, 0x85, 0xa0, 0xff]) {
        let with = |start: &[u8], end: &[u8]| [start, &[byte], end].concat();
        if byte != b'\t' {
            bench.refuses(&with(b"GET /users HTTP/1.1\r\nHost: localhost\r\nX: a", b"b\r\n\r\n"), MALFORMED);
        }
        bench.refuses(&with(b"GET /users HTTP/1.1\r\nHost: localhost\r\nX", b"y: z\r\n\r\n"), MALFORMED);
        // A tab is a visible byte's neighbour in a line; it stands in no target.
        let verdict = if byte == b'\t' { TARGET } else { MALFORMED };
        bench.refuses(&with(b"GET /us", b"ers HTTP/1.1\r\nHost: localhost\r\n\r\n"), verdict);
        bench.refuses(&with(b"GE", b"T /users HTTP/1.1\r\nHost: localhost\r\n\r\n"), MALFORMED);
    }
    // Separators in names (RFC 9110, 5.6.2), and tokens beyond what names are made of.
    for separator in "\"(),/:;<=>?@[\\]{} !#$%&'*+.^`|~".chars() {
        let name = format!("X{separator}Y: z\r\n");
        // `X` is a name, and `Y: z` its value.
        if separator != ':' {
            bench.refuses(&get(&name), MALFORMED);
        }
    }
    for fields in [
        "X: \t a\tb \t\r\n",
        "X:\r\n",
        "X: \r\n",
        "x-Y_9: !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~\r\n",
        "X: a\r\nX: b\r\n",
    ] {
        bench.serves(&get(fields));
    }
}

#[test]
fn request_lines() {
    let bench = Bench::new();
    for text in [
        // Versions.
        "GET /users",
        "GET /users ",
        "GET /users HTTP/0.9",
        "GET /users HTTP/1.2",
        "GET /users HTTP/1.9",
        "GET /users HTTP/1",
        "GET /users HTTP/1.",
        "GET /users HTTP/1.10",
        "GET /users HTTP/01.1",
        "GET /users HTTP/1.1.1",
        "GET /users HTTP/1,1",
        "GET /users HTTP/2",
        "GET /users HTTP/2.0",
        "GET /users HTTP/3.0",
        "GET /users HTTP/ 1.1",
        "GET /users HTTP1.1",
        "GET /users http/1.1",
        "GET /users Http/1.1",
        "GET /users HTTPS/1.1",
        "GET /users ICY/1.1",
        "GET /users HTTP/1.1 ",
        "GET /users HTTP/1.1 HTTP/1.1",
        "GET /users\tHTTP/1.1",
        "GET /users  HTTP/1.1",
        // Parts and spaces.
        "GET",
        "GET ",
        "GET HTTP/1.1",
        "GET  HTTP/1.1",
        " /users HTTP/1.1",
        "/users HTTP/1.1",
        "GET  /users HTTP/1.1",
        "GET\t/users HTTP/1.1",
        "GET /us ers HTTP/1.1",
        "G(T /users HTTP/1.1",
        "GET: /users HTTP/1.1",
        "\"GET\" /users HTTP/1.1",
        "HTTP/1.1 200 OK",
    ] {
        bench.refuses(&line(text), MALFORMED);
    }
    for bytes in [
        // HTTP/0.9, an HTTP/2 preface, TLS, PROXY, and no protocol at all.
        &b"GET /users\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x12\x04\0\0\0\0\0",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"\r\n\r\n",
        b"{}\r\n",
    ] {
        bench.refuses(bytes, MALFORMED);
    }
    for method in [
        "CONNECT", "TRACE", "TRACK", "DEBUG", "PROPFIND", "PURGE", "LINK", "PRI", "SOURCE", "get", "Get",
        "GETX", "XGET",
    ] {
        bench.refuses(&line(&format!("{method} /users HTTP/1.1")), METHOD);
    }
    for text in ["CONNECT localhost:443 HTTP/1.1", "CONNECT api.mx.com:443 HTTP/1.1", "TRACE * HTTP/1.1"] {
        bench.refuses(&line(text), METHOD);
    }
    for method in ["GET", "POST"] {
        let seen = bench.serves(&line(&format!("{method} /users HTTP/1.1")));
        assert_eq!(seen.line, format!("{method} /users HTTP/1.1"));
    }
}

#[test]
fn expectations_and_upgrades() {
    let bench = Bench::new();
    for value in [
        "200-ok",
        "",
        "100",
        "100-continue, x",
        "100-continue,100-continue",
        "100-continue;a=b",
        "100-continue\r\nExpect: 100-continue",
        "\"100-continue\"",
    ] {
        bench.refuses(&get(&format!("Expect: {value}\r\n")), EXPECTATION);
        bench.refuses(&post(&format!("Expect: {value}\r\nContent-Length: 2\r\n"), "{}"), EXPECTATION);
    }
    bench.refuses(&post("Expect : 100-continue\r\nContent-Length: 2\r\n", "{}"), MALFORMED);
    bench.serves(&get("Expect: 100-Continue\r\n"));

    // An upgrade that is asked for is not passed on, and what follows is HTTP/1.1 as before.
    for fields in [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==\r\n",
        "Upgrade: h2c\r\n",
        "Connection: upgrade\r\n",
        "Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n",
    ] {
        let seen = bench.serves(&get(fields));
        let fields = seen.fields.join("\n").to_lowercase();
        for gone in ["upgrade", "http2-settings", "sec-websocket", "connection"] {
            assert!(!fields.contains(gone), "{fields}");
        }
        bench.serves(&post("Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n", "{}"));
    }
}
