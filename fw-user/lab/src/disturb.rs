//! A line that loses, doubles and reorders, for kernels without netem.

use anyhow::Result;

use super::tcx::{self, Tcx, Way};
use super::{End, Namespace, Veth};

/// Of 1,024 packets so many are lost ...
const LOST: i32 = 8;
/// ... so many come twice ...
const DOUBLED: i32 = 6;
/// ... and so many come late, behind others that were sent after them.
const LATE: i32 = 12;

/// Both ways between two ports of a namespace. What they did before is done again when the handle is dropped and the
/// namespace lives on: this handle's programs stand in front of others.
#[derive(Debug)]
pub struct Disturbance {
    _programs: Vec<Tcx>,
}

impl Disturbance {
    /// Disturbs what comes in by either port on its way out of the other.
    ///
    /// # Errors
    /// If a set-up command refuses. Needs TCX (Linux 6.6).
    pub fn between(namespace: &Namespace, a: &str, b: &str) -> Result<Self> {
        let mut programs = Vec::new();
        for (number, (from, to)) in [(a, b), (b, a)].into_iter().enumerate() {
            let (slow, end) = (format!("slow{number}"), format!("late{number}"));
            detour(namespace, &slow, &end)?;
            programs.push(Tcx::attach_first(
                namespace,
                &end,
                Way::In,
                &redirect(namespace.ifindex(to)?),
            )?);
            let code = disturbed(namespace.ifindex(to)?, namespace.ifindex(&slow)?);
            programs.push(Tcx::attach_first(namespace, from, Way::In, &code)?);
        }
        Ok(Self { _programs: programs })
    }
}

/// A pair of ports whose first one is slow: what takes this way comes behind what does not.
fn detour(namespace: &Namespace, slow: &str, end: &str) -> Result<()> {
    let mac = [2, 0, 0, 0, 9, 9];
    Veth::create(
        &End::new(namespace, slow, mac).offloads(true),
        &End::new(namespace, end, [2, 0, 0, 0, 9, 8]),
        9000,
    )?;
    let delay = format!("tc qdisc add dev {slow} root tbf rate 200mbit burst 70000 limit 4000000");
    let words: Vec<&str> = delay.split_whitespace().collect();
    namespace
        .check(&words, std::time::Duration::from_secs(10))
        .map(drop)
}

/// `bpf_redirect(to, 0)`.
fn redirect(to: u32) -> Vec<u64> {
    vec![
        tcx::set(1, to.cast_signed()),
        tcx::set(2, 0),
        tcx::call(tcx::REDIRECT),
        tcx::EXIT,
    ]
}

/// Throws the dice for each packet.
fn disturbed(to: u32, slow: u32) -> Vec<u64> {
    const DROP: i32 = 2;
    let (to, slow) = (to.cast_signed(), slow.cast_signed());
    vec![
        tcx::copy(6, 1),
        tcx::call(tcx::RANDOM),
        tcx::mask(0, 1023),
        tcx::skip_if_not_below(0, LOST, 2),
        tcx::set(0, DROP),
        tcx::EXIT,
        tcx::skip_if_not_below(0, LOST + LATE, 4),
        tcx::set(1, slow),
        tcx::set(2, 0),
        tcx::call(tcx::REDIRECT),
        tcx::EXIT,
        tcx::skip_if_not_below(0, LOST + LATE + DOUBLED, 4),
        tcx::copy(1, 6),
        tcx::set(2, to),
        tcx::set(3, 0),
        tcx::call(tcx::CLONE),
        tcx::set(1, to),
        tcx::set(2, 0),
        tcx::call(tcx::REDIRECT),
        tcx::EXIT,
    ]
}
