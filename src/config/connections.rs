//! `[connections]`: where users' consents are kept, and how users give them.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use super::{Endpoint, ListenerTls};
use crate::vault::reference::Reference;

/// `[connections]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connections {
    /// What tokens are sealed with; at least 32 bytes.
    pub key: Reference,
    /// What they were sealed with before.
    pub former_key: Option<Reference>,
    /// Where they are.
    pub store: ConnectionStore,
    /// Where browsers may be sent back to, exact.
    pub return_urls: Vec<String>,
    /// Where users consent; `None`: nobody can.
    pub browser: Option<BrowserListener>,
}

/// Where connections are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionStore {
    /// In one file, by this process alone.
    File(PathBuf),
    /// In a database that replicas share.
    Postgres(Postgres),
}

/// `[connections.postgres]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Postgres {
    /// A name or an address in lower case, or the folder of a Unix socket.
    pub host: String,
    /// Default 5432.
    pub port: u16,
    /// Default `mxgate`.
    pub database: String,
    /// Default `mxgate`.
    pub user: String,
    /// `None`: the server asks for none.
    pub password: Option<Reference>,
    /// Where its tables are. Default `mxgate`.
    pub schema: String,
    /// PEM file that replaces the system's roots.
    pub ca_file: Option<PathBuf>,
    /// Name, TCP, TLS and login together. Default 2 s, 100 ms to 1 min.
    pub connect_timeout: Duration,
    /// One statement. Default 2 s, 100 ms to 1 min.
    pub statement_timeout: Duration,
}

/// `[connections.browser]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrowserListener {
    /// Where browsers connect, or what stands before them.
    pub address: SocketAddr,
    /// What browsers know it by; its target is `/`.
    pub url: Endpoint,
    /// `None`: what stands before it has TLS.
    pub tls: Option<ListenerTls>,
    /// How long a ticket may be opened. Default 10 min, 10 s to 1 day.
    pub ticket_life: Duration,
    /// How long a user may take at the provider. Default 10 min, 10 s to 1 h.
    pub consent_life: Duration,
}

/// `connections` of a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerConnections {
    /// The providers whose connections it may make and use, by name.
    pub providers: Vec<String>,
    /// Callers whose connections it may use besides its own, by name. None by default.
    pub of: Vec<String>,
}

/// How an access token is had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OAuthGrant {
    /// A user has consented: the request says which connection is meant.
    #[default]
    AuthorizationCode,
    /// The gateway asks for itself (RFC 6749, 4.4).
    ClientCredentials,
}
