//! The start of the agent: everything is checked before anything is changed.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fw_policy::{Diagnostics, Policy};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::apply::{InForce, texts};
use super::attach::{attach, refused};
use super::core::{Agent, FlowCounts, RECENT_DROPS, Totals, lock};
use super::faults::{Faults, Part};
use super::hub::Hub;
use super::last_good::LastGood;
use super::links::LinkFacts;
use super::{AgentConfig, Locks, links, own_addresses, policy};
use crate::control::{Server, Session};
use crate::dataplane::{
    DataPlane, DataPlaneError, EventReader, FlowSizes, Options, coarse_now, detach_all, list_attached,
};
use crate::exit::{Exit, Failure};
use crate::telemetry::{FlowLog, Names};

/// Denied packets reported per CPU and 67 ms.
const EVENTS_PER_WINDOW: u32 = 32;
/// How long running connections are adopted after a start without state.
const COLD_START: Duration = Duration::from_mins(1);

/// A started agent with what its tasks need.
pub struct Started {
    /// The agent.
    pub agent: Arc<Agent>,
    /// Denied packets.
    pub events: EventReader,
    /// The control socket, bound before a program is attached.
    pub server: Server,
    /// Held as long as the agent lives.
    pub locks: Locks,
}

/// The policy to start with.
struct Chosen {
    /// `None`: nobody knows the text of what the kernel enforces.
    policy: Option<Policy>,
    /// Why it is not the one in the policy file.
    fault: Option<String>,
}

/// Starts the agent: locks, policy, data plane, ports. Policy and ports are in place before a program is attached.
///
/// # Errors
/// Then nothing has been attached that was not before; what a predecessor left enforcing still does.
///
/// # Panics
/// Outside of a multi-threaded tokio runtime.
pub async fn start(config: AgentConfig, force: bool) -> Result<Started, Failure> {
    privileged(&config)?;
    let (locks, fault) = Locks::take(&config.pin_dir, &config.socket, &config.state_dir)?;
    let server = Server::bind(&config.socket)
        .map_err(|error| Failure::no(format!("cannot listen at {}: {error}", config.socket.display())))?;
    let links = links::list()
        .await
        .map_err(|error| Failure::no(format!("{error:#}")))?;
    let own = own_addresses().map_err(|error| Failure::no(format!("{error:#}")))?;
    let faults = Faults::default();
    faults.note(Part::StateDir, fault.map_or(Ok(()), |fault| Err(fault.message)));
    let previous = LastGood::read(&config.state_dir).unwrap_or_else(|error| {
        faults.note(Part::LastGood, Err(format!("{error:#}")));
        None
    });
    let chosen = choose(&config, &own, previous.as_ref(), force)?;
    faults.note(Part::Policy, chosen.fault.map_or(Ok(()), Err));
    let flow_log = open_flow_log(&config, &faults);
    let names = open_names(&config, &faults);

    let mut plane = DataPlane::open(options(&config)).map_err(|error| refused(&error))?;
    plane
        .warnings()
        .iter()
        .for_each(|warning| tracing::warn!("{warning}"));
    let took_over = plane.took_over();
    let events = plane.events().map_err(|error| refused(&error))?;
    let agent = Agent {
        tables: Arc::clone(plane.tables()),
        plane: Mutex::new(Some(plane)),
        policy: tokio::sync::Mutex::new(None),
        ports: Mutex::new(Vec::new()),
        names: Mutex::new(names),
        drops: Hub::new(RECENT_DROPS),
        records: Hub::new(0),
        flow_log: Mutex::new(flow_log),
        flow_counts: Mutex::new(FlowCounts::new()),
        totals: Totals::default(),
        faults,
        started: Timestamp::now(),
        took_over,
        stop: CancellationToken::new(),
        config,
    };
    match tokio::task::block_in_place(|| agent.bring_up(chosen.policy, own, previous.as_ref(), &links)) {
        Ok(in_force) => *agent.policy.lock().await = in_force,
        Err(failure) => return Err(agent.give_up(failure)),
    }
    Ok(Started {
        agent: Arc::new(agent),
        events,
        server,
        locks,
    })
}

impl Agent {
    fn bring_up(
        &self,
        chosen: Option<Policy>,
        own: BTreeSet<IpAddr>,
        previous: Option<&LastGood>,
        links: &[LinkFacts],
    ) -> Result<Option<InForce>, Failure> {
        let in_force = chosen
            .map(|policy| self.apply_first(policy, own, previous))
            .transpose()?;
        self.save(in_force.as_ref());
        if let Some(plane) = lock(&self.plane).as_mut() {
            let attached = plane.attached().map_err(|error| refused(&error))?;
            if attached.is_empty() {
                // The first start, the first after a reboot, or one after a start that was cut short: connections run that
                // no table knows, the operator's among them.
                self.tables
                    .set_pickup_until(coarse_now() + COLD_START.as_nanos() as u64);
            }
            *lock(&self.ports) = attach(plane, &self.config, links)?;
        }
        Ok(in_force)
    }

    /// Takes down what a failed start has made, unless a predecessor's data plane was taken over: that goes on enforcing.
    fn give_up(&self, failure: Failure) -> Failure {
        let pins = self.config.pins();
        if self.took_over {
            let message = format!(
                "{failure}\nThe data plane pinned in {} goes on enforcing; `dpufw detach --yes` takes it down",
                pins.display()
            );
            return Failure { message, ..failure };
        }
        match detach_all(&pins) {
            Ok(_) => failure,
            Err(error) => {
                let message = format!(
                    "{failure}\nand what was begun could not be taken down: {}",
                    refused(&error)
                );
                Failure { message, ..failure }
            }
        }
    }
}

/// Asks for the capabilities before the first file is touched.
fn privileged(config: &AgentConfig) -> Result<(), Failure> {
    match list_attached(&config.pins()) {
        Err(error @ DataPlaneError::NoPrivilege { .. }) => Err(refused(&error)),
        // Whatever else is wrong is found, and said, where it matters.
        _ => Ok(()),
    }
}

fn options(config: &AgentConfig) -> Options {
    let tables = config.tables;
    Options {
        pin_dir: Some(config.pins()),
        sizes: FlowSizes {
            flows4: tables.main,
            flows6: tables.main,
            half4: tables.half_open,
            half6: tables.half_open,
        },
        events_per_window: EVENTS_PER_WINDOW,
        ..Options::default()
    }
}

/// The policy file's, if it is good and does not lock the caller out. If it is broken: the last good one, where a data
/// plane still enforces it; no policy if that one cannot be had either (the tables in the kernel stay as they are).
fn choose(
    config: &AgentConfig,
    own: &BTreeSet<IpAddr>,
    previous: Option<&LastGood>,
    force: bool,
) -> Result<Chosen, Failure> {
    let failure = match read_policy(config, own, force) {
        Ok((policy, warnings)) => {
            for warning in texts(&warnings) {
                eprintln!("{warning}\n");
            }
            return Ok(Chosen {
                policy: Some(policy),
                fault: None,
            });
        }
        Err(failure) => failure,
    };
    // A policy that locks the caller out is not broken: the caller is to decide.
    if failure.exit != Exit::BadInput || !enforcing(config) {
        return Err(failure);
    }
    let fault = format!("the last good policy goes on being enforced: {failure}");
    let known = previous.and_then(|previous| policy::check(&previous.name, &previous.text).ok());
    Ok(match known {
        Some((policy, _)) => Chosen {
            policy: Some(policy),
            fault: Some(fault),
        },
        None => Chosen {
            policy: None,
            fault: Some(format!(
                "{fault}\nIts text is not known any more, so the tables in the kernel stay as they are, also if this \
                 machine's addresses change; apply a policy"
            )),
        },
    })
}

fn read_policy(
    config: &AgentConfig,
    own: &BTreeSet<IpAddr>,
    force: bool,
) -> Result<(Policy, Diagnostics), Failure> {
    let name = config.policy.display().to_string();
    let text = std::fs::read_to_string(&config.policy)
        .map_err(|error| Failure::input(format!("cannot read the policy {name}: {error}")))?;
    let (policy, warnings) = policy::check(&name, &text)?;
    let lines = policy::compile(&policy, own, &config.roles(), 1)?;
    let session = Session::own().filter(|_| !force);
    policy::guard(&lines, session.as_ref())?;
    Ok((policy, warnings))
}

/// True if a predecessor's data plane is pinned and has a policy in force.
fn enforcing(config: &AgentConfig) -> bool {
    let tables = crate::dataplane::Tables::open_pinned(&config.pins());
    tables.is_ok_and(|tables| tables.control().generation != 0)
}

fn open_names(config: &AgentConfig, faults: &Faults) -> Names {
    Names::open(&config.state_dir.join("names.jsonl")).unwrap_or_else(|error| {
        let fault = format!(
            "names of rules and zones cannot be read from {}: {error}",
            config.state_dir.display()
        );
        faults.note(Part::State, Err(fault));
        Names::default()
    })
}

fn open_flow_log(config: &AgentConfig, faults: &Faults) -> Option<FlowLog> {
    let path = config.flow_log.as_ref()?;
    match FlowLog::open(path) {
        Ok(log) => Some(log),
        Err(error) => {
            faults.note(
                Part::FlowLog,
                Err(format!(
                    "the flow log {} cannot be opened: {error}",
                    path.display()
                )),
            );
            None
        }
    }
}
