//! What a request sees: built whole, swapped whole.
//!
//! In: a checked `Config` and an opened `Vault`. Out: a [`Snapshot`] with everything a request needs made
//! ready: networks sorted, header values encoded, TLS set up. One that cannot be built keeps the old one.
//! What must never happen: a request sees parts of two snapshots, or a secret in an environment whose host
//! it is not sealed for.

use std::{collections::HashMap, sync::Arc};

use http::HeaderName;

use crate::{
    admission::{Admission, CallerIndex, Networks, callers::Callers, token::Tokens},
    browser,
    config::{self, BearerOperations, Config},
    credential::{self, Prepared, Unusable},
    listener::tls::{self, ServerTls},
    policy::{Api, grant::Allowed},
    redaction, tokens,
    upstream::dial::{DialTarget, TlsFault},
    vault::{self, Resolved, Vault, reference::Reference, secret::Secret},
};

/// All that a request is decided by.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// Counts snapshots of this process, from 1.
    pub(crate) generation: u64,
    pub(crate) admission: Admission,
    pub(crate) environments: Vec<Arc<Environment>>,
    /// What each caller may do at each environment.
    pub(crate) grants: Grants,
    /// One for each listener, in the configuration's order.
    pub(crate) listeners: Vec<ListenerSettings>,
}

/// The reloadable part of one listener.
#[derive(Debug, Clone)]
pub(crate) struct ListenerSettings {
    /// Index into [`Snapshot::environments`].
    pub(crate) environment: usize,
    pub(crate) loopback: bool,
    pub(crate) hosts: Vec<String>,
    pub(crate) origins: Vec<String>,
    pub(crate) tls: Option<ServerTls>,
}

/// What each caller may do at each environment.
#[derive(Debug, Default)]
pub(crate) struct Grants(Vec<Vec<Option<Allowed>>>);

impl Grants {
    fn new(config: &Config, errors: &mut Vec<Error>) -> Self {
        let one = |caller: &config::Caller, environment: &config::Environment| {
            let items = caller.grant.get(&environment.name)?;
            let listed = match &environment.api {
                config::Api::Platform => None,
                config::Api::Paths(paths) => Some(paths.as_slice()),
            };
            Some(Allowed::new(items, listed).map_err(|reason| Error::Pattern {
                caller: caller.name.clone(),
                environment: environment.name.clone(),
                reason,
            }))
        };
        let mut of = |caller| {
            let all = config.environments.values().map(|environment| one(caller, environment));
            all.map(|allowed| allowed?.map_err(|error| errors.push(error)).ok()).collect()
        };
        Self(config.callers.iter().map(&mut of).collect())
    }

    /// What `caller` may do at an environment; `None`: nothing.
    pub(crate) fn of(&self, caller: CallerIndex, environment: usize) -> Option<&Allowed> {
        self.0.get(caller.get())?.get(environment)?.as_ref()
    }
}

/// One environment, ready for requests.
#[derive(Debug)]
pub(crate) struct Environment {
    pub(crate) name: Arc<str>,
    pub(crate) api: Api,
    pub(crate) accept_version: http::HeaderValue,
    pub(crate) credential: Prepared,
    pub(crate) bearer: Bearer,
    pub(crate) dial: Arc<DialTarget>,
    pub(crate) timeouts: config::Timeouts,
    /// Decoded names of query parameters that are credentials, here or elsewhere at MX.
    pub(crate) query_names: Vec<String>,
    /// The field of callers' tokens, when it is none that stays here in any case.
    token_header: Option<HeaderName>,
}

impl Environment {
    /// Whether a caller's field of that name (lower case) stays here because of how this gateway is configured.
    pub(crate) fn keeps_back(&self, name: &str) -> bool {
        self.credential.travels_under(name)
            || self.token_header.as_ref().is_some_and(|own| credential::is_look_alike(own, name))
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

/// Why no snapshot could be built. Messages name references and files, never values.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A secret could not be had.
    #[error("environment {environment}: {source}")]
    Secret {
        /// The environment that needs it.
        environment: String,
        /// Why.
        source: Box<vault::Error>,
    },
    /// A secret is sealed for other hosts.
    #[error(
        "environment {environment}: {reference} is sealed for {hosts} and may not be sent to {host}; store it \
         again with `mxgate vault set --host {host}`, if that is meant"
    )]
    WrongHost {
        /// The environment that asked for it.
        environment: String,
        /// The secret's name.
        reference: Reference,
        /// The environment's host.
        host: String,
        /// The hosts it is sealed for.
        hosts: String,
    },
    /// A secret does not fit its kind of credential.
    #[error("environment {environment}: {reference} {source}")]
    Unusable {
        /// The environment that needs it.
        environment: String,
        /// The secret's name.
        reference: Reference,
        /// Why.
        source: UnusableSecret,
    },
    /// Certificates or keys could not be loaded.
    #[error("{what}: {source}")]
    Tls {
        /// The environment or listener.
        what: String,
        /// Why.
        source: TlsFault,
    },
    /// A running listener's environment is gone: its callers must not end up at another one.
    #[error(
        "listener {listener} sends to environment {environment}, which is not there; a listener moves only with a restart"
    )]
    NoEnvironment {
        /// The listener.
        listener: String,
        /// The missing environment.
        environment: String,
    },
    /// The file of tokens could not be read.
    #[error("tokens.file: {0}")]
    Tokens(#[source] tokens::Error),
    /// A path pattern that cannot be matched.
    #[error("caller {caller}: grant.{environment}: {reason}")]
    Pattern {
        /// The caller.
        caller: String,
        /// The environment.
        environment: String,
        /// Which pattern, and why.
        reason: String,
    },
}

/// Why a secret does not fit its kind of credential.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct UnusableSecret(#[from] Unusable);

impl Snapshot {
    /// Builds a snapshot; what has not changed since `previous` (connections and their TLS state) is shared
    /// with it.
    ///
    /// # Errors
    /// Every reason at once.
    pub(crate) fn build(config: &Config, vault: &Vault, previous: Option<&Self>) -> Result<Self, Vec<Error>> {
        let mut errors = Vec::new();
        let mut environments = Vec::new();
        let secrets: Vec<Secrets> =
            config.environments.values().map(|settings| Secrets::resolve(settings, vault)).collect();
        // All at once, since each call compiles a masker over every secret, and before anything is told of them.
        redaction::held().remember(secrets.iter().flat_map(Secrets::known));
        let token_header = config.tokens.as_ref().map(|tokens| tokens.header.clone());
        let token_header = token_header.filter(|header| !header.as_str().starts_with("x-mxgate-"));
        for (settings, secrets) in config.environments.values().zip(secrets) {
            match environment(settings, secrets, token_header.clone(), previous) {
                Ok(environment) => environments.push(Arc::new(environment)),
                Err(error) => errors.push(error),
            }
        }
        let grants = Grants::new(config, &mut errors);
        let index: HashMap<&str, usize> =
            config.environments.keys().enumerate().map(|(at, name)| (name.as_str(), at)).collect();
        let mut listeners = Vec::new();
        for settings in &config.listeners {
            match listener(settings, &index) {
                Ok(listener) => listeners.push(listener),
                Err(error) => errors.push(error),
            }
        }
        let callers = Callers::new(&config.callers);
        let tokens = tokens(config, &callers).map_err(|error| errors.push(error)).unwrap_or_default();
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self {
            generation: previous.map_or(1, |previous| previous.generation + 1),
            admission: Admission {
                allow: Networks::new(&config.allow),
                trusted_proxies: Networks::new(&config.trusted_proxies),
                forwarded_header: config.forwarded_header,
                callers,
                tokens,
            },
            grants,
            environments,
            listeners,
        })
    }

    pub(crate) fn environment(&self, name: &str) -> Option<&Arc<Environment>> {
        self.environments.iter().find(|environment| &*environment.name == name)
    }
}

/// The tokens of callers that are known by one. Of others there may be some, of a caller that was taken out.
fn tokens(config: &Config, callers: &Callers) -> Result<Tokens, Error> {
    let Some(settings) = &config.tokens else { return Ok(Tokens::default()) };
    let tokens = tokens::read(&settings.file).map_err(Error::Tokens)?;
    Ok(Tokens::new(settings.header.clone(), tokens, |name| callers.with_token(name)))
}

fn listener(settings: &config::Listener, index: &HashMap<&str, usize>) -> Result<ListenerSettings, Error> {
    let tls = settings
        .tls
        .as_ref()
        .map(|files| tls::load(files, settings.client_ca.as_ref()))
        .transpose()
        .map_err(|source| Error::Tls { what: format!("listener {}", settings.address), source })?;
    // `Config` has checked the names of a file; after a reload the listeners are still those of the start.
    let environment =
        index.get(settings.environment.as_str()).copied().ok_or_else(|| Error::NoEnvironment {
            listener: settings.address.to_string(),
            environment: settings.environment.clone(),
        })?;
    Ok(ListenerSettings {
        environment,
        loopback: settings.address.is_loopback(),
        hosts: settings.hosts.clone(),
        origins: settings.origins.clone(),
        tls,
    })
}

impl ListenerSettings {
    /// What keeps browsers out.
    pub(crate) fn browser(&self) -> browser::Rules<'_> {
        browser::Rules { loopback: self.loopback, hosts: &self.hosts, origins: &self.origins }
    }
}

/// Names under which credentials travel in a query: the usual ones, and this environment's own.
fn query_names(credential: &config::Credential) -> Vec<String> {
    const USUAL: [&str; 8] = [
        "api_key",
        "apikey",
        "client_id",
        "client_secret",
        "access_token",
        "authorization",
        "mx_api_key",
        "mx_client_id",
    ];
    let mut names: Vec<String> = USUAL.map(str::to_owned).into();
    if let config::Credential::Query { client_id_name, api_key_name, .. } = credential {
        names.extend([client_id_name.clone(), api_key_name.clone()]);
    }
    names
}

/// What one environment's references came to.
struct Secrets {
    credential: Result<Resolved, vault::Error>,
    bearer: Option<Result<Resolved, vault::Error>>,
}

impl Secrets {
    fn resolve(settings: &config::Environment, vault: &Vault) -> Self {
        let bearer = match &settings.bearer_operations {
            BearerOperations::Token(token) => Some(vault.resolve(token)),
            BearerOperations::Refused | BearerOperations::PassThrough => None,
        };
        Self { credential: vault.resolve(settings.credential.reference()), bearer }
    }

    fn known(&self) -> impl Iterator<Item = &Arc<Secret>> {
        let all = [Some(&self.credential), self.bearer.as_ref()];
        all.into_iter().flatten().flatten().map(|resolved| &resolved.secret)
    }
}

fn environment(
    settings: &config::Environment,
    secrets: Secrets,
    token_header: Option<HeaderName>,
    previous: Option<&Snapshot>,
) -> Result<Environment, Error> {
    let name = &settings.name;
    let api = match &settings.api {
        config::Api::Platform => Api::Platform,
        config::Api::Paths(_) => Api::Paths,
    };
    let credential = credential(settings, &settings.credential, secrets.credential)?;
    let bearer = match (&settings.bearer_operations, secrets.bearer) {
        (BearerOperations::Token(token), Some(secret)) => {
            let kind = config::Credential::Bearer { token: token.clone() };
            Bearer::Token(Box::new(self::credential(settings, &kind, secret)?))
        }
        (BearerOperations::PassThrough, _) => Bearer::PassThrough,
        _ if matches!(settings.credential, config::Credential::Bearer { .. }) => Bearer::Environment,
        _ => Bearer::Refused,
    };
    let before = previous.and_then(|previous| previous.environment(name)).map(|before| &before.dial);
    let dial = DialTarget::new(settings, before)
        .map_err(|source| Error::Tls { what: format!("environment {name}"), source })?;
    Ok(Environment {
        name: name.as_str().into(),
        api,
        accept_version: http::HeaderValue::from_str(&settings.accept_version)
            .unwrap_or(http::HeaderValue::from_static("v20250224")),
        credential,
        bearer,
        dial,
        timeouts: settings.timeouts.clone(),
        query_names: query_names(&settings.credential),
        token_header,
    })
}

fn credential(
    settings: &config::Environment,
    kind: &config::Credential,
    resolved: Result<Resolved, vault::Error>,
) -> Result<Prepared, Error> {
    let environment = || settings.name.clone();
    let reference = kind.reference();
    let resolved =
        resolved.map_err(|source| Error::Secret { environment: environment(), source: Box::new(source) })?;
    if !resolved.allows(&settings.host) {
        return Err(Error::WrongHost {
            environment: environment(),
            reference: reference.clone(),
            host: settings.host.clone(),
            hosts: resolved.hosts.unwrap_or_default().join(", "),
        });
    }
    Prepared::prepare(kind, &resolved.secret).map_err(|source| Error::Unusable {
        environment: environment(),
        reference: reference.clone(),
        source: source.into(),
    })
}
