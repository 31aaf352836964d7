//! Header fields on their way through: what is left behind, what is added.
//!
//! To the upstream goes what the caller sent, less: hop-by-hop fields and all that `Connection` names
//! (RFC 9110, 7.6.1), every credential of any kind, cookies, fields that override the method, the path or
//! the host, and what tells about the inside of the company (`Forwarded`, `X-Forwarded-*`, `Via`,
//! `Referer`, `Origin`). `Range` goes, since two parts of an answer could hide the secret that each holds
//! half of. Look-alikes with an underscore for a hyphen go too, since some servers take the one for the
//! other, and so does what `Trailer` announces under such names.
//!
//! Back to the caller goes what the upstream sent, less: hop-by-hop fields, cookies, CORS (a browser must
//! not be told that it may), and advice to go elsewhere.

use http::{
    HeaderMap, HeaderName, HeaderValue, Uri,
    header::{
        ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_LOCATION, HOST, LOCATION,
        TE, TRAILER, TRANSFER_ENCODING, VIA,
    },
    uri::Scheme,
};

use crate::{
    mx::media::{self, Accept},
    policy::Grant,
    snapshot::Environment,
};

const ACCEPT_VERSION: HeaderName = HeaderName::from_static("accept-version");

/// Makes the caller's header section fit for the upstream. The credential is not in it yet.
pub(crate) fn to_upstream(headers: &mut HeaderMap, environment: &Environment, grant: &Grant) {
    let trailers = accepts_trailers(headers);
    let is_chunked = headers.contains_key(TRANSFER_ENCODING);
    remove_connection(headers);
    remove_where(headers, |name| stays_here(name) || environment.credential.travels_under(name));
    announce(headers, |name| is_look_alike(name) || environment.credential.travels_under(name));
    headers.insert(HOST, environment.dial.authority.clone());
    headers.insert(VIA, HeaderValue::from_static("1.1 mxgate"));
    // So that the secret that was sent can be found in an answer that echoes it.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if is_chunked {
        // hyper would leave out the body of a GET of which nothing is announced.
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    if let Some(operation) = grant.operation() {
        if headers.get(ACCEPT_VERSION).is_none_or(HeaderValue::is_empty) {
            headers.insert(ACCEPT_VERSION, environment.accept_version.clone());
        }
        let version =
            headers.get(ACCEPT_VERSION).and_then(|version| version.to_str().ok()).unwrap_or_default();
        if let Accept::Replace(value) = media::accept(operation, version, headers.get_all(ACCEPT)) {
            headers.insert(ACCEPT, value.clone());
        }
    }
}

/// Makes the upstream's header section fit for the caller.
pub(crate) fn to_caller(headers: &mut HeaderMap, environment: &Environment) {
    remove_connection(headers);
    remove_where(headers, stays_there);
    announce(headers, stays_there);
    for name in [LOCATION, CONTENT_LOCATION] {
        if let Some(local) = headers.get(&name).and_then(|value| on_listener(value, environment)) {
            headers.insert(name, local);
        }
    }
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

/// Fields of a request that do not leave the gateway, besides those that are replaced in any case.
fn stays_here(name: &str) -> bool {
    hop_by_hop(name)
        || is_credential(name)
        || is_detour(name)
        || matches!(name, "expect" | "max-forwards" | "range" | "if-range" | "http2-settings" | "alt-used")
        || matches!(name, "forwarded" | "referer" | "origin")
        || name.starts_with("sec-")
        || name.starts_with("x-mxgate-")
        || name.starts_with("access-control-")
        || (name.contains('_') && is_look_alike(&name.replace('_', "-")))
}

/// What carries a credential at MX, or is known to elsewhere.
fn is_credential(name: &str) -> bool {
    matches!(name, "authorization" | "proxy-authorization" | "cookie" | "cookie2")
        || matches!(name, "mx-api-key" | "mx-client-id" | "mx-session-token")
        || name.starts_with("md-")
        || matches!(
            name,
            "api-key"
                | "apikey"
                | "x-api-key"
                | "x-auth-token"
                | "x-access-token"
                | "client-id"
                | "client-secret"
        )
}

/// What some servers take another method, path, host or caller from.
fn is_detour(name: &str) -> bool {
    matches!(name, "x-method-override" | "x-host" | "x-real-ip" | "x-client-ip" | "x-cluster-client-ip")
        || matches!(name, "true-client-ip" | "cf-connecting-ip")
        || ["x-http-method", "x-original-", "x-rewrite-", "x-forwarded"]
            .iter()
            .any(|start| name.starts_with(start))
}

/// Some servers take `Content_Length` for `Content-Length`: what is removed, is set here or describes the
/// message is not passed on under another spelling, nor behind the body.
fn is_look_alike(name: &str) -> bool {
    stays_here(name)
        || matches!(
            name,
            "accept-encoding" | "accept-version" | "content-encoding" | "content-length" | "content-type"
        )
}

/// Fields of an answer that do not reach the caller.
fn stays_there(name: &str) -> bool {
    hop_by_hop(name)
        || matches!(
            name,
            "set-cookie" | "set-cookie2" | "alt-svc" | "clear-site-data" | "refresh" | "timing-allow-origin"
        )
        || name.starts_with("access-control-")
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

/// Removes `Connection` and what it names.
fn remove_connection(headers: &mut HeaderMap) {
    if !headers.contains_key(CONNECTION) {
        return;
    }
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // Framing is hyper's; without it a body would be sent that nobody announced.
        .filter(|name| *name != CONTENT_LENGTH && *name != TRANSFER_ENCODING)
        .collect();
    headers.remove(CONNECTION);
    for name in named {
        headers.remove(name);
    }
}

/// One look at every name; without one that goes, nothing is allocated.
fn remove_where(headers: &mut HeaderMap, is_removed: impl Fn(&str) -> bool) {
    let removed: Vec<HeaderName> = headers.keys().filter(|name| is_removed(name.as_str())).cloned().collect();
    for name in removed {
        headers.remove(name);
    }
}

/// Takes names out of `Trailer`: hyper sends no trailer that is not announced there.
fn announce(headers: &mut HeaderMap, is_removed: impl Fn(&str) -> bool) {
    if !headers.contains_key(TRAILER) {
        return;
    }
    let lines = headers.get_all(TRAILER).iter().filter_map(|value| value.to_str().ok());
    let names = lines.flat_map(|line| line.split(',')).map(|name| name.trim().to_ascii_lowercase());
    let kept = names.filter(|name| !is_removed(name)).collect::<Vec<_>>().join(", ");
    headers.remove(TRAILER);
    if !kept.is_empty()
        && let Ok(kept) = HeaderValue::try_from(kept)
    {
        headers.insert(TRAILER, kept);
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
    let text = value.to_str().ok()?;
    let uri: Uri = text.parse().ok()?;
    let authority = uri.authority().filter(|_| uri.scheme() == Some(&Scheme::HTTPS))?;
    let is_here = authority.host().eq_ignore_ascii_case(&environment.dial.host)
        && authority.port_u16().unwrap_or(443) == environment.dial.port
        && !authority.as_str().contains('@');
    // Not the parsed one, which has no fragment.
    let path = text.get("https://".len() + authority.as_str().len()..).filter(|_| is_here)?;
    match path.as_bytes() {
        // By itself this would name another host (RFC 3986, 4.2), for browsers also with a backslash.
        [b'/', b'/' | b'\\', ..] => None,
        [b'/', ..] => HeaderValue::from_str(path).ok(),
        _ => HeaderValue::try_from(format!("/{path}")).ok(),
    }
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
            "x-original-method",
            "x_rewrite_whatever",
            "md-whatever",
            "accept_version",
            "keep_alive",
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
            "mx_3dx_token",
            "accept-version",
            "content-type",
        ] {
            assert!(!stays_here(name), "{name}");
        }
    }

    #[test]
    fn what_connection_names_is_removed_but_never_the_framing() {
        let mut headers = HeaderMap::new();
        headers.append(CONNECTION, HeaderValue::from_static("x-one, Content-Length"));
        headers.append(CONNECTION, HeaderValue::from_static("x-two"));
        for name in ["x-one", "x-two", "x-three", "content-length"] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        remove_connection(&mut headers);
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
