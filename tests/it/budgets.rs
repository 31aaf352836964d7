//! What all callers together may use of an environment, and when it is left alone.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use mxgate::stand_in::Running;
use serde_json::{Value, json};

use crate::{
    harness::{Answer, Client, Gateway, Setup, mx, until},
    raw_upstream::{RawUpstream, ok},
};

fn with_budget(mx: &Running, budget: &str) -> Gateway {
    let one_worker = "[process]\nworkers = 2";
    Setup::new(mx).control().in_environment(&format!("budget = {{ {budget} }}")).table(one_worker).start()
}

fn with_breaker(mx: &Running, more: &str) -> Gateway {
    let breaker = format!("breaker = {{ failures_max = 3, open_ms = 1000 }}\n{more}");
    Setup::new(mx).control().in_environment(&breaker).start()
}

const POST: &str = "POST /users HTTP/1.1\nContent-Type: application/json\nAccept: application/json";

fn get(gateway: &Gateway, lines: &str) -> Answer {
    gateway.get("/users", lines)
}

fn post(gateway: &Gateway, lines: &str) -> Answer {
    gateway.send(&format!("{POST}\n{lines}"), "{\"user\":{}}")
}

fn outcome(answer: &Answer) -> (u16, String) {
    (answer.status, answer.code())
}

fn retry_after(answer: &Answer) -> u64 {
    answer.header("retry-after").expect("when to try again").parse().expect("whole seconds")
}

/// What `mxgate status` says of the environment.
fn upstream_of(gateway: &Gateway) -> Value {
    gateway.status()["upstreams"][0].clone()
}

fn in_flight(gateway: &Gateway, get: u64, other: u64) {
    let now = |budget: &Value, methods: &str| budget[methods]["now"].as_u64();
    until(&format!("{get} and {other} are in flight"), || {
        let budget = upstream_of(gateway)["budget"].clone();
        now(&budget, "get_in_flight") == Some(get) && now(&budget, "other_in_flight") == Some(other)
    });
}

fn slow(gateway: &Gateway, millis: u64) -> Client {
    let mut client = gateway.connect();
    client.request(&format!("GET /users HTTP/1.1\nx-stand-in-slow-head: {millis}"), "");
    client
}

#[test]
fn requests_in_flight_are_shared_by_all_callers_and_split_by_method() {
    let mx = mx();
    let gateway = with_budget(&mx, "get = { in_flight_max = 2 }, other = { in_flight_max = 1 }");
    let clients: Vec<Client> = (0..2).map(|_| slow(&gateway, 20_000)).collect();
    in_flight(&gateway, 2, 0);
    let refused = get(&gateway, "");
    assert_eq!((outcome(&refused), retry_after(&refused)), ((429, "environment_budget".into()), 1));
    // HEAD is one of them, whoever sends it.
    let mut other = Client::connect_from(IpAddr::from([127, 0, 0, 7]), gateway.addresses[0]);
    other.request("HEAD /users HTTP/1.1", "");
    assert_eq!(other.answer_to_head().status, 429);
    assert_eq!(post(&gateway, "").status, 200);
    assert_eq!(gateway.metric("mxgate_budget_in_flight{environment=\"test\",methods=\"get\"}"), 2.0);
    assert_eq!(gateway.metric("mxgate_budget_in_flight_max{environment=\"test\",methods=\"other\"}"), 1.0);
    assert_eq!(gateway.metric("mxgate_refusals_total{code=\"environment_budget\"}"), 2.0);
    drop(clients);
    in_flight(&gateway, 0, 0);
    assert_eq!(get(&gateway, "").status, 200);
    gateway.command(&["reload"]).expect("a reload");
    let _one = slow(&gateway, 20_000);
    in_flight(&gateway, 1, 0);
    gateway.command(&["reload"]).expect("a reload");
    in_flight(&gateway, 1, 0);
}

#[test]
fn the_rate_is_shared_and_only_what_is_sent_uses_it_up() {
    let mx = mx();
    let gateway = with_budget(&mx, "get = { requests_per_second = 1, burst = 2 }");
    for _ in 0..5 {
        assert_eq!(gateway.get("/no/such/thing", "").status, 404);
        assert_eq!(get(&gateway, "Origin: https://evil.example").status, 403);
    }
    assert_eq!((get(&gateway, "").status, get(&gateway, "").status), (200, 200));
    let refused = get(&gateway, "");
    assert_eq!((outcome(&refused), retry_after(&refused)), ((429, "environment_budget".into()), 1));
    for _ in 0..5 {
        assert_eq!(post(&gateway, "").status, 200, "other methods are not limited");
    }
    assert_eq!(mx.received(), 7);
    until("there is a token again", || get(&gateway, "").status == 200);
}

#[test]
fn a_callers_own_limit_comes_first_and_spares_the_budget() {
    let mx = mx();
    let mut setup = Setup::new(&mx).control();
    let caller = |name: &str, network: &str, limits: &str| {
        format!(
            "[[caller]]\nname = \"{name}\"\nnetworks = [\"{network}/32\"]\ngrant = {{ test = [\"read\"] }}\n{limits}\n"
        )
    };
    setup.callers = Some(
        caller("greedy", "127.0.0.1", "limits = { requests_per_second = 1, burst = 2 }")
            + &caller("modest", "127.0.0.2", "limits = { requests_per_second = 1, burst = 2 }"),
    );
    let budget = "budget = { get = { requests_per_second = 1, burst = 3 } }";
    let gateway = setup.in_environment(budget).start();
    let mut greedy = gateway.connect();
    let mut codes = Vec::new();
    for _ in 0..20 {
        greedy.request("GET /users HTTP/1.1", "");
        codes.push(greedy.answer().code());
    }
    assert_eq!(codes[..2], ["", ""]);
    assert!(codes[2..].iter().all(|code| code == "rate_limit"), "{codes:?}");
    let mut modest = Client::connect_from(IpAddr::from([127, 0, 0, 2]), gateway.addresses[0]);
    modest.request("GET /users HTTP/1.1", "");
    assert_eq!(modest.answer().status, 200);
}

#[test]
fn what_mx_asks_for_halves_the_budget_for_that_time() {
    let mx = mx();
    let gateway = with_budget(&mx, "get = { in_flight_max = 4 }, other = { in_flight_max = 1 }");
    // Without Retry-After, or with a status that it does not belong to, nothing happens.
    for lines in ["x-stand-in-status: 429", "x-stand-in-status: 500\nx-stand-in-retry-after: 60"] {
        get(&gateway, lines);
        assert_eq!(upstream_of(&gateway)["budget"]["halved_for_s"], Value::Null, "{lines}");
    }
    let answer = get(&gateway, "x-stand-in-status: 429\nx-stand-in-retry-after: 2");
    assert_eq!((outcome(&answer), answer.header("retry-after")), ((429, String::new()), Some("2")));
    assert_eq!(gateway.metric("mxgate_budget_halved{environment=\"test\"}"), 1.0);
    let _clients: Vec<Client> = (0..2).map(|_| slow(&gateway, 20_000)).collect();
    in_flight(&gateway, 2, 0);
    assert_eq!(outcome(&get(&gateway, "")), (429, "environment_budget".into()));
    assert_eq!(post(&gateway, "").status, 200, "half of one is one");
    let shown = gateway.command(&["status"]).expect("a status");
    assert!(shown.contains("test: GET 2 of 4 in flight, others 0 of 1 in flight, HALVED for "), "{shown}");
    until("it is whole again", || get(&gateway, "").status == 200);
    assert_eq!(gateway.metric("mxgate_budget_halved{environment=\"test\"}"), 0.0);
    // A date, far away: five minutes at most.
    let far = "x-stand-in-status: 503\nx-stand-in-retry-after: Sat, 06 Nov 2094 08:49:37 GMT";
    assert_eq!(get(&gateway, far).status, 503);
    let halved = upstream_of(&gateway)["budget"]["halved_for_s"].as_u64().expect("it is halved");
    assert!((290..=300).contains(&halved), "{halved}");
    get(&gateway, "x-stand-in-status: 429\nx-stand-in-retry-after: 100");
    gateway.stderr.wait_for_count("budget is halved", 2);
    assert_eq!(gateway.stderr.text().matches("budget is halved").count(), 2, "once per change");
}

#[test]
fn a_breaker_opens_when_mx_fails_and_closes_when_it_answers() {
    let mx = mx();
    let gateway = with_breaker(&mx, "");
    assert_eq!(upstream_of(&gateway)["breaker"], "closed");
    for status in [503, 502, 504] {
        assert_eq!(get(&gateway, &format!("x-stand-in-status: {status}")).status, status);
    }
    let opened = Instant::now();
    let received = mx.received();
    let refused = get(&gateway, "");
    assert_eq!((outcome(&refused), retry_after(&refused)), ((503, "breaker_open".into()), 1));
    assert_eq!(outcome(&post(&gateway, "")), (503, "breaker_open".into()));
    assert_eq!(gateway.metric("mxgate_breaker_state{environment=\"test\"}"), 2.0);
    assert_eq!(mx.received(), received, "nothing is sent");
    let shown = gateway.command(&["status"]).expect("a status");
    assert!(shown.contains("test: OPEN for 1s, opened 1 times so far\n"), "{shown}");
    // A reload is no reason to try earlier.
    gateway.command(&["reload"]).expect("a reload");
    assert_eq!(upstream_of(&gateway)["breaker"], json!({ "open": { "for_s": 1 } }));

    until("it is half open", || upstream_of(&gateway)["breaker"] == "half_open");
    assert!(opened.elapsed() > Duration::from_millis(900), "{:?}", opened.elapsed());
    let mut probe = slow(&gateway, 2000);
    until("the probe is there", || mx.received() > received);
    assert_eq!(outcome(&get(&gateway, "")), (503, "breaker_open".into()), "one at a time");
    assert_eq!(probe.answer().status, 200);
    assert_eq!((get(&gateway, "").status, post(&gateway, "").status), (200, 200));
    assert_eq!(gateway.metric("mxgate_breaker_opened_total{environment=\"test\"}"), 1.0);
    for (text, count) in [("its breaker is open", 1), ("its breaker is closed", 1)] {
        gateway.stderr.wait_for_count(text, count);
        assert_eq!(gateway.stderr.text().matches(text).count(), count, "{text}");
    }
    gateway.record(|record| record["code"] == "breaker_open" && record["operation"] == "listUsers");
}

#[test]
fn a_probe_that_fails_opens_it_again_and_one_whose_caller_left_does_not() {
    let mx = mx();
    let gateway = with_breaker(&mx, "");
    for _ in 0..3 {
        get(&gateway, "x-stand-in-drop: always");
    }
    until("it is half open", || upstream_of(&gateway)["breaker"] == "half_open");
    // A write is no probe as long as a read may come.
    assert_eq!(outcome(&post(&gateway, "")), (503, "breaker_open".into()));
    let received = mx.received();
    let probe = slow(&gateway, 20_000);
    until("the probe is there", || mx.received() > received);
    drop(probe);
    until("another may try", || get(&gateway, "x-stand-in-status: 504").status == 504);
    assert_eq!(outcome(&get(&gateway, "")), (503, "breaker_open".into()));
    until("it is half open", || upstream_of(&gateway)["breaker"] == "half_open");
    until("a write is a probe", || post(&gateway, "").status == 200);
    assert_eq!(upstream_of(&gateway)["breaker"], "closed");
    assert_eq!(upstream_of(&gateway)["breaker_opened"], 1);
}

#[test]
fn a_host_that_cannot_be_reached_opens_it() {
    let mx = mx();
    let gateway = with_breaker(&mx, "");
    drop(mx);
    let codes: Vec<String> = (0..5).map(|_| get(&gateway, "").code()).collect();
    assert_eq!(codes[..3], ["upstream_unreachable", "upstream_unreachable", "upstream_unreachable"]);
    assert_eq!(codes[3..], ["breaker_open", "breaker_open"]);
}

#[test]
fn one_that_does_not_answer_in_time_opens_it() {
    let mx = mx();
    let gateway = with_breaker(&mx, "first_byte_timeout_ms = 200");
    for _ in 0..3 {
        assert_eq!(
            outcome(&get(&gateway, "x-stand-in-slow-head: 20000")),
            (504, "first_byte_timeout".into())
        );
    }
    assert_eq!(outcome(&get(&gateway, "")), (503, "breaker_open".into()));
}

/// Whatever callers do, others are served.
#[test]
fn no_caller_can_open_it() {
    let mx = mx();
    let gateway = with_breaker(&mx, "first_byte_timeout_ms = 1000\ntotal_timeout_ms = 10000");
    for _ in 0..4 {
        for lines in ["x-stand-in-status: 400", "x-stand-in-status: 429", "x-stand-in-status: 500"] {
            get(&gateway, lines);
        }
        assert_eq!(gateway.get("/no/such/thing", "").status, 404);
    }
    // Those who leave, and those whose body does not come: the upstream waits in vain, and may say so.
    let leaving: Vec<Client> = (0..4).map(|_| slow(&gateway, 20_000)).collect();
    let half = |lines: &str| {
        let mut client = gateway.connect();
        let head = POST.replace('\n', "\r\n");
        client.raw(format!("{head}\r\nHost: localhost\r\nContent-Length: 20\r\n{lines}\r\n{{").as_bytes());
        client
    };
    drop(leaving);
    let mut stuck: Vec<Client> = (0..4).map(|_| half("")).collect();
    for client in &mut stuck {
        assert_eq!(outcome(&client.answer()), (504, "first_byte_timeout".into()));
    }
    let mut early: Vec<Client> =
        (0..4).map(|_| half("x-stand-in-early: true\r\nx-stand-in-status: 503\r\n")).collect();
    for client in &mut early {
        assert_eq!(client.answer().status, 503);
    }
    for _ in 0..4 {
        assert_eq!((get(&gateway, "").status, post(&gateway, "").status), (200, 200));
    }
    assert_eq!(upstream_of(&gateway)["breaker"], "closed");
    assert_eq!(upstream_of(&gateway)["breaker_opened"], 0);
}

#[test]
fn without_one_everything_is_sent() {
    let mx = mx();
    let gateway = Setup::new(&mx).in_environment("breaker.failures_max = 0").start();
    for _ in 0..30 {
        assert_eq!(get(&gateway, "x-stand-in-status: 503").status, 503);
    }
    assert_eq!(mx.received(), 30);
    // And twenty is the default.
    let gateway = Setup::new(&mx).start();
    for _ in 0..20 {
        assert_eq!(outcome(&get(&gateway, "x-stand-in-status: 503")), (503, String::new()));
    }
    assert_eq!(outcome(&get(&gateway, "")), (503, "breaker_open".into()));
}

/// All workers count together, and whoever is refused takes nobody's place.
#[test]
fn with_several_workers_there_are_never_more_at_mx_than_there_may_be() {
    const MAX: usize = 3;
    let (inside, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (inside.clone(), most.clone());
    let upstream = RawUpstream::start(move |_, wire| {
        loop {
            wire.head()?;
            counts.1.fetch_max(counts.0.fetch_add(1, SeqCst) + 1, SeqCst);
            (0..50).for_each(|_| thread::yield_now());
            counts.0.fetch_sub(1, SeqCst);
            wire.say(ok("{}"))?;
        }
    });
    let budget = format!("budget.get.in_flight_max = {MAX}");
    let setup = upstream.setup().control().in_environment(&budget).table("[process]\nworkers = 4");
    let gateway = setup.start();
    let statuses: Vec<u16> = asked_by_many(&gateway, |asked, _| asked < 100);
    let refused = statuses.iter().filter(|status| **status == 429).count();
    assert!(statuses.iter().all(|status| matches!(status, 200 | 429)), "{statuses:?}");
    assert!(refused > 0 && refused < statuses.len(), "{refused} of {}", statuses.len());
    let most = most.load(SeqCst);
    assert!((2..=MAX).contains(&most), "{most}");
    until("none is left", || upstream_of(&gateway)["budget"]["get_in_flight"]["now"] == 0);
}

#[test]
fn with_several_workers_the_rate_is_what_it_is() {
    let mx = mx();
    let setup = Setup::new(&mx).in_environment("budget.get = { requests_per_second = 100, burst = 10 }");
    let gateway = setup.table("[process]\nworkers = 4").start();
    let began = Instant::now();
    let statuses = asked_by_many(&gateway, |_, elapsed| elapsed < Duration::from_millis(1000));
    let took = began.elapsed();
    let passed = statuses.iter().filter(|status| **status == 200).count();
    let bound = 10.0 + took.as_secs_f64() * 100.0;
    assert!(passed as f64 <= bound, "{passed} of {bound}");
    assert!(passed > 40 && statuses.contains(&429), "{passed} of {bound}");
}

/// The statuses that eight callers get, each of whom asks as long as `goes_on`.
fn asked_by_many(gateway: &Gateway, goes_on: impl Fn(usize, Duration) -> bool + Sync) -> Vec<u16> {
    let ask = || {
        let (mut client, began, mut statuses) = (gateway.connect(), Instant::now(), Vec::new());
        while goes_on(statuses.len(), began.elapsed()) {
            client.request("GET /users HTTP/1.1", "");
            statuses.push(client.answer().status);
        }
        statuses
    };
    thread::scope(|scope| {
        let asking: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        asking.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}
