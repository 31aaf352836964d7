//! What is asked of a provider's token and revocation endpoints, and what an answer means.
//!
//! In: a grant that is to become tokens. Out: a request as the RFCs write it (the `oauth2` crate does that); and of an
//! answer the tokens in it, or a [`Fault`] that tells what may have become of the grant: [`Fault::fate`].
//!
//! An answer is judged strictly, since what is taken from it is sent on for as long as it says. Only its media type is
//! not asked: it adds nothing to a JSON object with the right members, and a rotated token must not be lost to it. For
//! the same reason a refresh token is kept out of an answer that is otherwise odd.
//!
//! What must never happen: a text of an answer is repeated; a token is made that logs do not mask; an answer that is
//! not plainly a success or a refusal is taken for one.

use std::{borrow::Cow, cell::RefCell, sync::Arc, time::Duration};

use http::{Request, StatusCode};
use oauth2::{
    AccessToken, AuthType, AuthorizationCode, ClientId, ClientSecret, EndpointNotSet, EndpointSet,
    HttpRequest, HttpResponse, PkceCodeVerifier, RedirectUrl, RefreshToken, RevocationUrl, Scope,
    StandardRevocableToken, TokenUrl, basic::BasicClient,
};
use serde::Deserialize;

use crate::{
    config::{ClientAuthentication, Provider},
    https::{self, Answer},
    oauth::{discovery, token},
    redaction,
    tls::TlsFault,
    vault::{self, secret::Secret},
};

/// One answer. Tokens are a few kilobytes at most; what is larger is something else.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// What tokens are asked for.
pub(crate) enum Grant<'a> {
    /// What a user's browser brought back (RFC 6749, 4.1.3).
    Code { code: &'a Secret, verifier: &'a Secret },
    /// What an earlier answer brought (RFC 6749, 6).
    Refresh { token: &'a Secret, scopes: &'a [String] },
    /// What the client may do by itself (RFC 6749, 4.4).
    Client { scopes: &'a [String] },
}

/// What is given up (RFC 7009).
#[derive(Clone, Copy)]
pub(crate) enum Revoked<'a> {
    /// With it go the access tokens of the same grant, at most providers.
    Refresh(&'a Secret),
    Access(&'a Secret),
}

/// What a token endpoint gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Granted {
    pub(crate) access: Arc<Secret>,
    /// From the moment before it was asked for; `None`: the provider did not say.
    pub(crate) life: Option<Duration>,
    /// `None`: as asked for.
    pub(crate) scopes: Option<Vec<String>>,
    /// `None`: the one that was sent stays good, if there was one.
    pub(crate) refresh: Option<Arc<Secret>>,
}

/// Why there are no tokens. No message holds anything of an answer but its status and a registered word.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("the client secret cannot be had")]
    ClientSecret(#[source] vault::Error),
    #[error("the provider cannot be asked")]
    Setup(#[from] TlsFault),
    #[error("the provider's endpoints are not known")]
    Discovery(#[from] discovery::Fault),
    #[error("the provider has no {0} endpoint")]
    NoEndpoint(&'static str),
    #[error("the request cannot be made: {0}")]
    Unwritable(&'static str),
    #[error("the provider is not reached, and nothing was sent")]
    Unreached(#[source] https::Error),
    #[error("a request was sent, and what became of it is not known")]
    Lost(#[source] https::Error),
    #[error("the answer ({status}) is none that a token endpoint gives: {what}")]
    Odd {
        status: StatusCode,
        what: &'static str,
        /// The refresh token in it, which may be the only one that is still good.
        rotated: Option<Arc<Secret>>,
    },
    #[error("the provider failed ({0})")]
    Failed(StatusCode),
    #[error("the provider refuses it ({0}): {1}")]
    Refused(StatusCode, Code),
}

/// What became of a grant that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing: it was not sent, or the provider answered that it did nothing.
    Untouched,
    /// It may be used up, and what it was changed for is not here.
    Doubtful,
    /// The provider takes it no longer.
    Gone,
}

/// A registered word of an error answer (RFC 6749, 5.2; RFC 7009, 2.2.1; RFC 8707, 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Code {
    #[error("invalid_request; check the provider's parameters in the configuration")]
    InvalidRequest,
    #[error("invalid_client; check client_id, client_secret and client_authentication")]
    InvalidClient,
    #[error("invalid_grant; the user must consent again")]
    InvalidGrant,
    #[error("unauthorized_client; the provider must allow this client that grant")]
    UnauthorizedClient,
    #[error("unsupported_grant_type; the provider does not do that")]
    UnsupportedGrantType,
    #[error("invalid_scope; check scopes, and what this client is registered for")]
    InvalidScope,
    #[error("invalid_target; check resource and audience")]
    InvalidTarget,
    #[error("unsupported_token_type; the provider does not revoke such tokens")]
    UnsupportedTokenType,
    #[error("with no word that is registered for that")]
    Unknown,
}

impl Code {
    fn of(word: &str) -> Self {
        match word {
            "invalid_request" => Self::InvalidRequest,
            "invalid_client" => Self::InvalidClient,
            "invalid_grant" => Self::InvalidGrant,
            "unauthorized_client" => Self::UnauthorizedClient,
            "unsupported_grant_type" => Self::UnsupportedGrantType,
            "invalid_scope" => Self::InvalidScope,
            "invalid_target" => Self::InvalidTarget,
            "unsupported_token_type" => Self::UnsupportedTokenType,
            _ => Self::Unknown,
        }
    }
}

/// Whose fault it is that there are no tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame {
    /// Nothing was asked.
    Us,
    /// This grant is not taken; the provider is well.
    Grant,
    /// The provider, or the way to it; or it does not know us.
    Provider,
}

impl Fault {
    /// What became of the grant.
    pub(crate) fn fate(&self) -> Fate {
        match self {
            Self::ClientSecret(_)
            | Self::Setup(_)
            | Self::Discovery(_)
            | Self::NoEndpoint(_)
            | Self::Unwritable(_)
            | Self::Unreached(_) => Fate::Untouched,
            Self::Refused(_, Code::InvalidGrant) => Fate::Gone,
            Self::Refused(..) => Fate::Untouched,
            // What stands between says so; what is behind it may have done it.
            Self::Failed(status) if is_said_between(*status) => Fate::Doubtful,
            Self::Failed(_) => Fate::Untouched,
            Self::Lost(_) | Self::Odd { .. } => Fate::Doubtful,
        }
    }

    /// Whose fault it is.
    pub(crate) fn blames(&self) -> Blame {
        match self {
            Self::ClientSecret(_) | Self::Setup(_) | Self::Unwritable(_) => Blame::Us,
            // It answers, and would take other grants.
            Self::Refused(_, code) if *code != Code::InvalidClient => Blame::Grant,
            _ => Blame::Provider,
        }
    }
}

/// Whether what stands between us and a provider says so, and not the provider; 520 to 527 are Cloudflare's.
fn is_said_between(status: StatusCode) -> bool {
    matches!(status.as_u16(), 502 | 504 | 520..=527)
}

impl From<https::Error> for Fault {
    fn from(error: https::Error) -> Self {
        match error {
            https::Error::ConnectTimeout(_)
            | https::Error::Connect(_)
            | https::Error::Untrusted(_)
            | https::Error::Request(_) => Self::Unreached(error),
            https::Error::AnswerTimeout(_)
            | https::Error::Http(_)
            | https::Error::Encoding
            | https::Error::TooLarge(_) => Self::Lost(error),
        }
    }
}

type Client = BasicClient<EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointSet, EndpointSet>;

/// Writes requests for one provider. The crate's own copies of what is sent are not wiped.
pub(super) struct Writer<'p> {
    provider: &'p Provider,
    client: Client,
}

/// The crate gives a request to whoever sends it; here it is taken from it, and sent by our own client.
#[derive(Debug, thiserror::Error)]
#[error("not sent")]
struct Taken;

impl<'p> Writer<'p> {
    pub(super) fn new(provider: &'p Provider, client_secret: &Secret) -> Result<Self, Fault> {
        // Where it goes is decided by who sends it; the crate wants URLs, and TLS for one of them.
        const PLACE: &str = "https://provider.invalid/";
        let unwritable = |_| Fault::Unwritable("no place");
        let client = BasicClient::new(ClientId::new(provider.client_id.clone()))
            .set_client_secret(ClientSecret::new(text(client_secret)?))
            .set_auth_type(match provider.client_authentication {
                ClientAuthentication::Basic => AuthType::BasicAuth,
                ClientAuthentication::Post => AuthType::RequestBody,
            })
            .set_token_uri(TokenUrl::new(PLACE.into()).map_err(unwritable)?)
            .set_revocation_url(RevocationUrl::new(PLACE.into()).map_err(unwritable)?);
        Ok(Self { provider, client })
    }

    pub(super) fn grant(&self, grant: &Grant<'_>) -> Result<HttpRequest, Fault> {
        let parameters = self.parameters();
        match grant {
            Grant::Code { code, verifier } => {
                let uri = self.provider.redirect_uri.clone().unwrap_or_default();
                let uri = RedirectUrl::new(uri).map_err(|_| Fault::Unwritable("no redirect_uri"))?;
                let mut request = self
                    .client
                    .exchange_code(AuthorizationCode::new(text(code)?))
                    .set_pkce_verifier(PkceCodeVerifier::new(text(verifier)?))
                    .set_redirect_uri(Cow::Owned(uri));
                for (name, value) in parameters {
                    request = request.add_extra_param(name, value);
                }
                taken(|take| drop(request.request(&take)))
            }
            Grant::Refresh { token, scopes } => {
                let token = RefreshToken::new(text(token)?);
                let mut request = self.client.exchange_refresh_token(&token).add_scopes(scopes_of(scopes));
                for (name, value) in parameters {
                    request = request.add_extra_param(name, value);
                }
                taken(|take| drop(request.request(&take)))
            }
            Grant::Client { scopes } => {
                let mut request = self.client.exchange_client_credentials().add_scopes(scopes_of(scopes));
                for (name, value) in parameters {
                    request = request.add_extra_param(name, value);
                }
                taken(|take| drop(request.request(&take)))
            }
        }
    }

    pub(super) fn revocation(&self, revoked: Revoked<'_>) -> Result<HttpRequest, Fault> {
        let token = match revoked {
            Revoked::Refresh(token) => StandardRevocableToken::from(RefreshToken::new(text(token)?)),
            Revoked::Access(token) => StandardRevocableToken::from(AccessToken::new(text(token)?)),
        };
        let request = self.client.revoke_token(token).map_err(|_| Fault::Unwritable("no place"))?;
        taken(|take| drop(request.request(&take)))
    }

    fn parameters(&self) -> impl Iterator<Item = (&'p str, &'p str)> {
        let Provider { audience, resource, token_parameters, .. } = self.provider;
        let own = [("audience", audience), ("resource", resource)];
        let own = own.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
        own.chain(token_parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }
}

fn scopes_of(scopes: &[String]) -> impl Iterator<Item = Scope> {
    scopes.iter().cloned().map(Scope::new)
}

/// The request that `ask` gives to the client that it is given.
fn taken(
    ask: impl FnOnce(&dyn Fn(HttpRequest) -> Result<HttpResponse, Taken>),
) -> Result<HttpRequest, Fault> {
    let request = RefCell::new(None);
    ask(&|written| {
        request.replace(Some(written));
        Err(Taken)
    });
    request.into_inner().ok_or(Fault::Unwritable("the parameters have no form"))
}

#[expect(clippy::disallowed_methods, reason = "writes secrets into requests to the provider that gave them")]
fn text(secret: &Secret) -> Result<String, Fault> {
    let text = std::str::from_utf8(secret.expose()).map_err(|_| Fault::Unwritable("a secret is no text"))?;
    Ok(text.to_owned())
}

/// The same request to `target` of another client.
pub(super) fn to(target: &str, request: HttpRequest) -> Result<Request<zeroize::Zeroizing<Vec<u8>>>, Fault> {
    let (mut head, body) = request.into_parts();
    head.uri = target.parse().map_err(|_| Fault::Unwritable("the endpoint's path has no form"))?;
    if let Some(authorization) = head.headers.get_mut(http::header::AUTHORIZATION) {
        authorization.set_sensitive(true);
    }
    Ok(Request::from_parts(head, body.into()))
}

/// The members that matter, before anything is believed. One that comes twice makes it no answer.
#[derive(Deserialize)]
struct Written<'a> {
    #[serde(borrow, default)]
    access_token: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    refresh_token: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    token_type: Option<Cow<'a, str>>,
    #[serde(default)]
    expires_in: Option<u64>,
    #[serde(borrow, default)]
    scope: Option<Cow<'a, str>>,
    #[serde(default)]
    error: Option<serde::de::IgnoredAny>,
}

/// Nothing but the refresh token, of an answer that could not be read otherwise.
#[derive(Deserialize)]
struct OnlyRefresh<'a> {
    #[serde(borrow)]
    refresh_token: Cow<'a, str>,
}

#[derive(Deserialize)]
struct WrittenError<'a> {
    #[serde(borrow)]
    error: Cow<'a, str>,
}

/// What an answer of the token endpoint means.
pub(crate) fn granted(answer: &Answer) -> Result<Granted, Fault> {
    match answer.status {
        StatusCode::OK => success(&answer.body),
        status => Err(failure(status, &answer.body)),
    }
}

/// What an answer of the revocation endpoint means. An unknown token is a success there.
pub(crate) fn revoked(answer: &Answer) -> Result<(), Fault> {
    match answer.status {
        StatusCode::OK => Ok(()),
        status => Err(failure(status, &answer.body)),
    }
}

fn failure(status: StatusCode, body: &[u8]) -> Fault {
    let said: Result<WrittenError<'_>, _> = serde_json::from_slice(body);
    match (status.as_u16(), said) {
        (429 | 500..=599, _) => Fault::Failed(status),
        (400..=499, Ok(said)) => Fault::Refused(status, Code::of(&said.error)),
        (400..=499, Err(_)) => Fault::Refused(status, Code::Unknown),
        _ => Fault::Odd { status, what: "no status of such an answer", rotated: None },
    }
}

fn success(body: &[u8]) -> Result<Granted, Fault> {
    let odd = |what, rotated| Fault::Odd { status: StatusCode::OK, what, rotated };
    // A list with the right values in the right order would be read, too.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(odd("it is no JSON object", None));
    }
    let Ok(written) = serde_json::from_slice::<Written<'_>>(body) else {
        let only: Option<OnlyRefresh<'_>> = serde_json::from_slice(body).ok();
        let rotated = only.and_then(|only| secret(only.refresh_token).ok());
        redaction::held().remember(&rotated);
        return Err(odd("it is no JSON object with the members of one", rotated));
    };
    let access = written.access_token.map(secret);
    let refresh = written.refresh_token.map(secret);
    // Before anything can be said about either.
    redaction::held().remember([&access, &refresh].into_iter().flatten().flatten());
    let kept = refresh.as_ref().and_then(|token| token.as_ref().ok()).cloned();
    if written.error.is_some() {
        return Err(odd("it is an error", None));
    }
    let Some(Ok(access)) = access else { return Err(odd("its access_token is absent or not legal", kept)) };
    let Ok(refresh) = refresh.transpose() else { return Err(odd("its refresh_token is not legal", None)) };
    if !written.token_type.is_some_and(|kind| kind.eq_ignore_ascii_case("bearer")) {
        return Err(odd("its token_type is not Bearer", kept));
    }
    let life = written.expires_in;
    if life.is_some_and(|life| !(1..=token::LIFE_MAX).contains(&life)) {
        return Err(odd("its expires_in is 0, or over ten years", kept));
    }
    let Ok(scopes) = written.scope.as_deref().map(scopes).transpose() else {
        return Err(odd("its scope is not legal", kept));
    };
    Ok(Granted { access, life: life.map(Duration::from_secs), scopes, refresh })
}

/// A secret that a header can carry; what is not one says no more than that.
fn secret(text: Cow<'_, str>) -> Result<Arc<Secret>, ()> {
    let bytes = zeroize::Zeroizing::new(text.into_owned().into_bytes());
    if !token::is_legal(&bytes) {
        return Err(());
    }
    Secret::new(bytes.to_vec()).map(Arc::new).map_err(|_| ())
}

/// RFC 6749, 3.3.
fn scopes(text: &str) -> Result<Vec<String>, ()> {
    let legal = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    let scopes: Vec<&str> = text.split(' ').collect();
    match scopes.iter().all(|scope| !scope.is_empty() && scope.bytes().all(legal)) {
        true => Ok(scopes.into_iter().map(str::to_owned).collect()),
        false => Err(()),
    }
}

#[cfg(test)]
mod tests;
