//! `fw-demo`: a small AI cluster in network namespaces behind the real firewall; `cargo xtask demo` builds and runs it.

use std::process::ExitCode;

use clap::Parser;
use fw_tests::demo;

fn main() -> ExitCode {
    demo::main(&demo::Args::parse())
}
