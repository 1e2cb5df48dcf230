//! When the host itself fails a queue, and what the counters say.

use crate::harness::{Guest, Wish};
use blkif::{Encode, Operation, RawSlot, Request, Sectors, Status};
use std::sync::atomic::Ordering;
use std::time::Duration;

fn write(id: u64, guest: &Guest) -> RawSlot {
    Encode::request(&Request::direct(id, Operation::Write, Sectors(id * 8), &guest.whole(0, 1), false))
}

fn wait(what: &str, mut until: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + Duration::from_secs(60);
    while !until() {
        assert!(std::time::Instant::now() < end, "waited a minute for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn an_event_channel_that_fails_ends_the_queue_after_what_it_has_taken_is_done_and_answered() {
    let mut guest = Guest::new(Wish::default());
    guest.store.state.lock().unwrap().hold = true;
    let slot = write(1, &guest);
    guest.send(&[slot]);
    wait("the write", || !guest.store.asked().is_empty());
    guest.switches.channel.store(true, Ordering::Relaxed);
    guest.channel.notify().unwrap();
    wait("the failure", || guest.switches.failed.load(Ordering::Relaxed) > 0);
    guest.store.release();
    wait("the end", || guest.queue.as_ref().unwrap().failure().is_some());
    let response = guest.ring.take_response().unwrap().expect("the write was never answered");
    assert_eq!((response.id, response.status), (1, Status::Okay.wire()));
    assert!(!guest.stop().resumable);
}

#[test]
fn an_event_channel_that_cannot_be_unmasked_ends_an_idle_queue_at_once() {
    let mut guest = Guest::new(Wish::default());
    let slot = write(1, &guest);
    assert_eq!(guest.ask(&slot).status, Status::Okay);
    guest.switches.unmask.store(true, Ordering::Relaxed);
    guest.channel.notify().unwrap();
    wait("the end", || guest.queue.as_ref().unwrap().failure().is_some());
    assert!(!guest.stop().resumable);
}

#[test]
fn copies_that_fail_as_a_whole_fail_their_requests_and_the_ring_goes_on() {
    let mut guest = Guest::new(Wish::default());
    guest.switches.copies.store(true, Ordering::Relaxed);
    let page = guest.whole(0, 1);
    let list = [blkif::GrantRef(guest.pages.refs()[1].0)];
    let slots = [
        write(1, &guest),
        Encode::request(&Request::direct(2, Operation::Read, Sectors(0), &page, false)),
        Encode::request(&Request::indirect(3, Operation::Read, Sectors(0), 20, &list, false)),
    ];
    guest.send(&slots);
    let answers = guest.responses(3);
    assert!(answers.values().all(|status| *status == Status::Error), "{answers:?}");
    guest.switches.copies.store(false, Ordering::Relaxed);
    let slot = write(4, &guest);
    assert_eq!(guest.ask(&slot).status, Status::Okay);
}

#[test]
fn counters_tell_kernel_entries_flushes_and_how_often_the_pool_was_short() {
    let mut guest = Guest::new(Wish { pool: 0, max_indirect: 11, ..Wish::default() });
    for operation in [Operation::Flush, Operation::WriteBarrier] {
        let empty = Encode::request(&Request::direct(1, operation, Sectors(0), &[], false));
        assert_eq!(guest.ask(&empty).status, Status::Okay);
    }
    // One more than the pool has pages.
    guest.store.state.lock().unwrap().hold = true;
    let slots: Vec<_> = (0..12).map(|id| write(id, &guest)).collect();
    guest.send(&slots);
    wait("a full pool", || guest.store.asked().len() == 2 + 11);
    for _ in 0..5 {
        // An event makes the queue look, in vain.
        let before = guest.queue.as_ref().unwrap().stats().wakeups;
        guest.channel.notify().unwrap();
        wait("a look", || guest.queue.as_ref().unwrap().stats().wakeups > before);
    }
    guest.store.release();
    assert_eq!(guest.responses(12).len(), 12);
    let stats = guest.queue.as_ref().unwrap().stats();
    assert_eq!((stats.flushes, stats.writes, stats.pool_waits), (2, 12, 1));
    assert!(stats.submits > 0, "{stats:?}");
}

#[test]
fn a_queue_that_is_lost_with_requests_under_way_holds_up_no_other_queue_of_the_disk() {
    let mut guest = Guest::new(Wish::default());
    let mut other = Guest::new(Wish::default());
    other.stop();
    other.disk = guest.disk.clone();
    other.start(blkif::Start::At(0));
    // What a request of the second queue waits for in the store, a range of the first's say, never comes.
    guest.store.state.lock().unwrap().hold = true;
    let slot = write(1, &other);
    other.send(&[slot]);
    let slot = write(1, &guest);
    guest.send(&[slot]);
    wait("both writes", || guest.store.asked().len() == 2);
    guest.store.state.lock().unwrap().panic = true;
    let slot = write(2, &guest);
    guest.send(&[slot]);
    wait("the end", || guest.queue.as_ref().unwrap().failure().is_some());
    assert!(guest.disk.lost.is());
    assert!(!guest.stop().resumable);
    assert!(other.queue.as_ref().unwrap().failure().is_none(), "it served on until it was told to stop");
    assert!(!other.stop().resumable);
}

#[test]
fn counters_when_a_queue_stops_have_what_it_did_while_it_drained() {
    let mut guest = Guest::new(Wish::default());
    guest.store.state.lock().unwrap().hold = true;
    let slot = write(1, &guest);
    guest.send(&[slot]);
    wait("the write", || !guest.store.asked().is_empty());
    guest.queue.as_ref().unwrap().request_stop();
    guest.store.release();
    assert_eq!(guest.stop().stats.writes, 1);
}

#[test]
fn an_event_channel_that_its_queue_closes_is_closed_at_once() {
    let mut guest = Guest::new(Wish { spin: Duration::ZERO, ..Wish::default() });
    let at = guest.stop().rsp_prod;
    for _ in 0..20 {
        *guest.switches.pipe.lock().unwrap() = Some(std::io::pipe().unwrap());
        guest.start(blkif::Start::At(at));
        wait("a turn", || guest.queue.as_ref().unwrap().stats().turns > 0);
        // Time to fall asleep on it.
        std::thread::sleep(Duration::from_millis(1));
        guest.stop();
    }
    // On Xen a channel's port is bound for as long as anything has it open, and nobody else can bind it.
    assert_eq!(guest.switches.kept_open.load(Ordering::Relaxed), 0);
}
