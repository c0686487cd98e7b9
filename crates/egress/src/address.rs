//! Which addresses are out on the internet, and so may be connected to.
//!
//! By the IANA IPv4 and IPv6 Special-Purpose Address Registries
//! (<https://www.iana.org/assignments/iana-ipv4-special-registry>,
//! <https://www.iana.org/assignments/iana-ipv6-special-registry>, RFC 6890) and the IPv6 Global Unicast
//! Address Assignments. IPv4 is public unless it is listed; IPv6 only inside what IANA gives out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// IPv4 that is never public.
const V4_BLOCKED: &[Ipv4Net] = &[
    v4(0, 0, 0, 0, 8),        // this network, RFC 791
    v4(10, 0, 0, 0, 8),       // private, RFC 1918
    v4(100, 64, 0, 0, 10),    // shared by carriers, RFC 6598
    v4(127, 0, 0, 0, 8),      // loopback, RFC 1122
    v4(168, 63, 129, 16, 32), // the host agent of Azure, reachable from each of its machines
    v4(169, 254, 0, 0, 16),   // link-local, RFC 3927; metadata of clouds
    v4(172, 16, 0, 0, 12),    // private, RFC 1918
    v4(192, 0, 0, 0, 24),     // IETF protocol assignments, RFC 6890; metadata of Oracle's cloud
    v4(192, 0, 2, 0, 24),     // documentation, RFC 5737
    v4(192, 88, 99, 0, 24),   // 6to4 relays, deprecated by RFC 7526
    v4(192, 168, 0, 0, 16),   // private, RFC 1918
    v4(198, 18, 0, 0, 15),    // benchmarks, RFC 2544
    v4(198, 51, 100, 0, 24),  // documentation, RFC 5737
    v4(203, 0, 113, 0, 24),   // documentation, RFC 5737
    v4(224, 0, 0, 0, 4),      // multicast, RFC 5771
    v4(240, 0, 0, 0, 4),      // reserved, RFC 1112; holds the broadcast address
];

/// All of IPv6 that is given out to networks: everything else is blocked, and with it loopback,
/// unspecified, IPv4-compatible and -mapped, `64:ff9b:1::/48`, discard, segment routing, unique local,
/// link-local, site-local and multicast addresses.
const V6_GLOBAL: Ipv6Net = v6(0x2000, 0, 0, 3);

/// IPv6 inside [`V6_GLOBAL`] that is never public.
const V6_BLOCKED: &[Ipv6Net] = &[
    v6(0x2001, 0, 0, 23), // IETF protocol assignments, RFC 2928; Teredo, benchmarks, ORCHID
    v6(0x2001, 0xdb8, 0, 32), // documentation, RFC 3849
    v6(0x2002, 0, 0, 16), // 6to4, RFC 3056: holds an IPv4 address
    v6(0x3fff, 0, 0, 20), // documentation, RFC 9637
];

/// The well-known prefix of NAT64 (RFC 6052): the last 32 bits are the IPv4 address that is meant.
const NAT64: Ipv6Net = v6(0x64, 0xff9b, 0, 96);

/// Whether `address` is one that anybody on the internet could connect to.
///
/// An address of the well-known NAT64 prefix counts as the IPv4 address in it; all other ways to write
/// IPv4 inside IPv6 are blocked whatever they hold.
///
/// ```
/// assert!(iris_egress::is_public("8.8.8.8".parse()?));
/// assert!(!iris_egress::is_public("169.254.169.254".parse()?));
/// assert!(!iris_egress::is_public("64:ff9b::7f00:1".parse()?));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !V4_BLOCKED.iter().any(|net| net.contains(&address))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if NAT64.contains(&address) {
        let [.., a, b, c, d] = address.octets();
        return is_public_v4(Ipv4Addr::new(a, b, c, d));
    }
    V6_GLOBAL.contains(&address) && !V6_BLOCKED.iter().any(|net| net.contains(&address))
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(first: u16, second: u16, third: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(first, second, third, 0, 0, 0, 0, 0), prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_all(addresses: &[&str], expected: bool) {
        for text in addresses {
            assert_eq!(is_public(text.parse().unwrap()), expected, "{text}");
        }
    }

    #[test]
    fn the_first_and_last_address_of_each_special_ipv4_range_is_blocked() {
        for net in V4_BLOCKED {
            assert_all(&[&net.network().to_string(), &net.broadcast().to_string()], false);
        }
        assert_all(&["255.255.255.255", "100.100.100.200", "192.0.0.192"], false);
    }

    #[test]
    fn the_neighbours_of_special_ipv4_ranges_are_public() {
        assert_all(
            &[
                "1.0.0.0",
                "9.255.255.255",
                "11.0.0.0",
                "100.63.255.255",
                "100.128.0.0",
                "126.255.255.255",
                "128.0.0.0",
                "168.63.129.15",
                "168.63.129.17",
                "169.253.255.255",
                "169.255.0.0",
                "172.15.255.255",
                "172.32.0.0",
                "191.255.255.255",
                "192.0.1.0",
                "192.0.3.0",
                "192.88.98.255",
                "192.88.100.0",
                "192.167.255.255",
                "192.169.0.0",
                "198.17.255.255",
                "198.20.0.0",
                "198.51.99.255",
                "198.51.101.0",
                "203.0.112.255",
                "203.0.114.0",
                "223.255.255.255",
            ],
            true,
        );
    }

    #[test]
    fn special_ipv6_addresses_are_blocked() {
        assert_all(
            &[
                "::",
                "::1",
                "::7f00:1",
                "::808:808",
                "::ffff:127.0.0.1",
                "::ffff:8.8.8.8",
                "::ffff:0:8.8.8.8",
                "64:ff9b:1::808:808",
                "100::1",
                "100:0:0:1::1",
                "5f00::1",
                "fc00::1",
                "fd00:ec2::254",
                "fe80::1",
                "febf::1",
                "fec0::1",
                "ff02::1",
                "4000::1",
                "1fff:ffff::1",
            ],
            false,
        );
        for net in V6_BLOCKED {
            assert_all(&[&net.network().to_string(), &net.broadcast().to_string()], false);
        }
        // Teredo to 8.8.8.8 and 6to4 of 8.8.8.8 and 127.0.0.1.
        assert_all(&["2001:0:808:808::1", "2002:808:808::1", "2002:7f00:1::1"], false);
    }

    #[test]
    fn public_ipv6_addresses_pass() {
        assert_all(
            &["2001:200::1", "2001:4860:4860::8888", "2606:4700::1111", "2a00:1450::1", "3ffe::1"],
            true,
        );
    }

    #[test]
    fn a_nat64_address_counts_as_the_ipv4_address_in_it() {
        assert_all(&["64:ff9b::808:808"], true);
        assert_all(
            &["64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b::a00:1", "64:ff9b::1:808:808"],
            false,
        );
    }
}
