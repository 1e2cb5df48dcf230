//! The whole, as processes: the daemon, a frontend, the embedded xenstore, the simulated hypervisor, files.

use dixback::simhost::{Host, HostError};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

const PROGRAM: &str = env!("CARGO_BIN_EXE_dixback");
const PATIENCE: Duration = Duration::from_secs(60);

fn host() -> Host {
    Host::start(Path::new(PROGRAM), None).unwrap()
}

/// A disk of `bytes` with a sidecar, made by the image tool.
fn protected(dir: &Path, name: &str, bytes: u64, arguments: &[&str]) -> PathBuf {
    let path = dir.join(name);
    std::fs::File::create(&path).unwrap().set_len(bytes).unwrap();
    let made = Command::new(PROGRAM).args(["image", "protect"]).arg(&path).args(arguments).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    path
}

fn scrub(path: &Path) -> Output {
    Command::new(PROGRAM).args(["image", "scrub"]).arg(path).output().unwrap()
}

fn frontend(host: &Host, domain: u16, arguments: &[&str]) -> Output {
    host.frontend(domain, "xvda", arguments).unwrap().output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Two queues, each at full depth, reading, writing and discarding over one another in a small region; every block is
/// then read once more. A torn interval, a mixed block or a false mismatch fails it. Scrub agrees afterwards.
fn overlap(dix: &str, protect: &[&str], target: &str) {
    let host = host();
    let disk = protected(host.dir(), "disk.img", 8 << 20, protect);
    let vbd = host.attach(1, "xvda", &format!("{}{target}", disk.display())).unwrap();
    let run =
        ["--queues", "2", "--depth", "32", "--dix", dix, "verify", "--seconds", "4", "--discard", "--length"];
    let output = frontend(&host, 1, &[&run[..], &["1048576"]].concat());
    assert!(output.status.success(), "{}\n{}", text(&output), host.log());
    assert!(text(&output).contains("verified: "), "{}", text(&output));
    vbd.detach(PATIENCE).unwrap();
    assert!(!host.log().contains("ERROR"), "{}", host.log());
    let scrubbed = scrub(&disk);
    assert!(scrubbed.status.success(), "{}", text(&scrubbed));
}

#[test]
fn overlapping_requests_of_two_queues_when_a_dix_guest_sends_them_never_mix() {
    overlap("require", &[], "?queues=2");
}

#[test]
fn overlapping_requests_of_two_queues_when_the_daemon_makes_pi_never_mix() {
    overlap("off", &[], "?queues=2");
}

#[test]
fn overlapping_requests_when_the_metadata_cache_is_tiny_and_intervals_are_large_never_mix() {
    overlap(
        "require",
        &[
            "--guard",
            "crc64-nvme",
            "--interval",
            "4096",
            "--metadata-size",
            "64",
            "--pi-offset",
            "48",
            "--non-atomic",
        ],
        "?queues=2&cache=64KiB",
    );
}

#[test]
fn overlapping_requests_when_the_guard_cannot_tell_order_never_mix() {
    overlap("auto", &["--guard", "ip"], "?queues=2&direct=off");
}

#[test]
fn an_image_in_use_when_attached_again_is_refused_by_name_here_and_by_another_daemon() {
    let (first, second) = (host(), host());
    let disk = protected(first.dir(), "disk.img", 1 << 20, &[]);
    let target = disk.display().to_string();
    let vbd = first.attach(1, "xvda", &target).unwrap();
    let mut held = first.frontend(1, "xvda", &["connect"]).unwrap();
    let mut held =
        held.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(held.stdout.as_mut().unwrap()), &mut line)
        .unwrap();
    assert_eq!(line, "connected\n");

    for host in [&first, &second] {
        let _second = host.attach(2, "xvda", &target).unwrap();
        let output = frontend(host, 2, &["--no-reconnect", "--timeout", "20", "request", "read"]);
        assert!(!output.status.success());
        let said = text(&output) + &host.log();
        for part in [target.as_str(), "domain 1 xvda"] {
            assert!(said.contains(part), "{part} is not named in:\n{said}");
        }
    }
    let scrubbed = scrub(&disk);
    assert_eq!(scrubbed.status.code(), Some(2), "scrub ran beside the daemon");
    assert!(text(&scrubbed).contains("domain 1 xvda"), "{}", text(&scrubbed));

    drop(held.stdin.take());
    assert!(held.wait().unwrap().success());
    vbd.detach(PATIENCE).unwrap();
    let output = frontend(&second, 2, &["request", "read"]);
    assert!(output.status.success(), "free again, and refused: {}", text(&output));
}

#[test]
fn an_image_changed_from_outside_is_reported_at_attach_with_the_command_to_run() {
    let host = host();
    let disk = protected(host.dir(), "disk.img", 1 << 20, &[]);
    let target = disk.display().to_string();
    let vbd = host.attach(1, "xvda", &target).unwrap();
    let written =
        frontend(&host, 1, &["--dix", "require", "request", "write", "--sector", "2048", "--bytes", "512"]);
    // The last sector is 2047.
    assert!(!written.status.success());
    let written =
        frontend(&host, 1, &["--dix", "require", "request", "write", "--sector", "2047", "--bytes", "512"]);
    assert!(written.status.success(), "{}", text(&written));
    vbd.detach(PATIENCE).unwrap();
    assert!(!host.log().contains("WARN"), "{}", host.log());

    std::thread::sleep(Duration::from_millis(20));
    std::fs::File::options().write(true).open(&disk).unwrap().write_all_at(b"x", 2047 * 512 + 7).unwrap();
    let vbd = host.attach(1, "xvda", &target).unwrap();
    let read =
        frontend(&host, 1, &["--dix", "require", "request", "read", "--sector", "2047", "--bytes", "512"]);
    assert!(!read.status.success());
    assert!(text(&read).contains("Guard"), "{}", text(&read));
    let log = host.log();
    assert!(log.contains("dixback image scrub") || log.contains("dixback image reseal"), "{log}");
    assert!(log.contains("interval 2047 "), "{log}");
    vbd.detach(PATIENCE).unwrap();

    let sealed = Command::new(PROGRAM).args(["image", "reseal"]).arg(&disk).output().unwrap();
    assert!(text(&sealed).contains("interval 2047 "), "{}", text(&sealed));
    assert!(scrub(&disk).status.success());
}

#[test]
fn a_disk_that_cannot_be_opened_fails_the_attach_with_the_reason_and_harms_nobody() {
    let host = host();
    let disk = protected(host.dir(), "disk.img", 1 << 20, &[]);
    let missing = host.dir().join("missing.img");
    for (target, part) in [
        (missing.display().to_string(), "missing.img"),
        (format!("{}?integrity=maybe", disk.display()), "integrity"),
        (format!("{}?colour=red", disk.display()), "colour"),
        (format!("{}?integrity=off", disk.display()), "leave the PI behind"),
        (format!("{}?pi=none&integrity=require", disk.display()), "require"),
        (host.dir().display().to_string(), "directory"),
    ] {
        match host.attach(1, "xvda", &target) {
            Err(HostError::Frontend(error)) => assert!(error.to_string().contains(part), "{target}: {error}"),
            other => panic!("{target}: {:?}", other.map(drop)),
        }
    }
    let _vbd = host.attach(1, "xvdb", &disk.display().to_string()).unwrap();
    let output = host.frontend(1, "xvdb", &["request", "read"]).unwrap().output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn a_disk_whose_data_carries_another_application_tag_is_refused_with_the_command_to_run_and_then_served() {
    let host = host();
    let disk = host.dir().join("disk.img");
    std::fs::write(&disk, vec![7; 1 << 20]).unwrap();
    let image = |arguments: &[&str]| {
        let made =
            Command::new(PROGRAM).args(["image", "protect"]).args(arguments).arg(&disk).output().unwrap();
        assert!(made.status.success(), "{made:?}");
    };
    image(&[]);
    let target = format!("{}?app-tag=0x1200/0xff00", disk.display());
    let refused = host.attach(1, "xvda", &target).map(drop).unwrap_err().to_string();
    assert!(refused.contains("interval 0 ") && refused.contains("--app-tag 0x1200"), "{refused}");
    image(&["--force", "--app-tag", "0x12aa"]);
    let _vbd = host.attach(1, "xvdb", &target).unwrap();
    let read = host.frontend(1, "xvdb", &["--dix", "require", "request", "read"]).unwrap().output().unwrap();
    assert!(read.status.success(), "{}\n{}", text(&read), host.log());
}

#[test]
fn a_demo_that_fails_leaves_no_disk_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (image, disk) = (dir.path().join("empty"), dir.path().join("disk.img"));
    std::fs::write(&image, []).unwrap();
    let demo = Command::new(PROGRAM).arg("demo").arg("--image").arg(&image).arg("--out").arg(&disk).output();
    assert_eq!(demo.unwrap().status.code(), Some(1));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "only the image is there");
}
