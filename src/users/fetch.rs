//! Fetching a key set over verified TLS, from the control plane.
//!
//! In: where it is and whom to believe. Out: the bytes of one answer, within a time and a size, or why not. No
//! redirect is followed, nothing is sent but the request line and what HTTP asks for.

use std::{io, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    Request, StatusCode,
    header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, HOST, USER_AGENT},
};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::keys::{SET_BYTES_MAX, SetFault};
use crate::upstream::dial::{self, TlsFault};

/// For everything, from the look-up to the last byte.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Fetches one document.
pub(super) struct Fetcher {
    host: String,
    port: u16,
    path: String,
    server_name: ServerName<'static>,
    tls: TlsConnector,
}

/// Why a document could not be had. Messages hold nothing of an answer but its status.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the address took longer than {} s", TIMEOUT.as_secs())]
    Timeout,
    #[error("cannot connect: {0}")]
    Connect(#[from] io::Error),
    #[error("the exchange failed: {0}")]
    Http(#[from] hyper::Error),
    #[error("the request cannot be made: {0}")]
    Request(#[from] http::Error),
    #[error("it answered {0}, and redirects are not followed")]
    Status(StatusCode),
    #[error("it answered in an encoding that was not asked for")]
    Encoding,
    #[error("the answer is larger than {SET_BYTES_MAX} bytes, or broke off")]
    Body,
    #[error("what it answered {0}")]
    Set(#[from] SetFault),
}

impl Fetcher {
    /// `authority`: a PEM file and its text, instead of the system's roots.
    pub(super) fn new(
        host: &str,
        port: u16,
        path: &str,
        authority: Option<(&Path, &[u8])>,
    ) -> Result<Self, TlsFault> {
        let bare = host.trim_matches(['[', ']']).to_owned();
        let server_name = ServerName::try_from(bare).map_err(|_| TlsFault::ServerName(host.to_owned()))?;
        let rejected = |source| TlsFault::Rejected { path: Default::default(), source };
        let mut config = ClientConfig::builder_with_provider(crate::tls::provider())
            .with_protocol_versions(crate::tls::VERSIONS)
            .map_err(rejected)?
            .with_root_certificates(dial::roots(authority)?)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let tls = TlsConnector::from(Arc::new(config));
        Ok(Self { host: host.to_owned(), port, path: path.to_owned(), server_name, tls })
    }

    pub(super) async fn fetch(&self) -> Result<Bytes, Error> {
        timeout(TIMEOUT, self.exchange()).await.unwrap_or(Err(Error::Timeout))
    }

    async fn exchange(&self) -> Result<Bytes, Error> {
        let stream = self.connect().await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the sender and the body.
        tokio::spawn(connection);
        let authority =
            if self.port == 443 { self.host.clone() } else { format!("{}:{}", self.host, self.port) };
        let request = Request::get(&self.path)
            .header(HOST, authority)
            .header(ACCEPT, "application/json, application/jwk-set+json")
            .header(ACCEPT_ENCODING, "identity")
            .header(USER_AGENT, concat!("mxgate/", env!("CARGO_PKG_VERSION")))
            .body(Empty::<Bytes>::new())?;
        let (head, body) = sender.send_request(request).await?.into_parts();
        if head.status != StatusCode::OK {
            return Err(Error::Status(head.status));
        }
        if head.headers.get_all(CONTENT_ENCODING).iter().any(|value| value != "identity") {
            return Err(Error::Encoding);
        }
        let limit = usize::try_from(SET_BYTES_MAX).unwrap_or(usize::MAX);
        let body = Limited::new(body, limit).collect().await.map_err(|_| Error::Body)?;
        Ok(body.to_bytes())
    }

    async fn connect(&self) -> Result<TlsStream<TcpStream>, io::Error> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in lookup_host((self.host.trim_matches(['[', ']']), self.port)).await? {
            match TcpStream::connect(address).await {
                Ok(stream) => return self.tls.connect(self.server_name.clone(), stream).await,
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}
