//! The `services:` section, and what rules write as services.

use std::collections::{HashMap, HashSet};

use super::{fields, matches};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::model::{Rule, Service, ServiceMatch};
use crate::names;
use crate::services;
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

/// Reads the sections of all files. Services with errors are kept with what could be read.
pub(super) fn read(sections: &[&Node], findings: &mut Diagnostics) -> Services {
    let mut drafts = Vec::new();
    let mut by_name = HashMap::new();
    for section in sections {
        match &section.value {
            Value::Empty => {}
            Value::Map(pairs) => {
                for pair in pairs {
                    define(pair, &mut drafts, &mut by_name, findings);
                }
            }
            _ => findings.push(fields::wrong_type(
                section,
                "`services` is a mapping of names to matches (`name: [tcp/8000]`)",
                "a mapping",
            )),
        }
    }
    let mut resolver = Resolver {
        drafts,
        by_name,
        used: HashSet::new(),
        findings,
    };
    for index in 0..resolver.drafts.len() {
        resolver.resolve(index, 0);
    }
    let Resolver {
        drafts,
        by_name,
        used,
        ..
    } = resolver;
    let list = drafts.into_iter().map(finished).collect();
    Services {
        list,
        by_name,
        used: std::cell::RefCell::new(used),
    }
}

impl Services {
    /// Reads what a rule allows or denies: a service or a list of them.
    pub(super) fn matches(&self, node: &Node, findings: &mut Diagnostics) -> Vec<ServiceMatch> {
        let Some(items) = fields::list(node, "a service or a list of services", findings) else {
            return Vec::new();
        };
        if items.is_empty() {
            findings.push(
                Diagnostic::error("empty_list", node.span, "the rule names no service")
                    .label("expected at least one service")
                    .help("write `all` for every protocol and port"),
            );
        }
        let mut matches = Vec::new();
        for item in items {
            let Some(text) = fields::text(item, "a service", findings) else {
                continue;
            };
            if let Some(index) = self.by_name.get(text) {
                self.used.borrow_mut().insert(text.to_owned());
                matches.extend(&self.list[*index].matches);
            } else {
                let own = self.list.iter().map(|service| service.name.as_str());
                matches.extend(ready_made(text, item, own, findings));
            }
        }
        matches::merged(matches)
    }

    /// Warns of services that no rule and no other service uses.
    pub(super) fn warn_unused(&self, rules: &[Rule], findings: &mut Diagnostics) {
        let used = self.used.borrow();
        // Without rules everything is unused, and the empty list has a warning of its own.
        for service in self
            .list
            .iter()
            .filter(|service| !rules.is_empty() && !used.contains(&service.name))
        {
            let message = format!("no rule uses the service `{}`", service.name);
            findings.push(Diagnostic::warning("unused_service", service.span, message));
        }
    }
}

/// Adds a service, unless another file has it.
fn define<'n>(
    pair: &'n (Key, Node),
    drafts: &mut Vec<Draft<'n>>,
    by_name: &mut HashMap<String, usize>,
    findings: &mut Diagnostics,
) {
    let name = &pair.0;
    if let Some(first) = by_name.get(&name.text) {
        let message = format!("two files define the service `{}`", name.text);
        findings.push(
            Diagnostic::error("duplicate_service", name.span, message)
                .label("defined again here")
                .also(drafts[*first].key.span, "first defined here")
                .help("rename one of the two"),
        );
    } else if let Some(draft) = draft(pair, findings) {
        by_name.insert(name.text.clone(), drafts.len());
        drafts.push(draft);
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
            Diagnostic::error(
                "empty_list",
                node.span,
                format!("the service `{}` matches nothing", key.text),
            )
            .label("expected at least one match such as tcp/22"),
        );
    }
    Some(Draft {
        key,
        items,
        state: State::Waiting,
    })
}

fn finished(draft: Draft<'_>) -> Service {
    let matches = match draft.state {
        State::Done(matches) => matches,
        State::Waiting | State::Resolving => Vec::new(),
    };
    Service {
        name: draft.key.text.clone(),
        matches,
        span: draft.key.span,
    }
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
        let matches = matches::merged(matches);
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
            let message = if chain == MAX_CHAIN {
                "services name each other too deeply".to_owned()
            } else {
                message
            };
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
    if let Some(service) = services::built_in(text) {
        return service
            .matches
            .iter()
            .filter_map(|text| matches::parse(text).ok())
            .collect();
    }
    match matches::parse(text) {
        Ok(found) => vec![found],
        Err(matches::Bad { message, label, help }) => {
            let known = own
                .chain(services::BUILT_IN.iter().map(|service| service.name))
                .chain([names::ALL]);
            let near = names::nearest(text, known.chain(names::PROTOCOLS.iter().map(|(name, _)| *name)));
            let named = !text.contains(['/', ' ']);
            let near = near
                .filter(|_| named)
                .map(|near| format!("did you mean `{near}`?"));
            let code = if named { "unknown_service" } else { "bad_service" };
            let item = Diagnostic::error(code, item.span, message).label(label);
            findings.push(match help.or(near) {
                Some(help) => item.help(help),
                None if named => item.help("define it under `services:`, or write a match such as tcp/8000"),
                None => item,
            });
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::matches;
    use crate::services::BUILT_IN;

    #[test]
    fn built_in_services_are_of_the_language() {
        for service in BUILT_IN {
            for text in service.matches {
                assert!(matches::parse(text).is_ok(), "{}: {text}", service.name);
            }
        }
    }
}
