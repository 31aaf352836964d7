//! A server that is made up: what it says is what OpenBao 2.7 says, and its clock is the test's.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::super::{
    LookUp, OpenBao, Session,
    fault::Fault,
    wire::{Call, Exchange},
};
use crate::{
    config::BaoLogin,
    https::{self, Answer},
    vault::secret::Secret,
};

/// The entry at `secret/mx`, at first.
pub(super) const KEY: &str = r#"{"api_key":"k-of-the-test"}"#;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Up,
    Sealed,
    Standby,
    Down,
    /// It takes the request, and no answer comes.
    Silent,
    Babbling,
}

#[derive(Clone)]
pub(super) struct Fake(Arc<Mutex<Inside>>);

pub(super) struct Inside {
    pub(super) state: State,
    /// What a login must send; `None`: every login is refused.
    pub(super) secret: Option<String>,
    /// What the source finds at the login's reference.
    pub(super) found: String,
    pub(super) renewable: bool,
    pub(super) may_renew: bool,
    pub(super) life: Duration,
    pub(super) life_max: Duration,
    tokens: BTreeMap<String, Token>,
    /// Versions of entries by path; `None`: deleted.
    entries: BTreeMap<String, Vec<Option<Value>>>,
    /// Every request: what it was, and with which token.
    calls: Vec<String>,
}

struct Token {
    made: Instant,
    until: Instant,
}

impl Fake {
    pub(super) fn new() -> Self {
        let key = serde_json::from_str(KEY).unwrap();
        Self(Arc::new(Mutex::new(Inside {
            state: State::Up,
            secret: Some("right-secret-id".into()),
            found: "right-secret-id".into(),
            renewable: true,
            may_renew: true,
            life: Duration::from_secs(60),
            life_max: Duration::from_secs(300),
            tokens: BTreeMap::new(),
            entries: BTreeMap::from([("secret/data/mx".to_owned(), vec![Some(key)])]),
            calls: Vec::new(),
        })))
    }

    pub(super) fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap()
    }

    pub(super) fn set_state(&self, state: State) {
        self.inside().state = state;
    }

    pub(super) fn put(&self, path: &str, document: &str) {
        let document = Some(serde_json::from_str(document).unwrap());
        self.inside().entries.entry(path.to_owned()).or_default().push(document);
    }

    pub(super) fn delete(&self, path: &str) {
        *self.inside().entries.get_mut(path).unwrap().last_mut().unwrap() = None;
    }

    /// The newest version of an entry.
    pub(super) fn entry(&self, path: &str) -> Option<Value> {
        self.inside().entries.get(path)?.last()?.clone()
    }

    /// A token that was made elsewhere.
    pub(super) fn give(&self, token: &str, life: Duration) {
        let now = Instant::now();
        self.inside().tokens.insert(token.to_owned(), Token { made: now, until: now + life });
    }

    /// How many tokens there are.
    pub(super) fn tokens(&self) -> usize {
        self.inside().tokens.len()
    }

    pub(super) fn revoke_all(&self) {
        self.inside().tokens.clear();
    }

    /// How many requests were of this kind.
    pub(super) fn count(&self, kind: &str) -> usize {
        self.inside().calls.iter().filter(|call| call.starts_with(kind)).count()
    }

    /// A source that asks it, with AppRole.
    pub(super) fn source(&self) -> OpenBao<Fake> {
        let secret_id = "env:SECRET_ID".parse().unwrap();
        self.source_with(BaoLogin::AppRole { mount: "approle".into(), role_id: "ROLE".into(), secret_id })
    }

    pub(super) fn source_with(&self, login: BaoLogin) -> OpenBao<Fake> {
        let fake = self.clone();
        let look_up: LookUp = Arc::new(move |_| {
            let found = Arc::new(Secret::new(fake.inside().found.clone().into()).unwrap());
            crate::redaction::held().remember([&found]);
            Box::pin(async { Ok(found) })
        });
        let session = Arc::new(Session::new(self.clone(), login, look_up));
        OpenBao { session, mounts: Vec::new(), keeper: Mutex::default() }
    }
}

impl Exchange for Fake {
    async fn exchange(&self, call: Call) -> Result<Answer, Fault> {
        // As on a wire, others have their turn meanwhile.
        tokio::task::yield_now().await;
        let state = self.inside().state;
        let (status, body) = match state {
            State::Down => {
                let refused = std::io::ErrorKind::ConnectionRefused.into();
                return Err(https::Error::Connect(refused).into());
            }
            State::Silent => {
                sleep(Duration::from_secs(10)).await;
                return Err(https::Error::AnswerTimeout(Duration::from_secs(10)).into());
            }
            State::Sealed => (503, error("Vault is sealed")),
            State::Standby => (500, error("local node not active but active cluster node not found")),
            State::Babbling => (200, json!("<html>")),
            State::Up => self.inside().answer(&call),
        };
        let body = body.to_string().into_bytes().into();
        Ok(Answer { status: StatusCode::from_u16(status).unwrap(), body })
    }
}

fn error(text: &str) -> Value {
    json!({ "errors": [text] })
}

#[expect(clippy::disallowed_methods, reason = "a test compares")]
fn text(token: &Secret) -> String {
    String::from_utf8(token.expose().to_vec()).unwrap()
}

impl Inside {
    fn answer(&mut self, call: &Call) -> (u16, Value) {
        let token = call.token.as_deref().map(text).unwrap_or_default();
        let body: Value =
            call.body.as_ref().map_or(Value::Null, |body| serde_json::from_slice(body).unwrap());
        let path = call.path.as_str();
        let kind = match path {
            _ if path.ends_with("/login") => "login",
            "auth/token/renew-self" => "renew",
            "auth/token/lookup-self" => "lookup",
            "auth/token/revoke-self" => "revoke",
            _ if call.method == "GET" => "read",
            _ => "write",
        };
        self.calls.push(format!("{kind} {token}"));
        if kind == "login" {
            return self.log_in(&body);
        }
        let now = Instant::now();
        let Some(known) = self.tokens.get_mut(&token).filter(|known| now < known.until) else {
            return (403, error("permission denied"));
        };
        match kind {
            "revoke" => {
                self.tokens.remove(&token);
                (204, Value::Null)
            }
            "renew" if !self.may_renew => (403, error("permission denied")),
            "renew" => {
                known.until = (now + self.life).min(known.made + self.life_max);
                (200, auth(&token, known.until - now, self.renewable))
            }
            "lookup" => {
                let data = json!({
                    "ttl": (known.until - now).as_secs(), "expire_time": "2030-01-01T00:00:00Z", "renewable": self.renewable
                });
                (200, json!({ "data": data }))
            }
            _ if path.starts_with("closed/") => (403, error("1 error occurred:\n\t* permission denied\n\n")),
            "read" => self.read(path),
            _ => self.write(path, &body),
        }
    }

    fn log_in(&mut self, body: &Value) -> (u16, Value) {
        let sent = body.get("secret_id").or(body.get("jwt")).and_then(Value::as_str);
        if self.secret.is_none() || sent != self.secret.as_deref() {
            return (400, error("invalid role or secret ID"));
        }
        let (token, now) = (format!("s.token-{:03}", self.calls.len()), Instant::now());
        self.tokens.insert(token.clone(), Token { made: now, until: now + self.life });
        (200, auth(&token, self.life, self.renewable))
    }

    fn read(&self, path: &str) -> (u16, Value) {
        let Some(versions) = self.entries.get(path) else { return (404, json!({ "errors": [] })) };
        let data = versions.last().unwrap();
        let status = if data.is_some() { 200 } else { 404 };
        (status, json!({ "data": { "data": data, "metadata": { "version": versions.len() } } }))
    }

    fn write(&mut self, path: &str, body: &Value) -> (u16, Value) {
        let versions = self.entries.entry(path.to_owned()).or_default();
        if body["options"]["cas"] != json!(versions.len()) {
            return (400, error("check-and-set parameter did not match the current version"));
        }
        versions.push(Some(body["data"].clone()));
        (200, json!({ "data": { "version": versions.len() } }))
    }
}

fn auth(token: &str, life: Duration, renewable: bool) -> Value {
    json!({ "auth": { "client_token": token, "lease_duration": life.as_secs(), "renewable": renewable } })
}
