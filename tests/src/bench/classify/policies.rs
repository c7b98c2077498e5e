//! The policies of `classify`, for dpufw and for nftables, and the packets that they judge.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, anyhow};
use fastrand::Rng;
use fw_policy::Policy;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::super::frames::{Frame, framed};
use super::super::stand::mac;
use crate::packet::Packet;

/// Zones of the policies with many rules, at most.
const ZONES: u32 = 300;
/// Rules use even ports from here on, packets that are to be denied odd ones: no rule is far from matching.
const FIRST_PORT: u16 = 1000;
const PORTS: u32 = 100;
/// Ports of the packets that open flows towards the guarded zone.
pub const SERVICE: u16 = 443;

/// A policy of independent rules between zones of a /16 each; each rule allows one pair one port.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How many.
    pub rules: u32,
}

impl Rules {
    /// Zones: as many as rules, and no more than 300.
    #[must_use]
    pub fn zones(self) -> u32 {
        self.rules.min(ZONES)
    }

    /// Source zone, destination zone and port of a rule.
    fn rule(self, rule: u32) -> (u32, u32, u16) {
        let zones = self.zones();
        // Sources and destinations differ from rule to rule; once all pairs are used, ports do.
        let (from, to) = (rule % zones, (rule / zones + rule) % zones);
        let port = FIRST_PORT + 2 * ((rule * 7 + rule / (zones * zones)) % PORTS) as u16;
        (from, to, port)
    }

    /// The policy's text.
    #[must_use]
    pub fn text(self) -> String {
        let mut text = String::from("version: 1\nzones:\n");
        // Writing to a string cannot fail.
        for zone in 0..self.zones() {
            let _ = writeln!(text, "  z{zone}: [{}]", net(zone));
        }
        text += "rules:\n";
        for rule in 0..self.rules {
            let (from, to, port) = self.rule(rule);
            let _ = writeln!(
                text,
                "  - {{ name: r{rule}, allow: [udp/{port}], from: z{from}, to: z{to} }}"
            );
        }
        text
    }

    /// The same for nftables, as a list.
    #[must_use]
    pub fn flat(self) -> String {
        let mut text = String::new();
        for rule in 0..self.rules {
            let (from, to, port) = self.rule(rule);
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "ip saddr {} ip daddr {} udp dport {port} accept",
                net(from),
                net(to)
            );
        }
        text
    }

    /// The same for nftables, as somebody writes it who knows that all zones are a /16: one look-up in a hash.
    #[must_use]
    pub fn map(self) -> String {
        let elements = (0..self.rules).map(|rule| {
            let (from, to, port) = self.rule(rule);
            format!(
                "{} . {} . {port} : accept",
                net(from).network(),
                net(to).network()
            )
        });
        format!(
            "ip saddr & 255.255.0.0 . ip daddr & 255.255.0.0 . udp dport vmap {{ {} }}\n",
            elements.collect::<Vec<_>>().join(",\n")
        )
    }

    /// UDP packets between random addresses of the zones of random rules, to the rule's port or to one that no rule has.
    ///
    /// # Errors
    /// Never: they fit.
    pub fn frames(self, count: usize, allowed: bool) -> Result<Vec<Frame>> {
        let mut random = Rng::with_seed(0x0dea_dbee);
        let packet = |random: &mut Rng| {
            let (from, to, port) = self.rule(random.u32(..self.rules));
            let (src, dst) = (within4(random, net(from)), within4(random, net(to)));
            let port = if allowed { port } else { port + 1 };
            frame((src.into(), random.u16(1024..)), (dst.into(), port))
        };
        (0..count).map(|_| packet(&mut random)).collect()
    }
}

fn net(zone: u32) -> Ipv4Net {
    let address = Ipv4Addr::new(10 + (zone / 256) as u8, (zone % 256) as u8, 0, 0);
    Ipv4Net::new_assert(address, 16)
}

/// A policy whose zone `known` may reach a zone `guarded`, and nothing else.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// The family of all addresses.
    pub ipv6: bool,
}

impl Known {
    /// The guarded zone.
    #[must_use]
    pub fn guarded(self) -> IpNet {
        if self.ipv6 {
            Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0), 64).into()
        } else {
            Ipv4Net::new_assert(Ipv4Addr::new(10, 1, 0, 0), 16).into()
        }
    }

    /// The policy with these prefixes in its zone `known`.
    ///
    /// # Errors
    /// If the policy has an error.
    pub fn policy(self, known: &[IpNet]) -> Result<Policy> {
        // Written out, a million prefixes are 20 MB of text: that cost is measured elsewhere.
        let text = self.text("known: [192.0.2.0/24]");
        let (policy, _) = fw_policy::check(&text, "bench.yaml").map_err(|findings| anyhow!("{findings}"))?;
        Ok(with_prefixes(policy, known))
    }

    fn text(self, known: &str) -> String {
        format!(
            "version: 1\nzones:\n  {known}\n  guarded: [\"{}\"]\nrules:\n  - {{ name: serve, allow: [udp/{SERVICE}], from: known, \
             to: guarded }}\n",
            self.guarded()
        )
    }

    /// The policy's text with the prefixes in a file, and that file's text.
    #[must_use]
    pub fn fed(self, known: &[IpNet], file: &std::path::Path) -> (String, String) {
        let list: Vec<String> = known.iter().map(ToString::to_string).collect();
        let zone = format!("known: {{ file: \"{}\" }}", file.display());
        (self.text(&zone), list.join("\n") + "\n")
    }

    /// The same for nftables.
    #[must_use]
    pub fn nft_set(self, known: &[IpNet]) -> (String, String) {
        let (family, kind) = if self.ipv6 {
            ("ip6", "ipv6_addr")
        } else {
            ("ip", "ipv4_addr")
        };
        let list: Vec<String> = known.iter().map(ToString::to_string).collect();
        let set = format!(
            "set known {{ type {kind}; flags interval; auto-merge; elements = {{ {} }}; }}\n",
            list.join(",\n")
        );
        let rule = format!(
            "{family} saddr @known {family} daddr {} udp dport {SERVICE} accept\n",
            self.guarded()
        );
        (set, rule)
    }

    /// A handful of prefixes that hold the addresses of [`Known::many`] and most others.
    #[must_use]
    pub fn few(self) -> Vec<IpNet> {
        if self.ipv6 {
            (0..8)
                .map(|part| {
                    Ipv6Net::new_assert(Ipv6Addr::new(0x2000 + part * 0x400, 0, 0, 0, 0, 0, 0, 0), 6).into()
                })
                .collect()
        } else {
            (1..7)
                .map(|part| Ipv4Net::new_assert(Ipv4Addr::new(part * 32, 0, 0, 0), 3).into())
                .collect()
        }
    }

    /// Distinct random prefixes: IPv4 half /24, a quarter /32, the rest /16 to /23, in 32.0.0.0 to 223.255.255.255; IPv6
    /// half /48, a quarter /64, the rest /32 to /47 and /128, in `2000::/3`.
    #[must_use]
    pub fn many(self, count: usize) -> Vec<IpNet> {
        let mut random = Rng::with_seed(20_261_128);
        let mut prefixes = std::collections::BTreeSet::new();
        while prefixes.len() < count {
            prefixes.insert(if self.ipv6 {
                prefix6(&mut random)
            } else {
                prefix4(&mut random)
            });
        }
        prefixes.into_iter().collect()
    }

    /// Packets that each open a flow: from a random address of a random prefix to a random address of the guarded zone.
    ///
    /// # Errors
    /// Never: they fit.
    pub fn opening(self, known: &[IpNet], count: usize) -> Result<Vec<Frame>> {
        let mut random = Rng::with_seed(7);
        let packet = |random: &mut Rng| {
            let net = known[random.usize(..known.len())];
            let src = within(random, net);
            frame(
                (src, random.u16(1024..)),
                (within(random, self.guarded()), SERVICE),
            )
        };
        (0..count).map(|_| packet(&mut random)).collect()
    }

    /// Packets that no rule allows: from random addresses, in prefixes or not, to a closed port of the guarded zone.
    ///
    /// # Errors
    /// Never: they fit.
    pub fn denied(self, count: usize) -> Result<Vec<Frame>> {
        let mut random = Rng::with_seed(8);
        let all = self.few();
        let packet = |random: &mut Rng| {
            let net = all[random.usize(..all.len())];
            let src = within(random, net);
            frame(
                (src, random.u16(1024..)),
                (within(random, self.guarded()), SERVICE + 1),
            )
        };
        (0..count).map(|_| packet(&mut random)).collect()
    }
}

/// Puts prefixes into the zone `known`.
fn with_prefixes(mut policy: Policy, known: &[IpNet]) -> Policy {
    for zone in policy.zones.iter_mut().filter(|zone| zone.name == "known") {
        known.clone_into(&mut zone.prefixes);
        zone.prefixes.sort_unstable();
    }
    policy
}

fn prefix4(random: &mut Rng) -> IpNet {
    let length = match random.u8(..8) {
        0..4 => 24,
        4..6 => 32,
        _ => random.u8(16..24),
    };
    let address = Ipv4Addr::from_bits(random.u32(0x2000_0000..0xe000_0000));
    Ipv4Net::new_assert(address, length).trunc().into()
}

fn prefix6(random: &mut Rng) -> IpNet {
    let length = match random.u8(..8) {
        0..4 => 48,
        4..6 => 64,
        6 => random.u8(32..48),
        _ => 128,
    };
    let address = Ipv6Addr::from_bits(0x2000 << 112 | random.u128(..) >> 3);
    Ipv6Net::new_assert(address, length).trunc().into()
}

fn within(random: &mut Rng, net: IpNet) -> IpAddr {
    match net {
        IpNet::V4(net) => within4(random, net).into(),
        IpNet::V6(net) => {
            Ipv6Addr::from_bits(random.u128(net.network().to_bits()..=net.broadcast().to_bits())).into()
        }
    }
}

fn within4(random: &mut Rng, net: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from_bits(random.u32(net.network().to_bits()..=net.broadcast().to_bits()))
}

/// From the generator to the firewall's first port, so that a router takes it.
fn frame(src: (IpAddr, u16), dst: (IpAddr, u16)) -> Result<Frame> {
    framed(&Packet::udp(src, dst).macs(mac(1), mac(2)))
}

#[cfg(test)]
mod tests {
    use super::{Known, Rules};

    #[test]
    fn all_rules_differ() {
        let rules = Rules { rules: 100_000 };
        let mut seen = std::collections::HashSet::new();
        assert!((0..rules.rules).all(|rule| seen.insert(rules.rule(rule))));
        let (policy, _) = fw_policy::check(&Rules { rules: 1000 }.text(), "bench.yaml").expect("a policy");
        assert_eq!(policy.rules.len(), 1000);
    }

    #[test]
    fn few_prefixes_hold_what_many_hold() {
        for ipv6 in [false, true] {
            let known = Known { ipv6 };
            let (few, many) = (known.few(), known.many(5000));
            assert!(many.iter().all(|net| few.iter().any(|wide| wide.contains(net))));
            let policy = known.policy(&many).expect("a policy");
            assert_eq!(policy.zones[0].prefixes.len(), 5000);
        }
    }
}
