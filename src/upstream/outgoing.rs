//! A request that is ready to be sent, and may be sent again.

use std::{rc::Rc, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Method};
use http_body::Body as _;
use hyper::body::Incoming;

use super::{headers::RequestHead, upload::Body};
use crate::vault::freshness::{Deadline, Moment};

/// A request whose head is written.
pub(crate) struct Outgoing {
    pub(crate) head: Bytes,
    pub(crate) is_head: bool,
    /// Gone when it has been sent.
    pub(crate) body: Body,
    /// Empty, for the answer's fields: an allocation less.
    pub(crate) spare: HeaderMap,
    repeatable: bool,
    /// When the credential in its head may be used no longer.
    deadline: Option<Rc<Arc<Deadline>>>,
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
            deadline: None,
            body,
            spare: received,
        }
    }

    /// The same request with another head, whose credential has that deadline; `None` if it may not be repeated.
    pub(crate) fn again(&self, head: RequestHead, deadline: Rc<Arc<Deadline>>) -> Option<Self> {
        self.repeatable.then(|| Self {
            head: head.text,
            is_head: self.is_head,
            body: Body::Over,
            spare: HeaderMap::new(),
            deadline: Some(deadline),
            repeatable: true,
        })
    }

    /// The same, to be sent before its credential's time is over.
    pub(crate) fn until(self, deadline: Option<Rc<Arc<Deadline>>>) -> Self {
        Self { deadline, ..self }
    }

    /// Whether that time is over.
    pub(crate) fn is_over(&self) -> bool {
        self.deadline.as_ref().is_some_and(|deadline| deadline.has_passed(Moment::now))
    }

    pub(crate) fn repeatable(&self) -> bool {
        self.repeatable
    }
}
