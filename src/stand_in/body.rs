//! An answer's body: given bytes or a pattern, in pieces, late, and perhaps broken off.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use super::wire::Orders;

/// Bytes of one piece of a big body.
const BLOCK_BYTES: usize = 64 << 10;

/// How often hyper gets to flush before the body breaks off.
const FLUSHES_BEFORE_CUT: u8 = 2;

/// What is sent, repeated without end.
#[derive(Clone)]
pub(super) struct Source {
    block: Bytes,
    length: u64,
}

impl Source {
    /// These bytes, once.
    pub(super) fn once(bytes: Bytes) -> Self {
        Self { length: bytes.len() as u64, block: bytes }
    }

    /// `length` bytes of lines that say `tag`.
    pub(super) fn lines(tag: &str, length: u64) -> Self {
        let line = format!("{tag}\n");
        Self { block: line.repeat(BLOCK_BYTES / line.len() + 1).into(), length }
    }
}

/// The body as hyper reads it.
pub(super) struct AnswerBody {
    source: Source,
    at: u64,
    piece: usize,
    wait: Option<Duration>,
    waiting: Option<Pin<Box<Sleep>>>,
    cut_after: Option<u64>,
    flushes: u8,
    length_known: bool,
    /// Said when the last byte was handed over.
    trailing: Option<(Orders, Bytes)>,
}

impl AnswerBody {
    pub(super) fn new(source: Source) -> Self {
        Self {
            source,
            at: 0,
            piece: usize::MAX,
            wait: None,
            waiting: None,
            cut_after: None,
            flushes: 0,
            length_known: true,
            trailing: None,
        }
    }

    /// In pieces of `bytes`.
    pub(super) fn in_pieces(mut self, bytes: usize) -> Self {
        self.piece = bytes.max(1);
        self
    }

    /// Waits before each piece.
    pub(super) fn late(mut self, wait: Duration) -> Self {
        self.wait = Some(wait);
        self
    }

    /// Breaks off after `bytes`, if there are more.
    pub(super) fn cut_after(mut self, bytes: u64) -> Self {
        self.cut_after = Some(bytes).filter(|&bytes| bytes < self.source.length);
        self
    }

    /// Without Content-Length.
    pub(super) fn chunked(mut self) -> Self {
        self.length_known = false;
        self
    }

    /// Says `bytes` when all was said.
    pub(super) fn trailed_by(mut self, orders: Orders, bytes: Bytes) -> Self {
        self.trailing = Some((orders, bytes));
        self
    }

    fn next_piece(&mut self) -> Bytes {
        let block = self.source.block.len() as u64;
        let end = self.cut_after.unwrap_or(self.source.length);
        let start = if block == 0 { 0 } else { self.at % block };
        let length = (end - self.at).min(block - start).min(self.piece as u64);
        self.at += length;
        #[expect(clippy::cast_possible_truncation, reason = "both lie inside the block")]
        self.source.block.slice(start as usize..(start + length) as usize)
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.at == self.source.length {
            return Poll::Ready(None);
        }
        if self.cut_after == Some(self.at) {
            // hyper drops what it has not flushed when a body fails.
            if self.flushes < FLUSHES_BEFORE_CUT {
                self.flushes += 1;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            return Poll::Ready(Some(Err(io::Error::other("cut off as asked"))));
        }
        if let Some(wait) = self.wait {
            let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(wait)));
            ready!(waiting.as_mut().poll(cx));
            self.waiting = None;
        }
        Poll::Ready(Some(Ok(Frame::data(self.next_piece()))))
    }

    fn is_end_stream(&self) -> bool {
        self.at == self.source.length
    }

    fn size_hint(&self) -> SizeHint {
        if self.length_known {
            SizeHint::with_exact(self.source.length - self.at)
        } else {
            SizeHint::default()
        }
    }
}

impl Drop for AnswerBody {
    /// hyper drops a body whose length it knows after its last byte, without asking for more.
    fn drop(&mut self) {
        if let Some((orders, bytes)) = self.trailing.take() {
            orders.say_after(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    #[tokio::test]
    async fn lines_repeat_the_tag_over_block_edges_up_to_the_length() {
        let length = BLOCK_BYTES as u64 * 2 + 5;
        let all = AnswerBody::new(Source::lines("tag-7", length)).collect().await.unwrap().to_bytes();
        assert_eq!(all.len() as u64, length);
        assert!(all.chunks(6).all(|line| b"tag-7\n".starts_with(line)));
    }

    #[tokio::test]
    async fn a_body_without_bytes_ends_at_once() {
        assert!(AnswerBody::new(Source::once(Bytes::new())).in_pieces(1).frame().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn pieces_are_late_by_the_wait_each() {
        let begin = tokio::time::Instant::now();
        let body = AnswerBody::new(Source::once("abcde".into())).in_pieces(2).late(Duration::from_millis(30));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "abcde");
        assert_eq!(begin.elapsed(), Duration::from_millis(90));
    }

    #[tokio::test]
    async fn a_cut_body_fails_after_its_bytes_and_a_longer_cut_does_nothing() {
        let mut cut = AnswerBody::new(Source::once("abcde".into())).cut_after(3);
        assert_eq!(cut.frame().await.unwrap().unwrap().into_data().unwrap(), "abc");
        assert!(cut.frame().await.unwrap().is_err());
        let whole = AnswerBody::new(Source::once("abcde".into())).cut_after(5);
        assert_eq!(whole.collect().await.unwrap().to_bytes(), "abcde");
    }
}
