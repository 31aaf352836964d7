//! The plaintext of a vault file: versioned JSON with a MAC.
//!
//! ```json
//! {"format":"mxgate-vault","version":1,"generation":7,"recipients":["age1..."],
//!  "entries":[{"name":"production/api_key","value":"BASE64","version":2,
//!    "created":"2026-01-31T09:00:00Z","updated":"2026-02-28T09:00:00Z","hosts":["api.mx.com"]}],
//!  "mac":"BASE64"}
//! ```
//! `value` is the secret in base64 (RFC 4648, padded): a secret need not be UTF-8. `generation` rises by
//! one with each write. `recipients` holds the one identity's public half. `mac` is HMAC-SHA-256, under
//! the identity's document key ([`super::identity`]), over the document without `mac` as compact JSON:
//! keys in the order above, entries sorted by name, no white space outside strings.
//!
//! Hazards: unknown or doubled keys are refused, so nothing is outside the MAC. Strings are borrowed from
//! the wiped plaintext, never copied; an escape inside one is refused for that reason, and mxgate writes
//! none. Faults never quote the document.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_lc_rs::{constant_time, hmac};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{
    hosts,
    identity::{Identity, Undecryptable},
    is_entry_name,
};
use crate::vault::secret::Secret;

const FORMAT: &str = "mxgate-vault";

/// The format that this program writes, and the newest that it reads.
pub const VERSION: u64 = 1;

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
    /// The MAC is not this identity's: somebody who knows only the recipient wrote it.
    #[error("its MAC is wrong: it was not written by a holder of this identity")]
    Forged,
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
}

/// A vault's content.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) generation: u64,
    pub(super) entries: BTreeMap<String, Entry>,
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
        let plaintext = identity.decrypt(ciphertext).map_err(|why| match why {
            Undecryptable::NotForThisIdentity => Fault::WrongIdentity,
            Undecryptable::Damaged => Fault::Damaged,
        })?;
        let header: Header<'_> = serde_json::from_slice(&plaintext).map_err(not_a_vault)?;
        match (header.format, header.version) {
            (FORMAT, VERSION) => {}
            (FORMAT, found) if found > VERSION => return Err(Fault::NewerFormat { found }),
            _ => return Err(NOT_A_VAULT),
        }
        let mut wire: Wire<'_> = serde_json::from_slice(&plaintext).map_err(not_a_vault)?;
        wire.entries.sort_by_key(|entry| entry.name);
        verify(&mut wire, identity)?;
        if wire.recipients != [identity.recipient()] {
            return Err(NOT_A_VAULT);
        }
        let mut document = Self { generation: wire.generation, entries: BTreeMap::new() };
        for entry in &wire.entries {
            let read = entry.read().ok_or(NOT_A_VAULT)?;
            if document.entries.insert(entry.name.to_owned(), read).is_some() {
                return Err(NOT_A_VAULT);
            }
        }
        Ok(document)
    }

    /// The encrypted bytes of a vault file.
    pub(super) fn seal(&self, identity: &Identity) -> Result<Vec<u8>, SealError> {
        let values: Vec<_> = self.entries.values().map(|entry| encode(&entry.secret)).collect();
        let entries = self.entries.iter().zip(&values);
        let entries = entries.map(|((name, entry), value)| WireEntry::new(name, entry, value)).collect();
        let mut wire = Wire {
            format: FORMAT,
            version: VERSION,
            generation: self.generation,
            recipients: vec![identity.recipient()],
            entries,
            mac: None,
        };
        let mac = BASE64.encode(mac(&wire, identity)?);
        wire.mac = Some(&mac);
        Ok(identity.encrypt(&to_json(&wire)?)?)
    }
}

/// What every format version has; the rest is not looked at.
#[derive(Deserialize)]
struct Header<'a> {
    format: &'a str,
    version: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire<'a> {
    format: &'a str,
    version: u64,
    generation: u64,
    #[serde(borrow)]
    recipients: Vec<&'a str>,
    entries: Vec<WireEntry<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mac: Option<&'a str>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireEntry<'a> {
    name: &'a str,
    value: &'a str,
    version: u64,
    created: &'a str,
    updated: &'a str,
    hosts: Vec<&'a str>,
}

impl<'a> WireEntry<'a> {
    fn new(name: &'a str, entry: &'a Entry, value: &'a str) -> Self {
        let Entry { version, created, updated, hosts, .. } = entry;
        let hosts = hosts.iter().map(String::as_str).collect();
        Self { name, value, version: *version, created, updated, hosts }
    }

    fn read(&self) -> Option<Entry> {
        let hosts_are_fit = self.hosts.iter().all(|host| hosts::is_host(host));
        let dates_are_fit =
            [self.created, self.updated].iter().all(|date| humantime::parse_rfc3339(date).is_ok());
        if !is_entry_name(self.name) || !hosts_are_fit || !dates_are_fit {
            return None;
        }
        let bytes = BASE64.decode(self.value).ok()?;
        Some(Entry {
            secret: Arc::new(Secret::new(bytes).ok()?),
            version: self.version,
            created: self.created.to_owned(),
            updated: self.updated.to_owned(),
            hosts: self.hosts.iter().map(|&host| host.to_owned()).collect(),
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "sealing a secret into the vault file needs its bytes")]
fn encode(secret: &Secret) -> Zeroizing<String> {
    let bytes = secret.expose();
    // One allocation: growing would leave an unwiped copy.
    let mut text = Zeroizing::new(String::with_capacity(bytes.len().div_ceil(3) * 4));
    BASE64.encode_string(bytes, &mut text);
    text
}

fn verify<'a>(wire: &mut Wire<'a>, identity: &Identity) -> Result<(), Fault> {
    let given = wire.mac.take().and_then(|mac| BASE64.decode(mac).ok()).ok_or(Fault::Forged)?;
    let right = mac(wire, identity).map_err(not_a_vault)?;
    constant_time::verify_slices_are_equal(right.as_ref(), &given).map_err(|_| Fault::Forged)
}

/// Over `wire` as it would be written; its own `mac` must be absent.
fn mac(wire: &Wire<'_>, identity: &Identity) -> Result<hmac::Tag, serde_json::Error> {
    let mut writer = MacWriter(hmac::Context::with_key(identity.document_mac()));
    serde_json::to_writer(&mut writer, wire)?;
    Ok(writer.0.sign())
}

fn to_json(wire: &Wire<'_>) -> Result<Zeroizing<Vec<u8>>, serde_json::Error> {
    let mut length = LengthWriter(0);
    serde_json::to_writer(&mut length, wire)?;
    // One allocation: growing would leave an unwiped copy.
    let mut json = Zeroizing::new(Vec::with_capacity(length.0));
    serde_json::to_writer(&mut *json, wire)?;
    Ok(json)
}

const NOT_A_VAULT: Fault = Fault::NotAVault { line: 0, column: 0 };

/// Only the place: serde's own text quotes what it read.
#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
fn not_a_vault(error: serde_json::Error) -> Fault {
    Fault::NotAVault { line: error.line(), column: error.column() }
}

struct MacWriter(hmac::Context);

impl Write for MacWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct LengthWriter(usize);

impl Write for LengthWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// RFC 3339 in UTC with seconds. A clock outside the years 1970 to 9999 is clamped.
pub(super) fn timestamp(now: SystemTime) -> String {
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().min(LAST);
    humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + since).to_string()
}

#[cfg(test)]
mod tests;
