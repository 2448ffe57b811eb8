//! Addresses that are not public, by the registries of special-purpose addresses (RFC 6890 and its updates) and what
//! clouds have put elsewhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

const fn v6(first: [u16; 4], length: u8) -> Ipv6Net {
    let [a, b, c, d] = first;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0), length)
}

const V4: [(Ipv4Net, &str); 20] = [
    (v4(0, 0, 0, 0, 8), "an address of this network"),
    (v4(10, 0, 0, 0, 8), "a private address"),
    // Clouds have metadata services in here, too: 100.100.100.200.
    (v4(100, 64, 0, 0, 10), "an address behind a carrier's NAT"),
    (v4(127, 0, 0, 0, 8), "this machine"),
    // 169.254.169.254, and 169.254.170.2 of containers.
    (v4(169, 254, 0, 0, 16), "a link-local address, where clouds keep their metadata"),
    (v4(172, 16, 0, 0, 12), "a private address"),
    // 192.0.0.192 is a metadata service.
    (v4(192, 0, 0, 0, 24), "an address of the protocol's own"),
    (v4(192, 0, 2, 0, 24), "an address for documentation"),
    (v4(192, 31, 196, 0, 24), "an anycast address of AS112"),
    (v4(192, 52, 193, 0, 24), "an address of multicast tunnels"),
    (v4(192, 88, 99, 0, 24), "a 6to4 relay"),
    (v4(192, 168, 0, 0, 16), "a private address"),
    (v4(192, 175, 48, 0, 24), "an anycast address of AS112"),
    (v4(198, 18, 0, 0, 15), "an address for benchmarks"),
    (v4(198, 51, 100, 0, 24), "an address for documentation"),
    (v4(203, 0, 113, 0, 24), "an address for documentation"),
    (v4(224, 0, 0, 0, 4), "a multicast address"),
    // The broadcast address is in here.
    (v4(240, 0, 0, 0, 4), "a reserved address"),
    // Public, and yet answered by the machine that a virtual one runs on.
    (v4(168, 63, 129, 16, 32), "a cloud's metadata service"),
    (v4(147, 75, 207, 207, 32), "a cloud's metadata service"),
];

/// What is public by [`GLOBAL`] and yet not.
const V6: [(Ipv6Net, &str); 5] = [
    // Teredo, ORCHID, benchmarks and the rest of the protocol's own.
    (v6([0x2001, 0, 0, 0], 23), "an address of the protocol's own, such as Teredo"),
    (v6([0x2001, 0xdb8, 0, 0], 32), "an address for documentation"),
    (v6([0x2002, 0, 0, 0], 16), "a 6to4 address, which stands for one of IPv4"),
    (v6([0x2620, 0x4f, 0x8000, 0], 48), "an anycast address of AS112"),
    (v6([0x3fff, 0, 0, 0], 20), "an address for documentation"),
];

/// All that was ever given out as public.
const GLOBAL: Ipv6Net = v6([0x2000, 0, 0, 0], 3);

/// Ranges outside of [`GLOBAL`] by name, for the message; all others are refused as well.
const V6_NAMED: [(Ipv6Net, &str); 8] = [
    (Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128), "this machine"),
    (v6([0, 0, 0, 0], 8), "an address that stands for one of IPv4, or nobody's"),
    (v6([0x64, 0xff9b, 0, 0], 32), "an address that NAT64 makes one of IPv4"),
    (v6([0x100, 0, 0, 0], 32), "an address whose packets are thrown away"),
    (v6([0x5f00, 0, 0, 0], 16), "a segment of SRv6"),
    (v6([0xfc00, 0, 0, 0], 7), "a private address, where clouds keep their metadata, too"),
    (v6([0xfe80, 0, 0, 0], 10), "a link-local address"),
    (v6([0xff00, 0, 0, 0], 8), "a multicast address"),
];

/// What an address is if it is not public. Mapped addresses must have been unwrapped before.
pub(super) fn why_not(addr: IpAddr) -> Option<&'static str> {
    match addr {
        IpAddr::V4(addr) => V4.iter().find(|(network, _)| network.contains(&addr)).map(|(_, why)| *why),
        IpAddr::V6(addr) => {
            let special = V6.iter().find(|(network, _)| network.contains(&addr));
            if special.is_none() && GLOBAL.contains(&addr) {
                return None;
            }
            let named = || V6_NAMED.iter().find(|(network, _)| network.contains(&addr));
            Some(special.or_else(named).map_or("not a public address", |(_, why)| *why))
        }
    }
}
