//! The `mxgate` command.

use std::{io::Write, process::ExitCode};

use clap::{Parser, Subcommand};

mod cli;

/// A gateway between a company's services and MX: services send no credentials.
#[derive(Parser)]
#[command(version)]
struct Mxgate {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make, fill, check and copy the embedded vault.
    Vault(cli::vault::Args),
}

fn main() -> ExitCode {
    let done = match Mxgate::parse().command {
        Command::Vault(args) => cli::vault::run(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to do when standard error is closed as well.
            let _ = writeln!(std::io::stderr(), "mxgate: {error:#}");
            ExitCode::FAILURE
        }
    }
}
