//! Leaves an environment alone for a while when its host fails outright.
//!
//! *Closed*: everything goes out. After a number of failures in a row, of whichever callers, it *opens*: requests are
//! refused at once, for a time. Then it is *half open*: one request at a time goes out as a probe. A probe that gets an
//! answer closes it, one that fails opens it again.
//!
//! In a row, and not by share: so a success writes nothing that another core reads, and a host that answers some
//! requests is still worth asking. Requests that may be repeated are probes first, since the caller of a lost one can
//! ask again; others only when none of those came for as long again.
//! What must never happen: a caller opens it by what it does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{SOON, rate::nanos};
use crate::{config::limits, status::BreakerStatus};

/// One environment's.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Breaker {
    /// 0: closed. Otherwise nothing is sent before this, in nanoseconds since `epoch`.
    open_until: AtomicU64,
    /// Failures in a row while it is closed.
    failures: AtomicU32,
    /// A probe is under way.
    probing: AtomicBool,
    /// How often it has opened.
    opened: AtomicU64,
    epoch: Instant,
    settings: limits::Breaker,
    environment: Arc<str>,
}

impl Breaker {
    /// `None`: it never opens. `previous`, of the same environment and host, stays itself if nothing changed.
    pub(crate) fn new(
        environment: &Arc<str>,
        settings: &limits::Breaker,
        previous: Option<&Arc<Self>>,
    ) -> Option<Arc<Self>> {
        if settings.failures_max == 0 {
            return None;
        }
        if let Some(previous) = previous.filter(|previous| previous.settings == *settings) {
            return Some(previous.clone());
        }
        Some(Arc::new(Self {
            open_until: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            probing: AtomicBool::new(false),
            opened: AtomicU64::new(0),
            epoch: Instant::now(),
            settings: settings.clone(),
            environment: environment.clone(),
        }))
    }

    /// Lets a request out, or says how long nothing is sent.
    pub(crate) fn admit(self: &Arc<Self>, repeatable: bool, now: Instant) -> Result<Pass, Duration> {
        let until = self.open_until.load(SeqCst);
        if until == 0 {
            return Ok(Pass::usual());
        }
        let (now, again) = (self.nanos(now), until.saturating_add(nanos(self.settings.open)));
        if now < until {
            return Err(Duration::from_nanos(until - now));
        }
        if (!repeatable && now < again) || self.probing.swap(true, SeqCst) {
            return Err(SOON);
        }
        let probe = Pass(Some(self.clone()));
        // The last probe may have ended in between, and its word counts.
        match self.open_until.load(SeqCst) {
            0 => Ok(Pass::usual()),
            other if other > now => Err(Duration::from_nanos(other - now)),
            _ => Ok(probe),
        }
    }

    /// The host has answered.
    pub(crate) fn works(&self, pass: &Pass) {
        if pass.is_probe() {
            self.failures.store(0, SeqCst);
            if self.open_until.swap(0, SeqCst) != 0 {
                tracing::warn!(
                    environment = &*self.environment,
                    "the upstream answers again: its breaker is closed"
                );
            }
        } else if self.failures.load(SeqCst) != 0 && self.open_until.load(SeqCst) == 0 {
            self.failures.store(0, SeqCst);
        }
    }

    /// The host has failed, and its callers had no part in it.
    pub(crate) fn fails(&self, pass: &Pass, now: Instant) {
        let until = self.nanos(now).saturating_add(nanos(self.settings.open)).max(1);
        if pass.is_probe() {
            self.open_until.store(until, SeqCst);
            return;
        }
        // What was sent before it opened tells nothing new.
        if self.open_until.load(SeqCst) != 0 {
            return;
        }
        let failures = self.failures.fetch_add(1, SeqCst) + 1;
        if failures >= self.settings.failures_max
            && self.open_until.compare_exchange(0, until, SeqCst, SeqCst).is_ok()
        {
            self.opened.fetch_add(1, SeqCst);
            tracing::error!(
                environment = &*self.environment,
                failures,
                open_ms = u64::try_from(self.settings.open.as_millis()).unwrap_or(u64::MAX),
                "the upstream fails: its breaker is open, requests are refused"
            );
        }
    }

    pub(crate) fn status(&self, now: Instant) -> BreakerStatus {
        let left = self.open_until.load(SeqCst).checked_sub(self.nanos(now));
        match (self.open_until.load(SeqCst), left) {
            (0, _) => BreakerStatus::Closed,
            (_, Some(left @ 1..)) => {
                BreakerStatus::Open { for_s: super::retry_after::seconds(Duration::from_nanos(left)) }
            }
            _ => BreakerStatus::HalfOpen,
        }
    }

    /// How often it has opened.
    pub(crate) fn opened(&self) -> u64 {
        self.opened.load(SeqCst)
    }

    fn nanos(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.epoch))
    }
}

/// A request that a breaker let out. A probe that is dropped unheard makes room for another.
#[derive(Debug)]
pub(crate) struct Pass(Option<Arc<Breaker>>);

impl Pass {
    pub(crate) fn usual() -> Self {
        Self(None)
    }

    fn is_probe(&self) -> bool {
        self.0.is_some()
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(breaker) = &self.0 {
            breaker.probing.store(false, SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Duration = Duration::from_secs(5);

    fn breaker(failures_max: u32) -> (Arc<Breaker>, Instant) {
        let settings = limits::Breaker { failures_max, open: OPEN };
        (Breaker::new(&"test".into(), &settings, None).unwrap(), Instant::now())
    }

    fn fail(breaker: &Arc<Breaker>, now: Instant) {
        let pass = breaker.admit(true, now).expect("it is not open");
        breaker.fails(&pass, now);
    }

    #[test]
    fn it_opens_after_so_many_failures_in_a_row_and_not_before() {
        let (breaker, now) = breaker(3);
        for _ in 0..10 {
            fail(&breaker, now);
            fail(&breaker, now);
            breaker.works(&breaker.admit(true, now).unwrap());
        }
        fail(&breaker, now);
        fail(&breaker, now);
        assert_eq!((breaker.status(now), breaker.opened()), (BreakerStatus::Closed, 0));
        fail(&breaker, now);
        assert_eq!((breaker.status(now), breaker.opened()), (BreakerStatus::Open { for_s: 5 }, 1));
        let wait = breaker.admit(true, now).unwrap_err();
        assert!(wait <= OPEN && wait > OPEN - Duration::from_millis(1), "{wait:?}");
    }

    #[test]
    fn one_probe_at_a_time_closes_it_or_opens_it_again() {
        let (breaker, start) = breaker(1);
        fail(&breaker, start);
        let now = start + OPEN;
        assert!(breaker.admit(true, now - Duration::from_millis(1)).is_err());
        assert_eq!(breaker.status(now), BreakerStatus::HalfOpen);
        let probe = breaker.admit(true, now).unwrap();
        assert_eq!(breaker.admit(true, now).unwrap_err(), SOON, "there is one");
        // Its caller left: that says nothing, and another one may try.
        drop(probe);
        let probe = breaker.admit(true, now).unwrap();
        breaker.fails(&probe, now);
        drop(probe);
        assert!(breaker.admit(true, now).is_err());
        assert_eq!(breaker.opened(), 1, "it was not closed");
        let now = now + OPEN;
        let probe = breaker.admit(true, now).unwrap();
        breaker.works(&probe);
        drop(probe);
        assert_eq!(breaker.status(now), BreakerStatus::Closed);
        let (one, two) = (breaker.admit(true, now).unwrap(), breaker.admit(false, now).unwrap());
        assert!(!one.is_probe() && !two.is_probe());
    }

    #[test]
    fn what_may_not_be_repeated_is_a_probe_only_when_nothing_else_comes() {
        let (breaker, start) = breaker(1);
        fail(&breaker, start);
        assert_eq!(breaker.admit(false, start + OPEN).unwrap_err(), SOON);
        assert!(breaker.admit(true, start + OPEN).unwrap().is_probe());
        assert!(breaker.admit(false, start + 2 * OPEN).unwrap().is_probe());
    }

    #[test]
    fn answers_to_what_was_sent_before_it_opened_change_nothing() {
        let (breaker, now) = breaker(2);
        let passes: Vec<Pass> = (0..10).map(|_| breaker.admit(true, now).unwrap()).collect();
        for pass in &passes[..8] {
            breaker.fails(pass, now);
        }
        breaker.works(&passes[8]);
        breaker.fails(&passes[9], now + Duration::from_secs(1));
        assert_eq!((breaker.status(now), breaker.opened()), (BreakerStatus::Open { for_s: 5 }, 1));
    }

    #[test]
    fn a_reload_keeps_it_and_no_failures_max_is_no_breaker() {
        let (old, now) = breaker(1);
        fail(&old, now);
        let same = Breaker::new(&"test".into(), &old.settings, Some(&old)).unwrap();
        assert!(Arc::ptr_eq(&same, &old));
        let other = limits::Breaker { failures_max: 2, open: OPEN };
        assert!(Breaker::new(&"test".into(), &other, Some(&old)).unwrap().admit(true, now).is_ok());
        let never = limits::Breaker { failures_max: 0, open: OPEN };
        assert!(Breaker::new(&"test".into(), &never, Some(&old)).is_none());
    }

    #[test]
    fn of_many_that_ask_at_once_one_is_the_probe() {
        let (breaker, start) = breaker(1);
        for round in 1..200 {
            let now = start + 2 * OPEN * round;
            fail(&breaker, now - OPEN);
            let probes: Vec<Pass> = std::thread::scope(|scope| {
                let ask = || scope.spawn(|| breaker.admit(true, now).ok());
                let asking: Vec<_> = (0..3).map(|_| ask()).collect();
                asking.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(probes.len(), 1);
            breaker.works(&probes[0]);
        }
    }
}
