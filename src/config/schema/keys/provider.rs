//! `[provider.NAME]`.

use super::{
    super::{
        Key, Kind,
        Need::{Optional, Required},
    },
    HOUR, MINUTE, SECOND, choice, millis, path, reference, text, texts,
};

pub(super) static PROVIDER: &[Key] = &[
    text(
        "discovery",
        Optional,
        "URL of the document that says where its endpoints are (RFC 8414, OpenID Connect Discovery), over https:// unless on this machine; absent: they are written here",
    ),
    texts(
        "hosts",
        Optional,
        "With discovery: hosts that its endpoints may be at, besides the document's own",
    ),
    text(
        "issuer",
        Optional,
        "What the provider calls itself; absent: with discovery what its URL says, without it not known",
    ),
    text(
        "authorization_endpoint",
        Optional,
        "Where users consent, an https:// URL; absent without discovery: nobody can",
    ),
    text("token_endpoint", Optional, "Where tokens are had, an https:// URL; required without discovery"),
    text(
        "revocation_endpoint",
        Optional,
        "Where tokens are given up, an https:// URL; absent without discovery: they are only forgotten",
    ),
    text("client_id", Required, "An identifier, not a secret"),
    reference("client_secret", Required, "What proves that it is us; sealed for the token endpoint's host"),
    choice(
        "client_authentication",
        &["client_secret_basic", "client_secret_post"],
        "client_secret_basic",
        "How the client secret is sent",
    ),
    texts(
        "scopes",
        Optional,
        "What may be asked for, the least that is needed; a connection may ask for less; absent: what the provider gives by itself",
    ),
    text("audience", Optional, "The parameter audience of both endpoints; absent: not sent"),
    text("resource", Optional, "The parameter resource of both endpoints (RFC 8707); absent: not sent"),
    Key::new(
        "authorization_parameters",
        Kind::NamedText,
        Optional,
        "Further parameters of the authorization endpoint, none of them the protocol's own",
    ),
    Key::new(
        "token_parameters",
        Kind::NamedText,
        Optional,
        "Further parameters of the token endpoint, none of them the protocol's own",
    ),
    text(
        "redirect_uri",
        Optional,
        "Where a user's browser comes back to, as it is registered at the provider; required with authorization_endpoint",
    ),
    millis(
        "reuse_grace_ms",
        0,
        HOUR,
        0,
        "For how long after its use the provider takes a refresh token again; as long, a lost answer is asked for once more at once",
    ),
    path("ca_file", Optional, "PEM file that replaces the system's roots; absent: the system's"),
    millis("connect_timeout_ms", 100, MINUTE, 5 * SECOND, "Name, TCP connect and TLS handshake together"),
    millis(
        "read_timeout_ms",
        100,
        5 * MINUTE,
        MINUTE,
        "From a request to the last byte of its answer, which may hold the only refresh token",
    ),
];
