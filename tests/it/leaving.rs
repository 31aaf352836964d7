//! Callers that leave: in every state of a request and in every way, what it held is let go within a second.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc::{self, Receiver},
    },
    time::{Duration, Instant},
};

use mxgate::stand_in::certificate::{Authority, Validity};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use crate::{
    harness::{Gateway, PATIENCE, Setup, until},
    raw_upstream::RawUpstream,
};

const ONE_WORKER: &str = "[process]\nworkers = 1";

/// In which state of its request a caller leaves.
#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    /// Its request was sent; nothing of the answer has come.
    FirstByte,
    /// Some of its body, of a known length, was sent.
    Upload,
    /// Some chunks of its body were sent.
    ChunkedUpload,
    /// Some of the answer has come, and no more comes for now.
    Download,
    /// Much more of the answer would come, and it reads no more.
    FullDownload,
    /// The same, with more requests behind it than the gateway reads ahead.
    FullDownloadAhead,
    /// The same, while its own body is not taken.
    StuckUpload,
}

const STATES: [State; 7] = [
    State::FirstByte,
    State::Upload,
    State::ChunkedUpload,
    State::Download,
    State::FullDownload,
    State::FullDownloadAhead,
    State::StuckUpload,
];

/// How it leaves.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Leave {
    Fin,
    Reset,
    /// FIN, and it stays for the answer.
    HalfClose,
    /// TLS in good order: close_notify, then FIN.
    TlsClose,
    /// FIN without close_notify.
    TlsFin,
    TlsHalfClose,
}

impl Leave {
    const ALL: [Self; 6] =
        [Self::Fin, Self::Reset, Self::HalfClose, Self::TlsClose, Self::TlsFin, Self::TlsHalfClose];

    fn has_tls(self) -> bool {
        matches!(self, Self::TlsClose | Self::TlsFin | Self::TlsHalfClose)
    }
}

/// How soon an exchange is to be released.
const RELEASE_MAX: Duration = Duration::from_secs(1);

/// An upstream that sees its peers leave.
struct Watching {
    upstream: RawUpstream,
    /// When each has.
    left: Receiver<Instant>,
    /// How often it has said more of an answer without an end.
    said: Arc<AtomicUsize>,
}

impl Watching {
    /// Waits until no more of an answer is taken: what is between the upstream and its reader is full.
    fn until_full(&self) {
        let mut last = (usize::MAX, Instant::now());
        until("nothing more is taken", || {
            let said = self.said.load(Relaxed);
            if said != last.0 {
                last = (said, Instant::now());
            }
            last.1.elapsed() > Duration::from_millis(200)
        });
    }
}

fn watching() -> Watching {
    let (tell, left) = mpsc::channel();
    let tell = Mutex::new(tell);
    let said = Arc::new(AtomicUsize::new(0));
    let saying = said.clone();
    let upstream = RawUpstream::start(move |_, wire| {
        let head = wire.head()?;
        if head.starts_with("GET /users/half") {
            wire.say("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nhalf")?;
        }
        if head.starts_with("GET /users/full") || head.starts_with("POST /users?full") {
            wire.say("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")?;
            while wire.say([b'x'; 16 * 1024]).is_ok() {
                saying.fetch_add(1, Relaxed);
            }
        }
        wire.peer_leaves();
        let at = Instant::now();
        tell.lock().unwrap().send(at).map_err(io::Error::other)
    });
    Watching { upstream, left, said }
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// Asks up to `state`.
fn ask_until(stream: &mut dyn Stream, state: State, watching: &Watching) {
    let start = |line: &str| format!("{line} HTTP/1.1\r\nHost: localhost\r\n");
    let text = match state {
        State::FirstByte => start("GET /users/none") + "\r\n",
        State::Upload => start("POST /users") + "Content-Length: 1000\r\n\r\n{\"user\":",
        State::ChunkedUpload => start("POST /users") + "Transfer-Encoding: chunked\r\n\r\n4\r\n{\"us\r\n",
        State::Download => start("GET /users/half") + "\r\n",
        State::FullDownload | State::FullDownloadAhead => start("GET /users/full") + "\r\n",
        State::StuckUpload => start("POST /users?full") + "Content-Length: 9000000\r\n\r\n",
    };
    stream.write_all(text.as_bytes()).unwrap();
    stream.flush().unwrap();
    if matches!(state, State::Download | State::FullDownload | State::FullDownloadAhead) {
        assert!(stream.read(&mut [0; 64]).unwrap() > 0);
    }
    // Only what finds everything full stays unread; more than a socket takes would keep a FIN back that comes behind it.
    let behind = match state {
        State::FullDownloadAhead => (start("GET /users/none") + "\r\n").repeat(1000),
        State::StuckUpload => "x".repeat(64 * 1024),
        _ => return,
    };
    watching.until_full();
    stream.write_all(behind.as_bytes()).unwrap();
    stream.flush().unwrap();
}

/// What is left of the connection, for whoever stays.
fn leave(stream: TcpStream, tls: Option<ClientConnection>, how: Leave) -> Option<TcpStream> {
    match (how, tls) {
        (Leave::Reset, _) => {
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
        (Leave::HalfClose | Leave::TlsHalfClose, _) => {
            stream.shutdown(Shutdown::Write).unwrap();
            return Some(stream);
        }
        (Leave::TlsClose, Some(mut tls)) => {
            tls.send_close_notify();
            // It may be full of an answer that is not read.
            stream.set_nonblocking(true).unwrap();
            let _ = tls.write_tls(&mut &stream);
        }
        _ => {}
    }
    stream.shutdown(Shutdown::Both).unwrap_or_default();
    None
}

#[test]
fn a_caller_that_leaves_releases_its_exchange_within_a_second_whatever_it_was_doing() {
    let watching = watching();
    let mut setup = watching.upstream.setup();
    let certificate = Authority::new().unwrap().issue(&["localhost"], Validity::Valid).unwrap();
    let (chain, key) =
        (setup.file("tls.pem", certificate.pem()), setup.file("key.pem", certificate.key_pem()));
    setup.listeners.push_str(&format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\nenvironment = \"test\"\n\
         tls = {{ certificate = \"{}\", key = \"{}\" }}\n",
        chain.display(),
        key.display()
    ));
    let gateway = setup.table(ONE_WORKER).start();
    // Its worker has come round: it has all that it has when idle.
    assert_eq!(gateway.get("/nothing", "").code(), "unknown_operation");
    let before = gateway.descriptors();
    let mut slowest = Duration::ZERO;
    for how in Leave::ALL {
        for state in STATES {
            // On a busy machine one look may come late; three in a row do not.
            let mut took =
                (0..3).map(|_| release(&gateway, certificate.authority_pem(), &watching, state, how));
            let first = took.next().filter(|took| *took < RELEASE_MAX);
            let took = first.or_else(|| took.min()).unwrap();
            assert!(took < RELEASE_MAX, "{how:?} {state:?}: {took:?}");
            slowest = slowest.max(took);
        }
    }
    until("descriptors come back", || gateway.descriptors() <= before + 1);
    println!("released after {slowest:?} at most; {before} descriptors before and after");
}

fn release(
    gateway: &Gateway,
    authority_pem: &str,
    watching: &Watching,
    state: State,
    how: Leave,
) -> Duration {
    let mut stream = TcpStream::connect(gateway.addresses[usize::from(how.has_tls())]).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let asked = watching.upstream.requests();
    let tls = if how.has_tls() {
        let mut tls = StreamOwned::new(tls_client(authority_pem), stream.try_clone().unwrap());
        ask_until(&mut tls, state, watching);
        Some(tls.conn)
    } else {
        ask_until(&mut stream, state, watching);
        None
    };
    until("MX is asked", || watching.upstream.requests() > asked);
    let begun = Instant::now();
    let stays = leave(stream, tls, how);
    let left = watching.left.recv_timeout(PATIENCE).expect("its exchange is released");
    drop(stays);
    left.saturating_duration_since(begun)
}

fn tls_client(authority_pem: &str) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority_pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_root_certificates(roots).with_no_client_auth();
    ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap()
}

/// It has no exchange yet, and must not come to have one.
#[test]
fn a_caller_that_leaves_the_line_or_a_dial_is_forgotten_within_a_second() {
    let Watching { upstream, left, .. } = watching();
    let gateway = upstream.setup().in_environment("connections_max = 1").table(ONE_WORKER).start();
    let mut first = gateway.connect();
    first.request("GET /users/none HTTP/1.1", "");
    until("the only place is taken", || upstream.requests() == 1);
    for (count, how) in [Leave::Fin, Leave::Reset].into_iter().enumerate() {
        let mut waiting = gateway.connect();
        waiting.request("DELETE /users/USR-1 HTTP/1.1", "");
        until("it is there", || gateway.metric("mxgate_caller_connections_open ") >= 2.0);
        let begun = Instant::now();
        leave(waiting.stream, None, how);
        gateway.stdout.wait_for_count("\"aborted\"", count + 1);
        assert!(begun.elapsed() < RELEASE_MAX + Duration::from_millis(500), "{:?}", begun.elapsed());
    }
    drop(first);
    left.recv_timeout(PATIENCE).unwrap();
    assert_eq!(
        (upstream.requests(), upstream.connections()),
        (1, 1),
        "who left the line was never asked for"
    );

    // An upstream that takes the connection and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = Setup::at(silent.local_addr().unwrap(), &upstream.authority_pem).table(ONE_WORKER).start();
    let mut dialling = gateway.connect();
    dialling.request("GET /users HTTP/1.1", "");
    let (mut dialled, _) = silent.accept().unwrap();
    dialled.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(dialled.read(&mut [0; 4096]).unwrap() > 0, "a ClientHello");
    let begun = Instant::now();
    drop(dialling);
    // Its end, or a reset.
    while dialled.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {}
    assert!(begun.elapsed() < RELEASE_MAX + Duration::from_millis(500), "{:?}", begun.elapsed());
}
