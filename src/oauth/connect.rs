//! Connecting a user: from a caller's order to a connection, through the user's browser.
//!
//! In: what a caller wants, a browser's requests, and what a provider answers. Out: a ticket's URL for the caller, pages
//! and redirects for the browser, and in the end a [`Connection`](super::connection::Connection) in the store.
//!
//! 1. `ticket`: a caller asks for a ticket. It is 256 random bits in a URL, good once and for minutes.
//! 2. `begin`: the user's browser opens it, sees who asks for what, and presses the button. That takes the ticket. The
//!    browser gets a cookie and goes to the provider with a `state` and a challenge (PKCE).
//! 3. `callback`: the provider sends it back. The state is taken, if it is this browser's and the provider is who was
//!    asked; the code is changed for tokens (`exchange`), and those are stored.
//! 4. The browser goes on to the caller's return URL with the connection's id.
//!
//! What is between two steps is in the store, so that each may happen in another replica. `listener` and `pages` are the
//! way in and out; `existing` brings connections without a browser, and ends them.
//!
//! What must never happen: a ticket or a state is used twice, or a state by another browser; a browser is sent to a URL
//! that is not configured; a connection is reported before it is stored; an anonymous visitor makes anything that stays;
//! what a provider wrote reaches a page; a ticket, state, code, cookie, verifier or token reaches a log, or a page that
//! the user's next hop could read it from.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use self::{
    cookie::Browser,
    outstanding::{Outstanding, PER_CALLER},
    record::Order,
};
pub(crate) use self::{
    events::{Event, Failure, Logged, Visit, Witness},
    existing::Disconnected,
    listener::serve,
};
use super::{
    connection::{ConnectionId, NoRandom, Purpose},
    provider::{self, Provider},
    refresh::Clock,
    store::{self, Pending, PendingName, Store, pending::Kind},
};
use crate::{config::Endpoint, redaction, users, vault::secret::Secret};

mod answer;
mod begin;
mod callback;
mod cookie;
mod events;
mod exchange;
mod existing;
mod listener;
mod outstanding;
mod pages;
mod record;

/// The longest text that a caller gives to find its user again.
const STATE_BYTES_MAX: usize = 512;

/// What the configuration says of it.
#[derive(Clone)]
pub(crate) struct Settings {
    /// What browsers call the listener: scheme, host and port, and the target `/`. `None`: there is none.
    pub(crate) base: Option<Endpoint>,
    /// Where a browser may be sent in the end, compared byte for byte; absolute URLs.
    pub(crate) return_urls: Vec<String>,
    /// How long a ticket is good.
    pub(crate) ticket_life: Duration,
    /// How long a user may take at the provider.
    pub(crate) attempt_life: Duration,
    /// By name.
    pub(crate) providers: BTreeMap<String, Arc<Provider>>,
}

/// Where the browser goes in the end.
#[derive(Clone)]
pub(crate) struct Return {
    /// One of [`Settings::return_urls`].
    pub(crate) url: String,
    /// Comes back with the browser as `state`: what the caller recognises its user's session by.
    pub(crate) state: Option<String>,
}

/// What a caller gives its user.
pub(crate) struct Ticket {
    /// Where the user's browser begins. Whoever has it may do so.
    pub(crate) url: String,
    /// From then on it is none, in Unix seconds.
    pub(crate) expires: u64,
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket(hidden, expires {})", self.expires)
    }
}

/// Why a caller does not get what it asked for. No message repeats what it sent, but for names of the configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("there is no such [provider.NAME]")]
    NoProvider,
    #[error(
        "users cannot consent at this provider: its redirect_uri is not at {0}, where connections.browser is"
    )]
    NoCallback(String),
    #[error("no [connections.browser] is configured, so users cannot consent")]
    NoBrowser,
    #[error("a scope is not among `scopes` of the provider")]
    Scope,
    #[error("the return URL is none of connections.return_urls")]
    ReturnUrl,
    #[error("user_guid is none of MX's: at most 128 letters, digits, `-`, `.`, `_` and `~`")]
    User,
    #[error("state is not 1 to {STATE_BYTES_MAX} printable ASCII characters")]
    State,
    #[error("the refresh token is not 8 to 8192 visible ASCII characters")]
    Token,
    #[error(
        "the caller has {PER_CALLER} tickets and consents that are not over; the first of them is over in {} s",
        .wait.as_secs()
    )]
    Tickets {
        /// For how long yet.
        wait: Duration,
    },
    #[error("there is no such connection")]
    NoConnection,
    #[error("the connection's {0} is another one; make a new connection instead")]
    Differs(&'static str),
    #[error("the provider did not take the tokens back; nothing was forgotten")]
    NotRevoked(#[source] super::token_endpoint::Fault),
    #[error("its provider is not configured any more; nothing was forgotten")]
    ProviderGone,
    #[error("another process is using the connection")]
    Held,
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    NoRandom(#[from] NoRandom),
}

/// What an [`Error`] means to whoever asked.
pub(crate) enum Meaning {
    /// It asked for what cannot be.
    Wrong,
    Unknown,
    TooMany {
        /// For how long yet.
        wait: Duration,
    },
    NotRevoked,
    Later,
}

impl Error {
    pub(crate) fn meaning(&self) -> Meaning {
        match self {
            Self::NoProvider
            | Self::NoCallback(_)
            | Self::NoBrowser
            | Self::Scope
            | Self::ReturnUrl
            | Self::User
            | Self::State
            | Self::Token
            | Self::Differs(_)
            | Self::Store(store::Error::TooLarge) => Meaning::Wrong,
            Self::NoConnection => Meaning::Unknown,
            Self::Tickets { wait } => Meaning::TooMany { wait: *wait },
            Self::NotRevoked(_) | Self::ProviderGone => Meaning::NotRevoked,
            Self::Held | Self::Store(_) | Self::NoRandom(_) => Meaning::Later,
        }
    }
}

/// Connects users. Cheap to clone: all clones are the same.
#[derive(Clone)]
pub(crate) struct Connector(Arc<Shared>);

struct Shared {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    witness: Arc<dyn Witness>,
    /// This process, as no other calls itself.
    owner: String,
    settings: ArcSwap<Settings>,
    outstanding: Outstanding,
    /// How many exchanges run, whether or not a browser waits for them.
    running: watch::Sender<usize>,
}

impl Connector {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        witness: Arc<dyn Witness>,
        owner: String,
        settings: Settings,
    ) -> Self {
        Self(Arc::new(Shared {
            store,
            clock,
            witness,
            owner,
            settings: ArcSwap::from_pointee(settings),
            outstanding: Outstanding::default(),
            running: watch::Sender::default(),
        }))
    }

    /// From now on other settings count, also for tickets and states of before.
    pub(crate) fn configure(&self, settings: Settings) {
        self.0.settings.store(Arc::new(settings));
    }

    /// Makes a ticket. With `renews`, the user's consent brings new tokens to that connection instead of making one.
    ///
    /// # Errors
    /// [`Error`].
    pub(crate) async fn ticket(
        &self,
        wanted: &Purpose,
        back: &Return,
        renews: Option<ConnectionId>,
    ) -> Result<Ticket, Error> {
        let settings = self.settings();
        let base = settings.base.as_ref().ok_or(Error::NoBrowser)?;
        let purpose = settings.checked(wanted)?;
        settings.check_callback(&purpose.provider, base)?;
        let issuer = settings.issuer(&purpose)?;
        if !settings.return_urls.contains(&back.url) {
            return Err(Error::ReturnUrl);
        }
        if !back.state.as_deref().is_none_or(is_state) {
            return Err(Error::State);
        }
        if let Some(id) = renews {
            let there = self.0.store.load(id).await?.ok_or(Error::NoConnection)?;
            check_same(&there.connection.purpose, &purpose)?;
        }
        let (now, expires) = (self.0.clock.now(), self.0.ends(settings.ticket_life));
        let code = secret(provider::random()?)?;
        let name = PendingName::of(Kind::Ticket, &code);
        let room = self.0.outstanding.ordered(&purpose.caller, name, now, expires);
        room.map_err(|wait| Error::Tickets { wait })?;
        redaction::held().remember([&code]);
        let order = Order::of(purpose, issuer, back, renews);
        if let Err(error) = self.kept(&order, name, expires, now).await {
            self.0.outstanding.ended(&order.purpose.caller, name);
            return Err(error);
        }
        let url = format!("{base}ticket/{}", record::text(&code));
        self.0.saw(&Event::TicketMade(&order.purpose));
        Ok(Ticket { url, expires })
    }

    /// Stores an order under its ticket's name.
    async fn kept(&self, order: &Order, name: PendingName, expires: u64, now: u64) -> Result<(), Error> {
        let pending = Pending { name, ends: expires, content: order.seal()? };
        Ok(self.0.store.put_pending(&pending, now).await?)
    }

    /// Waits until no exchange runs: what a provider answered would otherwise be lost with the process.
    pub(crate) async fn idle(&self) {
        let mut running = self.0.running.subscribe();
        // Its sender is in `self`.
        let _ = running.wait_for(|running| *running == 0).await;
    }

    fn settings(&self) -> Arc<Settings> {
        self.0.settings.load_full()
    }
}

impl Shared {
    fn ends(&self, life: Duration) -> u64 {
        self.clock.now().saturating_add(life.as_secs())
    }

    fn saw(&self, event: &Event<'_>) {
        self.witness.saw(event);
    }

    /// Counts one exchange until it is dropped.
    fn running(self: &Arc<Self>) -> Running {
        self.running.send_modify(|running| *running += 1);
        Running(Arc::clone(self))
    }
}

struct Running(Arc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.send_modify(|running| *running -= 1);
    }
}

impl Settings {
    /// As [`Connection::issuer`](super::connection::Connection::issuer).
    fn issuer(&self, purpose: &Purpose) -> Result<String, Error> {
        self.providers.get(&purpose.provider).map(|provider| provider.identity()).ok_or(Error::NoProvider)
    }

    /// What is wanted, with every scope that it comes to.
    fn checked(&self, wanted: &Purpose) -> Result<Purpose, Error> {
        let provider = self.providers.get(&wanted.provider).ok_or(Error::NoProvider)?;
        let known = &provider.settings().scopes;
        if !wanted.scopes.iter().all(|scope| known.contains(scope)) {
            return Err(Error::Scope);
        }
        if !wanted.user_guid.as_deref().is_none_or(users::list::is_user) {
            return Err(Error::User);
        }
        let scopes = if wanted.scopes.is_empty() { known } else { &wanted.scopes };
        Ok(Purpose { scopes: scopes.clone(), ..wanted.clone() })
    }

    /// A browser that comes back elsewhere has no cookie of ours.
    fn check_callback(&self, provider: &str, base: &Endpoint) -> Result<(), Error> {
        let provider = self.providers.get(provider).ok_or(Error::NoProvider)?;
        match self.callback_path(provider) {
            Some(_) => Ok(()),
            None => Err(Error::NoCallback(base.to_string())),
        }
    }

    /// The path that a provider sends browsers back to, if it is at this listener.
    fn callback_path(&self, provider: &Provider) -> Option<String> {
        let Endpoint { tls, host, port, target } =
            Endpoint::parse(provider.settings().redirect_uri.as_deref()?).ok()?;
        let base = self.base.as_ref()?;
        if (tls, &host, port) != (base.tls, &base.host, base.port) {
            return None;
        }
        let path = target.split_once('?').map_or(target.as_str(), |(path, _)| path);
        Some(path.to_owned())
    }

    /// Asked again before each use: the list may be another one by then.
    fn may_return(&self, order: &Order) -> bool {
        self.return_urls.contains(&order.return_url)
    }

    fn is_callback(&self, path: &str) -> bool {
        self.providers.values().any(|provider| self.callback_path(provider).as_deref() == Some(path))
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

/// Renewing brings new tokens to a connection, and nothing else that its caller knows it by.
fn check_same(there: &Purpose, wanted: &Purpose) -> Result<(), Error> {
    // Whose it is comes first, and looks as if there were none: ids are no secrets, and what exists is nobody else's
    // business.
    if there.caller != wanted.caller {
        return Err(Error::NoConnection);
    }
    if there.provider != wanted.provider {
        return Err(Error::Differs("provider"));
    }
    if there.environment != wanted.environment {
        return Err(Error::Differs("environment"));
    }
    if wanted.user_guid.is_some() && there.user_guid != wanted.user_guid {
        return Err(Error::Differs("user"));
    }
    Ok(())
}

fn is_state(text: &str) -> bool {
    (1..=STATE_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// Of random text that was just made, which is always fit.
fn secret(text: String) -> Result<Arc<Secret>, NoRandom> {
    Secret::new(text.into_bytes()).map(Arc::new).map_err(|_| NoRandom)
}

/// What a URL or a cookie of ours holds, if it has that form. Nothing else is looked for in a store.
fn shown(text: &str) -> Option<Arc<Secret>> {
    /// 32 bytes in base64url without padding.
    const LENGTH: usize = 43;
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if text.len() != LENGTH || !text.bytes().all(is_digit) {
        return None;
    }
    Secret::new(text.into()).ok().map(Arc::new)
}

/// `url` with further parameters behind those that it has.
fn with_parameters(url: &str, parameters: &[(&str, &str)]) -> String {
    let (url, fragment) = url.split_once('#').map_or((url, None), |(url, fragment)| (url, Some(fragment)));
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(parameters);
    let joint = match url.split_once('?') {
        None => "?",
        Some((_, "")) => "",
        Some((_, before)) if before.ends_with('&') => "",
        Some(_) => "&",
    };
    let fragment = fragment.map(|fragment| format!("#{fragment}")).unwrap_or_default();
    format!("{url}{joint}{}{fragment}", query.finish())
}

#[cfg(test)]
mod tests;
