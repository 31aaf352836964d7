//! What an exchange says about its upstream, for the breaker and the budget.
//!
//! A caller's part is left out: its own status codes, its leaving, a body of its own that did not come.

use std::time::SystemTime;

use http::StatusCode;
use tokio::time::Instant;

use super::{breaker::Pass, retry_after};
use crate::{
    gate::inbound::Session, listener::watch::Expiry, refusal::Failure, snapshot::Environment,
    upstream::Answer,
};

/// Which way an upstream's state points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Works,
    Fails,
    /// Neither.
    Nothing,
}

/// How an exchange ended, or its answer began.
pub(crate) type Heard = Result<Result<Answer, Failure>, Expiry>;

/// Takes note of what came of a request that `pass` let out.
pub(crate) fn note(environment: &Environment, pass: Pass, session: &Session, heard: &Heard) {
    if let Ok(Ok(answer)) = heard
        && matches!(answer.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
        && let Some(wait) = retry_after::read(&answer.fields, SystemTime::now())
        && environment.budget.halve(wait, Instant::now())
    {
        let seconds = retry_after::seconds(wait);
        tracing::warn!(
            environment = &*environment.name,
            status = answer.status.as_u16(),
            seconds,
            "the upstream asked for less: the environment's budget is halved"
        );
    }
    let Some(breaker) = &environment.breaker else { return };
    match word(heard, Body::of(session)) {
        Word::Works => breaker.works(&pass),
        Word::Fails => breaker.fails(&pass, Instant::now()),
        Word::Nothing => {}
    }
}

/// A caller's part in an exchange: time may have gone by only for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    None,
    Sent,
    /// The caller still owes a part of it, which may be all that the upstream waited for.
    Pending,
}

impl Body {
    fn of(session: &Session) -> Self {
        match (session.body_pending(), session.body_bytes()) {
            (true, _) => Self::Pending,
            (false, 0) => Self::None,
            (false, _) => Self::Sent,
        }
    }
}

fn word(heard: &Heard, body: Body) -> Word {
    let (failed, before_the_body) = match heard {
        Ok(Ok(answer)) => match answer.status {
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                (true, false)
            }
            _ => return Word::Works,
        },
        Ok(Err(failure)) => match failure {
            Failure::UpstreamUnreachable
            | Failure::UpstreamUntrusted
            | Failure::UpstreamAddressRefused
            | Failure::ProxyFailed
            | Failure::ConnectTimeout => (true, true),
            Failure::UpstreamClosed | Failure::FirstByteTimeout => (true, false),
            _ => (false, false),
        },
        Err(Expiry::FirstByte) => (true, false),
        Err(Expiry::Total) => (body == Body::None, false),
        Err(_) => (false, false),
    };
    if failed && (before_the_body || body != Body::Pending) { Word::Fails } else { Word::Nothing }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_upstream_that_had_all_it_needs_can_fail() {
        for (heard, whole, pending) in [
            (Ok(Failure::UpstreamUnreachable), Word::Fails, Word::Fails),
            (Ok(Failure::UpstreamUntrusted), Word::Fails, Word::Fails),
            (Ok(Failure::UpstreamAddressRefused), Word::Fails, Word::Fails),
            (Ok(Failure::ProxyFailed), Word::Fails, Word::Fails),
            (Ok(Failure::ConnectTimeout), Word::Fails, Word::Fails),
            (Ok(Failure::UpstreamClosed), Word::Fails, Word::Nothing),
            (Err(Expiry::FirstByte), Word::Fails, Word::Nothing),
            // Our own limits, and what it answered after all.
            (Ok(Failure::UpstreamBusy), Word::Nothing, Word::Nothing),
            (Ok(Failure::UpstreamMalformed), Word::Nothing, Word::Nothing),
            // It was long in coming, or so was the body.
            (Err(Expiry::Total), Word::Nothing, Word::Nothing),
            // The caller's.
            (Err(Expiry::Upload), Word::Nothing, Word::Nothing),
            (Err(Expiry::Head), Word::Nothing, Word::Nothing),
        ] {
            let heard = heard.map(Err);
            assert_eq!(word(&heard, Body::Sent), whole, "{:?}", heard.map(|failed| failed.err()));
            let none = if matches!(heard, Err(Expiry::Total)) { Word::Fails } else { whole };
            assert_eq!(word(&heard, Body::None), none);
            assert_eq!(word(&heard, Body::Pending), pending, "{:?}", heard.map(|failed| failed.err()));
        }
    }
}
