//! Which credential a granted request gets: in goes the grant, out comes one credential, or a refusal.
//!
//! What must never happen: a broader credential goes out than the operation takes, or two of them.

use http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION, request};

use super::{access::Wanted, handles};
use crate::{
    credential::{Credential, Prepared},
    oauth::{connection, handle},
    policy::{Grant, target::Target},
    refusal::Refusal,
    snapshot::{Bearer, Environment, Own},
    tokens,
    vault::secret::Secret,
};

/// Which credential a granted request gets.
pub(crate) enum Choice {
    /// The environment's own.
    Environment,
    /// The environment's token for the operations that take one.
    Token,
    /// An access token of a provider's, or one that MX gave and that a handle stands for.
    Access(Box<Wanted>),
    /// The caller's own Bearer token, on an operation that takes one, where that is configured.
    PassThrough([(HeaderName, HeaderValue); 1]),
}

impl Choice {
    /// Never a broader credential than the operation takes: without the right one, the answer is no.
    pub(super) fn of(
        environment: &Environment,
        grant: &Grant,
        head: &request::Parts,
        target: &Target<'_>,
    ) -> Result<Self, Refusal> {
        let access = |tokens| Wanted::of(tokens, environment, grant, head, target).map(Self::access);
        if !grant.takes_bearer() {
            return match &environment.own {
                Own::Key(_) => Ok(Self::Environment),
                Own::Provider(tokens) => access(tokens),
            };
        }
        if environment.token_handles
            && let Some(id) = handles::shown(&head.headers)?
        {
            return Ok(Self::access(Wanted::of_handle(id)));
        }
        match (&environment.bearer, &environment.own) {
            (Bearer::Token(_), _) => Ok(Self::Token),
            (Bearer::Environment, _) => Ok(Self::Environment),
            (Bearer::Provider(tokens), _) | (Bearer::Refused, Own::Provider(tokens)) => access(tokens),
            (Bearer::PassThrough, _) => {
                let token = only_bearer(&head.headers).ok_or(Refusal::NoCredential)?;
                Ok(Self::PassThrough([(AUTHORIZATION, token)]))
            }
            (Bearer::Refused, Own::Key(_)) => Err(Refusal::NoCredential),
        }
    }

    fn access(wanted: Wanted) -> Self {
        Self::Access(Box::new(wanted))
    }

    /// What stands for the access token where nothing is sent; `None`: none is wanted.
    pub(crate) fn presumed_access(&self) -> Option<Credential> {
        let Self::Access(wanted) = self else { return None };
        let name = wanted.told();
        let presumed = Secret::new(b"access-token".to_vec()).ok()?;
        Prepared::access_token(&name, &presumed).ok().map(|token| token.for_worker())
    }

    /// The choice with the credentials at hand.
    pub(crate) fn attached<'c>(&'c self, at_hand: &AtHand<'c>) -> Result<Attached<'c>, Refusal> {
        let ours = match self {
            Self::Environment => at_hand.own,
            Self::Token => at_hand.token,
            Self::Access(_) => at_hand.access,
            Self::PassThrough(field) => return Ok(Attached::PassedThrough(field)),
        };
        ours.map(Attached::Ours).ok_or(Refusal::NoCredential)
    }
}

/// The credentials that are there.
#[derive(Default)]
pub(crate) struct AtHand<'c> {
    /// The environment's own.
    pub(crate) own: Option<&'c Credential>,
    /// Its token for the operations that take one.
    pub(crate) token: Option<&'c Credential>,
    /// The access token that was wanted.
    pub(crate) access: Option<&'c Credential>,
}

/// What a granted request carries.
pub(crate) enum Attached<'c> {
    Ours(&'c Credential),
    PassedThrough(&'c [(HeaderName, HeaderValue)]),
}

impl<'c> Attached<'c> {
    /// A credential leaves only with the proof that policy allowed the request.
    pub(super) fn fields(&self, _grant: &Grant) -> &'c [(HeaderName, HeaderValue)] {
        match self {
            Self::Ours(credential) => credential.headers(),
            Self::PassedThrough(field) => field,
        }
    }

    pub(crate) fn credential(&self) -> Option<&'c Credential> {
        match self {
            Self::Ours(credential) => Some(credential),
            Self::PassedThrough(_) => None,
        }
    }
}

/// The one value, if it is a Bearer token and nothing else.
fn only_bearer(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    // A token, a connection or a handle of ours is for this gateway.
    let is_ours =
        [tokens::PREFIX, connection::PREFIX, handle::PREFIX].iter().any(|own| token.starts_with(own));
    let is_theirs = is_b64token(token) && !is_ours;
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
