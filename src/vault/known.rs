//! What is known of one secret: its last good value, until when that may be used, and how the last look went.
//!
//! In: what each look at its source came to. Out: whether that changes anything. Pure but for the log, in which a
//! change for the worse is an alarm, once.
//! What must never happen: a value that is no secret takes the place of a good one; a look that failed lengthens a
//! grace; a revoked secret comes back without its source's word, or goes on in a value from before.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use super::{
    Error, Read, Resolved, chain,
    freshness::{Deadline, Moment},
    source::Reason,
};
use crate::config::Refresh;

/// One secret.
#[derive(Debug)]
pub(super) struct Known {
    /// For the log.
    name: String,
    refresh: Refresh,
    /// Whether nobody misses it when its source says that there is none.
    may_be_absent: bool,
    /// The last value that was fit.
    good: Option<Resolved>,
    /// Of values from before, for as long as somebody uses them: a snapshot with the next one may not be had.
    earlier: Vec<Weak<Deadline>>,
    /// When its source last said so.
    confirmed: Option<Moment>,
    /// Since then its source said that there is none.
    revoked: bool,
    /// Why the last look failed; `None` when it did not.
    fault: Option<Arc<Error>>,
    attempted: bool,
    failures: [u64; Reason::ALL.len()],
    told_end: bool,
}

/// What a look at a secret's source came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noted {
    /// The same as before; its time begins anew.
    Confirmed,
    /// Another value, or the first.
    Changed,
    /// No value.
    Failed,
}

impl Known {
    pub(super) fn new(name: String, refresh: Refresh) -> Self {
        Self {
            name,
            refresh,
            may_be_absent: false,
            good: None,
            earlier: Vec::new(),
            confirmed: None,
            revoked: false,
            fault: None,
            attempted: false,
            failures: Default::default(),
            told_end: false,
        }
    }

    pub(super) fn set_may_be_absent(&mut self, may_be_absent: bool) {
        self.may_be_absent = may_be_absent;
    }

    /// Takes up how long it may be used from its last confirmation on.
    pub(super) fn set_refresh(&mut self, refresh: Refresh) {
        if self.refresh == refresh {
            return;
        }
        self.refresh = refresh;
        if let (Some(good), Some(confirmed), false) = (&self.good, self.confirmed, self.revoked) {
            good.deadline.confirm(confirmed, self.refresh.limit());
        }
    }

    /// Takes in what was read at `now`.
    pub(super) fn note(&mut self, outcome: Result<Read, Arc<Error>>, now: Moment) -> Noted {
        self.attempted = true;
        match outcome {
            Ok(read) => self.read(read, now),
            Err(fault) => {
                self.failed(fault, now);
                Noted::Failed
            }
        }
    }

    fn read(&mut self, read: Read, now: Moment) -> Noted {
        let same = |good: &&mut Resolved| good.secret == read.secret && good.hosts == read.hosts;
        let noted = match self.good.as_mut().filter(same) {
            Some(good) => {
                good.version = read.version;
                good.deadline.confirm(now, self.refresh.limit());
                Noted::Confirmed
            }
            None => {
                // A cell of its own: whoever still has the old value keeps to the old value's time.
                let deadline = Arc::new(Deadline::never());
                deadline.confirm(now, self.refresh.limit());
                let before = self.good.replace(Resolved::new(read, deadline));
                self.earlier.retain(|earlier| earlier.strong_count() > 0);
                self.earlier.extend(before.map(|before| Arc::downgrade(&before.deadline)));
                Noted::Changed
            }
        };
        let was_doubtful = self.fault.take().is_some() || self.revoked;
        if was_doubtful && self.confirmed.is_some() {
            tracing::info!(reference = self.name, "the secret is confirmed again");
        }
        (self.confirmed, self.revoked, self.told_end) = (Some(now), false, false);
        noted
    }

    fn failed(&mut self, fault: Arc<Error>, now: Moment) {
        let reason = fault.reason();
        let is_allowed = reason == Reason::Absent && self.may_be_absent;
        if let Some(count) = self.failures.get_mut(reason as usize).filter(|_| !is_allowed) {
            *count += 1;
        }
        let before = self.fault.replace(fault.clone()).map(|before| before.reason());
        // What was never there is told by the load that needs it.
        let Some(good) = &self.good else { return };
        let (reference, text) = (&self.name, chain(&*fault));
        if reason == Reason::Absent {
            good.deadline.revoke();
            self.earlier
                .drain(..)
                .filter_map(|earlier| earlier.upgrade())
                .for_each(|earlier| earlier.revoke());
            if !self.revoked && is_allowed {
                tracing::info!(reference, "the secret was taken away, and is used no longer");
            } else if !self.revoked {
                tracing::error!(reference, "the secret is gone from its source, and is used no longer");
            }
            (self.revoked, self.told_end) = (true, true);
        } else if before != Some(reason) {
            match good.deadline.remaining(now).map(|left| left.as_secs()) {
                None => tracing::error!(
                    reference,
                    fault = text,
                    "the secret could not be read; its last good value serves on"
                ),
                Some(left_s) => tracing::error!(
                    reference,
                    fault = text,
                    left_s,
                    "the secret could not be read; its last good value serves until its grace ends"
                ),
            }
        }
    }

    /// Says, once, that its grace is over.
    pub(super) fn tell_end(&mut self, now: Moment) {
        let has_passed = |good: &Resolved| good.deadline.has_passed(|| now);
        if !self.told_end && self.good.as_ref().is_some_and(has_passed) {
            self.told_end = true;
            let fault = self.fault.as_ref().map(|fault| chain(&**fault));
            tracing::error!(
                reference = self.name,
                fault,
                "the secret was not confirmed within its grace, and is used no longer"
            );
        }
    }

    /// The last good value. Its deadline says whether it may be used.
    pub(super) fn good(&self) -> Option<&Resolved> {
        self.good.as_ref()
    }

    /// Why the last look came to nothing.
    pub(super) fn fault(&self) -> Option<&Arc<Error>> {
        self.fault.as_ref()
    }

    /// The same, unless it is as it may be.
    pub(super) fn trouble(&self) -> Option<&Arc<Error>> {
        self.fault.as_ref().filter(|_| !self.is_none())
    }

    /// Whether its source says that there is none, and nobody misses it.
    pub(super) fn is_none(&self) -> bool {
        self.may_be_absent && self.fault.as_ref().is_some_and(|fault| fault.reason() == Reason::Absent)
    }

    pub(super) fn attempted(&self) -> bool {
        self.attempted
    }

    pub(super) fn revoked(&self) -> bool {
        self.revoked
    }

    /// How long ago its source last confirmed it.
    pub(super) fn age(&self, now: Moment) -> Option<Duration> {
        self.confirmed.map(|confirmed| now.since(confirmed))
    }

    /// Looks that failed, by reason.
    pub(super) fn failures(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::ALL.iter().copied().zip(self.failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Refresh,
        vault::{reference::Reference, secret::Secret, source},
    };

    const GRACE: Duration = Duration::from_secs(60);
    const MS: Duration = Duration::from_millis(1);

    fn known() -> Known {
        let refresh = Refresh { interval: Duration::from_secs(10), grace: GRACE, keep_after: false };
        Known::new("exec:a".into(), refresh)
    }

    fn value(text: &str) -> Result<Read, Arc<Error>> {
        let secret = Arc::new(Secret::new(text.into()).unwrap());
        Ok(Read { secret, hosts: None, version: None })
    }

    fn reference() -> Reference {
        "exec:a".parse().unwrap()
    }

    fn absent() -> Result<Read, Arc<Error>> {
        Err(Arc::new(Error::Absent { reference: reference() }))
    }

    fn unreachable() -> Result<Read, Arc<Error>> {
        let source = Arc::new(source::Error::unreachable(Reason::Timeout, "it is slow"));
        Err(Arc::new(Error::Unreachable { reference: reference(), source }))
    }

    fn usable(known: &Known, now: Moment) -> bool {
        known.good().is_some_and(|good| !good.deadline.has_passed(|| now))
    }

    #[test]
    fn a_value_that_cannot_be_confirmed_serves_within_its_grace_and_not_one_millisecond_longer() {
        let (mut known, start) = (known(), Moment::now());
        assert_eq!(known.note(value("k3y-number-1"), start), Noted::Changed);
        let deadline = known.good().unwrap().deadline.clone();
        for after in [10, 20, 30] {
            assert_eq!(known.note(unreachable(), start.after(Duration::from_secs(after))), Noted::Failed);
        }
        assert!(usable(&known, start.after(GRACE - MS)));
        assert!(!usable(&known, start.after(GRACE)), "a failed look lengthens nothing");
        // Its source is back, with the same value: the snapshot that has it needs not be made anew.
        assert_eq!(known.note(value("k3y-number-1"), start.after(2 * GRACE)), Noted::Confirmed);
        assert!(usable(&known, start.after(3 * GRACE - MS)) && !usable(&known, start.after(3 * GRACE)));
        assert!(Arc::ptr_eq(&deadline, &known.good().unwrap().deadline));
        let counted: Vec<_> = known.failures().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [(Reason::Timeout, 3)]);
    }

    #[test]
    fn what_is_gone_is_used_no_longer_and_comes_back_only_with_its_sources_word() {
        let (mut known, start) = (known(), Moment::now());
        known.note(value("k3y-number-1"), start);
        assert!(usable(&known, start));
        assert_eq!(known.note(absent(), start.after(MS)), Noted::Failed);
        assert!(!usable(&known, start.after(MS)) && known.revoked());
        known.note(unreachable(), start.after(2 * MS));
        assert!(!usable(&known, start.after(2 * MS)), "unreachable is no word of its source");
        known.set_refresh(Refresh { keep_after: true, ..known.refresh });
        assert!(!usable(&known, start.after(2 * MS)), "nor is another configuration");
        assert_eq!(known.note(value("k3y-number-1"), start.after(3 * MS)), Noted::Confirmed);
        assert!(usable(&known, start.after(3 * MS)) && !known.revoked());
    }

    #[test]
    fn another_value_leaves_the_old_one_its_own_time() {
        let (mut known, start) = (known(), Moment::now());
        known.note(value("k3y-number-1"), start);
        let old = known.good().unwrap().deadline.clone();
        assert_eq!(known.note(value("k3y-number-2"), start.after(GRACE / 2)), Noted::Changed);
        assert_eq!(known.note(value("k3y-number-2"), start.after(GRACE)), Noted::Confirmed);
        assert!(old.has_passed(|| start.after(GRACE)));
        assert!(usable(&known, start.after(2 * GRACE - MS)));
    }

    #[test]
    fn what_is_gone_is_gone_for_those_who_have_a_value_from_before() {
        let (mut known, start) = (known(), Moment::now());
        known.set_refresh(Refresh { keep_after: true, ..known.refresh });
        let mut deadline_of = |text: &str| {
            known.note(value(text), start);
            known.good().unwrap().deadline.clone()
        };
        let before = [deadline_of("k3y-number-1"), deadline_of("k3y-number-2")];
        let now = deadline_of("k3y-number-3");
        known.note(unreachable(), start);
        assert!(before.iter().all(|one| !one.has_passed(|| start)), "unreachable is no word of its source");
        known.note(absent(), start);
        assert!(before.iter().chain([&now]).all(|one| one.has_passed(|| start)));
        known.note(value("k3y-number-3"), start);
        assert!(usable(&known, start) && before.iter().all(|one| one.has_passed(|| start)));
    }

    #[test]
    fn other_hosts_are_another_value_and_another_version_is_not() {
        let (mut known, start) = (known(), Moment::now());
        let sealed = |host: &str, version: &str| {
            value("k3y-number-1").map(|read| Read {
                hosts: Some(vec![host.into()]),
                version: Some(version.into()),
                ..read
            })
        };
        assert_eq!(known.note(sealed("a.example", "1"), start), Noted::Changed);
        assert_eq!(known.note(sealed("a.example", "2"), start), Noted::Confirmed);
        assert_eq!(known.good().unwrap().version.as_deref(), Some("2"));
        assert_eq!(known.note(sealed("b.example", "3"), start), Noted::Changed);
    }

    #[test]
    fn another_grace_counts_from_the_last_confirmation() {
        let (mut known, start) = (known(), Moment::now());
        known.note(value("k3y-number-1"), start);
        known.set_refresh(Refresh { grace: GRACE / 2, ..known.refresh });
        assert!(usable(&known, start.after(GRACE / 2 - MS)) && !usable(&known, start.after(GRACE / 2)));
        known.set_refresh(Refresh { keep_after: true, ..known.refresh });
        assert!(usable(&known, start.after(1000 * GRACE)));
    }
}
