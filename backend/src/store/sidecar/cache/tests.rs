//! The cache's tests, without a medium: loads end when the test says so.

use super::*;
use crate::io::Doorbell;

struct Fixture {
    cache: Cache,
    inbox: Arc<Inbox>,
}

impl Fixture {
    /// One set.
    fn new() -> Self {
        Self { cache: Cache::new(0).unwrap(), inbox: Arc::new(Inbox::new(Doorbell::new().unwrap())) }
    }

    fn access(&self, block: u64, access: Access, pinned: bool, slot: usize) -> Found {
        let waiter = || Waiter { inbox: Arc::clone(&self.inbox), slot };
        self.cache.access(block, access, pinned, waiter, |bytes| {
            if access != Access::Read {
                bytes[..8].copy_from_slice(&block.to_le_bytes());
            }
        })
    }

    /// Has a block that is missing loaded.
    fn load(&self, block: u64) -> Frame {
        let Found::Load(frame) = self.access(block, Access::Read, false, 0) else { panic!() };
        frame
    }

    /// Loads a block that is missing, and uses it.
    fn bring(&self, block: u64) {
        let Found::Load(frame) = self.access(block, Access::Read, false, 0) else { panic!() };
        self.cache.loaded(frame, Ok(()), &self.inbox);
        assert_eq!(self.events(), [(0, Wake::Block { block, pinned: true, error: None })]);
        assert_eq!(self.access(block, Access::Read, true, 0), Found::Done(Kick::No));
    }

    fn contains(&self, block: u64) -> bool {
        self.cache.set_of(block).1.find(block).is_some()
    }

    fn events(&self) -> Vec<(usize, Wake)> {
        let mut events = Vec::new();
        self.inbox.take(&mut events);
        events
    }
}

#[test]
fn largest_prime_when_small_is_right() {
    let found: Vec<_> = [0, 1, 2, 4, 9, 512].into_iter().map(largest_prime).collect();
    assert_eq!(found, [1, 1, 2, 3, 7, 509]);
}

#[test]
fn access_when_two_miss_the_same_block_loads_once_and_pins_for_both() {
    let fixture = Fixture::new();
    let Found::Load(frame) = fixture.access(5, Access::Read, false, 1) else { panic!() };
    assert_eq!(fixture.cache.block_of(frame), 5);
    assert_eq!(fixture.access(5, Access::Change, false, 2), Found::Wait);
    fixture.cache.loaded(frame, Ok(()), &fixture.inbox);
    let wake = Wake::Block { block: 5, pinned: true, error: None };
    assert_eq!(fixture.events(), [(1, wake), (2, wake)]);
    assert_eq!(fixture.access(5, Access::Read, true, 1), Found::Done(Kick::No));
    assert_eq!(fixture.access(5, Access::Change, true, 2), Found::Done(Kick::Later));
    assert_eq!(fixture.cache.dirty(), 1);
}

#[test]
fn loaded_when_it_failed_tells_why_and_forgets_the_block() {
    let fixture = Fixture::new();
    let Found::Load(frame) = fixture.access(5, Access::Read, false, 1) else { panic!() };
    fixture.cache.loaded(frame, Err(Errno(libc::EIO)), &fixture.inbox);
    assert_eq!(
        fixture.events(),
        [(1, Wake::Block { block: 5, pinned: false, error: Some(Errno(libc::EIO)) })]
    );
    assert!(!fixture.contains(5));
}

#[test]
fn loaded_when_the_disk_has_a_hole_gives_escapes() {
    let fixture = Fixture::new();
    let frame = fixture.load(5);
    fixture.cache.loaded(frame, Ok(()), &fixture.inbox);
    let waiter = || panic!("it is there");
    let mut seen = Vec::new();
    fixture.cache.access(5, Access::Read, false, waiter, |bytes| seen.extend_from_slice(bytes));
    assert_eq!(seen, [0xFF; BLOCK]);
}

#[test]
fn evict_when_full_takes_what_was_not_used_lately_and_never_what_is_dirty() {
    let fixture = Fixture::new();
    for block in 0..16 {
        fixture.bring(block);
    }
    fixture.access(3, Access::Change, false, 0);
    fixture.bring(16);
    // The clock has gone round and cleared every mark but those of 16 and of what was used since.
    for block in (0..16).filter(|block| fixture.contains(*block)).take(4) {
        fixture.access(block, Access::Read, false, 0);
    }
    let used: Vec<u64> = (0..16).filter(|block| fixture.contains(*block)).take(4).collect();
    for block in 17..24 {
        fixture.bring(block);
    }
    assert!(used.iter().all(|block| fixture.contains(*block)), "{used:?}");
    assert!(fixture.contains(3));
}

/// Makes as many frames dirty as may be.
fn dirty_all(fixture: &Fixture) {
    for block in 0..14 {
        let kick = match block {
            0 => Kick::Later,
            8 | 12.. => Kick::Now,
            _ => Kick::No,
        };
        assert_eq!(fixture.access(block, Access::Replace, false, 0), Found::Done(kick), "{block}");
    }
}

#[test]
fn change_when_too_many_frames_are_dirty_waits_until_one_is_written_and_reads_do_not() {
    let fixture = Fixture::new();
    dirty_all(&fixture);
    assert_eq!(fixture.access(99, Access::Replace, false, 7), Found::Starved);
    assert_eq!(fixture.access(98, Access::Change, false, 8), Found::Starved);
    fixture.bring(97);
    assert_eq!(fixture.access(97, Access::Change, false, 9), Found::Starved);
    assert_eq!(fixture.access(3, Access::Change, false, 0), Found::Done(Kick::No), "dirty already");
    let mut blocks = Vec::new();
    fixture.cache.list_dirty(&mut blocks);
    assert_eq!(blocks.len(), 14);

    let mut copy = [0; BLOCK];
    assert!(fixture.cache.start_writing(4, &mut copy));
    assert_eq!(copy[..8], (!4u64).to_le_bytes());
    assert!(copy[8..].iter().all(|byte| *byte == 0), "unwritten entries are a hole's");
    assert_eq!(fixture.events(), [], "a frame that is being written does not count as written");
    assert_eq!(fixture.cache.written(4, Ok(())), Ok(()));
    let wake = |block| Wake::Block { block, pinned: false, error: None };
    assert_eq!(fixture.events(), [(7, wake(99)), (8, wake(98)), (9, wake(97))]);
    assert_eq!(fixture.access(97, Access::Change, false, 9), Found::Done(Kick::Now));
    assert_eq!(fixture.access(99, Access::Replace, false, 7), Found::Starved);
}

#[test]
fn change_when_its_block_was_pinned_and_too_many_are_dirty_holds_no_frame() {
    let fixture = Fixture::new();
    let Found::Load(frame) = fixture.access(50, Access::Change, false, 1) else { panic!() };
    fixture.cache.loaded(frame, Ok(()), &fixture.inbox);
    assert_eq!(fixture.events().len(), 1);
    dirty_all(&fixture);
    assert_eq!(fixture.access(50, Access::Change, true, 1), Found::Starved);
    fixture.bring(60);
    fixture.bring(61);
    assert!(!fixture.contains(50), "it could be evicted");
}

#[test]
fn read_when_no_frame_is_free_starves_until_one_is() {
    let fixture = Fixture::new();
    dirty_all(&fixture);
    let Found::Load(one) = fixture.access(50, Access::Read, false, 1) else { panic!() };
    let Found::Load(_) = fixture.access(51, Access::Read, false, 2) else { panic!() };
    assert_eq!(fixture.access(52, Access::Read, false, 3), Found::Starved);
    fixture.cache.loaded(one, Ok(()), &fixture.inbox);
    let wake = |block, pinned| Wake::Block { block, pinned, error: None };
    assert_eq!(fixture.events(), [(1, wake(50, true))], "a pinned frame is not free");
    assert_eq!(fixture.access(50, Access::Read, true, 1), Found::Done(Kick::No));
    assert_eq!(fixture.events(), [(3, wake(52, false))]);
    assert!(matches!(fixture.access(52, Access::Read, false, 3), Found::Load(_)));
}

#[test]
fn written_when_it_failed_keeps_the_block_dirty_and_tells_who_would_make_more() {
    let fixture = Fixture::new();
    dirty_all(&fixture);
    assert_eq!(fixture.access(99, Access::Change, false, 7), Found::Starved);
    let mut copy = [0; BLOCK];
    assert!(fixture.cache.start_writing(4, &mut copy));
    assert_eq!(fixture.cache.dirty(), 13);
    assert_eq!(fixture.cache.written(4, Err(Errno(libc::ENOSPC))), Err(Errno(libc::ENOSPC)));
    assert_eq!(fixture.cache.dirty(), 14);
    let error = Some(Errno(libc::ENOSPC));
    assert_eq!(fixture.events(), [(7, Wake::Block { block: 99, pinned: false, error })]);
}

#[test]
fn written_when_changed_meanwhile_leaves_the_block_dirty() {
    let fixture = Fixture::new();
    fixture.access(4, Access::Replace, false, 0);
    let mut copy = [0; BLOCK];
    assert!(fixture.cache.start_writing(4, &mut copy));
    fixture.access(4, Access::Change, false, 0);
    assert_eq!(fixture.cache.written(4, Ok(())), Ok(()));
    assert_eq!(fixture.cache.dirty(), 1);
    assert!(fixture.cache.start_writing(4, &mut copy));
}

#[test]
fn forget_when_a_block_is_dirty_drops_it_and_when_it_is_in_use_does_not() {
    let fixture = Fixture::new();
    assert!(fixture.cache.forget(4));
    fixture.access(4, Access::Replace, false, 0);
    assert!(fixture.cache.forget(4));
    assert_eq!((fixture.contains(4), fixture.cache.dirty()), (false, 0));
    let frame = fixture.load(5);
    assert!(!fixture.cache.forget(5));
    fixture.cache.loaded(frame, Ok(()), &fixture.inbox);
    fixture.access(5, Access::Change, true, 0);
    assert!(fixture.cache.start_writing(5, &mut [0; BLOCK]));
    assert!(!fixture.cache.forget(5));
    assert_eq!(fixture.cache.written(5, Ok(())), Ok(()));
    assert!(fixture.cache.forget(5));
}

/// `cargo test -p dixback --release --lib cost -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn cost_of_table_and_cache_when_uncontended() {
    use crate::store::ranges::Ranges;
    let per_block: u64 = 256 << 10;
    for (place, disk) in [("within 64 MiB", 64u64 << 20), ("within 1 GiB", 1 << 30)] {
        let cache = Cache::new(32 << 20).unwrap();
        let ranges: Ranges<u32> = Ranges::new(4096);
        for block in 0..disk / per_block {
            cache.access(block, Access::Replace, false, || panic!(), |_| {});
        }
        for (bytes, exclusive) in [(4096, false), (4096, true), (128 << 10, false), (128 << 10, true)] {
            let mut metadata = vec![0u8; bytes as usize / 64];
            let mut request = |offset: u64, table: bool, entries: bool| {
                let span = ranges.span(offset, bytes, exclusive).unwrap();
                if table {
                    assert!(ranges.acquire(span, || 0, &mut |_| ()));
                }
                if entries {
                    let access = if exclusive { Access::Change } else { Access::Read };
                    let from = (offset % per_block / 64) as usize;
                    cache.access(
                        offset / per_block,
                        access,
                        false,
                        || panic!(),
                        |block| {
                            let entries = &mut block[from..from + metadata.len()];
                            if exclusive {
                                entries.copy_from_slice(&metadata)
                            } else {
                                metadata.copy_from_slice(entries)
                            }
                        },
                    );
                }
                if table {
                    ranges.release(span, &mut |_| ());
                }
            };
            let mut measure = |table, entries| {
                let mut at = 1u64;
                let mut times: Vec<_> = (0..15)
                    .map(|_| {
                        let start = std::time::Instant::now();
                        for _ in 0..200_000 {
                            at = at
                                .wrapping_mul(6_364_136_223_846_793_005)
                                .wrapping_add(1_442_695_040_888_963_407);
                            request((at >> 20) % disk / bytes * bytes, table, entries);
                        }
                        start.elapsed().as_nanos() / 200_000
                    })
                    .collect();
                times.sort_unstable();
                (times[0], times[7])
            };
            let kind = if exclusive { "write" } else { "read" };
            let (table, entries, both) = (measure(true, false), measure(false, true), measure(true, true));
            println!(
                "{kind} of {bytes} bytes {place}: ns (best, median): table {table:?}, cache {entries:?}, both {both:?}"
            );
        }
    }
}
