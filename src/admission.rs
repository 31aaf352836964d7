//! Who calls: a request and its `Peer` become a `Caller`, or are refused.
//!
//! In: what the connection shows (address, Unix user, client certificate), a token that the request presents and,
//! from trusted proxies only, the header that names the caller's address.
//! Out: a `Caller`, which only this module can make: one that is configured, and all of whose criteria hold.
//! An empty `allow` lets nobody in, and so does having no callers.

pub(crate) mod callers;
pub mod reason;
pub(crate) mod token;

use std::{fmt, net::IpAddr, time::SystemTime};

use http::HeaderMap;
use ipnet::IpNet;

use self::{
    callers::{Callers, Evidence, Place},
    reason::Reason,
    token::Tokens,
};
use crate::{
    config::ForwardedHeader,
    listener::{forwarded, peer::Peer},
    refusal::Refusal,
};

/// Networks, ready for a look-up whose cost does not grow with their number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Networks {
    /// First and last address of each, sorted, disjoint.
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Networks {
    pub(crate) fn new(networks: &[IpNet]) -> Self {
        let mut this = Self::default();
        for network in IpNet::aggregate(&networks.to_vec()) {
            match network {
                IpNet::V4(net) => this.v4.push((net.network().into(), net.broadcast().into())),
                IpNet::V6(net) => this.v6.push((net.network().into(), net.broadcast().into())),
            }
        }
        this.v4.sort_unstable();
        this.v6.sort_unstable();
        this
    }

    /// Whether `address`, in canonical form, is in one of them.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => within(&self.v4, address.into()),
            IpAddr::V6(address) => within(&self.v6, address.into()),
        }
    }
}

fn within<T: Ord + Copy>(ranges: &[(T, T)], address: T) -> bool {
    let after = ranges.partition_point(|&(first, _)| first <= address);
    after.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|&(_, last)| address <= last)
}

/// Who may call at all, and whom we believe about it.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) allow: Networks,
    pub(crate) trusted_proxies: Networks,
    pub(crate) forwarded_header: ForwardedHeader,
    pub(crate) callers: Callers,
    pub(crate) tokens: Tokens,
}

/// A caller's place in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CallerIndex(u32);

impl CallerIndex {
    #[cfg(test)]
    pub(crate) fn of(index: u32) -> Self {
        Self(index)
    }

    /// Those of the configured callers, in their order.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..=u32::MAX).map(Self)
    }

    pub(crate) fn get(self) -> usize {
        self.0 as usize
    }
}

/// The service that asks, admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    index: CallerIndex,
    origin: Origin,
}

/// Where a caller is, for records and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Origin {
    /// The address that counted.
    Address(IpAddr),
    /// A Unix socket's peer.
    Unix { uid: u32 },
}

impl Caller {
    /// Which of the configured callers it is.
    pub(crate) fn index(self) -> CallerIndex {
        self.index
    }

    pub(crate) fn origin(self) -> Origin {
        self.origin
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Unix { uid } => write!(f, "unix:uid={uid}"),
        }
    }
}

/// Nobody who may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotAdmitted {
    pub(crate) reason: Reason,
    /// Where it is, for records and logs.
    pub(crate) origin: Origin,
}

impl NotAdmitted {
    /// One for all: whoever may not call learns nothing about why.
    pub(crate) fn refusal(self) -> Refusal {
        Refusal::CallerNotAllowed
    }
}

impl Admission {
    /// Lets the request in, or says no. `target` is its path and query.
    pub(crate) fn admit(
        &self,
        peer: &Peer,
        headers: &HeaderMap,
        target: &str,
    ) -> Result<Caller, NotAdmitted> {
        let origin = self.origin(peer, headers)?;
        let not = |reason| NotAdmitted { reason, origin };
        let token = self.tokens.caller(headers, target).map_err(not)?;
        let names = match peer {
            Peer::Certified(_, names) if !names.valid_at(SystemTime::now()) => {
                return Err(not(Reason::Certificate));
            }
            Peer::Certified(_, names) => &names.all,
            Peer::Tcp(_) | Peer::Unix { .. } => &[][..],
        };
        let place = match *peer {
            Peer::Unix { uid, gid, .. } => Place::Unix { uid, gid },
            Peer::Tcp(_) | Peer::Certified(..) => match origin {
                Origin::Address(address) => Place::Address(address),
                Origin::Unix { .. } => return Err(not(Reason::Unknown)),
            },
        };
        let index = self.callers.recognise(&Evidence { place, names, token }).map_err(not)?;
        Ok(Caller { index, origin })
    }

    /// Whether a trusted proxy is at the other end of the socket.
    pub(crate) fn trusts(&self, peer: &Peer) -> bool {
        peer.address().is_some_and(|address| self.trusted_proxies.contains(address.ip().to_canonical()))
    }

    /// Where the caller is, if it is somewhere that may call.
    fn origin(&self, peer: &Peer, headers: &HeaderMap) -> Result<Origin, NotAdmitted> {
        let socket = match *peer {
            Peer::Unix { uid, .. } => return Ok(Origin::Unix { uid }),
            Peer::Tcp(address) | Peer::Certified(address, _) => address.ip().to_canonical(),
        };
        let refused = |address| NotAdmitted { reason: Reason::Network, origin: Origin::Address(address) };
        let address = if self.trusted_proxies.contains(socket) {
            forwarded::caller(
                socket,
                headers,
                |address| self.trusted_proxies.contains(address),
                self.forwarded_header,
            )
            .map_err(|_| refused(socket))?
        } else {
            socket
        };
        if self.allow.contains(address) { Ok(Origin::Address(address)) } else { Err(refused(address)) }
    }
}

#[cfg(test)]
mod tests {
    use std::{rc::Rc, time::Duration};

    use super::*;
    use crate::listener::names::Names;

    fn networks(texts: &[&str]) -> Networks {
        Networks::new(&texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpNet>>())
    }

    fn admission(allow: &[&str], trusted: &[&str]) -> Admission {
        Admission {
            allow: networks(allow),
            trusted_proxies: networks(trusted),
            forwarded_header: ForwardedHeader::XForwardedFor,
            callers: Callers::everybody(),
            tokens: Tokens::default(),
        }
    }

    fn decide(admission: &Admission, socket: &str, forwarded: Option<&str>) -> Result<String, String> {
        let mut headers = HeaderMap::new();
        if let Some(value) = forwarded {
            headers.insert("x-forwarded-for", value.parse().unwrap());
        }
        match admission.admit(&Peer::Tcp(socket.parse().unwrap()), &headers, "/") {
            Ok(caller) => Ok(caller.origin().to_string()),
            Err(not) => Err(format!("{} {}", not.reason.code(), not.origin)),
        }
    }

    #[test]
    fn only_allowed_networks_are_let_in() {
        let admission = admission(&["10.1.0.0/16", "10.3.0.0/16", "2001:db8::/32"], &[]);
        assert_eq!(decide(&admission, "10.1.255.255:1", None), Ok("10.1.255.255".into()));
        assert_eq!(decide(&admission, "[2001:db8::1]:1", None), Ok("2001:db8::1".into()));
        for outside in ["10.2.0.0:1", "10.0.255.255:1", "10.4.0.0:1", "[2001:db9::]:1", "[::1]:1"] {
            assert!(decide(&admission, outside, None).is_err(), "{outside}");
        }
    }

    #[test]
    fn a_certificate_that_has_ended_since_is_none() {
        let admission = admission(&["10.0.0.0/8"], &[]);
        let (address, now) = ("10.0.0.1:1".parse().unwrap(), SystemTime::now());
        let admitted = |until: SystemTime| {
            let names = Rc::new(Names::for_test(&["dns:a"], until));
            admission
                .admit(&Peer::Certified(address, names), &HeaderMap::new(), "/")
                .map_err(|not| not.reason)
        };
        assert!(admitted(now + Duration::from_secs(60)).is_ok());
        assert_eq!(admitted(now - Duration::from_secs(1)), Err(Reason::Certificate));
    }

    #[test]
    fn an_empty_list_lets_nobody_in() {
        assert!(decide(&admission(&[], &[]), "127.0.0.1:1", None).is_err());
    }

    #[test]
    fn mapped_addresses_are_compared_in_canonical_form() {
        let admission = admission(&["10.0.0.0/8"], &[]);
        assert_eq!(decide(&admission, "[::ffff:10.1.2.3]:1", None), Ok("10.1.2.3".into()));
        assert!(decide(&admission, "[::ffff:11.1.2.3]:1", None).is_err());
    }

    #[test]
    fn a_forwarded_address_counts_only_from_a_trusted_proxy() {
        let admission = admission(&["10.0.0.0/8"], &["192.0.2.0/24"]);
        assert_eq!(decide(&admission, "192.0.2.1:1", Some("10.9.9.9")), Ok("10.9.9.9".into()));
        assert_eq!(decide(&admission, "192.0.2.1:1", Some("203.0.113.9")), Err("network 203.0.113.9".into()));
        assert_eq!(
            decide(&admission, "198.51.100.1:1", Some("10.9.9.9")),
            Err("network 198.51.100.1".into())
        );
        assert_eq!(decide(&admission, "10.1.1.1:1", Some("203.0.113.9")), Ok("10.1.1.1".into()));
    }
}
