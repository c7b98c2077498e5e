//! Do a packet's addresses belong to the port that it uses?

use crate::explain::Asked;
use crate::flow::Flow;
use crate::model::{Plane, Policy};

/// True if an address of the flow belongs to a plane that is not bound to the packet's port. Nothing is known to be wrong
/// where the port is not known.
///
/// Mode `host` (no other port of a pair is named, or the packet is for this machine itself): the local end's plane must be
/// bound to the port. The far end's plane must be bound too if it is the same one, or if the local end has none: traffic
/// between planes is routed and comes by the local end's port. Mode `inline`: the source's plane must be bound to the port
/// that the packet comes by, the destination's to the pair's other port.
pub(crate) fn mismatch(policy: &Policy, flow: &Flow, own: &[std::net::IpAddr], asked: &Asked<'_>) -> bool {
    let Some(role) = asked.role else { return false };
    let plane = |address| policy.plane_of(flow.tags(), address, own);
    let (from, to) = (plane(flow.src), plane(flow.dst));
    let outside = |plane: Option<&Plane>, role: &str| plane.is_some_and(|plane| !plane.uses(role));
    let leaves = flow.leaves(own);
    if let Some(peer) = asked.peer.filter(|_| !leaves && !own.contains(&flow.dst)) {
        return outside(from, role) || outside(to, peer);
    }
    let (local, far) = if leaves { (from, to) } else { (to, from) };
    outside(local, role) || ((local.is_none() || local == far) && outside(far, role))
}
