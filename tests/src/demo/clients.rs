//! The clients, and how to read what they say.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, anyhow};
use serde_json::Value;

use super::cases::{Case, Tool};
use super::cluster::{Cluster, find};
use crate::lab::{Finished, TcpService};

/// After this many seconds without an answer a client gives up: a lost SYN is sent again after one.
pub const PATIENCE_S: u64 = 2;
const LIMIT: Duration = Duration::from_secs(15);
const DATAGRAM: &str = "hello";

/// What a client found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It got what it wanted.
    Through(String),
    /// It did not, and what it says about it.
    Nothing(String),
}

/// Runs the client of a flow.
///
/// # Errors
/// If it cannot be started.
pub fn run(cluster: &Cluster, case: &Case) -> Result<Answer> {
    let (from, to) = (find(case.from)?, find(case.to)?);
    let command = command(
        case.tool,
        from.address(case.ipv6),
        to.address(case.ipv6),
        case.port,
    );
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let finished = cluster.machine(from.machine)?.run(&words, LIMIT)?;
    if finished.code() == Some(127) {
        return Err(anyhow!("`{}`: {finished}", command.join(" ")));
    }
    Ok(match read(case.tool, &finished) {
        Some(text) => Answer::Through(text),
        None => Answer::Nothing(complaint(&finished)),
    })
}

/// The client's command line. Its source address is given, because machines have several.
#[must_use]
pub fn command(tool: Tool, from: IpAddr, to: IpAddr, port: u16) -> Vec<String> {
    let host = if to.is_ipv6() {
        format!("[{to}]")
    } else {
        to.to_string()
    };
    let line = match tool {
        Tool::Curl => format!(
            "curl -gsS --noproxy * --interface {from} --connect-timeout {PATIENCE_S} --max-time 8 http://{host}:{port}/"
        ),
        Tool::Nc => format!("nc -nvN -w {PATIENCE_S} -s {from} {to} {port}"),
        Tool::NcUdp => {
            let script = format!("echo {DATAGRAM} | nc -nu -w 1 -s {from} {to} {port}");
            return ["sh", "-c", &script].map(str::to_owned).into();
        }
        Tool::Ping => format!("ping -n -c 1 -W {PATIENCE_S} -I {from} {to}"),
        Tool::Iperf3 => {
            format!(
                "iperf3 -J -t 1 --connect-timeout {} -B {from} -c {to} -p {port}",
                PATIENCE_S * 1000
            )
        }
    };
    line.split(' ').map(str::to_owned).collect()
}

/// What a client that got its answer says; `None` if it did not get one.
fn read(tool: Tool, finished: &Finished) -> Option<String> {
    let said = finished.stdout.as_str();
    match tool {
        Tool::Curl | Tool::Nc => {
            let page = said.contains(TcpService::BODY) && finished.success();
            page.then(|| {
                if tool == Tool::Curl {
                    "the page".to_owned()
                } else {
                    "an answer".to_owned()
                }
            })
        }
        Tool::NcUdp => (said.trim() == DATAGRAM).then(|| "the echo".to_owned()),
        Tool::Ping => {
            let time = said.split_once("time=")?.1.lines().next()?;
            finished.success().then(|| time.trim().to_owned())
        }
        Tool::Iperf3 => {
            let report: Value = serde_json::from_str(said).ok()?;
            let rate = report.pointer("/end/sum_received/bits_per_second")?.as_f64()?;
            (finished.success() && rate > 0.0).then(|| format!("{:.1} Gbit/s", rate / 1e9))
        }
    }
}

/// The last thing that a client without an answer says.
fn complaint(finished: &Finished) -> String {
    let report = serde_json::from_str::<Value>(&finished.stdout).ok();
    let error = report
        .as_ref()
        .and_then(|report| report.get("error"))
        .and_then(Value::as_str);
    let last = || {
        finished
            .stderr
            .lines()
            .chain(finished.stdout.lines())
            .map(str::trim)
            .rfind(|line| !line.is_empty())
    };
    error.or_else(last).unwrap_or("no answer").to_owned()
}
