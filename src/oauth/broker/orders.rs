//! What callers and operators do with connections: tickets, lists, ends, copies.
//!
//! Who may is decided by whoever asks; here it is done, on the broker's thread.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{Broker, Opened, Unavailable, unread};
use crate::{
    oauth::{
        cell::seconds,
        connect::{self, Disconnected, Return, Ticket},
        connection::{ConnectionId, Purpose, Summary},
    },
    vault::secret::Secret,
};

/// Whoever asks for what is not there makes the store be looked at, no more often than this.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Broker {
    /// A ticket for a user's browser.
    pub(crate) async fn ticket(
        self: &Arc<Self>,
        wanted: Purpose,
        back: Return,
        renews: Option<ConnectionId>,
    ) -> Result<Result<Ticket, connect::Error>, Unavailable> {
        let this = self.clone();
        self.here(async move { Ok(this.connector()?.ticket(&wanted, &back, renews).await) }).await
    }

    /// Makes a connection of a refresh token.
    pub(crate) async fn import(
        self: &Arc<Self>,
        wanted: Purpose,
        refresh: Arc<Secret>,
    ) -> Result<Result<ConnectionId, connect::Error>, Unavailable> {
        let this = self.clone();
        self.here(async move {
            let imported = this.connector()?.import(&wanted, refresh).await;
            // It is found by the next look, if not by this one.
            let _ = this.look().await;
            Ok(imported)
        })
        .await
    }

    /// Ends a connection, at its provider and here.
    pub(crate) async fn disconnect(
        self: &Arc<Self>,
        id: ConnectionId,
        force: bool,
    ) -> Result<Result<Disconnected, connect::Error>, Unavailable> {
        let this = self.clone();
        self.here(async move {
            let ended = this.connector()?.disconnect(id, force).await;
            if ended.is_ok() {
                this.forget(id);
                let _ = this.look().await;
            }
            Ok(ended)
        })
        .await
    }

    /// Those connections that `chosen` chooses, as of now.
    pub(crate) async fn list(
        self: &Arc<Self>,
        chosen: impl Fn(&Summary) -> bool,
    ) -> Result<Vec<Summary>, Unavailable> {
        let this = self.clone();
        self.here(async move { this.look_again().await }).await?;
        // Here, and not on the broker's thread: there may be very many.
        Ok(self.index.load().all.values().filter(|one| chosen(one)).cloned().collect())
    }

    /// The connections of a user at an environment, as of now.
    pub(crate) async fn of_user_now(
        self: &Arc<Self>,
        environment: &str,
        user_guid: &str,
    ) -> Result<Vec<Summary>, Unavailable> {
        let this = self.clone();
        self.here(async move { this.look_again().await }).await?;
        Ok(self.of_user(environment, user_guid))
    }

    /// One of them.
    pub(crate) async fn summary(self: &Arc<Self>, id: ConnectionId) -> Result<Option<Summary>, Unavailable> {
        let this = self.clone();
        self.here(async move {
            // Not from the index, which is as of its last look.
            let stored = this.opened()?.store.load(id).await.map_err(|error| unread(id, &error))?;
            Ok(stored.map(|stored| stored.connection.summary()))
        })
        .await
    }

    /// Copies a store in a file, sealed as it is. Gives how many connections there are.
    pub(crate) async fn backup(self: &Arc<Self>, to: PathBuf) -> Result<Result<usize, String>, Unavailable> {
        let this = self.clone();
        self.here(async move {
            let kind = this.opened()?.kind.clone();
            let now = seconds(SystemTime::now());
            let copied = tokio::task::spawn_blocking(move || kind.backup(&to, now)).await;
            copied.map_err(|_| Unavailable::Later)
        })
        .await
    }

    /// The store is asked, unless it was just now.
    async fn look_again(&self) -> Result<(), Unavailable> {
        let mut last = self.looked.lock().await;
        match *last {
            // Also of a failure: whoever waited for one must not each bring about another.
            Some((at, looked)) if at.elapsed() < LOOK_AGAIN => looked,
            _ => {
                let looked = self.look().await;
                *last = Some((Instant::now(), looked));
                looked
            }
        }
    }

    pub(super) fn opened(&self) -> Result<&Opened, Unavailable> {
        self.opened.get().ok_or(Unavailable::Later)
    }

    fn connector(&self) -> Result<&connect::Connector, Unavailable> {
        Ok(&self.opened()?.connector)
    }
}
