//! Which addresses may be reached.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::LazyLock,
};

use crate::config::{Destination, Outgoing, Subnet};

/// All but the public internet.
///
/// <https://www.iana.org/assignments/iana-ipv4-special-registry>,
/// <https://www.iana.org/assignments/iana-ipv6-special-registry>
const NOT_PUBLIC: [&str; 24] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    // What is outside of 2000::/3, and what within it is not for everybody.
    "::/3",
    "4000::/2",
    "8000::/1",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "2620:4f:8000::/48",
    "3ffe::/16",
    "3fff::/20",
];

static INSIDE: LazyLock<Vec<Subnet>> =
    LazyLock::new(|| NOT_PUBLIC.iter().map(|subnet| subnet.parse().expect("a subnet")).collect());

/// What the operator said, asked for each address that a connection is to be made to.
pub(super) struct Guard {
    denied: Vec<Subnet>,
    allowed: Vec<Destination>,
}

impl Guard {
    pub(super) fn new(config: &Outgoing) -> Self {
        Self { denied: config.ip_range_denylist.clone(), allowed: config.outgoing_allowlist.clone() }
    }

    /// Whether a host of this name may be reached at this address.
    pub(super) fn allows(&self, host: &str, address: IpAddr) -> bool {
        let (outer, inner) = unwrapped(address);
        [Some(outer), inner].into_iter().flatten().all(|address| {
            self.allowed.iter().any(|to| to.covers(host, address))
                || !INSIDE.iter().chain(&self.denied).any(|range| range.contains(address))
        })
    }
}

/// Where packets to an address go: an IPv4 address in IPv6 dress is itself (mapped, or by way of NAT64), and a tunnel ends
/// at one (6to4).
fn unwrapped(address: IpAddr) -> (IpAddr, Option<IpAddr>) {
    let IpAddr::V6(v6) = address.to_canonical() else { return (address.to_canonical(), None) };
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => (lower(v6).into(), None),
        [0x2002, high, low, ..] => (address, Some(v4(high, low).into())),
        _ => (address, None),
    }
}

fn lower(v6: Ipv6Addr) -> Ipv4Addr {
    let [.., high, low] = v6.segments();
    v4(high, low)
}

fn v4(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(high) << 16 | u32::from(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(denied: &[&str], allowed: &[&str]) -> Guard {
        Guard::new(&Outgoing {
            ip_range_denylist: denied.iter().map(|s| s.parse().expect("a subnet")).collect(),
            outgoing_allowlist: allowed.iter().map(|s| s.parse().expect("a destination")).collect(),
        })
    }

    fn allows(guard: &Guard, address: &str) -> bool {
        guard.allows("host.example", address.parse().expect("an address"))
    }

    const PUBLIC: [&str; 7] = [
        "1.1.1.1",
        "193.0.0.1",
        "172.32.0.1",
        "100.128.0.1",
        "2606:4700::1111",
        "2a00:1450::1",
        "64:ff9b::1.1.1.1", // by way of NAT64
    ];

    #[test]
    fn cve_2023_32683_and_cve_2021_21392_what_is_not_public_is_refused_in_any_dress() {
        let guard = guard(&[], &[]);
        for address in PUBLIC {
            assert!(allows(&guard, address), "{address}");
        }
        for address in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "192.0.0.8",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",         // IPv4-compatible
            "::ffff:127.0.0.1", // mapped
            "::ffff:10.0.0.1",
            "::ffff:0:127.0.0.1", // translated
            "64:ff9b::127.0.0.1", // NAT64
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::10.0.0.1",
            "2002:7f00:1::", // 6to4
            "2002:a00:1::1",
            "2001::1", // Teredo
            "2001:db8::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "100::1",
            "5f00::1",
        ] {
            assert!(!allows(&guard, address), "{address}");
        }
    }

    #[test]
    fn what_the_operator_denies_is_refused_in_any_dress() {
        let guard = guard(&["1.1.0.0/16", "2a00:1450::/32"], &["1.1.2.0/24"]);
        for address in ["1.1.1.1", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1", "2002:101:101::1", "2a00:1450::1", "127.0.0.1"]
        {
            assert!(!allows(&guard, address), "{address}");
        }
        assert!(allows(&guard, "1.1.2.1") && allows(&guard, "64:ff9b::1.1.2.1") && allows(&guard, "1.2.1.1"));
    }

    #[test]
    fn what_the_operator_allows_is_reached_and_nothing_beside_it() {
        let subnet = guard(&[], &["172.18.0.0/16"]);
        assert!(allows(&subnet, "172.18.0.5") && allows(&subnet, "::ffff:172.18.0.5") && allows(&subnet, "1.1.1.1"));
        assert!(!allows(&subnet, "172.19.0.5") && !allows(&subnet, "127.0.0.1"));
        let host = guard(&[], &["push.internal"]);
        let at = |name: &str| host.allows(name, "10.0.0.1".parse().expect("an address"));
        assert!(at("push.internal") && at("PUSH.internal") && !at("other.internal") && !at("push.internal.example"));
    }
}
