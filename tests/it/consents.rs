//! What an operator is told of a configuration with users' consents before it runs.

use std::fs;

use mxgate::{
    stand_in::{Running, certificate::ServerCertificate},
    vault::{
        embedded::{self, Identity},
        secret::Secret,
    },
};
use serde_json::Value;

use crate::harness::{Setup, mx, mxgate};

pub const STORE_KEY: &str = "st0re-k3y-of-more-than-32-bytes-a";
pub const CLIENT_SECRET: &str = "cl13nt-s3cret-of-the-gateway";

/// An environment `test` whose requests carry tokens of the provider `bank`. The provider's secret is in a file, the store's key
/// in the vault; browsers come over TLS.
pub fn consenting(mx: &Running) -> Setup {
    let mut setup = Setup::with_vault(mx);
    let folder = setup.folder().display().to_string();
    setup.top = "allow = [\"10.0.0.0/8\"]\n".into();
    let tls = ServerCertificate::for_default_names().unwrap();
    setup.file("browser.pem", tls.pem());
    setup.file("browser-key.pem", tls.key_pem());
    setup.file("client-secret", CLIENT_SECRET);
    store_key(&setup, STORE_KEY, "localhost");
    setup.environments = format!(
        "[environment.test]\nurl = \"https://{}\"\nca_file = \"{folder}/ca.pem\"\n\
         paths = [\"GET /accounts\", \"GET /users/{{user_guid}}/accounts\"]\n\
         credential = {{ kind = \"oauth2\", provider = \"bank\" }}\n",
        mx.address()
    );
    setup.listeners.push_str("[[listener]]\naddress = \"127.0.0.1:8099\"\nserves = \"connections\"\n");
    setup.callers = Some(
        "[[caller]]\nname = \"ledger\"\nnetworks = [\"10.1.0.0/16\"]\ngrant = { test = [\"paths\"] }\n\
         connections = { providers = [\"bank\"] }\n\
         [[caller]]\nname = \"report\"\nnetworks = [\"10.2.0.0/16\"]\ngrant = { test = [\"paths\"] }\n"
            .into(),
    );
    setup.table(&format!(
        "[provider.bank]\nauthorization_endpoint = \"https://id.example/authorize\"\n\
         token_endpoint = \"https://{}/token\"\nca_file = \"{folder}/ca.pem\"\n\
         client_id = \"gateway\"\nclient_secret = \"file:{folder}/client-secret\"\n\
         redirect_uri = \"https://gateway.example/callback\"\n\
         [connections]\nkey = \"vault:connections/key\"\nfile = \"{folder}/connections\"\n\
         return_urls = [\"https://app.example/back\"]\n\
         [connections.browser]\naddress = \"127.0.0.1:0\"\nurl = \"https://gateway.example\"\n\
         tls = {{ certificate = \"{folder}/browser.pem\", key = \"{folder}/browser-key.pem\" }}\n",
        mx.address()
    ))
}

/// Puts the store's key into the vault.
pub fn store_key(setup: &Setup, key: &str, host: &str) {
    in_vault(setup, "connections/key", key, host);
}

fn in_vault(setup: &Setup, name: &str, secret: &str, host: &str) {
    let identity = format!("file:{}/identity", setup.folder().display()).parse().unwrap();
    let identity = Identity::load(&identity).unwrap();
    let secret = Secret::new(secret.into()).unwrap();
    let vault = setup.folder().join("vault.age");
    embedded::set(&vault, &identity, name, secret, Some(vec![host.into()])).unwrap();
}

/// Takes the store's key out of the vault.
pub fn without_store_key(setup: &Setup) {
    let path = |name: &str| setup.folder().join(name).display().to_string();
    let (vault, identity) = (path("vault.age"), path("identity"));
    let removed =
        mxgate(&["vault", "--vault", &vault, "--identity", &identity, "remove", "connections/key"], &[]);
    assert!(removed.status.success(), "{}", String::from_utf8_lossy(&removed.stderr));
}

/// Exit code and everything that `check --online` says.
fn check_online(setup: &Setup) -> (Option<i32>, String) {
    let path = setup.file("mxgate.toml", &setup.configuration());
    let output = mxgate(&["check", "--online", path.to_str().unwrap()], &[]);
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

/// What is done to a setup, and what is then said of it.
type Spoilt<'a> = (&'a dyn Fn(&Setup), &'a str);

#[test]
fn check_online_reads_what_consents_need() {
    let mx = mx();
    let fine = check_online(&consenting(&mx));
    assert_eq!((fine.0, fine.1.trim()), (Some(0), "fine"));

    let remove = |setup: &Setup, name: &str| fs::remove_file(setup.folder().join(name)).unwrap();
    let faults: [Spoilt<'_>; 8] = [
        (
            &|setup| remove(setup, "client-secret"),
            "provider.bank.client_secret: file:DIR/client-secret does not exist",
        ),
        (&without_store_key, "connections.key: vault:connections/key does not exist"),
        (
            &|setup| store_key(setup, "too-short-a-key", "localhost"),
            "connections.key: the key of the store of connections is shorter than 32 bytes",
        ),
        (&|setup| store_key(setup, STORE_KEY, "api.mx.com"), "connections.key: vault:connections/key is "),
        (&|setup| remove(setup, "browser.pem"), "connections.browser.tls: cannot read DIR/browser.pem"),
        (
            &|setup| remove(setup, "browser-key.pem"),
            "connections.browser.tls: cannot read DIR/browser-key.pem",
        ),
        (
            &|setup| _ = setup.file("browser.pem", "no certificate"),
            "connections.browser.tls: DIR/browser.pem holds no usable certificate",
        ),
        (&|setup| remove(setup, "identity"), "connections.key: "),
    ];
    for (spoil, expected) in faults {
        let setup = consenting(&mx);
        spoil(&setup);
        let (code, said) = check_online(&setup);
        let expected = expected.replace("DIR", &setup.folder().display().to_string());
        assert!(said.contains(&expected) && said.ends_with("1 fault\n"), "{expected} is not in\n{said}");
        assert_eq!(code, Some(3), "{said}");
        assert!(
            ![STORE_KEY, CLIENT_SECRET, "too-short-a-key"].iter().any(|one| said.contains(one)),
            "{said}"
        );
    }
    // All of them at once.
    let setup = consenting(&mx);
    without_store_key(&setup);
    ["client-secret", "browser.pem"].iter().for_each(|name| remove(&setup, name));
    let (code, said) = check_online(&setup);
    assert!(code == Some(3) && said.ends_with("3 faults\n"), "{said}");
    assert_eq!(mx.received(), 0);
}

#[test]
fn a_discovered_providers_secret_is_for_one_of_its_hosts() {
    let mx = mx();
    let check = |hosts: &str, for_host: &str| {
        let mut setup = consenting(&mx);
        let written = format!(
            "authorization_endpoint = \"https://id.example/authorize\"\ntoken_endpoint = \"https://{}/token\"",
            mx.address()
        );
        let found = format!("discovery = \"https://id.example/.well-known/openid-configuration\"\n{hosts}");
        let secret = format!("\"file:{}/client-secret\"", setup.folder().display());
        in_vault(&setup, "bank/client_secret", CLIENT_SECRET, for_host);
        setup.tables =
            setup.tables.replace(&written, &found).replace(&secret, "\"vault:bank/client_secret\"");
        check_online(&setup)
    };
    assert_eq!(check("", "id.example").0, Some(0));
    assert_eq!(check("hosts = [\"token.example\"]", "token.example").0, Some(0));
    let (code, said) = check("", "token.example");
    assert!(code == Some(3) && said.contains("provider.bank.client_secret: vault:bank/"), "{said}");
}

#[test]
fn explain_says_who_may_ask_a_listener_for_connections() {
    let setup = consenting(&mx());
    let config = setup.file("mxgate.toml", &setup.configuration()).display().to_string();
    let explain = |from: &str, more: &[&str]| {
        let asked = ["explain", "--config", &config, "--from", from, "--listener", "127.0.0.1:8099"];
        let output = mxgate(&[&asked, more].concat(), &[]);
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, said) = explain("10.1.2.3", &["POST", "/connections"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("127.0.0.1:8099, which serves connections\n") && said.ends_with("\nallowed\n"),
        "{said}"
    );
    let (code, said) = explain("10.2.3.4", &["POST", "/connections"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("refused: 403 connection_denied\n  - add `connections` to the caller report"),
        "{said}"
    );
    let (code, said) = explain("10.2.3.4", &["--json", "GET", "/connections"]);
    let told: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &told["serves"], &told["caller"]), (Some(1), &"connections".into(), &"report".into()));
}
