//! Which of an environment's two keys goes out.
//!
//! In: word of a 401 with one of them, and what a confirmation has found (`confirm`). Out: the key that the next
//! request carries. All workers of the process share one [`Preference`]: a request reads one number of it, which
//! hardly ever changes. It outlives a reload for as long as both keys stay what they are.
//! What must never happen: it changes because of what a caller is answered. That only asks for a confirmation.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use tokio::{sync::Notify, time::Instant};

use super::Prepared;
use crate::{config, record::UsedCredential, status::KeysStatus};

/// One of two keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// `api_key`.
    Primary,
    /// `secondary_api_key`.
    Secondary,
}

impl Which {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Primary => Self::Secondary,
            Self::Secondary => Self::Primary,
        }
    }
}

/// What an environment has a second key for.
#[derive(Debug)]
pub(crate) struct Preference {
    secondary: AtomicBool,
    /// The preferred key got a 401, and nobody has looked into it yet.
    doubted: AtomicBool,
    told: Notify,
    cutovers: AtomicU64,
    second_attempts: AtomicU64,
    /// Asked by the confirmer alone, of which there is one; kept here since it begins anew with each reload.
    pub(super) pace: Mutex<Pace>,
    /// As the configuration has them.
    kind: config::Credential,
    used: [UsedCredential; 2],
}

/// When the gateway may ask with a read of its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Whether the preferred key works.
    pub(super) confirm: Instant,
    /// Whether the primary key works again.
    pub(super) retry: Instant,
    /// How often in a row it did.
    pub(super) good: u32,
}

impl Preference {
    /// `previous` is of the same environment and host; it stays itself if nothing changed.
    pub(crate) fn new(
        kind: &config::Credential,
        keys: [&Prepared; 2],
        previous: Option<&Arc<Self>>,
    ) -> Arc<Self> {
        let used = keys.map(|key| key.used().clone());
        if let Some(previous) = previous.filter(|previous| previous.kind == *kind && previous.used == used) {
            return previous.clone();
        }
        let now = Instant::now();
        Arc::new(Self {
            secondary: AtomicBool::new(false),
            doubted: AtomicBool::new(false),
            told: Notify::new(),
            cutovers: AtomicU64::new(0),
            second_attempts: AtomicU64::new(0),
            pace: Mutex::new(Pace { confirm: now, retry: now, good: 0 }),
            kind: kind.clone(),
            used,
        })
    }

    /// The key that goes out.
    pub(crate) fn key(&self) -> Which {
        if self.secondary.load(Relaxed) { Which::Secondary } else { Which::Primary }
    }

    /// A request with this key was answered 401, which may be about the key.
    pub(crate) fn doubt(&self, which: Which) {
        // Most of those that come at once find that somebody has said so, and write nothing.
        if which == self.key() && !self.doubted.load(Relaxed) && !self.doubted.swap(true, Relaxed) {
            self.told.notify_one();
        }
    }

    /// A request goes out again, with the other key.
    pub(crate) fn second_attempt(&self) {
        self.second_attempts.fetch_add(1, Relaxed);
    }

    /// Ends when the preferred key is doubted.
    pub(super) async fn doubted(&self) {
        while !self.doubted.load(Relaxed) {
            self.told.notified().await;
        }
    }

    /// The doubt was looked into.
    pub(super) fn settle(&self) {
        self.doubted.store(false, Relaxed);
    }

    pub(super) fn prefer(&self, which: Which) {
        self.secondary.store(which == Which::Secondary, Relaxed);
        self.cutovers.fetch_add(1, Relaxed);
    }

    pub(super) fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What tells a key from others.
    pub(super) fn used(&self, which: Which) -> &UsedCredential {
        let [primary, secondary] = &self.used;
        match which {
            Which::Primary => primary,
            Which::Secondary => secondary,
        }
    }

    /// For people and for metrics.
    pub(crate) fn status(&self) -> KeysStatus {
        let secondary = self.used(Which::Secondary);
        KeysStatus {
            secondary: secondary.name().to_owned(),
            fingerprint: secondary.fingerprint().to_owned(),
            secondary_in_use: self.key() == Which::Secondary,
            cutovers: self.cutovers.load(Relaxed),
            second_attempts: self.second_attempts.load(Relaxed),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::vault::secret::Secret;

    fn kind(client_id: &str) -> config::Credential {
        config::Credential::Basic {
            client_id: client_id.into(),
            api_key: "vault:a".parse().unwrap(),
            secondary_api_key: Some("vault:b".parse().unwrap()),
        }
    }

    fn made(client_id: &str, keys: [&str; 2], previous: Option<&Arc<Preference>>) -> Arc<Preference> {
        let kind = kind(client_id);
        let keys = keys.map(|key| {
            Prepared::prepare(&kind, kind.reference().unwrap(), &Secret::new(key.into()).unwrap()).unwrap()
        });
        Preference::new(&kind, [&keys[0], &keys[1]], previous)
    }

    pub(in crate::credential) fn preference() -> Arc<Preference> {
        made("client", ["first-key", "second-key"], None)
    }

    #[tokio::test]
    async fn only_word_of_the_preferred_key_is_a_doubt_and_it_is_heard_later_too() {
        let preference = preference();
        let is_doubted = || preference.doubted.load(Relaxed);
        preference.doubt(Which::Secondary);
        assert!(!is_doubted());
        preference.doubt(Which::Primary);
        preference.doubt(Which::Primary);
        preference.doubted().await;
        preference.settle();
        assert!(!is_doubted());
        preference.prefer(Which::Secondary);
        preference.doubt(Which::Primary);
        assert!(!is_doubted(), "requests that were on their way say nothing about the new key");
        preference.doubt(Which::Secondary);
        preference.doubted().await;
    }

    #[test]
    fn a_reload_keeps_it_while_both_keys_are_the_same() {
        let old = preference();
        old.prefer(Which::Secondary);
        let kept = |client_id, keys| {
            let new = made(client_id, keys, Some(&old));
            assert_eq!(Arc::ptr_eq(&new, &old), new.key() == Which::Secondary);
            Arc::ptr_eq(&new, &old)
        };
        assert!(kept("client", ["first-key", "second-key"]));
        for (client_id, keys) in [
            ("client", ["other-key", "second-key"]),
            ("client", ["first-key", "other-key"]),
            // They were swapped: the first is the one to begin with.
            ("client", ["second-key", "first-key"]),
            ("other", ["first-key", "second-key"]),
        ] {
            assert!(!kept(client_id, keys), "{client_id} {keys:?}");
        }
        assert_eq!((old.status().cutovers, old.status().secondary_in_use), (1, true));
    }
}
