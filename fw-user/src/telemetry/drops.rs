//! Denied and reported packets as people and machines read them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fw_common::abi::{Event, EventKind, Ip6, Proto, Reason};
use jiff::Timestamp;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::flow::endpoint;
use super::{Names, Realm, WallClock, proto_name};

/// Why a packet is reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum RecordKind {
    /// It was dropped
    #[default]
    Drop,
    /// A rule with `log: true` matched
    Log,
    /// A rule with `audit: true` would have denied it; it was let through
    Audit,
    /// A screen in mode `count` would have dropped it
    Noted,
}

impl RecordKind {
    const fn new(number: u8) -> Option<Self> {
        match number {
            n if n == EventKind::Drop as u8 => Some(Self::Drop),
            n if n == EventKind::Log as u8 => Some(Self::Log),
            n if n == EventKind::Audit as u8 => Some(Self::Audit),
            n if n == EventKind::Noted as u8 => Some(Self::Noted),
            _ => None,
        }
    }
}

/// One denied or reported packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropRecord {
    /// Why it is reported.
    pub kind: RecordKind,
    /// When, wall clock.
    pub time: Timestamp,
    /// 4, 6, or 0 where no IP header was reached.
    pub family: u8,
    /// Source; none where no IP header was reached.
    pub src: Option<IpAddr>,
    /// Destination.
    pub dst: Option<IpAddr>,
    /// Protocol name, or number; none where no IP header was reached.
    pub proto: Option<String>,
    /// Source port, or the identifier of an ICMP echo; else 0.
    pub sport: u16,
    /// Destination port; else 0.
    pub dport: u16,
    /// ICMP type.
    pub icmp_type: Option<u8>,
    /// ICMP code.
    pub icmp_code: Option<u8>,
    /// TCP flags.
    pub tcp_flags: Option<String>,
    /// True if it is a fragment without the header that has ports or type.
    pub fragment: bool,
    /// Ethernet type, as a number.
    pub ethertype: u16,
    /// The source's most specific zone.
    pub src_zone: Option<String>,
    /// The destination's most specific zone.
    pub dst_zone: Option<String>,
    /// The rule that decided, `default`, or none where no rule was asked.
    pub rule: Option<String>,
    /// Machine name of the reason.
    pub reason: String,
    /// The reason as a sentence.
    pub sentence: String,
    /// Errno of the table that refused a flow; else 0.
    pub errno: u16,
    /// The interface, or `#index` where it has gone.
    pub interface: String,
    /// True if this machine was sending it.
    pub egress: bool,
    /// Bytes of the frame.
    pub len: u32,
    /// Realm of the port, 0..=15.
    pub realm: u8,
    /// VLAN id; 0: untagged.
    pub vlan: u16,
    /// Of two tags the inner VLAN id; else 0.
    pub inner_vlan: u16,
    /// Generation of the policy that was in force.
    pub generation: u32,
}

impl DropRecord {
    /// Reads an event. `None` if this version does not know its kind or reason, or they contradict each other: the record
    /// is ignored, not trusted.
    #[must_use]
    pub fn new(event: &Event, interface: String, names: &Names, clock: &WallClock) -> Option<Self> {
        let kind = RecordKind::new(event.kind)?;
        // What an event of another kind than a drop tells is what would have happened, or what matched: either may be.
        let fits = |reason: &Reason| kind != RecordKind::Drop || !reason.allows();
        let reason = Reason::from_number(event.reason).filter(fits)?;
        let (realm, fragment) = (Realm::new(event.realm), is_fragment(reason));
        let ip = |words: [u32; 4]| match event.family {
            4 => Some(IpAddr::V4(Ipv4Addr::from_bits(words[0]))),
            6 => Some(IpAddr::V6(Ipv6Addr::from_bits(Ip6(words).to_bits()))),
            _ => None,
        };
        let proto = matches!(event.family, 4 | 6).then_some(event.proto);
        let icmp = proto.is_some_and(|proto| proto == Proto::ICMP || proto == Proto::ICMPV6);
        let [icmp_type, icmp_code] = event.dport.to_be_bytes();
        Some(Self {
            kind,
            time: clock.at(event.time),
            family: event.family & 7,
            src: ip(event.src),
            dst: ip(event.dst),
            proto: proto.map(proto_name),
            sport: event.sport,
            dport: if icmp { 0 } else { event.dport },
            icmp_type: (icmp && !fragment).then_some(icmp_type),
            icmp_code: (icmp && !fragment).then_some(icmp_code),
            tcp_flags: (proto == Some(Proto::TCP) && !fragment).then(|| tcp_flags(event.tcp_flags)),
            fragment,
            ethertype: event.ethertype,
            src_zone: names.zone(event.src_zone),
            dst_zone: names.zone(event.dst_zone),
            rule: match (event.rule, reason) {
                (0, Reason::DenyDefault | Reason::RejectDefault) => Some("default".to_owned()),
                (0, _) => None,
                (id, _) => Some(names.rule(id)),
            },
            reason: reason.name().to_owned(),
            sentence: reason.sentence().to_owned(),
            errno: event.errno,
            interface,
            egress: event.egress != 0,
            len: event.len,
            realm: realm.port,
            vlan: realm.vlan,
            inner_vlan: event.inner_vlan,
            generation: event.generation,
        })
    }

    fn what(&self) -> String {
        let Some((src, dst)) = self.src.zip(self.dst) else {
            return format!("ethertype 0x{:04x}", self.ethertype);
        };
        let proto = self.proto.as_deref().unwrap_or("-");
        let mut text = format!(
            "{proto} {} -> {}",
            endpoint(src, self.sport),
            endpoint(dst, self.dport)
        );
        if let Some((icmp_type, code)) = self.icmp_type.zip(self.icmp_code) {
            text = format!("{proto} {src} -> {dst} type {icmp_type} code {code}");
        }
        if let Some(flags) = &self.tcp_flags {
            text = format!("{text} [{flags}]");
        }
        if self.fragment {
            text += " fragment";
        }
        text
    }
}

/// One line of text.
impl fmt::Display for DropRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zone = |zone: &Option<String>| zone.clone().unwrap_or_else(|| "-".to_owned());
        let way = if self.egress { "out of" } else { "in by" };
        write!(
            f,
            "{} {} ({} -> {}) {way} {}",
            self.time,
            self.what(),
            zone(&self.src_zone),
            zone(&self.dst_zone),
            self.interface
        )?;
        f.write_str(&Realm::tags(self.vlan, self.inner_vlan))?;
        match self.rule.as_deref() {
            Some("default") => f.write_str(", default")?,
            Some(rule) => write!(f, ", rule {rule}")?,
            None => {}
        }
        f.write_str(match self.kind {
            RecordKind::Drop => "",
            RecordKind::Log => ", logged",
            RecordKind::Audit => ", audited",
            RecordKind::Noted => ", counted only",
        })?;
        write!(f, ": {} ({}", self.sentence, self.reason)?;
        if self.errno != 0 {
            write!(
                f,
                ", errno {} {:?}",
                self.errno,
                Errno::from_raw(self.errno.into())
            )?;
        }
        f.write_str(")")
    }
}

/// True for the reasons of fragments, whose ports and type nobody knows.
const fn is_fragment(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::FragmentTiny
            | Reason::FragmentBad
            | Reason::FragmentOverrun
            | Reason::FragmentOverlap
            | Reason::FragmentRanges
            | Reason::FragmentEarly
            | Reason::FragmentDenied
            | Reason::FragmentDuplicate
            | Reason::FragmentEarlyPass
            | Reason::FragmentPass
    )
}

/// Names of the flags that are set, as in RFC 9293 section 3.1.
fn tcp_flags(bits: u8) -> String {
    const FLAGS: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
    let set = FLAGS
        .iter()
        .enumerate()
        .filter(|(bit, _)| bits & (1 << bit) != 0)
        .map(|(_, name)| *name);
    let set: Vec<_> = set.collect();
    if set.is_empty() {
        "none".to_owned()
    } else {
        set.join(",")
    }
}

#[cfg(test)]
mod tests {
    use fw_common::abi::{Event, EventKind, Reason};

    use super::DropRecord;
    use crate::telemetry::{Kind, Names, WallClock};

    fn clock() -> WallClock {
        WallClock::fixed(0, "2026-03-01T10:00:00Z".parse().unwrap())
    }

    fn event(reason: Reason) -> Event {
        Event {
            src: [0x0a00_0001, 0, 0, 0],
            dst: [0x0a00_0002, 0, 0, 0],
            sport: 4000,
            dport: 22,
            family: 4,
            proto: 6,
            tcp_flags: 2,
            kind: EventKind::Drop as u8,
            reason: reason as u8,
            ..Event::default()
        }
    }

    fn text(event: &Event) -> String {
        let mut names = Names::default();
        names.add(Kind::Rule, [(5, "no_bmc")]).unwrap();
        DropRecord::new(event, "up0".to_owned(), &names, &clock())
            .unwrap()
            .to_string()
    }

    #[test]
    fn a_denied_packet_names_default_or_rule_and_the_sentence() {
        let line = text(&event(Reason::DenyDefault));
        assert_eq!(
            line,
            "2026-03-01T10:00:00Z tcp 10.0.0.1:4000 -> 10.0.0.2:22 [SYN] (- -> -) in by up0, default: \
             No rule of the policy allows this flow, and the default is to deny. (deny_default)"
        );
        let line = text(&Event {
            rule: 5,
            ..event(Reason::DenyRule)
        });
        assert!(line.contains(", rule no_bmc: "), "{line}");
        assert!(text(&event(Reason::TcpNoFlow)).contains("in by up0: A TCP segment"));
    }

    #[test]
    fn an_icmp_packet_shows_type_and_code() {
        let line = text(&Event {
            proto: 1,
            dport: 0x0800,
            ..event(Reason::DenyDefault)
        });
        assert!(line.contains("icmp 10.0.0.1 -> 10.0.0.2 type 8 code 0"), "{line}");
    }

    #[test]
    fn a_fragment_has_no_type_and_no_flags() {
        let fragment = |proto| Event {
            proto,
            sport: 0,
            dport: 0,
            tcp_flags: 0,
            ..event(Reason::FragmentEarly)
        };
        for proto in [1, 6] {
            let line = text(&fragment(proto));
            assert!(line.contains("10.0.0.1 -> 10.0.0.2 fragment (- -> -)"), "{line}");
        }
    }

    #[test]
    fn a_table_that_refused_says_why() {
        let line = text(&Event {
            errno: 12,
            ..event(Reason::TableError)
        });
        assert!(line.ends_with("(table_error, errno 12 ENOMEM)"), "{line}");
        let line = text(&Event {
            errno: 60_000,
            ..event(Reason::TableError)
        });
        assert!(line.contains("errno 60000"), "{line}");
    }

    #[test]
    fn a_record_says_why_it_was_made() {
        let kind = |kind: EventKind, reason| Event {
            kind: kind as u8,
            rule: 5,
            realm: 101,
            ..event(reason)
        };
        let line = text(&kind(EventKind::Log, Reason::Rule));
        assert!(
            line.contains("by up0 vlan 101, rule no_bmc, logged: A rule"),
            "{line}"
        );
        let line = text(&kind(EventKind::Audit, Reason::Audit));
        assert!(line.contains(", audited: A rule with `audit: true`"), "{line}");
        let line = text(&kind(EventKind::Noted, Reason::Land));
        assert!(
            line.contains(", counted only: ") && line.ends_with("(land)"),
            "{line}"
        );
    }

    #[test]
    fn hostile_records_are_ignored_or_shown_but_never_crash() {
        let ignored = [
            Event {
                kind: 99,
                ..event(Reason::DenyDefault)
            },
            Event {
                reason: 255,
                ..event(Reason::DenyDefault)
            },
            Event {
                reason: Reason::Established as u8,
                ..event(Reason::DenyDefault)
            },
        ];
        for event in &ignored {
            assert_eq!(
                DropRecord::new(event, String::new(), &Names::default(), &clock()),
                None
            );
        }
        for family in 0..=u8::MAX {
            for proto in [0, 1, 6, 58, 255] {
                let ones = Event {
                    family,
                    proto,
                    time: u64::MAX,
                    src: [u32::MAX; 4],
                    realm: u32::MAX,
                    inner_vlan: u16::MAX,
                    errno: u16::MAX,
                    ..event(Reason::BadIpv4)
                };
                assert!(!text(&ones).is_empty());
            }
        }
    }
}
