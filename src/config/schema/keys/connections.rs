//! `[connections]`, and what a caller may do with them.

use super::{
    super::{
        Key,
        Need::{Optional, Required, Text},
    },
    CERTIFICATE, DAY, HOUR, MINUTE, SECOND, integer, millis, path, reference, section, text, texts,
};

pub(super) static CONNECTIONS: &[Key] = &[
    reference(
        "key",
        Required,
        "What tokens are sealed with, at least 32 bytes; in the embedded vault sealed for localhost, since it is sent nowhere",
    ),
    reference(
        "former_key",
        Optional,
        "What they were sealed with before; they are sealed anew in the background; absent: none",
    ),
    path(
        "file",
        Optional,
        "The file that they are kept in, by one gateway alone; absent: postgres is where they are",
    ),
    section(
        "postgres",
        POSTGRES,
        "A PostgreSQL database that replicas share; absent: file is where they are",
    ),
    texts(
        "return_urls",
        Optional,
        "Where a browser may be sent back to after a consent, exact; absent: nowhere, so that nobody can consent",
    ),
    section("browser", BROWSER, "The listener that users' browsers come to; absent: nobody can consent"),
];

static POSTGRES: &[Key] = &[
    text("host", Required, "A name or an address, or the folder of a Unix socket"),
    integer("port", 1, 65_535, "as a port", 5432, "Its port"),
    text("database", Text("mxgate"), "The database"),
    text("user", Text("mxgate"), "The role"),
    reference("password", Optional, "Its password; absent: none is sent"),
    text("schema", Text("mxgate"), "The schema that its tables are in"),
    path("ca_file", Optional, "PEM file that replaces the system's roots; absent: the system's"),
    millis("connect_timeout_ms", 100, MINUTE, 2 * SECOND, "Name, TCP, TLS and login together"),
    millis(
        "statement_timeout_ms",
        100,
        MINUTE,
        2 * SECOND,
        "One statement; with the other time-out less than 5 s, half of what replicas wait for one that has died",
    ),
];

static BROWSER: &[Key] = &[
    text("address", Required, "An address and port; it may face the internet"),
    text(
        "url",
        Required,
        "What browsers know it by: \"https://HOST\" or \"https://HOST:PORT\"; a provider's redirect_uri is under it",
    ),
    section("tls", CERTIFICATE, "Its certificate; absent: what stands before it has TLS"),
    millis("ticket_life_ms", 10 * SECOND, DAY, 10 * MINUTE, "How long a ticket may be opened"),
    millis("consent_life_ms", 10 * SECOND, HOUR, 10 * MINUTE, "How long a user may take at the provider"),
];

pub(super) static CALLER_CONNECTIONS: &[Key] = &[
    texts("providers", Required, "The providers whose connections it may make and use"),
    texts("of", Optional, "Callers whose connections it may use besides its own; absent: none"),
];
