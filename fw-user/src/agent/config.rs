//! `agent.yaml`: what this machine is, and where its agent keeps things. What is allowed stands in the policy.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use fw_common::abi::ABI_VERSION;
use serde::Deserialize;

use super::ports::{Engine, Mode, PortSpec};
use super::sizes::{TableSizes, Windows};
use crate::exit::Failure;

/// Where the agent listens if nothing else is said.
pub const DEFAULT_SOCKET: &str = "/run/dpufw/agent.sock";
/// Where programs, links and maps are pinned if nothing else is said.
pub const DEFAULT_PIN_DIR: &str = "/sys/fs/bpf/dpufw";
/// Where the agent keeps the last good policy and the names if nothing else is said.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/dpufw";
/// Port roles that the data plane can tell apart.
const MAX_ROLES: usize = 32;

/// What the agent needs to know, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentConfig {
    /// The policy file.
    pub policy: PathBuf,
    /// Where this firewall stands.
    pub mode: Mode,
    /// The ports; the two of a pair behind each other, the outer one first.
    pub ports: Vec<PortSpec>,
    /// Interfaces that may stay uncovered.
    pub ignore: Vec<String>,
    /// The control socket.
    pub socket: PathBuf,
    /// Programs, links and maps.
    pub pin_dir: PathBuf,
    /// Last good policy and names.
    pub state_dir: PathBuf,
    /// Where metrics are served; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
    /// File for flow records.
    pub flow_log: Option<PathBuf>,
    /// Sizes of the tables.
    pub tables: TableSizes,
    /// What the packet path may say.
    pub windows: Windows,
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    policy: PathBuf,
    mode: Mode,
    ports: Vec<Port>,
    #[serde(default)]
    ignore: Vec<String>,
    #[serde(default)]
    boot: Boot,
    socket: Option<PathBuf>,
    pin_dir: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    metrics: Option<String>,
    flow_log: Option<PathBuf>,
    #[serde(default)]
    tables: TableSizes,
    #[serde(default)]
    windows: Windows,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Port {
    name: String,
    role: Option<String>,
    #[serde(default)]
    engine: Engine,
    realm: Option<u8>,
    pair: Option<String>,
}

/// Before the first policy everything is dropped; no other start is offered.
#[derive(Deserialize, Default)]
#[serde(rename_all = "snake_case")]
enum Boot {
    #[default]
    Closed,
}

impl AgentConfig {
    /// A configuration with the usual places.
    ///
    /// # Errors
    /// If the ports contradict each other.
    pub fn new(policy: PathBuf, mode: Mode, ports: Vec<PortSpec>) -> Result<Self, Failure> {
        let config = Self {
            policy,
            mode,
            ports,
            ignore: Vec::new(),
            socket: DEFAULT_SOCKET.into(),
            pin_dir: DEFAULT_PIN_DIR.into(),
            state_dir: DEFAULT_STATE_DIR.into(),
            metrics: Some(default_metrics()),
            flow_log: None,
            tables: TableSizes::default(),
            windows: Windows::default(),
        };
        config.check()?;
        Ok(config)
    }

    /// Reads `agent.yaml`. A relative path in it is relative to the file.
    ///
    /// # Errors
    /// With exit code 2: unreadable, unknown key, wrong value; with line and column.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::input(format!("cannot read {}: {error}", path.display())))?;
        let base = path.parent().unwrap_or(Path::new("."));
        Self::parse(&text, base).map_err(|failure| Failure::input(format!("{}: {failure}", path.display())))
    }

    /// As [`Self::read`], from text.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn parse(text: &str, base: &Path) -> Result<Self, Failure> {
        let file: File = serde_saphyr::from_str(text).map_err(|error| Failure::input(error.to_string()))?;
        let Boot::Closed = file.boot;
        let in_base = |path: PathBuf| base.join(path);
        let mut config = Self::new(in_base(file.policy), file.mode, ports(file.mode, file.ports)?)?;
        config.ignore = file.ignore;
        config.tables = file.tables;
        config.windows = file.windows;
        config.flow_log = file.flow_log.map(in_base);
        config.socket = file.socket.unwrap_or(config.socket);
        config.pin_dir = file.pin_dir.unwrap_or(config.pin_dir);
        config.state_dir = file.state_dir.unwrap_or(config.state_dir);
        if let Some(metrics) = file.metrics {
            config.metrics = metrics.parse::<Metrics>().map_err(Failure::input)?.0;
        }
        config.check()?;
        Ok(config)
    }

    /// Where the maps and links of this version's layout are pinned: one version never meets the maps of another.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        versioned(&self.pin_dir)
    }

    /// The roles by number, as the data plane and the policy's tables count them.
    #[must_use]
    pub fn roles(&self) -> Vec<String> {
        let roles: BTreeSet<&str> = self.ports.iter().map(|port| port.role.as_str()).collect();
        roles.into_iter().map(str::to_owned).collect()
    }

    fn check(&self) -> Result<(), Failure> {
        if self.ports.is_empty() {
            return Err(Failure::input("no port is given: name at least one interface"));
        }
        let mut seen = BTreeSet::new();
        for port in &self.ports {
            port.check()?;
            if !seen.insert(port.name.as_str()) {
                return Err(Failure::input(format!("the port {} is given twice", port.name)));
            }
        }
        if self.roles().len() > MAX_ROLES {
            return Err(Failure::input(format!(
                "more than {MAX_ROLES} different roles of ports"
            )));
        }
        if self.mode == Mode::Inline && self.ports.iter().any(|port| port.peer.is_none()) {
            return Err(Failure::input(
                "mode inline needs pairs of ports: --pair OUTER:INNER, or `pair:` in agent.yaml",
            ));
        }
        if self.mode == Mode::Host && self.ports.iter().any(|port| port.peer.is_some()) {
            return Err(Failure::input(
                "mode host has no pairs: give single ports, or choose mode inline",
            ));
        }
        if let Some(name) = self.tables.empty() {
            return Err(Failure::input(format!(
                "`tables: {{ {name}: 0 }}`: a table cannot have the size 0"
            )));
        }
        Ok(())
    }
}

/// The directory of this version's layout in a pin directory.
#[must_use]
pub fn versioned(pin_dir: &Path) -> PathBuf {
    pin_dir.join(format!("v{ABI_VERSION}"))
}

/// 127.0.0.1:9465.
fn default_metrics() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 9465).into()
}

/// Where metrics are served: `off`, or an address of this machine's loopback with a port. They are for this
/// machine's collector, so they are not offered to the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metrics(pub Option<SocketAddr>);

impl FromStr for Metrics {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        let address: SocketAddr = text
            .parse()
            .map_err(|_| format!("`{text}` is neither `off` nor an address like 127.0.0.1:9465"))?;
        if address.ip().is_loopback() {
            return Ok(Self(Some(address)));
        }
        let port = address.port();
        Err(format!(
            "metrics are served on loopback only: use 127.0.0.1:{port} or [::1]:{port}"
        ))
    }
}

/// Brings pairs together: the outer port names the inner one.
fn ports(mode: Mode, entries: Vec<Port>) -> Result<Vec<PortSpec>, Failure> {
    if mode == Mode::Host {
        if let Some(port) = entries.iter().find(|port| port.pair.is_some()) {
            return Err(Failure::input(format!(
                "port {}: `pair` belongs to mode inline, this is mode host",
                port.name
            )));
        }
        let spec = |port: Port| PortSpec::outer(port.name, port.role, port.engine, port.realm.unwrap_or(0));
        return Ok(entries.into_iter().map(spec).collect());
    }
    let (outer, mut inner): (Vec<_>, Vec<_>) = entries.into_iter().partition(|port| port.pair.is_some());
    let mut specs = Vec::new();
    for port in outer {
        let pair = port.pair.unwrap_or_default();
        let Some(at) = inner.iter().position(|inner| inner.name == pair) else {
            return Err(Failure::input(format!(
                "port {}: its pair `{pair}` is not among the ports, or belongs to another pair; only the outer port \
                 (towards the network) names the other one",
                port.name
            )));
        };
        let other = inner.remove(at);
        if let (Some(a), Some(b)) = (port.realm, other.realm)
            && a != b
        {
            return Err(Failure::input(format!(
                "ports {} and {pair} are a pair and need one realm",
                port.name
            )));
        }
        let realm = port.realm.or(other.realm).unwrap_or(0);
        let outer = PortSpec::outer(port.name, port.role, port.engine, realm);
        let inner = PortSpec::inner(other.name, other.role, other.engine, realm);
        specs.extend(PortSpec::pair(outer, inner));
    }
    match inner.first() {
        Some(port) => Err(Failure::input(format!(
            "port {} is in no pair: mode inline needs an outer port with `pair: {0}`",
            port.name
        ))),
        None => Ok(specs),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{AgentConfig, Engine, Metrics, Mode};

    const INLINE: &str = "
policy: policy.yaml
mode: inline
ports:
  - { name: host0, role: host, engine: tc }
  - { name: up0, pair: host0, realm: 2 }
ignore: [eth0]
metrics: 127.0.0.1:9999
tables: { main: 1000 }
windows: { replies: 8 }
boot: closed
";

    fn parse(text: &str) -> Result<AgentConfig, String> {
        AgentConfig::parse(text, Path::new("/etc/dpufw")).map_err(|failure| failure.message)
    }

    #[test]
    fn a_pair_is_ordered_outer_first_and_shares_its_realm() {
        let config = parse(INLINE).unwrap();
        assert_eq!(config.policy, Path::new("/etc/dpufw/policy.yaml"));
        assert_eq!(config.mode, Mode::Inline);
        let names: Vec<_> = config
            .ports
            .iter()
            .map(|port| (port.name.as_str(), port.role.as_str()))
            .collect();
        assert_eq!(names, [("up0", "uplink"), ("host0", "host")]);
        assert!(config.ports.iter().all(|port| port.realm == 2));
        assert_eq!(config.ports[1].engine, Engine::Tc);
        assert_eq!(config.ports[1].peer.as_deref(), Some("up0"));
        assert_eq!(config.tables.half_open, 65_536);
        assert_eq!((config.windows.events, config.windows.replies), (32, 8));
        assert_eq!(config.roles(), ["host", "uplink"]);
        assert_eq!(config.metrics.unwrap().port(), 9999);
    }

    #[test]
    fn errors_say_where_and_what() {
        let unknown = INLINE.replace("ignore:", "ignored:");
        let message = parse(&unknown).unwrap_err();
        assert!(message.contains("ignored") && message.contains('7'), "{message}");
        for (from, to, expected) in [
            ("pair: host0, ", "", "is in no pair"),
            ("pair: host0", "pair: host1", "not among the ports"),
            ("realm: 2", "realm: 16", "realm"),
            ("realm: 2", "realm: on", "realm"),
            ("name: up0", "name: \"a/b\"", "not an interface name"),
            ("engine: tc", "engine: fast", "fast"),
            ("boot: closed", "boot: open", "open"),
            ("127.0.0.1:9999", "0.0.0.0:9999", "loopback only"),
            ("main: 1000", "main: 0", "size 0"),
            ("main: 1000", "limits: 0", "limits: 0"),
            ("main: 1000", "buckets: 5", "buckets"),
            ("mode: inline", "mode: host", "mode host"),
            (
                "  - { name: host0, role: host, engine: tc }\n  - { name: up0, pair: host0, realm: 2 }",
                "  []",
                "no port",
            ),
        ] {
            let text = INLINE.replace(from, to);
            assert_ne!(text, INLINE, "{from}");
            let message = parse(&text).unwrap_err();
            assert!(message.contains(expected), "{from} -> {to}: {message}");
        }
    }

    #[test]
    fn metrics_stay_on_loopback() {
        let read = |text: &str| text.parse::<Metrics>().map(|metrics| metrics.0);
        assert_eq!(read("off"), Ok(None));
        assert!(read("[::1]:1").unwrap().is_some());
        assert!(read("10.0.0.1:9465").unwrap_err().contains("loopback"));
        assert!(read("nonsense").unwrap_err().contains("127.0.0.1:9465"));
    }
}
