//! A flow of an older policy: may it go on?

use super::{Family, Scratch, Tables, clock, create, hit, police};
use crate::abi::{FlowFlags, LiveFlow, Proto, Reason, RuleFlags, StateWord};
use crate::classify::{self, Service, classify};
use crate::tcp;
use crate::wire::echo_request;

/// True if the flow was judged by an older policy than the one that this packet goes by. A newer one, which another CPU has
/// seen already, stands.
#[inline(always)]
pub(super) fn is_older(flow: &LiveFlow, s: &Scratch) -> bool {
    tcp::before(flow.generation.load(), s.generation)
}

/// Asks the policy in force about the flow of the key in `s`, in its opener's direction. Returns
/// [`Reason::Established`], [`Reason::PolicyRevoked`], or [`Reason::TableCorrupt`], which ends nothing.
#[inline(always)]
pub(super) fn ask_again<'a, F: Family, T: Tables<'a>>(t: T, s: &mut Scratch) -> u32 {
    let Some(lines) = t.lines(s.generation) else {
        return Reason::TableCorrupt as u32;
    };
    let realm = match classify::realm_record(lines, (s.meta.vlan, s.meta.inner_vlan)) {
        Ok(realm) => realm,
        Err(Reason::UnknownRealm) => return Reason::PolicyRevoked as u32,
        Err(_) => return Reason::TableCorrupt as u32,
    };
    let (lo, hi) = F::sides(s);
    let (from, to) = if s.opener_hi != 0 { (hi, lo) } else { (lo, hi) };
    let proto = s.meta.proto;
    let icmp = proto == Proto::ICMP || proto == Proto::ICMPV6;
    let service = if icmp {
        Service::of(proto, echo_request(proto), 0)
    } else {
        Service::between(proto, from.1, to.1)
    };
    match classify(lines, realm, (from.0, to.0), service, &mut s.class) {
        Ok(decision)
            if (decision.allows() || s.class.rule_flags & RuleFlags::AUDIT != 0)
                && !police::expired(t, s) =>
        {
            s.policed = create::policed(s, decision);
            Reason::Established as u32
        }
        Ok(_) => Reason::PolicyRevoked as u32,
        Err(_) => Reason::TableCorrupt as u32,
    }
}

/// Judges a flow of an older generation again, whichever side sent this packet: stamps it if the policy in force allows
/// it, ends it if not. The key in `s` must be the flow's. The number of the rule that measures it is in `s.policed` then.
///
/// # Errors
/// The reason to drop the packet.
#[inline(always)]
pub(super) fn judge_again<'a, F: Family, T: Tables<'a>>(
    t: T,
    s: &mut Scratch,
    flow: &LiveFlow,
) -> Result<(), Reason> {
    s.opener_hi = u32::from(FlowFlags(flow.flags.load()).opener_hi());
    let answer = t.stage(F::AGAIN, s);
    if answer == Reason::Established as u32 {
        if !t.dry_run() {
            flow.policed.store(s.policed);
            flow.rule.store(s.class.rule_id);
            flow.src_zone.store(s.class.src.zone);
            flow.dst_zone.store(s.class.dst.zone);
            flow.generation.store(s.generation);
        }
        return Ok(());
    }
    if answer != Reason::PolicyRevoked as u32 {
        return Err(Reason::TableCorrupt);
    }
    if !t.dry_run() {
        let reply = (s.opener_hi != 0) != (s.meta.from_hi != 0);
        let now = clock::now(t, s);
        revoke(t, flow, (reply, now));
    }
    Err(Reason::PolicyRevoked)
}

/// Ends a flow that the policy in force denies. If another CPU changes the word at the same time, that CPU's packet was
/// judged by the same generation or the next packet will be: the flow cannot go on.
#[inline(always)]
fn revoke<'a, T: Tables<'a>>(t: T, flow: &LiveFlow, (reply, now): (bool, u64)) {
    let word = flow.state.load();
    hit::seen(flow, StateWord(word), usize::from(reply), now);
    let _lost_race = t.swap(&flow.state, word, word | StateWord::DEAD | StateWord::REVOKED);
}
