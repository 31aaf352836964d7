//! The commands, one file each, thin.

mod check;
mod demo;
mod out;
mod run;
mod status;
mod vault;

use std::process::ExitCode;

use clap::Parser as _;

/// Stands between your services and MX: they send no credentials, mxgate attaches the right one.
#[derive(clap::Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Try it: gateway, vault and a stand-in for MX, all embedded.
    Demo(demo::Args),
    /// Run the gateway.
    Run(run::Args),
    /// Check a configuration and report every fault.
    Check(check::Args),
    /// Make, fill, check and copy the embedded vault.
    Vault(vault::Args),
}

/// Exit code of a configuration with faults.
const EXIT_FAULTS: u8 = 3;

/// Runs the command of this process's arguments.
pub(crate) fn run() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => return run::run(&args),
        Command::Check(args) => return check::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Vault(args) => vault::run(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

/// Prints the error with its causes, masked, and gives exit code 1.
fn failed(error: &anyhow::Error) -> ExitCode {
    mxgate::log::error_line(&format!("mxgate: {error:#}"));
    ExitCode::FAILURE
}
