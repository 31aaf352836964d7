//! Opening a verified connection: resolve, connect, through a proxy if there is one, TLS.
//!
//! TLS 1.2 and 1.3 only, no early data, and verification that no setting can switch off: roots come from
//! the system or from `ca_file`. Pins and the reach of a name may only refuse.

mod fault;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier,
    client::danger::ServerCertVerifier,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

pub(crate) use self::fault::DialFault;
use self::fault::tls_fault;
use super::{
    pins,
    read_ahead::ReadAhead,
    resolve::Addresses,
    tunnel::{Password, Tunnel},
    witness::Witness,
};
use crate::{
    config::{Egress, Environment, IpFamily, ListenerTls, Reach},
    credential,
    gateway::refusal::Failure,
    record::UsedCredential,
};

/// An upstream: where it is, how to get there, and how it is verified.
pub(crate) struct DialTarget {
    /// Of whom is dialled: the host, or the proxy.
    pub(crate) addresses: Addresses,
    /// `Host`, and how it may stand in a `Location`.
    pub(crate) authority: http::HeaderValue,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// This environment's cap, of all workers together.
    pub(crate) connections_max: usize,
    bind: Option<IpAddr>,
    reach: Reach,
    tunnel: Option<Tunnel>,
    server_name: ServerName<'static>,
    tls: TlsConnector,
    made_from: MadeFrom,
}

/// What a target was made from: equal parts make an equal target.
#[derive(Debug, PartialEq, Eq)]
struct MadeFrom {
    host: String,
    port: u16,
    family: IpFamily,
    egress: Egress,
    proxy_password: Option<Password>,
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
    /// The proxy's password cannot be sent.
    #[error("the proxy's password {0}")]
    Password(#[from] credential::Unusable),
}

impl fmt::Debug for DialTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DialTarget({:?})", self.authority)
    }
}

pub(crate) type UpstreamStream = TlsStream<ReadAhead<TcpStream>>;

impl DialTarget {
    /// The target for `settings`; `previous` itself, with its TLS sessions, if nothing that matters changed.
    /// `proxy_password` is there when the proxy has a login.
    pub(crate) fn new(
        settings: &Environment,
        proxy_password: Option<Password>,
        previous: Option<&Arc<Self>>,
    ) -> Result<Arc<Self>, TlsFault> {
        let made_from = MadeFrom::read(settings, proxy_password)?;
        if let Some(previous) = previous.filter(|previous| previous.made_from == made_from) {
            return Ok(previous.clone());
        }
        let pins = &settings.egress.pins;
        let verifier = match pins.is_empty() {
            true => None,
            false => Some(pins::verifier(trusted(settings, &made_from)?, pins).map_err(rejected)?),
        };
        let tls = client_config(settings, &made_from, verifier)?;
        Self::with(settings, tls, made_from)
    }

    /// The same for one look at it, with a witness of the certificates that are shown.
    pub(crate) fn watched(
        settings: &Environment,
        proxy_password: Option<Password>,
    ) -> Result<(Arc<Self>, Arc<Witness>), TlsFault> {
        let made_from = MadeFrom::read(settings, proxy_password)?;
        let roots = trusted(settings, &made_from)?;
        let witness = Witness::of(pins::verifier(roots, &settings.egress.pins).map_err(rejected)?);
        let tls = client_config(settings, &made_from, Some(witness.clone()))?;
        Ok((Self::with(settings, tls, made_from)?, witness))
    }

    /// One that reads no file and trusts nobody, so that nothing can be sent to it.
    pub(crate) fn nowhere(settings: &Environment) -> Result<Arc<Self>, TlsFault> {
        let tls = builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        Self::with(settings, tls, MadeFrom::without_files(settings))
    }

    fn with(settings: &Environment, tls: ClientConfig, made_from: MadeFrom) -> Result<Arc<Self>, TlsFault> {
        let host = settings.host.trim_matches(['[', ']']).to_owned();
        let authority = match settings.port {
            443 => settings.host.clone(),
            port => format!("{}:{port}", settings.host),
        };
        let not_a_name = || TlsFault::ServerName(settings.host.clone());
        let Egress { bind, proxy, reach, .. } = &settings.egress;
        let family = match bind {
            Some(IpAddr::V4(_)) => IpFamily::Ipv4,
            Some(IpAddr::V6(_)) => IpFamily::Ipv6,
            None => settings.ip_family,
        };
        let password = made_from.proxy_password.as_ref();
        let tunnel = proxy.as_ref().map(|proxy| Tunnel::new(proxy, password, &settings.host, settings.port));
        // Where the proxy is, its operator has said; where the host is, the proxy finds out.
        let (dialled, port, reach) = match proxy {
            Some(proxy) => (&proxy.host, proxy.port, Reach::Any),
            None => (&settings.host, settings.port, *reach),
        };
        Ok(Arc::new(Self {
            addresses: Addresses::new(dialled, port, family),
            authority: http::HeaderValue::try_from(authority).map_err(|_| not_a_name())?,
            server_name: ServerName::try_from(host).map_err(|_| not_a_name())?,
            host: settings.host.clone(),
            port: settings.port,
            connections_max: settings.connections_max,
            bind: *bind,
            reach,
            tunnel: tunnel.transpose()?,
            tls: TlsConnector::from(Arc::new(tls)),
            made_from,
        }))
    }

    /// What tells this version of the proxy's password from others.
    pub(crate) fn proxy_password(&self) -> Option<&UsedCredential> {
        self.tunnel.as_ref()?.used()
    }

    /// Opens one connection, trying each address in turn.
    pub(crate) async fn dial(&self, connect: Duration, tls: Duration) -> Result<UpstreamStream, Failure> {
        let addresses =
            timeout(connect, self.addresses.get()).await.map_err(|_| Failure::UpstreamUnreachable)?;
        let mut last = Failure::UpstreamUnreachable;
        for &address in addresses.iter() {
            let failed = |fault: DialFault| {
                tracing::warn!(host = self.host, %address, %fault, "no connection");
                fault.failure()
            };
            match self.connect(address, connect).await {
                Ok(mut stream) => {
                    self.tunnel(&mut stream, connect).await.map_err(failed)?;
                    return self.handshake(stream, tls).await.map_err(failed);
                }
                Err(fault) => last = failed(fault),
            }
        }
        self.addresses.distrust();
        Err(last)
    }

    /// Connects to one address, if it may be dialled.
    pub(crate) async fn connect(&self, address: SocketAddr, limit: Duration) -> Result<TcpStream, DialFault> {
        if !self.reach.allows(address.ip()) {
            return Err(DialFault::Private(address.ip()));
        }
        let connecting = async {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
            let socket = socket.map_err(DialFault::Connect)?;
            if let Some(own) = self.bind {
                socket.bind(SocketAddr::new(own, 0)).map_err(|error| DialFault::Bind(own, error))?;
            }
            socket.connect(address).await.map_err(DialFault::Connect)
        };
        let stream = timeout(limit, connecting).await.unwrap_or(Err(DialFault::ConnectTimeout))?;
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    /// Asks the proxy to connect; without one there is nothing to ask.
    pub(crate) async fn tunnel(&self, stream: &mut TcpStream, limit: Duration) -> Result<(), DialFault> {
        match &self.tunnel {
            Some(tunnel) => Ok(tunnel.open(stream, limit).await?),
            None => Ok(()),
        }
    }

    /// TLS with the host.
    pub(crate) async fn handshake(
        &self,
        stream: TcpStream,
        limit: Duration,
    ) -> Result<UpstreamStream, DialFault> {
        let handshake = self.tls.connect(self.server_name.clone(), ReadAhead::new(stream));
        timeout(limit, handshake).await.map_err(|_| DialFault::TlsTimeout)?.map_err(tls_fault)
    }
}

impl MadeFrom {
    fn read(settings: &Environment, proxy_password: Option<Password>) -> Result<Self, TlsFault> {
        let both = |files: &ListenerTls| Ok::<_, TlsFault>((read(&files.certificate)?, read(&files.key)?));
        Ok(Self {
            proxy_password,
            ca: settings.ca_file.as_deref().map(read).transpose()?,
            client: settings.client_certificate.as_ref().map(both).transpose()?,
            ..Self::without_files(settings)
        })
    }

    fn without_files(settings: &Environment) -> Self {
        Self {
            host: settings.host.clone(),
            port: settings.port,
            family: settings.ip_family,
            egress: settings.egress.clone(),
            proxy_password: None,
            connections_max: settings.connections_max,
            ca: None,
            client: None,
        }
    }
}

/// Whom the environment's host is verified by.
fn trusted(settings: &Environment, from: &MadeFrom) -> Result<RootCertStore, TlsFault> {
    roots(settings.ca_file.as_deref().zip(from.ca.as_deref()))
}

/// `verifier` may only refuse what the usual verification, which it holds, takes.
fn client_config(
    settings: &Environment,
    from: &MadeFrom,
    verifier: Option<Arc<dyn ServerCertVerifier>>,
) -> Result<ClientConfig, TlsFault> {
    let builder = match verifier {
        None => builder()?.with_root_certificates(trusted(settings, from)?),
        Some(verifier) => builder()?.dangerous().with_custom_certificate_verifier(verifier),
    };
    let mut config = match (&settings.client_certificate, &from.client) {
        (Some(files), Some((chain, key))) => builder
            .with_client_auth_cert(certificates(&files.certificate, chain)?, private_key(&files.key, key)?)
            .map_err(|source| TlsFault::Rejected { path: files.certificate.clone(), source })?,
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
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

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, TlsFault> {
    ClientConfig::builder_with_provider(crate::tls::provider())
        .with_protocol_versions(crate::tls::VERSIONS)
        .map_err(rejected)
}

fn rejected(source: rustls::Error) -> TlsFault {
    TlsFault::Rejected { path: PathBuf::new(), source }
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

#[cfg(test)]
mod tests;
