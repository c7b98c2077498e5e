//! What has occurred: reasons, cells of the TCP table, kinds of packets, and how many packets belong to flows that were
//! established.

use std::collections::HashMap;

use anyhow::{Result, ensure};
use fw_common::abi::{LiveFlow, Proto, Reason, StateWord};
use fw_common::pipeline::{Family, FlowMaps, Scratch, V4, V6};
use fw_common::tcp::{Class, State};
use fw_common::wire::{self, Kind, LATER, tcp_flag};
use fw_user::dataplane::FlowKey;

use crate::model::World;
use crate::twin::{Said, Twin, Via};

/// How often everything must occur in the full run.
pub const LEAST: u64 = 100;

/// Reasons that no packet of a test run can have, and why.
pub const UNREACHABLE: [(Reason, &str); 5] = [
    (Reason::Unset, "would be a bug of the data plane"),
    (
        Reason::TableError,
        "the kernel refuses an insertion for no other reason than those below; fw-common/tests/pipeline.rs has it",
    ),
    (
        Reason::TableBusy,
        "another CPU must hold the table's lock; a test run has one packet at a time; fw-common/tests/pipeline.rs has it",
    ),
    (
        Reason::TableMemory,
        "another CPU must hold the last free entry; fw-common/tests/pipeline.rs has it",
    ),
    (
        Reason::Scan,
        "counted only (the column of noted packets): what is dropped for it is `banned`",
    ),
];

/// Kinds of packets, each of which must occur.
const KINDS: [&str; 16] = [
    "IPv4",
    "IPv6",
    "no IP",
    "refused by the parser",
    "truncated",
    DAMAGED,
    "fragments",
    "one tag",
    "two tags",
    "IPv6 with extension headers",
    "IPv4 with options or AH",
    "at TC egress",
    "at TC ingress",
    "at XDP",
    "forwarded by this machine",
    "super-packets",
];
/// The kind that a frame does not tell: bits and bytes were changed after it was made.
pub const DAMAGED: &str = "mutated at random";

const STATES: usize = 9;
const CLASSES: [Class; 5] = [Class::Syn, Class::SynAck, Class::Fin, Class::Ack, Class::Rst];

/// One life of a flow.
struct Life {
    created: u64,
    packets: u64,
    established: bool,
}

/// Where a TCP segment met its flow.
#[derive(Clone, Copy, Debug)]
pub struct Met {
    key: FlowKey,
    /// State, and 1 for the answering side; `None`: there was no flow.
    place: Option<(usize, usize)>,
    class: usize,
}

#[derive(Default)]
pub struct Tally {
    pub packets: u64,
    pub reasons: HashMap<u8, u64>,
    cells: [[[u64; CLASSES.len()]; 2]; STATES],
    without: [u64; CLASSES.len()],
    lives: HashMap<FlowKey, Life>,
    established: u64,
    kinds: HashMap<&'static str, u64>,
}

fn class(flags: u8) -> usize {
    use tcp_flag::{ACK, FIN, RST, SYN};
    if flags & RST != 0 {
        4
    } else if flags & SYN != 0 {
        usize::from(flags & ACK != 0)
    } else if flags & FIN != 0 {
        2
    } else {
        3
    }
}

/// The live entry of the key in `s`.
fn entry<'a, F>(world: &'a World, s: &Scratch) -> Option<&'a LiveFlow>
where
    F: Family,
    &'a World: FlowMaps<'a, F::Key>,
{
    let now = world.now.get();
    let live = |flow: &&LiveFlow| flow.alive(now);
    FlowMaps::<F::Key>::main(world, F::key(s))
        .filter(live)
        .or_else(|| FlowMaps::<F::Key>::half_open(world, F::key(s)).filter(live))
}

fn of_key<'a>(world: &'a World, key: &FlowKey, s: &mut Scratch) -> Option<&'a LiveFlow> {
    match key {
        FlowKey::V4(key) => {
            s.key4 = *key;
            entry::<V4>(world, s)
        }
        FlowKey::V6(key) => {
            s.key6 = *key;
            entry::<V6>(world, s)
        }
    }
}

impl Tally {
    /// Looks at a frame before it is judged; `s` is spare memory.
    pub fn meet(&mut self, twin: &Twin, bytes: &[u8], via: &Via, s: &mut Scratch) -> Option<Met> {
        let shown = twin.shown(bytes, via);
        let port = twin.ports.get(via.port)?;
        let parsed = wire::parse(shown, port.link, port.realm, &mut s.meta);
        self.note_kinds(s, parsed, via);
        let v6 = match parsed.checked_sub(wire::PARSED)? {
            kind if kind == Kind::Ipv4 as u32 => false,
            kind if kind == Kind::Ipv6 as u32 => true,
            _ => return None,
        };
        if s.meta.proto != Proto::TCP || s.meta.fragment == LATER {
            return None;
        }
        let key = if v6 {
            V6::make_key(s);
            FlowKey::V6(s.key6)
        } else {
            V4::make_key(s);
            FlowKey::V4(s.key4)
        };
        let from_hi = s.meta.from_hi != 0;
        let class = class(s.meta.tcp_flags);
        let place = of_key(&twin.world, &key, s).map(|flow| {
            let state = StateWord(flow.state.load()).state() as usize;
            let opener_hi = flow.flags.load() & 1 != 0;
            (state.min(STATES - 1), usize::from(opener_hi != from_hi))
        });
        Some(Met { key, place, class })
    }

    /// Notes a kind that the frame does not tell.
    pub fn note_kind(&mut self, kind: &'static str) {
        *self.kinds.entry(kind).or_default() += 1;
    }

    fn note_kinds(&mut self, s: &Scratch, parsed: u32, via: &Via) {
        let m = &s.meta;
        let mut note = |met: bool, kind: &'static str| {
            if met {
                *self.kinds.entry(kind).or_default() += 1;
            }
        };
        note(m.family == 4, "IPv4");
        note(m.family == 6, "IPv6");
        note(m.family == 0, "no IP");
        note(parsed & wire::PARSED == 0, "refused by the parser");
        note(parsed == Reason::Truncated as u32, "truncated");
        note(m.fragment != 0, "fragments");
        note(m.vlan != 0 && m.inner_vlan == 0, "one tag");
        note(m.inner_vlan != 0, "two tags");
        note(
            m.family == 6 && m.l4_offset > m.l3_offset + 40,
            "IPv6 with extension headers",
        );
        note(
            m.family == 4 && m.l4_offset > m.l3_offset + 20,
            "IPv4 with options or AH",
        );
        note(via.egress, "at TC egress");
        note(via.tc && !via.egress, "at TC ingress");
        note(!via.tc, "at XDP");
        note(via.came_by.is_some(), "forwarded by this machine");
        note(via.super_packet.is_some(), "super-packets");
    }

    /// Notes what was said of it.
    pub fn note(&mut self, twin: &Twin, met: Option<Met>, said: &Said, s: &mut Scratch) {
        self.packets += 1;
        *self.reasons.entry(said.reason as u8).or_default() += 1;
        let Some(met) = met else { return };
        // Elsewhere the machine was not asked.
        let judged = !matches!(
            said.reason,
            Reason::WrongSide | Reason::PolicyRevoked | Reason::TableCorrupt | Reason::NoPolicy
        ) && !(140..=159).contains(&(said.reason as u8));
        match met.place {
            Some((state, direction)) if judged => self.cells[state][direction][met.class] += 1,
            None if judged => self.without[met.class] += 1,
            _ => {}
        }
        let after = of_key(&twin.world, &met.key, s).map(|flow| (flow.created.load(), flow.state.load()));
        let Some((created, word)) = after else {
            // The packet ended the flow, or there is none.
            if met.place.is_some()
                && let Some(life) = self.lives.get_mut(&met.key)
            {
                life.packets += 1;
            }
            return;
        };
        let life = self.lives.entry(met.key).or_insert(Life {
            created,
            packets: 0,
            established: false,
        });
        if life.created != created {
            self.established += if life.established { life.packets } else { 0 };
            (life.created, life.packets, life.established) = (created, 0, false);
        }
        life.packets += 1;
        life.established |= (State::Established as u32..=State::TimeWait as u32)
            .contains(&StateWord(word).state())
            && StateWord(word).has(StateWord::CONFIRMED);
    }

    /// All flows are over.
    pub fn end_of_flows(&mut self) {
        for (_, life) in self.lives.drain() {
            self.established += if life.established { life.packets } else { 0 };
        }
    }

    /// Prints the tables.
    pub fn print(&self, twin: &Twin) {
        let noted = twin.noted();
        println!("{:<24} {:>9} {:>9}", "reason", "packets", "noted");
        for reason in Reason::ALL {
            let count = self.reasons.get(&(*reason as u8)).copied().unwrap_or_default();
            let only = noted.get(&u32::from(*reason as u8)).copied().unwrap_or_default();
            println!("{:<24} {count:>9} {only:>9}", reason.name());
        }
        println!(
            "\n{:<12} {:<9} {:>8} {:>8} {:>8} {:>8} {:>8}",
            "state", "from", "SYN", "SYN-ACK", "FIN", "ACK", "RST"
        );
        let row = |state: &str, from: &str, cells: &[u64]| {
            print!("{state:<12} {from:<9}");
            for count in cells {
                print!(" {count:>8}");
            }
            println!();
        };
        row("no flow", "", &self.without);
        for (state, directions) in State::ALL.iter().zip(&self.cells).skip(1) {
            row(state.name(), "opener", &directions[0]);
            row("", "answerer", &directions[1]);
        }
        let mut kinds: Vec<_> = self.kinds.iter().collect();
        kinds.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        println!();
        for (kind, count) in kinds {
            println!("{kind:<28} {count:>9}");
        }
        println!(
            "{:<28} {:>9} of {}",
            "in flows that were established", self.established, self.packets
        );
    }

    /// Fails if something has not occurred often enough: `least` times.
    pub fn check(&self, least: u64) -> Result<()> {
        let mut missing = Vec::new();
        for reason in Reason::ALL {
            let count = self.reasons.get(&(*reason as u8)).copied().unwrap_or_default();
            let unreachable = UNREACHABLE.iter().any(|(known, _)| known == reason);
            if unreachable {
                ensure!(count == 0, "{} occurred, which cannot be", reason.name());
            } else if count < least {
                missing.push(format!("{} ({count})", reason.name()));
            }
        }
        for (state, directions) in State::ALL.iter().zip(&self.cells).skip(1) {
            for (direction, cells) in ["opener", "answerer"].iter().zip(directions) {
                for (class, count) in CLASSES.iter().zip(cells) {
                    if *count < least {
                        missing.push(format!("{} {direction} {class:?} ({count})", state.name()));
                    }
                }
            }
        }
        for kind in KINDS {
            let count = self.kinds.get(kind).copied().unwrap_or_default();
            if count < least {
                missing.push(format!("{kind} ({count})"));
            }
        }
        ensure!(
            missing.is_empty(),
            "occurred less than {least} times: {}",
            missing.join(", ")
        );
        ensure!(
            self.established * 2 >= self.packets,
            "only {} of {} packets are in flows that were established",
            self.established,
            self.packets
        );
        Ok(())
    }
}
