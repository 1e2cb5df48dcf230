//! A guest that does everything at once, wrong and right, on two queues of a disk with a sidecar, while its pages
//! change under the daemon's hands. Whatever it does, data and PI on the medium agree in the end.

use crate::harness::{BACK, Guest, Wish, profile};
use blkif::{Encode, GrantRef, Operation, RawSlot, Request, Sectors, Segment, Start, Status};
use dixback::image::{BadInterval, Observer, ProtectOptions, ScrubOptions, protect, scrub};
use dixback::queue::Disk;
use dixback::store::{StoreSpec, open};
use hypervisor::{Access, Frontend, PAGE_SIZE, Shared};
use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Sectors of the disk: few, so that requests meet.
const SECTORS: u64 = 2048;
/// Pages that change all the time, and pages that do not.
const PAGES: usize = 64;

thread_local! {
    static DISK: RefCell<PathBuf> = RefCell::default();
}

struct Quiet(Vec<String>);

impl Observer for Quiet {
    fn progress(&mut self, _done: u64, _total: u64) {}
    fn bad(&mut self, interval: &BadInterval) {
        self.0.push(interval.to_string());
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    fn segments(&mut self, pages: &Shared, count: u64) -> Vec<Segment> {
        let mut segment = || {
            let gref = GrantRef(pages.refs()[self.below(PAGES as u64) as usize].0);
            let first = self.below(12).saturating_sub(4) as u8;
            Segment { gref, first_sector: first, last_sector: first + self.below(u64::from(8 - first)) as u8 }
        };
        (0..count).map(|_| segment()).collect()
    }

    fn operation(&mut self) -> Operation {
        match self.below(10) {
            0..4 => Operation::Write,
            4..7 => Operation::Read,
            7 => Operation::WriteBarrier,
            8 => Operation::Flush,
            _ => Operation::Discard { secure: false, sectors: Sectors(self.below(SECTORS)) },
        }
    }

    fn slots(&mut self, guest: &Guest, wild: &Shared) -> Vec<RawSlot> {
        let (operation, sector) = (self.operation(), Sectors(self.below(SECTORS)));
        let flagged = self.below(2) == 0;
        let data = match operation {
            Operation::Discard { .. } => Request::direct(1, operation, sector, &[], false),
            Operation::Read | Operation::Write if self.below(3) == 0 => {
                let count = self.below(64) + 1;
                let segments = self.segments(wild, count);
                let list = 500 + self.below(4) as usize;
                guest.put(list, &blkif::encode_indirect(&segments));
                let list = GrantRef(guest.pages.refs()[list].0);
                Request::indirect(1, operation, sector, count as u16, &[list], flagged)
            }
            _ => {
                let count = self.below(6);
                let segments = self.segments(wild, count);
                Request::direct(1, operation, sector, &segments, flagged)
            }
        };
        let mut slots = vec![Encode::request(&data)];
        if data.is_flagged() && self.below(8) != 0 {
            let count = self.below(3) + 1;
            let segments = self.segments(wild, count);
            slots.push(Encode::payload(2, 0, sector, &segments));
        }
        slots
    }

    /// Sends a handful of requests, right and wrong; gives how many responses are due.
    fn burst(&mut self, guest: &mut Guest, wild: &Shared) -> usize {
        let mut sent = 1;
        for _ in 0..8 {
            let slots = if self.below(3) == 0 { self.right(guest) } else { self.slots(guest, wild) };
            sent += slots.len();
            guest.send(&slots);
        }
        // A flagged last slot waits for its payload: anything completes it.
        let flush = Request::direct(5, Operation::Flush, Sectors(0), &[], false);
        guest.send(&[Encode::request(&flush)]);
        sent
    }

    /// A write whose PI is right.
    fn right(&mut self, guest: &Guest) -> Vec<RawSlot> {
        let sector = self.below(SECTORS - 8);
        let bytes: Vec<u8> = (0..PAGE_SIZE).map(|_| self.below(256) as u8).collect();
        let mut metadata = vec![0; profile().metadata_len(bytes.len())];
        profile().generate(&bytes, &mut metadata, sector, 7);
        let page = self.below(40) as usize;
        guest.put(page, &bytes);
        guest.put(40 + page, &metadata);
        let data = Request::direct(3, Operation::Write, Sectors(sector), &guest.whole(page, 1), true);
        vec![
            Encode::request(&data),
            Encode::payload(4, 0, Sectors(sector), &[guest.segment(40 + page, 0, 0)]),
        ]
    }
}

/// A small disk with a sidecar, and two queues on it.
struct Scene {
    one: Guest,
    two: Guest,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.img");
        std::fs::File::create(&path).unwrap().set_len(SECTORS * 512).unwrap();
        let options = ProtectOptions {
            disk: path.clone(),
            sidecar: None,
            profile: profile(),
            log: None,
            app_tag: 0,
            force: false,
            non_atomic: false,
        };
        protect(&options, &mut Quiet(Vec::new())).unwrap();
        DISK.with_borrow_mut(|disk| disk.clone_from(&path));
        let sidecar: fn(Disk) -> Disk = |disk| {
            let spec =
                DISK.with_borrow(|path| StoreSpec { cache_bytes: 64 << 10, ..StoreSpec::new(path.clone()) });
            Disk { store: open(&spec, "a test").unwrap(), ..disk }
        };
        let one = Guest::new(Wish { disk: sidecar, pool: 1 << 20, order: 2, ..Wish::default() });
        let mut two = Guest::new(Wish { pool: 1 << 20, order: 2, ..Wish::default() });
        two.stop();
        two.disk = Arc::clone(&one.disk);
        two.start(Start::At(0));
        Self { one, two, path, _dir: dir }
    }

    /// Closes the disk and looks whether its data and PI agree.
    fn end(self) {
        let Self { one, two, path, _dir } = self;
        one.disk.store.close().unwrap();
        drop((one, two));
        let mut found = Quiet(Vec::new());
        let scrubbed = scrub(&ScrubOptions { disk: path, sidecar: None }, &mut found).unwrap();
        assert_eq!(scrubbed.bad, 0, "{:#?}", found.0);
        assert!(scrubbed.unprotected < scrubbed.intervals, "nothing was ever written");
    }
}

#[test]
fn data_and_pi_when_a_guest_does_everything_at_once_then_agree_in_the_end() {
    let mut scene = Scene::new();
    let Scene { one, two, .. } = &mut scene;
    let stop = AtomicBool::new(false);
    let mut random = Random(0x2545_F491_4F6C_DD1D);
    let mut okay = 0;
    let wild = [&*one, &*two].map(|guest| guest.guest.share(BACK, PAGES, Access::ReadWrite).unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random(88_172_645_463_325_252);
            while !stop.load(Ordering::Relaxed) {
                let at = random.below((PAGES * PAGE_SIZE / 8) as u64) as usize * 8;
                for pages in &wild {
                    pages.write(at, &random.below(u64::MAX).to_le_bytes());
                }
            }
        });
        for _ in 0..150 {
            let mut sent = [0, 0];
            for ((guest, wild), sent) in [&mut *one, &mut *two].into_iter().zip(&wild).zip(&mut sent) {
                *sent = random.burst(guest, wild);
            }
            for (guest, sent) in [&mut *one, &mut *two].into_iter().zip(sent) {
                for _ in 0..sent {
                    okay += u32::from(guest.response().status == Status::Okay.wire());
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(okay > 500, "{okay}");
    for guest in [&mut *one, &mut *two] {
        let stopped = guest.stop();
        assert!(stopped.resumable);
        assert_eq!(stopped.stats.medium_mismatches(), 0, "{:?}", stopped.stats);
    }
    scene.end();
}

#[test]
fn queues_when_stopped_in_the_middle_of_everything_then_go_on_and_answer_each_slot_once() {
    let mut scene = Scene::new();
    let Scene { one, two, .. } = &mut scene;
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let wild = [&*one, &*two].map(|guest| guest.guest.share(BACK, PAGES, Access::ReadWrite).unwrap());
    for _ in 0..100 {
        let mut sent = [0, 0];
        for ((guest, wild), sent) in [&mut *one, &mut *two].into_iter().zip(&wild).zip(&mut sent) {
            *sent = random.burst(guest, wild);
        }
        // Somewhere in the middle, wherever that is.
        std::thread::sleep(std::time::Duration::from_micros(random.below(2000)));
        for guest in [&mut *one, &mut *two] {
            guest.queue.as_ref().unwrap().request_stop();
        }
        for (guest, sent) in [&mut *one, &mut *two].into_iter().zip(sent) {
            let stopped = guest.stop();
            assert!(stopped.resumable);
            assert_eq!(stopped.stats.medium_mismatches(), 0, "{:?}", stopped.stats);
            guest.start(Start::At(stopped.rsp_prod));
            for _ in 0..sent {
                guest.response();
            }
            assert_eq!(guest.ring.unanswered(), 0);
        }
    }
    assert!(one.stop().resumable && two.stop().resumable);
    scene.end();
}
