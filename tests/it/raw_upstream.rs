//! An upstream that says over TLS exactly what a test wants, byte for byte.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use mxgate::stand_in::certificate::{Authority, ServerCertificate, Validity};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::harness::{PATIENCE, Setup};

/// Listens until the test's process ends.
pub struct RawUpstream {
    pub address: SocketAddr,
    pub authority_pem: String,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    /// TCP connections that came.
    connections: AtomicUsize,
    /// TCP connections that are over, and whether a test waits for them.
    ended: Mutex<usize>,
    ending: Condvar,
    requests: AtomicUsize,
}

impl RawUpstream {
    /// One thread a connection runs `serve`, with the connection's number, from 0.
    pub fn start(serve: impl Fn(usize, &mut Wire) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let certificate = Authority::new().unwrap().issue(&["127.0.0.1"], Validity::Valid).unwrap();
        Self::with(server_config(&certificate, rustls::ALL_VERSIONS), certificate.authority_pem(), serve)
    }

    /// The same with a TLS setup of the test's own.
    pub fn with(
        config: ServerConfig,
        authority_pem: &str,
        serve: impl Fn(usize, &mut Wire) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let counts = Arc::new(Counts::default());
        let (config, serve, shared) = (Arc::new(config), Arc::new(serve), counts.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let number = shared.connections.fetch_add(1, Ordering::SeqCst);
                let (config, serve, shared) = (config.clone(), serve.clone(), shared.clone());
                thread::spawn(move || {
                    // How it ends is for the test to see, at the other end.
                    let _ = converse(config, stream, number, &*serve, &shared);
                    *shared.ended.lock().unwrap() += 1;
                    shared.ending.notify_all();
                });
            }
        });
        Self { address, authority_pem: authority_pem.to_owned(), counts }
    }

    pub fn setup(&self) -> Setup {
        Setup::at(self.address, &self.authority_pem)
    }

    pub fn connections(&self) -> usize {
        self.counts.connections.load(Ordering::SeqCst)
    }

    /// Request heads that were read.
    pub fn requests(&self) -> usize {
        self.counts.requests.load(Ordering::SeqCst)
    }

    /// Connections that are over.
    pub fn ended(&self) -> usize {
        *self.counts.ended.lock().unwrap()
    }

    /// Waits until so many connections are over.
    pub fn wait_for_ends(&self, count: usize) {
        let end = Instant::now() + PATIENCE;
        let mut ended = self.counts.ended.lock().unwrap();
        while *ended < count {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{ended} connections are over");
            ended = self.counts.ending.wait_timeout(ended, left).unwrap().0;
        }
    }
}

fn converse(
    config: Arc<ServerConfig>,
    stream: io::Result<TcpStream>,
    number: usize,
    serve: &dyn Fn(usize, &mut Wire) -> io::Result<()>,
    counts: &Arc<Counts>,
) -> io::Result<()> {
    let stream = stream?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let tls = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut wire = Wire { tls: StreamOwned::new(tls, stream), read: Vec::new(), counts: counts.clone() };
    serve(number, &mut wire)
}

/// One connection. Dropped, it ends with a FIN and without `close_notify`.
pub struct Wire {
    pub tls: StreamOwned<ServerConnection, TcpStream>,
    read: Vec<u8>,
    counts: Arc<Counts>,
}

impl Wire {
    /// Reads one request's head; an error at the connection's end. What follows stays for later.
    pub fn head(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = self.read.drain(..end + 4).collect();
                self.counts.requests.fetch_add(1, Ordering::SeqCst);
                return Ok(String::from_utf8_lossy(&head).into_owned());
            }
            self.more()?;
        }
    }

    /// Reads so many bytes of a body.
    pub fn body(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.read.len() < count {
            self.more()?;
        }
        Ok(self.read.drain(..count).collect())
    }

    /// Reads a chunked body.
    pub fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = loop {
                match self.read.windows(2).position(|two| two == b"\r\n") {
                    Some(end) => break self.body(end + 2)?,
                    None => self.more()?,
                }
            };
            let size = str::from_utf8(&line[..line.len() - 2]).ok();
            let size = size.and_then(|size| usize::from_str_radix(size, 16).ok());
            let size = size.ok_or(io::ErrorKind::InvalidData)?;
            let chunk = self.body(size + 2)?;
            body.extend_from_slice(&chunk[..size]);
            if size == 0 {
                return Ok(body);
            }
        }
    }

    fn more(&mut self) -> io::Result<()> {
        let mut piece = [0; 16 * 1024];
        match self.tls.read(&mut piece)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.read.extend_from_slice(&piece[..count]);
                Ok(())
            }
        }
    }

    pub fn say(&mut self, text: impl AsRef<[u8]>) -> io::Result<()> {
        self.tls.write_all(text.as_ref())?;
        self.tls.flush()
    }

    /// Says `text`, and in the same write half of the TLS record that says `more`. Gives the other half.
    pub fn say_and_half_of(&mut self, text: &str, more: &str) -> io::Result<Vec<u8>> {
        let StreamOwned { conn, sock } = &mut self.tls;
        let (mut bytes, mut record) = (Vec::new(), Vec::new());
        for (text, to) in [(text, &mut bytes), (more, &mut record)] {
            conn.writer().write_all(text.as_bytes())?;
            while conn.wants_write() {
                conn.write_tls(to)?;
            }
        }
        let rest = record.split_off(record.len() / 2);
        sock.write_all(&[bytes, record].concat())?;
        Ok(rest)
    }

    /// Says `text` as the answer to each request until the peer leaves.
    pub fn say_always(&mut self, text: impl AsRef<[u8]>) -> io::Result<()> {
        loop {
            self.head()?;
            self.say(&text)?;
        }
    }

    /// Ends TLS in good order.
    pub fn close_notify(&mut self) -> io::Result<()> {
        self.tls.conn.send_close_notify();
        self.tls.flush()
    }

    /// Ends with an RST.
    pub fn reset(self: &mut Wire) {
        let linger = socket2::SockRef::from(&self.tls.sock).set_linger(Some(std::time::Duration::ZERO));
        linger.expect("a socket");
    }

    /// Reads, and forgets, until the peer closes; true when it does.
    pub fn peer_leaves(&mut self) -> bool {
        while self.more().is_ok() {
            self.read.clear();
        }
        true
    }
}

/// TLS with this certificate.
pub fn server_config(
    certificate: &ServerCertificate,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> ServerConfig {
    let chain = CertificateDer::pem_slice_iter(certificate.pem().as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(certificate.key_pem().as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    builder.with_no_client_auth().with_single_cert(chain, key).unwrap()
}

/// 200 with this body and its length.
pub fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A request that came whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its request line.
    pub line: String,
    /// Its header lines.
    pub fields: Vec<String>,
    pub body: Vec<u8>,
}

/// What an upstream of [`recording`] was sent.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<Seen>>>);

impl Log {
    /// What came since it was asked last.
    pub fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// An upstream that answers 200 to each request that comes whole, and keeps it.
pub fn recording() -> (RawUpstream, Log) {
    let log = Log::default();
    let kept = log.clone();
    let upstream = RawUpstream::start(move |_, wire| {
        loop {
            let head = wire.head()?;
            let mut lines = head.trim_end().split("\r\n").map(str::to_owned);
            let line = lines.next().unwrap_or_default();
            let fields: Vec<String> = lines.collect();
            let length = fields.iter().find_map(|field| field.strip_prefix("content-length: "));
            let body = match length {
                Some(length) => wire.body(length.parse().map_err(io::Error::other)?)?,
                None if fields.iter().any(|field| field == "transfer-encoding: chunked") => wire.chunks()?,
                None => Vec::new(),
            };
            kept.0.lock().unwrap().push(Seen { line, fields, body });
            wire.say(ok("{}"))?;
        }
    });
    (upstream, log)
}
