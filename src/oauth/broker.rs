//! Access tokens for whoever may have them: what the rest of the gateway knows of OAuth.
//!
//! In: which connection is meant, or which client's own token. Out: a [`Cell`] that has its token, or why there is none.
//! Everything that waits runs on the broker's own thread, so a caller that hangs up ends nothing, and a provider or a store
//! that is slow costs no worker anything.
//!
//! - [`open`] finds keys and store; until then there are no tokens.
//! - `upkeep` refreshes ahead of time, follows what other replicas change, and forgets what nobody uses.
//! - `client` has the tokens that the gateway asks for itself; `handles` keeps those that MX gave callers.
//!
//! What must never happen: a token of a provider that was reconfigured goes on to where it may not; a connection that was
//! ended, here or by another replica, is used for much longer than [`upkeep::FOLLOW`].

mod client;
mod counts;
mod handles;
mod index;
pub(crate) mod open;
mod orders;
mod places;
mod upkeep;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use tokio::{
    runtime::Handle,
    time::{Instant, timeout},
};

use self::{client::ClientTokens, counts::Counts, index::Index, open::Kind, places::Places};
pub(crate) use self::{client::Wanted, places::Useless};
use super::{
    cell::{Cell, Held, Token},
    connect::{self, Connector},
    connection::{ConnectionId, Summary},
    handle::HandleKey,
    provider::Provider,
    refresh::{Because, Guard, Outcome, Providers, Refresher, SystemClock, dice},
    store::{self, Store, Stored},
};
use crate::{
    config::{Config, Connections},
    tree::tree,
    vault,
};

/// What one refresh may ask of a provider, one after another: a document of discovery; tokens, twice; and when their
/// connection was forgotten meanwhile, that both of them are taken back.
const EXCHANGES_MAX: u32 = 5;

/// For an answer to be stored.
const STORED: Duration = Duration::from_secs(5);

/// Whoever waits for a refresh waits no longer, while that goes on: a store that is down must not collect them.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why there is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unavailable {
    /// There is no such connection.
    Unknown,
    /// The user must consent again.
    Gone,
    /// This cell has none any more; the connection's next cell may.
    Replaced,
    /// Not now: the provider or the store failed.
    Later,
}

/// Gets tokens.
pub(crate) struct Broker {
    runtime: Handle,
    providers: Arc<Known>,
    opened: OnceLock<Opened>,
    cells: Mutex<HashMap<ConnectionId, Arc<Cell>>>,
    index: ArcSwap<Index>,
    /// One look at a time.
    looking: tokio::sync::Mutex<()>,
    /// When the store was last looked at because somebody asked, and how that went.
    looked: tokio::sync::Mutex<Option<(Instant, Result<(), Unavailable>)>>,
    clients: ClientTokens,
    places: ArcSwap<Places>,
    counts: Arc<Counts>,
}

/// What there is once the store is open.
struct Opened {
    store: Arc<dyn Store>,
    kind: Kind,
    handles: HandleKey,
    refresher: Refresher,
    connector: Connector,
}

/// The configured providers.
#[derive(Default)]
struct Known(ArcSwap<BTreeMap<String, One>>);

#[derive(Clone)]
struct One {
    provider: Arc<Provider>,
    guard: Arc<Guard>,
}

impl Providers for Known {
    fn of(&self, name: &str) -> Option<Arc<Guard>> {
        self.0.load().get(name).map(|one| one.guard.clone())
    }
}

impl Known {
    /// One that is as it was keeps what is known of it.
    fn adopt(&self, config: &Config) {
        let before = self.0.load();
        let one = |(name, settings): (&String, &Arc<crate::config::Provider>)| {
            let same = before.get(name).filter(|one| one.provider.settings() == &**settings);
            let one = same.cloned().unwrap_or_else(|| {
                let provider = Arc::new(Provider::new(settings.clone(), config.vault.clone()));
                One { guard: Guard::new(provider.clone()), provider }
            });
            (name.clone(), one)
        };
        self.0.store(Arc::new(tree(config.providers.iter().map(one))));
    }

    /// Which of them `config` leaves as they are.
    fn same(&self, config: &Config) -> BTreeSet<String> {
        let known = self.0.load();
        let is_same = |(name, settings): &(&String, &Arc<crate::config::Provider>)| {
            known.get(*name).is_some_and(|one| one.provider.settings() == &***settings)
        };
        tree(config.providers.iter().filter(is_same).map(|(name, _)| name.clone()))
    }
}

impl Broker {
    /// One without a store yet, whose work is done on `runtime`.
    pub(crate) fn new(runtime: Handle) -> Arc<Self> {
        Arc::new(Self {
            runtime,
            providers: Arc::default(),
            opened: OnceLock::new(),
            cells: Mutex::default(),
            index: ArcSwap::default(),
            looking: tokio::sync::Mutex::default(),
            looked: tokio::sync::Mutex::default(),
            clients: ClientTokens::default(),
            places: ArcSwap::default(),
            counts: Arc::default(),
        })
    }

    /// Takes up what a configuration says of providers.
    pub(crate) fn adopt(&self, config: &Config) {
        let same = self.providers.same(config);
        self.providers.adopt(config);
        self.clients.keep(|provider| same.contains(provider));
        self.places.store(Arc::new(Places::new(config)));
        if let (Some(opened), Some(connections)) = (self.opened.get(), &config.connections) {
            opened.connector.configure(self.settings(connections));
        }
    }

    /// The store is there.
    pub(crate) fn open(&self, kind: Kind, connections: &Connections) -> Connector {
        let (store, clock, owner) = (kind.store(), Arc::new(SystemClock), owner());
        let refresher = Refresher::new(store.clone(), self.providers.clone(), clock.clone(), owner.clone());
        let settings = self.settings(connections);
        let connector = Connector::new(store.clone(), clock, self.counts.clone(), owner, settings);
        let handles = kind.handles();
        let opened = Opened { store, kind, handles, refresher, connector: connector.clone() };
        // A second store would be a mistake of ours: the first one serves on.
        let _ = self.opened.set(opened);
        connector
    }

    /// What the way through users' browsers is told of the configuration.
    fn settings(&self, connections: &Connections) -> connect::Settings {
        let browser = connections.browser.as_ref();
        let known = self.providers.0.load();
        connect::Settings {
            base: browser.map(|browser| browser.url.clone()),
            return_urls: connections.return_urls.clone(),
            ticket_life: browser.map_or(Duration::ZERO, |browser| browser.ticket_life),
            attempt_life: browser.map_or(Duration::ZERO, |browser| browser.consent_life),
            providers: tree(known.iter().map(|(name, one)| (name.clone(), one.provider.clone()))),
        }
    }

    /// Whether connections can be used.
    pub(crate) fn is_open(&self) -> bool {
        self.opened.get().is_some()
    }

    /// Where an environment is, in lower case.
    pub(crate) fn host_of(&self, environment: &str) -> Option<String> {
        self.places.load().host(environment).map(str::to_owned)
    }

    /// As [`Self::host_of`], if connections of `caller` and `provider` can be used there.
    ///
    /// # Errors
    /// [`Useless`].
    pub(crate) fn host_for(
        &self,
        caller: &str,
        provider: &str,
        environment: &str,
    ) -> Result<String, Useless> {
        self.places.load().used(caller, provider, environment).map(str::to_owned)
    }

    /// The connections of a user at an environment, the newest first.
    pub(crate) fn of_user(&self, environment: &str, user_guid: &str) -> Vec<Summary> {
        self.index.load().of_user(environment, user_guid)
    }

    /// The connection's cell.
    pub(crate) async fn cell(self: &Arc<Self>, id: ConnectionId) -> Result<Arc<Cell>, Unavailable> {
        if let Some(cell) = self.cells().get(&id) {
            return Ok(cell.clone());
        }
        let this = self.clone();
        self.here(async move { this.load(id).await }).await
    }

    /// Has a token refreshed, unless that was done meanwhile.
    pub(crate) async fn refresh(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        because: Because,
    ) -> Result<(), Unavailable> {
        let (this, cell) = (self.clone(), cell.clone());
        self.here(async move { this.refreshed(&cell, because).await }).await
    }

    /// The same, and nobody waits for it.
    pub(crate) fn refresh_later(self: &Arc<Self>, cell: Arc<Cell>, because: Because) {
        let this = self.clone();
        self.runtime.spawn(async move {
            // Whoever needs it is told, and the log has it.
            let _ = this.refreshed(&cell, because).await;
        });
    }

    /// The token that the gateway gets for itself.
    pub(crate) async fn client(self: &Arc<Self>, wanted: &Wanted) -> Result<Arc<Token>, Unavailable> {
        if let Some(token) = self.clients.usable(wanted) {
            return Ok(token);
        }
        let (this, wanted) = (self.clone(), wanted.clone());
        self.here(async move { this.clients.token(&this.providers, &wanted).await }).await
    }

    /// That token was refused: the next request gets another.
    pub(crate) fn client_refused(&self, wanted: &Wanted, token: &Arc<Token>) {
        self.clients.refused(wanted, token);
    }

    /// Begins nothing any more, and waits for the refreshes that run: their answers would be lost.
    pub(crate) async fn finish(&self) {
        if let Some(opened) = self.opened.get() {
            tokio::join!(opened.refresher.finish(), opened.connector.idle());
        }
    }

    /// How long that may take: what a provider says is to be stored, or given up.
    pub(crate) fn patience(&self) -> Duration {
        let known = self.providers.0.load();
        let longest = known.values().map(|one| {
            let settings = one.provider.settings();
            settings.connect_timeout.saturating_add(settings.read_timeout).saturating_mul(EXCHANGES_MAX)
        });
        longest.max().unwrap_or_default().saturating_add(STORED)
    }

    /// Does what goes on without anybody asking, until it is dropped.
    pub(crate) async fn upkeep(self: &Arc<Self>) {
        tokio::join!(
            upkeep::refresh_ahead(self.clone()),
            upkeep::renew_clients(self.clone()),
            upkeep::follow(self.clone()),
            upkeep::reseal(self.clone())
        );
    }

    /// Does `work` on the broker's thread, to its end.
    async fn here<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Unavailable>> + Send + 'static,
    ) -> Result<T, Unavailable> {
        // It ends early only with the process, or in a panic, which is in the log.
        self.runtime.spawn(work).await.unwrap_or(Err(Unavailable::Later))
    }

    async fn load(&self, id: ConnectionId) -> Result<Arc<Cell>, Unavailable> {
        let opened = self.opened()?;
        let stored = opened.store.load(id).await.map_err(|error| unread(id, &error))?;
        let stored = stored.ok_or(Unavailable::Unknown)?;
        let cell = Cell::new(&stored, SystemTime::now(), dice());
        let cell = cell.map_err(|_| Unavailable::Later)?;
        Ok(self.cells().entry(id).or_insert_with(|| Arc::new(cell)).clone())
    }

    async fn refreshed(&self, cell: &Arc<Cell>, because: Because) -> Result<(), Unavailable> {
        let id = cell.id;
        let opened = self.opened()?;
        let refreshed = timeout(PATIENCE, opened.refresher.refresh(id, because));
        let outcome = refreshed.await.map_err(|_| Unavailable::Later)?;
        self.counts.refreshed(&outcome);
        match outcome {
            Outcome::Fresh(stored) => self.put(cell, &stored),
            Outcome::Gone => {
                cell.end();
                Err(Unavailable::Gone)
            }
            // Without a refresh token it is what it is, until it expires.
            Outcome::Cannot => Err(Unavailable::Gone),
            Outcome::Absent => {
                self.forget(id);
                Err(Unavailable::Unknown)
            }
            Outcome::Later(_) => Err(Unavailable::Later),
        }
    }

    fn put(&self, cell: &Cell, stored: &Stored) -> Result<(), Unavailable> {
        cell.put(stored, SystemTime::now(), dice()).map_err(|_| Unavailable::Later)?;
        if matches!(*cell.held(), Held::Retired) {
            // Whoever comes next gets another.
            self.cells().remove(&cell.id);
            return Err(Unavailable::Replaced);
        }
        Ok(())
    }

    /// Whoever has the cell still finds it ended, and asks for another.
    fn forget(&self, id: ConnectionId) {
        if let Some(cell) = self.cells().remove(&id) {
            cell.retire();
        }
    }

    fn cells(&self) -> MutexGuard<'_, HashMap<ConnectionId, Arc<Cell>>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Broker")
    }
}

fn unread(id: ConnectionId, error: &store::Error) -> Unavailable {
    tracing::error!(connection = %id, reason = vault::chain(error), "a connection cannot be read");
    Unavailable::Later
}

/// This process, as no other calls itself.
fn owner() -> String {
    format!("{}-{:016x}", std::process::id(), dice())
}
