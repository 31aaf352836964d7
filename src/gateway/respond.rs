//! The one place where an early end becomes an answer: status, a stable code, the request id, and a text
//! for the caller's developer that helps no attacker. The details are in the log and the record.

use std::rc::Rc;

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER},
};

use super::{
    End,
    answer::{AnswerBody, REQUEST_ID},
    entry::{Entry, RequestId},
};
use crate::{
    limits::retry_after,
    listener::connection::Connection,
    refusal::{Failure, Refusal},
};

/// Answers a request that ended early.
pub(crate) fn end(at: &Rc<Connection>, end: End, entry: Box<Entry>) -> Response<AnswerBody> {
    let detail = parts(&end).2;
    ended(at, end, detail, entry)
}

/// The same for what is asked of the gateway itself, with words that say more. They may hold what JSON has to escape.
pub(super) fn refused(
    at: &Rc<Connection>,
    refusal: Refusal,
    detail: &str,
    entry: Box<Entry>,
) -> Response<AnswerBody> {
    let quoted = serde_json::Value::from(detail).to_string();
    let escaped = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or_default();
    ended(at, refusal.into(), escaped, entry)
}

/// Answers what was asked of the gateway itself.
pub(super) fn own(
    at: &Rc<Connection>,
    status: StatusCode,
    text: Bytes,
    mut entry: Box<Entry>,
) -> Response<AnswerBody> {
    entry.answered(status);
    let id = entry.request_id().header();
    let mut response = Response::new(AnswerBody::own(at, text, entry));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REQUEST_ID, id);
    if at.worker.closing() || at.session.body_pending() {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn ended(at: &Rc<Connection>, end: End, detail: &str, mut entry: Box<Entry>) -> Response<AnswerBody> {
    let (status, code, _) = parts(&end);
    entry.ended(&end, status);
    let retry_after = retry_after::seconds(entry.wait());
    let text = problem(status, code, detail, entry.request_id());
    let id = entry.request_id().header();
    let mut response = Response::new(AnswerBody::own(at, text, entry));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REQUEST_ID, id);
    if let End::Refused(denial) = end
        && let Some(methods) = denial.allowed_methods
    {
        headers.insert(ALLOW, methods);
    }
    if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
        headers.insert(RETRY_AFTER, HeaderValue::from(retry_after));
    }
    // Whoever may not call keeps no connection either, and nobody keeps one too many. A malformed target is one wherever
    // it was found: what follows it is not read.
    let ends = [Refusal::CallerNotAllowed, Refusal::MalformedTarget, Refusal::ConnectionLimit];
    let ends = ends.iter().any(|refusal| refusal.code() == code)
        || (code == Refusal::Suspended.code() && at.caller_is_suspended());
    if ends || at.worker.closing() || at.session.body_pending() {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The bytes of an answer to something that never became a request; the connection closes after it.
pub(crate) fn raw(at: &Rc<Connection>, refusal: Refusal) -> Vec<u8> {
    let mut entry = Entry::open(at, &http::Method::CONNECT);
    let end = End::from(refusal);
    let (status, code, detail) = parts(&end);
    entry.ended(&end, status);
    let text = problem(status, code, detail, entry.request_id());
    entry.sent(text.len());
    let mut bytes = format!(
        "HTTP/1.1 {status}\r\n{CONTENT_TYPE}: application/problem+json\r\n{CONTENT_LENGTH}: {}\r\n\
         {CACHE_CONTROL}: no-store\r\n{REQUEST_ID}: {}\r\n{CONNECTION}: close\r\n\r\n",
        text.len(),
        entry.request_id().as_str(),
    )
    .into_bytes();
    bytes.extend_from_slice(&text);
    bytes
}

fn parts(end: &End) -> (StatusCode, &'static str, &'static str) {
    match end {
        End::Refused(denial) => {
            (denial.refusal.status(), denial.refusal.code(), explain_refusal(denial.refusal))
        }
        End::Failed(failure) => (failure.status(), failure.code(), explain_failure(*failure)),
    }
}

/// RFC 9457. Every part is the gateway's own text, and has what needs escaping escaped.
fn problem(status: StatusCode, code: &str, detail: &str, id: &RequestId) -> Bytes {
    let title = status.canonical_reason().unwrap_or("Error");
    format!(
        "{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{},\"code\":\"{code}\",\"detail\":\"{detail}\",\
         \"request_id\":\"{}\"}}\n",
        status.as_u16(),
        id.as_str()
    )
    .into()
}

fn explain_refusal(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::MalformedRequest => "The message is not well-formed HTTP/1.1.",
        Refusal::MalformedTarget => "The path or query is not in its one accepted spelling.",
        Refusal::HeadTimeout => "The request's head did not arrive in time.",
        Refusal::BodyTimeout => "The request's body did not arrive in time.",
        Refusal::BodyTooLarge => "The request's body is larger than this gateway accepts.",
        Refusal::RequestLineTooLong => "The request line is longer than this gateway accepts.",
        Refusal::HeaderTooLarge => "The header section is larger than this gateway accepts.",
        Refusal::ExpectationFailed => "The only expectation that can be met is 100-continue.",
        Refusal::MethodNotSupported => "This method is never forwarded.",
        Refusal::CallerNotAllowed => "This caller may not use the gateway.",
        Refusal::BrowserNotAllowed => "Requests from browsers are not accepted here.",
        Refusal::MisdirectedRequest => {
            "The Host field, or the target's scheme, names something that this listener does not serve."
        }
        Refusal::UnknownOperation => "No known operation has this path.",
        Refusal::MethodNotAllowed => "The path is known, but not with this method.",
        Refusal::OperationDenied => "This operation is not available through the gateway.",
        Refusal::FormBody => "A form is not accepted here: MX takes JSON.",
        Refusal::NoCredential => "This operation takes a Bearer token, and none is configured for it.",
        Refusal::ConnectionNotNamed => {
            "x-mxgate-connection has to name one connection, unless the path names a user."
        }
        Refusal::ConnectionDenied => "No connection of that name is for this request.",
        Refusal::ConnectionRequired => {
            "The user has not connected yet: ask for a ticket with POST /connections, and send the user there."
        }
        Refusal::ReconnectRequired => {
            "The user's consent is over: ask for a ticket with POST /connections, and send the user there."
        }
        Refusal::InsufficientScope => "The user's consent does not cover this operation.",
        Refusal::UnknownConnection => "There is no such connection.",
        Refusal::InvalidConnection => "That is no connection that could be made.",
        Refusal::Suspended => "An operator has suspended this.",
        Refusal::ConnectionLimit => "This caller has as many connections as it may have.",
        Refusal::InFlightLimit => "This caller has as many requests in flight as it may have.",
        Refusal::RateLimit => "This caller sends requests faster than it may.",
        Refusal::TicketLimit => "This caller has as many tickets that are not over as it may have.",
        Refusal::EnvironmentBudget => "All callers together use what the upstream may be asked for.",
    }
}

fn explain_failure(failure: Failure) -> &'static str {
    match failure {
        Failure::UpstreamUnreachable => "The upstream could not be reached.",
        Failure::UpstreamUntrusted => "The upstream's identity could not be verified.",
        Failure::UpstreamAddressRefused => "The upstream's name leads to an address that may not be dialled.",
        Failure::ProxyFailed => "The proxy on the way to the upstream did not let the gateway through.",
        Failure::UpstreamClosed => "The upstream closed the connection before it had answered.",
        Failure::UpstreamMalformed => "The upstream's answer was not well-formed HTTP/1.1.",
        Failure::UpstreamEncoding => "The upstream's answer came in an encoding that was not asked for.",
        Failure::AnswerNotMaskable => {
            "The answer is not JSON of at most 1 MiB, so its fields could not be masked."
        }
        Failure::ConnectTimeout => "The upstream could not be connected to in time.",
        Failure::FirstByteTimeout => "The upstream did not answer in time.",
        Failure::UpstreamIdleTimeout => "The upstream stopped answering.",
        Failure::TotalTimeout => "The exchange took too long.",
        Failure::UpstreamBusy => "All connections to the upstream are in use.",
        Failure::BreakerOpen => "The upstream has failed again and again; it is left alone for a while.",
        Failure::NoVerificationKeys => {
            "The keys that end users' tokens are verified with are not available yet."
        }
        Failure::CredentialUnavailable => {
            "The credential for the upstream was revoked, or could not be confirmed for too long."
        }
        Failure::NotRevoked => {
            "The provider did not take the tokens back, so nothing was forgotten; force=true forgets them anyway."
        }
        Failure::TokenUnavailable => "There is no access token now; its provider or the store failed.",
        Failure::NotReady => "The gateway has no usable configuration or secret yet.",
        Failure::Internal => "The gateway failed.",
    }
}
