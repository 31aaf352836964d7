//! Secrets in a real OpenBao server: read, renewed, replaced, denied; sealed and restarted during traffic.

mod reviewer;
#[allow(dead_code, reason = "shared with the unit tests")]
pub mod server;

use std::time::Instant;

use mxgate::stand_in::Running;
use serde_json::json;

use self::{
    reviewer::Reviewer,
    server::{Role, Server},
};
use crate::{
    harness::{API_KEY, Gateway, Setup, mx, until},
    tokens::{Signer, claims_but},
    traffic::Traffic,
};

/// How often these gateways read, and how long they go on without, in milliseconds.
const REFRESH: u64 = 400;
const GRACE: u64 = 6000;
/// What is said of a secret that there is no more, and not of one that cannot be had.
const GONE: &str = "the secret is gone from its source";

/// A gateway whose key is at `reference`, and who logs in like that; `DIR` stands for its folder.
fn setup(mx: &Running, server: &Server, reference: &str, login: &str) -> Setup {
    let setup = Setup::new(mx)
        .credential(&format!("kind = \"basic\", client_id = \"test-client\", api_key = \"{reference}\""));
    let login = login.replace("DIR", &setup.folder().display().to_string());
    let (url, ca) = (server.url(), server.ca_file().display().to_string());
    setup.table(&format!(
        "[openbao]\nurl = \"{url}\"\nca_file = \"{ca}\"\nlogin = {{ {login} }}\n\
         refresh_ms = {REFRESH}\ngrace_ms = {GRACE}\nconnect_timeout_ms = 2000\nread_timeout_ms = 2000"
    ))
}

/// The same with AppRole.
fn with_role(mx: &Running, server: &Server, reference: &str, role: &Role) -> Setup {
    let Role { role_id, secret_id } = role;
    let login = format!("kind = \"approle\", role_id = \"{role_id}\", secret_id = \"file:DIR/secret-id\"");
    let setup = setup(mx, server, reference, &login);
    setup.file("secret-id", secret_id);
    setup
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

/// What a gateway has said in any way.
fn said(gateway: &Gateway) -> String {
    let pages = format!("{}{}", gateway.page("/metrics").text(), gateway.page("/readyz").text());
    format!("{}{}{pages}", gateway.stderr.text(), gateway.stdout.text())
}

#[test]
fn a_key_is_read_past_the_tokens_life_and_its_new_version_within_one_refresh() {
    let (mx, server) = (mx(), Server::start());
    server.put("secret/data/mx/api", json!({ "api_key": API_KEY, "other": "field" }));
    let role = server.role(json!({ "token_ttl": "4s", "token_max_ttl": "9s" }));
    let gateway = with_role(&mx, &server, "openbao:secret/mx/api#api_key", &role).start();
    until("it serves", || outcome(&gateway) == served());

    // The token is renewed, and when that leads no further, there is a new one; none of the reads was without.
    until("the token was renewed", || server.audited("auth/token/renew-self") >= 1);
    until("there was a second login", || server.audited("auth/approle/login") >= 2);
    until("and a third", || server.audited("auth/approle/login") >= 3);
    assert_eq!(outcome(&gateway), served());
    let text = gateway.stderr.text();
    assert!(!text.contains("denies it") && !text.contains("refused ("), "{text}");

    const NEXT: &str = "the-next-k3y-in-openbao";
    mx.set_api_keys(0, vec![API_KEY.into(), NEXT.into()]);
    let before = gateway.metric("mxgate_config_generation");
    let changed = Instant::now();
    server.put("secret/data/mx/api", json!({ "api_key": NEXT }));
    until("the new version is in use", || gateway.metric("mxgate_config_generation") > before);
    let took = changed.elapsed().as_millis();
    eprintln!("a new version was in use after {took} ms, with refresh_ms = {REFRESH}");
    mx.set_api_keys(0, vec![NEXT.into()]);
    assert_eq!(outcome(&gateway), served());

    // Whatever it did, it told nobody; the server's audit log has hashes.
    let text = said(&gateway);
    for secret in [API_KEY, NEXT, &role.secret_id] {
        assert!(!text.contains(secret), "{text}");
        assert!(!server.audit_log().contains(secret));
    }
    assert!(server.audit_log().contains(&server.hash(&role.secret_id)));
}

#[test]
fn a_deleted_or_destroyed_version_stops_requests_at_once_and_a_denied_path_never_serves() {
    let (mx, server) = (mx(), Server::start());
    server.put("secret/data/mx/api", json!({ "api_key": API_KEY }));
    server.put("secret/data/closed", json!({ "api_key": API_KEY }));
    let role = server.role(json!({}));
    let gateway = with_role(&mx, &server, "openbao:secret/mx/api#api_key", &role).start();
    until("it serves", || outcome(&gateway) == served());

    // Not the version before it: that one is not meant any more.
    server.put("secret/data/mx/api", json!({ "api_key": "a-k3y-that-is-taken-back" }));
    server.root("DELETE", "secret/data/mx/api", json!(null));
    until("it is refused", || outcome(&gateway) == unavailable());
    gateway.stderr.wait_for(|line| line.contains(GONE));
    server.put("secret/data/mx/api", json!({ "api_key": API_KEY }));
    until("it serves again", || outcome(&gateway) == served());
    server.root("PUT", "secret/destroy/mx/api", json!({ "versions": [3] }));
    until("it is refused", || outcome(&gateway) == unavailable());

    let denied = with_role(&mx, &server, "openbao:secret/closed#api_key", &role).start();
    let line = denied.stderr.wait_for(|line| line.contains("denies it (403)"));
    assert!(line.contains("openbao:secret/closed#api_key") && !line.contains(API_KEY), "{line}");
    assert_eq!(denied.page("/readyz").status, 503);
    // It comes to life by itself when it is let in.
    server.set_policy("mxgate", &["secret/data/*"]);
    until("it serves", || outcome(&denied) == served());
}

#[test]
fn sealed_and_restarted_during_traffic_no_request_fails_within_the_grace() {
    let (mx, mut server) = (mx(), Server::start());
    server.put("secret/data/mx/api", json!({ "api_key": API_KEY }));
    let role = server.role(json!({}));
    let gateway = with_role(&mx, &server, "openbao:secret/mx/api#api_key", &role).start();
    until("it serves", || outcome(&gateway) == served());
    let reads = || server.audited("secret/data/mx/api");

    let traffic = Traffic::at(gateway.addresses[0]);
    server.seal();
    gateway.stderr.wait_for(|line| line.contains("is sealed (503)"));
    server.unseal();
    let before = reads();
    until("it reads again", || reads() > before);
    assert_eq!(traffic.end(), []);

    let traffic = Traffic::at(gateway.addresses[0]);
    server.kill();
    gateway.stderr.wait_for(|line| line.contains("cannot connect"));
    server.run();
    server.unseal();
    let before = server.audited("secret/data/mx/api");
    until("it reads again", || server.audited("secret/data/mx/api") > before);
    assert_eq!(traffic.end(), []);

    // For longer than the grace.
    let down = Instant::now();
    server.kill();
    until("it is refused", || outcome(&gateway) == unavailable());
    let took = down.elapsed().as_millis();
    eprintln!("refused {took} ms after the server went, with grace_ms = {GRACE}");
    gateway.stderr.wait_for(|line| line.contains("was not confirmed within its grace"));
    assert!(!gateway.stderr.text().contains(GONE), "{}", gateway.stderr.text());
    server.run();
    server.unseal();
    until("it serves again", || outcome(&gateway) == served());
}

#[test]
fn tokens_of_every_kind_of_login_read_and_none_is_written_down() {
    let (mx, server) = (mx(), Server::start());
    server.put("secret/data/mx/api", json!({ "api_key": API_KEY }));
    let reference = "openbao:secret/mx/api#api_key";

    // A token that somebody else has made. It stands in the audit log as a hash, and in no output of ours.
    let made = server.root(
        "POST",
        "auth/token/create",
        json!({ "policies": ["mxgate"], "ttl": "8s", "explicit_max_ttl": "5m" }),
    );
    let token = made["auth"]["client_token"].as_str().unwrap();
    let login = "kind = \"token\", token = \"file:DIR/bao-token\"";
    let with_token = setup(&mx, &server, reference, login);
    with_token.file("bao-token", token);
    let gateway = with_token.start();
    until("it serves", || outcome(&gateway) == served());
    until("the token was renewed", || server.audited("auth/token/renew-self") >= 2);
    assert_eq!(outcome(&gateway), served());
    assert!(server.audit_log().contains(&server.hash(token)) && !server.audit_log().contains(token));
    assert!(!said(&gateway).contains(token) && said(&gateway).contains("logged in"));
    drop(gateway);

    let signer = Signer::rsa("k1");
    let subject = "system:serviceaccount:default:mxgate";
    let account = |name: &str| {
        let account = json!({ "namespace": "default", "serviceaccount": { "name": name, "uid": "u-1" } });
        let mut claims = claims_but(subject, "kubernetes.io", account);
        // Kubernetes writes a list, and its method takes no other form.
        claims["aud"] = json!([claims["aud"]]);
        claims
    };
    let jwt = signer.token(&account("mxgate"));
    let role = json!({
        "role_type": "jwt", "user_claim": "sub", "bound_audiences": ["mxgate-test"],
        "bound_service_account_names": "mxgate", "bound_service_account_namespaces": "default",
        "token_policies": "mxgate", "token_ttl": "60s"
    });
    let reviewer = Reviewer::start(subject, &jwt);
    server.root("POST", "sys/auth/jwt", json!({ "type": "jwt" }));
    server.root("POST", "auth/jwt/config", json!({ "jwt_validation_pubkeys": [signer.public_pem()] }));
    server.root("POST", "sys/auth/clusters/one", json!({ "type": "kubernetes" }));
    server.root(
        "POST",
        "auth/clusters/one/config",
        json!({
            "kubernetes_host": format!("http://{}", reviewer.address), "disable_local_ca_jwt": true,
            "kubernetes_ca_cert": std::fs::read_to_string(server.ca_file()).unwrap()
        }),
    );
    let strangers = [Signer::rsa("k2").token(&account("mxgate")), signer.token(&account("stranger"))];
    for ((mount, kind), stranger) in
        [("jwt", "jwt"), ("clusters/one", "kubernetes")].into_iter().zip(strangers)
    {
        server.root("POST", &format!("auth/{mount}/role/mxgate"), role.clone());
        let login =
            format!("kind = \"{kind}\", mount = \"{mount}\", role = \"mxgate\", jwt = \"file:DIR/jwt\"");
        let setup = setup(&mx, &server, reference, &login);
        setup.file("jwt", &stranger);
        let gateway = setup.start();
        let line = gateway.stderr.wait_for(|line| line.contains("login is refused"));
        assert!(line.contains(reference), "{line}");
        // The right one is taken as soon as it is there.
        gateway.setup.file("jwt", &jwt);
        until("it serves", || outcome(&gateway) == served());
        assert!(!said(&gateway).contains(&jwt) && !server.audit_log().contains(&jwt), "{kind}");
    }
    let review = reviewer.last();
    assert!(review.starts_with("POST /apis/authentication.k8s.io/v1/tokenreviews "), "{review}");
    assert!(review.contains(&jwt), "{review}");
}

#[test]
fn a_namespace_and_a_mount_of_several_segments() {
    let (mx, server) = (mx(), Server::start());
    let role = server.role(json!({}));
    server.put("team/kv/data/mx/api", json!({ "api_key": API_KEY }));
    let gateway = with_role(&mx, &server, "openbao:team/kv/mx/api#api_key", &role);
    // Without being listed, `team` is the mount, which the policy does not know of.
    let gateway = gateway.start();
    gateway.stderr.wait_for(|line| line.contains("denies it (403)"));
    let setup =
        with_role(&mx, &server, "openbao:team/kv/mx/api#api_key", &role).table("mounts = [\"team/kv\"]");
    let gateway = setup.start();
    until("it serves", || outcome(&gateway) == served());

    server.root("POST", "sys/namespaces/team-a", json!(null));
    let setup =
        with_role(&mx, &server, "openbao:secret/mx/api#api_key", &role).table("namespace = \"team-a\"");
    let gateway = setup.start();
    // The role is another namespace's.
    gateway.stderr.wait_for(|line| line.contains("login is refused"));
}
