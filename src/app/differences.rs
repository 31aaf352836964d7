//! What a reload reports: which reloadable parts differ from before, in the words of the configuration. Names only,
//! never a value.

use std::{collections::BTreeSet, fmt::Display};

use crate::{
    config::Config,
    credential::Prepared,
    snapshot::{self, Snapshot},
    tree::tree,
};

/// Keys and sections of the configuration.
pub(super) fn changed_keys(old: &Config, new: &Config) -> Vec<String> {
    let mut changes = Vec::new();
    let mut note = |what: &dyn Display, changed: bool| {
        if changed {
            changes.push(what.to_string());
        }
    };
    note(&"allow", old.allow != new.allow);
    note(&"trusted_proxies", old.trusted_proxies != new.trusted_proxies);
    note(&"forwarded_header", old.forwarded_header != new.forwarded_header);
    note(&"limits", old.limits != new.limits);
    note(&"openbao", old.openbao != new.openbao);
    note(&"aws", old.aws != new.aws);
    note(&"tokens", old.tokens != new.tokens);
    note(&"log.filter", old.log.filter != new.log.filter);
    let callers: BTreeSet<_> = tree(old.callers.iter().chain(&new.callers).map(|caller| &caller.name));
    for caller in callers {
        let of = |config: &'_ Config| config.callers.iter().find(|one| one.name == *caller).cloned();
        note(&format_args!("caller {caller}"), of(old) != of(new));
    }
    let providers: BTreeSet<_> = tree(old.providers.keys().chain(new.providers.keys()));
    for name in providers {
        note(&format_args!("provider.{name}"), old.providers.get(name) != new.providers.get(name));
    }
    let environments: BTreeSet<_> = tree(old.environments.keys().chain(new.environments.keys()));
    for name in environments {
        let changed = old.environments.get(name) != new.environments.get(name);
        note(&format_args!("environment.{name}"), changed);
    }
    changes
}

/// References whose secret is another one than before.
pub(super) fn changed_secrets(old: &Snapshot, new: &Snapshot) -> Vec<String> {
    let used = |environment: &snapshot::Environment| {
        let second = environment.second.as_ref().map(|second| &second.key);
        [
            environment.own.key().map(Prepared::used),
            second.map(Prepared::used),
            environment.bearer.token().map(Prepared::used),
            environment.dial.proxy_password(),
        ]
        .map(|one| one.cloned())
    };
    let mut changed = BTreeSet::new();
    for environment in &new.environments {
        let Some(before) = old.environment(&environment.name) else { continue };
        for (before, now) in used(before).into_iter().zip(used(environment)) {
            match (before, now) {
                (Some(before), Some(now)) if before.name() == now.name() && before != now => {
                    changed.insert(format!("the secret {}", now.name()));
                }
                (None, Some(now)) => _ = changed.insert(format!("the secret {} is in use", now.name())),
                (Some(before), None) => {
                    changed.insert(format!("the secret {} is no longer in use", before.name()));
                }
                _ => {}
            }
        }
    }
    changed.into_iter().collect()
}
