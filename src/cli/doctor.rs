//! `mxgate doctor`: what is between this machine and MX, and what to do about it.
//!
//! Reads the configuration and the secrets, goes the way to each environment's host, and makes one harmless call there.
//! Exit code 0: nothing failed; 1: something did; 2: there is no such environment; 3: the configuration has faults.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use mxgate::{
    doctor::{self, bundle},
    log, process,
};

use super::{explain, out};

/// What to look at.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The environment; every one when it is left out.
    #[arg(value_name = "ENVIRONMENT")]
    environment: Option<String>,
    /// The configuration file.
    #[arg(long, short, value_name = "FILE", default_value = "/etc/mxgate/mxgate.toml")]
    config: PathBuf,
    /// Also write a support bundle to a new file: one JSON document without secrets, to be read before it is sent.
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
}

/// Looks, prints, and says how it went.
pub(crate) fn run(args: &Args, socket: &Path, json: bool) -> anyhow::Result<ExitCode> {
    // Before a secret is read.
    let hardening = process::harden();
    let config = match explain::config(&args.config) {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    let only = args.environment.as_deref();
    if only.is_some_and(|name| !config.environments.contains_key(name)) {
        let names: Vec<&str> = config.environments.keys().map(String::as_str).collect();
        log::error_line(&format!("mxgate: there is no such environment; there are: {}", names.join(", ")));
        return Ok(ExitCode::from(super::EXIT_USAGE));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no event loop could be made")?;
    let report = runtime.block_on(doctor::examine(&config, &args.config, only, &hardening));
    if json {
        out::json(&report.to_json())?;
    } else {
        report.lines().iter().try_for_each(out::line)?;
    }
    if let Some(to) = &args.bundle {
        let written = bundle::write(to, &config, &args.config, &report, socket);
        runtime.block_on(written).with_context(|| format!("the bundle {} is not written", to.display()))?;
        if !json {
            out::line(format_args!("the support bundle is {}; read it before you send it", to.display()))?;
        }
    }
    // A look-up that hangs must not keep the command.
    runtime.shutdown_background();
    Ok(if report.is_fine() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
