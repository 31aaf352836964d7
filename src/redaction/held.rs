//! Every secret that this process holds, for the last stage before a log or an error is written: in go
//! secrets as sources yield them, out comes one [`Masker`] over all.
//!
//! A secret stays known for as long as anybody holds it, and after that until [`RETIRED_MAX`] others
//! have retired as well: a line about a connection may be written long after its key was rotated.
//! What must never happen: a secret is used before it is remembered here.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::Masker;
use crate::vault::secret::Secret;

/// How many secrets that nobody else holds any more are still masked; the oldest are forgotten first.
/// A bound, since keys may be rotated for as long as the process lives.
const RETIRED_MAX: usize = 256;

/// The registry of this process.
#[must_use]
pub fn held() -> &'static Held {
    static HELD: LazyLock<Held> = LazyLock::new(Held::default);
    &HELD
}

/// A registry of secrets. Readers take no lock.
#[derive(Debug)]
pub struct Held {
    masker: ArcSwap<Masker>,
    /// Oldest first.
    secrets: Mutex<Vec<Arc<Secret>>>,
}

impl Default for Held {
    fn default() -> Self {
        Self { masker: ArcSwap::from_pointee(Masker::new([])), secrets: Mutex::default() }
    }
}

impl Held {
    /// Masks `secrets` from now on, too. Call it before any of them can reach a log: as soon as a source yields them.
    /// It compiles a new masker, so give all that are new at once.
    pub fn remember<'a>(&self, secrets: impl IntoIterator<Item = &'a Arc<Secret>>) {
        let mut known = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.len();
        for secret in secrets {
            if !known.contains(secret) {
                known.push(Arc::clone(secret));
            }
        }
        if known.len() == before {
            return;
        }
        forget_oldest(&mut known);
        // Stored under the lock: of two callers the later one's masker knows both's secrets.
        self.masker.store(Arc::new(Masker::new(known.iter().map(AsRef::as_ref))));
    }

    /// The masker over all of them, as of now.
    #[must_use]
    pub fn masker(&self) -> Arc<Masker> {
        self.masker.load_full()
    }
}

fn forget_oldest(known: &mut Vec<Arc<Secret>>) {
    let is_retired = |secret: &Arc<Secret>| Arc::strong_count(secret) == 1;
    let mut surplus = known.iter().filter(|secret| is_retired(secret)).count().saturating_sub(RETIRED_MAX);
    known.retain(|secret| {
        let forgotten = surplus > 0 && is_retired(secret);
        surplus -= usize::from(forgotten);
        !forgotten
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(n: usize) -> Arc<Secret> {
        Arc::new(Secret::new(format!("canary-{n:05}").into_bytes()).unwrap())
    }

    #[test]
    fn a_secret_is_masked_once_it_is_remembered_and_not_before() {
        let held = Held::default();
        assert!(!held.masker().is_hit(b"canary-00001"));
        held.remember(&[secret(1)]);
        assert!(held.masker().is_hit(b"canary-00001"));
        assert!(!held.masker().is_hit(b"canary-00002"));
        held.remember(&[secret(2)]);
        assert!(held.masker().is_hit(b"canary-00001") && held.masker().is_hit(b"canary-00002"));
    }

    #[test]
    fn the_same_secret_again_changes_nothing() {
        let held = Held::default();
        held.remember(&[secret(1)]);
        let before = held.masker();
        held.remember(&[secret(1)]);
        assert!(Arc::ptr_eq(&before, &held.masker()));
    }

    #[test]
    fn retired_secrets_are_forgotten_oldest_first_and_used_ones_never() {
        let held = Held::default();
        let used = secret(0);
        held.remember([&used]);
        let others: Vec<_> = (1..=RETIRED_MAX + 1).map(secret).collect();
        held.remember(&others);
        drop(others);
        assert!(held.masker().is_hit(b"canary-00001"));
        held.remember(&[secret(99_999)]);
        assert!(held.masker().is_hit(b"canary-00000"), "still used");
        assert!(!held.masker().is_hit(b"canary-00001"), "the oldest retired one");
        assert!(held.masker().is_hit(b"canary-00003"));
        assert!(held.masker().is_hit(b"canary-99999"));
    }
}
