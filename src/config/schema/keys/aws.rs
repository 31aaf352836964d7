//! `[aws]`.

use super::{
    super::{
        Key,
        Need::{Optional, Required},
    },
    HOUR, MINUTE, SECOND, millis,
    secrets::{AFTER_GRACE, grace, refresh},
    text,
};

pub(super) static AWS: &[Key] = &[
    text("region", Required, "The region, such as \"eu-central-1\""),
    text(
        "endpoint",
        Optional,
        "\"https://HOST\" or \"https://HOST:PORT\", instead of the region's own; http:// only for localhost and loopback addresses",
    ),
    refresh(MINUTE, "How often its secrets are read"),
    grace(HOUR),
    AFTER_GRACE,
    millis("connect_timeout_ms", 100, MINUTE, 5 * SECOND, "Name, TCP connect and TLS handshake together"),
    millis("read_timeout_ms", 100, MINUTE, 10 * SECOND, "From a request to the last byte of its answer"),
];
