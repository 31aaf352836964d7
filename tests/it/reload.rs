//! Configuration and secrets change under traffic: nothing is dropped, nothing old is used, nothing bad is taken.

use std::{
    fs,
    io::{Read, Write},
    os::unix::{fs::symlink, net::UnixStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::Instant,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use mxgate::stand_in::Running;
use serde_json::Value;

use crate::harness::{API_KEY, CLIENT_ID, Client, Gateway, Setup, mx, mx_with, until};

/// The key after a rotation.
const NEXT_KEY: &str = "n3xt-k3y-of-the-test-environment";

const NOBODY: &str = "allow = [\"10.0.0.0/8\"]\n";

fn start() -> (Running, Gateway) {
    let mx = mx();
    let gateway = Setup::new(&mx).control().start();
    (mx, gateway)
}

fn status(gateway: &Gateway) -> u16 {
    gateway.get("/users", "").status
}

fn generation(gateway: &Gateway) -> u64 {
    gateway.status()["generation"].as_u64().unwrap()
}

/// What `mxgate reload` sends, without the cost of a process.
fn reload(socket: &Path) -> (u16, Value) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(b"POST /reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap())
}

/// Waits until so many seconds of the gateway's own time are over.
fn seconds_pass(gateway: &Gateway, seconds: u64) {
    let uptime = || gateway.status()["uptime_s"].as_u64().unwrap();
    let begun = uptime();
    until("time passes", || uptime() > begun + seconds);
}

#[test]
fn sighup_takes_up_a_changed_file() {
    let (_mx, mut gateway) = start();
    assert_eq!(status(&gateway), 200);
    gateway.setup.top = NOBODY.into();
    gateway.reconfigure();
    gateway.signal("HUP");
    gateway.stderr.wait_for(|line| line.contains("\"reloaded\"") && line.contains("SIGHUP"));
    let answer = gateway.get("/users", "");
    assert_eq!((answer.status, answer.code().as_str()), (403, "caller_not_allowed"));
}

#[test]
fn the_command_reports_what_changed() {
    let (_mx, mut gateway) = start();
    let text = gateway.command(&["reload"]).unwrap();
    assert_eq!(text, "loaded         generation 2\nchanged        nothing\n");
    gateway.setup.top = NOBODY.into();
    gateway.setup.environments =
        gateway.setup.environments.replace("[environment.test]", "[environment.test]\nconnections_max = 7");
    gateway.reconfigure();
    let text = gateway.command(&["reload"]).unwrap();
    assert!(text.ends_with("changed        allow\nchanged        environment.test\n"), "{text}");
    assert_eq!(status(&gateway), 403);
}

#[test]
fn a_file_that_changes_is_taken_up_by_itself() {
    let (_mx, mut gateway) = start();
    // Rewritten in place.
    gateway.setup.top = NOBODY.into();
    gateway.reconfigure();
    until("the rewritten file is in force", || status(&gateway) == 403);
    gateway.stderr.wait_for(|line| line.contains("\"reloaded\"") && line.contains("a file changed"));
    // Replaced by a rename, as editors do.
    gateway.setup.top = "allow = [\"127.0.0.0/8\"]\n".into();
    let new = gateway.setup.file("mxgate.toml.new", &gateway.setup.configuration());
    fs::rename(new, gateway.setup.folder().join("mxgate.toml")).unwrap();
    until("the renamed file is in force", || status(&gateway) == 200);
}

#[test]
fn many_quick_changes_are_few_reloads() {
    let (_mx, mut gateway) = start();
    for count in 0..100 {
        gateway.setup.top = format!("allow = [\"127.0.0.0/8\", \"10.0.{count}.0/24\"]\n");
        gateway.reconfigure();
    }
    gateway.setup.top = NOBODY.into();
    gateway.reconfigure();
    until("the last change is in force", || status(&gateway) == 403);
    let loads = generation(&gateway);
    assert!((2..10).contains(&loads), "{loads} loads");
    assert_eq!(gateway.metric("result=\"failure\""), 0.0, "a half-written file was read");
}

#[test]
fn a_gateway_that_nothing_happens_to_loads_once() {
    let mx = mx();
    let gateway = Setup::with_vault(&mx).control().start();
    assert_eq!(status(&gateway), 200);
    // What the vault writes beside itself, and a file that nobody named.
    gateway.setup.file("beside", "the others");
    seconds_pass(&gateway, 2);
    assert_eq!(generation(&gateway), 1);
}

/// The files of a volume as Kubernetes' kubelet writes them: `NAME -> ..data/NAME`, `..data -> ..TIME`, and an update
/// writes a new folder, swaps `..data` by a rename and removes the old folder.
struct Volume(PathBuf);

impl Volume {
    fn write(&self, version: &str, files: &[(&str, &str)]) {
        let folder = self.0.join(format!("..2026_11_22_{version}"));
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
        let old = fs::read_link(self.0.join("..data"));
        symlink(folder.file_name().unwrap(), self.0.join("..data_tmp")).unwrap();
        fs::rename(self.0.join("..data_tmp"), self.0.join("..data")).unwrap();
        for (name, _) in files {
            if !self.0.join(name).is_symlink() {
                symlink(Path::new("..data").join(name), self.0.join(name)).unwrap();
            }
        }
        if let Ok(old) = old {
            fs::remove_dir_all(self.0.join(old)).unwrap();
        }
    }
}

#[test]
fn a_kubernetes_secret_volume_is_followed() {
    let mx = mx();
    let mut setup = Setup::new(&mx);
    let volume = Volume(setup.folder().join("volume"));
    volume.write("1", &[("key", API_KEY), ("ca.pem", mx.authority_pem())]);
    let folder = setup.folder().display().to_string();
    for name in ["key", "ca.pem"] {
        setup.environments =
            setup.environments.replace(&format!("{folder}/{name}"), &format!("{folder}/volume/{name}"));
    }
    let gateway = setup.control().start();
    assert_eq!(status(&gateway), 200);
    for (version, key) in [("2", NEXT_KEY), ("3", API_KEY)] {
        mx.set_api_keys(0, vec![key.into()]);
        assert_eq!(status(&gateway), 401, "the old key");
        let begun = Instant::now();
        volume.write(version, &[("key", key), ("ca.pem", mx.authority_pem())]);
        until("the swapped key is in force", || status(&gateway) == 200);
        println!("a swapped secret was in force after {:?}", begun.elapsed());
    }
}

#[test]
fn a_kubernetes_configuration_volume_is_followed() {
    let mx = mx();
    let setup = Setup::new(&mx);
    let folder = setup.folder().to_owned();
    Volume(folder.clone()).write("1", &[("mxgate.toml", &setup.configuration())]);
    let mut gateway = setup.control().start();
    assert!(folder.join("mxgate.toml").is_symlink());
    assert_eq!(status(&gateway), 200);
    gateway.setup.top = NOBODY.into();
    Volume(folder).write("2", &[("mxgate.toml", &gateway.setup.configuration())]);
    until("the swapped file is in force", || status(&gateway) == 403);
}

#[test]
fn a_secret_file_that_changes_is_taken_up() {
    let (mx, gateway) = start();
    assert_eq!(status(&gateway), 200);
    let before = gateway.status()["environments"][0]["fingerprint"].clone();
    mx.set_api_keys(0, vec![NEXT_KEY.into()]);
    assert_eq!(status(&gateway), 401);
    let begun = Instant::now();
    gateway.setup.file("key", NEXT_KEY);
    until("the new key is in force", || status(&gateway) == 200);
    println!("a new secret file was in force after {:?}", begun.elapsed());
    assert_ne!(gateway.status()["environments"][0]["fingerprint"], before);
    let line = gateway.stderr.wait_for(|line| line.contains("\"reloaded\""));
    assert!(line.contains(&format!("the secret file:{}/key", gateway.setup.folder().display())), "{line}");
    assert!(!gateway.stderr.text().contains(NEXT_KEY));
}

#[test]
fn a_secret_that_only_a_refused_file_names_is_taken_up_when_it_appears() {
    let (mx, mut gateway) = start();
    let late = gateway.setup.folder().join("late/er/key");
    let text = format!("{}/key\"", gateway.setup.folder().display());
    gateway.setup.environments = gateway.setup.environments.replace(&text, &format!("{}\"", late.display()));
    gateway.reconfigure();
    let (text, code) = gateway.command(&["reload"]).unwrap_err();
    assert!(code == 1 && text.contains(&format!("file:{} does not exist", late.display())), "{text}");
    assert_eq!(status(&gateway), 200, "the old key stays");

    mx.set_api_keys(0, vec![NEXT_KEY.into()]);
    fs::create_dir_all(late.parent().unwrap()).unwrap();
    gateway.setup.file("late/er/key", NEXT_KEY);
    until("the late key is in force", || status(&gateway) == 200);
    assert!(gateway.status()["reload_fault"].is_null());
}

#[test]
fn a_bad_file_changes_nothing_and_says_so() {
    let (_mx, mut gateway) = start();
    gateway.setup.top = "allow = [\"10.0.0.0/8\"]\nalow = 1\n".into();
    gateway.reconfigure();
    let (text, code) = gateway.command(&["reload"]).unwrap_err();
    assert_eq!(code, 1);
    assert!(
        text.contains("the old configuration stays") && text.contains(":2:1: alow: unknown key"),
        "{text}"
    );
    assert_eq!(status(&gateway), 200);
    assert_eq!(gateway.metric("mxgate_config_last_reload_successful"), 0.0);
    assert_eq!(gateway.metric("mxgate_config_generation"), 1.0);
    assert!(gateway.metric("result=\"failure\"") >= 1.0);
    let shown = gateway.command(&["status"]).unwrap();
    assert!(shown.contains("last reload    FAILED: ") && shown.contains("alow: unknown key"), "{shown}");
    assert!(gateway.status()["reload_fault"].as_str().unwrap().contains("alow"));
    assert_eq!(gateway.page("/readyz").status, 200, "what is loaded is still good");

    // Whoever asks again is told again.
    let told = || gateway.stderr.text().matches("no new snapshot").count();
    let before = told();
    gateway.signal("HUP");
    until("the fault is told again", || told() > before);

    gateway.setup.top = NOBODY.into();
    gateway.reconfigure();
    until("the repaired file is in force", || status(&gateway) == 403);
    assert_eq!(gateway.metric("mxgate_config_last_reload_successful"), 1.0);
    assert!(gateway.status()["reload_fault"].is_null());
}

#[test]
fn a_missing_or_writable_file_changes_nothing() {
    let (_mx, gateway) = start();
    let path = gateway.setup.folder().join("mxgate.toml");
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o620)).unwrap();
    let (text, _) = gateway.command(&["reload"]).unwrap_err();
    assert!(text.contains("may be written by group or others"), "{text}");
    fs::remove_file(&path).unwrap();
    let (text, _) = gateway.command(&["reload"]).unwrap_err();
    assert!(text.contains("cannot be read"), "{text}");
    assert_eq!(status(&gateway), 200);
    gateway.reconfigure();
    gateway.command(&["reload"]).unwrap();
}

#[test]
fn a_file_that_would_let_nobody_in_is_not_taken() {
    let (_mx, mut gateway) = start();
    gateway.setup.top = "allow = []\n".into();
    gateway.reconfigure();
    let (text, code) = gateway.command(&["reload"]).unwrap_err();
    assert!(code == 1 && text.contains("`allow` has become empty"), "{text}");
    assert_eq!(status(&gateway), 200);
}

#[test]
fn keys_that_need_a_restart_are_named_and_the_rest_is_taken_up() {
    let (_mx, mut gateway) = start();
    let address = gateway.addresses[0];
    gateway.setup.top = "allow = [\"127.0.0.0/8\", \"10.0.0.0/8\"]\n".into();
    gateway.setup.listeners = gateway.setup.listeners.replace("127.0.0.1:0", "127.0.0.1:1");
    gateway.setup.tables = gateway.setup.tables.replace("format = \"json\"", "format = \"text\"");
    gateway.setup.tables.push_str("[process]\nworkers = 7\ndrain_total_ms = 1\n");
    gateway.reconfigure();
    let text = gateway.command(&["reload"]).unwrap();
    for key in ["listener", "log.format", "process.workers", "process.drain_total_ms"] {
        assert!(text.contains(&format!("needs restart  {key}\n")), "{key} is not in\n{text}");
    }
    assert!(text.contains("changed        allow\n"), "{text}");
    gateway
        .stderr
        .wait_for(|line| line.contains("only a restart applies") && line.contains("process.workers"));
    let mut client = Client::connect(address);
    client.request("GET /users HTTP/1.1", "");
    assert_eq!(client.answer().status, 200);
}

#[test]
fn a_host_name_that_a_reload_brings_is_looked_up() {
    let (mx, mut gateway) = start();
    assert_eq!(status(&gateway), 200);
    for (from, to) in [("127.0.0.1", "localhost"), ("localhost", "127.0.0.1"), ("127.0.0.1", "localhost")] {
        let url = |host| format!("https://{host}:{}", mx.address().port());
        gateway.setup.environments = gateway.setup.environments.replace(&url(from), &url(to));
        gateway.reconfigure();
        let (code, report) = reload(&gateway.setup.control_socket());
        assert_eq!((code, &report["changes"]), (200, &serde_json::json!(["environment.test"])));
        assert_eq!(status(&gateway), 200, "{to}");
        assert_eq!(mx.requests().last().unwrap().headers["host"], url(to)["https://".len()..]);
    }
}

#[test]
fn a_listener_never_moves_to_another_environment() {
    let mx = mx();
    let mut setup = Setup::new(&mx).control();
    let first = setup.other_environment("another", mx.address());
    setup.environments.push_str(&first);
    let mut gateway = setup.start();
    assert_eq!(gateway.record_of_one(), "test");
    // The file drops the running listener's environment; `another` is left.
    gateway.setup.listeners = gateway.setup.listeners.replace("\"test\"", "\"another\"");
    gateway.setup.environments = first;
    gateway.reconfigure();
    let (text, code) = gateway.command(&["reload"]).unwrap_err();
    assert!(code == 1 && text.contains("sends to environment test, which is not there"), "{text}");
    assert_eq!(gateway.record_of_one(), "test");
}

impl Gateway {
    /// The environment that one more request goes to.
    fn record_of_one(&self) -> String {
        let answer = self.get("/users", "");
        let id = answer.header("x-mxgate-request-id").unwrap().to_owned();
        self.record(|record| record["request_id"] == *id)["environment"].as_str().unwrap().to_owned()
    }
}

#[test]
fn what_vault_set_stores_is_taken_up_once() {
    let mx = mx();
    let gateway = Setup::with_vault(&mx).control().start();
    assert_eq!(status(&gateway), 200);
    mx.set_api_keys(0, vec![NEXT_KEY.into()]);
    assert_eq!(status(&gateway), 401);
    let begun = Instant::now();
    let mut set = Command::new(env!("CARGO_BIN_EXE_mxgate"))
        .current_dir(gateway.setup.folder())
        .args(["vault", "--vault", "vault.age", "--identity", "identity", "set", "test/api_key"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    set.stdin.take().unwrap().write_all(NEXT_KEY.as_bytes()).unwrap();
    assert!(set.wait().unwrap().success());
    until("the new key is in force", || status(&gateway) == 200);
    println!("a key set in the vault was in force after {:?}", begun.elapsed());
    let loads = generation(&gateway);
    // What the gateway's own look at the vault writes does not make it look again.
    seconds_pass(&gateway, 2);
    assert_eq!(generation(&gateway), loads);
    assert_eq!(loads, 2);
}

#[test]
fn a_vault_that_others_may_write_changes_nothing() {
    let mx = mx();
    let gateway = Setup::with_vault(&mx).control().start();
    for file in ["vault.age", "identity"] {
        let path = gateway.setup.folder().join(file);
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o660)).unwrap();
        let (text, code) = gateway.command(&["reload"]).unwrap_err();
        assert!(code == 1 && text.contains(file) && text.contains("group or others may write it"), "{text}");
        assert_eq!(status(&gateway), 200);
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        gateway.command(&["reload"]).unwrap();
    }
}

/// Reloads under traffic.
const ROUNDS: usize = 200;

#[test]
fn reloads_under_traffic_drop_nothing_and_use_no_old_key() {
    let mx = mx_with(|options| {
        options.environments[0].api_keys.push(NEXT_KEY.into());
        options.requests_kept = 20_000;
    });
    let mut gateway = Setup::new(&mx).control().start();
    let (stop, served) = (AtomicBool::new(false), AtomicU64::new(0));
    let address = gateway.addresses[0];
    let looping = || {
        let mut client = Client::connect(address);
        while !stop.load(Relaxed) {
            client.request("GET /users HTTP/1.1", "");
            let answer = client.answer();
            assert!(answer.status == 200 && answer.whole, "{answer:?}");
            served.fetch_add(1, Relaxed);
        }
    };
    thread::scope(|scope| {
        // A panic below must end the loops too.
        let _end = StopOnDrop(&stop);
        let loops: Vec<_> = (0..4).map(|_| scope.spawn(looping)).collect();
        let mut observers: Vec<_> = (0..3).map(|_| Client::connect(address)).collect();
        for round in 0..ROUNDS {
            change(&mut gateway, &mx, round);
            let (code, report) = reload(&gateway.setup.control_socket());
            assert_eq!(code, 200, "{report}");
            let key = if round.is_multiple_of(2) { NEXT_KEY } else { API_KEY };
            for (index, observer) in observers.iter_mut().enumerate() {
                observer.request(&format!("GET /users HTTP/1.1\nX-Round: {round}-{index}"), "");
                assert_eq!(observer.answer().status, 200);
            }
            let expected = format!("Basic {}", STANDARD.encode(format!("{CLIENT_ID}:{key}")));
            let kept = mx.requests();
            for index in 0..observers.len() {
                let tag = format!("{round}-{index}");
                let mine = |request: &&std::sync::Arc<mxgate::stand_in::journal::Request>| {
                    request.headers.get("x-round").is_some_and(|value| value == tag.as_str())
                };
                let sent = kept.iter().rev().find(mine).expect("the observer's request");
                assert_eq!(sent.headers["authorization"], expected, "an old key after round {round}");
            }
        }
        stop.store(true, Relaxed);
        loops.into_iter().for_each(|one| one.join().unwrap());
    });
    println!("{ROUNDS} reloads under {} requests", served.load(Relaxed));
    assert!(served.load(Relaxed) >= ROUNDS as u64 / 2, "hardly any traffic: {}", served.load(Relaxed));
    assert!(generation(&gateway) > ROUNDS as u64);
    assert_eq!(gateway.metric("mxgate_failures_total") + gateway.metric("mxgate_refusals_total"), 0.0);
}

/// Another key, another `allow`, other limits, and now and then other bytes in the CA file.
fn change(gateway: &mut Gateway, mx: &Running, round: usize) {
    gateway.setup.file("key", if round.is_multiple_of(2) { NEXT_KEY } else { API_KEY });
    gateway.setup.top = format!("allow = [\"127.0.0.0/8\", \"10.0.{round}.0/24\"]\n");
    if round.is_multiple_of(10) {
        gateway.setup.file("ca.pem", &format!("# {round}\n{}", mx.authority_pem()));
    }
    let tables = gateway.setup.tables.clone();
    gateway.setup.tables.push_str(&format!("[limits]\nheader_count_max = {}\n", 50 + round % 40));
    gateway.reconfigure();
    gateway.setup.tables = tables;
}

struct StopOnDrop<'s>(&'s AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}
