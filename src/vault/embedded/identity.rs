//! The identity that opens a vault, and what only its holder can derive from it.
//!
//! In comes the text of an identity file: what `age-keygen` writes (comments, blank lines and exactly one
//! `AGE-SECRET-KEY-1...`), an OpenSSH private key of the kind ed25519, or either sealed with a passphrase. Out
//! goes something that decrypts and, unless it is an ssh key, authenticates. age proves no author: whoever
//! knows the recipient (`age1...`, not a secret) can make a file that this identity decrypts. So this
//! identity says of an author that it accepted it with an HMAC-SHA-256 whose key comes from the identity:
//! HKDF-SHA-256, salt `mxgate vault`, input the identity's text as age prints it (upper case), info
//! `author proof`. `document mac` and `generation mac` are those of format 1, in which the identity itself
//! was the author.

use std::{
    io::{BufReader, Read as _, Write},
    iter,
    path::Path,
    time::SystemTime,
};

use age::secrecy::ExposeSecret;
use aws_lc_rs::{hkdf, hmac};
use zeroize::Zeroizing;

pub use self::error::{Error, Fault};
use super::{
    author::{AuthorId, mac_key},
    document::timestamp,
    passphrase::{self, Passphrase},
    recipient::{Malformed, Recipient},
};
use crate::{
    config::VaultFile,
    storage,
    vault::{
        field, permissions,
        reference::{Reference, Scheme},
        source::{self, file::SECRET_BYTES_MAX},
    },
};

mod error;

/// An age X25519 identity, or an ssh key. It cannot be printed, copied or serialised.
pub struct Identity {
    key: Key,
    recipient: Recipient,
    macs: Option<Macs>,
    trust: Trust,
}

enum Key {
    X25519(age::x25519::Identity),
    Ssh(age::ssh::Identity),
}

/// What is keyed by an X25519 identity.
pub(super) struct Macs {
    /// Of format 1.
    pub(super) document: hmac::Key,
    /// Of format 1; in the last-seen file also today.
    pub(super) generation: hmac::Key,
    /// That an author was accepted.
    pub(super) proof: hmac::Key,
    /// Of a recovery file beside a vault of format 1.
    pub(super) aside: hmac::Key,
}

/// What the holder of an identity takes for a sign that a vault is genuine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Trust {
    /// The identity's own proof inside the vault.
    #[default]
    Proof,
    /// That this author is among those of the vault: somebody compared it by hand.
    Author(AuthorId),
    /// Where the file comes from: somebody says that only honest people could write it there.
    File,
}

/// What age said about a file that it could not decrypt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Undecryptable {
    NotForThisIdentity,
    Damaged,
}

impl Identity {
    /// The identity of a configured vault, with the passphrase that is configured beside it.
    ///
    /// # Errors
    /// What [`Elsewhere::read`](crate::vault::elsewhere::Elsewhere::read) said, or [`Error::Unfit`].
    pub fn of(vault: &VaultFile) -> Result<Self, Error> {
        Self::read_by(&|reference| vault.elsewhere.read(reference), vault)
    }

    /// The same, with identity and passphrase from wherever `read` finds them. What goes wrong there, it says with
    /// [`Error::Source`].
    ///
    /// # Errors
    /// What `read` said, or [`Error::Unfit`].
    pub fn read_by(read: &Read<'_>, vault: &VaultFile) -> Result<Self, Error> {
        let place = vault.identity.to_string();
        Self::unlock(&place, &read(&vault.identity)?, &|| match &vault.passphrase {
            Some(reference) => Passphrase::parse(&reference.to_string(), &read(reference)?),
            None => Err(Error::NoPassphrase { place: place.clone() }),
        })
    }

    /// Reads the identity that `reference` names, which needs no passphrase. A file must be private (mode
    /// 0600 or 0400; 0440 when root owns it).
    ///
    /// # Errors
    /// [`Error`]: not there, not readable, not private, or not one identity.
    pub fn load(reference: &Reference) -> Result<Self, Error> {
        Self::load_with(reference, &|| Err(Error::NoPassphrase { place: reference.to_string() }))
    }

    /// The same; `ask` is called when it is sealed with a passphrase.
    ///
    /// # Errors
    /// As [`Identity::load`], or what `ask` said.
    pub fn load_with(
        reference: &Reference,
        ask: &dyn Fn() -> Result<Passphrase, Error>,
    ) -> Result<Self, Error> {
        Self::unlock(&reference.to_string(), &read(reference)?, ask)
    }

    /// Makes an identity of the text that was found at `place`, wherever that is. `ask` is called when it is
    /// sealed with a passphrase.
    ///
    /// # Errors
    /// [`Error::Unfit`], or what `ask` said.
    pub fn unlock(
        place: &str,
        text: &[u8],
        ask: &dyn Fn() -> Result<Passphrase, Error>,
    ) -> Result<Self, Error> {
        let unfit = |fault| Error::Unfit { place: place.to_owned(), fault };
        if passphrase::is_sealed(text) {
            let plain = passphrase::unseal(text, &ask()?).map_err(unfit)?;
            return Self::new(parse(&plain).map_err(unfit)?);
        }
        if !is_ssh(text) {
            return Self::new(parse(text).map_err(unfit)?);
        }
        let key = age::ssh::Identity::from_buffer(BufReader::new(text.trim_ascii_start()), None)
            .map_err(|_| unfit(Fault::NoSshKey))?;
        // Asked of the public half, so that nobody types a passphrase for a key that is of no use.
        let public = age::ssh::Recipient::try_from(key.clone()).map_err(|_| unfit(Fault::NoSshKey))?;
        let recipient = Recipient::of_ssh(public).map_err(|why| unfit(Fault::Ssh(why)))?;
        let key = match key {
            age::ssh::Identity::Encrypted(sealed) => {
                sealed.decrypt(ask()?.secret()).map_err(|_| unfit(Fault::WrongPassphrase))?.into()
            }
            open => open,
        };
        Ok(Self { key: Key::Ssh(key), recipient, macs: None, trust: Trust::default() })
    }

    /// Makes a new identity and writes it to `path` with mode 0600, in `age-keygen`'s form.
    ///
    /// # Errors
    /// [`Error::Unwritable`], also when anything exists at `path`: an identity is never overwritten.
    pub fn create(path: &Path) -> Result<Self, Error> {
        Self::create_sealed(path, None)
    }

    /// The same, sealed with `passphrase` if there is one.
    ///
    /// # Errors
    /// As [`Identity::create`].
    pub fn create_sealed(path: &Path, passphrase: Option<&Passphrase>) -> Result<Self, Error> {
        let key = age::x25519::Identity::generate();
        let text = key.to_string();
        let identity = Self::new(key)?;
        let created = timestamp(SystemTime::now());
        let mut file = Zeroizing::new(Vec::with_capacity(512));
        let unwritable = |source| Error::Unwritable { path: path.into(), source };
        writeln!(
            file,
            "# created: {created}\n# public key: {}\n{}",
            identity.recipient,
            text.expose_secret()
        )
        .map_err(unwritable)?;
        if let Some(passphrase) = passphrase {
            file = Zeroizing::new(passphrase::seal(&file, passphrase)?);
        }
        storage::create(path, &file).map_err(unwritable)?;
        Ok(identity)
    }

    /// The public half.
    #[must_use]
    pub fn recipient(&self) -> &Recipient {
        &self.recipient
    }

    /// The same identity, with a comment that tells its public half from others.
    #[must_use]
    pub fn with_comment(self, comment: &str) -> Self {
        Self { recipient: self.recipient.with_comment(comment), ..self }
    }

    /// The same identity, whose holder trusts a vault for another reason than the identity's own proof.
    #[must_use]
    pub fn trusting(self, trust: Trust) -> Self {
        Self { trust, ..self }
    }

    fn new(key: age::x25519::Identity) -> Result<Self, Error> {
        let text = key.to_string();
        let derived =
            hkdf::Salt::new(hkdf::HKDF_SHA256, b"mxgate vault").extract(text.expose_secret().as_bytes());
        let mac = |info| mac_key(&derived, info).map_err(|_| Error::Derivation);
        let macs = Macs {
            document: mac(b"document mac")?,
            generation: mac(b"generation mac")?,
            proof: mac(b"author proof")?,
            aside: mac(b"recovery file mac")?,
        };
        let recipient = Recipient::from(key.to_public());
        Ok(Self { key: Key::X25519(key), recipient, macs: Some(macs), trust: Trust::default() })
    }

    /// `None` for an ssh key.
    pub(super) fn macs(&self) -> Option<&Macs> {
        self.macs.as_ref()
    }

    pub(super) fn trust(&self) -> Trust {
        self.trust
    }

    pub(super) fn decrypt(&self, ciphertext: &[u8]) -> Result<Zeroizing<Vec<u8>>, Undecryptable> {
        let key: &dyn age::Identity = match &self.key {
            Key::X25519(key) => key,
            Key::Ssh(key) => key,
        };
        let mut reader = age::Decryptor::new_buffered(ciphertext)
            .and_then(|decryptor| decryptor.decrypt(iter::once(key)))
            .map_err(|error| match error {
                age::DecryptError::NoMatchingKeys => Undecryptable::NotForThisIdentity,
                _ => Undecryptable::Damaged,
            })?;
        // The plaintext is shorter than the ciphertext, so this never grows and leaves no copy behind.
        let mut plaintext = Zeroizing::new(Vec::with_capacity(ciphertext.len()));
        reader.read_to_end(&mut plaintext).map_err(|_| Undecryptable::Damaged)?;
        Ok(plaintext)
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", self.recipient)
    }
}

/// Seals the identity file at `path` with `new`, or leaves it open without one; `ask` is called when it is
/// sealed now. The identity stays the same one.
///
/// # Errors
/// As [`Identity::load_with`], or why it could not be written; the file is then as it was.
pub fn protect(
    path: &Path,
    ask: &dyn Fn() -> Result<Passphrase, Error>,
    new: Option<&Passphrase>,
) -> Result<Identity, Error> {
    let place = format!("file:{}", path.display());
    let file = source::file::read(path, SECRET_BYTES_MAX, permissions::private)?;
    let unfit = |fault| Error::Unfit { place: place.clone(), fault };
    let plain = match passphrase::is_sealed(&file.bytes) {
        true => passphrase::unseal(&file.bytes, &ask()?).map_err(unfit)?,
        false => file.bytes,
    };
    if is_ssh(&plain) {
        return Err(unfit(Fault::Ssh(Malformed::OwnPassphrase)));
    }
    let identity = Identity::new(parse(&plain).map_err(unfit)?)?;
    let bytes = match new {
        Some(passphrase) => Zeroizing::new(passphrase::seal(&plain, passphrase)?),
        None => plain,
    };
    storage::replace(path, &bytes, Some(&file.metadata))
        .map_err(|source| Error::Unwritable { path: path.into(), source })?;
    Ok(identity)
}

/// Finds what opens a vault.
pub type Read<'a> = dyn Fn(&Reference) -> Result<Zeroizing<Vec<u8>>, Error> + 'a;

/// Reads a file, which must be private (mode 0600 or 0400; 0440 when root owns it), or a variable.
///
/// # Errors
/// [`Error::File`], [`Error::Unset`], [`Error::InVault`] or [`Error::NotHere`]; [`Error::Unfit`] without the field.
pub fn read(reference: &Reference) -> Result<Zeroizing<Vec<u8>>, Error> {
    let whole = match (reference.scheme(), reference.as_file()) {
        (_, Some(path)) => source::file::read(&path, SECRET_BYTES_MAX, permissions::private)?.bytes,
        (Scheme::Env, _) => source::env::read(reference.place())
            .ok_or_else(|| Error::Unset { name: reference.place().to_owned() })?,
        (Scheme::Vault, _) => return Err(Error::InVault { reference: reference.clone() }),
        _ => return Err(Error::NotHere { reference: reference.clone() }),
    };
    in_document(whole, reference)
}

/// The field of `document` that `reference` names, or all of it.
pub(in crate::vault) fn in_document(
    document: Zeroizing<Vec<u8>>,
    reference: &Reference,
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let unfit = |fault| Error::Unfit { place: reference.to_string(), fault: Fault::Field(fault) };
    match reference.field() {
        Some(name) => field::of(&document, name).map_err(unfit),
        None => Ok(document),
    }
}

fn is_ssh(text: &[u8]) -> bool {
    let text = text.trim_ascii_start();
    text.starts_with(b"-----BEGIN") && !passphrase::is_sealed(text)
}

fn parse(bytes: &[u8]) -> Result<age::x25519::Identity, Fault> {
    let mut found = None;
    for (line, bytes) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        let bytes = bytes.trim_ascii();
        if bytes.is_empty() || bytes.starts_with(b"#") {
            continue;
        }
        let text = std::str::from_utf8(bytes).map_err(|_| Fault::Unknown { line })?;
        let key = text.parse().map_err(|_| Fault::Unknown { line })?;
        if found.replace(key).is_some() {
            return Err(Fault::Several { line });
        }
    }
    found.ok_or(Fault::None)
}

#[cfg(test)]
mod tests;
