//! Nothing is read or written outside the buffers: each of them lies flush against a page that cannot be touched, at
//! its end or at its start, for every kernel, every interval and every number of intervals that takes another way.

mod common;

use std::ffi::c_void;
use std::ptr::null_mut;

use common::{GUARDS, INTERVALS, noise, on_every_kernel, with_metadata};
use integrity::{Expected, PiType, Profile};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

const PAGE: usize = 4096;

/// Memory between two pages that cannot be touched.
struct Fenced {
    base: *mut c_void,
    length: usize,
}

impl Fenced {
    fn new(length: usize) -> Fenced {
        let length = length.next_multiple_of(PAGE).max(PAGE);
        let whole = length + 2 * PAGE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nobody's memory.
        let base = unsafe {
            mmap_anonymous(null_mut(), whole, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE).unwrap()
        };
        for fence in [base, base.wrapping_byte_add(PAGE + length)] {
            // SAFETY: both pages are the mapping's own, and nothing refers to them.
            unsafe { mprotect(fence, PAGE, MprotectFlags::empty()).unwrap() };
        }
        Fenced { base, length }
    }

    /// The last or the first `length` bytes.
    fn bytes(&mut self, length: usize, at_the_end: bool) -> &mut [u8] {
        assert!(length <= self.length);
        let start = PAGE + if at_the_end { self.length - length } else { 0 };
        let first = self.base.wrapping_byte_add(start).cast::<u8>();
        // SAFETY: within the accessible pages, which live as long as self and are borrowed with it.
        unsafe { std::slice::from_raw_parts_mut(first, length) }
    }
}

impl Drop for Fenced {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made; no borrow of it is left.
        unsafe { munmap(self.base, self.length + 2 * PAGE).unwrap() };
    }
}

struct Arena {
    source: Fenced,
    copy: Fenced,
    metadata: Fenced,
}

fn exercise(profile: &Profile, arena: &mut Arena, count: usize, at_the_end: bool) {
    let length = count * profile.interval();
    let source = arena.source.bytes(length, at_the_end);
    source.copy_from_slice(&noise(length, count as u64));
    let source = &*source;
    let copy = arena.copy.bytes(length, at_the_end);
    let metadata = arena.metadata.bytes(profile.metadata_len(length), at_the_end);
    metadata.fill(0x3C);
    let expected = Expected::new(70);
    profile.generate(source, metadata, 70, 1);
    assert!(profile.verify(source, metadata, &expected).is_ok());
    profile.copy_generate(&[source], copy, metadata, 70, 1);
    copy.fill(0);
    assert!(profile.copy_verify(&[source], copy, metadata, &expected).is_ok());
    assert_eq!(copy, source);
    // Segments that begin and end at the fences, and one that is cut within an interval.
    let middle = length / 2 + 1;
    let segments = [&source[..middle], &source[middle..]];
    assert!(profile.verify_segments(&segments, metadata, &expected).is_ok());
    profile.copy_generate(&segments, copy, metadata, 70, 1);
    assert_eq!(copy, source);
    profile.remap(metadata, 70, 5);
    profile.remap(metadata, 5, 70);
    assert!(profile.verify(source, metadata, &expected).is_ok());
}

#[test]
fn operations_when_buffers_touch_guard_pages_then_nothing_outside_is_touched() {
    let name = "operations_when_buffers_touch_guard_pages_then_nothing_outside_is_touched";
    on_every_kernel(name, |kernel| {
        let longest = 67 * 1024;
        let mut arena = Arena {
            source: Fenced::new(9 * 65536),
            copy: Fenced::new(9 * 65536),
            metadata: Fenced::new(longest),
        };
        for guard in GUARDS {
            let tuple = guard.tuple_size() as u16;
            for (size, offset) in [(tuple, 0), (tuple + 7, 5), (64, 64 - tuple as u8)] {
                for interval in INTERVALS {
                    let profile = with_metadata(guard, interval, size, offset, PiType::Type1);
                    let profile = profile.with_kernel(kernel).unwrap();
                    let counts: &[usize] = match interval {
                        512 | 1024 => &[1, 2, 3, 4, 5, 6, 7, 8, 9, 63, 64, 65, 66, 67, 68],
                        2048 | 4096 => &[1, 2, 3, 4, 5, 6, 7, 8, 9],
                        _ => &[1, 2, 5],
                    };
                    for &count in counts {
                        exercise(&profile, &mut arena, count, true);
                        exercise(&profile, &mut arena, count, false);
                    }
                }
            }
        }
    });
}

#[test]
fn operations_when_lengths_shift_the_alignment_then_nothing_outside_is_touched() {
    let name = "operations_when_lengths_shift_the_alignment_then_nothing_outside_is_touched";
    on_every_kernel(name, |kernel| {
        let mut source = Fenced::new(8 * PAGE);
        let mut copy = Fenced::new(8 * PAGE);
        for guard in GUARDS {
            let profile = with_metadata(guard, 512, 16, 0, PiType::Type1).with_kernel(kernel).unwrap();
            let mut metadata = vec![0; 16 * 5];
            for shift in 0..=64 {
                // The bytes before the data take part in no interval: they only shift it off the fence.
                let whole = source.bytes(5 * 512 + shift, false);
                let data = &whole[shift..];
                let whole = copy.bytes(5 * 512 + shift, true);
                let to = &mut whole[..5 * 512];
                profile.copy_generate(&[data], to, &mut metadata, 0, 0);
                assert!(profile.verify(to, &metadata, &Expected::new(0)).is_ok());
            }
        }
    });
}
