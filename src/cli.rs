//! The commands, one file each, thin.

mod check;
mod demo;
mod health;
mod out;
mod run;
mod stand_in;
mod status;
mod vault;

use std::{io, path::PathBuf, process::ExitCode};

use clap::Parser as _;

/// Stands between your services and MX: they send no credentials, mxgate attaches the right one.
#[derive(clap::Parser)]
#[command(version, about)]
struct Cli {
    /// The running gateway's control socket, for the commands that act on it.
    #[arg(long, global = true, value_name = "PATH", default_value = "/run/mxgate/control.sock")]
    socket: PathBuf,
    /// JSON for programs instead of text for people, where a command shows something.
    #[arg(long, global = true)]
    json: bool,
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
    /// Ask a running gateway whether it is ready, for a container's health check.
    Health(health::Args),
    /// Make, fill, check and copy the embedded vault.
    Vault(vault::Args),
    /// Stand in for MX, to test services against.
    StandIn(stand_in::Args),
    #[command(flatten)]
    Control(status::Command),
}

/// Exit code of a configuration with faults.
const EXIT_FAULTS: u8 = 3;

/// Runs the command of this process's arguments.
pub(crate) fn run() -> ExitCode {
    let Cli { socket, json, command } = Cli::parse();
    let done = match command {
        Command::Run(args) => return run::run(&args),
        Command::Check(args) => return check::run(&args, json),
        Command::Demo(args) => demo::run(&args),
        Command::Health(args) => health::run(&args, json),
        Command::Vault(args) => vault::run(args, json),
        Command::StandIn(args) => stand_in::run(args),
        Command::Control(command) => status::run(command, &socket, json, &mut io::stdout().lock()),
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
