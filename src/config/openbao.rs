//! `[openbao]`: an OpenBao or HashiCorp Vault server, and how the gateway logs in there.

use std::{fmt, path::PathBuf, time::Duration};

use super::Refresh;
use crate::vault::reference::Reference;

/// `[openbao]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenBao {
    /// A DNS name or an address, an IPv6 one in brackets.
    pub host: String,
    /// Default 443 (80 without TLS).
    pub port: u16,
    /// False only where the host is this machine.
    pub tls: bool,
    /// KV mounts with more than one segment; of any other place the first segment is the mount. None by default.
    pub mounts: Vec<String>,
    /// PEM file that replaces the system's roots; read again when it changes.
    pub ca_file: Option<PathBuf>,
    /// Of mounts and login alike. None by default.
    pub namespace: Option<String>,
    /// How a token is had.
    pub login: BaoLogin,
    /// How its secrets are kept fresh. Default 1 min, with a grace of 1 h.
    pub refresh: Refresh,
    /// Name, TCP and TLS together. Default 5 s, 100 ms to 1 min.
    pub connect_timeout: Duration,
    /// From a request to the last byte of its answer. Default 10 s, 100 ms to 1 min.
    pub read_timeout: Duration,
}

/// `openbao.login`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BaoLogin {
    /// A token that somebody else has made, and may replace.
    Token {
        /// The token.
        token: Reference,
    },
    /// A role's id and a secret id.
    AppRole {
        /// Where the method is mounted. Default `approle`.
        mount: String,
        /// An identifier, not a secret.
        role_id: String,
        /// Its secret id.
        secret_id: Reference,
    },
    /// A JSON Web Token, which the method `kubernetes` takes in the same form as `jwt`.
    Jwt {
        /// Where the method is mounted. Default `kubernetes` or `jwt`.
        mount: String,
        /// The role that is asked for.
        role: String,
        /// The JSON Web Token; read anew for each login, since it is short-lived.
        jwt: Reference,
    },
}

impl BaoLogin {
    /// The secret that it sends.
    #[must_use]
    pub fn reference(&self) -> &Reference {
        match self {
            Self::Token { token } => token,
            Self::AppRole { secret_id, .. } => secret_id,
            Self::Jwt { jwt, .. } => jwt,
        }
    }
}

impl fmt::Display for BaoLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token { .. } => f.write_str("token"),
            Self::AppRole { mount, .. } | Self::Jwt { mount, .. } => write!(f, "auth/{mount}"),
        }
    }
}
