//! Before the first policy, on a port that nobody configured, and when the tables are full.

use anyhow::{Result, ensure};
use fw_common::abi::{Reason, Verdict};
use fw_tests::packet::{MAC_A, Packet, link};
use fw_user::dataplane::{FlowSizes, FlowTable, Hook};

use crate::case::{Net, POLICY, Way};
use crate::rig::{Rig, Stand};

fn frames(net: &Net) -> Vec<Vec<u8>> {
    vec![
        net.connection(80).c("S", 1, 0).build(),
        Packet::udp((net.client, 5353), (net.server, 53)).build(),
        Packet::echo_request(net.client, net.server, 7, 1).build(),
        link::arp_request((MAC_A, [10, 1, 0, 7].into()), [10, 2, 0, 1].into()),
        link::lldp(),
    ]
}

#[test]
fn without_a_policy_everything_is_closed() -> Result<()> {
    for stand in Stand::ALL {
        let mut rig = Rig::new(stand)?;
        for frame in [frames(&Net::new(false, false)), frames(&Net::new(true, false))].concat() {
            for way in [Way::Outer, Way::Inner, Way::Own] {
                let report = rig.send(way, &frame)?;
                ensure!(
                    (report.verdict, report.reason) == (Verdict::Drop, Reason::NoPolicy),
                    "{stand:?}: {report:?}"
                );
            }
        }
        rig.counters_add_up()?;
    }
    Ok(())
}

#[test]
fn an_unknown_port_is_closed() -> Result<()> {
    let mut rig = Rig::new(Stand::HostXdp)?;
    rig.apply(POLICY)?;
    for frame in frames(&Net::new(false, false)) {
        for hook in Hook::ALL {
            let report = rig.judge(hook, &frame)?;
            ensure!(
                (report.verdict, report.reason) == (Verdict::Drop, Reason::UnknownPort),
                "{hook}: {report:?}"
            );
        }
    }
    rig.counters_add_up()
}

/// Established flows go on, new ones are refused, and a flow that ends makes room.
#[test]
fn a_full_table_refuses_new_flows_and_keeps_the_old() -> Result<()> {
    // The kernel gives a preallocated hash a few entries more than asked for, one for each CPU.
    let sizes = FlowSizes {
        flows4: 8,
        flows6: 8,
        half4: 1024,
        half6: 1024,
        ..FlowSizes::DEFAULT
    };
    for ipv6 in [false, true] {
        let mut rig = Rig::with_sizes(Stand::HostXdp, sizes)?;
        rig.apply(POLICY)?;
        let net = Net::new(ipv6, false);
        let mut established = Vec::new();
        let mut refused = 0;
        for port in 0..40 {
            let mut c = net.connection(80);
            c.client.1 = 40_000 + port;
            ensure!(rig.send(Way::Outer, &c.c("S", 1000, 0).build())?.reason == Reason::Rule);
            ensure!(rig.send(Way::Inner, &c.s("SA", 5000, 1001).build())?.reason == Reason::Established);
            let report = rig.send(Way::Outer, &c.c("A", 1001, 5001).build())?;
            match (report.verdict, report.reason) {
                (Verdict::Pass, Reason::Established) => established.push(c),
                (Verdict::Drop, Reason::TableFull) => refused += 1,
                _ => anyhow::bail!("flow {port}: {report:?}"),
            }
        }
        ensure!(
            established.len() >= 8 && refused > 0,
            "{} established, {refused} refused",
            established.len()
        );
        ensure!(
            rig.count(FlowTable::Main)? == established.len(),
            "the main table holds another number of flows"
        );
        for c in established {
            let report = rig.send(Way::Inner, &c.s("A", 5001, 1001).payload(b"x").build())?;
            ensure!(
                report.reason == Reason::Established,
                "an established flow was cut: {report:?}"
            );
        }
        rig.counters_add_up()?;
    }
    Ok(())
}
