use std::sync::Arc;

use super::*;
use crate::{
    rotation::state::{Finished, Lock},
    vault::secret::Secret,
};

const NOW: u64 = 1_800_000_000;

fn settings() -> config::Rotation {
    config::Rotation {
        client_guid: None,
        schedule: None,
        keep_old: false,
        warn_after: Duration::from_secs(90 * DAY_S),
        wait_min: Duration::ZERO,
        lease: Duration::from_secs(120),
    }
}

fn key(text: &str) -> (Option<Arc<Secret>>, String) {
    let key = Arc::new(Secret::new(text.into()).unwrap());
    let fingerprint = key.fingerprint().to_string();
    (Some(key), fingerprint)
}

/// A vault whose primary key was put there so long ago, with this state.
fn standing(days: u64, state: State) -> Standing {
    let contents = Contents {
        version: String::new(),
        primary: key("the-new-key").0,
        secondary: None,
        record: Record { state, ..Record::default() },
        primary_since: Some(NOW - days * DAY_S),
    };
    Standing::of("production", &settings(), &contents, NOW)
}

fn state(step: &str, days: u64) -> State {
    let (old, new, made) = (key("the-old-key").1, key("the-new-key").1, NOW - days * DAY_S);
    match step {
        "unknown" => State::Unknown { old, made },
        "sealed" => State::Sealed { old, new, made },
        "kept" => State::Kept { old, new, made },
        _ => State::Retiring { old, new, made },
    }
}

#[test]
fn a_key_is_warned_of_on_its_day_and_not_before() {
    assert_eq!(standing(89, State::Idle).warnings, [""; 0]);
    let warnings = standing(90, State::Idle).warnings;
    assert_eq!(warnings, ["the key is 90 days old, and 90 are configured as the limit"]);
}

#[test]
fn two_live_keys_are_warned_of_from_day_25_on() {
    assert_eq!(standing(0, state("kept", 24)).warnings, [""; 0]);
    assert_eq!(
        standing(0, state("kept", 25)).warnings,
        ["two keys are live, and MX deletes the old one in 5 days"]
    );
    assert_eq!(standing(0, state("kept", 24)).old_until, Some(NOW + 6 * DAY_S));
    assert_eq!(standing(0, state("kept", 30)).old_until, None);
}

#[test]
fn what_waits_for_somebody_is_warned_of_and_what_is_at_work_is_not() {
    let unknown = standing(0, state("unknown", 1)).warnings;
    assert!(unknown.len() == 1 && unknown[0].contains("--replace-unknown-secondary"), "{unknown:?}");
    let sealed = standing(0, state("sealed", 1)).warnings;
    assert!(sealed.len() == 1 && sealed[0].contains("nobody is at work"), "{sealed:?}");
    let contents = Contents {
        version: String::new(),
        primary: key("the-old-key").0,
        secondary: key("the-new-key").0,
        record: Record {
            state: state("sealed", 0),
            lock: Some(Lock { owner: "host/1/00".into(), until: NOW + 1 }),
            ..Record::default()
        },
        primary_since: None,
    };
    let at_work = Standing::of("production", &settings(), &contents, NOW);
    assert_eq!(
        (at_work.warnings.as_slice(), &at_work.locked),
        (&[][..], &Some(("host/1/00".into(), NOW + 1)))
    );
    let left = Standing::of("production", &settings(), &contents, NOW + 1);
    assert_eq!((left.warnings.len(), left.locked), (1, None));
}

#[test]
fn an_age_counts_from_mxs_answer_and_otherwise_from_the_entry() {
    let last = |new: &str| Finished {
        made: NOW - 3 * DAY_S,
        old: key("the-old-key").1,
        new: key(new).1,
        old_until: None,
    };
    let of = |last| {
        let contents = Contents {
            version: String::new(),
            primary: key("the-new-key").0,
            secondary: None,
            record: Record { last: Some(last), ..Record::default() },
            primary_since: Some(NOW - DAY_S),
        };
        Standing::of("production", &settings(), &contents, NOW).age(NOW).unwrap().as_secs() / DAY_S
    };
    assert_eq!(of(last("the-new-key")), 3);
    assert_eq!(of(last("another-key")), 1, "a key that was set by hand since");
}

#[test]
fn people_see_what_matters_and_no_key() {
    let text = standing(91, state("kept", 25)).text(NOW);
    for part in [
        "environment    production\n",
        "rotation       kept\n",
        "25 days old\n",
        "secondary key  none\n",
        "old key        may work at MX until 20",
        "WARNING        two keys are live",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(!text.contains("the-new-key"));
}
