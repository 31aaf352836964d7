//! The commands, one file each, thin.

mod check;
mod out;

use clap::Parser as _;

/// A gateway between a company's services and MX.
#[derive(clap::Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Check a configuration and report every fault.
    Check(check::Args),
}

/// Runs the command of this process's arguments.
pub(crate) fn run() -> std::process::ExitCode {
    match Cli::parse().command {
        Command::Check(args) => check::run(&args),
    }
}
