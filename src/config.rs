//! The configuration, checked and typed. Nothing outside this module sees the file as it was written:
//! the file becomes checked values once, and every fault is reported in one run.

mod aws;
mod check;
mod connections;
mod credential;
mod document;
mod egress;
pub mod fault;
mod files;
pub mod limits;
mod load;
mod openbao;
pub mod overrides;
pub mod permissions;
mod provider;
mod reload;
mod rotation;
mod schema;
mod secrets;
mod shown;
#[cfg(test)]
mod tests;
mod users;
mod walk;

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use ipnet::IpNet;

pub use self::check::{client_guid, grant_item};
pub use self::{
    aws::Aws,
    connections::{BrowserListener, CallerConnections, ConnectionStore, Connections, OAuthGrant, Postgres},
    credential::{BearerOperations, Credential},
    egress::{Egress, Login, Pin, Proxy, Reach},
    load::Loaded,
    openbao::{BaoLogin, OpenBao},
    provider::{ClientAuthentication, Endpoint, Endpoints, NoEndpoint, Provider, ProviderPlace},
    rotation::Rotation,
    secrets::{Exec, Needed, Refresh, Refreshing, Role},
    users::{EndUser, FieldPath, KeysAt},
};
pub(crate) use self::{check::log_filter, files::FileKind};
use crate::{
    policy::{self, grant},
    users::list::UserPattern,
    vault::{elsewhere::Elsewhere, reference::Reference},
};

/// Everything an operator decides, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Networks that may call at all. An empty list lets nobody in. Reloadable.
    pub allow: Vec<IpNet>,
    /// Networks whose `forwarded_header` and PROXY protocol are believed. Empty by default. Reloadable.
    pub trusted_proxies: Vec<IpNet>,
    /// Which header names the caller's address behind a trusted proxy. Reloadable.
    pub forwarded_header: ForwardedHeader,
    /// Where callers connect. At least one. Restart-only.
    pub listeners: Vec<Listener>,
    /// Bounds of every listener. Reloadable.
    pub limits: Limits,
    /// The embedded vault; `None` when no reference is `vault:`. Restart-only.
    pub vault: Option<VaultFile>,
    /// How long secrets of the vault and of files may be used. The vault's is restart-only.
    pub refresh: Refreshing,
    /// Commands that print secrets, by name. Reloadable.
    pub exec: BTreeMap<String, Exec>,
    /// The OpenBao or HashiCorp Vault server; `None` when no reference is `openbao:`. Reloadable.
    pub openbao: Option<OpenBao>,
    /// AWS Secrets Manager; `None` when no reference is `aws:`. Reloadable.
    pub aws: Option<Aws>,
    /// Who may call, each with what it may do. Without any, nobody is served. Reloadable.
    pub callers: Vec<Caller>,
    /// The tokens that this gateway issues; `None`: no caller is known by one. Reloadable.
    pub tokens: Option<Tokens>,
    /// Who gives OAuth 2.0 tokens, by name. Reloadable.
    pub providers: BTreeMap<String, Arc<Provider>>,
    /// Users' consents; `None`: there are none. Restart-only.
    pub connections: Option<Connections>,
    /// By name. Reloadable.
    pub environments: BTreeMap<String, Arc<Environment>>,
    /// The health and metrics listener; `None`, without a `[health]` section, switches it off. Restart-only.
    pub health: Option<Health>,
    /// The control socket's path; `None`, without a `[control]` section, switches it off. Restart-only.
    pub control_socket: Option<PathBuf>,
    /// Log level and shape. The level is reloadable.
    pub log: Log,
    /// Where access records go. Restart-only.
    pub record: RecordDestination,
    /// Threads and shutdown. Restart-only.
    pub process: Process,
}

/// The header that a trusted proxy adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`, the rightmost address that is not itself a trusted proxy.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239), its `for` parameters, read likewise.
    Forwarded,
    /// Neither is believed from anybody.
    None,
}

/// One `[[listener]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// TCP address or Unix socket path.
    pub address: ListenAddress,
    /// What its requests are for.
    pub serves: Serves,
    /// TLS towards callers.
    pub tls: Option<ListenerTls>,
    /// With `tls`: whose client certificates are taken; `None`: none is asked for.
    pub client_ca: Option<ClientCa>,
    /// Every connection must open with a PROXY protocol header (v1 or v2) and come from a trusted proxy.
    pub proxy_protocol: bool,
    /// `Host` names (lower case, no port) that are answered besides `localhost` and addresses. A loopback
    /// listener always checks; another does when there are any.
    pub hosts: Vec<String>,
    /// Values of `Origin` that may call (exact, lower case). Empty: no browser may.
    pub origins: Vec<String>,
}

/// What the requests of a listener are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Serves {
    /// They go to the environment of this name; it exists in [`Config::environments`].
    Environment(String),
    /// They make, list and end users' connections.
    Connections,
}

/// One `[[caller]]`: a service, how it is recognised, and what it may do.
///
/// It gives at least one criterion, and every one that it gives must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Its name, in records, metrics and commands.
    pub name: String,
    /// It calls from one of these networks.
    pub networks: Option<Vec<IpNet>>,
    /// It is one of these users on this machine, at the other end of a Unix socket.
    pub unix_uids: Option<Vec<u32>>,
    /// It has one of these groups there, as its effective one.
    pub unix_gids: Option<Vec<u32>>,
    /// The certificate that it has shown on this connection has one of these names: `dns:`, `uri:` or `subject:`
    /// and the name.
    pub tls_names: Option<Vec<String>>,
    /// It sends a token that was issued to it.
    pub token: bool,
    /// What it may do, by environment; nothing at those that are not named.
    pub grant: BTreeMap<String, Vec<grant::Item>>,
    /// Which connections of users it may make and use; `None`: none.
    pub connections: Option<CallerConnections>,
    /// What it may use.
    pub limits: limits::CallerLimits,
    /// Whose data it may reach, beside those of `users_file`; `None` with neither: everybody's.
    pub users: Option<Vec<UserPattern>>,
    /// A file with more of them, one a line; reloaded when it changes.
    pub users_file: Option<PathBuf>,
    /// Its requests are for the user whom their token names.
    pub end_user: Option<EndUser>,
    /// Fields of JSON answers that are masked for it. None by default.
    pub mask_fields: Vec<FieldPath>,
    /// Until then, much of what its grants refuse is let through and noted: see [`crate::policy::grant`].
    pub observe_until: Option<SystemTime>,
}

impl Serves {
    /// The environment that requests go to; `None`: to none.
    #[must_use]
    pub fn environment(&self) -> Option<&str> {
        match self {
            Self::Environment(name) => Some(name),
            Self::Connections => None,
        }
    }
}

impl fmt::Display for Serves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment(name) => write!(f, "sends to {name}"),
            Self::Connections => f.write_str("serves connections"),
        }
    }
}

/// Where a listener binds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListenAddress {
    /// `127.0.0.1:8080`, `[::1]:8080`.
    Tcp(SocketAddr),
    /// `unix:/run/mxgate/mx.sock`; created with mode 0660.
    Unix(PathBuf),
}

/// A certificate chain and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerTls {
    /// PEM file with the chain, leaf first.
    pub certificate: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}

/// `tls.client_ca` of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCa {
    /// PEM file with the authorities; reloaded when it changes.
    pub file: PathBuf,
    /// Whether a connection without a client certificate is refused. Default true.
    pub required: bool,
}

/// `[tokens]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// Where the tokens' digests are; read again when it changes. There may be none yet.
    pub file: PathBuf,
    /// The field that a token is taken from, besides `Authorization`. Default `x-mxgate-token`.
    pub header: http::HeaderName,
}

/// Bounds on what a caller can cost. Every listener has the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections of all listeners together. Default 4096, 1 to 1,000,000.
    pub connections_max: usize,
    /// Connections from one address (all Unix socket peers count as one). Default 2048, 1 to 1,000,000.
    pub connections_per_address_max: usize,
    /// Bytes of a request's header section, its line included. Default 16,384, 1,024 to 65,536.
    pub header_bytes_max: usize,
    /// Fields in a request's header section. Default 64, 8 to 100 (hyper's own bound).
    pub header_count_max: usize,
    /// Bytes of a request line. Default 8,192, 256 to 32,768.
    pub request_line_bytes_max: usize,
    /// Bytes of a request body. Default 10 MiB, 0 to 1 GiB.
    pub body_bytes_max: u64,
    /// From the first byte of a head to its last. Default 10 s, 100 ms to 5 min.
    pub header_read_timeout: Duration,
    /// A kept-alive connection without a request, or whose caller takes no byte of its answer. Default 60 s,
    /// 100 ms to 1 h.
    pub idle_timeout: Duration,
    /// From the head to the last byte of the body. Default 60 s, 100 ms to 1 h.
    pub upload_timeout: Duration,
}

/// `[vault]` with `kind = "file"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultFile {
    /// The age-encrypted file.
    pub path: PathBuf,
    /// Where the age identity is; never `vault:`.
    pub identity: Reference,
    /// Where the passphrase is that the identity is sealed with, if it is; never `vault:`.
    pub passphrase: Option<Reference>,
    /// How the two are read that are neither in a file nor in a variable.
    pub elsewhere: Elsewhere,
}

/// One MX host, or another one that speaks with the same kinds of credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// Its name in the configuration.
    pub name: String,
    /// `https` only; a DNS name or IPv4 address, in lower case.
    pub host: String,
    /// Default 443.
    pub port: u16,
    /// What may be called there.
    pub api: Api,
    /// `Accept-Version` for callers that send none. Default `v20250224`.
    pub accept_version: String,
    /// What is attached to each request.
    pub credential: Credential,
    /// Fields of callers that pass although their names look like a credential's. Default none.
    pub pass_headers: Vec<http::HeaderName>,
    /// How its key is changed.
    pub rotation: Rotation,
    /// What is attached on the operations that take a Bearer token of one user or account.
    pub bearer_operations: BearerOperations,
    /// Whether tokens in MX's answers stay here and callers get handles for them. Default false.
    pub token_handles: bool,
    /// What a token of a provider must be good for.
    pub scopes: Vec<NeededScopes>,
    /// PEM file that replaces the system's roots; reloaded when it changes.
    pub ca_file: Option<PathBuf>,
    /// A client certificate towards the upstream.
    pub client_certificate: Option<ListenerTls>,
    /// Which addresses of the host are dialled.
    pub ip_family: IpFamily,
    /// How connections to it get out.
    pub egress: Egress,
    /// Connections to this environment, of all workers together, who each need at least one. Default 256, 1 to
    /// 2,000 (MX's own limit per address).
    pub connections_max: usize,
    /// What all callers together may use of it.
    pub budget: limits::Budget,
    /// When it is left alone for a while.
    pub breaker: limits::Breaker,
    /// Waits.
    pub timeouts: Timeouts,
}

/// What a token must be good for when something is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeededScopes {
    /// What is called.
    pub item: grant::Item,
    /// All that it needs.
    pub scopes: Vec<String>,
}

/// What may be called at an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Api {
    /// MX's Platform API: the catalogue decides.
    Platform,
    /// Another API: only these patterns.
    Paths(Vec<PathPattern>),
}

impl Api {
    /// Which of the two it is.
    pub(crate) const fn kind(&self) -> policy::Api {
        match self {
            Self::Platform => policy::Api::Platform,
            Self::Paths(_) => policy::Api::Paths,
        }
    }
}

/// `GET /v1/things/{id}`; a template segment `{name}` stands for exactly one segment, `{*rest}` at the end for one or more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern {
    /// The method.
    pub method: http::Method,
    /// The template, as written.
    pub template: String,
}

/// Which addresses are dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IpFamily {
    /// Both, in the resolver's order.
    #[default]
    Any,
    /// IPv4 only: MX allowlists fixed addresses.
    Ipv4,
    /// IPv6 only.
    Ipv6,
}

/// Waits towards an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP connect, per attempt. Default 5 s, 100 ms to 1 min.
    pub connect: Duration,
    /// TLS handshake. Default 5 s, 100 ms to 1 min.
    pub tls: Duration,
    /// From the request's last byte to the answer's head. Default 60 s, 100 ms to 10 min.
    pub first_byte: Duration,
    /// Between two pieces of an answer. Default 30 s, 100 ms to 10 min.
    pub idle: Duration,
    /// The whole exchange. Default 5 min, 100 ms to 1 h.
    pub total: Duration,
    /// How long an unused connection is kept. Default 30 s, 100 ms to 10 min.
    pub pool_idle: Duration,
    /// How long any connection is used. Default 5 min, 1 s to 1 h.
    pub connection_age: Duration,
}

/// `[health]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Default `127.0.0.1:9090`; it may be the pod's address.
    pub address: SocketAddr,
    /// `Host` names that are answered besides loopback ones, when the address is loopback.
    pub hosts: Vec<String>,
    /// Whether `/readyz` also fails when a secret could not be read when it was last looked at. Default false.
    pub ready_needs_vault: bool,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// A level or a filter such as `info,mxgate::upstream=debug`. Default `info`. Reloadable.
    pub filter: String,
    /// One JSON object a line instead of text. Default false. Restart-only.
    pub json: bool,
}

/// `[record]`: where access records go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordDestination {
    /// Standard output, the default.
    Stdout,
    /// Appended to a file (created 0600), reopened on SIGHUP.
    File(PathBuf),
    /// Nowhere.
    Off,
}

/// `[process]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Worker threads; `None`: one per usable core, following a CPU quota. 1 to 256.
    pub workers: Option<usize>,
    /// After SIGTERM: how long new connections are still served. Default 0, up to 10 min.
    pub drain_delay: Duration,
    /// After `drain_delay`: how long requests in flight may take. Default 30 s, 0 to 1 h.
    pub drain_total: Duration,
}

impl ListenAddress {
    /// Whether only this machine's own processes reach it over TCP.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        matches!(self, Self::Tcp(address) if address.ip().to_canonical().is_loopback())
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Environment {
    /// The providers whose tokens are attached here: the key that says so, the name, and whose the tokens are.
    pub(crate) fn oauth(&self) -> impl Iterator<Item = (&'static str, &str, OAuthGrant)> {
        let credential = match &self.credential {
            Credential::OAuth2 { provider, grant } => {
                Some(("credential.provider", provider.as_str(), *grant))
            }
            _ => None,
        };
        let bearer = match &self.bearer_operations {
            BearerOperations::Provider(name) => {
                Some(("bearer_operations.provider", name.as_str(), OAuthGrant::AuthorizationCode))
            }
            _ => None,
        };
        credential.into_iter().chain(bearer)
    }

    /// The password at the proxy, if it asks for one.
    #[must_use]
    pub fn proxy_password(&self) -> Option<&Reference> {
        self.egress.proxy.as_ref()?.login.as_ref().map(|login| &login.password)
    }
}
