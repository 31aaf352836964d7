//! What MX would answer: the checks in MX's order, then the operation.
//!
//! Pure but for the environment's keys, tokens and jobs. Who calls, at which host, with which credential; then whether
//! the path exists, in which version, in which media type; then the body; then the operation itself. The
//! texts of MX's errors are not documented, but for that of 401.

use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};

use super::{
    Served, Shared,
    answers::{Asked, answers},
    credentials::{self, Shown},
    jobs::{Jobs, Member},
    journal::Request,
};
use crate::mx::{
    Version,
    catalogue::{Operation, OperationCredential},
    media::{MediaType, preferred},
};

/// MX's own text.
const UNAUTHORIZED: &str = "Invalid MX-API-Key or MX-Client-ID provided.";

const PDF: &[u8] = b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n\
2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n\
3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]>>endobj\n\
trailer<</Root 1 0 R>>\n%%EOF\n";

/// A request, read.
pub(super) struct Ask<'r> {
    pub(super) request: &'r Request,
    pub(super) operation: Option<&'r Operation>,
    /// `None`: it was not read, by a switch.
    pub(super) body: Option<&'r Bytes>,
}

/// An answer without its switches.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) media_type: Option<MediaType>,
    pub(super) body: Bytes,
}

/// MX's no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) message: String,
}

impl Problem {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

impl From<Problem> for Reply {
    fn from(problem: Problem) -> Self {
        let body = json!({"error": {"status": problem.status.as_u16(), "message": problem.message}});
        Self { status: problem.status, media_type: Some(MediaType::Json), body: body.to_string().into() }
    }
}

/// Who may ask, and at which environment; or MX's no.
pub(super) fn admit<'s>(shared: &'s Shared, ask: &Ask<'_>) -> Result<&'s Served, Problem> {
    let allow = shared.options.allow.as_ref();
    if allow.is_some_and(|allow| !allow.iter().any(|net| net.contains(&ask.request.peer.to_canonical()))) {
        return Err(Problem::new(StatusCode::FORBIDDEN, "This address is not on the allowlist."));
    }
    let environment = find_environment(shared, ask)
        .ok_or_else(|| Problem::new(StatusCode::MISDIRECTED_REQUEST, "This host is not served here."))?;
    let credential = ask.operation.map_or(OperationCredential::Environment, |operation| operation.credential);
    let shown = Shown { headers: &ask.request.headers, query: ask.request.uri.query() };
    if !credentials::accepted(environment, shared.now(), credential, shown) {
        return Err(Problem::new(StatusCode::UNAUTHORIZED, UNAUTHORIZED));
    }
    match ask.request.oddities.as_slice() {
        [odd, ..] if shared.options.strict => {
            Err(Problem::new(StatusCode::BAD_REQUEST, format!("No gateway should send this: {odd:?}.")))
        }
        _ => Ok(environment),
    }
}

/// The answer to a request that may ask.
pub(super) fn answer(shared: &Shared, environment: &Served, ask: &Ask<'_>) -> Result<Reply, Problem> {
    let not_found = || Problem::new(StatusCode::NOT_FOUND, "The requested resource was not found.");
    let Some(operation) = ask.operation else {
        let any = Reply {
            status: StatusCode::OK,
            media_type: Some(MediaType::Json),
            body: Bytes::from_static(b"{}"),
        };
        return if environment.options.any_path { Ok(any) } else { Err(not_found()) };
    };
    let (version, media_type) = negotiate(
        operation,
        &ask.request.headers,
        shared.options.accept_version_required,
    )
    .ok_or_else(|| {
        Problem::new(StatusCode::NOT_ACCEPTABLE, "Accept-Version or Accept names no version that is served.")
    })?;
    if !operation.versions.is_empty() && !operation.versions.contains(version) {
        return Err(not_found());
    }
    match operation.id {
        "rotateApiKey" => return rotate(environment, ask.request.uri.path(), shared.now()),
        "retireApiKey" => return retire(environment, shared.now()),
        "createClient" => {
            return Err(Problem::new(StatusCode::FORBIDDEN, "This client may not create clients."));
        }
        _ => {}
    }
    let reply = run(shared, environment, ask, (operation, version, media_type))?;
    let time = (shared.now(), shared.options.token_life);
    environment.tokens.answered(operation.id, ask.request.uri.query(), reply, time)
}

/// The operation itself.
fn run(
    shared: &Shared,
    environment: &Served,
    ask: &Ask<'_>,
    (operation, version, media_type): (&Operation, Version, MediaType),
) -> Result<Reply, Problem> {
    let answer = answers().find(operation, version).ok_or_else(|| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "The stand-in has no answer to this.")
    })?;
    let body = match ask.body {
        Some(sent) => read_body(sent, &answer.required)?,
        None => None,
    };
    let member = member(environment.index, operation, ask.request.uri.path());
    let job = operation.id == "readMemberStatus" && shared.jobs.read_status(&member);
    if let Some(kind) = Jobs::kind(operation.id)
        && !shared.jobs.start(member, kind)
    {
        return Err(Problem::new(StatusCode::CONFLICT, "Another job is running on this member."));
    }
    let asked = Asked {
        operation,
        path: ask.request.uri.path(),
        query: ask.request.uri.query(),
        body: body.as_ref(),
        entries: shared.options.list_entries,
        job,
    };
    let status = answer.status();
    Ok(match answer.render(&asked) {
        Some(body) => Reply { status, media_type: Some(media_type), body },
        None if media_type == MediaType::V1Pdf => {
            Reply { status, media_type: Some(media_type), body: Bytes::from_static(PDF) }
        }
        None => Reply { status, media_type: None, body: Bytes::new() },
    })
}

/// The environment whose host the request names, or else the one for any host. `Host` and SNI must agree.
fn find_environment<'s>(shared: &'s Shared, ask: &Ask<'_>) -> Option<&'s Served> {
    let host = ask.request.headers.get(header::HOST)?.to_str().ok()?;
    let host: http::uri::Authority = host.parse().ok()?;
    let host = host.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    if ask.request.sni.as_ref().is_some_and(|sni| *sni != host) {
        return None;
    }
    let place = |wanted: Option<&str>| {
        shared.environments.iter().find(|environment| environment.options.host.as_deref() == wanted)
    };
    place(Some(&host)).or_else(|| place(None))
}

/// The version and the media type of the answer.
fn negotiate(
    operation: &Operation,
    headers: &HeaderMap,
    accept_version_required: bool,
) -> Option<(Version, MediaType)> {
    let accept = headers.get_all(header::ACCEPT);
    let names = |wanted: MediaType| accept.iter().any(|value| value.to_str().is_ok_and(|v| lists(v, wanted)));
    let mut versions = headers.get_all("accept-version").iter();
    let version = match (versions.next(), versions.next()) {
        (Some(version), None) => Version::parse(version.to_str().ok()?)?,
        (None, _) if !accept_version_required && !names(MediaType::Json) => Version::V20111101,
        _ => return None,
    };
    let first = preferred(operation, version.as_str());
    // An answer without a body has no type to ask for, and MX's own clients ask for none.
    if operation.media_types.is_empty() {
        return Some((version, first));
    }
    let offered = |media_type: &MediaType| match version {
        Version::V20111101 => *media_type == first,
        Version::V20250224 => operation.media_types.contains(media_type),
    };
    let media_type = MediaType::ALL.into_iter().filter(offered).find(|&t| names(t))?;
    Some((version, media_type))
}

fn lists(accept: &str, wanted: MediaType) -> bool {
    accept
        .split(',')
        .any(|range| MediaType::parse(range.split(';').next().unwrap_or("").trim()) == Some(wanted))
}

fn read_body(sent: &[u8], required: &[String]) -> Result<Option<Value>, Problem> {
    let invalid = |message: String| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, message);
    if sent.is_empty() && required.is_empty() {
        return Ok(None);
    }
    let body: Value =
        serde_json::from_slice(sent).map_err(|_| invalid("The body is not valid JSON.".to_owned()))?;
    let held = |name: &String| body.get(name).is_some_and(|value| !value.is_null());
    if required.is_empty() || required.iter().any(held) {
        Ok(Some(body))
    } else {
        Err(invalid(format!("Required field `{}` is missing.", required.join("` or `"))))
    }
}

/// The member that a path names, wherever it goes on to.
fn member(environment: usize, operation: &Operation, path: &str) -> Member {
    let segments =
        operation.template.split('/').take_while(|segment| *segment != "{member_guid}").count() + 1;
    Member { environment, path: path.split('/').take(segments).collect::<Vec<_>>().join("/") }
}

fn rotate(environment: &Served, path: &str, now: SystemTime) -> Result<Reply, Problem> {
    let key = environment
        .keys
        .rotate(now)
        .ok_or_else(|| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "No random numbers."))?;
    let body = json!({"api_key": {
        "api_key": key,
        "client_guid": path.split('/').nth(2),
        "client_id": environment.options.client_id,
        "guid": "APK-123",
    }});
    Ok(Reply { status: StatusCode::OK, media_type: Some(MediaType::Json), body: body.to_string().into() })
}

fn retire(environment: &Served, now: SystemTime) -> Result<Reply, Problem> {
    if environment.keys.retire(now) {
        Ok(Reply { status: StatusCode::NO_CONTENT, media_type: None, body: Bytes::new() })
    } else {
        Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "No API key rotation is in progress."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mx::catalogue::catalogue;
    use http::HeaderValue;

    fn negotiated(
        id: &str,
        version: Option<&'static str>,
        accept: Option<&'static str>,
        required: bool,
    ) -> String {
        let mut headers = HeaderMap::new();
        if let Some(version) = version {
            headers.insert("accept-version", HeaderValue::from_static(version));
        }
        if let Some(accept) = accept {
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        }
        negotiate(catalogue().by_id(id).unwrap(), &headers, required)
            .map_or("406".to_owned(), |(version, media)| format!("{} {}", version.as_str(), media.as_str()))
    }

    const V1: &str = "application/vnd.mx.api.v1+json";
    const JSON: &str = "application/json";

    #[test]
    fn the_version_needs_its_header_and_a_type_that_it_serves() {
        let new = Some("v20250224");
        let old = Some("v20111101");
        assert_eq!(negotiated("listUsers", new, Some(JSON), true), format!("v20250224 {JSON}"));
        assert_eq!(negotiated("listUsers", new, Some(V1), true), format!("v20250224 {V1}"));
        assert_eq!(negotiated("listUsers", old, Some(V1), true), format!("v20111101 {V1}"));
        assert_eq!(
            negotiated("readGoal", old, Some("text/plain, application/json;q=0.1"), true),
            format!("v20111101 {JSON}")
        );
        assert_eq!(negotiated("deleteUser", old, None, true), format!("v20111101 {V1}"));
        assert_eq!(negotiated("deleteUser", None, Some(V1), true), "406");
        for (version, accept) in [
            (new, None),
            (new, Some("*/*")),
            (new, Some("text/html")),
            (old, Some(JSON)),
            (None, Some(JSON)),
            (None, Some(V1)),
            (Some("v1"), Some(V1)),
            (Some("V20250224"), Some(JSON)),
        ] {
            assert_eq!(negotiated("listUsers", version, accept, true), "406", "{version:?} {accept:?}");
        }
    }

    #[test]
    fn where_the_header_is_not_required_the_type_names_the_version() {
        assert_eq!(negotiated("listUsers", None, Some(V1), false), format!("v20111101 {V1}"));
        assert_eq!(negotiated("listUsers", None, Some(JSON), false), "406");
        assert_eq!(negotiated("listUsers", Some("v1"), Some(V1), false), "406");
    }

    #[test]
    fn a_body_must_be_json_and_hold_what_is_required() {
        let read = |body: &[u8], required: &[&str]| {
            read_body(body, &required.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(read(b"", &[]), Ok(None));
        assert_eq!(read(b"{}", &[]), Ok(Some(json!({}))));
        assert!(read(br#"{"user":{}}"#, &["user"]).is_ok());
        assert!(read(br#"{"institution":{}}"#, &["institution", "profile"]).is_ok());
        for (body, required) in [
            (&b"{"[..], &[][..]),
            (b"", &["user"]),
            (b"[]", &["user"]),
            (br#"{"user":null}"#, &["user"]),
            (br#"{"users":{}}"#, &["user"]),
            (br#"{"user":{}}"#, &["institution", "profile"]),
        ] {
            assert_eq!(read(body, required).unwrap_err().status, StatusCode::UNPROCESSABLE_ENTITY);
        }
    }

    #[test]
    fn a_member_is_the_same_whatever_is_done_to_it() {
        let of = |id, path| member(0, catalogue().by_id(id).unwrap(), path).path;
        assert_eq!(of("aggregateMember", "/users/U/members/M/aggregate"), "/users/U/members/M");
        assert_eq!(of("readMemberStatus", "/users/U/members/M/status"), "/users/U/members/M");
    }
}
