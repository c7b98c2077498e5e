//! Rules that no packet can reach: the rules before them take everything that they match.

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::model::{Policy, Rule, Tags};
use crate::space::{AXES, Covered, FlowBox, Order, Range, Scope, Slab, Space, SpaceError, uncovered};

/// Pieces of the space that one rule may cost.
const STEPS: u64 = 100_000;
/// Pieces that all rules together may cost: about a second.
const ALL_STEPS: u64 = 3_000_000;
/// Pairs of parts of rules that are compared if that is all of them: up to some 30,000 rules, less than a second.
const MOST_PAIRS: u64 = 450_000_000;
/// Pairs that are compared of a larger policy: its first rules are looked at, the others are not.
const PAIRS_OF_LARGE: u64 = 100_000_000;
/// Rules that a finding points at.
const MOST_SHOWN: usize = 4;

/// A rule that is never asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadowed {
    /// Place of the rule in [`Policy::rules`].
    pub place: usize,
    /// Places of rules before it that take all it matches; ascending, none too many. Empty: it matches no packet that could
    /// open a flow.
    pub by: Vec<usize>,
}

/// What was looked at, and what was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lint {
    /// Rules that no packet reaches, on no machine and whatever dynamic zones hold.
    pub shadowed: Vec<Shadowed>,
    /// Rules about which nothing is known because it would have taken too long.
    pub skipped: usize,
}

/// Rules that no packet can reach.
#[must_use]
pub fn shadowed(policy: &Policy) -> Lint {
    let scope = Scope::everywhere();
    let mut rules: Vec<State> = vec![State::Shadowed(Vec::new()); policy.rules.len()];
    let mut left = Left {
        pairs: budget(policy),
        steps: ALL_STEPS,
    };
    for tags in policy.realms() {
        for ipv4 in [true, false] {
            if look(policy, (tags, ipv4), &scope, (&mut rules, &mut left)).is_err() {
                return Lint {
                    shadowed: Vec::new(),
                    skipped: policy.rules.len(),
                };
            }
        }
    }
    let mut lint = Lint::default();
    for (place, state) in rules.into_iter().enumerate() {
        match state {
            State::Shadowed(mut by) => {
                by.sort_unstable();
                by.dedup();
                lint.shadowed.push(Shadowed { place, by });
            }
            State::Reached => {}
            State::Unknown => lint.skipped += 1,
        }
    }
    lint
}

/// What the look at all rules may still cost.
struct Left {
    pairs: u64,
    steps: u64,
}

impl Left {
    /// What one rule may cost of it.
    fn spend<T>(&mut self, work: impl FnOnce(&mut u64) -> T) -> T {
        let granted = STEPS.min(self.steps);
        let mut left = granted;
        let result = work(&mut left);
        self.steps -= granted - left;
        result
    }
}

/// Pairs that may be compared in all.
fn budget(policy: &Policy) -> u64 {
    let rules = policy.rules.len() as u64;
    // Both families.
    if rules * rules <= MOST_PAIRS {
        MOST_PAIRS
    } else {
        PAIRS_OF_LARGE
    }
}

/// What is known of a rule so far.
#[derive(Clone)]
enum State {
    /// In no realm looked at so far a packet reaches it, because of these rules.
    Shadowed(Vec<usize>),
    Reached,
    Unknown,
}

fn look(
    policy: &Policy,
    place: (Tags, bool),
    scope: &Scope,
    (rules, left): (&mut [State], &mut Left),
) -> Result<(), SpaceError> {
    let space = Space::new(&[policy], place, scope, &[], true)?;
    let boxes = &space.sides[0].boxes;
    let hulls: Vec<Hull> = boxes.iter().map(|flow_box| hull(&space.slab(flow_box))).collect();
    let mut begin = 0;
    for group in boxes.chunk_by(|a, b| a.rule == b.rule) {
        let (before, own) = (begin, begin + group.len());
        begin = own;
        let rule = group[0].rule as usize;
        let State::Shadowed(by) = &mut rules[rule] else {
            continue;
        };
        let work = before as u64 * group.len() as u64;
        let state = match left.pairs.checked_sub(work) {
            Some(pairs) if left.steps > 0 => {
                left.pairs = pairs;
                state(&space, &hulls[..own], (before, boxes), (by, left))
            }
            _ => State::Unknown,
        };
        rules[rule] = state;
    }
    Ok(())
}

/// On each axis the first and the last number of a box: two boxes whose hulls do not meet have no point in common.
type Hull = [Range; AXES];

fn hull(slab: &Slab<'_>) -> Hull {
    slab.map(|ranges| match ranges {
        [first, .., last] => (first.0, last.1),
        [one] => *one,
        // No box is empty on an axis.
        [] => (1, 0),
    })
}

fn meet(a: &Hull, b: &Hull) -> bool {
    a.iter().zip(b).all(|(a, b)| a.0 <= b.1 && b.0 <= a.1)
}

/// What the parts of a rule in a space say: those of `boxes` from `before` on that have a hull. `by`: the rules that are to
/// blame so far.
fn state(
    space: &Space,
    hulls: &[Hull],
    (before, boxes): (usize, &[FlowBox]),
    (by, left): (&[usize], &mut Left),
) -> State {
    let mut by = by.to_vec();
    for index in before..hulls.len() {
        let target = space.slab(&boxes[index]);
        let near = (0..before).filter(|other| meet(&hulls[*other], &hulls[index]));
        let meeting: Vec<&FlowBox> = near
            .map(|other| &boxes[other])
            .filter(|other| space.meets(other, &target))
            .collect();
        let slabs: Vec<Slab<'_>> = meeting.iter().map(|other| space.slab(other)).collect();
        match left.spend(|steps| uncovered(&target, &slabs, Order::Quickest, steps)) {
            Covered::No(_) => return State::Reached,
            Covered::Unknown => return State::Unknown,
            Covered::By(core) => {
                let core = fewest(&target, &slabs, core, left);
                by.extend(core.into_iter().map(|index| meeting[index].rule as usize));
            }
        }
    }
    State::Shadowed(by)
}

/// Leaves out boxes that are not needed to cover the target. Only small sets are tried: of large ones a few are shown anyway.
fn fewest(target: &Slab<'_>, slabs: &[Slab<'_>], mut core: Vec<usize>, left: &mut Left) -> Vec<usize> {
    if core.len() > 16 {
        return core;
    }
    let mut at = 0;
    while at < core.len() && core.len() > 1 {
        let rest: Vec<usize> = core.iter().copied().filter(|index| *index != core[at]).collect();
        let others: Vec<Slab<'_>> = rest.iter().map(|index| slabs[*index]).collect();
        if matches!(
            left.spend(|steps| uncovered(target, &others, Order::Quickest, steps)),
            Covered::By(_)
        ) {
            core = rest;
        } else {
            at += 1;
        }
    }
    core
}

/// The findings as warnings. Rules that have a warning of their own already (nothing they match opens a flow, zones of
/// different VLANs) are left out.
pub(crate) fn warn(policy: &Policy, findings: &mut Diagnostics) {
    let lint = shadowed(policy);
    for Shadowed { place, by } in &lint.shadowed {
        if !by.is_empty() {
            let by: Vec<&Rule> = by.iter().map(|place| &policy.rules[*place]).collect();
            findings.push(warning(policy, &policy.rules[*place], &by));
        }
    }
    if let (skipped @ 1.., Some(first)) = (lint.skipped, policy.rules.first()) {
        let message = format!("of {skipped} rules it was not looked at whether a packet reaches them");
        findings.push(
            Diagnostic::warning("not_looked_at", first.span, message)
                .label("the first of all rules")
                .help("that would take longer than a second; nothing is wrong with them for that"),
        );
    }
}

fn warning(policy: &Policy, rule: &Rule, by: &[&Rule]) -> Diagnostic {
    let name = &rule.name;
    let (who, help) = match by {
        [one] => (
            format!(
                "`{}` ({}) matches",
                one.name,
                policy.sources.place(one, rule.span)
            ),
            if one.action == rule.action && !one.audit {
                "remove it; the rule before it does the same"
            } else {
                "move it up, in front of that rule, or remove it; the first rule that matches wins"
            },
        ),
        _ => (
            format!("the {} rules before it that are marked match", by.len()),
            "move it up, or remove it; the first rule that matches wins",
        ),
    };
    let message = format!("no packet reaches the rule `{name}`: {who} everything that it matches");
    let mut item = Diagnostic::warning("shadowed_rule", rule.span, message)
        .label("never asked")
        .help(help);
    let left = by.len().saturating_sub(MOST_SHOWN);
    for (number, before) in by.iter().take(MOST_SHOWN).enumerate() {
        let more = if number + 1 == MOST_SHOWN && left > 0 {
            format!(", and {left} more rules")
        } else {
            String::new()
        };
        let word = before.action.name();
        item = item.also(before.span, format!("takes it before ({word}){more}"));
    }
    item
}
