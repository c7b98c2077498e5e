//! The threshold of SYN floods is one of half-open flows: a connection whose handshake is complete counts no more.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, ensure};
use fw_common::abi::Reason;

use crate::case::{Connection, Net, Way};
use crate::rig::Rig;
use crate::stand::Stand;

/// Half-open flows that a destination may have at once: the clock stands still, so none is forgiven.
const BURST: u16 = 10;
const POLICY: &str = r#"
version: 1
zones:
  servers: { addresses: [10.2.0.0/16, "fd00:2::/64"] }
rules:
  - { name: web, allow: [http], from: any, to: servers }
protect:
  syn_flood: { above: 10/s, burst: 10, mode: drop }
"#;

/// A connection of a source of its own (IPv6: of a /64 of its own).
fn connection(net: &Net, number: u16) -> Connection {
    let mut c = net.connection(80);
    c.client.0 = match c.client.0 {
        IpAddr::V4(_) => Ipv4Addr::from_bits(0x0b00_0000 + u32::from(number)).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0x2a00, 1, 2, number, 0, 0, 0, 1).into(),
    };
    c
}

fn meets(rig: &mut Rig, way: Way, frame: &[u8], reason: Reason) -> Result<()> {
    let report = rig.send(way, frame)?;
    ensure!(report.reason == reason, "{}: {report:?}", reason.name());
    Ok(())
}

#[test]
fn complete_handshakes_do_not_count() -> Result<()> {
    for stand in Stand::ALL {
        for ipv6 in [false, true] {
            let mut rig = Rig::new(stand)?;
            let net = Net::new(ipv6, stand.inline());
            rig.apply(POLICY)?;
            for number in 0..6 * BURST {
                let c = connection(&net, number);
                meets(&mut rig, Way::Outer, &c.c("S", 1000, 0).build(), Reason::Rule)?;
                meets(
                    &mut rig,
                    Way::Inner,
                    &c.s("SA", 5000, 1001).build(),
                    Reason::Established,
                )?;
                meets(
                    &mut rig,
                    Way::Outer,
                    &c.c("A", 1001, 5001).build(),
                    Reason::Established,
                )?;
            }
            let late = 6 * BURST..7 * BURST;
            for number in late.clone() {
                let c = connection(&net, number);
                meets(&mut rig, Way::Outer, &c.c("S", 1000, 0).build(), Reason::Rule)?;
            }
            let asked = connection(&net, 7 * BURST);
            let syn = asked.c("S", 1000, 0).build();
            meets(&mut rig, Way::Outer, &syn, Reason::SynProof)?;
            // One of those that are half open completes: there is room for one more.
            let c = connection(&net, late.start);
            meets(
                &mut rig,
                Way::Inner,
                &c.s("SA", 5000, 1001).build(),
                Reason::Established,
            )?;
            meets(
                &mut rig,
                Way::Outer,
                &c.c("A", 1001, 5001).build(),
                Reason::Established,
            )?;
            meets(&mut rig, Way::Outer, &syn, Reason::Rule)?;
            let next = connection(&net, 7 * BURST + 1);
            meets(
                &mut rig,
                Way::Outer,
                &next.c("S", 1000, 0).build(),
                Reason::SynProof,
            )?;
            rig.counters_add_up()?;
        }
    }
    Ok(())
}
