//! The port whose hook runs, kept from packet to packet: packets come in batches of one port.

use super::{Scratch, Tables};

/// Finds the port with this index for `s.port`; false if there is none.
///
/// What the last packet found is good for this one if it is the same port's and the agent has changed none since: it counts
/// [`crate::abi::ControlOf::ports`] up after each change. [`Tables::store_first`] puts the look-up behind the reading of that number,
/// so what is kept is at least as new as the number that is kept with it.
#[inline(always)]
pub(super) fn find<'a, T: Tables<'a>>(t: T, s: &mut Scratch, ifindex: u32) -> bool {
    let version = t.control().map_or(0, |control| control.ports.load());
    if version != 0 && s.port.ifindex == ifindex && s.ports == u64::from(version) {
        return true;
    }
    core::hint::cold_path();
    t.store_first(&mut s.ports, u64::from(version));
    if t.port(ifindex, &mut s.port) {
        return true;
    }
    // No port has this index: nothing is kept.
    s.port.ifindex = 0;
    false
}
