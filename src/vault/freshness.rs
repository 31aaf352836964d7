//! Until when a secret may be used without being confirmed.
//!
//! In: when its source last confirmed it, and how long it may be used after that. Out: a [`Deadline`], which every
//! request compares with the clocks. It is one cell that all snapshots with this version of the secret share, so that a
//! confirmation moves it and builds nothing anew, and a revocation is in force with the next request.
//!
//! Wall clock and boot clock both count, whichever ends first: the wall clock may be set back, the boot clock starts
//! anew with the machine, and it alone goes on evenly, also while the machine sleeps.
//! What must never happen: a secret is used after its time, or once it was revoked, by any of the two clocks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use rustix::time::{ClockId, clock_gettime};

/// One point in time by both clocks, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Since 1970.
    wall: u64,
    /// Since the machine was started.
    boot: u64,
}

impl Moment {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        Self::at(SystemTime::now())
    }

    /// Now, where the wall clock was read already.
    #[must_use]
    pub fn at(wall: SystemTime) -> Self {
        let wall = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let boot = clock_gettime(ClockId::Boottime);
        let boot = u64::try_from(boot.tv_sec).unwrap_or_default() * 1000
            + u64::try_from(boot.tv_nsec).unwrap_or_default() / 1_000_000;
        Self { wall: millis(wall), boot }
    }

    /// Both clocks so much later.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        let more = millis(duration);
        Self { wall: self.wall.saturating_add(more), boot: self.boot.saturating_add(more) }
    }

    /// How long ago `earlier` was; the longer of the two, when the clocks disagree.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        let of = |now: u64, then: u64| now.saturating_sub(then);
        Duration::from_millis(of(self.wall, earlier.wall).max(of(self.boot, earlier.boot)))
    }
}

/// A time that no clock reaches.
const NEVER: u64 = u64::MAX;

/// When one version of a secret may be used no longer. One thread at a time moves it, and every worker reads it.
#[derive(Debug)]
pub struct Deadline {
    wall: AtomicU64,
    boot: AtomicU64,
}

impl Deadline {
    /// One that does not come.
    #[must_use]
    pub fn never() -> Self {
        Self { wall: NEVER.into(), boot: NEVER.into() }
    }

    /// The secret was confirmed at `now` and may be used for `grace` from then on; `None`: until it is revoked.
    pub fn confirm(&self, now: Moment, grace: Option<Duration>) {
        let end = grace.map_or(Moment { wall: NEVER, boot: NEVER }, |grace| now.after(grace));
        // Whoever reads one of them before and one after takes the earlier end.
        self.wall.store(end.wall, Relaxed);
        self.boot.store(end.boot, Relaxed);
    }

    /// It may not be used from now on.
    pub fn revoke(&self) {
        self.boot.store(0, Relaxed);
        self.wall.store(0, Relaxed);
    }

    /// Whether it may be used no longer. The clocks are read only where there is an end.
    #[inline]
    pub fn has_passed(&self, now: impl FnOnce() -> Moment) -> bool {
        let (wall, boot) = (self.wall.load(Relaxed), self.boot.load(Relaxed));
        if boot == NEVER && wall == NEVER {
            return false;
        }
        let now = now();
        now.wall >= wall || now.boot >= boot
    }

    /// How long it may be used still; `None`: without an end.
    #[must_use]
    pub fn remaining(&self, now: Moment) -> Option<Duration> {
        let (wall, boot) = (self.wall.load(Relaxed), self.boot.load(Relaxed));
        if boot == NEVER && wall == NEVER {
            return None;
        }
        let left = wall.saturating_sub(now.wall).min(boot.saturating_sub(now.boot));
        Some(Duration::from_millis(left))
    }
}

/// A deadline at one worker, whose requests count on that worker alone how many of them carry it.
#[derive(Debug)]
pub(crate) struct Term(pub(crate) Arc<Deadline>);

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(NEVER - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Moment = Moment { wall: 1_700_000_000_000, boot: 5_000_000 };
    const GRACE: Duration = Duration::from_secs(60);
    const MS: Duration = Duration::from_millis(1);

    fn confirmed() -> Deadline {
        let deadline = Deadline::never();
        deadline.confirm(START, Some(GRACE));
        deadline
    }

    fn passed(deadline: &Deadline, now: Moment) -> bool {
        deadline.has_passed(|| now)
    }

    #[test]
    fn it_is_used_until_its_time_and_not_one_millisecond_after() {
        let deadline = confirmed();
        assert!(!passed(&deadline, START));
        assert!(!passed(&deadline, START.after(GRACE - MS)));
        assert!(passed(&deadline, START.after(GRACE)));
        assert!(passed(&deadline, START.after(GRACE + MS)));
        assert_eq!(deadline.remaining(START.after(GRACE - MS)), Some(MS));
        assert_eq!(deadline.remaining(START.after(GRACE + MS)), Some(Duration::ZERO));
    }

    #[test]
    fn either_clock_ends_it() {
        let deadline = confirmed();
        let late = START.after(GRACE);
        // The wall clock was set back an hour, or set forward.
        assert!(passed(&deadline, Moment { wall: START.wall - 3_600_000, ..late }));
        assert!(passed(&deadline, Moment { boot: START.boot, ..late }));
        assert!(!passed(&deadline, Moment { wall: START.wall - 3_600_000, ..START }));
    }

    #[test]
    fn a_confirmation_moves_it_and_a_revocation_ends_it_at_once() {
        let deadline = confirmed();
        deadline.confirm(START.after(GRACE / 2), Some(GRACE));
        assert!(!passed(&deadline, START.after(GRACE)));
        assert!(passed(&deadline, START.after(GRACE + GRACE / 2)));
        deadline.revoke();
        assert!(passed(&deadline, START));
        deadline.confirm(START, None);
        assert!(!passed(&deadline, START.after(Duration::from_secs(1 << 40))));
        deadline.revoke();
        assert!(passed(&deadline, START), "also one without an end");
    }

    #[test]
    fn without_an_end_no_clock_is_read() {
        assert!(!Deadline::never().has_passed(|| panic!("a clock was read")));
        assert_eq!(Deadline::never().remaining(START), None);
    }

    #[test]
    fn both_clocks_go_on() {
        let before = Moment::now();
        assert!(before.wall > 1_600_000_000_000 && before.boot > 0);
        let after = Moment::now();
        assert!(after.boot >= before.boot);
        assert!(after.since(before) < Duration::from_secs(10));
    }
}
