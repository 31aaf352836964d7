//! Every file that a configuration names, and what each is to the gateway.

use std::path::{Path, PathBuf};

use super::{Config, ConnectionStore, Environment, ListenerTls, VaultFile};
use crate::vault::reference::Reference;

/// What a file is to the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FileKind {
    /// It decides what the gateway does: whoever may write it does, too.
    Trust,
    /// It is a secret besides.
    Secret,
    /// It opens the vault: that is not done with one that others may read.
    VaultKey,
}

impl Config {
    /// Those that a load reads: when one changes, there is a reason for the next. The configuration's own is not among them.
    pub(crate) fn loaded_files(&self) -> impl Iterator<Item = (PathBuf, FileKind)> {
        let vault = self.vault.iter().flat_map(of_vault);
        let environments = self.environments.values().flat_map(|one| of_environment(one));
        let listeners = self.listeners.iter().filter_map(|listener| listener.tls.as_ref()).flat_map(of_tls);
        let client_ca = self.listeners.iter().filter_map(|listener| listener.client_ca.as_ref());
        let trusted = client_ca
            .map(|ca| &ca.file)
            .chain(self.callers.iter().flat_map(super::Caller::files))
            .chain(self.tokens.as_ref().map(|tokens| &tokens.file));
        vault.chain(environments).chain(listeners).chain(trusted.map(trust))
    }

    /// Those that are read apart from loads, by whoever needs them: towards sources of secrets, providers, the store of
    /// connections and browsers.
    pub(crate) fn other_files(&self) -> impl Iterator<Item = (PathBuf, FileKind)> {
        let programs = self.exec.values().filter_map(|exec| exec.command.first()).map(PathBuf::from);
        let openbao = self.openbao.iter();
        let providers = self.providers.values();
        let connections = self.connections.iter();
        let database = connections.clone().filter_map(|connections| match &connections.store {
            ConnectionStore::Postgres(settings) => Some(settings),
            ConnectionStore::File(_) => None,
        });
        let trusted = (openbao.clone().filter_map(|openbao| openbao.ca_file.as_ref()))
            .chain(providers.clone().filter_map(|provider| provider.ca_file.as_ref()))
            .chain(database.clone().filter_map(|settings| settings.ca_file.as_ref()));
        let browser =
            connections.clone().filter_map(|connections| connections.browser.as_ref()?.tls.as_ref());
        let secrets = (openbao.map(|openbao| openbao.login.reference()))
            .chain(providers.map(|provider| &provider.client_secret))
            .chain(connections.flat_map(|one| [Some(&one.key), one.former_key.as_ref()]).flatten())
            .chain(database.filter_map(|settings| settings.password.as_ref()));
        (programs.map(|program| (program, FileKind::Trust)))
            .chain(trusted.map(trust))
            .chain(browser.flat_map(of_tls))
            .chain(secrets.filter_map(secret))
    }
}

fn of_vault(vault: &VaultFile) -> impl Iterator<Item = (PathBuf, FileKind)> {
    let opened_with = vault.opened_with().filter_map(|one| Some((one.as_file()?, FileKind::VaultKey)));
    std::iter::once(trust(&vault.path)).chain(opened_with)
}

fn of_environment(environment: &Environment) -> impl Iterator<Item = (PathBuf, FileKind)> {
    let secrets = environment.references().filter_map(secret);
    let trusted = environment.ca_file.iter().map(trust);
    secrets.chain(trusted).chain(environment.client_certificate.iter().flat_map(of_tls))
}

fn of_tls(files: &ListenerTls) -> [(PathBuf, FileKind); 2] {
    [trust(&files.certificate), (files.key.clone(), FileKind::Secret)]
}

fn trust(file: impl AsRef<Path>) -> (PathBuf, FileKind) {
    (file.as_ref().to_owned(), FileKind::Trust)
}

fn secret(reference: &Reference) -> Option<(PathBuf, FileKind)> {
    Some((reference.as_file()?, FileKind::Secret))
}
