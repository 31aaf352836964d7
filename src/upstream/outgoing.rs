//! A request that is ready to be sent, and may be sent again.

use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderMap, Method};
use http_body::Body as _;
use hyper::body::Incoming;

use super::{headers::RequestHead, upload::Body};
use crate::vault::freshness::{Moment, Term};

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
    term: Option<Rc<Term>>,
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
            term: None,
            body,
            spare: received,
        }
    }

    /// The same request with another head, whose credential has that term; `None` if it may not be repeated.
    pub(crate) fn again(&self, head: RequestHead, term: Rc<Term>) -> Option<Self> {
        self.repeatable.then(|| Self {
            head: head.text,
            is_head: self.is_head,
            body: Body::Over,
            spare: HeaderMap::new(),
            term: Some(term),
            repeatable: true,
        })
    }

    /// A request that has no body, and may be repeated, whose credential has that term.
    pub(crate) fn without_body(method: &Method, head: RequestHead, term: Rc<Term>) -> Self {
        Self {
            head: head.text,
            is_head: method == Method::HEAD,
            body: Body::Over,
            spare: HeaderMap::new(),
            repeatable: true,
            term: Some(term),
        }
    }

    /// The same, to be sent before its credential's time is over.
    pub(crate) fn until(self, term: Option<Rc<Term>>) -> Self {
        Self { term, ..self }
    }

    /// Whether that time is over.
    pub(crate) fn is_over(&self) -> bool {
        self.term.as_ref().is_some_and(|term| term.0.has_passed(Moment::now))
    }

    pub(crate) fn repeatable(&self) -> bool {
        self.repeatable
    }
}
