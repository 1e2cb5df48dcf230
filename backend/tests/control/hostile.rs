//! What a guest can write into its own directory, and in what order.

use crate::support::*;
use blkif::XenbusState;
use frontend_sim::toolstack::Vbd;
use hypervisor::{DomId, Frontend as _};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use xenstore::Client;

/// A disk of its own guest that does I/O while another guest misbehaves.
struct Bystander {
    frontend: frontend_sim::Frontend,
}

impl Bystander {
    fn new(machine: &Machine) -> Self {
        let vbd = machine.attach(9, "xvda", WITH_PI);
        Self { frontend: machine.connect(&vbd, 9) }
    }

    fn check(&mut self) {
        exercise(&mut self.frontend);
        assert_eq!(self.frontend.reconnections(), 0);
    }
}

/// A guest that writes nodes one by one.
struct Writer {
    client: Client,
    frontend: String,
}

impl Writer {
    fn new(guest: &Guest, vbd: &Vbd) -> Self {
        Self { client: guest.client(), frontend: vbd.frontend().to_owned() }
    }

    fn put(&self, node: &str, value: impl AsRef<[u8]>) {
        self.client.write(&format!("{}/{node}", self.frontend), value).unwrap();
    }

    fn clear(&self) {
        for node in self.client.directory(&self.frontend).unwrap() {
            let kept = ["backend", "backend-id", "state", "virtual-device", "device-type", "trusted"];
            if !kept.contains(&node.as_str()) {
                self.client.remove(&format!("{}/{node}", self.frontend)).unwrap();
            }
        }
    }
}

/// Brings a device that was refused back to where its backend offers it.
fn rewind(machine: &Machine, vbd: &Vbd, writer: &Writer) {
    writer.put("state", "6");
    machine.wait_state(vbd, XenbusState::Closed);
    writer.clear();
    writer.put("state", "1");
    machine.wait_state(vbd, XenbusState::InitWait);
}

#[test]
fn nodes_when_malformed_then_each_is_refused_with_a_reason_while_another_disk_works() {
    let machine = Machine::new();
    let _daemon = machine.daemon();
    let mut bystander = Bystander::new(&machine);
    let vbd = machine.attach(1, "xvda", PLAIN);
    let guest = machine.guest(1);
    let writer = Writer::new(&guest, &vbd);
    let (rings, _) = guest.rings(2);
    let (one, two) = (rings[0].nodes(), rings[1].nodes());
    let gref = |ring: &blkif::RingNodes| ring.refs[0].0.to_string();
    let other = machine.guest(2);
    let stranger = other.hypervisor.allocate(DomId(0)).unwrap();
    let foreign = guest.hypervisor.allocate(DomId(9)).unwrap();
    let good: &[(&str, String)] = &[
        ("protocol", "x86_64-abi".into()),
        ("ring-ref", gref(&one)),
        ("event-channel", one.port.to_string()),
    ];
    let huge = "9".repeat(2000);
    let cases: Vec<(&str, &str, String)> = vec![
        ("ring-page-order", "ring-page-order", "-1".into()),
        ("ring-page-order", "ring-page-order", "5".into()),
        ("ring-page-order", "ring-page-order", "31".into()),
        ("ring-page-order", "ring-page-order", huge.clone()),
        ("ring-ref1", "ring-page-order", "1".into()),
        ("ring-ref", "ring-ref", "".into()),
        ("ring-ref", "ring-ref", "0x8".into()),
        ("ring-ref", "ring-ref", "4294967296".into()),
        ("ring-ref", "ring-ref", "abc".into()),
        ("grant", "ring-ref", "4294967295".into()),
        ("grant", "ring-ref", "60000".into()),
        ("event-channel", "event-channel", "0".into()),
        ("event-channel", "event-channel", "-3".into()),
        ("event-channel", "event-channel", huge.clone()),
        ("port", "event-channel", "4000000000".into()),
        ("port", "event-channel", foreign.port().to_string()),
        ("multi-queue-num-queues", "multi-queue-num-queues", "0".into()),
        ("multi-queue-num-queues", "multi-queue-num-queues", "5".into()),
        ("multi-queue-num-queues", "multi-queue-num-queues", huge.clone()),
        ("queue-0/", "multi-queue-num-queues", "2".into()),
        ("protocol", "protocol", "vax-abi".into()),
        ("protocol", "protocol", huge),
        ("feature-persistent", "feature-persistent", "maybe".into()),
        ("feature-large-sector-size", "feature-large-sector-size", "2".into()),
    ];
    for (expected, node, value) in cases {
        for (node, value) in good {
            writer.put(node, value);
        }
        if expected == "ring-ref1" {
            writer.put("ring-ref0", gref(&one));
        }
        writer.put(node, &value);
        writer.put("state", "3");
        machine.wait_state(&vbd, XenbusState::Closing);
        let reason = machine.error(&vbd).unwrap();
        assert!(reason.contains(expected), "{node}={value:.20}: {reason}");
        assert!(reason.len() < 1100);
        bystander.check();
        rewind(&machine, &vbd, &writer);
    }
    // The same page and channel twice, and another guest's channel.
    for (first, second) in [((&one, &one), "repeats"), ((&one, &two), "port")] {
        let (a, b) = first;
        writer.put("multi-queue-num-queues", "2");
        for (queue, ring) in [("queue-0", a), ("queue-1", b)] {
            writer.put(&format!("{queue}/ring-ref"), gref(ring));
            writer.put(&format!("{queue}/event-channel"), ring.port.to_string());
        }
        if second == "port" {
            writer.put("queue-1/event-channel", (stranger.port().0 + 1000).to_string());
        }
        writer.put("state", "3");
        machine.wait_state(&vbd, XenbusState::Closing);
        let reason = machine.error(&vbd).unwrap();
        assert!(reason.contains(second), "{reason}");
        bystander.check();
        rewind(&machine, &vbd, &writer);
    }
    assert_eq!(machine.usage(1).mapped, 0, "a refused connection left something mapped");
    drop(guest);
    exercise(&mut machine.connect(&vbd, 1));
}

#[test]
fn nodes_when_arbitrary_then_end_in_a_refusal_with_a_reason() {
    let machine = Machine::new();
    let _daemon = machine.daemon();
    let mut bystander = Bystander::new(&machine);
    let vbd = machine.attach(1, "xvda", WITH_PI);
    let writer = Writer::new(&machine.guest(1), &vbd);
    let names = [
        "protocol",
        "ring-ref",
        "ring-ref0",
        "ring-page-order",
        "event-channel",
        "multi-queue-num-queues",
        "queue-0/ring-ref",
        "queue-0/event-channel",
        "feature-persistent",
        "feature-data-integrity",
        "data-integrity-version",
        "feature-large-sector-size",
    ];
    let number = (0u32..70_000).prop_map(|n| n.to_string().into_bytes());
    let bytes = proptest::collection::vec(any::<u8>(), 0..64);
    let value = prop_oneof![3 => number, 1 => (0u32..5).prop_map(|n| n.to_string().into_bytes()), 1 => bytes];
    let some = proptest::collection::vec(proptest::option::of(value), names.len());
    let mut runner = TestRunner::new(Config { cases: 64, failure_persistence: None, ..Config::default() });
    runner
        .run(&some, |values| {
            for (node, value) in names.iter().zip(values) {
                if let Some(value) = value {
                    writer.put(node, value);
                }
            }
            writer.put("state", "3");
            machine.wait_state(&vbd, XenbusState::Closing);
            // No page is granted and no channel allocated, so whatever is asked for, it cannot be had.
            prop_assert!(machine.error(&vbd).is_some_and(|reason| !reason.is_empty()));
            rewind(&machine, &vbd, &writer);
            Ok(())
        })
        .unwrap();
    bystander.check();
    assert_eq!(machine.usage(1).mapped, 0);
}

#[test]
fn large_sector_size_when_claimed_for_large_sectors_then_is_refused() {
    let machine = Machine::new();
    let _daemon = machine.daemon();
    let vbd = machine.attach(1, "xvda", "null:1G:crc16-t10dif:4096");
    let guest = machine.guest(1);
    let (_rings, mut nodes) = guest.rings(1);
    nodes.large_sector = true;
    let device = guest.device(&vbd);
    device.publish(&nodes).unwrap();
    device.set_state(XenbusState::Initialised).unwrap();
    machine.wait_state(&vbd, XenbusState::Closing);
    assert!(machine.error(&vbd).unwrap().contains("feature-large-sector-size"));
}

#[test]
fn nodes_when_changed_after_connected_then_are_ignored() {
    let machine = Machine::new();
    let _daemon = machine.daemon();
    let vbd = machine.attach(1, "xvda", PLAIN);
    let guest = machine.guest(1);
    let mut frontend = guest.connect(&vbd, options());
    let writer = Writer::new(&guest, &vbd);
    for (node, value) in
        [("ring-ref", "7"), ("event-channel", "0"), ("protocol", "x"), ("multi-queue-num-queues", "999")]
    {
        writer.put(node, value);
        writer.put("state", "3");
        writer.put("state", "4");
        exercise(&mut frontend);
    }
    assert_eq!(frontend.reconnections(), 0);
}

#[test]
fn ring_when_broken_then_the_connection_ends_with_the_reason_and_a_new_one_works() {
    let machine = Machine::new();
    let _daemon = machine.daemon();
    let mut bystander = Bystander::new(&machine);
    let vbd = machine.attach(1, "xvda", PLAIN);
    let guest = machine.guest(1);
    let (rings, nodes) = guest.rings(1);
    let device = guest.device(&vbd);
    device.publish(&nodes).unwrap();
    device.set_state(XenbusState::Connected).unwrap();
    machine.wait_state(&vbd, XenbusState::Connected);
    // req_prod, the ring's first word, far beyond what the ring holds.
    rings[0].pages.write(0, &1_000_000u32.to_le_bytes());
    rings[0].event.notify().unwrap();
    machine.wait_state(&vbd, XenbusState::Closing);
    let reason = machine.error(&vbd).unwrap();
    assert!(reason.contains("queue 0"), "{reason}");
    wait("the ring to be let go", || machine.usage(1).mapped == 0);
    bystander.check();
    device.set_state(XenbusState::Closed).unwrap();
    machine.wait_state(&vbd, XenbusState::Closed);
    drop(rings);
    exercise(&mut guest.connect(&vbd, options()));
}

#[test]
fn states_when_toggled_in_any_order_then_the_disk_can_still_be_used_and_removed() {
    let machine = Machine::new();
    let _daemon = machine.daemon();
    let bystander = std::cell::RefCell::new(Bystander::new(&machine));
    let guest = machine.guest(1);
    let state = prop_oneof![
        Just(""),
        Just("9"),
        Just("x"),
        proptest::sample::select(vec!["0", "1", "2", "3", "4", "5", "6", "7", "8"])
    ];
    let sequences = proptest::collection::vec((state, 0u8..3), 1..40);
    let mut runner = TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
    runner
        .run(&sequences, |states| {
            let vbd = machine.attach(1, "xvda", PLAIN);
            let writer = Writer::new(&guest, &vbd);
            let (_rings, nodes) = guest.rings(1);
            guest.device(&vbd).publish(&nodes).unwrap();
            for (state, pause) in states {
                writer.put("state", state);
                // Sometimes the daemon sees a state, sometimes it does not.
                std::thread::sleep(std::time::Duration::from_millis(u64::from(pause)));
            }
            writer.put("state", "6");
            machine.wait_state(&vbd, XenbusState::Closed);
            writer.clear();
            // Closed may be from before the last states, which the daemon is then still to see: it may close once
            // more under a frontend that comes at once. Such a frontend comes again.
            let connection = (0..5).find_map(|_| guest.try_connect(&vbd, options()).ok());
            exercise(&mut connection.expect("a disk that was toggled cannot be used any more"));
            vbd.detach(PATIENCE).unwrap();
            wait("everything to be let go", || machine.usage(1).mapped == 0);
            bystander.borrow_mut().check();
            Ok(())
        })
        .unwrap();
}

#[test]
fn directories_when_deleted_at_any_moment_then_everything_is_let_go() {
    let machine = Machine::new();
    let _daemon = machine.daemon();
    let mut bystander = Bystander::new(&machine);
    let guest = machine.guest(1);
    for round in 0..24u64 {
        let vbd = machine.attach(1, "xvda", PLAIN);
        let (_rings, nodes) = guest.rings(1);
        let device = guest.device(&vbd);
        device.publish(&nodes).unwrap();
        device.set_state(XenbusState::Initialised).unwrap();
        std::thread::sleep(std::time::Duration::from_micros(round * 200));
        match round % 3 {
            0 => machine.client.remove(vbd.frontend()).unwrap(),
            1 => machine.client.remove(vbd.backend()).unwrap(),
            _ => {}
        }
        vbd.remove().unwrap();
        wait("the ring to be let go", || machine.usage(1).mapped == 0);
        assert_eq!(machine.read(vbd.backend()), None, "the daemon made a removed directory again");
    }
    bystander.check();
}

#[test]
fn guest_when_it_floods_its_directory_then_others_are_served() {
    let machine = Machine::new();
    let _daemon = machine.daemon();
    let mut bystander = Bystander::new(&machine);
    let vbd = machine.attach(1, "xvda", PLAIN);
    let guest = machine.guest(1);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let writer = Writer::new(&guest, &vbd);
            let mut written = 0u64;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                // Below the watched node, under ever new names: no two events are equal.
                let node = format!("state/{written}");
                writer.put(&node, "");
                writer.client.remove(&format!("{}/{node}", writer.frontend)).unwrap();
                writer.put("state", ["1", "3", "6", "4"][(written % 4) as usize]);
                written += 1;
            }
            written
        });
        for _ in 0..20 {
            bystander.check();
            machine.attach(2, "xvdb", PLAIN).detach(PATIENCE).unwrap();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(flood.join().unwrap() > 0);
    });
    vbd.remove().unwrap();
    wait("everything to be let go", || machine.usage(1).mapped == 0);
}
