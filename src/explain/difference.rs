//! Two configurations compared in the words of policy.
//!
//! In: two configurations. Out: who may call now and could not before, how callers are recognised, and which operations
//! each gained and lost, by name and with the sensitive classes that they have. What has nothing to do with who may do
//! what (time-outs, log levels, files) is not compared.

use std::collections::{BTreeMap, BTreeSet};

use http::{HeaderName, Method};
use serde_json::{Value, json};

use super::{
    replay::{listed, path_of},
    words,
};
use crate::{
    config::{self, Caller, Config, Environment},
    mx::catalogue::{Class, Operation},
    policy::grant::{Allowed, Found, OperationSet, Term},
    tree::tree,
};

/// What differs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// Of the gateway as a whole and of its environments, a line each: `allow: + 10.0.0.0/8`.
    pub general: Vec<String>,
    /// Callers, by name.
    pub callers: Vec<CallerDifference>,
}

/// What differs about one caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerDifference {
    /// Its name.
    pub name: String,
    /// Whether it is new, gone or another one.
    pub kind: Kind,
    /// How it is recognised, a line each.
    pub criteria: Vec<String>,
    /// By environment.
    pub grants: BTreeMap<String, GrantDifference>,
}

/// What became of a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It is only in the second configuration.
    Added,
    /// It is only in the first.
    Removed,
    /// It is in both, and not the same.
    Changed,
}

/// What a caller gained and lost at one environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GrantDifference {
    /// What it may do now.
    pub gained: Vec<Ability>,
    /// What it may do no longer.
    pub lost: Vec<Ability>,
}

/// One thing that a caller may do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ability {
    /// An operation's id, or method and template of a path.
    pub name: String,
    /// The sensitive classes that it has.
    pub sensitive: Vec<&'static str>,
}

impl Difference {
    /// From one configuration to another.
    #[must_use]
    pub fn between(old: &Config, new: &Config) -> Self {
        let callers = |config: &'_ Config| -> BTreeMap<String, Caller> {
            tree(config.callers.iter().map(|caller| (caller.name.clone(), caller.clone())))
        };
        let (before, after) = (callers(old), callers(new));
        let names: BTreeSet<&String> = tree(before.keys().chain(after.keys()));
        let one = |name: &&String| caller((old, before.get(*name)), (new, after.get(*name)));
        Self { general: general(old, new), callers: names.iter().filter_map(one).collect() }
    }

    /// Whether the policy is the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.general.is_empty() && self.callers.is_empty()
    }

    /// For people.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = self.general.clone();
        for caller in &self.callers {
            let (sign, word) = match caller.kind {
                Kind::Added => ('+', "added"),
                Kind::Removed => ('-', "removed"),
                Kind::Changed => ('~', "changed"),
            };
            lines.push(format!("{sign} caller {}, {word}", caller.name));
            lines.extend(caller.criteria.iter().map(|line| format!("    {line}")));
            for (environment, grant) in &caller.grants {
                lines.push(format!(
                    "    at {environment}: {} gained, {} lost",
                    grant.gained.len(),
                    grant.lost.len()
                ));
                lines.extend(grant.lost.iter().map(|one| format!("      - {}", one.shown())));
                lines.extend(grant.gained.iter().map(|one| format!("      + {}", one.shown())));
            }
        }
        if lines.is_empty() {
            lines.push("the same policy".to_owned());
        }
        lines
    }

    /// For programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let ability = |one: &Ability| json!({ "name": one.name, "sensitive": one.sensitive });
        let grant = |one: &GrantDifference| {
            let all = |list: &[Ability]| list.iter().map(ability).collect::<Vec<_>>();
            json!({ "gained": all(&one.gained), "lost": all(&one.lost) })
        };
        let caller = |one: &CallerDifference| {
            let grants: BTreeMap<_, _> = tree(one.grants.iter().map(|(name, one)| (name, grant(one))));
            let kind = match one.kind {
                Kind::Added => "added",
                Kind::Removed => "removed",
                Kind::Changed => "changed",
            };
            json!({ "name": one.name, "kind": kind, "criteria": one.criteria, "grants": grants })
        };
        let callers: Vec<_> = self.callers.iter().map(caller).collect();
        json!({ "same": self.is_empty(), "general": self.general, "callers": callers })
    }
}

impl Ability {
    fn of(operation: &Operation) -> Self {
        let is_sensitive = |class: &Class| !matches!(class, Class::Read | Class::Write);
        let sensitive = operation.classes.iter().filter(is_sensitive).map(Class::as_str).collect();
        Self { name: operation.id.to_owned(), sensitive }
    }

    fn shown(&self) -> String {
        if self.sensitive.is_empty() {
            return self.name.clone();
        }
        format!("{} (! {})", self.name, self.sensitive.join(", "))
    }
}

fn caller(old: (&Config, Option<&Caller>), new: (&Config, Option<&Caller>)) -> Option<CallerDifference> {
    let kind = match (old.1, new.1) {
        (None, _) => Kind::Added,
        (_, None) => Kind::Removed,
        _ => Kind::Changed,
    };
    let criteria = signed(&criteria(old.1), &criteria(new.1));
    let environments: BTreeSet<&String> =
        tree([old.1, new.1].into_iter().flatten().flat_map(|caller| caller.grant.keys()));
    let grants: BTreeMap<String, GrantDifference> = tree(environments.into_iter().filter_map(|name| {
        let (before, after) = (abilities(old, name), abilities(new, name));
        let grant = GrantDifference {
            gained: after.difference(&before).cloned().collect(),
            lost: before.difference(&after).cloned().collect(),
        };
        (grant != GrantDifference::default()).then(|| (name.clone(), grant))
    }));
    let name = new.1.or(old.1)?.name.clone();
    let is_same = kind == Kind::Changed && criteria.is_empty() && grants.is_empty();
    (!is_same).then_some(CallerDifference { name, kind, criteria, grants })
}

/// How a caller is recognised, a criterion's value each.
fn criteria(caller: Option<&Caller>) -> BTreeSet<String> {
    let Some(caller) = caller else { return BTreeSet::new() };
    let networks = caller.networks.iter().flatten().map(|network| format!("networks {network}"));
    let uids = caller.unix_uids.iter().flatten().map(|uid| format!("unix_uids {uid}"));
    let gids = caller.unix_gids.iter().flatten().map(|gid| format!("unix_gids {gid}"));
    let names = caller.tls_names.iter().flatten().map(|name| format!("tls_names {name}"));
    let token = caller.token.then(|| "token".to_owned());
    let observed = caller.observe_until.map(humantime::format_rfc3339_seconds);
    let observed = observed.map(|until| format!("observe_until {until}"));
    tree(networks.chain(uids).chain(gids).chain(names).chain(token).chain(observed))
}

/// All that a caller may do at an environment.
fn abilities((config, caller): (&Config, Option<&Caller>), environment: &str) -> BTreeSet<Ability> {
    let mut abilities = BTreeSet::new();
    let Some(environment) = config.environments.get(environment) else { return abilities };
    let Some(items) = caller.and_then(|caller| caller.grant.get(&environment.name)) else { return abilities };
    let own = listed(environment);
    if own.is_none() {
        abilities.extend(OperationSet::of(items).iter().map(Ability::of));
    }
    let Ok(allowed) = Allowed::new(items, own) else { return abilities };
    let named = items.iter().filter_map(|item| match &item.term {
        Term::Path(pattern) => Some(pattern),
        _ => None,
    });
    let patterns = own.unwrap_or_default().iter().chain(named);
    let is_allowed = |method: &Method, template: &str| {
        matches!(allowed.patterns().find(method, &path_of(template)), Found::Pattern(_))
    };
    let patterns = patterns.filter(|one| is_allowed(&one.method, &one.template));
    abilities.extend(
        patterns
            .map(|one| Ability { name: format!("{} {}", one.method, one.template), sensitive: Vec::new() }),
    );
    abilities
}

fn general(old: &Config, new: &Config) -> Vec<String> {
    let texts = |networks: &[ipnet::IpNet]| tree::<BTreeSet<_>, _>(networks.iter().map(ToString::to_string));
    let mut lines = Vec::new();
    for (key, before, after) in [
        ("allow", texts(&old.allow), texts(&new.allow)),
        ("trusted_proxies", texts(&old.trusted_proxies), texts(&new.trusted_proxies)),
        ("listener", listeners(old), listeners(new)),
        ("environment", environments(old), environments(new)),
    ] {
        lines.extend(signed(&before, &after).iter().map(|line| format!("{key}: {line}")));
    }
    lines
}

fn listeners(config: &Config) -> BTreeSet<String> {
    tree(config.listeners.iter().map(|one| format!("{} {}", one.address, one.serves)))
}

/// Where each sends what to, and with which credential.
fn environments(config: &Config) -> BTreeSet<String> {
    let one = |environment: &std::sync::Arc<Environment>| {
        let bearer = match &environment.bearer_operations {
            config::BearerOperations::Refused => "refused".to_owned(),
            config::BearerOperations::Token(token) => token.to_string(),
            config::BearerOperations::Provider(name) => format!("of provider {name}"),
            config::BearerOperations::PassThrough => "passed through".to_owned(),
        };
        let (host, credential) = (words::host(environment), &environment.credential);
        let second = credential.secondary().map_or(String::new(), |second| format!(" or {second}"));
        let handles = if environment.token_handles { ", its own under handles" } else { "" };
        let passed: Vec<&str> = environment.pass_headers.iter().map(HeaderName::as_str).collect();
        let passed =
            if passed.is_empty() { String::new() } else { format!(", {} let through", passed.join(" and ")) };
        format!(
            "{} is {host} with {}{second} as {}, Bearer tokens {bearer}{handles}{passed}{}",
            environment.name,
            credential.source(),
            words::kind(credential),
            way_out(&environment.egress)
        )
    };
    tree(config.environments.values().map(one))
}

/// Nothing for the usual one.
fn way_out(egress: &config::Egress) -> String {
    let proxy = egress.proxy.as_ref().map(|proxy| match &proxy.login {
        Some(login) => format!(", through {proxy} as {} with {}", login.username, login.password),
        None => format!(", through {proxy}"),
    });
    let bind = egress.bind.map(|address| format!(", from {address}"));
    let reach = (egress.reach == config::Reach::Any).then(|| ", private addresses allowed".to_owned());
    let pins: Vec<String> = egress.pins.iter().map(ToString::to_string).collect();
    let pins = (!pins.is_empty()).then(|| format!(", pinned to {}", pins.join(" or ")));
    [proxy, bind, reach, pins].into_iter().flatten().collect()
}

fn signed(before: &BTreeSet<String>, after: &BTreeSet<String>) -> Vec<String> {
    let lost = before.difference(after).map(|one| format!("- {one}"));
    lost.chain(after.difference(before).map(|one| format!("+ {one}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::tests::EXAMPLE, *};
    use crate::config::overrides::Overrides;

    fn lines(old: &str, new: &str) -> Vec<String> {
        let config = |text| Config::parse(text, "f", &Overrides::none()).unwrap().config;
        let difference = Difference::between(&config(old), &config(new));
        assert_eq!(difference.is_empty(), difference.to_json()["same"] == true);
        difference.lines()
    }

    #[test]
    fn what_has_no_part_in_policy_is_not_compared() {
        assert_eq!(lines(EXAMPLE, EXAMPLE), ["the same policy"]);
        let other = EXAMPLE.replace("[control]", "[log]\nfilter = \"debug\"\n[control]");
        assert_eq!(lines(EXAMPLE, &other), ["the same policy"]);
        // The same in other words.
        let other =
            EXAMPLE.replacen("[\"read\", \"bank-data\"]", "[\"bank-data\", \"read\", \"listUsers\"]", 1);
        assert_eq!(lines(EXAMPLE, &other), ["the same policy"]);
    }

    #[test]
    fn what_is_gained_and_lost_is_named_and_sensitive_classes_are_marked() {
        let new = EXAMPLE.replacen(
            "\"read\", \"bank-data\"]",
            "\"read\", \"bank-data\", \"createMember\", \"-listUsers\"]",
            1,
        );
        assert_eq!(
            lines(EXAMPLE, &new),
            [
                "~ caller ledger, changed",
                "    at production: 1 gained, 1 lost",
                "      - listUsers",
                "      + createMember (! carries-bank-login)",
            ]
        );
    }

    #[test]
    fn callers_come_and_go_with_their_criteria() {
        let new = EXAMPLE
            .replace("name = \"onboarding\"", "name = \"signup\"")
            .replace("10.20.1.0/24", "10.20.7.0/24")
            .replacen(
                "\"tag:members\", \"tag:institutions\", \"createUser\", \"requestWidgetURL\"",
                "\"createUser\"",
                1,
            );
        let lines = lines(EXAMPLE, &new);
        let at = lines.iter().position(|line| line.starts_with("- caller onboarding")).unwrap();
        assert_eq!(
            lines[..at],
            ["~ caller ledger, changed", "    - networks 10.20.1.0/24", "    + networks 10.20.7.0/24",]
        );
        assert_eq!(lines[at..at + 2], ["- caller onboarding, removed", "    - networks 10.20.2.0/24"]);
        assert_eq!(
            lines[lines.len() - 4..],
            [
                "+ caller signup, added",
                "    + networks 10.20.2.0/24",
                "    at production: 1 gained, 0 lost",
                "      + createUser",
            ]
        );
    }

    #[test]
    fn networks_listeners_environments_and_paths_are_compared() {
        let every = include_str!("../../config/every-key.toml");
        let new = every
            .replacen("allow = [\"127.0.0.0/8\", ", "allow = [", 1)
            .replace("\"vault:reporting/key\"", "\"vault:reporting/other\"")
            .replace("\"GET /users/{user_guid}/reports\"", "\"POST /reports\"");
        assert_eq!(
            lines(every, &new),
            [
                "allow: - 127.0.0.0/8",
                "environment: - reporting is reporting.example with vault:reporting/key as header, Bearer tokens refused",
                "environment: + reporting is reporting.example with vault:reporting/other as header, Bearer tokens refused",
                "~ caller ledger, changed",
                "    at reporting: 1 gained, 1 lost",
                "      - GET /users/{user_guid}/reports",
                "      + POST /reports",
            ]
        );
        let handles = every.replace("token_handles = false", "token_handles = true");
        let has = "Bearer tokens refused, its own under handles, x-continuation-token let through, from";
        assert!(lines(every, &handles)[1].contains(has));
        // Which way it goes there.
        let new = every
            .replace("proxy.internal:3128", "proxy.internal:3129")
            .replace("bind = \"10.0.0.5\"", "private_addresses = \"allowed\"")
            .replace("private_addresses = \"refused\"", "");
        let pins = "pinned to sha256/ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0= or \
                    sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let production = "production is api.mx.com with vault:production/api_key or vault:production/secondary_api_key \
             as basic, Bearer tokens refused, x-continuation-token let through";
        let sandbox = "sandbox is int-api.mx.com with vault:sandbox/api_key as query, \
                       Bearer tokens vault:sandbox/processor_token, through proxy.internal";
        assert_eq!(
            lines(every, &new),
            [
                format!("environment: - {production}, from 10.0.0.5, {pins}"),
                format!("environment: - {sandbox}:3128 as mxgate with vault:proxy/password"),
                format!("environment: + {production}, private addresses allowed, {pins}"),
                format!("environment: + {sandbox}:3129 as mxgate with vault:proxy/password"),
            ]
        );
    }
}
