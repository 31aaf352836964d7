//! This process's limits, and who else may touch its files.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use super::{Report, finding::Finding};
use crate::{
    capacity,
    config::{self, Config, permissions},
    oauth::needed,
    process::{Hardening, Memory},
    tree::tree,
    vault::{permissions as private, reference::Reference},
};

/// What the kernel granted to this command; it grants a service what its unit or container says.
pub(super) fn limits(hardening: &Hardening, config: &Config, report: &mut Report) {
    let dumps = match (hardening.core_limit, hardening.not_dumpable) {
        (Ok(()), Ok(())) => Ok("no core dump is written of this process"),
        (Err(error), _) | (_, Err(error)) => Err(format!("core dumps could not be switched off: {error}")),
    };
    match dumps {
        Ok(said) => report.add(None, "process", Finding::Fine, said),
        Err(said) => report.add(None, "process", Finding::CoreDumps, said),
    }
    let finding = match hardening.memory {
        Memory::NoSwap | Memory::Locked => Finding::Fine,
        Memory::Limited(_) | Memory::Refused(_) => Finding::MemoryNotLocked,
    };
    report.add(None, "process", finding, format_args!("memory: {}", hardening.memory));
    let misfits = capacity::warnings(config);
    if misfits.is_empty() {
        report.add(None, "process", Finding::Fine, format_args!("open files: {}", hardening.open_files));
    }
    misfits.iter().for_each(|misfit| report.add(None, "process", Finding::Capacity, misfit));
}

/// Files that decide what the gateway does, and those that are secret.
pub(super) fn files(config: &Config, path: &Path, report: &mut Report) {
    let (trusted, secret) = of(config, path);
    let identity = config.vault.as_ref().and_then(|vault| vault.identity.as_file());
    let mut fine = 0;
    for (file, is_secret) in
        trusted.iter().map(|file| (file, false)).chain(secret.iter().map(|file| (file, true)))
    {
        let (finding, reason) = judge(file, is_secret, identity.as_ref() == Some(file));
        match finding {
            Finding::Fine => fine += 1,
            _ => report.add(None, "files", finding, format_args!("{}: {reason}", file.display())),
        }
    }
    let said = format!("{fine} files that nobody else can change, or read where they are secret");
    report.add(None, "files", Finding::Fine, said);
}

/// What is wrong with it. A file that is not there is missed by whoever needs it.
fn judge(file: &Path, is_secret: bool, is_identity: bool) -> (Finding, String) {
    let Ok(metadata) = fs::metadata(file) else { return (Finding::Fine, String::new()) };
    if let Err(untrusted) = permissions::check(file) {
        return (Finding::FileMode, untrusted.to_string());
    }
    match private::private(&metadata) {
        // The gateway does not open its vault with it.
        Err(refused) if is_identity => (Finding::FileMode, refused.to_string()),
        Err(refused) if is_secret => (Finding::FileReadable, refused.to_string()),
        _ => (Finding::Fine, String::new()),
    }
}

fn of(config: &Config, path: &Path) -> (BTreeSet<PathBuf>, BTreeSet<PathBuf>) {
    let mut trusted: BTreeSet<_> = tree([path.to_owned()]);
    let mut secret = BTreeSet::new();
    if let Some(vault) = &config.vault {
        trusted.insert(vault.path.clone());
        secret.extend(vault.identity.as_file());
    }
    trusted.extend(config.tokens.iter().map(|tokens| tokens.file.clone()));
    let listeners = config.listeners.iter();
    let certificates = listeners.clone().filter_map(|listener| listener.tls.as_ref());
    let clients = config.environments.values().filter_map(|one| one.client_certificate.as_ref());
    let browser = config.connections.as_ref().and_then(|connections| connections.browser.as_ref());
    let browser = browser.and_then(|browser| browser.tls.as_ref());
    for config::ListenerTls { certificate, key } in certificates.chain(clients).chain(browser) {
        trusted.insert(certificate.clone());
        secret.insert(key.clone());
    }
    trusted.extend(listeners.filter_map(|listener| listener.client_ca.as_ref()).map(|ca| ca.file.clone()));
    for environment in config.environments.values() {
        trusted.extend(environment.ca_file.clone());
        secret.extend(environment.references().filter_map(Reference::as_file));
    }
    trusted.extend(config.providers.values().filter_map(|provider| provider.ca_file.clone()));
    secret.extend(needed::secrets(config).iter().filter_map(|needed| needed.reference.as_file()));
    (trusted, secret)
}
