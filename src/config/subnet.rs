//! Ranges of addresses.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::Deserialize;

/// Addresses that begin with the same bits: `10.0.0.0/8`, `::1/128`, or one address alone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    address: IpAddr,
    bits: u8,
}

impl Subnet {
    pub fn contains(&self, other: IpAddr) -> bool {
        let (a, b, width) = match (self.address, other.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (u32::from(a).into(), u32::from(b).into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(a), u128::from(b), 128),
            _ => return false,
        };
        self.bits == 0 || (a ^ b) >> (width - u32::from(self.bits)) == 0
    }
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let (address, bits) = s.split_once('/').map_or((s, None), |(a, b)| (a, Some(b)));
        let address: IpAddr = address.parse().map_err(|_| format!("`{s}` is not an address or subnet"))?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(width), str::parse).map_err(|_| format!("`{s}` has no number after its slash"))?;
        if bits > width {
            return Err(format!("`{s}` has more than {width} bits"));
        }
        Ok(Self { address, bits })
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl fmt::Debug for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'de> Deserialize<'de> for Subnet {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(subnet: &str, address: &str) -> bool {
        subnet.parse::<Subnet>().expect("a subnet").contains(address.parse().expect("an address"))
    }

    #[test]
    fn a_subnet_holds_what_shares_its_bits() {
        assert!(within("10.0.0.0/8", "10.255.1.2"));
        assert!(!within("10.0.0.0/8", "11.0.0.0"));
        assert!(within("192.168.1.7", "192.168.1.7"));
        assert!(!within("192.168.1.7", "192.168.1.6"));
        assert!(within("0.0.0.0/0", "1.2.3.4"));
        assert!(within("fd00::/8", "fd12::1"));
        assert!(!within("fd00::/8", "fe80::1"));
        assert!(!within("::/0", "1.2.3.4"));
        assert!(within("127.0.0.0/8", "::ffff:127.0.0.1"), "an IPv4 address in IPv6 dress is itself");
    }

    #[test]
    fn what_is_no_subnet_is_refused() {
        for bad in ["", "localhost", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/x", "10.0.0.0/-1"] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }
}
