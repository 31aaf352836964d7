//! What goes on without anybody asking: refreshing ahead of time, following the store, forgetting.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

use super::{Broker, Unavailable, index::Index};
use crate::{
    oauth::{
        cell::{Cell, Held, seconds},
        connection::{ConnectionId, Purpose, State, Summary},
        handle,
        refresh::Because,
    },
    vault,
};

/// How often is looked for tokens whose time is near.
const TICK: Duration = Duration::from_millis(500);

/// How often a store is looked at for what other replicas have changed.
pub(super) const FOLLOW: Duration = Duration::from_secs(5);

/// A connection that no request has used for so long is refreshed only when one does.
const IDLE: u64 = 3600;

/// Refreshes at once.
const REFRESHING_MAX: usize = 32;

/// How soon sealing anew is tried again.
const RESEAL_AGAIN: Duration = Duration::from_secs(60);

/// How long before its end a grant is warned of that cannot be refreshed.
const ENDS_SOON: u64 = 7 * 24 * 3600;

/// Refreshes ahead of time, until it is dropped.
pub(super) async fn refresh_ahead(broker: Arc<Broker>) {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut refreshing: JoinSet<ConnectionId> = JoinSet::new();
    let mut busy: HashSet<ConnectionId> = HashSet::new();
    loop {
        tokio::select! {
            Some(done) = refreshing.join_next() => match done {
                Ok(id) => _ = busy.remove(&id),
                // Which one panicked is not known: all are looked at again.
                Err(_) => busy.clear(),
            },
            _ = tick.tick() => {
                for (cell, because) in broker.due(seconds(SystemTime::now())) {
                    let id = cell.id;
                    if refreshing.len() < REFRESHING_MAX && busy.insert(id) {
                        let broker = broker.clone();
                        refreshing.spawn(async move {
                            // Whoever needs it is told, and the log has it.
                            let _ = broker.refreshed(&cell, because).await;
                            id
                        });
                    }
                }
            }
        }
    }
}

/// Asks for the gateway's own tokens ahead of time, until it is dropped.
pub(super) async fn renew_clients(broker: Arc<Broker>) {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        for wanted in broker.clients.due(seconds(SystemTime::now())) {
            // The old one serves until it expires.
            let _ = broker.clients.renew(&broker.providers, &wanted).await;
        }
    }
}

/// Seals what a former key sealed with the present one, once; then there is nothing to do any more.
pub(super) async fn reseal(broker: Arc<Broker>) {
    while let Some(opened) = broker.opened.get() {
        match opened.kind.reseal().await {
            Ok(0) => break,
            Ok(count) => {
                tracing::info!(count, "connections were sealed with the present key; drop former_key")
            }
            Err(error) => {
                let reason = vault::chain(&error);
                tracing::warn!(reason, "connections cannot be sealed with the present key yet; trying again");
                sleep(RESEAL_AGAIN).await;
            }
        }
    }
    std::future::pending().await
}

/// Follows the store, until it is dropped.
pub(super) async fn follow(broker: Arc<Broker>) {
    let mut warned = HashSet::new();
    loop {
        let began = Instant::now();
        // The log has it, and the next one may succeed.
        let _ = broker.look().await;
        // Many connections are looked at less often, so that it never takes a store's time from refreshes.
        sleep(FOLLOW.max(began.elapsed() * 20)).await;
        let now = seconds(SystemTime::now());
        broker.warn_of_ends(&mut warned, now);
        broker.tidy_handles(now).await;
    }
}

impl Broker {
    /// Cells whose token is to be refreshed now; what nobody uses is forgotten.
    fn due(&self, now: u64) -> Vec<(Arc<Cell>, Because)> {
        let mut due = Vec::new();
        self.cells().retain(|_, cell| {
            if cell.used().saturating_add(IDLE) < now {
                cell.retire();
                return false;
            }
            if let Held::Token(token) = &*cell.held()
                && token.due.is_some_and(|due| due <= now)
                && !self.opened.get().is_some_and(|opened| opened.refresher.rests(cell.id, now))
            {
                due.push((cell.clone(), Because::Due(token.version)));
            }
            true
        });
        due
    }

    /// Takes up what is in the store now. One at a time: an older list must not come after a newer one.
    pub(super) async fn look(&self) -> Result<(), Unavailable> {
        let _one = self.looking.lock().await;
        let all = self.opened()?.store.list().await.map_err(|error| {
            tracing::warn!(reason = vault::chain(&error), "the connections cannot be listed");
            Unavailable::Later
        })?;
        let index = Index::new(all, seconds(SystemTime::now()));
        let known: Vec<Arc<Cell>> = self.cells().values().cloned().collect();
        for cell in known {
            match index.all.get(&cell.id) {
                None => self.forget(cell.id),
                Some(Summary { state: State::Gone { .. }, .. }) => cell.end(),
                Some(summary) if is_other(summary, &cell) => self.take_up(&cell).await,
                Some(_) => {}
            }
        }
        self.opened()?.refresher.keep(|id| index.all.contains_key(&id));
        self.index.store(Arc::new(index));
        Ok(())
    }

    async fn take_up(&self, cell: &Cell) {
        let Some(opened) = self.opened.get() else { return };
        if let Ok(Some(stored)) = opened.store.load(cell.id).await {
            // What fits no header is refreshed when it is needed.
            let _ = self.put(cell, &stored);
        }
    }

    fn warn_of_ends(&self, warned: &mut HashSet<ConnectionId>, now: u64) {
        let index = self.index.load();
        warned.retain(|id| index.all.contains_key(id));
        for one in index.all.values() {
            if let State::Live { can_refresh: false, ends: Some(ends), .. } = one.state
                && ends_soon(ends, now)
                && warned.insert(one.id)
            {
                let Purpose { provider, caller, .. } = &one.purpose;
                let days = ends.saturating_sub(now) / (24 * 3600);
                let what = match provider.as_str() {
                    handle::PROVIDER => "a token that MX gave ends soon: its caller needs a new code",
                    _ => "a consent ends soon and cannot be refreshed: its user must connect again",
                };
                tracing::warn!(connection = %one.id, provider, caller, days, "{what}");
            }
        }
    }
}

/// Whether a consent ends so soon that somebody should know.
pub(super) fn ends_soon(ends: u64, now: u64) -> bool {
    ends <= now.saturating_add(ENDS_SOON)
}

/// Whether the store has another token than the cell.
fn is_other(summary: &Summary, cell: &Cell) -> bool {
    let State::Live { expires, .. } = summary.state else { return true };
    if !cell.is_about(summary) {
        return true;
    }
    match &*cell.held() {
        Held::Token(token) => token.expires != expires || token.scopes != summary.purpose.scopes,
        Held::Nothing(_) => expires.is_some(),
        Held::Gone | Held::Retired => true,
    }
}
