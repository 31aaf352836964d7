//! A socket in memory that cuts and delays as a seed says, and a loop that polls until nothing moves.

use std::{
    cell::{Cell, RefCell},
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
};

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

/// Sizes of reads and writes, and waits between them: the same for the same seed.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    state: u64,
    largest: u64,
}

impl Plan {
    /// 0 cuts nothing, 1 cuts every byte off; the others cut and wait at random.
    pub(super) fn new(seed: u8) -> Self {
        let largest = match seed {
            0 => u64::MAX,
            1 => 1,
            _ => 1 << (seed % 11),
        };
        Self { state: u64::from(seed) << 32 | 0x9E37_79B9, largest }
    }

    /// How many bytes may move now; 0: it has to wait, and is asked again.
    fn next(&mut self) -> usize {
        if self.state >> 32 < 2 && matches!(self.largest, 1 | u64::MAX) {
            return usize::try_from(self.largest).unwrap_or(usize::MAX);
        }
        // xorshift64
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        if self.state.is_multiple_of(5) { 0 } else { 1 + (self.state >> 20) as usize % self.largest as usize }
    }
}

impl Plan {
    /// The size of the next piece, at least 1.
    pub(super) fn next_some(&mut self) -> usize {
        self.next().max(1)
    }

    /// Some number below `bound`, which is not 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        let _ = self.next();
        (self.state >> 20) as usize % bound
    }
}

/// What both ends of a [`Memory`] know.
#[derive(Debug)]
pub(super) struct Line {
    /// Not read yet.
    incoming: Vec<u8>,
    ended: bool,
    /// Everything that was written.
    pub(super) written: Vec<u8>,
    reads: Plan,
    writes: Plan,
    reader: Option<Waker>,
    flushed: usize,
    /// How much is taken in all, and whether it breaks then or takes nothing.
    takes_only: Option<(usize, bool)>,
    refused: bool,
}

/// One end of a socket in memory, for the code under test.
#[derive(Debug, Clone)]
pub(super) struct Memory(Rc<RefCell<Line>>);

impl Memory {
    pub(super) fn new(seed: u8) -> Self {
        Self(Rc::new(RefCell::new(Line {
            incoming: Vec::new(),
            ended: false,
            written: Vec::new(),
            reads: Plan::new(seed),
            // Another sequence for the other direction.
            writes: Plan::new(if seed < 2 { seed } else { seed.rotate_left(3) | 2 }),
            reader: None,
            flushed: 0,
            takes_only: None,
            refused: false,
        })))
    }

    /// The other side sends.
    pub(super) fn send(&self, bytes: &[u8]) {
        let mut line = self.0.borrow_mut();
        line.incoming.extend_from_slice(bytes);
        line.wake();
    }

    /// The other side ends its stream.
    pub(super) fn end(&self) {
        let mut line = self.0.borrow_mut();
        line.ended = true;
        line.wake();
    }

    pub(super) fn written(&self) -> Vec<u8> {
        self.0.borrow().written.clone()
    }

    /// How much of what was written had been flushed at last.
    pub(super) fn flushed(&self) -> usize {
        self.0.borrow().flushed
    }

    /// The other side takes this many bytes, and then breaks (`is_error`) or takes nothing.
    pub(super) fn takes_only(&self, count: usize, is_error: bool) {
        self.0.borrow_mut().takes_only = Some((count, is_error));
    }

    /// Whether the other side did not take what it was given.
    pub(super) fn refused(&self) -> bool {
        self.0.borrow().refused
    }
}

impl Line {
    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    fn poll_write(&mut self, cx: &Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let bytes = slices.iter().flat_map(|slice| slice.iter().copied());
        let len: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut count = self.writes.next().min(len);
        if count == 0 && len > 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some((takes, is_error)) = self.takes_only {
            count = count.min(takes - self.written.len());
            self.refused |= count == 0 && len > 0;
            if self.refused && is_error {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
        }
        self.written.extend(bytes.take(count));
        Poll::Ready(Ok(count))
    }
}

impl AsyncRead for Memory {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut line = self.0.borrow_mut();
        if line.incoming.is_empty() {
            if line.ended {
                return Poll::Ready(Ok(()));
            }
            line.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = line.reads.next().min(buffer.remaining()).min(line.incoming.len());
        if count == 0 && buffer.remaining() > 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        buffer.put_slice(&line.incoming[..count]);
        line.incoming.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Memory {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut line = self.0.borrow_mut();
        if line.writes.next() == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        line.flushed = line.written.len();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A stream that comes in pieces, for a reader that is shown bytes and takes what it wants of them.
#[derive(Debug)]
pub(super) struct Source {
    bytes: Vec<u8>,
    shown: usize,
    taken: usize,
    plan: Plan,
    /// Whether the end has come as well; before, a reader that wants more has to wait.
    pub(super) may_end: Rc<Cell<bool>>,
    /// It does not end in order.
    breaks: bool,
    broken: Option<&'static str>,
}

impl Source {
    pub(super) fn new(bytes: &[u8], seed: u8, breaks: bool) -> Self {
        Self {
            bytes: bytes.to_vec(),
            shown: 0,
            taken: 0,
            plan: Plan::new(seed),
            may_end: Rc::default(),
            breaks,
            broken: None,
        }
    }

    /// How many bytes were taken.
    pub(super) fn taken(&self) -> usize {
        self.taken
    }

    /// What a reader did that none may do.
    pub(super) fn broken(&self) -> Option<&'static str> {
        self.broken
    }

    /// How many bytes come first.
    #[cfg(test)]
    pub(super) fn first_piece(&self) -> usize {
        self.plan.clone().next_some().min(self.bytes.len())
    }

    /// All of it, taken or not.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsyncBufRead for Source {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        let left = this.bytes.len() - this.taken;
        if this.shown == this.taken && left > 0 {
            let count = this.plan.next().min(left);
            if count == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            this.shown += count;
        }
        match &this.bytes[this.taken..this.shown] {
            [] if !this.may_end.get() => Poll::Pending,
            [] if this.breaks => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            bytes => Poll::Ready(Ok(bytes)),
        }
    }

    fn consume(mut self: Pin<&mut Self>, count: usize) {
        if count > self.shown - self.taken {
            self.broken = Some("bytes were taken that had not come");
        }
        self.taken = self.shown.min(self.taken + count);
    }
}

/// Nothing reads so; [`AsyncBufRead`] asks for it.
impl AsyncRead for Source {
    fn poll_read(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        _buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

/// What stands between what comes now and what comes then.
const NEXT: &[u8] = b"<NEXT>";

/// The parts of `wire`, at least one.
pub(super) fn split(mut wire: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    while let Some(index) = wire.windows(NEXT.len()).position(|window| window == NEXT) {
        parts.push(&wire[..index]);
        wire = &wire[index + NEXT.len()..];
    }
    parts.push(wire);
    parts
}

/// What hyper got to read, through buffers of a chosen size.
pub(super) struct Recorded<G> {
    pub(super) gate: G,
    room: usize,
    passed: Rc<RefCell<Vec<u8>>>,
    ended: bool,
    /// Nothing may pass any more.
    is_shut: Box<dyn Fn() -> bool>,
    broken: Rc<Cell<Option<&'static str>>>,
}

impl<G> Recorded<G> {
    pub(super) fn new(gate: G, room: usize, is_shut: impl Fn() -> bool + 'static) -> (Self, Passed) {
        let passed = Passed::default();
        let recorded = Self {
            gate,
            room,
            passed: passed.bytes.clone(),
            ended: false,
            is_shut: Box::new(is_shut),
            broken: passed.broken.clone(),
        };
        (recorded, passed)
    }
}

/// What has passed a [`Recorded`].
#[derive(Debug, Clone, Default)]
pub(super) struct Passed {
    bytes: Rc<RefCell<Vec<u8>>>,
    broken: Rc<Cell<Option<&'static str>>>,
}

impl Passed {
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.bytes.borrow().clone()
    }

    /// What a read did that none may do.
    pub(super) fn broken(&self) -> Option<&'static str> {
        self.broken.get()
    }
}

impl<G: Read + Unpin> Read for Recorded<G> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let was_shut = this.ended || (this.is_shut)();
        let mut space = vec![0; this.room.min(cursor.remaining())];
        let mut buffer = hyper::rt::ReadBuf::new(&mut space);
        let poll = Pin::new(&mut this.gate).poll_read(cx, buffer.unfilled());
        let bytes = buffer.filled();
        if was_shut && !bytes.is_empty() {
            this.broken.set(Some("something passed after the end or after a refusal"));
        }
        if poll.is_pending() && !bytes.is_empty() {
            this.broken.set(Some("a read that waits has moved bytes"));
        }
        this.ended |= matches!(poll, Poll::Ready(Ok(())) if bytes.is_empty());
        this.passed.borrow_mut().extend_from_slice(bytes);
        cursor.put_slice(bytes);
        poll
    }
}

impl<G: Write + Unpin> Write for Recorded<G> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.gate).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.gate).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.gate).poll_shutdown(cx)
    }
}

/// How many bytes a buffer of hyper's has room for.
pub(super) fn room(choice: u8) -> usize {
    [8_192, 1, 7, 64][usize::from(choice % 4)]
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

/// Polls for as long as somebody asks for it; `None` when nothing moves any more.
///
/// # Panics
/// When it goes on for so long that it must be spinning.
pub(super) fn poll_until_stalled<F: Future + ?Sized>(mut future: Pin<&mut F>) -> Option<F::Output> {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    for _ in 0..200_000 {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(output);
        }
        if !woken.0.swap(false, Relaxed) {
            return None;
        }
    }
    panic!("it is polled without an end");
}
