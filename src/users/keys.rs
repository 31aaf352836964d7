//! The public keys that end users' tokens are signed with: a JSON Web Key Set (RFC 7517), from a file or an address.
//!
//! In: the set as published. Out: a `KeySet` of those keys that verify, found by `kid` and algorithm. A set from a
//! file belongs to the snapshot. One from an address is fetched by the control plane, which the data plane never waits
//! for: it reads the last good set, and without one the answer is no.
//! What must never happen: a key verifies with an algorithm of another kind, or one that signs as well as it verifies
//! (HMAC) is taken at all; strangers decide how often a set is fetched.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arc_swap::{ArcSwapOption, Guard};
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse},
};
use tokio::{sync::Notify, time};

use super::{
    fetch::{self, Fetcher},
    list,
};
use crate::{
    config::{EndUser, KeysAt},
    metrics::Metrics,
    tls::TlsFault,
};

/// A key set may have so many bytes.
pub(super) const SET_BYTES_MAX: u64 = 256 << 10;

/// Keys of a set that are looked at.
const KEYS_MAX: usize = 100;

/// The shortest RSA key, as RFC 7518, 3.3 wants it.
const RSA_BYTES_MIN: usize = 2048 / 8;

/// How often a set is fetched.
const REFRESH: Duration = Duration::from_secs(5 * 60);

/// The least time between two fetches, whoever asks: after a failure, or for a `kid` that nobody knows.
const PAUSE: Duration = Duration::from_secs(5);

/// How long the last good set stays in use when none can be fetched. Tokens seldom live longer, so by then nobody has
/// one that is still good.
const GRACE: Duration = Duration::from_secs(60 * 60);

/// Keys that verify tokens.
#[derive(Debug)]
pub(crate) struct KeySet {
    /// Another number for every set of this process.
    pub(super) version: u64,
    keys: Vec<Key>,
    /// `None`: from a file.
    fetched: Option<Instant>,
}

#[derive(Debug)]
struct Key {
    id: Option<String>,
    /// The one algorithm that it is published for.
    only: Option<Algorithm>,
    kind: KeyKind,
    key: DecodingKey,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyKind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

/// Why a key set cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetFault {
    #[error("is no JSON Web Key Set")]
    Malformed,
    #[error("has more than {KEYS_MAX} keys")]
    TooMany,
    #[error("has two keys of one kid")]
    SameId,
    #[error(
        "has no key that verifies RS, PS, ES or EdDSA signatures (RSA from 2048 bits, P-256, P-384, Ed25519)"
    )]
    NoKey,
}

impl KeySet {
    pub(super) fn parse(text: &[u8], fetched: Option<Instant>) -> Result<Self, SetFault> {
        #[derive(serde::Deserialize)]
        struct Written {
            keys: Vec<serde_json::Value>,
        }
        static VERSIONS: AtomicU64 = AtomicU64::new(1);

        let written: Written = serde_json::from_slice(text).map_err(|_| SetFault::Malformed)?;
        if written.keys.len() > KEYS_MAX {
            return Err(SetFault::TooMany);
        }
        // Kinds of key that this gateway does not know stand beside those that it does.
        let known = written.keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
        let keys: Vec<Key> = known.filter_map(|key| Key::new(&key)).collect();
        if keys.is_empty() {
            return Err(SetFault::NoKey);
        }
        let same = |(at, key): (usize, &Key)| keys.iter().take(at).any(|other| other.id == key.id);
        if keys.iter().enumerate().any(same) {
            return Err(SetFault::SameId);
        }
        Ok(Self { version: VERSIONS.fetch_add(1, Relaxed), keys, fetched })
    }

    /// The key that a token with this header was signed with. One without a `kid` can only mean the only key.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<&DecodingKey> {
        let mut keys = self.keys.iter().filter(|key| match id {
            Some(id) => key.id.as_deref() == Some(id),
            None => self.keys.len() == 1,
        });
        keys.find(|key| key.verifies(algorithm)).map(|key| &key.key)
    }

    fn is_stale(&self) -> bool {
        self.fetched.is_some_and(|fetched| fetched.elapsed() > GRACE)
    }
}

impl Key {
    fn new(jwk: &Jwk) -> Option<Self> {
        let kind = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => KeyKind::Rsa,
            AlgorithmParameters::EllipticCurve(key) => match key.curve {
                EllipticCurve::P256 => KeyKind::P256,
                EllipticCurve::P384 => KeyKind::P384,
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => KeyKind::Ed25519,
            // Whoever has a symmetric key can sign with it.
            _ => return None,
        };
        let common = &jwk.common;
        let verifies = common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature)
            && common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
        if !verifies {
            return None;
        }
        let only = match common.key_algorithm {
            None => None,
            Some(KeyAlgorithm::UNKNOWN_ALGORITHM) => return None,
            Some(algorithm) => Some(Algorithm::try_from(algorithm).ok()?),
        };
        let key = DecodingKey::from_jwk(jwk).ok()?;
        let long_enough = match key.kind() {
            jsonwebtoken::DecodingKeyKind::RsaModulusExponent { n, .. } => n.len() >= RSA_BYTES_MIN,
            jsonwebtoken::DecodingKeyKind::SecretOrDer(_) => true,
        };
        long_enough.then(|| Self { id: common.key_id.clone(), only, kind, key })
    }

    fn verifies(&self, algorithm: Algorithm) -> bool {
        use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
        let fits = match self.kind {
            KeyKind::Rsa => matches!(algorithm, RS256 | RS384 | RS512 | PS256 | PS384 | PS512),
            KeyKind::P256 => algorithm == ES256,
            KeyKind::P384 => algorithm == ES384,
            KeyKind::Ed25519 => algorithm == EdDSA,
        };
        fits && self.only.is_none_or(|only| only == algorithm)
    }
}

/// Where a key set comes from, and the last good one. It outlives snapshots.
pub(crate) struct KeySource {
    made_from: MadeFrom,
    current: ArcSwapOption<KeySet>,
    /// `None`: a file, which a reload reads.
    fetcher: Option<Fetcher>,
    /// A token named a key that is not there.
    wanted: Notify,
    attempted: Mutex<Option<time::Instant>>,
}

/// Equal parts make an equal source.
#[derive(PartialEq, Eq)]
struct MadeFrom {
    place: KeysAt,
    /// A file's text, or the certificates that an address is verified with.
    text: Option<Vec<u8>>,
}

/// Why a source of keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceFault {
    #[error("jwks: {0}")]
    File(#[source] list::Fault),
    #[error("jwks: {path}: {source}")]
    Set { path: PathBuf, source: SetFault },
    #[error("ca_file: {0}")]
    Authority(#[source] list::Fault),
    #[error("jwks: {0}")]
    Tls(#[source] TlsFault),
}

impl std::fmt::Debug for KeySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeySource({})", self.made_from.place)
    }
}

impl KeySource {
    /// The source that `settings` name: one of `known`, with its keys, if nothing that matters changed.
    pub(super) fn new(settings: &EndUser, known: &mut Vec<Arc<Self>>) -> Result<Arc<Self>, SourceFault> {
        let text = match (&settings.jwks, &settings.ca_file) {
            (KeysAt::File(path), _) => {
                Some(list::read_bytes(path, SET_BYTES_MAX).map_err(SourceFault::File)?)
            }
            (KeysAt::Url { .. }, Some(path)) => {
                Some(list::read_bytes(path, SET_BYTES_MAX).map_err(SourceFault::Authority)?)
            }
            (KeysAt::Url { .. }, None) => None,
        };
        let made_from = MadeFrom { place: settings.jwks.clone(), text };
        if let Some(same) = known.iter().find(|known| known.made_from == made_from) {
            return Ok(same.clone());
        }
        let (current, fetcher) = match &settings.jwks {
            KeysAt::File(path) => {
                let text = made_from.text.as_deref().unwrap_or_default();
                let set = KeySet::parse(text, None);
                (Some(Arc::new(set.map_err(|source| SourceFault::Set { path: path.clone(), source })?)), None)
            }
            KeysAt::Url { host, port, path } => {
                let authority = settings.ca_file.as_deref().zip(made_from.text.as_deref());
                let fetcher = Fetcher::new(host, *port, path, authority).map_err(SourceFault::Tls)?;
                // Verified with another authority, but what it said is still the last that is known.
                let same_place = known.iter().find(|known| known.made_from.place == made_from.place);
                (same_place.and_then(|known| known.current.load_full()), Some(fetcher))
            }
        };
        let (wanted, attempted) = (Notify::new(), Mutex::default());
        let source =
            Arc::new(Self { made_from, current: ArcSwapOption::new(current), fetcher, wanted, attempted });
        known.push(source.clone());
        Ok(source)
    }

    /// The last good set, unless it is too old.
    pub(super) fn current(&self) -> Guard<Option<Arc<KeySet>>> {
        let current = self.current.load();
        if current.as_ref().is_some_and(|set| set.is_stale()) { Guard::from_inner(None) } else { current }
    }

    /// Asks for a fetch before the next regular one.
    pub(super) fn want(&self) {
        self.wanted.notify_one();
    }

    /// Keeps the set fresh until the future is dropped.
    pub(crate) async fn keep_fresh(&self, metrics: &Metrics) {
        let Some(fetcher) = &self.fetcher else { return std::future::pending().await };
        loop {
            let last = *self.attempted.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(last) = last {
                let wait = if self.current.load().is_some() { REFRESH } else { PAUSE };
                tokio::select! {
                    () = time::sleep_until(last + wait) => {}
                    () = async { tokio::join!(time::sleep_until(last + PAUSE), self.wanted.notified()); } => {}
                }
            }
            *self.attempted.lock().unwrap_or_else(PoisonError::into_inner) = Some(time::Instant::now());
            let fetched = self.refresh(fetcher).await;
            metrics.keys_fetched(fetched.is_ok());
            if let Err(error) = fetched {
                // The next attempt comes soon, not after the regular time.
                self.want();
                tracing::warn!(jwks = %self.made_from.place, %error, "no keys; the last good ones are kept for an hour");
            }
        }
    }

    async fn refresh(&self, fetcher: &Fetcher) -> Result<(), fetch::Error> {
        let text = fetcher.fetch().await?;
        let set = KeySet::parse(&text, Some(Instant::now()))?;
        self.current.store(Some(Arc::new(set)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EC: &str = r#""kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0""#;
    const ED: &str = r#""kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo""#;

    fn set(keys: &[String]) -> Result<KeySet, SetFault> {
        KeySet::parse(format!(r#"{{"keys":[{}]}}"#, keys.join(",")).as_bytes(), None)
    }

    fn key(parameters: &str, more: &str) -> String {
        format!("{{{parameters}{more}}}")
    }

    #[test]
    fn a_key_is_found_by_its_id_for_algorithms_of_its_kind() {
        let set = set(&[key(EC, r#","kid":"a""#), key(ED, r#","kid":"b""#)]).unwrap();
        assert!(set.find(Some("a"), Algorithm::ES256).is_some());
        assert!(set.find(Some("b"), Algorithm::EdDSA).is_some());
        for (id, algorithm) in [
            (Some("a"), Algorithm::ES384),
            (Some("a"), Algorithm::RS256),
            (Some("a"), Algorithm::HS256),
            (Some("a"), Algorithm::EdDSA),
            (Some("b"), Algorithm::ES256),
            (Some("c"), Algorithm::ES256),
            (Some("A"), Algorithm::ES256),
            (Some(""), Algorithm::ES256),
            (None, Algorithm::ES256),
        ] {
            assert!(set.find(id, algorithm).is_none(), "{id:?} {algorithm:?}");
        }
    }

    #[test]
    fn without_an_id_only_an_only_key_is_meant() {
        let one = set(&[key(EC, "")]).unwrap();
        assert!(one.find(None, Algorithm::ES256).is_some());
        assert!(one.find(Some("a"), Algorithm::ES256).is_none());
    }

    #[test]
    fn keys_that_do_not_verify_are_left_out() {
        let hmac = key(r#""kty":"oct","k":"c2VjcmV0""#, r#","kid":"h""#);
        let unknown = key(r#""kty":"EC","crv":"secp256k1","x":"AA","y":"AA""#, "");
        for no in [
            hmac.clone(),
            unknown.clone(),
            key(EC, r#","use":"enc""#),
            key(EC, r#","key_ops":["sign"]"#),
            key(EC, r#","alg":"HS999""#),
            key(EC, r#","alg":"RSA-OAEP""#),
            key(
                r#""kty":"RSA","e":"AQAB","n":"sXchDaQebHnPiGvyDOAT4saGEUetSyo9MKLOoWFsueri23bOdgWp4Dy1Wl""#,
                "",
            ),
        ] {
            assert!(matches!(set(std::slice::from_ref(&no)), Err(SetFault::NoKey)), "{no}");
        }
        for yes in [r#","use":"sig""#, r#","key_ops":["verify"]"#, r#","alg":"ES256""#] {
            assert!(set(&[key(EC, yes), hmac.clone(), unknown.clone()]).is_ok(), "{yes}");
        }
        let other = set(&[key(EC, r#","alg":"ES384","kid":"a""#)]).unwrap();
        assert!(other.find(Some("a"), Algorithm::ES256).is_none());
    }

    #[test]
    fn a_set_that_could_mean_two_things_is_refused() {
        let twice = [key(EC, r#","kid":"a""#), key(ED, r#","kid":"a""#)];
        assert!(matches!(set(&twice), Err(SetFault::SameId)));
        assert!(matches!(set(&vec![key(EC, ""); KEYS_MAX + 1]), Err(SetFault::TooMany)));
        for text in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[]}x"#, "<html>"] {
            assert!(matches!(KeySet::parse(text.as_bytes(), None), Err(SetFault::Malformed)), "{text}");
        }
    }

    #[test]
    fn a_fetched_set_is_good_for_the_grace_and_no_longer() {
        let text = format!(r#"{{"keys":[{}]}}"#, key(EC, ""));
        let at = |age| KeySet::parse(text.as_bytes(), Instant::now().checked_sub(age)).unwrap();
        assert!(!at(GRACE / 2).is_stale());
        assert!(at(GRACE + Duration::from_secs(1)).is_stale());
        assert!(!set(&[key(EC, "")]).unwrap().is_stale());
    }
}
