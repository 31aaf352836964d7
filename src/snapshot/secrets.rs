//! Whether a secret may be sent where the configuration would send it.

use std::sync::Arc;

use super::Error;
use crate::{
    config,
    vault::{self, Resolved, reference::Reference, secret::Secret},
};

/// What the proxy is told, and nobody else.
pub(super) fn proxy_password(
    settings: &config::Environment,
    resolved: Result<Resolved, vault::Error>,
) -> Result<Arc<Secret>, Error> {
    let proxy = settings.egress.proxy.as_ref().map_or("", |proxy| proxy.host.as_str());
    let reference = settings.proxy_password().unwrap_or(settings.credential.reference());
    allowed(settings, reference, resolved, proxy)
}

/// The secret, if it may be sent to `host`.
pub(super) fn allowed(
    settings: &config::Environment,
    reference: &Reference,
    resolved: Result<Resolved, vault::Error>,
    host: &str,
) -> Result<Arc<Secret>, Error> {
    let environment = || settings.name.clone();
    let resolved =
        resolved.map_err(|source| Error::Secret { environment: environment(), source: Box::new(source) })?;
    if !resolved.allows(host) {
        return Err(Error::WrongHost {
            environment: environment(),
            reference: reference.clone(),
            host: host.to_owned(),
            hosts: resolved.hosts.unwrap_or_default().join(", "),
        });
    }
    Ok(resolved.secret)
}
