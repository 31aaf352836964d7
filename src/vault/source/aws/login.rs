//! Who the gateway is at AWS: the standard chain of credentials, as every AWS tool has it.
//!
//! In: where requests are sent, and the region. Out: a chain that the SDK asks when it needs credentials, in this
//! order: variables, profiles, a web identity, the container, the instance. What it finds is masked in every log
//! before it is used. Profiles that run a program or ask a browser for a login are left out: the first would run what
//! a file of its own names, the second needs somebody who is there.

use std::sync::{Arc, Mutex, PoisonError};

use aws_config::{
    BehaviorVersion, Region, default_provider::credentials::DefaultCredentialsChain,
    provider_config::ProviderConfig, retry::RetryConfig,
};
use aws_credential_types::{
    Credentials,
    provider::{self, ProvideCredentials, future},
};

use super::wire::Client;
use crate::{redaction, vault::secret::Secret};

/// What the chain finds, known to the masker.
#[derive(Debug)]
pub(super) struct Masked<P> {
    inner: P,
    /// Those that are in use: what nobody holds any more is masked for a while only.
    held: Mutex<Vec<Arc<Secret>>>,
}

/// The standard chain. Its files are read once; who wants them read anew makes another one.
pub(super) async fn chain(client: Client, region: &str) -> Masked<DefaultCredentialsChain> {
    let region = Region::new(region.to_owned());
    let config = ProviderConfig::without_region()
        .with_region(Some(region.clone()))
        .with_behavior_version(Some(BehaviorVersion::v2026_01_12()))
        // Whoever reads secrets comes again by himself.
        .with_retry_config(RetryConfig::disabled())
        .with_http_client(client);
    Masked::new(DefaultCredentialsChain::builder().configure(config).region(region).build().await)
}

impl<P> Masked<P> {
    pub(super) fn new(inner: P) -> Self {
        Self { inner, held: Mutex::default() }
    }

    fn mask(&self, credentials: &Credentials) {
        let parts = [Some(credentials.secret_access_key()), credentials.session_token()];
        let secret = |part: &str| Secret::new(part.as_bytes().to_vec()).ok().map(Arc::new);
        let found: Vec<_> = parts.into_iter().flatten().filter_map(secret).collect();
        redaction::held().remember(&found);
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }
}

impl<P: ProvideCredentials> ProvideCredentials for Masked<P> {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let found: provider::Result = self.inner.provide_credentials().await;
            found.inspect(|credentials| self.mask(credentials))
        })
    }

    fn fallback_on_interrupt(&self) -> Option<Credentials> {
        self.inner.fallback_on_interrupt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_found_is_masked_before_it_is_used() {
        let credentials = Credentials::new(
            "AKIDEXAMPLE",
            "s3cret-access-k3y-of-login",
            Some("s3ssion-t0ken-of-login".into()),
            None,
            "test",
        );
        let masked = Masked::new(credentials);
        let is_hit = |text: &str| redaction::held().masker().is_hit(text.as_bytes());
        assert!(!is_hit("s3cret-access-k3y-of-login") && !is_hit("s3ssion-t0ken-of-login"));
        assert!(masked.provide_credentials().await.is_ok());
        assert!(is_hit("s3cret-access-k3y-of-login") && is_hit("s3ssion-t0ken-of-login"));
        assert!(!is_hit("AKIDEXAMPLE"));
    }
}
