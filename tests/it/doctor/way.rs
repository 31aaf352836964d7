//! What can be wrong on the way.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use mxgate::{
    config::Pin,
    stand_in::certificate::{Authority, Validity},
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::{Seen, at, doctor, seen};
use crate::{
    connect_proxy::{ConnectProxy, Deed},
    harness::{Setup, mx, mx_with},
    raw_upstream::{RawUpstream, ok},
};

/// A certificate's PEM that verifies nothing here.
fn somebody() -> String {
    Authority::new().unwrap().pem().to_owned()
}

fn at_url(url: &str, lines: &str) -> Seen {
    let mut setup = Setup::at("127.0.0.1:1".parse().unwrap(), &somebody());
    setup.environments = setup.environments.replace("https://127.0.0.1:1", url);
    doctor(&setup.in_environment(lines), &["test"])
}

/// Whoever is at that address.
fn at_address(address: SocketAddr) -> Seen {
    at_url(&format!("https://{address}"), "connect_timeout_ms = 300\ntls_timeout_ms = 300")
}

/// Does this with each connection.
fn server(serve: impl Fn(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(serve));
    address
}

#[test]
fn a_way_that_ends_early_is_told_by_where_it_ends() {
    assert_eq!(at_url("https://name.invalid", "").failure(), at("dns", "name_not_resolved"));
    // Bound and not listening: nobody else can come there, and nobody answers.
    let closed = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    closed.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = closed.local_addr().unwrap().as_socket().unwrap();
    assert_eq!(at_address(address).failure(), at("tcp", "connect_refused"));
    // A full backlog: the kernel leaves further connections without an answer, as a firewall that drops them.
    closed.listen(0).unwrap();
    let mut held = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        held.push(stream);
    }
    assert_eq!(at_address(address).failure(), at("tcp", "connect_timeout"));
    // No way at all: nothing leaves a machine from its loopback.
    assert_eq!(at_url("https://10.255.255.1", "bind = \"127.0.0.9\"").failure(), at("tcp", "connect_failed"));
    assert_eq!(at_url("https://127.0.0.1:1", "bind = \"192.0.2.1\"").failure(), at("tcp", "source_address"));
}

#[test]
fn what_lets_tcp_pass_and_cuts_tls_is_told() {
    for serve in [
        // The end, a reset, and silence.
        (|stream| drop(stream)) as fn(TcpStream),
        |mut stream| {
            stream.read_exact(&mut [0]).unwrap();
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        },
        |stream| std::mem::forget(stream),
    ] {
        assert_eq!(at_address(server(serve)).failure(), at("tls", "tls_cut"));
    }
    let plain = server(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    assert_eq!(at_address(plain).failure(), at("tls", "tls_failed"));
}

#[test]
fn a_name_that_leads_inside_is_told() {
    let mx = mx();
    let mut setup = Setup::new(&mx);
    setup.file("hosts", "127.0.0.1 api.mx.com\n");
    setup.environments = setup.environments.replace("https://127.0.0.1", "https://api.mx.com");
    let run = |setup: &Setup| {
        let config = setup.file("mxgate.toml", &setup.configuration());
        let hosts = setup.folder().join("hosts").display().to_string();
        let script = format!(
            "own=-m; unshare -m true 2>/dev/null || own=-Urm\n\
             exec unshare $own sh -c 'mount --bind {hosts} /etc/hosts && exec \"$@\"' sh \"$@\""
        );
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_mxgate"), "--json", "doctor", "--config"]);
        seen(command.arg(config).stdin(Stdio::null()).output().unwrap())
    };
    let refused = run(&setup);
    assert_eq!(refused.failure(), at("tcp", "address_refused"));
    assert_eq!(mx.connections(), 0);
    assert_eq!(run(&setup.in_environment("private_addresses = \"allowed\"")).code, 0);
}

#[test]
fn a_middlebox_that_opens_tls_is_told_by_its_name() {
    let (mx, middlebox) = (mx(), valid_between((2020, 1, 1), in_days(50)));
    let seen = doctor(&Setup::at(middlebox.address, mx.authority_pem()), &[]);
    assert_eq!(seen.failure(), at("tls", "tls_inspection"));
    let (_, said) = &seen.found("test", "tls")[0];
    assert_eq!(
        said,
        "the certificate that is shown was issued by CN=Corp TLS inspection, who is not trusted"
    );
    // One that takes the name of the authority that is trusted.
    let other = Authority::new().unwrap();
    let shown = other.issue(&["127.0.0.1"], Validity::Valid).unwrap();
    let imitator = mx_with(|options| options.certificate = Some(shown));
    let seen = doctor(&Setup::at(imitator.address(), mx.authority_pem()), &[]);
    assert_eq!(seen.failure(), at("tls", "tls_inspection"));
    let (_, said) = &seen.found("test", "tls")[0];
    assert!(said.ends_with("says that CN=mxgate stand-in authority issued it, who did not"), "{said}");
    assert_eq!((middlebox.requests(), imitator.received()), (0, 0));
    assert_eq!(doctor(&middlebox.setup(), &[]).code, 0);
}

#[test]
fn what_is_wrong_with_a_certificate_is_told_and_no_key_is_sent() {
    let authority = Authority::new().unwrap();
    let names = &["127.0.0.1"];
    for (certificate, lines, code, words) in [
        (
            authority.issue(names, Validity::Expired),
            String::new(),
            "certificate_expired",
            "was valid until 2020-12-31",
        ),
        (
            authority.issue(&["other.example"], Validity::Valid),
            String::new(),
            "wrong_name",
            "is only valid for DnsName(\"other.example\")",
        ),
        (
            authority.issue(names, Validity::Valid),
            format!("pins = [\"{}\", \"{}\"]", Pin::of(b"one"), Pin::of(b"two")),
            "not_pinned",
            "among `pins`; its own is sha256/",
        ),
    ] {
        let mx = mx_with(|options| options.certificate = Some(certificate.unwrap()));
        let seen = doctor(&Setup::at(mx.address(), authority.pem()).in_environment(&lines), &[]);
        assert_eq!(seen.failure(), at("tls", code));
        let (_, said) = &seen.found("test", "tls")[0];
        assert!(said.contains(words), "{said}");
        assert_eq!(mx.received(), 0, "{code}");
    }
}

/// The date of so many days from now on.
fn in_days(days: u64) -> (i32, u8, u8) {
    let then = std::time::SystemTime::now() + Duration::from_secs(days * 24 * 3600);
    let text = humantime::format_rfc3339_seconds(then).to_string();
    let part = |range: std::ops::Range<usize>| text[range].parse::<u8>().unwrap();
    (text[..4].parse().unwrap(), part(5..7), part(8..10))
}

/// An upstream whose certificate is valid between these days.
fn valid_between(from: (i32, u8, u8), to: (i32, u8, u8)) -> RawUpstream {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "Corp TLS inspection");
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.not_before = date_time_ymd(from.0, from.1, from.2);
    params.not_after = date_time_ymd(to.0, to.1, to.2);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config =
        builder.unwrap().with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key);
    RawUpstream::with(config.unwrap(), &pem, |_, wire| wire.say_always(ok("{}")))
}

#[test]
fn a_certificate_before_its_time_and_one_near_its_end_are_told() {
    let early = valid_between(in_days(10), in_days(100));
    let seen = doctor(&early.setup(), &[]);
    assert_eq!((seen.failure(), early.requests()), (at("tls", "certificate_not_yet_valid"), 0));
    let old = valid_between((2020, 1, 1), in_days(5));
    let seen = doctor(&old.setup(), &[]);
    assert_eq!((seen.code, seen.codes("test", "tls")), (0, vec!["fine".to_owned(), "expires_soon".into()]));
    let (_, said) = &seen.found("test", "tls")[1];
    assert!(said.ends_with(", 4 days more"), "{said}");
    let young = valid_between((2020, 1, 1), in_days(50));
    assert_eq!(doctor(&young.setup(), &[]).codes("test", "tls"), ["fine", "fine"]);
}

#[test]
fn a_proxy_is_a_stage_of_its_own() {
    let mx = mx();
    let through = |deed: Deed| {
        let proxy = ConnectProxy::that(deed);
        let setup = Setup::new(&mx).in_environment("connect_timeout_ms = 300");
        let seen =
            doctor(&setup.in_environment(&format!("proxy = {{ url = \"http://{}\" }}", proxy.address)), &[]);
        assert_eq!(proxy.heads().len(), 1);
        seen
    };
    let say = |text: &str| through(Deed::Say(text.as_bytes().to_vec()));
    let fine = through(Deed::Tunnel(mx.address()));
    assert_eq!((fine.code, fine.codes("test", "proxy")), (0, vec!["fine".to_owned()]));
    let received = mx.received();
    for (seen, code) in [
        (say("HTTP/1.1 407 Who\r\n\r\n"), "proxy_login"),
        (say("HTTP/1.1 403 No\r\n\r\n"), "proxy_forbidden"),
        (say("HTTP/1.1 502 Bad\r\n\r\n"), "proxy_unreached"),
        (say("nonsense\r\n\r\n"), "proxy_failed"),
        (through(Deed::Nothing), "proxy_failed"),
    ] {
        assert_eq!(seen.failure(), at("proxy", code));
    }
    // A proxy that opens TLS is found out as any middlebox.
    let other = crate::harness::mx();
    assert_eq!(through(Deed::Tunnel(other.address())).failure(), at("tls", "tls_inspection"));
    assert_eq!((mx.received(), other.received()), (received, 0));
}
