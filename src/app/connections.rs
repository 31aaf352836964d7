//! Users' connections in a running gateway: a thread of their own, where their store is opened, their tokens are refreshed
//! and users' browsers are served.
//!
//! What cannot get better by itself (a wrong key, a store of a later version) ends the start, with the store untouched. What
//! can, such as a vault or a database that is not there yet, is tried again; until then there are no tokens.

use std::{io, net::TcpListener, sync::Arc, thread, time::Duration};

use arc_swap::ArcSwap;
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};

use super::{Error, TellEnd};
use crate::{
    config::{BrowserListener, Config, Connections, ListenerTls},
    listener::tls::{self, ServerTls},
    oauth::{
        broker::{Broker, open},
        connect::{self, Connector},
    },
    vault,
};

/// How soon a store that could not be opened is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// How often the certificate towards browsers is read again.
const CERTIFICATE_AGE_MAX: Duration = Duration::from_secs(60);

/// The thread.
pub(super) struct Running {
    pub(super) broker: Arc<Broker>,
    stop: watch::Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl Running {
    /// Ends it, when nothing is on its way any more that would be lost.
    pub(super) fn finish(self) {
        drop(self.stop);
        // A panic in it is in the log.
        let _ = self.thread.join();
    }
}

/// The listener for browsers, bound.
pub(super) fn bind(config: &Config) -> io::Result<Option<TcpListener>> {
    let browser = config.connections.as_ref().and_then(|connections| connections.browser.as_ref());
    let bound = browser.map(|browser| TcpListener::bind(browser.address)).transpose()?;
    bound.as_ref().map(|listener| listener.set_nonblocking(true)).transpose()?;
    Ok(bound)
}

/// Starts it; `None`: nothing is configured that needs it. `ended` is told when the thread has ended.
///
/// # Errors
/// [`Error::Connections`] for what only an operator can mend, or no thread was to be had.
pub(super) fn start(
    config: &Config,
    browsers: Option<TcpListener>,
    ended: &Arc<Notify>,
) -> Result<Option<Running>, Error> {
    if config.connections.is_none() && config.providers.is_empty() {
        return Ok(None);
    }
    let tell_end = TellEnd(ended.clone());
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().thread_name("mxgate-store").build()?;
    let broker = Broker::new(runtime.handle().clone());
    broker.adopt(config);
    let (stop, stopped) = watch::channel(());
    let (tell, told) = std::sync::mpsc::channel();
    let (config, works) = (config.clone(), broker.clone());
    let serve = move || {
        let _tell_end = tell_end;
        runtime.block_on(serve(&config, &works, browsers, stopped, tell));
        runtime.shutdown_background();
    };
    let thread = thread::Builder::new().name("mxgate-oauth".into()).spawn(serve)?;
    match told.recv() {
        Ok(Ok(())) => Ok(Some(Running { broker, stop, thread })),
        Ok(Err(error)) => Err(Error::Connections(vault::chain(&error))),
        Err(_) => Err(io::Error::other("the thread of connections has ended").into()),
    }
}

type Told = std::sync::mpsc::Sender<Result<(), open::Error>>;

/// Tells once how the first attempt went, and goes on until it is stopped.
async fn serve(
    config: &Config,
    broker: &Arc<Broker>,
    browsers: Option<TcpListener>,
    mut stopped: watch::Receiver<()>,
    tell: Told,
) {
    let Some(connections) = &config.connections else {
        // Nobody listens only when the gateway is gone.
        let _ = tell.send(Ok(()));
        tokio::select! {
            () = broker.upkeep() => {}
            _ = stopped.changed() => {}
        }
        return;
    };
    let connector = tokio::select! {
        connector = opened(config, connections, broker, tell) => connector,
        _ = stopped.changed() => None,
    };
    let Some(connector) = connector else { return };
    let browser = connections.browser.as_ref().zip(browsers);
    let browsers = async {
        match browser {
            Some((settings, listener)) => {
                browsers_served(settings, listener, &connector, stopped.clone()).await
            }
            None => _ = stopped.clone().changed().await,
        }
    };
    tokio::select! {
        () = broker.upkeep() => {}
        () = browsers => {}
    }
    // Whoever does not wait for so long kills the process; most answers come within a second.
    let _ = tokio::time::timeout(broker.patience(), broker.finish()).await;
}

/// The store, as soon as it can be had. `None`: it cannot, and that was told.
async fn opened(
    config: &Config,
    connections: &Connections,
    broker: &Arc<Broker>,
    tell: Told,
) -> Option<Connector> {
    let mut tell = Some(tell);
    loop {
        match open::store(config, connections).await {
            Ok(kind) => {
                let connector = broker.open(kind, connections);
                if let Some(tell) = tell {
                    let _ = tell.send(Ok(()));
                }
                tracing::info!("the store of connections is open");
                return Some(connector);
            }
            Err(error) if !error.may_pass() && tell.is_some() => {
                let _ = tell?.send(Err(error));
                return None;
            }
            Err(error) => {
                tracing::error!(reason = vault::chain(&error), "there are no connections yet; trying again");
                if let Some(tell) = tell.take() {
                    let _ = tell.send(Ok(()));
                }
                sleep(RETRY).await;
            }
        }
    }
}

async fn browsers_served(
    settings: &BrowserListener,
    listener: TcpListener,
    connector: &Connector,
    stopped: watch::Receiver<()>,
) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the listener for browsers cannot be used"),
    };
    let Some(files) = &settings.tls else {
        return connect::serve(connector, listener, || None, stopped).await;
    };
    // Never without TLS where it is configured: nobody is served before there is a certificate.
    let now = ArcSwap::from_pointee(certificate(files).await);
    let follow = async {
        loop {
            sleep(CERTIFICATE_AGE_MAX).await;
            now.store(Arc::new(certificate(files).await));
        }
    };
    let current = || Some(ServerTls::clone(&now.load()));
    tokio::select! {
        () = follow => {}
        () = connect::serve(connector, listener, current, stopped) => {}
    }
}

/// As soon as it can be used.
async fn certificate(files: &ListenerTls) -> ServerTls {
    loop {
        match tls::load(files, None) {
            Ok(loaded) => return loaded,
            Err(fault) => tracing::error!(%fault, "connections.browser.tls cannot be used; trying again"),
        }
        sleep(RETRY).await;
    }
}
