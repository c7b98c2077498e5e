//! Full tables: those who are in go on, lifelines get in, and a dead agent is no outage.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use fw_common::abi::Engine::{Tc, Xdp};
use fw_common::abi::{HEARTBEAT_NS, Reason};
use fw_common::pipeline::FlowStat;
use fw_tests::lab::{Options, TcpService};
use fw_tests::packet::Packet;
use fw_user::dataplane::{self, FlowSizes, FlowTable, coarse_now};

use crate::floods::attempt;
use crate::guarded::{Guarded, SOON, Stand};
use crate::rig::{From, Rig, Sender, counted, packets, turn};
use crate::traffic::Connections;

const POLICY: &str = r#"
version: 1
zones:
  client:  { addresses: [10.9.0.1, 10.9.0.31, "fd00:9::1", "fd00:9::31"] }
  bastion: { addresses: [10.9.0.30, "fd00:9::30"], lifeline: true }
  server:  { addresses: [10.9.0.2, "fd00:9::2"] }
rules:
  - { name: web, allow: [tcp/80-90], from: [client, bastion], to: server }
"#;

const SECOND: u64 = 1_000_000_000;

/// Entries of a main table; the last 16 are kept for lifelines.
const MAIN: u32 = 1025;

/// The running connections fill the main table. They go on; a new connection of anybody is refused; the bastion gets in. Once
/// the agent's heartbeat is old, everybody does.
fn full_table(stand: Stand, ipv6: bool) -> Result<()> {
    let _turn = turn();
    let plane = dataplane::Options {
        sizes: FlowSizes {
            flows4: MAIN,
            flows6: MAIN,
            ..FlowSizes::DEFAULT
        },
        ..dataplane::Options::default()
    };
    let guarded = Guarded::with(stand, Options::default(), POLICY, plane)?;
    let tables = guarded.tables();
    let (client, server) = (&guarded.scene.client, &guarded.scene.server);
    let family = usize::from(ipv6);
    let own = |last: u8| -> IpAddr {
        if ipv6 {
            format!("fd00:9::{last}").parse().expect("an address")
        } else {
            Ipv4Addr::new(10, 9, 0, last).into()
        }
    };
    for last in [30, 31] {
        let net = format!("{}/{}", own(last), if ipv6 { 64 } else { 24 });
        client.namespace.ip(&format!(
            "addr add {net} dev eth0 {}",
            if ipv6 { "nodad" } else { "" }
        ))?;
    }
    tables.beat(coarse_now());
    let room = tables.levels().room[family] as usize;
    let mut connections = Connections::open(client, server, (guarded.server(ipv6), 81), room)?;
    connections.round(SOON)?;
    ensure!(
        tables.levels().used[family] == room as u64,
        "the main table is not full: {:?}",
        tables.levels()
    );

    let _service = TcpService::start(&server.namespace, guarded.server(ipv6), 80)?;
    let to = SocketAddr::new(guarded.server(ipv6), 80);
    let attempt = |last: u8, patience| client.namespace.enter(|| attempt(own(last), to, patience));
    tables.beat(coarse_now());
    let refused = guarded.counts(Reason::TableFull, || attempt(31, Duration::from_millis(300)))?;
    ensure!(refused.is_err(), "a new connection found room in a full table");
    tables.beat(coarse_now());
    attempt(30, SOON)??;
    connections.round(SOON)?;

    tables.beat(coarse_now() - HEARTBEAT_NS - SECOND);
    attempt(31, SOON)??;
    connections.round(SOON)?;
    let stays = tables.flow_stats()?[FlowStat::StaysHalfOpen as usize];
    ensure!(stays > 0, "no flow stayed in the half-open table");
    Ok(())
}

#[test]
fn full_table_inline_xdp() -> Result<()> {
    full_table(Stand::Inline(Xdp, Xdp), false)
}

#[test]
fn full_table_host_tc_ipv6() -> Result<()> {
    full_table(Stand::Host(Tc), true)
}

/// What the rigs below enforce; protection is as it is by default.
const JOB: &str = "
version: 1
zones:
  gpu:    [10.1.0.0/16]
  server: [10.2.0.0/16]
rules:
  - { name: job, allow: [tcp/7000, udp/7000], from: gpu, to: server }
";

/// A UDP flow by its number.
fn datagram(flow: u32) -> [Packet; 2] {
    let [_, a, b, c] = flow.to_be_bytes();
    let asked = Packet::udp(
        ([10, 1, a, b], 1024 + u16::from(c)),
        ([10, 2, 0, (flow % 250) as u8 + 1], 7000),
    );
    [asked.clone(), asked.reversed()]
}

/// The frames of a flow, written over those of another: building each anew would take longer than judging it.
struct Template {
    asked: Vec<u8>,
    answered: Vec<u8>,
}

impl Template {
    fn new() -> Self {
        let [asked, answered] = datagram(0).map(|packet| packet.build());
        Self { asked, answered }
    }

    fn set(&mut self, flow: u32) {
        let [_, a, b, c] = flow.to_be_bytes();
        let port = (1024 + u16::from(c)).to_be_bytes();
        let server = (flow % 250) as u8 + 1;
        self.asked[28..30].copy_from_slice(&[a, b]);
        self.asked[33] = server;
        self.asked[34..36].copy_from_slice(&port);
        self.answered[32..34].copy_from_slice(&[a, b]);
        self.answered[29] = server;
        self.answered[36..38].copy_from_slice(&port);
    }
}

/// Flows that carry data all the time.
struct Running(Vec<[Vec<u8>; 2]>);

impl Running {
    const FLOWS: u32 = 1000;

    /// Opens them; TCP, which lives long enough without an agent to refresh anything.
    fn open(sender: &Sender<'_>) -> Result<Self> {
        let mut flows = Vec::new();
        for number in 0..Self::FLOWS {
            let [high, low] = (number as u16).to_be_bytes();
            let segment = Packet::tcp(([10, 1, 255 - high, low], 5000), ([10, 2, 1, 1], 7000));
            let syn = segment.clone().flags("S").numbers(1000, 0);
            let answer = segment.clone().reversed().flags("SA").numbers(5000, 1001);
            let both = [
                segment.clone().flags("A").numbers(1001, 5001).build(),
                segment.reversed().flags("A").numbers(5001, 1001).build(),
            ];
            for (from, frame) in [
                (From::Outer, &syn.build()),
                (From::Inner, &answer.build()),
                (From::Outer, &both[0]),
            ] {
                ensure!(sender.forwarded(from, frame)?, "flow {number} cannot be opened");
            }
            flows.push(both);
        }
        Ok(Self(flows))
    }

    /// A packet each way in each flow.
    fn talk(&self, sender: &Sender<'_>) -> Result<()> {
        for (number, [original, reply]) in self.0.iter().enumerate() {
            let passed = sender.forwarded(From::Outer, original)? && sender.forwarded(From::Inner, reply)?;
            ensure!(passed, "running flow {number} lost a packet");
        }
        Ok(())
    }
}

/// Ten minutes.
const SECONDS: u32 = 600;
/// New flows a second.
const RATE: u32 = 5000;

/// Two senders, each with every other new flow, and how far they are: neither runs far ahead of the other.
struct TenMinutes<'a> {
    rig: &'a Rig,
    running: &'a Running,
    start: u64,
    reached: [AtomicU32; 2],
}

impl TenMinutes<'_> {
    /// Sends; a sender that fails is as far as can be, so that the other one does not wait for it.
    fn run(&self, sender: &Sender<'_>, own: usize) -> Result<()> {
        let done = (0..SECONDS).try_for_each(|second| self.second(sender, own, second));
        self.reached[own].store(u32::MAX, Ordering::Relaxed);
        done
    }

    /// The first sender moves the clock and lets the running flows talk.
    fn second(&self, sender: &Sender<'_>, own: usize, second: u32) -> Result<()> {
        self.reached[own].store(second, Ordering::Relaxed);
        // An unanswered flow lives for 30 s.
        while self.reached[1 - own].load(Ordering::Relaxed) < second.saturating_sub(10) {
            std::thread::sleep(Duration::from_micros(200));
        }
        if own == 0 {
            let now = self.start + u64::from(second) * SECOND;
            self.rig.plane.tables().set_clock(now);
            if second.is_multiple_of(30) {
                self.running.talk(sender)?;
            }
        }
        let mut template = Template::new();
        for flow in (own as u32..RATE).step_by(2) {
            template.set(second * RATE + flow);
            let opened = sender.forwarded(From::Outer, &template.asked)?;
            // An eighth of the flows goes on: the main table is full of them after a minute.
            let passed = opened
                && (flow % 16 > 1
                    || (sender.forwarded(From::Inner, &template.answered)?
                        && sender.forwarded(From::Outer, &template.asked)?));
            ensure!(
                passed,
                "second {second}: flow {flow} lost a packet (opened: {opened}); {:?}",
                counted(&self.rig.plane)?
            );
        }
        Ok(())
    }
}

/// Ten minutes of the clock without an agent, at 5,000 new flows a second: all are opened, each answer and what follows it
/// passes, and the running flows lose nothing. Then the agent comes back, and new flows find their way into the main table.
#[test]
fn a_dead_agent_is_no_outage() -> Result<()> {
    let _turn = turn();
    let sizes = FlowSizes {
        flows4: 32_769,
        half4: 65_536,
        ..FlowSizes::DEFAULT
    };
    let options = dataplane::Options {
        clock_override: true,
        sizes,
        ..dataplane::Options::default()
    };
    let rig = Rig::new(options, JOB)?;
    let tables = rig.plane.tables();
    let start = 1_u64 << 50;
    tables.set_clock(start);
    tables.beat(start);
    let running = rig.on(0, Running::open)?;
    // The agent was last seen an hour ago.
    let start = start + 3600 * SECOND;
    tables.set_clock(start);
    let ten_minutes = TenMinutes {
        rig: &rig,
        running: &running,
        start,
        reached: [AtomicU32::new(0), AtomicU32::new(0)],
    };
    rig.on_both(
        |sender| ten_minutes.run(sender, 0),
        |sender| ten_minutes.run(sender, 1),
    )?;
    let flows = u64::from(SECONDS) * u64::from(RATE);
    let opened = packets(&rig.plane, Reason::Rule)?;
    ensure!(
        opened == flows + u64::from(Running::FLOWS),
        "{opened} flows were opened, {flows} and {} were wanted",
        Running::FLOWS
    );
    let stats = tables.flow_stats()?;
    let levels = tables.levels();
    println!(
        "{flows} new flows in {SECONDS} s without an agent, none refused: {:?}; main table {} of {}, {} promotions without room",
        counted(&rig.plane)?,
        levels.used[0],
        levels.room[0],
        stats[FlowStat::StaysHalfOpen as usize]
    );
    ensure!(levels.used[0] >= levels.room[0], "the main table was never full");
    ensure!(stats[FlowStat::StaysHalfOpen as usize] > 0);
    back(&rig, &running, start + u64::from(SECONDS) * SECOND)
}

/// The agent is back: it ages the table, and the next flow is promoted.
fn back(rig: &Rig, running: &Running, now: u64) -> Result<()> {
    let tables = rig.plane.tables();
    tables.set_clock(now);
    rig.on(0, |sender| running.talk(sender))?;
    tables.beat(now);
    tables.age(now + 300 * SECOND, |_, _, _| {})?;
    ensure!(
        tables.levels().used[0] == u64::from(Running::FLOWS),
        "after ageing: {:?}",
        tables.levels()
    );
    let [asked, answered] = datagram(0xff_ffff).map(|packet| packet.build());
    rig.on(0, |sender| {
        ensure!(sender.forwarded(From::Outer, &asked)?);
        ensure!(sender.forwarded(From::Inner, &answered)?);
        ensure!(sender.forwarded(From::Outer, &asked)?);
        running.talk(sender)
    })?;
    let mut main = 0;
    tables.for_each_flow(FlowTable::Main, |_, _| {
        main += 1;
        ControlFlow::Continue(())
    })?;
    ensure!(main == Running::FLOWS + 1, "{main} flows are in the main table");
    Ok(())
}
