//! The recovery file: where a new key goes when MX has made it and the vault cannot be written any more.
//!
//! It stands beside the vault file and is sealed as that is, for all who open it ([`Opened::seal_aside`]);
//! `mxgate vault recover` takes it in as well. Its room on the disk is taken before MX is called, since a full disk is one
//! reason why a vault cannot be written. In goes a key, out comes the same key in a later run, until it is removed.
//!
//! What must never happen: the key stands there unsealed; a file that holds a key is overwritten.
//!
//! [`Opened::seal_aside`]: crate::vault::embedded::Opened::seal_aside

use std::{
    ffi::OsString,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// More than any sealed key needs.
const ROOM_BYTES: usize = 128 * 1024;

/// Its place for an environment's key.
pub(crate) fn beside(vault: &Path, environment: &str) -> PathBuf {
    // The real file's neighbour, whatever link leads to it.
    let vault = fs::canonicalize(vault).unwrap_or_else(|_| vault.to_owned());
    with(&vault, &format!(".recovery-{environment}"))
}

/// Takes the room that a sealed key will need.
pub(crate) fn reserve(file: &Path) -> io::Result<()> {
    if file.exists() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it holds a key already"));
    }
    let mut room =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(room_of(file))?;
    room.write_all(&vec![0; ROOM_BYTES])?;
    room.sync_all()
}

/// Gives the room back, to be used at once.
pub(crate) fn give_back(file: &Path) -> io::Result<()> {
    remove(&room_of(file))
}

/// Removes the key and the room, as far as they are there.
pub(crate) fn forget(file: &Path) -> io::Result<()> {
    remove(file)?;
    give_back(file)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn room_of(file: &Path) -> PathBuf {
    with(file, ".room")
}

fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn room_is_taken_beside_the_file_and_a_key_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let file = beside(&folder.path().join("vault.age"), "test");
        assert!(file.ends_with("vault.age.recovery-test"));
        reserve(&file).unwrap();
        reserve(&file).unwrap();
        let room = room_of(&file).metadata().unwrap();
        assert_eq!((room.len(), room.permissions().mode() & 0o777), (ROOM_BYTES as u64, 0o600));
        assert!(!file.exists());
        give_back(&file).unwrap();
        fs::write(&file, "sealed").unwrap();
        assert_eq!(reserve(&file).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&file).unwrap(), b"sealed");
        forget(&file).unwrap();
        forget(&file).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
