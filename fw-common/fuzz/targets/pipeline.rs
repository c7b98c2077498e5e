//! Sequences of packets, plausible and not, with time, policies and ports that change: the whole way of a packet.
#![no_main]

use fw_fuzz::frames::Spec;
use fw_fuzz::model::{Frame, SECOND};
use fw_fuzz::watched::Watched;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Step {
    /// A packet.
    Packet(By, Spec),
    /// The packet of the last step with one number changed, or the same one by another port.
    Again(By),
    /// Any bytes.
    Bytes(By, Vec<u8>),
    /// Time passes: ms.
    Wait(u16),
    /// Hours pass.
    Long(u8),
    /// A new policy: which protocols it allows.
    Policy(u8),
    /// Running connections are adopted for so many seconds.
    Pickup(u8),
}

/// How a packet comes.
#[derive(Arbitrary, Debug, Clone, Copy)]
struct By {
    port: u8,
    egress: bool,
    came_by: u8,
    tag: Option<u8>,
}

impl By {
    fn frame(self, bytes: &[u8]) -> Frame<'_> {
        let mut frame = Frame::new(bytes, 1 + u32::from(self.port % 3));
        frame.egress = self.egress;
        frame.came_by = if self.egress {
            u32::from(self.came_by & 3)
        } else {
            0
        };
        if let Some(tag) = self.tag {
            frame.tag = u32::from(tag);
        }
        frame
    }
}

/// The allowed protocols of a policy: few policies, because the model keeps each table set that it has made.
fn protocols(bits: u8) -> Vec<u8> {
    let known: [&[u8]; 4] = [&[6], &[17], &[1, 58], &[132, 47, 50, 51]];
    let chosen = (0..4).filter(|bit| bits & (1 << bit) != 0);
    chosen.flat_map(|bit| known[bit]).copied().collect()
}

/// Policies of one input, for the same reason.
const POLICIES: u32 = 8;

fuzz_target!(|input: (u8, Vec<Step>)| {
    let (policy, steps) = input;
    let mut watched = Watched::new(&protocols(policy | 3));
    let mut last = Vec::new();
    for step in steps.iter().take(64) {
        let world = &watched.world;
        match step {
            Step::Packet(by, spec) => {
                last = spec.frame();
                watched.send(by.frame(&last));
            }
            Step::Again(by) => {
                watched.send(by.frame(&last));
            }
            Step::Bytes(by, bytes) => {
                watched.send(by.frame(bytes));
            }
            Step::Wait(ms) => world.now.set(world.now.get() + u64::from(*ms) * 1_000_000),
            Step::Long(hours) => world.now.set(world.now.get() + u64::from(*hours) * 3600 * SECOND),
            Step::Policy(bits) => {
                if world.generation.get() < POLICIES {
                    world.apply(&protocols(*bits));
                }
            }
            Step::Pickup(seconds) => {
                let until = world.now.get() + u64::from(*seconds) * SECOND;
                world.control.pickup_until.store(until);
            }
        }
    }
});
