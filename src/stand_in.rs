//! A stand-in for MX: a server that answers as MX documents, for demonstrations and tests.
//!
//! It knows every operation of both API versions, checks credentials, versions and bodies more strictly than MX,
//! and misbehaves when asked to ([`switches`]). In come requests over TLS (or plain TCP); out go
//! plausible answers without any memory but that of keys, tokens, jobs and of what was received ([`Handle`]).
//! What must never happen: a real key is given to it, or it listens where strangers can reach it by default.

pub mod certificate;
pub mod hold;
pub mod journal;
pub mod options;
pub mod switches;

mod answers;
mod body;
mod credentials;
mod decide;
mod echo;
mod exchange;
mod jobs;
mod keys;
mod respond;
mod tokens;
mod wire;

#[cfg(test)]
mod tests;

use std::{
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    sync::{oneshot, watch},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use self::{
    certificate::ServerCertificate,
    exchange::Connection,
    hold::{Held, Holds, Point},
    jobs::Jobs,
    journal::{Journal, Request},
    keys::Keys,
    options::{Environment, Options},
    switches::Switches,
    tokens::Tokens,
    wire::{Orders, Transport, Wire},
};
use crate::mx::catalogue::catalogue;

/// How long a client may take for its handshake, and for the end of a connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a stand-in does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address cannot be listened on.
    #[error("cannot listen on {0}: {1}")]
    Bind(SocketAddr, #[source] io::Error),
    /// The certificate.
    #[error(transparent)]
    Certificate(#[from] certificate::Error),
    /// No thread or runtime.
    #[error("cannot start its thread: {0}")]
    Thread(#[source] io::Error),
    /// No random numbers.
    #[error("the system has no random numbers")]
    Random,
}

/// A stand-in that listens and does not serve yet.
pub struct StandIn {
    shared: Arc<Shared>,
    tls: TlsAcceptor,
    listener: TcpListener,
    plain: Option<TcpListener>,
}

/// What all connections share.
struct Shared {
    options: Options,
    environments: Vec<Served>,
    address: SocketAddr,
    plain_address: Option<SocketAddr>,
    authority_pem: String,
    switches: Mutex<Switches>,
    jobs: Jobs,
    holds: Holds,
    journal: Journal,
    connections: AtomicU64,
    requests: AtomicU64,
    /// Every change closes all connections.
    closing: watch::Sender<()>,
}

/// One environment, its keys and its tokens.
struct Served {
    index: usize,
    options: Environment,
    keys: Keys,
    tokens: Tokens,
}

impl Shared {
    fn now(&self) -> SystemTime {
        (self.options.clock)()
    }

    fn switches(&self) -> Switches {
        self.lock_switches().clone()
    }

    fn lock_switches(&self) -> MutexGuard<'_, Switches> {
        self.switches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StandIn {
    /// Listens as `options` say.
    ///
    /// # Errors
    /// When an address is taken, or no certificate can be made.
    pub async fn bind(options: Options) -> Result<Self, Error> {
        let certificate = match options.certificate.clone() {
            Some(certificate) => certificate,
            None => ServerCertificate::for_default_names()?,
        };
        let tls = certificate::server_config(&certificate, options.client_authority_pem.as_deref())?;
        let (listener, address) = listen(options.address).await?;
        let (plain, plain_address) = match options.plain_address {
            None => (None, None),
            Some(address) => {
                let (listener, address) = listen(address).await?;
                (Some(listener), Some(address))
            }
        };
        let environments = options.environments.iter().cloned().enumerate().map(|(index, options)| Served {
            index,
            keys: Keys::new(options.api_keys.clone()),
            tokens: Tokens::default(),
            options,
        });
        let shared = Shared {
            environments: environments.collect(),
            address,
            plain_address,
            authority_pem: certificate.authority_pem().to_owned(),
            switches: Mutex::new(options.switches.clone()),
            jobs: Jobs::new(options.job_reads),
            holds: Holds::default(),
            journal: Journal::new(options.requests_kept),
            connections: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            closing: watch::Sender::new(()),
            options,
        };
        Ok(Self { shared: Arc::new(shared), tls: TlsAcceptor::from(tls), listener, plain })
    }

    /// What tests and programs hold on to.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.shared))
    }

    /// Serves until `stop` is ready, on tasks of the current runtime.
    pub async fn serve(self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        loop {
            let (accepted, tls) = tokio::select! {
                () = &mut stop => break,
                accepted = self.listener.accept() => (accepted, Some(self.tls.clone())),
                accepted = accept(self.plain.as_ref()) => (accepted, None),
            };
            // A failed accept is about one client that is gone, or about descriptors that will be free again.
            let Ok((stream, peer)) = accepted else {
                tokio::task::yield_now().await;
                continue;
            };
            tokio::spawn(serve_connection(Arc::clone(&self.shared), stream, peer, tls));
        }
        self.shared.closing.send_replace(());
    }

    /// Serves on a thread of its own until [`Running`] is dropped. Safe to use from a runtime whose time is paused.
    ///
    /// # Errors
    /// As [`Self::bind`], or when there is no thread.
    pub fn spawn(options: Options) -> Result<Running, Error> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Thread)?;
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, bound) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name("stand-in".to_owned()).spawn(move || {
            runtime.block_on(async {
                let stand_in = match Self::bind(options).await {
                    Ok(stand_in) => stand_in,
                    Err(fault) => return drop(ready.send(Err(fault))),
                };
                drop(ready.send(Ok(stand_in.handle())));
                stand_in.serve(async { drop(stopped.await) }).await;
            });
        });
        let thread = thread.map_err(Error::Thread)?;
        let handle = bound.recv().map_err(|_| Error::Thread(io::ErrorKind::BrokenPipe.into()))??;
        Ok(Running { handle, stop: Some(stop), thread: Some(thread) })
    }
}

/// A made-up API key, as long as MX's own.
///
/// # Errors
/// When the system has no random numbers.
pub fn random_key() -> Result<String, Error> {
    keys::random_key().ok_or(Error::Random)
}

/// A stand-in on a thread of its own; dropping it stops it.
pub struct Running {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl std::ops::Deref for Running {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Looks at a stand-in and changes it while it serves, from any thread.
#[derive(Clone)]
pub struct Handle(Arc<Shared>);

impl Handle {
    /// Where it listens for TLS.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// Where it listens without TLS.
    #[must_use]
    pub fn plain_address(&self) -> Option<SocketAddr> {
        self.0.plain_address
    }

    /// The root that clients must trust, as PEM.
    #[must_use]
    pub fn authority_pem(&self) -> &str {
        &self.0.authority_pem
    }

    /// Requests so far, of all kinds.
    #[must_use]
    pub fn received(&self) -> u64 {
        *self.0.journal.received().borrow()
    }

    /// Waits until so many requests were received, counted from the start.
    pub async fn wait_until_received(&self, requests: u64) {
        // The sender is part of what this handle holds, so it cannot be gone.
        drop(self.0.journal.received().wait_for(|received| *received >= requests).await);
    }

    /// Makes a request for the operation with this id wait, after `passing` others have passed.
    #[must_use]
    pub fn hold(&self, operation_id: &str, point: Point, passing: usize) -> Held {
        self.0.holds.add(operation_id, point, passing)
    }

    /// Whether `api_key` works at the environment with this place in [`Options::environments`].
    #[must_use]
    pub fn takes_api_key(&self, environment: usize, api_key: &[u8]) -> bool {
        let served = self.0.environments.get(environment);
        served.is_some_and(|environment| environment.keys.accept(api_key, self.0.now()))
    }

    /// Requests for the operation with MX's id `operation_id`; 0 for an id that there is not.
    #[must_use]
    pub fn count(&self, operation_id: &str) -> u64 {
        catalogue().by_id(operation_id).map_or(0, |operation| self.0.journal.count(operation))
    }

    /// The last requests, oldest first, as many as [`Options::requests_kept`].
    #[must_use]
    pub fn requests(&self) -> Vec<Arc<Request>> {
        self.0.journal.kept()
    }

    /// Connections so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.0.connections.load(Ordering::Relaxed)
    }

    /// Closes every connection at once, whatever it does.
    pub fn close_connections(&self) {
        self.0.closing.send_replace(());
    }

    /// The switches that hold for every request from now on.
    pub fn set_switches(&self, switches: Switches) {
        *self.0.lock_switches() = switches;
    }

    /// The keys that work from now on at the environment with this place in [`Options::environments`]: what a
    /// rotation in MX's dashboard does.
    pub fn set_api_keys(&self, environment: usize, api_keys: Vec<String>) {
        if let Some(environment) = self.0.environments.get(environment) {
            environment.keys.replace(api_keys);
        }
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let fault = |fault| Error::Bind(address, fault);
    let listener = TcpListener::bind(address).await.map_err(fault)?;
    let address = listener.local_addr().map_err(fault)?;
    Ok((listener, address))
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

async fn serve_connection(
    shared: Arc<Shared>,
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
) {
    let number = shared.connections.fetch_add(1, Ordering::Relaxed) + 1;
    let mut closing = shared.closing.subscribe();
    // Only latency is at stake.
    drop(stream.set_nodelay(true));
    let transport = match tls {
        None => Transport::Plain(stream),
        Some(tls) => match timeout(PATIENCE, tls.accept(stream)).await {
            Ok(Ok(stream)) => Transport::Tls(Box::new(stream)),
            _ => return,
        },
    };
    let orders = Orders::default();
    let connection = Arc::new(Connection {
        shared,
        number,
        peer: peer.ip(),
        sni: transport.sni(),
        orders: orders.clone(),
        requests: AtomicU64::new(0),
    });
    let service = service_fn(move |request| {
        let connection = Arc::clone(&connection);
        Box::pin(async move { connection.serve(request).await })
    });
    let mut http = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(Wire::new(transport, orders)), service);
    tokio::select! {
        _ = closing.changed() => return,
        // Either way the connection is over; how it ended is the client's to see.
        _ = poll_fn(|cx| http.poll_without_shutdown(cx)) => {}
    }
    let mut wire = http.into_parts().io.into_inner();
    if !wire.prepare_reset() {
        drop(timeout(PATIENCE, wire.shutdown()).await);
    }
}
