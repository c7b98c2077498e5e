//! The life of the agent between start and stop.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::task::AbortOnDropHandle;

use super::attach::refused;
use super::core::{Agent, lock};
use super::faults::Part;
use super::serve::Service;
use super::start::{Started, start};
use super::{AgentConfig, ageing, events, pulse, watch, zones};
use crate::dataplane::detach_all;
use crate::exit::Failure;
use crate::telemetry::{http, render};

/// How long a follower may take to read the last replies at the end.
const PARTING: Duration = Duration::from_millis(200);

/// Runs the agent until a signal, or until it is told to detach.
///
/// # Errors
/// If it cannot start, or cannot serve its socket.
pub async fn run(config: AgentConfig, force: bool) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let Started {
        agent,
        events,
        kernel_log,
        server,
        locks,
    } = start(config, force).await?;
    let service = Arc::new(Service(Arc::clone(&agent)));
    let _tasks = [
        tokio::spawn(async move { server.serve(service).await }),
        tokio::spawn(ageing::run(Arc::clone(&agent))),
        tokio::spawn(pulse::run(Arc::clone(&agent))),
        tokio::spawn(events::run(Arc::clone(&agent), events)),
        tokio::spawn(events::log(kernel_log)),
        tokio::spawn(watch::run(Arc::clone(&agent))),
        tokio::spawn(zones::run(Arc::clone(&agent))),
        tokio::spawn(metrics(Arc::clone(&agent))),
    ]
    .map(AbortOnDropHandle::new);
    ready(&agent);
    loop {
        tokio::select! {
            wish = signals.next() => match wish {
                Wish::Stop(signal) => {
                    agent.stop.cancel();
                    part(&agent, signal);
                    break;
                }
                Wish::ReopenLogs => agent.reopen_flow_log(),
            },
            () = agent.stop.cancelled() => {
                eprintln!("dpufw: detached; the ports are open");
                break;
            }
        }
    }
    tokio::time::sleep(PARTING).await;
    drop(locks);
    Ok(())
}

/// The signals an agent listens to.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// What a signal asks for.
enum Wish {
    Stop(&'static str),
    ReopenLogs,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Wish::Stop("SIGINT"),
            _ = self.hangup.recv() => Wish::ReopenLogs,
        }
    }
}

/// The line that says the firewall stands, for people and scripts, and the same for systemd.
fn ready(agent: &Agent) {
    let generation = agent.tables.control().generation;
    let ports: Vec<_> = lock(&agent.ports)
        .iter()
        .map(|port| format!("{}@{}", port.spec.name, port.engine.name()))
        .collect();
    let how = if agent.took_over {
        "ready, took over"
    } else {
        "ready"
    };
    eprintln!(
        "dpufw: {how}: mode {}, ports {}, generation {generation}, socket {}",
        agent.config.mode.name(),
        ports.join(" "),
        agent.config.socket.display()
    );
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::warn!("the service manager was not told that the agent is ready: {error}");
    }
}

fn part(agent: &Agent, signal: &str) {
    // The service manager may be gone; the agent stops either way.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    eprintln!(
        "dpufw: stopped by {signal}; the firewall goes on enforcing from {}. `dpufw run` takes it over, `dpufw detach --yes` \
         takes it down",
        agent.config.pin_dir.display()
    );
}

/// Serves metrics, if wanted.
async fn metrics(agent: Arc<Agent>) {
    let Some(address) = agent.config.metrics else {
        return;
    };
    let listener = match http::bind(address).await {
        Ok(listener) => listener,
        Err(error) => return agent.faults.note(Part::Metrics, Err(error)),
    };
    let scraped = Arc::clone(&agent);
    let scrape = move || {
        let agent = Arc::clone(&scraped);
        async move { render(&agent.snapshot().await).map_err(|error| error.to_string()) }
    };
    let outcome = http::serve(listener, scrape).await;
    agent.faults.note(
        Part::Metrics,
        outcome.map_err(|error| format!("metrics are not served any more: {error}")),
    );
}

impl Agent {
    /// Takes the data plane down and lets the agent stop. Returns the ports that are open now.
    ///
    /// # Errors
    /// If the kernel refuses; then the agent goes on.
    pub async fn detach(&self) -> Result<Vec<String>, Failure> {
        // No policy is applied meanwhile or afterwards.
        let _policy = self.policy.lock().await;
        tokio::task::block_in_place(|| {
            let mut plane = lock(&self.plane);
            detach_all(&self.config.pins()).map_err(|error| refused(&error))?;
            *plane = None;
            Ok::<_, Failure>(())
        })?;
        self.stop.cancel();
        Ok(lock(&self.ports)
            .iter()
            .map(|port| port.spec.name.clone())
            .collect())
    }

    /// Opens the flow log anew, after log rotation.
    pub fn reopen_flow_log(&self) {
        if let Some(log) = lock(&self.flow_log).as_mut() {
            let outcome = log
                .reopen()
                .map_err(|error| format!("the flow log cannot be opened again: {error}"));
            self.faults.note(Part::FlowLog, outcome);
        }
    }
}
