//! The thread that writes records, so that no worker waits for a disk or a pipe.
//!
//! In: batches of whole lines over one bounded queue. Out: the same lines, masked, at the destination.
//! The queue is bounded in batches; when it is full the batch is dropped and its lines are counted in
//! [`Counters::lost`], as are lines that the destination would not take.
//!
//! What must never happen: a line is written that has not passed the mask; a line that was cut short
//! (a full disk) is continued by another one; shutdown waits for ever for a reader of a pipe that has stopped reading.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError},
    },
    thread,
    time::Duration,
};

use crate::{
    config::RecordDestination,
    record::{Batch, Recorder},
};

/// Batches that may wait: about 8 MiB.
const QUEUE_BATCHES_MAX: usize = 128;

/// Empty buffers that are kept for the next batches: the allocator would give their pages back and get
/// them again each time.
const SPARES_MAX: usize = 4;

/// Starts the writer. `mask` sees every batch before it is written and hides secrets in it; it may
/// change the batch's length but not its line ends.
///
/// # Errors
/// The file could not be opened, or the thread not be started.
pub fn start_writer(
    destination: &RecordDestination,
    mask: impl Fn(&mut Vec<u8>) + Send + 'static,
) -> io::Result<WriterHandle> {
    let sink = match destination {
        RecordDestination::Off => return Ok(WriterHandle { counters: Arc::default(), running: None }),
        // A duplicate of the descriptor: `io::Stdout` would buffer by line and lock for each.
        RecordDestination::Stdout => {
            Sink { file: File::from(io::stdout().as_fd().try_clone_to_owned()?), path: None }
        }
        RecordDestination::File(path) => Sink { file: open(path)?, path: Some(path.as_path().into()) },
    };
    start(sink, mask, QUEUE_BATCHES_MAX)
}

/// The running writer. Dropping it closes it, waiting at most [`CLOSE_TIMEOUT`].
#[derive(Debug)]
pub struct WriterHandle {
    counters: Arc<Counters>,
    running: Option<Running>,
}

/// How long a dropped [`WriterHandle`] waits for the last lines.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What the writer did, for metrics.
#[derive(Debug, Default)]
pub struct Counters {
    /// Lines at the destination.
    pub written: AtomicU64,
    /// Lines dropped because the queue was full or the destination would not take them.
    pub lost: AtomicU64,
    /// Attempts to write or reopen that failed.
    pub errors: AtomicU64,
}

#[derive(Debug)]
struct Running {
    sender: SyncSender<Message>,
    reopen: Arc<AtomicBool>,
    spares: Arc<Mutex<Vec<Vec<u8>>>>,
    /// Disconnects when the thread is over.
    over: Receiver<()>,
}

impl WriterHandle {
    /// A recorder for one worker.
    #[must_use]
    pub fn recorder(&self) -> Recorder {
        Recorder::new(self.running.as_ref().map(|running| Queue {
            sender: running.sender.clone(),
            counters: Arc::clone(&self.counters),
            spares: Arc::clone(&running.spares),
        }))
    }

    /// The counters that metrics show.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Opens the file again, by its path, before the next batch (logrotate moved the old one away).
    /// When that fails the old file stays in use, the fault is logged and counted.
    pub fn reopen(&self) {
        if let Some(running) = &self.running {
            running.reopen.store(true, Relaxed);
            // Full: the flag is seen before the next batch anyway.
            let _ = running.sender.try_send(Message::Wake);
        }
    }

    /// Writes what was handed over before this call and ends the thread. Drop the recorders first:
    /// what one hands over later is lost and counted, and in the very moment of the end not even counted.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] when the destination took longer than `bound`; the thread is left
    /// behind, and ends with the process.
    pub fn close(mut self, bound: Duration) -> io::Result<()> {
        self.finish(bound)
    }

    fn finish(&mut self, bound: Duration) -> io::Result<()> {
        let Some(running) = self.running.take() else { return Ok(()) };
        let timed_out = || {
            let text =
                format!("records were not written within {bound:?}; the destination is not taking them");
            io::Error::new(io::ErrorKind::TimedOut, text)
        };
        let deadline = std::time::Instant::now() + bound;
        // `SyncSender` has no bounded wait, so a full queue is met with a look at the thread's end.
        let mut message = Message::Close;
        while let Err(TrySendError::Full(back)) = running.sender.try_send(message) {
            message = back;
            let rest = deadline.saturating_duration_since(std::time::Instant::now());
            if rest.is_zero() {
                return Err(timed_out());
            }
            if running.over.recv_timeout(rest.min(Duration::from_millis(5)))
                == Err(RecvTimeoutError::Disconnected)
            {
                return Ok(());
            }
        }
        match running.over.recv_timeout(deadline.saturating_duration_since(std::time::Instant::now())) {
            Err(RecvTimeoutError::Timeout) => Err(timed_out()),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => Ok(()),
        }
    }
}

impl Drop for WriterHandle {
    fn drop(&mut self) {
        if let Err(error) = self.finish(CLOSE_TIMEOUT) {
            tracing::error!(%error, "access records were lost at shutdown");
        }
    }
}

/// The worker's end of the queue.
#[derive(Debug)]
pub(crate) struct Queue {
    sender: SyncSender<Message>,
    counters: Arc<Counters>,
    spares: Arc<Mutex<Vec<Vec<u8>>>>,
}

#[derive(Debug)]
enum Message {
    Batch(Batch),
    Wake,
    Close,
}

impl Queue {
    /// Never waits.
    pub(crate) fn push(&self, batch: Batch) {
        let lines = batch.lines;
        if self.sender.try_send(Message::Batch(batch)).is_err() {
            self.lost(lines);
        }
    }

    /// An empty buffer, one that was written out if there is one. Never waits.
    pub(crate) fn spare(&self) -> Vec<u8> {
        self.spares.try_lock().ok().and_then(|mut spares| spares.pop()).unwrap_or_default()
    }

    pub(crate) fn lost(&self, lines: u64) {
        self.counters.lost.fetch_add(lines, Relaxed);
    }
}

/// Where lines go.
#[derive(Debug)]
struct Sink {
    file: File,
    /// Absent: it cannot be opened again.
    path: Option<Box<Path>>,
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(|error| {
        io::Error::new(error.kind(), format!("the record file {} cannot be opened: {error}", path.display()))
    })
}

fn start(
    sink: Sink,
    mask: impl Fn(&mut Vec<u8>) + Send + 'static,
    batches_max: usize,
) -> io::Result<WriterHandle> {
    let (sender, receiver) = mpsc::sync_channel(batches_max);
    let (alive, over) = mpsc::sync_channel(0);
    let counters = Arc::<Counters>::default();
    let reopen = Arc::<AtomicBool>::default();
    let spares = Arc::<Mutex<Vec<Vec<u8>>>>::default();
    let mut writer = Writer {
        sink,
        torn: false,
        reopen: Arc::clone(&reopen),
        counters: Arc::clone(&counters),
        spares: Arc::clone(&spares),
    };
    thread::Builder::new().name("mxgate-records".into()).spawn(move || {
        // Dropped last, also by a panic: who sees that it is gone finds the queue closed.
        let _alive: SyncSender<()> = alive;
        writer.run(receiver, &mask);
    })?;
    Ok(WriterHandle { counters, running: Some(Running { sender, reopen, spares, over }) })
}

struct Writer {
    sink: Sink,
    /// The last thing at the destination is a line that was cut short.
    torn: bool,
    reopen: Arc<AtomicBool>,
    counters: Arc<Counters>,
    spares: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Writer {
    fn run(&mut self, receiver: Receiver<Message>, mask: &dyn Fn(&mut Vec<u8>)) {
        while let Ok(message) = receiver.recv() {
            self.reopen_when_asked();
            match message {
                Message::Batch(mut batch) => {
                    self.write(&mut batch, mask);
                    self.keep(batch.text);
                }
                Message::Wake => {}
                Message::Close => break,
            }
        }
        // Whoever handed over a batch before the queue is gone has it written, not silently dropped.
        while let Ok(message) = receiver.try_recv() {
            if let Message::Batch(mut batch) = message {
                self.write(&mut batch, mask);
            }
        }
    }

    fn reopen_when_asked(&mut self) {
        if !self.reopen.swap(false, Relaxed) {
            return;
        }
        let Some(path) = &self.sink.path else { return };
        match open(path) {
            Ok(file) => {
                self.sink.file = file;
                self.torn = false;
            }
            Err(error) => self.failed(&error, "the old record file stays in use"),
        }
    }

    fn keep(&self, mut text: Vec<u8>) {
        text.clear();
        if let Ok(mut spares) = self.spares.lock()
            && spares.len() < SPARES_MAX
        {
            spares.push(text);
        }
    }

    fn write(&mut self, batch: &mut Batch, mask: &dyn Fn(&mut Vec<u8>)) {
        mask(&mut batch.text);
        if self.torn {
            if let Err(error) = self.sink.file.write_all(b"\n") {
                self.counters.lost.fetch_add(batch.lines, Relaxed);
                return self.failed(&error, "access records were lost");
            }
            self.torn = false;
        }
        let (taken, result) = write_counting(&mut self.sink.file, &batch.text);
        let Err(error) = result else {
            self.counters.written.fetch_add(batch.lines, Relaxed);
            return;
        };
        let taken = batch.text.get(..taken).unwrap_or_default();
        let whole = memchr::memchr_iter(b'\n', taken).count() as u64;
        self.torn = taken.last().is_some_and(|last| *last != b'\n');
        self.counters.written.fetch_add(whole, Relaxed);
        self.counters.lost.fetch_add(batch.lines.saturating_sub(whole), Relaxed);
        self.failed(&error, "access records were lost");
    }

    /// One event for the first fault and then each 1,000th: a full disk must not fill the log as well.
    fn failed(&self, error: &io::Error, effect: &'static str) {
        if self.counters.errors.fetch_add(1, Relaxed).is_multiple_of(1000) {
            tracing::error!(%error, effect, "the record writer failed");
        }
    }
}

/// `write_all` that says how many bytes were taken before a failure.
fn write_counting(to: &mut impl Write, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut taken = 0;
    while let Some(rest @ [_, ..]) = bytes.get(taken..) {
        match to.write(rest) {
            Ok(0) => return (taken, Err(io::ErrorKind::WriteZero.into())),
            Ok(count) => taken += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (taken, Err(error)),
        }
    }
    (taken, Ok(()))
}

#[cfg(test)]
mod tests;
