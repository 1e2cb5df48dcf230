//! What several tests share: ring memory on the heap, seen from both ends.
#![allow(dead_code)]

use std::ptr::NonNull;
use std::sync::Arc;

use blkif::{Abi, BackRing, FrontRing, GrantRef, Segment, SharedMemory, Start};

/// The allocation behind both ends' views; freed with the last of them.
struct Pages(*mut [u64]);

// SAFETY: only the views reach the bytes, by atomics; this only frees them.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: made by Box::into_raw in `views`, and no view is left.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

/// Two views of the same zeroed bytes.
pub fn views(bytes: usize) -> (SharedMemory, SharedMemory) {
    let pages = Box::into_raw(vec![0u64; bytes.div_ceil(8)].into_boxed_slice());
    let base = NonNull::new(pages.cast::<u8>()).expect("a box is not null");
    let pages = Arc::new(Pages(pages));
    let view = |owner: Arc<Pages>| {
        // SAFETY: the allocation lives as long as its owners, and no reference to it exists.
        unsafe { SharedMemory::new(base, bytes, owner) }
    };
    (view(pages.clone()), view(pages))
}

/// Both ends of a new ring whose indexes stand at `start`.
pub fn rings_at(abi: Abi, bytes: usize, start: u32) -> (FrontRing<SharedMemory>, BackRing<SharedMemory>) {
    let (front, back) = views(bytes);
    let front = FrontRing::init_at(front, abi, start).expect("a ring fits");
    let back = BackRing::attach(back, abi, Start::At(start)).expect("a ring fits");
    (front, back)
}

/// Both ends of a new ring of `pages` pages.
pub fn rings(abi: Abi, pages: usize) -> (FrontRing<SharedMemory>, BackRing<SharedMemory>) {
    rings_at(abi, pages * 4096, 0)
}

/// A segment, unchecked.
pub fn segment(gref: u32, first_sector: u8, last_sector: u8) -> Segment {
    Segment { gref: GrantRef(gref), first_sector, last_sector }
}

/// Says that a test did not run, as continuous integration counts it.
pub fn skipped(name: &str, reason: &str) {
    use std::io::Write;
    let line = format!("SKIPPED {name}: {reason}\n");
    eprint!("{line}");
    if let Some(log) = std::env::var_os("DIXBACK_SKIP_LOG") {
        let log = std::fs::OpenOptions::new().append(true).create(true).open(log);
        log.and_then(|mut log| log.write_all(line.as_bytes())).expect("the log of skipped tests opens");
    }
}
