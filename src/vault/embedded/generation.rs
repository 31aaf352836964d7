//! The last generation that was seen of a vault, and its author, kept beside it in `<vault>.generation`.
//!
//! A vault file that somebody put back from yesterday is genuine: its MAC is right, and it holds the key
//! that was rotated away. One that a removed recipient wrote has a right MAC too, under the author key that
//! was renewed because of it. Only something outside the file tells. This one is a line of JSON with MACs of
//! its own (by the author, and by the identity that wrote it), so it cannot be planted or lowered by somebody
//! who cannot open the vault. It protects from a vault that alone was put back (a careless copy, a restored
//! backup of one file, somebody who may write that file only). It does not protect from somebody who may
//! delete or put back both files: a missing file is accepted, with a notice, since every vault has a first
//! time. A running gateway also keeps both in its own memory, out of reach of such people.

use std::{fs::Metadata, io, path::Path};

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Serialize};

use super::{
    author::{AuthorId, Authors},
    identity::Identity,
};
use crate::{
    storage,
    vault::{permissions, source::file},
};

const FORMAT: &str = "mxgate-vault-generation";
/// Without an author, beside a vault of format 1.
const VERSION_1: u64 = 1;
const VERSION: u64 = 2;
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
    /// No MAC in it is of this vault's authors, or of this identity.
    #[error(
        "its MAC is wrong: it was not written by a holder of this vault; if the vault was replaced by another one on purpose, remove it"
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    author: Option<String>,
    macs: Vec<String>,
}

/// What was seen, believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) generation: u64,
    /// Whether the author of that time is among those of the vault at hand.
    pub(super) is_same_vault: bool,
}

/// Reads the file; `None` when there is none yet.
pub(super) fn read(path: &Path) -> Result<Option<LastSeen>, Error> {
    let content = match file::read(path, BYTES_MAX, permissions::unwritable_by_others) {
        Ok(content) => content,
        Err(file::Error::Absent { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let last_seen: LastSeen = serde_json::from_slice(&content.bytes).map_err(|_| Error::Damaged)?;
    let version = if last_seen.author.is_some() { VERSION } else { VERSION_1 };
    if last_seen.format == FORMAT && last_seen.version == version {
        Ok(Some(last_seen))
    } else {
        Err(Error::Damaged)
    }
}

impl LastSeen {
    /// What it says, when a holder of the vault with these `authors` wrote it, or `identity` did.
    pub(super) fn verified(&self, authors: &Authors, identity: &Identity) -> Result<Seen, Error> {
        let message = message(self.generation, self.author.as_deref());
        let macs: Vec<_> = self.macs.iter().filter_map(|mac| BASE64.decode(mac).ok()).collect();
        let own = identity.macs().map(|macs| &macs.generation).into_iter();
        let mut keys = own.chain(authors.iter().map(|author| author.generation_mac()));
        if !keys.any(|key| macs.iter().any(|mac| hmac::verify(key, &message, mac).is_ok())) {
            return Err(Error::Forged);
        }
        let author = self.author.as_ref().map(|author| author.parse::<AuthorId>());
        let is_same_vault = match author {
            Some(author) => authors.find(author.map_err(|_| Error::Damaged)?).is_some(),
            None => true,
        };
        Ok(Seen { generation: self.generation, is_same_vault })
    }
}

/// Writes the file, to be believed by every holder of the vault, and by `identity` even when the author has
/// become another one. A vault without authors is of format 1.
pub(super) fn write(
    path: &Path,
    generation: u64,
    authors: &Authors,
    identity: &Identity,
    like: Option<&Metadata>,
) -> io::Result<()> {
    let author = authors.present().map(|author| author.id().to_string());
    let message = message(generation, author.as_deref());
    let by_author = authors.present().map(|author| author.generation_mac());
    let by_identity = identity.macs().map(|macs| &macs.generation);
    let keys = by_author.into_iter().chain(by_identity);
    let macs = keys.map(|key| BASE64.encode(hmac::sign(key, &message))).collect();
    let version = if author.is_some() { VERSION } else { VERSION_1 };
    let last_seen = LastSeen { format: FORMAT.into(), version, generation, author, macs };
    let mut json = serde_json::to_vec(&last_seen)?;
    json.push(b'\n');
    storage::replace(path, &json, like)
}

fn message(generation: u64, author: Option<&str>) -> Vec<u8> {
    match author {
        None => format!("{FORMAT} {VERSION_1} {generation}"),
        Some(author) => format!("{FORMAT} {VERSION} {generation} {author}"),
    }
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn authors(length: usize) -> Authors {
        let mut authors = Authors::default();
        (0..length).for_each(|_| authors.renew().unwrap());
        authors
    }

    fn identity(folder: &tempfile::TempDir, name: &str) -> Identity {
        Identity::create(&folder.path().join(name)).unwrap()
    }

    #[test]
    fn what_was_written_is_believed_by_every_holder_of_the_vault_and_by_its_writer() {
        let folder = tempfile::tempdir().unwrap();
        let (writer, other) = (identity(&folder, "writer"), identity(&folder, "other"));
        let path = folder.path().join("vault.age.generation");
        assert!(read(&path).unwrap().is_none());
        let mut authors = authors(1);
        write(&path, 7, &authors, &writer, None).unwrap();
        let last_seen = read(&path).unwrap().unwrap();
        let same = |is_same_vault| Seen { generation: 7, is_same_vault };
        assert_eq!(last_seen.verified(&authors, &other).unwrap(), same(true));
        authors.renew().unwrap();
        assert_eq!(last_seen.verified(&authors, &other).unwrap(), same(true), "a successor follows");
        let foreign = self::authors(1);
        assert_eq!(last_seen.verified(&foreign, &writer).unwrap(), same(false));
        assert!(matches!(last_seen.verified(&foreign, &other), Err(Error::Forged)));
    }

    #[test]
    fn beside_a_vault_of_format_1_only_its_identity_believes_it() {
        let folder = tempfile::tempdir().unwrap();
        let (writer, other) = (identity(&folder, "writer"), identity(&folder, "other"));
        let path = folder.path().join("vault.age.generation");
        write(&path, 7, &Authors::default(), &writer, None).unwrap();
        assert!(fs::read_to_string(&path).unwrap().contains("\"version\":1,\"generation\":7,\"macs\""));
        let last_seen = read(&path).unwrap().unwrap();
        assert!(last_seen.verified(&authors(1), &writer).unwrap().is_same_vault);
        assert!(matches!(last_seen.verified(&authors(1), &other), Err(Error::Forged)));
    }

    #[test]
    fn a_lowered_changed_or_unreadable_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (writer, authors) = (identity(&folder, "writer"), authors(1));
        let path = folder.path().join("vault.age.generation");
        write(&path, 7, &authors, &writer, None).unwrap();
        let genuine = fs::read_to_string(&path).unwrap();
        let author = authors.present().unwrap().id().to_string();
        for (from, to) in [("\"generation\":7", "\"generation\":6"), (&author[..4], "zzzz")] {
            assert!(genuine.contains(from));
            fs::write(&path, genuine.replacen(from, to, 1)).unwrap();
            let read = read(&path).unwrap().unwrap();
            assert!(matches!(read.verified(&authors, &writer), Err(Error::Forged)), "{from}");
        }
        for other in ["{}", &genuine.replace("\"version\":2", "\"version\":1")] {
            fs::write(&path, other).unwrap();
            assert!(matches!(read(&path), Err(Error::Damaged)));
        }
    }
}
