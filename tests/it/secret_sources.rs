//! Secrets from files and commands: taken up without a restart, used within their grace, and not a moment longer than
//! their source allows.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Output,
    time::{Duration, Instant},
};

use mxgate::stand_in::Running;
use serde_json::Value;

use crate::harness::{API_KEY, Client, Gateway, Setup, mx, mxgate, until};

const NEXT_KEY: &str = "n3xt-k3y-of-the-test-environment";

/// Long before the time-out of a command that hangs. (How long a change takes is printed: beside other tests each of its
/// steps may wait for a core.)
const SOON: Duration = Duration::from_secs(30);

/// A gateway's parts with two environments, each behind a listener of its own.
pub fn two(mx: &Running) -> Setup {
    let mut setup = Setup::new(mx).control();
    let other = setup.other_environment("other", mx.address());
    setup.environments.push_str(&other);
    setup.listeners.push_str("[[listener]]\naddress = \"127.0.0.1:0\"\nenvironment = \"other\"\n");
    setup
}

fn ask(gateway: &Gateway, listener: usize) -> (u16, String) {
    let mut client = Client::connect(gateway.addresses[listener]);
    client.request("GET /users HTTP/1.1", "");
    let answer = client.answer();
    (answer.status, answer.code())
}

fn status(gateway: &Gateway) -> u16 {
    ask(gateway, 0).0
}

fn unavailable() -> (u16, String) {
    (503, "credential_unavailable".into())
}

pub fn generation(gateway: &Gateway) -> u64 {
    gateway.status()["generation"].as_u64().unwrap()
}

/// What the status says of the secret whose reference ends so.
fn secret(gateway: &Gateway, end: &str) -> Value {
    let status = gateway.status();
    let of = |one: &&Value| one["reference"].as_str().unwrap().ends_with(end);
    status["secrets"].as_array().unwrap().iter().find(of).expect("a secret").clone()
}

/// A command that prints what is in the file `secret` of the gateway's folder, and its table.
fn helper(setup: &Setup, keys: &str) -> String {
    let folder = setup.folder().display();
    script(setup, &format!("exec /bin/cat {folder}/secret"));
    setup.file("secret", API_KEY);
    format!("[exec.key]\ncommand = [\"{folder}/helper\"]\n{keys}")
}

fn script(setup: &Setup, text: &str) -> PathBuf {
    // Never half written where it is run.
    let path = setup.file("helper.new", &format!("#!/bin/sh\n{text}\n"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    let helper = setup.folder().join("helper");
    fs::rename(path, &helper).unwrap();
    helper
}

/// The key is what the command prints.
fn with_helper(mx: &Running, keys: &str) -> Setup {
    let mut setup = Setup::new(mx).control();
    let from = format!("file:{}/key", setup.folder().display());
    setup.environments = setup.environments.replace(&from, "exec:key");
    let table = helper(&setup, keys);
    setup.table(&table)
}

#[test]
fn a_deleted_file_ends_its_environments_credential_at_once_and_no_other() {
    let mx = mx();
    let gateway = two(&mx).start();
    assert_eq!((status(&gateway), ask(&gateway, 1).0), (200, 200));
    let loads = generation(&gateway);
    let begun = Instant::now();
    fs::remove_file(gateway.setup.folder().join("key")).unwrap();
    until("the deleted key is used no longer", || ask(&gateway, 0) == unavailable());
    println!("a deleted key was used for {:?}", begun.elapsed());
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert_eq!(ask(&gateway, 1).0, 200, "the other environment goes on");
    let answer = gateway.get("/users", "");
    assert!(answer.header("retry-after").is_some());
    let told = gateway.stderr.wait_for(|line| line.contains("gone from its source"));
    assert!(told.contains("ERROR") && told.contains("/key"), "{told}");
    let shown = secret(&gateway, "/key");
    assert_eq!((&shown["state"], &shown["remaining_ms"]), (&"revoked".into(), &0.into()), "{shown}");
    assert_eq!(shown["failures"]["absent"].as_u64().map(|count| count >= 1), Some(true), "{shown}");
    assert!(gateway.command(&["status"]).unwrap().contains("/key of test is REVOKED, confirmed "));
    assert_eq!(gateway.metric("mxgate_secret_usable{environment=\"test\""), 1.0, "the token is usable still");
    assert_eq!(gateway.metric("mxgate_secret_usable{environment=\"other\""), 2.0);
    assert!(gateway.metric("mxgate_failures_total{code=\"credential_unavailable\"}") >= 1.0);
    assert_eq!(gateway.page("/readyz").status, 200);

    // A configuration is taken up meanwhile, and brings nothing back.
    let mut gateway = gateway;
    gateway.setup.top = "allow = [\"127.0.0.0/8\", \"10.0.0.0/8\"]\n".into();
    gateway.reconfigure();
    let (said, code) = gateway.command(&["reload"]).unwrap_err();
    assert!(code == 1 && said.contains("/key does not exist: it is used no longer"), "{said}");
    assert!(generation(&gateway) > loads);
    assert_eq!(ask(&gateway, 0), unavailable());

    gateway.setup.file("key", API_KEY);
    until("the key that is back is used", || status(&gateway) == 200);
    assert_eq!(secret(&gateway, "/key")["state"], "usable");
    gateway.command(&["reload"]).unwrap();
}

#[test]
fn a_key_is_deleted_while_the_configuration_is_broken() {
    let mx = mx();
    let mut gateway = two(&mx).start();
    gateway.setup.top = "alow = 1\n".into();
    gateway.reconfigure();
    gateway.stderr.wait_for(|line| line.contains("no new snapshot"));
    // What changes is used as well.
    mx.set_api_keys(0, vec![NEXT_KEY.into()]);
    gateway.setup.file("other-key", NEXT_KEY);
    fs::remove_file(gateway.setup.folder().join("key")).unwrap();
    until("the deleted key is used no longer", || ask(&gateway, 0) == unavailable());
    until("the changed key is used", || ask(&gateway, 1).0 == 200);
    assert!(gateway.status()["reload_fault"].as_str().unwrap().contains("alow"));
}

#[test]
fn a_key_that_cannot_be_confirmed_serves_within_its_grace_and_not_longer() {
    let mx = mx();
    let setup = two(&mx).table("[file]\nrefresh_ms = 100\ngrace_ms = 5000");
    let gateway = setup.start();
    assert_eq!(status(&gateway), 200);
    // No secret at all: as when a rotation writes half a file.
    let broken = Instant::now();
    gateway.setup.file("key", "");
    until("the fault is seen", || secret(&gateway, "/key")["failures"]["unfit"].as_u64() > Some(2));
    assert_eq!(status(&gateway), 200, "the last good one");
    until("its grace is over", || ask(&gateway, 0) == unavailable());
    let used = broken.elapsed();
    println!("a key that could not be confirmed was used for {used:?}");
    // It was last confirmed at most one interval and one look before it was broken.
    assert!(used > Duration::from_millis(3500) && used < Duration::from_millis(5000) + SOON, "{used:?}");
    let told = gateway.stderr.wait_for(|line| line.contains("not confirmed within its grace"));
    assert!(told.contains("is empty"), "{told}");
    assert_eq!(secret(&gateway, "/key")["state"], "expired");
    assert_eq!(ask(&gateway, 1).0, 200, "the other environment goes on");
    let loads = generation(&gateway);
    gateway.setup.file("key", API_KEY);
    until("it is confirmed again", || status(&gateway) == 200);
    // The look that confirms it builds nothing; that of a changed file may.
    assert!(generation(&gateway) <= loads + 2);
}

#[test]
fn what_a_source_confirms_builds_no_snapshot() {
    let mx = mx();
    let gateway = two(&mx).table("[file]\nrefresh_ms = 100\ngrace_ms = 3000").start();
    let (loads, begun) = (generation(&gateway), Instant::now());
    let mut oldest = 0;
    while begun.elapsed() < Duration::from_secs(6) {
        assert_eq!((status(&gateway), ask(&gateway, 1).0), (200, 200));
        oldest = oldest.max(secret(&gateway, "/key")["age_ms"].as_u64().unwrap());
    }
    println!("for twice its grace, its last confirmation was at most {oldest} ms old");
    assert_eq!(generation(&gateway), loads);
}

#[test]
fn a_command_is_asked_again_and_again() {
    let mx = mx();
    let gateway = with_helper(&mx, "refresh_ms = 300\ngrace_ms = 8000\ntimeout_ms = 2000").start();
    until("the first answer has come", || status(&gateway) == 200);
    let loads = generation(&gateway);

    mx.set_api_keys(0, vec![NEXT_KEY.into()]);
    let begun = Instant::now();
    gateway.setup.file("secret", NEXT_KEY);
    until("the new key is used", || status(&gateway) == 200);
    println!("with an interval of 300 ms a new key was in force after {:?}", begun.elapsed());
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert_eq!(generation(&gateway), loads + 1, "one change, one snapshot");

    // It fails, says nothing useful, hangs.
    for text in ["echo wh4t-it-said >&2; exit 1", "echo '<html>'; echo", "exec /bin/sleep 100"] {
        script(&gateway.setup, text);
        let failures = || {
            let failures = secret(&gateway, "exec:key")["failures"].clone();
            ["unreachable", "unfit", "timeout"].iter().filter_map(|name| failures[name].as_u64()).sum::<u64>()
        };
        let before = failures();
        until("it fails", || failures() > before);
        assert_eq!(status(&gateway), 200, "within its grace: {text}");
        if text.contains("sleep") {
            until("its grace is over", || ask(&gateway, 0) == unavailable());
        } else {
            let folder = gateway.setup.folder().display().to_string();
            script(&gateway.setup, &format!("exec /bin/cat {folder}/secret"));
            until("it is confirmed again", || secret(&gateway, "exec:key")["fault"].is_null());
        }
    }
    assert!(!gateway.stderr.text().contains("wh4t-it-said"));
    let folder = gateway.setup.folder().display().to_string();
    script(&gateway.setup, &format!("exec /bin/cat {folder}/secret"));
    until("it recovers by itself", || status(&gateway) == 200);

    // The command says that there is no such secret any more.
    script(&gateway.setup, "exit 200");
    let begun = Instant::now();
    until("it is used no longer", || ask(&gateway, 0) == unavailable());
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert_eq!(secret(&gateway, "exec:key")["state"], "revoked");
}

#[test]
fn a_command_that_hangs_holds_up_nothing_else() {
    let mx = mx();
    let mut setup = two(&mx);
    let from = format!("file:{}/key", setup.folder().display());
    setup.environments = setup.environments.replace(&from, "exec:key");
    let table = helper(&setup, "refresh_ms = 200\ngrace_ms = 60000\ntimeout_ms = 60000");
    let gateway = setup.table(&table).start();
    until("the first answer has come", || status(&gateway) == 200);
    let started = gateway.setup.folder().join("started");
    script(&gateway.setup, &format!("echo >{}; exec /bin/sleep 100", started.display()));
    until("it hangs", || started.exists());
    mx.set_api_keys(0, vec![API_KEY.into(), NEXT_KEY.into()]);
    let fingerprint = |gateway: &Gateway| secret(gateway, "/other-key")["fingerprint"].clone();
    let before = fingerprint(&gateway);
    let begun = Instant::now();
    gateway.setup.file("other-key", NEXT_KEY);
    until("a file is taken up", || fingerprint(&gateway) != before);
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    let begun = Instant::now();
    gateway.command(&["reload"]).unwrap();
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert_eq!((status(&gateway), ask(&gateway, 1).0), (200, 200));
}

#[test]
fn a_source_that_is_down_at_the_start_delays_readiness_and_ends_nothing() {
    let mx = mx();
    let setup = with_helper(&mx, "refresh_ms = 60000");
    script(&setup, "exit 1");
    let gateway = setup.start();
    assert_eq!(ask(&gateway, 0), (503, "not_ready".into()));
    let page = gateway.page("/readyz");
    assert_eq!(page.status, 503, "{}", page.text());
    assert!(gateway.command(&["status"]).unwrap().contains("exec:key of test was NEVER READ"));
    let folder = gateway.setup.folder().display().to_string();
    script(&gateway.setup, &format!("exec /bin/cat {folder}/secret"));
    // Long before its interval.
    until("it is ready", || gateway.page("/readyz").status == 200);
    assert_eq!(status(&gateway), 200);
}

#[test]
fn a_reload_waits_only_a_moment_for_a_new_source_and_takes_it_up_when_it_has_come() {
    let mx = mx();
    let mut gateway = Setup::new(&mx).control().start();
    let from = format!("file:{}/key", gateway.setup.folder().display());
    gateway.setup.environments = gateway.setup.environments.replace(&from, "exec:key");
    let table = helper(&gateway.setup, "refresh_ms = 60000\ntimeout_ms = 20000");
    gateway.setup.tables.push_str(&table);
    let go = gateway.setup.folder().join("go");
    let folder = gateway.setup.folder().display().to_string();
    let waits = format!("until [ -e {} ]; do sleep 0.05; done; exec /bin/cat {folder}/secret", go.display());
    gateway.setup.file("secret", NEXT_KEY);
    let helper = script(&gateway.setup, &waits);
    // `sleep` is found by the shell's own path.
    assert!(helper.exists());
    gateway.reconfigure();
    let (said, code) = gateway.command(&["reload"]).unwrap_err();
    assert!(code == 1 && said.contains("exec:key has not been read yet"), "{said}");
    assert_eq!(status(&gateway), 200, "the old key stays");
    mx.set_api_keys(0, vec![NEXT_KEY.into()]);
    assert_eq!(status(&gateway), 401);
    fs::write(go, "").unwrap();
    until("the new source is used", || status(&gateway) == 200);
}

#[test]
fn fields_of_documents_and_hosts_beside_a_reference() {
    let mx = mx();
    let mut setup = Setup::new(&mx).control();
    let folder = setup.folder().display().to_string();
    setup.file("both.json", &format!("{{\"api_key\": \"{API_KEY}\", \"token\": \"t0ken-of-one-account\"}}"));
    let key = format!("{{ from = \"file:{folder}/both.json#api_key\", hosts = [\"127.0.0.1\"] }}");
    setup.environments = setup
        .environments
        .replace(&format!("\"file:{folder}/key\""), &key)
        .replace(&format!("file:{folder}/token"), &format!("file:{folder}/both.json#token"));
    let gateway = setup.start();
    assert_eq!(status(&gateway), 200);
    mx.set_api_keys(0, vec![NEXT_KEY.into()]);
    gateway
        .setup
        .file("both.json", &format!("{{\"api_key\": \"{NEXT_KEY}\", \"token\": \"t0ken-of-one-account\"}}"));
    until("the new field is used", || status(&gateway) == 200);
    // Half a document is no revocation.
    gateway.setup.file("both.json", &format!("{{\"api_key\": \"{NEXT_KEY}\", \"token\""));
    until("the fault is seen", || secret(&gateway, "#api_key")["failures"]["malformed"].as_u64() >= Some(1));
    assert_eq!(status(&gateway), 200);
    // A field that was taken out is, and for no other field.
    gateway.setup.file("both.json", "{\"token\": \"t0ken-of-one-account\"}");
    until("it is revoked", || secret(&gateway, "#api_key")["state"] == "revoked");
    assert_eq!(status(&gateway), 503);
    assert!(secret(&gateway, "#api_key")["fault"].as_str().unwrap().contains("has no field of that name"));
    assert!(secret(&gateway, "#token")["fault"].is_null());
}

fn check_online(setup: &Setup) -> Output {
    let path = setup.file("mxgate.toml", &setup.configuration());
    mxgate(&["check", "--online", path.to_str().unwrap()], &[])
}

#[test]
fn check_online_reads_every_reference_once_and_names_all_faults() {
    let mx = mx();
    let mut setup = two(&mx);
    let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    let fine = check_online(&setup);
    assert_eq!((fine.status.code(), text(&fine).trim()), (Some(0), "fine"));

    let from = format!("file:{}/other-key\"", setup.folder().display());
    setup.environments = setup.environments.replace(&from, "exec:key#api_key\"");
    let table = helper(&setup, "");
    setup.tables.push_str(&table);
    setup.file("key", "k3y-with-ä-in-it");
    setup.file("token", "\n");
    setup.file("secret", "{\"apikey\": \"c4n4ry-value\"}");
    fs::remove_file(setup.folder().join("other-token")).unwrap();
    let faulty = check_online(&setup);
    let said = text(&faulty);
    assert_eq!(faulty.status.code(), Some(3), "{said}");
    let folder = setup.folder().display();
    for expected in [
        format!("environment test: file:{folder}/key is not usable as a secret: holds a byte outside ASCII"),
        format!("environment test: file:{folder}/token is not usable as a secret: is empty"),
        "environment other: exec:key#api_key: the document has no field of that name at its top level"
            .to_owned(),
        format!("environment other: file:{folder}/other-token does not exist"),
        "4 faults".to_owned(),
    ] {
        assert!(said.contains(&expected), "{expected} is not in\n{said}");
    }
    assert!(!said.contains("k3y-with") && !said.contains("c4n4ry"), "{said}");
    let path = setup.folder().join("mxgate.toml");
    let offline = mxgate(&["check", path.to_str().unwrap()], &[]);
    assert_eq!((offline.status.code(), text(&offline).trim()), (Some(0), "fine"), "it reads no secret");
    let json = mxgate(&["--json", "check", "--online", path.to_str().unwrap()], &[]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&json["ok"], json["faults"].as_array().unwrap().len()), (&false.into(), 4), "{json}");
    // The gateway is not ready, and says the same.
    let gateway = setup.start();
    assert_eq!(gateway.page("/readyz").status, 503);
    assert!(gateway.status()["reload_fault"].as_str().unwrap().contains("holds a byte outside ASCII"));
}

#[test]
fn check_online_leaves_no_mark_on_a_vault() {
    let mx = mx();
    let setup = Setup::with_vault(&mx);
    let seen = setup.folder().join("vault.age.generation");
    fs::remove_file(&seen).unwrap();
    assert_eq!(check_online(&setup).status.code(), Some(0));
    assert!(!Path::new(&seen).exists());
}

#[test]
fn an_entry_that_is_removed_from_the_vault_is_used_no_longer() {
    let mx = mx();
    let gateway = Setup::with_vault(&mx).control().start();
    assert_eq!(status(&gateway), 200);
    let shown = secret(&gateway, "test/api_key");
    assert_eq!((&shown["source"], &shown["version"]), (&"vault".into(), &"1".into()), "{shown}");
    let folder = gateway.setup.folder().to_owned();
    let path = |name: &str| folder.join(name).display().to_string();
    let vault = ["vault", "--vault", &path("vault.age"), "--identity", &path("identity")].map(str::to_owned);
    let arguments: Vec<&str> = vault.iter().map(String::as_str).chain(["remove", "test/api_key"]).collect();
    let removed = mxgate(&arguments, &[]);
    assert!(removed.status.success(), "{}", String::from_utf8_lossy(&removed.stderr));
    let begun = Instant::now();
    until("it is used no longer", || ask(&gateway, 0) == unavailable());
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    // A vault that cannot be read is no revocation, and no word of its entries either.
    gateway.setup.file("vault.age", "damaged");
    until("the fault is seen", || {
        secret(&gateway, "test/api_key")["failures"]["unreachable"].as_u64() >= Some(1)
    });
    assert_eq!(ask(&gateway, 0), unavailable());
}
