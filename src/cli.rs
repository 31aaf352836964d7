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

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, anyhow};
use clap::{
    Parser as _,
    error::{ContextKind, ContextValue, ErrorKind},
};
use mxgate::config::Config;

/// Stands between your services and MX: they send no credentials, mxgate attaches the right one.
#[derive(clap::Parser)]
#[command(version, about)]
struct Cli {
    /// The running gateway's control socket, for the commands that act on it. Otherwise that of their --config FILE, or
    /// /run/mxgate/control.sock.
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
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
            return doctor::run(&args, &default_socket(socket), json).unwrap_or_else(|error| failed(&error));
        }
        Command::Config(args) => return config::run(&args, json).unwrap_or_else(|error| failed(&error)),
        Command::Policy(args) => return policy::run(args, json).unwrap_or_else(|error| failed(&error)),
        Command::Rotate(args) => return rotate::run(args, json).unwrap_or_else(|error| failed(&error)),
        Command::Operations(args) => return operations::run(&args, json),
        Command::Demo(args) => demo::run(&args),
        Command::Health(args) => health::run(&args, json),
        Command::Caller(args) => caller::run(args, json),
        Command::Vault(args) => vault::run(args, json),
        Command::Connections(args) => socket_of(socket, args.config())
            .and_then(|socket| connections::run(args, &socket, json, &mut io::stdout().lock())),
        Command::StandIn(args) => stand_in::run(args),
        Command::Control(command) => socket_of(socket, command.config())
            .and_then(|socket| status::run(command, &socket, json, &mut io::stdout().lock())),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

/// Where the running gateway's control socket is: as named, or as the configuration says, or where it usually is.
fn socket_of(named: Option<PathBuf>, config: Option<&Path>) -> anyhow::Result<PathBuf> {
    let (None, Some(file)) = (&named, config) else { return Ok(default_socket(named)) };
    let loaded = Config::load(file).map_err(|faults| anyhow!("{faults}"))?.config;
    loaded.control_socket.with_context(|| format!("{} has no `socket` in [control]", file.display()))
}

fn default_socket(named: Option<PathBuf>) -> PathBuf {
    named.unwrap_or_else(|| PathBuf::from("/run/mxgate/control.sock"))
}

/// The configuration of a running gateway, for commands that act on it.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
struct Configured {
    /// Its configuration file, whose [control] says where its control socket is.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
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
    fn the_control_socket_is_the_one_that_is_named_or_configured() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mxgate.toml");
        let sidecar = include_str!("../config/sidecar.toml");
        std::fs::write(&file, format!("{sidecar}\n[control]\nsocket = \"/run/other.sock\"\n")).unwrap();
        for arguments in [
            &["status", "--config", "F"][..],
            &["status", "versions", "--config", "F"],
            &["reload", "--config", "F"],
            &["suspend", "caller", "ledger", "--config", "F"],
            &["suspend", "--config", "F", "caller", "ledger"],
        ] {
            let Cli { socket, command, .. } = Cli::try_parse_from([&["mxgate"], arguments].concat()).unwrap();
            let Command::Control(command) = command else { panic!("{arguments:?}") };
            assert_eq!((socket, command.config()), (None, Some(Path::new("F"))), "{arguments:?}");
        }
        assert_eq!(socket_of(None, Some(&file)).unwrap(), Path::new("/run/other.sock"));
        assert_eq!(socket_of(Some("s".into()), Some(&file)).unwrap(), Path::new("s"));
        assert_eq!(socket_of(None, None).unwrap(), Path::new("/run/mxgate/control.sock"));
        std::fs::write(&file, sidecar).unwrap();
        let error = socket_of(None, Some(&file)).unwrap_err().to_string();
        assert!(error.contains("has no `socket` in [control]"), "{error}");
        let list = Cli::try_parse_from(["mxgate", "connections", "list", "--config", "F"]).unwrap();
        let Command::Connections(list) = list.command else { panic!() };
        assert_eq!(list.config(), Some(Path::new("F")));
        let restore = ["mxgate", "connections", "restore", "--config", "F", "B"];
        assert!(Cli::try_parse_from(restore).is_ok() && said(&restore[1..3]).contains("--config"));
    }

    #[test]
    fn a_mistyped_word_of_ours_is() {
        assert!(said(&["statsu"]).contains("'statsu'"));
        assert!(said(&["run", "--confg", "x"]).contains("'--confg'"));
        assert!(said(&["vault", "set", "a", "--environment", "productoin"]).contains("'productoin'"));
    }
}
