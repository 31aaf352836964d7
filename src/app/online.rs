//! `mxgate check --online`: what a gateway with this configuration would lack at its start, found out by reading every
//! reference once. Nothing is sent to MX.

use std::{io, sync::Arc};

use crate::{
    config::{Config, Environment, Needed},
    log,
    snapshot::{Error, Snapshot},
    vault::{chain, gathered::Gathered, source::Reason},
};

/// Everything that would keep it from being ready, a sentence each; they name references, never a value.
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
    Ok(faults.iter().map(|fault| log::masked_line(fault)).collect())
}
