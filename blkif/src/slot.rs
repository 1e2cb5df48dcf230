//! One entry of the ring, copied out of shared memory: the only thing requests are parsed from.
//!
//! The copy is laid out as x86_32 has it, without padding, whatever the guest's ABI (see `abi.rs`):
//!
//! ```text
//! word 0                           1 2   3 4            5 ..
//!      operation nr_segs  handle   id    sector_number  segments, 2 words each
//!      operation flag     handle   id    sector_number  nr_sectors, 2 words        (discard)
//!      operation ind. op  nr_segs  id    sector_number  handle, then grants        (indirect)
//! ```

use std::fmt;

use arrayvec::ArrayVec;

use crate::abi::Abi;
use crate::limits::{MAX_INDIRECT_PAGES, MAX_SEGMENTS};
use crate::memory::RingMemory;
use crate::wire;

/// Words of a copy.
pub(crate) const WORDS: usize = 27;
/// Words that every operation has.
const HEAD: usize = 5;
/// Words after them.
const BODY: usize = WORDS - HEAD;
/// Bytes of the largest ABI's entry.
const ENTRY_MAX: usize = 112;
/// Segments of 8 bytes in one page of an indirect request.
const SEGMENTS_PER_PAGE: u16 = 512;

/// A private copy of a ring entry, nothing of it checked.
#[derive(Clone, PartialEq, Eq)]
pub struct RawSlot {
    first: u32,
    fixed: [u32; HEAD - 1],
    body: [u32; BODY],
}

impl RawSlot {
    pub(crate) fn new(first: [u8; 4], id: u64, sector: u64, body: [u32; BODY]) -> Self {
        let ([id0, id1], [sector0, sector1]) = (split(id), split(sector));
        Self { first: u32::from_le_bytes(first), fixed: [id0, id1, sector0, sector1], body }
    }

    /// Copies the entry at a byte offset, each word once, and no more of it than its operation
    /// needs; what is not copied reads as zero.
    #[inline]
    pub(crate) fn load<M: RingMemory>(memory: &M, abi: Abi, offset: usize) -> Self {
        let mut slot = Self { first: 0, fixed: [0; HEAD - 1], body: [0; BODY] };
        let rest = offset + abi.body_offset();
        memory.read(offset, std::slice::from_mut(&mut slot.first));
        memory.read(rest, &mut slot.fixed);
        // From here on the operation is the copy's: what the guest writes now changes nothing.
        let needed = slot.body_words();
        if let Some(body) = slot.body.get_mut(..needed) {
            memory.read(rest + size_of_val(&slot.fixed), body);
        }
        slot
    }

    /// Writes the whole entry, padding zeroed.
    pub(crate) fn store<M: RingMemory>(&self, memory: &M, abi: Abi, offset: usize) {
        let rest = offset + abi.body_offset();
        let first = [self.first, 0];
        memory.write(offset, if abi.is_padded() { &first } else { &first[..1] });
        memory.write(rest, &self.fixed);
        memory.write(rest + size_of_val(&self.fixed), &self.body);
    }

    /// The slot of an entry's bytes as a guest of `abi` lays them out; bytes beyond the end read as
    /// zero. What is left uncopied from a ring is kept here.
    pub fn from_bytes(abi: Abi, bytes: &[u8]) -> Self {
        let word = |at: usize| {
            let mut word = [0; 4];
            for (to, from) in word.iter_mut().zip(bytes.iter().skip(at)) {
                *to = *from;
            }
            u32::from_le_bytes(word)
        };
        let rest = abi.body_offset();
        Self {
            first: word(0),
            fixed: std::array::from_fn(|i| word(rest + 4 * i)),
            body: std::array::from_fn(|i| word(rest + 4 * (HEAD - 1 + i))),
        }
    }

    /// The entry's bytes for a guest of `abi`: `abi.entry_size()` of them, padding zero.
    pub fn to_bytes(&self, abi: Abi) -> ArrayVec<u8, ENTRY_MAX> {
        let mut bytes = ArrayVec::new();
        bytes.extend(self.first.to_le_bytes());
        if abi.is_padded() {
            bytes.extend([0; 4]);
        }
        bytes.extend(self.fixed.iter().chain(&self.body).flat_map(|word| word.to_le_bytes()));
        bytes
    }

    /// `operation`, DIX flag included.
    #[inline]
    pub fn operation(&self) -> u8 {
        let [operation, ..] = self.first.to_le_bytes();
        operation
    }

    /// `operation` without the DIX flag.
    #[inline]
    pub(crate) fn base_operation(&self) -> u8 {
        self.operation() & !wire::OP_DIX_FLAG
    }

    /// Whether the DIX flag is set.
    #[inline]
    pub fn is_flagged(&self) -> bool {
        self.operation() & wire::OP_DIX_FLAG != 0
    }

    /// The second byte: `nr_segments`, a discard's `flag`, an indirect request's `indirect_op`.
    #[inline]
    pub(crate) fn second(&self) -> u8 {
        let [_, second, ..] = self.first.to_le_bytes();
        second
    }

    /// Bytes 2 and 3: `handle`, an indirect request's `nr_segments`.
    #[inline]
    fn third(&self) -> u16 {
        let [_, _, low, high] = self.first.to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    /// How many segments the request says it has; none for a discard and for unknown operations.
    #[inline]
    pub fn nr_segments(&self) -> u16 {
        match self.base_operation() {
            wire::OP_READ
            | wire::OP_WRITE
            | wire::OP_WRITE_BARRIER
            | wire::OP_FLUSH_DISKCACHE
            | wire::OP_INTEGRITY => u16::from(self.second()),
            wire::OP_INDIRECT => self.third(),
            _ => 0,
        }
    }

    /// `handle`.
    #[inline]
    pub fn handle(&self) -> u16 {
        if self.base_operation() != wire::OP_INDIRECT {
            return self.third();
        }
        let [handle, ..] = self.body;
        let [low, high, ..] = handle.to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    /// `id`: the guest's, opaque.
    #[inline]
    pub fn id(&self) -> u64 {
        let [low, high, ..] = self.fixed;
        join(low, high)
    }

    /// `sector_number`.
    #[inline]
    pub fn sector(&self) -> u64 {
        let [.., low, high] = self.fixed;
        join(low, high)
    }

    /// A discard's `nr_sectors`.
    #[inline]
    pub(crate) fn nr_sectors(&self) -> u64 {
        let [low, high, ..] = self.body;
        join(low, high)
    }

    /// The segments' words, unchecked: of at most eleven segments.
    #[inline]
    pub(crate) fn segment_words(&self) -> &[[u32; 2]] {
        let (segments, _) = self.body.as_chunks();
        segments
    }

    /// An indirect request's grants: all eight.
    #[inline]
    pub(crate) fn grants(&self) -> &[u32] {
        self.body.get(1..=MAX_INDIRECT_PAGES).unwrap_or_default()
    }

    /// What a response must carry as `operation`: what was sent, but of an indirect request the
    /// operation inside (Linux's blkfront compares with that), with the flag that is outside.
    #[inline]
    pub fn echo(&self) -> u8 {
        if self.base_operation() == wire::OP_INDIRECT {
            self.second() | (self.operation() & wire::OP_DIX_FLAG)
        } else {
            self.operation()
        }
    }

    /// Words of the body that the operation uses.
    #[inline]
    fn body_words(&self) -> usize {
        match self.base_operation() {
            wire::OP_READ
            | wire::OP_WRITE
            | wire::OP_WRITE_BARRIER
            | wire::OP_FLUSH_DISKCACHE
            | wire::OP_INTEGRITY => 2 * usize::from(self.second()).min(MAX_SEGMENTS),
            wire::OP_DISCARD => 2,
            wire::OP_INDIRECT => 1 + indirect_pages(self.third()).min(MAX_INDIRECT_PAGES),
            _ => 0,
        }
    }
}

/// Pages that hold `count` segments of an indirect request.
#[inline]
pub(crate) fn indirect_pages(count: u16) -> usize {
    usize::from(count.div_ceil(SEGMENTS_PER_PAGE))
}

const _: () = assert!(BODY == 2 * MAX_SEGMENTS);

fn join(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// The two words of a 64-bit field.
pub(crate) fn split(value: u64) -> [u32; 2] {
    let [b0, b1, b2, b3, b4, b5, b6, b7] = value.to_le_bytes();
    [u32::from_le_bytes([b0, b1, b2, b3]), u32::from_le_bytes([b4, b5, b6, b7])]
}

impl fmt::Debug for RawSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawSlot")
            .field("operation", &self.operation())
            .field("nr_segments", &self.nr_segments())
            .field("handle", &self.handle())
            .field("id", &self.id())
            .field("sector", &self.sector())
            .finish_non_exhaustive()
    }
}
