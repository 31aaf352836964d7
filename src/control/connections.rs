//! Serves a small router on accepted sockets, with bounds: so many connections, so long each.
//!
//! `axum::serve` has neither bound. One request a connection: probes and scrapes are rare, and an idle
//! connection that is not kept cannot be hoarded.

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

use super::https::Stream;

/// What one listener's connections may cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Connections at a time; further ones wait in the kernel's queue.
    pub(super) connections_max: usize,
    /// From accept to the end of the head.
    pub(super) head_timeout: Duration,
    /// From accept to the end of the answer.
    pub(super) total_timeout: Duration,
}

/// Bytes of a head. hyper's least.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Fields of a head.
const HEAD_FIELDS_MAX: usize = 64;

/// How long connections may go on after the stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Accepts until `stopped` changes or its sender is gone, then lets what is in flight end.
/// `accept` gives a socket and the router for it, or `None` for a peer that is turned away.
pub(super) async fn serve<S, A>(bounds: Bounds, mut stopped: watch::Receiver<()>, accept: impl Fn() -> A)
where
    A: Future<Output = io::Result<Option<(S, Router)>>>,
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
            (Ok(slot), Ok(Some((stream, router)))) => {
                connections.spawn(serve_one(bounds, stream, router, slot));
            }
            (Err(_closed), _) => break,
            (Ok(_), Ok(None)) => {}
            (Ok(_), Err(error)) => {
                tracing::warn!(%error, "the control plane could not accept a connection");
                // Out of descriptors: the connection stays in the queue, and trying at once would spin.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    let drained =
        tokio::time::timeout(DRAIN_TIMEOUT, async { while connections.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::debug!("connections of the control plane were cut off");
    }
}

async fn serve_one<S>(bounds: Bounds, stream: S, router: Router, slot: OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream: Box<dyn Stream> = Box::new(stream);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head_timeout)
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEAD_FIELDS_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    match tokio::time::timeout(bounds.total_timeout, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection of the control plane failed"),
        Err(_elapsed) => tracing::debug!("a connection of the control plane took too long"),
    }
    drop(slot);
}
