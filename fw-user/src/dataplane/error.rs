//! What can go wrong between user space and the kernel, as sentences.

use std::io;
use std::path::PathBuf;

use aya::programs::ProgramError;

use super::hook::Hook;

/// A failure of the data plane. The message says what failed and how to mend it; the cause is its `source()`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataPlaneError {
    /// The binary carries no BPF object.
    #[error("this dpufw was built without its BPF object: run `cargo xtask build`")]
    NoObject,
    /// The process lacks capabilities.
    #[error(
        "the data plane needs the capabilities {missing}: run dpufw as root, or grant them to its service"
    )]
    NoPrivilege {
        /// The missing capabilities, for people.
        missing: String,
    },
    /// Packets may interrupt each other on one CPU.
    #[error(
        "this kernel is PREEMPT_RT, or {path} cannot be read: there the work on one packet may interrupt that on another one on the same \
         CPU, and take its memory; run a kernel without it"
    )]
    Realtime {
        /// What would say 0, or not exist, on another kernel.
        path: &'static str,
    },
    /// There is no BPF file system where one is needed.
    #[error("{path} is not on a BPF file system and cannot be made one: run `mount -t bpf bpf /sys/fs/bpf`")]
    NoBpffs {
        /// The pin directory or its root.
        path: PathBuf,
        /// Why mounting failed.
        #[source]
        source: io::Error,
    },
    /// Nothing is pinned where a running data plane was expected.
    #[error("no data plane is running: nothing is pinned in {pin_dir}; start the agent with `dpufw run`")]
    NotRunning {
        /// The pin directory.
        pin_dir: PathBuf,
    },
    /// The pinned links guard the interfaces of another network namespace.
    #[error(
        "{pin_dir} belongs to a data plane in the network namespace {theirs}, but this process is in {ours}: run dpufw \
         there, or give this one another pin directory"
    )]
    OtherNamespace {
        /// The pin directory.
        pin_dir: PathBuf,
        /// Recorded namespace, as /proc names it.
        theirs: String,
        /// This thread's namespace.
        ours: String,
    },
    /// A pinned map is not what this version expects.
    #[error(
        "{path} holds a map whose {what} is {found}, and this version needs {wanted}; nothing was changed. Go back to the \
         version that made it, or take it down with `dpufw detach --yes`, which opens the ports and forgets the flows"
    )]
    PinnedShape {
        /// The pin.
        path: PathBuf,
        /// The property that differs.
        what: &'static str,
        /// What the pinned map has.
        found: String,
        /// What the ABI says.
        wanted: String,
    },
    /// The object's own map differs from the ABI.
    #[error(
        "the map {map} of the BPF object has a {what} of {found}, but the ABI says {wanted}: rebuild with `cargo xtask build`"
    )]
    ObjectShape {
        /// The map.
        map: &'static str,
        /// The property that differs.
        what: &'static str,
        /// What the object has.
        found: String,
        /// What the ABI says.
        wanted: String,
    },
    /// The object lacks a map or a program.
    #[error("the BPF object has no {what} named {name}: rebuild with `cargo xtask build`")]
    Missing {
        /// "map" or "program".
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The object could not be parsed or its maps not made.
    #[error("the BPF object could not be loaded")]
    Load(#[source] Box<aya::EbpfError>),
    /// The tables are larger than the memory that is left.
    #[error(
        "the tables need {needed} MiB of kernel memory and {available} MiB are available; nothing was made. The largest is \
         {map}: {entries} entries of {per_entry} bytes and their buckets, {bytes} MiB. Set `tables: {{ {setting}: {largest} }}` \
         or less in agent.yaml"
    )]
    NoMemory {
        /// MiB of all tables that would be made.
        needed: u64,
        /// MiB that are available.
        available: u64,
        /// The largest table.
        map: &'static str,
        /// Its entries.
        entries: u32,
        /// Bytes of an entry.
        per_entry: u64,
        /// MiB of the largest table.
        bytes: u64,
        /// Its key in the configuration.
        setting: &'static str,
        /// Entries that would fit if only this setting changed.
        largest: u64,
    },
    /// The verifier refused a program.
    #[error("the kernel refused the program {program}; the end of the verifier's log is:\n{tail}")]
    Refused {
        /// The program.
        program: &'static str,
        /// The last lines of the verifier's log.
        tail: String,
        /// The error of the system call.
        #[source]
        source: io::Error,
    },
    /// Another operation on a program failed.
    #[error("{action} the program {program} failed")]
    Program {
        /// "loading", "running", ...
        action: &'static str,
        /// The program.
        program: &'static str,
        /// aya's error.
        #[source]
        source: Box<ProgramError>,
    },
    /// An operation on a map failed.
    #[error("{action} the map {map} failed")]
    Map {
        /// "reading", "writing", ...
        action: &'static str,
        /// The map.
        map: &'static str,
        /// The error of the system call.
        #[source]
        source: io::Error,
    },
    /// An operation of aya on a map failed.
    #[error("{action} the map {map} failed")]
    AyaMap {
        /// "opening", "creating", ...
        action: &'static str,
        /// The map.
        map: &'static str,
        /// aya's error.
        #[source]
        source: Box<aya::maps::MapError>,
    },
    /// A pin, or the pin directory, could not be read, made or removed.
    #[error("{action} {path} failed")]
    Pin {
        /// "pinning", "removing", ...
        action: &'static str,
        /// The pin.
        path: PathBuf,
        /// The error of the system call.
        #[source]
        source: io::Error,
    },
    /// The network driver has no native XDP for this port as it is configured.
    #[error("{port} cannot run native XDP: {why}. Use engine `tc` for this port")]
    NoXdp {
        /// The interface.
        port: String,
        /// The driver's errno, explained.
        why: &'static str,
        /// The error of the system call.
        #[source]
        source: io::Error,
    },
    /// Another XDP program stands at the port.
    #[error(
        "{port} has another XDP program already: remove it (`ip link set dev {port} xdp off`), or stop what attached it"
    )]
    XdpTaken {
        /// The interface.
        port: String,
        /// The error of the system call.
        #[source]
        source: io::Error,
    },
    /// A hook of a port could not be taken, replaced or given up.
    #[error("{action} {port} ({hook}) failed")]
    Attach {
        /// "attaching to", "detaching from", ...
        action: &'static str,
        /// The interface.
        port: String,
        /// The hook.
        hook: Hook,
        /// The error of the system call.
        #[source]
        source: io::Error,
    },
    /// A clsact filter could not be set or removed.
    #[error("{action} the clsact filter of {port} ({hook}) failed")]
    Clsact {
        /// "setting" or "removing".
        action: &'static str,
        /// The interface.
        port: String,
        /// The hook.
        hook: Hook,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The name and the index of a port belong to different interfaces.
    #[error("the interface {name} has index {found} now, not {wanted}: it was replaced meanwhile; try again")]
    PortMoved {
        /// The interface.
        name: String,
        /// Its index now; 0: it does not exist.
        found: u32,
        /// The index that was asked for.
        wanted: u32,
    },
    /// Both slots of a port are taken.
    #[error(
        "the port table has no slot for interface {ifindex}: interfaces {first} and {second} hold both; remove one of them"
    )]
    PortSlots {
        /// The interface.
        ifindex: u32,
        /// Holder of the first slot.
        first: u32,
        /// Holder of the second slot.
        second: u32,
    },
    /// A table set is not fit to be enforced.
    #[error("the compiled policy is damaged: {what}; the policy in force stays")]
    BadSet {
        /// What is wrong.
        what: String,
    },
    /// The data plane answered something that is no answer.
    #[error(
        "the program {program} returned {value:#x}, which is no report: program and agent are of different builds; run `cargo xtask build`"
    )]
    BadReport {
        /// The program.
        program: &'static str,
        /// What it returned.
        value: u32,
    },
    /// Programs that report do not act.
    #[error(
        "these programs were loaded for questions: they return reports, so they cannot be attached to a port"
    )]
    Reporting,
    /// The event ring has a reader already.
    #[error("the event ring has one reader, and it was given out already")]
    EventsTaken,
}

/// Wraps the error of a map operation.
pub(super) fn map(action: &'static str, map: &'static str) -> impl FnOnce(io::Error) -> DataPlaneError {
    move |source| DataPlaneError::Map { action, map, source }
}

/// Wraps the error of an operation on a pin.
pub(super) fn pin(
    action: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(io::Error) -> DataPlaneError {
    move |source| DataPlaneError::Pin {
        action,
        path: path.into(),
        source,
    }
}

impl DataPlaneError {
    /// True if the process lacks rights, or no data plane runs: exit code 3 of the command line.
    #[must_use]
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::NoPrivilege { .. } | Self::NotRunning { .. })
    }

    /// True if the caller may attach the port with TC instead.
    #[must_use]
    pub fn suggests_tc(&self) -> bool {
        matches!(self, Self::NoXdp { .. })
    }
}
