//! AWS Secrets Manager: secrets in one region.
//!
//! In: `NAME` or `ARN` of a reference, perhaps with `?stage=AWSPREVIOUS`. Out: the text or the bytes of that version, with
//! its id; or a [`fault::Fault`] that says which of the many ways to fail it was. A secret that is marked for deletion
//! is absent. [`login`] finds credentials, [`wire`] sends what the SDK asks.
//!
//! The SDK tries each request once: who keeps secrets fresh comes again by himself, sooner after a failure. Our copies
//! of a secret and of AWS's answer are wiped; while the SDK takes an answer apart, there are copies that nobody wipes.
//!
//! What must never happen: AWS that denies, throttles or is down makes a secret look absent; a write overwrites what
//! somebody else has written meanwhile; another place than the configuration decides which host is asked for secrets.

mod fault;
mod login;
mod wire;
mod writing;

use std::time::{Duration, SystemTime};

use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_secretsmanager::{
    Client,
    config::{
        BehaviorVersion, IdentityCache, Region, StalledStreamProtectionConfig, retry::RetryConfig,
        timeout::TimeoutConfig,
    },
    operation::get_secret_value::GetSecretValueOutput,
};
use tokio::{sync::Mutex, time::timeout};
use zeroize::Zeroizing;

use self::fault::Fault;
use super::{Document, Reading, Source, Writable, Written, file::SECRET_BYTES_MAX};
use crate::{config, vault::reference::AwsPlace};

const CURRENT: &str = "AWSCURRENT";
const PREVIOUS: &str = "AWSPREVIOUS";

/// The configured region, and who we are there.
pub(super) struct Aws {
    settings: config::Aws,
    wire: wire::Client,
    /// In a test; otherwise the standard chain's are used.
    credentials: Option<SharedCredentialsProvider>,
    /// `None` before the first use, and after credentials that were not taken: the next use looks for others.
    client: Mutex<Option<Client>>,
}

impl Aws {
    pub(super) fn new(settings: &config::Aws) -> Self {
        let wire = wire::Client::new(settings.connect_timeout, settings.read_timeout);
        Self { settings: settings.clone(), wire, credentials: None, client: Mutex::default() }
    }

    async fn document(&self, place: &str) -> Result<Document, Fault> {
        let AwsPlace { id, is_previous } = AwsPlace::of(place).ok_or(Fault::Parameter)?;
        // Said always: what comes without it is the SDK's or the server's to choose.
        let stage = if is_previous { PREVIOUS } else { CURRENT };
        let asked = self.client().await.get_secret_value().secret_id(id).version_stage(stage).send().await;
        document(asked.map_err(|error| Fault::of(&error))?)
    }

    /// Does what `work` does, in a bounded time.
    async fn bounded<T>(&self, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        let outcome = timeout(self.patience(), work).await.unwrap_or(Err(Fault::Slow));
        if outcome.as_ref().is_err_and(Fault::is_of_credentials) {
            *self.client.lock().await = None;
        }
        outcome
    }

    /// What one exchange takes, and as long again for credentials that have to be fetched first.
    fn patience(&self) -> Duration {
        2 * (self.settings.connect_timeout + self.settings.read_timeout)
    }

    async fn client(&self) -> Client {
        let mut client = self.client.lock().await;
        if let Some(client) = &*client {
            return client.clone();
        }
        let made = self.make().await;
        *client = Some(made.clone());
        made
    }

    /// Nothing of it comes from AWS's own variables and files but the credentials: an endpoint in a variable would
    /// decide whom the gateway believes.
    async fn make(&self) -> Client {
        let config::Aws { region, endpoint, connect_timeout, read_timeout, .. } = &self.settings;
        let credentials = match &self.credentials {
            Some(given) => given.clone(),
            None => SharedCredentialsProvider::new(login::chain(self.wire.clone(), region).await),
        };
        let builder = aws_sdk_secretsmanager::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(region.clone()))
            .credentials_provider(credentials)
            .http_client(self.wire.clone())
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().operation_timeout(self.patience()).build())
            .identity_cache(IdentityCache::lazy().load_timeout(*connect_timeout + *read_timeout).build())
            // The whole answer has one time already.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        let builder = match endpoint {
            Some(url) => builder.endpoint_url(url.clone()),
            None => builder,
        };
        Client::from_conf(builder.build())
    }
}

/// Takes the value out, so that no copy of ours stays behind.
fn document(mut answer: GetSecretValueOutput) -> Result<Document, Fault> {
    let bytes = match (answer.secret_string.take(), answer.secret_binary.take()) {
        (Some(text), None) => Zeroizing::new(text.into_bytes()),
        (None, Some(blob)) => Zeroizing::new(blob.into_inner()),
        (text, blob) => {
            drop((text.map(Zeroizing::new), blob.map(|blob| Zeroizing::new(blob.into_inner()))));
            return Err(Fault::Malformed);
        }
    };
    if bytes.len() > SECRET_BYTES_MAX {
        return Err(Fault::TooLarge(SECRET_BYTES_MAX));
    }
    let written = answer.created_date.and_then(|date| SystemTime::try_from(date).ok());
    Ok(Document { bytes, version: answer.version_id, written })
}

impl std::fmt::Debug for Aws {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Aws")
    }
}

impl Source for Aws {
    fn read<'a>(&'a self, place: &'a str) -> Reading<'a, Document> {
        Box::pin(async { Ok(self.bounded(self.document(place)).await?) })
    }

    fn as_writable(&self) -> Option<&dyn Writable> {
        Some(self)
    }
}

impl Writable for Aws {
    fn write<'a>(
        &'a self,
        place: &'a str,
        document: &'a [u8],
        expected: Option<&'a str>,
    ) -> Reading<'a, Written> {
        Box::pin(async move { Ok(self.bounded(self.store(place, document, expected)).await?) })
    }
}

#[cfg(test)]
mod tests;
