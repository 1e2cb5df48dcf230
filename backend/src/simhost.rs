//! A simulated host: what dom0 is on Xen, from processes on any machine. For the demo, the bench and tests.
//!
//! ```text
//! this process          child process              child processes, or this one
//!   embedded xenstore     the daemon (domain 0)      frontends (domains 1, 2, ..)
//!   sim broker            `dixback run`              `dixback frontend ..`
//!   toolstack
//! ```
//!
//! Everything lives in one temporary directory and ends with the [`Host`].

use crate::control::status::{Answer, Report, Request, ask};
use frontend_sim::toolstack::{self, DiskConfig, Vbd};
use hypervisor::DomId;
use hypervisor::sim::Broker;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use xenstore::Client;
use xenstore::server::{Server, ServerConfig, ServerHandle};

/// How long the daemon may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why there is no host, or something on it failed.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A process, a file or a directory.
    #[error("{what}: {source}")]
    System {
        /// What was being done.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The daemon ended, or did not start.
    #[error("the daemon {what}; its log ends:\n{log}")]
    Daemon {
        /// What it did.
        what: String,
        /// The last lines of its log.
        log: String,
    },
    /// Xenstore.
    #[error(transparent)]
    Xenstore(#[from] xenstore::Error),
    /// The simulated hypervisor.
    #[error(transparent)]
    Hypervisor(#[from] hypervisor::Error),
    /// A frontend or the toolstack.
    #[error(transparent)]
    Frontend(#[from] frontend_sim::Error),
}

/// A running host.
pub struct Host {
    daemon: Option<Child>,
    program: PathBuf,
    cpu: Option<usize>,
    client: Client,
    server: ServerHandle,
    _broker: Broker,
    dir: TempDir,
}

/// A domain on it, as its own frontends see it.
pub struct Guest {
    /// Grants and event channels.
    pub hypervisor: Arc<dyn hypervisor::Frontend>,
    /// Its own connection to xenstore.
    pub xenstore: Client,
}

impl Host {
    /// Starts the embedded xenstore, the simulation and the daemon; `program` is this project's own. With `cpu` the
    /// daemon stays on that processor.
    ///
    /// # Errors
    /// [`HostError`]; nothing is left behind.
    pub fn start(program: &Path, cpu: Option<usize>) -> Result<Self, HostError> {
        Self::start_with(program, cpu, &[])
    }

    /// The same, with more arguments for the daemon.
    ///
    /// # Errors
    /// [`HostError`]; nothing is left behind.
    pub fn start_with(program: &Path, cpu: Option<usize>, arguments: &[&str]) -> Result<Self, HostError> {
        let dir =
            tempfile::Builder::new().prefix("dixback-").tempdir().map_err(system("a temporary directory"))?;
        let server = Server::start(dir.path().join("xenstored"), ServerConfig::default())?;
        let client = Client::connect(server.socket())?;
        let broker = Broker::start(dir.path())?;
        let mut host =
            Self { daemon: None, program: program.to_owned(), cpu, client, server, _broker: broker, dir };
        host.start_daemon(arguments)?;
        Ok(host)
    }

    /// Starts the daemon, with more arguments, and waits until it serves.
    ///
    /// # Errors
    /// [`HostError::Daemon`] with the end of its log.
    pub fn start_daemon(&mut self, arguments: &[&str]) -> Result<(), HostError> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .map_err(system("the daemon's log"))?;
        let served = self.served();
        let mut command = Command::new(&self.program);
        command.arg("run").args(["--hypervisor", &self.hypervisor_name()]);
        command.arg("--xenstore").arg(self.server.socket());
        command.arg("--run-dir").arg(self.dir.path().join("run")).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        end_with_parent(&mut command);
        if let Some(cpu) = self.cpu {
            pin_child(&mut command, cpu);
        }
        let mut child = command.spawn().map_err(system("the daemon"))?;
        let until = Instant::now() + PATIENCE;
        while self.served() == served {
            let ended = child.try_wait().map_err(system("the daemon"))?;
            if ended.is_some() || Instant::now() > until {
                let what = ended.map_or("does not start".to_owned(), |status| format!("ended with {status}"));
                let _ = child.kill();
                let _ = child.wait();
                return Err(HostError::Daemon { what, log: self.log_tail() });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.daemon = Some(child);
        Ok(())
    }

    /// How often a daemon has said that it serves.
    fn served(&self) -> usize {
        self.log().matches("serving").count()
    }

    /// Sends the daemon a signal and waits until it has ended.
    ///
    /// # Errors
    /// [`HostError::Daemon`] if it does not.
    pub fn end_daemon(&mut self, signal: rustix::process::Signal) -> Result<ExitStatus, HostError> {
        let log = self.log_tail();
        let mut child = self.daemon.take().ok_or(HostError::Daemon { what: "is not there".into(), log })?;
        let until = Instant::now() + PATIENCE;
        let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal);
        loop {
            if let Some(status) = child.try_wait().map_err(system("the daemon"))? {
                return Ok(status);
            }
            if Instant::now() > until {
                let _ = child.kill();
                let _ = child.wait();
                return Err(HostError::Daemon { what: "does not stop".into(), log: self.log_tail() });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The daemon's process.
    pub fn daemon_pid(&self) -> u32 {
        self.daemon.as_ref().map_or(0, Child::id)
    }

    /// Everything the daemons have logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }

    /// Where the daemons log to.
    pub fn log_path(&self) -> PathBuf {
        self.dir.path().join("daemon.log")
    }

    /// The host's directory, for files that shall end with it.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What the daemon tells of itself.
    ///
    /// # Errors
    /// It does not answer.
    pub fn status(&self) -> Result<Report, HostError> {
        match ask(&self.dir.path().join("run"), &Request::Status) {
            Ok(Answer::Status(report)) => Ok(*report),
            Ok(other) => Err(system("the daemon's status")(io::Error::other(format!("{other:?}")))),
            Err(error) => Err(system("the daemon's status")(io::Error::other(error))),
        }
    }

    /// Dom0's connection to xenstore.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Xenstore's socket.
    pub fn xenstore(&self) -> &Path {
        self.server.socket()
    }

    /// What `--hypervisor` is on this host.
    pub fn hypervisor_name(&self) -> String {
        format!("sim:{}", self.dir.path().display())
    }

    /// Makes a domain, if it is new, and connects to the host as that domain.
    ///
    /// # Errors
    /// Xenstore's or the hypervisor's.
    pub fn guest(&self, domain: u16) -> Result<Guest, HostError> {
        self.introduce(domain)?;
        let socket = self.server.domain_socket(domain)?;
        Ok(Guest {
            hypervisor: Arc::new(hypervisor::sim::connect(self.dir.path(), DomId(domain))?),
            xenstore: Client::connect(&socket)?,
        })
    }

    fn introduce(&self, domain: u16) -> Result<(), HostError> {
        if !self.server.is_introduced(domain) {
            toolstack::create_domain(&self.client, DomId(domain), &format!("guest{domain}"))?;
        }
        Ok(())
    }

    /// Gives a domain a disk, as `xl block-attach` does, and waits for the daemon's offer.
    ///
    /// # Errors
    /// The daemon's reason, where it cannot serve the disk.
    pub fn attach(&self, domain: u16, vdev: &str, target: &str) -> Result<Vbd, HostError> {
        self.introduce(domain)?;
        let config = DiskConfig::new(DomId(domain), vdev, target);
        Ok(toolstack::attach(&self.client, &config, PATIENCE)?)
    }

    /// A frontend as a process of its own: `arguments` are those of the `frontend` subcommand.
    ///
    /// # Errors
    /// Xenstore's.
    pub fn frontend(&self, domain: u16, device: &str, arguments: &[&str]) -> Result<Command, HostError> {
        self.introduce(domain)?;
        let mut command = Command::new(&self.program);
        command.arg("frontend").args(["--hypervisor", &self.hypervisor_name()]);
        // The frontend itself prefers its domain's own socket beside this one.
        command.arg("--xenstore").arg(self.server.socket());
        command.args(["--domain", &domain.to_string(), "--device", device]).args(arguments);
        end_with_parent(&mut command);
        Ok(command)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if self.daemon.is_some()
            && let Err(error) = self.end_daemon(rustix::process::Signal::TERM)
        {
            log::error!("{error}");
        }
    }
}

/// Wraps what the kernel said; for `map_err`.
pub fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> HostError {
    let what = what.into();
    move |source| HostError::System { what, source }
}

/// Makes a child end when this process does, however it ends.
fn end_with_parent(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    let parent = rustix::process::getpid();
    let hook = move || {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
        // The parent may have ended before the line above.
        if rustix::process::getppid() == Some(parent) {
            Ok(())
        } else {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    };
    // SAFETY: the hook makes system calls only, which is safe between fork and exec.
    unsafe { command.pre_exec(hook) };
}

/// Keeps the calling thread on one processor, and the threads it starts.
///
/// # Errors
/// There is no such processor, or it is not for this process.
pub fn pin(cpu: usize) -> io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// Keeps a child on one processor.
pub fn pin_child(command: &mut Command, cpu: usize) {
    use std::os::unix::process::CommandExt;
    // SAFETY: the hook makes one system call, which is safe between fork and exec.
    unsafe { command.pre_exec(move || pin(cpu)) };
}
