//! Zones as rules name them: by name, or by label.

use std::collections::BTreeSet;

use super::fields::{self, Fields};
use super::planes;
use super::zones::Zones;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::keys;
use crate::model::{Zone, ZoneIndex};
use crate::names;
use crate::yaml::{Node, Value};

impl Zones {
    /// Reads names of zones, or labels that stand for zones. Sorted, without duplicates, not empty.
    pub(super) fn read_list(&self, node: &Node, findings: &mut Diagnostics) -> Option<Vec<ZoneIndex>> {
        let items = fields::list(node, "a zone or a list of zones", findings)?;
        if items.is_empty() {
            findings.push(
                Diagnostic::error("empty_list", node.span, "no zone is named")
                    .label("expected at least one zone")
                    .help("write `any` for every address"),
            );
            return None;
        }
        let found: Vec<Option<Vec<ZoneIndex>>> =
            items.iter().map(|item| self.read_one(item, findings)).collect();
        let found: Option<Vec<Vec<ZoneIndex>>> = found.into_iter().collect();
        found.map(|zones| {
            let sorted: BTreeSet<ZoneIndex> = zones.into_iter().flatten().collect();
            sorted.into_iter().collect()
        })
    }

    fn read_one(&self, node: &Node, findings: &mut Diagnostics) -> Option<Vec<ZoneIndex>> {
        if let Value::Map(pairs) = &node.value {
            let fields = Fields::read(node, "a selection of zones", keys::SELECTION, findings)?;
            // Another key was reported; a missing one would be a second error for one mistake.
            if !pairs.is_empty() && !fields.has("label") {
                return None;
            }
            let label = fields.require("label", "a selection of zones", findings)?;
            return self.labelled(label, findings);
        }
        let name = fields::text(node, "a zone's name", findings)?;
        let zone = self.get(name);
        if zone.is_none() {
            findings.push(self.unknown(name, node.span));
        }
        Some(vec![zone?])
    }

    /// The zones that have a label: `tenant`, or with a certain value: `{ tenant: a }`. Of several, all must fit.
    fn labelled(&self, node: &Node, findings: &mut Diagnostics) -> Option<Vec<ZoneIndex>> {
        let wanted: Vec<(String, Option<String>)> = match &node.value {
            Value::Map(_) => planes::labels(node, findings)?
                .into_iter()
                .map(|(key, value)| (key, Some(value)))
                .collect(),
            _ => vec![(fields::text(node, "a label", findings)?.to_owned(), None)],
        };
        let fits = |zone: &Zone| {
            wanted.iter().all(|(key, value)| {
                let own = zone.labels.get(key);
                own.is_some() && value.as_ref().is_none_or(|value| own == Some(value))
            })
        };
        let found: Vec<ZoneIndex> = (0..self.list.len())
            .filter(|index| fits(&self.list[*index]))
            .collect();
        if !found.is_empty() && !wanted.is_empty() {
            for zone in &found {
                self.note_use(*zone);
            }
            return Some(found);
        }
        let keys = self.list.iter().flat_map(|zone| zone.labels.keys());
        let near = wanted
            .first()
            .and_then(|(key, _)| names::nearest(key, keys.map(String::as_str)))
            .filter(|near| wanted.iter().all(|(key, _)| key != near));
        let item = Diagnostic::error("unknown_label", node.span, "no zone has this label")
            .label("expected a label that a zone has, such as `label: tenant`");
        findings.push(match near {
            Some(near) => item.help(format!("did you mean `{near}`?")),
            None => item.help("give zones the label: `labels: { tenant: a }`"),
        });
        None
    }
}
