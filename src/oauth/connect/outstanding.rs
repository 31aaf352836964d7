//! How many tickets and consents under way each caller has.
//!
//! In: who wants a ticket, and until when it would be good; what became of it. Out: whether there is room, or when there may
//! be. All callers share what a store keeps of pending records, so that one that asks in a loop, and presses the buttons
//! itself, would leave none for the others.
//!
//! A ticket counts until it is taken or its time is over. The consent that a browser begins with it counts from then on, until
//! the browser is back or that time is over. This process counts what it has seen since it started: a consent that begins
//! here with another replica's ticket counts here as well as there, and is never refused, since a user is waiting for it.
//!
//! What must never happen: one caller uses up what all have.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::oauth::store::{PENDING_MAX, PendingName};

/// Of one caller, in one process.
pub(super) const PER_CALLER: usize = PENDING_MAX as usize / 10;

/// By caller.
#[derive(Default)]
pub(super) struct Outstanding(Mutex<HashMap<String, Own>>);

/// What one caller has, and when it ends, in Unix seconds.
#[derive(Default)]
struct Own {
    ends: HashMap<PendingName, u64>,
    /// The same, the first to end in front: tickets and consents have different lives.
    in_order: BTreeSet<(u64, PendingName)>,
}

impl Outstanding {
    /// Counts a ticket. As an error: how long it takes until there may be room.
    pub(super) fn ordered(
        &self,
        caller: &str,
        ticket: PendingName,
        now: u64,
        ends: u64,
    ) -> Result<(), Duration> {
        let mut all = self.locked();
        let own = all.entry(caller.to_owned()).or_default();
        own.forget_over(now);
        match own.in_order.first() {
            Some((end, _)) if own.ends.len() >= PER_CALLER => {
                Err(Duration::from_secs(end.saturating_sub(now)))
            }
            _ => {
                own.add(ticket, ends);
                Ok(())
            }
        }
    }

    /// A ticket was taken: instead of it, the consent that it began counts.
    pub(super) fn begun(&self, caller: &str, ticket: PendingName, state: PendingName, now: u64, ends: u64) {
        let mut all = self.locked();
        let own = all.entry(caller.to_owned()).or_default();
        own.forget_over(now);
        own.remove(ticket);
        own.add(state, ends);
    }

    /// It is pending no longer, or was not stored after all.
    pub(super) fn ended(&self, caller: &str, name: PendingName) {
        if let Some(own) = self.locked().get_mut(caller) {
            own.remove(name);
        }
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<String, Own>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Own {
    fn add(&mut self, name: PendingName, ends: u64) {
        self.ends.insert(name, ends);
        self.in_order.insert((ends, name));
    }

    fn remove(&mut self, name: PendingName) {
        if let Some(ends) = self.ends.remove(&name) {
            self.in_order.remove(&(ends, name));
        }
    }

    fn forget_over(&mut self, now: u64) {
        while let Some((ends, name)) = self.in_order.first().copied()
            && ends <= now
        {
            self.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{oauth::store::pending::Kind, vault::secret::Secret};

    fn name(kind: Kind, n: usize) -> PendingName {
        PendingName::of(kind, &Secret::new(format!("canary-of-its-own-{n}").into()).unwrap())
    }

    fn ticket(n: usize) -> PendingName {
        name(Kind::Ticket, n)
    }

    fn state(n: usize) -> PendingName {
        name(Kind::State, n)
    }

    /// `loop` has all that it may have, and its first half ends a second before its second one.
    fn full() -> Outstanding {
        let outstanding = Outstanding::default();
        for n in 0..PER_CALLER {
            let later = u64::from(n >= PER_CALLER / 2);
            assert_eq!(outstanding.ordered("loop", ticket(n), 100 + later, 700 + later), Ok(()));
        }
        outstanding
    }

    fn wait(seconds: u64) -> Result<(), Duration> {
        Err(Duration::from_secs(seconds))
    }

    #[test]
    fn one_caller_has_its_share_until_its_tickets_are_over_and_others_have_theirs() {
        let outstanding = full();
        let more = |caller, now| outstanding.ordered(caller, ticket(PER_CALLER), now, now + 600);
        assert_eq!(more("loop", 102), wait(598));
        assert_eq!(more("loop", 699), wait(1));
        assert_eq!(more("ledger", 102), Ok(()));
        assert_eq!(more("loop", 700), Ok(()));
    }

    #[test]
    fn a_ticket_that_is_taken_counts_as_its_consent_until_that_ends() {
        let outstanding = full();
        let more = |now| outstanding.ordered("loop", ticket(PER_CALLER), now, now + 600);
        outstanding.begun("loop", ticket(7), state(7), 102, 150);
        assert_eq!(more(103), wait(47), "a consent that ends before all tickets");
        outstanding.ended("loop", state(7));
        assert_eq!(more(103), Ok(()), "it came back");
        outstanding.begun("loop", ticket(8), state(8), 103, 150);
        assert_eq!(outstanding.ordered("loop", ticket(9_000), 149, 749), wait(1));
        assert_eq!(outstanding.ordered("loop", ticket(9_000), 150, 750), Ok(()), "it never came back");
        assert_eq!(outstanding.ordered("loop", ticket(9_001), 150, 750), wait(550));
    }

    #[test]
    fn a_long_life_hides_no_end_of_a_shorter_one() {
        let outstanding = Outstanding::default();
        assert_eq!(outstanding.ordered("loop", ticket(0), 100, 86_500), Ok(()));
        for n in 1..PER_CALLER {
            assert_eq!(outstanding.ordered("loop", ticket(n), 100, 700), Ok(()));
        }
        assert_eq!(outstanding.ordered("loop", ticket(PER_CALLER), 101, 701), wait(599));
        assert_eq!(outstanding.ordered("loop", ticket(PER_CALLER), 700, 1300), Ok(()));
        assert_eq!(outstanding.locked()["loop"].ends.len(), 2);
    }

    /// It was ordered at another replica, or before a restart.
    #[test]
    fn a_consent_counts_also_where_its_ticket_did_not() {
        let outstanding = full();
        outstanding.begun("loop", ticket(9_000), state(9_000), 102, 800);
        outstanding.ended("loop", ticket(0));
        assert_eq!(outstanding.ordered("loop", ticket(0), 103, 703), wait(597));
        outstanding.ended("loop", ticket(1));
        assert_eq!(outstanding.ordered("loop", ticket(0), 103, 703), Ok(()));
    }

    #[test]
    fn what_was_not_made_does_not_count() {
        let outstanding = Outstanding::default();
        for n in 0..2 * PER_CALLER {
            assert_eq!(outstanding.ordered("ledger", ticket(n), 100, 700), Ok(()));
            outstanding.ended("ledger", ticket(n));
        }
        assert!(outstanding.locked()["ledger"].in_order.is_empty());
    }
}
