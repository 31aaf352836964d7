//! What would have to change for a refused request to be allowed.
//!
//! Each sentence names a key of the configuration or a part of the request. The narrowest change comes first.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Asker, No, Question, Walked};
use crate::{
    config::{Api, Caller, Config, Environment, ForwardedHeader},
    mx::catalogue::{Class, Found as InCatalogue, Operation, catalogue},
    policy::grant::{Rule, decide, spelled},
    refusal::Refusal,
    users::Reason,
};

/// What there is to go by.
pub(super) struct Found<'a> {
    pub(super) config: &'a Config,
    pub(super) question: &'a Question,
    pub(super) environment: Option<&'a std::sync::Arc<Environment>>,
    pub(super) caller: Option<&'a Caller>,
    pub(super) operation: Option<&'a Operation>,
}

/// The changes, each a sentence; empty when there is nothing to say beyond the code.
pub(super) fn changes(found: &Found<'_>, walked: &Walked, no: &No) -> Vec<String> {
    let detail =
        |text: &str| vec![no.detail.as_ref().map_or(text.to_owned(), |why| format!("{text}: {why}"))];
    if let Some(reason) = walked.not_bound {
        return vec![not_bound(found, reason)];
    }
    if found.environment.is_none()
        && let Some(change) = no.refusal().and_then(|refusal| of_connections(found, refusal))
    {
        return vec![change];
    }
    match no.refusal() {
        Some(Refusal::CallerNotAllowed) => unknown_caller(found, walked),
        Some(Refusal::OperationDenied) => denied(found),
        Some(Refusal::UnknownOperation) => unknown_path(found),
        Some(Refusal::MethodNotAllowed) => other_methods(found),
        Some(Refusal::NoCredential) => no_credential(found),
        Some(Refusal::ConnectionDenied) => vec![
            "send a handle (mxh_...) as the one `Authorization: Bearer` of an operation that takes one, at the environment \
             that gave it, and nowhere else"
                .to_owned(),
        ],
        Some(Refusal::ConnectionNotNamed) => connection_not_named(found),
        Some(Refusal::BrowserNotAllowed) => {
            vec![
                "the request has an Origin or a Sec-Fetch-Site, so it comes from a browser: list its origin in \
                 the listener's `origins`, or leave the field out"
                    .to_owned(),
            ]
        }
        Some(Refusal::MisdirectedRequest) => {
            vec![
                "`Host` names something else: use localhost or an address, or add the name to the listener's \
                 `hosts`; and a target of https needs a listener with `tls`, or one of `trusted_proxies`"
                    .to_owned(),
            ]
        }
        Some(Refusal::MalformedTarget) => detail("write the path and query in their one spelling"),
        Some(Refusal::MalformedRequest) => detail("the request's head is not well formed"),
        Some(_) => detail("the request has to be another one"),
        None => Vec::new(),
    }
}

/// At a listener that serves connections, where refusals are about other things than at MX.
fn of_connections(found: &Found<'_>, refusal: Refusal) -> Option<String> {
    Some(match refusal {
        Refusal::ConnectionDenied => format!(
            "add `connections` to the caller {}, with the providers whose connections it may use",
            found.caller.map_or("that it is", |caller| &caller.name)
        ),
        Refusal::UnknownOperation => {
            "ask for /connections and /connections/{id} alone: the listener serves nothing else".to_owned()
        }
        Refusal::MethodNotAllowed => {
            "use POST or GET /connections, or GET or DELETE /connections/{id}".to_owned()
        }
        Refusal::UnknownConnection => {
            "write the id of a connection (mxc_...) as it was told: this is none".to_owned()
        }
        _ => return None,
    })
}

fn connection_not_named(found: &Found<'_>) -> Vec<String> {
    let is_named = |(name, _): &(String, String)| name.eq_ignore_ascii_case("x-mxgate-connection");
    if found.question.headers.iter().any(is_named) {
        return vec![
            "send exactly one `x-mxgate-connection`, with one id as GET /connections lists it (mxc_...)"
                .to_owned(),
        ];
    }
    vec![
        "add the header `x-mxgate-connection: mxc_...`, with the id of a connection that the caller may use (GET \
         /connections lists them, at a listener that serves connections)"
            .to_owned(),
        "or ask for a path that names the user, a {user_guid} of its template: a connection of that user is used then"
            .to_owned(),
    ]
}

/// The operation is granted, and not for this user.
fn not_bound(found: &Found<'_>, reason: Reason) -> String {
    let caller = found.caller.map_or("the caller", |caller| &caller.name);
    let environment = found.environment.map_or("", |environment| &environment.name);
    match (reason, found.operation) {
        (Reason::NoUser, operation) => format!(
            "add {} to grant.{environment} of {caller}: there is no {{user_guid}} in the path, so a caller that is bound to \
             users has it only by name",
            operation.map_or("the path".to_owned(), |operation| format!("`{}`", operation.id))
        ),
        (Reason::NotListed, _) => {
            format!("add the path's user to `users` or to the `users_file` of {caller}")
        }
        (Reason::OtherUser, _) => {
            "ask for the user whom the end user's token names, and for no other".to_owned()
        }
        (reason, _) => {
            let end_user = found.caller.and_then(|caller| caller.end_user.as_ref());
            let header = end_user.map_or("its header", |end_user| end_user.header.as_str());
            format!("send the end user's token in {header}; as it is: {}", reason.code())
        }
    }
}

fn unknown_caller(found: &Found<'_>, walked: &Walked) -> Vec<String> {
    match (&found.question.asker, walked.origin) {
        (Asker::Address(socket), Some(crate::admission::Origin::Address(address))) => {
            let config = found.config;
            let trusted =
                config.trusted_proxies.iter().any(|network| network.contains(&socket.to_canonical()));
            if trusted && address == socket.to_canonical() && config.forwarded_header != ForwardedHeader::None
            {
                return vec![format!(
                    "{socket} is a trusted proxy, and no header of it names a caller that can be read"
                )];
            }
            let mut changes = Vec::new();
            if !config.allow.iter().any(|network| network.contains(&address)) {
                changes.push(format!("add {address} to `allow`: {address} is in none of its networks"));
            }
            changes.extend(nobodys_network(config, address));
            if config.callers.iter().any(|caller| caller.tls_names.is_some()) {
                changes.push("or show a certificate with one caller's tls_names (--tls-name)".to_owned());
            }
            if config.callers.iter().any(|caller| caller.token) {
                changes.push(
                    "or present a caller's token, which is not read here: ask with --caller".to_owned(),
                );
            }
            changes
        }
        (Asker::Unix { uid, gid }, _) => vec![format!(
            "add {uid} to the unix_uids, or {gid} to the unix_gids, of a caller: no caller's criteria fit user {uid} \
             with group {gid}"
        )],
        (Asker::Caller(name), _) => vec![format!("{name} cannot be recognised as the only caller")],
        _ => Vec::new(),
    }
}

/// The caller whose network has most of its first bits in common with the address.
fn nobodys_network(config: &Config, address: IpAddr) -> Option<String> {
    let networks = config
        .callers
        .iter()
        .flat_map(|caller| caller.networks.iter().flatten().map(move |network| (caller, network)));
    if networks.clone().any(|(_, network)| network.contains(&address)) {
        return None;
    }
    let nearest = networks.max_by_key(|(_, network)| common_bits(network, address));
    let nearest = nearest.map_or("no caller has any".to_owned(), |(caller, network)| {
        format!("the nearest is {network} of {}", caller.name)
    });
    Some(format!(
        "add {address} to the networks of the caller that it is: {address} is in no caller's networks; {nearest}"
    ))
}

/// How many of the first bits are the same; of two equal ones, the wider network.
fn common_bits(network: &IpNet, address: IpAddr) -> Option<(u32, std::cmp::Reverse<u8>)> {
    let common = match (network.network(), address) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        _ => return None,
    };
    Some((common, std::cmp::Reverse(network.prefix_len())))
}

fn denied(found: &Found<'_>) -> Vec<String> {
    let (Some(caller), Some(environment)) = (found.caller, found.environment) else { return Vec::new() };
    let place = format!("grant.{} of {}", environment.name, caller.name);
    let Some(items) = caller.grant.get(&environment.name) else {
        // It was not looked for, since nothing is granted there.
        return match asked_for(found.question) {
            Some(operation) => vec![format!("add {place}, with {}", ways(operation))],
            None => vec![format!("add {place}: the caller may do nothing at {}", environment.name)],
        };
    };
    let Some(operation) = found.operation else { return Vec::new() };
    match decide(items, operation) {
        Rule::Excludes(item) => {
            vec![format!(
                "take \"{item}\" out of {place}: what is excluded stays so, whatever else is granted"
            )]
        }
        Rule::NotAskedFor(item, class) => vec![format!(
            "add {} to {place}: \"{item}\" brings nothing of the class {}",
            ways(operation),
            class.as_str()
        )],
        Rule::Nothing => vec![format!("add {} to {place}", ways(operation))],
        Rule::Allows(item) => vec![format!(
            "\"{item}\" in {place} would allow {}, but the path could be read as something else by another server",
            operation.id
        )],
    }
}

fn asked_for(question: &Question) -> Option<&'static Operation> {
    match catalogue().find(&question.method.parse().ok()?, path_of(&question.target)) {
        InCatalogue::Operation(operation) => Some(operation),
        _ => None,
    }
}

/// The items that would bring an operation, the narrowest first.
fn ways(operation: &Operation) -> String {
    let id = format!("\"{}\"", operation.id);
    if operation.classes.contains(Class::KeyAdmin) {
        return format!("{id} (what administers keys is granted by name alone)");
    }
    let sensitive: Vec<&str> = operation
        .classes
        .iter()
        .filter(|class| !matches!(class, Class::Read | Class::Write))
        .map(Class::as_str)
        .collect();
    if !sensitive.is_empty() {
        let classes = sensitive.join("\" and \"");
        return format!("{id}, or \"{classes}\" with all that this brings");
    }
    let class = operation.classes.iter().next().map_or("read", Class::as_str);
    format!("{id}, or \"tag:{}\" or \"{class}\" with all that they bring", spelled(operation.tag))
}

fn unknown_path(found: &Found<'_>) -> Vec<String> {
    let path = path_of(&found.question.target);
    let method = &found.question.method;
    if let Some(environment) = found.environment
        && let Api::Paths(listed) = &environment.api
    {
        let listed = listed.iter().map(|one| format!("{} {}", one.method, one.template));
        return vec![format!(
            "{} lists its own paths, and the grant of the caller has none that this is; listed are {}",
            environment.name,
            super::listed(listed)
        )];
    }
    let known = |path: &str| match catalogue().find(&http::Method::GET, path) {
        InCatalogue::Nothing => None,
        InCatalogue::Operation(operation) => Some(operation.template),
        InCatalogue::OtherMethods(_) => Some(""),
    };
    let merged: String =
        path.split('/').filter(|segment| !segment.is_empty()).flat_map(|segment| ["/", segment]).collect();
    let small = merged.to_ascii_lowercase();
    for (other, how) in [(&merged, "with single slashes and none at the end"), (&small, "in small letters")] {
        if other != path && known(other).is_some() {
            return vec![format!("MX knows this path {how}: {other}; it is another one as it stands")];
        }
    }
    vec![format!(
        "the catalogue has no such path; if MX has it, grant it as \"path:{method} {path}\", with {{id}} for what \
         stands for an id"
    )]
}

fn other_methods(found: &Found<'_>) -> Vec<String> {
    let path = path_of(&found.question.target);
    let method: Option<http::Method> = found.question.method.parse().ok();
    let methods = method.map(|method| catalogue().find(&method, path));
    match methods {
        Some(InCatalogue::OtherMethods(methods)) => {
            vec![format!("use a method that the path has: {}", methods.to_str().unwrap_or_default())]
        }
        _ => vec!["use a method that is granted for this path".to_owned()],
    }
}

fn no_credential(found: &Found<'_>) -> Vec<String> {
    let name = found.environment.map(|environment| environment.name.as_str()).unwrap_or_default();
    vec![format!(
        "set environment.{name}.bearer_operations: the operation takes a Bearer token of one user or account, and \
         there is none (with \"pass-through\", the request has to bring exactly one)"
    )]
}

fn path_of(target: &str) -> &str {
    target.split('?').next().unwrap_or_default()
}
