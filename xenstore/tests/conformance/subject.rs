//! A server under test: embedded, or Xen's own.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use xenstore::client::{Endpoint, UnixSocket};
use xenstore::server::{self, ServerConfig, ServerHandle};
use xenstore::{Client, ClientOptions};

use crate::ring::Ring;
use crate::support::raw::Raw;

/// The quotas of a domain, the same for both servers and small, so that they are soon reached.
pub const NODES: usize = 40;
pub const WATCHES: usize = 8;
pub const TRANSACTIONS: usize = 3;
pub const NODE_SIZE: usize = 600;
pub const PERMISSIONS: usize = 4;

/// A guard against hanging, no measure of anything.
pub const GUARD: Duration = Duration::from_secs(20);

#[derive(Clone, Copy)]
pub enum Server {
    Embedded,
    Xenstored,
}

enum Running {
    Embedded(ServerHandle),
    /// Held for its end.
    #[expect(dead_code)]
    Xenstored(Process),
    Stopped,
}

/// A process that ends with its owner.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub struct Subject {
    // Before the folder it lives in.
    running: Running,
    server: Server,
    folder: TempDir,
}

impl Subject {
    /// A server with an empty store, or why there can be none here.
    pub fn start(server: Server) -> Result<Subject, String> {
        if let Server::Xenstored = server {
            tools()?;
        }
        let folder = tempfile::tempdir().unwrap();
        let mut subject = Subject { running: Running::Stopped, server, folder };
        subject.go();
        Ok(subject)
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// A new connection of dom0's.
    pub fn dom0(&self) -> Client {
        Client::connect(self.socket()).unwrap()
    }

    pub fn dom0_with(&self, options: ClientOptions) -> Client {
        Client::connect_to(UnixSocket::new(self.socket()), options).unwrap()
    }

    /// A connection of dom0's, byte by byte.
    pub fn raw(&self) -> Raw {
        Raw::connect(&self.socket())
    }

    /// A domain's connection; the domain is introduced and has its home, which it owns.
    pub fn domain(&self, domain: u16) -> Client {
        Client::connect_to(self.introduced(domain), ClientOptions::default()).unwrap()
    }

    /// A domain's connection, byte by byte.
    pub fn raw_domain(&self, domain: u16) -> Raw {
        Raw::over(self.introduced(domain).open().unwrap().into())
    }

    fn introduced(&self, domain: u16) -> Box<dyn Endpoint> {
        let dom0 = self.dom0();
        let home = format!("/local/domain/{domain}");
        dom0.mkdir(&home).unwrap();
        dom0.set_permissions(&home, &[xenstore::Permission::none(domain)]).unwrap();
        match self.server {
            Server::Embedded => {
                dom0.introduce(domain, 1, 1).unwrap();
                Box::new(UnixSocket::new(self.folder.path().join(format!("socket.{domain}"))))
            }
            Server::Xenstored => {
                let ring = Ring::prepare(self.folder.path(), domain);
                dom0.introduce(domain, 1, 1).unwrap();
                Box::new(ring)
            }
        }
    }

    pub fn stop(&mut self) {
        self.running = Running::Stopped;
    }

    /// Starts it after a stop; the store is empty again.
    pub fn go(&mut self) {
        self.running = match self.server {
            Server::Embedded => {
                let config = ServerConfig {
                    nodes_per_domain: NODES,
                    watches_per_domain: WATCHES,
                    transactions_per_domain: TRANSACTIONS,
                    node_size: NODE_SIZE,
                    permissions_per_node: PERMISSIONS,
                    ..ServerConfig::default()
                };
                Running::Embedded(server::Server::start(self.socket(), config).unwrap())
            }
            Server::Xenstored => Running::Xenstored(self.xenstored()),
        };
    }

    /// The embedded server's handle, where it is the one.
    pub fn handle(&self) -> Option<&ServerHandle> {
        match &self.running {
            Running::Embedded(handle) => Some(handle),
            _ => None,
        }
    }

    fn xenstored(&self) -> Process {
        let (binary, fakexen) = tools().unwrap();
        let _ = std::fs::remove_file(self.socket());
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        let child = Command::new(binary)
            .arg("-N")
            .args(["-E", &NODES.to_string(), "-W", &WATCHES.to_string(), "-t", &TRANSACTIONS.to_string()])
            .args(["-S", &NODE_SIZE.to_string(), "-A", &PERMISSIONS.to_string()])
            .env("LD_PRELOAD", fakexen)
            .env("FAKEXEN_DIR", self.folder.path())
            .env("XENSTORED_RUNDIR", self.folder.path())
            .env("XENSTORED_PATH", self.socket())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut process = Process(child);
        let deadline = Instant::now() + GUARD;
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            let log = || std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(process.0.try_wait().unwrap().is_none(), "xenstored ended: {}", log());
            assert!(Instant::now() < deadline, "xenstored does not listen: {}", log());
            std::thread::sleep(Duration::from_millis(2));
        }
        process
    }
}

/// Xen's xenstored and the library that stands in for Xen under it, or why there is none.
fn tools() -> Result<(&'static Path, &'static Path), String> {
    static TOOLS: OnceLock<Result<(PathBuf, PathBuf), String>> = OnceLock::new();
    let tools = TOOLS.get_or_init(|| {
        let binary = find_xenstored().ok_or("no xenstored here (Debian: package xen-utils-<version>)")?;
        Ok((binary, compile_fakexen()?))
    });
    tools.as_ref().map(|(binary, library)| (binary.as_path(), library.as_path())).map_err(String::clone)
}

/// `DIXBACK_XENSTORED` in the environment, or the newest that Debian installed: the binary, not the wrapper script.
fn find_xenstored() -> Option<PathBuf> {
    if let Some(binary) = std::env::var_os("DIXBACK_XENSTORED") {
        return Some(binary.into());
    }
    let folders = std::fs::read_dir("/usr/lib").ok()?;
    let mut found: Vec<PathBuf> = folders
        .filter_map(|entry| {
            let entry = entry.ok()?;
            entry.file_name().to_str()?.strip_prefix("xen-")?;
            Some(entry.path().join("bin/xenstored")).filter(|binary| binary.is_file())
        })
        .collect();
    found.sort();
    found.pop()
}

fn compile_fakexen() -> Result<PathBuf, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fakexen/fakexen.c");
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fakexen.so");
    // Several test processes may be at this at once: each makes its own and moves it into place.
    let own = library.with_extension(std::process::id().to_string());
    let compiler = std::env::var_os("CC").unwrap_or_else(|| OsString::from("cc"));
    let made = Command::new(&compiler)
        .args(["-O1", "-shared", "-fPIC", "-o"])
        .args([&own, &source])
        .arg("-ldl")
        .output()
        .map_err(|error| format!("no C compiler for tests/fakexen ({}): {error}", compiler.display()))?;
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    std::fs::rename(&own, &library).unwrap();
    Ok(library)
}
