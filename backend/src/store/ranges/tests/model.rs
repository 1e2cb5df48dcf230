//! Every interleaving of a few threads: `RUSTFLAGS="--cfg loom" cargo test -p dixback --lib --release ranges`.
//!
//! A lost wake-up leaves a thread waiting for ever, which loom reports as a deadlock; a broken exclusion is a
//! concurrent access to one of the cells behind the lanes.

use super::*;
use loom::cell::UnsafeCell;
use loom::sync::atomic::AtomicBool;
use loom::sync::{Arc, Notify};
use loom::thread;

/// What a waiter is told by; loom's notifications may be spurious.
struct Told {
    given: AtomicBool,
    notify: Notify,
}

struct Disk {
    ranges: Ranges<Arc<Told>>,
    cells: Vec<UnsafeCell<u32>>,
}

/// Holds `count` units from `first` on once, and touches what they protect.
fn use_range(disk: &Disk, first: u64, count: u64, exclusive: bool) {
    let span = disk.ranges.span(first * 4096, count * 4096, exclusive).unwrap();
    let told = Arc::new(Told { given: AtomicBool::new(false), notify: Notify::new() });
    let mut granted = |who: Arc<Told>| {
        who.given.store(true, Ordering::Release);
        who.notify.notify();
    };
    if !disk.ranges.acquire(span, || Arc::clone(&told), &mut granted) {
        while !told.given.load(Ordering::Acquire) {
            told.notify.wait();
        }
    }
    for cell in disk.cells.iter().skip(first as usize).take(count as usize) {
        if exclusive {
            // SAFETY: loom checks it: that the range is held exclusively is what the test is about.
            cell.with_mut(|value| unsafe { *value += 1 });
        } else {
            // SAFETY: as above, for a shared range.
            cell.with(|value| unsafe { *value });
        }
    }
    disk.ranges.release(span, &mut granted);
}

fn explore(users: &'static [(u64, u64, bool)], preemptions: usize) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(move || {
        let cells = (0..10).map(|_| UnsafeCell::new(0)).collect();
        let disk = Arc::new(Disk { ranges: Ranges::with_lanes(4096, 10), cells });
        let (&(first, count, exclusive), others) = users.split_first().unwrap();
        let threads: Vec<_> = others
            .iter()
            .map(|&(first, count, exclusive)| {
                let disk = Arc::clone(&disk);
                thread::spawn(move || use_range(&disk, first, count, exclusive))
            })
            .collect();
        use_range(&disk, first, count, exclusive);
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(disk.ranges.waiting.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn two_writers_when_overlapping_exclude_each_other_and_both_end() {
    explore(&[(6, 3, true), (8, 2, true)], 4);
}

#[test]
fn reader_and_writer_when_overlapping_exclude_each_other_and_both_end() {
    explore(&[(7, 2, false), (8, 1, true)], 4);
}

#[test]
fn two_readers_and_a_writer_when_overlapping_all_end() {
    explore(&[(7, 2, false), (8, 1, false), (7, 2, true)], 3);
}

#[test]
fn reader_between_two_writers_when_all_overlap_all_end() {
    explore(&[(7, 2, false), (7, 1, true), (8, 1, true)], 3);
}

#[test]
fn chain_when_the_middle_one_overlaps_both_others_all_end() {
    explore(&[(6, 1, true), (6, 3, true), (8, 1, false)], 3);
}
