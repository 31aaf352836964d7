//! What the control socket understands: HTTP/1.1 with JSON, one request a connection.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /status` | | [`Status`] |
//! | `GET /versions` | | [`VersionReport`] |
//! | `POST /reload` | | [`ReloadReport`]; 422 when the old configuration was kept |
//! | `POST /log-level` | [`SetLogLevel`] | [`Done`] |
//! | `POST /suspend` | [`Suspend`] | [`Done`] |
//! | `POST /resume` | [`Resume`] | [`Done`]; 404 when it is not suspended |
//! | `/connections` | | [`consents`] |
//!
//! Everything that is not done answers with a status from 400 on and a [`Fault`]. For example
//! `curl --unix-socket /run/mxgate/control.sock http://localhost/status`. The peer is root or our own
//! user, by `SO_PEERCRED`; each command that changes something is logged with the peer's uid.

use std::{
    future::ready,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Extension, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::{Mutex, watch};

use super::{
    Parts,
    connections::{self, Bounds},
    consents,
    log_level::{FOR_DEFAULT, FOR_MAX, LogLevel},
    messages::{Done, Fault, Resume, SetLogLevel, Suspend},
    socket::{self, ControlSocket},
    suspension,
};
use crate::{
    mx::catalogue::catalogue,
    redaction,
    status::{ReloadReport, Status, Target, VersionReport},
};

/// A reload may have to wait for a vault.
const BOUNDS: Bounds = Bounds {
    of: "control socket",
    head_bytes_max: connections::HEAD_BYTES_MIN,
    connections_max: 16,
    head_timeout: Duration::from_secs(5),
    total_timeout: Duration::from_secs(120),
};

const BODY_BYTES_MAX: usize = 16 * 1024;

/// How many names are listed when one was mistyped.
const NAMES_MAX: usize = 20;

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
        let router = router.clone().layer(Extension(Operator { uid }));
        Ok(Some((ready(Ok(stream)), router)))
    })
    .await;
    Ok(())
}

/// Who gives a command.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operator {
    pub(super) uid: u32,
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
    let consents = consents::router(parts.connections.clone());
    let log_level = LogLevel::new(Arc::clone(&parts.gateway));
    let shared = Shared { parts, needs_vault, log_level, reloading: Mutex::new(()) };
    Router::new()
        .route("/status", get(status))
        .route("/versions", get(versions))
        .route("/reload", post(reload))
        .route("/log-level", post(log_level_set))
        .route("/suspend", post(suspend))
        .route("/resume", post(resume))
        .fallback(|| async { NotDone(StatusCode::NOT_FOUND, "there is no such command".into()) })
        .method_not_allowed_fallback(|| async {
            NotDone(StatusCode::METHOD_NOT_ALLOWED, "this command takes another method".into())
        })
        .with_state(Arc::new(shared))
        .merge(consents)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

async fn status(State(shared): Shares) -> Masked<Status> {
    let now = Instant::now();
    let Parts { gateway, metrics, suspensions, .. } = &shared.parts;
    Masked(Status {
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

async fn versions(State(shared): Shares) -> Masked<VersionReport> {
    let metrics = &shared.parts.metrics;
    Masked(VersionReport { uptime_s: metrics.uptime(Instant::now()).as_secs(), callers: metrics.versions() })
}

async fn reload(
    State(shared): Shares,
    Extension(operator): Extension<Operator>,
) -> Result<Masked<ReloadReport>, NotDone> {
    tracing::info!(uid = operator.uid, "a reload was asked for");
    // A task of its own: a client that hangs up does not stop a reload half way.
    let task = tokio::spawn(async move {
        let _one = shared.reloading.lock().await;
        shared.parts.gateway.reload().await
    });
    match task.await {
        Ok(Ok(report)) => Ok(Masked(report)),
        Ok(Err(why)) => {
            let text = format!("the old configuration stays in use: {why}");
            Err(NotDone(StatusCode::UNPROCESSABLE_ENTITY, text))
        }
        Err(_panicked) => {
            Err(NotDone(StatusCode::INTERNAL_SERVER_ERROR, "the reload broke off; see the log".into()))
        }
    }
}

async fn log_level_set(
    State(shared): Shares,
    Extension(operator): Extension<Operator>,
    body: Bytes,
) -> Result<Masked<Done>, NotDone> {
    let SetLogLevel { filter, for_s } = parse(&body)?;
    let Some(filter) = filter else {
        shared.log_level.reset();
        tracing::warn!(uid = operator.uid, "the log filter was reset");
        return Ok(done("the configured log filter is in force".into()));
    };
    let duration = for_s.map_or(FOR_DEFAULT, Duration::from_secs);
    if duration.is_zero() || duration > FOR_MAX {
        let text = format!("a log filter is set for 1 s to {}", shown(FOR_MAX));
        return Err(NotDone(StatusCode::BAD_REQUEST, text));
    }
    shared
        .log_level
        .set(&filter, duration)
        .map_err(|why| NotDone(StatusCode::BAD_REQUEST, format!("`{filter}` is no log filter: {why}")))?;
    tracing::warn!(uid = operator.uid, filter, seconds = duration.as_secs(), "the log filter was changed");
    Ok(done(format!("the log filter is `{filter}` for {}", shown(duration))))
}

async fn suspend(
    State(shared): Shares,
    Extension(operator): Extension<Operator>,
    body: Bytes,
) -> Result<Masked<Done>, NotDone> {
    let Suspend { target, for_s } = parse(&body)?;
    known(&shared, &target)?;
    let now = Instant::now();
    let duration = for_s.map(Duration::from_secs);
    if duration.is_some_and(|duration| duration.is_zero() || duration > SUSPENSION_MAX) {
        let text = format!("a suspension lasts 1 s to {}, or until `resume`", shown(SUSPENSION_MAX));
        return Err(NotDone(StatusCode::BAD_REQUEST, text));
    }
    let until = duration.and_then(|duration| now.checked_add(duration));
    let refused = |error: suspension::Error| NotDone(StatusCode::BAD_REQUEST, error.to_string());
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
) -> Result<Masked<Done>, NotDone> {
    let Resume { target } = parse(&body)?;
    shared.parts.suspensions.resume(&target, Instant::now()).map_err(|error| match error {
        suspension::Error::NotSuspended(_) => NotDone(StatusCode::NOT_FOUND, error.to_string()),
        _ => NotDone(StatusCode::BAD_REQUEST, error.to_string()),
    })?;
    tracing::warn!(uid = operator.uid, %target, "resumed");
    Ok(done(format!("{target} is served again")))
}

/// A name that is mistyped must not look suspended.
fn known(shared: &Shared, target: &Target) -> Result<(), NotDone> {
    let gateway = &shared.parts.gateway;
    let (kind, name, names) = match target {
        Target::Environment(name) => {
            let environments = gateway.status().environments;
            ("environment", name, environments.into_iter().map(|environment| environment.name).collect())
        }
        Target::Caller(name) => ("caller", name, gateway.caller_names()),
        Target::Operation(id) => {
            let ids = catalogue().operations().iter().map(|operation| operation.id.to_owned());
            ("operation", id, ids.collect::<Vec<_>>())
        }
        Target::Address(_) => return Ok(()),
    };
    if names.contains(name) {
        return Ok(());
    }
    // All of MX's operations, or of many callers, are too many for a line.
    let there_are = match names.len() {
        0..=NAMES_MAX => format!("; there are: {}", names.join(", ")),
        _ => String::new(),
    };
    Err(NotDone(StatusCode::NOT_FOUND, format!("there is no {kind} `{name}`{there_are}")))
}

/// JSON whatever the `Content-Type` says: `curl -d` calls it a form.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, NotDone> {
    serde_json::from_slice(body).map_err(|error| {
        NotDone(StatusCode::BAD_REQUEST, format!("the body is not what the command takes: {error}"))
    })
}

pub(super) fn done(done: String) -> Masked<Done> {
    Masked(Done { done })
}

/// JSON in which every secret that this process holds is masked: what an operator pasted by mistake may be one, and
/// answers repeat names.
pub(super) struct Masked<T>(pub(super) T);

impl<T: Serialize> IntoResponse for Masked<T> {
    fn into_response(self) -> Response {
        let Ok(mut text) = serde_json::to_vec(&self.0) else {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        };
        redaction::held().masker().mask(&mut text);
        ([(CONTENT_TYPE, "application/json")], text).into_response()
    }
}

/// JSON with the one secret that was asked for.
pub(super) struct Unmasked<T>(pub(super) T);

impl<T: Serialize> IntoResponse for Unmasked<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

/// Why a command was not done.
pub(super) struct NotDone(pub(super) StatusCode, pub(super) String);

impl IntoResponse for NotDone {
    fn into_response(self) -> Response {
        (self.0, Masked(Fault { error: self.1 })).into_response()
    }
}

fn shown(duration: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(duration)
}

#[cfg(test)]
mod tests;
