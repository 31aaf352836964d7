//! Networks, addresses and names.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use rustls::pki_types::ServerName;

use crate::config::{ListenAddress, fault::Problem, walk::absolute_path};

/// `sun_path` holds 108 bytes, its final NUL included (Linux, unix(7)).
const UNIX_PATH_BYTES_MAX: usize = 107;

/// `10.20.0.0/16`, in the one form that compares right.
pub(super) fn network(text: &str) -> Result<IpNet, Problem> {
    let Ok(network) = text.parse::<IpNet>() else {
        let problem = Problem::new("is not a network");
        return Err(match text.parse::<IpAddr>() {
            Ok(address) => {
                problem.allowed(format!("for this one address write \"{}\"", IpNet::from(address)))
            }
            Err(_) => problem.allowed("expected an address and a prefix length, such as \"10.20.0.0/16\""),
        });
    };
    if network != network.trunc() {
        let right =
            format!("write \"{}\", or one address as \"{}\"", network.trunc(), IpNet::from(network.addr()));
        return Err(Problem::new("has host bits set").allowed(right));
    }
    if let IpNet::V6(v6) = network
        && let (Some(v4), Some(prefix)) = (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96))
    {
        // Peers are compared in canonical form, so a mapped network would never match.
        return Err(Problem::new("is an IPv4-mapped network").allowed(format!("write \"{v4}/{prefix}\"")));
    }
    Ok(network)
}

/// `127.0.0.1:8080`, `[::1]:8080` or `unix:/PATH`.
pub(super) fn listen_address(text: &str) -> Result<ListenAddress, Problem> {
    match text.strip_prefix("unix:") {
        Some(path) if path.len() > UNIX_PATH_BYTES_MAX => {
            Err(Problem::new("is too long a path for a socket")
                .allowed(format!("at most {UNIX_PATH_BYTES_MAX} bytes")))
        }
        Some(path) => absolute_path(path).map(ListenAddress::Unix),
        None => socket_address(text).map(ListenAddress::Tcp).map_err(|problem| {
            problem.allowed("expected \"127.0.0.1:8080\", \"[::1]:8080\" or \"unix:/PATH\"")
        }),
    }
}

/// An address, never a name, and a port.
pub(super) fn socket_address(text: &str) -> Result<SocketAddr, Problem> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.ip().to_canonical() != address.ip() => Err("is an IPv4-mapped address".into()),
        Ok(address) => Ok(address),
        Err(_) => Err(Problem::new("is not an address and port")
            .allowed("expected \"127.0.0.1:9090\" or \"[::1]:9090\"")),
    }
}

/// A DNS name or IPv4 address in lower case, in the form that certificates are checked against.
pub(super) fn host_name(text: &str) -> Result<String, Problem> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("is not in lower case".into());
    }
    match ServerName::try_from(text) {
        // A final dot would be a second spelling of the same host.
        Ok(ServerName::DnsName(_)) if !text.ends_with('.') => Ok(text.to_owned()),
        Ok(ServerName::IpAddress(_)) if !text.contains(':') => Ok(text.to_owned()),
        _ => Err(Problem::new("is not a host name")
            .allowed("expected a name such as \"mx.internal\", without scheme or port")),
    }
}

/// What a browser sends as `Origin` (RFC 6454, section 6.2): compared byte by byte, so only in its one form.
pub(super) fn origin(text: &str) -> Result<String, Problem> {
    let form = "expected \"https://HOST\" or \"https://HOST:PORT\", as browsers send it: lower case, no default port, nothing after it";
    let malformed = || Problem::new("is not an origin").allowed(form);
    let (scheme, default_port, rest) = [("https", 443), ("http", 80)]
        .into_iter()
        .find_map(|(scheme, port)| Some((scheme, port, text.strip_prefix(scheme)?.strip_prefix("://")?)))
        .ok_or_else(malformed)?;
    let (host, port) = host_and_port(rest).ok_or_else(malformed)?;
    host_name(host).map_err(|_| malformed())?;
    match port {
        Some(port) if port == default_port => Err(malformed()),
        Some(port) => Ok(format!("{scheme}://{host}:{port}")),
        None => Ok(format!("{scheme}://{host}")),
    }
}

/// Whether what goes there stays on this machine.
pub(in crate::config) fn is_loopback(host: &str) -> bool {
    let address: Result<IpAddr, _> = host.trim_matches(['[', ']']).parse();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// `HOST` or `HOST:PORT`; the port in its shortest form and not 0.
pub(super) fn host_and_port(text: &str) -> Option<(&str, Option<u16>)> {
    let Some((host, digits)) = text.split_once(':') else { return Some((text, None)) };
    let port: u16 = digits.parse().ok()?;
    (port != 0 && port.to_string() == digits).then_some((host, Some(port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed<T: std::fmt::Debug>(result: Result<T, Problem>) -> String {
        result.unwrap_err().allowed.unwrap_or_default()
    }

    #[test]
    fn a_network_is_taken_only_in_its_canonical_form() {
        for text in ["10.0.0.0/8", "0.0.0.0/0", "::/0", "fd00::/8", "192.0.2.7/32", "::1/128"] {
            assert_eq!(network(text).unwrap().to_string(), text);
        }
        assert!(allowed(network("10.1.2.3/8")).starts_with("write \"10.0.0.0/8\""));
        assert!(allowed(network("fd00::1/8")).starts_with("write \"fd00::/8\""));
        assert_eq!(allowed(network("::ffff:10.0.0.0/104")), "write \"10.0.0.0/8\"");
        assert_eq!(allowed(network("::ffff:10.1.2.3/128")), "write \"10.1.2.3/32\"");
        assert_eq!(allowed(network("10.1.2.3")), "for this one address write \"10.1.2.3/32\"");
        for text in ["10.0.0.0/33", "10.0.0/8", "localhost", ""] {
            assert!(network(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_listener_binds_an_address_or_a_socket_path() {
        for text in ["127.0.0.1:8080", "[::1]:8080", "0.0.0.0:0", "unix:/run/mxgate/mx.sock"] {
            assert!(listen_address(text).is_ok(), "{text}");
        }
        let long = format!("unix:/{}", "x".repeat(UNIX_PATH_BYTES_MAX));
        for text in
            ["localhost:80", "127.0.0.1", ":8080", "unix:relative", "[::ffff:127.0.0.1]:80", &long, ""]
        {
            assert!(listen_address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn host_names_have_one_spelling() {
        for text in ["mx.internal", "gateway", "192.0.2.1", "a_b.example"] {
            assert_eq!(host_name(text).unwrap(), text);
        }
        for text in [
            "MX.internal",
            "mx.internal.",
            "mx.internal:80",
            "::1",
            "[::1]",
            "0x7f.1",
            "127.1",
            "2130706433",
            "a b",
            "",
        ] {
            assert!(host_name(text).is_err(), "{text}");
        }
    }

    #[test]
    fn origins_are_taken_only_as_browsers_send_them() {
        for text in ["https://app.example", "http://localhost:3000", "https://app.example:8443"] {
            assert_eq!(origin(text).unwrap(), text);
        }
        for text in [
            "*",
            "null",
            "https://app.example/",
            "https://app.example:443",
            "http://a:80",
            "https://A.example",
            "app.example",
            "https://u@a",
        ] {
            assert!(origin(text).is_err(), "{text}");
        }
    }
}
