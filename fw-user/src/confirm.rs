//! Confirms a proof by the kernel: counter-examples and a packet of each class go through the loaded program by test-run, in
//! private maps, and must be decided as the prover says.
//!
//! What the rules say is asked, so the screens of the policy are left out; nothing that runs is touched.

use std::net::IpAddr;

use fw_common::abi::{Engine, LinkKind, Mode, PortConfig, ProtectMode, Reason, Side, Verdict};
use fw_policy::isolate::{Crossing, Fault, lets_through};
use fw_policy::model::{Isolation, Policy, RuleAction};
use fw_policy::prove::{Certificate, samples};
use fw_policy::space::Scope;
use fw_policy::{Asked, Environment, Flow, FlowSpec, TableSet};
use serde::Serialize;

use crate::dataplane::{DataPlane, DataPlaneError, Hook, Options, Report, TestContext, frame};
use crate::exit::{Failure, chain};

/// Packets that stand for classes; beyond, they are spread evenly over all classes.
pub const MOST_SAMPLES: usize = 20_000;
/// Differences that are listed.
const LISTED: usize = 20;
/// Index of `lo`, the kernel's own choice for a test run.
const PORT: u32 = 1;

/// What the kernel says of a proof.
#[derive(Clone, Debug, Serialize)]
pub struct Replay {
    /// Release of the kernel.
    pub kernel: String,
    /// Counter-examples that were sent, each through ingress or egress as its source demands.
    pub counter_examples: u64,
    /// Classes of packets that there are between the sides, in both directions, with dynamic zones as they are.
    pub classes: u128,
    /// Most packets that are sent for classes.
    pub most_samples: usize,
    /// Packets that were sent for classes.
    pub samples: u64,
    /// Packets that the program decided otherwise than the prover; at most 20 are listed.
    pub differences: u64,
    /// The first of them.
    pub listed: Vec<Difference>,
    /// True if there are none.
    pub confirmed: bool,
}

/// A packet that the kernel's program decides otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The packet.
    pub packet: String,
    /// What the prover says.
    pub prover: String,
    /// What the compiled tables say on the host.
    pub tables: String,
    /// What the kernel says.
    pub kernel: String,
}

/// Sends the packets of a proof through the kernel's program.
///
/// # Errors
/// With exit code 3 without privilege, 1 if the kernel refuses something, 2 if the policy cannot be compiled.
pub fn confirm(
    policy: &Policy,
    isolation: &Isolation,
    environment: &Environment,
    certificate: &Certificate,
) -> Result<Replay, Failure> {
    let plane = DataPlane::open(Options {
        dry_run: true,
        ..Options::default()
    });
    let plane = plane.map_err(|error| refused(&error))?;
    plane
        .tables()
        .set_port(&port())
        .map_err(|error| refused(&error))?;
    let mut bare = policy.clone();
    bare.protect.screens.fill(ProtectMode::Skip);
    let mut stand = Stand {
        plane: &plane,
        replay: Replay {
            kernel: kernel_release(),
            counter_examples: 0,
            classes: 0,
            most_samples: MOST_SAMPLES,
            samples: 0,
            differences: 0,
            listed: Vec::new(),
            confirmed: false,
        },
    };
    for violation in &certificate.counter_examples {
        if let Fault::Crossing(crossing) = &violation.fault {
            stand.counter_example(&bare, environment, crossing)?;
        }
    }
    stand.samples(&bare, isolation, environment)?;
    stand.replay.confirmed = stand.replay.differences == 0;
    Ok(stand.replay)
}

fn refused(error: &DataPlaneError) -> Failure {
    let text = chain(error);
    if error.is_absence() {
        Failure::no_agent(text)
    } else {
        Failure::no(text)
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

fn kernel_release() -> String {
    nix::sys::utsname::uname().map_or_else(
        |_| "unknown".to_owned(),
        |names| names.release().to_string_lossy().into_owned(),
    )
}

/// A policy on a machine, in the kernel.
struct Machine<'a> {
    policy: &'a Policy,
    environment: Environment,
    tables: TableSet,
}

struct Stand<'a> {
    plane: &'a DataPlane,
    replay: Replay,
}

impl Stand<'_> {
    /// Compiles a policy and puts it in force in the private maps.
    fn machine<'p>(&self, policy: &'p Policy, environment: &Environment) -> Result<Machine<'p>, Failure> {
        let environment = Environment {
            generation: self.plane.tables().next_generation(),
            ..environment.clone()
        };
        let tables = fw_policy::compile(policy, &environment);
        let tables =
            tables.map_err(|error| Failure::input(format!("{} cannot be compiled: {error}", policy.file)))?;
        let applied = self.plane.tables().apply(&tables.lines);
        applied.map_err(|error| refused(&error))?;
        Ok(Machine {
            policy,
            environment,
            tables,
        })
    }

    /// Sends a counter-example, on a machine and with members of dynamic zones as it needs them.
    fn counter_example(
        &mut self,
        policy: &Policy,
        environment: &Environment,
        crossing: &Crossing,
    ) -> Result<(), Failure> {
        let (mut policy, mut environment) = (policy.clone(), environment.clone());
        // Counter-examples of every machine hold on one without any address but those that they name.
        let ends = [
            (&crossing.source_also, crossing.flow.src),
            (&crossing.destination_also, crossing.flow.dst),
        ];
        if ends
            .iter()
            .any(|(zones, _)| zones.iter().any(|zone| zone == "self"))
        {
            environment.own_addresses.clear();
        }
        for (zones, address) in ends {
            for name in zones {
                join(&mut policy, &mut environment, name, address);
            }
        }
        let machine = self.machine(&policy, &environment)?;
        let number = policy.rules[crossing.place].number;
        self.replay.counter_examples += 1;
        self.send(&machine, &crossing.flow, (number, true))
    }

    /// Sends a packet for each class.
    fn samples(
        &mut self,
        policy: &Policy,
        isolation: &Isolation,
        environment: &Environment,
    ) -> Result<(), Failure> {
        let found = samples(policy, isolation, &Scope::now(environment), MOST_SAMPLES);
        let (list, classes) = found.map_err(|error| Failure::input(error.to_string()))?;
        self.replay.classes = classes;
        let machine = self.machine(policy, environment)?;
        for sample in &list {
            self.replay.samples += 1;
            self.send(&machine, &sample.flow, (sample.rule, sample.passes))?;
        }
        Ok(())
    }

    /// Sends a packet and compares what the prover, the tables and the kernel say.
    fn send(&mut self, machine: &Machine<'_>, flow: &Flow, prover: (u32, bool)) -> Result<(), Failure> {
        // This machine's own addresses are a source only in what it sends, and no address only while it asks for one.
        let leaves = flow.leaves(&machine.environment.own_addresses);
        let hook = if leaves { Hook::TcOut } else { Hook::XdpIn };
        let outcome = self.plane.test_run(hook, &frame(flow), &TestContext::on(PORT));
        let outcome = outcome.map_err(|error| refused(&error))?;
        let report = outcome
            .report
            .ok_or_else(|| Failure::no("the program was loaded without the report of its verdict"))?;
        let (reason, rule, passes) = by_tables(machine, flow)?;
        let kernel = (report.reason.name(), report.rule, passes_kernel(report));
        // Where rules decide, the prover must agree too; the link section and answers of rules with `track: false` are not
        // its affair.
        let beside = (rule, passes) != prover && !is_beside(reason);
        if kernel != (reason, rule, passes) || beside {
            self.replay.differences += 1;
            if self.replay.listed.len() < LISTED {
                let text =
                    |rule, passes| format!("{} by {}", verdict(passes), rule_name(machine.policy, rule));
                self.replay.listed.push(Difference {
                    packet: format!("{flow} ({})", flow.tags().in_words()),
                    prover: text(prover.0, prover.1),
                    tables: format!("{} ({reason})", text(rule, passes)),
                    kernel: format!("{} ({})", text(report.rule, kernel.2), report.reason.name()),
                });
            }
        }
        Ok(())
    }
}

/// Puts an address into a zone of which the policy does not say it.
fn join(policy: &mut Policy, environment: &mut Environment, name: &str, address: IpAddr) {
    if name == "self" {
        environment.own_addresses.push(address);
    } else if let Some(zone) = policy.zone(name) {
        let mut members = policy.zones[zone].prefixes.clone();
        members.push(address.into());
        policy.set_members(zone, members);
    }
}

/// Reason, rule and whether the packet passes, by the compiled tables on the host.
fn by_tables(machine: &Machine<'_>, flow: &Flow) -> Result<(&'static str, u32, bool), Failure> {
    let asked = Asked {
        flow: &FlowSpec::from(flow),
        tags: Some(flow.tags()),
        role: None,
        peer: None,
        guarded: false,
    };
    let found = fw_policy::ask(machine.policy, &machine.tables, &machine.environment, &asked);
    let found = found.map_err(|error| Failure::no(format!("`{flow}` cannot be asked: {error}")))?;
    let rules = &machine.policy.rules;
    let rule = found
        .rule
        .and_then(|own| rules.iter().find(|rule| rule.id == own.id))
        .map_or(0, |rule| rule.number);
    Ok((found.reason, rule, found.verdict == RuleAction::Allow))
}

/// Reasons that are given beside the rules of the packet's own direction.
fn is_beside(reason: &str) -> bool {
    let rules = [
        Reason::Rule,
        Reason::Audit,
        Reason::DenyRule,
        Reason::DenyDefault,
        Reason::RejectRule,
        Reason::RejectDefault,
    ];
    !rules.iter().any(|own| own.name() == reason)
}

fn passes_kernel(report: Report) -> bool {
    matches!(report.verdict, Verdict::Pass | Verdict::Forward)
}

const fn verdict(passes: bool) -> &'static str {
    if passes { "allowed" } else { "denied" }
}

fn rule_name(policy: &Policy, number: u32) -> String {
    let place = (number as usize).checked_sub(1);
    let rule = place.and_then(|place| policy.rules.get(place));
    rule.map_or_else(
        || "the default".to_owned(),
        |rule| {
            let audit = if lets_through(rule) && rule.action != RuleAction::Allow {
                " (audit)"
            } else {
                ""
            };
            format!("{}{audit}", rule.name)
        },
    )
}
