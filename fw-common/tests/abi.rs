//! The snapshot of the shared layouts: a layout that changes without a new `ABI_VERSION` fails here, because pinned
//! maps of an older agent would be read wrongly.

use std::fmt::Write as _;
use std::mem::{align_of, offset_of, size_of};
use std::path::Path;

use fw_common::abi::{
    ABI_VERSION, ClassRecord, Control, Count, Event, ExtraRecord, Flow, Half, Key4, Key6, Levels, LimitKey,
    LimitRecord, Line, MAPS, PortConfig, ProtectRecord, Reason, RuleRecord, Sent, SetHeader, Source,
    SourceKey, V6Tree,
};
use fw_common::fragment::{Datagram, FragmentKey};
use fw_common::pipeline::FlowStat;

macro_rules! layout {
    ($out:ident, $type:ident { $($field:ident),* $(,)? }) => {
        writeln!($out, "{} size {} align {}", stringify!($type), size_of::<$type>(), align_of::<$type>()).unwrap();
        // Names every field, so that a new one must be added here.
        let $type { $($field: _),* } = $type::default();
        $(writeln!($out, "  {} {}", offset_of!($type, $field), stringify!($field)).unwrap();)*
    };
}

#[expect(clippy::too_many_lines, reason = "one list of all layouts")]
fn layouts() -> String {
    let mut out = String::new();
    layout!(
        out,
        Key4 {
            lo,
            hi,
            lo_port,
            hi_port,
            realm,
            proto,
            realm_high
        }
    );
    layout!(
        out,
        Key6 {
            lo,
            hi,
            lo_port,
            hi_port,
            realm,
            proto,
            realm_high
        }
    );
    layout!(
        out,
        Half {
            packets,
            bytes,
            last_seen
        }
    );
    layout!(
        out,
        Sent {
            seq_end,
            ack,
            edge,
            window
        }
    );
    layout!(
        out,
        Flow {
            state,
            generation,
            flags,
            policed,
            half,
            sent,
            created,
            rule,
            src_zone,
            dst_zone,
            answer,
            carried_packets,
            carried_bytes
        }
    );
    layout!(
        out,
        PortConfig {
            ifindex,
            peer_ifindex,
            mode,
            engine,
            link,
            side,
            realm,
            role,
            peer_role,
            pad
        }
    );
    layout!(
        out,
        Control {
            generation,
            flags,
            clock,
            pickup_until,
            events_per_window,
            replies_per_window,
            heartbeat,
            secret,
            presence,
            ports
        }
    );
    layout!(out, Levels { used, room, reserved });
    layout!(out, SourceKey { addr, realm, family });
    layout!(
        out,
        Source {
            window,
            opened,
            flows,
            pad,
            proved_until,
            completed,
            denied,
            banned_until
        }
    );
    layout!(out, LimitKey { limit, realm, a, b });
    layout!(
        out,
        FragmentKey {
            src,
            dst,
            id,
            realm,
            proto,
            family,
            pad
        }
    );
    layout!(
        out,
        Datagram {
            created,
            ranges,
            lock,
            progress,
            end,
            ports,
            first,
            generation,
            rule,
            up,
            seq,
            pad
        }
    );
    layout!(out, Count { packets, bytes });
    layout!(
        out,
        Event {
            time,
            src,
            dst,
            ifindex,
            rule,
            src_zone,
            dst_zone,
            generation,
            len,
            realm,
            sport,
            dport,
            ethertype,
            errno,
            kind,
            reason,
            family,
            proto,
            tcp_flags,
            egress,
            inner_vlan,
            pad,
        }
    );
    layout!(
        out,
        SetHeader {
            magic,
            abi,
            generation,
            lines,
            checksum_lo,
            checksum_hi,
            realms,
            realm_records,
            classes,
            pairs,
            pair_columns,
            protos,
            decision_pages,
            pages_per_pair,
            rules,
            extra,
            ra_roles,
            class_count,
            pair_count,
            rule_count,
            limits,
            protect,
            planes,
            features,
            stacks,
            stack_tables,
            link,
            reserved,
        }
    );
    layout!(
        out,
        ExtraRecord {
            sources,
            source_classes,
            combine,
            stride,
            src_rows,
            dst_rows,
            service_rows,
            source_rows,
            proto_rows,
            atoms,
            default_inside,
            default_outside,
            reserved,
        }
    );
    layout!(
        out,
        V6Tree {
            depth,
            intervals,
            values,
            level0,
            count
        }
    );
    layout!(
        out,
        ClassRecord {
            src_row,
            dst_col,
            zone,
            flags
        }
    );
    layout!(
        out,
        RuleRecord {
            id,
            flags,
            limits,
            until
        }
    );
    layout!(
        out,
        LimitRecord {
            id,
            what,
            mantissa,
            shift,
            burst_lo,
            burst_hi,
            reserved
        }
    );
    layout!(
        out,
        ProtectRecord {
            screens_drop,
            screens_count,
            pass_early,
            half_open_cap,
            flows_cap,
            modes,
            ban_s,
            reserved
        }
    );
    layout!(out, Line { w });
    for map in MAPS {
        writeln!(
            out,
            "map {} {:?} key {} value {}",
            map.name, map.kind, map.key, map.value
        )
        .unwrap();
    }
    for stat in [
        FlowStat::Opened,
        FlowStat::Promoted,
        FlowStat::PromotionWaits,
        FlowStat::EventsSuppressed,
        FlowStat::EventsLost,
        FlowStat::OneWayWaits,
        FlowStat::StaysHalfOpen,
        FlowStat::InsertRetries,
        FlowStat::RepliesSuppressed,
        FlowStat::StateRaces,
    ] {
        writeln!(out, "stat {} {stat:?}", stat as u32).unwrap();
    }
    out
}

/// Numbers and names of the reasons: new ones may come, none may change or go.
fn reasons() -> String {
    let mut out = String::new();
    for reason in Reason::ALL {
        let verdict = if reason.allows() { "pass" } else { "drop" };
        writeln!(out, "{} {} {verdict}", *reason as u8, reason.name()).unwrap();
    }
    out
}

#[test]
fn a_reason_keeps_its_number() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reasons.snapshot");
    let now = reasons();
    let recorded = std::fs::read_to_string(&path).unwrap_or_default();
    for line in recorded.lines() {
        assert!(
            now.lines().any(|other| other == line),
            "the reason `{line}` has changed or is gone"
        );
    }
    if std::env::var_os("DPUFW_BLESS").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    assert!(
        std::env::var_os("DPUFW_BLESS").is_some() || recorded == now,
        "record the new reasons with DPUFW_BLESS=1 cargo test -p fw-common --test abi"
    );
}

#[test]
fn a_layout_changes_only_with_the_version() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/abi.snapshot");
    let now = format!("abi {ABI_VERSION}\n{}", layouts());
    if std::env::var_os("DPUFW_BLESS").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let recorded = std::fs::read_to_string(&path).unwrap_or_default();
    let changed = recorded.lines().skip(1).ne(now.lines().skip(1));
    let same_version = recorded.lines().next() == now.lines().next();
    assert!(
        !(changed && same_version),
        "a shared layout changed but ABI_VERSION is still {ABI_VERSION}: raise it in fw-common/src/abi/mod.rs, then \
         record the new layout with DPUFW_BLESS=1 cargo test -p fw-common --test abi\n{now}"
    );
    assert!(
        !changed && same_version,
        "record the new layout with DPUFW_BLESS=1 cargo test -p fw-common --test abi"
    );
}

#[test]
fn a_flow_costs_at_most_256_bytes() {
    // kernel/bpf/hashtab.c: struct htab_elem has 48 bytes in front of the key; a bucket has 16 bytes and there are twice
    // as many as entries when max_entries is just above a power of two.
    let bytes = 48 + size_of::<Key4>() + size_of::<Flow>() + 2 * 16;
    assert!(bytes <= 256, "{bytes}");
}
