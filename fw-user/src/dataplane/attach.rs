//! Puts the programs in front of the packets of a port.

use std::io;
use std::os::fd::AsFd;

use aya::programs::SchedClassifier;
use aya::util::KernelVersion;
use fw_common::abi::Engine;
use nix::net::if_::if_nametoindex;

use super::clsact;
use super::error::DataPlaneError;
use super::hook::Hook;
use super::inventory::{self, Attachment, Means};
use super::load::{DataPlane, program_error};
use super::options::TcFlavour;
use super::sys;

/// How a port is to be guarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortPlan {
    /// Name of the interface.
    pub name: String,
    /// Its index; both must belong together.
    pub ifindex: u32,
    /// What judges received packets.
    pub engine: Engine,
    /// True if the packets that this machine sends by the port are judged, too.
    pub egress: bool,
}

impl PortPlan {
    /// The hooks that are to be taken, the receiving one first.
    fn hooks(&self) -> impl Iterator<Item = Hook> {
        let ingress = match self.engine {
            Engine::Xdp => Hook::XdpIn,
            Engine::Tc => Hook::TcIn,
        };
        std::iter::once(ingress).chain(self.egress.then_some(Hook::TcOut))
    }
}

/// What attaching did at a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Our program stands there now; none of ours did before.
    Attached,
    /// A predecessor's program was replaced without a gap.
    Replaced,
    /// Our program was taken away: the plan does not want it there any more.
    Removed,
}

/// One step of [`DataPlane::attach`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HookChange {
    /// The hook.
    pub hook: Hook,
    /// How the program stands, or stood, there.
    pub means: Means,
    /// What was done.
    pub change: Change,
}

impl DataPlane {
    /// Guards a port as planned. The port's configuration ([`super::Tables::set_port`]) must be there before, or its packets
    /// are dropped.
    ///
    /// Programs that are wanted are attached or replaced first, those that are not are removed last, so that the port is
    /// never open in between. If a step fails, hooks taken by this call are given up again; what guarded the port before
    /// still does.
    ///
    /// # Errors
    ///
    /// [`DataPlaneError::NoXdp`]: the driver refuses native XDP; generic XDP is never taken instead, plan
    /// [`Engine::Tc`] then. [`DataPlaneError::XdpTaken`], [`DataPlaneError::PortMoved`], or what the kernel refused.
    pub fn attach(&mut self, plan: &PortPlan) -> Result<Vec<HookChange>, DataPlaneError> {
        if self.options.reports() {
            return Err(DataPlaneError::Reporting);
        }
        check_name(plan)?;
        let mut changes = Vec::new();
        for hook in plan.hooks() {
            match self.take(plan, hook) {
                Ok(change) => changes.push(change),
                Err(error) => {
                    self.give_up(plan.ifindex, &changes);
                    return Err(error);
                }
            }
        }
        for hook in Hook::ALL {
            let wanted = changes
                .iter()
                .find(|change| change.hook == hook)
                .map(|change| change.means);
            self.remove_all_but(wanted, plan.ifindex, hook, &mut changes)?;
        }
        Ok(changes)
    }

    /// Gives a port up: its packets are not judged any more. Forget its configuration afterwards.
    ///
    /// # Errors
    ///
    /// What the kernel refused.
    pub fn detach(&mut self, ifindex: u32) -> Result<Vec<HookChange>, DataPlaneError> {
        let mut changes = Vec::new();
        for hook in Hook::ALL {
            self.remove_all_but(None, ifindex, hook, &mut changes)?;
        }
        Ok(changes)
    }

    /// What this data plane, or its predecessor, has attached.
    ///
    /// # Errors
    ///
    /// What the kernel refused.
    pub fn attached(&self) -> Result<Vec<Attachment>, DataPlaneError> {
        inventory::list(&self.links)
    }

    /// Puts the program at one hook.
    fn take(&mut self, plan: &PortPlan, hook: Hook) -> Result<HookChange, DataPlaneError> {
        let means = self.means(hook);
        let replaced = match means {
            Means::Clsact => self.take_filter(plan, hook)?,
            Means::Xdp | Means::Tcx => self.take_link(plan, hook)?,
        };
        let change = if replaced {
            Change::Replaced
        } else {
            Change::Attached
        };
        Ok(HookChange { hook, means, change })
    }

    fn means(&self, hook: Hook) -> Means {
        let tcx = self.options.tc == TcFlavour::Auto && has_tcx();
        match hook {
            Hook::XdpIn => Means::Xdp,
            Hook::TcIn | Hook::TcOut if tcx => Means::Tcx,
            Hook::TcIn | Hook::TcOut => Means::Clsact,
        }
    }

    /// True if a predecessor's link was there.
    fn take_link(&mut self, plan: &PortPlan, hook: Hook) -> Result<bool, DataPlaneError> {
        let place = (plan.ifindex, hook);
        if let Some(link) = self.links.get(place)? {
            let updated = sys::link_update(link.as_fd(), self.program_fd(hook)?);
            updated.map_err(attach_error("replacing the program at", plan, hook))?;
            return Ok(true);
        }
        let flags = if hook == Hook::XdpIn {
            sys::XDP_DRIVER
        } else {
            sys::TCX_FIRST
        };
        let link = sys::link_create(self.program_fd(hook)?, plan.ifindex, hook.link_type(), flags);
        let link = link.map_err(|error| refused(plan, hook, error))?;
        self.links.put(place, link)?;
        Ok(false)
    }

    /// True if a predecessor's filter was there.
    fn take_filter(&mut self, plan: &PortPlan, hook: Hook) -> Result<bool, DataPlaneError> {
        self.links.note_filter((plan.ifindex, hook))?;
        let program = self.ebpf.program_mut(hook.program());
        let program = program.ok_or_else(|| DataPlaneError::Missing {
            what: "program",
            name: hook.program().to_owned(),
        })?;
        let program: &mut SchedClassifier = program.try_into().map_err(program_error("attaching", hook))?;
        clsact::set(program, &plan.name, hook)
    }

    /// Removes what stands at a hook, except for what stands there by the wanted means.
    fn remove_all_but(
        &mut self,
        wanted: Option<Means>,
        ifindex: u32,
        hook: Hook,
        changes: &mut Vec<HookChange>,
    ) -> Result<(), DataPlaneError> {
        let place = (ifindex, hook);
        let link = if hook == Hook::XdpIn {
            Means::Xdp
        } else {
            Means::Tcx
        };
        if wanted != Some(link) && self.links.remove(place)? {
            changes.push(HookChange {
                hook,
                means: link,
                change: Change::Removed,
            });
        }
        if wanted != Some(Means::Clsact) && self.links.remove_filter(place)? {
            changes.push(HookChange {
                hook,
                means: Means::Clsact,
                change: Change::Removed,
            });
        }
        Ok(())
    }

    /// Takes back what a failed call attached anew.
    fn give_up(&mut self, ifindex: u32, changes: &[HookChange]) {
        for change in changes.iter().filter(|change| change.change == Change::Attached) {
            // The caller hears of the first failure; a second one leaves a program too many, which only drops more.
            let _ = match change.means {
                Means::Clsact => self.links.remove_filter((ifindex, change.hook)),
                Means::Xdp | Means::Tcx => self.links.remove((ifindex, change.hook)),
            };
        }
    }
}

/// TCX exists from kernel 6.6 on.
fn has_tcx() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0))
}

fn check_name(plan: &PortPlan) -> Result<(), DataPlaneError> {
    let found = if_nametoindex(plan.name.as_str()).unwrap_or(0);
    if found == plan.ifindex && found != 0 {
        return Ok(());
    }
    Err(DataPlaneError::PortMoved {
        name: plan.name.clone(),
        found,
        wanted: plan.ifindex,
    })
}

fn attach_error(
    action: &'static str,
    plan: &PortPlan,
    hook: Hook,
) -> impl FnOnce(io::Error) -> DataPlaneError {
    move |source| DataPlaneError::Attach {
        action,
        port: plan.name.clone(),
        hook,
        source,
    }
}

/// Explains why a hook could not be taken.
fn refused(plan: &PortPlan, hook: Hook, source: io::Error) -> DataPlaneError {
    if hook != Hook::XdpIn {
        return attach_error("attaching to", plan, hook)(source);
    }
    let port = plan.name.clone();
    let why = match source.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST) => return DataPlaneError::XdpTaken { port, source },
        Some(libc::EOPNOTSUPP) => "its driver has none, or not with the offloads that are on (LRO, checksum)",
        Some(libc::ERANGE | libc::EINVAL | libc::E2BIG) => "its driver refuses the MTU, or the peer's",
        Some(libc::ENOMEM | libc::ENOSPC) => "its driver has too few queues or too little memory",
        _ => return attach_error("attaching to", plan, hook)(source),
    };
    DataPlaneError::NoXdp { port, why, source }
}
