//! Where the configuration lets tokens go, and for whom.

use std::collections::HashMap;

use crate::config::{Config, OAuthGrant};

/// What the configuration says of environments and callers.
#[derive(Default)]
pub(super) struct Places {
    environments: HashMap<String, Place>,
    /// The providers of each caller that has connections.
    callers: HashMap<String, Vec<String>>,
}

struct Place {
    /// In lower case.
    host: String,
    /// The providers whose users' tokens go there.
    providers: Vec<String>,
}

/// Why a connection would be of no use.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Useless {
    #[error("there is no environment {0}")]
    NoEnvironment(String),
    #[error(
        "environment {environment} takes no tokens of users at {provider}; name it in its credential or bearer_operations"
    )]
    NotTaken { environment: String, provider: String },
    #[error("no caller {caller} may use connections of {provider}; name it in `connections` of a [[caller]]")]
    NobodyUses { caller: String, provider: String },
}

impl Places {
    pub(super) fn new(config: &Config) -> Self {
        let environments = config.environments.values().map(|one| {
            let of_users = one.oauth().filter(|(.., grant)| *grant == OAuthGrant::AuthorizationCode);
            let providers = of_users.map(|(_, provider, _)| provider.to_owned()).collect();
            (one.name.clone(), Place { host: one.host.clone(), providers })
        });
        let callers = config.callers.iter().filter_map(|one| {
            let connections = one.connections.as_ref()?;
            Some((one.name.clone(), connections.providers.clone()))
        });
        Self { environments: environments.collect(), callers: callers.collect() }
    }

    pub(super) fn host(&self, environment: &str) -> Option<&str> {
        self.environments.get(environment).map(|place| place.host.as_str())
    }

    /// The host that a connection's tokens would go to.
    pub(super) fn used(&self, caller: &str, provider: &str, environment: &str) -> Result<&str, Useless> {
        let Some(place) = self.environments.get(environment) else {
            return Err(Useless::NoEnvironment(environment.to_owned()));
        };
        let has = |providers: &[String]| providers.iter().any(|one| one == provider);
        let provider = || provider.to_owned();
        if !has(&place.providers) {
            return Err(Useless::NotTaken { environment: environment.to_owned(), provider: provider() });
        }
        if !self.callers.get(caller).is_some_and(|providers| has(providers)) {
            return Err(Useless::NobodyUses { caller: caller.to_owned(), provider: provider() });
        }
        Ok(&place.host)
    }
}
