//! Runs cases through the loaded programs, with a clock of its own.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::ops::ControlFlow;

use anyhow::{Context, Result, anyhow, ensure};
use fw_common::abi::{Engine, Line, LinkKind, Mode, PortConfig, Reason, Side, Verdict};
use fw_policy::Environment;
use fw_tests::lab::require_root;
use fw_user::dataplane::{DataPlane, FlowSizes, FlowTable, Hook, Options, Report, TestContext};

use crate::case::{Case, Net, Step, Way};

/// Index of `lo`, the kernel's own choice for a test run.
const PORT: u32 = 1;
/// Nothing is attached to the other port: what would be forwarded there is only reported.
const PEER: u32 = 2;
/// Roles of the ports: the network's, and inline the guarded host's.
const ROLES: [&str; 2] = ["uplink", "host"];

/// Where the firewall stands, and which program judges what comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    HostXdp,
    HostTc,
    InlineXdp,
    InlineTc,
}

impl Stand {
    pub const ALL: [Self; 4] = [Self::HostXdp, Self::HostTc, Self::InlineXdp, Self::InlineTc];

    pub fn inline(self) -> bool {
        matches!(self, Self::InlineXdp | Self::InlineTc)
    }

    fn engine(self) -> Engine {
        if matches!(self, Self::HostXdp | Self::InlineXdp) {
            Engine::Xdp
        } else {
            Engine::Tc
        }
    }

    /// The hook that a packet meets, and the side that its port stands on.
    fn enters(self, way: Way) -> (Hook, Side) {
        let receives = if self.engine() == Engine::Xdp {
            Hook::XdpIn
        } else {
            Hook::TcIn
        };
        match way {
            Way::Outer => (receives, Side::Outer),
            Way::Inner if self.inline() => (receives, Side::Inner),
            Way::Inner | Way::Own => (Hook::TcOut, Side::Outer),
        }
    }
}

impl Stand {
    /// False for frames that the kernel's test run refuses at TC hooks: IP packets that end inside of the IP header
    /// (`net/bpf/test_run.c`). The namespace suite sends those over a real wire.
    fn can_run(self, way: Way, frame: &[u8]) -> bool {
        let header = match frame.get(12..14) {
            Some([0x08, 0x00]) => 34,
            Some([0x86, 0xdd]) => 54,
            _ => 15,
        };
        self.enters(way).0 == Hook::XdpIn || frame.len() >= header
    }
}

/// A loaded data plane with a clock that stands still unless a case moves it.
pub struct Rig {
    stand: Stand,
    plane: DataPlane,
    clock: u64,
    told: BTreeMap<u8, u64>,
    compiled: HashMap<String, fw_policy::Policy>,
    in_force: String,
}

impl Rig {
    pub fn new(stand: Stand) -> Result<Self> {
        Self::with_sizes(
            stand,
            FlowSizes {
                flows4: 1025,
                flows6: 1025,
                half4: 1024,
                half6: 1024,
                ..FlowSizes::DEFAULT
            },
        )
    }

    pub fn with_sizes(stand: Stand, sizes: FlowSizes) -> Result<Self> {
        require_root()?;
        let options = Options {
            report: true,
            clock_override: true,
            sizes,
            ..Options::default()
        };
        let plane = DataPlane::open(options)?;
        Ok(Self {
            stand,
            plane,
            clock: 1 << 50,
            told: BTreeMap::new(),
            compiled: HashMap::new(),
            in_force: String::new(),
        })
    }

    /// Runs a case from an empty flow table on. The inner result is the number of packets, or what went differently.
    pub fn run(&mut self, case: &Case) -> Result<Result<usize, String>> {
        self.forget_flows()?;
        self.plane.tables().set_pickup_until(0);
        // A change of policy waits for the kernel's grace periods.
        if self.in_force != case.policy {
            self.apply(case.policy)?;
        }
        let mut sent = 0;
        for (number, step) in case.steps.iter().enumerate() {
            match step {
                Step::Wait(ns) => self.clock += ns,
                Step::PickUp(ns) => self.plane.tables().set_pickup_until(self.clock + ns),
                Step::Policy(text) => self.apply(text)?,
                Step::Flows { main, half_open } => {
                    let found = (self.count(FlowTable::Main)?, self.count(FlowTable::HalfOpen)?);
                    if found != (*main, *half_open) {
                        return Ok(Err(format!(
                            "step {number}: {main} flows in the main table and {half_open} in the half-open one were \
                             expected, found {} and {}",
                            found.0, found.1
                        )));
                    }
                }
                Step::Send { way, frame, .. } if !self.stand.can_run(*way, frame) => {}
                Step::Send {
                    way,
                    frame,
                    reason,
                    up,
                } => {
                    let report = self.send(*way, frame)?;
                    let verdict = self.verdict(*way, *reason, *up);
                    if (report.reason, report.verdict) != (*reason, verdict) {
                        return Ok(Err(format!(
                            "step {number}, from {way:?}: {verdict:?} by {} was expected, found {:?} by {}",
                            reason.name(),
                            report.verdict,
                            report.reason.name()
                        )));
                    }
                    sent += 1;
                }
            }
        }
        Ok(Ok(sent))
    }

    /// What a packet with this reason must meet: inline, what is not for this machine itself is forwarded.
    fn verdict(&self, way: Way, reason: Reason, up: bool) -> Verdict {
        if !reason.allows() {
            Verdict::Drop
        } else if self.stand.inline() && way != Way::Own && !up {
            Verdict::Forward
        } else {
            Verdict::Pass
        }
    }

    /// One packet, now.
    pub fn send(&mut self, way: Way, frame: &[u8]) -> Result<Report> {
        let (hook, side) = self.stand.enters(way);
        let inline = self.stand.inline();
        let tables = self.plane.tables();
        tables.set_clock(self.clock);
        tables.set_port(&PortConfig {
            ifindex: PORT,
            peer_ifindex: if inline { PEER } else { 0 },
            mode: if inline { Mode::Inline } else { Mode::Host } as u8,
            engine: self.stand.engine() as u8,
            link: LinkKind::Ethernet as u8,
            side: side as u8,
            realm: 0,
            role: u8::from(side == Side::Inner),
            peer_role: u8::from(inline == (side == Side::Outer)),
            pad: 0,
        })?;
        self.judge(hook, frame)
    }

    /// One packet through a program, whatever the port's configuration.
    pub fn judge(&mut self, hook: Hook, frame: &[u8]) -> Result<Report> {
        let outcome = self
            .plane
            .test_run(hook, frame, &TestContext::on(PORT))
            .with_context(|| format!("{hook}, {} bytes: {frame:02x?}", frame.len()))?;
        let report = outcome.report.context("the program was not loaded to report")?;
        *self.told.entry(report.reason as u8).or_default() += 1;
        Ok(report)
    }

    pub fn apply(&mut self, text: &str) -> Result<()> {
        let lines = self.compile(text)?;
        self.plane.tables().apply(&lines)?;
        text.clone_into(&mut self.in_force);
        Ok(())
    }

    fn compile(&mut self, text: &str) -> Result<Vec<Line>> {
        if !self.compiled.contains_key(text) {
            let (policy, _) =
                fw_policy::check(text, "packets.yaml").map_err(|findings| anyhow!("{findings}"))?;
            self.compiled.insert(text.to_owned(), policy);
        }
        let nets = [
            Net::new(false, self.stand.inline()),
            Net::new(true, self.stand.inline()),
        ];
        let environment = Environment {
            own_addresses: nets.iter().map(|net| net.own).collect::<Vec<IpAddr>>(),
            roles: ROLES.map(str::to_owned).to_vec(),
            generation: self.plane.tables().next_generation(),
            ..Environment::sample()
        };
        Ok(fw_policy::compile(&self.compiled[text], &environment)?.lines)
    }

    fn forget_flows(&self) -> Result<()> {
        for table in [FlowTable::Main, FlowTable::HalfOpen] {
            let mut keys = Vec::new();
            self.plane.tables().for_each_flow(table, |key, _| {
                keys.push(key);
                ControlFlow::Continue(())
            })?;
            for key in keys {
                self.plane.tables().kill(&key)?;
            }
        }
        Ok(())
    }

    pub fn count(&self, table: FlowTable) -> Result<usize> {
        let mut count = 0;
        self.plane.tables().for_each_flow(table, |_, _| {
            count += 1;
            ControlFlow::Continue(())
        })?;
        Ok(count)
    }

    /// The kernel's counters hold exactly what the reports said: every packet has one reason, and it is counted once.
    pub fn counters_add_up(&self) -> Result<()> {
        let counted: BTreeMap<u8, u64> = self
            .plane
            .tables()
            .counters()?
            .into_iter()
            .filter(|(_, count)| count.packets > 0)
            .map(|(reason, count)| (reason, count.packets))
            .collect();
        ensure!(
            counted == self.told,
            "{:?}: the counters say {counted:?}, the reports {:?}",
            self.stand,
            self.told
        );
        Ok(())
    }
}
