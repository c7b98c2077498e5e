//! Questions about flows, answered from the tables in force and by the kernel's own program, without a trace.

mod changes;
mod diff;
mod frames;
mod kernel;
mod state;

use fw_common::abi::{Reason, Side};
use fw_policy::model::{RuleAction, Tags};
use fw_policy::{Asked, Environment, Explanation, FlowSpec};

use super::apply::InForce;
use super::core::Agent;
use super::policy;
use crate::control::{Agreement, FlowAnswer, FlowQuestion, HostAnswer, PortAnswer};
use crate::dataplane::{Report, frame};
use crate::exit::Failure;

pub use kernel::Asker;
use kernel::Place;

impl InForce {
    /// The machine that the policy in force was compiled for.
    fn environment(&self, agent: &Agent) -> Environment {
        policy::environment(
            &self.own,
            &agent.config.roles(),
            self.generation,
            self.boot_unix_s,
        )
    }
}

/// The failure of a question for which the policy's text must be known.
fn no_text() -> Failure {
    Failure::no(
        "the agent does not know the text of the policy in force, so it cannot explain it; apply a policy first",
    )
}

impl Agent {
    /// Says how a flow would be decided now: by the policy, by the kernel, and what else bears on it.
    ///
    /// # Errors
    /// With exit code 2 for a flow or a role that cannot be; with 1 if the kernel cannot be asked.
    pub async fn explain(&self, question: &FlowQuestion) -> Result<FlowAnswer, Failure> {
        // Held over all answers: they are about one generation.
        let in_force = self.policy.lock().await;
        let current = in_force.as_ref().ok_or_else(no_text)?;
        tokio::task::block_in_place(|| self.explained(current, question))
    }

    fn explained(&self, current: &InForce, question: &FlowQuestion) -> Result<FlowAnswer, Failure> {
        let spec: FlowSpec = question
            .flow
            .parse()
            .map_err(|error| Failure::input(format!("{error}")))?;
        let environment = current.environment(self);
        let tags = question.tags.map(|(outer, inner)| Tags { outer, inner });
        let flow = fw_policy::resolve(&current.policy, &environment, &spec, tags)
            .map_err(|error| Failure::input(error.to_string()))?;
        let leaves = flow.leaves(&environment.own_addresses);
        let places = self.places(question.role.as_deref(), question.peer.as_deref(), leaves)?;
        let bytes = frame(&flow);
        let mut answers = Vec::with_capacity(places.len());
        for place in &places {
            let asked = Asked {
                flow: &spec,
                tags,
                role: Some(&place.port.spec.role),
                peer: place.peer.as_deref(),
                guarded: place.config.side == Side::Inner as u8,
            };
            let explanation = fw_policy::ask(&current.policy, &current.tables, &environment, &asked)
                .map_err(|error| Failure::input(error.to_string()))?
                .at(&current.policy, jiff::Timestamp::now().as_second());
            let report = self.ask_kernel(place, &bytes, flow.vlan != 0)?;
            answers.push((explanation, report, place));
        }
        if question.role.is_none() {
            keep_fitting(&mut answers);
        }
        let state = self.state(current, &flow, &answers[0].0, &places)?;
        let ports = answers
            .iter()
            .map(|(explanation, report, place)| port_answer(current, explanation, *report, place))
            .collect();
        Ok(FlowAnswer {
            generation: current.generation,
            ports,
            flows: state.flows,
            more_flows: state.more_flows,
            limits: state.limits,
            source: state.source,
            flood: state.flood,
        })
    }
}

/// Where nobody said by which port the packet comes: ports that its addresses do not belong to are left out, unless there is no
/// other.
fn keep_fitting(answers: &mut Vec<(Explanation, Report, &Place)>) {
    let fits = |report: &Report| !matches!(report.reason, Reason::PlaneMismatch | Reason::WrongSide);
    if answers.iter().any(|(_, report, _)| fits(report)) {
        answers.retain(|(_, report, _)| fits(report));
    }
}

fn port_answer(current: &InForce, explanation: &Explanation, report: Report, place: &Place) -> PortAnswer {
    let rule = explanation.rule.as_ref().map(|rule| rule.name.clone());
    let number = rule.as_deref().map_or(0, |name| {
        let found = current.policy.rules.iter().find(|rule| rule.name == name);
        found.map_or(0, |rule| rule.number)
    });
    PortAnswer {
        host: HostAnswer {
            verdict: explanation.verdict.name().to_owned(),
            reason: explanation.reason.to_owned(),
            rule,
            document: serde_json::to_value(explanation).unwrap_or_default(),
            text: explanation.to_string(),
        },
        kernel: kernel::answer(&current.policy, place, report),
        agreement: agreement((explanation, number), report),
    }
}

/// How the answers fit. `number` is that of the rule that the host names.
fn agreement((explanation, number): (&Explanation, u32), report: Report) -> Agreement {
    if explanation.reason == report.reason.name() && (number == report.rule || !names_rule(report.reason)) {
        return Agreement::Same;
    }
    let allowed = explanation.verdict == RuleAction::Allow;
    match kind(report.reason) {
        Kind::Passing if allowed && number == report.rule => Agreement::Refused,
        Kind::State => Agreement::State,
        _ => Agreement::Differs,
    }
}

/// What a reason of the kernel depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// On the tables alone.
    Tables,
    /// On the moment: limits, floods, bans, room.
    Passing,
    /// On a flow in the tables.
    State,
}

/// True if the rule in the kernel's report is what decides. Of a packet that a screen drops it is the one that would have.
const fn names_rule(reason: Reason) -> bool {
    match reason {
        Reason::Rule
        | Reason::PickedUp
        | Reason::Untracked
        | Reason::Audit
        | Reason::DenyRule
        | Reason::DenyDefault
        | Reason::RejectRule
        | Reason::RejectDefault => true,
        other => matches!(kind(other), Kind::Passing),
    }
}

const fn kind(reason: Reason) -> Kind {
    match reason {
        Reason::RuleExpired
        | Reason::LimitPackets
        | Reason::LimitBytes
        | Reason::LimitNewFlows
        | Reason::LimitFlows
        | Reason::CapHalfOpen
        | Reason::CapFlows
        | Reason::SynProof
        | Reason::SynProofOver
        | Reason::UdpFlood
        | Reason::IcmpFlood
        | Reason::Banned
        | Reason::TableFull => Kind::Passing,
        Reason::Established
        | Reason::Related
        | Reason::TcpInvalid
        | Reason::TcpBadAck
        | Reason::TcpOutOfWindow
        | Reason::PolicyRevoked
        | Reason::IcmpBadQuote
        | Reason::WrongSide => Kind::State,
        _ => Kind::Tables,
    }
}

#[cfg(test)]
mod tests {
    use fw_common::abi::{Reason, Verdict};
    use fw_policy::{Environment, Explanation};

    use super::agreement;
    use crate::control::Agreement;
    use crate::dataplane::Report;

    fn explanation(flow: &str) -> Explanation {
        let text = "
version: 1
zones: { a: [10.0.0.1], b: [10.0.0.2] }
rules: [{ name: web, allow: [http], from: a, to: b }]
";
        let (policy, _) = fw_policy::check(text, "p.yaml").unwrap();
        let environment = Environment::sample();
        let tables = fw_policy::compile(&policy, &environment).unwrap();
        fw_policy::explain(&policy, &tables, &environment, &flow.parse().unwrap(), None, None).unwrap()
    }

    fn report(reason: Reason, rule: u32) -> Report {
        Report {
            verdict: Verdict::Drop,
            reason,
            rule,
        }
    }

    #[test]
    fn another_rule_is_a_difference_and_a_limit_is_none() {
        let allowed = explanation("tcp 10.0.0.1 10.0.0.2:80");
        for (reason, rule, wanted) in [
            (Reason::Rule, 1, Agreement::Same),
            (Reason::Rule, 2, Agreement::Differs),
            (Reason::DenyDefault, 0, Agreement::Differs),
            (Reason::LimitNewFlows, 1, Agreement::Refused),
            (Reason::LimitNewFlows, 2, Agreement::Differs),
            (Reason::TcpInvalid, 0, Agreement::State),
            (Reason::PlaneMismatch, 0, Agreement::Differs),
        ] {
            assert_eq!(
                agreement((&allowed, 1), report(reason, rule)),
                wanted,
                "{reason:?}"
            );
        }
        let denied = explanation("tcp 10.0.0.1 10.0.0.2:81");
        assert_eq!(
            agreement((&denied, 0), report(Reason::DenyDefault, 0)),
            Agreement::Same
        );
        assert_eq!(
            agreement((&denied, 0), report(Reason::LimitNewFlows, 0)),
            Agreement::Differs
        );
    }
}
