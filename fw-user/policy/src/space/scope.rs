//! For which machines, and which members of dynamic zones, something is asked of a policy.

use std::net::IpAddr;

use crate::Environment;

/// What is known of the zones that no policy fills.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Addresses of the machine; `None`: it may have any, so what holds, holds on every machine.
    pub own_addresses: Option<Vec<IpAddr>>,
    /// Dynamic zones may hold any address; otherwise they hold what [`crate::model::Zone::prefixes`] says.
    pub any_members: bool,
}

impl Scope {
    /// Every machine, and whatever dynamic zones hold.
    #[must_use]
    pub const fn everywhere() -> Self {
        Self {
            own_addresses: None,
            any_members: true,
        }
    }

    /// One machine, whatever dynamic zones hold.
    #[must_use]
    pub fn machine(environment: &Environment) -> Self {
        Self {
            own_addresses: Some(environment.own_addresses.clone()),
            any_members: true,
        }
    }

    /// One machine as it is now: dynamic zones hold what they hold ([`crate::Policy::set_members`]).
    #[must_use]
    pub fn now(environment: &Environment) -> Self {
        Self {
            any_members: false,
            ..Self::machine(environment)
        }
    }
}
