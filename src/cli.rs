//! The commands, one file each, thin.
//!
//! They are part of the library because a program has a copy of its own of whatever generic or asynchronous code it shares
//! with its library: 0.8 MB of machine code.

mod caller;
mod check;
mod config;
mod connections;
mod demo;
mod doctor;
mod explain;
mod health;
mod operations;
mod out;
mod policy;
mod rotate;
mod run;
mod stand_in;
mod status;
mod vault;

use std::{io, path::PathBuf, process::ExitCode};

use clap::{
    Parser as _,
    error::{ContextKind, ContextValue, ErrorKind},
};

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
    /// Say what would happen to a request, and why; send nothing.
    Explain(explain::Args),
    /// Go the way to MX and say what is wrong on it, with the next step; one harmless call.
    Doctor(doctor::Args),
    /// Compare two configurations in the words of policy.
    Config(config::Args),
    /// List MX's operations, and what a grant allows of them.
    Operations(operations::Args),
    /// Ask a running gateway whether it is ready, for a container's health check.
    Health(health::Args),
    /// Test a policy, and compare it with what was recorded.
    Policy(policy::Args),
    /// Make, list and revoke the tokens that callers are known by.
    Caller(caller::Args),
    /// Make, fill, check and copy the embedded vault.
    Vault(vault::Args),
    /// List, make, end and copy users' connections in a running gateway.
    Connections(connections::Args),
    /// Change an environment's API key by MX's own rotation API, without an outage.
    Rotate(rotate::Args),
    /// Stand in for MX, to test services against.
    StandIn(stand_in::Args),
    #[command(flatten)]
    Control(status::Command),
}

/// Exit code of a command that was called wrongly, as clap's own.
const EXIT_USAGE: u8 = 2;

/// Exit code of a configuration with faults.
const EXIT_FAULTS: u8 = 3;

/// Runs the command of this process's arguments.
#[must_use]
pub fn run() -> ExitCode {
    mxgate::log::guard_panics();
    let Cli { socket, json, command } = Cli::try_parse().unwrap_or_else(|error| unrepeated(error).exit());
    let done = match command {
        Command::Run(args) => return run::run(&args),
        Command::Check(args) => return check::run(&args, json),
        Command::Explain(args) => {
            return explain::run(args, json).unwrap_or_else(|error| failed(&error));
        }
        Command::Doctor(args) => {
            return doctor::run(&args, &socket, json).unwrap_or_else(|error| failed(&error));
        }
        Command::Config(args) => return config::run(&args, json).unwrap_or_else(|error| failed(&error)),
        Command::Policy(args) => return policy::run(args, json).unwrap_or_else(|error| failed(&error)),
        Command::Rotate(args) => return rotate::run(args, json).unwrap_or_else(|error| failed(&error)),
        Command::Operations(args) => return operations::run(&args, json),
        Command::Demo(args) => demo::run(&args),
        Command::Health(args) => health::run(&args, json),
        Command::Caller(args) => caller::run(args, json),
        Command::Vault(args) => vault::run(args, json),
        Command::Connections(args) => connections::run(args, &socket, json, &mut io::stdout().lock()),
        Command::StandIn(args) => stand_in::run(args),
        Command::Control(command) => status::run(command, &socket, json, &mut io::stdout().lock()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

/// The error without what stood where a word of ours belongs: it may be a secret, and standard error is often kept. A word
/// that is nearly one of ours is none, and names of options are repeated.
fn unrepeated(mut error: clap::Error) -> clap::Error {
    let kinds: &[ContextKind] = match error.kind() {
        ErrorKind::UnknownArgument => &[ContextKind::InvalidArg],
        ErrorKind::InvalidSubcommand => &[ContextKind::InvalidSubcommand],
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => &[ContextKind::InvalidValue],
        _ => &[],
    };
    let is_near = error.get(ContextKind::SuggestedSubcommand).is_some()
        || error.get(ContextKind::SuggestedValue).is_some();
    for kind in kinds {
        let text = match error.get(*kind) {
            Some(ContextValue::String(text)) => text,
            _ => continue,
        };
        if !is_near && !text.starts_with("--") {
            error.insert(*kind, ContextValue::String("(not repeated)".into()));
        }
    }
    error
}

/// Prints the error with its causes, masked and each once, and gives exit code 1.
fn failed(error: &anyhow::Error) -> ExitCode {
    mxgate::log::error_line(&format!("mxgate: {}", crate::vault::chain(error.as_ref())));
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(args: &[&str]) -> String {
        let parsed = Cli::try_parse_from([&["mxgate"], args].concat());
        parsed.err().map(unrepeated).map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_stray_value_is_not_repeated() {
        for args in [
            &["9f3Kq7Zt20xLmW8b"][..],
            &["vault", "9f3Kq7Zt20xLmW8b"],
            &["run", "9f3Kq7Zt20xLmW8b"],
            &["run", "--api-key=9f3Kq7Zt20xLmW8b"],
            &["run", "-k9f3Kq7Zt20xLmW8b"],
            &["vault", "set", "a", "--environment", "9f3Kq7Zt20xLmW8b"],
            &["caller", "token", "revoke", "9f3Kq7Zt20xLmW8b"],
            &["demo", "--listen", "9f3Kq7Zt20xLmW8b"],
        ] {
            let said = said(args);
            assert!(said.starts_with("error: ") && said.contains("--help"), "{said}");
            assert!(!said.contains("9f3Kq7Zt20xLmW8b"), "{said}");
        }
    }

    #[test]
    fn a_mistyped_word_of_ours_is() {
        assert!(said(&["statsu"]).contains("'statsu'"));
        assert!(said(&["run", "--confg", "x"]).contains("'--confg'"));
        assert!(said(&["vault", "set", "a", "--environment", "productoin"]).contains("'productoin'"));
    }
}
