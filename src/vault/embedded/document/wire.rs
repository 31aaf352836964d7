//! The JSON of vault documents: its shapes, its MAC, and buffers that do not grow.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::Arc,
};

use aws_lc_rs::{constant_time, hmac};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Entry, Fault, NOT_A_VAULT};
use crate::vault::{
    embedded::{
        author::Written,
        hosts, is_entry_name,
        member::Member,
        recipient::{Recipient, is_plain},
    },
    secret::Secret,
};

/// What every format version has; the rest is not looked at.
#[derive(Deserialize)]
struct Header<'a> {
    format: &'a str,
    version: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Wire<'a> {
    pub(super) format: &'a str,
    pub(super) version: u64,
    pub(super) generation: u64,
    #[serde(borrow)]
    pub(super) authors: Vec<WireAuthor<'a>>,
    pub(super) recipients: Vec<WireMember<'a>>,
    pub(super) entries: Vec<WireEntry<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mac: Option<&'a str>,
}

/// Format 1, only read.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wire1<'a> {
    pub(super) format: &'a str,
    pub(super) version: u64,
    pub(super) generation: u64,
    #[serde(borrow)]
    pub(super) recipients: Vec<&'a str>,
    pub(super) entries: Vec<WireEntry<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mac: Option<&'a str>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct WireAuthor<'a> {
    pub(super) key: &'a str,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) successor: Option<&'a str>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct WireMember<'a> {
    key: &'a str,
    comment: &'a str,
    added: &'a str,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    proof: Option<&'a str>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct WireEntry<'a> {
    pub(in super::super) name: &'a str,
    value: &'a str,
    version: u64,
    created: &'a str,
    updated: &'a str,
    hosts: Vec<&'a str>,
}

impl<'a> WireAuthor<'a> {
    pub(super) fn of(written: &'a Written) -> Self {
        Self { key: &written.0, successor: written.1.as_deref() }
    }
}

impl<'a> WireMember<'a> {
    pub(super) fn proof_of(member: &Member) -> Option<String> {
        member.proof.as_ref().map(|proof| BASE64.encode(proof))
    }

    pub(super) fn of((member, proof): (&'a Member, &'a Option<String>)) -> Self {
        let Member { recipient, added, .. } = member;
        Self { key: recipient.text(), comment: recipient.comment(), added, proof: proof.as_deref() }
    }

    pub(super) fn read(&self) -> Option<Member> {
        let recipient: Recipient = self.key.parse().ok()?;
        let is_fit = recipient.text() == self.key
            && self.comment.chars().all(is_plain)
            && humantime::parse_rfc3339(self.added).is_ok();
        let proof = self.proof.map(|proof| BASE64.decode(proof)).transpose().ok()?;
        let mut member = Member::new(recipient.with_comment(self.comment), self.added.to_owned());
        member.proof = proof;
        is_fit.then_some(member)
    }
}

impl<'a> WireEntry<'a> {
    pub(in super::super) fn new(name: &'a str, entry: &'a Entry, value: &'a str) -> Self {
        let Entry { version, created, updated, hosts, .. } = entry;
        let hosts = hosts.iter().map(String::as_str).collect();
        Self { name, value, version: *version, created, updated, hosts }
    }

    pub(in super::super) fn read(&self) -> Option<Entry> {
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

/// The version of a document of this format.
pub(in super::super) fn version(plaintext: &[u8], format: &str) -> Result<u64, Fault> {
    let header: Header<'_> = serde_json::from_slice(plaintext).map_err(not_a_vault)?;
    if header.format == format { Ok(header.version) } else { Err(NOT_A_VAULT) }
}

pub(in super::super) fn sort(entries: &mut [WireEntry<'_>]) {
    entries.sort_by_key(|entry| entry.name);
}

/// `None` unless each can be read, and each name stands there once.
pub(super) fn read_entries(entries: &[WireEntry<'_>]) -> Option<BTreeMap<String, Entry>> {
    let mut read = BTreeMap::new();
    for entry in entries {
        if read.insert(entry.name.to_owned(), entry.read()?).is_some() {
            return None;
        }
    }
    Some(read)
}

#[expect(clippy::disallowed_methods, reason = "sealing a secret into the vault file needs its bytes")]
pub(in super::super) fn encode(secret: &Secret) -> Zeroizing<String> {
    let bytes = secret.expose();
    // One allocation: growing would leave an unwiped copy.
    let mut text = Zeroizing::new(String::with_capacity(bytes.len().div_ceil(3) * 4));
    BASE64.encode_string(bytes, &mut text);
    text
}

/// Whether `given` is the MAC of `wire`, from which it was taken out.
pub(in super::super) fn verify(
    wire: &impl Serialize,
    given: Option<&str>,
    key: &hmac::Key,
) -> Result<(), Fault> {
    let given = given.and_then(|mac| BASE64.decode(mac).ok()).ok_or(Fault::Forged)?;
    let right = tag(wire, key).map_err(not_a_vault)?;
    constant_time::verify_slices_are_equal(right.as_ref(), &given).map_err(|_| Fault::Forged)
}

/// Over `wire` as it would be written, in base64; its own `mac` must be absent.
pub(in super::super) fn mac(wire: &impl Serialize, key: &hmac::Key) -> Result<String, serde_json::Error> {
    Ok(BASE64.encode(tag(wire, key)?))
}

fn tag(wire: &impl Serialize, key: &hmac::Key) -> Result<hmac::Tag, serde_json::Error> {
    let mut writer = MacWriter(hmac::Context::with_key(key));
    serde_json::to_writer(&mut writer, wire)?;
    Ok(writer.0.sign())
}

pub(in super::super) fn to_json(wire: &impl Serialize) -> Result<Zeroizing<Vec<u8>>, serde_json::Error> {
    let mut length = LengthWriter(0);
    serde_json::to_writer(&mut length, wire)?;
    // One allocation: growing would leave an unwiped copy.
    let mut json = Zeroizing::new(Vec::with_capacity(length.0));
    serde_json::to_writer(&mut *json, wire)?;
    Ok(json)
}

/// Only the place: serde's own text quotes what it read.
#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
pub(in super::super) fn not_a_vault(error: serde_json::Error) -> Fault {
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
