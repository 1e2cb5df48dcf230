//! The same on Xen's own xenstored, which runs without Xen over a library that stands in for it.

use crate::support::*;
use blkif::XenbusState;
use frontend_sim::ConnectOptions;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Xen's xenstored in a directory of its own, or why there is none.
fn start() -> Result<(Server, Machine), String> {
    let binary = find().ok_or("no xenstored here (Debian: package xen-utils-<version>)")?;
    let dir = tempfile::tempdir().unwrap();
    let library = compile(dir.path())?;
    let socket = dir.path().join("xenstored");
    let child = Command::new(binary)
        .arg("-N")
        .env("LD_PRELOAD", library)
        .env("FAKEXEN_DIR", dir.path())
        .env("XENSTORED_RUNDIR", dir.path())
        .env("XENSTORED_PATH", &socket)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| error.to_string())?;
    let server = Server(child);
    wait("xenstored to listen", || UnixStream::connect(&socket).is_ok());
    Ok((server, Machine::on(dir)))
}

fn find() -> Option<PathBuf> {
    if let Some(binary) = std::env::var_os("DIXBACK_XENSTORED") {
        return Some(binary.into());
    }
    let folders = std::fs::read_dir("/usr/lib").ok()?;
    let xen = folders.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("xen-"));
    xen.map(|entry| entry.path().join("bin/xenstored")).filter(|binary| binary.is_file()).max()
}

fn compile(dir: &Path) -> Result<PathBuf, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fakexen/fakexen.c");
    let library = dir.join("fakexen.so");
    let mut compiler = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
    compiler.args(["-O1", "-shared", "-fPIC", "-o"]).args([&library, &source]).arg("-ldl");
    match compiler.output() {
        Ok(made) if made.status.success() => Ok(library),
        Ok(made) => panic!("{}", String::from_utf8_lossy(&made.stderr)),
        Err(error) => Err(format!("no C compiler for tests/fakexen: {error}")),
    }
}

fn skipped(name: &str, reason: &str) {
    let line = format!("SKIPPED {name}: {reason}\n");
    // Not eprintln!, which the test harness keeps to itself when a test passes.
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(log) = std::env::var_os("DIXBACK_SKIP_LOG") {
        let file = std::fs::File::options().append(true).create(true).open(log);
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
    }
}

#[test]
fn disk_when_xenstore_is_xens_own_then_lives_and_dies_the_same() {
    let (_server, machine) = match start() {
        Ok(started) => started,
        Err(reason) => {
            return skipped("disk_when_xenstore_is_xens_own_then_lives_and_dies_the_same", &reason);
        }
    };
    let mut daemon = machine.daemon();
    let refused = machine.create(2, "xvda", "/nowhere");
    machine.wait_state(&refused, XenbusState::InitWait);
    assert!(machine.error(&refused).unwrap().contains("/nowhere"));
    refused.detach(PATIENCE).unwrap();
    for target in [PLAIN, WITH_PI] {
        let vbd = machine.attach(1, "xvda", target);
        let mut frontend = machine.connect(&vbd, 1);
        exercise(&mut frontend);
        frontend.disconnect().unwrap();
        machine.wait_state(&vbd, XenbusState::Closed);
        let mut frontend = machine.connect(&vbd, 1);
        exercise(&mut frontend);
        daemon.stop();
        daemon = machine.daemon();
        exercise(&mut frontend);
        assert_eq!(frontend.reconnections(), 0);
        vbd.detach(PATIENCE).unwrap();
        wait("the frontend to notice", || frontend.is_closed());
    }
    // Removed without asking, both directories at once and each alone.
    for path in ["", "/local/domain/1/device/vbd/51712", "/local/domain/0/backend/vbd3/1/51712"] {
        let vbd = machine.attach(1, "xvda", PLAIN);
        let options = ConnectOptions { reconnect: false, ..options() };
        let frontend = machine.guest(1).connect(&vbd, options);
        if !path.is_empty() {
            machine.client.remove(path).unwrap();
            wait("the connection to end", || machine.usage(1).mapped == 0);
        }
        vbd.remove().unwrap();
        wait("the connection to end", || machine.usage(1).mapped == 0);
        wait("the frontend to notice", || frontend.is_closed());
        drop(frontend);
        let left = machine.client.directory("/local/domain/0/backend/vbd3/1").unwrap_or_default();
        assert!(left.is_empty(), "{left:?}");
        machine.client.remove("/local/domain/1/device/vbd").unwrap();
    }
}
