//! Where links and filters are kept: pinned, or in this process.
//!
//! Pins are named by the interface's index, which outlives a renaming: `link_<ifindex>_<hook>`. A clsact filter cannot be
//! pinned; the fact `clsact_<ifindex>_<hook>` remembers it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::error::{self, DataPlaneError};
use super::hook::Hook;
use super::sys::{self, LinkInfo};
use super::{bpffs, clsact};

const LINK: &str = "link";
const CLSACT: &str = "clsact";

/// A place at an interface: its index and the hook.
pub(super) type Place = (u32, Hook);

/// The links and filters of a data plane.
#[derive(Debug)]
pub(super) struct Links {
    pin_dir: Option<PathBuf>,
    held: BTreeMap<Place, OwnedFd>,
    filters: BTreeSet<Place>,
}

impl Links {
    pub fn new(pin_dir: Option<PathBuf>) -> Self {
        Self {
            pin_dir,
            held: BTreeMap::new(),
            filters: BTreeSet::new(),
        }
    }

    /// The link at a place, if its interface still exists. A dead link (the interface is gone, and its index may belong to
    /// another one now) is removed.
    pub fn get(&mut self, place: Place) -> Result<Option<OwnedFd>, DataPlaneError> {
        let Some(link) = self.open(place)? else {
            return Ok(None);
        };
        if alive(&link, place).is_some() {
            return Ok(Some(link));
        }
        self.forget(place)?;
        Ok(None)
    }

    fn open(&self, place: Place) -> Result<Option<OwnedFd>, DataPlaneError> {
        match &self.pin_dir {
            Some(pin_dir) => open_pin(&pin_dir.join(pin_name(LINK, place))),
            None => match self.held.get(&place) {
                Some(fd) => fd
                    .try_clone()
                    .map(Some)
                    .map_err(error::pin("copying", pin_name(LINK, place))),
                None => Ok(None),
            },
        }
    }

    /// Keeps a new link.
    pub fn put(&mut self, place: Place, link: OwnedFd) -> Result<(), DataPlaneError> {
        if let Some(pin_dir) = &self.pin_dir {
            let path = pin_dir.join(pin_name(LINK, place));
            return sys::obj_pin(link.as_fd(), &path).map_err(error::pin("pinning", path));
        }
        self.held.insert(place, link);
        Ok(())
    }

    /// Detaches the link at a place, if there is one. True if there was.
    pub fn remove(&mut self, place: Place) -> Result<bool, DataPlaneError> {
        let Some(link) = self.open(place)? else {
            return Ok(false);
        };
        detach(&link);
        self.forget(place)?;
        Ok(true)
    }

    fn forget(&mut self, place: Place) -> Result<(), DataPlaneError> {
        self.held.remove(&place);
        match &self.pin_dir {
            Some(pin_dir) => bpffs::remove(&pin_dir.join(pin_name(LINK, place))),
            None => Ok(()),
        }
    }

    /// Remembers that a clsact filter stands at a place. To be called before it is set, so that none is ever forgotten.
    pub fn note_filter(&mut self, place: Place) -> Result<(), DataPlaneError> {
        self.filters.insert(place);
        match &self.pin_dir {
            Some(pin_dir) => bpffs::write_fact(pin_dir, &pin_name(CLSACT, place), "filter"),
            None => Ok(()),
        }
    }

    /// Removes the clsact filter at a place, if there is one of ours. True if there was.
    pub fn remove_filter(&mut self, place: Place) -> Result<bool, DataPlaneError> {
        let noted = match &self.pin_dir {
            Some(pin_dir) => bpffs::read_fact(pin_dir, &pin_name(CLSACT, place)).is_some(),
            None => self.filters.contains(&place),
        };
        if !noted {
            return Ok(false);
        }
        let removed = clsact::remove(place)?;
        self.filters.remove(&place);
        if let Some(pin_dir) = &self.pin_dir {
            bpffs::remove(&pin_dir.join(pin_name(CLSACT, place)))?;
        }
        Ok(removed)
    }

    /// Places with a link, and places with a filter.
    pub fn places(&self) -> Result<(Vec<Place>, Vec<Place>), DataPlaneError> {
        match &self.pin_dir {
            Some(pin_dir) => pinned_places(pin_dir),
            None => Ok((
                self.held.keys().copied().collect(),
                self.filters.iter().copied().collect(),
            )),
        }
    }

    /// What a link is, if its interface still exists.
    pub fn info(&self, place: Place) -> Result<Option<LinkInfo>, DataPlaneError> {
        Ok(self.open(place)?.and_then(|link| alive(&link, place)))
    }
}

impl Drop for Links {
    /// Without pins, everything ends with the process. Links do so by themselves, filters do not.
    fn drop(&mut self) {
        if self.pin_dir.is_none() {
            for place in std::mem::take(&mut self.filters) {
                // Nobody is left to hear of a failure; the interface is gone, most likely.
                let _ = clsact::remove(place);
            }
        }
    }
}

/// Facts about a link if it still stands at this place.
fn alive(link: &OwnedFd, (ifindex, _): Place) -> Option<LinkInfo> {
    sys::link_info(link.as_fd())
        .ok()
        .filter(|info| info.ifindex == ifindex)
}

/// Detaches a link, whoever else holds it. Its interface may be gone already; then there is nothing to detach.
fn detach(link: &OwnedFd) {
    // The only failures are "detached already" and "this kind cannot", and then the last close detaches.
    let _ = sys::link_detach(link.as_fd());
}

fn open_pin(path: &Path) -> Result<Option<OwnedFd>, DataPlaneError> {
    match sys::obj_get(path) {
        Ok(link) => Ok(Some(link)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error::pin("opening", path)(error)),
    }
}

fn pin_name(kind: &str, (ifindex, hook): Place) -> String {
    format!("{kind}_{ifindex}_{hook}")
}

/// The kind and place in a pin's name; `None` for other pins.
fn parse(name: &str) -> Option<(&str, Place)> {
    let (kind, rest) = name.split_once('_')?;
    let (ifindex, hook) = rest.split_once('_')?;
    Some((kind, (ifindex.parse().ok()?, Hook::from_name(hook)?)))
}

/// Places with a pinned link, and places with a noted filter.
pub(super) fn pinned_places(pin_dir: &Path) -> Result<(Vec<Place>, Vec<Place>), DataPlaneError> {
    let (mut links, mut filters) = (Vec::new(), Vec::new());
    for name in bpffs::names(pin_dir)? {
        match parse(&name) {
            Some((LINK, place)) => links.push(place),
            Some((CLSACT, place)) => filters.push(place),
            _ => {}
        }
    }
    links.sort_unstable();
    filters.sort_unstable();
    Ok((links, filters))
}

#[cfg(test)]
mod tests {
    use super::{Hook, parse, pin_name};

    #[test]
    fn pin_names_come_back() {
        for hook in Hook::ALL {
            assert_eq!(parse(&pin_name("link", (17, hook))), Some(("link", (17, hook))));
        }
        assert_eq!(parse("FLOWS4"), None);
        assert_eq!(parse("link_x_xdp"), None);
        assert_eq!(parse("link_3_nowhere"), None);
    }
}
