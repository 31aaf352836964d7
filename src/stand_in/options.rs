//! What a stand-in is started with.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;

use super::{certificate::ServerCertificate, switches::Switches};

/// How a stand-in behaves. Start from [`Options::new`] and change what the test is about.
#[derive(Clone)]
pub struct Options {
    /// Where it listens for TLS. Default `127.0.0.1:0`: a free port.
    pub address: SocketAddr,
    /// Where it listens without TLS as well. Default `None`.
    pub plain_address: Option<SocketAddr>,
    /// Its certificate. Default `None`: one for [`super::certificate::NAMES`], made at the start by an authority of
    /// its own.
    pub certificate: Option<ServerCertificate>,
    /// PEM of the authority that must have signed each client's certificate. Default `None`: clients need none.
    pub client_authority_pem: Option<String>,
    /// The hosts that it stands in for.
    pub environments: Vec<Environment>,
    /// Who may call: MX's own address allowlist. Default `None`: everybody.
    pub allow: Option<Vec<IpNet>>,
    /// Whether a request without `Accept-Version` is answered 406, as MX documents since 2026-08-12. Default true.
    pub accept_version_required: bool,
    /// Whether `x-stand-in-*` headers switch behaviour. Default false.
    pub header_switches: bool,
    /// Switches that hold for every request.
    pub switches: Switches,
    /// Whether an echo hides credentials, for demonstrations. Default false.
    pub mask_echo: bool,
    /// Whether a request that no well-behaved gateway sends (see [`super::journal::Oddity`]) is answered 400.
    /// Default false: it is only recorded.
    pub strict: bool,
    /// Records that every paginated list has, over all its pages. Default 12.
    pub list_entries: usize,
    /// Status reads until a job on a member is finished; 0: it is finished at once. Default 2.
    pub job_reads: u32,
    /// How long the tokens are good that it gives for codes. Default 60 days, as MX's.
    pub token_life: Duration,
    /// How many of the last requests are kept for [`super::Handle::requests`]. Default 256.
    pub requests_kept: usize,
    /// The most bytes of a request's body; more is answered 413. Default 16 MiB.
    pub body_bytes_max: usize,
    /// The clock by which rotated keys expire. Default: the system's.
    pub clock: Arc<dyn Fn() -> SystemTime + Send + Sync>,
}

impl Options {
    /// The defaults, for `environments`.
    #[must_use]
    pub fn new(environments: Vec<Environment>) -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            plain_address: None,
            certificate: None,
            client_authority_pem: None,
            environments,
            allow: None,
            accept_version_required: true,
            header_switches: false,
            switches: Switches::default(),
            mask_echo: false,
            strict: false,
            list_entries: 12,
            job_reads: 2,
            token_life: Duration::from_secs(60 * 24 * 3600),
            requests_kept: 256,
            body_bytes_max: 16 << 20,
            clock: Arc::new(SystemTime::now),
        }
    }
}

/// One host that is stood in for, with credentials of its own. They are made up: never give it real ones.
#[derive(Clone)]
pub struct Environment {
    /// The name in `Host` (lower case, no port) and, if the client sent one, in SNI; `None`: any other name.
    pub host: Option<String>,
    /// The client id.
    pub client_id: String,
    /// The live API keys, the original first.
    pub api_keys: Vec<String>,
    /// In which ways the key may be sent. Default: Basic only.
    pub schemes: Vec<Scheme>,
    /// Tokens for the operations that take a Bearer token, and for all others with [`Scheme::Bearer`].
    pub bearer_tokens: Vec<String>,
    /// Whether paths outside the catalogue are answered with an empty object instead of 404, to stand in for
    /// another API. Default false.
    pub any_path: bool,
}

impl Environment {
    /// One that takes `client_id` and `api_key` by Basic authentication, at any host name.
    #[must_use]
    pub fn new(client_id: impl Into<String>, api_key: impl Into<String>) -> Self {
        Self {
            host: None,
            client_id: client_id.into(),
            api_keys: vec![api_key.into()],
            schemes: vec![Scheme::Basic],
            bearer_tokens: Vec::new(),
            any_path: false,
        }
    }

    /// The same, at `host` only.
    #[must_use]
    pub fn at(mut self, host: &str) -> Self {
        self.host = Some(host.to_ascii_lowercase());
        self
    }
}

/// How a credential is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scheme {
    /// `Authorization: Basic base64(client_id:api_key)`.
    Basic,
    /// `Authorization: API_KEY <key>` and `MX-Client-ID: <id>`.
    ApiKey,
    /// `MX-API-Key: <key>` and `MX-Client-ID: <id>`.
    MxApiKey,
    /// Both in the query, under these names.
    Query {
        /// MX: `client_id`, or `c`.
        client_id_name: String,
        /// MX: `api_key`, or `k`.
        api_key_name: String,
    },
    /// `Authorization: Bearer <token>`, one of [`Environment::bearer_tokens`].
    Bearer,
    /// This header with exactly this value.
    Header {
        /// For example `md-api-key`.
        name: HeaderName,
        /// The whole value.
        value: HeaderValue,
    },
}
