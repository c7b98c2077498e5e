//! Follows changes of this machine's addresses and interfaces.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::StreamExt;
use rtnetlink::MulticastGroup;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::core::{Agent, lock};
use super::faults::Part;
use super::{attach, links};
use crate::exit::chain;

/// Addresses come in bursts (DHCP, router advertisements): wait until it is quiet for this long, but not for ever.
const QUIET: Duration = Duration::from_millis(200);
const PATIENCE: usize = 10;

/// Watches until the agent stops; starts anew if netlink breaks off (it does when it cannot keep up).
pub(super) async fn run(agent: Arc<Agent>) {
    loop {
        let error = watch(&agent)
            .await
            .err()
            .map_or_else(|| "it ended".to_owned(), |error| format!("{error:#}"));
        agent.faults.note(
            Part::Watch,
            Err(format!("changes of addresses are not seen: {error}")),
        );
        sleep(Duration::from_secs(1)).await;
    }
}

async fn watch(agent: &Agent) -> anyhow::Result<()> {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
    ];
    let (connection, _, mut messages) =
        rtnetlink::new_multicast_connection(&groups).context("cannot open a netlink socket")?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    loop {
        // First once without a message: something may have changed before the socket was open.
        agent.follow_addresses().await;
        agent.follow_ports().await;
        messages.next().await.context("netlink closed the connection")?;
        for _ in 0..PATIENCE {
            if timeout(QUIET, messages.next()).await.is_err() {
                break;
            }
        }
    }
}

impl Agent {
    /// Guards ports again whose interfaces were replaced.
    async fn follow_ports(&self) {
        let outcome = match links::list().await {
            Ok(links) => tokio::task::block_in_place(|| self.attach_replaced(&links)),
            Err(error) => Err(format!("{error:#}")),
        };
        self.faults.note(Part::Ports, outcome);
    }

    fn attach_replaced(&self, links: &[links::LinkFacts]) -> Result<(), String> {
        let mut plane = lock(&self.plane);
        let Some(plane) = plane.as_mut() else {
            return Ok(());
        };
        let mut ports = lock(&self.ports);
        let attached = plane.attached().map_err(|error| chain(&error))?;
        let there = |port: &attach::Port| links.iter().any(|link| link.name == port.spec.name);
        let whole = |port: &attach::Port| attach::faults(port, &attached, links).is_empty();
        // With one interface missing, its pair's other port has nowhere to forward to: status says so until it is back.
        if ports.iter().all(whole) || !ports.iter().all(there) {
            return Ok(());
        }
        tracing::warn!("an interface was replaced; its port is guarded anew");
        *ports = attach::attach(plane, &self.config, links)
            .map_err(|failure| format!("an interface was replaced and cannot be guarded: {failure}"))?;
        Ok(())
    }
}
