//! The connection that a request came on.

use std::net::SocketAddr;

/// Who is at the other end of the socket, as the kernel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// A TCP peer, in canonical form (never an IPv4-mapped address); behind a trusted proxy that speaks
    /// the PROXY protocol, the address that it named.
    Tcp(SocketAddr),
    /// A Unix socket's peer.
    Unix {
        /// Its user, when the connection was made (`SO_PEERCRED`).
        uid: u32,
        /// Its effective group, then.
        gid: u32,
    },
}
