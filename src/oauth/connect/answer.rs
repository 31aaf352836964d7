//! What a browser is answered.
//!
//! In: what came of its request. Out: a page or a redirect, with the fields that keep browsers from doing more with it than
//! showing it.
//!
//! What must never happen: an answer that a cache keeps, a frame shows, or a next page learns the address of.

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};

use super::{
    Failure,
    pages::{self, Form},
    record::Order,
};

/// What a browser is answered.
pub(super) enum Answer {
    /// The page of a ticket, with its button.
    Ticket(Box<Order>),
    /// On to the provider, with the cookie for the way back.
    Away { provider: String, url: String, cookie: String },
    /// On to the caller's URL.
    Back { url: String, cookie: String },
    /// The user, or the provider for it, said no. `back`: the return URL may be used.
    Refused { order: Box<Order>, back: bool, cookie: String },
    /// There is no connection for another reason.
    Failed { order: Box<Order>, failure: Box<Failure>, back: bool, cookie: Option<String> },
    /// A ticket or a state that is none, or none any more. Which it is, is not said.
    Unknown,
    /// The store does not answer.
    Later,
    /// Another site's page may have sent it.
    CrossSite,
    /// No page is asked for in this way.
    Turned(StatusCode),
}

impl Answer {
    fn cookie(&self) -> Option<&str> {
        match self {
            Self::Away { cookie, .. } | Self::Back { cookie, .. } | Self::Refused { cookie, .. } => {
                Some(cookie)
            }
            Self::Failed { cookie, .. } => cookie.as_deref(),
            Self::Ticket(_) | Self::Unknown | Self::Later | Self::CrossSite | Self::Turned(_) => None,
        }
    }
}

/// `secure`: the listener is reached over TLS.
pub(super) fn respond(answer: &Answer, secure: bool) -> Response {
    let (status, page) = match answer {
        Answer::Ticket(order) => (StatusCode::OK, pages::ticket(order)),
        Answer::Away { provider, url, .. } => (StatusCode::OK, pages::away(provider, url)),
        Answer::Back { url, .. } => return with_fields(redirect(url), answer, secure),
        Answer::Refused { order, back, .. } => (StatusCode::OK, pages::refused(order, *back)),
        Answer::Failed { order, failure, back, .. } => {
            let status = match failure.passes() {
                true => StatusCode::SERVICE_UNAVAILABLE,
                false => StatusCode::BAD_GATEWAY,
            };
            (status, pages::failed(order, failure, *back))
        }
        Answer::Unknown => (StatusCode::NOT_FOUND, pages::unknown()),
        Answer::Later => (StatusCode::SERVICE_UNAVAILABLE, pages::later()),
        Answer::CrossSite => (StatusCode::FORBIDDEN, pages::cross_site()),
        Answer::Turned(status) => (*status, pages::turned_away()),
    };
    let mut response = Response::new(Body::from(page.into_string()));
    *response.status_mut() = status;
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, html);
    with_fields(response, answer, secure)
}

fn redirect(url: &str) -> Response {
    let mut response = Response::new(Body::empty());
    // It is a URL of the configuration with parameters of letters, so it is always one.
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    if let Ok(url) = HeaderValue::try_from(url) {
        *response.status_mut() = StatusCode::SEE_OTHER;
        response.headers_mut().insert(header::LOCATION, url);
    }
    response
}

fn with_fields(mut response: Response, answer: &Answer, secure: bool) -> Response {
    let fields = response.headers_mut();
    for (name, value) in FIELDS {
        fields.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let form = if matches!(answer, Answer::Ticket(_)) { Form::Ours } else { Form::None };
    fields.insert(header::CONTENT_SECURITY_POLICY, pages::policy(form));
    if secure {
        let year = HeaderValue::from_static("max-age=31536000");
        fields.insert(header::STRICT_TRANSPORT_SECURITY, year);
    }
    if let Some(cookie) = answer.cookie() {
        set_cookie(&mut response, cookie);
    }
    response
}

fn set_cookie(response: &mut Response, cookie: &str) {
    if let Ok(mut value) = HeaderValue::try_from(cookie) {
        value.set_sensitive(true);
        response.headers_mut().insert(header::SET_COOKIE, value);
    }
}

const FIELDS: [(&str, &str); 9] = [
    ("cache-control", "no-store"),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-embedder-policy", "require-corp"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=(), payment=()"),
    ("x-robots-tag", "noindex, nofollow"),
];
