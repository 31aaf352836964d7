//! A request that is ready to be sent, and may be sent again.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{TRAILER, TRANSFER_ENCODING},
};
use http_body::Body as _;
use hyper::body::Incoming;
use zeroize::Zeroizing;

use super::upload::{Body, push_field};

/// A request whose head is written: its fields are clean and carry the credential.
pub(crate) struct Outgoing {
    /// The wire form, which is wiped when nobody needs it any more.
    pub(crate) head: Bytes,
    pub(crate) is_head: bool,
    /// Cleared by whoever takes it.
    pub(crate) body: Body,
    /// Empty, for the answer's fields: an allocation less.
    pub(crate) spare: HeaderMap,
    repeatable: bool,
}

impl Outgoing {
    /// `may_repeat` is the catalogue's word; a request with a body is never repeated, since the body is
    /// passed on as it comes and is gone then.
    pub(crate) fn new(
        method: &Method,
        target: &[u8],
        mut fields: HeaderMap,
        body: Incoming,
        may_repeat: bool,
    ) -> Self {
        let body = if fields.contains_key(TRANSFER_ENCODING) {
            Body::Chunked(body, announced(&fields))
        } else if body.is_end_stream() {
            Body::Over
        } else {
            Body::Length(body)
        };
        let head = write_head(method, target, &fields);
        fields.clear();
        Self {
            head,
            is_head: method == Method::HEAD,
            repeatable: may_repeat && matches!(body, Body::Over),
            body,
            spare: fields,
        }
    }

    pub(crate) fn repeatable(&self) -> bool {
        self.repeatable
    }
}

/// Room for all of it beforehand: growing would leave an unwiped copy of the credential behind.
fn write_head(method: &Method, target: &[u8], fields: &HeaderMap) -> Bytes {
    let line = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + ": \r\n".len();
    let start_line = method.as_str().len() + target.len() + "  HTTP/1.1\r\n\r\n".len();
    let room = start_line + fields.iter().map(line).sum::<usize>();
    let mut text = Zeroizing::new(Vec::with_capacity(room));
    for part in [method.as_str().as_bytes(), b" ", target, b" HTTP/1.1\r\n"] {
        text.extend_from_slice(part);
    }
    for (name, value) in fields {
        push_field(&mut text, name, value.as_bytes());
    }
    text.extend_from_slice(b"\r\n");
    debug_assert_eq!(text.len(), room);
    Bytes::from_owner(text)
}

/// The names of trailers that the upstream has been told of.
fn announced(fields: &HeaderMap) -> Vec<HeaderName> {
    let lines = fields.get_all(TRAILER).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).filter_map(|name| name.trim().parse().ok()).collect()
}
