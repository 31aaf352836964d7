//! Whether the running gateway has something to do about an environment's key: a rotation that is due, one that another
//! run left half way, or nothing. Pure.

use super::{state::State, status::Standing};
use crate::config;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// The key has reached its age.
    Rotation,
    /// A run was left half way, or an old key's 30 days are over.
    Rest,
}

/// What is due at `now` (Unix time); `None` without a schedule, while somebody is at work, and where only an operator
/// may decide.
pub(crate) fn due(standing: &Standing, settings: &config::Rotation, now: u64) -> Option<Due> {
    let schedule = settings.schedule?;
    if standing.locked.is_some() {
        return None;
    }
    match standing.step.as_str() {
        step if step == State::Idle.step() => {
            let is_old = standing.age(now).is_some_and(|age| age >= schedule);
            // MX would kill the key in use.
            (is_old && standing.old_until.is_none()).then_some(Due::Rotation)
        }
        "kept" => standing.old_until.is_none().then_some(Due::Rest),
        // Nobody but an operator asks MX again after a key was lost.
        "unknown" => None,
        _ => Some(Due::Rest),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const DAY: u64 = 24 * 60 * 60;

    fn settings(schedule_days: Option<u64>) -> config::Rotation {
        config::Rotation {
            client_guid: Some("CLT-1".into()),
            schedule: schedule_days.map(|days| Duration::from_secs(days * DAY)),
            keep_old: false,
            warn_after: Duration::from_secs(90 * DAY),
            wait_min: Duration::ZERO,
            lease: Duration::from_secs(120),
        }
    }

    fn standing(step: &str) -> Standing {
        Standing {
            environment: "test".into(),
            step: step.into(),
            primary: None,
            secondary: None,
            made: Some(0),
            old_until: None,
            locked: None,
            warnings: Vec::new(),
        }
    }

    #[test]
    fn a_key_of_the_age_is_due_and_a_younger_one_or_one_without_a_schedule_is_not() {
        let due_at = |days, now| due(&standing("idle"), &settings(days), now);
        assert_eq!(due_at(Some(60), 60 * DAY - 1), None);
        assert_eq!(due_at(Some(60), 60 * DAY), Some(Due::Rotation));
        assert_eq!(due_at(None, 600 * DAY), None);
        let unknown_age = Standing { made: None, ..standing("idle") };
        assert_eq!(due(&unknown_age, &settings(Some(60)), 600 * DAY), None);
    }

    #[test]
    fn what_was_left_half_way_is_taken_up_unless_somebody_is_at_work_or_must_decide() {
        let of = |standing: &Standing| due(standing, &settings(Some(60)), DAY);
        for step in ["calling", "sealed", "primary", "retiring"] {
            assert_eq!(of(&standing(step)), Some(Due::Rest), "{step}");
            let locked = Standing { locked: Some(("a".into(), 2 * DAY)), ..standing(step) };
            assert_eq!(of(&locked), None, "{step}");
        }
        assert_eq!(of(&standing("unknown")), None);
        assert_eq!(of(&standing("kept")), Some(Due::Rest), "its 30 days are over");
        let kept = Standing { old_until: Some(2 * DAY), ..standing("kept") };
        assert_eq!(of(&kept), None);
        let old_key_lives = Standing { old_until: Some(70 * DAY), ..standing("idle") };
        assert_eq!(due(&old_key_lives, &settings(Some(60)), 65 * DAY), None);
    }
}
