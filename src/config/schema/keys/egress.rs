//! The way out of an environment.

use super::{
    Key,
    Need::{Optional, Required},
    choice, reference, section, text, texts,
};

pub(super) const BIND: Key = text(
    "bind",
    Optional,
    "The address of this machine that connections leave from, such as \"10.0.0.5\"; only addresses of its family are dialled; absent: the system chooses",
);

pub(super) const PROXY: Key =
    section("proxy", PROXY_KEYS, "The HTTP proxy that connects to the host for us; absent: none");

pub(super) const PRIVATE_ADDRESSES: Key = choice(
    "private_addresses",
    &["refused", "allowed"],
    "refused",
    "Whether addresses that are not of the public internet are dialled when the host's name resolves to them; a url that names an address or localhost says so itself",
);

pub(super) const PINS: Key = texts(
    "pins",
    Optional,
    "Public keys of which one must be in the host's verified chain, besides everything else that is verified: \"sha256/BASE64=\", two at least so that one is a backup; absent: none need be",
);

static PROXY_KEYS: &[Key] = &[
    text(
        "url",
        Required,
        "\"http://HOST:PORT\"; the proxy is asked in clear text, and what it carries is TLS",
    ),
    text(
        "username",
        Optional,
        "Who we are at the proxy; an identifier, not a secret; absent: it does not ask",
    ),
    reference("password", Optional, "The password that goes with it, for the proxy's host"),
];
