//! A log filter that an operator sets for a time. It always ends by itself: a debug level that somebody
//! forgot costs, and tells, more than anybody meant.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{Gateway, suspension::whole_seconds};
use crate::status::LogOverride;

/// When none is asked for.
pub(super) const FOR_DEFAULT: Duration = Duration::from_secs(15 * 60);

/// The longest.
pub(super) const FOR_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The override in force, if one is.
#[derive(Clone)]
pub(super) struct LogLevel {
    gateway: Arc<dyn Gateway>,
    current: Arc<Mutex<Current>>,
}

#[derive(Default)]
struct Current {
    /// Tells an override's end from the end of one that it replaced.
    number: u64,
    filter: Option<(String, Instant)>,
}

impl LogLevel {
    pub(super) fn new(gateway: Arc<dyn Gateway>) -> Self {
        Self { gateway, current: Arc::default() }
    }

    /// Sets `filter` for `duration`, after which the configured one returns.
    pub(super) fn set(&self, filter: &str, duration: Duration) -> Result<(), String> {
        let until = Instant::now() + duration;
        let number = {
            let mut current = self.lock();
            self.gateway.set_log_filter(Some(filter))?;
            current.number += 1;
            current.filter = Some((filter.to_owned(), until));
            current.number
        };
        let this = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep_until(until).await;
            let mut current = this.lock();
            if current.number == number && current.filter.is_some() {
                this.end(&mut current);
            }
        });
        Ok(())
    }

    /// Back to the configured filter now.
    pub(super) fn reset(&self) {
        self.end(&mut self.lock());
    }

    pub(super) fn current(&self) -> Option<LogOverride> {
        let current = self.lock();
        let (filter, until) = current.filter.as_ref()?;
        let for_s = whole_seconds(until.saturating_duration_since(Instant::now()));
        Some(LogOverride { filter: filter.clone(), for_s })
    }

    fn end(&self, current: &mut Current) {
        current.filter = None;
        match self.gateway.set_log_filter(None) {
            Ok(()) => tracing::info!("the configured log filter is in force again"),
            Err(error) => tracing::error!(error, "the configured log filter could not be set again"),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Current> {
        // What it guards is whole at every point, so a panic elsewhere does not spoil it.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::fake::Fake;

    fn set_up() -> (Arc<Fake>, LogLevel) {
        let fake = Fake::new();
        let level = LogLevel::new(Arc::clone(&fake) as Arc<dyn Gateway>);
        (fake, level)
    }

    fn filters(fake: &Fake) -> Vec<Option<String>> {
        fake.filters.lock().unwrap().clone()
    }

    #[tokio::test(start_paused = true)]
    async fn an_override_ends_at_its_time_and_not_before() {
        let (fake, level) = set_up();
        level.set("debug", Duration::from_secs(60)).unwrap();
        tokio::time::advance(Duration::from_millis(59_500)).await;
        tokio::task::yield_now().await;
        assert_eq!(filters(&fake), [Some("debug".into())]);
        assert_eq!(level.current(), Some(LogOverride { filter: "debug".into(), for_s: 1 }));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(filters(&fake), [Some("debug".into()), None]);
        assert_eq!(level.current(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_replaced_override_does_not_end_its_successor() {
        let (fake, level) = set_up();
        level.set("debug", Duration::from_secs(10)).unwrap();
        level.set("trace", Duration::from_secs(100)).unwrap();
        tokio::time::sleep(Duration::from_secs(50)).await;
        assert_eq!(level.current().unwrap().filter, "trace");
        assert_eq!(filters(&fake).len(), 2);
        tokio::time::sleep(Duration::from_secs(51)).await;
        assert_eq!(filters(&fake), [Some("debug".into()), Some("trace".into()), None]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reset_is_not_repeated_at_the_time() {
        let (fake, level) = set_up();
        level.set("debug", Duration::from_secs(10)).unwrap();
        level.reset();
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(filters(&fake), [Some("debug".into()), None]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_filter_that_cannot_be_parsed_changes_nothing() {
        let (fake, level) = set_up();
        level.set("debug", Duration::from_secs(10)).unwrap();
        assert!(level.set("nonsense=", Duration::from_secs(10)).is_err());
        assert_eq!(level.current().unwrap().filter, "debug");
        assert_eq!(filters(&fake).len(), 1);
    }
}
