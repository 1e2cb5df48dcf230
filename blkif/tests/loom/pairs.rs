//! Pairs: published whole, half by half, and where the ring is full or ends.

use blkif::{
    BackRing, DixLimits, Encode, FrontRing, GrantRef, Limits, Operation, Paired, Pairing, RawSlot, Request,
    Sectors, Segment, Status,
};
use loom::thread;

use super::memory::LoomMemory;
use super::{Ends, Event, check, ends};

fn pairing() -> Pairing {
    Pairing::new(Limits { max_indirect: 0, dix: Some(DixLimits { interval: 512, metadata_size: 8 }) })
}

/// The two slots of the pair with this number; their ids are `2n` and `2n + 1`.
fn pair(number: u64) -> [RawSlot; 2] {
    let segment = [Segment { gref: GrantRef(8), first_sector: 0, last_sector: 7 }];
    let sector = Sectors(number * 8);
    let data = Request::direct(2 * number, Operation::Write, sector, &segment, true);
    [Encode::request(&data), Encode::payload(2 * number + 1, 0, sector, &segment)]
}

/// A backend that answers `count` pairs. `whole`: each is published by one store, so half a pair must
/// never show.
fn serve(mut ring: BackRing<LoomMemory>, count: u64, to_back: &Event, to_front: &Event, whole: bool) {
    let pairing = pairing();
    let mut served = 0;
    while served < count {
        let want = loop {
            match pairing.next(&mut ring).unwrap() {
                None => break 1,
                Some(Paired::NeedMore(want)) => {
                    assert!(!whole, "half of a pair that was published by one store");
                    assert_eq!(ring.unanswered(), 0, "nothing of half a pair is consumed");
                    break want;
                }
                Some(Paired::Pair { data, payload }) => {
                    assert_eq!((data.id, payload.id), (2 * served, 2 * served + 1));
                    assert_eq!(data.sector, Sectors(served * 8));
                    served += 1;
                    ring.respond(&data.response(Status::Okay));
                    ring.respond(&payload.response(Status::Okay));
                }
                Some(other) => panic!("{other:?}"),
            }
        };
        if ring.publish() {
            to_front.notify();
        }
        if served < count && !ring.arm(want) {
            to_back.wait();
        }
    }
}

/// Takes both responses of a pair.
fn take_pair(ring: &mut FrontRing<LoomMemory>, number: u64, want: u32, to_front: &Event) {
    let mut taken = 0;
    while taken < 2 {
        while let Some(response) = ring.take_response().unwrap() {
            assert_eq!(response.id, 2 * number + taken);
            taken += 1;
        }
        // Both come by one store, so waiting for two is waiting for the first.
        if taken < 2 && !ring.arm(want) {
            to_front.wait();
        }
    }
}

fn exchange(start: u32, count: u64, whole: bool, want: u32) {
    let Ends { mut front, back, to_back, to_front } = ends(2, start);
    let backend = {
        let (to_back, to_front) = (to_back.clone(), to_front.clone());
        thread::spawn(move || serve(back, count, &to_back, &to_front, whole))
    };
    for number in 0..count {
        assert_eq!(front.free(), 2, "a pair starts where there is room for both");
        for slot in pair(number) {
            front.push(&slot).unwrap();
            if !whole && front.publish() {
                to_back.notify();
            }
        }
        if front.publish() {
            to_back.notify();
        }
        take_pair(&mut front, number, want, &to_front);
    }
    backend.join().unwrap();
}

#[test]
fn a_pair_is_published_by_one_store_then_half_of_it_never_shows() {
    check(4, || exchange(0, 1, true, 1));
}

#[test]
fn a_pair_is_published_half_by_half_then_the_second_half_wakes_the_backend() {
    check(4, || exchange(0, 1, false, 2));
}

#[test]
fn pairs_fill_the_ring_then_the_second_waits_for_the_first() {
    check(3, || exchange(0, 2, true, 1));
}

#[test]
fn half_pairs_fill_the_ring_then_the_second_waits_for_the_first() {
    check(3, || exchange(0, 2, false, 1));
}

#[test]
fn a_pair_lies_across_the_rings_end_then_it_is_a_pair() {
    check(3, || exchange(1, 1, false, 1));
}

#[test]
fn a_pair_lies_across_the_indexes_wrap_then_it_is_a_pair() {
    check(3, || exchange(u32::MAX, 2, false, 1));
}

#[test]
fn half_a_pair_waits_behind_a_request_in_flight_then_that_is_answered_meanwhile() {
    check(3, || {
        let Ends { mut front, mut back, to_back, to_front } = ends(4, 0);
        let backend = {
            let (to_back, to_front) = (to_back.clone(), to_front.clone());
            thread::spawn(move || {
                let pairing = pairing();
                let mut in_flight = None;
                let mut done = false;
                while !done {
                    let want = loop {
                        match pairing.next(&mut back).unwrap() {
                            None => break 1,
                            Some(Paired::NeedMore(want)) => break want,
                            Some(Paired::Single(request)) => in_flight = Some(request),
                            Some(Paired::Pair { data, payload }) => {
                                back.respond(&data.response(Status::Okay));
                                back.respond(&payload.response(Status::Okay));
                                done = true;
                            }
                            Some(other) => panic!("{other:?}"),
                        }
                    };
                    // The completion comes after the look at the ring, whatever that found.
                    if let Some(request) = in_flight.take() {
                        back.respond(&request.response(Status::Okay));
                    }
                    if back.publish() {
                        to_front.notify();
                    }
                    if !done && !back.arm(want) {
                        to_back.wait();
                    }
                }
            })
        };
        let [data, payload] = pair(1);
        let flush = Request::direct(9, Operation::Flush, Sectors(0), &[], false);
        front.push(&Encode::request(&flush)).unwrap();
        front.push(&data).unwrap();
        if front.publish() {
            to_back.notify();
        }
        // The second half comes only after the flush's response, so half a pair may not delay that.
        loop {
            match front.take_response().unwrap() {
                Some(response) => break assert_eq!(response.id, 9),
                None if front.arm(1) => {}
                None => to_front.wait(),
            }
        }
        front.push(&payload).unwrap();
        if front.publish() {
            to_back.notify();
        }
        take_pair(&mut front, 1, 1, &to_front);
        backend.join().unwrap();
    });
}
