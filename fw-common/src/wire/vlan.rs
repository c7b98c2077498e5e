//! VLAN tags (IEEE 802.1Q, 802.1ad) and the realm that they name.

use super::{Meta, NO_TAG, ethertype};
use crate::abi::Reason;

/// VLAN tags that are followed, those in the frame and one beside it (IEEE 802.1Q, 802.1ad).
const MAX_TAGS: u32 = 2;

/// Reads the tags: the outermost may lie beside the packet (`beside`, see [`super::Packet::tag`]). Sets `m.l3`, `m.ethertype`, the
/// VLAN ids and the realm.
#[inline(always)]
pub(super) fn tags(m: &mut Meta, beside: u32, port_realm: u8) -> Result<(), Reason> {
    let mut tags = 0_u32;
    if beside != NO_TAG {
        note_tag(m, beside as u16);
        tags = 1;
    }
    let mut ethertype = m.window.be32(3) as u16;
    let mut word = 4;
    while word < 4 + MAX_TAGS && is_tag(ethertype) {
        if !m.holds(word, 4) {
            return Err(Reason::Truncated);
        }
        let tag = m.window.be32(word);
        note_tag(m, (tag >> 16) as u16);
        ethertype = tag as u16;
        tags += 1;
        word += 1;
    }
    m.ethertype = ethertype;
    m.l3 = word;
    m.realm = (u32::from(port_realm) << 12) | u32::from(m.vlan);
    if tags > MAX_TAGS || is_tag(ethertype) {
        return Err(Reason::TooManyTags);
    }
    if m.inner_vlan != 0 {
        m.realm = match stacked_realm(m.vlan, m.inner_vlan) {
            Some(realm) if port_realm == 0 => realm,
            _ => return Err(Reason::UnknownRealm),
        };
    }
    Ok(())
}

#[inline(always)]
const fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, ethertype::VLAN | ethertype::QINQ)
}

/// Notes a tag's VLAN id. A tag with id 0 carries a priority only (IEEE 802.1Q section 6.9): the frame belongs to the next
/// tag's VLAN, or to none.
#[inline(always)]
fn note_tag(m: &mut Meta, tag: u16) {
    let vlan = tag & 0xfff;
    if m.vlan == 0 {
        m.vlan = vlan;
    } else {
        m.inner_vlan = vlan;
    }
}

/// First realm number of two tags: what one tag and the ports' realms leave free.
const STACKED: u32 = 1 << 16;
/// VLAN ids that can be used: 1 to this one (IEEE 802.1Q table 9-2).
const MAX_VLAN: u32 = 4094;
/// Outer ids that have room in the key's 24 bits.
const MAX_OUTER: u32 = 4080;

/// Realm of a frame with two tags, on a port of realm 0: outer id 1 to 4080, inner id 1 to 4094. `None` for any other.
#[inline(always)]
#[must_use]
pub const fn stacked_realm(outer: u16, inner: u16) -> Option<u32> {
    let (outer, inner) = (outer as u32, inner as u32);
    if outer == 0 || outer > MAX_OUTER || inner == 0 || inner > MAX_VLAN {
        return None;
    }
    Some(STACKED + (outer - 1) * MAX_VLAN + (inner - 1))
}

const _: () = assert!(STACKED + MAX_OUTER * MAX_VLAN <= 1 << 24);
