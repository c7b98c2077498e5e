//! A world that checks after every packet that its rules were kept.

use std::collections::HashMap;

use fw_common::abi::{LiveFlow, Proto, Reason, StateWord, Verdict};
use fw_common::wire::LATER;

use crate::model::{Frame, SECOND, World};

/// What identifies a connection, whoever sends: the ends in order.
type Identity = (u32, u8, [End; 2]);
type End = ([u32; 4], u16);

/// The model with a memory of its own of what has passed.
pub struct Watched {
    /// The model.
    pub world: World,
    /// Packets that passed since their flow was opened: true if the first one's sender sent it; and when.
    passed: HashMap<Identity, Vec<(End, u64)>>,
}

/// What of a flow no dropped packet may change.
#[derive(Debug, PartialEq, Eq)]
struct Kept {
    state: u32,
    answer: u32,
    halves: [[u64; 7]; 2],
}

/// Place of a half's time in [`Kept::halves`].
const LAST_SEEN: usize = 2;

impl Watched {
    /// A world whose policy allows these protocols.
    pub fn new(allowed: &[u8]) -> Self {
        Self {
            world: World::new(allowed),
            passed: HashMap::new(),
        }
    }

    /// Sends a frame and checks what must hold for every packet.
    pub fn send(&mut self, frame: Frame<'_>) -> Reason {
        let (kept, main, counted) = (self.kept(), self.in_main(), self.counted());
        let (verdict, reason) = self.world.send(frame);
        let passes = matches!(verdict, Verdict::Pass | Verdict::Forward);
        assert_eq!(passes, reason.allows(), "{verdict:?} for {reason:?}");
        assert!(
            !matches!(reason, Reason::Unset | Reason::TableCorrupt),
            "{reason:?}"
        );
        // What was judged at the way in is counted once more at the way out only if it is dropped there.
        let again = passes && self.forwarded();
        assert_eq!(self.counted(), counted + u64::from(!again), "counted once");
        if !passes {
            // A promotion that finds the table full has come after the flow was confirmed.
            if !matches!(reason, Reason::TableFull) {
                self.unchanged(&kept, reason);
            }
            assert_eq!(self.in_main(), main, "a dropped packet reached the main map");
            return reason;
        }
        self.remember(reason);
        if self.in_main() > main {
            self.promoted();
        }
        reason
    }

    /// A dropped packet may end a flow, which then tells when, but never change it.
    fn unchanged(&self, before: &[(usize, Kept)], reason: Reason) {
        let (after, flows) = (self.kept(), self.flows());
        assert_eq!(before.len(), after.len(), "{reason:?}: another number of flows");
        for (((place, was), (_, mut is)), flow) in before.iter().zip(after).zip(flows) {
            if flow.state.load() & StateWord::DEAD != 0 {
                for (was, is) in was.halves.iter().zip(&mut is.halves) {
                    assert!(is[LAST_SEEN] >= was[LAST_SEEN], "{reason:?}: flow {place}");
                    is[LAST_SEEN] = was[LAST_SEEN];
                }
            }
            assert_eq!(*was, is, "{reason:?}: flow {place}");
        }
    }

    fn in_main(&self) -> usize {
        self.world.main4.borrow().len() + self.world.main6.borrow().len()
    }

    fn counted(&self) -> u64 {
        self.world.counters.borrow().values().sum()
    }

    fn flows(&self) -> Vec<&'static LiveFlow> {
        let mut flows: Vec<&'static LiveFlow> = Vec::new();
        for map in [&self.world.main4, &self.world.half4] {
            flows.extend(map.borrow().values());
        }
        for map in [&self.world.main6, &self.world.half6] {
            flows.extend(map.borrow().values());
        }
        // The maps have no order of their own; flows stay where they are.
        flows.sort_by_key(|flow| std::ptr::from_ref(*flow));
        flows
    }

    fn kept(&self) -> Vec<(usize, Kept)> {
        let flows = self.flows().into_iter();
        flows
            .map(|flow| {
                let halves = [0, 1].map(|side| {
                    let (half, sent) = (&flow.half[side], &flow.sent[side]);
                    [
                        half.packets.load(),
                        half.bytes.load(),
                        half.last_seen.load(),
                        u64::from(sent.seq_end.load()),
                        u64::from(sent.ack.load()),
                        u64::from(sent.edge.load()),
                        u64::from(sent.window.load()),
                    ]
                });
                let kept = Kept {
                    state: flow.state.load() & !(StateWord::DEAD | StateWord::REVOKED),
                    answer: flow.answer.load(),
                    halves,
                };
                (std::ptr::from_ref(flow).addr(), kept)
            })
            .collect()
    }

    /// The last packet's connection and sender, as the pipeline left them in its memory.
    fn last(&self) -> (Identity, End) {
        let scratch = self.world.scratch.borrow();
        let meta = &scratch.meta;
        let (from, to) = ((meta.src, meta.sport), (meta.dst, meta.dport));
        let mut ends = [from, to];
        ends.sort_unstable();
        ((meta.realm as u32, meta.proto, ends), from)
    }

    fn forwarded(&self) -> bool {
        self.world.scratch.borrow().meta.forwarded != 0
    }

    fn remember(&mut self, reason: Reason) {
        let opens = matches!(reason, Reason::Rule | Reason::PickedUp);
        // What is forwarded moves the flow that knows it where it leaves, too.
        let (identity, sender) = self.last();
        let now = self.world.now.get();
        let packets = self.passed.entry(identity).or_default();
        if opens {
            packets.clear();
        }
        packets.push((sender, now));
    }

    /// The packet that was just sent has moved its flow to the main map. For that its opener must have answered an
    /// answer, or have sent on for two seconds although nobody answers; TCP knows no one-way connections.
    fn promoted(&self) {
        let (identity, _) = self.last();
        let scratch = self.world.scratch.borrow();
        let (proto, fragment) = (identity.1, scratch.meta.fragment);
        if fragment == LATER {
            return;
        }
        let packets = &self.passed[&identity];
        let opener = packets[0].0;
        let answer = packets.iter().position(|(sender, _)| *sender != opener);
        let confirmed = answer.is_some_and(|at| packets[at..].iter().any(|(sender, _)| *sender == opener));
        // Both ends of a picked up connection have spoken before; of equal ends nobody can say who spoke.
        let adopted = proto == Proto::TCP && answer.is_some() && self.world.control.pickup_until.load() > 0;
        let equal = identity.2[0] == identity.2[1];
        let lasted = packets.last().map_or(0, |(_, at)| at - packets[0].1);
        let one_way = proto != Proto::TCP && packets.len() > 8 && lasted >= 2 * SECOND;
        assert!(
            confirmed || adopted || equal || one_way,
            "promoted too early: {identity:?} {packets:?}"
        );
    }
}
