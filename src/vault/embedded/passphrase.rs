//! A passphrase that an identity file is sealed with (age's scrypt).
//!
//! Not the vault itself: age mixes a passphrase with no other recipient, and a gateway would stretch it at
//! every change of the vault. What is stretched is bounded: a file that asks for more is refused, not tried.

use std::io::{Read, Write};

use age::{
    DecryptError,
    armor::{ArmoredReader, ArmoredWriter, Format},
    secrecy::{ExposeSecret, SecretString},
};
use zeroize::Zeroizing;

use super::identity::{self, Error, Fault};
use crate::vault::reference::Reference;

/// The shortest passphrase that is sealed with, in bytes. A shorter one still opens.
pub const BYTES_MIN: usize = 12;

/// log2 of scrypt's N, for writing and at most for reading: what Debian's `age` writes. 256 MiB for a moment.
const WORK_FACTOR: u8 = 18;

/// One passphrase. It cannot be printed, and is wiped on drop.
pub struct Passphrase(SecretString);

impl Passphrase {
    /// What stands at `reference`. A file must be private.
    ///
    /// # Errors
    /// As [`identity::read`] and [`Passphrase::parse`].
    pub fn load(reference: &Reference) -> Result<Self, Error> {
        Self::parse(&reference.to_string(), &identity::read(reference)?)
    }

    /// What was found at `place`, without one newline at its end.
    ///
    /// # Errors
    /// [`Error::Unfit`]: empty or not UTF-8.
    pub fn parse(place: &str, bytes: &[u8]) -> Result<Self, Error> {
        let unfit = || Error::Unfit { place: place.to_owned(), fault: Fault::NoPassphrase };
        let text = std::str::from_utf8(bytes).map_err(|_| unfit())?;
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.is_empty() { Err(unfit()) } else { Ok(Self::new(text.to_owned())) }
    }

    /// Takes ownership of `text`.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(SecretString::from(text))
    }

    /// Whether it is long enough to seal something with.
    #[must_use]
    pub fn is_long_enough(&self) -> bool {
        self.0.expose_secret().len() >= BYTES_MIN
    }

    pub(super) fn secret(&self) -> SecretString {
        self.0.clone()
    }
}

impl PartialEq for Passphrase {
    fn eq(&self, other: &Self) -> bool {
        let bytes = |one: &Self| Zeroizing::new(one.0.expose_secret().as_bytes().to_vec());
        aws_lc_rs::constant_time::verify_slices_are_equal(&bytes(self), &bytes(other)).is_ok()
    }
}

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passphrase(hidden)")
    }
}

/// Whether `bytes` are an age file, armoured or not.
pub(super) fn is_sealed(bytes: &[u8]) -> bool {
    let bytes = bytes.trim_ascii_start();
    bytes.starts_with(b"age-encryption.org/") || bytes.starts_with(b"-----BEGIN AGE ENCRYPTED FILE-----")
}

/// Opens what [`seal`] or `age --passphrase` made.
pub(super) fn unseal(sealed: &[u8], passphrase: &Passphrase) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let decryptor = age::Decryptor::new_buffered(ArmoredReader::new(sealed.trim_ascii_start()))
        .map_err(|_| Fault::Damaged)?;
    if !decryptor.is_scrypt() {
        return Err(Fault::SealedForRecipients);
    }
    let mut key = age::scrypt::Identity::new(passphrase.secret());
    key.set_max_work_factor(WORK_FACTOR);
    let mut reader = decryptor.decrypt(std::iter::once(&key as _)).map_err(|error| match error {
        DecryptError::ExcessiveWork { required, .. } => Fault::TooMuchWork { required, most: WORK_FACTOR },
        DecryptError::NoMatchingKeys | DecryptError::DecryptionFailed => Fault::WrongPassphrase,
        _ => Fault::Damaged,
    })?;
    // The plaintext is shorter than the ciphertext, so this never grows and leaves no copy behind.
    let mut plaintext = Zeroizing::new(Vec::with_capacity(sealed.len()));
    reader.read_to_end(&mut plaintext).map_err(|_| Fault::Damaged)?;
    Ok(plaintext)
}

/// Seals with `passphrase` what only it, or Debian's `age` with it, then opens; armoured.
pub(super) fn seal(plaintext: &[u8], passphrase: &Passphrase) -> Result<Vec<u8>, age::EncryptError> {
    let mut recipient = age::scrypt::Recipient::new(passphrase.secret());
    recipient.set_work_factor(WORK_FACTOR);
    let encryptor = age::Encryptor::with_recipients(std::iter::once(&recipient as _))?;
    let mut sealed = Vec::new();
    let mut writer = encryptor.wrap_output(ArmoredWriter::wrap_output(&mut sealed, Format::AsciiArmor)?)?;
    writer.write_all(plaintext)?;
    writer.finish()?.finish()?;
    Ok(sealed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::new(text.to_owned())
    }

    /// As [`seal`] with another work factor.
    fn sealed(work_factor: u8) -> Vec<u8> {
        let mut recipient = age::scrypt::Recipient::new(passphrase("correct horse").secret());
        recipient.set_work_factor(work_factor);
        age::encrypt(&recipient, b"plaintext").unwrap()
    }

    #[test]
    fn the_right_passphrase_opens_and_another_does_not() {
        let sealed = sealed(2);
        assert!(is_sealed(&sealed) && !is_sealed(b"AGE-SECRET-KEY-1"));
        assert_eq!(**unseal(&sealed, &passphrase("correct horse")).unwrap(), *b"plaintext");
        assert_eq!(unseal(&sealed, &passphrase("wrong")).err(), Some(Fault::WrongPassphrase));
        assert_eq!(unseal(&sealed[..40], &passphrase("wrong")).err(), Some(Fault::Damaged));
        let cut = unseal(&sealed[..sealed.len() - 1], &passphrase("correct horse"));
        assert_eq!(cut.err(), Some(Fault::Damaged));
    }

    #[test]
    fn a_file_that_asks_for_more_work_is_refused_untried() {
        // Sealing with more would take its time here too: the header is edited instead, and is judged first.
        let text = String::from_utf8_lossy(&sealed(2)).into_owned();
        let line = text.lines().nth(1).unwrap();
        assert!(line.ends_with(" 2"));
        let header = text.as_bytes().iter().position(|byte| *byte == b'\n').unwrap() + line.len();
        let mut more = sealed(2);
        more.splice(header..=header, *b"19");
        assert_eq!(
            unseal(&more, &passphrase("correct horse")).err(),
            Some(Fault::TooMuchWork { required: 19, most: 18 })
        );
    }

    #[test]
    fn what_is_sealed_for_recipients_is_no_matter_of_a_passphrase() {
        let sealed = age::encrypt(&age::x25519::Identity::generate().to_public(), b"plaintext").unwrap();
        assert_eq!(unseal(&sealed, &passphrase("correct horse")).err(), Some(Fault::SealedForRecipients));
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", passphrase("correct horse")), "Passphrase(hidden)");
    }
}
