//! The way back from the provider.
//!
//! In: the parameters that a browser brings, and its cookie. Out: the caller's URL with a connection's id, or a page that
//! says why not.
//!
//! A state is looked at first, and taken only by the browser that began with it: whoever has seen the URL in another one
//! can neither use the state nor use it up. What follows runs in a task of its own, since a code is good once and a
//! browser may leave.
//!
//! What must never happen: a code is exchanged for a state that is not this browser's; a parameter counts that came twice;
//! a word of the provider's that is not registered goes any further.

use std::{sync::Arc, time::Duration};

use http::HeaderMap;

use super::{
    Connector, Event, Failure, Shared, Visit,
    answer::Answer,
    cookie::{self, Browser},
    events::Said,
    exchange::Exchange,
    record::{Attempt, Order},
    shown,
};
use crate::{
    oauth::{
        connection::ConnectionId,
        provider::Provider,
        store::{self, PendingName, pending::Kind},
    },
    redaction,
    vault::secret::Secret,
};

/// For how long a browser is kept waiting. The exchange goes on.
pub(super) const PATIENCE: Duration = Duration::from_secs(90);

/// The longest code, which has to fit a request's head at that.
const CODE_BYTES_MAX: usize = 16 * 1024;

/// What a browser brought back. Of a parameter that came twice there is nothing, as if it had come with a wrong value.
struct Brought {
    state: Option<Arc<Secret>>,
    /// `Some(None)`: twice, or of another form.
    code: Option<Option<Arc<Secret>>>,
    error: Option<Said>,
    iss: Once,
}

/// A parameter's values.
#[derive(Debug, Default, PartialEq, Eq)]
enum Once {
    #[default]
    Absent,
    Value(String),
    Several,
}

impl Brought {
    fn read(query: &str) -> Self {
        let mut found: [Once; 4] = Default::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let names = ["state", "code", "error", "iss"];
            if let Some(place) = names.iter().position(|known| *known == name) {
                found[place] = match found[place] {
                    Once::Absent => Once::Value(value.into_owned()),
                    _ => Once::Several,
                };
            }
        }
        let [state, code, error, iss] = found;
        Self {
            state: state.value().and_then(|text| shown(&text)),
            code: match code {
                Once::Absent => None,
                code => Some(code.value().and_then(self::code)),
            },
            error: match error {
                Once::Absent => None,
                error => Some(error.value().map_or(Said::Other, |word| Said::of(&word))),
            },
            iss,
        }
    }
}

impl Once {
    fn value(self) -> Option<String> {
        match self {
            Self::Value(text) => Some(text),
            Self::Absent | Self::Several => None,
        }
    }
}

/// RFC 6749, A.11: printable ASCII.
fn code(text: String) -> Option<Arc<Secret>> {
    let is_legal = |byte: u8| matches!(byte, b' '..=b'~');
    if text.len() > CODE_BYTES_MAX || !text.bytes().all(is_legal) {
        return None;
    }
    Secret::new(text.into_bytes()).ok().map(Arc::new)
}

impl Connector {
    /// A browser that comes back to `path`.
    pub(super) async fn returned(&self, path: &str, query: &str, headers: &HeaderMap) -> Answer {
        let Brought { state, code, error, iss } = Brought::read(query);
        let Some(state) = state else { return self.turned_away(Visit::State, Answer::Unknown) };
        let attempt = match self.taken(&state, path, headers).await {
            Ok(attempt) => attempt,
            Err(answer) => return answer,
        };
        // What a stranger brings is not remembered, or it could fill the memory.
        redaction::held().remember([&state, &attempt.verifier].into_iter().chain(code.iter().flatten()));
        let order = attempt.order.clone();
        let exchange = Back { shared: Arc::clone(&self.0), path: path.to_owned(), iss, error, code, attempt };
        let running = self.0.running();
        let task = tokio::spawn(async move {
            let done = exchange.done().await;
            drop(running);
            done
        });
        let done = match tokio::time::timeout(PATIENCE, task).await {
            Ok(Ok(done)) => done,
            Ok(Err(_ended)) => Err(self.0.failed(&order, Failure::Interrupted)),
            Err(_late) => Err(self.0.failed(&order, Failure::Slow)),
        };
        let (cookie, back) = (cookie::clear(&state), self.settings().may_return(&order));
        match done {
            Ok(id) => Answer::Back { url: order.back(("connection", &id.to_string())), cookie },
            Err(Failure::Said(Said::AccessDenied)) => {
                Answer::Refused { order: Box::new(order), back, cookie }
            }
            Err(failure) => {
                let (order, failure) = (Box::new(order), Box::new(failure));
                Answer::Failed { order, failure, back, cookie: Some(cookie) }
            }
        }
    }

    /// What belongs to `state`, which nobody else gets.
    async fn taken(&self, state: &Secret, path: &str, headers: &HeaderMap) -> Result<Attempt, Answer> {
        let (name, now) = (PendingName::of(Kind::State, state), self.0.clock.now());
        let unknown = |visit| Err(self.turned_away(visit, Answer::Unknown));
        let failed = |error: store::Error| self.store_failed(&error);
        let found = self.0.store.look_pending(name, now).await.map_err(failed)?;
        let Some(content) = found else { return unknown(Visit::State) };
        let attempt = Attempt::open(&content).map_err(|unknown| failed(unknown.into()))?;
        if !cookie::shown(headers, state).is_some_and(|value| Browser::of(&value) == attempt.browser) {
            return unknown(Visit::OtherBrowser);
        }
        let settings = self.settings();
        let provider = settings.providers.get(&attempt.order.purpose.provider);
        // Another provider's callback. Where it is not configured any more, that is said later.
        if provider.is_some_and(|provider| settings.callback_path(provider).as_deref() != Some(path)) {
            return unknown(Visit::State);
        }
        match self.0.store.take_pending(name, now).await.map_err(failed)? {
            Some(_) => {
                self.0.outstanding.ended(&attempt.order.purpose.caller, name);
                Ok(attempt)
            }
            None => unknown(Visit::State),
        }
    }
}

/// A browser that is back, with all that its attempt is about.
struct Back {
    shared: Arc<Shared>,
    path: String,
    iss: Once,
    error: Option<Said>,
    code: Option<Option<Arc<Secret>>>,
    attempt: Attempt,
}

impl Back {
    /// The connection, stored; or why there is none, which is recorded.
    async fn done(self) -> Result<ConnectionId, Failure> {
        let (shared, order) = (Arc::clone(&self.shared), self.attempt.order.clone());
        match self.connected().await {
            Ok(id) => {
                let renewed = matches!(order.renews(), Ok(Some(_)));
                shared.saw(&Event::Connected { purpose: &order.purpose, id, renewed });
                Ok(id)
            }
            Err(failure) => Err(shared.failed(&order, failure)),
        }
    }

    async fn connected(self) -> Result<ConnectionId, Failure> {
        let Self { shared, path, iss, error, code, attempt } = self;
        let settings = shared.settings.load_full();
        if !settings.may_return(&attempt.order) {
            return Err(Failure::ReturnUrl);
        }
        let provider =
            settings.providers.get(&attempt.order.purpose.provider).ok_or(Failure::NotConfigured)?;
        // Also another one that has got its name since: neither code nor verifier is for that.
        if settings.callback_path(provider).as_deref() != Some(&path)
            || provider.identity() != attempt.order.issuer
        {
            return Err(Failure::NotConfigured);
        }
        check_issuer(provider, &iss).await?;
        if let Some(said) = error {
            return Err(Failure::Said(said));
        }
        let code = code.flatten().ok_or(Failure::Incomplete)?;
        Exchange { shared: &shared, provider, attempt: &attempt }.run(&code).await
    }
}

/// RFC 9207. Before anything else of the answer is believed, also that it is a refusal.
async fn check_issuer(provider: &Provider, iss: &Once) -> Result<(), Failure> {
    let iss = match iss {
        Once::Absent => None,
        Once::Value(iss) => Some(iss.as_str()),
        Once::Several => return Err(Failure::Issuer),
    };
    match provider.is_issuer(iss).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::Issuer),
        Err(fault) => Err(Failure::Provider(fault)),
    }
}

impl Shared {
    /// Records it.
    fn failed(&self, order: &Order, failure: Failure) -> Failure {
        match failure {
            Failure::Said(Said::AccessDenied) => self.saw(&Event::Refused(&order.purpose)),
            _ => self.saw(&Event::Failed { purpose: &order.purpose, failure: &failure }),
        }
        failure
    }
}
