//! Runs cases through the loaded programs, with a clock of its own.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::ops::ControlFlow;

use anyhow::{Context, Result, anyhow, ensure};
use fw_common::abi::{
    ControlFlags, Event, EventKind, Flow, LinkKind, Mode, PortConfig, Reason, Side, StateWord, Verdict,
};
use fw_common::tcp::State;
use fw_policy::{Environment, TableSet};
use fw_tests::lab::require_root;
use fw_tests::packet::Packet;
use fw_user::dataplane::{
    DataPlane, EventReader, FlowSizes, FlowTable, Hook, Options, Report, TestContext, TestOutcome,
};

use crate::case::{Case, Fate, Net, SECOND, Step, Way};
use crate::stand::Stand;

/// Index of `lo`, the kernel's own choice for a test run.
const PORT: u32 = 1;
/// Nothing is attached to the other port: what would be forwarded there is only reported.
const PEER: u32 = 2;
/// Roles of the ports: the network's, and inline the guarded host's.
const ROLES: [&str; 2] = ["uplink", "host"];

/// A loaded data plane with a clock that stands still unless a case moves it.
pub struct Rig {
    stand: Stand,
    plane: DataPlane,
    clock: u64,
    told: BTreeMap<u8, u64>,
    compiled: HashMap<String, fw_policy::Policy>,
    in_force: String,
    reader: EventReader,
    /// Events of the last packet.
    events: Vec<Event>,
    /// What was noted before the case.
    noted: BTreeMap<u8, u64>,
    agent_at_work: bool,
    pub link: LinkKind,
    /// How policies are compiled.
    pub options: fw_policy::Options,
}

/// Tables that are small enough to be walked before each case.
pub const SIZES: FlowSizes = FlowSizes {
    flows4: 1025,
    flows6: 1025,
    half4: 1024,
    half6: 1024,
    sources: 1024,
    limits: 1024,
    fragments: 1024,
};
/// More than any case needs in a window of 67 ms.
const PLENTY: u32 = 1 << 20;
/// Time between two cases: bans, proofs and buckets of one mean nothing to the next.
const BETWEEN_CASES: u64 = 1000 * SECOND;

impl Rig {
    pub fn new(stand: Stand) -> Result<Self> {
        Self::with_sizes(stand, SIZES)
    }

    pub fn with_sizes(stand: Stand, sizes: FlowSizes) -> Result<Self> {
        Self::load(stand, sizes, true)
    }

    /// With `report`, programs return verdict and reason; without, what they return to the kernel.
    pub fn load(stand: Stand, sizes: FlowSizes, report: bool) -> Result<Self> {
        require_root()?;
        let options = Options {
            report,
            clock_override: true,
            sizes,
            events_per_window: PLENTY,
            replies_per_window: PLENTY,
            ..Options::default()
        };
        let mut plane = DataPlane::open(options)?;
        let reader = plane.events()?;
        // As the agent does at its first pass.
        plane.tables().fill_presence()?;
        Ok(Self {
            stand,
            plane,
            clock: 1 << 50,
            told: BTreeMap::new(),
            compiled: HashMap::new(),
            in_force: String::new(),
            reader,
            events: Vec::new(),
            noted: BTreeMap::new(),
            agent_at_work: true,
            link: LinkKind::Ethernet,
            options: fw_policy::Options::default(),
        })
    }

    /// Runs a case from an empty flow table on. The inner result is the number of packets, or what went differently.
    pub fn run(&mut self, case: &Case) -> Result<Result<usize, String>> {
        self.begin(case)?;
        let mut sent = 0;
        for (number, step) in case.steps.iter().enumerate() {
            let wrong = match step {
                Step::Send { way, frame, .. } if !self.stand.can_run(*way, frame) => None,
                Step::Send {
                    way,
                    frame,
                    reason,
                    fate,
                } => {
                    sent += 1;
                    self.judged(*way, frame, *reason, *fate)?
                }
                other => self.other(other)?,
            };
            if let Some(wrong) = wrong {
                return Ok(Err(format!("step {number}: {wrong}")));
            }
        }
        Ok(Ok(sent))
    }

    fn begin(&mut self, case: &Case) -> Result<()> {
        self.clock += BETWEEN_CASES;
        self.agent_at_work = true;
        self.forget()?;
        let tables = self.plane.tables();
        tables.set_pickup_until(0);
        tables.set_replies_per_window(PLENTY);
        // A change of policy waits for the kernel's grace periods.
        if self.in_force != case.policy {
            self.apply(case.policy)?;
        }
        if case.steps.iter().any(|step| matches!(step, Step::Noted(..))) {
            self.noted = self.all_noted()?;
        }
        Ok(())
    }

    fn all_noted(&self) -> Result<BTreeMap<u8, u64>> {
        let noted = self.plane.tables().noted()?;
        Ok(noted
            .into_iter()
            .map(|(reason, count)| (reason, count.packets))
            .collect())
    }

    /// A packet, and what is wrong with its end.
    fn judged(&mut self, way: Way, frame: &[u8], reason: Reason, fate: Fate) -> Result<Option<String>> {
        let report = self.send(way, frame)?;
        self.events = self.take_events();
        let verdict = self.verdict(way, reason, fate);
        if (report.reason, report.verdict) != (reason, verdict) {
            return Ok(Some(format!(
                "from {way:?}: {verdict:?} by {} was expected, found {:?} by {}",
                reason.name(),
                report.verdict,
                report.reason.name()
            )));
        }
        let dropped = self
            .events
            .iter()
            .filter(|event| event.kind == EventKind::Drop as u8);
        let right = match &self.events[..] {
            [] => reason.allows(),
            [event] => !reason.allows() || event.kind != EventKind::Drop as u8,
            _ => false,
        };
        if !right || dropped.clone().any(|event| event.reason != reason as u8) {
            return Ok(Some(format!(
                "from {way:?}: the events of {} are {:?}",
                reason.name(),
                self.events
            )));
        }
        Ok(None)
    }

    /// Everything but a packet.
    pub fn other(&mut self, step: &Step) -> Result<Option<String>> {
        match step {
            Step::Wait(ns) => self.clock += ns,
            Step::PickUp(ns) => self
                .plane
                .tables()
                .set_pickup_until(self.clock.saturating_add(*ns)),
            Step::Policy(text) => self.apply(text)?,
            Step::Answers(answers) => self.plane.tables().set_replies_per_window(*answers),
            Step::Agent(at_work) => self.agent_at_work = *at_work,
            Step::Flows { .. }
            | Step::State(_)
            | Step::Told(..)
            | Step::Untold
            | Step::Noted(..)
            | Step::Send { .. } => return self.looked(step),
        }
        Ok(None)
    }

    /// What must be there, and is not.
    fn looked(&self, step: &Step) -> Result<Option<String>> {
        let (wanted, found) = match step {
            Step::Flows { main, half_open } => (
                format!("{main} flows in the main table, {half_open} in the half-open one"),
                format!(
                    "{} flows in the main table, {} in the half-open one",
                    self.count(FlowTable::Main)?,
                    self.count(FlowTable::HalfOpen)?
                ),
            ),
            Step::State(state) => {
                let state_of = |flow: &Flow| State::from_bits(StateWord(flow.state).state()).name();
                let found: Vec<&str> = self.flows()?.iter().map(state_of).collect();
                (
                    format!("flows in the states {:?}", [state.name()]),
                    format!("flows in the states {found:?}"),
                )
            }
            Step::Told(kind, reason) => (
                format!("events {:?}", [(*kind as u8, reason.name())]),
                self.told_now(),
            ),
            Step::Untold => ("events []".to_owned(), self.told_now()),
            Step::Noted(reason, packets) => {
                let number = *reason as u8;
                let before = self.noted.get(&number).copied().unwrap_or(0);
                let after = self.all_noted()?.get(&number).copied().unwrap_or(0);
                let say = |packets| format!("{packets} packets noted with {}", reason.name());
                (say(*packets), say(after - before))
            }
            _ => return Ok(None),
        };
        Ok((wanted != found).then(|| format!("{wanted} were expected, found {found}")))
    }

    /// Kinds and reasons of the last packet's events.
    fn told_now(&self) -> String {
        let name = |event: &Event| {
            let reason = Reason::from_number(event.reason).map_or("unknown", Reason::name);
            (event.kind, reason)
        };
        format!("events {:?}", self.events.iter().map(name).collect::<Vec<_>>())
    }

    /// What a packet with this reason must meet: inline, what is not for this machine itself is forwarded.
    fn verdict(&self, way: Way, reason: Reason, fate: Fate) -> Verdict {
        let answered = matches!(
            reason,
            Reason::RejectRule | Reason::RejectDefault | Reason::SynProof
        );
        if answered && fate != Fate::Silent {
            Verdict::Reply
        } else if !reason.allows() {
            Verdict::Drop
        } else if self.stand.inline() && way != Way::Own && fate != Fate::Up {
            Verdict::Forward
        } else {
            Verdict::Pass
        }
    }

    /// One packet, now.
    pub fn send(&mut self, way: Way, frame: &[u8]) -> Result<Report> {
        let hook = self.prepare(way)?;
        self.judge(hook, frame)
    }

    /// One packet, now, that must have this reason.
    pub fn meets(&mut self, way: Way, packet: &Packet, reason: Reason) -> Result<()> {
        let report = self.send(way, &packet.build())?;
        ensure!(
            report.reason == reason,
            "{:?}: {} was expected, found {report:?}",
            self.stand,
            reason.name()
        );
        Ok(())
    }

    /// Sets clock and port for packets that enter this way; returns the hook that they meet.
    pub fn prepare(&mut self, way: Way) -> Result<Hook> {
        let (hook, side) = self.stand.enters(way);
        let inline = self.stand.inline();
        let tables = self.plane.tables();
        tables.set_clock(self.clock);
        if self.agent_at_work {
            tables.beat(self.clock);
        }
        tables.set_port(&PortConfig {
            ifindex: PORT,
            peer_ifindex: if inline { PEER } else { 0 },
            mode: if inline { Mode::Inline } else { Mode::Host } as u8,
            engine: self.stand.engine() as u8,
            link: self.link as u8,
            side: side as u8,
            realm: 0,
            role: u8::from(side == Side::Inner),
            peer_role: u8::from(inline == (side == Side::Outer)),
            pad: 0,
        })?;
        Ok(hook)
    }

    /// One packet through a program, whatever the port's configuration.
    pub fn judge(&mut self, hook: Hook, frame: &[u8]) -> Result<Report> {
        let outcome = self.raw(hook, frame)?;
        let report = outcome.report.context("the program was not loaded to report")?;
        *self.told.entry(report.reason as u8).or_default() += 1;
        Ok(report)
    }

    /// One packet through a program: what it returns, and the frame afterwards.
    pub fn raw(&self, hook: Hook, frame: &[u8]) -> Result<TestOutcome> {
        self.plane
            .test_run(hook, frame, &TestContext::on(PORT))
            .with_context(|| {
                let head = &frame[..frame.len().min(128)];
                format!("{hook}, {} bytes: {head:02x?}", frame.len())
            })
    }

    pub fn plane(&self) -> &DataPlane {
        &self.plane
    }

    /// Events since the last call, or the last packet of a case.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.reader.next_event()).collect()
    }

    /// The rig's clock, ns.
    pub fn now(&self) -> u64 {
        self.clock
    }

    pub fn apply(&mut self, text: &str) -> Result<()> {
        let set = self.compile(text)?;
        let tables = self.plane.tables();
        tables.apply(&set.lines)?;
        tables.set_flags(if set.settings.window_loose {
            ControlFlags::WINDOW_LOOSE
        } else {
            0
        });
        text.clone_into(&mut self.in_force);
        Ok(())
    }

    pub fn compile(&mut self, text: &str) -> Result<TableSet> {
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
            // Policies with a deadline count from the moment when they are applied.
            boot_unix_s: -((self.clock / SECOND).cast_signed()),
        };
        Ok(fw_policy::compile_with(
            &self.compiled[text],
            &environment,
            self.options,
        )?)
    }

    /// Flows, counts of sources and buckets of limits are gone.
    pub fn forget(&self) -> Result<()> {
        let tables = self.plane.tables();
        for (key, flows) in tables.source_flows()? {
            tables.mend_source(&key, flows, 0)?;
        }
        let mut buckets = Vec::new();
        tables.for_each_bucket(|key, value| buckets.push((*key, value)))?;
        for (key, value) in buckets {
            tables.mend_bucket(&key, value, 0)?;
        }

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

    /// All flows.
    pub fn flows(&self) -> Result<Vec<Flow>> {
        let mut flows = Vec::new();
        for table in [FlowTable::Main, FlowTable::HalfOpen] {
            self.plane.tables().for_each_flow(table, |_, flow| {
                flows.push(*flow);
                ControlFlow::Continue(())
            })?;
        }
        Ok(flows)
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
