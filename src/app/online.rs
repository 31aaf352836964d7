//! `mxgate check --online`: what a gateway with this configuration would lack at its start, found out by reading every
//! reference once. Nothing is sent to MX, nor to a provider.

use std::{io, sync::Arc};

use crate::{
    config::{Config, Environment, Needed},
    log,
    oauth::needed,
    snapshot::{Error, Snapshot},
    tls::TlsFault,
    vault::{chain, gathered::Gathered, source::Reason},
};

/// Everything that would keep it from being ready, or users' connections from being had, a sentence each; they name references, never a value.
///
/// # Errors
/// The system gave no event loop.
pub fn faults(config: &Config) -> io::Result<Vec<String>> {
    let gathered = Gathered::once(config)?;
    let unread = |one: &Arc<Environment>| {
        let missed = |needed: Needed<'_>| {
            let error = gathered.resolve(needed.reference).err()?;
            (error.reason() != Reason::Absent || !needed.role.may_be_absent()).then_some(error)
        };
        let errors = one.needed().into_iter().filter_map(missed);
        errors.map(|error| format!("environment {}: {}", one.name, chain(&*error))).collect::<Vec<_>>()
    };
    let mut faults: Vec<String> = config.environments.values().flat_map(unread).collect();
    let errors = Snapshot::build(config, &gathered, None).err().unwrap_or_default();
    // Those of secrets are all there already.
    let others = errors.iter().filter(|error| !matches!(error, Error::Secret { .. }));
    faults.extend(others.map(|error| chain(error)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    faults.extend(runtime.block_on(of_consents(config)));
    // A volume that hangs holds up its thread, and not us.
    runtime.shutdown_background();
    Ok(faults.iter().map(|fault| log::masked_line(fault)).collect())
}

/// What providers and users' connections lack.
async fn of_consents(config: &Config) -> Vec<String> {
    let mut faults = Vec::new();
    for needed in needed::secrets(config) {
        if let Err(fault) = needed.read(config.vault.as_ref()).await {
            faults.push(format!("{}: {}", needed.key, chain(&fault)));
        }
    }
    let unusable = |(key, loaded): (String, Result<(), TlsFault>)| Some(format!("{key}: {}", loaded.err()?));
    faults.extend(needed::files(config).into_iter().filter_map(unusable));
    faults
}
