//! `[openbao]`.

use super::{
    super::{
        Key, Kind,
        Need::{Optional, Required, Text},
        Variant,
    },
    HOUR, MINUTE, SECOND, millis, path, reference,
    secrets::{AFTER_GRACE, grace, refresh},
    text, texts,
};

pub(super) static OPENBAO: &[Key] = &[
    text(
        "url",
        Required,
        "\"https://HOST\" or \"https://HOST:PORT\"; http:// only for localhost and loopback addresses",
    ),
    texts(
        "mounts",
        Optional,
        "KV mounts with more than one segment, such as \"team/kv\"; of any other reference the first segment is the mount",
    ),
    path("ca_file", Optional, "PEM file that replaces the system's roots; absent: the system's"),
    text("namespace", Optional, "The namespace of mounts and login; absent: the root one"),
    Key::new("login", Kind::Variants(BAO_LOGIN), Required, "How the gateway gets its token there"),
    refresh(MINUTE, "How often its secrets are read"),
    grace(HOUR),
    AFTER_GRACE,
    millis("connect_timeout_ms", 100, MINUTE, 5 * SECOND, "Name, TCP connect and TLS handshake together"),
    millis("read_timeout_ms", 100, MINUTE, 10 * SECOND, "From a request to the last byte of its answer"),
];

static BAO_LOGIN: &[Variant] = &[
    Variant {
        kind: "token",
        keys: &[reference("token", Required, "The token; it is renewed, and read again when it is refused")],
    },
    Variant {
        kind: "approle",
        keys: &[
            auth_mount("approle"),
            text("role_id", Required, "The role's id: an identifier, not a secret"),
            reference("secret_id", Required, "The role's secret id"),
        ],
    },
    Variant {
        kind: "kubernetes",
        keys: &[
            auth_mount("kubernetes"),
            AUTH_ROLE,
            reference(
                "jwt",
                Text("file:/var/run/secrets/kubernetes.io/serviceaccount/token"),
                "The token of the pod's service account",
            ),
        ],
    },
    Variant {
        kind: "jwt",
        keys: &[auth_mount("jwt"), AUTH_ROLE, reference("jwt", Required, "The JSON Web Token")],
    },
];

const AUTH_ROLE: Key = text("role", Required, "The role that is asked for");

const fn auth_mount(default: &'static str) -> Key {
    text("mount", Text(default), "Where the method is mounted, below auth/")
}
