//! Recovery files: one secret that could not be written into its vault, sealed for all who open that.
//!
//! ```json
//! {"format":"mxgate-vault-recovery","version":1,"author":"AUTHOR ID","entry":{...},"mac":"BASE64"}
//! ```
//! `entry` is as in a vault, and `mac` is by the vault's author, over the rest as compact JSON. It is made
//! from what was known when the vault was last opened, so that it can be made when the vault is gone or
//! its disk is full. Beside a vault of format 1, `author` is absent and the MAC is the identity's own.

use std::{io, path::Path, sync::Arc, time::SystemTime};

use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};

use super::{
    Entries, Entry, Error, Fault, Identity, Opened,
    author::AuthorId,
    change,
    document::{
        Document, NOT_A_VAULT, SealError, decrypt, encrypt, timestamp,
        wire::{self, WireEntry, not_a_vault},
    },
    hosts_for,
    member::Member,
    place,
};
use crate::{storage, vault::secret::Secret};

const FORMAT: &str = "mxgate-vault-recovery";
const VERSION: u64 = 1;

/// What a recovery file is sealed with.
#[derive(Debug)]
pub(super) struct Sealing {
    mac: Option<hmac::Key>,
    author: Option<AuthorId>,
}

impl Sealing {
    pub(super) fn of(document: &Document, identity: &Identity) -> Self {
        match document.authors.present() {
            Some(author) => Self { mac: Some(author.aside_mac().clone()), author: Some(author.id()) },
            None => Self { mac: identity.macs().map(|macs| macs.aside.clone()), author: None },
        }
    }

    fn seal(&self, members: &[Member], name: &str, entry: &Entry) -> Result<Vec<u8>, SealError> {
        let (value, author) = (wire::encode(&entry.secret), self.author.map(|author| author.to_string()));
        let mut wire = Wire {
            format: FORMAT,
            version: VERSION,
            author: author.as_deref(),
            entry: WireEntry::new(name, entry, &value),
            mac: None,
        };
        let mac = self.mac.as_ref().map(|key| wire::mac(&wire, key)).transpose()?;
        wire.mac = mac.as_deref();
        encrypt(members.iter(), &wire::to_json(&wire)?)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire<'a> {
    format: &'a str,
    version: u64,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    author: Option<&'a str>,
    entry: WireEntry<'a>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    mac: Option<&'a str>,
}

impl Opened {
    /// Seals `secret` for everybody who opens this vault into the new file `to`, mode 0600, for
    /// [`recover`] to put it under `name`, for the hosts of [`hosts_for`]. It reads nothing, and needs
    /// nothing of the vault's file.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::BadName`], [`Error::NoHosts`], or why it could not be sealed or written.
    pub fn seal_aside(
        &self,
        to: &Path,
        name: &str,
        secret: Arc<Secret>,
        hosts: Option<Vec<String>>,
    ) -> Result<(), Error> {
        let hosts = hosts_for(&self.entries, name, hosts)?;
        let now = timestamp(SystemTime::now());
        let entry = Entry { secret, version: 1, created: now.clone(), updated: now, hosts };
        let bytes = self.sealing.seal(&self.members, name, &entry)?;
        storage::create(to, &bytes).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => Error::Exists { path: to.into() },
            _ => Error::Unwritable { path: to.into(), source },
        })
    }
}

/// Puts what [`Opened::seal_aside`] saved into the vault, under its own name or `name`, and answers with
/// both. The recovery file stays.
///
/// # Errors
/// Why the recovery file is not used, or why the vault could not be opened or written.
pub fn recover(
    path: &Path,
    identity: &Identity,
    from: &Path,
    name: Option<&str>,
) -> Result<(String, Entry), Error> {
    let sealed = place::read(from)?.bytes;
    change(path, identity, |document| {
        let (saved_as, saved) = open(&sealed, document, identity)
            .map_err(|source| Error::RecoveryFile { path: from.into(), source })?;
        let name = name.map_or(saved_as, str::to_owned);
        let mut entries = Entries::of(&mut document.entries);
        let entry = entries.put(&name, saved.secret, Some(saved.hosts))?.clone();
        Ok((name, entry))
    })
}

/// What [`Opened::seal_aside`] saved, and under which name; nothing is changed.
///
/// # Errors
/// Why the recovery file is not used, or why the vault could not be opened.
pub fn saved(path: &Path, identity: &Identity, from: &Path) -> Result<(String, Entry), Error> {
    let sealed = place::read(from)?.bytes;
    let (vault, _) = place::Place::of(path).load(identity)?;
    open(&sealed, &vault.document, identity)
        .map_err(|source| Error::RecoveryFile { path: from.into(), source })
}

fn open(sealed: &[u8], document: &Document, identity: &Identity) -> Result<(String, Entry), Fault> {
    let plaintext = decrypt(sealed, identity)?;
    match wire::version(&plaintext, FORMAT)? {
        VERSION => {}
        found if found > VERSION => return Err(Fault::NewerFormat { found }),
        _ => return Err(NOT_A_VAULT),
    }
    let mut wire: Wire<'_> = serde_json::from_slice(&plaintext).map_err(not_a_vault)?;
    let mac = wire.mac.take();
    let key = match wire.author {
        Some(author) => {
            let author = author.parse().ok().and_then(|id| document.authors.find(id));
            author.ok_or(Fault::OtherAuthor)?.aside_mac()
        }
        None => &identity.macs().ok_or(Fault::Forged)?.aside,
    };
    wire::verify(&wire, mac, key)?;
    Ok((wire.entry.name.to_owned(), wire.entry.read().ok_or(NOT_A_VAULT)?))
}
