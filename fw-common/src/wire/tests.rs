//! Flag combinations and window arithmetic; whole frames are tested with the pipeline.

use super::{tcp_flag, tcp_flags_valid};

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
