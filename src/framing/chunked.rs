//! The chunked transfer coding, followed byte by byte.
//!
//! In: the bytes after a head, in whatever pieces they come. Out: how many of them belong to the body,
//! and whether it has ended. Only the bare form passes: hexadecimal size, CRLF, data, CRLF. Chunk
//! extensions are refused: nobody sends them, readers differ in where they end, and nothing forwards
//! them. Trailers pass when they are few, well formed and name nothing that belongs in a head; a caller's also name no
//! credential and nothing that leads elsewhere.

use super::{
    Violation,
    head::TOKEN,
    names::{is_credential, is_detour},
};

/// Bytes of a trailer section without its last empty line; hyper's own bound is 16 KiB.
const TRAILER_BYTES_MAX: usize = 4_096;
/// Fields of a trailer section; hyper's own bound is 100.
const TRAILER_COUNT_MAX: usize = 32;
/// Bytes of a trailer field's name: more than any name that is registered.
const NAME_BYTES_MAX: usize = 48;

/// How far one piece of a chunked body led.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scanned {
    /// Bytes of the piece that belong to the body. All of them, unless the body ended before.
    pub accepted: usize,
    /// The body has ended after `accepted` bytes.
    pub done: bool,
}

/// Follows one chunked body. Make a new one for each.
#[derive(Debug, Clone)]
pub struct ChunkedScanner {
    state: State,
    /// Whether the body is a caller's.
    is_request: bool,
    /// Data bytes that may still come.
    data_left: u64,
    trailer_bytes: usize,
    trailer_count: usize,
    name: [u8; NAME_BYTES_MAX],
    name_len: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In a size line, after that many digits.
    Size {
        size: u64,
        digits: u8,
    },
    SizeLf {
        size: u64,
    },
    /// In a chunk's data, with that many bytes to come.
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    /// At the start of a trailer line, or of the empty line at the end.
    LineStart,
    Name,
    Value,
    ValueLf,
    EndLf,
    Done,
    Failed(Violation),
}

const NEXT_CHUNK: State = State::Size { size: 0, digits: 0 };

impl ChunkedScanner {
    /// How many of the next bytes are sure to be a chunk's data.
    #[must_use]
    pub const fn certain(&self) -> u64 {
        match self.state {
            State::Data { left } => left,
            _ => 0,
        }
    }

    /// Whether the next byte belongs to the trailer section, whose end is the body's.
    #[must_use]
    pub const fn in_trailers(&self) -> bool {
        matches!(self.state, State::LineStart | State::Name | State::Value | State::ValueLf | State::EndLf)
    }

    /// Takes note that `count` of the certain bytes, not all of them, have passed unseen.
    pub const fn pass(&mut self, count: u64) {
        if let State::Data { left } = &mut self.state {
            *left = left.saturating_sub(count);
        }
    }

    /// For a request's body of at most `body_bytes_max` bytes of data, chunk framing and trailers not counted.
    #[must_use]
    pub const fn of_request(body_bytes_max: u64) -> Self {
        Self::new(true, body_bytes_max)
    }

    /// For an answer's body, of any length.
    #[must_use]
    pub const fn of_answer() -> Self {
        Self::new(false, u64::MAX)
    }

    const fn new(is_request: bool, data_left: u64) -> Self {
        Self {
            state: NEXT_CHUNK,
            is_request,
            data_left,
            trailer_bytes: 0,
            trailer_count: 0,
            name: [0; NAME_BYTES_MAX],
            name_len: 0,
        }
    }

    /// Follows the next piece of the body.
    ///
    /// # Errors
    /// At the first byte that no acceptable body has there; and again at each later call.
    pub fn scan(&mut self, bytes: &[u8]) -> Result<Scanned, Violation> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            match self.state {
                State::Done => break,
                State::Failed(violation) => return Err(violation),
                State::Data { left } => {
                    let here = u64::try_from(bytes.len() - at).unwrap_or(u64::MAX).min(left);
                    // `here` is at most the length of a slice.
                    at += usize::try_from(here).unwrap_or(usize::MAX);
                    self.state = if here == left { State::DataCr } else { State::Data { left: left - here } };
                }
                state => {
                    self.state = self.step(state, byte).unwrap_or_else(State::Failed);
                    at += 1;
                }
            }
        }
        match self.state {
            State::Failed(violation) => Err(violation),
            state => Ok(Scanned { accepted: at, done: state == State::Done }),
        }
    }

    fn step(&mut self, state: State, byte: u8) -> Result<State, Violation> {
        match (state, byte) {
            (State::Size { size, digits }, _) if byte.is_ascii_hexdigit() && digits < 16 => {
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                Ok(State::Size { size: size << 4 | digit, digits: digits + 1 })
            }
            (State::Size { size, digits: 1.. }, b'\r') => Ok(State::SizeLf { size }),
            (State::SizeLf { size: 0 }, b'\n') => Ok(State::LineStart),
            (State::SizeLf { size }, b'\n') => {
                self.data_left = self.data_left.checked_sub(size).ok_or(Violation::BodyTooLarge)?;
                Ok(State::Data { left: size })
            }
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(NEXT_CHUNK),
            (State::LineStart, b'\r') => Ok(State::EndLf),
            (State::EndLf, b'\n') => Ok(State::Done),
            (State::LineStart | State::Name | State::Value | State::ValueLf, _) => self.trailer(state, byte),
            _ => Err(Violation::Chunk),
        }
    }

    fn trailer(&mut self, state: State, byte: u8) -> Result<State, Violation> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES_MAX {
            return Err(Violation::HeaderTooLarge);
        }
        match (state, byte) {
            (State::LineStart, _) if self.trailer_count == TRAILER_COUNT_MAX => {
                Err(Violation::HeaderTooLarge)
            }
            (State::LineStart, _) if TOKEN.has(byte) => {
                self.trailer_count += 1;
                self.name_len = 0;
                self.push_name(byte)
            }
            (State::Name, b':') => {
                let name = self.name.get(..self.name_len).unwrap_or_default();
                let stops = is_forbidden(name) || (self.is_request && is_private(name));
                if stops { Err(Violation::Trailer) } else { Ok(State::Value) }
            }
            (State::Name, _) if TOKEN.has(byte) => self.push_name(byte),
            (State::Value, b'\r') => Ok(State::ValueLf),
            (State::Value, b'\t' | b' '..=b'~') => Ok(State::Value),
            (State::ValueLf, b'\n') => Ok(State::LineStart),
            _ => Err(Violation::Trailer),
        }
    }

    fn push_name(&mut self, byte: u8) -> Result<State, Violation> {
        let place = self.name.get_mut(self.name_len).ok_or(Violation::Trailer)?;
        // Servers behind us map `_` to `-`; here both are refused or both pass.
        *place = if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
        self.name_len += 1;
        Ok(State::Name)
    }
}

/// Fields that frame, route, control or describe content: a reader that merges trailers
/// into the head would let them override what was checked there (RFC 9110, section 6.5.1).
fn is_forbidden(name: &[u8]) -> bool {
    FORBIDDEN.binary_search(&name).is_ok() || FAMILIES.iter().any(|family| name.starts_with(family))
}

/// Fields that authenticate a caller, or lead elsewhere.
fn is_private(name: &[u8]) -> bool {
    str::from_utf8(name).is_ok_and(|name| is_credential(name) || is_detour(name))
}

/// Sorted, in lower case.
const FORBIDDEN: &[&[u8]] = &[
    b"accept",
    b"age",
    b"authentication-info",
    b"cache-control",
    b"connection",
    b"date",
    b"expect",
    b"expires",
    b"forwarded",
    b"host",
    b"http2-settings",
    b"keep-alive",
    b"location",
    b"max-forwards",
    b"origin",
    b"pragma",
    b"range",
    b"referer",
    b"retry-after",
    b"set-cookie",
    b"set-cookie2",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
    b"user-agent",
    b"vary",
    b"via",
    b"warning",
    b"www-authenticate",
];

/// Whole families, by their start.
const FAMILIES: &[&[u8]] =
    &[b"accept-", b"access-control-", b"content-", b"if-", b"mx-", b"proxy-", b"sec-", b"x-mxgate-"];

#[cfg(test)]
pub(crate) mod tests;
