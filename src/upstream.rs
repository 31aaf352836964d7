//! Forwarding: one request to the environment's host, one answer back.
//!
//! In: a request whose headers are clean and carry the credential. Out: the answer's head, its body still
//! streaming, or a [`Failure`]. Nothing is repeated unless it may be (`Outgoing::repeatable`) and then at
//! most once, after a pooled connection broke before the head of an answer had come.
//! What must never happen: a request that may have had an effect is sent twice; anything of one exchange
//! reaches another; anything is sent over a connection that was not verified.

pub(crate) mod answer;
pub(crate) mod dial;
pub(crate) mod errand;
pub(crate) mod exchange;
pub(crate) mod headers;
pub(crate) mod outgoing;
pub(crate) mod pool;
mod reach;
mod read_ahead;
mod resolve;
pub(crate) mod tunnel;
pub(crate) mod upload;
pub(crate) mod verify;

use std::{mem, rc::Rc};

use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use self::{
    exchange::Exchange,
    outgoing::Outgoing,
    pool::{Freshness, Pool},
    upload::{Body, Progress, Upload},
};
use crate::{
    config::Timeouts, gate::inbound::Session, limits::pace::Paced, listener::watch::Expiry, refusal::Failure,
};

/// An answer whose body is still to be read.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) fields: HeaderMap,
    /// In a box from the start: it is handed on several times.
    pub(crate) exchange: Box<Exchange>,
}

/// Sends `outgoing` over a connection of `pool`.
pub(crate) async fn forward(
    pool: &Rc<Pool>,
    mut outgoing: Outgoing,
    timeouts: &Timeouts,
    session: &Rc<Session>,
    asked: Instant,
    mut paced: Option<Paced>,
) -> Result<Answer, Failure> {
    let mut freshness = if outgoing.repeatable() { Freshness::Pooled } else { Freshness::Checked };
    let mut fields = mem::take(&mut outgoing.spare);
    let mut now = asked;
    loop {
        let lease = pool.lease(freshness, now).await?;
        let lease_began = lease.since();
        // Its credential was good when it was asked for, but that may be a while ago.
        if lease_began != asked && outgoing.is_over() {
            lease.finish();
            return Err(Failure::CredentialUnavailable);
        }
        let may_repeat = outgoing.repeatable() && lease.was_used();
        let progress =
            Progress { session: session.clone(), first_byte: timeouts.first_byte, paced: paced.take() };
        let body = mem::replace(&mut outgoing.body, Body::Over);
        let upload = Upload::new(outgoing.head.clone(), body, progress);
        let mut exchange = Box::new(Exchange::new(lease, upload));
        session.watch.upstream_from(lease_began, timeouts.first_byte, Expiry::FirstByte);
        match exchange.head(outgoing.is_head, &mut fields).await {
            Ok(status) => return Ok(Answer { status, fields, exchange }),
            Err(Failure::UpstreamClosed) if may_repeat => freshness = Freshness::New,
            Err(failure) => return Err(failure),
        }
        fields.clear();
        now = Instant::now();
    }
}
