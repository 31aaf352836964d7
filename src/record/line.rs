//! One record as a line of JSON, written by hand.
//!
//! A line a request is a cost that every request pays, and serde's way costs five times as much. Only
//! what an operator has configured may need escaping; serde_json does that then.

use std::{fmt::Write as _, net::IpAddr, time::SystemTime};

use super::{Decision, Record, SCHEMA_VERSION};

/// Writes lines, and keeps what the last one may have in common with the next.
#[derive(Debug, Default)]
pub(super) struct LineWriter {
    clock: Clock,
    address: LastAddress,
}

impl LineWriter {
    /// Adds `record`'s line to `text`. The fields that every schema version has come first.
    pub(super) fn write(&mut self, text: &mut Vec<u8>, record: &Record<'_>) {
        text.extend_from_slice(PREFIX);
        text.extend_from_slice(self.clock.text(record.start).as_bytes());
        text.push(b'"');
        word(text, "request_id", Some(record.request_id));
        word(text, "caller", record.caller);
        word(text, "caller_address", record.caller_address.map(|address| self.address.text(address)));
        if let Some(address) = record.peer_address {
            word(text, "peer_address", Some(self.address.text(address)));
        }
        string(text, "listener", Some(record.listener));
        string(text, "environment", Some(record.environment));
        word(text, "operation", record.operation);
        string(text, "template", record.template);
        word(text, "method", Some(record.method));
        word(text, "decision", Some(record.decision.as_str()));
        word(text, "code", record.code);
        key(text, "credential");
        match record.credential {
            Some(used) => {
                text.extend_from_slice(b"{\"name\":");
                quoted(text, &used.name);
                word(text, "fingerprint", Some(&used.fingerprint));
                text.push(b'}');
            }
            None => text.extend_from_slice(NULL),
        }
        number(text, "status", record.status.map(u64::from));
        number(text, "bytes_in", Some(record.bytes_in));
        number(text, "bytes_out", Some(record.bytes_out));
        number(text, "duration_us", Some(record.duration_us));
        number(text, "upstream_us", record.upstream_us);
        number(text, "masked", Some(record.masked.into()));
        if let Some(uid) = record.peer_uid {
            number(text, "peer_uid", Some(uid.into()));
        }
        if record.would_refuse.is_some() {
            word(text, "would_refuse", record.would_refuse);
        }
        if record.cut_over {
            key(text, "cut_over");
            text.extend_from_slice(b"true");
        }
        if record.kept > 0 {
            number(text, "kept", Some(record.kept));
        }
        text.extend_from_slice(b"}\n");
    }
}

/// [`SCHEMA_VERSION`] and the start of `time`.
const PREFIX: &[u8] = br#"{"v":1,"time":""#;
const _: () = assert!(SCHEMA_VERSION == 1, "PREFIX says so too");

const NULL: &[u8] = b"null";

fn key(text: &mut Vec<u8>, name: &str) {
    text.extend_from_slice(b",\"");
    text.extend_from_slice(name.as_bytes());
    text.extend_from_slice(b"\":");
}

/// A value that is the gateway's own and never needs escaping.
fn word(text: &mut Vec<u8>, name: &str, value: Option<&str>) {
    key(text, name);
    match value {
        Some(value) => {
            text.push(b'"');
            text.extend_from_slice(value.as_bytes());
            text.push(b'"');
        }
        None => text.extend_from_slice(NULL),
    }
}

fn string(text: &mut Vec<u8>, name: &str, value: Option<&str>) {
    key(text, name);
    match value {
        Some(value) => quoted(text, value),
        None => text.extend_from_slice(NULL),
    }
}

fn quoted(text: &mut Vec<u8>, value: &str) {
    let is_plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    // Not `all`, which would look at one byte after the other.
    if value.bytes().fold(true, |plain, byte| plain & is_plain(byte)) {
        text.push(b'"');
        text.extend_from_slice(value.as_bytes());
        text.push(b'"');
    } else {
        // A vector takes every byte, and a string is always JSON.
        let _ = serde_json::to_writer(text, value);
    }
}

fn number(text: &mut Vec<u8>, name: &str, value: Option<u64>) {
    key(text, name);
    match value {
        Some(value) => text.extend_from_slice(itoa::Buffer::new().format(value).as_bytes()),
        None => text.extend_from_slice(NULL),
    }
}

impl Decision {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
        }
    }
}

/// The text of an address; requests of one connection have the same.
#[derive(Debug, Default)]
struct LastAddress {
    address: Option<IpAddr>,
    text: String,
}

impl LastAddress {
    fn text(&mut self, address: IpAddr) -> &str {
        if self.address != Some(address) {
            self.text.clear();
            let _ = write!(self.text, "{address}");
            self.address = Some(address);
        }
        &self.text
    }
}

/// RFC 3339 in UTC with milliseconds. Only the milliseconds are formatted anew within one second.
#[derive(Debug, Default)]
struct Clock {
    second: Option<u64>,
    text: String,
}

impl Clock {
    fn text(&mut self, time: SystemTime) -> &str {
        // A clock before 1970 shows as 1970: a wrong clock is no reason to lose a line.
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if self.second != Some(since.as_secs()) {
            self.text.clear();
            // humantime panics past the year 9999.
            let shown = if since.as_secs() <= LAST_SECOND { time } else { SystemTime::UNIX_EPOCH };
            let shown = shown.max(SystemTime::UNIX_EPOCH);
            let seconds = humantime::format_rfc3339_seconds(shown).to_string();
            self.text.push_str(seconds.trim_end_matches('Z'));
            self.text.push_str(".000Z");
            self.second = Some(since.as_secs());
        }
        let millis = since.subsec_millis();
        self.text.truncate(SECONDS_LENGTH);
        for divisor in [100, 10, 1] {
            // A single decimal digit.
            self.text.push(char::from(b'0' + (millis / divisor % 10) as u8));
        }
        self.text.push('Z');
        &self.text
    }
}

/// 9999-12-31T23:59:59Z.
const LAST_SECOND: u64 = 253_402_300_799;

/// Bytes of `2026-01-31T23:59:59.`.
const SECONDS_LENGTH: usize = 20;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_an_operator_names_oddly_is_escaped_and_the_rest_is_not() {
        for value in ["", "plain ü /{guid}", "quote\" and \\", "line\nend", "\u{1}"] {
            let mut text = Vec::new();
            quoted(&mut text, value);
            assert_eq!(serde_json::from_slice::<String>(&text).unwrap(), value);
            assert_eq!(text.len() == value.len() + 2, !value.contains(['"', '\\', '\n', '\u{1}']));
        }
    }

    #[test]
    fn an_address_is_never_the_last_requests() {
        let mut last = LastAddress::default();
        for text in ["10.0.0.1", "10.0.0.1", "2001:db8::1", "10.0.0.2"] {
            assert_eq!(last.text(text.parse().unwrap()), text);
        }
    }

    #[test]
    fn the_cached_second_is_not_kept_too_long() {
        let mut clock = Clock::default();
        let start = SystemTime::UNIX_EPOCH + Duration::from_millis(951_782_399_998);
        for (millis, expected) in [
            (0, "2000-02-28T23:59:59.998Z"),
            (1, "2000-02-28T23:59:59.999Z"),
            (2, "2000-02-29T00:00:00.000Z"),
            (59, "2000-02-29T00:00:00.057Z"),
            (1, "2000-02-28T23:59:59.999Z"),
        ] {
            assert_eq!(clock.text(start + Duration::from_millis(millis)), expected);
        }
    }

    #[test]
    fn a_wrong_clock_loses_no_line() {
        let mut clock = Clock::default();
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(5);
        assert_eq!(clock.text(before), "1970-01-01T00:00:00.000Z");
        let after = SystemTime::UNIX_EPOCH + Duration::from_secs(LAST_SECOND + 1);
        assert_eq!(clock.text(after), "1970-01-01T00:00:00.000Z");
        let last = SystemTime::UNIX_EPOCH + Duration::from_secs(LAST_SECOND);
        assert_eq!(clock.text(last), "9999-12-31T23:59:59.000Z");
    }
}
