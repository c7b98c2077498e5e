//! Data shared between the kernel programs and user space.
//!
//! Every type is `repr(C)`, made of integers only, without implicit padding, and its size is asserted at compile time.
//! A change of any layout needs a new [`ABI_VERSION`]; `fw-common/tests/abi.rs` holds a snapshot that says so.
//! Addresses are numeric values in host byte order ([`Ip4`], [`Ip6`]), ports likewise: they are converted once, in
//! [`crate::wire`].

mod event;
mod flow;
mod key;
mod maps;
mod port;
mod protect;
mod reason;
mod set;

pub use event::{Event, EventKind};
pub use flow::{
    Flow, FlowFlags, FlowOf, Half, HalfOf, LiveFlow, LiveHalf, LiveSent, Sent, SentOf, Shared, Side,
    StateWord,
};
pub use key::{Ip4, Ip6, Key4, Key6, Proto};
pub use maps::{
    COUNTER_SLOTS, Control, ControlFlags, ControlOf, Count, HEARTBEAT_NS, Levels, LevelsOf, LimitKey,
    LiveControl, LiveLevels, LiveSource, MAPS, MapDef, MapKind, NOTED, PRESSURE_SLOTS, Presence,
    SOURCE_WORDS, Source, SourceKey, SourceOf, map_names,
};
pub use port::{Engine, LinkKind, Mode, PORT_SLOTS, PortConfig, port_slot};
pub use protect::{LimitKind, LimitPer, LimitRecord, ProtectMode, ProtectRecord, Screen, threshold};
pub use reason::{Action, DefaultAction, Reason, Verdict};
pub use set::{
    BEYOND, BLOCK_ATOMS, CHUNK_BYTES, CHUNK_LINES, Chunk, ClassFlags, ClassRecord, Decision, ExtraRecord,
    Features, LINE_BYTES, LINE_WORDS, Line, LinkFlags, MAX_BLOCKS, MAX_LIMITS, MAX_V6_LEVELS,
    PAGE_DIRECTORIES, PROTO_DIRECT, PairEntry, REALM_NONE, ROW_BLOCKS, RuleFlags, RuleRecord, SET_MAGIC,
    SetHeader, V4_LEAF, V6_SUBTREE, V6Tree, checksum,
};

/// Version of every layout in this module. It is part of the pin path, so programs of one version never meet maps of
/// another.
pub const ABI_VERSION: u32 = 7;
