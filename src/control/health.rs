//! `/livez`, `/readyz` and `/metrics` over TCP: read-only, for orchestrators and Prometheus.
//!
//! *Live* depends on the event loops alone: a restart helps against a stuck one, and against nothing
//! else. *Ready* depends on a loaded snapshot and on not draining. A browser is refused before anything
//! is looked at, since a page of somebody's could otherwise read what the gateway does.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::sync::watch;

use super::{
    Parts,
    connections::{self, Bounds},
};
use crate::{browser, config::Health, metrics::Format, refusal::Refusal};

/// An event loop that has not come round for this long is stuck.
pub const SILENCE_MAX: Duration = Duration::from_secs(5);

const BOUNDS: Bounds = Bounds {
    of: "health",
    head_bytes_max: connections::HEAD_BYTES_MIN,
    connections_max: 64,
    head_timeout: Duration::from_secs(2),
    total_timeout: Duration::from_secs(10),
};

/// Binds the health listener.
///
/// # Errors
/// The address is taken or not ours; the text names it.
pub fn bind(settings: &Health) -> io::Result<TcpListener> {
    let named = |error: io::Error| {
        io::Error::new(error.kind(), format!("the health listener cannot bind {}: {error}", settings.address))
    };
    let listener = TcpListener::bind(settings.address).map_err(named)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

pub(super) async fn serve(
    parts: &Parts,
    listener: TcpListener,
    settings: Health,
    stopped: watch::Receiver<()>,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let router = router(parts.clone(), address, settings);
    connections::serve(BOUNDS, stopped, || async {
        let (stream, _peer) = listener.accept().await?;
        Ok(Some((std::future::ready(Ok(stream)), router.clone())))
    })
    .await;
    Ok(())
}

struct Shared {
    parts: Parts,
    settings: Health,
    loopback: bool,
}

fn router(parts: Parts, address: SocketAddr, settings: Health) -> Router {
    let loopback = address.ip().to_canonical().is_loopback();
    let shared = Arc::new(Shared { parts, settings, loopback });
    Router::new()
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .fallback(|| async { StatusCode::NOT_FOUND })
        // Around everything, the fallback and 405 included.
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), no_browsers))
        .with_state(shared)
}

async fn no_browsers(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let rules = browser::Rules { loopback: shared.loopback, hosts: &shared.settings.hosts, origins: &[] };
    let mut response = match browser::check_head(&head, &rules) {
        Ok(()) => next.run(Request::from_parts(head, body)).await,
        Err(refusal) => refused(refusal),
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    response
}

fn refused(refusal: Refusal) -> Response {
    let body = serde_json::json!({ "status": refusal.status().as_u16(), "code": refusal.code() });
    (refusal.status(), [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}

async fn live(State(shared): State<Arc<Shared>>) -> Response {
    let silence = shared.parts.metrics.stalled_for(Instant::now());
    if silence <= SILENCE_MAX {
        return "live\n".into_response();
    }
    let text = format!("a worker's event loop has not come round for {:.1} s\n", silence.as_secs_f64());
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    match shared.parts.gateway.readiness().obstacle(shared.settings.ready_needs_vault) {
        None => "ready\n".into_response(),
        Some(obstacle) => (StatusCode::SERVICE_UNAVAILABLE, format!("{obstacle}\n")).into_response(),
    }
}

async fn metrics(State(shared): State<Arc<Shared>>, headers: header::HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let format = Format::accepted(accept);
    ([(header::CONTENT_TYPE, format.content_type())], shared.parts.metrics.render(format)).into_response()
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        task::JoinHandle,
    };

    use super::*;
    use crate::{
        control::{Listeners, Readiness, fake::Fake},
        metrics::{Metrics, WorkerMetrics},
    };

    struct Running {
        address: SocketAddr,
        fake: Arc<Fake>,
        _workers: Vec<WorkerMetrics>,
        stop: Option<tokio::sync::oneshot::Sender<()>>,
        task: JoinHandle<io::Result<()>>,
    }

    fn settings() -> Health {
        Health {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            hosts: vec!["probe.internal".into()],
            ready_needs_vault: false,
        }
    }

    async fn start(settings: Health) -> Running {
        let fake = Fake::new();
        let (metrics, workers) = Metrics::new(1, ["listUsers"], Arc::default());
        let parts = Parts { metrics, ..fake.parts() };
        let listener = bind(&settings).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let listeners = Listeners { health: Some((listener, settings)), socket: None };
        let until = async { stopped.await.unwrap_or_default() };
        let task = tokio::spawn(crate::control::serve(parts, listeners, until));
        Running { address, fake, _workers: workers, stop: Some(stop), task }
    }

    impl Running {
        async fn send(&self, request: &str) -> String {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        }

        async fn get(&self, path: &str, fields: &str) -> String {
            self.send(&format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{fields}\r\n", self.address)).await
        }
    }

    fn status(answer: &str) -> u16 {
        answer.split(' ').nth(1).unwrap().parse().unwrap()
    }

    #[tokio::test]
    async fn live_and_ready() {
        let running = start(settings()).await;
        assert_eq!(status(&running.get("/livez", "").await), 200);
        let answer = running.get("/readyz", "").await;
        assert_eq!(status(&answer), 200);
        assert!(answer.ends_with("\r\n\r\nready\n"));
        assert!(!answer.to_ascii_lowercase().contains("\r\nserver:"), "{answer}");
        assert!(answer.contains("cache-control: no-store"));
    }

    #[tokio::test]
    async fn draining_is_live_and_not_ready() {
        let running = start(settings()).await;
        running.fake.readiness.lock().unwrap().draining = true;
        assert_eq!(status(&running.get("/livez", "").await), 200);
        assert_eq!(status(&running.get("/readyz", "").await), 503);
    }

    #[tokio::test]
    async fn an_unread_vault_counts_only_where_it_is_asked_for() {
        let unread =
            Readiness { snapshot_loaded: true, draining: false, vault_read: false, store_open: true };
        for (ready_needs_vault, expected) in [(false, 200), (true, 503)] {
            let running = start(Health { ready_needs_vault, ..settings() }).await;
            *running.fake.readiness.lock().unwrap() = unread;
            assert_eq!(status(&running.get("/readyz", "").await), expected);
        }
    }

    #[tokio::test]
    async fn a_stuck_event_loop_is_not_live() {
        let shared = |metrics| {
            let parts = Parts { metrics, ..Fake::new().parts() };
            State(Arc::new(Shared { parts, settings: settings(), loopback: true }))
        };
        assert_eq!(
            live(shared(Metrics::silent_for(SILENCE_MAX + Duration::from_secs(1)))).await.status(),
            503
        );
        assert_eq!(live(shared(Metrics::silent_for(SILENCE_MAX / 2))).await.status(), 200);
    }

    #[tokio::test]
    async fn metrics_come_in_the_format_that_is_asked_for() {
        let running = start(settings()).await;
        let classic = running.get("/metrics", "Accept: */*\r\n").await;
        assert!(classic.contains("content-type: text/plain; version=0.0.4"));
        assert!(classic.contains("# TYPE mxgate_refusals_total counter"));
        let open = running.get("/metrics", "Accept: application/openmetrics-text;version=1.0.0\r\n").await;
        assert!(open.contains("content-type: application/openmetrics-text"));
        assert!(open.ends_with("# EOF\n"));
    }

    #[tokio::test]
    async fn other_paths_and_methods_are_refused() {
        let running = start(settings()).await;
        assert_eq!(status(&running.get("/", "").await), 404);
        assert_eq!(status(&running.get("/livez/", "").await), 404);
        assert_eq!(status(&running.get("/reload", "").await), 404);
        let post = format!("POST /livez HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\n\r\n", running.address);
        assert_eq!(status(&running.send(&post).await), 405);
    }

    #[tokio::test]
    async fn a_browser_is_refused_everywhere_and_a_configured_host_is_not() {
        let running = start(settings()).await;
        for path in ["/livez", "/readyz", "/metrics", "/absent"] {
            let rebound = format!("GET {path} HTTP/1.1\r\nHost: evil.com:9090\r\n\r\n");
            let answer = running.send(&rebound).await;
            assert_eq!(status(&answer), 421, "{path}");
            assert!(answer.ends_with(r#"{"code":"misdirected_request","status":421}"#), "{answer}");
            assert_eq!(status(&running.get(path, "Origin: http://localhost\r\n").await), 403);
            assert_eq!(status(&running.get(path, "Sec-Fetch-Site: same-origin\r\n").await), 403);
        }
        let named = "GET /livez HTTP/1.1\r\nHost: probe.internal\r\nSec-Fetch-Site: none\r\n\r\n";
        assert_eq!(status(&running.send(named).await), 200);
        let without_host = "GET /livez HTTP/1.0\r\n\r\n";
        assert_eq!(status(&running.send(without_host).await), 421);
    }

    #[tokio::test]
    async fn one_request_a_connection() {
        let running = start(settings()).await;
        let one = format!("GET /livez HTTP/1.1\r\nHost: {}\r\n\r\n", running.address);
        let answer = running.send(&format!("{one}{one}")).await;
        assert_eq!(answer.matches("HTTP/1.1").count(), 1);
        assert!(answer.contains("connection: close"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_listener_frees_itself() {
        let running = start(settings()).await;
        // Silent peers take every slot; each is cut off after the head time-out.
        let mut silent = Vec::new();
        for _ in 0..BOUNDS.connections_max {
            silent.push(TcpStream::connect(running.address).await.unwrap());
        }
        let begun = tokio::time::Instant::now();
        assert_eq!(status(&running.get("/readyz", "").await), 200);
        assert!(begun.elapsed() >= BOUNDS.head_timeout, "the cap did not hold");
        assert!(begun.elapsed() < BOUNDS.total_timeout);
        drop(silent);
    }

    #[tokio::test]
    async fn it_stops_when_told() {
        let mut running = start(settings()).await;
        assert_eq!(status(&running.get("/livez", "").await), 200);
        drop(running.stop.take());
        running.task.await.unwrap().unwrap();
        assert!(TcpStream::connect(running.address).await.is_err());
    }

    #[test]
    fn an_address_that_is_taken_is_named() {
        let first = bind(&settings()).unwrap();
        let address = first.local_addr().unwrap();
        let error = bind(&Health { address, ..settings() }).unwrap_err();
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
}
