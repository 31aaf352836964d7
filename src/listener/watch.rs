//! Every wait of one connection, checked by one slow tick.
//!
//! The connection's task, its gate and the request in flight run on one thread and share this. A stage
//! only notes when its wait ends; the connection's tick (`TICK`) compares, marks what has expired and
//! polls the connection again, so that whoever waits finds the mark. One timer an active connection,
//! none an exchange; the price is that waits end up to one tick late.

use std::{
    cell::Cell,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;

/// How often waits are compared.
pub(crate) const TICK: Duration = Duration::from_millis(250);

/// Which wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// The rest of a request's head.
    Head,
    /// The rest of a request's body.
    Upload,
    /// The answer's head.
    FirstByte,
    /// The next piece of an answer.
    AnswerIdle,
    /// The end of the whole exchange.
    Total,
    /// None: an operator has stopped it.
    Suspended,
}

/// The waits of one connection.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// The caller's side: a head or a body that is arriving.
    inbound: Cell<Option<(Instant, Expiry)>>,
    /// The upstream's side.
    upstream: Cell<Option<(Instant, Expiry)>>,
    total: Cell<Option<Instant>>,
    expired: Cell<Option<Expiry>>,
}

impl Watch {
    /// Starts waiting for the caller.
    pub(crate) fn inbound(&self, wait: Duration, expiry: Expiry) {
        self.inbound.set(Some((Instant::now() + wait, expiry)));
    }

    /// The caller has sent what was waited for.
    pub(crate) fn inbound_done(&self) {
        self.inbound.set(None);
    }

    /// Starts, or starts anew, waiting for the upstream.
    pub(crate) fn upstream(&self, wait: Duration, expiry: Expiry) {
        self.upstream_from(Instant::now(), wait, expiry);
    }

    /// Waits for the upstream since `start`.
    pub(crate) fn upstream_from(&self, start: Instant, wait: Duration, expiry: Expiry) {
        self.upstream.set(Some((start + wait, expiry)));
    }

    /// Nothing is waited for upstream, for now.
    pub(crate) fn upstream_done(&self) {
        self.upstream.set(None);
    }

    /// Starts the bound on the whole exchange, which began at `start`.
    pub(crate) fn total(&self, start: Instant, wait: Duration) {
        self.total.set(Some(start + wait));
    }

    /// All that is waited for has this much more time: it was not what anybody waited for.
    pub(crate) fn extend(&self, more: Duration) {
        self.inbound.set(self.inbound.get().map(|(end, expiry)| (end + more, expiry)));
        self.upstream.set(self.upstream.get().map(|(end, expiry)| (end + more, expiry)));
        self.total.set(self.total.get().map(|end| end + more));
    }

    /// The exchange is over: nothing is waited for upstream.
    pub(crate) fn exchange_done(&self) {
        self.upstream.set(None);
        self.total.set(None);
        self.expired.set(None);
    }

    /// Nothing is waited for any more: an operator has stopped this.
    pub(crate) fn suspend(&self) {
        self.expired.set(Some(self.expired.get().unwrap_or(Expiry::Suspended)));
    }

    /// What has expired, if anything.
    pub(crate) fn expired(&self) -> Option<Expiry> {
        self.expired.get()
    }

    /// Compares every wait with `now`; true when one ended since the last look.
    pub(crate) fn look(&self, now: Instant) -> bool {
        if self.expired.get().is_some() {
            return false;
        }
        let due =
            |wait: Option<(Instant, Expiry)>| wait.filter(|&(end, _)| end <= now).map(|(_, expiry)| expiry);
        let expiry = due(self.inbound.get())
            .or(due(self.upstream.get()))
            .or(due(self.total.get().map(|end| (end, Expiry::Total))));
        self.expired.set(expiry);
        expiry.is_some()
    }

    /// Runs `future` until it is done or a wait expires.
    pub(crate) async fn until_expired<F: Future>(
        &self,
        mut future: Pin<&mut F>,
    ) -> Result<F::Output, Expiry> {
        std::future::poll_fn(|cx| self.poll(cx, future.as_mut())).await
    }

    fn poll<F: Future>(&self, cx: &mut Context<'_>, future: Pin<&mut F>) -> Poll<Result<F::Output, Expiry>> {
        // Only the connection's own task polls here, right after it has looked: no waker is needed.
        match self.expired() {
            Some(expiry) => Poll::Ready(Err(expiry)),
            None => future.poll(cx).map(Ok),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_wait_expires_when_its_time_has_come_and_not_before() {
        let watch = Watch::default();
        watch.upstream(Duration::from_secs(1), Expiry::FirstByte);
        assert!(!watch.look(Instant::now() + Duration::from_millis(999)));
        assert_eq!(watch.until_expired(pin!(async { 7 })).await, Ok(7));
        assert!(watch.look(Instant::now() + Duration::from_secs(1)));
        assert_eq!(watch.until_expired(pin!(std::future::pending::<()>())).await, Err(Expiry::FirstByte));
        watch.exchange_done();
        assert_eq!(watch.until_expired(pin!(async { 8 })).await, Ok(8));
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_arrived_in_time_is_no_longer_waited_for() {
        let watch = Watch::default();
        watch.inbound(Duration::from_secs(1), Expiry::Upload);
        watch.total(Instant::now(), Duration::from_secs(3));
        watch.inbound_done();
        assert!(!watch.look(Instant::now() + Duration::from_secs(2)));
        assert!(watch.look(Instant::now() + Duration::from_secs(3)));
        assert_eq!(watch.expired(), Some(Expiry::Total));
    }
}
