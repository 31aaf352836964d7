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
        Arc,
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
const QUEUE_BATCHES_MAX: usize = 512;

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
    /// Disconnects when the thread is over.
    over: Receiver<()>,
}

impl WriterHandle {
    /// A recorder for one worker.
    #[must_use]
    pub fn recorder(&self) -> Recorder {
        Recorder::new(
            self.running.as_ref().map(|running| Queue {
                sender: running.sender.clone(),
                counters: Arc::clone(&self.counters),
            }),
        )
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

    /// Writes what was handed over before this call and ends the thread. Recorders that are still
    /// alive lose (and count) what comes later: drop them first.
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
    let mut writer =
        Writer { sink, torn: false, reopen: Arc::clone(&reopen), counters: Arc::clone(&counters) };
    thread::Builder::new().name("mxgate-records".into()).spawn(move || {
        // Dropped with the thread, also when it panics.
        let _alive: SyncSender<()> = alive;
        writer.run(&receiver, &mask);
    })?;
    Ok(WriterHandle { counters, running: Some(Running { sender, reopen, over }) })
}

struct Writer {
    sink: Sink,
    /// The last thing at the destination is a line that was cut short.
    torn: bool,
    reopen: Arc<AtomicBool>,
    counters: Arc<Counters>,
}

impl Writer {
    fn run(&mut self, receiver: &Receiver<Message>, mask: &dyn Fn(&mut Vec<u8>)) {
        while let Ok(message) = receiver.recv() {
            self.reopen_when_asked();
            match message {
                Message::Batch(batch) => self.write(batch, mask),
                Message::Wake => {}
                Message::Close => break,
            }
        }
        // Whoever handed over a batch before the queue is gone has it written, not silently dropped.
        while let Ok(message) = receiver.try_recv() {
            if let Message::Batch(batch) = message {
                self.write(batch, mask);
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

    fn write(&mut self, mut batch: Batch, mask: &dyn Fn(&mut Vec<u8>)) {
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
        if self.counters.errors.fetch_add(1, Relaxed) % 1000 == 0 {
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
mod tests {
    use std::{io::Read, os::unix::fs::PermissionsExt, sync::Mutex};

    use super::*;
    use crate::record::{Record, tests::example};

    fn no_mask(_: &mut Vec<u8>) {}

    fn to_file(path: &Path) -> WriterHandle {
        start_writer(&RecordDestination::File(path.into()), no_mask).unwrap()
    }

    fn pipe_sink() -> (io::PipeReader, Sink) {
        let (reader, writer) = io::pipe().unwrap();
        (reader, Sink { file: File::from(std::os::fd::OwnedFd::from(writer)), path: None })
    }

    #[test]
    fn lines_of_all_workers_arrive_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.jsonl");
        let writer = to_file(&path);
        let counters = writer.counters();
        thread::scope(|scope| {
            for _ in 0..4 {
                let mut recorder = writer.recorder();
                scope.spawn(move || {
                    for masked in 0..500 {
                        recorder.record(&Record { masked, ..example() });
                    }
                });
            }
        });
        writer.close(CLOSE_TIMEOUT).unwrap();

        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.ends_with('\n'));
        for line in text.lines() {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(value["v"], 1);
        }
        assert_eq!(text.lines().count(), 2000);
        assert_eq!(counters.written.load(Relaxed), 2000);
        assert_eq!(counters.lost.load(Relaxed), 0);
    }

    #[test]
    fn the_file_is_private_and_appended_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.jsonl");
        for lines in 1..=2 {
            let writer = to_file(&path);
            writer.recorder().record(&example());
            writer.close(CLOSE_TIMEOUT).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), lines);
        }
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("absent/access.jsonl");
        let error = start_writer(&RecordDestination::File(path.clone()), no_mask).unwrap_err();
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }

    #[test]
    fn off_writes_and_counts_nothing() {
        let writer = start_writer(&RecordDestination::Off, no_mask).unwrap();
        let mut recorder = writer.recorder();
        recorder.record(&example());
        recorder.flush();
        assert!(recorder.batch.text.is_empty());
        writer.reopen();
        let counters = writer.counters();
        writer.close(CLOSE_TIMEOUT).unwrap();
        assert_eq!((counters.written.load(Relaxed), counters.lost.load(Relaxed)), (0, 0));
    }

    #[test]
    fn every_batch_passes_the_mask() {
        let (mut reader, sink) = pipe_sink();
        let mask = |text: &mut Vec<u8>| {
            let masked = String::from_utf8(std::mem::take(text)).unwrap().replace("listUsers", "***");
            *text = masked.into_bytes();
        };
        let writer = start(sink, mask, 8).unwrap();
        let mut recorder = writer.recorder();
        for _ in 0..3 {
            recorder.record(&example());
            recorder.flush();
        }
        drop(recorder);
        writer.close(CLOSE_TIMEOUT).unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text.matches(r#""operation":"***""#).count(), 3);
        assert!(!text.contains("listUsers"));
    }

    #[test]
    fn lines_wait_for_a_flush_and_not_longer() {
        let (mut reader, sink) = pipe_sink();
        let writer = start(sink, no_mask, 8).unwrap();
        let mut recorder = writer.recorder();
        recorder.record(&example());
        assert_eq!(recorder.batch.lines, 1);
        recorder.flush();
        assert_eq!(recorder.batch.lines, 0);
        let mut first = [0; 6];
        reader.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"{\"v\":1");
    }

    #[test]
    fn a_full_batch_is_handed_over_without_a_flush() {
        let (mut reader, sink) = pipe_sink();
        let writer = start(sink, no_mask, 8).unwrap();
        let mut recorder = writer.recorder();
        let mut lines = 0;
        while lines == 0 || recorder.batch.lines > 0 {
            recorder.record(&example());
            lines += 1;
        }
        let mut batch = vec![0; BATCH_BYTES_READ];
        reader.read_exact(&mut batch).unwrap();
        assert!(lines > 10);
    }

    const BATCH_BYTES_READ: usize = super::super::BATCH_BYTES;

    #[test]
    fn a_stuck_writer_loses_lines_and_blocks_nobody() {
        let (mut reader, sink) = pipe_sink();
        let (release, stuck) = mpsc::channel::<()>();
        // The thread is held in its first batch, as in a write to a pipe that nobody reads.
        let hold = move |_: &mut Vec<u8>| stuck.recv().unwrap_or_default();
        let writer = start(sink, hold, 2).unwrap();
        let counters = writer.counters();
        let mut recorder = writer.recorder();
        let mut recorded = 0;
        while counters.lost.load(Relaxed) == 0 {
            recorder.record(&example());
            recorder.flush();
            recorded += 1;
            assert!(recorded < 100, "nothing is ever lost");
        }
        let error = writer.close(Duration::from_millis(10)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);

        // What was taken is still written once the writer is free again; the rest was counted.
        drop((release, recorder));
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text.lines().count() as u64 + counters.lost.load(Relaxed), recorded);
    }

    #[test]
    fn a_destination_that_went_away_is_counted() {
        let (reader, sink) = pipe_sink();
        drop(reader);
        let writer = start(sink, no_mask, 8).unwrap();
        let counters = writer.counters();
        let mut recorder = writer.recorder();
        recorder.record(&example());
        drop(recorder);
        writer.close(CLOSE_TIMEOUT).unwrap();
        assert_eq!(counters.lost.load(Relaxed), 1);
        assert_eq!(counters.errors.load(Relaxed), 1);
        assert_eq!(counters.written.load(Relaxed), 0);
    }

    #[test]
    fn reopen_follows_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.jsonl");
        let moved = folder.path().join("access.jsonl.1");
        let writer = to_file(&path);
        let counters = writer.counters();
        let mut recorder = writer.recorder();
        recorder.record(&example());
        recorder.flush();
        wait_until(|| counters.written.load(Relaxed) == 1);

        std::fs::rename(&path, &moved).unwrap();
        writer.reopen();
        recorder.record(&example());
        drop(recorder);
        writer.close(CLOSE_TIMEOUT).unwrap();
        assert_eq!(std::fs::read_to_string(&moved).unwrap().lines().count(), 1);
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1);
    }

    #[test]
    fn a_failed_reopen_keeps_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("logs");
        std::fs::create_dir(&inner).unwrap();
        let writer = to_file(&inner.join("access.jsonl"));
        let counters = writer.counters();
        let moved = folder.path().join("moved");
        std::fs::rename(&inner, &moved).unwrap();
        writer.reopen();
        writer.recorder().record(&example());
        writer.close(CLOSE_TIMEOUT).unwrap();
        assert_eq!(counters.errors.load(Relaxed), 1);
        assert_eq!(std::fs::read_to_string(moved.join("access.jsonl")).unwrap().lines().count(), 1);
    }

    #[test]
    fn what_comes_after_the_close_is_counted_as_lost() {
        let (mut reader, sink) = pipe_sink();
        let writer = start(sink, no_mask, 8).unwrap();
        let counters = writer.counters();
        let mut recorder = writer.recorder();
        recorder.record(&example());
        recorder.flush();
        writer.close(CLOSE_TIMEOUT).unwrap();
        recorder.record(&example());
        recorder.flush();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text.lines().count(), 1);
        assert_eq!((counters.written.load(Relaxed), counters.lost.load(Relaxed)), (1, 1));
    }

    fn wait_until(condition: impl Fn() -> bool) {
        while !condition() {
            thread::yield_now();
        }
    }

    /// Takes `room` bytes, then fails.
    struct Full {
        room: Mutex<usize>,
    }

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let room = self.room.get_mut().unwrap();
            if *room == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let count = bytes.len().min(*room);
            *room -= count;
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_partial_write_says_how_far_it_came() {
        let (taken, result) = write_counting(&mut Full { room: Mutex::new(5) }, b"ab\ncd\n");
        assert_eq!((taken, result.unwrap_err().kind()), (5, io::ErrorKind::StorageFull));
        let (taken, result) = write_counting(&mut Full { room: Mutex::new(6) }, b"ab\ncd\n");
        assert_eq!((taken, result.is_ok()), (6, true));
    }

    #[test]
    fn a_torn_line_is_ended_before_the_next_one() {
        let (mut reader, sink) = pipe_sink();
        let counters = Arc::<Counters>::default();
        let mut writer = Writer { sink, torn: true, reopen: Arc::default(), counters: Arc::clone(&counters) };
        writer.write(Batch { text: b"{}\n".to_vec(), lines: 1 }, &no_mask);
        writer.write(Batch { text: b"{}\n".to_vec(), lines: 1 }, &no_mask);
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "\n{}\n{}\n");
    }
}
