use std::{process::Command, sync::Mutex};

use tracing::subscriber::with_default;

use super::*;
use crate::vault::secret::Secret;

const CANARY: &str = "9f3Kq7Zt20xLmW8b";
const LONG: Duration = Duration::from_secs(30);

/// Keeps what is written; each call on its own.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<String>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().push(String::from_utf8(bytes.to_vec()).unwrap());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn canary() -> Arc<Secret> {
    Arc::new(Secret::new(CANARY.into()).unwrap())
}

/// What is written, one string a call, when `events` runs with `filter` and `secrets` are held.
fn written(filter: &str, json: bool, secrets: &[Arc<Secret>], events: impl FnOnce(&Log)) -> Vec<String> {
    let held: &'static Held = Box::leak(Box::default());
    held.remember(secrets);
    let destination = Written::default();
    let config = config::Log { filter: filter.into(), json };
    let (log, subscriber) = start(&config, Box::new(destination.clone()), held).unwrap();
    with_default(subscriber, || events(&log));
    assert!(log.flush(LONG));
    assert_eq!(log.lost(), 0);
    destination.0.lock().unwrap().clone()
}

/// The SDK writes down answers with secrets that are not held yet.
#[cfg(feature = "aws")]
#[test]
fn no_filter_shows_what_the_aws_sdk_says() {
    for filter in
        ["trace", "aws_smithy_runtime=trace", "info,aws_smithy_runtime::client=trace,aws_sdk_sts=trace"]
    {
        let lines = written(filter, true, &[], |_| {
            tracing::trace!(target: "aws_smithy_runtime::client", "body: {CANARY}");
            tracing::error!(target: "aws_sdk_sts", "body: {CANARY}");
            tracing::error!(target: "awsome", "of somebody else");
        });
        let text = lines.concat();
        assert!(!text.contains(CANARY), "{filter}: {text}");
        assert_eq!(text.contains("of somebody else"), !filter.starts_with("aws"), "{filter}: {text}");
    }
}

fn leak_everywhere() {
    let span = tracing::info_span!("request", key = CANARY);
    let _entered = span.enter();
    tracing::info!(field = CANARY, debug = ?CANARY.as_bytes(), "message {CANARY}");
    tracing::trace!(target: "some_dependency", "Authorization: Basic {}", base64(&format!("client:{CANARY}")));
}

fn base64(text: &str) -> String {
    base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text)
}

#[test]
fn a_held_secret_is_in_no_line_in_any_form_and_is_there_without_masking() {
    let search = crate::redaction::Masker::new([&*canary()]);
    for json in [false, true] {
        let masked = written("trace", json, &[canary()], |_| leak_everywhere()).concat();
        assert!(!search.is_hit(masked.as_bytes()), "{masked}");
        assert!(
            masked.contains("Authorization: Basic ") && masked.contains("message ****************"),
            "{masked}"
        );
        let left_out = written("trace", json, &[], |_| leak_everywhere()).concat();
        let mut bytes = left_out.clone().into_bytes();
        assert_eq!(search.mask(&mut bytes), 6, "span twice, field, list, message, Basic: {left_out}");
    }
}

#[test]
fn each_event_is_one_call_and_one_line() {
    for json in [false, true] {
        let lines = written("info", json, &[], |_| {
            tracing::info!(name = "a\nb", "one\n2026-01-01T00:00:00Z ERROR forged\u{1b}[2J\u{9b}");
            tracing::warn!("two");
        });
        assert_eq!(lines.len(), 2);
        for line in &lines {
            assert!(line.ends_with('\n') && line.matches(char::is_control).count() == 1, "{line:?}");
        }
        assert!(
            lines[0].contains("one\\n2026-01-01T00:00:00Z ERROR forged\\u001b[2J\\u009b"),
            "{}",
            lines[0]
        );
    }
}

#[test]
fn json_lines_are_json() {
    let lines = written("info", true, &[canary()], |_| {
        tracing::info!(key = CANARY, "a \"quoted\" \u{85} text");
    });
    let object: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(object["fields"]["message"], "a \"quoted\" \u{85} text");
    assert_eq!(object["fields"]["key"], "****************");
    assert_eq!(object["level"], "INFO");
}

#[test]
fn the_filter_decides_and_can_be_changed_while_running() {
    let lines = written("warn", false, &[], |log| {
        tracing::info!("too low");
        log.set_filter("info").unwrap();
        tracing::info!("now logged");
        let error = log.set_filter("mxgate=loud").unwrap_err();
        assert!(error.to_string().starts_with("log filter: "), "{error}");
        tracing::info!("still logged");
        log.set_filter("warn").unwrap();
        tracing::info!("too low again");
    });
    let said: Vec<_> = lines.iter().map(|line| line.rsplit(": ").next().unwrap()).collect();
    assert_eq!(said, ["now logged\n", "still logged\n"]);
}

/// Stands for a pipe that nobody reads until `open`.
struct Stuck {
    is_open: Arc<(Mutex<bool>, std::sync::Condvar)>,
    written: Written,
}

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (lock, opened) = &*self.is_open;
        drop(opened.wait_while(lock.lock().unwrap(), |is_open| !*is_open).unwrap());
        self.written.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_destination_that_is_stuck_stops_nobody_and_losses_are_counted_and_told() {
    let is_open = Arc::new((Mutex::new(false), std::sync::Condvar::new()));
    let written = Written::default();
    let stuck = Stuck { is_open: Arc::clone(&is_open), written: written.clone() };
    let config = config::Log { filter: "info".into(), json: false };
    let (log, subscriber) = start(&config, Box::new(stuck), Box::leak(Box::default())).unwrap();
    with_default(subscriber, || (0..3000).for_each(|n| tracing::info!("line {n}")));
    assert!(!log.flush(Duration::from_millis(1)), "nothing could be written yet");
    // The queue's 1024, and the one that the thread has in its hand if it came to that.
    assert!([1975, 1976].contains(&log.lost()), "{}", log.lost());

    *is_open.0.lock().unwrap() = true;
    is_open.1.notify_all();
    assert!(log.flush(LONG));
    let lost = log.lost();
    // With the last sender gone the thread ends, and the destination with it.
    drop(log);
    while Arc::strong_count(&written.0) > 1 {
        thread::yield_now();
    }
    let lines = written.0.lock().unwrap();
    assert_eq!(lines.len() as u64, 3000 - lost + 1);
    assert!(
        lines.last().unwrap().contains(&format!("WARN mxgate::log: {lost} log lines were lost")),
        "{lines:?}"
    );
}

/// Gives an error on every write.
struct Broken;

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_destination_that_is_gone_is_counted_too() {
    let config = config::Log { filter: "info".into(), json: false };
    let (log, subscriber) = start(&config, Box::new(Broken), Box::leak(Box::default())).unwrap();
    with_default(subscriber, || (0..3).for_each(|n| tracing::info!("line {n}")));
    assert!(log.flush(LONG));
    assert_eq!(log.lost(), 3);
}

/// Runs one ignored test of this binary in a process of its own and gives its standard error.
fn child(test: &str) -> (bool, String) {
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("log::tests::{test}"), "--ignored", "--nocapture", "--test-threads=1"])
        .output()
        .unwrap();
    (run.status.success(), String::from_utf8(run.stderr).unwrap())
}

#[test]
fn a_panic_without_a_log_says_where_and_nothing_else() {
    let (is_fine, text) = child("in_a_child_panics_without_a_log");
    assert!(is_fine, "{text}");
    let line = text.lines().next().unwrap();
    assert!(line.starts_with("mxgate: panicked at src/log/tests.rs:"), "{text}");
    assert!(line.ends_with(": (its text is not shown)") && !text.contains(CANARY), "{text}");
}

#[test]
#[ignore = "runs in a child process: it sets this process's panic hook"]
fn in_a_child_panics_without_a_log() {
    guard_panics();
    drop(thread::spawn(|| panic!("text with {CANARY}")).join().unwrap_err());
}

#[test]
fn panics_and_last_words_are_masked() {
    let (is_fine, text) = child("in_a_child_panics_and_last_words");
    assert!(is_fine, "{text}");
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].contains("ERROR mxgate::panic: panicked at src/log/tests.rs:"), "{text}");
    assert!(lines[0].ends_with(" in thread worker: a text of the source"), "{text}");
    assert!(lines[1].ends_with("in thread worker: (its text is not shown)"), "{text}");
    assert!(lines[2].ends_with("in thread worker: (its text is not shown)"), "{text}");
    assert!(lines[3].ends_with(" INFO before: the end"), "{text}");
    assert_eq!(lines[4], "error: cannot read ****************\\n: no such file");
    assert!(!text.contains(CANARY));
}

#[test]
#[ignore = "runs in a child process: it sets this process's panic hook and subscriber"]
fn in_a_child_panics_and_last_words() {
    held().remember(&[canary()]);
    let config = config::Log { filter: "info".into(), json: false };
    init(&config, io::stderr()).unwrap();
    assert!(matches!(init(&config, io::sink()), Err(Error::Twice)));
    let worker =
        |work: fn()| thread::Builder::new().name("worker".into()).spawn(work).unwrap().join().unwrap_err();
    drop(worker(|| panic!("a text of the source")));
    drop(worker(|| panic!("text with {CANARY}\nand \u{1b}[2J")));
    drop(worker(|| panic::panic_any(Some(CANARY))));
    tracing::info!(target: "before", "the end");
    error_line(&format!("error: cannot read {CANARY}\n: no such file"));
}
