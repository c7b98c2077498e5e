//! Frames of a capture, each judged by itself against the flow tables as they are.

use std::net::IpAddr;

use fw_common::abi::{LinkKind, Reason};

use super::super::core::Agent;
use super::kernel::{self, Place};
use super::no_text;
use crate::control::{FrameAnswer, FrameQuestion};
use crate::dataplane::Report;
use crate::exit::Failure;
use crate::replay::{self, Link};

/// Ethernet header for a packet that was captured without one, less its type.
const MACS: [u8; 12] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
/// No packet is longer than this.
const LONGEST: u32 = 65_535 + 18;

impl Agent {
    /// Judges frames. Without a role each meets the first port whose answer fits its addresses and its flow; a packet of
    /// this machine's own is one that it sends.
    ///
    /// # Errors
    /// With exit code 2 for a role that no port has, or for text that is no frame.
    pub async fn judge_frames(
        &self,
        frames: &[FrameQuestion],
        role: Option<&str>,
        peer: Option<&str>,
    ) -> Result<Vec<FrameAnswer>, Failure> {
        let in_force = self.policy.lock().await;
        let current = in_force.as_ref().ok_or_else(no_text)?;
        tokio::task::block_in_place(|| {
            let mut answers = Vec::with_capacity(frames.len());
            let arriving = self.places(role, peer, false)?;
            let leaving = self.places(role, peer, true)?;
            let own: Vec<IpAddr> = current.own.iter().copied().collect();
            for frame in frames {
                let link = if frame.raw { Link::Raw } else { Link::Ethernet };
                let mut bytes =
                    replay::from_hex(&frame.hex).map_err(|error| Failure::input(error.to_string()))?;
                bytes.resize(bytes.len().max(frame.length.min(LONGEST) as usize), 0);
                let seen = replay::look(&bytes, link);
                let leaves = seen.leaves(&own);
                let judged = self.judge_at(if leaves { &leaving } else { &arriving }, &bytes, link);
                let (kernel, error) = match judged {
                    Ok((place, report)) => (Some(kernel::answer(&current.policy, place, report)), None),
                    Err(failure) => (None, Some(failure.message)),
                };
                answers.push(FrameAnswer {
                    flow: seen.flow,
                    kernel,
                    error,
                });
            }
            Ok(answers)
        })
    }

    /// The first port whose answer fits, else the first one.
    fn judge_at<'a>(
        &self,
        places: &'a [Place],
        bytes: &[u8],
        link: Link,
    ) -> Result<(&'a Place, Report), Failure> {
        let mut first = None;
        for place in places {
            let report = self.judge_frame(place, bytes, link)?;
            if !matches!(report.reason, Reason::PlaneMismatch | Reason::WrongSide) {
                return Ok((place, report));
            }
            first = first.or(Some((place, report)));
        }
        first.ok_or_else(|| Failure::no("there is no port"))
    }

    fn judge_frame(&self, place: &Place, bytes: &[u8], link: Link) -> Result<Report, Failure> {
        let raw_port = place.config.link == LinkKind::Raw as u8;
        // Egress programs of such ports see no Ethernet header either.
        match (link, raw_port) {
            (Link::Raw, false) => {
                let version = bytes.first().map_or(0, |byte| byte >> 4);
                let ethertype: u16 = if version == 6 { 0x86dd } else { 0x0800 };
                let frame = [&MACS, ethertype.to_be_bytes().as_slice(), bytes].concat();
                self.test_run(place, &frame)
            }
            (Link::Ethernet, true) => self.ask_kernel(place, bytes, tagged(bytes)),
            _ => self.test_run(place, bytes),
        }
    }
}

/// True if the frame has a VLAN tag.
fn tagged(frame: &[u8]) -> bool {
    matches!(frame.get(12..14), Some([0x81, 0] | [0x88, 0xa8]))
}
