//! TCP through the whole pipeline: options are read from frames, numbers are kept in the flow, time passes.

mod model;

use fw_common::abi::{ControlFlags, Flow, Proto, Reason, StateWord, Verdict};
use fw_common::tcp::State;
use fw_common::wire::tcp_flag::{ACK, FIN, RST, SYN};
use model::{Frame, SECOND, World};

const A: [u8; 4] = [10, 0, 0, 1];
const B: [u8; 4] = [10, 0, 0, 2];
/// The ports that the two ends are behind.
const PORTS: [u32; 2] = [2, 3];
/// Seconds of five days.
const FIVE_DAYS: u64 = 432_000;

/// A segment between the two ends.
#[derive(Clone, Copy)]
struct Segment<'a> {
    reply: bool,
    flags: u8,
    seq: u32,
    ack: u32,
    window: u16,
    options: &'a [u8],
    payload: usize,
}

fn segment(reply: bool, flags: u8, seq: u32, ack: u32) -> Segment<'static> {
    Segment {
        reply,
        flags,
        seq,
        ack,
        window: 1000,
        options: &[],
        payload: 0,
    }
}

impl Segment<'_> {
    fn frame(self) -> Vec<u8> {
        let (src, dst) = if self.reply { (B, A) } else { (A, B) };
        let ports: (u16, u16) = if self.reply { (80, 4000) } else { (4000, 80) };
        let total = 40 + self.options.len() + self.payload;
        let mut frame = vec![2; 12];
        frame.extend([8, 0, 0x45, 0]);
        frame.extend((total as u16).to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 64, Proto::TCP, 0, 0]);
        frame.extend(src);
        frame.extend(dst);
        frame.extend(ports.0.to_be_bytes());
        frame.extend(ports.1.to_be_bytes());
        frame.extend(self.seq.to_be_bytes());
        frame.extend(self.ack.to_be_bytes());
        frame.extend([((20 + self.options.len()) * 4) as u8, self.flags]);
        frame.extend(self.window.to_be_bytes());
        frame.extend([0; 4]);
        frame.extend(self.options);
        frame.resize(frame.len() + self.payload, 0);
        frame
    }
}

struct Talk {
    world: World,
}

impl Talk {
    fn new() -> Self {
        Self {
            world: World::new(&[Proto::TCP]),
        }
    }

    fn send(&self, segment: Segment<'_>) -> Reason {
        let frame = segment.frame();
        let (verdict, reason) = self
            .world
            .send(Frame::new(&frame, PORTS[usize::from(segment.reply)]));
        assert_eq!(verdict != Verdict::Drop, reason.allows());
        reason
    }

    fn passes(&self, segment: Segment<'_>) {
        assert_eq!(
            self.send(segment),
            Reason::Established,
            "{:?}",
            (segment.reply, segment.flags, segment.seq)
        );
    }

    /// The opener's SYN is at the highest number, the other side's at 500. Both have sent these options.
    fn established(options: [&[u8]; 2]) -> Self {
        let talk = Self::new();
        let syn = segment(false, SYN, u32::MAX, 0);
        let answer = segment(true, SYN | ACK, 500, 0);
        assert_eq!(
            talk.send(Segment {
                options: options[0],
                ..syn
            }),
            Reason::Rule
        );
        talk.passes(Segment {
            options: options[1],
            ..answer
        });
        talk.passes(segment(false, ACK, 0, 501));
        talk
    }

    fn wait(&self, seconds: u64) {
        self.world.now.set(self.world.now.get() + seconds * SECOND);
    }

    fn flow(&self) -> Flow {
        let main = self.world.main4.borrow();
        let half = self.world.half4.borrow();
        let live = main.values().chain(half.values()).next().expect("a flow");
        let mut flow = Flow {
            state: live.state.load(),
            flags: live.flags.load(),
            answer: live.answer.load(),
            ..Flow::default()
        };
        for (copy, sent) in flow.sent.iter_mut().zip(&live.sent) {
            copy.seq_end = sent.seq_end.load();
            copy.ack = sent.ack.load();
            copy.edge = sent.edge.load();
            copy.window = sent.window.load();
        }
        flow
    }

    fn state(&self) -> State {
        State::from_bits(StateWord(self.flow().state).state())
    }
}

/// Linux: MSS, SACK permitted, timestamps, NOP, window scale 7.
const LINUX: &[u8] = &[2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];

#[test]
fn scales_are_read_from_the_frames() {
    let talk = Talk::established([LINUX, LINUX]);
    assert_eq!(talk.flow().sent[0].edge, 501 + (1000 << 7));
    let far = Segment {
        payload: 100,
        ..segment(true, ACK, 501 + (1000 << 7) + 1, 0)
    };
    assert_eq!(talk.send(far), Reason::TcpOutOfWindow);
    talk.passes(Segment {
        seq: far.seq - 1,
        ..far
    });
    let talk = Talk::established([LINUX, &[]]);
    assert_eq!(talk.flow().sent[0].edge, 1501);
    assert_eq!(talk.send(far), Reason::TcpOutOfWindow);
}

#[test]
fn selective_acknowledgements_are_read_from_the_frames() {
    let talk = Talk::established([LINUX, LINUX]);
    talk.passes(Segment {
        payload: 100,
        ..segment(true, ACK, 601, 0)
    });
    let sack = |right: u32| {
        let mut option = vec![1, 1, 5, 10, 0, 0, 2, 0x59];
        option.extend(right.to_be_bytes());
        talk.send(Segment {
            options: &option,
            ..segment(false, ACK, 0, 501)
        })
    };
    assert_eq!(
        (sack(701), sack(702)),
        (Reason::Established, Reason::TcpOutOfWindow)
    );
}

/// Numbers are stored by their own side alone, whatever comes.
#[test]
fn each_half_is_written_by_its_own_side() {
    let talk = Talk::established([LINUX, LINUX]);
    let before = talk.flow();
    talk.passes(Segment {
        payload: 100,
        ..segment(true, ACK, 501, 0)
    });
    let after = talk.flow();
    assert_eq!(
        (after.sent[1].seq_end, after.sent[0].seq_end),
        (601, before.sent[0].seq_end)
    );
    assert_eq!(after.sent[0].edge, before.sent[0].edge);
    assert_eq!(
        talk.send(segment(true, ACK, 0x7000_0000, 0)),
        Reason::TcpOutOfWindow
    );
    assert_eq!(talk.send(segment(true, RST, 0x7000_0000, 0)), Reason::RstInvalid);
    talk.passes(segment(false, SYN, 0x7000_0000, 0));
    let left = talk.flow();
    assert_eq!(
        (left.sent[1].seq_end, left.sent[1].edge, left.state),
        (601, after.sent[1].edge, after.state)
    );
    assert_eq!(talk.state(), State::Established);
}

#[test]
fn a_half_close_lasts_five_days() {
    let talk = Talk::established([&[], &[]]);
    talk.passes(segment(false, FIN | ACK, 0, 501));
    talk.wait(FIVE_DAYS);
    talk.passes(segment(true, ACK, 501, 1));
    assert_eq!(talk.state(), State::CloseWait);
    talk.wait(FIVE_DAYS);
    talk.passes(Segment {
        payload: 10,
        ..segment(true, ACK, 501, 1)
    });
    talk.passes(segment(false, ACK, 1, 511));
    talk.passes(segment(true, FIN | ACK, 511, 1));
    talk.passes(segment(false, ACK, 1, 512));
    assert_eq!(talk.state(), State::TimeWait);
}

/// Flows in each state, one packet further each.
fn opened() -> Talk {
    let talk = Talk::new();
    assert_eq!(talk.send(segment(false, SYN, u32::MAX, 0)), Reason::Rule);
    talk
}

fn answered() -> Talk {
    let talk = opened();
    talk.passes(segment(true, SYN | ACK, 500, 0));
    talk
}

fn established() -> Talk {
    Talk::established([&[], &[]])
}

fn half_closed() -> Talk {
    let talk = established();
    talk.passes(segment(false, FIN | ACK, 0, 501));
    talk
}

fn waiting() -> Talk {
    let talk = half_closed();
    talk.passes(segment(true, ACK, 501, 1));
    talk
}

fn closing() -> Talk {
    let talk = waiting();
    talk.passes(segment(true, FIN | ACK, 501, 1));
    talk
}

fn closed() -> Talk {
    let talk = closing();
    talk.passes(segment(false, ACK, 1, 502));
    talk
}

fn reset() -> Talk {
    let talk = established();
    talk.passes(segment(true, RST, 501, 0));
    talk
}

/// How a flow gets into a state, and how many seconds it stays.
type Timed = (fn() -> Talk, State, u64);

#[test]
fn every_timeout() {
    let cases: [Timed; 8] = [
        (opened, State::SynSent, 120),
        (answered, State::SynRecv, 60),
        (established, State::Established, FIVE_DAYS),
        (half_closed, State::FinWait, FIVE_DAYS),
        (waiting, State::CloseWait, FIVE_DAYS),
        (closing, State::LastAck, 30),
        (closed, State::TimeWait, 120),
        (reset, State::Close, 10),
    ];
    for (make, state, seconds) in cases {
        let talk = make();
        assert_eq!((talk.state(), u64::from(state.timeout_s())), (state, seconds));
        let flags = if state == State::SynSent { RST | ACK } else { RST };
        let probe = segment(true, flags, 0x7000_0000, 9);
        talk.wait(seconds);
        assert_eq!(
            talk.send(probe),
            Reason::RstInvalid,
            "{state:?} lives for {seconds} s"
        );
        talk.wait(1);
        assert_eq!(
            talk.send(probe),
            Reason::TcpNoFlow,
            "{state:?} ends after {seconds} s"
        );
    }
}

#[test]
fn the_numbers_wrap_fifty_times_at_scale_14() {
    let talk = Talk::established([&[3, 3, 14, 0], &[3, 3, 14, 0]]);
    let wide = |reply, seq, ack, payload| Segment {
        window: u16::MAX,
        payload,
        ..segment(reply, ACK, seq, ack)
    };
    talk.passes(wide(true, 501, 0, 0));
    let mut seq = 0_u32;
    for step in 0..50 * 8 {
        // A jump of half a gigabyte in the window: what lies between went another way, or was lost before.
        seq = seq.wrapping_add((1 << 29) - 1400);
        talk.passes(wide(false, seq, 501, 1400));
        seq = seq.wrapping_add(1400);
        let behind = wide(false, seq.wrapping_sub(0x5000_0000), 501, 1400);
        assert_eq!(talk.send(behind), Reason::TcpOutOfWindow, "step {step}");
        talk.passes(wide(true, 501, seq, 0));
    }
    assert_eq!(
        (talk.flow().sent[0].seq_end, talk.state()),
        (0, State::Established)
    );
}

/// The answering side was restarted while the firewall believes in an old connection.
#[test]
fn a_lost_connection_is_given_up_when_a_syn_is_answered() {
    let talk = Talk::established([&[], &[]]);
    let syn = segment(false, SYN, 0x1234_5678, 0);
    let answer = segment(true, SYN | ACK, 0x4444_4444, 0x1234_5679);
    talk.passes(syn);
    assert_eq!(talk.send(answer), Reason::TcpInvalid);
    assert_eq!(talk.send(answer), Reason::TcpNoFlow);
    assert_eq!(talk.send(syn), Reason::Rule);
    talk.passes(answer);
    talk.passes(segment(false, ACK, 0x1234_5679, 0x4444_4445));
}

#[test]
fn a_port_is_used_again_out_of_time_wait() {
    let talk = Talk::established([&[], &[]]);
    talk.passes(segment(false, FIN | ACK, 0, 501));
    talk.passes(segment(true, FIN | ACK, 501, 1));
    talk.passes(segment(false, ACK, 1, 502));
    talk.passes(segment(false, SYN, 0xf000_0000, 0));
    assert_eq!(
        talk.state(),
        State::TimeWait,
        "a lower number passes without effect"
    );
    assert_eq!(talk.send(segment(false, SYN, 2, 0)), Reason::Rule);
    talk.passes(segment(true, SYN | ACK, 900, 3));
    talk.passes(segment(false, ACK, 3, 901));
}

/// RFC 7413: the answering side sends data before the opener's first acknowledgement.
#[test]
fn a_fast_open_is_confirmed_by_the_acknowledgement_of_its_data() {
    let talk = Talk::new();
    let syn = Segment {
        payload: 300,
        ..segment(false, SYN, 99, 0)
    };
    assert_eq!(talk.send(syn), Reason::Rule);
    talk.passes(segment(true, SYN | ACK, 500, 400));
    talk.passes(Segment {
        payload: 700,
        ..segment(true, ACK, 501, 400)
    });
    assert_eq!(
        (talk.state(), talk.world.main4.borrow().len()),
        (State::SynRecv, 0)
    );
    assert_eq!(talk.send(segment(false, ACK, 400, 1202)), Reason::TcpBadAck);
    talk.passes(segment(false, ACK, 400, 1201));
    assert_eq!(
        (talk.state(), talk.world.main4.borrow().len()),
        (State::Established, 1)
    );
}

#[test]
fn a_loose_policy_judges_no_windows() {
    let talk = Talk::established([&[], &[]]);
    let far = segment(true, ACK, 0x7000_0000, 0);
    assert_eq!(talk.send(far), Reason::TcpOutOfWindow);
    talk.world.control.flags.store(ControlFlags::WINDOW_LOOSE);
    talk.passes(far);
    assert_eq!(talk.flow().sent[1].seq_end, 501, "and believes none");
    assert_eq!(talk.send(segment(true, RST, 0x9000_0000, 0)), Reason::RstInvalid);
    talk.world.control.flags.store(0);
    assert_eq!(talk.send(far), Reason::TcpOutOfWindow);
}
