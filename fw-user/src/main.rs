//! The binary `dpufw`: agent and command line of the firewall.

use std::process::ExitCode;

fn main() -> ExitCode {
    fw_user::cli::main()
}
