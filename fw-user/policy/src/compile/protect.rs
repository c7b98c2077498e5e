//! The protect record and the plane table.

use fw_common::abi::{ClassFlags, ProtectMode, ProtectRecord, threshold};

use super::CompileError;
use super::lines::{Lines, Section};
use crate::Environment;
use crate::model::{Fragments, Plane, Policy};

/// Planes by number, 0 included: as many as [`ClassFlags::plane`] can name.
const PLANES: u64 = ClassFlags::plane(u32::MAX) as u64 + 1;
/// The role that no port has: a plane that is bound only to ports which this machine has not is bound nowhere, and not
/// everywhere.
const NO_PORT: u32 = 1 << 31;

/// Writes the protect record; returns its line.
pub(super) fn record(policy: &Policy, lines: &mut Lines) -> Result<u32, CompileError> {
    let protect = &policy.protect;
    let mut modes = [0; threshold::COUNT as usize];
    modes[threshold::SYN as usize] = protect.syn_flood.mode as u32;
    modes[threshold::UDP as usize] = protect.udp_flood.mode as u32;
    modes[threshold::ICMP as usize] = protect.icmp_flood.mode as u32;
    modes[threshold::SCAN as usize] = protect.scan.mode as u32;
    let record = ProtectRecord {
        screens_drop: protect.screen_bits(ProtectMode::Drop),
        screens_count: protect.screen_bits(ProtectMode::Count),
        pass_early: u32::from(policy.fragments == Fragments::PassEarly),
        half_open_cap: protect.half_open_cap,
        flows_cap: protect.flows_cap,
        modes,
        ban_s: protect.ban_s,
        reserved: [0; 6],
    };
    let line = lines.reserve(Section::Protect, 1)?;
    let words = [
        record.screens_drop,
        record.screens_count,
        record.pass_early,
        record.half_open_cap,
        record.flows_cap,
    ];
    lines.set_words(line, 0, &words);
    lines.set_words(line, 5, &record.modes);
    lines.set(line, 9, record.ban_s);
    Ok(line)
}

/// Writes the roles that each plane is bound to; returns the table's line.
pub(super) fn planes(
    policy: &Policy,
    environment: &Environment,
    lines: &mut Lines,
) -> Result<u32, CompileError> {
    let table = lines.reserve_words(Section::Protect, PLANES)?;
    for (number, plane) in (1_u32..).zip(&policy.planes) {
        lines.set_word(table, number, role_bits(plane, &environment.roles));
    }
    Ok(table)
}

fn role_bits(plane: &Plane, roles: &[String]) -> u32 {
    if plane.roles.is_empty() {
        return 0;
    }
    let bound = roles.iter().enumerate().filter(|(_, role)| plane.uses(role));
    let bits = bound.fold(0, |bits, (number, _)| bits | 1_u32 << number);
    if bits == 0 { NO_PORT } else { bits }
}
