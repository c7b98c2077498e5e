//! The agent's side of the socket.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{Connection, Hello, PROTOCOL, Reply, Request};
use crate::exit::Failure;

/// Connections at one time; more wait in the listener's queue.
const MAX_CONNECTIONS: usize = 64;
/// How long a client may take to greet and to ask.
const GREETING: Duration = Duration::from_secs(10);

/// Where a handler puts its replies.
pub struct Replies {
    connection: Connection,
}

impl Replies {
    /// Sends a reply at once.
    ///
    /// # Errors
    /// If the client has gone.
    pub async fn send(&mut self, reply: Reply) -> io::Result<()> {
        self.connection.send(&reply).await
    }

    /// Sends one of many replies; [`Self::flush`] or the end of the request hands the last ones over.
    ///
    /// # Errors
    /// If the client has gone.
    pub async fn feed(&mut self, reply: Reply) -> io::Result<()> {
        self.connection.feed(&reply).await
    }

    /// Hands over what [`Self::feed`] has kept back.
    ///
    /// # Errors
    /// If the client has gone.
    pub async fn flush(&mut self) -> io::Result<()> {
        self.connection.flush().await
    }

    /// Returns when the client has closed its side; a client that sends more than one request is closed as well.
    pub async fn closed(&mut self) {
        let _ = self.connection.receive::<serde_json::Value>().await;
    }
}

/// Answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. [`Reply::End`] or [`Reply::Failed`] is sent by the server.
    ///
    /// # Errors
    /// The failure that the client is told.
    fn handle(
        &self,
        request: Request,
        replies: &mut Replies,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// The listening socket. Dropping it removes the file.
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
}

impl Server {
    /// Listens at `path`, mode 0600. A stale file is replaced: the caller holds the lock that says no agent is alive.
    ///
    /// # Errors
    /// If the directory cannot be made or the socket not be bound.
    pub fn bind(path: &Path) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }

    /// Serves until it is dropped. A connection that fails ends alone.
    pub async fn serve<H: Handler>(&self, handler: Arc<H>) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            // The semaphore is never closed, so the only error cannot occur; it would end serving.
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                return;
            };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors: waiting helps, spinning does not.
                    tracing::warn!("cannot accept a connection on the control socket: {error}");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
            };
            let handler = Arc::clone(&handler);
            tokio::spawn(async move {
                if let Err(error) = converse(stream, handler.as_ref()).await {
                    tracing::debug!("a control connection ended: {error}");
                }
                drop(slot);
            });
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// True if the peer may command the agent: root, or the agent's own user.
fn trusted(stream: &UnixStream) -> io::Result<bool> {
    let uid = stream.peer_cred()?.uid();
    Ok(uid == 0 || uid == nix::unistd::geteuid().as_raw())
}

async fn converse<H: Handler>(stream: UnixStream, handler: &H) -> io::Result<()> {
    if !trusted(&stream)? {
        return Ok(());
    }
    let mut connection = Connection::new(stream);
    connection.send(&Hello::ours()).await?;
    let opening = async {
        let hello = connection.receive::<Hello>().await?;
        let Some(hello) = hello else { return Ok(None) };
        if hello.protocol != PROTOCOL {
            return Err(mismatch(&hello));
        }
        connection.receive::<Request>().await
    };
    let request = match timeout(GREETING, opening).await {
        Ok(Ok(Some(request))) => request,
        Ok(Err(error)) => {
            let text = format!("the agent does not understand this message: {error}");
            return connection.send(&Reply::Failed(Failure::input(text))).await;
        }
        // Closed without a word, or silent: nobody is there to be answered.
        Ok(Ok(None)) | Err(_) => return Ok(()),
    };
    let mut replies = Replies { connection };
    match handler.handle(request, &mut replies).await {
        Ok(()) => replies.send(Reply::End).await,
        Err(failure) => replies.send(Reply::Failed(failure)).await,
    }
}

fn mismatch(hello: &Hello) -> io::Error {
    io::Error::other(format!(
        "protocol version {} of dpufw {}; this agent is dpufw {} and speaks version {PROTOCOL}",
        hello.protocol,
        hello.version,
        env!("CARGO_PKG_VERSION")
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::{Handler, Replies, Server};
    use crate::control::{Applied, Client, Connection, Hello, PROTOCOL, Reply, Request};
    use crate::exit::{Exit, Failure};

    struct Echo;

    impl Handler for Echo {
        async fn handle(&self, request: Request, replies: &mut Replies) -> Result<(), Failure> {
            let Request::Apply { text, .. } = request else {
                return Err(Failure::no("only apply"));
            };
            let applied = Applied {
                generation: u32::try_from(text.len()).unwrap(),
                ..Applied::default()
            };
            replies
                .send(Reply::Applied(applied))
                .await
                .map_err(|error| Failure::no(error.to_string()))
        }
    }

    struct Fixture {
        dir: tempfile::TempDir,
        _task: tokio_util::task::AbortOnDropHandle<()>,
    }

    impl Fixture {
        fn start() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let server = Server::bind(&dir.path().join("sock")).unwrap();
            let task = tokio::spawn(async move { server.serve(Arc::new(Echo)).await });
            Self {
                dir,
                _task: tokio_util::task::AbortOnDropHandle::new(task),
            }
        }

        fn path(&self) -> std::path::PathBuf {
            self.dir.path().join("sock")
        }
    }

    fn apply(text: String) -> Request {
        Request::Apply {
            name: "x".into(),
            text,
            force: false,
            session: None,
        }
    }

    #[tokio::test]
    async fn a_request_is_answered_and_a_failure_carries_its_code() {
        let server = Fixture::start();
        let mut client = Client::connect(&server.path()).await.unwrap();
        client.request(&apply("abc".into())).await.unwrap();
        assert!(matches!(
            client.reply().await,
            Ok(Some(Reply::Applied(Applied { generation: 3, .. })))
        ));
        assert_eq!(client.reply().await, Ok(None));

        let mut client = Client::connect(&server.path()).await.unwrap();
        client.request(&Request::Status).await.unwrap();
        assert_eq!(client.reply().await.unwrap_err(), Failure::no("only apply"));
    }

    #[tokio::test]
    async fn nobody_listening_is_exit_code_3() {
        let failure = Client::connect(std::path::Path::new("/nonexistent/sock"))
            .await
            .err()
            .unwrap();
        assert_eq!(failure.exit, Exit::NoAgent);
        assert!(failure.message.contains("dpufw run"), "{failure}");
    }

    #[tokio::test]
    async fn rubbish_ends_its_own_connection_only() {
        let server = Fixture::start();
        for rubbish in [
            &b"\x00\x00\x00\x03abc"[..],
            b"\xff\xff\xff\xff",
            b"GET / HTTP/1.1\r\n\r\n",
            b"",
        ] {
            let mut stream = UnixStream::connect(server.path()).await.unwrap();
            stream.write_all(rubbish).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
        }
        let mut client = Client::connect(&server.path()).await.unwrap();
        client.request(&apply("abcd".into())).await.unwrap();
        assert!(client.reply().await.is_ok());
    }

    #[tokio::test]
    async fn another_protocol_version_gets_a_sentence() {
        let server = Fixture::start();
        let mut connection = Connection::new(UnixStream::connect(server.path()).await.unwrap());
        let hello = Hello {
            protocol: PROTOCOL + 1,
            ..Hello::ours()
        };
        connection.send(&hello).await.unwrap();
        connection.receive::<Hello>().await.unwrap();
        let reply = connection.receive::<Reply>().await.unwrap().unwrap();
        let Reply::Failed(failure) = reply else {
            panic!("{reply:?}")
        };
        assert!(
            failure.message.contains(&format!("speaks version {PROTOCOL}")),
            "{failure}"
        );
    }

    #[tokio::test]
    async fn a_request_of_megabytes_passes() {
        let server = Fixture::start();
        let mut client = Client::connect(&server.path()).await.unwrap();
        client.request(&apply("x".repeat(3 << 20))).await.unwrap();
        assert!(matches!(
            client.reply().await,
            Ok(Some(Reply::Applied(Applied {
                generation: 3_145_728,
                ..
            })))
        ));
    }
}
