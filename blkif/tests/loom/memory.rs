//! Ring memory of the model checker: indexes are its atomics; each entry is a plain cell, so that an
//! access which is not ordered against the other side's is reported.

use std::sync::atomic::Ordering;

use blkif::{Abi, Index, RingMemory};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, fence};

const HEADER: usize = 64;
const ENTRY_WORDS: usize = 28;

struct Inner {
    indexes: [AtomicU32; 4],
    entries: Vec<UnsafeCell<[u32; ENTRY_WORDS]>>,
}

// SAFETY: the cells are reached under the checker's eyes only, which reports unordered accesses.
unsafe impl Sync for Inner {}
// SAFETY: as above.
unsafe impl Send for Inner {}

/// One end's view.
#[derive(Clone)]
pub(crate) struct LoomMemory(Arc<Inner>);

impl LoomMemory {
    pub(crate) fn new(entries: usize) -> Self {
        Self(Arc::new(Inner {
            indexes: std::array::from_fn(|_| AtomicU32::new(0)),
            entries: (0..entries).map(|_| UnsafeCell::new([0; ENTRY_WORDS])).collect(),
        }))
    }

    /// The entry of a byte offset, and the word within it.
    fn place(&self, offset: usize) -> (&UnsafeCell<[u32; ENTRY_WORDS]>, usize) {
        let offset = offset - HEADER;
        let size = Abi::X86_64.entry_size();
        (&self.0.entries[offset / size], offset % size / 4)
    }
}

impl RingMemory for LoomMemory {
    fn size(&self) -> usize {
        HEADER + self.0.entries.len() * Abi::X86_64.entry_size()
    }

    fn load(&self, index: Index, order: Ordering) -> u32 {
        self.0.indexes[index.offset() / 4].load(order)
    }

    fn store(&self, index: Index, value: u32, order: Ordering) {
        self.0.indexes[index.offset() / 4].store(value, order);
    }

    fn barrier(&self) {
        fence(Ordering::SeqCst);
    }

    fn read(&self, offset: usize, words: &mut [u32]) {
        let (entry, word) = self.place(offset);
        // SAFETY: the checker reports a concurrent write; then this is a failed test.
        entry.with(|entry| {
            // SAFETY: the checker reports a concurrent write; then this is a failed test.
            let entry = unsafe { &*entry };
            words.copy_from_slice(&entry[word..word + words.len()]);
        });
    }

    fn write(&self, offset: usize, words: &[u32]) {
        if offset < HEADER {
            return; // The header's padding.
        }
        let (entry, word) = self.place(offset);
        entry.with_mut(|entry| {
            // SAFETY: the checker reports a concurrent access; then this is a failed test.
            let entry = unsafe { &mut *entry };
            entry[word..word + words.len()].copy_from_slice(words);
        });
    }
}
