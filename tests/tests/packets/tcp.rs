//! TCP: the life of a connection, and what does not belong to it.

use fw_common::abi::Reason::{
    BadTcp, DenyDefault, DenyRule, Established, PolicyRevoked, RstInvalid, Rule, TcpBadAck, TcpFinNoAck,
    TcpInvalid, TcpNoFlow, TcpNull, TcpSynFin, TcpSynRst, TcpXmas, WrongSide,
};
use fw_common::tcp::State;
use fw_tests::packet::Packet;

use crate::case::{Case, Connection, Net};

pub fn cases(net: &Net) -> Vec<Case> {
    let c = net.connection(80);
    [
        opening(net, &c),
        resets(&c),
        resets_by_state(&c),
        closing(&c),
        strangers(net, &c),
        timeouts(&c),
    ]
    .concat()
}

fn opening(net: &Net, c: &Connection) -> Vec<Case> {
    let case = Case::new;
    vec![
        c.established(case("a connection from its SYN to data both ways"))
            .outer(c.c("PA", 1001, 5001).payload(b"get"), Established)
            .inner(c.s("A", 5001, 1004).payload(&[7; 1000]), Established)
            .outer(c.c("A", 1004, 6001), Established),
        c.syn(case("a SYN sent again"))
            .outer(c.c("S", 1000, 0), Established),
        c.syn(case("a SYN with options and ECN")).inner(
            c.s("SAE", 5000, 1001).tcp_options(&[2, 4, 5, 180, 1, 1, 1, 0]),
            Established,
        ),
        case("a SYN with data (fast open), whose data the answer leaves unacknowledged")
            .outer(c.c("S", 1000, 0).payload(&[1; 100]), Rule)
            .inner(c.s("SA", 5000, 1001), Established)
            .outer(c.c("A", 1001, 5001).payload(&[1; 100]), Established),
        c.syn(case("a simultaneous open (RFC 9293 section 3.5)"))
            .inner(c.s("S", 5000, 0), Established)
            .outer(c.c("SA", 1000, 5001), Established)
            .inner(c.s("SA", 5000, 1001), Established)
            .outer(c.c("A", 1001, 5001), Established)
            .inner(c.s("A", 5001, 1001).payload(b"x"), Established),
        c.syn(case("a SYN-ACK that acknowledges something else"))
            .inner(c.s("SA", 5000, 77_000), TcpBadAck)
            .inner(c.s("SA", 5000, 1001), Established),
        c.answered(case(
            "an ACK of a number that the server never sent proves nothing",
        ))
        .outer(c.c("A", 1001, 4242), TcpBadAck)
        .flows(0, 1)
        .outer(c.c("A", 1001, 5001), Established)
        .flows(1, 0),
        c.answered(case("an answered SYN alone is not promoted"))
            .flows(0, 1),
        c.syn(case("data from the opener before the answer"))
            .outer(c.c("A", 1001, 1).payload(b"x"), TcpInvalid),
        c.syn(case("a challenge to a SYN (RFC 5961 section 4), and its answer"))
            .inner(c.s("A", 5000, 777), Established)
            .outer(c.c("R", 777, 0), Established)
            .outer(c.c("S", 1000, 0), Established)
            .inner(c.s("SA", 5000, 1001), Established),
        c.established(case("a SYN from the answering side opens nothing"))
            .inner(c.s("S", 9000, 0), TcpInvalid),
        c.syn(case("a SYN-ACK from the opener"))
            .outer(c.c("SA", 1000, 1), TcpInvalid),
        c.established(case(
            "a SYN in an established flow passes, so that its receiver can answer (RFC 5961 section 4)",
        ))
        .outer(c.c("S", 9000, 0), Established)
        .inner(c.s("A", 5001, 1001), Established),
        case("port 81 meets the default").outer(net.connection(81).c("S", 1, 0), DenyDefault),
        case("port 23 meets its rule").outer(net.connection(23).c("S", 1, 0), DenyRule),
        case("the wrong way round").inner(Packet::tcp(c.server, c.client).flags("S"), DenyDefault),
        case("an unknown source").outer(
            Packet::tcp((net.stranger, 40_000), c.server).flags("S"),
            DenyDefault,
        ),
        opened_from_inside(net),
    ]
}

fn opened_from_inside(net: &Net) -> Case {
    let c = Connection {
        client: (net.server, 40_000),
        server: (net.client, 443),
    };
    Case::new("a connection that the guarded side opens")
        .inner(c.c("S", 1000, 0), Rule)
        .outer(c.s("SA", 5000, 1001), Established)
        .inner(c.c("A", 1001, 5001), Established)
        .outer(c.s("A", 5001, 1001).payload(b"x"), Established)
}

/// Resets in the states before and after the middle of a connection.
fn resets_by_state(c: &Connection) -> Vec<Case> {
    let case = Case::new;
    let half = |name: &str| {
        c.established(case(name))
            .outer(c.c("FA", 1001, 5001), Established)
            .inner(c.s("A", 5001, 1002), Established)
    };
    let far = 5001 + (1 << 25);
    vec![
        c.answered(case("SYN_RECV: the answering side gives up"))
            .inner(c.s("R", 5001, 0), Established)
            .state(State::Close),
        c.answered(case("SYN_RECV: the opener gives up"))
            .outer(c.c("R", 1001, 0), Established)
            .state(State::Close),
        c.answered(case("SYN_RECV: blind resets from both sides"))
            .inner(c.s("R", far, 0), RstInvalid)
            .outer(c.c("R", far, 0), RstInvalid)
            .state(State::SynRecv),
        half("CLOSE_WAIT: a blind reset, one in the window, an exact one")
            .inner(c.s("R", far, 0), RstInvalid)
            .inner(c.s("R", 5500, 0), Established)
            .state(State::CloseWait)
            .inner(c.s("R", 5001, 0), Established)
            .state(State::Close),
        half("what comes after a reset keeps nothing alive")
            .inner(c.s("R", 5001, 0), Established)
            .wait(6)
            .outer(c.c("A", 1002, 5001), Established)
            .wait(6)
            .outer(c.c("A", 1002, 5001), TcpNoFlow),
        c.established(case(
            "exact by what the receiver has acknowledged, with data on its way",
        ))
        .inner(c.s("A", 5001, 1001).payload(&[7; 1000]), Established)
        .inner(c.s("R", 5001, 0), Established)
        .state(State::Close),
    ]
}

fn resets(c: &Connection) -> Vec<Case> {
    let case = Case::new;
    vec![
        c.syn(case("a closed port answers with RST, and the client tries again"))
            .inner(c.s("RA", 0, 1001), Established)
            .outer(c.c("S", 2000, 0), Rule),
        c.syn(case("a RST that saw no SYN"))
            .inner(c.s("RA", 0, 77_000), RstInvalid)
            .inner(c.s("R", 9, 0), RstInvalid)
            .state(State::SynSent),
        c.syn(case(
            "a refusal that acknowledges nothing passes and ends nothing",
        ))
        .inner(c.s("R", 0, 0), Established)
        .state(State::SynSent)
        .inner(c.s("SA", 5000, 1001), Established),
        c.syn(case("the opener takes its SYN back"))
            .outer(c.c("R", 1001, 0), Established),
        c.established(case("a RST with the exact number ends the flow"))
            .inner(c.s("R", 5001, 0), Established)
            .wait(11)
            .outer(c.c("A", 1001, 5001), TcpNoFlow),
        c.established(case(
            "a RST near the exact number passes and ends nothing (RFC 5961 section 3)",
        ))
        .inner(c.s("R", 5900, 0), Established)
        .wait(11)
        .outer(c.c("A", 1001, 5001).payload(b"x"), Established),
        c.established(case("a blind RST"))
            .inner(c.s("R", 5001 + (1 << 25), 0), RstInvalid)
            .outer(c.c("R", 1001_u32.wrapping_sub(1 << 25), 0), RstInvalid)
            .wait(11)
            .outer(c.c("A", 1001, 5001), Established),
        c.established(case(
            "the RST of a side that is gone after its FIN, for what was on its way to it",
        ))
        .inner(c.s("FA", 5001, 1001), Established)
        .outer(c.c("A", 1001, 5002), Established)
        .state(State::CloseWait)
        .inner(c.s("R", 5001, 0), Established)
        .inner(c.s("R", 5000, 0), RstInvalid)
        .outer(c.c("R", 1000, 0), RstInvalid)
        .state(State::CloseWait)
        .outer(c.c("A", 1001, 5002).payload(b"x"), Established),
        c.established(case(
            "a RST behind the window, where old data still passes (RFC 5961 section 3.2)",
        ))
        .inner(c.s("R", 5000, 0), RstInvalid)
        .inner(c.s("R", 5001_u32.wrapping_sub(1 << 20), 0), RstInvalid)
        .outer(c.c("R", 1000, 0), RstInvalid)
        .outer(c.c("R", 1001_u32.wrapping_sub(1 << 20), 0), RstInvalid)
        .inner(
            c.s("A", 5001_u32.wrapping_sub(1 << 20), 1001).payload(b"x"),
            Established,
        )
        .state(State::Established)
        .outer(c.c("A", 1001, 5001), Established),
    ]
}

/// Days of silence after one side has finished.
fn half_closed(c: &Connection) -> Case {
    const DAY: u64 = 86_400;
    c.established(Case::new("a half-close of many days"))
        .outer(c.c("FA", 1001, 5001), Established)
        .inner(c.s("A", 5001, 1002), Established)
        .state(State::CloseWait)
        .wait(5 * DAY)
        .inner(c.s("PA", 5001, 1002).payload(&[7; 1000]), Established)
        .outer(c.c("A", 1002, 6001), Established)
        .wait(4 * DAY)
        .inner(c.s("PA", 6001, 1002).payload(&[7; 1000]), Established)
        .outer(c.c("A", 1002, 7001), Established)
        .state(State::CloseWait)
        .inner(c.s("FA", 7001, 1002), Established)
        .state(State::LastAck)
        .outer(c.c("A", 1002, 7002), Established)
        .state(State::TimeWait)
}

fn closing(c: &Connection) -> Vec<Case> {
    let closed = |case: Case| {
        c.established(case)
            .outer(c.c("FA", 1001, 5001), Established)
            .inner(c.s("A", 5001, 1002), Established)
            .inner(c.s("PA", 5001, 1002).payload(b"the rest"), Established)
            .inner(c.s("FA", 5009, 1002), Established)
            .outer(c.c("A", 1002, 5010), Established)
    };
    vec![
        closed(Case::new("closing by FIN, half-closed in between")),
        closed(Case::new("the same ports again right after the end")).outer(c.c("S", 70_000, 0), Rule),
        half_closed(c),
        closed(Case::new("the last ACK sent again")).outer(c.c("A", 1002, 5010), Established),
        c.established(Case::new("both sides close at once"))
            .outer(c.c("FA", 1001, 5001), Established)
            .inner(c.s("FA", 5001, 1001), Established)
            .outer(c.c("A", 1002, 5002), Established)
            .inner(c.s("A", 5002, 1002), Established),
    ]
}

fn strangers(net: &Net, c: &Connection) -> Vec<Case> {
    let bad_flags = [
        ("", TcpNull),
        ("SF", TcpSynFin),
        ("SR", TcpSynRst),
        ("F", TcpFinNoAck),
        ("FPU", TcpXmas),
        ("SFRPAU", TcpSynFin),
        ("RF", TcpFinNoAck),
        ("P", BadTcp),
        ("U", BadTcp),
        ("RFA", BadTcp),
        ("SAF", TcpSynFin),
    ];
    let mut cases: Vec<Case> = bad_flags
        .iter()
        .map(|(flags, reason)| {
            Case::new(&format!("flags \"{flags}\" that no stack sends")).outer(c.c(flags, 1, 1), *reason)
        })
        .collect();
    for flags in ["A", "PA", "SA", "FA", "R", "RA"] {
        cases.push(Case::new(&format!("flags {flags} without a flow")).outer(c.c(flags, 1, 1), TcpNoFlow));
    }
    cases.push(
        c.established(Case::new("a packet of the flow that comes from the wrong side"))
            .outer(c.s("A", 5001, 1001), WrongSide),
    );
    let other = Connection {
        client: (net.client, 40_001),
        ..*c
    };
    cases.push(
        c.established(Case::new("another port is another flow"))
            .outer(other.c("A", 1001, 5001), TcpNoFlow),
    );
    cases
}

/// A packet inside of the timeout passes, one outside does not: each state, with the kernel conntrack's defaults.
fn timeouts(c: &Connection) -> Vec<Case> {
    let answer = c.s("SA", 5000, 1001);
    let data = c.c("A", 1001, 5001).payload(b"x");
    let fin = |case: Case| c.established(case).outer(c.c("FA", 1001, 5001), Established);
    let half = |case: Case| fin(case).inner(c.s("A", 5001, 1002), Established);
    let both = |case: Case| half(case).inner(c.s("FA", 5001, 1002), Established);
    let ended = |case: Case| both(case).outer(c.c("A", 1002, 5002), Established);
    let late = c.s("A", 5001, 1002);
    let row = |name: &str, begin: &dyn Fn(Case) -> Case, seconds: u64, next: &Packet, inner: bool| {
        let step = |case: Case, reason| {
            if inner {
                case.inner(next.clone(), reason)
            } else {
                case.outer(next.clone(), reason)
            }
        };
        [
            step(
                begin(Case::new(&format!("{name}: alive until {seconds} s"))).wait(seconds - 1),
                Established,
            ),
            step(
                begin(Case::new(&format!("{name}: over after {seconds} s"))).wait(seconds + 1),
                TcpNoFlow,
            ),
        ]
    };
    let mut cases = [
        row("SYN_SENT", &|case| c.syn(case), 120, &answer, true),
        row(
            "SYN_RECV",
            &|case| c.answered(case),
            60,
            &c.c("A", 1001, 5001),
            false,
        ),
        row("ESTABLISHED", &|case| c.established(case), 432_000, &data, false),
        row("FIN_WAIT", &fin, 432_000, &late, true),
        row(
            "CLOSE_WAIT (half-closed for five days)",
            &half,
            432_000,
            &late,
            true,
        ),
        row("LAST_ACK", &both, 30, &late, true),
        row("TIME_WAIT", &ended, 120, &late, true),
        row(
            "CLOSE",
            &|case| c.established(case).inner(c.s("R", 5001, 0), Established),
            10,
            &data,
            false,
        ),
    ]
    .concat();
    cases.push(reopened_after_the_end(c));
    cases
}

/// The expired entry stays in the main table until the agent deletes it; the new flow lives in the half-open table, and
/// is never written into the old one.
fn reopened_after_the_end(c: &Connection) -> Case {
    c.established(Case::new("a new flow beside an expired entry"))
        .flows(1, 0)
        .wait(432_001)
        .outer(c.c("S", 1000, 0), Rule)
        .inner(c.s("SA", 5000, 1001), Established)
        .outer(c.c("A", 1001, 5001), Established)
        .inner(c.s("A", 5001, 1001).payload(b"x"), Established)
        .flows(1, 1)
}

/// Changes of policy under a living flow.
pub fn policies(net: &Net) -> Vec<Case> {
    let c = net.connection(80);
    let without = crate::case::POLICY.replace("http, dns", "dns");
    let renamed = crate::case::POLICY.replace("name: web", "name: web2");
    vec![
        c.established(Case::new("a policy that denies the flow ends it"))
            .apply(&without)
            .outer(c.c("A", 1001, 5001), PolicyRevoked)
            .outer(c.c("A", 1001, 5001), TcpNoFlow)
            .outer(c.c("S", 1, 0), DenyDefault),
        c.established(Case::new(
            "the answering side's packet is judged in the opener's direction",
        ))
        .apply(&without)
        .inner(c.s("A", 5001, 1001), PolicyRevoked),
        c.established(Case::new(
            "a policy that allows the flow by another rule keeps it",
        ))
        .apply(&renamed)
        .inner(c.s("A", 5001, 1001).payload(b"x"), Established)
        .outer(c.c("A", 1001, 5002), Established),
        c.answered(Case::new("a half-open flow is judged anew as well"))
            .apply(&without)
            .outer(c.c("A", 1001, 5001), PolicyRevoked),
        c.established(Case::new("a policy that is applied again keeps the flow"))
            .apply(crate::case::POLICY)
            .outer(c.c("A", 1001, 5001), Established)
            .flows(1, 0),
    ]
}
