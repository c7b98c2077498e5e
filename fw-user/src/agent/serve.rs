//! Answers the command line.

use std::ops::ControlFlow;
use std::sync::Arc;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};

use super::core::{Agent, lock};
use crate::control::{EventFilter, FlowFilter, FrameQuestion, Handler, Replies, Reply, Request};
use crate::dataplane::{self, FlowTable, coarse_now};
use crate::exit::Failure;
use crate::telemetry::{FlowInfo, WallClock};

/// Flows that wait for a slow reader.
const FLOWS_AHEAD: usize = 1024;

/// The agent behind the socket.
pub(super) struct Service(pub Arc<Agent>);

impl Handler for Service {
    async fn handle(&self, request: Request, replies: &mut Replies) -> Result<(), Failure> {
        let agent = &self.0;
        match request {
            Request::Status => send(replies, Reply::Status(Box::new(agent.status().await))).await,
            Request::Apply {
                name,
                text,
                force,
                session,
            } => {
                let applied = agent.apply(&name, &text, force, session.as_ref()).await?;
                send(replies, Reply::Applied(applied)).await
            }
            Request::Flows {
                filter,
                follow: false,
            } => list(agent, filter, replies).await,
            Request::Flows { filter, follow: true } => follow_flows(agent, &filter, replies).await,
            Request::Drops { filter, follow } => drops(agent, &filter, follow, replies).await,
            Request::Limits { top, rule } => limits(agent, top, rule, replies).await,
            Request::ChangeZones {
                changes,
                force,
                session,
            } => {
                let changed = agent.change_zones(changes, force, session).await?;
                send(replies, Reply::ZonesChanged(Box::new(changed))).await
            }
            Request::Explain(question) => {
                let answer = agent.explain(&question).await?;
                send(replies, Reply::Explained(Box::new(answer))).await
            }
            Request::Judge { frames, role, peer } => {
                judge(agent, &frames, (role.as_deref(), peer.as_deref()), replies).await
            }
            Request::Diff { name, text } => diff(agent, name, text, replies).await,
            Request::Compare { name, text } => {
                let found = agent.changes(&name, &text).await?;
                send(replies, Reply::Compared(Box::new(found))).await
            }
            Request::ReloadZones { force, session } => {
                let reloaded = agent.reload_zones(force, session).await?;
                send(replies, Reply::ZonesReloaded(Box::new(reloaded))).await
            }
            Request::Zones { zone } => {
                for zone in agent.list_zones(zone.as_deref()).await? {
                    send(replies, Reply::Zone(Box::new(zone))).await?;
                }
                Ok(())
            }
            Request::Detach => {
                let ports = agent.detach().await?;
                send(replies, Reply::Detached { ports }).await?;
                // The connection ends with the process: then the client knows that the locks are free.
                std::future::pending().await
            }
        }
    }
}

/// Answers one frame after the other.
async fn judge(
    agent: &Agent,
    frames: &[FrameQuestion],
    (role, peer): (Option<&str>, Option<&str>),
    replies: &mut Replies,
) -> Result<(), Failure> {
    for answer in agent.judge_frames(frames, role, peer).await? {
        let fed = replies.feed(Reply::Judged(Box::new(answer))).await;
        fed.map_err(|error| gone(&error))?;
    }
    Ok(())
}

async fn send(replies: &mut Replies, reply: Reply) -> Result<(), Failure> {
    replies.send(reply).await.map_err(|error| gone(&error))
}

fn gone(error: &std::io::Error) -> Failure {
    Failure::no(format!("the client has gone: {error}"))
}

/// Streams the flows in the tables. The walk waits for a slow reader, so memory stays bounded.
async fn list(agent: &Arc<Agent>, filter: FlowFilter, replies: &mut Replies) -> Result<(), Failure> {
    let (sender, mut flows) = mpsc::channel(FLOWS_AHEAD);
    let worker = Arc::clone(agent);
    let walk = tokio::task::spawn_blocking(move || worker.walk(&filter, &sender));
    while let Some(flow) = flows.recv().await {
        replies
            .feed(Reply::Flow(Box::new(flow)))
            .await
            .map_err(|error| gone(&error))?;
    }
    let outcome = walk
        .await
        .map_err(|error| Failure::no(format!("the walk over the flows broke off: {error}")))?;
    outcome.map_err(|error| super::attach::refused(&error))
}

/// Streams the live flows that would end under another policy, then how many there are.
async fn diff(agent: &Arc<Agent>, name: String, text: String, replies: &mut Replies) -> Result<(), Failure> {
    let (sender, mut ending) = mpsc::channel(FLOWS_AHEAD);
    let worker = Arc::clone(agent);
    let walk = tokio::task::spawn_blocking(move || worker.ended_by(&name, &text, &sender));
    while let Some(flow) = ending.recv().await {
        let fed = replies.feed(Reply::Ends(Box::new(flow))).await;
        fed.map_err(|error| gone(&error))?;
    }
    let summary = walk
        .await
        .map_err(|error| Failure::no(format!("the walk over the flows broke off: {error}")))??;
    send(replies, Reply::Differs(summary)).await
}

impl Agent {
    fn walk(
        &self,
        filter: &FlowFilter,
        sender: &mpsc::Sender<FlowInfo>,
    ) -> Result<(), dataplane::DataPlaneError> {
        let now = coarse_now();
        let clock = WallClock::read();
        for table in [FlowTable::Main, FlowTable::HalfOpen] {
            self.tables.for_each_flow(table, |key, flow| {
                if flow.expired(now) {
                    return ControlFlow::Continue(());
                }
                let info = FlowInfo::new(&key, flow, table.into(), &lock(&self.names), &clock);
                if filter.matches(&info) && sender.blocking_send(info).is_err() {
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            })?;
        }
        Ok(())
    }
}

async fn follow_flows(agent: &Agent, filter: &FlowFilter, replies: &mut Replies) -> Result<(), Failure> {
    let (_, live) = agent.records.subscribe();
    let pick = |record: &crate::telemetry::FlowRecord| {
        filter
            .matches(&record.flow)
            .then(|| Reply::Record(Box::new(record.clone())))
    };
    follow(agent, live, pick, replies).await
}

async fn drops(agent: &Agent, filter: &EventFilter, on: bool, replies: &mut Replies) -> Result<(), Failure> {
    let (recent, live) = agent.drops.subscribe();
    let pick = |drop: &crate::telemetry::DropRecord| {
        filter.matches(drop).then(|| Reply::Drop(Box::new(drop.clone())))
    };
    if on {
        return follow(agent, live, pick, replies).await;
    }
    for reply in recent.iter().filter_map(|drop| pick(drop)) {
        replies.feed(reply).await.map_err(|error| gone(&error))?;
    }
    Ok(())
}

async fn limits(
    agent: &Arc<Agent>,
    top: u32,
    rule: Option<String>,
    replies: &mut Replies,
) -> Result<(), Failure> {
    let worker = Arc::clone(agent);
    let walk = tokio::task::spawn_blocking(move || worker.limit_buckets(top as usize, rule.as_deref()));
    let buckets = walk
        .await
        .map_err(|error| Failure::no(format!("the walk over the limits broke off: {error}")))?;
    for bucket in buckets.map_err(|error| super::attach::refused(&error))? {
        replies
            .feed(Reply::Limit(Box::new(bucket)))
            .await
            .map_err(|error| gone(&error))?;
    }
    Ok(())
}

/// Passes records on until the client goes or the agent stops.
async fn follow<T>(
    agent: &Agent,
    mut live: broadcast::Receiver<Arc<T>>,
    pick: impl Fn(&T) -> Option<Reply>,
    replies: &mut Replies,
) -> Result<(), Failure> {
    loop {
        let received = tokio::select! {
            received = live.recv() => received,
            () = replies.closed() => return Ok(()),
            () = agent.stop.cancelled() => return Err(Failure::no_agent("the agent stops")),
        };
        let reply = match received {
            Ok(record) => pick(&record),
            Err(RecvError::Lagged(count)) => Some(Reply::Missed { count }),
            Err(RecvError::Closed) => return Ok(()),
        };
        if let Some(reply) = reply {
            send(replies, reply).await?;
        }
    }
}
