//! The start of the agent: everything is checked before anything is changed.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use fw_common::abi::ABI_VERSION;
use fw_policy::{Diagnostics, Policy};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::apply::{InForce, pickup_until, texts};
use super::attach::{attach, refused};
use super::core::{Agent, Found, RECENT_DROPS, Totals, lock};
use super::faults::{Faults, Part};
use super::hub::Hub;
use super::last_good::LastGood;
use super::links::LinkFacts;
use super::members::Members;
use super::zones::DynamicZones;
use super::{AgentConfig, Locks, Pulse, links, own_addresses, policy, zones};
use crate::control::{Server, Session};
use crate::dataplane::{
    DataPlane, DataPlaneError, EventReader, KernelLog, Options, Tables, coarse_now, detach_all, layouts,
    list_attached,
};
use crate::exit::{Exit, Failure};
use crate::files;
use crate::telemetry::{FlowLog, Names, boot_unix_s};

/// A started agent with what its tasks need.
pub struct Started {
    /// The agent.
    pub agent: Arc<Agent>,
    /// Denied and reported packets.
    pub events: EventReader,
    /// The programs' own log, of an object that has one.
    pub kernel_log: Option<KernelLog>,
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

/// What a predecessor has kept on disk: the last good policy, and members of dynamic zones, without those that are over.
fn read_state(config: &AgentConfig, faults: &Faults) -> (Option<LastGood>, Result<Members, Failure>) {
    let previous = LastGood::read(&config.state_dir).unwrap_or_else(|error| {
        faults.note(Part::LastGood, Err(format!("{error:#}")));
        None
    });
    let members = zones::read_members(&config.state_dir).map(|mut members| {
        members.expire(Timestamp::now());
        members
    });
    faults.note(
        Part::Members,
        members.as_ref().map(drop).map_err(ToString::to_string),
    );
    (previous, members)
}

/// What a policy is completed with on this machine.
struct Machine<'a> {
    /// Its addresses.
    own: &'a BTreeSet<IpAddr>,
    /// Members of dynamic zones, or why they are not known.
    members: &'a Result<Members, Failure>,
}

impl Machine<'_> {
    /// Fills the policy's dynamic zones.
    fn fill(&self, policy: &mut Policy) -> Result<(), Failure> {
        match self.members {
            Ok(members) => {
                for note in zones::filled(policy, members)? {
                    tracing::warn!("{note}");
                }
                Ok(())
            }
            Err(failure) if policy.zones.iter().any(|zone| zone.dynamic) => Err(failure.clone()),
            Err(_) => Ok(()),
        }
    }
}

/// Starts the agent: locks, policy, data plane, ports. Policy and ports are in place before a program is attached.
///
/// # Errors
/// Then nothing has been attached that was not before; what a predecessor left enforcing still does.
///
/// # Panics
/// Outside of a multi-threaded tokio runtime.
pub async fn start(config: AgentConfig, force: bool) -> Result<Started, Failure> {
    may_start(&config)?;
    let (locks, fault) = Locks::take(&config.pin_dir, &config.socket, &config.state_dir)?;
    let server = Server::bind(&config.socket)
        .map_err(|error| Failure::no(format!("cannot listen at {}: {error}", config.socket.display())))?;
    let told = |error: anyhow::Error| Failure::no(format!("{error:#}"));
    let links = links::list().await.map_err(told)?;
    let own = own_addresses().map_err(told)?;
    let faults = Faults::default();
    faults.note(Part::StateDir, fault.map_or(Ok(()), |fault| Err(fault.message)));
    let (previous, members) = read_state(&config, &faults);
    let machine = Machine {
        own: &own,
        members: &members,
    };
    let chosen = choose(&config, &machine, previous.as_ref(), force)?;
    faults.note(Part::Policy, chosen.fault.map_or(Ok(()), Err));
    let flow_log = open_flow_log(&config, &faults);
    let names = open_names(&config, &faults);

    let mut plane = DataPlane::open(options(&config)).map_err(|error| refused(&error))?;
    for warning in plane.warnings() {
        tracing::warn!("{warning}");
    }
    tell_memory(plane.tables());
    let events = plane.events().map_err(|error| refused(&error))?;
    let kernel_log = plane.kernel_log();
    let agent = Agent {
        took_over: plane.took_over(),
        tables: Arc::clone(plane.tables()),
        plane: Mutex::new(Some(plane)),
        policy: tokio::sync::Mutex::new(None),
        zones: DynamicZones::new(members.ok()),
        asker: Mutex::default(),
        ports: Mutex::new(Vec::new()),
        names: Mutex::new(names),
        drops: Hub::new(RECENT_DROPS),
        records: Hub::new(0),
        flow_log: Mutex::new(flow_log),
        found: Mutex::new(Found::default()),
        pulse: Pulse::new(coarse_now()),
        limits: Mutex::default(),
        cold_start: AtomicU64::new(0),
        totals: Totals::default(),
        faults,
        started: Timestamp::now(),
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
        kernel_log,
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
        let apply = |policy| self.apply_first(policy, own, previous);
        let in_force = if self.attached_before()? {
            // The predecessor's policy stays in force until its ports are taken over: a start that fails half-way leaves what
            // was, not a mixture.
            self.attach_all(links)?;
            chosen.map(apply).transpose()?
        } else {
            // The first start, the first after a reboot, or one after a start that was cut short: connections run that no
            // table knows, the operator's among them.
            let cold = coarse_now();
            self.cold_start.store(cold, Ordering::Relaxed);
            let pickup = chosen
                .as_ref()
                .map(|policy| policy.tcp)
                .unwrap_or_default()
                .pickup;
            self.tables.set_pickup_until(pickup_until(pickup, cold, 0));
            let in_force = chosen.map(apply).transpose()?;
            self.attach_all(links)?;
            in_force
        };
        self.save(in_force.as_ref());
        Ok(in_force)
    }

    /// True if a predecessor's programs stand at a port.
    fn attached_before(&self) -> Result<bool, Failure> {
        let plane = lock(&self.plane);
        let attached = plane.as_ref().map(DataPlane::attached).transpose();
        let attached = attached.map_err(|error| refused(&error))?;
        Ok(attached.is_some_and(|attached| !attached.is_empty()))
    }

    fn attach_all(&self, links: &[LinkFacts]) -> Result<(), Failure> {
        if let Some(plane) = lock(&self.plane).as_mut() {
            *lock(&self.ports) = attach(plane, &self.config, links)?;
        }
        Ok(())
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

/// Asks for the capabilities, and for other data planes, before the first file is touched.
fn may_start(config: &AgentConfig) -> Result<(), Failure> {
    match list_attached(&config.pins()) {
        Err(error @ DataPlaneError::NoPrivilege { .. }) => Err(refused(&error)),
        // Whatever else is wrong is found, and said, where it matters.
        _ => same_layout(config),
    }
}

/// Refuses to start beside a data plane of another layout, whose programs stand at the ports already.
fn same_layout(config: &AgentConfig) -> Result<(), Failure> {
    let layouts = layouts(&config.pin_dir).map_err(|error| refused(&error))?;
    let Some((version, path)) = layouts.iter().find(|(version, _)| *version != ABI_VERSION) else {
        return Ok(());
    };
    Err(Failure::no(format!(
        "{} holds a data plane of layout {version}, and this version has layout {ABI_VERSION}: it cannot take over its \
         flows. That one goes on enforcing, and nothing was changed. Go back to the version that made it, or take it down \
         with `dpufw detach --yes` and start again: then its flows are forgotten, the ports are open in between, and TCP \
         connections that run are adopted as the policy's `pickup` says",
        path.display()
    )))
}

/// Says what the tables cost.
fn tell_memory(tables: &Tables) {
    // Not to know it is no reason not to start.
    let Ok(memory) = tables.memory() else { return };
    let total: u64 = memory.iter().map(|map| map.bytes).sum();
    let sized = memory.iter().filter(|map| map.setting().is_some());
    let parts: Vec<_> = sized
        .map(|map| format!("{} {} entries of {} bytes", map.name, map.entries, map.per_entry))
        .collect();
    tracing::info!(
        "the tables take {} MiB of kernel memory: {}",
        total.div_ceil(1 << 20),
        parts.join(", ")
    );
}

fn options(config: &AgentConfig) -> Options {
    Options {
        pin_dir: Some(config.pins()),
        sizes: config.tables.flow_sizes(),
        events_per_window: config.windows.events,
        replies_per_window: config.windows.replies,
        ..Options::default()
    }
}

/// The policy file's, if it is good and does not lock the caller out. If it is broken: the last good one, where a data
/// plane still enforces it; no policy if that one cannot be had either (the tables in the kernel stay as they are).
fn choose(
    config: &AgentConfig,
    machine: &Machine<'_>,
    previous: Option<&LastGood>,
    force: bool,
) -> Result<Chosen, Failure> {
    let failure = match read_policy(config, machine, force) {
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
    let known = previous.and_then(|previous| {
        let files = previous.sources();
        policy::check_with(&files, &previous.name, &previous.text, 0).ok()
    });
    Ok(match known {
        Some((mut policy, _)) => Chosen {
            // Without its members a policy says something else: then the tables in the kernel stay as they are.
            policy: machine.fill(&mut policy).is_ok().then_some(policy),
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
    machine: &Machine<'_>,
    force: bool,
) -> Result<(Policy, Diagnostics), Failure> {
    let name = config.policy.display().to_string();
    let text = files::read(&config.policy)?;
    let (mut policy, warnings) = policy::check(&name, &text, Timestamp::now().as_second())?;
    machine.fill(&mut policy)?;
    let tables = policy::compile(&policy, machine.own, &config.roles(), 1, boot_unix_s())?;
    let session = Session::own().filter(|_| !force);
    policy::guard(&tables.lines, config.roles().len(), session.as_ref())?;
    Ok((policy, warnings))
}

/// True if a predecessor's data plane is pinned and has a policy in force.
fn enforcing(config: &AgentConfig) -> bool {
    let tables = Tables::open_pinned(&config.pins());
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
