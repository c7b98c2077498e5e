//! Before the first policy, and on a port that nobody configured.

use anyhow::{Result, ensure};
use fw_common::abi::{Reason, Verdict};
use fw_tests::packet::{MAC_A, Packet, link};
use fw_user::dataplane::Hook;

use crate::case::{Net, POLICY, Way};
use crate::rig::Rig;
use crate::stand::Stand;

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
