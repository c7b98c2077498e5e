//! The sections `tcp:`, `fragments:` and `protect:`.

use fw_common::abi::{LimitKind, ProtectMode, Reason, Screen};
use fw_common::limit::Rate;

use super::fields::{self, Fields};
use super::limits;
use super::units;
use super::zones::Zones;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::keys;
use crate::model::{Fragments, Pickup, Protect, Tcp, Threshold, Throughput, ZoneIndex, ZoneKind};
use crate::yaml::{Node, Value};

const MODES: [&str; 3] = ["drop", "count", "skip"];
const SECOND_NS: u64 = 1_000_000_000;
/// Without a protect section, new flows to a destination and second: TCP, then all others.
const SYN_ABOVE: u64 = 10_000;
const FLOOD_ABOVE: u64 = 100_000;
/// Denied packets of a source and minute, and how long it is banned, seconds.
const SCAN_ABOVE: u64 = 600;
const BAN_S: u32 = 600;
/// Flows of one source: unconfirmed in 34 s, so that a node whose job starts again opens 10,000 at once; and in all.
const HALF_OPEN_CAP: u32 = 16_384;
const FLOWS_CAP: u32 = 65_536;

/// Reads `tcp:`.
pub(super) fn tcp(section: Option<&Node>, findings: &mut Diagnostics) -> Tcp {
    let mut tcp = Tcp::default();
    let Some(fields) = section.and_then(|node| Fields::read(node, "the tcp section", keys::TCP, findings))
    else {
        return tcp;
    };
    if let Some(node) = fields.get("invalid") {
        // What is invalid is dropped; the key says so where a policy wants it said.
        fields::word(node, &["drop"], findings);
    }
    if let Some(node) = fields.get("window") {
        tcp.window_loose = fields::word(node, &["strict", "loose"], findings) == Some("loose");
    }
    if let Some(node) = fields.get("pickup") {
        tcp.pickup = match fields::word(node, &["cold_start", "never", "always"], findings) {
            Some("never") => Pickup::Never,
            Some("always") => Pickup::Always,
            _ => tcp.pickup,
        };
    }
    if let Some(node) = fields.get("cold_start") {
        let seconds = duration(node, findings);
        match tcp.pickup {
            Pickup::ColdStart(default) => tcp.pickup = Pickup::ColdStart(seconds.unwrap_or(default)),
            Pickup::Never | Pickup::Always => findings.push(
                Diagnostic::error(
                    "cold_start",
                    node.span,
                    "`cold_start` has no meaning with this `pickup`",
                )
                .help("write `pickup: cold_start`, or remove `cold_start`"),
            ),
        }
    }
    tcp
}

/// Reads `fragments:`.
pub(super) fn fragments(section: Option<&Node>, findings: &mut Diagnostics) -> Fragments {
    match section.and_then(|node| fields::word(node, &["strict", "pass_early"], findings)) {
        Some("pass_early") => Fragments::PassEarly,
        _ => Fragments::Strict,
    }
}

/// Reads `protect:`.
pub(super) fn read(section: Option<&Node>, zones: &Zones, findings: &mut Diagnostics) -> Protect {
    let mut protect = default();
    let Some(fields) =
        section.and_then(|node| Fields::read(node, "the protect section", keys::PROTECT, findings))
    else {
        return protect;
    };
    screens(&fields, &mut protect, findings);
    let exempt = &mut protect.exempt;
    if let Some(node) = fields.get("syn_flood") {
        flood(
            node,
            "syn_flood",
            &mut protect.syn_flood,
            Some((zones, exempt)),
            findings,
        );
    }
    if let Some(node) = fields.get("udp_flood") {
        flood(node, "udp_flood", &mut protect.udp_flood, None, findings);
    }
    if let Some(node) = fields.get("icmp_flood") {
        flood(node, "icmp_flood", &mut protect.icmp_flood, None, findings);
    }
    if let Some(node) = fields.get("exempt") {
        exempted(node, zones, exempt, findings);
    }
    if let Some(node) = fields.get("scan") {
        scan(node, &mut protect, findings);
    }
    if let Some(node) = fields.get("caps") {
        caps(node, &mut protect, findings);
    }
    protect
}

/// What the table of reasons says.
fn default() -> Protect {
    let threshold = |reason: Reason, units, per_ns| Threshold {
        mode: reason.default_action().mode(),
        rate: Throughput {
            units,
            per_ns,
            burst: units,
            // These numbers make a rate, as the tests of this crate show; the default of a rate admits nothing.
            encoded: Rate::new(units, per_ns, units).unwrap_or_default(),
        },
    };
    Protect {
        screens: Screen::ALL.map(screen_default),
        syn_flood: threshold(Reason::SynProof, SYN_ABOVE, SECOND_NS),
        udp_flood: threshold(Reason::UdpFlood, FLOOD_ABOVE, SECOND_NS),
        icmp_flood: threshold(Reason::IcmpFlood, FLOOD_ABOVE, SECOND_NS),
        scan: threshold(Reason::Scan, SCAN_ABOVE, 60 * SECOND_NS),
        ban_s: BAN_S,
        half_open_cap: HALF_OPEN_CAP,
        flows_cap: FLOWS_CAP,
        exempt: Vec::new(),
    }
}

/// A screen's number is that of a reason, as the tests of this crate show.
fn screen_default(screen: Screen) -> ProtectMode {
    u8::try_from(screen.reason())
        .ok()
        .and_then(Reason::from_number)
        .map_or(ProtectMode::Drop, |reason| reason.default_action().mode())
}

fn mode(node: &Node, findings: &mut Diagnostics) -> Option<ProtectMode> {
    Some(match fields::word(node, &MODES, findings)? {
        "drop" => ProtectMode::Drop,
        "count" => ProtectMode::Count,
        _ => ProtectMode::Skip,
    })
}

/// True for the screens of the key `spoofed`; the others are those of `invalid`.
const fn is_spoofed(screen: Screen) -> bool {
    matches!(screen, Screen::ImpossibleSource | Screen::PlaneMismatch)
}

/// `spoofed` and `invalid` set their groups, `screens` single ones.
fn screens(fields: &Fields<'_>, protect: &mut Protect, findings: &mut Diagnostics) {
    for (key, spoofed) in [("spoofed", true), ("invalid", false)] {
        let Some(mode) = fields.get(key).and_then(|node| mode(node, findings)) else {
            continue;
        };
        for screen in Screen::ALL
            .into_iter()
            .filter(|screen| is_spoofed(*screen) == spoofed)
        {
            protect.screens[screen as usize] = mode;
        }
    }
    let single = fields
        .get("screens")
        .and_then(|node| Fields::read(node, "`screens`", keys::SCREENS, findings));
    let Some(single) = single else { return };
    for (key, own) in keys::SCREENS.iter().zip(&mut protect.screens) {
        if let Some(mode) = single.get(key).and_then(|node| mode(node, findings)) {
            *own = mode;
        }
    }
}

/// A threshold burst is as much as `above` names.
fn whole(_: LimitKind, (units, _): units::UnitsPerNs) -> u64 {
    units
}

fn above(fields: &Fields<'_>, threshold: &mut Threshold, findings: &mut Diagnostics) {
    let burst = fields.get("burst");
    match (fields.get("above"), burst) {
        (Some(node), burst) => {
            if let Some(rate) = limits::throughput(node, burst, LimitKind::NewFlows, whole, findings) {
                threshold.rate = rate;
            }
        }
        (None, Some(burst)) => findings.push(
            Diagnostic::error("missing_key", burst.span, "`burst` needs the key `above`")
                .label("`above` is missing"),
        ),
        (None, None) => {}
    }
    if let Some(mode) = fields.get("mode").and_then(|node| mode(node, findings)) {
        threshold.mode = mode;
    }
}

fn flood(
    node: &Node,
    name: &str,
    threshold: &mut Threshold,
    exempt: Option<(&Zones, &mut Vec<ZoneIndex>)>,
    findings: &mut Diagnostics,
) {
    let known: &[&str] = if exempt.is_some() {
        keys::SYN_FLOOD
    } else {
        keys::FLOOD
    };
    let Some(fields) = Fields::read(node, &format!("`{name}`"), known, findings) else {
        return;
    };
    if let Some(node) = fields.get("per") {
        fields::word(node, &["destination"], findings);
    }
    above(&fields, threshold, findings);
    if let (Some(node), Some((zones, list))) = (fields.get("exempt"), exempt) {
        exempted(node, zones, list, findings);
    }
}

fn exempted(node: &Node, zones: &Zones, list: &mut Vec<ZoneIndex>, findings: &mut Diagnostics) {
    for zone in zones.read_list(node, findings).into_iter().flatten() {
        if zones.list[zone].kind == ZoneKind::Named {
            list.push(zone);
        } else {
            let name = &zones.list[zone].name;
            findings.push(
                Diagnostic::error("exempt", node.span, format!("the zone `{name}` cannot be exempt"))
                    .label("expected zones of the policy")
                    .help("name the zones whose machines are known and trusted not to flood"),
            );
        }
    }
    list.sort_unstable();
    list.dedup();
}

fn scan(node: &Node, protect: &mut Protect, findings: &mut Diagnostics) {
    let Some(fields) = Fields::read(node, "`scan`", keys::SCAN, findings) else {
        return;
    };
    above(&fields, &mut protect.scan, findings);
    if let Some(seconds) = fields.get("ban").and_then(|node| duration(node, findings)) {
        protect.ban_s = seconds;
    }
}

fn caps(node: &Node, protect: &mut Protect, findings: &mut Diagnostics) {
    let Some(fields) = Fields::read(node, "`caps`", keys::CAPS, findings) else {
        return;
    };
    for (key, cap) in [
        ("half_open", &mut protect.half_open_cap),
        ("flows", &mut protect.flows_cap),
    ] {
        let Some(node) = fields.get(key) else { continue };
        if matches!(&node.value, Value::Text { text, .. } if text == "none") {
            *cap = 0;
        } else if let Some(number) = limits::number(node, "a number of flows, or `none`", findings) {
            *cap = number;
        }
    }
}

/// Reads a time of at least a second.
fn duration(node: &Node, findings: &mut Diagnostics) -> Option<u32> {
    let text = fields::text(node, "a time", findings)?;
    match units::duration(text) {
        Ok(seconds) if seconds > 0 => Some(seconds),
        other => {
            let item = Diagnostic::error("bad_time", node.span, format!("`{text}` is no time"))
                .label("expected a time such as 120s, 10m, 2h or 7d");
            findings.push(match other {
                Err(units::Bad { help: Some(help), .. }) => item.help(help),
                _ => item,
            });
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::default;
    use crate::keys;
    use fw_common::abi::{Reason, Screen};
    use fw_common::limit::Rate;

    #[test]
    fn screens_have_the_names_of_their_reasons_and_stand_in_their_order() {
        for (key, screen) in keys::SCREENS.iter().zip(Screen::ALL) {
            let reason = Reason::from_number(screen.reason() as u8).map(Reason::name);
            assert_eq!(reason, Some(*key));
        }
        assert_eq!(keys::SCREENS.len(), Screen::ALL.len());
    }

    #[test]
    fn the_default_thresholds_are_rates() {
        let protect = default();
        for threshold in [
            protect.syn_flood,
            protect.udp_flood,
            protect.icmp_flood,
            protect.scan,
        ] {
            assert_ne!(threshold.rate.encoded, Rate::default());
        }
    }
}
