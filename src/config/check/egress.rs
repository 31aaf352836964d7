//! The way out of an environment: `proxy`, `bind`, `private_addresses`, `pins`, and what of them contradicts.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use super::{credential::client_id, network};
use crate::{
    config::{Egress, IpFamily, Login, Pin, Proxy, Reach, fault::Problem, walk::Table},
    tree::tree,
};

/// `None` when something is faulty, which was reported. `host` is the environment's, where it is known.
pub(super) fn egress(table: &Table<'_>, host: Option<&str>, family: IpFamily) -> Option<Egress> {
    let bind = table.parsed("bind", bind);
    let proxy_table = table.section("proxy");
    let proxy = proxy(&proxy_table);
    let reach = reach(table, host, proxy_table.is_written());
    let pins = pins(table);
    if let Some(bind) = bind {
        let dialled = match &proxy {
            Some(proxy) => Some(proxy.host.as_str()),
            None => host.filter(|_| !proxy_table.is_written()),
        };
        same_family(table, bind, family, dialled);
    }
    let bind_is_fine = bind.is_some() || !table.has("bind");
    let proxy_is_fine = proxy.is_some() || !proxy_table.is_written();
    (bind_is_fine && proxy_is_fine).then_some(Egress { bind, proxy, reach, pins })
}

/// An address that this machine can have.
fn bind(text: &str) -> Result<IpAddr, Problem> {
    let form = "expected an address of this machine, such as \"10.0.0.5\" or \"fd00::5\"";
    let address: IpAddr = text.parse().map_err(|_| Problem::new("is not an address").allowed(form))?;
    if address != address.to_canonical() {
        return Err(Problem::new("is an IPv4-mapped address").allowed("write the IPv4 address"));
    }
    let is_broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    match address.is_unspecified() || address.is_multicast() || is_broadcast {
        true => Err(Problem::new("is no address that a machine can have").allowed(form)),
        false => Ok(address),
    }
}

/// What is dialled must have an address of the family that connections leave from.
fn same_family(table: &Table<'_>, bind: IpAddr, family: IpFamily, dialled: Option<&str>) {
    let contradicts = match family {
        IpFamily::Any => false,
        IpFamily::Ipv4 => bind.is_ipv6(),
        IpFamily::Ipv6 => bind.is_ipv4(),
    };
    if contradicts {
        let problem = Problem::new("is of another family than ip_family");
        table.fault("bind", problem.allowed("leave ip_family out, or make it that of bind"));
    } else if dialled
        .and_then(|host| host.parse::<IpAddr>().ok())
        .is_some_and(|to| to.is_ipv4() != bind.is_ipv4())
    {
        table.fault("bind", "is of another family than the address that would be dialled from it");
    }
}

fn proxy(table: &Table<'_>) -> Option<Proxy> {
    let url = table.parsed("url", proxy_url);
    let username = table.parsed("username", |text| client_id(text, true));
    let password = table.reference("password");
    for (name, other) in [("username", "password"), ("password", "username")] {
        if table.has(name) && !table.has(other) {
            table.fault(name, Problem::new(format!("goes with {other}, which is missing")));
        }
    }
    let login = match (username, password) {
        (Some(username), Some(password)) => Some(Login { username, password }),
        _ if table.has("username") || table.has("password") => return None,
        _ => None,
    };
    let (host, port) = url?;
    Some(Proxy { host, port, login })
}

/// `http://HOST:PORT`: proxies have no port of their own that everybody agrees on.
fn proxy_url(text: &str) -> Result<(String, u16), Problem> {
    let form = "expected \"http://HOST:PORT\"";
    let Some(rest) = text.strip_prefix("http://") else {
        return Err(Problem::new("does not start with http://").allowed(form));
    };
    if rest.contains('@') {
        return Err(Problem::new("holds user information").allowed("write username and password beside it"));
    }
    let malformed = || Problem::new("has no usable host and port").allowed(form);
    let (host, port) = network::host_and_port(rest).ok_or_else(malformed)?;
    let host = network::host_name(&host.to_ascii_lowercase()).map_err(|_| malformed())?;
    Ok((host, port.ok_or_else(malformed)?))
}

/// Which addresses may be dialled: a `url` that names one has said so.
fn reach(table: &Table<'_>, host: Option<&str>, proxied: bool) -> Reach {
    let word = table.choice("private_addresses");
    let named = match host {
        Some(host) if host.parse::<IpAddr>().is_ok() => Some(Reach::Any),
        Some("localhost") => Some(Reach::Loopback),
        _ => None,
    };
    if proxied && table.has("private_addresses") {
        table.warn(
            "private_addresses",
            "has no effect beside proxy: the proxy looks the host up and connects",
        );
    } else if named.is_some() && word == "refused" && table.has("private_addresses") {
        let problem = Problem::new("contradicts url, which names an address or localhost");
        table.fault("private_addresses", problem.allowed("leave it out, or name a host in url"));
    }
    match word {
        "allowed" => Reach::Any,
        _ => named.unwrap_or_default(),
    }
}

/// One that is lost must not shut the gateway out, hence a second.
fn pins(table: &Table<'_>) -> Vec<Pin> {
    let form = "expected \"sha256/\" and the 44 characters of the digest in Base64";
    let pins =
        table.list("pins", |text| Pin::parse(text).ok_or_else(|| Problem::new("is no pin").allowed(form)));
    let different: BTreeSet<Pin> = tree(pins.iter().copied());
    if table.has("pins") && different.len() < 2 {
        let problem = Problem::new("holds fewer than two different pins");
        table.fault("pins", problem.allowed("add one of a key that is kept as a backup"));
    }
    pins
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_address_is_one_that_a_machine_can_have() {
        for text in ["10.0.0.5", "127.0.0.2", "fd00::5", "2001:db8::1"] {
            assert_eq!(bind(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "::ffff:10.0.0.5",
            "10.0.0.5:1",
            "host",
        ] {
            assert!(bind(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_proxy_is_http_and_a_host_and_a_port() {
        assert_eq!(proxy_url("http://Proxy.internal:3128").ok(), Some(("proxy.internal".to_owned(), 3128)));
        assert_eq!(proxy_url("http://10.0.0.1:8080").ok(), Some(("10.0.0.1".to_owned(), 8080)));
        for text in [
            "https://proxy.internal:3128",
            "proxy.internal:3128",
            "http://proxy.internal",
            "http://proxy.internal:3128/",
            "http://user:pw@proxy.internal:3128",
            "http://:3128",
            "http://proxy.internal:0",
        ] {
            assert!(proxy_url(text).is_err(), "{text}");
        }
    }
}
