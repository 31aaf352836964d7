//! Which recorded requests another configuration would decide differently.
//!
//! In: access records, as a stream, and an [`Explainer`] of the new configuration. Out: a [`Replayed`] with the
//! differences counted by caller, environment and operation. Each is decided by the functions that decide in the
//! gateway, about a path that is made from the record's template.
//!
//! What records do not hold cannot be replayed: paths and ids (so which user was asked for), headers and bodies. A
//! request that was refused before its path was understood is counted as unknown, and so is one that was
//! refused for something that is not in the grants. Observe mode counts as off.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, BufRead},
    net::IpAddr,
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, header::FORWARDED};
use serde_json::{Value, json};

use super::{
    Explainer,
    records::{self, Read, Recorded},
};
use crate::{
    config,
    listener::peer::Peer,
    mx::catalogue::catalogue,
    policy::{self, grant::Allowed, target::Target},
    refusal::Refusal,
};

/// More kinds of difference than this are counted together.
const KINDS_MAX: usize = 10_000;

/// What a replay found.
#[derive(Debug, Clone, Default)]
pub struct Replayed {
    /// Lines.
    pub read: Read,
    /// Requests that would be decided as they were.
    pub same: u64,
    /// Each kind of difference, and how many requests it is about.
    pub different: BTreeMap<Difference, u64>,
    /// Requests of differences beyond those that are told apart.
    pub others: u64,
    /// Requests that cannot be decided again, by the reason.
    pub unknown: BTreeMap<&'static str, u64>,
    /// Requests whose caller was taken from the record, since it is known by more than its address.
    pub presumed: u64,
}

/// One kind of difference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// Who asked, as recorded; `None`: nobody who was known.
    pub caller: Option<String>,
    /// Where.
    pub environment: String,
    /// The operation's id, or the method and template.
    pub asked: String,
    /// `allowed`, or the refusal's code.
    pub before: String,
    /// The same, with the new configuration.
    pub after: String,
}

/// Why a request cannot be decided again.
const NO_PATH: &str = "refused before the path was understood, and records hold no paths";
const OTHER_REASON: &str = "refused for another reason than callers and grants";

impl Replayed {
    /// Whether some request would be decided differently.
    #[must_use]
    pub fn differs(&self) -> bool {
        !self.different.is_empty()
    }

    /// For programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let different: Vec<_> = self
            .different
            .iter()
            .map(|(one, count)| {
                json!({
                    "caller": one.caller, "environment": one.environment, "asked": one.asked,
                    "before": one.before, "after": one.after, "requests": count,
                })
            })
            .collect();
        json!({
            "records": self.read.records, "unreadable": self.read.unreadable, "same": self.same,
            "different": different, "others": self.others, "unknown": self.unknown, "presumed": self.presumed,
        })
    }

    /// For people, a line each.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut place = None;
        for (one, count) in &self.different {
            let caller = one.caller.as_deref().unwrap_or("(nobody known)");
            if place != Some((caller, &one.environment)) {
                lines.push(format!("{caller} at {}", one.environment));
                place = Some((caller, &one.environment));
            }
            lines.push(format!("  {}: {} -> {}, {}", one.asked, one.before, one.after, requests(*count)));
        }
        if self.others > 0 {
            lines.push(format!("and {} of kinds that are too many to list", requests(self.others)));
        }
        let different = self.different.values().sum::<u64>() + self.others;
        lines.push(format!(
            "{} read: {} decided as before, {different} differently",
            counted(self.read.records, "record"),
            self.same
        ));
        for (reason, count) in &self.unknown {
            lines.push(format!("cannot be known for {}: {reason}", requests(*count)));
        }
        if self.presumed > 0 {
            lines.push(format!(
                "for {} the caller is taken from the record: it is known by more than its address",
                requests(self.presumed)
            ));
        }
        if self.read.unreadable > 0 {
            lines.push(format!("{} no record", counted(self.read.unreadable, "line is")));
        }
        lines
    }

    fn differ(&mut self, difference: Difference) {
        if self.different.len() >= KINDS_MAX && !self.different.contains_key(&difference) {
            self.others += 1;
        } else {
            *self.different.entry(difference).or_default() += 1;
        }
    }
}

fn requests(count: u64) -> String {
    counted(count, "request")
}

fn counted(count: u64, noun: &str) -> String {
    match (count, noun.strip_suffix(" is")) {
        (1, _) => format!("1 {noun}"),
        (_, Some(noun)) => format!("{count} {noun}s are"),
        (_, None) => format!("{count} {noun}s"),
    }
}

/// Decides every record of `lines` again.
///
/// # Errors
/// When they cannot be read.
pub fn replay(lines: impl BufRead, explainer: &Explainer) -> io::Result<Replayed> {
    let mut replayer = Replayer { explainer, allowed: allowed(explainer), replayed: Replayed::default() };
    let read = records::read(lines, |recorded| replayer.one(recorded))?;
    Ok(Replayed { read, ..replayer.replayed })
}

struct Replayer<'e> {
    explainer: &'e Explainer,
    /// By caller, then by environment.
    allowed: HashMap<&'e str, HashMap<&'e str, Allowed>>,
    replayed: Replayed,
}

fn allowed(explainer: &Explainer) -> HashMap<&str, HashMap<&str, Allowed>> {
    let config = &explainer.config;
    let one = |caller: &'_ config::Caller, environment: &'_ config::Environment| {
        Allowed::new(caller.grant.get(&environment.name)?, listed(environment)).ok()
    };
    let of = |caller| {
        let all = config.environments.values();
        all.filter_map(|environment| Some((environment.name.as_str(), one(caller, environment)?))).collect()
    };
    config.callers.iter().map(|caller| (caller.name.as_str(), of(caller))).collect()
}

/// The environment's own paths, if it lists them.
pub(super) fn listed(environment: &config::Environment) -> Option<&[config::PathPattern]> {
    match &environment.api {
        config::Api::Platform => None,
        config::Api::Paths(paths) => Some(paths),
    }
}

impl Replayer<'_> {
    fn one(&mut self, recorded: &Recorded<'_>) {
        let before = match &recorded.code {
            Some(code) if !recorded.passed() => &**code,
            _ => "allowed",
        };
        let is_replayable = before == "allowed"
            || [Refusal::CallerNotAllowed, Refusal::OperationDenied].iter().any(|one| one.code() == before);
        if !is_replayable {
            let is_about_the_path =
                [Refusal::UnknownOperation, Refusal::MethodNotAllowed].iter().any(|one| one.code() == before);
            let reason = if is_about_the_path { NO_PATH } else { OTHER_REASON };
            *self.replayed.unknown.entry(reason).or_default() += 1;
            return;
        }
        match self.after(recorded) {
            Some(after) if after == before => self.replayed.same += 1,
            Some(after) => self.replayed.differ(Difference {
                caller: recorded.caller.as_deref().map(str::to_owned),
                environment: recorded.environment.clone().into_owned(),
                asked: asked(recorded),
                before: match recorded.would_refuse {
                    Some(_) => "allowed by observe mode".to_owned(),
                    None => before.to_owned(),
                },
                after,
            }),
            None => *self.replayed.unknown.entry(NO_PATH).or_default() += 1,
        }
    }

    /// `allowed`, a refusal's code, or what else has changed; `None`: it cannot be known.
    fn after(&mut self, recorded: &Recorded<'_>) -> Option<String> {
        let config = &self.explainer.config;
        let Some(environment) = config.environments.get(&*recorded.environment) else {
            return Some("no such environment".to_owned());
        };
        let Some(caller) = self.caller(recorded) else {
            return Some(Refusal::CallerNotAllowed.code().to_owned());
        };
        let template = match (recorded.operation.as_deref(), recorded.template.as_deref()) {
            (Some(id), _) => match catalogue().by_id(id) {
                Some(operation) => operation.template,
                None => return Some("no such operation".to_owned()),
            },
            (None, Some(template)) => template,
            (None, None) if recorded.caller.is_none() => return Some(format!("recognised as {caller}")),
            (None, None) => return None,
        };
        let allowed = self.allowed.get(&*caller).and_then(|of| of.get(environment.name.as_str()));
        let path = path_of(template);
        let (method, target) = (recorded.method.parse::<Method>().ok()?, Target::parse(&path).ok()?);
        Some(match policy::decide(allowed, environment.api.kind(), &method, &target) {
            Ok(_) => "allowed".to_owned(),
            Err(denial) => denial.refusal.code().to_owned(),
        })
    }

    /// Who it would be.
    fn caller(&mut self, recorded: &Recorded<'_>) -> Option<String> {
        let named = recorded.caller.as_deref().and_then(|name| self.explainer.caller(name));
        if let Some(named) =
            named.filter(|caller| caller.networks.is_none() || caller.token || caller.tls_names.is_some())
        {
            self.replayed.presumed += 1;
            return Some(named.name.clone());
        }
        let (peer, headers) = evidence(recorded.caller_address?, recorded.peer_address);
        let admission = &self.explainer.snapshot.admission;
        let caller = admission.admit(&peer, &headers, "").ok()?;
        admission.callers.name(caller.index()).map(|name| name.to_string())
    }
}

/// The address as it came, from a proxy that named it if there was one.
fn evidence(address: IpAddr, proxy: Option<IpAddr>) -> (Peer, HeaderMap) {
    let mut headers = HeaderMap::new();
    if proxy.is_some() {
        let forwarded = match address {
            IpAddr::V4(address) => format!("for={address}"),
            IpAddr::V6(address) => format!("for=\"[{address}]\""),
        };
        let fields =
            [(HeaderName::from_static("x-forwarded-for"), address.to_string()), (FORWARDED, forwarded)];
        let fields =
            fields.into_iter().filter_map(|(name, value)| Some((name, HeaderValue::try_from(value).ok()?)));
        headers.extend(fields);
    }
    (Peer::Tcp((proxy.unwrap_or(address), 0).into()), headers)
}

fn asked(recorded: &Recorded<'_>) -> String {
    match (&recorded.operation, &recorded.template) {
        (Some(id), _) => id.clone().into_owned(),
        (None, Some(template)) => format!("{} {template}", recorded.method),
        (None, None) => format!("{} (path not recorded)", recorded.method),
    }
}

/// A path that matches a template.
pub(super) fn path_of(template: &str) -> String {
    let mut path = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        path.push_str(before);
        path.push_str("X-1");
        rest = after.split_once('}').map_or("", |(_, after)| after);
    }
    path + rest
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            records::tests::record,
            tests::{EXAMPLE, every_key, explainer},
        },
        *,
    };

    fn lines(records: &[String], config: &str) -> Vec<String> {
        replay(records.concat().as_bytes(), &explainer(config)).unwrap().lines()
    }

    #[test]
    fn a_made_up_path_finds_its_own_operation() {
        for operation in catalogue().operations() {
            let found = catalogue().find(&operation.method, &path_of(operation.template));
            assert!(
                matches!(found, crate::mx::catalogue::Found::Operation(found) if found.id == operation.id),
                "{}",
                operation.template
            );
        }
        assert_eq!(path_of("/files/{*rest}"), "/files/X-1");
    }

    #[test]
    fn the_same_configuration_decides_the_same() {
        let records = [
            record(""),
            record(r#""decision":"failed","code":"upstream_busy""#),
            record(
                r#""operation":"createUser","method":"POST","decision":"refused","code":"operation_denied""#,
            ),
            record(
                r#""caller":null,"caller_address":"10.9.9.9","operation":null,"template":null,"decision":"refused","code":"caller_not_allowed""#,
            ),
        ];
        assert_eq!(lines(&records, EXAMPLE), ["4 records read: 4 decided as before, 0 differently"]);
    }

    #[test]
    fn what_changes_is_told_by_caller_and_operation() {
        let config = EXAMPLE
            .replacen("[\"read\", \"bank-data\"]", "[\"createUser\"]", 1)
            .replace("10.20.2.0/24", "10.20.9.0/24");
        let records = [
            record(""),
            record(""),
            record(
                r#""operation":"createUser","template":"/users","method":"POST","decision":"refused","code":"operation_denied""#,
            ),
            record(r#""caller":"onboarding","caller_address":"10.20.2.1""#),
            record(
                r#""caller":null,"caller_address":"10.20.9.9","operation":null,"template":null,"decision":"refused","code":"caller_not_allowed""#,
            ),
            record(r#""environment":"gone""#),
        ];
        assert_eq!(
            lines(&records, &config),
            [
                "(nobody known) at production",
                "  GET (path not recorded): caller_not_allowed -> recognised as onboarding, 1 request",
                "ledger at gone",
                "  listUsers: allowed -> no such environment, 1 request",
                "ledger at production",
                "  createUser: operation_denied -> allowed, 1 request",
                "  listUsers: allowed -> operation_denied, 2 requests",
                "onboarding at production",
                "  listUsers: allowed -> caller_not_allowed, 1 request",
                "6 records read: 0 decided as before, 6 differently",
            ]
        );
    }

    #[test]
    fn what_cannot_be_known_is_said() {
        let records = [
            record(r#""operation":null,"template":null,"decision":"refused","code":"unknown_operation""#),
            record(r#""decision":"refused","code":"body_too_large""#),
            "rubbish\n".to_owned(),
        ];
        assert_eq!(
            lines(&records, EXAMPLE),
            [
                "2 records read: 0 decided as before, 0 differently",
                "cannot be known for 1 request: refused before the path was understood, and records hold no paths",
                "cannot be known for 1 request: refused for another reason than callers and grants",
                "1 line is no record",
            ]
        );
    }

    #[test]
    fn a_caller_behind_a_proxy_or_on_a_unix_socket_is_found_again() {
        let proxied = format!("trusted_proxies = [\"10.20.0.5/32\"]\n{EXAMPLE}");
        let records = [record(r#""peer_address":"10.20.0.5""#)];
        assert_eq!(lines(&records, &proxied), ["1 record read: 1 decided as before, 0 differently"]);
        let unix = record(r#""caller":"batch","caller_address":null,"environment":"sandbox""#);
        let lines = lines(&[unix], &every_key());
        assert_eq!(lines[0], "1 record read: 1 decided as before, 0 differently");
        assert!(lines[1].contains("the caller is taken from the record"), "{lines:?}");
    }
}
