//! Accepting: a cap on connections in all and per address, and a choice of worker.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpListener, UnixListener},
    sync::mpsc::UnboundedSender,
};

use super::{Arrival, ListenerState, Socket};
use crate::{config::Limits, metrics::Metrics};

/// A bound socket.
pub(crate) enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Bound {
    /// The TCP address; port 0 has become a real one.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }
}

/// One worker, as the acceptor sees it.
#[derive(Debug, Clone)]
pub(crate) struct WorkerHandle {
    pub(crate) arrivals: UnboundedSender<Arrival>,
    pub(crate) load: Arc<Load>,
}

/// How many idle connections weigh as much as one that is busy does more.
const BUSY_WEIGHT: usize = 8;

/// How much one worker has to do, as the acceptor compares it.
#[derive(Debug, Default)]
pub(crate) struct Load {
    /// Connections that are not known to have nothing to do.
    busy: AtomicUsize,
    open: AtomicUsize,
}

impl Load {
    fn opened(&self) {
        self.busy.fetch_add(1, Relaxed);
        self.open.fetch_add(1, Relaxed);
    }

    /// A connection is over.
    pub(crate) fn closed(&self) {
        self.busy.fetch_sub(1, Relaxed);
        self.open.fetch_sub(1, Relaxed);
    }

    /// Counts one connection as having nothing to do, for as long as the value lives.
    pub(crate) fn idle(&self) -> Idle<'_> {
        self.busy.fetch_sub(1, Relaxed);
        Idle(self)
    }

    /// Whoever weighs least gets the next connection. Callers keep pools of which most are idle, so a busy one weighs
    /// more; but not more than any number of idle ones, since a pool that is opened at once is idle at first.
    fn weight(&self) -> usize {
        self.open.load(Relaxed) + BUSY_WEIGHT * self.busy.load(Relaxed)
    }
}

/// See [`Load::idle`].
pub(crate) struct Idle<'l>(&'l Load);

impl Drop for Idle<'_> {
    fn drop(&mut self) {
        self.0.busy.fetch_add(1, Relaxed);
    }
}

/// How long accepting pauses when the process has no descriptors left: the listener stays readable, and
/// trying at once would only burn the core that could close some.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// Accepts on one listener until the future is dropped.
pub(crate) async fn accept(
    bound: Bound,
    listener: Arc<ListenerState>,
    census: Arc<Census>,
    workers: Vec<WorkerHandle>,
    metrics: Metrics,
) {
    let mut failures = Failures::default();
    loop {
        match next(&bound).await {
            Ok((socket, address)) => match census.admit(address) {
                Some(permit) => hand_over(&workers, Arrival { socket, listener: listener.clone(), permit }),
                None => metrics.caller_turned_away(),
            },
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                failures.log(&listener.name, &error);
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
}

/// How often failures to accept are logged: every pause ends in one.
const FAILURES_INTERVAL: Duration = Duration::from_secs(10);

/// Failures to accept that were not logged yet.
#[derive(Default)]
struct Failures {
    logged: Option<Instant>,
    unsaid: u64,
}

impl Failures {
    fn log(&mut self, listener: &str, error: &io::Error) {
        if self.logged.is_some_and(|at| at.elapsed() < FAILURES_INTERVAL) {
            self.unsaid += 1;
            return;
        }
        self.logged = Some(Instant::now());
        let unsaid = std::mem::take(&mut self.unsaid);
        tracing::error!(listener, %error, unsaid, "cannot accept connections");
    }
}

async fn next(bound: &Bound) -> io::Result<(Socket, Option<IpAddr>)> {
    match bound {
        Bound::Tcp(listener) => {
            let (stream, address) = listener.accept().await?;
            let address_key = address.ip().to_canonical();
            Ok((Socket::Tcp(stream.into_std()?, address), Some(address_key)))
        }
        Bound::Unix(listener) => Ok((Socket::Unix(listener.accept().await?.0.into_std()?), None)),
    }
}

fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

/// To the worker with the least to do. One that has ended takes none; the process is on its way out then.
fn hand_over(workers: &[WorkerHandle], arrival: Arrival) {
    let alive = workers.iter().filter(|worker| !worker.arrivals.is_closed());
    if let Some(worker) = alive.min_by_key(|worker| worker.load.weight()) {
        // Counted here and not by the worker, so that the next one goes elsewhere even when it has not come round yet.
        worker.load.opened();
        // It may have ended just now: then the connection closes.
        let _ = worker.arrivals.send(arrival);
    }
}

/// Counts connections, in all and per address. The lock is taken when one opens and when it closes, never
/// for a request.
#[derive(Debug)]
pub(crate) struct Census {
    limits: arc_swap::ArcSwap<Limits>,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_address: HashMap<Option<IpAddr>, usize>,
}

impl Census {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits: arc_swap::ArcSwap::from_pointee(limits), counts: Mutex::default() })
    }

    /// New bounds, for connections from now on.
    pub(crate) fn set_limits(&self, limits: Limits) {
        self.limits.store(Arc::new(limits));
    }

    /// The present bounds.
    pub(crate) fn limits(&self) -> Limits {
        Limits::clone(&self.limits.load())
    }

    fn admit(self: &Arc<Self>, address: Option<IpAddr>) -> Option<Permit> {
        let limits = self.limits.load();
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let here = counts.by_address.get(&address).copied().unwrap_or_default();
        if counts.all >= limits.connections_max || here >= limits.connections_per_address_max {
            return None;
        }
        counts.all += 1;
        counts.by_address.insert(address, here + 1);
        Some(Permit { census: self.clone(), address })
    }
}

/// One counted connection.
#[derive(Debug)]
pub(crate) struct Permit {
    census: Arc<Census>,
    address: Option<IpAddr>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.census.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all -= 1;
        if let Some(here) = counts.by_address.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                counts.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        connections_max: 3,
        connections_per_address_max: 2,
        header_bytes_max: 0,
        header_count_max: 0,
        request_line_bytes_max: 0,
        body_bytes_max: 0,
        header_read_timeout: Duration::ZERO,
        idle_timeout: Duration::ZERO,
        upload_timeout: Duration::ZERO,
    };

    #[test]
    fn idle_connections_weigh_less_than_busy_ones_and_count_again_when_they_wake() {
        let (one, two) = (Load::default(), Load::default());
        one.opened();
        one.opened();
        two.opened();
        assert!(two.weight() < one.weight());
        let idle = (one.idle(), one.idle());
        assert!(one.weight() < two.weight(), "two idle ones are less than a busy one");
        drop(idle.1);
        assert!(two.weight() < one.weight(), "one of them woke up, and there are more of them");
        drop(idle.0);
        one.closed();
        one.closed();
        assert_eq!(one.weight(), 0);
    }

    #[test]
    fn caps_hold_in_all_and_per_address_and_places_come_back() {
        let one: Option<IpAddr> = Some("10.0.0.1".parse().unwrap());
        let two: Option<IpAddr> = Some("10.0.0.2".parse().unwrap());
        let census = Census::new(LIMITS);
        let first = census.admit(one).unwrap();
        let _second = census.admit(one).unwrap();
        assert!(census.admit(one).is_none(), "a third from one address");
        let _third = census.admit(two).unwrap();
        assert!(census.admit(two).is_none(), "a fourth in all");
        drop(first);
        assert!(census.admit(two).is_some());
        assert!(!census.counts.lock().unwrap().by_address.contains_key(&None));
    }
}
