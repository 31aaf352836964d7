//! Whether a request carries the right credential, and only that one.
//!
//! Stricter than MX, on purpose: a gateway that lets a caller's credential through beside its own must fail its
//! tests. So every place where a credential could be is looked at, whatever the environment accepts, and
//! more than one is as wrong as none.

use std::{borrow::Cow, time::SystemTime};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION};
use percent_encoding::percent_decode_str;

use super::{
    Served,
    options::{Environment, Scheme},
};
use crate::mx::catalogue::OperationCredential;

static CLIENT_ID: HeaderName = HeaderName::from_static("mx-client-id");
static API_KEY: HeaderName = HeaderName::from_static("mx-api-key");

/// Headers that carry a credential at some MX host, or at a proxy.
static CREDENTIAL_HEADERS: [HeaderName; 5] = [
    AUTHORIZATION,
    HeaderName::from_static("mx-api-key"),
    HeaderName::from_static("md-api-key"),
    HeaderName::from_static("md-session-token"),
    HeaderName::from_static("proxy-authorization"),
];

/// Query parameters that carry one.
const API_KEY_NAME: &str = "api_key";
const CLIENT_ID_NAME: &str = "client_id";

/// What a request shows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown<'r> {
    pub(super) headers: &'r HeaderMap,
    pub(super) query: Option<&'r str>,
}

/// One credential that was shown.
enum One<'r> {
    Header(&'r HeaderName, &'r HeaderValue),
    Query(Cow<'r, str>),
}

/// Whether `shown` is right for `environment` and an operation that takes `credential`.
pub(super) fn accepted(
    served: &Served,
    now: SystemTime,
    credential: OperationCredential,
    shown: Shown<'_>,
) -> bool {
    let environment = &served.options;
    let headers = credential_headers(environment)
        .flat_map(|name| shown.headers.get_all(name).iter().map(move |value| One::Header(name, value)));
    let query = shown.parameters(|name| is_key_name(environment, name)).map(One::Query);
    let all: Vec<One<'_>> = headers.chain(query).collect();
    let [one] = all.as_slice() else { return false };

    let client_ids: Vec<Cow<'_, str>> = shown.client_ids(environment).collect();
    let with_client_id = client_ids == [environment.client_id.as_str()];
    let alone = client_ids.is_empty();
    let is_key = |key: &[u8]| served.keys.accept(key, now);

    if let Some(token) = one.authorization("Bearer ") {
        let allowed =
            credential == OperationCredential::Bearer || environment.schemes.contains(&Scheme::Bearer);
        let is_own = environment.bearer_tokens.iter().any(|own| own.as_bytes() == token);
        return allowed && alone && (is_own || served.tokens.accept(token, now));
    }
    if credential == OperationCredential::Bearer {
        return false;
    }
    environment.schemes.iter().any(|scheme| match (scheme, one) {
        (Scheme::Basic, one) => {
            alone && one.authorization("Basic ").is_some_and(|pair| is_pair(environment, pair, is_key))
        }
        (Scheme::ApiKey, one) => with_client_id && one.authorization("API_KEY ").is_some_and(is_key),
        (Scheme::MxApiKey, One::Header(name, value)) => {
            with_client_id && **name == API_KEY && is_key(value.as_bytes())
        }
        (Scheme::Query { api_key_name, client_id_name }, One::Query(key)) => {
            let in_query = |wanted: &str| shown.parameters(|name| name == wanted).count();
            with_client_id
                && in_query(api_key_name) == 1
                && in_query(client_id_name) == 1
                && is_key(key.as_bytes())
        }
        (Scheme::Header { name, value }, One::Header(shown_name, shown_value)) => {
            alone && name == *shown_name && value == *shown_value
        }
        _ => false,
    })
}

/// The headers that hold a credential at `environment` or anywhere else.
pub(super) fn credential_headers(environment: &Environment) -> impl Iterator<Item = &HeaderName> {
    let own = environment.schemes.iter().filter_map(|scheme| match scheme {
        Scheme::Header { name, .. } if !CREDENTIAL_HEADERS.contains(name) => Some(name),
        _ => None,
    });
    CREDENTIAL_HEADERS.iter().chain(own)
}

/// Whether a query parameter of this (decoded) name holds a key.
pub(super) fn is_key_name(environment: &Environment, name: &str) -> bool {
    name == API_KEY_NAME || query_names(environment).any(|(key, _)| key == name)
}

fn is_client_id_name(environment: &Environment, name: &str) -> bool {
    name == CLIENT_ID_NAME || query_names(environment).any(|(_, client_id)| client_id == name)
}

fn query_names(environment: &Environment) -> impl Iterator<Item = (&str, &str)> {
    environment.schemes.iter().filter_map(|scheme| match scheme {
        Scheme::Query { api_key_name, client_id_name } => {
            Some((api_key_name.as_str(), client_id_name.as_str()))
        }
        _ => None,
    })
}

/// Whether `pair` is standard Base64 of `client_id:key`.
fn is_pair(environment: &Environment, pair: &[u8], is_key: impl Fn(&[u8]) -> bool) -> bool {
    let Ok(pair) = BASE64_STANDARD.decode(pair) else { return false };
    pair.strip_prefix(environment.client_id.as_bytes())
        .and_then(|rest| rest.strip_prefix(b":"))
        .is_some_and(is_key)
}

impl One<'_> {
    /// What follows `scheme` in `Authorization`.
    fn authorization(&self, scheme: &str) -> Option<&[u8]> {
        match self {
            Self::Header(name, value) if **name == AUTHORIZATION => {
                value.as_bytes().strip_prefix(scheme.as_bytes())
            }
            _ => None,
        }
    }
}

impl<'r> Shown<'r> {
    /// The decoded values of the query parameters whose decoded name is wanted.
    fn parameters(self, wanted: impl Fn(&str) -> bool) -> impl Iterator<Item = Cow<'r, str>> {
        self.query.into_iter().flat_map(|query| query.split('&')).filter_map(move |pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = percent_decode_str(name).decode_utf8_lossy();
            wanted(&name).then(|| percent_decode_str(value).decode_utf8_lossy())
        })
    }

    fn client_ids(self, environment: &Environment) -> impl Iterator<Item = Cow<'r, str>> {
        let headers = self.headers.get_all(&CLIENT_ID).iter();
        headers
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .chain(self.parameters(move |name| is_client_id_name(environment, name)))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{keys::Keys, tokens::Tokens},
        *,
    };

    fn environment(schemes: &[Scheme]) -> Environment {
        Environment {
            schemes: schemes.to_vec(),
            bearer_tokens: vec!["token-1".to_owned()],
            ..Environment::new("client", "key-1")
        }
    }

    fn is_accepted(schemes: &[Scheme], bearer: bool, headers: &[(&'static str, &str)], query: &str) -> bool {
        let options = environment(schemes);
        let (keys, tokens) = (Keys::new(options.api_keys.clone()), Tokens::default());
        let served = Served { index: 0, options, keys, tokens };
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let credential = if bearer { OperationCredential::Bearer } else { OperationCredential::Environment };
        let shown = Shown { headers: &map, query: (!query.is_empty()).then_some(query) };
        accepted(&served, SystemTime::UNIX_EPOCH, credential, shown)
    }

    const BASIC: (&str, &str) = ("authorization", "Basic Y2xpZW50OmtleS0x"); // client:key-1
    const ID: (&str, &str) = ("mx-client-id", "client");
    const API: (&str, &str) = ("authorization", "API_KEY key-1");
    const MX: (&str, &str) = ("mx-api-key", "key-1");
    const BEARER: (&str, &str) = ("authorization", "Bearer token-1");

    fn query() -> Scheme {
        Scheme::Query { client_id_name: "c".to_owned(), api_key_name: "k".to_owned() }
    }

    #[test]
    fn each_scheme_takes_its_own_form_and_no_other() {
        let header = Scheme::Header {
            name: HeaderName::from_static("md-api-key"),
            value: HeaderValue::from_static("session"),
        };
        let schemes = [Scheme::Basic, Scheme::ApiKey, Scheme::MxApiKey, query(), Scheme::Bearer, header];
        let forms: [(&[(&str, &str)], &str); 6] = [
            (&[BASIC], ""),
            (&[API, ID], ""),
            (&[MX, ID], ""),
            (&[], "page=1&c=client&k=key%2D1"),
            (&[BEARER], ""),
            (&[("md-api-key", "session")], ""),
        ];
        for (scheme, right) in schemes.iter().zip(0..) {
            for (place, (headers, query)) in forms.iter().enumerate() {
                let scheme = std::slice::from_ref(scheme);
                assert_eq!(
                    is_accepted(scheme, false, headers, query),
                    place == right,
                    "{scheme:?} {headers:?}"
                );
            }
        }
    }

    #[test]
    fn wrong_values_and_wrong_forms_are_refused() {
        let all = [Scheme::Basic, Scheme::ApiKey, Scheme::MxApiKey, query()];
        for (headers, query) in [
            (vec![], ""),
            (vec![("authorization", "Basic Y2xpZW50OmtleS0y")], ""), // client:key-2
            (vec![("authorization", "Basic b3RoZXI6a2V5LTE=")], ""), // other:key-1
            (vec![("authorization", "Basic Og==")], ""),
            (vec![("authorization", "Basic Y2xpZW50")], ""),
            (vec![("authorization", "basic Y2xpZW50OmtleS0x")], ""),
            (vec![("authorization", "Basic %%%")], ""),
            (vec![API], ""),
            (vec![API, ("mx-client-id", "other")], ""),
            (vec![MX], ""),
            (vec![("mx-api-key", "key-2"), ID], ""),
            (vec![], "k=key-1"),
            (vec![], "c=client&k=key-2"),
            (vec![ID], "k=key-1"),
        ] {
            assert!(!is_accepted(&all, false, &headers, query), "{headers:?} {query}");
        }
    }

    #[test]
    fn a_second_credential_of_any_kind_is_refused() {
        let basic = [Scheme::Basic];
        assert!(is_accepted(&basic, false, &[BASIC], "page=2"));
        for (headers, query) in [
            (vec![BASIC, BASIC], ""),
            (vec![BASIC, BEARER], ""),
            (vec![BASIC, MX], ""),
            (vec![BASIC, ID], ""),
            (vec![BASIC, ("md-api-key", "x")], ""),
            (vec![BASIC, ("proxy-authorization", "x")], ""),
            (vec![BASIC], "api_key=x"),
            (vec![BASIC], "%61pi_key"),
            (vec![BASIC], "client_id=client"),
        ] {
            assert!(!is_accepted(&basic, false, &headers, query), "{headers:?} {query}");
        }
        assert!(!is_accepted(&[query()], false, &[], "c=client&k=key-1&k=key-1"));
        assert!(!is_accepted(&[query()], false, &[], "c=client&c=client&k=key-1"));
        assert!(!is_accepted(&[query()], false, &[], "c=client&k=key-1&api_key=key-1"));
    }

    #[test]
    fn bearer_operations_take_a_bearer_token_and_nothing_else() {
        assert!(is_accepted(&[Scheme::Basic], true, &[BEARER], ""));
        assert!(!is_accepted(&[Scheme::Basic], true, &[BASIC], ""));
        assert!(!is_accepted(&[Scheme::Basic], true, &[("authorization", "Bearer token-2")], ""));
        assert!(!is_accepted(&[Scheme::Basic], true, &[BEARER, ID], ""));
        assert!(!is_accepted(&[Scheme::Basic], false, &[BEARER], ""));
    }
}
