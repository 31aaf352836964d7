//! What a stand-in received, for tests to look at.

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri, header};
use tokio::sync::watch;

use crate::mx::catalogue::{Operation, catalogue};

/// One request, as it was received.
#[derive(Debug, Clone)]
pub struct Request {
    /// Counted from 1 over the stand-in's life.
    pub number: u64,
    /// The connection it came on, counted from 1.
    pub connection: u64,
    /// The client's address.
    pub peer: IpAddr,
    /// The server name that the client sent in TLS; `None` also without TLS.
    pub sni: Option<String>,
    /// MX's id of the operation; `None` outside the catalogue.
    pub operation: Option<&'static str>,
    /// The method.
    pub method: Method,
    /// The request target, byte for byte.
    pub target: String,
    /// The same, parsed.
    pub(super) uri: Uri,
    /// The head as it was on the wire: order, case and repetitions as sent. Empty when requests were pipelined.
    pub head: Bytes,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body, without its framing.
    pub body: Bytes,
    /// The fields after a chunked body.
    pub trailers: HeaderMap,
    /// What was answered; `None` when the connection was closed instead.
    pub status: Option<StatusCode>,
    /// What no well-behaved gateway sends.
    pub oddities: Vec<Oddity>,
}

/// Something that no well-behaved gateway sends to MX.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Oddity {
    /// A field that may stand there once stands there more often.
    Repeated(&'static str),
    /// A field that concerns one connection only (RFC 9110 section 7.6.1), or a proxy.
    HopByHop(&'static str),
    /// A field that belongs to the caller, not to MX.
    Private(&'static str),
}

const ONCE: [&str; 6] =
    ["authorization", "host", "accept", "content-type", "content-length", "accept-version"];

const HOP_BY_HOP: [&str; 7] = [
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "proxy-authenticate",
    "te",
    "trailer",
    "upgrade",
];

const PRIVATE: [&str; 12] = [
    "cookie",
    "origin",
    "referer",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
];

/// What is odd about these fields.
pub(super) fn oddities(headers: &HeaderMap) -> Vec<Oddity> {
    let repeated = ONCE.into_iter().filter(|&name| headers.get_all(name).iter().count() > 1);
    let hop_by_hop = HOP_BY_HOP.into_iter().filter(|&name| headers.contains_key(name));
    let connection = headers.get_all(header::CONNECTION).iter().any(|value| {
        let value = value.as_bytes();
        !value.eq_ignore_ascii_case(b"close") && !value.eq_ignore_ascii_case(b"keep-alive")
    });
    let private = PRIVATE.into_iter().filter(|&name| headers.contains_key(name));
    repeated
        .map(Oddity::Repeated)
        .chain(hop_by_hop.chain(connection.then_some("connection")).map(Oddity::HopByHop))
        .chain(private.map(Oddity::Private))
        .collect()
}

/// Counts every request and keeps the last ones.
pub(super) struct Journal {
    kept_max: usize,
    received: watch::Sender<u64>,
    state: Mutex<State>,
}

struct State {
    counts: Vec<u64>,
    kept: VecDeque<Arc<Request>>,
}

impl Journal {
    pub(super) fn new(kept_max: usize) -> Self {
        let counts = vec![0; catalogue().operations().len()];
        Self {
            kept_max,
            received: watch::Sender::new(0),
            state: Mutex::new(State { counts, kept: VecDeque::new() }),
        }
    }

    /// Counts the request and keeps it.
    pub(super) fn record(&self, request: Request) {
        let operation = request.operation.and_then(|id| catalogue().by_id(id));
        {
            let mut state = self.lock();
            if let Some(count) = operation.and_then(|operation| state.counts.get_mut(operation.index.get())) {
                *count += 1;
            }
            if self.kept_max > 0 {
                if state.kept.len() == self.kept_max {
                    state.kept.pop_front();
                }
                state.kept.push_back(Arc::new(request));
            }
        }
        self.received.send_modify(|received| *received += 1);
    }

    pub(super) fn count(&self, operation: &Operation) -> u64 {
        self.lock().counts.get(operation.index.get()).copied().unwrap_or(0)
    }

    pub(super) fn kept(&self) -> Vec<Arc<Request>> {
        self.lock().kept.iter().cloned().collect()
    }

    pub(super) fn received(&self) -> watch::Receiver<u64> {
        self.received.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn of(fields: &[(&'static str, &'static str)]) -> Vec<Oddity> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        oddities(&headers)
    }

    #[test]
    fn oddities_are_named_and_ordinary_fields_are_none() {
        assert_eq!(of(&[("host", "x"), ("accept", "*/*"), ("connection", "Keep-Alive"), ("x-app", "1")]), []);
        assert_eq!(
            of(&[("authorization", "a"), ("authorization", "a")]),
            [Oddity::Repeated("authorization")]
        );
        assert_eq!(of(&[("connection", "x-app")]), [Oddity::HopByHop("connection")]);
        assert_eq!(of(&[("te", "trailers")]), [Oddity::HopByHop("te")]);
        assert_eq!(of(&[("cookie", "a=b")]), [Oddity::Private("cookie")]);
    }
}
