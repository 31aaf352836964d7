//! Where callers connect: accept, count, hand to a worker; then PROXY header, TLS, and the connection.

pub(crate) mod accept;
pub(crate) mod connection;
pub(crate) mod forwarded;
pub(crate) mod names;
pub(crate) mod peer;
pub mod proxy_protocol;
pub(crate) mod stream;
pub(crate) mod tls;
pub(crate) mod watch;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};

use tokio::{
    io::AsyncReadExt,
    net::{TcpStream, UnixStream},
    time::timeout,
};

use self::{accept::Permit, connection::Connection, names::Names, peer::Peer, stream::Stream};
use crate::{
    admission::{Origin, reason::Reason},
    gate::inbound::Session,
    worker::state::Worker,
};

/// The fixed part of one listener.
#[derive(Debug)]
pub(crate) struct ListenerState {
    /// Its place in the configuration.
    pub(crate) index: usize,
    /// Its address as configured, for records.
    pub(crate) name: String,
    pub(crate) proxy_protocol: bool,
    pub(crate) tls: bool,
}

/// A socket on its way from the acceptor to a worker.
pub(crate) struct Arrival {
    pub(crate) socket: Socket,
    pub(crate) listener: Arc<ListenerState>,
    /// Given back when the connection is over.
    pub(crate) permit: Permit,
}

/// An accepted socket, not bound to an event loop yet.
pub(crate) enum Socket {
    Tcp(std::net::TcpStream, SocketAddr),
    Unix(std::os::unix::net::UnixStream),
}

/// Why a connection ended before its first request.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("{0}")]
    Socket(io::Error),
    #[error(transparent)]
    ProxyHeader(#[from] proxy_protocol::Malformed),
    #[error("it does not come from a trusted proxy, and this listener takes connections from those only")]
    Untrusted,
    /// Not shown, not verified, or without usable names.
    #[error("the client's certificate: {0}")]
    Certificate(Box<str>),
    #[error("nothing is configured for this listener yet")]
    NotReady,
    #[error("its first bytes, or its TLS handshake, took too long")]
    TooSlow,
}

/// Serves one accepted socket to its end.
pub(crate) async fn serve(worker: Rc<Worker>, arrival: Arrival) {
    let Arrival { socket, listener, permit } = arrival;
    let limits = worker.limits();
    // In a box: what it needs is not kept for as long as the connection is open.
    let opened = Box::pin(timeout(limits.header_read_timeout, open(&worker, &listener, socket))).await;
    match opened.unwrap_or(Err(Unusable::TooSlow)) {
        Ok((stream, peer)) => {
            let executable = executable(&stream);
            let session = Session::new(limits);
            let connection = Rc::new(Connection::new(worker, listener, peer, session, executable));
            connection::serve(connection, stream).await;
        }
        Err(reason) => tracing::debug!(listener = listener.name, %reason, "connection dropped"),
    }
    drop(permit);
}

/// Finds out who is there and finishes TLS.
async fn open(worker: &Worker, listener: &ListenerState, socket: Socket) -> Result<(Stream, Peer), Unusable> {
    match socket {
        Socket::Unix(socket) => {
            let stream = UnixStream::from_std(socket)?;
            let peer = stream.peer_cred()?;
            Ok((Stream::Unix(stream), Peer::Unix { uid: peer.uid(), gid: peer.gid() }))
        }
        Socket::Tcp(socket, address) => {
            let mut stream = TcpStream::from_std(socket)?;
            stream.set_nodelay(true)?;
            let mut peer = canonical(address);
            if listener.proxy_protocol {
                peer = proxied(worker, &mut stream, peer).await?;
            }
            if listener.tls {
                handshake(worker, listener, stream, peer).await
            } else {
                Ok((Stream::Tcp(stream), Peer::Tcp(peer)))
            }
        }
    }
}

/// What a Unix socket's peer runs. The kernel tells root, and those of the same user.
fn executable(stream: &Stream) -> Option<Box<Path>> {
    let Stream::Unix(stream) = stream else { return None };
    let pid = stream.peer_cred().ok()?.pid()?;
    std::fs::read_link(format!("/proc/{pid}/exe")).ok().map(PathBuf::into_boxed_path)
}

/// TLS, and whose certificate the client has shown, if it was asked for one.
async fn handshake(
    worker: &Worker,
    listener: &ListenerState,
    stream: TcpStream,
    peer: SocketAddr,
) -> Result<(Stream, Peer), Unusable> {
    let view = worker.view().ok_or(Unusable::NotReady)?;
    let tls =
        view.listener(listener.index).and_then(|settings| settings.tls.as_ref()).ok_or(Unusable::NotReady)?;
    let done = tls.0.accept(stream).await.map_err(Unusable::from).and_then(|stream| {
        // rustls has verified it: without client_ca it asks for none.
        let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let names = leaf.map(|leaf| Names::of(leaf)).transpose();
        Ok((names.map_err(|unusable| Unusable::Certificate(unusable.to_string().into()))?, stream))
    });
    match done {
        Ok((None, stream)) => Ok((Stream::Tls(Box::new(stream)), Peer::Tcp(peer))),
        Ok((Some(names), stream)) => {
            Ok((Stream::Tls(Box::new(stream)), Peer::Certified(peer, Rc::new(names))))
        }
        Err(reason) => {
            // There is no request yet that could be answered: TLS itself says no.
            if matches!(reason, Unusable::Certificate(_)) {
                worker.not_admitted(Reason::Certificate, Origin::Address(peer.ip()), None);
            }
            Err(reason)
        }
    }
}

impl From<io::Error> for Unusable {
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(fault @ (rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)) => {
                Self::Certificate(fault.to_string().into())
            }
            _ => Self::Socket(error),
        }
    }
}

/// An IPv4-mapped address is the IPv4 address.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The address that a trusted proxy names in its PROXY protocol header.
async fn proxied(worker: &Worker, stream: &mut TcpStream, proxy: SocketAddr) -> Result<SocketAddr, Unusable> {
    let view = worker.view().ok_or(Unusable::NotReady)?;
    if !view.snapshot.admission.trusted_proxies.contains(proxy.ip()) {
        return Err(Unusable::Untrusted);
    }
    let mut bytes = Vec::new();
    loop {
        match proxy_protocol::read(&bytes) {
            Ok(Some(header)) => return Ok(header.source.unwrap_or(proxy)),
            // Byte by byte: what comes after the header belongs to TLS or HTTP.
            Ok(None) => bytes.push(stream.read_u8().await?),
            Err(malformed) => return Err(malformed.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A caller's connection that has nothing to do keeps its task, which is as large as the largest of its states.
    const PARKED_BYTES_MAX: usize = 1024;

    fn size_of_future<F>(_: fn(Rc<Worker>, Arrival) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_parked_connection_is_small() {
        let bytes = size_of_future(serve);
        assert!(bytes <= PARKED_BYTES_MAX, "{bytes}");
    }
}
