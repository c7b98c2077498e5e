//! The interfaces of this network namespace, as netlink tells them, and this machine's own addresses.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use anyhow::Context;
use futures_util::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{
    LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp,
};
use tokio_util::task::AbortOnDropHandle;

/// What is known of one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkFacts {
    /// Its name.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// Kind of a virtual interface (`veth`, `bridge`, ...), else `ethernet` or the link layer's name.
    pub kind: String,
    /// `ARPHRD_*` of its frames.
    pub arphrd: u16,
    /// True if it is up.
    pub up: bool,
    /// True for the loopback.
    pub loopback: bool,
    /// The bridge, bond or VRF it belongs to.
    pub master: Option<u32>,
    /// The interface it lies on top of, in this namespace.
    pub lower: Option<u32>,
    /// Name of a switch port (`pf0hpf`, `pf0vf3`): a representor.
    pub representor: Option<String>,
    /// Virtual functions that this physical function has handed out.
    pub vfs: u32,
    /// True if it is a virtual function.
    pub is_vf: bool,
    /// RDMA device that shares its hardware.
    pub rdma: Option<String>,
    /// Id of an attached XDP program.
    pub xdp: Option<u32>,
}

/// Lists all interfaces.
///
/// # Errors
/// If netlink does not answer.
pub async fn list() -> anyhow::Result<Vec<LinkFacts>> {
    let (connection, handle, _) = rtnetlink::new_connection().context("cannot open a netlink socket")?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let request = handle
        .link()
        .get()
        .set_filter_mask(AddressFamily::Unspec, vec![LinkExtentMask::Vf]);
    let messages: Vec<LinkMessage> = request
        .execute()
        .try_collect()
        .await
        .context("netlink does not list the interfaces")?;
    let mut links: Vec<_> = messages.iter().map(facts).collect();
    let sysfs = Path::new("/sys");
    for link in &mut links {
        add_sysfs(sysfs, link);
    }
    links.sort_by_key(|link| link.ifindex);
    Ok(links)
}

fn facts(message: &LinkMessage) -> LinkFacts {
    let header = &message.header;
    let mut link = LinkFacts {
        ifindex: header.index,
        arphrd: header.link_layer_type.into(),
        kind: match header.link_layer_type {
            LinkLayerType::Ether => "ethernet".to_owned(),
            other => other.to_string().to_lowercase(),
        },
        up: header.flags.contains(LinkFlags::Up),
        loopback: header.flags.contains(LinkFlags::Loopback),
        ..LinkFacts::default()
    };
    let other_namespace = message
        .attributes
        .iter()
        .any(|at| matches!(at, LinkAttribute::LinkNetNsId(_)));
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Controller(index) => link.master = Some(*index),
            LinkAttribute::Link(index) if !other_namespace && *index != 0 => link.lower = Some(*index),
            LinkAttribute::PhysPortName(name) if is_representor(name) => {
                link.representor = Some(name.clone());
            }
            LinkAttribute::NumVf(count) => link.vfs = *count,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    if let LinkInfo::Kind(kind) = info {
                        link.kind = kind.to_string();
                    }
                }
            }
            LinkAttribute::Xdp(xdp) => link.xdp = xdp.iter().find_map(xdp_program),
            _ => {}
        }
    }
    link
}

fn xdp_program(xdp: &LinkXdp) -> Option<u32> {
    match xdp {
        LinkXdp::ProgId(id) if *id != 0 => Some(*id),
        _ => None,
    }
}

/// Port names of representors (Documentation/networking/switchdev.rst): `pf0`, `pf0vf3`, `pf0sf88`, `c1pf0`, and NVIDIA's
/// host function `pf0hpf`. A wire's port is `p0`.
fn is_representor(name: &str) -> bool {
    name.starts_with("pf") || (name.starts_with('c') && name.contains("pf"))
}

/// Adds what only sysfs tells. After a change of namespace /sys may show another one's interfaces: its index decides.
fn add_sysfs(sysfs: &Path, link: &mut LinkFacts) {
    let net = sysfs.join("class/net").join(&link.name);
    let index = std::fs::read_to_string(net.join("ifindex")).unwrap_or_default();
    if index.trim().parse() != Ok(link.ifindex) {
        return;
    }
    link.is_vf = net.join("device/physfn").exists();
    let rdma = std::fs::read_dir(net.join("device/infiniband"))
        .into_iter()
        .flatten()
        .flatten()
        .next();
    link.rdma = rdma.map(|entry| entry.file_name().to_string_lossy().into_owned());
}

/// This machine's addresses: all interfaces of the namespace, without 127.0.0.0/8 and `::1`.
///
/// # Errors
/// If the kernel does not list them.
pub fn own_addresses() -> anyhow::Result<BTreeSet<IpAddr>> {
    let list = nix::ifaddrs::getifaddrs().context("the kernel does not list this machine's addresses")?;
    let address = |entry: nix::ifaddrs::InterfaceAddress| {
        let address = entry.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    };
    Ok(list
        .filter_map(address)
        .filter(|address| !address.is_loopback())
        .collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{LinkFacts, add_sysfs, is_representor};

    #[test]
    fn representors_are_told_from_wires() {
        assert!(
            ["pf0hpf", "pf0vf3", "pf1sf88", "c1pf0vf2"]
                .iter()
                .all(|name| is_representor(name))
        );
        assert!(!["p0", "p1", "1", ""].iter().any(|name| is_representor(name)));
    }

    #[test]
    fn sysfs_of_another_namespace_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let net = dir.path().join("class/net/eth0");
        std::fs::create_dir_all(net.join("device/infiniband/mlx5_0")).unwrap();
        std::fs::create_dir_all(net.join("device/physfn")).unwrap();
        std::fs::write(net.join("ifindex"), "7\n").unwrap();
        let mut link = LinkFacts {
            name: "eth0".into(),
            ifindex: 7,
            ..LinkFacts::default()
        };
        add_sysfs(dir.path(), &mut link);
        assert_eq!((link.rdma.as_deref(), link.is_vf), (Some("mlx5_0"), true));
        let mut link = LinkFacts {
            name: "eth0".into(),
            ifindex: 8,
            ..LinkFacts::default()
        };
        add_sysfs(dir.path(), &mut link);
        assert_eq!(
            link,
            LinkFacts {
                name: "eth0".into(),
                ifindex: 8,
                ..LinkFacts::default()
            }
        );
        add_sysfs(Path::new("/nonexistent"), &mut link);
    }

    #[tokio::test]
    async fn the_loopback_is_listed() {
        let links = super::list().await.unwrap();
        assert!(
            links.iter().any(|link| link.loopback && link.name == "lo"),
            "{links:?}"
        );
        assert!(
            super::own_addresses()
                .unwrap()
                .iter()
                .all(|address| !address.is_loopback())
        );
    }
}
