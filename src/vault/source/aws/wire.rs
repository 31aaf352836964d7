//! The SDK's requests, sent as the control plane sends its own.
//!
//! In: a request of the SDK's, to Secrets Manager or to whoever gives credentials. Out: the answer, within a time and a
//! size that the SDK's own client does not bound, in a buffer that is wiped. Nothing is pooled: there are a few
//! requests a minute, and a connection that stays would outlive the event loop that it was opened in.
//!
//! What must never happen: a request goes over plain HTTP to another machine. Credentials of instances and containers
//! are served so, by link-local addresses that no router passes on.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_smithy_runtime_api::{
    client::{
        http::{HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector},
        orchestrator::{HttpRequest, HttpResponse},
        result::ConnectorError,
        runtime_components::RuntimeComponents,
    },
    http::StatusCode,
};
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Uri, header::HOST, uri::Scheme};
use http_body_util::Full;
use zeroize::Zeroizing;

use crate::{
    https::{self, Bounds, Server},
    tls::TlsFault,
};

/// A secret of the largest size as a JSON text, in which each byte may have become six; and what stands around it.
const ANSWER_BYTES_MAX: usize = 7 * crate::vault::source::file::SECRET_BYTES_MAX;

/// Each with the times that it is given.
type Servers = Mutex<BTreeMap<(bool, String, u16, [Duration; 2]), Arc<Server>>>;

/// Sends requests within these times.
#[derive(Debug, Clone)]
pub(super) struct Client {
    connect: Duration,
    answer: Duration,
    /// Those that were asked before.
    servers: Arc<Servers>,
}

/// Why a request has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum NoAnswer {
    #[error("{0}")]
    Exchange(#[source] Arc<https::Error>),
    #[error("{0}")]
    Tls(#[source] Arc<TlsFault>),
    #[error("it would be asked without TLS, and is not on this machine or its link")]
    Plain,
    #[error("the request has no form that can be sent")]
    Form,
}

impl Client {
    pub(super) fn new(connect: Duration, answer: Duration) -> Self {
        Self { connect, answer, servers: Arc::default() }
    }

    async fn send(self, request: HttpRequest) -> Result<HttpResponse, NoAnswer> {
        let uri: Uri = request.uri().parse().map_err(|_| NoAnswer::Form)?;
        let server = self.server(&uri)?;
        let request = outgoing(&request, &uri).ok_or(NoAnswer::Form)?;
        let answer = server.exchange_with_head(request).await;
        let (head, body) = answer.map_err(|error| NoAnswer::Exchange(Arc::new(error)))?;
        let status = StatusCode::try_from(head.status.as_u16()).map_err(|_| NoAnswer::Form)?;
        // Wiped when the SDK drops it.
        let mut answer = HttpResponse::new(status, SdkBody::from(Bytes::from_owner(body)));
        for (name, value) in &head.headers {
            if let Ok(value) = value.to_str() {
                answer.headers_mut().append(name.as_str().to_owned(), value.to_owned());
            }
        }
        Ok(answer)
    }

    fn server(&self, uri: &Uri) -> Result<Arc<Server>, NoAnswer> {
        let (Some(scheme), Some(host)) = (uri.scheme(), uri.host()) else { return Err(NoAnswer::Form) };
        let is_tls = *scheme == Scheme::HTTPS;
        let may_be_plain = *scheme == Scheme::HTTP && is_near(host);
        if !is_tls && !may_be_plain {
            return Err(NoAnswer::Plain);
        }
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let key = (is_tls, host.to_owned(), port, [self.connect, self.answer]);
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = servers.get(&key) {
            return Ok(server.clone());
        }
        let bounds =
            Bounds { connect: self.connect, answer: self.answer, answer_bytes_max: ANSWER_BYTES_MAX };
        let made = match is_tls {
            true => Server::over_tls(host, port, None, bounds),
            false => Server::plain(host, port, bounds),
        };
        let server = Arc::new(made.map_err(|fault| NoAnswer::Tls(Arc::new(fault)))?);
        servers.insert(key, server.clone());
        Ok(server)
    }
}

impl HttpClient for Client {
    /// Whoever gives credentials may have less time than the configuration says, and never more.
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        let less = |ours: Duration, theirs: Option<Duration>| theirs.map_or(ours, |theirs| ours.min(theirs));
        SharedHttpConnector::new(Self {
            connect: less(self.connect, settings.connect_timeout()),
            answer: less(self.answer, settings.read_timeout()),
            servers: self.servers.clone(),
        })
    }
}

impl HttpConnector for Client {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let client = self.clone();
        HttpConnectorFuture::new(async move {
            client.send(request).await.map_err(|error| match &error {
                NoAnswer::Exchange(cause) if cause.is_timeout() => ConnectorError::timeout(error.into()),
                NoAnswer::Exchange(_) => ConnectorError::io(error.into()),
                NoAnswer::Tls(_) | NoAnswer::Plain | NoAnswer::Form => ConnectorError::user(error.into()),
            })
        })
    }
}

/// Every field is marked sensitive: some carry tokens, and nobody needs to see the others.
fn outgoing(request: &HttpRequest, uri: &Uri) -> Option<Request<Full<Bytes>>> {
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let body = Bytes::from_owner(Zeroizing::new(request.body().bytes()?.to_vec()));
    let made = Request::builder().method(request.method()).uri(target);
    let mut made = made.body(Full::new(body)).ok()?;
    for (name, value) in request.headers() {
        let name: HeaderName = name.parse().ok()?;
        // Ours is the same: the port is in it unless it is the scheme's own.
        if name == HOST {
            continue;
        }
        let mut value = HeaderValue::from_str(value).ok()?;
        value.set_sensitive(true);
        made.headers_mut().append(name, value);
    }
    Some(made)
}

/// Whether nobody else's machine is in between: this machine, or an address of its link.
fn is_near(host: &str) -> bool {
    /// Where instances have their credentials from, and containers theirs.
    const OF_AWS: [u16; 2] = [0xfd00, 0x0ec2];
    match host.trim_matches(['[', ']']).parse() {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_link_local(),
        Ok(IpAddr::V6(address)) => {
            address.is_loopback()
                || address.is_unicast_link_local()
                || address.segments().starts_with(&OF_AWS)
        }
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_stays_on_this_machine_and_its_link() {
        for host in [
            "localhost",
            "127.0.0.1",
            "[::1]",
            "169.254.169.254",
            "169.254.170.2",
            "[fd00:ec2::254]",
            "[fe80::1]",
        ] {
            assert!(is_near(host), "{host}");
        }
        for host in
            ["secretsmanager.eu-central-1.amazonaws.com", "10.0.0.1", "169.253.0.1", "[fd00:ec3::254]"]
        {
            assert!(!is_near(host), "{host}");
        }
        let client = Client::new(Duration::from_secs(1), Duration::from_secs(1));
        let server = |uri: &'static str| client.server(&Uri::from_static(uri));
        assert!(server("http://169.254.169.254/latest").is_ok());
        for uri in ["http://sts.amazonaws.com/", "ftp://127.0.0.1/"] {
            assert!(matches!(server(uri), Err(NoAnswer::Plain)), "{uri}");
        }
        assert!(matches!(server("/latest"), Err(NoAnswer::Form)));
    }

    #[test]
    fn a_request_keeps_its_target_and_its_fields_and_shows_none_of_them() {
        let mut request = HttpRequest::new(SdkBody::from("body"));
        request.set_method("PUT").unwrap();
        request.set_uri("http://127.0.0.1:80/latest/api/token?a=b").unwrap();
        request.headers_mut().append("x-amz-security-token", "s3ssion");
        request.headers_mut().append("host", "127.0.0.1");
        let made = outgoing(&request, &request.uri().parse().unwrap()).unwrap();
        assert_eq!(
            (made.method().as_str(), made.uri().to_string().as_str()),
            ("PUT", "/latest/api/token?a=b")
        );
        assert_eq!(made.headers()["x-amz-security-token"], "s3ssion");
        assert!(!made.headers().contains_key(HOST));
        assert!(!format!("{made:?}").contains("s3ssion"));
    }
}
