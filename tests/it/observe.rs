//! Observe mode: what a caller's grants refuse is let through for a time and noted, and some things never are.

use std::time::{Duration, SystemTime};

use crate::harness::{Gateway, Setup, mx, until};

/// A caller with little more than nothing, in observe mode for so long.
fn observing(mx: &mxgate::stand_in::Running, span: Duration) -> Gateway {
    let end = humantime::format_rfc3339_seconds(SystemTime::now() + span);
    let mut setup = Setup::new(mx).control();
    setup.environments += &setup.other_environment("other", mx.address());
    setup.listeners += "[[listener]]\naddress = \"127.0.0.1:0\"\nenvironment = \"other\"\n";
    setup.callers = Some(format!(
        "[[caller]]\nname = \"ledger\"\nnetworks = [\"127.0.0.1/32\"]\ngrant = {{ test = [\"listUsers\"] }}\n\
         observe_until = \"{end}\"\n\
         [[caller]]\nname = \"strict\"\nnetworks = [\"127.0.0.2/32\"]\ngrant = {{ test = [\"listUsers\"] }}\n"
    ));
    setup.start()
}

fn code(gateway: &Gateway, listener: usize, from: &str, line: &str) -> String {
    let mut client = crate::harness::Client::connect_from(from.parse().unwrap(), gateway.addresses[listener]);
    client.request(&format!("{line} HTTP/1.1"), "");
    let answer = client.answer();
    let id = answer.header("x-mxgate-request-id").unwrap();
    let record = gateway.record(|record| record["request_id"] == id);
    match record["decision"].as_str() {
        Some("refused") => record["code"].as_str().unwrap().to_owned(),
        Some("allowed") => record["would_refuse"].as_str().map_or("granted", |_| "observed").to_owned(),
        other => panic!("{other:?}"),
    }
}

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn what_would_be_refused_is_let_through_noted_and_counted() {
    let mx = mx();
    let gateway = observing(&mx, HOUR);
    assert_eq!(code(&gateway, 0, "127.0.0.1", "GET /users"), "granted");
    assert_eq!(code(&gateway, 0, "127.0.0.1", "GET /users/U/members"), "observed");
    assert_eq!(code(&gateway, 0, "127.0.0.1", "POST /users"), "observed");
    assert_eq!(mx.received(), 3);
    let record = gateway.record(|record| record["operation"] == "listMembers");
    assert_eq!((record["would_refuse"].as_str(), record["code"].as_str()), (Some("operation_denied"), None));
    let line = gateway.stderr.wait_for(|line| line.contains("listMembers"));
    assert!(line.contains("WARN") && line.contains("ledger") && line.contains("would be refused"), "{line}");
    assert_eq!(gateway.metric("mxgate_would_refuse_total"), 2.0);
    assert_eq!(gateway.metric("mxgate_refusals_total"), 0.0);
    for _ in 0..50 {
        assert_eq!(code(&gateway, 0, "127.0.0.1", "GET /users/U/members"), "observed");
    }
    let said = gateway.stderr.text().lines().filter(|line| line.contains("listMembers")).count();
    assert!(said <= 8, "{said} lines for 51 requests");
}

#[test]
fn what_could_hurt_is_never_let_through() {
    let mx = mx();
    let gateway = observing(&mx, HOUR);
    let denied = |line: &str| assert_eq!(code(&gateway, 0, "127.0.0.1", line), "operation_denied", "{line}");
    use mxgate::mx::catalogue::{Class, catalogue};
    let never = [Class::KeyAdmin, Class::Destructive, Class::Money, Class::BankData];
    let mut count = 0;
    for operation in catalogue().operations() {
        if never.iter().any(|class| operation.classes.contains(*class)) {
            let path: String = operation.template.replace('{', "x-").replace('}', "");
            denied(&format!("{} {path}", operation.method));
            count += 1;
        }
    }
    assert!(count > 30, "{count}");
    for line in ["GET /new/thing", "GET /users/", "POST /new/thing", "GET /Users"] {
        assert_eq!(code(&gateway, 0, "127.0.0.1", line), "unknown_operation", "{line}");
    }
    assert_eq!(code(&gateway, 0, "127.0.0.1", "PATCH /users"), "method_not_allowed");
    assert_eq!(
        code(&gateway, 1, "127.0.0.1", "GET /users"),
        "operation_denied",
        "no grant at that environment"
    );
    assert_eq!(code(&gateway, 0, "127.0.0.2", "GET /users/U"), "operation_denied", "another caller");
    assert_eq!(code(&gateway, 0, "127.0.0.3", "GET /users"), "caller_not_allowed");
    assert_eq!(mx.received(), 0);
    assert_eq!(gateway.metric("mxgate_would_refuse_total"), 0.0);
}

#[test]
fn it_is_shown_and_ends_by_itself() {
    let mx = mx();
    let gateway = observing(&mx, Duration::from_secs(6));
    assert_eq!(code(&gateway, 0, "127.0.0.1", "GET /users/U"), "observed");
    assert_eq!(gateway.status()["observing"][0]["caller"], "ledger");
    assert!(gateway.command(&["status"]).unwrap().contains("ledger, until 20"));
    gateway.stderr.wait_for(|line| line.contains("caller[0].observe_until") && line.contains("is on until"));
    until("it is over", || code(&gateway, 0, "127.0.0.1", "GET /users/U") == "operation_denied");
    assert_eq!(gateway.status()["observing"].as_array().unwrap().len(), 0);
    assert_eq!(code(&gateway, 0, "127.0.0.1", "GET /users"), "granted");
}
