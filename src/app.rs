//! From a configuration to a running gateway, and to its orderly end.
//!
//! [`App::bind`] takes everything that can fail at the start: sockets, the log's and records' destinations.
//! [`App::run`] starts the workers and the control plane, then accepts, reloads and listens to signals until
//! it is told to stop. The start does not wait for secrets: without a usable snapshot the gateway answers
//! 503, is not ready, and tries again.

mod files;
mod loader;
mod sockets;

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicUsize},
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Notify, mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use self::loader::Loader;
use crate::{
    config::Config,
    control::{self, socket::SocketFile, systemd},
    listener::{
        ListenerState,
        accept::{self, Bound, Census, WorkerHandle},
    },
    log::Log,
    metrics::{Metrics, WorkerMetrics},
    mx::catalogue::catalogue,
    record::writer::{self, WriterHandle},
    redaction,
    worker::{self, Stage},
};

/// How long a drained gateway waits for its control plane and its last records.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// How soon a start without usable secrets is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// A gateway whose sockets are bound.
pub struct App {
    config: Config,
    config_path: PathBuf,
    log: Log,
    listeners: Vec<(Bound, Arc<ListenerState>)>,
    socket_files: Vec<SocketFile>,
    control: control::Listeners,
    records: WriterHandle,
    runtime: tokio::runtime::Runtime,
    stop: Arc<Notify>,
}

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A listener could not be bound.
    #[error("listener {address}: cannot bind: {source}")]
    Bind {
        /// As configured.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The health listener could not be bound.
    #[error(transparent)]
    Health(io::Error),
    /// The control socket could not be bound.
    #[error(transparent)]
    Control(#[from] control::socket::Error),
    /// The records' destination could not be opened.
    #[error("record.destination: {0}")]
    Records(io::Error),
    /// The system refused a thread, an event loop or a signal handler.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

impl App {
    /// Binds every socket and opens every destination that `config` names. `config_path` is read again at
    /// each reload.
    ///
    /// # Errors
    /// Whatever the system refuses.
    pub fn bind(config: Config, config_path: &Path, log: Log) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let entered = runtime.enter();
        let mut listeners = Vec::new();
        let mut socket_files = Vec::new();
        for (index, settings) in config.listeners.iter().enumerate() {
            let (bound, file) = sockets::bind(&settings.address)
                .map_err(|source| Error::Bind { address: settings.address.to_string(), source })?;
            socket_files.extend(file);
            let state = ListenerState {
                index,
                name: bound
                    .address()
                    .map_or_else(|| settings.address.to_string(), |address| address.to_string()),
                proxy_protocol: settings.proxy_protocol,
                tls: settings.tls.is_some(),
            };
            listeners.push((bound, Arc::new(state)));
        }
        let mut control = control::Listeners::default();
        if let Some(health) = &config.health {
            let bound = control::health::bind(health).map_err(Error::Health)?;
            control.health = Some((bound, health.clone()));
        }
        if let Some(path) = &config.control_socket {
            control.socket = Some(control::socket::ControlSocket::bind(path)?);
        }
        let mask = |line: &mut Vec<u8>| {
            redaction::held().masker().mask(line);
        };
        let records = writer::start_writer(&config.record, mask).map_err(Error::Records)?;
        drop(entered);
        Ok(Self {
            config,
            config_path: config_path.to_owned(),
            log,
            listeners,
            socket_files,
            control,
            records,
            runtime,
            stop: Arc::default(),
        })
    }

    /// The TCP addresses that are bound, in the listeners' order; port 0 has become a real one.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|(bound, _)| bound.address()).collect()
    }

    /// The health listener's address.
    #[must_use]
    pub fn health_address(&self) -> Option<SocketAddr> {
        self.control.health.as_ref().and_then(|(listener, _)| listener.local_addr().ok())
    }

    /// Ends [`App::run`] as SIGTERM does.
    #[must_use]
    pub fn stopper(&self) -> Arc<Notify> {
        self.stop.clone()
    }

    /// Serves until SIGTERM, SIGINT or the stopper, then drains.
    ///
    /// # Errors
    /// A thread or a signal handler could not be had.
    pub fn run(self) -> Result<(), Error> {
        let Self { config, config_path, log, listeners, socket_files, control, records, runtime, stop } =
            self;
        let workers = config.process.workers.unwrap_or_else(cores);
        let names = catalogue().operations().iter().map(|operation| operation.id);
        let (metrics, worker_metrics) = Metrics::new(workers, names, records.counters());
        let (stage, stage_seen) = watch::channel(Stage::Serving);
        let census = Census::new(config.limits.clone());
        let loader = Loader::new(
            config.clone(),
            config_path,
            log,
            census.clone(),
            metrics.clone(),
            stage_seen.clone(),
        );

        let health = control.health.as_ref().and_then(|(listener, _)| listener.local_addr().ok());
        loader.load_first();
        let (handles, threads) = start_workers(&loader, worker_metrics, &records, &stage_seen, &census)?;
        let suspensions = loader.suspensions();
        let control = control::start(
            control::Parts { gateway: Arc::new(loader.clone()), metrics: metrics.clone(), suspensions },
            control,
        )?;

        runtime.block_on(async {
            let names: Vec<&str> = listeners.iter().map(|(_, state)| state.name.as_str()).collect();
            announce(&loader, &names.join(", "), health);
            let mut accepting = JoinSet::new();
            for (bound, state) in listeners {
                accepting.spawn(accept::accept(
                    bound,
                    state,
                    census.clone(),
                    handles.clone(),
                    metrics.clone(),
                ));
            }
            tokio::select! {
                stopped = stopped(&stop) => stopped?,
                kept = upkeep(&loader, &records) => match kept? {},
            }
            drain(&config, &stage, accepting).await;
            drop(socket_files);
            Ok::<_, Error>(())
        })?;
        // Without senders the workers take no more connections, finish, and end.
        drop(handles);
        let finished = runtime.block_on(async { finish(threads).await });
        runtime.shutdown_background();
        if !finished {
            tracing::warn!("stopped before every worker had ended");
        }
        if let Err(error) = control.stop(LAST_WAIT) {
            tracing::warn!(%error, "the control plane did not end in order");
        }
        if let Err(error) = records.close(LAST_WAIT) {
            tracing::warn!(%error, "the last access records may be missing");
        }
        tracing::info!("stopped");
        Ok(())
    }
}

/// One worker for each core that the process may use, following a CPU quota.
fn cores() -> usize {
    thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

type Started = (Vec<WorkerHandle>, Vec<JoinHandle<io::Result<()>>>);

fn start_workers(
    loader: &Arc<Loader>,
    metrics: Vec<WorkerMetrics>,
    records: &WriterHandle,
    stage: &watch::Receiver<Stage>,
    census: &Arc<Census>,
) -> io::Result<Started> {
    let process_id = random_id();
    let workers = metrics.len();
    let mut handles = Vec::new();
    let mut threads = Vec::new();
    for (index, metrics) in metrics.into_iter().enumerate() {
        let (sender, arrivals) = mpsc::unbounded_channel();
        let load = Arc::new(AtomicUsize::new(0));
        handles.push(WorkerHandle { arrivals: sender, load: load.clone() });
        let parts = worker::Parts {
            index,
            workers,
            process_id,
            snapshot: loader.snapshot(),
            suspensions: loader.suspensions(),
            stage: stage.clone(),
            census: census.clone(),
            metrics,
            recorder: records.recorder(),
            arrivals,
            load,
        };
        let thread = thread::Builder::new().name(format!("mxgate-{index}"));
        threads.push(thread.spawn(move || worker::run(parts))?);
    }
    Ok((handles, threads))
}

/// Tells processes apart in request ids; it need not be secret.
fn random_id() -> u64 {
    let mut bytes = [0; 8];
    // Without random numbers the ids of two processes may collide, and nothing else goes wrong.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u64::from_ne_bytes(bytes)
}

fn announce(loader: &Loader, listeners: &str, health: Option<SocketAddr>) {
    let generation = loader.snapshot().load().as_ref().map_or(0, |snapshot| snapshot.generation);
    if generation > 0 {
        systemd::ready("serving");
    }
    let health = health.map(tracing::field::display);
    tracing::info!(listeners, health, generation, "mxgate is up");
}

/// What goes on beside the requests: addresses are looked up, files watched, reloads made.
async fn upkeep(loader: &Arc<Loader>, records: &WriterHandle) -> io::Result<Infallible> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut changes = files::Changes::new();
    loop {
        let snapshot = loader.snapshot().load_full();
        changes.watch(&loader.watched_files());
        let targets = snapshot.iter().flat_map(|snapshot| snapshot.environments.iter());
        let mut addresses: JoinSet<()> = targets
            .map(|environment| {
                let dial = environment.dial.clone();
                async move { dial.addresses.keep_fresh().await }
            })
            .collect();
        let cause = tokio::select! {
            _ = hangup.recv() => {
                records.reopen();
                "SIGHUP"
            }
            () = changes.next() => "a file changed",
            () = sleep(RETRY), if snapshot.is_none() => "no snapshot yet",
            // Somebody else reloaded: look up the new snapshot's names.
            () = loader.swapped() => continue,
            Some(_) = addresses.join_next() => continue,
        };
        // Its outcome is in the log, the metric and the status.
        let _ = loader.reload(cause).await;
    }
}

/// Waits for a reason to stop. A second signal ends the process at once.
async fn stopped(stop: &Notify) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = stop.notified() => {}
    }
    tracing::info!("stopping");
    systemd::stopping();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::warn!("a second signal: ending at once");
        std::process::exit(1);
    });
    Ok(())
}

/// `drain_delay` of service as usual, but for `Connection: close`, then nothing new.
async fn drain(config: &Config, stage: &watch::Sender<Stage>, mut accepting: JoinSet<()>) {
    stage.send_replace(Stage::Closing);
    sleep(config.process.drain_delay).await;
    accepting.shutdown().await;
    stage.send_replace(Stage::Draining(Instant::now() + config.process.drain_total));
}

/// Waits for the workers, which keep their own bound.
async fn finish(threads: Vec<JoinHandle<io::Result<()>>>) -> bool {
    let joined = tokio::task::spawn_blocking(move || {
        threads.into_iter().for_each(|thread| match thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "a worker could not run"),
            Err(_) => tracing::error!("a worker panicked"),
        });
    });
    // A worker that is stuck in a panic or a loop must not keep the process.
    timeout(Duration::from_secs(3600), joined).await.is_ok()
}
