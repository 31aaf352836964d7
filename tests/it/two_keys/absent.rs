//! A second key that is configured and not there, as a rotation leaves it.

use std::process::Output;

use super::naming_two_keys;
use crate::harness::{Setup, mx, mxgate, until};

#[test]
fn nobody_misses_a_second_key_that_is_not_there_and_everybody_a_first_one() {
    let mx = mx();
    let mut setup = naming_two_keys(Setup::new(&mx));
    setup.tables = setup.tables.replace("[health]\n", "[health]\nready_needs_vault = true\n");
    let file = setup.folder().join("mxgate.toml").display().to_string();
    setup.file("mxgate.toml", &setup.configuration());
    let check = || mxgate(&["check", "--online", &file], &[]);
    let doctor = || mxgate(&["--json", "doctor", "--config", &file], &[]);
    let said = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(check().status.success(), "{}", said(&check()));
    assert!(said(&doctor()).contains("there is none, and none is needed"), "{}", said(&doctor()));
    assert!(!said(&doctor()).contains("secret_absent"), "{}", said(&doctor()));

    let gateway = setup.start();
    until("it is ready", || gateway.page("/readyz").status == 200);
    let metrics = gateway.page("/metrics").text();
    let usable: Vec<_> = metrics.lines().filter(|line| line.starts_with("mxgate_secret_usable{")).collect();
    assert!(usable.iter().any(|line| line.contains("/key\"} 1")), "{usable:#?}");
    assert!(!usable.iter().any(|line| line.contains("/second\"")), "{usable:#?}");
    std::fs::remove_file(gateway.setup.folder().join("key")).unwrap();
    until("it is not ready", || gateway.page("/readyz").status == 503);
    assert_eq!(check().status.code(), Some(3));
    assert!(said(&doctor()).contains("secret_absent"), "{}", said(&doctor()));
}
