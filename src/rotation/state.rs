//! Where a rotation stands, and where it may go from there. Pure: no clock, no input, no output.
//!
//! A [`Record`] is what the vault holds about the rotation of one environment. [`next`] is the only way from one
//! [`State`] to the next; with the state it says what becomes of the vault's two keys ([`Keys`]), since both are
//! written at once. What is called at MX is called *after* the state that says so is in the vault.
//!
//! What must never happen: a state is left by a way that the table in [`next`] does not have; MX is asked for a key
//! while it may have made one that nobody has ([`State::Unknown`]); the record holds anything secret.
//!
//! MX's side: `rotate` makes a secondary key and lets the original die after 30 days; another `rotate` replaces the
//! secondary; `retire` deletes the original at once. So as long as the original lives, the key that a rotation brought
//! is MX's secondary, and another rotation would kill it: [`Record::old_key_lives`].

use serde::{Deserialize, Serialize};

/// How long MX lets the original key work beside the new one, in seconds.
pub(crate) const OVERLAP_S: u64 = 30 * 24 * 60 * 60;

/// The format of the record that this program writes, and the only one that it reads.
const FORMAT: u32 = 1;

/// What the vault holds about the rotation of one environment. It names keys by their fingerprints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    pub(super) format: u32,
    /// Rises by one with each lock, so that a holder whose lock was taken over can write nothing any more.
    pub(crate) fence: u64,
    /// Who is at work; `None`: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lock: Option<Lock>,
    /// Where the rotation stands.
    pub(crate) state: State,
    /// The last rotation that came to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last: Option<Finished>,
}

/// A lock with an end, so that a process that was killed does not hold it for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Lock {
    /// A process, by host, id and a random number.
    pub(crate) owner: String,
    /// From then on others may take it over, in Unix time.
    pub(crate) until: u64,
}

/// A rotation that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Finished {
    /// When MX made the new key, in Unix time.
    pub(crate) made: u64,
    /// The key that was replaced.
    pub(crate) old: String,
    /// The key that replaced it.
    pub(crate) new: String,
    /// Until when the old one may work at MX, in Unix time; `None`: it is known to be dead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) old_until: Option<u64>,
}

/// Where a rotation stands. `old` and `new` are fingerprints; `made` is when MX was asked for the new key, in Unix
/// time, from which the 30 days of the old one count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum State {
    /// No rotation is under way.
    Idle,
    /// MX is being asked for a new key. Found by another run, nobody knows whether it made one.
    Calling {
        old: String,
        made: u64,
        /// When MX was asked before, if a key of that time was lost: the old key's days may count from there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        earlier: Option<u64>,
    },
    /// MX may have made a key that nobody has. The old one works on, for 30 days at most.
    Unknown { old: String, made: u64 },
    /// The new key is in the vault's secondary slot, untried.
    Sealed { old: String, new: String, made: u64 },
    /// The new key is the primary one, the old the secondary one; readers are taking it up since `since`.
    Primary { old: String, new: String, made: u64, since: u64 },
    /// Every reader has the new key; the old one stays until MX deletes it, since that was asked for.
    Kept { old: String, new: String, made: u64 },
    /// MX is being asked to delete the old key.
    Retiring { old: String, new: String, made: u64 },
}

/// What has happened, or is about to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// MX is about to be asked for a key, with the primary one.
    Begin { old: String, now: u64 },
    /// The same again after a key was lost, or is not taken by MX: an operator said so.
    Replace { now: u64 },
    /// MX surely made no key.
    Refused,
    /// Whether MX made a key cannot be told.
    Lost,
    /// MX has made this key.
    Made { new: String },
    /// MX takes the new key.
    Tried { now: u64 },
    /// MX does not take the new key after all, and takes the old one.
    Disliked,
    /// Every reader has the new key, and the old one is to be kept.
    Keep,
    /// Every reader has the new key; MX is about to be asked to delete the old one.
    Retire,
    /// The old key is dead; or nobody can tell, and it dies by itself at this time.
    Gone { old_until: Option<u64> },
    /// The primary key was changed by hand: what this rotation knew is void.
    Abandon,
}

/// What becomes of the vault's two keys when a state is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keys {
    /// Nothing.
    Stay,
    /// The new key goes into the secondary slot.
    Fill,
    /// Primary and secondary change places.
    Swap,
    /// The secondary slot is emptied.
    Clear,
}

/// There is no such way.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a rotation cannot go on from {step} like that; this is a defect")]
pub(crate) struct Impossible {
    step: &'static str,
}

/// The state after `event`, and what becomes of the keys in the same write.
///
/// # Errors
/// [`Impossible`].
pub(crate) fn next(state: &State, event: Event) -> Result<(State, Keys), Impossible> {
    use Keys::{Clear, Fill, Stay, Swap};
    let step = state.step();
    Ok(match (state.clone(), event) {
        (State::Idle, Event::Begin { old, now }) => (State::Calling { old, made: now, earlier: None }, Stay),
        (State::Unknown { old, made }, Event::Replace { now }) => {
            (State::Calling { old, made: now, earlier: Some(made) }, Stay)
        }
        // What MX did not take is not worth keeping: the next key replaces it at MX, too.
        (State::Sealed { old, made, .. }, Event::Replace { now }) => {
            (State::Calling { old, made: now, earlier: Some(made) }, Clear)
        }
        (State::Calling { earlier: None, .. }, Event::Refused) => (State::Idle, Stay),
        // A no to the second call says nothing about the first.
        (State::Calling { old, earlier: Some(made), .. }, Event::Refused) => {
            (State::Unknown { old, made }, Stay)
        }
        (State::Calling { old, made, earlier }, Event::Lost) => {
            (State::Unknown { old, made: earlier.unwrap_or(made) }, Stay)
        }
        (State::Sealed { old, made, .. }, Event::Lost) => (State::Unknown { old, made }, Stay),
        (State::Calling { old, made, .. } | State::Unknown { old, made }, Event::Made { new }) => {
            (State::Sealed { old, new, made }, Fill)
        }
        (State::Sealed { old, new, made }, Event::Tried { now }) => {
            (State::Primary { old, new, made, since: now }, Swap)
        }
        (State::Primary { old, new, made, .. } | State::Retiring { old, new, made }, Event::Disliked) => {
            (State::Sealed { old, new, made }, Swap)
        }
        (State::Primary { old, new, made, .. }, Event::Keep) => (State::Kept { old, new, made }, Stay),
        (State::Primary { old, new, made, .. } | State::Kept { old, new, made }, Event::Retire) => {
            (State::Retiring { old, new, made }, Stay)
        }
        (State::Retiring { .. }, Event::Gone { .. }) => (State::Idle, Clear),
        (_, Event::Abandon) => (State::Idle, Stay),
        _ => return Err(Impossible { step }),
    })
}

impl Event {
    /// Whether a run is over with it, so that its lock is given back in the same write.
    pub(super) const fn ends_a_run(&self) -> bool {
        matches!(
            self,
            Self::Refused | Self::Lost | Self::Disliked | Self::Keep | Self::Gone { .. } | Self::Abandon
        )
    }
}

impl State {
    /// Its name, as in the record.
    pub(crate) const fn step(&self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Calling { .. } => "calling",
            Self::Unknown { .. } => "unknown",
            Self::Sealed { .. } => "sealed",
            Self::Primary { .. } => "primary",
            Self::Kept { .. } => "kept",
            Self::Retiring { .. } => "retiring",
        }
    }

    /// The old key, the new one as far as it is known, and when MX was asked for it; `None` when idle.
    pub(crate) fn keys(&self) -> Option<(&str, Option<&str>, u64)> {
        match self {
            Self::Idle => None,
            Self::Calling { old, made, .. } | Self::Unknown { old, made } => Some((old, None, *made)),
            Self::Sealed { old, new, made }
            | Self::Primary { old, new, made, .. }
            | Self::Kept { old, new, made }
            | Self::Retiring { old, new, made } => Some((old, Some(new), *made)),
        }
    }

    /// Whether the vault's primary key is the new one.
    pub(crate) const fn is_swapped(&self) -> bool {
        matches!(self, Self::Primary { .. } | Self::Kept { .. } | Self::Retiring { .. })
    }
}

impl Default for Record {
    fn default() -> Self {
        Self { format: FORMAT, fence: 0, lock: None, state: State::Idle, last: None }
    }
}

impl Record {
    /// The record in `json`; `None` for anything else, and for a format that this program does not know.
    pub(crate) fn read(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok().filter(|record: &Self| record.format == FORMAT)
    }

    /// As JSON on one line.
    ///
    /// # Errors
    /// None in practice: names and numbers always are JSON.
    pub(crate) fn json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// Who holds the lock at `now` and is not `owner`.
    pub(crate) fn locked_by_another(&self, owner: &str, now: u64) -> Option<&Lock> {
        self.lock.as_ref().filter(|lock| lock.owner != owner && now < lock.until)
    }

    /// Until when the key of before the last rotation may live at `now`, so that the present one is MX's secondary and
    /// another rotation would kill it.
    pub(crate) fn old_key_lives(&self, now: u64) -> Option<u64> {
        self.last.as_ref().and_then(|last| last.old_until).filter(|until| now < *until)
    }

    /// The record after `event`, and what becomes of the keys with it. The lock stays as it is.
    ///
    /// # Errors
    /// [`Impossible`].
    pub(crate) fn after(&self, event: Event) -> Result<(Self, Keys), Impossible> {
        let old_until = match &event {
            Event::Gone { old_until } => *old_until,
            _ => None,
        };
        let over = matches!(event, Event::Gone { .. });
        let (state, keys) = next(&self.state, event)?;
        let finished = match &self.state {
            State::Retiring { old, new, made } if over => {
                Some(Finished { made: *made, old: old.clone(), new: new.clone(), old_until })
            }
            _ => None,
        };
        let record = Self { state, last: finished.or_else(|| self.last.clone()), ..self.clone() };
        Ok((record, keys))
    }
}

#[cfg(test)]
mod tests;
