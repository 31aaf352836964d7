//! `[environment.NAME]`.

use std::{collections::BTreeMap, sync::Arc};

use http::HeaderName;

use super::{connections, credential, egress, limits, listener::certificate, network, paths, rotation};
use crate::{
    config::{Api, BearerOperations, Environment, IpFamily, Timeouts, fault::Problem, walk::Table},
    framing::names,
    mx,
    tree::tree,
};

/// The environments that know MX's host, with it.
const KNOWN: [(&str, &str); 2] = [("sandbox", mx::SANDBOX_HOST), ("production", mx::PRODUCTION_HOST)];

/// Every environment, by name; `None` for one with a fault.
pub(super) fn all(file: &Table<'_>) -> BTreeMap<String, Option<Arc<Environment>>> {
    let tables = file.named("environment");
    if tables.is_empty() && file.has("environment") {
        file.fault(
            "environment",
            Problem::new("is empty").allowed("expected one or more [environment.NAME] tables"),
        );
    }
    tree(tables.into_iter().map(|(name, table)| (name.to_owned(), one(file, name, &table).map(Arc::new))))
}

fn one(file: &Table<'_>, name: &str, table: &Table<'_>) -> Option<Environment> {
    if !is_name(name) {
        let form = "lower-case letters and digits, joined by single - or _, a letter first";
        file.fault(&format!("environment.{name}"), Problem::new("has a name of another form").allowed(form));
    }
    let address = address(name, table);
    let api = api(table, address.as_ref().map(|(host, _)| host.as_str()));
    let accept_version = table.parsed("accept_version", version);
    let credential = credential::credential(table);
    if matches!(api, Api::Paths(_)) && credential.as_ref().is_some_and(|one| one.secondary().is_some()) {
        table.warn(
            "credential.secondary_api_key",
            "is tried and never preferred: a read that confirms it is known of MX's Platform API only",
        );
    }
    let pass_headers = table.list("pass_headers", passed_header);
    let rotation = rotation::rotation(table, &api, credential.as_ref());
    let bearer_operations = credential::bearer_operations(table);
    let token_handles = table.flag("token_handles");
    if token_handles && matches!(api, Api::Paths(_)) {
        let problem = Problem::new("is known of MX's Platform API only");
        table.fault("token_handles", problem.allowed("leave it out beside paths"));
    }
    let scopes = connections::scopes(table, &api);
    let ca_file = table.path("ca_file");
    let client_certificate = certificate(&table.section("client_certificate"));
    let ip_family = match table.choice("ip_family") {
        "ipv4" => IpFamily::Ipv4,
        "ipv6" => IpFamily::Ipv6,
        _ => IpFamily::Any,
    };
    let egress = egress::egress(table, address.as_ref().map(|(host, _)| host.as_str()), ip_family);
    let connections_max = table.size("connections_max");
    let budget = limits::budget(&table.section("budget"));
    let breaker = limits::breaker(&table.section("breaker"));
    let timeouts = timeouts(table);

    let (host, port) = address?;
    Some(Environment {
        name: name.to_owned(),
        host,
        port,
        api,
        accept_version: accept_version?,
        credential: credential?,
        pass_headers,
        rotation: rotation?,
        bearer_operations: bearer_operations.unwrap_or(BearerOperations::Refused),
        token_handles,
        scopes,
        ca_file,
        client_certificate,
        ip_family,
        egress: egress?,
        connections_max,
        budget,
        breaker,
        timeouts,
    })
}

/// Host and port: those of `url`, or MX's.
fn address(name: &str, table: &Table<'_>) -> Option<(String, u16)> {
    let own = KNOWN.iter().find(|(known, _)| *known == name).map(|(_, host)| *host);
    if !table.has("url") {
        if own.is_none() {
            let form =
                "expected \"https://HOST\" or \"https://HOST:PORT\"; only sandbox and production know theirs";
            table.fault("url", Problem::new("is required").allowed(form));
        }
        return own.map(|host| (host.to_owned(), 443));
    }
    let (host, port) = table.parsed("url", upstream)?;
    // A sandbox key at production's host, or the reverse, is never meant.
    if own.is_some()
        && let Some((other, _)) = KNOWN.iter().find(|(known, mx)| *known != name && *mx == host)
    {
        table.fault("url", Problem::new(format!("is the host of MX's {other}, not of its {name}")));
    }
    Some((host, port))
}

/// `https://HOST[:PORT]`.
fn upstream(text: &str) -> Result<(String, u16), Problem> {
    let form = "expected \"https://HOST\" or \"https://HOST:PORT\"";
    let Some(rest) = text.strip_prefix("https://") else {
        return Err(Problem::new("does not start with https://").allowed(form));
    };
    if rest.contains('@') {
        return Err(Problem::new("holds user information").allowed(form));
    }
    if rest.contains(['/', '?', '#', '\\']) {
        return Err(Problem::new("has a path, query or fragment").allowed(form));
    }
    let malformed = || Problem::new("has no usable host and port").allowed(form);
    let (host, port) = network::host_and_port(rest).ok_or_else(malformed)?;
    let host = network::host_name(&host.to_ascii_lowercase()).map_err(|_| malformed())?;
    Ok((host, port.unwrap_or(443)))
}

fn api(table: &Table<'_>, host: Option<&str>) -> Api {
    let patterns = paths::patterns(table);
    if !table.has("paths") {
        return Api::Platform;
    }
    if KNOWN.iter().any(|(_, mx)| Some(*mx) == host) {
        let problem = Problem::new("cannot stand beside the host of MX's Platform API");
        table.fault("paths", problem.allowed("leave it out: the catalogue of MX's operations decides there"));
    } else if patterns.is_empty() {
        table.warn("paths", "is empty: nothing may be called here");
    }
    Api::Paths(patterns)
}

/// MX's versions are `v` and a date.
fn version(text: &str) -> Result<String, Problem> {
    match text.strip_prefix('v') {
        Some(date) if date.len() == 8 && date.bytes().all(|byte| byte.is_ascii_digit()) => {
            Ok(text.to_owned())
        }
        _ => Err(Problem::new("is not a version").allowed("expected v and a date, such as \"v20250224\"")),
    }
}

/// In lower case.
fn passed_header(text: &str) -> Result<HeaderName, Problem> {
    let malformed = |_| Problem::new("is not a header name").allowed("letters, digits and -");
    let name = text.parse::<HeaderName>().map_err(malformed)?;
    if !names::is_credential(name.as_str()) {
        return Err(Problem::new("is not taken for a credential").allowed("leave it out"));
    }
    match names::may_be_let_through(name.as_str()) {
        true => Ok(name),
        false => Err("is a caller's credential, or leads elsewhere: it never passes".into()),
    }
}

fn timeouts(table: &Table<'_>) -> Timeouts {
    let timeouts = Timeouts {
        connect: table.millis("connect_timeout_ms"),
        tls: table.millis("tls_timeout_ms"),
        first_byte: table.millis("first_byte_timeout_ms"),
        idle: table.millis("idle_timeout_ms"),
        total: table.millis("total_timeout_ms"),
        pool_idle: table.millis("pool_idle_timeout_ms"),
        connection_age: table.millis("connection_age_max_ms"),
    };
    if timeouts.first_byte > timeouts.total {
        table
            .warn("total_timeout_ms", "is shorter than first_byte_timeout_ms, which then never takes effect");
    }
    timeouts
}

/// A name that a variable (`MXGATE__ENVIRONMENT__NAME__KEY`) can hold without ambiguity.
pub(super) fn is_name(name: &str) -> bool {
    let plain =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    name.starts_with(|c: char| c.is_ascii_lowercase()) && name.split(['-', '_']).all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_is_https_and_a_host_and_nothing_else() {
        let host = |text| upstream(text).ok();
        assert_eq!(host("https://API.example"), Some(("api.example".to_owned(), 443)));
        assert_eq!(host("https://127.0.0.1:8443"), Some(("127.0.0.1".to_owned(), 8443)));
        for text in [
            "http://api.example",
            "HTTPS://api.example",
            "api.example",
            "https://",
            "https://user:pw@api.example",
            "https://api.example/",
            "https://api.example/v1",
            "https://api.example?x",
            "https://api.example#x",
            "https://api.example\\x",
            "https://api.example.",
            "https://api.example:",
            "https://api.example:0",
            "https://api.example:0443",
            "https://api.example:+443",
            "https://api.example:65536",
            "https://api example",
            "https://127.1",
        ] {
            assert_eq!(host(text), None, "{text}");
        }
    }

    #[test]
    fn versions_and_names_have_one_form() {
        assert!(version("v20111101").is_ok());
        for text in ["20111101", "v2025", "v2025022x", "v20250224 ", ""] {
            assert!(version(text).is_err(), "{text}");
        }
        for name in ["sandbox", "eu-west_1", "a"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "1a", "A", "a__b", "a-", "-a", "a.b", "a b", "ä"] {
            assert!(!is_name(name), "{name}");
        }
    }
}
