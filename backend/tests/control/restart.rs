//! The daemon stopped, killed and started again under connected frontends.

use crate::support::*;
use blkif::XenbusState;
use frontend_sim::toolstack::Vbd;
use frontend_sim::{ConnectOptions, Frontend};
use rustix::process::Signal;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Blocks of a test's disk that a frontend writes over and over, each with its own number and the round's.
const BLOCKS: u64 = 64;
const BLOCK: usize = 8192;

/// Writes and reads back until told to stop; how many rounds it made.
fn work(frontend: &mut Frontend, stop: &AtomicBool, rounds: &AtomicU64) {
    let mut round = 0u64;
    while !stop.load(Ordering::Relaxed) {
        for block in 0..BLOCKS {
            let data = pattern(block, round);
            let queues = frontend.queues_mut().len() as u64;
            let queue = frontend.queue((block % queues) as usize);
            queue.write_at(block * BLOCK as u64, &data).unwrap();
            let mut back = vec![0; BLOCK];
            queue.read_at(block * BLOCK as u64, &mut back).unwrap();
            assert!(back == data, "block {block} of round {round}");
        }
        round += 1;
        rounds.store(round, Ordering::Relaxed);
    }
}

fn pattern(block: u64, round: u64) -> Vec<u8> {
    (0..BLOCK as u64).map(|i| (i.wrapping_mul(31) ^ block.wrapping_mul(7) ^ round) as u8).collect()
}

/// A disk in a file, which keeps what is written.
fn file_disk(machine: &Machine) -> Vbd {
    let path = machine.dir.path().join("disk.img");
    std::fs::write(&path, vec![0; BLOCK * BLOCKS as usize]).unwrap();
    machine.attach(1, "xvda", &format!("{}?direct=off", path.display()))
}

fn progress(rounds: &AtomicU64) {
    let before = rounds.load(Ordering::Relaxed);
    wait("I/O to go on", || rounds.load(Ordering::Relaxed) > before + 1);
}

#[test]
fn daemon_when_stopped_and_started_then_the_guest_sees_a_pause() {
    let machine = Machine::new();
    let mut process = Process::start(&machine, &["--queues", "2"]);
    let vbd = file_disk(&machine);
    let options = ConnectOptions { queues: 2, depth: 8, ..options() };
    let mut frontend = machine.guest(1).connect(&vbd, options);
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| work(&mut frontend, &stop, &rounds));
        // Settings of the second run are others: what the frontend was offered stays.
        for arguments in [&["--queues", "2"], &["--queues", "1"], &["--threads", "1"]] {
            progress(&rounds);
            let status = process.end(Signal::TERM);
            assert!(status.success(), "{status}");
            assert_eq!(vbd.backend_state().unwrap(), XenbusState::Connected);
            assert_eq!(records(&machine), 1);
            process = Process::start(&machine, arguments);
        }
        progress(&rounds);
        assert_eq!(records(&machine), 0, "a record that is used is of what was");
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(frontend.reconnections(), 0);
    assert_eq!(vbd.backend_state().unwrap(), XenbusState::Connected);
    frontend.disconnect().unwrap();
    vbd.detach(PATIENCE).unwrap();
}

fn records(machine: &Machine) -> usize {
    let entries = std::fs::read_dir(machine.config().run_dir).unwrap();
    entries
        .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|ext| ext == "toml"))
        .count()
}

#[test]
fn daemon_when_killed_and_started_then_the_frontend_is_told_and_connects_anew() {
    let machine = Machine::new();
    let mut process = Process::start(&machine, &[]);
    let vbd = file_disk(&machine);
    // The frontend waits this long for responses that will not come before it closes.
    let options = ConnectOptions { patience: Duration::from_secs(2), ..options() };
    let mut frontend = machine.guest(1).connect(&vbd, options);
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| work(&mut frontend, &stop, &rounds));
        progress(&rounds);
        process.end(Signal::KILL);
        process = Process::start(&machine, &[]);
        progress(&rounds);
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(frontend.reconnections(), 1);
    assert!(process.text().contains("not ended cleanly"), "{}", process.text());
}

#[test]
fn record_when_a_node_changed_meanwhile_then_the_connection_is_closed_with_the_reason() {
    let machine = Machine::new();
    for (node, value, expected) in [
        ("backend/vbd3/1/51712/params", "null:2G", "another disk or another guest"),
        ("backend/vbd3/1/51712/max-ring-page-order", "1", "max-ring-page-order is no longer 4"),
        ("backend/vbd3/1/51712/sectors", "9", "sectors is no longer"),
    ] {
        let daemon = machine.daemon();
        let vbd = machine.attach(1, "xvda", PLAIN);
        let frontend = machine.guest(1).connect(&vbd, ConnectOptions { reconnect: false, ..options() });
        daemon.stop();
        machine.client.write(&format!("/local/domain/0/{node}"), value).unwrap();
        let daemon = machine.daemon();
        machine.wait_state(&vbd, XenbusState::Closed);
        let reason = machine.error(&vbd).unwrap();
        assert!(reason.contains(expected), "{reason}");
        assert_eq!((records(&machine), machine.usage(1).mapped), (0, 0));
        drop(frontend);
        vbd.detach(PATIENCE).unwrap();
        daemon.stop();
    }
}

#[test]
fn record_when_the_frontend_made_other_rings_meanwhile_then_they_are_not_served() {
    let machine = Machine::new();
    let daemon = machine.daemon();
    let vbd = machine.attach(1, "xvda", PLAIN);
    let guest = machine.guest(1);
    let (_rings, nodes) = guest.rings(1);
    let device = guest.device(&vbd);
    device.publish(&nodes).unwrap();
    device.set_state(XenbusState::Connected).unwrap();
    machine.wait_state(&vbd, XenbusState::Connected);
    daemon.stop();
    let (_others, nodes) = guest.rings(1);
    device.publish(&nodes).unwrap();
    let _daemon = machine.daemon();
    machine.wait_state(&vbd, XenbusState::Closing);
    assert!(machine.error(&vbd).unwrap().contains("rings are others"));
    assert_eq!(machine.usage(1).mapped, 0);
}

#[test]
fn record_when_the_disk_is_away_then_the_guest_waits_until_it_is_back() {
    let machine = Machine::new();
    let daemon = machine.daemon();
    let vbd = file_disk(&machine);
    let mut frontend = machine.guest(1).connect(&vbd, options());
    let data = pattern(3, 3);
    frontend.queue(0).write_at(0, &data).unwrap();
    daemon.stop();
    let (here, away) = (machine.dir.path().join("disk.img"), machine.dir.path().join("away.img"));
    std::fs::rename(&here, &away).unwrap();
    let _daemon = machine.daemon();
    // A later disk is served meanwhile.
    exercise(&mut machine.connect(&machine.attach(2, "xvda", PLAIN), 2));
    assert_eq!(vbd.backend_state().unwrap(), XenbusState::Connected);
    assert_eq!(records(&machine), 1);
    std::fs::rename(&away, &here).unwrap();
    let mut back = vec![0; BLOCK];
    frontend.queue(0).read_at(0, &mut back).unwrap();
    assert!(back == data);
    assert_eq!(frontend.reconnections(), 0);
}

#[test]
fn record_when_its_disk_is_gone_at_start_then_is_deleted() {
    let machine = Machine::new();
    let daemon = machine.daemon();
    let vbd = machine.attach(1, "xvda", PLAIN);
    let frontend = machine.guest(1).connect(&vbd, ConnectOptions { reconnect: false, ..options() });
    daemon.stop();
    assert_eq!(records(&machine), 1);
    drop(frontend);
    vbd.remove().unwrap();
    let _daemon = machine.daemon();
    assert_eq!(records(&machine), 0);
}

#[test]
fn record_when_its_disk_was_made_anew_meanwhile_then_does_not_outlive_the_new_connection() {
    let machine = Machine::new();
    let daemon = machine.daemon();
    let vbd = machine.attach(1, "xvda", PLAIN);
    let frontend = machine.guest(1).connect(&vbd, ConnectOptions { reconnect: false, ..options() });
    daemon.stop();
    assert_eq!(records(&machine), 1);
    drop(frontend);
    vbd.remove().unwrap();
    // The same place, the same guest: after a kill of the next run it would pass for that one's.
    let vbd = machine.create(1, "xvda", PLAIN);
    let _daemon = machine.daemon();
    exercise(&mut machine.connect(&vbd, 1));
    assert_eq!(records(&machine), 0);
}

#[test]
fn frontend_when_it_chose_before_the_daemon_restarted_then_the_offer_is_not_changed_under_it() {
    let machine = Machine::new();
    for (queues, state) in [(4, XenbusState::Connected), (1, XenbusState::Closing)] {
        let daemon = machine.daemon();
        let vbd = machine.attach(1, "xvda", PLAIN);
        daemon.stop();
        let guest = machine.guest(1);
        let (_rings, nodes) = guest.rings(2);
        let device = guest.device(&vbd);
        device.publish(&nodes).unwrap();
        device.set_state(XenbusState::Initialised).unwrap();
        let daemon = machine.daemon_with(dixback::config::DaemonConfig { queues, ..machine.config() });
        machine.wait_state(&vbd, state);
        device.set_state(XenbusState::Closed).unwrap();
        vbd.detach(PATIENCE).unwrap();
        daemon.stop();
    }
}

#[test]
fn daemon_when_nobody_reads_its_output_then_serves_all_the_same() {
    let machine = Machine::new();
    let config = machine.config();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_dixback"))
        .args(["run", "--hypervisor", &config.hypervisor])
        .arg("--xenstore")
        .arg(&config.xenstore)
        .arg("--run-dir")
        .arg(&config.run_dir)
        .stdout(writer)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let vbd = machine.create(1, "xvda", PLAIN);
    wait("the disk to be offered, or the daemon to end", || {
        child.try_wait().unwrap().is_some() || vbd.backend_state().unwrap() == XenbusState::InitWait
    });
    assert_eq!(child.try_wait().unwrap(), None, "it ended");
    exercise(&mut machine.connect(&vbd, 1));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn daemon_when_started_wrongly_then_says_so_and_exits_with_the_right_status() {
    let machine = Machine::new();
    let log = machine.dir.path().join("wrong.log");
    let end = |arguments: &[&str]| Process::spawn(&machine, &log, arguments).wait().unwrap().code();
    assert_eq!(end(&["--pool", "none"]), Some(2));
    assert_eq!(end(&["--kind", "a/b"]), Some(2));
    let missing = Process::spawn_with(&log, &["--config", "/nowhere.toml"]).wait().unwrap();
    assert_eq!(missing.code(), Some(2));
    assert_eq!(end(&["--hypervisor", "vmware"]), Some(1));
    assert_eq!(end(&["--xenstore", "/nowhere/socket"]), Some(1));
    let _daemon = machine.daemon();
    assert_eq!(end(&[]), Some(1), "a second daemon");
    let text = std::fs::read_to_string(log).unwrap();
    for expected in
        ["a size such as", "\"kinds\"", "/nowhere.toml", "vmware", "/nowhere/socket", "is in use by"]
    {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}
