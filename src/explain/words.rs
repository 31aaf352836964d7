//! Parts of an explanation in words, as the configuration would write them.

use super::{Asker, Question, Walked};
use crate::{
    config::{self, Api, Caller, Credential},
    mx::catalogue::{Operation, Tokens},
    policy::grant::{Item, Rule, Term, decide},
};

/// Which item of its grant decides about what a caller asks for.
pub(super) fn rule(
    caller: &Caller,
    environment: &config::Environment,
    operation: Option<&Operation>,
    template: Option<&str>,
) -> Option<String> {
    let place = format!("grant.{} of {}", environment.name, caller.name);
    let Some(items) = caller.grant.get(&environment.name) else {
        return Some(format!("{} has no grant at {}", caller.name, environment.name));
    };
    if let Some(operation) = operation {
        return Some(match decide(items, operation) {
            Rule::Allows(item) => format!("\"{}\" in {place} allows it", item),
            Rule::Excludes(item) => format!("\"{}\" in {place} excludes it", item),
            Rule::NotAskedFor(item, class) => format!(
                "\"{}\" in {place} covers it, but brings nothing of the class {}",
                item,
                class.as_str()
            ),
            Rule::Nothing => format!("nothing in {place} covers it"),
        });
    }
    let template = template?;
    let names = |item: &&Item| match &item.term {
        Term::Path(pattern) => pattern.template == template,
        Term::Paths | Term::Method(_) => matches!(environment.api, Api::Paths(_)),
        _ => false,
    };
    let item = items.iter().filter(|item| !item.excludes).find(names)?;
    Some(format!("\"{}\" in {place} allows it", item))
}

/// Which connections of users a caller may use.
pub(super) fn connections(caller: &Caller) -> String {
    let name = &caller.name;
    let Some(config::CallerConnections { providers, of }) = &caller.connections else {
        return format!("{name} may use no connections");
    };
    let others = if of.is_empty() { String::new() } else { format!(", also those of {}", of.join(", ")) };
    format!("connections of {name}: it may use those of {}{others}", providers.join(", "))
}

/// What is not looked at of a request for connections.
pub(super) const NOT_JUDGED: &str = "what is asked of connections: the body of the request, whether there is such a \
     connection, and whether it is the caller's to see or to end";

/// Why it is that caller, or nobody.
pub(super) fn recognised(question: &Question, walked: &Walked, caller: Option<&Caller>) -> String {
    let origin = walked.origin.map(|origin| origin.to_string()).unwrap_or_default();
    let Some(caller) = caller else {
        return match walked.origin {
            Some(_) => format!("{origin} is nobody who may call"),
            None => "not looked for: the request is refused before".to_owned(),
        };
    };
    match &question.asker {
        Asker::Caller(_) => "as you say; its criteria were not looked at".to_owned(),
        Asker::Address(socket) => {
            let counted = origin.parse::<std::net::IpAddr>().ok();
            let network = caller
                .networks
                .iter()
                .flatten()
                .find(|network| counted.is_some_and(|address| network.contains(&address)));
            let name = caller.tls_names.iter().flatten().find(|name| question.tls_names.contains(name));
            let by = match (network, name) {
                (Some(network), None) => format!("in its network {network}"),
                (Some(network), Some(name)) => format!("in its network {network} and shows its name {name}"),
                (None, Some(name)) => format!("anywhere, and shows its name {name}"),
                (None, None) => "known".to_owned(),
            };
            match counted {
                Some(address) if address != socket.to_canonical() => {
                    format!("{address}, which the trusted proxy {socket} names, is {by}")
                }
                _ => format!("{origin} is {by}"),
            }
        }
        Asker::Unix { uid, gid } => {
            let uids = caller.unix_uids.is_some().then(|| format!("user {uid} is in its unix_uids"));
            let gids = caller.unix_gids.is_some().then(|| format!("group {gid} is in its unix_gids"));
            [uids, gids].into_iter().flatten().collect::<Vec<_>>().join(", ")
        }
    }
}

/// Host, and port if it is not the usual one.
pub(super) fn host(environment: &config::Environment) -> String {
    match environment.port {
        443 => environment.host.clone(),
        port => format!("{}:{port}", environment.host),
    }
}

/// What becomes of the answer to an operation.
pub(super) fn answer(environment: &config::Environment, operation: &Operation) -> Option<&'static str> {
    let keeps = environment.token_handles && operation.answers != Tokens::None;
    keeps.then_some("its tokens are kept here, and the caller gets handles in their places")
}

/// The word of the configuration.
pub(super) fn kind(credential: &Credential) -> &'static str {
    match credential {
        Credential::Basic { .. } => "basic",
        Credential::ApiKey { .. } => "api-key",
        Credential::MxApiKey { .. } => "mx-api-key",
        Credential::Query { .. } => "query",
        Credential::Bearer { .. } => "bearer",
        Credential::OAuth2 { .. } => "oauth2",
        Credential::Header { .. } => "header",
    }
}

/// Whose data a caller is bound to.
pub(super) fn users(caller: &Caller) -> Vec<String> {
    let mut lines = Vec::new();
    if caller.users.is_some() || caller.users_file.is_some() {
        lines.push("the path's {user_guid} has to be one of its users".to_owned());
    }
    if let Some(end_user) = &caller.end_user {
        lines.push(format!("the path's {{user_guid}} has to be who the token in {} says", end_user.header));
    }
    lines
}

/// What the request would be counted against, whether or not that is reached.
pub(super) fn limits(
    caller: &Caller,
    environment: Option<&config::Environment>,
    method: &str,
) -> Vec<String> {
    let limits = &caller.limits;
    let own = [
        limits.rate.map(rate),
        limits.in_flight_max.map(|max| format!("{max} in flight")),
        limits.connections_max.map(|max| format!("{max} connections")),
        limits.bytes_per_second.map(|bytes| format!("{bytes} bytes a second")),
    ];
    let line = |whose: String, parts: Vec<String>| {
        (!parts.is_empty()).then(|| format!("{whose}: {}", parts.join(", ")))
    };
    let own = line(caller.name.clone(), own.into_iter().flatten().collect());
    let shared = environment.and_then(|environment| {
        let (budget, methods) = match method {
            "GET" | "HEAD" => (&environment.budget.get, "GET and HEAD"),
            _ => (&environment.budget.other, "other methods"),
        };
        let shared = [budget.rate.map(rate), budget.in_flight_max.map(|max| format!("{max} in flight"))];
        line(format!("all at {}, {methods}", environment.name), shared.into_iter().flatten().collect())
    });
    own.into_iter().chain(shared).collect()
}

fn rate(rate: config::limits::Rate) -> String {
    format!("{} requests a second, {} at once", rate.per_second, rate.burst)
}
