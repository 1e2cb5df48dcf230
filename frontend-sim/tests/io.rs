//! Reading and writing through a ring, in every shape a connection can have.

mod common;

use std::sync::atomic::Ordering::SeqCst;

use blkif::{Abi, Segments, Status};
use common::{BYTES, Machine, options, pattern, profile, world};
use frontend_sim::{ConnectOptions, DixMode, Error, Failure, Grants, Polling, Submission};
use hypervisor::GrantRef;
use integrity::Guard;

/// Writes, reads back, and looks at the medium.
fn round_trip(options: ConnectOptions, profile: Option<integrity::Profile>) {
    let machine = Machine::new();
    let responder = machine.respond(world(profile));
    let mut front = machine.connect(options.clone()).unwrap();
    assert_eq!(front.disk().dix.is_some(), profile.is_some() && options.dix != DixMode::Off);
    let queues = front.queues_mut().len();
    for number in 0..queues {
        let queue = front.queue(number);
        // More than a queue's depth of largest requests, and an odd tail.
        let data = pattern(1_000_000 / queue.disk().block() * queue.disk().block(), number as u64);
        let offset = number as u64 * (2 << 20);
        queue.write_at(offset, &data).unwrap();
        queue.flush().unwrap();
        let mut back = vec![0; data.len()];
        queue.read_at(offset, &mut back).unwrap();
        assert!(back == data);
        let medium = responder.world.medium.lock().unwrap();
        assert!(medium.data[offset as usize..][..data.len()] == data);
        if front.disk().dix.is_some() {
            medium.verify(offset as usize, &data, medium.metadata_of(offset as usize, data.len())).unwrap();
        }
    }
    front.disconnect().unwrap();
    let usage = machine.broker.usage(hypervisor::DomId(5));
    assert_eq!((usage.mapped, usage.bound), (0, 0));
}

#[test]
fn disk_when_written_and_read_then_is_the_same_in_every_abi_and_ring_size() {
    for abi in Abi::ALL {
        for ring_order in 0..=4 {
            round_trip(ConnectOptions { abi, ring_order, ..options() }, None);
        }
    }
}

#[test]
fn disk_when_it_carries_pi_then_every_guard_and_interval_passes() {
    for guard in Guard::ALL {
        for interval in [512, 4096] {
            round_trip(options(), Some(profile(guard, interval)));
        }
    }
}

#[test]
fn dix_when_off_then_the_backend_makes_pi() {
    let options = ConnectOptions { dix: DixMode::Off, ..options() };
    round_trip(options, Some(profile(Guard::Crc16T10Dif, 512)));
}

#[test]
fn dix_when_pairs_wrap_the_smallest_ring_then_nothing_is_lost() {
    for abi in [Abi::X86_32, Abi::X86_64] {
        for depth in [1, 3, 16] {
            let options = ConnectOptions { ring_order: 0, abi, depth, segments: 3, ..options() };
            round_trip(options, Some(profile(Guard::Crc64Nvme, 512)));
        }
    }
}

#[test]
fn queues_when_several_then_each_works() {
    round_trip(ConnectOptions { queues: 4, ..options() }, Some(profile(Guard::Crc16T10Dif, 4096)));
}

#[test]
fn segments_when_more_than_eleven_then_requests_are_indirect() {
    for segments in [11, 12, 256] {
        let machine = Machine::new();
        let responder = machine.respond(world(Some(profile(Guard::Ip, 512))));
        let mut front = machine.connect(ConnectOptions { segments, depth: 4, ..options() }).unwrap();
        // The payload of an indirect request must fit a slot: 64 bytes per 512 leave 88 pages of data.
        let most = usize::from(segments.min(88));
        assert_eq!(usize::from(front.disk().segments), most);
        let data = pattern(front.disk().max_bytes(), 3);
        front.queue(0).write_at(0, &data).unwrap();
        let (request, payload) = responder.world.seen.lock().unwrap().pop_front().unwrap();
        let count = match request.segments {
            Segments::Direct(segments) => segments.len(),
            Segments::Indirect { count, .. } => {
                assert!(count > 11);
                usize::from(count)
            }
        };
        assert_eq!(count, most);
        assert_eq!(payload.unwrap().segments.len(), (data.len() / 512 * 64).div_ceil(4096));
        let mut back = vec![0; data.len()];
        front.queue(0).read_at(0, &mut back).unwrap();
        assert!(back == data);
    }
}

#[test]
fn polling_when_off_or_without_sleep_then_io_is_the_same() {
    for polling in [Polling::Off, Polling::Always] {
        round_trip(ConnectOptions { polling, ..options() }, None);
    }
}

#[test]
fn data_when_it_starts_inside_a_page_then_intervals_cut_by_segments_match() {
    let machine = Machine::new();
    let _responder = machine.respond(world(Some(profile(Guard::Crc16T10Dif, 4096))));
    let mut front = machine.connect(ConnectOptions { segments: 5, ..options() }).unwrap();
    let queue = front.queue(0);
    for first_sector in 0..8 {
        let data = pattern(4 * 4096, u64::from(first_sector));
        queue.run(&Submission { first_sector, ..Submission::write(64, &data) }).unwrap();
        queue
            .submit(&Submission { first_sector: 7 - first_sector, ..Submission::read(64, data.len()) })
            .unwrap();
        let mut back = vec![0; data.len()];
        queue.complete().unwrap().unwrap().read_into(&mut back).unwrap();
        assert!(back == data);
    }
}

#[test]
fn flush_barrier_and_discard_when_sent_then_arrive_as_such() {
    let machine = Machine::new();
    let responder = machine.respond(world(Some(profile(Guard::Crc16T10Dif, 512))));
    let mut front = machine.connect(options()).unwrap();
    let queue = front.queue(0);
    let data = pattern(4096, 9);
    queue.run(&Submission::barrier(8, &data)).unwrap();
    queue.flush().unwrap();
    queue.discard(4096, 2048).unwrap();
    let seen: Vec<_> = responder.world.seen.lock().unwrap().drain(..).collect();
    assert_eq!(seen.len(), 3);
    assert_eq!(seen[0].0.operation, blkif::Operation::WriteBarrier);
    assert!(seen[0].1.is_some());
    assert_eq!(seen[1].0.operation, blkif::Operation::Flush);
    assert!(seen[1].1.is_none() && !seen[1].0.is_flagged(), "no flag without data");
    let sectors = blkif::Sectors(4);
    assert_eq!(seen[2].0.operation, blkif::Operation::Discard { secure: false, sectors });
    queue.submit(&Submission::read(8, 4096)).unwrap();
    let mut back = vec![0; 4096];
    let checked = queue.complete().unwrap().unwrap().read_into(&mut back).unwrap();
    assert_eq!(checked.escaped, 4);
    assert_eq!(&back[2048..], &data[2048..]);
}

#[test]
fn queue_when_full_then_says_so_and_goes_on() {
    let machine = Machine::new();
    let _responder = machine.respond(world(None));
    let mut front = machine.connect(ConnectOptions { depth: 3, ..options() }).unwrap();
    let queue = front.queue(0);
    for tag in 0..3 {
        queue.submit(&Submission::read(tag * 8, 4096).tagged(tag)).unwrap();
    }
    assert!(matches!(queue.submit(&Submission::read(0, 512)), Err(Error::Full)));
    let mut tags = Vec::new();
    while let Some(done) = queue.complete().unwrap() {
        done.check().unwrap();
        tags.push(done.tag());
    }
    assert_eq!(tags, [0, 1, 2]);
    queue.submit(&Submission::read(0, 512)).unwrap();
}

#[test]
fn request_when_it_cannot_be_expressed_then_is_not_sent() {
    let machine = Machine::new();
    let responder = machine.respond(world(None));
    let mut front = machine.connect(options()).unwrap();
    let queue = front.queue(0);
    let most = queue.disk().max_bytes();
    for wrong in [
        Submission::read(0, 0),
        Submission::read(0, 100),
        Submission::read(0, most + 512),
        Submission { first_sector: 1, ..Submission::read(0, most) },
        Submission { first_sector: 8, ..Submission::read(0, 512) },
        Submission { bytes: 1024, ..Submission::write(0, &[0; 512]) },
        // Only reads and writes can be indirect.
        Submission::barrier(0, &[0; 12 * 4096]),
    ] {
        assert!(matches!(queue.submit(&wrong), Err(Error::Request(_))), "{wrong:?}");
    }
    assert!(matches!(queue.read_at(100, &mut [0; 512]), Err(Error::Request(_))));
    assert!(responder.world.seen.lock().unwrap().is_empty());
}

#[test]
fn backend_when_it_refuses_then_the_failure_is_typed_and_the_queue_goes_on() {
    let machine = Machine::new();
    let responder = machine.respond(world(Some(profile(Guard::Crc16T10Dif, 512))));
    let mut front = machine.connect(options()).unwrap();
    let queue = front.queue(0);
    let refused = Failure::Status { data: Status::Error, payload: Some(Status::Error) };
    responder.world.behaviour.refuse.store(true, SeqCst);
    assert_eq!(queue.read_at(0, &mut [0; 4096]).unwrap_err().failure(), Some(refused));
    responder.world.behaviour.refuse.store(false, SeqCst);
    queue.read_at(0, &mut [0; 4096]).unwrap();
    assert_eq!(queue.read_at(BYTES as u64, &mut [0; 512]).unwrap_err().failure(), Some(refused));
}

#[test]
fn grants_when_per_request_then_a_backend_that_keeps_them_is_found() {
    let machine = Machine::new();
    let responder = machine.respond(world(Some(profile(Guard::Crc16T10Dif, 512))));
    let mut front = machine.connect(ConnectOptions { grants: Grants::PerRequest, ..options() }).unwrap();
    let data = pattern(100 * 512, 1);
    front.queue(0).write_at(0, &data).unwrap();
    let mut back = vec![0; data.len()];
    front.queue(0).read_at(0, &mut back).unwrap();
    assert!(back == data);
    let ring_pages = front.disk().ring_order;
    assert_eq!(machine.broker.usage(common::GUEST).granted, 1 << ring_pages);

    responder.world.behaviour.hold.store(true, SeqCst);
    let _ = front.queue(0).read_at(0, &mut back);
    let after = front.queue(0).read_at(0, &mut back);
    assert!(matches!(after, Err(Error::Protocol { .. })), "{after:?}");
}

#[test]
fn ring_pages_when_connected_then_are_the_ones_in_xenstore() {
    let machine = Machine::new();
    let responder = machine.respond(world(None));
    let mut front = machine.connect(ConnectOptions { ring_order: 1, queues: 2, ..options() }).unwrap();
    let chosen = responder.world.chosen.lock().unwrap()[0].clone();
    for number in 0..2 {
        let refs: Vec<GrantRef> = chosen.rings[number].refs.iter().map(|gref| GrantRef(gref.0)).collect();
        assert_eq!(front.queue(number).raw().ring_pages().refs(), refs);
        assert_eq!(front.queue(number).raw().event().port().0, chosen.rings[number].port);
    }
}
