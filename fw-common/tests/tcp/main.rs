//! The TCP machine between two lawful ends and a bad network: it must not drop anything that they send. And between
//! them and an attacker who guesses: he must not change anything.

mod document;
mod endpoint;

use std::collections::BTreeMap;

use endpoint::{Endpoint, Habits, Phase};
use fw_common::abi::{Reason, StateWord};
use fw_common::tcp::{Class, Known, Numbers, Outcome, Segment, State, opened, opener, step};
use fw_common::wire::tcp_flag::{ACK, FIN, RST, SYN};
use proptest::prelude::*;

/// A generator of numbers (splitmix64).
pub struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below the limit.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// True once in so many times.
    pub fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }
}

/// The flow as the pipeline keeps it.
struct Flow {
    word: StateWord,
    halves: [Numbers; 2],
    answer: u32,
}

impl Flow {
    fn judge(&mut self, reply: bool, segment: Segment) -> Outcome {
        let known = Known {
            own: self.halves[usize::from(reply)],
            peer: self.halves[usize::from(!reply)],
            answer: self.answer,
            loose: false,
        };
        let judged = step(self.word, reply, segment, &known);
        if let Outcome::Pass(word) = judged.outcome {
            self.word = word;
            self.halves[usize::from(reply)] = judged.own;
            self.answer = judged.answer;
        }
        judged.outcome
    }

    fn state(&self) -> State {
        State::from_bits(self.word.state())
    }
}

/// Ticks that a segment takes from an end to the firewall, or on from there. Its extra delay stays below one round trip:
/// what comes later than that is old, and dropped as such.
const HOP: u64 = 10;

#[derive(Clone, Copy, Debug)]
struct Weather {
    /// One in so many is lost, doubled, delayed.
    lose: u64,
    double: u64,
    delay: u64,
}

struct World {
    rng: Rng,
    now: u64,
    ends: [Endpoint; 2],
    flow: Option<Flow>,
    weather: Weather,
    /// On the way to the firewall, and from there to the other end, by time of arrival.
    towards: BTreeMap<(u64, u64), (bool, Segment)>,
    onwards: BTreeMap<(u64, u64), (bool, Segment)>,
    count: u64,
    judged: u64,
}

impl World {
    fn arrivals(&mut self) -> Vec<u64> {
        let mut times = Vec::new();
        let copies = if self.rng.one_in(self.weather.double) {
            2
        } else {
            1
        };
        for _ in 0..copies {
            if self.rng.one_in(self.weather.lose) {
                continue;
            }
            let extra = if self.rng.one_in(self.weather.delay) {
                self.rng.below(2 * HOP - 1)
            } else {
                0
            };
            times.push(self.now + HOP + extra);
        }
        times
    }

    fn post(&mut self, reply: bool, segments: Vec<Segment>) {
        for segment in segments {
            for time in self.arrivals() {
                self.count += 1;
                self.towards.insert((time, self.count), (reply, segment));
            }
        }
    }

    fn tick(&mut self) -> Result<(), TestCaseError> {
        self.now += 1;
        while let Some((&at, &(reply, segment))) = self.towards.first_key_value()
            && at.0 <= self.now
        {
            self.towards.remove(&at);
            self.meet(reply, segment)?;
        }
        while let Some((&at, &(reply, segment))) = self.onwards.first_key_value()
            && at.0 <= self.now
        {
            self.onwards.remove(&at);
            let mut out = Vec::new();
            self.ends[usize::from(!reply)].receive(segment, &mut out);
            self.post(!reply, out);
        }
        for reply in [false, true] {
            if self.rng.one_in(6) {
                let mut out = Vec::new();
                self.ends[usize::from(reply)].send(&mut self.rng, &mut out);
                self.post(reply, out);
            }
        }
        Ok(())
    }

    /// A segment at the firewall.
    fn meet(&mut self, reply: bool, segment: Segment) -> Result<(), TestCaseError> {
        let Some(flow) = &mut self.flow else {
            if !reply && segment.class() == Class::Syn {
                self.flow = Some(Flow {
                    word: opened(),
                    halves: [opener(segment), Numbers::default()],
                    answer: 0,
                });
                self.pass(reply, segment);
            }
            return Ok(());
        };
        let (before, halves) = (flow.state(), flow.halves);
        let outcome = flow.judge(reply, segment);
        self.judged += 1;
        // In a simultaneous open the answering side's SYN may come late; nobody misses it.
        let late_syn = reply && segment.class() == Class::Syn && before as u32 > State::SynRecv as u32;
        // A fast open's FIN that overtakes its SYN-ACK comes again.
        let early_fin = reply && segment.class() == Class::Fin && before == State::SynSent;
        match outcome {
            Outcome::Pass(_) => self.pass(reply, segment),
            Outcome::Drop(Reason::TcpInvalid) if late_syn || early_fin => {}
            // A late SYN after a reset; a new flow is another matter.
            Outcome::Reopen if matches!(before, State::Close | State::TimeWait) => {}
            other => prop_assert!(
                false,
                "{other:?} in {before:?}: reply {reply} {segment:?}, {halves:?}"
            ),
        }
        Ok(())
    }

    fn pass(&mut self, reply: bool, segment: Segment) {
        for time in self.arrivals() {
            self.count += 1;
            self.onwards.insert((time, self.count), (reply, segment));
        }
    }
}

fn habits() -> impl Strategy<Value = Habits> {
    (
        prop_oneof![
            any::<u32>(),
            Just(u32::MAX),
            (u32::MAX - 70_000)..u32::MAX,
            0..3_u32
        ],
        prop::option::of(0..=14_u32),
        any::<bool>(),
        prop_oneof![
            Just(1_u64),
            1..3000_u64,
            10_000..200_000_u64,
            Just(6 << 20),
            Just(1 << 29)
        ],
        prop_oneof![Just(0_u64), 1..100_u64, 10_000..3_000_000_u64, Just(6_u64 << 32)],
        prop_oneof![Just(1_u64), 1..1500_u64, 1000..65_000_u64],
    )
        .prop_map(|(isn, shift, sack, buffer, total, segment)| Habits {
            isn,
            shift,
            sack,
            buffer,
            total,
            // Enough of it goes round the sequence space.
            segment: if total > 1 << 32 {
                buffer.clamp(segment, 1 << 27)
            } else {
                segment
            },
            fast_open: 0,
        })
}

fn weather() -> impl Strategy<Value = Weather> {
    (
        prop::sample::select(vec![3_u64, 10, 100, 1 << 40]),
        prop::sample::select(vec![2_u64, 10, 100, 1 << 40]),
        prop::sample::select(vec![2_u64, 10, 100, 1 << 40]),
    )
        .prop_map(|(lose, double, delay)| Weather { lose, double, delay })
}

/// How the connection is opened.
#[derive(Clone, Copy, Debug)]
enum Opening {
    Plain,
    Fast,
    Crossed,
}

fn world(seed: u64, mut habits: [Habits; 2], weather: Weather, opening: Opening) -> World {
    if let Opening::Fast = opening {
        for (end, share) in habits.iter_mut().zip([1400, 1]) {
            end.fast_open = share.min(end.total);
        }
    }
    let mut ends = habits.map(Endpoint::new);
    ends[0].open();
    if let Opening::Crossed = opening {
        ends[1].open();
    }
    World {
        rng: Rng(seed),
        now: 0,
        ends,
        flow: None,
        weather,
        towards: BTreeMap::new(),
        onwards: BTreeMap::new(),
        count: 0,
        judged: 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn nothing_lawful_is_dropped(
        seed: u64,
        one in habits(),
        other in habits(),
        weather in weather(),
        opening in prop::sample::select(vec![Opening::Plain, Opening::Fast, Opening::Crossed]),
    ) {
        let mut world = world(seed, [one, other], weather, opening);
        for _ in 0..6000 {
            world.tick()?;
            let done = [world.ends[0].finished(), world.ends[1].finished()];
            if done == [true, true] && world.rng.one_in(50) {
                let side = usize::from(world.rng.one_in(2));
                world.ends[side].close();
            }
        }
    }
}

#[test]
fn a_fair_network_carries_everything() {
    let fair = Weather {
        lose: 1 << 40,
        double: 1 << 40,
        delay: 1 << 40,
    };
    for (opening, total) in [
        (Opening::Plain, 1 << 33),
        (Opening::Fast, 1 << 20),
        (Opening::Crossed, 0),
    ] {
        let habits = Habits {
            isn: u32::MAX - 5,
            shift: Some(14),
            sack: true,
            buffer: 1 << 29,
            total,
            segment: 1 << 27,
            fast_open: 0,
        };
        let mut world = world(7, [habits; 2], fair, opening);
        for _ in 0..100_000 {
            world.tick().expect("nothing is dropped");
        }
        let state = world.flow.as_ref().map(Flow::state);
        assert!(
            world.ends.iter().all(Endpoint::finished),
            "{opening:?}: {state:?}"
        );
        assert_eq!(state, Some(State::TimeWait), "{opening:?}");
        assert!(world.judged > 50);
    }
}

/// A million guesses at a connection that carries data in a window of 64 KiB: one in 2^16 hits a window, one in 2^32 is exact.
#[test]
fn blind_segments_change_nothing() {
    let habits = |isn| Habits {
        isn,
        shift: None,
        sack: true,
        buffer: 65_000,
        total: u64::MAX >> 1,
        segment: 1460,
        fast_open: 0,
    };
    let weather = Weather {
        lose: 50,
        double: 50,
        delay: 10,
    };
    let mut world = world(
        11,
        [habits(u32::MAX - 3), habits(0x4000_0000)],
        weather,
        Opening::Plain,
    );
    let mut guesses = Rng(12);
    let (mut passed, mut tried) = (0_u32, 0_u32);
    while tried < 1_000_000 {
        world.tick().expect("nothing lawful is dropped");
        if world.now < 1000 {
            continue;
        }
        let flow = world.flow.as_mut().expect("an open connection");
        for _ in 0..50 {
            let flags = [RST, RST | ACK, SYN, SYN | ACK, FIN | ACK, ACK][guesses.below(6) as usize];
            let guess = Segment {
                flags,
                window: guesses.next() as u16,
                seq: guesses.next() as u32,
                ack: guesses.next() as u32,
                sack: guesses.next() as u32,
                payload: guesses.below(1461) as u32,
                options: guesses.next() as u32 & 0x3f,
            };
            let (word, halves) = (flow.word, flow.halves);
            let outcome = flow.judge(guesses.one_in(2), guess);
            assert!(
                matches!(outcome, Outcome::Pass(_) | Outcome::Drop(_)),
                "{guess:?}: {outcome:?}"
            );
            assert_eq!((flow.word, flow.halves), (word, halves), "{guess:?}");
            passed += u32::from(outcome == Outcome::Pass(word) && flags & SYN == 0);
            tried += 1;
        }
    }
    assert!(world.ends.iter().all(|end| end.phase == Phase::Open));
    assert_eq!(world.flow.map(|flow| flow.state()), Some(State::Established));
    assert!(passed < 100, "{passed} of {tried} hit a window by chance");
}
