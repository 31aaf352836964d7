//! `mxgate explain`: what would happen to a request, and why.
//!
//! Reads the configuration and, for their fingerprints alone, the secrets; sends nothing. Exit code 0: it would be
//! allowed; 1: refused; 2: the question names what is not there; 3: the configuration has faults.

use std::{net::IpAddr, path::PathBuf, process::ExitCode};

use mxgate::{
    config::{Config, fault::Faults},
    explain::{Asker, Explainer, Question, Unanswerable},
    log, process,
};

use super::out;

/// Who asks for what.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("asker").required(true))]
pub(crate) struct Args {
    /// The configuration file.
    #[arg(long, short, value_name = "FILE", default_value = "/etc/mxgate/mxgate.toml")]
    config: PathBuf,
    /// The socket address that the request comes from; what a trusted proxy names goes into -H.
    #[arg(long, value_name = "ADDRESS", group = "asker")]
    from: Option<IpAddr>,
    /// A name in the client certificate that it shows, such as "dns:ledger.internal"; several times for several.
    #[arg(long = "tls-name", value_name = "NAME", requires = "from")]
    tls_names: Vec<String>,
    /// The user at the other end of a Unix socket.
    #[arg(long, value_name = "N", group = "asker")]
    uid: Option<u32>,
    /// Its effective group. The same number as --uid when it is left out.
    #[arg(long, value_name = "N", requires = "uid")]
    gid: Option<u32>,
    /// A configured caller, however it is recognised.
    #[arg(long, value_name = "NAME", group = "asker")]
    caller: Option<String>,
    /// The listener, its address as configured. Otherwise: the first that takes such callers.
    #[arg(long, value_name = "ADDRESS")]
    listener: Option<String>,
    /// The environment: chooses the listener when none is named.
    #[arg(long, value_name = "NAME")]
    environment: Option<String>,
    /// A header field of the request; several times for several.
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// GET, POST, ...
    #[arg(value_name = "METHOD")]
    method: String,
    /// The path, and the query if there is one.
    #[arg(value_name = "TARGET")]
    target: String,
}

/// Explains, prints, and says how it went.
pub(crate) fn run(args: Args, json: bool) -> anyhow::Result<ExitCode> {
    // Before a secret is read for its fingerprint.
    process::harden();
    let explainer = match explainer(&args.config) {
        Ok(explainer) => explainer.with_fingerprints(),
        Err(code) => return Ok(code),
    };
    let explanation = match explainer.explain(&args.question()) {
        Ok(explanation) => explanation,
        Err(unanswerable) => return Ok(misasked(&unanswerable)),
    };
    if json {
        out::json(&explanation.to_json())?;
    } else {
        out::line(&explanation)?;
    }
    Ok(if explanation.refused.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Args {
    fn question(self) -> Question {
        let asker = match (self.from, self.uid, self.caller) {
            (Some(address), _, _) => Asker::Address(address),
            (_, Some(uid), _) => Asker::Unix { uid, gid: self.gid.unwrap_or(uid) },
            (_, _, caller) => Asker::Caller(caller.unwrap_or_default()),
        };
        Question {
            asker,
            listener: self.listener,
            environment: self.environment,
            tls_names: self.tls_names,
            method: self.method,
            target: self.target,
            headers: self.headers,
        }
    }
}

/// The configuration of `file`, ready to be asked; its faults, each on a line, otherwise.
pub(super) fn explainer(file: &std::path::Path) -> Result<Explainer, ExitCode> {
    let config = config(file)?;
    Explainer::new(&config).map_err(|fault| {
        log::error_line(&format!("{}: {fault}", file.display()));
        ExitCode::from(super::EXIT_FAULTS)
    })
}

/// The same, not made ready.
pub(super) fn config(file: &std::path::Path) -> Result<Config, ExitCode> {
    match Config::load(file) {
        Ok(loaded) => Ok(loaded.config),
        Err(Faults(faults)) => {
            faults.iter().for_each(|fault| log::error_line(&fault.to_string()));
            Err(ExitCode::from(super::EXIT_FAULTS))
        }
    }
}

/// As clap ends when an argument is wrong.
fn misasked(unanswerable: &Unanswerable) -> ExitCode {
    log::error_line(&format!("mxgate: {unanswerable}"));
    ExitCode::from(super::EXIT_USAGE)
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("expected NAME: VALUE")?;
    Ok((name.to_owned(), value.trim().to_owned()))
}
