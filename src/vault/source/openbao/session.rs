//! Being logged in at OpenBao: one token, renewed before it ends, replaced when it cannot be.
//!
//! In: how to log in, and somebody who answers. Out: a [`Lease`], a token that is good for now. Whoever needs one
//! first logs in, and all others wait for that login; [`Session::keep`] renews the token at two thirds of its life, and
//! logs in anew when the server refuses to renew it or has little life left to give.
//! What must never happen: a token is used after its end; a server that refuses a login is asked for it again and
//! again, since some lock a role that fails too often; a token or what it was had with is printed.
//!
//! A token that was sent and refused may have been revoked, or may never have been allowed to do this. So it is
//! replaced once, and after that only after a pause.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{Method, StatusCode};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use zeroize::Zeroizing;

use super::{
    fault::Fault,
    wire::{self, Call, Exchange, Granted},
};
use crate::{
    config::BaoLogin,
    https::Answer,
    redaction,
    vault::{
        self,
        reference::Reference,
        secret::{Fingerprint, Secret},
    },
};

/// The least time between two logins with a secret that the server has refused.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);

/// The least time between two logins that follow a request that was denied.
const DENIED_PAUSE: Duration = Duration::from_secs(30);

/// When a renewal failed because of the server, the next one follows after a quarter of what is left, within these.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// Reads the secret that a login sends.
pub(super) type LookUp = Arc<dyn Fn(Reference) -> LookedUp + Send + Sync>;
type LookedUp = Pin<Box<dyn Future<Output = Result<Arc<Secret>, vault::Error>> + Send>>;

/// A token that is good for now.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    pub(super) token: Arc<Secret>,
    /// Another one for each login.
    number: u64,
    renewable: bool,
    /// `None`: it does not end.
    life: Option<Life>,
}

#[derive(Debug, Clone, Copy)]
struct Life {
    /// What the login gave.
    first: Duration,
    /// Counted from when it was asked for, which is early rather than late.
    until: Instant,
    /// When it is to be renewed or replaced.
    due: Instant,
}

impl Lease {
    fn is_good(&self) -> bool {
        self.life.is_none_or(|life| Instant::now() < life.until)
    }
}

pub(super) struct Session<E> {
    server: E,
    login: BaoLogin,
    look_up: LookUp,
    state: Mutex<State>,
    /// One login at a time.
    logging_in: tokio::sync::Mutex<()>,
    /// There is another lease.
    changed: Notify,
}

#[derive(Default)]
struct State {
    lease: Option<Lease>,
    logins: u64,
    refused: Option<Refused>,
    /// The last login that followed a request that was denied.
    replaced: Option<Instant>,
}

/// A login that the server did not take.
#[derive(Clone, Copy)]
struct Refused {
    at: Instant,
    secret: Fingerprint,
    /// `None`: a token that it does not know.
    status: Option<StatusCode>,
}

impl<E: Exchange> Session<E> {
    pub(super) fn new(server: E, login: BaoLogin, look_up: LookUp) -> Self {
        let (state, logging_in, changed) = Default::default();
        Self { server, login, look_up, state, logging_in, changed }
    }

    /// Sends a call with a good token; when that is refused, once more with another one.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Zeroizing<Vec<u8>>>,
    ) -> Result<Answer, Fault> {
        let call = |lease: &Lease| Call {
            method: method.clone(),
            path: path.to_owned(),
            token: Some(lease.token.clone()),
            body: body.cloned(),
        };
        let lease = self.lease().await?;
        let answer = self.server.exchange(call(&lease)).await?;
        if answer.status != StatusCode::FORBIDDEN {
            return Ok(answer);
        }
        match self.other_than(&lease).await? {
            Some(lease) => self.server.exchange(call(&lease)).await,
            None => Ok(answer),
        }
    }

    /// The present token, or a new one.
    async fn lease(&self) -> Result<Lease, Fault> {
        if let Some(lease) = self.current() {
            return Ok(lease);
        }
        let _one_at_a_time = self.logging_in.lock().await;
        match self.current() {
            Some(lease) => Ok(lease),
            None => self.log_in().await,
        }
    }

    /// Another token than one that was refused, unless there was such a login a moment ago.
    async fn other_than(&self, refused: &Lease) -> Result<Option<Lease>, Fault> {
        let _one_at_a_time = self.logging_in.lock().await;
        if let Some(other) = self.current().filter(|current| current.number != refused.number) {
            return Ok(Some(other));
        }
        {
            let mut state = self.state();
            if state.replaced.is_some_and(|at| at.elapsed() < DENIED_PAUSE) {
                return Ok(None);
            }
            state.replaced = Some(Instant::now());
        }
        let other = self.log_in().await?;
        if !matches!(self.login, BaoLogin::Token { .. }) {
            self.revoke(refused).await;
        }
        Ok(Some(other))
    }

    /// Lets go of a token that may still be good: a path that stays denied would leave one behind each time.
    async fn revoke(&self, lease: &Lease) {
        let path = "auth/token/revoke-self".into();
        let body = Some(Zeroizing::new(b"{}".to_vec()));
        let call = Call { method: Method::POST, path, token: Some(lease.token.clone()), body };
        // If it is not to be had, it ends by itself.
        let _ = self.server.exchange(call).await;
    }

    /// Renews the token for as long as it is polled.
    pub(super) async fn keep(&self) {
        loop {
            let life = self.state().lease.as_ref().and_then(|lease| lease.life);
            match life {
                None => self.changed.notified().await,
                Some(life) => tokio::select! {
                    () = self.changed.notified() => {}
                    () = sleep_until(life.due) => self.renew().await,
                },
            }
        }
    }

    async fn renew(&self) {
        let Some(lease) = self.current() else {
            // It has ended. Who needs a token next logs in.
            self.state().lease.take_if(|lease| !lease.is_good());
            return;
        };
        let renewed = if lease.renewable { self.renewed(&lease).await } else { Ok(false) };
        let fault = match renewed {
            Ok(true) => return,
            Ok(false) => None,
            Err(fault @ Fault::TokenRefused) => Some(fault),
            Err(fault) => {
                tracing::warn!(error = %vault::chain(&fault), "OpenBao: the token could not be renewed now");
                return self.postpone(&lease);
            }
        };
        let _one_at_a_time = self.logging_in.lock().await;
        if self.state().logins != lease.number {
            return;
        }
        if let Some(fault) = fault {
            tracing::info!(error = %vault::chain(&fault), "OpenBao: the token is not renewed, so a new one is had");
        }
        if let Err(fault) = self.log_in().await {
            tracing::warn!(error = %vault::chain(&fault), "OpenBao: the token ends, and there is no new one yet");
            self.postpone(&lease);
        }
    }

    /// Whether it has a life again that is worth having.
    async fn renewed(&self, lease: &Lease) -> Result<bool, Fault> {
        let asked = Instant::now();
        let body = Some(Zeroizing::new(b"{}".to_vec()));
        let call = Call {
            method: Method::POST,
            path: "auth/token/renew-self".into(),
            token: Some(lease.token.clone()),
            body,
        };
        let answer = self.server.exchange(call).await?;
        if answer.status != StatusCode::OK {
            return Err(Fault::of_token(&answer));
        }
        let Granted { life, renewable, .. } = wire::granted(&answer)?;
        // Only what ends is renewed, and what it is given then ends, too.
        let life = life.unwrap_or_default();
        let first = lease.life.map_or(life, |life| life.first);
        // Near the end of its longest life a token is given less and less. One that was given to us cannot be had anew.
        let is_short = life < first / 2 && !matches!(self.login, BaoLogin::Token { .. });
        let mut state = self.state();
        if let Some(current) = state.lease.as_mut().filter(|current| current.number == lease.number) {
            current.renewable = renewable;
            current.life = Some(Life { first, until: asked + life, due: asked + early(life) });
        }
        Ok(!is_short)
    }

    /// Later, but before it ends.
    fn postpone(&self, lease: &Lease) {
        let mut state = self.state();
        let Some(current) = state.lease.as_mut().filter(|current| current.number == lease.number) else {
            return;
        };
        if let Some(life) = &mut current.life {
            let now = Instant::now();
            let left = life.until.saturating_duration_since(now);
            life.due = now + (left / 4).clamp(RETRY.0, RETRY.1);
        }
    }

    /// A new token. Only for who holds `logging_in`.
    async fn log_in(&self) -> Result<Lease, Fault> {
        let secret = self.login_secret().await?;
        let fingerprint = secret.fingerprint();
        let refused = self.state().refused;
        if let Some(refused) = refused.filter(|refused| refused.secret == fingerprint)
            && refused.at.elapsed() < REFUSED_PAUSE
        {
            return Err(refused.status.map_or(Fault::TokenRefused, Fault::LoginRefused));
        }
        let asked = Instant::now();
        let given = self.asked_for(&secret).await;
        let mut state = self.state();
        state.refused = match &given {
            // A 500 is a no, too, and may also be a fault that passes.
            Err(Fault::LoginRefused(status)) if status.is_client_error() => Some(Some(*status)),
            Err(Fault::TokenRefused) => Some(None),
            _ => None,
        }
        .map(|status| Refused { at: Instant::now(), secret: fingerprint, status });
        let (token, life, renewable) = given?;
        state.logins += 1;
        let life = life.map(|life| Life { first: life, until: asked + life, due: asked + early(life) });
        let lease = Lease { token, number: state.logins, renewable, life };
        state.lease = Some(lease.clone());
        drop(state);
        self.changed.notify_one();
        let seconds = lease.life.map(|life| life.first.as_secs());
        tracing::info!(login = %self.login, seconds, renewable, "OpenBao: logged in");
        Ok(lease)
    }

    /// What a login with `secret` gives.
    async fn asked_for(&self, secret: &Arc<Secret>) -> Result<(Arc<Secret>, Option<Duration>, bool), Fault> {
        let (mount, body) = match &self.login {
            BaoLogin::Token { .. } => return self.looked_up(secret).await,
            BaoLogin::AppRole { mount, role_id, .. } => {
                (mount, wire::login_body(&[("role_id", role_id)], ("secret_id", secret))?)
            }
            BaoLogin::Jwt { mount, role, .. } => {
                (mount, wire::login_body(&[("role", role)], ("jwt", secret))?)
            }
        };
        let path = format!("auth/{}/login", super::encoded(mount));
        let call = Call { method: Method::POST, path, token: None, body: Some(body) };
        let answer = self.server.exchange(call).await?;
        if answer.status != StatusCode::OK {
            return Err(Fault::of_login(&answer));
        }
        let Granted { token, life, renewable } = wire::granted(&answer)?;
        let token = Secret::new(token.as_bytes().to_vec()).map_err(|_| Fault::Malformed("a login"))?;
        let token = Arc::new(token);
        redaction::held().remember([&token]);
        Ok((token, life, renewable))
    }

    /// A token that was given to us, and what is left of its life.
    async fn looked_up(&self, token: &Arc<Secret>) -> Result<(Arc<Secret>, Option<Duration>, bool), Fault> {
        let path = "auth/token/lookup-self".into();
        let call = Call { method: Method::GET, path, token: Some(token.clone()), body: None };
        let answer = self.server.exchange(call).await?;
        match answer.status {
            StatusCode::OK => {
                let (life, renewable) = wire::looked_up(&answer)?;
                Ok((token.clone(), life, renewable))
            }
            _ => Err(Fault::of_token(&answer)),
        }
    }

    /// Read anew for each login, since files are replaced.
    async fn login_secret(&self) -> Result<Arc<Secret>, Fault> {
        let reference = self.login.reference().clone();
        let read = (self.look_up)(reference.clone()).await;
        read.map_err(|source| Fault::LoginSecret { reference, source: Box::new(source) })
    }

    /// The present token, unless it has ended.
    fn current(&self) -> Option<Lease> {
        self.state().lease.as_ref().filter(|lease| lease.is_good()).cloned()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// About two thirds: 62 % to 70 %, so that replicas that started together do not come together for ever.
fn early(life: Duration) -> Duration {
    let mut random = [0];
    // Without randomness they do, which is no harm.
    let _ = aws_lc_rs::rand::fill(&mut random);
    life.mul_f64(0.62 + f64::from(random[0]) / 255.0 * 0.08)
}
