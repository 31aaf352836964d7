//! The connection that a request came on.

use std::{net::SocketAddr, rc::Rc};

use super::names::Names;

/// Who is at the other end of the socket, as the kernel and TLS say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Peer {
    /// A TCP peer, in canonical form (never an IPv4-mapped address); behind a trusted proxy that speaks
    /// the PROXY protocol, the address that it named.
    Tcp(SocketAddr),
    /// The same, with the names in the client certificate that it has shown, which was verified.
    Certified(SocketAddr, Rc<Names>),
    /// A Unix socket's peer.
    Unix {
        /// Its user, when the connection was made (`SO_PEERCRED`).
        uid: u32,
        /// Its effective group, then.
        gid: u32,
    },
}

impl Peer {
    /// The socket's own address, or the one that its proxy named.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) | Self::Certified(address, _) => Some(*address),
            Self::Unix { .. } => None,
        }
    }
}
