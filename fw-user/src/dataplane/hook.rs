//! The three places where the data plane's programs stand.

use std::fmt;

use aya::programs::TcAttachType;
use aya_obj::generated::bpf_attach_type;

/// A place in a packet's way, and the program that belongs there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hook {
    /// Native XDP: what a port receives.
    XdpIn,
    /// TC ingress: what a port receives.
    TcIn,
    /// TC egress: what this machine sends by a port.
    TcOut,
}

impl Hook {
    /// All hooks.
    pub const ALL: [Self; 3] = [Self::XdpIn, Self::TcIn, Self::TcOut];

    /// The program's name in the object and in the kernel.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::XdpIn => "dpufw_xdp",
            Self::TcIn => "dpufw_tc_in",
            Self::TcOut => "dpufw_tc_out",
        }
    }

    /// Short name: in pins, JSON and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::XdpIn => "xdp",
            Self::TcIn => "tc_in",
            Self::TcOut => "tc_out",
        }
    }

    /// The hook with this short name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|hook| hook.name() == name)
    }

    /// The attach type of this hook's BPF link.
    pub(super) const fn link_type(self) -> bpf_attach_type {
        match self {
            Self::XdpIn => bpf_attach_type::BPF_XDP,
            Self::TcIn => bpf_attach_type::BPF_TCX_INGRESS,
            Self::TcOut => bpf_attach_type::BPF_TCX_EGRESS,
        }
    }

    /// The clsact side of a TC hook.
    pub(super) const fn clsact_side(self) -> Option<TcAttachType> {
        match self {
            Self::XdpIn => None,
            Self::TcIn => Some(TcAttachType::Ingress),
            Self::TcOut => Some(TcAttachType::Egress),
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
