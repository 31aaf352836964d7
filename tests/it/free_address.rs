//! Loopback addresses for what a test starts, or wants to find closed.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// Addresses that are free now and stay so until this test uses them, and uses them again: on 127.0.0.1 other tests,
/// or a connection of theirs, might get such a port meanwhile.
pub fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let own = Ipv4Addr::new(127, 64 | (high & 63), middle, low);
    let bound = [(); N].map(|()| TcpListener::bind((own, 0)).expect("a port"));
    bound.map(|listener| listener.local_addr().expect("an address"))
}

/// One of them.
pub fn free_address() -> SocketAddr {
    let [address] = free_addresses();
    address
}
