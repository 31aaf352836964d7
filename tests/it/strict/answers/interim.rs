//! Interim answers (1xx) and the final one behind them.

use super::{Bench, CLOSING, says};

#[test]
fn the_final_answer_comes_after_any_interim_ones() {
    let bench = Bench::new();
    // So that each request has a connection, and a script, of its own.
    let last = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nfive!";
    let one = "HTTP/1.1 100 Continue\r\n\r\n".to_owned();
    let two = "HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n".to_owned();
    let interim = [
        one.clone(),
        two.clone(),
        one.clone() + &two,
        two.clone() + &one,
        one.repeat(2),
        two.repeat(16),
        "HTTP/1.1 102\r\n\r\n".into(),
        "HTTP/1.1 199 X\r\n\r\n".into(),
    ];
    let post = |fields: &str| {
        format!("POST /users HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\r\n\r\n")
    };
    let chunks = "2\r\n{}\r\n0\r\n\r\n";
    let requests = [
        (CLOSING.to_owned(), 0),
        (CLOSING.replace("1.1", "1.0"), 0),
        (CLOSING.replace("GET /users", "DELETE /users/U"), 0),
        (post("Content-Length: 2") + "{}", 2),
        (post("Transfer-Encoding: chunked") + chunks, 12),
        (post("Expect: 100-continue\r\nContent-Length: 2") + "{}", 2),
        (post("Expect: 100-continue\r\nTransfer-Encoding: chunked") + chunks, 12),
    ];
    for interim in &interim {
        for (request, body) in &requests {
            // Before the body was read, after it, and on both sides of it.
            for (takes, says_first) in [(0, true), (*body, true), (*body, false)] {
                let script = if says_first {
                    says(format!("{interim}{last}")).takes(takes)
                } else {
                    says(interim).then(last).takes(takes)
                };
                if script.then.is_some() {
                    bench.go.send(()).unwrap();
                }
                bench.follow(script);
                let mut client = bench.gateway.connect();
                client.raw(request.as_bytes());
                let answer = client.answer();
                assert_eq!(
                    (answer.status, answer.text().as_str()),
                    (200, "five!"),
                    "{request:?} {interim:?}"
                );
                assert_eq!(answer.header("link"), None);
                assert_eq!(client.rest(), b"", "{request:?} {interim:?}");
            }
        }
    }
    // A final answer instead of a 100 is the answer, whether or not the body was sent.
    for fields in
        ["Expect: 100-continue\r\nContent-Length: 2", "Expect: 100-continue\r\nTransfer-Encoding: chunked"]
    {
        bench.follow(says(
            "HTTP/1.1 417 Expectation Failed\r\nConnection: close\r\nContent-Length: 5\r\n\r\nfive!",
        ));
        let mut client = bench.gateway.connect();
        client.raw(post(fields).as_bytes());
        let answer = client.answer();
        assert_eq!((answer.status, answer.text().as_str()), (417, "five!"), "{fields}");
        assert_eq!(client.rest(), b"");
    }
    // Floods end.
    for flood in [two.repeat(17), one.repeat(100_000)] {
        for (request, _) in &requests {
            bench.follow(says(format!("{flood}{last}")));
            let mut client = bench.gateway.connect();
            client.raw(request.as_bytes());
            let answer = client.answer();
            assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_malformed"), "{request:?}");
        }
    }
}
