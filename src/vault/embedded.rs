//! The embedded vault: one age-encrypted file, and what may be done to it.
//!
//! [`open`] reads it for the gateway; [`create`], [`set`], [`update`], [`remove`], [`rekey()`], [`backup`] and
//! [`restore`] write. Beside `vault.age` live `vault.age.generation` (what was last seen, see [`generation`])
//! and `vault.age.lock`. A vault is sealed for one or more recipients ([`recipient`]), who all may write it
//! ([`author`]); one of them is the gateway, another should be a recovery key that is kept elsewhere.
//!
//! What must never happen: a vault that is damaged, forged, older than one already seen or of a newer
//! format is used or overwritten; one is believed because somebody who knows only its recipients wrote it; of two writers one loses its change; a crash leaves half a file.
//! Readers take no lock: they read the last-seen file before the vault, and writers write them in the other order.
//!
//! Plaintext is wiped from the buffers of this module and of the prompt's answer. Outside that promise:
//! age's own buffers, above all the one it writes from (an operator's short-lived command, never the
//! gateway); the keys inside aws-lc's HMAC contexts; what the terminal, a pipe or the environment held
//! before mxgate read it.

use std::{collections::BTreeMap, fs, io, path::Path, sync::Arc, time::SystemTime};

use self::{
    aside::Sealing,
    author::Author,
    document::{Document, timestamp},
    place::{Place, load, sealed},
};
pub use self::{
    aside::{recover, saved},
    author::AuthorId,
    document::{Entry, Fault, SealError},
    entries::Entries,
    error::{Error, Notice},
    identity::{Identity, Trust},
    member::Member,
    passphrase::Passphrase,
    recipient::Recipient,
    rekey::{Change, rekey},
};
use super::{reference::Reference, secret::Secret};
use crate::storage;

mod aside;
pub mod author;
pub mod document;
mod entries;
mod error;
pub mod generation;
pub mod hosts;
pub mod identity;
pub mod member;
pub mod passphrase;
mod place;
pub mod recipient;
mod rekey;

/// The largest vault file, in bytes.
pub const BYTES_MAX: usize = 8 * 1024 * 1024;

/// The longest entry name, in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// A vault's content, decrypted and checked.
#[derive(Debug)]
pub struct Opened {
    /// Rises by one with each write.
    pub generation: u64,
    /// By name.
    pub entries: BTreeMap<String, Entry>,
    /// Who opens it.
    pub members: Vec<Member>,
    /// Every author it has had, the present one last; none in format 1.
    pub authors: Vec<AuthorId>,
    /// For the operator.
    pub notices: Vec<Notice>,
    sealing: Sealing,
}

impl Opened {
    fn new(document: Document, identity: &Identity, notices: Vec<Notice>) -> Self {
        let sealing = Sealing::of(&document, identity);
        let Document { generation, entries, members, authors } = document;
        let authors = authors.iter().map(Author::id).collect();
        Self { generation, entries, members, authors, notices, sealing }
    }

    /// The present author.
    #[must_use]
    pub fn author(&self) -> Option<AuthorId> {
        self.authors.last().copied()
    }

    /// Whether this may take the place of `earlier`, which this process opened from the same `path`.
    ///
    /// # Errors
    /// [`Error::Older`] or [`Error::OtherVault`].
    pub fn check_follows(&self, earlier: &Self, path: &Path) -> Result<(), Error> {
        if self.generation < earlier.generation {
            let (generation, seen) = (self.generation, earlier.generation);
            return Err(Error::Older { path: path.into(), generation, seen });
        }
        match earlier.author() {
            Some(author) if !self.authors.contains(&author) => Err(Error::OtherVault { path: path.into() }),
            _ => Ok(()),
        }
    }
}

/// Opens the vault at `path`, and remembers its generation.
///
/// # Errors
/// [`Error`]; the file is untouched.
pub fn open(path: &Path, identity: &Identity) -> Result<Opened, Error> {
    let place = Place::of(path);
    let (vault, seen) = place.load(identity)?;
    let generation = vault.document.generation;
    let mut notices = Vec::new();
    if seen < Some(generation) {
        match place.advance(&vault.document, identity, &vault.metadata) {
            Ok(true) if seen.is_none() => notices.push(Notice::FirstUse { path: place.vault, generation }),
            Ok(_) => {}
            Err(source) => notices.push(Notice::NotKept { path: place.last_seen, generation, source }),
        }
    }
    Ok(Opened::new(vault.document, identity, notices))
}

/// The same without a note of what was seen: nothing is written.
///
/// # Errors
/// As [`open`].
pub fn peek(path: &Path, identity: &Identity) -> Result<Opened, Error> {
    let (vault, _) = Place::of(path).load(identity)?;
    Ok(Opened::new(vault.document, identity, Vec::new()))
}

/// Makes an empty vault for `identity`.
///
/// # Errors
/// [`Error::Exists`], [`Error::Leftover`], or why it could not be written.
pub fn create(path: &Path, identity: &Identity) -> Result<(), Error> {
    let place = Place::of(path);
    let _lock = place.lock()?;
    if place.vault.exists() {
        return Err(Error::Exists { path: place.vault });
    }
    if place.last_seen.exists() {
        return Err(Error::Leftover { path: place.vault, last_seen: place.last_seen });
    }
    let members = vec![Member::new(identity.recipient().clone(), timestamp(SystemTime::now()))];
    let mut document = Document { generation: 1, members, ..Document::default() };
    let bytes = sealed(&mut document, &[identity])?;
    storage::create(&place.vault, &bytes).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => Error::Exists { path: place.vault.clone() },
        _ => Error::Unwritable { path: place.vault.clone(), source },
    })?;
    place.remember(&document, &[identity], None)
}

/// Notes in the vault that `identity` accepts its author: from then on it opens the vault without being
/// told whom to trust.
///
/// # Errors
/// [`Error::CannotAccept`] for an ssh key, or why the vault could not be opened or written.
pub fn accept(path: &Path, identity: &Identity) -> Result<(), Error> {
    if !identity.recipient().can_prove() {
        return Err(Error::CannotAccept);
    }
    // Every write does it.
    change(path, identity, |_| Ok(()))
}

/// Seals `secret` under `name` for the hosts of [`hosts_for`], and answers with the new entry.
///
/// # Errors
/// [`Error::BadName`], [`Error::NoHosts`], or why the vault could not be opened or written.
pub fn set(
    path: &Path,
    identity: &Identity,
    name: &str,
    secret: Secret,
    hosts: Option<Vec<String>>,
) -> Result<Entry, Error> {
    change(path, identity, |document| {
        Entries::of(&mut document.entries).put(name, Arc::new(secret), hosts).cloned()
    })
}

/// Changes any number of entries in one write, while every other writer waits, and answers with the vault's
/// new generation and what `f` made. With `expected`, only a vault of that generation is changed. When `f`
/// fails, nothing is written.
///
/// # Errors
/// [`Error::Moved`] when the generation is another one, what `f` said, or why the vault could not be opened
/// or written.
pub fn update<T, E: From<Error>>(
    path: &Path,
    identity: &Identity,
    expected: Option<u64>,
    f: impl FnOnce(&mut Entries<'_>) -> Result<T, E>,
) -> Result<(u64, T), E> {
    change(path, identity, |document| {
        let found = document.generation;
        match expected.filter(|expected| *expected != found) {
            Some(expected) => Err(Error::Moved { expected, found }.into()),
            None => Ok((found.saturating_add(1), f(&mut Entries::of(&mut document.entries))?)),
        }
    })
}

/// The hosts that `name` would be sealed for: `chosen`, or those of the present entry, or MX's host of
/// the environment that the name begins with.
///
/// # Errors
/// [`Error::BadName`] or [`Error::NoHosts`].
pub fn hosts_for(
    entries: &BTreeMap<String, Entry>,
    name: &str,
    chosen: Option<Vec<String>>,
) -> Result<Vec<String>, Error> {
    if !is_entry_name(name) {
        return Err(Error::BadName);
    }
    chosen
        .or_else(|| entries.get(name).map(|entry| entry.hosts.clone()))
        .or_else(|| hosts::for_name(name).map(|host| vec![host.to_owned()]))
        .filter(|hosts| !hosts.is_empty())
        .ok_or_else(|| Error::NoHosts { name: name.to_owned() })
}

/// Removes an entry.
///
/// # Errors
/// [`Error::NoEntry`], or why the vault could not be opened or written.
pub fn remove(path: &Path, identity: &Identity, name: &str) -> Result<(), Error> {
    change(path, identity, |document| Entries::of(&mut document.entries).remove(name).map(drop))
}

/// Copies the vault, encrypted as it is, to a new file, and checks what was written.
///
/// # Errors
/// [`Error::Exists`], [`Error::BackupDiffers`], or why the vault could not be opened or the copy written.
pub fn backup(path: &Path, identity: &Identity, to: &Path) -> Result<Opened, Error> {
    let place = Place::of(path);
    let (vault, _) = place.load(identity)?;
    storage::create(to, &vault.bytes).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => Error::Exists { path: to.into() },
        _ => Error::Unwritable { path: to.into(), source },
    })?;
    let written = load(to, identity)?;
    if written.bytes != vault.bytes {
        return Err(Error::BackupDiffers { path: to.into() });
    }
    Ok(Opened::new(written.document, identity, Vec::new()))
}

/// What [`restore`] made.
#[derive(Debug)]
pub struct Restored {
    /// The vault's new generation.
    pub generation: u64,
    /// Who opens it.
    pub members: Vec<Member>,
    /// Whether that list is the backup's, because the vault in whose place it came could not be opened.
    /// Somebody who was removed since is in it again.
    pub members_of_backup: bool,
}

/// Puts the entries of a backup in the vault's place, with a generation above every one seen here. Who opens
/// and writes it stays as it is in the present vault, if that opens. `force` also replaces a newer vault, or
/// one that cannot be opened.
///
/// # Errors
/// [`Error::PresentNewer`], [`Error::PresentUnusable`], or why the backup could not be opened or written.
pub fn restore(path: &Path, identity: &Identity, from: &Path, force: bool) -> Result<Restored, Error> {
    let place = Place::of(path);
    let _lock = place.lock()?;
    let mut backup = load(from, identity)?.document;
    let unless_forced = |error| match force {
        true => Ok(None),
        false => Err(Error::PresentUnusable { source: Box::new(error) }),
    };
    let present = match load(&place.vault, identity) {
        Ok(vault) => Some(vault.document),
        Err(Error::Absent { .. }) => None,
        Err(error) => unless_forced(error)?,
    };
    let (seen_by, generation) =
        present.as_ref().map_or((&backup, None), |vault| (vault, Some(vault.generation)));
    let remembered =
        place.seen(&seen_by.authors, identity).or_else(|error| unless_forced(error).map(|_| None))?;
    if let Some(present) = generation.filter(|present| *present > backup.generation && !force) {
        return Err(Error::PresentNewer { present, backup: backup.generation });
    }
    let metadata = fs::metadata(&place.vault).ok();
    backup.generation = backup.generation.max(generation.max(remembered).unwrap_or(0));
    let kept = present.filter(|vault| vault.authors.present().is_some());
    let members_of_backup = kept.is_none();
    if let Some(vault) = kept {
        (backup.members, backup.authors) = (vault.members, vault.authors);
    }
    let Document { generation, members, .. } = place.store(backup, &[identity], metadata.as_ref())?;
    Ok(Restored { generation, members, members_of_backup })
}

/// Whether `name` can stand after `vault:` in a reference.
fn is_entry_name(name: &str) -> bool {
    name.len() <= NAME_BYTES_MAX && format!("vault:{name}").parse::<Reference>().is_ok()
}

/// Reads, lets `f` change, and writes, while every other writer waits.
fn change<T, E: From<Error>>(
    path: &Path,
    identity: &Identity,
    f: impl FnOnce(&mut Document) -> Result<T, E>,
) -> Result<T, E> {
    let place = Place::of(path);
    let _lock = place.lock()?;
    let (mut vault, _) = place.load(identity)?;
    let made = f(&mut vault.document)?;
    place.store(vault.document, &[identity], Some(&vault.metadata))?;
    Ok(made)
}

#[cfg(test)]
mod tests;
