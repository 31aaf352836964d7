//! Connections that come and go without a browser.
//!
//! In: a refresh token that a caller had before; or a connection that is to end. Out: a connection; or that it is
//! forgotten, and what became of its tokens at the provider.
//!
//! What must never happen: a connection is forgotten while a refresh brings it new tokens; tokens that the provider still
//! takes are forgotten without a word.

use std::sync::Arc;

use super::{Connector, Error, Event};
use crate::{
    oauth::{
        connection::{Connection, ConnectionId, Consent, Purpose, Tokens},
        giving_up::give_up,
        handle,
        holding::{LEASE, LOOK, LOOKS_MAX, leased, leave},
        store::{Kept, Lease, Taken},
        token,
        token_endpoint::Fault,
    },
    redaction,
    vault::secret::Secret,
};

/// A connection that is forgotten.
#[derive(Debug)]
pub(crate) struct Disconnected {
    pub(crate) revocation: Revocation,
}

/// What became of the tokens at the provider.
#[derive(Debug)]
pub(crate) enum Revocation {
    /// The provider took them back.
    Done,
    /// There was none that is good.
    Nothing,
    /// It has no endpoint for it. They end by themselves.
    NotOffered,
    /// It did not, and was not waited for: `force`.
    Failed(Fault),
    /// It is not configured any more, so nobody could be asked: `force`.
    NoProvider,
}

impl Revocation {
    /// For the log, and for a caller.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Done => "yes",
            Self::Nothing => "nothing",
            Self::NotOffered => "not_offered",
            Self::Failed(_) => "failed",
            Self::NoProvider => "no_provider",
        }
    }

    /// Why they were not taken back, where the provider did not.
    pub(super) fn reason(&self) -> Option<String> {
        match self {
            Self::Failed(fault) => Some(crate::vault::chain(fault)),
            _ => None,
        }
    }
}

impl Connector {
    /// Makes a connection of a refresh token. Whether it is good shows with the first refresh.
    ///
    /// # Errors
    /// [`Error`].
    pub(crate) async fn import(&self, wanted: &Purpose, refresh: Arc<Secret>) -> Result<ConnectionId, Error> {
        redaction::held().remember([&refresh]);
        let settings = self.settings();
        let purpose = settings.checked(wanted)?;
        let issuer = settings.issuer(&purpose)?;
        if !is_token(&refresh) {
            return Err(Error::Token);
        }
        let (id, created) = (ConnectionId::random()?, self.0.clock.now());
        let consent = Consent::Live(Tokens { access: None, refresh: Some(refresh), ends: None });
        let connection = Connection { id, purpose, issuer, created, consent };
        self.0.store.insert(&connection).await?;
        self.0.saw(&Event::Imported { purpose: &connection.purpose, id });
        Ok(id)
    }

    /// Gives a connection's tokens up at the provider, and forgets it. With `force` it is forgotten also when the provider
    /// does not take them back.
    ///
    /// # Errors
    /// [`Error::NoConnection`], [`Error::Held`], or without `force` [`Error::NotRevoked`] and [`Error::ProviderGone`].
    pub(crate) async fn disconnect(&self, id: ConnectionId, force: bool) -> Result<Disconnected, Error> {
        let mut looks = 0;
        loop {
            let lease = self.lease(id, &mut looks).await?;
            match self.ended(&lease, force).await {
                Ok((connection, revocation)) => {
                    if self.0.store.remove(&lease).await? == Kept::Lost {
                        // Somebody took over and may have brought new tokens: those must be given up, too.
                        continue;
                    }
                    let purpose = &connection.purpose;
                    self.0.saw(&Event::Disconnected { purpose, id, revocation: &revocation });
                    return Ok(Disconnected { revocation });
                }
                Err(error) => {
                    leave(&*self.0.store, &lease).await;
                    return Err(error);
                }
            }
        }
    }

    /// Waits while a refresh is at it, which ends with a token that must be given up.
    async fn lease(&self, id: ConnectionId, looks: &mut u32) -> Result<Lease, Error> {
        while *looks < LOOKS_MAX {
            *looks += 1;
            match self.0.store.take_lease(id, &self.0.owner, self.0.clock.now(), LEASE).await? {
                Taken::Lease(lease) => return Ok(lease),
                Taken::Absent => return Err(Error::NoConnection),
                Taken::Held(_) => self.0.clock.sleep(LOOK).await,
            }
        }
        Err(Error::Held)
    }

    /// Gives the tokens up.
    async fn ended(&self, lease: &Lease, force: bool) -> Result<(Connection, Revocation), Error> {
        let stored = self.0.store.load(lease.id).await?.ok_or(Error::NoConnection)?;
        let connection = stored.connection;
        let Consent::Live(tokens) = &connection.consent else {
            return Ok((connection, Revocation::Nothing));
        };
        let settings = self.settings();
        let name = &connection.purpose.provider;
        let provider = settings.providers.get(name);
        let revocation = match provider.filter(|provider| provider.identity() == connection.issuer) {
            // MX has nothing that takes back the tokens that it gives callers.
            None if name == handle::PROVIDER => Revocation::NotOffered,
            None if force => Revocation::NoProvider,
            None => return Err(Error::ProviderGone),
            Some(_) if tokens.refresh.is_none() && tokens.access.is_none() => Revocation::Nothing,
            Some(provider) => {
                match leased(&*self.0.store, &*self.0.clock, lease, give_up(&**provider, tokens)).await {
                    Ok(()) => Revocation::Done,
                    Err(Fault::NoEndpoint(_)) => Revocation::NotOffered,
                    Err(fault) if force => Revocation::Failed(fault),
                    Err(fault) => return Err(Error::NotRevoked(fault)),
                }
            }
        };
        Ok((connection, revocation))
    }
}

#[expect(clippy::disallowed_methods, reason = "whether a request can carry it")]
fn is_token(secret: &Secret) -> bool {
    token::is_legal(secret.expose())
}
