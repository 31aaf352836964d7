//! What is attached to requests.

use super::OAuthGrant;
use crate::vault::reference::Reference;

/// How secrets are attached to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// `Authorization: Basic base64(client_id:api_key)`: MX's default.
    Basic {
        /// An identifier, not a secret.
        client_id: String,
        /// The key.
        api_key: Reference,
        /// A second key that works as well.
        secondary_api_key: Option<Reference>,
    },
    /// `Authorization: API_KEY <key>` and `MX-Client-ID`.
    ApiKey {
        /// An identifier, not a secret.
        client_id: String,
        /// The key.
        api_key: Reference,
        /// A second key that works as well.
        secondary_api_key: Option<Reference>,
    },
    /// `MX-API-Key` and `MX-Client-ID`.
    MxApiKey {
        /// An identifier, not a secret.
        client_id: String,
        /// The key.
        api_key: Reference,
        /// A second key that works as well.
        secondary_api_key: Option<Reference>,
    },
    /// `?api_key=<key>&client_id=<id>`, with configurable names.
    Query {
        /// An identifier, not a secret.
        client_id: String,
        /// The key.
        api_key: Reference,
        /// A second key that works as well.
        secondary_api_key: Option<Reference>,
        /// Default `client_id`.
        client_id_name: String,
        /// Default `api_key`.
        api_key_name: String,
    },
    /// `Authorization: Bearer <token>`.
    Bearer {
        /// The token.
        token: Reference,
    },
    /// `Authorization: Bearer <access token>`, of a provider's.
    OAuth2 {
        /// The provider's name.
        provider: String,
        /// Whose the token is.
        grant: OAuthGrant,
    },
    /// Any named header, with an optional prefix before the value.
    Header {
        /// The header's name.
        name: http::HeaderName,
        /// For example `Token `; empty by default.
        prefix: String,
        /// The value.
        value: Reference,
    },
}

/// What happens on the four operations that take a Bearer token.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum BearerOperations {
    /// They are refused with `no_credential`, unless the environment's credential is itself `bearer`.
    #[default]
    Refused,
    /// This token is attached.
    Token(Reference),
    /// The access token of a connection of this provider is attached.
    Provider(String),
    /// The caller's own `Authorization: Bearer` passes through, on these operations only.
    PassThrough,
}

impl Credential {
    /// The one secret that it cannot do without; `None` when it is had from a provider.
    #[must_use]
    pub fn reference(&self) -> Option<&Reference> {
        Some(match self {
            Self::Basic { api_key, .. }
            | Self::ApiKey { api_key, .. }
            | Self::MxApiKey { api_key, .. }
            | Self::Query { api_key, .. } => api_key,
            Self::Bearer { token } => token,
            Self::Header { value, .. } => value,
            Self::OAuth2 { .. } => return None,
        })
    }

    /// Where its secret comes from, in words of the configuration.
    #[must_use]
    pub fn source(&self) -> String {
        match (self, self.reference()) {
            (Self::OAuth2 { provider, .. }, _) => format!("provider {provider}"),
            (_, Some(reference)) => reference.to_string(),
            (_, None) => String::new(),
        }
    }

    /// A second key, for the time in which the first may die. It need not be there (yet).
    #[must_use]
    pub fn secondary(&self) -> Option<&Reference> {
        match self {
            Self::Basic { secondary_api_key, .. }
            | Self::ApiKey { secondary_api_key, .. }
            | Self::MxApiKey { secondary_api_key, .. }
            | Self::Query { secondary_api_key, .. } => secondary_api_key.as_ref(),
            Self::Bearer { .. } | Self::Header { .. } | Self::OAuth2 { .. } => None,
        }
    }
}
