//! The table's tests: single steps, threads at random, and (with `--cfg loom`) every interleaving of small cases.

use super::*;

#[cfg(loom)]
mod model;
#[cfg(not(loom))]
mod threads;

#[cfg(not(loom))]
fn none() -> impl FnMut(u32) {
    |who| panic!("{who} was given a span")
}

#[cfg(not(loom))]
#[test]
fn span_when_longer_than_the_table_or_empty_is_none() {
    let ranges: Ranges<u32> = Ranges::with_lanes(4096, 7);
    assert!(ranges.span(0, 0, true).is_none());
    assert!(ranges.span(0, 7 * 4096, true).is_some());
    assert!(ranges.span(1, 7 * 4096, true).is_none());
    assert!(ranges.span(u64::MAX, 2, true).is_none());
    assert_eq!(ranges.span(6 * 4096, 8192, true), Some(Span { first: 6, count: 2, exclusive: true }));
}

#[cfg(not(loom))]
#[test]
fn conflict_when_spans_go_round_the_end_is_what_sets_of_lanes_say() {
    let ranges: Ranges<u32> = Ranges::with_lanes(4096, 7);
    let lanes = |span: &Span| -> Vec<u32> { (0..span.count).map(|i| (span.first + i) % 7).collect() };
    for (a_first, a_count, b_first, b_count) in
        (0..7 * 7 * 7 * 7).map(|n| (n % 7, n / 7 % 7 + 1, n / 49 % 7, n / 343 % 7 + 1))
    {
        let a = Span { first: a_first, count: a_count, exclusive: true };
        let b = Span { first: b_first, count: b_count, exclusive: false };
        let shared = lanes(&a).iter().any(|lane| lanes(&b).contains(lane));
        assert_eq!(ranges.conflict(&a, &b), shared, "{a:?} {b:?}");
        assert!(!ranges.conflict(&Span { exclusive: false, ..a }, &b));
    }
}

#[cfg(not(loom))]
#[test]
fn readers_when_a_writer_waits_queue_behind_it_and_all_are_served_in_order() {
    let ranges = Ranges::with_lanes(4096, 7);
    let read = ranges.span(0, 8192, false).unwrap();
    let write = ranges.span(4096, 8192, true).unwrap();
    assert!(ranges.acquire(read, || 0, &mut none()));
    assert!(!ranges.acquire(write, || 1, &mut none()));
    // Both would pass if the writer did not wait.
    assert!(!ranges.acquire(read, || 2, &mut none()));
    assert!(!ranges.acquire(ranges.span(8192, 512, false).unwrap(), || 3, &mut none()));
    // This one overlaps nobody.
    assert!(ranges.acquire(ranges.span(4 * 4096, 4096, true).unwrap(), || 4, &mut none()));

    let mut given = Vec::new();
    ranges.release(read, &mut |who| given.push(who));
    assert_eq!(given, [1]);
    ranges.release(write, &mut |who| given.push(who));
    assert_eq!(given, [1, 2, 3]);
}

#[cfg(not(loom))]
#[test]
fn release_when_the_last_reader_of_a_marked_unit_is_a_failed_taker_still_wakes() {
    // 0 reads unit 0; 1 writes unit 1. 2 wants both shared: parked on unit 1. 3 wants unit 0 exclusively: parked.
    let ranges = Ranges::with_lanes(4096, 7);
    let unit =
        |first: u64, count: u64, exclusive| ranges.span(first * 4096, count * 4096, exclusive).unwrap();
    assert!(ranges.acquire(unit(0, 1, false), || 0, &mut none()));
    assert!(ranges.acquire(unit(1, 1, true), || 1, &mut none()));
    assert!(!ranges.acquire(unit(0, 2, false), || 2, &mut none()));
    assert!(!ranges.acquire(unit(0, 1, true), || 3, &mut none()));
    let mut given = Vec::new();
    ranges.release(unit(0, 1, false), &mut |who| given.push(who));
    assert!(given.is_empty(), "3 is behind 2, and 2 behind 1");
    ranges.release(unit(1, 1, true), &mut |who| given.push(who));
    assert_eq!(given, [2]);
    ranges.release(unit(0, 2, false), &mut |who| given.push(who));
    assert_eq!(given, [2, 3]);
}

#[cfg(not(loom))]
#[test]
fn parts_when_a_span_crosses_words_and_the_end_name_each_lane_once() {
    let ranges: Ranges<u32> = Ranges::with_lanes(4096, 37);
    for (first, count) in (0..37).flat_map(|first| (1..=37).map(move |count| (first, count))) {
        let mut lanes = vec![0; 40];
        for (word, mask) in ranges.parts(Span { first, count, exclusive: true }) {
            let number = ranges.words.iter().position(|other| std::ptr::eq(other, word)).unwrap();
            for (lane, byte) in mask.to_le_bytes().into_iter().enumerate() {
                assert!(byte == 0 || byte == 0xFF);
                lanes[number * 8 + lane] += u32::from(byte == 0xFF);
            }
        }
        let expected: Vec<u32> =
            (0..40).map(|lane| u32::from(lane < 37 && (lane + 37 - first) % 37 < count)).collect();
        assert_eq!(lanes, expected, "{first} {count}");
    }
}

#[cfg(not(loom))]
#[test]
fn readers_when_more_than_a_lane_counts_wait_and_are_served() {
    let ranges = Ranges::with_lanes(4096, 16);
    let read = ranges.span(0, 16 * 4096, false).unwrap();
    for reader in 0..63 {
        assert!(ranges.acquire(read, || reader, &mut none()));
    }
    let write = ranges.span(4096, 1, true).unwrap();
    assert!(!ranges.acquire(read, || 63, &mut none()));
    assert!(!ranges.acquire(write, || 64, &mut none()));
    let mut given = Vec::new();
    for _ in 0..63 {
        assert!(given.is_empty());
        ranges.release(read, &mut |who| given.push(who));
    }
    assert_eq!(given, [63]);
    ranges.release(read, &mut |who| given.push(who));
    assert_eq!(given, [63, 64]);
    ranges.release(write, &mut none());
    assert!(ranges.words.iter().all(|word| word.load(Ordering::Relaxed) == 0));
}
