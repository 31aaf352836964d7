//! The control plane: health and metrics for machines, a Unix socket for the operator.
//!
//! It runs on its own thread with its own event loop. In: bound listeners, and a [`Gateway`] to act on.
//! Out: answers about the running gateway, and a few commands that change it.
//!
//! - [`health`]: `/livez`, `/readyz`, `/metrics` over TCP; read-only, and closed to browsers.
//! - [`socket`] and [`commands`]: status, reload, log level, suspension; for root and our own user.
//! - [`suspension`]: what an operator has stopped; the data plane reads it for each request.
//!
//! What must never happen: a stuck or flooded control plane stops authorised traffic, since requests
//! never wait for it; a request over TCP changes anything; an answer shows a secret.

pub mod client;
pub mod commands;
pub(crate) mod connections;
pub mod consents;
pub mod health;
mod log_level;
pub mod messages;
pub mod socket;
pub mod suspension;
pub mod systemd;

use std::{
    future::Future,
    io,
    net::TcpListener,
    pin::Pin,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use tokio::sync::watch;

use self::{socket::ControlSocket, suspension::Suspensions};
use crate::{
    config::Health,
    metrics::Metrics,
    oauth::broker::Broker,
    status::{GatewayStatus, ReloadReport},
};

/// What the control plane asks of the running gateway. No method may wait for a worker.
pub trait Gateway: Send + Sync + 'static {
    /// What the snapshot and the data plane know.
    fn status(&self) -> GatewayStatus;

    /// The configured callers.
    fn caller_names(&self) -> Vec<String>;

    /// Whether requests can be served now.
    fn readiness(&self) -> Readiness;

    /// Reads configuration and secrets again and swaps the snapshot; on failure the old one stays and
    /// the text says why (for people, without secrets). It runs to its end once begun, one at a time.
    fn reload(&self) -> Pin<Box<dyn Future<Output = Result<ReloadReport, String>> + Send + '_>>;

    /// `Some` overrides the configured log filter, `None` goes back to it. A reload in between does not
    /// end an override.
    ///
    /// # Errors
    /// The filter cannot be parsed; the old one stays.
    fn set_log_filter(&self, filter: Option<&str>) -> Result<(), String>;
}

/// Why a load balancer may, or may not, send requests here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readiness {
    /// A snapshot with usable secrets is in place.
    pub snapshot_loaded: bool,
    /// SIGTERM came.
    pub draining: bool,
    /// Every secret could be read when it was last looked at.
    pub vault_read: bool,
    /// The store of users' connections is open, or there is none.
    pub store_open: bool,
}

impl Readiness {
    /// The first reason against it, for people.
    #[must_use]
    pub fn obstacle(self, needs_vault: bool) -> Option<&'static str> {
        if self.draining {
            Some("draining")
        } else if !self.snapshot_loaded {
            Some("no usable configuration is loaded")
        } else if !self.store_open {
            Some("the store of users' connections is not open")
        } else if needs_vault && !self.vault_read {
            Some("a secret could not be read when it was last looked at")
        } else {
            None
        }
    }
}

/// The parts that the control plane reports on and acts on.
#[derive(Clone)]
pub struct Parts {
    /// The running gateway.
    pub gateway: Arc<dyn Gateway>,
    /// All workers' counters.
    pub metrics: Metrics,
    /// Shared with the data plane.
    pub suspensions: Arc<Suspensions>,
    /// Users' connections, where there are any.
    pub(crate) connections: Option<Arc<Broker>>,
}

impl Parts {
    /// Of a gateway without connections of users.
    #[must_use]
    pub fn new(gateway: Arc<dyn Gateway>, metrics: Metrics, suspensions: Arc<Suspensions>) -> Self {
        Self { gateway, metrics, suspensions, connections: None }
    }
}

/// Where the control plane is reached; both are bound by the caller, so that a failure stops the start.
#[derive(Debug, Default)]
pub struct Listeners {
    /// From [`health::bind`], with its settings.
    pub health: Option<(TcpListener, Health)>,
    /// The control socket.
    pub socket: Option<ControlSocket>,
}

/// Serves until `shutdown` is over, on the current event loop.
///
/// # Errors
/// A listener could not be registered with the event loop.
pub async fn serve(parts: Parts, listeners: Listeners, shutdown: impl Future<Output = ()>) -> io::Result<()> {
    let (stop, stopped) = watch::channel(());
    let needs_vault = listeners.health.as_ref().is_some_and(|(_, settings)| settings.ready_needs_vault);
    let health = async {
        match listeners.health {
            Some((listener, settings)) => health::serve(&parts, listener, settings, stopped.clone()).await,
            None => Ok(()),
        }
    };
    let socket = async {
        match listeners.socket {
            Some(socket) => commands::serve(&parts, needs_vault, socket, stopped.clone()).await,
            None => Ok(()),
        }
    };
    let wait = async {
        shutdown.await;
        drop(stop);
        Ok(())
    };
    tokio::try_join!(health, socket, wait).map(drop)
}

/// The control plane's thread.
#[derive(Debug)]
pub struct Handle {
    stop: watch::Sender<()>,
    over: mpsc::Receiver<io::Result<()>>,
}

/// Starts [`serve`] on its own thread.
///
/// # Errors
/// The thread or its event loop could not be started.
pub fn start(parts: Parts, listeners: Listeners) -> io::Result<Handle> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Its blocking threads: reloads.
        .thread_name("mxgate-reload")
        .build()?;
    let (stop, mut stopped) = watch::channel(());
    let (result, over) = mpsc::sync_channel(1);
    thread::Builder::new().name("mxgate-control".into()).spawn(move || {
        let until_stopped = async move {
            // An error means that the handle was dropped: that stops it, too.
            let _ = stopped.changed().await;
        };
        let ended = runtime.block_on(serve(parts, listeners, until_stopped));
        if let Err(error) = &ended {
            tracing::error!(%error, "the control plane ended");
        }
        // A full or closed channel: nobody waits for the result.
        let _ = result.try_send(ended);
    })?;
    Ok(Handle { stop, over })
}

impl Handle {
    /// Stops accepting, lets requests in flight end, and waits for that.
    ///
    /// # Errors
    /// What [`serve`] ended with; [`io::ErrorKind::TimedOut`] after `bound`.
    pub fn stop(self, bound: Duration) -> io::Result<()> {
        drop(self.stop);
        self.over.recv_timeout(bound).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: Readiness =
        Readiness { snapshot_loaded: true, draining: false, vault_read: true, store_open: true };

    #[test]
    fn ready_means_loaded_and_not_draining() {
        assert_eq!(READY.obstacle(true), None);
        assert!(Readiness { draining: true, ..READY }.obstacle(false).is_some());
        assert!(Readiness { snapshot_loaded: false, ..READY }.obstacle(false).is_some());
        assert!(Readiness { store_open: false, ..READY }.obstacle(false).is_some());
    }

    #[test]
    fn the_vault_counts_only_when_asked_for() {
        let unread = Readiness { vault_read: false, ..READY };
        assert_eq!(unread.obstacle(false), None);
        assert!(unread.obstacle(true).is_some());
    }
}

#[cfg(test)]
pub(crate) mod fake {
    //! A gateway that notes what it was asked to do.

    use std::sync::Mutex;

    use super::*;
    use crate::status::EnvironmentStatus;

    pub(crate) struct Fake {
        pub(crate) readiness: Mutex<Readiness>,
        pub(crate) reload: Mutex<Result<ReloadReport, String>>,
        pub(crate) filters: Mutex<Vec<Option<String>>>,
    }

    impl Fake {
        pub(crate) fn new() -> Arc<Self> {
            Arc::new(Self {
                readiness: Mutex::new(Readiness {
                    snapshot_loaded: true,
                    draining: false,
                    vault_read: true,
                    store_open: true,
                }),
                reload: Mutex::new(Ok(ReloadReport {
                    generation: 2,
                    changes: vec!["rate".into()],
                    ..Default::default()
                })),
                filters: Mutex::default(),
            })
        }

        pub(crate) fn parts(self: &Arc<Self>) -> Parts {
            let (metrics, workers) = Metrics::new(1, ["listUsers"], Arc::default());
            // A worker that is gone: its heartbeat is from the start and ages.
            drop(workers);
            let gateway = Arc::clone(self) as Arc<dyn Gateway>;
            Parts::new(gateway, metrics, Arc::default())
        }
    }

    impl Gateway for Fake {
        fn status(&self) -> GatewayStatus {
            GatewayStatus {
                generation: 1,
                log_filter: "info".into(),
                listeners: vec!["127.0.0.1:8080".into()],
                environments: vec![EnvironmentStatus {
                    name: "sandbox".into(),
                    host: "int-api.mx.com".into(),
                    credential: "vault:sandbox/api_key".into(),
                    fingerprint: Some("01020304".into()),
                }],
                ..GatewayStatus::default()
            }
        }

        fn caller_names(&self) -> Vec<String> {
            vec!["ledger".into(), "batch".into()]
        }

        fn readiness(&self) -> Readiness {
            *self.readiness.lock().unwrap()
        }

        fn reload(&self) -> Pin<Box<dyn Future<Output = Result<ReloadReport, String>> + Send + '_>> {
            let result = self.reload.lock().unwrap().clone();
            Box::pin(async move { result })
        }

        fn set_log_filter(&self, filter: Option<&str>) -> Result<(), String> {
            if filter == Some("nonsense=") {
                return Err("invalid filter directive".into());
            }
            self.filters.lock().unwrap().push(filter.map(str::to_owned));
            Ok(())
        }
    }
}
