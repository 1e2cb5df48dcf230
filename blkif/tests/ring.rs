//! Both ends of a ring over the real kind of shared memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use blkif::{
    Abi, BackRing, Encode, FrontRing, Index, Indexes, Operation, Pairing, RawSlot, Request, Response,
    RingError, RingMemory, Sectors, SharedMemory, Start, Status,
};

mod common;
use common::{rings, rings_at, segment, views};

fn flush(id: u64) -> RawSlot {
    Encode::request(&Request::direct(id, Operation::Flush, Sectors(0), &[], false))
}

fn okay(slot: &RawSlot) -> Response {
    Response { id: slot.id(), operation: slot.echo(), status: Status::Okay }
}

#[test]
fn a_full_ring_goes_round_many_times_then_every_request_and_response_arrives() {
    for abi in Abi::ALL {
        for pages in [1, 2, 4, 8, 16] {
            let (mut front, mut back) = rings_at(abi, pages * 4096, 0u32.wrapping_sub(700));
            assert_eq!(front.entries() as usize, 32 * pages);
            let mut id = 0;
            for _ in 0..5 {
                let first = id;
                while front.free() != 0 {
                    front.push(&flush(id)).unwrap();
                    id += 1;
                }
                assert_eq!(front.push(&flush(0)), Err(RingError::Full));
                assert!(front.publish());
                for expected in first..id {
                    let slot = back.consume().unwrap().expect("published");
                    assert_eq!(slot.id(), expected);
                    back.respond(&okay(&slot));
                }
                assert_eq!(back.consume(), Ok(None));
                assert!(!back.arm(1));
                assert!(back.publish());
                for expected in first..id {
                    let response = front.take_response().unwrap().expect("published");
                    assert_eq!((response.id, response.check(3)), (expected, Ok(Status::Okay)));
                }
                assert_eq!(front.take_response(), Ok(None));
                assert!(!front.arm(1));
            }
        }
    }
}

#[test]
fn every_field_crosses_the_ring_then_it_arrives_as_sent() {
    let segments: Vec<_> = (0..11).map(|i| segment(u32::MAX - i, 0, 7)).collect();
    for abi in Abi::ALL {
        let (mut front, mut back) = rings(abi, 1);
        let mut request =
            Request::direct(u64::MAX - 1, Operation::Write, Sectors(0x12_3456_789A), &segments, false);
        request.handle = 51712;
        let sent = Encode::request(&request);
        front.push(&sent).unwrap();
        assert!(front.publish());
        assert_eq!(back.consume(), Ok(Some(sent)));
    }
}

#[test]
fn nobody_armed_then_only_the_first_of_a_batch_is_notified() {
    let (mut front, mut back) = rings(Abi::X86_64, 1);
    front.push(&flush(0)).unwrap();
    assert!(front.publish(), "a new ring is armed for its first request");
    front.push(&flush(1)).unwrap();
    assert!(!front.publish(), "the backend is awake");
    assert!(!front.publish(), "there was nothing new");
    while back.consume().unwrap().is_some() {}
    assert!(!back.arm(1), "nothing left");
    front.push(&flush(2)).unwrap();
    assert!(front.publish(), "the backend sleeps");
}

#[test]
fn the_backend_arms_for_two_then_the_second_request_notifies() {
    let (mut front, mut back) = rings(Abi::X86_32, 1);
    assert!(!back.arm(2));
    front.push(&flush(0)).unwrap();
    assert!(!front.publish());
    assert!(!back.arm(2), "one is not two");
    assert!(back.arm(1));
    assert!(!back.arm(2));
    front.push(&flush(1)).unwrap();
    assert!(front.publish());
    assert!(back.arm(2));
}

#[test]
fn the_frontend_arms_for_several_responses_then_only_the_last_notifies() {
    let (mut front, mut back) = rings(Abi::X86_64, 1);
    for id in 0..3 {
        front.push(&flush(id)).unwrap();
    }
    assert!(front.publish());
    assert!(!front.arm(3));
    for last in [false, false, true] {
        let slot = back.consume().unwrap().unwrap();
        back.respond(&okay(&slot));
        assert_eq!(back.publish(), last);
    }
    assert!(front.arm(3));
}

#[test]
fn req_prod_is_impossible_then_the_ring_is_stopped_for_good() {
    for (taken, answered, producer) in
        [(0, 0, 33), (0, 0, u32::MAX), (3, 1, 34), (3, 1, 2), (3, 1, 0), (3, 3, 2), (0, 0, 1 << 31)]
    {
        let (mut front, mut back) = rings(Abi::X86_64, 1);
        for id in 0..taken {
            front.push(&flush(id)).unwrap();
        }
        let _ = front.publish();
        for id in 0..taken {
            let slot = back.consume().unwrap().unwrap();
            if id < answered {
                back.respond(&okay(&slot));
            }
        }
        front.memory().store(Index::RequestProducer, producer, Ordering::Release);
        assert!(matches!(back.consume(), Err(RingError::Producer { .. })), "{producer}");
        front.memory().store(Index::RequestProducer, taken as u32, Ordering::Release);
        assert!(back.consume().is_err(), "an honest index later changes nothing");
        assert!(back.unconsumed().is_err());
        assert!(Pairing::new(Default::default()).next(&mut back).is_err());
        assert!(back.arm(1), "arming says: do not sleep, look");
        for _ in answered..taken {
            back.respond(&Response { id: 0, operation: 3, status: Status::Error });
        }
        let _ = back.publish();
        assert_eq!(back.unanswered(), 0, "what was taken is answered all the same");
    }
}

#[test]
fn rsp_prod_is_impossible_then_the_frontend_sees_an_error() {
    for producer in [3, u32::MAX] {
        let (mut front, back) = rings(Abi::X86_64, 1);
        front.push(&flush(0)).unwrap();
        front.push(&flush(1)).unwrap();
        let _ = front.publish();
        back.memory().store(Index::ResponseProducer, producer, Ordering::Release);
        assert!(matches!(front.take_response(), Err(RingError::Producer { .. })));
        assert!(front.arm(1));
    }
}

#[test]
fn a_slot_changes_after_it_was_consumed_then_the_copy_does_not() {
    let (mut front, mut back) = rings(Abi::X86_64, 1);
    front.push(&flush(7)).unwrap();
    let _ = front.publish();
    let slot = back.consume().unwrap().unwrap();
    front.memory().write(64, &[u32::MAX; 28]);
    assert_eq!(slot, flush(7));
}

#[test]
fn a_response_is_written_over_old_bytes_then_its_padding_is_zero() {
    for abi in Abi::ALL {
        let (mut front, mut back) = rings(abi, 1);
        front.push(&flush(0x0102_0304_0506_0708)).unwrap();
        let _ = front.publish();
        let slot = back.consume().unwrap().unwrap();
        front.memory().write(64, &[u32::MAX; 27]);
        back.respond(&Response { id: slot.id(), operation: 0x83, status: Status::Unsupported });
        let mut words = [0; 27];
        front.memory().read(64, &mut words);
        let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
        let expected = [8, 7, 6, 5, 4, 3, 2, 1, 0x83, 0, 0xFE, 0xFF, 0, 0, 0, 0];
        let size = abi.response_size();
        assert_eq!(bytes[..size], expected[..size]);
        assert!(bytes[size..].iter().all(|byte| *byte == 0xFF), "nothing beyond the response");
    }
}

#[test]
fn a_ring_in_use_is_attached_then_it_goes_on_where_it_stood() {
    let (mut front, mut back) = rings(Abi::X86_64, 1);
    for id in 0..3 {
        front.push(&flush(id)).unwrap();
    }
    let _ = front.publish();
    let slot = back.consume().unwrap().unwrap();
    back.respond(&okay(&slot));
    let _ = back.publish();
    assert_eq!(back.indexes(), Indexes { rsp_prod: 1, req_cons: 1 });
    let memory = back.into_memory();
    let mut back = BackRing::attach(memory, Abi::X86_64, Start::At(1)).unwrap();
    assert_eq!(back.unconsumed(), Ok(2));
    assert_eq!(back.consume().unwrap().unwrap().id(), 1);
}

#[test]
fn a_ring_stands_elsewhere_then_it_is_not_attached() {
    let attach = |rsp_prod: u32, req_prod: u32, start| {
        let (front, back) = views(4096);
        front.store(Index::ResponseProducer, rsp_prod, Ordering::Release);
        front.store(Index::RequestProducer, req_prod, Ordering::Release);
        BackRing::attach(back, Abi::X86_64, start).map(|_| ())
    };
    assert_eq!(attach(0, 32, Start::Fresh), Ok(()));
    assert_eq!(attach(5, 5, Start::At(5)), Ok(()));
    assert_eq!(attach(5, 5, Start::Fresh), Err(RingError::Start { expected: 0, actual: 5 }));
    assert_eq!(attach(5, 5, Start::At(4)), Err(RingError::Start { expected: 4, actual: 5 }));
    assert!(matches!(attach(5, 38, Start::At(5)), Err(RingError::Producer { .. })));
    assert!(matches!(attach(5, 4, Start::At(5)), Err(RingError::Producer { .. })));
}

#[test]
fn memory_is_too_small_then_there_is_no_ring() {
    for bytes in [0, 64, 64 + 112] {
        let (front, back) = views(bytes);
        assert!(matches!(FrontRing::init(front, Abi::X86_64), Err(RingError::TooSmall { .. })));
        assert!(BackRing::attach(back, Abi::X86_64, Start::Fresh).is_err());
    }
}

#[test]
#[should_panic(expected = "a response without a request")]
fn more_is_answered_than_was_taken_then_it_panics() {
    let (_front, mut back) = rings(Abi::X86_64, 1);
    back.respond(&Response { id: 0, operation: 0, status: Status::Okay });
}

#[test]
#[should_panic(expected = "access outside the ring")]
fn an_access_leaves_the_memory_then_it_panics() {
    let (front, _) = views(4096);
    front.read(4096 - 4, &mut [0; 2]);
}

#[test]
fn the_memory_is_dropped_then_so_is_its_owner() {
    struct Owner(Arc<AtomicBool>, SharedMemory);
    impl Drop for Owner {
        fn drop(&mut self) {
            assert_eq!(self.1.size(), 4096);
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let dropped = Arc::new(AtomicBool::new(false));
    let mut bytes = vec![0u64; 512];
    let base = std::ptr::NonNull::new(bytes.as_mut_ptr().cast()).unwrap();
    let owner = Owner(dropped.clone(), views(4096).0);
    // SAFETY: `bytes` outlives the memory, and is not touched meanwhile.
    let memory = unsafe { SharedMemory::new(base, 4096, owner) };
    assert!(!dropped.load(Ordering::Relaxed));
    drop(memory);
    assert!(dropped.load(Ordering::Relaxed));
}

#[test]
fn a_response_is_checked_then_only_what_was_sent_passes() {
    let response = |operation, status| blkif::RawResponse { id: 1, operation, status };
    assert_eq!(response(0x81, 0).check(0x81), Ok(Status::Okay));
    assert_eq!(response(7, -3).check(7), Ok(Status::Guard));
    assert_eq!(response(7, -5).check(7), Ok(Status::Reference));
    assert!(response(1, 0).check(0x81).is_err(), "the flag is missing");
    assert!(response(0x81, -3).check(0x81).is_err(), "a mismatch is for payload slots");
    assert!(response(0, 1).check(0).is_err());
    assert!(response(7, -6).check(7).is_err());
}
