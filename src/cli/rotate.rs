//! `mxgate rotate`: MX's API key of one environment, changed by MX's own rotation API.
//!
//! In: a configuration, an environment's name, what is ordered. Out: a line for each step, for people, and how it
//! ended; or one JSON object. It works beside a running gateway, which takes the new key up from the vault by itself.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::Context as _;
use mxgate::{
    config::{Config, Environment},
    log, process,
    rotation::{
        self, Order, Rotation, Said,
        readers::{AtSocket, Readers, Unasked},
    },
};
use serde_json::json;

use super::out;

/// `mxgate rotate`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Every step is recorded in the vault before it is done: run it again after whatever ended it. Exit code 1: it \
                  stopped, and said where and why. docs/rotation.md tells the rest."
)]
pub(crate) struct Args {
    /// The environment whose key is changed.
    environment: String,
    /// The configuration file.
    #[arg(long, short, value_name = "FILE", default_value = "/etc/mxgate/mxgate.toml")]
    config: PathBuf,
    /// Say what would be done, step by step; call nothing and write nothing.
    #[arg(long)]
    dry_run: bool,
    /// Show where the rotation stands and how old the key is; call nothing and write nothing.
    #[arg(long, conflicts_with_all = ["dry_run", "keep_old", "retire_after", "replace_unknown_secondary", "client_guid"])]
    status: bool,
    /// Leave the old key to MX, which deletes it after 30 days, instead of retiring it.
    #[arg(long)]
    keep_old: bool,
    /// Retire the old key so long after the new one has become the primary one, such as 5m, for a key that has leaked:
    /// a gateway that cannot read the vault meanwhile is left without a key. Default: when every gateway must have the
    /// new one, or uses none any more (the vault's refresh_ms and grace_ms).
    #[arg(long, value_name = "TIME", conflicts_with = "keep_old")]
    retire_after: Option<humantime::Duration>,
    /// Ask MX for another key although it may have made one that nobody has, or one that it does not take.
    #[arg(long)]
    replace_unknown_secondary: bool,
    /// MX's name for the client (CLT-...), instead of the configured client_guid.
    #[arg(long, value_name = "GUID", value_parser = client_guid)]
    client_guid: Option<String>,
}

/// Rotates, or says what would be done, or where it stands.
///
/// # Errors
/// Why it stopped, and what to do.
pub(crate) fn run(args: Args, json: bool) -> anyhow::Result<ExitCode> {
    // This process is about to hold keys.
    process::harden();
    let loaded = match Config::load(&args.config) {
        Ok(loaded) => loaded,
        Err(faults) => {
            faults.0.iter().for_each(|fault| log::error_line(&fault.to_string()));
            return Ok(ExitCode::from(super::EXIT_FAULTS));
        }
    };
    let environment = find(&loaded.config, &args.environment)?;
    let rotation = Rotation::new(&loaded.config, environment)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // One step comes after the other; so does what a test counts of them.
        .max_blocking_threads(1)
        .build()
        .context("cannot start the event loop")?;
    runtime.block_on(async {
        if args.status {
            return status(&rotation, json).await;
        }
        let order = Order {
            owner: rotation::owner(),
            keep_old: retires_or_keeps(&args),
            retire_after: args.retire_after.map(Into::into),
            replace_unknown: args.replace_unknown_secondary,
            wait: true,
            client_guid: args.client_guid,
        };
        if args.dry_run {
            return plan(&rotation, &order, json).await;
        }
        rotate(&rotation, &order, &*readers(&loaded.config, environment), json).await
    })?;
    Ok(ExitCode::SUCCESS)
}

/// As configured, unless one was ordered.
fn retires_or_keeps(args: &Args) -> Option<bool> {
    if args.retire_after.is_some() { Some(false) } else { args.keep_old.then_some(true) }
}

fn find<'c>(config: &'c Config, name: &str) -> anyhow::Result<&'c Arc<Environment>> {
    config.environments.get(name).with_context(|| {
        let names: Vec<&str> = config.environments.keys().map(String::as_str).collect();
        format!("there is no environment `{name}`; there are: {}", names.join(", "))
    })
}

fn readers(config: &Config, environment: &Environment) -> Box<dyn Readers> {
    match &config.control_socket {
        Some(socket) => Box::new(AtSocket::new(socket, &environment.name)),
        None => Box::new(Unasked),
    }
}

async fn status(rotation: &Rotation, json: bool) -> anyhow::Result<()> {
    let standing = rotation.standing().await?;
    if json {
        return Ok(out::json(&serde_json::to_value(&standing)?)?);
    }
    Ok(out::line(standing.text(rotation::unix_now()).trim_end())?)
}

async fn plan(rotation: &Rotation, order: &Order, json: bool) -> anyhow::Result<()> {
    let steps = rotation.plan(order).await?;
    if json {
        return Ok(out::json(&json!({ "steps": steps }))?);
    }
    for (number, step) in (1..).zip(&steps) {
        out::line(format!("{number}. {step}"))?;
    }
    Ok(out::line("nothing was called and nothing written")?)
}

async fn rotate(rotation: &Rotation, order: &Order, readers: &dyn Readers, json: bool) -> anyhow::Result<()> {
    let say = |said: &Said<'_>| {
        // Whoever reads no more is no reason to stop half way.
        let _ = if json { Ok(()) } else { out::line(log::masked_line(said.text)) };
    };
    let report = rotation.run(order, readers, &say).await?;
    match json {
        true => Ok(out::json(&json!({ "outcome": report.code, "text": report.text }))?),
        false => Ok(out::line(log::masked_line(&report.text))?),
    }
}

fn client_guid(text: &str) -> Result<String, String> {
    mxgate::config::client_guid(text).map_err(|problem| problem.to_string())
}
