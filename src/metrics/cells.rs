//! What one thread writes and others read.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::{TICK, micros};

/// A counter with one writer: a load and a store are enough, where `fetch_add` would lock the line.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, more: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(more), Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// When an event loop last came round, and how late it has been. Times are microseconds since the start.
#[derive(Debug, Default)]
pub(super) struct Heartbeat {
    last: AtomicU64,
    pub(super) late: Count,
    pub(super) late_max: AtomicU64,
}

impl Heartbeat {
    pub(super) fn tick(&self, now: Duration) {
        let late = micros(self.silence(now).saturating_sub(TICK));
        self.last.store(micros(now), Relaxed);
        self.late.add(late);
        if late > self.late_max.load(Relaxed) {
            self.late_max.store(late, Relaxed);
        }
    }

    pub(super) fn silence(&self, now: Duration) -> Duration {
        now.saturating_sub(Duration::from_micros(self.last.load(Relaxed)))
    }
}
