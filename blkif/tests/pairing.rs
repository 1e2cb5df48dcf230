//! DIX pairs, honest and not.

use blkif::{
    Abi, BackRing, DixLimits, Encode, FrontRing, GrantRef, Limits, Operation, Paired, Pairing, RawSlot,
    Refusal, Request, Response, Sectors, Segment, SharedMemory, Status,
};

mod common;
use common::{rings, rings_at, segment};

const DIX: DixLimits = DixLimits { interval: 512, metadata_size: 8 };

fn pairing() -> Pairing {
    Pairing::new(Limits { max_indirect: 256, dix: Some(DIX) })
}

fn data(operation: Operation, segments: &[Segment]) -> RawSlot {
    Encode::request(&Request::direct(1, operation, Sectors(8), segments, true))
}

fn payload(segments: &[Segment]) -> RawSlot {
    Encode::payload(2, 0, Sectors(8), segments)
}

/// A write of a page, whose metadata is 64 bytes.
fn write() -> RawSlot {
    data(Operation::Write, &[segment(10, 0, 7)])
}

fn pi() -> RawSlot {
    payload(&[segment(20, 3, 3)])
}

/// The reason and the responses as (id, operation, status).
fn refused(paired: Paired) -> (Refusal, Vec<(u64, u8, Status)>) {
    let Paired::Refused(refused) = paired else { panic!("{paired:?}") };
    let tuple = |response: &Response| (response.id, response.operation, response.status);
    (refused.reason, refused.responses.iter().map(tuple).collect())
}

fn alone(reason: Refusal, operation: u8, status: Status) -> (Refusal, Vec<(u64, u8, Status)>) {
    (reason, vec![(1, operation, status)])
}

fn both(reason: Refusal, operation: u8) -> (Refusal, Vec<(u64, u8, Status)>) {
    (reason, vec![(1, operation, Status::Error), (2, 7, Status::Error)])
}

#[test]
fn a_pair_is_whole_then_it_is_data_and_payload() {
    for operation in [Operation::Read, Operation::Write, Operation::WriteBarrier, Operation::Flush] {
        let paired = pairing().pair(&data(operation, &[segment(10, 0, 7)]), Some(&pi()));
        assert_eq!(paired.slots(), 2);
        let Paired::Pair { data, payload } = paired else { panic!("{paired:?}") };
        assert_eq!((data.id, data.operation, payload.id), (1, operation, 2));
        assert!(data.is_flagged());
        assert_eq!(payload.segments.as_slice(), [segment(20, 3, 3)]);
        assert_eq!(payload.needed(&DIX, data.sector, 4096), Ok(64));
    }
}

#[test]
fn an_indirect_pair_is_whole_then_the_payload_is_judged_once_the_length_is_known() {
    let request = Request::indirect(1, Operation::Write, Sectors(8), 256, &[GrantRef(5)], true);
    let paired = pairing().pair(&Encode::request(&request), Some(&pi()));
    let Paired::Pair { data, payload } = paired else { panic!("{paired:?}") };
    assert_eq!(data.echo, 0x81);
    assert_eq!(payload.needed(&DIX, data.sector, 64 * 512), Ok(512));
    let short = Refusal::PayloadTooShort { needed: 520, actual: 512 };
    assert_eq!(payload.needed(&DIX, data.sector, 65 * 512), Err(short));
}

#[test]
fn a_pair_is_answered_then_only_the_payload_names_the_tag() {
    let Paired::Pair { data, payload } = pairing().pair(&write(), Some(&pi())) else { panic!("a pair") };
    for (status, for_data) in [
        (Status::Okay, Status::Okay),
        (Status::Error, Status::Error),
        (Status::Unsupported, Status::Unsupported),
        (Status::Guard, Status::Error),
        (Status::Application, Status::Error),
        (Status::Reference, Status::Error),
    ] {
        assert_eq!(data.response(status), Response { id: 1, operation: 0x81, status: for_data });
        assert_eq!(payload.response(status), Response { id: 2, operation: 7, status });
    }
}

#[test]
fn dix_was_not_negotiated_then_the_flag_is_not_supported() {
    let pairing = Pairing::new(Limits::default());
    let paired = pairing.pair(&write(), None);
    assert_eq!(paired.slots(), 1);
    assert_eq!(refused(paired), alone(Refusal::NotNegotiated(0x81), 0x81, Status::Unsupported));
    let request = Request::indirect(1, Operation::Read, Sectors(8), 12, &[GrantRef(5)], true);
    let paired = pairing.pair(&Encode::request(&request), None);
    assert_eq!(refused(paired), alone(Refusal::NotNegotiated(0x86), 0x80, Status::Unsupported));
}

#[test]
fn a_payload_slot_follows_nothing_then_it_is_not_supported() {
    for pairing in [pairing(), Pairing::new(Limits::default())] {
        let expected = (Refusal::LonePayload, vec![(2, 7, Status::Unsupported)]);
        assert_eq!(refused(pairing.pair(&pi(), None)), expected);
    }
}

#[test]
fn the_flag_is_on_a_request_without_data_then_it_is_an_error_at_once() {
    let discard = Operation::Discard { secure: false, sectors: Sectors(8) };
    for operation in [discard, Operation::Flush, Operation::WriteBarrier, Operation::Read] {
        let slot = data(operation, &[]);
        let reason = Refusal::FlagWithoutData(slot.operation());
        let paired = pairing().pair(&slot, None);
        assert_eq!(refused(paired), alone(reason, slot.operation(), Status::Error));
    }
    let indirect = Request::indirect(1, Operation::Read, Sectors(8), 0, &[], true);
    let paired = pairing().pair(&Encode::request(&indirect), None);
    assert_eq!(refused(paired), alone(Refusal::FlagWithoutData(0x86), 0x80, Status::Error));
}

#[test]
fn the_flag_is_on_an_unknown_operation_then_it_is_not_supported() {
    for operation in [0x84, 0x87, 0x88, 0xFF] {
        let mut bytes = pi().to_bytes(Abi::X86_64);
        bytes[0] = operation;
        let slot = RawSlot::from_bytes(Abi::X86_64, &bytes);
        let expected = (Refusal::UnknownOperation(operation), vec![(2, operation, Status::Unsupported)]);
        assert_eq!(refused(pairing().pair(&slot, Some(&pi()))), expected);
    }
}

#[test]
fn the_next_slot_is_no_payload_then_the_data_slot_fails_alone() {
    let altered = |at: usize, byte: u8| {
        let mut bytes = pi().to_bytes(Abi::X86_64);
        bytes[at] = byte;
        RawSlot::from_bytes(Abi::X86_64, &bytes)
    };
    for (what, next) in [
        ("another request", data(Operation::Read, &[segment(1, 0, 0)])),
        ("no segments", altered(1, 0)),
        ("twelve segments", altered(1, 12)),
        ("another handle", altered(2, 1)),
        ("another sector", altered(16, 9)),
        ("the flag", altered(0, 0x87)),
    ] {
        let paired = pairing().pair(&write(), Some(&next));
        assert_eq!(refused(paired), alone(Refusal::NoPayload, 0x81, Status::Error), "{what}");
    }
}

#[test]
fn either_half_is_malformed_then_both_fail() {
    let pair = |data: &RawSlot, payload: &RawSlot| refused(pairing().pair(data, Some(payload)));
    let bad = Refusal::Segment { index: 0, first: 5, last: 4 };
    assert_eq!(pair(&data(Operation::Write, &[segment(1, 5, 4)]), &pi()), both(bad, 0x81));
    assert_eq!(pair(&write(), &payload(&[segment(1, 5, 4)])), both(bad, 0x81));
    let request = Request::indirect(1, Operation::Write, Sectors(8), 257, &[GrantRef(5)], true);
    let many = Refusal::TooManySegments { count: 257, max: 256 };
    assert_eq!(pair(&Encode::request(&request), &pi()), both(many, 0x81));
}

#[test]
fn the_payload_is_too_short_then_both_fail() {
    let limits = DixLimits { interval: 512, metadata_size: 128 };
    let pairing = Pairing::new(Limits { max_indirect: 0, dix: Some(limits) });
    let pair = |payload: &RawSlot| pairing.pair(&write(), Some(payload));
    let short = Refusal::PayloadTooShort { needed: 1024, actual: 512 };
    assert_eq!(refused(pair(&pi())), both(short, 0x81));
    assert_eq!(pair(&payload(&[segment(1, 6, 7)])).slots(), 2);
    assert!(matches!(pair(&payload(&[segment(1, 6, 7)])), Paired::Pair { .. }), "as long as needed");
    let long = payload(&[segment(1, 0, 7), segment(2, 0, 7)]);
    assert!(matches!(pair(&long), Paired::Pair { .. }), "slack is allowed");
}

#[test]
fn data_is_not_whole_intervals_then_both_fail() {
    let pairing =
        Pairing::new(Limits { max_indirect: 256, dix: Some(DixLimits { interval: 4096, metadata_size: 8 }) });
    let pair = |sector: u64, segments: &[Segment]| {
        let data = Request::direct(1, Operation::Read, Sectors(sector), segments, true);
        let payload = Encode::payload(2, 0, Sectors(sector), &[segment(9, 0, 0)]);
        pairing.pair(&Encode::request(&data), Some(&payload))
    };
    assert!(matches!(pair(8, &[segment(1, 0, 3), segment(2, 4, 7)]), Paired::Pair { .. }));
    let unaligned =
        |sector: u64, bytes| Refusal::Unaligned { sector: Sectors(sector), bytes, interval: 4096 };
    assert_eq!(refused(pair(9, &[segment(1, 0, 7)])), both(unaligned(9, 4096), 0x80));
    assert_eq!(refused(pair(8, &[segment(1, 0, 3)])), both(unaligned(8, 2048), 0x80));
    let request = Request::indirect(1, Operation::Read, Sectors(7), 9, &[GrantRef(1)], true);
    let payload = Encode::payload(2, 0, Sectors(7), &[segment(9, 0, 0)]);
    let paired = pairing.pair(&Encode::request(&request), Some(&payload));
    assert_eq!(refused(paired), both(unaligned(7, 0), 0x80));
}

fn push(front: &mut FrontRing<SharedMemory>, slots: &[RawSlot]) {
    for slot in slots {
        front.push(slot).unwrap();
    }
    let _ = front.publish();
}

fn next(back: &mut BackRing<SharedMemory>) -> Option<Paired> {
    pairing().next(back).unwrap()
}

#[test]
fn half_a_pair_is_visible_then_it_stays_unconsumed_until_the_rest_comes() {
    let (mut front, mut back) = rings(Abi::X86_32, 1);
    push(&mut front, &[write()]);
    for _ in 0..3 {
        assert_eq!(next(&mut back), Some(Paired::NeedMore(2)));
        assert_eq!((back.unanswered(), back.unconsumed()), (0, Ok(1)));
        assert!(!back.arm(2));
    }
    front.push(&pi()).unwrap();
    assert!(front.publish(), "the second half notifies");
    assert!(matches!(next(&mut back), Some(Paired::Pair { .. })));
    assert_eq!((back.unanswered(), next(&mut back)), (2, None));
}

#[test]
fn half_a_pair_is_rewritten_while_the_rest_is_awaited_then_only_the_last_copy_counts() {
    let (mut front, mut back) = rings(Abi::X86_64, 1);
    push(&mut front, &[write()]);
    assert_eq!(next(&mut back), Some(Paired::NeedMore(2)));
    let flush = Request::direct(77, Operation::Flush, Sectors(0), &[], false);
    let words: Vec<u32> = Encode::request(&flush)
        .to_bytes(Abi::X86_64)
        .as_chunks()
        .0
        .iter()
        .copied()
        .map(u32::from_le_bytes)
        .collect();
    blkif::RingMemory::write(front.memory(), 64, &words);
    assert_eq!(next(&mut back), Some(Paired::Single(flush)));
}

#[test]
fn the_flagged_slot_is_the_last_of_a_full_ring_then_the_rest_has_room_once_others_are_answered() {
    let (mut front, mut back) = rings(Abi::X86_64, 1);
    let flush = Encode::request(&Request::direct(5, Operation::Flush, Sectors(0), &[], false));
    push(&mut front, &vec![flush; 31]);
    push(&mut front, &[write()]);
    for _ in 0..31 {
        assert!(matches!(next(&mut back), Some(Paired::Single(_))));
    }
    assert_eq!(next(&mut back), Some(Paired::NeedMore(2)));
    assert!(!back.arm(2));
    for _ in 0..31 {
        back.respond(&Response { id: 5, operation: 3, status: Status::Okay });
    }
    assert!(back.publish());
    while front.take_response().unwrap().is_some() {}
    front.push(&pi()).unwrap();
    assert!(front.publish());
    assert!(matches!(next(&mut back), Some(Paired::Pair { .. })));
}

#[test]
fn a_pair_lies_across_the_rings_end_then_it_is_a_pair() {
    for start in [31, u32::MAX] {
        let (mut front, mut back) = rings_at(Abi::X86_32, 4096, start);
        push(&mut front, &[write(), pi()]);
        assert!(matches!(next(&mut back), Some(Paired::Pair { .. })));
    }
}

#[test]
fn flagged_slots_follow_each_other_then_each_is_judged_as_if_first() {
    let (mut front, mut back) = rings(Abi::X86_64, 1);
    push(&mut front, &[write(), write(), pi(), pi(), write()]);
    assert_eq!(next(&mut back).map(refused), Some(alone(Refusal::NoPayload, 0x81, Status::Error)));
    assert!(matches!(next(&mut back), Some(Paired::Pair { .. })));
    let lone = (Refusal::LonePayload, vec![(2, 7, Status::Unsupported)]);
    assert_eq!(next(&mut back).map(refused), Some(lone));
    assert_eq!(next(&mut back), Some(Paired::NeedMore(2)));
    assert_eq!(back.unanswered(), 4);
}

#[test]
fn the_payload_uses_the_datas_grant_then_it_is_no_matter_of_pairing() {
    let paired = pairing().pair(&write(), Some(&payload(&[segment(10, 0, 0)])));
    assert!(matches!(paired, Paired::Pair { .. }));
}
