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
mod protect;
mod realms;
mod records;
mod services;
mod sweep;
mod tree6;
mod trie4;

use std::collections::BTreeSet;
use std::fmt;

use fw_common::abi::{ABI_VERSION, LINE_BYTES, Line, LinkFlags, SET_MAGIC, SetHeader, checksum};
use serde::Serialize;
use thiserror::Error;

use crate::Environment;
use crate::model::{Link, Pickup, Policy, RouterAdvertisement};

use classes::Classes;
use lines::{Lines, Section};

/// Memory that a compiled policy may take unless the caller says otherwise, bytes. The kernel holds two of them during a
/// change.
pub const DEFAULT_LIMIT: u64 = 512 << 20;
/// No limit is higher: words of a set are numbered in 32 bits.
const MAX_LIMIT: u64 = 8 << 30;
/// Ports' roles have numbers below this; the highest bit of 32 means "a role that no port here has".
const MAX_ROLES: usize = 31;

/// A compiled policy.
#[derive(Clone)]
pub struct TableSet {
    /// The set as the kernel takes it.
    pub lines: Vec<Line>,
    /// What the policy asks for that does not lie in tables.
    pub settings: Settings,
    /// How large its parts are.
    pub stats: Stats,
}

/// What the policy asks of the data plane as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Settings {
    /// TCP windows are not judged ([`fw_common::abi::ControlFlags::WINDOW_LOOSE`]).
    pub window_loose: bool,
    /// When connections are adopted that were running before ([`fw_common::abi::Control::pickup_until`]).
    pub pickup: Pickup,
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
    /// VLAN tags that the policy names, none (untagged) included.
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
    /// Limits of rules.
    pub limits: usize,
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
    #[error("the machine has {0} port roles; at most 31 are supported")]
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
#[expect(
    clippy::too_many_lines,
    reason = "one line for each field of the header and of the sizes"
)]
pub fn compile_within(
    policy: &Policy,
    environment: &Environment,
    limit: u64,
) -> Result<TableSet, CompileError> {
    valid(environment)?;
    let mut lines = Lines::new(limit.min(MAX_LIMIT));
    let header_at = lines.reserve(Section::Header, 2)?;
    let mut classes = Classes::new(policy);
    let realms = realms::write(policy, environment, &mut classes, &mut lines)?;
    let services = services::build(&policy.rules, &mut lines)?;
    let axes = decisions::Axes::new(policy, &classes);
    let class_table = records::classes(policy, &classes, &axes, &mut lines)?;
    let (rules, limits) = records::rules(policy, environment, &mut lines)?;
    let protect = protect::record(policy, &mut lines)?;
    let planes = protect::planes(policy, environment, &mut lines)?;
    let decided = decisions::build(policy, &axes, &services, &mut lines)?;
    let (link, ra_roles) = link_words(&policy.link, environment);
    let header = SetHeader {
        magic: SET_MAGIC,
        abi: ABI_VERSION,
        generation: environment.generation,
        lines: lines.len(),
        realms: realms.table,
        realm_records: realms.records,
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
        limits,
        protect,
        planes,
        features: records::features(policy),
        stacks: realms.stacks,
        stack_tables: realms.stack_tables,
        ..SetHeader::default()
    };
    let stats = Stats {
        lines: u64::from(lines.len()),
        bytes: u64::from(lines.len()) * LINE_BYTES as u64,
        parts: lines.parts(),
        realms: realms.count,
        address_classes: classes.len(),
        source_rows: axes.rows.len(),
        destination_columns: axes.columns.len(),
        pair_classes: decided.pair_count,
        service_classes: services.count,
        rules: policy.rules.len(),
        limits: policy.rules.iter().map(|rule| rule.limits.len()).sum(),
        unknown_roles: unknown_roles(policy, environment),
    };
    let settings = Settings {
        window_loose: policy.tcp.window_loose,
        pickup: policy.tcp.pickup,
    };
    Ok(TableSet {
        lines: sealed(lines, header_at, header),
        settings,
        stats,
    })
}

const fn valid(environment: &Environment) -> Result<(), CompileError> {
    if environment.generation == 0 {
        return Err(CompileError::Generation);
    }
    if environment.roles.len() > MAX_ROLES {
        return Err(CompileError::Roles(environment.roles.len()));
    }
    Ok(())
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

/// Roles that decide something in the policy and that no port has.
fn unknown_roles(policy: &Policy, environment: &Environment) -> Vec<String> {
    let accepted = match &policy.link.router_advertisement {
        RouterAdvertisement::Never => &[][..],
        RouterAdvertisement::Roles(roles) => roles,
    };
    let planes = policy.planes.iter().flat_map(|plane| &plane.roles);
    let named: BTreeSet<&String> = accepted.iter().chain(planes).collect();
    let unknown = named.into_iter().filter(|role| !environment.roles.contains(role));
    unknown.cloned().collect()
}
