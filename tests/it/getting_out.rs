//! The way out: a proxy, a source address, names that lead inside, pinned keys.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use mxgate::{
    config::Pin,
    redaction::Masker,
    stand_in::{
        Running,
        certificate::{Authority, Validity},
    },
    vault::secret::Secret,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};

use crate::{
    connect_proxy::{ConnectProxy, Deed},
    free_address::free_address,
    harness::{API_KEY, CLIENT_ID, Gateway, Setup, last, lines, mx, mx_with, until},
    raw_upstream::{RawUpstream, ok},
};

const PASSWORD: &str = "pr0xy-passw0rd-of-the-test";
const ONE_WORKER: &str = "[process]\nworkers = 1";
const MX_HOST: &str = "api.mx.com";

fn ask(gateway: &Gateway) -> (u16, String) {
    let answer = gateway.get("/users", "");
    (answer.status, answer.code())
}

fn served() -> (u16, String) {
    (200, String::new())
}

fn failed(code: &str) -> (u16, String) {
    (502, code.to_owned())
}

/// MX by its name, which nothing here could look up, through `proxy`.
fn through(mx: &Running, proxy: SocketAddr, login: &str) -> Setup {
    let mut setup = Setup::new(mx);
    setup.file("password", PASSWORD);
    setup.environments = setup.environments.replace(&mx.address().to_string(), MX_HOST);
    let password = setup.folder().join("password").display().to_string();
    let login = login.replace("PASSWORD", &format!("file:{password}"));
    setup.in_environment(&format!("proxy = {{ url = \"http://{proxy}\"{login} }}")).table(ONE_WORKER)
}

const LOGIN: &str = ", username = \"mxgate\", password = \"PASSWORD\"";

fn basic() -> String {
    BASE64_STANDARD.encode(format!("mxgate:{PASSWORD}"))
}

fn holds(bytes: &[u8], secret: &str) -> bool {
    let secret = Secret::new(secret.as_bytes().to_vec()).unwrap();
    Masker::new([&secret]).is_hit(bytes)
}

#[test]
fn a_proxy_is_told_the_host_and_the_password_and_nothing_of_mx() {
    let mx = mx();
    let to = mx.address();
    let right = format!("Proxy-Authorization: Basic {}\r\n", basic());
    let wanted = right.clone();
    let proxy = ConnectProxy::start(move |head| match head.contains(&wanted) {
        true => Deed::Tunnel(to),
        false => Deed::Say(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n".into()),
    });
    let gateway = through(&mx, proxy.address, LOGIN).start();
    assert_eq!((ask(&gateway), ask(&gateway)), (served(), served()));
    // One connection, and so one question.
    let host = format!("{MX_HOST}:443");
    assert_eq!(proxy.heads(), [format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n{right}\r\n")]);
    let carried = proxy.carried();
    assert!(!carried.is_empty() && !holds(&carried, API_KEY) && !holds(&carried, CLIENT_ID));
    assert!(holds(proxy.heads()[0].as_bytes(), PASSWORD), "the search finds what is there");
    let request = last(&mx);
    assert_eq!(request.headers["host"], MX_HOST);
    assert!(!holds(&request.head, PASSWORD) && holds(&request.head, API_KEY));
    assert!(lines(&request).iter().all(|line| !line.to_lowercase().starts_with("proxy-")));

    // No login, or another password: the proxy refuses, and nothing reaches MX.
    for login in ["", LOGIN] {
        let setup = through(&mx, proxy.address, login);
        setup.file("password", "an0ther-passw0rd");
        let gateway = setup.start();
        assert_eq!((ask(&gateway), mx.received()), (failed("proxy_failed"), 2));
        gateway.stderr.wait_for(|line| line.contains("(407)"));
        let said = gateway.stderr.bytes();
        assert!(!holds(&said, "an0ther-passw0rd"), "{}", gateway.stderr.text());
    }
}

#[test]
fn each_way_in_which_a_proxy_fails_is_told_apart_in_the_log_and_nothing_is_sent() {
    let mx = mx();
    let long = [b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &[b'x'; 9000], b"\r\n\r\n"].concat();
    let echo = format!("HTTP/1.1 200 OK\r\n\r\nyou said {}", basic()).into_bytes();
    let say = |text: &str| Deed::Say(text.as_bytes().to_vec());
    for (deed, log) in [
        (say("HTTP/1.1 407 Who?\r\nProxy-Authenticate: Basic\r\n\r\n"), "wants to know who we are (407)"),
        (say("HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno"), "does not let us go there (403)"),
        (
            say("HTTP/1.1 502 Bad gateway\r\n\r\n"),
            "could not connect to the host, or did not find its name (502)",
        ),
        (say("HTTP/1.1 302 Found\r\nLocation: http://x/\r\n\r\n"), "answered 302 to CONNECT"),
        (say("HTTP/1.1 100 Continue\r\n\r\n"), "answered 100 to CONNECT"),
        (say("SSH-2.0-OpenSSH_9.6\r\n"), "is no answer of HTTP/1"),
        (say("HTTP/1.1 200 OK\r\nX: y"), "closed the connection without an answer"),
        (say(""), "closed the connection without an answer"),
        (Deed::Say(long), "is longer than 8192 bytes"),
        (Deed::Say(echo), "sent something after its answer"),
        (Deed::Nothing, "did not answer CONNECT in time"),
    ] {
        let proxy = ConnectProxy::that(deed);
        let gateway = through(&mx, proxy.address, LOGIN).in_environment("connect_timeout_ms = 500").start();
        assert_eq!(ask(&gateway), failed("proxy_failed"), "{log}");
        gateway.stderr.wait_for(|line| line.contains(log));
        assert_eq!(proxy.heads().len(), 1, "{log}");
        assert!(!holds(&gateway.stderr.bytes(), PASSWORD), "{log}");
    }
    assert_eq!(mx.received(), 0);
    // Nobody there is no proxy that failed.
    let closed = free_address();
    assert_eq!(ask(&through(&mx, closed, "").start()), failed("upstream_unreachable"));
}

#[test]
fn a_proxy_that_is_not_mx_is_not_trusted_as_mx() {
    let (mx, other) = (mx(), mx());
    let to = other.address();
    let proxy = ConnectProxy::that(Deed::Tunnel(to));
    // The right name, and the certificate of another authority: what an inspecting proxy shows.
    let gateway = through(&mx, proxy.address, "").start();
    assert_eq!((ask(&gateway), other.received()), (failed("upstream_untrusted"), 0));
    assert!(!holds(&proxy.carried(), API_KEY));
    // The same with that authority trusted.
    let to = mx.address();
    let proxy = ConnectProxy::that(Deed::Tunnel(to));
    assert_eq!(ask(&through(&mx, proxy.address, "").start()), served());
}

#[test]
fn a_proxys_password_goes_to_no_host_that_it_is_not_sealed_for() {
    use mxgate::vault::embedded::{self, Identity};
    let mx = mx();
    let proxy = ConnectProxy::that(Deed::Tunnel(mx.address()));
    let start = |hosts: &str| {
        let setup =
            through(&mx, proxy.address, ", username = \"mxgate\", password = \"vault:proxy/password\"");
        let folder = setup.folder().display().to_string();
        let (vault, key) = (setup.folder().join("vault.age"), setup.folder().join("identity"));
        let identity = Identity::create(&key).unwrap();
        embedded::create(&vault, &identity).unwrap();
        let secret = Secret::new(PASSWORD.into()).unwrap();
        embedded::set(&vault, &identity, "proxy/password", secret, Some(vec![hosts.into()])).unwrap();
        let table = format!(
            "[vault]\nkind = \"file\"\npath = \"{folder}/vault.age\"\nidentity = \"file:{folder}/identity\""
        );
        setup.table(&table).start()
    };
    assert_eq!(ask(&start("127.0.0.1")), served());
    let gateway = start(MX_HOST);
    assert_eq!(ask(&gateway), (503, "not_ready".into()));
    gateway.stderr.wait_for(|line| {
        line.contains("vault:proxy/password is sealed for api.mx.com and may not be sent to 127.0.0.1")
    });
    assert_eq!(proxy.heads().len(), 1);
}

#[test]
fn a_proxys_password_that_was_revoked_is_told_to_no_proxy() {
    let mx = mx();
    let proxy = ConnectProxy::that(Deed::Tunnel(mx.address()));
    // Each request wants a connection of its own.
    let gateway = through(&mx, proxy.address, LOGIN).in_environment("connection_age_max_ms = 1000").start();
    assert_eq!(ask(&gateway), served());
    std::fs::remove_file(gateway.setup.folder().join("password")).unwrap();
    until("there is no way out without it", || ask(&gateway) == (503, "credential_unavailable".into()));
    gateway.stderr.wait_for(|line| line.contains("the proxy was told nothing"));
    let told = proxy.heads().len();
    assert_eq!((ask(&gateway), proxy.heads().len()), ((503, "credential_unavailable".into()), told));
    gateway.setup.file("password", PASSWORD);
    until("it is back", || ask(&gateway) == served());
    assert_eq!(proxy.heads().len(), told + 1);
}

/// An upstream that keeps the addresses of those who ask.
fn asked_from() -> (RawUpstream, Arc<Mutex<Vec<String>>>) {
    let peers = Arc::<Mutex<Vec<String>>>::default();
    let kept = peers.clone();
    let upstream = RawUpstream::start(move |_, wire| {
        kept.lock().unwrap().push(wire.tls.sock.peer_addr()?.ip().to_string());
        wire.say_always(ok("{}"))
    });
    (upstream, peers)
}

#[test]
fn connections_leave_from_the_address_that_is_configured() {
    let (upstream, peers) = asked_from();
    assert_eq!(ask(&upstream.setup().start()), served());
    let mut gateway = upstream.setup().table(ONE_WORKER).in_environment("bind = \"127.0.0.7\"").start();
    assert_eq!((ask(&gateway), ask(&gateway)), (served(), served()));
    assert_eq!(*peers.lock().unwrap(), ["127.0.0.1", "127.0.0.7"]);
    // Another one counts from the next request on, and the pool of the old one is retired.
    gateway.setup.environments = gateway.setup.environments.replace("127.0.0.7", "127.0.0.8");
    gateway.reconfigure();
    until("it leaves from the other address", || {
        ask(&gateway) == served() && peers.lock().unwrap().last().is_some_and(|last| last == "127.0.0.8")
    });
    upstream.wait_for_ends(2);

    // An address that is not this machine's is not exchanged for another.
    let gateway = upstream.setup().in_environment("bind = \"192.0.2.1\"").start();
    let count = upstream.connections();
    assert_eq!((ask(&gateway), upstream.connections()), (failed("upstream_unreachable"), count));
    gateway.stderr.wait_for(|line| line.contains("cannot leave from 192.0.2.1"));

    // To a proxy too.
    let mx = mx();
    let proxy = ConnectProxy::that(Deed::Tunnel(mx.address()));
    let gateway = through(&mx, proxy.address, "").in_environment("bind = \"127.0.0.9\"").start();
    assert_eq!((ask(&gateway), proxy.peers()), (served(), vec!["127.0.0.9".parse().unwrap()]));
}

#[test]
fn a_name_that_leads_inside_is_refused_and_not_dialled() {
    let mx = mx();
    // The gateway's own view of /etc/hosts says where the name leads.
    let start = |host: &str, lines: &str| {
        let mut setup = Setup::new(&mx);
        setup.file("hosts", &format!("127.0.0.1 {MX_HOST}\n127.0.0.1 localhost\n"));
        let hosts = setup.folder().join("hosts").display().to_string();
        setup.prelude = format!(
            "own=-m; unshare -m true 2>/dev/null || own=-Urm\n\
             exec unshare $own sh -c 'mount --bind {hosts} /etc/hosts && exec \"$@\"' sh \"$@\""
        );
        let port = mx.address().port();
        setup.environments = setup.environments.replace(&mx.address().to_string(), &format!("{host}:{port}"));
        setup.in_environment(lines).start()
    };
    assert_eq!(ask(&start(MX_HOST, "private_addresses = \"allowed\"")), served());
    assert_eq!(ask(&start("localhost", "")), served());
    let connections = mx.connections();
    let gateway = start(MX_HOST, "");
    assert_eq!(ask(&gateway), failed("upstream_address_refused"));
    gateway.stderr.wait_for(|line| line.contains("the name leads to 127.0.0.1"));
    assert_eq!(mx.connections(), connections);
}

/// The pin of the first certificate in `pem`.
fn pin(pem: &str) -> Pin {
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    Pin::of(&webpki::EndEntityCert::try_from(&certificate).unwrap().subject_public_key_info())
}

fn pins(some: &[Pin]) -> String {
    let texts: Vec<String> = some.iter().map(|pin| format!("\"{pin}\"")).collect();
    format!("pins = [{}]", texts.join(", "))
}

#[test]
fn one_of_the_pinned_keys_must_be_in_the_verified_chain() {
    let (ours, other) = (Authority::new().unwrap(), Authority::new().unwrap());
    let certificate = ours.issue(&["127.0.0.1"], Validity::Valid).unwrap();
    let (leaf, root) = (pin(certificate.pem()), pin(ours.pem()));
    let (lost, backup) = (Pin::of(b"lost"), Pin::of(b"backup"));
    let mx = mx_with(|options| options.certificate = Some(certificate));
    let ask_with = |some: &[Pin], roots: &str| {
        let gateway = Setup::at(mx.address(), roots).in_environment(&pins(some)).start();
        (ask(&gateway), gateway)
    };
    for some in [[leaf, backup], [lost, leaf], [root, backup]] {
        assert_eq!(ask_with(&some, ours.pem()).0, served(), "{some:?}");
    }
    let received = mx.received();
    let (answer, gateway) = ask_with(&[lost, backup], ours.pem());
    assert_eq!((answer, mx.received()), (failed("upstream_untrusted"), received));
    // The log says which key it shows, so that a pin can be made of it.
    gateway.stderr.wait_for(|line| line.contains(&leaf.to_string()) && line.contains("among `pins`"));
    // A pin is no reason to trust what does not verify.
    assert_eq!(ask_with(&[leaf, root], other.pem()).0, failed("upstream_untrusted"));
    assert_eq!(mx.received(), received);
}

#[test]
fn a_certificate_that_is_only_sent_along_proves_nothing() {
    let (ours, other) = (Authority::new().unwrap(), Authority::new().unwrap());
    let certificate = ours.issue(&["127.0.0.1"], Validity::Valid).unwrap();
    let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let chain = vec![der(certificate.pem()), der(other.pem())];
    let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(certificate.key_pem().as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = builder.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap();
    let upstream = RawUpstream::with(config, ours.pem(), |_, wire| wire.say_always(ok("{}")));
    let with = |some: &[Pin]| ask(&upstream.setup().in_environment(&pins(some)).start());
    assert_eq!(with(&[pin(other.pem()), pin(certificate.pem())]), served());
    assert_eq!(with(&[pin(other.pem()), Pin::of(b"backup")]), failed("upstream_untrusted"));
    assert_eq!(upstream.requests(), 1);
}

#[test]
fn changed_pins_and_a_changed_proxy_retire_the_connections_that_were_open() {
    let mx = mx();
    let proxy = ConnectProxy::that(Deed::Tunnel(mx.address()));
    let mut gateway = through(&mx, proxy.address, LOGIN).start();
    assert_eq!(ask(&gateway), served());
    assert_eq!(mx.connections(), 1);
    // A new password: the tunnel that the old one opened is not used again.
    gateway.setup.file("password", "an0ther-passw0rd");
    until("the new password is told", || ask(&gateway) == served() && mx.connections() == 2);
    assert!(proxy.heads()[1].contains(&BASE64_STANDARD.encode("mxgate:an0ther-passw0rd")));
    until("the old tunnel is closed", || gateway.metric("mxgate_upstream_connections_open ") == 1.0);
    let open = gateway.setup.environments.clone();
    gateway.setup.environments += &format!("{}\n", pins(&[Pin::of(b"another"), Pin::of(b"backup")]));
    gateway.reconfigure();
    until("the pins count", || ask(&gateway) == failed("upstream_untrusted"));
    until("nothing stays open", || gateway.metric("mxgate_upstream_connections_open ") == 0.0);
    gateway.setup.environments = open;
    gateway.reconfigure();
    until("they are gone", || ask(&gateway) == served());
}
