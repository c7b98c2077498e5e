//! What is attached where: for `status` and `detach`, with or without a running agent.

use std::path::{Path, PathBuf};

use aya_obj::generated::bpf_link_type;

use super::error::DataPlaneError;
use super::hook::Hook;
use super::links::{self, Links, Place};
use super::{bpffs, clsact, privilege, sys};

/// How a program stands at its hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// Native XDP.
    Xdp,
    /// TCX (kernel 6.6 and later).
    Tcx,
    /// A filter of the clsact qdisc.
    Clsact,
}

impl Means {
    /// Name for tables and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

/// A program of ours at an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The interface.
    pub ifindex: u32,
    /// The hook.
    pub hook: Hook,
    /// How it stands there.
    pub means: Means,
    /// The kernel's id of the program.
    pub prog_id: u32,
    /// The kernel's id of the link; a clsact filter has none.
    pub link_id: Option<u32>,
    /// TCX programs that run before ours and may keep packets from it. Should be 0.
    pub ahead: u32,
}

/// Layouts of which something is pinned below `base`: version and directory ([`fw_common::abi::ABI_VERSION`] is this
/// build's). Reads only.
///
/// # Errors
///
/// If the directory exists and cannot be read.
pub fn layouts(base: &Path) -> Result<Vec<(u32, PathBuf)>, DataPlaneError> {
    let mut layouts = Vec::new();
    for name in bpffs::names(base)? {
        let Some(version) = name.strip_prefix('v').and_then(|version| version.parse().ok()) else {
            continue;
        };
        let path = base.join(name);
        if !bpffs::names(&path)?.is_empty() {
            layouts.push((version, path));
        }
    }
    layouts.sort_unstable();
    Ok(layouts)
}

/// What a pinned data plane has attached, in the order of interfaces. Reads only. Links whose interface is gone are left
/// out.
///
/// # Errors
///
/// [`DataPlaneError::NoPrivilege`], or what the kernel refused.
pub fn list_attached(pin_dir: &Path) -> Result<Vec<Attachment>, DataPlaneError> {
    privilege::check()?;
    list(&Links::new(Some(pin_dir.to_owned())))
}

/// Takes a pinned data plane down: links, filters, maps with policy and flows. The ports are open afterwards. Returns what
/// was attached. What cannot be detached is tried last to last, and the pins stay if anything failed.
///
/// # Errors
///
/// [`DataPlaneError::NoPrivilege`], [`DataPlaneError::NotRunning`] if nothing is pinned,
/// [`DataPlaneError::OtherNamespace`], or the first thing that could not be removed.
pub fn detach_all(pin_dir: &Path) -> Result<Vec<Attachment>, DataPlaneError> {
    privilege::check()?;
    if bpffs::names(pin_dir)?.is_empty() {
        return Err(DataPlaneError::NotRunning {
            pin_dir: pin_dir.to_owned(),
        });
    }
    check_namespace(pin_dir)?;
    let mut kept = Links::new(Some(pin_dir.to_owned()));
    let attached = list(&kept)?;
    let (with_link, with_filter) = kept.places()?;
    let links = with_link
        .into_iter()
        .map(|place| kept.remove(place))
        .collect::<Vec<_>>();
    let filters = with_filter
        .into_iter()
        .map(|place| kept.remove_filter(place))
        .collect::<Vec<_>>();
    links.into_iter().chain(filters).collect::<Result<Vec<_>, _>>()?;
    bpffs::clear(pin_dir)?;
    Ok(attached)
}

/// Refuses to touch what guards the interfaces of another network namespace: an index means something else there. Links
/// whose interfaces are gone bind nobody.
pub(super) fn check_namespace(pin_dir: &Path) -> Result<(), DataPlaneError> {
    let ours = bpffs::own_netns()?;
    match bpffs::recorded_netns(pin_dir) {
        Some(theirs) if theirs != ours && any_alive(pin_dir)? => Err(DataPlaneError::OtherNamespace {
            pin_dir: pin_dir.to_owned(),
            theirs,
            ours,
        }),
        _ => Ok(()),
    }
}

/// True if any pinned link still has its interface, or a filter was noted.
fn any_alive(pin_dir: &Path) -> Result<bool, DataPlaneError> {
    let (with_link, with_filter) = links::pinned_places(pin_dir)?;
    let kept = Links::new(Some(PathBuf::from(pin_dir)));
    for place in with_link {
        if kept.info(place)?.is_some() {
            return Ok(true);
        }
    }
    Ok(!with_filter.is_empty())
}

/// Attachments of pinned or held links and of filters.
pub(super) fn list(kept: &Links) -> Result<Vec<Attachment>, DataPlaneError> {
    let (with_link, with_filter) = kept.places()?;
    let mut attached = Vec::new();
    for place in with_link {
        if let Some(info) = kept.info(place)? {
            attached.push(of_link(place, &info));
        }
    }
    for (ifindex, hook) in with_filter {
        if let Some(prog_id) = clsact::find((ifindex, hook))? {
            attached.push(Attachment {
                ifindex,
                hook,
                means: Means::Clsact,
                prog_id,
                link_id: None,
                ahead: 0,
            });
        }
    }
    attached.sort_by_key(|attachment| (attachment.ifindex, attachment.hook));
    Ok(attached)
}

fn of_link((ifindex, hook): Place, info: &sys::LinkInfo) -> Attachment {
    let xdp = info.kind == bpf_link_type::BPF_LINK_TYPE_XDP as u32;
    let means = if xdp { Means::Xdp } else { Means::Tcx };
    let ahead = if xdp {
        0
    } else {
        ahead_in_chain((ifindex, hook), info.id)
    };
    Attachment {
        ifindex,
        hook,
        means,
        prog_id: info.prog_id,
        link_id: Some(info.id),
        ahead,
    }
}

/// Programs before this link in its TCX chain.
fn ahead_in_chain((ifindex, hook): Place, link_id: u32) -> u32 {
    // The interface may vanish between the two calls; then nothing is ahead.
    let chain = sys::tcx_chain(ifindex, hook.link_type()).unwrap_or_default();
    chain.iter().position(|id| *id == link_id).unwrap_or(0) as u32
}
