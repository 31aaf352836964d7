//! Whole small files: opened once, checked on the opened file, bounded, into a buffer that is wiped.
//!
//! `Files` is the source behind `file:/PATH`; a volume that hangs holds up a thread of its own and nothing else.

use std::{
    fs::{Metadata, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use zeroize::Zeroizing;

use super::{Document, Reading, Reason, Source};
use crate::{
    blocking::on_file,
    vault::permissions::{self, Refused},
};

/// The largest file that is read as one secret or one identity, in bytes.
pub const SECRET_BYTES_MAX: usize = 64 * 1024;

/// How long a volume may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Files that are secrets, or hold them as fields.
#[derive(Debug)]
pub(in crate::vault) struct Files;

impl Source for Files {
    fn read<'a>(&'a self, place: &'a str) -> Reading<'a, Document> {
        let path = PathBuf::from(place);
        let read = move || read(&path, SECRET_BYTES_MAX, permissions::unwritable_by_others);
        Box::pin(async move {
            let read = on_file(Path::new(place), TIMEOUT, read).await;
            let slow = || super::Error::unreachable(Reason::Timeout, "its volume does not answer in time");
            Ok(Document { bytes: read.ok_or_else(slow)??.bytes, version: None, written: None })
        })
    }
}

impl From<Error> for super::Error {
    fn from(error: Error) -> Self {
        let reason = match &error {
            Error::Absent { .. } => return Self::Absent,
            Error::Unreadable { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Reason::Denied
            }
            Error::Unreadable { .. } | Error::NotAFile { .. } => Reason::Unreachable,
            Error::Refused { .. } => Reason::Untrusted,
            Error::TooLarge { .. } => Reason::TooLarge,
        };
        Self::unreachable(reason, error)
    }
}

/// Why a file was not read. It holds paths, never content.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such file.
    #[error("{} does not exist", .path.display())]
    Absent {
        /// The file.
        path: PathBuf,
    },
    /// It could not be read now.
    #[error("{} could not be read", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others could change or read it.
    #[error("{} is refused", .path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Which, and what to do.
        source: Refused,
    },
    /// A folder, a pipe or a device.
    #[error("{} is not a regular file", .path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// Larger than this kind of file ever is.
    #[error("{} is larger than {max} bytes", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bound.
        max: usize,
    },
}

/// A file's content and what was known about it when it was read.
pub(crate) struct Content {
    pub(crate) bytes: Zeroizing<Vec<u8>>,
    pub(crate) metadata: Metadata,
}

/// Reads a file of at most `max` bytes whose metadata pass `check`.
pub(crate) fn read(
    path: &Path,
    max: usize,
    check: fn(&Metadata) -> Result<(), Refused>,
) -> Result<Content, Error> {
    let unreadable = |source| Error::Unreadable { path: path.into(), source };
    // Without NONBLOCK, opening a pipe would wait for a writer.
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::Absent { path: path.into() });
        }
        Err(error) => return Err(unreadable(error)),
    };
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(Error::NotAFile { path: path.into() });
    }
    check(&metadata).map_err(|source| Error::Refused { path: path.into(), source })?;
    let bytes = read_bounded(file, max)
        .map_err(unreadable)?
        .ok_or_else(|| Error::TooLarge { path: path.into(), max })?;
    Ok(Content { bytes, metadata })
}

/// Everything that `input` holds, or `None` when that is more than `max` bytes.
///
/// # Errors
/// What the system said.
pub fn read_bounded(input: impl Read, max: usize) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    // One allocation that never grows: growing would leave an unwiped copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(max + 1));
    input.take(max as u64 + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() <= max).then_some(bytes))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::vault::permissions;

    fn attempt(path: &Path) -> Result<Content, Error> {
        read(path, 16, permissions::unwritable_by_others)
    }

    #[test]
    fn a_file_at_the_bound_is_read_and_one_byte_more_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        fs::write(&path, [b'x'; 16]).unwrap();
        assert_eq!(attempt(&path).unwrap().bytes.len(), 16);
        fs::write(&path, [b'x'; 17]).unwrap();
        assert!(matches!(attempt(&path), Err(Error::TooLarge { max: 16, .. })));
    }

    #[test]
    fn the_buffer_does_not_grow() {
        let bytes = read_bounded(&[b'x'; 16][..], 16).unwrap().unwrap();
        assert_eq!(bytes.capacity(), 17);
    }

    #[test]
    fn absent_unreadable_and_refused_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        assert!(matches!(attempt(&path), Err(Error::Absent { .. })));
        assert!(matches!(attempt(folder.path()), Err(Error::NotAFile { .. })));
        let below_a_file = folder.path().join("g");
        fs::write(&below_a_file, b"x").unwrap();
        assert!(matches!(attempt(&below_a_file.join("h")), Err(Error::Unreadable { .. })));
        fs::write(&path, b"x").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o622)).unwrap();
        assert!(matches!(attempt(&path), Err(Error::Refused { .. })));
    }

    #[test]
    fn a_pipe_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        let mode = rustix::fs::Mode::from(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(matches!(attempt(&path), Err(Error::NotAFile { .. })));
    }
}
