//! Networks: whether an address is in one of many, and in which.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

/// One of these networks; an address is looked for by bisection.
#[derive(Clone, Default)]
pub struct NetworkList {
    networks: Vec<IpNet>,
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl NetworkList {
    /// The networks as they are written, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, IpNet> {
        self.networks.iter()
    }

    /// Whether an address is in one of them. An IPv6 network holds no IPv4 address.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => is_within(&self.v4, ip.to_bits()),
            IpAddr::V6(ip) => is_within(&self.v6, ip.to_bits()),
        }
    }
}

/// The ranges are sorted and do not overlap.
fn is_within<T: Ord + Copy>(ranges: &[(T, T)], address: T) -> bool {
    let behind = ranges.partition_point(|(first, _)| *first <= address);
    behind.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|(_, last)| address <= *last)
}

impl From<Vec<IpNet>> for NetworkList {
    fn from(networks: Vec<IpNet>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in &networks {
            match network {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) => v6.push((net.network().to_bits(), net.broadcast().to_bits())),
            }
        }
        Self { networks, v4: joined(v4), v6: joined(v6) }
    }
}

/// Networks lie apart or inside each other: the outermost are enough.
fn joined<T: Ord + Copy>(mut ranges: Vec<(T, T)>) -> Vec<(T, T)> {
    ranges.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
    ranges.dedup_by(|inner, outer| inner.1 <= outer.1);
    ranges
}

impl FromIterator<IpNet> for NetworkList {
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> Self {
        networks.into_iter().collect::<Vec<_>>().into()
    }
}

impl std::fmt::Debug for NetworkList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.networks.fmt(f)
    }
}

/// Which of many networks hold an address: one hash lookup for each prefix length that occurs, 33 for IPv4 at most.
#[derive(Debug, Default)]
pub(crate) struct NetworkIndex {
    v4: BTreeMap<u8, HashMap<u32, Vec<u32>>>,
    v6: BTreeMap<u8, HashMap<u128, Vec<u32>>>,
}

impl NetworkIndex {
    /// Adds a network with the number by which it is found.
    pub(crate) fn insert(&mut self, network: &IpNet, id: u32) {
        match network {
            IpNet::V4(net) => {
                self.v4.entry(net.prefix_len()).or_default().entry(net.network().to_bits()).or_default().push(id);
            }
            IpNet::V6(net) => {
                self.v6.entry(net.prefix_len()).or_default().entry(net.network().to_bits()).or_default().push(id);
            }
        }
    }

    /// Tells the number of every network that holds the address; one may be told twice.
    pub(crate) fn each(&self, ip: IpAddr, mut found: impl FnMut(u32)) {
        match ip {
            IpAddr::V4(ip) => {
                for (length, networks) in &self.v4 {
                    let mask = u32::MAX.checked_shl(32 - u32::from(*length)).unwrap_or(0);
                    let ids = networks.get(&(ip.to_bits() & mask));
                    ids.into_iter().flatten().for_each(|id| found(*id));
                }
            }
            IpAddr::V6(ip) => {
                for (length, networks) in &self.v6 {
                    let mask = u128::MAX.checked_shl(128 - u32::from(*length)).unwrap_or(0);
                    let ids = networks.get(&(ip.to_bits() & mask));
                    ids.into_iter().flatten().for_each(|id| found(*id));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn network() -> impl Strategy<Value = IpNet> {
        // Few bits that differ, so that networks hold each other and the addresses.
        let four = (0u32..16, 0u8..=32)
            .prop_map(|(bits, length)| IpNet::new(Ipv4Addr::from(bits << 28 | bits).into(), length).unwrap());
        let six = (0u128..16, 0u8..=128)
            .prop_map(|(bits, length)| IpNet::new(Ipv6Addr::from(bits << 124 | bits).into(), length).unwrap());
        prop_oneof![four, six]
    }

    proptest! {
        #[test]
        fn lists_and_indexes_find_exactly_what_trying_each_finds(
            networks in proptest::collection::vec(network(), 0..20),
            bits in 0u32..16,
            is_v4: bool,
        ) {
            let ip: IpAddr = match is_v4 {
                true => Ipv4Addr::from(bits << 28 | bits).into(),
                false => Ipv6Addr::from(u128::from(bits) << 124 | u128::from(bits)).into(),
            };
            let plain: Vec<u32> = (0..).zip(&networks).filter(|(_, net)| net.contains(&ip)).map(|(id, _)| id).collect();
            let mut index = NetworkIndex::default();
            networks.iter().zip(0..).for_each(|(network, id)| index.insert(network, id));
            let mut found = Vec::new();
            index.each(ip, |id| found.push(id));
            found.sort_unstable();
            let list: NetworkList = networks.into();
            prop_assert_eq!(list.contains(ip), !plain.is_empty());
            prop_assert_eq!(found, plain);
        }
    }
}
