//! Whether each caller can be recognised, and as nobody else: what criteria mean beside each other and beside the rest.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::{caller::Draft, listener, overlap};
use crate::config::{BearerOperations, Environment, fault::Problem, walk::Table};

/// Whether each caller can be recognised, and as nobody else.
pub(super) fn recognisable(
    file: &Table<'_>,
    callers: &[Draft<'_>],
    listeners: &[listener::Draft<'_>],
    environments: &BTreeMap<String, Option<std::sync::Arc<Environment>>>,
) {
    let asked_for_certificates = listeners.iter().any(|listener| listener.client_ca.is_some());
    for caller in callers {
        if caller.token && !file.has("tokens") {
            caller
                .table
                .fault("token", Problem::new("needs a [tokens] section").allowed("it names their file"));
        }
        if caller.tls_names.is_some() && !asked_for_certificates {
            caller.table.warn("tls_names", "never holds: no listener has tls.client_ca");
        }
        if caller.token {
            bearer_stays_free(caller, environments);
        }
        if callers.len() > 1 && caller.is_known_by_loopback_alone() {
            let problem = Problem::new(
                "are of this machine only, and nothing else tells this caller from others there",
            );
            caller.table.warn(
                "networks",
                problem.allowed(
                    "the containers of a pod share them: give it a token, or a Unix socket and unix_uids",
                ),
            );
        }
    }
    let one = |caller: &Draft<'_>| overlap::Known {
        networks: caller.networks.clone(),
        uids: caller.unix_uids.clone(),
        gids: caller.unix_gids.clone(),
        names: caller.tls_names.clone(),
        token: caller.token,
    };
    let known: Vec<_> = callers.iter().map(one).collect();
    for (caller, other) in overlap::overlaps(&known) {
        let (Some(caller), Some(other)) = (callers.get(caller), callers.get(other)) else { continue };
        let name = |caller: &Draft<'_>| caller.name.clone().unwrap_or_else(|| caller.table.path_of("name"));
        let problem = Problem::new(format!(
            "leaves caller {} and caller {} open: one request could be from either",
            name(caller),
            name(other)
        ));
        caller
            .table
            .fault("name", problem.allowed("give both one kind of criterion, with nothing in common"));
    }
}

/// A token in `Authorization` stands where the token to pass through, or a handle, belongs.
fn bearer_stays_free(
    caller: &Draft<'_>,
    environments: &BTreeMap<String, Option<std::sync::Arc<Environment>>>,
) {
    for name in caller.grant.keys() {
        let Some(environment) = environments.get(*name).and_then(Option::as_ref) else { continue };
        let what = match (&environment.bearer_operations, environment.token_handles) {
            (BearerOperations::PassThrough, _) => "be passed through",
            (_, true) => "hold a handle",
            (_, false) => continue,
        };
        let problem = Problem::new(format!(
            "has to come in the header of [tokens] at {name}, where Authorization may {what}"
        ));
        caller.table.warn("token", problem);
    }
}

impl Draft<'_> {
    fn is_known_by_loopback_alone(&self) -> bool {
        let is_loopback = |network: &IpNet| match network {
            IpNet::V4(network) => network.network().is_loopback() && network.prefix_len() >= 8,
            IpNet::V6(network) => network.network().is_loopback() && network.prefix_len() == 128,
        };
        let networks = self.networks.as_ref().filter(|_| self.tls_names.is_none() && !self.token);
        networks.is_some_and(|networks| !networks.is_empty() && networks.iter().all(is_loopback))
    }
}
