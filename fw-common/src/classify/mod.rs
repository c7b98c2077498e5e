//! Class look-up: from a packet's addresses, protocol and selector to a rule, in a fixed number of line loads.
//!
//! The scheme is recursive flow classification (Gupta and `McKeown`, "Packet classification on multiple fields",
//! SIGCOMM 1999) over the layout of [`crate::abi::SetHeader`]. No step loops over rules.

mod v6;

pub use v6::{Walk, walk6};

use crate::abi::{
    ClassRecord, Decision, Ip4, Ip6, LINE_WORDS, Line, PROTO_DIRECT, PairEntry, REALM_NONE, Reason,
    SET_MAGIC, V4_LEAF,
};

/// Read access to one table set, for the time of one packet.
pub trait Lines<'a>: Copy {
    /// The line with this number, or `None` if it lies outside of the set.
    fn line(self, number: u32) -> Option<&'a Line>;

    /// Class of the IPv6 address in `walk.x` and `walk.low`, in the realm record `walk.realm`, into `walk.index`: [`walk6`],
    /// or a call of a function that does it.
    #[inline(always)]
    fn class6(self, walk: &mut Walk) {
        walk6(self, walk);
    }
}

impl<'a> Lines<'a> for &'a [Line] {
    #[inline(always)]
    fn line(self, number: u32) -> Option<&'a Line> {
        self.get(number as usize)
    }
}

/// Marks a failed look-up where a class or a line number is expected; no class has this number.
pub const CORRUPT: u32 = u32::MAX;

/// An address of either family, so that the packet path is generic over it.
pub trait Address: Copy + PartialEq {
    /// The address's class in a realm; [`CORRUPT`] if the set is damaged.
    fn class<'a, L: Lines<'a>>(self, lines: L, realm_record: u32, walk: &mut Walk) -> u32;
}

impl Address for Ip4 {
    #[inline(always)]
    fn class<'a, L: Lines<'a>>(self, lines: L, realm_record: u32, walk: &mut Walk) -> u32 {
        class4(lines, realm_record, self, walk);
        walk.index
    }
}

impl Address for Ip6 {
    #[inline(always)]
    fn class<'a, L: Lines<'a>>(self, lines: L, realm_record: u32, walk: &mut Walk) -> u32 {
        v6::class6(lines, realm_record, self, walk)
    }
}

/// What the tables say of a packet that would open a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Classified {
    /// The source's class record.
    pub src: ClassRecord,
    /// The destination's class record.
    pub dst: ClassRecord,
    /// Action and rule number, see [`Decision`].
    pub decision: u32,
    /// Stable id of the rule; 0 for the default.
    pub rule_id: u32,
    /// [`crate::abi::RuleFlags`] of the rule.
    pub rule_flags: u32,
    /// [`crate::abi::RuleRecord::limits`] of the rule.
    pub rule_limits: u32,
    /// [`crate::abi::RuleRecord::until`] of the rule.
    pub rule_until: u32,
    /// [`PairEntry`] of the two addresses.
    pub pair: u32,
    /// 1 if the look-up found a decision, 0 if the set is damaged.
    pub found: u32,
    /// Always 0.
    pub pad: u32,
    /// Scratch memory of the address look-ups.
    pub walk: Walk,
}

/// Word `index` of a table of words that begins at `base`.
#[inline(always)]
pub(crate) fn word<'a, L: Lines<'a>>(lines: L, base: u32, index: u32) -> Option<u32> {
    let line = lines.line(base.wrapping_add(index / LINE_WORDS as u32))?;
    Some(line.w[index as usize % LINE_WORDS])
}

/// Entry `index` of a table of u16 that begins at `base`.
#[inline(always)]
fn half_word<'a, L: Lines<'a>>(lines: L, base: u32, index: u32) -> Option<u32> {
    let pair = word(lines, base, index / 2)?;
    Some((pair >> ((index & 1) * 16)) & 0xffff)
}

/// Reads class or rule record `number` (four words) of the table at `base` into `into`.
#[inline(always)]
fn record<'a, L: Lines<'a>>(lines: L, base: u32, number: u32) -> Option<ClassRecord> {
    let line = lines.line(base.wrapping_add(number / 4))?;
    let at = (number as usize & 3) * 4;
    Some(ClassRecord {
        src_row: line.w[at],
        dst_col: line.w[at + 1],
        zone: line.w[at + 2],
        flags: line.w[at + 3],
    })
}

/// Lines of a table of u16 by VLAN id.
const BY_VLAN_LINES: u32 = 4096 / 2 / LINE_WORDS as u32;

/// Line of the realm record for these VLAN ids (outer and inner; 0: no such tag).
///
/// # Errors
/// [`Reason::UnknownRealm`] if the policy does not name the tags, [`Reason::TableCorrupt`] if the set is not one.
#[inline(always)]
pub fn realm_record<'a, L: Lines<'a>>(lines: L, (outer, inner): (u16, u16)) -> Result<u32, Reason> {
    let Some(header) = lines.line(0) else {
        return Err(Reason::TableCorrupt);
    };
    if header.w[0] != SET_MAGIC {
        return Err(Reason::TableCorrupt);
    }
    let (table, vlan) = if inner == 0 {
        (header.w[6], outer)
    } else {
        (stack_table(lines, outer)?, inner)
    };
    match half_word(lines, table, u32::from(vlan & 0xfff)) {
        None => Err(Reason::TableCorrupt),
        Some(number) if number == u32::from(REALM_NONE) => Err(Reason::UnknownRealm),
        Some(number) => Ok(header.w[7].wrapping_add(number)),
    }
}

/// Line of the table by inner VLAN id behind this outer one.
#[inline(always)]
fn stack_table<'a, L: Lines<'a>>(lines: L, outer: u16) -> Result<u32, Reason> {
    let Some(header) = lines.line(1) else {
        return Err(Reason::TableCorrupt);
    };
    let (stacks, tables) = (header.w[8], header.w[9]);
    if stacks == 0 {
        return Err(Reason::UnknownRealm);
    }
    match half_word(lines, stacks, u32::from(outer & 0xfff)) {
        None => Err(Reason::TableCorrupt),
        Some(0) => Err(Reason::UnknownRealm),
        Some(number) => Ok(tables.wrapping_add((number - 1).wrapping_mul(BY_VLAN_LINES))),
    }
}

/// Class of an IPv4 address into `walk.index`: at most five dependent loads (strides 16-4-4-4-4). [`CORRUPT`] if the set
/// is damaged.
///
/// The result goes through memory, as that of every stage that is a function of its own: where one way through such a
/// function returns a constant that its caller compares, the verifier of kernel 6.1 takes the constant for the only
/// result and removes the code behind the others.
#[inline(never)]
pub fn class4<'a, L: Lines<'a>>(lines: L, realm_record: u32, addr: Ip4, walk: &mut Walk) {
    walk.index = find4(lines, realm_record, addr);
}

#[inline(always)]
fn find4<'a, L: Lines<'a>>(lines: L, realm_record: u32, addr: Ip4) -> u32 {
    let Some(root) = word(lines, realm_record, 0) else {
        return CORRUPT;
    };
    let Some(mut entry) = word(lines, root, addr.0 >> 16) else {
        return CORRUPT;
    };
    let mut shift = 16;
    while entry & V4_LEAF == 0 {
        if shift == 0 {
            return CORRUPT;
        }
        shift -= 4;
        let Some(line) = lines.line(entry) else {
            return CORRUPT;
        };
        entry = line.w[(addr.0 >> shift) as usize & 0xf];
    }
    entry & !V4_LEAF
}

/// Service class of a protocol and selector (destination port; ICMP: type << 8 | code).
#[inline(always)]
fn service_class<'a, L: Lines<'a>>(lines: L, protos: u32, proto: u8, selector: u16) -> Option<u32> {
    let entry = word(lines, protos, u32::from(proto))?;
    if entry & PROTO_DIRECT != 0 {
        return Some(entry & 0xffff);
    }
    half_word(lines, entry, u32::from(selector))
}

/// The whole look-up: classes of both addresses, pair class, service class, decision, rule.
///
/// Fills `out`; the address records are valid whenever both classes were found, the rest if `Ok` is returned.
///
/// # Errors
/// [`Reason::TableCorrupt`] if a table points outside of the set.
#[inline(always)]
pub fn classify<'a, L: Lines<'a>, A: Address>(
    lines: L,
    realm_record: u32,
    (src, dst): (A, A),
    (proto, selector): (u8, u16),
    out: &mut Classified,
) -> Result<Decision, Reason> {
    let src_class = src.class(lines, realm_record, &mut out.walk);
    let dst_class = dst.class(lines, realm_record, &mut out.walk);
    if src_class == CORRUPT || dst_class == CORRUPT {
        return Err(Reason::TableCorrupt);
    }
    let service = (u32::from(proto) << 16) | u32::from(selector);
    decide(lines, src_class, dst_class, service, out);
    if out.found == 0 {
        Err(Reason::TableCorrupt)
    } else {
        Ok(Decision(out.decision))
    }
}

/// From two address classes and a service (protocol << 16 | selector) to the decision; `out.found` says whether it was
/// found. Five arguments: a BPF function takes no more.
#[inline(never)]
pub fn decide<'a, L: Lines<'a>>(
    lines: L,
    src_class: u32,
    dst_class: u32,
    service: u32,
    out: &mut Classified,
) {
    let (proto, selector) = ((service >> 16) as u8, service as u16);
    out.found = u32::from(lookup(lines, src_class, dst_class, (proto, selector), out).is_some());
}

#[inline(always)]
fn lookup<'a, L: Lines<'a>>(
    lines: L,
    src_class: u32,
    dst_class: u32,
    (proto, selector): (u8, u16),
    out: &mut Classified,
) -> Option<Decision> {
    let header = lines.line(0)?;
    out.src = record(lines, header.w[8], src_class)?;
    out.dst = record(lines, header.w[8], dst_class)?;
    let cell = out
        .src
        .src_row
        .wrapping_mul(header.w[10])
        .wrapping_add(out.dst.dst_col);
    let entry = PairEntry(word(lines, header.w[9], cell)?);
    out.pair = entry.0;
    let service = service_class(lines, header.w[11], proto, selector)?;
    let pages = entry
        .class()
        .wrapping_mul(header.w[13])
        .wrapping_add(service / LINE_WORDS as u32);
    let page = lines.line(word(lines, header.w[12], pages)?)?;
    let decision = Decision(page.w[service as usize % LINE_WORDS]);
    out.decision = decision.0;
    rule(lines, header.w[14], decision.rule(), out)?;
    Some(decision)
}

/// Reads rule record `number` of the table at `base` into `out`.
#[inline(always)]
fn rule<'a, L: Lines<'a>>(lines: L, base: u32, number: u32, out: &mut Classified) -> Option<()> {
    let rule = record(lines, base, number)?;
    out.rule_id = rule.src_row;
    out.rule_flags = rule.dst_col;
    out.rule_limits = rule.zone;
    out.rule_until = rule.flags;
    Some(())
}

/// Reads the rule with this number into `out`; false if the set is damaged.
#[inline(always)]
pub fn rule_of<'a, L: Lines<'a>>(lines: L, number: u32, out: &mut Classified) -> bool {
    let Some(header) = lines.line(0) else { return false };
    rule(lines, header.w[14], number, out).is_some()
}

/// Word `index` of limit record `number`, 8 words each.
#[inline(always)]
pub fn limit_word<'a, L: Lines<'a>>(lines: L, number: u32, index: u32) -> Option<u32> {
    let base = lines.line(1)?.w[4];
    word(lines, base, number.wrapping_mul(8).wrapping_add(index))
}

/// The line of the [`crate::abi::ProtectRecord`].
#[inline(always)]
pub fn protect<'a, L: Lines<'a>>(lines: L) -> Option<&'a Line> {
    let number = lines.line(1)?.w[5];
    lines.line(number)
}

/// Roles of the ports that a plane is bound to; 0: any. `None` if the set is damaged.
#[inline(always)]
pub fn plane_roles<'a, L: Lines<'a>>(lines: L, plane: u32) -> Option<u32> {
    let base = lines.line(1)?.w[6];
    word(lines, base, plane & 31)
}

/// [`crate::abi::Features`] of the set; 0 if it is damaged.
#[inline(always)]
pub fn features<'a, L: Lines<'a>>(lines: L) -> u32 {
    lines.line(1).map_or(0, |header| header.w[7])
}

/// [`PairEntry`] of two address classes; 0 (nothing is allowed) if the set is damaged.
#[inline(always)]
pub fn pair_of<'a, L: Lines<'a>>(lines: L, src_class: u32, dst_class: u32) -> u32 {
    let Some(header) = lines.line(0) else { return 0 };
    let (Some(src), Some(dst)) = (
        record(lines, header.w[8], src_class),
        record(lines, header.w[8], dst_class),
    ) else {
        return 0;
    };
    let cell = src.src_row.wrapping_mul(header.w[10]).wrapping_add(dst.dst_col);
    word(lines, header.w[9], cell).unwrap_or(0)
}

/// Flags of a class; 0 if the set is damaged.
#[inline(always)]
pub fn class_flags<'a, L: Lines<'a>>(lines: L, class: u32) -> u32 {
    let Some(header) = lines.line(0) else { return 0 };
    record(lines, header.w[8], class).map_or(0, |record| record.flags)
}
