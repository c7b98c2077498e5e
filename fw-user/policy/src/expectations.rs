//! Runs the policy's own tests on the compiled tables.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use serde::Serialize;

use crate::Environment;
use crate::compile::{CompileError, TableSet, compile};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::explain::{Asked, Explanation, RuleRef, ask};
use crate::model::{Expectation, Policy, RuleAction};
use crate::resolve::resolve;

/// All results.
#[derive(Clone, Debug)]
pub struct Expectations {
    /// One for each expectation, in the order of the file.
    pub results: Vec<ExpectationResult>,
    /// An error for each that failed, pointing at its flow.
    pub diagnostics: Diagnostics,
}

/// How one expectation came out.
#[derive(Clone, Debug, Serialize)]
pub struct ExpectationResult {
    /// The flow as it is written.
    pub flow: String,
    /// The file that it stands in.
    pub file: String,
    /// Line in the file, from 1.
    pub line: usize,
    /// What was expected.
    pub expected: RuleAction,
    /// True if everything came out as expected.
    pub passed: bool,
    /// What happened; `None` if the flow has no addresses.
    pub explanation: Option<Explanation>,
}

impl Expectations {
    /// True if all came out as expected.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.results.iter().all(|result| result.passed)
    }
}

/// The addresses of the machine that an expectation means: those it names (`self:`), else those of `environment`. But
/// where the packet comes in by a port of mode `host` (`in:` without `out:`) and neither end is this machine, its
/// destination must be.
#[must_use]
pub fn machine_of(policy: &Policy, environment: &Environment, expectation: &Expectation) -> Vec<IpAddr> {
    if !expectation.own_addresses.is_empty() {
        return expectation.own_addresses.clone();
    }
    let own = &environment.own_addresses;
    if expectation.role.is_some()
        && expectation.peer.is_none()
        && let Ok(flow) = resolve(policy, environment, &expectation.flow, expectation.tags)
    {
        let group = flow.dst.is_multicast() || flow.dst == IpAddr::V4(Ipv4Addr::BROADCAST);
        if !group && !own.contains(&flow.src) && !own.contains(&flow.dst) {
            return vec![flow.dst];
        }
    }
    own.clone()
}

/// Runs all expectations of a policy, each on the machine that it means ([`machine_of`]).
///
/// # Errors
/// [`CompileError`]: the policy cannot be compiled.
pub fn run_expectations(policy: &Policy, environment: &Environment) -> Result<Expectations, CompileError> {
    let mut machines: HashMap<Vec<IpAddr>, (Environment, TableSet)> = HashMap::new();
    let mut diagnostics = Diagnostics::of(&policy.sources);
    let mut results = Vec::with_capacity(policy.expectations.len());
    for expectation in &policy.expectations {
        let own = machine_of(policy, environment, expectation);
        if !machines.contains_key(&own) {
            let machine = Environment {
                own_addresses: own.clone(),
                ..environment.clone()
            };
            let tables = compile(policy, &machine)?;
            machines.insert(own.clone(), (machine, tables));
        }
        let (machine, tables) = &machines[&own];
        let (result, finding) = run(policy, machine, tables, expectation);
        results.push(result);
        diagnostics.items.extend(finding);
    }
    Ok(Expectations { results, diagnostics })
}

fn run(
    policy: &Policy,
    machine: &Environment,
    tables: &TableSet,
    expectation: &Expectation,
) -> (ExpectationResult, Option<Diagnostic>) {
    let asked = Asked {
        flow: &expectation.flow,
        tags: expectation.tags,
        role: expectation.role.as_deref(),
        peer: expectation.peer.as_deref(),
        guarded: false,
    };
    let explained = ask(policy, tables, machine, &asked);
    let problem = match &explained {
        Ok(explanation) => difference(expectation, explanation),
        Err(error) => Some(error.to_string()),
    };
    let result = ExpectationResult {
        flow: expectation.text.clone(),
        file: policy.sources.name(expectation.span).to_owned(),
        line: expectation.line,
        expected: expectation.is,
        passed: problem.is_none(),
        explanation: explained.ok(),
    };
    let finding = problem.map(|problem| {
        let item =
            Diagnostic::error("expectation", expectation.span, "an expectation is not met").label(problem);
        match result
            .explanation
            .as_ref()
            .and_then(|explanation| explanation.rule.as_ref())
        {
            Some(rule) => item.help(format!(
                "the rule `{}` ({}) decides this flow",
                rule.name,
                place(policy, rule, expectation)
            )),
            None => item,
        }
    });
    (result, finding)
}

/// Where the rule that decides stands, for a reader of the expectation.
fn place(policy: &Policy, decides: &RuleRef, expectation: &Expectation) -> String {
    let rule = policy.rules.iter().find(|rule| rule.id == decides.id);
    rule.map_or_else(
        || decides.place(),
        |rule| policy.sources.place(rule, expectation.span),
    )
}

/// What came out otherwise than expected.
fn difference(expectation: &Expectation, explanation: &Explanation) -> Option<String> {
    let rule = explanation.rule.as_ref().map(|rule| rule.name.as_str());
    let by = rule.map_or_else(
        || format!("reason {}", explanation.reason),
        |rule| format!("rule `{rule}`"),
    );
    let (wanted, is) = (expectation.is.name(), explanation.verdict.name());
    if wanted != is {
        return Some(format!("expected {wanted}, but it is {is} ({by})"));
    }
    if let Some(wanted) = expectation.rule.as_deref().filter(|wanted| Some(*wanted) != rule) {
        return Some(format!("expected rule `{wanted}`, but {by} decides"));
    }
    let reason = explanation.reason;
    let wanted = expectation.reason.as_deref().filter(|wanted| *wanted != reason)?;
    Some(format!("expected reason {wanted}, but it is {reason}"))
}
