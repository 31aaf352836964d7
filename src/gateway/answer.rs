//! The upstream's answer on its way to the caller: head cleaned, body masked while it streams.

use std::{
    error::Error,
    fmt,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use super::{
    End,
    entry::Entry,
    fields::{self, FieldMask, NotMaskable},
    handles::Keeping,
};
use crate::{
    gate::inbound::Session,
    limits::pace::Paced,
    listener::{connection::Connection, watch::Expiry},
    redaction::{
        self, Masker,
        body::{MaskedBody, OnHits},
    },
    refusal::Failure,
    upstream::{Answer, exchange::Exchange, headers},
    worker::view::EnvironmentView,
};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{CONNECTION, CONTENT_ENCODING},
    response,
};
use http_body::{Body, Frame, SizeHint};

/// On every answer, ours and the upstream's.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-mxgate-request-id");

/// An answer, and what is needed to pass it on.
pub(crate) struct Passage {
    status: StatusCode,
    fields: HeaderMap,
    body: PassageBody,
    environment: Rc<EnvironmentView>,
    /// Finds the secret that was injected; `None` when none of ours was.
    masker: Option<Arc<Masker>>,
}

enum PassageBody {
    Streaming(Box<Exchange>),
    /// Read to its end, since its caller does not get to see all of it.
    Whole(String),
}

impl Passage {
    pub(crate) fn new(answer: Answer, environment: Rc<EnvironmentView>, masker: Option<Arc<Masker>>) -> Self {
        let Answer { status, fields, exchange } = answer;
        Self { status, fields, body: PassageBody::Streaming(exchange), environment, masker }
    }

    /// Whether the upstream did what it was asked for.
    pub(crate) fn is_success(&self) -> bool {
        self.status.is_success()
    }

    /// Reads the body to its end, puts handles in the places of its tokens, and masks what `mask` says.
    pub(super) async fn rewrite(
        &mut self,
        at: &Connection,
        keeping: Option<&Keeping>,
        mask: Option<&FieldMask>,
        entry: &mut Entry,
    ) -> Result<(), End> {
        let PassageBody::Streaming(exchange) = &mut self.body else { return Ok(()) };
        if exchange.is_end_stream() {
            fields::describes_no_more(&mut self.fields);
            return Ok(());
        }
        if is_encoded(&self.fields) {
            return Err(Failure::UpstreamEncoding.into());
        }
        let idle = self.environment.settings.timeouts.idle;
        let read = {
            let whole =
                pin!(fields::whole_answer(exchange, &mut self.fields, &at.session, idle, entry.paced()));
            at.session.watch.until_expired(whole).await
        };
        let mut text = match read {
            Ok(Ok(text)) => text,
            // The caller's own body was refused or broke off: that is why nothing more came.
            Ok(Err(failure)) => return Err(at.session.body_refusal().map_or(failure.into(), End::from)),
            Err(expiry) => return Err(expiry.into()),
        };
        // An answer that turned out to have no body has nothing to hide.
        if let Some(keeping) = keeping.filter(|_| !text.is_empty()) {
            let kept = keeping.kept(at, text, &mut self.fields).await?;
            at.session.add_masked(kept.masked);
            entry.kept(kept.count);
            text = kept.text;
        }
        if let Some(mask) = mask.filter(|_| !text.is_empty()) {
            text = mask.apply(&text).map_err(|NotMaskable| Failure::AnswerNotMaskable)?.into();
        }
        self.body = PassageBody::Whole(std::mem::take(&mut *text));
        Ok(())
    }
}

/// Makes the answer fit for the caller.
pub(crate) fn pass_on(
    at: &Rc<Connection>,
    passage: Passage,
    entry: &mut Entry,
) -> Result<(response::Parts, Content), End> {
    let Passage { status, fields, body, environment, masker } = passage;
    let (mut head, ()) = Response::new(()).into_parts();
    head.status = status;
    head.headers = fields;
    let bodyless = matches!(&body, PassageBody::Streaming(exchange) if exchange.is_end_stream());
    if !bodyless && is_encoded(&head.headers) {
        return Err(Failure::UpstreamEncoding.into());
    }
    headers::to_caller(&mut head.headers, &environment.settings);
    let masker = masker.unwrap_or_else(|| at.worker.nothing_to_mask());
    at.session.add_masked(redaction::mask_headers(&masker, &mut head.headers));
    entry.allowed(head.status);
    if bodyless {
        entry.complete();
    }
    let content = match body {
        PassageBody::Streaming(exchange) => Content::Upstream(UpstreamBody {
            body: MaskedBody::new(exchange, masker, CountMasked(at.session.clone())),
            idle: environment.settings.timeouts.idle,
            paced: entry.paced(),
            waiting: false,
            broken: None,
        }),
        PassageBody::Whole(text) => {
            let mut text = text.into_bytes();
            at.session.add_masked(masker.mask(&mut text));
            entry.sent(text.len());
            entry.complete();
            Content::whole(text.into())
        }
    };
    Ok((head, content))
}

/// Puts head and body together, for a caller that speaks `version`.
pub(crate) fn response(
    at: &Rc<Connection>,
    version: http::Version,
    mut head: response::Parts,
    content: Content,
    entry: Box<Entry>,
) -> Response<AnswerBody> {
    head.headers.insert(REQUEST_ID, entry.request_id().header());
    // HTTP/1.0 has no chunks: an answer of unknown length ends with its connection.
    let ends_by_close = version == http::Version::HTTP_10 && content.size_hint().exact().is_none();
    if ends_by_close || at.worker.closing() || at.session.body_pending() {
        head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    head.version = http::Version::HTTP_11;
    if ends_by_close {
        at.session.begin_answer_that_ends_by_close();
    }
    Response::from_parts(
        head,
        AnswerBody { content, ends_by_close, entry: Some(entry), session: at.session.clone() },
    )
}

/// Whether the body is in a form in which the secret would not be found.
fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// Adds what was masked to the record.
struct CountMasked(Rc<Session>);

impl OnHits for CountMasked {
    fn on_hits(&mut self, hits: usize) {
        self.0.add_masked(hits);
    }
}

/// The body of any answer. When it is dropped the exchange is over; the record is closed when the answer is in the kernel.
pub(crate) struct AnswerBody {
    content: Content,
    ends_by_close: bool,
    /// Until the body is dropped.
    entry: Option<Box<Entry>>,
    session: Rc<Session>,
}

pub(crate) enum Content {
    /// At hand from its first byte to its last.
    Whole(Option<Bytes>),
    Upstream(UpstreamBody),
}

impl Content {
    fn whole(text: Bytes) -> Self {
        Self::Whole(Some(text).filter(|text| !text.is_empty()))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(text) => SizeHint::with_exact(text.as_ref().map_or(0, Bytes::len) as u64),
            Self::Upstream(upstream) => upstream.body.size_hint(),
        }
    }
}

/// An upstream's body.
pub(crate) struct UpstreamBody {
    body: MaskedBody<Box<Exchange>, CountMasked>,
    idle: Duration,
    /// What its bytes keep to.
    paced: Option<Paced>,
    /// Whether the wait for the next piece has begun.
    waiting: bool,
    /// Why no more of it will come.
    broken: Option<Failure>,
}

impl AnswerBody {
    /// One of our own answers.
    pub(crate) fn own(at: &Connection, text: Bytes, mut entry: Box<Entry>) -> Self {
        entry.sent(text.len());
        let session = at.session.clone();
        Self { content: Content::whole(text), ends_by_close: false, entry: Some(entry), session }
    }
}

impl UpstreamBody {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        session: &Session,
        entry: &mut Entry,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        // A caller whose own body was refused is the reason that nothing more comes.
        let broken = || self.broken.map(|failure| session.body_refusal().map_or(failure.into(), End::from));
        let over = session.watch.expired().map(End::from).or_else(broken);
        if let Some(end) = over {
            self.cut_off(&end, entry);
            return Poll::Ready(Some(Err(Cut)));
        }
        if let Some(paced) = &mut self.paced {
            ready!(paced.poll(cx, &session.watch));
        }
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Pending => {
                // Only time in which the upstream could have sent something counts, not a caller that
                // reads slowly.
                if !self.waiting {
                    self.waiting = true;
                    session.watch.upstream(self.idle, Expiry::AnswerIdle);
                }
                Poll::Pending
            }
            Poll::Ready(frame) => {
                self.waiting = false;
                session.watch.upstream_done();
                match &frame {
                    Some(Ok(frame)) => {
                        let bytes = frame.data_ref().map_or(0, Bytes::len);
                        entry.sent(bytes);
                        if let Some(paced) = &self.paced {
                            paced.spend(bytes);
                        }
                        if self.body.is_end_stream() {
                            entry.complete();
                        }
                    }
                    Some(Err(error)) => {
                        // When a body fails, hyper drops what it has not written, the head as well. So it
                        // gets to write first, and asks again.
                        self.broken = Some(*error);
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    None => entry.complete(),
                }
                Poll::Ready(frame.map(|frame| frame.map_err(|_| Cut)))
            }
        }
    }

    /// Ends the exchange before its end.
    fn cut_off(&mut self, end: &End, entry: &mut Entry) {
        if self.body.inner_mut().abandon() {
            entry.cut_off(end);
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let this = &mut *self;
        match (&mut this.content, &mut this.entry) {
            (Content::Whole(text), _) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            (Content::Upstream(upstream), Some(entry)) => upstream.poll_frame(cx, &this.session, entry),
            (Content::Upstream(_), None) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole(text) => text.is_none(),
            Content::Upstream(upstream) => upstream.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.content.size_hint()
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        let Some(mut entry) = self.entry.take() else { return };
        if let Content::Upstream(upstream) = &mut self.content {
            if self.ends_by_close && entry.is_complete() {
                self.session.complete_answer_that_ends_by_close();
            }
            // hyper could not ask for the rest: the caller does not read.
            if let Some(expiry) = self.session.watch.expired() {
                upstream.cut_off(&expiry.into(), &mut entry);
            }
        }
        entry.release();
        // What is left of the answer is written first: its caller waits for it, and not for the record.
        self.session.end_answer(entry);
    }
}

/// The transfer ends here, before its end; hyper closes the connection so that the caller can see it.
#[derive(Debug)]
pub(crate) struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer was cut off")
    }
}

impl Error for Cut {}
