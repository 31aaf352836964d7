//! One request's walk, from a parsed head to the end of its answer.
//!
//! In: a request that the gate let through, on a connection whose peer is known. Out: an answer, always:
//! the upstream's, masked, or one of ours from `respond`. The access record is opened first and closed
//! once, when the answer is over or the caller has left.

pub(crate) mod answer;
pub(crate) mod entry;
pub mod refusal;
pub(crate) mod respond;

use std::{
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header::AUTHORIZATION, uri::PathAndQuery};
use hyper::body::Incoming;

use self::{
    answer::{AnswerBody, Passage},
    entry::Entry,
    refusal::{Failure, Refusal},
};
use crate::{
    browser,
    credential::Credential,
    listener::{connection::Connection, watch::Expiry},
    policy::{self, Denial, Grant, target::Target},
    redaction::Masker,
    snapshot::Bearer,
    tokens,
    upstream::{self, headers, outgoing::Outgoing},
    worker::view::{EnvironmentView, View},
};

/// Serves one request.
pub(crate) async fn serve(at: Rc<Connection>, request: Request<Incoming>) -> Response<AnswerBody> {
    let mut entry = Entry::open(&at, request.method());
    let version = request.version();
    let Some(view) = at.worker.view() else {
        return respond::end(&at, End::Failed(Failure::NotReady), entry);
    };
    let walked = caught(pin!(walk(&at, &view, request, &mut entry))).await;
    match walked
        .unwrap_or(Err(End::Failed(Failure::Internal)))
        .and_then(|passage| answer::pass_on(&at, passage, &mut entry))
    {
        Ok((head, body)) => answer::response(&at, version, head, body, entry),
        Err(end) => respond::end(&at, end, entry),
    }
}

/// Who, what, with which secret; then forward.
async fn walk(
    at: &Connection,
    view: &View,
    request: Request<Incoming>,
    entry: &mut Entry,
) -> Result<Passage, End> {
    let Approved { outgoing, environment, masker } = approve(at, view, request, entry)?;
    let timeouts = &environment.settings.timeouts;
    let asked = entry.asked_upstream();
    at.session.watch.total(asked, timeouts.total);
    let forwarded = pin!(upstream::forward(&environment.pool, outgoing, timeouts, &at.session, asked));
    let answer = match at.session.watch.until_expired(forwarded).await {
        Ok(Ok(answer)) => answer,
        // The caller's own body was refused or broke off: that is why the upstream got no request.
        Ok(Err(failure)) => return Err(at.session.body_refusal().map_or(failure.into(), End::from)),
        Err(expiry) => return Err(expiry.into()),
    };
    entry.upstream_answered();
    Ok(Passage { answer, environment: environment.clone(), masker })
}

/// A request that may go out, and how.
struct Approved<'v> {
    outgoing: Outgoing,
    environment: &'v Rc<EnvironmentView>,
    masker: Option<Arc<Masker>>,
}

/// All that is decided before anything is sent. Nothing in it waits, so that a request in flight carries none of it.
fn approve<'v>(
    at: &Connection,
    view: &'v View,
    request: Request<Incoming>,
    entry: &mut Entry,
) -> Result<Approved<'v>, End> {
    let (head, body) = request.into_parts();
    let listener = view.listener(at.listener.index).ok_or(Failure::NotReady)?;
    let environment = view.environment(listener.environment).ok_or(Failure::NotReady)?;
    entry.environment(environment);

    let path_and_query = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let caller = view.snapshot.admission.admit(&at.peer, &head.headers, path_and_query).map_err(|not| {
        entry.origin(not.origin);
        at.worker.not_admitted(not.reason, not.origin, at.executable.as_deref());
        not.refusal()
    })?;
    entry.origin(caller.origin());
    let admission = &view.snapshot.admission;
    if let Some(name) = admission.callers.name(caller.index()) {
        entry.caller(name);
        at.recognised(name, caller.origin());
    }
    browser::check_head(&head, &listener.browser())?;
    at.check_suspended(view, entry.began())?;

    let target = Target::parse(path_and_query).map_err(|_| Refusal::MalformedTarget)?;
    let allowed = view.snapshot.grants.of(caller.index(), listener.environment);
    let grant = policy::decide(allowed, environment.settings.api, &head.method, &target)
        .inspect_err(|denial| entry.denied(denial))?;
    entry.granted(&grant);
    if let Some(operation) = grant.operation() {
        at.asked_for(operation.id);
        at.check_suspended(view, entry.began())?;
    }

    let choice = choose(environment, &grant, &head.headers)?;
    entry.credential(choice.credential());
    let kept = target.without(&environment.settings.query_names);
    let sent = headers::to_upstream(
        &head.method,
        sent_target(&kept, choice.credential()),
        &head.headers,
        &environment.settings,
        &grant,
        choice.fields(&grant),
    );
    let repeatable = grant.repeatable(&head.method);
    let outgoing = Outgoing::new(&head.method, sent, body, repeatable, head.headers);
    Ok(Approved { outgoing, environment, masker: choice.credential().map(Credential::masker) })
}

/// Which credential a granted request gets.
enum Choice<'v> {
    Ours(&'v Credential),
    /// The caller's own Bearer token, on an operation that takes one, where that is configured.
    PassThrough([(HeaderName, HeaderValue); 1]),
}

/// Never a broader credential than the operation takes: without the right one, the answer is no.
fn choose<'v>(
    environment: &'v EnvironmentView,
    grant: &Grant,
    headers: &HeaderMap,
) -> Result<Choice<'v>, Refusal> {
    if !grant.takes_bearer() {
        return Ok(Choice::Ours(&environment.credential));
    }
    match (&environment.settings.bearer, &environment.bearer) {
        (Bearer::Token(_), Some(token)) => Ok(Choice::Ours(token)),
        (Bearer::Environment, _) => Ok(Choice::Ours(&environment.credential)),
        (Bearer::PassThrough, _) => {
            let token = only_bearer(headers).ok_or(Refusal::NoCredential)?;
            Ok(Choice::PassThrough([(AUTHORIZATION, token)]))
        }
        (Bearer::Refused | Bearer::Token(_), _) => Err(Refusal::NoCredential),
    }
}

/// The one value, if it is a Bearer token and nothing else.
fn only_bearer(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    // A token of ours is for this gateway.
    let is_theirs = is_b64token(token) && !token.starts_with(tokens::PREFIX);
    let mut own = (scheme.eq_ignore_ascii_case("bearer") && is_theirs).then(|| value.clone())?;
    own.set_sensitive(true);
    Some(own)
}

/// RFC 6750, 2.1. A comma could begin a second credential.
fn is_b64token(token: &str) -> bool {
    let start = token.trim_end_matches('=');
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    !start.is_empty() && start.bytes().all(is_allowed)
}

impl<'v> Choice<'v> {
    /// A credential leaves only with the proof that policy allowed the request.
    fn fields(&self, _grant: &Grant) -> &[(HeaderName, HeaderValue)] {
        match self {
            Self::Ours(credential) => credential.headers(),
            Self::PassThrough(field) => field,
        }
    }

    fn credential(&self) -> Option<&'v Credential> {
        match self {
            Self::Ours(credential) => Some(credential),
            Self::PassThrough(_) => None,
        }
    }
}

/// The target without the caller's credentials, plus ours where its kind is `query`, in parts.
fn sent_target<'t>(kept: &'t str, credential: Option<&'t Credential>) -> [&'t str; 3] {
    let Some(ours) = credential.and_then(Credential::query) else { return [kept, "", ""] };
    // Only the first question mark begins the query.
    let joint = match kept.split_once('?') {
        None => "?",
        Some((_, "")) => "",
        Some(_) => "&",
    };
    [kept, joint, ours]
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
