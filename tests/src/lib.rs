//! dpufw's lab: network namespaces, packets, raw wires and an oracle for the tests above the unit level.
//!
//! * [`lab`]: network namespaces, veth pairs and processes, all removed again on every way out;
//! * [`packet`]: frames written as a person would describe them, well-formed or broken on purpose;
//! * [`wire`]: raw frames on an interface, for what no ordinary client sends;
//! * [`oracle`]: a plain first-match evaluator and the generators of random policies and packets;
//! * [`traffic`]: connections with known ground, packet by packet, and what strangers send between them;
//! * [`mod@bench`]: the packet path beside the least that any program could do.

pub mod bench;
pub mod demo;
pub mod lab;
pub mod oracle;
pub mod traffic;

pub use fw_lab::{packet, wire};
