//! Header fields on their way through: what is left behind, what is added.
//!
//! To the upstream goes what the caller sent, less: hop-by-hop fields and all that `Connection` names
//! (RFC 9110, 7.6.1), every credential of any kind, cookies, fields that override the method, the path or
//! the host, and what tells about the inside of the company (`Forwarded`, `X-Forwarded-*`, `Via`,
//! `Referer`, `Origin`). `Range` goes, since two parts of an answer could hide the secret that each holds
//! half of. Look-alikes with an underscore for a hyphen go too, since some servers take the one for the
//! other, and so does what `Trailer` announces under such names. What only looks like a credential, the configuration can
//! let through.
//!
//! Back to the caller goes what the upstream sent, less: hop-by-hop fields, cookies, CORS (a browser must
//! not be told that it may), and advice to go elsewhere.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri,
    header::{
        ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH,
        CONTENT_LOCATION, CONTENT_TYPE, HOST, LOCATION, TE, TRAILER, TRANSFER_ENCODING, USER_AGENT, VIA,
    },
    uri::Scheme,
};
use zeroize::Zeroizing;

use super::errand::{Addressee, Errand};
use crate::{
    credential::Credential,
    framing::names::{is_credential, is_detour},
    mx::{
        catalogue::Operation,
        media::{self, Accept},
    },
    policy::{Api, Grant},
    snapshot::Environment,
};

const ACCEPT_VERSION: HeaderName = HeaderName::from_static("accept-version");

/// A request's head as it goes to the upstream.
pub(crate) struct RequestHead {
    /// The wire form. Its bytes are wiped when nobody needs them any more.
    pub(crate) text: Bytes,
    /// Whether the body goes out in chunks.
    pub(crate) is_chunked: bool,
    /// Trailers that the upstream has been told of.
    pub(crate) trailers: Vec<HeaderName>,
}

/// Writes the head: what the caller sent and may leave the gateway, what the gateway adds, and
/// `credential`. `target` comes in parts, of which one may hold a credential as well.
pub(crate) fn to_upstream(
    method: &Method,
    target: [&str; 3],
    received: &HeaderMap,
    environment: &Environment,
    grant: &Grant,
    credential: &[(HeaderName, HeaderValue)],
) -> RequestHead {
    let special = Special::of(received);
    let travels = |name: &str| environment.keeps_back(name);
    let named = if special.connection { named_by_connection(received) } else { Vec::new() };
    let is_private = |name: &str| is_look_alike(name) || travels(name);
    let trailers = if special.trailer { announced(received, is_private) } else { Vec::new() };
    let trailer = join(&trailers);
    let negotiated = Negotiated::new(received, &named, environment, grant);

    let te = special.te && accepts_trailers(received);
    let is_untyped = environment.api == Api::Platform
        && (special.chunked || special.length)
        && (!special.content_type || named.contains(&CONTENT_TYPE));
    let own: [(&str, Option<&[u8]>); 9] = [
        ("host", Some(environment.dial.authority.as_bytes())),
        ("via", Some(b"1.1 mxgate")),
        // So that the secret that was sent can be found in an answer that echoes it.
        ("accept-encoding", Some(b"identity")),
        ("transfer-encoding", special.chunked.then_some(b"chunked")),
        // A body without a type is a form to some servers, and MX takes JSON.
        ("content-type", is_untyped.then_some(b"application/json")),
        ("trailer", (!trailers.is_empty()).then_some(trailer.as_bytes())),
        ("connection", te.then_some(b"te")),
        ("te", te.then_some(b"trailers")),
        ("accept-version", negotiated.version.map(HeaderValue::as_bytes)),
    ];
    let own = own.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let own = own.chain(negotiated.accept.map(|accept| ("accept", accept.as_bytes())));
    let own = own.chain(credential.iter().map(|(name, value)| (name.as_str(), value.as_bytes())));

    let mut head = HeadText::with_room(method, target, received.iter(), own.clone());
    for (name, value) in received {
        let replaced = is_replaced(name) || negotiated.replaces(name) || named.contains(name);
        let passes = || is_usual(name) || !stays_here(name.as_str()) || environment.lets_through(name);
        if !replaced && passes() && !travels(name.as_str()) {
            head.field(name.as_str(), value.as_bytes());
        }
    }
    own.for_each(|(name, value)| head.field(name, value));
    RequestHead { text: head.finish(), is_chunked: special.chunked, trailers }
}

/// Writes the head of an errand, for one answer and no more. It has no `Via`: nothing is passed on.
pub(super) fn of_errand(errand: &Errand, to: Addressee<'_>, credential: &Credential) -> Bytes {
    let Operation { method, .. } = errand.operation;
    let own: [(&str, Option<&[u8]>); 7] = [
        ("host", Some(to.authority.as_bytes())),
        ("user-agent", Some(concat!("mxgate/", env!("CARGO_PKG_VERSION")).as_bytes())),
        ("accept-encoding", Some(b"identity")),
        ("accept", Some(media::preferred(errand.operation, to.accept_version).as_str().as_bytes())),
        ("accept-version", Some(to.accept_version.as_bytes())),
        // Without it some servers wait for a body.
        ("content-length", (method == Method::POST).then_some(b"0")),
        ("connection", Some(b"close")),
    ];
    let own = own.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let own = own.chain(credential.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())));
    let target = credential.target(&errand.target);
    let mut head = HeadText::with_room(method, target, HeaderMap::new().iter(), own.clone());
    own.for_each(|(name, value)| head.field(name, value));
    head.finish()
}

/// A head in the making. A text that grew would leave an unwiped copy of the credential behind, so there
/// is room for all of it beforehand.
struct HeadText(Zeroizing<Vec<u8>>);

impl HeadText {
    fn with_room<'f>(
        method: &Method,
        target: [&str; 3],
        received: http::header::Iter<'_, HeaderValue>,
        own: impl Iterator<Item = (&'f str, &'f [u8])>,
    ) -> Self {
        let start_line = [method.as_str(), " ", target[0], target[1], target[2], " HTTP/1.1\r\n"];
        let received = received.map(|(name, value)| field_len(name.as_str(), value.as_bytes()));
        let fields = received.chain(own.map(|(name, value)| field_len(name, value)));
        let room = start_line.iter().map(|part| part.len()).sum::<usize>() + fields.sum::<usize>() + 2;
        let mut head = Self(Zeroizing::new(Vec::with_capacity(room)));
        start_line.iter().for_each(|part| head.push(part.as_bytes()));
        head
    }

    fn field(&mut self, name: &str, value: &[u8]) {
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            self.push(part);
        }
    }

    fn push(&mut self, part: &[u8]) {
        debug_assert!(part.len() <= self.0.capacity() - self.0.len(), "it would grow");
        self.0.extend_from_slice(part);
    }

    fn finish(mut self) -> Bytes {
        self.push(b"\r\n");
        Bytes::from_owner(self.0)
    }
}

fn field_len(name: &str, value: &[u8]) -> usize {
    name.len() + value.len() + ": \r\n".len()
}

/// What the gateway always says itself.
fn is_replaced(name: &HeaderName) -> bool {
    matches!(*name, HOST | VIA | ACCEPT_ENCODING | TRAILER)
}

/// What most requests have and may always leave is known without a look at its letters.
fn is_usual(name: &HeaderName) -> bool {
    matches!(*name, ACCEPT | ACCEPT_LANGUAGE | CONTENT_LENGTH | CONTENT_TYPE | USER_AGENT)
}

/// Which fields occur that most messages do not have: one look at every name instead of one look-up each.
#[derive(Debug, Default)]
struct Special {
    connection: bool,
    chunked: bool,
    length: bool,
    content_type: bool,
    te: bool,
    trailer: bool,
    location: bool,
    cache_control: bool,
}

impl Special {
    fn of(headers: &HeaderMap) -> Self {
        let mut special = Self::default();
        for name in headers.keys() {
            match *name {
                CONNECTION => special.connection = true,
                TRANSFER_ENCODING => special.chunked = true,
                CONTENT_LENGTH => {
                    special.length = headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0")
                }
                CONTENT_TYPE => special.content_type = true,
                TE => special.te = true,
                TRAILER => special.trailer = true,
                LOCATION | CONTENT_LOCATION => special.location = true,
                CACHE_CONTROL => special.cache_control = true,
                _ => {}
            }
        }
        special
    }
}

/// What is sent instead of the caller's `Accept-Version` and `Accept`.
struct Negotiated<'h> {
    version: Option<&'h HeaderValue>,
    accept: Option<&'h HeaderValue>,
}

impl<'h> Negotiated<'h> {
    /// `named` are fields that `Connection` takes out: they count as absent. Of several versions the first goes out alone, so
    /// that it is the one that `Accept` fits.
    fn new(
        received: &'h HeaderMap,
        named: &[HeaderName],
        environment: &'h Environment,
        grant: &Grant,
    ) -> Self {
        let Some(operation) = grant.operation() else { return Self { version: None, accept: None } };
        let passes = |name: &HeaderName| !named.contains(name);
        let versions = || received.get_all(ACCEPT_VERSION).iter().filter(|_| passes(&ACCEPT_VERSION));
        let asked = versions().find(|version| !version.is_empty());
        let is_alone = asked.is_some() && versions().count() == 1;
        let sent = asked.unwrap_or(&environment.accept_version);
        let accepted = received.get_all(ACCEPT).into_iter().filter(|_| passes(&ACCEPT));
        let version = sent.to_str().unwrap_or_default();
        Self {
            version: (!is_alone).then_some(sent),
            accept: match media::accept(operation, version, accepted) {
                Accept::Replace(value) => Some(value),
                Accept::Keep => None,
            },
        }
    }

    fn replaces(&self, name: &HeaderName) -> bool {
        match *name {
            ACCEPT => self.accept.is_some(),
            _ => self.version.is_some() && *name == ACCEPT_VERSION,
        }
    }
}

/// Makes the upstream's header section fit for the caller.
pub(crate) fn to_caller(headers: &mut HeaderMap, environment: &Environment) {
    let special = Special::of(headers);
    if special.connection {
        named_by_connection(headers).iter().for_each(|name| drop(headers.remove(name)));
        headers.remove(CONNECTION);
    }
    if special.trailer {
        let trailers = announced(headers, stays_there);
        headers.remove(TRAILER);
        if let Ok(value) = HeaderValue::try_from(join(&trailers))
            && !trailers.is_empty()
        {
            headers.insert(TRAILER, value);
        }
    }
    remove_where(headers, stays_there);
    if special.location {
        for name in [LOCATION, CONTENT_LOCATION] {
            if let Some(local) = headers.get(&name).and_then(|value| on_listener(value, environment)) {
                headers.insert(name, local);
            }
        }
    }
    if !(special.cache_control && headers.contains_key(CACHE_CONTROL)) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

/// Fields of a request that do not leave the gateway, besides those that are replaced in any case.
fn stays_here(name: &str) -> bool {
    if name.contains('_') {
        return is_look_alike(&name.replace('_', "-"));
    }
    hop_by_hop(name)
        || is_credential(name)
        || is_detour(name)
        || matches!(name, "expect" | "max-forwards" | "range" | "if-range" | "http2-settings" | "alt-used")
        || matches!(name, "forwarded" | "referer" | "origin")
        || name.starts_with("sec-")
        || name.starts_with("x-mxgate-")
        || name.starts_with("access-control-")
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

/// The fields that `Connection` names, each once; it goes itself in any case.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let mut named: Vec<HeaderName> = list(headers, &CONNECTION)
        .filter(|name| !name.eq_ignore_ascii_case("keep-alive") && !name.eq_ignore_ascii_case("close"))
        .filter_map(|name| name.parse().ok())
        // Framing is not up for it; without it a body would be sent that nobody announced.
        .filter(|name| *name != CONTENT_LENGTH && *name != TRANSFER_ENCODING)
        // It may name thousands that do not occur.
        .filter(|name| headers.contains_key(name))
        .collect();
    named.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
    named.dedup();
    named
}

/// One look at every name; without one that goes, nothing is allocated.
fn remove_where(headers: &mut HeaderMap, is_removed: impl Fn(&str) -> bool) {
    let removed: Vec<HeaderName> = headers.keys().filter(|name| is_removed(name.as_str())).cloned().collect();
    for name in removed {
        headers.remove(name);
    }
}

/// What `Trailer` announces, less what does not pass.
fn announced(headers: &HeaderMap, is_removed: impl Fn(&str) -> bool) -> Vec<HeaderName> {
    list(headers, &TRAILER)
        .filter_map(|name| name.parse().ok())
        .filter(|name: &HeaderName| !is_removed(name.as_str()))
        .collect()
}

fn join(names: &[HeaderName]) -> String {
    names.iter().map(HeaderName::as_str).collect::<Vec<_>>().join(", ")
}

/// The members of a field that is a list.
fn list<'h>(headers: &'h HeaderMap, name: &'h HeaderName) -> impl Iterator<Item = &'h str> {
    let lines = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

fn accepts_trailers(headers: &HeaderMap) -> bool {
    list(headers, &TE).any(|coding| coding.eq_ignore_ascii_case("trailers"))
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
    #[cfg(debug_assertions)]
    #[should_panic = "it would grow"]
    fn a_head_that_would_grow_is_noticed() {
        let target = ["/", "", ""];
        let mut head = HeadText::with_room(&Method::GET, target, HeaderMap::new().iter(), std::iter::empty());
        head.field("authorization", b"c4n4ry");
    }

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
        for name in [ACCEPT, ACCEPT_LANGUAGE, CONTENT_LENGTH, CONTENT_TYPE, USER_AGENT] {
            assert!(is_usual(&name) && !stays_here(name.as_str()), "{name}");
        }
        assert!(!is_usual(&HOST));
    }

    #[test]
    fn what_connection_names_goes_but_never_the_framing() {
        let mut headers = HeaderMap::new();
        headers.append(CONNECTION, HeaderValue::from_static("x-one, Content-Length, keep-alive, Close"));
        headers.append(CONNECTION, HeaderValue::from_static("X-Two"));
        headers.append(CONNECTION, HeaderValue::from_static("x-two, x-three"));
        for name in ["x-one", "x-two", "content-length", "keep-alive"] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        assert_eq!(named_by_connection(&headers), ["x-one", "x-two"]);
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
