//! The plaintext of a vault file: versioned JSON with a MAC.
//!
//! ```json
//! {"format":"mxgate-vault","version":2,"generation":7,
//!  "authors":[{"key":"BASE64","successor":"BASE64"},{"key":"BASE64"}],
//!  "recipients":[{"key":"age1...","comment":"gateway","added":"2026-01-31T09:00:00Z","proof":"BASE64"}],
//!  "entries":[{"name":"production/api_key","value":"BASE64","version":2,
//!    "created":"2026-01-31T09:00:00Z","updated":"2026-02-28T09:00:00Z","hosts":["api.mx.com"]}],
//!  "mac":"BASE64"}
//! ```
//! `value` is the secret in base64 (RFC 4648, padded): a secret need not be UTF-8. `generation` rises by
//! one with each write. `authors`: see [`super::author`]; `recipients` with their proofs: see
//! [`super::member`]. `mac` is HMAC-SHA-256, under the last author's document key, over the document
//! without `mac` as compact JSON: keys in the order above, entries sorted by name, no white space outside
//! strings.
//!
//! Format 1 had one recipient and no authors: `recipients` was a list of one text, and `mac` was under that
//! identity's own document key. It is read, and becomes format 2 with the next write.
//!
//! Hazards: unknown or doubled keys are refused, so nothing is outside the MAC. Strings are borrowed from
//! the wiped plaintext, never copied; an escape inside one is refused for that reason, and mxgate writes
//! none. Faults never quote the document.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use self::wire::{Wire, Wire1, WireAuthor, WireEntry, WireMember, not_a_vault};
use super::{
    author::{Authors, NoKey},
    identity::{Identity, Trust, Undecryptable},
    member::{MEMBERS_MAX, Member, judge},
};
use crate::vault::secret::Secret;

pub(super) mod wire;

const FORMAT: &str = "mxgate-vault";

/// The format that this program writes, and the newest that it reads.
pub const VERSION: u64 = 2;

/// Why a vault's bytes are not used. The file is left as it is.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Encrypted to somebody else.
    #[error("it is not encrypted to this identity")]
    WrongIdentity,
    /// No age file, cut short, or changed.
    #[error("it is damaged, or no age file; restore a backup with `mxgate vault restore`")]
    Damaged,
    /// It decrypts to something that is no vault.
    #[error("it decrypts, but not to a vault document (line {line}, column {column})")]
    NotAVault {
        /// From 1; 0 when no one place is at fault.
        line: usize,
        /// From 1; 0 when no one place is at fault.
        column: usize,
    },
    /// Written by a later mxgate.
    #[error("it has format version {found}, and this mxgate knows {VERSION}; use the mxgate that wrote it")]
    NewerFormat {
        /// The file's version.
        found: u64,
    },
    /// Somebody who could not open the vault wrote it.
    #[error("its MAC is wrong: it was not written by a holder of this vault")]
    Forged,
    /// Nothing in it tells this identity that it is genuine.
    #[error(
        "nothing in it proves to this identity who wrote it: either this identity has not accepted the vault's author yet, or the file is forged; compare the author with what `mxgate vault recipients` shows to somebody who opens the vault already, then run `mxgate vault accept --author AUTHOR` (see docs/vault.md)"
    )]
    Unproven,
    /// Its authors are other ones.
    #[error("its author is not the one that was named")]
    OtherAuthor,
    /// It opens, and its list says that it should not.
    #[error("this identity is not among the recipients that it names")]
    NotARecipient,
    /// HKDF failed inside aws-lc.
    #[error(transparent)]
    NoKey(#[from] NoKey),
}

/// Why a document could not be written.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// JSON could not be made.
    #[error("the vault document could not be written as JSON")]
    Json(#[from] serde_json::Error),
    /// age failed.
    #[error("age could not encrypt the vault document")]
    Age(#[from] age::EncryptError),
    /// HKDF or the random numbers failed.
    #[error(transparent)]
    NoKey(#[from] NoKey),
}

/// A vault's content.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) generation: u64,
    pub(super) entries: BTreeMap<String, Entry>,
    /// None in format 1.
    pub(super) authors: Authors,
    pub(super) members: Vec<Member>,
}

/// One secret, sealed together with the hosts it may be sent to.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The value.
    pub secret: Arc<Secret>,
    /// From 1, one more at each `set` of the same name.
    pub version: u64,
    /// RFC 3339, UTC.
    pub created: String,
    /// RFC 3339, UTC.
    pub updated: String,
    /// Lower case. Empty for a record of mxgate's own, which is sent nowhere.
    pub hosts: Vec<String>,
}

impl Document {
    /// Decrypts, checks and reads a vault file's bytes.
    pub(super) fn open(ciphertext: &[u8], identity: &Identity) -> Result<Self, Fault> {
        let plaintext = decrypt(ciphertext, identity)?;
        match wire::version(&plaintext, FORMAT)? {
            1 => Self::read_1(&plaintext, identity),
            VERSION => Self::read(&plaintext, identity),
            found if found > VERSION => Err(Fault::NewerFormat { found }),
            _ => Err(NOT_A_VAULT),
        }
    }

    fn read(plaintext: &[u8], identity: &Identity) -> Result<Self, Fault> {
        let mut wire: Wire<'_> = serde_json::from_slice(plaintext).map_err(not_a_vault)?;
        wire::sort(&mut wire.entries);
        let chain = wire.authors.iter().map(|author| (author.key, author.successor));
        let authors = Authors::read(chain)?.ok_or(Fault::Forged)?;
        let mac = wire.mac.take();
        wire::verify(&wire, mac, authors.present().ok_or(Fault::Forged)?.document_mac())?;
        let members: Option<Vec<_>> = wire.recipients.iter().map(WireMember::read).collect();
        let members = members.filter(|members| is_a_list(members)).ok_or(NOT_A_VAULT)?;
        judge(&members, &authors, identity)?;
        let entries = wire::read_entries(&wire.entries).ok_or(NOT_A_VAULT)?;
        Ok(Self { generation: wire.generation, entries, authors, members })
    }

    fn read_1(plaintext: &[u8], identity: &Identity) -> Result<Self, Fault> {
        let mut wire: Wire1<'_> = serde_json::from_slice(plaintext).map_err(not_a_vault)?;
        wire::sort(&mut wire.entries);
        let mac = wire.mac.take();
        wire::verify(&wire, mac, &identity.macs().ok_or(Fault::Forged)?.document)?;
        if matches!(identity.trust(), Trust::Author(_)) {
            return Err(Fault::OtherAuthor);
        }
        if wire.recipients != [identity.recipient().text()] {
            return Err(NOT_A_VAULT);
        }
        let entries = wire::read_entries(&wire.entries).ok_or(NOT_A_VAULT)?;
        let members = vec![Member::new(identity.recipient().clone(), timestamp(SystemTime::now()))];
        Ok(Self { generation: wire.generation, entries, authors: Authors::default(), members })
    }

    /// The encrypted bytes of a vault file. The present author is made where there is none, and accepted by
    /// each of `identities`.
    pub(super) fn seal(&mut self, identities: &[&Identity]) -> Result<Vec<u8>, SealError> {
        let author = self.authors.ensure()?;
        for member in &mut self.members {
            if let Some(identity) = identities.iter().find(|one| *one.recipient() == member.recipient) {
                member.accept(identity, author);
            }
        }
        let document_mac = author.document_mac().clone();
        let json = self.to_json(&document_mac)?;
        encrypt(self.members.iter(), &json)
    }

    fn to_json(&self, document_mac: &hmac::Key) -> Result<Zeroizing<Vec<u8>>, serde_json::Error> {
        let values: Vec<_> = self.entries.values().map(|entry| wire::encode(&entry.secret)).collect();
        let entries = self.entries.iter().zip(&values);
        let authors = self.authors.written();
        let proofs: Vec<_> = self.members.iter().map(WireMember::proof_of).collect();
        let mut wire = Wire {
            format: FORMAT,
            version: VERSION,
            generation: self.generation,
            authors: authors.iter().map(WireAuthor::of).collect(),
            recipients: self.members.iter().zip(&proofs).map(WireMember::of).collect(),
            entries: entries.map(|((name, entry), value)| WireEntry::new(name, entry, value)).collect(),
            mac: None,
        };
        let mac = wire::mac(&wire, document_mac)?;
        wire.mac = Some(&mac);
        wire::to_json(&wire)
    }
}

/// One to [`MEMBERS_MAX`], each once.
fn is_a_list(members: &[Member]) -> bool {
    let first = |(index, member): (usize, &Member)| {
        !members.iter().take(index).any(|other| other.recipient == member.recipient)
    };
    (1..=MEMBERS_MAX).contains(&members.len()) && members.iter().enumerate().all(first)
}

pub(super) fn decrypt(ciphertext: &[u8], identity: &Identity) -> Result<Zeroizing<Vec<u8>>, Fault> {
    identity.decrypt(ciphertext).map_err(|why| match why {
        Undecryptable::NotForThisIdentity => Fault::WrongIdentity,
        Undecryptable::Damaged => Fault::Damaged,
    })
}

/// For every one of `members`.
pub(super) fn encrypt<'a>(
    members: impl Iterator<Item = &'a Member>,
    plaintext: &[u8],
) -> Result<Vec<u8>, SealError> {
    let encryptor = age::Encryptor::with_recipients(members.map(|member| member.recipient.as_age()))?;
    let mut ciphertext = Vec::with_capacity(plaintext.len());
    let mut writer = encryptor.wrap_output(&mut ciphertext).map_err(age::EncryptError::from)?;
    let written = std::io::Write::write_all(&mut writer, plaintext).and_then(|()| writer.finish().map(drop));
    written.map_err(age::EncryptError::from)?;
    Ok(ciphertext)
}

pub(super) const NOT_A_VAULT: Fault = Fault::NotAVault { line: 0, column: 0 };

/// RFC 3339 in UTC with seconds. A clock outside the years 1970 to 9999 is clamped.
pub(super) fn timestamp(now: SystemTime) -> String {
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().min(LAST);
    humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + since).to_string()
}

#[cfg(test)]
mod tests;
