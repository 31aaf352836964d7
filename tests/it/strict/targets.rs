//! Where a request goes: `Host`, authorities and paths.

use super::{Bench, MALFORMED, TARGET, host, line};

#[test]
fn hosts_and_authorities() {
    let bench = Bench::new();
    for fields in [
        "",
        "X-Host: localhost\r\n",
        "Host_: localhost\r\n",
        "Host: localhost\r\nHost: localhost\r\n",
        "Host: localhost\r\nhOST: localhost\r\n",
        "Host: localhost\r\nHost: api.mx.com\r\n",
        "Host: localhost\r\nHost:\r\n",
        "Host:\r\n",
        "Host: \r\n",
        "Host: localhost, localhost\r\n",
        "Host: localhost localhost\r\n",
        "Host: local host\r\n",
        "Host: localhost/\r\n",
        "Host: localhost/users\r\n",
        "Host: localhost?\r\n",
        "Host: localhost#\r\n",
        "Host: http://localhost\r\n",
        "Host: //localhost\r\n",
        "Host: *\r\n",
        "Host: local%68ost\r\n",
        "Host: .localhost\r\n",
        "Host: localhost..\r\n",
        "Host: a..b\r\n",
        "Host: localhost\\\r\n",
        "Host: \"localhost\"\r\n",
        "Host: <localhost>\r\n",
        // Userinfo.
        "Host: a@localhost\r\n",
        "Host: a:b@localhost\r\n",
        "Host: @localhost\r\n",
        "Host: localhost@\r\n",
        // Ports.
        "Host: localhost:\r\n",
        "Host: localhost:0\r\n",
        "Host: localhost:080\r\n",
        "Host: localhost:+80\r\n",
        "Host: localhost:-80\r\n",
        "Host: localhost:80x\r\n",
        "Host: localhost: 80\r\n",
        "Host: localhost :80\r\n",
        "Host: localhost:0x50\r\n",
        "Host: localhost:65536\r\n",
        "Host: localhost:4294967376\r\n",
        "Host: localhost:80:80\r\n",
        "Host: :80\r\n",
        // IPv6.
        "Host: ::1\r\n",
        "Host: [::1\r\n",
        "Host: ::1]\r\n",
        "Host: []\r\n",
        "Host: [::1]80\r\n",
        "Host: [::1]:\r\n",
        "Host: [127.0.0.1]\r\n",
        "Host: [localhost]\r\n",
        "Host: [fe80::1%25lo]\r\n",
        "Host: [v1.a]\r\n",
    ] {
        bench.refuses(&host(fields), MALFORMED);
    }
    bench.refuses(b"GET /users HTTP/1.0\r\n\r\n", MALFORMED);
    bench.refuses(b"GET http://localhost/users HTTP/1.1\r\n\r\n", MALFORMED);
    bench.refuses(b"GET http://localhost/users HTTP/1.1\r\nHost:\r\n\r\n", MALFORMED);
    // An absolute target for anybody but `Host`.
    for text in [
        "GET http://api.mx.com/users HTTP/1.1",
        "GET https://api.mx.com/users HTTP/1.1",
        "GET http://localhost.api.mx.com/users HTTP/1.1",
        "GET http://localhost:80/users HTTP/1.1",
        "GET http://localhost:/users HTTP/1.1",
        "GET http://localhost./users HTTP/1.1",
        "GET http://127.0.0.1/users HTTP/1.1",
        "GET http://a@localhost/users HTTP/1.1",
        "GET http://a:b@localhost/users HTTP/1.1",
        "GET http://localhost@api.mx.com/users HTTP/1.1",
        "GET http:///users HTTP/1.1",
        "GET http:////users HTTP/1.1",
    ] {
        bench.refuses(&line(text), MALFORMED);
    }
    for text in [
        "http://a@localhost/users",
        "http://localhost:0/users",
        "http://localhost:65536/users",
        "http://[::1/users",
    ] {
        let authority = text.split('/').nth(2).unwrap();
        bench.refuses(format!("GET {text} HTTP/1.1\r\nHost: {authority}\r\n\r\n").as_bytes(), MALFORMED);
    }
    for text in [
        "http://localhost",
        "http://localhost?x",
        "localhost/users",
        "localhost:80",
        "http:/users",
        "http:users",
        "ftp://localhost/users",
        "file:///users",
        "javascript:x",
        "users",
        "*",
        "?x",
        "%2Fusers",
        "\\users",
        "http:\\\\localhost\\users",
    ] {
        bench.refuses(&line(&format!("GET {text} HTTP/1.1")), TARGET);
    }
    bench.refuses(&line("OPTIONS * HTTP/1.1"), TARGET);

    for fields in [
        "Host: localhost\r\n",
        "host:LOCALHOST\r\n",
        "Host: localhost:80\r\n",
        "Host: localhost:65535 \r\n",
        "Host: [::1]\r\n",
        "Host: [::1]:80\r\n",
        "Host: 127.0.0.1\r\n",
    ] {
        bench.serves(&host(fields));
    }
    for text in ["http://localhost/users", "HTTP://LOCALHOST/users"] {
        let seen = bench.serves(&line(&format!("GET {text} HTTP/1.1")));
        assert_eq!(seen.line, "GET /users HTTP/1.1", "what is forwarded is a path");
        let own = format!("host: {}", bench.upstream.address);
        assert!(seen.fields.contains(&own), "{:?}", seen.fields);
    }
}

#[test]
fn paths_with_two_spellings() {
    let bench = Bench::new();
    for path in [
        // Dot segments, raw and encoded, also between `%2F` and before parameters.
        "/users/..",
        "/users/../accounts",
        "/users/../../etc/passwd",
        "/./users",
        "/users/.",
        "/..",
        "/users/..;x/accounts",
        "/users/.;/accounts",
        "/users/..%3Bx",
        "/users/%2e%2e/accounts",
        "/users/%2E%2E/accounts",
        "/users/.%2E/accounts",
        "/users/%2E./accounts",
        "/users%2F..%2Faccounts",
        "/users/..%2Faccounts",
        "/users/%2F../accounts",
        // Backslashes.
        "/users\\accounts",
        "/users/..\\accounts",
        "/users/%5C..",
        "/users/%5caccounts",
        // `#`, and what RFC 3986 has no place for.
        "/users#x",
        "/users?x#y",
        "/users|x",
        "/users^",
        "/users/{a}",
        "/users`",
        "/users<x>",
        "/us\"ers",
        "/users?a=|",
        "/users?a=^",
        "/users?a={b}",
        "/users?a=\"b\"",
        "/users?a=\\",
        "/users?a=`",
        "/users?a=<b>",
        "/users/[a]",
        // Control bytes and bytes that are not UTF-8.
        "/users/%00",
        "/users%00.json",
        "/users/%0d%0a",
        "/users/%0D%0AX:%20y",
        "/users/%09",
        "/users/%7F",
        "/users/%C2%80",
        "/users/%C0%AE%C0%AE",
        "/users/%C0%AF",
        "/users/%E0%80%AF",
        "/users/%ED%A0%80",
        "/users/%FF",
        "/users/%U002F",
        "/users?a=%00",
        "/users?a=%0A",
        // Bad escapes.
        "/users/%",
        "/users/%2",
        "/users/%zz",
        "/users/%%32%46",
        "/users/%+2",
        "/users?a=%",
        "/users?a=%g0",
        // Another spelling of the same, and a second layer.
        "/%75sers",
        "/users%2fx",
        "/users/%7euser",
        "/users/%7Euser",
        "/users/%c3%a9",
        "/users/%252E%252E",
        "/users/%252F",
        "/users/%25%32%46",
    ] {
        bench.refuses(&line(&format!("GET {path} HTTP/1.1")), TARGET);
        bench.refuses(&line(&format!("GET http://localhost{path} HTTP/1.1")), TARGET);
    }
    bench.refuses(b"POST /users/../x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}", TARGET);
    for path in [
        "/users?page=1&search=%7e[]",
        "/users/USR-1%2F2",
        "/users/U%20V",
        "/users/%C3%A9",
        "/users/a.b..c",
        "/users/...",
        "/users/~a",
        "/users/a;b=c",
        "/users/a:b@c!$&'()*+,=",
        "/users?a=../..&b=%2e%2E&c=?/",
        "/users/100%25",
    ] {
        let seen = bench.serves(&line(&format!("GET {path} HTTP/1.1")));
        assert_eq!(
            seen.line,
            format!("GET {path} HTTP/1.1"),
            "the bytes that were judged are the bytes that go"
        );
    }
    // One spelling each, of paths that nobody knows: not malformed, and the connection serves on.
    for path in [
        "/users/",
        "//users",
        "/users//x",
        "/",
        "//",
        "/USERS",
        "/users;x=y",
        "/users%2Fx",
        "/users/U%2Faccounts/x",
    ] {
        let mut client = bench.gateway.connect();
        client.raw(&[line(&format!("GET {path} HTTP/1.1")), super::AFTER.to_vec()].concat());
        let answer = client.answer();
        assert_eq!((answer.status, answer.code().as_str()), (404, "unknown_operation"), "{path}");
        assert_eq!(client.answer().status, 200, "{path}");
        assert_eq!(bench.lines(), ["GET /users?after HTTP/1.1"]);
    }
}
