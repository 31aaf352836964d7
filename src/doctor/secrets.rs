//! Whether every secret can be had, and whether it belongs where it would go.

use std::{collections::BTreeMap, sync::Arc};

use tokio::task::spawn_blocking;

use super::{Part, Report, finding::Finding};
use crate::{
    config::{Config, Environment, Needed, Role, VaultFile},
    credential::Prepared,
    redaction,
    tree::tree,
    upstream::tunnel::Password,
    vault::{
        self, Resolved, Vault, chain,
        gathered::Gathered,
        reference::{Reference, Scheme},
        secret::Secret,
        source::Reason,
    },
};

/// All secrets that the configuration names, as of now.
pub(super) struct Secrets {
    all: BTreeMap<String, Result<Resolved, Arc<vault::Error>>>,
    /// The vault did not open, which was reported: what is in it is not missed again.
    vault_closed: bool,
    /// Environment, host and key, of each.
    keys: Vec<(String, String, Arc<Secret>)>,
}

/// What one environment has at hand.
pub(super) struct Own {
    /// `None`: its requests carry a provider's tokens.
    pub(super) key: Option<Key>,
    pub(super) proxy_password: Option<Password>,
}

/// MX's key.
pub(super) struct Key {
    pub(super) credential: Prepared,
    /// Reference and fingerprint.
    pub(super) shown: String,
}

impl Secrets {
    pub(super) async fn read(config: &Config, report: &mut Report) -> Self {
        let opened = match config.vault.clone() {
            Some(vault) => Some(peek(vault).await),
            None => None,
        };
        let vault_closed = opened.as_ref().is_some_and(Result::is_err);
        match &opened {
            Some(Ok(vault)) => {
                let generation = vault.generation();
                report.add(None, "vault", Finding::Fine, format_args!("it opens, generation {generation}"));
            }
            Some(Err(error)) => report.add(None, "vault", Finding::VaultClosed, chain(error)),
            None => {}
        }
        let gathered = Gathered::peek(config).await;
        let environments = config.environments.values();
        let references = environments.clone().flat_map(|environment| environment.references());
        let all: BTreeMap<String, _> =
            tree(references.map(|reference| (reference.to_string(), gathered.resolve(reference))));
        // Before anything is said of them.
        redaction::held().remember(all.values().flatten().map(|resolved| &resolved.secret));
        let key = |environment: &Arc<Environment>| {
            let reference = environment.credential.reference()?.to_string();
            let secret = &all.get(&reference)?.as_ref().ok()?.secret;
            Some((environment.name.clone(), environment.host.clone(), secret.clone()))
        };
        let keys = environments.filter_map(key).collect();
        Self { all, vault_closed, keys }
    }

    /// Whether the vault did not open.
    pub(super) fn vault_closed(&self) -> bool {
        self.vault_closed
    }

    /// Those of an environment, or nothing when one that its requests need is missing.
    pub(super) fn of(&self, environment: &Environment, part: &mut Part<'_>) -> Option<Own> {
        let mut is_complete = true;
        for needed in environment.needed() {
            is_complete &= self.look_at(needed, part);
        }
        let key = match environment.credential.reference() {
            Some(reference) => Some(self.key(environment, reference, is_complete, part)?),
            None => None,
        };
        let password = environment.proxy_password().and_then(|password| self.resolved(password));
        is_complete.then(|| Own { key, proxy_password: password.cloned().map(Password::from) })
    }

    fn key(
        &self,
        environment: &Environment,
        reference: &Reference,
        is_complete: bool,
        part: &mut Part<'_>,
    ) -> Option<Key> {
        if let Some(other) = self.twin(environment) {
            let said = format!(
                "the key of {reference} is that of environment {other}, which is at another host: it was sent to neither",
            );
            part.add("vault", Finding::OtherEnvironmentsKey, said);
            return None;
        }
        let own = self.resolved(reference).filter(|_| is_complete)?;
        let prepared = Prepared::prepare(&environment.credential, reference, &own.secret);
        let prepared = prepared.map_err(|error| {
            let said = format!("{reference} {error}");
            part.add("vault", Finding::SecretUnfit, said);
        });
        Some(Key {
            credential: prepared.ok()?,
            shown: format!("{reference}, fingerprint {}", own.fingerprint),
        })
    }

    fn resolved(&self, reference: &Reference) -> Option<&Resolved> {
        self.all.get(&reference.to_string())?.as_ref().ok()
    }

    /// Reports one; whether it can be used.
    fn look_at(&self, needed: Needed<'_>, part: &mut Part<'_>) -> bool {
        let Needed { reference, role, host } = needed;
        match self.all.get(&reference.to_string()) {
            Some(Ok(resolved)) => {
                if let Err(why) = resolved.check_host(reference, host) {
                    part.add("vault", Finding::SecretWrongHost, why);
                    return false;
                }
                let sealed = resolved
                    .hosts
                    .as_ref()
                    .map_or(String::new(), |hosts| format!(", sealed for {}", hosts.join(", ")));
                // People choose a proxy's password, and few bits tell such a one from all others.
                let fingerprint = match role == Role::ProxyPassword {
                    true => String::new(),
                    false => format!(", fingerprint {}", resolved.fingerprint),
                };
                let said = format!("{reference}{fingerprint}{sealed}");
                part.add("vault", Finding::Fine, said);
                true
            }
            Some(Err(error)) if role.may_be_absent() && error.reason() == Reason::Absent => {
                part.add(
                    "vault",
                    Finding::Fine,
                    format_args!("{reference}: there is none, and none is needed"),
                );
                true
            }
            Some(Err(error)) => {
                let (finding, said) = unread(reference, error, self.vault_closed);
                part.add("vault", finding, said);
                false
            }
            None => false,
        }
    }

    /// Another environment, at another host, that has the same key.
    fn twin(&self, environment: &Environment) -> Option<&str> {
        let own = &self.resolved(environment.credential.reference()?)?.secret;
        let is_twin = |(name, host, key): &&(String, String, Arc<Secret>)| {
            *name != environment.name && *host != environment.host && key == own
        };
        self.keys.iter().find(is_twin).map(|(name, ..)| name.as_str())
    }
}

/// On a thread that may wait: for a volume, or for the source of what opens it.
async fn peek(vault: VaultFile) -> Result<Vault, vault::Error> {
    let opened = spawn_blocking(move || Vault::peek(&vault)).await;
    opened.unwrap_or(Err(vault::Error::VaultTimeout))
}

/// Why a secret is not to be had. The cause is told once when it is the vault.
pub(super) fn unread(reference: &Reference, error: &vault::Error, vault_closed: bool) -> (Finding, String) {
    if vault_closed && reference.scheme() == Scheme::Vault {
        return (Finding::VaultClosed, format!("{reference}: the vault does not open, see above"));
    }
    (finding(error), chain(error))
}

fn finding(error: &vault::Error) -> Finding {
    match error {
        vault::Error::Absent { .. } => Finding::SecretAbsent,
        vault::Error::Unreachable { .. }
        | vault::Error::NoSource { .. }
        | vault::Error::NotYet { .. }
        | vault::Error::VaultTimeout => Finding::SecretUnreadable,
        vault::Error::NotFor(_) => Finding::SecretWrongHost,
        vault::Error::Unfit { .. } | vault::Error::Moved { .. } | vault::Error::Field { .. } => {
            Finding::SecretUnfit
        }
        vault::Error::Identity(_) | vault::Error::Embedded(_) => Finding::VaultClosed,
    }
}
