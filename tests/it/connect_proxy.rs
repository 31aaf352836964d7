//! An HTTP proxy of the tests' own: it keeps what it is told, and does with it what a test wants.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use crate::harness::PATIENCE;

/// Listens until the test's process ends.
pub struct ConnectProxy {
    pub address: SocketAddr,
    seen: Arc<Seen>,
}

/// What came from the gateway.
#[derive(Default)]
pub struct Seen {
    /// Heads, as they came.
    heads: Mutex<Vec<String>>,
    /// Where they came from.
    peers: Mutex<Vec<IpAddr>>,
    /// All that went through tunnels towards the host.
    carried: Mutex<Vec<u8>>,
}

/// What the proxy does after a head.
#[derive(Clone)]
pub enum Deed {
    /// 200, and a tunnel to that address.
    Tunnel(SocketAddr),
    /// Exactly these bytes, and then the end.
    Say(Vec<u8>),
    /// Nothing, for as long as the gateway waits.
    Nothing,
}

impl ConnectProxy {
    /// One thread a connection; `decide` gets the head.
    pub fn start(decide: impl Fn(&str) -> Deed + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, decide) = (Arc::<Seen>::default(), Arc::new(decide));
        let shared = seen.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (seen, decide) = (shared.clone(), decide.clone());
                thread::spawn(move || serve(stream, &seen, &*decide));
            }
        });
        Self { address, seen }
    }

    /// The same, which does one thing.
    pub fn that(deed: Deed) -> Self {
        Self::start(move |_| deed.clone())
    }

    pub fn heads(&self) -> Vec<String> {
        self.seen.heads.lock().unwrap().clone()
    }

    pub fn peers(&self) -> Vec<IpAddr> {
        self.seen.peers.lock().unwrap().clone()
    }

    pub fn carried(&self) -> Vec<u8> {
        self.seen.carried.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, seen: &Arc<Seen>, decide: &dyn Fn(&str) -> Deed) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    seen.peers.lock().unwrap().push(stream.peer_addr()?.ip());
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    seen.heads.lock().unwrap().push(head.clone());
    match decide(&head) {
        Deed::Tunnel(to) => {
            let host = TcpStream::connect(to)?;
            stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
            carry(stream, host, seen.clone())
        }
        Deed::Say(bytes) => {
            stream.write_all(&bytes)?;
            stream.shutdown(Shutdown::Write)
        }
        Deed::Nothing => stream.read(&mut [0; 64]).map(drop),
    }
}

fn carry(mut gateway: TcpStream, mut host: TcpStream, seen: Arc<Seen>) -> io::Result<()> {
    let (mut from_host, mut to_gateway) = (host.try_clone()?, gateway.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut from_host, &mut to_gateway);
        to_gateway.shutdown(Shutdown::Write)
    });
    let mut piece = [0; 16 * 1024];
    loop {
        match gateway.read(&mut piece)? {
            0 => return host.shutdown(Shutdown::Write),
            count => {
                seen.carried.lock().unwrap().extend_from_slice(&piece[..count]);
                host.write_all(&piece[..count])?;
            }
        }
    }
}
