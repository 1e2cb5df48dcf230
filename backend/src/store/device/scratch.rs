//! Buffers for the PI of requests that the kernel has: private, contiguous, on pages of their own.
//!
//! The kernel changes reference tags in the buffer of a write, so it gets a copy, and what the guest sent stays as it
//! was for a second attempt. With the PI go the attributes that name it, one for each part of the request.
//!
//! ```text
//! | PI of part 0, part 1, ..  (whole pages) | attribute of part 0 | of part 1 | ..
//! ```

use crate::io::{PAGE, PiAttr};
use memmap2::{MmapOptions, MmapRaw};
use std::io;
use std::ops::Range;
use std::ptr::NonNull;

/// One request's buffer.
#[derive(Debug)]
pub(super) struct Scratch {
    memory: MmapRaw,
    /// Bytes for PI, whole pages.
    bytes: usize,
    /// Attributes after them.
    attrs: usize,
}

impl Scratch {
    fn new(bytes: usize, attrs: usize) -> io::Result<Self> {
        let bytes = bytes.next_multiple_of(PAGE);
        let memory = MmapOptions::new().len(bytes + attrs * size_of::<PiAttr>()).map_anon()?;
        Ok(Self { memory: MmapRaw::from(memory), bytes, attrs })
    }

    /// Where byte `at` of the PI is, for the kernel.
    pub fn pointer(&self, at: usize) -> *mut u8 {
        debug_assert!(at < self.bytes);
        self.memory.as_mut_ptr().wrapping_add(at)
    }

    /// The PI, while the kernel does not have it.
    pub fn pi(&self, range: Range<usize>) -> &[u8] {
        assert!(range.start <= range.end && range.end <= self.bytes);
        // SAFETY: inside the mapping, as just checked; anonymous memory is initialised. Only the request that owns this
        // buffer hands it to the kernel, and looks at it when nothing is under way.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().wrapping_add(range.start), range.len()) }
    }

    /// The same, to write.
    pub fn pi_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        assert!(range.start <= range.end && range.end <= self.bytes);
        let start = self.memory.as_mut_ptr().wrapping_add(range.start);
        // SAFETY: as in `pi`; the buffer is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(start, range.len()) }
    }

    /// Puts attribute number `index` and says where it is.
    pub fn put_attr(&mut self, index: usize, attr: PiAttr) -> NonNull<PiAttr> {
        assert!(index < self.attrs);
        let at = self.bytes + index * size_of::<PiAttr>();
        let place = self.memory.as_mut_ptr().wrapping_add(at).cast::<PiAttr>();
        // SAFETY: inside the mapping; pages are aligned for it, and so are its multiples of 32 bytes.
        unsafe { place.write(attr) };
        // The mapping's start is not null, so no place in it is.
        NonNull::new(place).unwrap_or(NonNull::dangling())
    }
}

/// The buffers of a queue that no request has.
#[derive(Debug, Default)]
pub(super) struct Shelf(Vec<Scratch>);

impl Shelf {
    /// A buffer with room for `bytes` of PI and `attrs` attributes. Memory is mapped only while requests grow in size
    /// or number.
    pub fn take(&mut self, bytes: usize, attrs: usize) -> io::Result<Scratch> {
        match self.0.pop() {
            Some(scratch) if scratch.bytes >= bytes && scratch.attrs >= attrs => Ok(scratch),
            // Too small goes: the next of its kind is large enough for all.
            Some(small) => Scratch::new(bytes.max(small.bytes), attrs.max(small.attrs)),
            None => Scratch::new(bytes, attrs.next_multiple_of(PAGE / size_of::<PiAttr>())),
        }
    }

    pub fn give_back(&mut self, scratch: Scratch) {
        self.0.push(scratch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shelf_when_asked_for_more_grows_and_then_gives_the_same_again() {
        let mut shelf = Shelf::default();
        let small = shelf.take(64, 1).unwrap();
        shelf.give_back(small);
        let mut large = shelf.take(3 * PAGE + 1, 300).unwrap();
        assert_eq!(large.bytes, 4 * PAGE);
        large.pi_mut(4 * PAGE - 1..4 * PAGE).fill(7);
        let attr = PiAttr { seed: 9, ..PiAttr::default() };
        let place = large.put_attr(299, attr);
        // SAFETY: just written, and nobody else has it.
        assert_eq!(unsafe { place.read() }, attr);
        let at = large.pointer(0);
        shelf.give_back(large);
        let again = shelf.take(64, 1).unwrap();
        assert_eq!((again.pointer(0), again.pi(4 * PAGE - 1..4 * PAGE)), (at, &[7][..]));
    }
}
