//! A request's head, as strict as a security gateway can be.
//!
//! In: the bytes at the start of a message. Out: the head's length and how the body ends, or a
//! violation. What is accepted never depends on a tolerance of the reader behind. Choices beyond the
//! RFC's letter, each because two readers or two services behind us could differ:
//!
//! - No empty line before a request line, no bare LF, no folded value, no byte outside ASCII in a value.
//! - Field names of letters, digits, `-` and `_`. Many servers map `_` (and more) to `-`; whoever passes a field on
//!   drops look-alikes of what it drops (`upstream::headers`).
//! - Targets in RFC 3986's alphabet, and `[` `]`, which clients leave bare in queries. httparse takes any
//!   visible byte; `http::Uri` takes `\`, `^`, `{`, `}`, `|` anywhere, `"` in paths, a backtick in queries,
//!   and cuts at `#` without a word.
//! - One `Host`, in HTTP/1.0 as well; an absolute target only with the same authority, byte for byte.
//! - `OPTIONS *` is refused: it addresses this server, which forwards and has no options of its own.

use super::{
    BodyFraming, HeadLimits, Violation,
    head::{self, Connection, Declared, Reader, Single, TOKEN, Table, decimal, declared},
};

/// What follows from a request's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHead {
    /// Bytes of the head, the empty line included; the body starts there.
    pub len: usize,
    /// How the body ends.
    pub framing: BodyFraming,
    /// The caller waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// Its answer has no body.
    pub is_head: bool,
    /// The caller can send another request on this connection.
    pub keep_alive: bool,
}

/// Reads the head at the start of `bytes`; `None` while it is incomplete.
///
/// `seen` is how many of these bytes an earlier call judged incomplete (0 at first); they are not all
/// judged again. It saves time and never changes the verdict.
///
/// # Errors
/// As soon as no further byte could make an acceptable head of it.
pub fn scan(bytes: &[u8], seen: usize, limits: &HeadLimits) -> Result<Option<RequestHead>, Violation> {
    match head::scan::<Request<'_>>(bytes, seen, limits)? {
        Some((len, request)) => request.finish(len, limits).map(Some),
        None => Ok(None),
    }
}

static NAME: Table = Table::alphanumeric_and(b"-_");
/// Of a host name's labels.
static HOST: Table = Table::alphanumeric_and(b"-_");

/// The fields that frame, route or control, as they come.
#[derive(Default)]
struct Request<'a> {
    method: &'a [u8],
    is_http_10: bool,
    /// The authority of an absolute target.
    authority: Option<&'a [u8]>,
    host: Single<'a>,
    content_length: Single<'a>,
    transfer_encoding: Single<'a>,
    expect: Single<'a>,
    connection: Connection,
}

impl<'a> Reader<'a> for Request<'a> {
    const OBS_TEXT: bool = false;
    const NAME: &'static Table = &NAME;
    const START_LINE_TOO_LONG: Violation = Violation::RequestLineTooLong;

    fn start_line(&mut self, line: &'a [u8]) -> Result<(), Violation> {
        let (line, is_http_10) = match line.split_last_chunk::<9>() {
            Some((line, b" HTTP/1.1")) => (line, false),
            Some((line, b" HTTP/1.0")) => (line, true),
            _ => return Err(Violation::RequestLine),
        };
        let space = line.iter().position(|&byte| byte == b' ').ok_or(Violation::RequestLine)?;
        let (method, target) = (&line[..space], &line[space + 1..]);
        if target.is_empty() {
            return Err(Violation::RequestLine);
        }
        match method {
            b"GET" | b"HEAD" | b"POST" | b"PUT" | b"PATCH" | b"DELETE" | b"OPTIONS" => {}
            [] => return Err(Violation::RequestLine),
            _ if !TOKEN.has_all(method) || target.contains(&b' ') => return Err(Violation::RequestLine),
            _ => return Err(Violation::Method),
        }
        self.method = method;
        self.is_http_10 = is_http_10;
        self.authority = authority(target)?;
        Ok(())
    }

    fn field(&mut self, name: &'a [u8], value: &'a [u8]) {
        // Lengths first: almost every field is none of these.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.host.add(value),
            6 if name.eq_ignore_ascii_case(b"expect") => self.expect.add(value),
            10 if name.eq_ignore_ascii_case(b"connection") => self.connection.add(value),
            14 if name.eq_ignore_ascii_case(b"content-length") => self.content_length.add(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.transfer_encoding.add(value),
            _ => {}
        }
    }
}

impl Request<'_> {
    fn finish(self, len: usize, limits: &HeadLimits) -> Result<RequestHead, Violation> {
        self.check_host()?;
        let framing = match declared(self.content_length, self.transfer_encoding, self.is_http_10)? {
            Declared::Nothing | Declared::Length(0) => BodyFraming::None,
            Declared::Length(length) => BodyFraming::Length(length),
            Declared::Chunked => BodyFraming::Chunked,
        };
        let expects_continue = match self.expect {
            Single::Absent => false,
            Single::Once(value) if value.eq_ignore_ascii_case(b"100-continue") => true,
            Single::Once(_) | Single::Repeated => return Err(Violation::Expectation),
        };
        if matches!(framing, BodyFraming::Length(length) if length > limits.body_bytes_max) {
            return Err(Violation::BodyTooLarge);
        }
        Ok(RequestHead {
            len,
            framing,
            // HTTP/1.0 knows no 100; without a body there is nothing to wait for.
            expects_continue: expects_continue && !self.is_http_10 && framing != BodyFraming::None,
            is_head: self.method == b"HEAD",
            keep_alive: self.connection.persists(self.is_http_10),
        })
    }

    fn check_host(&self) -> Result<(), Violation> {
        let Single::Once(host) = self.host else { return Err(Violation::Host) };
        let same = self.authority.is_none_or(|authority| authority.eq_ignore_ascii_case(host));
        if same && is_host(host) { Ok(()) } else { Err(Violation::Host) }
    }
}

/// Checks a target's form and alphabet; the authority, when it has one. What the path means is
/// [`crate::policy::target`]'s to judge.
fn authority(target: &[u8]) -> Result<Option<&[u8]>, Violation> {
    // Without an early exit, the compiler compares many bytes at once.
    if !target.iter().fold(true, |all, &byte| all & is_target_byte(byte)) {
        return Err(if target.contains(&b' ') { Violation::RequestLine } else { Violation::Target });
    }
    if target.starts_with(b"/") {
        return Ok(None);
    }
    let after_scheme = |scheme: &[u8]| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    };
    let rest = after_scheme(b"http://").or_else(|| after_scheme(b"https://")).ok_or(Violation::Target)?;
    // Without a path, readers differ in what they put there.
    let slash = memchr::memchr(b'/', rest).ok_or(Violation::Target)?;
    Ok(Some(&rest[..slash]))
}

/// RFC 3986's `pchar`, `/`, `?`, `[` and `]`, written as what is left out: that is fewer comparisons.
const fn is_target_byte(byte: u8) -> bool {
    let is_left_out = matches!(byte, b'"' | b'#' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}');
    matches!(byte, b'!'..=b'~') & !is_left_out
}

/// `host`, `host:port`, `[IPv6]` or `[IPv6]:port`: names of letters, digits, `-`, `_` and single dots.
fn is_host(host: &[u8]) -> bool {
    let (name_ok, port) = match host {
        [b'[', rest @ ..] => {
            let Some(end) = memchr::memchr(b']', rest) else { return false };
            let address = std::str::from_utf8(&rest[..end]).unwrap_or_default();
            (address.parse::<std::net::Ipv6Addr>().is_ok(), &rest[end + 1..])
        }
        _ => {
            let end = memchr::memchr(b':', host).unwrap_or(host.len());
            let (name, port) = host.split_at(end);
            (is_name(name), port)
        }
    };
    name_ok && (port.is_empty() || port.strip_prefix(b":").is_some_and(is_port))
}

/// RFC 1035's 253 bytes, and no empty label but the root's.
fn is_name(name: &[u8]) -> bool {
    let name = name.strip_suffix(b".").unwrap_or(name);
    name.len() <= 253
        && name.split(|&byte| byte == b'.').all(|label| !label.is_empty() && HOST.has_all(label))
}

/// 1 to 65535, plainly written.
fn is_port(port: &[u8]) -> bool {
    decimal(port).is_some_and(|port| (1..=65_535).contains(&port))
}

#[cfg(test)]
pub(crate) mod tests;
