//! The commands that act on a running gateway: `status`, `reload`, `log-level`, `suspend`, `resume`.
//!
//! In: a control socket's path and a command. Out: text for people, or the gateway's own JSON.

mod text;

use std::{io::Write, path::Path, time::Duration};

use anyhow::{Context, bail};
use clap::Subcommand;
use mxgate::control::{
    client::Client,
    messages::{Resume, SetLogLevel, Suspend, Target},
};
use serde::Serialize;

use super::Configured;

use self::text::{done_text, reload_text, status_text, versions_text};

/// What to do with the running gateway.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub(crate) enum Command {
    /// Show what is running: readiness, configuration, environments, what is suspended
    Status {
        /// Instead: one part of it in full
        #[command(subcommand)]
        part: Option<Part>,
        #[command(flatten)]
        configured: Configured,
    },
    /// Load configuration and secrets again; on a fault the old ones stay in use
    Reload {
        #[command(flatten)]
        configured: Configured,
    },
    /// Change the log filter for a time
    LogLevel {
        /// A level or a filter, such as `debug` or `info,mxgate::upstream=debug`
        #[arg(required_unless_present = "reset")]
        filter: Option<String>,
        /// Until the configured filter returns, at most 24h
        #[arg(long = "for", value_name = "DURATION", default_value = "15m", value_parser = whole_seconds)]
        duration: Duration,
        /// Go back to the configured filter now
        #[arg(long, conflicts_with = "filter")]
        reset: bool,
        #[command(flatten)]
        configured: Configured,
    },
    /// Stop serving a caller, an operation, an environment or a network at once, without a change of configuration
    Suspend {
        /// What to stop
        #[command(subcommand)]
        what: What,
        /// Until it is served again; without it, until `resume` or a restart
        #[arg(long = "for", value_name = "DURATION", global = true, value_parser = whole_seconds)]
        duration: Option<Duration>,
        #[command(flatten)]
        configured: Configured,
    },
    /// Serve again what was suspended
    Resume {
        /// What to serve
        #[command(subcommand)]
        what: What,
        #[command(flatten)]
        configured: Configured,
    },
}

impl Command {
    /// Where the gateway's configuration is, when that was said.
    pub(crate) fn config(&self) -> Option<&Path> {
        let (Self::Status { configured, .. }
        | Self::Reload { configured }
        | Self::LogLevel { configured, .. }
        | Self::Suspend { configured, .. }
        | Self::Resume { configured, .. }) = self;
        configured.config.as_deref()
    }
}

/// A part of the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub(crate) enum Part {
    /// Callers that send no Accept-Version, or use operations that MX deprecates
    Versions,
}

/// What can be suspended.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub(crate) enum What {
    /// An environment: nothing is sent to it
    Environment {
        /// Its name in the configuration
        name: String,
    },
    /// A network or one address: nobody in it is served
    Address {
        /// Such as 10.1.2.3 or 10.0.0.0/8
        network: String,
    },
    /// A caller: it is not served, and loses its connections
    Caller {
        /// Its name in the configuration
        name: String,
    },
    /// An operation of MX's: nobody may do it
    Operation {
        /// Its id, such as deleteUser
        id: String,
    },
}

/// Runs `command` on the gateway at `socket`; writes to `out`, as JSON when asked to.
///
/// # Errors
/// Nobody answers there, or the gateway did not do it; the text says why.
pub(crate) fn run(command: Command, socket: &Path, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no event loop could be made")?;
    runtime.block_on(run_on(&Client::new(socket), command, json, out))
}

async fn run_on(client: &Client, command: Command, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    match command {
        Command::Status { part: Some(Part::Versions), .. } => {
            show(&client.versions().await?, versions_text, json, out)
        }
        Command::Status { part: None, .. } => show(&client.status().await?, status_text, json, out),
        Command::Reload { .. } => {
            let report = client.reload().await?;
            show(&report, reload_text, json, out)?;
            match &report.unread[..] {
                [] => Ok(()),
                unread => bail!("secrets could not be read: {}", unread.join("; ")),
            }
        }
        Command::LogLevel { filter, duration, reset, .. } => {
            let command = match (filter, reset) {
                (None, true) => SetLogLevel { filter: None, for_s: None },
                (Some(filter), false) => {
                    SetLogLevel { filter: Some(filter), for_s: Some(duration.as_secs()) }
                }
                _ => bail!("give a filter or --reset"),
            };
            show(&client.set_log_level(&command).await?, done_text, json, out)
        }
        Command::Suspend { what, duration, .. } => {
            let command = Suspend { target: what.into(), for_s: duration.map(|duration| duration.as_secs()) };
            show(&client.suspend(&command).await?, done_text, json, out)
        }
        Command::Resume { what, .. } => {
            show(&client.resume(&Resume { target: what.into() }).await?, done_text, json, out)
        }
    }
}

impl From<What> for Target {
    fn from(what: What) -> Self {
        match what {
            What::Environment { name } => Self::Environment(name),
            What::Address { network } => Self::Address(network),
            What::Caller { name } => Self::Caller(name),
            What::Operation { id } => Self::Operation(id),
        }
    }
}

fn show<T: Serialize>(
    answer: &T,
    text: impl FnOnce(&T) -> String,
    json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let shown = if json { serde_json::to_string(answer)? + "\n" } else { text(answer) };
    out.write_all(shown.as_bytes()).context("the answer could not be written")
}

/// `15m`, `1h 30m`: whole seconds, since that is what the gateway counts in.
fn whole_seconds(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration.is_zero() || duration.subsec_nanos() != 0 {
        return Err("it has to be 1s or more, in whole seconds".into());
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
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
            messages::{
                BreakerStatus, BudgetStatus, CallerLimitsStatus, EnvironmentStatus, GatewayStatus,
                KeysStatus, LogOverride, Observing, ReloadReport, Status, Suspension, UpstreamStatus, Use,
            },
            socket::ControlSocket,
            suspension::{Subject, Suspensions},
        },
        metrics::Metrics,
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
                Command::Resume {
                    what: What::Operation { id: "deleteUser".into() },
                    configured: configured(),
                },
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
        let error = run(
            Command::Status { part: None, configured: Configured::default() },
            &path,
            false,
            &mut Vec::new(),
        )
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
}
