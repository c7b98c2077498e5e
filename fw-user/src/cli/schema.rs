//! `dpufw schema`.

use clap::Args;

use super::output;
use crate::exit::Exit;

/// Print the JSON Schema of the policy file, or the services that need no definition
///
/// Editors with a YAML language server complete and check policies by the schema; `dpufw check --json` says the rest.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  dpufw schema > dpufw-policy.schema.json\n  dpufw schema --services\n  \
                        dpufw schema --services --json"
)]
pub(super) struct Schema {
    /// List the built-in services, what they match and where that comes from
    #[arg(long)]
    services: bool,
    /// Print JSON (the schema is JSON in any case)
    #[arg(long)]
    json: bool,
}

impl Schema {
    pub(super) fn execute(self) -> anyhow::Result<Exit> {
        if !self.services {
            println!("{}", serde_json::to_string_pretty(&fw_policy::schema::schema())?);
        } else if self.json {
            output::json(&fw_policy::services::BUILT_IN)?;
        } else {
            let mut table = output::table(&["SERVICE", "MATCHES", "SOURCE"]);
            for service in fw_policy::services::BUILT_IN {
                table.add_row([service.name, &service.matches.join(", "), service.source]);
            }
            println!("{table}");
        }
        Ok(Exit::Yes)
    }
}
