//! Zones and planes.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::Serialize;

use super::{Tags, ZoneIndex};
use crate::diagnostic::Span;

/// What a zone holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ZoneKind {
    /// A zone of the policy: [`Zone::prefixes`], in the realm of [`Zone::vlan`] only.
    Named,
    /// The addresses of this machine ([`crate::Environment::own_addresses`]), in every realm.
    SelfMachine,
    /// Every address that no other zone but `any` holds in that realm.
    Outside,
    /// Every address.
    Any,
    /// The cloud metadata service: [`Zone::prefixes`], in every realm.
    Metadata,
    /// Multicast and the limited broadcast address: [`Zone::prefixes`], in every realm.
    Multicast,
    /// Link-local addresses: [`Zone::prefixes`], in every realm.
    LinkLocal,
}

impl ZoneKind {
    /// The built-in zones, in the order in which they end [`super::Policy::zones`].
    pub const BUILT_IN: [Self; 6] = [
        Self::SelfMachine,
        Self::Outside,
        Self::Any,
        Self::Metadata,
        Self::Multicast,
        Self::LinkLocal,
    ];

    /// The name under which rules know a built-in zone; `None` for a named one.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::Named => return None,
            Self::SelfMachine => "self",
            Self::Outside => "outside",
            Self::Any => "any",
            Self::Metadata => "metadata",
            Self::Multicast => "multicast",
            Self::LinkLocal => "link_local",
        })
    }

    /// Addresses that the zone holds by definition.
    #[must_use]
    pub fn prefixes(self) -> &'static [&'static str] {
        match self {
            Self::Named | Self::SelfMachine | Self::Outside | Self::Any => &[],
            // The addresses of AWS, Azure, GCP and OpenStack (IPv4), of AWS (IPv6).
            Self::Metadata => &["169.254.169.254/32", "fd00:ec2::254/128"],
            // RFC 5771, RFC 919, RFC 4291 section 2.7.
            Self::Multicast => &["224.0.0.0/4", "255.255.255.255/32", "ff00::/8"],
            // RFC 3927, RFC 4291 section 2.5.6.
            Self::LinkLocal => &["169.254.0.0/16", "fe80::/10"],
        }
    }
}

/// A named set of addresses.
#[derive(Clone, Debug)]
pub struct Zone {
    /// Name, as rules write it.
    pub name: String,
    /// Stable id, made from the name; never 0.
    pub id: u32,
    /// What the zone holds.
    pub kind: ZoneKind,
    /// VLAN id of the zone's realm, of two tags the outer one; 0: untagged. Built-in zones hold in every realm and have 0
    /// here.
    pub vlan: u16,
    /// VLAN id of the inner tag; 0: the zone has at most one tag.
    pub inner_vlan: u16,
    /// Number of the zone's plane; 0: none.
    pub plane: u32,
    /// Access to and from the zone survives full tables and bans.
    pub lifeline: bool,
    /// What rules may select the zone by.
    pub labels: BTreeMap<String, String>,
    /// The addresses are not the policy's but the machine's affair: `dpufw zone add` and `remove` change them. A policy is
    /// checked with none; [`super::Policy::set_members`] puts them in.
    pub dynamic: bool,
    /// This is another zone, which has no VLAN, as rules with a zone in this VLAN on the other side see it: `gateway@101`.
    /// It has the other's addresses.
    pub seen_of: Option<ZoneIndex>,
    /// The zone's prefixes, sorted, without duplicates, host bits 0; ranges, files, other zones and exclusions are resolved.
    /// Empty for `self`, `outside` and `any`.
    pub prefixes: Vec<IpNet>,
    /// Where the zone's name stands; empty for built-in zones.
    pub span: Span,
}

impl Zone {
    /// The tags of the zone's realm.
    #[must_use]
    pub const fn tags(&self) -> Tags {
        Tags {
            outer: self.vlan,
            inner: self.inner_vlan,
        }
    }
}

/// What zones are for, and by which ports their packets come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plane {
    /// Name.
    pub name: String,
    /// Roles of the ports that the plane is bound to, sorted; empty: any port will do.
    pub roles: Vec<String>,
}

impl Plane {
    /// True if packets of the plane may use a port of this role.
    #[must_use]
    pub fn uses(&self, role: &str) -> bool {
        self.roles.is_empty() || self.roles.iter().any(|own| own == role)
    }
}
