//! Which configured caller somebody is.
//!
//! In: what is known about the other end. Out: the one caller all of whose criteria hold, found by a look-up whose
//! cost does not grow with the number of callers. Whoever presents a token, or a certificate that names a caller, is
//! that caller or nobody; only without either does the place decide. The configuration's checks have made sure that
//! there is at most one, but for a certificate with the names of two: that is nobody.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::{CallerIndex, Networks, Reason};
use crate::config;

/// What is known about who calls.
#[derive(Debug, Clone, Copy)]
pub(super) struct Evidence<'e> {
    pub(super) place: Place,
    /// The names in its verified client certificate.
    pub(super) names: &'e [Box<str>],
    /// Whose token it has presented.
    pub(super) token: Option<CallerIndex>,
}

/// Where somebody is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    /// The address that counts, in canonical form.
    Address(IpAddr),
    /// At the other end of a Unix socket.
    Unix { uid: u32, gid: u32 },
}

/// Every caller, found by what is known about it.
#[derive(Debug, Default)]
pub(crate) struct Callers {
    all: Vec<Criteria>,
    /// Those that are known by nothing but their networks.
    by_network: Ranges,
    by_uid: HashMap<u32, Vec<CallerIndex>>,
    /// Those that give a group and no user.
    by_gid: HashMap<u32, Vec<CallerIndex>>,
    by_tls_name: HashMap<Box<str>, Vec<CallerIndex>>,
    /// Those that are known by a token.
    by_name: HashMap<Arc<str>, CallerIndex>,
}

/// What must hold for one caller.
#[derive(Debug)]
struct Criteria {
    name: Arc<str>,
    networks: Option<Networks>,
    unix_uids: Option<Vec<u32>>,
    unix_gids: Option<Vec<u32>>,
    tls_names: Option<Vec<String>>,
    token: bool,
}

impl Callers {
    pub(crate) fn new(callers: &[config::Caller]) -> Self {
        let mut this = Self::default();
        let mut ranges = Vec::new();
        for caller in callers {
            let index = CallerIndex(u32::try_from(this.all.len()).unwrap_or(u32::MAX));
            let name: Arc<str> = caller.name.as_str().into();
            if caller.token {
                this.by_name.insert(name.clone(), index);
            }
            for tls_name in caller.tls_names.iter().flatten() {
                this.by_tls_name.entry(tls_name.as_str().into()).or_default().push(index);
            }
            match (&caller.unix_uids, &caller.unix_gids) {
                (Some(uids), _) => {
                    uids.iter().for_each(|uid| this.by_uid.entry(*uid).or_default().push(index));
                }
                (None, Some(gids)) => {
                    gids.iter().for_each(|gid| this.by_gid.entry(*gid).or_default().push(index));
                }
                (None, None) if caller.tls_names.is_none() && !caller.token => {
                    // One inside another would hide what comes after it.
                    let networks = IpNet::aggregate(&caller.networks.clone().unwrap_or_default());
                    ranges.extend(networks.into_iter().map(|network| (network, index)));
                }
                (None, None) => {}
            }
            this.all.push(Criteria {
                name,
                networks: caller.networks.as_deref().map(Networks::new),
                unix_uids: caller.unix_uids.clone(),
                unix_gids: caller.unix_gids.clone(),
                tls_names: caller.tls_names.clone(),
                token: caller.token,
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
        let nothing = Criteria {
            name: "everybody".into(),
            networks: None,
            unix_uids: None,
            unix_gids: None,
            tls_names: None,
            token: false,
        };
        Self {
            all: vec![nothing],
            by_network: Ranges::new(everywhere.map(|network| (network, everybody)).collect()),
            by_uid: HashMap::from([(0, vec![everybody])]),
            ..Self::default()
        }
    }

    /// The caller that all of `evidence` fits.
    pub(super) fn recognise(&self, evidence: &Evidence<'_>) -> Result<CallerIndex, Reason> {
        let holds =
            |index: CallerIndex| self.all.get(index.get()).is_some_and(|one| one.hold(index, evidence));
        if let Some(index) = evidence.token {
            let is_anothers =
                |name: &str| self.by_tls_name.get(name).is_some_and(|all| !all.contains(&index));
            let shows_another = evidence.names.iter().any(|name| is_anothers(name));
            return if holds(index) && !shows_another { Ok(index) } else { Err(Reason::Criterion) };
        }
        if !evidence.names.is_empty()
            && let Some(decided) = self.by_certificate(evidence, holds)
        {
            return decided;
        }
        let found = match evidence.place {
            Place::Address(address) => self.by_network.find(address),
            Place::Unix { uid, gid } => {
                let mut candidates = listed(&self.by_uid, uid).chain(listed(&self.by_gid, gid));
                candidates.find(|index| holds(*index))
            }
        };
        found.ok_or(Reason::Unknown)
    }

    /// `None` when the certificate has no name of a caller's.
    fn by_certificate(
        &self,
        evidence: &Evidence<'_>,
        holds: impl Fn(CallerIndex) -> bool,
    ) -> Option<Result<CallerIndex, Reason>> {
        let mut named =
            evidence.names.iter().filter_map(|name| self.by_tls_name.get(name)).flatten().peekable();
        named.peek()?;
        let mut fitting = named.copied().filter(|index| holds(*index));
        let Some(first) = fitting.next() else { return Some(Err(Reason::Criterion)) };
        Some(if fitting.all(|other| other == first) { Ok(first) } else { Err(Reason::Certificate) })
    }

    /// A caller's name.
    pub(crate) fn name(&self, caller: CallerIndex) -> Option<&Arc<str>> {
        self.all.get(caller.get()).map(|one| &one.name)
    }

    /// A caller that is known by tokens.
    pub(crate) fn with_token(&self, name: &str) -> Option<CallerIndex> {
        self.by_name.get(name).copied()
    }
}

fn listed(map: &HashMap<u32, Vec<CallerIndex>>, id: u32) -> impl Iterator<Item = CallerIndex> {
    map.get(&id).into_iter().flatten().copied()
}

impl Criteria {
    /// Whether everything that is asked of this caller, who is at `own`, is so.
    fn hold(&self, own: CallerIndex, evidence: &Evidence<'_>) -> bool {
        let fits = |ids: &Option<Vec<u32>>, id| ids.as_ref().is_none_or(|ids| ids.contains(&id));
        let in_place = match evidence.place {
            Place::Address(address) => {
                self.unix_uids.is_none()
                    && self.unix_gids.is_none()
                    && self.networks.as_ref().is_none_or(|networks| networks.contains(address))
            }
            Place::Unix { uid, gid } => {
                self.networks.is_none() && fits(&self.unix_uids, uid) && fits(&self.unix_gids, gid)
            }
        };
        let named = |names: &Vec<String>| {
            evidence.names.iter().any(|shown| names.iter().any(|name| **name == **shown))
        };
        in_place && self.tls_names.as_ref().is_none_or(named) && (!self.token || evidence.token == Some(own))
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
            tls_names: None,
            token: false,
            grant: std::collections::BTreeMap::new(),
            connections: None,
            limits: config::limits::CallerLimits::default(),
            users: None,
            users_file: None,
            end_user: None,
            mask_fields: Vec::new(),
            observe_until: None,
        }
    }

    fn networks(name: &str, networks: &[&str]) -> config::Caller {
        let networks = networks.iter().map(|text| text.parse().unwrap()).collect();
        config::Caller { networks: Some(networks), ..caller(name) }
    }

    fn name(callers: &Callers, place: Place, names: &[&str], token: Option<&str>) -> Result<String, Reason> {
        let names: Vec<Box<str>> = names.iter().map(|name| (*name).into()).collect();
        let token = token.map(|name| callers.with_token(name).unwrap());
        let index = callers.recognise(&Evidence { place, names: &names, token })?;
        Ok(callers.name(index).unwrap().to_string())
    }

    #[test]
    fn an_address_is_the_caller_whose_network_it_is_in() {
        let callers = Callers::new(&[
            networks("a", &["10.0.1.0/24", "2001:db8::/64"]),
            networks("b", &["10.0.2.0/24"]),
            config::Caller { unix_uids: Some(vec![10]), ..caller("c") },
        ]);
        let at = |address: &str| name(&callers, Place::Address(address.parse().unwrap()), &[], None);
        assert_eq!(at("10.0.1.255").as_deref(), Ok("a"));
        assert_eq!(at("2001:db8::9").as_deref(), Ok("a"));
        assert_eq!(at("10.0.2.0").as_deref(), Ok("b"));
        for nobody in ["10.0.0.255", "10.0.3.0", "::1", "2001:db8:0:1::"] {
            assert_eq!(at(nobody), Err(Reason::Unknown), "{nobody}");
        }
    }

    #[test]
    fn a_unix_peer_is_known_by_user_and_group_if_both_are_given() {
        let callers = Callers::new(&[
            config::Caller { unix_uids: Some(vec![10, 11]), unix_gids: Some(vec![20]), ..caller("both") },
            config::Caller { unix_uids: Some(vec![12]), ..caller("user") },
            config::Caller { unix_gids: Some(vec![30]), ..caller("group") },
            config::Caller { unix_uids: Some(vec![14]), token: true, ..caller("token") },
            networks("all", &["0.0.0.0/0", "::/0"]),
        ]);
        let at = |uid, gid| name(&callers, Place::Unix { uid, gid }, &[], None);
        assert_eq!(at(11, 20).as_deref(), Ok("both"));
        assert_eq!(at(11, 21), Err(Reason::Unknown));
        assert_eq!(at(12, 20).as_deref(), Ok("user"));
        assert_eq!(at(13, 30).as_deref(), Ok("group"));
        assert_eq!(at(13, 20), Err(Reason::Unknown));
        assert_eq!(at(14, 20), Err(Reason::Unknown), "without its token");
        let with_token = |uid| name(&callers, Place::Unix { uid, gid: 20 }, &[], Some("token"));
        assert_eq!(with_token(14).as_deref(), Ok("token"));
        assert_eq!(with_token(12), Err(Reason::Criterion), "a user of another caller");
    }

    #[test]
    fn a_network_inside_another_of_the_same_caller_hides_nothing() {
        let callers = Callers::new(&[networks("one", &["10.0.0.0/8", "10.1.0.0/16"])]);
        let at = |address: &str| name(&callers, Place::Address(address.parse().unwrap()), &[], None);
        assert_eq!(at("10.1.0.1").as_deref(), Ok("one"));
        assert_eq!(at("10.2.0.1").as_deref(), Ok("one"));
        assert!(at("11.0.0.1").is_err());
    }

    #[test]
    fn a_token_or_a_certificate_goes_before_the_network_and_never_falls_back_to_it() {
        let tls = |name, names: &[&str]| config::Caller {
            tls_names: Some(names.iter().map(|name| (*name).to_owned()).collect()),
            ..caller(name)
        };
        let callers = Callers::new(&[
            networks("network", &["10.0.0.0/8"]),
            config::Caller { token: true, ..networks("token", &["10.1.0.0/16"]) },
            config::Caller {
                networks: networks("", &["10.2.0.0/16"]).networks,
                ..tls("certificate", &["dns:a"])
            },
            config::Caller {
                networks: networks("", &["10.2.0.0/16"]).networks,
                ..tls("other", &["dns:b", "dns:c"])
            },
            config::Caller { token: true, ..tls("both", &["dns:a"]) },
        ]);
        let at = |address: &str, names: &[&str], token| {
            name(&callers, Place::Address(address.parse().unwrap()), names, token)
        };
        assert_eq!(at("10.1.0.1", &[], None).as_deref(), Ok("network"));
        assert_eq!(at("10.1.0.1", &[], Some("token")).as_deref(), Ok("token"));
        assert_eq!(at("10.3.0.1", &[], Some("token")), Err(Reason::Criterion), "elsewhere");
        assert_eq!(
            at("10.1.0.1", &["dns:b"], Some("token")),
            Err(Reason::Criterion),
            "another's certificate"
        );
        assert_eq!(at("10.1.0.1", &["dns:x"], Some("token")).as_deref(), Ok("token"));
        assert_eq!(at("10.2.0.1", &["dns:x", "dns:a"], None).as_deref(), Ok("certificate"));
        assert_eq!(at("10.2.0.1", &["dns:b", "dns:c"], None).as_deref(), Ok("other"));
        assert_eq!(at("10.3.0.1", &["dns:a"], None), Err(Reason::Criterion), "elsewhere");
        assert_eq!(at("10.2.0.1", &["dns:a", "dns:b"], None), Err(Reason::Certificate), "two callers' names");
        // A certificate that nobody lists says nothing.
        assert_eq!(at("10.2.0.1", &["dns:x"], None).as_deref(), Ok("network"));
        assert_eq!(at("11.0.0.1", &["dns:a"], Some("both")).as_deref(), Ok("both"));
        assert_eq!(at("11.0.0.1", &["dns:b"], Some("both")), Err(Reason::Criterion));
        assert_eq!(at("11.0.0.1", &[], None), Err(Reason::Unknown));
    }
}
