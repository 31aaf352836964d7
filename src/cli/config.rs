//! `mxgate config`: two configurations compared in the words of policy.

use std::{path::PathBuf, process::ExitCode};

use mxgate::explain::difference::Difference;

use super::{explain, out};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Say what a change of the configuration means: who may call, and which operations each caller gains and loses.
    Diff {
        /// The configuration as it is.
        #[arg(value_name = "A")]
        old: PathBuf,
        /// The configuration as it would be.
        #[arg(value_name = "B")]
        new: PathBuf,
    },
}

/// Exit code 0: the same policy; 1: another one; 3: one of them has faults.
pub(crate) fn run(args: &Args, json: bool) -> anyhow::Result<ExitCode> {
    let Command::Diff { old, new } = &args.command;
    let (old, new) = match (explain::config(old), explain::config(new)) {
        (Ok(old), Ok(new)) => (old, new),
        (Err(code), _) | (_, Err(code)) => return Ok(code),
    };
    let difference = Difference::between(&old, &new);
    if json {
        out::json(&difference.to_json())?;
    } else {
        difference.lines().iter().try_for_each(out::line)?;
    }
    Ok(if difference.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
