//! Client, server, and a real agent on their way.

use std::fs::DirBuilder;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fw_tests::lab::{Agent, Finished, Host, Leftover, Options, Scene};
use fw_user::telemetry::FlowInfo;

/// Long enough for what must happen, on a busy machine.
pub const SOON: Duration = Duration::from_secs(30);
/// Long enough to believe that something does not happen.
pub const SHORTLY: Duration = Duration::from_millis(200);

/// First part of the names of pins and folders.
const PREFIX: &str = "dpufw-life-";

/// Default deny, with a few flows from the client.
pub const POLICY: &str = r#"
version: 1
zones:
  client: { addresses: [10.9.0.1, "fd00:9::1"] }
  server: { addresses: [10.9.0.2, "fd00:9::2"] }
  nobody: { addresses: [10.9.0.9] }
link: { allow: [arp, nd] }
rules:
  - { name: telnet, deny: [tcp/23], from: client, to: server }
  - { name: web,    allow: [http, iperf3, ping], from: client, to: server }
  - { name: log,    allow: [syslog], from: client, to: nobody }
  - { name: admin,  allow: [ssh], from: client, to: self }
"#;

/// Where the firewall stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    /// On the server's NIC.
    Host,
    /// Between client and server.
    Inline,
}

/// Client and server, with a folder for the agent's files; the agent is started apart.
pub struct Site {
    pub scene: Scene,
    stand: Stand,
    label: String,
    folder: Leftover,
}

impl Site {
    pub fn new(stand: Stand, label: &str) -> Result<Self> {
        let scene = match stand {
            Stand::Host => Scene::direct(Options::default())?,
            Stand::Inline => Scene::inline(Options::default())?,
        };
        let folder = Leftover::claim(&std::env::temp_dir(), PREFIX, &format!("{label}-files"));
        DirBuilder::new().mode(0o700).create(folder.path())?;
        let site = Self {
            scene,
            stand,
            label: label.to_owned(),
            folder,
        };
        site.policy(POLICY)?;
        site.configure("")?;
        Ok(site)
    }

    /// Starts `dpufw run --config agent.yaml`, which names `policy.yaml`.
    pub fn agent(&self) -> Result<Agent> {
        let namespace = &self.scene.guard().namespace;
        Agent::start(
            namespace,
            PREFIX,
            &self.label,
            &["--config", &self.path("agent.yaml").display().to_string()],
        )
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file and returns its path as a word of a command line.
    pub fn file(&self, name: &str, text: &str) -> Result<String> {
        let path = self.path(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path.display().to_string())
    }

    /// Writes the policy file that the agent starts with.
    pub fn policy(&self, text: &str) -> Result<String> {
        self.file("policy.yaml", text)
    }

    /// Writes `agent.yaml`, with more keys.
    pub fn configure(&self, more: &str) -> Result<()> {
        let place = match self.stand {
            Stand::Host => "mode: host\nports: [{ name: eth0 }]",
            Stand::Inline => "mode: inline\nports: [{ name: up0, pair: down0 }, { name: down0 }]",
        };
        self.file("agent.yaml", &format!("policy: policy.yaml\n{place}\n{more}\n"))
            .map(drop)
    }

    pub fn server(&self) -> IpAddr {
        self.scene.server.v4.into()
    }

    /// True if the client can open a connection to a port of the server.
    pub fn reaches(&self, port: u16) -> Result<bool> {
        connects(&self.scene.client, (self.server(), port).into(), SHORTLY)
    }

    /// A connection between client and server.
    pub fn talk(&self, port: u16) -> Result<Talk> {
        Talk::open(&self.scene.client, &self.scene.server, port)
    }

    /// What the agent's metrics say.
    pub fn metrics(&self) -> Result<Vec<String>> {
        let command = [
            "curl",
            "-sS",
            "--fail",
            "--max-time",
            "8",
            "http://127.0.0.1:9465/metrics",
        ];
        let text = self.scene.guard().namespace.check(&command, SOON)?;
        Ok(text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(str::to_owned)
            .collect())
    }

    /// One value of the metrics, 0 if it is not there.
    pub fn metric(&self, name: &str) -> Result<u64> {
        let lines = self.metrics()?;
        let value = lines
            .iter()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(Ok(0), |value| {
            value.parse().with_context(|| format!("{name} is {value}"))
        })
    }
}

/// True if somebody answered within `patience`.
pub fn connects(from: &Host, to: SocketAddr, patience: Duration) -> Result<bool> {
    match from
        .namespace
        .enter(|| TcpStream::connect_timeout(&to, patience))?
    {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::TimedOut => Ok(false),
        Err(error) => Err(error).with_context(|| format!("connecting to {to}")),
    }
}

/// Both ends of a TCP connection.
pub struct Talk {
    pub client: TcpStream,
    pub server: TcpStream,
}

impl Talk {
    fn open(client: &Host, server: &Host, port: u16) -> Result<Self> {
        let listener = server
            .namespace
            .enter(|| TcpListener::bind((server.v4, port)))??;
        let target = SocketAddr::new(server.v4.into(), port);
        let stream = client
            .namespace
            .enter(|| TcpStream::connect_timeout(&target, SOON))??;
        // Its handshake is complete, so it is in the listener's queue, or about to be.
        let (accepted, _) = listener.accept()?;
        Ok(Self {
            client: stream,
            server: accepted,
        })
    }

    /// The client's port.
    pub fn port(&self) -> Result<u16> {
        Ok(self.client.local_addr()?.port())
    }

    /// True if a byte comes through from the client and another one back.
    pub fn works(&mut self, patience: Duration) -> Result<bool> {
        Ok(carries(&mut self.client, &mut self.server, patience)?
            && carries(&mut self.server, &mut self.client, patience)?)
    }

    /// As [`Talk::works`], but the server speaks first.
    pub fn works_backwards(&mut self, patience: Duration) -> Result<bool> {
        Ok(carries(&mut self.server, &mut self.client, patience)?
            && carries(&mut self.client, &mut self.server, patience)?)
    }
}

fn carries(from: &mut TcpStream, to: &mut TcpStream, patience: Duration) -> Result<bool> {
    from.write_all(b"x")?;
    to.set_read_timeout(Some(patience))?;
    match to.read_exact(&mut [0]) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(false),
        Err(error) => Err(error).context("reading from the connection"),
    }
}

/// Asks until it is so.
pub fn until(what: &str, mut so: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + SOON;
    while Instant::now() < end {
        if so()? {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("within {SOON:?} it did not come to this: {what}")
}

/// The only flow that matches the filter.
pub fn only_flow(agent: &Agent, filter: &[&str]) -> Result<FlowInfo> {
    let mut flows = agent.flows(filter)?;
    let flow = flows
        .pop()
        .with_context(|| format!("no flow matches {filter:?}"))?;
    ensure!(
        flows.is_empty(),
        "more than one flow matches {filter:?}: {flows:?}"
    );
    Ok(flow)
}

/// Checks the exit code of a command, and that all these words stand in what it printed.
pub fn expect(finished: &Finished, code: i32, words: &[&str]) -> Result<()> {
    ensure!(
        finished.code() == Some(code),
        "exit code {code} was expected: {finished}"
    );
    for word in words {
        ensure!(
            finished.stdout.contains(word) || finished.stderr.contains(word),
            "`{word}` was expected in: {finished}"
        );
    }
    Ok(())
}
