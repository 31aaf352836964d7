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

/// How many secrets that nobody else holds any more are still masked, at least; of more, the oldest are forgotten in time. A
/// bound, since keys may be rotated for as long as the process lives.
const RETIRED_MAX: usize = 256;

/// So many secrets are compiled again with each new one. Beyond that they are put together, eight times as many on each
/// level, so that whoever has thousands of tokens does not pay for all of them with each.
const LEVEL_MAX: usize = 32;

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
    /// The newest first; within one, the oldest first.
    levels: Mutex<Vec<Level>>,
}

/// Some of the secrets.
#[derive(Debug)]
struct Level {
    secrets: Vec<Arc<Secret>>,
    masker: Masker,
}

impl Default for Held {
    fn default() -> Self {
        Self { masker: ArcSwap::from_pointee(Masker::new([])), levels: Mutex::default() }
    }
}

impl Held {
    /// Masks `secrets` from now on, too. Call it before any of them can reach a log: as soon as a source yields them.
    /// It compiles a masker, so give all that are new at once.
    pub fn remember<'a>(&self, secrets: impl IntoIterator<Item = &'a Arc<Secret>>) {
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new: Vec<Arc<Secret>> = Vec::new();
        for secret in secrets {
            let is_known = levels.iter().any(|level| level.secrets.contains(secret)) || new.contains(secret);
            if !is_known {
                new.push(Arc::clone(secret));
            }
        }
        if new.is_empty() {
            return;
        }
        forget_oldest(&mut levels);
        add(&mut levels, new);
        // Stored under the lock: of two callers the later one's masker knows both's secrets.
        self.masker.store(Arc::new(Masker::joined(levels.iter().map(|level| &level.masker))));
    }

    /// The masker over all of them, as of now.
    #[must_use]
    pub fn masker(&self) -> Arc<Masker> {
        self.masker.load_full()
    }
}

impl Level {
    fn new(secrets: Vec<Arc<Secret>>) -> Self {
        let masker = Masker::new(secrets.iter().map(AsRef::as_ref));
        Self { secrets, masker }
    }
}

/// Puts `new` on the first level that has room for it and for all that is before it, which is empty then.
fn add(levels: &mut Vec<Level>, new: Vec<Arc<Secret>>) {
    let (mut carried, mut room) = (new, LEVEL_MAX);
    for level in levels.iter_mut() {
        let mut together = std::mem::take(&mut level.secrets);
        together.append(&mut carried);
        if together.len() <= room {
            *level = Level::new(together);
            return;
        }
        *level = Level::new(Vec::new());
        (carried, room) = (together, room.saturating_mul(8));
    }
    levels.push(Level::new(carried));
}

/// Forgets those that are too many, when there are so many of them that it is worth compiling the others again.
fn forget_oldest(levels: &mut [Level]) {
    let is_retired = |secret: &Arc<Secret>| Arc::strong_count(secret) == 1;
    let all = || levels.iter().flat_map(|level| &level.secrets);
    let mut surplus = all().filter(|secret| is_retired(secret)).count().saturating_sub(RETIRED_MAX);
    if surplus <= all().count() / 4 {
        return;
    }
    for level in levels.iter_mut().rev() {
        let before = level.secrets.len();
        level.secrets.retain(|secret| {
            let forgotten = surplus > 0 && is_retired(secret);
            surplus -= usize::from(forgotten);
            !forgotten
        });
        if level.secrets.len() < before {
            *level = Level::new(std::mem::take(&mut level.secrets));
        }
    }
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
        let is_hit = |n: usize| held.masker().is_hit(format!("canary-{n:05}").as_bytes());
        for n in 1..=RETIRED_MAX {
            held.remember([&secret(n)]);
        }
        assert!((0..=RETIRED_MAX).all(is_hit), "so many are masked still");
        for n in RETIRED_MAX + 1..=4 * RETIRED_MAX {
            held.remember([&secret(n)]);
        }
        assert!(is_hit(0), "still used");
        assert!(!is_hit(1), "the oldest retired one");
        assert!((3 * RETIRED_MAX + 1..=4 * RETIRED_MAX).all(is_hit), "the newest retired ones");
        let there = held.levels.lock().unwrap().iter().map(|level| level.secrets.len()).sum::<usize>();
        assert!(there <= 2 * RETIRED_MAX, "{there}");
    }

    #[test]
    fn many_secrets_are_all_masked_and_a_new_one_does_not_cost_all_of_them() {
        let held = Held::default();
        let all: Vec<_> = (0..1200).map(secret).collect();
        for some in all.chunks(7) {
            held.remember(some);
        }
        let masker = held.masker();
        assert!((0..1200).all(|n| masker.is_hit(format!("canary-{n:05}").as_bytes())));
        assert!(!masker.is_hit(b"canary-01200"));
        let levels = held.levels.lock().unwrap();
        let sizes: Vec<_> = levels.iter().map(|level| level.secrets.len()).collect();
        assert!(sizes.len() <= 4 && sizes[0] <= LEVEL_MAX, "{sizes:?}");
    }
}
