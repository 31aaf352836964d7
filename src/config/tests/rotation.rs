//! `[environment.NAME.rotation]`: what can be rotated by a schedule, and what cannot.

use std::time::Duration;

use super::{assert_accepted, assert_fault, parse, with};

const PAIR: &str = "vault:production/api_key\", secondary_api_key = \"vault:production/secondary";
const VAULT: &str = "[vault]\nkind = \"file\"\npath = \"/v\"\nidentity = \"file:/id\"\n";

/// With this reference (or pair of them) and these keys of the rotation.
fn file(keys: &str, rotation: &str) -> String {
    format!("{}rotation = {{ {rotation} }}\n{VAULT}", with("env:MX_API_KEY", keys))
}

#[test]
fn a_schedule_needs_the_clients_name_and_two_keys_in_the_vault() {
    assert_accepted(&file(PAIR, "client_guid = \"CLT-1\", schedule_days = 60"), &[]);
    assert_accepted(&file(PAIR, "warn_days = 30"), &[]);
    assert_fault(
        &file(PAIR, "schedule_days = 60"),
        "rotation.schedule_days: needs client_guid, by which MX's rotation API names the client; \
         add client_guid, or leave it out",
    );
    assert_fault(
        &file("vault:production/api_key", "client_guid = \"CLT-1\", schedule_days = 60"),
        "rotation.schedule_days: needs a credential with api_key and secondary_api_key; \
         add secondary_api_key, where a new key is sealed first",
    );
    for keys in ["env:A\", secondary_api_key = \"env:B", "vault:a\", secondary_api_key = \"file:/b"] {
        assert_fault(
            &file(keys, "client_guid = \"CLT-1\", schedule_days = 60"),
            "rotation.schedule_days: needs both keys in one vault that mxgate can write; \
             expected two vault: references, or two fields of one openbao: or aws: document",
        );
        // An operator is told so by the command.
        assert_accepted(&file(keys, "client_guid = \"CLT-1\""), &[]);
    }
}

#[test]
fn a_client_guid_is_one_segment_of_a_path() {
    for guid in ["CLT-1", "a_b", "123"] {
        assert_accepted(&file(PAIR, &format!("client_guid = \"{guid}\"")), &[]);
    }
    for guid in ["", "a/b", "a b", "..", "a%2Fb", "a?b", "ä"] {
        assert_fault(
            &file(PAIR, &format!("client_guid = \"{guid}\"")),
            "rotation.client_guid: is no client guid; letters, digits, - and _, such as \"CLT-123\"",
        );
    }
}

#[test]
fn another_api_has_no_rotation_and_a_late_schedule_is_probably_not_meant() {
    let elsewhere = file("env:A", "client_guid = \"CLT-1\"")
        .replace("rotation =", "url = \"https://other.example\"\npaths = [\"GET /x\"]\nrotation =");
    assert_accepted(
        &elsewhere.replace("\"read\"", "\"paths\""),
        &["warning: environment.production.rotation.client_guid: does nothing beside paths: \
           the rotation of keys is MX's Platform API's"],
    );
    assert_accepted(
        &file(PAIR, "client_guid = \"CLT-1\", schedule_days = 90"),
        &["warning: environment.production.rotation.schedule_days: is not shorter than warn_days, \
           so each rotation is preceded by a warning"],
    );
}

#[test]
fn days_and_milliseconds_become_durations_and_all_has_a_default() {
    let rotation = |text: &str| {
        let loaded = parse(text).unwrap();
        loaded.config.environments["production"].rotation.clone()
    };
    let day = Duration::from_secs(86_400);
    let default = rotation(super::SMALLEST);
    assert_eq!((default.client_guid.as_deref(), default.schedule, default.keep_old), (None, None, false));
    assert_eq!(
        (default.warn_after, default.wait_min, default.lease),
        (90 * day, Duration::from_secs(10), Duration::from_secs(120))
    );
    let all = "client_guid = \"C\", schedule_days = 7, keep_old = true, warn_days = 14, wait_min_ms = 1, lease_ms = 1000";
    let set = rotation(&file(PAIR, all));
    assert_eq!((set.client_guid.as_deref(), set.schedule, set.keep_old), (Some("C"), Some(7 * day), true));
    assert_eq!(
        (set.warn_after, set.wait_min, set.lease),
        (14 * day, Duration::from_millis(1), Duration::from_secs(1))
    );
}
