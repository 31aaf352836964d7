//! What callers may do, over sockets: what reaches the stand-in is what the table says, and nothing else.

use std::{fmt::Write as _, net::IpAddr};

use mxgate::stand_in::Running;
use serde_json::Value;

use crate::{
    harness::{Answer, Client, Gateway, Setup, last, mx, mx_with, mxgate},
    judge::{ROWS, Row},
};

/// A gateway with one caller for each grant, at 127.0.0.2 and the addresses after it.
fn started(mx: &Running, grants: &[&[&str]]) -> Gateway {
    let mut setup = Setup::new(mx).control().table("[process]\nworkers = 2");
    setup.callers = Some(callers(grants));
    setup.start()
}

fn callers(grants: &[&[&str]]) -> String {
    let mut text = String::new();
    for (at, items) in grants.iter().enumerate() {
        let network = from(at);
        _ = writeln!(
            text,
            "[[caller]]\nname = \"caller-{at}\"\nnetworks = [\"{network}/32\"]\ngrant = {{ test = {items:?} }}"
        );
    }
    text
}

/// Where a caller calls from.
fn from(caller: usize) -> IpAddr {
    IpAddr::from([127, 0, 0, u8::try_from(caller + 2).unwrap()])
}

fn connect(gateway: &Gateway, caller: usize) -> Client {
    Client::connect_from(from(caller), gateway.addresses[0])
}

/// One request on a connection of its own.
fn ask(gateway: &Gateway, caller: usize, head: &str, body: &str) -> Answer {
    let mut client = connect(gateway, caller);
    client.request(head, body);
    client.answer()
}

#[test]
fn every_operation_is_had_exactly_by_those_who_were_granted_it() {
    const GRANTS: [&[&str]; 6] = [
        &["read", "write", "destructive", "bank-data", "mints-access", "carries-bank-login", "money"],
        &["read", "-tag:insights", "createMember"],
        &["tag:processor-token", "mints-access", "rotateApiKey"],
        &["bundle:verification", "bank-data", "-method:POST"],
        &["method:DELETE", "destructive", "-tag:users"],
        &[],
    ];
    let mx = mx_with(|options| options.requests_kept = 2000);
    let gateway = started(&mx, &GRANTS);
    for (caller, items) in GRANTS.iter().enumerate() {
        let before = mx.requests().len();
        let mut client = connect(&gateway, caller);
        for row in ROWS.iter() {
            client.request(&format!("{} {} HTTP/1.1", row.method, row.path()), "");
            let answer = client.answer();
            let expected = if row.is_allowed(items) { "" } else { "operation_denied" };
            assert_eq!(answer.code(), expected, "{} for {items:?}", row.id);
        }
        let seen: Vec<_> =
            mx.requests()[before..].iter().map(|one| (one.operation, one.target.clone())).collect();
        let allowed = ROWS.iter().filter(|row| row.is_allowed(items));
        let expected: Vec<_> = allowed.map(|row: &Row| (Some(row.id), row.path())).collect();
        assert_eq!(seen, expected, "{items:?}");
    }
}

#[test]
fn a_path_outside_of_the_catalogue_is_had_by_those_who_name_it() {
    let mx = mx();
    let gateway = started(&mx, &[&["read", "path:GET /new/thing/{id}"], &["read", "write"]]);
    for (caller, head, status) in [
        (0, "GET /new/thing/7", 404),
        (0, "HEAD /new/thing/7", 404),
        (0, "POST /new/thing/7", 405),
        (0, "GET /new/thing/7/8", 404),
        (1, "GET /new/thing/7", 404),
    ] {
        let received = mx.received();
        let mut client = connect(&gateway, caller);
        client.request(&format!("{head} HTTP/1.1"), "");
        let answer = if head.starts_with("HEAD") { client.answer_to_head() } else { client.answer() };
        let passes = caller == 0 && head.ends_with("thing/7") && !head.starts_with("POST");
        assert_eq!((answer.status, mx.received() - received), (status, u64::from(passes)), "{caller} {head}");
    }
}

#[test]
fn forms_are_refused_and_a_body_without_a_type_is_json() {
    let mx = mx();
    let gateway = started(&mx, &[&["write", "path:POST /new"]]);
    let body = "_method=delete&a=b";
    for form in [
        "application/x-www-form-urlencoded",
        "Application/X-WWW-Form-URLencoded; charset=utf-8",
        "multipart/form-data; boundary=x",
        "multipart/mixed",
        "application/json\nContent-Type: application/x-www-form-urlencoded",
        "application/json, application/x-www-form-urlencoded",
        "",
    ] {
        for path in ["/users", "/users/U/budgets/generate", "/new"] {
            let answer = ask(&gateway, 0, &format!("POST {path} HTTP/1.1\nContent-Type: {form}"), body);
            assert_eq!((answer.status, answer.code().as_str()), (415, "form_body"), "{path} {form}");
        }
    }
    assert_eq!(mx.received(), 0);
    let typed = |fields: &str| {
        let answer = ask(&gateway, 0, &format!("POST /users HTTP/1.1{fields}"), body);
        assert_eq!(answer.code(), "", "{fields}");
        assert_eq!(last(&mx).body, body.as_bytes());
        let values = last(&mx).headers.get_all("content-type").iter().cloned().collect::<Vec<_>>();
        values.into_iter().map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(typed("\nContent-Type: application/vnd.mx.api.v1+json"), ["application/vnd.mx.api.v1+json"]);
    assert_eq!(typed("\nContent-Type: application/json"), ["application/json"]);
    assert_eq!(typed(""), ["application/json"]);
    assert_eq!(typed("\nContent-Type: text/plain\nConnection: content-type"), ["application/json"]);
    // Axios, and so MX's SDK for Node, names a form where there is no body.
    let empty = "Content-Type: application/x-www-form-urlencoded\nContent-Length: 0";
    assert_eq!(ask(&gateway, 0, &format!("POST /users/U/budgets/generate HTTP/1.1\n{empty}"), "").code(), "");
    // Without a body there is nothing to name.
    assert_ne!(ask(&gateway, 0, "POST /users/U/budgets/generate HTTP/1.1", "").status, 415);
    assert!(!last(&mx).headers.contains_key("content-type"));
    let record =
        gateway.record(|record| record["code"] == "form_body" && record["operation"] == "createUser");
    assert_eq!(record["status"], 415);
}

#[test]
fn parameters_that_name_another_method_stay_here() {
    let mx = mx();
    let gateway = started(&mx, &[&["write"]]);
    for (query, left) in [
        ("?_method=DELETE", ""),
        ("?a=1&_METHOD=delete&b=2", "?a=1&b=2"),
        ("?X-HTTP-Method-Override=DELETE", ""),
        ("?method[]=x&page=1", "?page=1"),
        ("?methods=1", "?methods=1"),
    ] {
        let fields =
            "X-HTTP-Method-Override: DELETE\nX-Method: DELETE\nMethod-Override: DELETE\n_method: DELETE";
        let answer = ask(&gateway, 0, &format!("POST /users{query} HTTP/1.1\n{fields}"), "{}");
        assert_eq!(answer.code(), "", "{query}");
        assert_eq!(last(&mx).target, format!("/users{left}"));
        let names = last(&mx).headers.keys().map(ToString::to_string).collect::<Vec<_>>();
        assert!(!names.iter().any(|name| name.contains("method")), "{names:?}");
    }
}

#[test]
fn callers_that_use_what_mx_leaves_behind_are_told() {
    let mx = mx();
    let all: &[&str] = &["read", "write"];
    let mut gateway = started(&mx, &[all, all, &["listUsers"]]);
    let report = |gateway: &Gateway| -> Value {
        let json = gateway.command(&["status", "versions", "--json"]).unwrap();
        serde_json::from_str(&json).unwrap()
    };
    let said = gateway.command(&["status", "versions"]).unwrap();
    assert!(said.contains("every request named its version"), "{said}");
    let new = "Accept-Version: v20250224";
    for (caller, head) in [
        (0, format!("GET /users HTTP/1.1\n{new}")),
        (1, format!("GET /users/U/managed_members HTTP/1.1\n{new}")),
        (1, "GET /users/U/managed_members HTTP/1.1".to_owned()),
        (1, "GET /users HTTP/1.1".to_owned()),
        // What is refused is no use of it.
        (2, "GET /users/U/managed_members HTTP/1.1".to_owned()),
    ] {
        for _ in 0..4 {
            ask(&gateway, caller, &head, "");
        }
    }
    let used = |deprecated: u64| {
        serde_json::json!([{
            "caller": "caller-1", "unversioned": 8,
            "deprecated": [
                { "operation": "listManagedMembers", "deprecated_in": "v20250224", "requests": deprecated }
            ],
        }])
    };
    assert_eq!(report(&gateway)["callers"], used(8));
    let said = gateway.command(&["status", "versions"]).unwrap();
    assert!(said.contains("caller-1\n  without Accept-Version          8\n"), "{said}");
    assert_eq!(gateway.metric("mxgate_unversioned_requests_total{caller=\"caller-1\"}"), 8.0);
    let deprecated = "mxgate_deprecated_requests_total{caller=\"caller-1\",operation=\"listManagedMembers\"}";
    assert_eq!(gateway.metric(deprecated), 8.0);
    for nobody in ["caller-0", "caller-2"] {
        assert_eq!(gateway.metric(&format!("_requests_total{{caller=\"{nobody}\"")), 0.0, "{nobody}");
    }
    // A reload keeps the counts of callers that stay, wherever they stand now.
    let renamed = callers(&[all, all]).replace("caller-0", "another");
    gateway.setup.callers = Some(renamed);
    gateway.reconfigure();
    gateway.command(&["reload"]).unwrap();
    ask(&gateway, 1, &format!("GET /users/U/managed_members HTTP/1.1\n{new}"), "");
    assert_eq!(report(&gateway)["callers"], used(9));
    gateway.setup.callers = Some(callers(&[all]));
    gateway.reconfigure();
    gateway.command(&["reload"]).unwrap();
    assert_eq!(report(&gateway)["callers"], serde_json::json!([]));
}

fn operations(arguments: &[&str]) -> (i32, String) {
    let output = mxgate(&[&["operations"], arguments].concat(), &[]);
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.code().unwrap_or(-1), text)
}

fn listed(arguments: &[&str]) -> Vec<Value> {
    let (code, text) = operations(&[arguments, &["--json"]].concat());
    assert_eq!(code, 0, "{text}");
    serde_json::from_str::<Value>(&text).unwrap()["operations"].as_array().unwrap().clone()
}

fn ids(arguments: &[&str]) -> Vec<String> {
    listed(arguments).iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn operations_are_listed_and_filtered() {
    let of = |fits: &dyn Fn(&Row) -> bool| -> Vec<String> {
        ROWS.iter().filter(|row| fits(row)).map(|row| row.id.to_owned()).collect()
    };
    assert_eq!(ids(&[]), of(&|_| true));
    assert_eq!(ids(&["--tag", "insights", "--method", "put"]), ["updateInsight"]);
    assert_eq!(ids(&["--class", "key-admin"]), of(&|row| row.classes.contains(&"key-admin")));
    assert_eq!(ids(&["MERCHANT", "location"]), ["readMerchantLocation"]);
    assert_eq!(ids(&["--api-version", "v20111101"]).len(), 166);
    assert_eq!(ids(&["--deprecated"]).len(), 18);
    assert_eq!(ids(&["no such thing"]), [""; 0]);
    let one = &listed(&["downloadStatementPDF"])[0];
    let expected = serde_json::json!({
        "id": "downloadStatementPDF", "method": "GET", "tag": "statements", "credential": "environment",
        "path": "/users/{user_guid}/members/{member_guid}/statements/{statement_guid}.pdf",
        "media_types": ["application/vnd.mx.api.v1+pdf"], "classes": ["read", "bank-data"], "repeatable": true,
        "versions": ["v20111101", "v20250224"], "deprecated_in": null,
    });
    assert_eq!(one, &expected);
}

#[test]
fn a_grant_is_shown_in_full_with_what_decided() {
    let items = ["read", "-tag:insights", "tag:widgets"];
    let grant = items.join(",");
    let allowed: Vec<&str> = ROWS.iter().filter(|row| row.is_allowed(&items)).map(|row| row.id).collect();
    assert_eq!(ids(&["--grant", &grant]), allowed);
    let refused = listed(&["--grant", &grant, "--refused"]);
    assert_eq!(refused.len(), 176 - allowed.len());
    let why = |id: &str| {
        let one = refused.iter().find(|one| one["id"] == id).unwrap();
        (one["decided_by"].clone(), one["not_asked_for"].clone())
    };
    assert_eq!(why("readInsightUser"), ("-tag:insights".into(), Value::Null));
    assert_eq!(why("requestWidgetURL"), ("tag:widgets".into(), "mints-access".into()));
    assert_eq!(why("createUser"), (Value::Null, Value::Null));
    let (code, text) = operations(&["--grant", &grant, "listUsers"]);
    assert_eq!(
        (code, text.as_str()),
        (
            0,
            "users\n\n  listUsers                             read\n    GET /users\n    \
             environment  json, v1+json  repeatable  v20111101 v20250224\n    allowed by \"read\"\n\n\
             1 of 1 operation allowed\nwarning: item 2: allows nothing: all that it covers has a sensitive class \
             that is not asked for: mints-access\n"
        )
    );
}

#[test]
fn a_faulty_grant_has_exit_code_3_and_a_faulty_filter_2() {
    let (code, text) = operations(&["--grant", "raed, tag:insight,path:GET /users"]);
    assert_eq!(code, 3);
    assert_eq!(
        text,
        "--grant: item 0: is no class and no operation of MX; did you mean \"read\"?\n\
         --grant: item 1: is no tag of MX; did you mean \"insights\"?\n"
    );
    let (code, text) = operations(&["--grant", "read,path:GET /users"]);
    assert!(code == 3 && text.contains("MX's operation listUsers"), "{text}");
    for faulty in [["--tag", "insight"], ["--class", "raed"], ["--method", "TRACE"], ["--api-version", "1"]] {
        assert_eq!(operations(&faulty).0, 2, "{faulty:?}");
    }
}

#[test]
fn lines_are_narrow_enough_for_a_terminal() {
    let (_, text) = operations(&["--grant", "read,write"]);
    let longest = text.lines().max_by_key(|line| line.len()).unwrap();
    assert!(longest.len() <= 122, "{longest}");
    let wide = text.lines().filter(|line| line.len() > 80).count();
    assert!(wide * 20 < text.lines().count(), "{wide} lines are wider than 80 columns");
}
