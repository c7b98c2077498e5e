//! The agent's status: what `dpufw status --json` prints.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How far an interface is covered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cover {
    /// All that passes it is judged.
    Covered,
    /// It is a port, but something may pass unseen.
    Partly,
    /// Nothing of it is judged.
    NotCovered,
    /// The operator listed it as ignored.
    Ignored,
}

impl Cover {
    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Covered => "covered",
            Self::Partly => "partly",
            Self::NotCovered => "NOT COVERED",
            Self::Ignored => "ignored",
        }
    }
}

/// One interface, VF or path of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// Its name.
    pub interface: String,
    /// Its index.
    pub ifindex: u32,
    /// What it is: `ethernet`, `veth`, `bridge`, ...
    pub kind: String,
    /// True if it is up.
    pub up: bool,
    /// How far it is covered.
    pub cover: Cover,
    /// Why, one sentence each.
    pub reasons: Vec<String>,
    /// True if this line makes `status` exit with 1.
    pub alarm: bool,
}

/// One port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStatus {
    /// Interface.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// Its role.
    pub role: String,
    /// `outer` or `inner`.
    pub side: String,
    /// Its realm, 0..=15.
    pub realm: u8,
    /// The pair's other port.
    pub peer: Option<String>,
    /// The engine that was asked for: `xdp` or `tc`.
    pub engine_asked: String,
    /// The engine that runs: `xdp native`, `tcx`, `clsact`.
    pub engine: String,
    /// The program that judges what this machine sends: `tcx`, `clsact`, or none in mode `inline`.
    pub egress: Option<String>,
    /// What else is to be said, one sentence each.
    pub notes: Vec<String>,
}

/// The policy in force.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// Name of the file it came from.
    pub name: String,
    /// SHA-256 of its text, in hexadecimal.
    pub hash: String,
    /// Generation.
    pub generation: u32,
    /// When it was applied.
    pub applied: Option<Timestamp>,
    /// Seconds since then.
    pub age_s: f64,
    /// Number of rules.
    pub rules: u32,
    /// Number of zones.
    pub zones: u32,
}

/// Flows of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowCount {
    /// `main` or `half_open`.
    pub table: String,
    /// 4 or 6.
    pub family: u8,
    /// State.
    pub state: String,
    /// How many.
    pub count: u64,
}

/// How full a table is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableStatus {
    /// `main`, `half_open`, `sources`, `limits` or `fragments`.
    pub table: String,
    /// 4 or 6; 0 where one table serves both.
    pub family: u8,
    /// Entries in it; none where nobody counts them: the entry that was not used for longest makes room.
    pub used: Option<u64>,
    /// The most flows at any ageing pass since the agent started.
    pub highest: Option<u64>,
    /// Main tables: entries up to which anyone's flow is inserted; the rest is kept for lifelines.
    pub room: Option<u64>,
    /// Entries that fit.
    pub capacity: u64,
    /// Bytes of kernel memory, used or not.
    pub bytes: u64,
    /// Bytes of an entry, without its share of the buckets.
    pub bytes_per_entry: u64,
}

/// A source with many flows. IPv4 sources are addresses, IPv6 sources networks of 64 bits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TopSource {
    /// `main` or `half_open`.
    pub table: String,
    /// 4 or 6.
    pub family: u8,
    /// Who opened the flows: `10.0.0.1`, `2001:db8::/64`.
    pub source: String,
    /// Realm of the port, 0..=15.
    pub realm: u8,
    /// VLAN id; 0: untagged.
    pub vlan: u16,
    /// Of two tags the inner VLAN id; else 0.
    pub inner_vlan: u16,
    /// Its most specific zone.
    pub zone: Option<String>,
    /// Its flows in the table.
    pub flows: u64,
    /// Their share of the table's flows, 0 to 1.
    pub share: f64,
}

/// Whether the packet path knows that its tables are aged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Heartbeats since the agent started.
    pub beats: u64,
    /// Milliseconds since the last one, of this agent or its predecessor; none if there was none.
    pub age_ms: Option<u64>,
}

/// Counted since the data plane was loaded (`opened`, `promoted`, `events_*`) or since the agent started (the rest).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowTotals {
    /// Flows opened.
    pub opened: u64,
    /// Flows confirmed by their openers.
    pub promoted: u64,
    /// Flows that nobody answered.
    pub unanswered: u64,
    /// Flow records made.
    pub records: u64,
    /// Flow records that could not be written to the flow log.
    pub records_lost: u64,
    /// Packets that were not reported because of the kernel's limit.
    pub events_suppressed: u64,
    /// Packets that were not reported because the ring was full.
    pub events_lost: u64,
    /// Answers (resets, ICMP errors, demands for proof) that were not sent because of the kernel's limit.
    pub replies_suppressed: u64,
    /// Flows that stayed half-open because the main table was full.
    pub stay_half_open: u64,
    /// Insertions that were tried again because the table was locked.
    pub insert_retries: u64,
}

/// Packets dropped, or noted, for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropCount {
    /// Machine name of the reason.
    pub reason: String,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The agent's version.
    pub version: String,
    /// Version of the data plane's layout.
    pub abi: u32,
    /// The agent's process id.
    pub pid: u32,
    /// When it started.
    pub started: Timestamp,
    /// `host` or `inline`.
    pub mode: String,
    /// Where programs, links and maps are pinned.
    pub pin_dir: String,
    /// True if the agent took over a running data plane when it started.
    pub took_over: bool,
    /// Seconds for which TCP connections that already run are still adopted (a cold start); 0: they are not; `u64::MAX`:
    /// they always are (`pickup: always`).
    pub adopting_s: u64,
    /// The heartbeat.
    pub heartbeat: Heartbeat,
    /// The policy in force.
    pub policy: PolicyStatus,
    /// Ports.
    pub ports: Vec<PortStatus>,
    /// Flows by table, family and state.
    pub flows: Vec<FlowCount>,
    /// Tables.
    pub tables: Vec<TableStatus>,
    /// The ten sources that fill each flow table most, as of the last ageing pass.
    pub top_sources: Vec<TopSource>,
    /// Totals.
    pub totals: FlowTotals,
    /// Packets that passed.
    pub passed_packets: u64,
    /// Packets dropped, by reason.
    pub drops: Vec<DropCount>,
    /// Packets that a screen in mode `count` or a rule with `audit: true` would have dropped, by reason. They are also
    /// counted by what happened to them.
    pub noted: Vec<DropCount>,
    /// Coverage of every interface (invariant: no line is missing).
    pub coverage: Vec<Coverage>,
    /// What holds for the machine as a whole, one sentence each.
    pub coverage_notes: Vec<String>,
    /// What is wrong, one sentence each.
    pub degraded: Vec<String>,
}

impl Status {
    /// True if nothing is wrong and no up interface is left out.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.degraded.is_empty() && !self.coverage.iter().any(|line| line.alarm)
    }
}
