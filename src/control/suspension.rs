//! What an operator has stopped: callers, operations, environments and networks, until a time or until `resume`.
//!
//! In: the operator's commands. Out: one question that the data plane asks for each request, without a
//! lock, and word of each new suspension, for the connections that are open. A suspension that is over no longer counts, whether or not anybody removed it. Suspensions
//! outlive a reload and end with the process.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use tokio::sync::watch;

use crate::status::{Suspension, Target};

/// How many can be in force: more are a case for the configuration.
pub const ENTRIES_MAX: usize = 1024;

/// All suspensions; shared by the control plane, which writes, and the workers, which read.
#[derive(Debug, Default)]
pub struct Suspensions {
    entries: ArcSwap<Vec<Entry>>,
    /// Changes with every new suspension.
    added: watch::Sender<()>,
}

/// What a request is about, as far as it is known.
#[derive(Debug, Clone, Copy, Default)]
pub struct Subject<'s> {
    /// Where it goes.
    pub environment: Option<&'s str>,
    /// Where it comes from, in canonical form; none on a Unix socket.
    pub address: Option<IpAddr>,
    /// The caller's name.
    pub caller: Option<&'s str>,
    /// The operation's id.
    pub operation: Option<&'s str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    scope: Scope,
    /// `None`: until `resume`.
    until: Option<Instant>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Scope {
    Environment(String),
    Network(IpNet),
    Caller(String),
    Operation(String),
}

/// Why something cannot be suspended or resumed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Neither a network nor an address.
    #[error("`{0}` is no network; write it as 10.0.0.0/8, 10.1.2.3 or 2001:db8::/32")]
    NotANetwork(String),
    /// Bits beyond the prefix are set.
    #[error("`{0}` has bits set beyond its prefix; did you mean {1}?")]
    HostBits(String, IpNet),
    /// Callers' addresses are compared as IPv4.
    #[error("`{0}` is an IPv4-mapped network; write it as IPv4")]
    Mapped(String),
    /// Too many.
    #[error("{ENTRIES_MAX} suspensions are in force, the most there can be; resume some, or change `allow`")]
    TooMany,
    /// Nothing to resume.
    #[error("{0} is not suspended")]
    NotSuspended(Target),
}

impl Suspensions {
    /// Whether something that `subject` is about is stopped at `now`.
    #[must_use]
    pub fn applies(&self, subject: &Subject<'_>, now: Instant) -> bool {
        let entries = self.entries.load();
        !entries.is_empty() && entries.iter().any(|entry| entry.in_force(now) && entry.scope.holds(subject))
    }

    /// Whether nothing is stopped.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.load().is_empty()
    }

    /// Tells of each new suspension.
    #[must_use]
    pub fn added(&self) -> watch::Receiver<()> {
        self.added.subscribe()
    }

    /// Suspends `target`, replacing an earlier suspension of the same one.
    ///
    /// # Errors
    /// The network is not well formed, or there are [`ENTRIES_MAX`] already.
    pub fn suspend(&self, target: &Target, until: Option<Instant>, now: Instant) -> Result<(), Error> {
        let entry = Entry { scope: scope(target)?, until };
        let mut result = Ok(());
        self.entries.rcu(|old| {
            let mut entries: Vec<Entry> =
                old.iter().filter(|one| one.in_force(now) && one.scope != entry.scope).cloned().collect();
            result = if entries.len() < ENTRIES_MAX { Ok(()) } else { Err(Error::TooMany) };
            if result.is_ok() {
                entries.push(entry.clone());
            }
            entries
        });
        if result.is_ok() {
            self.added.send_replace(());
        }
        result
    }

    /// Ends a suspension.
    ///
    /// # Errors
    /// The network is not well formed, or exactly this target is not suspended at `now`.
    pub fn resume(&self, target: &Target, now: Instant) -> Result<(), Error> {
        let scope = scope(target)?;
        let mut found = false;
        self.entries.rcu(|old| {
            found = old.iter().any(|one| one.in_force(now) && one.scope == scope);
            old.iter().filter(|one| one.in_force(now) && one.scope != scope).cloned().collect::<Vec<_>>()
        });
        if found { Ok(()) } else { Err(Error::NotSuspended(target.clone())) }
    }

    /// What is in force at `now`, in the order of the commands.
    #[must_use]
    pub fn list(&self, now: Instant) -> Vec<Suspension> {
        let entries = self.entries.load();
        let shown = |entry: &Entry| Suspension {
            target: match &entry.scope {
                Scope::Environment(name) => Target::Environment(name.clone()),
                Scope::Network(network) => Target::Address(network.to_string()),
                Scope::Caller(name) => Target::Caller(name.clone()),
                Scope::Operation(id) => Target::Operation(id.clone()),
            },
            for_s: entry.until.map(|until| whole_seconds(until.saturating_duration_since(now))),
        };
        entries.iter().filter(|entry| entry.in_force(now)).map(shown).collect()
    }
}

impl Scope {
    fn holds(&self, subject: &Subject<'_>) -> bool {
        match self {
            Self::Environment(name) => subject.environment == Some(name),
            Self::Network(network) => {
                subject.address.is_some_and(|address| network.contains(&address.to_canonical()))
            }
            Self::Caller(name) => subject.caller == Some(name),
            Self::Operation(id) => subject.operation == Some(id),
        }
    }
}

impl Entry {
    fn in_force(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// Rounded up: what has not ended yet does not show as 0.
pub(super) fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

fn scope(target: &Target) -> Result<Scope, Error> {
    match target {
        Target::Environment(name) => Ok(Scope::Environment(name.clone())),
        Target::Address(text) => network(text).map(Scope::Network),
        Target::Caller(name) => Ok(Scope::Caller(name.clone())),
        Target::Operation(id) => Ok(Scope::Operation(id.clone())),
    }
}

fn network(text: &str) -> Result<IpNet, Error> {
    let network = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse::<IpNet>().map_err(|_| Error::NotANetwork(text.to_owned()))?,
    };
    match network {
        // It would match nobody: callers' addresses are canonical.
        IpNet::V6(v6) if v6.addr().to_ipv4_mapped().is_some() => Err(Error::Mapped(text.to_owned())),
        network if network != network.trunc() => Err(Error::HostBits(text.to_owned(), network.trunc())),
        network => Ok(network),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLER: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(10, 20, 1, 7)));

    fn environment(name: &str) -> Target {
        Target::Environment(name.into())
    }

    /// Whether a request for an environment from an address is stopped.
    fn applies(suspensions: &Suspensions, environment: &str, address: Option<IpAddr>, now: Instant) -> bool {
        let subject = Subject { environment: Some(environment), address, ..Subject::default() };
        suspensions.applies(&subject, now)
    }

    #[test]
    fn a_caller_or_an_operation_is_stopped_everywhere_and_another_is_not() {
        let (suspensions, now) = (Suspensions::default(), Instant::now());
        let mut added = suspensions.added();
        suspensions.suspend(&Target::Caller("ledger".into()), None, now).unwrap();
        suspensions.suspend(&Target::Operation("listUsers".into()), None, now).unwrap();
        assert!(added.has_changed().unwrap());
        added.mark_unchanged();
        let of = |caller, operation| Subject { caller: Some(caller), operation, ..Subject::default() };
        assert!(suspensions.applies(&of("ledger", None), now));
        assert!(suspensions.applies(&of("other", Some("listUsers")), now));
        assert!(!suspensions.applies(&of("other", Some("readUser")), now));
        // A name of one kind is none of another.
        assert!(!suspensions.applies(&of("listUsers", Some("ledger")), now));
        suspensions.resume(&Target::Caller("ledger".into()), now).unwrap();
        assert!(!suspensions.applies(&of("ledger", None), now));
        assert!(!added.has_changed().unwrap(), "nobody has to go");
        assert_eq!(suspensions.list(now)[0].target.to_string(), "operation listUsers");
    }

    fn address(network: &str) -> Target {
        Target::Address(network.into())
    }

    #[test]
    fn nothing_is_suspended_at_first() {
        assert!(!applies(&Suspensions::default(), "production", CALLER, Instant::now()));
    }

    #[test]
    fn an_environment_is_stopped_for_everybody_and_another_is_not() {
        let (suspensions, now) = (Suspensions::default(), Instant::now());
        suspensions.suspend(&environment("production"), None, now).unwrap();
        assert!(applies(&suspensions, "production", CALLER, now));
        assert!(applies(&suspensions, "production", None, now));
        assert!(!applies(&suspensions, "sandbox", CALLER, now));
        assert!(!applies(&suspensions, "Production", CALLER, now));
    }

    #[test]
    fn a_network_is_stopped_everywhere_and_its_neighbour_is_not() {
        let (suspensions, now) = (Suspensions::default(), Instant::now());
        suspensions.suspend(&address("10.20.1.0/29"), None, now).unwrap();
        assert!(applies(&suspensions, "production", CALLER, now));
        assert!(applies(&suspensions, "sandbox", Some("::ffff:10.20.1.7".parse().unwrap()), now));
        assert!(!applies(&suspensions, "production", Some("10.20.1.8".parse().unwrap()), now));
        assert!(!applies(&suspensions, "production", None, now), "a Unix socket's peer has no address");
    }

    #[test]
    fn a_suspension_ends_at_its_time() {
        let (suspensions, now) = (Suspensions::default(), Instant::now());
        let until = now + Duration::from_secs(60);
        suspensions.suspend(&environment("production"), Some(until), now).unwrap();
        assert!(applies(&suspensions, "production", CALLER, until - Duration::from_nanos(1)));
        assert!(!applies(&suspensions, "production", CALLER, until));
        assert_eq!(suspensions.list(until), []);
        assert_eq!(suspensions.list(now)[0].for_s, Some(60));
        assert_eq!(
            suspensions.resume(&environment("production"), until),
            Err(Error::NotSuspended(environment("production")))
        );
    }

    #[test]
    fn the_later_command_counts() {
        let (suspensions, now) = (Suspensions::default(), Instant::now());
        suspensions.suspend(&address("10.0.0.1"), Some(now + Duration::from_secs(1)), now).unwrap();
        suspensions.suspend(&address("10.0.0.1/32"), None, now).unwrap();
        assert_eq!(suspensions.list(now), [Suspension { target: address("10.0.0.1/32"), for_s: None }]);
    }

    #[test]
    fn resume_ends_exactly_one() {
        let (suspensions, now) = (Suspensions::default(), Instant::now());
        suspensions.suspend(&environment("production"), None, now).unwrap();
        suspensions.suspend(&address("10.0.0.0/8"), None, now).unwrap();
        let narrower = suspensions.resume(&address("10.20.0.0/16"), now);
        assert_eq!(narrower, Err(Error::NotSuspended(address("10.20.0.0/16"))));
        suspensions.resume(&address("10.0.0.0/8"), now).unwrap();
        assert!(!applies(&suspensions, "sandbox", CALLER, now));
        assert!(applies(&suspensions, "production", CALLER, now));
    }

    #[test]
    fn a_network_that_would_match_nobody_is_a_fault() {
        for text in ["10.0.0.0/33", "10.0.0", "", "example.com", "10.0.0.0/8/8"] {
            assert_eq!(network(text), Err(Error::NotANetwork(text.into())), "{text}");
        }
        assert!(matches!(network("10.1.2.3/8"), Err(Error::HostBits(..))));
        assert!(matches!(network("::ffff:10.0.0.0/104"), Err(Error::Mapped(_))));
        assert!(network("2001:db8::/32").is_ok());
    }

    #[test]
    fn there_is_a_bound_and_ended_ones_do_not_count() {
        let (suspensions, now) = (Suspensions::default(), Instant::now());
        let until = now + Duration::from_secs(1);
        for index in 0..ENTRIES_MAX {
            suspensions.suspend(&environment(&index.to_string()), Some(until), now).unwrap();
        }
        assert_eq!(suspensions.suspend(&environment("more"), None, now), Err(Error::TooMany));
        assert_eq!(suspensions.suspend(&environment("0"), None, now), Ok(()), "it replaces its own");
        assert_eq!(suspensions.suspend(&environment("more"), None, until), Ok(()));
        assert_eq!(suspensions.list(until).len(), 2);
    }
}
