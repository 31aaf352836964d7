//! The access record of one request, from its opening to its one closing.

use std::{
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::time::Instant;

use super::{End, Trail};
use crate::{
    admission::{Caller, NotAdmitted, Origin},
    credential::Credential,
    limits::{self, CallerLimits, SOON, breaker::Pass, budget, pace::Paced},
    listener::{connection::Connection, peer::Peer},
    metrics,
    policy::{Call, Denial, Grant},
    record::{Decision, Record, UsedCredential},
    refusal::{Failure, Refusal},
    users::{Reason, Told, end_user::EndUser},
    worker::view::{EnvironmentView, View},
};

/// What is known so far about one request. Dropping it closes the record: once, however the request ended.
pub(crate) struct Entry {
    at: Rc<Connection>,
    start: SystemTime,
    began: Instant,
    request_id: RequestId,
    method: &'static str,
    environment: Option<Rc<EnvironmentView>>,
    origin: Option<Origin>,
    caller: Option<Arc<str>>,
    call: Option<Call>,
    credential: Option<Rc<UsedCredential>>,
    cut_over: bool,
    kept: usize,
    decision: Decision,
    code: Option<&'static str>,
    would_refuse: Option<&'static str>,
    status: Option<StatusCode>,
    bytes_out: u64,
    upstream_began: Option<Instant>,
    upstream: Option<Duration>,
    complete: bool,
    /// What the caller, and then the environment, give the request; given back when its answer is made.
    permit: Option<limits::Permit>,
    budget: Option<budget::Permit>,
    /// When another attempt may succeed.
    wait: Duration,
}

impl Entry {
    pub(crate) fn open(at: &Rc<Connection>, method: &Method) -> Box<Self> {
        Box::new(Self {
            at: at.clone(),
            start: SystemTime::now(),
            began: Instant::now(),
            request_id: at.worker.next_request_id(),
            method: name_of(method),
            environment: None,
            origin: None,
            caller: None,
            call: None,
            credential: None,
            cut_over: false,
            kept: 0,
            decision: Decision::Aborted,
            code: None,
            would_refuse: None,
            status: None,
            bytes_out: 0,
            upstream_began: None,
            upstream: None,
            complete: false,
            permit: None,
            budget: None,
            wait: SOON,
        })
    }

    /// Counts the request for its caller.
    pub(crate) fn limited(&mut self, limits: Option<&Rc<CallerLimits>>) -> Result<(), Refusal> {
        let admitted = limits::admit(limits, &self.at.owner, self.began);
        self.permit = admitted.map_err(|over| self.over(over))?;
        Ok(())
    }

    /// Counts the request as one that is sent to `environment`, unless that is left alone.
    pub(crate) fn sending(
        &mut self,
        environment: &Rc<EnvironmentView>,
        method: &Method,
        repeatable: bool,
    ) -> Result<Pass, End> {
        let pass = match &environment.settings.breaker {
            Some(breaker) => breaker.admit(repeatable, self.began).map_err(|wait| {
                self.wait = wait;
                Failure::BreakerOpen
            })?,
            None => Pass::usual(),
        };
        let admitted = budget::admit(environment, method, self.began);
        self.budget = admitted.map_err(|over| self.over(over))?;
        Ok(pass)
    }

    /// Counts a second attempt, which is one more request to `environment`. `None`: there is no room for it, and the
    /// first one's answer is the answer.
    pub(crate) fn sending_again(&self, environment: &EnvironmentView) -> Option<Pass> {
        let now = Instant::now();
        let pass = match &environment.settings.breaker {
            Some(breaker) => breaker.admit(true, now).ok()?,
            None => Pass::usual(),
        };
        self.budget.as_ref().is_none_or(|permit| permit.again(now)).then_some(pass)
    }

    pub(super) fn over(&mut self, over: limits::Over) -> Refusal {
        self.wait = over.wait;
        over.refusal
    }

    /// When another attempt may succeed, for an answer that says so.
    pub(crate) fn wait(&self) -> Duration {
        self.wait
    }

    /// The request goes out: says so where only observe mode lets it.
    pub(crate) fn sent_out(&self) {
        if self.would_refuse.is_some() {
            let operation = match &self.call {
                Some(Call::Operation(operation)) => operation.id,
                _ => "",
            };
            self.at.worker.log_would_refuse(self.caller.as_deref(), operation, self.origin);
        }
    }

    /// What the caller's bodies keep to.
    pub(crate) fn paced(&self) -> Option<Paced> {
        self.permit.as_ref().and_then(limits::Permit::pace).map(Paced::new)
    }

    /// When the request came, by the wall clock.
    pub(crate) fn start(&self) -> SystemTime {
        self.start
    }

    pub(crate) fn request_id(&self) -> &RequestId {
        &self.request_id
    }

    pub(crate) fn environment(&mut self, environment: &Rc<EnvironmentView>) {
        self.environment = Some(environment.clone());
    }

    pub(crate) fn credential(&mut self, credential: Option<&Credential>) {
        self.credential = credential.map(|credential| credential.used.clone());
    }

    /// The request goes out again, with the other of two keys.
    pub(crate) fn cut_over(&mut self, credential: Option<&Credential>) {
        self.credential(credential);
        self.cut_over = true;
    }

    /// The upstream does not take the credential.
    pub(crate) fn not_taken(&self) {
        if let (Some(environment), Some(credential)) = (&self.environment, &self.credential) {
            environment.not_taken(credential);
        }
    }

    /// So many tokens of the answer are kept here.
    pub(crate) fn kept(&mut self, count: usize) {
        self.kept = count;
    }

    /// Says when.
    pub(crate) fn asked_upstream(&mut self) -> Instant {
        *self.upstream_began.insert(Instant::now())
    }

    pub(crate) fn upstream_answered(&mut self) {
        self.upstream = self.upstream_began.map(|began| began.elapsed());
    }

    /// The gateway answers by itself.
    pub(super) fn answered(&mut self, status: StatusCode) {
        self.allowed(status);
        self.complete = true;
    }

    /// The answer's head goes out.
    pub(crate) fn allowed(&mut self, status: StatusCode) {
        self.decision = Decision::Allowed;
        self.status = Some(status);
    }

    /// One of our own answers goes out.
    pub(crate) fn ended(&mut self, end: &End, status: StatusCode) {
        self.status = Some(status);
        self.complete = true;
        self.cut_off(end);
        self.upstream_answered();
    }

    /// The exchange ended before its end.
    pub(crate) fn cut_off(&mut self, end: &End) {
        match end {
            End::Refused(denial) => self.refused(denial.refusal),
            End::Failed(failure) => self.failed(*failure),
        }
    }

    fn refused(&mut self, refusal: Refusal) {
        self.would_refuse = None;
        self.decision = Decision::Refused;
        self.code = Some(refusal.code());
        self.at.worker.metrics().refused(refusal);
    }

    /// The upstream, or we, failed while the answer was passed on.
    pub(crate) fn failed(&mut self, failure: Failure) {
        self.decision = Decision::Failed;
        self.code = Some(failure.code());
        self.at.worker.metrics().failed(failure);
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.bytes_out += bytes as u64;
    }

    /// Every byte of the answer was handed on.
    pub(crate) fn complete(&mut self) {
        self.complete = true;
    }

    /// Gives back what the caller and the environment gave: who has its answer may ask again.
    pub(crate) fn release(&mut self) {
        self.permit = None;
        self.budget = None;
    }

    /// Whether nothing of the answer is missing.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }
}

/// A walk in the running gateway: it is written down, and told what only a running gateway knows.
pub(crate) struct Live<'w> {
    pub(crate) view: &'w View,
    pub(crate) entry: &'w mut Entry,
}

impl Trail for Live<'_> {
    fn turned_away(&mut self, not: NotAdmitted) {
        self.entry.origin = Some(not.origin);
        let at = &self.entry.at;
        at.worker.not_admitted(not.reason, not.origin, at.executable.as_deref());
    }

    fn admitted(&mut self, caller: Caller, name: Option<&Arc<str>>) {
        self.entry.origin = Some(caller.origin());
        if let Some(name) = name {
            self.entry.caller = Some(name.clone());
            self.entry.at.recognised(name, caller.origin());
        }
    }

    fn check_running(&mut self, caller: Caller) -> Result<(), Refusal> {
        self.entry.at.check_suspended(self.view, self.entry.began)?;
        self.entry.limited(self.view.limits(caller.index()))
    }

    fn identify(
        &mut self,
        end_user: &EndUser,
        caller: Caller,
        headers: &HeaderMap,
    ) -> Result<Rc<str>, Reason> {
        self.view.identify(end_user, caller.index(), headers)
    }

    fn not_bound(&mut self, reason: Reason, caller: Caller) -> Told {
        self.entry.at.worker.not_bound(reason, caller.origin())
    }

    fn denied(&mut self, denial: &Denial) {
        self.entry.call = denial.operation.map(Call::Operation);
    }

    fn would_refuse(&mut self, refusal: Refusal) {
        self.entry.would_refuse = Some(refusal.code());
    }

    fn now(&self) -> SystemTime {
        self.entry.start()
    }

    fn granted(&mut self, grant: &Grant) -> Result<(), Refusal> {
        self.entry.call = Some(grant.call().clone());
        let Some(operation) = grant.operation() else { return Ok(()) };
        self.entry.at.asked_for(operation.id);
        self.entry.at.check_suspended(self.view, self.entry.began)
    }

    fn asks_for(&mut self, template: &'static str) {
        self.entry.call = Some(Call::Pattern(template.into()));
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let duration = self.began.elapsed();
        let decision = match self.decision {
            Decision::Allowed if !self.complete => Decision::Aborted,
            decision => decision,
        };
        let operation = match &self.call {
            Some(Call::Operation(operation)) => Some(*operation),
            _ => None,
        };
        let template = match &self.call {
            Some(Call::Operation(operation)) => Some(operation.template),
            Some(Call::Pattern(template)) => Some(&**template),
            None => None,
        };
        let (caller_address, peer_address) = addresses(self.origin, &self.at.peer);
        let session = &self.at.session;
        let masked = session.masked();
        self.at.worker.metrics().request(&metrics::Request {
            operation: operation.map(|operation| operation.index.get()),
            status: self.status.map(|status| status.as_u16()),
            gateway: duration.saturating_sub(self.upstream.unwrap_or_default()),
            upstream: self.upstream,
            bytes_in: session.body_bytes(),
            bytes_out: self.bytes_out,
            masked,
        });
        self.at.worker.record(&Record {
            start: self.start,
            request_id: self.request_id.as_str(),
            caller: self.caller.as_deref(),
            caller_address,
            peer_address,
            listener: &self.at.listener.name,
            environment: self.environment.as_ref().map_or("", |environment| &environment.settings.name),
            operation: operation.map(|operation| operation.id),
            template,
            method: self.method,
            decision,
            code: self.code,
            credential: self.credential.as_deref(),
            status: self.status.map(|status| status.as_u16()),
            bytes_in: session.body_bytes(),
            bytes_out: self.bytes_out,
            duration_us: micros(duration),
            upstream_us: self.upstream.map(micros),
            masked,
            peer_uid: match self.at.peer {
                Peer::Unix { uid, .. } => Some(uid),
                Peer::Tcp(_) | Peer::Certified(..) => None,
            },
            would_refuse: self.would_refuse,
            cut_over: self.cut_over,
            kept: self.kept as u64,
        });
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The address that counted, and the socket's own when a proxy named another.
fn addresses(origin: Option<Origin>, peer: &Peer) -> (Option<IpAddr>, Option<IpAddr>) {
    let socket = peer.address().map(|address| address.ip());
    let counted = match origin {
        Some(Origin::Address(address)) => Some(address),
        Some(Origin::Unix { .. }) => None,
        None => socket,
    };
    (counted, socket.filter(|socket| counted != Some(*socket)))
}

/// Only the methods that the gate lets through.
fn name_of(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}

/// 32 hex digits: 16 of the process's own, chosen at random, and 16 that count.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestId([u8; 32]);

impl RequestId {
    pub(crate) fn new(process: u64, count: u64) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 32];
        let both = (u128::from(process) << 64) | u128::from(count);
        for (at, digit) in text.iter_mut().enumerate() {
            *digit = DIGITS[(both >> (124 - 4 * at)) as usize & 0xf];
        }
        Self(text)
    }

    pub(crate) fn as_str(&self) -> &str {
        // Hex digits are ASCII.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    pub(crate) fn header(&self) -> HeaderValue {
        HeaderValue::from_bytes(&self.0).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_32_hex_digits_that_count() {
        assert_eq!(RequestId::new(0xabc, 1).as_str(), "0000000000000abc0000000000000001");
        assert_eq!(RequestId::new(u64::MAX, u64::MAX).as_str(), "f".repeat(32));
    }

    #[test]
    fn a_proxys_own_address_is_named_beside_the_callers() {
        let peer = &Peer::Tcp("192.0.2.1:5".parse().unwrap());
        let caller = "10.0.0.1".parse().unwrap();
        let proxy: IpAddr = "192.0.2.1".parse().unwrap();
        assert_eq!(addresses(Some(Origin::Address(caller)), peer), (Some(caller), Some(proxy)));
        assert_eq!(addresses(Some(Origin::Address(proxy)), peer), (Some(proxy), None));
        assert_eq!(addresses(Some(Origin::Unix { uid: 1 }), &Peer::Unix { uid: 1, gid: 1 }), (None, None));
    }
}
