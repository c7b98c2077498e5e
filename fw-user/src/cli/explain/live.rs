//! A flow on the running data plane.

use super::super::{ask, output, unexpected};
use super::{Explain, text};
use crate::control::{FlowAnswer, FlowQuestion, Reply, Request};
use crate::exit::Exit;

/// Asks about the flow and prints the answer.
pub(super) async fn flow(explain: &Explain) -> anyhow::Result<Exit> {
    let question = FlowQuestion {
        flow: explain.flow_text(),
        tags: explain.vlan.map(|tags| (tags.outer, tags.inner)),
        role: explain.role.clone(),
        peer: explain.peer.clone(),
    };
    let reply = ask(&explain.agent, &Request::Explain(question)).await?;
    let Reply::Explained(mut answer) = reply else {
        return Err(unexpected(&reply));
    };
    if explain.json {
        answer.ports.iter_mut().for_each(|port| port.host.text.clear());
        output::json(&answer)?;
    } else {
        print!("{}", text::of(&answer));
    }
    if answer.differs() {
        eprintln!("{}", loud(&answer));
    }
    let passes = answer.passes() && !answer.differs();
    Ok(if passes { Exit::Yes } else { Exit::No })
}

/// What must not be overlooked.
fn loud(answer: &FlowAnswer) -> String {
    let label = if output::colored(&std::io::stderr()) {
        "\x1b[31mTHE KERNEL AND THE POLICY DIFFER\x1b[0m"
    } else {
        "THE KERNEL AND THE POLICY DIFFER"
    };
    format!(
        "{label} in generation {}: what is enforced is what the kernel says. Put the policy in force again (`dpufw apply`), and \
         report this as a bug with the output of `dpufw explain --json`",
        answer.generation
    )
}
