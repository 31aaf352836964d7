//! Who may write a file that this process trusts.
//!
//! Whoever can write the configuration, the vault or its identity decides what the gateway does, so a
//! file that others may write, or that another user owns, is refused.

use std::{
    fs::{File, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

/// Why a file is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum Untrusted {
    /// Its owner and mode could not be read.
    #[error("cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// Another user owns it and could change it at any time.
    #[error("belongs to user {owner}, not to root or to user {expected}, who runs mxgate; chown it")]
    Owner {
        /// The owner's user id.
        owner: u32,
        /// This process's effective user id.
        expected: u32,
    },
    /// Its mode lets group or others write.
    #[error("may be written by group or others (mode {mode:04o}); chmod go-w it")]
    Writable {
        /// The permission bits.
        mode: u32,
    },
}

/// Checks owner and mode of what `path` leads to, symbolic links followed. A directory with the sticky
/// bit, such as `/tmp`, may be writable for all: its users cannot replace each other's files. Parent
/// directories are not checked.
///
/// # Errors
/// [`Untrusted`] says what to change.
pub fn check(path: &Path) -> Result<(), Untrusted> {
    judge(&path.metadata()?)
}

/// The same for a file that is open already, so that what was checked is what is read.
///
/// # Errors
/// [`Untrusted`] says what to change.
pub fn check_open(file: &File) -> Result<(), Untrusted> {
    judge(&file.metadata()?)
}

fn judge(metadata: &Metadata) -> Result<(), Untrusted> {
    let this_user = rustix::process::geteuid().as_raw();
    only_trusted_users(metadata.uid(), metadata.mode() & 0o7777, metadata.is_dir(), this_user)
}

/// Whether nobody but root and `this_user` may change what has this owner and mode.
fn only_trusted_users(owner: u32, mode: u32, directory: bool, this_user: u32) -> Result<(), Untrusted> {
    if owner != 0 && owner != this_user {
        return Err(Untrusted::Owner { owner, expected: this_user });
    }
    let sticky_directory = directory && mode & 0o1000 != 0;
    if mode & 0o022 != 0 && !sticky_directory {
        return Err(Untrusted::Writable { mode });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn with_mode(path: &Path, mode: u32) -> Result<(), Untrusted> {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        check(path)
    }

    #[test]
    fn only_the_owner_may_write() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for mode in [0o600, 0o644, 0o440, 0o755] {
            assert!(with_mode(file.path(), mode).is_ok(), "{mode:o}");
            assert!(check_open(file.as_file()).is_ok(), "{mode:o}");
        }
        for mode in [0o620, 0o602, 0o664, 0o1666] {
            assert!(matches!(with_mode(file.path(), mode), Err(Untrusted::Writable { .. })), "{mode:o}");
            assert!(check_open(file.as_file()).is_err(), "{mode:o}");
        }
    }

    #[test]
    fn a_shared_directory_needs_the_sticky_bit() {
        let directory = tempfile::tempdir().unwrap();
        assert!(with_mode(directory.path(), 0o1777).is_ok());
        assert!(with_mode(directory.path(), 0o777).is_err());
    }

    #[test]
    fn root_and_this_user_may_own_it_and_nobody_else() {
        for owner in [0, 1000] {
            assert!(only_trusted_users(owner, 0o600, false, 1000).is_ok(), "{owner}");
        }
        for (owner, this_user) in [(1001, 1000), (1000, 0)] {
            let refused = only_trusted_users(owner, 0o600, false, this_user);
            assert!(matches!(refused, Err(Untrusted::Owner { .. })), "{owner}");
        }
    }

    #[test]
    fn an_absent_file_says_so() {
        assert!(matches!(check(Path::new("/nonexistent/file")), Err(Untrusted::Unreadable(_))));
    }
}
