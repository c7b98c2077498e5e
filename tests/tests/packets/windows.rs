//! TCP windows, by direction: scaling, selective acknowledgements, probes, and connections that wrap.

use fw_common::abi::Reason::{Established, Rule, TcpBadAck, TcpInvalid, TcpNoFlow, TcpOutOfWindow};
use fw_common::tcp::State;
use fw_tests::packet::Packet;

use crate::case::{Case, Connection, Net};

/// Options of a SYN: maximum segment size, window scale, selective acknowledgements permitted.
fn syn_options(shift: u8) -> Vec<u8> {
    vec![2, 4, 5, 180, 1, 3, 3, shift, 1, 1, 4, 2]
}

/// A selective acknowledgement of `from..to` (RFC 2018 section 3).
fn sack(from: u32, to: u32) -> Vec<u8> {
    [&[1, 1, 5, 10][..], &from.to_be_bytes(), &to.to_be_bytes()].concat()
}

/// A timestamp as RFC 7323 appendix A recommends it.
const TIMESTAMP: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];

/// A handshake with window scales (`None`: the side does not know the option); the windows of the SYNs are 65,535.
pub fn scaled(c: &Connection, case: Case, shifts: [Option<u8>; 2]) -> Case {
    let options = |shift: Option<u8>| shift.map_or_else(|| vec![2, 4, 5, 180], syn_options);
    case.outer(c.c("S", 1000, 0).tcp_options(&options(shifts[0])), Rule)
        .inner(
            c.s("SA", 5000, 1001).tcp_options(&options(shifts[1])),
            Established,
        )
        .outer(c.c("A", 1001, 5001).window(1000), Established)
        .inner(c.s("A", 5001, 1001).window(1000), Established)
}

/// A handshake in which both sides offer `window` bytes.
fn offering(c: &Connection, case: Case, window: u16) -> Case {
    case.outer(c.c("S", 1000, 0).window(window), Rule)
        .inner(c.s("SA", 5000, 1001).window(window), Established)
        .outer(c.c("A", 1001, 5001).window(window), Established)
}

pub fn cases(net: &Net) -> Vec<Case> {
    let c = net.connection(80);
    [
        bounds(&c),
        acknowledgements(&c),
        scales(&c),
        selective(&c),
        probes(&c),
        again(&c),
        fast_open(&c),
        reuse(&c),
    ]
    .concat()
}

fn data(packet: Packet, bytes: usize) -> Packet {
    packet.payload(&vec![7; bytes])
}

/// The client may send 1001..66536, the server 5001..70536.
fn bounds(c: &Connection) -> Vec<Case> {
    let case = |name: &str| c.established(Case::new(name));
    vec![
        case("the opener fills the window to its last byte")
            .outer(data(c.c("A", 65_536, 5001), 1000), Established)
            .state(State::Established),
        case("the answering side fills the window to its last byte")
            .inner(data(c.s("A", 69_536, 1001), 1000), Established),
        case("the opener sends beyond the window")
            .outer(data(c.c("A", 66_600, 5001), 10), TcpOutOfWindow)
            .outer(data(c.c("A", 1001, 5001), 10), Established),
        case("the answering side sends beyond the window")
            .inner(data(c.s("A", 70_600, 1001), 10), TcpOutOfWindow)
            .inner(data(c.s("A", 5001, 1001), 10), Established),
        case("half of the sequence space ahead").outer(
            data(c.c("A", 1001_u32.wrapping_add(1 << 31), 5001), 10),
            TcpOutOfWindow,
        ),
        case("a FIN beyond the window closes nothing")
            .outer(c.c("FA", 80_000, 5001), TcpOutOfWindow)
            .inner(c.s("FA", 90_000, 1001), TcpOutOfWindow)
            .state(State::Established),
        case("what was dropped moves no window")
            .outer(data(c.c("A", 66_600, 5001), 10), TcpOutOfWindow)
            .inner(c.s("A", 5001, 66_610), TcpOutOfWindow),
        many(c, Case::new("an old copy, long behind the window"), true)
            .outer(data(c.c("A", 1001, 5001), 1000), TcpOutOfWindow),
        many(
            c,
            Case::new("a retransmission of what was not acknowledged"),
            false,
        )
        .outer(data(c.c("A", 1001, 5001), 1000), Established),
        many(c, Case::new("an old copy from the other direction"), true)
            .inner(c.s("A", 5001, 1001), TcpOutOfWindow)
            .inner(c.s("A", 5001, 1_201_001), Established),
    ]
}

/// The client's numbers go on by 1,200,000, acknowledged each 40,000, or by 40,000 that nobody acknowledges. Of each 40,000
/// bytes the last 1,000 are seen: a test run of TC takes a page at most.
fn many(c: &Connection, case: Case, acknowledged: bool) -> Case {
    let mut case = c.established(case);
    let segments = if acknowledged { 30 } else { 1 };
    for number in 0..segments {
        let from = 1001 + 40_000 * number;
        case = case.outer(data(c.c("A", from + 39_000, 5001), 1000), Established);
        if acknowledged {
            case = case.inner(c.s("A", 5001, from + 40_000), Established);
        }
    }
    case
}

fn acknowledgements(c: &Connection) -> Vec<Case> {
    let case = |name: &str| c.established(Case::new(name));
    let mut old = case("an acknowledgement from long ago");
    for number in 0..30 {
        let from = 5001 + 40_000 * number;
        old = old
            .inner(data(c.s("A", from + 39_000, 1001), 1000), Established)
            .outer(c.c("A", 1001, from + 40_000), Established);
    }
    vec![
        case("the opener acknowledges what was never sent")
            .outer(c.c("A", 1001, 5002), TcpOutOfWindow)
            .outer(c.c("A", 1001, 5001), Established),
        case("the answering side acknowledges what was never sent")
            .inner(c.s("A", 5001, 1002), TcpOutOfWindow)
            .inner(c.s("A", 5001, 1001), Established),
        old.outer(c.c("A", 1001, 5001), TcpOutOfWindow)
            .outer(c.c("A", 1001, 1_205_001), Established),
    ]
}

fn scales(c: &Connection) -> Vec<Case> {
    let case = |name: &str, shifts| scaled(c, Case::new(name), shifts);
    vec![
        case("both scale by 7: 128,000 bytes", [Some(7), Some(7)])
            .inner(data(c.s("A", 105_001, 1001).window(1000), 1000), Established)
            .outer(data(c.c("A", 101_001, 5001).window(1000), 1000), Established)
            .inner(data(c.s("A", 133_101, 1001), 1000), TcpOutOfWindow)
            .outer(data(c.c("A", 129_101, 5001), 1000), TcpOutOfWindow),
        case("each direction has a scale of its own", [Some(0), Some(10)])
            .outer(data(c.c("A", 1_000_001, 5001), 1000), Established)
            .inner(data(c.s("A", 72_001, 1001), 1000), TcpOutOfWindow),
        case("the opener does not scale, so nobody does", [None, Some(7)])
            .inner(data(c.s("A", 105_001, 1001), 1000), TcpOutOfWindow)
            .outer(data(c.c("A", 101_001, 5001), 1000), TcpOutOfWindow),
        case(
            "the answering side does not scale, so nobody does",
            [Some(7), None],
        )
        .inner(data(c.s("A", 105_001, 1001), 1000), TcpOutOfWindow)
        .outer(data(c.c("A", 101_001, 5001), 1000), TcpOutOfWindow),
        case(
            "a shift above 14 counts as 14 (RFC 7323 section 2.3)",
            [Some(200), Some(200)],
        )
        .inner(data(c.s("A", 16_000_001, 1001), 1000), Established)
        .inner(data(c.s("A", 17_000_001, 1001), 1000), TcpOutOfWindow),
        case("timestamps", [Some(7), Some(7)])
            .inner(
                data(c.s("A", 105_001, 1001).tcp_options(&TIMESTAMP), 1000),
                Established,
            )
            .inner(
                data(c.s("A", 205_001, 1001).tcp_options(&TIMESTAMP), 1000),
                TcpOutOfWindow,
            ),
        c.syn(Case::new("the windows of SYNs are not scaled"))
            .inner(
                c.s("SA", 5000, 1001).window(1000).tcp_options(&syn_options(14)),
                Established,
            )
            .outer(data(c.c("A", 3001, 5001), 10), TcpOutOfWindow),
    ]
}

fn selective(c: &Connection) -> Vec<Case> {
    let case = |name: &str, shifts| {
        scaled(c, Case::new(name), shifts)
            .inner(data(c.s("A", 5001, 1001), 1000), Established)
            .inner(data(c.s("A", 7001, 1001), 1000), Established)
    };
    let (both, none) = ([Some(0), Some(0)], [None, None]);
    let acknowledge = |from, to| c.c("A", 1001, 6001).tcp_options(&sack(from, to));
    vec![
        case("a block of what came out of order", both).outer(acknowledge(7001, 8001), Established),
        case("a block of what was never sent", both)
            .outer(acknowledge(9001, 9501), TcpOutOfWindow)
            .outer(acknowledge(7001, 8001), Established),
        case(
            "a block where selective acknowledgements were not agreed on counts for nothing",
            none,
        )
        .outer(acknowledge(9001, 9501), Established),
        case("a duplicate block below the acknowledgement (RFC 2883)", both)
            .outer(acknowledge(5001, 5501), Established),
        case("options that lie about their length", both)
            .outer(c.c("A", 1001, 6001).tcp_options(&[5, 200, 0, 0]), Established)
            .outer(c.c("A", 1001, 6001).tcp_options(&[5, 0, 0, 0]), Established),
    ]
}

fn probes(c: &Connection) -> Vec<Case> {
    vec![
        c.established(Case::new(
            "a keep-alive with and without its byte, and the answers",
        ))
        .outer(c.c("A", 1000, 5001), Established)
        .inner(c.s("A", 5001, 1001), Established)
        .outer(data(c.c("A", 1000, 5001), 1), Established)
        .inner(c.s("A", 5000, 1001), Established)
        .outer(c.c("A", 1001, 5001), Established)
        .state(State::Established),
        offering(
            c,
            Case::new("a window of zero is probed (RFC 9293 section 3.8.6.1)"),
            0,
        )
        .outer(data(c.c("A", 1001, 5001), 1), Established)
        .inner(c.s("A", 5001, 1001).window(0), Established)
        .outer(data(c.c("A", 1001, 5001), 1), Established),
        offering(c, Case::new("a window of zero is not filled"), 0)
            .outer(data(c.c("A", 1010, 5001), 10), TcpOutOfWindow)
            .inner(data(c.s("A", 5010, 1001), 10), TcpOutOfWindow),
        offering(c, Case::new("a window opens"), 0)
            .outer(data(c.c("A", 1501, 5001), 10), TcpOutOfWindow)
            .inner(c.s("A", 5001, 1001).window(1000), Established)
            .outer(data(c.c("A", 1501, 5001), 10), Established)
            .outer(data(c.c("A", 2010, 5001), 10), TcpOutOfWindow),
        offering(c, Case::new("a window that shrinks takes nothing back"), 10_000)
            .inner(c.s("A", 5001, 1001).window(100), Established)
            .outer(data(c.c("A", 10_001, 5001), 1000), Established),
    ]
}

/// Every segment of a connection twice.
fn again(c: &Connection) -> Vec<Case> {
    let twice = |case: Case, packet: Packet, inner: bool, first| {
        if inner {
            case.inner(packet.clone(), first).inner(packet, Established)
        } else {
            case.outer(packet.clone(), first).outer(packet, Established)
        }
    };
    let mut case = twice(
        Case::new("every segment is sent twice"),
        c.c("S", 1000, 0),
        false,
        Rule,
    );
    for (packet, inner) in [
        (c.s("SA", 5000, 1001), true),
        (c.c("A", 1001, 5001), false),
        (data(c.c("PA", 1001, 5001), 10), false),
        (data(c.s("PA", 5001, 1011), 10), true),
        (c.c("FA", 1011, 5011), false),
        (c.s("A", 5011, 1012), true),
        (c.s("FA", 5011, 1012), true),
        (c.c("A", 1012, 5012), false),
    ] {
        case = twice(case, packet, inner, Established);
    }
    vec![
        case.state(State::TimeWait),
        c.established(Case::new("a late SYN-ACK is acknowledged again"))
            .inner(c.s("SA", 5000, 1001), Established)
            .outer(c.c("A", 1001, 5001), Established)
            .state(State::Established),
        c.syn(Case::new("an old SYN-ACK of an earlier connection"))
            .inner(c.s("SA", 9000, 0x7000_0000), TcpBadAck)
            .state(State::SynSent)
            .inner(c.s("SA", 5000, 1001), Established)
            .inner(c.s("SA", 9000, 0x7000_0000), TcpBadAck)
            .state(State::SynRecv)
            .outer(c.c("A", 1001, 5001), Established)
            .state(State::Established),
        c.syn(Case::new(
            "a demand for a proof on the way, its reset, and the SYN again",
        ))
        .inner(c.s("SA", 9000, 500), Established)
        .outer(c.c("R", 500, 0), Established)
        .state(State::SynSent)
        .outer(c.c("S", 1000, 0), Established)
        .inner(c.s("SA", 5000, 1001), Established)
        .outer(c.c("A", 1001, 5001), Established)
        .state(State::Established),
        c.established(Case::new(
            "a new SYN-ACK in the middle passes and changes nothing",
        ))
        .inner(c.s("SA", 99_000, 1001), Established)
        .state(State::Established)
        .outer(data(c.c("A", 1001, 5001), 10), Established),
    ]
}

fn fast_open(c: &Connection) -> Vec<Case> {
    let opened = |name: &str| Case::new(name).outer(data(c.c("S", 1000, 0), 100), Rule);
    vec![
        opened("a fast open whose data is acknowledged")
            .inner(c.s("SA", 5000, 1101), Established)
            .outer(c.c("A", 1101, 5001), Established)
            .state(State::Established),
        opened("the answering side sends data before the opener's acknowledgement (RFC 7413)")
            .inner(c.s("SA", 5000, 1101), Established)
            .inner(data(c.s("A", 5001, 1101), 1000), Established)
            .state(State::SynRecv)
            .outer(c.c("A", 1101, 6001), Established)
            .state(State::Established),
        opened("an answer beyond the data of the SYN").inner(c.s("SA", 5000, 1102), TcpBadAck),
        opened("the whole exchange before the opener's acknowledgement, FIN included")
            .inner(c.s("SA", 5000, 1101), Established)
            .inner(data(c.s("FA", 5001, 1101), 1000), Established)
            .outer(c.c("FA", 1101, 6002), Established)
            .inner(c.s("A", 6002, 1102), Established)
            .state(State::TimeWait),
    ]
}

fn reuse(c: &Connection) -> Vec<Case> {
    let closed = |name: &str| {
        c.established(Case::new(name))
            .outer(c.c("FA", 1001, 5001), Established)
            .inner(c.s("FA", 5001, 1002), Established)
            .outer(c.c("A", 1002, 5002), Established)
            .state(State::TimeWait)
    };
    vec![
        closed("a SYN with a higher number opens a new flow out of TIME_WAIT at once")
            .outer(c.c("S", 50_000, 0), Rule)
            .inner(c.s("SA", 80_000, 50_001), Established)
            .outer(c.c("A", 50_001, 80_001), Established),
        closed("one number higher is enough").outer(c.c("S", 1002, 0), Rule),
        closed("a SYN with a lower number passes and opens nothing")
            .outer(c.c("S", 900, 0), Established)
            .state(State::TimeWait)
            .inner(c.s("A", 5002, 1002), Established),
        closed("after TIME_WAIT any number will do")
            .wait(121)
            .outer(c.c("A", 1002, 5002), TcpNoFlow)
            .outer(c.c("S", 900, 0), Rule),
        c.established(Case::new("a SYN after a reset opens a new flow"))
            .inner(c.s("R", 5001, 0), Established)
            .state(State::Close)
            .outer(c.c("S", 900, 0), Rule),
        c.established(Case::new(
            "the server has forgotten the connection: the next SYN opens a new one",
        ))
        .outer(c.c("S", 200_000_000, 0), Established)
        .inner(c.s("SA", 7_000_000, 200_000_001), TcpInvalid)
        .outer(c.c("S", 200_000_000, 0), Rule)
        .inner(c.s("SA", 7_000_000, 200_000_001), Established),
    ]
}

/// Fifty times around the sequence space at the largest scale, both ways, with 1 GiB windows; out of the window is out
/// wherever the numbers stand.
pub fn wraps(net: &Net) -> Vec<Case> {
    const WINDOW: u32 = 65_535 << 14;
    let c = net.connection(80);
    let mut case = scaled(
        &c,
        Case::new("50 wraps at a window scale of 14"),
        [Some(14), Some(14)],
    );
    case = case
        .outer(c.c("A", 1001, 5001), Established)
        .inner(c.s("A", 5001, 1001), Established);
    let (mut client, mut server) = (1001_u32, 5001_u32);
    let steps = (50 * (1_u64 << 32)).div_ceil(u64::from(WINDOW));
    for step in 0..steps {
        let (next, back) = (client.wrapping_add(WINDOW), server.wrapping_add(WINDOW));
        case = case
            .outer(data(c.c("A", next.wrapping_sub(1000), server), 1000), Established)
            .inner(c.s("A", server, next), Established)
            .inner(data(c.s("A", back.wrapping_sub(1000), next), 1000), Established)
            .outer(c.c("A", next, back), Established)
            .wait(3600);
        if step % 5 == 0 {
            case = case
                .outer(
                    data(c.c("A", next.wrapping_add(WINDOW + 100), back), 10),
                    TcpOutOfWindow,
                )
                .inner(
                    data(c.s("A", back.wrapping_sub(1 << 31), next), 10),
                    TcpOutOfWindow,
                );
        }
        (client, server) = (next, back);
    }
    vec![case.state(State::Established)]
}

/// `tcp: { window: loose }`: sequence numbers are not judged, states are.
pub fn loose(net: &Net) -> Vec<Case> {
    let c = net.connection(80);
    vec![
        c.established(Case::new("windows are not judged").with(LOOSE))
            .outer(data(c.c("A", 9_000_000, 5001), 10), Established)
            .inner(data(c.s("A", 9_000_000, 77), 10), Established)
            .inner(c.s("S", 9000, 0), TcpInvalid)
            .state(State::Established),
    ]
}

const LOOSE: &str = r#"
version: 1
zones:
  clients: { addresses: [10.1.0.0/16, "fd00:1::/64"] }
  servers: { addresses: [10.2.0.0/16, "fd00:2::/64"] }
tcp: { window: loose }
rules: [{ name: web, allow: [http], from: clients, to: servers }]
"#;
