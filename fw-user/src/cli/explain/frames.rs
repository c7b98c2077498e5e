//! Frames from hexadecimal text and from captures.

use std::io::Read;
use std::path::Path;

use fw_policy::model::Plane;
use jiff::Timestamp;
use serde::Serialize;

use super::super::output::{self, Paint};
use super::super::unexpected;
use super::{Explain, Offline};
use crate::control::{Client, FrameAnswer, FrameQuestion, Reply, Request};
use crate::exit::{Exit, Failure};
use crate::replay::{Capture, Captured, Judged, Link, Memory, Ports, Replay, from_hex};

/// Frames in one request to the agent, and about so many digits.
const BATCH: usize = 512;
const BATCH_DIGITS: usize = 4 << 20;

/// Where packets come from.
pub(super) enum Packets {
    One(Option<Captured>),
    Capture(Box<Capture>),
}

impl Packets {
    /// One frame in hexadecimal digits; `-`: from standard input.
    pub(super) fn hex(text: &str) -> Result<Self, Failure> {
        let mut read = String::new();
        let text = if text == "-" {
            std::io::stdin().read_to_string(&mut read).map_err(|error| {
                Failure::input(format!("cannot read the frame from standard input: {error}"))
            })?;
            read.as_str()
        } else {
            text
        };
        let bytes = from_hex(text).map_err(|error| Failure::input(error.to_string()))?;
        Ok(Self::One(Some(Captured {
            time: None,
            link: Link::Ethernet,
            length: bytes.len() as u32,
            bytes,
        })))
    }

    pub(super) fn capture(path: &Path) -> Result<Self, Failure> {
        let capture = Capture::open(path).map_err(|error| Failure::input(error.to_string()))?;
        Ok(Self::Capture(Box::new(capture)))
    }

    fn next(&mut self) -> Result<Option<Captured>, Failure> {
        match self {
            Self::One(packet) => Ok(packet.take()),
            Self::Capture(capture) => capture
                .next_packet()
                .map_err(|error| Failure::input(error.to_string())),
        }
    }
}

/// A row of the table, an object of the JSON.
#[derive(Serialize)]
struct Row {
    time: Option<Timestamp>,
    flow: String,
    verdict: String,
    reason: String,
    sentence: String,
    rule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<String>,
    /// The capture holds only a part of the packet.
    cut: bool,
}

impl Row {
    fn replayed(packet: &Captured, judged: Judged) -> Self {
        Self {
            time: packet.time,
            flow: judged.flow,
            verdict: judged.verdict.to_owned(),
            reason: judged.reason.to_owned(),
            sentence: judged.sentence.to_owned(),
            rule: judged.rule,
            port: None,
            cut: judged.cut,
        }
    }

    fn answered(packet: &Captured, answer: FrameAnswer) -> Self {
        let cut = packet.length as usize > packet.bytes.len();
        let (time, flow) = (packet.time, answer.flow);
        match answer.kernel {
            Some(kernel) => Self {
                time,
                flow,
                verdict: kernel.verdict,
                reason: kernel.reason,
                sentence: kernel.sentence,
                rule: kernel.rule,
                port: Some(kernel.port),
                cut,
            },
            None => Self {
                time,
                flow,
                verdict: "unknown".to_owned(),
                reason: "not_asked".to_owned(),
                sentence: answer.error.unwrap_or_default(),
                rule: None,
                port: None,
                cut,
            },
        }
    }

    fn passes(&self) -> bool {
        matches!(self.verdict.as_str(), "pass" | "forward")
    }
}

/// What was printed.
struct Printer {
    json: bool,
    table: comfy_table::Table,
    packets: u64,
    passed: u64,
    cut: u64,
}

impl Printer {
    fn new(json: bool) -> Self {
        Self {
            json,
            table: output::table(&["TIME", "FLOW", "VERDICT", "REASON", "RULE"]),
            packets: 0,
            passed: 0,
            cut: 0,
        }
    }

    fn row(&mut self, row: &Row) -> anyhow::Result<()> {
        self.packets += 1;
        self.passed += u64::from(row.passes());
        self.cut += u64::from(row.cut);
        if self.json {
            return output::json(row);
        }
        let dash = || "-".to_owned();
        let paint = if row.passes() { Paint::Green } else { Paint::Red };
        self.table.add_row([
            comfy_table::Cell::new(row.time.map_or_else(dash, |time| format!("{time:.6}"))),
            comfy_table::Cell::new(&row.flow),
            output::cell(&row.verdict, paint),
            comfy_table::Cell::new(&row.reason),
            comfy_table::Cell::new(row.rule.clone().unwrap_or_else(dash)),
        ]);
        if row.reason == "not_asked" {
            eprintln!("packet {}: {}", self.packets, row.sentence);
        }
        Ok(())
    }

    fn finish(mut self) -> Exit {
        if !self.json {
            output::print(&mut self.table);
        }
        if self.cut > 0 {
            eprintln!(
                "of {} only a part was captured; what is behind it was not judged",
                output::count(self.cut, "packet")
            );
        }
        if self.packets > 0 && self.passed == self.packets {
            Exit::Yes
        } else {
            Exit::No
        }
    }
}

/// Judges packets by a policy, one after the other.
pub(super) fn offline(explain: &Explain, compiled: &Offline, mut packets: Packets) -> anyhow::Result<Exit> {
    let Offline {
        policy,
        environment,
        tables,
    } = compiled;
    let bound: Vec<&str> = policy.planes.iter().flat_map(bound).collect();
    if explain.role.is_none() && !bound.is_empty() {
        return Err(Failure::input(format!(
            "this policy binds planes to ports; say with --in by which port the packets come: {}",
            bound.join(", ")
        ))
        .into());
    }
    let number = |role: &Option<String>| {
        let place = role
            .as_ref()
            .and_then(|role| environment.roles.iter().position(|own| own == role));
        place.map(|place| place as u8)
    };
    let ports = Ports {
        role: number(&explain.role).unwrap_or(0),
        peer: number(&explain.peer),
    };
    let memory = Memory::default();
    let mut replay = Replay::new(&memory, policy, tables, environment, ports);
    let mut printer = Printer::new(explain.json);
    while let Some(packet) = packets.next()? {
        let judged = replay.judge(&packet);
        printer.row(&Row::replayed(&packet, judged))?;
    }
    Ok(printer.finish())
}

fn bound(plane: &Plane) -> impl Iterator<Item = &str> {
    plane.roles.iter().map(String::as_str)
}

/// Asks the running data plane about packets, each by itself.
pub(super) async fn live(explain: &Explain, mut packets: Packets) -> anyhow::Result<Exit> {
    let mut printer = Printer::new(explain.json);
    loop {
        let batch = batch(&mut packets)?;
        if batch.is_empty() {
            return Ok(printer.finish());
        }
        let question = |packet: &Captured| FrameQuestion {
            hex: hex(&packet.bytes),
            length: packet.length,
            raw: packet.link == Link::Raw,
        };
        let mut client = Client::connect(&explain.agent.socket).await?;
        client
            .request(&Request::Judge {
                frames: batch.iter().map(question).collect(),
                role: explain.role.clone(),
                peer: explain.peer.clone(),
            })
            .await?;
        let mut answered = batch.iter();
        while let Some(reply) = client.reply().await? {
            let (Reply::Judged(answer), Some(packet)) = (&reply, answered.next()) else {
                return Err(unexpected(&reply));
            };
            printer.row(&Row::answered(packet, answer.as_ref().clone()))?;
        }
    }
}

fn batch(packets: &mut Packets) -> Result<Vec<Captured>, Failure> {
    let (mut batch, mut digits) = (Vec::new(), 0);
    while batch.len() < BATCH && digits < BATCH_DIGITS {
        let Some(packet) = packets.next()? else { break };
        digits += 2 * packet.bytes.len();
        batch.push(packet);
    }
    Ok(batch)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}
