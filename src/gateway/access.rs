//! Which access token a granted request gets: that of a connection which its caller may use, or the gateway's own.
//!
//! In: a grant at an environment whose tokens a provider gives. Out: the token, or why there is none. The connection is
//! named by a field of the request, or found by the user in its path. A token of MX's is named by its handle (`handles`).
//!
//! What must never happen: a caller gets the token of a connection that its configuration does not let it use, or of a
//! handle that another one was given; a token goes to another environment than its connection is for, out for another user
//! than the path's, or without a scope that the call needs; a request that may have had an effect is sent again.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderName, Method, StatusCode, header::WWW_AUTHENTICATE, request};
use tokio::time::timeout;

use super::{Decided, End, again::instead, entry::Entry};
use crate::{
    config::OAuthGrant,
    listener::connection::Connection,
    oauth::{
        broker::{self, Unavailable},
        cell::{Cell, seconds},
        connection::{ConnectionId, Summary},
        handle,
        refresh::Because,
    },
    policy::{Grant, target::Target},
    refusal::{Failure, Refusal},
    snapshot::{Environment, TokensOf},
    upstream::{Answer, headers, outgoing::Outgoing},
    users,
    worker::{
        tokens::Access,
        view::{EnvironmentView, View},
    },
};

/// Names the connection; it never leaves the gateway.
pub(crate) const CONNECTION: HeaderName = HeaderName::from_static("x-mxgate-connection");

/// How long a request waits for a token. The refresh goes on.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// What a request needs.
pub(crate) struct Wanted {
    provider: Arc<str>,
    whose: Whose,
}

/// Whose token.
enum Whose {
    /// This connection's, and the user's in the path, if there is one.
    Connection(ConnectionId, Option<String>),
    /// That of a connection of this user.
    User(String),
    /// The gateway's own, with these scopes.
    Gateway(Vec<String>),
    /// What MX gave the caller, by the handle that it shows.
    Handle(ConnectionId),
}

impl Wanted {
    pub(super) fn of(
        tokens: &TokensOf,
        environment: &Environment,
        grant: &Grant,
        head: &request::Parts,
        target: &Target<'_>,
    ) -> Result<Self, Refusal> {
        let user = users::user_of(grant, target);
        let whose = match (tokens.grant, named(&head.headers)?) {
            (OAuthGrant::ClientCredentials, _) => {
                let mut scopes: Vec<String> = environment.scopes.of(&head.method, grant).cloned().collect();
                scopes.sort_unstable();
                scopes.dedup();
                Whose::Gateway(scopes)
            }
            (OAuthGrant::AuthorizationCode, Some(id)) => Whose::Connection(id, user.map(str::to_owned)),
            (OAuthGrant::AuthorizationCode, None) => {
                Whose::User(user.ok_or(Refusal::ConnectionNotNamed)?.to_owned())
            }
        };
        Ok(Self { provider: tokens.provider.clone(), whose })
    }

    /// The token that is kept as `id`.
    pub(super) fn of_handle(id: ConnectionId) -> Self {
        Self { provider: handle::PROVIDER.into(), whose: Whose::Handle(id) }
    }

    /// Which token it is, for people.
    pub(super) fn told(&self) -> String {
        match &self.whose {
            Whose::Handle(_) => "the token that the handle stands for".to_owned(),
            _ => format!("an access token of provider {}", self.provider),
        }
    }
}

/// The connection that a request names.
fn named(headers: &HeaderMap) -> Result<Option<ConnectionId>, Refusal> {
    let mut values = headers.get_all(CONNECTION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let one = value.to_str().ok().filter(|_| values.next().is_none());
    one.and_then(|text| text.parse().ok()).map(Some).ok_or(Refusal::ConnectionNotNamed)
}

/// Gets it, and says how another one is had, if it can be.
pub(super) async fn obtain(
    at: &Connection,
    view: &View,
    environment: &EnvironmentView,
    decided: &Decided<'_>,
    wanted: &Wanted,
    method: &Method,
) -> Result<(Access, Option<Renewal>), End> {
    let tokens = at.worker.tokens();
    let (access, from) = match &wanted.whose {
        Whose::Gateway(scopes) => {
            let wanted = broker::Wanted {
                provider: wanted.provider.to_string(),
                environment: environment.settings.name.to_string(),
                host: environment.settings.dial.host.clone(),
                scopes: scopes.clone(),
            };
            (waited(tokens.client(&wanted)).await?, From::Client(wanted))
        }
        Whose::Connection(..) | Whose::User(_) => {
            let find = || cell(at, view, environment, decided, wanted);
            let (access, cell) = held(find, async |cell| tokens.of(cell).await).await?;
            (access, From::Cell(cell))
        }
        // What MX says of its own token is for whoever has the handle.
        Whose::Handle(id) => {
            let find = || cell_of_handle(at, view, environment, decided, *id);
            return Ok((held(find, async |cell| tokens.as_it_is(cell)).await?.0, None));
        }
    };
    if !environment.settings.scopes.are_in(&access.token.scopes, method, &decided.grant) {
        return Err(Refusal::InsufficientScope.into());
    }
    let renewal = Renewal { from, carried: access.clone(), kept: None };
    Ok((access, Some(renewal)))
}

/// The token of the cell that `find` finds, which is looked for once more if its user consented anew meanwhile.
async fn held(
    find: impl AsyncFn() -> Result<Arc<Cell>, End>,
    token: impl AsyncFn(&Arc<Cell>) -> Result<Access, Unavailable>,
) -> Result<(Access, Arc<Cell>), End> {
    let cell = find().await?;
    let attempt = waited(async {
        match token(&cell).await {
            Err(Unavailable::Replaced) => Ok(None),
            done => done.map(Some),
        }
    });
    match attempt.await? {
        Some(access) => Ok((access, cell)),
        None => {
            let cell = find().await?;
            Ok((waited(token(&cell)).await?, cell))
        }
    }
}

/// The cell of what is kept as `id`, if it was given to this caller, here, and for the same end user.
async fn cell_of_handle(
    at: &Connection,
    view: &View,
    environment: &EnvironmentView,
    decided: &Decided<'_>,
    id: ConnectionId,
) -> Result<Arc<Cell>, End> {
    let cell = waited(at.worker.tokens().cell(id)).await?;
    let caller = view.snapshot.admission.callers.name(decided.caller.index());
    let purpose = &cell.purpose;
    let is_theirs = purpose.provider == handle::PROVIDER
        && purpose.host == environment.settings.dial.host
        && purpose.environment == *environment.settings.name
        && caller.is_some_and(|caller| purpose.caller == **caller)
        && purpose.user_guid.as_deref() == decided.end_user.as_deref();
    if !is_theirs {
        return Err(Refusal::ConnectionDenied.into());
    }
    cell.note_use(seconds(SystemTime::now()));
    Ok(cell)
}

/// Ends when there is an answer, or the wait is over.
pub(super) async fn waited<T>(work: impl Future<Output = Result<T, Unavailable>>) -> Result<T, End> {
    let done = timeout(WAIT_MAX, work).await.unwrap_or(Err(Unavailable::Later));
    done.map_err(|unavailable| match unavailable {
        Unavailable::Unknown => Refusal::ConnectionDenied.into(),
        Unavailable::Gone => Refusal::ReconnectRequired.into(),
        Unavailable::Replaced | Unavailable::Later => Failure::TokenUnavailable.into(),
    })
}

/// The cell of a connection that the caller may use for this request.
async fn cell(
    at: &Connection,
    view: &View,
    environment: &EnvironmentView,
    decided: &Decided<'_>,
    wanted: &Wanted,
) -> Result<Arc<Cell>, End> {
    let denied = Refusal::ConnectionDenied;
    let may_use = view.snapshot.may_use(decided.caller.index()).ok_or(denied)?;
    let here = &*environment.settings.name;
    let (id, user) = match &wanted.whose {
        Whose::Connection(id, user) => (*id, user.as_deref()),
        Whose::User(user) => {
            let broker = at.worker.tokens().broker().ok_or(Failure::TokenUnavailable)?;
            if !broker.is_open() {
                return Err(Failure::TokenUnavailable.into());
            }
            let host = &environment.settings.dial.host;
            let fits = |one: &Summary| {
                let purpose = &one.purpose;
                purpose.provider == *wanted.provider && purpose.host == *host && may_use.allows(purpose)
            };
            let one = match broker.of_user(here, user).into_iter().find(fits) {
                Some(one) => Some(one),
                // It may be new, and made by another replica.
                None => waited(broker.of_user_now(here, user)).await?.into_iter().find(fits),
            };
            (one.ok_or(Refusal::ConnectionRequired)?.id, Some(user.as_str()))
        }
        Whose::Gateway(_) | Whose::Handle(_) => return Err(denied.into()),
    };
    let cell = waited(at.worker.tokens().cell(id)).await?;
    let purpose = &cell.purpose;
    let fits = purpose.environment == here
        && purpose.provider == *wanted.provider
        && may_use.allows(purpose)
        && user.is_none_or(|user| purpose.user_guid.as_deref().is_none_or(|own| own == user));
    // Whoever is bound to users gets no connection of another, and none of nobody.
    let bound = view.snapshot.users.of(decided.caller.index());
    let may_reach = bound.is_none_or(|bound| {
        purpose
            .user_guid
            .as_deref()
            .is_some_and(|user| bound.may_reach(user, decided.end_user.as_deref()).is_ok())
    });
    if !fits || !may_reach {
        return Err(denied.into());
    }
    // Another host than the user consented to.
    if purpose.host != environment.settings.dial.host {
        return Err(Refusal::ReconnectRequired.into());
    }
    cell.note_use(seconds(SystemTime::now()));
    Ok(cell)
}

/// What is done should a token not be taken.
pub(super) struct Renewal {
    from: From,
    carried: Access,
    /// What the request is made of; `None` for one that is never repeated.
    kept: Option<Kept>,
}

/// Where a token is from.
enum From {
    Cell(Arc<Cell>),
    Client(broker::Wanted),
}

/// A request without a body, to be written again.
struct Kept {
    method: Method,
    target: String,
    headers: HeaderMap,
    grant: Grant,
}

impl Renewal {
    /// The same, for a request that may be sent again.
    pub(super) fn keeping(
        mut self,
        decided: &Decided<'_>,
        head: &request::Parts,
        environment: &Environment,
    ) -> Self {
        self.kept = Some(Kept {
            method: head.method.clone(),
            target: decided.target.without(&environment.query_names).into_owned(),
            headers: head.headers.clone(),
            grant: decided.grant.clone(),
        });
        self
    }

    /// What comes of `first`, which is a 401.
    pub(super) async fn attempt(
        self: Box<Self>,
        at: &Connection,
        environment: &Rc<EnvironmentView>,
        first: Answer,
        entry: &mut Entry,
    ) -> Result<Answer, End> {
        let Self { from, carried, kept } = *self;
        if !names_invalid_token(&first) || carried.token.is_new(seconds(SystemTime::now())) {
            return Ok(first);
        }
        let Some(kept) = kept else {
            refuse(at, from, carried);
            return Ok(first);
        };
        let next = waited(renewed(at, &from, &carried)).await?;
        if !environment.settings.scopes.are_in(&next.token.scopes, &kept.method, &kept.grant) {
            return Err(Refusal::InsufficientScope.into());
        }
        let Some(pass) = entry.sending_again(environment) else { return Ok(first) };
        entry.cut_over(Some(&next.credential));
        let outgoing = kept.written(environment, &next);
        instead(at, environment, first, outgoing, pass).await
    }
}

impl Kept {
    fn written(self, environment: &EnvironmentView, access: &Access) -> Outgoing {
        let Self { method, target, headers, grant } = self;
        let fields = access.credential.headers();
        let head =
            headers::to_upstream(&method, [&target, "", ""], &headers, &environment.settings, &grant, fields);
        Outgoing::without_body(&method, head, access.credential.term().clone())
    }
}

/// The token that follows `carried`.
async fn renewed(at: &Connection, from: &From, carried: &Access) -> Result<Access, Unavailable> {
    let tokens = at.worker.tokens();
    match from {
        From::Cell(cell) => tokens.after(cell, Because::Refused(carried.token.version)).await,
        From::Client(wanted) => {
            if let Some(broker) = tokens.broker() {
                broker.client_refused(wanted, &carried.token);
            }
            tokens.client(wanted).await
        }
    }
}

/// Says that a token was refused; the next request finds another.
fn refuse(at: &Connection, from: From, carried: Access) {
    let Some(broker) = at.worker.tokens().broker().cloned() else { return };
    match from {
        From::Cell(cell) => broker.refresh_later(cell, Because::Refused(carried.token.version)),
        From::Client(wanted) => broker.client_refused(&wanted, &carried.token),
    }
}

/// RFC 6750, 3.1: the token is expired, revoked or malformed, and another one may serve.
fn names_invalid_token(answer: &Answer) -> bool {
    let names_it = |text: &str| {
        let text = text.to_ascii_lowercase();
        text.contains("bearer") && text.contains("invalid_token")
    };
    answer.status == StatusCode::UNAUTHORIZED
        && answer.fields.get_all(WWW_AUTHENTICATE).iter().any(|value| value.to_str().is_ok_and(names_it))
}
