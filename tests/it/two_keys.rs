//! An environment with two keys: one dies, and nobody notices; a caller's own 401 moves nothing.

mod absent;
mod late;

use std::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Instant,
};

use mxgate::stand_in::{Running, options::Scheme};
use serde_json::Value;

use crate::{
    harness::{API_KEY, CLIENT_ID, Client, Gateway, PATIENCE, Setup, TOKEN, mx, mx_with, until},
    raw_upstream::{RawUpstream, Wire, ok},
};

const SECOND: &str = "s3cond-0ne-as-long-as-the-first";

/// What the gateway asks by itself.
const CONFIRMATION: &str = "listInstitutions";

const POST: &str = "POST /users HTTP/1.1\nContent-Type: application/json\nAccept: application/json";

fn with_two_keys(setup: Setup) -> Setup {
    setup.file("second", SECOND);
    naming_two_keys(setup)
}

fn naming_two_keys(setup: Setup) -> Setup {
    setup.control().credential(&format!(
        "kind = \"basic\", client_id = \"{CLIENT_ID}\", api_key = \"file:DIR/key\", secondary_api_key = \"file:DIR/second\""
    ))
}

fn start() -> (Running, Gateway) {
    let mx = mx();
    mx.set_api_keys(0, both());
    let gateway = with_two_keys(Setup::new(&mx)).start();
    (mx, gateway)
}

fn both() -> Vec<String> {
    vec![API_KEY.into(), SECOND.into()]
}

/// What a rotation in MX's dashboard does: the first key is dead at once.
fn kill_first(mx: &Running) {
    mx.set_api_keys(0, vec![SECOND.into()]);
}

fn get(gateway: &Gateway) -> u16 {
    gateway.get("/users", "").status
}

fn post(gateway: &Gateway, lines: &str) -> u16 {
    gateway.send(&format!("{POST}\n{lines}"), r#"{"user":{"id":"1"}}"#).status
}

/// What `mxgate status` says of the two keys.
fn keys(gateway: &Gateway) -> Value {
    gateway.status()["upstreams"][0]["keys"].clone()
}

fn second_in_use(gateway: &Gateway) -> bool {
    keys(gateway)["secondary_in_use"] == true
}

fn cut_over(gateway: &Gateway) {
    until("the second key is in use", || second_in_use(gateway));
}

/// Waits until the gateway has asked so often by itself.
fn confirmed(mx: &Running, count: u64) {
    until("the gateway asks by itself", || mx.count(CONFIRMATION) >= count);
}

#[test]
fn a_key_that_dies_under_load_costs_no_get_and_sends_no_post_twice() {
    let mx = mx();
    mx.set_api_keys(0, both());
    let gateway = with_two_keys(Setup::new(&mx)).table("[process]\nworkers = 2").start();
    const CONNECTIONS: usize = 16;
    const GETS: usize = 250;
    const POSTS: usize = 200;
    let begun = Instant::now();
    let refused = thread::scope(|scope| {
        let read = |reader: usize| {
            let mut client = gateway.connect();
            for number in 0..GETS {
                if (reader, number) == (0, GETS / 3) {
                    kill_first(&mx);
                }
                client.request("GET /users HTTP/1.1", "");
                let answer = client.answer();
                assert_eq!(answer.status, 200, "{}", answer.text());
            }
        };
        let readers: Vec<_> = (0..CONNECTIONS).map(|reader| scope.spawn(move || read(reader))).collect();
        let statuses: Vec<u16> = (0..POSTS).map(|_| post(&gateway, "")).collect();
        let failed = readers.into_iter().filter_map(|reader| reader.join().err()).count();
        assert_eq!(failed, 0, "a GET failed");
        assert!(statuses.iter().all(|status| matches!(status, 200 | 401)), "{statuses:?}");
        statuses.iter().filter(|status| **status == 401).count()
    });
    cut_over(&gateway);
    assert_eq!(mx.count("createUser"), POSTS as u64, "a POST was sent twice, or not at all");
    let keys = keys(&gateway);
    let again = keys["second_attempts"].as_u64().unwrap();
    assert_eq!(mx.count("listUsers"), (CONNECTIONS * GETS) as u64 + again);
    assert!(again > 0, "no GET met the dead key");
    assert_eq!(keys["cutovers"], 1);
    // One confirmation, which is two reads; and the dead key is tried once a minute.
    let most = 2 + begun.elapsed().as_secs() / 60;
    assert!((2..=most).contains(&mx.count(CONFIRMATION)), "{} of {most}", mx.count(CONFIRMATION));
    assert_eq!(gateway.metric("mxgate_credential_cutovers_total{environment=\"test\"}"), 1.0);
    assert_eq!(gateway.metric("mxgate_credential_secondary_in_use{environment=\"test\"}"), 1.0);
    assert_eq!(gateway.metric("mxgate_credential_second_attempts_total{environment=\"test\"}"), again as f64);
    gateway.stderr.wait_for_count("is used from now on", 1);
    assert_eq!(gateway.stderr.text().matches("is used from now on").count(), 1, "one alarm");
    // From here on no request meets the dead key.
    let before = mx.count("listUsers");
    assert_eq!((get(&gateway), post(&gateway, "")), (200, 200));
    assert_eq!(mx.count("listUsers") - before, 1);
    eprintln!("{again} of {} GETs were sent again, {refused} of {POSTS} POSTs got a 401", CONNECTIONS * GETS);
}

#[test]
fn a_post_that_meets_a_dead_key_is_passed_on_and_the_next_one_works() {
    let (mx, gateway) = start();
    kill_first(&mx);
    assert_eq!((post(&gateway, ""), mx.count("createUser")), (401, 1));
    let record = gateway.record(|record| record["status"] == 401);
    assert_eq!(record["cut_over"], Value::Null);
    assert!(record["credential"]["name"].as_str().unwrap().ends_with("/key"));
    cut_over(&gateway);
    assert_eq!((post(&gateway, ""), mx.count("createUser")), (200, 2));
    assert_eq!(keys(&gateway)["second_attempts"], 0);
}

#[test]
fn the_record_names_the_key_of_the_answer_and_that_there_was_another_attempt() {
    let (mx, gateway) = start();
    assert_eq!(get(&gateway), 200);
    let record = gateway.record(|record| record["operation"] == "listUsers");
    assert_eq!(record["cut_over"], Value::Null);
    assert!(record["credential"]["name"].as_str().unwrap().ends_with("/key"));
    kill_first(&mx);
    assert_eq!(gateway.get("/users/USR-1", "").status, 200);
    let record = gateway.record(|record| record["operation"] == "readUser");
    assert_eq!((&record["cut_over"], &record["status"]), (&true.into(), &200.into()));
    assert!(record["credential"]["name"].as_str().unwrap().ends_with("/second"));
    assert_eq!(record["credential"]["fingerprint"], keys(&gateway)["fingerprint"]);
}

#[test]
fn only_a_401_to_one_of_the_two_keys_is_asked_again_and_only_where_nothing_can_happen_twice() {
    let (mx, gateway) = start();
    let asked = |head: &str, body: &str, operation: &str| {
        let before = mx.count(operation);
        let answer = gateway.send(head, body);
        (answer.status, mx.count(operation) - before)
    };
    let get = |status: u16| format!("GET /users HTTP/1.1\nx-stand-in-status: {status}");
    for status in [200, 302, 400, 403, 404, 406, 407, 409, 422, 429, 500, 502, 503, 504] {
        assert_eq!(asked(&get(status), "", "listUsers"), (status, 1));
    }
    // What carries another credential than a key.
    let token = "GET /account/transactions HTTP/1.1\nx-stand-in-status: 401";
    let operation = mx.requests().len();
    assert_eq!(gateway.send(token, "").status, 401);
    assert_eq!(mx.requests().len() - operation, 1);
    assert_eq!((mx.count(CONFIRMATION), keys(&gateway)["second_attempts"].as_u64()), (0, Some(0)));

    assert_eq!(asked(&get(401), "", "listUsers"), (401, 2));
    let mut client = gateway.connect();
    client.request("HEAD /users HTTP/1.1\nx-stand-in-status: 401", "");
    assert_eq!(client.answer_to_head().status, 401);
    assert_eq!(keys(&gateway)["second_attempts"], 2);
    // No key helps: that is about the request.
    assert_eq!(mx.count(CONFIRMATION), 0);

    let effects = [
        ("createUser", "POST /users", r#"{"user":{"id":"1"}}"#),
        ("updateUser", "PUT /users/USR-1", r#"{"user":{"id":"1"}}"#),
        ("deleteUser", "DELETE /users/USR-1", ""),
        ("deactivateUser", "GET /users/USR-1/investment_holdings_deactivate", ""),
        ("requestOAuthWindowURI", "GET /users/USR-1/members/MBR-1/oauth_window_uri", ""),
        ("readUser", "GET /users/USR-1", "{}"),
    ];
    for (operation, line, body) in effects {
        let head = format!("{line} HTTP/1.1\nContent-Type: application/json\nx-stand-in-status: 401");
        assert_eq!(asked(&head, body, operation), (401, 1), "{operation}");
    }
    // Those do ask for a confirmation, all together for one: the key works.
    confirmed(&mx, 1);
    assert_eq!(keys(&gateway)["second_attempts"], 2);
    assert!(!second_in_use(&gateway));
}

#[test]
fn what_a_caller_passes_through_is_never_followed_by_a_key() {
    let mx = mx();
    mx.set_api_keys(0, both());
    let gateway = with_two_keys(Setup::new(&mx)).bearer_operations("\"pass-through\"").start();
    let ask = |token: &str| {
        let before = mx.requests().len();
        let lines = format!("Authorization: Bearer {token}");
        (gateway.get("/account/transactions", &lines).status, mx.requests().len() - before)
    };
    assert_eq!(ask(TOKEN), (200, 1));
    assert_eq!(ask("an0ther-token"), (401, 1));
    assert_eq!((mx.count(CONFIRMATION), keys(&gateway)["second_attempts"].as_u64()), (0, Some(0)));
}

#[test]
fn every_kind_of_key_has_a_second_one() {
    let query = || Scheme::Query { client_id_name: "client_id".into(), api_key_name: "api_key".into() };
    for (kind, scheme) in [
        ("basic", Scheme::Basic),
        ("api-key", Scheme::ApiKey),
        ("mx-api-key", Scheme::MxApiKey),
        ("query", query()),
    ] {
        let mx = mx_with(|options| options.environments[0].schemes = vec![scheme]);
        let setup = with_two_keys(Setup::new(&mx));
        let gateway = setup
            .credential(&format!(
                "kind = \"{kind}\", client_id = \"{CLIENT_ID}\", api_key = \"file:DIR/key\", \
                 secondary_api_key = \"file:DIR/second\""
            ))
            .start();
        assert_eq!(gateway.get("/users?page=2", "").status, 200, "{kind}");
        kill_first(&mx);
        assert_eq!(gateway.get("/users?page=2", "").status, 200, "{kind}");
        assert_eq!(mx.count("listUsers"), 3, "{kind}");
        cut_over(&gateway);
        assert_eq!(gateway.get("/users?page=2", "").status, 200, "{kind}");
        assert_eq!(mx.count("listUsers"), 4, "{kind}");
        for request in mx.requests().iter().filter(|request| request.operation == Some(CONFIRMATION)) {
            assert_eq!(request.oddities, [], "{kind}");
            assert_eq!(request.method, "GET");
        }
    }
}

#[test]
fn with_both_keys_dead_the_401_goes_to_the_caller_and_nothing_is_switched() {
    let (mx, gateway) = start();
    mx.set_api_keys(0, vec!["a-third-key-that-nobody-has".into()]);
    let answer = gateway.get("/users", "");
    assert_eq!((answer.status, answer.code()), (401, String::new()));
    assert_eq!((mx.count("listUsers"), mx.count(CONFIRMATION)), (2, 0));
    assert_eq!(post(&gateway, ""), 401);
    confirmed(&mx, 2);
    gateway.stderr.wait_for(|line| line.contains("MX refuses both keys"));
    assert_eq!((second_in_use(&gateway), keys(&gateway)["cutovers"].as_u64()), (false, Some(0)));
    assert_eq!(mx.count("createUser"), 1);
}

#[test]
fn a_second_key_that_is_not_there_is_none_until_it_appears() {
    let mx = mx();
    let mut gateway = naming_two_keys(Setup::new(&mx)).start();
    assert_eq!((get(&gateway), keys(&gateway)), (200, Value::Null));
    kill_first(&mx);
    assert_eq!((get(&gateway), mx.count("listUsers")), (401, 2), "there is one key");
    gateway.setup.file("second", SECOND);
    until("it is picked up", || keys(&gateway) != Value::Null);
    assert_eq!((get(&gateway), mx.count("listUsers")), (200, 4));
    cut_over(&gateway);
    // One that goes again is no fault either: the first key is what is left.
    std::fs::remove_file(gateway.setup.folder().join("second")).unwrap();
    until("that is picked up", || keys(&gateway) == Value::Null);
    assert_eq!(get(&gateway), 401);
    // Anything else that is wrong with it is one: the old keys stay.
    gateway.setup.file("second", "short");
    gateway.stderr.wait_for(|line| line.contains("is shorter than 8 bytes"));
    // The same key twice is one key.
    gateway.setup.file("second", API_KEY);
    gateway.signal("HUP");
    until("the fault is gone", || gateway.status()["reload_fault"] == Value::Null);
    assert_eq!(keys(&gateway), Value::Null);
    gateway.signal("TERM");
    assert!(gateway.wait().success());
}

#[test]
fn a_reload_keeps_the_preference_and_another_key_begins_anew() {
    let (mx, mut gateway) = start();
    kill_first(&mx);
    assert_eq!(get(&gateway), 200);
    cut_over(&gateway);
    let generation = |gateway: &Gateway| gateway.status()["generation"].as_u64();
    let before = generation(&gateway);
    gateway.setup.top = "allow = [\"127.0.0.0/8\", \"10.0.0.0/8\"]\n".into();
    gateway.reconfigure();
    until("it is loaded", || generation(&gateway) > before);
    let sent = mx.count("listUsers");
    assert_eq!((get(&gateway), mx.count("listUsers") - sent), (200, 1));
    assert!(second_in_use(&gateway));
    assert_eq!(keys(&gateway)["cutovers"], 1);
    // The dead key is replaced.
    const THIRD: &str = "th1rd-0ne-as-long-as-the-first";
    mx.set_api_keys(0, vec![THIRD.into(), SECOND.into()]);
    gateway.setup.file("key", THIRD);
    until("it is loaded", || !second_in_use(&gateway));
    assert_eq!((get(&gateway), mx.count("listUsers") - sent), (200, 2));
    assert_eq!(keys(&gateway)["cutovers"], 0);
}

#[test]
fn nothing_is_asked_that_an_operator_has_stopped() {
    let (mx, gateway) = start();
    gateway.command(&["suspend", "operation", CONFIRMATION]).unwrap();
    kill_first(&mx);
    assert_eq!(post(&gateway, ""), 401);
    gateway.stderr.wait_for(|line| line.contains("could not be found out"));
    assert_eq!((get(&gateway), mx.count(CONFIRMATION), second_in_use(&gateway)), (200, 0, false));
    gateway.command(&["resume", "operation", CONFIRMATION]).unwrap();
    assert_eq!(post(&gateway, ""), 401);
    cut_over(&gateway);
}

#[test]
fn both_attempts_together_keep_to_the_budget() {
    let mx = mx();
    mx.set_api_keys(0, both());
    let budget = "budget = { get = { requests_per_second = 1, burst = 5 } }";
    let gateway = with_two_keys(Setup::new(&mx)).in_environment(budget).start();
    let begun = Instant::now();
    let statuses: Vec<u16> = (0..8).map(|_| gateway.get("/users", "x-stand-in-status: 401").status).collect();
    let most = 5 + begun.elapsed().as_secs() + 1;
    assert!(mx.count("listUsers") <= most, "{} of {most}", mx.count("listUsers"));
    assert_eq!(statuses[..3], [401, 401, 401]);
    assert!(mx.count("listUsers") >= 5);
    // Of the fifth token's request the first answer is the answer.
    let records = |fits: fn(&Value) -> bool| {
        gateway.record(|record| record["status"] == 401 && fits(record));
    };
    records(|record| record["cut_over"] == true);
    records(|record| record["cut_over"].is_null());
}

#[test]
fn both_attempts_together_keep_to_the_total_time() {
    let mx = mx();
    mx.set_api_keys(0, both());
    let timeouts = "total_timeout_ms = 1500\nfirst_byte_timeout_ms = 1500";
    let gateway = with_two_keys(Setup::new(&mx)).in_environment(timeouts).start();
    let answer = gateway.get("/users", "x-stand-in-status: 401\nx-stand-in-slow-head: 1000");
    assert_eq!((answer.status, answer.code().as_str()), (504, "total_timeout"));
    assert_eq!(mx.count("listUsers"), 2);
}

/// Whether a request carries the second key.
fn carries_second(head: &str) -> bool {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    head.contains(&BASE64_STANDARD.encode(format!("{CLIENT_ID}:{SECOND}")))
}

const UNAUTHORIZED: &str =
    "HTTP/1.1 401 Unauthorized\r\nX-First: of the first\r\nContent-Length: 16\r\n\r\nthe first answer";

#[test]
fn a_path_that_takes_one_key_only_moves_nothing_however_often_it_is_asked() {
    let confirmations = Arc::new(AtomicU64::new(0));
    let asked = confirmations.clone();
    let upstream = RawUpstream::start(move |_, wire: &mut Wire| {
        loop {
            let head = wire.head()?;
            let confirms = head.starts_with("GET /institutions?");
            asked.fetch_add(u64::from(confirms), Relaxed);
            let takes = confirms || carries_second(&head);
            wire.say(if takes { ok("{}") } else { UNAUTHORIZED.to_owned() })?;
        }
    });
    let gateway = with_two_keys(upstream.setup()).start();
    let begun = Instant::now();
    let mut client = gateway.connect();
    for _ in 0..500 {
        client.request("GET /users/USR-1 HTTP/1.1", "");
        assert_eq!(client.answer().status, 200);
    }
    until("it is confirmed", || confirmations.load(Relaxed) > 0);
    let most = begun.elapsed().as_secs() / 5 + 1;
    assert!(confirmations.load(Relaxed) <= most, "{} of {most}", confirmations.load(Relaxed));
    let keys = keys(&gateway);
    assert_eq!((&keys["secondary_in_use"], &keys["cutovers"]), (&false.into(), &0.into()));
    assert_eq!(keys["second_attempts"], 500);
}

#[test]
fn nothing_of_the_first_answer_is_in_the_second_and_both_keys_are_masked_there() {
    let both = format!("X-Keys: {API_KEY} {SECOND}\r\n");
    let body = format!("{{\"first\":\"{API_KEY}\",\"second\":\"{SECOND}\"}}");
    let answer = format!("HTTP/1.1 200 OK\r\n{both}Content-Length: {}\r\n\r\n{body}", body.len());
    let chunked = "HTTP/1.1 401 Unauthorized\r\nTransfer-Encoding: chunked\r\nTrailer: X-First\r\n\r\n\
                   3\r\nthe\r\n0\r\nX-First: 1\r\n\r\n";
    let endless = "HTTP/1.1 401 Unauthorized\r\nX-First: 1\r\nContent-Length: 1000000\r\n\r\nand so on";
    let until_close = "HTTP/1.1 401 Unauthorized\r\nX-First: 1\r\n\r\nand so on";
    // Beside each first answer: whether its connection serves the second attempt.
    for (first, serves_on) in [(UNAUTHORIZED, true), (chunked, true), (endless, false), (until_close, false)]
    {
        let second = answer.clone();
        let upstream = RawUpstream::start(move |_, wire: &mut Wire| {
            loop {
                let head = wire.head()?;
                wire.say(if carries_second(&head) { second.as_str() } else { first })?;
            }
        });
        let gateway = with_two_keys(upstream.setup())
            .table("[process]\nworkers = 1")
            // One connection: the first attempt must let go of its own.
            .in_environment("connections_max = 1")
            .start();
        let got = gateway.get("/users", "");
        assert_eq!((got.status, got.header("x-first")), (200, None));
        assert_eq!(
            got.all("x-keys"),
            [format!("{} {}", "*".repeat(API_KEY.len()), "*".repeat(SECOND.len()))]
        );
        let masked =
            body.replace(API_KEY, &"*".repeat(API_KEY.len())).replace(SECOND, &"*".repeat(SECOND.len()));
        assert_eq!(got.text(), masked);
        let record = gateway.record(|record| record["operation"] == "listUsers");
        assert_eq!((&record["masked"], &record["cut_over"]), (&4.into(), &true.into()));
        let attempts = if serves_on { 1 } else { 2 };
        // Each read of the confirmation has its own.
        cut_over(&gateway);
        assert_eq!(upstream.connections(), attempts + 2, "{first}");
    }
}

/// Holds whoever comes until it is opened.
#[derive(Default)]
struct Door {
    state: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Door {
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.0 += 1;
        self.changed.notify_all();
        drop(self.changed.wait_timeout_while(state, PATIENCE, |state| !state.1).unwrap());
    }

    fn wait_for(&self, count: usize) {
        let state = self.state.lock().unwrap();
        let waited = self.changed.wait_timeout_while(state, PATIENCE, |state| state.0 < count).unwrap();
        assert!(!waited.1.timed_out(), "nobody came");
    }

    fn open(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }
}

#[test]
fn a_confirmation_holds_nobody_up_and_does_not_end_with_its_caller() {
    let door = Arc::new(Door::default());
    let at_door = door.clone();
    let upstream = RawUpstream::start(move |_, wire: &mut Wire| {
        loop {
            let head = wire.head()?;
            if head.starts_with("GET /institutions?") {
                at_door.pass();
            }
            wire.say(if carries_second(&head) { ok("{}") } else { UNAUTHORIZED.to_owned() })?;
        }
    });
    let gateway = with_two_keys(upstream.setup()).start();
    let mut client = Client::connect(gateway.addresses[0]);
    client.request("DELETE /users/USR-1 HTTP/1.1", "");
    assert_eq!(client.answer().status, 401);
    door.wait_for(1);
    drop(client);
    for _ in 0..20 {
        assert_eq!(get(&gateway), 200);
    }
    assert!(!second_in_use(&gateway));
    door.open();
    cut_over(&gateway);
    assert_eq!(gateway.send("DELETE /users/USR-1 HTTP/1.1", "").status, 200);
}
