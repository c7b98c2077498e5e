//! Model to tables: equivalence classes of addresses and services, and one decision for each pair of them, in the
//! layout of [`fw_common::abi::SetHeader`].
//!
//! The scheme is recursive flow classification (Gupta and `McKeown`, SIGCOMM 1999):
//!
//! 1. `sweep`, `classes`: cut each realm's address space where a prefix begins or ends; the pieces that the same zones
//!    hold are one class. `trie4` and `tree6` write the maps from address to class.
//! 2. `services`: the same for each protocol's selectors.
//! 3. `decisions`: source classes that all rules treat alike share a row, destination classes a column. For each cell
//!    the first rule for each service class; equal results share a pair class.
//!
//! The result depends on the policy and the environment only, never on a hash map's order.

mod classes;
mod decisions;
mod lines;
mod services;
mod sweep;
mod tree6;
mod trie4;

use std::collections::BTreeSet;
use std::fmt;

use fw_common::abi::{
    ABI_VERSION, ClassFlags, ClassRecord, LINE_BYTES, Line, LinkFlags, SET_MAGIC, SetHeader, checksum,
};
use serde::Serialize;
use thiserror::Error;

use crate::Environment;
use crate::model::{Link, Policy, RouterAdvertisement, ZoneKind};

use classes::Classes;
use lines::{Lines, Section};

/// Memory that a compiled policy may take unless the caller says otherwise, bytes. The kernel holds two of them during a
/// change.
pub const DEFAULT_LIMIT: u64 = 512 << 20;
/// No limit is higher: words of a set are numbered in 32 bits.
const MAX_LIMIT: u64 = 8 << 30;
/// Ports' roles have numbers below this.
const MAX_ROLES: usize = 32;

/// A compiled policy.
#[derive(Clone)]
pub struct TableSet {
    /// The set as the kernel takes it.
    pub lines: Vec<Line>,
    /// How large its parts are.
    pub stats: Stats,
}

/// The sizes only: a set has thousands of lines.
impl fmt::Debug for TableSet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("TableSet")
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

/// Sizes of a compiled policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Lines of 64 bytes.
    pub lines: u64,
    /// Bytes.
    pub bytes: u64,
    /// Bytes of each part.
    pub parts: Vec<(&'static str, u64)>,
    /// VLAN ids that the policy names, 0 (untagged) included.
    pub realms: usize,
    /// Sets of zones that hold an address.
    pub address_classes: usize,
    /// Source classes that the rules tell apart.
    pub source_rows: usize,
    /// Destination classes that the rules tell apart.
    pub destination_columns: usize,
    /// Pairs of them that the rules tell apart.
    pub pair_classes: usize,
    /// Services that the rules tell apart.
    pub service_classes: usize,
    /// Rules.
    pub rules: usize,
    /// Roles that the policy names and the environment has not.
    pub unknown_roles: Vec<String>,
}

/// Why a valid policy cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CompileError {
    /// Too much memory.
    #[error(
        "the compiled policy needs more than {limit_mib} MiB; the {part} take most of it ({part_mib} MiB when compiling \
         stopped). {help}"
    )]
    TooLarge {
        /// The limit.
        limit_mib: u64,
        /// The largest part.
        part: &'static str,
        /// Its size so far.
        part_mib: u64,
        /// How to make it smaller.
        help: &'static str,
    },
    /// A table's numbers are used up.
    #[error(
        "the policy tells {count} {what} apart; at most {limit} fit into the tables. Merge zones, ports or rules"
    )]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many there are, at least.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// Generation 0 means "no policy".
    #[error("generation 0 means that there is no policy; the first policy has generation 1")]
    Generation,
    /// More roles than a port's number can hold.
    #[error("the machine has {0} port roles; at most 32 are supported")]
    Roles(usize),
}

/// Compiles a policy for a machine, within [`DEFAULT_LIMIT`].
///
/// # Errors
/// [`CompileError`]: the policy is valid, but too large for the tables, or the environment is not valid.
pub fn compile(policy: &Policy, environment: &Environment) -> Result<TableSet, CompileError> {
    compile_within(policy, environment, DEFAULT_LIMIT)
}

/// As [`compile`], with another limit in bytes (at most 8 GiB).
///
/// # Errors
/// As [`compile`].
pub fn compile_within(
    policy: &Policy,
    environment: &Environment,
    limit: u64,
) -> Result<TableSet, CompileError> {
    if environment.generation == 0 {
        return Err(CompileError::Generation);
    }
    if environment.roles.len() > MAX_ROLES {
        return Err(CompileError::Roles(environment.roles.len()));
    }
    let mut lines = Lines::new(limit.min(MAX_LIMIT));
    let header_at = lines.reserve(Section::Header, 2)?;
    let vlans = policy.vlans();
    let mut classes = Classes::new(policy);
    let realms = realms(policy, environment, &vlans, &mut classes, &mut lines)?;
    let services = services::build(&policy.rules, &mut lines)?;
    let axes = decisions::Axes::new(policy, &classes);
    let class_table = class_records(policy, &classes, &axes, &mut lines)?;
    let rules = rule_records(policy, &mut lines)?;
    let decided = decisions::build(policy, &axes, &services, &mut lines)?;
    let (link, ra_roles) = link_words(&policy.link, environment);
    let header = SetHeader {
        magic: SET_MAGIC,
        abi: ABI_VERSION,
        generation: environment.generation,
        lines: lines.len(),
        realms: realms.0,
        realm_records: realms.1,
        classes: class_table,
        pairs: decided.pairs,
        pair_columns: axes.columns.len() as u32,
        protos: services.protos,
        decision_pages: decided.pages,
        pages_per_pair: decided.pages_per_pair,
        rules,
        link,
        ra_roles,
        class_count: classes.len() as u32,
        pair_count: decided.pair_count as u32,
        rule_count: policy.rules.len() as u32,
        ..SetHeader::default()
    };
    let stats = Stats {
        lines: u64::from(lines.len()),
        bytes: u64::from(lines.len()) * LINE_BYTES as u64,
        parts: lines.parts(),
        realms: vlans.len(),
        address_classes: classes.len(),
        source_rows: axes.rows.len(),
        destination_columns: axes.columns.len(),
        pair_classes: decided.pair_count,
        service_classes: services.count,
        rules: policy.rules.len(),
        unknown_roles: unknown_roles(&policy.link, environment),
    };
    Ok(TableSet {
        lines: sealed(lines, header_at, header),
        stats,
    })
}

/// Writes the header and its checksum.
fn sealed(lines: Lines, at: u32, mut header: SetHeader) -> Vec<Line> {
    let mut lines = lines.into_inner();
    let at = at as usize;
    lines[at..at + 2].copy_from_slice(&header.to_lines());
    let sum = checksum(&lines);
    header.checksum_lo = sum as u32;
    header.checksum_hi = (sum >> 32) as u32;
    lines[at..at + 2].copy_from_slice(&header.to_lines());
    lines
}

/// Writes the address maps of all realms. Returns the lines of the realm table and of realm record 0.
fn realms(
    policy: &Policy,
    environment: &Environment,
    vlans: &BTreeSet<u16>,
    classes: &mut Classes,
    lines: &mut Lines,
) -> Result<(u32, u32), CompileError> {
    // Two entries of 16 bits a word; record 0 is never used, so that 0 can mean "no record".
    let table = lines.reserve_words(Section::Realms, 4096 / 2)?;
    let records = lines.reserve(Section::Realms, vlans.len() as u64 + 1)?;
    let (mut v4, mut v6) = (trie4::Writer::default(), tree6::Writer::default());
    for (number, vlan) in (1_u32..).zip(vlans) {
        lines.set_half(table, u32::from(*vlan), number as u16);
        let intervals = classes.intervals(policy, *vlan, &environment.own_addresses)?;
        let root = v4.write(&intervals.v4, lines)?;
        let tree = v6.write(&intervals.v6, lines)?;
        lines.set(records + number, 0, root);
        for (index, word) in tree6::words(&tree).into_iter().enumerate() {
            lines.set(records + number, 1 + index, word);
        }
    }
    Ok((table, records))
}

fn class_records(
    policy: &Policy,
    classes: &Classes,
    axes: &decisions::Axes,
    lines: &mut Lines,
) -> Result<u32, CompileError> {
    let flag = |kind: ZoneKind, bit: u32| policy.built_in(kind).map(|zone| (zone, bit));
    let flags = [
        flag(ZoneKind::SelfMachine, ClassFlags::OWN),
        flag(ZoneKind::Multicast, ClassFlags::MULTICAST),
        flag(ZoneKind::LinkLocal, ClassFlags::LINK_LOCAL),
    ];
    let table = lines.reserve_words(Section::Classes, classes.len() as u64 * 4)?;
    for (number, class) in classes.iter().enumerate() {
        let bits = flags.iter().flatten().filter(|(zone, _)| class.zones.has(*zone));
        let record = ClassRecord {
            src_row: axes.rows.of_class[number],
            dst_col: axes.columns.of_class[number],
            zone: class.best.map_or(0, |zone| policy.zones[zone].id),
            flags: bits.fold(0, |flags, (_, bit)| flags | bit),
        };
        let words = [record.src_row, record.dst_col, record.zone, record.flags];
        lines.set_words(table, number as u32 * 4, &words);
    }
    Ok(table)
}

fn rule_records(policy: &Policy, lines: &mut Lines) -> Result<u32, CompileError> {
    let table = lines.reserve_words(Section::Rules, (policy.rules.len() as u64 + 1) * 4)?;
    for rule in &policy.rules {
        lines.set_words(table, rule.number * 4, &[rule.id, 0, 0, 0]);
    }
    Ok(table)
}

/// [`LinkFlags`] and the roles from which router advertisements are accepted.
fn link_words(link: &Link, environment: &Environment) -> (u32, u32) {
    let flags = [
        (link.arp, LinkFlags::ARP),
        (link.nd, LinkFlags::ND),
        (link.lldp, LinkFlags::LLDP),
        (link.lacp, LinkFlags::LACP),
        (link.dhcp_client, LinkFlags::DHCP_CLIENT),
        (link.multicast, LinkFlags::MULTICAST),
    ];
    let flags = flags
        .iter()
        .filter(|(on, _)| *on)
        .fold(0, |word, (_, flag)| word | flag);
    let RouterAdvertisement::Roles(accepted) = &link.router_advertisement else {
        return (flags, 0);
    };
    let roles = environment
        .roles
        .iter()
        .enumerate()
        .filter(|(_, role)| accepted.contains(role));
    (flags, roles.fold(0, |word, (number, _)| word | 1 << number))
}

fn unknown_roles(link: &Link, environment: &Environment) -> Vec<String> {
    match &link.router_advertisement {
        RouterAdvertisement::Never => Vec::new(),
        RouterAdvertisement::Roles(roles) => roles
            .iter()
            .filter(|role| !environment.roles.contains(role))
            .cloned()
            .collect(),
    }
}
