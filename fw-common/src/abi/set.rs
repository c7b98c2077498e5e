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
//! pairs         u32 by src_row * columns + dst_col: pair class
//! protos        u32 by IP protocol: PROTO_DIRECT | service class, or the line of a [u16; 65536] by selector
//!               (destination port; ICMP: type << 8 | code): service class
//! pages         u32 by pair class * pages of a pair + service class / 16: line of the page
//! page          one line: Decision by service class % 16; equal pages are one
//! rules         RuleRecord, 4 a line, by rule number; number 0 is the default
//! ```
//!
//! All line numbers are counted from the start of the set. Cost of a look-up: fixed by the address formats, not by the
//! number of rules.

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
    /// Pages of a pair class: service classes / 16, rounded up.
    pub pages_per_pair: u32,
    /// Line of rule record 0.
    pub rules: u32,
    /// [`LinkFlags`].
    pub link: u32,
    /// Router advertisements are accepted from ports whose role's bit is set here.
    pub ra_roles: u32,
    /// Number of classes.
    pub class_count: u32,
    /// Number of pair classes.
    pub pair_count: u32,
    /// Number of rules, the default not counted.
    pub rule_count: u32,
    /// Always 0.
    pub reserved: [u32; 12],
}

const _: () = assert!(size_of::<SetHeader>() == 2 * LINE_BYTES);

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
            self.link,
        ];
        let mut b = [0; LINE_WORDS];
        b[0] = self.ra_roles;
        b[1] = self.class_count;
        b[2] = self.pair_count;
        b[3] = self.rule_count;
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
            link: a.w[15],
            ra_roles: b.w[0],
            class_count: b.w[1],
            pair_count: b.w[2],
            rule_count: b.w[3],
            reserved: [0; 12],
        }
    }
}

/// FNV-1a over the words of a set, the checksum's own two words counted as 0. It guards against a half-filled or
/// foreign map, not against an attacker (who could write the map could write the programs).
#[must_use]
pub fn checksum(lines: &[Line]) -> u64 {
    let mut sum = 0xcbf2_9ce4_8422_2325_u64;
    for (number, line) in lines.iter().enumerate() {
        for (index, word) in line.w.iter().enumerate() {
            let word = if number == 0 && (index == 4 || index == 5) {
                0
            } else {
                *word
            };
            sum = (sum ^ word as u64).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    sum
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
}

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

    /// Rule number: 1 for the policy's first rule, 0 for the default.
    #[inline(always)]
    #[must_use]
    pub const fn rule(self) -> u32 {
        self.0 >> 2
    }
}

/// A rule as the packet path needs it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleRecord {
    /// Stable id, made from the rule's name; 0 is the default.
    pub id: u32,
    /// Always 0.
    pub reserved: [u32; 3],
}

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
