//! The orderly end: no new connections, then what is in flight, then the control plane and the last records.
//!
//! Every wait is bounded: nothing that is stuck keeps the process.

use std::{io, thread::JoinHandle, time::Duration};

use tokio::{
    sync::watch,
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep, timeout},
};

use crate::{config::Config, control, record::writer::WriterHandle, worker::Stage};

/// How long a drained gateway waits for its control plane and its last records.
pub(super) const LAST_WAIT: Duration = Duration::from_secs(5);

/// `drain_delay` of service as usual, but for `Connection: close`, then nothing new.
pub(super) async fn drain(config: &Config, stage: &watch::Sender<Stage>, mut accepting: JoinSet<()>) {
    stage.send_replace(Stage::Closing);
    sleep(config.process.drain_delay).await;
    accepting.shutdown().await;
    stage.send_replace(Stage::Draining(Instant::now() + config.process.drain_total));
}

/// Waits for the workers, which keep to `drain_total` themselves: one that is stuck must not keep the process.
pub(super) async fn finish(threads: Vec<JoinHandle<io::Result<()>>>, bound: Duration) {
    let joined = spawn_blocking(move || {
        threads.into_iter().for_each(|thread| match thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "a worker could not run"),
            Err(_) => tracing::error!("a worker panicked"),
        });
    });
    if timeout(bound, joined).await.is_err() {
        tracing::error!("a worker is stuck and is left behind");
    }
}

/// The control plane answers until here, and the last records are written.
pub(super) async fn close(control: control::Handle, records: WriterHandle) {
    let closed = spawn_blocking(move || {
        if let Err(error) = control.stop(LAST_WAIT) {
            tracing::warn!(%error, "the control plane did not end in order");
        }
        if let Err(error) = records.close(LAST_WAIT) {
            tracing::warn!(%error, "the last access records may be missing");
        }
    });
    // Its waits are bounded, and a panic in it is in the log.
    let _ = closed.await;
}
