//! `mxgate vault recipients`, `rekey`, `accept` and `passphrase`: who opens the vault.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal},
    path::Path,
};

use anyhow::{Context, anyhow, bail};
use mxgate::vault::{
    embedded::{
        self, Change, Identity, Member, Opened, Passphrase, Recipient, identity, passphrase::BYTES_MIN,
    },
    reference::Reference,
    source::file::{SECRET_BYTES_MAX, read_bounded},
};

use super::{Session, made, print, reference_of};

#[derive(clap::Args)]
#[command(
    after_help = "RECIPIENT is a public half: \"age1...\" or \"ssh-ed25519 ...\", a comment may follow. FILE holds such \
                        lines, like an ssh key's .pub file, or is an identity itself. An identity that is at hand \
                        accepts the vault's author at once; one that is added by its public half runs `mxgate vault \
                        accept` first.\n\n\
                        Who is removed opens no vault from now on, but still the backups from before, and knows what \
                        was in them: rotate those keys at MX."
)]
#[group(required = true, multiple = true)]
pub(super) struct Rekey {
    /// Let somebody else open the vault too; repeatable.
    #[arg(long, value_name = "RECIPIENT|FILE")]
    add: Vec<String>,
    /// Make a new identity in this file and let it open the vault too: a recovery key, to be kept elsewhere, or
    /// a gateway. Repeatable.
    #[arg(long, value_name = "FILE")]
    add_new: Vec<String>,
    /// Let somebody open the vault no more; repeatable. Not the identity in use.
    #[arg(long, value_name = "RECIPIENT|FILE")]
    remove: Vec<String>,
    /// Let this open the vault in the place of the identity in use; a file is made when it does not exist.
    #[arg(long, value_name = "file:PATH|env:NAME")]
    new_identity: Option<String>,
}

#[derive(clap::Args)]
pub(super) struct NewPassphrase {
    /// Where the new passphrase is. Otherwise it is asked for at a prompt.
    #[arg(long, value_name = "file:PATH|env:NAME")]
    new_passphrase: Option<String>,
    /// Leave the identity file without a passphrase.
    #[arg(long, conflicts_with = "new_passphrase")]
    none: bool,
}

pub(super) fn show(session: &Session, json: bool) -> anyhow::Result<()> {
    let (identity, opened) = session.open()?;
    if json { print(&show_json(&opened, &identity)) } else { print(&show_text(&opened, &identity)?) }
}

fn show_json(opened: &Opened, identity: &Identity) -> String {
    let member = |member: &Member| {
        serde_json::json!({
            "recipient": member.recipient.text(),
            "comment": member.recipient.comment(),
            "added": member.added,
            "accepted": member.has_accepted(),
            "in_use": member.recipient == *identity.recipient(),
        })
    };
    let members: Vec<_> = opened.members.iter().map(member).collect();
    let author = opened.author().map(|author| author.to_string());
    format!("{}\n", serde_json::json!({ "author": author, "recipients": members }))
}

fn show_text(opened: &Opened, identity: &Identity) -> anyhow::Result<String> {
    let mut text = match opened.author() {
        Some(author) => format!("author {author}\n"),
        None => "no author yet: the next change of the vault makes one\n".to_owned(),
    };
    writeln!(text, "{:20}  {:8}  RECIPIENT", "ADDED", "ACCEPTED")?;
    for member in &opened.members {
        let accepted = match member.has_accepted() {
            true => "yes",
            false if member.recipient.can_prove() => "not yet",
            false => "--author",
        };
        let in_use = if member.recipient == *identity.recipient() { " (in use)" } else { "" };
        writeln!(text, "{:20}  {accepted:8}  {}{in_use}", member.added, line(&member.recipient))?;
    }
    Ok(text)
}

/// One recipient on each line.
pub(super) fn lines(members: &[Member]) -> String {
    members.iter().map(|member| format!("  {}\n", line(&member.recipient))).collect()
}

fn line(recipient: &Recipient) -> String {
    format!("{} {}", recipient.text(), recipient.comment()).trim_end().to_owned()
}

pub(super) fn rekey(session: &Session, rekey: &Rekey) -> anyhow::Result<()> {
    let (identity, _) = session.open()?;
    let mut joining = Vec::new();
    let mut change = Change::default();
    for text in &rekey.add {
        match named(session, "--add", text)? {
            Named::Private(identity) if identity.recipient().can_prove() => joining.push(*identity),
            Named::Private(identity) => change.add.push(identity.recipient().clone()),
            Named::Public(recipients) => change.add.extend(recipients),
        }
    }
    for text in &rekey.remove {
        match named(session, "--remove", text)? {
            Named::Private(identity) => change.remove.push(identity.recipient().clone()),
            Named::Public(recipients) => change.remove.extend(recipients),
        }
    }
    let new = rekey.new_identity.as_ref().map(|text| -> anyhow::Result<_> {
        let reference = session.reference("--new-identity", text)?;
        let identity = match made(&reference, || Ok(None))? {
            Some(identity) => identity,
            None => session.other_identity(&reference)?,
        };
        Ok((identity, reference))
    });
    let new = new.transpose()?;
    for text in &rekey.add_new {
        joining.push(made_new(text)?);
    }
    change.join = joining.iter().collect();
    change.replace = new.as_ref().map(|(identity, _)| identity);
    let members = embedded::rekey(session.path(), &identity, &change)?;
    print(&report(session, &change, new.as_ref().map(|(_, reference)| reference), &members))
}

fn report(session: &Session, change: &Change<'_>, new: Option<&Reference>, members: &[Member]) -> String {
    let mut text = format!("the vault {} is now sealed for:\n{}", session.path().display(), lines(members));
    if let Some(reference) = new {
        text += &format!("A gateway opens it once its `identity` is {reference}.\n");
    }
    if change.add.iter().any(Recipient::can_prove) {
        text += "Whoever was added by its public half runs `mxgate vault accept --author AUTHOR` once; `recipients` shows the author.\n";
    }
    if new.is_some() || !change.remove.is_empty() {
        text += "Backups from before still open for who was removed; if that matters, rotate the keys at MX and remove those backups.\n";
    }
    text
}

/// A new identity in a new file.
fn made_new(text: &str) -> anyhow::Result<Identity> {
    let reference = reference_of("--add-new", text)?;
    match (made(&reference, || Ok(None))?, reference.as_file()) {
        (Some(identity), _) => Ok(identity),
        (None, Some(path)) => {
            bail!("{} exists already and is not overwritten; --add takes what is there", path.display())
        }
        (None, None) => bail!("--add-new names a file that is to be made"),
    }
}

/// Whom a flag names.
enum Named {
    Public(Vec<Recipient>),
    Private(Box<Identity>),
}

fn named(session: &Session, flag: &str, text: &str) -> anyhow::Result<Named> {
    let is_key = ["AGE1", "SSH-", "AGE-SECRET-KEY-"].iter();
    let upper = text.trim_start().to_ascii_uppercase();
    if is_key.clone().any(|prefix| upper.starts_with(prefix)) {
        let recipient = text.parse().map_err(|fault| anyhow!("what {flag} names {fault}"))?;
        return Ok(Named::Public(vec![recipient]));
    }
    let reference = session.reference(flag, text)?;
    if let Some(path) = reference.as_file()
        && let Some(recipients) = recipients_of(&path)?
    {
        return Ok(Named::Public(recipients));
    }
    Ok(Named::Private(Box::new(session.other_identity(&reference)?)))
}

/// What a file of recipients holds; `None` for any other file.
fn recipients_of(path: &Path) -> anyhow::Result<Option<Vec<Recipient>>> {
    let unread = || format!("{} could not be read", path.display());
    let file = std::fs::File::open(path).with_context(unread)?;
    let bytes = read_bounded(file, SECRET_BYTES_MAX).with_context(unread)?;
    let bytes =
        bytes.with_context(|| format!("{} is larger than {SECRET_BYTES_MAX} bytes", path.display()))?;
    let Ok(text) = std::str::from_utf8(&bytes) else { return Ok(None) };
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let is_public = |line: &str| line.starts_with("age1") || line.starts_with("ssh-");
    if !lines.clone().next().is_some_and(is_public) {
        return Ok(None);
    }
    let parse = |line: &str| line.parse().map_err(|fault| anyhow!("a line of {} {fault}", path.display()));
    lines.map(parse).collect::<anyhow::Result<_>>().map(Some)
}

pub(super) fn accept(session: &Session) -> anyhow::Result<()> {
    let (identity, opened) = session.open()?;
    embedded::accept(session.path(), &identity)?;
    let author = opened.author().map_or_else(|| "a new author".to_owned(), |author| author.to_string());
    print(&format!("{} accepts {author} and opens the vault by itself now\n", identity.recipient()))
}

pub(super) fn passphrase(session: &Session, new: &NewPassphrase) -> anyhow::Result<()> {
    let Some(path) = session.vault.identity.as_file() else {
        bail!("only an identity in a file can be sealed; --identity file:PATH")
    };
    let passphrase = if new.none { None } else { Some(new_passphrase(session, new)?) };
    let identity = identity::protect(&path, &|| session.passphrase(), passphrase.as_ref())?;
    let state = match passphrase {
        Some(_) => "sealed with the passphrase; a gateway needs `passphrase` in [vault] from now on",
        None => "without a passphrase",
    };
    print(&format!("{} is {state}\nIt is still {}.\n", path.display(), identity.recipient()))
}

fn new_passphrase(session: &Session, new: &NewPassphrase) -> anyhow::Result<Passphrase> {
    let passphrase = match &new.new_passphrase {
        Some(text) => session.passphrase_at(&session.reference("--new-passphrase", text)?)?,
        None if io::stdin().is_terminal() => {
            let ask = |prompt| rpassword::prompt_password(prompt).map(Passphrase::new);
            let first = ask("New passphrase: ").context("the prompt could not be read")?;
            if first != ask("The same again: ").context("the prompt could not be read")? {
                bail!("the two are not the same; nothing was changed");
            }
            first
        }
        None => bail!("say where the new passphrase is: --new-passphrase file:PATH or env:NAME"),
    };
    long_enough(passphrase)
}

/// Before anything is sealed with it.
pub(super) fn long_enough(passphrase: Passphrase) -> anyhow::Result<Passphrase> {
    if !passphrase.is_long_enough() {
        bail!("a passphrase has at least {BYTES_MIN} bytes; six random words are a good one");
    }
    Ok(passphrase)
}
