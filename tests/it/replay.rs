//! What is sent twice, and what never is.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use mxgate::stand_in::switches::Switches;

use crate::{
    harness::{Gateway, Setup, mx},
    raw_upstream::{RawUpstream, Wire, ok},
};

const ONE_WORKER: &str = "[process]\nworkers = 1";

/// Every method that changes something, and the two GETs that have effects.
const EFFECTS: [(&str, &str, &str); 6] = [
    ("createUser", "POST", "/users"),
    ("updateUser", "PUT", "/users/USR-1"),
    ("deleteUser", "DELETE", "/users/USR-1"),
    ("aggregateMember", "POST", "/users/USR-1/members/MBR-1/aggregate"),
    ("deactivateUser", "GET", "/users/USR-1/investment_holdings_deactivate"),
    ("requestOAuthWindowURI", "GET", "/users/USR-1/members/MBR-1/oauth_window_uri"),
];

fn ask(gateway: &Gateway, method: &str, path: &str) -> (u16, String) {
    let body = if matches!(method, "POST" | "PUT") { r#"{"user":{"id":"1"}}"# } else { "" };
    let answer = gateway.send(&format!("{method} {path} HTTP/1.1\nContent-Type: application/json"), body);
    (answer.status, answer.code())
}

fn is_pooled_and_ready(gateway: &Gateway) {
    assert_eq!(ask(gateway, "GET", "/users"), (200, String::new()));
}

#[test]
fn a_connection_that_was_closed_between_requests_harms_none_of_any_method() {
    let mx = mx();
    let gateway = Setup::new(&mx).table(ONE_WORKER).start();
    for round in 1..=5 {
        for (operation, method, path) in EFFECTS.into_iter().chain([("readUser", "GET", "/users/USR-1")]) {
            is_pooled_and_ready(&gateway);
            mx.close_connections();
            let (status, code) = ask(&gateway, method, path);
            // A close that is under way when the request is sent fails it; only a plain GET is sent again.
            let lost = operation != "readUser" && code == "upstream_closed";
            assert!(status < 300 || lost, "{operation}: {status} {code}");
            assert!(mx.count(operation) <= round, "{operation} arrived twice");
        }
    }
}

#[test]
fn a_connection_that_breaks_on_use_costs_no_get_and_repeats_nothing_with_effects() {
    for how in ["reused", "reused,reset"] {
        let mx = mx();
        let gateway = Setup::new(&mx).table(ONE_WORKER).start();
        for round in 1..=3 {
            for (operation, method, path) in EFFECTS {
                is_pooled_and_ready(&gateway);
                set(&mx, how);
                assert_eq!(ask(&gateway, method, path), (502, "upstream_closed".into()), "{operation}");
                assert_eq!(mx.count(operation), round, "{operation}");
                set(&mx, "never");
            }
            is_pooled_and_ready(&gateway);
            set(&mx, how);
            let before = mx.count("readUser");
            assert_eq!(ask(&gateway, "GET", "/users/USR-1"), (200, String::new()));
            assert_eq!(mx.count("readUser") - before, 2);
            let mut client = gateway.connect();
            client.request("HEAD /users/USR-1 HTTP/1.1", "");
            assert_eq!(client.answer_to_head().status, 200);
            set(&mx, "never");
        }
    }
}

/// Every request on a connection that had one before is dropped, as `how` says.
fn set(mx: &mxgate::stand_in::Running, how: &str) {
    let mut switches = Switches::default();
    if how != "never" {
        switches.set("drop", how).unwrap();
    }
    mx.set_switches(switches);
}

#[test]
fn a_request_is_repeated_at_most_once_and_only_on_a_new_connection() {
    let mx = mx();
    let gateway = Setup::new(&mx).table(ONE_WORKER).start();
    is_pooled_and_ready(&gateway);
    set(&mx, "always");
    assert_eq!(ask(&gateway, "GET", "/users/USR-1"), (502, "upstream_closed".into()));
    assert_eq!(mx.count("readUser"), 2);
    // A new connection that breaks is no stale one: nothing says that another would do better.
    assert_eq!(ask(&gateway, "GET", "/users/USR-1"), (502, "upstream_closed".into()));
    assert_eq!((mx.count("readUser"), mx.connections()), (3, 3));
}

#[test]
fn a_get_with_a_body_is_not_repeated() {
    let mx = mx();
    let gateway = Setup::new(&mx).table(ONE_WORKER).start();
    is_pooled_and_ready(&gateway);
    set(&mx, "reused");
    let answer = gateway.send("GET /users/USR-1 HTTP/1.1", "{}");
    assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_closed"));
    assert_eq!(mx.count("readUser"), 1);
}

#[test]
fn a_malformed_answer_on_a_pooled_connection_is_not_asked_for_again() {
    let upstream = RawUpstream::start(|_, wire| {
        wire.head()?;
        wire.say(ok("{}"))?;
        wire.head()?;
        wire.say("HTTP/1.1 200 OK\nContent-Length: 0\n\n")?;
        wire.peer_leaves();
        Ok(())
    });
    let gateway = upstream.setup().table(ONE_WORKER).start();
    is_pooled_and_ready(&gateway);
    assert_eq!(ask(&gateway, "GET", "/users"), (502, "upstream_malformed".into()));
    assert_eq!((upstream.requests(), upstream.connections()), (2, 1));
}

#[test]
fn closes_that_race_with_requests_repeat_nothing_and_lose_no_get() {
    // Each connection ends right after its third answer, while the next request may be on its way.
    let requests = Arc::new(Mutex::new(Vec::new()));
    let (arrived, resets) = (requests.clone(), AtomicUsize::new(0));
    let upstream = RawUpstream::start(move |_, wire: &mut Wire| -> io::Result<()> {
        for _ in 0..3 {
            let head = wire.head()?;
            arrived.lock().unwrap().push(head.lines().next().unwrap_or_default().to_owned());
            wire.say(ok("{}"))?;
        }
        if resets.fetch_add(1, Ordering::SeqCst) % 2 == 0 {
            wire.reset();
        }
        Ok(())
    });
    let gateway = upstream.setup().table(ONE_WORKER).start();
    let (mut client, mut failed) = (gateway.connect(), 0);
    for number in 0..2_000 {
        let is_get = number % 2 == 0;
        let method = if is_get { "GET" } else { "DELETE" };
        client.request(&format!("{method} /users/USR-{number} HTTP/1.1"), "");
        let answer = client.answer();
        if answer.status != 200 {
            assert_eq!((is_get, answer.code().as_str()), (false, "upstream_closed"), "{number}");
            failed += 1;
        }
    }
    let requests = requests.lock().unwrap();
    let deleted: Vec<_> = requests.iter().filter(|line| line.starts_with("DELETE")).collect();
    let mut once = deleted.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), deleted.len(), "a DELETE arrived twice");
    assert!(deleted.len() + failed >= 1_000 && failed < 100, "{failed} of 1000 failed");
}
