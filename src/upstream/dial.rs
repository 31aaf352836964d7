//! Opening a verified connection: resolve, connect, through a proxy if there is one, TLS.
//!
//! TLS 1.2 and 1.3 only, no early data, and verification that no setting can switch off: roots come from
//! the system or from `ca_file`. Pins and the reach of a name may only refuse.

mod fault;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

pub(crate) use self::fault::DialFault;
use self::fault::tls_fault;
use super::{
    read_ahead::ReadAhead,
    resolve::Addresses,
    tunnel::{Password, Tunnel},
    verify::Verifier,
};
use crate::{
    config::{Egress, Environment, IpFamily, ListenerTls, Reach},
    record::UsedCredential,
    refusal::Failure,
    tls::{self, TlsFault},
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
        let verifier = match settings.egress.pins.is_empty() {
            true => None,
            false => Some(Arc::new(verifier(settings, &made_from)?)),
        };
        let tls = client_config(settings, &made_from, verifier)?;
        Self::with(settings, tls, made_from)
    }

    /// The same for one look at it, and its verifier, which knows the certificates that are shown.
    pub(crate) fn watched(
        settings: &Environment,
        proxy_password: Option<Password>,
    ) -> Result<(Arc<Self>, Arc<Verifier>), TlsFault> {
        let made_from = MadeFrom::read(settings, proxy_password)?;
        let verifier = Arc::new(verifier(settings, &made_from)?.watching());
        let tls = client_config(settings, &made_from, Some(verifier.clone()))?;
        Ok((Self::with(settings, tls, made_from)?, verifier))
    }

    /// One that reads no file and trusts nobody, so that nothing can be sent to it.
    pub(crate) fn nowhere(settings: &Environment) -> Result<Arc<Self>, TlsFault> {
        let tls = tls::client()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
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
        let both =
            |files: &ListenerTls| Ok::<_, TlsFault>((tls::read(&files.certificate)?, tls::read(&files.key)?));
        Ok(Self {
            proxy_password,
            ca: settings.ca_file.as_deref().map(tls::read).transpose()?,
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
    tls::roots(settings.ca_file.as_deref().zip(from.ca.as_deref()))
}

fn verifier(settings: &Environment, from: &MadeFrom) -> Result<Verifier, TlsFault> {
    Ok(Verifier::new(trusted(settings, from)?, &settings.egress.pins)?)
}

/// Without a verifier of ours, which may only refuse more, the usual verification is all.
fn client_config(
    settings: &Environment,
    from: &MadeFrom,
    verifier: Option<Arc<Verifier>>,
) -> Result<ClientConfig, TlsFault> {
    let builder = match verifier {
        None => tls::client()?.with_root_certificates(trusted(settings, from)?),
        Some(verifier) => tls::client()?.dangerous().with_custom_certificate_verifier(verifier),
    };
    let mut config = match (&settings.client_certificate, &from.client) {
        (Some(files), Some((chain, key))) => {
            let chain = tls::certificates(&files.certificate, chain)?;
            let key = tls::private_key(&files.key, key)?;
            builder.with_client_auth_cert(chain, key).map_err(TlsFault::rejected(&files.certificate))?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests;
