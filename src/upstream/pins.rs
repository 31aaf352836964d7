//! Public keys that a host must show, besides all that is verified in any case.
//!
//! In: a chain that the usual verification has taken. Out: the same, or no. What counts is a key of the verified path:
//! a certificate that is merely sent along, which anybody can do with anybody's, proves nothing. The path is had from
//! the same library that verifies.
//!
//! What must never happen: something passes here that the usual verification refuses.

use std::sync::Arc;

use rustls::{
    CertificateError, Error, OtherError, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath, spki_for_anchor};

use crate::config::Pin;

/// The usual verification, and then pins.
#[derive(Debug)]
struct Pinned {
    usual: Arc<WebPkiServerVerifier>,
    roots: Arc<RootCertStore>,
    pins: Vec<Pin>,
}

/// No key of the verified chain is pinned.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("no key of its verified chain is among `pins`; its own is {shown}")]
pub(crate) struct NotPinned {
    /// The host's own.
    pub(crate) shown: Pin,
}

/// The usual verification by `roots`, and behind it `pins`, if there are any.
///
/// # Errors
/// When there are no roots to verify with.
pub(crate) fn verifier(roots: RootCertStore, pins: &[Pin]) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    let roots = Arc::new(roots);
    let usual = WebPkiServerVerifier::builder_with_provider(roots.clone(), crate::tls::provider()).build();
    let usual = usual.map_err(|error| Error::General(error.to_string()))?;
    Ok(match pins {
        [] => usual,
        pins => Arc::new(Pinned { usual, roots, pins: pins.to_vec() }),
    })
}

impl Pinned {
    /// Whether one of the pins is in a verified path.
    fn is_pinned(&self, own: &CertificateDer<'_>, others: &[CertificateDer<'_>], now: UnixTime) -> bool {
        let Ok(own) = EndEntityCert::try_from(own) else { return false };
        let is_in = |path: &VerifiedPath<'_>| {
            let between = path.intermediate_certificates().map(|one| one.subject_public_key_info());
            let mut keys =
                [own.subject_public_key_info(), spki_for_anchor(path.anchor())].into_iter().chain(between);
            // Of several paths that verify, the one with a pinned key.
            match keys.any(|key| self.pins.contains(&Pin::of(&key))) {
                true => Ok(()),
                false => Err(webpki::Error::UnknownIssuer),
            }
        };
        let algorithms = crate::tls::provider().signature_verification_algorithms.all;
        let (roots, usage) = (&self.roots.roots, KeyUsage::server_auth());
        own.verify_for_usage(algorithms, roots, others, now, usage, None, Some(&is_in)).is_ok()
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.usual.verify_server_cert(own, others, name, ocsp_response, now)?;
        if self.is_pinned(own, others, now) {
            return Ok(verified);
        }
        let own = EndEntityCert::try_from(own).map_err(|_| CertificateError::BadEncoding)?;
        let refused = NotPinned { shown: Pin::of(&own.subject_public_key_info()) };
        Err(CertificateError::Other(OtherError(Arc::new(refused))).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls12_signature(message, own, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls13_signature(message, own, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}
