//! One exchange with a server of the control plane's: a key set, a vault.
//!
//! In: where it is, whom to believe, and a request. Out: the status and the body of one answer, within a time and a
//! size, or why not. TLS 1.2 or 1.3, verified, with no setting that switches that off; plain HTTP only where the
//! configuration's check has seen that it stays on this machine. No redirect is followed, nothing is repeated.
//! A body is wiped when it is dropped; hyper's and TLS's own buffers are outside that promise.

use std::{io, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Request, StatusCode,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, HOST, USER_AGENT},
    response::Parts,
};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::{Body as _, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use crate::tls::{self, TlsFault};

/// A server, and how it is asked.
pub(crate) struct Server {
    host: String,
    port: u16,
    /// `Host`.
    authority: HeaderValue,
    /// `None`: plain HTTP.
    tls: Option<(TlsConnector, ServerName<'static>)>,
    bounds: Bounds,
}

/// What one exchange may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// From the look-up of the name to the end of the TLS handshake.
    pub(crate) connect: Duration,
    /// From there to the last byte of the answer.
    pub(crate) answer: Duration,
    pub(crate) answer_bytes_max: usize,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Zeroizing<Vec<u8>>,
}

/// Why there is no answer. Messages hold nothing of one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("no connection within {} ms", .0.as_millis())]
    ConnectTimeout(Duration),
    #[error("no whole answer within {} ms", .0.as_millis())]
    AnswerTimeout(Duration),
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    #[error("its certificate is not accepted: {0}")]
    Untrusted(#[source] rustls::Error),
    #[error("the exchange failed: {0}")]
    Http(#[from] hyper::Error),
    #[error("the request cannot be made: {0}")]
    Request(#[from] http::Error),
    #[error("it answered in an encoding that was not asked for")]
    Encoding,
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
}

impl Error {
    /// Whether it may only be slow.
    #[cfg(feature = "aws")]
    pub(crate) fn is_timeout(&self) -> bool {
        matches!(self, Self::ConnectTimeout(_) | Self::AnswerTimeout(_))
    }
}

impl Server {
    /// `host`: a name or an address, an IPv6 one in brackets. `authority`: a PEM file and its text, instead of the
    /// system's roots.
    pub(crate) fn over_tls(
        host: &str,
        port: u16,
        authority: Option<(&Path, &[u8])>,
        bounds: Bounds,
    ) -> Result<Self, TlsFault> {
        let not_a_name = |_| TlsFault::ServerName(host.to_owned());
        let name = ServerName::try_from(bare(host).to_owned()).map_err(not_a_name)?;
        let mut config = tls::client()?.with_root_certificates(tls::roots(authority)?).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let tls = TlsConnector::from(Arc::new(config));
        Ok(Self { tls: Some((tls, name)), ..Self::plain(host, port, bounds)? })
    }

    /// Without TLS, for what stays on this machine.
    pub(crate) fn plain(host: &str, port: u16, bounds: Bounds) -> Result<Self, TlsFault> {
        let authority = if port == 443 { host.to_owned() } else { format!("{host}:{port}") };
        let authority =
            HeaderValue::try_from(authority).map_err(|_| TlsFault::ServerName(host.to_owned()))?;
        Ok(Self { host: host.to_owned(), port, authority, tls: None, bounds })
    }

    /// Sends `request`, whose target is a path, and reads the answer. What every request has is added.
    pub(crate) async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answer, Error> {
        let (head, body) = self.exchange_with_head(request).await?;
        Ok(Answer { status: head.status, body })
    }

    /// The same, with all of the answer's head.
    pub(crate) async fn exchange_with_head(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(Parts, Zeroizing<Vec<u8>>), Error> {
        let headers = request.headers_mut();
        headers.insert(HOST, self.authority.clone());
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("mxgate/", env!("CARGO_PKG_VERSION"))));
        let answer = self.bounds.answer;
        let stream = self.connected().await?;
        timeout(answer, self.over(stream, request)).await.map_err(|_| Error::AnswerTimeout(answer))?
    }

    /// Goes the way, up to the end of the TLS handshake, and asks for nothing.
    pub(crate) async fn reach(&self) -> Result<(), Error> {
        self.connected().await.map(drop)
    }

    async fn connected(&self) -> Result<Box<dyn Stream>, Error> {
        let connect = self.bounds.connect;
        timeout(connect, self.connect()).await.map_err(|_| Error::ConnectTimeout(connect))?
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, Error> {
        let stream = self.connect_tcp().await.map_err(Error::Connect)?;
        Ok(match &self.tls {
            None => Box::new(stream),
            Some((tls, name)) => Box::new(tls.connect(name.clone(), stream).await.map_err(handshake_failed)?),
        })
    }

    async fn connect_tcp(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in lookup_host((bare(&self.host), self.port)).await? {
            // Whoever answers for `localhost` decides where it is.
            if self.tls.is_none() && !address.ip().to_canonical().is_loopback() {
                last = io::Error::other("without TLS, and the name leads to another machine");
                continue;
            }
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn over(
        &self,
        stream: Box<dyn Stream>,
        request: Request<Full<Bytes>>,
    ) -> Result<(Parts, Zeroizing<Vec<u8>>), Error> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with this exchange, however that ends.
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        let (head, body) = sender.send_request(request).await?.into_parts();
        if head.headers.get_all(CONTENT_ENCODING).iter().any(|value| value != "identity") {
            return Err(Error::Encoding);
        }
        Ok((head, whole(body, self.bounds.answer_bytes_max).await?))
    }
}

/// A connection, with or without TLS, of either kind of socket. One type for all that no request goes through: for each
/// further one there would be another copy of hyper.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Server({:?})", self.authority)
    }
}

/// An address without its brackets.
fn bare(host: &str) -> &str {
    host.trim_matches(['[', ']'])
}

/// A certificate that does not verify is another matter than a connection that broke.
fn handshake_failed(error: io::Error) -> Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(inner) => Error::Untrusted(inner.clone()),
        None => Error::Connect(error),
    }
}

/// One allocation that never grows: growing would leave an unwiped copy behind.
async fn whole(mut body: Incoming, max: usize) -> Result<Zeroizing<Vec<u8>>, Error> {
    let announced = body.size_hint().exact().map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    let room = announced.unwrap_or(max);
    if room > max {
        return Err(Error::TooLarge(max));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if bytes.len() + data.len() > room {
            return Err(Error::TooLarge(max));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    const BOUNDS: Bounds =
        Bounds { connect: Duration::from_secs(5), answer: Duration::from_millis(500), answer_bytes_max: 16 };

    /// What comes of one request to a server that answers this, and what the server was sent.
    async fn exchange(answer: &'static str) -> (Result<Answer, Error>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let count = stream.read(&mut request).await.unwrap();
            request.truncate(count);
            stream.write_all(answer.as_bytes()).await.unwrap();
            // Until the other side is done.
            let _ = stream.read(&mut [0]).await;
            String::from_utf8(request).unwrap()
        });
        let server = Server::plain("127.0.0.1", port, BOUNDS).unwrap();
        let answer = server.exchange(Request::get("/v1/a").body(Full::default()).unwrap()).await;
        (answer, served.await.unwrap())
    }

    #[tokio::test]
    async fn without_tls_nothing_leaves_this_machine() {
        // Of the documentation: if it were dialled, nobody would answer.
        let server = Server::plain("192.0.2.1", 80, BOUNDS).unwrap();
        let answer = server.exchange(Request::get("/v1/a").body(Full::default()).unwrap()).await;
        let said = answer.unwrap_err().to_string();
        assert_eq!(said, "cannot connect: without TLS, and the name leads to another machine");
        assert!(exchange("HTTP/1.1 204 No Content\r\n\r\n").await.0.is_ok());
    }

    #[tokio::test]
    async fn an_answer_has_its_status_and_its_body() {
        let (answer, sent) =
            exchange("HTTP/1.1 404 Not Found\r\nContent-Length: 16\r\n\r\n0123456789abcdef").await;
        let answer = answer.unwrap();
        assert_eq!(
            (answer.status, answer.body.as_slice()),
            (StatusCode::NOT_FOUND, &b"0123456789abcdef"[..])
        );
        assert!(sent.starts_with("GET /v1/a HTTP/1.1\r\n") && sent.contains("host: 127.0.0.1:"), "{sent}");
        let (answer, _) =
            exchange("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n").await;
        assert_eq!(answer.unwrap().body.as_slice(), b"abc");
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_nothing_else() {
        let (answer, _) =
            exchange("HTTP/1.1 307 Away\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!(answer.unwrap().status, StatusCode::TEMPORARY_REDIRECT);
    }

    #[tokio::test]
    async fn what_is_too_large_encoded_cut_or_late_is_no_answer() {
        let (answer, _) = exchange("HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n").await;
        assert!(matches!(answer, Err(Error::TooLarge(16))), "{answer:?}");
        let chunked =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n11\r\n0123456789abcdefg\r\n0\r\n\r\n";
        let (answer, _) = exchange(chunked).await;
        assert!(matches!(answer, Err(Error::TooLarge(16))), "{answer:?}");
        let (answer, _) =
            exchange("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\na").await;
        assert!(matches!(answer, Err(Error::Encoding)), "{answer:?}");
        for late in ["", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"] {
            let (answer, _) = exchange(late).await;
            assert!(matches!(answer, Err(Error::AnswerTimeout(_))), "{answer:?}");
        }
        let (answer, _) = exchange("SSH-2.0-x\r\n").await;
        assert!(matches!(answer, Err(Error::Http(_))), "{answer:?}");
    }

    #[tokio::test]
    async fn nobody_there_is_told_from_somebody_slow() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // It takes the connection, and no TLS handshake.
        let bounds = Bounds { connect: Duration::from_millis(200), ..BOUNDS };
        let slow = Server::over_tls("127.0.0.1", port, None, bounds).unwrap();
        let request = || Request::get("/").body(Full::default()).unwrap();
        assert!(matches!(slow.exchange(request()).await, Err(Error::ConnectTimeout(_))));
        let nobody = crate::free_address::free_address();
        let nobody = Server::over_tls(&nobody.ip().to_string(), nobody.port(), None, bounds).unwrap();
        assert!(matches!(nobody.exchange(request()).await, Err(Error::Connect(_))));
    }
}
