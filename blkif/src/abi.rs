//! The three layouts a guest may choose, as far as they differ.
//!
//! All of them put one 32-bit word (operation, count, handle) first. Where a 64-bit integer is
//! aligned to 8 bytes (x86_64, arm) a padding word follows it, where it is aligned to 4 (x86_32)
//! none does; everything after that word lies the same. So the layouts differ in where the body
//! starts, and in the sizes that follow from it:
//!
//! | | x86_64, arm | x86_32 |
//! |---|---|---|
//! | body (id, sector_number, ...) | 8 | 4 |
//! | entry of the ring | 112 | 108 |
//! | response | 16 | 12 |

use std::fmt;

/// Bytes of the indexes and their padding before the ring's first entry (ring.h).
pub(crate) const RING_HEADER: usize = 64;

/// The machine ABI of ring entries: the frontend's `protocol` node (Xen's io/protocols.h).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Abi {
    /// `x86_64-abi`.
    X86_64,
    /// `x86_32-abi`: 64-bit integers are aligned to 4 bytes.
    X86_32,
    /// `arm-abi`, 32-bit and 64-bit arm alike: laid out as x86_64.
    Arm,
}

impl Abi {
    /// All of them.
    pub const ALL: [Abi; 3] = [Abi::X86_64, Abi::X86_32, Abi::Arm];

    /// What a missing `protocol` node means. blkif.h says "native"; on x86, Linux's and QEMU's
    /// backends read x86_32, and old guests rely on it.
    pub const fn when_absent() -> Abi {
        if cfg!(any(target_arch = "x86", target_arch = "x86_64")) { Abi::X86_32 } else { Abi::Arm }
    }

    /// The layout programs on this machine use natively.
    pub const fn native() -> Abi {
        if cfg!(target_arch = "x86_64") {
            Abi::X86_64
        } else if cfg!(target_arch = "x86") {
            Abi::X86_32
        } else {
            Abi::Arm
        }
    }

    /// The value of the `protocol` node.
    pub const fn name(self) -> &'static str {
        match self {
            Abi::X86_64 => "x86_64-abi",
            Abi::X86_32 => "x86_32-abi",
            Abi::Arm => "arm-abi",
        }
    }

    /// The ABI of a `protocol` node's value.
    pub fn from_name(name: &[u8]) -> Option<Abi> {
        Abi::ALL.into_iter().find(|abi| abi.name().as_bytes() == name)
    }

    /// Whether 64-bit integers are aligned to 8 bytes, so that padding precedes `id` and ends a
    /// response.
    pub(crate) const fn is_padded(self) -> bool {
        !matches!(self, Abi::X86_32)
    }

    /// Bytes of one entry of the ring: a request or, at its start, a response.
    pub const fn entry_size(self) -> usize {
        if self.is_padded() { 112 } else { 108 }
    }

    /// Bytes of a response.
    pub const fn response_size(self) -> usize {
        if self.is_padded() { 16 } else { 12 }
    }

    /// Where `id` starts in a request.
    pub const fn body_offset(self) -> usize {
        if self.is_padded() { 8 } else { 4 }
    }

    /// Entries of a ring of `bytes` bytes: as many as fit, rounded down to a power of two (ring.h,
    /// `__RING_SIZE`); 0 where none fits.
    pub const fn entries(self, bytes: usize) -> u32 {
        let fit = bytes.saturating_sub(RING_HEADER) / self.entry_size();
        match fit.checked_ilog2() {
            // A ring beyond 2^31 entries would break the index arithmetic; no real one comes near.
            Some(order) if order < 31 => 1 << order,
            _ => 0,
        }
    }
}

impl fmt::Display for Abi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
