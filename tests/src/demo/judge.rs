//! Runs the flows, asks the firewall that decides why it did what it did, and compares.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::cases::{CASES, Case, Expect, Tool};
use super::clients::{self, Answer};
use super::cluster::{Cluster, find};
use crate::lab::Agent;

/// Clients at a time: those of denied flows do nothing but wait.
const WORKERS: usize = 8;
/// How long a firewall may take to report what it has decided.
const REPORT: Duration = Duration::from_secs(2);

/// The agents, by the machine that each runs on.
pub type Agents = BTreeMap<&'static str, Agent>;

/// A flow, and what became of it.
#[derive(Debug)]
pub struct Outcome {
    /// The flow.
    pub case: &'static Case,
    /// What the client got.
    pub answer: Answer,
    /// What the firewall says; `None` if it says nothing about this flow.
    pub decision: Option<Decision>,
}

/// A firewall's word on a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// True if the flow is in its tables, false if it reported a denied packet.
    pub allowed: bool,
    /// The rule, or `default`.
    pub rule: Option<String>,
    /// Machine name of the reason.
    pub reason: String,
    /// The reason of a denied packet as a sentence.
    pub sentence: Option<String>,
}

impl Outcome {
    /// True if client and firewall agree with what was expected.
    #[must_use]
    pub fn agrees(&self) -> bool {
        let through = matches!(self.answer, Answer::Through(_));
        let Some(decision) = &self.decision else {
            return false;
        };
        let said = (
            decision.allowed,
            decision.reason.as_str(),
            decision.rule.as_deref(),
        );
        let (allowed, reason, rule) = match self.case.expect {
            Expect::Allow(rule) => (true, "rule", rule),
            Expect::Deny(rule) => (false, "deny_rule", rule),
            Expect::Default => (false, "deny_default", "default"),
        };
        through == allowed && said == (allowed, reason, Some(rule))
    }
}

/// Runs all clients without a firewall and returns the flows that got no answer, each with the client's complaint.
///
/// # Errors
/// If a client cannot be run.
pub fn without_firewall(cluster: &Cluster) -> Result<Vec<String>> {
    let answers = each(|case| clients::run(cluster, case))?;
    let failed = CASES
        .iter()
        .zip(answers)
        .filter_map(|(case, answer)| match answer {
            Answer::Through(_) => None,
            Answer::Nothing(complaint) => Some(format!(
                "{} to {}, {}: {complaint}",
                case.from, case.to, case.what
            )),
        });
    Ok(failed.collect())
}

/// Runs all clients behind the firewalls.
///
/// # Errors
/// If a client cannot be run, or an agent does not answer.
pub fn behind_firewalls(cluster: &Cluster, agents: &Agents) -> Result<Vec<Outcome>> {
    each(|case| {
        let answer = clients::run(cluster, case)?;
        let decision = agents
            .get(case.at)
            .map(|agent| decision(agent, case, &answer))
            .transpose()?
            .flatten();
        Ok(Outcome {
            case,
            answer,
            decision,
        })
    })
}

/// Runs `f` for every flow, some at a time; those that measure a rate come last, one by one. Results are in the order
/// of the flows.
fn each<T: Send>(f: impl Fn(&'static Case) -> Result<T> + Sync) -> Result<Vec<T>> {
    let (loud, quiet): (Vec<_>, Vec<_>) =
        (0..CASES.len()).partition(|&index| CASES[index].tool == Tool::Iperf3);
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some(&index) = quiet.get(next.fetch_add(1, Ordering::Relaxed)) {
            done.push((index, f(&CASES[index])));
        }
        done
    };
    let mut results: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .flat_map(|worker| {
                worker
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    });
    results.extend(loud.into_iter().map(|index| (index, f(&CASES[index]))));
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Asks an agent: for the flow if the client got through, for a denied packet if not.
fn decision(agent: &Agent, case: &Case, answer: &Answer) -> Result<Option<Decision>> {
    let filter = filter(case)?;
    let filter: Vec<&str> = filter.iter().map(String::as_str).collect();
    let end = Instant::now() + REPORT;
    loop {
        let decision = match answer {
            Answer::Through(_) => agent.flows(&filter)?.pop().map(|flow| Decision {
                allowed: true,
                rule: Some(flow.rule),
                reason: "rule".to_owned(),
                sentence: None,
            }),
            Answer::Nothing(_) => agent.drops(&filter)?.pop().map(|drop| Decision {
                allowed: false,
                rule: drop.rule,
                reason: drop.reason,
                sentence: Some(drop.sentence),
            }),
        };
        if decision.is_some() || Instant::now() >= end {
            return Ok(decision);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Options of `dpufw flows` and `dpufw drops` that choose this flow.
fn filter(case: &Case) -> Result<Vec<String>> {
    let (from, to) = (
        find(case.from)?.address(case.ipv6),
        find(case.to)?.address(case.ipv6),
    );
    let line = format!("-p {} -s {from} -d {to}", case.tool.protocol(case.ipv6));
    let mut words: Vec<_> = line.split(' ').map(str::to_owned).collect();
    if case.port != 0 {
        words.extend(["--dport".to_owned(), case.port.to_string()]);
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::{Answer, CASES, Decision, Expect, Outcome};

    fn outcome(through: bool, decision: Option<Decision>) -> Outcome {
        let case = CASES
            .iter()
            .find(|case| case.expect == Expect::Allow("admin"))
            .expect("a flow of admin");
        let answer = if through {
            Answer::Through("x".into())
        } else {
            Answer::Nothing("x".into())
        };
        Outcome {
            case,
            answer,
            decision,
        }
    }

    #[test]
    fn client_and_firewall_must_both_agree() {
        let said = |allowed, rule: &str, reason: &str| {
            Some(Decision {
                allowed,
                rule: Some(rule.to_owned()),
                reason: reason.to_owned(),
                sentence: None,
            })
        };
        assert!(outcome(true, said(true, "admin", "rule")).agrees());
        assert!(!outcome(false, said(true, "admin", "rule")).agrees());
        assert!(!outcome(true, said(true, "scrape", "rule")).agrees());
        assert!(!outcome(true, None).agrees());
        assert!(!outcome(false, said(false, "default", "deny_default")).agrees());
    }
}
