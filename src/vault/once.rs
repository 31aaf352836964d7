//! One secret, read once: what a source sends to log in, which cannot itself come from a server.
//!
//! In: a reference of kind `vault:`, `env:` or `file:`, and the host that the secret is for. Out: the secret as it is
//! now, already masked in every log. It is not kept fresh; who sends it asks again each time.
//! What must never happen: it is sent to a host that it is not sealed for.

use std::{sync::Arc, time::Duration};

use tokio::{task::spawn_blocking, time::timeout};

use super::{
    Error, Read, Vault, destination, keeper,
    reference::{Reference, Scheme},
    secret::Secret,
    source::{Source as _, env::Env, file::Files},
};
use crate::{config::VaultFile, redaction};

/// How long the embedded vault's volume may take.
const VAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads it, to be sent to `host` (lower case). `vault` is the embedded vault, if there is one.
pub(crate) async fn read(
    reference: Reference,
    host: &str,
    vault: Option<VaultFile>,
) -> Result<Arc<Secret>, Error> {
    let found = match reference.scheme() {
        Scheme::Env => Env.read(reference.place()).await,
        Scheme::File => Files.read(reference.place()).await,
        Scheme::Vault => {
            let read = of_vault(&reference, vault).await?;
            return for_host(&reference, read, host);
        }
        other @ (Scheme::OpenBao | Scheme::Aws | Scheme::Exec) => {
            return Err(Error::NoSource { reference, section: other.name() });
        }
    };
    let read = keeper::secret_of(&reference, &found.map_err(Arc::new))?;
    for_host(&reference, read, host)
}

/// It is opened for this: where it is open already, an older look of it may be meant.
async fn of_vault(reference: &Reference, vault: Option<VaultFile>) -> Result<Read, Error> {
    let reference = reference.clone();
    let Some(config) = vault else {
        return Err(Error::NoSource { reference, section: Scheme::Vault.name() });
    };
    let patience = VAULT_TIMEOUT + config.elsewhere.patience();
    let read = spawn_blocking(move || Vault::peek(&config)?.read(&reference));
    let read = timeout(patience, read).await;
    read.ok().and_then(Result::ok).unwrap_or(Err(Error::VaultTimeout))
}

/// A secret goes to the hosts that it is sealed for, and to those that stand beside its reference.
fn for_host(reference: &Reference, read: Read, host: &str) -> Result<Arc<Secret>, Error> {
    redaction::held().remember([&read.secret]);
    destination::check(reference, read.hosts.as_deref(), host)?;
    Ok(read.secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::{
        elsewhere::Elsewhere,
        embedded::{self, Identity},
    };

    async fn read_text(reference: &str, vault: Option<&VaultFile>) -> Result<Arc<Secret>, Error> {
        read(reference.parse().unwrap(), "bao.example", vault.cloned()).await
    }

    #[tokio::test]
    async fn a_secret_is_read_from_this_machine_and_masked_from_then_on() {
        let folder = tempfile::tempdir().unwrap();
        let (path, identity) = (folder.path().join("vault.age"), folder.path().join("identity"));
        let opened = Identity::create(&identity).unwrap();
        embedded::create(&path, &opened).unwrap();
        let secret = |text: &str| Secret::new(text.into()).unwrap();
        let hosts = |host: &str| Some(vec![host.to_owned()]);
        embedded::set(&path, &opened, "bao", secret("of-the-vault-0001"), hosts("bao.example")).unwrap();
        embedded::set(&path, &opened, "mx", secret("of-the-vault-0002"), hosts("api.mx.com")).unwrap();
        let vault = VaultFile {
            path,
            identity: Reference::file(identity),
            passphrase: None,
            elsewhere: Elsewhere::nowhere(),
        };
        let file = folder.path().join("file");
        std::fs::write(&file, r#"{"id":"of-the-file-00001"}"#).unwrap();
        let file = format!("file:{}#id", file.display());
        for (reference, value) in [("vault:bao", "of-the-vault-0001"), (&file, "of-the-file-00001")] {
            assert!(!redaction::held().masker().is_hit(value.as_bytes()), "{reference}");
            assert_eq!(*read_text(reference, Some(&vault)).await.unwrap(), secret(value), "{reference}");
            assert!(redaction::held().masker().is_hit(value.as_bytes()), "{reference}");
        }
        let elsewhere = read_text("vault:mx", Some(&vault)).await;
        assert!(matches!(elsewhere, Err(Error::NotFor(_))), "{elsewhere:?}");
        let beside = file.parse::<Reference>().unwrap().for_hosts(vec!["api.mx.com".into()]);
        let elsewhere = read(beside, "bao.example", None).await;
        assert!(matches!(elsewhere, Err(Error::NotFor(_))), "{elsewhere:?}");
        let absent = read_text("vault:other", Some(&vault)).await;
        assert!(matches!(absent, Err(Error::Absent { .. })), "{absent:?}");
    }

    #[tokio::test]
    async fn what_would_need_a_login_itself_or_is_not_there_is_refused() {
        for reference in ["vault:bao", "openbao:secret/a#b", "aws:a", "exec:a"] {
            let read = read_text(reference, None).await;
            assert!(matches!(read, Err(Error::NoSource { .. })), "{reference} {read:?}");
        }
        let absent = read_text("env:MXGATE_NO_SUCH_VARIABLE", None).await;
        assert!(matches!(absent, Err(Error::Absent { .. })), "{absent:?}");
    }
}
