//! What providers and users' connections need at a start, each looked at once: secrets and files.
//!
//! In: a configuration. Out: what it names, by key, and whether that can be had now. It is for whoever asks before a gateway
//! runs (`check --online`, `doctor`): a gateway reads each of them when it opens its store or first asks a provider, so that one
//! that is missing is missed late. Nobody is asked for anything but secrets.
//!
//! What must never happen: a message holds a secret.

use std::path::{Path, PathBuf};

use super::{
    broker::open::host_of_database,
    seal::{self, Keys},
};
use crate::{
    config::{Config, ConnectionStore, Connections, Provider, ProviderPlace, VaultFile},
    listener,
    tls::{self, TlsFault},
    vault::{self, once, reference::Reference},
};

/// One secret.
pub(crate) struct Needed<'c> {
    /// The key that names it: `provider.bank.client_secret`.
    pub(crate) key: String,
    pub(crate) reference: &'c Reference,
    /// Who it is for.
    host: &'c str,
    /// Who it may be for instead: which of them it is, only the provider's own document says.
    others: &'c [String],
    /// Whether the store is sealed with it.
    seals: bool,
}

/// Why it cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// It is not to be had.
    #[error(transparent)]
    Unread(#[from] vault::Error),
    /// Nothing can be sealed with it.
    #[error(transparent)]
    Unfit(#[from] seal::Error),
}

/// What proves to a provider that it is us.
pub(crate) fn of_provider(provider: &Provider) -> Needed<'_> {
    let (host, others): (&str, &[String]) = match &provider.place {
        ProviderPlace::Written(endpoints) => (&endpoints.token.host, &[]),
        ProviderPlace::Discovered { url, hosts, .. } => (&url.host, hosts),
    };
    let key = format!("provider.{}.client_secret", provider.name);
    Needed { key, reference: &provider.client_secret, host, others, seals: false }
}

/// What the store is sealed with, and opened.
pub(crate) fn of_store(connections: &Connections) -> Vec<Needed<'_>> {
    let one = |key: &str, reference, host, seals| Needed {
        key: format!("connections.{key}"),
        reference,
        host,
        others: &[],
        seals,
    };
    let here = super::broker::open::HERE;
    let mut needed = vec![one("key", &connections.key, here, true)];
    needed.extend(connections.former_key.as_ref().map(|former| one("former_key", former, here, true)));
    if let ConnectionStore::Postgres(settings) = &connections.store {
        let password = settings.password.as_ref();
        let host = host_of_database(&settings.host);
        needed.extend(password.map(|password| one("postgres.password", password, host, false)));
    }
    needed
}

/// All of them.
pub(crate) fn secrets(config: &Config) -> Vec<Needed<'_>> {
    let providers = config.providers.values().map(|provider| of_provider(provider));
    providers.chain(config.connections.iter().flat_map(of_store)).collect()
}

impl Needed<'_> {
    /// Reads it. Whatever it is, it is masked from then on.
    pub(crate) async fn read(&self, vault: Option<&VaultFile>) -> Result<(), Fault> {
        let read_for = |host| once::read(self.reference.clone(), host, vault.cloned());
        let mut read = read_for(self.host).await;
        for other in self.others {
            match read {
                Err(vault::Error::NotFor(_)) => read = read_for(other).await,
                _ => break,
            }
        }
        let secret = read?;
        if self.seals {
            Keys::new(&secret, [])?;
        }
        Ok(())
    }
}

/// Certificates: the key that names them, and whether they can be used.
pub(crate) fn files(config: &Config) -> Vec<(String, Result<(), TlsFault>)> {
    let mut found = Vec::new();
    let connections = config.connections.as_ref();
    let browser = connections.and_then(|connections| connections.browser.as_ref());
    if let Some(files) = browser.and_then(|browser| browser.tls.as_ref()) {
        let loaded = listener::tls::load(files, None).map(drop);
        found.push(("connections.browser.tls".to_owned(), loaded));
    }
    found.extend(authorities(config).map(|(key, path)| (key, authority(path))));
    found
}

/// Whom providers and the database are verified with, where that is not the system's.
fn authorities(config: &Config) -> impl Iterator<Item = (String, &PathBuf)> {
    let of_providers = config.providers.values().filter_map(|provider| {
        Some((format!("provider.{}.ca_file", provider.name), provider.ca_file.as_ref()?))
    });
    let of_database = config.connections.iter().filter_map(|connections| match &connections.store {
        ConnectionStore::Postgres(settings) => {
            Some(("connections.postgres.ca_file".to_owned(), settings.ca_file.as_ref()?))
        }
        ConnectionStore::File(_) => None,
    });
    of_providers.chain(of_database)
}

fn authority(path: &Path) -> Result<(), TlsFault> {
    tls::certificates(path, &tls::read(path)?).map(drop)
}
