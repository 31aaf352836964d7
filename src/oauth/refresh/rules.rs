//! When a connection is refreshed and what follows from what is known: decisions without a clock, a network or a store.

use std::{sync::Arc, time::Duration};

use super::Because;
use crate::{
    oauth::{
        connection::{Access, Connection, Consent, Tokens, Why},
        store::Stored,
        token_endpoint::Granted,
    },
    vault::secret::Secret,
};

/// The most that a refresh comes ahead of the expiry, however long a token lives.
const AHEAD_MAX: u64 = 300;

/// What to do with a connection whose lease is held.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Somebody has refreshed it meanwhile.
    Use,
    /// Its refresh token may be used up. Asking again would end the access token too, if so: use that while it lasts, in
    /// Unix seconds.
    Hold(u64),
    /// Send this.
    Ask(Arc<Secret>),
    /// Only the user can give it anew.
    Gone,
    /// There is no refresh token.
    Cannot,
}

/// `doubtful`: somebody had the lease and left it without a word, so that its refresh token may be used up.
pub(super) fn plan(stored: &Stored, because: Because, doubtful: bool, now: u64) -> Plan {
    let Consent::Live(tokens) = &stored.connection.consent else { return Plan::Gone };
    let usable = usable(tokens, now);
    if usable.is_some() && because.is_older_than(stored.version) {
        return Plan::Use;
    }
    let Some(refresh) = &tokens.refresh else { return Plan::Cannot };
    match usable {
        Some(access) if doubtful && !because.is_refused() => Plan::Hold(access.expires.unwrap_or(u64::MAX)),
        _ => Plan::Ask(refresh.clone()),
    }
}

/// What a request may be sent with. An expired token is none.
pub(crate) fn usable(tokens: &Tokens, now: u64) -> Option<&Access> {
    tokens.access.as_ref().filter(|access| access.expires.is_none_or(|expires| now < expires))
}

/// The connection with what was answered. `asked` is the moment before that: a life that is counted from later would
/// end after the provider's.
pub(super) fn renewed(connection: &Connection, granted: Granted, asked: u64) -> Connection {
    let old = match &connection.consent {
        Consent::Live(tokens) => tokens.refresh.clone(),
        Consent::Gone { .. } => None,
    };
    let expires = granted.life.map(|life| asked.saturating_add(life.as_secs()));
    let tokens = Tokens {
        access: Some(Access { token: granted.access, expires }),
        refresh: granted.refresh.or(old),
        ends: None,
    };
    let mut renewed = Connection { consent: Consent::Live(tokens), ..connection.clone() };
    renewed.purpose.scopes = granted.scopes.unwrap_or(renewed.purpose.scopes);
    renewed
}

/// The connection with another refresh token and nothing else that is new.
pub(super) fn rotated(connection: &Connection, refresh: Arc<Secret>) -> Connection {
    let consent = match &connection.consent {
        Consent::Live(tokens) => Consent::Live(Tokens { refresh: Some(refresh), ..tokens.clone() }),
        gone @ Consent::Gone { .. } => gone.clone(),
    };
    Connection { consent, ..connection.clone() }
}

/// The connection after the provider has taken its refresh token no longer.
pub(super) fn gone(connection: &Connection, now: u64) -> Connection {
    Connection { consent: Consent::Gone { since: now, why: Why::Refused }, ..connection.clone() }
}

/// When a token is refreshed that was first seen at `seen`: a fifth of its time ahead of its end, and up to as much
/// earlier, by `dice`, so that what was given at one time is not refreshed at one time.
pub(crate) fn due(seen: u64, expires: u64, dice: u64) -> u64 {
    let ahead = (expires.saturating_sub(seen) / 5).min(AHEAD_MAX);
    expires.saturating_sub(ahead).saturating_sub(dice % (ahead + 1)).max(seen)
}

/// How long nothing is asked after so many failures in a row: twice as long each time, up to `max`, less up to a half by
/// `dice`.
pub(super) fn rest(failures: u32, max: Duration, dice: u64) -> Duration {
    let full = Duration::from_secs(1).saturating_mul(1 << failures.min(20)).min(max);
    let half = full / 2;
    half + Duration::from_millis(
        dice % (u64::try_from(half.as_millis()).unwrap_or(u64::MAX).saturating_add(1)),
    )
}

/// Leaves alone for a while what fails again and again. One attempt at a time finds out whether it is well.
#[derive(Debug)]
pub(crate) struct Breaker {
    /// So many failures in a row, and it rests.
    failures_max: u32,
    failures: u32,
    /// In Unix seconds.
    rests_until: u64,
}

impl Breaker {
    const REST_MAX: Duration = Duration::from_secs(300);

    /// `failures_max`: at least 1.
    pub(crate) const fn after(failures_max: u32) -> Self {
        Self { failures_max, failures: 0, rests_until: 0 }
    }

    /// Whether it may be asked now; if not, when. Who may is the only one until it has an answer, or a rest is over.
    pub(crate) fn may_ask(&mut self, now: u64, dice: u64) -> Result<(), u64> {
        if self.failures < self.failures_max {
            return Ok(());
        }
        // A clock that was set back must not make a rest of years.
        let at_most = now.saturating_add(Self::REST_MAX.as_secs());
        if now < self.rests_until.min(at_most) {
            return Err(self.rests_until.min(at_most));
        }
        self.begin_rest(now, dice);
        Ok(())
    }

    pub(crate) fn succeeded(&mut self) {
        *self = Self::after(self.failures_max);
    }

    pub(crate) fn failed(&mut self, now: u64, dice: u64) {
        self.failures = self.failures.saturating_add(1);
        self.begin_rest(now, dice);
    }

    fn begin_rest(&mut self, now: u64, dice: u64) {
        let over = self.failures.saturating_sub(self.failures_max);
        // Whole seconds, and at least one.
        let rest = rest(over + 1, Self::REST_MAX, dice).as_secs().max(1);
        self.rests_until = now.saturating_add(rest);
    }
}
