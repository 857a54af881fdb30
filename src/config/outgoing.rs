//! Where requests may go whose target somebody else chose.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::Deserialize;

use super::Subnet;

/// Where requests may go whose target somebody else chose, beside the public internet and within it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Outgoing {
    pub ip_range_denylist: Vec<Subnet>,
    pub outgoing_allowlist: Vec<Destination>,
}

/// A range of addresses, or a host wherever its name leads.
#[derive(Clone, PartialEq, Eq)]
pub enum Destination {
    Subnet(Subnet),
    /// In lower case.
    Host(String),
}

impl Destination {
    pub fn covers(&self, host: &str, address: IpAddr) -> bool {
        match self {
            Self::Subnet(subnet) => subnet.contains(address),
            Self::Host(name) => name.eq_ignore_ascii_case(host),
        }
    }
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if let Ok(subnet) = s.parse() {
            return Ok(Self::Subnet(subnet));
        }
        // What looks like an address was meant to be one.
        let is_name = s.starts_with(|c: char| c.is_ascii_alphanumeric())
            && s.contains(|c: char| c.is_ascii_alphabetic())
            && s.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
        if is_name { Ok(Self::Host(s.to_ascii_lowercase())) } else { Err(format!("`{s}` is no subnet and no host")) }
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subnet(subnet) => fmt::Debug::fmt(subnet, f),
            Self::Host(name) => f.write_str(name),
        }
    }
}

impl<'de> Deserialize<'de> for Destination {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_a_subnet_or_a_host() {
        let covers = |said: &str, host: &str, address: &str| {
            let destination: Destination = said.parse().expect("a destination");
            destination.covers(host, address.parse().expect("an address"))
        };
        assert!(covers("172.18.0.0/16", "push", "172.18.3.4") && !covers("172.18.0.0/16", "push", "172.19.0.1"));
        assert!(covers("Push.Internal", "push.internal", "10.0.0.1"));
        assert!(!covers("push.internal", "apush.internal", "10.0.0.1"));
        assert!(covers("ntfy", "NTFY", "10.0.0.1"));
        for bad in ["", "10.0.0.0/99", "1.2.3", "a b", "http://a", "*.example.org", "a:80", "-a"] {
            assert!(bad.parse::<Destination>().is_err(), "{bad}");
        }
    }
}
