//! Ports: from the configuration to programs in front of packets.

use fw_common::abi::{self, LinkKind, PortConfig};

use super::AgentConfig;
use super::ethtool::{VlanOffload, rx_vlan_off, take_all_frames};
use super::links::LinkFacts;
use super::port_state::faults;
use super::ports::{Engine, Mode, PortSpec};
use crate::dataplane::{DataPlane, DataPlaneError, PortPlan};
use crate::exit::{Failure, chain};

/// `ARPHRD_*` (`linux/if_arp.h`).
const ARPHRD_ETHER: u16 = 1;
const ARPHRD_INFINIBAND: u16 = 32;
const ARPHRD_NONE: u16 = 0xfffe;

/// A port as it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// As it was configured.
    pub spec: PortSpec,
    /// Its interface.
    pub ifindex: u32,
    /// The engine that runs, which may not be the one asked for.
    pub engine: Engine,
    /// What the operator should know, one sentence each.
    pub notes: Vec<String>,
}

/// Brings all ports up: their configuration first, then the programs; last, ports that are configured no more are given
/// up. On a running data plane no port is open in between.
///
/// # Errors
/// If an interface is missing or unfit, or the kernel refuses.
pub fn attach(
    plane: &mut DataPlane,
    config: &AgentConfig,
    links: &[LinkFacts],
) -> Result<Vec<Port>, Failure> {
    let mut ports: Vec<_> = config
        .ports
        .iter()
        .map(|spec| prepare(spec, links))
        .collect::<Result<_, _>>()?;
    let configs = ports
        .iter()
        .map(|port| port_config(config, port, &ports, links))
        .collect::<Result<Vec<_>, _>>()?;
    for entry in &configs {
        plane.tables().set_port(entry).map_err(|error| refused(&error))?;
    }
    for (port, entry) in ports.iter_mut().zip(configs) {
        attach_port(plane, port, entry)?;
    }
    give_up_others(plane, &ports)?;
    Ok(ports)
}

/// Guards ports again whose interfaces were replaced, or which have lost a program. A port whose interface is missing is left
/// as it is and holds up no other; `status` tells of it until it is back.
///
/// # Errors
/// The first failure; the other ports have been guarded all the same.
pub fn attach_again(
    plane: &mut DataPlane,
    config: &AgentConfig,
    ports: &mut [Port],
    links: &[LinkFacts],
) -> Result<(), Failure> {
    let attached = plane.attached().map_err(|error| refused(&error))?;
    let there = |port: &Port| links.iter().any(|link| link.name == port.spec.name);
    let broken: Vec<_> = (0..ports.len())
        .filter(|index| there(&ports[*index]) && !faults(&ports[*index], &attached, links).is_empty())
        .collect();
    let mut result = Ok(());
    // All indexes first: the two ports of a pair name each other.
    for index in &broken {
        match prepare(&ports[*index].spec, links) {
            Ok(port) => ports[*index] = port,
            Err(failure) => result = result.and(Err(failure)),
        }
    }
    for index in broken {
        let mut port = ports[index].clone();
        tracing::warn!(
            "the interface {} was replaced; its port is guarded anew",
            port.spec.name
        );
        let done = attach_one(plane, config, (&mut port, ports), links);
        result = result.and(done);
        ports[index] = port;
    }
    if result.is_ok() {
        give_up_others(plane, ports)?;
    }
    result
}

/// Writes the configuration of a port, and of its pair's other port, which forwards to it; then attaches it.
fn attach_one(
    plane: &mut DataPlane,
    config: &AgentConfig,
    (port, ports): (&mut Port, &[Port]),
    links: &[LinkFacts],
) -> Result<(), Failure> {
    let entry = port_config(config, port, ports, links)?;
    plane.tables().set_port(&entry).map_err(|error| refused(&error))?;
    let peer = ports
        .iter()
        .find(|other| port.spec.peer.as_ref() == Some(&other.spec.name));
    // While the other port's interface is missing, its entry serves nobody.
    if let Some(peer) = peer.filter(|peer| links.iter().any(|link| link.ifindex == peer.ifindex)) {
        let entry = port_config(config, peer, ports, links)?;
        plane.tables().set_port(&entry).map_err(|error| refused(&error))?;
    }
    attach_port(plane, port, entry)
}

/// Finds the interface, turns its VLAN offload off, chooses the engine.
fn prepare(spec: &PortSpec, links: &[LinkFacts]) -> Result<Port, Failure> {
    let link = links.iter().find(|link| link.name == spec.name).ok_or_else(|| {
        let names: Vec<_> = links
            .iter()
            .filter(|link| !link.loopback)
            .map(|link| link.name.as_str())
            .collect();
        Failure::input(format!(
            "there is no interface {}; there are {}",
            spec.name,
            names.join(", ")
        ))
    })?;
    let mut port = Port {
        spec: spec.clone(),
        ifindex: link.ifindex,
        engine: spec.engine,
        notes: Vec::new(),
    };
    if spec.peer.is_some()
        && let Err(error) = take_all_frames(&spec.name)
    {
        let note =
            format!("it cannot be made promiscuous ({error}): a NIC may withhold the guarded host's frames");
        tracing::warn!("{}: {note}", spec.name);
        port.notes.push(note);
    }
    if rx_vlan_off(&spec.name) == VlanOffload::StuckOn && spec.engine == Engine::Xdp {
        port.engine = Engine::Tc;
        let note = "the driver keeps its rx-vlan offload on, which hides VLAN tags from XDP: tc runs instead";
        tracing::warn!("{}: {note}", spec.name);
        port.notes.push(note.to_owned());
    }
    if link.arphrd == ARPHRD_NONE && port.engine == Engine::Xdp {
        port.engine = Engine::Tc;
        port.notes
            .push("it has no Ethernet header, so there is no native XDP: tc runs instead".to_owned());
    }
    if link.kind == "bond" && port.engine == Engine::Xdp {
        port.engine = Engine::Tc;
        port.notes.push(
            "a bond runs XDP on its members, whose packets do not name the bond: tc runs instead".to_owned(),
        );
    }
    Ok(port)
}

fn port_config(
    config: &AgentConfig,
    port: &Port,
    ports: &[Port],
    links: &[LinkFacts],
) -> Result<PortConfig, Failure> {
    let peer = port
        .spec
        .peer
        .as_ref()
        .and_then(|peer| ports.iter().find(|port| port.spec.name == *peer));
    let roles = config.roles();
    let role = |port: &Port| {
        let number = roles.iter().position(|role| *role == port.spec.role);
        u8::try_from(number.unwrap_or_default()).unwrap_or_default()
    };
    Ok(PortConfig {
        ifindex: port.ifindex,
        peer_ifindex: peer.map_or(0, |peer| peer.ifindex),
        mode: match config.mode {
            Mode::Host => abi::Mode::Host,
            Mode::Inline => abi::Mode::Inline,
        } as u8,
        engine: engine(port.engine) as u8,
        link: link_kind(port, links)? as u8,
        side: port.spec.side as u8,
        realm: port.spec.realm,
        role: role(port),
        peer_role: role(peer.unwrap_or(port)),
        pad: 0,
    })
}

fn link_kind(port: &Port, links: &[LinkFacts]) -> Result<LinkKind, Failure> {
    let link = links.iter().find(|link| link.ifindex == port.ifindex);
    match link.map(|link| (link.arphrd, link.loopback)) {
        Some((ARPHRD_ETHER, false)) => Ok(LinkKind::Ethernet),
        Some((ARPHRD_NONE, _)) => Ok(LinkKind::Raw),
        Some((ARPHRD_INFINIBAND, _)) => Err(Failure::input(format!(
            "port {}: IP over InfiniBand is not supported",
            port.spec.name
        ))),
        _ => Err(Failure::input(format!(
            "port {}: only interfaces with an Ethernet header, or with none (tun, WireGuard), can be ports",
            port.spec.name
        ))),
    }
}

const fn engine(engine: Engine) -> abi::Engine {
    match engine {
        Engine::Xdp => abi::Engine::Xdp,
        Engine::Tc => abi::Engine::Tc,
    }
}

/// Attaches with the engine of the port; where the driver refuses native XDP, with TC, which is said.
fn attach_port(plane: &mut DataPlane, port: &mut Port, mut entry: PortConfig) -> Result<(), Failure> {
    let plan = |port: &Port| PortPlan {
        name: port.spec.name.clone(),
        ifindex: port.ifindex,
        engine: engine(port.engine),
        egress: true,
    };
    match plane.attach(&plan(port)) {
        Ok(_) => Ok(()),
        Err(error) if error.suggests_tc() && port.engine == Engine::Xdp => {
            let note = format!("tc runs instead of xdp: {}", why(&error));
            tracing::warn!("{}: {note}", port.spec.name);
            port.notes.push(note);
            port.engine = Engine::Tc;
            entry.engine = abi::Engine::Tc as u8;
            plane.tables().set_port(&entry).map_err(|error| refused(&error))?;
            plane
                .attach(&plan(port))
                .map(drop)
                .map_err(|error| refused(&error))
        }
        Err(error) => Err(refused(&error)),
    }
}

/// The cause alone: the note says by itself what was done about it.
fn why(error: &DataPlaneError) -> String {
    match error {
        DataPlaneError::NoXdp { why, source, .. } => format!("{why} ({source})"),
        other => chain(other),
    }
}

/// Gives up what a predecessor guarded and the configuration names no more.
fn give_up_others(plane: &mut DataPlane, ports: &[Port]) -> Result<(), Failure> {
    let ours = |ifindex: u32| ports.iter().any(|port| port.ifindex == ifindex);
    let attached = plane.attached().map_err(|error| refused(&error))?;
    let mut others: Vec<_> = attached
        .iter()
        .map(|at| at.ifindex)
        .filter(|ifindex| !ours(*ifindex))
        .collect();
    others.dedup();
    for ifindex in others {
        tracing::warn!("interface {ifindex} is no port any more: it is open now");
        plane.detach(ifindex).map_err(|error| refused(&error))?;
    }
    let entries = plane.tables().ports().map_err(|error| refused(&error))?;
    for entry in entries.iter().filter(|entry| !ours(entry.ifindex)) {
        plane
            .tables()
            .clear_port(entry.ifindex)
            .map_err(|error| refused(&error))?;
    }
    Ok(())
}

pub(super) fn refused(error: &DataPlaneError) -> Failure {
    let text = chain(error);
    if error.is_absence() {
        Failure::no_agent(text)
    } else {
        Failure::no(text)
    }
}
