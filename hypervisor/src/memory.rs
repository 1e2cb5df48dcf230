//! The one place that touches bytes another domain can change, and what keeps such bytes mapped.
//!
//! Plain memory copies, not volatile word copies: the compiler can neither see nor assume anything about
//! the other side of a mapping it was handed as a raw pointer, the copy is taken once into memory nobody
//! else writes, and only that is looked at. Indexes of a ring need atomics; they are not accessed here.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

use memmap2::{MmapOptions, MmapRaw};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

use crate::PAGE_SIZE;

/// Granted pages of another domain, mapped. Dropping it unmaps them, and the grants are released when
/// the drop returns.
pub struct Mapping {
    base: NonNull<u8>,
    len: usize,
    _owner: Box<dyn Send>,
}

// SAFETY: the pages are shared memory by nature, reached through the raw pointer only; the owner is Send.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Pages that an implementation has mapped; dropping `owner` unmaps them.
    ///
    /// # Safety
    /// `len` bytes at `base` are mapped read-write until `owner` is dropped, and no Rust reference to
    /// them exists.
    pub unsafe fn new<O: Send + 'static>(base: NonNull<u8>, len: usize, owner: O) -> Self {
        Self { base, len, _owner: Box::new(owner) }
    }

    /// Where the pages start, page-aligned.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Bytes mapped.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.len
    }
}

impl std::fmt::Debug for Mapping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mapping").field("base", &self.base).field("len", &self.len).finish()
    }
}

/// Copies `len` bytes, one side of which another domain may be changing.
///
/// # Safety
/// Both sides are mapped for `len` bytes, the destination writable; they do not overlap.
#[inline(always)]
pub(crate) unsafe fn copy(from: *const u8, into: *mut u8, len: usize) {
    // SAFETY: the caller's promise.
    unsafe { std::ptr::copy_nonoverlapping(from, into, len) }
}

/// A whole memory file, mapped read-write and shared. The files behind it never shrink, so that it stays
/// valid whoever dies.
pub(crate) struct Region {
    map: MmapRaw,
}

impl Region {
    /// Maps `len` bytes of `file`.
    pub(crate) fn new(file: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        use std::os::fd::AsRawFd;
        MmapOptions::new().len(len).map_raw(file.as_raw_fd()).map(|map| Self { map })
    }

    /// Where it starts.
    pub(crate) fn base(&self) -> *mut u8 {
        self.map.as_mut_ptr()
    }

    /// Its size in bytes.
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// The 32-bit word at byte `offset`. Panics beyond the end or off a word's boundary.
    pub(crate) fn word32(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset < self.map.len());
        // SAFETY: inside the mapping (checked), which lives as long as `self`; aligned, since the mapping
        // is by pages; only ever accessed as an atomic, by every process that has it.
        unsafe { AtomicU32::from_ptr(self.base().wrapping_add(offset).cast()) }
    }

    /// The 64-bit word at byte `offset`. Panics beyond the end or off a word's boundary.
    pub(crate) fn word64(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset < self.map.len());
        // SAFETY: as in `word32`.
        unsafe { AtomicU64::from_ptr(self.base().wrapping_add(offset).cast()) }
    }
}

/// Pages of a memory file, in any order, mapped side by side.
pub(crate) struct Pages {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: an owned range of address space; unmapping works from any thread.
unsafe impl Send for Pages {}

impl Pages {
    /// Maps the pages numbered `frames` of `file`, read-write.
    pub(crate) fn new(file: BorrowedFd<'_>, frames: &[u64]) -> io::Result<Self> {
        let len = frames.len() * PAGE_SIZE;
        // SAFETY: a fresh range of address space, chosen by the kernel.
        let base =
            unsafe { mmap_anonymous(std::ptr::null_mut(), len, ProtFlags::empty(), MapFlags::PRIVATE) }?;
        let base = NonNull::new(base.cast::<u8>()).expect("the kernel maps nothing at 0");
        let pages = Self { base, len };
        for (index, frame) in frames.iter().enumerate() {
            let at = base.as_ptr().wrapping_add(index * PAGE_SIZE).cast();
            let flags = MapFlags::SHARED | MapFlags::FIXED;
            let offset = frame * PAGE_SIZE as u64;
            // SAFETY: replaces one page of the range reserved above, which nothing else uses.
            unsafe { mmap(at, PAGE_SIZE, ProtFlags::READ | ProtFlags::WRITE, flags, file, offset) }?;
        }
        Ok(pages)
    }

    /// Where the first page is.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Bytes mapped.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the range `new` reserved; whoever had its address has given it up with the owner.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok(), "an owned range can be unmapped");
    }
}
