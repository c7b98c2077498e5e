//! What the demo prints.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::time::Instant;

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};

use super::cases::Expect;
use super::clients::Answer;
use super::judge::{Decision, Outcome};

/// True if `stream` is a terminal and the user has not asked for plain text (no-color.org).
pub fn colored(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Progress, on standard error, with the seconds since `start`.
pub fn say(start: Instant, text: &str) {
    let seconds = format!("{:5.1} s", start.elapsed().as_secs_f64());
    if colored(&io::stderr()) {
        eprintln!("\x1b[1m{seconds}\x1b[0m  {text}");
    } else {
        eprintln!("{seconds}  {text}");
    }
}

/// The outcomes of one firewall.
pub fn print(title: &str, outcomes: &[&Outcome]) {
    let colors = colored(&io::stdout());
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    if colors {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    let header = [
        "FROM",
        "TO",
        "WHAT",
        "CLIENT",
        "EXPECTED",
        "OBSERVED",
        "RULE OR REASON",
        "",
    ];
    table.set_header(header.map(|text| Cell::new(text).add_attribute(Attribute::Bold)));
    for outcome in outcomes {
        table.add_row(row(outcome));
    }
    table.column_iter_mut().for_each(|column| {
        column.set_padding((0, 2));
    });
    let mut text = format!("\n{title}\n\n");
    for line in table.lines() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", line.trim_end());
    }
    print!("{text}");
}

fn row(outcome: &Outcome) -> Vec<Cell> {
    let case = outcome.case;
    let family = if case.ipv6 { "IPv6" } else { "IPv4" };
    let protocol = case.tool.protocol(case.ipv6);
    let port = if case.port == 0 {
        String::new()
    } else {
        format!("/{}", case.port)
    };
    let expected = if matches!(case.expect, Expect::Allow(_)) {
        "allow"
    } else {
        "deny"
    };
    let (observed, color) = match &outcome.answer {
        Answer::Through(what) => (format!("allow: {what}"), Color::Green),
        Answer::Nothing(_) => ("deny: no answer".to_owned(), Color::Yellow),
    };
    let agrees = if outcome.agrees() {
        Cell::new("ok").fg(Color::Green)
    } else {
        Cell::new("WRONG").fg(Color::Red)
    };
    vec![
        Cell::new(case.from),
        Cell::new(case.to),
        Cell::new(format!("{} {protocol}{port} {family}", case.what)),
        Cell::new(case.tool.name()),
        Cell::new(expected),
        Cell::new(observed).fg(color),
        Cell::new(
            outcome
                .decision
                .as_ref()
                .map_or_else(|| "the agent says nothing".to_owned(), why),
        ),
        agrees,
    ]
}

fn why(decision: &Decision) -> String {
    match (&decision.rule, decision.allowed) {
        (Some(rule), true) => format!("rule {rule}"),
        (Some(rule), false) if rule != "default" => format!("rule {rule} ({})", decision.reason),
        _ => decision.reason.clone(),
    }
}

/// The reasons that occurred, each with the sentence that the agent gives for it.
pub fn print_reasons(outcomes: &[Outcome]) {
    let decisions = outcomes.iter().filter_map(|outcome| outcome.decision.as_ref());
    let reasons: BTreeMap<_, _> = decisions
        .filter_map(|decision| Some((&decision.reason, decision.sentence.as_ref()?)))
        .collect();
    println!();
    for (reason, sentence) in reasons {
        println!("{reason}: {sentence}");
    }
}

/// What did not come out as expected, in full.
pub fn print_wrong(outcome: &Outcome) {
    let case = outcome.case;
    let said = match &outcome.answer {
        Answer::Through(what) => format!("the client got {what}"),
        Answer::Nothing(complaint) => format!("the client got nothing ({complaint})"),
    };
    let decision = outcome
        .decision
        .as_ref()
        .map_or_else(|| "nothing".to_owned(), why);
    println!(
        "WRONG: {} to {}, {}: expected {:?}; {said}; the agent on {} says: {decision}",
        case.from, case.to, case.what, case.expect, case.at
    );
}
