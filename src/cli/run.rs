//! `mxgate run`: the gateway.

use std::{io, path::PathBuf, process::ExitCode};

use anyhow::Context;
use mxgate::{app::App, config::Config, log, process};

/// `mxgate run`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The configuration file.
    #[arg(long, short, value_name = "FILE", default_value = "/etc/mxgate/mxgate.toml")]
    config: PathBuf,
}

/// Runs until SIGTERM or SIGINT.
pub(crate) fn run(args: &Args) -> ExitCode {
    // First of all, so that nothing of this process can be read from outside.
    let hardening = process::harden();
    let loaded = match Config::load(&args.config) {
        Ok(loaded) => loaded,
        Err(faults) => {
            // A line each: what is one line does not leave as several.
            faults.0.iter().for_each(|fault| log::error_line(&fault.to_string()));
            return ExitCode::from(super::EXIT_FAULTS);
        }
    };
    let run = || {
        let log = log::init(&loaded.config.log, io::stderr()).context("cannot start the log")?;
        tracing::info!(version = env!("CARGO_PKG_VERSION"), "mxgate starts; {hardening}");
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        let app = App::bind(loaded.config.clone(), &args.config, log)?;
        app.run().map_err(anyhow::Error::from)
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => super::failed(&error),
    }
}
