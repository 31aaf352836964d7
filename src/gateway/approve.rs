//! What is done before a request is sent: it is decided, gets its credential and is counted.
//!
//! In: a request as it came. Out: an [`Approved`] one, whose head is written, with what follows when its credential is not
//! taken and what is done with its answer. At most environments nothing of it waits ([`at_once`]).
//!
//! What must never happen: a request is counted as sent that is refused; one carries a credential whose time is over; a
//! request whose answer brings a token goes out while there is no place for that.

use std::{rc::Rc, sync::Arc};

use http::{Request, request};
use http_body::Body as _;
use hyper::body::Incoming;

use super::{
    Decided, End,
    access::{self, Renewal},
    again::{Again, OtherHead},
    choice::{AtHand, Choice},
    decide,
    entry::{Entry, Live},
    fields::FieldMask,
    handles::Keeping,
};
use crate::{
    credential::Credential,
    limits::breaker::Pass,
    listener::connection::Connection,
    redaction::Masker,
    refusal::Failure,
    snapshot::ListenerSettings,
    upstream::{headers::RequestHead, outgoing::Outgoing},
    vault::freshness::{Moment, Term},
    worker::{
        tokens::Access,
        view::{EnvironmentView, View},
    },
};

/// A request that may go out, and how.
pub(super) struct Approved<'v> {
    pub(super) outgoing: Outgoing,
    pub(super) environment: &'v Rc<EnvironmentView>,
    pub(super) masker: Option<Arc<Masker>>,
    pub(super) mask: Option<Arc<FieldMask>>,
    pub(super) keeping: Option<Box<Keeping>>,
    pub(super) pass: Pass,
    pub(super) second: Option<Second>,
}

/// What follows when the credential is not taken.
pub(super) enum Second {
    /// Of an environment with two keys.
    Key(Box<Again>),
    /// Of one whose tokens a provider gives.
    Token(Box<Renewal>),
}

/// What can be done before anything is sent. Nothing in it waits, so that a request in flight carries none of it.
pub(super) fn at_once<'v>(
    at: &Connection,
    view: &'v View,
    request: Request<Incoming>,
    entry: &mut Entry,
) -> Result<Approved<'v>, End> {
    let (head, body) = request.into_parts();
    let (listener, environment) = place(at, view, entry)?;
    let decided = decide(&view.snapshot, listener, &at.peer, &head, &mut Live { view, entry })?;
    let dressed = dressed(at, view, environment, &decided, None, (&head, &body), entry)?;
    Ok(dressed.approved(environment, head, body))
}

/// The same where tokens are attached that it may have to wait for, or where there must be a place for some.
pub(super) async fn with_token<'v>(
    at: &Connection,
    view: &'v View,
    request: Request<Incoming>,
    entry: &mut Entry,
) -> Result<Approved<'v>, End> {
    let (head, body) = request.into_parts();
    let (listener, environment) = place(at, view, entry)?;
    let decided = decide(&view.snapshot, listener, &at.peer, &head, &mut Live { view, entry })?;
    let obtained = match &decided.choice {
        Choice::Access(wanted) => {
            Some(access::obtain(at, view, environment, &decided, wanted, &head.method).await?)
        }
        _ => None,
    };
    let keeping = Keeping::of(at, view, environment, &decided, entry.start())?;
    let mut dressed = dressed(at, view, environment, &decided, obtained, (&head, &body), entry)?;
    dressed.keeping = keeping;
    Ok(dressed.approved(environment, head, body))
}

/// Where a request goes.
fn place<'v>(
    at: &Connection,
    view: &'v View,
    entry: &mut Entry,
) -> Result<(&'v ListenerSettings, &'v Rc<EnvironmentView>), End> {
    let listener = view.listener(at.listener.index).ok_or(Failure::NotReady)?;
    let environment = listener.environment.and_then(|index| view.environment(index));
    let environment = environment.ok_or(Failure::NotReady)?;
    entry.environment(environment);
    Ok((listener, environment))
}

/// A head with its credential, counted as one that is sent.
struct Dressed {
    sent: RequestHead,
    masker: Option<Arc<Masker>>,
    mask: Option<Arc<FieldMask>>,
    keeping: Option<Box<Keeping>>,
    term: Option<Rc<Term>>,
    repeatable: bool,
    pass: Pass,
    /// The same with the other of two keys.
    other: Option<OtherHead>,
    renewal: Option<Box<Renewal>>,
}

/// `obtained`: the token that was waited for, and how another one is had.
fn dressed(
    at: &Connection,
    view: &View,
    environment: &Rc<EnvironmentView>,
    decided: &Decided<'_>,
    obtained: Option<(Access, Option<Renewal>)>,
    (head, body): (&request::Parts, &Incoming),
    entry: &mut Entry,
) -> Result<Dressed, End> {
    let (access, renewal) = obtained.unzip();
    let (own, which) = environment.credential();
    let access = access.as_ref().map(|access| &*access.credential);
    let attached = decided.choice.attached(&AtHand { own, token: environment.bearer.as_ref(), access })?;
    let (credential, repeatable) = (attached.credential(), decided.grant.repeatable(&head.method));
    let may_repeat = repeatable && body.is_end_stream();
    let other = OtherHead::of(decided, head, environment, which, may_repeat);
    let renewal = renewal.flatten().map(|renewal| match may_repeat {
        true => Box::new(renewal.keeping(decided, head, &environment.settings)),
        false => Box::new(renewal),
    });
    let caller = decided.caller;
    entry.credential(credential);
    let term = credential.map(Credential::term);
    if term.is_some_and(|term| term.0.has_passed(|| Moment::at(entry.start()))) {
        return Err(Failure::CredentialUnavailable.into());
    }
    let sent = decided.head(head, &environment.settings, &attached);
    let masker = credential.map(Credential::masker);
    if let Some(operation) = decided.grant.operation() {
        let versions = view.snapshot.versions.get(caller.index().get());
        versions.inspect(|versions| versions.note(at.worker.place(), operation, &head.headers));
    }
    // Last: what is not sent uses nothing up. A probe of a breaker has its body: one that is still to come could make it
    // last as long as its caller likes.
    let pass = entry.sending(environment, &head.method, repeatable && !at.session.body_pending())?;
    entry.sent_out();
    let (term, mask) = (term.cloned(), view.snapshot.mask(caller.index()).cloned());
    Ok(Dressed { sent, masker, mask, keeping: None, term, repeatable, pass, other, renewal })
}

impl Dressed {
    fn approved(
        self,
        environment: &Rc<EnvironmentView>,
        head: request::Parts,
        body: Incoming,
    ) -> Approved<'_> {
        let Self { sent, masker, mask, keeping, term, repeatable, pass, other, renewal } = self;
        let outgoing = Outgoing::new(&head.method, sent, body, repeatable, head.headers).until(term);
        let second = match renewal {
            Some(renewal) => Some(Second::Token(renewal)),
            None => other.map(|other| Second::Key(other.ready(&outgoing))),
        };
        Approved { outgoing, environment, masker, mask, keeping, pass, second }
    }
}
