//! A second, independent reading of what was let through, written for plainness and not for speed.
//!
//! It shares no code with `framing`, splits text where that walks bytes, and refuses whatever the
//! gate's documents say that nobody lets through. So a hole in one of them is not a hole in the other.

/// Names in lower case, and values.
pub(super) type Fields = Vec<(String, Vec<u8>)>;

/// One message as this reading sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    /// The method and the target, or the version and the status.
    pub(super) start: (String, String),
    /// Names in lower case, in their order.
    pub(super) fields: Fields,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Fields,
    pub(super) complete: bool,
}

/// Names in lower case, those of one name in their order.
pub(super) fn sorted(mut fields: Fields) -> Fields {
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    fields
}

pub(super) fn of_map(map: &http::HeaderMap) -> Fields {
    sorted(map.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect())
}

/// What a body's end is told by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Length(usize),
    Chunked,
    Close,
}

/// Reads all requests in `bytes`; the last one's body may be incomplete.
pub(super) fn requests(mut bytes: &[u8]) -> Result<Vec<Message>, String> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let (lines, rest) = head(bytes)?;
        let (line, field_lines) = lines.split_first().ok_or("no request line")?;
        let start = request_line(line)?;
        let fields = fields(field_lines, false)?;
        check_host(&fields, &start.1)?;
        let end = framing(&fields, line.ends_with(b"HTTP/1.0"))?.unwrap_or(End::Length(0));
        let (message, after) = message(start, fields, end, rest, false)?;
        all.push(message);
        bytes = after;
    }
    Ok(all)
}

/// Reads the final answer at the start of `bytes`; `closed` when the stream has ended behind them. `None`
/// while there is no whole head. Interim answers before it are read, counted and left out.
pub(super) fn answer(mut bytes: &[u8], is_head: bool, closed: bool) -> Result<Option<Answered<'_>>, String> {
    for interim in 0.. {
        if find(bytes, b"\r\n\r\n").is_none() {
            return Ok(None);
        }
        let (lines, rest) = head(bytes)?;
        let (line, field_lines) = lines.split_first().ok_or("no status line")?;
        let start = status_line(line)?;
        let fields = fields(field_lines, true)?;
        let declared = framing(&fields, start.0 == "HTTP/1.0")?;
        let empty = End::Length(0);
        let end = match start.1.as_str() {
            status if status.starts_with('1') || status == "204" => match declared {
                None | Some(End::Length(0)) => empty,
                Some(_) => return Err(format!("a {status} with a body")),
            },
            "304" => empty,
            _ if is_head => empty,
            _ => declared.unwrap_or(End::Close),
        };
        if !start.1.starts_with('1') {
            let keeps_alive = end != End::Close && persists(&fields, &start.0);
            let (message, after) = message(start, fields, end, rest, closed)?;
            return Ok(Some(Answered { message, keeps_alive, after }));
        }
        if interim == 16 {
            return Err("too many interim answers".into());
        }
        bytes = rest;
    }
    Ok(None)
}

/// An answer, and what is left behind it.
#[derive(Debug)]
pub(super) struct Answered<'a> {
    pub(super) message: Message,
    /// The connection is there for another request.
    pub(super) keeps_alive: bool,
    pub(super) after: &'a [u8],
}

/// RFC 9112, 9.3.
fn persists(fields: &[(String, Vec<u8>)], version: &str) -> bool {
    let lines = values(fields, "connection").into_iter().map(String::from_utf8_lossy);
    let options: Vec<String> = lines
        .flat_map(|line| line.split(',').map(|one| one.trim().to_ascii_lowercase()).collect::<Vec<_>>())
        .collect();
    let says = |option: &str| options.iter().any(|one| one == option);
    !says("close") && (version == "HTTP/1.1" || says("keep-alive"))
}

/// The message that this head begins, and what follows it.
fn message(
    start: (String, String),
    fields: Fields,
    end: End,
    rest: &[u8],
    closed: bool,
) -> Result<(Message, &[u8]), String> {
    let (body, trailers, after) = match end {
        End::Length(length) if length <= rest.len() => {
            (rest[..length].to_vec(), vec![], Some(&rest[length..]))
        }
        End::Length(_) => (rest.to_vec(), vec![], None),
        End::Close => (rest.to_vec(), vec![], closed.then_some(&[][..])),
        End::Chunked => dechunked(rest)?,
    };
    let message = Message { start, fields, body, trailers, complete: after.is_some() };
    Ok((message, after.unwrap_or_default()))
}

/// The lines of the head at the start, and what follows.
fn head(bytes: &[u8]) -> Result<(Vec<&[u8]>, &[u8]), String> {
    let end = find(bytes, b"\r\n\r\n").ok_or("a part of a head was let through")?;
    Ok((lines(&bytes[..end])?, &bytes[end + 4..]))
}

fn lines(mut bytes: &[u8]) -> Result<Vec<&[u8]>, String> {
    let mut lines = Vec::new();
    loop {
        let end = find(bytes, b"\r\n");
        let line = &bytes[..end.unwrap_or(bytes.len())];
        if line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
            return Err(format!("a control byte in {:?}", line.escape_ascii().to_string()));
        }
        lines.push(line);
        match end {
            Some(end) => bytes = &bytes[end + 2..],
            None => return Ok(lines),
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn request_line(line: &[u8]) -> Result<(String, String), String> {
    let text = std::str::from_utf8(line).ok().filter(|text| text.is_ascii()).ok_or("a line is not ASCII")?;
    let parts: Vec<&str> = text.split(' ').collect();
    let [method, target, "HTTP/1.1" | "HTTP/1.0"] = parts[..] else {
        return Err(format!("no request line: {text:?}"));
    };
    if !["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"].contains(&method) {
        return Err(format!("method {method:?}"));
    }
    const PUNCTUATION: &str = "-._~!$&'()*+,;=:@%/?[]";
    if !target.chars().all(|c| c.is_ascii_alphanumeric() || PUNCTUATION.contains(c)) {
        return Err(format!("target {target:?}"));
    }
    if !target.starts_with('/') && authority(target).is_none() {
        return Err(format!("target {target:?} has no form that is forwarded"));
    }
    Ok((method.to_owned(), target.to_owned()))
}

/// The authority of an absolute target that has a path.
fn authority(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_once("://")?;
    let is_known = ["http", "https"].contains(&scheme.to_ascii_lowercase().as_str());
    rest.split_once('/').map(|(authority, _)| authority).filter(|_| is_known)
}

fn status_line(line: &[u8]) -> Result<(String, String), String> {
    let (start, reason) = line.split_at_checked(12).ok_or("a short status line")?;
    let start = std::str::from_utf8(start).map_err(|_| "a status line that is not ASCII")?;
    let (version, status) = start.split_once(' ').ok_or("a status line without a space")?;
    let is_status = status.len() == 3 && status.bytes().all(|byte| byte.is_ascii_digit());
    let in_range = is_status && ("100".."600").contains(&status) && status != "101";
    let separated = reason.is_empty() || reason.starts_with(b" ");
    if !["HTTP/1.1", "HTTP/1.0"].contains(&version) || !in_range || !separated {
        return Err(format!("status line {:?}", line.escape_ascii().to_string()));
    }
    Ok((version.to_owned(), status.to_owned()))
}

/// An answer's names may be any token and its values may hold bytes over ASCII; a request's not.
fn fields(lines: &[&[u8]], is_answer: bool) -> Result<Fields, String> {
    let extra = if is_answer { "!#$%&'*+-.^_`|~" } else { "-_" };
    if lines.len() > 100 {
        return Err("more than 100 fields".into());
    }
    lines.iter().map(|line| field(line, extra, is_answer)).collect()
}

fn field(line: &[u8], extra: &str, over_ascii: bool) -> Result<(String, Vec<u8>), String> {
    let wrong = || format!("field {:?}", line.escape_ascii().to_string());
    let colon = line.iter().position(|byte| *byte == b':').ok_or_else(wrong)?;
    let name = std::str::from_utf8(&line[..colon]).map_err(|_| wrong())?;
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || extra.contains(c));
    let value = &line[colon + 1..];
    if !is_name || !(over_ascii || value.is_ascii()) {
        return Err(wrong());
    }
    let first = value.iter().position(|byte| !matches!(byte, b' ' | b'\t')).unwrap_or(value.len());
    let last = value.iter().rposition(|byte| !matches!(byte, b' ' | b'\t')).map_or(first, |last| last + 1);
    Ok((name.to_ascii_lowercase(), value[first..last].to_vec()))
}

fn values<'f>(fields: &'f [(String, Vec<u8>)], name: &str) -> Vec<&'f [u8]> {
    fields.iter().filter(|(own, _)| own == name).map(|(_, value)| value.as_slice()).collect()
}

fn check_host(fields: &[(String, Vec<u8>)], target: &str) -> Result<(), String> {
    let [host] = values(fields, "host")[..] else { return Err("not one Host".into()) };
    let host = String::from_utf8_lossy(host).to_ascii_lowercase();
    let is_plain =
        !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:[]".contains(c));
    if !is_plain || authority(target).is_some_and(|authority| authority.to_ascii_lowercase() != host) {
        return Err(format!("Host {host:?} for {target:?}"));
    }
    Ok(())
}

fn framing(fields: &[(String, Vec<u8>)], is_http_10: bool) -> Result<Option<End>, String> {
    match (&values(fields, "content-length")[..], &values(fields, "transfer-encoding")[..]) {
        ([], []) => Ok(None),
        ([length], []) => {
            let text = std::str::from_utf8(length).unwrap_or_default();
            let number: usize = text.parse().map_err(|_| format!("Content-Length {text:?}"))?;
            if number.to_string() == text && text.len() <= 18 {
                Ok(Some(End::Length(number)))
            } else {
                Err("Content-Length".into())
            }
        }
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") && !is_http_10 => Ok(Some(End::Chunked)),
        _ => Err("framing that readers could understand in two ways".into()),
    }
}

/// Data, trailers, and what follows when the body ended.
type Dechunked<'a> = (Vec<u8>, Fields, Option<&'a [u8]>);

/// What does not belong in a chunked body is an error, and so is a byte that cannot go on well.
pub(super) fn dechunked(mut bytes: &[u8]) -> Result<Dechunked<'_>, String> {
    let mut data = Vec::new();
    loop {
        let line = &bytes[..find(bytes, b"\r\n").unwrap_or(bytes.len())];
        let digits = line.strip_suffix(b"\r").filter(|_| line.len() == bytes.len()).unwrap_or(line);
        if !digits.iter().all(u8::is_ascii_hexdigit) || digits.len() > 16 {
            return Err(format!("chunk size {:?}", line.escape_ascii().to_string()));
        }
        if bytes.len() < line.len() + 2 {
            return Ok((data, vec![], None));
        }
        let text = std::str::from_utf8(digits).unwrap_or_default();
        let size = usize::from_str_radix(text, 16).map_err(|_| "a chunk without a size")?;
        bytes = &bytes[line.len() + 2..];
        if size == 0 {
            let (trailers, after) = trailers(bytes)?;
            return Ok((data, trailers, after));
        }
        data.extend_from_slice(&bytes[..size.min(bytes.len())]);
        match bytes.get(size..) {
            None | Some([] | [b'\r']) => return Ok((data, vec![], None)),
            Some([b'\r', b'\n', after @ ..]) => bytes = after,
            Some(_) => return Err("no line end after a chunk".into()),
        }
    }
}

/// Bounds of trailers; one of 4 KiB for all of them stands beside these.
const TRAILERS_MAX: usize = 32;
const TRAILER_NAME_MAX: usize = 48;

/// Trailer fields, and what follows them when they ended.
type Trailers<'a> = (Fields, Option<&'a [u8]>);

fn trailers(bytes: &[u8]) -> Result<Trailers<'_>, String> {
    if let Some(after) = bytes.strip_prefix(b"\r\n") {
        return Ok((vec![], Some(after)));
    }
    let Some(end) = find(bytes, b"\r\n\r\n") else {
        return Ok((vec![], None));
    };
    let mut all = Vec::new();
    for line in lines(&bytes[..end])? {
        let (name, value) = field(line, "!#$%&'*+-.^_`|~", false)?;
        let plain = name.replace('_', "-");
        const BELONG_IN_HEADS: [&str; 9] = [
            "host",
            "authorization",
            "transfer-encoding",
            "connection",
            "cookie",
            "te",
            "trailer",
            "upgrade",
            "expect",
        ];
        if BELONG_IN_HEADS.contains(&plain.as_str())
            || plain.starts_with("content-")
            || plain.starts_with("mx-")
            || name.len() > TRAILER_NAME_MAX
            || all.len() == TRAILERS_MAX
        {
            return Err(format!("trailer {name}"));
        }
        all.push((name, value));
    }
    Ok((all, Some(&bytes[end + 4..])))
}
