//! A secret value: it cannot be printed, copied or serialised, and it is wiped on drop.
//!
//! `Secret::expose` is a disallowed method (`clippy.toml`) everywhere but in the few modules that put a
//! secret on the wire, seal it or mask it. TLS and socket buffers are outside the promise.

use std::fmt;

use zeroize::Zeroizing;

/// The shortest secret that is accepted, in bytes. Anything shorter could not be masked by value
/// without masking ordinary text too, and is no key of MX's.
pub const BYTES_MIN: usize = 8;

/// One secret value.
pub struct Secret(Zeroizing<Box<[u8]>>);

/// Why bytes cannot be a secret. The bytes themselves are never part of the message.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unfit {
    /// Nothing, or one newline.
    #[error("is empty")]
    Empty,
    /// Shorter than [`BYTES_MIN`].
    #[error("is shorter than {BYTES_MIN} bytes")]
    TooShort,
    /// Holds a control byte, so it could not be sent in a header as it is.
    #[error("holds a control byte (only one newline at the very end is trimmed)")]
    ControlByte,
    /// Holds a byte above 127, which servers read in different ways.
    #[error("holds a byte outside ASCII")]
    NotAscii,
}

impl Secret {
    /// Takes ownership of `bytes`; one trailing newline (LF or CRLF) is trimmed, since files end in one.
    ///
    /// # Errors
    /// [`Unfit`] when what is left is too short or holds a control byte.
    pub fn new(bytes: Vec<u8>) -> Result<Self, Unfit> {
        let mut bytes = Zeroizing::new(bytes);
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
        if bytes.is_empty() {
            return Err(Unfit::Empty);
        }
        if bytes.len() < BYTES_MIN {
            return Err(Unfit::TooShort);
        }
        if bytes.iter().any(u8::is_ascii_control) {
            return Err(Unfit::ControlByte);
        }
        // A copy into an exact allocation: shrinking in place could leave the tail unwiped.
        Ok(Self(Zeroizing::new(bytes.as_slice().into())))
    }

    /// Whether a header may carry it so that every server reads the same. (A vault may hold others.)
    ///
    /// # Errors
    /// [`Unfit::NotAscii`].
    pub fn check_sendable(&self) -> Result<(), Unfit> {
        if self.0.is_ascii() { Ok(()) } else { Err(Unfit::NotAscii) }
    }

    /// The bytes, for the modules that are allowed to send, seal or mask them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The first 8 hex digits of the SHA-256 of the value: enough to tell two keys apart in `list`,
    /// logs and records, too little to guess from.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.0);
        let mut short = [0; 4];
        short.copy_from_slice(&digest.as_ref()[..4]);
        Fingerprint(short)
    }
}

/// Constant time for equal lengths.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// Tells two secrets apart without showing either; see [`Secret::fingerprint`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 4]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_newline_is_trimmed_and_no_more() {
        assert_eq!(Secret::new(b"12345678\n".to_vec()), Secret::new(b"12345678".to_vec()));
        assert_eq!(Secret::new(b"12345678\r\n".to_vec()), Secret::new(b"12345678".to_vec()));
        assert_eq!(Secret::new(b"12345678\n\n".to_vec()), Err(Unfit::ControlByte));
    }

    #[test]
    fn short_values_are_refused_and_eight_bytes_are_not() {
        assert_eq!(Secret::new(b"\r\n".to_vec()), Err(Unfit::Empty));
        assert_eq!(Secret::new(b"1234567\n".to_vec()), Err(Unfit::TooShort));
        assert!(Secret::new(b"12345678".to_vec()).is_ok());
    }

    #[test]
    fn what_servers_read_in_different_ways_is_not_sent() {
        assert_eq!(Secret::new(b"12345678".to_vec()).unwrap().check_sendable(), Ok(()));
        let secret = Secret::new("12345678ä".into()).unwrap();
        assert_eq!(secret.check_sendable(), Err(Unfit::NotAscii));
    }

    #[test]
    fn debug_shows_nothing() {
        let secret = Secret::new(b"canary-value".to_vec());
        assert_eq!(format!("{secret:?}"), "Ok(Secret(hidden))");
    }
}
