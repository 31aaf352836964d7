//! The commands that act on a running gateway: `status`, `reload`, `log-level`, `suspend`, `resume`.
//!
//! In: a control socket's path and a command. Out: text for people, or the gateway's own JSON.

mod text;

use std::{io::Write, path::Path, time::Duration};

use anyhow::{Context, bail};
use clap::Subcommand;
use mxgate::{
    control::{
        client::Client,
        messages::{Resume, SetLogLevel, Suspend},
    },
    status::Target,
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
mod tests;
