//! The tokens that the gateway asks for itself (RFC 6749, 4.4), one for each set of scopes.
//!
//! They are in memory only: who loses one asks for another. One request at a time asks for one, the others wait for it. After a
//! failure nobody asks for a while, longer each time, whoever was to blame.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::SystemTime,
};

use arc_swap::ArcSwapOption;

use super::{Known, Unavailable};
use crate::{
    oauth::{
        cell::{Token, seconds},
        connection::Access,
        refresh::{Breaker, dice},
        store::Version,
        token_endpoint::Grant,
    },
    vault,
};

/// What nobody has used for so long is not asked for again.
const IDLE: u64 = 3600;

/// So many sets of scopes; the configuration makes a few.
const SETS_MAX: usize = 1024;

#[derive(Default)]
pub(super) struct ClientTokens(Mutex<HashMap<Wanted, Arc<One>>>);

/// Whose token is meant: one environment's at one host, so that none gets another's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Wanted {
    pub(crate) provider: String,
    pub(crate) environment: String,
    /// In lower case.
    pub(crate) host: String,
    pub(crate) scopes: Vec<String>,
}

struct One {
    token: ArcSwapOption<Token>,
    /// In Unix seconds.
    used: AtomicU64,
    /// Who asks has it.
    asking: tokio::sync::Mutex<Breaker>,
}

impl Default for One {
    fn default() -> Self {
        let (token, used) = Default::default();
        Self { token, used, asking: tokio::sync::Mutex::new(Breaker::after(1)) }
    }
}

impl ClientTokens {
    pub(super) fn usable(&self, wanted: &Wanted) -> Option<Arc<Token>> {
        let one = self.one(wanted);
        one.used.store(seconds(SystemTime::now()), Relaxed);
        one.usable()
    }

    /// Forgets the tokens of providers that are not as they were.
    pub(super) fn keep(&self, is_as_it_was: impl Fn(&str) -> bool) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|wanted, _| is_as_it_was(&wanted.provider));
    }

    /// Is asked for, unless there is one.
    pub(super) async fn token(&self, known: &Known, wanted: &Wanted) -> Result<Arc<Token>, Unavailable> {
        let one = self.one(wanted);
        let mut asking = one.asking.lock().await;
        if let Some(token) = one.usable() {
            return Ok(token);
        }
        one.asked(&mut asking, known, wanted).await
    }

    /// This one is used no longer.
    pub(super) fn refused(&self, wanted: &Wanted, token: &Arc<Token>) {
        let one = self.one(wanted);
        let is_it = one.token.load().as_ref().is_some_and(|now| Arc::ptr_eq(now, token));
        if is_it {
            one.token.store(None);
        }
    }

    /// Those whose time has come to be asked for again.
    pub(super) fn due(&self, now: u64) -> Vec<Wanted> {
        let is_due = |one: &One| {
            one.token.load().as_ref().is_some_and(|token| token.due.is_some_and(|due| due <= now))
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, one| one.used.load(Relaxed).saturating_add(IDLE) >= now);
        all.iter().filter(|(_, one)| is_due(one)).map(|(wanted, _)| wanted.clone()).collect()
    }

    /// Asks for a new one while the old one serves.
    pub(super) async fn renew(&self, known: &Known, wanted: &Wanted) -> Result<(), Unavailable> {
        let one = self.one(wanted);
        let mut asking = one.asking.lock().await;
        one.asked(&mut asking, known, wanted).await.map(drop)
    }

    fn one(&self, wanted: &Wanted) -> Arc<One> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= SETS_MAX {
            all.retain(|_, one| one.usable().is_some());
        }
        all.entry(wanted.clone()).or_default().clone()
    }
}

impl One {
    fn usable(&self) -> Option<Arc<Token>> {
        self.token.load_full().filter(|token| token.is_usable())
    }

    /// A new one, unless it is too soon after a failure.
    async fn asked(
        &self,
        asking: &mut Breaker,
        known: &Known,
        wanted: &Wanted,
    ) -> Result<Arc<Token>, Unavailable> {
        let provider = known.0.load().get(&wanted.provider).cloned().ok_or(Unavailable::Later)?;
        let now = seconds(SystemTime::now());
        asking.may_ask(now, dice()).map_err(|_| Unavailable::Later)?;
        provider.guard.may_ask(now).map_err(|_| Unavailable::Later)?;
        match ask(&provider, wanted).await {
            Ok(token) => {
                asking.succeeded();
                let token = Arc::new(token);
                self.token.store(Some(token.clone()));
                Ok(token)
            }
            Err(unavailable) => {
                asking.failed(seconds(SystemTime::now()), dice());
                Err(unavailable)
            }
        }
    }
}

async fn ask(one: &super::One, wanted: &Wanted) -> Result<Token, Unavailable> {
    let Wanted { provider: name, scopes, .. } = wanted;
    let asked = SystemTime::now();
    let granted = one.provider.tokens(&Grant::Client { scopes }).await;
    one.guard.note(granted.as_ref().err(), seconds(SystemTime::now()));
    let granted = granted.map_err(|fault| {
        let reason = vault::chain(&fault);
        tracing::warn!(provider = name, reason, "a provider gave no token for the gateway itself");
        Unavailable::Later
    })?;
    let expires = granted.life.map(|life| seconds(asked).saturating_add(life.as_secs()));
    let access = Access { token: granted.access, expires };
    let scopes = granted.scopes.unwrap_or_else(|| scopes.clone());
    let shown = format!("provider:{name}");
    Token::new(&shown, &access, &scopes, Version(0), SystemTime::now(), dice())
        .map_err(|_| Unavailable::Later)
}
