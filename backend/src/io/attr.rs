//! The PI attribute of an io_uring read or write (`struct io_uring_attr_pi`, linux/io_uring.h; Linux 6.14).
//!
//! The entry says where the attribute is, the attribute where the PI is. The `io-uring` crate has no words for it yet.

use io_uring::squeue;
use std::ptr::NonNull;

/// IORING_RW_ATTR_FLAG_PI: the one attribute there is.
const TYPE_PI: u64 = 1;
/// Where `attr_ptr` and `attr_type_mask` lie in `struct io_uring_sqe`.
const POINTER: usize = 48;
const TYPE_MASK: usize = 56;

/// `struct io_uring_attr_pi`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PiAttr {
    /// [`PiAttr::CHECK_GUARD`], [`PiAttr::CHECK_REFERENCE`].
    pub flags: u16,
    /// What the device compares application tags with; it is not asked to.
    pub app_tag: u16,
    /// Bytes of metadata at `addr`.
    pub len: u32,
    /// Where the metadata is. On a write the kernel changes reference tags in place.
    pub addr: u64,
    /// The reference tag that the first interval has in the metadata; the kernel maps it, and those that follow, to
    /// and from the device's.
    pub seed: u64,
    /// Zero.
    pub reserved: u64,
}

impl PiAttr {
    /// The device checks guards (IO_INTEGRITY_CHK_GUARD, linux/fs.h).
    pub const CHECK_GUARD: u16 = 1;
    /// The device checks reference tags against its own block numbers (IO_INTEGRITY_CHK_REFTAG).
    pub const CHECK_REFERENCE: u16 = 2;
}

const _: () = assert!(size_of::<PiAttr>() == 32);
const _: () = assert!(size_of::<squeue::Entry>() == 64);

/// Gives a read or write its PI. The kernel reads the attribute when it takes the entry.
pub(super) fn attach(entry: &mut squeue::Entry, attr: NonNull<PiAttr>) {
    put(entry, POINTER, attr.as_ptr() as u64);
    put(entry, TYPE_MASK, TYPE_PI);
}

/// Gives a read or write an attribute of a type that no kernel knows: one that knows attributes refuses it, an older
/// one does not look.
pub(crate) fn attach_unknown(entry: &mut squeue::Entry) {
    put(entry, TYPE_MASK, 1 << 63);
}

fn put(entry: &mut squeue::Entry, at: usize, value: u64) {
    debug_assert!(at + 8 <= size_of::<squeue::Entry>());
    let place = std::ptr::from_mut(entry).cast::<u8>().wrapping_add(at).cast::<u64>();
    // SAFETY: an Entry is a repr(C) wrapper of the kernel's 64 bytes, any of whose bytes may hold anything; `at` is a
    // multiple of 8 inside them.
    unsafe { place.write_unaligned(value) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use io_uring::{opcode, types};

    #[test]
    fn attach_when_done_then_the_entry_names_the_attribute_and_nothing_else_changed() {
        let bytes = |entry: &squeue::Entry| {
            // SAFETY: an entry is 64 initialised bytes.
            unsafe { std::ptr::from_ref(entry).cast::<[u8; 64]>().read() }
        };
        let mut entry = opcode::Read::new(types::Fd(3), std::ptr::null_mut(), 512).offset(7).build();
        let before = bytes(&entry);
        let mut attr = PiAttr::default();
        attach(&mut entry, NonNull::from(&mut attr));
        let after = bytes(&entry);
        assert_eq!(after[..POINTER], before[..POINTER]);
        assert_eq!(after[POINTER..TYPE_MASK], (&raw const attr as u64).to_ne_bytes());
        assert_eq!(after[TYPE_MASK..], 1u64.to_ne_bytes());
    }
}
