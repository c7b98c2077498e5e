//! Follows changes of this machine's addresses and interfaces.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::StreamExt;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::LinkAttribute;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::core::{Agent, lock};
use super::faults::Part;
use super::{attach, links};

/// Addresses come in bursts (DHCP, router advertisements): wait until it is quiet for this long, but not for ever.
const QUIET: Duration = Duration::from_millis(200);
const PATIENCE: usize = 10;
/// How often the wall clock is looked at: nobody tells when it was set.
const CLOCK: Duration = Duration::from_secs(10);

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
        agent.follow_machine().await;
        agent.follow_ports().await;
        let mut patience = CLOCK;
        for _ in 0..PATIENCE {
            let Ok(message) = timeout(patience, messages.next()).await else {
                break;
            };
            let (message, _) = message.context("netlink closed the connection")?;
            // A port's interface is there again: every packet now passes it unseen.
            if agent.is_new_port(&message) {
                agent.follow_ports().await;
            }
            patience = QUIET;
        }
    }
}

/// Name and index of the interface that a message tells of, unless it goes.
fn interface(message: &NetlinkMessage<RouteNetlinkMessage>) -> Option<(&str, u32)> {
    let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) = &message.payload else {
        return None;
    };
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    });
    Some((name?, link.header.index))
}

impl Agent {
    /// True if the message tells of an interface with a port's name that is not guarded.
    fn is_new_port(&self, message: &NetlinkMessage<RouteNetlinkMessage>) -> bool {
        interface(message).is_some_and(|(name, ifindex)| {
            lock(&self.ports)
                .iter()
                .any(|port| port.spec.name == name && port.ifindex != ifindex)
        })
    }

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
        attach::attach_again(plane, &self.config, &mut ports, links)
            .map_err(|failure| format!("an interface was replaced and cannot be guarded: {failure}"))
    }
}
