//! Access tokens of a provider: whose goes out, when they are refreshed, and what callers are told when there is none.

mod bank;
mod connecting;
mod odd;
mod replicas;
mod secrecy;

use std::net::IpAddr;

use serde_json::{Value, json};

use self::bank::Bank;
use crate::harness::{Answer, Client, Gateway, until};

const LEDGER: &str = "127.0.0.1";

/// Makes a connection of a refresh token that the bank gave. Its id.
fn import(gateway: &Gateway, token: &str, more: &[&str]) -> String {
    let file = gateway.setup.file("refresh-token", token);
    let file = file.to_str().unwrap();
    let whose =
        ["--provider", "bank", "--environment", "accounts", "--caller", "ledger", "--from-file", file];
    let made = gateway.command(&[&["connections", "import"], &whose[..], more].concat()).unwrap();
    made.trim().to_owned()
}

fn sent(gateway: &Gateway, listener: usize, from: &str, head: &str, body: &str) -> Answer {
    let from: IpAddr = from.parse().unwrap();
    let mut client = Client::connect_from(from, gateway.addresses[listener]);
    client.request(head, body);
    client.answer()
}

/// `GET` of the API with that connection.
fn get(gateway: &Gateway, from: &str, path: &str, id: &str) -> Answer {
    sent(gateway, 0, from, &format!("GET {path} HTTP/1.1\nx-mxgate-connection: {id}"), "")
}

fn outcome(answer: &Answer) -> (u16, String) {
    (answer.status, answer.code())
}

fn no(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

/// The connections listener.
fn asked(gateway: &Gateway, from: &str, line: &str, body: &str) -> Answer {
    sent(gateway, 1, from, &format!("{line} HTTP/1.1\ncontent-type: application/json"), body)
}

#[test]
fn a_request_gets_the_token_of_its_connection_and_nothing_of_it_comes_back() {
    let bank = Bank::start(60);
    let gateway = bank.setup("").start();
    let (alice, bob) = (import(&gateway, &bank.mint("alice"), &[]), import(&gateway, &bank.mint("bob"), &[]));
    for (id, account) in [(&alice, "alice"), (&bob, "bob"), (&alice, "alice")] {
        let head = format!(
            "GET /api/accounts HTTP/1.1\nx-mxgate-connection: {id}\nauthorization: Bearer of-the-caller\nx-other: kept"
        );
        let answer = sent(&gateway, 0, LEDGER, &head, "");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let told = answer.json();
        assert_eq!(told["account"], account);
        assert_eq!(told["headers"]["x-other"], "kept");
        assert!(told["headers"].get("x-mxgate-connection").is_none(), "{told}");
        for token in [answer.header("x-token").unwrap(), told["token"].as_str().unwrap()] {
            assert!(token.len() > 20 && token.bytes().all(|byte| byte == b'*'), "{token}");
        }
    }
    assert_eq!(bank.count("token", "given"), 2, "one for each, and kept");
    assert_eq!(bank.bad_calls(), [] as [Value; 0]);
    for id in [alice, bob] {
        // Each worker writes its own, so they come in any order.
        let name = json!(format!("connection:{id}"));
        let record = gateway.record(|record| record["credential"]["name"] == name);
        assert_eq!(record["status"], 200);
    }
}

#[test]
fn tokens_are_refreshed_ahead_of_their_end_and_no_request_has_an_expired_one() {
    let bank = Bank::start(6);
    let gateway = bank.setup("").start();
    let id = import(&gateway, &bank.mint("alice"), &[]);
    let mut requests = 0;
    // While requests go on, several tokens come and go.
    until("three tokens", || {
        let answer = get(&gateway, LEDGER, "/api/accounts", &id);
        assert_eq!(answer.status, 200, "{}", answer.text());
        requests += 1;
        bank.count("token", "given") >= 3
    });
    assert!(requests > 10, "{requests}");
    assert_eq!(bank.bad_calls(), [] as [Value; 0], "of {requests}");
    assert_eq!(bank.lines().iter().filter(|line| line.get("revoked").is_some()).count(), 0);
}

#[test]
fn a_connection_is_its_callers_and_that_of_those_who_may_use_it() {
    let bank = Bank::start(60);
    let gateway = bank.setup("").start();
    let id = import(&gateway, &bank.mint("alice"), &["--user-guid", "USR-1"]);
    for (from, expected) in [
        (LEDGER, no(200, "")),
        ("127.0.0.2", no(200, "")),
        ("127.0.0.3", no(403, "connection_denied")),
        ("127.0.0.4", no(403, "connection_denied")),
    ] {
        assert_eq!(outcome(&get(&gateway, from, "/api/accounts", &id)), expected, "{from}");
    }
    let unknown = "mxc_0123456789abcdef0123456789abcdef";
    assert_eq!(outcome(&get(&gateway, LEDGER, "/api/accounts", unknown)), no(403, "connection_denied"));
    for (lines, expected) in [
        ("", "connection_not_named"),
        ("\nx-mxgate-connection: mxc_1", "connection_not_named"),
        (&format!("\nx-mxgate-connection: {id}\nx-mxgate-connection: {id}"), "connection_not_named"),
    ] {
        let answer = sent(&gateway, 0, LEDGER, &format!("GET /api/accounts HTTP/1.1{lines}"), "");
        assert_eq!(outcome(&answer), no(400, expected), "{lines}");
    }
    assert_eq!(bank.bad_calls(), [] as [Value; 0]);
}

#[test]
fn the_user_in_a_path_says_which_connection_is_meant() {
    let bank = Bank::start(60);
    let gateway = bank.setup("").start();
    let id = import(&gateway, &bank.mint("alice"), &["--user-guid", "USR-1"]);
    let of = |from: &str, user: &str| {
        sent(&gateway, 0, from, &format!("GET /api/users/{user}/accounts HTTP/1.1"), "")
    };
    let answer = of(LEDGER, "USR-1");
    assert_eq!((answer.status, answer.json()["account"].as_str()), (200, Some("alice")));
    assert_eq!(outcome(&of("127.0.0.2", "USR-1")), no(200, ""));
    assert_eq!(outcome(&of("127.0.0.3", "USR-1")), no(409, "connection_required"));
    assert_eq!(outcome(&of(LEDGER, "USR-2")), no(409, "connection_required"));
    // Named, and not of the path's user.
    let other = get(&gateway, LEDGER, "/api/users/USR-2/accounts", &id);
    assert_eq!(outcome(&other), no(403, "connection_denied"));
    assert_eq!(outcome(&get(&gateway, LEDGER, "/api/users/USR-1/accounts", &id)), no(200, ""));
}

#[test]
fn a_token_without_a_scope_that_is_needed_is_not_sent() {
    let bank = Bank::start(60);
    let scopes = "scopes = { \"path:POST /api/accounts\" = [\"accounts:write\"], \"path:GET /api/accounts\" = [\"offline_access\"] }";
    let gateway = bank.setup(scopes).start();
    let id = import(&gateway, &bank.mint("alice"), &[]);
    // The bank grants accounts:read and accounts:write, and names no other for an API.
    assert_eq!(outcome(&get(&gateway, LEDGER, "/api/accounts", &id)), no(403, "insufficient_scope"));
    let head =
        format!("POST /api/accounts HTTP/1.1\nx-mxgate-connection: {id}\ncontent-type: application/json");
    assert_eq!(sent(&gateway, 0, LEDGER, &head, "{}").status, 200);
}

#[test]
fn callers_list_and_end_their_connections() {
    let bank = Bank::start(60);
    let gateway = bank.setup("").start();
    let id = import(&gateway, &bank.mint("alice"), &["--user-guid", "USR-1"]);
    assert_eq!(get(&gateway, LEDGER, "/api/accounts", &id).status, 200);
    let listed = |from: &str, query: &str| {
        asked(&gateway, from, &format!("GET /connections{query}"), "").json()["connections"].clone()
    };
    let all = listed(LEDGER, "");
    assert_eq!(all.as_array().unwrap().len(), 1);
    let one = &all[0];
    assert_eq!((&one["id"], &one["state"]), (&json!(id), &json!("live")));
    assert_eq!((&one["user_guid"], &one["caller"]), (&json!("USR-1"), &json!("ledger")));
    assert!(one["expires"].as_u64().unwrap() > one["created"].as_u64().unwrap(), "{one}");
    assert_eq!(listed(LEDGER, "?user_guid=USR-2"), json!([]));
    assert_eq!(listed(LEDGER, "?user_guid=USR%2D1&provider=bank").as_array().unwrap().len(), 1);
    assert_eq!(listed("127.0.0.2", "?user_guid=USR-1").as_array().unwrap().len(), 1);
    assert_eq!(listed("127.0.0.3", ""), json!([]));
    let told = asked(&gateway, LEDGER, &format!("GET /connections/{id}"), "");
    assert_eq!((told.status, &told.json()), (200, one));
    for (from, line, expected) in [
        ("127.0.0.3", format!("GET /connections/{id}"), no(404, "unknown_connection")),
        ("127.0.0.3", format!("DELETE /connections/{id}"), no(404, "unknown_connection")),
        ("127.0.0.2", format!("DELETE /connections/{id}"), no(403, "connection_denied")),
        ("127.0.0.4", "GET /connections".into(), no(403, "connection_denied")),
        ("127.0.0.9", "GET /connections".into(), no(403, "caller_not_allowed")),
        (LEDGER, "GET /connections/mxc_1".into(), no(404, "unknown_connection")),
        (LEDGER, "PUT /connections".into(), no(405, "method_not_allowed")),
        (LEDGER, "GET /other".into(), no(404, "unknown_operation")),
        (LEDGER, "GET /connections?x=1".into(), no(400, "invalid_connection")),
        (LEDGER, "GET /connections?user_guid=USR-1&user_guid=USR-2".into(), no(400, "invalid_connection")),
    ] {
        assert_eq!(outcome(&asked(&gateway, from, &line, "")), expected, "{from} {line}");
    }
    let ended = asked(&gateway, LEDGER, &format!("DELETE /connections/{id}"), "");
    assert_eq!((ended.status, ended.json()), (200, json!({ "revoked": "yes" })), "{}", ended.text());
    until("the bank has ended the grant", || bank.lines().iter().any(|line| line.get("revoked").is_some()));
    assert_eq!(outcome(&get(&gateway, LEDGER, "/api/accounts", &id)), no(403, "connection_denied"));
    assert_eq!(listed(LEDGER, ""), json!([]));
    assert_eq!(bank.bad_calls(), [] as [Value; 0]);
}

#[test]
fn a_consent_that_is_gone_and_a_provider_that_is_away_are_told_apart() {
    let mut bank = Bank::start(60);
    let gateway = bank.setup("").start();
    let token = bank.mint("alice");
    assert_eq!(
        (bank.use_up(&token), bank.use_up(&token)),
        ("200".into(), "400".into()),
        "a reuse ends the grant"
    );
    let gone = import(&gateway, &token, &[]);
    let answer = get(&gateway, LEDGER, "/api/accounts", &gone);
    assert_eq!(outcome(&answer), no(409, "reconnect_required"));
    assert!(answer.json()["detail"].as_str().unwrap().contains("POST /connections"), "{}", answer.text());
    let told = asked(&gateway, LEDGER, &format!("GET /connections/{gone}"), "").json();
    assert_eq!((&told["state"], &told["reason"]), (&json!("gone"), &json!("refused")), "{told}");
    let later = import(&gateway, &bank.mint("bob"), &[]);
    bank.end();
    assert_eq!(outcome(&get(&gateway, LEDGER, "/api/accounts", &later)), no(503, "token_unavailable"));
    let told = asked(&gateway, LEDGER, &format!("GET /connections/{later}"), "").json();
    assert_eq!(told["state"], "live", "{told}");
    // What an operator has to mend is in the log.
    let ended = asked(&gateway, LEDGER, &format!("DELETE /connections/{later}"), "");
    assert_eq!(outcome(&ended), no(502, "not_revoked"));
    until("it is logged", || {
        let log = gateway.stderr.text();
        log.lines()
            .any(|line| line.contains("was not done") && line.contains(&later) && line.contains("ledger"))
    });
}

#[test]
fn a_connection_that_nobody_could_use_is_not_made() {
    let bank = Bank::start(60);
    let gateway = bank.setup("").start();
    let file = gateway.setup.file("refresh-token", &bank.mint("alice"));
    for (provider, environment, caller, user, why) in [
        ("other", "accounts", "ledger", "USR-1", "takes no tokens of users at other"),
        ("bank", "other", "ledger", "USR-1", "there is no environment other"),
        ("bank", "accounts", "legder", "USR-1", "no caller legder may use connections of bank"),
        ("bank", "accounts", "ledger", "USR 1", "user_guid is none of MX's"),
    ] {
        let arguments = ["--provider", provider, "--environment", environment, "--caller", caller];
        let more = ["--user-guid", user, "--from-file", file.to_str().unwrap()];
        let imported = gateway.command(&[&["connections", "import"], &arguments[..], &more].concat());
        let (said, _) = imported.unwrap_err();
        assert!(said.contains(why), "{said}");
    }
    assert_eq!(asked(&gateway, LEDGER, "GET /connections", "").json()["connections"], json!([]));
}

#[test]
fn a_token_that_is_not_taken_is_replaced_and_its_request_sent_again_where_that_is_safe() {
    let bank = Bank::start(600);
    let gateway = bank.setup("").start();
    let (alice, bob) = (import(&gateway, &bank.mint("alice"), &[]), import(&gateway, &bank.mint("bob"), &[]));
    assert_eq!(get(&gateway, LEDGER, "/api/accounts", &alice).status, 200);
    assert_eq!(get(&gateway, LEDGER, "/api/accounts", &bob).status, 200);
    bank.forget_access_tokens();
    // While it is new the token is kept: whoever is refused again and again does not have it replaced each time.
    assert_eq!(get(&gateway, LEDGER, "/api/accounts", &alice).status, 401);
    assert_eq!(bank.count("token", "given"), 2);
    let post =
        format!("POST /api/accounts HTTP/1.1\nx-mxgate-connection: {bob}\ncontent-type: application/json");
    until("it is replaced", || get(&gateway, LEDGER, "/api/accounts", &alice).status == 200);
    assert_eq!(sent(&gateway, 0, LEDGER, &post, "{}").status, 401, "not sent twice");
    until("its token is used", || sent(&gateway, 0, LEDGER, &post, "{}").status == 200);
    assert_eq!(bank.count("token", "given"), 4);
}

#[test]
fn the_gateways_own_token_is_asked_for_once_and_again_before_it_ends() {
    let bank = Bank::start(6);
    let mut setup = bank.setup("");
    setup.environments = setup
        .environments
        .replace("provider = \"bank\" }", "provider = \"bank\", grant = \"client_credentials\" }")
        + "scopes = { \"paths\" = [\"accounts:read\"] }\n";
    let gateway = setup.start();
    let answer = sent(&gateway, 0, "127.0.0.4", "GET /api/accounts HTTP/1.1", "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let told = answer.json();
    assert_eq!((&told["account"], &told["scope"]), (&json!("gateway"), &json!("accounts:read")));
    until("three tokens", || {
        let answer = sent(&gateway, 0, "127.0.0.4", "GET /api/accounts HTTP/1.1", "");
        assert_eq!(answer.status, 200, "{}", answer.text());
        bank.count("token", "given") >= 3
    });
    assert_eq!(bank.bad_calls(), [] as [Value; 0]);
}

#[test]
fn tokens_are_in_no_log_record_metric_list_or_file() {
    let bank = Bank::start(6);
    let mut setup = bank.setup("");
    setup.tables = setup.tables.replace("filter = \"info\"", "filter = \"trace\"");
    let gateway = setup.start();
    let id = import(&gateway, &bank.mint("alice"), &[]);
    until("three tokens", || {
        let head = format!("GET /api/accounts?a=b HTTP/1.1\nx-mxgate-connection: {id}");
        assert_eq!(sent(&gateway, 0, LEDGER, &head, "").status, 200);
        bank.count("token", "given") >= 3
    });
    bank.forget_access_tokens();
    until("another token", || get(&gateway, LEDGER, "/api/accounts", &id).status == 200);
    let gone = bank.mint("bob");
    assert_eq!((bank.use_up(&gone), bank.use_up(&gone)), ("200".into(), "400".into()));
    let gone = import(&gateway, &gone, &[]);
    assert_eq!(get(&gateway, LEDGER, "/api/accounts", &gone).status, 409);
    let listed = asked(&gateway, LEDGER, "GET /connections", "").text();
    let copy = gateway.setup.folder().join("copy");
    gateway.command(&["connections", "backup", copy.to_str().unwrap()]).unwrap();
    let mut said = [gateway.command(&["connections", "list"]).unwrap(), listed].concat();
    assert_eq!(asked(&gateway, LEDGER, &format!("DELETE /connections/{id}"), "").status, 200);
    said += &gateway.command(&["status", "--json"]).unwrap();
    said += &gateway.page("/metrics").text();
    said += &gateway.stderr.text();
    said += &gateway.stdout.text();
    let files = ["connections", "copy"].map(|name| std::fs::read(gateway.setup.folder().join(name)).unwrap());
    let lines = bank.lines();
    let tokens =
        lines.iter().flat_map(|line| ["jti", "used", "next", "access"].map(|key| line[key].as_str()));
    let tokens: std::collections::BTreeSet<&str> = tokens.flatten().collect();
    assert!(tokens.len() > 8, "{tokens:?}");
    assert!(said.contains(&id) && said.contains("a connection was imported"), "what is searched is there");
    for token in tokens.into_iter().chain([bank::CLIENT_SECRET]) {
        assert!(!said.contains(token), "{token} in {said}");
        for file in &files {
            assert!(!file.windows(token.len()).any(|there| there == token.as_bytes()), "{token} in a file");
        }
    }
}

#[test]
fn who_moves_an_environment_moves_no_tokens() {
    let bank = Bank::start(60);
    let mut gateway = bank.setup("").start();
    let id = import(&gateway, &bank.mint("alice"), &[]);
    assert_eq!(get(&gateway, LEDGER, "/api/accounts", &id).status, 200);
    let (here, there) = (bank.address.to_string(), format!("localhost:{}", bank.address.port()));
    let moved = gateway.setup.environments.replace(&format!("https://{here}"), &format!("https://{there}"));
    assert_ne!(moved, gateway.setup.environments);
    let before = std::mem::replace(&mut gateway.setup.environments, moved);
    gateway.reconfigure();
    gateway.command(&["reload"]).unwrap();
    assert_eq!(outcome(&get(&gateway, LEDGER, "/api/accounts", &id)), no(409, "reconnect_required"));
    gateway.setup.environments = before;
    gateway.reconfigure();
    gateway.command(&["reload"]).unwrap();
    assert_eq!(get(&gateway, LEDGER, "/api/accounts", &id).status, 200);
}

#[test]
fn who_moves_a_provider_gets_no_refresh_token() {
    let (bank, other) = (Bank::start(60), Bank::start(60));
    let mut gateway = bank.setup("").start();
    let id = import(&gateway, &bank.mint("alice"), &[]);
    let (here, there) =
        (format!("https://{}/.well", bank.address), format!("https://{}/.well", other.address));
    let moved = gateway.setup.tables.replace(&here, &there);
    assert_ne!(moved, gateway.setup.tables);
    let before = std::mem::replace(&mut gateway.setup.tables, moved);
    gateway.reconfigure();
    gateway.command(&["reload"]).unwrap();
    assert_eq!(outcome(&get(&gateway, LEDGER, "/api/accounts", &id)), no(503, "token_unavailable"));
    gateway.stderr.wait_for_count("another one than gave its tokens", 1);
    assert!(other.lines().is_empty(), "it was asked for nothing: {:?}", other.lines());
    gateway.setup.tables = before;
    gateway.reconfigure();
    gateway.command(&["reload"]).unwrap();
    // It rests a few seconds after the failure.
    until("it is refreshed", || get(&gateway, LEDGER, "/api/accounts", &id).status == 200);
}

#[test]
fn a_wrong_key_of_the_store_ends_the_start_and_the_store_is_as_it_was() {
    let bank = Bank::start(60);
    let mut gateway = bank.setup("").start();
    import(&gateway, &bank.mint("alice"), &[]);
    gateway.signal("TERM");
    assert!(gateway.wait().success());
    let store = gateway.setup.folder().join("connections");
    let before = std::fs::read(&store).unwrap();
    gateway.setup.file("store-key", "another-key-of-more-than-32-bytes");
    let config = gateway.setup.folder().join("mxgate.toml");
    let run = crate::harness::mxgate(&["run", "--config", config.to_str().unwrap()], &[]);
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(!run.status.success() && said.contains("cannot be opened"), "{said}");
    assert!(!said.contains("another-key"), "{said}");
    assert_eq!(std::fs::read(&store).unwrap(), before);
}
