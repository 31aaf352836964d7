//! `mxgate vault set`, `list`, `remove` and `recover`: what is in the vault.

use std::{
    fmt::Write as _,
    fs::File,
    io::{self, IsTerminal},
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow, bail};
use mxgate::{
    mx,
    vault::{
        embedded::{self, Entry, Opened, hosts},
        secret::Secret,
        source::file::{SECRET_BYTES_MAX, read_bounded},
    },
};
use zeroize::Zeroizing;

use super::{Session, print};

#[derive(clap::Args)]
pub(super) struct Set {
    /// For example production/api_key.
    name: String,
    /// Only to be refused in our own words: clap would repeat it.
    #[arg(hide = true)]
    surplus: Vec<String>,
    /// Read the secret from this file.
    #[arg(long, value_name = "FILE")]
    from_file: Option<PathBuf>,
    /// A host that it may be sent to, without port; repeatable. Otherwise an existing entry keeps its
    /// hosts, and a new one gets MX's host when its name begins with sandbox/ or production/.
    #[arg(long, value_name = "HOST", conflicts_with = "environment")]
    host: Vec<String>,
    /// Seal it for MX's host of this environment.
    #[arg(long)]
    environment: Option<Environment>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub(super) enum Environment {
    Sandbox,
    Production,
}

pub(super) fn seal(session: &Session, set: &Set) -> anyhow::Result<()> {
    if !set.surplus.is_empty() {
        bail!(
            "a secret is never taken from an argument, where `ps` and the shell's history show it: leave it out for a prompt, or pipe it in; consider this one exposed"
        );
    }
    let (identity, opened) = session.open()?;
    let chosen = chosen_hosts(set)?;
    // Before anybody types a secret that could then not be sealed.
    embedded::hosts_for(&opened.entries, &set.name, chosen.clone())?;
    let secret = read_secret(set)?;
    let Entry { secret, version, hosts, .. } =
        embedded::set(session.path(), &identity, &set.name, secret, chosen)?;
    let (name, fingerprint, hosts) = (&set.name, secret.fingerprint(), hosts.join(", "));
    print(&format!("sealed {name}: version {version}, fingerprint {fingerprint}, for {hosts}\n"))
}

fn chosen_hosts(set: &Set) -> anyhow::Result<Option<Vec<String>>> {
    if let Some(environment) = set.environment {
        let host = match environment {
            Environment::Sandbox => mx::SANDBOX_HOST,
            Environment::Production => mx::PRODUCTION_HOST,
        };
        return Ok(Some(vec![host.to_owned()]));
    }
    let parse = |host: &String| hosts::parse(host).with_context(|| format!("--host {host}"));
    let chosen = set.host.iter().map(parse).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(Some(chosen).filter(|hosts| !hosts.is_empty()))
}

fn read_secret(set: &Set) -> anyhow::Result<Secret> {
    if let Some(path) = &set.from_file {
        let file = File::open(path).with_context(|| format!("{} could not be read", path.display()))?;
        return secret_from(file).with_context(|| format!("{}", path.display()));
    }
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        // Not through `Stdin`: its own buffer is never wiped.
        return secret_from(File::from(stdin.as_fd().try_clone_to_owned()?)).context("standard input");
    }
    let ask = |prompt: String| {
        rpassword::prompt_password(prompt).map(Zeroizing::new).context("the prompt could not be read")
    };
    let first = secret_of(ask(format!("Secret for {}: ", set.name))?)?;
    let second = secret_of(ask("The same again: ".to_owned())?)?;
    if first != second {
        bail!("the two are not the same; nothing was sealed");
    }
    Ok(first)
}

fn secret_of(mut text: Zeroizing<String>) -> anyhow::Result<Secret> {
    Secret::new(std::mem::take(&mut *text).into_bytes()).map_err(|unfit| anyhow!("the secret {unfit}"))
}

fn secret_from(input: impl io::Read) -> anyhow::Result<Secret> {
    let read = read_bounded(input, SECRET_BYTES_MAX)?;
    let mut bytes = read.with_context(|| format!("the secret is larger than {SECRET_BYTES_MAX} bytes"))?;
    Secret::new(std::mem::take(&mut *bytes)).map_err(|unfit| anyhow!("the secret {unfit}"))
}

pub(super) fn list(session: &Session, json: bool) -> anyhow::Result<()> {
    let (_, opened) = session.open()?;
    if json { print(&list_json(&opened)) } else { print(&list_text(&opened)?) }
}

fn list_json(opened: &Opened) -> String {
    let entry = |(name, entry): (&String, &Entry)| {
        serde_json::json!({
            "name": name,
            "version": entry.version,
            "created": entry.created,
            "updated": entry.updated,
            "hosts": entry.hosts,
            "fingerprint": entry.secret.fingerprint().to_string(),
        })
    };
    let entries: Vec<_> = opened.entries.iter().map(entry).collect();
    format!("{}\n", serde_json::json!({ "generation": opened.generation, "entries": entries }))
}

fn list_text(opened: &Opened) -> anyhow::Result<String> {
    if opened.entries.is_empty() {
        return Ok("the vault is empty; `set NAME` in the place of `list` seals a secret\n".to_owned());
    }
    let width = opened.entries.keys().map(String::len).max().unwrap_or(0).max("NAME".len());
    let mut text = format!(
        "{:width$}  {:>7}  {:20}  {:20}  {:11}  HOSTS\n",
        "NAME", "VERSION", "CREATED", "UPDATED", "FINGERPRINT"
    );
    for (name, Entry { secret, version, created, updated, hosts }) in &opened.entries {
        let hosts = if hosts.is_empty() { "none: mxgate's own record".to_owned() } else { hosts.join(", ") };
        let fingerprint = secret.fingerprint().to_string();
        writeln!(text, "{name:width$}  {version:>7}  {created:20}  {updated:20}  {fingerprint:11}  {hosts}")?;
    }
    Ok(text)
}

pub(super) fn remove(session: &Session, name: &str) -> anyhow::Result<()> {
    embedded::remove(session.path(), &session.identity()?, name)?;
    print(&format!("removed {name}\n"))
}

pub(super) fn recover(session: &Session, file: &Path, name: Option<&str>) -> anyhow::Result<()> {
    let (name, entry) = embedded::recover(session.path(), &session.identity()?, file, name)?;
    let Entry { secret, version, hosts, .. } = entry;
    print(&format!(
        "sealed {name}: version {version}, fingerprint {}, for {}\n{} is not needed any more; remove it.\n",
        secret.fingerprint(),
        hosts.join(", "),
        file.display()
    ))
}
