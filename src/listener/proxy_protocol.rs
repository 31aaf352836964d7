//! The PROXY protocol header that a load balancer puts in front of a connection's first byte.
//!
//! In: a connection's first bytes. Out: how many of them are the header, and the address it names. The
//! caller of this module has checked that the peer is a trusted proxy: anybody can write such a header.
//! The `proxy-header` crate parses; what it leaves open is settled here (it takes any byte for the space
//! after `PROXY`, `+80` for a port, and datagrams). Extensions (TLVs) are skipped, their checksum included.

use std::net::SocketAddr;

use proxy_header::{Error, ParseConfig, Protocol, ProxyHeader};

/// The protocol's own bound on a version 1 line.
const V1_BYTES_MAX: usize = 107;
/// Bytes of a version 2 header. Addresses take 52; the rest leaves room for a client certificate's names.
const V2_BYTES_MAX: usize = 2_048;
const V1_START: &[u8] = b"PROXY ";
const V2_START: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, version and command, family, and two bytes of length.
const V2_FIXED: usize = V2_START.len() + 4;
/// A command and family that name no source to the crate, and so would count as the proxy's own word.
const V2_UNIX_DATAGRAMS: [u8; 2] = [0x21, 0x32];

/// A complete header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Its bytes; the connection's own bytes start there.
    pub len: usize,
    /// Who connected to the proxy, an IPv4-mapped address as IPv4. `None` when the proxy speaks for itself
    /// (a health check: `LOCAL`) or does not say (`UNKNOWN`, a Unix socket): the peer's address counts then.
    pub source: Option<SocketAddr>,
}

/// The connection does not start with an acceptable header; close it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection does not start with a PROXY protocol header")]
pub struct Malformed;

/// Reads the header at the start of `bytes`; `None` while it is incomplete. At most 2,048 bytes are
/// needed to know.
///
/// # Errors
/// As soon as no further byte could make a header of it.
pub fn read(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let may_be = |start: &[u8]| bytes.iter().zip(start).all(|(byte, expected)| byte == expected);
    if may_be(V1_START) {
        return read_v1(bytes);
    }
    if may_be(V2_START) {
        return read_v2(bytes);
    }
    Err(Malformed)
}

fn read_v1(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let window = bytes.get(..V1_BYTES_MAX).unwrap_or(bytes);
    let Some(end) = memchr::memchr(b'\n', window) else {
        return if window.len() == V1_BYTES_MAX { Err(Malformed) } else { Ok(None) };
    };
    let line = window.get(..=end).unwrap_or_default();
    let text = line.strip_suffix(b"\r\n").ok_or(Malformed)?;
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && *byte != b'+' || *byte == b' ';
    let is_unknown = text.starts_with(b"PROXY UNKNOWN");
    if !text.iter().all(is_plain) || is_unknown && !matches!(text.get(13), None | Some(b' ')) {
        return Err(Malformed);
    }
    parse(line)?.ok_or(Malformed).map(Some)
}

fn read_v2(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let Some(&[command, family, high, low]) = bytes.get(V2_FIXED - 4..V2_FIXED) else {
        return Ok(None);
    };
    if [command, family] == V2_UNIX_DATAGRAMS {
        return Err(Malformed);
    }
    let len = V2_FIXED + usize::from(u16::from_be_bytes([high, low]));
    if len > V2_BYTES_MAX {
        return Err(Malformed);
    }
    let header = parse(bytes.get(..len).unwrap_or(bytes))?;
    // With all the bytes that it announced, a header that needs more is a wrong one.
    if header.is_none() && bytes.len() >= len { Err(Malformed) } else { Ok(header) }
}

fn parse(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    let (header, len) = match ProxyHeader::parse(bytes, config) {
        Ok(parsed) => parsed,
        Err(Error::BufferTooShort) => return Ok(None),
        Err(_) => return Err(Malformed),
    };
    let source = match header.proxied_address() {
        Some(address) if address.protocol == Protocol::Stream => {
            Some(SocketAddr::new(address.source.ip().to_canonical(), address.source.port()))
        }
        Some(_) => return Err(Malformed),
        None => None,
    };
    Ok(Some(Header { len, source }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 5000 443\r\n";
    const V6: &[u8] = b"PROXY TCP6 2001:db8::7 2001:db8::1 5000 443\r\n";

    fn v2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let len = u16::try_from(addresses.len()).unwrap().to_be_bytes();
        [V2_START, &[command, family], &len, addresses].concat()
    }

    fn v2_v4() -> Vec<u8> {
        v2(0x21, 0x11, &[192, 0, 2, 7, 198, 51, 100, 1, 0x13, 0x88, 0x01, 0xbb])
    }

    fn v2_mapped() -> Vec<u8> {
        let mapped = "::ffff:192.0.2.7".parse::<std::net::Ipv6Addr>().unwrap().octets();
        v2(0x21, 0x21, &[&mapped[..], &[0; 16], &[0x13, 0x88, 0x01, 0xbb], b"\x04\0\x01."].concat())
    }

    fn named(len: usize, source: &str) -> Result<Option<Header>, Malformed> {
        Ok(Some(Header { len, source: Some(source.parse().unwrap()) }))
    }

    #[test]
    fn the_source_is_read_from_both_versions() {
        assert_eq!(read(V4), named(V4.len(), "192.0.2.7:5000"));
        assert_eq!(read(V6), named(V6.len(), "[2001:db8::7]:5000"));
        assert_eq!(read(&v2_v4()), named(28, "192.0.2.7:5000"));
        assert_eq!(read(&v2_mapped()), named(56, "192.0.2.7:5000"), "mapped is canonical, TLVs are skipped");
        let mapped = b"PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n";
        assert_eq!(read(mapped), named(mapped.len(), "192.0.2.7:1"));
    }

    #[test]
    fn a_proxy_that_speaks_for_itself_names_nobody() {
        for header in [
            &b"PROXY UNKNOWN\r\n"[..],
            b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n",
            &v2(0x20, 0x00, b""),
            &v2(0x20, 0x11, &[0; 12]),
            &v2(0x21, 0x00, b""),
            &v2(0x21, 0x31, &[0; 216]),
        ] {
            assert_eq!(read(header), Ok(Some(Header { len: header.len(), source: None })), "{header:?}");
        }
    }

    #[test]
    fn any_split_and_anything_behind_reads_the_same() {
        for header in [V4.to_vec(), V6.to_vec(), v2_v4(), v2_mapped(), v2(0x20, 0, b"")] {
            for len in 0..header.len() {
                assert_eq!(read(&header[..len]), Ok(None), "{len} of {header:?}");
            }
            let followed = [&header[..], b"PROXY GET / HTTP/1.1\r\n\r\n"].concat();
            assert_eq!(read(&followed), read(&header));
            assert_eq!(read(&header).unwrap().unwrap().len, header.len());
        }
    }

    #[test]
    fn what_is_not_a_header_is_refused() {
        let too_long = [b"PROXY UNKNOWN ", &[b'1'; 92][..], b"\r\n"].concat();
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"\x16\x03\x01",
            b"PROXX",
            b"PROXYXTCP4 192.0.2.7 198.51.100.1 5000 443\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 5000 443\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 +5000 443\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 5000 443 \r\n",
            b"PROXY TCP4  192.0.2.7 198.51.100.1 5000 443\r\n",
            b"PROXY TCP4 192.0.2.07 198.51.100.1 5000 443\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 5000\r\n",
            b"PROXY TCP4 2001:db8::7 2001:db8::1 5000 443\r\n",
            b"PROXY TCP6 192.0.2.7 198.51.100.1 5000 443\r\n",
            b"PROXY UDP4 192.0.2.7 198.51.100.1 5000 443\r\n",
            b"PROXY UNKNOWNX\r\n",
            b"PROXY UNKNOWN \x001\r\n",
            b"PROXY \r\n",
            b"proxy UNKNOWN\r\n",
            &too_long,
            &[b'P'; 200],
            &v2(0x22, 0x11, &[0; 12]),
            &v2(0x11, 0x11, &[0; 12]),
            &v2(0x21, 0x11, &[0; 11]),
            &v2(0x21, 0x11, b""),
            &v2(0x21, 0x12, &[0; 12]),
            &v2(0x21, 0x21, &[0; 35]),
            &v2(0x21, 0x41, &[0; 12]),
            &v2(0x21, 0x31, &[0; 215]),
            &v2(0x21, 0x32, &[0; 216]),
            &v2(0x21, 0x11, &[0; 2_033]),
        ] {
            assert_eq!(read(bytes), Err(Malformed), "{}", bytes.escape_ascii());
        }
        let longest = [b"PROXY UNKNOWN ", &[b'1'; 91][..], b"\r\n"].concat();
        assert_eq!(read(&longest).unwrap().unwrap().len, 107);
        assert_eq!(read(&v2(0x21, 0x11, &[0; 2_032])).unwrap().unwrap().len, 2_048);
    }

    #[test]
    fn an_announced_length_over_the_bound_is_refused_before_it_comes() {
        let mut header = v2(0x21, 0x11, b"");
        header[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
        assert_eq!(read(&header), Err(Malformed));
    }
}
