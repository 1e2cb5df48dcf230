//! A domain's grant table, in memory shared with everybody who copies from or to that domain.
//!
//! ```text
//!   0       dead: not 0 once the domain is gone
//!   4096    one cache line per copier: odd while that copier is inside a batch
//!   20480   entries, 8 bytes each: flags u16, domid u16, frame u32 (grant_entry_v1)
//! ```
//!
//! Only the broker writes entries; copiers read them. A copy holds no pin on its entry as Xen's does.
//! Instead a revocation waits until every copier that was inside a batch has left it, which costs the
//! copier one fence per batch and nothing per copy:
//!
//! ```text
//!   copier: slot := odd;      fence; read entries, copy; slot := even
//!   broker: entry := invalid; fence; wait for each odd slot to change; reuse the page
//! ```
//!
//! With both fences sequentially consistent, either the copier sees the entry invalid or the broker sees
//! the slot odd. A copier that was killed inside a batch has its slot cleared by the broker.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64, fence};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use crate::memory::Region;
use crate::{DomId, GrantRef, GrantStatus};

/// Copiers at work on one domain's pages at a time.
pub(super) const COPIERS: usize = 256;

/// The first reference ever given out; Xen's toolstack owns those below (GNTTAB_NR_RESERVED_ENTRIES).
pub(super) const FIRST_REFERENCE: u32 = 8;

const SLOTS: usize = 4096;
const SLOT: usize = 64;
const ENTRIES: usize = SLOTS + COPIERS * SLOT;

/// GTF_permit_access, as the entry's type.
const PERMIT_ACCESS: u16 = 1;
const TYPE_MASK: u16 = 3;
const READONLY: u16 = 1 << 2;
const READING: u16 = 1 << 3;
const WRITING: u16 = 1 << 4;

/// A grant table entry, version 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) flags: u16,
    pub(super) domain: DomId,
    pub(super) frame: u32,
}

impl Entry {
    /// Permits `domain` to access `frame`.
    pub(super) fn permit(domain: DomId, frame: u32, readonly: bool) -> Self {
        Self { flags: PERMIT_ACCESS | if readonly { READONLY } else { 0 }, domain, frame }
    }

    /// The entry while mapped: whoever revokes it can see that.
    pub(super) fn in_use(self, mapped: bool) -> Self {
        let bits = if self.flags & READONLY != 0 { READING } else { READING | WRITING };
        Self { flags: if mapped { self.flags | bits } else { self.flags & !(READING | WRITING) }, ..self }
    }

    /// Whether `who` may read it, or write it. What Xen says to everything else is the general error.
    #[inline]
    pub(super) fn check(self, who: DomId, write: bool) -> GrantStatus {
        let permitted = self.flags & TYPE_MASK == PERMIT_ACCESS
            && self.domain == who
            && !(write && self.flags & READONLY != 0);
        if permitted { GrantStatus::OKAY } else { GrantStatus::GENERAL_ERROR }
    }

    fn encode(self) -> u64 {
        u64::from(self.flags) | u64::from(self.domain.0) << 16 | u64::from(self.frame) << 32
    }

    #[inline]
    fn decode(word: u64) -> Self {
        Self { flags: word as u16, domain: DomId((word >> 16) as u16), frame: (word >> 32) as u32 }
    }
}

/// A memory file of `len` bytes, all zero, none allocated yet.
pub(super) fn memory_file(name: &str, len: usize) -> io::Result<OwnedFd> {
    let file = memfd_create(name, MemfdFlags::CLOEXEC)?;
    ftruncate(&file, len as u64)?;
    Ok(file)
}

/// The table, mapped.
pub(super) struct GrantTable {
    region: Region,
    entries: u32,
}

impl GrantTable {
    /// Makes an empty table; the file is for others to [`attach`](Self::attach).
    pub(super) fn create(entries: u32) -> io::Result<(OwnedFd, Self)> {
        let file = memory_file("dixback-sim-grants", Self::size(entries))?;
        let table = Self::attach(file.as_fd(), entries)?;
        Ok((file, table))
    }

    /// Maps another's table.
    pub(super) fn attach(file: BorrowedFd<'_>, entries: u32) -> io::Result<Self> {
        Ok(Self { region: Region::new(file, Self::size(entries))?, entries })
    }

    fn size(entries: u32) -> usize {
        ENTRIES + entries as usize * 8
    }

    /// How many entries it has.
    pub(super) fn entries(&self) -> u32 {
        self.entries
    }

    /// Whether the domain is gone.
    #[inline]
    pub(super) fn is_dead(&self) -> bool {
        self.region.word32(0).load(Acquire) != 0
    }

    /// Says that the domain is gone.
    pub(super) fn set_dead(&self) {
        self.region.word32(0).store(1, SeqCst);
    }

    /// The entry, or what Xen says to a reference beyond the table.
    #[inline]
    pub(super) fn entry(&self, gref: GrantRef) -> Result<Entry, GrantStatus> {
        self.word(gref).map(|word| Entry::decode(word.load(Acquire))).ok_or(GrantStatus::BAD_REFERENCE)
    }

    /// Writes an entry; the broker's alone. Panics on a reference beyond the table.
    pub(super) fn set(&self, gref: GrantRef, entry: Entry) {
        self.word(gref)
            .expect("the broker gives out references inside the table")
            .store(entry.encode(), Release);
    }

    /// Makes an entry permit nothing, and gives what it was.
    pub(super) fn invalidate(&self, gref: GrantRef) -> Entry {
        Entry::decode(self.word(gref).expect("the broker gave it out").swap(0, SeqCst))
    }

    #[inline]
    fn word(&self, gref: GrantRef) -> Option<&AtomicU64> {
        (gref.0 < self.entries).then(|| self.region.word64(ENTRIES + gref.0 as usize * 8))
    }

    /// The slot of copier `index`.
    pub(super) fn slot(&self, index: usize) -> &AtomicU32 {
        assert!(index < COPIERS);
        self.region.word32(SLOTS + index * SLOT)
    }

    /// Waits until every copier of `slots` that was inside a batch has left it. `false` if one has not
    /// within a time in which only a stopped process does not (then nothing may be reused).
    pub(super) fn quiesce(&self, slots: impl Iterator<Item = usize>) -> bool {
        // Pairs with the fence in `enter`; see the module's head.
        fence(SeqCst);
        let started = Instant::now();
        for slot in slots {
            let word = self.slot(slot);
            let seen = word.load(Acquire);
            while seen & 1 == 1 && word.load(Acquire) == seen {
                if started.elapsed() > Duration::from_millis(500) {
                    return false;
                }
                std::thread::yield_now();
            }
        }
        true
    }
}

/// Marks the start of a batch in a copier's slot.
#[inline]
pub(super) fn enter(slot: &AtomicU32) {
    slot.store(slot.load(Relaxed) | 1, Relaxed);
    // The entries are to be read after the mark is visible.
    fence(SeqCst);
}

/// Marks its end. The number in the slot is another one than before, so that whoever waits for this batch
/// does not mistake the next one for it.
#[inline]
pub(super) fn leave(slot: &AtomicU32) {
    // Release: the copies are done before the mark is gone.
    slot.store(slot.load(Relaxed).wrapping_add(1), Release);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_when_encoded_then_has_the_layout_of_grant_entry_v1() {
        let entry = Entry::permit(DomId(0x1234), 0x89ab_cdef, true);
        assert_eq!(entry.encode().to_le_bytes(), [0x05, 0, 0x34, 0x12, 0xef, 0xcd, 0xab, 0x89]);
        assert_eq!(Entry::decode(entry.encode()), entry);
    }

    #[test]
    fn entry_when_in_use_then_flags_say_how() {
        let writable = Entry::permit(DomId(0), 1, false);
        assert_eq!(writable.in_use(true).flags, PERMIT_ACCESS | READING | WRITING);
        assert_eq!(writable.in_use(true).in_use(false), writable);
        assert_eq!(Entry::permit(DomId(0), 1, true).in_use(true).flags, PERMIT_ACCESS | READONLY | READING);
    }

    #[test]
    fn quiesce_when_a_copier_never_leaves_then_says_so() {
        let (_file, table) = GrantTable::create(16).unwrap();
        assert!(table.quiesce(0..COPIERS));
        enter(table.slot(3));
        assert!(table.quiesce(0..3));
        assert!(!table.quiesce(0..COPIERS));
        leave(table.slot(3));
        assert!(table.quiesce(0..COPIERS));
    }
}
