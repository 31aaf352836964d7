//! The access record: one JSON line a request, written once, off the request's path.
//!
//! In: a [`Record`] when a request is over, however it ended. Out: whole lines at one destination.
//! Each worker has a [`Recorder`] that serialises into its own buffer and hands full buffers to the one
//! [`writer`] thread over a bounded queue. Schema v1 is described in `docs/records.md`; the audit trail
//! builds on it, so a field is never renamed or given another meaning within a version.
//!
//! What must never happen: a worker waits for the writer (lines are lost and counted instead); a path,
//! a query or a header value becomes part of a line; a buffer is written without having passed the
//! mask; half a line is followed by another one.

pub mod writer;

mod line;

use std::{net::IpAddr, time::SystemTime};

use self::line::LineWriter;
use crate::{record::writer::Queue, vault::secret::Fingerprint};

/// The value of `v` in every line.
pub const SCHEMA_VERSION: u8 = 1;

/// A buffer is handed over when it holds more than this: large, since each hand-over wakes a thread.
const BATCH_BYTES: usize = 64 * 1024;

/// What became of one request. No string in it is the caller's own: `method` is from a fixed set,
/// everything else is the gateway's or the operator's.
#[derive(Debug)]
pub struct Record<'a> {
    /// When the request's head was complete; becomes `time`.
    pub start: SystemTime,
    /// As in `x-mxgate-request-id`.
    pub request_id: &'a str,
    /// The configured name of who called; `None` when nobody was recognised.
    pub caller: Option<&'a str>,
    /// The address that counted for the decision; `None` for a peer on a Unix socket.
    pub caller_address: Option<IpAddr>,
    /// The connection's own address, when a trusted proxy named another one as the caller's.
    pub peer_address: Option<IpAddr>,
    /// The listener's address as configured.
    pub listener: &'a str,
    /// The environment's name.
    pub environment: &'a str,
    /// The operation's id, when the catalogue knows the request.
    pub operation: Option<&'a str>,
    /// The path template that matched: never the path itself.
    pub template: Option<&'a str>,
    /// From the set of methods that are forwarded, or `OTHER`.
    pub method: &'static str,
    /// How it ended.
    pub decision: Decision,
    /// A refusal's or failure's stable code.
    pub code: Option<&'static str>,
    /// What was attached, when something was.
    pub credential: Option<&'a UsedCredential>,
    /// The answer's status; `None` when the caller left before there was one.
    pub status: Option<u16>,
    /// Bytes of the request's body that were read.
    pub bytes_in: u64,
    /// Bytes of the answer's body that were written.
    pub bytes_out: u64,
    /// Microseconds from `start` to the end of the answer.
    pub duration_us: u64,
    /// Microseconds of it spent waiting for the upstream; `None` when it was not asked.
    pub upstream_us: Option<u64>,
    /// How many secrets were masked in the answer.
    pub masked: u32,
    /// The user at the other end of a Unix socket.
    pub peer_uid: Option<u32>,
    /// The code that it would have been refused with, were its caller not in observe mode.
    pub would_refuse: Option<&'static str>,
    /// It was answered 401 with the key that was in use, and then sent again with the other one, which is `credential`.
    pub cut_over: bool,
    /// How many tokens of the answer were kept, with handles in their places.
    pub kept: u64,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It was forwarded and its answer passed on.
    Allowed,
    /// Our no, the caller's fault; `code` says which.
    Refused,
    /// The upstream's fault, or ours; `code` says which.
    Failed,
    /// The caller left, or was cut off, before the answer was complete.
    Aborted,
}

/// Which credential was attached: enough to tell two keys apart. Made once a snapshot, since formatting
/// a fingerprint would take a quarter of a line's time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedCredential {
    name: Box<str>,
    fingerprint: Box<str>,
}

impl UsedCredential {
    /// The secret's reference as configured.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The fingerprint, as text.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// `name` is the secret's reference as configured.
    #[must_use]
    pub fn new(name: &str, fingerprint: Fingerprint) -> Self {
        Self { name: name.into(), fingerprint: fingerprint.to_string().into() }
    }
}

/// One worker's side: serialises lines and hands them over in batches.
#[derive(Debug)]
pub struct Recorder {
    /// `None`: records go nowhere, and cost nothing.
    queue: Option<Queue>,
    batch: Batch,
    writer: LineWriter,
}

/// Whole lines, and how many.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) text: Vec<u8>,
    pub(crate) lines: u64,
}

impl Recorder {
    pub(crate) fn new(queue: Option<Queue>) -> Self {
        Self { queue, batch: Batch::default(), writer: LineWriter::default() }
    }

    /// Adds one line. Never waits: what the writer cannot take is lost and counted.
    pub fn record(&mut self, record: &Record<'_>) {
        if self.queue.is_none() {
            return;
        }
        self.writer.write(&mut self.batch.text, record);
        self.batch.lines += 1;
        if self.batch.text.len() > BATCH_BYTES {
            self.flush();
        }
    }

    /// Hands over what is buffered. The worker's tick (`metrics::TICK`) calls it, so that a quiet
    /// gateway's lines are not held back.
    pub fn flush(&mut self) {
        let Some(queue) = &self.queue else { return };
        if self.batch.lines > 0 {
            let next = Batch { text: queue.spare(), lines: 0 };
            queue.push(std::mem::replace(&mut self.batch, next));
        }
    }
}

/// A worker that ends, even by a panic, does not take its last lines along.
impl Drop for Recorder {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::vault::secret::Secret;

    pub(crate) fn example() -> Record<'static> {
        Record {
            start: SystemTime::UNIX_EPOCH + Duration::from_millis(1_790_000_000_123),
            request_id: "5f0c2a9be17d40860000000000000001",
            caller: Some("ledger"),
            caller_address: Some(IpAddr::from([10, 20, 1, 7])),
            peer_address: None,
            peer_uid: None,
            listener: "127.0.0.1:8080",
            environment: "production",
            operation: Some("listUsers"),
            template: Some("/users"),
            method: "GET",
            decision: Decision::Allowed,
            code: None,
            credential: None,
            status: Some(200),
            bytes_in: 0,
            bytes_out: 1234,
            duration_us: 56_789,
            upstream_us: Some(56_000),
            masked: 0,
            would_refuse: None,
            cut_over: false,
            kept: 0,
        }
    }

    fn line(record: &Record<'_>) -> String {
        let mut text = Vec::new();
        LineWriter::default().write(&mut text, record);
        let line = String::from_utf8(text).unwrap();
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["v"], SCHEMA_VERSION);
        line.strip_suffix('\n').unwrap().to_owned()
    }

    #[test]
    fn a_line_holds_the_fields_of_schema_v1_in_order() {
        let expected = r#"{"v":1,"time":"2026-09-21T14:13:20.123Z","request_id":"5f0c2a9be17d40860000000000000001","caller":"ledger","caller_address":"10.20.1.7","listener":"127.0.0.1:8080","environment":"production","operation":"listUsers","template":"/users","method":"GET","decision":"allowed","code":null,"credential":null,"status":200,"bytes_in":0,"bytes_out":1234,"duration_us":56789,"upstream_us":56000,"masked":0}"#;
        assert_eq!(line(&example()), expected);
    }

    #[test]
    fn the_documentation_lists_the_same_fields_in_the_same_order() {
        let used = UsedCredential::new("n", Secret::new(b"canary-value".to_vec()).unwrap().fingerprint());
        let peer_address = Some(IpAddr::from([10, 0, 0, 2]));
        let line = line(&Record {
            peer_address,
            credential: Some(&used),
            peer_uid: Some(7),
            would_refuse: Some("operation_denied"),
            cut_over: true,
            kept: 1,
            ..example()
        });
        let table = include_str!("../docs/records.md").lines().filter(|line| line.starts_with("| `"));
        let mut rest = line.as_str();
        let mut count = 0;
        for field in
            table.flat_map(|row| row.split('|').nth(1).unwrap_or_default().split('`').skip(1).step_by(2))
        {
            let key = format!("\"{field}\":");
            let at = rest.find(&key).unwrap_or_else(|| panic!("{field} is not next in {rest}"));
            rest = &rest[at + key.len()..];
            count += 1;
        }
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value.as_object().unwrap().len(), count);
    }

    #[test]
    fn the_peers_address_shows_only_when_another_one_counted() {
        assert!(!line(&example()).contains("peer_address"));
        let behind_proxy = Record { peer_address: Some(IpAddr::from([10, 0, 0, 2])), ..example() };
        assert!(line(&behind_proxy).contains(r#""peer_address":"10.0.0.2""#));
        assert!(!line(&example()).contains("peer_uid"));
        assert!(line(&Record { peer_uid: Some(7), ..example() }).ends_with("\"peer_uid\":7}"));
    }

    #[test]
    fn a_credential_shows_its_name_and_fingerprint_and_not_its_value() {
        let secret = Secret::new(b"canary-value".to_vec()).unwrap();
        let used = UsedCredential::new("vault:production/api_key", secret.fingerprint());
        let line = line(&Record { credential: Some(&used), ..example() });
        let expected = format!(
            r#""credential":{{"name":"vault:production/api_key","fingerprint":"{}"}}"#,
            secret.fingerprint()
        );
        assert!(line.contains(&expected), "{line}");
        assert!(!line.contains("canary-value"));
    }

    #[test]
    fn a_second_attempt_shows_only_where_there_was_one() {
        assert!(!line(&example()).contains("cut_over"));
        assert!(line(&Record { cut_over: true, ..example() }).ends_with("\"cut_over\":true}"));
    }

    #[test]
    fn tokens_that_are_kept_show_only_where_there_were_any() {
        assert!(!line(&example()).contains("kept"));
        assert!(line(&Record { kept: 2, ..example() }).ends_with("\"kept\":2}"));
    }

    #[test]
    fn what_did_not_happen_is_null() {
        let aborted = Record {
            caller: None,
            caller_address: None,
            operation: None,
            template: None,
            decision: Decision::Aborted,
            status: None,
            upstream_us: None,
            ..example()
        };
        let value: serde_json::Value = serde_json::from_str(&line(&aborted)).unwrap();
        for field in ["caller", "caller_address", "operation", "template", "status", "upstream_us"] {
            assert_eq!(value.get(field), Some(&serde_json::Value::Null), "{field}");
        }
        assert_eq!(value["decision"], "aborted");
    }
}
