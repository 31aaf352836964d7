//! The way to the provider: a ticket's page, and its button.
//!
//! In: what a browser asks for of a ticket. Out: the page, or the provider's URL with a cookie for the way back.
//!
//! What must never happen: opening a ticket's URL changes anything, since programs open what people are sent; two
//! browsers begin with one ticket; a state is stored that no ticket paid for.

use std::sync::Arc;

use super::{
    Connector, Event, Failure, Visit,
    answer::Answer,
    cookie::{self, Browser},
    record::{Attempt, Order},
    secret, shown,
};
use crate::{
    oauth::{
        provider::{self, Authorization},
        store::{Pending, PendingName, pending::Kind},
    },
    redaction,
    vault::secret::Secret,
};

impl Connector {
    /// Shows who asks for what.
    pub(super) async fn opened(&self, code: &str) -> Answer {
        match self.looked(code).await {
            Ok((_, order)) => {
                self.0.saw(&Event::TicketOpened(&order.purpose));
                Answer::Ticket(Box::new(order))
            }
            Err(answer) => answer,
        }
    }

    /// Takes the ticket, and sends the browser away.
    pub(super) async fn begun(&self, code: &str) -> Answer {
        let (name, order) = match self.looked(code).await {
            Ok(found) => found,
            Err(answer) => return answer,
        };
        match self.sent(name, &order).await {
            Ok(Ok(answer)) | Err(answer) => answer,
            Ok(Err(failure)) => {
                self.0.saw(&Event::Failed { purpose: &order.purpose, failure: &failure });
                let back = self.settings().may_return(&order);
                Answer::Failed { order: Box::new(order), failure: Box::new(failure), back, cookie: None }
            }
        }
    }

    /// The order of a ticket that is good.
    async fn looked(&self, code: &str) -> Result<(PendingName, Order), Answer> {
        let Some(code) = shown(code) else { return Err(self.turned_away(Visit::Ticket, Answer::Unknown)) };
        let name = PendingName::of(Kind::Ticket, &code);
        let found = self.0.store.look_pending(name, self.0.clock.now()).await;
        let found = found.map_err(|error| self.store_failed(&error))?;
        let Some(content) = found else { return Err(self.turned_away(Visit::Ticket, Answer::Unknown)) };
        // Only now: it is one of ours, so nobody else decides what is remembered.
        redaction::held().remember([&code]);
        let order = Order::open(&content).map_err(|unknown| self.store_failed(&unknown.into()))?;
        Ok((name, order))
    }

    /// What the provider has to be asked for comes first: when that fails, the ticket is still good.
    async fn sent(&self, ticket: PendingName, order: &Order) -> Result<Result<Answer, Failure>, Answer> {
        let settings = self.settings();
        if !settings.may_return(order) {
            return Ok(Err(Failure::ReturnUrl));
        }
        let provider = settings.providers.get(&order.purpose.provider);
        let provider = match (provider, settings.checked(&order.purpose)) {
            (Some(provider), Ok(_)) if settings.callback_path(provider).is_some() => provider,
            _ => return Ok(Err(Failure::NotConfigured)),
        };
        let Authorization { url, state, verifier } = match provider.authorization(&order.purpose.scopes).await
        {
            Ok(authorization) => authorization,
            Err(fault) => return Ok(Err(Failure::Provider(fault))),
        };
        let taken = self.0.store.take_pending(ticket, self.0.clock.now()).await;
        if taken.map_err(|error| self.store_failed(&error))?.is_none() {
            // Another browser was quicker.
            return Err(self.turned_away(Visit::Ticket, Answer::Unknown));
        }
        let cookie = match self.remembered(ticket, order, &state, verifier).await {
            Ok(cookie) => cookie,
            Err(failure) => return Ok(Err(failure)),
        };
        self.0.saw(&Event::TicketUsed(&order.purpose));
        Ok(Ok(Answer::Away { provider: order.purpose.provider.clone(), url, cookie }))
    }

    /// Keeps what belongs to `state`, now that its ticket is taken, and gives the cookie of the browser that may come back with it.
    async fn remembered(
        &self,
        ticket: PendingName,
        order: &Order,
        state: &Secret,
        verifier: Arc<Secret>,
    ) -> Result<String, Failure> {
        let life = self.settings().attempt_life;
        let value = provider::random().and_then(secret).map_err(|_| Failure::Interrupted)?;
        redaction::held().remember([&value]);
        let attempt = Attempt { order: order.clone(), verifier, browser: Browser::of(&value) };
        let content = attempt.seal().map_err(Failure::NotStored)?;
        let (name, ends) = (PendingName::of(Kind::State, state), self.0.ends(life));
        let pending = Pending { name, ends, content };
        let (caller, now) = (&order.purpose.caller, self.0.clock.now());
        self.0.outstanding.begun(caller, ticket, name, now, ends);
        if let Err(error) = self.0.store.put_pending(&pending, now).await {
            self.0.outstanding.ended(caller, name);
            return Err(Failure::NotStored(error));
        }
        Ok(cookie::set(state, &value, life))
    }
}
