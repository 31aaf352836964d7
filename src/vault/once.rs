//! One secret, read once: what a source sends to log in, which cannot itself come from a server.
//!
//! In: a reference of kind `vault:`, `env:` or `file:`. Out: the secret as it is now, already masked in every log. It is
//! not kept fresh; who sends it asks again each time.

use std::{sync::Arc, time::Duration};

use tokio::{task::spawn_blocking, time::timeout};

use super::{
    Error, Vault, keeper,
    reference::{Reference, Scheme},
    secret::Secret,
    source::{Source as _, env::Env, file::Files},
};
use crate::{config::VaultFile, redaction};

/// How long the embedded vault's volume may take.
const VAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads it. `vault` is the embedded vault, if there is one.
pub(super) async fn read(reference: Reference, vault: Option<VaultFile>) -> Result<Arc<Secret>, Error> {
    let found = match reference.scheme() {
        Scheme::Env => Env.read(reference.place()).await,
        Scheme::File => Files.read(reference.place()).await,
        Scheme::Vault => return of_vault(reference, vault).await,
        other @ (Scheme::OpenBao | Scheme::Aws | Scheme::Exec) => {
            return Err(Error::NoSource { reference, section: other.name() });
        }
    };
    remembered(keeper::secret_of(&reference, &found.map_err(Arc::new))?.secret)
}

/// It is opened for this: where it is open already, an older look of it may be meant.
async fn of_vault(reference: Reference, vault: Option<VaultFile>) -> Result<Arc<Secret>, Error> {
    let Some(config) = vault else {
        return Err(Error::NoSource { reference, section: Scheme::Vault.name() });
    };
    let read = spawn_blocking(move || Vault::peek(&config)?.read(&reference));
    let read = timeout(VAULT_TIMEOUT, read).await;
    remembered(read.ok().and_then(Result::ok).unwrap_or(Err(Error::VaultTimeout))?.secret)
}

fn remembered(secret: Arc<Secret>) -> Result<Arc<Secret>, Error> {
    redaction::held().remember([&secret]);
    Ok(secret)
}
