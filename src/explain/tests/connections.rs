//! Requests that are about users' connections, and those that carry their tokens.

use super::*;

const CONSENTS: &str = r#"
    allow = ["10.0.0.0/8"]
    [[caller]]
    name = "ledger"
    networks = ["10.20.1.0/24"]
    limits = { in_flight_max = 20 }
    grant = { accounts = ["paths"] }
    connections = { providers = ["bank"] }
    [[caller]]
    name = "report"
    networks = ["10.20.2.0/24"]
    grant = { accounts = ["paths"] }
    [[listener]]
    address = "127.0.0.1:8080"
    environment = "accounts"
    [[listener]]
    address = "127.0.0.1:8081"
    serves = "connections"
    [provider.bank]
    token_endpoint = "https://id.example/token"
    client_id = "gateway"
    client_secret = "env:CLIENT_SECRET"
    [connections]
    key = "env:STORE_KEY"
    file = "/store"
    [environment.accounts]
    url = "https://api.example"
    paths = ["GET /accounts", "GET /users/{user_guid}/accounts"]
    credential = { kind = "oauth2", provider = "bank" }
"#;

fn at(listener: &str, from_: &str, line: &str) -> Explanation {
    let asked = Question { listener: Some(listener.to_owned()), ..from(from_, line) };
    explainer(CONSENTS).explain(&asked).unwrap()
}

#[test]
fn a_listener_that_serves_connections_tells_who_may_use_it_and_what_is_not_judged() {
    for line in ["POST /connections", "GET /connections?provider=bank"] {
        let told = at("127.0.0.1:8081", "10.20.1.7", line);
        assert_eq!((code(&told), told.caller.as_deref()), ("allowed", Some("ledger")), "{line}");
        let shown = told.to_string();
        for part in [
            "\n  listener    127.0.0.1:8081, which serves connections\n",
            "\n  caller      ledger: 10.20.1.7 is in its network",
            "\n  path        /connections\n",
            "\n  grant       connections of ledger: it may use those of bank\n",
            "\n  limits      ledger: 20 in flight\n",
            "\n  not judged  ",
        ] {
            assert!(shown.contains(part), "{part:?} is not in\n{shown}");
        }
        assert!(shown.ends_with("\nallowed") && !shown.contains("which sends to"), "{shown}");
        let json = told.to_json();
        assert_eq!((&json["serves"], &json["allowed"]), (&"connections".into(), &true.into()));
        assert!(json["not_judged"].is_string() && json["credential"].is_null(), "{json}");
    }
    let elsewhere = at("127.0.0.1:8080", "10.20.1.7", "GET /users/USR-1/accounts").to_json();
    assert_eq!((&elsewhere["serves"], &elsewhere["not_judged"]), (&"environment".into(), &().into()));
}

#[test]
fn who_may_not_use_connections_is_refused_as_by_a_gateway() {
    for (from_, line, expected, advised) in [
        ("10.20.2.7", "POST /connections", "connection_denied", "add `connections` to the caller report"),
        ("10.20.3.7", "POST /connections", "caller_not_allowed", "add 10.20.3.7 to the networks"),
        ("10.20.1.7", "PUT /connections", "method_not_allowed", "POST or GET /connections"),
        ("10.20.1.7", "GET /users", "unknown_operation", "/connections and /connections/{id}"),
        ("10.20.1.7", "DELETE /connections/mxc_1", "unknown_connection", "mxc_"),
    ] {
        let told = at("127.0.0.1:8081", from_, line);
        assert_eq!(code(&told), expected, "{line}");
        assert!(advice(&told).contains(advised), "{line}: {}", advice(&told));
        assert!(!told.to_string().contains("not judged"), "{told}");
    }
}

#[test]
fn a_presumed_caller_keeps_its_connections() {
    let told = |name: &str| {
        let asked = question(Asker::Caller(name.into()), "POST /connections");
        let asked = Question { listener: Some("127.0.0.1:8081".into()), ..asked };
        code(&explainer(CONSENTS).explain(&asked).unwrap()).to_owned()
    };
    assert_eq!((told("ledger"), told("report")), ("allowed".to_owned(), "connection_denied".to_owned()));
}

#[test]
fn a_request_that_names_no_connection_is_told_how_it_names_one() {
    let told = at("127.0.0.1:8080", "10.20.1.7", "GET /accounts");
    assert_eq!(code(&told), "connection_not_named");
    let advised = advice(&told);
    for part in ["add the header `x-mxgate-connection: mxc_...`", "or ask for a path that names the user"] {
        assert!(advised.contains(part), "{part} is not in {advised}");
    }
    for values in [&["mxc_1"][..], &["mxc_1", "mxc_2"]] {
        let mut asked = from("10.20.1.7", "GET /accounts");
        asked.headers = values.iter().map(|value| ("X-Mxgate-Connection".into(), (*value).into())).collect();
        let told = explainer(CONSENTS).explain(&asked).unwrap();
        assert_eq!(code(&told), "connection_not_named");
        assert!(
            advice(&told).contains("exactly one `x-mxgate-connection`, with one id"),
            "{}",
            advice(&told)
        );
    }
    assert_eq!(code(&at("127.0.0.1:8080", "10.20.1.7", "GET /users/USR-1/accounts")), "allowed");
}
