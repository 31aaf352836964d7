//! Forwarding: one request to the environment's host, one answer back.
//!
//! In: a request whose headers are clean and carry the credential. Out: the answer's head, its body still
//! streaming, or a [`Failure`]. Nothing is repeated unless it may be (`Outgoing::repeatable`) and then at
//! most once, after a pooled connection broke before the head of an answer had come.
//! What must never happen: a request that may have had an effect is sent twice; anything of one exchange
//! reaches another; anything is sent over a connection that was not verified.

pub(crate) mod dial;
pub(crate) mod headers;
pub(crate) mod outgoing;
pub(crate) mod pool;
mod read_ahead;
mod resolve;

use std::{io, rc::Rc};

use http::{Request, Response};
use hyper::body::Incoming;

use self::{
    outgoing::{Outgoing, OutgoingBody},
    pool::{Freshness, Lease, Pool},
};
use crate::{
    config::Timeouts,
    gate::{answer::Malformed, inbound::Session},
    gateway::refusal::Failure,
    listener::watch::Expiry,
};

/// An answer whose body is still to be read, and the connection that it comes on.
pub(crate) struct Answer {
    pub(crate) response: Response<Incoming>,
    pub(crate) lease: Lease,
}

/// Sends `outgoing` over a connection of `pool`.
pub(crate) async fn forward(
    pool: &Rc<Pool>,
    mut outgoing: Outgoing,
    timeouts: &Timeouts,
    session: &Rc<Session>,
) -> Result<Answer, Failure> {
    let mut freshness = if outgoing.repeatable() { Freshness::Pooled } else { Freshness::Checked };
    loop {
        let mut lease = pool.lease(freshness).await?;
        let was_used = lease.was_used();
        let again = if was_used { outgoing.copy() } else { None };
        session.watch.upstream(timeouts.first_byte, Expiry::FirstByte);
        let request = outgoing.into_request(session, timeouts.first_byte, lease.turn());
        match send(&mut lease, request).await {
            Ok(response) => return Ok(Answer { response, lease }),
            // Not a byte of it was written: it is as if it had never been sent.
            Err(Unsent::Returned(request)) if was_used => outgoing = Outgoing::from_request(*request),
            Err(Unsent::Returned(_)) => return Err(Failure::UpstreamClosed),
            Err(Unsent::Broken(failure)) => match again {
                Some(copy) if failure == Failure::UpstreamClosed => outgoing = copy,
                _ => return Err(failure),
            },
        }
        freshness = Freshness::New;
    }
}

enum Unsent {
    Returned(Box<Request<OutgoingBody>>),
    Broken(Failure),
}

async fn send(lease: &mut Lease, request: Request<OutgoingBody>) -> Result<Response<Incoming>, Unsent> {
    lease.sender().try_send_request(request).await.map_err(|mut error| match error.take_message() {
        Some(request) => Unsent::Returned(Box::new(request)),
        None => Unsent::Broken(failure(error.error())),
    })
}

/// Whose fault an error of hyper's client is.
pub(crate) fn failure(error: &hyper::Error) -> Failure {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        let io = error.downcast_ref::<io::Error>();
        if io.and_then(io::Error::get_ref).is_some_and(|inner| inner.is::<Malformed>()) {
            return Failure::UpstreamMalformed;
        }
        source = error.source();
    }
    if error.is_parse() || error.is_parse_status() {
        Failure::UpstreamMalformed
    } else {
        Failure::UpstreamClosed
    }
}
