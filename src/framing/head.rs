//! The lines of a head, for requests and answers alike.
//!
//! Bytes are judged in their order, and a line's structure only when the line is complete. So a prefix
//! that is refused is refused with every continuation, for the same reason: splits cannot matter.

use memchr::{memchr_iter, memrchr};

use super::{HeadLimits, Violation};

/// hyper's bound on fields, with a fixed stack array.
const FIELDS_MAX: usize = 100;
/// `http::Uri`'s bound.
const START_LINE_MAX: usize = 65_534;
const CRLF: usize = 2;

/// What is particular to requests or answers.
pub(super) trait Reader<'a>: Default {
    /// Whether a field value or reason phrase may hold bytes from 0x80 on (RFC 9110's obs-text).
    const OBS_TEXT: bool;
    /// The bytes of which field names are made.
    const NAME: &'static Table;
    /// What a start line over its bound is.
    const START_LINE_TOO_LONG: Violation;

    /// The complete start line, without CRLF.
    fn start_line(&mut self, line: &'a [u8]) -> Result<(), Violation>;
    /// A well-formed field; the value has no white space around it. What fields mean is judged when the
    /// head is complete.
    fn field(&mut self, name: &'a [u8], value: &'a [u8]);
}

/// Reads one head at the start of `bytes`: its length and what the reader gathered, or `None` while it
/// is incomplete.
pub(super) fn scan<'a, R: Reader<'a>>(
    bytes: &'a [u8],
    seen: usize,
    limits: &HeadLimits,
) -> Result<Option<(usize, R)>, Violation> {
    // Complete lines before `seen` were judged in an earlier call; without this, a caller that drips
    // bytes would make us read its head again for each.
    let resumed = bytes.get(..seen).unwrap_or(bytes);
    let from = match resumed {
        [] => 0,
        _ => memrchr(b'\n', resumed).map_or(0, |line_feed| line_feed + 1),
    };
    let mut reader = R::default();
    let Some(mut len) = lines(bytes, from, limits, &mut reader)? else {
        return Ok(None);
    };
    if from > 0 {
        reader = R::default();
        match lines(bytes, 0, limits, &mut reader)? {
            Some(whole) => len = whole,
            None => return Ok(None),
        }
    }
    Ok(Some((len, reader)))
}

/// Walks the lines that start at `from`, up to the empty one.
fn lines<'a, R: Reader<'a>>(
    bytes: &'a [u8],
    from: usize,
    limits: &HeadLimits,
    reader: &mut R,
) -> Result<Option<usize>, Violation> {
    let count_max = limits.header_count_max.min(FIELDS_MAX);
    let window = &bytes[..bytes.len().min(limits.header_bytes_max)];
    let mut at = from;
    let mut count = match from {
        0 => 0,
        _ => memchr_iter(b'\n', &bytes[..from]).count() - 1,
    };
    loop {
        let rest = window.get(at..).unwrap_or_default();
        let (line, after) = rest.split_at(line_len(rest, R::OBS_TEXT));
        if at == 0 && line.len() > limits.request_line_bytes_max.min(START_LINE_MAX) {
            return Err(R::START_LINE_TOO_LONG);
        }
        if at > 0 && count >= count_max && !line.is_empty() {
            return Err(Violation::HeaderTooLarge);
        }
        match after {
            [b'\r', b'\n', ..] => {}
            [] | [b'\r'] if window.len() >= limits.header_bytes_max => return Err(Violation::HeaderTooLarge),
            [] | [b'\r'] => return Ok(None),
            [b'\r' | b'\n', ..] => return Err(Violation::LineEnding),
            _ => return Err(Violation::ForbiddenByte),
        }
        if at == 0 {
            reader.start_line(line)?;
        } else if line.is_empty() {
            return Ok(Some(at + CRLF));
        } else {
            let (name, value) = split_field(line, R::NAME)?;
            reader.field(name, value);
            count += 1;
        }
        at += line.len() + CRLF;
    }
}

/// How many bytes at the start may stand in a line: visible ASCII, space, tab, and obs-text where allowed.
fn line_len(bytes: &[u8], obs_text: bool) -> usize {
    // Eight at a time. In `bad`, the lowest high bit is exact: borrows only disturb bytes above it.
    const EACH: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = EACH * 0x80;
    let mut at = 0;
    while let Some(block) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let block = u64::from_le_bytes(*block);
        let control = block.wrapping_sub(EACH * 0x20) & !block;
        let delete = block ^ (EACH * 0x7f);
        let delete = delete.wrapping_sub(EACH) & !delete;
        let over_ascii = if obs_text { 0 } else { block };
        let bad = (control | delete | over_ascii) & HIGH;
        if bad == 0 {
            at += 8;
            continue;
        }
        at += bad.trailing_zeros() as usize / 8;
        if bytes.get(at) != Some(&b'\t') {
            return at;
        }
        at += 1;
    }
    let rest = bytes.get(at..).unwrap_or_default();
    let may_stand = |byte: u8| matches!(byte, b'\t' | b' '..=b'~') || obs_text && byte >= 0x80;
    at + rest.iter().position(|&byte| !may_stand(byte)).unwrap_or(rest.len())
}

/// `name: value` without the white space around the value.
fn split_field<'a>(line: &'a [u8], table: &Table) -> Result<(&'a [u8], &'a [u8]), Violation> {
    let colon = line.iter().position(|&byte| !table.has(byte)).unwrap_or(line.len());
    match line.split_at(colon) {
        ([], [b' ' | b'\t', ..]) => Err(Violation::LineFolding),
        (name @ [_, ..], [b':', value @ ..]) => Ok((name, value.trim_ascii())),
        _ => Err(Violation::FieldName),
    }
}

/// A set of ASCII bytes.
pub(super) struct Table([bool; 256]);

impl Table {
    /// Letters, digits and `others`.
    pub(super) const fn alphanumeric_and(others: &[u8]) -> Self {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 128 {
            table[byte] = (byte as u8).is_ascii_alphanumeric();
            byte += 1;
        }
        let mut other = 0;
        while other < others.len() {
            table[others[other] as usize] = true;
            other += 1;
        }
        Self(table)
    }

    pub(super) const fn has(&self, byte: u8) -> bool {
        self.0[byte as usize]
    }

    pub(super) fn has_all(&self, bytes: &[u8]) -> bool {
        bytes.iter().all(|&byte| self.has(byte))
    }
}

/// RFC 9110's `token`.
pub(super) static TOKEN: Table = Table::alphanumeric_and(b"!#$%&'*+-.^_`|~");

/// `Content-Length` as both readers take it: 1 to 18 digits and no leading zero. 18 digits are an
/// exabyte and fit any integer.
pub(super) fn decimal(value: &[u8]) -> Option<u64> {
    let plain = match value {
        [b'0'] => true,
        [b'1'..=b'9', rest @ ..] => rest.len() < 18 && rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    plain.then(|| value.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

/// A field that may occur once.
#[derive(Default, Clone, Copy)]
pub(super) enum Single<'a> {
    #[default]
    Absent,
    Once(&'a [u8]),
    Repeated,
}

impl<'a> Single<'a> {
    pub(super) fn add(&mut self, value: &'a [u8]) {
        *self = match self {
            Self::Absent => Self::Once(value),
            Self::Once(_) | Self::Repeated => Self::Repeated,
        };
    }
}

/// What the framing fields say together, before method and status have their say.
pub(super) enum Declared {
    Nothing,
    Length(u64),
    Chunked,
}

pub(super) fn declared(
    content_length: Single<'_>,
    transfer_encoding: Single<'_>,
    is_http_10: bool,
) -> Result<Declared, Violation> {
    match (content_length, transfer_encoding) {
        (Single::Absent, Single::Absent) => Ok(Declared::Nothing),
        (Single::Once(value), Single::Absent) => {
            decimal(value).map(Declared::Length).ok_or(Violation::ContentLength)
        }
        (Single::Repeated, Single::Absent) => Err(Violation::ContentLength),
        (Single::Absent, Single::Once(value)) if value.eq_ignore_ascii_case(b"chunked") && !is_http_10 => {
            Ok(Declared::Chunked)
        }
        (Single::Absent, _) => Err(Violation::TransferEncoding),
        _ => Err(Violation::ConflictingFraming),
    }
}

/// What the `Connection` fields say of the connection; `close` wins over everything.
#[derive(Default)]
pub(super) struct Connection {
    close: bool,
    keep_alive: bool,
}

impl Connection {
    pub(super) fn add(&mut self, value: &[u8]) {
        self.close |= list_has(value, b"close");
        self.keep_alive |= list_has(value, b"keep-alive");
    }

    pub(super) fn persists(&self, is_http_10: bool) -> bool {
        !self.close && (!is_http_10 || self.keep_alive)
    }
}

/// Whether one of a list's members is `token`, in any case.
fn list_has(value: &[u8], token: &[u8]) -> bool {
    value.split(|&byte| byte == b',').any(|member| member.trim_ascii().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn eight_at_a_time_is_one_by_one(
            bytes in prop::collection::vec(prop_oneof![4 => b' '..=b'~', 1 => any::<u8>(), 1 => Just(b'\t')], 0..40),
            obs_text: bool,
        ) {
            let ends = |byte: u8| byte < b' ' && byte != b'\t' || byte == 0x7f || byte >= 0x80 && !obs_text;
            let one_by_one = bytes.iter().position(|&byte| ends(byte)).unwrap_or(bytes.len());
            prop_assert_eq!(line_len(&bytes, obs_text), one_by_one);
        }
    }
}
