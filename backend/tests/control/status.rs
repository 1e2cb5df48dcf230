//! What the daemon tells of itself, disks that grow, and guests that are gone without their nodes.

use crate::support::*;
use blkif::XenbusState;
use dixback::control::status::{Answer, DiskReport, PiMode, Report, Request, ask};
use frontend_sim::{ConnectOptions, DixMode};
use rustix::process::Signal;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const PROGRAM: &str = env!("CARGO_BIN_EXE_dixback");

fn status(machine: &Machine) -> Report {
    match ask(&machine.config().run_dir, &Request::Status).unwrap() {
        Answer::Status(report) => *report,
        other => panic!("{other:?}"),
    }
}

fn disk(machine: &Machine) -> DiskReport {
    status(machine).disks.pop().unwrap()
}

fn resize(machine: &Machine, disk: &str) -> Answer {
    ask(&machine.config().run_dir, &Request::Resize { disk: disk.to_owned() }).unwrap()
}

fn run(machine: &Machine, arguments: &[&str]) -> Output {
    let (first, rest) = arguments.split_first().unwrap();
    Command::new(PROGRAM)
        .arg(first)
        .arg("--run-dir")
        .arg(machine.config().run_dir)
        .args(rest)
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A disk of `bytes` in a file, with a sidecar.
fn protected(machine: &Machine, bytes: u64) -> PathBuf {
    let path = machine.dir.path().join("disk.img");
    std::fs::File::create(&path).unwrap().set_len(bytes).unwrap();
    let made = Command::new(PROGRAM).args(["image", "protect"]).arg(&path).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    path
}

fn set_len(path: &Path, bytes: u64) {
    std::fs::File::options().write(true).open(path).unwrap().set_len(bytes).unwrap();
}

#[test]
fn disk_when_it_connects_works_and_leaves_then_the_daemon_tells_each_and_counts_on() {
    let machine = Machine::new();
    let _daemon = machine.daemon();
    let report = status(&machine);
    assert_eq!((report.disks.len(), report.pid, report.domain), (0, std::process::id(), 0));
    let vbd = machine.attach(1, "xvda", WITH_PI);
    let found = disk(&machine);
    assert_eq!((found.state.as_str(), found.bytes, found.connections), ("waiting", Some(1 << 30), 0));
    assert_eq!((found.guest.as_deref(), found.vdev.as_deref()), (Some("guest1"), Some("xvda")));
    let pi = found.pi.unwrap();
    assert_eq!((pi.guard.as_str(), pi.interval, pi.integrity.as_str()), ("crc16-t10dif", 512, "auto"));
    for (round, (dix, mode)) in
        [(DixMode::Require, PiMode::EndToEnd), (DixMode::Off, PiMode::Made)].into_iter().enumerate()
    {
        let options = ConnectOptions { queues: 2, ring_order: 1, dix, ..options() };
        let mut frontend = machine.guest(1).connect(&vbd, options);
        exercise(&mut frontend);
        let now = disk(&machine);
        let connection = now.connection.unwrap();
        assert_eq!((now.state.as_str(), connection.pi), ("connected", mode));
        assert_eq!(connection.queues.len(), 2);
        for queue in &connection.queues {
            assert_eq!(queue.ring_pages, 2);
            assert_eq!((queue.counters.reads, queue.counters.writes, queue.counters.flushes), (1, 1, 1));
            assert!(queue.counters.copy_calls >= 2 && queue.counters.notifications >= 1, "{queue:?}");
        }
        let done = 2 * (round as u64 + 1);
        assert_eq!((now.totals.reads, now.connections), (done, round as u64 + 1));
        assert_eq!(status(&machine).threads.used, 2);
        assert!(status(&machine).buffers.used > 8 << 20, "PI is counted");
        frontend.disconnect().unwrap();
        machine.wait_state(&vbd, XenbusState::Closed);
        let after = disk(&machine);
        assert!(after.connection.is_none());
        assert_eq!((after.state.as_str(), after.totals.writes), ("closed", done));
    }
    vbd.detach(PATIENCE).unwrap();
}

#[test]
fn disk_when_unusable_or_refused_then_the_reason_is_told_where_the_error_node_has_it() {
    let machine = Machine::new();
    let _daemon = machine.daemon();
    let vbd = machine.create(1, "xvda", "/no/such/disk");
    vbd.wait_offered(PATIENCE).unwrap_err();
    let found = disk(&machine);
    assert_eq!(found.state, "unusable");
    let reason = found.reason.unwrap();
    assert!(reason.ends_with(&machine.error(&vbd).unwrap()), "{reason}");
    vbd.remove().unwrap();
    wait("the disk to go", || status(&machine).disks.is_empty());

    let vbd = machine.attach(1, "xvda", &format!("{WITH_PI}?integrity=require"));
    let guest = machine.guest(1);
    guest.try_connect(&vbd, ConnectOptions { dix: DixMode::Off, ..options() }).map(drop).unwrap_err();
    let reason = disk(&machine).reason.unwrap();
    assert!(reason.contains("refused") && reason.ends_with(&machine.error(&vbd).unwrap()), "{reason}");
    let _frontend = machine.connect(&vbd, 1);
    assert_eq!(disk(&machine).reason, None, "a reason outlives its cause");
}

#[test]
fn clients_when_they_hang_on_the_socket_then_disks_are_served_and_others_answered() {
    let machine = Machine::new();
    let _daemon = machine.daemon();
    let path = machine.config().run_dir.join("socket");
    let mut clients: Vec<_> = (0..12).map(|_| UnixStream::connect(&path).unwrap()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.write_all(&b"{\"command\":\"status\"}\n"[..number]).unwrap();
    }
    let vbd = machine.attach(1, "xvda", PLAIN);
    exercise(&mut machine.connect(&vbd, 1));
    assert_eq!(status(&machine).disks.len(), 1);
}

#[test]
fn disk_when_it_grows_while_connected_then_the_frontend_sees_its_new_size_and_uses_it() {
    let machine = Machine::new();
    let _daemon = machine.daemon();
    let path = protected(&machine, 1 << 20);
    let vbd = machine.attach(1, "xvda", &path.display().to_string());
    let id = disk(&machine).id;
    assert!(
        matches!(resize(&machine, &id), Answer::Failed(reason) if reason.contains("no guest is connected"))
    );
    assert!(matches!(resize(&machine, "vbd3/9/9"), Answer::Failed(reason) if reason.contains("vbd3/9/9")));
    let mut frontend = machine.connect(&vbd, 1);
    let size = 1u64 << 20;
    assert_eq!(resize(&machine, &id), Answer::Resized { before: size, after: size });
    assert!(frontend.queue(0).write_at(size, &[1; 4096]).is_err());
    set_len(&path, 3 * size);
    assert_eq!(resize(&machine, &id), Answer::Resized { before: size, after: 3 * size });
    assert_eq!(machine.read(&format!("{}/sectors", vbd.backend())).as_deref(), Some("6144"));
    assert_eq!(vbd.backend_state().unwrap(), XenbusState::Connected);
    wait("the frontend to see it", || frontend.sectors() == 6144);
    frontend.queue(0).write_at(3 * size - 4096, &[7; 4096]).unwrap();
    let mut back = [0; 4096];
    frontend.queue(0).read_at(3 * size - 4096, &mut back).unwrap();
    assert_eq!(back, [7; 4096]);
    assert_eq!(disk(&machine).bytes, Some(3 * size));
    // Back to where it was: refused, and served as it is.
    set_len(&path, size);
    assert!(matches!(resize(&machine, &id), Answer::Failed(reason) if reason.contains("cannot shrink")));
    assert_eq!(machine.read(&format!("{}/sectors", vbd.backend())).as_deref(), Some("6144"));
    set_len(&path, 3 * size);
    assert_eq!(frontend.reconnections(), 0);
    frontend.disconnect().unwrap();
    vbd.detach(PATIENCE).unwrap();
    let scrubbed = Command::new(PROGRAM).args(["image", "scrub"]).arg(&path).output().unwrap();
    // What was cut off and came back as zeroes is bad, as it should be: those eight intervals were written.
    assert!(text(&scrubbed).contains("6144 intervals, 8 bad"), "{}", text(&scrubbed));
}

#[test]
fn disk_when_it_grew_and_the_daemon_gets_a_hangup_or_starts_anew_then_the_frontend_is_told() {
    let machine = Machine::new();
    let mut process = Process::start(&machine, &[]);
    let path = machine.dir.path().join("plain.img");
    std::fs::write(&path, vec![0; 1 << 20]).unwrap();
    let vbd = machine.attach(1, "xvda", &path.display().to_string());
    let mut frontend = machine.connect(&vbd, 1);
    set_len(&path, 2 << 20);
    process.signal(Signal::HUP);
    wait("the frontend to see it", || frontend.sectors() == 4096);
    assert!(process.end(Signal::TERM).success());
    set_len(&path, 3 << 20);
    let _process = Process::start(&machine, &[]);
    wait("the frontend to see it", || frontend.sectors() == 6144);
    exercise(&mut frontend);
    assert_eq!(frontend.reconnections(), 0);
}

#[test]
fn guest_when_its_domain_is_gone_but_its_nodes_are_not_then_its_grants_and_channels_are_let_go() {
    let machine = Machine::new();
    let _daemon = machine.daemon();
    let vbd = machine.attach(1, "xvda", PLAIN);
    let other = machine.attach(2, "xvda", PLAIN);
    let frontend = machine.connect(&vbd, 1);
    let mut bystander = machine.connect(&other, 2);
    std::mem::forget(frontend);
    assert!(machine.usage(1).mapped > 0);
    machine.server.as_ref().unwrap().release(1).unwrap();
    wait("its grants to be let go", || machine.usage(1).mapped == 0 && machine.usage(1).bound == 0);
    machine.wait_state(&vbd, XenbusState::Closed);
    exercise(&mut bystander);
    // The number comes again, with the old nodes.
    machine.server.as_ref().unwrap().introduce(1).unwrap();
    machine.client.write(&format!("{}/state", vbd.frontend()), "1").unwrap();
    machine.wait_state(&vbd, XenbusState::InitWait);
}

#[test]
fn commands_when_a_daemon_runs_then_show_and_resize_and_without_one_say_so_by_status_3() {
    let machine = Machine::new();
    for command in [&["list"][..], &["stat"], &["resize", "web"]] {
        let output = run(&machine, command);
        assert_eq!(output.status.code(), Some(3), "{}", text(&output));
        assert!(text(&output).contains("no daemon"), "{}", text(&output));
    }
    let _daemon = machine.daemon();
    assert!(text(&run(&machine, &["list"])).contains("no disks"));
    let path = protected(&machine, 1 << 20);
    let vbd = machine.attach(1, "xvda", &path.display().to_string());
    let mut frontend = machine.connect(&vbd, 1);
    exercise(&mut frontend);
    let listed = text(&run(&machine, &["list", "guest1"]));
    for part in
        ["guest1/xvda", "connected", "1MiB", "end to end", "crc16-t10dif", &path.display().to_string()]
    {
        assert!(listed.contains(part), "{part}: {listed}");
    }
    let json = run(&machine, &["list", "--json"]).stdout;
    assert_eq!(serde_json::from_slice::<Report>(&json).unwrap().disks.len(), 1);
    let line: serde_json::Value = serde_json::from_slice(&run(&machine, &["stat", "--json"]).stdout).unwrap();
    assert_eq!(line["disks"][0]["counters"]["reads"], 1);
    assert_eq!(line["disks"][0]["queues"][0]["dix_requests"], 2);
    let sampled = run(&machine, &["stat", "--interval", "20ms", "--count", "2", "--json", "1/xvda"]);
    let lines = String::from_utf8(sampled.stdout).unwrap();
    assert_eq!(lines.lines().count(), 2);
    let line: serde_json::Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!(line["disks"][0]["counters"]["reads"], 0, "nothing was done meanwhile");
    assert!(text(&run(&machine, &["stat", "--long"])).contains("guest1/xvda queue0.reads 1"));
    let wrong = run(&machine, &["stat", "guest7"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(text(&wrong).contains("names no disk"), "{}", text(&wrong));
    set_len(&path, 2 << 20);
    let resized = run(&machine, &["resize", "guest1"]);
    assert!(resized.status.success() && text(&resized).contains("1048576 more"), "{}", text(&resized));
    let _second = machine.attach(1, "xvdb", PLAIN);
    let unclear = run(&machine, &["resize", "guest1"]);
    assert!(text(&unclear).contains("more than one"), "{}", text(&unclear));
}

#[test]
fn daemons_when_two_would_serve_the_same_disks_then_the_second_is_refused_by_name_and_others_are_not() {
    let machine = Machine::new();
    let first = machine.daemon();
    let elsewhere = || machine.dir.path().join("run2");
    let config = || dixback::config::DaemonConfig { run_dir: elsewhere(), ..machine.config() };
    let refused = machine.try_daemon(config()).map(drop).unwrap_err().to_string();
    for part in ["vbd3", &format!("process {}", std::process::id()), "--script"] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    let other = dixback::config::DaemonConfig { script: "block-other".into(), ..config() };
    let other = machine.try_daemon(other).unwrap();
    other.stop();
    first.stop();
    machine.try_daemon(config()).unwrap().stop();
    // One that was killed is in nobody's way.
    let node = "/local/domain/0/data/dixback/vbd3/1-0";
    machine.client.write(node, "0 block-dix /run/other").unwrap();
    let _daemon = machine.daemon();
    assert_eq!(machine.read(node), None);
}

#[test]
fn log_when_at_debug_then_follows_a_connection_from_offer_to_end() {
    let machine = Machine::new();
    let process = Process::start(&machine, &["--log", "debug"]);
    let vbd = machine.attach(1, "xvda", WITH_PI);
    let mut frontend = machine.connect(&vbd, 1);
    exercise(&mut frontend);
    frontend.disconnect().unwrap();
    vbd.detach(PATIENCE).unwrap();
    wait("the disk to go", || process.text().contains(": gone"));
    let log = process.text();
    for part in [
        "offered: ",
        "feature-data-integrity=1",
        "rings: grants",
        "told: sectors=",
        ": Probe",
        ": Open",
        ": Drain",
    ] {
        let found = log.lines().any(|line| line.contains("domain 1 xvda") && line.contains(part));
        assert!(found, "{part}: {log}");
    }
}
