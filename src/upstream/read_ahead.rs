//! Large reads under TLS.
//!
//! rustls takes 4 KiB at a time from whatever is below it, one system call each. Here up to 64 KiB are
//! taken at once. What rustls did not ask for yet waits in a buffer that the connection has only as
//! long: connections of one thread lend the same few to each other.
//!
//! It also knows where TLS's records end. What has come of the next one rustls keeps to itself until that is whole, and a
//! connection on which half a record waits is not used again.

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
    records: Records,
}

/// How far a stream of TLS records (RFC 8446, 5.1) has been handed on: five bytes before each, the last two its length.
#[derive(Debug, Default)]
struct Records {
    /// Bytes of the current record that are not handed on yet.
    left: usize,
    /// Bytes of the next record's header that are.
    header: u8,
    length: usize,
}

impl Records {
    const HEADER: u8 = 5;

    fn pass(&mut self, mut bytes: &[u8]) {
        loop {
            let whole = self.left.min(bytes.len());
            self.left -= whole;
            let Some((&first, rest)) = bytes.get(whole..).and_then(<[u8]>::split_first) else { return };
            bytes = rest;
            self.header += 1;
            self.length = (self.length << 8 | usize::from(first)) & 0xFFFF;
            if self.header == Self::HEADER {
                (self.left, self.header) = (self.length, 0);
            }
        }
    }

    fn is_between(&self) -> bool {
        self.left == 0 && self.header == 0
    }
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
        Self { stream, ahead: None, records: Records::default() }
    }

    /// Whether all that came is handed on, and ends with a record.
    pub(crate) fn is_even(&self) -> bool {
        self.ahead.is_none() && self.records.is_between()
    }
}

impl Ahead {
    /// Hands on what fits; gives itself back when nothing is left.
    fn hand_on(mut self, to: &mut ReadBuf<'_>, records: &mut Records) -> Option<Self> {
        let rest = &self.buffer[self.taken..self.filled];
        let count = rest.len().min(to.remaining());
        to.put_slice(&rest[..count]);
        records.pass(&rest[..count]);
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
        this.ahead = ahead.hand_on(to, &mut this.records);
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

    fn record(length: u16) -> Vec<u8> {
        let [high, low] = length.to_be_bytes();
        [&[23, 3, 3, high, low][..], &vec![0xff; usize::from(length)]].concat()
    }

    #[test]
    fn records_end_where_their_lengths_say_however_they_come() {
        let lengths = [1, 0, 255, 256, 16_640];
        let stream: Vec<u8> = lengths.iter().flat_map(|length| record(*length)).collect();
        let mut ends = vec![0];
        lengths.iter().for_each(|length| ends.push(ends[ends.len() - 1] + 5 + usize::from(*length)));
        for step in [1, 2, 3, 5, 7, 64, stream.len()] {
            let (mut records, mut passed) = (Records::default(), 0);
            assert!(records.is_between());
            for piece in stream.chunks(step) {
                records.pass(piece);
                passed += piece.len();
                assert_eq!(records.is_between(), ends.contains(&passed), "{passed} in steps of {step}");
            }
        }
    }

    #[tokio::test]
    async fn it_is_even_when_all_is_handed_on_and_ends_with_a_record() {
        let text = [record(10), record(20)].concat();
        let mut stream = ReadAhead::new(tokio::io::join(text.as_slice(), tokio::io::sink()));
        assert!(stream.is_even());
        for (count, is_even) in [(7, false), (8, false), (20, false), (5, true)] {
            stream.read_exact(&mut vec![0; count]).await.unwrap();
            assert_eq!(stream.is_even(), is_even, "{count}");
        }
    }

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
