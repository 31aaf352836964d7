//! The public halves that a vault is sealed for: `age1...` or `ssh-ed25519 ...`. None is a secret.
//!
//! In comes one line as `age-keygen -y` or an `.pub` file has it, perhaps with a comment behind. `ssh-rsa` is
//! refused: opening with such a key takes an RSA implementation that may give the key away by its timing.

use std::{fmt, str::FromStr};

/// The longest comment, in characters.
const COMMENT_MAX: usize = 64;

/// Somebody that a vault can be sealed for.
#[derive(Clone)]
pub struct Recipient {
    key: Key,
    text: String,
    comment: String,
}

#[derive(Clone)]
enum Key {
    X25519(age::x25519::Recipient),
    Ssh(age::ssh::Recipient),
}

/// Why a text is no recipient. It repeats nothing of it, which may be a secret pasted by mistake.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Malformed {
    /// Something else.
    #[error("is no recipient: write age1... or ssh-ed25519 ..., the public half of an identity")]
    Unknown,
    /// The private half.
    #[error(
        "is an identity itself, not its public half; it is never taken from an argument, and you should consider it exposed"
    )]
    Secret,
    /// A key of that kind.
    #[error("is an ssh-rsa key, which is not supported; use ssh-ed25519 or age1...")]
    Rsa,
    /// Some other kind of ssh key.
    #[error("is an ssh key of a kind that age cannot encrypt to; use ssh-ed25519 or age1...")]
    OtherSsh,
    /// An ssh key that was to be sealed.
    #[error("has a passphrase of its own; `ssh-keygen -p` changes it")]
    OwnPassphrase,
}

impl Recipient {
    /// The public half, in the one spelling that is written into a vault.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Who that is, as far as anybody said; perhaps empty.
    #[must_use]
    pub fn comment(&self) -> &str {
        &self.comment
    }

    /// The same with another comment; what could not be written in plain JSON is left out.
    #[must_use]
    pub fn with_comment(mut self, comment: &str) -> Self {
        self.comment = comment.trim().chars().filter(|c| is_plain(*c)).take(COMMENT_MAX).collect();
        self
    }

    /// Whether its identity can prove to itself who wrote a vault. An ssh key cannot: age gives nothing of it
    /// away that a MAC could be keyed by.
    #[must_use]
    pub fn can_prove(&self) -> bool {
        matches!(self.key, Key::X25519(_))
    }

    pub(super) fn as_age(&self) -> &dyn age::Recipient {
        match &self.key {
            Key::X25519(key) => key,
            Key::Ssh(key) => key,
        }
    }

    /// Of an ssh identity.
    pub(super) fn of_ssh(key: age::ssh::Recipient) -> Result<Self, Malformed> {
        match key {
            age::ssh::Recipient::SshRsa(..) => Err(Malformed::Rsa),
            age::ssh::Recipient::SshEd25519(..) => {
                Ok(Self { text: key.to_string(), key: Key::Ssh(key), comment: String::new() })
            }
        }
    }
}

impl From<age::x25519::Recipient> for Recipient {
    fn from(key: age::x25519::Recipient) -> Self {
        Self { text: key.to_string(), key: Key::X25519(key), comment: String::new() }
    }
}

impl FromStr for Recipient {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let text = text.trim();
        if text.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") || text.contains("PRIVATE KEY-----") {
            return Err(Malformed::Secret);
        }
        let mut words = text.splitn(2, char::is_whitespace);
        let first = words.next().unwrap_or_default();
        if let Ok(key) = first.parse::<age::x25519::Recipient>() {
            return Ok(Self::from(key).with_comment(words.next().unwrap_or_default()));
        }
        // Before they are parsed, so that a broken one is not sent for repair.
        match first {
            "ssh-rsa" => return Err(Malformed::Rsa),
            "ssh-dss" => return Err(Malformed::OtherSsh),
            _ if first.starts_with("ecdsa-") || first.starts_with("sk-") => return Err(Malformed::OtherSsh),
            _ => {}
        }
        let key: age::ssh::Recipient = text.parse().map_err(|_| Malformed::Unknown)?;
        let comment = text.splitn(3, char::is_whitespace).nth(2).unwrap_or_default();
        Ok(Self::of_ssh(key)?.with_comment(comment))
    }
}

/// The same key, whatever the comment.
impl PartialEq for Recipient {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Recipient {}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recipient({} {})", self.text, self.comment)
    }
}

/// What JSON writes as it is: a document is read without unescaping.
pub(super) fn is_plain(c: char) -> bool {
    (c.is_ascii_graphic() || c == ' ') && !matches!(c, '"' | '\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    const X25519: &str = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";
    const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN";
    const RSA: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQDE7nIXbSuhPgfm9ZTqMaEH8HKqQ7LHnUxZ9s9Zw6Eka";

    #[test]
    fn age_and_ssh_ed25519_are_recipients_with_their_comments() {
        for text in [X25519, ED25519] {
            let plain: Recipient = text.parse().unwrap();
            assert_eq!((plain.text(), plain.comment()), (text, ""));
            let spoken: Recipient = format!("  {text}   in the safe, \"2nd\" floor \n").parse().unwrap();
            assert_eq!((spoken.text(), spoken.comment()), (text, "in the safe, 2nd floor"));
            assert_eq!(plain, spoken);
        }
        assert!(X25519.parse::<Recipient>().unwrap().can_prove());
        assert!(!ED25519.parse::<Recipient>().unwrap().can_prove());
    }

    #[test]
    fn other_keys_and_identities_are_refused_each_with_its_reason() {
        for (text, fault) in [
            ("", Malformed::Unknown),
            ("age1abc", Malformed::Unknown),
            ("production", Malformed::Unknown),
            ("ssh-ed25519", Malformed::Unknown),
            ("ssh-ed25519 AAAA", Malformed::Unknown),
            (RSA, Malformed::Rsa),
            ("ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTY", Malformed::OtherSsh),
            ("age-secret-key-1gq9778vqxmmjve8sk7j6vt8uj4hdqajuvsfcwcm02d8gewq72pvq2y5j33", Malformed::Secret),
            ("-----BEGIN OPENSSH PRIVATE KEY-----", Malformed::Secret),
        ] {
            assert_eq!(text.parse::<Recipient>().err(), Some(fault), "{text}");
        }
    }
}
