//! What all callers together may use of one environment: the client's quota at MX, kept on our side.
//!
//! GET and HEAD have a part of their own, so that reading does not keep writing out, nor the reverse. When MX itself
//! says that it is too much (429 or 503 with `Retry-After`), the whole budget is halved for as long as MX says.

use std::{
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use http::Method;
use tokio::time::Instant;

use super::{
    Bound, Over, SOON,
    counter::Taken,
    rate::{Rate, nanos},
};
use crate::{
    config::limits::{self, MethodBudget},
    refusal::Refusal,
    status::{BudgetStatus, Use},
    worker::view::EnvironmentView,
};

/// One environment's.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    get: Share,
    other: Share,
    halved: Arc<Halved>,
    /// Nothing is limited.
    is_empty: bool,
}

/// The part of some methods.
#[derive(Debug, Clone)]
struct Share {
    rate: Option<Arc<Rate>>,
    in_flight: Option<Bound>,
}

/// Until when a budget is half of what it is, in nanoseconds since `epoch`.
#[derive(Debug)]
#[repr(align(128))]
struct Halved {
    until: AtomicU64,
    epoch: Instant,
}

/// Which part of a budget a request uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Methods {
    /// GET and HEAD.
    Get,
    Other,
}

impl Methods {
    fn of(method: &Method) -> Self {
        if *method == Method::GET || *method == Method::HEAD { Self::Get } else { Self::Other }
    }
}

impl Budget {
    /// `previous` is the same environment's.
    pub(crate) fn new(settings: &limits::Budget, previous: Option<&Self>) -> Self {
        Self {
            get: Share::new(&settings.get, previous.map(|previous| &previous.get)),
            other: Share::new(&settings.other, previous.map(|previous| &previous.other)),
            halved: previous.map_or_else(Halved::not, |previous| previous.halved.clone()),
            is_empty: *settings == limits::Budget::default(),
        }
    }

    fn share(&self, methods: Methods) -> &Share {
        match methods {
            Methods::Get => &self.get,
            Methods::Other => &self.other,
        }
    }

    fn take(&self, methods: Methods, now: Instant) -> Result<(), Over> {
        let over = |wait| Over { refusal: Refusal::EnvironmentBudget, wait };
        let (share, halved) = (self.share(methods), self.halved.left(now).is_some());
        let in_flight = match &share.in_flight {
            Some(bound) => {
                let max = if halved { bound.max().div_ceil(2) } else { bound.max() };
                Some(bound.take_up_to(max).ok_or_else(|| over(SOON))?)
            }
            None => None,
        };
        if let Some(rate) = &share.rate {
            rate.take(now, halved).map_err(over)?;
        }
        in_flight.into_iter().for_each(Taken::keep);
        Ok(())
    }

    /// One more request in place of one that is over: it counts for the rate.
    fn take_again(&self, methods: Methods, now: Instant) -> bool {
        let halved = self.halved.left(now).is_some();
        self.share(methods).rate.as_ref().is_none_or(|rate| rate.take(now, halved).is_ok())
    }

    /// Halves it for `wait`. True if it was whole before.
    pub(super) fn halve(&self, wait: Duration, now: Instant) -> bool {
        !self.is_empty && self.halved.extend(wait, now)
    }

    /// For people and for metrics; `None` without a budget.
    pub(crate) fn status(&self, now: Instant) -> Option<BudgetStatus> {
        let used = |share: &Share| {
            let bound = share.in_flight.as_ref();
            bound.map(|bound| Use { now: bound.now(), max: bound.max() })
        };
        (!self.is_empty).then(|| BudgetStatus {
            get_in_flight: used(&self.get),
            other_in_flight: used(&self.other),
            halved_for_s: self.halved.left(now).map(super::retry_after::seconds),
        })
    }
}

impl Share {
    fn new(settings: &MethodBudget, previous: Option<&Self>) -> Self {
        Self {
            rate: Rate::new(settings.rate, previous.and_then(|previous| previous.rate.as_ref())),
            in_flight: Bound::new(
                settings.in_flight_max,
                previous.and_then(|previous| previous.in_flight.as_ref()),
            ),
        }
    }
}

impl Halved {
    fn not() -> Arc<Self> {
        Arc::new(Self { until: AtomicU64::new(0), epoch: Instant::now() })
    }

    fn now(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.epoch))
    }

    fn left(&self, now: Instant) -> Option<Duration> {
        let until = self.until.load(Relaxed);
        // Hardly ever: nobody has to read a clock for it.
        if until == 0 {
            return None;
        }
        until.checked_sub(self.now(now)).filter(|left| *left > 0).map(Duration::from_nanos)
    }

    fn extend(&self, wait: Duration, now: Instant) -> bool {
        let now = self.now(now);
        self.until.fetch_max(now.saturating_add(nanos(wait)), Relaxed) <= now
    }
}

/// Lets one request on that is to be sent, or says how long it has to wait. `None` needs no permit.
pub(crate) fn admit(
    environment: &Rc<EnvironmentView>,
    method: &Method,
    now: Instant,
) -> Result<Option<Permit>, Over> {
    let budget = &environment.settings.budget;
    if budget.is_empty {
        return Ok(None);
    }
    let methods = Methods::of(method);
    budget.take(methods, now)?;
    Ok(Some(Permit { environment: environment.clone(), methods }))
}

/// One request in flight, for as long as the value lives.
pub(crate) struct Permit {
    // Of this worker: a copy of it costs no other core anything.
    environment: Rc<EnvironmentView>,
    methods: Methods,
}

impl Permit {
    /// Lets the request be sent once more, if there is room for that.
    pub(crate) fn again(&self, now: Instant) -> bool {
        self.environment.settings.budget.take_again(self.methods, now)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(bound) = &self.environment.settings.budget.share(self.methods).in_flight {
            bound.give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_flight(get: u32, other: u32) -> limits::Budget {
        let methods = |max| MethodBudget { rate: None, in_flight_max: Some(max) };
        limits::Budget { get: methods(get), other: methods(other) }
    }

    fn taken(budget: &Budget, methods: Methods, now: Instant) -> usize {
        (0..100).filter(|_| budget.take(methods, now).is_ok()).count()
    }

    #[test]
    fn each_kind_of_method_has_its_own_part() {
        let (budget, now) = (Budget::new(&in_flight(2, 3), None), Instant::now());
        for method in [Method::GET, Method::HEAD] {
            assert_eq!(Methods::of(&method), Methods::Get);
        }
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS] {
            assert_eq!(Methods::of(&method), Methods::Other);
        }
        assert_eq!(taken(&budget, Methods::Get, now), 2);
        assert_eq!(taken(&budget, Methods::Other, now), 3);
        let over = Over { refusal: Refusal::EnvironmentBudget, wait: SOON };
        assert_eq!(budget.take(Methods::Get, now), Err(over));
    }

    #[test]
    fn it_is_halved_for_as_long_as_was_said_and_never_nothing() {
        let (budget, now) = (Budget::new(&in_flight(5, 1), None), Instant::now());
        let wait = Duration::from_secs(10);
        assert!(budget.halve(wait, now));
        assert!(!budget.halve(wait, now), "it is already");
        assert!(!budget.halve(Duration::from_secs(1), now), "a shorter time shortens nothing");
        assert_eq!(budget.status(now).unwrap().halved_for_s, Some(10));
        assert_eq!(taken(&budget, Methods::Get, now), 3);
        assert_eq!(taken(&budget, Methods::Other, now), 1);
        let last = now + wait - Duration::from_nanos(1);
        assert_eq!(taken(&budget, Methods::Get, last), 0);
        assert_eq!(taken(&budget, Methods::Get, now + wait), 2);
        assert_eq!(budget.status(now + wait).unwrap().halved_for_s, None);
        assert!(budget.halve(wait, now + wait));
    }

    #[test]
    fn a_request_over_its_rate_is_not_in_flight() {
        let rate = Some(limits::Rate { per_second: 1, burst: 1 });
        let methods = MethodBudget { rate, in_flight_max: Some(5) };
        let settings = limits::Budget { get: methods.clone(), other: methods };
        let (budget, now) = (Budget::new(&settings, None), Instant::now());
        assert_eq!(taken(&budget, Methods::Get, now), 1);
        assert_eq!(budget.status(now).unwrap().get_in_flight, Some(Use { now: 1, max: 5 }));
    }

    #[test]
    fn a_second_attempt_counts_for_the_rate_and_is_no_second_request_in_flight() {
        let rate = Some(limits::Rate { per_second: 1, burst: 3 });
        let methods = MethodBudget { rate, in_flight_max: Some(1) };
        let settings = limits::Budget { get: methods.clone(), other: methods };
        let (budget, now) = (Budget::new(&settings, None), Instant::now());
        assert_eq!(taken(&budget, Methods::Get, now), 1);
        assert!(budget.take_again(Methods::Get, now) && budget.take_again(Methods::Get, now));
        assert!(!budget.take_again(Methods::Get, now), "that would be a fourth");
        assert!(budget.take_again(Methods::Other, now));
        assert_eq!(budget.status(now).unwrap().get_in_flight, Some(Use { now: 1, max: 1 }));
        let unlimited = Budget::new(&in_flight(1, 1), None);
        assert!(unlimited.take_again(Methods::Get, now));
    }

    #[test]
    fn a_reload_takes_everything_over_and_nothing_is_halved_that_is_not_there() {
        let (old, now) = (Budget::new(&in_flight(2, 2), None), Instant::now());
        assert_eq!(taken(&old, Methods::Get, now), 2);
        old.halve(SOON, now);
        let new = Budget::new(&in_flight(4, 2), Some(&old));
        assert_eq!(taken(&new, Methods::Get, now), 0, "half of four, and two are there");
        assert_eq!(taken(&new, Methods::Get, now + SOON), 2);
        let none = Budget::new(&limits::Budget::default(), None);
        assert!(!none.halve(SOON, now) && none.status(now).is_none());
    }
}
