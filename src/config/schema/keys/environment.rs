//! `[environment.NAME]`.

use super::{
    super::{
        Key, Kind,
        Need::{Optional, Required, Text},
        Variant,
    },
    BURST, CERTIFICATE, HOUR, IN_FLIGHT_MAX, MINUTE, REQUESTS_PER_SECOND, SECOND, choice, egress, flag,
    integer, millis, optional, path, reference, section, text, texts,
};

pub(super) static ENVIRONMENT: &[Key] = &[
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
    texts(
        "pass_headers",
        Optional,
        "Headers of callers that pass although they are named as a credential is, such as \"X-Continuation-Token\"; absent: none",
    ),
    Key::new(
        "bearer_operations",
        Kind::WordOrSection(
            &["refused", "pass-through"],
            &[
                reference("token", Optional, "The token that is attached"),
                text("provider", Optional, "Whose connections have the tokens that are attached"),
            ],
        ),
        Text("refused"),
        "The operations that take a Bearer token of one user or account: refused, the caller's own token passed through, this token attached, or that of a connection of this provider",
    ),
    flag(
        "token_handles",
        false,
        "Keep the tokens that MX's answers hold among the [connections], and give callers handles in their places; at MX's Platform API",
    ),
    Key::new(
        "scopes",
        Kind::NamedTexts,
        Optional,
        "With tokens of a provider: the scopes that a token needs, by what is called, in the words of a grant such as \"read\" or \"path:GET /accounts\"; absent: none",
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
        kind: "oauth2",
        keys: &[
            text("provider", Required, "The provider whose access tokens are attached"),
            choice(
                "grant",
                &["authorization_code", "client_credentials"],
                "authorization_code",
                "Whether a token is that of a user's connection, or the gateway's own",
            ),
        ],
    },
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
