//! Who may call at all: by the address that counts.

use std::{
    io::Read as _,
    net::{IpAddr, SocketAddr},
};

use crate::harness::{Answer, Client, Gateway, Setup, mx, until};

fn ask(gateway: &Gateway, from: &str, fields: &str) -> Answer {
    let from: IpAddr = from.parse().unwrap();
    let listens = gateway.addresses.iter().find(|address| address.is_ipv4() == from.is_ipv4());
    // A dual-stack listener takes IPv4 as well.
    let port = listens.unwrap_or(&gateway.addresses[0]).port();
    let to: IpAddr = if from.is_ipv4() { [127, 0, 0, 1].into() } else { "::1".parse().unwrap() };
    let mut client = Client::connect_from(from, SocketAddr::new(to, port));
    client.request(&format!("GET /users HTTP/1.1\n{fields}"), "");
    client.answer()
}

fn is_admitted(gateway: &Gateway, from: &str, fields: &str, counted: &str) {
    let answer = ask(gateway, from, fields);
    assert_eq!(answer.status, 200, "{from} {fields}: {}", answer.text());
    let id = answer.header("x-mxgate-request-id").unwrap();
    let record = gateway.record(|record| record["request_id"] == id);
    assert_eq!(
        (record["decision"].as_str(), record["caller_address"].as_str()),
        (Some("allowed"), Some(counted))
    );
    let peer = (counted != from).then_some(from);
    assert_eq!(record["peer_address"].as_str(), peer);
}

fn is_refused(gateway: &Gateway, from: &str, fields: &str, counted: &str) {
    let answer = ask(gateway, from, fields);
    assert_eq!((answer.status, answer.code().as_str()), (403, "caller_not_allowed"), "{from} {fields}");
    assert!(!answer.text().contains(from), "the answer names an address");
    let id = answer.header("x-mxgate-request-id").unwrap();
    let record = gateway.record(|record| record["request_id"] == id);
    assert_eq!(record["caller_address"].as_str(), Some(counted), "{from} {fields}");
    assert_eq!((record["decision"].as_str(), record["status"].as_u64()), (Some("refused"), Some(403)));
    assert!(record["credential"].is_null());
}

#[test]
fn only_allowed_networks_may_call() {
    let mx = mx();
    let mut setup = Setup::new(&mx).top("allow = [\"127.0.0.8/30\", \"127.0.1.1/32\", \"::1/128\"]");
    setup.listeners += "[[listener]]\naddress = \"[::1]:0\"\nenvironment = \"test\"\n";
    let gateway = setup.start();
    for inside in ["127.0.0.8", "127.0.0.11", "127.0.1.1", "::1"] {
        is_admitted(&gateway, inside, "", inside);
    }
    assert_eq!(mx.received(), 4);
    for outside in ["127.0.0.1", "127.0.0.7", "127.0.0.12", "127.0.1.2"] {
        is_refused(&gateway, outside, "", outside);
    }
    assert_eq!(mx.received(), 4);
    assert_eq!(gateway.metric("mxgate_refusals_total{code=\"caller_not_allowed\"}"), 4.0);
    let line = gateway.stderr.wait_for(|line| line.contains("127.0.0.12"));
    assert!(line.contains("WARN") && line.contains("caller_not_allowed"), "{line}");
}

#[test]
fn ipv6_is_no_way_around_an_ipv4_list_and_nobody_is_in_an_empty_one() {
    let mx = mx();
    let mut setup = Setup::new(&mx);
    setup.listeners += "[[listener]]\naddress = \"[::1]:0\"\nenvironment = \"test\"\n";
    let gateway = setup.start();
    is_admitted(&gateway, "127.0.0.1", "", "127.0.0.1");
    is_refused(&gateway, "::1", "", "::1");

    let gateway = Setup::new(&mx).top("allow = []").start();
    is_refused(&gateway, "127.0.0.1", "", "127.0.0.1");
    assert_eq!(mx.received(), 1);
}

/// The kernel shows an IPv4 caller of a dual-stack listener as `::ffff:127.0.0.9`.
#[test]
fn mapped_addresses_are_the_ipv4_addresses_that_they_are() {
    let mx = mx();
    let mut setup = Setup::new(&mx).top("allow = [\"127.0.0.9/32\", \"::1/128\"]");
    setup.listeners = "[[listener]]\naddress = \"[::]:0\"\nenvironment = \"test\"\n".into();
    let gateway = setup.start();
    is_admitted(&gateway, "127.0.0.9", "", "127.0.0.9");
    is_admitted(&gateway, "::1", "", "::1");
    is_refused(&gateway, "127.0.0.1", "", "127.0.0.1");
    assert_eq!(mx.received(), 2);
}

#[test]
fn a_forwarded_address_is_believed_from_trusted_proxies_only() {
    let mx = mx();
    let gateway = Setup::new(&mx)
        .top("allow = [\"10.1.0.0/16\", \"2001:db8::/32\", \"127.0.0.3/32\"]\ntrusted_proxies = [\"127.0.0.4/32\", \"192.0.2.0/24\"]")
        .start();
    let proxy = "127.0.0.4";
    is_admitted(&gateway, proxy, "X-Forwarded-For: 10.1.2.3", "10.1.2.3");
    is_admitted(&gateway, proxy, "X-Forwarded-For: 203.0.113.9, 10.1.2.3, 192.0.2.7", "10.1.2.3");
    is_admitted(&gateway, proxy, "X-Forwarded-For: 203.0.113.9\nX-Forwarded-For: 2001:db8::7", "2001:db8::7");
    is_admitted(&gateway, proxy, "X-Forwarded-For: ::ffff:10.1.2.3", "10.1.2.3");
    // What the caller of the proxy wrote is left of what the proxy wrote.
    is_refused(&gateway, proxy, "X-Forwarded-For: 10.1.2.3, 203.0.113.9", "203.0.113.9");
    is_refused(&gateway, proxy, "X-Forwarded-For: 10.1.2.3\nX-Forwarded-For: 203.0.113.9", "203.0.113.9");
    // What cannot be read is not guessed, and a proxy speaks for itself without a header.
    is_refused(&gateway, proxy, "X-Forwarded-For: 10.1.2.3, unknown", proxy);
    is_refused(&gateway, proxy, "X-Forwarded-For:", proxy);
    is_refused(&gateway, proxy, "", proxy);
    // The other header is not the configured one.
    is_refused(&gateway, proxy, "Forwarded: for=10.1.2.3", proxy);
    // Everybody else may write what they like.
    is_refused(&gateway, "127.0.0.5", "X-Forwarded-For: 10.1.2.3", "127.0.0.5");
    is_admitted(&gateway, "127.0.0.3", "X-Forwarded-For: 203.0.113.9", "127.0.0.3");
    is_admitted(&gateway, "127.0.0.3", "X-Real-IP: 203.0.113.9\nForwarded: for=203.0.113.9", "127.0.0.3");
    for request in mx.requests() {
        assert_eq!(request.oddities, [], "who called is not MX's business");
    }
}

#[test]
fn forwarded_is_believed_where_it_is_configured_and_neither_where_none_is() {
    let mx = mx();
    let top = "allow = [\"10.1.0.0/16\"]\ntrusted_proxies = [\"127.0.0.4/32\"]\nforwarded_header = ";
    let gateway = Setup::new(&mx).top(&format!("{top}\"forwarded\"")).start();
    let proxy = "127.0.0.4";
    is_admitted(&gateway, proxy, "Forwarded: for=\"10.1.2.3:80\";proto=https", "10.1.2.3");
    is_refused(&gateway, proxy, "Forwarded: for=10.1.2.3, for=203.0.113.9", "203.0.113.9");
    is_refused(&gateway, proxy, "Forwarded: for=\"10.1.2.3", proxy);
    is_refused(&gateway, proxy, "X-Forwarded-For: 10.1.2.3", proxy);
    is_refused(&gateway, "127.0.0.5", "Forwarded: for=10.1.2.3", "127.0.0.5");

    let gateway = Setup::new(&mx).top(&format!("{top}\"none\"")).start();
    is_refused(&gateway, proxy, "Forwarded: for=10.1.2.3\nX-Forwarded-For: 10.1.2.3", proxy);
    assert_eq!(mx.received(), 1);
}

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\x01\x02\x03\x7f\0\0\x01\x13\x88\x1f\x90";

#[test]
fn the_proxy_protocol_is_spoken_with_trusted_proxies_only() {
    let mx = mx();
    let gateway = Setup::new(&mx)
        .top("allow = [\"10.1.0.0/16\", \"127.0.0.4/31\"]\ntrusted_proxies = [\"127.0.0.4/32\"]")
        .in_listener("proxy_protocol = true")
        .start();
    let request = b"GET /users HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let from = |source: &str| Client::connect_from(source.parse().unwrap(), gateway.addresses[0]);
    let admitted = |header: &[u8], counted: &str| {
        let mut client = from("127.0.0.4");
        // Byte by byte, and what comes behind is the connection's.
        for byte in header {
            client.raw(&[*byte]);
        }
        for _ in 0..2 {
            client.raw(request);
            let answer = client.answer();
            assert_eq!(answer.status, 200, "{}", answer.text());
            let id = answer.header("x-mxgate-request-id").unwrap();
            let record = gateway.record(|record| record["request_id"] == id);
            assert_eq!(record["caller_address"].as_str(), Some(counted));
        }
    };
    admitted(b"PROXY TCP4 10.1.2.3 127.0.0.1 5000 8080\r\n", "10.1.2.3");
    admitted(b"PROXY TCP6 ::ffff:10.1.2.3 ::1 5000 8080\r\n", "10.1.2.3");
    admitted(V2, "10.1.2.3");
    admitted(b"PROXY UNKNOWN\r\n", "127.0.0.4");
    assert_eq!(mx.received(), 8);

    // A trusted proxy names somebody who may not call.
    let mut client = from("127.0.0.4");
    client.raw(b"PROXY TCP4 203.0.113.9 127.0.0.1 5000 8080\r\n");
    client.raw(request);
    assert_eq!(client.answer().status, 403);

    let is_closed = |source: &str, bytes: &[u8]| {
        let mut client = from(source);
        client.raw(bytes);
        assert_eq!(client.rest(), b"", "{}", String::from_utf8_lossy(bytes));
    };
    let spoofed = [b"PROXY TCP4 10.1.2.3 127.0.0.1 5000 8080\r\n", &request[..]].concat();
    // Allowed, but no proxy: its word does not count, and without a header it is not understood.
    is_closed("127.0.0.5", &spoofed);
    is_closed("127.0.0.5", request);
    is_closed("127.0.0.4", request);
    is_closed("127.0.0.4", &[b"PROXY TCP4 10.1.2.3\r\n", &request[..]].concat());
    is_closed("127.0.0.4", &[b"PROXY TCP4 10.1.2.3 127.0.0.1 5000 +80\r\n", &request[..]].concat());
    is_closed("127.0.0.4", &[&V2[..12], b"\x31\x11\0\x0c", &request[..]].concat());
    assert_eq!(mx.received(), 8);

    // Where it is not configured, it is not HTTP.
    let gateway = Setup::new(&mx).start();
    let mut client = gateway.connect();
    client.raw(&spoofed);
    assert_eq!((client.answer().status, client.rest().len()), (400, 0));
}

#[test]
fn a_proxy_header_that_does_not_come_is_not_waited_for_for_ever() {
    let mx = mx();
    let gateway = Setup::new(&mx)
        .top("allow = [\"127.0.0.0/8\"]\ntrusted_proxies = [\"127.0.0.1/32\"]")
        .in_listener("proxy_protocol = true")
        .table("[limits]\nheader_read_timeout_ms = 200")
        .start();
    let mut client = gateway.connect();
    client.raw(b"PROXY TCP4 ");
    let mut nothing = Vec::new();
    client.stream.read_to_end(&mut nothing).unwrap();
    assert_eq!(nothing, b"");
}

#[test]
fn a_flood_from_one_address_is_one_line_in_the_log() {
    let mx = mx();
    let gateway = Setup::new(&mx).top("allow = [\"127.0.0.1/32\"]").table("[process]\nworkers = 2").start();
    for _ in 0..200 {
        let mut client = Client::connect_from("127.0.0.66".parse().unwrap(), gateway.addresses[0]);
        client.request("GET /users HTTP/1.1", "");
        let answer = client.answer();
        assert_eq!(
            (answer.status, answer.header("connection")),
            (403, Some("close")),
            "no connection is kept"
        );
    }
    is_refused(&gateway, "127.0.0.67", "", "127.0.0.67");
    gateway.stderr.wait_for(|line| line.contains("127.0.0.67"));
    let lines = gateway.stderr.text().lines().filter(|line| line.contains("127.0.0.66")).count();
    // Each worker says it once in ten seconds; a slow machine may see the next one.
    assert!((1..=4).contains(&lines), "{lines} lines for 200 refusals");
    assert_eq!(gateway.metric("mxgate_refusals_total{code=\"caller_not_allowed\"}"), 201.0);
    let recorded = || gateway.stdout.text().matches("caller_not_allowed").count();
    until("each has its record", || recorded() >= 201);
    assert_eq!(recorded(), 201);
    assert_eq!(mx.received(), 0);
}
