//! Which callers could be taken for each other.
//!
//! In: how each caller is known. Out: pairs of whom one request could be from either. Two callers may not overlap
//! unless both give one kind of criterion, in which they have nothing in common. Two kinds need no look: a token
//! belongs to one caller, and a Unix socket's peer has neither an address nor a certificate. A caller that is known
//! by a token or a certificate goes before one that is known by its network alone, so these may overlap.
//!
//! Ten thousand callers are usual, so nothing here compares all with all: networks are swept in order, the rest is
//! looked up. Of two that overlap at least one is named, with one other, however many there are.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ipnet::IpNet;

/// How one caller is known.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    pub(super) networks: Option<Vec<IpNet>>,
    pub(super) uids: Option<Vec<u32>>,
    pub(super) gids: Option<Vec<u32>>,
    pub(super) names: Option<Vec<String>>,
    pub(super) token: bool,
}

impl Known {
    fn on_unix(&self) -> bool {
        self.uids.is_some() || self.gids.is_some()
    }

    fn by_network_alone(&self) -> bool {
        self.networks.is_some() && self.names.is_none() && !self.token
    }

    fn colour(&self) -> Colour {
        if self.token { Colour::Token } else { Colour::Plain }
    }
}

/// Pairs of callers, by their places: the later one first, each once.
pub(super) fn overlaps(callers: &[Known]) -> BTreeSet<(usize, usize)> {
    let mut found = Found::default();
    let of = |is: fn(&Known) -> bool| callers.iter().enumerate().filter(move |(_, one)| is(one));

    sweep(of(Known::by_network_alone), Rule::UnlessBothToken, &mut found);
    let mut by_name: BTreeMap<&str, Vec<(usize, &Known)>> = BTreeMap::new();
    for (index, one) in of(|one| one.names.is_some()) {
        for name in one.names.iter().flatten() {
            by_name.entry(name).or_default().push((index, one));
        }
    }
    for same in by_name.into_values().filter(|same| same.len() > 1) {
        sweep(same.into_iter(), Rule::UnlessBothToken, &mut found);
    }
    // A certificate and a token have nothing to be compared by.
    let certificate_or_token = |one: &Known| !one.on_unix() && (one.names.is_some() != one.token);
    sweep(of(certificate_or_token), Rule::OneOfEach, &mut found);
    unix(of(Known::on_unix), &mut found);
    // A token alone may come from a Unix socket too.
    let token_alone =
        |one: &Known| one.token && one.networks.is_none() && one.names.is_none() && !one.on_unix();
    if let Some((other, _)) = of(token_alone).next() {
        of(|one| one.on_unix() && !one.token).for_each(|(index, _)| found.add(index, other));
    }
    found.0.into_iter().map(|(one, other)| (one.max(other), one.min(other))).collect()
}

/// One other for each caller that met one that was there before.
#[derive(Default)]
struct Found(BTreeMap<usize, usize>);

impl Found {
    fn add(&mut self, one: usize, other: usize) {
        if one != other {
            self.0.entry(one).or_insert(other);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Colour {
    Plain,
    Token,
}

const COLOURS: [Colour; 2] = [Colour::Plain, Colour::Token];

/// Which of two callers in one network overlap.
#[derive(Debug, Clone, Copy)]
enum Rule {
    /// All but two that are known by tokens.
    UnlessBothToken,
    /// One with a token and one without.
    OneOfEach,
}

impl Rule {
    fn joins(self, one: Colour, other: Colour) -> bool {
        match self {
            Self::UnlessBothToken => one == Colour::Plain || other == Colour::Plain,
            Self::OneOfEach => one != other,
        }
    }
}

/// Finds callers whose networks have an address in common; one without networks is everywhere.
fn sweep<'k>(callers: impl Iterator<Item = (usize, &'k Known)>, rule: Rule, found: &mut Found) {
    let mut ranges = Vec::new();
    for (index, one) in callers {
        let everywhere = || ["0.0.0.0/0", "::/0"].iter().filter_map(|text| text.parse().ok()).collect();
        // Without a network inside another of the same caller.
        let networks = one.networks.as_ref().map_or_else(everywhere, IpNet::aggregate);
        ranges.extend(networks.iter().map(|network| Range::of(network, index, one.colour())));
    }
    // What begins first comes first, and of these the widest: networks nest or are apart.
    ranges
        .sort_unstable_by_key(|range| (range.is_v6, range.first, std::cmp::Reverse(range.last), range.index));
    let mut open: [Vec<Range>; 2] = Default::default();
    for range in ranges {
        for stack in &mut open {
            while stack.pop_if(|outer| !outer.reaches(&range)).is_some() {}
        }
        for (colour, stack) in COLOURS.into_iter().zip(&open) {
            if let Some(outer) = stack.last()
                && rule.joins(range.colour, colour)
            {
                found.add(range.index, outer.index);
            }
        }
        // Of several that are the same, one stands for all.
        let stack = &mut open[range.colour as usize];
        if stack.last().is_none_or(|outer| (outer.first, outer.last) != (range.first, range.last)) {
            stack.push(range);
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Range {
    is_v6: bool,
    first: u128,
    last: u128,
    index: usize,
    colour: Colour,
}

impl Range {
    fn of(network: &IpNet, index: usize, colour: Colour) -> Self {
        let (first, last, is_v6) = match network {
            IpNet::V4(net) => (u32::from(net.network()).into(), u32::from(net.broadcast()).into(), false),
            IpNet::V6(net) => (net.network().into(), net.broadcast().into(), true),
        };
        Self { is_v6, first, last, index, colour }
    }

    fn reaches(&self, later: &Self) -> bool {
        self.is_v6 == later.is_v6 && later.first <= self.last
    }
}

/// Users and groups of Unix sockets.
fn unix<'k>(callers: impl Iterator<Item = (usize, &'k Known)>, found: &mut Found) {
    /// What is compared.
    #[derive(PartialEq, Eq, Hash)]
    enum Key {
        Uid(u32),
        Gid(u32),
        Both(u32, u32),
    }
    /// Who has a key: the first of each form and colour.
    #[derive(Default)]
    struct Who([[Option<usize>; 2]; 2]);
    impl Who {
        /// Form 0 has no other criterion here and meets both forms; form 1 has one and meets form 0 only.
        fn meet(&mut self, index: usize, form: usize, colour: Colour, found: &mut Found) {
            let forms: &[usize] = if form == 0 { &[0, 1] } else { &[0] };
            for other in forms {
                for other_colour in COLOURS {
                    if Rule::UnlessBothToken.joins(colour, other_colour)
                        && let Some(other) = self.0[*other][other_colour as usize]
                    {
                        found.add(index, other);
                    }
                }
            }
            self.0[form][colour as usize].get_or_insert(index);
        }
    }

    let mut who: HashMap<Key, Who> = HashMap::new();
    // Callers with users alone and with groups alone: these always meet.
    let mut alone: [[Option<usize>; 2]; 2] = Default::default();
    let mut meet = |key, index, form, colour, found: &mut Found| {
        who.entry(key).or_default().meet(index, form, colour, found);
    };
    for (index, one) in callers {
        let colour = one.colour();
        match (&one.uids, &one.gids) {
            (Some(uids), Some(gids)) => {
                uids.iter().for_each(|uid| meet(Key::Uid(*uid), index, 1, colour, found));
                gids.iter().for_each(|gid| meet(Key::Gid(*gid), index, 1, colour, found));
                for uid in uids {
                    gids.iter().for_each(|gid| meet(Key::Both(*uid, *gid), index, 0, colour, found));
                }
            }
            (Some(uids), None) => {
                uids.iter().for_each(|uid| meet(Key::Uid(*uid), index, 0, colour, found));
            }
            (None, Some(gids)) => {
                gids.iter().for_each(|gid| meet(Key::Gid(*gid), index, 0, colour, found));
            }
            (None, None) => {}
        }
        if one.uids.is_some() != one.gids.is_some() {
            let kind = usize::from(one.gids.is_some());
            for other_colour in COLOURS {
                if Rule::UnlessBothToken.joins(colour, other_colour)
                    && let Some(other) = alone[1 - kind][other_colour as usize]
                {
                    found.add(index, other);
                }
            }
            alone[kind][colour as usize].get_or_insert(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn known() -> Known {
        Known::default()
    }

    fn networks(texts: &[&str]) -> Option<Vec<IpNet>> {
        Some(texts.iter().map(|text| text.parse().unwrap()).collect())
    }

    fn names(names: &[&str]) -> Option<Vec<String>> {
        Some(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[track_caller]
    fn pair(one: &Known, other: &Known, overlap: bool) {
        let expected = BTreeSet::from_iter(overlap.then_some((1, 0)));
        assert_eq!(overlaps(&[one.clone(), other.clone()]), expected);
        assert_eq!(overlaps(&[other.clone(), one.clone()]), expected);
        assert_eq!(overlap, slow(one, other));
    }

    #[test]
    fn networks_overlap_when_an_address_is_in_both() {
        let at = |text: &str| Known { networks: networks(&[text]), ..known() };
        pair(&at("10.0.0.0/8"), &at("10.1.0.0/16"), true);
        pair(&at("10.0.0.0/16"), &at("10.1.0.0/16"), false);
        pair(&at("10.0.0.0/8"), &at("::/0"), false);
        pair(&at("::/0"), &at("2001:db8::1/128"), true);
        let own = Known { networks: networks(&["10.0.0.0/8", "10.1.0.0/16"]), ..known() };
        assert_eq!(overlaps(&[own]), BTreeSet::new());
    }

    #[test]
    fn a_token_or_a_certificate_goes_before_a_network_alone() {
        let network = Known { networks: networks(&["10.0.0.0/8"]), ..known() };
        let token = Known { token: true, ..known() };
        let certificate = Known { names: names(&["dns:a"]), ..known() };
        pair(&network, &token, false);
        pair(&network, &certificate, false);
        // But not before each other, unless something keeps them apart.
        pair(&token, &certificate, true);
        let there = Known { networks: networks(&["10.0.0.0/8"]), ..token.clone() };
        pair(&there, &Known { networks: networks(&["10.0.0.0/9"]), ..certificate.clone() }, true);
        pair(&there, &Known { networks: networks(&["11.0.0.0/8"]), ..certificate.clone() }, false);
        pair(&token, &Known { token: true, ..certificate.clone() }, false);
        pair(&certificate, &Known { token: true, ..certificate.clone() }, true);
        pair(&certificate, &Known { names: names(&["dns:b"]), ..known() }, false);
        pair(&certificate, &Known { names: names(&["dns:b", "dns:a"]), ..known() }, true);
    }

    #[test]
    fn a_unix_peer_has_no_address_and_may_have_a_token() {
        let uid = |uid| Known { uids: Some(vec![uid]), ..known() };
        let gid = |gid| Known { gids: Some(vec![gid]), ..known() };
        let both = |one, other| Known { uids: Some(vec![one]), gids: Some(vec![other]), ..known() };
        pair(&uid(1), &uid(2), false);
        pair(&uid(1), &uid(1), true);
        pair(&uid(1), &gid(1), true);
        pair(&uid(1), &both(1, 2), true);
        pair(&uid(1), &both(2, 2), false);
        pair(&gid(2), &both(1, 2), true);
        pair(&both(1, 2), &both(1, 3), false);
        pair(&both(1, 2), &both(1, 2), true);
        pair(&uid(1), &Known { networks: networks(&["0.0.0.0/0"]), ..known() }, false);
        pair(&uid(1), &Known { names: names(&["dns:a"]), ..known() }, false);
        let token = Known { token: true, ..known() };
        pair(&uid(1), &token, true);
        pair(&uid(1), &Known { networks: networks(&["10.0.0.0/8"]), ..token.clone() }, false);
        pair(&uid(1), &Known { token: true, ..uid(1) }, true);
        pair(&Known { token: true, ..uid(1) }, &token, false);
    }

    /// The rule as it is written, for two.
    fn slow(one: &Known, other: &Known) -> bool {
        fn apart<T: PartialEq>(one: &Option<Vec<T>>, other: &Option<Vec<T>>) -> bool {
            matches!((one, other), (Some(one), Some(other)) if !one.iter().any(|item| other.contains(item)))
        }
        let meet = |one: &IpNet, other: &IpNet| one.contains(other) || other.contains(one);
        let networks_apart = matches!((&one.networks, &other.networks), (Some(one), Some(other))
            if !one.iter().any(|a| other.iter().any(|b| meet(a, b))));
        let has_network_things = |one: &Known| one.networks.is_some() || one.names.is_some();
        let unix_and_not = |one: &Known, other: &Known| one.on_unix() && has_network_things(other);
        let stronger = |one: &Known, other: &Known| {
            (one.token || one.names.is_some()) && !one.on_unix() && other.by_network_alone()
        };
        !(networks_apart
            || apart(&one.uids, &other.uids)
            || apart(&one.gids, &other.gids)
            || apart(&one.names, &other.names)
            || (one.token && other.token)
            || unix_and_not(one, other)
            || unix_and_not(other, one)
            || stronger(one, other)
            || stronger(other, one))
    }

    fn one() -> impl Strategy<Value = Known> {
        let network = (0u32..4, 6u8..=10).prop_map(|(bits, len)| {
            IpNet::from(ipnet::Ipv4Net::new((bits << 22).into(), len).unwrap()).trunc()
        });
        let some = |ids: std::ops::Range<u32>| proptest::option::of(proptest::collection::vec(ids, 1..3));
        let tcp = (
            proptest::option::of(proptest::collection::vec(network, 1..3)),
            proptest::option::of(proptest::collection::vec("[a-c]", 1..3)),
            any::<bool>(),
        );
        let tcp = tcp.prop_map(|(networks, names, token)| Known { networks, names, token, ..known() });
        let unix = (some(0..4), some(0..4), any::<bool>());
        let unix = unix.prop_map(|(uids, gids, token)| Known { uids, gids, token, ..known() });
        let is_known =
            |one: &Known| one.on_unix() || one.networks.is_some() || one.names.is_some() || one.token;
        prop_oneof![tcp, unix].prop_filter("known by something", is_known)
    }

    proptest! {
        /// Of two that overlap at least one is named, and nobody who overlaps with nobody.
        #[test]
        fn the_sweep_finds_what_comparing_all_with_all_finds(callers in proptest::collection::vec(one(), 0..7)) {
            let found = overlaps(&callers);
            for (one, other) in &found {
                prop_assert!(slow(&callers[*one], &callers[*other]), "{one} {other}");
            }
            let is_named = |index| found.iter().any(|(one, other)| *one == index || *other == index);
            for (index, one) in callers.iter().enumerate() {
                for (before, other) in callers.iter().enumerate().take(index) {
                    prop_assert!(!slow(one, other) || is_named(index) || is_named(before), "{before} {index} of {found:?}");
                }
            }
        }
    }

    #[test]
    fn ten_thousand_callers_are_compared_at_once() {
        let caller = |n: u32| {
            let network: IpNet = ipnet::Ipv4Net::new((n << 8).into(), 24).unwrap().into();
            match n % 4 {
                0 => Known { networks: Some(vec![network]), ..known() },
                1 => {
                    Known { names: Some(vec![format!("dns:n{n}")]), networks: Some(vec![network]), ..known() }
                }
                2 => Known { token: true, networks: networks(&["128.0.0.0/1"]), ..known() },
                _ => Known { uids: Some(vec![n]), ..known() },
            }
        };
        let mut callers: Vec<_> = (0..10_000).map(caller).collect();
        let begin = std::time::Instant::now();
        assert_eq!(overlaps(&callers), BTreeSet::new());
        // The worst: all overlap.
        callers.iter_mut().for_each(|one| *one = Known { networks: networks(&["10.0.0.0/8"]), ..known() });
        assert_eq!(overlaps(&callers).len(), 9_999);
        assert!(begin.elapsed() < std::time::Duration::from_secs(5), "{:?}", begin.elapsed());
    }
}
