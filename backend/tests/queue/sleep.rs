//! Falling asleep: a request, or the second half of a pair, that arrives at any moment of it is answered.

use crate::harness::{Guest, Wish};
use blkif::{Encode, Operation, RawSlot, Request, Sectors, Status};
use std::time::{Duration, Instant};

/// Spins for up to `longest` nanoseconds, so that what follows meets the queue at another point of its way to sleep.
fn pause(seed: &mut u64, longest: u64) {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    let until = std::time::Instant::now() + Duration::from_nanos((*seed >> 33) % longest);
    while std::time::Instant::now() < until {
        std::hint::spin_loop();
    }
}

fn slots(guest: &Guest, flagged: bool) -> Vec<RawSlot> {
    let data = Request::direct(1, Operation::Read, Sectors(8), &guest.whole(1, 1), flagged);
    let payload = Encode::payload(2, 0, Sectors(8), &[guest.segment(2, 0, 0)]);
    let mut slots = vec![Encode::request(&data)];
    slots.extend(flagged.then_some(payload));
    slots
}

fn play(rounds: u32, spin: Duration, longest: u64) {
    let mut guest = Guest::new(Wish { spin, ..Wish::default() });
    let mut seed = 1;
    for round in 0..rounds {
        let slots = slots(&guest, round % 3 != 0);
        for slot in &slots {
            // Each half is published for itself, and the queue may have gone to sleep between them.
            guest.send(std::slice::from_ref(slot));
            pause(&mut seed, longest);
        }
        if round % 5 == 0 {
            // An event without a request.
            guest.channel.notify().unwrap();
        }
        let answers = guest.responses(slots.len());
        assert!(answers.values().all(|status| *status == Status::Okay), "round {round}: {answers:?}");
        pause(&mut seed, longest);
    }
    assert!(guest.stop().resumable);
}

#[test]
fn what_another_thread_completes_is_answered_though_a_flood_of_slots_keeps_the_queue_from_sleeping() {
    let mut guest = Guest::new(Wish { spin: Duration::from_secs(1), ..Wish::default() });
    let read = slots(&guest, false);
    // Sleeps, each a bit longer than the queue spins, which makes it spin twice as long: soon it never sleeps.
    for doubling in 0..13 {
        guest.send(&read);
        assert_eq!(guest.response().id, 1);
        std::thread::sleep(Duration::from_micros(100 << doubling));
    }
    let lone = Encode::payload(9, 0, Sectors(8), &[guest.segment(2, 0, 0)]);
    for round in 0..3 {
        guest.store.state.lock().unwrap().hold = true;
        let before = guest.store.asked().len();
        guest.send(&read);
        while guest.store.asked().len() == before {
            guest.ask(&lone);
        }
        guest.store.release();
        let answered = (0..300_000).any(|_| guest.ask(&lone).id == 1);
        assert!(answered, "round {round}: nothing of it for as long as slots came");
    }
}

#[test]
fn a_storm_of_events_without_requests_wakes_the_queue_once_a_millisecond_at_most() {
    let mut guest = Guest::new(Wish { spin: Duration::ZERO, ..Wish::default() });
    let read = slots(&guest, false);
    for _ in 0..3 {
        let begun = Instant::now();
        let before = guest.queue.as_ref().unwrap().stats().unmasks;
        while begun.elapsed() < Duration::from_millis(200) {
            guest.channel.notify().unwrap();
        }
        let unmasks = guest.queue.as_ref().unwrap().stats().unmasks - before;
        let most = 30 + begun.elapsed().as_millis() as u64;
        assert!(unmasks <= most, "{unmasks}, at most {most}");
        assert_eq!(guest.ask(&read[0]).status, Status::Okay);
    }
}

#[test]
fn a_slot_at_any_moment_of_falling_asleep_is_answered_without_spinning() {
    play(6_000, Duration::ZERO, 4_000);
}

#[test]
fn a_slot_at_any_moment_of_falling_asleep_is_answered_with_spinning() {
    play(3_000, Duration::from_micros(20), 30_000);
}
