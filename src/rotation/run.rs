//! One run: from where the record says the rotation stands to its end, or to where an operator must decide.
//!
//! In go the seams ([`Store`], [`Mx`], [`Readers`], [`Clock`]) and what was ordered; out come notices on the way and an
//! [`Outcome`]. Every step is in the vault before it is done, so a run that is killed anywhere is taken up by the next.
//!
//! What must never happen: MX is asked for a key twice because nobody knows about the first time; a key is used before
//! it is sealed; the old key is retired while a reader has nothing else, or while the new one does not work; a
//! secret that somebody has put where the old key was is sent to MX, or removed; two runs call MX at once. A run calls MX only within half of its lock's time ([`Held::is_fresh`]), so that a process that was
//! stopped in between does not act on a lock that somebody else has taken over.

mod held;

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use self::held::Held;
use super::{
    Clock, Error, Notice, Order, Outcome, Settings,
    mx::{Asked, Mx, Retired, Taken},
    readers::Readers,
    state::{Event, OVERLAP_S, State},
    store::Store,
};
use crate::vault::secret::Secret;

/// How often a read that says nothing about its key is tried, and a write that failed.
const TRIES: u32 = 4;

/// How long between those.
const PAUSE: Duration = Duration::from_millis(500);

/// For how long a count of 401s must not grow.
const WATCH: Duration = Duration::from_secs(2);

/// How long readers may be behind, beyond the time after which every one must have the new key.
const BEHIND_MAX: Duration = Duration::from_secs(60);

/// The parts of a run.
pub(crate) struct Run<'a> {
    pub(super) store: &'a dyn Store,
    pub(super) mx: &'a dyn Mx,
    pub(super) readers: &'a dyn Readers,
    pub(super) clock: &'a dyn Clock,
    pub(super) settings: &'a Settings,
    pub(super) order: &'a Order,
    pub(super) say: &'a (dyn Fn(Notice) + Send + Sync),
}

/// Whether a step leads on.
enum Flow {
    On,
    End(Outcome),
}

impl Run<'_> {
    /// Goes as far as it can.
    ///
    /// # Errors
    /// [`Error`]: where it stands then, the record says.
    pub(super) async fn run(&self) -> Result<Outcome, Error> {
        let mut held = self.take().await?;
        let done = self.steps(&mut held).await;
        // Overtaken, there is nothing of ours to give back; and a vault that cannot be written keeps the lock until it
        // ends by itself.
        if held.contents.record.lock.is_some() {
            let _ = self.write(&mut held, None, None).await;
        }
        done
    }

    async fn steps(&self, held: &mut Held) -> Result<Outcome, Error> {
        if held.is_done_meanwhile() {
            return Ok(Outcome::Elsewhere { step: held.state().step() });
        }
        self.look(held).await?;
        loop {
            let flow = match held.state().clone() {
                State::Idle => self.begin(held).await?,
                State::Calling { .. } => self.after_a_kill(held).await?,
                State::Unknown { .. } => self.unknown(held).await?,
                State::Sealed { .. } => self.try_new(held).await?,
                State::Primary { new, since, .. } => self.spread(held, &new, since).await?,
                State::Kept { made, .. } => self.kept(held, made).await?,
                State::Retiring { .. } => self.retire(held).await?,
            };
            if let Flow::End(outcome) = flow {
                return Ok(outcome);
            }
        }
    }

    /// Whether the vault's keys are those that the record speaks of.
    async fn look(&self, held: &mut Held) -> Result<(), Error> {
        let Some((old, new, _)) = held.state().keys() else { return Ok(()) };
        let (old, new) = (old.to_owned(), new.map(str::to_owned));
        let primary = fingerprint(held.contents.primary.as_ref());
        let (expected, other) = match held.state().is_swapped() {
            true => (new.clone(), Some(old)),
            false => (Some(old), new.clone()),
        };
        if primary != expected && (primary.is_none() || primary == other) {
            return Err(Error::Misplaced { expected: expected.unwrap_or_default() });
        }
        if primary != expected {
            let step = held.state().step();
            self.note(held, Event::Abandon).await?;
            return Err(Error::Abandoned { step, primary: primary.unwrap_or_default() });
        }
        let secondary = fingerprint(held.contents.secondary.as_ref());
        if let Some(secondary) =
            secondary.filter(|key| held.state().is_swapped() && Some(key) != other.as_ref())
        {
            let [_, place] = self.store.places();
            return Err(Error::NotTheOldKey { place, fingerprint: secondary });
        }
        if matches!(held.state(), State::Sealed { .. })
            && fingerprint(held.contents.secondary.as_ref()) != new
        {
            self.note(held, Event::Lost).await?;
        }
        Ok(())
    }

    /// A new rotation, from a vault with one key that works.
    async fn begin(&self, held: &mut Held) -> Result<Flow, Error> {
        let primary = held.primary()?;
        if let Some(left) = self.store.rescued().await? {
            if left != primary {
                return Err(Error::Leftover { fingerprint: left.fingerprint().to_string() });
            }
            self.store.forget_rescue().await?;
        }
        if let Some(until) = held.contents.record.old_key_lives(self.clock.unix()) {
            return Err(Error::OldKeyLives { until });
        }
        if let Some(secondary) = held.contents.secondary.as_ref().filter(|key| **key != primary) {
            let [_, place] = self.store.places();
            return Err(Error::SecondaryInUse { place, fingerprint: secondary.fingerprint().to_string() });
        }
        self.check_primary(&primary).await?;
        self.call(held, &primary, |old, now| Event::Begin { old, now }).await
    }

    async fn check_primary(&self, primary: &Arc<Secret>) -> Result<(), Error> {
        match self.ask(primary).await {
            Taken::Yes => Ok(()),
            Taken::No => Err(Error::PrimaryRefused { fingerprint: primary.fingerprint().to_string() }),
            Taken::Unclear(why) => Err(Error::Unreachable { why }),
        }
    }

    /// Asks MX for a key: the one call that may never be repeated.
    async fn call(
        &self,
        held: &mut Held,
        primary: &Arc<Secret>,
        event: impl FnOnce(String, u64) -> Event,
    ) -> Result<Flow, Error> {
        self.store.prepare_rescue().await?;
        let old = primary.fingerprint().to_string();
        (self.say)(Notice::Calling { old: old.clone() });
        self.note(held, event(old, self.clock.unix())).await?;
        let asked = match self.is_fresh(held) {
            true => self.mx.rotate(primary).await,
            false => Asked::Refused("this process was stopped for too long after it had said so".to_owned()),
        };
        match asked {
            Asked::Made(new) => self.seal(held, &new).await,
            Asked::Refused(why) => {
                self.note(held, Event::Refused).await?;
                let _ = self.store.forget_rescue().await;
                Err(Error::Refused { why })
            }
            Asked::Unclear(why) => {
                self.note(held, Event::Lost).await?;
                self.unknown_since(&why, held)
            }
        }
    }

    /// The new key goes into the vault, or into the recovery file, before anything else.
    async fn seal(&self, held: &mut Held, new: &Arc<Secret>) -> Result<Flow, Error> {
        let fingerprint = new.fingerprint().to_string();
        let made = Event::Made { new: fingerprint.clone() };
        let mut sealed = self.write(held, Some(made.clone()), Some(new)).await;
        if let Err(Error::Changed) = sealed {
            // Somebody has written beside us: what we have now matters more than what was there.
            sealed = match self.store.load().await {
                Ok(found) if found.secondary == held.contents.secondary => {
                    held.contents = found;
                    self.write(held, Some(made), Some(new)).await
                }
                _ => sealed,
            };
        }
        if let Err(why) = sealed {
            return Err(match self.store.rescue(new).await {
                Ok(place) => Error::Rescued { place, fingerprint, why: Box::new(why) },
                Err(lost) => Error::KeyLost { why: Box::new(why), lost },
            });
        }
        (self.say)(Notice::Sealed { new: fingerprint, place: self.store.places()[1].clone() });
        // A copy that is left behind is found, and told from the key in the vault, by the next run.
        let _ = self.store.forget_rescue().await;
        Ok(Flow::On)
    }

    /// Found by a run that has not called itself: only a key that was saved can tell more.
    async fn after_a_kill(&self, held: &mut Held) -> Result<Flow, Error> {
        if let Some(new) = self.saved(held).await? {
            return self.take_in(held, new).await;
        }
        self.note(held, Event::Lost).await?;
        self.unknown_since("the run that asked for it ended before its answer was sealed", held)
    }

    async fn unknown(&self, held: &mut Held) -> Result<Flow, Error> {
        if let Some(new) = self.saved(held).await? {
            return self.take_in(held, new).await;
        }
        if !self.order.replace_unknown {
            return self.unknown_since("an earlier run left it like that", held);
        }
        let primary = held.primary()?;
        self.check_primary(&primary).await?;
        self.call(held, &primary, |_, now| Event::Replace { now }).await
    }

    fn unknown_since(&self, why: &str, held: &Held) -> Result<Flow, Error> {
        Err(Error::Unknown { why: why.to_owned(), until: self.old_until(held) })
    }

    /// A key that the recovery file holds, or that an operator has put from there into the slot, which was empty when
    /// MX was called.
    async fn saved(&self, held: &Held) -> Result<Option<Arc<Secret>>, Error> {
        let in_slot =
            held.contents.secondary.clone().filter(|key| held.contents.primary.as_ref() != Some(key));
        match in_slot {
            Some(key) => Ok(Some(key)),
            None => Ok(self.store.rescued().await?),
        }
    }

    async fn take_in(&self, held: &mut Held, new: Arc<Secret>) -> Result<Flow, Error> {
        crate::redaction::held().remember([&new]);
        (self.say)(Notice::TakenIn { new: new.fingerprint().to_string() });
        self.seal(held, &new).await
    }

    /// The first use of the new key: one harmless read. Then it becomes the primary one.
    async fn try_new(&self, held: &mut Held) -> Result<Flow, Error> {
        let Some(new) = held.contents.secondary.clone() else { return Err(Error::Changed) };
        let fingerprint = new.fingerprint().to_string();
        match self.ask(&new).await {
            Taken::Yes => {}
            Taken::No if self.order.replace_unknown => {
                let primary = held.primary()?;
                self.check_primary(&primary).await?;
                return self.call(held, &primary, |_, now| Event::Replace { now }).await;
            }
            Taken::No => return Err(Error::NewRefused { fingerprint }),
            Taken::Unclear(why) => return Err(Error::Unreachable { why }),
        }
        self.note(held, Event::Tried { now: self.clock.unix() }).await?;
        (self.say)(Notice::Primary { new: fingerprint, wait: self.settings.wait(self.order) });
        Ok(Flow::On)
    }

    /// Waits until every reader must have the new key. The lock is given back meanwhile: whoever goes on from here
    /// does the same.
    async fn spread(&self, held: &mut Held, new: &str, since: u64) -> Result<Flow, Error> {
        let wait = self.settings.wait(self.order);
        let due = since + wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let left = due.saturating_sub(self.clock.unix());
        if left > 0
            && let Some(outcome) = self.wait_unlocked(held, Duration::from_secs(left)).await?
        {
            return Ok(Flow::End(outcome));
        }
        self.wait_for_readers(new).await?;
        self.watch_refusals().await?;
        self.renew(held).await?;
        let primary = held.primary()?;
        match self.ask(&primary).await {
            Taken::Yes => {}
            Taken::No => return self.back(held, &primary).await,
            Taken::Unclear(why) => return Err(Error::Unreachable { why }),
        }
        if self.order.keep_old.unwrap_or(self.settings.keep_old) {
            self.note(held, Event::Keep).await?;
            return Ok(Flow::On);
        }
        self.note(held, Event::Retire).await?;
        Ok(Flow::On)
    }

    /// Gives the lock back, waits, and takes it again; an outcome when somebody else went on meanwhile.
    async fn wait_unlocked(&self, held: &mut Held, wait: Duration) -> Result<Option<Outcome>, Error> {
        let before = held.state().clone();
        self.write(held, None, None).await?;
        sleep(wait).await;
        *held = self.take().await?;
        match *held.state() == before {
            // For as long as that, anybody may have set another key.
            true => self.look(held).await.map(|()| None),
            false => Ok(Some(Outcome::Elsewhere { step: held.state().step() })),
        }
    }

    async fn wait_for_readers(&self, new: &str) -> Result<(), Error> {
        let mut left = BEHIND_MAX;
        while let Some(who) = self.readers.behind(new).await {
            if left.is_zero() {
                return Err(Error::ReadersBehind { who });
            }
            sleep(PAUSE).await;
            left = left.saturating_sub(PAUSE);
        }
        Ok(())
    }

    /// A gateway's own count of 401s must have come to rest: MX may take some time until all of it knows a new key.
    async fn watch_refusals(&self) -> Result<(), Error> {
        let mut left = BEHIND_MAX;
        let Some(mut before) = self.readers.refusals().await else { return Ok(()) };
        loop {
            sleep(WATCH).await;
            let now = self.readers.refusals().await.unwrap_or(before);
            // A count that fell began anew, with a reload.
            if now <= before {
                return Ok(());
            }
            if left.is_zero() {
                return Err(Error::Refusals { count: now });
            }
            (before, left) = (now, left.saturating_sub(WATCH));
        }
    }

    /// The new key has stopped working: the old one, if it works, is the primary one again.
    async fn back(&self, held: &mut Held, new: &Arc<Secret>) -> Result<Flow, Error> {
        let fingerprint = new.fingerprint().to_string();
        let old = match &held.contents.secondary {
            Some(old) => self.ask(old).await,
            None => Taken::No,
        };
        match old {
            Taken::Yes => {
                self.note(held, Event::Disliked).await?;
                Err(Error::NewRefused { fingerprint })
            }
            Taken::No => Err(Error::BothRefused),
            Taken::Unclear(why) => Err(Error::Unreachable { why }),
        }
    }

    /// The old key stays until MX deletes it, or until somebody orders its end.
    async fn kept(&self, held: &mut Held, made: u64) -> Result<Flow, Error> {
        let until = made + OVERLAP_S;
        if self.order.keep_old.unwrap_or(self.settings.keep_old) && self.clock.unix() < until {
            return Ok(Flow::End(Outcome::Kept { until }));
        }
        self.note(held, Event::Retire).await?;
        Ok(Flow::On)
    }

    /// Deletes the old key, and only a key that was just seen alive: if it is dead already, the call could hit
    /// another rotation's.
    async fn retire(&self, held: &mut Held) -> Result<Flow, Error> {
        let (new, old) = (held.primary()?, held.contents.secondary.clone());
        match self.ask(&new).await {
            Taken::Yes => {}
            Taken::No => return self.back(held, &new).await,
            Taken::Unclear(why) => return Err(Error::Unreachable { why }),
        }
        let until = self.old_until(held);
        let old_until = match &old {
            // Nobody can see it any more, so nobody may call: MX deletes it by itself.
            None => Some(until).filter(|until| self.clock.unix() < *until),
            Some(old) => {
                self.end(held, &new, old).await?;
                None
            }
        };
        self.note(held, Event::Gone { old_until }).await?;
        let _ = self.store.forget_rescue().await;
        let (old, new) = (fingerprint(old.as_ref()), new.fingerprint().to_string());
        Ok(Flow::End(Outcome::Done { old, new, old_until }))
    }

    async fn end(&self, held: &mut Held, new: &Arc<Secret>, old: &Arc<Secret>) -> Result<(), Error> {
        match self.ask(old).await {
            Taken::No => return Ok(()),
            Taken::Unclear(why) => return Err(Error::Unreachable { why }),
            Taken::Yes => {}
        }
        (self.say)(Notice::Retiring { old: old.fingerprint().to_string() });
        self.renew(held).await?;
        let retired = self.mx.retire(new).await;
        match self.ask(old).await {
            Taken::No => Ok(()),
            // The wrong one may be dead: then the old one is the primary one again.
            Taken::Yes if self.ask(new).await == Taken::No => self.back(held, new).await.map(drop),
            Taken::Yes => Err(Error::NotRetired {
                why: match retired {
                    Retired::Done => "MX said that it was, and takes it all the same".to_owned(),
                    Retired::Refused(why) | Retired::Unclear(why) => why,
                },
            }),
            Taken::Unclear(why) => Err(Error::Unreachable { why }),
        }
    }

    /// Whether MX takes `key`; what says nothing about it is asked again a few times.
    async fn ask(&self, key: &Arc<Secret>) -> Taken {
        let mut tries = 1;
        loop {
            match self.mx.read(key).await {
                Taken::Unclear(_) if tries < TRIES => sleep(PAUSE).await,
                taken => return taken,
            }
            tries += 1;
        }
    }

    /// Until when the old key works, if MX has made another one.
    fn old_until(&self, held: &Held) -> u64 {
        held.state().keys().map_or(0, |(_, _, made)| made + OVERLAP_S)
    }
}

fn fingerprint(key: Option<&Arc<Secret>>) -> Option<String> {
    key.map(|key| key.fingerprint().to_string())
}
