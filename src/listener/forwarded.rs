//! The caller's address behind trusted proxies.
//!
//! In: the socket's address and the request's headers. Out: the address that counts for every decision.
//! A header is believed only from a trusted proxy, and only as far as trusted proxies wrote it: read from
//! the right, the first address that is not a trusted proxy is the caller's. What stands left of it
//! anybody may have written, and it is not looked at. What must be read and cannot be is a refusal: a
//! guess would be somebody's grant. (RFC 7239's crates
//! trim unpaired quotes and let the last of several `for` win; hence the few lines of our own.)

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, header::FORWARDED};

use crate::config::ForwardedHeader;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// A trusted proxy's header could not be read as far as it must be. It never repeats the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the trusted proxy's forwarded address cannot be read")]
pub(crate) struct Malformed;

/// The caller's address, an IPv4-mapped one as IPv4.
///
/// `socket` is the connection's peer (or the source in its PROXY header), `trusted` the networks of
/// proxies that are believed, `which` the header they write. Without that header a proxy speaks for
/// itself. When every address in it is a trusted proxy's, the leftmost is the caller's.
///
/// # Errors
/// When an address that must be read is not an IP address (`unknown`, an obfuscated name), or the header
/// is not well formed.
pub(crate) fn caller(
    socket: IpAddr,
    headers: &HeaderMap,
    is_trusted: impl Fn(IpAddr) -> bool,
    which: ForwardedHeader,
) -> Result<IpAddr, Malformed> {
    type Read = fn(&str) -> Result<IpAddr, Malformed>;
    let (name, read): (_, Read) = match which {
        ForwardedHeader::None => return Ok(socket.to_canonical()),
        ForwardedHeader::XForwardedFor => (&X_FORWARDED_FOR, address),
        ForwardedHeader::Forwarded => (&FORWARDED, |element| address(forwarded_for(element)?)),
    };
    let mut caller = socket.to_canonical();
    let lines = headers.get_all(name).iter().rev();
    for element in lines.flat_map(|line| line.as_bytes().rsplit(|&byte| byte == b',')) {
        if !is_trusted(caller) {
            break;
        }
        caller = read(std::str::from_utf8(element).map_err(|_| Malformed)?.trim_ascii())?;
    }
    Ok(caller)
}

/// `192.0.2.7`, `192.0.2.7:80`, `2001:db8::7`, `[2001:db8::7]` or `[2001:db8::7]:80`, canonical.
fn address(text: &str) -> Result<IpAddr, Malformed> {
    if text.contains('%') {
        return Err(Malformed); // a zone means nothing on another machine
    }
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let plain = || text.parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    plain().or_else(with_port).or_else(bracketed).map(|address| address.to_canonical()).ok_or(Malformed)
}

/// The `for` of one element such as `for="[2001:db8::7]:80";proto=https`.
///
/// The list was split at every comma, also inside a quoted string: that leaves a quote without its
/// partner, and so a refusal, whatever a caller hid in a value that the proxy copied.
fn forwarded_for(element: &str) -> Result<&str, Malformed> {
    let mut found = None;
    for pair in element.split(';') {
        let (name, value) = pair.trim_ascii().split_once('=').ok_or(Malformed)?;
        let value = match value.strip_prefix('"') {
            Some(quoted) => quoted.strip_suffix('"').ok_or(Malformed)?,
            None => value,
        };
        let is_name =
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !is_name || value.is_empty() || value.contains(['"', '\\', ' ', '\t']) {
            return Err(Malformed);
        }
        if name.eq_ignore_ascii_case("for") && found.replace(value).is_some() {
            return Err(Malformed);
        }
    }
    found.ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use ipnet::IpNet;

    use super::*;

    const PROXY: &str = "10.0.0.9";

    fn read(socket: &str, which: ForwardedHeader, lines: &[&str]) -> Result<String, Malformed> {
        let trusted: [IpNet; 2] = ["10.0.0.0/24".parse().unwrap(), "2001:db8:ff::/48".parse().unwrap()];
        let is_trusted = |address| trusted.iter().any(|network| network.contains(&address));
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(X_FORWARDED_FOR, line.parse().unwrap());
            headers.append(FORWARDED, line.parse().unwrap());
        }
        caller(socket.parse().unwrap(), &headers, is_trusted, which).map(|address| address.to_string())
    }

    fn x_forwarded_for(lines: &[&str]) -> Result<String, Malformed> {
        read(PROXY, ForwardedHeader::XForwardedFor, lines)
    }

    fn forwarded(lines: &[&str]) -> Result<String, Malformed> {
        read(PROXY, ForwardedHeader::Forwarded, lines)
    }

    fn is(address: &str) -> Result<String, Malformed> {
        Ok(address.to_owned())
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        use ForwardedHeader::{Forwarded, None, XForwardedFor};
        assert_eq!(read("192.0.2.1", XForwardedFor, &["10.0.0.1"]), is("192.0.2.1"));
        assert_eq!(read("192.0.2.1", XForwardedFor, &["rubbish"]), is("192.0.2.1"), "not even looked at");
        assert_eq!(read("192.0.2.1", Forwarded, &["for=10.0.0.1"]), is("192.0.2.1"));
        assert_eq!(read(PROXY, XForwardedFor, &["198.51.100.1"]), is("198.51.100.1"));
        assert_eq!(read(PROXY, None, &["198.51.100.1"]), is(PROXY));
        assert_eq!(read("::ffff:10.0.0.9", XForwardedFor, &["198.51.100.1"]), is("198.51.100.1"));
        assert_eq!(read("::ffff:192.0.2.1", XForwardedFor, &["198.51.100.1"]), is("192.0.2.1"));
        assert_eq!(read("2001:db8:ff::1", XForwardedFor, &["198.51.100.1"]), is("198.51.100.1"));
    }

    #[test]
    fn the_rightmost_address_that_is_no_trusted_proxy_counts() {
        for (lines, expected) in [
            (&["198.51.100.1"][..], "198.51.100.1"),
            (&["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
            (&["1.1.1.1, 198.51.100.1, 10.0.0.8"], "198.51.100.1"),
            (&["1.1.1.1", "198.51.100.1 ,10.0.0.8", "10.0.0.7"], "198.51.100.1"),
            (&["10.0.0.1, 198.51.100.1"], "198.51.100.1"),
            (&["nonsense, \"evil, 198.51.100.1, 10.0.0.8"], "198.51.100.1"),
            (&["10.0.0.5, 10.0.0.6"], "10.0.0.5"),
            (&["198.51.100.1:4711, 10.0.0.8:80"], "198.51.100.1"),
            (&["2001:DB8::7"], "2001:db8::7"),
            (&["[2001:db8::7]"], "2001:db8::7"),
            (&["[2001:db8::7]:80, [2001:db8:ff::2]:1"], "2001:db8::7"),
            (&["::ffff:198.51.100.1, ::ffff:10.0.0.8"], "198.51.100.1"),
            (&[], PROXY),
        ] {
            assert_eq!(x_forwarded_for(lines), is(expected), "{lines:?}");
        }
    }

    #[test]
    fn what_must_be_read_and_cannot_be_is_refused() {
        for line in [
            "",
            " ",
            ",",
            "198.51.100.1,",
            "198.51.100.1, ,10.0.0.8",
            "unknown",
            "localhost",
            "_hidden",
            "198.51.100",
            "198.51.100.256",
            "198.51.100.01",
            "0x7f.0.0.1",
            "198.51.100.1:",
            "198.51.100.1:x",
            "198.51.100.1:65536",
            "[198.51.100.1]",
            "[2001:db8::7",
            "2001:db8::7]",
            "[2001:db8::7]:",
            "[]",
            "[2001:db8::7]80",
            "fe80::1%eth0",
            "[fe80::1%1]:80",
            "\"198.51.100.1\"",
            "198.51.100.1;10.0.0.8",
            "198.51.100.1 10.0.0.8",
            "1.1.1.1, unknown, 10.0.0.8",
            "for=198.51.100.1",
        ] {
            assert_eq!(x_forwarded_for(&[line]), Err(Malformed), "{line:?}");
        }
        assert_eq!(x_forwarded_for(&["unknown, 198.51.100.1"]), is("198.51.100.1"));
    }

    #[test]
    fn forwarded_elements_are_read_likewise() {
        for (lines, expected) in [
            (&["for=198.51.100.1"][..], "198.51.100.1"),
            (&["For=\"198.51.100.1:4711\";proto=https;by=10.0.0.9"], "198.51.100.1"),
            (&["proto=https; for=\"[2001:db8::7]\"; host=example.com:80"], "2001:db8::7"),
            (&["for=1.1.1.1, for=198.51.100.1, for=10.0.0.8"], "198.51.100.1"),
            (&["for=\"", "for=198.51.100.1"], "198.51.100.1"),
            (&["for=\"evil, for=198.51.100.1"], "198.51.100.1"),
            (&[], PROXY),
        ] {
            assert_eq!(forwarded(lines), is(expected), "{lines:?}");
        }
        for line in [
            "",
            "198.51.100.1",
            "for",
            "for=",
            "for=\"\"",
            "for=unknown",
            "for=_hidden",
            "proto=https",
            "for=198.51.100.1;",
            ";for=198.51.100.1",
            "for=198.51.100.1;;proto=http",
            "=198.51.100.1",
            "for=198.51.100.1;for=198.51.100.2",
            "for=198.51.100.1;FOR=198.51.100.1",
            "for =198.51.100.1",
            "for= 198.51.100.1",
            "for=\"198.51.100.1",
            "for=198.51.100.1\"",
            "for=\"198.51.100.1\\\"",
            "for=198.51.100.1;host=\"x, for=192.0.2.1\"",
            "for=198.51.100.1;host=\"\\\", for=\\\"192.0.2.1\"",
            "for=198.51.100.1;host=\"x;for=192.0.2.1\"",
            "for=198.51.100.1, proto=https",
        ] {
            assert_eq!(forwarded(&[line]), Err(Malformed), "{line:?}");
        }
    }
}
