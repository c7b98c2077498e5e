//! The policies between which the packets are judged: together they use everything that the language can say of packets.

use anyhow::{Result, anyhow};
use fw_common::abi::{BEYOND, CHUNK_LINES, Line, SetHeader, checksum};
use fw_policy::model::Pickup;
use fw_policy::{Environment, Policy};

/// Roles of the ports, by number.
pub const ROLES: [&str; 3] = ["uplink", "host", "rail"];

const ZONES: &str = r#"version: 1
zones:
  client:  { addresses: [10.1.0.0/16, "fd00:1::/48"] }
  server:  { addresses: [10.2.0.0/16, "fd00:2::/48"] }
  known:   { addresses: [10.3.0.0/16, "fd00:3::/48"] }
  rail:    { addresses: [10.10.0.0/16, "fd00:10::/48"], plane: training, ports: [rail] }
  bastion: { addresses: [10.30.0.10, "fd00:30::10"], lifeline: true }
  tenant:  { addresses: [192.168.0.0/16, "fd00:a::/48"], vlan: 101 }
  stacked: { addresses: [192.168.0.0/16, "fd00:a::/48"], vlan: [100, 7] }
"#;

/// What every policy says.
const COMMON: &str = r"
  - { name: way_in,    allow: [ssh, ping], from: bastion, to: any }
  - { name: rejected,  reject: [tcp/81, udp/81, icmp/13], from: any, to: any, log: true }
  - { name: denied,    deny: [tcp/82, udp/82], from: any, to: any }
  - { name: trial,     deny: [tcp/83, udp/83], from: any, to: any, audit: true }
  - { name: trial2,    reject: [tcp/86, udp/86], from: any, to: any, audit: true, log: true }
  - { name: stateless, allow: [roce, tcp/84], from: any, to: any, track: false }
  - { name: measured,  allow: [udp/4792, icmp/echo-request], from: known, to: any, track: false, limit: { packets: 20/s, burst: 20 } }
  - { name: kept,      allow: [http, dns, syslog, sctp/3868, gre, esp, proto/89, tcp/85], from: any, to: any }
";

const LIMITS: &str = r"
  - { name: packets,   allow: [tcp/1001, udp/1001], from: any, to: any, limit: { packets: 30/s, burst: 30, per: source/24 } }
  - { name: bytes,     allow: [tcp/1002, udp/1002], from: any, to: any, limit: [{ bytes: 6 KiB/s, burst: 2 KiB, per: pair }, { packets: 1000/s, per: rule }] }
  - { name: new_flows, allow: [tcp/1003, udp/1003], from: any, to: any, limit: { new_flows: 2/s, burst: 4, per: destination } }
  - { name: flows,     allow: [tcp/1004, udp/1004], from: any, to: any, limit: { flows: 3, per: source/64 }, log: true }
";

/// How often each is put in force, of 16 times.
pub const NAMES: [(&str, u8); 6] = [
    ("main", 5),
    ("early", 3),
    ("tight", 4),
    ("narrow", 2),
    ("until", 1),
    ("broken", 1),
];

/// The text of the policy with this name.
fn text(name: &str) -> String {
    let (sections, own) = match name {
        "early" => (
            "link: { allow: [arp, nd], dhcp: client, router_advertisement: [uplink, rail], multicast: never }
fragments: pass_early
tcp: { window: loose, pickup: always }
protect: { invalid: count, spoofed: count, scan: { above: 20/min, mode: count }, syn_flood: { above: 3/s, mode: count },
  udp_flood: { above: 3/s, mode: count }, caps: { half_open: none, flows: none } }
default: { inside: drop, outside: reject }",
            "  - { name: rest, allow: [https, ntp, ping, tcp/8000-8100, tcp/1001-1004, udp/1001-1004], from: any, to: any, log: true }",
        ),
        "tight" => (
            "link: { allow: [arp, nd, lldp, lacp], dhcp: client, router_advertisement: never, multicast: allow }
tcp: { pickup: never }
protect: { syn_flood: { above: 3/s, burst: 6, exempt: [known] }, udp_flood: { above: 3/s, burst: 6, mode: drop },
  icmp_flood: { above: 2/s, burst: 4, mode: drop }, scan: { above: 6/min, mode: drop, ban: 10m }, caps: { half_open: 12, flows: 5 },
  screens: { ttl_zero: skip, source_route: count } }
default: { inside: reject, outside: drop }",
            "  - { name: rest, allow: [https, ntp, ping, tcp/8000-8100], from: any, to: any }",
        ),
        "narrow" => (
            "link: { allow: [], multicast: never }
default: { inside: reject, outside: reject }",
            "  - { name: rest, allow: [tcp/8000-8050], from: client, to: [server, self], log: true }",
        ),
        "until" => (
            "link: { allow: [arp, nd, lldp, lacp], dhcp: client, router_advertisement: [uplink], multicast: allow }
tcp: { pickup: always }
default: { inside: drop, outside: drop }",
            "  - { name: ends, allow: [https, ntp, ping, tcp/8000-8100, udp/8000-8100], from: any, to: any, until: 2026-01-01T00:00:00Z }",
        ),
        _ => (
            "link: { allow: [arp, nd, lldp, lacp], dhcp: client, router_advertisement: [uplink], multicast: allow }
default: { inside: reject, outside: drop }",
            "  - { name: rest, allow: [https, ntp, ping, tcp/8000-8100, udp/8000-8100], from: any, to: any }",
        ),
    };
    let limits = if matches!(name, "main" | "tight" | "until" | "broken") {
        LIMITS
    } else {
        ""
    };
    format!("{ZONES}{sections}\nrules:{COMMON}{limits}{own}\n")
}

/// When the rule of the policy `until` ends, Unix time in seconds.
const ENDS: i64 = 1_767_225_600;

/// A policy as both sides take it.
pub struct Compiled {
    pub name: &'static str,
    pub lines: Vec<Line>,
    /// The same for the model, which keeps it: its references live as long as the test.
    pub shared: &'static [Line],
    pub loose: bool,
    pub pickup: Pickup,
}

impl Compiled {
    /// Compiles the policy; a rule with `until` ends when the clock shows `ends_at_s` seconds since the start.
    pub fn new(name: &'static str, ends_at_s: u64) -> Result<Self> {
        let (policy, _) =
            fw_policy::check(&text(name), name).map_err(|findings| anyhow!("policy {name}: {findings}"))?;
        let mut lines = fw_policy::compile(&policy, &environment(ends_at_s))?.lines;
        if name == "broken" {
            damage(&mut lines);
        }
        let Policy { tcp, .. } = policy;
        Ok(Self {
            name,
            shared: Vec::leak(as_in_the_kernel(&lines)),
            lines,
            loose: tcp.window_loose,
            pickup: tcp.pickup,
        })
    }

    /// The lines as the set of another generation; nothing but the header differs.
    pub fn of_generation(&mut self, generation: u32) -> &[Line] {
        let (first, second) = self.lines.split_at_mut(1);
        let mut header = SetHeader::from_lines(&first[0], &second[0]);
        header.generation = generation;
        let [a, b] = header.to_lines();
        (first[0], second[0]) = (a, b);
        let sum = checksum(&self.lines);
        self.lines[0].w[4] = sum as u32;
        self.lines[0].w[5] = (sum >> 32) as u32;
        &self.lines
    }
}

fn environment(ends_at_s: u64) -> Environment {
    Environment {
        roles: ROLES.map(str::to_owned).to_vec(),
        boot_unix_s: ENDS - ends_at_s.cast_signed(),
        ..Environment::sample()
    }
}

/// The set with what lies behind it in its last chunk.
fn as_in_the_kernel(lines: &[Line]) -> Vec<Line> {
    let mut whole = lines.to_vec();
    whole.resize(lines.len().next_multiple_of(CHUNK_LINES as usize), BEYOND);
    whole
}

/// Makes decisions and realms point outside of the set: what a memory error might do.
fn damage(lines: &mut [Line]) {
    let mut header = SetHeader::from_lines(&lines[0], &lines[1]);
    header.decision_pages = header.lines;
    header.rules = header.lines;
    let [a, b] = header.to_lines();
    (lines[0], lines[1]) = (a, b);
}
