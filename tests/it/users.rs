//! Whose data a caller may reach, over real sockets: by a list, and by its end user's token.

use std::{
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use mxgate::stand_in::Running;
use serde_json::json;

use crate::{
    harness::{Answer, EVERYTHING, Gateway, Setup, last, mx, until},
    raw_upstream::RawUpstream,
    tokens::{AUDIENCE, ISSUER, Signer, claims, claims_but, hs256, jwks, unsigned},
};

/// A gateway whose one caller may do everything and has these keys.
fn start(mx: &Running, toml: &str, prepare: impl FnOnce(&mut Setup)) -> Gateway {
    let mut setup = Setup::new(mx);
    prepare(&mut setup);
    let folder = setup.folder().display().to_string();
    setup.callers = Some(format!(
        "[[caller]]\nname = \"bound\"\nnetworks = [\"127.0.0.0/8\"]\n\
         grant = {{ test = [{EVERYTHING}, \"listInstitutions\"] }}\n{}\n",
        toml.replace("DIR", &folder)
    ));
    setup.start()
}

fn outcome(answer: &Answer) -> (u16, String) {
    (answer.status, answer.code())
}

fn denied() -> (u16, String) {
    (403, "operation_denied".into())
}

fn stranger() -> (u16, String) {
    (403, "caller_not_allowed".into())
}

fn served() -> (u16, String) {
    (200, String::new())
}

#[test]
fn a_caller_reaches_its_users_and_no_other() {
    let mx = mx();
    let gateway = start(&mx, "users = [\"USR-1\", \"A-*\"]", |_| ());
    for path in
        ["/users/USR-1", "/users/A-b/members", "/vc/users/USR-1/members/MBR-1/accounts", "/institutions"]
    {
        assert_eq!(outcome(&gateway.get(path, "")), served(), "{path}");
    }
    let received = mx.received();
    for path in [
        "/users/USR-2",
        "/users/USR-1%20",
        "/users/usr-1",
        "/users/B-1/members",
        "/users",
        "/merchants",
        "/users/USR-1?user_guid=USR-2",
    ] {
        assert_eq!(outcome(&gateway.get(path, "")), denied(), "{path}");
    }
    assert_eq!(mx.received(), received, "nothing was sent");
    assert_eq!(gateway.metric("mxgate_user_refusals_total{reason=\"user_not_listed\"}") as u64, 4);
    assert_eq!(gateway.metric("mxgate_user_refusals_total{reason=\"no_user_in_path\"}") as u64, 2);
    let record = gateway.record(|record| record["code"] == "operation_denied");
    assert_eq!(record["operation"], "readUser");
    let said = gateway.stderr.wait_for(|line| line.contains("user_not_listed"));
    assert!(!said.contains("USR-"), "{said}");
}

#[test]
fn a_file_of_users_is_taken_up_when_it_changes_and_a_faulty_one_is_not() {
    let mx = mx();
    let gateway = start(&mx, "users_file = \"DIR/users\"", |setup| _ = setup.file("users", "USR-1\n"));
    assert_eq!(outcome(&gateway.get("/users/USR-1", "")), served());
    assert_eq!(outcome(&gateway.get("/users/USR-2", "")), denied());
    gateway.setup.file("users", "USR-2\n");
    until("the new file is in use", || gateway.get("/users/USR-2", "").status == 200);
    assert_eq!(outcome(&gateway.get("/users/USR-1", "")), denied());
    gateway.setup.file("users", "USR-1\nnot a user\n");
    let said = gateway.stderr.wait_for(|line| line.contains("users:2:"));
    assert!(!said.contains("not a user"), "{said}");
    assert_eq!(outcome(&gateway.get("/users/USR-2", "")), served(), "what was good stays");
}

const END_USER: &str = "[caller.end_user]\nissuer = \"ISSUER\"\naudience = \"AUDIENCE\"\n";

fn end_user(more: &str) -> String {
    format!("{}{more}", END_USER.replace("ISSUER", ISSUER).replace("AUDIENCE", AUDIENCE))
}

fn with(token: &str) -> String {
    format!("X-Mxgate-End-User: {token}")
}

#[test]
fn a_request_is_for_the_user_whom_its_token_names() {
    let mx = mx();
    let (rsa, ec, stranger_key) = (Signer::rsa("r"), Signer::ec("e"), Signer::rsa("r"));
    let keys = jwks(&[&rsa, &ec]);
    let gateway = start(&mx, &end_user("jwks = \"file:DIR/jwks\""), |setup| _ = setup.file("jwks", &keys));
    let get = |path: &str, token: &str| outcome(&gateway.get(path, &with(token)));
    let right = [rsa.token(&claims("USR-1")), ec.token(&claims("USR-1"))];
    for token in &right {
        // Verified, and then remembered.
        for _ in 0..2 {
            assert_eq!(get("/users/USR-1/members", token), served());
        }
        assert_eq!(get("/users/USR-2/members", token), denied());
        assert_eq!(get("/institutions", token), served(), "it is named");
        assert_eq!(get("/users", token), denied(), "it is not");
    }
    let received = mx.received();
    let header = |algorithm: &str| json!({ "alg": algorithm, "kid": "r" });
    for (what, token) in [
        ("expired", rsa.token(&claims_but("USR-1", "exp", json!(crate::tokens::now() - 60)))),
        ("not yet", rsa.token(&claims_but("USR-1", "nbf", json!(crate::tokens::now() + 60)))),
        ("issuer", rsa.token(&claims_but("USR-1", "iss", json!("https://other.example")))),
        ("audience", rsa.token(&claims_but("USR-1", "aud", json!("other")))),
        ("no subject", rsa.token(&claims_but("USR-1", "sub", json!(null)))),
        ("another's key", stranger_key.token(&claims("USR-1"))),
        ("unknown key", Signer::ec("x").token(&claims("USR-1"))),
        ("none", unsigned(&header("none"), &claims("USR-1"))),
        ("hmac", hs256(&header("HS256"), &claims("USR-1"), rsa.public())),
        ("garbage", "garbage".into()),
    ] {
        assert_eq!(get("/users/USR-1/members", &token), stranger(), "{what}");
        assert_eq!(get("/institutions", &token), stranger(), "{what}");
    }
    assert_eq!(outcome(&gateway.get("/users/USR-1/members", "")), stranger(), "absent");
    let twice = format!("{}\n{}", with(&right[0]), with(&right[0]));
    assert_eq!(outcome(&gateway.get("/users/USR-1/members", &twice)), stranger(), "twice");
    assert_eq!(mx.received(), received, "nothing was sent");
    for reason in [
        "token_expired",
        "token_not_yet_valid",
        "token_issuer",
        "token_audience",
        "token_claim",
        "token_signature",
        "token_unknown_key",
        "token_malformed",
        "token_algorithm",
        "token_absent",
        "token_repeated",
    ] {
        let count = gateway.metric(&format!("mxgate_user_refusals_total{{reason=\"{reason}\"}}"));
        assert!(count >= 1.0, "{reason}: {count}");
        gateway.stderr.wait_for(|line| line.contains(reason) && line.contains("127.0.0.1"));
    }
}

/// Two refusals of one reason and address within ten seconds are one line.
#[test]
fn a_flood_of_wrong_tokens_is_one_line() {
    let mx = mx();
    let signer = Signer::ec("e");
    let keys = jwks(&[&signer]);
    let gateway = start(&mx, &end_user("jwks = \"file:DIR/jwks\""), |setup| {
        setup.file("jwks", &keys);
        setup.tables.push_str("[process]\nworkers = 1\n");
    });
    for _ in 0..20 {
        assert_eq!(outcome(&gateway.get("/users/USR-1", &with("garbage"))), stranger());
    }
    assert_eq!(gateway.metric("mxgate_user_refusals_total{reason=\"token_malformed\"}") as u64, 20);
    gateway.stderr.wait_for_count("token_malformed", 1);
    assert_eq!(gateway.stderr.text().matches("token_malformed").count(), 1);
}

#[test]
fn the_token_stays_in_the_gateway() {
    let mx = mx();
    let signer = Signer::ec("e");
    let keys = jwks(&[&signer]);
    for (configured, names) in [
        ("", ["X-Mxgate-End-User", "X_Mxgate_End_User"]),
        ("header = \"x-assertion\"\n", ["X-Assertion", "X_Assertion"]),
    ] {
        let toml = end_user(&format!("{configured}jwks = \"file:DIR/jwks\""));
        let gateway = start(&mx, &toml, |setup| _ = setup.file("jwks", &keys));
        let token = signer.token(&claims("USR-1"));
        let lines = format!("{}: {token}\n{}: {token}\nTrailer: {}", names[0], names[1], names[0]);
        assert_eq!(outcome(&gateway.get("/users/USR-1", &lines)), served());
        let head = String::from_utf8_lossy(&last(&mx).head).into_owned();
        assert!(!head.contains(&token) && !head.to_ascii_lowercase().contains("assertion"), "{head}");
        assert!(!head.to_ascii_lowercase().contains("end-user"), "{head}");
        let wrong = signer.token(&claims("USR-2"));
        assert_eq!(outcome(&gateway.get("/users/USR-1", &format!("{}: {wrong}", names[0]))), denied());
        gateway.record(|record| record["code"] == "operation_denied");
        gateway.stderr.wait_for(|line| line.contains("another_user"));
        for part in token.split('.').chain(wrong.split('.')) {
            assert!(!gateway.stderr.text().contains(part) && !gateway.stdout.text().contains(part));
        }
        assert!(!gateway.stderr.text().contains("USR-") && !gateway.stdout.text().contains("USR-"));
    }
}

#[test]
fn a_subject_is_mapped_and_the_map_is_taken_up_when_it_changes() {
    let mx = mx();
    let signer = Signer::ec("e");
    let keys = jwks(&[&signer]);
    let toml = end_user("jwks = \"file:DIR/jwks\"\nuser_map_file = \"DIR/map\"\nclaim = \"customer\"");
    let gateway = start(&mx, &toml, |setup| {
        setup.file("jwks", &keys);
        setup.file("map", "c 7\tUSR-1\n");
    });
    let token = signer.token(&claims_but("USR-2", "customer", json!("c 7")));
    let unknown = signer.token(&claims_but("USR-1", "customer", json!("c 8")));
    assert_eq!(outcome(&gateway.get("/users/USR-1", &with(&token))), served());
    assert_eq!(outcome(&gateway.get("/users/USR-2", &with(&token))), denied());
    assert_eq!(outcome(&gateway.get("/users/USR-1", &with(&unknown))), stranger());
    gateway.setup.file("map", "c 7\tUSR-2\n");
    until("the new map is in use", || gateway.get("/users/USR-2", &with(&token)).status == 200);
    assert_eq!(
        outcome(&gateway.get("/users/USR-1", &with(&token))),
        denied(),
        "what was remembered is forgotten"
    );
}

#[test]
fn keys_in_a_file_are_taken_up_when_it_changes() {
    let mx = mx();
    let (old, new) = (Signer::ec("old"), Signer::rsa("new"));
    let keys = jwks(&[&old]);
    let gateway = start(&mx, &end_user("jwks = \"file:DIR/jwks\""), |setup| _ = setup.file("jwks", &keys));
    let [old_token, new_token] = [&old, &new].map(|signer| signer.token(&claims("USR-1")));
    assert_eq!(outcome(&gateway.get("/users/USR-1", &with(&old_token))), served());
    assert_eq!(outcome(&gateway.get("/users/USR-1", &with(&new_token))), stranger());
    gateway.setup.file("jwks", &jwks(&[&new]));
    until("the new key is in use", || gateway.get("/users/USR-1", &with(&new_token)).status == 200);
    assert_eq!(
        outcome(&gateway.get("/users/USR-1", &with(&old_token))),
        stranger(),
        "although it was remembered"
    );
    gateway.setup.file("jwks", "{\"keys\":[]}");
    gateway.stderr.wait_for(|line| line.contains("has no key that verifies"));
    assert_eq!(outcome(&gateway.get("/users/USR-1", &with(&new_token))), served(), "what was good stays");
}

/// An issuer's server that answers with this document, or with a redirect while `down`.
fn issuer(document: &Arc<Mutex<String>>, down: &Arc<AtomicBool>) -> RawUpstream {
    let (document, down) = (document.clone(), down.clone());
    RawUpstream::start(move |_, wire| {
        wire.head()?;
        if down.load(Ordering::SeqCst) {
            return wire.say("HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n");
        }
        let body = document.lock().unwrap().clone();
        wire.say(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        ))
    })
}

#[test]
fn keys_at_an_address_are_fetched_over_verified_tls_and_followed() {
    let mx = mx();
    let (old, new) = (Signer::ec("old"), Signer::ec("new"));
    let document = Arc::new(Mutex::new(jwks(&[&old])));
    let down = Arc::new(AtomicBool::new(true));
    let server = issuer(&document, &down);
    let toml =
        end_user(&format!("jwks = \"https://{}/jwks.json\"\nca_file = \"DIR/id-ca.pem\"", server.address));
    let gateway = start(&mx, &toml, |setup| _ = setup.file("id-ca.pem", &server.authority_pem));
    let [old_token, new_token] = [&old, &new].map(|signer| signer.token(&claims("USR-1")));
    let get = |token: &str| outcome(&gateway.get("/users/USR-1", &with(token)));

    // No keys yet: nobody can tell, which is not the caller's fault.
    gateway.stderr.wait_for(|line| line.contains("it answered 302"));
    assert_eq!(get(&old_token), (503, "no_verification_keys".into()));
    assert_eq!(gateway.get("/users/USR-1", &with(&old_token)).header("retry-after"), Some("1"));
    assert_eq!(outcome(&gateway.get("/users/USR-1", "")), stranger(), "absent is wrong in any case");
    assert_eq!(mx.received(), 0);
    down.store(false, Ordering::SeqCst);
    until("the keys are there", || get(&old_token) == served());
    assert!(gateway.metric("mxgate_key_fetches_total{result=\"failure\"}") >= 1.0);

    // An unknown key asks for a fetch, in its own time.
    *document.lock().unwrap() = jwks(&[&new]);
    assert_eq!(get(&new_token), stranger());
    until("the new key is there", || get(&new_token) == served());
    assert_eq!(get(&old_token), stranger(), "although it was remembered");

    // The last good ones are kept.
    *document.lock().unwrap() = "<html>".into();
    assert_eq!(get(&old_token), stranger());
    gateway.stderr.wait_for(|line| line.contains("no JSON Web Key Set"));
    assert_eq!(get(&new_token), served());
}

#[test]
fn a_stranger_with_unknown_keys_does_not_decide_how_often_they_are_fetched() {
    let mx = mx();
    let signer = Signer::ec("e");
    let document = Arc::new(Mutex::new(jwks(&[&signer])));
    let server = issuer(&document, &Arc::default());
    let toml = end_user(&format!("jwks = \"https://{}/\"\nca_file = \"DIR/id-ca.pem\"", server.address));
    let gateway = start(&mx, &toml, |setup| _ = setup.file("id-ca.pem", &server.authority_pem));
    let right = with(&signer.token(&claims("USR-1")));
    until("the keys are there", || gateway.get("/users/USR-1", &right).status == 200);
    let began = std::time::Instant::now();
    let token = with(&Signer::ec("unknown").token(&claims("USR-1")));
    for _ in 0..200 {
        assert_eq!(outcome(&gateway.get("/users/USR-1", &token)), stranger());
    }
    let fetches_at_most = 2 + began.elapsed().as_secs() as usize / 5;
    assert!(server.requests() <= fetches_at_most, "{} > {fetches_at_most}", server.requests());
}

#[test]
fn an_issuer_whose_certificate_does_not_verify_is_not_asked() {
    let mx = mx();
    let signer = Signer::ec("e");
    let document = Arc::new(Mutex::new(jwks(&[&signer])));
    let server = issuer(&document, &Arc::default());
    let toml = end_user(&format!("jwks = \"https://{}/\"\nca_file = \"DIR/ca.pem\"", server.address));
    let gateway = start(&mx, &toml, |_| ());
    gateway.stderr.wait_for(|line| line.contains("no keys; the last good ones are kept"));
    assert_eq!(server.requests(), 0);
    let token = with(&signer.token(&claims("USR-1")));
    assert_eq!(outcome(&gateway.get("/users/USR-1", &token)), (503, "no_verification_keys".into()));
}

/// A set that is larger than any is.
#[test]
fn a_set_without_end_is_not_read_to_its_end() {
    let mx = mx();
    let document = Arc::new(Mutex::new(format!("{{\"keys\":[{}]}}", " ".repeat(300 << 10))));
    let server = issuer(&document, &Arc::default());
    let toml = end_user(&format!("jwks = \"https://{}/\"\nca_file = \"DIR/id-ca.pem\"", server.address));
    let gateway = start(&mx, &toml, |setup| _ = setup.file("id-ca.pem", &server.authority_pem));
    gateway.stderr.wait_for(|line| line.contains("larger than 262144 bytes"));
}

#[test]
fn a_start_without_the_files_is_not_ready_and_says_which() {
    let mx = mx();
    let gateway = start(&mx, &end_user("jwks = \"file:DIR/jwks\""), |_| ());
    let said = gateway.stderr.wait_for(|line| line.contains("no new snapshot"));
    assert!(said.contains("caller bound: end_user: jwks: "), "{said}");
    assert_eq!(outcome(&gateway.get("/users/USR-1", "")), (503, "not_ready".into()));
    let signer = Signer::ec("e");
    fs::write(gateway.setup.folder().join("jwks"), jwks(&[&signer])).unwrap();
    let token = with(&signer.token(&claims("USR-1")));
    until("it is ready", || gateway.get("/users/USR-1", &token).status == 200);
}
