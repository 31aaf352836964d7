//! Which connections a caller may use.

use crate::{config, oauth::connection::Purpose};

/// `connections` of a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MayUse {
    /// Its own name.
    pub(crate) caller: String,
    /// The providers that it may ask users to consent at.
    pub(crate) providers: Vec<String>,
    /// Others whose connections it may use.
    of: Vec<String>,
}

impl MayUse {
    pub(super) fn new(caller: &config::Caller) -> Option<Self> {
        let config::CallerConnections { providers, of } = caller.connections.clone()?;
        Some(Self { caller: caller.name.clone(), providers, of })
    }

    /// Whether one of this purpose is among them.
    pub(crate) fn allows(&self, purpose: &Purpose) -> bool {
        let Purpose { provider, caller, .. } = purpose;
        self.providers.contains(provider) && (self.is_own(purpose) || self.of.contains(caller))
    }

    /// Whether it was made for this caller, which may end it.
    pub(crate) fn is_own(&self, purpose: &Purpose) -> bool {
        purpose.caller == self.caller
    }
}
