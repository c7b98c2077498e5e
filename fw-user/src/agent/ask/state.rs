//! What bears on a flow beside the rules: its entry in the tables, limits, its source, floods.

use std::net::IpAddr;
use std::ops::ControlFlow;

use fw_common::abi::{
    Flow as Entry, FlowFlags, Ip4, Ip6, Key4, Key6, LimitKind, ProtectMode, Proto, Side, Source, SourceKey,
    StateWord, threshold,
};
use fw_common::classify;
use fw_common::pipeline::pressure_slots;
use fw_common::wire::{echo_request, stacked_realm};
use fw_policy::{Explanation, Flow};

use super::super::apply::InForce;
use super::super::attach::refused;
use super::super::census;
use super::super::core::{Agent, lock};
use super::super::limit_list::{info, precise_now};
use super::super::limits::{bucket_of, fill, kind};
use super::kernel::Place;
use crate::control::{FloodAnswer, KnownFlow, LimitAnswer, SourceAnswer};
use crate::dataplane::{DataPlaneError, FlowKey, FlowTable, coarse_now};
use crate::exit::Failure;
use crate::telemetry::{FlowInfo, WallClock};

/// Flows that an answer lists.
const LISTED: usize = 10;
/// Coarse time to windows of 34 s, in which unconfirmed flows are counted (`pipeline/source.rs`).
const WINDOW_SHIFT: u32 = 35;
const SECOND_NS: u64 = 1_000_000_000;

/// All of it.
#[derive(Default)]
pub(super) struct State {
    pub(super) flows: Vec<KnownFlow>,
    pub(super) more_flows: u64,
    pub(super) limits: Vec<LimitAnswer>,
    pub(super) source: Option<SourceAnswer>,
    pub(super) flood: Option<FloodAnswer>,
}

impl Agent {
    /// Reads what bears on a flow at the first of these places.
    ///
    /// # Errors
    /// If the kernel refuses a read.
    pub(super) fn state(
        &self,
        current: &InForce,
        flow: &Flow,
        explanation: &Explanation,
        places: &[Place],
    ) -> Result<State, Failure> {
        let mut state = State::default();
        let mut read = || -> Result<(), DataPlaneError> {
            self.known_flows(current.generation, flow, &mut state)?;
            let Some(place) = places.first() else {
                return Ok(());
            };
            let realm = realm(flow, place.config.realm);
            if let Some(rule) = &explanation.rule {
                state.limits = self.rule_state(rule.id, &key(flow, realm))?;
            }
            state.source = self.source_state(current, flow, realm)?;
            state.flood = self.flood_state(current, flow, realm)?;
            Ok(())
        };
        read().map_err(|error| refused(&error))?;
        Ok(state)
    }

    /// Flows in the tables between the ends of the question, either way.
    fn known_flows(&self, generation: u32, asked: &Flow, state: &mut State) -> Result<(), DataPlaneError> {
        let (now, clock) = (coarse_now(), WallClock::read());
        for table in [FlowTable::Main, FlowTable::HalfOpen] {
            self.tables.for_each_flow(table, |key, entry| {
                let Some(found) = fits(asked, &key, entry).filter(|_| !entry.expired(now)) else {
                    return ControlFlow::Continue(());
                };
                if state.flows.len() >= LISTED {
                    state.more_flows += 1;
                    return ControlFlow::Continue(());
                }
                let ends_at = entry.last_seen() + StateWord(entry.state).timeout_ns();
                state.flows.push(KnownFlow {
                    flow: FlowInfo::new(&key, entry, table.into(), &lock(&self.names), &clock),
                    exact: found.exact,
                    opposite: found.opposite,
                    current: entry.generation == generation,
                    expires_s: seconds(ends_at.saturating_sub(now)),
                });
                ControlFlow::Continue(())
            })?;
        }
        Ok(())
    }

    /// The limits of a rule and the buckets that a flow draws from.
    fn rule_state(&self, rule: u32, key: &FlowKey) -> Result<Vec<LimitAnswer>, DataPlaneError> {
        let limits = self.rule_limits()?;
        let now = precise_now();
        let mut answers = Vec::new();
        for limit in limits.of_rule(rule) {
            let bucket = bucket_of(
                &limit.record,
                key,
                FlowFlags::new(false, Side::Outer, Side::Own, 0),
            );
            let value = self.tables.bucket(&bucket)?.unwrap_or(0);
            let fill = fill(&limit.record, value, now);
            // A rate refuses when not even one unit more fits.
            let one = if kind(&limit.record) == Some(LimitKind::Flows) {
                0.0
            } else {
                share(super::super::limits::rate(&limit.record))
            };
            answers.push(LimitAnswer {
                limit: info(limit, &bucket, value, fill, &lock(&self.names)),
                refuses: fill + one > 1.0 || fill >= 1.0,
            });
        }
        Ok(answers)
    }

    fn source_state(
        &self,
        current: &InForce,
        flow: &Flow,
        realm: u32,
    ) -> Result<Option<SourceAnswer>, DataPlaneError> {
        let key = source_key(flow.src, realm);
        let Some(source) = self.tables.source(&key)? else {
            return Ok(None);
        };
        let lines = current.tables.lines.as_slice();
        let caps = classify::protect(lines).map_or([0; 2], |protect| [protect.w[3], protect.w[4]]);
        let [unconfirmed_cap, flows_cap] = caps.map(|cap| (cap != 0).then_some(cap));
        let (now, clock) = (coarse_now(), WallClock::read());
        let later = |time: u64| (time > now).then(|| clock.at(time));
        Ok(Some(SourceAnswer {
            source: census::prefix(key.family as u8, key.addr, if key.family == 4 { 32 } else { 64 }),
            unconfirmed: opened(&source, now),
            unconfirmed_cap,
            flows: source.flows,
            flows_cap,
            banned_until: later(source.banned_until),
            proved_until: later(source.proved_until),
            spared: spared(current, flow),
        }))
    }

    fn flood_state(
        &self,
        current: &InForce,
        flow: &Flow,
        realm: u32,
    ) -> Result<Option<FloodAnswer>, DataPlaneError> {
        let (number, name) = match flow.proto {
            Proto::TCP => (threshold::SYN, "syn_flood"),
            Proto::ICMP | Proto::ICMPV6 => (threshold::ICMP, "icmp_flood"),
            _ => (threshold::UDP, "udp_flood"),
        };
        let lines = current.tables.lines.as_slice();
        let Some(protect) = classify::protect(lines) else {
            return Ok(None);
        };
        let mode = match protect.w[5 + number as usize] {
            mode if mode == ProtectMode::Drop as u32 => "drop",
            mode if mode == ProtectMode::Count as u32 => "count",
            _ => "skip",
        };
        let Some(record) = super::super::limits::threshold(lines, number).filter(|_| mode != "skip") else {
            return Ok(None);
        };
        let now = precise_now();
        let (own, all) = pressure_slots(self.tables.control().secret[1], &words(flow.dst), realm, number);
        Ok(Some(FloodAnswer {
            threshold: name.to_owned(),
            mode: mode.to_owned(),
            destination: fill(&record, self.tables.pressure(own)?, now),
            all: fill(&record, self.tables.pressure(all)?, now),
        }))
    }
}

/// What one unit takes of a bucket.
#[expect(clippy::cast_precision_loss, reason = "a share for people")]
fn share(rate: fw_common::limit::Rate) -> f64 {
    rate.cost(1) as f64 / rate.burst.max(1) as f64
}

#[expect(clippy::cast_precision_loss, reason = "seconds for people")]
fn seconds(ns: u64) -> f64 {
    ns as f64 / SECOND_NS as f64
}

fn opened(source: &Source, now: u64) -> u32 {
    if source.window == (now >> WINDOW_SHIFT) as u32 {
        source.opened
    } else {
        0
    }
}

/// True if caps, bans and floods do not hold for the flow's source: see `pipeline/admit.rs`.
fn spared(current: &InForce, flow: &Flow) -> bool {
    let own: Vec<IpAddr> = current.own.iter().copied().collect();
    if own.contains(&flow.src) {
        return true;
    }
    let policy = &current.policy;
    let zones = policy.zones_of(flow.tags(), flow.src, &own);
    zones
        .iter()
        .any(|zone| policy.zones[*zone].lifeline || policy.protect.exempt.contains(zone))
}

/// How a flow in the tables fits the question.
struct Fit {
    exact: bool,
    opposite: bool,
}

/// Compares addresses, protocol, tags and ports; the source port only to tell whether it is the very flow.
fn fits(asked: &Flow, key: &FlowKey, entry: &Entry) -> Option<Fit> {
    let known = Known::new(key, entry);
    if known.proto != asked.proto || known.tags != realm(asked, 0) {
        return None;
    }
    let opposite = match (known.src == asked.src, known.dst == asked.dst) {
        (true, true) => false,
        _ if known.src == asked.dst && known.dst == asked.src => true,
        _ => return None,
    };
    let ports = matches!(asked.proto, Proto::TCP | Proto::UDP | Proto::SCTP);
    if !ports {
        // An echo is a flow of its identifier, which the notation does not say.
        let echo = matches!(asked.proto, Proto::ICMP | Proto::ICMPV6);
        let asks = !echo || asked.selector == echo_request(asked.proto);
        return asks.then_some(Fit {
            exact: !echo,
            opposite,
        });
    }
    let (from, to) = if opposite {
        (known.dport, known.sport)
    } else {
        (known.sport, known.dport)
    };
    (to == asked.selector).then_some(Fit {
        exact: from == asked.source_port(),
        opposite,
    })
}

/// A key's ends, the opener first.
struct Known {
    src: IpAddr,
    dst: IpAddr,
    sport: u16,
    dport: u16,
    proto: u8,
    /// The realm without the port's.
    tags: u32,
}

impl Known {
    fn new(key: &FlowKey, entry: &Entry) -> Self {
        let ((lo, lo_port), (hi, hi_port), realm, proto) = match key {
            FlowKey::V4(key) => (
                (v4(key.lo), key.lo_port),
                (v4(key.hi), key.hi_port),
                key.full_realm(),
                key.proto,
            ),
            FlowKey::V6(key) => (
                (v6(key.lo), key.lo_port),
                (v6(key.hi), key.hi_port),
                key.full_realm(),
                key.proto,
            ),
        };
        let (from, to) = if FlowFlags(entry.flags).opener_hi() {
            ((hi, hi_port), (lo, lo_port))
        } else {
            ((lo, lo_port), (hi, hi_port))
        };
        // Of two tags the realm says nothing of the port.
        let tags = if realm >> 16 == 0 { realm & 0xfff } else { realm };
        Self {
            src: from.0,
            dst: to.0,
            sport: from.1,
            dport: to.1,
            proto,
            tags,
        }
    }
}

fn v4(address: Ip4) -> IpAddr {
    std::net::Ipv4Addr::from_bits(address.0).into()
}

fn v6(address: Ip6) -> IpAddr {
    std::net::Ipv6Addr::from_bits(address.to_bits()).into()
}

/// The realm of a packet at a port of this realm.
fn realm(flow: &Flow, port: u8) -> u32 {
    match flow.inner_vlan {
        0 => u32::from(port) << 12 | u32::from(flow.vlan),
        inner => stacked_realm(flow.vlan, inner).unwrap_or(u32::MAX),
    }
}

/// An address as the packet path holds it.
fn words(address: IpAddr) -> [u32; 4] {
    match address {
        IpAddr::V4(address) => [address.to_bits(), 0, 0, 0],
        IpAddr::V6(address) => Ip6::from_bits(address.to_bits()).0,
    }
}

fn source_key(source: IpAddr, realm: u32) -> SourceKey {
    let words = words(source);
    let v4 = source.is_ipv4();
    SourceKey {
        addr: [words[0], if v4 { 0 } else { words[1] }, 0, 0],
        realm,
        family: if v4 { 4 } else { 6 },
    }
}

/// A key with the flow's source as its `lo` side: buckets of limits do not mind the order.
fn key(flow: &Flow, realm: u32) -> FlowKey {
    let (src, dst) = (words(flow.src), words(flow.dst));
    let (low, high) = (realm as u16, (realm >> 16) as u8);
    if flow.src.is_ipv4() {
        FlowKey::V4(Key4 {
            lo: Ip4(src[0]),
            hi: Ip4(dst[0]),
            realm: low,
            realm_high: high,
            proto: flow.proto,
            ..Key4::default()
        })
    } else {
        FlowKey::V6(Key6 {
            lo: Ip6(src),
            hi: Ip6(dst),
            realm: low,
            realm_high: high,
            proto: flow.proto,
            ..Key6::default()
        })
    }
}
