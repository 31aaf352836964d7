//! The answer as hyper sends it, changed as the switches say.

use std::io::{self, Write as _};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use super::{
    body::{AnswerBody, Source},
    decide::Reply,
    switches::Switches,
    wire::Orders,
};

const REFLECTED: HeaderName = HeaderName::from_static("x-stand-in-reflected");

/// An answer to a request that was never sent.
const TRAILING: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{\"stray\":true}";

/// What of the request and its connection the answer needs.
pub(super) struct Context {
    pub(super) orders: Orders,
    pub(super) tls: bool,
    pub(super) number: u64,
    pub(super) authorization: Option<HeaderValue>,
    pub(super) host: Option<HeaderValue>,
}

/// `reply` with its `switches`.
pub(super) fn respond(
    reply: Reply,
    switches: Switches,
    context: Context,
) -> io::Result<Response<AnswerBody>> {
    let mut headers = HeaderMap::new();
    let mut content = reply.body;
    if let Some(media_type) = reply.media_type {
        headers.insert(header::CONTENT_TYPE, media_type.header().clone());
    }
    if switches.gzip {
        content = gzip(&content)?;
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    let source = match switches.big {
        None => Source::once(content),
        Some(length) => {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
            Source::lines(switches.tag.as_deref().unwrap_or(&context.number.to_string()), length)
        }
    };
    if let Some(value) = &switches.retry_after {
        headers.insert(header::RETRY_AFTER, value.clone());
    }
    if let Some(value) = context.authorization.filter(|_| switches.reflect) {
        headers.insert(REFLECTED, value);
    }
    let mut status = reply.status;
    if switches.redirect {
        status = StatusCode::FOUND;
        headers.insert(header::LOCATION, location(context.host.as_ref(), context.tls));
    }
    if switches.raw.is_some() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    for (name, value) in &switches.headers {
        headers.append(name, value.clone());
    }
    let mut response = Response::new(shape(source, switches, context.orders));
    (*response.status_mut(), *response.headers_mut()) = (status, headers);
    Ok(response)
}

/// The body's pace and end, and what is said beside it.
fn shape(source: Source, switches: Switches, orders: Orders) -> AnswerBody {
    let mut body = AnswerBody::new(source);
    if switches.slow_body.is_some() || switches.piece.is_some() {
        body = body.in_pieces(switches.piece.unwrap_or(1024));
    }
    if let Some(wait) = switches.slow_body {
        body = body.late(wait);
    }
    if let Some(cut) = switches.cut {
        body = body.cut_after(cut.after);
        if cut.reset {
            orders.end_by_reset();
        }
    }
    if switches.chunked {
        body = body.chunked();
    }
    if let Some(status) = switches.informational {
        let code = status.as_u16();
        orders.say_before(format!("HTTP/1.1 {code} Informational\r\nX-Stand-In: 1xx\r\n\r\n"));
    }
    if let Some(raw) = switches.raw {
        orders.say_instead(raw);
    }
    if switches.trailing {
        body = body.trailed_by(orders, Bytes::from_static(TRAILING));
    }
    body
}

fn location(host: Option<&HeaderValue>, tls: bool) -> HeaderValue {
    let scheme: &[u8] = if tls { b"https://" } else { b"http://" };
    let host = host.map_or(&b"localhost"[..], HeaderValue::as_bytes);
    let location = [scheme, host, b"/users"].concat();
    HeaderValue::from_bytes(&location).unwrap_or(HeaderValue::from_static("/users"))
}

fn gzip(content: &[u8]) -> io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content)?;
    encoder.finish().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_smaller_and_is_gzip() {
        let zipped = gzip(&[b'a'; 1000]).unwrap();
        assert!(zipped.starts_with(&[0x1f, 0x8b]) && zipped.len() < 100);
    }
}
