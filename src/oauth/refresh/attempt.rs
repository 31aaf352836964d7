//! One attempt to refresh one connection, over its seams. It knows no event loop, so that a model can run it in any order.

use std::{sync::Arc, time::Duration};

use super::{
    Because, Clock, Guard, Later, Outcome, Providers,
    rules::{self, Plan},
};
use crate::{
    oauth::{
        connection::{Connection, ConnectionId, Consent, Why},
        giving_up::give_up_unkept,
        holding::{LEASE, LOOK, LOOKS_MAX, leased, leave},
        store::{Committed, Kept, Lease, Store, Stored, Taken, Version},
        token_endpoint::{Fate, Fault},
    },
    vault::{self, secret::Secret},
};

/// Between two writes of what must not be lost.
const WRITE_PAUSE: Duration = Duration::from_secs(1);

/// One attempt.
pub(super) struct Attempt<'a> {
    pub(super) store: &'a dyn Store,
    pub(super) providers: &'a dyn Providers,
    pub(super) clock: &'a dyn Clock,
    /// This process, as no other calls itself.
    pub(super) owner: &'a str,
}

impl Attempt<'_> {
    pub(super) async fn run(&self, id: ConnectionId, because: Because) -> Outcome {
        match self.attempt(id, because).await {
            Ok(stored) => Outcome::Fresh(Box::new(stored)),
            Err(outcome) => outcome,
        }
    }

    async fn attempt(&self, id: ConnectionId, because: Because) -> Result<Stored, Outcome> {
        let before = self.load(id).await?;
        let name = before.connection.purpose.provider.as_str();
        let guard = self.providers.of(name).ok_or(Outcome::Later(Later::NoProvider))?;
        if let Some(done) = self.decided(&before, because) {
            return done;
        }
        let lease = self.lease(id, because).await?;
        // Only what is read under the lease is the newest for certain.
        let stored = match self.load(id).await {
            Ok(stored) => stored,
            Err(outcome) => return Err(self.leave(&lease, outcome).await),
        };
        let doubtful = lease.abandoned_by.is_some();
        match rules::plan(&stored, because, doubtful, self.clock.now()) {
            // Only who is going to ask takes the one probe of a provider that is left alone.
            Plan::Ask(_) if !guard.is(&stored.connection.issuer) => {
                Err(self.leave(&lease, Outcome::Later(Later::OtherProvider)).await)
            }
            Plan::Ask(token) => match guard.may_ask(self.clock.now()) {
                Ok(()) => self.ask(&guard, lease, stored, &token).await,
                Err(until) => Err(self.leave(&lease, Outcome::Later(Later::Resting(until))).await),
            },
            Plan::Use if doubtful => Ok(stored),
            Plan::Use => {
                self.give_back(&lease).await;
                Ok(stored)
            }
            Plan::Hold(until) => Err(Outcome::Later(Later::Doubtful(until))),
            Plan::Gone => Err(self.leave(&lease, Outcome::Gone).await),
            Plan::Cannot => Err(self.leave(&lease, Outcome::Cannot).await),
        }
    }

    /// What needs no lease to be known.
    fn decided(&self, stored: &Stored, because: Because) -> Option<Result<Stored, Outcome>> {
        match rules::plan(stored, because, false, self.clock.now()) {
            Plan::Use => Some(Ok(stored.clone())),
            Plan::Gone => Some(Err(Outcome::Gone)),
            Plan::Cannot => Some(Err(Outcome::Cannot)),
            Plan::Ask(_) | Plan::Hold(_) => None,
        }
    }

    /// Waits while somebody else is at it, who may bring what is wanted.
    async fn lease(&self, id: ConnectionId, because: Because) -> Result<Lease, Outcome> {
        for _ in 0..LOOKS_MAX {
            match self.store.take_lease(id, self.owner, self.clock.now(), LEASE).await {
                Ok(Taken::Lease(lease)) => return Ok(lease),
                Ok(Taken::Absent) => return Err(Outcome::Absent),
                Ok(Taken::Held(_)) => self.clock.sleep(LOOK).await,
                Err(error) => return Err(Outcome::Later(Later::Store(Arc::new(error)))),
            }
            let stored = self.load(id).await?;
            match self.decided(&stored, because) {
                Some(Ok(stored)) => return Err(Outcome::Fresh(Box::new(stored))),
                Some(Err(outcome)) => return Err(outcome),
                None => {}
            }
        }
        Err(Outcome::Later(Later::Held))
    }

    async fn ask(
        &self,
        guard: &Guard,
        lease: Lease,
        stored: Stored,
        token: &Secret,
    ) -> Result<Stored, Outcome> {
        let connection = &stored.connection;
        let mut repeated = false;
        loop {
            let asked = self.clock.now();
            let answer = leased(self.store, self.clock, &lease, guard.ask(token)).await;
            guard.note(answer.as_ref().err(), self.clock.now());
            let fault = match answer {
                Ok(granted) => {
                    let renewed = rules::renewed(connection, granted, asked);
                    return self.settle(guard, lease, stored.version, renewed).await;
                }
                Err(fault) => fault,
            };
            let now = self.clock.now();
            match (fault.fate(), &fault) {
                (Fate::Gone, _) => return self.refused(guard, lease, stored).await,
                // What was in doubt before stays so.
                (Fate::Untouched, _) if lease.abandoned_by.is_none() && !repeated => {
                    return Err(self.leave(&lease, later(fault)).await);
                }
                (Fate::Doubtful, Fault::Odd { rotated: Some(rotated), .. }) => {
                    let kept = rules::rotated(connection, rotated.clone());
                    self.settle(guard, lease, stored.version, kept).await?;
                    return Err(later(fault));
                }
                (Fate::Doubtful, _)
                    if !repeated && now.saturating_sub(asked) < guard.reuse_grace().as_secs() =>
                {
                    repeated = true;
                }
                // The lease is left to its end: whoever has the next one is told that this one was left.
                (Fate::Doubtful | Fate::Untouched, _) => return Err(later(fault)),
            }
        }
    }

    /// `invalid_grant`. Somebody whose lease was lost may have won, and brought another token.
    async fn refused(&self, guard: &Guard, lease: Lease, stored: Stored) -> Result<Stored, Outcome> {
        let newest = match self.load(stored.connection.id).await {
            Ok(newest) => newest,
            Err(outcome) => return Err(self.leave(&lease, outcome).await),
        };
        if newest.version != stored.version {
            let outcome = self.as_it_is(newest);
            self.give_back(&lease).await;
            return outcome;
        }
        let gone = rules::gone(&stored.connection, self.clock.now());
        let there = self.settle(guard, lease, stored.version, gone).await?;
        if is_gone(&there.connection) { Err(Outcome::Gone) } else { Ok(there) }
    }

    /// Writes `connection` in the place of version `expected`, again and again until it is done: it may hold tokens that
    /// nobody else has. Gives what is there then.
    async fn settle(
        &self,
        guard: &Guard,
        mut lease: Lease,
        mut expected: Version,
        connection: Connection,
    ) -> Result<Stored, Outcome> {
        let id = connection.id;
        loop {
            match self.store.commit(&lease, expected, &connection).await {
                Ok(Committed::Stored(version)) => return Ok(Stored { connection, version }),
                Ok(Committed::Lost) => tracing::warn!(connection = %id, "the lease of a refresh was lost"),
                Err(error) => tracing::error!(
                    connection = %id,
                    reason = vault::chain(&error),
                    "what a provider answered is not stored yet; trying again"
                ),
            }
            self.clock.sleep(WRITE_PAUSE).await;
            // It may have been written, or somebody may have taken over.
            match self.store.load(id).await {
                Ok(None) => {
                    give_up(guard, &connection).await;
                    return Err(Outcome::Absent);
                }
                Ok(Some(there)) if there.connection == connection => return Ok(there),
                // Who took over has sent the token that we had sent: ours is the newer answer.
                Ok(Some(there)) if was_refused(&there) && !is_gone(&connection) => expected = there.version,
                Ok(Some(there)) if there.version != expected => return self.as_it_is(there),
                Ok(Some(_)) | Err(_) => {}
            }
            if matches!(self.store.renew(&lease, self.clock.now(), LEASE).await, Ok(Kept::Lost))
                && let Ok(Taken::Lease(another)) =
                    self.store.take_lease(id, self.owner, self.clock.now(), LEASE).await
            {
                lease = another;
            }
        }
    }

    /// What somebody else has written.
    fn as_it_is(&self, stored: Stored) -> Result<Stored, Outcome> {
        match &stored.connection.consent {
            Consent::Gone { .. } => Err(Outcome::Gone),
            Consent::Live(tokens) if rules::usable(tokens, self.clock.now()).is_some() => Ok(stored),
            Consent::Live(_) => Err(Outcome::Later(Later::Held)),
        }
    }

    async fn load(&self, id: ConnectionId) -> Result<Stored, Outcome> {
        let loaded = self.store.load(id).await;
        loaded.map_err(|error| Outcome::Later(Later::Store(Arc::new(error))))?.ok_or(Outcome::Absent)
    }

    /// Nothing was sent under this lease, or the provider has said that it did nothing.
    async fn leave(&self, lease: &Lease, outcome: Outcome) -> Outcome {
        leave(self.store, lease).await;
        outcome
    }

    async fn give_back(&self, lease: &Lease) {
        // It ends by itself, only later.
        let _ = self.store.give_back(lease).await;
    }
}

/// Whoever forgot the connection gave its former tokens up, and knew nothing of these.
async fn give_up(guard: &Guard, connection: &Connection) {
    if let Consent::Live(tokens) = &connection.consent {
        give_up_unkept(&*guard.asked, &connection.purpose.provider, connection.id, tokens).await;
    }
}

fn later(fault: Fault) -> Outcome {
    Outcome::Later(Later::Provider(Arc::new(fault)))
}

fn is_gone(connection: &Connection) -> bool {
    matches!(connection.consent, Consent::Gone { .. })
}

fn was_refused(stored: &Stored) -> bool {
    matches!(stored.connection.consent, Consent::Gone { why: Why::Refused, .. })
}
