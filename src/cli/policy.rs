//! `mxgate policy`: a policy's own tests, and what recorded requests say about it. Nothing is sent.

use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use mxgate::{
    explain::{
        cases::{Outcome, Table},
        replay::replay,
        suggest::used,
    },
    log,
};
use serde_json::json;

use super::{explain, out};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Run a table of requests with what is expected of each.
    Test(Test),
    /// Say which recorded requests another configuration would decide differently.
    Replay(Replay),
    /// Write the smallest grants that cover what each caller really did.
    Suggest(Suggest),
}

#[derive(clap::Args)]
struct Test {
    /// The table, TOML with a [[case]] each.
    #[arg(value_name = "FILE")]
    table: PathBuf,
    /// The configuration file.
    #[arg(long, short, value_name = "FILE", default_value = "/etc/mxgate/mxgate.toml")]
    config: PathBuf,
}

#[derive(clap::Args)]
struct Replay {
    /// Access records, JSON lines; `-` is standard input.
    #[arg(value_name = "RECORDS")]
    records: PathBuf,
    /// The configuration that they are decided by.
    #[arg(long, short, value_name = "NEW")]
    config: PathBuf,
}

#[derive(clap::Args)]
struct Suggest {
    /// Access records, JSON lines; `-` is standard input.
    #[arg(value_name = "RECORDS")]
    records: PathBuf,
}

/// Runs one of them.
pub(crate) fn run(args: Args, json: bool) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Test(args) => test(&args, json),
        Command::Replay(args) => replay_records(&args, json),
        Command::Suggest(args) => suggest(&args, json),
    }
}

/// Exit code 0: all as expected; 1: some not; 3: the configuration or the table has faults.
fn test(args: &Test, json: bool) -> anyhow::Result<ExitCode> {
    let explainer = match explain::explainer(&args.config) {
        Ok(explainer) => explainer,
        Err(code) => return Ok(code),
    };
    let name = args.table.display();
    let text = std::fs::read_to_string(&args.table).with_context(|| format!("cannot read {name}"))?;
    let table = match Table::parse(&text) {
        Ok(table) => table,
        Err(mistakes) => {
            mistakes.iter().for_each(|mistake| log::error_line(&format!("{name}: {mistake}")));
            return Ok(ExitCode::from(super::EXIT_FAULTS));
        }
    };
    let outcomes = table.run(&explainer);
    let failed = outcomes.iter().filter(|outcome| outcome.failure.is_some()).count();
    if json {
        let one = |outcome: &Outcome| json!({ "name": outcome.name, "failure": outcome.failure });
        let cases: Vec<_> = outcomes.iter().map(one).collect();
        out::json(&json!({ "ok": failed == 0, "failed": failed, "cases": cases }))?;
    } else {
        for outcome in &outcomes {
            if let Some(failure) = &outcome.failure {
                out::line(format!("FAILED {}\n  {failure}", outcome.name))?;
            }
        }
        let all = outcomes.len();
        out::line(if failed == 0 {
            format!("{all} cases as expected")
        } else {
            format!("{failed} of {all} cases failed")
        })?;
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Exit code 0: all would be decided as they were; 1: some differently; 3: the configuration has faults.
fn replay_records(args: &Replay, json: bool) -> anyhow::Result<ExitCode> {
    let explainer = match explain::explainer(&args.config) {
        Ok(explainer) => explainer,
        Err(code) => return Ok(code),
    };
    let replayed = replay(open(&args.records)?, &explainer).with_context(|| unreadable(&args.records))?;
    if json {
        out::json(&replayed.to_json())?;
    } else {
        replayed.lines().iter().try_for_each(out::line)?;
    }
    Ok(if replayed.differs() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn suggest(args: &Suggest, json: bool) -> anyhow::Result<ExitCode> {
    let used = used(open(&args.records)?).with_context(|| unreadable(&args.records))?;
    if json {
        out::json(&used.to_json())?;
        return Ok(ExitCode::SUCCESS);
    }
    out::line(used.to_toml())?;
    if used.read.unreadable > 0 || used.left_out > 0 {
        let (unreadable, left_out) = (used.read.unreadable, used.left_out);
        log::error_line(&format!(
            "mxgate: {unreadable} lines are no records; {left_out} requests have no caller, or nothing to name"
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn open(path: &Path) -> anyhow::Result<Box<dyn std::io::BufRead>> {
    if path == Path::new("-") {
        return Ok(Box::new(std::io::stdin().lock()));
    }
    Ok(Box::new(BufReader::new(File::open(path).with_context(|| unreadable(path))?)))
}

fn unreadable(path: &Path) -> String {
    format!("cannot read {}", path.display())
}
