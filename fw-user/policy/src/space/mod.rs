//! The space of flows of one realm and family, and the boxes in it that rules hold: what proofs, `diff` and the lint look at.
//!
//! A flow is a point: class of its source, class of its destination, protocol, source port, selector. A rule holds boxes. That
//! a rule decides a point means that one of its boxes has it and no earlier rule's does. Whatever is said here of all
//! points is said of all packets that can open a flow, because every address is in a class.

mod addresses;
mod cover;
mod ranges;
mod scope;
mod service;
mod table;

pub(crate) use addresses::ip;
pub(crate) use cover::{AXES, Covered, Order, Slab, uncovered};
pub(crate) use ranges::{Range, Ranges, common};
pub use scope::Scope;
pub(crate) use service::{Piece, WITH_MESSAGES, WITH_PORTS, messages, protocol, universe};
pub(crate) use table::{FlowBox, Space};

use thiserror::Error;

/// Why a question about all flows of a policy has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SpaceError {
    /// Too many zones of which it is not known what they hold.
    #[error(
        "the policy has {zones} zones whose members are not known (dynamic ones, and `self`) in one VLAN, beside {classes} \
         classes of addresses; every combination is looked at, and these are too many. Use fewer dynamic zones in rules"
    )]
    Unknown {
        /// Their number.
        zones: u32,
        /// Classes of addresses by the other zones.
        classes: u64,
    },
    /// Too much work.
    #[error(
        "after {steps} steps the question was still open; the rules overlap in too many ways. Merge rules or zones, or ask \
         about fewer at once"
    )]
    Steps {
        /// Steps taken.
        steps: u64,
    },
}
