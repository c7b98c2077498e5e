//! The checked model: what a policy means, with every name resolved. No tables, no text handling.
//!
//! An evaluator can be written from this module alone:
//!
//! 1. A packet has VLAN tags (none, one, two), two addresses, a protocol, a selector and a source port. The selector is
//!    the destination port of TCP, UDP and SCTP, `type << 8 | code` of ICMP and ICMPv6, and 0 for every other protocol. The
//!    source port is 0 for protocols without ports.
//! 2. The packet is denied as `unknown_realm` unless its tags are among [`Policy::realms`].
//! 3. [`Policy::zones_of`] gives the zones that hold an address in that realm. Zones may overlap.
//! 4. The first rule of [`Policy::rules`] of which one [`Direction`] has a zone of the source in `from` and a zone of
//!    the destination in `to`, and of which one [`ServiceMatch`] holds protocol, selector and source port, decides. If there is none,
//!    [`Policy::default`] does.
//! 5. A rule with [`Rule::audit`] lets through what it matches. [`Rule::limits`] and [`Rule::until`] then say whether an
//!    allowed flow may be opened now, and [`Policy::protect`] does.

mod limit;
mod protect;
mod tags;
pub(crate) mod units;
mod zone;

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use crate::diagnostic::Span;
use crate::flow::FlowSpec;
use crate::source::Sources;

pub use limit::{Limit, Measure, Per, Throughput, limit_key};
pub use protect::{Fragments, Pickup, Protect, Tcp, Threshold};
pub use tags::{Tags, TagsError};
pub use zone::{Plane, Zone, ZoneKind};

/// Index of a zone in [`Policy::zones`].
pub type ZoneIndex = usize;

/// A policy that passed all checks.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Name of the file, for messages.
    pub file: String,
    /// The text as it was read.
    pub text: String,
    /// All files that it was read from: itself, what it includes, the files of its zones.
    pub sources: Sources,
    /// SHA-256 of the text; of a policy in several files, of the SHA-256 of each.
    pub hash: [u8; 32],
    /// The policy's zones in the order of the file, then those that they are seen as in VLANs ([`Zone::seen_of`]), then the
    /// built-in ones ([`ZoneKind::BUILT_IN`]).
    pub zones: Vec<Zone>,
    /// The policy's own services in the order of the file; built-in ones are not listed.
    pub services: Vec<Service>,
    /// The planes that zones name, sorted by name. The number of a plane is its place here, from 1.
    pub planes: Vec<Plane>,
    /// Which link protocols pass.
    pub link: Link,
    /// How TCP connections are followed.
    pub tcp: Tcp,
    /// What happens to fragments that come before their first.
    pub fragments: Fragments,
    /// What is done against attacks.
    pub protect: Protect,
    /// The rules in the order of the file. First match wins.
    pub rules: Vec<Rule>,
    /// What happens to flows that no rule matches.
    pub default: Defaults,
    /// What must be kept apart, whatever the rules say: proved when the policy is compiled.
    pub isolations: Vec<Isolation>,
    /// The policy's own tests.
    pub expectations: Vec<Expectation>,
}

/// A named list of matches.
#[derive(Clone, Debug)]
pub struct Service {
    /// Name.
    pub name: String,
    /// What it matches, sorted, overlapping ranges merged.
    pub matches: Vec<ServiceMatch>,
    /// Where the name stands.
    pub span: Span,
}

/// One protocol, a range of its selectors and one of its source ports, all ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ServiceMatch {
    /// IP protocol number; `None`: every protocol.
    pub proto: Option<u8>,
    /// Lowest source port (TCP, UDP, SCTP); 0 where any will do.
    pub src_lo: u16,
    /// Highest source port; `u16::MAX` where any will do.
    pub src_hi: u16,
    /// Lowest selector: destination port (TCP, UDP, SCTP) or ICMP `type << 8 | code`; 0 for the rest.
    pub lo: u16,
    /// Highest selector; `u16::MAX` where the whole protocol is meant.
    pub hi: u16,
}

impl ServiceMatch {
    /// Every packet: the service `all`.
    pub const ALL: Self = Self {
        proto: None,
        src_lo: 0,
        src_hi: u16::MAX,
        lo: 0,
        hi: u16::MAX,
    };

    /// All packets of a protocol.
    #[must_use]
    pub const fn protocol(proto: u8) -> Self {
        Self::selectors(proto, 0, u16::MAX)
    }

    /// Packets of a protocol with selectors in a range, from any source port.
    #[must_use]
    pub const fn selectors(proto: u8, lo: u16, hi: u16) -> Self {
        Self {
            proto: Some(proto),
            src_lo: 0,
            src_hi: u16::MAX,
            lo,
            hi,
        }
    }

    /// True if any source port will do.
    #[must_use]
    pub const fn any_source_port(&self) -> bool {
        self.src_lo == 0 && self.src_hi == u16::MAX
    }

    /// True if a packet of this protocol, selector and source port (0 where the protocol has none) is meant.
    #[must_use]
    pub fn holds(&self, proto: u8, selector: u16, source_port: u16) -> bool {
        self.proto.is_none_or(|own| own == proto)
            && (self.lo..=self.hi).contains(&selector)
            && (self.src_lo..=self.src_hi).contains(&source_port)
    }
}

/// What a rule or the default says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleAction {
    /// The flow may be opened.
    Allow,
    /// The packet is dropped.
    Deny,
    /// The packet is dropped, and its sender told so.
    Reject,
}

impl RuleAction {
    /// As the policy writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Reject => "reject",
        }
    }
}

/// A rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Place in the policy, from 1; the number that decisions of the tables carry (0 is the default).
    pub number: u32,
    /// Name, unique in the policy.
    pub name: String,
    /// Stable id, made from the name; never 0.
    pub id: u32,
    /// Allow, deny or reject.
    pub action: RuleAction,
    /// One direction for `from`/`to`; both for `between`.
    pub directions: Vec<Direction>,
    /// What the rule matches, sorted, overlapping ranges merged.
    pub services: Vec<ServiceMatch>,
    /// Limits, all of which hold; at most [`fw_common::abi::MAX_LIMITS`]. Of rules that allow only.
    pub limits: Vec<Limit>,
    /// Matches are reported.
    pub log: bool,
    /// A rule that denies or rejects lets through, counts and reports.
    pub audit: bool,
    /// Matches make an entry in the flow table.
    pub track: bool,
    /// When the rule ends, Unix time in seconds. Of rules that allow only.
    pub until: Option<i64>,
    /// Line of the rule in the file, from 1.
    pub line: usize,
    /// Where the rule's name stands.
    pub span: Span,
}

impl Rule {
    /// True if one of the rule's matches holds this protocol, selector and source port (0 where the protocol has none).
    #[must_use]
    pub fn serves(&self, proto: u8, selector: u16, source_port: u16) -> bool {
        self.services
            .iter()
            .any(|service| service.holds(proto, selector, source_port))
    }

    /// True if the rule measures each packet of its flows, not only the one that opens a flow.
    #[must_use]
    pub fn polices(&self) -> bool {
        self.until.is_some() || self.limits.iter().any(|limit| limit.measure.measures_packets())
    }
}

/// Who opens the flow, and to whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Direction {
    /// The source is in one of these; sorted.
    pub from: Vec<ZoneIndex>,
    /// The destination is in one of these; sorted.
    pub to: Vec<ZoneIndex>,
}

/// The `link:` section: what passes below and beside the rules.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one key of the link section"
)]
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    /// ARP.
    pub arp: bool,
    /// IPv6 neighbour discovery and duplicate address detection.
    pub nd: bool,
    /// LLDP.
    pub lldp: bool,
    /// LACP and the other slow protocols.
    pub lacp: bool,
    /// DHCP as a client.
    pub dhcp_client: bool,
    /// Router advertisements.
    pub router_advertisement: RouterAdvertisement,
    /// IGMP and MLD.
    pub multicast: bool,
}

impl Default for Link {
    /// Without a link section: ARP, neighbour discovery, LLDP and LACP; a default-deny node must not die of its policy.
    fn default() -> Self {
        Self {
            arp: true,
            nd: true,
            lldp: true,
            lacp: true,
            dhcp_client: false,
            router_advertisement: RouterAdvertisement::Never,
            multicast: false,
        }
    }
}

/// From which ports router advertisements are accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RouterAdvertisement {
    /// From none.
    Never,
    /// From ports with one of these roles.
    Roles(Vec<String>),
}

/// What happens to flows that no rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Defaults {
    /// Flows from a source in a zone of the policy, `self`, or another built-in zone but `outside` and `any`.
    pub inside: DefaultAction,
    /// Flows from a source that no such zone holds (`outside`).
    pub outside: DefaultAction,
}

/// One default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DefaultAction {
    /// Without an answer.
    Drop,
    /// The sender is told.
    Reject,
}

/// Two sets of zones between which no flow may be opened, in either direction, except by the rules named.
#[derive(Clone, Debug)]
pub struct Isolation {
    /// One side, as it is called in messages: `plane training`, `tenant=a`.
    pub left_name: String,
    /// The other side.
    pub right_name: String,
    /// Zones of one side; sorted.
    pub left: Vec<ZoneIndex>,
    /// Zones of the other side; sorted.
    pub right: Vec<ZoneIndex>,
    /// Places in [`Policy::rules`] of the rules that may cross; sorted.
    pub except: Vec<usize>,
    /// Line of the statement in the file, from 1.
    pub line: usize,
    /// Where the statement stands.
    pub span: Span,
}

/// A test that the policy brings along.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// The flow.
    pub flow: FlowSpec,
    /// The flow as it is written.
    pub text: String,
    /// Role of the port that it comes in by (that a packet of this machine leaves by), where the policy says one.
    pub role: Option<String>,
    /// Mode `inline`: role of the pair's other port. `None`: mode `host`.
    pub peer: Option<String>,
    /// VLAN ids; `None`: those of the flow's zones, else untagged.
    pub tags: Option<Tags>,
    /// Addresses of the machine that is meant; empty: those of the [`crate::Environment`].
    pub own_addresses: Vec<IpAddr>,
    /// What should happen.
    pub is: RuleAction,
    /// Name of the rule that should decide.
    pub rule: Option<String>,
    /// Machine name of the reason that should be given.
    pub reason: Option<String>,
    /// Line in the file, from 1.
    pub line: usize,
    /// Where the flow stands.
    pub span: Span,
}

/// Names of the port roles that planes are bound to, or that the link section names.
pub(crate) fn bound_roles<'a>(planes: &'a [Plane], link: &'a Link) -> BTreeSet<&'a str> {
    let link = match &link.router_advertisement {
        RouterAdvertisement::Never => &[][..],
        RouterAdvertisement::Roles(roles) => roles,
    };
    let planes = planes.iter().flat_map(|plane| &plane.roles);
    link.iter().chain(planes).map(String::as_str).collect()
}

impl Policy {
    /// The tags that the policy names, sorted; no tag is always among them. Packets with others are denied.
    #[must_use]
    pub fn realms(&self) -> BTreeSet<Tags> {
        self.zones.iter().map(Zone::tags).chain([Tags::NONE]).collect()
    }

    /// Replaces the addresses of a dynamic zone, wherever it is seen. They are kept sorted, without duplicates, host bits 0.
    pub fn set_members(&mut self, zone: ZoneIndex, members: impl IntoIterator<Item = IpNet>) {
        let mut prefixes: Vec<IpNet> = members.into_iter().map(|net| net.trunc()).collect();
        prefixes.sort_unstable();
        prefixes.dedup();
        for seen in self.zones.iter_mut().filter(|seen| seen.seen_of == Some(zone)) {
            seen.prefixes.clone_from(&prefixes);
        }
        self.zones[zone].prefixes = prefixes;
    }

    /// Index of the built-in zone of this kind.
    #[must_use]
    pub fn built_in(&self, kind: ZoneKind) -> Option<ZoneIndex> {
        self.zones
            .iter()
            .position(|zone| zone.kind == kind && kind != ZoneKind::Named)
    }

    /// Index of the zone with this name.
    #[must_use]
    pub fn zone(&self, name: &str) -> Option<ZoneIndex> {
        self.zones.iter().position(|zone| zone.name == name)
    }

    /// All zones that hold this address in the realm of these tags, by definition: `outside` if no other zone but `any`
    /// holds it. `own` are the addresses of this machine. Sorted.
    #[must_use]
    pub fn zones_of(&self, tags: impl Into<Tags>, address: IpAddr, own: &[IpAddr]) -> Vec<ZoneIndex> {
        let tags = tags.into();
        let in_prefixes = |zone: &Zone| zone.prefixes.iter().any(|prefix| prefix.contains(&address));
        let named = |zone: &Zone| match zone.kind {
            ZoneKind::Named => zone.tags() == tags && in_prefixes(zone),
            ZoneKind::SelfMachine => own.contains(&address),
            ZoneKind::Metadata | ZoneKind::Multicast | ZoneKind::LinkLocal => in_prefixes(zone),
            ZoneKind::Outside | ZoneKind::Any => false,
        };
        let outside = !self.zones.iter().any(named);
        let holds = |zone: &Zone| match zone.kind {
            ZoneKind::Any => true,
            ZoneKind::Outside => outside,
            _ => named(zone),
        };
        (0..self.zones.len())
            .filter(|&index| holds(&self.zones[index]))
            .collect()
    }

    /// The plane of an address; `None`: no zone that holds it has one.
    #[must_use]
    pub fn plane_of(&self, tags: impl Into<Tags>, address: IpAddr, own: &[IpAddr]) -> Option<&Plane> {
        let number = self
            .zones_of(tags, address, own)
            .into_iter()
            .map(|zone| self.zones[zone].plane)
            .find(|plane| *plane != 0)?;
        self.planes.get(number as usize - 1)
    }

    /// The most specific zone that holds this address: the policy's zones before built-in ones, then the longest prefix,
    /// then the zone that stands first. `outside` where no zone holds it.
    #[must_use]
    pub fn most_specific(&self, tags: impl Into<Tags>, address: IpAddr, own: &[IpAddr]) -> Option<ZoneIndex> {
        let full = if address.is_ipv4() { 32 } else { 128 };
        let length = |zone: &Zone| match zone.kind {
            ZoneKind::SelfMachine => Some(full),
            ZoneKind::Any | ZoneKind::Outside => None,
            _ => zone
                .prefixes
                .iter()
                .filter(|net| net.contains(&address))
                .map(IpNet::prefix_len)
                .max(),
        };
        let rank = |index: &ZoneIndex| {
            let zone = &self.zones[*index];
            (
                zone.kind == ZoneKind::Any,
                zone.kind != ZoneKind::Named,
                Reverse(length(zone)),
                *index,
            )
        };
        self.zones_of(tags, address, own).into_iter().min_by_key(rank)
    }

    /// Names of the port roles that the policy uses, sorted.
    #[must_use]
    pub fn roles(&self) -> BTreeSet<&str> {
        let mut roles = bound_roles(&self.planes, &self.link);
        roles.extend(self.expected_roles());
        roles
    }

    /// Names of the port roles that expectations use.
    pub(crate) fn expected_roles(&self) -> impl Iterator<Item = &str> {
        let ends = self
            .expectations
            .iter()
            .flat_map(|expectation| [expectation.role.as_deref(), expectation.peer.as_deref()]);
        ends.flatten()
    }

    /// [`Policy::hash`] in hexadecimal.
    #[must_use]
    pub fn hash_hex(&self) -> String {
        use std::fmt::Write as _;
        self.hash.iter().fold(String::new(), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}
