//! A TCP connection whose segments lie at, beside and far from where they should: the machine inside of the whole
//! pipeline.
#![no_main]

use fw_common::abi::Reason;
use fw_fuzz::frames::{Carries, Extension, Options, Segment, Spec, Tags};
use fw_fuzz::model::{Frame, SECOND};
use fw_fuzz::watched::Watched;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input {
    /// Initial sequence numbers, near a wrap or not.
    first: [u32; 2],
    v6: bool,
    /// Begin with a handshake, with these shifts.
    handshake: Option<[u8; 2]>,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
struct Step {
    reply: bool,
    flags: u8,
    seq: Place,
    ack: Place,
    window: u16,
    payload: u16,
    options: Options,
    /// Seconds since the step before; the highest bit makes them hours.
    wait: u8,
    /// The segment comes by the other side's port.
    wrong_side: bool,
}

/// A sequence number, told from what was sent before.
#[derive(Arbitrary, Debug, Clone, Copy)]
enum Place {
    /// Next in order.
    Next,
    /// So far from the next.
    Near(i16),
    /// So far, in windows.
    Far(i8),
    /// Anywhere.
    Any(u32),
}

impl Place {
    fn at(self, next: u32) -> u32 {
        match self {
            Self::Next => next,
            Self::Near(offset) => next.wrapping_add_signed(i32::from(offset)),
            Self::Far(offset) => next.wrapping_add_signed(i32::from(offset) << 14),
            Self::Any(number) => number,
        }
    }
}

const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

struct Line {
    watched: Watched,
    v6: bool,
    /// What each side sends next.
    next: [u32; 2],
}

impl Line {
    fn send(&mut self, reply: bool, wrong_side: bool, segment: Segment) -> Reason {
        let spec = Spec {
            from: u8::from(reply),
            to: u8::from(!reply),
            v6: self.v6,
            tags: Tags::None,
            extensions: [Extension::None; 2],
            fragment: None,
            carries: Carries::Tcp(Segment {
                ports: (u8::from(reply), u8::from(!reply)),
                ..segment
            }),
            ttl: None,
            patch: None,
            cut: 0,
        };
        let bytes = spec.frame();
        let ifindex = 2 + u32::from(reply != wrong_side);
        let reason = self.watched.send(Frame::new(&bytes, ifindex));
        if reason.allows() {
            let controls = u32::from(segment.flags & 1 != 0) + u32::from(segment.flags & SYN != 0);
            let end = segment
                .seq
                .wrapping_add(u32::from(segment.payload % 1500))
                .wrapping_add(controls);
            let next = &mut self.next[usize::from(reply)];
            if (end.wrapping_sub(*next) as i32) > 0 || segment.flags & SYN != 0 {
                *next = end;
            }
        }
        reason
    }

    fn handshake(&mut self, shifts: [u8; 2]) {
        let [a, b] = self.next;
        let options = shifts.map(|shift| Options::ScaleAndSack(shift & 15));
        let segment = |flags, seq, ack, options| Segment {
            flags,
            seq,
            ack,
            window: 0xffff,
            options,
            ..Segment::default()
        };
        let opened = self.send(false, false, segment(SYN, a, 0, options[0]));
        assert_eq!(opened, Reason::Rule);
        let answered = self.send(true, false, segment(SYN | ACK, b, a.wrapping_add(1), options[1]));
        assert_eq!(answered, Reason::Established);
        let confirmed = segment(ACK, a.wrapping_add(1), b.wrapping_add(1), Options::None);
        assert_eq!(self.send(false, false, confirmed), Reason::Established);
    }
}

fuzz_target!(|input: Input| {
    let mut line = Line {
        watched: Watched::new(&[6]),
        v6: input.v6,
        next: input.first,
    };
    if let Some(shifts) = input.handshake {
        line.handshake(shifts);
    }
    for step in input.steps.iter().take(64) {
        let world = &line.watched.world;
        let seconds = if step.wait & 0x80 == 0 { 1 } else { 3600 };
        world
            .now
            .set(world.now.get() + u64::from(step.wait & 0x7f) * seconds * SECOND);
        let (own, peer) = (usize::from(step.reply), usize::from(!step.reply));
        let segment = Segment {
            flags: step.flags,
            seq: step.seq.at(line.next[own]),
            ack: if step.flags & (ACK | RST) == 0 {
                0
            } else {
                step.ack.at(line.next[peer])
            },
            window: step.window,
            payload: step.payload,
            options: step.options,
            ports: (0, 0),
        };
        line.send(step.reply, step.wrong_side, segment);
    }
});
