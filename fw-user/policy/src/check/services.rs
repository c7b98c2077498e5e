//! The `services:` section, and what rules write as services.

use std::collections::{HashMap, HashSet};

use fw_common::abi::Proto;

use super::fields;
use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::model::{Rule, Service, ServiceMatch};
use crate::names;
use crate::yaml::{Key, Node, Value};

/// The policy's own services.
pub(super) struct Services {
    pub(super) list: Vec<Service>,
    by_name: HashMap<String, usize>,
    /// Names that services or rules refer to.
    used: std::cell::RefCell<HashSet<String>>,
}

/// A service whose references are not followed yet.
struct Draft<'n> {
    key: &'n Key,
    items: &'n [Node],
    /// `None` while it is being resolved: a reference to it then is a cycle.
    state: State,
}

enum State {
    Waiting,
    Resolving,
    Done(Vec<ServiceMatch>),
}

/// Reads the section. Services with errors are kept with what could be read.
pub(super) fn read(section: Option<&Node>, findings: &mut Diagnostics) -> Services {
    let mut drafts = Vec::new();
    match section.map(|node| (node, &node.value)) {
        None | Some((_, Value::Empty)) => {}
        Some((_, Value::Map(pairs))) => drafts.extend(pairs.iter().filter_map(|pair| draft(pair, findings))),
        Some((node, _)) => findings.push(fields::wrong_type(
            node,
            "`services` is a mapping of names to matches (`name: [tcp/8000]`)",
            "a mapping",
        )),
    }
    let by_name = drafts.iter().enumerate().map(|(index, draft)| (draft.key.text.clone(), index)).collect();
    let mut resolver = Resolver { drafts, by_name, used: HashSet::new(), findings };
    for index in 0..resolver.drafts.len() {
        resolver.resolve(index, 0);
    }
    let Resolver { drafts, by_name, used, .. } = resolver;
    let list = drafts.into_iter().map(finished).collect();
    Services { list, by_name, used: std::cell::RefCell::new(used) }
}

impl Services {
    /// Reads what a rule allows or denies: a service or a list of them.
    pub(super) fn matches(&self, node: &Node, findings: &mut Diagnostics) -> Vec<ServiceMatch> {
        let Some(items) = fields::list(node, "a service or a list of services", findings) else { return Vec::new() };
        if items.is_empty() {
            findings.push(
                Diagnostic::error("empty_list", node.span, "the rule names no service")
                    .label("expected at least one service")
                    .help("write `all` for every protocol and port"),
            );
        }
        let mut matches = Vec::new();
        for item in items {
            let Some(text) = fields::text(item, "a service", findings) else { continue };
            if let Some(index) = self.by_name.get(text) {
                self.used.borrow_mut().insert(text.to_owned());
                matches.extend(&self.list[*index].matches);
            } else {
                let own = self.list.iter().map(|service| service.name.as_str());
                matches.extend(ready_made(text, item, own, findings));
            }
        }
        merged(matches)
    }

    /// Warns of services that no rule and no other service uses.
    pub(super) fn warn_unused(&self, rules: &[Rule], findings: &mut Diagnostics) {
        let used = self.used.borrow();
        // Without rules everything is unused, and the empty list has a warning of its own.
        for service in self.list.iter().filter(|service| !rules.is_empty() && !used.contains(&service.name)) {
            let message = format!("no rule uses the service `{}`", service.name);
            findings.push(Diagnostic::warning("unused_service", service.span, message));
        }
    }
}

fn draft<'n>((key, node): &'n (Key, Node), findings: &mut Diagnostics) -> Option<Draft<'n>> {
    if key.text == names::ALL || key.text == "proto" || names::protocol(&key.text).is_some() {
        let message = format!("`{}` is a word of the language", key.text);
        findings.push(
            Diagnostic::error("reserved_name", key.span, message)
                .label("expected a name of your own")
                .help("take another name for the service"),
        );
        return None;
    }
    fields::new_name(&key.text, true, key.span, "a service", findings);
    let items = fields::list(node, "a match or a list of matches", findings).unwrap_or(&[]);
    if items.is_empty() && matches!(node.value, Value::List(_)) {
        findings.push(
            Diagnostic::error("empty_list", node.span, format!("the service `{}` matches nothing", key.text))
                .label("expected at least one match such as tcp/22"),
        );
    }
    Some(Draft { key, items, state: State::Waiting })
}

fn finished(draft: Draft<'_>) -> Service {
    let matches = match draft.state {
        State::Done(matches) => matches,
        State::Waiting | State::Resolving => Vec::new(),
    };
    Service { name: draft.key.text.clone(), matches, span: draft.key.span }
}

struct Resolver<'n, 'f> {
    drafts: Vec<Draft<'n>>,
    by_name: HashMap<String, usize>,
    used: HashSet<String>,
    findings: &'f mut Diagnostics,
}

/// Longest chain of services that name each other; keeps the recursion, and with it the stack, small.
const MAX_CHAIN: usize = 32;

impl Resolver<'_, '_> {
    /// The matches of a service, its references followed.
    fn resolve(&mut self, index: usize, chain: usize) -> Vec<ServiceMatch> {
        if let State::Done(matches) = &self.drafts[index].state {
            return matches.clone();
        }
        self.drafts[index].state = State::Resolving;
        let items = self.drafts[index].items;
        let mut matches = Vec::new();
        for item in items {
            if let Some(text) = fields::text(item, "a match such as tcp/22, or a service", self.findings) {
                matches.extend(self.one(text, item, chain));
            }
        }
        let matches = merged(matches);
        self.drafts[index].state = State::Done(matches.clone());
        matches
    }

    fn one(&mut self, text: &str, item: &Node, chain: usize) -> Vec<ServiceMatch> {
        let Some(&other) = self.by_name.get(text) else {
            let own = self.drafts.iter().map(|draft| draft.key.text.as_str());
            return ready_made(text, item, own, self.findings);
        };
        self.used.insert(text.to_owned());
        if matches!(self.drafts[other].state, State::Resolving) || chain == MAX_CHAIN {
            let message = format!("the service `{text}` is part of itself");
            let message = if chain == MAX_CHAIN { "services name each other too deeply".to_owned() } else { message };
            self.findings.push(
                Diagnostic::error("service_cycle", item.span, message)
                    .also(self.drafts[other].key.span, "defined here")
                    .help("write the protocols and ports instead of the name"),
            );
            return Vec::new();
        }
        self.resolve(other, chain + 1)
    }
}

/// A match, a built-in service or `all`; `own` are the names that the policy defines, for suggestions.
fn ready_made<'a>(
    text: &str,
    item: &Node,
    own: impl Iterator<Item = &'a str>,
    findings: &mut Diagnostics,
) -> Vec<ServiceMatch> {
    if text == names::ALL {
        return vec![ServiceMatch::ALL];
    }
    if let Some(matches) = names::service(text) {
        return matches.iter().filter_map(|text| parse(text).ok()).collect();
    }
    match parse(text) {
        Ok(found) => vec![found],
        Err(Bad { message, label, help }) => {
            let known = own.chain(names::SERVICES.iter().map(|(name, _)| *name)).chain([names::ALL]);
            let near = names::nearest(text, known.chain(names::PROTOCOLS.iter().map(|(name, _)| *name)));
            let help = help.or_else(|| near.map(|near| format!("did you mean `{near}`?")));
            let code = if text.contains('/') { "bad_service" } else { "unknown_service" };
            let item = Diagnostic::error(code, item.span, message).label(label);
            findings.push(match help {
                Some(help) => item.help(help),
                None => item.help("define it under `services:`, or write a match such as tcp/8000"),
            });
            Vec::new()
        }
    }
}

/// Why a text is no match.
struct Bad {
    message: String,
    label: String,
    help: Option<String>,
}

impl Bad {
    fn new(message: String, label: &str, help: Option<String>) -> Self {
        Self { message, label: label.to_owned(), help }
    }
}

/// Reads `tcp/22`, `tcp/1-5`, `tcp`, `icmp/echo-request`, `icmp/8`, `icmp/3/4`, `esp`, `proto/50`.
fn parse(text: &str) -> Result<ServiceMatch, Bad> {
    let (head, rest) = match text.split_once('/') {
        Some((head, rest)) => (head, Some(rest)),
        None => (text, None),
    };
    if head == "proto" {
        let number = rest.and_then(|rest| rest.parse().ok()).ok_or_else(|| {
            Bad::new(format!("`{text}` names no protocol"), "expected `proto/NUMBER`, 0 to 255", None)
        })?;
        return Ok(ServiceMatch::protocol(number));
    }
    let Some(proto) = names::protocol(head) else {
        let message = match rest {
            Some(_) => format!("`{head}` is no protocol"),
            None => format!("there is no service `{text}`"),
        };
        let near = rest.and_then(|rest| {
            let near = names::nearest(head, names::PROTOCOLS.iter().map(|(name, _)| *name))?;
            Some(format!("did you mean `{near}/{rest}`?"))
        });
        let label = match rest {
            Some(_) => "expected tcp, udp, sctp, icmp, icmpv6, esp, ah, gre or proto",
            None => "expected a service's name, or a match such as tcp/22",
        };
        return Err(Bad::new(message, label, near));
    };
    match (rest, proto) {
        (None, _) => Ok(ServiceMatch::protocol(proto)),
        (Some(rest), Proto::TCP | Proto::UDP | Proto::SCTP) => ports(head, proto, rest),
        (Some(rest), Proto::ICMP | Proto::ICMPV6) => icmp(head, proto, rest),
        (Some(_), _) => {
            let message = format!("{head} has no ports");
            Err(Bad::new(message, "expected the protocol alone", Some(format!("write `{head}`"))))
        }
    }
}

fn ports(head: &str, proto: u8, rest: &str) -> Result<ServiceMatch, Bad> {
    let (lo, hi) = rest.split_once('-').unwrap_or((rest, rest));
    let (lo, hi) = (port(lo, head)?, port(hi, head)?);
    if lo > hi {
        let message = format!("the range {lo}-{hi} is empty");
        return Err(Bad::new(message, "expected the lower port first", Some(format!("write `{head}/{hi}-{lo}`"))));
    }
    Ok(ServiceMatch { proto: Some(proto), lo, hi })
}

fn port(text: &str, head: &str) -> Result<u16, Bad> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if port > 0 && digits => Ok(port),
        _ => {
            let help = match names::service(text) {
                Some(_) => Some(format!("write `{text}` alone")),
                None if text == "0" => Some(format!("write `{head}` for all ports")),
                None => None,
            };
            let message = format!("`{text}` is no port");
            Err(Bad::new(message, "expected a number from 1 to 65535, or a range such as 8000-8010", help))
        }
    }
}

fn icmp(head: &str, proto: u8, rest: &str) -> Result<ServiceMatch, Bad> {
    let (kind_text, code) = match rest.split_once('/') {
        Some((kind, code)) => (kind, Some(code)),
        None => (rest, None),
    };
    let named = names::icmp_type(proto, kind_text);
    let Some(kind) = named.or_else(|| kind_text.parse::<u8>().ok()) else {
        let near = names::nearest(kind_text, names::icmp_names(proto));
        let help = near.map(|near| format!("did you mean `{head}/{near}`?"));
        let message = format!("`{kind_text}` is no message of {head}");
        return Err(Bad::new(message, "expected a name such as echo-request, or a number from 0 to 255", help));
    };
    let base = u16::from(kind) << 8;
    let Some(code) = code else { return Ok(ServiceMatch { proto: Some(proto), lo: base, hi: base | 0xff }) };
    let code: u8 = code.parse().map_err(|_| {
        Bad::new(format!("`{code}` is no ICMP code"), "expected a number from 0 to 255 behind the type", None)
    })?;
    let selector = base | u16::from(code);
    Ok(ServiceMatch { proto: Some(proto), lo: selector, hi: selector })
}

/// Sorted, overlapping and adjacent ranges joined.
fn merged(mut matches: Vec<ServiceMatch>) -> Vec<ServiceMatch> {
    if matches.contains(&ServiceMatch::ALL) {
        return vec![ServiceMatch::ALL];
    }
    matches.sort_unstable();
    let mut out: Vec<ServiceMatch> = Vec::with_capacity(matches.len());
    for found in matches {
        match out.last_mut() {
            Some(last) if last.proto == found.proto && u32::from(found.lo) <= u32::from(last.hi) + 1 => {
                last.hi = last.hi.max(found.hi);
            }
            _ => out.push(found),
        }
    }
    out
}

/// True if a flow can be opened by something that the match holds: of ICMP only echo requests open flows.
pub(super) fn opens_flows(found: &ServiceMatch) -> bool {
    match found.proto {
        Some(proto @ (Proto::ICMP | Proto::ICMPV6)) => {
            let echo = u16::from(names::echo_request(proto)) << 8;
            found.lo <= (echo | 0xff) && echo <= found.hi
        }
        _ => true,
    }
}

/// The finding for a rule of which nothing can open a flow.
pub(super) fn never_opens(rule: &str, span: Span) -> Diagnostic {
    let message = format!("the rule `{rule}` matches only ICMP messages that open no flow");
    Diagnostic::warning("no_flow", span, message)
        .help("errors and replies pass with the flow they belong to; only echo requests need a rule")
}
