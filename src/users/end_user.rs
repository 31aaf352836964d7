//! Who a caller's end user is: a JSON Web Token (RFC 7519), verified, becomes the user of MX that it is for.
//!
//! In: the one field that carries the token. Out: a user, or a [`Reason`]. Only the listed asymmetric algorithms, only
//! keys of the configured set: what a token's header says about keys (`jku`, `jwk`, `x5u`) is never looked at.
//! A verified token is remembered by its digest, by each worker, for at most a minute and never beyond its expiry or
//! its key set, since a signature costs far more than the rest of a request's decisions.
//! What must never happen: the token's text is kept, logged, or sent on.

use std::{
    fmt,
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest::{SHA256, digest};
use http::{HeaderMap, HeaderName};
use jsonwebtoken::{Algorithm, Validation, decode, decode_header, errors::ErrorKind};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};
use serde_json::Value;

use super::{
    Reason,
    keys::{KeySource, SourceFault},
    list::{self, UserMap},
};
use crate::{admission::CallerIndex, config};

/// The longest that a verified token is remembered.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Tokens that one worker remembers; a power of two.
const SLOTS: usize = 1024;

/// How one caller says who its end user is.
pub(crate) struct EndUser {
    header: HeaderName,
    keys: Arc<KeySource>,
    /// What must hold of a token, for each algorithm that it may have.
    validations: Vec<Validation>,
    claim: String,
    map: Option<(PathBuf, UserMap)>,
}

impl fmt::Debug for EndUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EndUser({}, {:?})", self.header, self.keys)
    }
}

/// Why tokens of end users cannot be verified.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error(transparent)]
    Keys(#[from] SourceFault),
    #[error("user_map_file: {0}")]
    Map(#[source] list::Fault),
}

impl EndUser {
    pub(super) fn new(settings: &config::EndUser, sources: &mut Vec<Arc<KeySource>>) -> Result<Self, Fault> {
        let map = settings.user_map_file.as_ref();
        let map =
            map.map(|path| Ok((path.clone(), list::user_map(path)?))).transpose().map_err(Fault::Map)?;
        Ok(Self {
            header: settings.header.clone(),
            keys: KeySource::new(settings, sources)?,
            validations: settings.algorithms.iter().map(|one| validation(*one, settings)).collect(),
            claim: settings.claim.clone(),
            map,
        })
    }

    pub(super) fn keys(&self) -> &Arc<KeySource> {
        &self.keys
    }

    /// The user of MX that the request's token is for.
    pub(crate) fn identify(
        &self,
        caller: CallerIndex,
        headers: &HeaderMap,
        remembered: &mut Remembered,
    ) -> Result<Rc<str>, Reason> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut values = headers.get_all(&self.header).iter();
        let token = values.next().ok_or(Reason::TokenAbsent)?.as_bytes();
        if values.next().is_some() {
            return Err(Reason::TokenRepeated);
        }
        let current = self.keys.current();
        let keys = current.as_ref().ok_or(Reason::NoKeys)?;
        let key = TokenKey { caller, keys: keys.version, digest: sha256(token) };
        if let Some(user) = remembered.get(&key, now) {
            return Ok(user);
        }
        let header = decode_header(token).map_err(|_| Reason::TokenMalformed)?;
        // What a token says must be understood is not understood here (RFC 7515, 4.1.11).
        if header.crit.is_some() {
            return Err(Reason::TokenMalformed);
        }
        let validation = self.validations.iter().find(|one| one.algorithms.contains(&header.alg));
        let validation = validation.ok_or(Reason::TokenAlgorithm)?;
        let verifying = keys.find(header.kid.as_deref(), header.alg).ok_or_else(|| {
            self.keys.want();
            Reason::TokenKey
        })?;
        let claims =
            decode::<Claims>(token, verifying, validation).map_err(|error| reason(error.kind()))?.claims;
        let user: Rc<str> = self.user(&claims)?.into();
        remembered.put(key, now, claims.expires(), &user);
        Ok(user)
    }

    fn user<'u>(&'u self, claims: &'u Claims) -> Result<&'u str, Reason> {
        let Some(Value::String(subject)) = claims.get(&self.claim) else { return Err(Reason::TokenClaim) };
        match &self.map {
            Some((_, map)) => map.get(subject.as_str()).map(|user| &**user).ok_or(Reason::NotMapped),
            None => Ok(subject),
        }
    }
}

fn sha256(token: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, token).as_ref());
    bytes
}

/// One algorithm each: the crate wants all of one validation to be of one family.
fn validation(algorithm: Algorithm, settings: &config::EndUser) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.leeway = settings.leeway.as_secs();
    validation.validate_nbf = true;
    validation.set_issuer(&[&settings.issuer]);
    validation.set_audience(&[&settings.audience]);
    validation.set_required_spec_claims(&["exp", "iss", "aud"]);
    validation
}

fn reason(kind: &ErrorKind) -> Reason {
    match kind {
        ErrorKind::ExpiredSignature => Reason::TokenExpired,
        ErrorKind::ImmatureSignature => Reason::TokenEarly,
        ErrorKind::InvalidIssuer => Reason::TokenIssuer,
        ErrorKind::InvalidAudience => Reason::TokenAudience,
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => Reason::TokenClaim,
        ErrorKind::InvalidSignature => Reason::TokenSignature,
        ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => Reason::TokenAlgorithm,
        _ => Reason::TokenMalformed,
    }
}

/// A token's claims, each once.
struct Claims(Vec<(String, Value)>);

impl Claims {
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value)
    }

    /// In Unix time, rounded down.
    fn expires(&self) -> u64 {
        let expires = self.get("exp");
        expires
            .and_then(|exp| exp.as_u64().or_else(|| exp.as_f64().map(|exp| exp as u64)))
            .unwrap_or_default()
    }
}

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;

        impl<'de> Visitor<'de> for Read {
            type Value = Claims;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("claims")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Claims, A::Error> {
                let mut claims = Claims(Vec::new());
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if claims.get(&name).is_some() {
                        return Err(A::Error::custom("a claim occurs twice"));
                    }
                    claims.0.push((name, value));
                }
                Ok(claims)
            }
        }

        deserializer.deserialize_map(Read)
    }
}

/// Tokens that one worker has verified under one snapshot: a table of fixed size, in which a token has one place. A
/// new one takes the place of an older one.
#[derive(Default)]
pub(crate) struct Remembered(Vec<Option<Token>>);

/// What a token was verified as.
struct Token {
    key: TokenKey,
    /// From when to when it is remembered, in Unix time: a clock that is set back makes it forgotten.
    good: std::ops::Range<u64>,
    user: Rc<str>,
}

/// One token, with whose it is and what it was verified with.
#[derive(PartialEq, Eq)]
struct TokenKey {
    digest: [u8; 32],
    caller: CallerIndex,
    keys: u64,
}

impl TokenKey {
    fn place(&self) -> usize {
        let [first, second, ..] = self.digest;
        usize::from(u16::from_le_bytes([first, second])) % SLOTS
    }
}

impl Remembered {
    fn get(&self, key: &TokenKey, now: u64) -> Option<Rc<str>> {
        let token = self.0.get(key.place())?.as_ref()?;
        (token.key == *key && token.good.contains(&now)).then(|| token.user.clone())
    }

    fn put(&mut self, key: TokenKey, now: u64, expires: u64, user: &Rc<str>) {
        if self.0.is_empty() {
            self.0.resize_with(SLOTS, || None);
        }
        let good = now..expires.min(now + REMEMBERED.as_secs());
        if let Some(place) = self.0.get_mut(key.place()) {
            *place = Some(Token { key, good, user: user.clone() });
        }
    }
}

#[cfg(test)]
mod tests;
