//! What happened, for the log and for whoever counts.
//!
//! In: events as they happen. Out: lines of the log. What anybody on the internet can bring about is a few lines a minute,
//! and a count.
//!
//! What must never happen: an event holds a ticket, state, code, cookie, token or a part of a URL; a visitor decides how
//! much is logged.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::existing::Revocation;
use crate::{
    log::flood::{Flood, Verdict},
    oauth::{
        connection::{ConnectionId, Purpose},
        store,
        token_endpoint::{Code, Fault},
    },
    vault,
};

/// Learns what happens. It must not wait.
pub(crate) trait Witness: Send + Sync {
    fn saw(&self, event: &Event<'_>);
}

/// What happened.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    /// A caller got a ticket.
    TicketMade(&'a Purpose),
    /// Somebody looked at its page: the user, or a program that opens links.
    TicketOpened(&'a Purpose),
    /// A browser took it, and was sent to the provider.
    TicketUsed(&'a Purpose),
    /// A connection is stored.
    Connected { purpose: &'a Purpose, id: ConnectionId, renewed: bool },
    /// The user, or the provider for it, said no.
    Refused(&'a Purpose),
    /// It came to nothing for another reason.
    Failed { purpose: &'a Purpose, failure: &'a Failure },
    /// A request that is turned away without more.
    TurnedAway(Visit),
    /// The store did not answer a browser's question.
    StoreFailed(&'a store::Error),
    /// A connection was made of a refresh token that a caller had.
    Imported { purpose: &'a Purpose, id: ConnectionId },
    /// A connection is forgotten.
    Disconnected { purpose: &'a Purpose, id: ConnectionId, revocation: &'a Revocation },
}

/// Why a request is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Visit {
    /// It is for another host.
    Host,
    /// There is no such page.
    Path,
    /// A page that is not asked for in this way.
    Method,
    /// It has a body.
    Body,
    /// Another site's page sent it, or a browser that does not say.
    CrossSite,
    /// A ticket that never was, is used, or is over.
    Ticket,
    /// The same of a state.
    State,
    /// A state that is good, in a browser that did not begin with it.
    OtherBrowser,
}

impl Visit {
    /// For a metric.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Host => "wrong_host",
            Self::Path => "no_such_page",
            Self::Method => "wrong_method",
            Self::Body => "body",
            Self::CrossSite => "cross_site",
            Self::Ticket => "unknown_ticket",
            Self::State => "unknown_state",
            Self::OtherBrowser => "other_browser",
        }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("the provider sent the browser back with {0}")]
    Said(Said),
    #[error("the answer names another issuer, or none where the provider always names itself")]
    Issuer,
    #[error("the browser came back without a code, or with something twice")]
    Incomplete,
    #[error("the provider, or its redirect_uri here, is not configured any more")]
    NotConfigured,
    #[error("the return URL is not configured any more")]
    ReturnUrl,
    #[error("the provider cannot be asked")]
    Provider(#[source] Fault),
    #[error("the provider did not change the code for tokens")]
    Exchange(#[source] Fault),
    #[error("the tokens could not be stored, and were given up")]
    NotStored(#[source] store::Error),
    #[error("the connection that was to be renewed is gone, or another caller's")]
    Gone,
    #[error("the connection that was to be renewed was in use for too long; the tokens were given up")]
    Held,
    #[error("it takes longer than a browser waits")]
    Slow,
    #[error("it ended without an answer")]
    Interrupted,
    #[error("another version of mxgate began it")]
    Version,
}

impl Failure {
    /// For a metric, and for the user's page: something to tell whoever runs the service.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Said(said) => said.word(),
            Self::Issuer => "issuer_mismatch",
            Self::Incomplete => "incomplete_answer",
            Self::NotConfigured => "provider_not_configured",
            Self::ReturnUrl => "return_url_not_configured",
            Self::Provider(_) | Self::Exchange(Fault::Unreached(_)) => "provider_unreachable",
            Self::Exchange(Fault::Refused(_, Code::InvalidGrant)) => "code_refused",
            Self::Exchange(Fault::Refused(..)) => "client_refused",
            Self::Exchange(Fault::Lost(_)) => "answer_lost",
            Self::Exchange(_) => "exchange_failed",
            Self::NotStored(_) => "not_stored",
            Self::Gone => "connection_gone",
            Self::Held => "connection_in_use",
            Self::Slow => "slow",
            Self::Interrupted => "interrupted",
            Self::Version => "other_version",
        }
    }

    /// Whether the same may succeed soon.
    pub(super) fn passes(&self) -> bool {
        match self {
            Self::Provider(_) | Self::NotStored(_) | Self::Held | Self::Slow | Self::Interrupted => true,
            Self::Exchange(fault) => matches!(fault, Fault::Unreached(_) | Fault::Lost(_) | Fault::Failed(_)),
            Self::Said(said) => matches!(said, Said::TemporarilyUnavailable),
            _ => false,
        }
    }

    /// What the return URL is told: a registered word (RFC 6749, 4.1.2.1), the provider's own where it said one.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Said(said) => said.registered(),
            failure if failure.passes() => Said::TemporarilyUnavailable.word(),
            _ => Said::ServerError.word(),
        }
    }
}

/// The registered words of an error that comes with the browser (RFC 6749, 4.1.2.1; OpenID Connect Core, 3.1.2.6; RFC
/// 8707, 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    AccessDenied,
    InvalidRequest,
    UnauthorizedClient,
    UnsupportedResponseType,
    InvalidScope,
    ServerError,
    TemporarilyUnavailable,
    InteractionRequired,
    LoginRequired,
    AccountSelectionRequired,
    ConsentRequired,
    InvalidTarget,
    /// None of them.
    Other,
}

impl Said {
    const ALL: [Self; 13] = [
        Self::AccessDenied,
        Self::InvalidRequest,
        Self::UnauthorizedClient,
        Self::UnsupportedResponseType,
        Self::InvalidScope,
        Self::ServerError,
        Self::TemporarilyUnavailable,
        Self::InteractionRequired,
        Self::LoginRequired,
        Self::AccountSelectionRequired,
        Self::ConsentRequired,
        Self::InvalidTarget,
        Self::Other,
    ];

    pub(super) fn of(word: &str) -> Self {
        Self::ALL.into_iter().find(|said| said.word() == word).unwrap_or(Self::Other)
    }

    fn word(self) -> &'static str {
        match self {
            Self::AccessDenied => "access_denied",
            Self::InvalidRequest => "invalid_request",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::UnsupportedResponseType => "unsupported_response_type",
            Self::InvalidScope => "invalid_scope",
            Self::ServerError => "server_error",
            Self::TemporarilyUnavailable => "temporarily_unavailable",
            Self::InteractionRequired => "interaction_required",
            Self::LoginRequired => "login_required",
            Self::AccountSelectionRequired => "account_selection_required",
            Self::ConsentRequired => "consent_required",
            Self::InvalidTarget => "invalid_target",
            Self::Other => "other_error",
        }
    }

    fn registered(self) -> &'static str {
        match self {
            Self::Other => Self::ServerError.word(),
            said => said.word(),
        }
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Other => "an error of no registered name",
            said => said.word(),
        })
    }
}

/// Writes it down.
pub(crate) struct Logged {
    flood: Mutex<Flood<&'static str>>,
}

/// How often what visitors bring about is logged, each kind by itself.
const INTERVAL: Duration = Duration::from_secs(60);

impl Default for Logged {
    fn default() -> Self {
        // More than there are kinds.
        Self { flood: Mutex::new(Flood::new(INTERVAL, 32)) }
    }
}

impl Logged {
    /// How many like it went unsaid, if this one is to be logged.
    fn says(&self, kind: &'static str) -> Option<u64> {
        let mut flood = self.flood.lock().unwrap_or_else(PoisonError::into_inner);
        match flood.note(kind, Instant::now()) {
            Verdict::Log { unsaid } => Some(unsaid),
            Verdict::Quiet => None,
        }
    }
}

impl Witness for Logged {
    fn saw(&self, event: &Event<'_>) {
        match event {
            Event::TicketMade(Purpose { caller, provider, environment, .. }) => {
                tracing::info!(caller, provider, environment, "a ticket was made");
            }
            // Programs may open a link as often as they like.
            Event::TicketOpened(Purpose { caller, provider, environment, .. }) => {
                tracing::debug!(caller, provider, environment, "a ticket was opened");
            }
            Event::TicketUsed(Purpose { caller, provider, environment, .. }) => {
                tracing::info!(
                    caller,
                    provider,
                    environment,
                    "a ticket was used; its user is at the provider"
                );
            }
            Event::Connected { purpose: Purpose { caller, provider, environment, .. }, id, renewed } => {
                tracing::info!(caller, provider, environment, connection = %id, renewed, "a user was connected");
            }
            Event::Refused(Purpose { caller, provider, environment, .. }) => {
                tracing::info!(caller, provider, environment, "a user refused");
            }
            Event::Failed { purpose: Purpose { caller, provider, environment, .. }, failure } => {
                let (code, reason) = (failure.code(), vault::chain(failure));
                tracing::warn!(caller, provider, environment, code, reason, "a user was not connected");
            }
            Event::TurnedAway(visit) => {
                if let Some(unsaid) = self.says(visit.code()) {
                    tracing::info!(
                        code = visit.code(),
                        unsaid,
                        "a visitor of the connect listener was turned away"
                    );
                }
            }
            Event::StoreFailed(error) => {
                if let Some(unsaid) = self.says("store") {
                    let reason = vault::chain(error);
                    tracing::error!(reason, unsaid, "the store did not answer the connect listener");
                }
            }
            Event::Imported { purpose: Purpose { caller, provider, environment, .. }, id } => {
                tracing::info!(caller, provider, environment, connection = %id, "a connection was imported");
            }
            Event::Disconnected {
                purpose: Purpose { caller, provider, environment, .. },
                id,
                revocation,
            } => {
                let (revoked, reason) = (revocation.word(), revocation.reason());
                tracing::info!(caller, provider, environment, connection = %id, revoked, reason, "a connection was forgotten");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registered_words_are_passed_on_and_nothing_else_is() {
        assert_eq!(Failure::Said(Said::of("access_denied")).word(), "access_denied");
        assert_eq!(Failure::Said(Said::of("invalid_scope")).word(), "invalid_scope");
        for other in ["", "ACCESS_DENIED", "<b>", "other_error"] {
            assert_eq!(Said::of(other), Said::Other, "{other}");
            assert_eq!(Failure::Said(Said::Other).word(), "server_error");
        }
        assert_eq!(Failure::Issuer.word(), "server_error");
        assert_eq!(Failure::Slow.word(), "temporarily_unavailable");
    }

    #[test]
    fn what_visitors_bring_about_is_a_line_a_minute_for_each_kind() {
        let logged = Logged::default();
        assert_eq!(logged.says(Visit::Ticket.code()), Some(0));
        assert_eq!(logged.says(Visit::State.code()), Some(0));
        for _ in 0..1000 {
            assert_eq!(logged.says(Visit::Ticket.code()), None);
        }
    }
}
