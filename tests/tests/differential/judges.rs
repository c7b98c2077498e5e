//! The compiled tables on the host, and the program in the kernel.

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use fw_common::abi::{Engine, Ip4, Ip6, Line, LinkKind, Mode, PortConfig, Reason, Side, Verdict};
use fw_common::classify::{self, Classified, Service};
use fw_policy::{Choice, Environment, Policy, Representation};
use fw_tests::oracle::{Answer, Question};
use fw_user::dataplane::{DataPlane, FlowSizes, Hook, Options, TestContext};

use super::frame::Frames;

/// Index of `lo`, the kernel's own choice for a test run.
const PORT: u32 = 1;

/// A data plane that only answers, and the same tables in memory.
pub struct Judges {
    plane: DataPlane,
    lines: Vec<Line>,
    hook: Hook,
    frames: Frames,
    /// Of the tables in force.
    pub representation: Representation,
}

impl Judges {
    /// Loads the programs.
    pub fn new() -> Result<Self> {
        let plane = DataPlane::open(Options {
            dry_run: true,
            sizes: FlowSizes {
                flows4: 1025,
                flows6: 1025,
                half4: 1024,
                half6: 1024,
                ..FlowSizes::DEFAULT
            },
            ..Options::default()
        })?;
        plane.tables().set_port(&port())?;
        Ok(Self {
            plane,
            lines: Vec::new(),
            hook: Hook::XdpIn,
            frames: Frames::default(),
            representation: Representation::Pairs,
        })
    }

    /// Compiles a policy for a machine; its seed chooses the hook, and whether the compiler chooses the representation or has
    /// to take bit vectors.
    pub fn apply(&mut self, policy: &Policy, own: &[IpAddr], seed: u64) -> Result<()> {
        let environment = Environment {
            own_addresses: own.to_vec(),
            roles: Vec::new(),
            generation: self.plane.tables().next_generation(),
            ..Environment::sample()
        };
        let choice = if (seed / 21).is_multiple_of(2) {
            Choice::Auto
        } else {
            Choice::Only(Representation::Vectors)
        };
        let options = fw_policy::Options {
            choice,
            ..fw_policy::Options::default()
        };
        let set = fw_policy::compile_with(policy, &environment, options)?;
        self.representation = set.stats.representation;
        self.lines = set.lines;
        self.plane.tables().apply(&self.lines)?;
        self.hook = Hook::ALL[(seed / 7 % Hook::ALL.len() as u64) as usize];
        Ok(())
    }

    /// What the tables say.
    pub fn tables(&self, question: &Question) -> Result<Answer> {
        let lines = self.lines.as_slice();
        let realm = match classify::realm_record(lines, (question.vlan, 0)) {
            Ok(realm) => realm,
            Err(Reason::UnknownRealm) => return Ok(Answer::UnknownRealm),
            Err(reason) => bail!("the tables are damaged: {}", reason.sentence()),
        };
        let service = Service::of(question.proto, question.selector, question.source_port);
        let mut out = Classified::default();
        let decision = match (question.src, question.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let ends = (Ip4(src.to_bits()), Ip4(dst.to_bits()));
                classify::classify(lines, realm, ends, service, &mut out)
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let ends = (Ip6::from_bits(src.to_bits()), Ip6::from_bits(dst.to_bits()));
                classify::classify(lines, realm, ends, service, &mut out)
            }
            _ => bail!("a packet of two families"),
        };
        let decision =
            decision.map_err(|reason| anyhow::anyhow!("the tables are damaged: {}", reason.sentence()))?;
        Ok(match (decision.rule(), decision.allows()) {
            (rule, true) => Answer::Allow(rule),
            (0, false) => Answer::Default,
            (rule, false) => Answer::Deny(rule),
        })
    }

    /// What the kernel says. Its own addresses are a source only in what a machine sends.
    pub fn kernel(&mut self, own: &[IpAddr], question: &Question) -> Result<Answer> {
        let hook = if own.contains(&question.src) {
            Hook::TcOut
        } else {
            self.hook
        };
        let frame = self.frames.of(question);
        let outcome = self.plane.test_run(hook, frame, &TestContext::on(PORT))?;
        let report = outcome.report.context("the program was not loaded to report")?;
        let passes = report.verdict == Verdict::Pass;
        match (report.reason, passes) {
            (Reason::Rule, true) => Ok(Answer::Allow(report.rule)),
            (Reason::DenyRule, false) => Ok(Answer::Deny(report.rule)),
            (Reason::DenyDefault, false) if report.rule == 0 => Ok(Answer::Default),
            (Reason::UnknownRealm, false) => Ok(Answer::UnknownRealm),
            _ => bail!("{hook}: the kernel says {report:?} of {question:?}"),
        }
    }
}

fn port() -> PortConfig {
    PortConfig {
        ifindex: PORT,
        mode: Mode::Host as u8,
        engine: Engine::Xdp as u8,
        link: LinkKind::Ethernet as u8,
        side: Side::Outer as u8,
        ..PortConfig::default()
    }
}
