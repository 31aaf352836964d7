//! A request on its way out: its head, then its body as it comes from the caller.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use http::{HeaderMap, HeaderName};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::io::AsyncWrite;

use crate::{gate::inbound::Session, limits::pace::Paced, listener::watch::Expiry};

/// Data of fewer bytes waits a turn for more: each write is a TLS record and a packet, and a caller's chunk may be one byte.
const SMALL: usize = 1024;

/// What is left of a request to be sent.
pub(crate) struct Upload {
    /// Wire bytes that wait for the stream: the head, and one piece of the body in its framing.
    head: Bytes,
    piece: Piece,
    /// Small data that waits.
    gathered: Vec<u8>,
    body: Body,
    is_chunked: bool,
    progress: Progress,
    /// Everything was taken by the stream and flushed.
    sent: bool,
}

/// Framing, data, framing.
type Piece = [Bytes; 3];

/// What a caller's body brings.
enum Part {
    Data(Bytes),
    /// What tells the upstream that it is over.
    End(Bytes),
}

/// The caller's body, and how the upstream learns of its end.
pub(crate) enum Body {
    /// There is none, or all of it has been taken.
    Over,
    /// The head has said how long it is.
    Length(Incoming),
    /// Trailers of these names may follow the last chunk.
    Chunked(Incoming, Vec<HeaderName>),
}

/// Whom to tell that the body moves: each piece starts the wait for the answer anew.
pub(crate) struct Progress {
    pub(crate) session: Rc<Session>,
    pub(crate) first_byte: Duration,
    /// What its bytes keep to.
    pub(crate) paced: Option<Paced>,
}

/// Why a request could not be sent whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsent {
    /// The caller's body was refused or broke off.
    Caller,
    /// The upstream does not take it.
    Upstream,
}

impl Upload {
    pub(crate) fn new(head: Bytes, body: Body, progress: Progress) -> Self {
        let is_chunked = matches!(body, Body::Chunked(..));
        Self { head, piece: Piece::default(), gathered: Vec::new(), body, is_chunked, progress, sent: false }
    }

    /// Whether the upstream has been sent all of it.
    pub(crate) fn is_sent(&self) -> bool {
        self.sent
    }

    /// Sends what the stream takes; ready when all of it is out.
    pub(crate) fn poll<S: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<Result<(), Unsent>> {
        while !self.sent {
            // What the caller has sent already goes out with the head, in one write.
            if self.piece.iter().all(Bytes::is_empty) {
                match self.poll_piece(cx) {
                    Poll::Ready(Some(piece)) => {
                        self.piece = piece?;
                        if let Some(paced) = &self.progress.paced {
                            paced.spend(self.piece.iter().map(Bytes::len).sum());
                        }
                        self.progress.session.watch.upstream(self.progress.first_byte, Expiry::FirstByte);
                    }
                    rest if self.head.is_empty() => {
                        ready!(Pin::new(&mut *stream).poll_flush(cx)).map_err(|_| Unsent::Upstream)?;
                        ready!(rest);
                        self.sent = true;
                        break;
                    }
                    _ => {}
                }
            }
            ready!(self.poll_write(cx, stream)).map_err(|_| Unsent::Upstream)?;
        }
        Poll::Ready(Ok(()))
    }

    /// The next piece, when it may pass.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece, Unsent>>> {
        let progress = &mut self.progress;
        if let Some(paced) = progress.paced.as_mut().filter(|_| !matches!(self.body, Body::Over)) {
            ready!(paced.poll(cx, &progress.session.watch));
        }
        let data = match self.body.poll_part(cx, progress.session.body_pending()) {
            Poll::Ready(Some(Ok(Part::Data(data)))) => data,
            Poll::Ready(Some(Ok(Part::End(end)))) => {
                return Poll::Ready(Some(Ok(self.piece(Bytes::new(), end))));
            }
            // The turn is over.
            Poll::Pending if !self.gathered.is_empty() => Bytes::new(),
            rest => return rest.map_ok(|_| Piece::default()),
        };
        let is_last = data.is_empty() || matches!(self.body, Body::Over);
        if is_last || !self.head.is_empty() || self.gathered.len() + data.len() >= SMALL {
            return Poll::Ready(Some(Ok(self.piece(data, Bytes::new()))));
        }
        self.gathered.extend_from_slice(&data);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// What was gathered and `data`, in the body's framing, and what ends it.
    fn piece(&mut self, data: Bytes, end: Bytes) -> Piece {
        let data = match self.gathered.is_empty() {
            true => data,
            false => {
                self.gathered.extend_from_slice(&data);
                std::mem::take(&mut self.gathered).into()
            }
        };
        match self.is_chunked && !data.is_empty() {
            true if end.is_empty() => {
                [format!("{:x}\r\n", data.len()).into(), data, Bytes::from_static(b"\r\n")]
            }
            true => [format!("{:x}\r\n", data.len()).into(), data, [b"\r\n", &*end].concat().into()],
            false => [Bytes::new(), data, end],
        }
    }

    fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<io::Result<()>> {
        let [before, data, after] = &mut self.piece;
        let waiting = [&mut self.head, before, data, after];
        let slices = waiting.each_ref().map(|bytes| IoSlice::new(bytes));
        let mut taken = ready!(match waiting.each_ref().map(|bytes| bytes.is_empty()) {
            // rustls copies once less when it gets one slice.
            [false, true, true, true] => Pin::new(stream).poll_write(cx, waiting[0]),
            _ => Pin::new(stream).poll_write_vectored(cx, &slices),
        })?;
        if taken == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        for bytes in waiting {
            let count = taken.min(bytes.len());
            bytes.advance(count);
            taken -= count;
            if bytes.is_empty() {
                // What is out is let go: the head's bytes are wiped then.
                *bytes = Bytes::new();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Body {
    /// `is_pending`: the caller has not sent the end of its body. Then hyper's "nothing more" is no end, and what was
    /// sent must not look whole.
    fn poll_part(&mut self, cx: &mut Context<'_>, is_pending: bool) -> Poll<Option<Result<Part, Unsent>>> {
        loop {
            let (Self::Length(incoming) | Self::Chunked(incoming, _)) = self else {
                return Poll::Ready(None);
            };
            let Some(frame) = ready!(Pin::new(&mut *incoming).poll_frame(cx)) else {
                // A body with a length is over with its last byte.
                if is_pending || matches!(self, Self::Length(_)) {
                    return Poll::Ready(Some(Err(Unsent::Caller)));
                }
                return Poll::Ready(self.end(&HeaderMap::new()).map(|end| Ok(Part::End(end))));
            };
            match frame.map_err(|_| Unsent::Caller)?.into_data() {
                // An empty chunk would be the last.
                Ok(data) if data.is_empty() => {}
                Ok(data) => {
                    if matches!(self, Self::Length(incoming) if incoming.is_end_stream()) {
                        *self = Self::Over;
                    }
                    return Poll::Ready(Some(Ok(Part::Data(data))));
                }
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    return Poll::Ready(self.end(&trailers).map(|end| Ok(Part::End(end))));
                }
            }
        }
    }

    /// What tells the upstream that the body is over; `None` if it knows.
    fn end(&mut self, trailers: &HeaderMap) -> Option<Bytes> {
        let Self::Chunked(_, announced) = std::mem::replace(self, Self::Over) else { return None };
        let mut text = b"0\r\n".to_vec();
        for (name, value) in trailers.iter().filter(|(name, _)| announced.contains(name)) {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                text.extend_from_slice(part);
            }
        }
        text.extend_from_slice(b"\r\n");
        Some(text.into())
    }
}
