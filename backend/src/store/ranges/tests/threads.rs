//! Threads at random spans: exclusion is kept, and everybody is served.

use super::*;
use std::sync::Arc;
use std::sync::atomic::AtomicI32;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

const UNITS: u64 = 24;

struct Disk {
    ranges: Ranges<Sender<()>>,
    /// Readers, or -1 for a writer.
    holders: Vec<AtomicI32>,
}

fn worker(disk: &Disk, mut seed: u32) {
    let (tell, told): (Sender<()>, Receiver<()>) = channel();
    let mut granted = |who: Sender<()>| who.send(()).unwrap();
    for _ in 0..20_000 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let first = u64::from(seed >> 8) % UNITS;
        let count = (u64::from(seed >> 16) % 5 + 1).min(UNITS - first);
        let exclusive = seed >> 30 == 0;
        let span = disk.ranges.span(first * 4096, count * 4096, exclusive).unwrap();
        if !disk.ranges.acquire(span, || tell.clone(), &mut granted) {
            told.recv().unwrap();
        }
        let step = if exclusive { -1 } else { 1 };
        let mine = first as usize..(first + count) as usize;
        for holders in &disk.holders[mine.clone()] {
            let before = holders.fetch_add(step, Ordering::Relaxed);
            assert!(if exclusive { before == 0 } else { before >= 0 }, "{before}");
        }
        for holders in &disk.holders[mine] {
            holders.fetch_sub(step, Ordering::Relaxed);
        }
        disk.ranges.release(span, &mut granted);
    }
}

#[test]
fn threads_when_contending_exclude_each_other_and_all_end() {
    // As many lanes as units, so that a lane's holders are a unit's.
    let holders = (0..UNITS).map(|_| AtomicI32::new(0)).collect();
    let disk = Arc::new(Disk { ranges: Ranges::with_lanes(4096, UNITS as u32), holders });
    let threads: Vec<_> = (0..4u32)
        .map(|n| {
            let disk = Arc::clone(&disk);
            thread::spawn(move || worker(&disk, n.wrapping_mul(0x9E37_79B9)))
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(disk.ranges.waiting.load(Ordering::Relaxed), 0);
    assert!(disk.ranges.words.iter().all(|word| word.load(Ordering::Relaxed) == 0), "no mark is left");
}
