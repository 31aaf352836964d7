//! Large reads under TLS.
//!
//! rustls takes 4 KiB at a time from whatever is below it, one system call each. Here up to 64 KiB are
//! taken at once. What rustls did not ask for yet waits in a buffer that the connection has only as
//! long: connections of one thread lend the same few to each other.

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const BUFFER_BYTES: usize = 64 * 1024;

/// Buffers that a thread keeps for the next read.
const SPARES_MAX: usize = 4;

thread_local! {
    static SPARES: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// The stream with what was read ahead.
#[derive(Debug)]
pub(crate) struct ReadAhead<S> {
    stream: S,
    ahead: Option<Ahead>,
}

/// Bytes that wait: `buffer[taken..filled]`, at least one.
#[derive(Debug)]
struct Ahead {
    buffer: Box<[u8]>,
    taken: usize,
    filled: usize,
}

impl<S> ReadAhead<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, ahead: None }
    }
}

impl Ahead {
    /// Hands on what fits; gives itself back when nothing is left.
    fn hand_on(mut self, to: &mut ReadBuf<'_>) -> Option<Self> {
        let rest = &self.buffer[self.taken..self.filled];
        let count = rest.len().min(to.remaining());
        to.put_slice(&rest[..count]);
        self.taken += count;
        if self.taken < self.filled {
            return Some(self);
        }
        give_back(self.buffer);
        None
    }
}

fn borrow() -> Box<[u8]> {
    SPARES.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; BUFFER_BYTES].into())
}

fn give_back(buffer: Box<[u8]>) {
    SPARES.with_borrow_mut(|spares| {
        if spares.len() < SPARES_MAX {
            spares.push(buffer);
        }
    });
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let ahead = match this.ahead.take() {
            Some(ahead) => ahead,
            None => {
                let mut buffer = borrow();
                let mut large = ReadBuf::new(&mut buffer);
                let poll = Pin::new(&mut this.stream).poll_read(cx, &mut large);
                let filled = large.filled().len();
                if filled == 0 {
                    give_back(buffer);
                    return poll;
                }
                Ahead { buffer, taken: 0, filled }
            }
        };
        this.ahead = ahead.hand_on(to);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn small_reads_get_every_byte_in_order_and_leave_no_buffer() {
        let text: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
        let mut stream = ReadAhead::new(tokio::io::join(text.as_slice(), tokio::io::sink()));
        let mut got = Vec::new();
        let mut piece = [0; 4096];
        loop {
            match stream.read(&mut piece).await.unwrap() {
                0 => break,
                count => got.extend_from_slice(&piece[..count]),
            }
        }
        assert!(got == text);
        assert!(stream.ahead.is_none());
        assert!(SPARES.with_borrow(|spares| spares.len() == 1), "one buffer did for all of it");
    }
}
