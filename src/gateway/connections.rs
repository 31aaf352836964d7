//! What callers do with users' connections, on a listener that serves them: ask for tickets, list, end.
//!
//! In: a request of a caller that was admitted as any other. Out: JSON. The work is the [`Broker`]'s; here is decided whose
//! connections a caller gets to see.
//!
//! | request | what it does |
//! |---|---|
//! | `POST /connections` | makes a ticket: a URL for the user's browser |
//! | `GET /connections` | lists; `?user_guid=`, `?provider=` and `?environment=` choose |
//! | `GET /connections/{id}` | tells one |
//! | `DELETE /connections/{id}` | revokes its tokens at the provider, and forgets it; `?force=true` also when that fails |
//!
//! What must never happen: a caller learns of a connection that it may not use; an answer holds a token.

use std::{borrow::Cow, pin::pin, rc::Rc, sync::Arc};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, request, uri::PathAndQuery};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};

use super::{
    End, Trail,
    answer::AnswerBody,
    entry::{Entry, Live},
    respond,
};
use crate::{
    admission::Caller,
    limits::Over,
    listener::{connection::Connection, peer::Peer, watch::Expiry},
    oauth::{
        broker::{Broker, Unavailable},
        connect::{self, Meaning, Return},
        connection::{ConnectionId, Purpose, Summary},
    },
    policy::target::Target,
    refusal::{Failure, Refusal},
    snapshot::{ListenerSettings, MayUse, Snapshot},
    status::{ShownConnection, ShownConnections},
    users::Rule,
    vault,
    worker::view::View,
};

/// A caller's order is a few names and a URL.
const BODY_BYTES_MAX: usize = 16 * 1024;

/// Serves one request.
pub(super) async fn serve(
    at: &Rc<Connection>,
    view: &View,
    request: Request<Incoming>,
    mut entry: Box<Entry>,
) -> Response<AnswerBody> {
    match Box::pin(answered(at, view, request, &mut entry)).await {
        Ok((status, text)) => respond::own(at, status, text, entry),
        Err(No::End(end)) => respond::end(at, end, entry),
        Err(No::Told(refusal, detail)) => respond::refused(at, refusal, &detail, entry),
        Err(No::Over(over)) => {
            let refusal = entry.over(over);
            respond::end(at, refusal.into(), entry)
        }
    }
}

/// Why there is no answer.
enum No {
    End(End),
    /// With words for the caller's developer.
    Told(Refusal, String),
    Over(Over),
}

impl<T: Into<End>> From<T> for No {
    fn from(end: T) -> Self {
        Self::End(end.into())
    }
}

/// What one request asks for.
enum Asked {
    Ticket,
    List,
    One(ConnectionId),
    End(ConnectionId),
}

impl Asked {
    fn of(method: &Method, path: &str) -> Result<(Self, &'static str), Refusal> {
        const ALL: &str = "/connections";
        const ONE: &str = "/connections/{id}";
        let id = path.strip_prefix("/connections/");
        match (method, id) {
            (&Method::POST, None) if path == ALL => Ok((Self::Ticket, ALL)),
            (&Method::GET, None) if path == ALL => Ok((Self::List, ALL)),
            (&Method::GET, Some(id)) => Ok((Self::One(parsed(id)?), ONE)),
            (&Method::DELETE, Some(id)) => Ok((Self::End(parsed(id)?), ONE)),
            _ if path == ALL || id.is_some() => Err(Refusal::MethodNotAllowed),
            _ => Err(Refusal::UnknownOperation),
        }
    }
}

fn parsed(id: &str) -> Result<ConnectionId, Refusal> {
    id.parse().map_err(|_| Refusal::UnknownConnection)
}

/// A request of a caller that may use connections.
pub(crate) struct Decided<'r> {
    caller: Caller,
    end_user: Option<Rc<str>>,
    target: Target<'r>,
    asked: Asked,
    may_use: &'r Arc<MayUse>,
}

/// All that is decided before the broker is asked; `explain` walks the same way.
pub(crate) fn decide<'r>(
    snapshot: &'r Snapshot,
    listener: &ListenerSettings,
    peer: &Peer,
    head: &'r request::Parts,
    trail: &mut impl Trail,
) -> Result<Decided<'r>, End> {
    let (caller, end_user) = super::admitted(snapshot, listener, peer, head, trail)?;
    let path = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let target = Target::parse(path).map_err(|_| Refusal::MalformedTarget)?;
    let (asked, template) = Asked::of(&head.method, target.path())?;
    trail.asks_for(template);
    let may_use = snapshot.may_use(caller.index()).ok_or(Refusal::ConnectionDenied)?;
    Ok(Decided { caller, end_user, target, asked, may_use })
}

type Answered = (StatusCode, Bytes);

async fn answered(
    at: &Rc<Connection>,
    view: &View,
    request: Request<Incoming>,
    entry: &mut Entry,
) -> Result<Answered, No> {
    let (head, body) = request.into_parts();
    let listener = view.listener(at.listener.index).ok_or(Failure::NotReady)?;
    let mut trail = Live { view, entry };
    let decided = decide(&view.snapshot, listener, &at.peer, &head, &mut trail)?;
    let Decided { caller, end_user, target, asked, may_use } = decided;
    let bound = view.snapshot.users.of(caller.index());
    let asker = Asker { view, caller, may_use, bound, end_user: end_user.as_deref() };
    let broker = at.worker.tokens().broker().ok_or(Failure::NotReady)?;
    match asked {
        Asked::Ticket => {
            let order = order(at, body).await?;
            asker.ticket(broker, order).await
        }
        Asked::List => asker.list(broker, &target).await,
        Asked::One(id) => {
            asker.one(broker, id).await.and_then(|one| json(StatusCode::OK, &ShownConnection::of(&one)))
        }
        Asked::End(id) => asker.end(broker, id, &target).await,
    }
}

/// What a ticket is asked for with.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    provider: String,
    environment: String,
    return_url: String,
    #[serde(default)]
    user_guid: Option<String>,
    #[serde(default)]
    scopes: Vec<String>,
    #[serde(default)]
    state: Option<String>,
    /// The connection that gets new tokens.
    #[serde(default)]
    connection: Option<String>,
}

async fn order(at: &Connection, body: Incoming) -> Result<Order, No> {
    let whole = pin!(Limited::new(body, BODY_BYTES_MAX).collect());
    let read = at.session.watch.until_expired(whole).await.map_err(|expiry: Expiry| No::from(expiry))?;
    let Ok(read) = read else {
        return Err(at.session.body_refusal().unwrap_or(Refusal::BodyTooLarge).into());
    };
    let bytes: Bytes = read.to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| {
        // What it says holds names of members and places, and of values no more than their kind.
        No::Told(Refusal::InvalidConnection, malformed(&error))
    })
}

fn malformed(error: &serde_json::Error) -> String {
    let what = if error.is_data() {
        "has a member that is missing, unknown or of another type"
    } else {
        "is no JSON"
    };
    format!("The body {what}, at line {}, column {}.", error.line(), error.column())
}

/// A caller, and what it may do.
struct Asker<'a> {
    view: &'a View,
    caller: Caller,
    may_use: &'a Arc<MayUse>,
    bound: Option<&'a Rule>,
    end_user: Option<&'a str>,
}

impl Asker<'_> {
    fn sees(&self, one: &Summary) -> bool {
        self.may_use.allows(&one.purpose) && self.reaches(one.purpose.user_guid.as_deref())
    }

    /// Whoever is bound to users does nothing for another, nor for nobody.
    fn reaches(&self, user: Option<&str>) -> bool {
        self.bound.is_none_or(|bound| user.is_some_and(|user| bound.may_reach(user, self.end_user).is_ok()))
    }

    async fn ticket(&self, broker: &Arc<Broker>, order: Order) -> Result<Answered, No> {
        let Order { provider, environment, return_url, user_guid, scopes, state, connection } = order;
        if !self.may_use.providers.contains(&provider)
            || !self.reaches(user_guid.as_deref())
            || !self.may_call(&environment, &provider)
        {
            return Err(Refusal::ConnectionDenied.into());
        }
        let renews = match connection {
            Some(id) => {
                let one = self.one(broker, parsed(&id)?).await?;
                let own = self.may_use.is_own(&one.purpose).then_some(one.id);
                Some(own.ok_or(Refusal::UnknownConnection)?)
            }
            None => None,
        };
        let caller = self.may_use.caller.clone();
        let host = broker.host_of(&environment).ok_or(Refusal::ConnectionDenied)?;
        let wanted = Purpose { provider, environment, host, caller, user_guid, scopes };
        let back = Return { url: return_url, state };
        let ticket = broker.ticket(wanted, back, renews).await?.map_err(|error| self.told(error, renews))?;
        json(StatusCode::CREATED, &serde_json::json!({ "ticket_url": ticket.url, "expires": ticket.expires }))
    }

    /// Whether the caller has anything to do there, with tokens of this provider.
    fn may_call(&self, environment: &str, provider: &str) -> bool {
        let snapshot = &self.view.snapshot;
        let place = snapshot.environments.iter().position(|one| &*one.name == environment);
        place.is_some_and(|place| {
            snapshot.environments.get(place).is_some_and(|one| one.takes_tokens_of(provider))
                && snapshot.grants.of(self.caller.index(), place).is_some()
        })
    }

    /// What the caller's developer is told; what an operator must mend is in the log.
    fn told(&self, error: connect::Error, about: Option<ConnectionId>) -> No {
        let refusal = match error.meaning() {
            Meaning::Wrong => return No::Told(Refusal::InvalidConnection, sentence(&error.to_string())),
            Meaning::Unknown => return Refusal::UnknownConnection.into(),
            Meaning::TooMany { wait } => return No::Over(Over { refusal: Refusal::TicketLimit, wait }),
            Meaning::NotRevoked => Failure::NotRevoked,
            Meaning::Later => Failure::TokenUnavailable,
        };
        let connection = about.map(tracing::field::display);
        let (caller, reason) = (&*self.may_use.caller, vault::chain(&error));
        tracing::warn!(caller, connection, reason, "what a caller asked for of connections was not done");
        refusal.into()
    }

    async fn list(&self, broker: &Arc<Broker>, target: &Target<'_>) -> Result<Answered, No> {
        let chosen = Chosen::of(target)?;
        let mut all = broker.list(|one| self.sees(one) && chosen.has(one)).await?;
        all.sort_by_key(|one| (one.created, one.id));
        json(StatusCode::OK, &ShownConnections { connections: all.iter().map(ShownConnection::of).collect() })
    }

    async fn one(&self, broker: &Arc<Broker>, id: ConnectionId) -> Result<Summary, No> {
        let one = broker.summary(id).await?;
        Ok(one.filter(|one| self.sees(one)).ok_or(Refusal::UnknownConnection)?)
    }

    async fn end(&self, broker: &Arc<Broker>, id: ConnectionId, target: &Target<'_>) -> Result<Answered, No> {
        let force = match target.query() {
            None => false,
            Some("force=true") => true,
            Some(_) => {
                return Err(No::Told(Refusal::InvalidConnection, "The query may be force=true.".into()));
            }
        };
        let one = self.one(broker, id).await?;
        if !self.may_use.is_own(&one.purpose) {
            return Err(Refusal::ConnectionDenied.into());
        }
        let ended = broker.disconnect(id, force).await?.map_err(|error| self.told(error, Some(id)))?;
        json(StatusCode::OK, &serde_json::json!({ "revoked": ended.revocation.word() }))
    }
}

/// Which of the connections are listed.
#[derive(Default)]
struct Chosen<'t> {
    user_guid: Option<Cow<'t, str>>,
    provider: Option<Cow<'t, str>>,
    environment: Option<Cow<'t, str>>,
}

impl<'t> Chosen<'t> {
    fn of(target: &Target<'t>) -> Result<Self, No> {
        let mut chosen = Self::default();
        for (name, value) in form_urlencoded::parse(target.query().unwrap_or_default().as_bytes()) {
            let slot = match &*name {
                "user_guid" => Some(&mut chosen.user_guid),
                "provider" => Some(&mut chosen.provider),
                "environment" => Some(&mut chosen.environment),
                _ => None,
            };
            // One that is there twice would choose by the one that its sender did not mean.
            if slot.is_none_or(|slot| slot.replace(value).is_some()) {
                let detail = "The query may have user_guid, provider and environment, each once.";
                return Err(No::Told(Refusal::InvalidConnection, detail.into()));
            }
        }
        Ok(chosen)
    }

    fn has(&self, one: &Summary) -> bool {
        let is = |wanted: &Option<Cow<'_, str>>, there: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| there == Some(wanted))
        };
        let Purpose { user_guid, provider, environment, .. } = &one.purpose;
        is(&self.user_guid, user_guid.as_deref())
            && is(&self.provider, Some(provider))
            && is(&self.environment, Some(environment))
    }
}

impl From<Unavailable> for No {
    fn from(unavailable: Unavailable) -> Self {
        Self::End(match unavailable {
            Unavailable::Unknown | Unavailable::Gone => Refusal::UnknownConnection.into(),
            Unavailable::Replaced | Unavailable::Later => Failure::TokenUnavailable.into(),
        })
    }
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| format!("{}{}.", first.to_uppercase(), letters.as_str())).unwrap_or_default()
}

fn json(status: StatusCode, what: &impl Serialize) -> Result<Answered, No> {
    let mut text = serde_json::to_vec(what).map_err(|_| Failure::Internal)?;
    text.push(b'\n');
    Ok((status, text.into()))
}
