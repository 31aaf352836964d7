//! Tokens that MX gave callers, kept as connections that nobody refreshes.
//!
//! In: tokens of an answer, and whom they were given to. Out: their handles, when all are kept. Later they end, and are
//! forgotten.
//!
//! What must never happen: a handle is given out whose token is not stored; a token is used after its time.

use std::{sync::Arc, time::SystemTime};

use tokio::time::sleep;

use super::{Broker, Opened, Unavailable, owner};
use crate::{
    oauth::{
        cell::seconds,
        connection::{Access, Connection, ConnectionId, Consent, Purpose, State, Summary, Tokens, Why},
        handle::{self, Given, Handle, Whose},
        holding::{LEASE, LOOK, leave},
        store::{self, Committed, Stored, Taken},
    },
    vault,
};

/// How long MX's tokens are good, where an answer does not say.
const LIFE: u64 = 60 * 24 * 3600;

/// For so long, whoever shows the handle of a token that has ended is told so.
const REMEMBERED: u64 = 30 * 24 * 3600;

/// How many that have ended are dealt with at a time.
const TIDIED_MAX: usize = 100;

/// How often a change is tried that somebody else may be making.
const ROUNDS: u32 = 10;

impl Broker {
    /// Keeps tokens, and gives their handles, in their order.
    pub(crate) async fn keep(
        self: &Arc<Self>,
        whose: Whose,
        given: Vec<Given>,
    ) -> Result<Vec<Handle>, Unavailable> {
        let this = self.clone();
        self.here(async move {
            let opened = this.opened()?;
            let mut handles = Vec::with_capacity(given.len());
            let mut new = 0;
            for one in &given {
                let handle = opened.handles.handle(&whose, &one.token);
                let kept = this.kept(opened, &whose, one, handle.id()).await;
                new += usize::from(kept.map_err(|error| unkept(handle.id(), &error))?);
                handles.push(handle);
            }
            if new > 0 {
                let Whose { caller, environment, .. } = &whose;
                tracing::info!(caller, environment, new, "tokens that MX gave were kept, under handles");
            }
            Ok(handles)
        })
        .await
    }

    /// Whether anything had to be written so that one token is kept.
    async fn kept(
        &self,
        opened: &Opened,
        whose: &Whose,
        given: &Given,
        id: ConnectionId,
    ) -> Result<bool, Unkept> {
        for _ in 0..ROUNDS {
            let now = seconds(SystemTime::now());
            let Some(stored) = opened.store.load(id).await? else {
                match opened.store.insert(&connection(whose, given, id, now)).await {
                    Ok(()) => return Ok(true),
                    // By another request, or another replica.
                    Err(store::Error::Exists { .. }) => continue,
                    Err(error) => return Err(error.into()),
                }
            };
            let Some(changed) = changed(&stored.connection, whose, given, now) else { return Ok(false) };
            if let Some(stored) = put(opened, &stored, changed).await? {
                if let Some(cell) = self.cells().get(&id) {
                    // What fits no header was refused before it came here.
                    let _ = self.put(cell, &stored);
                }
                return Ok(true);
            }
            sleep(LOOK).await;
        }
        Err(Unkept::Held)
    }

    /// Ends tokens whose time is over, and forgets those that ended long ago.
    pub(super) async fn tidy_handles(&self, now: u64) {
        let Ok(opened) = self.opened() else { return };
        let index = self.index.load_full();
        let over = index.all.values().filter(|one| is_over(one, now)).take(TIDIED_MAX);
        for one in over {
            if let Err(error) = tidied(opened, one.id, now).await {
                let reason = vault::chain(&error);
                tracing::warn!(connection = %one.id, reason, "a token that has ended cannot be forgotten yet");
                break;
            }
        }
    }
}

/// Why a token is not kept.
#[derive(Debug, thiserror::Error)]
enum Unkept {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("somebody else is changing it")]
    Held,
}

fn unkept(id: ConnectionId, error: &Unkept) -> Unavailable {
    tracing::error!(connection = %id, reason = vault::chain(error), "a token that MX gave cannot be kept");
    Unavailable::Later
}

fn connection(whose: &Whose, given: &Given, id: ConnectionId, now: u64) -> Connection {
    let Whose { caller, environment, host, user } = whose.clone();
    let (provider, scopes) = (handle::PROVIDER.to_owned(), Vec::new());
    let purpose = Purpose { provider, environment, host, caller, user_guid: user, scopes };
    let consent = consent(given, given.ends.unwrap_or(now.saturating_add(LIFE)), now);
    Connection { id, purpose, issuer: String::new(), created: now, consent }
}

fn consent(given: &Given, ends: u64, now: u64) -> Consent {
    if ends <= now {
        return Consent::Gone { since: now, why: Why::Ended };
    }
    let access = Access { token: given.token.clone(), expires: Some(ends) };
    Consent::Live(Tokens { access: Some(access), refresh: None, ends: Some(ends) })
}

/// What is there, with another end; `None`: it is as the answer says, or the answer says nothing.
fn changed(there: &Connection, whose: &Whose, given: &Given, now: u64) -> Option<Connection> {
    let ends = given.ends?;
    let is_same = match &there.consent {
        Consent::Live(tokens) => tokens.ends == Some(ends),
        Consent::Gone { .. } => ends <= now,
    };
    (!is_same).then(|| Connection { created: there.created, ..connection(whose, given, there.id, now) })
}

/// Puts `changed` in the place of `stored`; `None`: somebody else is at it.
async fn put(opened: &Opened, stored: &Stored, changed: Connection) -> Result<Option<Stored>, store::Error> {
    let now = seconds(SystemTime::now());
    let Taken::Lease(lease) = opened.store.take_lease(changed.id, &owner(), now, LEASE).await? else {
        return Ok(None);
    };
    match opened.store.commit(&lease, stored.version, &changed).await? {
        Committed::Stored(version) => Ok(Some(Stored { connection: changed, version })),
        Committed::Lost => {
            leave(&*opened.store, &lease).await;
            Ok(None)
        }
    }
}

/// Whether something is to be done about it.
fn is_over(one: &Summary, now: u64) -> bool {
    one.purpose.provider == handle::PROVIDER
        && match one.state {
            State::Live { ends, .. } => ends.is_some_and(|ends| ends <= now),
            State::Gone { since, .. } => since.saturating_add(REMEMBERED) <= now,
        }
}

/// Does it, if it is still so. Whoever else has the lease does it, or changes it.
async fn tidied(opened: &Opened, id: ConnectionId, now: u64) -> Result<(), store::Error> {
    let Some(stored) = opened.store.load(id).await? else { return Ok(()) };
    if !is_over(&stored.connection.summary(), now) {
        return Ok(());
    }
    if let Consent::Live(_) = stored.connection.consent {
        let consent = Consent::Gone { since: now, why: Why::Ended };
        let ended = Connection { consent, ..stored.connection.clone() };
        return put(opened, &stored, ended).await.map(drop);
    }
    if let Taken::Lease(lease) = opened.store.take_lease(id, &owner(), now, LEASE).await? {
        opened.store.remove(&lease).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
