//! The cluster: machines in namespaces around one switch, and a DPU between the switch and the first GPU host.
//!
//! ```text
//!  gpu1 -- [pf0hpf  dpu  p0] --+
//!  gpu2 -----------------------+
//!  storage --------------------+-- switch
//!  bastion, monitor, infra ----+
//!  intruder -------------------+
//! ```
//!
//! All share one segment without a router, so nothing but the firewall keeps anybody from anybody.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};

use crate::lab::{End, Namespace, Veth};

const MTU: u32 = 1500;
/// The DPU's port towards the network.
pub const UPLINK: &str = "p0";
/// The DPU's port towards its host: the representor of the host's own function, as the mlx5 driver names it.
pub const REPRESENTOR: &str = "pf0hpf";
/// The NIC of every other machine.
pub const NIC: &str = "eth0";
/// The machine whose firewall stands inline.
pub const DPU: &str = "dpu";
/// The machine behind the DPU.
pub const GUARDED: &str = "gpu1";
/// The machine with a firewall of its own.
pub const HOST: &str = "gpu2";
const SWITCH: &str = "switch";
const MACHINES: [&str; 6] = [GUARDED, HOST, "storage", "bastion", DPU, "intruder"];
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// Joins the DPU's ports as long as no firewall does.
const PATCH: &str = "patch0";

/// A name in the cluster with an address of each family. Several may live on one machine.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    /// As the table shows it.
    pub name: &'static str,
    /// The namespace that it lives in.
    pub machine: &'static str,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
}

impl Node {
    /// Its address of one family.
    #[must_use]
    pub fn address(&self, ipv6: bool) -> IpAddr {
        if ipv6 { self.v6.into() } else { self.v4.into() }
    }
}

const fn node(name: &'static str, machine: &'static str, v4: [u8; 4], v6: [u16; 4]) -> Node {
    let [a, b, c, d] = v4;
    let [net, subnet, group, host] = v6;
    Node {
        name,
        machine,
        v4: Ipv4Addr::new(a, b, c, d),
        v6: Ipv6Addr::new(net, subnet, 0, 0, 0, 0, group, host),
    }
}

/// Everybody. The addresses are those that `policies/ai-cluster.yaml` speaks of; the intruder's are in none of its
/// zones. It also pretends to be the metadata service of a cloud (its addresses at AWS).
pub const NODES: &[Node] = &[
    node("gpu1", GUARDED, [10, 10, 0, 11], [0xfd00, 0x10, 0, 0x11]),
    node("gpu2", HOST, [10, 10, 0, 12], [0xfd00, 0x10, 0, 0x12]),
    node("storage", "storage", [10, 20, 0, 21], [0xfd00, 0x20, 0, 0x21]),
    node("bastion", "bastion", [10, 30, 0, 10], [0xfd00, 0x30, 0, 0x10]),
    node("monitor", "bastion", [10, 30, 2, 5], [0xfd00, 0x30, 2, 5]),
    node("infra", "bastion", [10, 30, 3, 2], [0xfd00, 0x30, 3, 2]),
    node("dpu", DPU, [10, 30, 16, 11], [0xfd00, 0x30, 0x16, 0x11]),
    node("intruder", "intruder", [10, 66, 0, 66], [0xfd00, 0x66, 0, 0x66]),
    node(
        "metadata",
        "intruder",
        [169, 254, 169, 254],
        [0xfd00, 0xec2, 0, 0x254],
    ),
];

/// The node with this name.
///
/// # Errors
/// If there is none.
pub fn find(name: &str) -> Result<&'static Node> {
    NODES
        .iter()
        .find(|node| node.name == name)
        .with_context(|| format!("the cluster has no node {name}"))
}

/// The machines.
#[derive(Debug)]
pub struct Cluster {
    machines: BTreeMap<&'static str, Namespace>,
}

impl Cluster {
    /// Builds it. The DPU's ports are not joined: nothing passes to or from the first GPU host.
    ///
    /// # Errors
    /// Without root, or if a set-up command refuses.
    pub fn build() -> Result<Self> {
        let mut machines = BTreeMap::new();
        for name in MACHINES.into_iter().chain([SWITCH]) {
            machines.insert(name, Namespace::new(name)?);
        }
        let cluster = Self { machines };
        let switch = cluster.machine(SWITCH)?;
        switch.ip(
            "link add br0 type bridge mcast_snooping 0\nlink set br0 addrgenmode none\nlink set br0 up",
        )?;
        for (number, name) in (1..).zip(MACHINES) {
            cluster.plug(number, name, switch)?;
        }
        Ok(cluster)
    }

    /// The namespace of a machine.
    ///
    /// # Errors
    /// If there is none of this name.
    pub fn machine(&self, name: &str) -> Result<&Namespace> {
        self.machines
            .get(name)
            .with_context(|| format!("the cluster has no machine {name}"))
    }

    /// Joins the DPU's ports with an ordinary bridge, which takes the uplink's addresses: the cluster without a
    /// firewall.
    ///
    /// # Errors
    /// If a set-up command refuses.
    pub fn patch(&self) -> Result<()> {
        let dpu = self.machine(DPU)?;
        dpu.ip(&format!(
            "addr flush dev {UPLINK}
             link add {PATCH} type bridge mcast_snooping 0
             link set {PATCH} addrgenmode none
             link set {UPLINK} master {PATCH}
             link set {REPRESENTOR} master {PATCH}
             link set {PATCH} up"
        ))?;
        dpu.ip(&addresses(DPU, PATCH))
    }

    /// Takes the bridge away again. What the machines have learnt of each other is forgotten, so that the next packets
    /// need ARP and neighbour discovery.
    ///
    /// # Errors
    /// If a set-up command refuses.
    pub fn unpatch(&self) -> Result<()> {
        let dpu = self.machine(DPU)?;
        dpu.ip(&format!("link del {PATCH}"))?;
        dpu.ip(&addresses(DPU, UPLINK))?;
        self.machines
            .values()
            .try_for_each(|machine| machine.ip("neigh flush all"))
    }

    /// Connects a machine with the switch; the first GPU host with the DPU.
    fn plug(&self, number: u8, name: &str, switch: &Namespace) -> Result<()> {
        let machine = self.machine(name)?;
        let interface = if name == DPU { UPLINK } else { NIC };
        let near = End::new(machine, interface, [2, 0, 0, 0, 0, number]);
        let far = [2, 0, 0, 0, 1, number];
        if name == GUARDED {
            Veth::create(&near, &End::new(self.machine(DPU)?, REPRESENTOR, far), MTU)?;
        } else {
            Veth::create(&near, &End::new(switch, name, far), MTU)?;
            switch.ip(&format!("link set {name} master br0"))?;
        }
        machine.ip(&addresses(name, interface))?;
        machine.ip(&format!("route replace {METADATA} dev {interface}"))
    }
}

/// `ip` commands that give a machine's interface the addresses of its nodes. All networks are on the link.
fn addresses(machine: &str, interface: &str) -> String {
    let nodes = NODES.iter().filter(|node| node.machine == machine);
    let lines = nodes.map(|node| {
        let length = if node.v4 == METADATA { 32 } else { 8 };
        format!(
            "addr add {}/{length} dev {interface}\naddr add {}/16 dev {interface} nodad\n",
            node.v4, node.v6
        )
    });
    lines.collect()
}
