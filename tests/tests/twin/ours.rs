//! dpufw as a judge: the loaded program of a pair of ports, with a clock that walks with the packets.

use anyhow::{Context, Result, anyhow};
use fw_common::abi::{Engine, LinkKind, Mode, PortConfig, Reason, Side};
use fw_policy::Environment;
use fw_tests::lab::require_root;
use fw_tests::traffic::OPEN;
use fw_user::dataplane::{DataPlane, FlowSizes, Hook, Options, TestContext};

/// Index of `lo`, the kernel's own choice for a test run.
const PORT: u32 = 1;
/// Nothing is attached to the other port: what would be forwarded there is only reported.
const PEER: u32 = 2;
/// Time between two packets, ns: about what the other judge takes.
const BETWEEN: u64 = 100_000;

/// The data plane.
pub struct Ours {
    plane: DataPlane,
    clock: u64,
}

impl Ours {
    pub fn new() -> Result<Self> {
        require_root()?;
        let plane = DataPlane::open(Options {
            report: true,
            clock_override: true,
            sizes: FlowSizes {
                flows4: 65_537,
                flows6: 65_537,
                half4: 65_536,
                half6: 65_536,
                ..FlowSizes::DEFAULT
            },
            ..Options::default()
        })?;
        let text = format!(
            "version: 1\n\
             zones:\n  \
               clients: {{ addresses: [10.9.0.0/25, \"fd00:9::/120\"] }}\n  \
               servers: {{ addresses: [10.9.1.0/25, \"fd00:9:0:1::/120\"] }}\n\
             services: {{ open: [tcp/{OPEN}, udp/{OPEN}, ping] }}\n\
             rules:\n  \
               - {{ name: open, allow: [open], from: clients, to: servers }}\n"
        );
        let (policy, _) = fw_policy::check(&text, "twin.yaml").map_err(|findings| anyhow!("{findings}"))?;
        let environment = Environment {
            own_addresses: Vec::new(),
            roles: vec!["uplink".to_owned(), "host".to_owned()],
            generation: plane.tables().next_generation(),
            ..Environment::sample()
        };
        plane
            .tables()
            .apply(&fw_policy::compile(&policy, &environment)?.lines)?;
        Ok(Self {
            plane,
            clock: 1 << 50,
        })
    }

    /// Sends a frame by the port of its side.
    pub fn judge(&mut self, from_client: bool, frame: &[u8]) -> Result<Reason> {
        self.clock += BETWEEN;
        let side = if from_client { Side::Outer } else { Side::Inner };
        let tables = self.plane.tables();
        tables.set_clock(self.clock);
        tables.set_port(&PortConfig {
            ifindex: PORT,
            peer_ifindex: PEER,
            mode: Mode::Inline as u8,
            engine: Engine::Xdp as u8,
            link: LinkKind::Ethernet as u8,
            side: side as u8,
            role: u8::from(side == Side::Inner),
            peer_role: u8::from(side == Side::Outer),
            ..PortConfig::default()
        })?;
        let outcome = self.plane.test_run(Hook::XdpIn, frame, &TestContext::on(PORT))?;
        Ok(outcome
            .report
            .context("the program was not loaded to report")?
            .reason)
    }
}
