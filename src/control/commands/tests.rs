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
    let subject = suspension::Subject { environment: Some("sandbox"), ..Default::default() };
    let applies = || running.parts.suspensions.applies(&subject, Instant::now());
    let command = Suspend { target: environment("sandbox"), for_s: Some(3600) };
    let done = running.client.suspend(&command).await.unwrap();
    assert_eq!(done.done, "environment sandbox is suspended for 1h");
    assert!(applies());
    running.client.resume(&Resume { target: environment("sandbox") }).await.unwrap();
    assert!(!applies());
    for (target, wrong) in [
        (Target::Caller("ledger".into()), Target::Caller("leger".into())),
        (Target::Operation("listUsers".into()), Target::Operation("listusers".into())),
    ] {
        let suspend = |target: &Target| Suspend { target: target.clone(), for_s: None };
        running.client.suspend(&suspend(&target)).await.unwrap();
        let (status, text) = refusal(running.client.suspend(&suspend(&wrong)).await);
        assert!(status == 404 && text.starts_with("there is no "), "{text}");
        running.client.resume(&Resume { target }).await.unwrap();
    }
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
        (post("/suspend", r#"{"target":{"service":"ledger"}}"#), "400"),
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

    use crate::{
        control::{Gateway, Readiness},
        status::GatewayStatus,
    };

    struct Slow {
        begun: tokio::sync::Notify,
        go_on: tokio::sync::Notify,
        finished: tokio::sync::Notify,
    }
    impl Gateway for Slow {
        fn status(&self) -> GatewayStatus {
            GatewayStatus::default()
        }
        fn caller_names(&self) -> Vec<String> {
            vec!["ledger".into(), "batch".into()]
        }

        fn readiness(&self) -> Readiness {
            Readiness { snapshot_loaded: true, draining: false, vault_read: true, store_open: true }
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

    let slow =
        Arc::new(Slow { begun: Default::default(), go_on: Default::default(), finished: Default::default() });
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
