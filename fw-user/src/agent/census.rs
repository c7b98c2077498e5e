//! What one walk over the flow tables finds: states, sources, and the counts of limits.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fw_common::abi::{Flow, FlowFlags, Ip6, LimitKey, SourceKey, StateWord};
use ipnet::IpNet;

use super::limits::RuleLimits;
use crate::control::TopSource;
use crate::dataplane::FlowKey;
use crate::telemetry::{Names, Realm, Table, family_and_proto, state_name};

/// Sources that are named.
const TOP: usize = 10;

/// Flows by table, family and state.
pub type FlowCounts = BTreeMap<(Table, u8, &'static str), u64>;

/// What a source has in the tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Share {
    main: u32,
    half_open: u32,
    /// Stable id of its zone.
    zone: u32,
}

impl Share {
    const fn of(&self, table: Table) -> u32 {
        match table {
            Table::Main => self.main,
            Table::HalfOpen => self.half_open,
        }
    }
}

/// One walk's findings. Memory: about 60 bytes for each source with a flow.
#[derive(Debug, Default)]
pub struct Census {
    /// Flows by state.
    pub states: FlowCounts,
    sources: HashMap<SourceKey, Share>,
    buckets: HashMap<LimitKey, u64>,
}

impl Census {
    /// Counts a flow that goes on.
    pub fn count(&mut self, table: Table, key: &FlowKey, flow: &Flow, limits: &RuleLimits) {
        let (family, proto) = family_and_proto(key);
        let state = state_name(proto, StateWord(flow.state));
        *self.states.entry((table, family, state)).or_default() += 1;
        let flags = FlowFlags(flow.flags);
        let share = self.sources.entry(source_key(key, flags)).or_default();
        match table {
            Table::Main => share.main += 1,
            Table::HalfOpen => share.half_open += 1,
        }
        if flow.src_zone != 0 {
            share.zone = flow.src_zone;
        }
        for bucket in limits.buckets(flow.rule, key, flags) {
            *self.buckets.entry(bucket).or_default() += 1;
        }
    }

    /// Flows in a table of one family.
    #[must_use]
    pub fn used(&self, table: Table, family: u8) -> u64 {
        let of = self
            .states
            .iter()
            .filter(|((t, f, _), _)| (*t, *f) == (table, family));
        of.map(|(_, count)| count).sum()
    }

    /// Confirmed flows of a source.
    #[must_use]
    pub fn confirmed(&self, source: &SourceKey) -> u32 {
        self.sources.get(source).map_or(0, |share| share.main)
    }

    /// Buckets of limits on flows at a time, with the flows that count in them.
    #[must_use]
    pub const fn buckets(&self) -> &HashMap<LimitKey, u64> {
        &self.buckets
    }

    /// The sources with the most flows in a table, the first ten.
    #[must_use]
    pub fn top(&self, table: Table, names: &Names) -> Vec<TopSource> {
        let mut sources: Vec<_> = self
            .sources
            .iter()
            .filter(|(_, share)| share.of(table) > 0)
            .collect();
        let order = |(key, share): &(&SourceKey, &Share)| {
            (
                std::cmp::Reverse(share.of(table)),
                key.family,
                key.addr,
                key.realm,
            )
        };
        if sources.len() > TOP {
            sources.select_nth_unstable_by_key(TOP, order);
            sources.truncate(TOP);
        }
        sources.sort_by_key(order);
        let line = |(key, share): (&SourceKey, &Share)| self.line(table, key, share, names);
        sources.into_iter().map(line).collect()
    }

    fn line(&self, table: Table, key: &SourceKey, share: &Share, names: &Names) -> TopSource {
        let family = key.family as u8;
        let (realm, flows) = (Realm::new(key.realm), u64::from(share.of(table)));
        #[expect(clippy::cast_precision_loss, reason = "a share for people")]
        let share_of_table = flows as f64 / self.used(table, family).max(1) as f64;
        TopSource {
            table: table.name().to_owned(),
            family,
            source: source_name(key),
            realm: realm.port,
            vlan: realm.vlan,
            inner_vlan: realm.inner_vlan,
            zone: names.zone(share.zone),
            flows,
            share: share_of_table,
        }
    }
}

/// The opener of a flow, as the packet path names sources.
fn source_key(key: &FlowKey, flags: FlowFlags) -> SourceKey {
    match key {
        FlowKey::V4(key) => SourceKey {
            addr: [if flags.opener_hi() { key.hi.0 } else { key.lo.0 }, 0, 0, 0],
            realm: key.full_realm(),
            family: 4,
        },
        FlowKey::V6(key) => {
            let opener = if flags.opener_hi() { key.hi.0 } else { key.lo.0 };
            SourceKey {
                addr: [opener[0], opener[1], 0, 0],
                realm: key.full_realm(),
                family: 6,
            }
        }
    }
}

/// `10.0.0.1`, or `2001:db8::/64`.
fn source_name(key: &SourceKey) -> String {
    if key.family == 4 {
        return Ipv4Addr::from_bits(key.addr[0]).to_string();
    }
    prefix(6, key.addr, 64)
}

/// An address with the length of a prefix, without it where the address is whole.
pub(super) fn prefix(family: u8, words: [u32; 4], length: u32) -> String {
    let address = if family == 4 {
        IpAddr::V4(Ipv4Addr::from_bits(words[0]))
    } else {
        IpAddr::V6(Ipv6Addr::from_bits(Ip6(words).to_bits()))
    };
    match IpNet::new(address, u8::try_from(length).unwrap_or(u8::MAX)) {
        Ok(net) if net.prefix_len() < net.max_prefix_len() => net.to_string(),
        _ => address.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use fw_common::abi::{Flow, FlowFlags, Ip4, Ip6, Key4, Key6, Side, SourceKey};

    use super::{Census, prefix};
    use crate::agent::limits::RuleLimits;
    use crate::dataplane::FlowKey;
    use crate::telemetry::{Kind, Names, Table};

    fn flow(opener_hi: bool, zone: u32) -> Flow {
        Flow {
            flags: FlowFlags::new(opener_hi, Side::Outer, Side::Own, 1).0,
            src_zone: zone,
            ..Flow::default()
        }
    }

    fn key4(lo: u32, hi: u32) -> FlowKey {
        FlowKey::V4(Key4 {
            lo: Ip4(lo),
            hi: Ip4(hi),
            proto: 6,
            ..Key4::default()
        })
    }

    #[test]
    fn the_ten_sources_with_the_most_flows_are_named_with_their_share_and_zone() {
        let (mut census, limits) = (Census::default(), RuleLimits::default());
        for source in 1..=20 {
            for flow_number in 0..source {
                let key = key4(source, 1000 + flow_number);
                census.count(Table::Main, &key, &flow(false, 7), &limits);
            }
        }
        let six = FlowKey::V6(Key6 {
            lo: Ip6::from_bits(1),
            hi: Ip6([0x2001_0db8, 0, 5, 6]),
            ..Key6::default()
        });
        census.count(Table::HalfOpen, &six, &flow(true, 0), &limits);
        let mut names = Names::default();
        names.add(Kind::Zone, [(7, "gpu")]).unwrap();
        let top = census.top(Table::Main, &names);
        assert_eq!(top.len(), 10);
        assert_eq!((top[0].source.as_str(), top[0].flows), ("0.0.0.20", 20));
        assert_eq!((top[9].source.as_str(), top[9].flows), ("0.0.0.11", 11));
        assert_eq!(top[0].zone.as_deref(), Some("gpu"));
        assert!((top[0].share - 20.0 / 210.0).abs() < 1e-9);
        let half = census.top(Table::HalfOpen, &names);
        assert_eq!(half.len(), 1);
        assert_eq!((half[0].source.as_str(), half[0].family), ("2001:db8::/64", 6));
        assert_eq!((half[0].zone.as_deref(), half[0].share), (None, 1.0));
        let source = SourceKey {
            addr: [20, 0, 0, 0],
            realm: 0,
            family: 4,
        };
        assert_eq!(census.confirmed(&source), 20);
        assert_eq!(census.used(Table::Main, 4), 210);
        assert_eq!(census.used(Table::Main, 6), 0);
    }

    #[test]
    fn prefixes_read_well() {
        assert_eq!(prefix(4, [0x0a00_0001, 0, 0, 0], 32), "10.0.0.1");
        assert_eq!(prefix(4, [0x0a00_0000, 0, 0, 0], 8), "10.0.0.0/8");
        assert_eq!(prefix(6, [0xfd00_0000, 0, 0, 0], 64), "fd00::/64");
        assert_eq!(
            prefix(6, [0xfd00_0000, 0, 0, 1], 200),
            "fd00::1",
            "nonsense is no panic"
        );
    }
}
