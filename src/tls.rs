//! What all TLS here has in common: one provider, two versions, certificates and keys from PEM files, and why it cannot
//! be set up.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use rustls::{
    ClientConfig, ConfigBuilder, RootCertStore, SupportedProtocolVersion, WantsVerifier,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version::{TLS12, TLS13},
};

use crate::{config::ListenerTls, credential};

/// TLS 1.3 and 1.2, never less.
pub(crate) const VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// aws-lc-rs, the only provider: it brings post-quantum key exchange and has a FIPS build.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));
    PROVIDER.clone()
}

/// A client's side, whose verification is still to be said.
pub(crate) fn client() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, TlsFault> {
    Ok(ClientConfig::builder_with_provider(provider()).with_protocol_versions(VERSIONS)?)
}

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsFault {
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file holds no usable PEM of the kind that is needed.
    #[error("{path} holds no usable {what} in PEM form")]
    Pem {
        /// The file.
        path: PathBuf,
        /// Certificate or private key.
        what: &'static str,
    },
    /// Certificate and key do not fit, or a root is not acceptable.
    #[error("{}{source}", Place(.path.as_deref()))]
    Rejected {
        /// The file, where it is one file's fault.
        path: Option<PathBuf>,
        /// Why.
        source: rustls::Error,
    },
    /// The system has no roots.
    #[error("the system has no trusted roots; install ca-certificates or name a ca_file")]
    NoRoots,
    /// The host is no name that a certificate can be checked for.
    #[error("{0} is no name that a certificate can be checked for")]
    ServerName(String),
    /// The proxy's password cannot be sent.
    #[error("the proxy's password {0}")]
    Password(#[from] credential::Unusable),
}

impl TlsFault {
    /// What `path` holds was not taken.
    pub(crate) fn rejected(path: &Path) -> impl Fn(rustls::Error) -> Self {
        move |source| Self::Rejected { path: Some(path.to_owned()), source }
    }
}

/// No one file's fault.
impl From<rustls::Error> for TlsFault {
    fn from(source: rustls::Error) -> Self {
        Self::Rejected { path: None, source }
    }
}

/// Before a reason: the file that it is about, if it is about one.
struct Place<'p>(Option<&'p Path>);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |path| write!(f, "{}: ", path.display()))
    }
}

/// The certificates of a PEM file, given with its text, or those that the system trusts.
pub(crate) fn roots(authority: Option<(&Path, &[u8])>) -> Result<RootCertStore, TlsFault> {
    let mut roots = RootCertStore::empty();
    match authority {
        Some((path, pem)) => {
            for certificate in certificates(path, pem)? {
                roots.add(certificate).map_err(TlsFault::rejected(path))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(TlsFault::NoRoots);
            }
        }
    }
    Ok(roots)
}

/// Reads a PEM file, which is small.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, TlsFault> {
    std::fs::read(path).map_err(|source| TlsFault::Read { path: path.to_owned(), source })
}

/// Every certificate in `pem`, at least one.
pub(crate) fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    all.ok().filter(|all| !all.is_empty()).ok_or(TlsFault::Pem { path: path.to_owned(), what: "certificate" })
}

/// The first private key in `pem`.
pub(crate) fn private_key(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsFault> {
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|_| TlsFault::Pem { path: path.to_owned(), what: "private key" })
}

/// Reads a certificate chain and its key.
pub(crate) fn chain_and_key(
    files: &ListenerTls,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsFault> {
    let chain = certificates(&files.certificate, &read(&files.certificate)?)?;
    Ok((chain, private_key(&files.key, &read(&files.key)?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_names_its_file_if_it_has_one() {
        let why = || rustls::Error::General("why".into());
        let of_a_file = TlsFault::rejected(Path::new("/a/b.pem"))(why());
        assert_eq!(of_a_file.to_string(), "/a/b.pem: unexpected error: why");
        assert_eq!(TlsFault::from(why()).to_string(), "unexpected error: why");
    }
}
