//! Opening a verified connection: resolve, connect, TLS.
//!
//! TLS 1.2 and 1.3 only, no early data, and verification that no setting can switch off: roots come from
//! the system or from `ca_file`.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{read_ahead::ReadAhead, resolve::Addresses};
use crate::{
    config::{Environment, ListenerTls},
    gateway::refusal::Failure,
};

/// An upstream: where it is and how it is verified.
pub(crate) struct DialTarget {
    pub(crate) addresses: Addresses,
    /// `Host`, and how it may stand in a `Location`.
    pub(crate) authority: http::HeaderValue,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// This environment's cap, of all workers together.
    pub(crate) connections_max: usize,
    server_name: ServerName<'static>,
    tls: TlsConnector,
    made_from: MadeFrom,
}

/// What a target was made from: equal parts make an equal target.
#[derive(Debug, PartialEq, Eq)]
struct MadeFrom {
    host: String,
    port: u16,
    family: crate::config::IpFamily,
    connections_max: usize,
    ca: Option<Vec<u8>>,
    client: Option<(Vec<u8>, Vec<u8>)>,
}

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsFault {
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file holds no usable PEM of the kind that is needed.
    #[error("{path} holds no usable {what} in PEM form")]
    Pem {
        /// The file.
        path: PathBuf,
        /// Certificate or private key.
        what: &'static str,
    },
    /// Certificate and key do not fit, or a root is not acceptable.
    #[error("{path}: {source}")]
    Rejected {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The system has no roots.
    #[error("the system has no trusted roots; install ca-certificates or name a ca_file")]
    NoRoots,
    /// The host is no name that a certificate can be checked for.
    #[error("{0} is no name that a certificate can be checked for")]
    ServerName(String),
}

impl fmt::Debug for DialTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DialTarget({:?})", self.authority)
    }
}

pub(crate) type UpstreamStream = TlsStream<ReadAhead<TcpStream>>;

impl DialTarget {
    /// The target for `settings`; `previous` itself, with its TLS sessions, if nothing that matters changed.
    pub(crate) fn new(settings: &Environment, previous: Option<&Arc<Self>>) -> Result<Arc<Self>, TlsFault> {
        let made_from = MadeFrom {
            host: settings.host.clone(),
            port: settings.port,
            family: settings.ip_family,
            connections_max: settings.connections_max,
            ca: settings.ca_file.as_deref().map(read).transpose()?,
            client: match &settings.client_certificate {
                Some(files) => Some((read(&files.certificate)?, read(&files.key)?)),
                None => None,
            },
        };
        if let Some(previous) = previous.filter(|previous| previous.made_from == made_from) {
            return Ok(previous.clone());
        }
        let tls = client_config(settings, &made_from)?;
        Self::with(settings, tls, made_from)
    }

    /// One that reads no file and trusts nobody, so that nothing can be sent to it.
    pub(crate) fn nowhere(settings: &Environment) -> Result<Arc<Self>, TlsFault> {
        let made_from = MadeFrom {
            host: settings.host.clone(),
            port: settings.port,
            family: settings.ip_family,
            connections_max: settings.connections_max,
            ca: None,
            client: None,
        };
        let tls = builder(RootCertStore::empty())?.with_no_client_auth();
        Self::with(settings, tls, made_from)
    }

    fn with(settings: &Environment, tls: ClientConfig, made_from: MadeFrom) -> Result<Arc<Self>, TlsFault> {
        let host = settings.host.trim_matches(['[', ']']).to_owned();
        let authority = match settings.port {
            443 => settings.host.clone(),
            port => format!("{}:{port}", settings.host),
        };
        let not_a_name = || TlsFault::ServerName(settings.host.clone());
        Ok(Arc::new(Self {
            addresses: Addresses::new(&settings.host, settings.port, settings.ip_family),
            authority: http::HeaderValue::try_from(authority).map_err(|_| not_a_name())?,
            server_name: ServerName::try_from(host).map_err(|_| not_a_name())?,
            host: settings.host.clone(),
            port: settings.port,
            connections_max: settings.connections_max,
            tls: TlsConnector::from(Arc::new(tls)),
            made_from,
        }))
    }

    /// Opens one connection, trying each address in turn.
    pub(crate) async fn dial(&self, connect: Duration, tls: Duration) -> Result<UpstreamStream, Failure> {
        let addresses =
            timeout(connect, self.addresses.get()).await.map_err(|_| Failure::UpstreamUnreachable)?;
        let mut last = Failure::UpstreamUnreachable;
        for address in addresses.iter() {
            match timeout(connect, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    let _ = stream.set_nodelay(true);
                    let stream = ReadAhead::new(stream);
                    return match timeout(tls, self.tls.connect(self.server_name.clone(), stream)).await {
                        Ok(Ok(stream)) => Ok(stream),
                        Ok(Err(error)) => {
                            tracing::warn!(host = self.host, %address, %error, "TLS handshake failed");
                            Err(tls_failure(&error))
                        }
                        Err(_) => Err(Failure::ConnectTimeout),
                    };
                }
                Ok(Err(error)) => {
                    tracing::warn!(host = self.host, %address, %error, "cannot connect");
                    last = Failure::UpstreamUnreachable;
                }
                Err(_) => last = Failure::ConnectTimeout,
            }
        }
        self.addresses.distrust();
        Err(last)
    }
}

/// A certificate that does not verify is another matter than a connection that broke.
fn tls_failure(error: &std::io::Error) -> Failure {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(_) => Failure::UpstreamUntrusted,
        None => Failure::UpstreamUnreachable,
    }
}

fn client_config(settings: &Environment, from: &MadeFrom) -> Result<ClientConfig, TlsFault> {
    let roots = roots(settings.ca_file.as_deref().zip(from.ca.as_deref()))?;
    let builder = builder(roots)?;
    let mut config = match (&settings.client_certificate, &from.client) {
        (Some(files), Some((chain, key))) => builder
            .with_client_auth_cert(certificates(&files.certificate, chain)?, private_key(&files.key, key)?)
            .map_err(|source| TlsFault::Rejected { path: files.certificate.clone(), source })?,
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn builder(
    roots: RootCertStore,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, TlsFault> {
    Ok(ClientConfig::builder_with_provider(crate::tls::provider())
        .with_protocol_versions(crate::tls::VERSIONS)
        .map_err(|source| TlsFault::Rejected { path: PathBuf::new(), source })?
        .with_root_certificates(roots))
}

/// The certificates of a PEM file, given with its text, or those that the system trusts.
pub(crate) fn roots(authority: Option<(&Path, &[u8])>) -> Result<RootCertStore, TlsFault> {
    let mut roots = RootCertStore::empty();
    match authority {
        Some((path, pem)) => {
            for certificate in certificates(path, pem)? {
                roots
                    .add(certificate)
                    .map_err(|source| TlsFault::Rejected { path: path.to_owned(), source })?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(TlsFault::NoRoots);
            }
        }
    }
    Ok(roots)
}

/// Reads a PEM file, which is small.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, TlsFault> {
    std::fs::read(path).map_err(|source| TlsFault::Read { path: path.to_owned(), source })
}

/// Every certificate in `pem`, at least one.
pub(crate) fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    all.ok().filter(|all| !all.is_empty()).ok_or(TlsFault::Pem { path: path.to_owned(), what: "certificate" })
}

/// The first private key in `pem`.
pub(crate) fn private_key(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsFault> {
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|_| TlsFault::Pem { path: path.to_owned(), what: "private key" })
}

/// Reads a certificate chain and its key.
pub(crate) fn chain_and_key(
    files: &ListenerTls,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsFault> {
    let chain = certificates(&files.certificate, &read(&files.certificate)?)?;
    Ok((chain, private_key(&files.key, &read(&files.key)?)?))
}
