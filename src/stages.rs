//! One stage of a request's walk at a time, for the benchmarks (feature `stages`, which no build of the gateway has).
//!
//! In: a configuration as text. Out: the same calls that `gateway` makes, one by one. A credential is attached with
//! a grant here as there.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method};

use crate::{
    admission::Caller,
    config::{Config, overrides::Overrides},
    credential::Credential,
    listener::peer::Peer,
    policy::{self, Grant, target::Target},
    snapshot::{Environment, Snapshot},
    upstream::headers,
    vault::Vault,
};

/// A snapshot's first environment, and a caller's connection.
pub struct Stages {
    snapshot: Snapshot,
    credential: Credential,
    peer: Peer,
}

/// What policy said yes to.
pub struct Granted(Grant);

impl Stages {
    /// `peer` is where requests come from.
    ///
    /// # Errors
    /// What is wrong with the configuration or its secrets.
    pub fn new(configuration: &str, peer: SocketAddr) -> Result<Self, String> {
        let loaded = Config::parse(configuration, "benchmark", &Overrides::none());
        let config = loaded.map_err(|faults| faults.to_string())?.config;
        let vault = Vault::open(config.vault.as_ref()).map_err(|error| error.to_string())?;
        let snapshot = Snapshot::build(&config, &vault, None).map_err(|errors| format!("{errors:?}"))?;
        let credential = snapshot.environments.first().ok_or("no environment")?.credential.for_worker();
        Ok(Self { snapshot, credential, peer: Peer::Tcp(peer) })
    }

    /// Admission: whether the caller is let in.
    pub fn admit(&self, headers: &HeaderMap) -> bool {
        self.caller(headers).is_some()
    }

    /// Target, catalogue and policy. `None` is a no.
    pub fn decide(&self, method: &Method, target: &str) -> Option<Granted> {
        let caller = self.caller(&HeaderMap::new())?;
        let target = Target::parse(target).ok()?;
        let allowed = self.snapshot.grants.of(caller.index(), 0);
        policy::decide(allowed, self.environment()?.api, method, &target).ok().map(Granted)
    }

    /// The head that goes out: the caller's credentials out, ours in.
    pub fn write_head(&self, granted: &Granted, target: &str, fields: &HeaderMap) -> Option<Bytes> {
        let (environment, fields_of_ours) = (self.environment()?, self.credential.headers());
        let target = [target, "", ""];
        let head =
            headers::to_upstream(&Method::GET, target, fields, environment, &granted.0, fields_of_ours);
        Some(head.text)
    }

    fn caller(&self, headers: &HeaderMap) -> Option<Caller> {
        self.snapshot.admission.admit(&self.peer, headers, "/").ok()
    }

    fn environment(&self) -> Option<&Environment> {
        self.snapshot.environments.first().map(AsRef::as_ref)
    }
}
