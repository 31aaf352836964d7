//! Secrets in AWS Secrets Manager: read, replaced, deleted; denied, not logged in; silent and gone during traffic.

#[allow(dead_code, reason = "shared with the unit tests")]
mod answering;
pub mod server;

use std::{fs, time::Instant};

use base64::{Engine as _, prelude::BASE64_STANDARD as STANDARD};
use mxgate::stand_in::Running;
use serde_json::json;

use self::{
    answering::Answering,
    server::{REGION, Server},
};
use crate::{
    harness::{API_KEY, CLIENT_ID, Gateway, Setup, last, mx, mxgate, until},
    traffic::Traffic,
    vault_opener,
};

/// How often these gateways read, and how long they go on without, in milliseconds.
const REFRESH: u64 = 400;
const GRACE: u64 = 6000;
/// What is said of a secret that there is no more, and not of one that cannot be had.
const GONE: &str = "the secret is gone from its source";
/// Who they are.
const ACCESS_KEY: &str = "s3cret-access-k3y-of-the-gateway";

/// A gateway whose key is at `reference`, asked of `url`. It finds no credentials.
fn nobody(mx: &Running, url: &str, reference: &str) -> Setup {
    let setup = Setup::new(mx)
        .credential(&format!("kind = \"basic\", client_id = \"test-client\", api_key = \"{reference}\""));
    let mut setup = setup.table(&format!(
        "[aws]\nregion = \"{REGION}\"\nendpoint = \"{url}\"\n\
         refresh_ms = {REFRESH}\ngrace_ms = {GRACE}\nconnect_timeout_ms = 2000\nread_timeout_ms = 2000"
    ));
    // There is no instance here to ask.
    setup.variables.push(("AWS_EC2_METADATA_DISABLED".into(), "true".into()));
    setup
}

/// The same with credentials in variables.
fn setup(mx: &Running, url: &str, reference: &str) -> Setup {
    let mut setup = nobody(mx, url, reference);
    setup.variables.extend(credentials());
    setup
}

pub fn credentials() -> [(String, String); 2] {
    [("AWS_ACCESS_KEY_ID", "AKIDTEST"), ("AWS_SECRET_ACCESS_KEY", ACCESS_KEY)]
        .map(|(name, value)| (name.into(), value.into()))
}

fn outcome(gateway: &Gateway) -> (u16, String) {
    let answer = gateway.get("/users", "");
    (answer.status, answer.code())
}

fn unavailable() -> (u16, String) {
    (503, "credential_unavailable".into())
}

fn served() -> (u16, String) {
    (200, String::new())
}

fn document(key: &str) -> String {
    json!({ "api_key": key, "other": "field" }).to_string()
}

#[test]
fn a_new_version_is_in_use_within_one_refresh_no_request_fails_and_no_log_holds_it() {
    let (mx, server) = (mx(), Server::start());
    server.create("mx/api", &document(API_KEY));
    let mut setup = setup(&mx, &server.url(), "aws:mx/api#api_key");
    assert!(setup.tables.contains("filter = \"info\""));
    setup.tables = setup.tables.replace("filter = \"info\"", "filter = \"trace\"");
    let gateway = setup.start();
    until("it serves", || outcome(&gateway) == served());

    const NEXT: &str = "the-next-k3y-at-aws";
    mx.set_api_keys(0, vec![API_KEY.into(), NEXT.into()]);
    let traffic = Traffic::at(gateway.addresses[0]);
    // Not the generation: a snapshot may be built anew for another reason.
    let next = STANDARD.encode(format!("{CLIENT_ID}:{NEXT}"));
    let changed = Instant::now();
    server.put("mx/api", &document(NEXT));
    until("the new version is in use", || String::from_utf8_lossy(&last(&mx).head).contains(&next));
    let took = changed.elapsed().as_millis();
    eprintln!("a new version was in use after {took} ms, with refresh_ms = {REFRESH}");
    mx.set_api_keys(0, vec![NEXT.into()]);
    assert_eq!(outcome(&gateway), served());
    assert_eq!(traffic.end(), []);

    // The filter lets everything through, and yet nothing of the SDK's is there, whose own lines hold whole answers.
    let pages = format!("{}{}", gateway.page("/metrics").text(), gateway.page("/readyz").text());
    let text = format!("{}{}{pages}", gateway.stderr.text(), gateway.stdout.text());
    for secret in [API_KEY, NEXT, ACCESS_KEY] {
        assert!(!text.contains(secret), "{text}");
    }
    assert!(!text.contains("\"target\":\"aws_"), "{text}");
}

#[test]
fn the_version_before_bytes_and_an_arn_are_read_and_a_deleted_secret_stops_requests_at_once() {
    let (mx, server) = (mx(), Server::start());
    let arn = server.create("mx/api", API_KEY);
    let gateway = setup(&mx, &server.url(), &format!("aws:{arn}")).start();
    until("it serves", || outcome(&gateway) == served());
    drop(gateway);

    let previous = setup(&mx, &server.url(), "aws:mx/api?stage=AWSPREVIOUS").start();
    let line = previous.stderr.wait_for(|line| line.contains("aws:mx/api?stage=AWSPREVIOUS"));
    assert!(line.contains("does not exist"), "{line}");
    server.put("mx/api", "a-k3y-that-nobody-takes");
    until("it serves", || outcome(&previous) == served());
    drop(previous);

    server.ask(
        "CreateSecret",
        &json!({ "Name": "bytes", "SecretBinary": "azN5LW9mLXRoZS10ZXN0LWVudmlyb25tZW50" }),
    );
    let gateway = setup(&mx, &server.url(), "aws:bytes").start();
    until("it serves", || outcome(&gateway) == served());
    server.ask("DeleteSecret", &json!({ "SecretId": "bytes" }));
    let deleted = Instant::now();
    until("it is refused", || outcome(&gateway) == unavailable());
    let took = deleted.elapsed().as_millis();
    eprintln!("refused {took} ms after the secret was deleted, with refresh_ms = {REFRESH}");
    gateway.stderr.wait_for(|line| line.contains(GONE));
    server.ask("RestoreSecret", &json!({ "SecretId": "bytes" }));
    until("it serves again", || outcome(&gateway) == served());
}

#[test]
fn silent_and_gone_during_traffic_no_request_fails_within_the_grace() {
    const SERVES: &str = "its last good value serves";
    let (mx, mut server) = (mx(), Server::start());
    server.create("mx/api", API_KEY);
    let gateway = setup(&mx, &server.url(), "aws:mx/api").start();
    until("it serves", || outcome(&gateway) == served());

    let traffic = Traffic::at(gateway.addresses[0]);
    server.signal("STOP");
    let line = gateway.stderr.wait_for(|line| line.contains("no whole answer within"));
    assert!(line.contains("aws:mx/api") && line.contains(SERVES), "{line}");
    server.signal("CONT");
    let before = server.answered();
    until("it reads again", || server.answered() > before + 1);
    assert_eq!(traffic.end(), []);

    let traffic = Traffic::at(gateway.addresses[0]);
    let down = Instant::now();
    server.kill();
    gateway.stderr.wait_for_count(SERVES, 2);
    assert_eq!(traffic.end(), []);
    until("it is refused", || outcome(&gateway) == unavailable());
    let took = down.elapsed().as_millis();
    eprintln!("refused {took} ms after AWS went, with grace_ms = {GRACE}");
    gateway.stderr.wait_for(|line| line.contains("was not confirmed within its grace"));
    assert!(!gateway.stderr.text().contains(GONE), "{}", gateway.stderr.text());
    server.run();
    server.create("mx/api", API_KEY);
    until("it serves again", || outcome(&gateway) == served());
}

#[test]
fn denied_is_not_absent_and_ends_by_itself() {
    let (mx, server) = (mx(), Answering::start());
    server.fail(400, "AccessDeniedException", "User: somebody is not authorized");
    let gateway = setup(&mx, &format!("http://{}", server.address), "aws:mx/api").start();
    let line = gateway.stderr.wait_for(|line| line.contains("AWS denies it"));
    assert!(line.contains("aws:mx/api") && !line.contains("somebody"), "{line}");
    assert_eq!(outcome(&gateway), (503, "not_ready".into()));
    let value = json!({ "SecretString": API_KEY, "VersionId": "0".repeat(32) }).to_string();
    server.answer(200, &value);
    until("it serves", || outcome(&gateway) == served());

    // A policy that somebody breaks, and a login that ends, stop nothing at once; a deletion does.
    for (code, said) in
        [("AccessDeniedException", "AWS denies it"), ("ExpiredTokenException", "they have expired")]
    {
        let lines = gateway.stderr.text().matches(said).count();
        server.fail(400, code, "");
        gateway.stderr.wait_for_count(said, lines + 1);
        assert_eq!(outcome(&gateway), served(), "{code}");
        assert!(gateway.metric("mxgate_secret_usable") >= 1.0);
        server.answer(200, &value);
        let before = server.requests().len();
        until("it reads again", || server.requests().len() > before);
    }
    server.fail(400, "ResourceNotFoundException", "");
    until("it is refused", || outcome(&gateway) == unavailable());
    gateway.stderr.wait_for(|line| line.contains(GONE));
}

#[test]
fn a_web_identity_is_a_login_and_a_role_that_is_refused_is_none() {
    let (mx, server, refusing) = (mx(), Server::start(), Answering::start());
    server.create("mx/api", API_KEY);
    refusing.answer(403, "<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>");
    for sts in [server.url(), format!("http://{}", refusing.address)] {
        let mut setup = nobody(&mx, &server.url(), "aws:mx/api");
        let token = setup.file("web-identity", "header.w3b-identity-t0ken.signature");
        for (name, value) in [
            ("AWS_WEB_IDENTITY_TOKEN_FILE", token.display().to_string()),
            ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/mxgate".into()),
            ("AWS_ROLE_SESSION_NAME", "mxgate".into()),
            ("AWS_ENDPOINT_URL_STS", sts.clone()),
            // Whom the gateway asks for secrets is its own configuration's to say.
            ("AWS_ENDPOINT_URL", "http://127.0.0.1:1".into()),
            ("AWS_ENDPOINT_URL_SECRETS_MANAGER", "http://127.0.0.1:1".into()),
        ] {
            setup.variables.push((name.into(), value));
        }
        let gateway = setup.start();
        if sts == server.url() {
            until("it serves", || outcome(&gateway) == served());
        } else {
            let line = gateway.stderr.wait_for(|line| line.contains("no credentials for AWS"));
            assert!(line.contains("aws:mx/api"), "{line}");
        }
        assert!(!gateway.stderr.text().contains("w3b-identity"), "{}", gateway.stderr.text());
    }
    let asked = refusing.requests().concat();
    assert!(asked.contains("Action=AssumeRoleWithWebIdentity"), "{asked}");
}

/// `mxgate check --online`, with the variables of this setup: exit code and everything that it says.
fn check_online(setup: &Setup) -> (Option<i32>, String) {
    let path = setup.file("mxgate.toml", &setup.configuration());
    let variables: Vec<_> =
        setup.variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let output = mxgate(&["check", "--online", path.to_str().unwrap()], &variables);
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[test]
fn a_check_names_the_source_the_reference_and_what_is_wrong() {
    let (mx, server) = (mx(), Server::start());
    server.create("mx/api", &document(API_KEY));
    let (code, said) = check_online(&setup(&mx, &server.url(), "aws:mx/api#api_key"));
    assert_eq!(code, Some(0), "{said}");
    for (reference, expected) in [
        ("aws:mx/other#api_key", "does not exist"),
        ("aws:mx/api?stage=AWSPREVIOUS#api_key", "does not exist"),
        ("aws:mx/api#no_such_field", "no_such_field"),
    ] {
        let (code, said) = check_online(&setup(&mx, &server.url(), reference));
        assert_eq!(code, Some(3), "{said}");
        assert!(said.contains(reference) && said.contains(expected) && !said.contains(API_KEY), "{said}");
    }
    let (code, said) = check_online(&nobody(&mx, &server.url(), "aws:mx/api#api_key"));
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("aws:mx/api#api_key") && said.contains("no credentials for AWS"), "{said}");

    // A file of AWS's with a line that is none, which the SDK would show.
    let mut faulty = nobody(&mx, &server.url(), "aws:mx/api#api_key");
    let file = faulty.file("credentials", &format!("[default]\naws_secret_access_key {ACCESS_KEY}\n"));
    faulty.variables.push(("AWS_SHARED_CREDENTIALS_FILE".into(), file.display().to_string()));
    let (code, said) = check_online(&faulty);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("no credentials for AWS") && !said.contains(ACCESS_KEY), "{said}");
    // As it should be.
    let text = format!("[default]\naws_access_key_id = AKIDTEST\naws_secret_access_key = {ACCESS_KEY}\n");
    fs::write(&file, text).unwrap();
    let (code, said) = check_online(&faulty);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn what_opens_the_vault_may_be_there_and_is_asked_for_once() {
    let (mx, server) = (mx(), Server::start());
    let mut setup = vault_opener::opened_with(Setup::with_vault(&mx), "aws:mx/vault#identity").table(&format!(
        "[aws]\nregion = \"{REGION}\"\nendpoint = \"{}\"\nconnect_timeout_ms = 2000\nread_timeout_ms = 2000",
        server.url()
    ));
    setup.variables.extend(credentials());
    setup.tables = setup.tables.replace("[vault]\n", "[vault]\nrefresh_ms = 200\n");
    let identity = vault_opener::set_aside(&setup);
    let gateway = setup.start();
    let line = gateway.stderr.wait_for(|line| line.contains("no new snapshot"));
    assert!(line.contains("aws:mx/vault#identity, which opens the vault, could not be read"), "{line}");
    assert_eq!(outcome(&gateway), (503, "not_ready".into()));
    server.create("mx/vault", &json!({ "identity": identity }).to_string());
    until("it serves", || outcome(&gateway) == served());
    drop(server);
    let reads = gateway.metric("mxgate_config_generation");
    gateway.signal("HUP");
    until("it has read its vault again", || gateway.metric("mxgate_config_generation") > reads);
    assert_eq!(outcome(&gateway), served());
    assert!(!gateway.stderr.text().contains(vault_opener::key_of(&identity)));
}
