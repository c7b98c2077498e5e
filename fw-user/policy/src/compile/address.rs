//! The part of a set that depends on addresses: the address maps of all realms, and the records of the classes. It ends the
//! set, so that it can be written anew behind the rest.

use std::collections::BTreeSet;

use super::axes::Places;
use super::classes::{Classes, Intervals};
use super::lines::{Lines, Section};
use super::{CompileError, realms, records};
use crate::Environment;
use crate::model::{Policy, Tags};

/// The address spaces of all realms, cut into classes.
pub(super) struct Cut {
    pub(super) realms: BTreeSet<Tags>,
    /// In the order of `realms`.
    pub(super) intervals: Vec<Intervals>,
    pub(super) classes: Classes,
}

impl Cut {
    pub(super) fn new(policy: &Policy, environment: &Environment) -> Result<Self, CompileError> {
        let realms = policy.realms();
        let mut classes = Classes::new(policy);
        let intervals = realms
            .iter()
            .map(|tags| classes.intervals(policy, *tags, &environment.own_addresses))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            realms,
            intervals,
            classes,
        })
    }
}

/// Where the tables lie.
pub(super) struct Written {
    pub(super) realms: realms::Realms,
    /// Line of class record 0.
    pub(super) classes: u32,
}

/// Writes the address maps and the class records.
pub(super) fn write(
    policy: &Policy,
    cut: &Cut,
    places: &Places,
    lines: &mut Lines,
) -> Result<Written, CompileError> {
    let realms = realms::write(cut, lines)?;
    let classes = records::classes(policy, &cut.classes, places, lines)?;
    Ok(Written { realms, classes })
}

/// Bytes that they take.
pub(super) const fn bytes(lines: &Lines) -> u64 {
    lines.bytes(Section::Realms)
        + lines.bytes(Section::Ipv4)
        + lines.bytes(Section::Ipv6)
        + lines.bytes(Section::Classes)
}
