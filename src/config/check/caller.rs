//! `[[caller]]`.

use std::collections::{BTreeMap, HashMap};

use ipnet::IpNet;

use super::{environment::is_name, listener, network::network, overlap, paths, tls_name::tls_name};
use crate::{
    config::{
        Api, BearerOperations, Caller, Environment,
        fault::Problem,
        walk::{Table, shown_key},
    },
    policy::grant::{Item, Malformed, Term},
};

/// A caller as far as it could be read.
pub(super) struct Draft<'a> {
    table: Table<'a>,
    name: Option<String>,
    networks: Option<Vec<IpNet>>,
    unix_uids: Option<Vec<u32>>,
    unix_gids: Option<Vec<u32>>,
    tls_names: Option<Vec<String>>,
    token: bool,
    grant: BTreeMap<&'a str, Vec<Item>>,
}

impl Draft<'_> {
    /// `None` when something is missing, which was reported.
    pub(super) fn finish(self) -> Option<Caller> {
        Some(Caller {
            name: self.name?,
            networks: self.networks,
            unix_uids: self.unix_uids,
            unix_gids: self.unix_gids,
            tls_names: self.tls_names,
            token: self.token,
            grant: self.grant.into_iter().map(|(name, items)| (name.to_owned(), items)).collect(),
        })
    }
}

pub(super) fn all<'a>(file: &Table<'a>) -> Vec<Draft<'a>> {
    file.sections("caller").into_iter().map(one).collect()
}

fn one(table: Table<'_>) -> Draft<'_> {
    let name = table.parsed("name", name);
    let networks = given(&table, "networks", |table| table.list("networks", network));
    let unix_uids = given(&table, "unix_uids", |table| ids(table, "unix_uids"));
    let unix_gids = given(&table, "unix_gids", |table| ids(table, "unix_gids"));
    let tls_names = given(&table, "tls_names", |table| table.list("tls_names", tls_name));
    let token = table.flag("token");
    let grant = table.named_lists("grant", item).into_iter().collect();
    let unix = unix_uids.is_some() || unix_gids.is_some();
    if networks.is_none() && !unix && tls_names.is_none() && !token {
        let allowed = "expected one or more of networks, unix_uids, unix_gids, tls_names and token";
        table.fault("name", Problem::new("can be recognised by nothing").allowed(allowed));
    }
    for (key, is_given) in [("networks", networks.is_some()), ("tls_names", tls_names.is_some())] {
        if is_given && unix {
            table.fault(key, "never holds on a Unix socket, which unix_uids and unix_gids ask for");
        }
    }
    // They are the words of `mxgate caller token`.
    if token && let Some(word @ ("list" | "revoke" | "help")) = name.as_deref() {
        table.fault("name", Problem::new(format!("is the word `{word}` of `mxgate caller token`")));
    }
    Draft { table, name, networks, unix_uids, unix_gids, tls_names, token, grant }
}

/// A list that is written; one without an item would match nobody.
fn given<T>(table: &Table<'_>, key: &str, read: impl Fn(&Table<'_>) -> Vec<T>) -> Option<Vec<T>> {
    if table.is_empty_list(key) {
        table.fault(key, Problem::new("is empty: it matches nobody").allowed("leave it out, or list some"));
    }
    table.has(key).then(|| read(table))
}

fn ids(table: &Table<'_>, key: &str) -> Vec<u32> {
    table.integers(key).into_iter().filter_map(|id| u32::try_from(id).ok()).collect()
}

fn name(text: &str) -> Result<String, Problem> {
    if is_name(text) {
        return Ok(text.to_owned());
    }
    let form = "lower-case letters and digits, joined by single - or _, a letter first";
    Err(Problem::new("is a name of another form").allowed(form))
}

fn item(text: &str) -> Result<Item, Problem> {
    Item::parse(text, paths::pattern)
}

impl From<Malformed> for Problem {
    fn from(malformed: Malformed) -> Self {
        let valid = malformed.valid.iter().map(String::as_str);
        let problem = Self::new(malformed.what).near(&malformed.written, valid);
        // All operations of MX are too many for a line.
        if problem.nearest.is_none() && malformed.valid.len() > 100 {
            return problem.allowed("`mxgate operations` lists them");
        }
        problem
    }
}

/// Names are unique, and each grant fits its environment.
pub(super) fn beside_each_other(
    file: &Table<'_>,
    callers: &[Draft<'_>],
    environments: &BTreeMap<String, Option<std::sync::Arc<Environment>>>,
) {
    if callers.is_empty() && !file.has("caller") {
        file.warn("caller", "is absent: nobody is served");
    }
    let mut seen = HashMap::new();
    for caller in callers {
        if let Some(name) = &caller.name
            && let Some(first) = seen.insert(name, caller.table.path_of("name"))
        {
            caller.table.fault("name", Problem::new(format!("is the same as {first}")));
        }
        for (environment, items) in &caller.grant {
            let key = format!("grant.{}", shown_key(environment));
            let names = environments.keys().map(String::as_str);
            match environments.get(*environment) {
                None => caller.table.fault(&key, Problem::new("is no environment").near(environment, names)),
                Some(Some(environment)) => fits(caller, &key, items, &environment.api),
                Some(None) => {}
            }
        }
    }
}

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

/// A token in `Authorization` stands where the token to pass through belongs.
fn bearer_stays_free(
    caller: &Draft<'_>,
    environments: &BTreeMap<String, Option<std::sync::Arc<Environment>>>,
) {
    let passes = |name: &&&str| {
        let environment = environments.get(**name).and_then(Option::as_ref);
        environment.is_some_and(|one| one.bearer_operations == BearerOperations::PassThrough)
    };
    for environment in caller.grant.keys().filter(passes) {
        let problem = Problem::new(format!(
            "has to come in the header of [tokens] at {environment}, where Authorization may be passed through"
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

/// Whether the items of a grant mean something at their environment.
fn fits(caller: &Draft<'_>, key: &str, items: &[Item], api: &Api) {
    for (index, item) in items.iter().enumerate() {
        let fault = |problem: Problem| caller.table.fault(&format!("{key}[{index}]"), problem);
        match (api, &item.term) {
            (Api::Platform, Term::Paths) => {
                fault("is for an environment that lists paths, and this one has MX's operations".into());
            }
            (Api::Paths(_), Term::Operation(_) | Term::Class(_) | Term::Tag(_)) => {
                let allowed = "expected \"paths\", \"path:\" with one of them, or \"method:\"";
                fault(
                    Problem::new("is of MX's Platform API, and this environment lists its own paths")
                        .allowed(allowed),
                );
            }
            (Api::Paths(listed), Term::Path(pattern)) if !listed.contains(pattern) => {
                let listed: Vec<String> =
                    listed.iter().map(|one| format!("path:{} {}", one.method, one.template)).collect();
                let written = format!("path:{} {}", pattern.method, pattern.template);
                fault(
                    Problem::new("is none of its environment's paths")
                        .near(&written, listed.iter().map(String::as_str)),
                );
            }
            _ => {}
        }
    }
}
