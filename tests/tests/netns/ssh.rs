//! A real ssh session that nobody uses for hours.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use anyhow::{Context, Result, ensure};
use fw_common::abi::Engine::{Tc, Xdp};
use fw_tests::lab::{Host, Leftover, Options, Process};
use fw_user::dataplane;
use nix::sys::stat::Mode;

use crate::clients::wait_listening;
use crate::guarded::{ANSWERS, Guarded, POLICY, SOON, Stand};

const PORT: u16 = 22;
const HOUR: u64 = 3_600_000_000_000;

/// Debian's sshd, with keys, configuration and port of its own, in the server's namespace.
struct Server {
    folder: Leftover,
    address: IpAddr,
    _daemon: Process,
}

impl Server {
    fn start(host: &Host, address: IpAddr) -> Result<Self> {
        let folder = Leftover::claim(&std::env::temp_dir(), "dpufw-ssh-", host.namespace.name());
        fs::create_dir(folder.path())?;
        let file = |name: &str| folder.path().join(name).display().to_string();
        for key in ["host", "user"] {
            let make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", &file(key)];
            host.namespace.check(&make, SOON)?;
        }
        // Without PAM and without a look at who owns the folders above: only the key counts.
        fs::write(
            folder.path().join("config"),
            format!(
                "Port {PORT}\nListenAddress {address}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
                 StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n\
                 ClientAliveInterval 0\nTCPKeepAlive no\nUseDNS no\n",
                file("host"),
                file("user.pub"),
            ),
        )?;
        // sshd wants this folder (Debian's unit file makes it), and to be called by its whole path.
        fs::create_dir_all("/run/sshd")?;
        let daemon = host
            .namespace
            .spawn(&["/usr/sbin/sshd", "-D", "-e", "-f", &file("config")])?;
        wait_listening(host, PORT)?;
        Ok(Self {
            folder,
            address,
            _daemon: daemon,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// A session: what the user types comes back, and what is written into a pipe on the server is shown.
struct Session {
    client: Child,
    typed: ChildStdin,
    pipe: File,
    shown: Receiver<String>,
}

impl Session {
    /// `name`: of a pipe that no other session has, whose reader might still be there.
    fn open(host: &Host, server: &Server, name: &str) -> Result<Self> {
        let key = server.path("user");
        let fifo = server.path(name);
        nix::unistd::mkfifo(&fifo, Mode::S_IRWXU)?;
        let remote = format!("cat {} & exec cat", fifo.display());
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "none", "-T", "-p", &PORT.to_string(), "-l", "root"])
            .arg("-i")
            .arg(key);
        for option in [
            "BatchMode=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "ServerAliveInterval=0",
            "TCPKeepAlive=no",
        ] {
            ssh.args(["-o", option]);
        }
        ssh.arg(server.address.to_string())
            .arg(remote)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut client = host
            .namespace
            .enter(|| ssh.spawn())?
            .context("cannot start ssh")?;
        let typed = client.stdin.take().context("ssh has no input")?;
        let output = client.stdout.take().context("ssh has no output")?;
        let (sender, shown) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut session = Self {
            client,
            typed,
            // Both ends, so that the opening waits for nobody and no end of file comes between two lines.
            pipe: OpenOptions::new().read(true).write(true).open(fifo)?,
            shown,
        };
        session.types("hello")?;
        Ok(session)
    }

    /// The user speaks first, and sees it come back.
    fn types(&mut self, line: &str) -> Result<()> {
        writeln!(self.typed, "{line}")?;
        self.typed.flush()?;
        self.shows(line)
    }

    /// The server speaks first.
    fn is_told(&mut self, line: &str) -> Result<()> {
        writeln!(self.pipe, "{line}")?;
        self.shows(line)
    }

    fn shows(&self, line: &str) -> Result<()> {
        let shown = self
            .shown
            .recv_timeout(SOON)
            .with_context(|| format!("{line:?} was not shown"))?;
        ensure!(shown == line, "{shown:?} was shown and not {line:?}");
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It may have ended by itself; both calls are harmless then.
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

/// Five hours of the firewall's clock, then four days: whichever side speaks first is heard.
#[test]
fn an_ssh_session_is_idle_for_hours() -> Result<()> {
    let policy = POLICY.replace("allow: [http, iperf3", "allow: [http, ssh, iperf3");
    ensure!(policy != POLICY, "the policy has another form");
    for stand in [
        Stand::Host(Xdp),
        Stand::Host(Tc),
        Stand::Inline(Xdp, Xdp),
        Stand::Inline(Tc, Tc),
    ] {
        let plane = dataplane::Options {
            clock_override: true,
            replies_per_window: ANSWERS,
            ..dataplane::Options::default()
        };
        let guarded = Guarded::with(stand, Options::default(), &policy, plane)?;
        let mut clock = 1 << 50;
        guarded.tables().set_clock(clock);
        for ipv6 in [false, true] {
            idle(&guarded, ipv6, &mut clock).with_context(|| {
                let to = SocketAddr::new(guarded.server(ipv6), PORT);
                format!("{stand:?}: {to}: {}", guarded.counted())
            })?;
        }
    }
    Ok(())
}

fn idle(guarded: &Guarded, ipv6: bool, clock: &mut u64) -> Result<()> {
    let server = Server::start(&guarded.scene.server, guarded.server(ipv6))?;
    for (name, server_first) in [("client-first", false), ("server-first", true)] {
        let mut session = Session::open(&guarded.scene.client, &server, name)?;
        for hours in [5, 96] {
            *clock += hours * HOUR;
            guarded.tables().set_clock(*clock);
            let speak = |session: &mut Session| {
                if server_first {
                    session.is_told("the server is still there")?;
                    session.types("so am I")
                } else {
                    session.types("is anybody still there?")?;
                    session.is_told("the server is")
                }
            };
            speak(&mut session)
                .with_context(|| format!("after {hours} hours, server first: {server_first}"))?;
        }
    }
    Ok(())
}
