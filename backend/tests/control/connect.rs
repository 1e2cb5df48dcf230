//! Connections: made, used, ended and made again; and what is left when an end goes away.

use crate::support::*;
use blkif::XenbusState;
use dixback::config::DaemonConfig;
use frontend_sim::{ConnectOptions, DixMode, toolstack};
use hypervisor::DomId;
use std::time::Duration;

#[test]
fn frontend_when_it_comes_and_goes_then_each_connection_is_served() {
    let machine = Machine::new();
    let _daemon = machine.daemon();
    for target in [PLAIN, WITH_PI] {
        let vbd = machine.attach(1, "xvda", target);
        for _ in 0..3 {
            let mut frontend = machine.connect(&vbd, 1);
            exercise(&mut frontend);
            frontend.disconnect().unwrap();
            machine.wait_state(&vbd, XenbusState::Closed);
            assert_eq!(machine.usage(1).mapped, 0);
        }
        vbd.detach(PATIENCE).unwrap();
    }
}

#[test]
fn frontend_when_it_wants_queues_and_large_rings_then_has_them() {
    let machine = Machine::new();
    let _daemon = machine.daemon();
    let vbd = machine.attach(1, "xvda", WITH_PI);
    for (queues, ring_order, segments) in [(1, 0, 11), (4, 4, 256), (2, 1, 32)] {
        let options = ConnectOptions { queues, ring_order, segments, dix: DixMode::Require, ..options() };
        let mut frontend = machine.guest(1).connect(&vbd, options);
        assert_eq!(frontend.queues_mut().len(), queues as usize);
        exercise(&mut frontend);
        frontend.disconnect().unwrap();
    }
}

#[test]
fn properties_when_connected_then_say_what_the_disk_is() {
    let machine = Machine::new();
    let _daemon = machine.daemon();
    let vbd = machine.attach(1, "xvda", "null:1G:crc16-t10dif:4096");
    let frontend = machine.connect(&vbd, 1);
    let read = |node: &str| machine.read(&format!("{}/{node}", vbd.backend()));
    for (node, value) in [
        ("sectors", "2097152"),
        ("sector-size", "4096"),
        ("info", "0"),
        ("feature-flush-cache", "1"),
        ("feature-barrier", "1"),
        ("feature-persistent", "0"),
    ] {
        assert_eq!(read(node).as_deref(), Some(value), "{node}");
    }
    frontend.disconnect().unwrap();
    let mut disk = machine.disk(1, "xvdb", PLAIN);
    disk.writable = false;
    let vbd = toolstack::attach(&machine.client, &disk, PATIENCE).unwrap();
    let _frontend = machine.connect(&vbd, 1);
    assert_eq!(machine.read(&format!("{}/info", vbd.backend())).as_deref(), Some("4"));
    assert_eq!(machine.read(&format!("{}/feature-discard", vbd.backend())).as_deref(), Some("0"));
}

#[test]
fn disk_when_detached_while_connected_then_the_frontend_closes_it() {
    let machine = Machine::new();
    let _daemon = machine.daemon();
    let vbd = machine.attach(1, "xvda", PLAIN);
    let mut frontend = machine.connect(&vbd, 1);
    exercise(&mut frontend);
    vbd.detach(PATIENCE).unwrap();
    wait("the frontend to notice", || frontend.is_closed());
    assert_eq!(machine.usage(1).mapped, 0);
}

#[test]
fn disk_when_detached_from_a_frontend_that_does_not_answer_then_is_let_go_after_a_while() {
    let machine = Machine::new();
    let grace = Duration::from_millis(20);
    let _daemon = machine.daemon_with(DaemonConfig { detach_grace: grace, ..machine.config() });
    let vbd = machine.attach(1, "xvda", PLAIN);
    let guest = machine.guest(1);
    let (_rings, nodes) = guest.rings(1);
    let device = guest.device(&vbd);
    device.publish(&nodes).unwrap();
    device.set_state(XenbusState::Connected).unwrap();
    machine.wait_state(&vbd, XenbusState::Connected);
    assert!(machine.usage(1).mapped > 0);
    vbd.detach(PATIENCE).unwrap();
    assert_eq!(machine.usage(1).mapped, 0);
}

#[test]
fn disk_when_in_use_by_a_frontend_that_says_closing_then_is_served_until_it_is_closed() {
    let machine = Machine::new();
    let grace = Duration::from_millis(1);
    let _daemon = machine.daemon_with(DaemonConfig { detach_grace: grace, ..machine.config() });
    let vbd = machine.attach(1, "xvda", PLAIN);
    let guest = machine.guest(1);
    let (_rings, nodes) = guest.rings(1);
    let device = guest.device(&vbd);
    device.publish(&nodes).unwrap();
    device.set_state(XenbusState::Connected).unwrap();
    machine.wait_state(&vbd, XenbusState::Connected);
    device.set_state(XenbusState::Closing).unwrap();
    machine.wait_state(&vbd, XenbusState::Closing);
    machine.client.write(&format!("{}/online", vbd.backend()), "0").unwrap();
    // Another disk comes and goes: the daemon has looked at this one since.
    machine.attach(1, "xvdb", PLAIN).detach(PATIENCE).unwrap();
    assert_eq!(machine.usage(1).mapped, 1);
    device.set_state(XenbusState::Closed).unwrap();
    machine.wait_state(&vbd, XenbusState::Closed);
    assert_eq!(machine.usage(1).mapped, 0);
}

#[test]
fn domain_when_destroyed_then_no_thread_descriptor_or_mapping_is_left() {
    let machine = Machine::new();
    let process = Process::start(&machine, &["--queues", "4"]);
    let count = |what: &str| std::fs::read_dir(format!("/proc/{}/{what}", process.pid())).unwrap().count();
    // The first connection makes what stays for good, such as the way to a guest's memory.
    let connect = |domain: u16| {
        let vbd = machine.attach(domain, "xvda", WITH_PI);
        let mut frontend = machine.guest(domain).connect(&vbd, ConnectOptions { queues: 4, ..options() });
        exercise(&mut frontend);
        (vbd, frontend)
    };
    let (vbd, frontend) = connect(1);
    frontend.disconnect().unwrap();
    vbd.detach(PATIENCE).unwrap();
    wait("the first disk to be gone", || process.text().matches(": gone").count() == 1);
    let helps = |task: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(task.unwrap().path().join("comm")).is_ok_and(|name| name.starts_with("d1-"))
    };
    let tasks = || std::fs::read_dir(format!("/proc/{}/task", process.pid())).unwrap();
    wait("its last helper to end", || !tasks().any(helps));
    let idle = (count("task"), count("fd"));
    for round in 2..5 {
        let (vbd, frontend) = connect(round);
        assert!(count("task") >= idle.0 + 4);
        // The guest dies with its requests; only then do its nodes go.
        std::mem::forget(frontend);
        toolstack::destroy_domain(&machine.client, DomId(round)).unwrap();
        vbd.remove().unwrap();
        wait("the disk to be gone", || process.text().matches(": gone").count() == usize::from(round));
        wait("its threads to end", || count("task") <= idle.0);
        assert!(count("fd") <= idle.1, "{} descriptors, {} before", count("fd"), idle.1);
        assert_eq!(machine.usage(round).mapped, 0);
        assert_eq!(machine.usage(round).bound, 0);
    }
}

#[test]
fn connections_when_beyond_the_daemons_limits_then_are_refused_and_others_are_not_touched() {
    let machine = Machine::new();
    let _daemon = machine.daemon_with(DaemonConfig { threads: 3, ..machine.config() });
    let first = machine.attach(1, "xvda", PLAIN);
    let mut frontend = machine.guest(1).connect(&first, ConnectOptions { queues: 2, ..options() });
    let second = machine.attach(2, "xvda", PLAIN);
    let refused = machine.guest(2).try_connect(&second, ConnectOptions { queues: 2, ..options() });
    assert!(matches!(refused, Err(frontend_sim::Error::Backend { .. })));
    let text = machine.error(&second).unwrap();
    assert!(text.contains("threads"), "{text}");
    exercise(&mut frontend);
    machine.wait_state(&second, XenbusState::Closed);
    // What fits is served, and what was given back can be had again.
    exercise(&mut machine.guest(2).connect(&second, options()));
    frontend.disconnect().unwrap();
    exercise(&mut machine.guest(2).connect(&second, ConnectOptions { queues: 2, ..options() }));
}

#[test]
fn frontend_when_it_lacks_dix_and_it_is_required_then_is_refused_with_the_reason() {
    let machine = Machine::new();
    let _daemon = machine.daemon();
    let vbd = machine.attach(1, "xvda", &format!("{WITH_PI}?integrity=require"));
    let refused = machine.guest(1).try_connect(&vbd, ConnectOptions { dix: DixMode::Off, ..options() });
    assert!(matches!(refused, Err(frontend_sim::Error::Backend { .. })));
    let text = machine.error(&vbd).unwrap();
    assert!(text.contains("does not speak DIX"), "{text}");
    let mut frontend = machine.connect(&vbd, 1);
    exercise(&mut frontend);
    assert_eq!(machine.error(&vbd), None, "an error outlives its cause");
}
