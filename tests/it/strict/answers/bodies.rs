//! What comes behind a head that has gone out, and behind an answer that is over.

use super::{Bench, CLOSING, End, says};

const KEEPING: &str = "GET /users HTTP/1.1\r\nHost: localhost\r\n\r\n";
const OLD: &str = "GET /users HTTP/1.0\r\nHost: localhost\r\n\r\n";
const OLD_KEEPING: &str = "GET /users HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n";

#[test]
fn an_answer_that_breaks_off_or_goes_bad_in_its_body_never_looks_whole() {
    let bench = Bench::new();
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfive!";
    let chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfive!\r\n";
    let close = "HTTP/1.1 200 OK\r\n\r\nfive!";
    let old_close = "HTTP/1.0 200 OK\r\n\r\nfive!";
    let mut scripts = Vec::new();
    for end in [End::Notify, End::Fin, End::Reset, End::Noise] {
        for then in ["", "fiv"] {
            scripts.push(says(length).then(then).ends(end));
        }
        for then in [
            "",
            "5",
            "5\r",
            "5\r\n",
            "5\r\nfiv",
            "5\r\nfive!",
            "5\r\nfive!\r",
            "0",
            "0\r\n",
            "0\r\n\r",
            "0\r\nX: y\r\n",
        ] {
            scripts.push(says(chunk).then(then).ends(end));
        }
        // Only a proper end of TLS tells that nothing is missing.
        if end != End::Notify {
            scripts.extend([close, old_close].map(|head| says(head).then("fiv").ends(end)));
        }
    }
    for then in [
        "xyz\r\n",
        "\r\n",
        "5\nfive!\r\n0\r\n\r\n",
        "5\rfive!\r\n0\r\n\r\n",
        "5;x\r\nfive!\r\n0\r\n\r\n",
        "5;\r\nfive!\r\n0\r\n\r\n",
        "5 \r\nfive!\r\n0\r\n\r\n",
        " 5\r\nfive!\r\n0\r\n\r\n",
        "0x5\r\nfive!\r\n0\r\n\r\n",
        "+5\r\nfive!\r\n0\r\n\r\n",
        "-1\r\n",
        "5\r\nfive!0\r\n\r\n",
        "5\r\nfive!\n0\r\n\r\n",
        "5\r\nfive!!\r\n0\r\n\r\n",
        "00000000000000005\r\nfive!\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n",
        "0\n\n",
        "0\r\n\n",
        "0;x\r\n\r\n",
        "0\r\n\0\r\n",
        "0\r\nX : y\r\n\r\n",
        "0\r\n X: y\r\n\r\n",
        "0\r\nX: a\r\n b\r\n\r\n",
        "0\r\nX: \0\r\n\r\n",
        "0\r\nX: y\n\r\n",
        "0\r\nContent-Length: 5\r\n\r\n",
        "0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "0\r\nSet-Cookie: a=b\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
    ] {
        scripts.push(says(chunk).then(then));
    }
    for script in scripts {
        for request in [KEEPING, OLD, OLD_KEEPING] {
            let (text, reset) = bench.transcript(request, script.clone());
            assert!(!looks_whole(&text, reset), "{request:?} {script:?}: {text:?}, reset: {reset}");
        }
    }
    // What is whole looks so, however TLS ends behind it.
    let mut whole = Vec::new();
    for end in [End::Notify, End::Fin, End::Reset] {
        whole.push(says(length).then("five!").ends(end));
        whole.push(says(chunk).then("5\r\nfive!\r\n0\r\n\r\n").ends(end));
        whole.push(says(chunk).then("00\r\nX: y\r\n\r\n").ends(end));
    }
    whole.push(says(close).then("five!").ends(End::Notify));
    whole.push(says(old_close).then("").ends(End::Notify));
    for script in whole {
        for request in [CLOSING, OLD] {
            let (text, reset) = bench.transcript(request, script.clone());
            assert!(looks_whole(&text, reset) && !reset, "{request:?} {script:?}: {text:?}, reset: {reset}");
        }
    }
}

/// Of an answer whose length is not known the end is the connection's: whoever was told that it is kept would wait.
#[test]
fn an_old_caller_is_told_that_its_connection_ends_where_it_does() {
    let length = says("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfive!");
    let chunks = says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfive!\r\n0\r\n\r\n");
    let close = says("HTTP/1.1 200 OK\r\n\r\nfive!").ends(End::Notify);
    for (script, kept) in [(length, true), (chunks, false), (close, false)] {
        // An upstream of its own, since a connection follows one script.
        let bench = Bench::new();
        let mut client = bench.gateway.connect();
        bench.follow(script.clone());
        client.raw(OLD_KEEPING.as_bytes());
        let answer = client.one_answer(false);
        let told = answer.header("connection").map(str::to_ascii_lowercase);
        assert_eq!((answer.status, answer.text().as_str()), (200, "five!"), "{script:?}");
        assert_eq!(told.as_deref(), Some(if kept { "keep-alive" } else { "close" }), "{script:?}");
        let mut client = bench.gateway.connect();
        client.raw(OLD_KEEPING.replace("/users", "/%zz").as_bytes());
        let answer = client.one_answer(false);
        assert_eq!((answer.status, answer.header("connection")), (400, Some("close")));
    }
}

/// Whether a caller that reads by the rules takes this for a whole answer.
fn looks_whole(text: &str, reset: bool) -> bool {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
    let head = head.to_lowercase();
    assert!(
        head.starts_with("http/1.") && body.starts_with(|first: char| first.is_ascii_alphanumeric()),
        "{text:?}"
    );
    assert!(!body.contains("HTTP/1.1") && body.contains("five!"), "{text:?}");
    if head.contains("transfer-encoding: chunked") {
        assert!(!body.contains("\r\n0\r\n") || body.ends_with("\r\n0\r\n\r\n"), "{text:?}");
        body.ends_with("\r\n0\r\n\r\n")
    } else if let Some((_, length)) = head.split_once("content-length: ") {
        let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
        assert!(body.len() <= length, "{text:?}");
        body.len() == length
    } else {
        !reset
    }
}

#[test]
fn what_comes_beside_an_answer_reaches_nobody() {
    let bench = Bench::new();
    let mut client = bench.gateway.connect();
    let mut ended = 0;
    let stray = [
        "\r\n",
        "x",
        "\0",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray",
        "HTTP/1.1 103 Early Hints\r\n\r\n",
        "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n",
    ];
    let answers = [
        ("GET", 200, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfive!", "five!"),
        ("GET", 200, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""),
        ("GET", 200, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfive!\r\n0\r\n\r\n", "five!"),
        ("GET", 204, "HTTP/1.1 204 No Content\r\n\r\n", ""),
        ("GET", 204, "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", ""),
        ("GET", 304, "HTTP/1.1 304 Not Modified\r\n\r\n", ""),
        ("GET", 304, "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", ""),
        ("GET", 304, "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", ""),
        ("HEAD", 200, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", ""),
        ("HEAD", 200, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", ""),
        ("HEAD", 200, "HTTP/1.1 200 OK\r\n\r\n", ""),
    ];
    for (method, status, text, body) in answers {
        for stray in stray {
            // In one piece with the answer, and when the caller has it.
            for at_once in [true, false] {
                let script = if at_once { says(format!("{text}{stray}")) } else { says(text).then(stray) };
                bench.follow(script);
                client.request(&format!("{method} /users HTTP/1.1"), "");
                let answer = if method == "HEAD" { client.answer_to_head() } else { client.answer() };
                assert_eq!(
                    (answer.status, answer.text().as_str(), answer.whole),
                    (status, body, true),
                    "{text:?} {stray:?}"
                );
                if !at_once {
                    bench.go.send(()).unwrap();
                }
                ended += 1;
                // The gateway closes at once, not when somebody asks again.
                bench.upstream.wait_for_ends(ended);
            }
        }
    }
    assert_eq!(bench.upstream.connections(), ended);
}
