//! The second of an environment's keys.

use std::sync::Arc;

use super::{
    Error,
    secrets::{Found, credential},
};
use crate::{
    config,
    credential::{Prepared, preference::Preference},
    vault::{reference::Reference, source::Reason},
};

/// A key that is used when MX takes the first no more.
#[derive(Debug)]
pub(crate) struct Second {
    pub(crate) key: Prepared,
    /// Which of the two goes out.
    pub(crate) preference: Arc<Preference>,
}

impl Second {
    /// `previous` is of the same environment and host.
    pub(super) fn new(
        kind: &config::Credential,
        first: &Prepared,
        key: Prepared,
        previous: Option<&Self>,
    ) -> Self {
        let previous = previous.map(|previous| &previous.preference);
        Self { preference: Preference::new(kind, [first, &key], previous), key }
    }
}

/// The keys of an environment. A second one that is not there, or is the first, is none; anything else that is wrong
/// with it is a fault, as it is with the first.
pub(super) fn keys(
    settings: &config::Environment,
    reference: &Reference,
    first: Found,
    second: Option<Found>,
) -> Result<(Prepared, Option<Prepared>), Error> {
    let kind = &settings.credential;
    let (mut prepared, secret) = credential(settings, kind, reference, first)?;
    let (Some(reference), Some(second)) = (kind.secondary(), second) else { return Ok((prepared, None)) };
    if second.as_ref().is_err_and(|error| error.reason() == Reason::Absent) {
        tracing::info!(environment = settings.name, %reference, "there is no second key yet");
        return Ok((prepared, None));
    }
    let (mut other, other_secret) = credential(settings, kind, reference, second)?;
    if secret == other_secret {
        return Ok((prepared, None));
    }
    Prepared::mask_together([&mut prepared, &mut other], [&secret, &other_secret]);
    Ok((prepared, Some(other)))
}
