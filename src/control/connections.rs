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

use crate::https::Stream;

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
    let stream: Box<dyn Stream> = Box::new(stream);
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    const BOUNDS: Bounds = Bounds {
        of: "test",
        connections_max: 1,
        head_bytes_max: HEAD_BYTES_MIN,
        head_timeout: Duration::from_secs(5),
        total_timeout: Duration::from_secs(100),
    };

    #[tokio::test(start_paused = true)]
    async fn a_handshake_that_never_ends_holds_its_place_for_a_while() {
        let (mut browser, socket) = duplex(1024);
        // The first never finishes its handshake; the second has none.
        let waiting = Mutex::new(vec![Some(socket), None]);
        let accept = || async {
            let next = waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop();
            let Some(socket) = next else { return std::future::pending().await };
            let handshake = async move {
                match socket {
                    Some(socket) => Ok::<DuplexStream, io::Error>(socket),
                    None => std::future::pending().await,
                }
            };
            Ok(Some((handshake, Router::new().route("/", get(|| async { "here" })))))
        };
        let (_stop, stopped) = watch::channel(());
        let asked = async {
            let begun = tokio::time::Instant::now();
            browser.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            browser.read_to_string(&mut answer).await.unwrap();
            assert!(answer.ends_with("here"), "{answer}");
            assert_eq!(begun.elapsed().as_secs(), BOUNDS.head_timeout.as_secs(), "one place, held so long");
        };
        tokio::select! {
            () = asked => {}
            () = serve(BOUNDS, stopped, accept) => panic!("nobody stopped it"),
        }
    }
}
