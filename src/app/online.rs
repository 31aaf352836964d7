//! `mxgate check --online`: what a gateway with this configuration would lack at its start, found out by reading every
//! reference once. Nothing is sent to MX.

use std::io;

use crate::{
    config::Config,
    redaction,
    snapshot::{Error, Snapshot},
    vault::{chain, gathered::Gathered},
};

/// Everything that would keep it from being ready, a sentence each; they name references, never a value.
///
/// # Errors
/// The system gave no event loop.
pub fn faults(config: &Config) -> io::Result<Vec<String>> {
    let gathered = Gathered::once(config)?;
    let of = |name: &str, references: Vec<&_>| {
        let unread = references.into_iter().filter_map(|reference| gathered.resolve(reference).err());
        unread.map(|error| format!("environment {name}: {}", chain(&*error))).collect::<Vec<_>>()
    };
    let environments = config.environments.values();
    let mut faults: Vec<String> = environments.flat_map(|one| of(&one.name, one.references())).collect();
    let errors = Snapshot::build(config, &gathered, None).err().unwrap_or_default();
    // Those of secrets are all there already.
    let others = errors.iter().filter(|error| !matches!(error, Error::Secret { .. }));
    faults.extend(others.map(|error| chain(error)));
    let masker = redaction::held().masker();
    Ok(faults
        .into_iter()
        .map(|fault| {
            let mut bytes = fault.into_bytes();
            masker.mask(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        })
        .collect())
}
