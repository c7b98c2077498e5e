//! What comes next: a mixture of everything, a packet at a time.

use std::collections::VecDeque;

use fastrand::Rng;
use fw_common::abi::Verdict;

use crate::odd;
use crate::pieces;
use crate::place::{Shot, once_in};
use crate::talk::{Flood, Scan, Talk, error};
use crate::tcp::Connection;
use crate::twin::{Said, Via, port, tc_takes};

/// Connections and other exchanges at a time.
const CONNECTIONS: usize = 40;
const TALKS: usize = 24;

/// Who has sent the last packet.
#[derive(Clone, Copy)]
enum Sender {
    Connection(usize),
    Flood,
    Other,
}

pub struct Traffic {
    random: Rng,
    connections: Vec<Connection>,
    talks: Vec<Talk>,
    waiting: VecDeque<Shot>,
    flood: Option<Flood>,
    scan: Option<Scan>,
    sender: Sender,
    /// The last packet leaves again by another port if it passes.
    leaves: Option<Shot>,
    /// Of 64 packets so many are damaged.
    damage: u8,
    /// The last one was.
    pub damaged: bool,
}

impl Traffic {
    pub fn new(mut random: Rng) -> Self {
        let connections = (0..CONNECTIONS).map(|_| Connection::new(&mut random)).collect();
        let talks = (0..TALKS).map(|_| Talk::new(&mut random)).collect();
        let damage = if once_in(&mut random, 5) { 12 } else { 2 };
        Self {
            random,
            connections,
            talks,
            waiting: VecDeque::new(),
            flood: None,
            scan: None,
            sender: Sender::Other,
            leaves: None,
            damage,
            damaged: false,
        }
    }

    /// True while many packets come at once.
    pub fn hurries(&self) -> bool {
        self.flood.is_some() || self.scan.as_ref().is_some_and(Scan::hurries)
    }

    /// A flood begins that is too large for the limit of answers.
    pub fn storm(&mut self) {
        self.flood = Some(Flood::storm(&mut self.random));
    }

    /// The next packet. At least 14 bytes; what leaves has whole IP headers.
    pub fn next(&mut self) -> Shot {
        let mut shot = self.pick();
        self.damaged = self.random.u8(..64) < self.damage;
        if self.damaged {
            odd::mutate(&mut shot.bytes, &mut self.random);
        }
        shot.bytes.resize(shot.bytes.len().max(14), 0);
        if shot.via.egress && !tc_takes(&shot.bytes) {
            shot.via = Via::into(shot.via.port);
        }
        shot
    }

    fn pick(&mut self) -> Shot {
        self.sender = Sender::Other;
        if let Some(shot) = self.leaves.take() {
            return shot;
        }
        if let Some(shot) = self.burst() {
            return shot;
        }
        if !self.waiting.is_empty() && once_in(&mut self.random, 3) {
            let at = if once_in(&mut self.random, 10) {
                self.random.usize(..self.waiting.len())
            } else {
                0
            };
            if let Some(shot) = self.waiting.remove(at) {
                return shot;
            }
        }
        match self.random.u16(..1000) {
            820..895 => self.talk(),
            895..920 => self.error(),
            920..950 => odd::wrong(&mut self.random),
            950..975 => odd::link(&mut self.random),
            975..983 => {
                let train = pieces::train(&mut self.random);
                self.waiting.extend(train);
                self.connection()
            }
            983..986 => {
                self.flood = Some(Flood::new(&mut self.random));
                self.connection()
            }
            986 => {
                self.scan = Some(Scan::new(&mut self.random));
                self.connection()
            }
            987..990 => self.foreign(),
            _ => self.connection(),
        }
    }

    fn burst(&mut self) -> Option<Shot> {
        if self.flood.as_ref().is_some_and(Flood::is_over) {
            self.flood = None;
        }
        if let Some(flood) = &mut self.flood {
            let shot = flood.step(&mut self.random);
            self.sender = Sender::Flood;
            return Some(shot);
        }
        let scan = self.scan.as_mut()?;
        let shot = scan.step(&mut self.random);
        if scan.left == 0 {
            self.scan = None;
        }
        Some(shot)
    }

    fn connection(&mut self) -> Shot {
        let random = &mut self.random;
        let number = random.usize(..CONNECTIONS);
        let connection = &mut self.connections[number];
        if connection.is_over() {
            if once_in(random, 3) {
                connection.again(random);
            } else {
                *connection = Connection::new(random);
            }
        }
        self.sender = Sender::Connection(number);
        connection.step(random)
    }

    fn talk(&mut self) -> Shot {
        let number = self.random.usize(..TALKS);
        let talk = &mut self.talks[number];
        if talk.is_over() {
            *talk = Talk::new(&mut self.random);
        }
        talk.step(&mut self.random)
    }

    fn error(&mut self) -> Shot {
        let shot = if once_in(&mut self.random, 4) {
            let talk = &self.talks[self.random.usize(..TALKS)];
            let (place, last) = talk.quotable();
            error(place, last, &mut self.random)
        } else {
            let connection = &self.connections[self.random.usize(..CONNECTIONS)];
            error(&connection.place, &connection.last, &mut self.random)
        };
        shot.unwrap_or_else(|| self.talk())
    }

    /// What leaves and came by an interface that is not ours, or by one that is.
    fn foreign(&mut self) -> Shot {
        let mut shot = self.connection();
        self.sender = Sender::Other;
        if !shot.via.egress && shot.via.port == port::HOST && tc_takes(&shot.bytes) {
            shot.via = Via {
                came_by: Some(if self.random.bool() {
                    port::UNKNOWN
                } else {
                    port::RAIL
                }),
                ..Via::out_of(port::HOST)
            };
        }
        shot
    }

    /// What was said of the last packet.
    pub fn hear(&mut self, shot: &Shot, said: &Said) {
        let number = match self.sender {
            Sender::Connection(number) => number,
            Sender::Flood => {
                if let Some(flood) = &mut self.flood {
                    flood.hear(said, &mut self.random);
                }
                return;
            }
            Sender::Other => return,
        };
        let connection = &mut self.connections[number];
        connection.hear(said, &mut self.random);
        if let Some(leaves) = connection.place.leaves
            && said.verdict == Verdict::Pass
            && shot.via.port == port::HOST
            && tc_takes(&shot.bytes)
            && self.random.bool()
        {
            self.leaves = Some(Shot {
                bytes: shot.bytes.clone(),
                via: Via {
                    came_by: Some(shot.via.port),
                    ..Via::out_of(leaves)
                },
            });
        }
    }
}
