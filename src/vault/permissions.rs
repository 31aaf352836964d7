//! Who else may touch a file that mxgate trusts: decided on the opened file's own metadata, so that
//! the file that was checked is the file that is read.

use std::{fs::Metadata, os::unix::fs::MetadataExt};

/// Why a file is not trusted, and the command that makes it so.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refused {
    /// Group or others may write it.
    #[error("group or others may write it (mode {mode:04o}); run `chmod go-w` on it")]
    Writable {
        /// The permission bits.
        mode: u32,
    },
    /// Group or others may read it.
    #[error(
        "group or others may read it (mode {mode:04o}); run `chmod 600` on it, or mount it with mode 0400 (0440 when root owns it)"
    )]
    Readable {
        /// The permission bits.
        mode: u32,
    },
}

/// For files whose content is encrypted, or public: nobody but the owner may write.
pub(crate) fn unwritable_by_others(metadata: &Metadata) -> Result<(), Refused> {
    let mode = metadata.mode() & 0o7777;
    if mode & 0o022 == 0 { Ok(()) } else { Err(Refused::Writable { mode }) }
}

/// For identities: nobody but the owner may read or write, save that the group may read a file of
/// root's. That is how Kubernetes (`fsGroup`) and systemd (`LoadCredential=`) hand a secret to a process
/// that is not root, and the group is then one that root chose for it.
pub(crate) fn private(metadata: &Metadata) -> Result<(), Refused> {
    unwritable_by_others(metadata)?;
    private_mode(metadata.mode() & 0o7777, metadata.uid() == 0)
}

fn private_mode(mode: u32, owned_by_root: bool) -> Result<(), Refused> {
    let forbidden = if owned_by_root { 0o037 } else { 0o077 };
    if mode & forbidden == 0 { Ok(()) } else { Err(Refused::Readable { mode }) }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn a_file_that_others_may_write_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (mode, fine) in [(0o600, true), (0o644, true), (0o660, false), (0o602, false)] {
            fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
            let answer = unwritable_by_others(&file.path().metadata().unwrap());
            assert_eq!(answer, if fine { Ok(()) } else { Err(Refused::Writable { mode }) });
        }
    }

    #[test]
    fn an_identity_is_private_save_for_the_group_that_root_gave_it_to() {
        for (mode, owned_by_root, fine) in [
            (0o600, false, true),
            (0o400, true, true),
            (0o440, true, true),
            (0o440, false, false),
            (0o444, true, false),
            (0o604, false, false),
        ] {
            assert_eq!(private_mode(mode, owned_by_root).is_ok(), fine, "{mode:o} {owned_by_root}");
        }
    }
}
