//! Whether a host is who it should be: the usual verification, and behind it pins.
//!
//! In: a chain that a host shows. Out: yes or no, and the chain, where somebody wants to see it, also one that does not
//! verify: to say who issued it. Of pins, what counts is a key of the verified path: a certificate that is merely sent
//! along, which anybody can do with anybody's, proves nothing. The path is had from the same library that verifies.
//!
//! What must never happen: something passes here that the usual verification refuses.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath, spki_for_anchor};

use crate::config::Pin;

/// The usual verification, then pins, if there are any.
#[derive(Debug)]
pub(crate) struct Verifier {
    usual: Arc<WebPkiServerVerifier>,
    roots: Arc<RootCertStore>,
    pins: Box<[Pin]>,
    /// What was shown last, where somebody wants to see it.
    shown: Option<Mutex<Vec<CertificateDer<'static>>>>,
}

/// No key of the verified chain is pinned.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("no key of its verified chain is among `pins`; its own is {shown}")]
pub(crate) struct NotPinned {
    /// The host's own.
    pub(crate) shown: Pin,
}

impl Verifier {
    /// # Errors
    /// When there are no roots to verify with.
    pub(crate) fn new(roots: RootCertStore, pins: &[Pin]) -> Result<Self, Error> {
        let roots = Arc::new(roots);
        let usual =
            WebPkiServerVerifier::builder_with_provider(roots.clone(), crate::tls::provider()).build();
        let usual = usual.map_err(|error| Error::General(error.to_string()))?;
        Ok(Self { usual, roots, pins: pins.into(), shown: None })
    }

    /// The same, which keeps what it is shown.
    pub(crate) fn watching(self) -> Self {
        Self { shown: Some(Mutex::default()), ..self }
    }

    /// The chain that was shown last, the host's own certificate first; empty where none is kept.
    pub(crate) fn shown(&self) -> Vec<CertificateDer<'static>> {
        let shown = self.shown.as_ref();
        shown.map(|shown| shown.lock().unwrap_or_else(PoisonError::into_inner).clone()).unwrap_or_default()
    }

    fn note(&self, own: &CertificateDer<'_>, others: &[CertificateDer<'_>]) {
        let Some(shown) = &self.shown else { return };
        let chain = [own].into_iter().chain(others).map(|one| one.clone().into_owned()).collect();
        *shown.lock().unwrap_or_else(PoisonError::into_inner) = chain;
    }

    fn check_pins(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        if self.pins.is_empty() {
            return Ok(());
        }
        let own = EndEntityCert::try_from(own).map_err(|_| CertificateError::BadEncoding)?;
        let key = own.subject_public_key_info();
        let is_in = |path: &VerifiedPath<'_>| {
            let between = path.intermediate_certificates().map(|one| one.subject_public_key_info());
            let mut keys = [key.clone(), spki_for_anchor(path.anchor())].into_iter().chain(between);
            // Of several paths that verify, the one with a pinned key.
            match keys.any(|key| self.pins.contains(&Pin::of(&key))) {
                true => Ok(()),
                false => Err(webpki::Error::UnknownIssuer),
            }
        };
        let algorithms = crate::tls::provider().signature_verification_algorithms.all;
        let (roots, usage) = (&self.roots.roots, KeyUsage::server_auth());
        match own.verify_for_usage(algorithms, roots, others, now, usage, None, Some(&is_in)) {
            Ok(_) => Ok(()),
            Err(_) => {
                let refused = NotPinned { shown: Pin::of(&key) };
                Err(CertificateError::Other(OtherError(Arc::new(refused))).into())
            }
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.note(own, others);
        let verified = self.usual.verify_server_cert(own, others, name, ocsp_response, now)?;
        self.check_pins(own, others, now)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls12_signature(message, own, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls13_signature(message, own, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        stand_in::certificate::{Authority, Validity},
        tls,
    };

    #[test]
    fn pins_are_asked_after_the_usual_verification_and_what_is_shown_is_kept_in_any_case() {
        let authority = Authority::new().unwrap();
        let host = authority.issue(&["mx.test"], Validity::Valid).unwrap();
        let file = Path::new("f");
        let chain = tls::certificates(file, host.pem().as_bytes()).unwrap();
        let (own, others) = chain.split_first().unwrap();
        let right = Pin::of(&EndEntityCert::try_from(own).unwrap().subject_public_key_info());
        let verify = |pins: &[Pin], name: &'static str| {
            let roots = tls::roots(Some((file, authority.pem().as_bytes()))).unwrap();
            let verifier = Verifier::new(roots, pins).unwrap().watching();
            let name = ServerName::try_from(name).unwrap();
            let verified = verifier.verify_server_cert(own, others, &name, &[], UnixTime::now());
            assert_eq!(verifier.shown(), chain);
            verified.map(drop)
        };
        assert_eq!(verify(&[], "mx.test"), Ok(()));
        assert_eq!(verify(&[right], "mx.test"), Ok(()));
        let refused = verify(&[Pin::of(b"another")], "mx.test").unwrap_err().to_string();
        assert!(refused.contains(&right.to_string()), "{refused}");
        // The right key under another name.
        for pins in [&[][..], &[right]] {
            let refused = verify(pins, "elsewhere.test");
            let reason = CertificateError::NotValidForNameContext {
                expected: ServerName::try_from("elsewhere.test").unwrap(),
                presented: vec!["DnsName(\"mx.test\")".to_owned()],
            };
            assert_eq!(refused, Err(Error::InvalidCertificate(reason)));
        }
    }
}
