//! The names in a client certificate, in the one form in which the configuration writes them.
//!
//! In: a leaf certificate that rustls has verified. Out: `dns:`, `uri:` and `subject:` names, compared byte for
//! byte with a caller's `tls_names`, and until when they hold.
//! What must never happen: two different names come out as one text, or a name of an unverified certificate comes
//! out at all. A subject that has no unambiguous text gives no name.

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime},
};

use x509_parser::{
    asn1_rs::{FromDer, Tag},
    certificate::X509Certificate,
    extensions::GeneralName,
    x509::{AttributeTypeAndValue, X509Name},
};

/// A certificate for more names than this is for nobody in particular.
const NAMES_MAX: usize = 64;

/// What a verified certificate says about who shows it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Names {
    /// `dns:ledger.internal`, `uri:spiffe://example/ledger`, `subject:CN=ledger,O=Example`.
    pub(crate) all: Box<[Box<str>]>,
    /// The end of its validity.
    not_after: SystemTime,
}

/// Why a certificate's names cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Unusable {
    #[error("the client's certificate could not be read")]
    Malformed,
    #[error("the client's certificate has more than {NAMES_MAX} names")]
    TooMany,
}

impl Names {
    /// Reads the leaf of a chain that has been verified.
    pub(crate) fn of(leaf: &[u8]) -> Result<Self, Unusable> {
        let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| Unusable::Malformed)?;
        let alternative = certificate.subject_alternative_name().map_err(|_| Unusable::Malformed)?;
        let alternative = alternative.iter().flat_map(|names| &names.value.general_names);
        let names = alternative.filter_map(|name| match name {
            // RFC 5280, 7.2: compared without case; the configuration has small letters only.
            GeneralName::DNSName(name) => Some(format!("dns:{}", name.to_ascii_lowercase())),
            GeneralName::URI(uri) => Some(format!("uri:{uri}")),
            _ => None,
        });
        let subject = subject(certificate.subject()).map(|subject| format!("subject:{subject}"));
        let all: Box<[Box<str>]> = names.chain(subject).map(String::into_boxed_str).collect();
        if all.len() > NAMES_MAX {
            return Err(Unusable::TooMany);
        }
        let not_after = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or_default();
        Ok(Self { all, not_after: SystemTime::UNIX_EPOCH + Duration::from_secs(not_after) })
    }

    /// Whether the certificate is still valid: a connection may outlive it.
    pub(crate) fn valid_at(&self, now: SystemTime) -> bool {
        now <= self.not_after
    }

    /// Those of a certificate that nobody has shown, for `explain`.
    pub(crate) fn presumed(names: &[String]) -> Self {
        let not_after = SystemTime::now() + Duration::from_secs(60);
        Self { all: names.iter().map(|name| name.as_str().into()).collect(), not_after }
    }

    #[cfg(test)]
    pub(crate) fn for_test(names: &[&str], not_after: SystemTime) -> Self {
        Self { all: names.iter().map(|name| (*name).into()).collect(), not_after }
    }
}

/// The kinds of attribute that have a short name (RFC 4514, 3).
const KINDS: [(&str, &str); 9] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
];

/// As RFC 4514 writes it, the last part first; `None` when it is empty or has a part that has no text there.
fn subject(name: &X509Name<'_>) -> Option<String> {
    let mut text = String::new();
    let mut parts: Vec<_> = name.iter_rdn().collect();
    parts.reverse();
    for (index, part) in parts.into_iter().enumerate() {
        for (inner, attribute) in part.iter().enumerate() {
            if inner > 0 {
                text.push('+');
            } else if index > 0 {
                text.push(',');
            }
            write_attribute(&mut text, attribute)?;
        }
    }
    Some(text).filter(|text| !text.is_empty())
}

fn write_attribute(text: &mut String, attribute: &AttributeTypeAndValue<'_>) -> Option<()> {
    let id = attribute.attr_type().to_id_string();
    let (_, kind) = KINDS.iter().find(|(known, _)| *known == id)?;
    // Other kinds of string have more than one reading.
    if !matches!(attribute.attr_value().tag(), Tag::Utf8String | Tag::PrintableString | Tag::Ia5String) {
        return None;
    }
    let value = attribute.as_str().ok().filter(|value| !value.is_empty())?;
    if value.chars().any(char::is_control) {
        return None;
    }
    // A `String` takes every write.
    let _ = write!(text, "{kind}=");
    let last = value.chars().count() - 1;
    for (at, c) in value.chars().enumerate() {
        let at_edge = (at == 0 && matches!(c, ' ' | '#')) || (at == last && c == ' ');
        if at_edge || is_special(c) {
            text.push('\\');
        }
        text.push(c);
    }
    Some(())
}

fn is_special(c: char) -> bool {
    matches!(c, '"' | '+' | ',' | ';' | '<' | '>' | '\\')
}

/// Whether `text` is what [`subject`] could write.
pub(crate) fn is_subject(text: &str) -> bool {
    let mut value_len = None;
    let mut kind = String::new();
    let mut chars = text.chars();
    let mut last_is_bare_space = false;
    while let Some(c) = chars.next() {
        match (value_len, c) {
            (None, '=') if KINDS.iter().any(|(_, known)| *known == kind) => value_len = Some(0),
            (None, c) => kind.push(c),
            (Some(len), ',' | '+') if len > 0 && !last_is_bare_space => {
                value_len = None;
                kind.clear();
            }
            (Some(len), '\\') => {
                let escaped = chars.next();
                if !escaped.is_some_and(|c| is_special(c) || c == ' ' || (len == 0 && c == '#')) {
                    return false;
                }
                value_len = Some(len + 1);
                last_is_bare_space = false;
            }
            (Some(0), ' ' | '#') => return false,
            (Some(_), c) if is_special(c) || c.is_control() => return false,
            (Some(len), c) => {
                value_len = Some(len + 1);
                last_is_bare_space = c == ' ';
            }
        }
    }
    value_len.is_some_and(|len| len > 0) && !last_is_bare_space
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn names(alternative: Vec<SanType>, subject: &[(DnType, &str)]) -> Vec<String> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.subject_alt_names = alternative;
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let names = Names::of(certificate.der()).unwrap();
        assert!(names.valid_at(SystemTime::now()));
        assert!(!names.valid_at(SystemTime::now() + Duration::from_secs(1 << 40)));
        names.all.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn every_name_comes_out_in_its_one_form() {
        let alternative = vec![
            SanType::DnsName("Ledger.Internal".try_into().unwrap()),
            SanType::URI("spiffe://example/Ledger".try_into().unwrap()),
            SanType::IpAddress("10.0.0.1".parse().unwrap()),
            SanType::Rfc822Name("a@b".try_into().unwrap()),
        ];
        let subject = [(DnType::OrganizationName, "Example, Inc."), (DnType::CommonName, "ledger")];
        let expected =
            ["dns:ledger.internal", "uri:spiffe://example/Ledger", "subject:CN=ledger,O=Example\\, Inc."];
        assert_eq!(names(alternative, &subject), expected);
        assert_eq!(names(vec![], &[]), [""; 0]);
    }

    #[test]
    fn no_two_subjects_have_one_text() {
        let one = names(vec![], &[(DnType::CommonName, "ledger,O=Example")]);
        let two = names(vec![], &[(DnType::OrganizationName, "Example"), (DnType::CommonName, "ledger")]);
        assert_eq!(
            (one[0].as_str(), two[0].as_str()),
            ("subject:CN=ledger\\,O=Example", "subject:CN=ledger,O=Example")
        );
        // What has no text of its own gives no name at all.
        for odd in [
            (DnType::CommonName, "ledger\n"),
            (DnType::CommonName, ""),
            (DnType::CustomDnType(vec![1, 2, 3, 4]), "ledger"),
        ] {
            assert_eq!(names(vec![], &[(DnType::OrganizationName, "Example"), odd]), [""; 0]);
        }
    }

    #[test]
    fn what_is_written_is_what_the_configuration_takes() {
        for value in ["ledger", " ledger ", "#1", "a+b,c;d\"e<f>g\\h", "ü", "a#b c"] {
            let written = names(vec![], &[(DnType::CommonName, value), (DnType::OrganizationName, "x")]);
            let subject = written[0].strip_prefix("subject:").unwrap();
            assert!(is_subject(subject), "{subject}");
        }
    }

    #[test]
    fn what_is_no_certificate_has_no_names() {
        assert_eq!(Names::of(b""), Err(Unusable::Malformed));
        assert_eq!(Names::of(&[0x30, 3, 2, 1, 1]), Err(Unusable::Malformed));
    }

    #[test]
    fn a_certificate_for_everybody_is_for_nobody() {
        let many = |count: usize| {
            let names = (0..count).map(|n| format!("n{n}.internal")).collect::<Vec<_>>();
            let params = CertificateParams::new(names).unwrap();
            let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            Names::of(certificate.der()).map(|names| names.all.len())
        };
        assert!(many(NAMES_MAX - 1).is_ok());
        assert_eq!(many(NAMES_MAX + 1), Err(Unusable::TooMany));
    }
}
