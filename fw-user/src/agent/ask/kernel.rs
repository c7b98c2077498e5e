//! The kernel's own verdict: a second instance of its programs, which leaves out every write and shares the maps.

use fw_common::abi::{LinkKind, PortConfig};
use fw_policy::Policy;

use super::super::attach::{Port, refused};
use super::super::core::{Agent, lock};
use super::super::ports::Engine;
use crate::control::KernelAnswer;
use crate::dataplane::{DataPlane, Hook, Options, Report, TestContext};
use crate::exit::Failure;
use crate::replay::verdict_name;

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;

/// The instance that is asked. It is loaded at the first question: verifying its programs takes a moment.
#[derive(Debug, Default)]
pub struct Asker(Option<DataPlane>);

/// A port that a packet may come by, or leave by.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) port: Port,
    /// Mode `inline`: role of the pair's other port.
    pub(super) peer: Option<String>,
    pub(super) config: PortConfig,
    /// Where the packet meets the program.
    pub(super) hook: Hook,
}

impl Agent {
    /// The ports of these roles; all, where none is named. `leaves`: the packet is this machine's own.
    ///
    /// # Errors
    /// With exit code 2 if there is none.
    pub(super) fn places(
        &self,
        role: Option<&str>,
        peer: Option<&str>,
        leaves: bool,
    ) -> Result<Vec<Place>, Failure> {
        let ports = lock(&self.ports).clone();
        let configs = self.tables.ports().map_err(|error| refused(&error))?;
        let place = |port: &Port| {
            let other = ports
                .iter()
                .find(|other| port.spec.peer.as_ref() == Some(&other.spec.name));
            let ingress = match port.engine {
                Engine::Xdp => Hook::XdpIn,
                Engine::Tc => Hook::TcIn,
            };
            Some(Place {
                port: port.clone(),
                peer: other.map(|other| other.spec.role.clone()),
                config: *configs.iter().find(|config| config.ifindex == port.ifindex)?,
                hook: if leaves { Hook::TcOut } else { ingress },
            })
        };
        let wanted = |place: &Place| {
            role.is_none_or(|role| place.port.spec.role == role)
                && peer.is_none_or(|peer| place.peer.as_deref() == Some(peer))
        };
        let places: Vec<Place> = ports.iter().filter_map(place).filter(wanted).collect();
        if places.is_empty() {
            let roles = self.config.roles().join(", ");
            let asked = match (role, peer) {
                (Some(role), Some(peer)) => {
                    format!("port with the role `{role}` and a peer with the role `{peer}`")
                }
                (Some(role), None) => format!("port with the role `{role}`"),
                _ => "port".to_owned(),
            };
            return Err(Failure::input(format!(
                "there is no {asked} here; roles of ports: {roles}"
            )));
        }
        Ok(places)
    }

    /// Asks the kernel about an Ethernet frame at a port. A port without Ethernet headers meets what follows them.
    ///
    /// # Errors
    /// If the kernel refuses the question; of a tagged frame at such a port.
    pub(super) fn ask_kernel(&self, place: &Place, frame: &[u8], tagged: bool) -> Result<Report, Failure> {
        let raw = place.config.link == LinkKind::Raw as u8;
        if raw && tagged {
            return Err(Failure::input(format!(
                "the port {} has no Ethernet header, so no packet with a VLAN tag comes by it; leave --vlan out, or name another \
                 port with --in",
                place.port.spec.name
            )));
        }
        let bytes = if raw {
            frame.get(ETHERNET..).unwrap_or_default()
        } else {
            frame
        };
        self.test_run(place, bytes)
    }

    /// Runs a port's program on what it would see.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn test_run(&self, place: &Place, bytes: &[u8]) -> Result<Report, Failure> {
        let mut asker = lock(&self.asker);
        let plane = match asker.0.take() {
            Some(plane) => plane,
            None => {
                DataPlane::open(Options::questions(&self.config.pins())).map_err(|error| refused(&error))?
            }
        };
        let plane = asker.0.insert(plane);
        let outcome = plane
            .test_run(place.hook, bytes, &TestContext::on(place.port.ifindex))
            .map_err(|error| refused(&error))?;
        outcome
            .report
            .ok_or_else(|| Failure::no("the program that is asked gave no report; this is a bug of dpufw"))
    }
}

/// A report with its names.
pub(super) fn answer(policy: &Policy, place: &Place, report: Report) -> KernelAnswer {
    let rule = report
        .rule
        .checked_sub(1)
        .filter(|_| super::names_rule(report.reason));
    let rule = rule.map(|place| match policy.rules.get(place as usize) {
        Some(rule) => rule.name.clone(),
        None => format!("number {}", report.rule),
    });
    KernelAnswer {
        port: place.port.spec.name.clone(),
        role: place.port.spec.role.clone(),
        hook: place.hook.name().to_owned(),
        verdict: verdict_name(report.verdict).to_owned(),
        reason: report.reason.name().to_owned(),
        sentence: report.reason.sentence().to_owned(),
        rule,
    }
}
