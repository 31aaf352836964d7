//! The running gateway rotates by itself: a key that has reached its age, and what another run has left.

use std::{sync::Arc, time::SystemTime};

use mxgate::{
    stand_in::hold::Point,
    vault::{
        embedded::{self, Entries, Identity},
        secret::Secret,
    },
};

use super::vault::Rotating;
use crate::harness::{API_KEY, PATIENCE, Setup, until};

const SCHEDULED: &str = "wait_min_ms = 0, lease_ms = 8_000, schedule_days = 60";

/// Writes down that a rotation has brought the vault's key so many days ago.
fn made_before(rotating: &Rotating, days: u64) {
    let identity = format!("file:{}", rotating.folder().join("identity").display()).parse().unwrap();
    let identity = Identity::load(&identity).unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let fingerprint = Secret::new(API_KEY.into()).unwrap().fingerprint();
    let record = serde_json::json!({
        "format": 1, "fence": 1, "state": { "step": "idle" },
        "last": { "made": now - days * 86_400, "old": "01020304", "new": fingerprint.to_string() },
    });
    let record = Arc::new(Secret::new(record.to_string().into_bytes()).unwrap());
    let note = |entries: &mut Entries<'_>| entries.note("rotation/test", record).map(drop);
    embedded::update(&rotating.folder().join("vault.age"), &identity, None, note).unwrap();
}

#[test]
fn a_key_that_has_reached_its_age_is_rotated_and_a_younger_one_is_not() {
    for (days, rotates) in [(59, false), (61, true)] {
        let mut rotating = Rotating::with(Setup::control, SCHEDULED);
        made_before(&rotating, days);
        let gateway = rotating.start();
        until("it has looked", || gateway.status()["rotations"][0]["environment"] == "test");
        if !rotates {
            assert_eq!(gateway.metric("mxgate_credential_age_seconds") as u64 / 86_400, days);
            assert_eq!((rotating.primary(), rotating.mx.count("rotateApiKey")), (API_KEY.to_owned(), 0));
            continue;
        }
        gateway.stderr.wait_for(|line| line.contains("rotated the key"));
        let new = rotating.over();
        assert_ne!(new, API_KEY);
        assert_eq!(rotating.mx.count("rotateApiKey"), 1);
        until("it has looked again", || gateway.metric("mxgate_credential_age_seconds") < 600.0);
        assert_eq!(gateway.get("/users", "").status, 200);
        assert_eq!(gateway.status()["rotations"][0]["step"], "idle");
        assert!(gateway.command(&["status"]).unwrap().contains("test: 0 days old"));
        assert!(!gateway.stderr.text().contains(&new));
    }
}

#[test]
fn what_a_killed_run_has_left_is_taken_up_and_a_lost_key_is_left_to_an_operator() {
    for (point, operation, passing, unknown) in
        [(Point::Before, "listInstitutions", 1, false), (Point::After, "rotateApiKey", 0, true)]
    {
        let mut rotating = Rotating::with(Setup::control, SCHEDULED);
        let held = rotating.mx.hold(operation, point, passing);
        let mut child = rotating.spawn(&[]);
        assert!(held.wait(PATIENCE), "the request has come");
        child.kill().unwrap();
        child.wait().unwrap();
        drop(held);
        let gateway = rotating.start();
        if unknown {
            gateway.stderr.wait_for(|line| line.contains("secondary unknown"));
            until("it is shown", || {
                gateway.metric("mxgate_rotation_open{environment=\"test\",step=\"unknown\"}") > 0.0
            });
            assert!(gateway.metric("mxgate_rotation_warnings") >= 1.0);
            assert!(gateway.command(&["status"]).unwrap().contains("WARNING: secondary unknown"));
            assert_eq!(rotating.mx.count("rotateApiKey"), 1);
        } else {
            gateway.stderr.wait_for(|line| line.contains("rotated the key"));
            rotating.over();
        }
        assert_eq!(gateway.get("/users", "").status, 200);
    }
}

#[test]
fn a_gateway_that_is_told_to_stop_waits_for_a_key_that_mx_hands_over() {
    let mut rotating =
        Rotating::with(Setup::control, "wait_min_ms = 0, lease_ms = 60_000, schedule_days = 60");
    made_before(&rotating, 61);
    let held = rotating.mx.hold("rotateApiKey", Point::After, 0);
    let mut gateway = rotating.start();
    assert!(held.wait(PATIENCE), "MX has made the key");
    gateway.signal("TERM");
    gateway.stderr.wait_for(|line| line.contains("\"stopping\""));
    drop(held);
    assert!(gateway.wait().success());
    let status = rotating.status();
    assert!(status["secondary"].is_string(), "the new key is sealed: {status}");
    assert_ne!(status["step"], "calling");
    assert_eq!(rotating.mx.count("rotateApiKey"), 1);
}
