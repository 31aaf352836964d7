//! A byte stream that is handed on only as far as it is well framed.
//!
//! [`Gate`] stands between a socket and hyper. It reads, lets a [`Follow`]er judge, and passes the judged
//! prefix on unchanged: it may only *refuse*, never repair. So two independent readers, this one and
//! hyper, must agree before a message exists. [`inbound`] judges what callers send; answers have a strict
//! reader of their own (`upstream::answer`).
//!
//! Copies: a head is scanned where it was read (one scratch buffer a worker) and copied once into hyper's
//! buffer; a body in whose middle nothing can end is read straight into hyper's buffer.

pub(crate) mod inbound;

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How many bytes one read takes from a socket.
const SCRATCH_BYTES: usize = 64 * 1024;

/// How many unjudged bytes are kept while a message is in flight (a caller that pipelines).
const AHEAD_BYTES_MAX: usize = 16 * 1024;

thread_local! {
    // One a worker: a read is judged and copied out before the next one begins.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into());
}

/// Judges a byte stream.
pub(crate) trait Follow<S>: Unpin {
    /// Judges `bytes`, the ones after all that was accepted so far.
    fn follow(&mut self, bytes: &[u8]) -> Verdict;

    /// How many of the next bytes are sure to be accepted whatever they are.
    fn certain(&self) -> u64;

    /// Takes note that `count` of the certain bytes have passed unseen.
    fn passed(&mut self, count: u64);

    /// The stream has ended.
    fn ended(&mut self);

    /// Everything that hyper had to write is in the kernel. True when what was held back may pass now.
    fn flushed(&mut self, _stream: &S) -> bool {
        false
    }

    /// Something is being written: whether the other side takes it.
    fn takes(&mut self, _takes: bool, _stream: &S) {}

    /// Part of a message has come, too little to judge it.
    fn waiting(&mut self) {}

    /// Whether the reader must see the end of the stream now, whatever has come.
    fn stopped(&mut self) -> bool {
        false
    }
}

/// A follower's judgement.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// This many bytes, at least one, may pass.
    Accept(usize),
    /// More bytes are needed to judge.
    More,
    /// Nothing may pass for now: a message is in flight.
    Hold,
    /// Nothing will pass ever again; the reader sees the end of the stream.
    Refuse,
}

/// The stream with its follower.
#[derive(Debug)]
pub(crate) struct Gate<S, F> {
    stream: Metered<S>,
    pub(crate) follower: F,
    /// Bytes that were read and not handed on. Normally empty, and then without an allocation.
    held: Vec<u8>,
    /// How many of `held` may pass.
    accepted: usize,
    closed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin, F: Follow<S>> Gate<S, F> {
    pub(crate) fn new(stream: S, follower: F) -> Self {
        Self { stream: Metered { stream, read: 0 }, follower, held: Vec::new(), accepted: 0, closed: false }
    }

    pub(crate) fn into_parts(self) -> (S, F) {
        (self.stream.stream, self.follower)
    }

    /// Hands accepted bytes on.
    fn deliver(&mut self, cursor: &mut ReadBufCursor<'_>) {
        let count = self.accepted.min(cursor.remaining());
        cursor.put_slice(&self.held[..count]);
        self.accepted -= count;
        if count == self.held.len() {
            self.held = Vec::new();
        } else {
            self.held.drain(..count);
        }
    }

    /// Reads once into the scratch buffer, judges, and hands on what may pass.
    fn poll_judged(
        &mut self,
        cx: &mut Context<'_>,
        cursor: &mut ReadBufCursor<'_>,
    ) -> Poll<io::Result<Step>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
            let bytes = buffer.filled();
            if bytes.is_empty() {
                self.closed = true;
                self.follower.ended();
                return Poll::Ready(Ok(Step::Done));
            }
            if !self.held.is_empty() {
                self.held.extend_from_slice(bytes);
                return Poll::Ready(Ok(Step::Judge));
            }
            match self.follower.follow(bytes) {
                Verdict::Accept(count) => {
                    let now = count.min(cursor.remaining());
                    cursor.put_slice(&bytes[..now]);
                    self.held.extend_from_slice(&bytes[now..]);
                    self.accepted = count - now;
                    Poll::Ready(Ok(Step::Done))
                }
                verdict => {
                    self.held.extend_from_slice(bytes);
                    Poll::Ready(Ok(self.settle(verdict)))
                }
            }
        })
    }

    /// What a verdict about `held` means for the read in progress.
    fn settle(&mut self, verdict: Verdict) -> Step {
        match verdict {
            Verdict::Accept(count) => {
                self.accepted = count.min(self.held.len());
                Step::Judge
            }
            Verdict::More => {
                self.follower.waiting();
                Step::Read
            }
            Verdict::Hold if self.held.len() >= AHEAD_BYTES_MAX => Step::Wait,
            Verdict::Hold => Step::Read,
            Verdict::Refuse => {
                self.closed = true;
                Step::Done
            }
        }
    }
}

/// What a read does next.
enum Step {
    Judge,
    Read,
    Wait,
    Done,
}

impl<S: AsyncRead + AsyncWrite + Unpin, F: Follow<S>> Read for Gate<S, F> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.closed |= this.follower.stopped();
        loop {
            if this.accepted > 0 {
                this.deliver(&mut cursor);
                return Poll::Ready(Ok(()));
            }
            if this.closed {
                return Poll::Ready(Ok(()));
            }
            if this.held.is_empty() {
                let room = cursor.remaining();
                if room > 0 && this.follower.certain() >= room as u64 {
                    return this.poll_certain(cx, cursor);
                }
            } else {
                let verdict = this.follower.follow(&this.held);
                match this.settle(verdict) {
                    Step::Judge => continue,
                    Step::Done => return Poll::Ready(Ok(())),
                    Step::Wait => return Poll::Pending,
                    Step::Read => {}
                }
            }
            match ready!(this.poll_judged(cx, &mut cursor))? {
                Step::Done => return Poll::Ready(Ok(())),
                Step::Wait => return Poll::Pending,
                Step::Judge | Step::Read => {}
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin, F: Follow<S>> Gate<S, F> {
    /// Reads straight into hyper's buffer: every byte that fits is certain to be accepted.
    fn poll_certain(&mut self, cx: &mut Context<'_>, cursor: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let before = self.stream.read;
        let mut stream = hyper_util::rt::TokioIo::new(&mut self.stream);
        ready!(Pin::new(&mut stream).poll_read(cx, cursor))?;
        let count = self.stream.read - before;
        if count == 0 {
            self.closed = true;
            self.follower.ended();
        }
        self.follower.passed(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin, F: Follow<S>> Write for Gate<S, F> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let poll = Pin::new(&mut this.stream.stream).poll_write(cx, bytes);
        this.follower.takes(poll.is_ready(), &this.stream.stream);
        poll
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let poll = Pin::new(&mut this.stream.stream).poll_write_vectored(cx, bytes);
        this.follower.takes(poll.is_ready(), &this.stream.stream);
        poll
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let poll = Pin::new(&mut this.stream.stream).poll_flush(cx);
        // Under TLS a write only fills a buffer: that the other side does not read shows here.
        if poll.is_pending() {
            this.follower.takes(false, &this.stream.stream);
        }
        ready!(poll)?;
        if this.follower.flushed(&this.stream.stream) && !this.held.is_empty() {
            // hyper remembers that its last read had to wait, and would wait for the socket: but the next
            // message has been read from it already.
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    /// The connection's task takes the stream back and closes it.
    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Counts what is read, since hyper's cursor does not say.
#[derive(Debug)]
struct Metered<S> {
    stream: S,
    read: u64,
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.read += (buffer.filled().len() - before) as u64;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::Relaxed},
        },
        task::{Wake, Waker},
    };

    use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    /// Messages are lines. One at a time passes; `!` may not occur.
    #[derive(Default)]
    struct Lines {
        in_flight: bool,
    }

    impl Follow<DuplexStream> for Lines {
        fn follow(&mut self, bytes: &[u8]) -> Verdict {
            if self.in_flight {
                return Verdict::Hold;
            }
            let end = memchr::memchr(b'\n', bytes);
            if memchr::memchr(b'!', &bytes[..end.unwrap_or(bytes.len())]).is_some() {
                return Verdict::Refuse;
            }
            match end {
                None => Verdict::More,
                Some(end) => {
                    self.in_flight = true;
                    Verdict::Accept(end + 1)
                }
            }
        }

        fn certain(&self) -> u64 {
            0
        }

        fn passed(&mut self, _count: u64) {}

        fn ended(&mut self) {}

        fn flushed(&mut self, _stream: &DuplexStream) -> bool {
            std::mem::take(&mut self.in_flight)
        }
    }

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    /// A gate, the other end of its stream, and a count of how often its reader was woken.
    struct Bench {
        gate: Gate<DuplexStream, Lines>,
        far: DuplexStream,
        wakes: Arc<Wakes>,
    }

    impl Bench {
        fn new() -> Self {
            let (near, far) = duplex(1 << 20);
            Self { gate: Gate::new(near, Lines::default()), far, wakes: Arc::default() }
        }

        async fn send(&mut self, bytes: &[u8]) {
            self.far.write_all(bytes).await.unwrap();
        }

        /// What one read gives; `None` when it has to wait.
        fn read(&mut self, room: usize) -> Option<Vec<u8>> {
            let mut space = vec![0; room];
            let mut buffer = hyper::rt::ReadBuf::new(&mut space);
            let waker = Waker::from(self.wakes.clone());
            let poll =
                Pin::new(&mut self.gate).poll_read(&mut Context::from_waker(&waker), buffer.unfilled());
            poll.is_ready().then(|| buffer.filled().to_vec())
        }

        fn flush(&mut self) {
            let waker = Waker::from(self.wakes.clone());
            let poll = Pin::new(&mut self.gate).poll_flush(&mut Context::from_waker(&waker));
            assert!(poll.is_ready());
        }

        fn wakes(&self) -> usize {
            self.wakes.0.load(Relaxed)
        }
    }

    #[tokio::test]
    async fn what_was_held_back_wakes_its_reader_when_its_turn_comes() {
        let mut bench = Bench::new();
        bench.send(b"one\ntwo\n").await;
        assert_eq!(bench.read(100), Some(b"one\n".to_vec()));
        assert_eq!(bench.read(100), None, "one is in flight");
        let before = bench.wakes();
        bench.flush();
        assert_eq!(bench.wakes(), before + 1, "nothing more comes on the stream that could");
        assert_eq!(bench.read(100), Some(b"two\n".to_vec()));
        let before = bench.wakes();
        bench.flush();
        assert_eq!(bench.wakes(), before, "nothing is held");
    }

    #[tokio::test]
    async fn a_full_buffer_stops_reading_and_loses_nothing() {
        let mut bench = Bench::new();
        let line = [&[b'x'; 999][..], b"\n"].concat();
        bench.send(&line.repeat(200)).await;
        for _ in 0..200 {
            assert_eq!(bench.read(4_000).as_ref(), Some(&line));
            assert_eq!(bench.read(4_000), None);
            assert!(bench.gate.held.len() < AHEAD_BYTES_MAX + SCRATCH_BYTES);
            bench.flush();
        }
        assert_eq!(bench.read(4_000), None);
    }

    #[tokio::test]
    async fn splits_and_small_buffers_change_nothing() {
        let text = b"first\nsecond\nthird!\nfourth\n";
        for at in 0..text.len() {
            for room in [1, 3, 64] {
                let mut bench = Bench::new();
                let mut got = Vec::new();
                for part in [&text[..at], &text[at..]] {
                    bench.send(part).await;
                    while let Some(piece) = bench.read(room).filter(|piece| !piece.is_empty()) {
                        got.extend(piece);
                        if got.ends_with(b"\n") {
                            bench.flush();
                        }
                    }
                }
                assert_eq!(got, b"first\nsecond\n", "split at {at}, {room} bytes of room");
                assert_eq!(bench.read(room), Some(Vec::new()), "the end, for ever");
            }
        }
    }

    /// Hears whether the other side takes what is written.
    #[derive(Default)]
    struct Heard(Option<bool>);

    impl<S> Follow<S> for Heard {
        fn follow(&mut self, bytes: &[u8]) -> Verdict {
            Verdict::Accept(bytes.len())
        }

        fn certain(&self) -> u64 {
            0
        }

        fn passed(&mut self, _count: u64) {}

        fn ended(&mut self) {}

        fn takes(&mut self, takes: bool, _stream: &S) {
            self.0 = Some(takes);
        }
    }

    #[tokio::test]
    async fn a_reader_that_stops_is_noticed_although_a_buffer_takes_the_write() {
        // As under TLS: a write is taken by a buffer, and only the flush has to wait.
        let (near, _far) = duplex(16);
        let mut gate = Gate::new(tokio::io::BufWriter::with_capacity(64, near), Heard::default());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut gate).poll_write(&mut cx, &[b'x'; 32]).is_ready());
        assert_eq!(gate.follower.0, Some(true));
        assert!(Pin::new(&mut gate).poll_flush(&mut cx).is_pending());
        assert_eq!(gate.follower.0, Some(false));
    }
}
