//! Whom the gateway trusts with a credential: nobody whose certificate does not verify.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use mxgate::stand_in::{
    Running,
    certificate::{Authority, ServerCertificate, Validity},
};

use crate::{
    harness::{Gateway, PATIENCE, Setup, mx, mx_with},
    raw_upstream::{RawUpstream, ok, server_config},
};

const ONE_WORKER: &str = "[process]\nworkers = 1";

fn ask(gateway: &Gateway) -> (u16, String) {
    let answer = gateway.get("/users", "");
    (answer.status, answer.code())
}

fn served() -> (u16, String) {
    (200, String::new())
}

fn untrusted() -> (u16, String) {
    (502, "upstream_untrusted".into())
}

/// An MX with this certificate; whoever trusts `roots` asks it.
fn ask_mx_with(certificate: ServerCertificate, roots: &str) -> ((u16, String), Running) {
    let mx = mx_with(|options| options.certificate = Some(certificate));
    let gateway = Setup::at(mx.address(), roots).start();
    let answer = ask(&gateway);
    assert_eq!(ask(&gateway), answer, "it is no different the second time");
    (answer, mx)
}

#[test]
fn a_certificate_that_does_not_verify_gets_no_request() {
    let (ours, other) = (Authority::new().unwrap(), Authority::new().unwrap());
    let name = &["127.0.0.1"];
    let (answer, mx) = ask_mx_with(ours.issue(name, Validity::Valid).unwrap(), ours.pem());
    assert_eq!((answer, mx.received()), (served(), 2));

    let own = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
    let self_signed = RawUpstream::with(self_signed(&own), ours.pem(), |_, wire| wire.say_always(ok("{}")));
    let gateway = self_signed.setup().start();
    assert_eq!((ask(&gateway), self_signed.requests()), (untrusted(), 0));

    for (what, certificate) in [
        ("another authority's", other.issue(name, Validity::Valid).unwrap()),
        ("for another name", ours.issue(&["api.example.com", "127.0.0.2"], Validity::Valid).unwrap()),
        ("expired", ours.issue(name, Validity::Expired).unwrap()),
    ] {
        let (answer, mx) = ask_mx_with(certificate, ours.pem());
        assert_eq!((answer, mx.received()), (untrusted(), 0), "{what}");
    }
}

fn self_signed(own: &rcgen::CertifiedKey<rcgen::KeyPair>) -> rustls::ServerConfig {
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(own.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    builder.with_single_cert(vec![own.cert.der().clone()], key.into()).unwrap()
}

#[test]
fn tls_1_2_and_1_3_are_spoken() {
    for (version, spoken) in [
        (&rustls::version::TLS12, rustls::ProtocolVersion::TLSv1_2),
        (&rustls::version::TLS13, rustls::ProtocolVersion::TLSv1_3),
    ] {
        let certificate = Authority::new().unwrap().issue(&["127.0.0.1"], Validity::Valid).unwrap();
        let config = server_config(&certificate, &[version]);
        let upstream = RawUpstream::with(config, certificate.authority_pem(), move |_, wire| {
            wire.head()?;
            assert_eq!(wire.tls.conn.protocol_version(), Some(spoken));
            assert_eq!(wire.tls.conn.alpn_protocol(), None);
            wire.say(ok("{}"))
        });
        assert_eq!(ask(&upstream.setup().start()), served());
    }
}

/// Answers the first bytes of each connection with a TLS record, and counts what comes after.
fn tls_that_says(record: &'static [u8]) -> (SocketAddr, Arc<AtomicUsize>) {
    use std::io::{Read, Write};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let after = Arc::new(AtomicUsize::new(0));
    let count = after.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let serve = |mut stream: TcpStream| -> io::Result<()> {
                let mut piece = [0; 16 * 1024];
                let hello = stream.read(&mut piece)?;
                // The versions that it offers, as they are on the wire: 1.3 and 1.2, and no more.
                let offered =
                    piece[..hello].windows(9).any(|bytes| bytes == b"\0\x2b\0\x05\x04\x03\x04\x03\x03");
                assert!(offered, "{:x?}", &piece[..hello]);
                stream.write_all(record)?;
                loop {
                    match stream.read(&mut piece)? {
                        0 => return Ok(()),
                        // An alert is 7 bytes long.
                        7 => {}
                        more => _ = count.fetch_add(more, Ordering::SeqCst),
                    }
                }
            };
            let _ = stream.and_then(serve);
        }
    });
    (address, after)
}

#[test]
fn tls_1_1_and_alerts_are_refused() {
    let mx = mx();
    // A ServerHello of TLS 1.1 with an empty session id and a suite of that time; and "protocol_version".
    const SERVER_HELLO_1_1: &[u8] = b"\x16\x03\x02\0\x2a\x02\0\0\x26\x03\x02\
        0123456789abcdef0123456789abcdef\0\0\x2f\0";
    const ALERT: &[u8] = b"\x15\x03\x03\0\x02\x02\x46";
    for record in [SERVER_HELLO_1_1, ALERT] {
        let (address, after) = tls_that_says(record);
        let gateway = Setup::at(address, mx.authority_pem()).start();
        assert_eq!((ask(&gateway), after.load(Ordering::SeqCst)), (untrusted(), 0));
    }
}

#[test]
fn a_resumed_session_sends_nothing_early() {
    let certificate = Authority::new().unwrap().issue(&["127.0.0.1"], Validity::Valid).unwrap();
    let mut config = server_config(&certificate, &[&rustls::version::TLS13]);
    config.max_early_data_size = 16 * 1024;
    let resumed = Arc::new(AtomicUsize::new(0));
    let count = resumed.clone();
    let upstream = RawUpstream::with(config, certificate.authority_pem(), move |_, wire| {
        wire.head()?;
        let conn = &mut wire.tls.conn;
        if conn.handshake_kind() == Some(rustls::HandshakeKind::Resumed) {
            count.fetch_add(1, Ordering::SeqCst);
        }
        // The request came, and not early.
        let early = conn.early_data().map(|mut early| io::read_to_string(&mut early));
        assert!(early.is_none_or(|early| early.is_ok_and(|early| early.is_empty())));
        wire.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
    });
    let gateway = upstream.setup().table(ONE_WORKER).start();
    for _ in 0..5 {
        assert_eq!(ask(&gateway), served());
    }
    assert_eq!(upstream.connections(), 5);
    assert!(resumed.load(Ordering::SeqCst) >= 1, "sessions are resumed, so that early data was possible");
}

/// A network may cut a record anywhere: the first bytes of a session ticket come with the handshake, the others later.
#[test]
fn a_ticket_that_comes_in_two_pieces_is_waited_for() {
    use std::io::{Read, Write};
    let certificate = Authority::new().unwrap().issue(&["127.0.0.1"], Validity::Valid).unwrap();
    let config = Arc::new(server_config(&certificate, &[&rustls::version::TLS13]));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let upstream = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut tls = rustls::ServerConnection::new(config).unwrap();
        let hear = |tls: &mut rustls::ServerConnection, stream: &mut TcpStream| {
            assert!(tls.read_tls(stream).unwrap() > 0, "it has left");
            tls.process_new_packets().unwrap();
        };
        let said = |tls: &mut rustls::ServerConnection| {
            let mut bytes = Vec::new();
            while tls.wants_write() {
                tls.write_tls(&mut bytes).unwrap();
            }
            bytes
        };
        const RECORD: &[u8] = b"\x17\x03\x03";
        hear(&mut tls, &mut stream);
        stream.write_all(&[&said(&mut tls), RECORD].concat()).unwrap();
        while tls.is_handshaking() {
            hear(&mut tls, &mut stream);
        }
        stream.write_all(said(&mut tls).strip_prefix(RECORD).unwrap()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            hear(&mut tls, &mut stream);
            let _ = tls.reader().read_to_end(&mut head);
        }
        tls.writer().write_all(ok("{}").as_bytes()).unwrap();
        stream.write_all(&said(&mut tls)).unwrap();
    });
    let gateway = Setup::at(address, certificate.authority_pem()).table(ONE_WORKER).start();
    assert_eq!(ask(&gateway), served());
    upstream.join().unwrap();
}

#[test]
fn a_client_certificate_is_shown_when_there_is_one() {
    let authority = Authority::new().unwrap();
    let mx = mx_with(|options| options.client_authority_pem = Some(authority.pem().to_owned()));
    let without = Setup::new(&mx).start();
    let (status, code) = ask(&without);
    assert!(status == 502 && code.starts_with("upstream_"), "{status} {code}");
    assert_eq!(mx.received(), 0);

    let ask_as = |authority: &Authority| {
        let certificate = authority.issue(&["gateway.internal"], Validity::Valid).unwrap();
        let setup = Setup::new(&mx);
        let (chain, key) =
            (setup.file("client.pem", certificate.pem()), setup.file("client.key", certificate.key_pem()));
        let files = format!(
            "client_certificate = {{ certificate = \"{}\", key = \"{}\" }}",
            chain.display(),
            key.display()
        );
        ask(&setup.in_environment(&files).start())
    };
    assert_eq!(ask_as(&authority), served());
    assert_eq!(ask_as(&Authority::new().unwrap()).0, 502);
    assert_eq!(mx.received(), 1);
}

#[test]
fn a_changed_ca_file_counts_at_once_and_retires_the_connections_that_the_old_one_let_open() {
    let mx = mx();
    let gateway = Setup::new(&mx).table(ONE_WORKER).start();
    let ca_file = gateway.setup.folder().join("ca.pem");
    assert_eq!(ask(&gateway), served());
    assert_eq!(ask(&gateway), served());
    assert_eq!(mx.connections(), 1);

    fs::write(&ca_file, Authority::new().unwrap().pem()).unwrap();
    wait_until(|| ask(&gateway) == untrusted());
    wait_until(|| gateway.metric("mxgate_upstream_connections_open ") == 0.0);
    let received = mx.received();
    assert_eq!((ask(&gateway), mx.received()), (untrusted(), received));

    fs::write(&ca_file, mx.authority_pem()).unwrap();
    wait_until(|| ask(&gateway) == served());

    // A file that holds no certificate changes nothing.
    let generation = gateway.metric("mxgate_config_generation");
    fs::write(&ca_file, "nothing").unwrap();
    wait_until(|| gateway.metric("mxgate_config_last_reload_successful") == 0.0);
    assert_eq!(ask(&gateway), served());
    assert_eq!(gateway.metric("mxgate_config_generation"), generation);
}

#[test]
fn without_a_ca_file_the_systems_roots_count() {
    let mx = mx();
    let ask_with_roots = |roots: &str| {
        let mut setup = Setup::new(&mx);
        let lines = setup.environments.lines().filter(|line| !line.starts_with("ca_file"));
        setup.environments = lines.map(|line| format!("{line}\n")).collect();
        let system = setup.file("system.pem", roots);
        // The usual way to say where the system's roots are.
        setup.variables.push(("SSL_CERT_FILE".into(), system.display().to_string()));
        ask(&setup.start())
    };
    assert_eq!(ask_with_roots(mx.authority_pem()), served());
    assert_eq!(ask_with_roots(Authority::new().unwrap().pem()), untrusted());
}

/// Asks again and again.
fn wait_until(mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "it never holds");
        thread::yield_now();
    }
}
