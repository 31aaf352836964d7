//! `--dry-run`: what a run would do from here, step by step. Nothing is called and nothing written.

use super::{
    Order, Settings,
    state::{OVERLAP_S, State},
    store::Contents,
    words::{self, date},
};

/// The steps of a run, or the one reason why there are none.
pub(crate) fn plan(
    settings: &Settings,
    order: &Order,
    contents: &Contents,
    places: &[String; 2],
    now: u64,
) -> Vec<String> {
    let [primary, secondary] = places;
    let keep_old = order.keep_old.unwrap_or(settings.keep_old);
    let mut steps = Vec::new();
    if let Some(lock) = contents.record.locked_by_another(&order.owner, now) {
        steps.push(format!("wait for the lock of {}, until {} at most", lock.owner, date(lock.until)));
    }
    steps.push("take the lock in the vault, which proves that it can be written".to_owned());
    let call = [
        format!("read once from MX with the key in {primary}"),
        "record that MX is being asked, and ask it for a new key, once".to_owned(),
        format!("seal the new key into {secondary}"),
    ];
    let start = match &contents.record.state {
        State::Kept { made, .. } if keep_old && now < made + OVERLAP_S => {
            return vec![format!("nothing: the old key is kept until {}", date(made + OVERLAP_S))];
        }
        State::Unknown { .. } | State::Calling { .. } if !order.replace_unknown => {
            steps.push("take the new key from the recovery file, if there is one; otherwise stop: whether MX has made a key is unknown".to_owned());
            return steps;
        }
        State::Idle | State::Unknown { .. } | State::Calling { .. } => 0,
        State::Sealed { .. } => 1,
        State::Primary { .. } => 2,
        State::Kept { .. } | State::Retiring { .. } => 3,
    };
    if start == 0 {
        steps.extend(call);
    }
    if start <= 1 {
        steps.push("read once from MX with the new key".to_owned());
        steps.push(format!("let the keys in {primary} and {secondary} change places, in one write"));
    }
    if start <= 2 {
        steps
            .push(format!("wait {}, until every gateway has the new key", words::time(settings.wait(order))));
        steps.push("ask the running gateway, and read once more with the new key".to_owned());
    }
    if keep_old && start <= 2 {
        steps.push(format!("leave the old key in {secondary}; MX deletes it after 30 days"));
    } else {
        steps.push(
            "record that MX is being asked, see that the old key is alive, and ask MX to delete it"
                .to_owned(),
        );
        steps.push(format!("see that it is dead, and empty {secondary}"));
    }
    steps
}
