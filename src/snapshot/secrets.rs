//! An environment's secrets: what their references came to becomes what goes on the wire.

use std::{collections::HashMap, sync::Arc};

use super::{Error, Snapshot};
use crate::{
    config::{self, BearerOperations, Config, Needed},
    credential::Prepared,
    upstream::{dial::DialTarget, tunnel::Password},
    vault::{self, Resolved, freshness::Deadline, gathered::Gathered, reference::Reference, secret::Secret},
};

/// What a reference came to.
pub(super) type Found = Result<Resolved, Arc<vault::Error>>;

/// What one environment's references came to.
pub(super) struct Secrets {
    /// `None`: tokens of a provider are attached.
    pub(super) credential: Option<Found>,
    pub(super) second: Option<Found>,
    pub(super) bearer: Option<Found>,
    pub(super) proxy: Option<Found>,
}

impl Secrets {
    pub(super) fn resolve(settings: &config::Environment, gathered: &Gathered) -> Self {
        let bearer = match &settings.bearer_operations {
            BearerOperations::Token(token) => Some(gathered.resolve(token)),
            BearerOperations::Refused | BearerOperations::PassThrough | BearerOperations::Provider(_) => None,
        };
        Self {
            credential: settings.credential.reference().map(|reference| gathered.resolve(reference)),
            second: settings.credential.secondary().map(|second| gathered.resolve(second)),
            bearer,
            proxy: settings.proxy_password().map(|password| gathered.resolve(password)),
        }
    }

    pub(super) fn known(&self) -> impl Iterator<Item = &Arc<Secret>> {
        let all = [self.credential.as_ref(), self.second.as_ref(), self.bearer.as_ref(), self.proxy.as_ref()];
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

    /// A secret that was sealed anew, and not for where this snapshot sends it, is used no longer.
    pub(crate) fn end_misplaced(&self, config: &Config, gathered: &Gathered) {
        for settings in config.environments.values() {
            for Needed { reference, host, .. } in settings.needed() {
                let is_misplaced = |now: Resolved| now.check_host(reference, host).is_err();
                if gathered.resolve(reference).is_ok_and(is_misplaced)
                    && let Some(used) = self.secrets.get(&reference.to_string())
                {
                    used.revoke();
                }
            }
        }
    }
}

/// One secret, made ready for the host of its environment; and the secret.
pub(super) fn credential(
    settings: &config::Environment,
    kind: &config::Credential,
    reference: &Reference,
    resolved: Found,
) -> Result<(Prepared, Arc<Secret>), Error> {
    let resolved = allowed(settings, reference, resolved, &settings.host)?;
    let prepared = Prepared::prepare(kind, reference, &resolved.secret);
    let prepared = prepared.map_err(|source| Error::Unusable {
        environment: settings.name.clone(),
        reference: reference.clone(),
        source: source.into(),
    })?;
    Ok((prepared.until(resolved.deadline), resolved.secret))
}

/// The way to the host of `settings`, for what an operator does: the password of its proxy is read once.
///
/// # Errors
/// Why there is none, without a value.
pub(crate) async fn dial_once(
    config: &Config,
    settings: &config::Environment,
) -> Result<Arc<DialTarget>, String> {
    let password = match settings.proxy_password() {
        Some(reference) => {
            let found = Gathered::peek(config).await.resolve(reference);
            Some(proxy_password(settings, reference, found).map_err(|error| vault::chain(&error))?)
        }
        None => None,
    };
    DialTarget::new(settings, password, None).map_err(|fault| fault.to_string())
}

/// What the proxy is told, and nobody else.
pub(super) fn proxy_password(
    settings: &config::Environment,
    reference: &Reference,
    resolved: Found,
) -> Result<Password, Error> {
    let proxy = settings.egress.proxy.as_ref().map_or("", |proxy| proxy.host.as_str());
    allowed(settings, reference, resolved, proxy).map(Password::from)
}

/// The secret, if it may be sent to `host`.
fn allowed(
    settings: &config::Environment,
    reference: &Reference,
    resolved: Found,
    host: &str,
) -> Result<Resolved, Error> {
    let environment = || settings.name.clone();
    let resolved = resolved.map_err(|source| Error::Secret { environment: environment(), source })?;
    match resolved.check_host(reference, host) {
        Ok(()) => Ok(resolved),
        Err(source) => Err(Error::NotFor { environment: environment(), source }),
    }
}
