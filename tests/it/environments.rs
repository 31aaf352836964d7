//! Which upstream a request goes to, with which key, and what may be asked there.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use mxgate::stand_in::{Running, journal::Request, options};

use crate::harness::{API_KEY, Answer, CLIENT_ID, Client, Gateway, Setup, last, mx, mx_with, until};

fn pair(client_id: &str, key: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{client_id}:{key}")))
}

fn authorization(request: &Request) -> String {
    request.headers["authorization"].to_str().expect("text").to_owned()
}

#[test]
fn the_caller_does_not_choose_the_upstream() {
    let (mx, other) = (mx(), mx());
    let gateway = Setup::new(&mx).start();
    let elsewhere = other.address();
    let port = gateway.addresses[0].port();
    let here = mx.address().to_string();
    for (line, fields) in [
        (format!("GET http://localhost:{port}/users?page=1 HTTP/1.1"), format!("Host: localhost:{port}")),
        ("GET /users?page=1 HTTP/1.1".into(), format!("Host: {elsewhere}")),
        ("GET /users?page=1 HTTP/1.1".into(), format!("Host: localhost\r\nX-Forwarded-Host: {elsewhere}")),
        ("GET /users?page=1 HTTP/1.1".into(), format!("Host: localhost\r\nForwarded: host={elsewhere}")),
        (
            "GET /users?page=1 HTTP/1.1".into(),
            format!("Host: localhost\r\nX-Original-URL: https://{elsewhere}/x"),
        ),
        (
            "GET /users?page=1 HTTP/1.1".into(),
            format!("Host: localhost\r\nX-Host: {elsewhere}\r\nHost_: {elsewhere}"),
        ),
    ] {
        let mut client = gateway.connect();
        client.raw(format!("{line}\r\n{fields}\r\n\r\n").as_bytes());
        let answer = client.answer();
        assert_eq!(answer.status, 200, "{line} {fields}: {}", answer.text());
        let request = last(&mx);
        assert_eq!(
            (request.target.as_str(), &request.headers["host"]),
            ("/users?page=1", &here.parse().unwrap())
        );
    }
    let received = mx.received();
    for (line, host, status) in [
        // An absolute target that differs from Host, or names something that is not here.
        (format!("GET http://{elsewhere}/users HTTP/1.1"), "localhost".to_owned(), 400),
        ("GET http://user:pw@localhost/users HTTP/1.1".into(), "localhost".into(), 400),
        ("GET http://user:pw@localhost/users HTTP/1.1".into(), "user:pw@localhost".into(), 400),
        ("GET http://mx.example/users HTTP/1.1".into(), "mx.example".into(), 421),
        // What is asked for by https does not come in here.
        (format!("GET https://localhost:{port}/users HTTP/1.1"), format!("localhost:{port}"), 421),
        ("GET /users HTTP/1.1".into(), "mx.example".into(), 421),
        (format!("CONNECT {elsewhere} HTTP/1.1"), elsewhere.to_string(), 501),
    ] {
        let mut client = gateway.connect();
        client.raw(format!("{line}\r\nHost: {host}\r\n\r\n").as_bytes());
        assert_eq!(client.answer().status, status, "{line} {host}");
    }
    assert_eq!((mx.received(), other.received()), (received, 0));
}

fn get(gateway: &Gateway, listener: usize, path: &str) -> u16 {
    let mut client = Client::connect(gateway.addresses[listener]);
    client.request(&format!("GET {path} HTTP/1.1"), "");
    client.answer().status
}

#[test]
fn each_listener_sends_its_own_environments_key_to_its_own_host() {
    let one = mx();
    let two =
        mx_with(|options| options.environments = vec![options::Environment::new("client-2", "s3cond-k3y")]);
    let mut setup = Setup::new(&one);
    setup.file("key2", "s3cond-k3y");
    setup.file("ca2.pem", two.authority_pem());
    let second = setup.environment("second", two.address()).replace("ca.pem", "ca2.pem");
    setup.environments.push_str(&second);
    setup.listeners.push_str("[[listener]]\naddress = \"127.0.0.1:0\"\nenvironment = \"second\"\n");
    let gateway = setup
        .credential("kind = \"basic\", client_id = \"client-2\", api_key = \"file:DIR/key2\"")
        .bearer_operations("\"refused\"")
        .start();
    for _ in 0..3 {
        assert_eq!((get(&gateway, 0, "/users"), get(&gateway, 1, "/users")), (200, 200));
    }
    let keys = |mx: &Running| mx.requests().iter().map(|request| authorization(request)).collect::<Vec<_>>();
    assert_eq!(keys(&one), vec![pair(CLIENT_ID, API_KEY); 3]);
    assert_eq!(keys(&two), vec![pair("client-2", "s3cond-k3y"); 3]);
}

#[test]
fn one_host_can_be_two_environments_with_two_clients() {
    let both = mx();
    let mut setup = Setup::new(&both);
    setup.file("key2", "s3cond-k3y");
    let second = setup.environment("second", both.address());
    setup.environments.push_str(&second);
    setup.listeners.push_str("[[listener]]\naddress = \"127.0.0.1:0\"\nenvironment = \"second\"\n");
    let gateway = setup
        .credential(&format!("kind = \"basic\", client_id = \"{CLIENT_ID}-2\", api_key = \"file:DIR/key2\""))
        .bearer_operations("\"refused\"")
        .start();
    assert_eq!(get(&gateway, 0, "/users"), 200);
    let first = last(&both);
    assert_eq!(authorization(&first), pair(CLIENT_ID, API_KEY));
    // The stand-in knows the first client only: whose key it was shows in its no.
    assert_eq!(get(&gateway, 1, "/users"), 401);
    let second = last(&both);
    assert_eq!(authorization(&second), pair(&format!("{CLIENT_ID}-2"), "s3cond-k3y"));
    assert_ne!(first.connection, second.connection, "environments share no connection");
    // And in the log, once for each worker.
    (0..5).for_each(|_| assert_eq!(get(&gateway, 1, "/users"), 401));
    let said = || {
        let log = gateway.stderr.text();
        log.lines()
            .filter(|line| line.contains("does not take the credential"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    until("it is logged", || !said().is_empty());
    assert!(said().len() <= 2 && said()[0].contains("second") && said()[0].contains("key2"), "{:?}", said());
}

fn other_api(patterns: &str) -> (Running, Gateway) {
    let mx = mx_with(|options| options.environments[0].any_path = true);
    let gateway = Setup::new(&mx).in_environment(&format!("paths = [{patterns}]")).start();
    (mx, gateway)
}

/// The methods of `Allow`, sorted.
fn allowed(answer: &Answer) -> Option<String> {
    answer.header("allow").map(|allow| {
        let mut methods: Vec<_> = allow.split(", ").collect();
        methods.sort_unstable();
        methods.join(", ")
    })
}

#[test]
fn an_environment_with_paths_answers_to_them_alone() {
    let (mx, gateway) = other_api(
        "\"GET /v1/things/{id}\", \"POST /v1/things\", \"DELETE /v1/things/{id}\", \"GET /files/{*rest}\", \"HEAD /only/head\"",
    );
    for line in [
        "GET /v1/things/7",
        "GET /v1/things/a%2Fb",
        "HEAD /v1/things/7",
        "DELETE /v1/things/7",
        "POST /v1/things",
        "GET /files/a",
        "GET /files/a/b/c.d?x=1",
        "HEAD /only/head",
    ] {
        let received = mx.received();
        let mut client = gateway.connect();
        client.request(&format!("{line} HTTP/1.1"), "");
        let answer = if line.starts_with("HEAD") { client.answer_to_head() } else { client.answer() };
        assert_eq!((answer.status, mx.received()), (200, received + 1), "{line}");
        let (method, target) = line.split_once(' ').unwrap();
        assert_eq!((last(&mx).method.as_str(), last(&mx).target.as_str()), (method, target));
        // Nothing is known of this API, so nothing is completed.
        assert!(!last(&mx).headers.contains_key("accept-version"), "{line}");
    }
    let received = mx.received();
    for (line, status, allow) in [
        ("GET /users", 404, None),
        ("GET /v1/things/7/8", 404, None),
        ("GET /v1/things/", 404, None),
        ("GET /V1/things/7", 404, None),
        ("GET /files", 404, None),
        ("GET /files/", 404, None),
        ("GET /files/a//b", 404, None),
        ("GET /files/../v1", 400, None),
        ("GET /v1/things", 405, Some("POST")),
        ("PUT /v1/things/7", 405, Some("DELETE, GET, HEAD")),
        ("POST /files/a", 405, Some("GET, HEAD")),
        ("GET /only/head", 405, Some("HEAD")),
    ] {
        let answer = gateway.send(&format!("{line} HTTP/1.1"), "");
        assert_eq!((answer.status, allowed(&answer).as_deref()), (status, allow), "{line}");
    }
    assert_eq!(mx.received(), received);
}

#[test]
fn the_catalogue_decides_paths_and_methods() {
    let mx = mx();
    let gateway = Setup::new(&mx).start();
    for (line, status, code, allow) in [
        ("POST /clients/CLT-1/api_keys/rotate", 403, "operation_denied", None),
        ("POST /clients/CLT-1/api_keys/retire", 403, "operation_denied", None),
        ("POST /clients", 403, "operation_denied", None),
        ("GET /clients/CLT-1/other", 404, "unknown_operation", None),
        ("GET /CLIENTS", 404, "unknown_operation", None),
        ("GET /Users", 404, "unknown_operation", None),
        ("GET /users/", 404, "unknown_operation", None),
        ("GET //users", 404, "unknown_operation", None),
        ("GET /", 404, "unknown_operation", None),
        ("PUT /users", 405, "method_not_allowed", Some("GET, HEAD, POST")),
        ("PATCH /users/U", 405, "method_not_allowed", Some("DELETE, GET, HEAD, PUT")),
        ("OPTIONS /users", 405, "method_not_allowed", Some("GET, HEAD, POST")),
    ] {
        let answer = gateway.send(&format!("{line} HTTP/1.1"), "");
        assert_eq!(
            (answer.status, answer.code().as_str(), allowed(&answer).as_deref()),
            (status, code, allow),
            "{line}"
        );
    }
    assert_eq!(mx.received(), 0);
}

#[test]
fn paths_arrive_byte_for_byte_or_not_at_all() {
    let mx = mx();
    let gateway = Setup::new(&mx).start();
    for target in [
        "/users/a%2Fb%20%C3%BC%3Fx",
        "/users/a:b@c,d;e=f",
        "/users/%25",
        "/users/%5B%7B",
        "/users/a...b",
        "/users/U?q=%61%2f&b[]=1&c=%C3%BC+%20&d",
        "/users/U?",
        "/users/U?a=b?/c",
    ] {
        let answer = gateway.get(target, "");
        assert_eq!(answer.status, 200, "{target}: {}", answer.text());
        assert_eq!(last(&mx).target, target);
        let head = last(&mx).head.clone();
        assert!(head.starts_with(format!("GET {target} HTTP/1.1\r\n").as_bytes()), "{head:?}");
    }
    let received = mx.received();
    for target in [
        "/users/%2e%2e",
        "/users/..",
        "/users/a%2F..%2Fb",
        "/users/%61",
        "/users/a%2fb",
        "/users/%zz",
        "/users/%252e",
        "/users/%00",
        "/users/a\\b",
        "/users/%5C",
        "/users/a#b",
        "/users/\"",
        "/users/U?a=%0d%0a",
    ] {
        let answer = gateway.get(target, "");
        assert_eq!((answer.status, answer.code().as_str()), (400, "malformed_target"), "{target}");
    }
    assert_eq!(mx.received(), received);
}

#[test]
fn a_denied_key_operation_is_recorded_by_its_name() {
    let mx = mx();
    let gateway = Setup::new(&mx).start();
    assert_eq!(gateway.send("POST /clients/CLT-1/api_keys/rotate HTTP/1.1", "").status, 403);
    let record = gateway.record(|record| record["code"] == "operation_denied");
    assert_eq!(record["operation"], "rotateApiKey");
    assert!(!record.to_string().contains("CLT-1"));
}
