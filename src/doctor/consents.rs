//! What providers and users' connections need, as far as that can be seen without a user.

use super::{Part, Report, finding::Finding, secrets};
use crate::{
    config::Config,
    https,
    oauth::{
        discovery,
        needed::{self, Fault},
        provider::Provider,
        token_endpoint,
    },
    vault::{chain, reference::Reference},
};

/// Their secrets, each read once.
pub(super) struct Consents {
    all: Vec<Secret>,
    /// As [`secrets::Secrets::vault_closed`].
    vault_closed: bool,
}

struct Secret {
    key: String,
    reference: Reference,
    read: Result<(), Fault>,
    /// Told of the environments that need it, and not of the machine.
    is_providers: bool,
}

impl Consents {
    pub(super) async fn read(config: &Config, vault_closed: bool) -> Self {
        let vault = config.vault.as_ref();
        let mut all = Vec::new();
        for needed in needed::secrets(config) {
            let read = needed.read(vault).await;
            let is_providers = needed.key.starts_with("provider.");
            all.push(Secret { key: needed.key, reference: needed.reference.clone(), read, is_providers });
        }
        Self { all, vault_closed }
    }

    /// What no one environment needs: the store's secrets, and the certificate towards browsers.
    pub(super) fn shared(&self, config: &Config, report: &mut Report) {
        for secret in self.all.iter().filter(|secret| !secret.is_providers) {
            let (finding, said) = secret.told(self.vault_closed);
            report.add(None, "vault", finding, said);
        }
        for (key, loaded) in needed::files(config) {
            match loaded {
                Ok(()) => report.add(None, "tls", Finding::Fine, format_args!("{key} can be used")),
                Err(fault) => report.add(None, "tls", Finding::TlsFiles, format_args!("{key}: {fault}")),
            }
        }
    }

    /// The client secrets of the providers whose tokens an environment attaches. The way to its host needs none of them, and is
    /// looked at in any case.
    pub(super) fn of(&self, part: &mut Part<'_>) {
        for (_, provider, _) in part.environment.oauth() {
            let key = format!("provider.{provider}.client_secret");
            for secret in self.all.iter().filter(|secret| secret.key == key) {
                let (finding, said) = secret.told(self.vault_closed);
                part.add("vault", finding, said);
            }
        }
    }
}

/// The way to the providers whose tokens an environment attaches. None of them is asked for anything but what it publishes.
pub(super) async fn ways(config: &Config, part: &mut Part<'_>) {
    for (_, name, _) in part.environment.oauth() {
        let Some(settings) = config.providers.get(name) else { continue };
        let provider = Provider::new(settings.clone(), config.vault.clone());
        let (finding, said) = match provider.reach().await {
            Ok(place) => (Finding::Fine, format!("{name}: {place} is reached; nothing was sent there")),
            Err(fault) => (unreached(&fault), format!("{name}: {}", chain(&fault))),
        };
        part.add("oauth", finding, said);
    }
}

fn unreached(fault: &token_endpoint::Fault) -> Finding {
    match fault {
        token_endpoint::Fault::Setup(_) => Finding::TlsFiles,
        token_endpoint::Fault::Discovery(discovery::Fault::NotHad(error))
        | token_endpoint::Fault::Unreached(error)
            if is_unreached(error) =>
        {
            Finding::ProviderUnreached
        }
        _ => Finding::ProviderDocument,
    }
}

/// Whatever else goes wrong is of somebody who was reached.
fn is_unreached(error: &https::Error) -> bool {
    use https::Error;
    match error {
        Error::ConnectTimeout(_) | Error::Connect(_) | Error::Untrusted(_) => true,
        Error::AnswerTimeout(_)
        | Error::Http(_)
        | Error::Request(_)
        | Error::Encoding
        | Error::TooLarge(_) => false,
    }
}

impl Secret {
    fn told(&self, vault_closed: bool) -> (Finding, String) {
        let Self { key, reference, read, .. } = self;
        let (finding, said) = match read {
            Ok(()) => (Finding::Fine, reference.to_string()),
            Err(Fault::Unread(error)) => secrets::unread(reference, error, vault_closed),
            Err(unfit @ Fault::Unfit(_)) => (Finding::SecretUnfit, chain(unfit)),
        };
        (finding, format!("{key}: {said}"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_provider_that_answers_is_not_called_unreached() {
        use https::Error;
        let found = |error| {
            let fault = token_endpoint::Fault::Discovery(discovery::Fault::NotHad(error));
            unreached(&fault)
        };
        let second = Duration::from_secs(1);
        for nobody in [
            Error::ConnectTimeout(second),
            Error::Connect(std::io::ErrorKind::ConnectionRefused.into()),
            Error::Untrusted(rustls::Error::NoCertificatesPresented),
        ] {
            assert_eq!(found(nobody), Finding::ProviderUnreached);
        }
        for somebody in [Error::TooLarge(70_000), Error::Encoding, Error::AnswerTimeout(second)] {
            assert_eq!(found(somebody), Finding::ProviderDocument);
        }
        let untrusted = Error::Untrusted(rustls::Error::NoCertificatesPresented);
        assert_eq!(unreached(&token_endpoint::Fault::from(untrusted)), Finding::ProviderUnreached);
    }
}
