//! The client's side of the socket.

use std::path::Path;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{Connection, DiffFlow, DiffSummary, Hello, PROTOCOL, Reply, Request};
use crate::exit::Failure;

/// How long the agent may take to greet.
const GREETING: Duration = Duration::from_secs(5);

/// A connection to the agent, greeted.
pub struct Client {
    connection: Connection,
    /// The agent's greeting.
    pub agent: Hello,
}

impl Client {
    /// Connects and greets.
    ///
    /// # Errors
    /// With exit code 3: no agent listens, no permission, or its protocol is another one.
    pub async fn connect(socket: &Path) -> Result<Self, Failure> {
        let stream = UnixStream::connect(socket)
            .await
            .map_err(|error| refused(socket, &error))?;
        let mut connection = Connection::new(stream);
        let greeting = async {
            connection.send(&Hello::ours()).await?;
            connection.receive::<Hello>().await
        };
        let agent = match timeout(GREETING, greeting).await {
            Ok(Ok(Some(hello))) => hello,
            Ok(Ok(None)) => {
                return Err(Failure::no_agent(
                    "the agent closed the connection: only root may talk to it",
                ));
            }
            Ok(Err(error)) => {
                return Err(Failure::no_agent(format!(
                    "the agent's greeting is not understood: {error}"
                )));
            }
            Err(_) => {
                return Err(Failure::no_agent(
                    "the agent does not answer within 5 s; see its log",
                ));
            }
        };
        check(&agent)?;
        Ok(Self { connection, agent })
    }

    /// Sends the request of this connection.
    ///
    /// # Errors
    /// If the agent is gone.
    pub async fn request(&mut self, request: &Request) -> Result<(), Failure> {
        self.connection.send(request).await.map_err(|error| gone(&error))
    }

    /// Asks which live flows would end under a policy; `name` is its file's, for messages.
    ///
    /// # Errors
    /// With exit code 2 if the text is no policy; or if the agent is gone.
    pub async fn flows_that_end(
        &mut self,
        name: &str,
        text: &str,
    ) -> Result<(Vec<DiffFlow>, DiffSummary), Failure> {
        let (name, text) = (name.to_owned(), text.to_owned());
        self.request(&Request::Diff { name, text }).await?;
        let (mut flows, mut summary) = (Vec::new(), DiffSummary::default());
        while let Some(reply) = self.reply().await? {
            match reply {
                Reply::Ends(flow) => flows.push(*flow),
                Reply::Differs(all) => summary = all,
                other => {
                    return Err(Failure::no(format!(
                        "the agent answered something else than was asked: {other:?}"
                    )));
                }
            }
        }
        Ok((flows, summary))
    }

    /// The next reply; `None` after [`Reply::End`]. [`Reply::Failed`] becomes the error it carries.
    ///
    /// # Errors
    /// The agent's, or if the agent is gone.
    pub async fn reply(&mut self) -> Result<Option<Reply>, Failure> {
        match self.connection.receive::<Reply>().await {
            Ok(Some(Reply::End)) => Ok(None),
            Ok(Some(Reply::Failed(failure))) => Err(failure),
            Ok(Some(reply)) => Ok(Some(reply)),
            Ok(None) => Err(Failure::no_agent(
                "the agent stopped before the answer was complete",
            )),
            Err(error) => Err(gone(&error)),
        }
    }
}

/// Says which side is older.
fn check(agent: &Hello) -> Result<(), Failure> {
    if agent.protocol == PROTOCOL {
        return Ok(());
    }
    let advice = if agent.protocol < PROTOCOL {
        "restart the agent with this version"
    } else {
        "use the agent's dpufw"
    };
    Err(Failure::no_agent(format!(
        "the agent (process {}) is dpufw {} and speaks version {} of the protocol, this dpufw {} speaks version {}: {advice}",
        agent.pid,
        agent.version,
        agent.protocol,
        env!("CARGO_PKG_VERSION"),
        PROTOCOL,
    )))
}

fn refused(socket: &Path, error: &std::io::Error) -> Failure {
    let path = socket.display();
    Failure::no_agent(match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => format!(
            "no agent listens at {path}; start one with `dpufw run`, or name another socket with --socket. What an \
             earlier agent has pinned goes on being enforced: `dpufw detach` without --yes lists it"
        ),
        std::io::ErrorKind::PermissionDenied => {
            format!("no permission for the agent's socket {path}; run this as root")
        }
        _ => format!("cannot connect to the agent at {path}: {error}"),
    })
}

fn gone(error: &std::io::Error) -> Failure {
    Failure::no_agent(format!("the connection to the agent broke: {error}"))
}
