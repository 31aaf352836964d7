//! A chain of certificates in words. What is in it is a stranger's: it is shown, and nothing is decided by it.

use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use x509_parser::{asn1_rs::FromDer as _, certificate::X509Certificate, x509::X509Name};

/// Characters of a name that are shown.
const NAME_CHARS_MAX: usize = 120;

/// A host's own certificate.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) issuer: String,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

/// What the first certificate says; `None` when it cannot be read.
pub(super) fn leaf(chain: &[CertificateDer<'_>]) -> Option<Leaf> {
    let (_, certificate) = X509Certificate::from_der(chain.first()?).ok()?;
    let validity = certificate.validity();
    Some(Leaf {
        issuer: shown(certificate.issuer()),
        not_before: time(validity.not_before.timestamp()),
        not_after: time(validity.not_after.timestamp()),
    })
}

/// `CN=host, issued by CN=between, issued by CN=root`.
pub(super) fn path(chain: &[CertificateDer<'_>]) -> String {
    let read = |one: &CertificateDer<'_>| {
        let (_, certificate) = X509Certificate::from_der(one).ok()?;
        Some((shown(certificate.subject()), shown(certificate.issuer())))
    };
    let names: Vec<(String, String)> = chain.iter().filter_map(read).collect();
    let subjects = names.iter().map(|(subject, _)| subject.as_str());
    let last = names.last().map(|(_, issuer)| issuer.as_str());
    subjects.chain(last).collect::<Vec<_>>().join(", issued by ")
}

fn shown(name: &X509Name<'_>) -> String {
    let text = name.to_string();
    match text.is_empty() {
        true => "nobody".to_owned(),
        false => text.chars().take(NAME_CHARS_MAX).collect(),
    }
}

fn time(seconds: i64) -> SystemTime {
    let ago = Duration::from_secs(seconds.unsigned_abs());
    let from = SystemTime::UNIX_EPOCH;
    let time = if seconds < 0 { from.checked_sub(ago) } else { from.checked_add(ago) };
    time.unwrap_or(from)
}
