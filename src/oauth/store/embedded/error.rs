//! Why a store was not opened, made, copied or restored, and what to do.

use std::{io, path::PathBuf};

use crate::{
    oauth::{
        connection::{ConnectionId, NoRandom},
        seal,
        store::Source,
    },
    vault::permissions::Refused,
};

/// Why a store was not opened, made, copied or restored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nothing is there.
    #[error("there is no store of connections at {path}; make one, or mount the volume that it is on")]
    Absent { path: PathBuf },
    /// Something is there.
    #[error("{path} exists; move it away first, it is not replaced")]
    Exists { path: PathBuf },
    /// Another process has it.
    #[error("{path} is in use by another mxgate; stop that one first, or let both use PostgreSQL")]
    InUse { path: PathBuf },
    /// Others may use it.
    #[error("{path}: {source}")]
    Untrusted { path: PathBuf, source: Refused },
    /// Others may put another file in its place.
    #[error("everybody may write the folder {path} (mode {mode:04o}); run `chmod o-w` on it")]
    Folder { path: PathBuf, mode: u32 },
    /// It is something else.
    #[error("{path} is no store of connections")]
    NotAStore { path: PathBuf },
    /// A later mxgate wrote it.
    #[error("{path} has format {found}, and this mxgate knows {known}; use the mxgate that wrote it", known = super::file::FORMAT)]
    Newer { path: PathBuf, found: u32 },
    /// A key is missing.
    #[error(
        "{path} cannot be opened, and is left as it is; name the key that is missing, also as a former one"
    )]
    WrongKey { path: PathBuf, source: seal::Error },
    /// It is no database, or a damaged one.
    #[error("{path} is damaged, or no store of connections; it is left as it is. Restore a backup")]
    Damaged { path: PathBuf, source: Source },
    /// One of its records is none.
    #[error("connection {id} in {path} cannot be read; it is left as it is. Restore a backup")]
    Record { path: PathBuf, id: ConnectionId, source: Source },
    /// A copy was made, and is not what it should be.
    #[error("{path} was written, and does not read as it was written; do not rely on it")]
    BackupDiffers { path: PathBuf },
    /// It could not be read.
    #[error("{path} could not be read")]
    Unreadable { path: PathBuf, source: io::Error },
    /// It could not be written.
    #[error("{path} could not be written")]
    Unwritable { path: PathBuf, source: io::Error },
    /// See there.
    #[error(transparent)]
    NoRandom(#[from] NoRandom),
}
