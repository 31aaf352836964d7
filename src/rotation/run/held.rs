//! A run's lock, and what it writes under it.
//!
//! In goes a store; out comes a [`Held`], what the vault holds and the right to write it. Every write is based on the
//! last one, renews the lock or gives it back, and fails when somebody else has written. What must never happen: a run
//! whose lock was taken over writes; a write that failed is taken for one that did nothing.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{PAUSE, Run, TRIES};
use crate::{
    rotation::{
        Error, Notice,
        state::{Event, Keys, Lock, Record, State},
        store::{self, Contents, Written},
    },
    vault::secret::Secret,
};

/// How often a lock that somebody else was faster to take is tried again.
const RACES_MAX: usize = 16;

/// The longest lock that is waited for: a killed run's ends before.
const WAIT_MAX: Duration = Duration::from_secs(15 * 60);

/// The lock, and what the vault holds under it. Only its holder writes.
pub(super) struct Held {
    pub(super) contents: Contents,
    /// By the boot clock, when the lock was written last.
    written: Duration,
    /// What was there before another run's lock was waited for.
    before: Option<Record>,
}

impl Run<'_> {
    /// Takes the lock, which proves that the vault can be written.
    pub(super) async fn take(&self) -> Result<Held, Error> {
        let mut stale: Option<Record> = None;
        for _ in 0..RACES_MAX {
            let contents = self.store.load().await?;
            let now = self.clock.unix();
            if let Some(lock) = contents.record.locked_by_another(&self.order.owner, now) {
                let renewed = stale.as_ref().is_some_and(|before| before.lock.as_ref() != Some(lock));
                if !self.order.wait || renewed || lock.until - now > WAIT_MAX.as_secs() {
                    return Err(Error::Locked { owner: lock.owner.clone(), until: lock.until });
                }
                (self.say)(Notice::WaitingForLock { owner: lock.owner.clone(), until: lock.until });
                let left = Duration::from_secs(lock.until - now);
                stale = Some(contents.record);
                sleep(left).await;
                continue;
            }
            let mut wanted = contents;
            wanted.record.fence += 1;
            wanted.record.lock = Some(self.lock());
            let written = self.clock.boot();
            if let Written::Stored(version) = self.put(&wanted).await? {
                wanted.version = version;
                return Ok(Held { contents: wanted, written, before: stale });
            }
        }
        Err(Error::Changed)
    }

    fn lock(&self) -> Lock {
        // Whole seconds: rounded up, so that it never lasts shorter than it says.
        let until = self.clock.unix() + self.settings.lease.as_secs() + 1;
        Lock { owner: self.order.owner.clone(), until }
    }

    /// Stores, and finds out whether a write that failed was done all the same.
    async fn put(&self, wanted: &Contents) -> Result<Written, store::Error> {
        let mut tries = 1;
        loop {
            let stored = self.store.store(wanted).await;
            if let Ok(Written::Stored(_)) = stored {
                return stored;
            }
            if let Ok(found) = self.store.load().await
                && found.record == wanted.record
                && found.primary == wanted.primary
                && found.secondary == wanted.secondary
            {
                return Ok(Written::Stored(found.version));
            }
            match stored {
                Err(_) if tries < TRIES => sleep(PAUSE).await,
                other => return other,
            }
            tries += 1;
        }
    }

    /// Writes what `event` leads to, with the lock renewed; without an event, what is there, with the lock given back.
    pub(super) async fn write(
        &self,
        held: &mut Held,
        event: Option<Event>,
        new: Option<&Arc<Secret>>,
    ) -> Result<(), Error> {
        let mut wanted = held.contents.clone();
        let mut keys = Keys::Stay;
        wanted.record.lock = None;
        if let Some(event) = event {
            let is_last = event.ends_a_run();
            (wanted.record, keys) = wanted.record.after(event)?;
            wanted.record.lock = (!is_last).then(|| self.lock());
        }
        match keys {
            Keys::Stay => {}
            Keys::Fill => wanted.secondary = new.map(Arc::clone),
            Keys::Swap => std::mem::swap(&mut wanted.primary, &mut wanted.secondary),
            Keys::Clear => wanted.secondary = None,
        }
        self.replace(held, wanted).await
    }

    async fn replace(&self, held: &mut Held, mut wanted: Contents) -> Result<(), Error> {
        let written = self.clock.boot();
        match self.put(&wanted).await? {
            Written::Stored(version) => {
                wanted.version = version;
                (held.contents, held.written) = (wanted, written);
                Ok(())
            }
            Written::Conflict => Err(self.conflict(held).await),
        }
    }

    async fn conflict(&self, held: &mut Held) -> Error {
        match self.store.load().await {
            Err(error) => error.into(),
            Ok(found) if is_ours(&found.record, &held.contents.record) => Error::Changed,
            Ok(_) => {
                held.contents.record.lock = None;
                Error::Overtaken
            }
        }
    }

    /// The lock's time begins anew, if it is half over; an error when it was taken over.
    pub(super) async fn renew(&self, held: &mut Held) -> Result<(), Error> {
        if self.is_fresh(held) {
            return Ok(());
        }
        let mut wanted = held.contents.clone();
        wanted.record.lock = Some(self.lock());
        self.replace(held, wanted).await
    }

    pub(super) async fn note(&self, held: &mut Held, event: Event) -> Result<(), Error> {
        self.write(held, Some(event), None).await
    }

    pub(super) fn is_fresh(&self, held: &Held) -> bool {
        self.clock.boot().saturating_sub(held.written) < self.settings.lease / 2
    }
}

impl Held {
    /// Whether the rotation that was waited for is over: to begin another one now was not meant.
    pub(super) fn is_done_meanwhile(&self) -> bool {
        let now = &self.contents.record;
        let is_new = |before: &Record| before.state != State::Idle || before.last != now.last;
        now.state == State::Idle && self.before.as_ref().is_some_and(is_new)
    }

    pub(super) fn state(&self) -> &State {
        &self.contents.record.state
    }

    pub(super) fn primary(&self) -> Result<Arc<Secret>, Error> {
        self.contents.primary.clone().ok_or(Error::NoPrimary)
    }
}

/// Whether nobody has taken the lock since `ours` was written.
fn is_ours(found: &Record, ours: &Record) -> bool {
    found.fence == ours.fence && found.lock == ours.lock
}
