//! Ports as the operator names them.

use std::str::FromStr;

use fw_common::abi;
use serde::{Deserialize, Serialize};

use crate::exit::Failure;

/// Where the firewall stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// NICs of this machine: what comes in and what goes out
    Host,
    /// Pairs of ports, bump in the wire
    Inline,
}

impl Mode {
    /// As the operator writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Inline => "inline",
        }
    }
}

/// Which hook judges what a port receives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// Native XDP
    #[default]
    Xdp,
    /// TC ingress, for drivers without XDP (a DPU's representors)
    Tc,
}

impl Engine {
    /// As the operator writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::Tc => "tc",
        }
    }
}

/// One port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSpec {
    /// The interface.
    pub name: String,
    /// Its role.
    pub role: String,
    /// The engine asked for.
    pub engine: Engine,
    /// Its realm, 0..=15.
    pub realm: u8,
    /// Outer or inner.
    pub side: abi::Side,
    /// The pair's other port.
    pub peer: Option<String>,
}

impl PortSpec {
    /// A port towards the network; its role is `uplink` if none is given.
    #[must_use]
    pub fn outer(name: String, role: Option<String>, engine: Engine, realm: u8) -> Self {
        let role = role.unwrap_or_else(|| "uplink".to_owned());
        Self {
            name,
            role,
            engine,
            realm,
            side: abi::Side::Outer,
            peer: None,
        }
    }

    /// A port towards the guarded host; its role is `host` if none is given.
    #[must_use]
    pub fn inner(name: String, role: Option<String>, engine: Engine, realm: u8) -> Self {
        let role = role.unwrap_or_else(|| "host".to_owned());
        Self {
            name,
            role,
            engine,
            realm,
            side: abi::Side::Inner,
            peer: None,
        }
    }

    /// Makes two ports a pair.
    #[must_use]
    pub fn pair(outer: Self, inner: Self) -> [Self; 2] {
        let peers = (Some(inner.name.clone()), Some(outer.name.clone()));
        [
            Self {
                peer: peers.0,
                ..outer
            },
            Self {
                peer: peers.1,
                ..inner
            },
        ]
    }

    /// Checks name, role and realm.
    ///
    /// # Errors
    /// With exit code 2.
    pub fn check(&self) -> Result<(), Failure> {
        let name = &self.name;
        if !valid_interface(name) {
            return Err(Failure::input(format!(
                "`{name}` is not an interface name: 1 to 15 characters without `/`, `:` and blanks"
            )));
        }
        if self.realm > 15 {
            return Err(Failure::input(format!(
                "port {name}: realm {} is above 15",
                self.realm
            )));
        }
        if self.role.is_empty()
            || !self
                .role
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
        {
            return Err(Failure::input(format!(
                "port {name}: the role `{}` may have letters, digits, `_` and `-` only",
                self.role
            )));
        }
        Ok(())
    }
}

/// The kernel's own rule (`dev_valid_name` in net/core/dev.c).
fn valid_interface(name: &str) -> bool {
    let dots = name == "." || name == "..";
    !name.is_empty()
        && name.len() < 16
        && !dots
        && !name.chars().any(|c| c == '/' || c == ':' || c.is_whitespace())
}

/// `IF[=ROLE][@ENGINE]`, as on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortArg {
    name: String,
    role: Option<String>,
    engine: Engine,
}

impl PortArg {
    /// The port of mode `host`.
    #[must_use]
    pub fn outer(self) -> PortSpec {
        PortSpec::outer(self.name, self.role, self.engine, 0)
    }
}

impl FromStr for PortArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (rest, engine) = match text.rsplit_once('@') {
            None => (text, Engine::Xdp),
            Some((rest, "xdp")) => (rest, Engine::Xdp),
            Some((rest, "tc")) => (rest, Engine::Tc),
            Some((_, other)) => return Err(format!("`{other}` is no engine: write @xdp or @tc")),
        };
        let (name, role) = match rest.split_once('=') {
            None => (rest, None),
            Some((name, role)) => (name, Some(role.to_owned())),
        };
        let port = Self {
            name: name.to_owned(),
            role,
            engine,
        };
        port.clone().outer().check().map_err(|failure| failure.message)?;
        Ok(port)
    }
}

/// `OUTER:INNER`, each as [`PortArg`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairArg {
    outer: PortArg,
    inner: PortArg,
}

impl PairArg {
    /// Both ports.
    #[must_use]
    pub fn ports(self) -> [PortSpec; 2] {
        let inner = PortSpec::inner(self.inner.name, self.inner.role, self.inner.engine, 0);
        PortSpec::pair(self.outer.outer(), inner)
    }
}

impl FromStr for PairArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (outer, inner) = text.split_once(':').ok_or(
            "a pair is OUTER:INNER: the port towards the network, a colon, the port towards the guarded host",
        )?;
        Ok(Self {
            outer: outer.parse()?,
            inner: inner.parse()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Engine, PairArg, PortArg};

    #[test]
    fn a_port_is_interface_role_and_engine() {
        let port = "eth0=mgmt@tc".parse::<PortArg>().unwrap().outer();
        assert_eq!(
            (port.name.as_str(), port.role.as_str(), port.engine),
            ("eth0", "mgmt", Engine::Tc)
        );
        let port = "eth0".parse::<PortArg>().unwrap().outer();
        assert_eq!((port.role.as_str(), port.engine), ("uplink", Engine::Xdp));
    }

    #[test]
    fn a_pair_is_outer_then_inner() {
        let [outer, inner] = "up0:pf0hpf=tenant@tc".parse::<PairArg>().unwrap().ports();
        assert_eq!(
            (outer.name.as_str(), outer.peer.as_deref()),
            ("up0", Some("pf0hpf"))
        );
        assert_eq!(
            (inner.role.as_str(), inner.engine, inner.peer.as_deref()),
            ("tenant", Engine::Tc, Some("up0"))
        );
    }

    #[test]
    fn mistakes_get_a_sentence() {
        for (text, expected) in [
            ("eth0@fast", "@xdp or @tc"),
            ("", "not an interface name"),
            ("averyveryverylongname", "1 to 15 characters"),
            ("eth0=a b", "the role"),
        ] {
            let error = text.parse::<PortArg>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!("up0".parse::<PairArg>().unwrap_err().contains("OUTER:INNER"));
    }
}
