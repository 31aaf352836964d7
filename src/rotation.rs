//! MX's API keys, changed by MX's own rotation API without a failed call.
//!
//! In go an environment whose credential has two references in a vault that can be written, and an operator's order or
//! a schedule. Out comes a new primary key, the old one retired, and at every moment a record in the vault of where it
//! stands, so that a run which was killed is taken up by the next.
//!
//! - `state`: the record, and every way from one state to the next; pure.
//! - `run`: does what the state asks for; each step is recorded before it is done.
//! - `store`: the vault, two keys and the record in one write. `mx`: what is asked of MX. `readers`: whether the
//!   running gateway has the new key. `recovery`: the file that a key goes to when the vault fails at the worst moment.
//! - `status`: where it stands, how old the key is, what an operator should know. `plan`: `--dry-run`.
//!   `schedule`: the gateway rotates by itself.
//!
//! The way: lock, ask MX for a key, seal it into the secondary slot, try it, let the two change places, wait until every
//! reader has it, retire the old one, empty the slot.
//!
//! What must never happen: no key works; a key is used before it is sealed; MX is asked for a second key because nobody
//! knows what came of the first; a key is shown.

mod mx;
mod plan;
pub mod readers;
mod recovery;
mod run;
pub(crate) mod schedule;
mod state;
pub mod status;
pub(crate) mod store;
mod words;

#[cfg(test)]
mod tests;

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

pub use self::status::Standing;
pub(crate) use self::words::{Error, Notice, Outcome};
use self::{readers::Readers, run::Run, store::Store};
use crate::{
    config::{self, Config, Environment},
    snapshot,
    vault::source::Sources,
};

/// What the configuration says about a rotation, ready to be used.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The environment.
    pub(crate) environment: String,
    /// How long a lock lasts without being renewed.
    pub(crate) lease: Duration,
    /// From the moment when the new key became the primary one until every reader must have it, or uses none.
    pub(crate) wait: Duration,
    /// The same for readers that can read the vault.
    pub(crate) wait_least: Duration,
    /// Whether the old key is left to MX's 30 days.
    pub(crate) keep_old: bool,
}

impl Settings {
    /// How long readers get before the old key is retired.
    pub(crate) fn wait(&self, order: &Order) -> Duration {
        order.retire_after.map_or(self.wait, |after| after.max(self.wait_least))
    }
}

/// What this run is to do beyond that.
#[derive(Debug, Clone)]
pub struct Order {
    /// This process; see [`owner`].
    pub owner: String,
    /// `--keep-old`; `None`: as configured.
    pub keep_old: Option<bool>,
    /// `--retire-after`: how long readers get, though one that cannot read the vault may have the old key longer; never
    /// less than those need that can. `None`: until every reader must have the new one.
    pub retire_after: Option<Duration>,
    /// `--replace-unknown-secondary`.
    pub replace_unknown: bool,
    /// Whether a lock of another run is waited for.
    pub wait: bool,
    /// MX's name for the client; `None`: as configured.
    pub client_guid: Option<String>,
}

/// The clocks that a run goes by.
pub(crate) trait Clock: Send + Sync {
    /// Unix time, in whole seconds: what replicas compare.
    fn unix(&self) -> u64;

    /// Time since the machine started, its sleep included: what one process measures its lock by.
    fn boot(&self) -> Duration;
}

/// The system's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn unix(&self) -> u64 {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
    }

    fn boot(&self) -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(now.tv_sec.try_into().unwrap_or_default(), now.tv_nsec.try_into().unwrap_or_default())
    }
}

/// The time, as [`Standing::text`] takes it.
#[must_use]
pub fn unix_now() -> u64 {
    SystemClock.unix()
}

/// A name for this process that no other has.
#[must_use]
pub fn owner() -> String {
    let mut random = [0; 8];
    // Without random numbers host and process id still tell it from others.
    let _ = aws_lc_rs::rand::fill(&mut random);
    let host = rustix::system::uname();
    format!(
        "{}/{}/{:016x}",
        host.nodename().to_string_lossy(),
        std::process::id(),
        u64::from_ne_bytes(random)
    )
}

/// After how long every gateway that can read the vault has a value that was written there.
fn readers_have_it_after(refresh: &config::Refresh) -> Duration {
    /// A look every 0.5 s, and up to 2.2 s until a file that changes has come to rest; see `app/files.rs`.
    const LOOK: Duration = Duration::from_secs(3);
    LOOK.saturating_add(refresh.interval)
}

/// After how long the others use nothing of before any more.
fn readers_must_have_it_after(refresh: &config::Refresh) -> Duration {
    // With `after_grace = "keep"` there is no such end, and nothing to wait for.
    readers_have_it_after(refresh).saturating_add(refresh.limit().unwrap_or_default())
}

/// Where all environments stand, as the running gateway has seen it last.
#[derive(Debug, Default)]
pub(crate) struct Standings(Mutex<Vec<Standing>>);

impl Standings {
    pub(crate) fn replace(&self, standings: Vec<Standing>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = standings;
    }

    pub(crate) fn all(&self) -> Vec<Standing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a seam's method gives, later.
pub type Doing<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How a run ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// `done`, `kept` or `elsewhere`.
    pub code: &'static str,
    /// For people.
    pub text: String,
}

/// One step of a run.
#[derive(Debug, Clone, Copy)]
pub struct Said<'s> {
    /// For people.
    pub text: &'s str,
    /// Whether MX is about to hand a key over that is not sealed yet: no moment to end the process.
    pub is_handover: bool,
}

/// Why a rotation was not begun, or not brought to its end, and what to do. Where it stands, the record says.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Stopped(#[from] Error);

impl Stopped {
    /// Whether another run is at work, which is nothing to worry about.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        matches!(self.0, Error::Locked { .. } | Error::Overtaken)
    }

    /// With its causes, in one line.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(&self.0);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        text
    }
}

/// Everything that a run needs, from the configuration. Nothing is called yet.
pub struct Rotation {
    settings: Settings,
    configured: config::Rotation,
    store: Arc<dyn Store>,
    environment: Arc<Environment>,
    config: Config,
}

impl Rotation {
    /// # Errors
    /// [`Stopped`] when the keys are not in a vault that can be written, or the environment has no rotation API.
    pub fn new(config: &Config, environment: &Arc<Environment>) -> Result<Self, Stopped> {
        Self::with(config, &Sources::new(config, &Sources::default()), environment)
    }

    /// The same with the sources of a running gateway, which are logged in.
    pub(crate) fn with(
        config: &Config,
        sources: &Sources,
        environment: &Arc<Environment>,
    ) -> Result<Self, Stopped> {
        let name = environment.name.clone();
        if environment.api != config::Api::Platform {
            return Err(Error::NotPlatform { environment: name }.into());
        }
        let store = store::open(config, sources, environment).map_err(Error::from)?;
        let configured = environment.rotation.clone();
        let refresh = environment.credential.reference();
        let refresh = refresh.map_or(config::Refresh::NEVER, |reference| config.refresh_of(reference));
        let settings = Settings {
            environment: name,
            lease: configured.lease,
            wait: readers_must_have_it_after(&refresh).max(configured.wait_min),
            wait_least: readers_have_it_after(&refresh),
            keep_old: configured.keep_old,
        };
        Ok(Self { settings, configured, store, environment: Arc::clone(environment), config: config.clone() })
    }

    /// Where an environment stands, whether it can be rotated or not; `None` when its vault does not tell how old a key is.
    ///
    /// # Errors
    /// [`Stopped`] when the vault cannot be read.
    pub(crate) async fn look(
        config: &Config,
        sources: &Sources,
        environment: &Environment,
    ) -> Result<Option<Standing>, Stopped> {
        let Some(store) = store::look(config, sources, environment) else { return Ok(None) };
        let contents = store.load().await.map_err(Error::from)?;
        let now = SystemClock.unix();
        Ok(Some(Standing::of(&environment.name, &environment.rotation, &contents, now)))
    }

    /// Where it stands. The vault is read, nothing is called.
    ///
    /// # Errors
    /// [`Stopped`] when the vault cannot be read.
    pub async fn standing(&self) -> Result<Standing, Stopped> {
        let contents = self.store.load().await.map_err(Error::from)?;
        Ok(Standing::of(&self.settings.environment, &self.configured, &contents, SystemClock.unix()))
    }

    /// What a run would do, step by step. The vault is read, nothing is called.
    ///
    /// # Errors
    /// [`Stopped`] when the vault cannot be read.
    pub async fn plan(&self, order: &Order) -> Result<Vec<String>, Stopped> {
        let contents = self.store.load().await.map_err(Error::from)?;
        Ok(plan::plan(&self.settings, order, &contents, &self.store.places(), SystemClock.unix()))
    }

    /// Rotates, or goes on with what an earlier run began, as far as it can. `say` is told each step.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn run(
        &self,
        order: &Order,
        readers: &dyn Readers,
        say: &(dyn Fn(&Said<'_>) + Send + Sync),
    ) -> Result<Report, Stopped> {
        let mx = self.mx(order).await?;
        let run = Run {
            store: &*self.store,
            mx: &mx,
            readers,
            clock: &SystemClock,
            settings: &self.settings,
            order,
            say: &|notice| {
                let is_handover = matches!(notice, Notice::Calling { .. });
                say(&Said { text: &notice.to_string(), is_handover });
            },
        };
        let outcome = run.run().await?;
        Ok(Report { code: outcome.code(), text: outcome.to_string() })
    }

    async fn mx(&self, order: &Order) -> Result<mx::Api, Error> {
        let environment = self.settings.environment.clone();
        let client_guid = order.client_guid.as_ref().or(self.configured.client_guid.as_ref());
        let Some(client_guid) = client_guid else { return Err(Error::NoClient { environment }) };
        let dial = snapshot::dial_once(&self.config, &self.environment).await;
        let dial = dial.map_err(|why| Error::Tls { environment, why })?;
        // Connection and exchange together stay within the half of a lock in which MX may be called.
        let timeout = self.settings.lease / 5;
        Ok(mx::Api::new(Arc::clone(&self.environment), dial, client_guid.clone(), timeout))
    }
}
