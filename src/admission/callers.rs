//! Which configured caller somebody is.
//!
//! In: what is known about the other end. Out: the one caller all of whose criteria hold, found by a look-up whose
//! cost does not grow with the number of callers. The configuration's checks have made sure that there is at most one.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use super::{CallerIndex, Networks};
use crate::config;

/// What is known about who calls.
#[derive(Debug, Clone, Copy)]
pub(super) enum Evidence {
    /// The address that counts, in canonical form.
    Address(IpAddr),
    /// A Unix socket's peer.
    Unix { uid: u32, gid: u32 },
}

/// Every caller, found by what is known about it.
#[derive(Debug, Default)]
pub(crate) struct Callers {
    all: Vec<Criteria>,
    /// Those that are known by nothing but their networks.
    by_network: Ranges,
    by_uid: HashMap<u32, Vec<CallerIndex>>,
    /// Those that are known by their group alone.
    by_gid: HashMap<u32, Vec<CallerIndex>>,
}

/// What must hold for one caller.
#[derive(Debug)]
struct Criteria {
    name: Arc<str>,
    networks: Option<Networks>,
    unix_uids: Option<Vec<u32>>,
    unix_gids: Option<Vec<u32>>,
}

impl Callers {
    pub(crate) fn new(callers: &[config::Caller]) -> Self {
        let mut this = Self::default();
        let mut ranges = Vec::new();
        for caller in callers {
            let index = CallerIndex(u32::try_from(this.all.len()).unwrap_or(u32::MAX));
            match (&caller.unix_uids, &caller.unix_gids) {
                (Some(uids), _) => {
                    uids.iter().for_each(|uid| this.by_uid.entry(*uid).or_default().push(index))
                }
                (None, Some(gids)) => {
                    gids.iter().for_each(|gid| this.by_gid.entry(*gid).or_default().push(index));
                }
                (None, None) => {
                    ranges.extend(caller.networks.iter().flatten().map(|network| (*network, index)));
                }
            }
            this.all.push(Criteria {
                name: caller.name.as_str().into(),
                networks: caller.networks.as_deref().map(Networks::new),
                unix_uids: caller.unix_uids.clone(),
                unix_gids: caller.unix_gids.clone(),
            });
        }
        this.by_network = Ranges::new(ranges);
        this
    }

    /// One caller, who is at every address and every Unix socket's user.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn everybody() -> Self {
        let everywhere = ["0.0.0.0/0", "::/0"].iter().filter_map(|text| text.parse().ok());
        let everybody = CallerIndex(0);
        let nothing = Criteria { name: "everybody".into(), networks: None, unix_uids: None, unix_gids: None };
        Self {
            all: vec![nothing],
            by_network: Ranges::new(everywhere.map(|network| (network, everybody)).collect()),
            by_uid: HashMap::from([(0, vec![everybody])]),
            by_gid: HashMap::new(),
        }
    }

    /// The caller that all of `evidence` fits.
    pub(super) fn recognise(&self, evidence: Evidence) -> Option<CallerIndex> {
        match evidence {
            Evidence::Address(address) => self.by_network.find(address),
            Evidence::Unix { uid, gid } => {
                let listed =
                    |map: &HashMap<u32, Vec<CallerIndex>>, id| map.get(&id).cloned().unwrap_or_default();
                let mut candidates = listed(&self.by_uid, uid).into_iter().chain(listed(&self.by_gid, gid));
                candidates.find(|index| self.all.get(index.get()).is_some_and(|one| one.hold(evidence)))
            }
        }
    }

    /// A caller's name.
    pub(crate) fn name(&self, caller: CallerIndex) -> Option<&Arc<str>> {
        self.all.get(caller.get()).map(|one| &one.name)
    }
}

impl Criteria {
    fn hold(&self, evidence: Evidence) -> bool {
        let fits = |ids: &Option<Vec<u32>>, id| ids.as_ref().is_none_or(|ids| ids.contains(&id));
        match evidence {
            Evidence::Address(address) => {
                self.unix_uids.is_none()
                    && self.unix_gids.is_none()
                    && self.networks.as_ref().is_none_or(|networks| networks.contains(address))
            }
            Evidence::Unix { uid, gid } => {
                self.networks.is_none() && fits(&self.unix_uids, uid) && fits(&self.unix_gids, gid)
            }
        }
    }
}

/// Networks that do not overlap, each with its caller.
#[derive(Debug, Default)]
struct Ranges {
    /// First and last address, sorted.
    v4: Vec<(u32, u32, CallerIndex)>,
    v6: Vec<(u128, u128, CallerIndex)>,
}

impl Ranges {
    fn new(networks: Vec<(ipnet::IpNet, CallerIndex)>) -> Self {
        let mut this = Self::default();
        for (network, caller) in networks {
            match network {
                ipnet::IpNet::V4(net) => this.v4.push((net.network().into(), net.broadcast().into(), caller)),
                ipnet::IpNet::V6(net) => this.v6.push((net.network().into(), net.broadcast().into(), caller)),
            }
        }
        this.v4.sort_unstable();
        this.v6.sort_unstable();
        this
    }

    fn find(&self, address: IpAddr) -> Option<CallerIndex> {
        match address {
            IpAddr::V4(address) => within(&self.v4, address.into()),
            IpAddr::V6(address) => within(&self.v6, address.into()),
        }
    }
}

fn within<T: Ord + Copy>(ranges: &[(T, T, CallerIndex)], address: T) -> Option<CallerIndex> {
    let after = ranges.partition_point(|&(first, ..)| first <= address);
    let &(_, last, caller) = ranges.get(after.checked_sub(1)?)?;
    (address <= last).then_some(caller)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(name: &str) -> config::Caller {
        config::Caller {
            name: name.into(),
            networks: None,
            unix_uids: None,
            unix_gids: None,
            grant: std::collections::BTreeMap::new(),
            limits: config::limits::CallerLimits::default(),
            observe_until: None,
            users: None,
            users_file: None,
            end_user: None,
            mask_fields: Vec::new(),
        }
    }

    fn networks(name: &str, networks: &[&str]) -> config::Caller {
        let networks = networks.iter().map(|text| text.parse().unwrap()).collect();
        config::Caller { networks: Some(networks), ..caller(name) }
    }

    fn name(callers: &Callers, evidence: Evidence) -> Option<String> {
        callers.recognise(evidence).map(|index| callers.name(index).unwrap().to_string())
    }

    #[test]
    fn an_address_is_the_caller_whose_network_it_is_in() {
        let callers = Callers::new(&[
            networks("a", &["10.0.1.0/24", "2001:db8::/64"]),
            networks("b", &["10.0.2.0/24"]),
            config::Caller { unix_uids: Some(vec![10]), ..caller("c") },
        ]);
        let at = |address: &str| name(&callers, Evidence::Address(address.parse().unwrap()));
        assert_eq!(at("10.0.1.255").as_deref(), Some("a"));
        assert_eq!(at("2001:db8::9").as_deref(), Some("a"));
        assert_eq!(at("10.0.2.0").as_deref(), Some("b"));
        for nobody in ["10.0.0.255", "10.0.3.0", "::1", "2001:db8:0:1::"] {
            assert_eq!(at(nobody), None, "{nobody}");
        }
    }

    #[test]
    fn a_unix_peer_is_known_by_user_and_group_if_both_are_given() {
        let callers = Callers::new(&[
            config::Caller { unix_uids: Some(vec![10, 11]), unix_gids: Some(vec![20]), ..caller("both") },
            config::Caller { unix_uids: Some(vec![12]), ..caller("user") },
            config::Caller { unix_gids: Some(vec![30]), ..caller("group") },
            networks("all", &["0.0.0.0/0", "::/0"]),
        ]);
        let at = |uid, gid| name(&callers, Evidence::Unix { uid, gid });
        assert_eq!(at(11, 20).as_deref(), Some("both"));
        assert_eq!(at(11, 21), None);
        assert_eq!(at(12, 20).as_deref(), Some("user"));
        assert_eq!(at(13, 30).as_deref(), Some("group"));
        assert_eq!(at(13, 20), None);
    }
}
