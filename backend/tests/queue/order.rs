//! Barriers, flushes, backpressure, stopping and going on.

use crate::harness::{Guest, Wish};
use blkif::{Encode, Operation, Request, Sectors, Start, Status};
use dixback::store::Op;
use std::time::Duration;

fn plain(id: u64, operation: Operation, sector: u64, guest: &Guest, page: usize) -> blkif::RawSlot {
    Encode::request(&Request::direct(id, operation, Sectors(sector), &guest.whole(page, 1), false))
}

fn empty(id: u64, operation: Operation) -> blkif::RawSlot {
    Encode::request(&Request::direct(id, operation, Sectors(u64::MAX), &[], false))
}

#[test]
fn barrier_waits_for_earlier_requests_flushes_writes_durably_and_only_then_lets_later_ones_through() {
    let mut guest = Guest::new(Wish::default());
    guest.store.state.lock().unwrap().hold = true;
    let slots = [
        plain(1, Operation::Write, 0, &guest, 0),
        plain(2, Operation::Write, 8, &guest, 1),
        plain(3, Operation::WriteBarrier, 16, &guest, 2),
        plain(4, Operation::Write, 24, &guest, 3),
    ];
    guest.send(&slots);
    assert_eq!(guest.response_within(Duration::from_millis(100)), None);
    assert_eq!(guest.store.asked().len(), 2, "the barrier or what follows it was started too early");
    guest.store.release();
    let order: Vec<u64> = (0..4).map(|_| guest.response().id).collect();
    assert_eq!(order, [1, 2, 3, 4]);
    let ops: Vec<Op> = guest.store.asked().iter().map(|asked| asked.op).collect();
    let write = Op::Write { fua: false };
    assert_eq!(ops, [write, write, Op::Flush, Op::Write { fua: true }, write]);
}

#[test]
fn flush_with_data_flushes_then_writes_durably_and_empty_flush_ignores_its_sector() {
    let mut guest = Guest::new(Wish::default());
    let slot = plain(1, Operation::Flush, 0, &guest, 0);
    assert_eq!(guest.ask(&slot).status, Status::Okay);
    assert_eq!(guest.ask(&empty(2, Operation::Flush)).status, Status::Okay);
    assert_eq!(guest.ask(&empty(3, Operation::WriteBarrier)).status, Status::Okay);
    let ops: Vec<Op> = guest.store.asked().iter().map(|asked| asked.op).collect();
    assert_eq!(ops, [Op::Flush, Op::Write { fua: true }, Op::Flush, Op::Flush]);
}

#[test]
fn a_pool_of_one_request_serves_a_full_ring_of_the_largest() {
    let mut guest = Guest::new(Wish { pool: 0, max_indirect: 64, order: 1, ..Wish::default() });
    let (pages, count) = (64, 30);
    for id in 0..count {
        let list = 500 + id as usize;
        let segments = guest.whole(0, pages);
        guest.put(list, &blkif::encode_indirect(&segments));
        let grefs = [blkif::GrantRef(guest.pages.refs()[list].0)];
        let sector = Sectors(id * 512);
        let request = Request::indirect(id, Operation::Write, sector, pages as u16, &grefs, false);
        guest.send(&[Encode::request(&request)]);
    }
    let answers = guest.responses(count as usize);
    assert!(answers.values().all(|status| *status == Status::Okay), "{answers:?}");
    assert_eq!(answers.len(), count as usize);
    assert!(guest.queue.as_ref().unwrap().stats().pool_waits > 0, "the pool was never short");
}

#[test]
fn stop_drains_what_was_taken_and_a_new_queue_goes_on_at_the_last_response() {
    let mut guest = Guest::new(Wish::default());
    guest.store.state.lock().unwrap().hold = true;
    let slots: Vec<_> = (0..5).map(|id| plain(id, Operation::Write, id * 8, &guest, id as usize)).collect();
    guest.send(&slots);
    while guest.store.asked().len() < 5 {
        std::thread::yield_now();
    }
    guest.store.release();
    let stopped = guest.stop();
    assert!(stopped.resumable);
    assert_eq!(stopped.rsp_prod, 5);
    // Sent while nobody serves: answered by the next queue.
    let late = plain(9, Operation::Write, 80, &guest, 9);
    guest.send(&[late]);
    guest.start(Start::At(stopped.rsp_prod));
    assert_eq!(guest.responses(6).len(), 6);
}

#[test]
fn stop_tells_the_store_to_hurry_while_something_is_under_way() {
    let mut guest = Guest::new(Wish::default());
    guest.store.state.lock().unwrap().hold = true;
    let whole = Operation::Discard { secure: false, sectors: Sectors(crate::memory::DISK / 512) };
    guest.send(&[Encode::request(&Request::direct(1, whole, Sectors(0), &[], false))]);
    while guest.store.asked().is_empty() {
        std::thread::yield_now();
    }
    assert!(!guest.store.state.lock().unwrap().hurried);
    guest.queue.as_ref().unwrap().request_stop();
    let end = std::time::Instant::now() + Duration::from_secs(60);
    while !guest.store.state.lock().unwrap().hurried {
        assert!(std::time::Instant::now() < end, "the store was never told");
        std::thread::sleep(Duration::from_millis(1));
    }
    guest.store.release();
    assert!(guest.stop().resumable);
    assert_eq!(guest.responses(1), [(1, Status::Okay)].into());
}

#[test]
fn half_a_pair_is_left_alone_neither_polled_for_nor_in_the_way() {
    let mut guest = Guest::new(Wish::default());
    guest.store.state.lock().unwrap().hold = true;
    let slot = plain(1, Operation::Read, 0, &guest, 0);
    guest.send(&[slot]);
    let (data, metadata) = (guest.whole(1, 1), [guest.segment(2, 0, 0)]);
    guest.send(&[Encode::request(&Request::direct(2, Operation::Read, Sectors(8), &data, true))]);
    assert_eq!(guest.response_within(Duration::from_millis(50)), None);
    guest.store.release();
    assert_eq!(guest.response().id, 1, "half a pair held up a completion");
    let turns = |guest: &Guest| guest.queue.as_ref().unwrap().stats().turns;
    let before = turns(&guest);
    assert_eq!(guest.response_within(Duration::from_millis(50)), None);
    // It may have been on its way to sleep.
    assert!(turns(&guest) - before < 5, "half a pair is polled for");
    let stopped = guest.stop();
    assert!(stopped.resumable, "half a pair held up a stop");
    assert_eq!(stopped.rsp_prod, 1);
    guest.start(Start::At(1));
    guest.send(&[Encode::payload(3, 0, Sectors(8), &metadata)]);
    assert_eq!(guest.responses(2), [(2, Status::Okay), (3, Status::Okay)].into());
}
