//! Whether the gateway that runs with this configuration has taken the new key up.
//!
//! Time is what a rotation goes by: after refresh and grace every gateway has the new key, or uses none. Where a running
//! gateway can be asked, it is, so that one that is stuck with the old key is not left without any. In goes the new
//! key's fingerprint; out comes who is behind.

use std::path::Path;

use super::Doing;
use crate::{
    control::client::Client,
    status::{GatewayStatus, KeysStatus},
};

/// Who has to have the new key before the old one may go.
pub trait Readers: Send + Sync {
    /// Who surely does not use the key `new` (a fingerprint), for people; `None` when nobody is known to be behind.
    fn behind<'a>(&'a self, new: &'a str) -> Doing<'a, Option<String>>;

    /// How many requests MX has answered with 401 since a reader has its present keys; `None` when nobody counts.
    fn refusals(&self) -> Doing<'_, Option<u64>> {
        Box::pin(std::future::ready(None))
    }
}

/// Nobody can be asked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unasked;

impl Readers for Unasked {
    fn behind<'a>(&'a self, _new: &'a str) -> Doing<'a, Option<String>> {
        Box::pin(std::future::ready(None))
    }
}

/// The gateway whose control socket the configuration names, if one runs.
#[derive(Debug, Clone)]
pub struct AtSocket {
    client: Client,
    name: String,
    environment: String,
}

impl AtSocket {
    /// For the gateway at `socket`.
    #[must_use]
    pub fn new(socket: &Path, environment: &str) -> Self {
        let name = format!("the gateway at {}", socket.display());
        Self { client: Client::new(socket), name, environment: environment.to_owned() }
    }

    /// One that does not answer is no reason to keep a key that may be known to others: time has passed.
    async fn status(&self) -> Option<GatewayStatus> {
        self.client.status().await.ok().map(|status| status.gateway)
    }
}

impl Readers for AtSocket {
    fn behind<'a>(&'a self, new: &'a str) -> Doing<'a, Option<String>> {
        Box::pin(async move {
            let why = behind(&self.status().await?, &self.environment, new)?;
            Some(format!("{} {why}", self.name))
        })
    }

    fn refusals(&self) -> Doing<'_, Option<u64>> {
        Box::pin(async { refusals(&self.status().await?, &self.environment) })
    }
}

/// What a gateway does instead of using the key `new`.
pub(crate) fn behind(status: &GatewayStatus, environment: &str, new: &str) -> Option<&'static str> {
    let uses = status.environments.iter().find(|one| one.name == environment)?;
    if uses.fingerprint.as_deref() != Some(new) {
        return Some("does not have the new key yet");
    }
    keys(status, environment)
        .is_some_and(|keys| keys.secondary_in_use)
        .then_some("uses the old key, since MX refuses it the new one")
}

/// Its requests that MX answered with 401, of the pair of keys that it has now.
pub(crate) fn refusals(status: &GatewayStatus, environment: &str) -> Option<u64> {
    keys(status, environment).map(|keys| keys.second_attempts)
}

fn keys<'s>(status: &'s GatewayStatus, environment: &str) -> Option<&'s KeysStatus> {
    status.upstreams.iter().find(|one| one.environment == environment)?.keys.as_ref()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::control::{self, Listeners, fake::Fake, socket::ControlSocket};

    #[tokio::test]
    async fn a_gateway_with_another_key_is_behind_and_one_that_is_not_there_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let of = |environment: &str| AtSocket::new(&path, environment);
        assert_eq!(of("sandbox").behind("01020304").await, None, "nobody listens");
        let listeners = Listeners { health: None, socket: Some(ControlSocket::bind(&path).unwrap()) };
        let running = control::start(Fake::new().parts(), listeners).unwrap();
        assert_eq!(of("sandbox").behind("01020304").await, None);
        let behind = of("sandbox").behind("ffffffff").await.unwrap();
        assert!(behind.contains("control.sock"), "{behind}");
        assert_eq!(of("production").behind("ffffffff").await, None, "it has no such environment");
        running.stop(Duration::from_secs(10)).unwrap();
    }

    #[test]
    fn one_that_went_back_to_the_old_key_is_behind_and_its_refusals_are_counted() {
        use crate::status::{EnvironmentStatus, UpstreamStatus};
        let keys = |secondary_in_use| KeysStatus {
            secondary: "vault:sandbox/secondary".into(),
            fingerprint: "ffffffff".into(),
            secondary_in_use,
            cutovers: 1,
            second_attempts: 7,
        };
        let status = |keys| GatewayStatus {
            environments: vec![EnvironmentStatus {
                name: "sandbox".into(),
                host: "int-api.mx.com".into(),
                credential: "vault:sandbox/api_key".into(),
                fingerprint: Some("01020304".into()),
            }],
            upstreams: vec![UpstreamStatus {
                environment: "sandbox".into(),
                breaker: None,
                breaker_opened: 0,
                budget: None,
                keys,
            }],
            ..GatewayStatus::default()
        };
        assert!(behind(&status(Some(keys(true))), "sandbox", "01020304").is_some());
        assert_eq!(behind(&status(Some(keys(false))), "sandbox", "01020304"), None);
        assert_eq!(behind(&status(None), "sandbox", "01020304"), None);
        assert_eq!(refusals(&status(Some(keys(false))), "sandbox"), Some(7));
        assert_eq!(refusals(&status(None), "sandbox"), None);
    }
}
