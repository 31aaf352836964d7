//! Serves a small router on accepted sockets, with bounds: so many connections, so long each.
//!
//! `axum::serve` has neither bound. One request a connection: probes, scrapes and people's page views are rare, and an
//! idle connection that is not kept cannot be hoarded.

use std::{future::Future, io, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
};

/// What one listener's connections may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Whose they are, for the log.
    pub(crate) of: &'static str,
    /// Connections at a time; further ones wait in the kernel's queue.
    pub(crate) connections_max: usize,
    /// Bytes of a head; at least [`HEAD_BYTES_MIN`].
    pub(crate) head_bytes_max: usize,
    /// Until the handshake is done, and from there to the end of the head.
    pub(crate) head_timeout: Duration,
    /// From accept to the end of the answer.
    pub(crate) total_timeout: Duration,
}

/// hyper's least.
pub(crate) const HEAD_BYTES_MIN: usize = 8 * 1024;

/// Fields of a head.
const HEAD_FIELDS_MAX: usize = 64;

/// How long connections may go on after the stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Accepts until `stopped` changes or its sender is gone, then lets what is in flight end.
/// `accept` gives a socket that may have a handshake before it, and the router for it, or `None` for a peer that is turned
/// away.
pub(crate) async fn serve<S, H, A>(bounds: Bounds, mut stopped: watch::Receiver<()>, accept: impl Fn() -> A)
where
    A: Future<Output = io::Result<Option<(H, Router)>>>,
    H: Future<Output = io::Result<S>> + Send + 'static,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(bounds.connections_max));
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, accept().await)
        };
        let accepted = tokio::select! {
            accepted = next => accepted,
            _ = stopped.changed() => break,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            (Ok(slot), Ok(Some((handshake, router)))) => {
                connections.spawn(serve_one(bounds, handshake, router, slot));
            }
            (Err(_closed), _) => break,
            (Ok(_), Ok(None)) => {}
            (Ok(_), Err(error)) => {
                tracing::warn!(%error, listener = bounds.of, "a connection could not be accepted");
                // Out of descriptors: the connection stays in the queue, and trying at once would spin.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    let drained =
        tokio::time::timeout(DRAIN_TIMEOUT, async { while connections.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::debug!(listener = bounds.of, "connections were cut off");
    }
}

async fn serve_one<S, H>(bounds: Bounds, handshake: H, router: Router, slot: OwnedSemaphorePermit)
where
    H: Future<Output = io::Result<S>>,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Ok(Ok(stream)) = tokio::time::timeout(bounds.head_timeout, handshake).await else {
        tracing::debug!(listener = bounds.of, "a handshake failed, or took too long");
        return;
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head_timeout)
        .keep_alive(false)
        .max_buf_size(bounds.head_bytes_max)
        .max_headers(HEAD_FIELDS_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    match tokio::time::timeout(bounds.total_timeout, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, listener = bounds.of, "a connection failed"),
        Err(_elapsed) => tracing::debug!(listener = bounds.of, "a connection took too long"),
    }
    drop(slot);
}
