//! The bytes on the ring, and what the frontend does about a backend that breaks the rules.

mod common;

use blkif::{Abi, FrontRing, Index, RawSlot, Response, RingMemory, SharedMemory, Status, wire};
use common::responder::Twist;
use common::{Machine, options, profile, until, world};
use frontend_sim::{ConnectOptions, Error, Submission};
use hypervisor::Access;
use integrity::Guard;

fn word16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn word32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn word64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

#[test]
fn slots_when_a_write_carries_pi_then_are_laid_out_as_specified() {
    let machine = Machine::new();
    let _responder = machine.respond(world(Some(profile(Guard::Crc16T10Dif, 512))));
    let mut front = machine.connect(options()).unwrap();
    let mut raw = front.queue(0).raw();
    let slots = raw.slots(0, &Submission::write(24, &[1; 6144]));
    let refs = raw.refs(0);
    let payload_ref = raw.metadata(0).unwrap().refs()[0].0;
    let [data, payload] = slots.map_bytes();
    assert_eq!(data[0], wire::OP_WRITE | wire::OP_DIX_FLAG);
    assert_eq!((data[1], word16(&data, 2)), (2, 0));
    assert_eq!(word64(&data, 16), 24);
    assert_eq!((word32(&data, 24), data[28], data[29]), (refs[0].0, 0, 7));
    assert_eq!((word32(&data, 32), data[36], data[37]), (refs[1].0, 0, 3));
    assert_eq!(payload[0], wire::OP_INTEGRITY);
    assert_eq!((payload[1], word16(&payload, 2)), (1, 0));
    assert_eq!(word64(&payload, 16), 24, "the data slot's sector");
    assert_ne!(word64(&payload, 8), word64(&data, 8), "an id of its own");
    // 12 tuples of 8 bytes: one sector of payload.
    assert_eq!((word32(&payload, 24), payload[28], payload[29]), (payload_ref, 0, 0));
}

trait MapBytes {
    fn map_bytes(&self) -> [Vec<u8>; 2];
}

impl MapBytes for Vec<RawSlot> {
    fn map_bytes(&self) -> [Vec<u8>; 2] {
        [self[0].to_bytes(Abi::X86_64).to_vec(), self[1].to_bytes(Abi::X86_64).to_vec()]
    }
}

#[test]
fn slots_when_indirect_with_pi_then_the_flag_is_in_the_operation() {
    let machine = Machine::new();
    let _responder = machine.respond(world(Some(profile(Guard::Crc16T10Dif, 512))));
    let mut front = machine.connect(options()).unwrap();
    let [data, payload] = front.queue(0).raw().slots(1, &Submission::read(0, 32 * 4096)).map_bytes();
    assert_eq!((data[0], data[1]), (wire::OP_INDIRECT | wire::OP_DIX_FLAG, wire::OP_READ));
    assert_eq!(word16(&data, 2), 32);
    assert_eq!(word64(&data, 16), 0);
    assert_eq!((payload[0], payload[1]), (wire::OP_INTEGRITY, 1));
    // 256 tuples of 8 bytes: 4 sectors.
    assert_eq!((payload[28], payload[29]), (0, 3));
}

/// What becomes of a read whose responses are twisted.
fn twisted(twist: Twist) -> Error {
    let machine = Machine::new();
    let responder = machine.respond(world(Some(profile(Guard::Crc16T10Dif, 512))));
    let mut front = machine.connect(options()).unwrap();
    *responder.world.behaviour.twist.lock().unwrap() = Some(twist);
    let queue = front.queue(0);
    let error = queue.read_at(0, &mut [0; 4096]).unwrap_err();
    assert!(
        matches!(queue.submit(&Submission::read(0, 512)), Err(Error::Protocol { .. })),
        "the queue is used no more"
    );
    error
}

#[test]
fn response_when_it_breaks_the_protocol_then_the_queue_is_used_no_more() {
    let wrong: [(&str, Twist); 6] = [
        ("another id", |responses| responses[0].id += 1 << 20),
        ("another operation", |responses| responses[0].operation = wire::OP_WRITE),
        ("without the flag", |responses| responses[0].operation = wire::OP_READ),
        ("a tag's status on data", |responses| responses[0].status = Status::Guard),
        ("payload first", |responses| responses.swap(0, 1)),
        ("the same twice", |responses| responses[1] = responses[0]),
    ];
    for (what, twist) in wrong {
        let error = twisted(twist);
        assert!(matches!(error, Error::Protocol { .. } | Error::Response(_)), "{what}: {error}");
    }
}

#[test]
fn response_when_there_are_more_than_requests_then_the_ring_is_broken() {
    let machine = Machine::new();
    let _responder = machine.respond(world(None));
    let mut front = machine.connect(options()).unwrap();
    let queue = front.queue(0);
    queue.raw().ring().memory().store(Index::ResponseProducer, 5, std::sync::atomic::Ordering::SeqCst);
    assert!(matches!(queue.poll(), Err(Error::Ring(_))));
    assert!(queue.kick().is_err());
}

#[test]
fn raw_when_a_lone_payload_is_pushed_then_is_answered_so() {
    let machine = Machine::new();
    let _responder = machine.respond(world(Some(profile(Guard::Crc16T10Dif, 512))));
    let mut front = machine.connect(ConnectOptions { depth: 2, ..options() }).unwrap();
    let mut raw = front.queue(0).raw();
    let slots = raw.slots(0, &Submission::write(0, &[0; 512]));
    raw.push(&slots[1]).unwrap();
    raw.kick().unwrap();
    let mut response = None;
    until("a response", || {
        response = raw.take_response().unwrap();
        response.is_some()
    });
    let expected = Response { id: slots[1].id(), operation: wire::OP_INTEGRITY, status: Status::Unsupported };
    assert_eq!(response.unwrap(), expected.raw());
}

#[test]
fn raw_when_a_grant_is_revoked_in_flight_then_the_backend_fails_the_request() {
    let machine = Machine::new();
    let responder = machine.respond(world(None));
    let mut front = machine.connect(ConnectOptions { depth: 1, ..options() }).unwrap();
    let queue = front.queue(0);
    queue.raw().data(0).revoke(0).unwrap();
    let failure = queue.read_at(0, &mut [0; 4096]).unwrap_err().failure();
    assert!(failure.is_some());
    assert_eq!(responder.world.seen.lock().unwrap().len(), 1);
}

#[test]
fn ring_when_made_alone_then_is_empty_and_shared() {
    let machine = Machine::new();
    let guest = hypervisor::sim::connect(machine.dir.path(), common::GUEST).unwrap();
    let ring = frontend_sim::Ring::new(&guest, hypervisor::DomId(0), 3, Abi::Arm).unwrap();
    assert_eq!((ring.front.entries(), ring.nodes().refs.len()), (256, 8));
    assert_eq!(ring.nodes().port, ring.event.port().0);
    // The pieces it is made of are the crates' own.
    let pages = hypervisor::Frontend::share(&guest, hypervisor::DomId(0), 1, Access::ReadWrite).unwrap();
    let (base, len) = (pages.base(), pages.len());
    // SAFETY: `pages` keeps them mapped; nothing refers to them.
    let memory = unsafe { SharedMemory::new(base, len, pages) };
    assert_eq!(FrontRing::init(memory, Abi::X86_64).unwrap().entries(), 32);
}
