//! The upstream's addresses.
//!
//! The control plane looks names up, so that no worker waits for a resolver; workers read the last good
//! answer. A failed look-up keeps the old addresses and is tried again soon. The system's resolver is used,
//! so `/etc/hosts`, search domains and the platform's caches count.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::sync::{Notify, watch};

use crate::config::IpFamily;

/// How often a name is looked up.
pub(crate) const REFRESH: Duration = Duration::from_secs(30);

/// How soon it is tried again after a failure.
pub(crate) const RETRY: Duration = Duration::from_secs(1);

/// The addresses of one host.
#[derive(Debug)]
pub(crate) struct Addresses {
    host: String,
    port: u16,
    family: IpFamily,
    known: watch::Sender<Arc<[SocketAddr]>>,
    wanted: Notify,
    /// Look-ups in a row that failed.
    failures: AtomicU32,
}

impl Addresses {
    /// Nothing is known yet, unless `host` is an address itself.
    pub(crate) fn new(host: &str, port: u16, family: IpFamily) -> Self {
        let literal = host.trim_matches(['[', ']']).parse::<IpAddr>().ok();
        let known: Vec<_> = literal.map(|ip| SocketAddr::new(ip, port)).into_iter().collect();
        Self {
            host: host.to_owned(),
            port,
            family,
            known: watch::Sender::new(known.into()),
            wanted: Notify::new(),
            failures: AtomicU32::new(0),
        }
    }

    /// The last good answer; waits for the first one.
    pub(crate) async fn get(&self) -> Arc<[SocketAddr]> {
        let mut known = self.known.subscribe();
        let ready = known.wait_for(|addresses| !addresses.is_empty()).await;
        // The sender lives as long as `self`, so there always is an answer in the end.
        ready.map(|addresses| addresses.clone()).unwrap_or_default()
    }

    /// As if a look-up had found these.
    #[cfg(test)]
    pub(crate) fn find(&self, found: &[SocketAddr]) {
        self.known.send_replace(found.into());
    }

    /// Asks for a look-up before the next regular one: no address answered.
    pub(crate) fn distrust(&self) {
        self.wanted.notify_one();
    }

    /// What the name leads to now, of the wanted family.
    pub(crate) async fn look_up(&self) -> io::Result<Vec<SocketAddr>> {
        let fits = |address: &SocketAddr| match self.family {
            IpFamily::Any => true,
            IpFamily::Ipv4 => address.is_ipv4(),
            IpFamily::Ipv6 => address.is_ipv6(),
        };
        let found = tokio::net::lookup_host((self.host.trim_matches(['[', ']']), self.port)).await?;
        Ok(found.filter(fits).collect())
    }

    /// Looks the name up now. Returns how long to wait before the next time.
    pub(crate) async fn refresh(&self) -> Duration {
        match self.look_up().await {
            Ok(found) if !found.is_empty() => {
                self.failures.store(0, Relaxed);
                self.known.send_if_modified(|known| {
                    let changed = **known != *found;
                    if changed {
                        *known = found.into();
                    }
                    changed
                });
                REFRESH
            }
            Ok(_) => self.failed(&"it has none of the wanted family"),
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&self, reason: &dyn fmt::Display) -> Duration {
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        // A name that stays unknown must not fill the log.
        if failures.is_power_of_two() {
            let kept = self.known.borrow().len();
            tracing::warn!(host = self.host, failures, kept, %reason, "a host's addresses could not be looked up");
        }
        RETRY
    }

    /// Keeps the addresses fresh until the future is dropped.
    pub(crate) async fn keep_fresh(&self) {
        loop {
            let wait = self.refresh().await;
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                // Not more often than once a retry interval, however many workers ask.
                () = async { tokio::join!(tokio::time::sleep(RETRY), self.wanted.notified()); } => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_literal_is_known_at_once_and_a_name_after_the_first_look_up() {
        let literal = Addresses::new("[::1]", 443, IpFamily::Any);
        assert_eq!(*literal.get().await, ["[::1]:443".parse().unwrap()]);
        let name = Addresses::new("localhost", 8443, IpFamily::Ipv4);
        assert!(name.known.borrow().is_empty());
        assert_eq!(name.refresh().await, REFRESH);
        assert_eq!(*name.get().await, ["127.0.0.1:8443".parse().unwrap()]);
    }

    #[tokio::test]
    async fn a_failed_look_up_keeps_the_last_good_addresses() {
        let mut name = Addresses::new("localhost", 1, IpFamily::Ipv4);
        name.refresh().await;
        name.host = "name.invalid".into();
        assert_eq!(name.refresh().await, RETRY);
        assert_eq!(*name.get().await, ["127.0.0.1:1".parse().unwrap()]);
    }
}
