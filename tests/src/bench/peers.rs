//! Peers that stand in the kernel: routers on wires of their own, so that none sees what another one has loaded.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::floor::{Floor, Program};
use super::frames::{Frame, Traffic};
use super::stand::{Outside, Wires, mac};
use crate::lab::Namespace;

/// How long loading a rule set may take: a million elements are many.
const LOAD: Duration = Duration::from_mins(5);
/// Where the kernel says how many connections it may track, and with how many buckets; one setting for all namespaces.
const MOST_CONNECTIONS: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
const BUCKETS: &str = "/proc/sys/net/netfilter/nf_conntrack_buckets";
/// Room that is enough for every case.
const CONNECTIONS: u32 = 1 << 21;
/// How often priming is repeated for what was lost on the way.
const TRIES: usize = 4;

/// A router between generator and sink.
#[derive(Debug)]
pub(super) struct Router {
    /// Its wires.
    pub(super) wires: Wires,
    /// Held where connections are tracked.
    room: Option<Room>,
}

impl Router {
    /// One that forwards everything.
    ///
    /// # Errors
    /// If a command refuses.
    pub(super) fn plain() -> Result<Self> {
        let wires = Wires::new()?;
        route(&wires.firewall, mac(4))?;
        back(&wires.firewall)?;
        Ok(Self { wires, room: None })
    }

    /// One with a rule set of nftables'.
    ///
    /// # Errors
    /// If `nft` refuses.
    pub(super) fn nftables(ruleset: &str) -> Result<Self> {
        let router = Self::plain()?;
        router.load("nft", &["nft", "-f"], ruleset)?;
        if ruleset.contains("ct state") {
            let room = Some(Room::make()?);
            return Ok(Self { room, ..router });
        }
        Ok(router)
    }

    /// The same for packets that each open a connection: these are forgotten after a second, so that the table is never full.
    ///
    /// # Errors
    /// If `nft` refuses.
    pub(super) fn forgetful(ruleset: &str) -> Result<Self> {
        let router = Self::nftables(ruleset)?;
        router
            .wires
            .firewall
            .sysctl("net/netfilter/nf_conntrack_udp_timeout", "1")?;
        Ok(router)
    }

    /// One with rules of iptables-nft, IPv4 and IPv6.
    ///
    /// # Errors
    /// If it refuses.
    pub(super) fn iptables(rules: &[String; 2]) -> Result<Self> {
        let router = Self::plain()?;
        router.load("iptables", &["iptables-nft-restore"], &rules[0])?;
        router.load("ip6tables", &["ip6tables-nft-restore"], &rules[1])?;
        let room = Some(Room::make()?);
        Ok(Self { room, ..router })
    }

    fn load(&self, kind: &str, command: &[&str], text: &str) -> Result<()> {
        let firewall = &self.wires.firewall;
        let file = std::env::temp_dir().join(format!("{}.{kind}", firewall.name()));
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        let name = file.display().to_string();
        let command: Vec<&str> = command.iter().copied().chain([name.as_str()]).collect();
        let loaded = firewall.check(&command, LOAD);
        let _ = std::fs::remove_file(&file);
        loaded
            .with_context(|| format!("{kind} refuses its rules"))
            .map(drop)
    }

    /// Lets flows open as their ends would: what their openers send, what comes back, what is sent then. Afterwards the list of
    /// `floor`, which must have room for as many frames, is the last of these.
    ///
    /// # Errors
    /// If flows are missing from the kernel's table of connections.
    pub(super) fn prime(&self, floor: &mut Floor, traffic: Traffic, flows: u32) -> Result<()> {
        if self.room.is_none() {
            return Ok(());
        }
        floor.divide(flows, 1)?;
        let lists = opening(traffic, flows)?;
        for _ in 0..TRIES {
            for (list, end) in lists
                .iter()
                .zip([Outside::Generator, Outside::Sink, Outside::Generator])
            {
                floor.reload(list)?;
                floor.divide(flows, 1)?;
                let _sinks = self.wires.sinks(floor)?;
                let _ports = self.wires.ports(floor.program(Program::Pass)?)?;
                self.wires.send(floor, end, flows)?;
            }
            if self.connections()? >= flows {
                return Ok(());
            }
        }
        ensure!(
            u64::from(self.connections()?) * 1000 >= u64::from(flows) * 999,
            "the kernel tracks {} of {flows} connections",
            self.connections()?
        );
        Ok(())
    }

    /// Connections that the kernel tracks in the firewall's namespace.
    fn connections(&self) -> Result<u32> {
        let text = self
            .wires
            .firewall
            .enter(|| std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count"))?
            .context("the kernel tracks no connections")?;
        text.trim().parse().context("a number of connections")
    }
}

/// The packets that open flows, in three lists.
fn opening(traffic: Traffic, flows: u32) -> Result<[Vec<Frame>; 3]> {
    let mut lists = [const { Vec::new() }; 3];
    for flow in 0..flows {
        for (list, packet) in lists.iter_mut().zip(traffic.opening(flow)) {
            list.push(super::frames::framed(&packet)?);
        }
    }
    Ok(lists)
}

/// Settings of the whole machine that were changed, with what they were; put back at the end.
#[derive(Debug, Default)]
struct Room(Vec<(&'static str, String)>);

impl Room {
    /// Gives connection tracking a table of a size that suits a million flows.
    fn make() -> Result<Self> {
        let mut room = Self::default();
        for file in [MOST_CONNECTIONS, BUCKETS] {
            let before = std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
            if before.trim().parse().unwrap_or(0) < CONNECTIONS {
                std::fs::write(file, CONNECTIONS.to_string())
                    .with_context(|| format!("cannot write {file}"))?;
                room.0.push((file, before));
            }
        }
        Ok(room)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        for (file, before) in &self.0 {
            let _ = std::fs::write(file, before);
        }
    }
}

/// Makes the firewall's namespace a router from `f0` to whatever is behind `f1`.
///
/// # Errors
/// If a command refuses.
fn route(firewall: &Namespace, next: [u8; 6]) -> Result<()> {
    for (key, value) in [
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv6/conf/all/forwarding", "1"),
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/f0/rp_filter", "0"),
        ("net/ipv4/conf/f1/rp_filter", "0"),
    ] {
        firewall.sysctl(key, value)?;
    }
    let mac = colons(next);
    firewall.ip(&format!(
        "addr add 169.254.7.1/30 dev f1
         addr add fe80::7:1/64 dev f1 nodad
         neigh replace 169.254.7.2 lladdr {mac} dev f1 nud permanent
         neigh replace fe80::7:2 lladdr {mac} dev f1 nud permanent
         route add default via 169.254.7.2 dev f1
         -6 route add default via fe80::7:2 dev f1"
    ))
}

/// And the way back to the flows' clients.
fn back(firewall: &Namespace) -> Result<()> {
    let mac = colons(mac(1));
    firewall.ip(&format!(
        "addr add 169.254.8.1/30 dev f0
         addr add fe80::8:1/64 dev f0 nodad
         neigh replace 169.254.8.2 lladdr {mac} dev f0 nud permanent
         neigh replace fe80::8:2 lladdr {mac} dev f0 nud permanent
         route add 10.128.0.0/10 via 169.254.8.2 dev f0
         -6 route add fd00:1::/32 via fe80::8:2 dev f0"
    ))
}

fn colons(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
