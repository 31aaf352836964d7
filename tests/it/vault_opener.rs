//! A vault that opens with what a command prints, or a server has: while the gateway starts, serves and is looked after.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Output};

use mxgate::{
    stand_in::Running,
    vault::embedded::{Identity, identity::protect, passphrase::Passphrase},
};
use serde_json::json;

use crate::{
    canary::search::{Canary, Search},
    harness::{API_KEY, Gateway, Setup, mx, mxgate, until},
    openbao,
};

const NEXT_KEY: &str = "n3xt-k3y-of-the-test-environment";
const PASSPHRASE: &str = "plumage orbit walnut ferry";

/// The same with what opens the vault at `reference`; the identity file that it had is somewhere else, `DIR` its folder.
pub fn opened_with(mut setup: Setup, reference: &str) -> Setup {
    let folder = setup.folder().display().to_string();
    fs::rename(setup.folder().join("identity"), setup.folder().join("set-aside")).unwrap();
    setup.tables = setup.tables.replace(&format!("file:{folder}/identity"), reference);
    setup
}

pub fn set_aside(setup: &Setup) -> String {
    fs::read_to_string(setup.folder().join("set-aside")).unwrap()
}

/// What opens the vault is printed by a command, which prints the file `opener` and notes that it was asked.
fn with_command(mx: &Running) -> Setup {
    let setup = opened_with(Setup::with_vault(mx).control(), "exec:opener");
    let folder = setup.folder().display().to_string();
    let script = format!("#!/bin/sh\necho >>{folder}/asked\nexec /bin/cat {folder}/opener\n");
    let script = setup.file("print-opener", &script);
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
    setup.file("opener", &set_aside(&setup));
    setup.table(&format!("[exec.opener]\ncommand = [\"{folder}/print-opener\"]"))
}

fn asked(setup: &Setup) -> usize {
    fs::read_to_string(setup.folder().join("asked")).map_or(0, |text| text.lines().count())
}

fn outcome(gateway: &Gateway) -> (u16, String) {
    let answer = gateway.get("/users", "");
    (answer.status, answer.code())
}

fn served() -> (u16, String) {
    (200, String::new())
}

fn not_ready() -> (u16, String) {
    (503, "not_ready".into())
}

/// Seals another key, by somebody who has the identity as a file.
fn set_key(mx: &Running, setup: &Setup, key: &str) {
    mx.set_api_keys(0, vec![API_KEY.into(), key.into()]);
    let identity = format!("file:{}/set-aside", setup.folder().display()).parse().unwrap();
    let identity = Identity::load(&identity).unwrap();
    let key = mxgate::vault::secret::Secret::new(key.into()).unwrap();
    let vault = setup.folder().join("vault.age");
    mxgate::vault::embedded::set(&vault, &identity, "test/api_key", key, None).unwrap();
}

/// Runs a command with the gateway's configuration; its output, whichever way.
fn configured(setup: &Setup, arguments: &[&str]) -> (bool, String) {
    let path = setup.file("mxgate.toml", &setup.configuration());
    let path = path.to_str().unwrap();
    let arguments: Vec<&str> =
        arguments.iter().map(|one| if *one == "CONFIG" { path } else { one }).collect();
    said(&mxgate(&arguments, &[]))
}

fn said(output: &Output) -> (bool, String) {
    let text = String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned();
    (output.status.success(), text)
}

/// Everything that the gateway has said, and every file in its folder but those that hold it because they should.
fn assert_nowhere(gateway: &Gateway, secrets: &[(&'static str, &str)]) {
    let canaries: Vec<Canary> = secrets.iter().map(|(what, secret)| Canary::new(what, *secret)).collect();
    let search = Search::new(&canaries);
    let pages = ["/metrics", "/readyz"].map(|page| gateway.page(page).text()).join("");
    let status = gateway.command(&["status", "--json"]).unwrap();
    for (place, text) in [
        ("the log", gateway.stderr.text()),
        ("the records", gateway.stdout.text()),
        ("a page", pages),
        ("the status", status),
    ] {
        search.assert_clean(place, text.as_bytes());
    }
    let bundle = gateway.setup.folder().join("bundle.json");
    let (_, text) =
        configured(&gateway.setup, &["doctor", "--config", "CONFIG", "--bundle", bundle.to_str().unwrap()]);
    assert!(text.contains("it opens, generation"), "{text}");
    search.assert_clean("doctor", text.as_bytes());
    search.assert_clean("the bundle", &fs::read(bundle).unwrap());
}

/// What is secret of an identity file.
pub fn key_of(identity: &str) -> &str {
    identity.lines().find_map(|line| line.strip_prefix("AGE-SECRET-KEY-1")).unwrap()
}

#[test]
fn a_command_is_asked_once_and_what_it_printed_is_nowhere() {
    let mx = mx();
    let mut setup = with_command(&mx);
    setup.tables = setup.tables.replace("[vault]\n", "[vault]\nrefresh_ms = 100\n");
    let gateway = setup.start();
    assert_eq!(outcome(&gateway), served());
    assert_eq!(asked(&gateway.setup), 1);

    // What was opened once is opened again without it: at its interval, and when it has changed.
    gateway.setup.file("print-opener", "#!/bin/sh\nexit 1\n");
    let before = gateway.metric("mxgate_config_generation");
    set_key(&mx, &gateway.setup, NEXT_KEY);
    until("the new key is in use", || gateway.metric("mxgate_config_generation") > before);
    mx.set_api_keys(0, vec![NEXT_KEY.into()]);
    assert_eq!(outcome(&gateway), served());
    assert!(gateway.command(&["reload"]).is_ok());
    assert_eq!((outcome(&gateway), asked(&gateway.setup)), (served(), 1));

    let folder = gateway.setup.folder().display().to_string();
    let script = format!("#!/bin/sh\nexec /bin/cat {folder}/opener\n");
    gateway.setup.file("print-opener", &script);
    fs::set_permissions(format!("{folder}/print-opener"), fs::Permissions::from_mode(0o700)).unwrap();
    let identity = set_aside(&gateway.setup);
    assert_nowhere(&gateway, &[("the identity", key_of(&identity))]);
}

/// A gateway that cannot open its vault is not ready, says why without what it got, and serves once that is repaired.
#[track_caller]
fn waits_and_recovers(opener: &str, reason: &str, secret: Option<&str>) {
    let mx = mx();
    let setup = with_command(&mx);
    let good = set_aside(&setup);
    match opener {
        "" => fs::remove_file(setup.folder().join("opener")).unwrap(),
        text => drop(setup.file("opener", text)),
    }
    let gateway = setup.start();
    let line = gateway.stderr.wait_for(|line| line.contains("no new snapshot"));
    assert!(line.contains("exec:opener") || line.contains("the vault"), "{line}");
    assert!(line.contains(reason), "{reason}: {line}");
    assert_eq!(outcome(&gateway), not_ready());
    assert_eq!(gateway.page("/readyz").status, 503);
    gateway.setup.file("opener", &good);
    until("it serves", || outcome(&gateway) == served());
    if let Some(secret) = secret {
        assert_nowhere(&gateway, &[("what it got first", secret), ("the identity", key_of(&good))]);
    }
}

#[test]
fn a_command_that_fails_at_first() {
    waits_and_recovers("", "which opens the vault, could not be read: it ended with exit status: 1", None);
}

#[test]
fn a_command_that_prints_something_else() {
    let printed = "bE3nVx7KpR5tZy1WqL9mHc2JfD8sGa4U";
    waits_and_recovers(printed, "exec:opener is not usable: line 1 is no AGE-SECRET-KEY-1", Some(printed));
}

#[test]
fn a_command_that_prints_another_vaults_identity() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("identity");
    Identity::create(&path).unwrap();
    let other = fs::read_to_string(path).unwrap();
    waits_and_recovers(&other, "it is not encrypted to this identity", Some(key_of(&other)));
}

/// A server with the vault's identity, and a gateway that reads it there.
fn with_server(mx: &Running, server: &openbao::server::Server) -> Setup {
    let setup = opened_with(Setup::with_vault(mx).control(), "openbao:secret/mx/vault#identity");
    server.put("secret/data/mx/vault", json!({ "identity": set_aside(&setup) }));
    let role = server.role(json!({}));
    setup.file("secret-id", &role.secret_id);
    let (url, ca, dir) =
        (server.url(), server.ca_file().display().to_string(), setup.folder().display().to_string());
    setup.table(&format!(
        "[openbao]\nurl = \"{url}\"\nca_file = \"{ca}\"\nconnect_timeout_ms = 2000\nread_timeout_ms = 2000\n\
         login = {{ kind = \"approle\", role_id = \"{}\", secret_id = \"file:{dir}/secret-id\" }}",
        role.role_id
    ))
}

/// The same with the passphrase that the identity is sealed with, as another field of the same entry.
fn with_passphrase(mx: &Running, server: &openbao::server::Server) -> (Setup, String) {
    let mut setup = with_server(mx, server);
    let plain = set_aside(&setup);
    let nobody = || unreachable!("it is not sealed");
    protect(&setup.folder().join("set-aside"), &nobody, Some(&Passphrase::new(PASSPHRASE.into()))).unwrap();
    server.put("secret/data/mx/vault", json!({ "identity": set_aside(&setup), "passphrase": PASSPHRASE }));
    setup.file("set-aside", &plain);
    let passphrase = "[vault]\npassphrase = \"openbao:secret/mx/vault#passphrase\"\n";
    setup.tables = setup.tables.replace("[vault]\n", passphrase);
    (setup, plain)
}

#[test]
fn a_server_that_is_sealed_at_the_start_delays_it_and_one_that_goes_later_delays_nothing() {
    let (mx, mut server) = (mx(), openbao::server::Server::start());
    let (setup, identity) = with_passphrase(&mx, &server);
    server.seal();
    let gateway = setup.start();
    let line = gateway.stderr.wait_for(|line| line.contains("no new snapshot"));
    assert!(
        line.contains("openbao:secret/mx/vault#identity, which opens the vault")
            && line.contains("is sealed (503)"),
        "{line}"
    );
    assert_eq!(outcome(&gateway), not_ready());
    server.unseal();
    until("it serves", || outcome(&gateway) == served());
    let asked = server.audited("secret/data/mx/vault");

    // The vault is read again and again, and the server is not.
    set_key(&mx, &gateway.setup, NEXT_KEY);
    mx.set_api_keys(0, vec![NEXT_KEY.into()]);
    until("the new key is in use", || outcome(&gateway) == served());
    assert_eq!(server.audited("secret/data/mx/vault"), asked);
    server.kill();
    set_key(&mx, &gateway.setup, "th1rd-k3y-of-the-test-environment");
    mx.set_api_keys(0, vec!["th1rd-k3y-of-the-test-environment".into()]);
    until("the third key is in use", || outcome(&gateway) == served());

    server.run();
    server.unseal();
    assert_nowhere(&gateway, &[("the identity", key_of(&identity)), ("the passphrase", PASSPHRASE)]);
}

#[test]
fn a_vault_that_is_sealed_for_another_identity_opens_when_the_server_has_it() {
    let (mx, server) = (mx(), openbao::server::Server::start());
    let mut setup = with_server(&mx, &server);
    setup.tables = setup.tables.replace("[vault]\n", "[vault]\nrefresh_ms = 1000\n");
    let gateway = setup.start();
    until("it serves", || outcome(&gateway) == served());
    let new = gateway.setup.folder().join("new");
    let (done, text) = configured(
        &gateway.setup,
        &["vault", "--config", "CONFIG", "rekey", "--new-identity", new.to_str().unwrap()],
    );
    assert!(done, "{text}");
    // It serves on with what it has, and says that the new file does not open.
    gateway.stderr.wait_for(|line| line.contains("it is not encrypted to this identity"));
    assert_eq!(outcome(&gateway), served());
    let identity = fs::read_to_string(&new).unwrap();
    server.put("secret/data/mx/vault", json!({ "identity": identity }));
    fs::rename(new, gateway.setup.folder().join("set-aside")).unwrap();
    set_key(&mx, &gateway.setup, NEXT_KEY);
    mx.set_api_keys(0, vec![NEXT_KEY.into()]);
    until("the key of the new vault is in use", || outcome(&gateway) == served());
}

#[test]
fn a_check_says_what_it_does_not_ask_and_asks_it_online() {
    let mx = mx();
    let setup = with_command(&mx);
    let (fine, text) = configured(&setup, &["check", "CONFIG"]);
    assert!(
        fine && text.ends_with("exec:opener, which opens the vault, was not asked; --online does\nfine\n"),
        "{text}"
    );
    let (_, text) = configured(&setup, &["--json", "check", "CONFIG"]);
    assert!(text.contains("\"not_asked\":[\"exec:opener\"]"), "{text}");
    assert_eq!(asked(&setup), 0);
    let (fine, text) = configured(&setup, &["check", "--online", "CONFIG"]);
    assert!(fine && text == "fine\n", "{text}");
    assert_eq!(asked(&setup), 1);
    fs::remove_file(setup.folder().join("opener")).unwrap();
    let (fine, text) = configured(&setup, &["check", "--online", "CONFIG"]);
    assert!(!fine && text.contains("exec:opener, which opens the vault, could not be read"), "{text}");
    let (_, text) = configured(&setup, &["doctor", "--config", "CONFIG"]);
    assert!(text.contains("exec:opener, which opens the vault, could not be read"), "{text}");
}

#[test]
fn the_vaults_commands_ask_it_by_a_configuration_and_not_without_one() {
    let mx = mx();
    let setup = with_command(&mx);
    let (done, text) = configured(&setup, &["vault", "--config", "CONFIG", "verify"]);
    assert!(done && text.contains("is sound"), "{text}");
    // The next identity is printed by another command, which the configuration knows.
    let made = setup.folder().join("next");
    Identity::create(&made).unwrap();
    let setup = setup.table(&format!("[exec.next]\ncommand = [\"/bin/cat\", \"{}\"]", made.display()));
    let rekey = ["vault", "--config", "CONFIG", "rekey", "--new-identity"];
    let (done, text) = configured(&setup, &[&rekey[..], &["exec:absent"]].concat());
    assert!(!done && text.contains("there is no such command"), "{text}");
    let (done, text) = configured(&setup, &[&rekey[..], &["exec:next"]].concat());
    assert!(done && text.contains("once its `identity` is exec:next"), "{text}");
    let (done, _) = configured(&setup, &["vault", "--config", "CONFIG", "verify"]);
    assert!(!done, "the one of before does not open it any more");

    let path = setup.folder().join("vault.age");
    let with = |identity: &str| {
        said(&mxgate(&["vault", "--vault", path.to_str().unwrap(), "--identity", identity, "verify"], &[]))
    };
    assert!(with(made.to_str().unwrap()).0);
    for identity in ["exec:next", "openbao:secret/mx#identity", "aws:mx", "vault:mx"] {
        let (done, text) = with(identity);
        assert!(!done && text.contains("--identity takes file:PATH or env:NAME: how"), "{text}");
        assert!(text.contains("use --config FILE instead"), "{text}");
    }
}

#[test]
fn a_rotation_is_planned_with_it() {
    let mx = mx();
    let setup = with_command(&mx).in_environment("rotation = { client_guid = \"CLT-1\" }");
    let setup = setup.credential(
        "kind = \"basic\", client_id = \"test-client\", api_key = \"vault:test/api_key\", secondary_api_key = \"vault:test/next\"",
    );
    let run = |setup: &Setup| configured(setup, &["rotate", "--config", "CONFIG", "--dry-run", "test"]);
    let (done, text) = run(&setup);
    assert!(done && asked(&setup) == 1, "{text}");
    setup.file("opener", "something else");
    let (done, text) = run(&setup);
    assert!(!done && text.contains("exec:opener is not usable"), "{text}");
    assert!(Path::new(&setup.folder().join("vault.age")).exists());
}
