//! What is installed: the unit as systemd reads it, the files where they belong, and the daemon as a service is run.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const PROGRAM: &str = env!("CARGO_BIN_EXE_dixback");

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Says that a test cannot run here.
fn skip(name: &str, reason: &str) {
    eprintln!("SKIPPED {name}: {reason}");
    if let Some(path) = std::env::var_os("DIXBACK_SKIP_LOG") {
        let mut log = File::options().create(true).append(true).open(path).unwrap();
        writeln!(log, "SKIPPED {name}: {reason}").unwrap();
    }
}

fn install(destination: &Path) -> String {
    let output = Command::new(root().join("packaging/install"))
        .env("DESTDIR", destination)
        .env("PREFIX", "/usr")
        .env("DIXBACK", PROGRAM)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn install_when_run_twice_then_every_file_is_in_place_and_the_configuration_stays() {
    let dir = tempfile::tempdir().unwrap();
    install(dir.path());
    let mode = |path: &str| std::fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o777;
    for (path, expected) in [
        ("usr/sbin/dixback", 0o755),
        ("etc/xen/scripts/block-dix", 0o755),
        ("usr/lib/systemd/system/dixback.service", 0o644),
        ("usr/lib/systemd/system/dixback-ublk@.service", 0o644),
        ("etc/dixback/dixback.toml", 0o644),
    ] {
        assert_eq!(mode(path), expected, "{path}");
    }
    let unit = std::fs::read_to_string(dir.path().join("usr/lib/systemd/system/dixback.service")).unwrap();
    assert!(unit.contains("ExecStart=/usr/sbin/dixback run"), "{unit}");
    assert!(!unit.contains("/usr/local/"), "{unit}");
    let config = dir.path().join("etc/dixback/dixback.toml");
    std::fs::write(&config, "threads = 7\n").unwrap();
    assert!(install(dir.path()).contains("stays as it is"));
    assert_eq!(std::fs::read_to_string(&config).unwrap(), "threads = 7\n");
}

/// A unit with this build's program, in a folder of its own, and systemd-analyze to look at it; a template as its first
/// instance.
fn analyze(name: &str, unit: &str, arguments: &[&str]) -> Option<(bool, String)> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(unit.replace('@', "@0"));
    let unit = std::fs::read_to_string(root().join("packaging").join(unit)).unwrap();
    std::fs::write(&path, unit.replace("/usr/local/sbin/dixback", PROGRAM)).unwrap();
    match Command::new("systemd-analyze").args(arguments).arg(&path).output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
            Some((output.status.success(), text.into_owned()))
        }
        Err(error) => {
            skip(name, &format!("systemd-analyze: {error}"));
            None
        }
    }
}

#[test]
fn unit_when_systemd_reads_it_then_nothing_in_it_is_wrong() {
    let name = "unit_when_systemd_reads_it_then_nothing_in_it_is_wrong";
    for unit in ["dixback.service", "dixback-ublk@.service"] {
        let Some((good, text)) = analyze(name, unit, &["verify", "--man=no"]) else { return };
        assert!(good, "{text}");
        // What is wrong with a line is told and then passed over.
        assert!(!text.contains(".service:"), "{text}");
    }
}

#[test]
fn unit_when_its_exposure_is_summed_up_then_is_no_more_than_it_was() {
    let name = "unit_when_its_exposure_is_summed_up_then_is_no_more_than_it_was";
    let arguments = ["security", "--offline=true", "--no-pager", "--threshold=45"];
    let Some((good, text)) = analyze(name, "dixback.service", &arguments) else { return };
    if text.contains("unrecognized option") {
        return skip(name, "this systemd-analyze cannot look at a file");
    }
    assert!(good, "{text}");
}

#[test]
fn daemon_when_run_as_a_service_then_tells_its_manager_and_gives_the_journal_priorities() {
    let dir = tempfile::tempdir().unwrap();
    let _broker = hypervisor::sim::Broker::start(dir.path()).unwrap();
    let server = xenstore::server::Server::start(
        dir.path().join("xenstored"),
        xenstore::server::ServerConfig::default(),
    )
    .unwrap();
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let log = dir.path().join("log");
    let stream = File::create(&log).unwrap();
    let stat = rustix::fs::fstat(&stream).unwrap();
    let mut daemon = Command::new(PROGRAM)
        .args(["run", "--domain", "0", "--hypervisor", &format!("sim:{}", dir.path().display())])
        .arg("--xenstore")
        .arg(server.socket())
        .arg("--run-dir")
        .arg(dir.path().join("run"))
        .env("NOTIFY_SOCKET", &path)
        .env("JOURNAL_STREAM", format!("{}:{}", stat.st_dev, stat.st_ino))
        .env_remove("RUST_LOG")
        .stdout(Stdio::null())
        .stderr(stream)
        .spawn()
        .unwrap();
    let heard = || {
        let mut bytes = [0; 256];
        let count = manager.recv(&mut bytes).expect("nothing was told for a minute");
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    };
    assert_eq!(heard(), "READY=1");
    assert_eq!(heard(), "STATUS=0 disks, 0 connected");
    let pid = rustix::process::Pid::from_child(&daemon);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(heard(), "STOPPING=1");
    assert!(daemon.wait().unwrap().success());
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.lines().count() > 1 && log.lines().all(|line| line.starts_with("<6>dixback::")), "{log}");
}
