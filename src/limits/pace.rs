//! Bytes per second, by back-pressure: whoever is ahead of its rate is not read from for a while.
//!
//! Nothing is buffered for it: the answer's or the upload's next piece stays where it is, and TCP holds its sender back.
//! A piece is paid for after it has passed, since nobody knows its size before. So the rate is kept over time, and what
//! may come at once is a tenth of a second's bytes and one piece (64 KiB at most) for each connection.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::rate::nanos;
use crate::listener::watch::Watch;

/// How far bytes may be ahead of their time: timers count in milliseconds, and each wait costs a turn of the event loop.
const AHEAD: u64 = 100_000_000;

/// All bytes of one caller.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Pace {
    /// When all that has passed is paid for, in nanoseconds since `epoch`.
    paid_at: AtomicU64,
    epoch: Instant,
    bytes_per_second: u64,
}

impl Pace {
    /// `previous` itself if nothing changed.
    pub(super) fn new(bytes_per_second: Option<u64>, previous: Option<&Arc<Self>>) -> Option<Arc<Self>> {
        let bytes_per_second = bytes_per_second?;
        if let Some(previous) = previous.filter(|previous| previous.bytes_per_second == bytes_per_second) {
            return Some(previous.clone());
        }
        Some(Arc::new(Self { paid_at: AtomicU64::new(0), epoch: Instant::now(), bytes_per_second }))
    }

    /// How long the next piece has to wait.
    fn wait(&self, now: Instant) -> Option<Duration> {
        let now = nanos(now.saturating_duration_since(self.epoch));
        let ahead = self.paid_at.load(Relaxed).saturating_sub(now);
        ahead.checked_sub(AHEAD).filter(|wait| *wait > 0).map(Duration::from_nanos)
    }

    fn spend(&self, bytes: usize, now: Instant) {
        let now = nanos(now.saturating_duration_since(self.epoch));
        let time = u128::from(bytes as u64) * 1_000_000_000 / u128::from(self.bytes_per_second.max(1));
        let time = u64::try_from(time).unwrap_or(u64::MAX);
        let next = |paid_at: u64| Some(paid_at.max(now).saturating_add(time));
        // It always has a next value.
        let _ = self.paid_at.fetch_update(Relaxed, Relaxed, next);
    }
}

/// One body on its way.
#[derive(Debug)]
pub(crate) struct Paced {
    pace: Arc<Pace>,
    /// Until when its next piece has to wait.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Paced {
    pub(crate) fn new(pace: &Arc<Pace>) -> Self {
        Self { pace: pace.clone(), sleep: None }
    }

    /// Ready when the next piece may pass. The connection's own waits (`watch`) do not go on meanwhile.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, watch: &Watch) -> Poll<()> {
        loop {
            if let Some(sleep) = &mut self.sleep {
                ready!(sleep.as_mut().poll(cx));
                // A timer may come late.
                watch.extend(Instant::now().saturating_duration_since(sleep.deadline()));
                self.sleep = None;
            }
            let now = Instant::now();
            let Some(wait) = self.pace.wait(now) else { return Poll::Ready(()) };
            watch.extend(wait);
            self.sleep = Some(Box::pin(sleep_until(now + wait)));
        }
    }

    /// A piece has passed.
    pub(crate) fn spend(&self, bytes: usize) {
        self.pace.spend(bytes, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;
    use crate::listener::watch::Expiry;

    const PIECE: usize = 10_000;

    async fn passes(paced: &mut Paced, watch: &Watch) {
        poll_fn(|cx| paced.poll(cx, watch)).await;
        paced.spend(PIECE);
    }

    #[tokio::test(start_paused = true)]
    async fn many_pieces_take_their_time_whoever_sends_them() {
        let pace = Pace::new(Some(100_000), None).unwrap();
        let (mut one, mut two, watch) = (Paced::new(&pace), Paced::new(&pace), Watch::default());
        let start = Instant::now();
        for _ in 0..50 {
            passes(&mut one, &watch).await;
            passes(&mut two, &watch).await;
        }
        // 1 MB at 100 kB/s, less the tenth of a second ahead and the last piece, which nobody waited for.
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(9_800) && took < Duration::from_millis(10_100), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn few_bytes_wait_for_nothing_and_idle_time_is_not_saved_up() {
        let pace = Pace::new(Some(100_000), None).unwrap();
        let (mut paced, watch, start) = (Paced::new(&pace), Watch::default(), Instant::now());
        passes(&mut paced, &watch).await;
        passes(&mut paced, &watch).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        tokio::time::advance(Duration::from_secs(60)).await;
        let start = Instant::now();
        for _ in 0..12 {
            passes(&mut paced, &watch).await;
        }
        assert!(start.elapsed() >= Duration::from_millis(1000), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn no_wait_of_the_connection_expires_by_our_pacing_and_one_does_without() {
        let pace = Pace::new(Some(10_000), None).unwrap();
        let (mut paced, watch) = (Paced::new(&pace), Watch::default());
        let limit = Duration::from_millis(500);
        watch.total(Instant::now(), limit);
        watch.inbound(limit, Expiry::Upload);
        watch.upstream(limit, Expiry::FirstByte);
        for _ in 0..10 {
            passes(&mut paced, &watch).await;
            assert!(!watch.look(Instant::now()), "{:?}", watch.expired());
        }
        assert!(watch.look(Instant::now() + limit));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reload_goes_on_where_it_was() {
        let pace = Pace::new(Some(10_000), None).unwrap();
        pace.spend(1_000_000, Instant::now());
        assert!(Pace::new(Some(10_000), Some(&pace)).unwrap().wait(Instant::now()).is_some());
        assert!(Pace::new(Some(20_000), Some(&pace)).unwrap().wait(Instant::now()).is_none());
    }
}
