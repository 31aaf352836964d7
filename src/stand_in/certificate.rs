//! Throw-away certificates: an authority of the stand-in's own, and what it signs.
//!
//! Clients verify as they would with MX; only their root differs. The authority's key lives in memory and is gone
//! with the process.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};

use crate::mx;

/// The names that a stand-in's certificate has by default.
pub const NAMES: [&str; 5] = ["localhost", "127.0.0.1", "::1", mx::PRODUCTION_HOST, mx::SANDBOX_HOST];

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key or certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// rustls does not take what was made or given.
    #[error("cannot set TLS up: {0}")]
    Tls(#[from] rustls::Error),
    /// The authority for client certificates is no PEM certificate.
    #[error("the authority for client certificates is not usable: {0}")]
    ClientAuthority(String),
}

/// Signs certificates that live as long as the test.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A chain and its key.
#[derive(Clone)]
pub struct ServerCertificate {
    chain: Vec<CertificateDer<'static>>,
    key: Arc<PrivateKeyDer<'static>>,
    pem: String,
    key_pem: String,
    authority_pem: String,
}

/// When a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// From long ago to the far future.
    Valid,
    /// Until the end of 2020.
    Expired,
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn new() -> Result<Self, Error> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "mxgate stand-in authority");
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// The root that clients must trust, as PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for `names` (host names or addresses), for a server or a client.
    ///
    /// # Errors
    /// When a name is none.
    pub fn issue(&self, names: &[&str], validity: Validity) -> Result<ServerCertificate, Error> {
        let mut params = CertificateParams::new(names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>())?;
        params.distinguished_name.push(DnType::CommonName, "mxgate stand-in");
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        if validity == Validity::Expired {
            (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2020, 12, 31));
        }
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(ServerCertificate {
            chain: vec![certificate.der().clone()],
            pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            key: Arc::new(PrivatePkcs8KeyDer::from(key.serialize_der()).into()),
            authority_pem: self.pem.clone(),
        })
    }
}

impl ServerCertificate {
    /// One for [`NAMES`], from a new authority.
    ///
    /// # Errors
    /// As [`Authority::new`].
    pub fn for_default_names() -> Result<Self, Error> {
        Authority::new()?.issue(&NAMES, Validity::Valid)
    }

    /// The chain, leaf first, as PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The private key, as PEM.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// The root that verifies it, as PEM.
    #[must_use]
    pub fn authority_pem(&self) -> &str {
        &self.authority_pem
    }
}

/// The server's side of TLS: 1.2 and 1.3, HTTP/1.1 only.
pub(super) fn server_config(
    certificate: &ServerCertificate,
    client_authority_pem: Option<&str>,
) -> Result<Arc<ServerConfig>, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = match client_authority_pem {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let unusable = |fault: &dyn std::fmt::Display| Error::ClientAuthority(fault.to_string());
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| unusable(&e))?)?;
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|e| unusable(&e))?)
        }
    };
    let mut config = builder.with_single_cert(certificate.chain.clone(), certificate.key.clone_key())?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
