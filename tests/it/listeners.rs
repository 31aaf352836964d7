//! Several doors at once: TCP, TLS, a Unix socket, each to its environment.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::{UnixListener, UnixStream},
    },
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    version::{TLS12, TLS13},
};

use crate::harness::{Client, PATIENCE, Setup, mx, mx_with, until};

/// One that ends the connection, so that reading to its end reads the answer.
const LAST: &str = "GET /users HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
/// One whose answer is ours, with its length.
const UNKNOWN: &str = "GET /no/such/thing HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn everything(mut stream: impl Read) -> String {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// Reads the answer to [`UNKNOWN`].
fn is_unknown(stream: &mut impl Read) {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"}\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        bytes.push(byte[0]);
    }
    assert!(bytes.starts_with(b"HTTP/1.1 404 "), "{}", String::from_utf8_lossy(&bytes));
}

#[test]
fn each_listener_leads_to_its_environment() {
    let one = mx();
    let two = mx_with(|options| {
        options.environments[0].api_keys = vec!["another-key".into()];
        options.environments[0].bearer_tokens = vec!["another-token".into()];
    });
    let mut setup = Setup::new(&one);
    setup.file("ca2.pem", two.authority_pem());
    setup.file("key2", "another-key");
    setup.file("token2", "another-token");
    setup.listeners += "[[listener]]\naddress = \"127.0.0.1:0\"\nenvironment = \"other\"\n";
    let socket = setup.folder().join("other.sock");
    setup.listeners +=
        &format!("[[listener]]\naddress = \"unix:{}\"\nenvironment = \"other\"\n", socket.display());
    let other = setup.environment("other", two.address()).replace("ca.pem", "ca2.pem");
    setup.environments += &other.replace("/key\"", "/key2\"").replace("/token\"", "/token2\"");
    let gateway = setup.start();
    let ask = |address: SocketAddr| {
        let mut client = Client::connect(address);
        client.request("GET /users HTTP/1.1", "");
        client.answer().status
    };
    assert_eq!(ask(gateway.addresses[0]), 200);
    assert_eq!((one.received(), two.received()), (1, 0));
    assert_eq!(ask(gateway.addresses[1]), 200);
    assert_eq!((one.received(), two.received()), (1, 1));
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.write_all(LAST.as_bytes()).unwrap();
    assert!(everything(stream).starts_with("HTTP/1.1 200 "));
    assert_eq!((one.received(), two.received()), (1, 2));
    for (listener, environment) in
        [(gateway.addresses[0].to_string(), "test"), (format!("unix:{}", socket.display()), "other")]
    {
        let record = gateway.record(|record| record["listener"] == *listener);
        assert_eq!(record["environment"], environment);
    }
}

fn on_unix(setup: &mut Setup, path: &Path) {
    setup.listeners =
        format!("[[listener]]\naddress = \"unix:{}\"\nenvironment = \"test\"\n", path.display());
}

#[test]
fn a_unix_socket_serves_its_group_and_goes_with_the_gateway() {
    let mx = mx();
    let mut setup = Setup::new(&mx).top("allow = []");
    let path = setup.folder().join("mx.sock");
    on_unix(&mut setup, &path);
    // What a gateway that was killed leaves behind.
    drop(UnixListener::bind(&path).unwrap());
    let mut gateway = setup.start();
    let metadata = fs::metadata(&path).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o660);

    let mut stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // No browser reaches it, so `Host` is not compared with anything; no network, so `allow` neither.
    stream.write_all(b"GET /users HTTP/1.1\r\nHost: anything.example\r\nConnection: close\r\n\r\n").unwrap();
    assert!(everything(stream).starts_with("HTTP/1.1 200 "));
    let record = gateway.record(|record| record["decision"] == "allowed");
    assert!(record["caller_address"].is_null());
    assert_eq!(record["peer_uid"], rustix::process::getuid().as_raw());
    // The gate is the same.
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(b"GET /users HTTP/1.1\nHost: x\n\n").unwrap();
    assert!(everything(stream).starts_with("HTTP/1.1 400 "));
    assert_eq!(mx.received(), 1);

    gateway.signal("TERM");
    assert!(gateway.wait().success());
    assert!(!path.exists());
}

#[test]
fn a_unix_socket_in_use_and_a_file_that_is_none_are_not_replaced() {
    let mx = mx();
    let mut setup = Setup::new(&mx);
    let path = setup.folder().join("mx.sock");
    on_unix(&mut setup, &path);
    let configuration =
        setup.file("again.toml", &setup.configuration().replace("127.0.0.1:9090", "127.0.0.1:0"));
    let start_fails = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mxgate"));
        let output = command.args(["run", "--config"]).arg(&configuration).env_clear().output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("mx.sock"));
    };
    fs::write(&path, "somebody's notes").unwrap();
    start_fails();
    assert_eq!(fs::read_to_string(&path).unwrap(), "somebody's notes");
    fs::remove_file(&path).unwrap();

    let gateway = setup.start();
    start_fails();
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(LAST.as_bytes()).unwrap();
    assert!(everything(stream).starts_with("HTTP/1.1 200 "), "the first one still serves");
    drop(gateway);
}

/// A certificate and its key, as PEM.
fn certificate() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

/// A gateway's setup with TLS, and the certificate.
fn with_tls(setup: Setup) -> (Setup, String) {
    let (certificate, key) = certificate();
    let (chain, key) = (setup.file("tls.pem", &certificate), setup.file("tls-key.pem", &key));
    let tls = format!("tls = {{ certificate = \"{}\", key = \"{}\" }}", chain.display(), key.display());
    (setup.in_listener(&tls), certificate)
}

fn handshake_of(certificate: &str, version: &'static SupportedProtocolVersion) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    ClientConnection::new(Arc::new(config), ServerName::try_from("127.0.0.1").unwrap()).unwrap()
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

fn connect(address: SocketAddr, certificate: &str, version: &'static SupportedProtocolVersion) -> Tls {
    StreamOwned::new(handshake_of(certificate, version), Client::connect(address).stream)
}

#[test]
fn a_tls_listener_speaks_tls_1_2_and_1_3_and_nothing_else() {
    let mx = mx();
    let (setup, certificate) = with_tls(Setup::new(&mx));
    let gateway = setup.start();
    for version in [&TLS12, &TLS13] {
        let mut stream = connect(gateway.addresses[0], &certificate, version);
        stream.write_all(UNKNOWN.as_bytes()).unwrap();
        is_unknown(&mut stream);
        stream.write_all(LAST.as_bytes()).unwrap();
        // rustls calls an end without a farewell an error.
        assert!(everything(&mut stream).starts_with("HTTP/1.1 200 "));
    }
    // The gate is behind it.
    let mut stream = connect(gateway.addresses[0], &certificate, &TLS13);
    stream.write_all(b"GET /users HTTP/1.1\r\nHost: localhost\r\nX : y\r\n\r\n").unwrap();
    assert!(everything(&mut stream).starts_with("HTTP/1.1 400 "));
    assert_eq!(mx.received(), 2);

    let hello = |version| {
        let mut client = gateway.connect();
        client.raw(&client_hello(version));
        let mut record = [0; 7];
        client.stream.read_exact(&mut record).unwrap();
        (record[0], record[5], client)
    };
    assert_eq!(hello(0x03).0, 0x16, "TLS 1.2: the handshake goes on");
    for old in [0x02, 0x01, 0x00] {
        let (kind, level, mut client) = hello(old);
        assert_eq!((kind, level), (0x15, 2), "a fatal alert");
        assert_eq!(client.rest(), b"");
    }

    let mut client = gateway.connect();
    client.raw(LAST.as_bytes());
    let rest = client.rest();
    assert!(!String::from_utf8_lossy(&rest).contains("HTTP"), "{rest:?}");
    assert_eq!(mx.received(), 2);
}

/// A ClientHello without `supported_versions`, so its own version (3.x) counts.
fn client_hello(minor: u8) -> Vec<u8> {
    let mut hello = vec![3, minor];
    hello.extend([7; 32]);
    // No session; ECDHE-ECDSA with AES-GCM and with AES-CBC; no compression.
    hello.extend([0, 0, 4, 0xc0, 0x2b, 0xc0, 0x09, 1, 0]);
    // Groups, signatures and points of P-256.
    let extensions = [0, 10, 0, 4, 0, 2, 0, 23, 0, 13, 0, 4, 0, 2, 4, 3, 0, 11, 0, 2, 1, 0];
    hello.extend([0, extensions.len() as u8]);
    hello.extend(extensions);
    let len = hello.len() as u8;
    [&[0x16, 3, 1, 0, len + 4, 1, 0, 0, len][..], &hello].concat()
}

/// Nothing more comes on the socket that could wake anybody.
#[test]
fn a_request_that_comes_with_the_handshakes_last_message_is_served() {
    let mx = mx();
    let (setup, certificate) = with_tls(Setup::new(&mx));
    let gateway = setup.start();
    for version in [&TLS12, &TLS13] {
        let mut tls = handshake_of(&certificate, version);
        let mut socket = gateway.connect().stream;
        tls.writer().write_all(LAST.as_bytes()).unwrap();
        let began = Instant::now();
        while tls.is_handshaking() {
            let mut flight = Vec::new();
            while tls.wants_write() {
                tls.write_tls(&mut flight).unwrap();
            }
            socket.write_all(&flight).unwrap();
            if tls.is_handshaking() {
                tls.read_tls(&mut socket).unwrap();
                tls.process_new_packets().unwrap();
            }
        }
        assert!(everything(StreamOwned::new(tls, socket)).starts_with("HTTP/1.1 200 "));
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
}

#[test]
fn a_handshake_that_stalls_is_bounded() {
    let mx = mx();
    let (setup, certificate) = with_tls(Setup::new(&mx));
    let gateway = setup.table("[limits]\nheader_read_timeout_ms = 300").start();
    for start in [&b""[..], &[0x16, 3, 1, 2, 0, 1, 0]] {
        let mut client = gateway.connect();
        client.raw(start);
        let began = Instant::now();
        assert_eq!(client.rest(), b"");
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(250) && took < Duration::from_secs(5), "{took:?}");
    }
    let mut stream = connect(gateway.addresses[0], &certificate, &TLS13);
    stream.write_all(LAST.as_bytes()).unwrap();
    assert!(everything(stream).starts_with("HTTP/1.1 200 "));
    until("places are back", || gateway.metric("mxgate_caller_connections_open ") == 0.0);
}

#[test]
fn an_idle_tls_connection_is_parked_and_serves_again() {
    let mx = mx();
    let (setup, certificate) = with_tls(Setup::new(&mx));
    let gateway = setup.start();
    for version in [&TLS12, &TLS13] {
        let mut stream = connect(gateway.addresses[0], &certificate, version);
        for _ in 0..2 {
            stream.write_all(UNKNOWN.as_bytes()).unwrap();
            is_unknown(&mut stream);
            stream.sock.set_read_timeout(Some(Duration::from_millis(900))).unwrap();
            let nothing = stream.read(&mut [0; 1]).unwrap_err();
            assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
            stream.sock.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        // Two in one record: the second is in TLS's buffer when the first is served.
        stream.write_all([UNKNOWN, LAST].concat().as_bytes()).unwrap();
        is_unknown(&mut stream);
        assert!(everything(stream).starts_with("HTTP/1.1 200 "));
    }
    assert_eq!(gateway.metric("mxgate_caller_connections_accepted_total"), 2.0);
}

/// What a connection may wait for a request, it may wait for a whole TLS record: bytes win it no time.
#[test]
fn a_tls_record_that_drips_is_waited_for_no_longer_than_a_request() {
    let mx = mx();
    let (setup, certificate) = with_tls(Setup::new(&mx));
    let gateway = setup.table("[limits]\nidle_timeout_ms = 4000\nheader_read_timeout_ms = 1000").start();
    // A first request is waited for as long as for a head, and a further one as long as it may be idle.
    let ms = Duration::from_millis;
    for (asks_first, window) in [(false, ms(700)..ms(3500)), (true, ms(3500)..ms(8000))] {
        let mut stream = connect(gateway.addresses[0], &certificate, &TLS13);
        if asks_first {
            stream.write_all(UNKNOWN.as_bytes()).unwrap();
            is_unknown(&mut stream);
        } else {
            while stream.conn.is_handshaking() {
                stream.conn.complete_io(&mut stream.sock).unwrap();
            }
        }
        let mut socket = stream.sock;
        socket.set_nonblocking(true).unwrap();
        let began = Instant::now();
        // The start of a record of 16 KiB, of which hardly a millisecond goes by without a byte.
        socket.write_all(&[0x17, 3, 3, 0x40, 0]).unwrap();
        let mut told = [0; 256];
        while began.elapsed() < window.end && socket.write_all(b"x").is_ok() {
            std::thread::park_timeout(Duration::from_micros(500));
            match socket.read(&mut told) {
                // Tickets, and the farewell, are records as well.
                Ok(1..) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => break,
            }
        }
        let took = began.elapsed();
        assert!(window.contains(&took), "{asks_first}: {took:?}");
    }
}

/// RFC 9110, 7.4: what is asked for by `https` is answered over TLS only.
#[test]
fn a_target_of_https_needs_tls_or_a_proxy_that_is_believed() {
    const SECURE: &str =
        "GET https://localhost/users HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let mx = mx();
    let (mut setup, certificate) = with_tls(Setup::new(&mx));
    let unix = setup.folder().join("plain.sock");
    setup.listeners.push_str(&format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\nenvironment = \"test\"\n\
         [[listener]]\naddress = \"127.0.0.1:0\"\nenvironment = \"test\"\nproxy_protocol = true\n\
         [[listener]]\naddress = \"unix:{}\"\nenvironment = \"test\"\n",
        unix.display()
    ));
    let gateway = setup.top("allow = [\"127.0.0.0/8\"]\ntrusted_proxies = [\"127.0.0.4/32\"]").start();
    let [with_tls, plain, behind_proxy] = gateway.addresses[..] else { panic!("three addresses") };
    let from = |source: &str, address, start: &str| {
        let mut client = Client::connect_from(source.parse().unwrap(), address);
        client.raw([start, SECURE].concat().as_bytes());
        String::from_utf8_lossy(&client.rest()).into_owned()
    };
    let mut tls = connect(with_tls, &certificate, &TLS13);
    tls.write_all(SECURE.as_bytes()).unwrap();
    let named = "PROXY TCP4 127.0.0.7 127.0.0.1 5000 8080\r\n";
    for served in [everything(tls), from("127.0.0.4", plain, ""), from("127.0.0.4", behind_proxy, named)] {
        assert!(served.starts_with("HTTP/1.1 200 "), "{served}");
    }
    let mut unix = UnixStream::connect(unix).unwrap();
    unix.write_all(SECURE.as_bytes()).unwrap();
    for refused in [from("127.0.0.5", plain, ""), everything(unix)] {
        assert!(
            refused.starts_with("HTTP/1.1 421 ") && refused.contains("\"misdirected_request\""),
            "{refused}"
        );
    }
    assert_eq!(mx.received(), 3);
}

#[test]
fn a_new_certificate_is_taken_up_and_old_connections_go_on() {
    let mx = mx();
    let (setup, old) = with_tls(Setup::new(&mx));
    let gateway = setup.start();
    let mut before = connect(gateway.addresses[0], &old, &TLS13);
    before.write_all(UNKNOWN.as_bytes()).unwrap();
    is_unknown(&mut before);
    let serves = |certificate: &str| {
        let mut stream = connect(gateway.addresses[0], certificate, &TLS13);
        stream.write_all(LAST.as_bytes()).is_ok() && everything(stream).starts_with("HTTP/1.1 200 ")
    };
    assert!(serves(&old));

    let (new, key) = certificate();
    // A pair that does not fit changes nothing.
    gateway.setup.file("tls.pem", &new);
    gateway.signal("HUP");
    until("the fault is seen", || gateway.metric("mxgate_config_last_reload_successful") == 0.0);
    assert!(serves(&old) && !serves(&new));

    gateway.setup.file("tls-key.pem", &key);
    gateway.signal("HUP");
    until("the new one is there", || serves(&new));
    assert!(!serves(&old));
    before.write_all(LAST.as_bytes()).unwrap();
    assert!(everything(before).starts_with("HTTP/1.1 200 "));
}
