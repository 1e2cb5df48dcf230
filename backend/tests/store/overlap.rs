//! Several queues at random on the same few places: whoever reads gets data and tuple of the same write.
//!
//! Every interval a write makes holds a number, and its application tag is that number; the data is arranged so that
//! the guard of an interval is the same whatever the number (the IP guard adds up words and ignores their order), so
//! the guard alone could not tell one write's tuple from another's.

use crate::driver::Driver;
use crate::support::{Image, Numbers, profile};
use dixback::image::{ScrubOptions, scrub};
use dixback::store::{Completion, Direct, Op, Store, StoreSpec, open};
use integrity::{Expected, Guard, Profile};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Requests of each queue, unless DIXBACK_TEST_ROUNDS says otherwise.
const ROUNDS: usize = 1500;
const DEPTH: usize = 12;

#[derive(Clone, Copy)]
struct Plan {
    profile: Profile,
    bytes: u64,
    cache: usize,
    direct: Direct,
    /// Where requests go: within this many bytes of one of a few places.
    spread: u64,
    queues: u64,
}

/// Fills one interval: two words that add up to the same, whatever the number is.
fn fill(data: &mut [u8], number: u16) {
    data.fill(0);
    data[..2].copy_from_slice(&number.to_be_bytes());
    data[2..4].copy_from_slice(&(!number).to_be_bytes());
    data[8..10].copy_from_slice(&number.to_be_bytes());
    data[14..16].copy_from_slice(&(!number).to_be_bytes());
}

/// Checks what a read brought; gives how many intervals were escapes.
fn check(profile: Profile, offset: u64, data: &[u8], metadata: &[u8]) -> usize {
    let first = offset / profile.interval() as u64;
    let checked = profile.verify(data, metadata, &Expected::new(first)).unwrap_or_else(|mismatch| {
        panic!("at {offset}: {mismatch}");
    });
    let intervals = data.chunks(profile.interval()).zip(metadata.chunks(profile.metadata_size()));
    for (data, metadata) in intervals {
        if profile.is_escaped(metadata) {
            assert!(data.iter().all(|byte| *byte == 0), "an escape over data");
            assert!(metadata.iter().all(|byte| *byte == 0xFF), "half an escape");
            continue;
        }
        let number = u16::from_be_bytes([data[0], data[1]]);
        assert_eq!(profile.tuple(metadata).application, number, "the tuple of another write");
        let mut whole = vec![0; data.len()];
        fill(&mut whole, number);
        assert!(data == whole, "the data of two writes");
    }
    checked.escaped
}

fn finish(driver: &mut Driver, plan: &Plan, completion: Completion, offset: u64, reads: &AtomicU64) {
    assert_eq!(completion.result, Ok(()));
    let Some(lease) = completion.buffer else { return };
    let (data, metadata) = lease.parts();
    check(plan.profile, offset, data, metadata);
    driver.give_back(lease);
    reads.fetch_add(1, Ordering::Relaxed);
}

fn play(store: &Arc<dyn Store>, plan: &Plan, queue: u64, reads: &AtomicU64) {
    let mut driver = Driver::new(store);
    let mut numbers = Numbers(queue * 7919 + 1);
    let interval = u64::from(store.geometry().logical_block);
    let mut offsets = std::collections::HashMap::new();
    let rounds = std::env::var("DIXBACK_TEST_ROUNDS").map_or(ROUNDS, |text| text.parse().unwrap());
    for _ in 0..rounds {
        while driver.pending() >= DEPTH {
            driver.turn(true);
            for completion in driver.finished() {
                let offset = offsets.remove(&completion.id).unwrap();
                finish(&mut driver, plan, completion, offset, reads);
            }
        }
        let place = numbers.below(4) * (plan.bytes / 4);
        let offset = (place + numbers.below(plan.spread) / interval * interval).min(plan.bytes - interval);
        let most = (plan.bytes - offset).min(if numbers.below(8) == 0 { 256 << 10 } else { 16 << 10 });
        let bytes = (numbers.below(most) / interval + 1) * interval;
        let bytes = bytes.min(plan.bytes - offset);
        let id = match numbers.below(20) {
            0 => driver.start(Op::Flush, 0, 0, None),
            1 => driver.start(Op::Discard, offset, (bytes * 8).min(plan.bytes - offset), None),
            2..=9 => {
                let mut lease = driver.buffer(bytes as usize);
                let (data, metadata) = lease.parts_mut();
                // 0xFFFF would be an escape.
                let number = (numbers.next() % 0xFFFF) as u16;
                for (data, metadata) in data
                    .chunks_mut(plan.profile.interval())
                    .zip(metadata.chunks_mut(plan.profile.metadata_size()))
                {
                    fill(data, number);
                    metadata.fill(number as u8);
                }
                plan.profile.generate(data, metadata, offset / plan.profile.interval() as u64, number);
                let fua = numbers.below(10) == 0;
                driver.start(Op::Write { fua }, offset, bytes, Some(lease))
            }
            _ => {
                let mut lease = driver.buffer(bytes as usize);
                lease.parts_mut().1.fill(0x5A);
                driver.start(Op::Read, offset, bytes, Some(lease))
            }
        };
        offsets.insert(id, offset);
        driver.turn(false);
    }
    while driver.pending() > 0 {
        for completion in driver.finished() {
            let offset = offsets.remove(&completion.id).unwrap();
            finish(&mut driver, plan, completion, offset, reads);
        }
        if driver.pending() > 0 {
            driver.turn(true);
        }
    }
}

fn run(plan: Plan) {
    let image = Image::protected(plan.bytes, plan.profile);
    let spec = StoreSpec { cache_bytes: plan.cache, direct: plan.direct, ..image.spec() };
    let store = open(&spec, "overlap").unwrap();
    let reads = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for queue in 0..plan.queues {
            let (store, plan, reads) = (&store, &plan, &reads);
            scope.spawn(move || play(store, plan, queue, reads));
        }
    });
    let statistics: std::collections::HashMap<_, _> = store.statistics().into_iter().collect();
    eprintln!("{} reads and writes, {statistics:?}", reads.load(Ordering::Relaxed));
    assert!(statistics["range_waits"] > 0, "the queues never met");
    store.close().unwrap();
    drop(store);

    // Everything is there again after a reopen, seen by a store with an empty cache and by the scrub.
    let store = open(&spec, "overlap").unwrap();
    assert_eq!(store.attach_report(), None);
    let mut driver = Driver::new(&store);
    let mut escaped = 0;
    for offset in (0..plan.bytes).step_by(1 << 20) {
        let bytes = (plan.bytes - offset).min(1 << 20);
        let (data, metadata) = driver.read(offset, bytes as usize).unwrap();
        escaped += check(plan.profile, offset, &data, &metadata) as u64;
    }
    drop(driver);
    store.close().unwrap();
    drop(store);
    let found = scrub(&ScrubOptions { disk: image.path.clone(), sidecar: None }, &mut ()).unwrap();
    assert_eq!((found.bad, found.unprotected), (0, escaped));
}

#[test]
fn queues_when_overlapping_never_see_a_tuple_of_another_write() {
    let profile = profile(Guard::Ip, 512, 8, 0);
    run(Plan { profile, bytes: 16 << 20, cache: 1 << 20, direct: Direct::Auto, spread: 64 << 10, queues: 2 });
}

#[test]
fn queues_when_the_cache_is_far_too_small_evict_and_lose_nothing() {
    // 256 sidecar blocks, 16 of which fit.
    let profile = profile(Guard::Ip, 512, 8, 0);
    run(Plan { profile, bytes: 64 << 20, cache: 0, direct: Direct::Auto, spread: 16 << 20, queues: 3 });
}

#[test]
fn queues_when_entries_leave_slack_and_io_is_buffered_agree() {
    let profile = profile(Guard::Ip, 512, 21, 13);
    run(Plan { profile, bytes: 4 << 20, cache: 64 << 10, direct: Direct::Off, spread: 1 << 20, queues: 2 });
}

#[test]
fn queues_when_the_interval_is_4096_agree() {
    let profile = profile(Guard::Crc64Nvme, 4096, 16, 0);
    run(Plan { profile, bytes: 32 << 20, cache: 0, direct: Direct::Auto, spread: 128 << 10, queues: 2 });
}
