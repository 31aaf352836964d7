//! Header fields on their way through the gateway, in both directions.
//!
//! One byte chooses the environment; each line of the rest is a field, `name: value`. Claimed: what leaves
//! for the upstream holds no credential, hop-by-hop field, detour or look-alike of one of these, nothing
//! that `Connection` named, the injected credential exactly once, and everything else as it came; and what
//! goes back to the caller holds no hop-by-hop field, no cookie, no word to browsers, and no `Location`
//! that would lead to another host than it did.

use std::{io::Write as _, sync::LazyLock};

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::{reading::of_map, split_choices};
use crate::{
    config::{Config, overrides::Overrides},
    listener::peer::Peer,
    policy::{self, Grant, target::Target},
    snapshot::{Environment, Snapshot},
    upstream::headers::{to_caller, to_upstream},
    vault::gathered::Gathered,
};

/// What is injected, and never part of an input.
const SECRET: &str = "k3y-th4t-1s-1nj3ct3d";

const CONFIG: &str = r#"
allow = ["127.0.0.0/8"]
[[caller]]
name = "fuzz"
unix_uids = [0]
[caller.grant]
production = ["read"]
sandbox = ["read"]
atrium = ["paths"]
other = ["paths"]
query = ["paths"]
bearer = ["paths"]
[[listener]]
address = "127.0.0.1:8080"
environment = "production"
[environment.production]
credential = { kind = "basic", client_id = "CLIENT", api_key = "file:KEY" }
ca_file = "CA"
[environment.sandbox]
credential = { kind = "mx-api-key", client_id = "CLIENT", api_key = "file:KEY" }
ca_file = "CA"
[environment.atrium]
url = "https://atrium.example:8443"
paths = ["GET /users"]
credential = { kind = "api-key", client_id = "CLIENT", api_key = "file:KEY" }
ca_file = "CA"
[environment.other]
url = "https://other.example"
paths = ["GET /users"]
credential = { kind = "header", name = "X-Own_Key", prefix = "T ", value = "file:KEY" }
ca_file = "CA"
[environment.query]
url = "https://query.example"
paths = ["GET /users"]
credential = { kind = "query", client_id = "CLIENT", api_key = "file:KEY" }
ca_file = "CA"
[environment.bearer]
url = "https://bearer.example"
paths = ["GET /users"]
credential = { kind = "bearer", token = "file:KEY" }
ca_file = "CA"
"#;

/// Every kind of credential, each with the proof that a request may have it.
static CASES: LazyLock<Vec<(Snapshot, Grant, usize)>> = LazyLock::new(|| {
    let directory = tempfile::tempdir().unwrap();
    let certificate = rcgen::generate_simple_self_signed(["upstream.example".to_owned()]).unwrap();
    let write = |name: &str, text: &str| {
        let mut file = tempfile::Builder::new().prefix(name).tempfile_in(&directory).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.into_temp_path().keep().unwrap().display().to_string()
    };
    let mut text = CONFIG.replace("\"CA\"", &format!("{:?}", write("ca", &certificate.cert.pem())));
    // A secret belongs to one environment; their values may be the same.
    while text.contains("file:KEY") {
        text = text.replacen("file:KEY", &format!("file:{}", write("key", SECRET)), 1);
    }
    let config = Config::parse(&text, "mxgate.toml", &Overrides::none()).unwrap().config;
    let gathered = Gathered::once(&config).unwrap();
    let count = config.environments.len();
    let case = |index: usize| {
        let snapshot = Snapshot::build(&config, &gathered, None).unwrap();
        let grant = granted(&snapshot, index);
        (snapshot, grant, index)
    };
    (0..count).map(case).collect()
});

fn granted(snapshot: &Snapshot, environment: usize) -> Grant {
    let caller = snapshot.admission.admit(&Peer::Unix { uid: 0, gid: 0 }, &HeaderMap::new(), "/").unwrap();
    let target = Target::parse("/users").unwrap();
    let allowed = snapshot.grants.of(caller.index(), environment);
    policy::decide(allowed, snapshot.environments[environment].api, &Method::GET, &target).unwrap()
}

pub(super) fn check(input: &[u8]) {
    let ([choice], text) = split_choices(input);
    let environment = environment(choice);
    let received = fields(text);
    let sent = sent(&received, choice);
    if let Err(fault) = claims_upstream(&received, &sent, environment) {
        panic!("{fault}: {:?} sends {sent:?} for {:?}", environment.name, text.escape_ascii().to_string());
    }
    let passed = passed(&received, choice);
    if let Err(fault) = claims_caller(&received, &passed, environment) {
        panic!("{fault}: {:?} gives {passed:?} for {:?}", environment.name, text.escape_ascii().to_string());
    }
}

fn case(choice: u8) -> (&'static Environment, &'static Grant) {
    let (snapshot, grant, index) = &CASES[usize::from(choice) % CASES.len()];
    (&snapshot.environments[*index], grant)
}

pub(super) fn environment(choice: u8) -> &'static Environment {
    case(choice).0
}

/// What leaves for the upstream, as httparse reads it.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) start: String,
    pub(super) headers: HeaderMap,
    /// Bytes behind the head's end.
    pub(super) behind: usize,
    /// How the body is going to be sent.
    pub(super) is_chunked: bool,
    pub(super) trailers: Vec<HeaderName>,
}

/// The parts of a target, of which the last is a credential's.
const TARGET: [&str; 3] = ["/users?a=1", "&", "api_key=k"];

/// Writes the head as the gateway does. That its text is not copied in growing, which would leave a
/// credential behind, it asserts itself (`HeadText::push`).
pub(super) fn sent(received: &HeaderMap, choice: u8) -> Sent {
    let (environment, grant) = case(choice);
    let credential = environment.own.key().map(crate::credential::Prepared::for_worker);
    let ours = credential.as_ref().map(|credential| credential.headers()).unwrap_or_default();
    let method = method(received);
    let head = to_upstream(&method, TARGET, received, environment, grant, ours);
    let mut slots = [httparse::EMPTY_HEADER; 256];
    let mut request = httparse::Request::new(&mut slots);
    let Ok(httparse::Status::Complete(len)) = request.parse(&head.text) else {
        panic!("no head: {}", head.text.escape_ascii());
    };
    let mut headers = HeaderMap::new();
    for field in request.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_bytes(field.value).unwrap());
    }
    let line = head.text.split(|byte| *byte == b'\r').next().unwrap_or_default();
    Sent {
        start: String::from_utf8(line.to_vec()).unwrap(),
        headers,
        behind: head.text.len() - len,
        is_chunked: head.is_chunked,
        trailers: head.trailers,
    }
}

/// Some method, the same for the same fields.
fn method(received: &HeaderMap) -> Method {
    [Method::GET, Method::HEAD, Method::POST, Method::DELETE][received.len() % 4].clone()
}

/// What goes back to the caller.
pub(super) fn passed(received: &HeaderMap, choice: u8) -> HeaderMap {
    let mut headers = received.clone();
    to_caller(&mut headers, environment(choice));
    headers
}

/// The lines that are fields, as many as the gate lets through.
pub(super) fn fields(text: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in text.split(|byte| *byte == b'\n').take(100) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    headers
}

/// `_` for `-` is what some servers take it for.
fn plain(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "-")
}

/// Names that `lines` of a list field hold.
fn listed(headers: &HeaderMap, name: &str) -> Vec<String> {
    let lines = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(|one| one.trim().to_ascii_lowercase()).collect()
}

const CREDENTIALS: [&str; 24] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "cookie2",
    "mx-api-key",
    "mx-client-id",
    "mx-session-token",
    "api-key",
    "apikey",
    "x-api-key",
    "x-auth-token",
    "x-access-token",
    "client-id",
    "client-secret",
    "md-api-key",
    "access-token",
    "x-client-secret",
    "x-mx-api-key",
    "x-session-token",
    "x-vault-token",
    "x-authtoken",
    "x-master-key",
    "client-cert-chain",
    "x-own-key",
];

const HOP_BY_HOP: [&str; 7] = [
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authentication-info",
    "upgrade",
    "connection",
    "te",
];

const DETOURS: [&str; 17] = [
    "x-method",
    "method-override",
    "http-method-override",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-real-ip",
    "x-original-url",
    "x-rewrite-url",
    "origin",
    "x-http-method-override",
    "x-method-override",
    "x-host",
    "referer",
    "expect",
    "range",
    "sec-fetch-site",
];

/// What is set here and nowhere else.
const OURS: [&str; 5] = ["host", "via", "accept-encoding", "accept", "accept-version"];

pub(super) fn claims_upstream(
    received: &HeaderMap,
    sent: &Sent,
    environment: &Environment,
) -> Result<(), String> {
    claims_fields(received, &sent.headers, environment)?;
    let start = format!("{} {} HTTP/1.1", method(received), TARGET.concat());
    if sent.start != start || sent.behind != 0 {
        return Err(format!("it is not a head that begins with {start:?}"));
    }
    let codings: Vec<_> = sent.headers.get_all("transfer-encoding").iter().collect();
    let is_framed = if sent.is_chunked { codings == ["chunked"] } else { codings.is_empty() };
    if !is_framed || sent.is_chunked != received.contains_key("transfer-encoding") {
        return Err("the body is framed in another way than the head says".into());
    }
    if sent.trailers.iter().map(HeaderName::as_str).ne(listed(&sent.headers, "trailer")) {
        return Err("other trailers pass than are announced".into());
    }
    match listed(&sent.headers, "trailer").iter().find(|name| !listed(received, "trailer").contains(name)) {
        Some(name) => Err(format!("the trailer {name} came from nowhere")),
        None => Ok(()),
    }
}

fn claims_fields(received: &HeaderMap, sent: &HeaderMap, environment: &Environment) -> Result<(), String> {
    let sent = &without_our_type(received, sent, environment)?;
    let own = injected(environment);
    for (name, value) in &own {
        let same: Vec<_> = sent.iter().filter(|(other, _)| plain(other.as_str()) == plain(name)).collect();
        if same.len() != 1 || same[0].1.as_bytes() != value.as_slice() {
            return Err(format!("{name} is not exactly what is injected"));
        }
    }
    let is_own = |name: &str| own.iter().any(|(own, _)| *own == name);
    for (name, value) in sent {
        let (name, looks) = (name.as_str(), plain(name.as_str()));
        let is_left = |names: &[&str]| names.contains(&looks.as_str());
        // Another environment's own name means nothing to this one.
        let is_credential = is_left(&CREDENTIALS) && (looks != "x-own-key" || is_own("x-own_key"));
        if is_credential && !is_own(name) {
            return Err(format!("{name} is left"));
        }
        let allowed = match name {
            "te" => value == "trailers",
            "connection" => value == "te",
            "transfer-encoding" => value == "chunked" && received.contains_key(name),
            _ => !is_left(&HOP_BY_HOP) && !is_left(&DETOURS) && looks != "transfer-encoding",
        };
        if !allowed {
            return Err(format!("{name} is left"));
        }
    }
    for (name, expected) in [
        ("host", environment.dial.authority.as_bytes()),
        ("via", &b"1.1 mxgate"[..]),
        ("accept-encoding", b"identity"),
    ] {
        let values: Vec<_> = sent.get_all(name).iter().map(HeaderValue::as_bytes).collect();
        if values != [expected] {
            return Err(format!("{name} is {values:?}"));
        }
    }
    for named in listed(received, "connection") {
        let is_kept = ["content-length", "transfer-encoding", "te", "connection"].contains(&named.as_str());
        if sent.contains_key(&named) && !is_kept && !OURS.contains(&named.as_str()) && !is_own(&named) {
            return Err(format!("{named} was named by Connection"));
        }
    }
    for name in listed(sent, "trailer") {
        if CREDENTIALS.contains(&plain(&name).as_str()) || HOP_BY_HOP.contains(&plain(&name).as_str()) {
            return Err(format!("a trailer {name} is announced"));
        }
    }
    the_rest_is_kept(received, sent)
}

/// A body without a type gets one at MX, which is JSON; a type that `Connection` takes out is none. The rest of the claims
/// is about what remains.
fn without_our_type(received: &HeaderMap, sent: &HeaderMap, at: &Environment) -> Result<HeaderMap, String> {
    let mut rest = sent.clone();
    let has_body = received.contains_key("transfer-encoding")
        || received.get("content-length").is_some_and(|length| length != "0");
    let is_typed = received.contains_key("content-type")
        && !listed(received, "connection").iter().any(|named| named == "content-type");
    if at.api == policy::Api::Platform && has_body && !is_typed {
        let ours: Vec<_> = sent.get_all("content-type").iter().collect();
        if ours != ["application/json"] {
            return Err(format!("a body without a type has {ours:?}"));
        }
        rest.remove("content-type");
    }
    Ok(rest)
}

/// Fields that are nobody's business pass as they came, values in their order.
fn the_rest_is_kept(received: &HeaderMap, sent: &HeaderMap) -> Result<(), String> {
    const KEPT: [&str; 10] = [
        "x-trace",
        "user-agent",
        "content-type",
        "content-length",
        "accept-language",
        "x_trace",
        "idempotency-key",
        "x-idempotency-key",
        "mx-3dx-token",
        "etag",
    ];
    let named = listed(received, "connection");
    for name in
        KEPT.into_iter().filter(|name| *name == "content-length" || !named.iter().any(|one| one == name))
    {
        if !received.get_all(name).iter().eq(sent.get_all(name)) {
            return Err(format!("{name} did not pass as it came"));
        }
    }
    let made_up = |name: &HeaderName| {
        let is_known = OURS.contains(&name.as_str()) || ["te", "connection"].contains(&name.as_str());
        !is_known && !received.contains_key(name) && !plain(name.as_str()).ends_with("-key") && {
            !["authorization", "mx-client-id", "cache-control"].contains(&name.as_str())
        }
    };
    match sent.keys().find(|name| made_up(name)) {
        Some(name) => Err(format!("{name} came from nowhere")),
        None => Ok(()),
    }
}

/// Names and values that this environment attaches, from its kind and the secret, and not from the code.
fn injected(environment: &Environment) -> Vec<(&'static str, Vec<u8>)> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let fields: Vec<(&'static str, String)> = match &*environment.name {
        "production" => {
            vec![("authorization", format!("Basic {}", STANDARD.encode(format!("CLIENT:{SECRET}"))))]
        }
        "sandbox" => vec![("mx-api-key", SECRET.into()), ("mx-client-id", "CLIENT".into())],
        "atrium" => vec![("authorization", format!("API_KEY {SECRET}")), ("mx-client-id", "CLIENT".into())],
        "other" => vec![("x-own_key", format!("T {SECRET}"))],
        "bearer" => vec![("authorization", format!("Bearer {SECRET}"))],
        "query" => vec![],
        other => panic!("no such environment: {other}"),
    };
    fields.into_iter().map(|(name, value)| (name, value.into_bytes())).collect()
}

pub(super) fn claims_caller(
    received: &HeaderMap,
    passed: &HeaderMap,
    environment: &Environment,
) -> Result<(), String> {
    const STAYS: [&str; 8] = [
        "set-cookie",
        "set-cookie2",
        "alt-svc",
        "clear-site-data",
        "refresh",
        "timing-allow-origin",
        "transfer-encoding",
        "x-mxgate-request-id",
    ];
    for name in passed.keys().map(HeaderName::as_str) {
        if STAYS.contains(&name) || HOP_BY_HOP.contains(&name) || name.starts_with("access-control-") {
            return Err(format!("{name} is left"));
        }
    }
    if !passed.contains_key("cache-control") {
        return Err("it may be cached".into());
    }
    for name in ["location", "content-location"] {
        let values = |headers: &HeaderMap| -> Vec<Vec<u8>> {
            headers.get_all(name).iter().map(|value| value.as_bytes().to_vec()).collect()
        };
        let (before, after) = (values(received), values(passed));
        if before != after && !listed(received, "connection").iter().any(|one| one == name) {
            let [after] = &after[..] else { return Err(format!("{name} became {after:?}")) };
            let here = format!("https://{}", environment.dial.authority.to_str().unwrap_or_default());
            let first = String::from_utf8_lossy(&before[0]).into_owned();
            let stays_here = first.to_ascii_lowercase().starts_with(&here);
            if !after.starts_with(b"/")
                || after.starts_with(b"//")
                || after.starts_with(b"/\\")
                || !stays_here
            {
                return Err(format!("{name} {first:?} became {:?}", after.escape_ascii().to_string()));
            }
        }
    }
    the_rest_is_kept(received, passed)?;
    if of_map(passed).len() > of_map(received).len() + 1 {
        return Err("fields were made up".into());
    }
    Ok(())
}
