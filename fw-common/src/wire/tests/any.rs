//! Any bytes: nothing panics, and what is parsed lies inside of the frame.

use std::vec::Vec;

use proptest::prelude::*;

use super::frames::{Frame, fragment6, join, options6, packet4, packet6, tagged};
use crate::abi::Proto;
use crate::wire::{ETHERNET_SKIP, FIRST, LATER, ethertype, quoted};

/// Protocols and extension headers that the parser knows, and some that it does not.
fn protocol() -> impl Strategy<Value = u8> {
    prop::sample::select(std::vec![
        0, 1, 6, 17, 43, 44, 47, 50, 51, 58, 59, 60, 132, 135, 200
    ])
}

fn frame() -> impl Strategy<Value = Vec<u8>> {
    let bytes = prop::collection::vec(any::<u8>(), 0..120);
    let options = prop::collection::vec(
        prop::sample::select(std::vec![0_u8, 1, 2, 3, 4, 7, 131, 137]),
        0..10,
    );
    let fragment = prop_oneof![4 => Just(0), 1 => any::<u32>(), 1 => Just(0x2000)];
    let chain = prop::collection::vec((protocol(), 0..5_u8, any::<u16>()), 0..7);
    (
        bytes,
        options,
        fragment,
        protocol(),
        chain,
        any::<bool>(),
        0..3_usize,
        0..400_usize,
    )
        .prop_map(|(bytes, options, fragment, proto, chain, six, tags, cut)| {
            let tags = &[(ethertype::QINQ, 3), (ethertype::VLAN, 4)][..tags];
            let mut frame = if six {
                let mut payload = bytes;
                let mut next = proto;
                for (kind, units, offset) in chain {
                    let header = match kind {
                        44 => fragment6(next, offset & 0xfff8, offset & 1 != 0),
                        _ => options6(next, 1 + units),
                    };
                    payload = join(&[&header, &payload]);
                    next = kind;
                }
                tagged(tags, ethertype::IPV6, &packet6(next, &payload))
            } else {
                let options = [options.as_slice(), &[0; 3]].concat();
                let whole = options.len() / 4 * 4;
                tagged(
                    tags,
                    ethertype::IPV4,
                    &packet4(&options[..whole], fragment, proto, &bytes),
                )
            };
            frame.truncate(if cut < 100 { cut } else { frame.len() });
            frame
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5000))]

    #[test]
    fn what_is_parsed_lies_inside_of_the_frame(frame in frame()) {
        let (result, mut m) = Frame::new(&frame).on_port(0);
        if result.is_ok() && m.family != 0 {
            prop_assert!(m.l4_offset + m.l4_len <= m.len, "{} + {} > {}", m.l4_offset, m.l4_len, m.len);
            prop_assert!(m.l4_offset > m.l3_offset && m.l3_offset >= m.l3 * 4 - ETHERNET_SKIP);
            prop_assert!(m.payload <= m.l4_len);
            match m.fragment {
                0 => prop_assert_eq!((m.frag_offset, m.frag_len, m.frag_more), (0, 0, 0)),
                FIRST => prop_assert!(m.frag_offset == 0 && m.frag_more == 1 && m.frag_len % 8 == 0),
                LATER => {
                    prop_assert!(m.frag_offset >= 8 && m.frag_offset % 8 == 0 && m.frag_len > 0);
                    prop_assert_eq!((m.sport, m.dport, m.selector, m.tcp_flags), (0, 0, 0, 0));
                }
                other => prop_assert!(false, "fragment {other}"),
            }
            prop_assert!(m.frag_offset + m.frag_len <= 65_535);
        }
        // Whatever was parsed, a quote is read from inside of the frame or not at all.
        let proto = m.proto;
        if result.is_ok() && (proto == Proto::ICMP || proto == Proto::ICMPV6) && quoted(Frame::new(&frame), &mut m) == 0 {
            prop_assert!(m.l4_offset + 8 <= m.len);
        }
    }
}
