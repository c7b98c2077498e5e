//! Runs the programs on given frames, without a network (`BPF_PROG_TEST_RUN`).

use std::time::Duration;

use aya::programs::{Program, ProgramError, SchedClassifier, Xdp};
use aya::{TestRun, TestRunAttrs, TestRunOptions, TestRunResult};
use fw_common::abi::{Reason, Verdict};

use super::error::DataPlaneError;
use super::hook::Hook;
use super::load::{DataPlane, program_error};

/// Room for what a program may add to a frame.
const HEADROOM: usize = 256;
/// `sizeof(struct __sk_buff)` (include/uapi/linux/bpf.h).
const SKB_BYTES: usize = 192;

/// What surrounds a frame in a test run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TestContext {
    /// The port, which must exist in this network namespace; 1 is `lo`, the kernel's own choice.
    pub ifindex: u32,
    /// TC: where a forwarded packet came in; 0: this machine made it.
    pub ingress_ifindex: u32,
    /// TC: bytes on the wire of a super-packet with all its headers; 0: the frame's length.
    pub wire_len: u32,
    /// TC: segments of a super-packet; 0: it is none.
    pub gso_segs: u32,
    /// TC: payload bytes in each segment.
    pub gso_size: u32,
    /// Runs in a row; the duration is their mean.
    pub repeat: u32,
}

impl Default for TestContext {
    fn default() -> Self {
        Self {
            ifindex: 1,
            ingress_ifindex: 0,
            wire_len: 0,
            gso_segs: 0,
            gso_size: 0,
            repeat: 1,
        }
    }
}

impl TestContext {
    /// A single run on the port with this index.
    #[must_use]
    pub fn on(ifindex: u32) -> Self {
        Self {
            ifindex,
            ..Self::default()
        }
    }

    /// `struct __sk_buff` with the fields that the kernel lets a test set.
    fn skb(&self) -> [u8; SKB_BYTES] {
        let mut skb = [0; SKB_BYTES];
        let fields = [
            (36, self.ingress_ifindex),
            (40, self.ifindex),
            (160, self.wire_len),
            (164, self.gso_segs),
            (176, self.gso_size),
        ];
        for (offset, value) in fields {
            skb[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
        }
        skb
    }

    /// `struct xdp_md`, six words; the second is `data_end`, the fourth `ingress_ifindex`.
    fn xdp(&self, frame_len: usize) -> [u8; 24] {
        let mut md = [0; 24];
        md[4..8].copy_from_slice(&(frame_len as u32).to_ne_bytes());
        md[12..16].copy_from_slice(&self.ifindex.to_ne_bytes());
        md
    }
}

/// What a program loaded with `dry_run` or `report` says about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// What happens to it.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// Number of the rule in the set; 0: the default, or no rule was asked.
    pub rule: u32,
}

impl Report {
    /// Bits 0..=1: verdict; 2..=9: reason; 10..=31: rule.
    fn decode(value: u32) -> Option<Self> {
        let verdict = match value & 3 {
            0 => Verdict::Drop,
            1 => Verdict::Pass,
            2 => Verdict::Forward,
            _ => Verdict::Reply,
        };
        let reason = Reason::from_number((value >> 2) as u8)?;
        Some(Self {
            verdict,
            reason,
            rule: value >> 10,
        })
    }
}

/// The result of a test run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestOutcome {
    /// What the program returned: an action of XDP or TC, or an encoded report.
    pub returned: u32,
    /// The report, if the programs were loaded to report.
    pub report: Option<Report>,
    /// Mean time of a run.
    pub duration: Duration,
    /// The frame afterwards.
    pub frame: Vec<u8>,
}

impl DataPlane {
    /// Runs a program on a frame (at least 14 bytes, the kernel's minimum).
    ///
    /// # Errors
    ///
    /// What the kernel refused, for instance a port that does not exist; [`DataPlaneError::BadReport`].
    pub fn test_run(
        &self,
        hook: Hook,
        frame: &[u8],
        context: &TestContext,
    ) -> Result<TestOutcome, DataPlaneError> {
        let mut out = vec![0; frame.len() + HEADROOM];
        let (skb, xdp) = (context.skb(), context.xdp(frame.len()));
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(if hook == Hook::XdpIn { &xdp } else { &skb }),
            ctx_out: None,
            repeat: context.repeat,
            attrs: TestRunAttrs::new(),
        };
        let result = self.run(hook, options)?;
        out.truncate(result.data_size_out as usize);
        let report = if self.options.reports() {
            Some(decode(hook, result.return_value)?)
        } else {
            None
        };
        Ok(TestOutcome {
            returned: result.return_value,
            report,
            duration: result.duration,
            frame: out,
        })
    }

    /// Sends copies of a frame through the XDP program as if a port had received them, and lets the kernel act on the
    /// verdicts: passed frames enter the stack, redirected ones leave. A generator of load.
    ///
    /// The kernel recycles pages: what the program writes into one frame may be seen in a later one.
    ///
    /// # Errors
    ///
    /// What the kernel refused.
    pub fn flood(&self, frame: &[u8], ifindex: u32, frames: u32, batch: u32) -> Result<(), DataPlaneError> {
        let xdp = TestContext::on(ifindex).xdp(frame.len());
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: None,
            ctx_in: Some(&xdp),
            ctx_out: None,
            repeat: frames,
            attrs: TestRunAttrs::new().xdp_live_frames(batch),
        };
        self.run(Hook::XdpIn, options).map(drop)
    }

    fn run(&self, hook: Hook, options: TestRunOptions<'_>) -> Result<TestRunResult, DataPlaneError> {
        let program = self.program(hook)?;
        let result = match program {
            Program::Xdp(program) => Xdp::test_run(program, options),
            Program::SchedClassifier(program) => SchedClassifier::test_run(program, options),
            _ => Err(ProgramError::UnexpectedProgramType),
        };
        result.map_err(program_error("running", hook))
    }
}

fn decode(hook: Hook, value: u32) -> Result<Report, DataPlaneError> {
    Report::decode(value).ok_or(DataPlaneError::BadReport {
        program: hook.program(),
        value,
    })
}

#[cfg(test)]
mod tests {
    use fw_common::abi::{Reason, Verdict};

    use super::Report;

    #[test]
    fn a_report_is_decoded() {
        let value = 1 | (Reason::Rule as u32) << 2 | 77 << 10;
        let report = Report {
            verdict: Verdict::Pass,
            reason: Reason::Rule,
            rule: 77,
        };
        assert_eq!(Report::decode(value), Some(report));
    }

    #[test]
    fn unknown_numbers_are_no_report() {
        assert_eq!(Report::decode(255 << 2), None);
        assert_eq!(Report::decode(3 | 254 << 2), None);
    }
}
