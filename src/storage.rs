//! Files that are written whole or not at all: a temporary file in the same folder, synced, renamed
//! over the old one, and the folder synced. A crash at any moment leaves the old file or the new,
//! and perhaps a `.mxgate-...` file beside it, as private as the one it was to become, that may be removed.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, fchown},
    path::Path,
};

/// The folder that a file would be in, when it is not there.
pub(crate) fn missing_folder(path: &Path) -> Option<&Path> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty())?;
    matches!(folder.try_exists(), Ok(false)).then_some(folder)
}

/// Writes a new file with mode 0600, and fails when anything has that name already.
pub(crate) fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    create_with(path, |mut file| file.write_all(bytes))
}

/// The same, for content that is written in place by `fill`. When that fails, nothing is left.
pub(crate) fn create_with<E: From<io::Error>>(
    path: &Path,
    fill: impl FnOnce(&File) -> Result<(), E>,
) -> Result<(), E> {
    let file = temporary(path, None, fill)?;
    file.persist_noclobber(path).map_err(|error| error.error)?;
    Ok(sync_folder(path)?)
}

/// Replaces a file, or makes it. Mode, owner and group are those of `like`, so that an operator who edits
/// the gateway's vault as root does not lock the gateway out; without `like` the mode is 0600.
pub(crate) fn replace(path: &Path, bytes: &[u8], like: Option<&Metadata>) -> io::Result<()> {
    replace_unless(path, bytes, like, || Ok(()))
}

fn replace_unless(
    path: &Path,
    bytes: &[u8],
    like: Option<&Metadata>,
    crash: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    let file = temporary(path, like, |mut file| file.write_all(bytes))?;
    crash()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_folder(path)
}

/// Held until it is dropped, or its process ends in whatever way. It is a file of its own, because the
/// file that it protects is another one after each write.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing would do, had not a process that is just being started a copy of the descriptor until it runs.
        let _ = self.0.unlock();
    }
}

/// Waits until no other process or thread holds the lock file.
pub(crate) fn lock(path: &Path, like: Option<&Metadata>) -> io::Result<Lock> {
    let file = open_lock(path, like)?;
    file.lock()?;
    Ok(Lock(file))
}

/// As [`lock`], but never waits: `None` when somebody else holds it.
pub(crate) fn try_lock(path: &Path, like: Option<&Metadata>) -> io::Result<Option<Lock>> {
    let file = open_lock(path, like)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Lock(file))),
        Err(std::fs::TryLockError::WouldBlock) => Ok(None),
        Err(std::fs::TryLockError::Error(error)) => Err(error),
    }
}

fn open_lock(path: &Path, like: Option<&Metadata>) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    match options.clone().create_new(true).open(path) {
        Ok(file) => {
            own_like(&file, like)?;
            Ok(file)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options.open(path),
        Err(error) => Err(error),
    }
}

fn temporary<E: From<io::Error>>(
    path: &Path,
    like: Option<&Metadata>,
    fill: impl FnOnce(&File) -> Result<(), E>,
) -> Result<tempfile::NamedTempFile, E> {
    let file = tempfile::Builder::new().prefix(".mxgate-").tempfile_in(folder(path))?;
    fill(file.as_file())?;
    own_like(file.as_file(), like)?;
    if let Some(like) = like {
        file.as_file().set_permissions(like.permissions())?;
    }
    file.as_file().sync_all()?;
    Ok(file)
}

fn own_like(file: &File, like: Option<&Metadata>) -> io::Result<()> {
    let Some(like) = like else { return Ok(()) };
    let made = file.metadata()?;
    if (made.uid(), made.gid()) == (like.uid(), like.gid()) {
        return Ok(());
    }
    fchown(file, Some(like.uid()), Some(like.gid()))
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}

/// Where `path` is.
pub(crate) fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_crash_before_the_rename_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        replace(&path, b"old", None).unwrap();
        let crash = replace_unless(&path, b"new", None, || {
            // At this moment the new content is complete on disk, under another name.
            assert_eq!(names(folder.path()).len(), 2);
            Err(io::Error::other("injected"))
        });
        assert!(crash.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["f"]);
        replace(&path, b"new", None).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn a_new_file_is_private_and_never_replaces_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        create(&path, b"first").unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o600);
        assert_eq!(create(&path, b"second").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(names(folder.path()), ["f"]);
        let failed = create_with(&folder.path().join("g"), |mut file| {
            file.write_all(b"half")?;
            Err(io::Error::other("injected"))
        });
        assert!(failed.is_err());
        assert_eq!(names(folder.path()), ["f"]);
    }

    #[test]
    fn a_replaced_file_keeps_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        create(&path, b"first").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        replace(&path, b"second", Some(&path.metadata().unwrap())).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o640);
    }

    #[test]
    fn a_lock_keeps_others_out_until_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = lock(&path, None).unwrap();
        assert!(try_lock(&path, None).unwrap().is_none());
        let copy = held.0.try_clone().unwrap();
        drop(held);
        assert!(try_lock(&path, None).unwrap().is_some());
        drop(copy);
    }
}
