//! Faults put in on purpose, at each hop, and who finds them.

mod common;

use blkif::Status;
use common::{Machine, options, pattern, profile, world};
use frontend_sim::{Error, Failure, Fault, Submission};
use integrity::{Guard, Tag};

fn write(machine: &Machine, fault: Option<Fault>) -> Result<(), Error> {
    let mut front = machine.connect(options()).unwrap();
    let data = pattern(16384, 7);
    let result = front.queue(0).run(&Submission::write(80, &data).faulty(fault));
    front.disconnect().unwrap();
    result
}

fn payload_status(status: Status) -> Failure {
    Failure::Status { data: Status::Error, payload: Some(status) }
}

#[test]
fn write_when_something_is_wrong_then_the_backend_names_the_tag() {
    for guard in [Guard::Crc16T10Dif, Guard::Ip, Guard::Crc64Nvme] {
        let machine = Machine::new();
        let responder = machine.respond(world(Some(profile(guard, 512))));
        for (fault, status) in [
            (Fault::Data { bit: 12345 }, Status::Guard),
            // The guard itself, or metadata before it, which it covers.
            (Fault::Payload { bit: 3 }, Status::Guard),
            (Fault::Reference { off_by: 1 }, Status::Reference),
            (Fault::Reference { off_by: -1 }, Status::Reference),
        ] {
            let failure = write(&machine, Some(fault)).unwrap_err().failure();
            assert_eq!(failure, Some(payload_status(status)), "{fault}");
        }
        assert!(responder.world.medium.lock().unwrap().data.iter().all(|byte| *byte == 0));
        write(&machine, None).unwrap();
    }
}

#[test]
fn write_when_escaped_or_tagged_then_is_sent_so() {
    let machine = Machine::new();
    let profile = profile(Guard::Crc16T10Dif, 512);
    let responder = machine.respond(world(Some(profile)));
    write(&machine, Some(Fault::Escape)).unwrap();
    let tuple = |responder: &common::Responder| {
        let medium = responder.world.medium.lock().unwrap();
        profile.tuple(&medium.metadata_of(80 * 512, 512)[..8])
    };
    assert_eq!(tuple(&responder).application, 0xffff);
    write(&machine, Some(Fault::Application { tag: 0x1234 })).unwrap();
    assert_eq!(tuple(&responder).application, 0x1234);
    assert_eq!(tuple(&responder).reference, 80);
    write(&machine, Some(Fault::Unflagged)).unwrap();
    let seen = responder.world.seen.lock().unwrap();
    let (request, payload) = seen.back().unwrap();
    assert!(payload.is_none() && !request.is_flagged());
}

#[test]
fn read_when_delivered_wrong_then_is_found_here() {
    let machine = Machine::new();
    let responder = machine.respond(world(Some(profile(Guard::Crc64Nvme, 4096))));
    let mut front = machine.connect(options()).unwrap();
    let queue = front.queue(0);
    let data = pattern(16384, 7);
    queue.write_at(40960, &data).unwrap();
    let mut read = |fault: Option<Fault>| {
        queue.submit(&Submission::read(80, data.len()).faulty(fault)).unwrap();
        let mut back = vec![0; data.len()];
        queue.complete().unwrap().unwrap().read_into(&mut back)
    };
    read(None).unwrap();
    for (fault, interval, tag) in [
        (Fault::Data { bit: 9000 * 8 }, 2, Tag::Guard),
        // The guard is big-endian at the start of the tuple.
        (Fault::Payload { bit: 0 }, 0, Tag::Guard),
        (Fault::Payload { bit: 15 * 8 }, 0, Tag::Reference),
    ] {
        let Err(error) = read(Some(fault)) else { panic!("{fault} was not found") };
        let Some(Failure::Mismatch(mismatch)) = error.failure() else { panic!("{error}") };
        assert_eq!((mismatch.interval, mismatch.tag), (interval, tag), "{fault}");
    }
    // A medium that gives another place's data.
    {
        let mut medium = responder.world.medium.lock().unwrap();
        let moved: Vec<u8> = medium.data[40960..][..4096].to_vec();
        medium.data[45056..][..4096].copy_from_slice(&moved);
        let moved = medium.metadata_of(40960, 4096).to_vec();
        medium.metadata[11 * 16..][..16].copy_from_slice(&moved);
    }
    let Some(Failure::Mismatch(mismatch)) = read(None).unwrap_err().failure() else { panic!() };
    assert_eq!((mismatch.interval, mismatch.tag), (1, Tag::Reference));
}

#[test]
fn read_when_poisoned_and_not_delivered_then_is_found() {
    let machine = Machine::new();
    let responder = machine.respond(world(Some(profile(Guard::Crc16T10Dif, 512))));
    let mut front = machine.connect(options()).unwrap();
    let queue = front.queue(0);
    queue.write_at(0, &pattern(4096, 1)).unwrap();
    let mut back = vec![0; 4096];
    queue.read_at(0, &mut back).unwrap();
    // From here on okay is said and nothing done: the buffer still has the right bytes.
    responder.world.behaviour.refuse.store(true, std::sync::atomic::Ordering::SeqCst);
    *responder.world.behaviour.twist.lock().unwrap() =
        Some(|responses| responses.iter_mut().for_each(|response| response.status = Status::Okay));
    queue.submit(&Submission { poison: true, ..Submission::read(0, 4096) }).unwrap();
    let result = queue.complete().unwrap().unwrap().read_into(&mut back);
    assert!(matches!(result.unwrap_err().failure(), Some(Failure::Mismatch(_))));
}
