//! The bits of flows, while they are filled anew under living flows and between packets of strangers.

use anyhow::{Result, ensure};
use fw_common::abi::{Presence, Reason};

use crate::case::{Connection, Net, Way};
use crate::rig::Rig;
use crate::stand::Stand;

const FLOWS: u16 = 200;
const POLICY: &str = r#"
version: 1
zones:
  clients: { addresses: [10.1.0.0/16, "fd00:1::/64"] }
  servers: { addresses: [10.2.0.0/16, "fd00:2::/64"] }
rules:
  - { name: jobs, allow: [http], from: clients, to: servers }
"#;

fn connection(net: &Net, number: u16) -> Connection {
    let mut c = net.connection(80);
    c.client.1 = 20_000 + number;
    c
}

/// A stranger: its packet has no flow and opens none, so the next packet begins with the bits.
fn stranger(rig: &mut Rig, net: &Net, number: u16) -> Result<()> {
    let mut c = net.connection(99);
    c.client.1 = 40_000 + number;
    rig.meets(Way::Outer, &c.c("S", 1, 0), Reason::DenyDefault)?;
    rig.meets(Way::Outer, &c.c("A", 1, 1), Reason::TcpNoFlow)
}

fn opens(rig: &mut Rig, net: &Net, numbers: std::ops::Range<u16>) -> Result<()> {
    for number in numbers {
        let c = connection(net, number);
        rig.meets(Way::Outer, &c.c("S", 1000, 0), Reason::Rule)?;
        stranger(rig, net, number)?;
        rig.meets(Way::Inner, &c.s("SA", 5000, 1001), Reason::Established)?;
        stranger(rig, net, number)?;
        rig.meets(Way::Outer, &c.c("A", 1001, 5001), Reason::Established)?;
    }
    Ok(())
}

/// A packet of each side, one of them asked after a stranger's.
fn speak(rig: &mut Rig, net: &Net, numbers: std::ops::Range<u16>) -> Result<()> {
    for number in numbers {
        let c = connection(net, number);
        stranger(rig, net, number)?;
        rig.meets(Way::Inner, &c.s("A", 5001, 1001), Reason::Established)?;
        rig.meets(Way::Outer, &c.c("A", 1001, 5001), Reason::Established)?;
    }
    Ok(())
}

#[test]
fn flows_are_found_while_the_bits_are_filled_anew() -> Result<()> {
    for stand in Stand::ALL {
        for ipv6 in [false, true] {
            let mut rig = Rig::new(stand)?;
            let net = Net::new(ipv6, stand.inline());
            rig.apply(POLICY)?;
            opens(&mut rig, &net, 0..FLOWS)?;
            speak(&mut rig, &net, 0..FLOWS)?;
            let load = rig.plane().tables().presence_load();
            ensure!(load.is_some_and(|load| load > 0.0 && load < 0.01), "{load:?}");
            let halves = [0, 1].map(|_| -> Result<u32> {
                rig.plane().tables().fill_presence()?;
                speak(&mut rig, &net, 0..FLOWS)?;
                Ok(rig.plane().tables().control().presence & Presence::SECOND)
            });
            let [Ok(first), Ok(second)] = halves else {
                anyhow::bail!("{halves:?}");
            };
            ensure!(first != second, "the halves take turns");
            ensure!(
                rig.plane().tables().presence_load() == load,
                "the same flows have the same bits"
            );
            // Flows that are opened while a half is being filled, and nobody tells of them.
            let filling = rig.plane().tables().begin_presence()?;
            opens(&mut rig, &net, FLOWS..FLOWS + 20)?;
            speak(&mut rig, &net, 0..FLOWS + 20)?;
            let Some(filling) = filling else {
                anyhow::bail!("this kernel knows no grace period");
            };
            rig.plane().tables().finish_presence(&filling);
            speak(&mut rig, &net, FLOWS..FLOWS + 20)?;
            // One that was dropped half-way changes nothing.
            rig.plane().tables().fill_presence()?;
            let _half_way = rig.plane().tables().begin_presence()?;
            speak(&mut rig, &net, 0..FLOWS + 20)?;
            rig.counters_add_up()?;
        }
    }
    Ok(())
}

/// Bits that nobody has set: the flows of the packet path are not found, which shows that it asks them.
#[test]
fn flows_without_bits_are_not_looked_for() -> Result<()> {
    let mut rig = Rig::new(Stand::InlineXdp)?;
    let net = Net::new(false, true);
    rig.apply(POLICY)?;
    opens(&mut rig, &net, 0..1)?;
    let Some(empty) = rig.plane().tables().begin_presence()? else {
        anyhow::bail!("this kernel knows no grace period");
    };
    rig.plane().tables().finish_presence(&empty);
    let c = connection(&net, 0);
    stranger(&mut rig, &net, 0)?;
    rig.meets(Way::Outer, &c.c("A", 1001, 5001), Reason::TcpNoFlow)?;
    rig.plane().tables().fill_presence()?;
    speak(&mut rig, &net, 0..1)
}
