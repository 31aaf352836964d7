//! `mxgate vault`: make, fill, check and copy the embedded vault.
//!
//! Secrets come in through a prompt, standard input or a file, never an argument, and none goes out: the
//! commands show names, versions, dates, hosts and fingerprints.

use std::{
    fmt::Write as _,
    fs::File,
    io::{self, IsTerminal, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow, bail};
use mxgate::{
    config::{Config, VaultFile},
    mx,
    vault::{
        embedded::{self, Entry, Identity, Notice, Opened, hosts},
        reference::Reference,
        secret::Secret,
        source::file::{SECRET_BYTES_MAX, read_bounded},
    },
};
use zeroize::Zeroizing;

use super::out;

/// `mxgate vault ...`
#[derive(clap::Args)]
#[command(
    after_help = "The vault is an age file: `age -d -i IDENTITY VAULT` shows its JSON, each value in base64. Only mxgate \
                        writes one that mxgate opens."
)]
pub(crate) struct Args {
    #[command(flatten)]
    location: Location,
    #[command(subcommand)]
    command: Command,
}

/// Which vault, and what opens it.
#[derive(clap::Args)]
struct Location {
    /// The vault file.
    #[arg(long, global = true, value_name = "PATH")]
    vault: Option<PathBuf>,
    /// The age identity that opens it: a file, or a variable of the environment.
    #[arg(long, global = true, value_name = "file:PATH|env:NAME")]
    identity: Option<String>,
    /// Take both from this configuration file's vault section.
    #[arg(long, global = true, value_name = "FILE", conflicts_with_all = ["vault", "identity"])]
    config: Option<PathBuf>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make an empty vault, and its identity when that file does not exist.
    Init,
    /// Seal a secret; it is asked for at a prompt, or read from standard input.
    Set(Set),
    /// Show the entries, never their values.
    List,
    /// Remove an entry.
    Remove {
        /// Its name.
        name: String,
    },
    /// Seal the vault for another identity.
    Rekey {
        /// What is to open it; a file is made when it does not exist.
        #[arg(long, value_name = "file:PATH|env:NAME")]
        new_identity: String,
    },
    /// Open the vault and check everything in it.
    Verify,
    /// Copy the vault, encrypted, to a new file, and check the copy.
    Backup {
        /// It must not exist.
        file: PathBuf,
    },
    /// Put a backup in the vault's place.
    Restore {
        /// The backup.
        file: PathBuf,
        /// Also replace a newer vault, or one that cannot be opened.
        #[arg(long)]
        force: bool,
    },
}

#[derive(clap::Args)]
struct Set {
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
enum Environment {
    Sandbox,
    Production,
}

/// Runs one `mxgate vault` command.
pub(crate) fn run(args: Args, json: bool) -> anyhow::Result<()> {
    let vault = locate(&args.location)?;
    match args.command {
        Command::Init => init(&vault),
        Command::Set(set) => seal(&vault, &set),
        Command::List => list(&vault, json),
        Command::Remove { name } => {
            embedded::remove(&vault.path, &Identity::load(&vault.identity)?, &name)?;
            print(&format!("removed {name}\n"))
        }
        Command::Rekey { new_identity } => rekey(&vault, &new_identity),
        Command::Verify => verify(&vault),
        Command::Backup { file } => backup(&vault, &file),
        Command::Restore { file, force } => restore(&vault, &file, force),
    }
}

fn locate(location: &Location) -> anyhow::Result<VaultFile> {
    match (&location.vault, &location.identity, &location.config) {
        (Some(path), Some(identity), _) => {
            Ok(VaultFile { path: std::path::absolute(path)?, identity: identity_reference(identity)? })
        }
        (None, None, Some(config)) => from_configuration(config),
        _ => bail!("name the vault and what opens it: --vault PATH with --identity file:PATH or env:NAME"),
    }
}

/// What that file's `[vault]` says.
fn from_configuration(config: &Path) -> anyhow::Result<VaultFile> {
    let loaded = Config::load(config).map_err(|faults| anyhow!("{faults}"))?;
    loaded
        .config
        .vault
        .with_context(|| format!("{} has no [vault]; use --vault and --identity", config.display()))
}

/// `env:NAME`, `file:PATH` or a plain path, which may be relative here.
fn identity_reference(text: &str) -> anyhow::Result<Reference> {
    if text.starts_with("env:") {
        return text.parse().map_err(|fault| anyhow!("--identity {fault}"));
    }
    if text.trim_start().to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") {
        bail!("--identity takes file:PATH or env:NAME, never the identity itself; consider that one exposed");
    }
    let path = text.strip_prefix("file:").unwrap_or(text);
    Ok(Reference::file(std::path::absolute(path).context("--identity names no file")?))
}

fn init(vault: &VaultFile) -> anyhow::Result<()> {
    if vault.path.exists() {
        return Err(embedded::Error::Exists { path: vault.path.clone() }.into());
    }
    let identity = load_or_create(&vault.identity)?;
    embedded::create(&vault.path, &identity)?;
    print(&format!("made the vault {}, for {}\n", vault.path.display(), identity.recipient()))
}

fn load_or_create(reference: &Reference) -> anyhow::Result<Identity> {
    match reference.as_file() {
        Some(path) if !path.exists() => {
            let identity = Identity::create(&path)?;
            print(&format!(
                "made the identity {}\nKeep a copy in another safe place: without it, nobody opens the vault.\n",
                path.display()
            ))?;
            Ok(identity)
        }
        _ => Ok(Identity::load(reference)?),
    }
}

fn seal(vault: &VaultFile, set: &Set) -> anyhow::Result<()> {
    if !set.surplus.is_empty() {
        bail!(
            "a secret is never taken from an argument, where `ps` and the shell's history show it: leave it out for a prompt, or pipe it in; consider this one exposed"
        );
    }
    let (identity, opened) = open(vault)?;
    let chosen = chosen_hosts(set)?;
    // Before anybody types a secret that could then not be sealed.
    embedded::hosts_for(&opened.entries, &set.name, chosen.clone())?;
    let secret = read_secret(set)?;
    let Entry { secret, version, hosts, .. } =
        embedded::set(&vault.path, &identity, &set.name, secret, chosen)?;
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

fn list(vault: &VaultFile, json: bool) -> anyhow::Result<()> {
    let (_, opened) = open(vault)?;
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
        return Ok("the vault is empty; `mxgate vault set NAME` seals a secret\n".to_owned());
    }
    let width = opened.entries.keys().map(String::len).max().unwrap_or(0).max("NAME".len());
    let mut text = format!(
        "{:width$}  {:>7}  {:20}  {:20}  {:11}  HOSTS\n",
        "NAME", "VERSION", "CREATED", "UPDATED", "FINGERPRINT"
    );
    for (name, Entry { secret, version, created, updated, hosts }) in &opened.entries {
        let (fingerprint, hosts) = (secret.fingerprint().to_string(), hosts.join(", "));
        writeln!(text, "{name:width$}  {version:>7}  {created:20}  {updated:20}  {fingerprint:11}  {hosts}")?;
    }
    Ok(text)
}

fn rekey(vault: &VaultFile, new_identity: &str) -> anyhow::Result<()> {
    let (old, _) = open(vault)?;
    let reference = identity_reference(new_identity)?;
    let new = load_or_create(&reference)?;
    embedded::rekey(&vault.path, &old, &new)?;
    print(&format!(
        "the vault {} is now sealed for {}\nA gateway opens it once its `identity` is {reference}. Backups from before still need the old identity.\n",
        vault.path.display(),
        new.recipient()
    ))
}

fn verify(vault: &VaultFile) -> anyhow::Result<()> {
    let (identity, Opened { generation, entries, .. }) = open(vault)?;
    print(&format!(
        "the vault {} is sound: generation {generation}, entries {}, for {}\n",
        vault.path.display(),
        entries.len(),
        identity.recipient()
    ))
}

fn backup(vault: &VaultFile, to: &Path) -> anyhow::Result<()> {
    let Opened { generation, entries, .. } =
        embedded::backup(&vault.path, &Identity::load(&vault.identity)?, to)?;
    print(&format!(
        "copied to {} and read back: generation {generation}, entries {}\nIt opens with the present identity only.\n",
        to.display(),
        entries.len()
    ))
}

fn restore(vault: &VaultFile, from: &Path, force: bool) -> anyhow::Result<()> {
    let identity = Identity::load(&vault.identity)?;
    let generation = embedded::restore(&vault.path, &identity, from, force)?;
    print(&format!(
        "the vault {} has the content of {} again, as generation {generation}\n",
        vault.path.display(),
        from.display()
    ))
}

fn open(vault: &VaultFile) -> anyhow::Result<(Identity, Opened)> {
    let identity = Identity::load(&vault.identity)?;
    let opened = embedded::open(&vault.path, &identity)?;
    opened.notices.iter().try_for_each(note)?;
    Ok((identity, opened))
}

fn note(notice: &Notice) -> anyhow::Result<()> {
    Ok(writeln!(io::stderr(), "mxgate: note: {notice}")?)
}

fn print(text: &str) -> anyhow::Result<()> {
    Ok(out::line(text.trim_end_matches('\n'))?)
}
