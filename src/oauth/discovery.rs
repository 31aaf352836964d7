//! Where a provider's endpoints are: the document that it publishes (RFC 8414, OpenID Connect Discovery).
//!
//! In: the document, what it must call itself, and the hosts that may be named in it. Out: the [`Endpoints`], or why
//! not. What must never happen: a document of another issuer is believed; a secret is sent to a host that the
//! configuration does not name, or without TLS.

use std::borrow::Cow;

use http::StatusCode;
use serde::Deserialize;

use crate::{
    config::{Endpoint, Endpoints, NoEndpoint},
    https::{self, Answer},
};

/// Why a document is not believed. What it says is not repeated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("its document of discovery is not had")]
    NotHad(#[source] https::Error),
    #[error("its document of discovery is not had: the answer is {0}, and redirects are not followed")]
    Status(StatusCode),
    #[error("its document of discovery is no JSON object with issuer and token_endpoint")]
    Malformed,
    #[error(
        "its document of discovery is that of another issuer than {0}; write issuer as the provider documents it"
    )]
    Issuer(String),
    #[error("the {0} in its document of discovery {1}")]
    Endpoint(&'static str, #[source] NoEndpoint),
    #[error(
        "the {0} in its document of discovery is at a host that is not allowed; add it to the provider's hosts, if that is meant"
    )]
    Host(&'static str),
    #[error("its document of discovery says that the provider does not do PKCE with S256")]
    NoPkce,
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    issuer: Cow<'a, str>,
    #[serde(borrow)]
    token_endpoint: Cow<'a, str>,
    #[serde(borrow, default)]
    authorization_endpoint: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    revocation_endpoint: Option<Cow<'a, str>>,
    /// RFC 8414: when it is left out, the provider does no PKCE; many leave it out and do.
    #[serde(borrow, default)]
    code_challenge_methods_supported: Option<Vec<Cow<'a, str>>>,
    /// RFC 9207.
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

/// What a document says. `hosts` are in lower case.
pub(super) fn endpoints(answer: &Answer, issuer: &str, hosts: &[String]) -> Result<Endpoints, Fault> {
    if answer.status != StatusCode::OK {
        return Err(Fault::Status(answer.status));
    }
    if !answer.body.trim_ascii_start().starts_with(b"{") {
        return Err(Fault::Malformed);
    }
    let document: Document<'_> = serde_json::from_slice(&answer.body).map_err(|_| Fault::Malformed)?;
    // Byte for byte: who accepts a likeness accepts a stranger.
    if document.issuer != issuer {
        return Err(Fault::Issuer(issuer.to_owned()));
    }
    if document.code_challenge_methods_supported.is_some_and(|all| all.iter().all(|one| one != "S256")) {
        return Err(Fault::NoPkce);
    }
    let endpoint = |name: &'static str, text: &str| {
        let endpoint = Endpoint::parse(text).map_err(|fault| Fault::Endpoint(name, fault))?;
        match hosts.contains(&endpoint.host) {
            true => Ok(endpoint),
            false => Err(Fault::Host(name)),
        }
    };
    let optional = |name, text: Option<Cow<'_, str>>| text.map(|text| endpoint(name, &text)).transpose();
    Ok(Endpoints {
        issuer: Some(issuer.to_owned()),
        names_itself: document.authorization_response_iss_parameter_supported,
        authorization: optional("authorization_endpoint", document.authorization_endpoint)?,
        token: endpoint("token_endpoint", &document.token_endpoint)?,
        revocation: optional("revocation_endpoint", document.revocation_endpoint)?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ISSUER: &str = "https://id.example";

    fn of(document: &Value) -> Result<Endpoints, Fault> {
        let body = document.to_string().into_bytes().into();
        let hosts = ["id.example".to_owned(), "token.example".to_owned()];
        endpoints(&Answer { status: StatusCode::OK, body }, ISSUER, &hosts)
    }

    fn document() -> Value {
        json!({
            "issuer": ISSUER,
            "authorization_endpoint": "https://id.example/auth",
            "token_endpoint": "https://token.example/token",
            "revocation_endpoint": "https://id.example/revoke",
            "code_challenge_methods_supported": ["plain", "S256"],
            "jwks_uri": "http://anywhere.example",
        })
    }

    fn with(member: &str, value: Value) -> Value {
        let mut document = document();
        document[member] = value;
        document
    }

    #[test]
    fn a_document_says_where_the_endpoints_are() {
        let endpoints = of(&document()).unwrap();
        assert_eq!(endpoints.token.to_string(), "https://token.example/token");
        assert_eq!(endpoints.authorization.unwrap().to_string(), "https://id.example/auth");
        assert_eq!(endpoints.revocation.unwrap().to_string(), "https://id.example/revoke");
        let least = of(&json!({ "issuer": ISSUER, "token_endpoint": "https://id.example/t" })).unwrap();
        assert_eq!((least.authorization, least.revocation), (None, None));
    }

    #[test]
    fn the_issuer_is_compared_byte_for_byte() {
        for other in ["https://id.example/", "https://ID.example", "https://id.example.evil", ""] {
            assert!(matches!(of(&with("issuer", json!(other))), Err(Fault::Issuer(_))), "{other}");
        }
    }

    #[test]
    fn an_endpoint_is_at_an_allowed_host_and_over_tls() {
        for name in ["authorization_endpoint", "token_endpoint", "revocation_endpoint"] {
            for host in ["other.example", "sub.id.example", "id.example.evil"] {
                let fault = of(&with(name, json!(format!("https://{host}/a")))).unwrap_err();
                assert!(matches!(fault, Fault::Host(named) if named == name), "{fault}");
                assert!(!fault.to_string().contains(host), "{fault}");
            }
            for text in ["http://id.example/a", "https://a@id.example/", "https://id.example/#a", "/a"] {
                let fault = of(&with(name, json!(text))).unwrap_err();
                assert!(matches!(fault, Fault::Endpoint(named, _) if named == name), "{fault}");
            }
        }
    }

    #[test]
    fn what_is_no_document_is_refused() {
        for document in
            [json!({}), json!([]), json!([ISSUER, "https://id.example/t"]), json!("a"), json!(null)]
        {
            assert!(matches!(of(&document), Err(Fault::Malformed)), "{document}");
        }
        for wrong in [json!(1), json!(["https://id.example/t"]), json!(null)] {
            assert!(matches!(of(&with("token_endpoint", wrong.clone())), Err(Fault::Malformed)), "{wrong}");
        }
        let elsewhere = Answer { status: StatusCode::FOUND, body: b"{}".to_vec().into() };
        assert!(matches!(endpoints(&elsewhere, ISSUER, &[]), Err(Fault::Status(_))));
    }

    #[test]
    fn a_provider_that_says_it_does_no_s256_is_not_used() {
        for methods in [json!([]), json!(["plain"])] {
            let document = with("code_challenge_methods_supported", methods);
            assert!(matches!(of(&document), Err(Fault::NoPkce)), "{document}");
        }
    }
}
