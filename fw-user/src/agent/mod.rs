//! The agent: configuration, ports, policy, ageing, life cycle.

mod ageing;
mod apply;
mod attach;
mod bypass;
mod census;
mod config;
mod core;
mod coverage;
mod ethtool;
mod events;
mod faults;
mod guard;
mod hub;
mod last_good;
mod life;
mod limits;
mod links;
mod lock;
mod policy;
mod ports;
mod pulse;
mod report;
mod serve;
mod start;
mod watch;

pub use self::core::{Agent, Counter, Found, Totals};
pub use apply::InForce;
pub use attach::Port;
pub use census::{Census, FlowCounts};
pub use config::{
    AgentConfig, DEFAULT_PIN_DIR, DEFAULT_SOCKET, DEFAULT_STATE_DIR, Metrics, TableSizes, Windows, versioned,
};
pub use ethtool::{VlanOffload, rx_vlan, rx_vlan_off, tx_vlan};
pub use faults::{Faults, Part};
pub use hub::Hub;
pub use last_good::LastGood;
pub use life::run;
pub use limits::{RuleLimit, RuleLimits};
pub use links::{LinkFacts, list as list_links, own_addresses};
pub use lock::Locks;
pub use ports::{Engine, Mode, PairArg, PortArg, PortSpec};
pub use pulse::Pulse;
pub use start::{Started, start};
