//! `mxgate vault`: make, fill, check and copy the embedded vault, and say who opens it.
//!
//! Secrets come in through a prompt, standard input or a file, never an argument, and none goes out: the
//! commands show names, versions, dates, hosts, fingerprints and public halves.

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow, bail};
use mxgate::{
    config::{Config, Loaded, VaultFile},
    process, storage,
    vault::{
        elsewhere::Elsewhere,
        embedded::{
            self, AuthorId, Identity, Notice, Opened, Passphrase, Trust, identity::Error as IdentityError,
        },
        reference::Reference,
    },
};

use super::out;

mod entries;
mod recipients;

/// `mxgate vault ...`
#[derive(clap::Args)]
#[command(
    after_help = "Begin with `init`, which makes the vault and the identity that opens it, then `set` the keys. Add a \
                        recovery key with `rekey --add-new FILE` and keep that file elsewhere: without any identity \
                        nobody opens the vault.\n\n\
                        The vault is an age file: `age -d -i IDENTITY VAULT` shows its JSON, each value in base64. Only mxgate \
                        writes one that mxgate opens."
)]
pub(crate) struct Args {
    #[command(flatten)]
    location: Location,
    #[command(subcommand)]
    command: Command,
}

/// Which vault, what opens it, and why it is believed.
#[derive(clap::Args)]
struct Location {
    /// The vault file.
    #[arg(long, global = true, value_name = "PATH")]
    vault: Option<PathBuf>,
    /// The identity that opens it: a file, or a variable of the environment. It holds an age identity or an
    /// OpenSSH ed25519 key.
    #[arg(long, global = true, value_name = "file:PATH|env:NAME")]
    identity: Option<String>,
    /// Where the passphrase is that the identity is sealed with. Otherwise it is asked for at a prompt.
    #[arg(long, global = true, value_name = "file:PATH|env:NAME")]
    passphrase: Option<String>,
    /// Take these from this configuration file's vault section.
    #[arg(long, global = true, value_name = "FILE", conflicts_with_all = ["vault", "identity", "passphrase"])]
    config: Option<PathBuf>,
    /// Believe a vault of this author, as `recipients` showed it, although the identity has not accepted it.
    #[arg(long, global = true, value_name = "AUTHOR")]
    author: Option<AuthorId>,
    /// Believe the vault file, whoever wrote it: only for a file from a place where nobody else writes.
    #[arg(long, global = true, conflicts_with = "author")]
    trust_file: bool,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make an empty vault, and its identity when that file does not exist.
    Init,
    /// Seal a secret; it is asked for at a prompt, or read from standard input.
    Set(entries::Set),
    /// Show the entries, never their values.
    List,
    /// Remove an entry.
    Remove {
        /// Its name.
        name: String,
    },
    /// Show who opens the vault, and its author.
    Recipients,
    /// Change who opens the vault.
    Rekey(recipients::Rekey),
    /// Note in the vault that this identity takes its author for genuine: needed once by an identity that
    /// was added by its public half. Name the author with --author.
    Accept,
    /// Seal the identity file with a passphrase, or with another one.
    Passphrase(recipients::NewPassphrase),
    /// Open the vault and check everything in it.
    Verify,
    /// Copy the vault, encrypted, to a new file, and check the copy.
    Backup {
        /// It must not exist.
        file: PathBuf,
    },
    /// Put a backup's entries in the vault's place.
    Restore {
        /// The backup.
        file: PathBuf,
        /// Also replace a newer vault, or one that cannot be opened.
        #[arg(long)]
        force: bool,
    },
    /// Put the secret of a recovery file into the vault: `mxgate rotate` writes one when it cannot write the
    /// vault.
    Recover {
        /// The recovery file.
        file: PathBuf,
        /// Under this name, instead of the one that it was meant for.
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
    },
}

/// Runs one `mxgate vault` command.
pub(crate) fn run(args: Args, json: bool) -> anyhow::Result<()> {
    // Before an identity is read.
    process::harden();
    let session = Session::new(&args.location)?;
    match args.command {
        Command::Init => init(&session),
        Command::Set(set) => entries::seal(&session, &set),
        Command::List => entries::list(&session, json),
        Command::Remove { name } => entries::remove(&session, &name),
        Command::Recipients => recipients::show(&session, json),
        Command::Rekey(rekey) => recipients::rekey(&session, &rekey),
        Command::Accept => recipients::accept(&session),
        Command::Passphrase(new) => recipients::passphrase(&session, &new),
        Command::Verify => verify(&session),
        Command::Backup { file } => backup(&session, &file),
        Command::Restore { file, force } => restore(&session, &file, force),
        Command::Recover { file, name } => entries::recover(&session, &file, name.as_deref()),
    }
}

/// The vault of one command.
struct Session {
    vault: VaultFile,
    trust: Trust,
    /// A configuration says how servers and commands are asked.
    is_configured: bool,
}

impl Session {
    fn new(location: &Location) -> anyhow::Result<Self> {
        let trust = match location.author {
            Some(author) => Trust::Author(author),
            None if location.trust_file => Trust::File,
            None => Trust::Proof,
        };
        Ok(Self { vault: locate(location)?, trust, is_configured: location.config.is_some() })
    }

    /// Before anything is made: no folder is, since whose it is says who may come near the files.
    fn folders_are_there(&self) -> anyhow::Result<()> {
        let identity = self.vault.identity.as_file();
        let files = [(Some(self.path()), "--vault", "path"), (identity.as_deref(), "--identity", "identity")];
        for (path, flag, key) in files {
            let Some(folder) = path.and_then(storage::missing_folder) else { continue };
            let named = if self.is_configured { format!("`{key}` of [vault]") } else { flag.to_owned() };
            bail!("there is no folder {}, which {named} names; make it first", folder.display());
        }
        Ok(())
    }

    fn path(&self) -> &Path {
        &self.vault.path
    }

    /// The passphrase of the identity in use.
    fn passphrase(&self) -> Result<Passphrase, IdentityError> {
        match &self.vault.passphrase {
            Some(reference) => self.passphrase_at(reference),
            None => ask(&self.vault.identity),
        }
    }

    fn passphrase_at(&self, reference: &Reference) -> Result<Passphrase, IdentityError> {
        Passphrase::parse(&reference.to_string(), &self.vault.elsewhere.read(reference)?)
    }

    /// What an identity is sealed with that is made in this place.
    fn seal_with(&self) -> anyhow::Result<Option<Passphrase>> {
        let named = self.vault.passphrase.as_ref().map(|one| self.passphrase_at(one)).transpose()?;
        named.map(recipients::long_enough).transpose()
    }

    fn identity(&self) -> anyhow::Result<Identity> {
        Ok(self.identity_at(&self.vault.identity, &|| self.passphrase())?.trusting(self.trust))
    }

    /// What a flag names besides.
    fn reference(&self, flag: &str, text: &str) -> anyhow::Result<Reference> {
        match text.split_once(':') {
            Some((scheme, _)) if self.is_configured && ELSEWHERE.contains(&scheme) => {
                text.parse().map_err(|fault| anyhow!("{flag} {fault}"))
            }
            _ => reference_of(flag, text),
        }
    }

    /// Another identity than the one in use; somebody is asked for its passphrase.
    fn other_identity(&self, reference: &Reference) -> Result<Identity, IdentityError> {
        Ok(self.identity_at(reference, &|| ask(reference))?.with_comment(&comment_of(reference)))
    }

    fn identity_at(
        &self,
        reference: &Reference,
        passphrase: &dyn Fn() -> Result<Passphrase, IdentityError>,
    ) -> Result<Identity, IdentityError> {
        Identity::unlock(&reference.to_string(), &self.vault.elsewhere.read(reference)?, passphrase)
    }

    fn open(&self) -> anyhow::Result<(Identity, Opened)> {
        let identity = self.identity()?;
        let opened = embedded::open(self.path(), &identity)?;
        opened.notices.iter().try_for_each(note)?;
        Ok((identity, opened))
    }
}

/// Asks for the passphrase of an identity, if somebody is there.
fn ask(identity: &Reference) -> Result<Passphrase, IdentityError> {
    let nobody = || IdentityError::NoPassphrase { place: identity.to_string() };
    if !io::stdin().is_terminal() {
        return Err(nobody());
    }
    let typed = rpassword::prompt_password(format!("Passphrase of {identity}: ")).map_err(|_| nobody())?;
    Ok(Passphrase::new(typed))
}

fn locate(location: &Location) -> anyhow::Result<VaultFile> {
    match (&location.vault, &location.identity, &location.config) {
        (Some(path), Some(identity), _) => Ok(VaultFile {
            path: std::path::absolute(path)?,
            identity: reference_of("--identity", identity)?,
            passphrase: location
                .passphrase
                .as_ref()
                .map(|text| reference_of("--passphrase", text))
                .transpose()?,
            elsewhere: Elsewhere::nowhere(),
        }),
        (None, None, Some(config)) => from_configuration(config),
        _ => bail!(
            "name the vault and what opens it: --config FILE, or --vault PATH with --identity file:PATH or env:NAME"
        ),
    }
}

/// What that file's `[vault]` says.
fn from_configuration(config: &Path) -> anyhow::Result<VaultFile> {
    let Loaded { config: loaded, .. } = Config::load(config).map_err(|faults| anyhow!("{faults}"))?;
    // Another identity or passphrase may be named besides.
    let elsewhere = Elsewhere::of(&loaded);
    let vault = loaded
        .vault
        .with_context(|| format!("{} has no [vault]; use --vault and --identity", config.display()))?;
    Ok(VaultFile { elsewhere, ..vault })
}

/// Kinds of reference that mean nothing on a command line.
const ELSEWHERE: [&str; 4] = ["exec", "openbao", "aws", "vault"];

/// `env:NAME`, `file:PATH` or a plain path, which may be relative here.
fn reference_of(flag: &str, text: &str) -> anyhow::Result<Reference> {
    if text.starts_with("env:") {
        return text.parse().map_err(|fault| anyhow!("{flag} {fault}"));
    }
    if text.trim_start().to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") {
        bail!("{flag} takes file:PATH or env:NAME, never the identity itself; consider that one exposed");
    }
    if let Some((scheme, _)) = text.split_once(':').filter(|(scheme, _)| ELSEWHERE.contains(scheme)) {
        bail!(
            "{flag} takes file:PATH or env:NAME: how {scheme}: is asked stands in a configuration; name it there as \
             `identity` or `passphrase` of [vault], and use --config FILE instead"
        );
    }
    let path = text.strip_prefix("file:").unwrap_or(text);
    Ok(Reference::file(std::path::absolute(path).with_context(|| format!("{flag} names no file"))?))
}

fn init(session: &Session) -> anyhow::Result<()> {
    session.folders_are_there()?;
    if session.path().exists() {
        return Err(embedded::Error::Exists { path: session.path().into() }.into());
    }
    let identity = match made(&session.vault.identity, || session.seal_with())? {
        Some(identity) => identity,
        None => session.identity()?.with_comment(&comment_of(&session.vault.identity)),
    };
    embedded::create(session.path(), &identity)?;
    print(&format!("made the vault {}, for {}\n", session.path().display(), identity.recipient()))
}

/// A new identity, with a comment that says where it is, when `reference` names a file that does not exist. It is sealed
/// with `seal_with`.
fn made(
    reference: &Reference,
    seal_with: impl FnOnce() -> anyhow::Result<Option<Passphrase>>,
) -> anyhow::Result<Option<Identity>> {
    let Some(path) = reference.as_file().filter(|path| !path.exists()) else { return Ok(None) };
    let identity = Identity::create_sealed(&path, seal_with()?.as_ref())?;
    print(&format!(
        "made the identity {}\nKeep a copy in another safe place: without it, nobody opens the vault.\n",
        path.display()
    ))?;
    Ok(Some(identity.with_comment(&comment_of(reference))))
}

/// A file's name, or the whole reference.
fn comment_of(reference: &Reference) -> String {
    match reference.as_file() {
        Some(path) => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        None => reference.to_string(),
    }
}

fn verify(session: &Session) -> anyhow::Result<()> {
    let (identity, opened) = session.open()?;
    let format = match opened.author() {
        Some(author) => format!("author {author}"),
        None => "format 1, which the next change brings up to date".to_owned(),
    };
    print(&format!(
        "the vault {} is sound: generation {}, entries {}, for {}, recipients {}, {format}\n",
        session.path().display(),
        opened.generation,
        opened.entries.len(),
        identity.recipient(),
        opened.members.len(),
    ))
}

fn backup(session: &Session, to: &Path) -> anyhow::Result<()> {
    let opened = embedded::backup(session.path(), &session.identity()?, to)?;
    print(&format!(
        "copied to {} and read back: generation {}, entries {}\nIt opens for the present recipients only:\n{}",
        to.display(),
        opened.generation,
        opened.entries.len(),
        recipients::lines(&opened.members)
    ))
}

fn restore(session: &Session, from: &Path, force: bool) -> anyhow::Result<()> {
    let restored = embedded::restore(session.path(), &session.identity()?, from, force)?;
    let hint = match restored.members_of_backup {
        true => {
            "These are the backup's, as nothing else is known; remove who should not be here any more with `rekey`.\n"
        }
        false => "",
    };
    print(&format!(
        "the vault {} has the content of {} again, as generation {}\nIt opens for:\n{}{hint}",
        session.path().display(),
        from.display(),
        restored.generation,
        recipients::lines(&restored.members)
    ))
}

fn note(notice: &Notice) -> anyhow::Result<()> {
    Ok(writeln!(io::stderr(), "mxgate: note: {notice}")?)
}

fn print(text: &str) -> anyhow::Result<()> {
    Ok(out::line(text.trim_end_matches('\n'))?)
}
