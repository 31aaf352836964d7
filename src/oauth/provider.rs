//! One provider: where its endpoints are, and asking them.
//!
//! In: what the configuration says of it. Out: the URL that a user's browser is sent to, with what belongs to it; and
//! tokens for a grant. Everything goes over the control plane's own HTTPS, bounded in time and size.
//!
//! The client secret is read anew after [`SECRET_AGE_MAX`], so that a changed one is soon used. An endpoint that is discovered is
//! looked up again after [`DISCOVERED_AGE_MAX`]; when that fails, the last good document serves.
//!
//! What must never happen: a secret goes to a host that it is not sealed for; a code is exchanged without its verifier.

use std::{
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_lc_rs::rand;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use oauth2::{
    AuthUrl, ClientId, CsrfToken, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope, basic::BasicClient,
};
use tokio::time::Instant;

use super::{
    connection::NoRandom,
    discovery,
    token_endpoint::{self, ANSWER_BYTES_MAX, Fault, Grant, Granted, Revoked, Writer},
};
use crate::{
    config::{self, Endpoint, Endpoints, ProviderPlace},
    https::{Answer, Bounds, Server},
    redaction, tls,
    vault::{self, once, secret::Secret},
};

/// How long a document of discovery is believed without another look.
const DISCOVERED_AGE_MAX: Duration = Duration::from_secs(3600);

/// How soon another look is taken after one that failed.
const DISCOVER_AGAIN: Duration = Duration::from_secs(60);

/// How long the client secret is used without another look.
const SECRET_AGE_MAX: Duration = Duration::from_secs(10);

/// Reads the client secret, to be sent to this host.
pub(crate) type LookUp = Arc<dyn Fn(String) -> LookedUp + Send + Sync>;
type LookedUp = Pin<Box<dyn Future<Output = Result<Arc<Secret>, vault::Error>> + Send>>;

/// A configured provider.
pub(crate) struct Provider {
    settings: Arc<config::Provider>,
    look_up: LookUp,
    /// The client secret as it was read last, for which host. Whoever reads it has the lock: a vault whose identity is sealed
    /// with a passphrase takes a second and much memory to open.
    secret: tokio::sync::Mutex<Option<(Instant, String, Arc<Secret>)>>,
    /// With the time of the next look.
    discovered: Mutex<Option<(Instant, Arc<Endpoints>)>>,
}

/// What a browser is sent away with, and what must be there when it comes back.
#[derive(Debug)]
pub(crate) struct Authorization {
    /// Where it is sent. It holds `state`, and nothing else that is secret.
    pub(crate) url: String,
    /// Bound to the browser, and used once (RFC 6749, 10.12).
    pub(crate) state: Arc<Secret>,
    /// What only we can show when the code is exchanged (RFC 7636).
    pub(crate) verifier: Arc<Secret>,
}

impl Provider {
    /// `vault` is the embedded vault, where the client secret may be.
    pub(crate) fn new(settings: Arc<config::Provider>, vault: Option<config::VaultFile>) -> Self {
        let reference = settings.client_secret.clone();
        let look_up: LookUp = Arc::new(move |host| {
            let (reference, vault) = (reference.clone(), vault.clone());
            Box::pin(async move { once::read(reference, &host, vault).await })
        });
        Self { settings, look_up, secret: tokio::sync::Mutex::default(), discovered: Mutex::default() }
    }

    /// Who this is to whoever has its tokens, in the clear: what it calls itself or where its tokens are had, and whose they
    /// are. With another one, it is another provider of the same name.
    pub(crate) fn identity(&self) -> String {
        let place = match &self.settings.place {
            ProviderPlace::Written(endpoints) => endpoints.token.to_string(),
            ProviderPlace::Discovered { issuer, .. } => issuer.clone(),
        };
        format!("{place} {}", self.settings.client_id)
    }

    /// What the configuration says of it.
    pub(crate) fn settings(&self) -> &config::Provider {
        &self.settings
    }

    /// Begins a user's consent to `scopes`.
    pub(crate) async fn authorization(&self, scopes: &[String]) -> Result<Authorization, Fault> {
        let endpoints = self.endpoints().await?;
        let place = endpoints.authorization.as_ref().ok_or(Fault::NoEndpoint("authorization"))?;
        let no_url = |_| Fault::Unwritable("a URL has no form");
        let redirect = self.settings.redirect_uri.clone().ok_or(Fault::Unwritable("no redirect_uri"))?;
        let client = BasicClient::new(ClientId::new(self.settings.client_id.clone()))
            .set_auth_uri(AuthUrl::new(place.to_string()).map_err(no_url)?)
            .set_redirect_uri(RedirectUrl::new(redirect).map_err(no_url)?);
        let no_random = |NoRandom| Fault::Unwritable("the system gives no random numbers");
        let (state, verifier) = (random().map_err(no_random)?, random().map_err(no_random)?);
        let (state_text, verifier_text) = (state.clone(), PkceCodeVerifier::new(verifier.clone()));
        let challenge = PkceCodeChallenge::from_code_verifier_sha256(&verifier_text);
        let mut request = client
            .authorize_url(|| CsrfToken::new(state_text))
            .set_pkce_challenge(challenge)
            .add_scopes(scopes.iter().cloned().map(Scope::new));
        let config::Provider { audience, resource, authorization_parameters, .. } = &*self.settings;
        for (name, value) in [("audience", audience), ("resource", resource)] {
            if let Some(value) = value {
                request = request.add_extra_param(name, value);
            }
        }
        for (name, value) in authorization_parameters {
            request = request.add_extra_param(name, value);
        }
        let (url, _) = request.url();
        let secret = |text: String| {
            Secret::new(text.into_bytes()).map(Arc::new).map_err(|_| Fault::Unwritable("no random text"))
        };
        let (state, verifier) = (secret(state)?, secret(verifier)?);
        redaction::held().remember([&state, &verifier]);
        Ok(Authorization { url: url.into(), state, verifier })
    }

    /// Whether an answer of the authorization endpoint came from this provider (RFC 9207). One that names no issuer is
    /// believed unless its provider always does, since many never do; one that names another is not.
    pub(crate) async fn is_issuer(&self, iss: Option<&str>) -> Result<bool, Fault> {
        let endpoints = self.endpoints().await?;
        Ok(match (iss, &endpoints.issuer) {
            (Some(iss), Some(issuer)) => iss == issuer,
            (Some(_), None) => true,
            (None, _) => !endpoints.names_itself,
        })
    }

    /// Asks for tokens. Whoever drops this leaves it open whether the grant was used.
    pub(crate) async fn tokens(&self, grant: &Grant<'_>) -> Result<Granted, Fault> {
        let endpoints = self.endpoints().await?;
        let secret = self.client_secret(&endpoints.token).await?;
        let request = Writer::new(&self.settings, &secret)?.grant(grant)?;
        token_endpoint::granted(&self.send(&endpoints.token, request).await?)
    }

    /// Gives a token up.
    pub(crate) async fn revoke(&self, revoked: Revoked<'_>) -> Result<(), Fault> {
        let endpoints = self.endpoints().await?;
        let place = endpoints.revocation.as_ref().ok_or(Fault::NoEndpoint("revocation"))?;
        let secret = self.client_secret(place).await?;
        let request = Writer::new(&self.settings, &secret)?.revocation(revoked)?;
        token_endpoint::revoked(&self.send(place, request).await?)
    }

    /// Goes the way to the token endpoint, for whoever looks before anybody needs it, and tells where that is. Nothing is sent but
    /// the request for a document of discovery.
    pub(crate) async fn reach(&self) -> Result<String, Fault> {
        let place = &self.endpoints().await?.token;
        self.server(place)?.reach().await?;
        Ok(place.to_string())
    }

    async fn client_secret(&self, place: &Endpoint) -> Result<Arc<Secret>, Fault> {
        let mut known = self.secret.lock().await;
        if let Some((at, host, secret)) = &*known
            && *host == place.host
            && at.elapsed() < SECRET_AGE_MAX
        {
            return Ok(secret.clone());
        }
        let secret = (self.look_up)(place.host.clone()).await.map_err(Fault::ClientSecret)?;
        *known = Some((Instant::now(), place.host.clone(), secret.clone()));
        Ok(secret)
    }

    async fn send(&self, place: &Endpoint, request: oauth2::HttpRequest) -> Result<Answer, Fault> {
        let request = token_endpoint::to(&place.target, request)?;
        let request = request.map(|body| Full::new(Bytes::from_owner(body)));
        Ok(self.server(place)?.exchange(request).await?)
    }

    async fn endpoints(&self) -> Result<Arc<Endpoints>, Fault> {
        let (url, issuer, hosts) = match &self.settings.place {
            ProviderPlace::Written(endpoints) => return Ok(Arc::new(endpoints.clone())),
            ProviderPlace::Discovered { url, issuer, hosts } => (url, issuer, hosts),
        };
        let known = self.discovered().clone();
        if let Some((next, endpoints)) = &known
            && Instant::now() < *next
        {
            return Ok(endpoints.clone());
        }
        match (self.discover(url, issuer, hosts).await, known) {
            (Ok(endpoints), _) => {
                let endpoints = Arc::new(endpoints);
                *self.discovered() = Some((Instant::now() + DISCOVERED_AGE_MAX, endpoints.clone()));
                Ok(endpoints)
            }
            (Err(fault), Some((_, endpoints))) => {
                tracing::warn!(
                    provider = self.settings.name,
                    reason = vault::chain(&fault),
                    "the last good document of discovery serves on"
                );
                *self.discovered() = Some((Instant::now() + DISCOVER_AGAIN, endpoints.clone()));
                Ok(endpoints)
            }
            (Err(fault), None) => Err(fault),
        }
    }

    async fn discover(&self, url: &Endpoint, issuer: &str, hosts: &[String]) -> Result<Endpoints, Fault> {
        let request = Request::get(&url.target)
            .header(http::header::ACCEPT, "application/json")
            .body(Full::default())
            .map_err(|_| Fault::Unwritable("discovery has no form"))?;
        let answer = self.server(url)?.exchange(request).await.map_err(discovery::Fault::NotHad)?;
        Ok(discovery::endpoints(&answer, issuer, hosts)?)
    }

    fn discovered(&self) -> std::sync::MutexGuard<'_, Option<(Instant, Arc<Endpoints>)>> {
        self.discovered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Made for each exchange: they are minutes apart, and `ca_file` may have changed.
    fn server(&self, place: &Endpoint) -> Result<Server, Fault> {
        let config::Provider { ca_file, connect_timeout, read_timeout, .. } = &*self.settings;
        let bounds =
            Bounds { connect: *connect_timeout, answer: *read_timeout, answer_bytes_max: ANSWER_BYTES_MAX };
        if !place.tls {
            return Ok(Server::plain(&place.host, place.port, bounds)?);
        }
        let pem = ca_file.as_deref().map(tls::read).transpose()?;
        let authority: Option<(&Path, &[u8])> = ca_file.as_deref().zip(pem.as_deref());
        Ok(Server::over_tls(&place.host, place.port, authority, bounds)?)
    }
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Provider({})", self.settings.name)
    }
}

/// 256 bits as text: what a verifier may be made of, a state, and whatever else nobody may guess.
pub(super) fn random() -> Result<String, NoRandom> {
    let mut bytes = zeroize::Zeroizing::new([0; 32]);
    rand::fill(&mut *bytes).map_err(|_| NoRandom)?;
    Ok(URL_SAFE_NO_PAD.encode(*bytes))
}

#[cfg(test)]
pub(super) mod tests;
