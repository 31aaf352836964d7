//! Which credential a granted request gets: in goes the grant, out comes one credential, or a refusal.
//!
//! What must never happen: a broader credential goes out than the operation takes, or two of them.

use http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION};

use super::refusal::Refusal;
use crate::{
    credential::Credential,
    policy::Grant,
    snapshot::{Bearer, Environment},
    tokens,
};

/// Which credential a granted request gets.
pub(crate) enum Choice {
    /// The environment's own.
    Environment,
    /// The environment's token for the operations that take one.
    Token,
    /// The caller's own Bearer token, on an operation that takes one, where that is configured.
    PassThrough([(HeaderName, HeaderValue); 1]),
}

impl Choice {
    /// Never a broader credential than the operation takes: without the right one, the answer is no.
    pub(super) fn of(environment: &Environment, grant: &Grant, headers: &HeaderMap) -> Result<Self, Refusal> {
        if !grant.takes_bearer() {
            return Ok(Self::Environment);
        }
        match &environment.bearer {
            Bearer::Token(_) => Ok(Self::Token),
            Bearer::Environment => Ok(Self::Environment),
            Bearer::PassThrough => {
                let token = only_bearer(headers).ok_or(Refusal::NoCredential)?;
                Ok(Self::PassThrough([(AUTHORIZATION, token)]))
            }
            Bearer::Refused => Err(Refusal::NoCredential),
        }
    }

    /// The choice with the environment's credentials at hand.
    pub(crate) fn attached<'c>(
        &'c self,
        own: &'c Credential,
        token: Option<&'c Credential>,
    ) -> Result<Attached<'c>, Refusal> {
        match self {
            Self::Environment => Ok(Attached::Ours(own)),
            Self::Token => token.map(Attached::Ours).ok_or(Refusal::NoCredential),
            Self::PassThrough(field) => Ok(Attached::PassedThrough(field)),
        }
    }
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
