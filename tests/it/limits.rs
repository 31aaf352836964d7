//! What one caller can cost is bounded.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Shutdown},
    time::{Duration, Instant},
};

use mxgate::stand_in::Running;

use crate::harness::{Client, Gateway, Setup, mx, until};

fn limited(mx: &Running, limits: &str) -> Gateway {
    Setup::new(mx).table(&format!("[limits]\n{limits}")).start()
}

fn get(fields: &str) -> String {
    format!("GET /users HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")
}

fn post(fields: &str) -> String {
    let types = "Content-Type: application/json\r\nAccept: application/json\r\n";
    format!("POST /users HTTP/1.1\r\nHost: localhost\r\n{types}{fields}\r\n")
}

fn is_refused(gateway: &Gateway, bytes: &str, status: u16, code: &str) {
    let mut client = gateway.connect();
    client.raw(bytes.as_bytes());
    let answer = client.answer();
    assert_eq!((answer.status, answer.code().as_str()), (status, code));
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(client.rest(), b"");
    gateway.record(|record| record["code"] == code && record["status"] == status);
}

fn is_served(gateway: &Gateway, bytes: &str) {
    let mut client = gateway.connect();
    client.raw(bytes.as_bytes());
    let answer = client.answer();
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn heads_are_bounded() {
    let mx = mx();
    let gateway = limited(&mx, "request_line_bytes_max = 256\nheader_bytes_max = 1024\nheader_count_max = 8");
    let path = |line_bytes: usize| {
        format!("/users?search={}", "a".repeat(line_bytes - "GET /users?search= HTTP/1.1".len()))
    };
    let request = |line_bytes| format!("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", path(line_bytes));
    is_served(&gateway, &request(256));
    is_refused(&gateway, &request(257), 414, "request_line_too_long");
    // It is refused as soon as that is known, not when the line has ended.
    is_refused(&gateway, &request(9_000)[..257 + "GET ".len()], 414, "request_line_too_long");

    let padded = |bytes: usize| get(&format!("X: {}\r\n", "y".repeat(bytes - get("X: \r\n").len())));
    is_served(&gateway, &padded(1024));
    is_refused(&gateway, &padded(1025), 431, "header_too_large");
    is_refused(&gateway, &padded(60_000)[..1024], 431, "header_too_large");

    is_served(&gateway, &get(&"X: y\r\n".repeat(7)));
    is_refused(&gateway, &get(&"X: y\r\n".repeat(8)), 431, "header_too_large");
    assert_eq!(mx.received(), 3);
}

#[test]
fn bodies_are_bounded() {
    let mx = mx();
    let gateway = limited(&mx, "body_bytes_max = 20");
    let fits = "{\"user\":{}}         ";
    is_served(&gateway, &format!("{}{fits}", post("Content-Length: 20\r\n")));
    is_served(&gateway, &format!("{}14\r\n{fits}\r\n0\r\n\r\n", post("Transfer-Encoding: chunked\r\n")));
    assert_eq!(mx.received(), 2);

    is_refused(&gateway, &format!("{}{fits} ", post("Content-Length: 21\r\n")), 413, "body_too_large");
    is_refused(&gateway, &post("Content-Length: 1000000000000\r\n"), 413, "body_too_large");
    is_refused(&gateway, &format!("{}15\r\n", post("Transfer-Encoding: chunked\r\n")), 413, "body_too_large");
    let twice = format!("{}14\r\n{fits}\r\n1\r\n", post("Transfer-Encoding: chunked\r\n"));
    is_refused(&gateway, &twice, 413, "body_too_large");
    // Nobody is told to go on with what is refused anyway.
    let mut client = gateway.connect();
    client.raw(post("Content-Length: 21\r\nExpect: 100-continue\r\n").as_bytes());
    let everything = client.rest();
    assert!(everything.starts_with(b"HTTP/1.1 413 "), "{}", String::from_utf8_lossy(&everything));
    let mut client = gateway.connect();
    client.raw(post("Content-Length: 20\r\nExpect: 100-continue\r\n").as_bytes());
    let mut first = [0; 25];
    client.stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.raw(fits.as_bytes());
    assert_eq!(client.answer().status, 200);
    until("the stand-in has it", || mx.count("createUser") >= 3);
}

#[test]
fn waits_for_callers_are_bounded() {
    let mx = mx();
    let gateway =
        limited(&mx, "header_read_timeout_ms = 300\nidle_timeout_ms = 1000\nupload_timeout_ms = 400");
    // A head that stops, also after a request on the same connection.
    is_refused(&gateway, "GET /users HTTP/1.1\r\nHost:", 408, "head_timeout");
    is_refused(&gateway, "G", 408, "head_timeout");
    let mut client = gateway.connect();
    client.raw(get("").as_bytes());
    assert_eq!(client.answer().status, 200);
    client.raw(b"GET /u");
    assert_eq!((client.answer().status, client.rest().len()), (408, 0));
    // A body that stops.
    for body in [
        format!("{}{{\"user\"", post("Content-Length: 11\r\n")),
        format!("{}B\r\n{{\"user\"", post("Transfer-Encoding: chunked\r\n")),
        post("Content-Length: 11\r\n"),
    ] {
        is_refused(&gateway, &body, 408, "body_timeout");
    }
    // Silence: no answer, since there is no request.
    let began = Instant::now();
    assert_eq!(gateway.connect().rest(), b"");
    assert!(began.elapsed() < Duration::from_millis(900), "the first request is waited for as for a head");
    let mut client = gateway.connect();
    client.raw(get("").as_bytes());
    assert_eq!(client.answer().status, 200);
    let began = Instant::now();
    assert_eq!(client.rest(), b"");
    assert!(began.elapsed() >= Duration::from_millis(1000), "{:?}", began.elapsed());
    assert!(mx.requests().iter().filter(|request| request.method == "GET").count() == 2);
    assert!(
        mx.requests()
            .iter()
            .filter(|request| request.method == "POST")
            .all(|request| request.body.is_empty())
    );
}

/// One byte now and then does not start the wait anew.
#[test]
fn dripping_is_bounded_too() {
    let mx = mx();
    let gateway = limited(&mx, "header_read_timeout_ms = 400\nupload_timeout_ms = 400");
    let body = format!("{}B\r\n", post("Transfer-Encoding: chunked\r\n"));
    for (start, drip) in [("GET /users HTTP/1.1\r\nX: ", "y"), (body.as_str(), "")] {
        let mut client = gateway.connect();
        client.raw(start.as_bytes());
        client.stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let began = Instant::now();
        let mut answer = [0; 12];
        loop {
            // After the refusal there may be nobody to take it.
            let _ = client.stream.write_all(drip.as_bytes());
            match client.stream.read(&mut answer) {
                Ok(count) => break assert_eq!(&answer[..count], b"HTTP/1.1 408"),
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
            }
            assert!(began.elapsed() < Duration::from_secs(5));
        }
        assert!(began.elapsed() >= Duration::from_millis(400));
    }
}

#[test]
fn connections_are_bounded_in_all_and_per_address_and_places_come_back() {
    let mx = mx();
    let gateway = limited(&mx, "connections_max = 5\nconnections_per_address_max = 3");
    let address = gateway.addresses[0];
    let from = |last| Client::connect_from(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), address);
    let serves = |client: &mut Client| {
        client.raw(get("").as_bytes());
        client.answer().status == 200
    };
    let refused = || gateway.metric("mxgate_caller_connections_refused_total");
    let mut one: Vec<_> = (0..3).map(|_| from(1)).collect();
    assert!(one.iter_mut().all(serves));
    assert_eq!(from(1).rest(), b"", "a fourth from one address");
    assert_eq!(refused(), 1.0);
    let mut two: Vec<_> = (0..2).map(|_| from(2)).collect();
    assert!(two.iter_mut().all(serves));
    assert_eq!(from(3).rest(), b"", "a sixth in all");
    assert_eq!(refused(), 2.0);
    assert_eq!(gateway.metric("mxgate_caller_connections_open "), 5.0);
    assert!(one.iter_mut().chain(&mut two).all(serves), "those that are in stay in");
    drop(one.pop());
    until("a place is free", || gateway.metric("mxgate_caller_connections_open ") < 5.0);
    assert!(serves(&mut from(3)));
    assert_eq!(refused(), 2.0);
}

fn nothing_is_left_upstream(gateway: &Gateway, since: Instant) {
    until("the upstream exchange is over", || gateway.metric("mxgate_upstream_connections_open ") == 0.0);
    assert!(since.elapsed() < Duration::from_millis(1500), "{:?}", since.elapsed());
}

/// What a caller left behind is let go within a second, whatever state it left in.
#[test]
fn a_caller_that_left_costs_no_more() {
    let mx = mx();
    let gateway = limited(&mx, "");
    let slow = get("x-stand-in-slow-head: 60000\r\n");
    let ways: [(&str, String); 3] = [
        ("while its answer is waited for", slow.clone()),
        ("with a request behind", format!("{slow}{}", get(""))),
        (
            "with more behind than is kept",
            format!("{slow}{}", get(&format!("X: {}\r\n", "y".repeat(4_000))).repeat(40)),
        ),
    ];
    for (number, (way, bytes)) in ways.iter().enumerate() {
        let mut client = gateway.connect();
        client.raw(bytes.as_bytes());
        until("it is asked", || mx.received() == number as u64 + 1);
        let since = Instant::now();
        if number == 0 {
            client.stream.shutdown(Shutdown::Both).unwrap();
        }
        drop(client);
        nothing_is_left_upstream(&gateway, since);
        until("it is recorded", || gateway.stdout.text().matches("\"aborted\"").count() == number + 1);
        assert_eq!(mx.received(), number as u64 + 1, "{way}: what was behind was never asked");
    }
    // While its answer streams.
    let mut client = gateway.connect();
    client.raw(
        get("x-stand-in-big: 1000000\r\nx-stand-in-piece: 1000\r\nx-stand-in-slow-body: 50\r\n").as_bytes(),
    );
    client.stream.read_exact(&mut [0; 2_000]).unwrap();
    let since = Instant::now();
    drop(client);
    nothing_is_left_upstream(&gateway, since);
}

/// An upload of which the stand-in reads nothing, so that nobody reads from the caller either; and whether it was
/// taken no further at some point.
fn held_back_upload(gateway: &Gateway) -> (Client, bool) {
    let mut client = gateway.connect();
    client.raw(
        post("Content-Length: 90000000\r\nx-stand-in-early: true\r\nx-stand-in-slow-head: 60000\r\n")
            .as_bytes(),
    );
    client.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let piece = [b' '; 1_000_000];
    let blocked =
        std::iter::repeat_with(|| client.stream.write_all(&piece)).take(80).any(|sent| sent.is_err());
    (client, blocked)
}

#[test]
fn a_caller_that_left_during_a_held_back_upload_costs_no_more() {
    let mx = mx();
    let gateway = limited(&mx, "body_bytes_max = 100_000_000");
    let (client, blocked) = held_back_upload(&gateway);
    assert!(blocked, "all of it was taken");
    assert!(gateway.metric("mxgate_upstream_connections_open ") > 0.0);
    // Its system says so at once only with a reset: an orderly end waits behind what was not taken, and then
    // `upload_timeout` is the bound.
    socket2::SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
    let since = Instant::now();
    drop(client);
    nothing_is_left_upstream(&gateway, since);
    gateway.record(|record| record["decision"] == "aborted");
}

/// The upstream reads nothing, so the gateway stops to read; the time goes on.
#[test]
fn a_held_back_upload_ends_with_its_time() {
    let mx = mx();
    let gateway = limited(&mx, "body_bytes_max = 100_000_000\nupload_timeout_ms = 1500");
    // Its time may be over, and the rest read and dropped, before it blocks for that long.
    let (mut client, _) = held_back_upload(&gateway);
    let answer = client.answer();
    assert_eq!((answer.status, answer.code().as_str()), (408, "body_timeout"));
    nothing_is_left_upstream(&gateway, Instant::now());
}

/// It reads nothing, so hyper asks for nothing more of the answer.
#[test]
fn a_caller_that_takes_no_byte_of_its_answer_is_let_go() {
    let mx = mx();
    let gateway = limited(&mx, "idle_timeout_ms = 700");
    let mut client = gateway.connect();
    client.raw(get("x-stand-in-big: 100000000\r\n").as_bytes());
    gateway.record(|record| record["decision"] == "aborted" && record["status"] == 200);
    until("it is gone", || gateway.metric("mxgate_caller_connections_open ") == 0.0);
    until("and its exchange", || gateway.metric("mxgate_upstream_connections_open ") == 0.0);
    let answer = client.answer();
    assert!(!answer.whole);

    // Slowly is fine, as long as something moves.
    let mut client = gateway.connect();
    client.raw(get("x-stand-in-big: 12000000\r\n").as_bytes());
    client.stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let answer = client.answer();
    assert!(answer.whole && answer.body.len() == 12_000_000);
}

/// Held open past the time after which hyper's buffers are given back, then used.
#[test]
fn an_idle_connection_is_parked_and_serves_again() {
    let mx = mx();
    let gateway = limited(&mx, "");
    let mut client = gateway.connect();
    for round in 0..3 {
        client.raw(get("").as_bytes());
        assert_eq!(client.answer().status, 200);
        client.stream.set_read_timeout(Some(Duration::from_millis(900))).unwrap();
        let nothing = client.stream.read(&mut [0; 1]).unwrap_err();
        assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock, "round {round}");
        client.stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    }
    // The first byte wakes it; the rest comes later, and a refusal works as ever.
    for byte in format!("{}{}", get(""), "GET /users HTTP/1.1\n").bytes() {
        client.raw(&[byte]);
    }
    assert_eq!(client.answer().status, 200);
    assert_eq!((client.answer().status, client.rest().len()), (400, 0));
    assert_eq!(mx.received(), 4);
    assert_eq!(gateway.metric("mxgate_caller_connections_accepted_total"), 1.0);
}

/// An HTTP/1.0 caller knows the end of an answer by the end of the connection.
#[test]
fn an_answer_that_breaks_off_never_looks_complete() {
    let mx = mx();
    let gateway = limited(&mx, "");
    let request = |version, fields| format!("GET /users HTTP/{version}\r\nHost: localhost\r\n{fields}\r\n");
    let cut = "x-stand-in-big: 100000\r\nx-stand-in-chunked: true\r\nx-stand-in-cut: 5000\r\n";
    let mut client = gateway.connect();
    client.raw(request("1.0", cut).as_bytes());
    let mut all = Vec::new();
    let end = client.stream.read_to_end(&mut all).unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset, "an orderly end after {} bytes", all.len());
    let mut client = gateway.connect();
    client.raw(request("1.1", cut).as_bytes());
    assert!(!client.answer().whole);

    let whole = "x-stand-in-big: 100000\r\nx-stand-in-chunked: true\r\n";
    let mut client = gateway.connect();
    client.raw(request("1.0", whole).as_bytes());
    let answer = client.answer();
    assert_eq!((answer.status, answer.body.len()), (200, 100_000));
}
