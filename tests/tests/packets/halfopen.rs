//! The threshold of SYN floods is one of half-open flows: a connection whose handshake is complete counts no more.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use fw_common::abi::Reason;

use crate::case::{Connection, Net, SECOND, Step, Way};
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

fn asks(rig: &mut Rig, c: &Connection, reason: Reason) -> Result<()> {
    rig.meets(Way::Outer, &c.c("S", 1000, 0), reason)
}

/// The rest of the handshake.
fn completes(rig: &mut Rig, c: &Connection) -> Result<()> {
    rig.meets(Way::Inner, &c.s("SA", 5000, 1001), Reason::Established)?;
    rig.meets(Way::Outer, &c.c("A", 1001, 5001), Reason::Established)
}

fn everywhere(run: impl Fn(&mut Rig, &dyn Fn(u16) -> Connection) -> Result<()>) -> Result<()> {
    for stand in Stand::ALL {
        for ipv6 in [false, true] {
            let mut rig = Rig::new(stand)?;
            let net = Net::new(ipv6, stand.inline());
            rig.apply(POLICY)?;
            run(&mut rig, &|number| connection(&net, number))?;
            rig.counters_add_up()?;
        }
    }
    Ok(())
}

#[test]
fn complete_handshakes_do_not_count() -> Result<()> {
    everywhere(|rig, connection| {
        for number in 0..6 * BURST {
            let c = connection(number);
            asks(rig, &c, Reason::Rule)?;
            completes(rig, &c)?;
        }
        for number in 6 * BURST..7 * BURST {
            asks(rig, &connection(number), Reason::Rule)?;
        }
        let one_more = connection(7 * BURST);
        asks(rig, &one_more, Reason::SynProof)?;
        // One of those that are half open completes: there is room for one more.
        completes(rig, &connection(6 * BURST))?;
        asks(rig, &one_more, Reason::Rule)?;
        asks(rig, &connection(7 * BURST + 1), Reason::SynProof)
    })
}

/// What took longer than the burst has drained meanwhile. Were it given back, who holds handshakes open for long could make
/// room for a flood.
#[test]
fn late_handshakes_give_nothing_back() -> Result<()> {
    everywhere(|rig, connection| {
        for number in 0..BURST {
            asks(rig, &connection(number), Reason::Rule)?;
        }
        rig.other(&Step::Wait(5 * SECOND))?;
        for number in BURST..2 * BURST {
            asks(rig, &connection(number), Reason::Rule)?;
        }
        for number in 0..BURST {
            completes(rig, &connection(number))?;
        }
        asks(rig, &connection(2 * BURST), Reason::SynProof)
    })
}
