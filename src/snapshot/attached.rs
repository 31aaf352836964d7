//! What is attached to an environment's requests.

use std::sync::Arc;

use super::Environment;
use crate::{config::OAuthGrant, credential::Prepared};

/// What is attached to a request, unless its operation takes a Bearer token of one user.
#[derive(Debug)]
pub(crate) enum Own {
    /// A key of the vault.
    Key(Prepared),
    /// Access tokens.
    Provider(TokensOf),
}

/// Whose access tokens are attached.
#[derive(Debug)]
pub(crate) struct TokensOf {
    pub(crate) provider: Arc<str>,
    pub(crate) grant: OAuthGrant,
}

impl Own {
    /// `None`: tokens of a provider are attached.
    pub(crate) fn key(&self) -> Option<&Prepared> {
        match self {
            Self::Key(key) => Some(key),
            Self::Provider(_) => None,
        }
    }
}

/// What is attached on operations that take a Bearer token.
#[derive(Debug)]
pub(crate) enum Bearer {
    /// Nothing: they are refused.
    Refused,
    /// The environment's own credential, which is a Bearer token.
    Environment,
    Token(Box<Prepared>),
    /// The access token of a connection.
    Provider(TokensOf),
    PassThrough,
}

impl Bearer {
    pub(crate) fn token(&self) -> Option<&Prepared> {
        match self {
            Self::Token(token) => Some(token),
            _ => None,
        }
    }
}

impl Environment {
    /// Whether tokens of connections of this provider are attached to any request.
    pub(crate) fn takes_tokens_of(&self, provider: &str) -> bool {
        let own = if let Own::Provider(tokens) = &self.own { Some(tokens) } else { None };
        let bearer = if let Bearer::Provider(tokens) = &self.bearer { Some(tokens) } else { None };
        let mut both = own.into_iter().chain(bearer);
        both.any(|tokens| tokens.grant == OAuthGrant::AuthorizationCode && *tokens.provider == *provider)
    }

    /// Whether any request is attached a token that the broker has.
    pub(crate) fn attaches_tokens(&self) -> bool {
        self.token_handles
            || matches!(self.own, Own::Provider(_))
            || matches!(self.bearer, Bearer::Provider(_))
    }
}
