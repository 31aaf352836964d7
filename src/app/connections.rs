//! Users' connections in a running gateway: a thread of their own, where their store is opened and their tokens refreshed.
//!
//! What cannot get better by itself (a wrong key, a store of a later version) ends the start, with the store untouched. What
//! can, such as a vault or a database that is not there yet, is tried again; until then there are no tokens.

use std::{io, sync::Arc, thread, time::Duration};

use tokio::{sync::oneshot, time::sleep};

use crate::{
    config::Config,
    oauth::broker::{Broker, open},
    vault,
};

/// How soon a store that could not be opened is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// The thread. It ends when this is dropped.
pub(super) struct Running {
    pub(super) broker: Arc<Broker>,
    _stop: oneshot::Sender<()>,
}

/// Whether there is anything to do.
fn is_needed(config: &Config) -> bool {
    config.connections.is_some() || !config.providers.is_empty()
}

/// Starts it; `None`: nothing is configured that needs it.
///
/// # Errors
/// [`super::Error::Connections`] for what only an operator can mend, or no thread was to be had.
pub(super) fn start(config: &Config) -> Result<Option<Running>, super::Error> {
    if !is_needed(config) {
        return Ok(None);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let broker = Broker::new(runtime.handle().clone());
    broker.adopt(config);
    let (stop, stopped) = oneshot::channel();
    let (tell, told) = std::sync::mpsc::channel();
    let (config, works) = (config.clone(), broker.clone());
    let serve = move || {
        runtime.block_on(async {
            tokio::select! {
                () = serve(&config, &works, tell) => {}
                // Its sender is gone: the gateway stops.
                _ = stopped => {}
            }
        });
        runtime.shutdown_background();
    };
    thread::Builder::new().name("mxgate-oauth".into()).spawn(serve)?;
    match told.recv() {
        Ok(Ok(())) => Ok(Some(Running { broker, _stop: stop })),
        Ok(Err(error)) => Err(super::Error::Connections(vault::chain(&error))),
        Err(_) => Err(io::Error::other("the thread of connections has ended").into()),
    }
}

type Told = std::sync::mpsc::Sender<Result<(), open::Error>>;

/// Tells once how the first attempt went, and goes on until it is dropped.
async fn serve(config: &Config, broker: &Arc<Broker>, tell: Told) {
    let mut said = false;
    while let Some(connections) = &config.connections {
        let opened = open::store(config, connections).await;
        match opened {
            Ok(store) => {
                broker.opened(store);
                break;
            }
            Err(error) if !error.may_pass() && !said => {
                // Nobody listens only when the gateway is gone.
                let _ = tell.send(Err(error));
                return;
            }
            Err(error) => {
                tracing::error!(reason = vault::chain(&error), "there are no connections yet; trying again");
                if !said {
                    let _ = tell.send(Ok(()));
                }
                said = true;
                sleep(RETRY).await;
            }
        }
    }
    if !said {
        let _ = tell.send(Ok(()));
    }
    broker.upkeep().await;
}
