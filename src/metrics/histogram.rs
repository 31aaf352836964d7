//! Durations in fixed buckets, with one writer.

use std::time::Duration;

use super::{cells::Count, micros};

/// Upper bounds of gateway time, in microseconds: what this process adds to a request.
pub(super) const GATEWAY: [u64; 13] =
    [25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000];

/// Upper bounds of upstream time, in microseconds: from an answer nearby to the total time-out's default.
pub(super) const UPSTREAM: [u64; 14] = [
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
];

/// `N` bounded buckets and one for what is above them.
#[derive(Debug)]
pub(super) struct Histogram<const N: usize> {
    bounds: &'static [u64; N],
    buckets: [Count; N],
    above: Count,
    sum_micros: Count,
}

impl<const N: usize> Histogram<N> {
    pub(super) fn new(bounds: &'static [u64; N]) -> Self {
        Self {
            bounds,
            buckets: std::array::from_fn(|_| Count::default()),
            above: Count::default(),
            sum_micros: Count::default(),
        }
    }

    pub(super) fn observe(&self, duration: Duration) {
        let value = micros(duration);
        let index = self.bounds.partition_point(|bound| *bound < value);
        self.buckets.get(index).unwrap_or(&self.above).add(1);
        self.sum_micros.add(value);
    }

    /// Adds this worker's counts to `total`.
    pub(super) fn add_to(&self, total: &mut Total) {
        total.buckets.resize(N + 1, (f64::INFINITY, 0));
        let counts = self.buckets.iter().chain([&self.above]);
        let bounds = self.bounds.iter().map(|bound| seconds(*bound)).chain([f64::INFINITY]);
        for ((slot, count), bound) in total.buckets.iter_mut().zip(counts).zip(bounds) {
            slot.0 = bound;
            slot.1 += count.get();
        }
        total.sum_micros = total.sum_micros.wrapping_add(self.sum_micros.get());
    }
}

/// All workers' counts, not cumulative: the encoder adds them up.
#[derive(Debug, Default)]
pub(super) struct Total {
    pub(super) buckets: Vec<(f64, u64)>,
    sum_micros: u64,
}

impl Total {
    pub(super) fn sum(&self) -> f64 {
        seconds(self.sum_micros)
    }

    /// From the buckets, so that it agrees with them whatever was counted meanwhile.
    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }
}

/// Microseconds as seconds; exact up to 2^53 microseconds, which is 285 years.
pub(super) fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_at_a_bound_is_in_its_bucket_and_one_above_is_in_the_next() {
        let histogram = Histogram::new(&GATEWAY);
        for value in [0, 25, 26, 1_000_000, 1_000_001] {
            histogram.observe(Duration::from_micros(value));
        }
        let mut total = Total::default();
        histogram.add_to(&mut total);
        let filled: Vec<_> = total.buckets.iter().filter(|(_, count)| *count > 0).copied().collect();
        assert_eq!(filled, [(25e-6, 2), (50e-6, 1), (1.0, 1), (f64::INFINITY, 1)]);
        assert_eq!(total.count(), 5);
        assert!((total.sum() - 2.000_052).abs() < 1e-9);
    }

    #[test]
    fn workers_add_up() {
        let mut total = Total::default();
        for _ in 0..3 {
            let histogram = Histogram::new(&UPSTREAM);
            histogram.observe(Duration::from_secs(1));
            histogram.add_to(&mut total);
        }
        assert_eq!(total.count(), 3);
        assert_eq!(total.buckets.len(), UPSTREAM.len() + 1);
    }

    #[test]
    fn bounds_ascend() {
        assert!(GATEWAY.is_sorted() && UPSTREAM.is_sorted());
    }
}
