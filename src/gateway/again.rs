//! A second attempt, with the other of an environment's two keys.
//!
//! In: the answer 401 to a request that carried one of them. Out: the answer that the caller gets. It is that of the
//! second attempt, when there is one: the catalogue must say that the request may be sent twice, it must have no body, and
//! budget and breaker must have room for one request more. Else it is the first one, as it came.
//! A 401 asks for a confirmation (`credential/confirm.rs`), unless MX has refused the other key as well.
//!
//! What must never happen: a request that may have had an effect is sent twice; a request that carried anything but one
//! of the two keys (a token, what its caller passed through) is sent again with a key; the other key goes out after its
//! time; something of the first answer becomes part of the second.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    time::Duration,
};

use http::{StatusCode, request};
use http_body::Body as _;
use tokio::time::timeout;

use super::{
    Decided, End,
    choice::{Attached, Choice},
    entry::Entry,
};
use crate::{
    credential::preference::{Preference, Which},
    limits::{breaker::Pass, outcome},
    listener::connection::Connection,
    upstream::{self, Answer, exchange::Exchange, headers::RequestHead, outgoing::Outgoing},
    vault::freshness::{Moment, Term},
    worker::view::EnvironmentView,
};

/// How much of the first answer is read, and for how long, so that its connection can serve on.
const REST_BYTES_MAX: usize = 64 * 1024;
const REST_TIMEOUT: Duration = Duration::from_secs(1);

/// A request's head with the other key.
pub(super) struct OtherHead {
    which: Which,
    /// `None` for a request that is never repeated, and for a key whose time is over.
    head: Option<(RequestHead, Rc<Term>)>,
}

impl OtherHead {
    /// `which`: the one of two keys that the request carries, if it is one of two. `None`: it carries none of them.
    pub(super) fn of(
        decided: &Decided<'_>,
        head: &request::Parts,
        environment: &EnvironmentView,
        which: Option<Which>,
        may_repeat: bool,
    ) -> Option<Self> {
        let which = which.filter(|_| matches!(decided.choice, Choice::Environment))?;
        let other = environment.key(which.other())?;
        let may_repeat = may_repeat && !other.term().0.has_passed(Moment::now);
        let written = || decided.head(head, &environment.settings, &Attached::Ours(other));
        Some(Self { which, head: may_repeat.then(|| (written(), other.term().clone())) })
    }

    /// `outgoing` is the request with the key that it carries.
    pub(super) fn ready(self, outgoing: &Outgoing) -> Box<Again> {
        let again = self.head.and_then(|(head, term)| outgoing.again(head, term));
        Box::new(Again { which: self.which, outgoing: again })
    }
}

/// What is done should one of two keys not be taken. In a box, so that the walks without it have no room for it.
pub(super) struct Again {
    /// The key that the request carries.
    which: Which,
    /// With the other one; `None` for a request that is never repeated.
    outgoing: Option<Outgoing>,
}

impl Again {
    /// What comes of `first`, which is a 401.
    pub(super) async fn attempt(
        self: Box<Self>,
        at: &Connection,
        environment: &Rc<EnvironmentView>,
        first: Answer,
        entry: &mut Entry,
    ) -> Result<Answer, End> {
        let Some(preference) = environment.settings.second.as_ref().map(|second| &*second.preference) else {
            return Ok(first);
        };
        // Its key was good when the first attempt began, but the answer to that may have taken a while.
        let outgoing = self.outgoing.filter(|outgoing| !outgoing.is_over());
        let room = outgoing.and_then(|outgoing| Some((outgoing, entry.sending_again(environment)?)));
        let Some((outgoing, pass)) = room else {
            preference.doubt(self.which);
            return Ok(first);
        };
        preference.second_attempt();
        entry.cut_over(environment.key(self.which.other()));
        let answer = instead(at, environment, first, outgoing, pass).await?;
        self::heard(preference, self.which, answer.status);
        Ok(answer)
    }
}

/// The answer to a second attempt, which takes the place of `first`.
pub(super) async fn instead(
    at: &Connection,
    environment: &EnvironmentView,
    first: Answer,
    outgoing: Outgoing,
    pass: Pass,
) -> Result<Answer, End> {
    let watch = &at.session.watch;
    // The first answer is there; the whole exchange's time runs on.
    watch.upstream_done();
    let rest = pin!(let_go(first.exchange));
    watch.until_expired(rest).await?;

    let (pool, timeouts) = (&environment.pool, &environment.settings.timeouts);
    let now = tokio::time::Instant::now();
    let forwarded = pin!(upstream::forward(pool, outgoing, timeouts, &at.session, now, None));
    let heard = watch.until_expired(forwarded).await;
    outcome::note(&environment.settings, pass, &at.session, &heard);
    Ok(heard??)
}

/// The other key than `which` was answered so.
fn heard(preference: &Preference, which: Which, status: StatusCode) {
    // A request that no key helps says nothing about the keys.
    if status != StatusCode::UNAUTHORIZED {
        preference.doubt(which);
    }
}

/// Reads what is left of an answer that nobody gets. One that is long, or slow, is closed with its connection.
async fn let_go(mut exchange: Box<Exchange>) {
    let rest = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut *exchange).poll_frame(cx)).await {
            bytes += frame.data_ref().map_or(0, bytes::Bytes::len);
            if bytes > REST_BYTES_MAX {
                return;
            }
        }
    };
    // Where it ends early, the exchange ends here.
    let _ = timeout(REST_TIMEOUT, rest).await;
}
