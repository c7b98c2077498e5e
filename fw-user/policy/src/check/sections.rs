//! The small sections: `link:` and `default:`.

use super::fields::{self, Fields};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::keys;
use crate::model::{DefaultAction, Defaults, Link, RouterAdvertisement};
use crate::yaml::{Node, Value};

/// Reads `link:`. A key that is left out keeps its default, see [`Link`].
pub(super) fn link(section: Option<&Node>, findings: &mut Diagnostics) -> Link {
    let mut link = Link::default();
    let Some(fields) = section.and_then(|node| Fields::read(node, "the link section", keys::LINK, findings))
    else {
        return link;
    };
    if let Some(items) = fields
        .get("allow")
        .and_then(|node| fields::list(node, "a list of protocols", findings))
    {
        (link.arp, link.nd, link.lldp, link.lacp) = (false, false, false, false);
        for item in items {
            match fields::word(item, &["arp", "nd", "lldp", "lacp"], findings) {
                Some("arp") => link.arp = true,
                Some("nd") => link.nd = true,
                Some("lldp") => link.lldp = true,
                Some(_) => link.lacp = true,
                None => {}
            }
        }
    }
    if let Some(node) = fields.get("dhcp") {
        link.dhcp_client = fields::word(node, &["client", "never"], findings) == Some("client");
    }
    if let Some(node) = fields.get("multicast") {
        link.multicast = fields::word(node, &["never", "allow"], findings) == Some("allow");
    }
    if let Some(node) = fields.get("router_advertisement") {
        link.router_advertisement = router_advertisement(node, findings);
    }
    link
}

fn router_advertisement(node: &Node, findings: &mut Diagnostics) -> RouterAdvertisement {
    if matches!(&node.value, Value::Text { text, .. } if text == "never") {
        return RouterAdvertisement::Never;
    }
    let Value::List(items) = &node.value else {
        findings.push(
            Diagnostic::error(
                "wrong_type",
                node.span,
                "`router_advertisement` says from which ports they are accepted",
            )
            .label("expected `never` or a list of roles, such as [uplink]"),
        );
        return RouterAdvertisement::Never;
    };
    RouterAdvertisement::Roles(items.iter().filter_map(|item| role(item, findings)).collect())
}

/// Reads the name of a port's role. Which roles exist is the machine's affair.
pub(super) fn role(node: &Node, findings: &mut Diagnostics) -> Option<String> {
    let text = fields::text(node, "a role's name", findings)?;
    let plain = matches!(node.value, Value::Text { plain: true, .. });
    fields::new_name(text, plain, node.span, "a role", findings).then(|| text.to_owned())
}

/// Reads `default:`. Both sides drop unless they say otherwise.
pub(super) fn default(section: Option<&Node>, findings: &mut Diagnostics) -> Defaults {
    let fields = section.and_then(|node| Fields::read(node, "the default section", keys::DEFAULT, findings));
    let mut side = |key| {
        let node = fields.as_ref().and_then(|fields| fields.get(key))?;
        fields::word(node, &["drop", "reject"], findings)
    };
    let action = |word| match word {
        Some("reject") => DefaultAction::Reject,
        _ => DefaultAction::Drop,
    };
    Defaults {
        inside: action(side("inside")),
        outside: action(side("outside")),
    }
}
