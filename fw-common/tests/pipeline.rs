//! The whole way of a packet on the host: the same code as in the kernel, over a model of the maps.

mod model;

use fw_common::abi::{Flow, Presence, Proto, Reason, StateWord, Verdict};
use fw_common::pipeline::{FlowStat, INSERT_TRIES, code};
use fw_common::tcp::State;
use fw_common::wire::tcp_flag::{ACK, FIN, RST, SYN};
use model::{Frame, SECOND, World};
use proptest::prelude::*;

const A: [u8; 4] = [10, 0, 0, 1];
const B: [u8; 4] = [10, 0, 0, 2];

fn ipv4(src: [u8; 4], dst: [u8; 4], proto: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([8, 0, 0x45, 0]);
    frame.extend((20 + payload.len() as u16).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, proto, 0, 0]);
    frame.extend(src);
    frame.extend(dst);
    frame.extend(payload);
    frame
}

fn tcp(src: [u8; 4], dst: [u8; 4], ports: (u16, u16), flags: u8, seq: u32, ack: u32) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(ports.0.to_be_bytes());
    segment.extend(ports.1.to_be_bytes());
    segment.extend(seq.to_be_bytes());
    segment.extend(ack.to_be_bytes());
    segment.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    ipv4(src, dst, Proto::TCP, &segment)
}

fn udp(src: [u8; 4], dst: [u8; 4], ports: (u16, u16)) -> Vec<u8> {
    let mut datagram = Vec::new();
    datagram.extend(ports.0.to_be_bytes());
    datagram.extend(ports.1.to_be_bytes());
    datagram.extend([0, 12, 0, 0, 1, 2, 3, 4]);
    ipv4(src, dst, Proto::UDP, &datagram)
}

fn only_flow(world: &World) -> Flow {
    let flows: Vec<_> = world.main4.borrow().values().copied().collect();
    let flow = flows.first().expect("a flow in the main map");
    Flow {
        state: flow.state.load(),
        created: flow.created.load(),
        flags: flow.flags.load(),
        ..Flow::default()
    }
}

fn handshake(world: &World) {
    let pass = |bytes: &[u8], port, reason| {
        assert_eq!(world.send(Frame::new(bytes, port)), (Verdict::Forward, reason));
    };
    pass(&tcp(A, B, (4000, 80), SYN, 99, 0), 2, Reason::Rule);
    assert_eq!(world.half4.borrow().len(), 1);
    pass(
        &tcp(B, A, (80, 4000), SYN | ACK, 500, 100),
        3,
        Reason::Established,
    );
    assert_eq!(
        world.main4.borrow().len(),
        0,
        "an open port answers spoofed SYNs: not promoted yet"
    );
    pass(&tcp(A, B, (4000, 80), ACK, 100, 501), 2, Reason::Established);
    assert_eq!((world.half4.borrow().len(), world.main4.borrow().len()), (0, 1));
}

#[test]
fn a_connection_is_promoted_by_the_openers_ack_and_closes() {
    let world = World::new(&[Proto::TCP]);
    handshake(&world);
    for (bytes, port, state) in [
        (tcp(A, B, (4000, 80), FIN | ACK, 100, 501), 2, State::FinWait),
        (tcp(B, A, (80, 4000), ACK, 501, 101), 3, State::CloseWait),
        (tcp(B, A, (80, 4000), FIN | ACK, 501, 101), 3, State::LastAck),
        (tcp(A, B, (4000, 80), ACK, 101, 502), 2, State::TimeWait),
    ] {
        assert_eq!(world.send(Frame::new(&bytes, port)).1, Reason::Established);
        assert_eq!(
            State::from_bits(StateWord(only_flow(&world).state).state()),
            state
        );
    }
    assert_eq!(world.stat(FlowStat::Promoted), 1);
}

/// Refusals of the kernel, the first one first; what becomes of the packet; how often the insertion was tried again; the errno
/// that the event tells (`errno-base.h`; 22 is EINVAL, which no map returns to these programs).
const FAULTS: [(&[i32], Reason, u64, u16); 8] = [
    (&[code::BUSY, code::BUSY], Reason::Rule, 2, 0),
    (&[code::MEMORY, code::MEMORY], Reason::Rule, 2, 0),
    (&[code::BUSY, code::MEMORY], Reason::Rule, 2, 0),
    (&[code::BUSY; 3], Reason::TableBusy, 2, 16),
    (&[code::MEMORY; 3], Reason::TableMemory, 2, 12),
    (&[code::BUSY, code::MEMORY, code::BUSY], Reason::TableBusy, 2, 16),
    (&[code::FULL], Reason::TableFull, 0, 7),
    (&[code::MEMORY, -22], Reason::TableError, 1, 22),
];

fn refuse(world: &World, faults: &[i32]) {
    world.events.borrow_mut().clear();
    world.faults.borrow_mut().extend(faults.iter().rev());
}

/// A refusal is told with its errno, and its packet's only; what passed in the end is no event.
fn told(world: &World, reason: Reason, errno: u16) {
    let events: Vec<_> = world
        .events
        .borrow()
        .iter()
        .map(|e| (e.reason, e.errno))
        .collect();
    let expected = if reason.allows() {
        vec![]
    } else {
        vec![(reason as u8, errno)]
    };
    assert_eq!(events, expected, "{}", reason.name());
    assert!(
        world.faults.borrow().is_empty(),
        "{}: a fault is left",
        reason.name()
    );
}

#[test]
fn a_flow_that_the_kernel_refuses_is_tried_again_and_reported_with_the_errno() {
    assert_eq!(INSERT_TRIES, 3);
    for (faults, reason, again, errno) in FAULTS {
        let world = World::new(&[Proto::UDP]);
        refuse(&world, faults);
        assert_eq!(world.send(Frame::new(&udp(A, B, (5000, 53)), 2)).1, reason);
        told(&world, reason, errno);
        assert_eq!(world.stat(FlowStat::InsertRetries), again);
        assert_eq!(world.half4.borrow().len(), usize::from(reason.allows()));
        // The next packet has an errno of its own: none.
        world.events.borrow_mut().clear();
        let other = tcp(A, B, (4000, 80), SYN, 1, 0);
        assert_eq!(world.send(Frame::new(&other, 2)).1, Reason::DenyDefault);
        told(&world, Reason::DenyDefault, 0);
    }
}

#[test]
fn a_promotion_that_the_kernel_refuses_is_tried_again_and_reported_with_the_errno() {
    for (faults, reason, again, errno) in FAULTS {
        // A full table leaves a datagram's flow where it is; other refusals cut it.
        let (moves, full) = (reason.allows(), reason == Reason::TableFull);
        let reason = if moves || full {
            Reason::Established
        } else {
            reason
        };
        let world = World::new(&[Proto::UDP]);
        let ask = udp(A, B, (5000, 53));
        assert_eq!(world.send(Frame::new(&ask, 2)).1, Reason::Rule);
        assert_eq!(
            world.send(Frame::new(&udp(B, A, (53, 5000)), 3)).1,
            Reason::Established
        );
        refuse(&world, faults);
        assert_eq!(world.send(Frame::new(&ask, 2)).1, reason);
        told(&world, reason, errno);
        assert_eq!(world.stat(FlowStat::InsertRetries), again);
        assert_eq!(world.stat(FlowStat::StaysHalfOpen), u64::from(full));
        assert_eq!(world.main4.borrow().len(), usize::from(moves));
        assert_eq!(world.half4.borrow().len(), usize::from(!moves));
        // The flow is still there; its next packet moves it.
        assert_eq!(world.send(Frame::new(&ask, 2)).1, Reason::Established);
        assert_eq!(world.main4.borrow().len(), 1);
    }
}

/// An expired entry is replaced; the kernel may refuse that too.
#[test]
fn a_successor_that_the_kernel_refuses_is_tried_again() {
    let world = World::new(&[Proto::UDP]);
    let ask = udp(A, B, (5000, 53));
    assert_eq!(world.send(Frame::new(&ask, 2)).1, Reason::Rule);
    world.now.set(world.now.get() + 31 * SECOND);
    refuse(&world, &[code::EXISTS, code::BUSY, code::BUSY, code::BUSY]);
    assert_eq!(world.send(Frame::new(&ask, 2)).1, Reason::TableBusy);
    told(&world, Reason::TableBusy, 16);
    refuse(&world, &[code::EXISTS, code::MEMORY, code::MEMORY]);
    assert_eq!(world.send(Frame::new(&ask, 2)).1, Reason::Rule);
    assert_eq!(world.half4.borrow().len(), 1);
}

/// A table that is full by the agent's count refuses without asking the kernel: there is no errno. A datagram's flow that was
/// answered goes on where it is.
#[test]
fn a_table_without_room_has_no_errno() {
    let world = World::new(&[Proto::UDP, Proto::TCP]);
    let ask = udp(A, B, (5000, 53));
    assert_eq!(world.send(Frame::new(&ask, 2)).1, Reason::Rule);
    assert_eq!(
        world.send(Frame::new(&udp(B, A, (53, 5000)), 3)).1,
        Reason::Established
    );
    for (frame, port) in [
        (tcp(A, B, (4000, 80), SYN, 100, 0), 2),
        (tcp(B, A, (80, 4000), SYN | ACK, 500, 101), 3),
    ] {
        assert!(world.send(Frame::new(&frame, port)).1.allows());
    }
    world.levels.room[0].store(0);
    world.events.borrow_mut().clear();
    assert_eq!(world.send(Frame::new(&ask, 2)).1, Reason::Established);
    assert_eq!(world.stat(FlowStat::StaysHalfOpen), 1);
    let completes = tcp(A, B, (4000, 80), ACK, 101, 501);
    assert_eq!(world.send(Frame::new(&completes, 2)).1, Reason::TableFull);
    told(&world, Reason::TableFull, 0);
}

#[test]
fn the_wrong_port_and_the_blind_reset_are_refused() {
    let world = World::new(&[Proto::TCP]);
    handshake(&world);
    let reply = tcp(B, A, (80, 4000), ACK, 501, 100);
    assert_eq!(
        world.send(Frame::new(&reply, 2)),
        (Verdict::Drop, Reason::WrongSide)
    );
    let blind = tcp(B, A, (80, 4000), RST, 0x6000_0000, 0);
    assert_eq!(
        world.send(Frame::new(&blind, 3)),
        (Verdict::Drop, Reason::RstInvalid)
    );
    assert_eq!(world.send(Frame::new(&reply, 3)).1, Reason::Established);
}

#[test]
fn an_expired_flow_is_a_miss_and_its_successor_waits_for_the_agent() {
    let world = World::new(&[Proto::UDP]);
    let ask = udp(A, B, (5000, 53));
    let answer = udp(B, A, (53, 5000));
    let round = || {
        assert_eq!(world.send(Frame::new(&ask, 2)).1, Reason::Rule);
        assert_eq!(world.send(Frame::new(&answer, 3)).1, Reason::Established);
        assert_eq!(world.send(Frame::new(&ask, 2)).1, Reason::Established);
    };
    round();
    assert_eq!(world.main4.borrow().len(), 1);
    world.now.set(world.now.get() + 121 * SECOND);
    assert_eq!(
        world.send(Frame::new(&answer, 3)),
        (Verdict::Forward, Reason::Rule),
        "the policy allows both ways"
    );
    world.now.set(world.now.get() + 31 * SECOND);
    round();
    assert_eq!(world.stat(FlowStat::PromotionWaits), 1);
    assert_eq!((world.half4.borrow().len(), world.main4.borrow().len()), (1, 1));
    world.main4.borrow_mut().clear();
    assert_eq!(world.send(Frame::new(&ask, 2)).1, Reason::Established);
    assert_eq!((world.half4.borrow().len(), world.main4.borrow().len()), (0, 1));
}

#[test]
fn a_newer_policy_ends_what_it_denies_whoever_sends_next() {
    let world = World::new(&[Proto::TCP]);
    handshake(&world);
    world.apply(&[Proto::TCP]);
    let reply = tcp(B, A, (80, 4000), ACK, 501, 100);
    assert_eq!(world.send(Frame::new(&reply, 3)).1, Reason::Established);
    world.apply(&[Proto::UDP]);
    assert_eq!(
        world.send(Frame::new(&reply, 3)),
        (Verdict::Drop, Reason::PolicyRevoked)
    );
    assert_eq!(
        world.send(Frame::new(&reply, 3)),
        (Verdict::Drop, Reason::TcpNoFlow)
    );
    assert!(StateWord(only_flow(&world).state).has(StateWord::REVOKED));
}

#[test]
fn running_connections_are_adopted_only_at_a_cold_start_and_only_if_allowed() {
    let world = World::new(&[Proto::TCP]);
    let data = tcp(A, B, (4000, 80), ACK, 1000, 2000);
    assert_eq!(
        world.send(Frame::new(&data, 2)),
        (Verdict::Drop, Reason::TcpNoFlow)
    );
    world.control.pickup_until.store(world.now.get() + SECOND);
    assert_eq!(
        world.send(Frame::new(&data, 2)),
        (Verdict::Forward, Reason::PickedUp)
    );
    assert_eq!(
        world.send(Frame::new(&data, 2)),
        (Verdict::Forward, Reason::Established)
    );
    assert_eq!(world.main4.borrow().len(), 0, "one side alone proves nothing");
    let answer = tcp(B, A, (80, 4000), ACK, 2000, 1000);
    assert_eq!(
        world.send(Frame::new(&answer, 3)),
        (Verdict::Forward, Reason::Established)
    );
    // The opener's next packet moves the flow.
    assert_eq!(
        world.send(Frame::new(&data, 2)),
        (Verdict::Forward, Reason::Established)
    );
    assert_eq!(world.main4.borrow().len(), 1);
    let reset = tcp(B, A, (80, 4000), RST, 2000, 0);
    assert_eq!(
        world.send(Frame::new(&reset, 3)),
        (Verdict::Forward, Reason::Established)
    );
    assert_eq!(
        State::from_bits(StateWord(only_flow(&world).state).state()),
        State::Close
    );
    world.apply(&[Proto::UDP]);
    let other = tcp(A, B, (4001, 80), ACK, 1000, 2000);
    assert_eq!(
        world.send(Frame::new(&other, 2)),
        (Verdict::Drop, Reason::DenyDefault)
    );
    world.apply(&[Proto::TCP]);
    assert_eq!(
        world.send(Frame::new(&tcp(A, B, (4001, 80), RST, 1, 0), 2)),
        (Verdict::Drop, Reason::TcpNoFlow)
    );
    world.now.set(world.control.pickup_until.load());
    assert_eq!(
        world.send(Frame::new(&other, 2)),
        (Verdict::Drop, Reason::TcpNoFlow)
    );
}

#[test]
fn packets_to_this_machine_are_passed_up_on_a_paired_port() {
    let world = World::new(&[Proto::UDP]);
    assert_eq!(
        world.send(Frame::new(&udp(A, [192, 0, 2, 1], (9, 9)), 2)),
        (Verdict::Pass, Reason::Rule)
    );
    let mut reply = Frame::new(&[], 2);
    let bytes = udp([192, 0, 2, 1], A, (9, 9));
    reply.bytes = &bytes;
    reply.egress = true;
    assert_eq!(world.send(reply), (Verdict::Pass, Reason::Established));
}

#[test]
fn what_came_by_another_port_is_counted_once_and_what_came_by_none_of_ours_is_the_machines() {
    let world = World::new(&[Proto::UDP]);
    let bytes = udp(A, B, (9, 9));
    let leaving = |came_by| Frame {
        egress: true,
        came_by,
        ..Frame::new(&bytes, 1)
    };
    let counted = || world.counters.borrow().values().sum::<u64>();
    assert_eq!(world.send(Frame::new(&bytes, 2)).1, Reason::Rule);
    assert_eq!((world.send(leaving(2)).1, counted()), (Reason::Established, 1));
    let world = World::new(&[Proto::UDP]);
    assert_eq!(world.send(leaving(99)).1, Reason::Rule);
    assert_eq!(
        world.send(Frame::new(&udp(B, A, (9, 9)), 1)).1,
        Reason::Established
    );
    assert_eq!(world.send(leaving(99)).1, Reason::Established);
    assert_eq!(
        (
            world.counters.borrow().values().sum::<u64>(),
            world.main4.borrow().len()
        ),
        (3, 1)
    );
}

#[test]
fn what_is_no_echo_belongs_to_no_flow_and_own_sources_do_not_come_in() {
    let icmp = |src, dst, kind: u8| ipv4(src, dst, Proto::ICMP, &[kind, 0, 0, 0, 0, 0, 0, 0]);
    let world = World::new(&[Proto::ICMP, Proto::UDP]);
    assert_eq!(world.send(Frame::new(&icmp(A, B, 8), 2)).1, Reason::Rule);
    assert_eq!(
        world.send(Frame::new(&icmp(A, B, 5), 2)),
        (Verdict::Drop, Reason::DenyRedirect)
    );
    assert_eq!(
        world.send(Frame::new(&icmp(A, B, 13), 2)),
        (Verdict::Drop, Reason::IcmpType)
    );
    assert_eq!(
        world.send(Frame::new(&icmp(B, A, 8), 3)),
        (Verdict::Drop, Reason::IcmpNoFlow)
    );
    assert_eq!(world.send(Frame::new(&icmp(B, A, 0), 3)).1, Reason::Established);
    assert_eq!(
        world.send(Frame::new(&icmp(A, B, 8), 3)),
        (Verdict::Drop, Reason::WrongSide)
    );
    let own = udp([192, 0, 2, 1], A, (9, 9));
    for port in 1..4 {
        assert_eq!(
            world.send(Frame::new(&own, port)),
            (Verdict::Drop, Reason::OwnSource)
        );
    }
    assert_eq!(
        world
            .send(Frame {
                egress: true,
                ..Frame::new(&own, 1)
            })
            .1,
        Reason::Rule
    );
}

#[test]
fn a_full_table_refuses_new_flows_only() {
    let world = World::new(&[Proto::TCP]);
    handshake(&world);
    world.capacity.set(1);
    world
        .send(Frame::new(&tcp(A, B, (4001, 80), SYN, 99, 0), 2))
        .1
        .allows()
        .then_some(())
        .expect("half-open");
    world
        .send(Frame::new(&tcp(B, A, (80, 4001), SYN | ACK, 500, 100), 3))
        .1
        .allows()
        .then_some(())
        .expect("half-open");
    let last = tcp(A, B, (4001, 80), ACK, 100, 501);
    assert_eq!(
        world.send(Frame::new(&last, 2)),
        (Verdict::Drop, Reason::TableFull)
    );
    assert_eq!(
        world.send(Frame::new(&tcp(A, B, (4000, 80), ACK, 100, 501), 2)).1,
        Reason::Established
    );
}

#[test]
fn no_policy_means_closed_and_a_flood_of_drops_sends_few_events() {
    let world = World::new(&[]);
    world.generation.set(0);
    assert_eq!(
        world.send(Frame::new(&udp(A, B, (1, 2)), 1)),
        (Verdict::Drop, Reason::NoPolicy)
    );
    world.generation.set(1);
    for _ in 0..1000 {
        assert_eq!(
            world.send(Frame::new(&udp(A, B, (1, 2)), 1)),
            (Verdict::Drop, Reason::DenyDefault)
        );
    }
    assert_eq!(world.events.borrow().len(), 4);
    assert_eq!(world.counters.borrow()[&(Reason::DenyDefault as u32)], 1000);
    assert_eq!(world.stat(FlowStat::EventsSuppressed), 997);
    assert_eq!(
        world.send(Frame::new(&udp(A, B, (1, 2)), 8)),
        (Verdict::Drop, Reason::UnknownPort)
    );
}

#[test]
fn a_packet_cut_anywhere_is_dropped() {
    let world = World::new(&[Proto::TCP, Proto::UDP]);
    for whole in [tcp(A, B, (1, 2), SYN, 0, 0), udp(A, B, (1, 2))] {
        for length in 0..whole.len() {
            assert_eq!(
                world.send(Frame::new(&whole[..length], 1)).0,
                Verdict::Drop,
                "{length} bytes"
            );
        }
        assert_eq!(world.send(Frame::new(&whole, 1)), (Verdict::Pass, Reason::Rule));
    }
}

/// Lets packets read the bits of flows, in so many words: few, so that strangers share bits with flows.
fn read_presence(world: &World, words: u32) {
    world.presence_words.set(words);
    world.control.presence.store(Presence::READ | Presence::KEPT);
}

#[test]
fn a_flow_is_found_by_its_bit_from_the_first_packet_on() {
    let world = World::new(&[Proto::TCP]);
    read_presence(&world, 1024);
    handshake(&world);
    let set: u32 = world
        .presence
        .borrow()
        .values()
        .map(|word| word.load().count_ones())
        .sum();
    assert_eq!(set, 2, "one flow, both halves");
}

#[test]
fn a_flow_without_its_bit_is_not_looked_for_once_a_packet_has_missed() {
    let world = World::new(&[Proto::TCP]);
    read_presence(&world, 1024);
    handshake(&world);
    let segment = tcp(A, B, (4000, 80), ACK, 100, 501);
    // The handshake's last packet was still found in the half-open table.
    assert_eq!(world.send(Frame::new(&segment, 2)).1, Reason::Established);
    let forget = || {
        world.presence.borrow_mut().clear();
        world.send(Frame::new(&segment, 2)).1
    };
    assert_eq!(forget(), Reason::Established, "the main table is asked first");
    let stranger = tcp(A, B, (4001, 80), ACK, 100, 501);
    assert_eq!(world.send(Frame::new(&stranger, 2)).1, Reason::TcpNoFlow);
    assert_eq!(forget(), Reason::TcpNoFlow, "the bits are asked first");
    world.control.presence.store(Presence::KEPT);
    assert_eq!(forget(), Reason::Established, "the bits are not read");
    world.control.presence.store(Presence::READ | Presence::KEPT);
    assert_eq!(forget(), Reason::Established, "the last packet had a flow");
}

#[test]
fn only_the_halves_that_are_kept_are_written() {
    for (half, keep) in (0..).zip(Presence::KEEP) {
        let world = World::new(&[Proto::UDP]);
        world.presence_words.set(1024);
        world.control.presence.store(keep);
        assert_eq!(world.send(Frame::new(&udp(A, B, (1, 2)), 2)).1, Reason::Rule);
        let words: Vec<u32> = world.presence.borrow().keys().copied().collect();
        assert_eq!(words.len(), 1);
        assert_eq!(words[0] / 1024, half);
        let second = if half == 0 { 0 } else { Presence::SECOND };
        world.control.presence.store(Presence::READ | second | keep);
        for port in 3..5 {
            let answer = world.send(Frame::new(&udp(B, A, (2, 1)), 3));
            assert_eq!(answer.1, Reason::Established, "found by the half that is read");
            assert_eq!(world.send(Frame::new(&udp(B, A, (port, 1)), 2)).1, Reason::Rule);
        }
    }
}

proptest! {
    /// The bits change the cost of a packet, never what becomes of it.
    #[test]
    fn the_bits_change_no_verdict(
        packets in prop::collection::vec((0_u16..12, any::<bool>(), 0_u8..4, 0_u64..40), 1..200),
        words in prop::sample::select(vec![1_u32, 4, 4096]),
    ) {
        let worlds = [World::new(&[Proto::TCP, Proto::UDP]), World::new(&[Proto::TCP, Proto::UDP])];
        read_presence(&worlds[1], words);
        for (port, answer, kind, seconds) in packets {
            let ports = if answer { (80, 4000 + port) } else { (4000 + port, 80) };
            let (from, to, ifindex) = if answer { (B, A, 3) } else { (A, B, 2) };
            let flags = [SYN, SYN | ACK, ACK, FIN | ACK][usize::from(kind)];
            let bytes = if port % 2 == 0 {
                udp(from, to, ports)
            } else {
                tcp(from, to, ports, flags, u32::from(port), 1)
            };
            let outcomes = worlds.each_ref().map(|world| {
                world.now.set(world.now.get() + seconds * SECOND);
                world.control.heartbeat.store(world.now.get());
                world.send(Frame::new(&bytes, ifindex))
            });
            prop_assert_eq!(outcomes[0], outcomes[1]);
        }
        let held = worlds.each_ref().map(|world| (world.half4.borrow().len(), world.main4.borrow().len()));
        prop_assert_eq!(held[0], held[1]);
    }

    #[test]
    fn any_bytes_get_exactly_one_reason_that_agrees_with_the_verdict(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        ethertype in prop::sample::select(vec![0x0800_u16, 0x86dd, 0x0806, 0x8100, 0x88cc]),
        first in prop::sample::select(vec![0x45_u8, 0x46, 0x60, 0x4f, 0]),
        proto in prop::sample::select(vec![1_u8, 6, 17, 58, 0, 43, 44, 60]),
        port in 1_u32..4,
        egress: bool,
    ) {
        let world = World::new(&[Proto::TCP, Proto::UDP, Proto::ICMP, Proto::ICMPV6]);
        let mut bytes = bytes;
        for (at, value) in [(12, (ethertype >> 8) as u8), (13, ethertype as u8), (14, first), (20, proto), (23, proto)] {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        let mut frame = Frame::new(&bytes, port);
        frame.egress = egress;
        let (verdict, reason) = world.send(frame);
        prop_assert_eq!(verdict != Verdict::Drop, reason.allows());
        prop_assert!(reason != Reason::Unset);
        prop_assert_eq!(world.counters.borrow().values().sum::<u64>(), 1);
    }
}
