//! Frames that no ordinary client sends.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use fw_common::abi::Reason;
use fw_tests::packet::{Packet, link};
use fw_tests::wire::Wire;

use crate::guarded::{Guarded, SHORTLY, SOON};

/// Packet sockets at both ends.
struct Ends {
    client: Wire,
    server: Wire,
}

impl Ends {
    fn open(guarded: &Guarded) -> Result<Self> {
        Ok(Self {
            client: Wire::open(&guarded.scene.client.namespace, "eth0")?,
            server: Wire::open(&guarded.scene.server.namespace, "eth0")?,
        })
    }

    /// The frame passes from the client to the server, as it is, and is counted so.
    fn passes(&self, guarded: &Guarded, frame: &[u8], reason: Reason) -> Result<()> {
        guarded.counts(reason, || passes(&self.client, &self.server, frame))
    }

    /// The frame passes from the server to the client.
    fn passes_back(&self, guarded: &Guarded, frame: &[u8], reason: Reason) -> Result<()> {
        guarded.counts(reason, || passes(&self.server, &self.client, frame))
    }

    /// The frame is dropped on its way from the client to the server.
    fn dropped(&self, guarded: &Guarded, frame: &[u8], reason: Reason) -> Result<()> {
        guarded.counts(reason, || {
            self.client.send(frame)?;
            let arrived = self.server.receive(SHORTLY, |arrived| arrived == frame)?;
            ensure!(
                arrived.is_none() || !guarded.taps_see_passed_only(),
                "the frame arrived"
            );
            Ok(())
        })
    }
}

fn passes(from: &Wire, to: &Wire, frame: &[u8]) -> Result<()> {
    from.send(frame)?;
    ensure!(
        to.receive(SOON, |arrived| arrived == frame)?.is_some(),
        "the frame did not arrive"
    );
    Ok(())
}

/// A datagram from the client to the server; every use has a source port of its own, so it opens a flow.
fn datagram(guarded: &Guarded, ipv6: bool, sport: u16) -> Packet {
    let (client, server) = (&guarded.scene.client, &guarded.scene.server);
    Packet::udp((client.address(ipv6), sport), (server.address(ipv6), 5300)).macs(client.mac, server.mac)
}

pub fn link_protocols(guarded: &Guarded, ipv6: bool) -> Result<()> {
    if ipv6 {
        return Ok(());
    }
    let ends = Ends::open(guarded)?;
    ends.passes(guarded, &link::lldp(), Reason::LinkLldp)?;
    ends.passes_back(guarded, &link::lldp(), Reason::LinkLldp)?;
    ends.passes(guarded, &link::lacp(), Reason::LinkLacp)?;
    ends.passes_back(guarded, &link::lacp(), Reason::LinkLacp)?;
    ends.dropped(
        guarded,
        &link::frame(link::BROADCAST, 0x88b5, &[0; 46]),
        Reason::UnknownEthertype,
    )
}

/// The guarded side is the client of DHCP, the network has the server.
pub fn dhcp(guarded: &Guarded, ipv6: bool) -> Result<()> {
    if ipv6 {
        return Ok(());
    }
    let ends = Ends::open(guarded)?;
    let discover = link::dhcp_discover();
    let offer = link::dhcp_offer(Ipv4Addr::new(10, 9, 0, 9), Ipv4Addr::new(10, 9, 0, 99));
    ends.passes_back(guarded, &discover.build(), Reason::LinkDhcp)?;
    ends.passes(
        guarded,
        &offer.macs([2, 0, 0, 0, 0, 9], guarded.scene.server.mac).build(),
        Reason::LinkDhcp,
    )?;
    // From the network nobody without an address asks for anything.
    ends.dropped(guarded, &discover.build(), Reason::ImpossibleSource)
}

pub fn known_tag(guarded: &Guarded, ipv6: bool) -> Result<()> {
    let ends = Ends::open(guarded)?;
    let packet = datagram(guarded, ipv6, 6001).tags(&[101]);
    ends.passes(guarded, &packet.build(), Reason::Rule)?;
    ends.passes_back(guarded, &packet.reversed().build(), Reason::Established)
}

pub fn unknown_tag(guarded: &Guarded, ipv6: bool) -> Result<()> {
    let ends = Ends::open(guarded)?;
    let packet = datagram(guarded, ipv6, 6002);
    ends.dropped(
        guarded,
        &packet.clone().tags(&[102]).build(),
        Reason::UnknownRealm,
    )?;
    ends.dropped(
        guarded,
        &packet.clone().tags(&[101, 101]).build(),
        Reason::UnknownRealm,
    )?;
    ends.dropped(
        guarded,
        &packet.tags(&[101, 101, 101]).build(),
        Reason::TooManyTags,
    )
}

pub fn options(guarded: &Guarded, ipv6: bool) -> Result<()> {
    const HOP_BY_HOP: u8 = 0;
    const DESTINATION: u8 = 60;
    let ends = Ends::open(guarded)?;
    let packet = datagram(guarded, ipv6, 6003);
    if !ipv6 {
        return ends.passes(guarded, &packet.ip_options(&[148, 4, 0, 0]).build(), Reason::Rule);
    }
    let two = packet
        .padding_extension(HOP_BY_HOP)
        .padding_extension(DESTINATION);
    ends.passes(guarded, &two.build(), Reason::Rule)?;
    ends.dropped(
        guarded,
        &two.padding_extension(HOP_BY_HOP).build(),
        Reason::ExtensionHeaders,
    )
}

pub fn fragments(guarded: &Guarded, ipv6: bool) -> Result<()> {
    let ends = Ends::open(guarded)?;
    let large = datagram(guarded, ipv6, 6004).payload(&[7; 2000]);
    ends.passes(guarded, &large.clone().fragment(0, 1400, 9).build(), Reason::Rule)?;
    ends.passes(
        guarded,
        &large.clone().fragment(1400, 4000, 9).build(),
        Reason::Established,
    )?;
    ends.dropped(
        guarded,
        &large.fragment(1400, 4000, 10).build(),
        Reason::FragmentEarly,
    )
}

/// None of them arrives, neither at the server nor as a flow.
pub fn cut_short(guarded: &Guarded, ipv6: bool) -> Result<()> {
    let ends = Ends::open(guarded)?;
    let frame = datagram(guarded, ipv6, 6005).build();
    let before = [Reason::Rule, Reason::Established].map(|reason| guarded.packets(reason));
    for length in 15..frame.len() {
        ends.client.send(&frame[..length])?;
    }
    let arrived = ends.server.receive(SHORTLY, |arrived| {
        frame.starts_with(arrived) && arrived.len() > 14
    })?;
    let passed = arrived.filter(|_| guarded.taps_see_passed_only());
    ensure!(
        passed.is_none(),
        "a frame of {} bytes arrived",
        passed.map_or(0, |frame| frame.len())
    );
    let after = [Reason::Rule, Reason::Established].map(|reason| guarded.packets(reason));
    for (before, after) in before.into_iter().zip(after) {
        ensure!(before? == after?, "a frame that was cut short was allowed");
    }
    Ok(())
}
