//! A machine for each test: xenstore, hypervisor, a daemon in this process or in one of its own.

use blkif::{Abi, FrontendNodes, XenbusState};
use dixback::config::DaemonConfig;
use dixback::control::{ControlError, Daemon, Stopper};
use frontend_sim::toolstack::{self, DiskConfig, Vbd};
use frontend_sim::{ConnectOptions, Device, Frontend, Ring};
use hypervisor::DomId;
use hypervisor::sim::{Broker, Sim, Usage};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use xenstore::Client;
use xenstore::server::{Server, ServerConfig, ServerHandle};

/// A hang is a failure; nothing else depends on time.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// 1 GiB of nothing without PI, and with.
pub const PLAIN: &str = "null:1G";
pub const WITH_PI: &str = "null:1G:crc16-t10dif:512";

pub struct Machine {
    /// The embedded server; none where xenstore is Xen's own.
    pub server: Option<ServerHandle>,
    pub client: Client,
    broker: Broker,
    pub dir: TempDir,
}

impl Machine {
    pub fn new() -> Self {
        let _ = env_logger::builder().is_test(true).try_init();
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(dir.path().join("xenstored"), ServerConfig::default()).unwrap();
        let client = Client::connect(server.socket()).unwrap();
        let broker = Broker::start(dir.path()).unwrap();
        Self { server: Some(server), client, broker, dir }
    }

    /// A machine whose xenstore serves its directory's socket already. Every guest is dom0 there.
    pub fn on(dir: TempDir) -> Self {
        let _ = env_logger::builder().is_test(true).try_init();
        let client = Client::connect(dir.path().join("xenstored")).unwrap();
        let broker = Broker::start(dir.path()).unwrap();
        Self { server: None, client, broker, dir }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("xenstored")
    }

    pub fn config(&self) -> DaemonConfig {
        DaemonConfig {
            xenstore: self.socket(),
            hypervisor: format!("sim:{}", self.dir.path().display()),
            run_dir: self.dir.path().join("run"),
            queues: 4,
            ..DaemonConfig::default()
        }
    }

    /// A daemon in this process.
    pub fn daemon(&self) -> Running {
        self.daemon_with(self.config())
    }

    pub fn daemon_with(&self, config: DaemonConfig) -> Running {
        self.try_daemon(config).unwrap()
    }

    pub fn try_daemon(&self, config: DaemonConfig) -> Result<Running, ControlError> {
        let domain = config.domain.unwrap_or(0);
        let client = Client::connect(self.socket_of(domain)).unwrap();
        let hypervisor = hypervisor::open(&config.hypervisor, DomId(domain)).unwrap();
        Self::run(config, client, hypervisor)
    }

    /// A daemon on something else than the simulation.
    pub fn daemon_on(&self, config: DaemonConfig, hypervisor: Arc<dyn hypervisor::Backend>) -> Running {
        Self::run(config, Client::connect(self.socket()).unwrap(), hypervisor).unwrap()
    }

    fn run(
        config: DaemonConfig,
        client: Client,
        hypervisor: Arc<dyn hypervisor::Backend>,
    ) -> Result<Running, ControlError> {
        let daemon = Daemon::start(config, client, hypervisor)?;
        let stopper = daemon.stopper();
        Ok(Running { stopper, thread: Some(std::thread::spawn(move || daemon.run())) })
    }

    fn socket_of(&self, domain: u16) -> PathBuf {
        match &self.server {
            Some(server) if domain != 0 => server.domain_socket(domain).unwrap(),
            _ => self.socket(),
        }
    }

    pub fn disk(&self, domain: u16, vdev: &str, target: &str) -> DiskConfig {
        if self.server.is_some() {
            toolstack::create_domain(&self.client, DomId(domain), &format!("guest{domain}")).unwrap();
        }
        DiskConfig::new(DomId(domain), vdev, target)
    }

    /// A disk that the daemon offers.
    pub fn attach(&self, domain: u16, vdev: &str, target: &str) -> Vbd {
        let disk = self.disk(domain, vdev, target);
        toolstack::attach(&self.client, &disk, PATIENCE).unwrap()
    }

    /// A disk's nodes.
    pub fn create(&self, domain: u16, vdev: &str, target: &str) -> Vbd {
        let disk = self.disk(domain, vdev, target);
        toolstack::create(&self.client, &disk).unwrap()
    }

    pub fn guest(&self, domain: u16) -> Guest {
        Guest {
            hypervisor: Arc::new(hypervisor::sim::connect(self.dir.path(), DomId(domain)).unwrap()),
            socket: self.socket_of(domain),
        }
    }

    /// A guest with a frontend that is connected.
    pub fn connect(&self, vbd: &Vbd, domain: u16) -> Frontend {
        self.guest(domain).connect(vbd, options())
    }

    pub fn usage(&self, domain: u16) -> Usage {
        self.broker.usage(DomId(domain))
    }

    pub fn read(&self, path: &str) -> Option<String> {
        self.client.read_string(path).ok()
    }

    pub fn wait_state(&self, vbd: &Vbd, state: XenbusState) {
        wait(&format!("{} to be in state {state}", vbd.backend()), || vbd.backend_state().unwrap() == state);
    }

    /// The reason the daemon wrote, in both of its places.
    pub fn error(&self, vbd: &Vbd) -> Option<String> {
        let beside = self.read(&format!("{}/error", vbd.backend()));
        let log = self.read(&format!("{}/error", vbd.backend().replacen("/backend/", "/error/backend/", 1)));
        let log = log.map(|text| text.trim_start_matches("22 ").to_owned());
        assert_eq!(log, beside);
        beside
    }
}

pub fn options() -> ConnectOptions {
    ConnectOptions { request_timeout: Some(PATIENCE), patience: PATIENCE, ..ConnectOptions::default() }
}

/// A daemon in this process.
pub struct Running {
    pub stopper: Stopper,
    thread: Option<JoinHandle<Result<(), ControlError>>>,
}

impl Running {
    pub fn stop(self) {
        self.stopper.stop();
        self.end().unwrap();
    }

    /// Waits for it to end.
    pub fn end(mut self) -> Result<(), ControlError> {
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.stopper.stop();
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.unwrap().unwrap();
            }
        }
    }
}

/// A guest's own ways out.
pub struct Guest {
    pub hypervisor: Arc<Sim>,
    socket: PathBuf,
}

impl Guest {
    pub fn client(&self) -> Client {
        Client::connect(&self.socket).unwrap()
    }

    pub fn connect(&self, vbd: &Vbd, options: ConnectOptions) -> Frontend {
        self.try_connect(vbd, options).unwrap()
    }

    pub fn try_connect(&self, vbd: &Vbd, options: ConnectOptions) -> Result<Frontend, frontend_sim::Error> {
        let hypervisor: Arc<dyn hypervisor::Frontend> = self.hypervisor.clone();
        Frontend::connect(&hypervisor, &self.client(), vbd.frontend(), options)
    }

    /// The device, step by step.
    pub fn device(&self, vbd: &Vbd) -> Device {
        Device::open(&self.client(), vbd.frontend()).unwrap()
    }

    /// Rings of one page, and the nodes that say so.
    pub fn rings(&self, count: usize) -> (Vec<Ring>, FrontendNodes) {
        let ring = || Ring::new(&*self.hypervisor, DomId(0), 0, Abi::X86_64).unwrap();
        let rings: Vec<_> = (0..count).map(|_| ring()).collect();
        let nodes = FrontendNodes {
            abi: Abi::X86_64,
            rings: rings.iter().map(Ring::nodes).collect(),
            persistent: false,
            dix: false,
            large_sector: false,
        };
        (rings, nodes)
    }
}

/// Waits until something is so.
pub fn wait(what: &str, mut so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < until, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// One write and one read, compared.
pub fn exercise(frontend: &mut Frontend) {
    let data = [0u8; 16384];
    let queues = frontend.queues_mut().len();
    for number in 0..queues {
        let queue = frontend.queue(number);
        queue.write_at(4096, &data).unwrap();
        let mut back = [1u8; 16384];
        queue.read_at(4096, &mut back).unwrap();
        queue.flush().unwrap();
    }
}

/// A daemon in a process of its own.
pub struct Process {
    child: std::process::Child,
    pub log: PathBuf,
}

impl Process {
    pub fn start(machine: &Machine, arguments: &[&str]) -> Self {
        let log = machine.dir.path().join("daemon.log");
        let served = served(&log);
        let child = Self::spawn(machine, &log, arguments);
        let mut process = Self { child, log };
        wait("the daemon to serve", || {
            assert!(process.child.try_wait().unwrap().is_none(), "the daemon ended: {}", process.text());
            self::served(&process.log) > served
        });
        process
    }

    /// Starts one; the machine's settings are in a file, so that arguments can go before them.
    pub fn spawn(machine: &Machine, log: &Path, arguments: &[&str]) -> std::process::Child {
        let config = machine.config();
        let file = machine.dir.path().join("dixback.toml");
        let text = format!(
            "xenstore = {:?}\nhypervisor = {:?}\nrun-dir = {:?}\n",
            config.xenstore, config.hypervisor, config.run_dir
        );
        std::fs::write(&file, text).unwrap();
        let file = file.display().to_string();
        Self::spawn_with(log, &[&["--config", &file], arguments].concat())
    }

    /// Starts one with these arguments only.
    pub fn spawn_with(log: &Path, arguments: &[&str]) -> std::process::Child {
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        std::process::Command::new(env!("CARGO_BIN_EXE_dixback"))
            .arg("run")
            .args(arguments)
            .env_remove("RUST_LOG")
            .stdout(std::process::Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    pub fn text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    /// Sends a signal and gives the exit status.
    pub fn end(&mut self, signal: rustix::process::Signal) -> std::process::ExitStatus {
        self.signal(signal);
        let mut status = None;
        wait("the daemon to end", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn served(log: &Path) -> usize {
    std::fs::read_to_string(log).unwrap_or_default().matches("serving").count()
}
