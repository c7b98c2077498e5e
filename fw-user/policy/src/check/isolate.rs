//! The `isolate:` section: what must be kept apart. It is read here and proved elsewhere.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::fields::{self, Fields};
use super::zones::Zones;
use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::keys;
use crate::model::{Isolation, Rule, ZoneIndex};
use crate::names;
use crate::yaml::{Node, Value};

/// Keys that say what is kept apart; a statement has exactly one of them.
const SIDES: [&str; 3] = ["planes", "zones", "each"];

/// Zones on one side, and what they are called together.
struct Side {
    name: String,
    zones: Vec<ZoneIndex>,
}

/// Reads the sections of all files.
pub(super) fn read(
    sections: &[&Node],
    zones: &Zones,
    rules: &[Rule],
    findings: &mut Diagnostics,
) -> Vec<Isolation> {
    let places = rules
        .iter()
        .enumerate()
        .map(|(place, rule)| (rule.name.as_str(), place));
    let reader = Reader {
        zones,
        places: places.collect(),
    };
    let mut isolations = Vec::new();
    for section in sections {
        match &section.value {
            Value::Empty => {}
            Value::List(items) => {
                for item in items {
                    reader.statement(item, findings, &mut isolations);
                }
            }
            _ => {
                let message = "`isolate` is a list (`- { planes: [training, management] }`)";
                findings.push(fields::wrong_type(section, message, "a list"));
            }
        }
    }
    isolations
}

struct Reader<'a> {
    zones: &'a Zones,
    /// Places of the rules by name.
    places: HashMap<&'a str, usize>,
}

impl Reader<'_> {
    fn statement(&self, node: &Node, findings: &mut Diagnostics, out: &mut Vec<Isolation>) {
        let Some(fields) = Fields::read(node, "an isolation", keys::ISOLATION, findings) else {
            return;
        };
        let except = fields
            .get("except")
            .map_or_else(Vec::new, |node| self.except(node, findings));
        let line = findings.sources.line(node.span);
        let mut push = |left: &Side, right: Side| {
            out.push(Isolation {
                left_name: left.name.clone(),
                right_name: right.name,
                left: left.zones.clone(),
                right: right.zones,
                except: except.clone(),
                line,
                span: node.span,
            });
        };
        let mut present = SIDES.iter().filter_map(|key| Some((*key, fields.get(key)?)));
        match (present.next(), present.next()) {
            (Some(("each", node)), None) => {
                for (left, right) in self.each(node, findings) {
                    push(&left, right);
                }
            }
            (Some((key, node)), None) => {
                let sides = if key == "planes" {
                    self.planes(node, findings)
                } else {
                    self.sides(node, findings)
                };
                for (place, left) in sides.iter().enumerate() {
                    for right in &sides[place + 1..] {
                        let right = Side {
                            name: right.name.clone(),
                            zones: right.zones.clone(),
                        };
                        push(left, right);
                    }
                }
            }
            (None, _) if SIDES.iter().any(|key| fields.is_misspelt(key)) => {}
            (_, second) => findings.push(one_of_three(&fields, second.map(|(key, _)| key))),
        }
    }

    /// Planes, pair by pair.
    fn planes(&self, node: &Node, findings: &mut Diagnostics) -> Vec<Side> {
        let mut sides = Vec::new();
        for item in two_or_more(node, "planes", findings) {
            let Some(name) = fields::text(item, "a plane's name", findings) else {
                continue;
            };
            let planes = &self.zones.planes;
            let Some(place) = planes.iter().position(|plane| plane.name == name) else {
                let item = Diagnostic::error(
                    "unknown_plane",
                    item.span,
                    format!("no zone has the plane `{name}`"),
                )
                .label("expected a plane that a zone has");
                findings.push(
                    match names::nearest(name, planes.iter().map(|plane| plane.name.as_str())) {
                        Some(nearest) => item.help(format!("did you mean `{nearest}`?")),
                        None => item.help("give zones the plane: `plane: NAME`"),
                    },
                );
                continue;
            };
            let number = place as u32 + 1;
            let zones = self.all_zones(|index| self.zones.list[index].plane == number);
            sides.push(Side {
                name: format!("plane {name}"),
                zones,
            });
        }
        sides
    }

    /// Zones, or lists of zones, pair by pair.
    fn sides(&self, node: &Node, findings: &mut Diagnostics) -> Vec<Side> {
        let mut sides = Vec::new();
        for item in two_or_more(node, "zones", findings) {
            if let Some(zones) = self.zones.read_list(item, findings) {
                let names: Vec<&str> = zones
                    .iter()
                    .map(|zone| self.zones.list[*zone].name.as_str())
                    .collect();
                let kind = if names.len() == 1 { "zone" } else { "zones" };
                sides.push(Side {
                    name: format!("{kind} {}", names.join(", ")),
                    zones,
                });
            }
        }
        sides
    }

    /// Every value of a label from every other: each from those behind it.
    fn each(&self, node: &Node, findings: &mut Diagnostics) -> Vec<(Side, Side)> {
        let Some(label) = label(node, findings) else {
            return Vec::new();
        };
        let mut values: BTreeMap<&str, Vec<ZoneIndex>> = BTreeMap::new();
        for (index, zone) in self.zones.list.iter().enumerate() {
            if let Some(value) = zone.labels.get(label) {
                values.entry(value).or_default().push(index);
                self.zones.note_use(index);
            }
        }
        if values.len() < 2 {
            findings.push(few_values(label, values.len(), node.span, self.zones));
            return Vec::new();
        }
        let values: Vec<(&str, Vec<ZoneIndex>)> = values.into_iter().collect();
        let pairs = values.iter().enumerate().map(|(place, (value, zones))| {
            let others = &values[place + 1..];
            let name = match others {
                [(only, _)] => format!("{label}={only}"),
                _ => format!(
                    "{label}={} and {} others",
                    others.first().map_or("", |(name, _)| name),
                    others.len().saturating_sub(1)
                ),
            };
            let right: BTreeSet<ZoneIndex> = others
                .iter()
                .flat_map(|(_, zones)| zones.iter().copied())
                .collect();
            let left = Side {
                name: format!("{label}={value}"),
                zones: zones.clone(),
            };
            (
                left,
                Side {
                    name,
                    zones: right.into_iter().collect(),
                },
            )
        });
        pairs.filter(|(_, right)| !right.zones.is_empty()).collect()
    }

    fn all_zones(&self, wanted: impl Fn(ZoneIndex) -> bool) -> Vec<ZoneIndex> {
        let found: Vec<ZoneIndex> = (0..self.zones.list.len())
            .filter(|index| wanted(*index))
            .collect();
        for index in &found {
            self.zones.note_use(*index);
        }
        found
    }

    /// Places of the rules that may cross; sorted.
    fn except(&self, node: &Node, findings: &mut Diagnostics) -> Vec<usize> {
        if matches!(node.value, Value::Empty) {
            return Vec::new();
        }
        let mut except = BTreeSet::new();
        for item in fields::list(node, "a rule's name or a list of them", findings).unwrap_or_default() {
            let Some(name) = fields::text(item, "a rule's name", findings) else {
                continue;
            };
            match self.places.get(name) {
                Some(place) => {
                    except.insert(*place);
                }
                // Rules with errors are not in the list; then the name may well be right.
                None if findings.has_errors() => {}
                None => {
                    let item =
                        Diagnostic::error("unknown_rule", item.span, format!("there is no rule `{name}`"))
                            .label("expected the name of a rule that may cross");
                    findings.push(match names::nearest(name, self.places.keys().copied()) {
                        Some(nearest) => item.help(format!("did you mean `{nearest}`?")),
                        None => item.help("write `except: []` if no rule may cross"),
                    });
                }
            }
        }
        except.into_iter().collect()
    }
}

/// Reads `{ label: tenant }`.
fn label<'n>(node: &'n Node, findings: &mut Diagnostics) -> Option<&'n str> {
    let fields = Fields::read(node, "`each`", keys::SELECTION, findings)?;
    let node = fields.require("label", "`each`", findings)?;
    fields::text(node, "a label's name", findings)
}

fn two_or_more<'n>(node: &'n Node, what: &str, findings: &mut Diagnostics) -> &'n [Node] {
    match &node.value {
        Value::List(items) if items.len() > 1 => return items,
        Value::List(_) => findings.push(
            Diagnostic::error(
                "isolate",
                node.span,
                format!("fewer than two {what} cannot be kept apart"),
            )
            .label(format!("expected at least two {what}")),
        ),
        _ => findings.push(fields::wrong_type(
            node,
            &format!("`{what}` is a list of at least two"),
            "a list",
        )),
    }
    &[]
}

fn few_values(label: &str, values: usize, span: Span, zones: &Zones) -> Diagnostic {
    let message = match values {
        0 => format!("no zone has the label `{label}`"),
        _ => format!("all zones with the label `{label}` have the same value, so nothing is kept apart"),
    };
    let item =
        Diagnostic::error("unknown_label", span, message).label("expected a label with at least two values");
    let keys = zones.list.iter().flat_map(|zone| zone.labels.keys());
    match names::nearest(label, keys.map(String::as_str).filter(|key| *key != label)) {
        Some(near) => item.help(format!("did you mean `{near}`?")),
        None => item.help(format!("give zones the label: `labels: {{ {label}: a }}`")),
    }
}

fn one_of_three(fields: &Fields<'_>, second: Option<&str>) -> Diagnostic {
    let span = second
        .and_then(|key| fields.key_span(key))
        .unwrap_or_else(|| fields.span.begin());
    Diagnostic::error("isolate", span, "an isolation has exactly one of `planes`, `zones` and `each`")
        .label(if second.is_some() { "one too many" } else { "expected one of them" })
        .help("`{ planes: [a, b] }`, `{ zones: [a, b] }` or `{ each: { label: tenant } }`, with `except: [RULE]` where a rule may cross")
}
