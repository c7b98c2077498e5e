//! An address has at most one plane: checked anew whenever members of dynamic zones change.

use fw_policy::Policy;
use fw_policy::model::{Tags, Zone};
use ipnet::IpNet;

use crate::exit::Failure;

/// Refuses members of a dynamic zone with a plane that lie in a zone of another plane.
///
/// # Errors
/// With exit code 2 and both zones.
pub fn check(policy: &Policy) -> Result<(), Failure> {
    let planes: Vec<&Zone> = policy.zones.iter().filter(|zone| zone.plane != 0).collect();
    for zone in planes.iter().filter(|zone| zone.dynamic) {
        for other in planes.iter().filter(|other| foreign(zone, other)) {
            if let Some((member, theirs)) = common(&zone.prefixes, &other.prefixes) {
                let name = |zone: &Zone| {
                    let plane = policy.planes.get(zone.plane as usize - 1);
                    plane.map_or("?", |plane| plane.name.as_str()).to_owned()
                };
                return Err(Failure::input(format!(
                    "{member} cannot be in the zone `{}` of the plane {}: {theirs} is in the zone `{}` of the plane {}, and \
                     an address has one plane; nothing was changed",
                    zone.name,
                    name(zone),
                    other.name,
                    name(other)
                )));
            }
        }
    }
    Ok(())
}

fn foreign(zone: &Zone, other: &Zone) -> bool {
    let tags: [Tags; 2] = [zone.tags(), other.tags()];
    zone.plane != other.plane && tags[0] == tags[1]
}

/// A prefix of each list that overlap. `sorted` is sorted.
fn common(members: &[IpNet], sorted: &[IpNet]) -> Option<(IpNet, IpNet)> {
    members
        .iter()
        .find_map(|member| overlapping(*member, sorted).map(|other| (*member, other)))
}

fn overlapping(member: IpNet, sorted: &[IpNet]) -> Option<IpNet> {
    // One that lies inside begins at or behind the member.
    let next = sorted.partition_point(|other| *other < member);
    if let Some(inner) = sorted.get(next).filter(|other| member.contains(*other)) {
        return Some(*inner);
    }
    // One around it is one of its own shortened prefixes.
    let around = std::iter::successors(Some(member), IpNet::supernet);
    around
        .into_iter()
        .find(|outer| sorted.binary_search(outer).is_ok())
}

#[cfg(test)]
mod tests {
    use ipnet::IpNet;

    use super::common;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn overlaps_are_found_whichever_side_is_larger() {
        let sorted = nets(&["10.0.0.0/8", "10.0.0.0/24", "172.16.0.1/32", "fd00::/64"]);
        for (member, found) in [
            ("10.0.0.7/32", Some("10.0.0.0/24")),
            ("10.9.0.0/16", Some("10.0.0.0/8")),
            ("10.0.0.0/8", Some("10.0.0.0/8")),
            ("172.16.0.0/12", Some("172.16.0.1/32")),
            ("0.0.0.0/0", Some("10.0.0.0/8")),
            ("fd00::/16", Some("fd00::/64")),
            ("172.16.0.2/32", None),
            ("11.0.0.0/8", None),
            ("fd01::/16", None),
        ] {
            let other = common(&nets(&[member]), &sorted).map(|(_, other)| other);
            assert_eq!(other, found.map(|text| text.parse().unwrap()), "{member}");
        }
    }
}
