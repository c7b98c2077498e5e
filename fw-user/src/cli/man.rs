//! `dpufw man`.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use crate::exit::Exit;

/// Print the manual page, or write one page per command into a directory
#[derive(Args)]
#[command(after_help = "Examples:\n  dpufw man | man -l -\n  dpufw man --dir /usr/share/man/man1")]
pub(super) struct Man {
    /// Directory for `dpufw.1`, `dpufw-run.1`, ...
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Man {
    pub(super) fn execute(self, command: clap::Command) -> anyhow::Result<Exit> {
        match self.dir {
            Some(dir) => std::fs::create_dir_all(&dir)
                .and_then(|()| clap_mangen::generate_to(command, &dir))
                .with_context(|| format!("cannot write manual pages into {}", dir.display()))?,
            None => clap_mangen::Man::new(command).render(&mut std::io::stdout())?,
        }
        Ok(Exit::Yes)
    }
}
