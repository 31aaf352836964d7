//! The way to an environment's host: look-up, TCP, a proxy, TLS. The same code goes it as for requests.

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use rustls::{CertificateError, pki_types::CertificateDer};
use tokio::{net::TcpStream, time::timeout};

use super::{Part, certificates, finding::Finding};
use crate::{
    config::Environment,
    upstream::{
        dial::{DialFault, DialTarget, UpstreamStream},
        tunnel::{Password, TunnelFault},
        verify::Verifier,
    },
};

/// A look-up has no time-out of its own that everybody agrees on.
const LOOK_UP: Duration = Duration::from_secs(10);

/// A certificate that is left less than this is spoken of.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);

/// A verified connection to the host.
pub(super) struct Connected {
    pub(super) target: Arc<DialTarget>,
    pub(super) stream: UpstreamStream,
    /// The address of ours that it leaves from.
    pub(super) from: Option<SocketAddr>,
}

/// Goes the way as far as it leads.
pub(super) async fn connect(
    environment: &Environment,
    proxy_password: Option<Password>,
    part: &mut Part<'_>,
) -> Option<Connected> {
    let watched = DialTarget::watched(environment, proxy_password);
    let (target, verifier) = watched.map_err(|fault| part.add("tls", Finding::TlsFiles, fault)).ok()?;
    let addresses = look_up(environment, &target, part).await?;
    let mut stream = tcp(environment, &target, &addresses, part).await?;
    let from = stream.local_addr().ok();
    if let Some(proxy) = &environment.egress.proxy {
        if let Err(fault) = target.tunnel(&mut stream, environment.timeouts.connect).await {
            part.add("proxy", of_dial(&fault, &verifier).0, fault);
            return None;
        }
        part.add("proxy", Finding::Fine, format_args!("{proxy} connects to {}:{}", target.host, target.port));
    }
    let stream = tls(environment, &target, stream, &verifier, part).await?;
    Some(Connected { target, stream, from })
}

async fn look_up(
    environment: &Environment,
    target: &DialTarget,
    part: &mut Part<'_>,
) -> Option<Vec<SocketAddr>> {
    let name = match &environment.egress.proxy {
        Some(proxy) => format!("the proxy {}", proxy.host),
        None => environment.host.clone(),
    };
    let found = timeout(LOOK_UP, target.addresses.look_up()).await;
    let found =
        found.unwrap_or_else(|_| Err(io::Error::new(ErrorKind::TimedOut, "the resolver did not answer")));
    match found {
        Ok(found) if found.is_empty() => {
            part.add(
                "dns",
                Finding::NoAddressOfFamily,
                format_args!("{name} has no address of the family that is dialled"),
            );
            None
        }
        Ok(found) => {
            let mut addresses: Vec<String> = found.iter().map(|address| address.ip().to_string()).collect();
            addresses.dedup();
            part.add("dns", Finding::Fine, format_args!("{name} is at {}", addresses.join(", ")));
            Some(found)
        }
        Err(error) => {
            part.add("dns", Finding::NameNotResolved, format_args!("{name} could not be looked up: {error}"));
            None
        }
    }
}

/// The first address that answers; those before it are warned of, since the gateway tries them too.
async fn tcp(
    environment: &Environment,
    target: &DialTarget,
    addresses: &[SocketAddr],
    part: &mut Part<'_>,
) -> Option<TcpStream> {
    let mut faults = Vec::new();
    for &address in addresses {
        let began = Instant::now();
        match target.connect(address, environment.timeouts.connect).await {
            Ok(stream) => {
                let from = stream.local_addr().map(|own| format!(" from {}", own.ip())).unwrap_or_default();
                let took = began.elapsed().as_millis();
                let others =
                    if faults.is_empty() { String::new() } else { format!("; not: {}", faults.join(", ")) };
                part.add("tcp", Finding::Fine, format_args!("{address} answers{from}, in {took} ms{others}"));
                return Some(stream);
            }
            Err(fault) if address == *addresses.last()? => {
                let finding = of_connect(&fault);
                part.add("tcp", finding, format_args!("{address}: {fault}"));
            }
            Err(fault) => faults.push(format!("{address} ({fault})")),
        }
    }
    None
}

fn of_connect(fault: &DialFault) -> Finding {
    match fault {
        DialFault::Private(_) => Finding::AddressRefused,
        DialFault::Bind(..) => Finding::SourceAddress,
        DialFault::ConnectTimeout => Finding::ConnectTimeout,
        DialFault::Connect(error) => match error.kind() {
            ErrorKind::ConnectionRefused => Finding::ConnectRefused,
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => Finding::ConnectReset,
            ErrorKind::TimedOut => Finding::ConnectTimeout,
            _ => Finding::ConnectFailed,
        },
        _ => Finding::ConnectFailed,
    }
}

async fn tls(
    environment: &Environment,
    target: &DialTarget,
    stream: TcpStream,
    verifier: &Verifier,
    part: &mut Part<'_>,
) -> Option<UpstreamStream> {
    let stream = match target.handshake(stream, environment.timeouts.tls).await {
        Ok(stream) => stream,
        Err(fault) => {
            let (finding, said) = of_dial(&fault, verifier);
            part.add("tls", finding, said.unwrap_or_else(|| fault.to_string()));
            return None;
        }
    };
    let version = match stream.get_ref().1.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLS 1.3",
        _ => "TLS 1.2",
    };
    let chain = verifier.shown();
    part.add("tls", Finding::Fine, format_args!("{version} with {}", certificates::path(&chain)));
    if let Some(leaf) = certificates::leaf(&chain) {
        let left = leaf.not_after.duration_since(SystemTime::now()).unwrap_or_default();
        let (until, days) = (humantime::format_rfc3339_seconds(leaf.not_after), left.as_secs() / 86_400);
        let finding = if left < SOON { Finding::ExpiresSoon } else { Finding::Fine };
        part.add("tls", finding, format_args!("its certificate is valid until {until}, {days} days more"));
    }
    Some(stream)
}

/// What a failed tunnel or handshake means, and what the certificates that were shown say about it.
fn of_dial(fault: &DialFault, verifier: &Verifier) -> (Finding, Option<String>) {
    match fault {
        DialFault::Tunnel(fault) => (of_tunnel(fault), None),
        DialFault::NotPinned(_) => (Finding::NotPinned, None),
        DialFault::Tls(error) => of_tls(error, &verifier.shown()),
        DialFault::TlsTimeout => (Finding::TlsCut, None),
        _ => (Finding::TlsFailed, None),
    }
}

fn of_tunnel(fault: &TunnelFault) -> Finding {
    match fault {
        TunnelFault::Login => Finding::ProxyLogin,
        TunnelFault::Forbidden => Finding::ProxyForbidden,
        TunnelFault::Unreached(_) => Finding::ProxyUnreached,
        _ => Finding::ProxyFailed,
    }
}

fn of_tls(error: &io::Error, chain: &[CertificateDer<'_>]) -> (Finding, Option<String>) {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(inner) = inner else {
        return (Finding::TlsCut, Some(format!("the connection was cut inside the TLS handshake: {error}")));
    };
    let rustls::Error::InvalidCertificate(reason) = inner else { return (Finding::TlsFailed, None) };
    let leaf = certificates::leaf(chain);
    let date = |time: SystemTime| humantime::format_rfc3339_seconds(time).to_string();
    let now = date(SystemTime::now());
    let said = |words: String| Some(words);
    match (reason, leaf) {
        (CertificateError::UnknownIssuer, Some(leaf)) => (
            Finding::TlsInspection,
            said(format!("the certificate that is shown was issued by {}, who is not trusted", leaf.issuer)),
        ),
        (CertificateError::BadSignature, Some(leaf)) => (
            Finding::TlsInspection,
            said(format!("the certificate that is shown says that {} issued it, who did not", leaf.issuer)),
        ),
        (CertificateError::UnknownIssuer, None) => (Finding::TlsInspection, None),
        (CertificateError::Expired | CertificateError::ExpiredContext { .. }, Some(leaf)) => (
            Finding::CertificateExpired,
            said(format!(
                "its certificate, issued by {}, was valid until {}; here it is {now}",
                leaf.issuer,
                date(leaf.not_after)
            )),
        ),
        (CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }, Some(leaf)) => (
            Finding::CertificateNotYetValid,
            said(format!(
                "its certificate, issued by {}, is valid from {}; here it is {now}",
                leaf.issuer,
                date(leaf.not_before)
            )),
        ),
        (CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }, _) => {
            (Finding::WrongName, said(reason.to_string()))
        }
        _ => (Finding::CertificateRefused, None),
    }
}
