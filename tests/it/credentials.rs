//! Exactly one credential reaches MX, and it is ours.
//!
//! Every value that a caller sends in place of a credential holds the word `evil`, so one look at the raw
//! bytes that the stand-in received shows whether any of it came through. The stand-in itself answers 401
//! to a request with two credentials.

use std::fmt::Write as _;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderName, HeaderValue};
use mxgate::stand_in::{
    Running,
    journal::Request,
    options::{Options, Scheme},
};
use proptest::prelude::*;

use crate::harness::{API_KEY, CLIENT_ID, Gateway, Setup, TOKEN, last, lines, mx, mx_with};

/// Names under which a caller could send a credential, or have a request taken for another one.
const NAMES: &[&str] = &[
    "Authorization",
    "Proxy-Authorization",
    "Cookie",
    "Cookie2",
    "MX-API-Key",
    "MX-Client-ID",
    "API-Key",
    "ApiKey",
    "X-API-Key",
    "X-Auth-Token",
    "X-Access-Token",
    "MD-API-KEY",
    "MD-SESSION-TOKEN",
    "MD-Whatever",
    "X-Vault-Token",
    "Private-Token",
    "X_Client_Secret",
    "X-Mx-Api-Key",
    "DPoP",
    "X-HTTP-Method-Override",
    "X-HTTP-Method",
    "X-Method-Override",
    "X-Original-URL",
    "X-Original-URI",
    "X-Original-Host",
    "X-Original-Method",
    "X-Rewrite-URL",
    "X-Rewrite-Whatever",
    "X-Host",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Forwarded-Prefix",
    "Forwarded",
    "Via",
    "X-Real-IP",
    "True-Client-IP",
    "Referer",
    "X-Mxgate-Caller",
];

const QUERY: &str = "page=2&api_key=evil&%61pi_key=evil1&API-KEY[]=evil2&api_key=evil3&client_id=evil4&%43lient.Id=evil5\
    &access_token=evil6&mx_api_key=evil&records_per_page=10";

/// Every name twice, as it is and with underscores.
fn dirt() -> String {
    NAMES.iter().enumerate().fold(String::new(), |mut lines, (at, name)| {
        let other = name.replace('-', "_").to_lowercase();
        _ = writeln!(lines, "{name}: Basic evil{at}\n{other}: Bearer evil{at}");
        lines
    })
}

const ROOMY: &str = "[limits]\nheader_count_max = 100";

fn basic() -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{CLIENT_ID}:{API_KEY}")))
}

/// The values of the fields that can hold a credential, in the order of the names given.
fn shown(request: &Request) -> Vec<(&str, &str)> {
    let names =
        ["authorization", "mx-api-key", "mx-client-id", "md-session-token", "x-own-key", "x-own-word"];
    let values = names.into_iter().flat_map(|name| {
        request.headers.get_all(name).iter().map(move |value| (name, value.to_str().expect("text")))
    });
    values.collect()
}

fn assert_clean(request: &Request) {
    let head = String::from_utf8_lossy(&request.head).to_lowercase();
    assert!(!head.is_empty() && !head.contains("evil"), "{head}");
}

fn taking(scheme: Scheme) -> impl FnOnce(&mut Options) {
    move |options| options.environments[0].schemes = vec![scheme]
}

/// What a dirty request leaves at MX is, line by line, what a clean one does.
fn assert_ours(mx: &Running, gateway: &Gateway, query: &str, target: &str, expected: &[(&str, &str)]) {
    let answer = gateway.get("/users?page=2&records_per_page=10", "X-App: 1");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let clean = last(mx);
    assert_eq!((shown(&clean).as_slice(), clean.target.as_str()), (expected, target));

    let answer = gateway.get(&format!("/users?{query}"), &format!("X-App: 1\n{}", dirt()));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let dirty = last(mx);
    assert_clean(&dirty);
    assert_eq!(dirty.target, target);
    assert_eq!(lines(&dirty), lines(&clean));
    assert_eq!(dirty.oddities, []);
}

const FORWARDED: &str = "/users?page=2&records_per_page=10";

fn start(mx: &Running, credential: &str) -> Gateway {
    Setup::new(mx).credential(credential).table(ROOMY).start()
}

#[test]
fn basic_replaces_whatever_the_caller_sent() {
    let mx = mx();
    let gateway = Setup::new(&mx).table(ROOMY).start();
    assert_ours(&mx, &gateway, QUERY, FORWARDED, &[("authorization", &basic())]);
    // Where they are no credential's names, `k` and `c` are the caller's own parameters.
    gateway.get("/users?k=1&%6B=2&c=3&api_keys=4&xapi_key=5", "X-Keys: 1\nx-authorized-id: 2");
    let request = last(&mx);
    assert_eq!(request.target, "/users?k=1&%6B=2&c=3&api_keys=4&xapi_key=5");
    assert_eq!(
        (&request.headers["x-keys"], &request.headers["x-authorized-id"]),
        (&"1".parse().unwrap(), &"2".parse().unwrap())
    );
}

#[test]
fn api_key_is_the_key_and_the_client_id_beside_it() {
    let mx = mx_with(taking(Scheme::ApiKey));
    let gateway =
        start(&mx, &format!("kind = \"api-key\", client_id = \"{CLIENT_ID}\", api_key = \"file:DIR/key\""));
    let authorization = format!("API_KEY {API_KEY}");
    assert_ours(
        &mx,
        &gateway,
        QUERY,
        FORWARDED,
        &[("authorization", &authorization), ("mx-client-id", CLIENT_ID)],
    );
}

#[test]
fn mx_api_key_is_two_headers_and_no_authorization() {
    let mx = mx_with(taking(Scheme::MxApiKey));
    let gateway = start(
        &mx,
        &format!("kind = \"mx-api-key\", client_id = \"{CLIENT_ID}\", api_key = \"file:DIR/key\""),
    );
    assert_ours(&mx, &gateway, QUERY, FORWARDED, &[("mx-api-key", API_KEY), ("mx-client-id", CLIENT_ID)]);
}

#[test]
fn a_bearer_environment_sends_its_token_everywhere() {
    let mx = mx_with(|options| options.environments[0].schemes = vec![Scheme::Bearer]);
    let gateway = Setup::new(&mx)
        .credential("kind = \"bearer\", token = \"file:DIR/token\"")
        .bearer_operations("\"refused\"")
        .table(ROOMY)
        .start();
    let bearer = format!("Bearer {TOKEN}");
    assert_ours(&mx, &gateway, QUERY, FORWARDED, &[("authorization", &bearer)]);
    for (method, path) in BEARER_OPERATIONS {
        let answer = gateway.send(&format!("{method} {path} HTTP/1.1\nAuthorization: Bearer evil"), "");
        assert_eq!(answer.status / 100, 2, "{path}: {}", answer.text());
        assert_eq!(shown(&last(&mx)), [("authorization", bearer.as_str())]);
    }
}

#[test]
fn a_header_of_any_name_carries_the_value_after_its_prefix() {
    let name = HeaderName::from_static("x-own-word");
    let value = HeaderValue::from_str(&format!("Token {API_KEY}")).unwrap();
    let mx = mx_with(taking(Scheme::Header { name, value }));
    let gateway =
        start(&mx, "kind = \"header\", name = \"X-Own-Word\", prefix = \"Token \", value = \"file:DIR/key\"");
    let value = format!("Token {API_KEY}");
    assert_ours(&mx, &gateway, QUERY, FORWARDED, &[("x-own-word", &value)]);
    // Nor behind a body. What is a credential anywhere is refused there, and this name is dropped.
    let head = "POST /users HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\
                Trailer: X-Sum, X-Own-Word, x_own_word\r\n\r\nb\r\n{\"user\":{}}\r\n0\r\n";
    let mut client = gateway.connect();
    client.raw(format!("{head}X-Sum: 7\r\nMD-API-KEY: evil\r\n\r\n").as_bytes());
    assert_eq!(client.answer().status, 400);
    let mut client = gateway.connect();
    client.raw(format!("{head}X-Sum: 7\r\nX-Own-Word: evil\r\nx_own_word: evil\r\n\r\n").as_bytes());
    assert_eq!(client.answer().status, 200);
    let request = last(&mx);
    assert_eq!((request.trailers.len(), &request.trailers["x-sum"]), (1, &HeaderValue::from_static("7")));
    assert_eq!((&request.headers["trailer"], request.body.len()), (&HeaderValue::from_static("x-sum"), 11));
    // The caller's own under that name, under its look-alike, or removed by `Connection`: ours is there once.
    for own in
        ["X-Own-Word: evil\nX-OWN-WORD: evil", "X_Own_Word: evil\nx_own-word: evil", "Connection: x-own-word"]
    {
        assert_eq!(gateway.get("/users", own).status, 200, "{own}");
        assert_clean(&last(&mx));
        assert_eq!(shown(&last(&mx)), [("x-own-word", value.as_str())]);
    }
}

fn query_environment() -> (Running, Gateway) {
    let mx = mx_with(taking(Scheme::Query { client_id_name: "c".into(), api_key_name: "k".into() }));
    let gateway = start(
        &mx,
        &format!(
            "kind = \"query\", client_id = \"{CLIENT_ID}\", api_key = \"file:DIR/key\", client_id_name = \"c\", api_key_name = \"k\""
        ),
    );
    (mx, gateway)
}

#[test]
fn query_credentials_are_ours_under_the_configured_names() {
    let (mx, gateway) = query_environment();
    let query = format!("{QUERY}&k=evil7&%6B=evil8&K=evil9&k[]=evil&c=evil&c=evil");
    assert_ours(&mx, &gateway, &query, &format!("{FORWARDED}&k={API_KEY}&c={CLIENT_ID}"), &[]);
}

#[test]
fn query_credentials_stand_beside_any_query_of_the_callers() {
    let (mx, gateway) = query_environment();
    for (sent, forwarded) in [
        ("", "?"),
        ("?", "?"),
        ("?k=evil", "?"),
        ("?k=evil&c=evil", "?"),
        ("?a", "?a&"),
        ("?a=b&", "?a=b&&"),
        // A question mark in a value starts no query.
        ("?a=b?", "?a=b?&"),
        ("??", "??&"),
        // Some read up to the semicolon and some beyond: the value goes whole.
        ("?k=evil;a=b", "?"),
        ("?a=1;k=evil", "?a=1&"),
        ("?a=b%26k=evil", "?a=b%26k=evil&"),
    ] {
        let answer = gateway.get(&format!("/users{sent}"), "");
        assert_eq!(answer.status, 200, "{sent}: {}", answer.text());
        assert_eq!(last(&mx).target, format!("/users{forwarded}k={API_KEY}&c={CLIENT_ID}"), "{sent}");
    }
}

#[test]
fn a_bearer_operation_has_no_key_in_its_query() {
    let (mx, gateway) = query_environment();
    let answer = gateway.get("/payment_account?k=evil&page=1", "Authorization: Basic evil");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(last(&mx).target, "/payment_account?page=1");
    assert_eq!(shown(&last(&mx)), [("authorization", format!("Bearer {TOKEN}").as_str())]);
    assert_eq!(gateway.get("/users?page=1", "").status, 200);
    assert_eq!(last(&mx).target, format!("/users?page=1&k={API_KEY}&c={CLIENT_ID}"));
    assert_eq!(shown(&last(&mx)), []);
}

const BEARER_OPERATIONS: [(&str, &str); 4] = [
    ("GET", "/account/account_numbers"),
    ("POST", "/account/check_balance"),
    ("GET", "/payment_account"),
    ("GET", "/account/transactions"),
];

#[test]
fn bearer_operations_get_the_configured_token_and_others_do_not() {
    let mx = mx();
    let gateway = Setup::new(&mx).start();
    for (method, path) in BEARER_OPERATIONS {
        for own in [
            "",
            "Authorization: Bearer evil",
            "Authorization: Bearer evil\nAuthorization: Basic evil\nMX-Client-ID: evil",
        ] {
            let answer = gateway.send(&format!("{method} {path} HTTP/1.1\n{own}"), "");
            assert_eq!(answer.status / 100, 2, "{path}: {}", answer.text());
            assert_clean(&last(&mx));
            assert_eq!(shown(&last(&mx)), [("authorization", format!("Bearer {TOKEN}").as_str())]);
        }
    }
    assert_eq!(gateway.get("/users", "Authorization: Bearer evil").status, 200);
    assert_eq!(shown(&last(&mx)), [("authorization", basic().as_str())]);
}

#[test]
fn without_a_token_bearer_operations_are_refused_whatever_the_caller_sends() {
    let mx = mx();
    let gateway = Setup::new(&mx).bearer_operations("\"refused\"").start();
    for (method, path) in BEARER_OPERATIONS {
        for own in ["", "Authorization: Bearer t0ken-of-one-account"] {
            let answer = gateway.send(&format!("{method} {path} HTTP/1.1\n{own}"), "");
            assert_eq!((answer.status, answer.code().as_str()), (403, "no_credential"), "{path} {own}");
        }
    }
    assert_eq!(mx.received(), 0);
    assert_eq!(gateway.get("/users", "").status, 200);
}

#[test]
fn the_callers_token_passes_through_only_there_only_alone_and_only_if_configured() {
    let mx = mx();
    let gateway = Setup::new(&mx).bearer_operations("\"pass-through\"").start();
    let bearer = format!("Bearer {TOKEN}");
    for (method, path) in BEARER_OPERATIONS {
        let own = format!(
            "Authorization: {bearer}\nMX-Client-ID: evil\nX-Api-Key: evil\nConnection: authorization"
        );
        let answer = gateway.send(&format!("{method} {path}?access_token=evil HTTP/1.1\n{own}"), "");
        assert_eq!(answer.status / 100, 2, "{path}: {}", answer.text());
        assert_clean(&last(&mx));
        assert_eq!(shown(&last(&mx)), [("authorization", bearer.as_str())]);
    }
    let received = mx.received();
    for own in [
        String::new(),
        format!("Authorization: {bearer}\nAuthorization: {bearer}"),
        format!("Authorization: {bearer}\nAuthorization: Basic evil"),
        "Authorization: Basic evil".into(),
        "Authorization: Bearer".into(),
        "Authorization: Bearer ".into(),
        format!("Authorization: {TOKEN}"),
        format!("Authorization: Bearer {TOKEN}, Basic evil"),
        format!("Authorization: Bearer {TOKEN} evil"),
        format!("Authorization: Bearer  {TOKEN}"),
        "Authorization: Bearer ==".into(),
        format!("Authorization_: {bearer}"),
    ] {
        let answer = gateway.get("/payment_account", &own);
        assert_eq!((answer.status, answer.code().as_str()), (403, "no_credential"), "{own}");
    }
    assert_eq!(mx.received(), received);
    // Elsewhere the caller's token is replaced like any other credential.
    assert_eq!(gateway.get("/users", &format!("Authorization: {bearer}")).status, 200);
    assert_eq!(shown(&last(&mx)), [("authorization", basic().as_str())]);
}

#[test]
fn the_environments_own_header_does_not_stand_beside_a_passed_token() {
    let value = HeaderValue::from_static(API_KEY);
    let mx = mx_with(taking(Scheme::Header { name: HeaderName::from_static("x-own-key"), value }));
    let gateway = Setup::new(&mx)
        .credential("kind = \"header\", name = \"X-Own-Key\", value = \"file:DIR/key\"")
        .bearer_operations("\"pass-through\"")
        .start();
    let own = format!("Authorization: Bearer {TOKEN}\nX-Own-Key: evil\nX_Own_Key: evil");
    let answer = gateway.get("/payment_account", &own);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_clean(&last(&mx));
    assert_eq!(shown(&last(&mx)), [("authorization", format!("Bearer {TOKEN}").as_str())]);
    assert_eq!(gateway.get("/users", &own).status, 200);
    assert_eq!(shown(&last(&mx)), [("x-own-key", API_KEY)]);
}

/// A credential's name as some client, or somebody who means harm, could spell it.
fn spelling() -> impl Strategy<Value = String> {
    (prop::sample::select(NAMES), any::<u64>()).prop_map(|(name, bits)| {
        let respell = |(at, byte): (usize, char)| match (byte, bits >> at & 1) {
            ('-', 1) => '_',
            (letter, 1) => letter.to_ascii_uppercase(),
            (letter, _) => letter.to_ascii_lowercase(),
        };
        name.chars().enumerate().map(respell).collect()
    })
}

fn value() -> impl Strategy<Value = String> {
    prop::sample::select(
        &["Basic evil", "Bearer evil", "API_KEY evil", "evil", "Basic ZXZpbDpldmls, Bearer evil"][..],
    )
    .prop_map(str::to_owned)
}

fn connection() -> impl Strategy<Value = String> {
    let names = prop_oneof![
        Just("authorization".to_owned()),
        Just("content-length".to_owned()),
        Just("host".to_owned()),
        Just("close".to_owned()),
        spelling()
    ];
    prop::collection::vec(names, 0..4).prop_map(|names| names.join(", "))
}

fn query() -> impl Strategy<Value = String> {
    const NAMES: &[&str] = &[
        "api_key",
        "API-KEY[]",
        "%61pi_key",
        "client_id",
        "Client.ID",
        "%63%6c%69ent_id",
        "access_token",
        "page",
    ];
    let pair = prop::sample::select(NAMES).prop_map(|name| match name {
        "page" => "page=1".to_owned(),
        name => format!("{name}=evil"),
    });
    prop::collection::vec(pair, 0..6).prop_map(|pairs| pairs.join("&"))
}

#[test]
fn no_spelling_brings_a_second_credential_to_mx() {
    let mx = mx();
    let gateway = Setup::new(&mx).table(ROOMY).start();
    let fields = prop::collection::vec((spelling(), value()), 0..24);
    let ours = basic();
    let config = ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(fields in fields, connection in connection(), query in query())| {
        let lines = fields.iter().fold(format!("Connection: {connection}\n"), |mut lines, (name, value)| {
            _ = writeln!(lines, "{name}: {value}");
            lines
        });
        let received = mx.received();
        let answer = gateway.get(&format!("/users?{query}"), &lines);
        prop_assert_eq!(answer.status, 200, "{}", answer.text());
        prop_assert_eq!(mx.received(), received + 1);
        let request = last(&mx);
        prop_assert_eq!(shown(&request), [("authorization", ours.as_str())]);
        assert_clean(&request);
        prop_assert_eq!(&request.oddities, &[]);
    });
}
