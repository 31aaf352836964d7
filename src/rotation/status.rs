//! Where an environment's rotation stands and how old its key is, for people, programs and metrics.
//!
//! In go the vault's contents and the time; out comes a [`Standing`], which holds fingerprints and dates and nothing
//! secret, and what an operator should be told about it. Pure.

use std::{fmt::Write as _, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    state::{OVERLAP_S, Record, State},
    store::Contents,
    words::date,
};
use crate::config;

const DAY_S: u64 = 24 * 60 * 60;

/// After so many of its 30 days an old key that still lives is warned of.
const OLD_KEY_WARN_S: u64 = 25 * DAY_S;

/// Where one environment stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Its name.
    pub environment: String,
    /// The record's state: `idle`, `calling`, `unknown`, `sealed`, `primary`, `kept` or `retiring`.
    pub step: String,
    /// The primary key's fingerprint.
    pub primary: Option<String>,
    /// The secondary key's fingerprint.
    pub secondary: Option<String>,
    /// When the primary key was made or set, in Unix time, as far as it is known.
    pub made: Option<u64>,
    /// Until when the old key may work at MX, in Unix time; `None`: there is none.
    pub old_until: Option<u64>,
    /// Who is at work, and until when the lock lasts, in Unix time.
    pub locked: Option<(String, u64)>,
    /// What an operator should know.
    pub warnings: Vec<String>,
}

impl Standing {
    /// The standing at `now` (Unix time) of the environment with this name and these settings.
    pub(crate) fn of(environment: &str, settings: &config::Rotation, contents: &Contents, now: u64) -> Self {
        let Contents { primary, secondary, record, primary_since, .. } = contents;
        let primary = primary.as_ref().map(|key| key.fingerprint().to_string());
        let mut standing = Self {
            environment: environment.to_owned(),
            step: record.state.step().to_owned(),
            made: made(record, primary.as_deref()).or(*primary_since),
            old_until: old_until(record, now),
            secondary: secondary.as_ref().map(|key| key.fingerprint().to_string()),
            locked: record
                .lock
                .as_ref()
                .filter(|lock| now < lock.until)
                .map(|lock| (lock.owner.clone(), lock.until)),
            primary,
            warnings: Vec::new(),
        };
        standing.warnings = standing.warn(settings, &record.state, now);
        standing
    }

    /// The primary key's age at `now`.
    #[must_use]
    pub fn age(&self, now: u64) -> Option<Duration> {
        self.made.map(|made| Duration::from_secs(now.saturating_sub(made)))
    }

    /// Whether a rotation is under way, or waits for somebody.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.step != State::Idle.step()
    }

    fn warn(&self, settings: &config::Rotation, state: &State, now: u64) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(age) = self.age(now).filter(|age| *age >= settings.warn_after) {
            let (days, max) = (age.as_secs() / DAY_S, settings.warn_after.as_secs() / DAY_S);
            warnings.push(format!("the key is {days} days old, and {max} are configured as the limit"));
        }
        if let State::Unknown { made, .. } = state {
            warnings.push(format!(
                "secondary unknown: MX may have made a key that nobody has, and then the key in use works until {}; \
                 `mxgate rotate {} --replace-unknown-secondary` asks for another one",
                date(made + OVERLAP_S),
                self.environment
            ));
        }
        if let Some(until) = self.old_until.filter(|until| now + OVERLAP_S >= until + OLD_KEY_WARN_S)
            && !matches!(state, State::Unknown { .. })
        {
            let days = until.saturating_sub(now) / DAY_S;
            warnings.push(format!("two keys are live, and MX deletes the old one in {days} days"));
        }
        let is_left = matches!(
            state,
            State::Calling { .. } | State::Sealed { .. } | State::Primary { .. } | State::Retiring { .. }
        );
        if is_left && self.locked.is_none() {
            warnings.push(format!(
                "a rotation stands at `{}` and nobody is at work on it; `mxgate rotate {}` goes on",
                self.step, self.environment
            ));
        }
        warnings
    }

    /// A few lines for people.
    #[must_use]
    pub fn text(&self, now: u64) -> String {
        let mut text = String::new();
        let mut line = |label: &str, value: String| {
            // A `String` takes every write.
            _ = writeln!(text, "{label:<14} {value}");
        };
        let key = |key: &Option<String>| key.clone().unwrap_or_else(|| "none".to_owned());
        line("environment", self.environment.clone());
        line("rotation", self.step.clone());
        let age = self.age(now).map(|age| format!(", {} days old", age.as_secs() / DAY_S));
        line("primary key", key(&self.primary) + &age.unwrap_or_default());
        line("secondary key", key(&self.secondary));
        if let Some(until) = self.old_until {
            line("old key", format!("may work at MX until {}", date(until)));
        }
        if let Some((owner, until)) = &self.locked {
            line("lock", format!("{owner}, until {}", date(*until)));
        }
        for warning in &self.warnings {
            line("WARNING", warning.clone());
        }
        text
    }
}

/// When MX made the primary key, if a rotation brought it.
fn made(record: &Record, primary: Option<&str>) -> Option<u64> {
    let running = record.state.keys().and_then(|(_, new, made)| Some((new?, made)));
    let last = record.last.as_ref().map(|last| (last.new.as_str(), last.made));
    [running, last].into_iter().flatten().find(|(new, _)| Some(*new) == primary).map(|(_, made)| made)
}

/// Until when a key lives beside the one that is to stay.
fn old_until(record: &Record, now: u64) -> Option<u64> {
    let running = record.state.keys().map(|(_, _, made)| made + OVERLAP_S);
    running.or_else(|| record.old_key_lives(now)).filter(|until| now < *until)
}

#[cfg(test)]
mod tests;
