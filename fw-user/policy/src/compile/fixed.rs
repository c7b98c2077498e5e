//! The part of a set that does not depend on addresses, and the whole set.

use fw_common::abi::{ABI_VERSION, LINE_BYTES, SET_MAGIC, SetHeader};

use super::address::{self, Cut};
use super::axes::{Axes, Places};
use super::choice::Parts;
use super::lines::{Lines, Section};
use super::stats::{Choice, Representation, Stats};
use super::{
    CompileError, MAX_LIMIT, Options, Settings, TableSet, choice, header, protect, records, services, valid,
};
use crate::Environment;
use crate::model::Policy;

/// Rules from which on a set is expected to take more than a chunk, so that what each new flow reads is kept in the first.
const MANY_RULES: usize = 500;

/// What does not depend on addresses.
#[derive(Clone)]
pub(super) struct Fixed {
    /// The set up to there.
    pub(super) lines: Lines,
    pub(super) header: SetHeader,
    pub(super) axes: Axes,
    pub(super) stats: Stats,
    pub(super) settings: Settings,
}

/// Compiles a policy; `keep` is shown the fixed part before the rest is written behind it.
pub(super) fn compile<K>(
    policy: &Policy,
    environment: &Environment,
    options: Options,
    keep: impl Fn(&Fixed) -> K,
) -> Result<(K, TableSet), CompileError> {
    valid(environment)?;
    let mut cut = Cut::new(policy, environment).map_err(|error| error.with_contributors(policy, None))?;
    let mut whole = |choice| {
        let options = Options { choice, ..options };
        let (mut fixed, places) = Fixed::new(policy, environment, &mut cut, options)?;
        let chosen = fixed.stats.representation;
        let kept = keep(&fixed);
        let lines = std::mem::replace(&mut fixed.lines, Lines::new(0));
        let tables = fixed.finish(lines, (policy, environment), &cut, &places);
        Ok((kept, chosen, tables))
    };
    let result = match whole(options.choice) {
        // The address maps find no room behind a table of pairs: they may behind vectors, which can be smaller.
        Ok((_, Representation::Pairs, Err(error))) if options.choice == Choice::Auto && error.is_size() => {
            let again = whole(Choice::Only(Representation::Vectors));
            again
                .and_then(|(kept, _, tables)| tables.map(|tables| (kept, tables)))
                .map_err(|_| error)
        }
        Ok((kept, _, tables)) => tables.map(|tables| (kept, tables)),
        Err(error) => Err(error),
    };
    result.map_err(|error: CompileError| error.with_contributors(policy, Some(&cut)))
}

impl Fixed {
    /// Compiles everything but the addresses; the classes' rows and columns beside it.
    fn new(
        policy: &Policy,
        environment: &Environment,
        cut: &mut Cut,
        options: Options,
    ) -> Result<(Self, Places), CompileError> {
        let limit = options.limit.min(MAX_LIMIT);
        let mut lines = Lines::new(limit);
        lines.reserve(Section::Header, 2)?;
        let services = services::build(&policy.rules, &mut lines)?;
        if policy.rules.len() >= MANY_RULES {
            lines.leave_room();
        }
        let (rules, limits) = records::rules(policy, environment, &mut lines)?;
        let mut axes = Axes::new(policy);
        let places = axes.place(&cut.classes);
        axes.foresee(policy, &mut cut.classes, choice::cells_within(limit));
        let (link, ra_roles) = header::link_words(&policy.link, environment);
        let mut header = SetHeader {
            magic: SET_MAGIC,
            abi: ABI_VERSION,
            protos: services.protos,
            rules,
            limits,
            protect: protect::record(policy, &mut lines)?,
            planes: protect::planes(policy, environment, &mut lines)?,
            link,
            ra_roles,
            rule_count: policy.rules.len() as u32,
            features: records::features(policy),
            ..SetHeader::default()
        };
        let parts = Parts {
            policy,
            axes: &axes,
            services: &services,
        };
        let chosen = parts.write(options.choice, limit, &mut lines, &mut header)?;
        let mut stats = Stats {
            source_rows: axes.rows.len(),
            destination_columns: axes.columns.len(),
            rules: policy.rules.len(),
            limits: policy.rules.iter().map(|rule| rule.limits.len()).sum(),
            unknown_roles: header::unknown_roles(policy, environment),
            ..Stats::default()
        };
        chosen.note(&services, &mut stats);
        let settings = Settings {
            window_loose: policy.tcp.window_loose,
            pickup: policy.tcp.pickup,
        };
        let fixed = Self {
            lines,
            header,
            axes,
            stats,
            settings,
        };
        Ok((fixed, places))
    }

    /// Writes what depends on addresses behind `lines`, which are this part's, and seals the set.
    pub(super) fn finish(
        &self,
        mut lines: Lines,
        (policy, environment): (&Policy, &Environment),
        cut: &Cut,
        places: &Places,
    ) -> Result<TableSet, CompileError> {
        let written = address::write(policy, cut, places, &mut lines)?;
        let header = SetHeader {
            generation: environment.generation,
            lines: lines.len(),
            realms: written.realms.table,
            realm_records: written.realms.records,
            stacks: written.realms.stacks,
            stack_tables: written.realms.stack_tables,
            classes: written.classes,
            class_count: cut.classes.len() as u32,
            ..self.header
        };
        let mut stats = self.stats.clone();
        stats.lines = u64::from(lines.len());
        stats.bytes = u64::from(lines.len()) * LINE_BYTES as u64;
        stats.address_bytes = address::bytes(&lines);
        stats.parts = lines.parts();
        stats.realms = written.realms.count;
        stats.address_classes = cut.classes.len();
        stats.lookup_v6 += 2 * written.realms.v6_lines;
        let mut lines = lines.into_inner();
        header::seal(&mut lines, header);
        Ok(TableSet {
            lines,
            settings: self.settings,
            stats,
        })
    }
}
