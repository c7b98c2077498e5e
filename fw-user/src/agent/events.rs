//! Reads denied and reported packets from the kernel's ring.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::io::unix::AsyncFd;

use super::core::{Agent, lock};
use super::faults::Part;
use crate::dataplane::{EventReader, KernelLog};
use crate::telemetry::{DropRecord, RecordKind, WallClock};

/// Events taken in one go before other tasks have a turn.
const BATCH: usize = 512;
/// How long an interface's name is believed.
const NAME_AGE: Duration = Duration::from_secs(2);

/// Reads until the agent stops.
pub(super) async fn run(agent: Arc<Agent>, reader: EventReader) {
    let outcome = read(&agent, reader).await;
    agent.faults.note(
        Part::Events,
        outcome.map_err(|error| format!("packets are not reported any more: {error}")),
    );
}

/// Passes on what the programs log, if they do.
pub(super) async fn log(reader: Option<KernelLog>) {
    let Some(reader) = reader else { return };
    // SAFETY: as in `read`: the reader owns its ring's descriptor and gives out that one only.
    let mut ring = match unsafe { AsyncFd::register(reader) } {
        Ok(ring) => ring,
        Err(error) => return tracing::warn!("the programs' log cannot be read: {error}"),
    };
    while let Ok(mut ready) = ring.readable_mut().await {
        ready.get_inner_mut().flush();
        ready.clear_ready();
    }
}

async fn read(agent: &Agent, reader: EventReader) -> std::io::Result<()> {
    // SAFETY: the reader owns the ring's descriptor and always gives out that one, so it is open, and stays the same,
    // until the AsyncFd drops the reader.
    let mut ring = unsafe { AsyncFd::register(reader) }?;
    let mut interfaces = Interfaces::default();
    // What strangers send may fill the ring with anything; the log hears of it at most once a minute.
    let limit: DefaultDirectRateLimiter = RateLimiter::direct(Quota::per_minute(NonZeroU32::MIN));
    loop {
        let mut ready = ring.readable_mut().await?;
        let clock = WallClock::read();
        let (mut taken, mut strange) = (0, 0);
        let mut logged = Vec::new();
        while taken < BATCH
            && let Some(event) = ready.get_inner_mut().next_event()
        {
            taken += 1;
            let interface = interfaces.name(event.ifindex);
            let record = DropRecord::new(&event, interface, &lock(&agent.names), &clock);
            match record {
                Some(record) => {
                    if matches!(record.kind, RecordKind::Log | RecordKind::Audit) {
                        logged.push(record.clone());
                    }
                    agent.drops.publish(record);
                }
                None => strange += 1,
            }
        }
        if taken < BATCH {
            ready.clear_ready();
        }
        drop(ready);
        if !logged.is_empty() {
            tokio::task::block_in_place(|| agent.log(logged.iter()));
        }
        if strange > 0 {
            agent.totals.strange_events.add(strange);
            if limit.check().is_ok() {
                tracing::warn!("{strange} events from the kernel were not understood and are ignored");
            }
        }
        tokio::task::yield_now().await;
    }
}

/// Names of interfaces by index. Bounded by the number of interfaces, asked anew every two seconds.
#[derive(Default)]
struct Interfaces {
    names: HashMap<u32, String>,
    read: Option<Instant>,
}

impl Interfaces {
    fn name(&mut self, ifindex: u32) -> String {
        if self.read.is_none_or(|read| read.elapsed() > NAME_AGE) {
            self.names = list_names();
            self.read = Some(Instant::now());
        }
        self.names
            .get(&ifindex)
            .cloned()
            .unwrap_or_else(|| format!("#{ifindex}"))
    }
}

fn list_names() -> HashMap<u32, String> {
    // Without the list, numbers are shown.
    let Ok(list) = nix::net::if_::if_nameindex() else {
        return HashMap::new();
    };
    list.iter()
        .map(|interface| (interface.index(), interface.name().to_string_lossy().into_owned()))
        .collect()
}
