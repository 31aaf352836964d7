//! Where one request ends and the next begins, however the bytes come.

use std::{io::Write as _, net::Shutdown};

use http::StatusCode;
use mxgate::stand_in::Running;

use crate::harness::{Client, Setup, mx};

const GOOD: &str = "GET /users HTTP/1.1\r\nHost: localhost\r\n\r\n";

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
