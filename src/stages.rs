//! One stage of a request's walk at a time, for the benchmarks (feature `stages`, which no build of the gateway has).
//!
//! In: a configuration as text. Out: the same calls that `gateway` makes, one by one. A credential is attached with
//! a grant here as there.

use std::{net::SocketAddr, rc::Rc, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Method};
use tokio::time::Instant;

use crate::{
    admission::Caller,
    config::{Config, overrides::Overrides},
    credential::Credential,
    limits::{self, Owner, budget},
    listener::peer::Peer,
    metrics::Metrics,
    policy::{self, Grant, target::Target},
    snapshot::{Environment, Snapshot},
    upstream::headers,
    vault::gathered::Gathered,
    worker::view::{Place, View},
};

/// A snapshot's first environment, and a caller's connection.
pub struct Stages {
    snapshot: Arc<Snapshot>,
    credential: Credential,
    peer: Peer,
    view: View,
    connection: Owner,
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
        let gathered = Gathered::once(&config).map_err(|error| error.to_string())?;
        let snapshot = Snapshot::build(&config, &gathered, None).map_err(|errors| format!("{errors:?}"))?;
        let snapshot = Arc::new(snapshot);
        let (_, mut workers) = Metrics::new(1, ["listUsers"], Arc::default());
        let metrics = Rc::new(workers.pop().ok_or("no worker")?);
        let place = Place { index: 0, workers: 1, metrics };
        let view = View::new(snapshot.clone(), None, &place);
        let key = snapshot.environments.first().and_then(|environment| environment.own.key());
        let credential = key.ok_or("no environment with a key")?.for_worker();
        Ok(Self { snapshot, credential, peer: Peer::Tcp(peer), view, connection: Owner::default() })
    }

    /// Limits: whether the caller's next request passes them; it is over at once.
    pub fn limit(&self, now: Instant) -> bool {
        let caller = self.caller(&HeaderMap::new());
        caller.is_some_and(|caller| {
            limits::admit(self.view.limits(caller.index()), &self.connection, now).is_ok()
        })
    }

    /// What [`Self::limit`] does before it: finding the caller.
    pub fn find(&self) -> bool {
        self.caller(&HeaderMap::new()).is_some()
    }

    /// Budget and breaker: whether a request may be sent; it is over at once.
    pub fn budget(&self, method: &Method, now: Instant) -> bool {
        self.view.environment(0).is_some_and(|environment| {
            let breaker = &environment.settings.breaker;
            breaker.as_ref().is_none_or(|breaker| breaker.admit(true, now).is_ok())
                && budget::admit(environment, method, now).is_ok()
        })
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
