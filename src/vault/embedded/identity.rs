//! The age identity that opens a vault, and the two MAC keys that only its holder can derive.
//!
//! In comes the text of an age identity file (what `age-keygen` writes): comments, blank lines and
//! exactly one `AGE-SECRET-KEY-1...`. Out goes something that decrypts, encrypts to itself, and
//! authenticates. age proves no author: whoever knows the recipient (`age1...`, not a secret) can make
//! a file that this identity decrypts. So what mxgate writes carries an HMAC-SHA-256 whose key comes from
//! the identity: HKDF-SHA-256, salt `mxgate vault`, input the identity's text as age prints it (upper
//! case), info `document mac` or `generation mac`.

use std::{
    io::{Read, Write},
    iter,
    path::{Path, PathBuf},
    time::SystemTime,
};

use age::secrecy::ExposeSecret;
use aws_lc_rs::{hkdf, hmac};
use zeroize::Zeroizing;

use super::document::timestamp;
use crate::{
    storage,
    vault::{
        permissions,
        reference::{Reference, Scheme},
        source::{self, file::SECRET_BYTES_MAX},
    },
};

/// An age X25519 identity. It cannot be printed, copied or serialised.
pub struct Identity {
    key: age::x25519::Identity,
    recipient: String,
    document_mac: hmac::Key,
    generation_mac: hmac::Key,
}

/// Why there is no identity. It never repeats the text.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The variable is not set.
    #[error("env:{name} is not set; it should hold the age identity of the vault")]
    Unset {
        /// The variable's name.
        name: String,
    },
    /// An identity inside a vault could not be reached without itself.
    #[error("an identity comes from file:/PATH or env:NAME, not from {reference}")]
    InVault {
        /// As configured.
        reference: Reference,
    },
    /// The file was not read.
    #[error("the age identity could not be loaded")]
    File(#[from] source::file::Error),
    /// The text is something else.
    #[error("{place} holds no usable age identity: {fault}")]
    Unfit {
        /// Where it came from.
        place: String,
        /// What is wrong.
        fault: Fault,
    },
    /// It could not be written.
    #[error("the age identity {} could not be written", .path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// HKDF or HMAC failed inside aws-lc.
    #[error("the cryptography library refused to derive a key")]
    Derivation,
}

/// What is wrong with the text of an identity file.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Fault {
    /// Only comments and blank lines.
    #[error("no AGE-SECRET-KEY-1 line")]
    None,
    /// A vault has one identity.
    #[error("more than one identity (line {line}); keep one")]
    Several {
        /// The second one's line.
        line: usize,
    },
    /// A line that is neither comment nor X25519 identity.
    #[error("line {line} is no AGE-SECRET-KEY-1 (X25519) identity; `age-keygen` makes one")]
    Unknown {
        /// The line.
        line: usize,
    },
}

/// What age said about a file that it could not decrypt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Undecryptable {
    NotForThisIdentity,
    Damaged,
}

impl Identity {
    /// Reads the identity that `reference` names. A file must be private (mode 0600 or 0400; 0440 when
    /// root owns it).
    ///
    /// # Errors
    /// [`Error`]: not there, not readable, not private, or not one X25519 identity.
    pub fn load(reference: &Reference) -> Result<Self, Error> {
        let bytes = match (reference.scheme(), reference.as_file(), reference.field()) {
            (_, Some(path), None) => source::file::read(&path, SECRET_BYTES_MAX, permissions::private)?.bytes,
            (Scheme::Env, _, None) => source::env::read(reference.place())
                .ok_or_else(|| Error::Unset { name: reference.place().to_owned() })?,
            _ => return Err(Error::InVault { reference: reference.clone() }),
        };
        let key = parse(&bytes).map_err(|fault| Error::Unfit { place: reference.to_string(), fault })?;
        Self::new(key)
    }

    /// Makes a new identity and writes it to `path` with mode 0600, in `age-keygen`'s form.
    ///
    /// # Errors
    /// [`Error::Unwritable`], also when anything exists at `path`: an identity is never overwritten.
    pub fn create(path: &Path) -> Result<Self, Error> {
        let identity = Self::new(age::x25519::Identity::generate())?;
        let text = identity.key.to_string();
        let created = timestamp(SystemTime::now());
        let mut file = Zeroizing::new(Vec::with_capacity(512));
        let written = writeln!(
            file,
            "# created: {created}\n# public key: {}\n{}",
            identity.recipient,
            text.expose_secret()
        );
        written
            .and_then(|()| storage::create(path, &file))
            .map_err(|source| Error::Unwritable { path: path.into(), source })?;
        Ok(identity)
    }

    /// The public half, `age1...`.
    #[must_use]
    pub fn recipient(&self) -> &str {
        &self.recipient
    }

    fn new(key: age::x25519::Identity) -> Result<Self, Error> {
        let text = key.to_string();
        let derived =
            hkdf::Salt::new(hkdf::HKDF_SHA256, b"mxgate vault").extract(text.expose_secret().as_bytes());
        let mac_key = |info: &[u8]| {
            derived.expand(&[info], hmac::HMAC_SHA256).map(hmac::Key::from).map_err(|_| Error::Derivation)
        };
        Ok(Self {
            recipient: key.to_public().to_string(),
            document_mac: mac_key(b"document mac")?,
            generation_mac: mac_key(b"generation mac")?,
            key,
        })
    }

    pub(super) fn document_mac(&self) -> &hmac::Key {
        &self.document_mac
    }

    pub(super) fn generation_mac(&self) -> &hmac::Key {
        &self.generation_mac
    }

    pub(super) fn encrypt(&self, plaintext: &[u8]) -> Result<Vec<u8>, age::EncryptError> {
        age::encrypt(&self.key.to_public(), plaintext)
    }

    pub(super) fn decrypt(&self, ciphertext: &[u8]) -> Result<Zeroizing<Vec<u8>>, Undecryptable> {
        let key: &dyn age::Identity = &self.key;
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
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    const KEY: &str = "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";

    #[test]
    fn one_identity_with_comments_is_found() {
        for text in [KEY.to_owned(), format!("# made today\r\n\r\n{KEY}\r\n# end\n"), KEY.to_lowercase()] {
            let key = parse(text.as_bytes()).unwrap();
            assert_eq!(key.to_string().expose_secret(), KEY);
        }
    }

    #[test]
    fn none_two_and_anything_else_are_refused_without_being_repeated() {
        assert_eq!(parse(b"# only\n\n").err(), Some(Fault::None));
        assert_eq!(parse(format!("{KEY}\n\n{KEY}").as_bytes()).err(), Some(Fault::Several { line: 3 }));
        assert_eq!(parse(b"#\nsk-live-123").err(), Some(Fault::Unknown { line: 2 }));
        assert_eq!(parse(&[0xff, b'\n']).err(), Some(Fault::Unknown { line: 1 }));
        let fault = Error::Unfit { place: "env:X".into(), fault: Fault::Unknown { line: 2 } };
        assert!(!fault.to_string().contains("sk-live"));
    }

    #[test]
    fn a_created_identity_is_private_loads_again_and_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity");
        let made = Identity::create(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        let before = fs::read(&path).unwrap();
        assert_eq!(Identity::load(&Reference::file(path.clone())).unwrap().recipient(), made.recipient());
        assert!(matches!(Identity::create(&path), Err(Error::Unwritable { .. })));
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn an_identity_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity");
        Identity::create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
        let refused = Identity::load(&Reference::file(path)).unwrap_err();
        assert!(matches!(refused, Error::File(source::file::Error::Refused { .. })), "{refused}");
    }

    #[test]
    fn debug_shows_the_public_half_only() {
        let identity = Identity::new(KEY.parse().unwrap()).unwrap();
        assert_eq!(format!("{identity:?}"), format!("Identity({})", identity.recipient()));
    }

    #[test]
    fn the_two_mac_keys_differ() {
        let identity = Identity::new(KEY.parse().unwrap()).unwrap();
        let tag = |key| hmac::sign(key, b"same");
        assert_ne!(tag(identity.document_mac()).as_ref(), tag(identity.generation_mac()).as_ref());
    }
}
