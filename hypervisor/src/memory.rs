//! The one place that touches bytes another domain can change, and what keeps such bytes mapped.
//!
//! Plain memory copies, not volatile word copies: the compiler can neither see nor assume anything about
//! the other side of a mapping it was handed as a raw pointer, the copy is taken once into memory nobody
//! else writes, and only that is looked at. Indexes of a ring need atomics; they are not accessed here.

use std::ptr::NonNull;

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
