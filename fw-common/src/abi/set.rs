//! The compiled policy: one immutable array of 64-byte lines ("table set").
//!
//! ```text
//! line 0..1     SetHeader
//! realms        [u16; 4096] by VLAN id (0: untagged): number of a realm record, REALM_NONE: the policy does not name it
//! realm record  one line each: word 0: line of the IPv4 root; words 1..=12: V6Tree of the IPv6 map
//! v4 root       4096 lines: u32 by the first 16 bits of the address
//! v4 node       one line: u32 by the next 4 bits. An entry is V4_LEAF | class, or the line number of a node
//! v6 tree       8-ary search over interval starts (u64 keys, 8 a line), level after level; then one u32 per interval:
//!               a class, or V6_SUBTREE | line of a V6Tree over the address's low half
//! classes       ClassRecord, 4 a line, by class
//! pairs         u32 by src_row * columns + dst_col: PairEntry: pair class, and which protocols it allows at all
//! protos        u32 by IP protocol: PROTO_DIRECT | service class, or the line of a [u16; 65536] by selector
//!               (destination port; ICMP: type << 8 | code): service class
//! pages         u32 by pair class * pages of a pair + service class / 16: line of the page; with PAGE_DIRECTORIES by
//!               service class / 256: line of a directory
//! directory     one line: by service class / 16 % 16: line of the page; equal directories are one
//! page          one line: Decision by service class % 16; equal pages are one
//! rules         RuleRecord, 4 a line, by rule number; number 0 is the default
//! limits        LimitRecord, 2 a line: the four thresholds of the protect section, then those of the rules
//! protect       ProtectRecord, one line
//! planes        u32 by plane number, two lines
//! extra         ExtraRecord, one line: only in sets that look at source ports, or that are vectors
//! ```
//!
//! All line numbers are counted from the start of the set. The map's elements are [`Chunk`]s of 16,384 lines; what each new
//! flow reads stands first, decisions and vectors last. Cost of a look-up: fixed by the address formats, not by the
//! number of rules.
//!
//! # Source ports
//! Where a rule looks at source ports, there are source classes beside the service classes: [u16; 65536] by source port. A
//! table of both, [u16] by service class * source classes + source class, leads to the class that decisions are made for.
//!
//! # Vectors
//! The second representation, for policies whose rules overlap in so many ways that a table of all pairs would be too
//! large: aggregated bit vectors (Lakshman and Stiliadis, SIGCOMM 1998; Baboescu and Varghese, SIGCOMM 2001). Rules are
//! split into *atoms*: one direction, and one range of source ports. An atom is a product of four sets: sources,
//! destinations, services, source ports. Atoms are numbered in the order of their rules. Each row, column, service class and
//! source class has a *row*: which atoms its members fit.
//!
//! ```text
//! row           u32 words: 0..=1 the aggregate, 64 bits, low word first: which blocks are not empty; 2..: line of each block
//! block         one line, 512 bits: bit b % 32 of word b / 32 is atom 512 * block + b; equal blocks are one
//! atoms         u32 by atom: Decision
//! ```
//!
//! The first bit that is set in all four rows is the first rule that matches. At most [`MAX_BLOCKS`] blocks are looked at.

/// Words in a line.
pub const LINE_WORDS: usize = 16;
/// Bytes in a line: a cache line.
pub const LINE_BYTES: usize = 64;
/// "dpfw": the first word of a set.
pub const SET_MAGIC: u32 = 0x6470_6677;
/// No realm record: the policy does not name this tag.
pub const REALM_NONE: u16 = 0;
/// Marks a leaf in the IPv4 map; the low 24 bits are the class.
pub const V4_LEAF: u32 = 1 << 31;
/// Marks an IPv6 interval whose class depends on the low half; the low 31 bits are the line of its [`V6Tree`].
pub const V6_SUBTREE: u32 = 1 << 31;
/// Marks a protocol whose selector does not matter; the low 16 bits are the service class.
pub const PROTO_DIRECT: u32 = 1 << 31;
/// Marks [`SetHeader::pages_per_pair`]: between the table of pages and the pages stand directories of 16 pages.
pub const PAGE_DIRECTORIES: u32 = 1 << 31;
/// Blocks of a row of the vectors: as many as its aggregate has bits.
pub const MAX_BLOCKS: u32 = 64;
/// Atoms of a block.
pub const BLOCK_ATOMS: u32 = 8 * LINE_BYTES as u32;
/// Word of a row of the vectors at which its blocks' lines begin.
pub const ROW_BLOCKS: u32 = 2;
/// Levels that an IPv6 tree can have: 8^8 intervals.
pub const MAX_V6_LEVELS: usize = 8;

/// One cache line of a set.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Line {
    /// Sixteen words, host byte order. A u16 table packs two entries a word, the even index in the low half; a u64 key
    /// takes two words, the low one first.
    pub w: [u32; LINE_WORDS],
}

/// Lines of a chunk.
pub const CHUNK_LINES: u32 = 1 << 14;
/// Bytes of a chunk: 1 MiB.
pub const CHUNK_BYTES: usize = CHUNK_LINES as usize * LINE_BYTES;

/// What a set's map has as its elements. The packet path looks the first one up once and reads the lines in it in place; each
/// line of another chunk costs a look-up, because the kernel does not inline those in inner maps of any size
/// (`array_map_gen_lookup` in kernel/bpf/arraymap.c).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Chunk {
    /// Lines.
    pub lines: [Line; CHUNK_LINES as usize],
}

/// What lies behind a set's last line in its last chunk. As a line, class, pair class or rule number it points outside of any set
/// below 256 MiB, and as a decision it denies: so a damaged set's rules end in [`super::Reason::TableCorrupt`] or a drop there too. Port
/// roles of planes and rates of limits read there are only wrong: against that stand the checksum and the freezing of a set.
pub static BEYOND: Line = Line {
    w: [(1 << 24) - 1; LINE_WORDS],
};

/// The first two lines of a set, as words.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetHeader {
    /// [`SET_MAGIC`].
    pub magic: u32,
    /// [`crate::abi::ABI_VERSION`].
    pub abi: u32,
    /// Generation of the policy; never 0.
    pub generation: u32,
    /// Lines in use, header included.
    pub lines: u32,
    /// [`checksum`] of all lines with this field as 0: low word.
    pub checksum_lo: u32,
    /// High word of the checksum.
    pub checksum_hi: u32,
    /// Line of the `realms` table.
    pub realms: u32,
    /// Line of realm record 0 (which is never used; record n is n lines further).
    pub realm_records: u32,
    /// Line of class record 0.
    pub classes: u32,
    /// Line of the pair table.
    pub pairs: u32,
    /// Columns of the pair table.
    pub pair_columns: u32,
    /// Line of the protocol table.
    pub protos: u32,
    /// Line of the table of decision pages.
    pub decision_pages: u32,
    /// Pages of a pair class: service classes / 16, rounded up; or [`PAGE_DIRECTORIES`] | service classes / 256, rounded up.
    pub pages_per_pair: u32,
    /// Line of rule record 0.
    pub rules: u32,
    /// Line of the [`ExtraRecord`]; 0: there is none.
    pub extra: u32,
    /// Router advertisements are accepted from ports whose role's bit is set here.
    pub ra_roles: u32,
    /// Number of classes.
    pub class_count: u32,
    /// Number of pair classes.
    pub pair_count: u32,
    /// Number of rules, the default not counted.
    pub rule_count: u32,
    /// Line of limit record 0.
    pub limits: u32,
    /// Line of the [`super::ProtectRecord`].
    pub protect: u32,
    /// Line of the plane table: [u32; 32] (two lines) by plane number: bits of the port roles that the plane is bound to; 0:
    /// bound to none, so any port will do.
    pub planes: u32,
    /// [`Features`].
    pub features: u32,
    /// Line of the table of stacked tags: [u16; 4096] by outer VLAN id: 0, or n: the line `stack_tables + (n - 1) * 128` is
    /// a [u16; 4096] by inner VLAN id: number of a realm record, `REALM_NONE`: not named. 0: the policy names none.
    pub stacks: u32,
    /// Line of the first table by inner VLAN id.
    pub stack_tables: u32,
    /// [`LinkFlags`].
    pub link: u32,
    /// Always 0.
    pub reserved: [u32; 5],
}

const _: () = assert!(size_of::<SetHeader>() == 2 * LINE_BYTES && size_of::<Chunk>() == CHUNK_BYTES);

impl SetHeader {
    /// The header as two lines.
    #[must_use]
    pub const fn to_lines(&self) -> [Line; 2] {
        let a = [
            self.magic,
            self.abi,
            self.generation,
            self.lines,
            self.checksum_lo,
            self.checksum_hi,
            self.realms,
            self.realm_records,
            self.classes,
            self.pairs,
            self.pair_columns,
            self.protos,
            self.decision_pages,
            self.pages_per_pair,
            self.rules,
            self.extra,
        ];
        let mut b = [0; LINE_WORDS];
        b[0] = self.ra_roles;
        b[1] = self.class_count;
        b[2] = self.pair_count;
        b[3] = self.rule_count;
        b[4] = self.limits;
        b[5] = self.protect;
        b[6] = self.planes;
        b[7] = self.features;
        b[8] = self.stacks;
        b[9] = self.stack_tables;
        b[10] = self.link;
        [Line { w: a }, Line { w: b }]
    }

    /// Reads the header from a set's first two lines.
    #[must_use]
    pub const fn from_lines(a: &Line, b: &Line) -> Self {
        Self {
            magic: a.w[0],
            abi: a.w[1],
            generation: a.w[2],
            lines: a.w[3],
            checksum_lo: a.w[4],
            checksum_hi: a.w[5],
            realms: a.w[6],
            realm_records: a.w[7],
            classes: a.w[8],
            pairs: a.w[9],
            pair_columns: a.w[10],
            protos: a.w[11],
            decision_pages: a.w[12],
            pages_per_pair: a.w[13],
            rules: a.w[14],
            extra: a.w[15],
            ra_roles: b.w[0],
            class_count: b.w[1],
            pair_count: b.w[2],
            rule_count: b.w[3],
            limits: b.w[4],
            protect: b.w[5],
            planes: b.w[6],
            features: b.w[7],
            stacks: b.w[8],
            stack_tables: b.w[9],
            link: b.w[10],
            reserved: [0; 5],
        }
    }
}

/// FNV-1a over the words of a set, the checksum's own two words counted as 0: one sum for each of a line's eight pairs of
/// words, so that a processor works on eight at a time, and one over those. It guards against a half-filled or foreign map,
/// not against an attacker (who could write the map could write the programs).
#[must_use]
pub fn checksum(lines: &[Line]) -> u64 {
    const START: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let mut sums = [START; LINE_WORDS / 2];
    for (number, line) in lines.iter().enumerate() {
        for (index, sum) in sums.iter_mut().enumerate() {
            let pair = u64::from(line.w[2 * index]) | (u64::from(line.w[2 * index + 1]) << 32);
            let pair = if number == 0 && index == 2 { 0 } else { pair };
            // The upper half is folded in, because a product carries nothing downwards.
            *sum = (*sum ^ pair ^ (pair >> 32)).wrapping_mul(PRIME);
        }
    }
    let fold = |all: u64, sum: &u64| (all ^ *sum ^ (*sum >> 32)).wrapping_mul(PRIME);
    sums.iter().fold(START, fold)
}

/// Where an IPv6 tree lies. Stored in a line: `depth, intervals, values, level0, count[0..8]` (and in a realm record
/// from word 1 on).
///
/// Level 0 is one line; each key of a level is the smallest of its child line. Levels lie behind each other, `count[l]`
/// lines each. Unused keys of a level's last line are `u64::MAX`; a search clamps its index to the line and interval
/// counts, so that the address of all ones finds the last interval.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct V6Tree {
    /// Levels in use, 1..=8.
    pub depth: u32,
    /// Intervals at the last level.
    pub intervals: u32,
    /// Line of the value table.
    pub values: u32,
    /// Line of level 0.
    pub level0: u32,
    /// Lines in each level.
    pub count: [u32; MAX_V6_LEVELS],
}

/// One address class: all addresses that the same set of zones holds.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassRecord {
    /// Row of the pair table when such an address is the source.
    pub src_row: u32,
    /// Column of the pair table when it is the destination.
    pub dst_col: u32,
    /// Stable id of the most specific zone; 0: none.
    pub zone: u32,
    /// [`ClassFlags`].
    pub flags: u32,
}

/// Bits of [`ClassRecord::flags`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassFlags;

impl ClassFlags {
    /// An address of this machine.
    pub const OWN: u32 = 1;
    /// A multicast or broadcast address.
    pub const MULTICAST: u32 = 1 << 1;
    /// A link-local address.
    pub const LINK_LOCAL: u32 = 1 << 2;
    /// An address of a lifeline zone.
    pub const LIFELINE: u32 = 1 << 3;
    /// An address of a zone that is exempt from SYN proofs, flood limits and caps.
    pub const EXEMPT: u32 = 1 << 4;
    /// An address that no zone holds but `outside` and `any`.
    pub const OUTSIDE: u32 = 1 << 5;
    /// Bits 8..=12: number of the address's plane; 0: none.
    pub const PLANE_SHIFT: u32 = 8;

    /// The number of the plane in these flags; 0: none.
    #[inline(always)]
    #[must_use]
    pub const fn plane(flags: u32) -> u32 {
        (flags >> Self::PLANE_SHIFT) & 31
    }
}

/// What only some sets have: tables of source ports, and vectors. One line.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtraRecord {
    /// Line of a [u16; 65536] by source port: source class; 0: no rule looks at source ports.
    pub sources: u32,
    /// Number of source classes.
    pub source_classes: u32,
    /// Line of a [u16] by service class * `source_classes` + source class: the service class that decisions are made for. Not
    /// with vectors.
    pub combine: u32,
    /// Lines in a row of the vectors; 0: the set has none, but a table of pairs.
    pub stride: u32,
    /// Line of row 0 of the sources; the row of a class is [`ClassRecord::src_row`].
    pub src_rows: u32,
    /// Line of row 0 of the destinations, by [`ClassRecord::dst_col`].
    pub dst_rows: u32,
    /// Line of row 0 of the service classes.
    pub service_rows: u32,
    /// Line of row 0 of the source classes.
    pub source_rows: u32,
    /// Line of row 0 of the protocols: TCP, UDP, ICMP, others, as the bits of [`PairEntry`]. A bit is set for an atom that lets
    /// some packet of the protocol through, and for one that denies the protocol as a whole.
    pub proto_rows: u32,
    /// Line of the [`Decision`]s by atom.
    pub atoms: u32,
    /// [`Decision`] where no atom matches and the source is not [`ClassFlags::OUTSIDE`].
    pub default_inside: u32,
    /// [`Decision`] where no atom matches and the source is [`ClassFlags::OUTSIDE`].
    pub default_outside: u32,
    /// Always 0.
    pub reserved: [u32; 4],
}

impl ExtraRecord {
    /// The record as a line.
    #[must_use]
    pub const fn to_line(&self) -> Line {
        Line {
            w: [
                self.sources,
                self.source_classes,
                self.combine,
                self.stride,
                self.src_rows,
                self.dst_rows,
                self.service_rows,
                self.source_rows,
                self.proto_rows,
                self.atoms,
                self.default_inside,
                self.default_outside,
                0,
                0,
                0,
                0,
            ],
        }
    }

    /// Reads the record.
    #[inline(always)]
    #[must_use]
    pub const fn from_line(line: &Line) -> Self {
        Self {
            sources: line.w[0],
            source_classes: line.w[1],
            combine: line.w[2],
            stride: line.w[3],
            src_rows: line.w[4],
            dst_rows: line.w[5],
            service_rows: line.w[6],
            source_rows: line.w[7],
            proto_rows: line.w[8],
            atoms: line.w[9],
            default_inside: line.w[10],
            default_outside: line.w[11],
            reserved: [0; 4],
        }
    }
}

const _: () = assert!(size_of::<ExtraRecord>() == LINE_BYTES);

/// What to do with a packet that opens a flow: bits 0..=1: [`crate::abi::Action`]; bits 2..: rule number (0: default).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision(pub u32);

impl Decision {
    /// Packs an action and a rule number (below 2^22).
    #[must_use]
    pub const fn new(action: crate::abi::Action, rule: u32) -> Self {
        Self((action as u32) | (rule << 2))
    }

    /// True if the flow may be opened. Every other bit pattern denies.
    #[inline(always)]
    #[must_use]
    pub const fn allows(self) -> bool {
        self.0 & 3 == crate::abi::Action::Allow as u32
    }

    /// True if the sender of a denied packet is told.
    #[inline(always)]
    #[must_use]
    pub const fn rejects(self) -> bool {
        self.0 & 3 == crate::abi::Action::Reject as u32
    }

    /// Rule number: 1 for the policy's first rule, 0 for the default.
    #[inline(always)]
    #[must_use]
    pub const fn rule(self) -> u32 {
        self.0 >> 2
    }
}

/// A rule as the packet path needs it. Record 0 is the default.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleRecord {
    /// Stable id, made from the rule's name; 0 is the default.
    pub id: u32,
    /// [`RuleFlags`].
    pub flags: u32,
    /// Number of the first limit record << 8 | number of limits (at most [`MAX_LIMITS`]).
    pub limits: u32,
    /// Deadline in seconds of boot time (`CLOCK_BOOTTIME`); 0: none.
    pub until: u32,
}

/// Limits that one rule can have.
pub const MAX_LIMITS: u32 = 4;

/// Bits of [`RuleRecord::flags`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleFlags;

impl RuleFlags {
    /// Matches are reported (`log: true`).
    pub const LOG: u32 = 1;
    /// A rule that denies or rejects lets through and reports instead (`audit: true`).
    pub const AUDIT: u32 = 1 << 1;
    /// Matches make no entry (`track: false`).
    pub const UNTRACKED: u32 = 1 << 2;
    /// Each packet of a flow is measured: a limit on packets or bytes, or a deadline.
    pub const POLICED: u32 = 1 << 3;
}

/// Bits of [`SetHeader::features`]: what the packet path may skip because no rule uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features;

impl Features {
    /// A rule has `track: false`.
    pub const UNTRACKED: u32 = 1;
}

/// An entry of the pair table: bits 0..=23 the pair class; bits 24..=27: some rule allows TCP, UDP, ICMP, another protocol
/// between the two (asked for fragments that come before their first). Bits 28..=30: the default decides for service class 0,
/// for all others of the pages with an even number, and for those with an odd one, so that a packet which no rule allows is
/// mostly spared the reads of table and page; bit 31: the default rejects. Sets of vectors have no pair classes: 0, and no
/// bits unless they are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairEntry(pub u32);

impl PairEntry {
    /// Bits of the pair class.
    pub const CLASS_MASK: u32 = (1 << 24) - 1;
    /// The first bit of the protocols.
    pub const PROTO_SHIFT: u32 = 24;
    /// Number of those bits.
    pub const PROTOS: u32 = 4;
    /// All four bits of protocols.
    pub const ANY: u32 = 0xf << Self::PROTO_SHIFT;

    /// The default decides for service class 0, which holds what no rule names.
    pub const UNNAMED: u32 = 1 << 28;
    /// The default decides for the other classes of the pages with an even number, with an odd one.
    pub const PAGES: [u32; 2] = [1 << 29, 1 << 30];
    /// The default rejects.
    pub const REJECTS: u32 = 1 << 31;

    /// The bit that says whether the default decides for a service class.
    #[inline(always)]
    #[must_use]
    pub const fn default_bit(service: u32) -> u32 {
        if service == 0 {
            Self::UNNAMED
        } else {
            Self::PAGES[0] << ((service / LINE_WORDS as u32) & 1)
        }
    }

    /// The default's decision, if this entry says that it decides for a service class.
    #[inline(always)]
    #[must_use]
    pub const fn default_for(self, service: u32) -> Option<Decision> {
        if self.0 & Self::default_bit(service) == 0 {
            return None;
        }
        let action = if self.0 & Self::REJECTS == 0 {
            super::Action::Deny
        } else {
            super::Action::Reject
        };
        Some(Decision::new(action, 0))
    }

    /// The pair class.
    #[inline(always)]
    #[must_use]
    pub const fn class(self) -> u32 {
        self.0 & Self::CLASS_MASK
    }

    /// The bit for a protocol.
    #[inline(always)]
    #[must_use]
    pub const fn proto_bit(proto: u8) -> u32 {
        match proto {
            super::Proto::TCP => 1 << 24,
            super::Proto::UDP => 1 << 25,
            super::Proto::ICMP | super::Proto::ICMPV6 => 1 << 26,
            _ => 1 << 27,
        }
    }
}

const _: () = assert!(size_of::<RuleRecord>() == 16 && size_of::<ClassRecord>() == 16);

/// Bits of [`SetHeader::link`]: which link protocols pass under default deny.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkFlags;

impl LinkFlags {
    /// ARP (RFC 826).
    pub const ARP: u32 = 1;
    /// IPv6 neighbour solicitation and advertisement, duplicate address detection included (RFC 4861, 4862).
    pub const ND: u32 = 1 << 1;
    /// LLDP (IEEE 802.1AB).
    pub const LLDP: u32 = 1 << 2;
    /// LACP and the other slow protocols (IEEE 802.3 annex 57A).
    pub const LACP: u32 = 1 << 3;
    /// DHCP and DHCPv6 of a client behind the firewall (RFC 2131, 8415).
    pub const DHCP_CLIENT: u32 = 1 << 4;
    /// IGMP and MLD (RFC 3376, 3810).
    pub const MULTICAST: u32 = 1 << 5;
}
