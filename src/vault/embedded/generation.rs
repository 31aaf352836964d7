//! The last generation that was seen of a vault, kept beside it in `<vault>.generation`.
//!
//! A vault file that somebody put back from yesterday is genuine: its MAC is right, and it holds the key
//! that was rotated away. Only something outside the file tells. This one is a line of JSON with a MAC of
//! its own, so it cannot be planted or lowered by somebody without the identity. It protects from a vault
//! that alone was put back (a careless copy, a restored backup of one file, somebody who may write that
//! file only). It does not protect from somebody who may delete or put back both files: a missing file
//! is accepted, with a notice, since every vault has a first time. A running gateway also keeps the number
//! in its own memory, out of reach of both.

use std::{fs::Metadata, io, path::Path};

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Serialize};

use super::identity::Identity;
use crate::{
    storage,
    vault::{permissions, source::file},
};

const FORMAT: &str = "mxgate-vault-generation";
const VERSION: u64 = 1;
const BYTES_MAX: usize = 4096;

/// Why the noted generation is not believed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file was not read.
    #[error(transparent)]
    File(#[from] file::Error),
    /// No JSON of ours.
    #[error("it is damaged, or of another format; if you know why, remove it")]
    Damaged,
    /// No MAC in it is this identity's.
    #[error(
        "its MAC is wrong: it was not written by a holder of this identity; if the vault was replaced or rekeyed elsewhere on purpose, remove it"
    )]
    Forged,
}

/// As read, not yet believed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LastSeen {
    format: String,
    version: u64,
    generation: u64,
    /// One, or during `rekey` two: a crash between its two writes leaves a file that both the old and
    /// the new identity believe.
    macs: Vec<String>,
}

/// Reads the file; `None` when there is none yet.
pub(super) fn read(path: &Path) -> Result<Option<LastSeen>, Error> {
    let content = match file::read(path, BYTES_MAX, permissions::unwritable_by_others) {
        Ok(content) => content,
        Err(file::Error::Absent { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let last_seen: LastSeen = serde_json::from_slice(&content.bytes).map_err(|_| Error::Damaged)?;
    if last_seen.format == FORMAT && last_seen.version == VERSION {
        Ok(Some(last_seen))
    } else {
        Err(Error::Damaged)
    }
}

impl LastSeen {
    /// The generation, when `identity` wrote it.
    pub(super) fn verified(&self, identity: &Identity) -> Result<u64, Error> {
        let message = message(self.generation);
        let right = |mac: &String| {
            BASE64
                .decode(mac)
                .is_ok_and(|mac| hmac::verify(identity.generation_mac(), &message, &mac).is_ok())
        };
        if self.macs.iter().any(right) { Ok(self.generation) } else { Err(Error::Forged) }
    }
}

/// Writes the file, to be believed by each of `identities`.
pub(super) fn write(
    path: &Path,
    generation: u64,
    identities: &[&Identity],
    like: Option<&Metadata>,
) -> io::Result<()> {
    let message = message(generation);
    let mac = |identity: &&Identity| BASE64.encode(hmac::sign(identity.generation_mac(), &message));
    let macs = identities.iter().map(mac).collect();
    let last_seen = LastSeen { format: FORMAT.into(), version: VERSION, generation, macs };
    let mut json = serde_json::to_vec(&last_seen)?;
    json.push(b'\n');
    storage::replace(path, &json, like)
}

fn message(generation: u64) -> Vec<u8> {
    format!("{FORMAT} {VERSION} {generation}").into_bytes()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_was_written_is_believed_by_its_identities_only() {
        let folder = tempfile::tempdir().unwrap();
        let identity = |name| Identity::create(&folder.path().join(name)).unwrap();
        let (old, new, other) = (identity("old"), identity("new"), identity("other"));
        let path = folder.path().join("vault.age.generation");
        assert!(read(&path).unwrap().is_none());
        write(&path, 7, &[&old, &new], None).unwrap();
        let last_seen = read(&path).unwrap().unwrap();
        assert_eq!(last_seen.verified(&old).unwrap(), 7);
        assert_eq!(last_seen.verified(&new).unwrap(), 7);
        assert!(matches!(last_seen.verified(&other), Err(Error::Forged)));
    }

    #[test]
    fn a_lowered_or_unreadable_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::create(&folder.path().join("identity")).unwrap();
        let path = folder.path().join("vault.age.generation");
        write(&path, 7, &[&identity], None).unwrap();
        let lowered = fs::read_to_string(&path).unwrap().replace("\"generation\":7", "\"generation\":6");
        fs::write(&path, lowered).unwrap();
        assert!(matches!(read(&path).unwrap().unwrap().verified(&identity), Err(Error::Forged)));
        fs::write(&path, "{}").unwrap();
        assert!(matches!(read(&path), Err(Error::Damaged)));
    }
}
