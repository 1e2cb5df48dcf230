//! Units of the protocol.

use std::fmt;

/// Bytes of a sector: 512, whatever a disk's sector-size says (blkif.h counts everything in these).
pub const SECTOR_SIZE: usize = 512;

/// Bytes of a granted page: 4096 on every architecture (ring.h, XEN_PAGE_SHIFT).
pub const PAGE_SIZE: usize = 4096;

/// A grant reference, meaningful in the domain that wrote it only.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct GrantRef(pub u32);

impl fmt::Display for GrantRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A count of sectors, or a position in sectors from the disk's start; always 512 bytes each.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Sectors(pub u64);

impl Sectors {
    /// The largest position whose byte offset still fits a signed 64-bit file offset.
    pub const MAX: Sectors = Sectors(i64::MAX.unsigned_abs() >> 9);

    /// The same in bytes, if that is within a file offset's range.
    pub fn bytes(self) -> Option<u64> {
        if self > Self::MAX { None } else { Some(self.0 << 9) }
    }
}

impl fmt::Display for Sectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
