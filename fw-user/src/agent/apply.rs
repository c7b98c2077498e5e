//! Putting policies in force.

use std::collections::BTreeSet;
use std::mem;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use fw_common::abi::ControlFlags;
use fw_policy::model::Pickup;
use fw_policy::{Compiled, Diagnostics, Environment, Policy, Readdressed, TableSet};
use jiff::Timestamp;

use super::core::{Agent, lock};
use super::faults::Part;
use super::last_good::LastGood;
use super::limits::RuleLimits;
use super::{own_addresses, policy};
use crate::control::{Applied, Session};
use crate::exit::{Failure, chain};
use crate::telemetry::{Kind, boot_unix_s};

/// The policy in force.
#[derive(Debug)]
pub struct InForce {
    /// The checked policy, with its name and text, its dynamic zones filled.
    pub policy: Policy,
    /// What compiling it has found out, for other addresses.
    pub compiled: Compiled,
    /// Its tables, as they lie in the kernel: questions are answered from them.
    pub tables: Arc<TableSet>,
    /// The addresses that it was compiled for.
    pub own: BTreeSet<IpAddr>,
    /// When the machine was started, as the wall clock told when it was compiled.
    pub boot_unix_s: i64,
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
        let began = Instant::now();
        let (mut checked, warnings) = policy::check(name, text, Timestamp::now().as_second())?;
        let notes = self.fill_zones(&mut checked)?;
        let session = session.filter(|_| !force);
        let generation = tokio::task::block_in_place(|| {
            let own = own_addresses().map_err(|error| Failure::no(format!("{error:#}")))?;
            let boot_unix_s = boot_unix_s();
            let environment = self.next_environment(&own, boot_unix_s);
            let (compiled, tables) = policy::compile_to_keep(&checked, &environment)?;
            let tables = self.enforce_tables(&checked, tables, session)?;
            let generation = environment.generation;
            *in_force = Some(InForce {
                policy: checked,
                compiled,
                tables,
                own,
                boot_unix_s,
                generation,
                applied: Timestamp::now(),
            });
            Ok::<_, Failure>(generation)
        })?;
        let took_ms = began.elapsed().as_secs_f64() * 1e3;
        self.faults.note(Part::Policy, Ok(()));
        self.save(in_force.as_ref());
        tracing::info!("{name} is in force as generation {generation}");
        let mut warnings = texts(&warnings);
        warnings.extend(notes);
        Ok(Applied {
            generation,
            took_ms,
            warnings,
        })
    }

    /// Compiles the policy in force again if this machine's addresses have changed, or its wall clock was set and rules have
    /// deadlines, which the packet path compares with the time since the start.
    pub async fn follow_machine(&self) {
        let mut in_force = self.policy.lock().await;
        let outcome = tokio::task::block_in_place(|| {
            let own = own_addresses().map_err(|error| format!("{error:#}"))?;
            let boot_unix_s = boot_unix_s();
            let Some(current) = in_force.as_mut() else {
                return Ok(());
            };
            let what = match () {
                () if current.own != own => "this machine's addresses have changed",
                () if current.clock_was_set(boot_unix_s) => "this machine's clock was set",
                () => return Ok(()),
            };
            let before = (mem::replace(&mut current.own, own), current.boot_unix_s);
            current.boot_unix_s = boot_unix_s;
            if let Err(failure) = self.readdress(current, None) {
                (current.own, current.boot_unix_s) = before;
                return Err(format!(
                    "{what}, and the policy cannot be compiled again: {failure}"
                ));
            }
            tracing::info!("{what}: the policy is now generation {}", current.generation);
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
        let boot_unix_s = boot_unix_s();
        let compile = |generation| {
            let environment = policy::environment(&own, &self.config.roles(), generation, boot_unix_s);
            policy::compile_to_keep(&checked, &environment)
        };
        let unchanged = match &set {
            Some(set) => Some(compile(current)?).filter(|(_, tables)| tables.lines == *set),
            None => None,
        };
        // Its generation may be older, and its tables laid out otherwise: addresses have come and gone since.
        let before = previous.filter(|previous| previous.text == checked.text && current != 0);
        let applied = before.map_or_else(Timestamp::now, |previous| previous.applied);
        let (generation, compiled, tables) = if let Some((compiled, tables)) = unchanged {
            self.set_control(&checked);
            (current, compiled, Arc::new(tables))
        } else {
            let generation = self.tables.next_generation();
            let (compiled, tables) = compile(generation)?;
            (generation, compiled, self.enforce_tables(&checked, tables, None)?)
        };
        self.remember_names(&checked);
        Ok(InForce {
            policy: checked,
            compiled,
            tables,
            own,
            boot_unix_s,
            generation,
            applied,
        })
    }

    /// Compiles the policy in force with the addresses that its model and this machine have now, and switches to it: quickly
    /// where nothing but addresses has changed.
    ///
    /// # Errors
    /// If it does not fit, or cuts one of the sessions; then the tables in force stay.
    pub(super) fn readdress<'a>(
        &self,
        current: &mut InForce,
        sessions: impl IntoIterator<Item = &'a Session>,
    ) -> Result<(), Failure> {
        let environment = self.next_environment(&current.own, current.boot_unix_s);
        let (tables, how) = current
            .compiled
            .readdress(&current.policy, &environment)
            .map_err(|error| policy::too_large(&current.policy, &error))?;
        if let Readdressed::Everything { why } = how {
            tracing::debug!("the policy was compiled as a whole: {why}");
        }
        current.tables = self.enforce_tables(&current.policy, tables, sessions)?;
        current.generation = environment.generation;
        Ok(())
    }

    /// This machine under the next generation.
    fn next_environment(&self, own: &BTreeSet<IpAddr>, boot_unix_s: i64) -> Environment {
        let generation = self.tables.next_generation();
        policy::environment(own, &self.config.roles(), generation, boot_unix_s)
    }

    /// Puts tables of the next generation in force, unless they cut one of the sessions.
    fn enforce_tables<'a>(
        &self,
        checked: &Policy,
        tables: TableSet,
        sessions: impl IntoIterator<Item = &'a Session>,
    ) -> Result<Arc<TableSet>, Failure> {
        let refused = |error: crate::dataplane::DataPlaneError| Failure::no(chain(&error));
        let roles = self.config.roles();
        for session in sessions {
            policy::guard(&tables.lines, roles.len(), Some(session))?;
        }
        // Names first: a flow of the new policy may end, or a packet be denied, in the next instant.
        self.remember_names(checked);
        let generation = self.tables.apply(&tables.lines).map_err(refused)?;
        self.set_control(checked);
        *lock(&self.limits) = (generation, Arc::new(RuleLimits::read(&tables.lines)));
        Ok(Arc::new(tables))
    }

    /// Sets what the policy says beside its tables.
    fn set_control(&self, checked: &Policy) {
        let tcp = &checked.tcp;
        self.tables.set_flags(if tcp.window_loose {
            ControlFlags::WINDOW_LOOSE
        } else {
            0
        });
        let before = self.tables.control().pickup_until;
        let until = pickup_until(tcp.pickup, self.cold_start.load(Ordering::Relaxed), before);
        self.tables.set_pickup_until(until);
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
        let good = LastGood::new(&current.policy, current.generation, current.applied);
        let outcome = good
            .write(&self.config.state_dir)
            .map_err(|error| format!("the policy in force cannot be kept for the next start: {error:#}"));
        self.faults.note(Part::LastGood, outcome);
    }
}

/// The wall clock moves a little all the time (NTP); rules' deadlines are seconds.
const CLOCK_SET_S: u64 = 2;

impl InForce {
    fn clock_was_set(&self, boot_unix_s: i64) -> bool {
        self.boot_unix_s.abs_diff(boot_unix_s) >= CLOCK_SET_S
            && self.policy.rules.iter().any(|rule| rule.until.is_some())
    }
}

/// Until when running connections are adopted, coarse ns; 0: they are not. `cold_start`: time of a start without state, 0
/// if there was none; `before`: what the predecessor or an earlier policy has said.
pub(super) const fn pickup_until(pickup: Pickup, cold_start: u64, before: u64) -> u64 {
    match pickup {
        Pickup::Never => 0,
        Pickup::Always => u64::MAX,
        Pickup::ColdStart(seconds) if cold_start != 0 => cold_start + seconds as u64 * 1_000_000_000,
        // It took over: what is left of a predecessor's cold start goes on, but not what was for ever.
        Pickup::ColdStart(_) if before == u64::MAX => 0,
        Pickup::ColdStart(_) => before,
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

#[cfg(test)]
mod tests {
    use fw_policy::model::Pickup;

    use super::pickup_until;

    #[test]
    fn running_connections_are_adopted_as_the_policy_says() {
        assert_eq!(pickup_until(Pickup::Never, 5, 9), 0);
        assert_eq!(pickup_until(Pickup::Always, 0, 0), u64::MAX);
        assert_eq!(pickup_until(Pickup::ColdStart(2), 5, 9), 2_000_000_005);
        assert_eq!(
            pickup_until(Pickup::ColdStart(2), 0, 9),
            9,
            "a predecessor's goes on"
        );
        assert_eq!(pickup_until(Pickup::ColdStart(2), 0, u64::MAX), 0);
        assert_eq!(pickup_until(Pickup::ColdStart(2), 0, 0), 0);
    }
}
