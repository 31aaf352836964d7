//! A token bucket in one atomic.
//!
//! The generic cell rate algorithm (ITU-T I.371): instead of tokens and when they were last counted, it keeps the time
//! at which the bucket will be full again. One comparison decides, one compare-and-swap takes, and both together are
//! shorter than what a crate needs around them: `governor` brings its own clock, a second reading of it for each
//! request, and fixed rates, where a budget is halved for a while.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::config::limits;

/// Requests over time: in any time at most its share of the rate, and once the burst.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Rate {
    /// When the bucket will be full again, in nanoseconds since `epoch`.
    full_at: AtomicU64,
    epoch: Instant,
    /// One token's time in nanoseconds, rounded up: the bound is never passed.
    interval: u64,
    settings: limits::Rate,
}

impl Rate {
    /// `previous` itself if nothing changed; else a full bucket.
    pub(super) fn new(settings: Option<limits::Rate>, previous: Option<&Arc<Self>>) -> Option<Arc<Self>> {
        let settings = settings?;
        if let Some(previous) = previous.filter(|previous| previous.settings == settings) {
            return Some(previous.clone());
        }
        Some(Arc::new(Self {
            full_at: AtomicU64::new(0),
            epoch: Instant::now(),
            interval: 1_000_000_000_u64.div_ceil(u64::from(settings.per_second.max(1))),
            settings,
        }))
    }

    /// Takes one token, or says when there will be one. `halved`: at half the rate, with half the burst.
    pub(super) fn take(&self, now: Instant, halved: bool) -> Result<(), Duration> {
        let (interval, burst) = match halved {
            false => (self.interval, self.settings.burst),
            true => (2 * self.interval, self.settings.burst.div_ceil(2)),
        };
        let capacity = interval * u64::from(burst);
        let now = nanos(now.saturating_duration_since(self.epoch));
        let mut full_at = self.full_at.load(Relaxed);
        loop {
            let next = full_at.max(now) + interval;
            if let Some(wait) = (next - now).checked_sub(capacity).filter(|wait| *wait > 0) {
                return Err(Duration::from_nanos(wait));
            }
            match self.full_at.compare_exchange_weak(full_at, next, Relaxed, Relaxed) {
                Ok(_) => return Ok(()),
                Err(other) => full_at = other,
            }
        }
    }
}

/// 584 years fit.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicU32, thread};

    use super::*;

    fn rate(per_second: u32, burst: u32) -> Arc<Rate> {
        Rate::new(Some(limits::Rate { per_second, burst }), None).unwrap()
    }

    #[test]
    fn the_burst_passes_at_once_and_then_as_many_as_the_rate() {
        let (rate, start) = (rate(10, 3), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        for _ in 0..3 {
            assert_eq!(rate.take(at(0), false), Ok(()));
        }
        let wait = rate.take(at(0), false).unwrap_err();
        assert!(wait > Duration::from_millis(99) && wait <= Duration::from_millis(100), "{wait:?}");
        assert!(rate.take(at(99), false).is_err());
        assert_eq!(rate.take(at(100), false), Ok(()));
        assert!(rate.take(at(100), false).is_err());
        // Nobody came for a long time: the bucket holds no more than it holds.
        for _ in 0..3 {
            assert_eq!(rate.take(at(60_000), false), Ok(()));
        }
        assert!(rate.take(at(60_000), false).is_err());
    }

    #[test]
    fn whoever_is_refused_spends_nothing() {
        let (rate, start) = (rate(1, 1), Instant::now());
        assert_eq!(rate.take(start, false), Ok(()));
        for _ in 0..1000 {
            assert!(rate.take(start + Duration::from_millis(999), false).is_err());
        }
        assert_eq!(rate.take(start + Duration::from_millis(1000), false), Ok(()));
    }

    #[test]
    fn halved_it_is_half_the_rate_with_half_the_burst_and_never_nothing() {
        let (halves, start) = (rate(10, 4), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        let passed =
            |rate: &Rate, millis, halved| (0..10).filter(|_| rate.take(at(millis), halved).is_ok()).count();
        assert_eq!(passed(&halves, 0, true), 2);
        assert_eq!(passed(&halves, 199, true), 0);
        assert_eq!(passed(&halves, 200, true), 1);
        assert_eq!(passed(&halves, 10_000, false), 4);
        assert_eq!(passed(&rate(1, 1), 0, true), 1);
    }

    #[test]
    fn over_any_time_no_more_pass_than_the_bound_whoever_asks() {
        const PER_SECOND: u32 = 20_000;
        const BURST: u32 = 100;
        let (rate, passed, refused) = (rate(PER_SECOND, BURST), AtomicU32::new(0), AtomicU32::new(0));
        let start = Instant::now();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while start.elapsed() < Duration::from_millis(200) {
                        let counter =
                            if rate.take(Instant::now(), false).is_ok() { &passed } else { &refused };
                        counter.fetch_add(1, Relaxed);
                    }
                });
            }
        });
        let bound = start.elapsed().as_secs_f64() * f64::from(PER_SECOND) + f64::from(BURST);
        let passed = f64::from(passed.into_inner());
        assert!(passed <= bound, "{passed} of {bound}");
        // As many as there may be, give or take a machine that has other things to do.
        assert!(passed > f64::from(BURST) && refused.into_inner() > 0, "{passed} of {bound}");
    }

    #[test]
    fn a_reload_keeps_the_bucket_unless_the_rate_changed() {
        let settings = limits::Rate { per_second: 1, burst: 1 };
        let old = Rate::new(Some(settings), None).unwrap();
        let now = Instant::now();
        old.take(now, false).unwrap();
        let same = Rate::new(Some(settings), Some(&old)).unwrap();
        assert!(same.take(now, false).is_err());
        let other = Rate::new(Some(limits::Rate { burst: 2, ..settings }), Some(&old)).unwrap();
        assert!(other.take(now, false).is_ok());
        assert!(Rate::new(None, Some(&old)).is_none());
        assert_eq!(align_of::<Rate>(), 128);
    }
}
