//! `dpufw zone`.

mod addresses;
mod span;

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use ipnet::IpNet;
use jiff::Timestamp;

use super::{AgentArgs, ask, output, unexpected};
use crate::control::{Client, Reply, Request, Session, ZoneChange, ZoneChanged, ZoneInfo, ZoneOutcome};
use crate::exit::{Exit, Failure};

/// Prefixes that a line names before it only counts them.
const NAMED: usize = 8;

/// Change the addresses of dynamic zones on the running agent, and list them
///
/// A zone is dynamic if the policy says so: `quarantine: { dynamic: true }`. Its members are the machine's affair: they
/// survive restarts and new policies.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  dpufw zone add job-42 10.10.3.0/28 --for 24h\n  dpufw zone add quarantine 10.10.0.7 fd00:10::7\n  \
                        dpufw zone remove quarantine 10.10.0.7\n  dpufw zone remove job-42 --all\n  dpufw zone list --json\n  dpufw zone reload   # the files of `file:` zones"
)]
pub(super) struct Zone {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Add(Add),
    Remove(Remove),
    List(List),
    Reload(Reload),
}

/// Put addresses into a dynamic zone
///
/// Answers when the change is in force: flows that the policy denies now end with their next packet. What is in the zone
/// already stays; its deadline becomes the new one, or none without --for.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  dpufw zone add quarantine 10.10.0.7\n  dpufw zone add job-42 10.10.3.0/28 fd00:10:3::/64 --for 24h\n  \
                        dpufw zone add job-42 10.10.3.16-10.10.3.20 --for 90m --json\n\n\
                        While no agent runs, nothing is taken out at its deadline; the next agent does it at its start."
)]
struct Add {
    /// The zone
    zone: String,
    /// Prefixes, addresses, and ranges such as 10.0.0.3-10.0.0.9
    #[arg(required = true, value_name = "PREFIX|ADDRESS|RANGE")]
    what: Vec<String>,
    /// Take them out again after this time: 2s, 90m, 24h, 7d
    #[arg(long = "for", value_name = "TIME", value_parser = span::milliseconds)]
    lasting: Option<u64>,
    #[command(flatten)]
    common: Common,
}

/// Take addresses out of a dynamic zone
///
/// Afterwards none of them is in the zone: of a larger prefix the rest stays.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  dpufw zone remove quarantine 10.10.0.7\n  dpufw zone remove job-42 --all\n  \
                        dpufw zone remove job-42 10.10.3.16-10.10.3.20 --json"
)]
struct Remove {
    /// The zone
    zone: String,
    /// Prefixes, addresses, and ranges such as 10.0.0.3-10.0.0.9
    #[arg(required_unless_present = "all", value_name = "PREFIX|ADDRESS|RANGE")]
    what: Vec<String>,
    /// All that is in it
    #[arg(long, conflicts_with = "what")]
    all: bool,
    #[command(flatten)]
    common: Common,
}

/// List dynamic zones and their members
#[derive(Args)]
#[command(after_help = "Examples:\n  dpufw zone list\n  dpufw zone list quarantine --json")]
struct List {
    /// This zone only
    zone: Option<String>,
    /// Print JSON lines, one for each zone
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    agent: AgentArgs,
}

/// Read the files of the policy's zones again, and change nothing else
///
/// A file that cannot be read, or holds what is no address, changes nothing.
#[derive(Args)]
#[command(after_help = "Examples:\n  dpufw zone reload\n  dpufw zone reload --json")]
struct Reload {
    #[command(flatten)]
    common: Common,
}

/// What changes have in common.
#[derive(Args)]
struct Common {
    /// Do it even if it locks your own session out
    #[arg(long)]
    force: bool,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    agent: AgentArgs,
}

impl Zone {
    pub(super) async fn execute(self) -> anyhow::Result<Exit> {
        match self.command {
            Command::Add(add) => {
                let change = ZoneChange::Add {
                    zone: add.zone,
                    prefixes: read(&add.what)?,
                    for_ms: add.lasting,
                };
                add.common.change(change).await
            }
            Command::Remove(remove) => {
                let zone = remove.zone;
                let change = if remove.all {
                    ZoneChange::Clear { zone }
                } else {
                    let prefixes = read(&remove.what)?;
                    ZoneChange::Remove { zone, prefixes }
                };
                remove.common.change(change).await
            }
            Command::List(list) => list.execute().await,
            Command::Reload(reload) => reload.execute().await,
        }
    }
}

fn read(words: &[String]) -> Result<Vec<IpNet>, Failure> {
    let mut all = Vec::new();
    for word in words {
        all.extend(addresses::prefixes(word).map_err(Failure::input)?);
    }
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

impl Common {
    async fn change(&self, change: ZoneChange) -> anyhow::Result<Exit> {
        let request = Request::ChangeZones {
            changes: vec![change],
            force: self.force,
            session: Session::own(),
        };
        let reply = ask(&self.agent, &request).await?;
        let Reply::ZonesChanged(changed) = reply else {
            return Err(unexpected(&reply));
        };
        if self.json {
            output::json(&changed)?;
        } else {
            for note in &changed.notes {
                eprintln!("warning: {note}");
            }
            print!("{}", text(&changed));
        }
        Ok(Exit::Yes)
    }
}

impl Reload {
    async fn execute(self) -> anyhow::Result<Exit> {
        let request = Request::ReloadZones {
            force: self.common.force,
            session: Session::own(),
        };
        let progress = output::Progress::start("reading the files of zones".to_owned());
        let reply = ask(&self.common.agent, &request).await;
        drop(progress);
        let reply = reply?;
        let Reply::ZonesReloaded(reloaded) = reply else {
            return Err(unexpected(&reply));
        };
        if self.common.json {
            output::json(&reloaded)?;
            return Ok(Exit::Yes);
        }
        for warning in &reloaded.warnings {
            eprintln!("{warning}\n");
        }
        for zone in &reloaded.zones {
            println!("{}: {} prefixes, before {}", zone.zone, zone.after, zone.before);
        }
        println!(
            "{}",
            state(reloaded.swapped, reloaded.generation, reloaded.took_ms)
        );
        Ok(Exit::Yes)
    }
}

impl List {
    async fn execute(self) -> anyhow::Result<Exit> {
        let mut client = Client::connect(&self.agent.socket).await?;
        client.request(&Request::Zones { zone: self.zone }).await?;
        let mut table = output::table(&["ZONE", "MEMBER", "UNTIL", "LEFT"]);
        let mut aside = Vec::new();
        while let Some(reply) = client.reply().await? {
            match reply {
                Reply::Zone(zone) if self.json => output::json(&zone)?,
                Reply::Zone(zone) => {
                    table.add_rows(rows(&zone, Timestamp::now()));
                    if !zone.in_force {
                        aside.push(zone.zone);
                    }
                }
                other => return Err(unexpected(&other)),
            }
        }
        if !self.json {
            output::print(&mut table);
            for zone in aside {
                eprintln!("{zone}: kept aside, the policy in force has no dynamic zone of that name");
            }
        }
        Ok(Exit::Yes)
    }
}

fn rows(zone: &ZoneInfo, now: Timestamp) -> Vec<[String; 4]> {
    let dash = || "-".to_owned();
    if zone.members.is_empty() {
        return vec![[zone.zone.clone(), "(none)".to_owned(), dash(), dash()]];
    }
    let row = |member: &crate::control::ZoneMember| {
        let left = |until: Timestamp| output::seconds(until.duration_since(now).as_secs_f64());
        [
            zone.zone.clone(),
            member.prefix.to_string(),
            member.until.map_or_else(dash, |until| format!("{until:.0}")),
            member.until.map_or_else(dash, left),
        ]
    };
    zone.members.iter().map(row).collect()
}

/// What has changed, a line for each zone, and how long it took.
fn text(changed: &ZoneChanged) -> String {
    let mut text = String::new();
    for outcome in &changed.outcomes {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", line(outcome));
    }
    let _ = writeln!(
        text,
        "{}",
        state(changed.swapped, changed.generation, changed.took_ms)
    );
    text
}

fn state(swapped: bool, generation: u32, took_ms: f64) -> String {
    let how = if swapped {
        "in force as"
    } else {
        "nothing to change in"
    };
    format!("{how} generation {generation} after {took_ms:.1} ms")
}

fn line(outcome: &ZoneOutcome) -> String {
    let parts = [
        ("added", &outcome.added),
        ("new deadline for", &outcome.refreshed),
        ("already there:", &outcome.known),
        ("removed", &outcome.removed),
        ("not there:", &outcome.absent),
    ];
    let parts = parts.iter().filter(|(_, prefixes)| !prefixes.is_empty());
    let parts: Vec<String> = parts
        .map(|(what, prefixes)| format!("{what} {}", named(prefixes)))
        .collect();
    let what = if parts.is_empty() {
        "nothing to remove".to_owned()
    } else {
        parts.join("; ")
    };
    let until = outcome
        .until
        .map_or_else(String::new, |until| format!(" until {until:.0}"));
    let left = output::count(outcome.members as u64, "member");
    format!("{}: {what}{until} ({left} now)", outcome.zone)
}

fn named(prefixes: &[IpNet]) -> String {
    let names: Vec<String> = prefixes.iter().take(NAMED).map(addresses::short).collect();
    match prefixes.len().saturating_sub(NAMED) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::line;
    use crate::control::ZoneOutcome;

    #[test]
    fn a_line_says_what_became_of_each_prefix() {
        let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let outcome = ZoneOutcome {
            zone: "jail".into(),
            added: nets(&["10.0.0.1/32", "10.1.0.0/16"]),
            known: nets(&["fd00::1/128"]),
            members: 3,
            ..ZoneOutcome::default()
        };
        assert_eq!(
            line(&outcome),
            "jail: added 10.0.0.1, 10.1.0.0/16; already there: fd00::1 (3 members now)"
        );
        let nothing = ZoneOutcome {
            zone: "jail".into(),
            ..ZoneOutcome::default()
        };
        assert_eq!(line(&nothing), "jail: nothing to remove (0 members now)");
    }
}
