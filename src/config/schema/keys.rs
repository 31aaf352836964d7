//! The tables of keys, from the file's top level down.

mod aws;
mod connections;
mod egress;
mod environment;
mod openbao;
mod provider;
mod secrets;

use self::{
    aws::AWS,
    connections::{CALLER_CONNECTIONS, CONNECTIONS},
    environment::ENVIRONMENT,
    openbao::OPENBAO,
    provider::PROVIDER,
    secrets::{EXEC, FILES, VAULT},
};
use super::{
    Key, Kind,
    Need::{self, Flag, Integer, Optional, Required, Text},
};

/// The top level.
pub(in crate::config) static FILE: &[Key] = &[
    texts(
        "allow",
        Required,
        "Networks that may call at all, such as \"10.20.0.0/16\"; an empty list lets nobody in",
    ),
    texts(
        "trusted_proxies",
        Optional,
        "Networks whose forwarded_header and PROXY protocol are believed; none by default",
    ),
    choice(
        "forwarded_header",
        &["x-forwarded-for", "forwarded", "none"],
        "x-forwarded-for",
        "Which header of a trusted proxy names the caller's address",
    ),
    Key::new("listener", Kind::Sections(LISTENER), Required, "Where callers connect; at least one").restart(),
    section("limits", LIMITS, "Bounds on what a caller can cost; every listener has the same"),
    Key::new(
        "vault",
        Kind::Variants(VAULT),
        Optional,
        "The embedded vault; absent when no reference is vault:",
    )
    .restart(),
    section(
        "file",
        FILES,
        "How secrets in files are kept fresh; each is read again as soon as it looks different",
    ),
    Key::new(
        "exec",
        Kind::Named(EXEC),
        Optional,
        "Commands whose standard output is a secret, by name: exec:NAME",
    ),
    section(
        "openbao",
        OPENBAO,
        "An OpenBao or HashiCorp Vault server with KV engines of version 2; absent when no reference is openbao:",
    ),
    section(
        "aws",
        AWS,
        "AWS Secrets Manager, in builds with the feature aws; absent when no reference is aws:",
    ),
    Key::new(
        "caller",
        Kind::Sections(CALLER),
        Optional,
        "Services that may call, each with what it may do; every criterion that one gives must hold; absent: nobody is served",
    ),
    section("tokens", TOKENS, "Tokens that this gateway issues to callers; absent: none are taken"),
    Key::new(
        "provider",
        Kind::Named(PROVIDER),
        Optional,
        "OAuth 2.0 providers, by name; absent: no tokens are had from anybody",
    ),
    section("connections", CONNECTIONS, "Users' consents, and how they give them; absent: there are none")
        .restart(),
    Key::new(
        "environment",
        Kind::Named(ENVIRONMENT),
        Required,
        "MX's hosts, or others that take the same kinds of credential, by name",
    ),
    section("health", HEALTH, "Health checks and metrics; absent switches them off").restart(),
    section("control", CONTROL, "The operators' control socket; absent switches it off").restart(),
    section("log", LOG, "Log output"),
    section("record", RECORD, "Where access records go").restart(),
    section("process", PROCESS, "Threads and shutdown").restart(),
];

static LISTENER: &[Key] = &[
    text(
        "address",
        Required,
        "An address and port such as \"127.0.0.1:8080\", or \"unix:/PATH\" (created with mode 0660)",
    ),
    choice(
        "serves",
        &["environment", "connections"],
        "environment",
        "Whether its requests go to an environment, or make and end users' connections",
    ),
    text(
        "environment",
        Optional,
        "The environment that its requests go to; required unless it serves connections",
    ),
    section("tls", LISTENER_TLS, "TLS towards callers; absent: none"),
    flag(
        "proxy_protocol",
        false,
        "Every connection must open with a PROXY protocol header (v1 or v2) and come from a trusted proxy",
    ),
    texts(
        "hosts",
        Optional,
        "Host names (lower case, no port) that are answered besides localhost and addresses: on a loopback listener always checked, on another when any are listed",
    ),
    texts(
        "origins",
        Optional,
        "Values of Origin (exact, lower case) that may call; none by default: no browser may",
    ),
];

static CERTIFICATE: &[Key] = &[CHAIN, PRIVATE_KEY];

static LISTENER_TLS: &[Key] = &[
    CHAIN,
    PRIVATE_KEY,
    path(
        "client_ca",
        Optional,
        "PEM file with the authorities whose client certificates are taken; absent: none is asked for",
    ),
    choice(
        "client_certificate",
        &["required", "optional"],
        "required",
        "With client_ca: whether a connection without a client certificate is refused",
    ),
];

const CHAIN: Key = path("certificate", Required, "PEM file with the certificate chain, leaf first");
const PRIVATE_KEY: Key = path("key", Required, "PEM file with the private key");

static CALLER: &[Key] = &[
    text("name", Required, "Its name in records, metrics and commands"),
    texts("networks", Optional, "Criterion: it calls from one of these networks"),
    ids("unix_uids", "users", "Criterion: it is one of these users, at the other end of a Unix socket"),
    ids("unix_gids", "groups", "Criterion: its effective group there is one of these"),
    texts(
        "tls_names",
        Optional,
        "Criterion: its client certificate has one of these names, such as \"dns:ledger.internal\", \"uri:spiffe://example/ledger\" or \"subject:CN=ledger,O=Example\"",
    ),
    flag("token", false, "Criterion: it sends a token that `mxgate caller token` has made for it"),
    Key::new(
        "grant",
        Kind::NamedTexts,
        Required,
        "What it may do, by environment: operation ids of MX, classes such as \"read\", \"bundle:aggregation\", \"tag:transactions\", \"method:GET\", \"path:GET /new/{id}\", at an environment with paths \"paths\"; with a - before it, what it may not do, which always wins",
    ),
    section(
        "connections",
        CALLER_CONNECTIONS,
        "Which connections of users it may make and use; absent: none",
    ),
    section("limits", CALLER_LIMITS, "What it may use, of all its connections together; absent: not limited"),
    texts(
        "users",
        Optional,
        "Whose data it may reach: users such as \"USR-123\", or \"USR-*\" for all that begin so; operations without a user in their path are then had by operation id alone; absent: everybody's",
    ),
    path(
        "users_file",
        Optional,
        "File with more of them, one a line, at most 32 MiB; reloaded when it changes",
    ),
    section(
        "end_user",
        END_USER,
        "Each request carries the JSON Web Token of the user that it is for; absent: none is needed",
    ),
    texts(
        "mask_fields",
        Optional,
        "Fields of JSON answers that it does not get to see, such as \"account_number\" or \"owner.*\"; its answers are then read whole, up to 1 MiB",
    ),
    text(
        "observe_until",
        Optional,
        "Observe mode until then, such as \"2026-12-01\" or \"2026-12-01T12:00:00Z\" (UTC), at most 30 days ahead: what its grants refuse is let through and noted, but for what is destructive, money, bank-data or key-admin, and unknown paths; absent: off",
    ),
];

static CALLER_LIMITS: &[Key] = &[
    REQUESTS_PER_SECOND,
    BURST,
    IN_FLIGHT_MAX,
    optional(
        "connections_max",
        1,
        1_000_000,
        "connections",
        "Connections at once, each counted from its first request; absent: any number",
    ),
    optional(
        "bytes_per_second",
        16_384,
        10_000_000_000,
        "bytes",
        "Body bytes, uploads and answers together, paced; absent: as fast as they come",
    ),
];

static END_USER: &[Key] = &[
    text(
        "header",
        Text("x-mxgate-end-user"),
        "The header that carries the token and nothing else; it never leaves the gateway",
    ),
    text("issuer", Required, "What the token's iss must be"),
    text("audience", Required, "What the token's aud must be or hold"),
    text("jwks", Required, "The issuer's keys: \"file:/PATH\" or \"https://HOST/PATH\""),
    path("ca_file", Optional, "PEM file that replaces the system's roots for jwks; absent: the system's"),
    texts(
        "algorithms",
        Optional,
        "Signatures that are taken: RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA; absent: RS256, PS256, ES256, EdDSA",
    ),
    text("claim", Text("sub"), "The claim that says who the user is"),
    path(
        "user_map_file",
        Optional,
        "File with a value of that claim, a tab and a user's guid a line; absent: the claim is the guid",
    ),
    integer("leeway_s", 0, 300, "seconds", 30, "By how much clocks may differ, for exp and nbf"),
];

static TOKENS: &[Key] = &[
    path("file", Required, "Where the tokens' digests are; `mxgate caller token` makes and changes it"),
    text(
        "header",
        Text("x-mxgate-token"),
        "The field that a token is taken from, besides Authorization (Bearer, or the password of Basic)",
    ),
];

static LIMITS: &[Key] = &[
    integer("connections_max", 1, 1_000_000, "connections", 4096, "Connections of all listeners together"),
    integer(
        "connections_per_address_max",
        1,
        1_000_000,
        "connections",
        2048,
        "Connections from one address; all Unix socket peers count as one",
    ),
    integer(
        "header_bytes_max",
        1024,
        65_536,
        "bytes",
        16_384,
        "A request's header section, its line included",
    ),
    integer("header_count_max", 8, 100, "fields", 64, "Fields in a request's header section"),
    integer("request_line_bytes_max", 256, 32_768, "bytes", 8192, "A request line"),
    integer("body_bytes_max", 0, 1 << 30, "bytes", 10 << 20, "A request body"),
    millis(
        "header_read_timeout_ms",
        100,
        5 * MINUTE,
        10 * SECOND,
        "From the first byte of a request's head to its last",
    ),
    millis(
        "idle_timeout_ms",
        100,
        HOUR,
        60 * SECOND,
        "A kept-alive connection without a request, or whose caller takes no byte of its answer",
    ),
    millis("upload_timeout_ms", 100, HOUR, 60 * SECOND, "From a request's head to the last byte of its body"),
];

const REQUESTS_PER_SECOND: Key = optional(
    "requests_per_second",
    1,
    1_000_000,
    "requests",
    "Requests, as a token bucket; absent: any number",
);
const BURST: Key =
    optional("burst", 1, 1_000_000, "requests", "What the token bucket holds; absent: requests_per_second");
const IN_FLIGHT_MAX: Key =
    optional("in_flight_max", 1, 1_000_000, "requests", "Requests at once; absent: any number");

static HEALTH: &[Key] = &[
    text("address", Text("127.0.0.1:9090"), "Address and port; it may be the pod's address"),
    texts(
        "hosts",
        Optional,
        "Host names that are answered besides loopback ones, when the address is loopback",
    ),
    flag(
        "ready_needs_vault",
        false,
        "Whether /readyz also fails when a secret could not be read when it was last looked at",
    ),
];

static CONTROL: &[Key] = &[path("socket", Required, "The socket's path (created with mode 0600)")];

static LOG: &[Key] = &[
    text("filter", Text("info"), "A level, or a filter such as \"info,mxgate::upstream=debug\""),
    choice("format", &["text", "json"], "text", "Lines of text, or one JSON object a line").restart(),
];

static RECORD: &[Key] = &[text(
    "destination",
    Text("stdout"),
    "\"stdout\", \"off\" or \"file:/PATH\" (created with mode 0600, reopened on SIGHUP)",
)];

static PROCESS: &[Key] = &[
    Key::new(
        "workers",
        Kind::Integer { min: 1, max: 256, unit: "threads" },
        Optional,
        "Worker threads; absent: one per usable core, following a CPU quota",
    ),
    millis("drain_delay_ms", 0, 10 * MINUTE, 0, "After SIGTERM: how long new connections are still served"),
    millis(
        "drain_total_ms",
        0,
        HOUR,
        30 * SECOND,
        "After drain_delay_ms: how long requests in flight may take",
    ),
];

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

const fn text(name: &'static str, need: Need, doc: &'static str) -> Key {
    Key::new(name, Kind::Text, need, doc)
}

const fn texts(name: &'static str, need: Need, doc: &'static str) -> Key {
    Key::new(name, Kind::Texts, need, doc)
}

const fn path(name: &'static str, need: Need, doc: &'static str) -> Key {
    Key::new(name, Kind::Path, need, doc)
}

const fn reference(name: &'static str, need: Need, doc: &'static str) -> Key {
    Key::new(name, Kind::Reference, need, doc)
}

const fn flag(name: &'static str, default: bool, doc: &'static str) -> Key {
    Key::new(name, Kind::Flag, Flag(default), doc)
}

const fn choice(
    name: &'static str,
    words: &'static [&'static str],
    default: &'static str,
    doc: &'static str,
) -> Key {
    Key::new(name, Kind::Choice(words), Text(default), doc)
}

const fn integer(
    name: &'static str,
    min: u64,
    max: u64,
    unit: &'static str,
    default: u64,
    doc: &'static str,
) -> Key {
    Key::new(name, Kind::Integer { min, max, unit }, Integer(default), doc)
}

/// Absent is a meaning of its own.
const fn optional(name: &'static str, min: u64, max: u64, unit: &'static str, doc: &'static str) -> Key {
    Key::new(name, Kind::Integer { min, max, unit }, Optional, doc)
}

const fn ids(name: &'static str, unit: &'static str, doc: &'static str) -> Key {
    Key::new(name, Kind::Integers { min: 0, max: u32::MAX as u64, unit }, Optional, doc)
}

const fn millis(name: &'static str, min: u64, max: u64, default: u64, doc: &'static str) -> Key {
    integer(name, min, max, "milliseconds", default, doc)
}

const fn section(name: &'static str, keys: &'static [Key], doc: &'static str) -> Key {
    Key::new(name, Kind::Section(keys), Optional, doc)
}
