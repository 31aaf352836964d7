//! `tls_names`: names of a client certificate, in the one form in which `listener/names.rs` reads them.

use super::network::host_name;
use crate::{config::fault::Problem, listener::names};

/// `dns:ledger.internal`, `uri:spiffe://example/ledger` or `subject:CN=ledger,O=Example`.
pub(super) fn tls_name(text: &str) -> Result<String, Problem> {
    let form = "expected \"dns:NAME\", \"uri:URI\" or \"subject:CN=NAME,O=NAME\"";
    match text.split_once(':') {
        Some(("dns", name)) if name.parse::<std::net::IpAddr>().is_ok() => {
            Err(Problem::new("is an address, which is no DNS name").allowed(form))
        }
        Some(("dns", name)) => host_name(name).map(|name| format!("dns:{name}")),
        Some(("uri", uri)) => {
            let is_uri = uri.bytes().all(|byte| byte.is_ascii_graphic())
                && uri.split_once(':').is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty());
            if is_uri {
                Ok(text.to_owned())
            } else {
                Err(Problem::new("is no URI").allowed("expected one such as \"uri:spiffe://example/ledger\""))
            }
        }
        Some(("subject", subject)) if names::is_subject(subject) => Ok(text.to_owned()),
        Some(("subject", _)) => Err(Problem::new("is no subject in the form of RFC 4514").allowed(
            "expected what `openssl x509 -noout -subject -nameopt RFC2253` prints, such as \"subject:CN=ledger,O=Example\"",
        )),
        _ => Err(Problem::new("is no name of a certificate").allowed(form)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_a_kind_and_its_one_form() {
        for text in [
            "dns:ledger.internal",
            "uri:spiffe://example/ledger",
            "uri:urn:a",
            "subject:CN=ledger",
            "subject:CN=ledger 2,OU=A\\,B,O=Example",
        ] {
            assert_eq!(tls_name(text).ok().as_deref(), Some(text));
        }
        for text in [
            "",
            "ledger.internal",
            "dns:",
            "dns:Ledger.internal",
            "dns:*.internal",
            "dns:10.1.2.3",
            "dns:ledger.internal.",
            "uri:ledger",
            "uri:spiffe://a b",
            "uri::x",
            "subject:",
            "subject:ledger",
            "subject:CN=ledger, O=Example",
            "subject:cn=ledger",
            "subject:CN=",
            "subject:CN=a,",
            "email:a@b",
        ] {
            assert!(tls_name(text).is_err(), "{text}");
        }
    }
}
