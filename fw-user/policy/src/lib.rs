//! `fw-policy`: dpufw's policy language. Text to checked model ([`check()`]), model to tables ([`compile()`]), and why a
//! flow is decided as it is ([`explain()`]).
//!
//! No I/O: a file's text comes through a [`Loader`]. No aya, no tokio; the crate builds for wasm32.
//!
//! ```
//! let text = "
//! version: 1
//! zones: { bastion: [10.30.0.10] }
//! rules:
//!   - { name: admin, allow: [ssh], from: bastion, to: self }
//! ";
//! let (policy, warnings) = fw_policy::check(text, "example.yaml")?;
//! assert!(warnings.items.is_empty());
//! let tables = fw_policy::compile(&policy, &fw_policy::Environment::sample())?;
//! assert!(tables.stats.lines > 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

pub mod diagnostic;
pub mod diff;
pub mod explain;
pub mod flow;
pub mod isolate;
pub mod lint;
pub mod model;
pub mod prove;
pub mod schema;
pub mod services;
pub mod space;

pub mod compile;

mod check;
mod expectations;
mod keys;
mod names;
mod planes;
mod ranges;
mod resolve;
mod source;
mod text;
mod yaml;

pub use check::{PolicyError, add_tests, check, check_files, ended_rules, load, unnamed_role};
pub use compile::{
    Choice, CompileError, Compiled, Options, Readdressed, Representation, Settings, Stats, TableSet, compile,
    compile_with, compile_within,
};
pub use diagnostic::{Diagnostic, Diagnostics, Level, Report, Span};
pub use expectations::{ExpectationResult, Expectations, machine_of, run_expectations};
pub use explain::{Asked, Explanation, ask, explain};
pub use flow::{Flow, FlowError, FlowSpec};
pub use model::Policy;
pub use resolve::{ResolveError, resolve};
pub use source::{LoadError, Loader, Source, Sources};
pub use text::decode;

use std::net::IpAddr;

/// What a policy is compiled for: facts of one machine that no policy holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// Addresses of this machine: the zone `self`.
    pub own_addresses: Vec<IpAddr>,
    /// Roles of the ports; the place in the list is the number that [`fw_common::abi::PortConfig::role`] holds. At
    /// most 31.
    pub roles: Vec<String>,
    /// Number of the compiled policy; never 0.
    pub generation: u32,
    /// When the machine was started, Unix time in seconds: rules' `until` is compared with the time since then
    /// (`CLOCK_BOOTTIME`).
    pub boot_unix_s: i64,
}

impl Environment {
    /// A machine that exists nowhere, with the documentation addresses 192.0.2.1 and `2001:db8::1` (RFC 5737, RFC 3849)
    /// and no roles: for checks that have no machine to ask.
    #[must_use]
    pub fn sample() -> Self {
        let own_addresses = vec![
            IpAddr::from([192, 0, 2, 1]),
            IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]),
        ];
        Self {
            own_addresses,
            roles: Vec::new(),
            generation: 1,
            boot_unix_s: 0,
        }
    }
}
