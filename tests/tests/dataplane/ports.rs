//! The table of ports, and what the packet path keeps of it.

use fw_common::abi::{Engine, LinkKind, PortConfig, Reason, port_slot};
use fw_user::dataplane::{DataPlaneError, Hook, Options, TestContext};

use super::{alone, host_port, open, private, syn};

#[test]
fn ports_share_slots_by_two() {
    alone(|| {
        let plane = open(private());
        let tables = plane.tables();
        let rivals = [5, 5 + 1024, 5 + 2048].map(|ifindex| host_port(ifindex, Engine::Xdp));
        assert_eq!(port_slot(rivals[0].ifindex, 0), port_slot(rivals[2].ifindex, 0));
        tables.set_port(&rivals[0]).unwrap();
        tables.set_port(&rivals[1]).unwrap();
        tables.set_port(&PortConfig { role: 3, ..rivals[1] }).unwrap();
        assert!(matches!(
            tables.set_port(&rivals[2]),
            Err(DataPlaneError::PortSlots { ifindex: 2053, .. })
        ));
        assert_eq!(tables.ports().unwrap().len(), 2);
        tables.clear_port(rivals[0].ifindex).unwrap();
        tables.set_port(&PortConfig { role: 4, ..rivals[1] }).unwrap();
        assert_eq!(tables.ports().unwrap(), [PortConfig { role: 4, ..rivals[1] }]);
    });
}

/// The packet path keeps the port of a CPU's last packet: what changes is seen by the next one.
#[test]
fn a_port_is_kept_until_it_changes() {
    alone(|| {
        let plane = open(Options {
            report: true,
            ..private()
        });
        let tables = plane.tables();
        let meets = |reason: Reason| {
            for _ in 0..3 {
                for hook in Hook::ALL {
                    let outcome = plane.test_run(hook, &syn(), &TestContext::default()).unwrap();
                    assert_eq!(outcome.report.unwrap().reason, reason, "{hook}");
                }
            }
        };
        let before = tables.control().ports;
        meets(Reason::UnknownPort);
        tables.set_port(&host_port(1, Engine::Xdp)).unwrap();
        meets(Reason::NoPolicy);
        tables.set_port(&host_port(2, Engine::Xdp)).unwrap();
        meets(Reason::NoPolicy);
        tables
            .set_port(&PortConfig {
                link: LinkKind::Raw as u8,
                ..host_port(1, Engine::Xdp)
            })
            .unwrap();
        meets(Reason::BadIpv4);
        tables.clear_port(1).unwrap();
        meets(Reason::UnknownPort);
        tables.set_port(&host_port(1, Engine::Xdp)).unwrap();
        meets(Reason::NoPolicy);
        assert_eq!(tables.control().ports, before + 5);
    });
}
