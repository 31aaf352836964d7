//! Why a vault was not used, each with what to do about it.

use std::{fmt, io, path::PathBuf};

use super::{BYTES_MAX, Fault, NAME_BYTES_MAX, SealError, author::NoKey, generation, member::MEMBERS_MAX};
use crate::vault::source::file;

/// Why a vault was not opened or not changed. The vault file is then as it was, unless said otherwise.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No file is there.
    #[error("there is no vault at {}; `mxgate vault init --config FILE` makes one", .path.display())]
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
        .path.display(), .last_seen.display()
    )]
    Leftover {
        /// The vault.
        path: PathBuf,
        /// The file with the last seen generation.
        last_seen: PathBuf,
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
    /// The file with the last seen generation cannot be used.
    #[error("the last seen generation cannot be told from {}", .path.display())]
    LastSeen {
        /// The file with the last seen generation.
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
        "say which host {name} may be sent to: with --host or --environment, or let its name begin with sandbox/ or production/"
    )]
    NoHosts {
        /// The name.
        name: String,
    },
    /// A host that could not be sealed.
    #[error("{host} is no host: a name or an address in lower case, without scheme, port, path or final dot")]
    BadHost {
        /// As given.
        host: String,
    },
    /// Somebody else has written the vault since it was read.
    #[error("the vault has generation {found}, and not {expected} any more: somebody changed it meanwhile")]
    Moved {
        /// What the change was meant for.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// Not the vault of before, and none that followed it.
    #[error(
        "the vault {} is not used: its author is not the one that was seen here before, nor appointed by it; if that is intended, use `mxgate vault restore --force`",
        .path.display()
    )]
    OtherVault {
        /// The vault.
        path: PathBuf,
    },
    /// Rekeyed to itself.
    #[error("the new identity is the present one")]
    SameIdentity,
    /// Added twice.
    #[error("{recipient} opens the vault already")]
    AlreadyRecipient {
        /// Its public half.
        recipient: String,
    },
    /// Removed without being there.
    #[error("{recipient} is no recipient of the vault; `mxgate vault recipients` shows them")]
    NoRecipient {
        /// Its public half.
        recipient: String,
    },
    /// Nobody would be left who could be asked.
    #[error(
        "that is the identity in use: open the vault with another one to remove it, or replace it with --new-identity"
    )]
    RemovesInUse,
    /// More than anybody needs.
    #[error("the vault would have more than {MEMBERS_MAX} recipients")]
    TooManyRecipients,
    /// An ssh key has nothing to prove with.
    #[error("an ssh key cannot accept an author; give --author each time it is used")]
    CannotAccept,
    /// A recovery file is not used.
    #[error("the recovery file {} is not used", .path.display())]
    RecoveryFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Fault,
    },
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
    /// HKDF or the random numbers failed inside aws-lc.
    #[error(transparent)]
    NoKey(#[from] NoKey),
    /// It could not be written.
    #[error("{} could not be written", .path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The vault was written, and its generation was not noted.
    #[error("the vault was changed, but {} could not be written", .path.display())]
    LastSeenUnwritable {
        /// The file with the last seen generation.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Something an operator should know although the vault was opened.
#[derive(Debug)]
pub enum Notice {
    /// No generation was noted here before.
    FirstUse {
        /// The vault.
        path: PathBuf,
        /// Its generation.
        generation: u64,
    },
    /// The generation could not be noted, as on a read-only mount.
    NotKept {
        /// The file with the last seen generation.
        path: PathBuf,
        /// The vault's generation.
        generation: u64,
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
            Self::NotKept { path, generation, source } => write!(
                f,
                "the vault's generation {generation} could not be noted in {} ({source}); an older vault would be noticed by this process only",
                path.display()
            ),
        }
    }
}
