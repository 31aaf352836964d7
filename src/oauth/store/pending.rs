//! What is used once: a ticket, or a `state` that a user's browser is to bring back. A store keeps it under a digest of what
//! its bearer shows, so that reading the store is not enough to act for anybody, and sealed like a token.
//!
//! In: content, and what its bearer will show. Out: a row that a store moves as it is, and back.
//!
//! What must never happen: a row opens under another name, as another kind, with another end or in another store; what a
//! bearer shows is in a row.

use std::{fmt, sync::Arc};

use aws_lc_rs::digest::{self, SHA256};
use zeroize::Zeroizing;

use crate::{
    oauth::seal::{self, KeyId, Keys, StoreId},
    vault::secret::Secret,
};

/// The largest content.
pub(crate) const BYTES_MAX: usize = 8 * 1024;

/// What is pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// A caller's order to connect a user, whose browser has not begun yet.
    Ticket,
    /// A browser that was sent to a provider.
    State,
}

impl Kind {
    /// Of one length, since it is written beside others in what a seal is bound to.
    fn label(self) -> &'static [u8; 6] {
        match self {
            Self::Ticket => b"ticket",
            Self::State => b"state\0",
        }
    }
}

/// Names a pending record by what its bearer shows, without telling it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PendingName {
    kind: Kind,
    digest: [u8; 32],
}

impl PendingName {
    /// `shown` is random: 256 bits, so that a digest needs neither salt nor stretching.
    #[expect(clippy::disallowed_methods, reason = "a digest is made of its bytes")]
    pub(crate) fn of(kind: Kind, shown: &Secret) -> Self {
        let mut hash = digest::Context::new(&SHA256);
        hash.update(b"mxgate pending\0");
        hash.update(kind.label());
        hash.update(shown.expose());
        let mut digest = [0; 32];
        digest.copy_from_slice(hash.finish().as_ref());
        Self { kind, digest }
    }

    /// As a key of a store. Names of two kinds never have the same.
    pub(super) fn to_bytes(self) -> [u8; 32] {
        self.digest
    }
}

impl fmt::Debug for PendingName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PendingName({:?}, hidden)", self.kind)
    }
}

/// What is to be kept until it is taken.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    /// Under which it is looked for.
    pub(crate) name: PendingName,
    /// From then on it is not given any more, in Unix seconds.
    pub(crate) ends: u64,
    /// What is given to whoever shows it.
    pub(crate) content: Arc<Secret>,
}

/// A pending record as it is kept under its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) ends: u64,
    /// Which key sealed it.
    pub(super) key: String,
    pub(super) sealed: Vec<u8>,
}

/// Why there is no row. (Why one does not open, a [`seal::Error`] says.)
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// Larger than [`BYTES_MAX`].
    #[error("it is too large")]
    TooLarge,
    /// It was not sealed.
    #[error(transparent)]
    Seal(#[from] seal::Error),
}

impl Row {
    /// `pending`, sealed.
    #[expect(clippy::disallowed_methods, reason = "sealing needs the bytes")]
    pub(super) fn seal(pending: &Pending, store: StoreId, keys: &Keys) -> Result<Self, Error> {
        let Pending { name, ends, content } = pending;
        let content = content.expose();
        if content.len() > BYTES_MAX {
            return Err(Error::TooLarge);
        }
        let key = keys.sealing();
        let text = Zeroizing::new(content.to_vec());
        let sealed = keys.seal_text(text, key, bound(*name, *ends, key, store))?;
        Ok(Self { ends: *ends, key: key.to_string(), sealed })
    }

    /// Its content; `None`: its time is over.
    pub(super) fn open(
        &self,
        name: PendingName,
        now: u64,
        store: StoreId,
        keys: &Keys,
    ) -> Result<Option<Arc<Secret>>, seal::Error> {
        if is_over(self.ends, now) {
            return Ok(None);
        }
        let key = self.key.parse()?;
        let mut text = keys.open_text(&self.sealed, key, bound(name, self.ends, key, store))?;
        let content = Secret::new(std::mem::take(&mut *text)).map_err(seal::Error::Unfit)?;
        Ok(Some(Arc::new(content)))
    }
}

/// Whether what ends at `ends` is over.
pub(super) fn is_over(ends: u64, now: u64) -> bool {
    ends <= now
}

/// All that a seal is bound to, each part of a fixed length.
fn bound(name: PendingName, ends: u64, key: KeyId, store: StoreId) -> Vec<u8> {
    let (ends, key) = (ends.to_be_bytes(), key.to_bytes());
    [b"mxgate pending 1\0" as &[u8], &store.0, name.kind.label(), &name.digest, &key, &ends].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn secret(text: &str) -> Arc<Secret> {
        Arc::new(Secret::new(text.into()).unwrap())
    }

    fn keys(text: &str) -> Keys {
        Keys::new(&secret(text), []).unwrap()
    }

    fn name(kind: Kind) -> PendingName {
        PendingName::of(kind, &secret("canary-shown-by-its-bearer"))
    }

    fn pending() -> Pending {
        Pending { name: name(Kind::Ticket), ends: NOW + 600, content: secret("canary-content") }
    }

    #[test]
    fn it_opens_where_it_was_sealed_until_its_end_and_shows_nothing() {
        let keys = keys("0123456789abcdef0123456789abcdef");
        let row = Row::seal(&pending(), StoreId([1; 16]), &keys).unwrap();
        let open = |now| row.open(name(Kind::Ticket), now, StoreId([1; 16]), &keys);
        assert_eq!(open(NOW), Ok(Some(secret("canary-content"))));
        assert_eq!(open(NOW + 599), Ok(Some(secret("canary-content"))));
        assert_eq!(open(NOW + 600), Ok(None));
        let shown = format!("{:?} {:?}", String::from_utf8_lossy(&row.sealed), pending());
        assert!(!shown.contains("canary"), "{shown}");
    }

    #[test]
    fn it_opens_nowhere_else() {
        let keys = keys("0123456789abcdef0123456789abcdef");
        let row = Row::seal(&pending(), StoreId([1; 16]), &keys).unwrap();
        let damaged = Err(seal::Error::Damaged);
        assert_eq!(row.open(name(Kind::Ticket), NOW, StoreId([2; 16]), &keys), damaged);
        assert_eq!(row.open(name(Kind::State), NOW, StoreId([1; 16]), &keys), damaged);
        let other = PendingName::of(Kind::Ticket, &secret("what somebody else shows"));
        assert_eq!(row.open(other, NOW, StoreId([1; 16]), &keys), damaged);
        let longer = Row { ends: NOW + 601, ..row.clone() };
        assert_eq!(longer.open(name(Kind::Ticket), NOW, StoreId([1; 16]), &keys), damaged);
        // Also where its digest is the other kind's, which no value brings about.
        let forced = PendingName { kind: Kind::State, ..name(Kind::Ticket) };
        assert_eq!(row.open(forced, NOW, StoreId([1; 16]), &keys), damaged);
        let nonsense = Row { key: "none".into(), ..row };
        assert_eq!(nonsense.open(name(Kind::Ticket), NOW, StoreId([1; 16]), &keys), damaged);
    }

    #[test]
    fn names_of_two_kinds_and_of_two_values_differ() {
        assert_ne!(name(Kind::Ticket).to_bytes(), name(Kind::State).to_bytes());
        assert_ne!(
            name(Kind::Ticket).to_bytes(),
            PendingName::of(Kind::Ticket, &secret("another one")).to_bytes()
        );
        assert_eq!(name(Kind::Ticket), name(Kind::Ticket));
    }

    #[test]
    fn a_key_that_is_not_known_is_an_error_and_a_former_one_is_not() {
        let (old, new) =
            (secret("0123456789abcdef0123456789abcdef"), secret("fedcba9876543210fedcba9876543210"));
        let row = Row::seal(&pending(), StoreId([1; 16]), &Keys::new(&old, []).unwrap()).unwrap();
        let open = |keys: &Keys| row.open(name(Kind::Ticket), NOW, StoreId([1; 16]), keys);
        assert_eq!(open(&Keys::new(&new, [&old]).unwrap()), Ok(Some(secret("canary-content"))));
        assert!(matches!(open(&Keys::new(&new, []).unwrap()), Err(seal::Error::UnknownKey(_))));
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let keys = keys("0123456789abcdef0123456789abcdef");
        let of = |length| Pending { content: secret(&"x".repeat(length)), ..pending() };
        assert!(Row::seal(&of(BYTES_MAX), StoreId([1; 16]), &keys).is_ok());
        assert!(matches!(Row::seal(&of(BYTES_MAX + 1), StoreId([1; 16]), &keys), Err(Error::TooLarge)));
    }
}
