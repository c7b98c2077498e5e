//! TCP flag combinations: valid, screened, or neither.

use super::frames::{good, ipv4, refused, tcp};
use crate::abi::{Proto, Reason, Screen};
use crate::wire::transport::tcp_screens;
use crate::wire::{tcp_flag, tcp_flags_valid};

#[test]
fn only_flag_combinations_that_stacks_send_are_valid() {
    use tcp_flag::{ACK, FIN, PSH, RST, SYN, URG};
    for good in [
        SYN,
        SYN | ACK,
        RST,
        RST | ACK,
        FIN | ACK,
        ACK,
        ACK | PSH,
        FIN | ACK | PSH | URG,
        SYN | 0xc0,
    ] {
        assert!(tcp_flags_valid(good), "{good:#x}");
    }
    for bad in [
        0,
        FIN,
        PSH,
        URG,
        SYN | FIN,
        SYN | RST,
        FIN | RST | ACK,
        FIN | PSH | URG,
        SYN | ACK | FIN,
        0x3f,
    ] {
        assert!(!tcp_flags_valid(bad), "{bad:#x}");
    }
}

#[test]
fn each_screen_names_its_combinations() {
    use tcp_flag::{ACK, FIN, PSH, RST, SYN, URG};
    for (flags, screens) in [
        (0, &[Screen::TcpNull][..]),
        (0xc0, &[Screen::TcpNull]),
        (FIN | PSH | URG, &[Screen::TcpXmas, Screen::TcpFinNoAck]),
        (FIN | PSH | URG | ACK, &[]),
        (FIN | URG, &[Screen::TcpFinNoAck]),
        (SYN | FIN, &[Screen::TcpSynFin, Screen::TcpFinNoAck]),
        (SYN | FIN | ACK, &[Screen::TcpSynFin]),
        (SYN | RST, &[Screen::TcpSynRst]),
        (SYN | RST | ACK, &[Screen::TcpSynRst]),
        (FIN, &[Screen::TcpFinNoAck]),
        (FIN | ACK, &[]),
        (0x3f, &[Screen::TcpSynFin, Screen::TcpSynRst]),
        (PSH, &[]),
        (ACK, &[]),
    ] {
        let bits = screens.iter().fold(0, |bits, screen| bits | screen.bit());
        assert_eq!(tcp_screens(flags), bits, "{flags:#x}");
    }
}

#[test]
fn what_no_screen_names_is_a_bad_segment_and_what_one_names_goes_on() {
    for flags in 0..=255 {
        let frame = ipv4(Proto::TCP, &tcp(flags));
        let screens = tcp_screens(flags);
        if screens == 0 && !tcp_flags_valid(flags) {
            assert_eq!(refused(&frame), Reason::BadTcp, "{flags:#x}");
        } else {
            let m = good(&frame);
            assert_eq!((m.screens, m.tcp_flags), (screens, flags));
            assert!(screens == 0 || !tcp_flags_valid(flags), "{flags:#x}");
        }
    }
    assert_eq!(refused(&ipv4(Proto::TCP, &tcp(tcp_flag::PSH))), Reason::BadTcp);
}
