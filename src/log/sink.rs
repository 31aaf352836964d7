//! From finished lines to the destination, without making anybody wait.
//!
//! In go events as the formatter wrote them; they are cleaned where they were logged, so no secret is ever
//! queued. The queue is bounded and never waited for: a line that finds it full is lost and counted. One
//! thread takes lines out and may be stopped by the destination for as long as it likes.

use std::{
    fmt,
    io::{self, Write},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use super::line::{self, Shape};
use crate::redaction::Held;

/// Lines that wait at most; with [`line::BYTES_MAX`] that is 16 MiB at worst, usually under 200 KB.
const LINES_MAX: usize = 1024;

/// Where lines go. Shared by all threads.
pub(super) struct Sink {
    queue: SyncSender<String>,
    counts: Arc<Counts>,
    shape: Shape,
    held: &'static Held,
}

#[derive(Default)]
struct Counts {
    queued: AtomicU64,
    /// Taken out of the queue and written, or lost to an error of the destination.
    done: AtomicU64,
    lost: AtomicU64,
    /// Who waits for `done` to grow.
    lock: Mutex<()>,
    grown: Condvar,
}

impl Sink {
    /// Starts the thread. It ends when the sink is dropped and the queue is empty.
    pub(super) fn start(
        destination: Box<dyn Write + Send>,
        shape: Shape,
        held: &'static Held,
    ) -> io::Result<Self> {
        let (queue, lines) = sync_channel(LINES_MAX);
        let counts = Arc::new(Counts::default());
        let theirs = Arc::clone(&counts);
        thread::Builder::new()
            .name("mxgate-log".into())
            .spawn(move || write_lines(&lines, destination, shape, &theirs))?;
        Ok(Self { queue, counts, shape, held })
    }

    /// Cleans and queues one line.
    pub(super) fn line(&self, text: &[u8]) {
        let line = line::finished(text, &self.held.masker(), self.shape);
        match self.queue.try_send(line) {
            Ok(()) => self.counts.queued.fetch_add(1, Ordering::Relaxed),
            Err(_) => self.counts.lost.fetch_add(1, Ordering::Relaxed),
        };
    }

    /// Queues a line that no filter stops.
    pub(super) fn own_line(&self, level: &str, target: &str, message: &str) {
        self.line(line::own(self.shape, level, target, message).as_bytes());
    }

    pub(super) fn lost(&self) -> u64 {
        self.counts.lost.load(Ordering::Relaxed)
    }

    /// Waits until what this thread queued before is out, at most `wait`.
    pub(super) fn flush(&self, wait: Duration) -> bool {
        let queued = self.counts.queued.load(Ordering::Relaxed);
        let guard = self.counts.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let is_behind = |_: &mut ()| self.counts.done.load(Ordering::Acquire) < queued;
        let waited = self.counts.grown.wait_timeout_while(guard, wait, is_behind);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

fn write_lines(
    lines: &Receiver<String>,
    mut destination: Box<dyn Write + Send>,
    shape: Shape,
    counts: &Counts,
) {
    let mut told = 0;
    loop {
        let line = match lines.try_recv() {
            Ok(line) => line,
            // Nothing waits, and perhaps nothing will come any more: a loss is told now or never.
            Err(_) => {
                tell_losses(&mut *destination, shape, counts, &mut told);
                let Ok(line) = lines.recv() else { return };
                line
            }
        };
        // One call for the whole line: lines of several processes on one pipe stay whole.
        if destination.write_all(line.as_bytes()).and_then(|()| destination.flush()).is_err() {
            counts.lost.fetch_add(1, Ordering::Relaxed);
        }
        counts.done.fetch_add(1, Ordering::Release);
        drop(counts.lock.lock());
        counts.grown.notify_all();
    }
}

/// The queue has room again: says what is missing. When even this is not taken, it is told later.
fn tell_losses(destination: &mut dyn Write, shape: Shape, counts: &Counts, told: &mut u64) {
    let lost = counts.lost.load(Ordering::Relaxed);
    if lost == *told {
        return;
    }
    let message =
        format!("{} log lines were lost: they came faster than they could be written", lost - *told);
    let line = line::own(shape, "WARN", "mxgate::log", &message) + "\n";
    if destination.write_all(line.as_bytes()).and_then(|()| destination.flush()).is_ok() {
        *told = lost;
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink").field("shape", &self.shape).field("lost", &self.lost()).finish_non_exhaustive()
    }
}

/// The formatter gives each event whole, in one call.
impl Write for &Sink {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.line(event);
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
