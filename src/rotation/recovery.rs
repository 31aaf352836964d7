//! The recovery file: where a new key goes when MX has made it and the vault cannot be written any more.
//!
//! It stands beside the vault file and is sealed as that is ([`aside`]). Its room on the disk is taken before MX is
//! called, since a full disk is one reason why the vault cannot be written. In goes a key, out comes the same key in a
//! later run, once: whoever has sealed it into the vault removes the file.
//!
//! What must never happen: the key stands there unsealed; a file that holds a key is overwritten by another call.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use crate::vault::{
    embedded::{Identity, aside},
    permissions,
    secret::Secret,
    source::file,
};

/// More than any sealed key needs.
const ROOM_BYTES: usize = 128 * 1024;

/// Why the file could not be used. It names no value.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("it cannot be written: {0}")]
    Unwritable(#[from] io::Error),
    #[error(transparent)]
    Unreadable(#[from] file::Error),
    #[error(transparent)]
    Unsound(#[from] aside::Error),
    #[error("it holds something already; if that is not needed, remove it")]
    Taken,
}

/// Its place for an environment's key.
pub(crate) fn beside(vault: &Path, environment: &str) -> PathBuf {
    // The real file's neighbour, whatever link leads to it.
    let mut name = OsString::from(fs::canonicalize(vault).unwrap_or_else(|_| vault.to_owned()));
    name.push(format!(".recovery-{environment}"));
    PathBuf::from(name)
}

/// Takes the room that a key will need, filled with zeros.
pub(crate) fn reserve(path: &Path) -> Result<(), Error> {
    match content(path)? {
        Some(content) if content.len() < ROOM_BYTES => return Err(Error::Taken),
        Some(_) => return Ok(()),
        None => {}
    }
    let mut file = open(path)?;
    file.write_all(&vec![0; ROOM_BYTES])?;
    Ok(file.sync_all()?)
}

/// Seals `key` into it.
pub(crate) fn write(path: &Path, identity: &Identity, environment: &str, key: &Secret) -> Result<(), Error> {
    let sealed = aside::seal(identity, environment, key)?;
    let mut file = open(path)?;
    file.rewind()?;
    file.write_all(&sealed)?;
    // Shorter takes no more room. A crash before it leaves a file that opens no more.
    file.set_len(sealed.len() as u64)?;
    Ok(file.sync_all()?)
}

/// The key in it; `None` when there is no file, or only its room.
pub(crate) fn read(path: &Path, identity: &Identity, environment: &str) -> Result<Option<Secret>, Error> {
    match content(path)? {
        Some(content) if content.iter().any(|byte| *byte != 0) => {
            Ok(Some(aside::open(identity, environment, &content)?))
        }
        _ => Ok(None),
    }
}

/// Removes it, if it is there.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn content(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match file::read(path, ROOM_BYTES, permissions::unwritable_by_others) {
        Ok(content) => Ok(Some(content.bytes.to_vec())),
        Err(file::Error::Absent { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.into()).unwrap()
    }

    #[test]
    fn room_is_taken_first_and_a_key_comes_back_once_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::create(&folder.path().join("identity")).unwrap();
        let path = beside(&folder.path().join("vault.age"), "test");
        assert!(read(&path, &identity, "test").unwrap().is_none(), "there is no file");
        reserve(&path).unwrap();
        reserve(&path).unwrap();
        assert_eq!(path.metadata().unwrap().len(), ROOM_BYTES as u64);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(read(&path, &identity, "test").unwrap().is_none(), "there is only room");
        write(&path, &identity, "test", &secret("the-new-key")).unwrap();
        assert_eq!(read(&path, &identity, "test").unwrap(), Some(secret("the-new-key")));
        let raw = fs::read(&path).unwrap();
        assert!(!raw.windows(11).any(|part| part == b"the-new-key"), "it is sealed");
        assert!(matches!(reserve(&path), Err(Error::Taken)));
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(read(&path, &identity, "test").unwrap().is_none());
    }

    #[test]
    fn another_environments_file_a_damaged_one_and_a_planted_one_are_no_key() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::create(&folder.path().join("identity")).unwrap();
        let path = beside(&folder.path().join("vault.age"), "test");
        write(&path, &identity, "test", &secret("the-new-key")).unwrap();
        assert!(read(&path, &identity, "other").is_err());
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(read(&path, &identity, "test").is_err());
        // Whoever knows the recipient can encrypt to it, and has no MAC.
        let other = Identity::create(&folder.path().join("other")).unwrap();
        write(&path, &other, "test", &secret("a-planted-key")).unwrap();
        assert!(read(&path, &identity, "test").is_err());
    }
}
