use std::{
    future::Future,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Instant,
};

use clap::Parser;
use mxgate::{
    control::{
        Gateway, Handle, Listeners, Parts, Readiness,
        socket::ControlSocket,
        suspension::{Subject, Suspensions},
    },
    metrics::Metrics,
    status::{
        BreakerStatus, BudgetStatus, CallerLimitsStatus, EnvironmentStatus, GatewayStatus, KeysStatus,
        LogOverride, Observing, ReloadReport, Status, Suspension, UpstreamStatus, Use,
    },
};

use super::*;

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

fn parsed(arguments: &str) -> Result<Command, clap::Error> {
    let words = std::iter::once("mxgate").chain(arguments.split_whitespace());
    Arguments::try_parse_from(words).map(|arguments| arguments.command)
}

#[test]
fn commands_are_read() {
    let environment = || What::Environment { name: "sandbox".into() };
    let configured = Configured::default;
    let hour = Duration::from_secs(3600);
    for (arguments, expected) in [
        ("status", Command::Status { part: None, configured: configured() }),
        ("status versions", Command::Status { part: Some(Part::Versions), configured: configured() }),
        ("reload", Command::Reload { configured: configured() }),
        (
            "log-level debug",
            Command::LogLevel {
                filter: Some("debug".into()),
                duration: hour / 4,
                reset: false,
                configured: configured(),
            },
        ),
        (
            "log-level debug --for 1h",
            Command::LogLevel {
                filter: Some("debug".into()),
                duration: hour,
                reset: false,
                configured: configured(),
            },
        ),
        (
            "log-level --reset",
            Command::LogLevel { filter: None, duration: hour / 4, reset: true, configured: configured() },
        ),
        (
            "suspend environment sandbox",
            Command::Suspend { what: environment(), duration: None, configured: configured() },
        ),
        (
            "suspend environment sandbox --for 1h",
            Command::Suspend { what: environment(), duration: Some(hour), configured: configured() },
        ),
        ("resume environment sandbox", Command::Resume { what: environment(), configured: configured() }),
        (
            "suspend caller ledger",
            Command::Suspend {
                what: What::Caller { name: "ledger".into() },
                duration: None,
                configured: configured(),
            },
        ),
        (
            "resume operation deleteUser",
            Command::Resume { what: What::Operation { id: "deleteUser".into() }, configured: configured() },
        ),
        (
            "resume address 10.0.0.0/8",
            Command::Resume {
                what: What::Address { network: "10.0.0.0/8".into() },
                configured: configured(),
            },
        ),
    ] {
        assert_eq!(parsed(arguments).unwrap(), expected, "{arguments}");
    }
}

#[test]
fn what_is_no_command_is_a_usage_error() {
    for arguments in [
        "log-level",
        "log-level debug --reset",
        "log-level debug --for 0s",
        "log-level debug --for 500ms",
        "log-level debug --for soon",
        "suspend",
        "suspend sandbox",
        "suspend environment",
        "resume environment sandbox --for 1h",
    ] {
        assert!(parsed(arguments).is_err(), "{arguments}");
    }
}

#[derive(Default)]
struct Fake {
    filters: Mutex<Vec<Option<String>>>,
}

impl Gateway for Fake {
    fn status(&self) -> GatewayStatus {
        GatewayStatus { environments: vec![sandbox()], ..GatewayStatus::default() }
    }

    fn caller_names(&self) -> Vec<String> {
        vec!["ledger".into()]
    }

    fn readiness(&self) -> Readiness {
        Readiness { snapshot_loaded: true, draining: false, vault_read: true, store_open: true }
    }

    fn reload(&self) -> Pin<Box<dyn Future<Output = Result<ReloadReport, String>> + Send + '_>> {
        Box::pin(async { Err("line 3: unknown key `alow`".into()) })
    }

    fn set_log_filter(&self, filter: Option<&str>) -> Result<(), String> {
        self.filters.lock().unwrap().push(filter.map(str::to_owned));
        Ok(())
    }
}

fn sandbox() -> EnvironmentStatus {
    EnvironmentStatus {
        name: "sandbox".into(),
        host: "int-api.mx.com".into(),
        credential: "vault:sandbox/api_key".into(),
        fingerprint: Some("01020304".into()),
    }
}

struct Running {
    path: PathBuf,
    suspensions: Arc<Suspensions>,
    fake: Arc<Fake>,
    handle: Handle,
    _folder: tempfile::TempDir,
}

fn start() -> Running {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    let fake = Arc::<Fake>::default();
    let suspensions = Arc::<Suspensions>::default();
    let (metrics, _workers) = Metrics::new(1, ["listUsers"], Arc::default());
    let gateway = Arc::clone(&fake) as Arc<dyn Gateway>;
    let parts = Parts::new(gateway, metrics, Arc::clone(&suspensions));
    let listeners = Listeners { health: None, socket: Some(ControlSocket::bind(&path).unwrap()) };
    let handle = mxgate::control::start(parts, listeners).unwrap();
    Running { path, suspensions, fake, handle, _folder: folder }
}

fn output(running: &Running, arguments: &str, json: bool) -> anyhow::Result<String> {
    let mut out = Vec::new();
    run(parsed(arguments).unwrap(), &running.path, json, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn commands_reach_the_running_gateway() {
    let running = start();
    let subject = Subject { environment: Some("sandbox"), ..Subject::default() };
    let shown = output(&running, "suspend environment sandbox --for 1h", false).unwrap();
    assert_eq!(shown, "environment sandbox is suspended for 1h\n");
    assert!(running.suspensions.applies(&subject, Instant::now()));
    let shown = output(&running, "status", false).unwrap();
    assert!(shown.contains("suspended      environment sandbox, for "), "{shown}");
    output(&running, "resume environment sandbox", false).unwrap();
    assert!(!running.suspensions.applies(&subject, Instant::now()));
    output(&running, "log-level debug --for 5m", false).unwrap();
    output(&running, "log-level --reset", false).unwrap();
    assert_eq!(*running.fake.filters.lock().unwrap(), [Some("debug".into()), None]);
    running.handle.stop(Duration::from_secs(10)).unwrap();
}

#[test]
fn what_the_gateway_did_not_do_is_an_error() {
    let running = start();
    let error = output(&running, "reload", false).unwrap_err();
    assert_eq!(error.to_string(), "the old configuration stays in use: line 3: unknown key `alow`");
    assert!(output(&running, "suspend address 10.1.2.3/8", false).is_err());
    assert!(output(&running, "resume address 10.0.0.0/8", false).is_err());
}

#[test]
fn nobody_there_is_said_with_the_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    let error =
        run(Command::Status { part: None, configured: Configured::default() }, &path, false, &mut Vec::new())
            .unwrap_err();
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    assert!(error.to_string().contains("is it running"), "{error}");
}

#[test]
fn json_is_one_line_and_the_gateways_own() {
    let running = start();
    let shown = output(&running, "status", true).unwrap();
    assert_eq!(shown.lines().count(), 1);
    let status: Status = serde_json::from_str(&shown).unwrap();
    assert_eq!(status.gateway.environments, [sandbox()]);
}

#[test]
fn status_is_for_people() {
    let mut status = Status {
        version: "0.1.0".into(),
        pid: 42,
        uptime_s: 7380,
        gateway: GatewayStatus {
            generation: 3,
            loaded_at: "2026-09-21T14:13:20Z".into(),
            configuration: "mxgate.toml".into(),
            log_filter: "info".into(),
            listeners: vec!["127.0.0.1:8080".into()],
            environments: vec![sandbox()],
            ..GatewayStatus::default()
        },
        ..Status::default()
    };
    let expected = "\
mxgate         0.1.0, process 42, up 2h 3m
ready          yes
configuration  mxgate.toml, generation 3, loaded 2026-09-21T14:13:20Z
listener       127.0.0.1:8080
environment    sandbox at int-api.mx.com, vault:sandbox/api_key (01020304)
callers        0 connections open, 0 requests so far
log filter     info
";
    assert_eq!(status_text(&status), expected);

    status.not_ready = Some("draining".into());
    status.worker_silence_ms = 6000;
    status.gateway.reload_fault = Some("line 3".into());
    status.gateway.environments[0].fingerprint = None;
    status.log_override = Some(LogOverride { filter: "debug".into(), for_s: 60 });
    let breaker = Some(BreakerStatus::Open { for_s: 4 });
    let budget = BudgetStatus {
        get_in_flight: Some(Use { now: 12, max: 200 }),
        other_in_flight: None,
        halved_for_s: Some(12),
    };
    status.gateway.upstreams = vec![UpstreamStatus {
        environment: "sandbox".into(),
        breaker,
        breaker_opened: 2,
        budget: Some(budget),
        keys: Some(KeysStatus {
            secondary: "vault:sandbox/next".into(),
            fingerprint: "05060708".into(),
            secondary_in_use: true,
            cutovers: 1,
            second_attempts: 7,
        }),
    }];
    let limits = |caller: usize, refused| CallerLimitsStatus {
        caller: format!("caller{caller}"),
        in_flight: Some(Use { now: 0, max: 20 }),
        connections: None,
        refused,
    };
    status.gateway.limits = (0..22).map(|caller| limits(caller, caller as u64)).collect();
    status.suspensions = vec![Suspension { target: Target::Address("10.0.0.0/8".into()), for_s: None }];
    let observing = Observing { caller: "ledger".into(), until: "2026-12-01T00:00:00Z".into() };
    status.gateway.observing = vec![observing];
    let text = status_text(&status);
    for part in [
        "observe mode   ledger, until 2026-12-01T00:00:00Z\n",
        "ready          NO: draining\n",
        "workers        STUCK: ",
        "last reload    FAILED: line 3\n",
        "(NOT READABLE)\n",
        "overridden by debug for 1m\n",
        "suspended      address 10.0.0.0/8, until it is resumed\n",
        "breaker        sandbox: OPEN for 4s, opened 2 times so far\n",
        "second key     sandbox: vault:sandbox/next (05060708), IN USE, MX refuses the first key; 1 cut-overs, \
         7 second attempts so far\n",
        "budget         sandbox: GET 12 of 200 in flight, HALVED for 12s\n",
        "limits         caller21: 0 of 20 requests in flight, 21 refused so far\n",
        "limits         caller2: 0 of 20 requests in flight, 2 refused so far\n",
        "and 1 more callers; --json shows all\n",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(!text.contains("caller0:") && !text.contains("caller1:"), "{text}");
}

#[test]
fn a_reload_says_what_changed() {
    let nothing = ReloadReport { generation: 2, ..ReloadReport::default() };
    assert_eq!(reload_text(&nothing), "loaded         generation 2\nchanged        nothing\n");
    let some = ReloadReport {
        generation: 3,
        changes: vec!["allow".into()],
        needs_restart: vec!["listener".into()],
        unread: vec!["file:/key does not exist".into()],
    };
    assert_eq!(
        reload_text(&some),
        "loaded         generation 3\nchanged        allow\nneeds restart  listener\nNOT READ       file:/key does not exist\n"
    );
}
