//! Which addresses of a name may be dialled.
//!
//! Whoever answers for a name chooses its addresses, at every look-up anew, so it is the resolved address that is
//! judged, each time that it is dialled. What must never happen: a name leads inside, where nobody named it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::config::Reach;

impl Reach {
    /// Whether `address` may be dialled.
    pub(crate) fn allows(self, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::Loopback => address.to_canonical().is_loopback(),
            Self::Public => is_public(address),
        }
    }
}

/// Networks of IPv4 that are not of the public internet, or where no host is: IANA's registry of special-purpose
/// addresses, multicast, and what is reserved.
const SPECIAL_V4: [Ipv4Net; 15] = [
    v4([0, 0, 0, 0], 8),       // this network
    v4([10, 0, 0, 0], 8),      // private
    v4([100, 64, 0, 0], 10),   // shared, behind a carrier's NAT
    v4([127, 0, 0, 0], 8),     // loopback
    v4([169, 254, 0, 0], 16),  // link-local; cloud machines' metadata
    v4([172, 16, 0, 0], 12),   // private
    v4([192, 0, 0, 0], 24),    // protocol assignments
    v4([192, 0, 2, 0], 24),    // documentation
    v4([192, 88, 99, 0], 24),  // 6to4 relays
    v4([192, 168, 0, 0], 16),  // private
    v4([198, 18, 0, 0], 15),   // benchmarks
    v4([198, 51, 100, 0], 24), // documentation
    v4([203, 0, 113, 0], 24),  // documentation
    v4([224, 0, 0, 0], 4),     // multicast
    v4([240, 0, 0, 0], 4),     // reserved; broadcast
];

/// All of IPv6 that is given out to hosts of the public internet. Outside of it: loopback, link-local, unique local,
/// multicast, IPv4-mapped, ...
const GLOBAL_V6: Ipv6Net = v6([0x2000, 0, 0, 0], 3);

/// What in there is none: the same registry.
const SPECIAL_V6: [Ipv6Net; 4] = [
    v6([0x2001, 0, 0, 0], 23),     // protocol assignments: Teredo, benchmarks, ORCHID
    v6([0x2001, 0xdb8, 0, 0], 32), // documentation
    v6([0x2002, 0, 0, 0], 16),     // 6to4, which holds an IPv4 address
    v6([0x3fff, 0, 0, 0], 20),     // documentation
];

/// A network without IPv4 reaches it through these; the last four bytes are the address that is meant (RFC 6052).
const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0, 0], 96);

const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6([a, b, c, d]: [u16; 4], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0), prefix)
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !SPECIAL_V4.iter().any(|network| network.contains(&address)),
        IpAddr::V6(address) if NAT64.contains(&address) => {
            let [.., a, b, c, d] = address.octets();
            is_public(Ipv4Addr::new(a, b, c, d).into())
        }
        IpAddr::V6(address) => {
            GLOBAL_V6.contains(&address) && !SPECIAL_V6.iter().any(|network| network.contains(&address))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(reach: Reach, text: &str) -> bool {
        reach.allows(text.parse().unwrap())
    }

    #[test]
    fn addresses_of_the_public_internet_are_dialled_and_their_neighbours_inside_are_not() {
        // Each network's first and last address, and the addresses before and behind it where those are public.
        for (inside, outside) in [
            (["0.0.0.0", "0.255.255.255"], vec!["1.0.0.0"]),
            (["10.0.0.0", "10.255.255.255"], vec!["9.255.255.255", "11.0.0.0"]),
            (["100.64.0.0", "100.127.255.255"], vec!["100.63.255.255", "100.128.0.0"]),
            (["127.0.0.0", "127.255.255.255"], vec!["126.255.255.255", "128.0.0.0"]),
            (["169.254.0.0", "169.254.255.255"], vec!["169.253.255.255", "169.255.0.0"]),
            (["172.16.0.0", "172.31.255.255"], vec!["172.15.255.255", "172.32.0.0"]),
            (["192.0.0.0", "192.0.0.255"], vec!["191.255.255.255", "192.0.1.0"]),
            (["192.0.2.0", "192.0.2.255"], vec!["192.0.1.255", "192.0.3.0"]),
            (["192.88.99.0", "192.88.99.255"], vec!["192.88.98.255", "192.88.100.0"]),
            (["192.168.0.0", "192.168.255.255"], vec!["192.167.255.255", "192.169.0.0"]),
            (["198.18.0.0", "198.19.255.255"], vec!["198.17.255.255", "198.20.0.0"]),
            (["198.51.100.0", "198.51.100.255"], vec!["198.51.99.255", "198.51.101.0"]),
            (["203.0.113.0", "203.0.113.255"], vec!["203.0.112.255", "203.0.114.0"]),
            (["224.0.0.0", "255.255.255.255"], vec!["223.255.255.255"]),
            (["::", "::1"], vec![]),
            (["::ffff:10.0.0.1", "::ffff:8.8.8.8"], vec![]),
            (["64:ff9b::", "64:ff9b::10.0.0.1"], vec!["64:ff9b::8.8.8.8"]),
            (["64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe"], vec![]),
            (["64:ff9b:1::", "64:ff9b:1::8.8.8.8"], vec![]),
            (["100::", "1fff:ffff::"], vec!["2000::"]),
            (["2001::", "2001:1ff:ffff::"], vec!["2000:ffff::", "2001:200::"]),
            (["2001:db8::", "2001:db8:ffff::"], vec!["2001:db7:ffff::", "2001:db9::"]),
            (["2002::", "2002:ffff::"], vec!["2001:ffff::", "2003::"]),
            (["3fff::", "3fff:fff:ffff::"], vec!["3ffe:ffff::", "3fff:1000::"]),
            (["4000::", "fbff::"], vec!["3fff:ffff::"]),
            (["fc00::", "fdff:ffff::"], vec![]),
            (["fd00:ec2::254", "fe80::1"], vec![]),
            (["febf::", "ff02::1"], vec![]),
        ] {
            for text in inside {
                assert!(!allowed(Reach::Public, text), "{text}");
                assert!(allowed(Reach::Any, text), "{text}");
            }
            for text in outside {
                assert!(allowed(Reach::Public, text), "{text}");
            }
        }
    }

    #[test]
    fn localhost_is_this_machine_and_no_other() {
        for text in ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"] {
            assert!(allowed(Reach::Loopback, text), "{text}");
        }
        for text in ["10.0.0.1", "8.8.8.8", "::", "0.0.0.0", "fe80::1", "2600::1"] {
            assert!(!allowed(Reach::Loopback, text), "{text}");
        }
    }
}
