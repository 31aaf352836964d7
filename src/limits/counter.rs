//! How many of something there are at once, and never more than a bound.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

/// One count, alone on its cache line (two lines are prefetched as a pair on x86-64).
#[derive(Debug, Default)]
#[repr(align(128))]
struct Counter(AtomicU32);

/// A count and its bound. Copies share the count.
#[derive(Debug, Clone)]
pub(crate) struct Bound {
    max: u32,
    count: Arc<Counter>,
}

impl Bound {
    /// Goes on with the count of `previous`, whose bound may have been another.
    pub(super) fn new(max: Option<u32>, previous: Option<&Self>) -> Option<Self> {
        let count = || previous.map(|previous| previous.count.clone()).unwrap_or_default();
        max.map(|max| Self { max, count: count() })
    }

    /// One more, if there is room.
    pub(super) fn take(&self) -> Option<Taken<'_>> {
        self.take_up_to(self.max)
    }

    /// One more, if there are fewer than `max`.
    pub(super) fn take_up_to(&self, max: u32) -> Option<Taken<'_>> {
        // Compared and added in one step: nobody is refused for the sake of somebody who is refused as well.
        let more = |now: u32| (now < max).then(|| now + 1);
        self.count.0.fetch_update(Relaxed, Relaxed, more).ok()?;
        Some(Taken(self))
    }

    /// One less.
    pub(super) fn give_back(&self) {
        self.count.0.fetch_sub(1, Relaxed);
    }

    pub(crate) fn now(&self) -> u32 {
        self.count.0.load(Relaxed)
    }

    pub(crate) fn max(&self) -> u32 {
        self.max
    }

    pub(super) fn shares_count_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.count, &other.count)
    }
}

/// Given back when it is dropped, unless it is kept.
#[derive(Debug)]
pub(super) struct Taken<'b>(&'b Bound);

impl Taken<'_> {
    /// Somebody else gives it back.
    pub(super) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicBool, thread};

    use super::*;

    #[test]
    fn there_are_never_more_than_the_bound_and_in_the_end_none() {
        const MAX: u32 = 3;
        let bound = Bound::new(Some(MAX), None).unwrap();
        let (inside, refused, full) = (AtomicU32::new(0), AtomicBool::new(false), AtomicBool::new(false));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        let Some(taken) = bound.take() else {
                            refused.store(true, Relaxed);
                            continue;
                        };
                        let now = inside.fetch_add(1, Relaxed) + 1;
                        assert!(now <= MAX, "{now}");
                        full.fetch_or(now == MAX, Relaxed);
                        thread::yield_now();
                        inside.fetch_sub(1, Relaxed);
                        drop(taken);
                    }
                });
            }
        });
        assert!(refused.into_inner() && full.into_inner(), "the bound was met");
        assert_eq!(bound.now(), 0);
    }

    #[test]
    fn another_bound_goes_on_with_the_same_count() {
        let old = Bound::new(Some(3), None).unwrap();
        for _ in 0..3 {
            old.take().unwrap().keep();
        }
        let new = Bound::new(Some(2), Some(&old)).unwrap();
        assert!(new.take().is_none());
        old.give_back();
        assert!(new.take().is_none(), "two are still there");
        old.give_back();
        assert!(new.take().is_some());
        assert_eq!(align_of::<Counter>(), 128);
    }
}
