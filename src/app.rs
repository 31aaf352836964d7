//! From a configuration to a running gateway, and to its orderly end.
//!
//! [`App::bind`] takes everything that can fail at the start: sockets, the log's and records' destinations.
//! [`App::run`] starts the workers and the control plane, then accepts, reloads and listens to signals until
//! it is told to stop. The start does not wait for secrets: without a usable snapshot the gateway answers
//! 503, is not ready, and tries again.

mod connections;
mod differences;
mod drain;
mod files;
mod loader;
pub mod online;
mod refresh;
mod rotation;
mod sockets;
mod two_keys;

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{Notify, mpsc, watch},
    task::JoinSet,
    time::sleep,
};

use self::{
    drain::LAST_WAIT,
    loader::{Cause, Loader},
};
use crate::{
    capacity,
    config::Config,
    control::{self, socket::SocketFile, systemd},
    listener::{
        ListenerState,
        accept::{self, Bound, Census, Load, WorkerHandle},
    },
    log::Log,
    metrics::{Metrics, WorkerMetrics},
    mx::catalogue::catalogue,
    oauth::broker::Broker,
    record::writer::{self, WriterHandle},
    redaction,
    worker::{self, Stage},
};

/// How long a second signal waits for its line in the log.
const LAST_WORDS: Duration = Duration::from_millis(100);

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
    /// Where users' browsers connect.
    browsers: Option<std::net::TcpListener>,
    records: WriterHandle,
    signals: Signals,
    runtime: tokio::runtime::Runtime,
}

/// Had before anything is bound: a signal that comes during the start must not end the process half way.
struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
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
    /// Users' connections cannot be used, and will not by themselves.
    #[error("connections: {0}")]
    Connections(String),
    /// The system refused a thread, an event loop or a signal handler.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
    /// A thread that must not end has ended. The others were drained.
    #[error("a worker or a listener ended by itself, which is a defect; the log says where it panicked")]
    Lost,
}

impl App {
    /// Binds every socket and opens every destination that `config` names. `config_path` is read again at
    /// each reload.
    ///
    /// # Errors
    /// Whatever the system refuses.
    pub fn bind(config: Config, config_path: &Path, log: Log) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            // Its blocking threads: look-ups, and reading files.
            .thread_name("mxgate-blocking")
            .build()?;
        let entered = runtime.enter();
        let signals = Signals {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        };
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
        let browsers = connections::bind(&config)
            .map_err(|source| Error::Bind { address: "for browsers".to_owned(), source })?;
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
            browsers,
            records,
            signals,
            runtime,
        })
    }

    /// The TCP addresses that are bound, in the listeners' order; port 0 has become a real one.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|(bound, _)| bound.address()).collect()
    }

    /// Serves until SIGTERM or SIGINT, then drains. It also drains when a worker has ended by itself: whoever
    /// supervises the process starts a whole one.
    ///
    /// # Errors
    /// A thread or a signal handler could not be had, or a worker has ended by itself.
    pub fn run(self) -> Result<(), Error> {
        let Self {
            config,
            config_path,
            log,
            listeners,
            socket_files,
            control,
            browsers,
            records,
            signals,
            runtime,
        } = self;
        let ended = Arc::new(Notify::new());
        let connections = connections::start(&config, browsers, &ended)?;
        let broker = connections.as_ref().map(|running| running.broker.clone());
        let workers = config.process.workers.unwrap_or_else(capacity::cores);
        let names = catalogue().operations().iter().map(|operation| operation.id);
        let (metrics, worker_metrics) = Metrics::new(workers, names, records.counters());
        let (stage, stage_seen) = watch::channel(Stage::Serving);
        let census = Census::new(capacity::limits(&config));
        let loader = Loader::new(
            config.clone(),
            config_path,
            log.clone(),
            census.clone(),
            metrics.clone(),
            stage_seen.clone(),
            broker.clone(),
        );

        let health = control.health.as_ref().and_then(|(listener, _)| listener.local_addr().ok());
        // Before the first load, which waits a moment for what it reads.
        let refreshing = runtime.spawn(refresh::run(loader.clone()));
        runtime.block_on(loader.load_first());
        let (handles, threads) =
            start_workers(&loader, worker_metrics, &records, &stage_seen, &census, &ended, broker.as_ref())?;
        let suspensions = loader.suspensions();
        let control = control::start(
            control::Parts {
                connections: broker.clone(),
                ..control::Parts::new(Arc::new(loader.clone()), metrics.clone(), suspensions)
            },
            control,
        )?;

        let rotating = rotation::start(loader.clone(), stage_seen)?;
        let stop = runtime.block_on(async {
            let names: Vec<&str> = listeners.iter().map(|(_, state)| state.name.as_str()).collect();
            announce(&loader, &names.join(", "), health);
            let accept = |(bound, state)| {
                accept::accept(bound, state, census.clone(), handles.clone(), metrics.clone())
            };
            let mut accepting: JoinSet<()> = listeners.into_iter().map(accept).collect();
            let lost = async {
                tokio::select! {
                    () = ended.notified() => {}
                    _ = accepting.join_next() => {}
                }
            };
            let stop = until_stopped(&loader, &records, signals, &log, lost).await;
            drain::drain(&config, &stage, accepting).await;
            drop(socket_files);
            // Without senders the workers take no more connections, finish, and end.
            drop(handles);
            drain::finish(threads, config.process.drain_total + LAST_WAIT).await;
            drain::close(control, records).await;
            stop
        });
        refreshing.abort();
        rotating.finish();
        if let Some(connections) = connections {
            connections.finish();
        }
        runtime.shutdown_background();
        tracing::info!("stopped");
        log.flush(LAST_WAIT);
        match stop {
            Stop::Asked => Ok(()),
            Stop::Lost => Err(Error::Lost),
        }
    }
}

type Started = (Vec<WorkerHandle>, Vec<JoinHandle<io::Result<()>>>);

fn start_workers(
    loader: &Arc<Loader>,
    metrics: Vec<WorkerMetrics>,
    records: &WriterHandle,
    stage: &watch::Receiver<Stage>,
    census: &Arc<Census>,
    ended: &Arc<Notify>,
    broker: Option<&Arc<Broker>>,
) -> io::Result<Started> {
    let process_id = random_id();
    let workers = metrics.len();
    let mut handles = Vec::new();
    let mut threads = Vec::new();
    for (index, metrics) in metrics.into_iter().enumerate() {
        let (sender, arrivals) = mpsc::unbounded_channel();
        let load = Arc::<Load>::default();
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
            broker: broker.cloned(),
            arrivals,
            load,
        };
        let thread = thread::Builder::new().name(format!("mxgate-{index}"));
        let tell = TellEnd(ended.clone());
        threads.push(thread.spawn(move || {
            let _tell = tell;
            worker::run(parts)
        })?);
    }
    Ok((handles, threads))
}

/// Tells that a thread has ended which must not, also when it panicked.
struct TellEnd(Arc<Notify>);

impl Drop for TellEnd {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// Tells processes apart in request ids; it need not be secret.
fn random_id() -> u64 {
    let mut bytes = [0; 8];
    // Without random numbers the ids of two processes may collide, and nothing else goes wrong.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u64::from_ne_bytes(bytes)
}

fn announce(loader: &Loader, listeners: &str, health: Option<SocketAddr>) {
    loader.tell_systemd();
    let generation = loader.snapshot().load().as_ref().map_or(0, |snapshot| snapshot.generation);
    let health = health.map(tracing::field::display);
    tracing::info!(listeners, health, generation, "mxgate is up");
}

/// Why the gateway stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// By a signal.
    Asked,
    /// A thread that must not end has ended.
    Lost,
}

/// Ends at the first signal, or when a part is lost; the next signal ends the process.
async fn until_stopped(
    loader: &Arc<Loader>,
    records: &WriterHandle,
    signals: Signals,
    log: &Log,
    lost: impl Future<Output = ()>,
) -> Stop {
    let Signals { mut hangup, mut terminate, mut interrupt } = signals;
    let stop = tokio::select! {
        never = upkeep(loader, records, &mut hangup) => match never {},
        _ = terminate.recv() => Stop::Asked,
        _ = interrupt.recv() => Stop::Asked,
        () = lost => Stop::Lost,
    };
    match stop {
        Stop::Asked => tracing::info!("stopping"),
        // The others could serve on, but nobody would see that there are fewer of them.
        Stop::Lost => tracing::error!("a worker or a listener has ended by itself; stopping"),
    }
    systemd::stopping();
    tokio::spawn(second_signal(terminate, interrupt, log.clone()));
    stop
}

/// What goes on beside the requests: addresses are looked up, keys confirmed, files compared, reloads made.
async fn upkeep(loader: &Arc<Loader>, records: &WriterHandle, hangup: &mut Signal) -> Infallible {
    let mut loads = loader.loads();
    loop {
        loads.mark_unchanged();
        let snapshot = loader.snapshot().load_full();
        let targets = snapshot.iter().flat_map(|snapshot| snapshot.environments.iter());
        let mut addresses: JoinSet<()> = targets
            .map(|environment| {
                let dial = environment.dial.clone();
                async move { dial.addresses.keep_fresh().await }
            })
            .collect();
        for environment in snapshot.iter().flat_map(|snapshot| &snapshot.environments) {
            addresses.spawn(two_keys::watch_over(environment.clone(), loader.suspensions()));
        }
        for keys in snapshot.iter().flat_map(|snapshot| snapshot.users.key_sources()) {
            let metrics = loader.metrics();
            addresses.spawn(async move { keys.keep_fresh(&metrics).await });
        }
        let cause = tokio::select! {
            _ = hangup.recv() => {
                records.reopen();
                Cause::Hangup
            }
            // Somebody else loaded: other names to look up, other files to look at.
            _ = loads.changed() => continue,
            () = files::changed(loader.stamps()) => Cause::File,
            () = sleep(RETRY), if snapshot.is_none() => Cause::NotReady,
            Some(_) = addresses.join_next() => continue,
        };
        // Its outcome is in the log, the metric and the status.
        let _ = loader.reload(cause).await;
    }
}

/// Whoever asks twice does not want to wait.
async fn second_signal(mut terminate: Signal, mut interrupt: Signal, log: Log) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::warn!("a second signal: ending at once");
    log.flush(LAST_WORDS);
    std::process::exit(1);
}

#[cfg(test)]
mod tests;
