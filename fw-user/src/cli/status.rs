//! `dpufw status`.

use clap::Args;
use comfy_table::Cell;

use super::output::{self, Paint, paint};
use super::{AgentArgs, ask, unexpected};
use crate::control::{Cover, Coverage, PortStatus, Reply, Request, Status};
use crate::exit::Exit;
use crate::telemetry::Realm;

/// Show what runs, what is covered, and what is wrong
///
/// Exits with 1 if something is degraded, or an interface that is up (but lo) is not covered and not
/// listed under `ignore`.
#[derive(Args)]
#[command(
    name = "status",
    after_help = "Examples:\n  dpufw status\n  dpufw status --json | jq .coverage\n  \
                                         dpufw status >/dev/null || page-someone"
)]
pub(super) struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    agent: AgentArgs,
}

impl StatusArgs {
    pub(super) async fn execute(self) -> anyhow::Result<Exit> {
        let reply = ask(&self.agent, &Request::Status).await?;
        let Reply::Status(status) = reply else {
            return Err(unexpected(&reply));
        };
        if self.json {
            output::json(&status)?;
        } else {
            text(&status);
        }
        Ok(if status.healthy() { Exit::Yes } else { Exit::No })
    }
}

fn text(status: &Status) {
    head(status);
    println!();
    ports(&status.ports);
    println!();
    coverage(&status.coverage);
    for note in &status.coverage_notes {
        println!("{} {note}", paint("note:", Paint::Yellow));
    }
    println!();
    tables(status);
    sources(status);
    drops(status);
    noted(status);
    for wrong in &status.degraded {
        println!("{} {wrong}", paint("degraded:", Paint::Red));
    }
    for line in status.coverage.iter().filter(|line| line.alarm) {
        println!(
            "{} {} is up and not covered: {}",
            paint("alarm:", Paint::Red),
            line.interface,
            line.reasons.join("; ")
        );
    }
    if status.healthy() {
        println!("{}", paint("healthy", Paint::Green));
    }
}

fn head(status: &Status) {
    let policy = &status.policy;
    println!(
        "dpufw {}, mode {}, process {}, since {}",
        status.version, status.mode, status.pid, status.started
    );
    if status.took_over {
        println!("took over a running data plane from {}", status.pin_dir);
    }
    match status.adopting_s {
        0 => {}
        u64::MAX => println!("pickup: TCP connections that already run are always adopted"),
        seconds => {
            println!("cold start: TCP connections that already run are adopted for {seconds} s more");
        }
    }
    if policy.generation == 0 {
        println!("policy: none; everything is dropped");
        return;
    }
    if policy.applied.is_none() {
        println!("policy: its text is not known, generation {}", policy.generation);
        return;
    }
    println!(
        "policy: {} ({}, {}), generation {}, in force for {}, sha256 {}",
        policy.name,
        output::count(policy.rules.into(), "rule"),
        output::count(policy.zones.into(), "zone"),
        policy.generation,
        output::seconds(policy.age_s),
        policy.hash,
    );
}

fn ports(ports: &[PortStatus]) {
    let mut table = output::table(&["PORT", "ROLE", "SIDE", "PEER", "REALM", "ENGINE", "EGRESS"]);
    for port in ports {
        table.add_row([
            port.name.clone(),
            port.role.clone(),
            port.side.clone(),
            port.peer.clone().unwrap_or_else(|| "-".to_owned()),
            port.realm.to_string(),
            port.engine.clone(),
            port.egress.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    output::print(&mut table);
    for port in ports {
        for note in &port.notes {
            println!("{} {}: {note}", paint("note:", Paint::Yellow), port.name);
        }
    }
}

fn coverage(lines: &[Coverage]) {
    let mut table = output::table(&["INTERFACE", "KIND", "STATE", "COVER", "WHY"]);
    for line in lines {
        let color = match line.cover {
            Cover::Covered => Paint::Green,
            Cover::Partly => Paint::Yellow,
            Cover::NotCovered if line.alarm => Paint::Red,
            Cover::NotCovered | Cover::Ignored => Paint::Plain,
        };
        table.add_row([
            Cell::new(&line.interface),
            Cell::new(&line.kind),
            Cell::new(if line.up { "up" } else { "down" }),
            output::cell(line.cover.name(), color),
            Cell::new(line.reasons.join("; ")),
        ]);
    }
    output::print(&mut table);
}

fn tables(status: &Status) {
    let mut table = output::table(&["TABLE", "USED", "HIGHEST", "ROOM", "CAPACITY", "MEMORY", "STATES"]);
    let dash = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    for row in &status.tables {
        let states = status
            .flows
            .iter()
            .filter(|flow| flow.table == row.table && flow.family == row.family);
        let states: Vec<_> = states
            .map(|flow| format!("{} {}", flow.state, flow.count))
            .collect();
        let name = match row.family {
            0 => row.table.clone(),
            family => format!("{} IPv{family}", row.table),
        };
        table.add_row([
            name,
            dash(row.used),
            dash(row.highest),
            dash(row.room),
            row.capacity.to_string(),
            output::bytes(row.bytes),
            states.join(", "),
        ]);
    }
    output::right(&mut table, &[1, 2, 3, 4, 5]);
    output::print(&mut table);
    let totals = &status.totals;
    println!(
        "{} opened, {} confirmed, {} that nobody answered; {} flow records, {} lost",
        totals.opened, totals.promoted, totals.unanswered, totals.records, totals.records_lost
    );
}

/// Who fills the tables.
fn sources(status: &Status) {
    if status.top_sources.is_empty() {
        return;
    }
    let mut table = output::table(&["TABLE", "SOURCE", "ZONE", "FLOWS", "SHARE"]);
    for top in &status.top_sources {
        table.add_row([
            format!("{} IPv{}", top.table, top.family),
            format!("{}{}", top.source, Realm::tags(top.vlan, top.inner_vlan)),
            top.zone.clone().unwrap_or_else(|| "-".to_owned()),
            top.flows.to_string(),
            format!("{:.0}%", top.share * 100.0),
        ]);
    }
    output::right(&mut table, &[3, 4]);
    output::print(&mut table);
}

fn drops(status: &Status) {
    println!("{} passed", output::count(status.passed_packets, "packet"));
    if status.drops.is_empty() {
        return;
    }
    let mut table = output::table(&["DROPPED", "PACKETS", "BYTES"]);
    for drop in &status.drops {
        table.add_row([
            drop.reason.clone(),
            drop.packets.to_string(),
            output::bytes(drop.bytes),
        ]);
    }
    output::right(&mut table, &[1, 2]);
    output::print(&mut table);
}

fn noted(status: &Status) {
    if status.noted.is_empty() {
        return;
    }
    let mut table = output::table(&["NOTED, NOT DROPPED", "PACKETS", "BYTES"]);
    for noted in &status.noted {
        table.add_row([
            noted.reason.clone(),
            noted.packets.to_string(),
            output::bytes(noted.bytes),
        ]);
    }
    output::right(&mut table, &[1, 2]);
    output::print(&mut table);
}
