//! The listener that users' browsers come to. It may face the internet.
//!
//! In: connections, with or without TLS, and one request each. Out: an [`Answer`]. Bounds are those of the control
//! plane's other listeners: so many connections, so long each, heads of a size, no bodies.
//!
//! What must never happen: a request for another host, or one that another site's page made, takes a ticket; a request
//! that is not understood does anything.

use std::{io, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, Method, StatusCode, header, request::Parts},
    response::Response,
};
use hyper::body::Body as _;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::{
    Connector, Event, Visit,
    answer::{self, Answer},
    callback::PATIENCE,
};
use crate::{
    config::Endpoint,
    control::connections::{self, Bounds},
    listener::{stream::Stream, tls::ServerTls},
    oauth::store,
};

const BOUNDS: Bounds = Bounds {
    of: "connect",
    connections_max: 512,
    // A browser's cookies of a whole domain, and a code that may be a token by itself.
    head_bytes_max: 32 * 1024,
    head_timeout: Duration::from_secs(5),
    // Whoever waits for longer than a browser is kept waiting waits for nothing.
    total_timeout: Duration::from_secs(PATIENCE.as_secs() + 10),
};

const TICKET: &str = "/ticket/";

/// Serves until `stopped` changes or its sender is gone. `tls` gives the certificate of now; `None`: without TLS, behind
/// something that has it.
pub(crate) async fn serve(
    connector: &Connector,
    listener: TcpListener,
    tls: impl Fn() -> Option<ServerTls>,
    stopped: watch::Receiver<()>,
) {
    let router = Router::new().fallback(visit).with_state(connector.clone());
    connections::serve(BOUNDS, stopped, || async {
        let (stream, _peer) = listener.accept().await?;
        Ok(Some((handshake(stream, tls()), router.clone())))
    })
    .await;
}

async fn handshake(stream: TcpStream, tls: Option<ServerTls>) -> io::Result<Stream> {
    match tls {
        None => Ok(Stream::Tcp(stream)),
        Some(ServerTls(acceptor)) => Ok(Stream::Tls(Box::new(acceptor.accept(stream).await?))),
    }
}

async fn visit(State(connector): State<Connector>, request: Request) -> Response {
    let settings = connector.settings();
    let (head, body) = request.into_parts();
    let turned = |visit, status| connector.turned_away(visit, Answer::Turned(status));
    let answer = match settings.base.as_ref().filter(|base| is_for(&head, base)) {
        None => turned(Visit::Host, StatusCode::MISDIRECTED_REQUEST),
        Some(_) if body.size_hint().exact() != Some(0) => turned(Visit::Body, StatusCode::PAYLOAD_TOO_LARGE),
        Some(base) => connector.answer(&head, base).await,
    };
    answer::respond(&answer, settings.base.as_ref().is_some_and(|base| base.tls))
}

impl Connector {
    async fn answer(&self, head: &Parts, base: &Endpoint) -> Answer {
        let path = head.uri.path();
        if let Some(code) = path.strip_prefix(TICKET) {
            return match head.method {
                Method::GET | Method::HEAD => self.opened(code).await,
                Method::POST if is_from_our_page(&head.headers, base) => self.begun(code).await,
                Method::POST => self.turned_away(Visit::CrossSite, Answer::CrossSite),
                _ => self.wrong_method(),
            };
        }
        if !self.settings().is_callback(path) {
            return self.turned_away(Visit::Path, Answer::Turned(StatusCode::NOT_FOUND));
        }
        match head.method {
            Method::GET if is_page(&head.headers) => {
                self.returned(path, head.uri.query().unwrap_or_default(), &head.headers).await
            }
            Method::GET => self.turned_away(Visit::CrossSite, Answer::CrossSite),
            _ => self.wrong_method(),
        }
    }

    fn wrong_method(&self) -> Answer {
        self.turned_away(Visit::Method, Answer::Turned(StatusCode::METHOD_NOT_ALLOWED))
    }

    /// Records a visit that leads nowhere.
    pub(super) fn turned_away(&self, visit: Visit, answer: Answer) -> Answer {
        self.0.saw(&Event::TurnedAway(visit));
        answer
    }

    pub(super) fn store_failed(&self, error: &store::Error) -> Answer {
        self.0.saw(&Event::StoreFailed(error));
        Answer::Later
    }
}

/// Whether `Host` and the target name this listener, as browsers would write it.
fn is_for(head: &Parts, base: &Endpoint) -> bool {
    let default = if base.tls { 443 } else { 80 };
    let with_port = format!("{}:{}", base.host, base.port);
    let is_base = |text: &[u8]| {
        text.eq_ignore_ascii_case(with_port.as_bytes())
            || (base.port == default && text.eq_ignore_ascii_case(base.host.as_bytes()))
    };
    let target = head.uri.authority().is_none_or(|authority| is_base(authority.as_str().as_bytes()));
    target && only(&head.headers, &header::HOST).is_ok_and(|host| host.is_some_and(is_base))
}

const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Whether the button of a page of ours was pressed. Browsers of now say so in `Sec-Fetch-Site`, and nobody's script can
/// write that; older ones say where a form was in `Origin`.
fn is_from_our_page(headers: &HeaderMap, base: &Endpoint) -> bool {
    let origin = base.to_string();
    let origin = origin.trim_end_matches('/');
    match (only(headers, &SITE), only(headers, &header::ORIGIN)) {
        // Pages that send no `Referer` send `null` instead of an origin.
        (Ok(Some(site)), Ok(from)) => {
            let is_ours =
                from.is_none_or(|from| from == b"null" || from.eq_ignore_ascii_case(origin.as_bytes()));
            site == b"same-origin" && is_ours && is_page(headers)
        }
        (Ok(None), Ok(Some(from))) => from.eq_ignore_ascii_case(origin.as_bytes()),
        _ => false,
    }
}

/// Whether the answer is to be shown in a window, as far as the browser says: no frame, no picture, no script's request.
fn is_page(headers: &HeaderMap) -> bool {
    matches!(only(headers, &DEST), Ok(None | Some(b"document")))
}

/// The one value of `name`; `Err` when there are several.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h [u8]>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (first, None) => Ok(first.map(axum::http::HeaderValue::as_bytes)),
        _ => Err(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn is_for_base(base: &str, target: &str, hosts: &[&str]) -> bool {
        let mut request = axum::http::Request::builder().uri(target);
        for host in hosts {
            request = request.header("host", *host);
        }
        is_for(&request.body(()).unwrap().into_parts().0, &Endpoint::parse(base).unwrap())
    }

    #[test]
    fn a_request_is_for_the_host_that_is_configured() {
        let base = "https://connect.example/";
        for host in ["connect.example", "Connect.Example", "connect.example:443"] {
            assert!(is_for_base(base, "/", &[host]), "{host}");
        }
        for host in ["", "connect.example:80", "connect.example.", "evil.example", "localhost", "127.0.0.1"] {
            assert!(!is_for_base(base, "/", &[host]), "{host}");
        }
        assert!(!is_for_base(base, "/", &[]));
        assert!(!is_for_base(base, "/", &["connect.example", "connect.example"]));
        assert!(is_for_base(base, "https://connect.example/ticket/a", &["connect.example"]));
        assert!(!is_for_base(base, "https://evil.example/ticket/a", &["connect.example"]));
        assert!(is_for_base("https://connect.example:8443/", "/", &["connect.example:8443"]));
        assert!(!is_for_base("https://connect.example:8443/", "/", &["connect.example"]));
    }

    #[test]
    fn a_button_is_pressed_on_a_page_of_ours_or_not_at_all() {
        let base = Endpoint::parse("https://connect.example/").unwrap();
        let same = ("sec-fetch-site", "same-origin");
        for fields in [
            &[same][..],
            &[same, ("origin", "null"), ("sec-fetch-dest", "document")],
            &[same, ("origin", "https://connect.example")],
            &[("origin", "https://connect.example")],
        ] {
            assert!(is_from_our_page(&headers(fields), &base), "{fields:?}");
        }
        for fields in [
            &[][..],
            &[("origin", "null")],
            &[("origin", "https://evil.example")],
            &[("origin", "https://connect.example.evil.example")],
            &[("origin", "http://connect.example")],
            &[("sec-fetch-site", "cross-site"), ("origin", "https://connect.example")],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "none")],
            &[same, ("origin", "https://evil.example")],
            &[same, ("sec-fetch-dest", "iframe")],
            &[same, same],
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in fields {
                map.append(HeaderName::from_static(name), value.parse().unwrap());
            }
            assert!(!is_from_our_page(&map, &base), "{fields:?}");
        }
    }
}
