//! What the kernel says of ports: which program runs, what is wrong, what may pass unseen.

use std::collections::BTreeMap;

use fw_common::abi;

use super::attach::Port;
use super::ethtool::{VlanOffload, rx_vlan, tx_vlan};
use super::links::LinkFacts;
use super::ports::Engine;
use crate::control::PortStatus;
use crate::dataplane::{Attachment, Hook, Means};

/// The status line of a port, from what the kernel says is attached.
#[must_use]
pub fn status(port: &Port, attached: &[Attachment]) -> PortStatus {
    let means = |hook: Hook| {
        attached
            .iter()
            .find(|at| at.ifindex == port.ifindex && at.hook == hook)
            .map(|at| at.means)
    };
    let name = |means: Means| match means {
        Means::Xdp => "xdp native".to_owned(),
        other => other.name().to_owned(),
    };
    let ingress = means(Hook::XdpIn).or_else(|| means(Hook::TcIn));
    PortStatus {
        name: port.spec.name.clone(),
        ifindex: port.ifindex,
        role: port.spec.role.clone(),
        side: match port.spec.side {
            abi::Side::Inner => "inner",
            _ => "outer",
        }
        .to_owned(),
        realm: port.spec.realm,
        peer: port.spec.peer.clone(),
        engine_asked: port.spec.engine.name().to_owned(),
        engine: ingress.map_or_else(|| "NONE".to_owned(), name),
        egress: means(Hook::TcOut).map(name),
        notes: port.notes.clone(),
    }
}

/// What is wrong with a port: an interface that has gone, a hook without a program.
#[must_use]
pub fn faults(port: &Port, attached: &[Attachment], links: &[LinkFacts]) -> Vec<String> {
    let name = &port.spec.name;
    if !links
        .iter()
        .any(|link| link.ifindex == port.ifindex && link.name == *name)
    {
        return vec![format!("port {name}: the interface has gone")];
    }
    let ingress = match port.engine {
        Engine::Xdp => Hook::XdpIn,
        Engine::Tc => Hook::TcIn,
    };
    let missing = [ingress, Hook::TcOut].into_iter().filter(|hook| {
        !attached
            .iter()
            .any(|at| at.ifindex == port.ifindex && at.hook == *hook)
    });
    missing
        .map(|hook| format!("port {name}: no program at {}; restart the agent", hook.name()))
        .collect()
}

/// What may pass each port unseen, for the coverage table.
#[must_use]
pub fn gaps(ports: &[Port], attached: &[Attachment], links: &[LinkFacts]) -> BTreeMap<u32, Vec<String>> {
    let gaps = |port: &Port| {
        let mut gaps = faults(port, attached, links);
        let ahead: u32 = attached
            .iter()
            .filter(|at| at.ifindex == port.ifindex)
            .map(|at| at.ahead)
            .sum();
        if ahead > 0 {
            gaps.push(format!(
                "{ahead} TCX program(s) run before ours and may keep packets from it"
            ));
        }
        if port.engine == Engine::Xdp {
            gaps.extend(hidden_tags(port, links));
        }
        gaps
    };
    ports.iter().map(|port| (port.ifindex, gaps(port))).collect()
}

/// How VLAN tags may be hidden from XDP.
fn hidden_tags(port: &Port, links: &[LinkFacts]) -> Option<String> {
    if rx_vlan(&port.spec.name) == VlanOffload::StuckOn {
        return Some("its rx-vlan offload is on again: XDP sees tagged packets as untagged".to_owned());
    }
    let link = links
        .iter()
        .find(|link| link.ifindex == port.ifindex)
        .filter(|link| link.kind == "veth")?;
    match link.lower.and_then(|peer| links.iter().find(|link| link.ifindex == peer)) {
        Some(peer) if tx_vlan(&peer.name) => Some(format!(
            "the other end {} leaves tagging to its hardware (txvlan on): XDP sees its tagged packets as untagged",
            peer.name
        )),
        Some(_) => None,
        None => Some(
            "its other end is in another network namespace: if txvlan is on there, XDP sees its tagged packets as untagged"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::{Port, faults, gaps, status};
    use crate::agent::links::LinkFacts;
    use crate::agent::ports::{Engine, PortSpec};
    use crate::dataplane::{Attachment, Hook, Means};

    fn port() -> Port {
        let spec = PortSpec::outer("up0".into(), None, Engine::Xdp, 0);
        Port {
            spec,
            ifindex: 7,
            engine: Engine::Tc,
            notes: vec!["tc runs instead".into()],
        }
    }

    fn at(hook: Hook, means: Means, ahead: u32) -> Attachment {
        Attachment {
            ifindex: 7,
            hook,
            means,
            prog_id: 1,
            link_id: None,
            ahead,
        }
    }

    #[test]
    fn status_says_what_the_kernel_says() {
        let attached = [at(Hook::TcIn, Means::Tcx, 0), at(Hook::TcOut, Means::Clsact, 0)];
        let line = status(&port(), &attached);
        assert_eq!((line.engine_asked.as_str(), line.engine.as_str()), ("xdp", "tcx"));
        assert_eq!(line.egress.as_deref(), Some("clsact"));
        assert_eq!(line.notes, ["tc runs instead"]);
        assert_eq!(status(&port(), &[]).engine, "NONE");
    }

    #[test]
    fn a_lost_program_and_a_lost_interface_are_faults_and_a_program_ahead_is_a_gap() {
        let links = [LinkFacts {
            name: "up0".into(),
            ifindex: 7,
            ..LinkFacts::default()
        }];
        let attached = [at(Hook::TcIn, Means::Tcx, 1), at(Hook::TcOut, Means::Tcx, 0)];
        assert_eq!(faults(&port(), &attached, &links), [""; 0]);
        assert!(gaps(&[port()], &attached, &links)[&7][0].contains("run before ours"));
        assert!(faults(&port(), &attached[..1], &links)[0].contains("no program at tc_out"));
        assert!(faults(&port(), &attached, &[])[0].contains("has gone"));
    }
}
