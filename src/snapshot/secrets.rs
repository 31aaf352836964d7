//! An environment's secrets: what their references came to becomes what goes on the wire.

use std::{collections::HashMap, sync::Arc};

use super::{Error, Snapshot};
use crate::{
    config::{self, BearerOperations, Config},
    credential::Prepared,
    vault::{self, Resolved, freshness::Deadline, gathered::Gathered, secret::Secret},
};

/// What one environment's references came to.
pub(super) struct Secrets {
    pub(super) credential: Result<Resolved, Arc<vault::Error>>,
    pub(super) bearer: Option<Result<Resolved, Arc<vault::Error>>>,
}

impl Secrets {
    pub(super) fn resolve(settings: &config::Environment, gathered: &Gathered) -> Self {
        let bearer = match &settings.bearer_operations {
            BearerOperations::Token(token) => Some(gathered.resolve(token)),
            BearerOperations::Refused | BearerOperations::PassThrough => None,
        };
        Self { credential: gathered.resolve(settings.credential.reference()), bearer }
    }

    pub(super) fn known(&self) -> impl Iterator<Item = &Arc<Secret>> {
        let all = [Some(&self.credential), self.bearer.as_ref()];
        all.into_iter().flatten().flatten().map(|resolved| &resolved.secret)
    }
}

/// Every secret of `config`, as the cell that its value has.
pub(super) fn used(config: &Config, gathered: &Gathered) -> HashMap<String, Arc<Deadline>> {
    let references = config.environments.values().flat_map(|environment| environment.references());
    references
        .filter_map(|reference| Some((reference.to_string(), gathered.resolve(reference).ok()?.deadline)))
        .collect()
}

impl Snapshot {
    /// Whether `gathered` has another value of a secret than this snapshot.
    pub(crate) fn is_outdated(&self, config: &Config, gathered: &Gathered) -> bool {
        let is_other = |(name, deadline): (String, Arc<Deadline>)| {
            !self.secrets.get(&name).is_some_and(|used| Arc::ptr_eq(used, &deadline))
        };
        used(config, gathered).into_iter().any(is_other)
    }
}

/// One secret, made ready for the host of its environment.
pub(super) fn credential(
    settings: &config::Environment,
    kind: &config::Credential,
    resolved: Result<Resolved, Arc<vault::Error>>,
) -> Result<Prepared, Error> {
    let environment = || settings.name.clone();
    let reference = kind.reference();
    let resolved = resolved.map_err(|source| Error::Secret { environment: environment(), source })?;
    if reference.hosts().is_some_and(|hosts| !hosts.contains(&settings.host)) {
        return Err(Error::NotForHost {
            environment: environment(),
            reference: reference.clone(),
            host: settings.host.clone(),
        });
    }
    if !resolved.allows(&settings.host) {
        return Err(Error::WrongHost {
            environment: environment(),
            reference: reference.clone(),
            host: settings.host.clone(),
            hosts: resolved.hosts.unwrap_or_default().join(", "),
        });
    }
    let prepared = Prepared::prepare(kind, &resolved.secret).map_err(|source| Error::Unusable {
        environment: environment(),
        reference: reference.clone(),
        source: source.into(),
    })?;
    Ok(prepared.until(resolved.deadline))
}
