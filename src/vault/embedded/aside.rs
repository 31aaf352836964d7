//! One secret in a file of its own, sealed for whoever opens the vault: what a rotation cannot put into the vault.
//!
//! ```json
//! {"format":"mxgate-secret","version":1,"label":"production","value":"BASE64","mac":"BASE64"}
//! ```
//! age proves no author, so the MAC does: HMAC-SHA-256 under the identity's document key over the JSON without `mac`,
//! which begins with another format than a vault's. What must never happen: a key that somebody else has planted is
//! taken for one of MX's.

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::identity::Identity;
use crate::vault::secret::Secret;

const FORMAT: &str = "mxgate-secret";
const VERSION: u32 = 1;

/// Why there is no secret in the bytes, or none could be sealed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Encrypted to somebody else, damaged, or not by the holder of this identity.
    #[error("it was not sealed by a holder of this identity, or it is damaged")]
    Unsound,
    /// For another purpose.
    #[error("it holds another secret than the one that is asked for")]
    AnotherLabel,
    /// age or JSON failed.
    #[error("the secret could not be sealed")]
    Seal,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire<'a> {
    format: &'a str,
    version: u32,
    label: &'a str,
    value: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mac: Option<&'a str>,
}

/// `secret` under `label`, for `identity`.
///
/// # Errors
/// [`Error::Seal`].
#[expect(clippy::disallowed_methods, reason = "sealing a secret needs its bytes")]
pub fn seal(identity: &Identity, label: &str, secret: &Secret) -> Result<Vec<u8>, Error> {
    let bytes = secret.expose();
    // One allocation each: growing would leave an unwiped copy.
    let mut value = Zeroizing::new(String::with_capacity(bytes.len().div_ceil(3) * 4));
    BASE64.encode_string(bytes, &mut value);
    let mut wire = Wire { format: FORMAT, version: VERSION, label, value: &value, mac: None };
    let mac = BASE64.encode(hmac::sign(identity.document_mac(), &json(&wire)?));
    wire.mac = Some(&mac);
    identity.encrypt(&json(&wire)?).map_err(|_| Error::Seal)
}

/// The secret that was sealed under `label`.
///
/// # Errors
/// [`Error::Unsound`] or [`Error::AnotherLabel`].
pub fn open(identity: &Identity, label: &str, sealed: &[u8]) -> Result<Secret, Error> {
    let plaintext = identity.decrypt(sealed).map_err(|_| Error::Unsound)?;
    let mut wire: Wire<'_> = serde_json::from_slice(&plaintext).map_err(|_| Error::Unsound)?;
    let mac = wire.mac.take().and_then(|mac| BASE64.decode(mac).ok()).ok_or(Error::Unsound)?;
    hmac::verify(identity.document_mac(), &json(&wire)?, &mac).map_err(|_| Error::Unsound)?;
    if (wire.format, wire.version, wire.label) != (FORMAT, VERSION, label) {
        return Err(Error::AnotherLabel);
    }
    let bytes = BASE64.decode(wire.value).map_err(|_| Error::Unsound)?;
    Secret::new(bytes).map_err(|_| Error::Unsound)
}

fn json(wire: &Wire<'_>) -> Result<Zeroizing<Vec<u8>>, Error> {
    // Room for everything that is not the value: growing would leave an unwiped copy.
    let mut json = Zeroizing::new(Vec::with_capacity(wire.value.len() + wire.label.len() + 512));
    serde_json::to_writer(&mut *json, wire).map_err(|_| Error::Seal)?;
    Ok(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_is_opened_by_its_identity_and_label_only() {
        let folder = tempfile::tempdir().unwrap();
        let identity = |name| Identity::create(&folder.path().join(name)).unwrap();
        let (own, other) = (identity("own"), identity("other"));
        let secret = Secret::new(b"the-new-key".to_vec()).unwrap();
        let sealed = seal(&own, "production", &secret).unwrap();
        assert_eq!(open(&own, "production", &sealed).unwrap(), secret);
        assert!(matches!(open(&own, "sandbox", &sealed), Err(Error::AnotherLabel)));
        assert!(matches!(open(&other, "production", &sealed), Err(Error::Unsound)));
        // Encrypted to the right recipient, by somebody who does not hold the identity.
        let forged = br#"{"format":"mxgate-secret","version":1,"label":"production","value":"cGxhbnRlZC1rZXk=","mac":"AAAA"}"#;
        let planted = own.encrypt(forged).unwrap();
        assert!(matches!(open(&own, "production", &planted), Err(Error::Unsound)));
    }
}
