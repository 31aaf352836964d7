//! A snapshot, with one worker's copies of it and its connections.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    admission::CallerIndex,
    credential::{Credential, Prepared, preference::Which},
    limits::CallerLimits,
    metrics::WorkerMetrics,
    record::UsedCredential,
    snapshot::{Environment, ListenerSettings, Snapshot},
    upstream::pool::{Pool, PoolSettings},
    users::{
        Reason,
        end_user::{EndUser, Remembered},
    },
    vault::freshness::Moment,
};
use http::HeaderMap;

/// Which of the workers this is.
pub(crate) struct Place {
    pub(crate) index: usize,
    pub(crate) workers: usize,
    pub(crate) metrics: Rc<WorkerMetrics>,
}

/// A snapshot with this worker's part of it.
pub(crate) struct View {
    pub(crate) snapshot: Arc<Snapshot>,
    environments: Vec<Rc<EnvironmentView>>,
    /// By the callers' index, up to the last who has any.
    limits: Vec<Option<Rc<CallerLimits>>>,
    tokens: RefCell<Remembered>,
}

/// An environment with this worker's copies and connections.
pub(crate) struct EnvironmentView {
    pub(crate) settings: Arc<Environment>,
    /// `None`: tokens of a provider are attached.
    credential: Option<Credential>,
    /// The second of two keys.
    second: Option<Box<Credential>>,
    pub(crate) bearer: Option<Credential>,
    pub(crate) pool: Rc<Pool>,
    /// When it was last said that the upstream does not take the credential.
    said_not_taken: Cell<Option<Instant>>,
}

impl View {
    /// Connections whose upstream is still the same are kept; the others are retired.
    pub(crate) fn new(snapshot: Arc<Snapshot>, previous: Option<&Self>, place: &Place) -> Self {
        let environments: Vec<_> = snapshot
            .environments
            .iter()
            .map(|settings| Rc::new(EnvironmentView::new(settings.clone(), previous, place)))
            .collect();
        let retired =
            previous.iter().flat_map(|previous| &previous.environments).map(|environment| &environment.pool);
        for pool in retired {
            if !environments.iter().any(|environment| Rc::ptr_eq(&environment.pool, pool)) {
                pool.retire();
            }
        }
        let limited = snapshot.limits.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        let limits = snapshot.limits.iter().take(limited).map(|limits| limits.clone().map(Rc::new));
        Self { limits: limits.collect(), snapshot, environments, tokens: RefCell::default() }
    }

    /// Closes upstream connections that were idle for too long.
    pub(super) fn sweep(&self, now: Instant) {
        self.environments.iter().for_each(|environment| environment.pool.sweep(now));
    }

    pub(crate) fn listener(&self, index: usize) -> Option<&ListenerSettings> {
        self.snapshot.listeners.get(index)
    }

    /// The user whom a request's token names.
    pub(crate) fn identify(
        &self,
        end_user: &EndUser,
        caller: CallerIndex,
        headers: &HeaderMap,
    ) -> Result<Rc<str>, Reason> {
        end_user.identify(caller, headers, &mut self.tokens.borrow_mut())
    }

    /// Whether a listener serves connections instead of an environment.
    pub(crate) fn serves_connections(&self, listener: usize) -> bool {
        self.listener(listener).is_some_and(|settings| settings.environment.is_none())
    }

    /// Whether the environment of a listener attaches tokens that the broker has.
    pub(crate) fn attaches_tokens(&self, listener: usize) -> bool {
        let settings = self.listener(listener);
        let environment = settings.and_then(|settings| self.environment(settings.environment?));
        environment.is_some_and(|environment| environment.settings.attaches_tokens())
    }

    pub(crate) fn environment(&self, index: usize) -> Option<&Rc<EnvironmentView>> {
        self.environments.get(index)
    }

    /// What a caller may use; `None` for one without limits.
    pub(crate) fn limits(&self, caller: CallerIndex) -> Option<&Rc<CallerLimits>> {
        self.limits.get(caller.get())?.as_ref()
    }
}

impl EnvironmentView {
    /// The key that requests carry now and, where there are two, which it is: the preferred one, unless its time is
    /// over and the other's is not. None, where tokens of a provider are attached.
    pub(crate) fn credential(&self) -> (Option<&Credential>, Option<Which>) {
        let Some(settings) = &self.settings.second else { return (self.credential.as_ref(), None) };
        let preferred = settings.preference.key();
        let is_over = |which| self.key(which).is_some_and(|key| key.term().0.has_passed(Moment::now));
        let which = match is_over(preferred) && !is_over(preferred.other()) {
            true => preferred.other(),
            false => preferred,
        };
        (self.key(which), Some(which))
    }

    /// One of two keys.
    pub(crate) fn key(&self, which: Which) -> Option<&Credential> {
        match (which, &self.second) {
            (Which::Secondary, Some(second)) => Some(second),
            _ => self.credential.as_ref(),
        }
    }

    /// Says so, no more often than the interval.
    pub(crate) fn not_taken(&self, credential: &UsedCredential) {
        const INTERVAL: Duration = Duration::from_secs(60);
        let now = Instant::now();
        if self.said_not_taken.get().is_some_and(|said| now.duration_since(said) < INTERVAL) {
            return;
        }
        self.said_not_taken.set(Some(now));
        tracing::warn!(
            environment = &*self.settings.name,
            credential = credential.name(),
            fingerprint = credential.fingerprint(),
            "the upstream answered 401: it does not take the credential"
        );
    }

    fn new(settings: Arc<Environment>, previous: Option<&View>, place: &Place) -> Self {
        let timeouts = &settings.timeouts;
        let pool_settings = PoolSettings {
            connections_max: share(settings.dial.connections_max, place.workers, place.index),
            idle: timeouts.pool_idle,
            age: timeouts.connection_age,
            connect: timeouts.connect,
            tls: timeouts.tls,
        };
        let kept = previous.and_then(|previous| {
            let pools = previous.environments.iter().map(|environment| &environment.pool);
            pools.into_iter().find(|pool| pool.serves(&settings.dial, &pool_settings)).cloned()
        });
        Self {
            credential: settings.own.key().map(Prepared::for_worker),
            second: settings.second.as_ref().map(|second| Box::new(second.key.for_worker())),
            bearer: settings.bearer.token().map(Prepared::for_worker),
            pool: kept
                .unwrap_or_else(|| Pool::new(settings.dial.clone(), pool_settings, place.metrics.clone())),
            settings,
            said_not_taken: Cell::default(),
        }
    }
}

/// One worker's part of a cap that all workers keep together. Each needs at least one.
fn share(all: usize, workers: usize, index: usize) -> usize {
    (all / workers + usize::from(index < all % workers)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_the_cap_and_none_is_empty() {
        for (all, workers) in [(256, 3), (7, 4), (4, 4), (2_000, 256)] {
            assert_eq!((0..workers).map(|index| share(all, workers, index)).sum::<usize>(), all);
        }
        assert_eq!((0..4).map(|index| share(2, 4, index)).collect::<Vec<_>>(), [1, 1, 1, 1]);
    }
}
