//! What callers and environments are limited to, as configured.

use std::time::Duration;

/// What one caller may use, of all its connections and at all environments together. What is `None` is not limited.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallerLimits {
    /// Requests, as a token bucket.
    pub rate: Option<Rate>,
    /// Requests at once. 1 to 1,000,000.
    pub in_flight_max: Option<u32>,
    /// Connections at once. 1 to 1,000,000.
    pub connections_max: Option<u32>,
    /// Body bytes, uploads and answers together. 16 KiB to 10 GB.
    pub bytes_per_second: Option<u64>,
}

/// A token bucket: full at first, refilled evenly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// What it is refilled by. 1 to 1,000,000.
    pub per_second: u32,
    /// What it holds. Default `per_second`, 1 to 1,000,000.
    pub burst: u32,
}

/// What all callers together may use of one environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Budget {
    /// GET and HEAD.
    pub get: MethodBudget,
    /// All other methods.
    pub other: MethodBudget,
}

/// The part of a [`Budget`] for some methods. What is `None` is not limited.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MethodBudget {
    /// Requests, as a token bucket.
    pub rate: Option<Rate>,
    /// Requests at once. 1 to 1,000,000.
    pub in_flight_max: Option<u32>,
}

/// When an environment is left alone for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker {
    /// Failures in a row that open it. Default 20, 0 to 10,000; 0: it never opens.
    pub failures_max: u32,
    /// How long nothing is sent then. Default 5 s, 100 ms to 5 min.
    pub open: Duration,
}

impl CallerLimits {
    /// Whether there is nothing to count.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
