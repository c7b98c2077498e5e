//! Roles of ports that expectations name: one that nothing else names is probably misspelt.

use std::collections::BTreeSet;

use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::names;

/// A role in `in:` or `out:` of an expectation.
pub(super) struct Named {
    pub(super) role: String,
    pub(super) span: Span,
    /// The expectation says that no plane is bound there: its reason is `plane_mismatch`.
    pub(super) unbound: bool,
}

/// Warns of roles that the policy does not bind (`bound`), and that are near one that it does, or named by a single
/// expectation. `others` are named by expectations that are not among `named`.
pub(super) fn warn(
    named: &[Named],
    bound: &BTreeSet<&str>,
    others: &BTreeSet<&str>,
    findings: &mut Diagnostics,
) {
    // Without any binding no role is more wrong than another.
    if bound.is_empty() {
        return;
    }
    for (place, own) in named.iter().enumerate() {
        let role = own.role.as_str();
        if bound.contains(role) {
            continue;
        }
        let again = named
            .iter()
            .enumerate()
            .any(|(other, named)| other != place && named.role == role);
        let near = names::nearest(role, bound.iter().copied());
        if near.is_none() && (own.unbound || again || others.contains(role)) {
            continue;
        }
        let message = format!("no zone and no other section names the port role `{role}`");
        let item = Diagnostic::warning("unknown_role", own.span, message);
        findings.push(match near {
            Some(near) => item.help(format!("did you mean `{near}`?")),
            None => item.help(format!("roles that the policy names: {}", list(bound))),
        });
    }
}

/// Roles as a list for people.
fn list(roles: &BTreeSet<&str>) -> String {
    roles.iter().copied().collect::<Vec<_>>().join(", ")
}

/// A doubt about a role in a question: a sentence if the policy names roles, but not this one.
#[must_use]
pub fn unnamed_role(policy: &crate::Policy, role: &str) -> Option<String> {
    let named = policy.roles();
    if named.is_empty() || named.contains(role) {
        return None;
    }
    let hint = names::nearest(role, named.iter().copied()).map_or_else(
        || format!("it names {}", list(&named)),
        |near| format!("did you mean `{near}`?"),
    );
    Some(format!(
        "{} does not name the port role `{role}`; {hint}",
        policy.file
    ))
}
