//! `dpufw test --netns`: every expectation of a policy as a real packet through the real data plane.
//!
//! Three namespaces stand in a row, the middle one is guarded. A raw frame of the flow leaves on the source's side; whether
//! it arrives on the destination's side, whether its sender is refused, and what the data plane counted and reported of it
//! is compared with what the policy expects. Where the flow is allowed, the answer must come back as well. The maps are
//! private and everything ends with this process: a data plane that guards this machine is left alone.

mod frame;
mod report;
mod stand;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use fw_policy::model::{Expectation, RuleAction};
use fw_policy::{Environment, Flow, Policy, machine_of, resolve};
use serde::Serialize;

pub use report::junit;
pub use stand::Seen;

use crate::exit::Failure;
use stand::{Roles, Stand, Way};

/// How one expectation came out.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The flow as it is written.
    pub flow: String,
    /// The file of the expectation.
    pub file: String,
    /// Line in the file, from 1.
    pub line: usize,
    /// What was expected.
    pub expected: RuleAction,
    /// The flow with addresses; `None` if it has none.
    pub sent: Option<Flow>,
    /// Where the firewall stood.
    pub way: Option<Way>,
    /// What became of the packet.
    pub seen: Option<Seen>,
    /// What came out otherwise than expected, as a sentence; `None`: nothing.
    pub problem: Option<String>,
    /// Time that it took, in seconds.
    pub seconds: f64,
}

impl Outcome {
    /// True if everything came out as expected.
    #[must_use]
    pub const fn passed(&self) -> bool {
        self.problem.is_none()
    }
}

/// Sends a packet for each of the policy's expectations, to or through the machine that it means. The last role of
/// `environment` is that of ports which no plane is bound to.
///
/// # Errors
/// [`Failure`] with its exit code: no privilege, no `ip` or `ethtool`, a policy that cannot be compiled, or what the kernel
/// refused. A flow that comes out otherwise than expected is none.
pub fn run(policy: &Policy, environment: &Environment) -> Result<Vec<Outcome>, Failure> {
    let mut stand = Stand::new().map_err(|error| Failure::no_agent(format!("{error:#}")))?;
    let told = telling(policy);
    let mut machine: Option<Environment> = None;
    let mut outcomes = Vec::with_capacity(policy.expectations.len());
    for expectation in &policy.expectations {
        let wanted = Environment {
            own_addresses: machine_of(policy, environment, expectation),
            ..environment.clone()
        };
        if machine.as_ref() != Some(&wanted) {
            stand.apply(&told, &wanted)?;
            machine = Some(wanted.clone());
        }
        outcomes.push(one(policy, expectation, &wanted, &mut stand));
    }
    Ok(outcomes)
}

/// The same policy, made to say of each packet which rule decided. Deadlines that lie ahead are moved out of the way of the
/// tests' clock, which runs fast.
fn telling(policy: &Policy) -> Policy {
    const CENTURY_S: i64 = 100 * 366 * 24 * 3600;
    let now = jiff::Timestamp::now().as_second();
    let mut told = policy.clone();
    for rule in &mut told.rules {
        rule.log = true;
        rule.until = rule
            .until
            .map(|until| if until > now { now + CENTURY_S } else { until });
    }
    told
}

fn one(policy: &Policy, expectation: &Expectation, machine: &Environment, stand: &mut Stand) -> Outcome {
    let begun = Instant::now();
    let mut outcome = Outcome {
        flow: expectation.text.clone(),
        file: policy.sources.name(expectation.span).to_owned(),
        line: expectation.line,
        expected: expectation.is,
        sent: None,
        way: None,
        seen: None,
        problem: None,
        seconds: 0.0,
    };
    match resolve(policy, machine, &expectation.flow, expectation.tags) {
        Err(error) => outcome.problem = Some(error.to_string()),
        Ok(flow) => {
            let way = way(expectation, &flow, &machine.own_addresses);
            (outcome.sent, outcome.way) = (Some(flow), Some(way));
            let roles = roles(policy, expectation, &flow, machine, way);
            match stand.send(policy, &flow, way, roles) {
                Err(error) => outcome.problem = Some(format!("{error:#}")),
                Ok(seen) => {
                    outcome.problem = difference(expectation, &seen);
                    outcome.seen = Some(seen);
                }
            }
        }
    }
    outcome.seconds = seconds(begun.elapsed());
    outcome
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

/// Where the firewall stands for this flow: on the machine itself if it is an end of it, or if only the port is named by
/// which the packet comes in; else between the two ends.
fn way(expectation: &Expectation, flow: &Flow, own: &[IpAddr]) -> Way {
    if flow.leaves(own) {
        Way::Out
    } else if own.contains(&flow.dst) || (expectation.role.is_some() && expectation.peer.is_none()) {
        Way::In
    } else {
        Way::Through
    }
}

/// Numbers of the roles of the ports. Where the expectation names none, a role that the flow's planes are bound to; the last
/// role is that of ports of no plane.
fn roles(policy: &Policy, expectation: &Expectation, flow: &Flow, machine: &Environment, way: Way) -> Roles {
    let none = machine.roles.len().saturating_sub(1);
    let number = |name: &str| machine.roles.iter().position(|role| role == name).unwrap_or(none);
    let bound = |address| {
        let plane = policy.plane_of(flow.tags(), address, &machine.own_addresses)?;
        Some(plane.roles.first().map_or(none, |role| number(role)))
    };
    let (from, to) = (bound(flow.src), bound(flow.dst));
    let (port, peer) = match way {
        Way::Through => (from, to),
        Way::In => (to.or(from), None),
        Way::Out => (from.or(to), None),
    };
    let port = expectation.role.as_deref().map(number).or(port).unwrap_or(none);
    let peer = match way {
        Way::Through => expectation.peer.as_deref().map(number).or(peer).unwrap_or(none),
        Way::In | Way::Out => port,
    };
    Roles {
        port: port as u8,
        peer: peer as u8,
    }
}

/// What came out otherwise than expected.
fn difference(expectation: &Expectation, seen: &Seen) -> Option<String> {
    let by = seen.rule.as_ref().map_or_else(
        || format!("reason {}", seen.reason),
        |rule| format!("rule `{rule}`"),
    );
    if let Some(contradiction) = contradiction(seen) {
        return Some(contradiction);
    }
    let (wanted, is) = (expectation.is.name(), seen.verdict.name());
    if wanted != is {
        return Some(format!("expected {wanted}, but it is {is} ({by})"));
    }
    if let Some(wanted) = &expectation.rule
        && Some(wanted) != seen.rule.as_ref()
    {
        return Some(format!("expected rule `{wanted}`, but {by} decides"));
    }
    let wanted = expectation
        .reason
        .as_deref()
        .filter(|wanted| *wanted != seen.reason)?;
    Some(format!("expected reason {wanted}, but it is {}", seen.reason))
}

/// Where what happened to the packet is not what the data plane says of it.
fn contradiction(seen: &Seen) -> Option<String> {
    let counted = |what: &str| {
        Some(format!(
            "the data plane counted it as {}, but {what}",
            seen.reason
        ))
    };
    match seen.verdict {
        RuleAction::Allow if !seen.arrived => counted("the packet did not arrive"),
        RuleAction::Allow => seen
            .answer_lost
            .as_ref()
            .map(|reason| format!("the packet arrived, but its answer was dropped ({reason})")),
        RuleAction::Deny | RuleAction::Reject if seen.arrived => counted("the packet arrived"),
        RuleAction::Deny if seen.refused => counted("its sender was answered"),
        RuleAction::Reject if !seen.refused && seen.answerable => counted("its sender was told nothing"),
        RuleAction::Deny | RuleAction::Reject => None,
    }
}
