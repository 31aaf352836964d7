//! What a request sees: built whole, swapped whole.
//!
//! In: a checked `Config` and what its secrets came to. Out: a [`Snapshot`] with everything a request needs made
//! ready: networks sorted, header values encoded, TLS set up. One that cannot be built keeps the old one.
//! What must never happen: a request sees parts of two snapshots, or a secret in an environment whose host
//! it is not sealed for.

mod attached;
mod grants;
mod may_use;
mod scopes;
pub(crate) mod second;
mod secrets;

use std::{collections::HashMap, sync::Arc};

use http::{HeaderName, header::AUTHORIZATION};
use tokio::time::Instant;

pub(crate) use self::{
    attached::{Bearer, Own, TokensOf},
    grants::Grants,
    may_use::MayUse,
    scopes::NeededScopes,
    secrets::dial_once,
};
use self::{
    second::Second,
    secrets::{Secrets, credential},
};
use crate::{
    admission::{Admission, CallerIndex, Networks, callers::Callers, token::Tokens},
    browser,
    config::{self, BearerOperations, Config, OAuthGrant},
    credential::{self, Prepared, Unusable, preference::Which},
    gateway::fields::FieldMask,
    limits::{CallerLimits, breaker::Breaker, budget::Budget},
    listener::tls::{self, ServerTls},
    metrics::versions::{self, CallerVersions},
    policy::Api,
    redaction,
    status::UpstreamStatus,
    tls::TlsFault,
    tokens,
    upstream::dial::DialTarget,
    users::{self, Users},
    vault::{self, freshness::Deadline, gathered::Gathered, reference::Reference},
};

/// All that a request is decided by.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// Counts snapshots of this process, from 1.
    pub(crate) generation: u64,
    pub(crate) admission: Admission,
    pub(crate) environments: Vec<Arc<Environment>>,
    /// Which values of its secrets it has, by their references.
    secrets: HashMap<String, Arc<Deadline>>,
    /// What each caller may do at each environment.
    pub(crate) grants: Grants,
    /// What each caller may use, in the configuration's order; `None` for those without limits.
    pub(crate) limits: Vec<Option<CallerLimits>>,
    /// What each caller uses of MX's old versions.
    pub(crate) versions: Vec<Arc<CallerVersions>>,
    /// Fields that each caller does not get to see, by its index.
    masks: Vec<Option<Arc<FieldMask>>>,
    /// Whose data each caller may reach.
    pub(crate) users: Users,
    /// Which connections each caller may use, by its index.
    may_use: Vec<Option<Arc<MayUse>>>,
    /// Whether any environment gives callers handles.
    pub(crate) gives_handles: bool,
    /// One for each listener, in the configuration's order.
    pub(crate) listeners: Vec<ListenerSettings>,
}

/// The reloadable part of one listener.
#[derive(Debug, Clone)]
pub(crate) struct ListenerSettings {
    /// Index into [`Snapshot::environments`]; `None`: it serves connections.
    pub(crate) environment: Option<usize>,
    pub(crate) loopback: bool,
    pub(crate) hosts: Vec<String>,
    pub(crate) origins: Vec<String>,
    pub(crate) tls: Option<ServerTls>,
    /// What comes in here may have been asked for by `https`: it has TLS, or only trusted proxies reach it.
    pub(crate) secured: bool,
}

/// One environment, ready for requests.
#[derive(Debug)]
pub(crate) struct Environment {
    pub(crate) name: Arc<str>,
    pub(crate) api: Api,
    pub(crate) accept_version: http::HeaderValue,
    pub(crate) own: Own,
    /// In a box, since most have none.
    pub(crate) second: Option<Box<Second>>,
    pub(crate) bearer: Bearer,
    /// Whether tokens in answers stay here, and handles for them come back.
    pub(crate) token_handles: bool,
    /// What a token of a provider must be good for.
    pub(crate) scopes: NeededScopes,
    pub(crate) dial: Arc<DialTarget>,
    pub(crate) timeouts: config::Timeouts,
    pub(crate) budget: Budget,
    pub(crate) breaker: Option<Arc<Breaker>>,
    /// Decoded names of query parameters that are credentials, here or elsewhere at MX.
    pub(crate) query_names: Vec<String>,
    /// Fields that carry tokens of callers and of end users.
    private_fields: Vec<HeaderName>,
    /// Fields that pass although their names look like a credential's.
    passed_fields: Vec<HeaderName>,
}

impl Environment {
    /// One of two keys; `None`: tokens of a provider are attached.
    pub(crate) fn key(&self, which: Which) -> Option<&Prepared> {
        match (which, &self.second) {
            (Which::Secondary, Some(second)) => Some(&second.key),
            _ => self.own.key(),
        }
    }

    /// The second of two keys, while it may be used.
    fn second_in_force(&self) -> Option<&Second> {
        self.second.as_deref().filter(|second| !second.key.is_over())
    }

    /// Whether the configuration says that a caller's field is no credential.
    pub(crate) fn lets_through(&self, name: &HeaderName) -> bool {
        self.passed_fields.contains(name)
    }

    /// Whether a caller's field of that name (lower case) stays here because of how this gateway is configured.
    pub(crate) fn keeps_back(&self, name: &str) -> bool {
        let is_own = match &self.own {
            Own::Key(key) => key.travels_under(name),
            Own::Provider(_) => credential::is_look_alike(&AUTHORIZATION, name),
        };
        is_own || self.private_fields.iter().any(|own| credential::is_look_alike(own, name))
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
        source: Arc<vault::Error>,
    },
    /// A defect: nothing says where its secret is.
    #[error("environment {environment}: nothing says where its key is")]
    NoKey {
        /// The environment.
        environment: String,
    },
    /// A secret is for other hosts.
    #[error("environment {environment}: {source}")]
    NotFor {
        /// The environment that asked for it.
        environment: String,
        /// Why.
        source: vault::destination::NotFor,
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
    /// A file of users or keys cannot be used.
    #[error(transparent)]
    Users(users::Fault),
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
    pub(crate) fn build(
        config: &Config,
        gathered: &Gathered,
        previous: Option<&Self>,
    ) -> Result<Self, Vec<Error>> {
        let mut errors = Vec::new();
        let mut environments = Vec::new();
        let secrets: Vec<Secrets> =
            config.environments.values().map(|settings| Secrets::resolve(settings, gathered)).collect();
        // All at once, since each call compiles a masker over every secret, and before anything is told of them.
        if !gathered.is_blank() {
            redaction::held().remember(secrets.iter().flat_map(Secrets::known));
        }
        let private = private_fields(config);
        for (settings, secrets) in config.environments.values().zip(secrets) {
            match environment(settings, secrets, &private, previous, gathered.is_blank()) {
                Ok(environment) => environments.push(Arc::new(environment)),
                Err(error) => errors.push(error),
            }
        }
        let grants = Grants::new(config, &mut errors);
        let users = Users::new(config, previous.map(|previous| &previous.users)).unwrap_or_else(|faults| {
            errors.extend(faults.into_iter().map(Error::Users));
            Users::default()
        });
        let index: HashMap<&str, usize> =
            config.environments.keys().enumerate().map(|(at, name)| (name.as_str(), at)).collect();
        let mut listeners = Vec::new();
        for settings in &config.listeners {
            match listener(settings, &index, gathered.is_blank()) {
                Ok(listener) => listeners.push(listener),
                Err(error) => errors.push(error),
            }
        }
        let callers = Callers::new(&config.callers);
        let tokens = tokens(config, &callers, gathered.is_blank())
            .map_err(|error| errors.push(error))
            .unwrap_or_default();
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
            limits: limits(&config.callers, previous),
            versions: versions::of_callers(
                config.callers.iter().map(|caller| caller.name.as_str()),
                previous.map_or(&[], |previous| &previous.versions),
            ),
            users,
            masks: config
                .callers
                .iter()
                .map(|caller| FieldMask::new(&caller.mask_fields).map(Arc::new))
                .collect(),
            gives_handles: environments.iter().any(|environment| environment.token_handles),
            may_use: config.callers.iter().map(|caller| MayUse::new(caller).map(Arc::new)).collect(),
            environments,
            secrets: secrets::used(config, gathered),
            listeners,
        })
    }

    /// One that decides as the configuration says and has neither secrets nor certificates: for what is asked
    /// beforehand, where those files need not be.
    ///
    /// # Errors
    /// As [`Self::build`].
    pub(crate) fn blank(config: &Config) -> Result<Self, Vec<Error>> {
        Self::build(config, &Gathered::blank(), None)
    }

    /// How much of each environment is in use.
    pub(crate) fn upstreams(&self) -> Vec<UpstreamStatus> {
        let now = Instant::now();
        let one = |environment: &Arc<Environment>| UpstreamStatus {
            environment: environment.name.to_string(),
            breaker: environment.breaker.as_ref().map(|breaker| breaker.status(now)),
            breaker_opened: environment.breaker.as_ref().map_or(0, |breaker| breaker.opened()),
            budget: environment.budget.status(now),
            keys: environment.second_in_force().map(|second| second.preference.status()),
        };
        self.environments.iter().map(one).collect()
    }

    /// What `caller` does not get to see; `None`: it sees everything.
    pub(crate) fn mask(&self, caller: CallerIndex) -> Option<&Arc<FieldMask>> {
        self.masks.get(caller.get())?.as_ref()
    }

    /// Which connections `caller` may use; `None`: none.
    pub(crate) fn may_use(&self, caller: CallerIndex) -> Option<&Arc<MayUse>> {
        self.may_use.get(caller.get())?.as_ref()
    }

    pub(crate) fn environment(&self, name: &str) -> Option<&Arc<Environment>> {
        self.environments.iter().find(|environment| &*environment.name == name)
    }
}

/// With the counts of `previous`, by the callers' names.
fn limits(callers: &[config::Caller], previous: Option<&Snapshot>) -> Vec<Option<CallerLimits>> {
    let before = previous.iter().flat_map(|previous| previous.limits.iter().flatten());
    let before: HashMap<&str, &CallerLimits> = before.map(|limits| (limits.name(), limits)).collect();
    let one = |caller: &config::Caller| {
        CallerLimits::new(&caller.name, &caller.limits, before.get(caller.name.as_str()).copied())
    };
    callers.iter().map(one).collect()
}

/// Fields of requests that carry tokens of callers and of end users. Those that begin with `x-mxgate-` stay here in any
/// case.
fn private_fields(config: &Config) -> Vec<HeaderName> {
    let of_callers = config.tokens.iter().map(|tokens| &tokens.header);
    let end_users = config.callers.iter().filter_map(|caller| caller.end_user.as_ref());
    let mut all: Vec<HeaderName> = of_callers
        .chain(end_users.map(|end_user| &end_user.header))
        .filter(|header| !header.as_str().starts_with("x-mxgate-"))
        .cloned()
        .collect();
    all.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
    all.dedup();
    all
}

/// The tokens of callers that are known by one. Of others there may be some, of a caller that was taken out.
fn tokens(config: &Config, callers: &Callers, is_blank: bool) -> Result<Tokens, Error> {
    let Some(settings) = &config.tokens else { return Ok(Tokens::default()) };
    let tokens = if is_blank { Vec::new() } else { tokens::read(&settings.file).map_err(Error::Tokens)? };
    Ok(Tokens::new(settings.header.clone(), tokens, |name| callers.with_token(name)))
}

fn listener(
    settings: &config::Listener,
    index: &HashMap<&str, usize>,
    is_blank: bool,
) -> Result<ListenerSettings, Error> {
    let files = settings.tls.as_ref().filter(|_| !is_blank);
    let tls = files
        .map(|files| tls::load(files, settings.client_ca.as_ref()))
        .transpose()
        .map_err(|source| Error::Tls { what: format!("listener {}", settings.address), source })?;
    // `Config` has checked the names of a file; after a reload the listeners are still those of the start.
    let place = |name: &str| {
        index.get(name).copied().ok_or_else(|| Error::NoEnvironment {
            listener: settings.address.to_string(),
            environment: name.to_owned(),
        })
    };
    let environment = settings.serves.environment().map(place).transpose()?;
    Ok(ListenerSettings {
        environment,
        loopback: settings.address.is_loopback(),
        hosts: settings.hosts.clone(),
        origins: settings.origins.clone(),
        tls,
        secured: settings.tls.is_some() || settings.proxy_protocol,
    })
}

impl ListenerSettings {
    /// What keeps browsers out.
    pub(crate) fn browser(&self) -> browser::Rules<'_> {
        browser::Rules { loopback: self.loopback, hosts: &self.hosts, origins: &self.origins }
    }
}

/// Names under which credentials travel in a query: the usual ones, and this environment's own.
/// At MX also those that some frameworks take another method from; no operation of MX has such a parameter.
fn query_names(api: Api, credential: &config::Credential) -> Vec<String> {
    const OVERRIDES: [&str; 4] =
        ["method", "method_override", "http_method_override", "x_http_method_override"];
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
    if api == Api::Platform {
        names.extend(OVERRIDES.map(str::to_owned));
    }
    names
}

/// The keys of an environment, or whose tokens it gets.
fn own(
    settings: &config::Environment,
    first: Option<secrets::Found>,
    second: Option<secrets::Found>,
) -> Result<(Own, Option<Prepared>), Error> {
    if let config::Credential::OAuth2 { provider, grant } = &settings.credential {
        return Ok((Own::Provider(TokensOf { provider: provider.as_str().into(), grant: *grant }), None));
    }
    let Some((reference, first)) = settings.credential.reference().zip(first) else {
        return Err(Error::NoKey { environment: settings.name.clone() });
    };
    let (key, second) = second::keys(settings, reference, first, second)?;
    Ok((Own::Key(key), second))
}

fn environment(
    settings: &config::Environment,
    secrets: Secrets,
    private_fields: &[HeaderName],
    previous: Option<&Snapshot>,
    is_blank: bool,
) -> Result<Environment, Error> {
    let name = &settings.name;
    let api = settings.api.kind();
    let (own, second) = own(settings, secrets.credential, secrets.second)?;
    let bearer = match (&settings.bearer_operations, secrets.bearer) {
        (BearerOperations::Provider(name), _) => {
            let (provider, grant) = (name.as_str().into(), OAuthGrant::AuthorizationCode);
            Bearer::Provider(TokensOf { provider, grant })
        }
        (BearerOperations::Token(token), Some(secret)) => {
            let kind = config::Credential::Bearer { token: token.clone() };
            Bearer::Token(Box::new(self::credential(settings, &kind, token, secret)?.0))
        }
        (BearerOperations::PassThrough, _) => Bearer::PassThrough,
        _ if matches!(settings.credential, config::Credential::Bearer { .. }) => Bearer::Environment,
        _ => Bearer::Refused,
    };
    let before = previous.and_then(|previous| previous.environment(name));
    let dial = if is_blank {
        DialTarget::nowhere(settings)
    } else {
        let password = settings.proxy_password().zip(secrets.proxy);
        let password = password
            .map(|(reference, resolved)| secrets::proxy_password(settings, reference, resolved))
            .transpose()?;
        DialTarget::new(settings, password, before.map(|before| &before.dial))
    };
    let dial = dial.map_err(|source| Error::Tls { what: format!("environment {name}"), source })?;
    // What is known of a host is not known of another, nor of one that is verified in another way.
    let same_host = before.filter(|before| Arc::ptr_eq(&before.dial, &dial));
    let name: Arc<str> = name.as_str().into();
    Ok(Environment {
        budget: Budget::new(&settings.budget, before.map(|before| &before.budget)),
        breaker: Breaker::new(&name, &settings.breaker, same_host.and_then(|before| before.breaker.as_ref())),
        second: own.key().zip(second).map(|(first, key)| {
            let previous = same_host.and_then(|before| before.second.as_deref());
            Box::new(Second::new(&settings.credential, first, key, previous))
        }),
        name,
        api,
        accept_version: http::HeaderValue::from_str(&settings.accept_version)
            .unwrap_or(http::HeaderValue::from_static("v20250224")),
        own,
        bearer,
        token_handles: settings.token_handles,
        scopes: NeededScopes::new(settings),
        dial,
        timeouts: settings.timeouts.clone(),
        query_names: query_names(api, &settings.credential),
        private_fields: private_fields.to_vec(),
        passed_fields: settings.pass_headers.clone(),
    })
}
