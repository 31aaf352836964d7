//! Access records read back, one line at a time.
//!
//! In: what `record` wrote, or a part of it. Out: the fields that say who asked for what and how it was decided. Memory
//! does not grow with the file; a line that is no record is counted and left out.

use std::{
    borrow::Cow,
    io::{self, BufRead, Read as _},
    net::IpAddr,
};

use serde::Deserialize;

use crate::record::SCHEMA_VERSION;

/// No record is near this long.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// What one record says about a decision.
#[derive(Debug, Deserialize)]
pub(super) struct Recorded<'l> {
    v: u8,
    #[serde(borrow)]
    pub(super) caller: Option<Cow<'l, str>>,
    pub(super) caller_address: Option<IpAddr>,
    pub(super) peer_address: Option<IpAddr>,
    #[serde(borrow)]
    pub(super) environment: Cow<'l, str>,
    #[serde(borrow)]
    pub(super) operation: Option<Cow<'l, str>>,
    #[serde(borrow)]
    pub(super) template: Option<Cow<'l, str>>,
    #[serde(borrow)]
    pub(super) method: Cow<'l, str>,
    #[serde(borrow)]
    pub(super) decision: Cow<'l, str>,
    #[serde(borrow)]
    pub(super) code: Option<Cow<'l, str>>,
    /// Let through by observe mode alone.
    #[serde(borrow, default)]
    pub(super) would_refuse: Option<Cow<'l, str>>,
}

/// How many lines there were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Read {
    /// Records.
    pub records: u64,
    /// Lines that are none.
    pub unreadable: u64,
}

impl Recorded<'_> {
    /// Whether policy let it through, whatever became of it then.
    pub(super) fn passed(&self) -> bool {
        self.decision != "refused"
    }
}

/// Hands every record of `lines` to `each`.
pub(super) fn read(mut lines: impl BufRead, mut each: impl FnMut(&Recorded<'_>)) -> io::Result<Read> {
    let mut read = Read::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        let count = lines.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        if count == 0 {
            return Ok(read);
        }
        let is_whole = count < LINE_BYTES_MAX as usize || line.ends_with(b"\n");
        if !is_whole {
            skip_line(&mut lines)?;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice::<Recorded<'_>>(&line) {
            Ok(recorded) if is_whole && recorded.v == SCHEMA_VERSION => {
                read.records += 1;
                each(&recorded);
            }
            _ => read.unreadable += 1,
        }
    }
}

fn skip_line(lines: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = lines.fill_buf()?;
        let (count, ended) = match memchr::memchr(b'\n', buffer) {
            Some(end) => (end + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        lines.consume(count);
        if ended {
            return Ok(());
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A record with these fields instead of its own.
    pub(in super::super) fn record(fields: &str) -> String {
        let mut record: serde_json::Map<String, serde_json::Value> = serde_json::from_str(
            r#"{"v":1,"time":"2026-09-21T14:13:20.123Z","request_id":"5f","caller":"ledger","caller_address":"10.20.1.7","listener":"127.0.0.1:8080","environment":"production","operation":"listUsers","template":"/users","method":"GET","decision":"allowed","code":null,"credential":null,"status":200}"#,
        )
        .unwrap();
        record.extend(
            serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&format!("{{{fields}}}"))
                .unwrap(),
        );
        serde_json::to_string(&record).unwrap() + "\n"
    }

    #[test]
    fn what_is_no_record_is_counted_and_left_out() {
        let long = format!("{}\n", "x".repeat(3 * LINE_BYTES_MAX as usize));
        let text = [
            &record(""),
            "not json\n",
            "\n",
            &long,
            &record("\"v\":2"),
            "{\"v\":1}\n",
            &record("\"caller\":\"\\u006cedger\""),
        ]
        .concat();
        let mut callers = Vec::new();
        let read =
            read(text.as_bytes(), |one| callers.push(one.caller.as_deref().unwrap().to_owned())).unwrap();
        assert_eq!(read, Read { records: 2, unreadable: 4 });
        assert_eq!(callers, ["ledger", "ledger"]);
    }

    #[test]
    fn what_the_gateway_writes_is_read_back() {
        let text =
            include_str!("../../docs/records.md").lines().find(|line| line.starts_with("{\"v\"")).unwrap();
        let mut count = 0;
        read(text.as_bytes(), |one| {
            assert_eq!((one.operation.as_deref(), &*one.method), (Some("listUsers"), "GET"));
            assert!(one.passed());
            count += 1;
        })
        .unwrap();
        assert_eq!(count, 1);
    }
}
