//! What an upstream answers, read strictly: exactly one well-formed answer for each request.
//!
//! In go the connection's bytes, in whatever pieces they come. Out come the head, and then the body's
//! data and trailers. Two readers must agree on a head, as on the callers' side: `framing` judges its
//! bytes and says where body and head end, httparse reads the fields. What must never happen: a byte of
//! one answer becomes part of another, or an answer that broke off looks complete.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body::{Frame, SizeHint};
use tokio::io::AsyncBufRead;
use zeroize::Zeroizing;

use crate::{
    framing::{
        HeadLimits,
        answer::{self, AnswerFraming, AnswerHead},
        chunked::ChunkedScanner,
    },
    refusal::Failure,
};

/// Bounds of an answer's head.
const LIMITS: HeadLimits = HeadLimits {
    header_bytes_max: 64 * 1024,
    header_count_max: 100,
    request_line_bytes_max: 8 * 1024,
    body_bytes_max: u64::MAX,
};

/// Interim answers (1xx) that are read before the final one.
const INTERIM_MAX: u8 = 16;

/// Reads one answer.
pub(crate) struct AnswerReader {
    /// The part of a head that has come. Normally a head comes whole, and this stays empty. In the end there may be
    /// something of the body behind it, which may be secret.
    partial: Zeroizing<Vec<u8>>,
    interim: u8,
    body: Body,
    keep_alive: bool,
}

enum Body {
    /// The head has not been read.
    Awaited,
    Length(u64),
    Chunked(Box<Chunks>),
    UntilClose,
    /// What is left of a chunked body.
    Trailers(HeaderMap),
    Over,
}

/// One step through a body.
enum Part {
    /// What there was of data was gathered.
    Data,
    Trailers(HeaderMap),
    End,
}

/// What a body's data is gathered in.
trait Gather {
    /// `piece` is the beginning of `at_hand` bytes, among which there may be more.
    fn add(&mut self, piece: &[u8], at_hand: usize) -> Result<(), Failure>;
}

/// To be passed on.
impl Gather for BytesMut {
    fn add(&mut self, piece: &[u8], at_hand: usize) -> Result<(), Failure> {
        self.reserve(at_hand);
        self.extend_from_slice(piece);
        Ok(())
    }
}

/// To be wiped. It never grows, since that would leave a copy behind that nobody wipes.
impl Gather for Zeroizing<Vec<u8>> {
    fn add(&mut self, piece: &[u8], _at_hand: usize) -> Result<(), Failure> {
        if piece.len() > self.capacity() - self.len() {
            return Err(Failure::UpstreamMalformed);
        }
        self.extend_from_slice(piece);
        Ok(())
    }
}

impl AnswerReader {
    pub(crate) fn new() -> Self {
        Self { partial: Zeroizing::default(), interim: 0, body: Body::Awaited, keep_alive: false }
    }

    /// Reads the final answer's head, past interim ones, into `fields`, which is empty. `is_head`: it
    /// answers a HEAD request.
    pub(crate) fn poll_head<S: AsyncBufRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
        is_head: bool,
        fields: &mut HeaderMap,
    ) -> Poll<Result<StatusCode, Failure>> {
        loop {
            let bytes = ready!(poll_fill(cx, stream))?;
            let (come, seen) = (bytes.len(), self.partial.len());
            let text = if seen == 0 {
                bytes
            } else {
                self.partial.extend_from_slice(bytes);
                &self.partial
            };
            let head =
                answer::scan_head(text, seen, &LIMITS, is_head).map_err(|_| Failure::UpstreamMalformed)?;
            let Some(head) = head else {
                if seen == 0 {
                    self.partial.extend_from_slice(bytes);
                }
                Pin::new(&mut *stream).consume(come);
                continue;
            };
            if !head.interim {
                read_fields(&text[..head.len], fields).ok_or(Failure::UpstreamMalformed)?;
            }
            Pin::new(&mut *stream).consume(head.len - seen);
            self.partial = Zeroizing::default();
            if !head.interim {
                return Poll::Ready(self.begin_body(&head));
            }
            self.interim += 1;
            if self.interim > INTERIM_MAX {
                return Poll::Ready(Err(Failure::UpstreamMalformed));
            }
        }
    }

    fn begin_body(&mut self, head: &AnswerHead) -> Result<StatusCode, Failure> {
        self.keep_alive = head.keep_alive;
        self.body = match head.framing {
            AnswerFraming::None => Body::Over,
            AnswerFraming::Length(length) => Body::Length(length),
            AnswerFraming::Chunked => Body::Chunked(Box::new(Chunks::new())),
            AnswerFraming::UntilClose => Body::UntilClose,
        };
        StatusCode::from_u16(head.status).map_err(|_| Failure::UpstreamMalformed)
    }

    /// The next piece of the body; `None` at its end.
    pub(crate) fn poll_body<S: AsyncBufRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let mut data = BytesMut::new();
        loop {
            return Poll::Ready(match ready!(self.poll_part(cx, stream, &mut data))? {
                Part::Data if data.is_empty() => continue,
                Part::Data => Some(Ok(Frame::data(data.freeze()))),
                Part::Trailers(trailers) => Some(Ok(Frame::trailers(trailers))),
                Part::End => None,
            });
        }
    }

    /// Reads the rest of the body, without its trailers, into `whole`; more than that has room for is a failure.
    pub(crate) fn poll_rest<S: AsyncBufRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
        whole: &mut Zeroizing<Vec<u8>>,
    ) -> Poll<Result<(), Failure>> {
        while !matches!(ready!(self.poll_part(cx, stream, whole))?, Part::End) {}
        Poll::Ready(Ok(()))
    }

    /// Goes on by what has come; data is added to `data`.
    fn poll_part<S: AsyncBufRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
        data: &mut impl Gather,
    ) -> Poll<Result<Part, Failure>> {
        let count = match &mut self.body {
            Body::Awaited | Body::Over => return Poll::Ready(Ok(Part::End)),
            Body::Trailers(trailers) => {
                let trailers = std::mem::take(trailers);
                self.body = Body::Over;
                return Poll::Ready(Ok(Part::Trailers(trailers)));
            }
            Body::UntilClose => {
                let bytes = ready!(Pin::new(&mut *stream).poll_fill_buf(cx)).map_err(broken)?;
                data.add(bytes, bytes.len())?;
                if bytes.is_empty() {
                    self.body = Body::Over;
                }
                bytes.len()
            }
            Body::Length(left) => {
                let bytes = ready!(poll_fill(cx, stream))?;
                let count = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                data.add(&bytes[..count], count)?;
                *left -= count as u64;
                if *left == 0 {
                    self.body = Body::Over;
                }
                count
            }
            Body::Chunked(chunks) => {
                let bytes = ready!(poll_fill(cx, stream))?;
                let count = chunks.decode(bytes, data)?;
                if chunks.is_over {
                    let trailers = chunks.trailers().ok_or(Failure::UpstreamMalformed)?;
                    self.body = if trailers.is_empty() { Body::Over } else { Body::Trailers(trailers) };
                }
                count
            }
        };
        Pin::new(&mut *stream).consume(count);
        Poll::Ready(Ok(Part::Data))
    }

    /// Whether the answer has been read whole.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.body, Body::Over)
    }

    /// Whether the upstream takes another request after this answer.
    pub(crate) fn keeps_alive(&self) -> bool {
        self.keep_alive
    }

    /// What is known of the rest of the body.
    pub(crate) fn size_hint(&self) -> SizeHint {
        match self.body {
            Body::Length(left) => SizeHint::with_exact(left),
            Body::Over | Body::Trailers(_) => SizeHint::with_exact(0),
            Body::Awaited | Body::Chunked(_) | Body::UntilClose => SizeHint::default(),
        }
    }
}

/// At least one byte: the end must not come here.
fn poll_fill<'s, S: AsyncBufRead + Unpin>(
    cx: &mut Context<'_>,
    stream: &'s mut S,
) -> Poll<Result<&'s [u8], Failure>> {
    let bytes = ready!(Pin::new(stream).poll_fill_buf(cx)).map_err(broken)?;
    Poll::Ready(if bytes.is_empty() { Err(Failure::UpstreamClosed) } else { Ok(bytes) })
}

/// TLS that was not closed in order ends here as well.
fn broken(_: io::Error) -> Failure {
    Failure::UpstreamClosed
}

/// Reads the fields of a head that was judged before; `None` if httparse does not agree.
fn read_fields(head: &[u8], fields: &mut HeaderMap) -> Option<()> {
    let mut slots = [const { MaybeUninit::uninit() }; LIMITS.header_count_max];
    let mut answer = httparse::Response::new(&mut []);
    let parsed =
        httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut answer, head, &mut slots);
    if parsed != Ok(httparse::Status::Complete(head.len())) {
        return None;
    }
    // One copy for all values.
    let text = Bytes::copy_from_slice(head);
    for field in answer.headers.iter() {
        append(fields, field, &text, head)?;
    }
    Some(())
}

/// `field` is part of `head`, of which `text` is a copy.
fn append(fields: &mut HeaderMap, field: &httparse::Header<'_>, text: &Bytes, head: &[u8]) -> Option<()> {
    let start = (field.value.as_ptr() as usize).checked_sub(head.as_ptr() as usize)?;
    let value =
        text.get(start..start + field.value.len()).map(|_| text.slice(start..start + field.value.len()))?;
    let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
    fields.try_append(name, HeaderValue::from_maybe_shared(value).ok()?).ok()?;
    Some(())
}

/// A chunked body on its way through.
struct Chunks {
    scanner: ChunkedScanner,
    /// The trailer section, with the empty line that ends it.
    trailers: Vec<u8>,
    is_over: bool,
}

impl Chunks {
    fn new() -> Self {
        Self { scanner: ChunkedScanner::of_answer(), trailers: Vec::new(), is_over: false }
    }

    /// Adds the data in `bytes` to `data`; how many of them belong to the body.
    fn decode(&mut self, bytes: &[u8], data: &mut impl Gather) -> Result<usize, Failure> {
        let mut at = 0;
        while at < bytes.len() && !self.is_over {
            let certain = usize::try_from(self.scanner.certain()).unwrap_or(usize::MAX);
            let end = (at.saturating_add(certain.max(1))).min(bytes.len());
            let piece = &bytes[at..end];
            let in_trailers = self.scanner.in_trailers();
            self.is_over = self.scanner.scan(piece).map_err(|_| Failure::UpstreamMalformed)?.done;
            if certain > 0 {
                data.add(piece, bytes.len() - at)?;
            } else if in_trailers {
                self.trailers.extend_from_slice(piece);
            }
            at = end;
        }
        Ok(at)
    }

    /// The fields of the trailer section, when all of it has come.
    fn trailers(&self) -> Option<HeaderMap> {
        let mut slots = [httparse::EMPTY_HEADER; 32];
        let mut fields = HeaderMap::new();
        let Ok(httparse::Status::Complete((_, trailers))) =
            httparse::parse_headers(&self.trailers, &mut slots)
        else {
            return None;
        };
        let text = Bytes::copy_from_slice(&self.trailers);
        for field in trailers {
            append(&mut fields, field, &text, &self.trailers)?;
        }
        Some(fields)
    }
}

#[cfg(test)]
mod tests;
