//! Honest coverage: every interface, and what may pass it unseen.

use std::collections::BTreeMap;

use super::bypass::Bypasses;
use super::links::LinkFacts;
use crate::control::{Cover, Coverage};

/// What coverage is judged from.
pub struct Facts<'a> {
    /// All interfaces.
    pub links: &'a [LinkFacts],
    /// Notes of the ports by interface index: what may pass each of them unseen.
    pub ports: &'a BTreeMap<u32, Vec<String>>,
    /// Names of interfaces that may stay uncovered.
    pub ignore: &'a [String],
    /// Sockets that pass the packet path by.
    pub bypasses: &'a Bypasses,
}

/// Judges every interface.
#[must_use]
pub fn judge(facts: &Facts<'_>) -> Vec<Coverage> {
    facts.links.iter().map(|link| line(facts, link)).collect()
}

/// What holds for the machine as a whole.
#[must_use]
pub fn notes(facts: &Facts<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    if facts.bypasses.xdp_sockets > 0 {
        notes.push(format!(
            "{} AF_XDP socket(s) are open in this network namespace: what they send passes no TC program, and the kernel \
             does not say on which interface",
            facts.bypasses.xdp_sockets
        ));
    }
    let names: Vec<_> = facts.links.iter().map(|link| link.name.as_str()).collect();
    for ignored in facts.ignore.iter().filter(|name| !names.contains(&name.as_str())) {
        notes.push(format!(
            "{ignored} is listed under `ignore` but is not an interface of this network namespace"
        ));
    }
    notes
}

fn line(facts: &Facts<'_>, link: &LinkFacts) -> Coverage {
    let (cover, mut reasons) = cover(facts, link);
    if cover == Cover::NotCovered {
        reasons.extend(identity(link));
    }
    let alarm = cover == Cover::NotCovered && link.up && !link.loopback;
    Coverage {
        interface: link.name.clone(),
        ifindex: link.ifindex,
        kind: link.kind.clone(),
        up: link.up,
        cover,
        reasons,
        alarm,
    }
}

fn cover(facts: &Facts<'_>, link: &LinkFacts) -> (Cover, Vec<String>) {
    if let Some(notes) = facts.ports.get(&link.ifindex) {
        let mut reasons = notes.clone();
        reasons.extend(past_the_programs(facts.bypasses, link));
        let cover = if reasons.is_empty() {
            Cover::Covered
        } else {
            Cover::Partly
        };
        return (cover, reasons);
    }
    if facts.ignore.contains(&link.name) {
        return (Cover::Ignored, vec!["listed under `ignore`".to_owned()]);
    }
    if link.loopback {
        return (
            Cover::NotCovered,
            vec!["what this machine sends to itself is not judged".to_owned()],
        );
    }
    if let Some((cover, reason)) = through(facts, link) {
        return (cover, vec![reason]);
    }
    let reason = if link.up {
        "no port: make it one, or list it under `ignore`"
    } else {
        "no port; it is down"
    };
    (Cover::NotCovered, vec![reason.to_owned()])
}

/// Interfaces whose packets all pass a port below them, with their headers where the programs look.
fn through(facts: &Facts<'_>, link: &LinkFacts) -> Option<(Cover, String)> {
    let name = |index: u32| {
        facts
            .links
            .iter()
            .find(|link| link.ifindex == index)
            .map(|link| link.name.clone())
    };
    let stacked = ["vlan", "macvlan", "ipvlan", "macvtap", "ipvtap"].contains(&link.kind.as_str());
    if let Some(lower) = link
        .lower
        .filter(|lower| stacked && facts.ports.contains_key(lower))
    {
        return Some((
            Cover::Covered,
            format!("its packets pass the port {}", name(lower)?),
        ));
    }
    if ["bridge", "bond", "team"].contains(&link.kind.as_str()) {
        let members: Vec<_> = facts
            .links
            .iter()
            .filter(|member| member.master == Some(link.ifindex))
            .collect();
        if members.is_empty() {
            return None;
        }
        let open: Vec<_> = members
            .iter()
            .filter(|member| !facts.ports.contains_key(&member.ifindex))
            .collect();
        let list = |links: &[&LinkFacts]| {
            links
                .iter()
                .map(|link| link.name.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        };
        if open.is_empty() {
            return Some((
                Cover::Covered,
                format!("its packets pass the ports {}", list(&members)),
            ));
        }
        if open.len() < members.len() {
            let open: Vec<_> = open.into_iter().copied().collect();
            return Some((Cover::Partly, format!("its members {} are no ports", list(&open))));
        }
    }
    None
}

/// What may pass a port unseen.
fn past_the_programs(bypasses: &Bypasses, link: &LinkFacts) -> Vec<String> {
    let mut reasons = Vec::new();
    if let Some(rdma) = &link.rdma {
        reasons.push(format!(
            "the RDMA device {rdma} shares its hardware: RDMA that the NIC handles itself is not seen"
        ));
    }
    if link.vfs > 0 {
        reasons.push(format!(
            "{} virtual function(s): the NIC switches their packets itself, unless their representors are ports",
            link.vfs
        ));
    }
    let sockets = bypasses.on(link.ifindex);
    if !sockets.is_empty() {
        let list = sockets.into_iter().collect::<Vec<_>>().join(", ");
        reasons.push(format!(
            "packet sockets are open by {list}: what they send may bypass the egress program"
        ));
    }
    reasons
}

/// What an uncovered interface is.
fn identity(link: &LinkFacts) -> Vec<String> {
    let mut reasons = Vec::new();
    if let Some(port) = &link.representor {
        reasons.push(format!("it is the representor of {port}"));
    }
    if link.is_vf {
        reasons.push("it is a virtual function".to_owned());
    }
    if let Some(rdma) = &link.rdma {
        reasons.push(format!("the RDMA device {rdma} shares its hardware"));
    }
    if link.xdp.is_some() {
        reasons.push("another XDP program runs on it".to_owned());
    }
    reasons
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::{Facts, judge, notes};
    use crate::agent::bypass::Bypasses;
    use crate::agent::links::LinkFacts;
    use crate::control::{Cover, Coverage};

    fn link(ifindex: u32, name: &str, kind: &str) -> LinkFacts {
        LinkFacts {
            name: name.into(),
            ifindex,
            kind: kind.into(),
            up: true,
            ..LinkFacts::default()
        }
    }

    fn links() -> Vec<LinkFacts> {
        vec![
            LinkFacts {
                loopback: true,
                ..link(1, "lo", "loopback")
            },
            link(2, "eth0", "ethernet"),
            link(3, "eth1", "ethernet"),
            LinkFacts {
                up: false,
                ..link(4, "eth2", "ethernet")
            },
            LinkFacts {
                lower: Some(2),
                ..link(5, "eth0.100", "vlan")
            },
            LinkFacts {
                lower: Some(3),
                ..link(6, "eth1.100", "vlan")
            },
            link(7, "wg0", "wireguard"),
            link(8, "br0", "bridge"),
            LinkFacts {
                master: Some(8),
                representor: Some("pf0vf3".into()),
                ..link(9, "rep3", "ethernet")
            },
        ]
    }

    fn table(ignore: &[String], bypasses: &Bypasses) -> (Vec<Coverage>, Vec<String>) {
        let ports = BTreeMap::from([(2, Vec::new())]);
        let facts = Facts {
            links: &links(),
            ports: &ports,
            ignore,
            bypasses,
        };
        (judge(&facts), notes(&facts))
    }

    fn of<'a>(table: &'a [Coverage], name: &str) -> &'a Coverage {
        table.iter().find(|line| line.interface == name).unwrap()
    }

    #[test]
    fn every_interface_has_a_line_and_an_up_one_without_cover_is_an_alarm() {
        let (table, _) = table(&[], &Bypasses::default());
        let summary: Vec<_> = table
            .iter()
            .map(|line| (line.interface.as_str(), line.cover, line.alarm))
            .collect();
        assert_eq!(
            summary,
            [
                ("lo", Cover::NotCovered, false),
                ("eth0", Cover::Covered, false),
                ("eth1", Cover::NotCovered, true),
                ("eth2", Cover::NotCovered, false),
                ("eth0.100", Cover::Covered, false),
                ("eth1.100", Cover::NotCovered, true),
                ("wg0", Cover::NotCovered, true),
                ("br0", Cover::NotCovered, true),
                ("rep3", Cover::NotCovered, true),
            ]
        );
        assert!(
            of(&table, "rep3")
                .reasons
                .iter()
                .any(|reason| reason.contains("representor of pf0vf3"))
        );
        assert!(of(&table, "lo").reasons.len() == 1);
        assert!(
            table
                .iter()
                .all(|line| line.cover == Cover::Covered || !line.reasons.is_empty())
        );
    }

    #[test]
    fn an_ignored_interface_is_no_alarm_and_a_misspelt_one_is_noted() {
        let (table, notes) = table(&["eth1".into(), "ehh2".into()], &Bypasses::default());
        assert_eq!(
            (of(&table, "eth1").cover, of(&table, "eth1").alarm),
            (Cover::Ignored, false)
        );
        assert!(notes[0].contains("ehh2"), "{notes:?}");
    }

    #[test]
    fn sockets_past_the_programs_make_a_port_partly_covered() {
        let owners = BTreeSet::from(["tcpdump (77)".to_owned()]);
        let bypasses = Bypasses {
            packet_sockets: BTreeMap::from([(0, owners)]),
            xdp_sockets: 1,
        };
        let (table, notes) = table(&[], &bypasses);
        assert_eq!(of(&table, "eth0").cover, Cover::Partly);
        assert!(of(&table, "eth0").reasons[0].contains("tcpdump (77)"));
        assert!(!of(&table, "eth0").alarm);
        assert!(notes[0].contains("AF_XDP"));
    }
}
