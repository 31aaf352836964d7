//! Whether the gateway that runs with this configuration has taken the new key up.
//!
//! Time is what a rotation goes by: after refresh and grace every gateway has the new key, or uses none. Where a running
//! gateway can be asked, it is, so that one that is stuck with the old key is not left without any. In goes the new
//! key's fingerprint; out comes who is behind.

use std::path::Path;

use super::Doing;
use crate::control::client::Client;

/// Who has to have the new key before the old one may go.
pub trait Readers: Send + Sync {
    /// Who surely does not use the key `new` (a fingerprint), for people; `None` when nobody is known to be behind.
    fn behind<'a>(&'a self, new: &'a str) -> Doing<'a, Option<String>>;
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
}

impl Readers for AtSocket {
    fn behind<'a>(&'a self, new: &'a str) -> Doing<'a, Option<String>> {
        Box::pin(async move {
            // One that does not answer is no reason to keep a key that may be known to others: time has passed.
            let status = self.client.status().await.ok()?;
            let uses = status.gateway.environments.into_iter().find(|one| one.name == self.environment)?;
            (uses.fingerprint.as_deref() != Some(new)).then(|| self.name.clone())
        })
    }
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
}
