//! Header fields on their way through: what is left behind, what is added.
//!
//! To the upstream goes what the caller sent, less: hop-by-hop fields and all that `Connection` names
//! (RFC 9110, 7.6.1), every credential of any kind, cookies, fields that override the method, the path or
//! the host, and what tells about the inside of the company (`Forwarded`, `X-Forwarded-*`, `Via`,
//! `Referer`, `Origin`). Look-alikes with an underscore for a hyphen go too, since some servers take
//! the one for the other. Back to the caller goes what the upstream sent, less: hop-by-hop fields,
//! cookies, CORS (a browser must not be told that it may), and advice to go elsewhere.

use http::{
    HeaderMap, HeaderName, HeaderValue, Uri,
    header::{
        ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_LOCATION, HOST, LOCATION,
        TE, TRANSFER_ENCODING, VIA,
    },
};

use crate::{
    mx::media::{self, Accept},
    policy::Grant,
    snapshot::Environment,
};

const ACCEPT_VERSION: HeaderName = HeaderName::from_static("accept-version");

/// Makes the caller's header section fit for the upstream. The credential is not in it yet.
pub(crate) fn outbound(headers: &mut HeaderMap, environment: &Environment, grant: &Grant) {
    let trailers = accepts_trailers(headers);
    remove_hop_by_hop(headers);
    remove_where(headers, stays_here);
    headers.insert(HOST, environment.dial.authority.clone());
    headers.insert(VIA, HeaderValue::from_static("1.1 mxgate"));
    // So that the secret that was sent can be found in an answer that echoes it.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    if let Some(operation) = grant.operation() {
        if !headers.contains_key(ACCEPT_VERSION) {
            headers.insert(ACCEPT_VERSION, environment.accept_version.clone());
        }
        let version =
            headers.get(ACCEPT_VERSION).and_then(|version| version.to_str().ok()).unwrap_or_default();
        if let Accept::Replace(value) = media::accept(operation, version, headers.get(ACCEPT)) {
            headers.insert(ACCEPT, value.clone());
        }
    }
}

/// Makes the upstream's header section fit for the caller.
pub(crate) fn inbound(headers: &mut HeaderMap, environment: &Environment) {
    remove_hop_by_hop(headers);
    remove_where(headers, stays_there);
    for name in [LOCATION, CONTENT_LOCATION] {
        if let Some(local) = headers.get(&name).and_then(|value| on_listener(value, environment)) {
            headers.insert(name, local);
        }
    }
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

/// Fields of a request that do not leave the gateway.
fn stays_here(name: &str) -> bool {
    match name {
        "authorization" | "proxy-authorization" | "cookie" | "cookie2" => true,
        "mx-api-key" | "mx-client-id" | "api-key" | "x-api-key" | "apikey" | "x-auth-token"
        | "x-access-token" | "md-api-key" | "md-session-token" | "mx-session-token" | "client-id"
        | "client-secret" => true,
        "host" | "expect" | "max-forwards" | "range" | "if-range" | "http2-settings" | "alt-used" => true,
        "x-http-method-override" | "x-http-method" | "x-method-override" => true,
        "x-original-url"
        | "x-original-uri"
        | "x-original-host"
        | "x-rewrite-url"
        | "x-host"
        | "x-real-ip"
        | "x-client-ip"
        | "true-client-ip"
        | "cf-connecting-ip"
        | "x-cluster-client-ip" => true,
        "forwarded" | "via" | "referer" | "origin" => true,
        _ => {
            name.starts_with("x-forwarded")
                || name.starts_with("sec-")
                || name.starts_with("x-mxgate-")
                || name.starts_with("access-control-")
                || (name.contains('_') && is_look_alike(&name.replace('_', "-")))
        }
    }
}

/// Some servers take `Content_Length` for `Content-Length`: what would be removed, or frames a message, is
/// not passed on under another spelling.
fn is_look_alike(name: &str) -> bool {
    stays_here(name) || hop_by_hop(name) || matches!(name, "content-length" | "trailer")
}

/// Fields of an answer that do not reach the caller.
fn stays_there(name: &str) -> bool {
    matches!(
        name,
        "set-cookie" | "set-cookie2" | "alt-svc" | "clear-site-data" | "refresh" | "timing-allow-origin"
    ) || name.starts_with("access-control-")
        || name.starts_with("x-mxgate-")
}

/// RFC 9110, 7.6.1. `Trailer` stays: trailers are passed on.
fn hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authentication-info"
            | "te"
            | "transfer-encoding"
            | "upgrade"
    )
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            // Framing is hyper's; without it a body would be sent that nobody announced.
            .filter(|name| *name != CONTENT_LENGTH && *name != TRANSFER_ENCODING)
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    remove_where(headers, hop_by_hop);
}

fn remove_where(headers: &mut HeaderMap, is_removed: impl Fn(&str) -> bool) {
    while let Some(name) = headers.keys().find(|name| is_removed(name.as_str())).cloned() {
        headers.remove(name);
    }
}

fn accepts_trailers(headers: &HeaderMap) -> bool {
    headers
        .get_all(TE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
}

/// A place on the upstream's host, as the caller can reach it: the same path on the listener.
fn on_listener(value: &HeaderValue, environment: &Environment) -> Option<HeaderValue> {
    let uri: Uri = value.to_str().ok()?.parse().ok()?;
    let host = uri.host()?;
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
    let here = host.eq_ignore_ascii_case(&environment.dial.host) && port == environment.dial.port;
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    if here { HeaderValue::from_str(path).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_credential_and_override_stays_here() {
        for name in [
            "authorization",
            "proxy-authorization",
            "cookie",
            "mx-api-key",
            "mx_api_key",
            "mx_client-id",
            "content_length",
            "transfer_encoding",
            "x_api_key",
            "x-http-method-override",
            "x_original_url",
            "x-forwarded-host",
            "x-forwarded-for",
            "forwarded",
            "sec-fetch-site",
            "origin",
        ] {
            assert!(stays_here(name), "{name}");
        }
        for name in [
            "accept",
            "accept-language",
            "content-type",
            "x-callback-payload",
            "mx-3dx-token",
            "user-agent",
            "x_trace",
        ] {
            assert!(!stays_here(name), "{name}");
        }
    }

    #[test]
    fn what_connection_names_is_removed_but_never_the_framing() {
        let mut headers = HeaderMap::new();
        headers.append(CONNECTION, HeaderValue::from_static("x-one, Content-Length"));
        headers.append(CONNECTION, HeaderValue::from_static("x-two"));
        for name in ["x-one", "x-two", "x-three", "content-length", "keep-alive"] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        remove_hop_by_hop(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-length", "x-three"]);
    }

    #[test]
    fn every_value_of_a_removed_field_goes() {
        let mut headers = HeaderMap::new();
        headers.append("authorization", HeaderValue::from_static("Basic a"));
        headers.append("authorization", HeaderValue::from_static("Bearer b"));
        remove_where(&mut headers, stays_here);
        assert!(headers.is_empty());
    }
}
