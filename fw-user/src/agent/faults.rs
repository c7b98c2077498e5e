//! What is wrong at the moment: one sentence for each part of the agent that has a fault.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Parts that can be at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The policy file, or an attempt to apply it.
    Policy,
    /// The last good policy on disk.
    LastGood,
    /// The state directory itself.
    StateDir,
    /// Other files in the state directory.
    State,
    /// The members of dynamic zones on disk.
    Members,
    /// Deadlines of members of dynamic zones.
    Deadlines,
    /// The flow log.
    FlowLog,
    /// Ageing of flows.
    Ageing,
    /// The heartbeat.
    Heartbeat,
    /// Reports of denied packets.
    Events,
    /// The watch over addresses and interfaces.
    Watch,
    /// A port.
    Ports,
    /// The list of interfaces.
    Coverage,
    /// The metrics endpoint.
    Metrics,
    /// Counters.
    Counters,
}

/// The faults.
#[derive(Debug, Default)]
pub struct Faults(Mutex<BTreeMap<Part, String>>);

impl Faults {
    /// Notes the outcome of one of a part's tasks: an error is the part's fault until the next success. A new fault is
    /// logged once.
    pub fn note(&self, part: Part, outcome: Result<(), String>) {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(()) => {
                if faults.remove(&part).is_some() {
                    tracing::info!("{part:?}: mended");
                }
            }
            Err(fault) => {
                if faults.get(&part) != Some(&fault) {
                    tracing::error!("{fault}");
                    faults.insert(part, fault);
                }
            }
        }
    }

    /// The fault of a part.
    #[must_use]
    pub fn of(&self, part: Part) -> Option<String> {
        let faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        faults.get(&part).cloned()
    }

    /// All faults.
    #[must_use]
    pub fn list(&self) -> Vec<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Faults, Part};

    #[test]
    fn a_fault_lasts_until_the_next_success() {
        let faults = Faults::default();
        faults.note(Part::State, Err("disk full".into()));
        faults.note(Part::Ageing, Ok(()));
        assert_eq!(faults.list(), ["disk full"]);
        faults.note(Part::State, Ok(()));
        assert!(faults.list().is_empty());
    }
}
