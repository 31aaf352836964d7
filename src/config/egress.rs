//! What `[environment.NAME]` says of the way out: `proxy`, `bind`, `private_addresses`, `pins`.

use std::{fmt, net::IpAddr};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::vault::reference::Reference;

/// How connections to an environment get out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Egress {
    /// The address of this machine that they leave from; `None`: the system chooses. Only addresses of its family are
    /// dialled.
    pub bind: Option<IpAddr>,
    /// The proxy that connects for us. It looks the host up, and carries TLS that it cannot look into.
    pub proxy: Option<Proxy>,
    /// Which addresses of the host may be dialled.
    pub reach: Reach,
    /// Public keys of which one must be in the host's verified chain; empty: none need be.
    pub pins: Vec<Pin>,
}

/// An HTTP proxy that takes CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// A DNS name or IPv4 address, in lower case.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Who we are there; `None`: it does not ask.
    pub login: Option<Login>,
}

/// The user of a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// An identifier, not a secret.
    pub username: String,
    /// The password, which may be sent to the proxy's host and to no other.
    pub password: Reference,
}

/// Which addresses may be dialled. Whoever answers for the host's name chooses among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reach {
    /// Those of the public internet: the default for a name.
    #[default]
    Public,
    /// Loopback ones: for `localhost`.
    Loopback,
    /// Any: the `url` names the address itself, or `private_addresses` says so.
    Any,
}

/// The SHA-256 digest of a public key, as X.509 writes it (SubjectPublicKeyInfo).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pin([u8; 32]);

impl Pin {
    /// Reads `sha256/` and 44 characters of Base64.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digest = STANDARD.decode(text.strip_prefix("sha256/")?).ok()?;
        digest.try_into().ok().map(Self)
    }

    /// The pin of a public key, given as DER.
    #[must_use]
    pub fn of(public_key: &[u8]) -> Self {
        let mut pin = [0; 32];
        pin.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, public_key).as_ref());
        Self(pin)
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256/{}", STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_has_one_spelling() {
        let pin = Pin::of(b"abc");
        // The digest that FIPS 180-2 gives for it.
        let text = "sha256/ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";
        assert_eq!(pin.to_string(), text);
        assert_eq!(Pin::parse(text), Some(pin));
        for text in
            ["", "sha256/", "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=", "sha1/ungWv48Bz+pBQUDeXa4="]
        {
            assert_eq!(Pin::parse(text), None, "{text}");
        }
        for changed in [text.trim_end_matches('=').to_owned(), format!("{text}\n"), text.replace('/', "_")] {
            assert_eq!(Pin::parse(&changed), None, "{changed}");
        }
    }
}
