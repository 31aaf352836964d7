use std::{io::Read, os::unix::fs::PermissionsExt};

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

const BATCH_BYTES_READ: usize = crate::record::BATCH_BYTES;

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
    let mut writer = Writer {
        sink,
        torn: true,
        reopen: Arc::default(),
        counters: Arc::clone(&counters),
        spares: Arc::default(),
    };
    writer.write(&mut Batch { text: b"{}\n".to_vec(), lines: 1 }, &no_mask);
    writer.write(&mut Batch { text: b"{}\n".to_vec(), lines: 1 }, &no_mask);
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "\n{}\n{}\n");
}
