//! `mxgate rotate`: MX's key changes while traffic flows, whatever becomes of the process that changes it.

#[cfg(feature = "aws")]
mod in_aws;
mod in_openbao;
mod killed;
mod schedule;
mod vault;

use std::{
    process::Output,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Instant,
};

use mxgate::stand_in::{hold::Point, random_key};
use serde_json::Value;

use self::vault::Rotating;
use crate::harness::{API_KEY, Client, PATIENCE, Setup, mx, until};

/// What a run has printed, whichever way.
fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

#[track_caller]
fn assert_done(output: &Output) {
    assert!(output.status.success(), "{}", text(output));
}

/// Reads without a pause on one connection until `over`; how many there were, and what failed.
fn read_on(gateway: &crate::harness::Gateway, over: &AtomicBool, count: &AtomicU64) -> Vec<String> {
    let mut client = Client::connect(gateway.addresses[0]);
    let mut failed = Vec::new();
    while !over.load(Ordering::Relaxed) {
        client.request("GET /users HTTP/1.1", "");
        let answer = client.answer();
        count.fetch_add(1, Ordering::Relaxed);
        if answer.status != 200 || !answer.whole {
            failed.push(format!("{} {}", answer.status, answer.text()));
        }
    }
    failed
}

#[test]
fn under_load_no_request_fails() {
    no_request_fails(Rotating::with(Setup::control, "wait_min_ms = 0, lease_ms = 120_000"));
}

#[expect(clippy::print_stdout, reason = "the figures of a rotation under load")]
fn no_request_fails(mut rotating: Rotating) {
    let gateway = rotating.start();
    let (over, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let (output, failed, time) = thread::scope(|scope| {
        let readers: Vec<_> = (0..2).map(|_| scope.spawn(|| read_on(&gateway, &over, &count))).collect();
        until("there is load", || count.load(Ordering::Relaxed) > 200);
        let (begun, before) = (Instant::now(), count.load(Ordering::Relaxed));
        let output = rotating.rotate(&[]);
        let time = begun.elapsed();
        // And on with the new key.
        let after = count.load(Ordering::Relaxed);
        until("there is load after it", || count.load(Ordering::Relaxed) > after + 200);
        over.store(true, Ordering::Relaxed);
        let failed: Vec<String> = readers.into_iter().flat_map(|reader| reader.join().unwrap()).collect();
        println!("{} reads in {time:?} of rotation", after - before);
        (output, failed, time)
    });
    assert_done(&output);
    let count = count.load(Ordering::Relaxed);
    println!("{count} reads in all, {} failed, {time:?} for the rotation", failed.len());
    assert_eq!(failed, [""; 0], "of {count}");
    let new = rotating.over();
    assert_ne!(new, API_KEY);
    assert!(!rotating.mx.takes_api_key(0, API_KEY.as_bytes()));
    // The gateway has seen both keys, and shows which one it uses.
    let shown = gateway.status()["environments"][0]["fingerprint"].as_str().unwrap().to_owned();
    assert_eq!(rotating.status()["primary"], shown.as_str());
    for output in [text(&output), gateway.stderr.text(), gateway.stdout.text()] {
        assert!(!output.contains(&new) && !output.contains(API_KEY));
    }
}

#[test]
fn an_old_key_is_kept_until_it_is_retired() {
    let rotating = Rotating::new();
    assert_done(&rotating.rotate(&["--keep-old"]));
    let new = rotating.primary();
    assert!(rotating.mx.takes_api_key(0, API_KEY.as_bytes()) && rotating.mx.takes_api_key(0, new.as_bytes()));
    let status = rotating.status();
    assert_eq!(status["step"], "kept");
    assert!(status["old_until"].is_u64() && status["secondary"].is_string(), "{status}");
    // Again is the same, and does not ask MX for another key, which would kill the one in use.
    assert_done(&rotating.rotate(&["--keep-old"]));
    assert_eq!(rotating.mx.count("rotateApiKey"), 1);
    assert_done(&rotating.rotate(&[]));
    assert_eq!((rotating.over(), rotating.mx.count("rotateApiKey")), (new, 1));
    assert_eq!(rotating.status()["step"], "idle");
}

#[test]
fn a_dry_run_says_each_step_and_does_none() {
    let rotating = Rotating::new();
    let before = rotating.bytes();
    let output = rotating.rotate(&["--dry-run"]);
    assert_done(&output);
    let said = text(&output);
    for part in
        ["take the lock", "ask it for a new key, once", "vault:test/secondary", "change places", "delete it"]
    {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    assert_done(&rotating.rotate(&["--status"]));
    assert_eq!((rotating.mx.received(), rotating.bytes()), (0, before));
    let kept = text(&rotating.rotate(&["--dry-run", "--keep-old"]));
    assert!(kept.contains("MX deletes it after 30 days") && !kept.contains("ask MX to delete it"), "{kept}");
}

#[test]
fn what_cannot_be_written_is_refused_before_anything_is_called() {
    let mx = mx();
    let refused = |credential: &str, reason: &str| {
        let setup =
            Setup::with_vault(&mx).credential(&format!("kind = \"basic\", client_id = \"c\", {credential}"));
        let setup = setup.in_environment("rotation = { client_guid = \"CLT-1\" }");
        setup.file("other", API_KEY);
        let rotating = Rotating::of(crate::harness::mx(), setup);
        let output = rotating.rotate(&[]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(text(&output).contains(reason), "{reason} is not in {}", text(&output));
        assert_eq!(rotating.mx.received(), 0);
    };
    refused("api_key = \"vault:test/api_key\"", "secondary_api_key");
    for (primary, secondary) in
        [("file:DIR/key", "file:DIR/other"), ("env:ONE", "env:TWO"), ("file:DIR/key", "vault:test/secondary")]
    {
        let keys = format!("api_key = \"{primary}\", secondary_api_key = \"{secondary}\"");
        refused(&keys, "cannot be written by mxgate");
    }
    refused(
        "api_key = \"vault:test/api_key\", secondary_api_key = \"file:DIR/other\"",
        "change places in one write",
    );
    refused(
        "api_key = \"vault:test/api_key\", secondary_api_key = \"vault:rotation/test\"",
        "below rotation/",
    );
}

#[test]
fn a_second_entry_that_is_for_another_host_is_neither_sent_nor_overwritten() {
    let rotating = Rotating::new();
    rotating.set("test/secondary", "of-s0mething-else", "bao.example");
    let output = rotating.rotate(&[]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("is sealed for bao.example"), "{}", text(&output));
    assert_eq!(rotating.mx.received(), 0);
}

#[test]
fn a_key_that_mx_does_not_take_is_not_rotated() {
    let rotating = Rotating::new();
    rotating.mx.set_api_keys(0, vec![random_key().unwrap()]);
    let output = rotating.rotate(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("which is the primary one"), "{}", text(&output));
    assert_eq!(rotating.mx.count("rotateApiKey"), 0);
    assert_eq!((rotating.status()["step"].as_str(), rotating.primary()), (Some("idle"), API_KEY.to_owned()));
}

#[test]
fn without_the_clients_name_or_with_an_unknown_environment_nothing_is_called() {
    let rotating = Rotating::with(|setup| setup, "wait_min_ms = 0");
    let configured = rotating.setup().configuration().replace("client_guid = \"CLT-1\", ", "");
    rotating.setup().file("mxgate.toml", &configured);
    let output = rotating.rotate_as_it_is(&["test"]);
    assert!(text(&output).contains("--client-guid"), "{}", text(&output));
    let output = rotating.rotate_as_it_is(&["tset"]);
    assert!(text(&output).contains("there is no environment `tset`; there are: test"), "{}", text(&output));
    let output = rotating.rotate_as_it_is(&["test", "--client-guid", "CLT/1"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert_eq!(rotating.mx.received(), 0);
    assert_done(&rotating.rotate_as_it_is(&["test", "--client-guid", "CLT-7"]));
    assert!(rotating.mx.requests().iter().any(|request| request.target == "/clients/CLT-7/api_keys/rotate"));
}

#[test]
fn a_key_that_the_vault_cannot_take_goes_to_the_recovery_file_and_from_there_into_the_vault() {
    let rotating = Rotating::new();
    let held = rotating.mx.hold("rotateApiKey", Point::After, 0);
    let child = rotating.spawn(&[]);
    assert!(held.wait(PATIENCE), "MX has made the key");
    // Nobody, not even root, opens a folder as a lock file.
    let lock = rotating.folder().join("vault.age.lock");
    std::fs::remove_file(&lock).unwrap();
    std::fs::create_dir(&lock).unwrap();
    drop(held);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let file = rotating.folder().join("vault.age.recovery-test");
    assert!(text(&output).contains(&file.display().to_string()), "{}", text(&output));
    assert!(std::fs::read(&file).unwrap().starts_with(b"age-encryption.org/v1"));
    assert_eq!(rotating.primary(), API_KEY);
    std::fs::remove_dir(&lock).unwrap();
    assert_done(&rotating.rotate(&[]));
    assert_ne!(rotating.over(), API_KEY);
    assert_eq!(rotating.mx.count("rotateApiKey"), 1, "the key was not made twice");
    assert!(!file.exists());
}

#[test]
fn of_many_at_once_one_rotates() {
    let rotating = Rotating::new();
    let children: Vec<_> = (0..4).map(|_| rotating.spawn(&["--json"])).collect();
    let mut outcomes = Vec::new();
    for child in children {
        let output = child.wait_with_output().unwrap();
        match output.status.code() {
            Some(0) => {
                let json: Value = serde_json::from_slice(&output.stdout).unwrap();
                outcomes.push(json["outcome"].as_str().unwrap().to_owned());
            }
            _ => outcomes.push(text(&output)),
        }
    }
    assert_eq!(rotating.mx.count("rotateApiKey"), 1, "{outcomes:#?}");
    assert_eq!(outcomes.iter().filter(|outcome| *outcome == "done").count(), 1, "{outcomes:#?}");
    rotating.over();
}
