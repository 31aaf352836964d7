//! One request and its answer: read, decided, recorded, and changed as the switches say.

use std::{
    io::{self, Write as _},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header, request::Parts};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{
    Shared,
    body::{AnswerBody, Source},
    credentials,
    decide::{self, Ask, Problem, Reply},
    journal::{self, Request},
    options::Environment,
    switches::Switches,
    wire::Orders,
};
use crate::mx::{
    catalogue::{Found, catalogue},
    media::MediaType,
};

const REFLECTED: HeaderName = HeaderName::from_static("x-stand-in-reflected");

/// An answer to a request that was never sent.
const TRAILING: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{\"stray\":true}";

/// The longest body that an echo repeats; of longer ones it tells the length only.
const ECHO_BODY_BYTES_MAX: usize = 64 << 10;

/// One connection, as its requests see it.
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) number: u64,
    pub(super) peer: IpAddr,
    pub(super) sni: Option<String>,
    pub(super) orders: Orders,
    pub(super) requests: AtomicU64,
}

impl Connection {
    /// The answer; an error closes the connection without one.
    pub(super) async fn serve(&self, request: hyper::Request<Incoming>) -> io::Result<Response<AnswerBody>> {
        let (parts, body) = request.into_parts();
        let target = parts.uri.to_string();
        let head = self.orders.head(&format!("{} {target} ", parts.method));
        let number = self.shared.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let reused = self.requests.fetch_add(1, Ordering::Relaxed) > 0;

        let switches = self.switches(&parts.headers);
        let early = switches.as_ref().is_ok_and(|switches| switches.early);
        let body =
            if early { Ok(Bytes::new()) } else { read(body, self.shared.options.body_bytes_max).await };
        self.orders.forget();

        let oddities = journal::oddities(&parts.headers);
        let found = catalogue().find(&parts.method, parts.uri.path());
        let ask = Ask {
            peer: self.peer,
            sni: self.sni.as_deref(),
            uri: &parts.uri,
            headers: &parts.headers,
            body: body.as_ref().ok().filter(|_| !early),
            found,
            oddities: &oddities,
        };
        let admitted = decide::admit(&self.shared, &ask);
        let environment = admitted.as_ref().ok().map(|environment| &environment.options);
        let reply = admitted.and_then(|environment| {
            if let Err(too_large) = &body {
                return Err(too_large.clone());
            }
            decide::answer(&self.shared, environment, &ask)
        });
        // Nothing is switched for a request that MX would not let in.
        let (mut reply, switches) = match (environment, switches) {
            (None, _) => (reply.unwrap_or_else(Reply::from), Switches::default()),
            (Some(_), Err(fault)) => {
                (Problem::new(StatusCode::BAD_REQUEST, fault.to_string()).into(), Switches::default())
            }
            (Some(_), Ok(switches)) => (reply.unwrap_or_else(Reply::from), switches),
        };
        let body = body.unwrap_or_default();
        let dropped = switches.drop.filter(|drop| reused || !drop.reused_only);
        if let Some(environment) = environment.filter(|_| switches.echo) {
            reply = Reply {
                status: StatusCode::OK,
                media_type: Some(MediaType::Json),
                body: echo(&parts, &head, &body, self, environment),
            };
        }
        reply.status = switches.status.unwrap_or(reply.status);

        let authorization = parts.headers.get(header::AUTHORIZATION).cloned();
        let host = parts.headers.get(header::HOST).cloned();
        let operation = match found {
            Found::Operation(operation) => Some(operation),
            _ => None,
        };
        self.shared.journal.record(
            operation,
            Request {
                number,
                connection: self.number,
                peer: self.peer,
                sni: self.sni.clone(),
                operation: operation.map(|operation| operation.id),
                method: parts.method,
                target,
                head,
                headers: parts.headers,
                body,
                status: (dropped.is_none() && switches.raw.is_none()).then_some(reply.status),
                oddities,
            },
        );

        if let Some(wait) = switches.slow_head {
            tokio::time::sleep(wait).await;
        }
        if let Some(drop) = dropped {
            if drop.reset {
                self.orders.end_by_reset();
            }
            return Err(io::Error::other("dropped as asked"));
        }
        self.respond(reply, switches, number, authorization, host)
    }

    fn switches(&self, headers: &HeaderMap) -> Result<Switches, super::switches::Error> {
        let mut switches = self.shared.switches();
        if self.shared.options.header_switches {
            switches.set_from(headers)?;
        }
        Ok(switches)
    }

    /// The reply with its switches.
    fn respond(
        &self,
        reply: Reply,
        switches: Switches,
        number: u64,
        authorization: Option<HeaderValue>,
        host: Option<HeaderValue>,
    ) -> io::Result<Response<AnswerBody>> {
        if let Some(status) = switches.informational {
            let code = status.as_u16();
            self.orders.say_before(format!("HTTP/1.1 {code} Informational\r\nX-Stand-In: 1xx\r\n\r\n"));
        }
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
                Source::lines(&switches.tag.unwrap_or_else(|| number.to_string()), length)
            }
        };
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
                self.orders.end_by_reset();
            }
        }
        if switches.chunked {
            body = body.chunked();
        }
        if switches.trailing {
            body = body.trailed_by(self.orders.clone(), Bytes::from_static(TRAILING));
        }
        if let Some(raw) = switches.raw {
            self.orders.say_instead(raw);
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(value) = switches.retry_after {
            headers.insert(header::RETRY_AFTER, value);
        }
        if let Some(value) = authorization.filter(|_| switches.reflect) {
            headers.insert(REFLECTED, value);
        }
        let mut status = reply.status;
        if switches.redirect {
            status = StatusCode::FOUND;
            headers.insert(header::LOCATION, location(host.as_ref(), self.sni.is_some()));
        }
        for (name, value) in switches.headers {
            headers.append(name, value);
        }
        let mut response = Response::new(body);
        (*response.status_mut(), *response.headers_mut()) = (status, headers);
        Ok(response)
    }
}

/// The whole body, or 413.
async fn read(mut body: Incoming, bytes_max: usize) -> Result<Bytes, Problem> {
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "The body ended too early."))?;
        let Ok(data) = frame.into_data() else { continue };
        if read.len() + data.len() > bytes_max {
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "The body is too large."));
        }
        read.extend_from_slice(&data);
    }
    Ok(read.freeze())
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

/// What was received, as JSON.
fn echo(
    parts: &Parts,
    head: &[u8],
    body: &[u8],
    connection: &Connection,
    environment: &Environment,
) -> Bytes {
    let mask = connection.shared.options.mask_echo;
    let is_secret = |name: &str| {
        mask && credentials::credential_headers(environment).any(|n| n.as_str().eq_ignore_ascii_case(name))
    };
    let headers: Vec<Value> = fields(parts, head)
        .into_iter()
        .map(|(name, value)| match is_secret(&name) {
            true => json!([name, masked(&value)]),
            false => json!([name, value]),
        })
        .collect();
    let query = match parts.uri.query() {
        Some(query) if mask => Some(masked_query(query, environment)),
        query => query.map(str::to_owned),
    };
    let target = match query {
        Some(query) => format!("{}?{query}", parts.uri.path()),
        None => parts.uri.path().to_owned(),
    };
    let text = body.get(..ECHO_BODY_BYTES_MAX).map_or(Some(body), |_| None);
    json!({
        "method": parts.method.as_str(),
        "target": target,
        "headers": headers,
        "body": text.map(String::from_utf8_lossy),
        "body_bytes": body.len(),
        "connection": connection.number,
        "sni": connection.sni,
    })
    .to_string()
    .into()
}

/// The header fields in order, as they were on the wire where that is known.
fn fields(parts: &Parts, head: &[u8]) -> Vec<(String, String)> {
    if head.is_empty() {
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        return parts.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    }
    let head = String::from_utf8_lossy(head);
    let lines = head.split("\r\n").skip(1).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            (name.to_owned(), value.trim().to_owned())
        })
        .collect()
}

/// The scheme stays: it is no secret, and shows that the gateway did its work.
fn masked(value: &str) -> String {
    match value.split_once(' ') {
        Some((scheme, _)) => format!("{scheme} (hidden)"),
        None => "(hidden)".to_owned(),
    }
}

fn masked_query(query: &str, environment: &Environment) -> String {
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) if credentials::is_key_name(environment, name) => format!("{name}=(hidden)"),
        _ => pair.to_owned(),
    });
    pairs.collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_keep_the_scheme_and_the_names() {
        assert_eq!(masked("Basic Y2xpZW50"), "Basic (hidden)");
        assert_eq!(masked("s3cr3t"), "(hidden)");
        let query = masked_query("page=1&api_key=s3cr3t&c=d", &Environment::new("c", "k"));
        assert_eq!(query, "page=1&api_key=(hidden)&c=d");
    }

    #[test]
    fn gzip_is_smaller_and_is_gzip() {
        let zipped = gzip(&[b'a'; 1000]).unwrap();
        assert!(zipped.starts_with(&[0x1f, 0x8b]) && zipped.len() < 100);
    }
}
