//! One request's walk, from a parsed head to the end of its answer.
//!
//! In: a request that the gate let through, on a connection whose peer is known. Out: an answer, always:
//! the upstream's, masked, or one of ours from `respond`. The access record is opened first and closed
//! once, when the answer is over or the caller has left.

mod access;
mod again;
pub(crate) mod answer;
mod approve;
pub(crate) mod choice;
pub(crate) mod connections;
pub(crate) mod entry;
pub(crate) mod fields;
mod handles;
pub(crate) mod respond;

use std::{
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    time::SystemTime,
};

use http::{
    HeaderMap, Request, Response, StatusCode,
    header::CONNECTION,
    request,
    uri::{PathAndQuery, Scheme},
};
use hyper::body::Incoming;

use self::{
    answer::{AnswerBody, Passage},
    approve::{Approved, Second},
    choice::{Attached, Choice},
    entry::Entry,
};
use crate::{
    admission::{Caller, NotAdmitted},
    browser,
    limits::outcome,
    listener::{connection::Connection, peer::Peer, watch::Expiry},
    policy::{self, Api, Denial, Grant, form, target::Target},
    refusal::{Failure, Refusal},
    snapshot::{Environment, ListenerSettings, Snapshot},
    upstream::{
        self,
        headers::{self, RequestHead},
    },
    users::{self, Reason, Told, end_user::EndUser},
    worker::view::View,
};

/// Serves one request.
pub(crate) async fn serve(at: Rc<Connection>, request: Request<Incoming>) -> Response<AnswerBody> {
    let mut entry = Entry::open(&at, request.method());
    let version = request.version();
    let Some(view) = at.worker.view() else {
        return in_words_of(version, respond::end(&at, End::Failed(Failure::NotReady), entry));
    };
    if view.serves_connections(at.listener.index) {
        return in_words_of(version, connections::serve(&at, &view, request, entry).await);
    }
    let walked = caught(pin!(walk(&at, &view, request, &mut entry))).await;
    let response = match walked
        .unwrap_or(Err(End::Failed(Failure::Internal)))
        .and_then(|passage| answer::pass_on(&at, passage, &mut entry))
    {
        Ok((head, body)) => answer::response(&at, version, head, body, entry),
        Err(end) => respond::end(&at, end, entry),
    };
    in_words_of(version, response)
}

/// For HTTP/1.0, hyper adds to an answer of 1.1 that the connection is kept, beside our word that it ends.
fn in_words_of(version: http::Version, mut response: Response<AnswerBody>) -> Response<AnswerBody> {
    if version == http::Version::HTTP_10 && response.headers().contains_key(CONNECTION) {
        *response.version_mut() = version;
    }
    response
}

/// Who, what, with which secret; then forward.
async fn walk(
    at: &Connection,
    view: &View,
    request: Request<Incoming>,
    entry: &mut Entry,
) -> Result<Passage, End> {
    let approved = match view.attaches_tokens(at.listener.index) {
        false => approve::at_once(at, view, request, entry)?,
        // In a box, since other walks wait for nothing before they send.
        true => Box::pin(approve::with_token(at, view, request, entry)).await?,
    };
    let Approved { outgoing, environment, masker, mask, keeping, pass, second } = approved;
    let timeouts = &environment.settings.timeouts;
    let asked = entry.asked_upstream();
    at.session.watch.total(asked, timeouts.total);
    let forwarded =
        pin!(upstream::forward(&environment.pool, outgoing, timeouts, &at.session, asked, entry.paced()));
    let heard = at.session.watch.until_expired(forwarded).await;
    outcome::note(&environment.settings, pass, &at.session, &heard);
    let mut answer = match heard {
        Ok(Ok(answer)) => answer,
        // The caller's own body was refused or broke off: that is why the upstream got no request.
        // It waited for a connection until its token was over; the next one may have another.
        Ok(Err(Failure::CredentialUnavailable)) if matches!(second, Some(Second::Token(_))) => {
            return Err(Failure::TokenUnavailable.into());
        }
        Ok(Err(failure)) => return Err(at.session.body_refusal().map_or(failure.into(), End::from)),
        Err(expiry) => return Err(expiry.into()),
    };
    if answer.status == StatusCode::UNAUTHORIZED {
        // There may be another key, or another token. In a box, like masking: hardly any walk comes here.
        answer = match second {
            Some(Second::Key(again)) => Box::pin(again.attempt(at, environment, answer, entry)).await?,
            Some(Second::Token(renewal)) => Box::pin(renewal.attempt(at, environment, answer, entry)).await?,
            None => answer,
        };
        if answer.status == StatusCode::UNAUTHORIZED {
            entry.not_taken();
        }
    }
    entry.upstream_answered();
    let mut passage = Passage::new(answer, environment.clone(), masker);
    let keeping = keeping.filter(|_| passage.is_success());
    if mask.is_some() || keeping.is_some() {
        // In a box, so that the walks of other callers do not have room for it.
        Box::pin(passage.rewrite(at, keeping.as_deref(), mask.as_deref(), entry)).await?;
    }
    Ok(passage)
}

/// Every decision about a request, in order; `trail` hears each. It needs no connection and no secret, so
/// that `explain` walks the same way.
pub(crate) fn decide<'r>(
    snapshot: &Snapshot,
    listener: &ListenerSettings,
    peer: &Peer,
    head: &'r request::Parts,
    trail: &mut impl Trail,
) -> Result<Decided<'r>, End> {
    let index = listener.environment.ok_or(Failure::NotReady)?;
    let environment = snapshot.environments.get(index).ok_or(Failure::NotReady)?;
    let (caller, end_user) = admitted(snapshot, listener, peer, head, trail)?;
    let bound = snapshot.users.of(caller.index());

    let path_and_query = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let target = Target::parse(path_and_query).map_err(|_| Refusal::MalformedTarget)?;
    let allowed = snapshot.grants.of(caller.index(), index);
    let granted = |allowed| policy::decide(allowed, environment.api, &head.method, &target);
    let grant = granted(allowed).or_else(|denial| {
        // Observe mode: a wider grant for a time, asked in the same way.
        let observed = snapshot.grants.observed(caller.index(), index, trail.now());
        let Some(grant) = observed.and_then(|wider| granted(Some(wider)).ok()) else {
            trail.denied(&denial);
            return Err(denial);
        };
        trail.would_refuse(denial.refusal);
        Ok(grant)
    })?;
    trail.granted(&grant)?;
    if environment.api == Api::Platform && form::is_form(&head.headers) {
        return Err(Refusal::FormBody.into());
    }
    if let Some(bound) = bound {
        bound
            .check(index, &head.method, &grant, &target, end_user.as_deref())
            .map_err(|reason| trail.not_bound(reason, caller))?;
    }

    if snapshot.gives_handles && handles::stray(&head.headers, path_and_query) {
        return Err(Refusal::ConnectionDenied.into());
    }
    let choice = Choice::of(environment, &grant, head, &target)?;
    Ok(Decided { caller, end_user, target, grant, choice })
}

/// Who calls, and for whom, on any listener.
fn admitted(
    snapshot: &Snapshot,
    listener: &ListenerSettings,
    peer: &Peer,
    head: &request::Parts,
    trail: &mut impl Trail,
) -> Result<(Caller, Option<Rc<str>>), End> {
    let path_and_query = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let caller = snapshot.admission.admit(peer, &head.headers, path_and_query).map_err(|not| {
        trail.turned_away(not);
        not.refusal()
    })?;
    trail.admitted(caller, snapshot.admission.callers.name(caller.index()));
    browser::check_head(head, &listener.browser())?;
    if head.uri.scheme() == Some(&Scheme::HTTPS) && !(listener.secured || snapshot.admission.trusts(peer)) {
        return Err(Refusal::MisdirectedRequest.into());
    }
    trail.check_running(caller)?;
    let bound = snapshot.users.of(caller.index());
    let Some(end_user) = bound.and_then(|bound| bound.end_user.as_ref()) else { return Ok((caller, None)) };
    let identified = trail.identify(end_user, caller, &head.headers);
    Ok((caller, Some(identified.map_err(|reason| trail.not_bound(reason, caller))?)))
}

/// Hears what is found out about a request, as it is found out.
pub(crate) trait Trail {
    /// Nobody who may call.
    fn turned_away(&mut self, not: NotAdmitted);
    /// Who calls.
    fn admitted(&mut self, caller: Caller, name: Option<&Arc<str>>);
    /// What only a running gateway knows: whether an operator has stopped this, or a limit is reached.
    fn check_running(&mut self, caller: Caller) -> Result<(), Refusal>;
    /// The user whom the request's token names.
    fn identify(
        &mut self,
        end_user: &EndUser,
        caller: Caller,
        headers: &HeaderMap,
    ) -> Result<Rc<str>, Reason>;
    /// The request is not for a user whom its caller may reach; gives what the caller is told.
    fn not_bound(&mut self, reason: Reason, caller: Caller) -> Told;
    /// What the caller asks for and may not have.
    fn denied(&mut self, denial: &Denial);
    /// What the caller asks for and is let through with, since it is in observe mode.
    fn would_refuse(&mut self, refusal: Refusal);
    /// When the request came.
    fn now(&self) -> SystemTime;
    /// What the caller asks for and may have, unless an operator has stopped it.
    fn granted(&mut self, grant: &Grant) -> Result<(), Refusal>;
    /// What the caller asks for of users' connections.
    fn asks_for(&mut self, template: &'static str);
}

/// A request that may go out.
pub(crate) struct Decided<'r> {
    caller: Caller,
    /// Whom its token names, where one is needed.
    end_user: Option<Rc<str>>,
    target: Target<'r>,
    pub(crate) grant: Grant,
    pub(crate) choice: Choice,
}

impl Decided<'_> {
    /// The head that goes out.
    pub(crate) fn head(
        &self,
        head: &request::Parts,
        environment: &Environment,
        attached: &Attached<'_>,
    ) -> RequestHead {
        let kept = self.target.without(&environment.query_names);
        let target = attached.credential().map_or([&kept, "", ""], |ours| ours.target(&kept));
        let fields = attached.fields(&self.grant);
        headers::to_upstream(&head.method, target, &head.headers, environment, &self.grant, fields)
    }
}

/// Why a walk ended before there was an answer to pass on.
pub(crate) enum End {
    Refused(Denial),
    Failed(Failure),
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal.into())
    }
}

impl From<Denial> for End {
    fn from(denial: Denial) -> Self {
        Self::Refused(denial)
    }
}

impl From<users::Told> for End {
    fn from(told: users::Told) -> Self {
        match told {
            users::Told::Refused(refusal) => refusal.into(),
            users::Told::Failed(failure) => failure.into(),
        }
    }
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<Expiry> for End {
    fn from(expiry: Expiry) -> Self {
        match expiry {
            Expiry::Head => Refusal::HeadTimeout.into(),
            Expiry::Upload => Refusal::BodyTimeout.into(),
            Expiry::FirstByte => Failure::FirstByteTimeout.into(),
            Expiry::AnswerIdle => Failure::UpstreamIdleTimeout.into(),
            Expiry::Total => Failure::TotalTimeout.into(),
            Expiry::Suspended => Refusal::Suspended.into(),
        }
    }
}

/// `None` when `walk` panicked: the request gets an answer and the connection goes on. The panic hook has
/// logged where.
async fn caught<F: Future>(mut walk: Pin<&mut F>) -> Option<F::Output> {
    std::future::poll_fn(|cx| match std::panic::catch_unwind(AssertUnwindSafe(|| walk.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Some),
        Err(_) => std::task::Poll::Ready(None),
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// A panic needs a defect, so none can be brought about from outside: this is the place that catches it, in
    /// a process of its own with the log that a gateway has.
    #[test]
    fn a_panic_in_a_walk_ends_it_and_says_where_and_nothing_else() {
        let run = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "gateway::tests::in_a_child_a_walk_panics", "--ignored", "--nocapture"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "{said}");
        assert_eq!(said.matches("panicked at src/gateway.rs:").count(), 3, "{said}");
        assert!(said.contains("a text without values"), "{said}");
        for leak in ["9f3Kq7Zt20xLmW8b", "USR-4a7c2e90", "stack backtrace"] {
            assert!(!said.contains(leak), "{said}");
        }
    }

    #[test]
    #[ignore = "runs in a child process: it sets this process's panic hook and subscriber"]
    fn in_a_child_a_walk_panics() {
        let secret = crate::vault::secret::Secret::new(b"9f3Kq7Zt20xLmW8b".to_vec()).unwrap();
        crate::redaction::held().remember(&[std::sync::Arc::new(secret)]);
        let config = crate::config::Log { filter: "trace".into(), json: false };
        crate::log::init(&config, std::io::stderr()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let path = String::from("/users/USR-4a7c2e90-ü/members");
        runtime.block_on(async {
            assert_eq!(caught(pin!(async { panic!("a text without values") })).await, None::<()>);
            assert_eq!(
                caught(pin!(async { panic!("with {}", "9f3Kq7Zt20xLmW8b".to_owned()) })).await,
                None::<()>
            );
            // What slicing a text in the middle of a character says holds the text.
            assert_eq!(caught(pin!(async { path.get(..).unwrap()[21..].len() })).await, None);
            assert_eq!(caught(pin!(async { path.len() })).await, Some(path.len()));
        });
    }
}
