//! Refreshing connections: one refresher for each, in this process and among all replicas.
//!
//! In: which connection, and why. Out: a connection with a token that may be used, or why there is none. Each attempt
//! runs in a task of its own, so that who waits for it may leave; whoever else asks meanwhile waits for the same one.
//!
//! # What is sent twice
//!
//! A provider that rotates refresh tokens takes each of them once, and takes a second use for a theft: it ends the whole
//! grant (RFC 9700, 4.14.2). So a refresh token is sent by the one holder of its connection's lease, the new one is
//! stored before the new access token is used, and what is sent again depends on what may have become of it
//! ([`Fate`](token_endpoint::Fate)):
//!
//! - *Untouched*: there was no connection, or the provider itself answered that it failed (5xx, 429) or refused for a
//!   reason of ours. It is sent again after a pause.
//! - *Gone*: `invalid_grant`. The store is read again, since somebody whose lease was lost may have won; only when nobody
//!   has, the consent is over.
//! - *Doubtful*: the answer was lost, late or odd, something on the way answered for the provider (502, 504), or a holder
//!   of the lease died. If the token was used, its successor is lost and so is the grant; if not, all is well; and no
//!   question but the token itself tells which. Sending it again loses nothing that is not lost already, but for one
//!   thing: the access token that is still good, which a provider ends along with the grant. So that one is used until
//!   it expires (or is refused), and then the token is sent again. Within `reuse_grace_ms`, where a provider has
//!   such a grace, it is sent again once and at once. Never sending it again would be no safer: every time-out would
//!   then cost a user's consent, also where nothing had happened.
//!
//! The doubt is in the store, and not in a process that may die: whoever leaves a lease without a word, dead or in doubt,
//! leaves it to its end, and the store tells its next holder. Nobody in doubt gives a lease back.
//!
//! Two windows cannot be closed: the provider has answered, and the process is killed before that is stored; and a
//! holder that can neither renew its lease nor be answered for as long as a lease lasts. In both, the answer to the repeat
//! says what happened: `invalid_grant`.
//!
//! What must never happen: a token is used before it is stored; an expired token is used; a caller that leaves ends a
//! refresh; two holders of a lease both write; the successor of a used token is dropped while it can be stored; tokens of a connection
//! that was forgotten meanwhile stay good.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::rand;
use tokio::sync::watch;

use self::attempt::Attempt;
pub(super) use self::rules::Breaker;
use super::{
    connection::ConnectionId,
    provider::Provider,
    store::{self, Doing, Store, Stored, Version},
    token_endpoint::{Blame, Fault, Grant, Granted, Revoked},
};
use crate::vault::{self, secret::Secret};

mod attempt;
pub(crate) mod rules;

/// The longest pause of one connection.
const REST_MAX: Duration = Duration::from_secs(60);

/// Failures of a provider in a row that end its being asked for a while; fewer are taken for bad luck.
const FAILURES_MAX: u32 = 5;

/// Why a refresh is wanted, and of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Because {
    /// The token of this version ends soon, or has ended.
    Due(Version),
    /// The token of this version was refused: a 401 that names an invalid token.
    Refused(Version),
}

impl Because {
    fn is_older_than(self, version: Version) -> bool {
        let (Self::Due(seen) | Self::Refused(seen)) = self;
        seen < version
    }

    fn is_refused(self) -> bool {
        matches!(self, Self::Refused(_))
    }
}

/// What came of a refresh.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// It is stored, and may be used.
    Fresh(Box<Stored>),
    /// The user must consent again.
    Gone,
    /// There is no such connection.
    Absent,
    /// Its provider gave no refresh token.
    Cannot,
    /// Not now.
    Later(Later),
}

/// Why not now.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Later {
    #[error("another process has been refreshing it for too long")]
    Held,
    #[error("whether its refresh token is used up is not known; its access token is used until it expires")]
    Doubtful(u64),
    #[error("it failed before; the next attempt is not before {0} (Unix seconds)")]
    Resting(u64),
    #[error("its provider is not configured any more")]
    NoProvider,
    #[error(
        "the provider of that name is another one than gave its tokens, which are not sent there; put the configuration back, or have its user connect again"
    )]
    OtherProvider,
    #[error("its provider gave no token")]
    Provider(#[source] Arc<Fault>),
    #[error("the store failed")]
    Store(#[source] Arc<store::Error>),
    #[error("the attempt ended without an answer")]
    Interrupted,
}

/// Time, in Unix seconds.
pub(crate) trait Clock: Send + Sync {
    fn now(&self) -> u64;
    fn sleep(&self, time: Duration) -> Doing<'_, ()>;
}

/// The clock of this machine.
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    fn sleep(&self, time: Duration) -> Doing<'_, ()> {
        Box::pin(tokio::time::sleep(time))
    }
}

/// Who changes a refresh token for new tokens.
pub(crate) trait Asked: Send + Sync {
    /// As [`Connection::issuer`](super::connection::Connection::issuer): who is asked.
    fn identity(&self) -> String;

    fn ask<'a>(&'a self, token: &'a Secret) -> Doing<'a, Result<Granted, Fault>>;

    /// Gives a token up.
    fn give_up<'a>(&'a self, token: Revoked<'a>) -> Doing<'a, Result<(), Fault>>;

    /// For how long after its use the provider takes a refresh token again.
    fn reuse_grace(&self) -> Duration;
}

impl Asked for Provider {
    fn identity(&self) -> String {
        Provider::identity(self)
    }

    fn ask<'a>(&'a self, token: &'a Secret) -> Doing<'a, Result<Granted, Fault>> {
        // Without scopes: those that were granted, in the provider's own words.
        Box::pin(async move { self.tokens(&Grant::Refresh { token, scopes: &[] }).await })
    }

    fn give_up<'a>(&'a self, token: Revoked<'a>) -> Doing<'a, Result<(), Fault>> {
        Box::pin(self.revoke(token))
    }

    fn reuse_grace(&self) -> Duration {
        self.settings().reuse_grace
    }
}

/// Who is asked, and when it is left alone.
pub(crate) struct Guard {
    asked: Arc<dyn Asked>,
    breaker: Mutex<Breaker>,
}

impl Guard {
    pub(crate) fn new(asked: Arc<dyn Asked>) -> Arc<Self> {
        Arc::new(Self { asked, breaker: Mutex::new(Breaker::after(FAILURES_MAX)) })
    }

    /// Whether it is who gave these tokens.
    fn is(&self, issuer: &str) -> bool {
        self.asked.identity() == issuer
    }

    pub(super) fn may_ask(&self, now: u64) -> Result<(), u64> {
        locked(&self.breaker).may_ask(now, dice())
    }

    async fn ask(&self, token: &Secret) -> Result<Granted, Fault> {
        self.asked.ask(token).await
    }

    pub(super) fn note(&self, fault: Option<&Fault>, now: u64) {
        match fault.map(Fault::blames) {
            Some(Blame::Provider) => locked(&self.breaker).failed(now, dice()),
            // It was not asked, and nothing is known of it.
            Some(Blame::Us) => {}
            Some(Blame::Grant) | None => locked(&self.breaker).succeeded(),
        }
    }

    fn reuse_grace(&self) -> Duration {
        self.asked.reuse_grace()
    }
}

/// Guards by the provider's name.
pub(crate) trait Providers: Send + Sync {
    fn of(&self, name: &str) -> Option<Arc<Guard>>;
}

impl Providers for BTreeMap<String, Arc<Guard>> {
    fn of(&self, name: &str) -> Option<Arc<Guard>> {
        self.get(name).cloned()
    }
}

/// Refreshes connections.
#[derive(Clone)]
pub(crate) struct Refresher(Arc<Shared>);

struct Shared {
    store: Arc<dyn Store>,
    providers: Arc<dyn Providers>,
    clock: Arc<dyn Clock>,
    owner: String,
    connections: Mutex<HashMap<ConnectionId, State>>,
    /// Attempts that run, and whether more are begun.
    attempts: watch::Sender<Attempts>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Attempts {
    running: usize,
    closed: bool,
}

/// Counts one attempt until it is dropped, also by a panic.
struct Running(Arc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.attempts.send_modify(|attempts| attempts.running -= 1);
    }
}

/// What this process knows of a connection that is being refreshed, or failed to be.
#[derive(Default)]
struct State {
    running: Option<watch::Receiver<Option<Outcome>>>,
    failures: u32,
    /// In Unix seconds.
    rests_until: u64,
    /// A refused token does not wait for that: it rests so that it can be used, and it cannot.
    may_be_refused: bool,
}

impl State {
    /// A clock that was set back must not make a pause of years.
    fn rests_until(&self, now: u64) -> u64 {
        self.rests_until.min(now.saturating_add(REST_MAX.as_secs()))
    }
}

impl Refresher {
    /// `owner`: this process, as no other calls itself.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        providers: Arc<dyn Providers>,
        clock: Arc<dyn Clock>,
        owner: String,
    ) -> Self {
        let (connections, attempts) = (Mutex::default(), watch::Sender::default());
        Self(Arc::new(Shared { store, providers, clock, owner, connections, attempts }))
    }

    /// Begins nothing any more, and waits for what runs: a provider's answer would be lost with the process.
    pub(crate) async fn finish(&self) {
        self.0.attempts.send_modify(|attempts| attempts.closed = true);
        let mut attempts = self.0.attempts.subscribe();
        // Its sender is in `self`.
        let _ = attempts.wait_for(|attempts| attempts.running == 0).await;
    }

    /// Whether the connection's next attempt is not to be before a later time.
    pub(crate) fn rests(&self, id: ConnectionId, now: u64) -> bool {
        locked(&self.0.connections).get(&id).is_some_and(|state| now < state.rests_until(now))
    }

    /// Knows nothing any more of other connections than these.
    pub(crate) fn keep(&self, is_there: impl Fn(ConnectionId) -> bool) {
        let is_running = |state: &State| state.running.is_some();
        locked(&self.0.connections).retain(|id, state| is_running(state) || is_there(*id));
    }

    /// Refreshes a connection, or waits for whoever does. It goes on when this is dropped.
    pub(crate) async fn refresh(&self, id: ConnectionId, because: Because) -> Outcome {
        let mut running = match self.running(id, because) {
            Ok(running) => running,
            Err(until) => return Outcome::Later(Later::Resting(until)),
        };
        let outcome = running.wait_for(Option::is_some).await;
        let outcome = outcome.ok().and_then(|outcome| outcome.clone());
        outcome.unwrap_or(Outcome::Later(Later::Interrupted))
    }

    /// The attempt that runs, or a new one; when the next may be, if none may now.
    fn running(&self, id: ConnectionId, because: Because) -> Result<watch::Receiver<Option<Outcome>>, u64> {
        let now = self.0.clock.now();
        let mut connections = locked(&self.0.connections);
        let state = connections.entry(id).or_default();
        // One whose task ended without a word has nobody who sends.
        if let Some(running) = state.running.as_ref().filter(|running| running.has_changed().is_ok()) {
            return Ok(running.clone());
        }
        let rests_until = state.rests_until(now);
        if now < rests_until && !(state.may_be_refused && because.is_refused()) {
            return Err(rests_until);
        }
        let (done, running) = watch::channel(None);
        let mut may = false;
        self.0.attempts.send_modify(|attempts| {
            may = !attempts.closed;
            attempts.running += usize::from(may);
        });
        if !may {
            return Err(now);
        }
        state.running = Some(running.clone());
        let (shared, counted) = (self.0.clone(), Running(self.0.clone()));
        tokio::spawn(async move {
            let _counted = counted;
            let outcome = shared.attempt(id, because).await;
            shared.note(id, &outcome);
            // Nobody may wait any more.
            let _ = done.send(Some(outcome));
        });
        Ok(running)
    }
}

impl Shared {
    async fn attempt(&self, id: ConnectionId, because: Because) -> Outcome {
        let Self { store, providers, clock, owner, .. } = self;
        let (store, providers, clock) = (&**store, &**providers, &**clock);
        Attempt { store, providers, clock, owner }.run(id, because).await
    }

    /// Before those who wait are told, so that who asks then finds it.
    fn note(&self, id: ConnectionId, outcome: &Outcome) {
        let now = self.clock.now();
        let mut connections = locked(&self.connections);
        let Outcome::Later(later) = outcome else {
            connections.remove(&id);
            return;
        };
        let state = connections.entry(id).or_default();
        state.running = None;
        state.failures = state.failures.saturating_add(1);
        // A provider that is down must not fill the log with each of its connections again and again.
        if state.failures.is_power_of_two() {
            let (failures, reason) = (state.failures, vault::chain(later));
            tracing::warn!(connection = %id, failures, reason, "a refresh failed");
        }
        let rest = rules::rest(state.failures, REST_MAX, dice()).as_secs().max(1);
        state.rests_until = now.saturating_add(rest);
        state.may_be_refused = matches!(later, Later::Doubtful(_));
    }
}

impl std::fmt::Debug for Refresher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Refresher")
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Spreads what would otherwise come at one time; nothing depends on it being random.
pub(super) fn dice() -> u64 {
    let mut bytes = [0; 8];
    match rand::fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests;
