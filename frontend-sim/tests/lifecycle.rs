//! The states of both ends: connecting, closing, going away and coming back.

mod common;

use std::sync::atomic::Ordering::SeqCst;

use blkif::{Sectors, XenbusState, names};
use common::{GUARD, GUEST, Machine, options, pattern, profile, until, world};
use frontend_sim::toolstack::{self, DiskConfig};
use frontend_sim::{ConnectOptions, Device, DixMode, Error, Frontend, Submission};
use integrity::Guard;

fn nodes(machine: &Machine) -> Vec<(String, String)> {
    let dir = machine.vbd.frontend().to_owned();
    let mut found = Vec::new();
    let mut todo = vec![String::new()];
    while let Some(at) = todo.pop() {
        for name in machine.dom0.directory(&format!("{dir}{at}")).unwrap() {
            let path = format!("{at}/{name}");
            let value = machine.dom0.read_string(&format!("{dir}{path}")).unwrap();
            if value.is_empty() {
                todo.push(path);
            } else {
                found.push((path[1..].to_owned(), value));
            }
        }
    }
    found.sort();
    found
}

fn names_of(machine: &Machine) -> Vec<String> {
    nodes(machine).into_iter().map(|(name, _)| name).collect()
}

const TOOLSTACK: [&str; 7] =
    ["backend", "backend-id", "device-type", "protocol", "state", "trusted", "virtual-device"];

fn with(more: &[&str]) -> Vec<String> {
    let mut names: Vec<String> = TOOLSTACK.iter().chain(more).map(|name| name.to_string()).collect();
    names.sort();
    names
}

#[test]
fn nodes_when_one_page_and_one_queue_then_are_the_oldest_form() {
    let machine = Machine::new();
    let _responder = machine.respond(world(None));
    let front = machine.connect(ConnectOptions { ring_order: 0, ..options() }).unwrap();
    assert_eq!(names_of(&machine), with(&["ring-ref", "event-channel"]));
    assert_eq!(front.device().state().unwrap(), XenbusState::Connected);
    front.disconnect().unwrap();
    assert_eq!(machine.vbd.backend_state().unwrap(), XenbusState::Closed);
}

#[test]
fn nodes_when_dix_many_pages_and_queues_then_are_complete_and_replace_what_was_there() {
    let machine = Machine::new();
    let _responder = machine.respond(world(Some(profile(Guard::Crc16T10Dif, 512))));
    machine.connect(ConnectOptions { ring_order: 2, ..options() }).unwrap().disconnect().unwrap();
    let dix = ["feature-data-integrity", "data-integrity-version"];
    let pages = ["ring-page-order", "ring-ref0", "ring-ref1", "ring-ref2", "ring-ref3", "event-channel"];
    assert_eq!(names_of(&machine), with(&[&dix[..], &pages[..]].concat()));

    let options = ConnectOptions { ring_order: 1, queues: 2, dix: DixMode::Off, ..options() };
    let _front = machine.connect(options).unwrap();
    let queues = [
        "multi-queue-num-queues",
        "ring-page-order",
        "queue-0/ring-ref0",
        "queue-0/ring-ref1",
        "queue-0/event-channel",
        "queue-1/ring-ref0",
        "queue-1/ring-ref1",
        "queue-1/event-channel",
    ];
    assert_eq!(names_of(&machine), with(&queues));
}

#[test]
fn dix_when_required_and_not_offered_then_is_refused() {
    let machine = Machine::new();
    let _responder = machine.respond(world(None));
    let options = ConnectOptions { dix: DixMode::Require, ..options() };
    assert!(matches!(machine.connect(options), Err(Error::NoDix)));
}

#[test]
fn offer_when_it_makes_no_sense_then_is_refused() {
    for (node, value) in [
        (names::DATA_INTEGRITY_GUARD, "crc32"),
        (names::DATA_INTEGRITY_TYPE, "2"),
        (names::DATA_INTEGRITY_INTERVAL, "100"),
        (names::DATA_INTEGRITY_METADATA_SIZE, "7"),
        (names::MAX_RING_PAGE_ORDER, "-1"),
    ] {
        let machine = Machine::new();
        let _responder = machine.respond(world(Some(profile(Guard::Crc16T10Dif, 512))));
        until("the offer", || machine.vbd.backend_state().unwrap() == XenbusState::InitWait);
        machine.dom0.write(&format!("{}/{node}", machine.vbd.backend()), value).unwrap();
        let result = machine.connect(options());
        assert!(matches!(result, Err(Error::Negotiation(_) | Error::Profile(_))), "{node}");
    }
}

#[test]
fn backend_when_nobody_serves_then_time_out() {
    let machine = Machine::new();
    let options = ConnectOptions { patience: std::time::Duration::from_millis(50), ..options() };
    assert!(matches!(machine.connect(options), Err(Error::Timeout { .. })));
}

#[test]
fn detach_when_connected_then_both_ends_close_and_nothing_is_left() {
    let machine = Machine::new();
    let _responder = machine.respond(world(None));
    let mut front = machine.connect(options()).unwrap();
    front.queue(0).write_at(0, &pattern(100_000 / 512 * 512, 1)).unwrap();
    machine.vbd.detach(GUARD).unwrap();
    until("the frontend to close", || front.is_closed());
    assert!(matches!(front.queue(0).read_at(0, &mut [0; 512]), Err(Error::Closed)));
    drop(front);
    let left = machine.dom0.directory("/local/domain/5/device/vbd").unwrap();
    assert!(left.is_empty(), "{left:?}");
    let usage = machine.broker.usage(GUEST);
    assert_eq!((usage.granted, usage.mapped, usage.ports, usage.bound), (0, 0, 0, 0));
}

#[test]
fn backend_when_killed_and_started_again_then_what_was_in_flight_is_sent_again() {
    let machine = Machine::new();
    let world = std::sync::Arc::new(world(Some(profile(Guard::Crc16T10Dif, 512))));
    let responder = machine.respond_again(world.clone());
    let mut front = machine.connect(ConnectOptions { queues: 2, ..options() }).unwrap();
    world.behaviour.mute.store(true, SeqCst);
    let data: Vec<Vec<u8>> = (0..6).map(|n| pattern(8192, n)).collect();
    for (queue, data) in (0..).zip(&data) {
        let queue = front.queue(queue % 2);
        queue.submit(&Submission::write(queue.counters().requests * 100, data)).unwrap();
        queue.kick().unwrap();
    }
    until("requests to arrive", || world.seen.lock().unwrap().len() == 6);
    responder.kill();
    world.medium.lock().unwrap().data.fill(0);
    world.behaviour.mute.store(false, SeqCst);
    let _again = machine.respond_again(world.clone());
    for number in 0..2 {
        let queue = front.queue(number);
        let mut completed = 0;
        while let Some(done) = queue.complete().unwrap() {
            done.check().unwrap();
            completed += 1;
        }
        assert_eq!(completed, 3);
        assert_eq!(queue.counters().requeued, 3);
        for request in 0..3 {
            let mut back = vec![0; 8192];
            queue.read_at(request * 100 * 512, &mut back).unwrap();
            let last_writer = 2 * request as usize + 1;
            let first_writer = 2 * request as usize;
            assert!(back == data[first_writer] || back == data[last_writer]);
        }
    }
    assert_eq!(front.reconnections(), 1);
    assert!(front.is_connected());
    front.disconnect().unwrap();
    assert_eq!(machine.broker.usage(GUEST).mapped, 0);
}

#[test]
fn backend_when_it_comes_back_as_another_disk_then_closed() {
    let machine = Machine::new();
    let world_before = std::sync::Arc::new(world(Some(profile(Guard::Crc16T10Dif, 512))));
    let responder = machine.respond_again(world_before);
    let mut front = machine.connect(options()).unwrap();
    responder.kill();
    let _other = machine.respond(world(Some(profile(Guard::Crc64Nvme, 512))));
    until("the frontend to give up", || front.is_closed());
    assert!(matches!(front.queue(0).read_at(0, &mut [0; 512]), Err(Error::Closed)));
}

#[test]
fn backend_when_gone_and_reconnecting_is_off_then_closed() {
    let machine = Machine::new();
    let responder = machine.respond(world(None));
    let front = machine.connect(ConnectOptions { reconnect: false, ..options() }).unwrap();
    responder.kill();
    machine.dom0.write(&format!("{}/state", machine.vbd.backend()), XenbusState::Closed.name()).unwrap();
    until("the frontend to close", || {
        front.is_closed() && front.device().state().unwrap() == XenbusState::Closed
    });
}

#[test]
fn sectors_when_rewritten_with_the_state_then_the_size_follows() {
    let machine = Machine::new();
    let responder = machine.respond(world(None));
    let front = machine.connect(options()).unwrap();
    let before = front.sectors();
    responder.world.properties.lock().unwrap().sectors = Sectors(before * 2);
    machine
        .dom0
        .transaction(|tx| {
            tx.write(&format!("{}/sectors", machine.vbd.backend()), (before * 2).to_string())?;
            tx.write(&format!("{}/state", machine.vbd.backend()), "4")
        })
        .unwrap();
    until("the new size", || front.sectors() == before * 2);
    assert!(front.is_connected());
}

#[test]
fn frontend_when_dropped_then_the_backend_sees_it_closed() {
    let machine = Machine::new();
    let _responder = machine.respond(world(None));
    drop(machine.connect(options()).unwrap());
    until("the backend to close", || machine.vbd.backend_state().unwrap() == XenbusState::Closed);
    // And a later one starts over.
    let mut front = machine.connect(options()).unwrap();
    front.queue(0).read_at(0, &mut [0; 4096]).unwrap();
}

#[test]
fn disk_when_attached_to_the_backends_own_domain_then_works() {
    let machine = Machine::new();
    let zero = hypervisor::DomId(0);
    toolstack::create_domain(&machine.dom0, zero, "Domain-0").unwrap();
    let vbd = toolstack::create(&machine.dom0, &DiskConfig::new(zero, "xvda", "pygrub")).unwrap();
    let _responder = machine.respond_at(vbd.backend(), std::sync::Arc::new(world(None)));
    let own: std::sync::Arc<dyn hypervisor::Frontend> =
        std::sync::Arc::new(hypervisor::sim::connect(machine.dir.path(), zero).unwrap());
    let client = xenstore::Client::connect(machine.server.socket()).unwrap();
    let mut front = Frontend::connect(&own, &client, vbd.frontend(), options()).unwrap();
    let data = pattern(8192, 3);
    front.queue(0).write_at(4096, &data).unwrap();
    let mut back = vec![0; 8192];
    front.queue(0).read_at(4096, &mut back).unwrap();
    assert!(back == data);
    front.disconnect().unwrap();
}

#[test]
fn steps_when_taken_singly_and_wrongly_then_nothing_here_stands_in_the_way() {
    let machine = Machine::new();
    let _responder = machine.respond(world(None));
    let device = Device::open(&machine.guest_client(), machine.vbd.frontend()).unwrap();
    let offered = |state| state == XenbusState::InitWait;
    device.wait_backend("the offer", GUARD, offered).unwrap();
    assert_eq!(device.offer().unwrap().max_queues, 4);
    // No rings, no features, and a state of no meaning.
    device.write("ring-ref", "-1").unwrap();
    device.write("queue-0/event-channel", [0xff; 3]).unwrap();
    device.set_state(XenbusState::Reconfiguring).unwrap();
    device.set_state(XenbusState::Initialising).unwrap();
    let mut front = machine.connect(options()).unwrap();
    front.queue(0).read_at(0, &mut [0; 512]).unwrap();
}
