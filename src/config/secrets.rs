//! How secrets are kept fresh, and the commands that print them.

use std::time::Duration;

use super::{BearerOperations, Config, Environment, VaultFile};
use crate::vault::reference::{Reference, Scheme};

/// How a secret is kept fresh, and how long it is used when that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refresh {
    /// How often it is read.
    pub interval: Duration,
    /// How long it may be used after its source last confirmed it.
    pub grace: Duration,
    /// Whether it is used after that as well, until its source says that it is gone.
    pub keep_after: bool,
}

/// How secrets are kept fresh that are on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refreshing {
    /// Those of the embedded vault.
    pub vault: Refresh,
    /// Those of files.
    pub file: Refresh,
}

/// `[exec.NAME]`: a command whose standard output is a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exec {
    /// An absolute path, and its arguments.
    pub command: Vec<String>,
    /// Variables of this process that it gets; no others.
    pub variables: Vec<String>,
    /// Default 10 s, 100 ms to 1 min.
    pub timeout: Duration,
    /// What it may print. Default 64 KiB, 1 byte to 1 MiB.
    pub output_bytes_max: usize,
    /// How often it is run, and how long its secrets may be used. Default every 5 min, and 1 h.
    pub refresh: Refresh,
}

/// One secret that an environment uses.
#[derive(Debug, Clone, Copy)]
pub struct Needed<'e> {
    /// Which.
    pub reference: &'e Reference,
    /// What for.
    pub role: Role,
    /// The host that it is sent to.
    pub host: &'e str,
}

/// What an environment uses a secret for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// MX's key.
    Key,
    /// The second one of two.
    SecondaryKey,
    /// The token of `bearer_operations`.
    Bearer,
    /// The password at the proxy.
    ProxyPassword,
}

impl Role {
    /// Whether everything works without it as long as its source says that there is none.
    #[must_use]
    pub fn may_be_absent(self) -> bool {
        self == Self::SecondaryKey
    }
}

impl Environment {
    /// Every secret that it uses.
    #[must_use]
    pub fn needed(&self) -> Vec<Needed<'_>> {
        let of = |role, reference| Needed { reference, role, host: &self.host };
        let mut needed: Vec<_> =
            self.credential.reference().into_iter().map(|reference| of(Role::Key, reference)).collect();
        needed.extend(self.credential.secondary().map(|reference| of(Role::SecondaryKey, reference)));
        if let BearerOperations::Token(token) = &self.bearer_operations {
            needed.push(of(Role::Bearer, token));
        }
        if let (Some(proxy), Some(reference)) = (&self.egress.proxy, self.proxy_password()) {
            needed.push(Needed { reference, role: Role::ProxyPassword, host: &proxy.host });
        }
        needed
    }

    /// The references of [`Self::needed`].
    pub fn references(&self) -> impl Iterator<Item = &Reference> {
        self.needed().into_iter().map(|needed| needed.reference)
    }
}

impl VaultFile {
    /// What opens it.
    pub fn opened_with(&self) -> impl Iterator<Item = &Reference> {
        [Some(&self.identity), self.passphrase.as_ref()].into_iter().flatten()
    }

    /// The same of what is neither in a file nor in a variable.
    pub fn opened_from_elsewhere(&self) -> impl Iterator<Item = &Reference> {
        self.opened_with().filter(|one| !matches!(one.scheme(), Scheme::File | Scheme::Env))
    }
}

impl Refresh {
    /// For what nobody can change while the process runs.
    pub(crate) const NEVER: Self = Self { interval: Duration::MAX, grace: Duration::MAX, keep_after: true };

    /// How long it may be used after a confirmation; `None`: until it is revoked.
    #[must_use]
    pub fn limit(&self) -> Option<Duration> {
        (!self.keep_after).then_some(self.grace)
    }
}

impl Config {
    /// How the secret that `reference` names is kept fresh.
    #[must_use]
    pub fn refresh_of(&self, reference: &Reference) -> Refresh {
        match reference.scheme() {
            Scheme::Vault => self.refresh.vault,
            Scheme::File => self.refresh.file,
            Scheme::Exec => self.exec.get(reference.place()).map_or(Refresh::NEVER, |exec| exec.refresh),
            Scheme::OpenBao => self.openbao.as_ref().map_or(Refresh::NEVER, |openbao| openbao.refresh),
            Scheme::Aws => self.aws.as_ref().map_or(Refresh::NEVER, |aws| aws.refresh),
            Scheme::Env => Refresh::NEVER,
        }
    }

    /// Who answers for a reference whose name does not say it. With another one, it is another secret.
    pub(crate) fn origin_of(&self, reference: &Reference) -> String {
        let origin = match reference.scheme() {
            Scheme::Exec => {
                let exec = self.exec.get(reference.place());
                exec.map(|exec| format!("{:?}", (&exec.command, &exec.variables)))
            }
            Scheme::OpenBao => self.openbao.as_ref().map(|openbao| {
                format!("{:?}", (&openbao.host, openbao.port, &openbao.namespace, &openbao.mounts))
            }),
            Scheme::Vault | Scheme::Env | Scheme::File | Scheme::Aws => None,
        };
        origin.unwrap_or_default()
    }
}
