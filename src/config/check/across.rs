//! What no single key can tell: faults between the parts of the file.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    path::Path,
    sync::Arc,
};

use ipnet::IpNet;

use super::{
    aws::{self, BUILT},
    listener::Draft,
    network::is_loopback,
};
use crate::{
    config::{
        Aws, Connections, Environment, Exec, Health, ListenAddress, Serves,
        fault::{Problem, Report},
        walk::Table,
    },
    mx,
    vault::reference::{AwsPlace, Reference, Scheme},
};

/// Where what opens the embedded vault may be.
const OPENS: &str = "expected file:/PATH, env:NAME, exec:NAME, openbao:MOUNT/PATH#FIELD or aws:NAME";

/// Each listener goes to an environment that exists, and each environment is used.
pub(super) fn environments(file: &Table<'_>, listeners: &[Draft<'_>], names: &[&str]) {
    for listener in listeners {
        if let Some(name) = listener.environment()
            && !names.contains(&name)
        {
            listener
                .table
                .fault("environment", Problem::new("is not configured").near(name, names.iter().copied()));
        }
    }
    // A mistyped name would make its environment seem unused.
    let known = |listener: &Draft<'_>| {
        listener.serves == Some(Serves::Connections)
            || listener.environment().is_some_and(|name| names.contains(&name))
    };
    for name in names.iter().filter(|_| listeners.iter().all(known)) {
        if !listeners.iter().any(|listener| listener.environment() == Some(name)) {
            file.warn(&format!("environment.{name}"), "is used by no listener");
        }
    }
}

/// No two sockets have one address. Port 0 is a different port each time.
pub(super) fn addresses(
    report: &Report<'_>,
    listeners: &[Draft<'_>],
    health: Option<&Health>,
    control: Option<&Path>,
    connections: Option<&Connections>,
) {
    let listening = listeners.iter().filter_map(|l| Some((l.table.path_of("address"), l.address.clone()?)));
    let health = health.map(|health| ("health.address".to_owned(), ListenAddress::Tcp(health.address)));
    let control = control.map(|path| ("control.socket".to_owned(), ListenAddress::Unix(path.to_owned())));
    let mut seen = BTreeMap::new();
    let browser = connections.and_then(|connections| connections.browser.as_ref());
    let browser =
        browser.map(|one| ("connections.browser.address".to_owned(), ListenAddress::Tcp(one.address)));
    for (path, address) in listening.chain(health).chain(control).chain(browser) {
        if matches!(&address, ListenAddress::Tcp(tcp) if tcp.port() == 0) {
            continue;
        }
        match seen.entry(address) {
            Entry::Vacant(free) => _ = free.insert(path),
            Entry::Occupied(taken) => {
                report.fault(&path, Problem::new(format!("is the same as {}", taken.get())));
            }
        }
    }
}

/// A secret belongs to one environment, and goes to its host: MX's sandbox must never see a key of production. Its
/// source is configured.
pub(super) fn references(
    report: &Report<'_>,
    file: &Table<'_>,
    exec: &BTreeMap<String, Option<Exec>>,
    aws: Option<&Aws>,
    environments: &BTreeMap<String, Option<Arc<Environment>>>,
) {
    let references = report.references();
    for (index, (path, reference)) in references.iter().enumerate() {
        let other = |(other, same): &&(String, Reference)| {
            same.is_same_secret(reference) && owner(other) != owner(path)
        };
        if let Some((other, _)) = references.iter().take(index).find(other) {
            let problem = Problem::new(format!("is the secret that {other} uses"));
            let is_proxys = owner(path) == "proxy" || owner(other) == "proxy";
            report.fault(
                path,
                problem.allowed(match is_proxys {
                    true => "what a proxy is told is no secret of MX's; store one for each",
                    false => "a secret belongs to one environment; store one for each",
                }),
            );
        }
        if let Some(problem) = without_source(path, reference, file, exec, aws) {
            report.fault(path, problem);
        }
        let environment = path.strip_prefix("environment.").and_then(|rest| rest.split('.').next());
        let environment = environment.and_then(|name| environments.get(name)?.as_ref());
        let of = |environment: &'_ Arc<Environment>| {
            let needed = environment.needed().into_iter().find(|needed| needed.reference == reference);
            needed.map(|needed| needed.host.to_owned())
        };
        if let (Some(host), Some(hosts)) = (environment.and_then(of), reference.hosts())
            && !hosts.contains(&host)
        {
            let whose = if owner(path) == "proxy" { "proxy" } else { "host" };
            let problem = Problem::new(format!("may not be sent to the {whose} of its environment"));
            report.fault(&format!("{path}.hosts"), problem.allowed("expected that host among them"));
        }
    }
}

/// Where keys of MX are sealed for, a proxy's login would carry one in clear text: a password that is sealed for that host
/// may be such a key.
pub(super) fn proxies(report: &Report<'_>, environments: &BTreeMap<String, Option<Arc<Environment>>>) {
    let is_of_keys = |host: &str| {
        [mx::SANDBOX_HOST, mx::PRODUCTION_HOST].contains(&host)
            || environments.values().flatten().any(|environment| environment.host == host)
    };
    for environment in environments.values().flatten() {
        let proxy = environment.egress.proxy.as_ref().filter(|proxy| proxy.login.is_some());
        if proxy.is_some_and(|proxy| !is_loopback(&proxy.host) && is_of_keys(&proxy.host)) {
            let problem = Problem::new(
                "is a host that keys are sealed for, and would be told a password in clear text",
            );
            let problem = problem.allowed("expected another host, or no username and password");
            report.fault(&format!("environment.{}.proxy.url", environment.name), problem);
        }
    }
}

/// What opens the embedded vault is not at a server whose login is in that vault.
pub(super) fn what_opens_the_vault(report: &Report<'_>) {
    let references = report.references();
    let login = |(path, reference): &&(String, Reference)| {
        path.starts_with("openbao.login.") && reference.scheme() == Scheme::Vault
    };
    let Some((login, _)) = references.iter().find(login) else { return };
    for (path, reference) in references.iter() {
        if path.starts_with("vault.") && reference.scheme() == Scheme::OpenBao {
            let problem = Problem::new(format!(
                "is at a server where {login} logs in, which is in the vault that it opens"
            ));
            report.fault(
                path,
                problem.allowed(format!("expected {login} at env:NAME or file:/PATH, or this one elsewhere")),
            );
        }
    }
}

/// Why nothing can be read for a reference.
fn without_source(
    path: &str,
    reference: &Reference,
    file: &Table<'_>,
    exec: &BTreeMap<String, Option<Exec>>,
    configured: Option<&Aws>,
) -> Option<Problem> {
    match reference.scheme() {
        Scheme::Env | Scheme::File => None,
        Scheme::Vault if path.starts_with("vault.") => {
            Some(Problem::new("is in the vault that it opens").allowed(OPENS))
        }
        Scheme::OpenBao | Scheme::Aws | Scheme::Exec if path.starts_with("openbao.login.") => {
            let problem = Problem::new("is at a server or a command, and is needed to log in");
            Some(problem.allowed("expected env:NAME, file:/PATH or vault:NAME"))
        }
        Scheme::OpenBao | Scheme::Aws | Scheme::Exec
            if path.starts_with("provider.") || path.starts_with("connections.") =>
        {
            let problem = Problem::new("is at a server or a command, and this secret cannot be yet");
            Some(problem.allowed("expected env:NAME, file:/PATH or vault:NAME"))
        }
        Scheme::Vault if !file.has("vault") => {
            let problem = Problem::new("needs a vault");
            Some(problem.allowed("add a [vault] section, or write env:NAME or file:/PATH"))
        }
        Scheme::Vault => None,
        Scheme::Exec => {
            let problem = Problem::new("names a command that is not configured");
            let names = exec.keys().map(String::as_str);
            (!exec.contains_key(reference.place())).then(|| problem.near(reference.place(), names))
        }
        Scheme::OpenBao if file.has("openbao") => None,
        Scheme::OpenBao => Some(Problem::new("needs a section [openbao]").allowed("add one")),
        Scheme::Aws if !BUILT => Some(aws::not_built()),
        Scheme::Aws if !file.has("aws") => Some(Problem::new("needs a section [aws]").allowed("add one")),
        Scheme::Aws => elsewhere(reference, configured?),
    }
}

/// Secrets Manager knows nothing of another region's secrets, and would say that there is no such secret.
fn elsewhere(reference: &Reference, aws: &Aws) -> Option<Problem> {
    let region = AwsPlace::of(reference.place())?.region()?;
    let problem = Problem::new("is in another region than aws.region");
    (region != aws.region).then(|| problem.allowed("name a secret of that region, such as a replica"))
}

/// `environment.production` of `environment.production.credential.api_key`. Environments may go out through one proxy.
fn owner(path: &str) -> &str {
    if path.starts_with("environment.") && path.ends_with(".proxy.password") {
        return "proxy";
    }
    if path.starts_with("connections.") {
        return "connections";
    }
    let end = path.match_indices('.').nth(1).map_or(path.len(), |(at, _)| at);
    let has_its_own = path.starts_with("environment.") || path.starts_with("provider.");
    if has_its_own { path.get(..end).unwrap_or(path) } else { "vault" }
}

/// Who is let in, when that is nobody or everybody.
pub(super) fn networks(
    file: &Table<'_>,
    allow: &[IpNet],
    trusted_proxies: &[IpNet],
    listeners: &[Draft<'_>],
) {
    if file.is_empty_list("allow") {
        file.warn("allow", "is empty: it lets nobody in");
    }
    if allow.iter().any(|network| network.prefix_len() == 0) {
        file.warn("allow", "holds every address: it lets everybody in");
    }
    if trusted_proxies.iter().any(|network| network.prefix_len() == 0) {
        file.warn("trusted_proxies", "holds every address: any caller can name another address as its own");
    }
    // Its connections must come from one of them.
    if !file.has("trusted_proxies") || file.is_empty_list("trusted_proxies") {
        for listener in listeners.iter().filter(|listener| listener.proxy_protocol) {
            listener.table.warn("proxy_protocol", "lets nobody in without trusted_proxies");
        }
    }
}
