//! What all references of a configuration came to, as of one moment: a snapshot is built from it, without waiting.

use std::{collections::BTreeMap, io, sync::Arc};

use super::{
    Error, PLACEHOLDER, Resolved, freshness::Deadline, keeper::Keeper, reference::Reference, secret::Secret,
};
use crate::config::Config;

/// Secrets, or why there are none.
#[derive(Debug)]
pub(crate) struct Gathered(Option<BTreeMap<String, Result<Resolved, Arc<Error>>>>);

impl Gathered {
    pub(super) fn new(found: BTreeMap<String, Result<Resolved, Arc<Error>>>) -> Self {
        Self(Some(found))
    }

    /// One that has a placeholder for every reference: enough to decide with, nothing to send.
    pub(crate) fn blank() -> Self {
        Self(None)
    }

    /// Whether this is [`Self::blank`].
    pub(crate) fn is_blank(&self) -> bool {
        self.0.is_none()
    }

    /// Reads every reference of `config` once, and leaves no mark of it. It waits, so it is for commands and tests.
    ///
    /// # Errors
    /// The system gave no event loop.
    pub(crate) fn once(config: &Config) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let gathered = runtime.block_on(Self::peek(config));
        // A volume that hangs holds up its thread, and not us.
        runtime.shutdown_background();
        Ok(gathered)
    }

    /// The same for who has an event loop.
    pub(crate) async fn peek(config: &Config) -> Self {
        let keeper = Keeper::peeking();
        keeper.consider(config);
        keeper.read_all().await;
        keeper.gathered(config)
    }

    /// The secret that `reference` names. Its deadline says whether it may be used.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn resolve(&self, reference: &Reference) -> Result<Resolved, Arc<Error>> {
        match &self.0 {
            Some(found) => found
                .get(&reference.to_string())
                .cloned()
                .unwrap_or_else(|| Err(Arc::new(Error::NotYet { reference: reference.clone() }))),
            None => placeholder(reference),
        }
    }
}

fn placeholder(reference: &Reference) -> Result<Resolved, Arc<Error>> {
    let unfit = |source| Arc::new(Error::Unfit { reference: reference.clone(), source });
    let secret = Arc::new(Secret::new(PLACEHOLDER.to_vec()).map_err(unfit)?);
    let read = super::Read { secret, hosts: None, version: None };
    Ok(Resolved::new(read, Arc::new(Deadline::never())))
}
