//! The answers themselves, byte by byte: programs loaded as in earnest, their frames read by an independent parser.
//!
//! What a program returns to the kernel says nothing of a reason; the counters do.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result, anyhow, ensure};
use etherparse::{SlicedPacket, TransportSlice};
use fw_common::abi::{LinkKind, Reason};
use fw_common::reply::PROOF_SLOT_NS;
use fw_tests::packet::{MAC_A, MAC_B, Packet};
use fw_user::dataplane::{Hook, TestOutcome};

use crate::case::{Net, SECOND, Step, Way};
use crate::protect::FLOODS;
use crate::rig::{Rig, SIZES};
use crate::stand::Stand;

const POLICY: &str = r#"
version: 1
zones:
  clients: { addresses: [10.1.0.0/16, "fd00:1::/64"] }
  servers: { addresses: [10.2.0.0/16, "fd00:2::/64"] }
  tenant:  { addresses: [10.1.0.0/16, 10.2.0.0/16, "fd00:1::/64", "fd00:2::/64"], vlan: [100, 7] }
rules:
  - { name: web,    allow: [http], from: clients, to: servers }
  - { name: refuse, reject: [tcp/23, udp/23, ping], from: clients, to: servers }
  - { name: nested, reject: [tcp/23], from: tenant, to: tenant }
"#;

/// What programs return (`include/uapi/linux/bpf.h`): drop, and send somewhere else.
fn codes(hook: Hook) -> (u32, u32) {
    if hook == Hook::XdpIn { (1, 4) } else { (2, 7) }
}

struct Bench {
    rig: Rig,
    counted: BTreeMap<u8, u64>,
}

impl Bench {
    fn new(stand: Stand, policy: &str) -> Result<Self> {
        let mut rig = Rig::load(stand, SIZES, false)?;
        rig.apply(policy)?;
        Ok(Self {
            rig,
            counted: BTreeMap::new(),
        })
    }

    /// One frame: what the program did with it, and the reason that was counted.
    fn send(&mut self, way: Way, frame: &[u8]) -> Result<(Hook, TestOutcome, Reason)> {
        let hook = self.rig.prepare(way)?;
        let outcome = self.rig.raw(hook, frame)?;
        let counters = self.rig.plane().tables().counters()?;
        let counted: BTreeMap<u8, u64> = counters
            .into_iter()
            .map(|(reason, count)| (reason, count.packets))
            .collect();
        let more: Vec<u8> = counted
            .iter()
            .filter(|(reason, count)| self.counted.get(reason) != Some(count))
            .map(|(reason, _)| *reason)
            .collect();
        self.counted = counted;
        let [number] = more[..] else {
            return Err(anyhow!("one packet was counted as {more:?}"));
        };
        let reason = Reason::from_number(number).context("an unknown reason")?;
        Ok((hook, outcome, reason))
    }

    /// One frame that must be answered for this reason; the answer.
    fn answered(&mut self, way: Way, frame: &[u8], reason: Reason) -> Result<Vec<u8>> {
        let (hook, outcome, found) = self.send(way, frame)?;
        ensure!(
            (found, outcome.returned) == (reason, codes(hook).1),
            "{hook}: {} and an answer were expected, found {} and code {}",
            reason.name(),
            found.name(),
            outcome.returned
        );
        Ok(outcome.frame)
    }

    /// One frame that must end with this reason and without an answer.
    fn silent(&mut self, way: Way, frame: &[u8], reason: Reason) -> Result<()> {
        let (hook, outcome, found) = self.send(way, frame)?;
        let answer = outcome.returned == codes(hook).1;
        let dropped = outcome.returned == codes(hook).0;
        ensure!(
            found == reason && dropped != reason.allows() && (!answer || reason.allows()),
            "{hook}: {} was expected, found {} and code {}",
            reason.name(),
            found.name(),
            outcome.returned
        );
        Ok(())
    }
}

/// Addresses of the IP header and of the Ethernet header are exchanged, tags are kept, nothing follows the packet.
fn comes_back<'a>(frame: &'a [u8], asked: &Packet, tags: &[u16]) -> Result<SlicedPacket<'a>> {
    let sent = asked.build();
    let sliced = SlicedPacket::from_ethernet(frame)?;
    ensure!(
        frame[..6] == sent[6..12] && frame[6..12] == sent[..6],
        "the Ethernet addresses are wrong"
    );
    let found: Vec<u16> = sliced.vlan_ids().iter().map(|id| id.value()).collect();
    ensure!(found == tags, "the tags are {found:?}");
    let (from, to) = ends(&sliced)?;
    let original = SlicedPacket::from_ethernet(&sent)?;
    let (asked_from, asked_to) = ends(&original)?;
    ensure!((from, to) == (asked_to, asked_from), "from {from} to {to}");
    let ip = sliced.net.as_ref().context("no IP header")?;
    if let Some(header) = ip.ipv4_ref() {
        let header = header.header();
        ensure!(
            header.to_header().calc_header_checksum() == header.header_checksum(),
            "the IPv4 header's checksum is wrong"
        );
        ensure!(
            usize::from(header.total_len()) + 14 + 4 * tags.len() == frame.len(),
            "the length is wrong"
        );
    }
    Ok(sliced)
}

fn ends(sliced: &SlicedPacket<'_>) -> Result<(IpAddr, IpAddr)> {
    let ip = sliced.net.as_ref().context("no IP header")?;
    if let Some(ip) = ip.ipv4_ref() {
        let header = ip.header();
        return Ok((header.source_addr().into(), header.destination_addr().into()));
    }
    let header = ip.ipv6_ref().context("no IP header")?.header();
    Ok((header.source_addr().into(), header.destination_addr().into()))
}

/// The answer is a reset with these numbers and a right checksum.
fn is_reset(
    frame: &[u8],
    asked: &Packet,
    tags: &[u16],
    (sequence, acknowledgement): (u32, u32),
) -> Result<()> {
    let sliced = comes_back(frame, asked, tags)?;
    let Some(TransportSlice::Tcp(tcp)) = &sliced.transport else {
        return Err(anyhow!("no TCP in {sliced:?}"));
    };
    let header = tcp.to_header();
    ensure!(header.rst && !header.syn && !header.fin, "{header:?} is no reset");
    ensure!(
        (tcp.sequence_number(), tcp.acknowledgment_number()) == (sequence, acknowledgement),
        "the reset's numbers are {} and {}",
        tcp.sequence_number(),
        tcp.acknowledgment_number()
    );
    sum_is_right(&sliced)
}

fn sum_is_right(sliced: &SlicedPacket<'_>) -> Result<()> {
    let right = match (ends(sliced)?, &sliced.transport) {
        ((IpAddr::V4(from), IpAddr::V4(to)), Some(TransportSlice::Tcp(tcp))) => {
            tcp.calc_checksum_ipv4(from.octets(), to.octets())? == tcp.checksum()
        }
        ((IpAddr::V6(from), IpAddr::V6(to)), Some(TransportSlice::Tcp(tcp))) => {
            tcp.calc_checksum_ipv6(from.octets(), to.octets())? == tcp.checksum()
        }
        (_, Some(TransportSlice::Icmpv4(icmp))) => {
            icmp.icmp_type().calc_checksum(icmp.payload()) == icmp.checksum()
        }
        ((IpAddr::V6(from), IpAddr::V6(to)), Some(TransportSlice::Icmpv6(icmp))) => {
            icmp.is_checksum_valid(from.octets(), to.octets())
        }
        _ => return Err(anyhow!("no transport in {sliced:?}")),
    };
    ensure!(right, "the checksum is wrong");
    Ok(())
}

/// The answer says "administratively prohibited" and quotes the packet.
fn is_prohibited(frame: &[u8], asked: &Packet) -> Result<()> {
    let sliced = comes_back(frame, asked, &[])?;
    let (numbers, quote) = match &sliced.transport {
        Some(TransportSlice::Icmpv4(icmp)) => ((icmp.type_u8(), icmp.code_u8()), icmp.payload()),
        Some(TransportSlice::Icmpv6(icmp)) => ((icmp.type_u8(), icmp.code_u8()), icmp.payload()),
        other => return Err(anyhow!("no ICMP in {other:?}")),
    };
    let wanted = if asked.ipv6() { (1, 1) } else { (3, 13) };
    ensure!(numbers == wanted, "type and code are {numbers:?}");
    let original = asked.ip_packet();
    let least = if asked.ipv6() { 48 } else { 28 };
    ensure!(
        quote.len() >= least.min(original.len()) && original.starts_with(quote),
        "the quote of {} bytes is {quote:02x?}",
        quote.len()
    );
    sum_is_right(&sliced)
}

#[test]
fn rejected_packets_are_answered() -> Result<()> {
    for stand in Stand::ALL {
        let mut bench = Bench::new(stand, POLICY)?;
        for ipv6 in [false, true] {
            let net = Net::new(ipv6, stand.inline());
            let c = net.connection(23);
            let reject = |frame: &Packet, bench: &mut Bench| {
                bench
                    .answered(Way::Outer, &frame.build(), Reason::RejectRule)
                    .with_context(|| format!("{stand:?}"))
            };
            for (syn, next) in [
                (c.c("S", 1000, 0), 1001),
                (c.c("S", 1000, 0).payload(&[7; 100]).tcp_options(&[1; 40]), 1101),
                (c.c("S", u32::MAX, 0).trailer(10), 0),
            ] {
                let frame = reject(&syn, &mut bench)?;
                is_reset(&frame, &syn, &[], (0, next)).with_context(|| format!("{stand:?}, {syn:?}"))?;
            }
            let tagged = c.c("S", 1000, 0).tags(&[100, 7]);
            let frame = reject(&tagged, &mut bench)?;
            is_reset(&frame, &tagged, &[100, 7], (0, 1001))
                .with_context(|| format!("{stand:?}, two tags"))?;
            for asked in [
                Packet::udp((net.client, 5000), (net.server, 23)),
                Packet::udp((net.client, 5000), (net.server, 23)).payload(&[7; 1000]),
                Packet::echo_request(net.client, net.server, 7, 1).payload(&[7; 50]),
            ] {
                let frame = reject(&asked, &mut bench)?;
                is_prohibited(&frame, &asked).with_context(|| format!("{stand:?}, {asked:?}"))?;
            }
            let group = c.c("S", 1000, 0).macs(MAC_A, [0xff; 6]);
            bench.silent(Way::Outer, &group.build(), Reason::RejectRule)?;
        }
    }
    Ok(())
}

/// This machine's own packets too: the answer comes in by the port.
#[test]
fn own_rejected_packets_are_answered() -> Result<()> {
    const OWN: &str = r#"
version: 1
zones: { clients: { addresses: [10.1.0.0/16, "fd00:1::/64"] } }
rules: [{ name: refuse, reject: [tcp/23, udp/23], from: self, to: clients }]
"#;
    for stand in Stand::ALL {
        let mut bench = Bench::new(stand, OWN)?;
        for ipv6 in [false, true] {
            let net = Net::new(ipv6, stand.inline());
            let syn = Packet::tcp((net.own, 40_000), (net.client, 23))
                .flags("S")
                .numbers(1000, 0);
            let frame = bench.answered(Way::Own, &syn.build(), Reason::RejectRule)?;
            is_reset(&frame, &syn, &[], (0, 1001)).with_context(|| format!("{stand:?}"))?;
            let query = Packet::udp((net.own, 40_000), (net.client, 23)).payload(&[7; 500]);
            let frame = bench.answered(Way::Own, &query.build(), Reason::RejectRule)?;
            is_prohibited(&frame, &query).with_context(|| format!("{stand:?}"))?;
        }
    }
    Ok(())
}

/// The same on ports without Ethernet headers.
#[test]
fn rejected_packets_without_a_link_header_are_answered() -> Result<()> {
    for stand in [Stand::HostTc, Stand::InlineTc] {
        let mut bench = Bench::new(stand, POLICY)?;
        bench.rig.link = LinkKind::Raw;
        for ipv6 in [false, true] {
            let net = Net::new(ipv6, stand.inline());
            let syn = net.connection(23).c("S", 1000, 0);
            let answer = bench.answered(Way::Outer, &syn.ip_packet(), Reason::RejectRule)?;
            let ethertype: u16 = if ipv6 { 0x86dd } else { 0x0800 };
            let framed = [&[MAC_A, MAC_B].concat()[..], &ethertype.to_be_bytes(), &answer].concat();
            is_reset(&framed, &syn, &[], (0, 1001)).with_context(|| format!("{stand:?}"))?;
        }
    }
    Ok(())
}

/// A flood: the SYN is answered with a demand that only its sender sees; his reset proves him, and his second SYN passes.
/// Without the proof none ever does.
#[test]
fn a_source_proves_that_it_exists() -> Result<()> {
    for stand in Stand::ALL {
        let mut bench = Bench::new(stand, FLOODS)?;
        for ipv6 in [false, true] {
            proves(&mut bench, &Net::new(ipv6, stand.inline()))
                .with_context(|| format!("{stand:?}, IPv6: {ipv6}"))?;
            bench.rig.other(&Step::Wait(100 * SECOND))?;
        }
    }
    Ok(())
}

/// A proof counts for a minute, and the number of a demand in its own slot of time and in the next.
#[test]
fn proofs_and_demands_grow_old() -> Result<()> {
    for stand in Stand::ALL {
        let mut bench = Bench::new(stand, FLOODS)?;
        for ipv6 in [false, true] {
            grow_old(&mut bench, &Net::new(ipv6, stand.inline()))
                .with_context(|| format!("{stand:?}, IPv6: {ipv6}"))?;
            bench.rig.other(&Step::Wait(100 * SECOND))?;
        }
    }
    Ok(())
}

fn grow_old(bench: &mut Bench, net: &Net) -> Result<()> {
    const MS: u64 = 1_000_000;
    // A number is good until one slot after its own has ended.
    bench.flood(net, 5000)?;
    let number = bench.demand(net, 5002)?;
    bench.rig.other(&Step::Wait(PROOF_SLOT_NS - MS))?;
    bench.silent(Way::Outer, &reset(net, 5002, number), Reason::SynProved)?;
    for (wait, third) in [(59, Reason::Rule), (2, Reason::SynProof)] {
        bench.rig.other(&Step::Wait(wait * SECOND))?;
        bench.flood(net, 6000 + wait as u16)?;
        let asked = syn(net, 6900 + wait as u16).build();
        if third == Reason::SynProof {
            bench.answered(Way::Outer, &asked, third)?;
        } else {
            bench.silent(Way::Outer, &asked, third)?;
        }
    }
    let late = bench.demand(net, 7002)?;
    bench.rig.other(&Step::Wait(2 * PROOF_SLOT_NS + MS))?;
    bench.silent(Way::Outer, &reset(net, 7002, late), Reason::TcpNoFlow)
}

fn syn(net: &Net, source: u16) -> Packet {
    Packet::tcp((net.stranger, source), (net.server, 80))
        .flags("S")
        .numbers(9000, 0)
}

fn reset(net: &Net, source: u16, sequence: u32) -> Vec<u8> {
    Packet::tcp((net.stranger, source), (net.server, 80))
        .flags("R")
        .numbers(sequence, 0)
        .build()
}

impl Bench {
    /// As many SYNs as may come before the next one is asked for a proof.
    fn flood(&mut self, net: &Net, source: u16) -> Result<()> {
        self.silent(Way::Outer, &syn(net, source).build(), Reason::Rule)?;
        self.silent(Way::Outer, &syn(net, source + 1).build(), Reason::Rule)
    }

    /// A SYN that must be answered with a demand; the number that the demand acknowledges.
    fn demand(&mut self, net: &Net, source: u16) -> Result<u32> {
        let asked = syn(net, source);
        let frame = self.answered(Way::Outer, &asked.build(), Reason::SynProof)?;
        let sliced = comes_back(&frame, &asked, &[])?;
        sum_is_right(&sliced)?;
        let Some(TransportSlice::Tcp(tcp)) = &sliced.transport else {
            return Err(anyhow!("no TCP in {sliced:?}"));
        };
        ensure!(tcp.syn() && tcp.ack() && !tcp.rst(), "{tcp:?} is no SYN-ACK");
        let number = tcp.acknowledgment_number();
        let below = 9000_u32.wrapping_sub(number);
        ensure!(
            (1..=65_536).contains(&below),
            "the demand acknowledges {number}, which a client would take for an answer"
        );
        Ok(number)
    }
}

fn proves(bench: &mut Bench, net: &Net) -> Result<()> {
    bench.flood(net, 5000)?;
    for _ in 0..5 {
        bench.demand(net, 5002)?;
    }
    let number = bench.demand(net, 5002)?;
    // Guesses, another port's number, and the right number too late.
    bench.silent(
        Way::Outer,
        &reset(net, 5002, number.wrapping_add(1)),
        Reason::TcpNoFlow,
    )?;
    bench.silent(Way::Outer, &reset(net, 5003, number), Reason::TcpNoFlow)?;
    bench.demand(net, 5002)?;
    bench.silent(Way::Outer, &reset(net, 5002, number), Reason::SynProved)?;
    bench.flood(net, 5002)?;
    // Later it must be proved anew, and an old number proves nothing.
    bench.rig.other(&Step::Wait(130 * SECOND))?;
    bench.flood(net, 6000)?;
    bench.demand(net, 6002)?;
    bench.silent(Way::Outer, &reset(net, 5002, number), Reason::TcpNoFlow)?;
    bench.demand(net, 6002).map(drop)
}
