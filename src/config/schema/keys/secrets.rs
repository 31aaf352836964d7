//! The sections of kinds of source, each with how its secrets are kept fresh.

use super::{
    super::{
        Key,
        Need::{Optional, Required},
        Variant,
    },
    DAY, HOUR, MINUTE, SECOND, choice, integer, millis, path, reference, texts,
};

pub(super) static VAULT: &[Variant] = &[Variant {
    kind: "file",
    keys: &[
        path("path", Required, "The age-encrypted vault file"),
        reference("identity", Required, "The age identity that opens it: anywhere but vault:"),
        reference("passphrase", Optional, "What the identity is sealed with, if it is: anywhere but vault:"),
        refresh(MINUTE, "How often it is read though it looks unchanged"),
        grace(DAY),
        AFTER_GRACE,
    ],
}];

pub(super) static FILES: &[Key] =
    &[refresh(MINUTE, "How often files are read though they look unchanged"), grace(DAY), AFTER_GRACE];

pub(super) static EXEC: &[Key] = &[
    texts(
        "command",
        Required,
        "An absolute path and its arguments; no shell, and no secret among the arguments",
    ),
    texts("variables", Optional, "Variables of mxgate's own environment that it gets; absent: none"),
    millis(
        "timeout_ms",
        100,
        MINUTE,
        10 * SECOND,
        "How long it may run; then it is killed with all that it started",
    ),
    integer("output_bytes_max", 1, 1 << 20, "bytes", 65_536, "What it may print; with more it is killed"),
    refresh(5 * MINUTE, "How often it is run"),
    grace(HOUR),
    AFTER_GRACE,
];

pub(super) const fn refresh(default: u64, doc: &'static str) -> Key {
    millis("refresh_ms", 100, DAY, default, doc)
}

pub(super) const fn grace(default: u64) -> Key {
    millis(
        "grace_ms",
        0,
        30 * DAY,
        default,
        "How long a secret is used after its source last confirmed it, while that cannot be read",
    )
}

pub(super) const AFTER_GRACE: Key = choice(
    "after_grace",
    &["refuse", "keep"],
    "refuse",
    "What then becomes of requests: 503, or the secret is used until its source says that it is gone",
);
