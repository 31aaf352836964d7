//! One connection, its store, its provider and the time: all that replicas share, in one place that keeps the rules.
//!
//! The provider rotates: each refresh token is good once, and a second use ends the grant. Or it keeps its refresh token,
//! which is good until it is given up. Tokens are numbered.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use super::super::{attempt::Attempt, *};
use crate::oauth::{
    connection::{Access, Connection, Consent, Purpose, Summary, Tokens},
    store::{Committed, Error, Holder, Kept, Lease, Pending, PendingName, Taken},
    token_endpoint::Code,
};
use http::StatusCode;

/// What becomes of one request to the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fortune {
    Answered,
    /// It was done, and the answer was lost.
    Lost,
    /// The provider failed, and did nothing.
    Failed,
    /// The answer is odd but for the refresh token in it.
    Odd,
}

/// Where others may come in between.
pub(super) type Pause = fn() -> Doing<'static, ()>;

#[derive(Clone)]
pub(super) struct World {
    pub(super) state: Arc<Mutex<State>>,
    pub(super) pause: Pause,
    /// What is asked next becomes this.
    pub(super) fortune: Arc<dyn Fn() -> Fortune + Send + Sync>,
    /// Whether waiting takes time.
    pub(super) flows: bool,
}

pub(super) struct State {
    pub(super) now: u64,
    pub(super) stored: Option<Stored>,
    pub(super) lease: Option<(u64, Holder)>,
    fence: u64,
    /// Writes that fail, and whether they are done nevertheless.
    pub(super) writes_fail: Vec<bool>,
    /// The token that the provider takes; `None`: the grant is over.
    pub(super) good: Option<u64>,
    pub(super) asked: Vec<u64>,
    /// Whose exchange used a token up: the fence of its lease.
    used_by: BTreeMap<u64, u64>,
    pub(super) committed: BTreeSet<u64>,
    /// Holders that cannot commit what they were answered: killed, or without the answer.
    pub(super) excused: BTreeSet<u64>,
    pub(super) reused: u32,
    pub(super) life: u64,
    /// Whether the provider never changes its refresh token.
    pub(super) keeps: bool,
    /// Tokens that the provider was asked to forget.
    pub(super) given_up: Vec<(&'static str, u64)>,
}

pub(super) fn id() -> ConnectionId {
    ConnectionId::from_bytes([7; 16])
}

pub(super) fn token(kind: &str, number: u64) -> Arc<Secret> {
    Arc::new(Secret::new(format!("{kind}-token-{number}").into_bytes()).unwrap())
}

/// The number of a token.
pub(super) fn number(kind: &str, secret: &Secret) -> u64 {
    (0..1000).find(|number| *token(kind, *number) == *secret).unwrap()
}

impl World {
    /// A connection with the tokens 0; the access token is good for `life` seconds.
    pub(super) fn new(
        life: u64,
        pause: Pause,
        fortune: impl Fn() -> Fortune + Send + Sync + 'static,
    ) -> Self {
        let tokens = Tokens {
            access: Some(Access { token: token("access", 0), expires: Some(1000 + life) }),
            refresh: Some(token("refresh", 0)),
            ends: None,
        };
        let connection = Connection {
            id: id(),
            purpose: Purpose::usual(),
            issuer: "bank".into(),
            created: 1,
            consent: Consent::Live(tokens),
        };
        let state = State {
            now: 1000,
            stored: Some(Stored { connection, version: Version(1) }),
            lease: None,
            fence: 0,
            writes_fail: vec![],
            good: Some(0),
            asked: vec![],
            used_by: BTreeMap::new(),
            committed: [0].into(),
            excused: BTreeSet::new(),
            reused: 0,
            keeps: false,
            given_up: vec![],
            life,
        };
        let state = Arc::new(Mutex::new(state));
        Self { state, pause, fortune: Arc::new(fortune), flows: true }
    }

    pub(super) fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap())
    }

    pub(super) fn guards(&self) -> BTreeMap<String, Arc<Guard>> {
        [("bank".to_owned(), Guard::new(Arc::new(self.clone())))].into()
    }

    pub(super) fn version(&self) -> Version {
        self.with(|state| state.stored.as_ref().unwrap().version)
    }

    /// One attempt by a replica of this name.
    pub(super) async fn attempt(&self, owner: &str, because: Because) -> Outcome {
        let guards = self.guards();
        let outcome =
            Attempt { store: self, providers: &guards, clock: self, owner }.run(id(), because).await;
        if let Outcome::Fresh(stored) = &outcome {
            let Consent::Live(tokens) = &stored.connection.consent else { panic!("fresh, and gone") };
            let access = number("access", &tokens.access.as_ref().unwrap().token);
            self.with(|state| assert!(state.committed.contains(&access), "used before it was stored"));
        }
        outcome
    }

    /// The process of this name is no more: its lease ends, and what it was answered is lost.
    pub(super) fn kill(&self, owner: &str) {
        self.with(|state| {
            let now = state.now;
            if let Some((fence, holder)) = &mut state.lease
                && holder.owner == owner
            {
                holder.until = now;
                state.excused.insert(*fence);
            }
        });
    }
}

impl State {
    fn usable(&self) -> bool {
        let Some(Stored { connection: Connection { consent: Consent::Live(tokens), .. }, .. }) = &self.stored
        else {
            return false;
        };
        rules::usable(tokens, self.now).is_some()
    }

    fn holds(&self, lease: &Lease) -> bool {
        self.lease.as_ref().is_some_and(|(fence, _)| *fence == lease.fence)
    }

    /// What the provider does with a token, and what it answers.
    fn exchange(&mut self, sent: u64, fortune: Fortune, strict: bool) -> Result<Granted, Fault> {
        let fence = self.lease.as_ref().map_or(0, |(fence, _)| *fence);
        self.asked.push(sent);
        if fortune == Fortune::Failed {
            return Err(Fault::Failed(StatusCode::SERVICE_UNAVAILABLE));
        }
        if self.good != Some(sent) {
            if let Some(first) = self.used_by.get(&sent) {
                self.reused += 1;
                // Where leases end while their holders are well, who sent it is not known here.
                assert!(!strict || self.excused.contains(first), "token {sent} was sent twice without need");
                assert!(
                    !strict || !self.usable(),
                    "token {sent} was sent again while the access token was good"
                );
            }
            self.good = None;
            return Err(Fault::Refused(StatusCode::BAD_REQUEST, Code::InvalidGrant));
        }
        if self.keeps {
            let (access, life) = (token("access", sent + 1), Some(Duration::from_secs(self.life)));
            return Ok(Granted { access, life, scopes: None, refresh: None });
        }
        self.used_by.insert(sent, fence);
        self.good = Some(sent + 1);
        let (access, refresh) = (token("access", sent + 1), token("refresh", sent + 1));
        match fortune {
            Fortune::Lost => {
                self.excused.insert(fence);
                let late = crate::https::Error::AnswerTimeout(Duration::from_secs(1));
                Err(Fault::from(late))
            }
            Fortune::Odd => Err(Fault::Odd { status: StatusCode::OK, what: "odd", rotated: Some(refresh) }),
            Fortune::Answered | Fortune::Failed => {
                let life = Some(Duration::from_secs(self.life));
                Ok(Granted { access, life, scopes: None, refresh: Some(refresh) })
            }
        }
    }
}

impl Clock for World {
    fn now(&self) -> u64 {
        self.with(|state| state.now)
    }

    fn sleep(&self, time: Duration) -> Doing<'_, ()> {
        Box::pin(async move {
            (self.pause)().await;
            if self.flows {
                self.with(|state| state.now += time.as_secs().max(1));
            }
        })
    }
}

impl Asked for World {
    fn identity(&self) -> String {
        "bank".into()
    }

    fn ask<'a>(&'a self, sent: &'a Secret) -> Doing<'a, Result<Granted, Fault>> {
        Box::pin(async move {
            (self.pause)().await;
            let fortune = (self.fortune)();
            let answer = self.with(|state| state.exchange(number("refresh", sent), fortune, !self.flows));
            (self.pause)().await;
            answer
        })
    }

    fn give_up<'a>(&'a self, token: Revoked<'a>) -> Doing<'a, Result<(), Fault>> {
        let (kind, token) = match token {
            Revoked::Refresh(token) => ("refresh", token),
            Revoked::Access(token) => ("access", token),
        };
        self.with(|state| state.given_up.push((kind, number(kind, token))));
        Box::pin(async { Ok(()) })
    }

    fn reuse_grace(&self) -> Duration {
        Duration::ZERO
    }
}

impl Store for World {
    fn load(&self, _: ConnectionId) -> Doing<'_, Result<Option<Stored>, Error>> {
        Box::pin(async move {
            (self.pause)().await;
            Ok(self.with(|state| state.stored.clone()))
        })
    }

    fn list(&self) -> Doing<'_, Result<Vec<Summary>, Error>> {
        Box::pin(async { Ok(vec![]) })
    }

    fn insert<'a>(&'a self, _: &'a Connection) -> Doing<'a, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }

    fn take_lease<'a>(
        &'a self,
        id: ConnectionId,
        owner: &'a str,
        now: u64,
        lasts: Duration,
    ) -> Doing<'a, Result<Taken, Error>> {
        Box::pin(async move {
            (self.pause)().await;
            Ok(self.with(|state| {
                let left = match &state.lease {
                    _ if state.stored.is_none() => return Taken::Absent,
                    Some((_, holder)) if now < holder.until => return Taken::Held(holder.clone()),
                    Some((overtaken, holder)) => {
                        state.excused.insert(*overtaken);
                        Some(holder.clone())
                    }
                    None => None,
                };
                state.fence += 1;
                let holder = Holder { owner: owner.into(), until: now + lasts.as_secs() };
                state.lease = Some((state.fence, holder));
                Taken::Lease(Lease { id, fence: state.fence, abandoned_by: left })
            }))
        })
    }

    fn renew<'a>(&'a self, lease: &'a Lease, now: u64, lasts: Duration) -> Doing<'a, Result<Kept, Error>> {
        Box::pin(async move {
            (self.pause)().await;
            Ok(self.with(|state| match &mut state.lease {
                Some((fence, holder)) if *fence == lease.fence => {
                    holder.until = now + lasts.as_secs();
                    Kept::Done
                }
                _ => Kept::Lost,
            }))
        })
    }

    fn give_back<'a>(&'a self, lease: &'a Lease) -> Doing<'a, Result<(), Error>> {
        Box::pin(async move {
            (self.pause)().await;
            self.with(|state| {
                if state.holds(lease) {
                    state.lease = None;
                }
            });
            Ok(())
        })
    }

    fn commit<'a>(
        &'a self,
        lease: &'a Lease,
        expected: Version,
        connection: &'a Connection,
    ) -> Doing<'a, Result<Committed, Error>> {
        Box::pin(async move {
            (self.pause)().await;
            let done = self.with(|state| {
                let failure = (!state.writes_fail.is_empty()).then(|| state.writes_fail.remove(0));
                if !state.holds(lease) || state.stored.as_ref().map(|stored| stored.version) != Some(expected)
                {
                    return Ok(Committed::Lost);
                }
                let error = || Error::Unwritten { place: "memory".into(), source: "it is full".into() };
                if failure == Some(false) {
                    return Err(error());
                }
                if let Consent::Live(Tokens { access: Some(access), .. }) = &connection.consent {
                    state.committed.insert(number("access", &access.token));
                }
                let version = Version(expected.0 + 1);
                state.stored = Some(Stored { connection: connection.clone(), version });
                state.lease = None;
                if failure == Some(true) { Err(error()) } else { Ok(Committed::Stored(version)) }
            });
            (self.pause)().await;
            done
        })
    }

    fn remove<'a>(&'a self, _: &'a Lease) -> Doing<'a, Result<Kept, Error>> {
        Box::pin(async { Ok(Kept::Done) })
    }

    fn put_pending<'a>(&'a self, _: &'a Pending, _: u64) -> Doing<'a, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }

    fn look_pending(&self, _: PendingName, _: u64) -> Doing<'_, Result<Option<Arc<Secret>>, Error>> {
        Box::pin(async { Ok(None) })
    }

    fn take_pending(&self, _: PendingName, _: u64) -> Doing<'_, Result<Option<Arc<Secret>>, Error>> {
        Box::pin(async { Ok(None) })
    }
}
