//! `[provider.NAME]`: who gives OAuth 2.0 tokens, and how the gateway asks for them.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use crate::vault::reference::Reference;

/// `[provider.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// Its name in the configuration.
    pub name: String,
    /// Where it is.
    pub place: ProviderPlace,
    /// An identifier, not a secret.
    pub client_id: String,
    /// What proves that it is us.
    pub client_secret: Reference,
    /// How that is sent. Default `client_secret_basic`.
    pub client_authentication: ClientAuthentication,
    /// What may be asked for; a connection may ask for less. Empty: what the provider gives by itself.
    pub scopes: Vec<String>,
    /// `audience`, sent to both endpoints. None by default.
    pub audience: Option<String>,
    /// `resource` (RFC 8707), sent to both endpoints. None by default.
    pub resource: Option<String>,
    /// Further parameters of the authorization endpoint. None by default.
    pub authorization_parameters: BTreeMap<String, String>,
    /// Further parameters of the token endpoint. None by default.
    pub token_parameters: BTreeMap<String, String>,
    /// Where a user's browser comes back to, as it is registered at the provider.
    pub redirect_uri: Option<String>,
    /// For how long after its use the provider takes a refresh token again. Default 0, up to 1 h.
    pub reuse_grace: Duration,
    /// PEM file that replaces the system's roots; read again when it changes.
    pub ca_file: Option<PathBuf>,
    /// Name, TCP and TLS together. Default 5 s, 100 ms to 1 min.
    pub connect_timeout: Duration,
    /// From a request to the last byte of its answer. Default 1 min, 100 ms to 5 min: an answer that nobody waits for may
    /// have brought the only refresh token.
    pub read_timeout: Duration,
}

/// Where a provider's endpoints are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProviderPlace {
    /// In a document that the provider publishes (RFC 8414, OpenID Connect Discovery).
    Discovered {
        /// The document.
        url: Endpoint,
        /// What it must call itself.
        issuer: String,
        /// Hosts that its endpoints may be at, in lower case: that of `url`, and those that are configured.
        hosts: Vec<String>,
    },
    /// In the configuration.
    Written(Endpoints),
}

/// What a provider answers at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    /// What it calls itself, where that is known.
    pub issuer: Option<String>,
    /// Whether it says so whenever it sends a browser back (RFC 9207).
    pub names_itself: bool,
    /// Where users consent.
    pub authorization: Option<Endpoint>,
    /// Where tokens are had.
    pub token: Endpoint,
    /// Where they are given up (RFC 7009).
    pub revocation: Option<Endpoint>,
}

/// How a client proves at the token endpoint that it is itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientAuthentication {
    /// `Authorization: Basic`, what every provider must take.
    #[default]
    Basic,
    /// In the request's body.
    Post,
}

/// A URL that may be asked: over TLS, or on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// False only where the host is this machine.
    pub tls: bool,
    /// A DNS name or an address in lower case, an IPv6 one in brackets.
    pub host: String,
    /// Default 443, or 80 without TLS.
    pub port: u16,
    /// Path and query; at least `/`.
    pub target: String,
}

/// What is no [`Endpoint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoEndpoint {
    /// Not of the form.
    #[error("is no URL of an endpoint")]
    Form,
    /// It would be asked without TLS.
    #[error("would send secrets without TLS to another machine")]
    Clear,
}

impl Endpoint {
    /// Reads a URL.
    ///
    /// # Errors
    /// [`NoEndpoint`].
    pub fn parse(text: &str) -> Result<Self, NoEndpoint> {
        let uri: http::Uri = text.parse().map_err(|_| NoEndpoint::Form)?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(NoEndpoint::Form),
        };
        let authority = uri.authority().ok_or(NoEndpoint::Form)?;
        let (host, rest) = (authority.host(), authority.as_str().strip_prefix(authority.host()));
        // `http::Uri` cuts a fragment off without a word; user information stands before the host.
        if host.is_empty() || text.contains('#') || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(NoEndpoint::Form);
        }
        let port = match rest {
            Some("") if tls => 443,
            Some("") => 80,
            Some(_) => authority.port_u16().filter(|port| *port != 0).ok_or(NoEndpoint::Form)?,
            None => return Err(NoEndpoint::Form),
        };
        if !tls && !super::check::is_loopback(host) {
            return Err(NoEndpoint::Clear);
        }
        let target = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        Ok(Self { tls, host: host.to_ascii_lowercase(), port, target })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tls, host, port, target } = self;
        match (tls, port) {
            (true, 443) => write!(f, "https://{host}{target}"),
            (false, 80) => write!(f, "http://{host}{target}"),
            (tls, port) => write!(f, "{}://{host}:{port}{target}", if *tls { "https" } else { "http" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_asked_over_tls_or_on_this_machine() {
        for (text, shown) in [
            ("https://id.example/token", "https://id.example/token"),
            ("https://ID.example:443", "https://id.example/"),
            ("https://id.example:8443/a/b?c=d", "https://id.example:8443/a/b?c=d"),
            ("https://id.example?c=d", "https://id.example/?c=d"),
            ("http://localhost:8080/token", "http://localhost:8080/token"),
            ("http://127.0.0.1/token", "http://127.0.0.1/token"),
            ("http://[::1]:1/token", "http://[::1]:1/token"),
        ] {
            assert_eq!(Endpoint::parse(text).map(|one| one.to_string()), Ok(shown.to_owned()), "{text}");
        }
        for text in [
            "",
            "/token",
            "id.example/token",
            "ftp://id.example/",
            "https://",
            "https://user@id.example/",
            "https://id.example:0/",
            "https://id.example:x/",
            "https://id.example/#a",
            "https://id.example/a b",
            "https://id.example/ä",
        ] {
            assert_eq!(Endpoint::parse(text), Err(NoEndpoint::Form), "{text}");
        }
        for text in ["http://id.example/", "http://10.0.0.1/", "http://localhost.example/"] {
            assert_eq!(Endpoint::parse(text), Err(NoEndpoint::Clear), "{text}");
        }
    }
}
