//! Model to tables: equivalence classes of addresses and services, and one decision for each pair of them, in the
//! layout of [`fw_common::abi::SetHeader`].
//!
//! The scheme is recursive flow classification (Gupta and `McKeown`, SIGCOMM 1999):
//!
//! 1. `sweep`, `classes`: cut each realm's address space where a prefix begins or ends; the pieces that the same zones
//!    hold are one class. `trie4` and `tree6` write the maps from address to class.
//! 2. `services`: the same for each protocol's selectors, and for source ports.
//! 3. `axes`: source classes that all rules treat alike share a row, destination classes a column.
//! 4. `choice`: `decisions` writes for each cell the first rule for each service class, equal results once. Where that would
//!    be too large, `vectors` writes which rules each row, column and service class fits.
//! 5. `address`: the maps and records that depend on addresses end the set; [`Compiled`] writes them alone anew.
//!
//! The result depends on the policy and the environment only, never on a hash map's order.

mod address;
mod axes;
mod choice;
mod classes;
mod combine;
mod compiled;
mod decisions;
mod error;
mod fixed;
mod frame;
mod header;
mod lines;
mod protect;
mod realms;
mod records;
mod services;
mod sets;
mod stats;
mod sweep;
mod tree6;
mod trie4;
mod vectors;

use std::fmt;

use fw_common::abi::{Action, Decision, Line};
use serde::Serialize;

use crate::Environment;
use crate::model::{Pickup, Policy, Rule, RuleAction};

pub use compiled::{Compiled, Readdressed};
pub use error::CompileError;
pub use stats::{Choice, Representation, Stats};

/// Memory that a compiled policy may take unless the caller says otherwise, bytes. The kernel holds two of them during a
/// change.
pub const DEFAULT_LIMIT: u64 = 512 << 20;
/// No limit is higher: words of a set are numbered in 32 bits.
const MAX_LIMIT: u64 = 8 << 30;
/// Ports' roles have numbers below this; the highest bit of 32 means "a role that no port here has".
const MAX_ROLES: usize = 31;

/// A compiled policy.
#[derive(Clone)]
pub struct TableSet {
    /// The set as the kernel takes it.
    pub lines: Vec<Line>,
    /// What the policy asks for that does not lie in tables.
    pub settings: Settings,
    /// How large its parts are.
    pub stats: Stats,
}

/// What the policy asks of the data plane as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Settings {
    /// TCP windows are not judged ([`fw_common::abi::ControlFlags::WINDOW_LOOSE`]).
    pub window_loose: bool,
    /// When connections are adopted that were running before ([`fw_common::abi::Control::pickup_until`]).
    pub pickup: Pickup,
}

/// The sizes only: a set has thousands of lines.
impl fmt::Debug for TableSet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("TableSet")
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

/// How a policy is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Memory that the tables may take, bytes; at most 8 GiB count.
    pub limit: u64,
    /// Which representation.
    pub choice: Choice,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limit: DEFAULT_LIMIT,
            choice: Choice::Auto,
        }
    }
}

/// Compiles a policy for a machine, within [`DEFAULT_LIMIT`].
///
/// # Errors
/// [`CompileError`]: the policy is valid, but too large for the tables, or the environment is not valid.
pub fn compile(policy: &Policy, environment: &Environment) -> Result<TableSet, CompileError> {
    compile_with(policy, environment, Options::default())
}

/// As [`compile`], with another limit in bytes (at most 8 GiB).
///
/// # Errors
/// As [`compile`].
pub fn compile_within(
    policy: &Policy,
    environment: &Environment,
    limit: u64,
) -> Result<TableSet, CompileError> {
    let options = Options {
        limit,
        ..Options::default()
    };
    compile_with(policy, environment, options)
}

/// As [`compile`], with options.
///
/// # Errors
/// As [`compile`].
pub fn compile_with(
    policy: &Policy,
    environment: &Environment,
    options: Options,
) -> Result<TableSet, CompileError> {
    Ok(fixed::compile(policy, environment, options, |_| ())?.1)
}

const fn valid(environment: &Environment) -> Result<(), CompileError> {
    if environment.generation == 0 {
        return Err(CompileError::Generation);
    }
    if environment.roles.len() > MAX_ROLES {
        return Err(CompileError::Roles(environment.roles.len()));
    }
    Ok(())
}

fn decision(rule: &Rule) -> Decision {
    let action = match rule.action {
        RuleAction::Allow => Action::Allow,
        RuleAction::Deny => Action::Deny,
        RuleAction::Reject => Action::Reject,
    };
    Decision::new(action, rule.number)
}

const fn default_decision(action: Action) -> Decision {
    Decision::new(action, 0)
}
