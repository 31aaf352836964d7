//! Users' connections on the control socket: what an operator sees of them and does with them.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /connections` | | [`ShownConnections`] |
//! | `POST /connections` | [`Import`] | [`Imported`] |
//! | `POST /connections/ticket` | [`TicketOrder`] | [`IssuedTicket`] |
//! | `DELETE /connections/{id}`, `?force=true` | | [`Done`] |
//! | `POST /connections/backup` | [`Backup`] | [`Done`] |

use std::{path::PathBuf, sync::Arc};

use axum::{
    Extension, Router,
    body::Bytes,
    extract::{Path, RawQuery, State},
    http::StatusCode,
    routing::{delete, get, post},
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{
    commands::{Masked, NotDone, Operator, Unmasked, done, parse},
    messages::Done,
};
use crate::{
    oauth::{
        broker::{Broker, Unavailable},
        connect::{self, Meaning, Return},
        connection::{ConnectionId, Purpose},
    },
    status::{ShownConnection, ShownConnections},
    vault::secret::Secret,
};

/// Whose connection is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// By its name in the configuration.
    pub provider: String,
    /// By its name in the configuration.
    pub environment: String,
    /// The caller that it is made for.
    pub caller: String,
    /// The user at MX.
    pub user_guid: Option<String>,
    /// Some of the provider's; none: all of them.
    pub scopes: Vec<String>,
}

/// `POST /connections`: a refresh token that was had elsewhere.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Import {
    /// Whose it is.
    pub order: Order,
    /// The token.
    pub refresh_token: Zeroizing<String>,
}

/// What an import made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// The connection.
    pub id: String,
}

/// `POST /connections/ticket`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TicketOrder {
    /// Whose it is.
    pub order: Order,
    /// Where the browser goes in the end.
    pub return_url: String,
}

/// A ticket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedTicket {
    /// For the user's browser. Whoever has it may use it, once.
    pub ticket_url: String,
    /// In Unix seconds.
    pub expires: u64,
}

/// `POST /connections/backup`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// A file of the gateway's machine that is not there yet.
    pub to: PathBuf,
}

type Shares = State<Option<Arc<Broker>>>;

pub(super) fn router(broker: Option<Arc<Broker>>) -> Router {
    Router::new()
        .route("/connections", get(list).post(import))
        .route("/connections/ticket", post(ticket))
        .route("/connections/backup", post(backup))
        .route("/connections/{id}", delete(end))
        .with_state(broker)
}

async fn list(State(broker): Shares) -> Result<Masked<ShownConnections>, NotDone> {
    let mut all = there(broker)?.list(|_| true).await?;
    all.sort_by_key(|one| (one.created, one.id));
    Ok(Masked(ShownConnections { connections: all.iter().map(ShownConnection::of).collect() }))
}

async fn import(
    State(broker): Shares,
    Extension(operator): Extension<Operator>,
    body: Bytes,
) -> Result<Masked<Imported>, NotDone> {
    let Import { order, mut refresh_token } = parse(&body)?;
    let refresh = std::mem::take(&mut *refresh_token).into_bytes();
    let refresh = Secret::new(refresh).map_err(|unfit| refused(&format!("the refresh token {unfit}")))?;
    let broker = there(broker)?;
    let id = broker.import(wanted(&broker, order)?, Arc::new(refresh)).await??;
    tracing::warn!(uid = operator.uid, connection = %id, "an operator imported a connection");
    Ok(Masked(Imported { id: id.to_string() }))
}

async fn ticket(
    State(broker): Shares,
    Extension(operator): Extension<Operator>,
    body: Bytes,
) -> Result<Unmasked<IssuedTicket>, NotDone> {
    let TicketOrder { order, return_url } = parse(&body)?;
    let back = Return { url: return_url, state: None };
    let broker = there(broker)?;
    let ticket = broker.ticket(wanted(&broker, order)?, back, None).await??;
    tracing::warn!(uid = operator.uid, "an operator asked for a ticket");
    Ok(Unmasked(IssuedTicket { ticket_url: ticket.url, expires: ticket.expires }))
}

async fn end(
    State(broker): Shares,
    Extension(operator): Extension<Operator>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Masked<Done>, NotDone> {
    let id: ConnectionId =
        id.parse().map_err(|_| NotDone(StatusCode::NOT_FOUND, "there is no such connection".into()))?;
    let force = query.as_deref() == Some("force=true");
    let ended = there(broker)?.disconnect(id, force).await??;
    tracing::warn!(uid = operator.uid, connection = %id, "a connection was ended by an operator");
    Ok(done(format!("{id} is forgotten; revoked at its provider: {}", ended.revocation.word())))
}

async fn backup(
    State(broker): Shares,
    Extension(operator): Extension<Operator>,
    body: Bytes,
) -> Result<Masked<Done>, NotDone> {
    let Backup { to } = parse(&body)?;
    let shown = to.display().to_string();
    let count = there(broker)?.backup(to).await?.map_err(|why| refused(&why))?;
    tracing::warn!(uid = operator.uid, to = shown, count, "the connections were copied");
    Ok(done(format!("{count} connections are in {shown}, sealed as they are")))
}

fn there(broker: Option<Arc<Broker>>) -> Result<Arc<Broker>, NotDone> {
    broker.ok_or_else(|| NotDone(StatusCode::NOT_FOUND, "no [connections] are configured".into()))
}

fn wanted(broker: &Broker, order: Order) -> Result<Purpose, NotDone> {
    let Order { provider, environment, caller, user_guid, scopes } = order;
    let host = broker.host_for(&caller, &provider, &environment);
    let host = host.map_err(|useless| refused(&useless.to_string()))?;
    Ok(Purpose { provider, environment, host, caller, user_guid, scopes })
}

fn refused(why: &str) -> NotDone {
    NotDone(StatusCode::BAD_REQUEST, why.to_owned())
}

impl From<Unavailable> for NotDone {
    fn from(unavailable: Unavailable) -> Self {
        match unavailable {
            Unavailable::Unknown | Unavailable::Gone => {
                Self(StatusCode::NOT_FOUND, "there is no such connection".into())
            }
            Unavailable::Replaced | Unavailable::Later => Self(
                StatusCode::SERVICE_UNAVAILABLE,
                "the store of connections is not open, or does not answer; the log says why".into(),
            ),
        }
    }
}

impl From<connect::Error> for NotDone {
    fn from(error: connect::Error) -> Self {
        let status = match error.meaning() {
            Meaning::Wrong => StatusCode::BAD_REQUEST,
            Meaning::Unknown => StatusCode::NOT_FOUND,
            Meaning::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            Meaning::NotRevoked => StatusCode::BAD_GATEWAY,
            Meaning::Later => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self(status, crate::vault::chain(&error))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_operator_is_told_how_long_a_caller_with_too_many_tickets_waits() {
        let NotDone(status, told) = connect::Error::Tickets { wait: Duration::from_secs(42) }.into();
        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
        assert!(told.ends_with("the first of them is over in 42 s"), "{told}");
    }
}
