//! What the control socket understands: HTTP/1.1 with JSON, one request a connection.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /status` | | [`Status`](super::messages::Status) |
//! | `POST /reload` | | [`ReloadReport`](super::messages::ReloadReport); 422 when the old configuration was kept |
//! | `POST /log-level` | [`SetLogLevel`] | [`Done`] |
//! | `POST /suspend` | [`Suspend`] | [`Done`] |
//! | `POST /resume` | [`Resume`] | [`Done`]; 404 when it is not suspended |
//!
//! Everything that is not done answers with a status from 400 on and a [`Fault`]. For example
//! `curl --unix-socket /run/mxgate/control.sock http://localhost/status`. The peer is root or our own
//! user, by `SO_PEERCRED`; each command that changes something is logged with the peer's uid.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::de::DeserializeOwned;
use tokio::sync::{Mutex, watch};

use super::{
    Parts,
    connections::{self, Bounds},
    log_level::{FOR_DEFAULT, FOR_MAX, LogLevel},
    messages::{Done, Fault, Resume, SetLogLevel, Status, Suspend, Target},
    socket::{self, ControlSocket},
    suspension,
};

/// A reload may have to wait for a vault.
const BOUNDS: Bounds = Bounds {
    connections_max: 16,
    head_timeout: Duration::from_secs(5),
    total_timeout: Duration::from_secs(120),
};

const BODY_BYTES_MAX: usize = 16 * 1024;

/// The longest suspension with an end.
const SUSPENSION_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

pub(super) async fn serve(
    parts: &Parts,
    needs_vault: bool,
    socket: ControlSocket,
    stopped: watch::Receiver<()>,
) -> io::Result<()> {
    let (listener, _file) = socket.into_parts();
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let own = rustix::process::geteuid().as_raw();
    let router = router(parts.clone(), needs_vault);
    connections::serve(BOUNDS, stopped, || async {
        let (stream, _address) = listener.accept().await?;
        let uid = stream.peer_cred()?.uid();
        if !socket::is_operator(uid, own) {
            tracing::warn!(uid, "a user without the right to it was turned away from the control socket");
            return Ok(None);
        }
        Ok(Some((stream, router.clone().layer(Extension(Operator { uid })))))
    })
    .await;
    Ok(())
}

/// Who gives a command.
#[derive(Debug, Clone, Copy)]
struct Operator {
    uid: u32,
}

struct Shared {
    parts: Parts,
    needs_vault: bool,
    log_level: LogLevel,
    /// One reload at a time: two would race for which snapshot is the later one.
    reloading: Mutex<()>,
}

type Shares = State<Arc<Shared>>;

fn router(parts: Parts, needs_vault: bool) -> Router {
    let log_level = LogLevel::new(Arc::clone(&parts.gateway));
    let shared = Shared { parts, needs_vault, log_level, reloading: Mutex::new(()) };
    Router::new()
        .route("/status", get(status))
        .route("/reload", post(reload))
        .route("/log-level", post(log_level_set))
        .route("/suspend", post(suspend))
        .route("/resume", post(resume))
        .fallback(|| async { fault(StatusCode::NOT_FOUND, "there is no such command".into()) })
        .method_not_allowed_fallback(|| async {
            fault(StatusCode::METHOD_NOT_ALLOWED, "this command takes another method".into())
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Arc::new(shared))
}

async fn status(State(shared): Shares) -> Json<Status> {
    let now = Instant::now();
    let Parts { gateway, metrics, suspensions } = &shared.parts;
    Json(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_s: metrics.uptime(now).as_secs(),
        not_ready: gateway.readiness().obstacle(shared.needs_vault).map(str::to_owned),
        worker_silence_ms: u64::try_from(metrics.stalled_for(now).as_millis()).unwrap_or(u64::MAX),
        callers_open: metrics.callers_open(),
        requests: metrics.requests(),
        log_override: shared.log_level.current(),
        suspensions: suspensions.list(now),
        gateway: gateway.status(),
    })
}

async fn reload(State(shared): Shares, Extension(operator): Extension<Operator>) -> Response {
    tracing::info!(uid = operator.uid, "a reload was asked for");
    // A task of its own: a client that hangs up does not stop a reload half way.
    let task = tokio::spawn(async move {
        let _one = shared.reloading.lock().await;
        shared.parts.gateway.reload().await
    });
    match task.await {
        Ok(Ok(report)) => Json(report).into_response(),
        Ok(Err(why)) => {
            fault(StatusCode::UNPROCESSABLE_ENTITY, format!("the old configuration stays in use: {why}"))
        }
        Err(_panicked) => {
            fault(StatusCode::INTERNAL_SERVER_ERROR, "the reload broke off; see the log".into())
        }
    }
}

async fn log_level_set(
    State(shared): Shares,
    Extension(operator): Extension<Operator>,
    body: Bytes,
) -> Result<Json<Done>, Response> {
    let SetLogLevel { filter, for_s } = parse(&body)?;
    let Some(filter) = filter else {
        shared.log_level.reset();
        return Ok(done("the configured log filter is in force".into()));
    };
    let duration = for_s.map_or(FOR_DEFAULT, Duration::from_secs);
    if duration.is_zero() || duration > FOR_MAX {
        let text = format!("a log filter is set for 1 s to {}", shown(FOR_MAX));
        return Err(fault(StatusCode::BAD_REQUEST, text));
    }
    shared
        .log_level
        .set(&filter, duration)
        .map_err(|why| fault(StatusCode::BAD_REQUEST, format!("`{filter}` is no log filter: {why}")))?;
    tracing::warn!(uid = operator.uid, filter, seconds = duration.as_secs(), "the log filter was changed");
    Ok(done(format!("the log filter is `{filter}` for {}", shown(duration))))
}

async fn suspend(
    State(shared): Shares,
    Extension(operator): Extension<Operator>,
    body: Bytes,
) -> Result<Json<Done>, Response> {
    let Suspend { target, for_s } = parse(&body)?;
    known(&shared, &target)?;
    let now = Instant::now();
    let duration = for_s.map(Duration::from_secs);
    if duration.is_some_and(|duration| duration.is_zero() || duration > SUSPENSION_MAX) {
        let text = format!("a suspension lasts 1 s to {}, or until `resume`", shown(SUSPENSION_MAX));
        return Err(fault(StatusCode::BAD_REQUEST, text));
    }
    let until = duration.and_then(|duration| now.checked_add(duration));
    let refused = |error: suspension::Error| fault(StatusCode::BAD_REQUEST, error.to_string());
    shared.parts.suspensions.suspend(&target, until, now).map_err(refused)?;
    let end = duration
        .map_or_else(|| "until it is resumed".to_owned(), |duration| format!("for {}", shown(duration)));
    tracing::warn!(uid = operator.uid, %target, end, "suspended");
    Ok(done(format!("{target} is suspended {end}")))
}

async fn resume(
    State(shared): Shares,
    Extension(operator): Extension<Operator>,
    body: Bytes,
) -> Result<Json<Done>, Response> {
    let Resume { target } = parse(&body)?;
    shared.parts.suspensions.resume(&target, Instant::now()).map_err(|error| match error {
        suspension::Error::NotSuspended(_) => fault(StatusCode::NOT_FOUND, error.to_string()),
        _ => fault(StatusCode::BAD_REQUEST, error.to_string()),
    })?;
    tracing::warn!(uid = operator.uid, %target, "resumed");
    Ok(done(format!("{target} is served again")))
}

/// A name that is mistyped must not look suspended.
fn known(shared: &Shared, target: &Target) -> Result<(), Response> {
    let Target::Environment(name) = target else { return Ok(()) };
    let environments = shared.parts.gateway.status().environments;
    if environments.iter().any(|environment| environment.name == *name) {
        return Ok(());
    }
    let names: Vec<&str> = environments.iter().map(|environment| environment.name.as_str()).collect();
    let text = format!("there is no environment `{name}`; there are: {}", names.join(", "));
    Err(fault(StatusCode::NOT_FOUND, text))
}

/// JSON whatever the `Content-Type` says: `curl -d` calls it a form.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Response> {
    serde_json::from_slice(body).map_err(|error| {
        fault(StatusCode::BAD_REQUEST, format!("the body is not what the command takes: {error}"))
    })
}

fn done(done: String) -> Json<Done> {
    Json(Done { done })
}

fn fault(status: StatusCode, error: String) -> Response {
    (status, Json(Fault { error })).into_response()
}

fn shown(duration: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(duration)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixStream,
    };

    use super::*;
    use crate::control::{
        Listeners,
        client::{self, Client},
        fake::Fake,
        messages::ReloadReport,
    };

    struct Running {
        client: Client,
        path: PathBuf,
        fake: Arc<Fake>,
        parts: Parts,
        _folder: tempfile::TempDir,
        stop: Option<tokio::sync::oneshot::Sender<()>>,
        task: tokio::task::JoinHandle<io::Result<()>>,
    }

    async fn start() -> Running {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let fake = Fake::new();
        let parts = fake.parts();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let listeners = Listeners { health: None, socket: Some(ControlSocket::bind(&path).unwrap()) };
        let until = async { stopped.await.unwrap_or_default() };
        let task = tokio::spawn(crate::control::serve(parts.clone(), listeners, until));
        Running { client: Client::new(&path), path, fake, parts, _folder: folder, stop: Some(stop), task }
    }

    fn environment(name: &str) -> Target {
        Target::Environment(name.into())
    }

    /// The status and text of a command that was not done.
    fn refusal<T: std::fmt::Debug>(result: Result<T, client::Error>) -> (u16, String) {
        match result {
            Err(client::Error::Refused { status, text }) => (status, text),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn status_tells_what_is_running() {
        let running = start().await;
        running.parts.suspensions.suspend(&environment("sandbox"), None, Instant::now()).unwrap();
        let status = running.client.status().await.unwrap();
        assert_eq!(status.version, env!("CARGO_PKG_VERSION"));
        assert_eq!(status.pid, std::process::id());
        assert_eq!(status.not_ready, None);
        assert_eq!(status.gateway.environments[0].fingerprint.as_deref(), Some("01020304"));
        assert_eq!(status.suspensions[0].target, environment("sandbox"));
        running.fake.readiness.lock().unwrap().draining = true;
        assert_eq!(running.client.status().await.unwrap().not_ready.as_deref(), Some("draining"));
    }

    #[tokio::test]
    async fn reload_reports_and_a_failed_one_says_why() {
        let running = start().await;
        let report = running.client.reload().await.unwrap();
        assert_eq!((report.generation, report.changes), (2, vec!["rate".to_owned()]));
        *running.fake.reload.lock().unwrap() = Err("line 3: unknown key `alow`".into());
        let (status, text) = refusal(running.client.reload().await);
        assert_eq!(status, 422);
        assert_eq!(text, "the old configuration stays in use: line 3: unknown key `alow`");
    }

    #[tokio::test]
    async fn the_log_filter_is_set_for_a_time_and_reset() {
        let running = start().await;
        let command = SetLogLevel { filter: Some("debug".into()), for_s: None };
        let done = running.client.set_log_level(&command).await.unwrap();
        assert_eq!(done.done, "the log filter is `debug` for 15m");
        assert_eq!(running.client.status().await.unwrap().log_override.unwrap().filter, "debug");
        running.client.set_log_level(&SetLogLevel { filter: None, for_s: None }).await.unwrap();
        assert_eq!(running.client.status().await.unwrap().log_override, None);
        assert_eq!(*running.fake.filters.lock().unwrap(), [Some("debug".into()), None]);
    }

    #[tokio::test]
    async fn a_log_filter_out_of_bounds_is_refused() {
        let running = start().await;
        for (filter, for_s) in [("nonsense=", None), ("debug", Some(0)), ("debug", Some(86_401))] {
            let command = SetLogLevel { filter: Some(filter.into()), for_s };
            assert_eq!(refusal(running.client.set_log_level(&command).await).0, 400, "{filter} {for_s:?}");
        }
        assert!(running.fake.filters.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn suspend_and_resume_reach_the_data_plane() {
        let running = start().await;
        let applies = || running.parts.suspensions.applies("sandbox", None, Instant::now());
        let command = Suspend { target: environment("sandbox"), for_s: Some(3600) };
        let done = running.client.suspend(&command).await.unwrap();
        assert_eq!(done.done, "environment sandbox is suspended for 1h");
        assert!(applies());
        running.client.resume(&Resume { target: environment("sandbox") }).await.unwrap();
        assert!(!applies());
        let again = running.client.resume(&Resume { target: environment("sandbox") }).await;
        assert_eq!(refusal(again), (404, "environment sandbox is not suspended".into()));
    }

    #[tokio::test]
    async fn what_cannot_be_suspended_is_said() {
        let running = start().await;
        let ask = |target, for_s| Suspend { target, for_s };
        let mistyped = refusal(running.client.suspend(&ask(environment("sandbx"), None)).await);
        assert_eq!(mistyped, (404, "there is no environment `sandbx`; there are: sandbox".into()));
        for (target, for_s) in [
            (Target::Address("10.1.2.3/8".into()), None),
            (Target::Address("ledger".into()), None),
            (environment("sandbox"), Some(0)),
            (environment("sandbox"), Some(u64::MAX)),
        ] {
            let shown = format!("{target} {for_s:?}");
            assert_eq!(refusal(running.client.suspend(&ask(target, for_s)).await).0, 400, "{shown}");
        }
        assert_eq!(running.parts.suspensions.list(Instant::now()), []);
    }

    async fn raw(path: &std::path::Path, request: &str) -> String {
        let mut stream = UnixStream::connect(path).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn bodies_paths_and_methods_that_are_not_known_are_faults() {
        let running = start().await;
        let post = |path: &str, body: &str| {
            let length = body.len();
            format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}")
        };
        let big = format!("\"{}\"", "x".repeat(BODY_BYTES_MAX));
        for (request, expected) in [
            (post("/suspend", r#"{"target":{"address":"10.0.0.1"}}"#), "200"),
            (post("/suspend", r#"{"target":{"address":"10.0.0.1"},"fro_s":5}"#), "400"),
            (post("/suspend", r#"{"target":{"caller":"ledger"}}"#), "400"),
            (post("/suspend", ""), "400"),
            (post("/suspend", &big), "413"),
            (post("/nothing", ""), "404"),
            (post("/status", ""), "405"),
            ("GET /reload HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), "405"),
        ] {
            let answer = raw(&running.path, &request).await;
            assert_eq!(answer.split(' ').nth(1), Some(expected), "{request}\n{answer}");
        }
    }

    #[tokio::test]
    async fn a_reload_goes_on_when_its_client_leaves() {
        use std::{future::Future, pin::Pin};

        use crate::control::{Gateway, Readiness, messages::GatewayStatus};

        struct Slow {
            begun: tokio::sync::Notify,
            go_on: tokio::sync::Notify,
            finished: tokio::sync::Notify,
        }
        impl Gateway for Slow {
            fn status(&self) -> GatewayStatus {
                GatewayStatus::default()
            }
            fn readiness(&self) -> Readiness {
                Readiness { snapshot_loaded: true, draining: false, vault_read: true }
            }
            fn reload(&self) -> Pin<Box<dyn Future<Output = Result<ReloadReport, String>> + Send + '_>> {
                Box::pin(async {
                    self.begun.notify_one();
                    self.go_on.notified().await;
                    self.finished.notify_one();
                    Ok(ReloadReport::default())
                })
            }
            fn set_log_filter(&self, _: Option<&str>) -> Result<(), String> {
                Ok(())
            }
        }

        let slow = Arc::new(Slow {
            begun: Default::default(),
            go_on: Default::default(),
            finished: Default::default(),
        });
        let parts = Parts { gateway: Arc::clone(&slow) as Arc<dyn Gateway>, ..Fake::new().parts() };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let listeners = Listeners { health: None, socket: Some(ControlSocket::bind(&path).unwrap()) };
        tokio::spawn(crate::control::serve(parts, listeners, std::future::pending()));

        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream.write_all(b"POST /reload HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        slow.begun.notified().await;
        drop(stream);
        slow.go_on.notify_one();
        slow.finished.notified().await;
    }

    #[tokio::test]
    async fn it_stops_when_told_and_takes_its_file_along() {
        let mut running = start().await;
        running.client.status().await.unwrap();
        drop(running.stop.take());
        running.task.await.unwrap().unwrap();
        assert!(!running.path.exists());
        assert!(matches!(running.client.status().await, Err(client::Error::NobodyThere { .. })));
    }

    #[test]
    fn the_thread_serves_and_stops() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let listeners = Listeners { health: None, socket: Some(ControlSocket::bind(&path).unwrap()) };
        let handle = crate::control::start(Fake::new().parts(), listeners).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(Client::new(&path).status()).unwrap();
        handle.stop(Duration::from_secs(10)).unwrap();
        assert!(!path.exists());
    }
}
