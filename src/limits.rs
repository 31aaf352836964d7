//! What one caller may use, and what all callers together may use of an environment.
//!
//! In: a request of a known caller. Out: a permit that is given back when the request is over, however it ends, or how
//! long to wait. Nobody waits in line here: what is over a limit is refused at once.
//!
//! Counts are single atomics that all workers share, each on a cache line of its own, found through the snapshot and
//! never by a look-up; whoever has no limits pays one branch for them. A new snapshot takes the counts of the last one
//! over, by name. What must never happen: more requests in flight than allowed, a count that is not given back, or one
//! that a reload forgets or doubles.

pub(crate) mod breaker;
pub(crate) mod budget;
mod counter;
pub(crate) mod outcome;
pub(crate) mod pace;
mod rate;
pub(crate) mod retry_after;

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

pub(crate) use self::counter::Bound;
use self::{counter::Taken, pace::Pace, rate::Rate};
use crate::{
    config,
    refusal::Refusal,
    status::{CallerLimitsStatus, Use},
};

/// How long to wait for what others give back at a time that nobody knows.
pub(crate) const SOON: Duration = Duration::from_secs(1);

/// Over a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Over {
    pub(crate) refusal: Refusal,
    /// When another attempt may succeed.
    pub(crate) wait: Duration,
}

/// What one caller may use. Copies share their counts.
#[derive(Debug, Clone)]
pub(crate) struct CallerLimits {
    name: Arc<str>,
    rate: Option<Arc<Rate>>,
    in_flight: Option<Bound>,
    connections: Option<Bound>,
    pace: Option<Arc<Pace>>,
    /// Requests over a limit so far.
    refused: Arc<AtomicU64>,
}

impl CallerLimits {
    /// `None` when there is nothing to count. `previous` is the same caller's.
    pub(crate) fn new(
        name: &str,
        settings: &config::limits::CallerLimits,
        previous: Option<&Self>,
    ) -> Option<Self> {
        if settings.is_empty() {
            return None;
        }
        Some(Self {
            name: previous.map_or_else(|| name.into(), |previous| previous.name.clone()),
            rate: Rate::new(settings.rate, previous.and_then(|previous| previous.rate.as_ref())),
            in_flight: Bound::new(
                settings.in_flight_max,
                previous.and_then(|previous| previous.in_flight.as_ref()),
            ),
            connections: Bound::new(
                settings.connections_max,
                previous.and_then(|previous| previous.connections.as_ref()),
            ),
            pace: Pace::new(settings.bytes_per_second, previous.and_then(|previous| previous.pace.as_ref())),
            refused: previous.map(|previous| previous.refused.clone()).unwrap_or_default(),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What its bodies keep to.
    pub(crate) fn pace(&self) -> Option<&Arc<Pace>> {
        self.pace.as_ref()
    }

    fn admit(self: &Rc<Self>, connection: &Owner, now: Instant) -> Result<Permit, Over> {
        let over = |refusal, wait| {
            self.refused.fetch_add(1, Relaxed);
            Over { refusal, wait }
        };
        if !connection.belongs_to(self.connections.as_ref()) {
            return Err(over(Refusal::ConnectionLimit, SOON));
        }
        let in_flight = match &self.in_flight {
            Some(bound) => Some(bound.take().ok_or_else(|| over(Refusal::InFlightLimit, SOON))?),
            None => None,
        };
        // Last, since what is spent does not come back.
        if let Some(rate) = &self.rate {
            rate.take(now, false).map_err(|wait| over(Refusal::RateLimit, wait))?;
        }
        let in_flight = in_flight.map(Taken::keep).is_some();
        Ok(Permit { limits: self.clone(), in_flight })
    }

    /// What is in use, for people.
    pub(crate) fn status(&self) -> CallerLimitsStatus {
        let used = |bound: &Bound| Use { now: bound.now(), max: bound.max() };
        CallerLimitsStatus {
            caller: self.name.to_string(),
            in_flight: self.in_flight.as_ref().map(used),
            connections: self.connections.as_ref().map(used),
            refused: self.refused.load(Relaxed),
        }
    }
}

/// Lets one request of a caller on, or says how long it has to wait. `None` has no limits.
pub(crate) fn admit(
    limits: Option<&Rc<CallerLimits>>,
    connection: &Owner,
    now: Instant,
) -> Result<Option<Permit>, Over> {
    match limits {
        Some(limits) => limits.admit(connection, now).map(Some),
        None => {
            connection.belongs_to(None);
            Ok(None)
        }
    }
}

/// One request of a caller that has limits, in flight for as long as the value lives.
#[derive(Debug)]
pub(crate) struct Permit {
    // Of this worker: a copy of it costs no other core anything.
    limits: Rc<CallerLimits>,
    in_flight: bool,
}

impl Permit {
    pub(crate) fn pace(&self) -> Option<&Arc<Pace>> {
        self.limits.pace()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(bound) = self.limits.in_flight.as_ref().filter(|_| self.in_flight) {
            bound.give_back();
        }
    }
}

/// The caller that a connection is counted for: that of its last request, if connections of it are counted.
#[derive(Debug, Default)]
pub(crate) struct Owner(RefCell<Option<Counted>>);

impl Owner {
    /// Counts the connection there and nowhere else. False when there is no room: then it is counted nowhere.
    fn belongs_to(&self, bound: Option<&Bound>) -> bool {
        let mut counted = self.0.borrow_mut();
        match (&*counted, bound) {
            (None, None) => return true,
            (Some(counted), Some(bound)) if counted.0.shares_count_with(bound) => return true,
            _ => {}
        }
        *counted = None;
        let Some(bound) = bound else { return true };
        *counted = bound.take().map(|taken| {
            taken.keep();
            Counted(bound.clone())
        });
        counted.is_some()
    }
}

#[derive(Debug)]
struct Counted(Bound);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

#[cfg(test)]
mod tests;
