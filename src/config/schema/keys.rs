//! The tables of keys, from the file's top level down.

mod egress;
mod openbao;
mod secrets;

use self::{
    openbao::OPENBAO,
    secrets::{EXEC, FILES, VAULT},
};
use super::{
    Key, Kind,
    Need::{self, Flag, Integer, Optional, Required, Text},
    Variant,
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
    Key::new(
        "caller",
        Kind::Sections(CALLER),
        Optional,
        "Services that may call, each with what it may do; every criterion that one gives must hold; absent: nobody is served",
    ),
    section("tokens", TOKENS, "Tokens that this gateway issues to callers; absent: none are taken"),
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
    text("environment", Required, "The environment that its requests go to"),
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

static ENVIRONMENT: &[Key] = &[
    text(
        "url",
        Optional,
        "\"https://HOST\" or \"https://HOST:PORT\"; sandbox and production know MX's hosts",
    ),
    texts(
        "paths",
        Optional,
        "What may be called at a host that is not MX's platform, such as \"GET /v1/things/{id}\"; absent: the catalogue of MX's Platform API",
    ),
    text("accept_version", Text("v20250224"), "Accept-Version for callers that send none"),
    Key::new("credential", Kind::Variants(CREDENTIAL), Required, "What is attached to each request"),
    Key::new(
        "bearer_operations",
        Kind::WordOrSection(
            &["refused", "pass-through"],
            &[reference("token", Required, "The token that is attached")],
        ),
        Text("refused"),
        "The operations that take a Bearer token of one user or account: refused, the caller's own token passed through, or this token attached",
    ),
    section(
        "rotation",
        ROTATION,
        "How its key is changed, by MX's own rotation API, and when its age is warned of",
    ),
    path("ca_file", Optional, "PEM file that replaces the system's roots; absent: the system's"),
    section("client_certificate", CERTIFICATE, "A client certificate towards the host; absent: none"),
    choice("ip_family", &["any", "ipv4", "ipv6"], "any", "Which addresses of the host are dialled"),
    egress::BIND,
    egress::PROXY,
    egress::PRIVATE_ADDRESSES,
    egress::PINS,
    integer(
        "connections_max",
        1,
        2000,
        "connections",
        256,
        "Connections to the host, of all workers together; MX takes 2,000 from one address",
    ),
    section("budget", BUDGET, "What all callers together may use of it, by method; absent: not limited"),
    section("breaker", BREAKER, "When the host is left alone for a while, since it fails"),
    millis("connect_timeout_ms", 100, MINUTE, 5 * SECOND, "TCP connect, per attempt"),
    millis("tls_timeout_ms", 100, MINUTE, 5 * SECOND, "TLS handshake"),
    millis(
        "first_byte_timeout_ms",
        100,
        10 * MINUTE,
        60 * SECOND,
        "From a request's last byte to the answer's head",
    ),
    millis("idle_timeout_ms", 100, 10 * MINUTE, 30 * SECOND, "Between two pieces of an answer"),
    millis("total_timeout_ms", 100, HOUR, 5 * MINUTE, "The whole exchange"),
    millis("pool_idle_timeout_ms", 100, 10 * MINUTE, 30 * SECOND, "How long an unused connection is kept"),
    millis("connection_age_max_ms", 1000, HOUR, 5 * MINUTE, "How long any connection is used"),
];

static ROTATION: &[Key] = &[
    text(
        "client_guid",
        Optional,
        "MX's name for the client, such as \"CLT-123\", which its rotation API wants; absent: mxgate rotate needs --client-guid",
    ),
    optional(
        "schedule_days",
        1,
        365,
        "days",
        "The running gateway rotates a key of that age; absent: only mxgate rotate does",
    ),
    flag("keep_old", false, "Leave the old key to MX's 30 days instead of retiring it"),
    integer(
        "warn_days",
        1,
        3650,
        "days",
        90,
        "A key of that age is warned of, in the log, status and metrics",
    ),
    millis(
        "wait_min_ms",
        0,
        24 * HOUR,
        10 * SECOND,
        "From the new key's first use until the old one may go, at least; longer where a vault's refresh and grace are",
    ),
    millis(
        "lease_ms",
        SECOND,
        10 * MINUTE,
        2 * MINUTE,
        "How long the lock of a run that was killed lasts; MX must answer within a fifth of it",
    ),
];

static BUDGET: &[Key] = &[
    section("get", METHOD_BUDGET, "GET and HEAD; absent: not limited"),
    section("other", METHOD_BUDGET, "All other methods; absent: not limited"),
];

static METHOD_BUDGET: &[Key] = &[REQUESTS_PER_SECOND, BURST, IN_FLIGHT_MAX];

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

static BREAKER: &[Key] = &[
    integer(
        "failures_max",
        0,
        10_000,
        "failures",
        20,
        "Failures of the host in a row after which requests are refused at once; 0: never",
    ),
    millis("open_ms", 100, 5 * MINUTE, 5 * SECOND, "How long, until single requests try again"),
];

static CREDENTIAL: &[Variant] = &[
    Variant { kind: "basic", keys: &[CLIENT_ID, API_KEY, SECONDARY_API_KEY] },
    Variant { kind: "api-key", keys: &[CLIENT_ID, API_KEY, SECONDARY_API_KEY] },
    Variant { kind: "mx-api-key", keys: &[CLIENT_ID, API_KEY, SECONDARY_API_KEY] },
    Variant {
        kind: "query",
        keys: &[
            CLIENT_ID,
            API_KEY,
            SECONDARY_API_KEY,
            text("client_id_name", Text("client_id"), "The query parameter that carries client_id"),
            text("api_key_name", Text("api_key"), "The query parameter that carries api_key"),
        ],
    },
    Variant { kind: "bearer", keys: &[reference("token", Required, "The token")] },
    Variant {
        kind: "header",
        keys: &[
            text("name", Required, "The header's name"),
            text("prefix", Text(""), "What stands before the value, such as \"Token \""),
            reference("value", Required, "The value"),
        ],
    },
];

const CLIENT_ID: Key = text("client_id", Required, "An identifier, not a secret");
const API_KEY: Key = reference("api_key", Required, "The key");
const SECONDARY_API_KEY: Key = reference(
    "secondary_api_key",
    Optional,
    "A second key, used when MX takes api_key no more; it need not exist yet; absent: none",
);

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
