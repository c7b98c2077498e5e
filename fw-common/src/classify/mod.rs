//! Class look-up: from a packet's addresses, protocol and selector to a rule, in a fixed number of line loads.
//!
//! The scheme is recursive flow classification (Gupta and `McKeown`, "Packet classification on multiple fields",
//! SIGCOMM 1999) over the layout of [`crate::abi::SetHeader`]. No step loops over rules; in sets of vectors one loops over
//! blocks of 512 of them, at most 64 times.

mod limits;
mod v6;
mod vectors;

pub use limits::{LimitWords, limit};
pub use v6::{Walk, walk6};
pub use vectors::{NOTHING, Search, search};

use core::hint::black_box;

use crate::abi::{
    ClassFlags, ClassRecord, Decision, ExtraRecord, Ip4, Ip6, LINE_WORDS, Line, PAGE_DIRECTORIES,
    PROTO_DIRECT, PairEntry, Proto, REALM_NONE, Reason, RuleFlags, SET_MAGIC, V4_LEAF,
};

/// What rules look at beside the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// IP protocol number.
    pub proto: u8,
    /// Destination port; ICMP: type << 8 | code; else 0.
    pub selector: u16,
    /// Source port; 0 for protocols without ports.
    pub source_port: u16,
}

impl Service {
    /// A packet of this protocol between two ports. Protocols without ports have 0 for both, whatever stands in their place.
    #[inline(always)]
    #[must_use]
    pub const fn between(proto: u8, source_port: u16, port: u16) -> Self {
        let (source_port, selector) = if matches!(proto, Proto::TCP | Proto::UDP | Proto::SCTP) {
            (source_port, port)
        } else {
            (0, 0)
        };
        Self {
            proto,
            selector,
            source_port,
        }
    }

    /// The packet of this protocol with this selector, which shows no source port unless its protocol has ports.
    #[inline(always)]
    #[must_use]
    pub const fn of(proto: u8, selector: u16, source_port: u16) -> Self {
        Self {
            proto,
            selector,
            source_port: Self::between(proto, source_port, 0).source_port,
        }
    }

    /// As one word, to lie in memory: protocol << 32 | selector << 16 | source port.
    #[inline(always)]
    #[must_use]
    pub const fn word(self) -> u64 {
        ((self.proto as u64) << 32) | ((self.selector as u64) << 16) | self.source_port as u64
    }

    /// The service of a [`Self::word`].
    #[inline(always)]
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        Self {
            proto: (word >> 32) as u8,
            selector: (word >> 16) as u16,
            source_port: word as u16,
        }
    }
}

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

    /// The classes of both IPv4 addresses: [`classes4`], or a call of a function that does it.
    #[inline(always)]
    fn classes4(self, out: &mut Classified) {
        classes4(self, out);
    }

    /// The decision for the classes and the service in `out`: [`decide`], or a call of a function that does it.
    #[inline(always)]
    fn decide(self, out: &mut Classified) {
        decide(self, out);
    }

    /// The first atom in the rows of `search`: [`search`], or a call of a function that does it.
    #[inline(always)]
    fn vectors(self, search: &mut Search) {
        vectors::search(self, search);
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

    /// The classes of both ends of a packet, into `out.src_class` and `out.dst_class`. With `PLACE` IPv4 addresses are looked up
    /// in place.
    #[inline(always)]
    fn classes<'a, const PLACE: bool, L: Lines<'a>>(
        lines: L,
        realm_record: u32,
        (src, dst): (Self, Self),
        out: &mut Classified,
    ) {
        out.src_class = src.class(lines, realm_record, &mut out.walk);
        out.dst_class = dst.class(lines, realm_record, &mut out.walk);
    }
}

impl Address for Ip4 {
    #[inline(always)]
    fn class<'a, L: Lines<'a>>(self, lines: L, realm_record: u32, _walk: &mut Walk) -> u32 {
        word(lines, realm_record, 0).map_or(CORRUPT, |root| find4(lines, root, self))
    }

    #[inline(always)]
    fn classes<'a, const PLACE: bool, L: Lines<'a>>(
        lines: L,
        realm_record: u32,
        (src, dst): (Self, Self),
        out: &mut Classified,
    ) {
        (out.src_class, out.dst_class) = (src.0, dst.0);
        out.walk.realm = realm_record;
        if PLACE {
            classes4(lines, out);
        } else {
            lines.classes4(out);
        }
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
    /// Class of the source, as [`decide`] is asked.
    pub src_class: u32,
    /// Class of the destination.
    pub dst_class: u32,
    /// Always 0.
    pub pad: u32,
    /// [`Service::word`].
    pub service: u64,
    /// Scratch memory of the address look-ups.
    pub walk: Walk,
    /// Scratch memory of the look-up in vectors.
    pub search: Search,
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

/// Puts the classes of both IPv4 addresses, [`CORRUPT`] if the set is damaged, where the addresses stand: in
/// [`Classified::src_class`] and `dst_class`. The realm record is that of [`Walk::realm`].
///
/// The results go through memory, as those of every stage that is a function of its own: where one way through such a
/// function returns a constant that its caller compares, the verifier of kernel 6.1 takes the constant for the only
/// result and removes the code behind the others.
#[inline(always)]
pub fn classes4<'a, L: Lines<'a>>(lines: L, out: &mut Classified) {
    let Some(root) = word(lines, out.walk.realm, 0) else {
        out.src_class = CORRUPT;
        return;
    };
    out.src_class = find4(lines, root, Ip4(out.src_class));
    out.dst_class = find4(lines, root, Ip4(out.dst_class));
}

/// The class of an address: at most five dependent loads (strides 16-4-4-4-4).
#[inline(always)]
fn find4<'a, L: Lines<'a>>(lines: L, root: u32, addr: Ip4) -> u32 {
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
    ends: (A, A),
    service: Service,
    out: &mut Classified,
) -> Result<Decision, Reason> {
    classify_in::<false, L, A>(lines, realm_record, ends, service, out)
}

/// The same; with `PLACE` the look-ups are in place, on the way of each packet that opens a flow or is denied, else by
/// [`Lines::classes4`] and [`Lines::decide`], which may call functions.
///
/// # Errors
/// As [`classify`].
#[inline(always)]
pub fn classify_in<'a, const PLACE: bool, L: Lines<'a>, A: Address>(
    lines: L,
    realm_record: u32,
    (src, dst): (A, A),
    service: Service,
    out: &mut Classified,
) -> Result<Decision, Reason> {
    A::classes::<PLACE, L>(lines, realm_record, (src, dst), out);
    if out.src_class == CORRUPT || out.dst_class == CORRUPT {
        return Err(Reason::TableCorrupt);
    }
    out.service = service.word();
    if PLACE {
        decide(lines, out);
    } else {
        lines.decide(out);
    }
    if out.found == 0 {
        Err(Reason::TableCorrupt)
    } else {
        Ok(Decision(out.decision))
    }
}

/// From the two address classes and the service in `out` to the decision; `out.found` says whether it was found. Vectors are
/// searched by [`Lines::vectors`].
#[inline(always)]
pub fn decide<'a, L: Lines<'a>>(lines: L, out: &mut Classified) {
    decide_in::<false, L>(lines, out);
}

/// The same; with `PLACE` vectors are searched in place, where a chain of calls has no stack left for another one.
#[inline(always)]
pub fn decide_in<'a, const PLACE: bool, L: Lines<'a>>(lines: L, out: &mut Classified) {
    let (src_class, dst_class, service) = (out.src_class, out.dst_class, Service::from_word(out.service));
    out.found = u32::from(lookup::<PLACE, L>(lines, src_class, dst_class, service, out).is_some());
}

#[inline(always)]
fn lookup<'a, const PLACE: bool, L: Lines<'a>>(
    lines: L,
    src_class: u32,
    dst_class: u32,
    service: Service,
    out: &mut Classified,
) -> Option<()> {
    let header = lines.line(0)?;
    out.src = record(lines, header.w[8], src_class)?;
    out.dst = record(lines, header.w[8], dst_class)?;
    let mut class = service_class(lines, header.w[11], service.proto, service.selector)?;
    if header.w[15] != 0 {
        let extra = lines.line(header.w[15])?;
        let source = source_class(lines, extra.w[0], service.source_port)?;
        if extra.w[3] != 0 {
            out.decision = in_vectors::<PLACE, L>(lines, extra, (class, source), out)?;
            return rule(lines, header.w[14], Decision(out.decision).rule(), out);
        }
        let cell = class.wrapping_mul(extra.w[1]).wrapping_add(source);
        class = half_word(lines, extra.w[2], cell)?;
    }
    let cell = out
        .src
        .src_row
        .wrapping_mul(header.w[10])
        .wrapping_add(out.dst.dst_col);
    let entry = PairEntry(word(lines, header.w[9], cell)?);
    out.pair = entry.0;
    if let Some(decision) = entry.default_for(class) {
        // Of constants LLVM makes a call of memset, for which there is no stack left where vectors are searched in place.
        let zero = if PLACE { black_box(0) } else { 0 };
        out.decision = decision.0;
        out.rule_id = zero;
        out.rule_flags = zero;
        out.rule_limits = zero;
        out.rule_until = zero;
        return Some(());
    }
    let page = page(lines, (header.w[12], header.w[13]), entry.class(), class)?;
    out.decision = lines.line(page)?.w[class as usize % LINE_WORDS];
    rule(lines, header.w[14], Decision(out.decision).rule(), out)
}

/// The class of a source port in the table at this line; 0 where there is none.
#[inline(always)]
fn source_class<'a, L: Lines<'a>>(lines: L, table: u32, source_port: u16) -> Option<u32> {
    if table == 0 {
        return Some(0);
    }
    half_word(lines, table, u32::from(source_port))
}

/// Line of the page of decisions for a pair class and a service class. `pages` are the table's line and the pages of a pair,
/// as the header has them.
#[inline(always)]
fn page<'a, L: Lines<'a>>(lines: L, pages: (u32, u32), pair: u32, service: u32) -> Option<u32> {
    let number = service / LINE_WORDS as u32;
    if pages.1 & PAGE_DIRECTORIES == 0 {
        return word(lines, pages.0, pair.wrapping_mul(pages.1).wrapping_add(number));
    }
    let of_pair = pair.wrapping_mul(pages.1 & !PAGE_DIRECTORIES);
    let directory = word(lines, pages.0, of_pair.wrapping_add(number / LINE_WORDS as u32))?;
    Some(lines.line(directory)?.w[number as usize % LINE_WORDS])
}

/// The decision in a set of vectors, for the address records in `out` and a service and source class.
#[inline(always)]
fn in_vectors<'a, const PLACE: bool, L: Lines<'a>>(
    lines: L,
    extra: &Line,
    (service, source): (u32, u32),
    out: &mut Classified,
) -> Option<u32> {
    let extra = ExtraRecord::from_line(extra);
    out.pair = 0;
    let row = |base: u32, number: u32| base.wrapping_add(number.wrapping_mul(extra.stride));
    out.search.rows[0] = row(extra.src_rows, out.src.src_row);
    out.search.rows[1] = row(extra.dst_rows, out.dst.dst_col);
    out.search.rows[2] = row(extra.service_rows, service);
    out.search.rows[3] = if extra.sources == 0 {
        0
    } else {
        row(extra.source_rows, source)
    };
    if PLACE {
        search(lines, &mut out.search);
    } else {
        lines.vectors(&mut out.search);
    }
    match out.search.atom {
        CORRUPT => None,
        NOTHING if out.src.flags & ClassFlags::OUTSIDE != 0 => Some(extra.default_outside),
        NOTHING => Some(extra.default_inside),
        atom => word(lines, extra.atoms, atom),
    }
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

/// The line of the [`crate::abi::ProtectRecord`], which ends in a 0.
#[inline(always)]
pub fn protect<'a, L: Lines<'a>>(lines: L) -> Option<&'a Line> {
    let number = lines.line(1)?.w[5];
    let record = lines.line(number)?;
    if record.w[LINE_WORDS - 1] == 0 {
        Some(record)
    } else {
        None
    }
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

/// Which of the protocols `wanted` (bits of [`PairEntry::proto_bit`]) some rule lets through between two address classes; 0 if
/// the set is damaged.
#[inline(always)]
pub fn allowed_protocols<'a, L: Lines<'a>>(
    lines: L,
    (src_class, dst_class): (u32, u32),
    wanted: u32,
    search: &mut Search,
) -> u32 {
    let Some(header) = lines.line(0) else { return 0 };
    let (Some(src), Some(dst)) = (
        record(lines, header.w[8], src_class),
        record(lines, header.w[8], dst_class),
    ) else {
        return 0;
    };
    if header.w[15] != 0 {
        let Some(extra) = lines.line(header.w[15]) else {
            return 0;
        };
        let extra = ExtraRecord::from_line(extra);
        if extra.stride != 0 {
            let rows = (
                extra
                    .src_rows
                    .wrapping_add(src.src_row.wrapping_mul(extra.stride)),
                extra
                    .dst_rows
                    .wrapping_add(dst.dst_col.wrapping_mul(extra.stride)),
            );
            let rules = header.w[14];
            let passes = |decision| lets_through(lines, rules, Decision(decision));
            return vectors::protocols(lines, &extra, rows, (wanted, passes), search);
        }
    }
    let cell = src.src_row.wrapping_mul(header.w[10]).wrapping_add(dst.dst_col);
    word(lines, header.w[9], cell).unwrap_or(0) & wanted
}

/// True if the decision allows, or its rule only audits; rule records lie at line `rules`.
#[inline(always)]
fn lets_through<'a, L: Lines<'a>>(lines: L, rules: u32, decision: Decision) -> bool {
    decision.allows()
        || record(lines, rules, decision.rule()).is_some_and(|rule| rule.dst_col & RuleFlags::AUDIT != 0)
}

/// Flags of a class; 0 if the set is damaged.
#[inline(always)]
pub fn class_flags<'a, L: Lines<'a>>(lines: L, class: u32) -> u32 {
    let Some(header) = lines.line(0) else { return 0 };
    record(lines, header.w[8], class).map_or(0, |record| record.flags)
}
