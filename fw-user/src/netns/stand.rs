//! Three namespaces in a row, the middle one guarded by a data plane of their own.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fw_common::abi::{Count, Engine, Event, LinkKind, Mode, PortConfig, Reason, Side};
use fw_lab::packet::refuses;
use fw_lab::wire::Wire;
use fw_lab::{End, Namespace, Veth};
use fw_policy::model::RuleAction;
use fw_policy::{Environment, Flow, Policy};
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

use super::frame::{self, FAR, NEAR};
use crate::dataplane::{DataPlane, EventReader, FlowSizes, Options, PortPlan};
use crate::exit::Failure;

/// Ports of the guarded namespace: a pair, and one of mode `host`.
const OUTER: &str = "outer";
const INNER: &str = "inner";
const NIC: &str = "nic";
/// What the clock of the data plane advances by from flow to flow: more than any unanswered flow lives, so that each flow
/// finds empty tables and full buckets.
const STEP_NS: u64 = 3600 * 1_000_000_000;
/// Long enough for what must happen, on a busy machine.
const SOON: Duration = Duration::from_secs(2);
/// How long what must not arrive is waited for, once the data plane has judged it.
const SHORTLY: Duration = Duration::from_millis(5);
/// Enough for one flow at a time.
const SIZES: FlowSizes = FlowSizes {
    flows4: 1025,
    flows6: 1025,
    half4: 1024,
    half6: 1024,
    sources: 1024,
    limits: 1024,
    fragments: 1024,
};

/// Which way a packet takes through the firewall.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Mode `inline`, from one port of the pair to the other.
    Through,
    /// Mode `host`, received by the NIC.
    In,
    /// Mode `host`, sent by the NIC.
    Out,
}

impl Way {
    /// The way in words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Through => "through a pair of ports",
            Self::In => "into the machine",
            Self::Out => "out of the machine",
        }
    }
}

/// Numbers of the roles of the port that the packet comes by and of the pair's other port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Roles {
    pub(super) port: u8,
    pub(super) peer: u8,
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// What the data plane decided.
    pub verdict: RuleAction,
    /// Machine name of the reason that it counted.
    pub reason: &'static str,
    /// Name of the rule that it reported.
    pub rule: Option<String>,
    /// The packet came out on the other side.
    pub arrived: bool,
    /// Its sender got a reset or an ICMP error.
    pub refused: bool,
    /// A packet like this one may be answered with an error at all (RFC 1122 section 3.2.2).
    pub answerable: bool,
    /// The reason why the answer of an allowed flow did not come back.
    pub answer_lost: Option<&'static str>,
}

/// Everything in place. Namespaces, links and programs end with it.
pub(super) struct Stand {
    plane: DataPlane,
    events: EventReader,
    clock: u64,
    ports: Ports,
    near: Wire,
    far: Wire,
    network: Wire,
    nic: Wire,
    _namespaces: [Namespace; 3],
}

/// Indexes of the ports.
#[derive(Clone, Copy)]
struct Ports {
    outer: u32,
    inner: u32,
    nic: u32,
}

impl Stand {
    /// Makes the namespaces, loads the programs and puts them in front of the ports.
    pub(super) fn new() -> Result<Self> {
        fw_lab::require_root().context("`dpufw test --netns` needs root")?;
        let namespaces = [
            Namespace::new("near")?,
            Namespace::new("guarded")?,
            Namespace::new("far")?,
        ];
        let [near, guarded, far] = &namespaces;
        for namespace in &namespaces {
            // No kernel has anything to say of its own.
            namespace.sysctl("net/ipv6/conf/all/disable_ipv6", "1")?;
            namespace.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
        }
        let mac = |last| [2, 0, 0, 0, 0x7f, last];
        let pairs = [
            (End::new(near, "eth0", NEAR), End::new(guarded, OUTER, mac(1))),
            (End::new(far, "eth0", FAR), End::new(guarded, INNER, mac(2))),
            (End::new(near, "eth1", mac(3)), End::new(guarded, NIC, mac(4))),
        ];
        for (end, port) in &pairs {
            Veth::create(end, port, 1500)?;
        }
        let ports = Ports {
            outer: guarded.ifindex(OUTER)?,
            inner: guarded.ifindex(INNER)?,
            nic: guarded.ifindex(NIC)?,
        };
        let mut plane = DataPlane::open(options())?;
        let events = plane.events()?;
        let clock = boot_ns()?;
        plane.tables().set_clock(clock);
        configure(&plane, ports, Roles { port: 0, peer: 0 })?;
        attach(&mut plane, guarded, ports)?;
        Ok(Self {
            plane,
            events,
            clock,
            ports,
            near: Wire::open(near, "eth0")?,
            far: Wire::open(far, "eth0")?,
            network: Wire::open(near, "eth1")?,
            nic: Wire::open(guarded, NIC)?,
            _namespaces: namespaces,
        })
    }

    /// Puts a policy into force for a machine.
    pub(super) fn apply(&self, policy: &Policy, machine: &Environment) -> Result<(), Failure> {
        let environment = Environment {
            generation: self.plane.tables().next_generation(),
            ..machine.clone()
        };
        let set = fw_policy::compile(policy, &environment)
            .map_err(|error| Failure::input(format!("{}: {error}", policy.file)))?;
        self.plane
            .tables()
            .apply(&set.lines)
            .map_err(|error| Failure::no(format!("the policy cannot be put into force: {error}")))?;
        Ok(())
    }

    /// Sends the packet that opens a flow, and where it is let through its answer.
    pub(super) fn send(&mut self, policy: &Policy, flow: &Flow, way: Way, roles: Roles) -> Result<Seen> {
        self.clock += STEP_NS;
        self.plane.tables().set_clock(self.clock);
        configure(&self.plane, self.ports, roles)?;
        self.forget()?;
        let frame = frame::opening(flow).build();
        let before = self.counters()?;
        put(self.from(way), &frame)?;
        let reason = self.judged(&before)?;
        let patience = |expected: bool| if expected { SOON } else { SHORTLY };
        let arrived = self
            .to(way)
            .receive(patience(reason.allows()), |arrived| arrived == frame)?
            .is_some();
        let rejects = matches!(reason, Reason::RejectRule | Reason::RejectDefault);
        let answerable = rejects && !frame::is_group(flow.dst);
        let refused = self
            .from(way)
            .receive(patience(answerable), |answer| refuses(answer, flow.src))?
            .is_some();
        let rule = self.rule(policy, flow);
        // A message of DHCP that passes by the link section opens no flow; its answer is another message.
        let answer_lost = if arrived && reason.allows() && reason != Reason::LinkDhcp {
            self.answer(flow, way)?
        } else {
            None
        };
        Ok(Seen {
            verdict: verdict(reason),
            reason: reason.name(),
            rule,
            arrived,
            refused,
            answerable,
            answer_lost,
        })
    }

    /// Sends the answer of an allowed flow; the reason if it does not come back.
    fn answer(&mut self, flow: &Flow, way: Way) -> Result<Option<&'static str>> {
        let Some(answer) = frame::answer(flow) else {
            return Ok(None);
        };
        let frame = answer.build();
        let before = self.counters()?;
        put(self.to(way), &frame)?;
        let reason = self.judged(&before)?;
        if !reason.allows() {
            return Ok(Some(reason.name()));
        }
        let back = self.from(way).receive(SOON, |arrived| arrived == frame)?;
        ensure!(
            back.is_some(),
            "the answer was counted as {} but did not arrive",
            reason.name()
        );
        Ok(None)
    }

    /// Where the packet starts.
    fn from(&self, way: Way) -> &Wire {
        match way {
            Way::Through => &self.near,
            Way::In => &self.network,
            Way::Out => &self.nic,
        }
    }

    /// Where it should come out.
    fn to(&self, way: Way) -> &Wire {
        match way {
            Way::Through => &self.far,
            Way::In => &self.nic,
            Way::Out => &self.network,
        }
    }

    /// Throws away what is left of the last flow.
    fn forget(&mut self) -> Result<()> {
        while self.events.next_event().is_some() {}
        for wire in [&self.near, &self.far, &self.network, &self.nic] {
            while wire.receive(Duration::ZERO, |_| true)?.is_some() {}
        }
        Ok(())
    }

    fn counters(&self) -> Result<Vec<(u8, Count)>> {
        Ok(self.plane.tables().counters()?)
    }

    /// Waits until the data plane has counted a packet, and says why it passed or was dropped.
    fn judged(&self, before: &[(u8, Count)]) -> Result<Reason> {
        let end = Instant::now() + SOON;
        loop {
            let now = self.counters()?;
            let mut since = now.into_iter().filter_map(|(number, count)| {
                let earlier = before.iter().find(|(known, _)| *known == number);
                let packets = count.packets - earlier.map_or(0, |(_, count)| count.packets);
                (packets > 0).then_some((number, packets))
            });
            match (since.next(), since.next()) {
                (Some((number, 1)), None) => {
                    return Reason::from_number(number)
                        .with_context(|| format!("the data plane counted the unknown reason {number}"));
                }
                (None, _) if Instant::now() < end => std::thread::sleep(Duration::from_micros(100)),
                (None, _) => bail!("the data plane has not seen the packet within {SOON:?}"),
                _ => bail!("the data plane has counted other packets as well; send the flow again"),
            }
        }
    }

    /// The rule that the data plane names in its reports about this flow.
    fn rule(&mut self, policy: &Policy, flow: &Flow) -> Option<String> {
        let mut found = None;
        while let Some(event) = self.events.next_event() {
            if about(&event, flow) && event.rule != 0 {
                found = policy.rules.iter().find(|rule| rule.id == event.rule);
            }
        }
        found.map(|rule| rule.name.clone())
    }
}

/// Sends a frame. One that the data plane drops on its way out is an error of the sender's (`ENOBUFS`, see `packet_snd` in
/// `net/packet/af_packet.c`); what became of it is told by the counters.
fn put(wire: &Wire, frame: &[u8]) -> Result<()> {
    let dropped = |error: &anyhow::Error| {
        let cause = error
            .chain()
            .find_map(|cause| cause.downcast_ref::<std::io::Error>());
        cause.and_then(std::io::Error::raw_os_error) == Some(libc::ENOBUFS)
    };
    wire.send(frame)
        .or_else(|error| if dropped(&error) { Ok(()) } else { Err(error) })
}

/// True if an event tells of a packet of this flow.
fn about(event: &Event, flow: &Flow) -> bool {
    event.proto == flow.proto && event.dport == flow.selector
}

/// What a reason means for the flow.
const fn verdict(reason: Reason) -> RuleAction {
    match reason {
        Reason::RejectRule | Reason::RejectDefault => RuleAction::Reject,
        reason if reason.allows() => RuleAction::Allow,
        _ => RuleAction::Deny,
    }
}

fn options() -> Options {
    Options {
        sizes: SIZES,
        clock_override: true,
        events_per_window: 1 << 10,
        replies_per_window: 1 << 10,
        ..Options::default()
    }
}

/// Time since the machine was started, which deadlines of rules are compared with; ns.
fn boot_ns() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).context("cannot read the time since boot")?;
    Ok(now.tv_sec().cast_unsigned() * 1_000_000_000 + now.tv_nsec().cast_unsigned())
}

/// Gives the ports their roles.
fn configure(plane: &DataPlane, ports: Ports, roles: Roles) -> Result<()> {
    let Roles {
        port: role,
        peer: peer_role,
    } = roles;
    let port = |ifindex, peer_ifindex, side, role, peer_role| PortConfig {
        ifindex,
        peer_ifindex,
        mode: if peer_ifindex == 0 {
            Mode::Host
        } else {
            Mode::Inline
        } as u8,
        engine: Engine::Xdp as u8,
        link: LinkKind::Ethernet as u8,
        side: side as u8,
        role,
        peer_role,
        ..PortConfig::default()
    };
    let Ports { outer, inner, nic } = ports;
    let wanted = [
        port(outer, inner, Side::Outer, role, peer_role),
        port(inner, outer, Side::Inner, peer_role, role),
        port(nic, 0, Side::Outer, role, role),
    ];
    for config in &wanted {
        plane.tables().set_port(config)?;
    }
    Ok(())
}

fn attach(plane: &mut DataPlane, guarded: &Namespace, ports: Ports) -> Result<()> {
    for (name, ifindex) in [(OUTER, ports.outer), (INNER, ports.inner), (NIC, ports.nic)] {
        let plan = PortPlan {
            name: name.to_owned(),
            ifindex,
            engine: Engine::Xdp,
            egress: true,
        };
        guarded
            .enter(|| plane.attach(&plan))?
            .with_context(|| format!("cannot guard the port {name}"))?;
    }
    Ok(())
}
