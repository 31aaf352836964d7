//! A request on its way out.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::{
    gate::{answer::Turn, inbound::Session},
    listener::watch::Expiry,
};

/// A request whose headers are clean and carry the credential.
pub(crate) struct Outgoing {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: OutgoingBody,
    repeatable: bool,
}

impl Outgoing {
    /// `may_repeat` is the catalogue's word; a request with a body is never repeated, since the body is
    /// passed on as it comes and is gone then.
    pub(crate) fn new(
        method: Method,
        uri: Uri,
        headers: HeaderMap,
        body: Incoming,
        may_repeat: bool,
    ) -> Self {
        let body = if http_body::Body::is_end_stream(&body) {
            OutgoingBody::Empty
        } else {
            OutgoingBody::Streaming(body, None)
        };
        let repeatable = may_repeat && matches!(body, OutgoingBody::Empty);
        Self { method, uri, headers, body, repeatable }
    }

    pub(crate) fn repeatable(&self) -> bool {
        self.repeatable
    }

    /// A second one, if it may be sent twice.
    pub(crate) fn copy(&self) -> Option<Self> {
        self.repeatable.then(|| Self {
            method: self.method.clone(),
            uri: self.uri.clone(),
            headers: self.headers.clone(),
            body: OutgoingBody::Empty,
            repeatable: true,
        })
    }

    /// As hyper takes it. While the body is passed on, each piece starts the wait for the answer anew.
    pub(crate) fn into_request(
        self,
        session: &Rc<Session>,
        first_byte: Duration,
        turn: &Rc<Turn>,
    ) -> Request<OutgoingBody> {
        turn.begin(self.method == Method::HEAD, matches!(self.body, OutgoingBody::Empty));
        let body = match self.body {
            OutgoingBody::Empty => OutgoingBody::Empty,
            OutgoingBody::Streaming(body, _) => {
                let progress = Progress { session: session.clone(), first_byte, turn: turn.clone() };
                OutgoingBody::Streaming(body, Some(progress))
            }
        };
        let mut request = Request::new(body);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        request
    }

    /// Takes back what hyper did not send.
    pub(crate) fn from_request(request: Request<OutgoingBody>) -> Self {
        let (parts, body) = request.into_parts();
        Self {
            method: parts.method,
            uri: parts.uri,
            headers: parts.headers,
            body,
            // It goes over a new connection now, and nothing is repeated after one of those.
            repeatable: false,
        }
    }
}

/// The caller's body, passed on as it comes.
pub(crate) enum OutgoingBody {
    Empty,
    Streaming(Incoming, Option<Progress>),
}

/// Whom to tell that the body moves.
pub(crate) struct Progress {
    session: Rc<Session>,
    first_byte: Duration,
    turn: Rc<Turn>,
}

impl Body for OutgoingBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Self::Streaming(body, progress) = &mut *self else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
        if let Some(progress) = progress {
            progress.session.watch.upstream(progress.first_byte, Expiry::FirstByte);
            if frame.is_none() || http_body::Body::is_end_stream(body) {
                progress.turn.request_sent.set(true);
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streaming(body, _) => http_body::Body::is_end_stream(body),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streaming(body, _) => body.size_hint(),
        }
    }
}
