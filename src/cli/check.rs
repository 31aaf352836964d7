//! `mxgate check`: a configuration's faults, all of them, for people or for programs.
//!
//! Reads the file and the `MXGATE__` variables and nothing else: no vault is opened, no host is asked. With `--online`
//! every secret is read once, from wherever it is, and the files of a start are. Exit code 0: usable, warnings or not; 3: faults; 1: the result could not be printed.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use mxgate::{
    app::online,
    config::{
        Config, ListenAddress, Loaded, VaultFile,
        fault::{Fault, Faults, Problem, Severity},
    },
    process, storage,
    vault::reference::Reference,
};
use serde_json::json;

use super::out;

/// What to check, and how to say it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The configuration file.
    #[arg(value_name = "FILE", default_value = "/etc/mxgate/mxgate.toml", conflicts_with = "config")]
    file: PathBuf,
    /// The same as FILE.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Read every secret once as well, and the files that a start reads; see that sockets have a folder.
    #[arg(long)]
    online: bool,
    /// Print the JSON schema of the file, for editors, and check nothing.
    #[arg(long, conflicts_with_all = ["file", "config", "online"])]
    schema: bool,
}

/// Checks, prints, and says how it went.
pub(crate) fn run(args: &Args, json: bool) -> ExitCode {
    let printed = if args.schema { schema() } else { check(args, json) };
    printed.unwrap_or(ExitCode::FAILURE)
}

fn schema() -> io::Result<ExitCode> {
    out::line(format!("{:#}", Config::json_schema()))?;
    Ok(ExitCode::SUCCESS)
}

fn check(args: &Args, json: bool) -> io::Result<ExitCode> {
    if args.online {
        // Before a secret is read.
        process::harden();
    }
    let file = args.config.as_ref().unwrap_or(&args.file);
    let mut unasked = Vec::new();
    let (usable, found) = match Config::load(file) {
        Ok(Loaded { warnings, config }) if args.online => {
            let mut unread = online::faults(&config)?;
            unread.extend(without_folder(&config));
            let one = |what: String| {
                Fault::of_file(&file.to_string_lossy(), Problem { what, allowed: None, nearest: None })
            };
            (unread.is_empty(), warnings.into_iter().chain(unread.into_iter().map(one)).collect())
        }
        Ok(Loaded { warnings, config }) => {
            let openers = config.vault.iter().flat_map(VaultFile::opened_from_elsewhere);
            unasked.extend(openers.map(Reference::to_string));
            (true, warnings)
        }
        Err(Faults(faults)) => (false, faults),
    };
    if json {
        let found: Vec<_> = found.iter().map(Fault::to_json).collect();
        let file = file.to_string_lossy();
        out::json(&json!({ "file": file, "ok": usable, "faults": found, "not_asked": unasked }))?;
    } else {
        found.iter().try_for_each(out::line)?;
        for opener in unasked {
            out::line(format!("{opener}, which opens the vault, was not asked; --online does"))?;
        }
        out::line(summary(&found))?;
    }
    Ok(if usable { ExitCode::SUCCESS } else { ExitCode::from(super::EXIT_FAULTS) })
}

/// The Unix sockets that a start could not make, since their folder is not there: it makes none.
fn without_folder(config: &Config) -> Vec<String> {
    let control = config.control_socket.as_deref().map(|path| ("control.socket".to_owned(), path));
    let listeners = config.listeners.iter().enumerate().filter_map(|(index, listener)| {
        let path = match &listener.address {
            ListenAddress::Unix(path) => path,
            ListenAddress::Tcp(_) => return None,
        };
        Some((format!("listener[{index}].address"), path.as_path()))
    });
    let told = |(key, path): (String, &Path)| {
        let folder = storage::missing_folder(path)?;
        Some(format!(
            "{key}: there is no folder {} for the socket; make it, for the user that mxgate runs as",
            folder.display()
        ))
    };
    control.into_iter().chain(listeners).filter_map(told).collect()
}

fn summary(found: &[Fault]) -> String {
    let (errors, warnings): (Vec<_>, Vec<_>) =
        found.iter().partition(|fault| fault.severity == Severity::Error);
    let counted = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
    match (errors.len(), warnings.len()) {
        (0, 0) => "fine".to_owned(),
        (0, warnings) => format!("fine, with {}", counted(warnings, "warning")),
        (errors, 0) => counted(errors, "fault"),
        (errors, warnings) => format!("{}, {}", counted(errors, "fault"), counted(warnings, "warning")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_without_a_folder_is_told_with_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let with = |control: &str, listener: &str| {
            let sidecar = include_str!("../../config/sidecar.toml");
            let at = folder.path().display();
            let text = format!(
                "{sidecar}\n[[listener]]\naddress = \"unix:{at}/{listener}\"\nenvironment = \"production\"\n\
                 [control]\nsocket = \"{at}/{control}\"\n"
            );
            let loaded = Config::parse(&text, "f", &mxgate::config::overrides::Overrides::none());
            without_folder(&loaded.unwrap().config)
        };
        assert_eq!(with("control.sock", "mx.sock"), [""; 0]);
        let told = with("run/control.sock", "absent/mx.sock");
        let [control, listener] = &told[..] else { panic!("{told:?}") };
        let begins = |key: &str, name: &str| {
            format!("{key}: there is no folder {} for the socket;", folder.path().join(name).display())
        };
        assert!(control.starts_with(&begins("control.socket", "run")), "{control}");
        assert!(listener.starts_with(&begins("listener[1].address", "absent")), "{listener}");
    }

    #[test]
    fn the_last_line_counts_what_was_found() {
        let of = |text: &str| match Config::parse(text, "f", &mxgate::config::overrides::Overrides::none()) {
            Ok(loaded) => summary(&loaded.warnings),
            Err(Faults(faults)) => summary(&faults),
        };
        let fine = include_str!("../../config/sidecar.toml");
        assert_eq!(of(fine), "fine");
        assert_eq!(of(&fine.replacen("\"127.0.0.0/8\"", "", 1)), "fine, with 1 warning");
        assert_eq!(of("allow = []\n[log]\n"), "2 faults, 2 warnings");
        assert_eq!(of(&format!("x = 1\n{fine}")), "1 fault");
    }
}
