//! What an ICMP selector means, for every type; and which TCP options are worth parsing.

use super::frames::{good, ipv4, join, tcp};
use crate::abi::Proto;
use crate::wire::{echo_request, icmp_error, icmpv6_is_link, is_echo, tcp_flag};

#[test]
fn every_type_is_what_its_number_says() {
    for kind in 0..=255_u16 {
        for code in [0, 3, 255] {
            let selector = kind << 8 | code;
            assert_eq!(is_echo(Proto::ICMP, selector), matches!(kind, 0 | 8), "{kind}");
            assert_eq!(
                is_echo(Proto::ICMPV6, selector),
                matches!(kind, 128 | 129),
                "{kind}"
            );
            assert_eq!(
                icmp_error(Proto::ICMP, selector),
                matches!(kind, 3 | 11 | 12),
                "{kind}"
            );
            assert_eq!(
                icmp_error(Proto::ICMPV6, selector),
                matches!(kind, 1..=4),
                "{kind}"
            );
            assert_eq!(
                icmpv6_is_link(selector),
                matches!(kind, 130..=137 | 143),
                "{kind}"
            );
        }
    }
    assert_eq!(
        (echo_request(Proto::ICMP), echo_request(Proto::ICMPV6)),
        (8 << 8, 128 << 8)
    );
}

#[test]
fn a_timestamp_alone_is_not_parsed() {
    let stamp = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
    let other = [1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2];
    for (options, worth) in [
        (&[][..], 0),
        (&stamp[..], 0),
        (&other[..], 12),
        (&[1, 1, 8, 10][..], 4),
        (&[&stamp[..], &[1, 1, 1, 1]].concat(), 16),
    ] {
        let mut header = tcp(tcp_flag::ACK);
        header[12] = ((20 + options.len()) as u8 / 4) << 4;
        let m = good(&ipv4(Proto::TCP, &join(&[&header, options])));
        assert_eq!((m.tcp_options, m.payload), (worth, 0), "{options:?}");
    }
}
