//! Secrets from files and commands: taken up without a restart, used within their grace, and not a moment longer than
//! their source allows.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Output,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use mxgate::stand_in::Running;
use serde_json::Value;

use crate::harness::{API_KEY, CLIENT_ID, Client, Gateway, Setup, mx, mx_with, mxgate, until};

const NEXT_KEY: &str = "n3xt-k3y-of-the-test-environment";

/// From a change to its first use.
const SOON: Duration = Duration::from_secs(2);

/// A gateway's parts with two environments, each behind a listener of its own.
fn two(mx: &Running) -> Setup {
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

fn generation(gateway: &Gateway) -> u64 {
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
    let setup = two(&mx).table("[file]\nrefresh_ms = 100\ngrace_ms = 3000");
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
    assert!(used > Duration::from_millis(2000) && used < Duration::from_millis(5000), "{used:?}");
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
    let gateway = two(&mx).table("[file]\nrefresh_ms = 100\ngrace_ms = 1500").start();
    let (loads, begun) = (generation(&gateway), Instant::now());
    let mut oldest = 0;
    while begun.elapsed() < Duration::from_secs(3) {
        assert_eq!((status(&gateway), ask(&gateway, 1).0), (200, 200));
        oldest = oldest.max(secret(&gateway, "/key")["age_ms"].as_u64().unwrap());
    }
    println!("for twice its grace, its last confirmation was at most {oldest} ms old");
    assert_eq!(generation(&gateway), loads);
}

#[test]
fn a_command_is_asked_again_and_again() {
    let mx = mx();
    let gateway = with_helper(&mx, "refresh_ms = 300\ngrace_ms = 3000\ntimeout_ms = 2000").start();
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
    let table = helper(&setup, "refresh_ms = 200\ngrace_ms = 60000\ntimeout_ms = 30000");
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
    // A field that is missing is no revocation.
    gateway.setup.file("both.json", "{\"token\": \"t0ken-of-one-account\"}");
    until("the fault is seen", || secret(&gateway, "#api_key")["failures"]["malformed"].as_u64() >= Some(1));
    assert_eq!(status(&gateway), 200);
    assert!(secret(&gateway, "#api_key")["fault"].as_str().unwrap().contains("has no field of that name"));
    assert!(secret(&gateway, "#token")["fault"].is_null());
}

/// A folder as kubelet makes it for a secret: `KEY -> ..data/KEY`, `..data -> ..TIME`, swapped by a rename.
struct Volume(PathBuf);

impl Volume {
    fn write(&self, version: usize, files: &[(&str, &str)]) {
        let folder = format!("..2026_11_30_00_00_00.{version:09}");
        fs::create_dir(self.0.join(&folder)).unwrap();
        fs::set_permissions(self.0.join(&folder), fs::Permissions::from_mode(0o755)).unwrap();
        for (name, text) in files {
            let path = self.0.join(&folder).join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        }
        let old = fs::read_link(self.0.join("..data"));
        symlink(&folder, self.0.join("..data_tmp")).unwrap();
        fs::rename(self.0.join("..data_tmp"), self.0.join("..data")).unwrap();
        for (name, _) in files.iter().filter(|(name, _)| !self.0.join(name).exists()) {
            symlink(format!("..data/{name}"), self.0.join(name)).unwrap();
        }
        // kubelet removes the old folder right after the swap.
        if let Ok(old) = old {
            fs::remove_dir_all(self.0.join(old)).unwrap();
        }
    }
}

const SWAPS: usize = 200;

/// Keys of one version in every environment of one volume, never of two.
#[test]
fn two_hundred_swaps_of_a_kubernetes_volume_under_load_fail_nothing_and_mix_nothing() {
    let mx = mx_with(|options| {
        options.requests_kept = 40_000;
        let environment = &mut options.environments[0];
        for version in 0..=SWAPS {
            environment.api_keys.extend([key("a", version), key("b", version)]);
        }
        environment.bearer_tokens.extend((0..=SWAPS).map(|version| key("t", version)));
    });
    let mut setup = two(&mx);
    let folder = setup.folder().join("volume");
    fs::create_dir(&folder).unwrap();
    let volume = Volume(folder.clone());
    let write = |version: usize| {
        let keys = [key("a", version), key("b", version), key("t", version)];
        volume.write(version, &[("a", &keys[0]), ("b", &keys[1]), ("t", &keys[2])]);
    };
    write(0);
    for (from, to) in [("other-key", "b"), ("key", "a"), ("token", "t")] {
        let own = format!("file:{}/{from}\"", setup.folder().display());
        setup.environments = setup.environments.replace(&own, &format!("file:{}/{to}\"", folder.display()));
    }
    // Looks at every tenth of a second, so that the test does not take minutes.
    let gateway = setup.table("[file]\nrefresh_ms = 100").start();
    let load = Load::start(&gateway);
    let mut slowest = Duration::ZERO;
    for version in 1..=SWAPS {
        let swapped = Instant::now();
        write(version);
        let wanted = ["a", "b"].map(|name| fingerprint(&key(name, version)));
        until("the swap is in force", || {
            // What is in use, not what was read.
            let status = gateway.status();
            let used =
                status["environments"].as_array().unwrap().iter().map(|one| one["fingerprint"].clone());
            let mut used: Vec<Value> = used.collect();
            // By their names: "other" and "test".
            used.reverse();
            used == wanted
        });
        slowest = slowest.max(swapped.elapsed());
    }
    let served = load.end();
    println!("{SWAPS} swaps under {served} requests; the slowest was in force after {slowest:?}");
    assert!(slowest < SOON, "{slowest:?}");
    assert!(served >= SWAPS as u64, "hardly any traffic: {served}");
    assert_eq!(gateway.metric("mxgate_failures_total") + gateway.metric("mxgate_refusals_total"), 0.0);
    assert_eq!(generation(&gateway), SWAPS as u64 + 1, "one swap, one snapshot");
    mixed_nothing(&mx);
}

fn key(name: &str, version: usize) -> String {
    format!("k3y-{name}-{version:03}-of-the-volume")
}

fn fingerprint(value: &str) -> String {
    mxgate::vault::secret::Secret::new(value.into()).unwrap().fingerprint().to_string()
}

/// In the order in which they came, keys only ever become newer, in both environments alike.
fn mixed_nothing(mx: &Running) {
    let mut newest = 0;
    let mut seen = 0;
    for request in mx.requests() {
        let Some(sent) = request.headers.get("authorization").and_then(|value| value.to_str().ok()) else {
            continue;
        };
        let pair = STANDARD.decode(sent.strip_prefix("Basic ").unwrap()).unwrap();
        let pair = String::from_utf8(pair).unwrap();
        let key = pair.strip_prefix(&format!("{CLIENT_ID}:k3y-")).expect("a key of the volume");
        let environment = request.headers["x-environment"].to_str().unwrap();
        assert_eq!(&key[..1], environment, "a key of another environment");
        let version: usize = key[2..5].parse().unwrap();
        // A request of before the swap may arrive after one of after it; none is older than that.
        assert!(version + 1 >= newest, "version {version} after {newest}");
        newest = newest.max(version);
        seen += 1;
    }
    assert!(newest == SWAPS && seen > SWAPS, "{newest} {seen}");
}

/// Requests to both environments until it is told to end; each must succeed.
struct Load {
    stop: std::sync::Arc<AtomicBool>,
    served: std::sync::Arc<AtomicU64>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Load {
    fn start(gateway: &Gateway) -> Self {
        let (stop, served) =
            (std::sync::Arc::<AtomicBool>::default(), std::sync::Arc::<AtomicU64>::default());
        let run = |(environment, address): (&'static str, std::net::SocketAddr)| {
            let (stop, served) = (stop.clone(), served.clone());
            thread::spawn(move || {
                let mut client = Client::connect(address);
                while !stop.load(Relaxed) {
                    client.request(&format!("GET /users HTTP/1.1\nX-Environment: {environment}"), "");
                    let answer = client.answer();
                    assert!(answer.status == 200 && answer.whole, "{answer:?}");
                    served.fetch_add(1, Relaxed);
                    // 200 requests a second each are load enough beside the swaps.
                    thread::park_timeout(Duration::from_millis(5));
                }
            })
        };
        let threads = ["a", "b"].into_iter().zip(gateway.addresses.clone()).map(run).collect();
        Self { stop, served, threads }
    }

    fn end(self) -> u64 {
        self.stop.store(true, Relaxed);
        self.threads.into_iter().for_each(|one| one.join().expect("no request failed"));
        self.served.load(Relaxed)
    }
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
