//! One request: read, decided, recorded, then answered.

use std::{
    io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::{
    Shared,
    body::AnswerBody,
    decide::{self, Ask, Problem, Reply},
    echo::echo,
    hold::Point,
    journal::{self, Request},
    options::Environment,
    respond::{Context, respond},
    switches::{self, Switches},
    wire::Orders,
};
use crate::mx::{
    catalogue::{Found, catalogue},
    media::MediaType,
};

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
    pub(super) async fn serve(&self, received: hyper::Request<Incoming>) -> io::Result<Response<AnswerBody>> {
        let reused = self.requests.fetch_add(1, Ordering::Relaxed) > 0;
        let switches = self.switches(received.headers());
        let early = switches.as_ref().is_ok_and(|switches| switches.early);
        let (mut request, fault) = self.read(received, early).await;

        self.shared.holds.wait(request.operation, Point::Before).await;
        let (mut reply, switches, environment) = self.decide(&request, fault, switches, early);
        if let Some(environment) = environment.filter(|_| switches.echo) {
            let body = echo(&request, environment, self.shared.options.mask_echo);
            reply = Reply { status: StatusCode::OK, media_type: Some(MediaType::Json), body };
        }
        reply.status = switches.status.unwrap_or(reply.status);
        let dropped = switches.drop.filter(|drop| reused || !drop.reused_only);
        if dropped.is_none() && switches.raw.is_none() {
            request.status = Some(reply.status);
        }
        let context = Context {
            orders: self.orders.clone(),
            tls: self.sni.is_some(),
            number: request.number,
            authorization: request.headers.get(header::AUTHORIZATION).cloned(),
            host: request.headers.get(header::HOST).cloned(),
        };
        let operation = request.operation;
        self.shared.journal.record(request);
        self.shared.holds.wait(operation, Point::After).await;

        if let Some(wait) = switches.slow_head {
            tokio::time::sleep(wait).await;
        }
        if let Some(drop) = dropped {
            if drop.reset {
                self.orders.end_by_reset();
            }
            return Err(io::Error::other("dropped as asked"));
        }
        respond(reply, switches, context)
    }

    fn switches(&self, headers: &HeaderMap) -> Result<Switches, switches::Error> {
        let mut switches = self.shared.switches();
        if self.shared.options.header_switches {
            switches.set_from(headers)?;
        }
        Ok(switches)
    }

    /// The request with its body, unless an early answer leaves that unread, and what is wrong with the body.
    async fn read(&self, received: hyper::Request<Incoming>, early: bool) -> (Request, Option<Problem>) {
        let (parts, body) = received.into_parts();
        let target = parts.uri.to_string();
        let head = self.orders.head(&format!("{} {target} ", parts.method));
        let mut trailers = HeaderMap::new();
        let (body, fault) = if early {
            (Bytes::new(), None)
        } else {
            match read(body, self.shared.options.body_bytes_max, &mut trailers).await {
                Ok(body) => (body, None),
                Err(fault) => (Bytes::new(), Some(fault)),
            }
        };
        self.orders.forget();
        let operation = match catalogue().find(&parts.method, parts.uri.path()) {
            Found::Operation(operation) => Some(operation.id),
            _ => None,
        };
        let request = Request {
            number: self.shared.requests.fetch_add(1, Ordering::Relaxed) + 1,
            connection: self.number,
            peer: self.peer,
            sni: self.sni.clone(),
            operation,
            oddities: journal::oddities(&parts.headers),
            method: parts.method,
            target,
            uri: parts.uri,
            head,
            headers: parts.headers,
            body,
            trailers,
            status: None,
        };
        (request, fault)
    }

    /// The answer without its switches, and the environment if the request may ask at all. If it may not, nothing is
    /// switched.
    fn decide(
        &self,
        request: &Request,
        fault: Option<Problem>,
        switches: Result<Switches, switches::Error>,
        early: bool,
    ) -> (Reply, Switches, Option<&Environment>) {
        let ask = Ask {
            request,
            operation: request.operation.and_then(|id| catalogue().by_id(id)),
            body: Some(&request.body).filter(|_| !early),
        };
        let environment = match decide::admit(&self.shared, &ask) {
            Ok(environment) => environment,
            Err(problem) => return (problem.into(), Switches::default(), None),
        };
        let reply = match (fault, &switches) {
            (Some(fault), _) => Err(fault),
            (None, Err(fault)) => Err(Problem::new(StatusCode::BAD_REQUEST, fault.to_string())),
            (None, Ok(_)) => decide::answer(&self.shared, environment, &ask),
        };
        (reply.unwrap_or_else(Reply::from), switches.unwrap_or_default(), Some(&environment.options))
    }
}

/// The whole body, or 413. What comes behind it goes to `trailers`.
async fn read(mut body: Incoming, bytes_max: usize, trailers: &mut HeaderMap) -> Result<Bytes, Problem> {
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "The body ended too early."))?;
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => {
                trailers.extend(frame.into_trailers().unwrap_or_default());
                continue;
            }
        };
        if read.len() + data.len() > bytes_max {
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "The body is too large."));
        }
        read.extend_from_slice(&data);
    }
    Ok(read.freeze())
}
