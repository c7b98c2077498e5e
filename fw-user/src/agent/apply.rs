//! Putting policies in force.

use std::collections::BTreeSet;
use std::net::IpAddr;

use fw_common::abi::Line;
use fw_policy::{Diagnostics, Policy};
use jiff::Timestamp;

use super::core::{Agent, lock};
use super::faults::Part;
use super::last_good::LastGood;
use super::{own_addresses, policy};
use crate::control::{Applied, Session};
use crate::exit::{Failure, chain};
use crate::telemetry::Kind;

/// The policy in force.
#[derive(Clone, Debug)]
pub struct InForce {
    /// The checked policy, with its name and text.
    pub policy: Policy,
    /// The addresses that it was compiled for.
    pub own: BTreeSet<IpAddr>,
    /// Its generation.
    pub generation: u32,
    /// When its text was applied.
    pub applied: Timestamp,
}

impl Agent {
    /// Checks, compiles, guards and applies a policy.
    ///
    /// # Errors
    /// If anything is wrong; then the policy in force stays.
    pub async fn apply(
        &self,
        name: &str,
        text: &str,
        force: bool,
        session: Option<&Session>,
    ) -> Result<Applied, Failure> {
        let mut in_force = self.policy.lock().await;
        let (checked, warnings) = policy::check(name, text)?;
        let session = session.filter(|_| !force);
        let generation = tokio::task::block_in_place(|| {
            let own = own_addresses().map_err(|error| Failure::no(format!("{error:#}")))?;
            let generation = self.compile_and_apply(&checked, &own, session)?;
            *in_force = Some(InForce {
                policy: checked,
                own,
                generation,
                applied: Timestamp::now(),
            });
            Ok::<_, Failure>(generation)
        })?;
        self.faults.note(Part::Policy, Ok(()));
        self.save(in_force.as_ref());
        tracing::info!("{name} is in force as generation {generation}");
        Ok(Applied {
            generation,
            warnings: texts(&warnings),
        })
    }

    /// Compiles the policy in force again if this machine's addresses have changed.
    pub async fn follow_addresses(&self) {
        let mut in_force = self.policy.lock().await;
        let outcome = tokio::task::block_in_place(|| {
            let own = own_addresses().map_err(|error| format!("{error:#}"))?;
            let Some(current) = in_force.as_mut().filter(|current| current.own != own) else {
                return Ok(());
            };
            let applied = self.compile_and_apply(&current.policy, &own, None);
            let generation = applied.map_err(|failure| {
                format!("this machine's addresses have changed, and the policy cannot be compiled for them: {failure}")
            })?;
            tracing::info!(
                "this machine's addresses have changed: the policy is now generation {generation}"
            );
            (current.generation, current.own) = (generation, own);
            self.save(Some(current));
            Ok(())
        });
        self.faults.note(Part::Watch, outcome);
    }

    /// The policy of a start: applied, unless exactly these tables are in force already.
    pub(super) fn apply_first(
        &self,
        checked: Policy,
        own: BTreeSet<IpAddr>,
        previous: Option<&LastGood>,
    ) -> Result<InForce, Failure> {
        let refused = |error: crate::dataplane::DataPlaneError| Failure::no(chain(&error));
        let current = self.tables.control().generation;
        let set = if current == 0 {
            None
        } else {
            self.tables.current_set().map_err(refused)?
        };
        let unchanged = match &set {
            Some(set) => policy::compile(&checked, &own, &self.config.roles(), current)? == *set,
            None => false,
        };
        let before = previous.filter(|previous| previous.generation == current && unchanged);
        let applied = before.map_or_else(Timestamp::now, |previous| previous.applied);
        let generation = if unchanged {
            current
        } else {
            self.compile_and_apply(&checked, &own, None)?
        };
        self.remember_names(&checked);
        Ok(InForce {
            policy: checked,
            own,
            generation,
            applied,
        })
    }

    /// Returns the new generation.
    fn compile_and_apply(
        &self,
        checked: &Policy,
        own: &BTreeSet<IpAddr>,
        session: Option<&Session>,
    ) -> Result<u32, Failure> {
        let refused = |error: crate::dataplane::DataPlaneError| Failure::no(chain(&error));
        let generation = self.tables.next_generation();
        let lines: Vec<Line> = policy::compile(checked, own, &self.config.roles(), generation)?;
        policy::guard(&lines, session)?;
        // Names first: a flow of the new policy may end, or a packet be denied, in the next instant.
        self.remember_names(checked);
        self.tables.apply(&lines).map_err(refused)
    }

    fn remember_names(&self, checked: &Policy) {
        let mut names = lock(&self.names);
        let rules = names.add(
            Kind::Rule,
            checked.rules.iter().map(|rule| (rule.id, rule.name.as_str())),
        );
        let zones = names.add(
            Kind::Zone,
            checked.zones.iter().map(|zone| (zone.id, zone.name.as_str())),
        );
        let outcome = rules.and(zones).map_err(|error| {
            format!(
                "names of rules and zones cannot be kept in {}: {error}",
                self.config.state_dir.display()
            )
        });
        self.faults.note(Part::State, outcome);
    }

    /// Keeps the policy in force for the next start. A full disk is a fault, not a failure.
    pub(super) fn save(&self, in_force: Option<&InForce>) {
        let Some(current) = in_force else { return };
        let good = LastGood {
            name: current.policy.file.clone(),
            text: current.policy.text.clone(),
            generation: current.generation,
            applied: current.applied,
        };
        let outcome = good
            .write(&self.config.state_dir)
            .map_err(|error| format!("the policy in force cannot be kept for the next start: {error:#}"));
        self.faults.note(Part::LastGood, outcome);
    }
}

/// Warnings as text.
pub(super) fn texts(warnings: &Diagnostics) -> Vec<String> {
    if warnings.items.is_empty() {
        Vec::new()
    } else {
        vec![warnings.render(false)]
    }
}
