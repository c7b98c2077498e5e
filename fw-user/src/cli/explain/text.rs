//! A running data plane's answer as text.

use std::fmt::Write as _;

use super::super::output;
use crate::control::{
    Agreement, FloodAnswer, FlowAnswer, HostAnswer, KnownFlow, LimitAnswer, PortAnswer, SourceAnswer,
};

/// The whole answer.
pub(super) fn of(answer: &FlowAnswer) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let mut last: Option<&HostAnswer> = None;
    for port in &answer.ports {
        // Ports at which the policy says the same share its explanation.
        if last.is_none_or(|last| last.text != port.host.text) {
            let _ = write!(text, "{}", port.host.text);
        }
        let _ = writeln!(text, "  kernel       {}", kernel(port));
        last = Some(&port.host);
    }
    let _ = writeln!(text, "  generation   {}", answer.generation);
    for flow in &answer.flows {
        let _ = writeln!(text, "  flow         {}", known(flow));
    }
    if answer.more_flows > 0 {
        let _ = writeln!(text, "  and {} more flows between the two", answer.more_flows);
    }
    for limit in &answer.limits {
        let _ = writeln!(text, "  limit        {}", bucket(limit));
    }
    if let Some(source) = &answer.source {
        let _ = writeln!(text, "  source       {}", origin(source));
    }
    if let Some(flood) = answer
        .flood
        .as_ref()
        .filter(|flood| flood.destination > 0.0 || flood.all > 0.0)
    {
        let _ = writeln!(text, "  flood        {}", pressure(flood));
    }
    text
}

fn kernel(port: &PortAnswer) -> String {
    let kernel = &port.kernel;
    let rule = kernel
        .rule
        .as_ref()
        .map_or_else(String::new, |rule| format!(" by rule `{rule}`"));
    let fits = match port.agreement {
        Agreement::Same => "the same".to_owned(),
        Agreement::Refused => format!("the rule allows it, but now: {}", kernel.sentence),
        Agreement::State => format!("by the state of its flow: {}", kernel.sentence),
        Agreement::Differs => format!("THIS CONTRADICTS THE POLICY, which says {}", port.host.reason),
    };
    format!(
        "{} ({}){rule} at port {} ({}, {}); {fits}",
        kernel.verdict, kernel.reason, kernel.port, kernel.role, kernel.hook
    )
}

fn known(known: &KnownFlow) -> String {
    let flow = &known.flow;
    let mut text = format!(
        "{flow}: {} by rule `{}`, generation {} ({}), {} and back {}, ends in {}",
        flow.state,
        flow.rule,
        flow.generation,
        if known.current {
            "in force"
        } else {
            "older: judged again by its next packet"
        },
        output::count(flow.original.packets, "packet"),
        flow.reply.packets,
        output::seconds(known.expires_s)
    );
    if known.opposite {
        text += "; opened the other way";
    }
    if !known.exact {
        text += "; another source port";
    }
    text
}

fn bucket(answer: &LimitAnswer) -> String {
    let limit = &answer.limit;
    let who = limit.source.iter().chain(&limit.destination);
    let who = who.fold(String::new(), |text, end| text + " " + end);
    let refuses = if answer.refuses { ": REFUSES NOW" } else { "" };
    format!(
        "{} {} per {}{who}: {:.0}% full{refuses}",
        limit.limit,
        limit.kind,
        limit.per,
        limit.fill * 100.0
    )
}

fn origin(source: &SourceAnswer) -> String {
    let of = |cap: Option<u32>| cap.map_or_else(String::new, |cap| format!(" of {cap}"));
    let mut text = format!(
        "{} has {}{} unconfirmed and {}{} confirmed flows",
        source.source,
        source.unconfirmed,
        of(source.unconfirmed_cap),
        source.flows,
        of(source.flows_cap)
    );
    // Writing to a String cannot fail.
    if let Some(until) = source.banned_until {
        let _ = write!(text, "; BANNED until {until:.0}");
    }
    if let Some(until) = source.proved_until {
        let _ = write!(text, "; proved until {until:.0}");
    }
    if source.spared {
        text += "; caps, bans and floods do not hold for it";
    }
    text
}

fn pressure(flood: &FloodAnswer) -> String {
    format!(
        "{} ({}): the destination's new flows are at {:.0}% of the burst, all destinations' at {:.0}%",
        flood.threshold,
        flood.mode,
        flood.destination * 100.0,
        flood.all * 100.0
    )
}
