//! Notifications: responses of turns that follow each other share one, and none waits for long.

use crate::harness::{Guest, Wish};
use blkif::{Encode, Operation, Request, Sectors, Status};
use std::sync::Arc;

/// Sends so many barriers without data at once, each of which is a turn of its own; how many were answered when the guest,
/// which asked for the first response, was notified.
fn announced(count: usize) -> Vec<u32> {
    let mut guest = Guest::new(Wish { dix: false, profile: None, ..Wish::default() });
    // An answer, and the first notification, which is for whoever was there before, are over.
    let flush = Request::direct(0, Operation::Flush, Sectors(0), &[], false);
    guest.ask(&Encode::request(&flush));
    *guest.switches.ring.lock().unwrap() = Some(Arc::clone(&guest.ring_pages));
    assert!(!guest.ring.arm(1));
    let barrier = |id| Request::direct(id, Operation::WriteBarrier, Sectors(0), &[], false);
    let slots: Vec<_> = (1..=count as u64).map(|id| Encode::request(&barrier(id))).collect();
    guest.send(&slots);
    while guest.store.asked().len() < 1 + count {
        std::thread::yield_now();
    }
    assert!(guest.stop().resumable);
    let answers = guest.responses(count);
    assert!(answers.len() == count && answers.values().all(|status| *status == Status::Okay), "{answers:?}");
    let announced = guest.switches.announced.lock().unwrap();
    announced.iter().map(|rsp_prod| rsp_prod - 1).collect()
}

#[test]
fn a_notification_when_the_ring_has_more_waits_for_the_last_of_it() {
    assert_eq!(announced(1), [1]);
    assert_eq!(announced(5), [5]);
}

#[test]
fn a_notification_when_the_ring_has_much_more_waits_for_a_batch() {
    assert_eq!(announced(20), [8]);
}
