//! Where a vault is: its file, the last-seen file and the lock, and the order in which they are used.
//!
//! Whoever writes holds the lock from the read to the write, and writes the vault before the last-seen
//! file; readers read the two the other way round. So a reader never takes a vault that is being written
//! for an older one, and a crash between the two writes leaves a vault that opens.

use std::{
    ffi::OsString,
    fs::{self, Metadata},
    io,
    path::{Path, PathBuf},
};

use super::{BYTES_MAX, Error, author::Authors, document::Document, generation, identity::Identity};
use crate::{
    storage,
    vault::{
        permissions,
        source::file::{self, Content},
    },
};

/// A vault file and the two that stand beside it.
pub(super) struct Place {
    pub(super) vault: PathBuf,
    pub(super) last_seen: PathBuf,
    lock: PathBuf,
}

impl Place {
    pub(super) fn of(path: &Path) -> Self {
        // Behind a symbolic link: one vault has one last-seen file and one lock, whatever it is called.
        let vault = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let beside = |suffix: &str| {
            let mut name = OsString::from(&vault);
            name.push(suffix);
            PathBuf::from(name)
        };
        Self { last_seen: beside(".generation"), lock: beside(".lock"), vault }
    }

    pub(super) fn lock(&self) -> Result<storage::Lock, Error> {
        storage::lock(&self.lock, fs::metadata(&self.vault).ok().as_ref())
            .map_err(|source| Error::Unwritable { path: self.lock.clone(), source })
    }

    /// The vault, checked against the last seen generation and author, and that generation.
    pub(super) fn load(&self, identity: &Identity) -> Result<(Loaded, Option<u64>), Error> {
        // The last-seen file is read first: a writer between the two reads can only make the vault newer. It is
        // believed last, so that the wrong identity is reported as that.
        let last_seen = self.last_seen();
        let vault = load(&self.vault, identity)?;
        let seen = last_seen
            .and_then(|last_seen| self.believed(last_seen.as_ref(), &vault.document.authors, identity))?;
        let generation = vault.document.generation;
        match seen {
            Some(seen) if generation < seen.generation => {
                Err(Error::Older { path: self.vault.clone(), generation, seen: seen.generation })
            }
            Some(seen) if !seen.is_same_vault => Err(Error::OtherVault { path: self.vault.clone() }),
            seen => Ok((vault, seen.map(|seen| seen.generation))),
        }
    }

    /// What was seen here, believed by a holder of the vault with these `authors`.
    pub(super) fn seen(&self, authors: &Authors, identity: &Identity) -> Result<Option<u64>, Error> {
        match self.believed(self.last_seen()?.as_ref(), authors, identity)? {
            Some(seen) if !seen.is_same_vault => Err(Error::OtherVault { path: self.vault.clone() }),
            seen => Ok(seen.map(|seen| seen.generation)),
        }
    }

    fn last_seen(&self) -> Result<Option<generation::LastSeen>, Error> {
        generation::read(&self.last_seen)
            .map_err(|source| Error::LastSeen { path: self.last_seen.clone(), source })
    }

    fn believed(
        &self,
        last_seen: Option<&generation::LastSeen>,
        authors: &Authors,
        identity: &Identity,
    ) -> Result<Option<generation::Seen>, Error> {
        last_seen
            .map(|last_seen| last_seen.verified(authors, identity))
            .transpose()
            .map_err(|source| Error::LastSeen { path: self.last_seen.clone(), source })
    }

    /// Writes the next generation, accepted by each of `identities`; the first of them notes it. The caller
    /// holds the lock.
    pub(super) fn store(
        &self,
        mut document: Document,
        identities: &[&Identity],
        like: Option<&Metadata>,
    ) -> Result<Document, Error> {
        document.generation = document.generation.saturating_add(1);
        let bytes = sealed(&mut document, identities)?;
        storage::replace(&self.vault, &bytes, like)
            .map_err(|source| Error::Unwritable { path: self.vault.clone(), source })?;
        self.remember(&document, identities, like)?;
        Ok(document)
    }

    pub(super) fn remember(
        &self,
        document: &Document,
        identities: &[&Identity],
        like: Option<&Metadata>,
    ) -> Result<(), Error> {
        let Some(identity) = identities.first() else { return Ok(()) };
        generation::write(&self.last_seen, document.generation, &document.authors, identity, like)
            .map_err(|source| Error::LastSeenUnwritable { path: self.last_seen.clone(), source })
    }

    /// Notes the generation after a read, and tells whether it did. It waits for nobody: a writer at work
    /// notes its own.
    pub(super) fn advance(
        &self,
        document: &Document,
        identity: &Identity,
        like: &Metadata,
    ) -> io::Result<bool> {
        let Some(_lock) = storage::try_lock(&self.lock, Some(like))? else { return Ok(false) };
        let lower = self.seen(&document.authors, identity).is_ok_and(|seen| seen < Some(document.generation));
        if lower {
            let Document { generation, authors, .. } = document;
            generation::write(&self.last_seen, *generation, authors, identity, Some(like))?;
        }
        Ok(lower)
    }
}

/// A vault file as read.
pub(super) struct Loaded {
    pub(super) document: Document,
    pub(super) bytes: Vec<u8>,
    pub(super) metadata: Metadata,
}

pub(super) fn load(path: &Path, identity: &Identity) -> Result<Loaded, Error> {
    let Content { bytes, metadata } = read(path)?;
    let document =
        Document::open(&bytes, identity).map_err(|source| Error::Unsound { path: path.into(), source })?;
    Ok(Loaded { document, bytes: bytes.to_vec(), metadata })
}

/// The bytes of a file of ours, whatever they are.
pub(super) fn read(path: &Path) -> Result<Content, Error> {
    match file::read(path, BYTES_MAX, permissions::unwritable_by_others) {
        Err(file::Error::Absent { path }) => Err(Error::Absent { path }),
        read => Ok(read?),
    }
}

pub(super) fn sealed(document: &mut Document, identities: &[&Identity]) -> Result<Vec<u8>, Error> {
    let bytes = document.seal(identities)?;
    if bytes.len() > BYTES_MAX { Err(Error::Full) } else { Ok(bytes) }
}
