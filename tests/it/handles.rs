//! Handles instead of tokens: what MX gives is kept, and works for whom it was given.

mod together;

use std::{fs, net::IpAddr, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use mxgate::stand_in::Running;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    harness::{Answer, CLIENT_ID, Client, EVERYTHING, Gateway, Setup, TOKEN, last, mx, mx_with, until},
    raw_upstream::RawUpstream,
    tokens::{AUDIENCE, ISSUER, Signer, claims, jwks},
};

const LEDGER: &str = "127.0.0.1";
const REPORT: &str = "127.0.0.2";

/// The listeners of [`Kept::setup`].
const TEST: usize = 0;
const OTHER: usize = 1;
const PLAIN: usize = 2;
const CONNECTIONS: usize = 3;

/// The four operations that take a Bearer token.
const BEARER: [&str; 4] = [
    "GET /account/account_numbers",
    "POST /account/check_balance",
    "GET /account/transactions",
    "GET /payment_account",
];

/// Where tokens are kept, whichever gateway is started with it.
struct Kept(TempDir);

impl Kept {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let key = folder.path().join("store-key");
        fs::write(&key, "0123456789abcdef0123456789abcdef").expect("a file");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("its mode");
        Self(folder)
    }

    fn store(&self) -> std::path::PathBuf {
        self.0.path().join("connections")
    }

    fn tables(&self) -> String {
        let at = self.0.path().display();
        format!("[connections]\nkey = \"file:{at}/store-key\"\nfile = \"{at}/connections\"\n")
    }

    /// `setup` with handles at its one environment, and two callers.
    fn smallest(&self, setup: Setup, more: &str) -> Setup {
        let mut setup = setup.in_environment("token_handles = true").table(&self.tables());
        let caller = |name: &str, address: &str, more: &str| {
            format!(
                "[[caller]]\nname = \"{name}\"\nnetworks = [\"{address}/32\"]\n\
                 grant = {{ test = [{EVERYTHING}] }}\n{more}\n"
            )
        };
        setup.callers = Some(caller("ledger", LEDGER, more) + &caller("report", REPORT, ""));
        setup
    }

    /// Three environments at one MX: `test` and `other` with handles, and `plain` without, where tokens pass through; and
    /// a listener that serves connections.
    fn setup(&self, mx: &Running) -> Setup {
        let mut setup = Setup::new(mx).control().table(&self.tables()).table(
            "[provider.bank]\nclient_id = \"C\"\nclient_secret = \"env:SECRET\"\nscopes = [\"a\"]\n\
             token_endpoint = \"https://127.0.0.1:1/token\"",
        );
        setup.variables.push(("SECRET".into(), "of-a-provider".into()));
        let other = setup.other_environment("other", mx.address());
        for (name, text) in [("plain-key", crate::harness::API_KEY), ("plain-token", TOKEN)] {
            setup.file(name, text);
        }
        let plain = setup.environment("plain", mx.address()).replace("/key\"", "/plain-key\"");
        let plain: Vec<&str> = plain.lines().filter(|line| !line.starts_with("bearer_operations")).collect();
        setup.environments = format!(
            "{}bearer_operations_line\n{other}token_handles = true\n{}\nbearer_operations = \"pass-through\"\n",
            setup.environments,
            plain.join("\n")
        )
        .replace("bearer_operations_line", "token_handles = true");
        setup.listeners = ["test", "other", "plain"]
            .map(|name| format!("[[listener]]\naddress = \"127.0.0.1:0\"\nenvironment = \"{name}\"\n"))
            .concat()
            + "[[listener]]\naddress = \"127.0.0.1:0\"\nserves = \"connections\"\n";
        let caller = |name: &str, address: &str| {
            format!(
                "[[caller]]\nname = \"{name}\"\nnetworks = [\"{address}/32\"]\n\
                 grant = {{ test = [{EVERYTHING}], other = [{EVERYTHING}], plain = [{EVERYTHING}] }}\n\
                 connections = {{ providers = [\"bank\"] }}\n"
            )
        };
        setup.callers = Some(caller("ledger", LEDGER) + &caller("report", REPORT));
        setup
    }
}

fn sent(gateway: &Gateway, listener: usize, from: &str, head: &str) -> Answer {
    let from: IpAddr = from.parse().unwrap();
    let mut client = Client::connect_from(from, gateway.addresses[listener]);
    let length = if head.starts_with("POST ") { "\ncontent-length: 0" } else { "" };
    client.request(&format!("{head}{length}"), "");
    client.answer()
}

fn exchange(gateway: &Gateway, listener: usize, from: &str, code: &str) -> Answer {
    let line = format!("POST /token?grant_type=authorization_code&code={code} HTTP/1.1");
    sent(gateway, listener, from, &line)
}

/// The handle that a new token is given under.
fn handle(gateway: &Gateway, code: &str) -> String {
    let answer = exchange(gateway, TEST, LEDGER, code);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["access_token"].as_str().expect("a text").to_owned()
}

/// An operation with this Bearer token.
fn with(gateway: &Gateway, listener: usize, from: &str, line: &str, token: &str) -> Answer {
    sent(gateway, listener, from, &format!("{line} HTTP/1.1\nauthorization: Bearer {token}"))
}

fn outcome(answer: &Answer) -> (u16, String) {
    (answer.status, answer.code())
}

fn no(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

fn is_handle(text: &Value) -> bool {
    let text = text.as_str().unwrap_or_default();
    text.strip_prefix("mxh_").is_some_and(|rest| {
        rest.len() == 43 && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    })
}

/// The token that the last request brought to MX.
fn token(mx: &Running) -> String {
    let value = last(mx).headers["authorization"].to_str().unwrap().to_owned();
    value.strip_prefix("Bearer ").expect("a Bearer token").to_owned()
}

#[test]
fn a_code_becomes_a_handle_and_it_works_on_every_operation_that_takes_a_token() {
    let (mx, kept) = (mx(), Kept::new());
    let gateway = kept.setup(&mx).start();
    let answer = exchange(&gateway, TEST, LEDGER, "a-code-of-the-test");
    let (with_handle, with_token) = (answer.json(), exchange(&gateway, PLAIN, LEDGER, "another-code").json());
    assert!(is_handle(&with_handle["access_token"]), "{with_handle}");
    assert!(!is_handle(&with_token["access_token"]) && with_token["access_token"].is_string());
    assert_eq!(with_handle["expires_in"], 60 * 24 * 3600);
    let without = |mut told: Value| {
        told["access_token"] = json!("");
        told
    };
    assert_eq!(without(with_handle.clone()), without(with_token), "all else is the same");
    let record = gateway.record(|record| record["kept"] == 1);
    assert_eq!(
        (&record["operation"], &record["environment"]),
        (&json!("exchangeProcessorCode"), &json!("test"))
    );
    let handle = with_handle["access_token"].as_str().unwrap();
    for line in BEARER {
        let answer = with(&gateway, TEST, LEDGER, line, handle);
        assert_eq!(answer.status, 200, "{line}: {}", answer.text());
        let token = token(&mx);
        assert!(token != handle && token != TOKEN, "{line}: {token}");
    }
    let record = gateway.record(|record| record["operation"] == "readAccountBalance");
    let name = record["credential"]["name"].as_str().unwrap();
    assert!(name.starts_with("connection:mxc_"), "{record}");
    // Who shows none gets what the environment has for everybody.
    assert_eq!(with(&gateway, TEST, LEDGER, "GET /payment_account", "of-the-caller").status, 200);
    assert_eq!(token(&mx), TOKEN);
    // What MX says of a code is its caller's to see.
    assert_eq!(outcome(&exchange(&gateway, TEST, LEDGER, "a-code-of-the-test")), no(400, ""));
    let payment = "POST /payment_processor_token?grant_type=authorization_code&code=a-third";
    assert!(is_handle(&sent(&gateway, TEST, LEDGER, &format!("{payment} HTTP/1.1")).json()["access_token"]));
}

#[test]
fn a_handle_is_of_no_use_to_anybody_else_nor_anywhere_else() {
    let (mx, kept) = (mx(), Kept::new());
    let gateway = kept.setup(&mx).start();
    let handle = handle(&gateway, "a-code");
    let received = mx.received();
    let denied = no(403, "connection_denied");
    let line = BEARER[3];
    let unknown = format!("mxh_{}", "A".repeat(43));
    for (listener, from, token) in [
        (TEST, REPORT, &*handle),
        (OTHER, LEDGER, &handle),
        (TEST, LEDGER, &unknown),
        (TEST, LEDGER, &handle[..handle.len() - 1]),
        (TEST, LEDGER, "mxh_"),
    ] {
        let answer = with(&gateway, listener, from, line, token);
        assert_eq!(outcome(&answer), denied, "{listener} {from} {token}");
    }
    for more in [
        format!("authorization: Basic {handle}"),
        format!("authorization: Bearer {handle}\nauthorization: Bearer {handle}"),
        format!("x-mxgate-connection: {handle}"),
        format!("x-other: {handle}"),
    ] {
        let answer = sent(&gateway, TEST, LEDGER, &format!("{line} HTTP/1.1\n{more}"));
        assert_eq!(outcome(&answer), denied, "{more}");
    }
    for path in [format!("/users?token={handle}"), format!("/users/{handle}")] {
        for listener in [TEST, PLAIN] {
            let answer = sent(&gateway, listener, LEDGER, &format!("GET {path} HTTP/1.1"));
            assert_eq!(outcome(&answer), denied, "{listener} {path}");
        }
    }
    // Nothing of mxgate's passes through where tokens of callers do.
    let connection = "mxc_0123456789abcdef0123456789abcdef";
    for token in [&*handle, connection, "mxg_3f9a0c5be214_0123"] {
        let answer = with(&gateway, PLAIN, LEDGER, line, token);
        assert_eq!(answer.status, 403, "{token}: {}", answer.text());
    }
    assert_eq!(mx.received(), received, "MX heard nothing of all this");
    // On another operation it is one of the credentials that stay here.
    assert_eq!(with(&gateway, TEST, LEDGER, "GET /users", &handle).status, 200);
    assert!(last(&mx).headers["authorization"].to_str().unwrap().starts_with("Basic "));
    assert_eq!(with(&gateway, TEST, LEDGER, line, &handle).status, 200);
}

#[test]
fn callers_do_not_see_kept_tokens_as_connections_and_operators_do_and_can_end_them() {
    let (mx, kept) = (mx(), Kept::new());
    let gateway = kept.setup(&mx).start();
    let handle = handle(&gateway, "a-code");
    let told = || -> Value {
        serde_json::from_str(&gateway.command(&["connections", "list", "--json"]).unwrap()).unwrap()
    };
    until("the operator sees it", || told()["connections"].as_array().unwrap().len() == 1);
    let one = told()["connections"][0].clone();
    assert_eq!((&one["provider"], &one["caller"]), (&json!("mx:token"), &json!("ledger")));
    assert_eq!(one["expires"], one["ends"]);
    let id = one["id"].as_str().unwrap();
    let asked = |line: &str| sent(&gateway, CONNECTIONS, LEDGER, &format!("{line} HTTP/1.1"));
    assert_eq!(asked("GET /connections").json()["connections"], json!([]));
    assert_eq!(outcome(&asked(&format!("GET /connections/{id}"))), no(404, "unknown_connection"));
    assert_eq!(outcome(&asked(&format!("DELETE /connections/{id}"))), no(404, "unknown_connection"));
    assert_eq!(with(&gateway, TEST, LEDGER, BEARER[3], &handle).status, 200);
    let ended = gateway.command(&["connections", "end", id]).unwrap();
    assert!(ended.contains("not_offered"), "{ended}");
    assert_eq!(outcome(&with(&gateway, TEST, LEDGER, BEARER[3], &handle)), no(403, "connection_denied"));
}

#[test]
fn a_handle_ends_with_its_token_and_says_so() {
    let mx = mx_with(|options| options.token_life = Duration::from_secs(3));
    let kept = Kept::new();
    let gateway = kept.setup(&mx).start();
    let handle = handle(&gateway, "a-code");
    assert_eq!(with(&gateway, TEST, LEDGER, BEARER[3], &handle).status, 200);
    gateway.stderr.wait_for(|line| line.contains("a token that MX gave ends soon"));
    let over = no(409, "reconnect_required");
    until("its time is over", || outcome(&with(&gateway, TEST, LEDGER, BEARER[3], &handle)) == over);
    let bad =
        || mx.requests().iter().filter(|request| request.status.is_some_and(|status| status == 401)).count();
    assert_eq!(bad(), 0, "MX saw no token after its time");
    let gone = || gateway.command(&["connections", "list", "--json"]).unwrap().contains("\"ended\"");
    until("it is no token any more", gone);
    assert_eq!(outcome(&with(&gateway, TEST, LEDGER, BEARER[3], &handle)), over);
}

#[test]
fn the_list_gives_the_same_handles_again_and_so_does_another_gateway_later() {
    let (mx, kept) = (mx(), Kept::new());
    let mut gateway = kept.setup(&mx).start();
    let handles: Vec<String> = ["a-code", "b-code"].map(|code| handle(&gateway, code)).into();
    let list = |gateway: &Gateway, from: &str| {
        let answer = sent(gateway, TEST, from, "GET /tokens HTTP/1.1");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let listed = answer.json()["tokens"].as_array().unwrap().clone();
        listed.iter().map(|one| one["access_token"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(list(&gateway, LEDGER), handles);
    assert_eq!(list(&gateway, LEDGER), handles);
    let others = list(&gateway, REPORT);
    assert!(others.iter().all(|other| is_handle(&json!(other)) && !handles.contains(other)));
    assert_eq!(with(&gateway, TEST, REPORT, BEARER[0], &others[1]).status, 200);
    let theirs = token(&mx);
    assert_eq!(with(&gateway, TEST, LEDGER, BEARER[0], &handles[1]).status, 200);
    assert_eq!(token(&mx), theirs, "one token, and a handle of it for each");
    gateway.signal("TERM");
    assert!(gateway.wait().success());
    let gateway = kept.setup(&mx).start();
    assert_eq!(with(&gateway, TEST, LEDGER, BEARER[0], &handles[0]).status, 200);
    assert_eq!(list(&gateway, LEDGER), handles);
}

#[test]
fn neither_code_nor_token_is_in_anything_that_is_written_or_answered() {
    let (mx, kept) = (mx(), Kept::new());
    let mut setup = kept.setup(&mx);
    setup.tables = setup.tables.replace("filter = \"info\"", "filter = \"trace\"");
    let mut gateway = setup.start();
    let code = "c4n4ry-c0de-of-one-user";
    let mut evidence = Vec::new();
    let first = exchange(&gateway, TEST, LEDGER, code);
    let handle = first.json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(with(&gateway, TEST, LEDGER, BEARER[3], &handle).status, 200);
    let token = token(&mx);
    let reflecting =
        format!("{} HTTP/1.1\nauthorization: Bearer {handle}\nx-stand-in-reflect: true", BEARER[3]);
    for answer in [
        first,
        exchange(&gateway, TEST, LEDGER, code),
        sent(&gateway, TEST, LEDGER, "GET /tokens HTTP/1.1"),
        sent(&gateway, TEST, LEDGER, &reflecting),
        with(&gateway, TEST, REPORT, BEARER[3], &handle),
    ] {
        evidence.push(format!("{:?} {}", answer.headers, answer.text()));
    }
    evidence.push(gateway.page("/metrics").text());
    gateway.record(|record| record["status"] == 400);
    gateway.signal("TERM");
    assert!(gateway.wait().success());
    evidence.extend([gateway.stdout.text(), gateway.stderr.text()]);
    evidence.push(String::from_utf8_lossy(&fs::read(kept.store()).unwrap()).into_owned());
    let evidence = evidence.join("\n");
    assert!(evidence.contains("exchangeProcessorCode") && evidence.contains("tokens that MX gave were kept"));
    let base64 = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, &token);
    for secret in [code, &token, &base64] {
        assert!(!evidence.contains(secret), "{secret}");
    }
    // The handle is its caller's alone, but no business of a log's.
    for written in [gateway.stdout.text(), gateway.stderr.text()] {
        assert!(!written.contains(&handle));
    }
    let store = fs::read(kept.store()).unwrap();
    assert!(memchr::memmem::find(&store, handle.as_bytes()).is_none());
}

#[test]
fn what_cannot_be_kept_is_not_given() {
    let (mx, kept) = (mx(), Kept::new());
    let mut setup = kept.setup(&mx);
    // What a write beyond the limit would end the process with.
    setup.prelude = "trap '' XFSZ".into();
    let gateway = setup.start();
    let before = handle(&gateway, "a-code");
    assert_eq!(with(&gateway, TEST, LEDGER, BEARER[3], &before).status, 200);
    let pid = Pid::from_raw(gateway.pid().try_into().unwrap());
    let bounds = |current| Rlimit { current, maximum: None };
    prlimit(pid, Resource::Fsize, bounds(Some(1))).unwrap();
    let answer = exchange(&gateway, TEST, LEDGER, "b-code");
    assert_eq!(outcome(&answer), no(503, "token_unavailable"));
    assert_eq!(mx.count("exchangeProcessorCode"), 2);
    gateway.stderr.wait_for(|line| line.contains("a token that MX gave cannot be kept"));
    // What is in use goes on.
    assert_eq!(with(&gateway, TEST, LEDGER, BEARER[3], &before).status, 200);
    let list = || sent(&gateway, TEST, LEDGER, "GET /tokens HTTP/1.1");
    assert_eq!(outcome(&list()), no(503, "token_unavailable"));
    prlimit(pid, Resource::Fsize, bounds(None)).unwrap();
    let listed = list();
    assert_eq!(listed.status, 200, "{}", listed.text());
    assert_eq!(listed.json()["tokens"][0]["access_token"], json!(before));
    let late = listed.json()["tokens"][1]["access_token"].as_str().unwrap().to_owned();
    assert_eq!(with(&gateway, TEST, LEDGER, BEARER[3], &late).status, 200, "it was not lost");
}

#[test]
fn while_there_is_no_store_no_code_is_used_up() {
    let (mx, kept) = (mx(), Kept::new());
    fs::remove_file(kept.0.path().join("store-key")).unwrap();
    let gateway = kept.setup(&mx).start();
    assert_eq!(outcome(&exchange(&gateway, TEST, LEDGER, "a-code")), no(503, "token_unavailable"));
    assert_eq!(outcome(&sent(&gateway, TEST, LEDGER, "GET /tokens HTTP/1.1")), no(503, "token_unavailable"));
    let unknown = format!("mxh_{}", "A".repeat(43));
    assert_eq!(outcome(&with(&gateway, TEST, LEDGER, BEARER[3], &unknown)), no(503, "token_unavailable"));
    assert_eq!(mx.received(), 0);
    assert_eq!(sent(&gateway, TEST, LEDGER, "GET /users HTTP/1.1").status, 200, "all else goes on");
}

/// An upstream that says the same again and again.
fn says(text: String) -> RawUpstream {
    RawUpstream::start(move |_, wire| wire.say_always(text.as_bytes()))
}

fn answer(status: &str, fields: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{fields}\r\n{body}", body.len())
}

const JSON: &str = "Content-Type: application/json\r\n";

#[test]
fn what_cannot_be_read_whole_as_json_is_not_passed_on() {
    let large = format!("{{\"access_token\":\"c4n4ry-token\",\"a\":\"{}\"}}", "x".repeat(1 << 20));
    let given = "{\"access_token\":\"c4n4ry-token\"}";
    let not_maskable = no(502, "answer_not_maskable");
    for (what, text, expected) in [
        ("larger", answer("200 OK", JSON, &large), &not_maskable),
        ("no JSON", answer("200 OK", JSON, "access_token=c4n4ry-token"), &not_maskable),
        ("cut JSON", answer("200 OK", JSON, &given[..given.len() - 1]), &not_maskable),
        ("another type", answer("200 OK", "Content-Type: text/plain\r\n", given), &not_maskable),
        ("a token elsewhere", answer("200 OK", JSON, "{\"value\":\"c4n4ry-token\"}"), &not_maskable),
        ("a short token", answer("200 OK", JSON, "{\"access_token\":\"c4n4ry\"}"), &not_maskable),
        (
            "gzip",
            answer("200 OK", &format!("{JSON}Content-Encoding: gzip\r\n"), given),
            &no(502, "upstream_encoding"),
        ),
    ] {
        let kept = Kept::new();
        let gateway = kept.smallest(says(text).setup(), "").start();
        let told = exchange(&gateway, TEST, LEDGER, "a-code");
        assert_eq!(outcome(&told), *expected, "{what}");
        assert!(
            !told.text().contains("c4n4ry") && !format!("{:?}", told.headers).contains("c4n4ry"),
            "{what}"
        );
    }
}

#[test]
fn only_the_token_is_replaced_and_where_it_is_said_again_it_is_masked() {
    let body = "{ \"z\" : 1.10,\r\n \"access_token\": \"c4n4ry-token\", \"say\":\"Bearer c4n4ry-token\" }\n";
    let fields = format!("{JSON}ETag: \"x\"\r\nX-Echo: c4n4ry-token\r\nX-Other: kept\r\n");
    let chunked = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{fields}\r\n{:x}\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n",
        50,
        &body[..50],
        body.len() - 50,
        &body[50..]
    );
    for text in [answer("200 OK", &fields, body), chunked] {
        let kept = Kept::new();
        let gateway = kept.smallest(says(text).setup(), "").start();
        let told = exchange(&gateway, TEST, LEDGER, "a-code");
        let handle = told.json()["access_token"].as_str().unwrap().to_owned();
        let expected =
            body.replacen("c4n4ry-token", &handle, 1).replace("Bearer c4n4ry-token", "Bearer ************");
        assert_eq!(told.text(), expected);
        assert_eq!(told.all("content-length"), [told.body.len().to_string()]);
        assert_eq!((told.header("etag"), told.header("x-other")), (None, Some("kept")));
        assert_eq!(told.header("x-echo"), Some("************"));
        let record = gateway.record(|record| record["kept"] == 1);
        assert_eq!(record["masked"], 2);
        // Again, on the connection that was kept.
        assert_eq!(exchange(&gateway, TEST, LEDGER, "b-code").text(), expected);
    }
}

#[test]
fn a_no_of_mxs_passes_as_it_is_and_a_mask_goes_over_a_handle() {
    let refused = answer("401 Unauthorized", JSON, "{\"token\":\"no token at all\"}");
    let kept = Kept::new();
    let gateway = kept.smallest(says(refused).setup(), "").start();
    let told = exchange(&gateway, TEST, LEDGER, "a-code");
    assert_eq!((told.status, told.text().as_str()), (401, "{\"token\":\"no token at all\"}"));
    let (mx, kept) = (mx(), Kept::new());
    let gateway = kept.smallest(Setup::new(&mx), "mask_fields = [\"access_token\"]").start();
    let told = exchange(&gateway, TEST, LEDGER, "a-code");
    assert_eq!((told.status, &told.json()["access_token"]), (200, &json!("********")));
    assert!(is_handle(&exchange(&gateway, TEST, REPORT, "b-code").json()["access_token"]));
    assert_eq!(
        sent(&gateway, TEST, LEDGER, "GET /tokens HTTP/1.1").json()["tokens"].as_array().unwrap().len(),
        2
    );
}
