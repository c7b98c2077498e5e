//! `dpufw completions`.

use clap::Args;
use clap_complete::Shell;

use crate::exit::Exit;

/// Print completions for a shell
#[derive(Args)]
#[command(
    after_help = "Examples:\n  dpufw completions bash > /usr/share/bash-completion/completions/dpufw\n  \
                        dpufw completions zsh > /usr/share/zsh/site-functions/_dpufw"
)]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(super) fn execute(self, command: &mut clap::Command) -> Exit {
        clap_complete::generate(self.shell, command, "dpufw", &mut std::io::stdout());
        Exit::Yes
    }
}
