//! The data plane in the kernel, and the only place that names aya: load, attach, pin, swap, list, test-run.
//!
//! - [`DataPlane::open`] loads the programs and takes over what a predecessor pinned ([`Options`]).
//! - [`DataPlane::attach`] puts them in front of a port's packets ([`PortPlan`]).
//! - [`Tables`] are the maps: [`Tables::apply`] puts a policy into force, [`Tables::age`] removes flows that are over.
//! - [`DataPlane::events`] reads denied packets.
//! - [`list_attached`], [`detach_all`] and [`Tables::open_pinned`] work without an agent.
//! - [`DataPlane::test_run`] judges a frame without a network.
//!
//! Pinned, everything outlives the process. In the pin directory: the maps by name, `link_<ifindex>_<hook>`, and as
//! symbolic links the facts `netns` and `clsact_<ifindex>_<hook>`.

mod ageing;
mod attach;
mod bpffs;
mod btf;
mod clsact;
mod counters;
mod counts;
mod error;
mod events;
mod flows;
mod hook;
mod inventory;
mod kernel_log;
mod levels;
mod links;
mod load;
mod memory;
mod mmap;
mod object;
mod options;
mod pins;
mod plain;
mod presence;
mod privilege;
mod question;
mod realtime;
mod sets;
mod shape;
mod sys;
mod tables;
mod test_run;

pub use ageing::{Aged, Fate, GRACE_NS};
pub use attach::{Change, HookChange, PortPlan};
pub use error::DataPlaneError;
pub use events::EventReader;
pub use flows::{FlowKey, FlowTable, coarse_now};
pub use hook::Hook;
pub use inventory::{Attachment, Means, detach_all, layouts, list_attached};
pub use kernel_log::KernelLog;
pub use load::{DataPlane, ProgramSize};
pub use memory::MapMemory;
pub use object::object;
pub use options::{BPFFS, FlowSizes, Options, TcFlavour, default_pin_dir};
pub use presence::Filling;
pub use question::{frame, ip_offset};
pub use sets::generation_after;
pub use tables::Tables;
pub use test_run::{Report, TestContext, TestOutcome};
