//! A case: packets in order, each with what must become of it.

use std::net::{IpAddr, Ipv6Addr};

use fw_common::abi::{EventKind, Reason};
use fw_common::tcp::State;
use fw_tests::packet::Packet;

/// Where a packet enters the data plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the network.
    Outer,
    /// From the guarded host: inline by the inner port, in host mode from this machine's own stack.
    Inner,
    /// From this machine's own stack, in both modes.
    Own,
}

/// What must become of a packet, where its reason does not say it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// What the reason says: inline a packet that passes is forwarded, and a rejected one is answered.
    Usual,
    /// It must be handed to this machine in every mode.
    Up,
    /// It is dropped without an answer although its reason is one of those that are answered.
    Silent,
}

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum Step {
    /// A frame enters, and must end with this reason.
    Send {
        way: Way,
        frame: Vec<u8>,
        reason: Reason,
        fate: Fate,
    },
    /// Time passes, in ns.
    Wait(u64),
    /// Running TCP connections are adopted for as many ns from now on; `u64::MAX`: always.
    PickUp(u64),
    /// Another policy is applied.
    Policy(String),
    /// As many flows must be in the main and in the half-open tables.
    Flows { main: usize, half_open: usize },
    /// There must be one flow, in this state.
    State(State),
    /// The last packet must have made one event, of this kind and reason.
    Told(EventKind, Reason),
    /// The last packet must have made no event.
    Untold,
    /// As many packets of this case must have been noted with this reason.
    Noted(Reason, u64),
    /// So many answers may be sent per window of 67 ms.
    Answers(u32),
    /// The agent is at work, or has not been seen for long.
    Agent(bool),
}

/// A name and its steps.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub policy: &'static str,
    pub steps: Vec<Step>,
}

/// A second in ns.
pub const SECOND: u64 = 1_000_000_000;

impl Case {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            policy: POLICY,
            steps: Vec::new(),
        }
    }

    /// Begins with another policy than [`POLICY`].
    pub fn with(mut self, policy: &'static str) -> Self {
        self.policy = policy;
        self
    }

    /// A frame from the network.
    pub fn outer(self, frame: impl Into<Vec<u8>>, reason: Reason) -> Self {
        self.send(Way::Outer, frame, reason, Fate::Usual)
    }

    /// A frame from the guarded host.
    pub fn inner(self, frame: impl Into<Vec<u8>>, reason: Reason) -> Self {
        self.send(Way::Inner, frame, reason, Fate::Usual)
    }

    /// A frame from this machine.
    pub fn own(self, frame: impl Into<Vec<u8>>, reason: Reason) -> Self {
        self.send(Way::Own, frame, reason, Fate::Usual)
    }

    /// A frame from the network that must be handed to this machine.
    pub fn up(self, frame: impl Into<Vec<u8>>, reason: Reason) -> Self {
        self.send(Way::Outer, frame, reason, Fate::Up)
    }

    /// A frame from the network that must be dropped without an answer.
    pub fn unanswered(self, frame: impl Into<Vec<u8>>, reason: Reason) -> Self {
        self.send(Way::Outer, frame, reason, Fate::Silent)
    }

    fn send(self, way: Way, frame: impl Into<Vec<u8>>, reason: Reason, fate: Fate) -> Self {
        self.step(Step::Send {
            way,
            frame: frame.into(),
            reason,
            fate,
        })
    }

    pub fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// The last packet was reported.
    pub fn told(self, kind: EventKind, reason: Reason) -> Self {
        self.step(Step::Told(kind, reason))
    }

    /// The one flow is in this state.
    pub fn state(self, state: State) -> Self {
        self.step(Step::State(state))
    }

    /// So many packets were noted.
    pub fn noted(self, reason: Reason, packets: u64) -> Self {
        self.step(Step::Noted(reason, packets))
    }

    /// The same case under another name.
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    pub fn wait(self, seconds: u64) -> Self {
        self.wait_ns(seconds * SECOND)
    }

    pub fn wait_ns(mut self, ns: u64) -> Self {
        self.steps.push(Step::Wait(ns));
        self
    }

    /// Opens the window in which running TCP connections are adopted.
    pub fn pick_up(mut self, seconds: u64) -> Self {
        self.steps.push(Step::PickUp(seconds * SECOND));
        self
    }

    pub fn apply(mut self, policy: &str) -> Self {
        self.steps.push(Step::Policy(policy.to_owned()));
        self
    }

    pub fn flows(mut self, main: usize, half_open: usize) -> Self {
        self.steps.push(Step::Flows { main, half_open });
        self
    }
}

/// The policy of all cases that name no other.
pub const POLICY: &str = r#"
version: 1
zones:
  clients: { addresses: [10.1.0.0/16, "fd00:1::/64"] }
  servers: { addresses: [10.2.0.0/16, "fd00:2::/64"] }
  tenant:  { addresses: [10.1.0.0/16, 10.2.0.0/16, "fd00:1::/64", "fd00:2::/64"], vlan: 101 }
  stacked: { addresses: [10.1.0.0/16, 10.2.0.0/16, "fd00:1::/64", "fd00:2::/64"], vlan: [100, 7] }
link: { allow: [arp, nd, lldp, lacp], dhcp: client }
rules:
  - { name: web,    allow: [http, dns, ping, syslog], from: clients, to: servers }
  - { name: telnet, deny: [tcp/23],  from: clients, to: servers }
  - { name: tunnel, allow: [gre, esp, sctp/5000, proto/89], from: clients, to: servers }
  - { name: out,    allow: [https, ping],   from: servers, to: clients }
  - { name: tagged, allow: [http],   from: tenant, to: tenant }
  - { name: nested, allow: [http],   from: stacked, to: stacked }
  - { name: admin,  allow: [ssh, ping], from: clients, to: self }
  - { name: update, allow: [https],  from: self, to: clients }
"#;

/// Addresses of one family.
#[derive(Clone, Copy, Debug)]
pub struct Net {
    /// In the zone `clients`, on the network's side.
    pub client: IpAddr,
    /// In the zone `servers`, on the guarded side; in host mode this machine.
    pub server: IpAddr,
    /// In no named zone.
    pub stranger: IpAddr,
    /// Inline: this machine. In host mode the server's address, which is this machine's there.
    pub own: IpAddr,
}

impl Net {
    pub const V4: [&str; 4] = ["10.1.0.7", "10.2.0.1", "198.51.100.9", "10.9.0.3"];
    pub const V6: [&str; 4] = ["fd00:1::7", "fd00:2::1", "2001:db8::9", "fd00:9::3"];

    pub fn new(ipv6: bool, inline: bool) -> Self {
        let [client, server, stranger, dpu] =
            (if ipv6 { Self::V6 } else { Self::V4 }).map(|text| text.parse().expect("an address"));
        Self {
            client,
            server,
            stranger,
            own: if inline { dpu } else { server },
        }
    }

    pub fn ipv6(&self) -> bool {
        self.client.is_ipv6()
    }

    /// A connection from the client to a port of the server.
    pub fn connection(&self, port: u16) -> Connection {
        Connection {
            client: (self.client, 40_000),
            server: (self.server, port),
        }
    }
}

/// An address that must be IPv6.
pub fn v6(address: IpAddr) -> Ipv6Addr {
    let IpAddr::V6(address) = address else {
        panic!("{address} is not IPv6")
    };
    address
}

/// A TCP connection; the client's first sequence number is 1000, the server's 5000.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    pub client: (IpAddr, u16),
    pub server: (IpAddr, u16),
}

impl Connection {
    /// A segment from the client.
    pub fn c(&self, flags: &str, sequence: u32, acknowledgement: u32) -> Packet {
        Packet::tcp(self.client, self.server)
            .flags(flags)
            .numbers(sequence, acknowledgement)
    }

    /// A segment from the server.
    pub fn s(&self, flags: &str, sequence: u32, acknowledgement: u32) -> Packet {
        Packet::tcp(self.server, self.client)
            .flags(flags)
            .numbers(sequence, acknowledgement)
    }

    /// The client's SYN, which a rule must allow.
    pub fn syn(&self, case: Case) -> Case {
        case.outer(self.c("S", 1000, 0), Reason::Rule)
    }

    /// SYN and SYN-ACK.
    pub fn answered(&self, case: Case) -> Case {
        self.syn(case)
            .inner(self.s("SA", 5000, 1001), Reason::Established)
    }

    /// The whole handshake.
    pub fn established(&self, case: Case) -> Case {
        self.answered(case)
            .outer(self.c("A", 1001, 5001), Reason::Established)
    }
}
