//! Real shared memory: the one place with unsafe code, and the one that touches bytes of the guest.
//!
//! Accesses are relaxed atomics of 32 bits (indexes: with the ordering asked for). An atomic load
//! gives one value, so the compiler may not fetch twice what the guest may change in between
//! (XSA-155), and a racing writer is no undefined behaviour here.

use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use crate::memory::{Index, RingMemory};

const WORD: usize = size_of::<u32>();

/// Memory that another domain, or another process, shares.
pub struct SharedMemory {
    base: NonNull<AtomicU32>,
    words: usize,
    /// Keeps the mapping alive; dropped, and thereby unmapped, with this.
    _owner: Box<dyn Send>,
}

// SAFETY: the memory is reached by atomics only, from whichever thread, and the owner is Send.
unsafe impl Send for SharedMemory {}

impl SharedMemory {
    /// Takes `len` bytes from `base` on, which `owner` keeps mapped until it is dropped.
    ///
    /// # Safety
    /// `base` to `base + len` stays mapped readable and writable as long as `owner` lives, and no
    /// Rust reference to any of it exists meanwhile. Another domain or process may write it at will.
    ///
    /// # Panics
    /// If `base` is not aligned to 4 bytes.
    pub unsafe fn new<O: Send + 'static>(base: NonNull<u8>, len: usize, owner: O) -> Self {
        let base = base.cast::<AtomicU32>();
        assert!(base.is_aligned(), "shared memory is not aligned to 4 bytes");
        Self { base, words: len / WORD, _owner: Box::new(owner) }
    }

    /// The words from the byte offset on, `count` of them.
    fn words(&self, offset: usize, count: usize) -> &[AtomicU32] {
        let first = offset / WORD;
        assert!(
            offset.is_multiple_of(WORD) && first <= self.words && count <= self.words - first,
            "access outside the ring"
        );
        // SAFETY: first <= words, so the pointer stays within the mapping, or at its end (`new`).
        let start = unsafe { self.base.add(first) };
        // SAFETY: start is aligned, and count words from it are mapped while self lives (`new`).
        // The bytes are shared with writers elsewhere; AtomicU32 is what may be referenced then.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), count) }
    }

    fn index(&self, index: Index) -> &AtomicU32 {
        let [first, ..] = self.words(index.offset(), 1) else {
            unreachable!("words gives what was asked for")
        };
        first
    }
}

impl fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedMemory({} bytes)", self.words * WORD)
    }
}

impl RingMemory for SharedMemory {
    fn size(&self) -> usize {
        self.words * WORD
    }

    #[inline]
    fn load(&self, index: Index, order: Ordering) -> u32 {
        u32::from_le(self.index(index).load(order))
    }

    #[inline]
    fn store(&self, index: Index, value: u32, order: Ordering) {
        self.index(index).store(value.to_le(), order);
    }

    #[inline]
    fn barrier(&self) {
        fence(Ordering::SeqCst);
    }

    #[inline]
    fn read(&self, offset: usize, words: &mut [u32]) {
        let source = self.words(offset, words.len());
        for (to, from) in words.iter_mut().zip(source) {
            *to = u32::from_le(from.load(Ordering::Relaxed));
        }
    }

    #[inline]
    fn write(&self, offset: usize, words: &[u32]) {
        for (from, to) in words.iter().zip(self.words(offset, words.len())) {
            to.store(from.to_le(), Ordering::Relaxed);
        }
    }
}
