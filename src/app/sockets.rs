//! Binding listeners.

use std::{io, os::fd::OwnedFd};

use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    config::ListenAddress,
    control::socket::{self, SocketFile},
    listener::accept::Bound,
};

/// Connections that the kernel completes before they are accepted.
const BACKLOG: i32 = 1024;

/// Whoever is in the group of the socket file may call.
const UNIX_MODE: u32 = 0o660;

/// Binds and listens; a Unix socket's file goes away with the second value. Must run inside an event loop's context.
pub(super) fn bind(address: &ListenAddress) -> io::Result<(Bound, Option<SocketFile>)> {
    match address {
        ListenAddress::Tcp(address) => {
            let socket = Socket::new(Domain::for_address(*address), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            if address.is_ipv6() {
                // `[::]` takes IPv4 callers too; any other IPv6 address does not.
                socket.set_only_v6(!address.ip().is_unspecified())?;
            }
            socket.bind(&(*address).into())?;
            socket.listen(BACKLOG)?;
            socket.set_nonblocking(true)?;
            let listener = std::net::TcpListener::from(OwnedFd::from(socket));
            Ok((Bound::Tcp(tokio::net::TcpListener::from_std(listener)?), None))
        }
        ListenAddress::Unix(path) => {
            let (listener, file) = socket::bind_unix(path, UNIX_MODE).map_err(io::Error::other)?;
            Ok((Bound::Unix(tokio::net::UnixListener::from_std(listener)?), Some(file)))
        }
    }
}
