//! The live API keys of one environment, and their rotation as MX documents it.
//!
//! Rotation returns a new secondary key and schedules the original's deletion in 30 days; both work until then.
//! A second rotation replaces the secondary key and starts the 30 days anew. Retiring deletes the original at once.
//! (docs.mx.com, Onboarding API, "Rotate API Key" and "Retire API Key".)

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

/// How long the original key works beside the new one.
const OVERLAP: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The keys that work, the original first.
pub(super) struct Keys(Mutex<Vec<Key>>);

struct Key {
    value: String,
    until: Option<SystemTime>,
}

impl Key {
    const fn new(value: String) -> Self {
        Self { value, until: None }
    }

    fn works(&self, now: SystemTime) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

impl Keys {
    pub(super) fn new(values: Vec<String>) -> Self {
        Self(Mutex::new(values.into_iter().map(Key::new).collect()))
    }

    /// Whether `value` is a key that works at `now`.
    pub(super) fn accept(&self, value: &[u8], now: SystemTime) -> bool {
        self.lock().iter().any(|key| key.works(now) && key.value.as_bytes() == value)
    }

    /// The new secondary key.
    pub(super) fn rotate(&self, now: SystemTime) -> Option<String> {
        let value = random_key()?;
        let mut keys = self.lock();
        keys.retain(|key| key.works(now));
        keys.truncate(1);
        if let Some(original) = keys.first_mut() {
            original.until = Some(now + OVERLAP);
        }
        keys.push(Key::new(value.clone()));
        Some(value)
    }

    /// Whether a rotation was in progress, so that the original is deleted now.
    pub(super) fn retire(&self, now: SystemTime) -> bool {
        let mut keys = self.lock();
        keys.retain(|key| key.works(now));
        let in_progress = keys.first().is_some_and(|original| original.until.is_some());
        if in_progress {
            keys.remove(0);
        }
        in_progress
    }

    /// What a rotation in MX's dashboard does: these keys work from now on, all others are dead.
    pub(super) fn replace(&self, values: Vec<String>) {
        *self.lock() = values.into_iter().map(Key::new).collect();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Key>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// 40 hex digits, as long as MX's own; `None` when the system has no random numbers.
pub(super) fn random_key() -> Option<String> {
    let mut bytes = [0; 20];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn keys() -> Keys {
        Keys::new(vec!["original".to_owned()])
    }

    #[test]
    fn both_keys_work_for_thirty_days_and_then_only_the_new_one() {
        let keys = keys();
        let new = keys.rotate(NOW).unwrap();
        let last = NOW + OVERLAP - Duration::from_secs(1);
        assert!(keys.accept(b"original", last) && keys.accept(new.as_bytes(), last));
        assert!(!keys.accept(b"original", NOW + OVERLAP) && keys.accept(new.as_bytes(), NOW + OVERLAP));
    }

    #[test]
    fn a_second_rotation_replaces_the_secondary_key_and_extends_the_original() {
        let keys = keys();
        let first = keys.rotate(NOW).unwrap();
        let later = NOW + Duration::from_secs(1000);
        let second = keys.rotate(later).unwrap();
        assert!(!keys.accept(first.as_bytes(), later));
        assert!(keys.accept(second.as_bytes(), later) && keys.accept(b"original", NOW + OVERLAP));
        assert!(!keys.accept(b"original", later + OVERLAP));
    }

    #[test]
    fn a_rotation_after_the_overlap_makes_the_new_key_the_original() {
        let keys = keys();
        let first = keys.rotate(NOW).unwrap();
        let later = NOW + OVERLAP;
        let second = keys.rotate(later).unwrap();
        assert!(keys.accept(first.as_bytes(), later) && keys.accept(second.as_bytes(), later));
    }

    #[test]
    fn retiring_kills_the_original_at_once_and_only_during_a_rotation() {
        let keys = keys();
        assert!(!keys.retire(NOW));
        assert!(keys.accept(b"original", NOW));
        let new = keys.rotate(NOW).unwrap();
        assert!(keys.retire(NOW));
        assert!(!keys.accept(b"original", NOW) && keys.accept(new.as_bytes(), NOW));
        assert!(!keys.retire(NOW));
    }

    #[test]
    fn a_dashboard_rotation_leaves_no_overlap() {
        let keys = keys();
        keys.replace(vec!["next".to_owned()]);
        assert!(keys.accept(b"next", NOW) && !keys.accept(b"original", NOW));
    }

    #[test]
    fn keys_are_random() {
        assert_ne!(random_key(), random_key());
        assert_eq!(random_key().unwrap().len(), 40);
    }
}
