//! The keys are two fields of one entry of a real OpenBao server.

use std::{sync::Arc, thread};

use mxgate::stand_in::hold::Point;
use serde_json::{Value, json};

use super::{
    assert_done, no_request_fails, text,
    vault::{Bao, Rotating},
};
use crate::harness::{API_KEY, PATIENCE, until};

#[test]
fn under_load_no_request_fails_and_the_fields_of_others_stay() {
    let bao = Bao::start();
    let server = &bao.server;
    let rotating = Rotating::in_openbao(&bao, "load");
    let told = rotating.rotate(&["--status"]);
    assert!(text(&told).contains("0 days old"), "{}", text(&told));
    no_request_fails(rotating);
    let document = server.get("secret/data/mx/load");
    let names: Vec<&String> = document.as_object().unwrap().keys().collect();
    assert_eq!(names, ["api_key", "mxgate_rotation_test", "note"]);
    assert_eq!(document["note"], "of others");
    assert_ne!(document["api_key"], API_KEY);
    assert!(!server.audit_log().contains(API_KEY));
}

#[test]
fn a_key_that_the_sealed_server_cannot_take_is_kept_beside_the_embedded_vault_and_taken_in_later() {
    let bao = Bao::start();
    let server = &bao.server;
    let rotating = Rotating::in_openbao(&bao, "sealed");
    let held = rotating.mx.hold("rotateApiKey", Point::After, 0);
    let child = rotating.spawn(&[]);
    assert!(held.wait(PATIENCE), "MX has made the key");
    server.seal();
    drop(held);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let file = rotating.folder().join("vault.age.recovery-test");
    assert!(text(&output).contains(&file.display().to_string()), "{}", text(&output));
    assert!(std::fs::read(&file).unwrap().starts_with(b"age-encryption.org/v1"));
    // While it is sealed, the next run changes nothing.
    let output = rotating.rotate(&[]);
    assert!(text(&output).contains("sealed"), "{}", text(&output));
    server.unseal();
    assert_eq!(rotating.primary(), API_KEY);
    assert_done(&rotating.rotate(&[]));
    assert_ne!(rotating.over(), API_KEY);
    assert_eq!(rotating.mx.count("rotateApiKey"), 1, "the key was not made twice");
}

#[test]
fn of_many_at_once_one_rotates_and_somebody_who_writes_beside_them_loses_nothing() {
    let bao = Bao::start();
    let server = &bao.server;
    let rotating = Rotating::in_openbao(&bao, "many");
    let children: Vec<_> = (0..4).map(|_| rotating.spawn(&["--json"])).collect();
    // Whoever else changes the entry does so by check-and-set, too.
    let writer = thread::spawn({
        let server = Arc::clone(server);
        move || {
            let was_written = |number: &i32| server.patch("secret/data/mx/many", json!({ "note": number }));
            (0..20).map(|number| (number, was_written(&number))).filter(|(_, was)| *was).max()
        }
    });
    let mut done = 0;
    for child in children {
        let output = child.wait_with_output().unwrap();
        let outcome: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        done += usize::from(outcome["outcome"] == "done");
    }
    let (last, _) = writer.join().unwrap().expect("one of its writes was fast enough");
    // A run that somebody wrote beside stops, and the next goes on.
    if done == 0 {
        assert_done(&rotating.rotate(&[]));
    }
    assert_eq!(rotating.mx.count("rotateApiKey"), 1);
    rotating.over();
    assert_eq!(rotating.document()["note"], last);
}

#[test]
fn what_the_policy_does_not_let_us_write_is_not_rotated() {
    let bao = Bao::start();
    let server = &bao.server;
    let rotating = Rotating::in_openbao(&bao, "denied");
    let policy = "path \"secret/data/mx/*\" { capabilities = [\"read\"] }";
    server.root("PUT", "sys/policies/acl/mxgate", json!({ "policy": policy }));
    let output = rotating.rotate(&[]);
    assert!(text(&output).contains("update"), "{}", text(&output));
    assert_eq!((output.status.code(), rotating.mx.received()), (Some(1), 0));
    assert_eq!(rotating.document(), json!({ "note": "of others", "api_key": API_KEY }));
}

#[test]
fn without_the_second_field_a_gateway_is_ready_and_a_field_that_is_taken_out_is_used_no_longer() {
    let bao = Bao::start();
    let server = &bao.server;
    let mut rotating = Rotating::in_openbao(&bao, "empty");
    let gateway = rotating.start();
    until("it serves", || gateway.get("/users", "").status == 200);
    let second = "openbao:secret/mx/empty#secondary";
    let state = || {
        let status = gateway.status();
        let secrets = status["secrets"].as_array().unwrap().clone();
        secrets.into_iter().find(|secret| secret["reference"] == second).unwrap()["state"].clone()
    };
    assert_eq!(state(), "none");
    server.put("secret/data/mx/empty", json!({ "api_key": API_KEY, "secondary": "the-second-k3y" }));
    until("the second key is known", || state() == "usable");
    server.put("secret/data/mx/empty", json!({ "api_key": API_KEY }));
    until("it is known to be none", || state() == "none");
    assert_eq!(gateway.get("/users", "").status, 200);
    server.put("secret/data/mx/empty", json!({ "note": "no key at all" }));
    until("without the first one nothing is served", || {
        gateway.get("/users", "").code() == "credential_unavailable"
    });
}
