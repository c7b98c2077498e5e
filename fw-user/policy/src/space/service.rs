//! The three axes of a service: protocol, source port, selector; and which packets there can be.
//!
//! Protocols have places on their axis: those with ports, those with messages, the rest. Of ICMP only echo requests open a
//! flow, and echo replies pass where a rule with `track: false` lets them; all other messages never meet a rule, nor does
//! IGMP: the link section and the flows decide.

use fw_common::abi::Proto;

use super::ranges::{Range, Ranges};
use crate::model::ServiceMatch;
use crate::names;

/// Protocols whose place on the axis is not their number's.
const FIRST: [u8; 5] = [Proto::TCP, Proto::UDP, Proto::SCTP, Proto::ICMP, Proto::ICMPV6];
/// Places of protocols with ports.
pub(crate) const WITH_PORTS: Range = (0, 2);
/// Places of protocols with messages.
pub(crate) const WITH_MESSAGES: Range = (3, 4);
/// Places of all others; IGMP, the last, has none.
const PLAIN: Range = (5, 254);

/// A part of a service that is a box.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Piece {
    /// Places of protocols.
    pub(crate) protos: Ranges,
    /// Source ports; 0 for protocols without ports.
    pub(crate) sources: Ranges,
    /// Destination ports, messages, 0 for protocols without either.
    pub(crate) selectors: Ranges,
}

/// The protocol at a place.
pub(crate) fn protocol(place: u32) -> u8 {
    if let Some(first) = FIRST.get(place as usize) {
        return *first;
    }
    let rest = (0_u8..=255).filter(|proto| *proto != Proto::IGMP && !FIRST.contains(proto));
    // A place behind the last protocol does not occur.
    rest.clone()
        .nth(place as usize - FIRST.len())
        .unwrap_or(Proto::IGMP)
}

/// The place of a protocol; `None`: IGMP, which no rule meets.
pub(crate) fn place(proto: u8) -> Option<u32> {
    if let Some(place) = FIRST.iter().position(|first| *first == proto) {
        return Some(place as u32);
    }
    if proto == Proto::IGMP {
        return None;
    }
    let before = FIRST.iter().chain([&Proto::IGMP]).filter(|first| **first < proto);
    Some(FIRST.len() as u32 + u32::from(proto) - before.count() as u32)
}

/// Messages of a protocol that are packets here: requests, and replies where `answers`.
pub(crate) fn messages(proto: u8, answers: bool) -> Ranges {
    let request = u32::from(names::echo_request(proto)) << 8;
    let reply = if proto == Proto::ICMPV6 { 129 << 8 } else { 0 };
    let mut parts = vec![(request, request | 0xff)];
    if answers {
        parts.push((reply, reply | 0xff));
    }
    Ranges::union(parts)
}

/// What of a service can be a packet, as boxes. Matches that differ in their selectors only are one.
pub(crate) fn pieces(services: &[ServiceMatch], answers: bool) -> Vec<Piece> {
    let mut parts: Vec<(Range, Range, Range)> = Vec::new();
    for found in services {
        let protos = match found.proto {
            None => (0, PLAIN.1),
            Some(proto) => match place(proto) {
                Some(place) => (place, place),
                None => continue,
            },
        };
        let sources = (u32::from(found.src_lo), u32::from(found.src_hi));
        let selectors = (u32::from(found.lo), u32::from(found.hi));
        parts.extend(clip(protos, WITH_PORTS).map(|protos| (protos, sources, selectors)));
        if sources.0 > 0 {
            continue;
        }
        for proto in clip(protos, WITH_MESSAGES)
            .into_iter()
            .flat_map(|(from, to)| from..=to)
        {
            let wanted = Ranges::union(vec![selectors]).intersection(&messages(protocol(proto), answers));
            let messages = wanted.as_slice().iter();
            parts.extend(messages.map(|selectors| ((proto, proto), (0, 0), *selectors)));
        }
        if selectors.0 == 0 {
            parts.extend(clip(protos, PLAIN).map(|protos| (protos, (0, 0), (0, 0))));
        }
    }
    parts.sort_unstable();
    parts.dedup();
    let groups = parts.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1));
    groups
        .map(|group| Piece {
            protos: Ranges::union(vec![group[0].0]),
            sources: Ranges::union(vec![group[0].1]),
            selectors: Ranges::union(group.iter().map(|part| part.2).collect()),
        })
        .collect()
}

/// Everything that can be a packet.
pub(crate) fn universe(answers: bool) -> Vec<Piece> {
    pieces(&[ServiceMatch::ALL], answers)
}

fn clip(a: Range, b: Range) -> Option<Range> {
    let both = (a.0.max(b.0), a.1.min(b.1));
    (both.0 <= both.1).then_some(both)
}

#[cfg(test)]
mod tests {
    use fw_common::abi::Proto;

    use super::super::ranges::has;
    use super::{pieces, place, protocol};
    use crate::model::ServiceMatch;

    #[test]
    fn places_are_protocols() {
        let mut seen = [false; 255];
        for proto in 0..=255 {
            let Some(place) = place(proto) else {
                assert_eq!(proto, Proto::IGMP);
                continue;
            };
            assert_eq!(protocol(place), proto);
            assert!(!std::mem::replace(&mut seen[place as usize], true), "{proto}");
        }
    }

    #[test]
    fn pieces_hold_what_the_matches_hold() {
        let lists = [
            vec![ServiceMatch::ALL],
            vec![
                ServiceMatch::selectors(6, 22, 22),
                ServiceMatch::selectors(6, 80, 90),
            ],
            vec![
                ServiceMatch::protocol(1),
                ServiceMatch::selectors(58, 0x8000, 0x8000),
            ],
            vec![ServiceMatch {
                src_lo: 53,
                src_hi: 53,
                ..ServiceMatch::protocol(17)
            }],
            vec![ServiceMatch::protocol(47), ServiceMatch::protocol(2)],
        ];
        for list in lists {
            let pieces = pieces(&list, false);
            for proto in (0..=255).filter(|proto| *proto != Proto::IGMP) {
                let place = place(proto).expect("a place");
                let (ports, selectors): (&[u16], &[u16]) = match proto {
                    6 | 17 | 132 => (&[0, 52, 53, 54, 65535], &[0, 21, 22, 23, 79, 80, 90, 91, 65535]),
                    1 => (&[0], &[0x800, 0x8ff]),
                    58 => (&[0], &[0x8000, 0x80ff]),
                    _ => (&[0], &[0]),
                };
                for (port, selector) in ports
                    .iter()
                    .flat_map(|port| selectors.iter().map(move |s| (*port, *s)))
                {
                    let expected = list.iter().any(|found| found.holds(proto, selector, port));
                    let found = pieces.iter().any(|piece| {
                        has(piece.protos.as_slice(), place)
                            && has(piece.sources.as_slice(), u32::from(port))
                            && has(piece.selectors.as_slice(), u32::from(selector))
                    });
                    assert_eq!(found, expected, "{list:?} {proto} {port} {selector}");
                }
            }
        }
    }
}
