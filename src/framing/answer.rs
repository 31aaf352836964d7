//! An answer's head, as the upstream sent it.
//!
//! Common clients cut heads at a bare LF, ignore `Content-Length` beside `Transfer-Encoding`, take
//! `5, 5` and read an unknown coding until the connection ends. Passed on, such an answer could end
//! elsewhere for the caller, or leave bytes that the next caller receives. It is a failure instead
//! (502), and the connection is not used again. Two things that are refused in requests are common in
//! answers and harmless: bytes from 0x80 on in values, and field names of any token characters.

use super::{
    HeadLimits, Violation,
    head::{self, Connection, Declared, Reader, Single, TOKEN, Table, decimal, declared},
};

/// What follows from an answer's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerHead {
    /// Bytes of the head, the empty line included; the body starts there.
    pub len: usize,
    /// 100 to 599, without 101.
    pub status: u16,
    /// How the body ends.
    pub framing: AnswerFraming,
    /// A 1xx: another head follows for the same request.
    pub interim: bool,
    /// The upstream takes another request on this connection after this answer.
    pub keep_alive: bool,
}

/// An answer body's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerFraming {
    /// No body: to HEAD, 1xx, 204, 304 or `Content-Length: 0`.
    None,
    /// That many bytes, at least one.
    Length(u64),
    /// Chunks; follow them with [`super::chunked::ChunkedScanner`].
    Chunked,
    /// Everything up to the connection's end. Whether it is complete cannot be known.
    UntilClose,
}

/// Reads the head at the start of `bytes`; `None` while it is incomplete.
///
/// `seen` is how many of these bytes an earlier call judged incomplete (0 at first). `request_is_head`
/// is whether it answers a HEAD, which has no body whatever the fields say.
/// [`HeadLimits::request_line_bytes_max`] bounds the status line; an answer body is not bounded here.
///
/// # Errors
/// As soon as no further byte could make an acceptable head of it.
pub fn scan_head(
    bytes: &[u8],
    seen: usize,
    limits: &HeadLimits,
    request_is_head: bool,
) -> Result<Option<AnswerHead>, Violation> {
    match head::scan::<Answer<'_>>(bytes, seen, limits)? {
        Some((len, answer)) => answer.finish(len, request_is_head).map(Some),
        None => Ok(None),
    }
}

#[derive(Default)]
struct Answer<'a> {
    is_http_10: bool,
    status: u16,
    content_length: Single<'a>,
    transfer_encoding: Single<'a>,
    connection: Connection,
}

impl<'a> Reader<'a> for Answer<'a> {
    const OBS_TEXT: bool = true;
    const NAME: &'static Table = &TOKEN;
    const START_LINE_TOO_LONG: Violation = Violation::HeaderTooLarge;

    fn start_line(&mut self, line: &'a [u8]) -> Result<(), Violation> {
        let (version, rest) = line.split_first_chunk::<9>().ok_or(Violation::StatusLine)?;
        self.is_http_10 = match version {
            b"HTTP/1.1 " => false,
            b"HTTP/1.0 " => true,
            _ => return Err(Violation::StatusLine),
        };
        // Many servers leave the space out when there is no reason phrase.
        let status = match rest {
            [a, b, c] | [a, b, c, b' ', ..] => [*a, *b, *c],
            _ => return Err(Violation::StatusLine),
        };
        self.status = match decimal(&status) {
            Some(101) => return Err(Violation::SwitchingProtocols),
            Some(status @ 100..=599) => u16::try_from(status).unwrap_or_default(),
            _ => return Err(Violation::StatusLine),
        };
        Ok(())
    }

    fn field(&mut self, name: &'a [u8], value: &'a [u8]) {
        match name.len() {
            10 if name.eq_ignore_ascii_case(b"connection") => self.connection.add(value),
            14 if name.eq_ignore_ascii_case(b"content-length") => self.content_length.add(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.transfer_encoding.add(value),
            _ => {}
        }
    }
}

impl Answer<'_> {
    fn finish(self, len: usize, request_is_head: bool) -> Result<AnswerHead, Violation> {
        let declared = declared(self.content_length, self.transfer_encoding, self.is_http_10)?;
        let interim = self.status < 200;
        let framing = match (self.status, declared) {
            (100..=199 | 204, Declared::Chunked) => return Err(Violation::TransferEncoding),
            (100..=199 | 204, Declared::Length(1..)) => return Err(Violation::ContentLength),
            (100..=199 | 204 | 304, _) => AnswerFraming::None,
            _ if request_is_head => AnswerFraming::None,
            (_, Declared::Nothing) => AnswerFraming::UntilClose,
            (_, Declared::Length(0)) => AnswerFraming::None,
            (_, Declared::Length(length)) => AnswerFraming::Length(length),
            (_, Declared::Chunked) => AnswerFraming::Chunked,
        };
        let keep_alive = framing != AnswerFraming::UntilClose && self.connection.persists(self.is_http_10);
        Ok(AnswerHead { len, status: self.status, framing, interim, keep_alive })
    }
}

#[cfg(test)]
pub(crate) mod tests;
