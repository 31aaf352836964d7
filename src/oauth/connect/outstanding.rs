//! How many tickets each caller has that are not over.
//!
//! In: who wants one, and until when it would be good. Out: whether there is room, or when there will be. All callers
//! share what a store keeps of pending records, so that one that asks in a loop would leave none for the others. A
//! ticket counts until its time is over, used or not: callers in order are far below the bound.
//!
//! What must never happen: one caller uses up what all have.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::oauth::store::PENDING_MAX;

/// Of one caller, in one process.
pub(super) const PER_CALLER: usize = PENDING_MAX as usize / 10;

/// Whose tickets end when, in Unix seconds, the first to end in front.
#[derive(Default)]
pub(super) struct Outstanding(Mutex<HashMap<String, VecDeque<u64>>>);

impl Outstanding {
    /// Counts one more. As an error: how long it takes until there is room.
    pub(super) fn add(&self, caller: &str, now: u64, ends: u64) -> Result<(), Duration> {
        let mut all = self.locked();
        let own = all.entry(caller.to_owned()).or_default();
        while own.front().is_some_and(|end| *end <= now) {
            own.pop_front();
        }
        match own.front() {
            Some(end) if own.len() >= PER_CALLER => Err(Duration::from_secs(end.saturating_sub(now))),
            _ => {
                own.push_back(ends);
                Ok(())
            }
        }
    }

    /// The last one was not made after all.
    pub(super) fn undo(&self, caller: &str) {
        self.locked().get_mut(caller).and_then(VecDeque::pop_back);
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<String, VecDeque<u64>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_caller_has_its_share_until_its_tickets_are_over_and_others_have_theirs() {
        let outstanding = Outstanding::default();
        for n in 0..PER_CALLER as u64 {
            assert_eq!(outstanding.add("loop", 100 + n / 500, 700 + n / 500), Ok(()));
        }
        assert_eq!(outstanding.add("loop", 102, 702), Err(Duration::from_secs(598)));
        assert_eq!(outstanding.add("loop", 699, 1299), Err(Duration::from_secs(1)));
        assert_eq!(outstanding.add("ledger", 102, 702), Ok(()));
        assert_eq!(outstanding.add("loop", 700, 1300), Ok(()));
    }

    #[test]
    fn what_was_not_made_does_not_count() {
        let outstanding = Outstanding::default();
        for _ in 0..2 * PER_CALLER {
            assert_eq!(outstanding.add("ledger", 100, 700), Ok(()));
            outstanding.undo("ledger");
        }
    }
}
