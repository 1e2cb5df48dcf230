//! What a backend says of the disk before Connected.

use super::NegotiationError;
use super::value::{Read, boolean, optional, required_u32, u32_or};
use crate::names;
use crate::units::Sectors;
use crate::wire;

/// The `info` node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Info {
    /// VDISK_CDROM.
    pub cdrom: bool,
    /// VDISK_REMOVABLE.
    pub removable: bool,
    /// VDISK_READONLY.
    pub read_only: bool,
}

impl Info {
    /// The number on the wire.
    pub fn bits(self) -> u32 {
        let bit = |set, bit| if set { bit } else { 0 };
        bit(self.cdrom, wire::VDISK_CDROM)
            | bit(self.removable, wire::VDISK_REMOVABLE)
            | bit(self.read_only, wire::VDISK_READONLY)
    }

    /// The known bits of a number; others are ignored.
    pub fn from_bits(bits: u32) -> Info {
        Info {
            cdrom: bits & wire::VDISK_CDROM != 0,
            removable: bits & wire::VDISK_REMOVABLE != 0,
            read_only: bits & wire::VDISK_READONLY != 0,
        }
    }
}

/// Discard, as offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiscardNodes {
    /// Bytes of an extent.
    pub granularity: u32,
    /// Bytes before the first extent.
    pub alignment: u32,
    /// Whether a discard can be secure.
    pub secure: bool,
}

/// The nodes a backend writes, all in one transaction, before its state becomes Connected.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Properties {
    /// The disk's size, in sectors of 512 bytes whatever `sector_size` is.
    pub sectors: Sectors,
    /// Bytes of a logical block: a power of two, at least 512.
    pub sector_size: u32,
    /// Bytes of a physical block.
    pub physical_sector_size: u32,
    /// What kind of disk.
    pub info: Info,
    /// FLUSH_DISKCACHE is understood.
    pub flush: bool,
    /// WRITE_BARRIER is understood.
    pub barrier: bool,
    /// Grants may stay mapped.
    pub persistent: bool,
    /// DISCARD is understood.
    pub discard: Option<DiscardNodes>,
}

impl Properties {
    /// The nodes for the backend's directory, before Connected.
    pub fn nodes(&self) -> Vec<(&'static str, String)> {
        let flag = |set: bool| if set { "1" } else { "0" }.to_owned();
        let mut nodes = vec![
            (names::SECTORS, self.sectors.to_string()),
            (names::SECTOR_SIZE, self.sector_size.to_string()),
            (names::PHYSICAL_SECTOR_SIZE, self.physical_sector_size.to_string()),
            (names::INFO, self.info.bits().to_string()),
            (names::FEATURE_FLUSH_CACHE, flag(self.flush)),
            (names::FEATURE_BARRIER, flag(self.barrier)),
            (names::FEATURE_PERSISTENT, flag(self.persistent)),
            (names::FEATURE_DISCARD, flag(self.discard.is_some())),
        ];
        if let Some(discard) = self.discard {
            nodes.extend([
                (names::DISCARD_GRANULARITY, discard.granularity.to_string()),
                (names::DISCARD_ALIGNMENT, discard.alignment.to_string()),
                (names::DISCARD_SECURE, flag(discard.secure)),
            ]);
        }
        nodes
    }

    /// Reads a backend's nodes, for a frontend.
    ///
    /// # Errors
    /// A node that is missing or no number of its range.
    pub fn parse(read: &dyn Fn(&str) -> Option<Vec<u8>>) -> Result<Properties, NegotiationError> {
        let sector_size = required_u32(read, names::SECTOR_SIZE, 512)?;
        if !sector_size.is_power_of_two() {
            return Err(NegotiationError::Malformed { node: names::SECTOR_SIZE.to_owned() });
        }
        let Some(sectors) = optional(read, names::SECTORS, 0, Sectors::MAX.0)? else {
            return Err(NegotiationError::Missing { node: names::SECTORS.to_owned() });
        };
        let most = u32::MAX;
        Ok(Properties {
            sectors: Sectors(sectors),
            sector_size,
            physical_sector_size: u32_or(read, names::PHYSICAL_SECTOR_SIZE, sector_size, 512, most)?,
            info: Info::from_bits(u32_or(read, names::INFO, 0, 0, most)?),
            flush: boolean(read, names::FEATURE_FLUSH_CACHE)?,
            barrier: boolean(read, names::FEATURE_BARRIER)?,
            persistent: boolean(read, names::FEATURE_PERSISTENT)?,
            discard: Self::discard(read, sector_size)?,
        })
    }

    fn discard(read: Read<'_>, sector_size: u32) -> Result<Option<DiscardNodes>, NegotiationError> {
        if !boolean(read, names::FEATURE_DISCARD)? {
            return Ok(None);
        }
        let most = u32::MAX;
        Ok(Some(DiscardNodes {
            granularity: u32_or(read, names::DISCARD_GRANULARITY, sector_size, 1, most)?,
            alignment: u32_or(read, names::DISCARD_ALIGNMENT, 0, 0, most)?,
            secure: boolean(read, names::DISCARD_SECURE)?,
        }))
    }
}
