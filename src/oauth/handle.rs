//! What a caller gets in the place of a token that MX gave it.
//!
//! In: a token, and whose it is. Out: a [`Handle`], the same whenever the same token comes for the same caller; and, of a
//! handle that somebody shows, the id of the connection that its token is kept as. A handle is `mxh_` and 43 characters: an
//! HMAC-SHA-256 under a key that the store's key gives (`seal`).
//!
//! What must never happen: a handle tells something of its token, or opens it for another caller, environment, host or end user;
//! what a store holds lets its reader make a handle (the id is a digest of it); a handle leaves the gateway towards MX.

use std::{fmt, str::FromStr, sync::Arc};

use aws_lc_rs::{digest, hmac};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use memchr::memmem;
use zeroize::Zeroizing;

use super::connection::ConnectionId;
use crate::vault::secret::Secret;

/// What each one begins with.
pub(crate) const PREFIX: &str = "mxh_";

/// What connections that are tokens of MX's are kept under. No configured provider can have this name.
pub(crate) const PROVIDER: &str = "mx:token";

/// Base64url of 32 bytes.
const CHARACTERS: usize = 43;

/// Whom a token was given to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Whose {
    /// By its name in the configuration.
    pub(crate) caller: String,
    /// Where it was given, by its name in the configuration.
    pub(crate) environment: String,
    /// The host of that environment, in lower case: the token goes nowhere else.
    pub(crate) host: String,
    /// The end user whom the caller's request was for, where it must have one.
    pub(crate) user: Option<String>,
}

/// A token that MX gave.
#[derive(Debug, Clone)]
pub(crate) struct Given {
    /// The value.
    pub(crate) token: Arc<Secret>,
    /// When its time is over, in Unix seconds; `None`: the answer does not say.
    pub(crate) ends: Option<u64>,
}

/// Stands for one token of one caller. Not shown in logs, although nobody else can use it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Handle([u8; digest::SHA256_OUTPUT_LEN]);

/// No handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoHandle;

impl Handle {
    /// What its token is kept as.
    pub(crate) fn id(&self) -> ConnectionId {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"mxgate handle's connection 1\0");
        context.update(&self.0);
        let mut id = [0; 16];
        for (to, from) in id.iter_mut().zip(context.finish().as_ref()) {
            *to = *from;
        }
        ConnectionId::from_bytes(id)
    }

    /// As its caller gets it.
    pub(crate) fn text(&self) -> String {
        let mut text = String::with_capacity(PREFIX.len() + CHARACTERS);
        text.push_str(PREFIX);
        BASE64.encode_string(self.0, &mut text);
        text
    }
}

impl FromStr for Handle {
    type Err = NoHandle;

    /// One spelling, as `text` gives it.
    fn from_str(text: &str) -> Result<Self, NoHandle> {
        let bytes = BASE64.decode(text.strip_prefix(PREFIX).ok_or(NoHandle)?).map_err(|_| NoHandle)?;
        bytes.try_into().map(Self).map_err(|_| NoHandle)
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handle(hidden)")
    }
}

/// Whether a handle stands anywhere in `bytes`.
pub(crate) fn is_in(bytes: &[u8]) -> bool {
    let is_its = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    memmem::find_iter(bytes, PREFIX).any(|at| {
        let rest = bytes.get(at + PREFIX.len()..).unwrap_or_default();
        rest.iter().take(CHARACTERS).filter(|byte| is_its(byte)).count() == CHARACTERS
    })
}

/// What handles are made with.
#[derive(Clone)]
pub(crate) struct HandleKey(hmac::Key);

impl HandleKey {
    pub(crate) fn new(key: &Zeroizing<[u8; 32]>) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &**key))
    }

    /// The handle of a token. Every part has its length before it, so that no two of them are written alike.
    #[expect(clippy::disallowed_methods, reason = "a handle is made of its token")]
    pub(crate) fn handle(&self, whose: &Whose, token: &Secret) -> Handle {
        let Whose { caller, environment, host, user } = whose;
        let user: &[&[u8]] = match user {
            Some(user) => &[b"user", user.as_bytes()],
            None => &[b"nobody"],
        };
        let parts = [b"mxgate handle 1" as &[u8], caller.as_bytes(), environment.as_bytes(), host.as_bytes()];
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts.iter().chain(user).copied().chain([token.expose()]) {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut handle = [0; digest::SHA256_OUTPUT_LEN];
        for (to, from) in handle.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        Handle(handle)
    }
}

impl fmt::Debug for HandleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HandleKey(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whose(caller: &str, environment: &str, user: Option<&str>) -> Whose {
        let (caller, environment, host) = (caller.into(), environment.into(), "api.mx.test".into());
        Whose { caller, environment, host, user: user.map(str::to_owned) }
    }

    fn key(byte: u8) -> HandleKey {
        HandleKey::new(&Zeroizing::new([byte; 32]))
    }

    fn secret(text: &str) -> Secret {
        Secret::new(text.into()).unwrap()
    }

    #[test]
    fn the_same_token_of_the_same_caller_has_one_handle_and_all_else_another() {
        let ledger = whose("ledger", "sandbox", None);
        let handle = key(1).handle(&ledger, &secret("canary-token"));
        assert_eq!(handle, key(1).handle(&ledger, &secret("canary-token")));
        let user = || whose("ledger", "sandbox", Some("USR-1"));
        let others = [
            key(2).handle(&ledger, &secret("canary-token")),
            key(1).handle(&ledger, &secret("canary-token2")),
            key(1).handle(&whose("ledge", "rsandbox", None), &secret("canary-token")),
            key(1).handle(&whose("report", "sandbox", None), &secret("canary-token")),
            key(1).handle(&whose("ledger", "production", None), &secret("canary-token")),
            key(1).handle(&user(), &secret("canary-token")),
            key(1).handle(&Whose { host: "api2.mx.test".into(), ..ledger.clone() }, &secret("canary-token")),
            key(1).handle(&whose("ledger", "sandbox", Some("USR-2")), &secret("canary-token")),
            key(1).handle(&whose("ledger", "sandbox", Some("")), &secret("canary-token")),
        ];
        for (place, other) in others.iter().enumerate() {
            assert_ne!(*other, handle, "{place}");
            assert_ne!(other.id(), handle.id(), "{place}");
            assert!(!others[..place].contains(other), "{place}");
        }
    }

    #[test]
    fn a_handle_is_read_as_it_is_written_and_in_no_other_spelling() {
        let handle = key(1).handle(&whose("ledger", "sandbox", None), &secret("canary-token"));
        let text = handle.text();
        assert_eq!((text.len(), text.parse()), (PREFIX.len() + CHARACTERS, Ok(handle)));
        assert!(is_in(format!("?a={text}&b").as_bytes()) && is_in(text.as_bytes()));
        let cut = &text[..text.len() - 1];
        // The last character holds four bits: with a fifth one set, it stands for the same bytes.
        let zeroes = format!("mxh_{}", "A".repeat(43));
        assert!(zeroes.parse::<Handle>().is_ok());
        let odd = format!("mxh_{}B", "A".repeat(42));
        let wrong =
            ["", "mxh_", cut, &format!("{text}A"), &format!("{text}="), &text.replace("mxh_", "mxc_"), &odd];
        for wrong in wrong {
            assert_eq!(wrong.parse::<Handle>(), Err(NoHandle), "{wrong}");
        }
        for none in [cut, "mxh_", &text.replace("mxh_", "mxc_"), &format!("mxh_ {}", &text[4..])] {
            assert!(!is_in(none.as_bytes()), "{none}");
        }
        assert!(is_in(format!("mxh_short {text}").as_bytes()));
    }

    #[test]
    fn neither_a_handle_nor_its_key_nor_its_id_says_anything() {
        let handle = key(1).handle(&whose("ledger", "sandbox", None), &secret("canary-token"));
        let shown = format!("{handle:?} {:?}", key(1));
        assert!(shown.contains("hidden") && !shown.contains(&handle.text()), "{shown}");
        let id = handle.id().to_bytes();
        assert!(!handle.0.windows(4).any(|four| id.windows(4).any(|other| other == four)));
    }
}
