//! Sealing: what is kept of a connection's tokens can be read only with a key from the vault.
//!
//! In: tokens, and what they are bound to. Out: bytes that say nothing without the key, and open only where they were
//! sealed. AES-256-GCM of aws-lc-rs with a random nonce for each seal, under a key that HKDF-SHA-256 makes of a secret of
//! the vault. One key seals; any number of former ones still open, so that a key can be changed while the store is used.
//! A key has an id, made by the same HKDF, that is written beside what it sealed, and gives the key of handles.
//!
//! What must never happen: a token is written unsealed; bytes of another store, connection or version, or beside another
//! header, open; a record of a key that is not known is opened or replaced; plaintext stays in memory that was freed.
//!
//! A random nonce is good for 2^32 seals of one key: refreshed every ten minutes, 10,000 connections take eight years.
//! What is not prevented: whoever can write the store puts the whole of it back as it was before.

use std::{fmt, str::FromStr, sync::Arc};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    hkdf,
};
use base64::{Engine, prelude::BASE64_STANDARD as BASE64};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{connection::ConnectionId, handle::HandleKey, store::Version};
use crate::vault::secret::{Secret, Unfit};

/// The shortest secret that a key is made of, in bytes: HKDF stretches nothing, and whoever has a copy of the store can
/// guess for as long as he likes.
const SECRET_BYTES_MIN: usize = 32;

/// Why there are no keys, or something was not sealed or opened. No value is part of it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// It could be guessed.
    #[error(
        "the key of the store of connections is shorter than {SECRET_BYTES_MIN} bytes; make one with `openssl rand -base64 32`"
    )]
    Short,
    /// Nobody here has the key.
    #[error("it is sealed with key {0}, which is not among the keys that are configured")]
    UnknownKey(KeyId),
    /// It is not what was sealed there.
    #[error("it is damaged, or was moved here from elsewhere")]
    Damaged,
    /// It opens, to what is no token.
    #[error("it opens, and a token in it {0}")]
    Unfit(Unfit),
    /// aws-lc failed.
    #[error("the cryptography provider failed")]
    Provider,
}

/// Tells a key from others, without saying anything of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct KeyId(u64);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl KeyId {
    pub(crate) fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }
}

impl FromStr for KeyId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let id = u64::from_str_radix(text, 16).map(Self).map_err(|_| Error::Damaged)?;
        if id.to_string() == text { Ok(id) } else { Err(Error::Damaged) }
    }
}

/// One store, so that records of two stores with one key cannot change places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoreId(pub(crate) [u8; 16]);

/// What a seal is bound to. All of it must be the same when it is opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bound<'a> {
    pub(crate) store: StoreId,
    pub(crate) id: ConnectionId,
    pub(crate) version: Version,
    /// The key that seals, or sealed.
    pub(crate) key: KeyId,
    /// What is kept beside it in the clear.
    pub(crate) header: &'a [u8],
}

impl Bound<'_> {
    /// Of fixed lengths but for the last, so that no two of them are written alike.
    fn aad(&self) -> Vec<u8> {
        let version = self.version.0.to_be_bytes();
        let key = self.key.to_bytes();
        [b"mxgate connection 1\0" as &[u8], &self.store.0, &self.id.to_bytes(), &version, &key, self.header]
            .concat()
    }
}

/// The two tokens of a connection, as they are sealed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) access: Option<Arc<Secret>>,
    pub(crate) refresh: Option<Arc<Secret>>,
}

/// The plaintext. Base64, so that no escape keeps it from being borrowed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire<'a> {
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    access: Option<&'a str>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    refresh: Option<&'a str>,
}

/// The keys of a store.
pub(crate) struct Keys {
    sealing: Key,
    former: Vec<Key>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Keys({}, former {:?})",
            self.sealing.id,
            self.former.iter().map(|key| key.id).collect::<Vec<_>>()
        )
    }
}

impl Keys {
    /// `sealing` seals from now on; what one of `former` sealed still opens.
    ///
    /// # Errors
    /// [`Error::Short`].
    pub(crate) fn new<'s>(
        sealing: &Secret,
        former: impl IntoIterator<Item = &'s Arc<Secret>>,
    ) -> Result<Self, Error> {
        let former = former.into_iter().map(|secret| Key::of(secret)).collect::<Result<_, _>>()?;
        Ok(Self { sealing: Key::of(sealing)?, former })
    }

    /// The id of the key that seals.
    pub(crate) fn sealing(&self) -> KeyId {
        self.sealing.id
    }

    /// What handles are made with. With another sealing key, a token gets another handle; the one before still opens it.
    pub(crate) fn handles(&self) -> HandleKey {
        self.sealing.handles.clone()
    }

    /// # Errors
    /// [`Error::UnknownKey`].
    pub(crate) fn check(&self, id: KeyId) -> Result<(), Error> {
        self.find(id).map(drop)
    }

    fn find(&self, id: KeyId) -> Result<&Key, Error> {
        let mut keys = std::iter::once(&self.sealing).chain(&self.former);
        keys.find(|key| key.id == id).ok_or(Error::UnknownKey(id))
    }

    /// `pair`, sealed where `bound` says. Its key must be [`Keys::sealing`].
    ///
    /// # Errors
    /// [`Error::UnknownKey`] or [`Error::Provider`].
    pub(crate) fn seal(&self, pair: &Pair, bound: &Bound<'_>) -> Result<Vec<u8>, Error> {
        self.seal_text(plaintext(pair)?, bound.key, bound.aad())
    }

    /// `text`, sealed under `key`, which must be [`Keys::sealing`]. `bound` is all that it is bound to, and begins with
    /// what no other kind of seal's does.
    ///
    /// # Errors
    /// As [`Keys::seal`].
    pub(crate) fn seal_text(
        &self,
        mut text: Zeroizing<Vec<u8>>,
        key: KeyId,
        bound: Vec<u8>,
    ) -> Result<Vec<u8>, Error> {
        if key != self.sealing.id {
            return Err(Error::UnknownKey(key));
        }
        let (nonce, tag) = self
            .sealing
            .aead
            .seal_in_place_separate_tag(Aad::from(bound), &mut text)
            .map_err(|_| Error::Provider)?;
        Ok([nonce.as_ref() as &[u8], &text, tag.as_ref()].concat())
    }

    /// What was sealed where `bound` says. The tokens are not yet masked in logs: see [`held`](crate::redaction::held).
    ///
    /// # Errors
    /// [`Error::UnknownKey`], [`Error::Damaged`] or [`Error::Unfit`].
    pub(crate) fn open(&self, sealed: &[u8], bound: &Bound<'_>) -> Result<Pair, Error> {
        let text = self.open_text(sealed, bound.key, bound.aad())?;
        let wire: Wire<'_> = serde_json::from_slice(&text).map_err(|_| Error::Damaged)?;
        Ok(Pair {
            access: wire.access.map(decode).transpose()?,
            refresh: wire.refresh.map(decode).transpose()?,
        })
    }

    /// What [`Keys::seal_text`] sealed.
    ///
    /// # Errors
    /// [`Error::UnknownKey`] or [`Error::Damaged`].
    pub(crate) fn open_text(
        &self,
        sealed: &[u8],
        key: KeyId,
        bound: Vec<u8>,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let key = self.find(key)?;
        let (nonce, rest) = sealed.split_at_checked(NONCE_LEN).ok_or(Error::Damaged)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Error::Damaged)?;
        let mut text = Zeroizing::new(rest.to_vec());
        let opened = key.aead.open_in_place(nonce, Aad::from(bound), &mut text);
        let length = opened.map_err(|_| Error::Damaged)?.len();
        text.truncate(length);
        Ok(text)
    }
}

struct Key {
    id: KeyId,
    aead: RandomizedNonceKey,
    handles: HandleKey,
}

impl Key {
    #[expect(clippy::disallowed_methods, reason = "makes the key of the secret")]
    fn of(secret: &Secret) -> Result<Self, Error> {
        let bytes = secret.expose();
        if bytes.len() < SECRET_BYTES_MIN {
            return Err(Error::Short);
        }
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, b"mxgate connections").extract(bytes);
        let mut key = Zeroizing::new([0; 32]);
        expand(&prk, b"seal: aes-256-gcm", &mut *key)?;
        let mut id = [0; 8];
        expand(&prk, b"key id", &mut id)?;
        let aead = RandomizedNonceKey::new(&AES_256_GCM, &*key).map_err(|_| Error::Provider)?;
        expand(&prk, b"handles: hmac-sha-256", &mut *key)?;
        Ok(Self { id: KeyId(u64::from_be_bytes(id)), aead, handles: HandleKey::new(&key) })
    }
}

fn expand(prk: &hkdf::Prk, label: &'static [u8], out: &mut [u8]) -> Result<(), Error> {
    struct Len(usize);
    impl hkdf::KeyType for Len {
        fn len(&self) -> usize {
            self.0
        }
    }
    let labels = [label];
    let okm = prk.expand(&labels, Len(out.len())).map_err(|_| Error::Provider)?;
    okm.fill(out).map_err(|_| Error::Provider)
}

fn plaintext(pair: &Pair) -> Result<Zeroizing<Vec<u8>>, Error> {
    let [access, refresh] = [&pair.access, &pair.refresh].map(|secret| secret.as_deref().map(encode));
    let wire = Wire {
        access: access.as_ref().map(|text| text.as_str()),
        refresh: refresh.as_ref().map(|text| text.as_str()),
    };
    let length = [wire.access, wire.refresh].into_iter().flatten().map(str::len).sum::<usize>();
    // One allocation: growing would leave an unwiped copy.
    let mut text = Zeroizing::new(Vec::with_capacity(length + BRACES));
    serde_json::to_writer(&mut *text, &wire).map_err(|_| Error::Provider)?;
    Ok(text)
}

/// More than everything in the plaintext but the tokens.
const BRACES: usize = 64;

#[expect(clippy::disallowed_methods, reason = "sealing a token needs its bytes")]
fn encode(secret: &Secret) -> Zeroizing<String> {
    let bytes = secret.expose();
    let mut text = Zeroizing::new(String::with_capacity(bytes.len().div_ceil(3) * 4));
    BASE64.encode_string(bytes, &mut text);
    text
}

fn decode(text: &str) -> Result<Arc<Secret>, Error> {
    let bytes = BASE64.decode(text).map_err(|_| Error::Damaged)?;
    Secret::new(bytes).map(Arc::new).map_err(Error::Unfit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "0123456789abcdef0123456789abcdef";
    const OTHER: &str = "fedcba9876543210fedcba9876543210";

    fn secret(text: &str) -> Arc<Secret> {
        Arc::new(Secret::new(text.into()).unwrap())
    }

    fn pair() -> Pair {
        Pair { access: Some(secret("canary-access\"\\")), refresh: Some(secret("canary-refresh")) }
    }

    fn bound(keys: &Keys) -> Bound<'_> {
        let id = ConnectionId::from_bytes([1; 16]);
        Bound { store: StoreId([2; 16]), id, version: Version(3), key: keys.sealing(), header: b"header" }
    }

    #[test]
    fn what_was_sealed_opens_and_says_nothing_before() {
        let keys = Keys::new(&secret(KEY), []).unwrap();
        for pair in [pair(), Pair::default(), Pair { access: None, ..pair() }] {
            let sealed = keys.seal(&pair, &bound(&keys)).unwrap();
            assert_eq!(keys.open(&sealed, &bound(&keys)), Ok(pair));
            let base64 = BASE64.encode("canary-refresh");
            let shown = String::from_utf8_lossy(&sealed);
            assert!(!shown.contains("canary") && !shown.contains(&base64));
        }
        let twice = [(); 2].map(|()| keys.seal(&pair(), &bound(&keys)).unwrap());
        assert_ne!(twice[0][..NONCE_LEN], twice[1][..NONCE_LEN]);
    }

    #[test]
    fn it_opens_nowhere_else_and_not_when_a_bit_was_changed() {
        let keys = Keys::new(&secret(KEY), []).unwrap();
        let here = bound(&keys);
        let sealed = keys.seal(&pair(), &here).unwrap();
        for elsewhere in [
            Bound { store: StoreId([9; 16]), ..here },
            Bound { id: ConnectionId::from_bytes([9; 16]), ..here },
            Bound { version: Version(2), ..here },
            Bound { version: Version(4), ..here },
            Bound { header: b"headeR", ..here },
        ] {
            assert_eq!(keys.open(&sealed, &elsewhere), Err(Error::Damaged), "{elsewhere:?}");
        }
        for place in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[place] ^= 1;
            assert_eq!(keys.open(&changed, &here), Err(Error::Damaged), "byte {place}");
            assert_eq!(keys.open(&sealed[..place], &here), Err(Error::Damaged), "cut at {place}");
        }
    }

    #[test]
    fn a_former_key_opens_and_does_not_seal_and_an_unknown_one_does_neither() {
        let old = Keys::new(&secret(OTHER), []).unwrap();
        let sealed = old.seal(&pair(), &bound(&old)).unwrap();
        let both = Keys::new(&secret(KEY), &[secret(OTHER)]).unwrap();
        assert_eq!(both.open(&sealed, &bound(&old)), Ok(pair()));
        assert_eq!(both.seal(&pair(), &bound(&old)), Err(Error::UnknownKey(old.sealing())));
        let new = Keys::new(&secret(KEY), []).unwrap();
        assert_eq!(new.open(&sealed, &bound(&old)), Err(Error::UnknownKey(old.sealing())));
        // The id alone opens nothing.
        assert_eq!(new.open(&sealed, &bound(&new)), Err(Error::Damaged));
        assert_eq!(old.sealing().to_string().parse(), Ok(old.sealing()));
        assert_eq!("+0".parse::<KeyId>(), Err(Error::Damaged));
    }

    #[test]
    fn a_key_that_could_be_guessed_is_refused() {
        assert_eq!(Keys::new(&secret(&KEY[1..]), []).err(), Some(Error::Short));
        assert_eq!(Keys::new(&secret(KEY), &[secret("short-one")]).err(), Some(Error::Short));
        let shown = format!("{:?}", Keys::new(&secret(KEY), &[secret(OTHER)]).unwrap());
        assert!(!shown.contains(&KEY[..8]) && !shown.contains(&OTHER[..8]), "{shown}");
    }

    #[test]
    fn the_plaintext_never_grows_its_buffer() {
        let long = secret(&"x".repeat(5000));
        for pair in [pair(), Pair { access: Some(long.clone()), refresh: Some(long) }, Pair::default()] {
            let text = plaintext(&pair).unwrap();
            let tokens: usize =
                [&pair.access, &pair.refresh].into_iter().flatten().map(|secret| encode(secret).len()).sum();
            assert!(text.len() <= tokens + BRACES && text.capacity() < tokens + 2 * BRACES);
        }
    }
}
