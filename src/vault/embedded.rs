//! The embedded vault: one age-encrypted file, and what may be done to it.
//!
//! [`open`] reads it for the gateway; [`create`], [`set`], [`remove`], [`rekey`], [`backup`] and [`restore`]
//! are the operator's. Beside `vault.age` live `vault.age.generation` (the last seen generation, see
//! [`generation`]) and `vault.age.lock`. A vault has one identity; for recovery, keep a copy of the
//! identity and a backup in two different places.
//!
//! What must never happen: a vault that is damaged, forged, older than one already seen or of a newer
//! format is used or overwritten; of two writers one loses its change; a crash leaves half a file.
//! Readers take no lock: they read the memory before the vault, and writers write them in the other order.
//!
//! Plaintext is wiped from the buffers of this module. Outside that promise: age's own chunk buffer when
//! it writes (an operator's short-lived command, never the gateway), and the key material inside aws-lc's
//! HMAC contexts.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    fs::{self, Metadata},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use self::document::Document;
pub use self::{
    document::{Entry, Fault, SealError},
    identity::Identity,
};
use super::{
    permissions,
    reference::Reference,
    secret::Secret,
    source::file::{self, Content},
};

pub mod document;
pub mod generation;
pub mod hosts;
pub mod identity;
mod storage;

/// The largest vault file, in bytes.
pub const BYTES_MAX: usize = 8 * 1024 * 1024;

/// The longest entry name, in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// Why a vault was not opened or not changed. The vault file is then as it was, unless said otherwise.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No file is there.
    #[error("there is no vault at {}; `mxgate vault init` makes one", .path.display())]
    Absent {
        /// The vault.
        path: PathBuf,
    },
    /// Something is there already.
    #[error("{} exists already and is not overwritten", .path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A vault was here once.
    #[error(
        "there is no vault at {}, but {} says that one was; restore a backup, or remove that file to begin anew",
        .path.display(), .memory.display()
    )]
    Leftover {
        /// The vault.
        path: PathBuf,
        /// The memory of its generation.
        memory: PathBuf,
    },
    /// The file was not read.
    #[error("the vault could not be loaded")]
    File(#[from] file::Error),
    /// The file was read and is not used.
    #[error("the vault {} is not used", .path.display())]
    Unsound {
        /// The vault.
        path: PathBuf,
        /// Why.
        source: Fault,
    },
    /// A genuine vault of an earlier day.
    #[error(
        "the vault {} is not used: it has generation {generation}, and generation {seen} was seen here before; if that is intended, use `mxgate vault restore --force`",
        .path.display()
    )]
    Older {
        /// The vault.
        path: PathBuf,
        /// Its generation.
        generation: u64,
        /// The last seen one.
        seen: u64,
    },
    /// The memory of the last seen generation cannot be used.
    #[error("the memory of the vault's generation, {}, is not believed; if the vault was replaced on purpose, remove that file", .path.display())]
    Memory {
        /// The memory.
        path: PathBuf,
        /// Why.
        source: generation::Error,
    },
    /// A name that no reference could hold.
    #[error("an entry's name has 1 to {NAME_BYTES_MAX} letters, digits or `/`, `_`, `-`, `.`")]
    BadName,
    /// No such entry.
    #[error("the vault has no entry {name}")]
    NoEntry {
        /// The name.
        name: String,
    },
    /// A new entry without hosts.
    #[error(
        "say which host {name} may be sent to: name one, or an environment, or let its name begin with sandbox/ or production/"
    )]
    NoHosts {
        /// The name.
        name: String,
    },
    /// Rekeyed to itself.
    #[error("the new identity is the present one")]
    SameIdentity,
    /// The present vault is newer than the backup.
    #[error(
        "the present vault has generation {present} and the backup {backup}; `--force` goes back to the backup"
    )]
    PresentNewer {
        /// The vault's generation.
        present: u64,
        /// The backup's.
        backup: u64,
    },
    /// The present vault cannot be compared with the backup.
    #[error("the present vault cannot be compared with the backup; `--force` replaces it")]
    PresentUnusable {
        /// Why it cannot be opened.
        source: Box<Error>,
    },
    /// The copy is not what was written.
    #[error("the backup {} does not read back as it was written", .path.display())]
    BackupDiffers {
        /// The backup.
        path: PathBuf,
    },
    /// It would be larger than what is read again.
    #[error("the vault would be larger than {BYTES_MAX} bytes")]
    Full,
    /// It could not be encrypted.
    #[error("the vault could not be sealed")]
    Seal(#[from] SealError),
    /// It could not be written.
    #[error("{} could not be written", .path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The vault was written; its memory was not.
    #[error("the vault was changed, but {} could not be written", .path.display())]
    MemoryUnwritable {
        /// The memory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Something an operator should know although the vault was opened.
#[derive(Debug)]
pub enum Notice {
    /// No memory of the generation was there.
    FirstUse {
        /// The vault.
        path: PathBuf,
        /// Its generation.
        generation: u64,
    },
    /// The memory could not be written, as on a read-only mount.
    NotKept {
        /// The memory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FirstUse { path, generation } => write!(
                f,
                "first use of the vault {} here, at generation {generation}; older ones are refused from now on",
                path.display()
            ),
            Self::NotKept { path, source } => write!(
                f,
                "the vault's generation could not be kept in {} ({source}); an older vault would be noticed by this process only",
                path.display()
            ),
        }
    }
}

/// A vault's content, decrypted and checked.
#[derive(Debug)]
pub struct Opened {
    /// Rises by one with each write.
    pub generation: u64,
    /// By name.
    pub entries: BTreeMap<String, Entry>,
    /// For the operator.
    pub notices: Vec<Notice>,
}

/// Opens the vault at `path`, and remembers its generation.
///
/// # Errors
/// [`Error`]; the file is untouched.
pub fn open(path: &Path, identity: &Identity) -> Result<Opened, Error> {
    let place = Place::of(path);
    let (vault, seen) = place.load(identity)?;
    let Document { generation, entries } = vault.document;
    let mut notices = Vec::new();
    if seen.is_none() {
        notices.push(Notice::FirstUse { path: place.vault.clone(), generation });
    }
    if seen < Some(generation)
        && let Err(source) = place.advance(generation, identity, &vault.metadata)
    {
        notices.push(Notice::NotKept { path: place.memory, source });
    }
    Ok(Opened { generation, entries, notices })
}

/// Makes an empty vault.
///
/// # Errors
/// [`Error::Exists`], [`Error::Leftover`], or why it could not be written.
pub fn create(path: &Path, identity: &Identity) -> Result<(), Error> {
    let place = Place::of(path);
    let _lock = place.lock()?;
    if place.vault.exists() {
        return Err(Error::Exists { path: place.vault });
    }
    if place.memory.exists() {
        return Err(Error::Leftover { path: place.vault, memory: place.memory });
    }
    let document = Document { generation: 1, ..Document::default() };
    let bytes = sealed(&document, identity)?;
    storage::create(&place.vault, &bytes).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => Error::Exists { path: place.vault.clone() },
        _ => Error::Unwritable { path: place.vault.clone(), source },
    })?;
    place.remember(&document, &[identity], None)
}

/// Seals `secret` under `name`, and answers with the entry's version. Without `hosts` an existing entry
/// keeps its own, and a new one gets MX's host of the environment that its name begins with.
///
/// # Errors
/// [`Error::BadName`], [`Error::NoHosts`], or why the vault could not be opened or written.
pub fn set(
    path: &Path,
    identity: &Identity,
    name: &str,
    secret: Secret,
    hosts: Option<Vec<String>>,
) -> Result<u64, Error> {
    if !is_entry_name(name) {
        return Err(Error::BadName);
    }
    change(path, identity, |document| {
        let now = document::timestamp(SystemTime::now());
        let old = document.entries.get(name);
        let hosts = hosts
            .or_else(|| old.map(|entry| entry.hosts.clone()))
            .or_else(|| hosts::for_name(name).map(|host| vec![host.to_owned()]))
            .filter(|hosts| !hosts.is_empty())
            .ok_or_else(|| Error::NoHosts { name: name.to_owned() })?;
        let version = old.map_or(1, |entry| entry.version.saturating_add(1));
        let created = old.map_or_else(|| now.clone(), |entry| entry.created.clone());
        let entry = Entry { secret: Arc::new(secret), version, created, updated: now, hosts };
        document.entries.insert(name.to_owned(), entry);
        Ok(version)
    })
}

/// Removes an entry.
///
/// # Errors
/// [`Error::NoEntry`], or why the vault could not be opened or written.
pub fn remove(path: &Path, identity: &Identity, name: &str) -> Result<(), Error> {
    change(path, identity, |document| match document.entries.remove(name) {
        Some(_) => Ok(()),
        None => Err(Error::NoEntry { name: name.to_owned() }),
    })
}

/// Seals the whole vault for `new`; afterwards `old` opens it no more. Backups from before still open
/// with `old`, so a stolen identity also means new keys at MX.
///
/// # Errors
/// [`Error::SameIdentity`], or why the vault could not be opened or written.
pub fn rekey(path: &Path, old: &Identity, new: &Identity) -> Result<(), Error> {
    if old.recipient() == new.recipient() {
        return Err(Error::SameIdentity);
    }
    let place = Place::of(path);
    let _lock = place.lock()?;
    let (vault, _) = place.load(old)?;
    // Before the vault is the new identity's, its memory must be believed by both: see `Memory`.
    generation::write(&place.memory, vault.document.generation, &[old, new], Some(&vault.metadata))
        .map_err(|source| Error::Unwritable { path: place.memory.clone(), source })?;
    place.store(vault.document, new, Some(&vault.metadata))
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
    let Document { generation, entries } = written.document;
    Ok(Opened { generation, entries, notices: Vec::new() })
}

/// Puts a backup in the vault's place, with a generation above every one seen here, and answers with
/// that. `force` also replaces a newer vault, or one that cannot be opened.
///
/// # Errors
/// [`Error::PresentNewer`], [`Error::PresentUnusable`], or why the backup could not be opened or written.
pub fn restore(path: &Path, identity: &Identity, from: &Path, force: bool) -> Result<u64, Error> {
    let place = Place::of(path);
    let _lock = place.lock()?;
    let mut backup = load(from, identity)?.document;
    let unless_forced = |error| match force {
        true => Ok(None),
        false => Err(Error::PresentUnusable { source: Box::new(error) }),
    };
    let remembered = place.seen(identity).or_else(unless_forced)?;
    let present = match load(&place.vault, identity) {
        Ok(vault) => Some(vault.document.generation),
        Err(Error::Absent { .. }) => None,
        Err(error) => unless_forced(error)?,
    };
    if let Some(present) = present.filter(|present| *present > backup.generation && !force) {
        return Err(Error::PresentNewer { present, backup: backup.generation });
    }
    let metadata = fs::metadata(&place.vault).ok();
    backup.generation = backup.generation.max(present.max(remembered).unwrap_or(0));
    let generation = backup.generation + 1;
    place.store(backup, identity, metadata.as_ref())?;
    Ok(generation)
}

/// Whether `name` can stand after `vault:` in a reference.
fn is_entry_name(name: &str) -> bool {
    name.len() <= NAME_BYTES_MAX && format!("vault:{name}").parse::<Reference>().is_ok()
}

/// Reads, lets `f` change, and writes, while every other writer waits.
fn change<T>(
    path: &Path,
    identity: &Identity,
    f: impl FnOnce(&mut Document) -> Result<T, Error>,
) -> Result<T, Error> {
    let place = Place::of(path);
    let _lock = place.lock()?;
    let (mut vault, _) = place.load(identity)?;
    let made = f(&mut vault.document)?;
    place.store(vault.document, identity, Some(&vault.metadata))?;
    Ok(made)
}

/// A vault file as read.
struct Loaded {
    document: Document,
    bytes: Vec<u8>,
    metadata: Metadata,
}

fn load(path: &Path, identity: &Identity) -> Result<Loaded, Error> {
    let Content { bytes, metadata } = match file::read(path, BYTES_MAX, permissions::unwritable_by_others) {
        Err(file::Error::Absent { path }) => return Err(Error::Absent { path }),
        read => read?,
    };
    let document =
        Document::open(&bytes, identity).map_err(|source| Error::Unsound { path: path.into(), source })?;
    Ok(Loaded { document, bytes: bytes.to_vec(), metadata })
}

fn sealed(document: &Document, identity: &Identity) -> Result<Vec<u8>, Error> {
    let bytes = document.seal(identity)?;
    if bytes.len() > BYTES_MAX { Err(Error::Full) } else { Ok(bytes) }
}

/// A vault file and the two that stand beside it.
struct Place {
    vault: PathBuf,
    memory: PathBuf,
    lock: PathBuf,
}

impl Place {
    fn of(path: &Path) -> Self {
        // Behind a symbolic link: one vault has one memory and one lock, whatever it is called.
        let vault = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let beside = |suffix: &str| {
            let mut name = OsString::from(&vault);
            name.push(suffix);
            PathBuf::from(name)
        };
        Self { memory: beside(".generation"), lock: beside(".lock"), vault }
    }

    fn lock(&self) -> Result<storage::Lock, Error> {
        storage::lock(&self.lock, fs::metadata(&self.vault).ok().as_ref())
            .map_err(|source| Error::Unwritable { path: self.lock.clone(), source })
    }

    /// The vault, checked against its memory, and what that says.
    fn load(&self, identity: &Identity) -> Result<(Loaded, Option<u64>), Error> {
        // The memory is read first: a writer between the two reads can only make the vault newer. It is
        // believed last, so that the wrong identity is reported as that.
        let memory = self.memory();
        let vault = load(&self.vault, identity)?;
        let seen = memory.and_then(|memory| self.believed(memory.as_ref(), identity))?;
        let generation = vault.document.generation;
        match seen.filter(|seen| generation < *seen) {
            Some(seen) => Err(Error::Older { path: self.vault.clone(), generation, seen }),
            None => Ok((vault, seen)),
        }
    }

    fn seen(&self, identity: &Identity) -> Result<Option<u64>, Error> {
        self.believed(self.memory()?.as_ref(), identity)
    }

    fn memory(&self) -> Result<Option<generation::Memory>, Error> {
        generation::read(&self.memory).map_err(|source| Error::Memory { path: self.memory.clone(), source })
    }

    fn believed(
        &self,
        memory: Option<&generation::Memory>,
        identity: &Identity,
    ) -> Result<Option<u64>, Error> {
        memory
            .map(|memory| memory.verified(identity))
            .transpose()
            .map_err(|source| Error::Memory { path: self.memory.clone(), source })
    }

    /// Writes the next generation. The caller holds the lock.
    fn store(
        &self,
        mut document: Document,
        identity: &Identity,
        like: Option<&Metadata>,
    ) -> Result<(), Error> {
        document.generation = document.generation.saturating_add(1);
        let bytes = sealed(&document, identity)?;
        storage::replace(&self.vault, &bytes, like)
            .map_err(|source| Error::Unwritable { path: self.vault.clone(), source })?;
        self.remember(&document, &[identity], like)
    }

    fn remember(
        &self,
        document: &Document,
        identities: &[&Identity],
        like: Option<&Metadata>,
    ) -> Result<(), Error> {
        generation::write(&self.memory, document.generation, identities, like)
            .map_err(|source| Error::MemoryUnwritable { path: self.memory.clone(), source })
    }

    /// Raises the memory after a read. It waits for nobody: a writer at work raises it itself.
    fn advance(&self, generation: u64, identity: &Identity, like: &Metadata) -> io::Result<()> {
        let Some(_lock) = storage::try_lock(&self.lock, Some(like))? else { return Ok(()) };
        match self.seen(identity) {
            Ok(seen) if seen < Some(generation) => {
                generation::write(&self.memory, generation, &[identity], Some(like))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
