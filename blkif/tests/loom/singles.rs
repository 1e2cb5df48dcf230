//! Requests of one slot.

use blkif::{BackRing, Encode, FrontRing, Operation, RawSlot, Request, Response, Sectors, Status};
use loom::thread;

use super::memory::LoomMemory;
use super::{Ends, Event, check, ends};

fn flush(id: u64) -> RawSlot {
    // The sector is a second copy of the id: both come from one slot, or something was torn.
    Encode::request(&Request::direct(id, Operation::Flush, Sectors(id), &[], false))
}

/// A backend that answers `count` requests and sleeps when there are none. With `batch`, it answers
/// what it has before it publishes.
fn serve(mut ring: BackRing<LoomMemory>, count: u64, to_back: &Event, to_front: &Event, batch: bool) {
    let mut served = 0;
    while served < count {
        while let Some(slot) = ring.consume().unwrap() {
            assert_eq!(slot.id(), served, "requests come in order");
            assert_eq!(slot.sector(), served, "a slot is whole");
            served += 1;
            ring.respond(&Response { id: slot.id(), operation: slot.echo(), status: Status::Okay });
            if !batch && ring.publish() {
                to_front.notify();
            }
        }
        if ring.publish() {
            to_front.notify();
        }
        if served < count && !ring.arm(1) {
            to_back.wait();
        }
    }
}

/// Takes responses until `taken` reaches `until`, sleeping when there are none.
fn take(ring: &mut FrontRing<LoomMemory>, taken: &mut u64, until: u64, want: u32, to_front: &Event) {
    while *taken < until {
        while let Some(response) = ring.take_response().unwrap() {
            assert_eq!(response.id, *taken, "responses come in order");
            assert_eq!(response.check(3), Ok(Status::Okay));
            *taken += 1;
        }
        if *taken < until && !ring.arm(want.min((until - *taken) as u32)) {
            to_front.wait();
        }
    }
}

/// A frontend that sends `count` requests one by one, as the ring has room, and takes the responses.
fn exchange(entries: usize, start: u32, count: u64, batch: bool) {
    let Ends { mut front, back, to_back, to_front } = ends(entries, start);
    let backend = {
        let (to_back, to_front) = (to_back.clone(), to_front.clone());
        thread::spawn(move || serve(back, count, &to_back, &to_front, batch))
    };
    let mut taken = 0;
    for id in 0..count {
        if front.free() == 0 {
            let until = taken + 1;
            take(&mut front, &mut taken, until, 1, &to_front);
        }
        front.push(&flush(id)).unwrap();
        if front.publish() {
            to_back.notify();
        }
    }
    take(&mut front, &mut taken, count, 1, &to_front);
    backend.join().unwrap();
}

#[test]
fn two_requests_are_sent_one_by_one_then_no_wakeup_is_lost() {
    check(4, || exchange(2, 0, 2, true));
}

#[test]
fn the_ring_is_full_and_wraps_then_no_slot_is_reused_too_early() {
    check(3, || exchange(2, 0, 3, true));
}

#[test]
fn the_indexes_wrap_then_nothing_changes() {
    check(3, || exchange(2, u32::MAX, 3, false));
}

#[test]
fn responses_are_waited_for_two_at_a_time_then_no_wakeup_is_lost() {
    check(4, || {
        let Ends { mut front, back, to_back, to_front } = ends(2, 0);
        let backend = {
            let (to_back, to_front) = (to_back.clone(), to_front.clone());
            thread::spawn(move || serve(back, 2, &to_back, &to_front, false))
        };
        front.push(&flush(0)).unwrap();
        front.push(&flush(1)).unwrap();
        if front.publish() {
            to_back.notify();
        }
        take(&mut front, &mut 0, 2, 2, &to_front);
        backend.join().unwrap();
    });
}
