//! A queue's buffer pool: private pages for data, with each page's metadata beside it.
//!
//! One arena, fixed at connect. A lease is a run of whole pages, so a request's data is contiguous; metadata lies
//! in a second run with a fixed stride per page, so it is contiguous too and needs no allocator of its own.
//! The lowest free run wins: the pages used last are the ones still in the cache.
//!
//! ```text
//! data      | page 0 | page 1 | page 2 | ...      a lease: pages 1..=2
//! metadata  | m0 | m1 | m2 | ...                           m1..=m2
//! ```

use memmap2::{MmapOptions, MmapRaw};
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

/// Bytes of a page; a grant names one page of this size on every platform Xen runs on.
pub const PAGE: usize = 4096;

/// A queue's private buffers. A pool that goes before all its leases have come back leaves its memory mapped for
/// good: the kernel may still write there.
#[derive(Debug)]
pub struct Pool {
    /// Shared with nobody, but for a pool that goes too early.
    arena: Arc<MmapRaw>,
    /// One bit per page, set while the page is free.
    free: Vec<u64>,
    pages: usize,
    leased: usize,
    metadata_start: usize,
    metadata_per_page: usize,
}

/// A run of the pool's pages, owned by whoever works on the request. It goes back by [`Pool::give_back`]; a lease
/// dropped elsewhere would leak pages, and debug builds panic on it.
#[derive(Debug)]
#[must_use = "a lease goes back to its pool"]
pub struct Lease {
    data: NonNull<u8>,
    metadata: NonNull<u8>,
    bytes: u32,
    metadata_bytes: u32,
    first: u32,
    pages: u32,
}

// SAFETY: a lease is the only owner of its run of pages, which stay mapped while it is out, if need be for good.
unsafe impl Send for Lease {}

impl Pool {
    /// A pool of `bytes` of data (rounded up to pages), with `metadata_per_page` bytes of metadata for each page.
    ///
    /// # Errors
    /// The memory cannot be mapped.
    pub fn new(bytes: usize, metadata_per_page: usize) -> io::Result<Self> {
        let pages = bytes.div_ceil(PAGE);
        let metadata_start = pages * PAGE;
        let length = Self::footprint(bytes, metadata_per_page);
        let arena = Arc::new(MmapRaw::from(MmapOptions::new().len(length).populate().map_anon()?));
        let mut free = vec![u64::MAX; pages.div_ceil(64)];
        if !pages.is_multiple_of(64)
            && let Some(last) = free.last_mut()
        {
            *last = (1 << (pages % 64)) - 1;
        }
        Ok(Self { arena, free, pages, leased: 0, metadata_start, metadata_per_page })
    }

    /// Bytes of memory that such a pool takes.
    pub fn footprint(bytes: usize, metadata_per_page: usize) -> usize {
        let pages = bytes.div_ceil(PAGE);
        pages * PAGE + (pages * metadata_per_page).next_multiple_of(PAGE)
    }

    /// The data pages as one range, for registration with an io_uring: start and length in bytes.
    pub fn data_range(&self) -> (*mut u8, usize) {
        (self.arena.as_mut_ptr(), self.metadata_start)
    }

    /// How many pages are leased.
    pub fn leased(&self) -> usize {
        self.leased
    }

    /// A run for `bytes` of data and `metadata_bytes` of metadata; none while no run is long enough.
    /// The contents are whatever the last user left: fill before use.
    pub fn take(&mut self, bytes: usize, metadata_bytes: usize) -> Option<Lease> {
        let count = bytes.div_ceil(PAGE).max(1);
        debug_assert!(metadata_bytes <= count * self.metadata_per_page);
        let first = self.find(count)?;
        for page in first..first + count {
            self.free[page / 64] &= !(1 << (page % 64));
        }
        self.leased += count;
        let base = self.arena.as_mut_ptr();
        let metadata_at = self.metadata_start + first * self.metadata_per_page;
        Some(Lease {
            // wrapping_add: both offsets lie inside the arena, which find() and the layout above ensure.
            data: NonNull::new(base.wrapping_add(first * PAGE))?,
            metadata: NonNull::new(base.wrapping_add(metadata_at))?,
            bytes: u32::try_from(bytes).ok()?,
            metadata_bytes: u32::try_from(metadata_bytes).ok()?,
            first: u32::try_from(first).ok()?,
            pages: u32::try_from(count).ok()?,
        })
    }

    /// Takes a lease back.
    pub fn give_back(&mut self, lease: Lease) {
        let (first, count) = (lease.first as usize, lease.pages as usize);
        for page in first..first + count {
            debug_assert_eq!(self.free[page / 64] >> (page % 64) & 1, 0, "a page given back twice");
            self.free[page / 64] |= 1 << (page % 64);
        }
        self.leased -= count;
        std::mem::forget(lease);
    }

    /// The lowest run of `count` free pages.
    fn find(&self, count: usize) -> Option<usize> {
        let mut at = 0;
        loop {
            let start = self.next(at, true)?;
            let end = self.next(start, false).unwrap_or(self.pages);
            if end - start >= count {
                return Some(start);
            }
            at = end;
        }
    }

    /// The first page at or after `at` that is free (or, with `free` false, leased).
    fn next(&self, at: usize, free: bool) -> Option<usize> {
        let mut word = at / 64;
        let mut mask = u64::MAX << (at % 64);
        while let Some(&bits) = self.free.get(word) {
            let hits = if free { bits } else { !bits } & mask;
            if hits != 0 {
                let page = word * 64 + hits.trailing_zeros() as usize;
                return (page < self.pages).then_some(page);
            }
            mask = u64::MAX;
            word += 1;
        }
        None
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.leased > 0 {
            std::mem::forget(Arc::clone(&self.arena));
        }
    }
}

impl Lease {
    /// Where the data lies, page-aligned.
    pub fn data_ptr(&self) -> *mut u8 {
        self.data.as_ptr()
    }

    /// Where the metadata lies.
    pub fn metadata_ptr(&self) -> *mut u8 {
        self.metadata.as_ptr()
    }

    /// Bytes of data.
    pub fn len(&self) -> usize {
        self.bytes as usize
    }

    /// Whether the lease holds no data (a lease of metadata alone).
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Bytes of metadata.
    pub fn metadata_len(&self) -> usize {
        self.metadata_bytes as usize
    }

    /// The data and its metadata.
    pub fn parts(&self) -> (&[u8], &[u8]) {
        // SAFETY: the run is mapped, initialised (anonymous memory) and owned by this lease.
        let data = unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.len()) };
        // SAFETY: as above; the metadata run is disjoint from the data run.
        let metadata = unsafe { std::slice::from_raw_parts(self.metadata.as_ptr(), self.metadata_len()) };
        (data, metadata)
    }

    /// The data and its metadata, to write.
    pub fn parts_mut(&mut self) -> (&mut [u8], &mut [u8]) {
        // SAFETY: the run is mapped and owned by this lease, which is borrowed mutably.
        let data = unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), self.bytes as usize) };
        // SAFETY: as above; the metadata run is disjoint from the data run.
        let metadata =
            unsafe { std::slice::from_raw_parts_mut(self.metadata.as_ptr(), self.metadata_bytes as usize) };
        (data, metadata)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        debug_assert!(std::thread::panicking(), "a lease was dropped instead of given back");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn take_when_full_gives_none_and_after_give_back_fits_again() {
        let mut pool = Pool::new(70 * PAGE, 64).unwrap();
        let all = pool.take(70 * PAGE, 70 * 64).unwrap();
        assert!(pool.take(1, 0).is_none());
        pool.give_back(all);
        let again = pool.take(70 * PAGE, 0).unwrap();
        assert_eq!(pool.leased(), 70);
        pool.give_back(again);
        assert_eq!(pool.leased(), 0);
    }

    #[test]
    fn leases_when_interleaved_never_overlap() {
        let mut pool = Pool::new(200 * PAGE, 8).unwrap();
        let mut held: Vec<Lease> = Vec::new();
        let mut seed = 7u32;
        for _ in 0..10_000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if seed & 0x100 == 0
                && let Some(lease) = pool.take(((seed >> 12) % 20 + 1) as usize * PAGE, 8)
            {
                for other in &held {
                    let (a, b) =
                        (lease.first..lease.first + lease.pages, other.first..other.first + other.pages);
                    assert!(a.end <= b.start || b.end <= a.start);
                }
                held.push(lease);
            } else if !held.is_empty() {
                let index = (seed >> 12) as usize % held.len();
                pool.give_back(held.swap_remove(index));
            }
        }
        for lease in held {
            pool.give_back(lease);
        }
        assert_eq!(pool.leased(), 0);
    }

    #[test]
    fn memory_of_a_lease_when_its_pool_is_gone_stays_its_own() {
        let mut pool = Pool::new(4 * PAGE, 8).unwrap();
        let mut lease = pool.take(2 * PAGE, 16).unwrap();
        drop(pool);
        // What is mapped from now on would come to lie where the pool was.
        let mut others: Vec<Pool> = (0..16).map(|_| Pool::new(4 * PAGE, 8).unwrap()).collect();
        lease.parts_mut().0.fill(7);
        for other in &mut others {
            let theirs = other.take(4 * PAGE, 32).unwrap();
            assert!(theirs.parts().0.iter().all(|byte| *byte == 0));
            other.give_back(theirs);
        }
        std::mem::forget(lease);
    }

    #[test]
    fn metadata_of_neighbours_is_contiguous_and_disjoint() {
        let mut pool = Pool::new(4 * PAGE, 64).unwrap();
        let mut first = pool.take(2 * PAGE, 128).unwrap();
        let mut second = pool.take(PAGE, 64).unwrap();
        first.parts_mut().1.fill(1);
        second.parts_mut().1.fill(2);
        assert!(first.parts().1.iter().all(|b| *b == 1));
        assert_eq!(first.metadata_ptr().wrapping_add(128), second.metadata_ptr());
        pool.give_back(first);
        pool.give_back(second);
    }
}
