//! Lines that repeat, such as the refusals of one address: the first is logged at once, the rest as one count.
//!
//! In goes a key (reason, address) at each event, out comes whether to log it now. The table is bounded: when
//! many addresses are refused at once, those that found no place are counted together.
//! What must never happen: a stranger decides how much is written or held in memory.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
    time::{Duration, Instant},
};

/// Decides which of many equal events are logged: one line per interval for each key, which says why something was
/// refused or failed, and who asked. Each worker has its own.
#[derive(Debug)]
pub struct Flood<K> {
    interval: Duration,
    keys_max: usize,
    keys: HashMap<K, Repeats>,
    /// Events of keys that found no place.
    others: u64,
}

#[derive(Debug)]
struct Repeats {
    /// When a line was last logged.
    since: Instant,
    /// Events since then.
    count: u64,
}

/// What to do with one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Log it, and that `unsaid` more came since the line before.
    Log {
        /// Events that were counted and not logged.
        unsaid: u64,
    },
    /// It was counted.
    Quiet,
}

/// One line that [`Flood::due`] asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary<K> {
    /// Whose events they were; `None`: of all that found no place in the table.
    pub key: Option<K>,
    /// How many were counted and not logged.
    pub count: u64,
}

impl<K: Hash + Eq + Copy> Flood<K> {
    /// One line per `interval` and key, at most `keys_max` keys.
    #[must_use]
    pub fn new(interval: Duration, keys_max: usize) -> Self {
        Self { interval, keys_max, keys: HashMap::new(), others: 0 }
    }

    /// One event at `now`.
    pub fn note(&mut self, key: K, now: Instant) -> Verdict {
        let is_full = self.keys.len() >= self.keys_max;
        match self.keys.entry(key) {
            Entry::Occupied(mut known) => {
                let known = known.get_mut();
                if now.saturating_duration_since(known.since) < self.interval {
                    known.count += 1;
                    return Verdict::Quiet;
                }
                known.since = now;
                Verdict::Log { unsaid: std::mem::take(&mut known.count) }
            }
            Entry::Vacant(_) if is_full => {
                self.others += 1;
                Verdict::Quiet
            }
            Entry::Vacant(place) => {
                place.insert(Repeats { since: now, count: 0 });
                Verdict::Log { unsaid: 0 }
            }
        }
    }

    /// What was counted and is due at `now`; keys that were quiet for an interval lose their place. Call it once per
    /// interval, and with a `now` far ahead before the end.
    pub fn due(&mut self, now: Instant) -> Vec<Summary<K>> {
        let mut due = Vec::new();
        self.keys.retain(|key, repeats| {
            if now.saturating_duration_since(repeats.since) < self.interval {
                return true;
            }
            if repeats.count == 0 {
                return false;
            }
            due.push(Summary { key: Some(*key), count: std::mem::take(&mut repeats.count) });
            repeats.since = now;
            true
        });
        if self.others > 0 {
            due.push(Summary { key: None, count: std::mem::take(&mut self.others) });
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const FIRST: Verdict = Verdict::Log { unsaid: 0 };

    fn key(last: u8) -> (&'static str, std::net::IpAddr) {
        ("caller_not_allowed", [192, 0, 2, last].into())
    }

    #[test]
    fn the_first_is_logged_and_the_rest_are_one_line() {
        let (mut flood, start) = (Flood::new(10 * SECOND, 8), Instant::now());
        assert_eq!(flood.note(key(1), start), FIRST);
        for _ in 0..5 {
            assert_eq!(flood.note(key(1), start + SECOND), Verdict::Quiet);
        }
        assert_eq!(flood.due(start + 9 * SECOND), []);
        assert_eq!(flood.due(start + 10 * SECOND), [Summary { key: Some(key(1)), count: 5 }]);
        assert_eq!(flood.note(key(1), start + 11 * SECOND), Verdict::Quiet, "a line per interval, not two");
        assert_eq!(flood.due(start + 20 * SECOND), [Summary { key: Some(key(1)), count: 1 }]);
        assert_eq!(flood.due(start + 30 * SECOND), []);
        assert_eq!(flood.note(key(1), start + 31 * SECOND), FIRST, "quiet for an interval");
    }

    #[test]
    fn other_reasons_and_addresses_are_logged_on_their_own() {
        let (mut flood, now) = (Flood::new(10 * SECOND, 8), Instant::now());
        let other_reason = ("malformed_request", key(1).1);
        assert_eq!([key(1), key(2), other_reason].map(|key| flood.note(key, now)), [FIRST; 3]);
        assert_eq!([key(1), key(2), other_reason].map(|key| flood.note(key, now)), [Verdict::Quiet; 3]);
    }

    #[test]
    fn a_late_tick_loses_no_count() {
        let (mut flood, start) = (Flood::new(10 * SECOND, 8), Instant::now());
        flood.note(key(1), start);
        flood.note(key(1), start + SECOND);
        assert_eq!(flood.note(key(1), start + 12 * SECOND), Verdict::Log { unsaid: 1 });
        assert_eq!(flood.due(start + 22 * SECOND), []);
    }

    #[test]
    fn the_table_is_bounded_and_nothing_goes_uncounted() {
        let (mut flood, start) = (Flood::new(10 * SECOND, 2), Instant::now());
        let verdicts: Vec<_> = (1..=200).map(|last| flood.note(key(last), start)).collect();
        assert_eq!(verdicts[..2], [FIRST; 2]);
        assert!(verdicts[2..].iter().all(|verdict| *verdict == Verdict::Quiet));
        assert_eq!(flood.keys.len(), 2);
        assert_eq!(flood.due(start + 10 * SECOND), [Summary { key: None, count: 198 }]);
        assert_eq!(flood.note(key(99), start + 11 * SECOND), FIRST, "there is room again");
    }
}
