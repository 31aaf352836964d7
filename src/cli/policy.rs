//! `mxgate policy`: a policy's own tests, and what recorded requests say about it. Nothing is sent.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use mxgate::{
    explain::cases::{Outcome, Table},
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

/// Runs one of them.
pub(crate) fn run(args: Args, json: bool) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Test(args) => test(&args, json),
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
