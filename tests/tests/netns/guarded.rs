//! A scene with the data plane in it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use fw_common::abi::{Engine, Flow, LinkKind, Mode, PortConfig, Reason, Side};
use fw_policy::Environment;
use fw_tests::lab::{Host, Options, Scene};
use fw_user::dataplane::{self, DataPlane, FlowKey, FlowTable, PortPlan, Tables};

/// Long enough for what must happen, on a busy machine.
pub const SOON: Duration = Duration::from_secs(10);
/// Long enough to believe that something does not happen.
pub const SHORTLY: Duration = Duration::from_millis(150);

/// Default deny, with a few flows each way.
pub const POLICY: &str = r#"
version: 1
zones:
  client: { addresses: [10.9.0.1, "fd00:9::1"] }
  stray:  { addresses: [10.9.0.21, "fd00:9::21"] }
  server: { addresses: [10.9.0.2, "fd00:9::2", 10.9.1.2, "fd00:9:0:1::2"] }
  tenant: { addresses: [10.9.0.0/24, "fd00:9::/64"], vlan: 101 }
link: { allow: [arp, nd, lldp, lacp], dhcp: client }
rules:
  - { name: telnet, deny: [tcp/23], from: client, to: server }
  - { name: closed, reject: [tcp/83, udp/83], from: client, to: server }
  - { name: stray,  reject: all, between: [stray, server] }
  - { name: web,    allow: [http, iperf3, ping, tcp/82, udp/5300-5399], from: client, to: server }
  - { name: out,    allow: [tcp/8081], from: server, to: client }
  - { name: tagged, allow: [udp/5300], from: tenant, to: tenant }
  - { name: admin,  allow: [ssh, ping], from: client, to: self }
  - { name: update, allow: [https], from: self, to: client }
"#;

/// Where the firewall stands, with the engine of each of its ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    /// On the server's own NIC.
    Host(Engine),
    /// On a machine between: the client's side, the server's side.
    Inline(Engine, Engine),
    /// In host mode on a router between: the client's side, which may be without, and the server's side.
    Router(Option<Engine>, Engine),
}

/// Client and server with the data plane on their way, in this process; everything ends with the handle.
pub struct Guarded {
    pub scene: Scene,
    stand: Stand,
    plane: DataPlane,
    mtu: u32,
}

/// Answers that may be sent per CPU and window of 67 ms, as the agent has it by default.
pub const ANSWERS: u32 = 64;

impl Guarded {
    pub fn new(stand: Stand, options: Options, policy: &str) -> Result<Self> {
        let plane = dataplane::Options {
            replies_per_window: ANSWERS,
            ..dataplane::Options::default()
        };
        Self::with(stand, options, policy, plane)
    }

    /// The same with a data plane of one's own.
    pub fn with(stand: Stand, options: Options, policy: &str, plane: dataplane::Options) -> Result<Self> {
        let scene = match stand {
            Stand::Host(_) => Scene::direct(options)?,
            Stand::Inline(..) => Scene::inline(options)?,
            Stand::Router(..) => Scene::routed(options)?,
        };
        let mut plane = DataPlane::open(plane)?;
        let guard = scene.guard();
        apply(&plane, own_addresses(&scene, stand), policy)?;
        match stand {
            Stand::Host(engine) => attach(&mut plane, guard, ("eth0", None), engine, Side::Outer)?,
            Stand::Inline(outer, inner) => {
                attach(&mut plane, guard, ("up0", Some("down0")), outer, Side::Outer)?;
                attach(&mut plane, guard, ("down0", Some("up0")), inner, Side::Inner)?;
            }
            Stand::Router(outer, inner) => {
                if let Some(outer) = outer {
                    attach(&mut plane, guard, ("up0", None), outer, Side::Outer)?;
                }
                attach(&mut plane, guard, ("down0", None), inner, Side::Outer)?;
            }
        }
        Ok(Self {
            scene,
            stand,
            plane,
            mtu: options.mtu,
        })
    }

    /// Puts another policy into force.
    #[allow(dead_code, reason = "for layers that share this file")]
    pub fn apply(&self, policy: &str) -> Result<()> {
        apply(&self.plane, own_addresses(&self.scene, self.stand), policy)
    }

    /// The maps.
    pub fn tables(&self) -> &Tables {
        self.plane.tables()
    }

    /// True if a packet socket of the server sees only what passed. At TC ingress it stands before the firewall.
    pub fn taps_see_passed_only(&self) -> bool {
        self.stand != Stand::Host(Engine::Tc)
    }

    /// True if a router stands between client and server.
    pub fn routed(&self) -> bool {
        matches!(self.stand, Stand::Router(..))
    }

    /// Bytes of the longest frame: the MTU and an Ethernet header.
    pub fn longest_frame(&self) -> u64 {
        u64::from(self.mtu) + 14
    }

    pub fn client(&self, ipv6: bool) -> IpAddr {
        self.scene.client.address(ipv6)
    }

    pub fn server(&self, ipv6: bool) -> IpAddr {
        self.scene.server.address(ipv6)
    }

    /// Packets that ended with this reason so far.
    pub fn packets(&self, reason: Reason) -> Result<u64> {
        let counters = self.plane.tables().counters()?;
        Ok(counters
            .iter()
            .find(|(number, _)| *number == reason as u8)
            .map_or(0, |(_, count)| count.packets))
    }

    /// Bytes of the packets that ended with this reason so far.
    #[allow(dead_code, reason = "for layers that share this file")]
    pub fn bytes(&self, reason: Reason) -> Result<u64> {
        let counters = self.plane.tables().counters()?;
        Ok(counters
            .iter()
            .find(|(number, _)| *number == reason as u8)
            .map_or(0, |(_, count)| count.bytes))
    }

    /// The flows between any port and this one, each with its table.
    pub fn flows(&self, proto: u8, port: u16) -> Result<Vec<(FlowTable, Flow)>> {
        let mut found = Vec::new();
        for table in [FlowTable::Main, FlowTable::HalfOpen] {
            self.plane.tables().for_each_flow(table, |key, flow: &Flow| {
                let (own, ports) = match key {
                    FlowKey::V4(key) => (key.proto, [key.lo_port, key.hi_port]),
                    FlowKey::V6(key) => (key.proto, [key.lo_port, key.hi_port]),
                };
                if own == proto && ports.contains(&port) {
                    found.push((table, *flow));
                }
                ControlFlow::Continue(())
            })?;
        }
        Ok(found)
    }

    /// Does something that must make packets end with this reason.
    pub fn counts<T>(&self, reason: Reason, action: impl FnOnce() -> Result<T>) -> Result<T> {
        let before = self.packets(reason)?;
        let result = action()?;
        let after = self.packets(reason)?;
        ensure!(
            after > before,
            "no packet was counted as {}; counted were {}",
            reason.name(),
            self.counted()
        );
        Ok(result)
    }

    /// What was counted, for a failure's message.
    pub fn counted(&self) -> String {
        let Ok(counters) = self.plane.tables().counters() else {
            return "the counters cannot be read".to_owned();
        };
        let named: BTreeMap<&str, u64> = counters
            .iter()
            .filter(|(_, count)| count.packets > 0)
            .filter_map(|(number, count)| Some((Reason::from_number(*number)?.name(), count.packets)))
            .collect();
        format!("{named:?}")
    }
}

fn own_addresses(scene: &Scene, stand: Stand) -> Vec<IpAddr> {
    let guard = scene.guard();
    let mut own: Vec<IpAddr> = vec![guard.v4.into(), guard.v6.into()];
    if matches!(stand, Stand::Router(..)) {
        own.extend([IpAddr::from(Scene::ROUTER.0), Scene::ROUTER.1.into()]);
    }
    own
}

/// Compiles a policy and puts it into force.
pub fn apply(plane: &DataPlane, own_addresses: Vec<IpAddr>, policy: &str) -> Result<()> {
    let (policy, _) = fw_policy::check(policy, "netns.yaml").map_err(|findings| anyhow!("{findings}"))?;
    let environment = Environment {
        own_addresses,
        roles: Vec::new(),
        generation: plane.tables().next_generation(),
        ..Environment::sample()
    };
    plane
        .tables()
        .apply(&fw_policy::compile(&policy, &environment)?.lines)?;
    Ok(())
}

fn attach(
    plane: &mut DataPlane,
    guard: &Host,
    (name, peer): (&str, Option<&str>),
    engine: Engine,
    side: Side,
) -> Result<()> {
    let ifindex = guard.namespace.ifindex(name)?;
    let peer_ifindex = peer
        .map(|peer| guard.namespace.ifindex(peer))
        .transpose()?
        .unwrap_or(0);
    plane.tables().set_port(&PortConfig {
        ifindex,
        peer_ifindex,
        mode: if peer.is_some() { Mode::Inline } else { Mode::Host } as u8,
        engine: engine as u8,
        link: LinkKind::Ethernet as u8,
        side: side as u8,
        ..PortConfig::default()
    })?;
    let plan = PortPlan {
        name: name.to_owned(),
        ifindex,
        engine,
        egress: true,
    };
    guard.namespace.enter(|| plane.attach(&plan))??;
    Ok(())
}
