//! The byte stream under hyper: what hyper cannot say is said here.
//!
//! hyper's server sends only well-formed answers. A stand-in must also send 1xx heads, garbage, a second
//! answer, and must break off by RST. And it keeps the request's head as it was on the wire, which hyper's header
//! map does not (order and case of names).

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use memchr::memmem;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

/// Bytes of a head that are kept.
const HEAD_BYTES_MAX: usize = 128 << 10;

/// TCP, with or without TLS.
pub(super) enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Transport {
    /// The name that the client sent in TLS.
    pub(super) fn sni(&self) -> Option<String> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(tls) => tls.get_ref().1.server_name().map(str::to_owned),
        }
    }

    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }
}

/// A transport and what is to be said on it beside hyper.
pub(super) struct Wire {
    transport: Transport,
    orders: Orders,
}

/// Shared between a connection's wire and its requests.
#[derive(Clone, Default)]
pub(super) struct Orders(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// What was read since the last [`Orders::forget`].
    seen: Vec<u8>,
    /// To be written before hyper's next byte.
    before: Bytes,
    /// To be written after hyper's next flush.
    after: Bytes,
    /// hyper's own bytes go nowhere.
    mute: bool,
    /// The end is an RST.
    reset: bool,
}

impl Orders {
    /// The head of the request that was read last, if it starts as expected.
    pub(super) fn head(&self, start: &str) -> Bytes {
        let state = self.lock();
        let end = memmem::find(&state.seen, b"\r\n\r\n").map_or(0, |end| end + 4);
        match state.seen.get(..end) {
            Some(head) if head.starts_with(start.as_bytes()) => Bytes::copy_from_slice(head),
            _ => Bytes::new(),
        }
    }

    /// The request was read; what comes now belongs to the next.
    pub(super) fn forget(&self) {
        self.lock().seen.clear();
    }

    /// Says `bytes` before the next answer.
    pub(super) fn say_before(&self, bytes: impl Into<Bytes>) {
        self.lock().before = bytes.into();
    }

    /// Says `bytes` when the answer was flushed.
    pub(super) fn say_after(&self, bytes: impl Into<Bytes>) {
        self.lock().after = bytes.into();
    }

    /// Says `bytes` and nothing else any more.
    pub(super) fn say_instead(&self, bytes: impl Into<Bytes>) {
        let mut state = self.lock();
        state.before = bytes.into();
        state.mute = true;
    }

    /// The connection ends with an RST.
    pub(super) fn end_by_reset(&self) {
        self.lock().reset = true;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wire {
    pub(super) fn new(transport: Transport, orders: Orders) -> Self {
        Self { transport, orders }
    }

    /// Whether the connection is to end with an RST; then dropping it does so.
    pub(super) fn prepare_reset(&self) -> bool {
        self.orders.lock().reset && self.transport.tcp().set_zero_linger().is_ok()
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.transport).poll_read(cx, buf))?;
        let new = buf.filled().get(before..).unwrap_or_default();
        let mut state = self.orders.lock();
        if state.seen.len() + new.len() <= HEAD_BYTES_MAX {
            state.seen.extend_from_slice(new);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Self { transport, orders } = self.get_mut();
        let mut state = orders.lock();
        ready!(write_all(transport, cx, &mut state.before))?;
        if state.mute {
            return Poll::Ready(Ok(buf.len()));
        }
        drop(state);
        Pin::new(transport).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { transport, orders } = self.get_mut();
        ready!(write_all(transport, cx, &mut orders.lock().after))?;
        Pin::new(transport).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}

fn write_all(transport: &mut Transport, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<io::Result<()>> {
    while !bytes.is_empty() {
        match ready!(Pin::new(&mut *transport).poll_write(cx, bytes))? {
            0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            written => bytes.advance(written),
        }
    }
    Poll::Ready(Ok(()))
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
