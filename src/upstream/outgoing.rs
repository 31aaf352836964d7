//! A request that is ready to be sent, and may be sent again.

use bytes::Bytes;
use http::{HeaderMap, Method};
use http_body::Body as _;
use hyper::body::Incoming;

use super::{headers::RequestHead, upload::Body};

/// A request whose head is written.
pub(crate) struct Outgoing {
    pub(crate) head: Bytes,
    pub(crate) is_head: bool,
    /// Gone when it has been sent.
    pub(crate) body: Body,
    /// Empty, for the answer's fields: an allocation less.
    pub(crate) spare: HeaderMap,
    repeatable: bool,
}

impl Outgoing {
    /// `may_repeat` is the catalogue's word; a request with a body is never repeated, since the body is
    /// passed on as it comes and is gone then. `received` has served, and is used again.
    pub(crate) fn new(
        method: &Method,
        head: RequestHead,
        body: Incoming,
        may_repeat: bool,
        mut received: HeaderMap,
    ) -> Self {
        let body = if head.is_chunked {
            Body::Chunked(body, head.trailers)
        } else if body.is_end_stream() {
            Body::Over
        } else {
            Body::Length(body)
        };
        received.clear();
        Self {
            head: head.text,
            is_head: method == Method::HEAD,
            repeatable: may_repeat && matches!(body, Body::Over),
            body,
            spare: received,
        }
    }

    /// The same request with another head; `None` if it may not be repeated.
    pub(crate) fn again(&self, head: RequestHead) -> Option<Self> {
        self.repeatable.then(|| Self {
            head: head.text,
            is_head: self.is_head,
            body: Body::Over,
            spare: HeaderMap::new(),
            repeatable: true,
        })
    }

    pub(crate) fn repeatable(&self) -> bool {
        self.repeatable
    }
}
