//! A new policy under 1,000 living flows whose answering side speaks first.

use anyhow::{Result, ensure};
use fw_common::abi::{Reason, Verdict};
use fw_user::dataplane::{FlowSizes, FlowTable};

use crate::case::{Connection, Net, Way};
use crate::rig::{Rig, SIZES};
use crate::stand::Stand;

const FLOWS: u16 = 1000;

/// Two services, of which the second policy knows one; opening flows is limited to what would stop most of them.
fn policy(services: &str, burst: u32) -> String {
    format!(
        r#"
version: 1
zones:
  clients: {{ addresses: [10.1.0.0/16, "fd00:1::/64"] }}
  servers: {{ addresses: [10.2.0.0/16, "fd00:2::/64"] }}
rules:
  - {{ name: jobs, allow: [{services}], from: clients, to: servers, limit: [{{ new_flows: 50/s, burst: {burst} }}] }}
"#
    )
}

fn connections(net: &Net) -> impl Iterator<Item = Connection> {
    let (even, odd) = (net.connection(80), net.connection(81));
    (0..FLOWS).map(move |number| {
        let mut c = if number % 2 == 0 { even } else { odd };
        c.client.1 = 20_000 + number;
        c
    })
}

#[test]
fn flows_that_are_still_allowed_lose_nothing() -> Result<()> {
    let sizes = FlowSizes {
        flows4: 2048,
        flows6: 2048,
        half4: 4096,
        half6: 4096,
        ..SIZES
    };
    for stand in Stand::ALL {
        for ipv6 in [false, true] {
            let mut rig = Rig::with_sizes(stand, sizes)?;
            let net = Net::new(ipv6, stand.inline());
            rig.apply(&policy("http, tcp/81", 2000))?;
            for c in connections(&net) {
                for (way, packet) in [
                    (Way::Outer, c.c("S", 1000, 0)),
                    (Way::Inner, c.s("SA", 5000, 1001)),
                    (Way::Outer, c.c("A", 1001, 5001)),
                ] {
                    let report = rig.send(way, &packet.build())?;
                    ensure!(report.reason.allows(), "{stand:?}: {report:?}");
                }
            }
            ensure!(rig.count(FlowTable::Main)? == usize::from(FLOWS));
            rig.apply(&policy("http", 50))?;
            for c in connections(&net) {
                let report = rig.send(Way::Inner, &c.s("A", 5001, 1001).payload(b"x").build())?;
                let (reason, verdict) = match (c.server.1, stand.inline()) {
                    (80, true) => (Reason::Established, Verdict::Forward),
                    (80, false) => (Reason::Established, Verdict::Pass),
                    _ => (Reason::PolicyRevoked, Verdict::Drop),
                };
                ensure!(
                    (report.reason, report.verdict) == (reason, verdict),
                    "{stand:?}, port {}: {report:?}",
                    c.client.1
                );
                let report = rig.send(Way::Outer, &c.c("A", 1001, 5002).build())?;
                ensure!(
                    report.reason.allows() == (c.server.1 == 80),
                    "{stand:?}: {report:?}"
                );
            }
            rig.counters_add_up()?;
        }
    }
    Ok(())
}
