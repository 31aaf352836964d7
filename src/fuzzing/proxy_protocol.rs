//! A PROXY protocol header: what is accepted is one for a second, plain reading as well.
//!
//! The input is a connection's first bytes. Claimed: a beginning of them is incomplete or has the whole's
//! verdict; what follows the header does not matter; and the source is the one that stands there.

use std::net::{IpAddr, SocketAddr};

use crate::listener::proxy_protocol::read;

pub(super) fn check(bytes: &[u8]) {
    let whole = read(bytes);
    for cut in cuts(bytes.len()) {
        let early = read(&bytes[..cut]);
        assert!(early == Ok(None) || early == whole, "{cut} of {}", bytes.escape_ascii());
    }
    match whole {
        Ok(None) => assert!(bytes.len() < 2_048, "it must be known by then: {}", bytes.escape_ascii()),
        Ok(Some(header)) => {
            assert!(header.len <= bytes.len());
            assert_eq!(read(&bytes[..header.len]), whole, "what follows does not matter");
            assert_eq!(read(&bytes[..header.len - 1]), Ok(None), "it is as long as it says");
            let expected = source(&bytes[..header.len]);
            assert_eq!(expected, Ok(header.source), "{}", bytes.escape_ascii());
        }
        Err(_) => {}
    }
}

/// Every length of a short input, some of a long one.
fn cuts(len: usize) -> impl Iterator<Item = usize> {
    (0..len).step_by(1 + len / 128)
}

/// Who a header names, read by its documents' tables.
pub(super) fn source(header: &[u8]) -> Result<Option<SocketAddr>, String> {
    match header.strip_prefix(b"\r\n\r\n\0\r\nQUIT\n") {
        Some(rest) => source_v2(rest),
        None => source_v1(header),
    }
}

fn source_v1(header: &[u8]) -> Result<Option<SocketAddr>, String> {
    let line = std::str::from_utf8(header).ok().and_then(|text| text.strip_suffix("\r\n"));
    let words: Vec<&str> = line.ok_or("no line")?.split(' ').collect();
    match words[..] {
        ["PROXY", "UNKNOWN", ..] => Ok(None),
        ["PROXY", family @ ("TCP4" | "TCP6"), source, destination, from, to] => {
            let address =
                |text: &str| text.parse::<IpAddr>().ok().filter(|it| it.is_ipv4() == (family == "TCP4"));
            let port =
                |text: &str| text.parse::<u16>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
            let (ends, ports) = ((address(source), address(destination)), (port(from), port(to)));
            match (ends, ports) {
                ((Some(source), Some(_)), (Some(port), Some(_))) => {
                    Ok(Some(SocketAddr::new(source.to_canonical(), port)))
                }
                _ => Err(format!("addresses: {line:?}")),
            }
        }
        _ => Err(format!("{line:?}")),
    }
}

fn source_v2(rest: &[u8]) -> Result<Option<SocketAddr>, String> {
    let [command, family, high, low, content @ ..] = rest else { return Err("too short".into()) };
    if usize::from(u16::from_be_bytes([*high, *low])) != content.len() {
        return Err("another length".into());
    }
    let port = |at: usize| Some(u16::from_be_bytes([*content.get(at)?, *content.get(at + 1)?]));
    let (address, port): (Option<IpAddr>, _) = match (command, family) {
        (0x20, _) => return Ok(None),
        (0x21, 0x11) => (content.first_chunk::<4>().map(|octets| IpAddr::from(*octets)), port(8)),
        (0x21, 0x21) => (content.first_chunk::<16>().map(|octets| IpAddr::from(*octets)), port(32)),
        (0x21, 0x00 | 0x31) => return Ok(None),
        other => return Err(format!("command and family {other:x?}")),
    };
    match (address, port) {
        (Some(address), Some(port)) => Ok(Some(SocketAddr::new(address.to_canonical(), port))),
        _ => Err("addresses are missing".into()),
    }
}
