//! Where the firewall stands.

use fw_common::abi::{Engine, Side};
use fw_user::dataplane::Hook;

use crate::case::Way;

/// Where the firewall stands, and which program judges what comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    HostXdp,
    HostTc,
    InlineXdp,
    InlineTc,
}

impl Stand {
    pub const ALL: [Self; 4] = [Self::HostXdp, Self::HostTc, Self::InlineXdp, Self::InlineTc];

    pub fn inline(self) -> bool {
        matches!(self, Self::InlineXdp | Self::InlineTc)
    }

    pub fn engine(self) -> Engine {
        if matches!(self, Self::HostXdp | Self::InlineXdp) {
            Engine::Xdp
        } else {
            Engine::Tc
        }
    }

    /// The hook that a packet meets, and the side that its port stands on.
    pub fn enters(self, way: Way) -> (Hook, Side) {
        let receives = if self.engine() == Engine::Xdp {
            Hook::XdpIn
        } else {
            Hook::TcIn
        };
        match way {
            Way::Outer => (receives, Side::Outer),
            Way::Inner if self.inline() => (receives, Side::Inner),
            Way::Inner | Way::Own => (Hook::TcOut, Side::Outer),
        }
    }
}

impl Stand {
    /// False for frames that the kernel's test run refuses at TC hooks: IP packets that end inside of the IP header
    /// (`net/bpf/test_run.c`). The namespace suite sends those over a real wire.
    pub fn can_run(self, way: Way, frame: &[u8]) -> bool {
        let header = match frame.get(12..14) {
            Some([0x08, 0x00]) => 34,
            Some([0x86, 0xdd]) => 54,
            _ => 15,
        };
        self.enters(way).0 == Hook::XdpIn || frame.len() >= header
    }
}
