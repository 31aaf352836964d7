//! What the store keeps between two steps.
//!
//! In: an order, and later what belongs to the browser that began it. Out: text that a store seals, and back. It is JSON.
//!
//! What must never happen: the text grows into a second buffer that nobody wipes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Browser, Return};
use crate::{
    oauth::{
        connection::{ConnectionId, NoId, Purpose},
        store::{self, pending::BYTES_MAX},
    },
    vault::secret::Secret,
};

/// What a caller ordered. It has no `Debug`: the caller's `state` may be its user's session.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    pub(super) purpose: Purpose,
    /// As [`Connection::issuer`](crate::oauth::connection::Connection::issuer).
    pub(super) issuer: String,
    pub(super) return_url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) state: Option<String>,
    /// A connection's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    renews: Option<String>,
}

/// A browser that was sent to a provider.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) order: Order,
    pub(super) verifier: Arc<Secret>,
    /// Which browser.
    pub(super) browser: Browser,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire<'a> {
    order: Order,
    /// Of letters, digits, - and _: no escape keeps it from being borrowed.
    verifier: &'a str,
    browser: &'a str,
}

/// Another version of mxgate wrote it.
#[derive(Debug, thiserror::Error)]
#[error("what was kept of a connection that is being made is none that this mxgate knows")]
pub(super) struct Unknown;

impl From<Unknown> for store::Error {
    fn from(unknown: Unknown) -> Self {
        Self::PendingUnusable { place: "the store".into(), source: Box::new(unknown) }
    }
}

impl Order {
    pub(super) fn of(purpose: Purpose, issuer: String, back: &Return, renews: Option<ConnectionId>) -> Self {
        let Return { url: return_url, state } = back.clone();
        let renews = renews.map(|id| id.to_string());
        Self { purpose, issuer, return_url, state, renews }
    }

    pub(super) fn seal(&self) -> Result<Arc<Secret>, store::Error> {
        written(self)
    }

    pub(super) fn open(content: &Secret) -> Result<Self, Unknown> {
        serde_json::from_str(text(content)).map_err(|_| Unknown)
    }

    pub(super) fn renews(&self) -> Result<Option<ConnectionId>, NoId> {
        self.renews.as_deref().map(str::parse).transpose()
    }

    /// The return URL with `parameters` and the caller's own `state`.
    pub(super) fn back(&self, parameter: (&str, &str)) -> String {
        let state = self.state.as_deref().map(|state| ("state", state));
        let parameters: Vec<_> = std::iter::once(parameter).chain(state).collect();
        super::with_parameters(&self.return_url, &parameters)
    }
}

impl Attempt {
    pub(super) fn seal(&self) -> Result<Arc<Secret>, store::Error> {
        let browser = self.browser.to_string();
        written(&Wire { order: self.order.clone(), verifier: text(&self.verifier), browser: &browser })
    }

    pub(super) fn open(content: &Secret) -> Result<Self, Unknown> {
        let wire: Wire<'_> = serde_json::from_str(text(content)).map_err(|_| Unknown)?;
        Ok(Self {
            verifier: super::shown(wire.verifier).ok_or(Unknown)?,
            browser: wire.browser.parse().map_err(|_| Unknown)?,
            order: wire.order,
        })
    }
}

fn written(content: &impl Serialize) -> Result<Arc<Secret>, store::Error> {
    // It never grows, since what is larger is refused.
    let mut bytes = Bounded(Vec::with_capacity(BYTES_MAX));
    serde_json::to_writer(&mut bytes, content).map_err(|_| store::Error::TooLarge)?;
    Secret::new(bytes.0).map(Arc::new).map_err(|_| store::Error::TooLarge)
}

/// A buffer that takes no more than it has room for.
struct Bounded(Vec<u8>);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if bytes.len() > self.0.capacity() - self.0.len() {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What is written into a URL, a cookie, or a record that is sealed. All of it is text that was made here.
#[expect(
    clippy::disallowed_methods,
    reason = "puts tickets and cookies on the wire, and reads what was sealed"
)]
pub(super) fn text(secret: &Secret) -> &str {
    std::str::from_utf8(secret.expose()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> Order {
        let purpose = Purpose {
            provider: "bank".into(),
            environment: "sandbox".into(),
            host: "api.mx.test".into(),
            caller: "ledger".into(),
            user_guid: Some("USR-1".into()),
            scopes: vec!["read".into()],
        };
        let back = Return { url: "https://app.example/done?a=b".into(), state: Some("a \"b\" & c".into()) };
        Order::of(purpose, "bank".into(), &back, Some(ConnectionId::from_bytes([1; 16])))
    }

    #[test]
    fn what_was_written_is_read() {
        let order = order();
        assert!(Order::open(&order.seal().unwrap()).unwrap() == order);
        assert_eq!(order.renews(), Ok(Some(ConnectionId::from_bytes([1; 16]))));
        let verifier = super::super::shown(&"v".repeat(43)).unwrap();
        let attempt = Attempt { browser: Browser::of(&verifier), order, verifier };
        assert!(Attempt::open(&attempt.seal().unwrap()).unwrap() == attempt);
        // Neither is the other.
        assert!(Order::open(&attempt.seal().unwrap()).is_err());
        assert!(Attempt::open(&attempt.order.seal().unwrap()).is_err());
    }

    #[test]
    fn what_is_too_large_is_not_written() {
        let of = |length| Order { state: Some("x".repeat(length)), ..order() };
        assert!(of(BYTES_MAX - 400).seal().is_ok());
        assert!(matches!(of(BYTES_MAX).seal(), Err(store::Error::TooLarge)));
    }

    #[test]
    fn the_way_back_keeps_the_callers_parameters() {
        let back = order().back(("connection", "mxc_1"));
        assert_eq!(back, "https://app.example/done?a=b&connection=mxc_1&state=a+%22b%22+%26+c");
        let without = Order { state: None, ..order() };
        assert_eq!(
            without.back(("error", "access_denied")),
            "https://app.example/done?a=b&error=access_denied"
        );
    }
}
