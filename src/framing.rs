//! What a well-formed HTTP/1.1 message looks like on the wire: pure checks without I/O.
//!
//! The gate in front of hyper feeds these scanners the bytes as they come. They may only refuse: they
//! never repair, skip or change a byte, so what is accepted is what hyper reads next. Two rules hold for
//! all of them, and tests and fuzzing rest on both:
//!
//! - *Agreement*: whatever is accepted here, httparse and hyper read the same way: the same message end,
//!   the same fields, the same body. Where they tolerate more, this is the stricter reader.
//! - *Splits do not matter*: a verdict depends on the bytes, never on how they were cut into reads, and a
//!   violation is reported as soon as no further byte could cure it.
//!
//! Nothing here allocates, and no error repeats a byte of the message, which may hold a credential.

pub mod answer;
pub mod chunked;
#[cfg(test)]
mod differential;
mod head;
pub(crate) mod names;
pub mod request;

use crate::{config::Limits, refusal::Refusal};

/// Bounds on one message. The gateway's configuration sets them for requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of a head, from its first line to the empty line, both included.
    pub header_bytes_max: usize,
    /// Fields in a head. Values over 100 count as 100, which is hyper's own bound.
    pub header_count_max: usize,
    /// Bytes of a request line or status line without its CRLF. Values over 65,534 count as 65,534,
    /// which is what `http::Uri` takes.
    pub request_line_bytes_max: usize,
    /// Bytes of a body's content, without chunk framing.
    pub body_bytes_max: u64,
}

impl From<&Limits> for HeadLimits {
    fn from(limits: &Limits) -> Self {
        Self {
            header_bytes_max: limits.header_bytes_max,
            header_count_max: limits.header_count_max,
            request_line_bytes_max: limits.request_line_bytes_max,
            body_bytes_max: limits.body_bytes_max,
        }
    }
}

/// Why a message is not one that two readers must read alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Violation {
    /// A carriage return or a line feed without the other.
    #[error("a line does not end in CRLF")]
    LineEnding,
    /// A control byte, or a byte over 0x7E where none may be.
    #[error("a head holds a control byte or a byte outside ASCII")]
    ForbiddenByte,
    /// Not `METHOD target HTTP/1.1` or `HTTP/1.0`, with single spaces.
    #[error("the request line is not `METHOD target HTTP/1.1`")]
    RequestLine,
    /// The request line is over its bound.
    #[error("the request line is too long")]
    RequestLineTooLong,
    /// Well formed, and none of the methods that are forwarded.
    #[error("the method is not supported")]
    Method,
    /// Neither a path nor an `http` or `https` URI with a path, or a byte outside their alphabet.
    #[error("the request target is not a path or an absolute http URI in RFC 3986's alphabet")]
    Target,
    /// Over `header_bytes_max` or `header_count_max`.
    #[error("the header section is too large")]
    HeaderTooLarge,
    /// A field name that is empty, has a byte outside its alphabet, or is followed by a space.
    #[error("a field name is malformed")]
    FieldName,
    /// A line that starts with a space or tab: a folded value, or a space before the first field.
    #[error("a header line starts with white space")]
    LineFolding,
    /// Not exactly one `Host` in host syntax, or not the one of an absolute target.
    #[error("Host is missing, repeated, malformed or differs from the target's")]
    Host,
    /// Not exactly one plain decimal number.
    #[error("Content-Length is not one plain decimal number")]
    ContentLength,
    /// Not exactly `chunked`, or where none may be: in HTTP/1.0, in 1xx and 204.
    #[error("Transfer-Encoding is not exactly `chunked`, or is not allowed here")]
    TransferEncoding,
    /// `Content-Length` and `Transfer-Encoding` together.
    #[error("Content-Length and Transfer-Encoding together")]
    ConflictingFraming,
    /// An expectation other than one `100-continue`.
    #[error("an expectation other than `100-continue`")]
    Expectation,
    /// Over `body_bytes_max`, declared or counted.
    #[error("the body is too large")]
    BodyTooLarge,
    /// A chunk's size line or its end is malformed, or has an extension.
    #[error("the chunked framing is malformed")]
    Chunk,
    /// A trailer field is malformed or is one that belongs in the head.
    #[error("a trailer field is malformed or forbidden")]
    Trailer,
    /// Not `HTTP/1.1 200 reason`.
    #[error("the status line is malformed")]
    StatusLine,
    /// 101 without anybody having asked for an upgrade.
    #[error("the upstream switched protocols unasked")]
    SwitchingProtocols,
}

impl Violation {
    /// The refusal for a *request* with this violation. In an answer every violation is the same
    /// failure, `Failure::UpstreamMalformed`.
    #[must_use]
    pub const fn refusal(self) -> Refusal {
        match self {
            Self::RequestLineTooLong => Refusal::RequestLineTooLong,
            Self::Method => Refusal::MethodNotSupported,
            Self::Target => Refusal::MalformedTarget,
            Self::HeaderTooLarge => Refusal::HeaderTooLarge,
            Self::Expectation => Refusal::ExpectationFailed,
            Self::BodyTooLarge => Refusal::BodyTooLarge,
            Self::LineEnding
            | Self::ForbiddenByte
            | Self::RequestLine
            | Self::FieldName
            | Self::LineFolding
            | Self::Host
            | Self::ContentLength
            | Self::TransferEncoding
            | Self::ConflictingFraming
            | Self::Chunk
            | Self::Trailer
            | Self::StatusLine
            | Self::SwitchingProtocols => Refusal::MalformedRequest,
        }
    }
}

/// A request body's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFraming {
    /// No body: neither framing field, or `Content-Length: 0`.
    None,
    /// That many bytes, at least one.
    Length(u64),
    /// Chunks; follow them with [`chunked::ChunkedScanner`].
    Chunked,
}
