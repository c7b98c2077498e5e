//! What the policy says of attacks, fragments and TCP.

use fw_common::abi::{ProtectMode, Screen};
use serde::Serialize;

use super::ZoneIndex;
use super::limit::Throughput;

/// The `tcp:` section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Tcp {
    /// Windows are not judged (`window: loose`).
    pub window_loose: bool,
    /// When connections are adopted that were running before.
    pub pickup: Pickup,
}

/// When connections are adopted that the data plane has not seen open. The rules are asked of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pickup {
    /// Never.
    Never,
    /// For so many seconds after a start without state.
    ColdStart(u32),
    /// Always.
    Always,
}

impl Default for Tcp {
    /// A machine whose firewall starts anew must not lose its running jobs.
    fn default() -> Self {
        Self {
            window_loose: false,
            pickup: Pickup::ColdStart(120),
        }
    }
}

/// What happens to a fragment that comes before the first one of its datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fragments {
    /// It is dropped.
    #[default]
    Strict,
    /// It passes where a rule allows its protocol between the two addresses.
    PassEarly,
}

/// The `protect:` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protect {
    /// What each screen does, by its number.
    pub screens: [ProtectMode; Screen::ALL.len()],
    /// New TCP flows to one destination.
    pub syn_flood: Threshold,
    /// New flows to one destination that are neither TCP nor ICMP.
    pub udp_flood: Threshold,
    /// New ICMP flows to one destination.
    pub icmp_flood: Threshold,
    /// Denied packets of one source.
    pub scan: Threshold,
    /// Seconds that a source is banned.
    pub ban_s: u32,
    /// Unconfirmed flows that a source may open in 34 s; 0: any number.
    pub half_open_cap: u32,
    /// Flows that a source may have; 0: any number.
    pub flows_cap: u32,
    /// Sources in these zones meet no floods, proofs and caps; sorted.
    pub exempt: Vec<ZoneIndex>,
}

/// A rate above which something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold {
    /// What happens.
    pub mode: ProtectMode,
    /// Above which rate.
    pub rate: Throughput,
}

impl Protect {
    /// Bits of the screens in this mode.
    #[must_use]
    pub fn screen_bits(&self, mode: ProtectMode) -> u32 {
        Screen::ALL
            .iter()
            .filter(|screen| self.screens[**screen as usize] == mode)
            .fold(0, |bits, screen| bits | screen.bit())
    }
}
