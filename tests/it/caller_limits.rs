//! What one caller may use: each yes beside its no, and everything is given back.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use mxgate::stand_in::Running;
use serde_json::json;

use crate::harness::{Answer, Client, EVERYTHING, Gateway, Setup, mx, until};

/// Two callers, `127.0.0.1` with these limits and `127.0.0.2` without any.
fn setup(mx: &Running, limits: &str) -> Setup {
    let mut setup = Setup::new(mx).control();
    setup.callers = Some(callers(limits));
    setup
}

fn callers(limits: &str) -> String {
    let one = |name: &str, network: &str, limits: &str| {
        format!(
            "[[caller]]\nname = \"{name}\"\nnetworks = [\"{network}/32\"]\ngrant = {{ test = [{EVERYTHING}] }}\n\
             {limits}\n"
        )
    };
    let limits = format!("limits = {{ {limits} }}");
    one("limited", "127.0.0.1", &limits) + &one("free", "127.0.0.2", "")
}

fn free(gateway: &Gateway) -> Client {
    Client::connect_from(IpAddr::from([127, 0, 0, 2]), gateway.addresses[0])
}

fn get(client: &mut Client, lines: &str) -> Answer {
    client.request(&format!("GET /users HTTP/1.1\n{lines}"), "");
    client.answer()
}

/// What `mxgate status` says of the limited caller.
fn status(gateway: &Gateway) -> serde_json::Value {
    gateway.status()["limits"][0].clone()
}

fn in_flight(gateway: &Gateway, count: u64) {
    until(&format!("{count} in flight"), || status(gateway)["in_flight"]["now"] == count);
}

fn is_over(answer: &Answer, code: &str) -> u64 {
    assert_eq!((answer.status, answer.code().as_str()), (429, code), "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    answer.header("retry-after").expect("when to try again").parse().expect("whole seconds")
}

#[test]
fn a_rate_lets_its_burst_through_and_then_says_when_to_come_back() {
    let mx = mx();
    let gateway = setup(&mx, "requests_per_second = 1, burst = 3").start();
    let (mut client, mut other) = (gateway.connect(), free(&gateway));
    for _ in 0..3 {
        assert_eq!(get(&mut client, "").status, 200);
    }
    let refused = get(&mut client, "");
    assert_eq!(is_over(&refused, "rate_limit"), 1);
    assert_eq!(refused.header("connection"), None, "the connection goes on");
    for _ in 0..10 {
        assert_eq!(get(&mut other, "").status, 200, "another caller has nothing to do with it");
    }
    assert_eq!(mx.received(), 13);
    let record = gateway.record(|record| record["code"] == "rate_limit");
    assert_eq!((&record["caller"], &record["status"]), (&json!("limited"), &json!(429)));
    assert!(record["operation"].is_null(), "the target was not even looked at");
    assert_eq!(gateway.metric("mxgate_refusals_total{code=\"rate_limit\"}"), 1.0);
    // It comes back by itself; what is refused meanwhile does not put it off.
    let began = Instant::now();
    until("there is a token again", || get(&mut client, "").status == 200);
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
}

#[test]
fn other_refusals_come_first_and_use_nothing_up_and_a_bad_target_does() {
    let mx = mx();
    let gateway = setup(&mx, "requests_per_second = 1, burst = 1").start();
    let mut client = gateway.connect();
    for _ in 0..3 {
        let answer = get(&mut client, "Origin: https://evil.example");
        assert_eq!((answer.status, answer.code().as_str()), (403, "browser_not_allowed"));
    }
    client.request("GET /no/such/thing HTTP/1.1", "");
    assert_eq!(client.answer().status, 404);
    client.request("GET /no/such/thing HTTP/1.1", "");
    is_over(&client.answer(), "rate_limit");
    let mut client = gateway.connect();
    client.request("GET /a/../b HTTP/1.1", "");
    is_over(&client.answer(), "rate_limit");
}

#[test]
fn requests_in_flight_are_bounded_and_come_back() {
    let mx = mx();
    let gateway = setup(&mx, "in_flight_max = 2").start();
    let mut slow: Vec<Client> = (0..2).map(|_| gateway.connect()).collect();
    for client in &mut slow {
        client.request("GET /users HTTP/1.1\nx-stand-in-slow-head: 3000", "");
    }
    in_flight(&gateway, 2);
    let mut client = gateway.connect();
    assert_eq!(is_over(&get(&mut client, ""), "in_flight_limit"), 1);
    assert_eq!(get(&mut free(&gateway), "").status, 200);
    // A refused body is not waited for.
    client.request("POST /users HTTP/1.1\nContent-Type: application/json\nContent-Length: 100", "");
    let refused = client.answer();
    is_over(&refused, "in_flight_limit");
    assert_eq!(refused.header("connection"), Some("close"));
    // One leaves without its answer, the other gets it.
    drop(slow.pop());
    in_flight(&gateway, 1);
    assert_eq!(get(&mut gateway.connect(), "").status, 200);
    assert_eq!(slow[0].answer().status, 200);
    in_flight(&gateway, 0);
    assert_eq!(status(&gateway)["refused"], 2);
    let shown = gateway.command(&["status"]).expect("a status");
    assert!(shown.contains("limited: 0 of 2 requests in flight, 2 refused so far\n"), "{shown}");
}

#[test]
fn however_a_caller_leaves_nothing_stays_in_flight() {
    let mx = mx();
    let gateway = setup(&mx, "in_flight_max = 8").start();
    let post = "POST /users HTTP/1.1\nContent-Type: application/json\nContent-Length: 100";
    for _ in 0..3 {
        let mut clients: Vec<Client> = (0..8).map(|_| gateway.connect()).collect();
        for (at, client) in clients.iter_mut().enumerate() {
            match at % 4 {
                0 => client.request("GET /users HTTP/1.1\nx-stand-in-slow-head: 20000", ""),
                1 => client.request("GET /users HTTP/1.1\nx-stand-in-slow-body: 20000", ""),
                2 => client.request(post, ""),
                _ => client.request("GET /users HTTP/1.1\nx-stand-in-big: 100000000", ""),
            }
        }
        in_flight(&gateway, 8);
        drop(clients);
        in_flight(&gateway, 0);
    }
    // Failures and refusals behind the limit, on one connection.
    let mut client = gateway.connect();
    for lines in ["x-stand-in-garbage: true", "x-stand-in-drop: always", "x-stand-in-cut: 10"] {
        let mut client = gateway.connect();
        client.request(&format!("GET /users HTTP/1.1\n{lines}"), "");
        client.answer();
    }
    for _ in 0..20 {
        client.request("GET /no/such/thing HTTP/1.1", "");
        assert_eq!(client.answer().status, 404);
    }
    in_flight(&gateway, 0);
}

#[test]
fn connections_count_from_their_first_request_and_come_back() {
    let mx = mx();
    let gateway = setup(&mx, "connections_max = 2").start();
    let silent: Vec<Client> = (0..5).map(|_| gateway.connect()).collect();
    let (mut one, mut two, mut three) = (gateway.connect(), gateway.connect(), gateway.connect());
    assert_eq!(get(&mut one, "").status, 200);
    assert_eq!(get(&mut two, "").status, 200);
    assert_eq!(get(&mut one, "").status, 200);
    let refused = get(&mut three, "");
    is_over(&refused, "connection_limit");
    assert_eq!(refused.header("connection"), Some("close"));
    assert_eq!(three.rest(), b"");
    assert_eq!(status(&gateway)["connections"], json!({ "now": 2, "max": 2 }));
    assert_eq!(get(&mut free(&gateway), "").status, 200);
    drop(one);
    until("one is gone", || status(&gateway)["connections"]["now"] == 1);
    assert_eq!(get(&mut gateway.connect(), "").status, 200);
    drop((silent, two));
    until("all are gone", || status(&gateway)["connections"]["now"] == 0);
}

/// Behind a proxy one connection carries requests of several callers.
#[test]
fn a_connection_belongs_to_the_caller_of_its_last_request() {
    let mx = mx();
    let mut setup = setup(&mx, "connections_max = 1");
    setup.top = "allow = [\"127.0.0.0/8\"]\ntrusted_proxies = [\"127.0.0.9/32\"]\n".into();
    let gateway = setup.start();
    let proxy = || Client::connect_from(IpAddr::from([127, 0, 0, 9]), gateway.addresses[0]);
    let (mut one, mut two) = (proxy(), proxy());
    let of = |caller: u8| format!("X-Forwarded-For: 127.0.0.{caller}");
    assert_eq!(get(&mut one, &of(1)).status, 200);
    is_over(&get(&mut proxy(), &of(1)), "connection_limit");
    assert_eq!(get(&mut one, &of(2)).status, 200, "it is the other's now");
    assert_eq!(get(&mut two, &of(1)).status, 200);
    is_over(&get(&mut one, &of(1)), "connection_limit");
}

#[test]
fn a_reload_keeps_what_is_in_use_and_takes_other_limits_up() {
    let mx = mx();
    let limits = "in_flight_max = 2, connections_max = 4, requests_per_second = 1, burst = 3";
    let mut gateway = setup(&mx, limits).start();
    let mut slow = gateway.connect();
    slow.request("GET /users HTTP/1.1\nx-stand-in-slow-head: 2000", "");
    in_flight(&gateway, 1);
    gateway.command(&["reload"]).expect("a reload");
    let mut second = gateway.connect();
    second.request("GET /users HTTP/1.1\nx-stand-in-slow-head: 2000", "");
    in_flight(&gateway, 2);
    assert_eq!(status(&gateway)["connections"], json!({ "now": 2, "max": 4 }));
    is_over(&get(&mut gateway.connect(), ""), "in_flight_limit");
    // A higher bound, at once, with the two that are there.
    gateway.setup.callers =
        Some(callers("in_flight_max = 3, connections_max = 4, requests_per_second = 1000"));
    gateway.reconfigure();
    until("it is loaded", || status(&gateway)["in_flight"]["max"] == 3);
    assert_eq!(status(&gateway)["in_flight"]["now"], 2);
    assert_eq!(get(&mut gateway.connect(), "").status, 200);
    assert_eq!((slow.answer().status, second.answer().status), (200, 200));
    in_flight(&gateway, 0);
    // None at all.
    gateway.setup.callers = Some(callers(""));
    gateway.reconfigure();
    until("it is loaded", || gateway.status()["limits"] == json!([]));
    assert_eq!(get(&mut gateway.connect(), "").status, 200);
}

#[test]
fn answers_are_paced_and_no_time_out_counts_that() {
    const BYTES: usize = 1_000_000;
    let mx = mx();
    let setup = setup(&mx, "bytes_per_second = 250_000")
        .in_environment("total_timeout_ms = 2000\nidle_timeout_ms = 1000\nfirst_byte_timeout_ms = 1500");
    let gateway = setup.start();
    let big = format!("x-stand-in-big: {BYTES}");
    let began = Instant::now();
    let answer = get(&mut free(&gateway), &big);
    assert!(answer.whole && answer.body.len() == BYTES && began.elapsed() < Duration::from_millis(2000));
    for lines in [big.clone(), format!("{big}\nx-stand-in-chunked: true")] {
        let began = Instant::now();
        let answer = get(&mut gateway.connect(), &lines);
        let took = began.elapsed();
        assert_eq!((answer.status, answer.whole, answer.body.len()), (200, true, BYTES));
        // Less a tenth of a second's bytes and the last piece.
        assert!(took > Duration::from_millis(3500) && took < Duration::from_secs(10), "{took:?}");
    }
    let record = gateway.record(|record| record["caller"] == "limited" && record["bytes_out"] == BYTES);
    assert_eq!((&record["decision"], &record["code"]), (&json!("allowed"), &json!(null)));
    // An upstream that stops is still not waited for.
    let began = Instant::now();
    let cut = get(&mut gateway.connect(), "x-stand-in-slow-body: 20000");
    assert!(!cut.whole && began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn uploads_are_paced_and_no_time_out_counts_that() {
    let mx = mx();
    let setup = setup(&mx, "bytes_per_second = 300_000")
        .in_environment("total_timeout_ms = 2500\nfirst_byte_timeout_ms = 1500")
        .table("[limits]\nupload_timeout_ms = 1500\nidle_timeout_ms = 2000");
    let gateway = setup.start();
    let body = format!("{{\"user\":{{\"metadata\":\"{}\"}}}}", "x".repeat(1_500_000));
    let head = "POST /users HTTP/1.1\nContent-Type: application/json\nAccept: application/json";
    let began = Instant::now();
    let mut other = free(&gateway);
    other.request(head, &body);
    assert_eq!(other.answer().status, 200);
    let unpaced = began.elapsed();
    let began = Instant::now();
    let mut client = gateway.connect();
    client.request(head, &body);
    let answer = client.answer();
    let took = began.elapsed();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(took > Duration::from_millis(4500) && took < Duration::from_secs(15), "{took:?}, {unpaced:?}");
    // A caller that stops is still not waited for.
    let mut stuck = gateway.connect();
    stuck.request(&format!("{head}\nContent-Length: 100"), "");
    let answer = stuck.answer();
    assert_eq!((answer.status, answer.code().as_str()), (408, "body_timeout"));
}

/// Many connections at once get what one gets.
#[test]
fn the_pace_is_the_callers_and_not_the_connections() {
    let mx = mx();
    let gateway = setup(&mx, "bytes_per_second = 1_000_000").table("[process]\nworkers = 2").start();
    let began = Instant::now();
    let mut clients: Vec<Client> = (0..4).map(|_| gateway.connect()).collect();
    for client in &mut clients {
        client.request("GET /users HTTP/1.1\nx-stand-in-big: 500000", "");
    }
    for client in &mut clients {
        assert_eq!(client.answer().body.len(), 500_000);
    }
    // 2 MB, less a tenth of a second's and one piece of each.
    let took = began.elapsed();
    assert!(took > Duration::from_millis(1600) && took < Duration::from_secs(12), "{took:?}");
}
